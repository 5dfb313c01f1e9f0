//! The ways to a user's phones: over our own flows, straight to an address, or through the server that holds
//! the flow.

use std::{cmp::Reverse, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use model::{AddressOfRecord, Instant, Leg, NextHop, Peer, Protocol, ServerName};
use proxy::Target;
use registrar::{Binding, Bindings, FlowView};
use sip::{NameAddr, Uri};

use super::{
    Shard,
    location::{datagram_address, device_of, is_at, is_same_contact},
};
use crate::{FlowTokens, TokenFlow};

/// Scheme of a URI.
const SIP: &[u8] = b"sip:";
/// Scheme of a URI that asks for TLS all the way.
const SIPS: &[u8] = b"sips:";

/// Where a request leaves for a phone.
struct Way {
    next_hop: NextHop,
    leg: Arc<Leg>,
    routes: Vec<Bytes>,
    /// The server of ours that it goes through.
    through: Option<ServerName>,
}

impl Way {
    /// Whether the next hop is reached by TLS; what is beyond a server of ours, that server sees to.
    fn is_secure(&self) -> bool {
        match &self.next_hop {
            NextHop::Flow(Peer { protocol, .. }) | NextHop::Address { protocol, .. } => protocol.is_secure(),
            NextHop::Host { places, .. } => places.iter().all(|place| place.protocol.is_secure()),
            NextHop::Server(_) => true,
        }
    }
}

impl Shard {
    /// The targets that a user's bindings stand for, in the order in which they are tried: by q, direct ones
    /// first.
    ///
    /// What leads through a server that is silent is left out where anything else is known: a call does not
    /// wait for a dead server, and phones that it alone can reach are reached by nobody.
    ///
    /// `is_sips`: whether the request asks for TLS all the way; then only contacts that do so too are meant.
    pub(super) fn targets(
        &self,
        aor: &AddressOfRecord,
        bindings: &Bindings,
        is_sips: bool,
        now: Instant,
    ) -> Vec<Target> {
        let mut ways: Vec<_> = self.ways(bindings, is_sips).collect();
        if ways.iter().any(|(_, way)| self.is_open(way, now)) {
            ways.retain(|(_, way)| self.is_open(way, now));
        }
        in_order(aor, ways, is_sips)
    }

    /// The same, without what leads through a server that is silent: nothing of it is left to wait for.
    pub(super) fn open_targets(
        &self,
        aor: &AddressOfRecord,
        bindings: &Bindings,
        is_sips: bool,
        now: Instant,
    ) -> Vec<Target> {
        let ways = self.ways(bindings, is_sips).filter(|(_, way)| self.is_open(way, now));
        in_order(aor, ways.collect(), is_sips)
    }

    /// The phone of these that a dialog knows by `contact`, its own or a GRUU; `None` where none of them is
    /// it, or it is reached through a server that is silent.
    pub(super) fn open_target_at(&self, bindings: &Bindings, contact: &[u8], now: Instant) -> Option<Target> {
        let uri = Uri::parse(contact).ok()?;
        let gruu = self.gruu_of(contact).ok()?;
        let is_it = |binding: &Binding| match &gruu {
            Some(gruu) => gruu.is_of(binding, &self.shared.gruus),
            None => Uri::parse(binding.uri()).is_ok_and(|bound| is_same_contact(&bound, &uri)),
        };
        let ways = bindings.iter().filter(|binding| is_it(binding));
        let open = ways
            .filter_map(|binding| Some((binding, self.way(binding)?)))
            .filter(|(_, way)| self.is_open(way, now));
        let (binding, way) = open.min_by_key(|(_, way)| way.through.is_some())?;
        let Way { next_hop, leg, routes, .. } = way;
        let request_uri = if gruu.is_some() { binding.uri() } else { contact };
        let request_uri = Bytes::copy_from_slice(request_uri);
        Some(Target { next_hop, request_uri, routes, q: 1_000, device: None, leg, diversion: None })
    }

    /// The ways to contacts that may get the request: one with a SIPS URI goes to SIPS contacts only, and
    /// SIPS contacts get nothing but by TLS (RFC 5630 section 5.3).
    fn ways<'a>(&self, bindings: &'a Bindings, is_sips: bool) -> impl Iterator<Item = (&'a Binding, Way)> {
        bindings.iter().filter_map(move |binding| {
            let is_bound_sips = is_sips_uri(binding.uri());
            if is_sips && !is_bound_sips {
                return None;
            }
            let way = self.way(binding)?;
            (!is_bound_sips || way.is_secure()).then_some((binding, way))
        })
    }

    /// Whether a way leads through nobody who does not answer.
    fn is_open(&self, way: &Way, now: Instant) -> bool {
        let is_there =
            |server: &ServerName| self.shared.links.is_up(server, now) && self.held.gone() != Some(server);
        way.through.as_ref().is_none_or(is_there)
    }

    /// `None` when nothing leads there any more.
    fn way(&self, binding: &Binding) -> Option<Way> {
        let mut path = binding.path();
        match (path.next(), binding.flow()) {
            (Some(first), _) => self.along_path(first, path),
            (None, Some(flow)) if flow.server == self.shared.server.name.as_str() => {
                self.over_own_flow(flow, binding.uri())
            }
            (None, Some(flow)) => self.over_flow_elsewhere(flow, binding.uri()),
            (None, None) => self.way_to(&Uri::parse(binding.uri()).ok()?, Vec::new()),
        }
    }

    /// Along a Path: through a server of ours, out of here where the Path names a flow of this server, or to
    /// any other address.
    fn along_path<'a>(&self, first: &'a [u8], rest: impl Iterator<Item = &'a [u8]>) -> Option<Way> {
        let uri = NameAddr::parse(first)?.uri().ok()?;
        let mut routes: Vec<Bytes> = rest.map(Bytes::copy_from_slice).collect();
        if self.legs.is_own(&uri) {
            let TokenFlow::Alive(peer) = self.shared.tokens.read(uri.user?)? else { return None };
            let leg = self.legs.towards(&peer, false)?;
            return Some(Way { next_hop: NextHop::Flow(peer), leg, routes, through: None });
        }
        routes.insert(0, Bytes::copy_from_slice(first));
        self.way_to(&uri, routes)
    }

    fn way_to(&self, uri: &Uri<'_>, routes: Vec<Bytes>) -> Option<Way> {
        let (next_hop, leg) = self.towards_uri(uri).ok()?;
        let through = match &next_hop {
            NextHop::Server(server) => Some(server.clone()),
            NextHop::Flow(_) | NextHop::Address { .. } | NextHop::Host { .. } => None,
        };
        Some(Way { next_hop, leg, routes, through })
    }

    /// Whether a connection of this boot is known to have closed; other shards know their own.
    pub(super) fn is_closed(&self, peer: &Peer) -> bool {
        peer.protocol != Protocol::Udp
            && peer.flow.shard() == self.number
            && self.sockets.peer(peer.flow).is_none()
    }

    /// Towards the phone at the other end of a flow of this server.
    fn over_own_flow(&self, flow: FlowView<'_>, contact: &[u8]) -> Option<Way> {
        let peer = match flow.peer.protocol {
            Protocol::Udp => Peer { remote: datagram_address(contact, flow.peer.remote), ..flow.peer },
            Protocol::Tcp | Protocol::Tls | Protocol::Ws | Protocol::Wss
                if flow.boot == self.shared.boot && !self.is_closed(&flow.peer) =>
            {
                flow.peer
            }
            Protocol::Tcp | Protocol::Tls | Protocol::Ws | Protocol::Wss => return None,
        };
        let leg = self.legs.towards(&peer, false)?;
        Some(Way { next_hop: NextHop::Flow(peer), leg, routes: Vec::new(), through: None })
    }

    /// Towards a phone that registered at another server: straight to it where datagrams from anywhere reach
    /// it, which is where no NAT stands between; else through that server, which alone has the flow.
    fn over_flow_elsewhere(&self, flow: FlowView<'_>, contact: &[u8]) -> Option<Way> {
        let is_datagram = flow.peer.protocol == Protocol::Udp;
        if is_datagram && is_at(contact, flow.peer.remote.ip()) {
            let remote = datagram_address(contact, flow.peer.remote);
            if let Some(leg) = self.legs.by_protocol(Protocol::Udp, remote) {
                let next_hop = NextHop::Address { protocol: Protocol::Udp, remote };
                return Some(Way { next_hop, leg, routes: Vec::new(), through: None });
            }
        }
        let holder = ServerName::new(flow.server).ok()?;
        let address: SocketAddr = self.shared.topology().server(&holder)?.listen.internal_sip?;
        let tokens = FlowTokens::of_server(&self.shared.nonce_key, &holder, flow.boot);
        let route = format!("<sip:{}@{address};transport=tls;lr;ob>", tokens.write(&flow.peer));
        let leg = self.legs.internal()?;
        let next_hop = NextHop::Server(holder.clone());
        Some(Way { next_hop, leg, routes: vec![Bytes::from(route)], through: Some(holder) })
    }
}

/// Targets in the order in which they are tried: by q, direct ones first.
fn in_order(aor: &AddressOfRecord, mut ways: Vec<(&Binding, Way)>, is_sips: bool) -> Vec<Target> {
    ways.sort_by_key(|(binding, way)| (Reverse(binding.q()), way.through.is_some(), way.routes.len()));
    let target = |(binding, way): (&Binding, Way)| Target {
        next_hop: way.next_hop,
        request_uri: if is_sips {
            Bytes::copy_from_slice(binding.uri())
        } else {
            without_sips(binding.uri())
        },
        routes: way.routes,
        q: binding.q(),
        device: Some(device_of(aor, binding.instance().unwrap_or(binding.uri()))),
        leg: way.leg,
        diversion: None,
    };
    ways.into_iter().map(target).collect()
}

/// Whether a URI asks for TLS all the way.
pub(super) fn is_sips_uri(uri: &[u8]) -> bool {
    uri.get(..SIPS.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SIPS))
}

/// A contact for a request that does not ask for TLS all the way: never a SIPS URI (RFC 5630 section 5.3).
fn without_sips(contact: &[u8]) -> Bytes {
    match contact.get(SIPS.len()..) {
        Some(rest) if is_sips_uri(contact) => Bytes::from([b"sip:", rest].concat()),
        Some(_) | None => Bytes::copy_from_slice(contact),
    }
}

/// The same URI, asking for TLS all the way; other schemes than sip stay.
pub(super) fn with_sips(uri: &Bytes) -> Bytes {
    match uri.split_at_checked(SIP.len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SIP) => Bytes::from([SIPS, rest].concat()),
        Some(_) | None => uri.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_asks_for_tls_or_not_and_is_the_same_besides() {
        let contact = Bytes::from_static(b"SIPS:bob@192.0.2.9;x=sips:");

        assert!(is_sips_uri(&contact));
        assert_eq!(without_sips(&contact), &b"sip:bob@192.0.2.9;x=sips:"[..]);
        assert_eq!(with_sips(&without_sips(&contact)), &b"sips:bob@192.0.2.9;x=sips:"[..]);
        for other in ["sip:a@b", "tel:+1", "sip", ""] {
            assert!(!is_sips_uri(other.as_bytes()));
            assert_eq!(without_sips(other.as_bytes()), other);
        }
        assert_eq!(with_sips(&Bytes::from_static(b"tel:+1")), &b"tel:+1"[..]);
    }
}
