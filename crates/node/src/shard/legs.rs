//! What we say about ourselves in Via, Record-Route, Path and Service-Route, for each listener.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use model::{Leg, Peer, Protocol};
use sip::{Scheme, Uri, host_address};
use topology::{Server, Topology};

use crate::FlowTokens;

/// The listeners of this server, and the names that stand for it.
pub struct Legs {
    listeners: Vec<Listener>,
    names: Vec<Bytes>,
}

struct Listener {
    protocol: Protocol,
    address: SocketAddr,
    is_internal: bool,
    leg: Arc<Leg>,
}

impl Legs {
    /// The listeners of `server`, the names of its pool and the domains of the deployment.
    pub fn of(topology: &Topology, server: &Server) -> Self {
        let listen = &server.listen;
        let list = |protocol, addresses: &[SocketAddr], is_internal| {
            addresses
                .iter()
                .map(|&address| Listener {
                    protocol,
                    address,
                    is_internal,
                    leg: Arc::new(leg(protocol, address, "")),
                })
                .collect::<Vec<_>>()
        };
        let mut listeners = Vec::new();
        for (protocol, addresses) in listen.phones() {
            listeners.extend(list(protocol, addresses, false));
        }
        listeners.extend(list(Protocol::Tls, listen.internal_sip.as_slice(), true));
        let mut names: Vec<String> = topology.domains.iter().map(ToString::to_string).collect();
        names.push(server.fqdn.to_string());
        names.extend(topology.pool(&server.pool).map(|pool| pool.fqdn.to_string()));
        Self { listeners, names: names.into_iter().map(Bytes::from).collect() }
    }

    /// What we say on the flow of this peer: the listener it came to, or the one that speaks its protocol.
    pub fn towards(&self, peer: &Peer, is_internal: bool) -> Option<Arc<Leg>> {
        self.listener(peer.protocol, peer.local, is_internal).map(|listener| Arc::clone(&listener.leg))
    }

    /// The same for requests that form a dialog: with the dialog's mark in the Record-Route, and with a flow
    /// token where only this flow leads back to the peer.
    pub fn of_dialog(&self, leg: &Arc<Leg>, mark: &str, token: Option<&str>) -> Arc<Leg> {
        let Some(listener) = self.listeners.iter().find(|listener| listener.leg.via == leg.via) else {
            return Arc::clone(leg);
        };
        let user = token.map_or_else(|| mark.to_owned(), |token| format!("{mark}.{token}"));
        Arc::new(self::leg(listener.protocol, listener.address, &user))
    }

    /// What a request towards our own servers says about us.
    pub fn internal(&self) -> Option<Arc<Leg>> {
        self.listeners.iter().find(|listener| listener.is_internal).map(|listener| Arc::clone(&listener.leg))
    }

    /// What a request to an address by this protocol says about us.
    pub fn by_protocol(&self, protocol: Protocol, remote: SocketAddr) -> Option<Arc<Leg>> {
        let fits = |listener: &&Listener| {
            !listener.is_internal
                && listener.protocol == protocol
                && listener.address.is_ipv4() == remote.is_ipv4()
        };
        self.listeners.iter().find(fits).map(|listener| Arc::clone(&listener.leg))
    }

    /// The Contact of a dialog of our own with this peer, a URI in angle brackets. `sips` is kept (RFC 3261
    /// section 12.1.1).
    pub fn contact(&self, peer: &Peer, is_internal: bool, user: &str, is_sips: bool) -> Option<String> {
        let listener = self.listener(peer.protocol, peer.local, is_internal)?;
        let address = listener.address;
        Some(match listener.protocol {
            Protocol::Tls if is_sips => format!("<sips:{user}@{address}>"),
            Protocol::Wss if is_sips => format!("<sips:{user}@{address};transport=ws>"),
            Protocol::Udp | Protocol::Tcp | Protocol::Tls | Protocol::Ws | Protocol::Wss => {
                format!("<sip:{user}@{address};transport={}>", listener.protocol.uri_token())
            }
        })
    }

    /// A Path value that leads to this flow through our internal listener; with `ob` only where the phone
    /// itself is at its other end (RFC 5626 section 5.1).
    pub fn path(&self, peer: &Peer, tokens: &FlowTokens, is_first_hop: bool) -> Option<String> {
        let listener = self.listeners.iter().find(|listener| listener.is_internal)?;
        let ob = if is_first_hop { ";ob" } else { "" };
        Some(format!("<sip:{}@{};transport=tls;lr{ob}>", tokens.write(peer), listener.address))
    }

    /// Whether a host is the address or a name of this server, with the port and transport of a listener.
    pub fn is_own(&self, uri: &Uri<'_>) -> bool {
        match uri.scheme {
            Scheme::Sip | Scheme::Sips => {}
            Scheme::Tel | Scheme::Other => return false,
        }
        match host_address(uri.host) {
            Some(ip) => self.listeners.iter().any(|listener| {
                let default = listener.protocol.default_port();
                listener.address.ip() == ip && listener.address.port() == uri.port.unwrap_or(default)
            }),
            None => self.names.iter().any(|name| name.eq_ignore_ascii_case(uri.host)),
        }
    }

    /// Whether a Via sent-by is one of our listeners.
    pub fn is_own_sent_by(&self, host: &[u8], port: Option<u16>) -> bool {
        host_address(host).is_some_and(|ip| {
            self.listeners.iter().any(|listener| {
                listener.address.ip() == ip && port.is_none_or(|port| listener.address.port() == port)
            })
        })
    }

    fn listener(&self, protocol: Protocol, local: SocketAddr, is_internal: bool) -> Option<&Listener> {
        let mut candidates = self
            .listeners
            .iter()
            .filter(|listener| listener.protocol == protocol && listener.is_internal == is_internal);
        let exact = candidates.clone().find(|listener| listener.address == local);
        exact.or_else(|| candidates.find(|listener| listener.address.ip() == local.ip()))
    }
}

impl proxy::OwnNames for Legs {
    fn is_own_uri(&self, uri: &Uri<'_>) -> bool {
        self.is_own(uri)
    }
}

fn leg(protocol: Protocol, address: SocketAddr, user: &str) -> Leg {
    let at = if user.is_empty() { "" } else { "@" };
    Leg {
        via: format!("SIP/2.0/{} {address}", protocol.via_token()).into(),
        record_route: format!("<sip:{user}{at}{address};transport={};lr>", protocol.uri_token()).into(),
    }
}
