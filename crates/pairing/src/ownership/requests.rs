//! Requests whose answers are still awaited, each with the instant at which it began.

use std::collections::VecDeque;

use model::{Epoch, Instant};

use crate::{OwnershipRecord, RequestId};

/// Requests remembered at once. More: the oldest is forgotten and its answer ignored.
const PENDING_MAX: usize = 32;

/// What was asked.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Read,
    CompareAndSet(OwnershipRecord),
    Promise(Epoch),
    Word, // observe and return: only what the other pool knows matters
}

#[derive(Clone, Debug)]
pub(super) struct Pending {
    id: RequestId,
    pub(super) began: Instant,
    pub(super) kind: Kind,
}

#[derive(Debug, Default)]
pub(super) struct Requests {
    last: u64,
    pending: VecDeque<Pending>,
}

impl Requests {
    pub(super) fn begin(&mut self, now: Instant, kind: Kind) -> RequestId {
        self.last = self.last.wrapping_add(1);
        let id = RequestId(self.last);
        if self.pending.len() == PENDING_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back(Pending { id, began: now, kind });
        id
    }

    /// The request that was answered; `None` when it was answered before or is forgotten.
    pub(super) fn take(&mut self, id: RequestId) -> Option<Pending> {
        let at = self.pending.iter().position(|pending| pending.id == id)?;
        self.pending.remove(at)
    }
}
