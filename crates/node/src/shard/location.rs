//! Where requests for a user go: the targets of RFC 3261 section 16.5.

use std::{
    cmp::Reverse,
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
};

use bytes::Bytes;
use model::{AddressOfRecord, Leg, NextHop, Peer, Protocol};
use proxy::{Reject, Target};
use registrar::{Binding, FlowView};
use sip::{NameAddr, Scheme, Uri};
use siphasher::sip::SipHasher13;

use super::{Origin, Shard, Turn};
use crate::shared::Place;

impl Shard {
    /// Targets for a user of a domain of ours.
    ///
    /// Errors: 404 for nobody, 480 without a device, 503 while nobody may serve the user.
    pub(super) fn locate(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        aor: &AddressOfRecord,
        request_uri: &[u8],
    ) -> Result<Vec<Target>, Reject> {
        let Some(user) = self.shared.directory.user(aor) else { return Err(Reject::NotFound) };
        match self.shared.place(user.home, turn.authority, turn.now) {
            Place::Here(_) => {
                let mut bindings = self.shared.bindings(user.home, aor);
                // Of two flows to one device the direct one is tried first.
                bindings.sort_by_key(|binding| (Reverse(binding.q()), binding.path().count()));
                let targets: Vec<_> =
                    bindings.iter().filter_map(|binding| self.target(aor, binding)).collect();
                if targets.is_empty() { Err(Reject::TemporarilyUnavailable) } else { Ok(targets) }
            }
            // Who sent it here knows less than we do; sending it back would only make a loop.
            Place::Server(server) if *origin == Origin::Server(server.clone()) => {
                Err(Reject::TemporarilyUnavailable)
            }
            Place::Server(server) => {
                let leg = self.legs.internal().ok_or(Reject::ServerInternal)?;
                let request_uri = Bytes::copy_from_slice(request_uri);
                let next_hop = NextHop::Server(server);
                Ok(vec![Target { next_hop, request_uri, routes: Vec::new(), q: 1_000, device: None, leg }])
            }
            Place::Nowhere { retry_after_s } => Err(Reject::ServiceUnavailable { retry_after_s }),
        }
    }

    /// The target that a binding stands for; `None` when nothing leads there any more.
    fn target(&mut self, aor: &AddressOfRecord, binding: &Binding) -> Option<Target> {
        let routes: Vec<Bytes> = binding.path().map(Bytes::copy_from_slice).collect();
        let (next_hop, leg) = match (routes.first(), binding.flow()) {
            (Some(path), _) => self.towards_path(path)?,
            (None, Some(flow)) => self.towards_flow(flow, binding.uri())?,
            (None, None) => {
                let uri = Uri::parse(binding.uri()).ok()?;
                self.towards_uri(&uri).ok()?
            }
        };
        Some(Target {
            next_hop,
            request_uri: Bytes::copy_from_slice(binding.uri()),
            routes,
            q: binding.q(),
            device: binding.reg_id().and(binding.instance()).map(|instance| device_of(aor, instance)),
            leg,
        })
    }

    /// Towards the first Path value: a server of ours that holds the flow, or any other address.
    fn towards_path(&self, path: &[u8]) -> Option<(NextHop, Arc<Leg>)> {
        let uri = NameAddr::parse(path)?.uri().ok()?;
        self.towards_uri(&uri).ok()
    }

    /// Towards the phone at the other end of a flow of this server.
    fn towards_flow(&self, flow: FlowView<'_>, contact: &[u8]) -> Option<(NextHop, Arc<Leg>)> {
        if flow.server != self.shared.server.name.as_str() {
            let server = model::ServerName::new(flow.server).ok()?;
            return Some((NextHop::Server(server), self.legs.internal()?));
        }
        match flow.peer.protocol {
            Protocol::Udp => {
                let peer = Peer { remote: datagram_address(contact, flow.peer.remote), ..flow.peer };
                Some((NextHop::Flow(peer), self.legs.towards(&peer, false)?))
            }
            Protocol::Tcp | Protocol::Tls | Protocol::Ws | Protocol::Wss => {
                if flow.boot != self.shared.boot {
                    return None;
                }
                Some((NextHop::Flow(flow.peer), self.legs.towards(&flow.peer, false)?))
            }
        }
    }

    /// Towards the address in a URI: a server of ours by its internal listener, or any other address.
    ///
    /// Errors: 404 for a host name (server location by DNS is not there yet), 416 for other schemes.
    pub(super) fn towards_uri(&self, uri: &Uri<'_>) -> Result<(NextHop, Arc<Leg>), Reject> {
        match uri.scheme {
            Scheme::Sip | Scheme::Sips => {}
            Scheme::Tel | Scheme::Other => return Err(Reject::UnsupportedScheme),
        }
        let host = uri.maddr().and_then(sip::host_address).or_else(|| uri.host_address());
        let ip = host.ok_or(Reject::NotFound)?;
        let protocol = match (uri.scheme, uri.protocol()) {
            (Scheme::Sips, _) => Protocol::Tls,
            (_, Some(protocol)) => protocol,
            (_, None) => Protocol::Udp,
        };
        let default = if protocol == Protocol::Tls { 5061 } else { 5060 };
        let remote = SocketAddr::new(ip, uri.port.unwrap_or(default));
        let internal =
            self.shared.topology.servers.iter().find(|server| server.listen.internal_sip == Some(remote));
        if let Some(server) = internal.filter(|_| protocol == Protocol::Tls) {
            let leg = self.legs.internal().ok_or(Reject::ServerInternal)?;
            return Ok((NextHop::Server(server.name.clone()), leg));
        }
        let leg = self.legs.by_protocol(protocol, remote).ok_or(Reject::NotFound)?;
        Ok((NextHop::Address { protocol, remote }, leg))
    }
}

/// Where datagrams for a contact go: to the contact when it names the address the phone sent from, which may
/// have another port there; else to that source address itself, which is what a NAT shows us.
fn datagram_address(contact: &[u8], source: SocketAddr) -> SocketAddr {
    match contact_address(contact) {
        Some(address) if address.ip() == source.ip() => address,
        Some(_) | None => source,
    }
}

/// Whether a peer is reached over its flow only: a connection, or an address that the contact does not name.
pub(super) fn needs_flow(peer: &Peer, contact: &[u8]) -> bool {
    match peer.protocol {
        Protocol::Udp => contact_address(contact) != Some(peer.remote),
        Protocol::Tcp | Protocol::Tls | Protocol::Ws | Protocol::Wss => true,
    }
}

fn contact_address(contact: &[u8]) -> Option<SocketAddr> {
    let uri = Uri::parse(contact).ok()?;
    Some(SocketAddr::new(uri.host_address()?, uri.port.unwrap_or(5060)))
}

/// A number for a device, the same for all its flows.
fn device_of(aor: &AddressOfRecord, instance: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    aor.hash(&mut hasher);
    hasher.write(instance);
    hasher.finish()
}
