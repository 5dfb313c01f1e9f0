//! A proxy on a bench: what the tests send in and what they see come out.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use model::{Chance, FlowId, Instant, Leg, NextHop, Peer, Protocol, ServerTransaction};
use sip::{Framing, Message, OwnedMessage, ResponseBuilder, Uri};

use crate::{
    BranchFailure, BranchKey, DiversionCause, Incoming, Output, OwnNames, Proxy, Routing, Settings, Target,
};

pub(crate) const PREFIX: &[u8] = b"z9hG4bK0.";

/// The caller's server transaction.
pub(crate) const CALLER: ServerTransaction = ServerTransaction(1);

/// A message from its lines; a body follows an empty line.
pub(crate) fn message(text: &str) -> Arc<OwnedMessage> {
    let (head, body) = text.trim_start().split_once("\n\n").unwrap_or((text.trim(), ""));
    let head: Vec<&str> = head.lines().map(str::trim).collect();
    let whole = format!("{}\r\n\r\n{body}", head.join("\r\n"));
    Arc::new(OwnedMessage::parse(Bytes::from(whole), Framing::Datagram).unwrap())
}

/// A request from alice to bob with these further header lines.
pub(crate) fn request(method: &str, lines: &str) -> Arc<OwnedMessage> {
    message(&format!(
        "{method} sip:bob@example.com SIP/2.0
        Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKcaller
        From: Alice <sip:alice@example.com>;tag=a1
        To: Bob <sip:bob@example.com>
        Call-ID: call-1@192.0.2.1
        CSeq: 7 {method}
        {lines}
        Content-Length: 0"
    ))
}

/// The response of the one who got `request`, with these further headers.
pub(crate) fn reply(request: &OwnedMessage, status: u16, headers: &[(&str, &str)]) -> Arc<OwnedMessage> {
    let reason = sip::reason_phrase(status).as_bytes();
    let mut builder = ResponseBuilder::new(request.view(), status, reason).to_tag(b"callee");
    for (name, value) in headers {
        builder = builder.header(name, value.as_bytes());
    }
    let mut out = Vec::new();
    builder.write_to(&mut out);
    Arc::new(OwnedMessage::parse(Bytes::from(out), Framing::Datagram).unwrap())
}

pub(crate) fn text(message: Message<'_>) -> String {
    String::from_utf8(message.bytes().to_vec()).unwrap()
}

/// All values of a header, as text.
pub(crate) fn values(message: &OwnedMessage, name: &str) -> Vec<String> {
    let id = sip::HeaderId::from_name(name.as_bytes());
    let values = message.view().values(id);
    values.map(|value| String::from_utf8(value.to_vec()).unwrap()).collect()
}

pub(crate) fn leg(protocol: Protocol, host: &str) -> Arc<Leg> {
    let via = format!("SIP/2.0/{} {host}", protocol.via_token());
    let record_route = format!("<sip:{host};transport={protocol};lr>");
    Arc::new(Leg { via: via.into(), record_route: record_route.into() })
}

/// A device at this URI, over UDP.
pub(crate) fn target(uri: &str, q: u16) -> Target {
    Target {
        next_hop: NextHop::Address { protocol: Protocol::Udp, remote: "192.0.2.9:5060".parse().unwrap() },
        request_uri: Bytes::copy_from_slice(uri.as_bytes()),
        routes: Vec::new(),
        q,
        device: None,
        leg: leg(Protocol::Udp, "192.0.2.100:5060"),
        diversion: None,
    }
}

/// Targets `sip:d0@192.0.2.9`, `sip:d1@192.0.2.9` and so on with these q.
pub(crate) fn targets(qs: &[u16]) -> Vec<Target> {
    qs.iter().enumerate().map(|(number, &q)| target(&format!("sip:d{number}@192.0.2.9"), q)).collect()
}

pub(crate) fn peer(protocol: Protocol, port: u16) -> Peer {
    Peer {
        protocol,
        remote: "192.0.2.1:5060".parse().unwrap(),
        local: format!("192.0.2.100:{port}").parse().unwrap(),
        flow: FlowId::new(0, 0),
    }
}

pub(crate) fn incoming(request: &Arc<OwnedMessage>, targets: Vec<Target>) -> Incoming {
    Incoming {
        server: CALLER,
        request: Arc::clone(request),
        leg: leg(Protocol::Udp, "192.0.2.100:5060"),
        record_route: false,
        routing: Routing::default(),
        knows_flows: true,
        targets,
        diversions: None,
    }
}

/// Names that are ours: these hosts, whatever the port.
pub(crate) struct Hosts(pub(crate) &'static [&'static str]);

impl OwnNames for Hosts {
    fn is_own_uri(&self, uri: &Uri<'_>) -> bool {
        self.0.iter().any(|host| uri.host.eq_ignore_ascii_case(host.as_bytes()))
    }
}

/// A forwarded request or a CANCEL.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) branch: BranchKey,
    pub(crate) request: Arc<OwnedMessage>,
}

impl Sent {
    pub(crate) fn uri(&self) -> String {
        String::from_utf8(self.request.view().request_uri().to_vec()).unwrap()
    }
}

/// A proxy, a clock moved by hand, and everything that came out.
pub(crate) struct Bench {
    pub(crate) has_other_callers: bool,
    pub(crate) proxy: Proxy,
    pub(crate) now: Instant,
    pub(crate) forwarded: Vec<Sent>,
    pub(crate) cancels: Vec<Sent>,
    pub(crate) responses: Vec<Arc<OwnedMessage>>,
    pub(crate) terminated: Vec<BranchKey>,
    pub(crate) redirected: Vec<BranchKey>,
    pub(crate) diverted: Vec<DiversionCause>,
    /// How often nobody could be reached; the driver on this bench answers as for a user of ours.
    pub(crate) unreachable: usize,
    /// Those of them that have not left.
    pub(crate) unsent: usize,
    pub(crate) finished: usize,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let proxy = Proxy::new(settings, Chance::seeded(1), Bytes::from_static(PREFIX));
        Self {
            proxy,
            now: Instant::START,
            forwarded: Vec::new(),
            cancels: Vec::new(),
            responses: Vec::new(),
            terminated: Vec::new(),
            redirected: Vec::new(),
            unreachable: 0,
            unsent: 0,
            diverted: Vec::new(),
            finished: 0,
            has_other_callers: false,
        }
    }

    /// A bench on which an INVITE was forwarded to targets with these q.
    pub(crate) fn inviting(qs: &[u16]) -> Self {
        let mut bench = Self::new();
        bench.start(incoming(&request("INVITE", "Max-Forwards: 70"), targets(qs)));
        bench
    }

    /// The same for a MESSAGE.
    pub(crate) fn messaging(qs: &[u16]) -> Self {
        let mut bench = Self::new();
        bench.start(incoming(&request("MESSAGE", "Max-Forwards: 70"), targets(qs)));
        bench
    }

    pub(crate) fn start(&mut self, incoming: Incoming) {
        self.proxy.start(self.now, incoming).unwrap();
        self.drain();
    }

    /// The target of branch `number` answers.
    pub(crate) fn answer(&mut self, number: usize, status: u16) {
        self.answer_with(number, status, &[]);
    }

    pub(crate) fn answer_with(&mut self, number: usize, status: u16, headers: &[(&str, &str)]) {
        let sent = self.forwarded[number].clone();
        self.proxy.response(self.now, sent.branch, &reply(&sent.request, status, headers));
        self.drain();
    }

    pub(crate) fn fail(&mut self, number: usize, failure: BranchFailure) {
        let branch = self.forwarded[number].branch;
        self.proxy.branch_failed(self.now, branch, failure);
        self.drain();
    }

    pub(crate) fn cancel(&mut self) {
        self.proxy.cancel(self.now, CALLER, None);
        self.drain();
    }

    pub(crate) fn server_finished(&mut self) {
        self.proxy.server_finished(CALLER);
        self.drain();
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.proxy.handle_timeout(self.now);
        self.drain();
    }

    pub(crate) fn statuses(&self) -> Vec<u16> {
        self.responses.iter().map(|response| response.view().status()).collect()
    }

    /// Request-URIs of what was forwarded.
    pub(crate) fn uris(&self) -> Vec<String> {
        self.forwarded.iter().map(Sent::uri).collect()
    }

    /// Numbers of the branches that were cancelled.
    pub(crate) fn cancelled(&self) -> Vec<usize> {
        let number =
            |cancel: &Sent| self.forwarded.iter().position(|sent| sent.branch == cancel.branch).unwrap();
        self.cancels.iter().map(number).collect()
    }

    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.proxy.poll_output() {
            match output {
                Output::Forward { branch, request, next_hop: _ } => {
                    self.forwarded.push(Sent { branch, request })
                }
                Output::Cancel { branch, request, next_hop: _ } => {
                    self.cancels.push(Sent { branch, request })
                }
                Output::Respond { server, status, response } => {
                    assert!(server == CALLER || self.has_other_callers);
                    let response = OwnedMessage::parse(response, Framing::Datagram).unwrap();
                    assert_eq!(response.view().status(), status);
                    self.responses.push(Arc::new(response));
                }
                Output::Unreachable { server, request, is_unsent } => {
                    assert_eq!(server, CALLER);
                    self.unreachable += 1;
                    self.unsent += usize::from(is_unsent);
                    self.responses.push(reply(&request, 480, &[]));
                }
                Output::Terminate { branch } => self.terminated.push(branch),
                Output::Redirected { branch, response: _ } => self.redirected.push(branch),
                Output::Diverted { server, cause } => {
                    assert_eq!(server, CALLER);
                    self.diverted.push(cause);
                }
                Output::Finished { .. } => self.finished += 1,
            }
        }
    }
}
