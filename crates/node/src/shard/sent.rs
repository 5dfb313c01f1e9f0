//! Which client transactions wait for which peer, so that a broken flow ends them at once.

use hashbrown::HashMap;
use model::{ClientTransaction, FlowId, Peer, Protocol};
use std::net::SocketAddr;

/// Client transactions of forwarded requests, by branch and by far end.
#[derive(Debug, Default)]
pub struct Sent {
    by_tag: HashMap<u64, Branch>,
    by_peer: HashMap<Far, Vec<u64>>,
}

#[derive(Clone, Copy, Debug)]
struct Branch {
    client: ClientTransaction,
    to: Peer,
    /// Whether nothing of it has left.
    is_unsent: bool,
}

/// What fails together: a connection, or a UDP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Far {
    Connection(FlowId),
    Address(SocketAddr),
}

impl Sent {
    /// Remembers the transaction of a branch.
    pub fn insert(&mut self, tag: u64, client: ClientTransaction, to: Peer) {
        self.by_tag.insert(tag, Branch { client, to, is_unsent: false });
        self.by_peer.entry(far(&to)).or_default().push(tag);
    }

    /// The peer that the request of a branch went to.
    pub fn peer(&self, tag: u64) -> Option<Peer> {
        self.by_tag.get(&tag).map(|branch| branch.to)
    }

    /// The transaction of a branch.
    pub fn client(&self, tag: u64) -> Option<ClientTransaction> {
        self.by_tag.get(&tag).map(|branch| branch.client)
    }

    /// Notes that the connection to this peer was never made: nothing of what waits for it has left.
    pub fn never_connected(&mut self, peer: &Peer) {
        for tag in self.by_peer.get(&far(peer)).into_iter().flatten() {
            if let Some(branch) = self.by_tag.get_mut(tag) {
                branch.is_unsent = true;
            }
        }
    }

    /// Whether a branch has failed before anything of it left.
    pub fn is_unsent(&self, tag: u64) -> bool {
        self.by_tag.get(&tag).is_some_and(|branch| branch.is_unsent)
    }

    /// Forgets a branch whose transaction has its final answer.
    pub fn remove(&mut self, tag: u64) {
        let Some(Branch { to: peer, .. }) = self.by_tag.remove(&tag) else { return };
        if let Some(tags) = self.by_peer.get_mut(&far(&peer)) {
            if let Some(at) = tags.iter().position(|&found| found == tag) {
                tags.swap_remove(at);
            }
            if tags.is_empty() {
                self.by_peer.remove(&far(&peer));
            }
        }
    }

    /// Transactions that wait for this peer. They stay listed until their failure is reported.
    pub fn waiting_for(&self, peer: &Peer) -> Vec<ClientTransaction> {
        let tags = self.by_peer.get(&far(peer)).map(Vec::as_slice).unwrap_or_default();
        tags.iter().filter_map(|&tag| self.client(tag)).collect()
    }
}

fn far(peer: &Peer) -> Far {
    match peer.protocol {
        Protocol::Udp => Far::Address(peer.remote),
        Protocol::Tcp | Protocol::Tls | Protocol::Ws | Protocol::Wss => Far::Connection(peer.flow),
    }
}
