//! What the tests of the transport share: a shard with its inbox, and messages.
#![allow(dead_code, reason = "each test program uses its part")]

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use model::{FlowId, Peer};
use sip::FramingError;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    runtime::Builder,
    time::timeout,
};
use transport::{CloseReason, ConnectFailure, Event, Inbox, SendFailure, Shard, ShardConfig};

/// Runs a test on a runtime like a shard's thread; fails it when it hangs.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(30), test).await.expect("the test hangs") });
}

/// An address of this machine with a port that the kernel chooses.
pub fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A small request with `body`.
pub fn message(body: &str) -> Vec<u8> {
    format!("OPTIONS sip:a SIP/2.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// An event that owns its octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Datagram { peer: Peer, bytes: Vec<u8> },
    Message { peer: Peer, bytes: Bytes, names: Option<Arc<[String]>> },
    Malformed { peer: Peer, bytes: Bytes, error: FramingError },
    Closed { peer: Peer, reason: CloseReason, unsent: usize },
    ConnectFailed { peer: Peer, reason: ConnectFailure, unsent: Bytes },
    SendFailed { peer: Peer, reason: SendFailure },
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Datagram { peer, bytes } => Self::Datagram { peer, bytes: bytes.to_vec() },
            Event::Message { peer, bytes, names } => Self::Message { peer, bytes, names },
            Event::Malformed { peer, bytes, error, .. } => Self::Malformed { peer, bytes, error },
            Event::Closed { peer, reason, unsent, .. } => Self::Closed { peer, reason, unsent },
            Event::ConnectFailed { peer, reason, unsent } => Self::ConnectFailed { peer, reason, unsent },
            Event::SendFailed { peer, reason } => Self::SendFailed { peer, reason },
        }
    }
}

/// A shard as `node` uses it.
pub struct Server {
    pub shard: Shard,
    pub inbox: Inbox,
}

impl Server {
    pub fn start(config: ShardConfig) -> Self {
        Self { shard: Shard::bind(config).unwrap(), inbox: Inbox::new() }
    }

    /// The events of one turn, at least one.
    pub async fn turn(&mut self) -> Vec<Seen> {
        loop {
            self.shard.next(&mut self.inbox, None).await;
            let seen: Vec<_> = self.inbox.drain().map(Seen::from).collect();
            if !seen.is_empty() {
                return seen;
            }
        }
    }

    /// The next event, which must come alone.
    pub async fn one(&mut self) -> Seen {
        let mut seen = self.turn().await;
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// Events until there are `count`.
    pub async fn many(&mut self, count: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        while seen.len() < count {
            seen.extend(self.turn().await);
        }
        assert_eq!(seen.len(), count, "{seen:?}");
        seen
    }

    /// The next message of a stream: who sent it and what.
    pub async fn message(&mut self) -> (Peer, Bytes, Option<Arc<[String]>>) {
        match self.one().await {
            Seen::Message { peer, bytes, names } => (peer, bytes, names),
            other => panic!("not a message: {other:?}"),
        }
    }

    /// Waits until the connection of `flow` is closed.
    pub async fn closed(&mut self, flow: FlowId) -> (CloseReason, usize) {
        match self.one().await {
            Seen::Closed { peer, reason, unsent } if peer.flow == flow => (reason, unsent),
            other => panic!("not closed: {other:?}"),
        }
    }

    /// Serves while `work` runs, dropping what comes.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = Box::pin(work);
        loop {
            tokio::select! {
                output = &mut work => return output,
                () = self.shard.next(&mut self.inbox, None) => {}
            }
        }
    }
}

/// Reads exactly as many octets as `expected` has and compares.
pub async fn expect(stream: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, expected);
}
