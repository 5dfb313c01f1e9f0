//! The transactions of one shard.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use model::{ClientTransaction, Instant, Peer, ServerTransaction};
use sip::{Method, OwnedMessage, Via};

use crate::{
    Counters, Output, Settings, TransactionError,
    answered::Answered,
    client::Client,
    server::Server,
    table::{Id, Table},
};

/// Room for CANCELs beyond the bound of a table.
const SPARE: usize = 1_024;

/// The client and server transactions of one shard. Drain [`Self::poll_output`] after each input.
///
/// Every transaction ends: a non-INVITE one at most 2 * 64 * T1 after its request, an INVITE one without
/// messages at most `Settings::proceeding_max` after the last of them, then the timer of its last state.
///
/// A table that is full lets its oldest answered transaction go early: a non-INVITE one that only absorbs
/// retransmissions, or an INVITE that a 2xx was sent or received for. So does one with more answered server
/// transactions than `Settings::answered_max`. A late retransmission of that request
/// is then taken for a new one, and a late 2xx for a stray response, which costs less than refusing everybody
/// until Timer J, K, L or M.
#[derive(Debug)]
pub struct Transactions {
    pub(crate) settings: Settings,
    pub(crate) clients: Table<Client>,
    pub(crate) servers: Table<Server>,
    /// Answered transactions, oldest first: they make room when a table is full.
    pub(crate) answered_clients: Answered,
    pub(crate) answered_servers: Answered,
    /// INVITEs that a 2xx came for; apart from the other clients since they last much longer.
    pub(crate) accepted_clients: Answered,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) counters: Counters,
    /// Room for the key of the message at hand.
    pub(crate) key: Vec<u8>,
}

impl Transactions {
    /// Octets in memory for each server transaction, without the messages it keeps: the request until its
    /// final response, then the response until the end (over UDP 32 s), both shared with whoever made them.
    pub const SERVER_BYTES: usize = Table::<Server>::bytes_per_entry();
    /// Octets in memory for each client transaction, without the message it keeps: the request until the
    /// final response, then for an INVITE the ACK.
    pub const CLIENT_BYTES: usize = Table::<Client>::bytes_per_entry();

    /// No transactions yet.
    pub fn new(settings: Settings) -> Self {
        let settings = settings.bounded();
        Self {
            clients: Table::new(settings.seed, settings.client_max.saturating_add(SPARE)),
            servers: Table::new(settings.seed, settings.server_max.saturating_add(SPARE)),
            settings,
            answered_clients: Answered::default(),
            answered_servers: Answered::default(),
            accepted_clients: Answered::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            key: Vec::new(),
        }
    }

    /// A parsed message from a peer, its mandatory headers checked, `received` and `rport` added.
    ///
    /// Gives a new request, ACK for a 2xx or response to the TU; absorbs the rest: retransmissions
    /// (answered with the last response), ACKs for other responses, stray responses. Source: RFC 3261
    /// sections 17.1.3, 17.2.3, 9.2. Errors, for requests only: `Full`, `Header`.
    pub fn receive(
        &mut self,
        now: Instant,
        message: Arc<OwnedMessage>,
        peer: Peer,
    ) -> Result<(), TransactionError> {
        let view = message.view();
        if view.is_request() {
            self.receive_request(now, &message, &view.top_via()?, peer)
        } else {
            self.receive_response(now, message, peer);
            Ok(())
        }
    }

    /// As [`Self::receive`], for a request whose topmost Via was read before, with or without what the
    /// receiver adds to it.
    ///
    /// Errors: as [`Self::receive`].
    pub fn receive_request(
        &mut self,
        now: Instant,
        request: &Arc<OwnedMessage>,
        via: &Via<'_>,
        peer: Peer,
    ) -> Result<(), TransactionError> {
        self.take_request(now, request, via, peer)
    }

    /// Sends a response in a server transaction: `response` is the whole message, `status` its code.
    ///
    /// After a 2xx to an INVITE each further 2xx (another branch's, or the same again) is sent too. Errors:
    /// `Ended`, `AlreadyAnswered`, `NotAllowed`, `TooLate`; then nothing is sent.
    pub fn respond(
        &mut self,
        now: Instant,
        server: ServerTransaction,
        status: u16,
        response: Bytes,
    ) -> Result<(), TransactionError> {
        self.send_response(now, server, status, response)
    }

    /// Starts a client transaction and sends `request`, which has our Via with its branch on top, to `to`.
    ///
    /// `tag` is opaque and comes back with each output. Ends in exactly one of a final [`Output::Response`]
    /// (for an INVITE possibly several 2xx), [`Output::ClientTimeout`] and [`Output::ClientFailed`]. A
    /// CANCEL whose INVITE is alive is always admitted, and gives that INVITE 64 * T1 to end (RFC 3261
    /// section 9.1). Errors: `Full`, `Duplicate`, `NoTransaction`, `Header`.
    pub fn request(
        &mut self,
        now: Instant,
        request: Arc<OwnedMessage>,
        to: Peer,
        tag: u64,
    ) -> Result<ClientTransaction, TransactionError> {
        self.send_request(now, request, to, tag)
    }

    /// The transport says that nothing sent to the peer of this transaction arrives (RFC 3261 section
    /// 17.1.4). Without effect when the transaction has ended or waits only.
    pub fn transport_failed(&mut self, _now: Instant, client: ClientTransaction) {
        self.fail_client(client);
    }

    /// Lets timers that have run out take effect; safe early, late or twice.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.clients.pop_due(now) {
            self.client_timeout(now, id);
        }
        while let Some(id) = self.servers.pop_due(now) {
            self.server_timeout(now, id);
        }
    }

    /// When to call [`Self::handle_timeout`] next; `None` = only after an input. Now and then earlier than
    /// needed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.clients.next_deadline(), self.servers.next_deadline()) {
            (Some(client), Some(server)) => Some(client.min(server)),
            (client, server) => client.or(server),
        }
    }

    /// The next thing to do; `None` when there is nothing left.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What happened since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Server transactions alive.
    pub fn server_count(&self) -> usize {
        self.servers.len()
    }

    /// Client transactions alive.
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Lets the oldest answered server transaction go; `false` when there is none.
    pub(crate) fn make_room_for_server(&mut self) -> bool {
        let Some(id) = self.answered_servers.pop(|id| self.servers.get(id).is_some()) else { return false };
        self.servers.remove(id);
        self.counters.ended_early += 1;
        self.outputs.push_back(Output::ServerFinished { server: ServerTransaction(id.0) });
        true
    }

    /// Lets the oldest answered client transaction go, a non-INVITE one before others because nobody misses
    /// it; `false` when there is none.
    pub(crate) fn make_room_for_client(&mut self) -> bool {
        let is_live = |id| self.clients.get(id).is_some();
        let oldest = self.answered_clients.pop(is_live).or_else(|| self.accepted_clients.pop(is_live));
        let Some(id) = oldest else { return false };
        self.counters.ended_early += 1;
        self.clients.remove(id).is_some()
    }

    /// Remembers that a server transaction is answered, and lets the oldest such one go when they are too
    /// many.
    pub(crate) fn server_answered(&mut self, id: Id) {
        self.answered_servers.push(id, |id| self.servers.get(id).is_some());
        if self.answered_servers.len() > self.settings.answered_max {
            self.make_room_for_server();
        }
    }

    /// Remembers that a client transaction is answered.
    pub(crate) fn client_answered(&mut self, id: Id, method: Method) {
        let answered =
            if method == Method::Invite { &mut self.accepted_clients } else { &mut self.answered_clients };
        answered.push(id, |id| self.clients.get(id).is_some());
    }

    /// Whether `count` client transactions may go to make room.
    pub(crate) fn can_make_room_for_clients(&self, count: usize) -> bool {
        let is_live = |id| self.clients.get(id).is_some();
        let first = self.answered_clients.count(count, is_live);
        first + self.accepted_clients.count(count - first, is_live) == count
    }
}
