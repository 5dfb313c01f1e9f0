//! What a shard is told at its start, and where a request wants to go.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use model::{Protocol, limits};
use rustls::{ClientConfig, ServerConfig};

use crate::BannedSources;

/// Addresses and settings of one shard. Addresses are specific ones, never `0.0.0.0` or `::`: what a socket
/// is bound to is what [`model::Peer::local`] says.
#[derive(Clone, Debug, Default)]
pub struct ShardConfig {
    /// Number of the shard; goes into each [`model::FlowId`]. Shard 0 is bound first: it makes sure that no
    /// other process has the ports. Its [`crate::Bound`] addresses are what the other shards are given.
    pub shard: u16,
    /// Addresses for datagrams; at most one per address family is useful.
    pub udp: Vec<SocketAddr>,
    /// Addresses to accept TCP on.
    pub tcp: Vec<SocketAddr>,
    /// Addresses to accept TLS on; needs [`TlsConfigs::server`].
    pub tls: Vec<SocketAddr>,
    /// Addresses to accept WebSocket on.
    pub ws: Vec<SocketAddr>,
    /// Addresses to accept WebSocket over TLS on; needs [`TlsConfigs::server`].
    pub wss: Vec<SocketAddr>,
    /// Address to accept mutual TLS of our own servers on; needs [`TlsConfigs::internal_server`].
    pub internal: Option<SocketAddr>,
    /// Certificates and trust.
    pub tls_configs: TlsConfigs,
    /// Bounds and times.
    pub settings: Settings,
    /// Whom the shards of the server do not listen to.
    pub banned: Arc<BannedSources>,
}

/// Certificates and trust of a shard, made by [`crate::tls`]; all may be replaced while it runs.
#[derive(Clone, Debug, Default)]
pub struct TlsConfigs {
    /// What TLS and secure WebSocket listeners present.
    pub server: Option<Arc<ServerConfig>>,
    /// Whom outbound TLS trusts.
    pub client: Option<Arc<ClientConfig>>,
    /// What the internal listener presents; must require a client certificate.
    pub internal_server: Option<Arc<ServerConfig>>,
    /// What outbound connections to our own servers present, and whom they trust.
    pub internal_client: Option<Arc<ClientConfig>>,
}

/// Bounds and times of one shard; each shard counts for itself. The default is the value of `model::limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Stream connections, both directions. More: the newest is closed.
    pub connections_max: usize,
    /// Accepted connections of one remote address; of one /64 for IPv6. More: the newest is closed.
    pub connections_per_address_max: usize,
    /// Octets waiting to be written to one connection. More: the connection is closed.
    pub write_bytes_max: usize,
    /// Time for connecting, for the TLS handshake, for the first message of an accepted connection or the
    /// upgrade to WebSocket, and from the first octet of a message to its last. Longer: closed.
    pub half_open_max: Duration,
    /// Time without an octet in either direction after which a connection is closed.
    pub idle_max: Duration,
    /// Events of connections that wait for [`crate::Shard::next`]. More: connections are not read, so that
    /// TCP slows the senders down. Exceeded by what one read of 32 KiB can hold, and by closed connections.
    pub events_max: usize,
    /// Octets of datagrams waiting for the socket. More: the newest is refused.
    pub datagram_queue_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_address_max: limits::CONNECTIONS_PER_ADDRESS_MAX,
            write_bytes_max: limits::CONNECTION_WRITE_BYTES_MAX,
            half_open_max: limits::CONNECTION_HALF_OPEN_MAX,
            idle_max: limits::CONNECTION_IDLE_DEFAULT,
            events_max: limits::STREAM_EVENTS_MAX,
            datagram_queue_bytes_max: limits::DATAGRAM_QUEUE_BYTES_MAX,
        }
    }
}

/// Where a request wants to go: what [`crate::Shard::connect`] turns into a [`model::Peer`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Where to.
    pub remote: SocketAddr,
    /// The name that the certificate of the far end must carry; `None`: its address. Only for TLS.
    pub name: Option<Arc<str>>,
    /// One of our own servers: present our certificate and trust only our own authority. Only for TLS.
    pub is_internal: bool,
}

impl Destination {
    /// An address over UDP or TCP, or over TLS with the address in the certificate.
    pub fn address(protocol: Protocol, remote: SocketAddr) -> Self {
        Self { protocol, remote, name: None, is_internal: false }
    }

    /// A TLS server of the outer world that goes by `name`.
    pub fn tls(remote: SocketAddr, name: impl Into<Arc<str>>) -> Self {
        Self { protocol: Protocol::Tls, remote, name: Some(name.into()), is_internal: false }
    }

    /// One of our own servers, by its FQDN.
    pub fn internal(remote: SocketAddr, name: impl Into<Arc<str>>) -> Self {
        Self { protocol: Protocol::Tls, remote, name: Some(name.into()), is_internal: true }
    }
}
