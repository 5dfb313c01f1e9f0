//! Which client transactions wait for which peer, so that a broken flow ends them at once.

use hashbrown::HashMap;
use model::{ClientTransaction, FlowId, Peer, Protocol};
use std::net::SocketAddr;

/// Client transactions of forwarded requests, by branch and by far end.
#[derive(Debug, Default)]
pub struct Sent {
    by_tag: HashMap<u64, (ClientTransaction, Peer)>,
    by_peer: HashMap<Far, Vec<u64>>,
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
        self.by_tag.insert(tag, (client, to));
        self.by_peer.entry(far(&to)).or_default().push(tag);
    }

    /// The peer that the request of a branch went to.
    pub fn peer(&self, tag: u64) -> Option<Peer> {
        self.by_tag.get(&tag).map(|(_, peer)| *peer)
    }

    /// The transaction of a branch.
    pub fn client(&self, tag: u64) -> Option<ClientTransaction> {
        self.by_tag.get(&tag).map(|(client, _)| *client)
    }

    /// Forgets a branch whose transaction has its final answer.
    pub fn remove(&mut self, tag: u64) {
        let Some((_, peer)) = self.by_tag.remove(&tag) else { return };
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
