//! What comes out of the sockets.

use std::sync::Arc;

use bytes::Bytes;
use model::Peer;
use sip::FramingError;

use crate::{CloseReason, ConnectFailure, SendFailure};

/// One thing that happened. Events of one flow come in order; the last one of a connection is either
/// [`Event::Closed`] or [`Event::ConnectFailed`], exactly one of them, exactly once.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A datagram, in place; never empty, never a CRLF keep-alive and never STUN.
    Datagram {
        /// Who sent it, and to which of our addresses.
        peer: Peer,
        /// The whole datagram.
        bytes: &'a [u8],
    },
    /// One whole message of a stream.
    Message {
        /// The connection.
        peer: Peer,
        /// Exactly the message.
        bytes: Bytes,
        /// On internal connections the DNS names of the verified certificate of the far end, in lower case;
        /// `None` on all others.
        names: Option<Arc<[String]>>,
    },
    /// A stream that cannot be read on: answer if [`FramingError::status`] says so, then close the flow. It
    /// is closed anyway after `Settings::half_open_max`.
    Malformed {
        /// The connection.
        peer: Peer,
        /// The octets from the start of the bad message, as far as they came.
        bytes: Bytes,
        /// What is wrong.
        error: FramingError,
        /// Whether the far end made the connection.
        is_accepted: bool,
    },
    /// A connection ended.
    Closed {
        /// The connection that was.
        peer: Peer,
        /// Why.
        reason: CloseReason,
        /// Octets that were accepted by `send` and not taken by the socket.
        unsent: usize,
        /// Whether the far end made the connection.
        is_accepted: bool,
    },
    /// A connection asked for by [`crate::Shard::connect`] was never made.
    ConnectFailed {
        /// What `connect` returned.
        peer: Peer,
        /// Why.
        reason: ConnectFailure,
        /// All that was sent meanwhile.
        unsent: Bytes,
    },
    /// A datagram did not arrive: the system refused it, or the network said so later (RFC 3261 section
    /// 18.4).
    ///
    /// Errors from the network come to the shard that receives from that peer, not always the one that sent.
    SendFailed {
        /// Where it should have gone.
        peer: Peer,
        /// Why not.
        reason: SendFailure,
    },
}

impl Event<'_> {
    /// The far end it is about.
    pub const fn peer(&self) -> &Peer {
        match self {
            Self::Datagram { peer, .. }
            | Self::Message { peer, .. }
            | Self::Malformed { peer, .. }
            | Self::Closed { peer, .. }
            | Self::ConnectFailed { peer, .. }
            | Self::SendFailed { peer, .. } => peer,
        }
    }
}
