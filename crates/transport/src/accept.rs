//! The listeners of a shard.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use model::Protocol;
use tokio::net::{TcpListener, TcpStream};

/// Connections accepted from one listener before others get their turn.
const ACCEPTS_PER_TURN: usize = 32;

pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) kind: ListenerKind,
    pub(crate) local: SocketAddr,
}

/// What is spoken on accepted connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    Tcp,
    Tls,
    /// TLS with our own servers.
    Internal,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

/// A connection fresh from the kernel.
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) kind: ListenerKind,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

impl ListenerKind {
    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::Tls | Self::Internal => Protocol::Tls,
            Self::Ws => Protocol::Ws,
            Self::Wss => Protocol::Wss,
        }
    }

    /// Whether TLS comes first.
    pub(crate) const fn is_secure(self) -> bool {
        match self {
            Self::Tls | Self::Internal | Self::Wss => true,
            Self::Tcp | Self::Ws => false,
        }
    }
}

/// Accepts what is there. The task is woken when more comes.
///
/// Errors: the process or the machine has no more descriptors or memory; try again a little later.
pub(crate) fn poll_accept(
    listeners: &[Listener],
    cx: &mut Context<'_>,
    accepted: &mut Vec<Accepted>,
) -> io::Result<()> {
    for listener in listeners {
        for turn in 0.. {
            if turn == ACCEPTS_PER_TURN {
                cx.waker().wake_by_ref();
                break;
            }
            match listener.socket.poll_accept(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok((stream, remote))) => {
                    accepted.push(Accepted { stream, kind: listener.kind, local: listener.local, remote });
                }
                // Others are about one connection that ended before it was accepted.
                Poll::Ready(Err(error)) if is_used_up(&error) => return Err(error),
                Poll::Ready(Err(_other)) => {}
            }
        }
    }
    Ok(())
}

/// Whether the process or the machine has no more descriptors or memory.
fn is_used_up(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
