//! REGISTER: who serves the user, authentication, the write, and the answer once it is on disk.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use model::{AddressOfRecord, Epoch, FlowId, NextHop, Peer, PoolName, Protocol, ServerTransaction, WallTime};
use pairing::{
    BranchView, PoolView, RegisterDecision, Service, Standing, decide_branch_register, decide_register,
};
use proxy::{Reject, Target};
use registrar::{
    Bindings, Command, FlowRecord, OperationId, Outcome, PathWithoutSupport, RegisterError, RegisterRequest,
    RegisterSettings, UserChange, authentication::Challenger, check_extensions, read_register_of,
    reg_event::Cause,
};
use sip::{HeaderId, Message, OwnedMessage, ResponseBuilder, Rewrite, reason_phrase};
use store::{HotError, HotStore};
use topology::Role;
use tracing::{info, warn};

use super::{
    Origin, Shard, Turn, held::Held, keep_alives::FlowTimer, location::Located, mail::Mail,
    passed_on::Passed, respond::hexadecimal,
};
use crate::{
    HomeIndex, clock,
    storm::{self, Work},
};

/// Retry-After when a write failed or its outcome is unknown, in seconds.
const RETRY_AFTER_WRITE_S: u64 = 5;
/// Retry-After when the owner did not answer what was forwarded to it, in seconds: by then we know whether it
/// is silent.
const RETRY_AFTER_FORWARD_S: u64 = 2;

/// A REGISTER that waits for the disk.
pub struct Waiting {
    reply: Option<Reply>,
    /// Whose bindings it changes.
    aor: AddressOfRecord,
}

struct Reply {
    server: ServerTransaction,
    request: Arc<OwnedMessage>,
    register: RegisterRequest,
    home: HomeIndex,
    epoch: Epoch,
    from: Peer,
    is_direct: bool,
    authentication_info: Option<Bytes>,
    /// When it was taken up: what the phone asked for counts from then.
    at: WallTime,
}

impl Shard {
    /// A REGISTER for a domain of ours.
    pub(super) fn register(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        server: ServerTransaction,
        request: &Arc<OwnedMessage>,
        from: Peer,
    ) {
        let view = request.view();
        let aor = view.to().ok().and_then(|to| to.uri().ok()?.address_of_record().ok());
        let Some(aor) = aor.filter(|aor| self.settings.is_our_domain(aor.domain())) else {
            return self.refuse_register(server, view, &RegisterError::UnknownDomain);
        };
        if let Err(error) = check_extensions(view) {
            return self.refuse_register(server, view, &error);
        }
        // Nobody learns who is no user: the unknown one is challenged like any other, and what becomes of a
        // REGISTER is told to its user only, wherever this server can tell who that is.
        let user = self.shared.directory.user(&aor);
        let can_prove = user.as_ref().is_none_or(|user| user.credentials.is_some());
        let Some(home) = user.map(|user| user.home).or(self.shared.own_home) else {
            return self.reject(server, view, &Reject::NotFound);
        };
        let decision = self.decide(turn, home);
        if self.defers_register(view, home, &aor, &decision) {
            return self.put_off(server, view, Work::Register);
        }
        if self.is_between_owners(turn, home, &decision)
            && self.hold(turn, Held::new(origin, server, request, from))
        {
            return;
        }
        if let RegisterDecision::Forward { owner } = &decision {
            if let Err(rejection) = self.may_pass_on(&from, view) {
                return self.answer_rejection(server, view, &rejection);
            }
            return self.pass_on(turn, origin, server, request, from, owner);
        }
        if can_prove && let Err(rejection) = self.authenticate(origin, &from, view, Challenger::Server, &aor)
        {
            return self.answer_rejection(server, view, &rejection);
        }
        match decision {
            RegisterDecision::Serve { epoch, .. } if can_prove => {
                self.serve(turn, origin, server, request, from, aor, home, epoch);
            }
            RegisterDecision::Redirect { owner, then } => {
                self.redirect(origin, server, view, from, &owner, then.as_ref());
            }
            RegisterDecision::Unavailable { retry_after } => self.unavailable(server, view, retry_after),
            RegisterDecision::Serve { .. } | RegisterDecision::Forward { .. } => {
                self.unavailable(server, view, Duration::from_secs(RETRY_AFTER_WRITE_S));
            }
        }
    }

    /// What the tables of the product say for a REGISTER of this home pool's users, with what is known now.
    pub(super) fn decide(&self, turn: &Turn<'_>, home: HomeIndex) -> RegisterDecision {
        let shared = &self.shared;
        let homes = shared.directory.homes();
        let nowhere = RegisterDecision::Unavailable { retry_after: Duration::from_secs(5) };
        let topology = shared.topology();
        let Some(pool) = homes.name(home).and_then(|name| topology.pool(name)) else { return nowhere };
        if Some(home) == shared.own_home || pool.role == Role::FrontEnd {
            let standing = fresh(turn, home);
            return match (standing, shared.parties(&pool.name)) {
                (Some(standing), Some(parties)) => decide_register(PoolView {
                    parties: &parties,
                    standing: &standing,
                    second_registration: shared.second_registration(&pool.name),
                    user_services: shared.back_end.user_services(turn.now),
                }),
                _ => self.elsewhere(turn, home, &pool.name),
            };
        }
        let Some(associated) = pool.associated_pool.as_ref() else { return nowhere };
        let standing = homes.index(associated).and_then(|index| fresh(turn, index));
        let (Some(standing), Some(parties)) = (standing, shared.parties(associated)) else {
            return self.elsewhere(turn, home, &pool.name);
        };
        decide_branch_register(BranchView::Pool {
            branch: &pool.name,
            contact: shared.contact_of(pool, turn.now),
            pool: PoolView {
                parties: &parties,
                standing: &standing,
                second_registration: shared.second_registration(associated),
                user_services: shared.back_end.user_services(turn.now),
            },
            recovery: shared.branch_recovery(pool),
        })
    }

    /// A user of a pool that this server has no part in: to whoever serves the pool.
    fn elsewhere(&self, turn: &Turn<'_>, home: HomeIndex, name: &PoolName) -> RegisterDecision {
        let claim = self.shared.links.serving(home, turn.now);
        let owner = claim.and_then(|claim| Some(self.shared.topology().pool_of(&claim.server)?.name.clone()));
        let then = self.shared.topology().backup_of(name).map(|backup| backup.name.clone());
        match owner {
            Some(owner) => RegisterDecision::Redirect { then: then.filter(|then| *then != owner), owner },
            None => RegisterDecision::Unavailable { retry_after: Duration::from_secs(5) },
        }
    }

    /// Reads an authenticated REGISTER and queues its write; one that only asks is answered at once.
    #[expect(clippy::too_many_arguments, reason = "what a REGISTER is and under which authority, each once")]
    fn serve(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        server: ServerTransaction,
        request: &Arc<OwnedMessage>,
        from: Peer,
        aor: AddressOfRecord,
        home: HomeIndex,
        epoch: Epoch,
    ) {
        let view = request.view();
        let is_direct = *origin == Origin::Phone;
        let flow = is_direct.then(|| self.flow_record(&from));
        let settings = &self.settings;
        // A Path from a server of ours is kept whatever the phone says; from elsewhere RFC 3327 section 5.3
        // holds.
        let path_without_support =
            if is_direct { PathWithoutSupport::Ignore } else { PathWithoutSupport::Keep };
        let rules = RegisterSettings { path_without_support, ..settings.register };
        let mut register = match read_register_of(view, aor.clone(), &rules, flow) {
            Ok(register) => register,
            Err(error) => return self.refuse_register(server, view, &error),
        };
        let spread = settings.expiry_spread;
        if let Some(change) = &mut register.change {
            spread.apply(change, &aor);
        }
        let change = register.change.take();
        let at = clock::wall_time();
        let authentication_info = self.authentication_info(origin, &from, view);
        let request = Arc::clone(request);
        let reply =
            Reply { server, request, register, home, epoch, from, is_direct, authentication_info, at };
        let (Some(change), Some(name)) = (change, self.shared.directory.homes().name(home)) else {
            let bindings = self.shared.bindings(home, &aor).into_iter().collect();
            return self.accept(turn, &reply, &bindings);
        };
        let operation = OperationId::of_register(view, &self.settings.operation_key);
        let waiting = Waiting { reply: Some(reply), aor: aor.clone() };
        let command = Command::of_user(name.clone(), epoch, operation, at, aor, change);
        self.batch.push((command, waiting));
    }

    fn flow_record(&self, from: &Peer) -> FlowRecord {
        FlowRecord {
            server: self.shared.server.name.clone(),
            boot: self.shared.boot,
            flow: from.flow,
            protocol: from.protocol,
            remote: from.remote,
            local: from.local,
        }
    }

    /// Hands the registrations of this turn to the disk, all at once.
    pub(super) fn submit(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let (commands, waiting): (Vec<_>, Vec<_>) = self.batch.drain(..).unzip();
        let mailer = self.mailer.clone();
        let reply = move |outcomes: Vec<Result<Outcome, HotError>>| {
            mailer.post(Mail::Outcomes(waiting, outcomes));
        };
        self.shared.hot.submit(commands, Box::new(reply));
    }

    /// The disk has spoken: test the authority once more, then answer.
    pub(super) fn registered(
        &mut self,
        turn: &Turn<'_>,
        waiting: Waiting,
        outcome: Result<Outcome, HotError>,
    ) {
        if let Ok(Outcome::Registered { replaced, .. }) = &outcome {
            let cause = match waiting.reply {
                Some(_) if replaced.is_empty() => Cause::Register,
                Some(_) => Cause::Replacement,
                None => Cause::Other,
            };
            if !replaced.is_empty() {
                self.shared.counters.devices_replaced.add_many(replaced.len());
                info!(user = %waiting.aor, "the oldest device left for a new one");
            }
            self.shared.watchers.changed(&waiting.aor, cause);
        }
        let Some(reply) = waiting.reply else { return };
        let request = Arc::clone(&reply.request);
        match outcome {
            Ok(Outcome::Registered { bindings, .. }) => self.accept(turn, &reply, &bindings),
            Ok(Outcome::Expired { .. }) => {}
            Ok(Outcome::Refused(error)) => self.refuse_register(reply.server, request.view(), &error),
            Err(error) => {
                self.shared.counters.writes_unknown.add();
                warn!(%error, user = %reply.register.aor, "registration not written");
                self.unavailable(reply.server, request.view(), Duration::from_secs(RETRY_AFTER_WRITE_S));
            }
        }
    }

    /// The 200 OK, under an authority that holds at this very moment and in the epoch of the write.
    fn accept(&mut self, turn: &Turn<'_>, reply: &Reply, bindings: &Bindings) {
        let fresh = Turn { authority: turn.authority, now: clock::now() };
        let service = match self.decide(&fresh, reply.home) {
            RegisterDecision::Serve { epoch, service } if epoch == reply.epoch => service,
            RegisterDecision::Serve { .. }
            | RegisterDecision::Forward { .. }
            | RegisterDecision::Redirect { .. }
            | RegisterDecision::Unavailable { .. } => {
                return self.outlived(&fresh, reply);
            }
        };
        self.remember_flow(reply);
        self.shared.counters.registers_accepted.add();
        self.write_ok(reply, bindings, service);
        self.send_out(reply.server, 200);
    }

    /// The authority ended while the disk was busy: the new owner decides, if there is one in a moment.
    fn outlived(&mut self, turn: &Turn<'_>, reply: &Reply) {
        let origin = if reply.is_direct { Some(Origin::Phone) } else { None };
        let is_held = turn.authority.is_changing(self.owned_with(reply.home), turn.now)
            && origin.is_some_and(|origin| {
                self.hold(turn, Held::new(&origin, reply.server, &reply.request, reply.from))
            });
        if !is_held {
            let retry_after = Duration::from_secs(RETRY_AFTER_WRITE_S);
            self.unavailable(reply.server, reply.request.view(), retry_after);
        }
    }

    /// Whether a decision may be another in a moment because owners change: nobody serves, or the one to send
    /// the phone to does not say yet that it does, and would send it back.
    fn is_between_owners(&self, turn: &Turn<'_>, home: HomeIndex, decision: &RegisterDecision) -> bool {
        let owned_with = self.owned_with(home);
        let nobody_claims = || self.shared.links.serving(owned_with, turn.now).is_none();
        let is_too_early = match decision {
            RegisterDecision::Unavailable { .. } => true,
            RegisterDecision::Redirect { .. } => nobody_claims(),
            // The former owner said no, and there is no word of the next one yet.
            RegisterDecision::Forward { .. } => self.held.was_passed_on() && nobody_claims(),
            RegisterDecision::Serve { .. } => false,
        };
        is_too_early && turn.authority.is_changing(owned_with, turn.now)
    }

    /// The home pool whose ownership decides about this one's users: of a branch, the associated pool.
    fn owned_with(&self, home: HomeIndex) -> HomeIndex {
        let (homes, topology) = (self.shared.directory.homes(), self.shared.topology());
        let associated = homes.name(home).and_then(|name| topology.associated_of(name));
        associated.and_then(|pool| homes.index(&pool.name)).unwrap_or(home)
    }

    fn write_ok(&mut self, reply: &Reply, bindings: &Bindings, service: Service) {
        let leg = reply.is_direct.then(|| self.legs.towards(&reply.from, false)).flatten();
        let service_route = leg.as_ref().map(|leg| leg.record_route.as_ref());
        let gruus = self.settings.gives_gruus.then_some(&self.shared.gruus);
        self.ok_headers.fill(&reply.register, bindings, service_route, gruus, reply.at);
        let tag = hexadecimal(self.chance.bits());
        self.out.clear();
        let request = reply.request.view();
        let mut builder = ResponseBuilder::new(request, 200, reason_phrase(200).as_bytes()).to_tag(&tag);
        for (id, value) in self.ok_headers.iter() {
            builder = builder.header(id.name(), value);
        }
        if let Some(info) = &reply.authentication_info {
            builder = builder.header("Authentication-Info", info);
        }
        self.settings.says.follow(&self.shared);
        let says = &self.settings.says;
        builder = match service {
            Service::Full => builder.header("Feature-Caps", says.full.as_bytes()),
            Service::Resiliency => builder
                .header("Feature-Caps", says.resiliency.as_bytes())
                .header("Warning", says.warning.as_bytes()),
        };
        if reply.is_direct && self.expects_keep_alives(&reply.register, request, &reply.from) {
            let timer = self.settings.flow_timer.as_ref();
            builder = builder.header("Flow-Timer", timer.map(FlowTimer::value).unwrap_or_default());
        }
        builder.write_to(&mut self.out);
    }

    /// Remembers who is reached over a connection, to let go of the binding when it closes.
    fn remember_flow(&mut self, reply: &Reply) {
        if !reply.is_direct || reply.from.protocol == Protocol::Udp {
            return;
        }
        let users = self.registered.entry(reply.from.flow).or_default();
        let user = (reply.home, reply.register.aor.clone());
        if !users.contains(&user) {
            users.push(user);
        }
    }

    /// A connection closed: the bindings over it reach nobody any more.
    pub(super) fn forget_registrations(&mut self, turn: &Turn<'_>, flow: FlowId) {
        for (home, aor) in self.registered.remove(&flow).unwrap_or_default() {
            let RegisterDecision::Serve { epoch, .. } = self.decide(turn, home) else { continue };
            let Some(name) = self.shared.directory.homes().name(home) else { continue };
            let change = UserChange::FlowClosed {
                server: self.shared.server.name.clone(),
                boot: self.shared.boot,
                flow: flow.number(),
            };
            let number = u128::from(self.chance.bits()) << 64 | u128::from(self.chance.bits());
            let operation = OperationId::new(number);
            let waiting = Waiting { reply: None, aor: aor.clone() };
            let command = Command::of_user(name.clone(), epoch, operation, clock::wall_time(), aor, change);
            self.batch.push((command, waiting));
        }
    }

    fn refuse_register(&mut self, server: ServerTransaction, request: Message<'_>, error: &RegisterError) {
        if error.status() == 503 {
            return self.unavailable(server, request, Duration::from_secs(RETRY_AFTER_FORWARD_S));
        }
        let header = error.header();
        let headers: Vec<(&str, &[u8])> =
            header.iter().map(|(id, value)| (id.name(), value.as_ref())).collect();
        self.answer(server, request, error.status(), &headers);
    }

    /// 503: come back not before `retry_after`, each phone at another time.
    pub(super) fn unavailable(
        &mut self,
        server: ServerTransaction,
        request: Message<'_>,
        retry_after: Duration,
    ) {
        self.shared.counters.registers_unavailable.add();
        let seconds = storm::spread(retry_after, &mut self.chance).to_string();
        self.answer(server, request, 503, &[("Retry-After", seconds.as_bytes())]);
    }

    /// As the edge of a second flow: to the owner, with a Path back to this flow (RFC 5626 section 5.1, RFC
    /// 3327 section 5.2; decision 0008 says why a phone need not say that it supports Path).
    fn pass_on(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        server: ServerTransaction,
        request: &Arc<OwnedMessage>,
        from: Peer,
        owner: &PoolName,
    ) {
        let view = request.view();
        if *origin != Origin::Phone {
            // It came from a server that thought this one could: another hop would only make a loop.
            return self.unavailable(server, view, Duration::from_secs(RETRY_AFTER_WRITE_S));
        }
        let next = self.shared.topology().servers_of(owner).next().map(|server| server.name.clone());
        let is_first_hop = view.values(HeaderId::Via).nth(1).is_none();
        let path = self.legs.path(&from, &self.shared.tokens, is_first_hop);
        let (Some(next), Some(path), Some(leg)) = (next, path, self.legs.internal()) else {
            return self.reject(server, view, &Reject::ServerInternal);
        };
        let mut rewrite = Rewrite::new(view);
        // Only a REGISTER whose Route names nobody but us comes here; left in, it would lead back to us.
        rewrite.remove_route_all();
        rewrite.push_path(path.as_bytes());
        let Ok(with_path) = rewrite.to_message() else {
            return self.reject(server, view, &Reject::MessageTooLarge);
        };
        self.shared.counters.registers_forwarded.add();
        let target = Target {
            next_hop: NextHop::Server(next.clone()),
            request_uri: Bytes::copy_from_slice(view.request_uri()),
            routes: Vec::new(),
            q: 1_000,
            device: None,
            leg,
            diversion: None,
        };
        let with_path = Arc::new(with_path);
        let is_last = self.held.was_passed_on();
        let passed =
            Passed { request: Arc::clone(request), from, origin: Origin::Phone, towards: next, is_last };
        self.passed_on.insert(turn.now, server, passed);
        let located = Located::of(vec![target]);
        self.forward(turn, origin, server, &with_path, from, located, proxy::Routing::default());
    }

    /// The owner could not be reached or cannot serve. While owners change the request is dealt with again by
    /// what is known then; else the phone is told to come back, not that something is wrong.
    pub(super) fn owner_failed(&mut self, turn: &Turn<'_>, server: ServerTransaction, passed: &Passed) {
        let Passed { request, from, is_last, .. } = passed;
        let held = Held { was_passed_on: true, ..Held::new(&Origin::Phone, server, request, *from) };
        if !is_last && turn.authority.is_any_moving(turn.now) && self.hold(turn, held) {
            return;
        }
        self.unavailable(server, request.view(), Duration::from_secs(RETRY_AFTER_FORWARD_S));
    }
}

/// The standing as it is at `turn.now`: an authority that has run out is none.
fn fresh(turn: &Turn<'_>, home: HomeIndex) -> Option<Standing> {
    let standing = turn.authority.standing(home)?;
    match standing {
        Standing::Serving(authority) if !authority.holds_at(turn.now) => Some(Standing::Unknown),
        Standing::Serving(_) | Standing::Paused(_) | Standing::Elsewhere { .. } | Standing::Unknown => {
            Some(standing.clone())
        }
    }
}
