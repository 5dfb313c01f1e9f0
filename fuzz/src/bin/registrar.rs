//! A routing group: replicas that apply the same commands have the same state, octet for octet, a snapshot
//! changes nothing, a refused or repeated command changes nothing, and what is bound is what was asked.
//! Input: 0xff and the octets of a snapshot, or steps, one octet for the kind and more for its choices.
#![no_main]

use bytes::Bytes;
use fuzz::Draw;
use libfuzzer_sys::fuzz_target;
use model::{AddressOfRecord, Epoch, FlowId, PoolName, Protocol, RoutingGroup, ServerName, WallTime};
use registrar::{
    Binding, Change, Command, DeviceLimit, FlowRecord, GroupState, OkHeaders, OperationId, Outcome,
    RegisterError, RegisterRequest, RegisterSettings, UserChange, read_register,
};
use sip::{Contacts, Framing, HeaderId, OwnedMessage, ResponseBuilder};

const USERS: [&str; 3] = ["sip:a@example.com", "sip:b%40c@example.com", "sip:d@[2001:db8::1]"];
const CALL_IDS: [&str; 3] = ["c1@h", "c2@h", "c3"];
const URIS: [&str; 8] = [
    "sip:u@192.0.2.1:5060;transport=udp",
    "SIP:%75@192.0.2.1:5060;transport=UDP",
    "sip:u@host.example;ob",
    "sips:u@HOST.example",
    "tel:+1-201-555-0123",
    "sip:[2001:db8::7]:5070",
    "mailto:u@example.com",
    "sip:u@host.example;x=1;x=2",
];
const PARAMETERS: [&str; 8] = [
    "",
    ";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-AABBCCDDEEFF>\"",
    ";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-aabbccddeeff>\";reg-id=1",
    ";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-aabbccddeeff>\";reg-id=2;q=0.5",
    ";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000000000002>\"",
    ";q=0.1;audio;methods=\"INVITE,\r\n BYE\"",
    ";reg-id=1;q=2",
    ";expires=0",
];
const EXPIRES_S: [&str; 7] = ["", "60", "0", "7200", "59", "4294967296", "3600"];
const STEPS_MAX: usize = 120;

fuzz_target!(|data: &[u8]| {
    if let Some(octets) = data.strip_prefix(b"\xff") {
        return any_octets_may_be_a_snapshot(octets);
    }
    let mut draw = Draw::new(data);
    let mut bench = Bench::new();
    for number in 1..=STEPS_MAX {
        if draw.is_empty() {
            break;
        }
        bench.step(&mut draw, number as u128);
    }
    bench.everything_expires();
});

struct Bench {
    state: GroupState,
    /// Gets every command too, and is made anew from a snapshot now and then.
    replica: GroupState,
    now: WallTime,
    /// The latest time of a command or a binding so far: the clock may be set back.
    latest: WallTime,
    epoch: Epoch,
}

impl Bench {
    fn new() -> Self {
        Self {
            state: GroupState::new(),
            replica: GroupState::new(),
            now: WallTime::from_micros(1_700_000_000_500_000),
            latest: WallTime::from_micros(0),
            epoch: Epoch::new(3),
        }
    }

    fn step(&mut self, draw: &mut Draw<'_>, number: u128) {
        let seconds = draw.one_of(&[0, 1, 25, 61, 600, 4_000, -30, 0]);
        let micros = self.now.as_micros().saturating_add_signed(seconds * 1_000_000);
        self.now = WallTime::from_micros(micros + u64::from(draw.octet()));
        if draw.is_rare(16) {
            let snapshot = self.state.encode_snapshot();
            self.replica = GroupState::decode_snapshot(&snapshot).expect("what was written is read");
            assert_eq!(self.replica, self.state);
        }
        let aor = AddressOfRecord::new(draw.one_of(&USERS)).unwrap();
        let Some((change, request)) = change(draw, &aor) else { return };
        let operation = if draw.is_rare(8) { number / 2 } else { number };
        let epoch = match draw.below(12) {
            11 => self.epoch.next(),
            10 => Epoch::new(self.epoch.number() - 1),
            _ => self.epoch,
        };
        self.submit(
            &command(&aor, epoch, operation, self.now, change),
            request.as_ref(),
            operation == number,
        );
        self.epoch = self.epoch.max(epoch);
    }

    fn submit(&mut self, command: &Command, request: Option<&RegisterRequest>, is_new: bool) {
        let disk = postcard::to_allocvec(command).unwrap();
        assert_eq!(postcard::from_bytes::<Command>(&disk).as_ref(), Ok(command));
        let before = bound(&self.state);
        let highest = self.state.highest_epoch();
        let outcome = self.state.apply(command);
        assert_eq!(self.replica.apply(command), outcome, "replicas answer the same");
        assert_eq!(self.replica, self.state);
        assert_eq!(self.replica.encode_snapshot(), self.state.encode_snapshot());
        self.is_sound();
        let is_stale = command.epoch < highest;
        assert_eq!(matches!(outcome, Outcome::Refused(RegisterError::StaleEpoch(_))), is_stale);
        assert_eq!(self.state.highest_epoch(), highest.max(command.epoch));
        match &outcome {
            Outcome::Refused(error) => {
                can_be_said(error);
                assert_eq!(bound(&self.state), before, "a refused command changes nothing");
            }
            Outcome::Registered { bindings, .. } => {
                let Change::User { aor, change } = &command.change else { panic!("nobody was registered") };
                assert_eq!(*bindings, self.state.lookup(aor, command.now));
                is_a_lookup(bindings, command.now);
                if is_new {
                    self.is_what_was_asked(change, bindings, command.now);
                }
                if let Some(request) = request {
                    goes_into_the_ok(request, bindings, command.now);
                }
            }
            Outcome::Expired { .. } => {
                assert!(matches!(command.change, Change::Expire { .. }));
            }
        }
        let updated = self.state.iter().flat_map(|(_, held)| held).map(Binding::updated_at);
        self.latest = updated.fold(self.latest.max(command.now), WallTime::max);
        let after = self.state.clone();
        assert_eq!(self.state.apply(command), outcome, "the same command again has the same answer");
        assert_eq!(self.state, after, "and changes nothing");
    }

    /// What must hold after every command.
    fn is_sound(&self) {
        let mut bindings = 0;
        let mut users = Vec::new();
        for (aor, held) in self.state.iter() {
            assert!(!held.is_empty(), "a user without bindings needs no memory");
            bindings += held.len();
            users.push(aor);
        }
        assert!(users.is_sorted());
        assert_eq!((self.state.len(), self.state.users_len()), (bindings, users.len()));
        assert_eq!(self.state.is_empty(), bindings == 0);
    }

    fn is_what_was_asked(&self, change: &UserChange, bindings: &[Binding], now: WallTime) {
        match change {
            UserChange::RemoveAll { .. } | UserChange::Remove { contact: None } => {
                assert!(bindings.is_empty())
            }
            UserChange::Remove { contact: Some(uri) } => {
                assert!(bindings.iter().all(|binding| *binding.uri() != **uri));
            }
            UserChange::FlowClosed { server, boot, flow } => {
                assert!(!bindings.iter().filter_map(Binding::flow).any(|held| {
                    held.server == server.as_str() && held.boot == *boot && held.peer.flow.number() == *flow
                }));
            }
            UserChange::Register(registration) => {
                let [only] = registration.contacts.as_slice() else { return };
                let found = bindings.iter().find(|binding| {
                    binding.uri() == only.contact.uri()
                        && binding.instance() == only.contact.instance()
                        && binding.reg_id() == only.contact.reg_id()
                });
                let Some(found) = found else {
                    assert_eq!(only.expires_s, 0, "what was registered is bound");
                    return;
                };
                if only.expires_s == 0 {
                    // Another flow or spelling of it may stay; it was not made by this request.
                    return;
                }
                assert_eq!((found.call_id(), found.cseq()), (&*registration.call_id, registration.cseq));
                assert!(found.expires_in_s(now) >= only.expires_s);
                // Later only where it has to win over what was there before a clock was set back.
                let is_later = now < found.updated_at() && now <= self.latest;
                assert!(found.updated_at() == now || is_later);
                assert!(found.path().eq(registration.path.values()));
                assert_eq!(found.flow().and_then(|flow| flow.to_record()), registration.flow);
            }
        }
    }

    /// Long after, one expiry returns all memory.
    fn everything_expires(&mut self) {
        let aor = AddressOfRecord::new(USERS[0]).unwrap();
        self.now = WallTime::from_micros(self.now.as_micros() + 10_000_000_000);
        let held = self.state.len();
        let expire = command(&aor, self.epoch, u128::MAX, self.now, Change::Expire { users_max: 1_000 });
        let outcome = self.state.apply(&expire);
        assert_eq!(outcome, Outcome::Expired { bindings: u32::try_from(held).unwrap() });
        assert!(self.state.is_empty() && self.state.users_len() == 0);
    }
}

fn bound(state: &GroupState) -> Vec<(AddressOfRecord, Vec<Binding>)> {
    state.iter().map(|(aor, bindings)| (aor.clone(), bindings.to_vec())).collect()
}

fn is_a_lookup(bindings: &[Binding], now: WallTime) {
    assert!(bindings.iter().all(|binding| !binding.is_expired(now) && binding.expires_in_s(now) > 0));
    assert!(bindings.is_sorted_by(|one, other| {
        (one.q(), one.updated_at()) >= (other.q(), other.updated_at()) && one.q() <= 1_000
    }));
}

fn can_be_said(error: &RegisterError) {
    assert!((400..700).contains(&error.status()) && !error.reason().is_empty());
    if let Some((id, value)) = error.header() {
        assert!(id != HeaderId::Other && !value.iter().any(|octet| b"\r\n\0".contains(octet)));
    }
}

fn command(aor: &AddressOfRecord, epoch: Epoch, operation: u128, now: WallTime, change: Change) -> Command {
    let home = PoolName::new("east").unwrap();
    let group = RoutingGroup::of(aor);
    Command { home, group, epoch, operation: OperationId::new(operation), now, change }
}

fn flow(draw: &mut Draw<'_>) -> FlowRecord {
    let protocol = draw.one_of(&[Protocol::Udp, Protocol::Tls]);
    let remote = draw.one_of(&["192.0.2.17:5060", "[2001:db8::17]:49152"]);
    FlowRecord {
        server: ServerName::new(draw.one_of(&["east1", "east2"])).unwrap(),
        boot: u64::from(draw.octet()) % 2,
        flow: FlowId::new(1, u64::from(draw.octet()) % 3),
        protocol,
        remote: remote.parse().unwrap(),
        local: "192.0.2.1:5060".parse().unwrap(),
    }
}

/// The next change, with the REGISTER that it was read from, if any; `None` when that was refused or only
/// asked.
fn change(draw: &mut Draw<'_>, aor: &AddressOfRecord) -> Option<(Change, Option<RegisterRequest>)> {
    let user = |change| Change::User { aor: aor.clone(), change };
    match draw.below(8) {
        5 => {
            let contact = draw.one_of(&[None, Some(0), Some(1), Some(2)]);
            let contact = contact.map(|at: usize| URIS[at].as_bytes().into());
            Some((user(UserChange::Remove { contact }), None))
        }
        6 => {
            let FlowRecord { server, boot, flow, .. } = flow(draw);
            Some((user(UserChange::FlowClosed { server, boot, flow: flow.number() }), None))
        }
        7 => Some((Change::Expire { users_max: draw.one_of(&[0, 1, 1_000]) }, None)),
        _ => {
            let request = register(draw, aor)?;
            let change = request.change.clone()?;
            Some((user(change), Some(request)))
        }
    }
}

/// A REGISTER as a phone sends it, read as a registrar does.
fn register(draw: &mut Draw<'_>, aor: &AddressOfRecord) -> Option<RegisterRequest> {
    let (call_id, cseq) = (draw.one_of(&CALL_IDS), draw.below(6));
    let vias = if draw.is_rare(4) { "Via: SIP/2.0/TCP edge.example.com;branch=z9hG4bKy\r\n" } else { "" };
    let mut text = format!(
        "REGISTER sip:example.com SIP/2.0\r\n{vias}Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n\
         From: <sip:a@example.com>;tag=1\r\nTo: <{aor}>\r\nCall-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n"
    )
    .into_bytes();
    let contacts = draw.below(4);
    for _ in 0..contacts {
        let (uri, parameters, expires) =
            (draw.one_of(&URIS), draw.one_of(&PARAMETERS), draw.one_of(&EXPIRES_S));
        let expires = if expires.is_empty() { String::new() } else { format!(";expires={expires}") };
        text.extend_from_slice(format!("Contact: \"N\" <{uri}>{parameters}{expires}\r\n").as_bytes());
    }
    if contacts == 0 {
        let raw = if draw.is_rare(3) { b"*" } else { draw.octets() };
        text.extend_from_slice(&[b"Contact: ", raw, b"\r\n"].concat());
    }
    let lines = draw.octet();
    for (bit, line) in [
        "Expires: 0\r\n",
        "Expires: 120\r\n",
        "Supported: path, outbound\r\n",
        "Path: <sip:edge.example.com;lr;ob>,\r\n <sip:other.example.com;lr>\r\n",
        "Path: <sip:first.example.com;lr>;x=\"y,z\"\r\n",
        "Require: gruu\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        if lines & 1 << bit != 0 {
            text.extend_from_slice(line.as_bytes());
        }
    }
    text.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    let request = OwnedMessage::parse(Bytes::from(text), Framing::Datagram).ok()?;
    request.view().check_mandatory().ok()?;
    let settings = RegisterSettings {
        devices: DeviceLimit::refusing(draw.one_of(&[3, 1, 2])),
        ..RegisterSettings::default()
    };
    let flow = (!draw.is_rare(4)).then(|| flow(draw));
    match read_register(request.view(), &settings, |_| true, flow) {
        Ok(read) => Some(read),
        Err(error) => {
            can_be_said(&error);
            None
        }
    }
}

/// Every binding stands in the 200 OK as the phone sent it.
fn goes_into_the_ok(request: &RegisterRequest, bindings: &[Binding], now: WallTime) {
    let mut headers = OkHeaders::new();
    headers.fill(request, bindings, [&b"<sip:home.example.com;lr>"[..]], None, now);
    let asked = b"REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:a@h>\r\n\
        Call-ID: c\r\nCSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n";
    let asked = OwnedMessage::parse(Bytes::from_static(asked), Framing::Stream).unwrap();
    let mut builder = ResponseBuilder::new(asked.view(), 200, b"").to_tag(b"t");
    for (id, value) in headers.iter() {
        builder = builder.header(id.name(), value);
    }
    let mut out = Vec::new();
    builder.write_to(&mut out);
    let ok = OwnedMessage::parse(Bytes::from(out), Framing::Stream).expect("a 200 OK can be read");
    ok.view().check_mandatory().expect("a 200 OK is whole");
    let Ok(Contacts::List(contacts)) = ok.view().contacts() else { panic!("a 200 OK lists the bindings") };
    let contacts: Vec<_> = contacts.map(|contact| contact.expect("each can be read")).collect();
    assert_eq!(contacts.len(), bindings.len());
    for (contact, binding) in contacts.iter().zip(bindings) {
        assert_eq!(contact.uri_bytes, binding.uri());
        assert_eq!(contact.expires(), Some(binding.expires_in_s(now)));
        assert_eq!(contact.q().unwrap_or(1_000), binding.q());
    }
}

/// No octets make it panic, and what is read is written the same way ever after.
fn any_octets_may_be_a_snapshot(octets: &[u8]) {
    let Ok(mut state) = GroupState::decode_snapshot(octets) else { return };
    let written = state.encode_snapshot();
    let again = GroupState::decode_snapshot(&written).expect("what was written is read");
    assert_eq!(again, state);
    assert_eq!(again.encode_snapshot(), written);
    let mut draw = Draw::new(octets);
    let now = WallTime::from_micros(1_700_000_000_000_000);
    for number in 1..8 {
        let aor = AddressOfRecord::new(draw.one_of(&USERS)).unwrap();
        let Some((change, _)) = change(&mut draw, &aor) else { continue };
        state.apply(&command(&aor, state.highest_epoch(), number, now, change));
    }
    state.encode_snapshot();
}
