//! The connections of one shard, by flow and by destination.

use std::{net::SocketAddr, sync::Arc};

use hashbrown::HashMap;
use model::{FlowId, Peer, Source};
use tokio::task::AbortHandle;

use crate::{Destination, Settings, link::Link};

pub(crate) struct Flows {
    shard: u16,
    next_serial: u64,
    connections: HashMap<FlowId, Entry>,
    outbound: HashMap<Destination, FlowId>,
    accepted_from: HashMap<Source, usize>,
}

struct Entry {
    peer: Peer,
    link: Arc<Link>,
    origin: Origin,
    task: Option<AbortHandle>,
}

/// Who opened a connection.
pub(crate) enum Origin {
    Accepted,
    Outbound(Destination),
}

impl Flows {
    pub(crate) fn new(shard: u16) -> Self {
        Self {
            shard,
            next_serial: 1,
            connections: HashMap::new(),
            outbound: HashMap::new(),
            accepted_from: HashMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(crate) fn is_full(&self, settings: &Settings) -> bool {
        self.connections.len() >= settings.connections_max
    }

    /// Whether `remote` may have one more accepted connection.
    pub(crate) fn admits(&self, remote: SocketAddr, settings: &Settings) -> bool {
        let count = self.accepted_from.get(&Source::of(remote.ip())).copied().unwrap_or(0);
        !self.is_full(settings) && count < settings.connections_per_address_max
    }

    /// The connections that were accepted from a source.
    pub(crate) fn accepted_from(&self, source: Source) -> Vec<FlowId> {
        if !self.accepted_from.contains_key(&source) {
            return Vec::new();
        }
        let is_from = |entry: &Entry| {
            matches!(entry.origin, Origin::Accepted) && Source::of(entry.peer.remote.ip()) == source
        };
        self.connections.iter().filter(|(_, entry)| is_from(entry)).map(|(flow, _)| *flow).collect()
    }

    /// Number of the next connection.
    pub(crate) fn next_flow(&mut self) -> FlowId {
        let flow = FlowId::new(self.shard, self.next_serial);
        self.next_serial += 1;
        flow
    }

    pub(crate) fn insert(&mut self, peer: Peer, origin: Origin, link: Arc<Link>, task: AbortHandle) {
        match &origin {
            Origin::Accepted => {
                *self.accepted_from.entry(Source::of(peer.remote.ip())).or_default() += 1;
            }
            Origin::Outbound(destination) => {
                self.outbound.insert(destination.clone(), peer.flow);
            }
        }
        self.connections.insert(peer.flow, Entry { peer, link, origin, task: Some(task) });
    }

    pub(crate) fn remove(&mut self, flow: FlowId) {
        let Some(mut entry) = self.connections.remove(&flow) else { return };
        entry.task = None;
        match &entry.origin {
            Origin::Accepted => {
                let from = Source::of(entry.peer.remote.ip());
                if let Some(count) = self.accepted_from.get_mut(&from) {
                    *count -= 1;
                    if *count == 0 {
                        self.accepted_from.remove(&from);
                    }
                }
            }
            Origin::Outbound(destination) => {
                if self.outbound.get(destination) == Some(&flow) {
                    self.outbound.remove(destination);
                }
            }
        }
    }

    pub(crate) fn link(&self, flow: FlowId) -> Option<&Link> {
        self.connections.get(&flow).map(|entry| &*entry.link)
    }

    /// The open connection with this number.
    pub(crate) fn peer(&self, flow: FlowId) -> Option<Peer> {
        self.connections.get(&flow).filter(|entry| entry.link.is_open()).map(|entry| entry.peer)
    }

    /// The connection that was opened to this destination and is not closing.
    pub(crate) fn find(&self, destination: &Destination) -> Option<Peer> {
        self.outbound.get(destination).and_then(|&flow| self.peer(flow))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Peer> {
        self.connections.values().map(|entry| entry.peer)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
