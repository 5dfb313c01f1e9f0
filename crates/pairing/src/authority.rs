//! What a pool may do for a home pool's users now, and for how long.

use std::time::Duration;

use model::{Epoch, Instant};

use crate::Tenure;

/// What the owner gives the users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Everything.
    Full,
    /// Registration and calls, without user services.
    Resiliency,
}

/// The right to serve a home pool's users.
///
/// Test [`Self::holds_at`] with a fresh clock where the answer is sent, never in a background loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The epoch that every write is stamped with.
    pub epoch: Epoch,
    /// May serve strictly before this instant.
    pub until: Instant,
    /// What the users get.
    pub service: Service,
}

impl Authority {
    /// Whether an answer may leave at `now`.
    pub fn holds_at(&self, now: Instant) -> bool {
        now < self.until
    }
}

/// How well this pool hears the owner, when the owner is the other pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// It asked us for a promise a moment ago: the link between the pools works.
    Heard,
    /// It beats at the witness, but does not reach us.
    Beating,
    /// Neither.
    Silent {
        /// Time until this pool takes over; `None` when it does not do that by itself or cannot now.
        takeover_in: Option<Duration>,
    },
}

/// What a pool knows about the ownership of a home pool at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This pool may serve.
    Serving(Authority),
    /// This pool is the owner, but may not serve now: cut off, unable, or just becoming or ceasing to be it.
    Paused(Tenure),
    /// The other pool is the owner.
    Elsewhere {
        /// The owner and its epoch.
        tenure: Tenure,
        /// How well this pool hears it.
        contact: Contact,
    },
    /// This pool does not know yet who the owner is.
    Unknown,
}
