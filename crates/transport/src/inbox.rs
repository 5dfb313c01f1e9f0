//! Where a shard puts what it received: one batch of datagrams in place, and the events of connections.

use std::{collections::VecDeque, fmt, net::SocketAddr};

use model::{FlowId, Peer, Protocol, WallTime};

use crate::{
    BannedSources,
    event::Event,
    mmsg::{BATCH, Received, SLOT_BYTES},
    stun,
};

/// Reused by every [`crate::Shard::next`]; a little more than 2 MiB, one per shard.
///
/// Slots are touched from the first on, so memory is used as far as batches fill.
pub struct Inbox {
    arena: Box<[u8]>,
    received: Vec<Received>,
    peers: Vec<Peer>,
    pub(crate) events: VecDeque<Event<'static>>,
    pub(crate) backlog: Backlog,
}

/// What waited in the UDP sockets of a shard when a batch was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// When the oldest datagram of the batch came; `None` when the batch took all there was.
    pub oldest: Option<WallTime>,
    /// Datagrams that the kernel dropped since the last batch because a socket was full.
    pub dropped: usize,
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> Self {
        Self {
            arena: vec![0; BATCH * SLOT_BYTES].into_boxed_slice(),
            received: Vec::with_capacity(BATCH),
            peers: Vec::with_capacity(BATCH),
            events: VecDeque::new(),
            backlog: Backlog::default(),
        }
    }

    /// Takes the events out, those of one flow in order; what the iterator is not asked for is dropped. A
    /// datagram is lent for as long as the inbox is.
    pub fn drain(&mut self) -> impl Iterator<Item = Event<'_>> {
        let arena = &self.arena;
        let datagrams = self.received.drain(..).zip(self.peers.drain(..)).filter_map(|(datagram, peer)| {
            let slot = arena.get(datagram.slot * SLOT_BYTES..)?;
            Some(Event::Datagram { peer, bytes: slot.get(..datagram.length)? })
        });
        datagrams.chain(self.events.drain(..))
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty() && self.events.is_empty()
    }

    /// What waited in the sockets when this was taken.
    pub const fn backlog(&self) -> Backlog {
        self.backlog
    }

    pub(crate) fn clear(&mut self) {
        self.backlog = Backlog::default();
        self.received.clear();
        self.peers.clear();
        self.events.clear();
    }

    /// The slots after `used` and where to list what came into them.
    pub(crate) fn free_slots(&mut self, used: usize) -> (&mut [u8], &mut Vec<Received>) {
        (self.arena.get_mut(used * SLOT_BYTES..).unwrap_or_default(), &mut self.received)
    }

    /// Drops the datagrams of banned sources among those listed since the last call of [`Self::admit`];
    /// returns how many these were.
    pub(crate) fn drop_banned(&mut self, banned: &BannedSources) -> usize {
        let Some(banned) = banned.now() else { return 0 };
        let first = self.peers.len();
        let before = self.received.len();
        let mut at = 0;
        self.received.retain(|datagram| {
            at += 1;
            at <= first || !banned.contains(datagram.from.ip())
        });
        before - self.received.len()
    }

    /// Drops keep-alives among the datagrams listed since the last call, and gives those that begin like STUN
    /// to `stun`; the others came to `local` and stay listed. Returns how many do not.
    pub(crate) fn admit(
        &mut self,
        local: SocketAddr,
        flow: FlowId,
        mut stun: impl FnMut(SocketAddr, &[u8]),
    ) -> usize {
        let first = self.peers.len();
        let mut kept = first;
        for at in first..self.received.len() {
            let Some(&datagram) = self.received.get(at) else { break };
            let start = datagram.slot * SLOT_BYTES;
            let bytes = self.arena.get(start..start + datagram.length).unwrap_or_default();
            if is_keep_alive(bytes) {
                continue;
            }
            if bytes.first().is_some_and(|&octet| octet <= stun::FIRST_OCTET_MAX) {
                stun(datagram.from, bytes);
                continue;
            }
            if let Some(place) = self.received.get_mut(kept) {
                *place = datagram;
            }
            kept += 1;
            self.peers.push(Peer { protocol: Protocol::Udp, remote: datagram.from, local, flow });
        }
        let dropped = self.received.len() - kept;
        self.received.truncate(kept);
        dropped
    }
}

/// What phones send to keep a NAT open: nothing, CRLFs or zeros (RFC 6223 section 4; practice).
fn is_keep_alive(bytes: &[u8]) -> bool {
    bytes.len() <= 4 && bytes.iter().all(|octet| matches!(octet, b'\r' | b'\n' | 0))
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("datagrams", &self.received.len())
            .field("events", &self.events.len())
            .finish_non_exhaustive()
    }
}
