//! Servers and the addresses they listen on.

use std::net::SocketAddr;

use model::{Fqdn, PoolName, Protocol, ServerName};
use serde::Serialize;

/// One running process with one identity, in exactly one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Its name, unique in the topology.
    pub name: ServerName,
    /// Its host name, unique among servers and pools; the name in its certificate.
    pub fqdn: Fqdn,
    /// The pool it belongs to.
    pub pool: PoolName,
    /// Where it listens. No address is shared with another listener or server.
    #[serde(flatten)]
    pub listen: Listen,
    /// SIP shards (threads with their own sockets), 1 to [`Server::SHARDS_MAX`]; `None` = one per processor
    /// core.
    pub shards: Option<u16>,
    /// What phones are presented; `None` = what other servers are.
    #[serde(flatten)]
    pub phone_certificate: Option<PhoneCertificate>,
}

/// Files of what a server presents to phones over TLS and secure WebSocket, where that is not what it
/// presents to other servers. PEM, as certbot and cert-manager write them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PhoneCertificate {
    /// The server's certificate, then those that lead to its authority. A path that does not begin with `/`
    /// begins in the folder of the topology document.
    pub tls_certificate: String,
    /// Its private key; the same of its path.
    pub tls_key: String,
}

impl Server {
    /// The most SIP shards of one server.
    pub const SHARDS_MAX: u16 = 64;
}

/// The addresses a server listens on. None is a wildcard, none has port 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listen {
    /// SIP over UDP, in the order of preference.
    pub udp: Vec<SocketAddr>,
    /// SIP over TCP, in the order of preference.
    pub tcp: Vec<SocketAddr>,
    /// SIP over TLS, in the order of preference.
    pub tls: Vec<SocketAddr>,
    /// SIP over WebSocket, in the order of preference.
    pub ws: Vec<SocketAddr>,
    /// SIP over WebSocket and TLS, in the order of preference.
    pub wss: Vec<SocketAddr>,
    /// SIP between servers, over mutual TLS. Present on every server but those of the control role.
    pub internal_sip: Option<SocketAddr>,
    /// Everything else between servers and from the command line, over mutual TLS.
    pub internal_http: SocketAddr,
}

impl Listen {
    /// What phones connect to: the addresses of each protocol, which is also the key of their list.
    pub fn phones(&self) -> [(Protocol, &[SocketAddr]); 5] {
        [
            (Protocol::Udp, &self.udp),
            (Protocol::Tcp, &self.tcp),
            (Protocol::Tls, &self.tls),
            (Protocol::Ws, &self.ws),
            (Protocol::Wss, &self.wss),
        ]
    }

    /// Every address, those for other servers included.
    pub fn all(&self) -> impl Iterator<Item = SocketAddr> {
        let phones = self.phones().into_iter().flat_map(|(_, addresses)| addresses.iter().copied());
        phones.chain(self.internal_sip).chain([self.internal_http])
    }

    /// The addresses for phones of one protocol.
    pub fn of(&self, protocol: Protocol) -> &[SocketAddr] {
        match protocol {
            Protocol::Udp => &self.udp,
            Protocol::Tcp => &self.tcp,
            Protocol::Tls => &self.tls,
            Protocol::Ws => &self.ws,
            Protocol::Wss => &self.wss,
        }
    }
}
