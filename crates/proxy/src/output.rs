//! What the machine asks the driver to do.

use std::sync::Arc;

use bytes::Bytes;
use model::{NextHop, ServerTransaction};
use sip::OwnedMessage;

use crate::DiversionCause;

/// A branch of a forwarded request; unique until the process ends, fits the tag of a client transaction.
///
/// The lowest 8 bits are the number of the branch, the next 20 the slot of the context, the rest tells the
/// users of a slot apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchKey(u64);

impl BranchKey {
    /// No branch at all: the tag for the transaction of a CANCEL, whose response nobody waits for.
    pub const NONE: Self = Self(u64::MAX);

    const BRANCH_BITS: u32 = 8;
    const SLOT_BITS: u32 = 20;
    /// Slots that can be told apart, from those of [`Self::NONE`] too.
    pub(crate) const SLOTS_MAX: usize = (1 << Self::SLOT_BITS) - 1;
    /// Branches of one context that can be told apart, from the context itself too.
    pub(crate) const BRANCHES_MAX: usize = (1 << Self::BRANCH_BITS) - 1;

    /// The tag for a transaction of the driver's own, which belongs to no forwarded request: number 0 to 2^36
    /// - 1. The machine never uses it.
    pub const fn of_driver(number: u64) -> Self {
        Self(number << (Self::SLOT_BITS + Self::BRANCH_BITS) | (Self::SLOTS_MAX as u64) << Self::BRANCH_BITS)
    }

    /// The number given to [`Self::of_driver`]; `None` for a branch of the machine and for [`Self::NONE`].
    pub const fn driver_number(self) -> Option<u64> {
        let number = self.0 >> (Self::SLOT_BITS + Self::BRANCH_BITS);
        if self.0 == Self::of_driver(number).0 { Some(number) } else { None }
    }

    /// The first branch of the context in `slot`.
    pub(crate) const fn first(generation: u64, slot: u32) -> Self {
        let slot = slot as u64 & ((1 << Self::SLOT_BITS) - 1);
        Self(generation << (Self::SLOT_BITS + Self::BRANCH_BITS) | slot << Self::BRANCH_BITS)
    }

    /// Another branch of the same context.
    pub(crate) const fn with_branch(self, branch: u8) -> Self {
        Self(self.0 & !0xff | branch as u64)
    }

    /// Number of the branch in its context.
    pub(crate) fn branch(self) -> usize {
        usize::try_from(self.0 & 0xff).unwrap_or(usize::MAX)
    }

    /// Slot of the context.
    pub(crate) fn slot(self) -> usize {
        usize::try_from(self.0 >> Self::BRANCH_BITS & ((1 << Self::SLOT_BITS) - 1)).unwrap_or(usize::MAX)
    }
}

impl From<u64> for BranchKey {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<BranchKey> for u64 {
    fn from(key: BranchKey) -> Self {
        key.0
    }
}

/// Work for the driver, executed in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Start a client transaction, tagged with `branch`. Failures come back by
    /// [`crate::Proxy::branch_failed`].
    Forward {
        /// The branch.
        branch: BranchKey,
        /// Ready to send, our Via on top.
        request: Arc<OwnedMessage>,
        /// Where to.
        next_hop: NextHop,
    },
    /// Pass a response to the server transaction.
    Respond {
        /// The server transaction.
        server: ServerTransaction,
        /// Its status.
        status: u16,
        /// The whole response.
        response: Bytes,
    },
    /// Answer the request with a final response: every branch ended in a failure to send, none in a response.
    ///
    /// RFC 3261 sections 16.9 and 16.7 step 6 take this for a 503 and suggest a 500 upstream. A 503 would be
    /// wrong: it says that no request at all can be served (21.5.4). Whether the request names a user of ours
    /// who is not reached now, which is a 480 (21.4.18), only the driver knows.
    Unreachable {
        /// The server transaction.
        server: ServerTransaction,
        /// The request as received.
        request: Arc<OwnedMessage>,
        /// Whether every failure was [`crate::BranchFailure::Unreachable`]: nothing has left, so that another
        /// way may be tried without anybody getting the request twice.
        is_unsent: bool,
    },
    /// Start a client transaction for a CANCEL, tagged with [`BranchKey::NONE`], to the very peer the request
    /// of the branch went to.
    Cancel {
        /// The branch that is cancelled.
        branch: BranchKey,
        /// The CANCEL, same Via branch parameter as the request.
        request: Arc<OwnedMessage>,
        /// Where the request of the branch was sent to.
        next_hop: NextHop,
    },
    /// Destroy the client transaction of the branch: it waits for a final response that will not come (9.1,
    /// 16.8).
    Terminate {
        /// The branch.
        branch: BranchKey,
    },
    /// A 3xx came and [`crate::Settings::recurse`] is on: answer with [`crate::Proxy::redirect`].
    Redirected {
        /// The branch that was redirected.
        branch: BranchKey,
        /// The 3xx.
        response: Arc<OwnedMessage>,
    },
    /// The targets did not take the call; it goes to where [`crate::Diversions`] says. Comes before the
    /// [`Self::Forward`] of it, at most once for a request.
    Diverted {
        /// The server transaction.
        server: ServerTransaction,
        /// Why.
        cause: DiversionCause,
    },
    /// The context is gone; no more is said about this server transaction. When no final response was sent
    /// before, none will be (RFC 4320).
    Finished {
        /// The server transaction.
        server: ServerTransaction,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_key_gives_back_its_parts() {
        let key = BranchKey::first(77, 99_999).with_branch(63);

        assert_eq!((key.slot(), key.branch()), (99_999, 63));
        assert_eq!(BranchKey::from(u64::from(key)), key);
        assert_ne!(BranchKey::first(78, 99_999).with_branch(63), key);
    }
}
