//! Transactions against a ledger: whatever comes in whatever order, every transaction ends once and in time,
//! a refused input changes nothing, a request that comes again is absorbed, and the tables are empty in the
//! end. Input: steps, one octet for the kind and more for its choices.
#![no_main]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use fuzz::Draw;
use libfuzzer_sys::fuzz_target;
use model::{ClientTransaction, FlowId, Instant, Peer, Protocol, ServerTransaction};
use sip::{Framing, Message, Method, NameAddr, OwnedMessage, ResponseBuilder, ack_for, cancel_for};
use transaction::{Output, Settings, TransactionError, Transactions};

const METHODS: [&str; 6] = ["INVITE", "BYE", "CANCEL", "REGISTER", "ACK", "WINK"];
const STATUSES: [u16; 13] = [100, 180, 183, 200, 202, 302, 404, 408, 487, 503, 603, 99, 700];
const VIAS: [&str; 8] = [
    "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKa;rport",
    "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKb",
    "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa;rport=1",
    "SIP/2.0/UDP 192.0.2.1;branch=Z9HG4BKA",
    "SIP/2.0/UDP 192.0.2.1",
    "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK",
    "SIP/2.0/TCP [2001:db8::1];branch=old",
    "SIP/2.0/TLS client.example.com;branch=z9hG4bKc",
];
const TO_TAGS: [&str; 3] = ["", ";tag=b200", ";tag=other"];
const SERVER_MAX: usize = 5;
const CLIENT_MAX: usize = 4;
const STEPS_MAX: usize = 250;
/// Retransmissions of one message that timers cause at most: Timer E, the one that fires most often.
const RETRANSMISSIONS_MAX: usize = 11;

fuzz_target!(|data: &[u8]| {
    let mut draw = Draw::new(data);
    let mut bench = Bench::new();
    for _ in 0..STEPS_MAX {
        if draw.is_empty() {
            break;
        }
        bench.step(&mut draw);
    }
    bench.run_out();
});

struct Bench {
    transactions: Transactions,
    now: Instant,
    servers: BTreeMap<ServerTransaction, Server>,
    clients: BTreeMap<ClientTransaction, Client>,
}

#[derive(Debug)]
struct Server {
    key: Vec<Vec<u8>>,
    request: Arc<OwnedMessage>,
    from: Peer,
    response: Option<Arc<OwnedMessage>>,
    is_finished: bool,
}

#[derive(Debug)]
struct Client {
    request: Arc<OwnedMessage>,
    is_reliable: bool,
    tag: u64,
    finals: usize,
    refusals: usize,
    failures: usize,
    timer_transmissions: usize,
}

/// Who caused an output: a timer or a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Timer,
    Call,
}

impl Bench {
    fn new() -> Self {
        let settings = Settings { server_max: SERVER_MAX, client_max: CLIENT_MAX, ..Settings::default() };
        Self {
            transactions: Transactions::new(settings),
            now: Instant::from_micros(1),
            servers: BTreeMap::new(),
            clients: BTreeMap::new(),
        }
    }

    fn step(&mut self, draw: &mut Draw<'_>) {
        match draw.below(10) {
            0 | 1 => self.receive_request(draw),
            2 => self.receive_response(draw),
            3 => self.send_request(draw),
            4 | 5 => self.answer(draw),
            6 => self.receive_follower(draw),
            7 => {
                let client = pick(draw, &self.clients).unwrap_or(ClientTransaction(9));
                self.transactions.transport_failed(self.now, client);
                self.take(Cause::Call);
            }
            8 => {
                let scale = draw.one_of(&[1, 100, 4_000, 20_000]);
                let micros = u64::from(draw.octet()) * scale * 1_000 + u64::from(draw.octet());
                self.now = self.now + Duration::from_micros(micros);
                if !draw.is_rare(4) {
                    self.let_timers_run();
                }
            }
            _ => {
                let text = draw.octets();
                if let Ok(message) = OwnedMessage::parse(Bytes::copy_from_slice(text), Framing::Datagram)
                    && message.view().check_mandatory().is_ok()
                {
                    self.receive(Arc::new(message), peer(draw));
                }
            }
        }
        // A CANCEL may exceed the bound, once for each INVITE.
        assert!(self.transactions.server_count() <= 2 * SERVER_MAX);
        assert!(self.transactions.client_count() <= 2 * CLIENT_MAX);
    }

    fn receive_request(&mut self, draw: &mut Draw<'_>) {
        let request = request(draw);
        let peer = peer(draw);
        self.receive(request, peer);
    }

    fn receive(&mut self, message: Arc<OwnedMessage>, peer: Peer) {
        let is_new = message.view().is_request() && message.view().method() != Method::Ack && {
            let key = key(message.view());
            self.servers.values().all(|server| server.is_finished || server.key != key)
        };
        let before = self.counts();
        let received = self.transactions.receive(self.now, Arc::clone(&message), peer);
        if let Err(error) = received {
            assert!(matches!(error, TransactionError::Full { .. } | TransactionError::Header(_)), "{error}");
            assert!(is_new, "what belongs to a transaction is never refused");
            self.nothing_changed(before);
            return;
        }
        let opened = self.take(Cause::Call);
        assert_eq!(opened, usize::from(is_new), "a request that comes again is absorbed, and no other");
    }

    /// A response to a request that was sent, or to none.
    fn receive_response(&mut self, draw: &mut Draw<'_>) {
        let request = match pick(draw, &self.clients) {
            Some(client) if !draw.is_rare(8) => Arc::clone(&self.clients[&client].request),
            _ => request(draw),
        };
        let status = draw.one_of(&STATUSES).clamp(100, 699);
        let tag = draw.one_of(&["x", "y"]);
        let response = response_to(&request, status, tag);
        let peer = peer(draw);
        self.receive(response, peer);
    }

    fn send_request(&mut self, draw: &mut Draw<'_>) {
        let request = match pick(draw, &self.clients) {
            // A CANCEL for a request that was sent.
            Some(client) if draw.is_rare(3) => {
                let mut out = Vec::new();
                cancel_for(self.clients[&client].request.view(), &mut out);
                parse(&out)
            }
            _ => request(draw),
        };
        let to = peer(draw);
        let tag = u64::from(draw.octet());
        let before = self.counts();
        match self.transactions.request(self.now, Arc::clone(&request), to, tag) {
            Ok(client) => {
                let is_reliable = to.protocol.is_reliable();
                let known = Client {
                    request,
                    is_reliable,
                    tag,
                    finals: 0,
                    refusals: 0,
                    failures: 0,
                    timer_transmissions: 0,
                };
                assert!(self.clients.insert(client, known).is_none(), "a number names one transaction");
                self.take(Cause::Call);
            }
            Err(_) => self.nothing_changed(before),
        }
    }

    fn answer(&mut self, draw: &mut Draw<'_>) {
        let Some(id) = pick(draw, &self.servers) else { return };
        let status = draw.one_of(&STATUSES);
        let server = &self.servers[&id];
        let response = response_to(&server.request, status.clamp(100, 699), "b200");
        let before = self.counts();
        match self.transactions.respond(self.now, id, status, response.bytes().clone()) {
            Ok(()) => {
                assert!(!server.is_finished && (100..700).contains(&status));
                if let Some(server) = self.servers.get_mut(&id) {
                    server.response = Some(response);
                }
                self.take(Cause::Call);
            }
            Err(error) => {
                let is_ended = error == TransactionError::Ended;
                let is_answer = (100..700).contains(&status);
                assert_eq!(is_ended, server.is_finished && is_answer, "{error}");
                self.nothing_changed(before);
            }
        }
    }

    /// The request of a server transaction again, its CANCEL, or the ACK for its response.
    fn receive_follower(&mut self, draw: &mut Draw<'_>) {
        let Some(id) = pick(draw, &self.servers) else { return };
        let Server { request, response, from, .. } = &self.servers[&id];
        let mut out = Vec::new();
        let follower = match (draw.below(3), response) {
            (0, Some(response)) => {
                ack_for(request.view(), response.view(), &mut out);
                parse(&out)
            }
            (1, _) => {
                cancel_for(request.view(), &mut out);
                parse(&out)
            }
            _ => Arc::clone(request),
        };
        let from = if draw.is_rare(4) { peer(draw) } else { *from };
        self.receive(follower, from);
    }

    fn let_timers_run(&mut self) {
        self.transactions.handle_timeout(self.now);
        self.take(Cause::Timer);
        self.transactions.handle_timeout(self.now);
        assert!(self.transactions.poll_output().is_none(), "the second time nothing is due");
        let next = self.transactions.poll_timeout();
        assert!(next.is_none_or(|at| at > self.now), "a driver would never rest");
    }

    fn counts(&self) -> (usize, usize, Option<Instant>) {
        let transactions = &self.transactions;
        (transactions.server_count(), transactions.client_count(), transactions.poll_timeout())
    }

    fn nothing_changed(&mut self, before: (usize, usize, Option<Instant>)) {
        assert!(self.transactions.poll_output().is_none());
        assert_eq!(self.counts(), before);
    }

    /// Takes all outputs into the ledger; returns how many requests were new.
    fn take(&mut self, cause: Cause) -> usize {
        let mut opened = 0;
        while let Some(output) = self.transactions.poll_output() {
            match output {
                Output::Request { server, request, from } | Output::Cancel { server, request, from, .. } => {
                    opened += 1;
                    let key = key(request.view());
                    let known = Server { key, request, from, response: None, is_finished: false };
                    assert!(self.servers.insert(server, known).is_none(), "a number names one transaction");
                }
                Output::ServerFinished { server } => {
                    let server = self.servers.get_mut(&server).expect("it was opened");
                    assert!(!server.is_finished, "a transaction finishes once");
                    server.is_finished = true;
                }
                Output::Transmit { to, bytes, client } => {
                    let sent = parse(&bytes);
                    let Some(client) = client else {
                        assert!(!sent.view().is_request());
                        continue;
                    };
                    assert!(sent.view().is_request());
                    let client = self.clients.get_mut(&client).expect("it was started");
                    assert_eq!(to.protocol.is_reliable(), client.is_reliable);
                    if cause == Cause::Timer {
                        assert!(!client.is_reliable, "a stream delivers: nothing is sent again");
                        client.timer_transmissions += 1;
                        assert!(client.timer_transmissions <= RETRANSMISSIONS_MAX);
                    }
                }
                Output::Response { client, tag, response, .. } => {
                    self.receive_outcome(client, tag, response.view().status());
                }
                Output::ClientTimeout { client, tag } | Output::ClientFailed { client, tag } => {
                    let client = self.clients.get_mut(&client).expect("it was started");
                    assert_eq!(client.tag, tag);
                    client.failures += 1;
                }
                Output::Ack { request, .. } => assert_eq!(request.view().method().as_str(), "ACK"),
            }
        }
        opened
    }

    fn receive_outcome(&mut self, client: ClientTransaction, tag: u64, status: u16) {
        let client = self.clients.get_mut(&client).expect("it was started");
        assert_eq!(
            (client.tag, client.failures, client.refusals),
            (tag, 0, 0),
            "nothing comes after the end"
        );
        match status {
            ..200 => assert_eq!(client.finals, 0, "no provisional response after a final one"),
            200..300 => client.finals += 1,
            300.. => client.refusals += 1,
        }
    }

    /// Nothing comes any more: every transaction ends.
    fn run_out(&mut self) {
        self.let_timers_run();
        let longest = self.now + Duration::from_secs(15 * 60);
        let mut turns = 0;
        while let Some(at) = self.transactions.poll_timeout() {
            turns += 1;
            assert!(at <= longest && turns < 20_000, "a transaction without end");
            self.now = self.now.max(at);
            self.let_timers_run();
        }
        assert_eq!((self.transactions.server_count(), self.transactions.client_count()), (0, 0));
        assert!(self.servers.values().all(|server| server.is_finished));
        for client in self.clients.values() {
            let is_invite = client.request.view().method().as_str() == "INVITE";
            let finals = if is_invite { client.finals.min(1) } else { client.finals };
            assert_eq!(finals + client.refusals + client.failures, 1, "one outcome: {client:?}");
        }
    }
}

/// What RFC 3261 section 17.2.3 compares, as plainly as can be.
fn key(request: Message<'_>) -> Vec<Vec<u8>> {
    let via = request.top_via().unwrap();
    let branch = via.branch().unwrap_or_default().to_ascii_lowercase();
    let port = via.port.unwrap_or(0).to_string().into_bytes();
    let mut key = vec![request.method_bytes().to_vec(), branch, via.host.to_ascii_lowercase(), port];
    if !via.has_rfc3261_branch() {
        let tag = |address: NameAddr<'_>| address.tag().unwrap_or_default().to_ascii_lowercase();
        key.push(request.request_uri().to_vec());
        key.extend([tag(request.from().unwrap()), tag(request.to().unwrap())]);
        key.push(request.call_id().unwrap().to_vec());
        key.push(request.cseq().unwrap().number.to_string().into_bytes());
        key.push(via.protocol_token.to_ascii_lowercase());
    }
    key
}

fn pick<K: Copy + Ord, V>(draw: &mut Draw<'_>, map: &BTreeMap<K, V>) -> Option<K> {
    if map.is_empty() {
        return None;
    }
    // From the newest back: those are alive.
    map.keys().rev().nth(draw.below(map.len().min(8))).copied()
}

fn peer(draw: &mut Draw<'_>) -> Peer {
    let protocol = draw.one_of(&[Protocol::Udp, Protocol::Tcp, Protocol::Tls]);
    Peer {
        protocol,
        remote: "192.0.2.1:40000".parse().unwrap(),
        local: "192.0.2.9:5060".parse().unwrap(),
        flow: FlowId::new(0, u64::from(protocol.is_reliable())),
    }
}

fn request(draw: &mut Draw<'_>) -> Arc<OwnedMessage> {
    let (method, via, tag) = (draw.one_of(&METHODS), draw.one_of(&VIAS), draw.one_of(&TO_TAGS));
    let cseq = draw.below(3);
    let text = format!(
        "{method} sip:bob@example.com SIP/2.0\r\nVia: {via}\r\nVia: SIP/2.0/UDP first.example.com\r\n\
         From: <sip:alice@example.com>;tag=a\r\nTo: <sip:bob@example.com>{tag}\r\nCall-ID: c@h\r\n\
         CSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
    );
    parse(text.as_bytes())
}

fn response_to(request: &OwnedMessage, status: u16, tag: &str) -> Arc<OwnedMessage> {
    let mut out = Vec::new();
    ResponseBuilder::new(request.view(), status, b"Reason").to_tag(tag.as_bytes()).write_to(&mut out);
    parse(&out)
}

fn parse(octets: &[u8]) -> Arc<OwnedMessage> {
    let message = OwnedMessage::parse(Bytes::copy_from_slice(octets), Framing::Datagram);
    Arc::new(message.unwrap_or_else(|error| panic!("{error}: {}", octets.escape_ascii())))
}
