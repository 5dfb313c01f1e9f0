//! How one copy of a home pool's user data is getting on, at the reader.
//!
//! ```text
//!   Initialising ──end reached──► Steady
//!        ▲                         │  ▲
//!        │ copy begun anew         │  │ end reached
//!        │                         ▼  │
//!        └───────────────────── Behind      any ──refused, disk full──► Error ──page applied──► Behind
//! ```
//!
//! That a copy is final only its source knows, which heard the reader confirm its last change after it had
//! stopped.

use std::time::Duration;

use model::Instant;
use serde::{Deserialize, Serialize};

/// How old the last answer of the source may be before a copy that had everything counts as behind: the time
/// a question may wait for news, and the time for an answer.
pub const QUIET_MAX: Duration = Duration::from_secs(30);

/// The state of one copy. Source: Lync's backup service, whose operators know these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyState {
    /// The first whole copy, or a new one after a gap, is under way.
    Initialising,
    /// The source has changes that are not here, or does not answer.
    Behind,
    /// Everything the source had when it last answered is here.
    Steady,
    /// The source stopped and its reader has everything, as the source says: the end of a handover.
    Final,
    /// Pages are refused or cannot be written; see the reason.
    Error,
}

/// Pages that were taken and refused since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageCounts {
    /// Taken.
    pub applied: u64,
    /// Their checksum or their contents were wrong; asked for again.
    pub damaged: u64,
    /// From a source that was replaced as owner.
    pub stale: u64,
    /// They began beyond what is here, or were out of order; asked for again from where this copy is.
    pub gaps: u64,
    /// They have other changes under numbers held here: orphans.
    pub diverged: u64,
    /// They could not be written.
    pub unwritten: u64,
}

/// Why a page was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// [`PageCounts::damaged`].
    Damaged,
    /// [`PageCounts::stale`].
    Stale,
    /// [`PageCounts::gaps`].
    Gap,
    /// [`PageCounts::diverged`].
    Diverged,
    /// [`PageCounts::unwritten`].
    Unwritten,
}

/// One copy.
#[derive(Clone, Debug)]
pub struct Progress {
    state: CopyState,
    counts: PageCounts,
    reason: Option<String>,
    heard_at: Option<Instant>,
}

impl Progress {
    /// A copy that begins: `is_begun` when something is held from before.
    pub fn new(is_begun: bool) -> Self {
        let state = if is_begun { CopyState::Behind } else { CopyState::Initialising };
        Self { state, counts: PageCounts::default(), reason: None, heard_at: None }
    }

    /// The source answered and what it sent, if anything, is durable here.
    pub fn applied(&mut self, now: Instant, has_entries: bool, is_end: bool) {
        self.heard_at = Some(now);
        self.reason = None;
        if has_entries {
            self.counts.applied += 1;
        }
        self.state = match (self.state, is_end) {
            (_, true) => CopyState::Steady,
            (CopyState::Initialising, false) => CopyState::Initialising,
            (CopyState::Behind | CopyState::Steady | CopyState::Final | CopyState::Error, false) => {
                CopyState::Behind
            }
        };
    }

    /// A page was refused.
    pub fn refused(&mut self, now: Instant, why: Refusal, reason: String) {
        self.heard_at = Some(now);
        let count = match why {
            Refusal::Damaged => &mut self.counts.damaged,
            Refusal::Stale => &mut self.counts.stale,
            Refusal::Gap => &mut self.counts.gaps,
            Refusal::Diverged => &mut self.counts.diverged,
            Refusal::Unwritten => &mut self.counts.unwritten,
        };
        *count += 1;
        self.reason = Some(reason);
        self.state = CopyState::Error;
    }

    /// The source did not answer. A copy that is complete stays so until [`QUIET_MAX`] is over.
    pub fn unheard(&mut self, reason: String) {
        self.reason = Some(reason);
    }

    /// The copy is begun anew.
    pub fn restarted(&mut self) {
        self.state = CopyState::Initialising;
    }

    /// The state at `now`.
    pub fn state(&self, now: Instant) -> CopyState {
        let is_quiet = self.heard_at.is_none_or(|at| now.saturating_since(at) > QUIET_MAX);
        match self.state {
            CopyState::Steady if is_quiet => CopyState::Behind,
            state @ (CopyState::Initialising
            | CopyState::Behind
            | CopyState::Steady
            | CopyState::Final
            | CopyState::Error) => state,
        }
    }

    /// Pages so far.
    pub const fn counts(&self) -> PageCounts {
        self.counts
    }

    /// Why the last attempt failed, if it did.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// For how long the source has not answered; `None` = never since the start.
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        self.heard_at.map(|at| now.saturating_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_copy_is_initialising_until_it_once_had_everything() {
        let mut progress = Progress::new(false);

        progress.applied(at(1), true, false);
        assert_eq!(progress.state(at(1)), CopyState::Initialising);
        progress.applied(at(2), true, true);
        assert_eq!(progress.state(at(2)), CopyState::Steady);
        progress.applied(at(3), true, false);
        assert_eq!(progress.state(at(3)), CopyState::Behind);
        assert_eq!(progress.counts().applied, 3);
    }

    #[test]
    fn a_steady_copy_whose_source_is_quiet_for_too_long_is_behind() {
        let mut progress = Progress::new(true);
        progress.applied(at(0), false, true);

        assert_eq!(progress.state(at(29)), CopyState::Steady);
        progress.unheard("no route".to_owned());
        assert_eq!(progress.state(at(31)), CopyState::Behind);
        assert_eq!(progress.reason(), Some("no route"));
    }

    #[test]
    fn a_refused_page_is_an_error_until_a_page_is_taken() {
        let mut progress = Progress::new(true);

        progress.refused(at(1), Refusal::Unwritten, "disk full".to_owned());
        assert_eq!(progress.state(at(1)), CopyState::Error);
        assert_eq!(progress.counts().unwritten, 1);
        progress.applied(at(2), true, false);
        assert_eq!(progress.state(at(2)), CopyState::Behind);
        assert_eq!(progress.reason(), None);
    }
}
