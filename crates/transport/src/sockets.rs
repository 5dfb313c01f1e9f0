//! Making sockets: addresses shared by the shards of this process and by nobody else, sized and tuned.

use std::{io, net::SocketAddr, os::fd::AsFd, time::Duration};

use model::Protocol;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tracing::info;

use crate::{BindError, mmsg};

/// Octets asked of the kernel for each direction of a UDP socket: a second of 10,000 messages.
const UDP_BUFFER_BYTES: usize = 4 * 1_048_576;
/// Accepted connections that may wait for the shard.
const BACKLOG: i32 = 1_024;
/// Silence after which the kernel asks whether the far end still lives; also what keeps a NAT open.
const PROBE_AFTER: Duration = Duration::from_secs(120);
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;
/// Time without acknowledgement of what was sent after which a connection is dead: below the 32 s of RFC 3261
/// Timer B and F, so that another way can still be tried.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// Binds a UDP socket of a shard.
///
/// Errors: [`BindError`].
pub(crate) fn bind_udp(address: SocketAddr, shard: u16) -> Result<UdpSocket, BindError> {
    let protocol = Protocol::Udp;
    open(address, Type::DGRAM, shard)
        .and_then(|socket| {
            socket.set_recv_buffer_size(UDP_BUFFER_BYTES)?;
            socket.set_send_buffer_size(UDP_BUFFER_BYTES)?;
            let receive_bytes = socket.recv_buffer_size()?;
            if receive_bytes < UDP_BUFFER_BYTES {
                info!(%address, receive_bytes, "UDP receive buffer below 4 MiB: raise net.core.rmem_max");
            }
            mmsg::set_measured(socket.as_fd())?;
            mmsg::set_receive_errors(socket.as_fd(), address.is_ipv6())?;
            UdpSocket::from_std(socket.into())
        })
        .map_err(|source| bind_error(protocol, address, source))
}

/// Binds a listener of a shard for connections.
///
/// Errors: [`BindError`].
pub(crate) fn bind_listener(
    protocol: Protocol,
    address: SocketAddr,
    shard: u16,
) -> Result<TcpListener, BindError> {
    open(address, Type::STREAM, shard)
        .and_then(|socket| {
            socket.listen(BACKLOG)?;
            TcpListener::from_std(socket.into())
        })
        .map_err(|source| bind_error(protocol, address, source))
}

/// A socket for an outbound connection from `source`, whose port the kernel chooses.
///
/// Errors: the system's.
pub(crate) fn outbound(source: Option<SocketAddr>, remote: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        mmsg::set_late_port(socket.as_fd())?;
        socket.bind(SocketAddr::new(source.ip(), 0))?;
    }
    Ok(socket)
}

/// Sets what every connection needs: no delay, and dead far ends noticed.
///
/// Errors: the system's.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keep_alive =
        TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    socket.set_tcp_keepalive(&keep_alive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

fn open(address: SocketAddr, kind: Type, shard: u16) -> io::Result<Socket> {
    if shard == 0 && address.port() != 0 {
        // Sockets that share a port would also share it with a second process of the same user, and each
        // would get a part of the traffic. A socket that does not share finds out whether anybody is there.
        let probe = new_socket(address, kind)?;
        probe.bind(&address.into())?;
    }
    let socket = new_socket(address, kind)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn new_socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections of a process before us that linger do not count.
        socket.set_reuse_address(true)?;
    }
    Ok(socket)
}

fn bind_error(protocol: Protocol, address: SocketAddr, source: io::Error) -> BindError {
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => BindError::InUse { protocol, address },
        Some(libc::EADDRNOTAVAIL) => BindError::NoSuchAddress { protocol, address },
        Some(libc::EACCES | libc::EPERM) => BindError::NotAllowed { protocol, address },
        Some(_) | None => BindError::System { protocol, address, source },
    }
}
