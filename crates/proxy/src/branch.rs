//! One branch of a forwarded request.
//!
//! ```text
//! INVITE:      Calling ──1xx──▶ Proceeding ──cancel──▶ Cancelled ──final, wait over──▶ Ended
//!                 │ cancel                                  ▲ │ 2xx
//!                 ▼                                         │ ▼
//!              CancelHeld ───────────────1xx────────────────┘ Accepted ──linger over──▶ Ended
//! not INVITE:  Trying ──final, failure──▶ Ended
//! either:      3xx with recursion ──▶ Redirected ──targets──▶ Ended
//! ```
//!
//! A final response ends any state but `Accepted`; a 2xx to an INVITE leads to `Accepted` from any state,
//! `Ended` included, as long as the context may still send one.

use std::sync::Arc;

use bytes::Bytes;
use model::{Instant, NextHop};
use sip::OwnedMessage;

/// Why a branch gave no final response; from the client transaction or from server location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchFailure {
    /// No response in time: as a 408 (RFC 3261 section 16.6 step 7), never sent upstream for a request that
    /// is no INVITE (RFC 4320).
    Timeout,
    /// The transport could not deliver, or nobody knows whether it did: as a 503 (16.9).
    Transport,
    /// Nothing has left: there is no address, or no connection could be made: as a 503.
    Unreachable,
    /// We have no room for the transaction: a 503 that may go upstream, because it is our own overload (16.7
    /// step 6).
    Full,
}

/// Why a CANCEL is sent; its Reason header field says so. Source: RFC 3326.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CancelCause {
    /// The caller cancelled; holds the Reason value of the caller's CANCEL, empty when it had none.
    Caller(Bytes),
    /// Another branch answered 2xx.
    AnsweredElsewhere,
    /// Another branch refused for all with this 6xx.
    RefusedForAll(u16),
    /// Timer C fired.
    TimerC,
    /// Nobody answered in time, and the call goes elsewhere.
    NoAnswer,
}

/// What a CANCEL is made from and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) request: Arc<OwnedMessage>,
    pub(crate) next_hop: NextHop,
}

/// State of a branch; see the module.
#[derive(Debug)]
pub(crate) enum BranchState {
    /// A request that is no INVITE was sent; its transaction always ends by itself.
    Trying,
    /// INVITE sent, no response yet.
    Calling { sent: Sent, timer_c: Instant },
    /// As `Calling`, and a CANCEL waits for the first provisional response (9.1).
    CancelHeld { sent: Sent, timer_c: Instant, cause: CancelCause },
    /// INVITE sent, a provisional response arrived: pending in the words of 16.7 step 10.
    Proceeding { sent: Sent, timer_c: Instant },
    /// CANCEL sent; the final response is awaited until then (9.1).
    Cancelled { until: Instant, cause: CancelCause },
    /// A 2xx to an INVITE went upstream; more may come until then (RFC 6026).
    Accepted { until: Instant },
    /// A 3xx was offered to the driver, who answers before then.
    Redirected { response: Arc<OwnedMessage>, until: Instant },
    /// A final response or a failure was taken.
    Ended,
}

impl BranchState {
    /// When the state ends by itself.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Calling { timer_c, .. }
            | Self::CancelHeld { timer_c, .. }
            | Self::Proceeding { timer_c, .. } => Some(*timer_c),
            Self::Cancelled { until, .. } | Self::Accepted { until } | Self::Redirected { until, .. } => {
                Some(*until)
            }
            Self::Trying | Self::Ended => None,
        }
    }

    /// Whether a final response is still to come.
    pub(crate) fn is_active(&self) -> bool {
        match self {
            Self::Trying
            | Self::Calling { .. }
            | Self::CancelHeld { .. }
            | Self::Proceeding { .. }
            | Self::Cancelled { .. }
            | Self::Redirected { .. } => true,
            Self::Accepted { .. } | Self::Ended => false,
        }
    }

    /// Whether nothing more is to come.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }
}

/// A branch and what the choice of further targets needs to know of it.
#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) state: BranchState,
    /// Max-Breadth given to it; back in the context's hands when it ends (RFC 5393 section 5.3.3.1).
    pub(crate) breadth: u32,
    /// The device it tries, if the target named one.
    pub(crate) device: Option<u64>,
    /// Its Request-URI, so that a redirect does not lead to it again.
    pub(crate) request_uri: Bytes,
}
