//! What the transactions want done.

use std::sync::Arc;

use bytes::Bytes;
use model::{ClientTransaction, Peer, ServerTransaction};
use sip::OwnedMessage;

/// Work for the driver, executed in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a message.
    Transmit {
        /// Where to. For a response this follows RFC 3261 section 18.2.2 and RFC 3581 section 4.
        to: Peer,
        /// The whole message.
        bytes: Bytes,
        /// Whom to name in [`crate::Transactions::transport_failed`]; `None` for a response, whose failure
        /// the transaction outlives (RFC 6026 section 8.8).
        client: Option<ClientTransaction>,
    },
    /// A new request for the TU, any method but ACK and CANCEL.
    Request {
        /// The transaction to answer in.
        server: ServerTransaction,
        /// The request.
        request: Arc<OwnedMessage>,
        /// Where it came from.
        from: Peer,
    },
    /// A new CANCEL for the TU. It is answered in its own transaction: 200 when `is_matched`, else 481 (9.2).
    Cancel {
        /// The transaction of the CANCEL.
        server: ServerTransaction,
        /// The INVITE transaction that it cancels, in whatever state.
        invite: Option<ServerTransaction>,
        /// Whether it matches any transaction; of the methods other than INVITE none can be cancelled.
        is_matched: bool,
        /// The CANCEL.
        request: Arc<OwnedMessage>,
        /// Where it came from.
        from: Peer,
    },
    /// An ACK that belongs to no non-2xx response we sent: the TU treats it as the ACK for a 2xx.
    Ack {
        /// The ACK.
        request: Arc<OwnedMessage>,
        /// Where it came from.
        from: Peer,
    },
    /// A response for the TU: every provisional one, the one final one, and for an INVITE every 2xx.
    Response {
        /// The transaction.
        client: ClientTransaction,
        /// What [`crate::Transactions::request`] was given.
        tag: u64,
        /// The response.
        response: Arc<OwnedMessage>,
        /// Where it came from.
        from: Peer,
    },
    /// No final response came in time: treat it as 408. Nothing more comes for this transaction.
    ClientTimeout {
        /// The transaction.
        client: ClientTransaction,
        /// What [`crate::Transactions::request`] was given.
        tag: u64,
    },
    /// The request did not reach its peer: treat it as 503. Nothing more comes for this transaction.
    ClientFailed {
        /// The transaction.
        client: ClientTransaction,
        /// What [`crate::Transactions::request`] was given.
        tag: u64,
    },
    /// The server transaction has ended; comes exactly once for each.
    ServerFinished {
        /// The transaction.
        server: ServerTransaction,
    },
}
