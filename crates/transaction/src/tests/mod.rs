//! Tests of whole transactions: messages in, messages and events out, time advanced by hand.

mod client;
mod loss;
mod random;
mod server;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use model::{ClientTransaction, FlowId, Instant, Peer, Protocol, ServerTransaction};
use sip::{Framing, OwnedMessage};

use crate::{Output, Settings, TransactionError, Transactions};

/// Transactions, the time, and what came out.
struct Bench {
    transactions: Transactions,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        Self { transactions: Transactions::new(settings), now: Instant::from_micros(1_000_000) }
    }

    /// Lets time pass from timer to timer; returns what happened, each with the milliseconds since the call.
    fn wait(&mut self, milliseconds: u64) -> Vec<(u128, String)> {
        let start = self.now;
        let end = start + Duration::from_millis(milliseconds);
        let mut happened = Vec::new();
        while let Some(at) = self.transactions.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.transactions.handle_timeout(self.now);
            let since = self.now.saturating_since(start).as_millis();
            happened.extend(self.drain().into_iter().map(|what| (since, what)));
        }
        self.now = end;
        happened
    }

    /// What happened since the last call, in short.
    fn drain(&mut self) -> Vec<String> {
        self.outputs().iter().map(describe).collect()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.transactions.poll_output()).collect()
    }

    fn receive(&mut self, text: &str, peer: Peer) -> Vec<String> {
        self.transactions.receive(self.now, message(text), peer).unwrap();
        self.drain()
    }

    fn respond(&mut self, server: ServerTransaction, status: u16) -> Result<Vec<String>, TransactionError> {
        self.transactions.respond(self.now, server, status, response_bytes(status))?;
        Ok(self.drain())
    }

    /// Receives a request and returns its transaction.
    fn open(&mut self, text: &str, peer: Peer) -> ServerTransaction {
        self.transactions.receive(self.now, message(text), peer).unwrap();
        match self.outputs().as_slice() {
            [Output::Request { server, .. } | Output::Cancel { server, .. }] => *server,
            other => panic!("{other:?}"),
        }
    }

    fn request(&mut self, text: &str, to: Peer) -> Result<ClientTransaction, TransactionError> {
        self.transactions.request(self.now, message(text), to, 77)
    }
}

fn describe(output: &Output) -> String {
    match output {
        Output::Transmit { bytes, .. } => {
            let first = bytes.split(|&octet| octet == b' ').take(2).collect::<Vec<_>>();
            let word = if first[0] == b"SIP/2.0" { first[1] } else { first[0] };
            format!("send {}", String::from_utf8_lossy(word))
        }
        Output::Request { request, .. } => format!("request {}", request.view().method().as_str()),
        Output::Cancel { invite: Some(_), .. } => "cancel of invite".to_owned(),
        Output::Cancel { is_matched: true, .. } => "cancel of other".to_owned(),
        Output::Cancel { .. } => "cancel of nothing".to_owned(),
        Output::Ack { .. } => "ack".to_owned(),
        Output::Response { response, tag, .. } => format!("response {} for {tag}", response.view().status()),
        Output::ClientTimeout { tag, .. } => format!("timeout for {tag}"),
        Output::ClientFailed { tag, .. } => format!("failed for {tag}"),
        Output::ServerFinished { .. } => "finished".to_owned(),
    }
}

fn peer(protocol: Protocol) -> Peer {
    Peer {
        protocol,
        remote: "192.0.2.1:40000".parse().unwrap(),
        local: "192.0.2.9:5060".parse().unwrap(),
        flow: FlowId::new(0, 0),
    }
}

fn udp() -> Peer {
    peer(Protocol::Udp)
}

fn tcp() -> Peer {
    peer(Protocol::Tcp)
}

fn message(text: &str) -> Arc<OwnedMessage> {
    let bytes = Bytes::from(text.replace("\r\n", "\n").replace('\n', "\r\n"));
    Arc::new(OwnedMessage::parse(bytes, Framing::Datagram).unwrap())
}

/// A request with the branch `z9hG4bK{branch}`.
fn request(method: &str, branch: &str) -> String {
    request_with_via(
        method,
        &format!("SIP/2.0/UDP client.example.com:5060;rport=40000;branch=z9hG4bK{branch}"),
    )
}

fn request_with_via(method: &str, via: &str) -> String {
    format!(
        "{method} sip:bob@example.com SIP/2.0
Via: {via}
Via: SIP/2.0/UDP first.example.com;branch=z9hG4bKfirst
Max-Forwards: 70
From: <sip:alice@example.com>;tag=a1
To: <sip:bob@example.com>
Call-ID: call-1@client
CSeq: 7 {method}
Content-Length: 0

"
    )
}

/// A response to the request of this method and branch.
fn response(status: u16, method: &str, branch: &str) -> String {
    format!(
        "SIP/2.0 {status} Some reason
Via: SIP/2.0/UDP client.example.com:5060;rport=40000;branch=z9hG4bK{branch}
Via: SIP/2.0/UDP first.example.com;branch=z9hG4bKfirst
From: <sip:alice@example.com>;tag=a1
To: <sip:bob@example.com>;tag=b{status}
Call-ID: call-1@client
CSeq: 7 {method}
Content-Length: 0

"
    )
}

fn response_bytes(status: u16) -> Bytes {
    message(&response(status, "INVITE", "x")).bytes().clone()
}
