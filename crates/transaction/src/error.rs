//! Why the transaction layer refuses an input.

use sip::HeaderError;

/// Why an input was refused. A refused input changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// As many transactions as allowed are alive. A request from outside is answered 503 without a
    /// transaction.
    #[error("there are already {max} transactions")]
    Full {
        /// Most transactions allowed.
        max: usize,
    },
    /// The transaction has ended.
    #[error("the transaction has ended")]
    Ended,
    /// The transaction was answered finally; only a 2xx to an INVITE may follow, and only another 2xx.
    #[error("the transaction already has its final response")]
    AlreadyAnswered,
    /// A status that this transaction never sends: outside 100 to 699; or to a non-INVITE request 408, 101
    /// to 199, or 100 before the client's Timer E has reached T2 over an unreliable transport (RFC 4320
    /// section 4).
    #[error("status {status} must not be sent in this transaction now")]
    NotAllowed {
        /// The status that was refused.
        status: u16,
    },
    /// 64 * T1 have passed since the non-INVITE request came: its client no longer waits (RFC 4320 section
    /// 4.2).
    #[error("the response is too late for a non-INVITE request")]
    TooLate,
    /// A client transaction with this branch and method is alive.
    #[error("a client transaction with this branch and method is alive")]
    Duplicate,
    /// An ACK or a response was given to start a client transaction; an ACK goes to the transport (17.1).
    #[error("only a request other than ACK starts a client transaction")]
    NoTransaction,
    /// A header that identifies the transaction is missing or cannot be read.
    #[error("a header that identifies the transaction is missing or malformed")]
    Header(#[from] HeaderError),
}

impl TransactionError {
    /// Status code for the answer to the request that met this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::Full { .. } => 503,
            Self::Header(error) => error.status(),
            Self::Ended
            | Self::AlreadyAnswered
            | Self::NotAllowed { .. }
            | Self::TooLate
            | Self::Duplicate
            | Self::NoTransaction => 500,
        }
    }
}
