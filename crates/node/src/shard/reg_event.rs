//! Subscriptions of phones to their own registrations: the notifier's side of [`registrar::reg_event`].
//!
//! A subscription is kept by the shard that its SUBSCRIBE came to, at the server that serves the user; its
//! NOTIFY requests go back over the same flow, through the partner where the phone is there. It is soft
//! state: it ends with the flow, with the process and when the users have another owner, and phones make it
//! again.

mod dialog;
mod watchers;

use std::{sync::Arc, time::Duration};

use hashbrown::HashMap;
use model::{AddressOfRecord, FlowId, Instant, NextHop, Peer, Protocol, ServerTransaction};
use proxy::{BranchKey, Preprocessed};
use registrar::{
    Bindings, Gruus, Octets,
    authentication::Challenger,
    reg_event::{
        Cause, Ending, NotifyAnswer, Now, Output, PACKAGE, RegEvents, Settings, SubscribeError,
        SubscribeRequest, SubscriptionId, SubscriptionState, read_subscribe,
    },
};
use sip::{HeaderId, Message, Method, OwnedMessage, ResponseBuilder, Scheme, Uri, reason_phrase};
use tracing::debug;

use self::dialog::{Dialog, DialogName, Notification};
use super::{Origin, Shard, Turn, location::datagram_address};
use crate::{HomeIndex, clock, shared::Place};

pub use watchers::Watchers;

/// User part of our Contact in these dialogs.
const CONTACT_USER: &str = "reg-event";
/// Time between two looks at who owns the users that have subscriptions here.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The subscriptions of one shard with their dialogs.
pub(super) struct Subscriptions {
    machine: RegEvents,
    dialogs: HashMap<SubscriptionId, Dialog>,
    names: HashMap<DialogName, SubscriptionId>,
    /// Subscriptions over each connection, to let go of when it closes.
    flows: HashMap<FlowId, Vec<SubscriptionId>>,
    /// Home pools whose phones are being sent away.
    steering: Vec<HomeIndex>,
    look_at: Instant,
}

impl Subscriptions {
    /// None yet. Each shard of a server sends its share of `steer_phones_per_s` phones away.
    pub(super) fn new(steer_phones_per_s: u32, shards: usize, gruus: Option<Gruus>) -> Self {
        let shards = u64::try_from(shards.max(1)).unwrap_or(1);
        let steer_every = Duration::from_micros(
            1_000_000_u64.saturating_mul(shards) / u64::from(steer_phones_per_s.max(1)),
        );
        Self {
            machine: RegEvents::new(Settings { steer_every, ..Settings::default() }).with_gruus(gruus),
            dialogs: HashMap::new(),
            names: HashMap::new(),
            flows: HashMap::new(),
            steering: Vec::new(),
            look_at: Instant::START,
        }
    }

    /// When [`Shard::reg_event_timeouts`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let look_at = (!self.machine.is_empty()).then_some(self.look_at);
        look_at.into_iter().chain(self.machine.poll_timeout()).min()
    }

    fn keep(&mut self, id: SubscriptionId, dialog: Dialog) {
        self.names.insert(dialog.name.clone(), id);
        self.follow(id, &dialog);
        self.dialogs.insert(id, dialog);
    }

    /// Remembers a connection that a subscription hangs on.
    fn follow(&mut self, id: SubscriptionId, dialog: &Dialog) {
        if dialog.through.is_none() && dialog.peer.protocol != Protocol::Udp {
            let ids = self.flows.entry(dialog.peer.flow).or_default();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }

    fn forget(&mut self, id: SubscriptionId) {
        let Some(dialog) = self.dialogs.remove(&id) else { return };
        self.names.remove(&dialog.name);
        if let Some(ids) = self.flows.get_mut(&dialog.peer.flow) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.flows.remove(&dialog.peer.flow);
            }
        }
    }
}

impl Shard {
    /// Whether a SUBSCRIBE is for this server itself: in one of its dialogs, to the registrations of a user
    /// who is served here, or to nobody in particular. Other event packages of users are those of their
    /// devices, and forwarded to them.
    pub(super) fn is_for_reg_event(
        &self,
        turn: &Turn<'_>,
        request: Message<'_>,
        found: &Preprocessed<'_>,
    ) -> bool {
        if request.method() != Method::Subscribe || !found.routes.is_empty() {
            return false;
        }
        let Ok(uri) = Uri::parse(&found.request_uri) else { return false };
        if is_own_contact(&uri) || uri.user.is_none() {
            return self.legs.is_own(&uri);
        }
        let is_new = request.to().is_ok_and(|to| to.tag().is_none());
        if !is_new || !names_package(request) {
            return false;
        }
        let user = self.own_user(&uri).and_then(|aor| self.shared.directory.user(&aor));
        user.is_some_and(|user| {
            matches!(self.shared.place(user.home, turn.authority, turn.now), Place::Here(_))
        })
    }

    /// Answers a SUBSCRIBE as its notifier.
    pub(super) fn subscribe(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        server: ServerTransaction,
        request: &Arc<OwnedMessage>,
        from: Peer,
        found: &Preprocessed<'_>,
    ) {
        let view = request.view();
        let caller = view.from().ok().and_then(|from| from.uri().ok()?.address_of_record().ok());
        // RFC 6665 section 4.2.1.3: a notifier is a user agent and challenges like one, with 401.
        if *origin == Origin::Phone
            && let Some(caller) = &caller
            && let Err(rejection) = self.authenticate(origin, &from, view, Challenger::Server, caller)
        {
            return self.answer_rejection(server, view, &rejection);
        }
        let accepted = match caller.ok_or(SubscribeError::Forbidden) {
            Ok(caller) => match DialogName::of_request(view) {
                Some(name) => self.resubscribe(turn, server, view, from, &name, &caller),
                None => self.subscribe_anew(turn, origin, server, view, from, found, &caller),
            },
            Err(error) => Err(error),
        };
        match accepted {
            Ok(()) => self.reg_event_drain(turn),
            Err(error) => {
                let header = error.header();
                let headers: Vec<(&str, &[u8])> =
                    header.iter().map(|(id, value)| (id.name(), value.as_ref())).collect();
                self.answer(server, view, error.status(), &headers);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a request is, where it came from and whose it is")]
    fn subscribe_anew(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        server: ServerTransaction,
        request: Message<'_>,
        from: Peer,
        found: &Preprocessed<'_>,
        caller: &AddressOfRecord,
    ) -> Result<(), SubscribeError> {
        let asked = read_subscribe(request, &self.settings.subscribe)?;
        let uri = Uri::parse(&found.request_uri).ok();
        let aor = uri.and_then(|uri| self.own_user(&uri)).filter(|aor| aor == caller);
        let aor = aor.ok_or(SubscribeError::Forbidden)?;
        let user = self.shared.directory.user(&aor).ok_or(SubscribeError::Forbidden)?;
        let home = self.shared.directory.homes().name(user.home).ok_or(SubscribeError::Forbidden)?.clone();
        let local_tag = self.tag();
        let is_sips = Uri::parse(request.request_uri()).is_ok_and(|uri| uri.scheme == Scheme::Sips);
        let contact = self.legs.contact(&from, *origin != Origin::Phone, CONTACT_USER, is_sips);
        let contact = contact.ok_or(SubscribeError::Forbidden)?;
        let through = match origin {
            Origin::Phone => None,
            Origin::Server(name) => Some(name.clone()),
        };
        let mut dialog = Dialog::begin(request, &local_tag, contact.clone(), from, through)?;
        dialog.set_target(&asked.target, from);
        let bindings = self.shared.bindings(user.home, &aor);
        let granted = self.reg_event.machine.subscribe(wide(turn), &aor, &home, &asked, &bindings)?;
        self.reg_event.keep(granted.id, dialog);
        self.shared.counters.subscriptions_accepted.add();
        self.accept_subscribe(server, request, &local_tag, &contact, granted.expires_s);
        Ok(())
    }

    fn resubscribe(
        &mut self,
        turn: &Turn<'_>,
        server: ServerTransaction,
        request: Message<'_>,
        from: Peer,
        name: &DialogName,
        caller: &AddressOfRecord,
    ) -> Result<(), SubscribeError> {
        let id = self.reg_event.names.get(name).copied().ok_or(SubscribeError::NoSubscription)?;
        let asked: SubscribeRequest = read_subscribe(request, &self.settings.subscribe)?;
        let granted = self.reg_event.machine.refresh(wide(turn), id, caller, &asked)?;
        let Some(mut dialog) = self.reg_event.dialogs.get(&id).cloned() else {
            return Err(SubscribeError::NoSubscription);
        };
        let contact = dialog.contact.clone();
        self.reg_event.forget(id);
        dialog.set_target(&asked.target, from);
        self.reg_event.keep(id, dialog);
        self.accept_subscribe(server, request, "", &contact, granted.expires_s);
        Ok(())
    }

    /// The 200 OK, before the NOTIFY that follows it.
    fn accept_subscribe(
        &mut self,
        server: ServerTransaction,
        request: Message<'_>,
        local_tag: &str,
        contact: &str,
        expires_s: u32,
    ) {
        let expires = expires_s.to_string();
        self.out.clear();
        ResponseBuilder::new(request, 200, reason_phrase(200).as_bytes())
            .to_tag(local_tag.as_bytes())
            .record_routes()
            .header("Contact", contact.as_bytes())
            .header("Expires", expires.as_bytes())
            .write_to(&mut self.out);
        self.send_out(server, 200);
    }

    /// A user's bindings changed, here or in another shard.
    pub(super) fn bindings_changed(&mut self, turn: &Turn<'_>, aor: &AddressOfRecord, cause: Cause) {
        self.look_up(turn, aor, cause);
        self.reg_event_drain(turn);
    }

    /// The answer to a NOTIFY; `None`: there was none.
    pub(super) fn notify_answered(&mut self, turn: &Turn<'_>, number: u64, response: Option<Message<'_>>) {
        let answer = match response {
            Some(response) if response.status() < 200 => return,
            Some(response) if response.status() < 300 => NotifyAnswer::Accepted,
            Some(response) => match response.number(HeaderId::RetryAfter) {
                Ok(Some(seconds)) => NotifyAnswer::Later(Duration::from_secs(u64::from(seconds))),
                Ok(None) | Err(_) => NotifyAnswer::Gone,
            },
            None => NotifyAnswer::Gone,
        };
        self.reg_event.machine.answered(wide(turn), SubscriptionId(number), answer);
        self.reg_event_drain(turn);
    }

    /// A connection closed: who subscribed over it hears nothing any more.
    pub(super) fn subscriptions_lost(&mut self, turn: &Turn<'_>, flow: FlowId) {
        for id in self.reg_event.flows.remove(&flow).unwrap_or_default() {
            self.reg_event.machine.lost(id);
        }
        self.reg_event_drain(turn);
    }

    /// Lets timers take effect, and sends away whom this server does not serve any more.
    pub(super) fn reg_event_timeouts(&mut self, turn: &Turn<'_>) {
        if self.reg_event.deadline().is_none_or(|deadline| deadline > turn.now) {
            return;
        }
        self.reg_event.machine.handle_timeout(wide(turn));
        if self.reg_event.look_at <= turn.now {
            self.reg_event.look_at = turn.now + LOOK_EVERY;
            self.look_at_owners(turn);
        }
        self.reg_event_drain(turn);
    }

    fn look_at_owners(&mut self, turn: &Turn<'_>) {
        let names: Vec<_> = self.reg_event.machine.homes().cloned().collect();
        for name in names {
            let Some(home) = self.shared.directory.homes().index(&name) else { continue };
            if self.is_served_elsewhere(turn, home) {
                self.reg_event.machine.steer(wide(turn), &name);
                if !self.reg_event.steering.contains(&home) {
                    self.reg_event.steering.push(home);
                }
            } else if self.reg_event.steering.contains(&home)
                && turn.authority.holds(home, turn.now).is_some()
            {
                self.reg_event.machine.stay(&name);
                self.reg_event.steering.retain(|other| *other != home);
            }
        }
    }

    /// Until the machine wants nothing more.
    fn reg_event_drain(&mut self, turn: &Turn<'_>) {
        while let Some(output) = self.reg_event.machine.poll_output() {
            match output {
                Output::Notify { id, event_id, state, body } => {
                    self.notify(turn, id, event_id.as_ref(), state, &body);
                }
                Output::Look { aor } => self.look_up(turn, &aor, Cause::Other),
                Output::Watch { aor } => self.shared.watchers.add(&aor, self.number),
                Output::Unwatch { aor } => self.shared.watchers.remove(&aor, self.number),
                Output::Ended { id } => self.reg_event.forget(id),
            }
        }
    }

    /// Tells the machine how a user's bindings are.
    fn look_up(&mut self, turn: &Turn<'_>, aor: &AddressOfRecord, cause: Cause) {
        match self.shared.directory.user(aor) {
            Some(user) => {
                let bindings: Bindings = self.shared.bindings(user.home, aor);
                self.reg_event.machine.bindings(wide(turn), aor, &bindings, cause);
            }
            None => self.reg_event.machine.end_user(wide(turn), aor, Ending::Rejected),
        }
    }

    /// Sends a NOTIFY over the flow of its subscription.
    fn notify(
        &mut self,
        turn: &Turn<'_>,
        id: SubscriptionId,
        event_id: Option<&Octets>,
        state: SubscriptionState,
        body: &str,
    ) {
        let is_sent = self.try_notify(turn, id, event_id, state, body).is_some();
        if is_sent {
            self.shared.counters.notifications_sent.add();
        }
        match state {
            SubscriptionState::Terminated(Ending::Deactivated) => self.shared.counters.phones_steered.add(),
            SubscriptionState::Terminated(Ending::Timeout | Ending::Probation { .. } | Ending::Rejected) => {}
            SubscriptionState::Active { .. } if is_sent => {}
            SubscriptionState::Active { .. } => {
                self.reg_event.machine.answered(wide(turn), id, NotifyAnswer::Gone);
            }
        }
    }

    fn try_notify(
        &mut self,
        turn: &Turn<'_>,
        id: SubscriptionId,
        event_id: Option<&Octets>,
        state: SubscriptionState,
        body: &str,
    ) -> Option<()> {
        let dialog = self.reg_event.dialogs.get(&id)?;
        let through = dialog.through.clone();
        let (peer, target) = (dialog.peer, dialog.target());
        let peer = match (&through, peer.protocol) {
            (Some(server), _) => self.resolve(&NextHop::Server(server.clone()))?,
            (None, Protocol::Udp) => Peer { remote: datagram_address(target, peer.remote), ..peer },
            (None, Protocol::Tcp | Protocol::Tls | Protocol::Ws | Protocol::Wss) => peer,
        };
        let leg = match through {
            Some(_) => self.legs.internal()?,
            None => self.legs.towards(&peer, false)?,
        };
        let tag = self.tag();
        let branch = format!("{}{tag}", String::from_utf8_lossy(&self.branch_prefix));
        let notification = Notification { event_id: event_id.map(|id| &**id), state, body };
        let dialog = self.reg_event.dialogs.get_mut(&id)?;
        let request = match dialog.notify(&leg, &branch, &notification) {
            Ok(request) => Arc::new(request),
            Err(error) => {
                debug!(%error, "NOTIFY not sent");
                return None;
            }
        };
        let tag = u64::from(BranchKey::of_driver(id.0));
        let client = self.transactions.request(turn.now, request, peer, tag).ok()?;
        self.sent.insert(tag, client, peer);
        Some(())
    }
}

/// Both clocks for the machine.
fn wide(turn: &Turn<'_>) -> Now {
    Now { instant: turn.now, wall: clock::wall_time() }
}

fn is_own_contact(uri: &Uri<'_>) -> bool {
    uri.user == Some(CONTACT_USER.as_bytes())
}

/// Whether Event names the package; whatever else is wrong with it is found out by who reads all of it.
pub(super) fn names_package(request: Message<'_>) -> bool {
    let event = request.header(HeaderId::Event).unwrap_or_default();
    event.split(|&octet| octet == b';').next().unwrap_or_default().trim_ascii() == PACKAGE.as_bytes()
}
