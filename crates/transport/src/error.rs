//! Why something did not work: one closed enum per family of operations.

use std::{io, net::SocketAddr};

use model::Protocol;

/// Why a shard could not take its addresses. Each message ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has the port.
    #[error(
        "port in use: {protocol} {address} belongs to another process; find it with \
         `ss -lntup 'sport = :{port}'` and stop it, or change the address in the topology",
        port = address.port()
    )]
    InUse {
        /// Transport protocol.
        protocol: Protocol,
        /// The address asked for.
        address: SocketAddr,
    },
    /// The machine does not have the address.
    #[error(
        "no such address: {protocol} {address} is not an address of this machine; see `ip address`, and \
         correct the interface or the topology"
    )]
    NoSuchAddress {
        /// Transport protocol.
        protocol: Protocol,
        /// The address asked for.
        address: SocketAddr,
    },
    /// The process may not use the port.
    #[error(
        "not allowed: {protocol} {address} needs the right to use low ports; give the service \
         CAP_NET_BIND_SERVICE or choose a port above 1023"
    )]
    NotAllowed {
        /// Transport protocol.
        protocol: Protocol,
        /// The address asked for.
        address: SocketAddr,
    },
    /// A TLS address without a certificate.
    #[error("no certificate: {address} is to accept TLS; set certificate and key, or remove the address")]
    NoCertificate {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Anything else the system says.
    #[error("cannot bind {protocol} {address}; the system's reason follows")]
    System {
        /// Transport protocol.
        protocol: Protocol,
        /// The address asked for.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// Why no connection was even tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The shard has no socket that could send there.
    #[error("no {protocol} socket for the address family of {remote}")]
    NoSocket {
        /// Transport protocol.
        protocol: Protocol,
        /// Where to.
        remote: SocketAddr,
    },
    /// `Settings::connections_max` is reached; answer 503.
    #[error("too many connections")]
    TooManyConnections,
    /// TLS was asked for, and the shard has no configuration for it.
    #[error("no TLS configuration for outbound connections")]
    NoTls,
    /// The name is neither a DNS name nor an address.
    #[error("{name:?} is not a name that a certificate can carry")]
    Name {
        /// What was given.
        name: String,
    },
    /// Nobody connects to a WebSocket client (RFC 7118 section 5).
    #[error("cannot connect by {protocol}")]
    Unsupported {
        /// Transport protocol.
        protocol: Protocol,
    },
}

/// Why something was not sent. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection is gone or closing; a response may try RFC 3261 section 18.2.2's way, a request a new
    /// one.
    #[error("the connection is closed")]
    Closed,
    /// The flow is one of another shard; give it to that shard.
    #[error("the flow belongs to shard {shard}")]
    OtherShard {
        /// Whose it is.
        shard: u16,
    },
    /// Too much is waiting. A connection is closed by this and reports [`CloseReason::WriteQueueFull`].
    #[error("too much is waiting to be sent")]
    QueueFull,
    /// No UDP socket is bound to `Peer::local`.
    #[error("no socket is bound to the local address")]
    NoSocket,
}

/// Why a datagram was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFailure {
    /// Nobody listens there, or no way leads there.
    #[error("unreachable")]
    Unreachable,
    /// Longer than a datagram can be.
    #[error("too long for a datagram")]
    TooLong,
    /// Anything else the system says.
    #[error("{0}")]
    System(io::ErrorKind),
}

/// Why a connection was never made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    /// The far end refused, or no way leads there, or anything else the system says.
    #[error("{0}")]
    System(io::ErrorKind),
    /// Not connected, or handshake not done, within `Settings::half_open_max`.
    #[error("no answer in time")]
    TimedOut,
    /// The TLS handshake failed, with rustls's reason: a certificate nobody here trusts, or of another name.
    #[error("TLS: {0}")]
    Tls(String),
    /// More was sent than may wait.
    #[error("too much was waiting to be sent")]
    WriteQueueFull,
    /// [`crate::Shard::close`] was called.
    #[error("closed here")]
    ClosedHere,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The far end closed it.
    #[error("closed by the far end")]
    ClosedByPeer,
    /// [`crate::Shard::close`] was called.
    #[error("closed here")]
    ClosedHere,
    /// Broken, with the system's reason.
    #[error("{0}")]
    System(io::ErrorKind),
    /// TLS failed, in the handshake or after it, with rustls's reason.
    #[error("TLS: {0}")]
    Tls(String),
    /// No octet for `Settings::idle_max`.
    #[error("idle")]
    Idle,
    /// The far end was not heard within the time of [`crate::Shard::expect_within`].
    #[error("silent")]
    Silent,
    /// The handshake, the first message or the rest of a message did not come within
    /// `Settings::half_open_max`.
    #[error("too slow")]
    TooSlow,
    /// More than `Settings::write_bytes_max` was waiting: the far end does not read.
    #[error("too much was waiting to be sent")]
    WriteQueueFull,
    /// Nobody closed it after [`crate::Event::Malformed`], or a WebSocket broke RFC 6455.
    #[error("malformed stream")]
    Malformed,
    /// What came to a WebSocket listener is no WebSocket for SIP, and was told so (RFC 7118 section 4.1).
    #[error("upgrade to WebSocket refused")]
    UpgradeRefused,
}
