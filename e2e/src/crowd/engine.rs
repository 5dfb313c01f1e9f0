//! The crowd's loop: two sockets, open transactions, timers, and what is due.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    net::{SocketAddr, UdpSocket},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::set_socket_recv_buffer_size_force,
};

use super::{
    CrowdPlan, Deed, Entry, Load, Shared,
    users::{Party, caller_name, user_name},
    wire::{self, Request, Turn},
};
use crate::{Message, message::uri_of};

/// First retransmission of a request over UDP.
const T1: Duration = Duration::from_millis(500);
/// Longest pause between two retransmissions.
const T2: Duration = Duration::from_secs(4);
/// Requests for one deed: challenges and redirections.
const ATTEMPTS_MAX: u8 = 5;
/// Pause before a user who was not reached is probed again.
const PROBE_AGAIN: Duration = Duration::from_millis(200);
/// Pause before a phone that was refused or not answered turns to the other server.
const TURN_AFTER: Duration = Duration::from_millis(500);
/// Datagrams read from a socket before the other work goes on.
const READ_MAX: usize = 256;
/// Octets that wait at each socket before the system drops datagrams.
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;
/// Deeds of one kind that are begun at once when the loop was late.
const BURST_MAX: f64 = 64.0;
/// What a 200 OK to REGISTER says when nothing is missing.
const FULL: &[u8] = b"+g.tandem.mode=\"full\"";
const REGISTRAR: &str = "sip:example.com";

/// One deed under way: its transaction and what it has been through.
#[derive(Debug)]
struct Slot {
    turn: Turn,
    is_open: bool,
    deed: Deed,
    method: &'static str,
    user: usize,
    party: usize,
    server: usize,
    first_server: usize,
    call_id: String,
    cseq: u32,
    to: String,
    uri: String,
    routes: Vec<String>,
    octets: Vec<u8>,
    sent: Instant,
    pause: Duration,
    attempts: u8,
    redirections: u8,
    has_provisional: bool,
}

/// A stream of deeds at a steady rate.
#[derive(Debug)]
struct Stream {
    owed: f64,
    next: usize,
}

impl Stream {
    const fn new() -> Self {
        Self { owed: 0.0, next: 0 }
    }

    /// How many deeds are due after this time at this rate.
    fn due(&mut self, rate: u32, passed: Duration) -> usize {
        self.owed = (self.owed + f64::from(rate) * passed.as_secs_f64()).min(BURST_MAX);
        let mut count = 0;
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            count += 1;
        }
        count
    }

    /// The next of `count` in turn.
    const fn turn(&mut self, count: usize) -> usize {
        let at = self.next % count;
        self.next = at + 1;
        at
    }
}

/// The crowd's state.
pub struct Engine {
    plan: CrowdPlan,
    shared: Arc<Shared>,
    phones: UdpSocket,
    callers: UdpSocket,
    phones_at: SocketAddr,
    callers_at: SocketAddr,
    /// Users first, then the callers of the first pool, then those of the second.
    parties: Vec<Party>,
    users: usize,
    slots: Vec<Slot>,
    free: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, Turn)>>,
    window: usize,
    registering: usize,
    first_left: VecDeque<usize>,
    again: VecDeque<(Instant, usize)>,
    probe_again: VecDeque<(Instant, usize)>,
    unreachable: usize,
    registered: usize,
    refreshes: Stream,
    messages: Stream,
    calls: Stream,
    probes: Stream,
    repeated: Stream,
    watch: Stream,
    caller: usize,
    serial: u64,
    done: Vec<Entry>,
}

impl Engine {
    /// A crowd that has not begun.
    ///
    /// Errors: no sockets.
    pub fn new(plan: CrowdPlan, window: usize, shared: Arc<Shared>) -> Result<Self> {
        let open = || -> Result<(UdpSocket, SocketAddr)> {
            let socket = UdpSocket::bind((plan.address, 0))?;
            socket.set_nonblocking(true)?;
            set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
                .context("a receive buffer for a crowd needs root")?;
            let local = socket.local_addr()?;
            Ok((socket, local))
        };
        let ((phones, phones_at), (callers, callers_at)) = (open()?, open()?);
        let users = usize::try_from(plan.users)?;
        let mut parties: Vec<Party> = (0..plan.users).map(|user| Party::new(user_name(user), 0)).collect();
        for server in 0..2 {
            parties.extend((0..plan.callers).map(|number| Party::new(caller_name(server, number), server)));
        }
        Ok(Self {
            plan,
            shared,
            phones,
            callers,
            phones_at,
            callers_at,
            parties,
            users,
            slots: Vec::new(),
            free: Vec::new(),
            timers: BinaryHeap::new(),
            window,
            registering: 0,
            first_left: (0..users).collect(),
            again: VecDeque::new(),
            probe_again: VecDeque::new(),
            unreachable: 0,
            registered: 0,
            refreshes: Stream::new(),
            messages: Stream::new(),
            calls: Stream::new(),
            probes: Stream::new(),
            repeated: Stream::new(),
            watch: Stream::new(),
            caller: 0,
            serial: 0,
            done: Vec::new(),
        })
    }

    /// Runs until it is told to end.
    ///
    /// Errors: a socket fails.
    pub fn run(&mut self) -> Result<()> {
        let mut looked = Instant::now();
        let mut buffer = vec![0; 65_536];
        while !self.shared.is_over.load(Ordering::Relaxed) {
            self.read_phones(&mut buffer);
            self.read_callers(&mut buffer);
            let now = Instant::now();
            self.run_timers(now);
            self.begin_registrations(now);
            let load = *self.shared.load.lock().unwrap_or_else(PoisonError::into_inner);
            self.begin_load(load, now, now - looked);
            looked = now;
            self.publish();
            let mut sockets =
                [PollFd::new(&self.phones, PollFlags::IN), PollFd::new(&self.callers, PollFlags::IN)];
            let pause = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            let _interrupted = poll(&mut sockets, Some(&pause));
        }
        Ok(())
    }

    fn publish(&mut self) {
        if !self.done.is_empty() {
            let mut entries = self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.append(&mut self.done);
        }
        let open = self.slots.len() - self.free.len();
        self.shared.open.store(open, Ordering::Relaxed);
        self.shared.registered.store(self.registered, Ordering::Relaxed);
        self.shared.unreachable.store(self.unreachable, Ordering::Relaxed);
    }

    // --- what arrives

    fn read_phones(&mut self, buffer: &mut [u8]) {
        for _ in 0..READ_MAX {
            let Ok((length, from)) = self.phones.recv_from(buffer) else { return };
            let octets = buffer.get(..length).unwrap_or_default();
            if octets.starts_with(b"SIP/2.0 ") {
                self.response(octets);
            } else if let Some(answer) = wire::answer(octets, self.phones_at) {
                let _lost_like_any_datagram = self.phones.send_to(&answer, from);
            }
        }
    }

    fn read_callers(&mut self, buffer: &mut [u8]) {
        for _ in 0..READ_MAX {
            let Ok((length, _)) = self.callers.recv_from(buffer) else { return };
            self.response(buffer.get(..length).unwrap_or_default());
        }
    }

    fn response(&mut self, octets: &[u8]) {
        let (Some(status), Some(turn)) = (wire::status(octets), wire::turn(octets)) else { return };
        let Some(slot) = self.slots.get_mut(turn.slot) else { return };
        if !slot.is_open || slot.turn != turn {
            return;
        }
        if status < 200 {
            slot.has_provisional = true;
            return;
        }
        let (method, attempts) = (slot.method, slot.attempts);
        if method == "INVITE" && status >= 300 {
            self.acknowledge_refusal(turn.slot, octets);
        }
        match (method, status) {
            (_, 401 | 407) if attempts < ATTEMPTS_MAX => self.challenged(turn.slot, octets),
            ("REGISTER", 302) if attempts < ATTEMPTS_MAX => self.redirected(turn.slot, octets),
            ("INVITE", 200) => self.answered_call(turn.slot, octets),
            (_, 200) => {
                let is_theirs = method == "REGISTER"
                    || self.user_name(turn.slot).is_some_and(|name| wire::is_from_phone(octets, name));
                let is_full = octets.windows(FULL.len()).any(|window| window == FULL);
                self.finish(turn.slot, if is_theirs { 200 } else { 299 }, is_full);
            }
            _ => self.finish(turn.slot, status, false),
        }
    }

    fn user_name(&self, slot: usize) -> Option<&str> {
        self.slots.get(slot).and_then(|slot| self.parties.get(slot.user)).map(|user| user.name.as_str())
    }

    fn challenged(&mut self, at: usize, octets: &[u8]) {
        let Some((message, _)) = Message::read(octets) else { return self.finish(at, 401, false) };
        let Some(party) = self.slots.get(at).and_then(|slot| self.parties.get_mut(slot.party)) else {
            return;
        };
        party.challenged(message.lines("WWW-Authenticate").chain(message.lines("Proxy-Authenticate")));
        self.send_anew(at);
    }

    fn redirected(&mut self, at: usize, octets: &[u8]) {
        let contacts = Message::read(octets).map(|(message, _)| message.values("Contact"));
        let hosts = contacts.into_iter().flatten().map(|value| uri_of(&value));
        let mut servers = hosts.filter_map(|uri| {
            let host = uri.split(['@', ';']).find_map(|part| part.trim_start_matches("sip:").parse().ok());
            self.plan.servers.iter().position(|server| Some(*server) == host)
        });
        let Some(server) = servers.next() else { return self.finish(at, 302, false) };
        if let Some(slot) = self.slots.get_mut(at) {
            slot.server = server;
            slot.redirections += 1;
            if let Some(user) = self.parties.get_mut(slot.user) {
                user.server = server;
            }
        }
        self.send_anew(at);
    }

    /// The ACK for a 200 OK, and the BYE.
    fn answered_call(&mut self, at: usize, octets: &[u8]) {
        let is_theirs = self.user_name(at).is_some_and(|name| wire::is_from_phone(octets, name));
        let message = Message::read(octets).map(|(message, _)| message).filter(|_| is_theirs);
        let Some(message) = message else { return self.finish(at, 299, false) };
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.to = message.header("To").unwrap_or_default().to_owned();
        slot.uri = message.contact_uri().unwrap_or_default();
        slot.routes = message.values("Record-Route");
        slot.routes.reverse();
        slot.method = "ACK";
        slot.turn.count = slot.turn.count.wrapping_add(1);
        self.send_once(at);
        if let Some(slot) = self.slots.get_mut(at) {
            slot.method = "BYE";
            slot.cseq += 1;
            slot.attempts = 0;
        }
        self.send_anew(at);
    }

    fn acknowledge_refusal(&mut self, at: usize, octets: &[u8]) {
        let Some((message, _)) = Message::read(octets) else { return };
        let Some(slot) = self.slots.get_mut(at) else { return };
        let to = message.header("To").unwrap_or_default().to_owned();
        let (former_to, former_octets) = (std::mem::replace(&mut slot.to, to), slot.octets.clone());
        slot.method = "ACK";
        self.send_once(at);
        if let Some(slot) = self.slots.get_mut(at) {
            (slot.method, slot.to, slot.octets) = ("INVITE", former_to, former_octets);
        }
    }

    // --- what is sent

    /// Sends the request of a slot with its present transaction, and never again.
    fn send_once(&mut self, at: usize) {
        self.write(at);
        self.transmit(at);
    }

    /// Sends the request of a slot in a new transaction.
    fn send_anew(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.turn.count = slot.turn.count.wrapping_add(1);
        slot.attempts += 1;
        slot.pause = T1;
        slot.has_provisional = false;
        if slot.attempts > 1 {
            slot.cseq += 1;
        }
        let turn = slot.turn;
        self.write(at);
        self.transmit(at);
        self.timers.push(Reverse((Instant::now() + T1, turn)));
    }

    fn write(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let Some(party) = self.parties.get_mut(slot.party) else { return };
        let is_register = slot.method == "REGISTER";
        let header = if is_register { "Authorization" } else { "Proxy-Authorization" };
        if is_register {
            party.cseq += 1;
            slot.cseq = party.cseq;
        }
        let is_inside_dialog = matches!(slot.method, "ACK" | "BYE");
        let credentials = if is_inside_dialog { None } else { party.credentials(slot.method, &slot.uri) };
        let request = Request {
            method: slot.method,
            uri: &slot.uri,
            local: if is_register { self.phones_at } else { self.callers_at },
            turn: slot.turn,
            from: &party.name,
            to: &slot.to,
            call_id: &slot.call_id,
            cseq: slot.cseq,
            routes: &slot.routes,
            credentials: credentials.as_deref().map(|value| (header, value)),
            expires: is_register.then_some(self.plan.expires_s),
        };
        slot.octets = request.write();
    }

    fn transmit(&self, at: usize) {
        let Some(slot) = self.slots.get(at) else { return };
        let socket = if slot.deed == Deed::Register { &self.phones } else { &self.callers };
        if let Some(server) = self.plan.servers.get(slot.server) {
            // A full buffer loses a datagram, as a network would; the retransmission follows.
            let _ = socket.send_to(&slot.octets, server);
        }
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(Reverse((at, turn))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(slot) = self.slots.get_mut(turn.slot) else { continue };
            if !slot.is_open || slot.turn != turn {
                continue;
            }
            let is_out_of_patience = now.saturating_duration_since(slot.sent) >= self.plan.patience;
            if is_out_of_patience {
                self.finish(turn.slot, 0, false);
                continue;
            }
            slot.pause = (slot.pause * 2).min(T2);
            let is_repeated = !(slot.method == "INVITE" && slot.has_provisional);
            let next = (now + slot.pause).min(slot.sent + self.plan.patience);
            if is_repeated {
                self.transmit(turn.slot);
            }
            self.timers.push(Reverse((next, turn)));
        }
    }

    // --- what is begun and ended

    fn begin(&mut self, deed: Deed, party: usize, user: usize, server: usize) {
        let Some(name) = self.parties.get(user).map(|user| user.name.clone()) else { return };
        self.serial += 1;
        let at = self.free.pop().unwrap_or(self.slots.len());
        let count = self.slots.get(at).map_or(0, |slot| slot.turn.count);
        let method = match deed {
            Deed::Register => "REGISTER",
            Deed::Probe | Deed::Message => "MESSAGE",
            Deed::Call => "INVITE",
        };
        let aor = format!("sip:{name}@example.com");
        let slot = Slot {
            turn: Turn { slot: at, count },
            is_open: true,
            deed,
            method,
            user,
            party,
            server,
            first_server: server,
            // One Call-ID for all registrations of a phone, as RFC 3261 section 10.2 wants it.
            call_id: if deed == Deed::Register { format!("r-{name}") } else { format!("d{}", self.serial) },
            cseq: 1,
            to: format!("<{aor}>"),
            uri: if deed == Deed::Register { REGISTRAR.to_owned() } else { aor },
            routes: Vec::new(),
            octets: Vec::new(),
            sent: Instant::now(),
            pause: T1,
            attempts: 0,
            redirections: 0,
            has_provisional: false,
        };
        match self.slots.get_mut(at) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        self.send_anew(at);
    }

    fn finish(&mut self, at: usize, status: u16, is_full: bool) {
        let now = Instant::now();
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.is_open = false;
        slot.octets = Vec::new();
        let (deed, user) = (slot.deed, slot.user);
        self.done.push(Entry {
            deed,
            user: u32::try_from(user).unwrap_or(u32::MAX),
            server: slot.first_server,
            sent: slot.sent,
            ended: now,
            status,
            is_full,
            redirections: slot.redirections,
        });
        self.free.push(at);
        let Some(user_state) = self.parties.get_mut(user) else { return };
        match deed {
            Deed::Register => {
                user_state.is_registering = false;
                self.registering -= 1;
                if status == 200 {
                    self.registered += usize::from(!user_state.is_registered);
                    user_state.is_registered = true;
                } else {
                    user_state.server = 1 - user_state.server.min(1);
                    self.again.push_back((now + TURN_AFTER, user));
                }
            }
            Deed::Probe if status == 200 => {
                self.unreachable -= usize::from(user_state.is_unreachable);
                user_state.is_unreachable = false;
            }
            Deed::Probe => {
                if !user_state.is_unreachable {
                    user_state.is_unreachable = true;
                    self.unreachable += 1;
                }
                if !user_state.is_probed_again {
                    user_state.is_probed_again = true;
                    self.probe_again.push_back((now + PROBE_AGAIN, user));
                }
            }
            Deed::Message | Deed::Call => {}
        }
    }

    fn begin_register(&mut self, user: usize) {
        let Some(state) = self.parties.get_mut(user) else { return };
        if state.is_registering {
            return;
        }
        state.is_registering = true;
        self.registering += 1;
        let server = state.server;
        self.begin(Deed::Register, user, user, server);
    }

    fn begin_registrations(&mut self, now: Instant) {
        while self.registering < self.window
            && let Some(user) = self.first_left.pop_front()
        {
            self.begin_register(user);
        }
        while let Some((at, user)) = self.again.front().copied()
            && at <= now
        {
            self.again.pop_front();
            self.begin_register(user);
        }
    }

    fn begin_load(&mut self, load: Load, now: Instant, passed: Duration) {
        for _ in 0..self.refreshes.due(load.refreshes, passed) {
            let user = self.refreshes.turn(self.users);
            self.begin_register(user);
        }
        for _ in 0..self.messages.due(load.messages, passed) {
            let user = self.messages.turn(self.users);
            self.begin_from_caller(Deed::Message, user, load.is_partner_only);
        }
        for _ in 0..self.calls.due(load.calls, passed) {
            let user = self.calls.turn(self.users);
            self.begin_from_caller(Deed::Call, user, load.is_partner_only);
        }
        for _ in 0..self.repeated.due(load.probes / 2, passed) {
            match self.probe_again.front().copied() {
                Some((at, user)) if at <= now => {
                    self.probe_again.pop_front();
                    let Some(state) = self.parties.get_mut(user) else { continue };
                    state.is_probed_again = false;
                    // One that was reached meanwhile, in its turn, needs no repetition.
                    if state.is_unreachable {
                        self.begin_probe(user, load.probes_via);
                    }
                }
                _ => break,
            }
        }
        let in_turn = if self.probe_again.is_empty() { load.probes } else { load.probes.div_ceil(2) };
        for _ in 0..self.probes.due(in_turn, passed) {
            let user = self.probes.turn(self.users);
            self.begin_probe(user, load.probes_via);
        }
        let watched = usize::try_from(load.watched).unwrap_or(self.users).min(self.users);
        for _ in 0..self.watch.due(load.watched * load.watch_rate, passed) {
            let user = self.watch.turn(watched);
            self.begin_probe(user, load.probes_via);
        }
    }

    fn next_caller(&mut self, server: usize) -> usize {
        let callers = usize::try_from(self.plan.callers).unwrap_or(1);
        self.caller = (self.caller + 1) % callers;
        self.users + server * callers + self.caller
    }

    fn begin_probe(&mut self, user: usize, via: usize) {
        let caller = self.next_caller(1);
        self.begin(Deed::Probe, caller, user, via);
    }

    fn begin_from_caller(&mut self, deed: Deed, user: usize, is_partner_only: bool) {
        let server = usize::from(is_partner_only || user % 2 == 1);
        let caller = self.next_caller(server);
        self.begin(deed, caller, user, server);
    }
}
