//! One shard: a thread with its own sockets, transactions and forwarded requests.
//!
//! Each turn takes a batch of what came in, deals with it, and flushes the answers, holding the authority
//! table all the while (see [`crate::AuthorityTable`]). REGISTERs wait for the disk without holding up the
//! shard.

mod admission;
mod answers;
mod authentication;
mod by_copy;
mod call_records;
mod forward;
mod gruu;
mod held;
mod hosts;
mod journeys;
mod keep_alives;
pub mod legs;
mod location;
pub mod mail;
mod outputs;
mod passed_on;
mod reach;
mod receive;
mod reg_event;
mod register;
mod remembered;
mod request;
mod respond;
mod sending_on;
mod sent;
mod settings;
mod steering;

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use hashbrown::HashMap;
use model::{AddressOfRecord, Chance, FlowId, Instant, Peer, ServerName, limits};
use proxy::Proxy;
use registrar::{Command, OkHeaders, authentication::Authenticator};
use sip::Index;
use transaction::Transactions;
use transport::{BindError, CloseReason, Event, Inbox, ShardConfig};

use crate::{HomeIndex, Shared, authority::AuthorityGuard, clock, storm::Storm};
use answers::Answers;
use call_records::CallsBegun;
use held::HeldRequests;
use hosts::Hosts;
use journeys::{Journeys, TCP_REFUSED_FOR};
use legs::Legs;
use mail::{Mail, Mailer};
use passed_on::PassedOn;
use reg_event::Subscriptions;
pub use reg_event::Watchers;
use register::Waiting;
use remembered::Remembered;
use sent::Sent;
use settings::ShardSettings;
pub use settings::SharedLedger;

/// One shard, ready to run on the thread whose runtime it was made in.
pub struct Shard {
    number: u16,
    shared: Arc<Shared>,
    sockets: transport::Shard,
    transactions: Transactions,
    proxy: Proxy,
    authenticator: Authenticator<SharedLedger>,
    chance: Chance,
    settings: ShardSettings,
    legs: Legs,
    sent: Sent,
    journeys: Journeys,
    /// Addresses that refuse TCP.
    without_tcp: Remembered<SocketAddr>,
    passed_on: PassedOn,
    held: HeldRequests,
    hosts: Hosts,
    calls: CallsBegun,
    reg_event: Subscriptions,
    storm: Storm,
    mailer: Mailer,
    others: Vec<Mailer>,
    branch_prefix: Bytes,
    /// Registrations of this turn, to be submitted together.
    batch: Vec<(Command, Waiting)>,
    /// Who registered over which connection, to let go of when it closes.
    registered: HashMap<FlowId, Vec<(HomeIndex, AddressOfRecord)>>,
    index: Index,
    ok_headers: OkHeaders,
    out: Vec<u8>,
    answers: Answers,
    /// What the sockets had counted in the last turn.
    counted: transport::Counters,
    is_stopping: bool,
}

/// Where a request came from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// A phone, or anybody else.
    Phone,
    /// A server of the topology, by its certificate.
    Server(ServerName),
}

/// What is the same for everything dealt with in one turn.
struct Turn<'a> {
    authority: &'a AuthorityGuard<'a>,
    now: Instant,
}

impl Shard {
    /// Opens the sockets of one shard. Call it inside the runtime of its thread.
    ///
    /// Errors: [`BindError`] when an address cannot be used.
    pub fn bind(shared: Arc<Shared>, config: ShardConfig) -> Result<Self, BindError> {
        let number = config.shard;
        let sockets = transport::Shard::bind(config)?;
        let mailer = Mailer::new(sockets.waker());
        let settings = ShardSettings::of(&shared);
        let branch_prefix = Bytes::from(format!("z9hG4bK{number}."));
        let proxy =
            Proxy::new(settings.proxy.clone(), Chance::seeded(clock::random_seed()), branch_prefix.clone());
        Ok(Self {
            number,
            transactions: Transactions::new(settings.transactions.clone()),
            proxy,
            authenticator: settings.authenticator(&shared),
            chance: Chance::seeded(clock::random_seed()),
            legs: Legs::of(&shared.topology(), &shared.server),
            sent: Sent::default(),
            journeys: Journeys::default(),
            without_tcp: Remembered::new(TCP_REFUSED_FOR, limits::TCP_REFUSALS_MAX),
            passed_on: PassedOn::default(),
            held: HeldRequests::default(),
            hosts: Hosts::new(Chance::seeded(clock::random_seed())),
            calls: CallsBegun::new(settings.call_records()),
            reg_event: Subscriptions::new(settings.steer_phones_per_s, 1, None),
            storm: Storm::new(settings.latency_target),
            mailer,
            others: Vec::new(),
            branch_prefix,
            batch: Vec::new(),
            registered: HashMap::new(),
            index: Index::new(),
            ok_headers: OkHeaders::new(),
            out: Vec::new(),
            answers: Answers::default(),
            counted: transport::Counters::default(),
            is_stopping: false,
            settings,
            sockets,
            shared,
        })
    }

    /// The way into this shard's mailbox.
    pub fn mailer(&self) -> Mailer {
        self.mailer.clone()
    }

    /// Runs until [`Mail::Stop`]. `others` are the mailboxes of all shards, by number.
    pub async fn run(mut self, others: Vec<Mailer>) {
        let gruus = self.settings.gives_gruus.then_some(self.shared.gruus);
        self.reg_event = Subscriptions::new(self.settings.steer_phones_per_s, others.len(), gruus);
        self.others = others;
        let mut inbox = Inbox::new();
        while !self.is_stopping {
            let deadline = self.deadline().map(clock::runtime_instant);
            self.sockets.next(&mut inbox, deadline).await;
            self.count_sockets();
            let shared = Arc::clone(&self.shared);
            let authority = shared.authority.read();
            let backlog = self.backlog(inbox.backlog());
            let mut began = None;
            for event in inbox.drain() {
                let turn = Turn { authority: &authority, now: clock::now() };
                began.get_or_insert(turn.now);
                self.event(&turn, event);
            }
            let turn = Turn { authority: &authority, now: clock::now() };
            self.measure_turn(&turn, began.unwrap_or(turn.now), backlog);
            for mail in self.mailer.take() {
                self.mail(&turn, mail);
            }
            self.drain(&turn, &Origin::Phone);
            self.timeouts(&turn);
            if !self.batch.is_empty() {
                self.storm.submitted(turn.now);
            }
            self.submit();
            self.sockets.flush();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let due = [
            self.transactions.poll_timeout(),
            self.proxy.poll_timeout(),
            self.passed_on.deadline(),
            self.held.deadline(),
            self.reg_event.deadline(),
        ];
        due.into_iter().flatten().min()
    }

    fn timeouts(&mut self, turn: &Turn<'_>) {
        if self.deadline().is_some_and(|deadline| deadline <= turn.now) {
            self.transactions.handle_timeout(turn.now);
            self.proxy.handle_timeout(turn.now);
            self.drain(turn, &Origin::Phone);
            while let Some((server, passed)) = self.passed_on.overdue(turn.now) {
                self.owner_failed(turn, server, &passed);
            }
            self.release_held(turn);
            self.reg_event_timeouts(turn);
            self.drain(turn, &Origin::Phone);
        }
    }

    fn event(&mut self, turn: &Turn<'_>, event: Event<'_>) {
        match event {
            Event::Datagram { peer, bytes } => self.datagram(turn, peer, bytes),
            Event::Message { peer, bytes, names } => {
                self.stream_message(turn, peer, &bytes, names.as_deref())
            }
            Event::Malformed { peer, bytes, error, is_accepted } => {
                self.malformed_stream(peer, &bytes, error, is_accepted)
            }
            Event::Closed { peer, reason, is_accepted, .. } => {
                if reason == CloseReason::Silent {
                    self.shared.counters.flows_silent.add();
                }
                self.blame(&peer, &reason, is_accepted);
                self.flow_closed(turn, &peer);
            }
            Event::ConnectFailed { peer, .. } => {
                self.sent.never_connected(&peer);
                self.flow_failed(turn, &peer);
            }
            Event::SendFailed { peer, .. } => self.flow_failed(turn, &peer),
        }
    }

    fn mail(&mut self, turn: &Turn<'_>, mail: Mail) {
        match mail {
            Mail::Outcomes(waiting, outcomes) => {
                self.storm.committed(turn.now);
                for (waiting, outcome) in waiting.into_iter().zip(outcomes) {
                    self.registered(turn, waiting, outcome);
                }
            }
            Mail::Send { to, bytes, from } => {
                if self.sockets.send(&to, &bytes).is_err()
                    && let Some(mailer) = self.others.get(usize::from(from))
                {
                    mailer.post(Mail::NotSent { to });
                }
            }
            Mail::NotSent { to } => self.flow_failed(turn, &to),
            Mail::Response { from, bytes } => self.response(turn, from, &bytes),
            Mail::BindingsChanged { aor, cause } => self.bindings_changed(turn, &aor, cause),
            Mail::Located(located) => {
                let (sought, found) = *located;
                self.located(turn, sought, found);
            }
            Mail::Tls(tls) => self.sockets.set_tls(*tls),
            Mail::Banned(source) => self.sockets.close_from(source),
            Mail::Stop => self.is_stopping = true,
        }
    }

    /// A connection ended: what was sent over it fails, who registered over it is reached by it no more.
    fn flow_closed(&mut self, turn: &Turn<'_>, peer: &Peer) {
        self.flow_failed(turn, peer);
        self.forget_registrations(turn, peer.flow);
        self.subscriptions_lost(turn, peer.flow);
    }

    /// Nothing sent to this peer arrives: its client transactions end now instead of by time-out.
    fn flow_failed(&mut self, turn: &Turn<'_>, peer: &Peer) {
        for client in self.sent.waiting_for(peer) {
            self.transactions.transport_failed(turn.now, client);
        }
        self.drain(turn, &Origin::Phone);
    }

    /// Sixty-four random bits in hexadecimal, for tags.
    fn tag(&mut self) -> String {
        format!("{:016x}", self.chance.bits())
    }
}
