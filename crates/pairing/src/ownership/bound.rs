//! Until when this pool is bound by promises it gave the other.

use std::time::Duration;

use model::Instant;

/// A promise given at an instant forbids serving under any higher epoch for [`crate::Settings::wait`] after
/// it.
///
/// A process that just started may have given one an instant before: it is bound from its start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// When the last promise was given; `None`: before this process started, if ever.
    given_at: Option<Instant>,
    /// From when on this pool may serve again.
    until: Instant,
}

impl Bound {
    pub(super) fn by_earlier_process(started: Instant, wait: Duration) -> Self {
        Self { given_at: None, until: started + wait }
    }

    pub(super) const fn by_nothing() -> Self {
        Self { given_at: None, until: Instant::START }
    }

    pub(super) fn give(&mut self, now: Instant, wait: Duration) {
        self.given_at = Some(now);
        self.until = self.until.max(now + wait);
    }

    /// The other pool answered a request of `began` that it serves under no lower epoch any more: promises
    /// given before that request are void.
    pub(super) fn release(&mut self, now: Instant, began: Instant, margin: Duration) {
        if self.given_at.is_none_or(|given_at| given_at < began) {
            self.until = self.until.min(now + margin);
        }
    }

    pub(super) const fn until(&self) -> Instant {
        self.until
    }
}
