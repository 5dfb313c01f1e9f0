//! States of the ownership machine, each with what it knows.

use std::time::Duration;

use model::{Beat, Instant};

use super::word::Word;
use crate::{
    HandoverId, Planted, PoolState, RecordVersion, RequestId, Service, Settings, StoredRecord, Tenure,
};

#[derive(Debug)]
pub(super) enum State {
    /// A pair without witness: the owner's word is the record.
    Word(Word),
    /// Who the owner is, is not known.
    Learning,
    /// The other pool is the owner.
    Watching(Watch),
    /// The owner was silent; the witness was asked to make this pool the owner.
    TakingOver(Attempt),
    /// This pool is the owner.
    Owning(Tenancy),
    /// This pool is the owner, stopped serving and makes the other pool the owner.
    Leaving(Departure),
}

/// What a pool sees of an owner that is the other pool.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) tenure: Tenure,
    /// When this watch began: never take over earlier than a whole silence after it.
    since: Instant,
    seen: Option<Seen>,
    /// When the witness answered last; without a fresh answer there is no point in taking over.
    read_at: Option<Instant>,
    heard_at: Option<Instant>,
    beat_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Seen {
    version: RecordVersion,
    /// What the record of that version says; only this decides what a takeover leads to.
    tenure: Tenure,
    at: Instant,
    read_began: Instant,
}

impl Watch {
    pub(super) const fn new(now: Instant, tenure: Tenure) -> Self {
        Self { tenure, since: now, seen: None, read_at: None, heard_at: None, beat_at: None }
    }

    /// The owner asked for a promise.
    pub(super) const fn heard(&mut self, now: Instant) {
        self.heard_at = Some(now);
    }

    /// The witness returned this record of the same epoch, to a request of `began`.
    pub(super) fn witnessed(&mut self, now: Instant, began: Instant, stored: &StoredRecord) {
        let version = stored.version;
        match &mut self.seen {
            Some(seen) if began < seen.read_began => return, // overtaken by a later read
            Some(seen) if seen.version == version => {
                seen.read_began = began;
                self.read_at = Some(now);
            }
            seen => {
                self.beat_at = seen.is_some().then_some(now).or(self.beat_at);
                let tenure = stored.record.tenure();
                *seen = Some(Seen { version, tenure, at: now, read_began: began });
                self.read_at = Some(now);
            }
        }
        self.tenure = stored.record.tenure();
    }

    /// The witness has to answer again before a takeover is tried.
    pub(super) const fn doubt(&mut self) {
        self.read_at = None;
    }

    pub(super) fn version(&self) -> Option<RecordVersion> {
        self.seen.as_ref().map(|seen| seen.version)
    }

    /// The tenure in the version that a takeover replaces.
    pub(super) fn seen_tenure(&self) -> &Tenure {
        self.seen.as_ref().map_or(&self.tenure, |seen| &seen.tenure)
    }

    pub(super) fn is_read_since(&self, oldest: Instant) -> bool {
        self.read_at.is_some_and(|at| at >= oldest)
    }

    pub(super) fn is_younger_than(&self, oldest: Instant) -> bool {
        self.since >= oldest
    }

    pub(super) fn is_heard_since(&self, oldest: Instant) -> bool {
        self.heard_at.is_some_and(|at| at >= oldest)
    }

    /// Whether the owner beats at the witness although it is not heard: a beat that was seen so soon after
    /// the owner was heard last may be from before it died.
    pub(super) fn is_beating_since(&self, oldest: Instant, quiet: Duration) -> bool {
        let proves = |at: Instant| self.heard_at.is_none_or(|heard| at >= heard + quiet);
        self.beat_at.is_some_and(|at| at >= oldest && proves(at))
    }

    /// When the owner will have been silent for `silence` and the same beat seen for `wait`; `None` while no
    /// beat was seen.
    pub(super) fn silent_at(&self, silence: Duration, wait: Duration) -> Option<Instant> {
        let last_sign = [self.heard_at, self.beat_at].into_iter().flatten().fold(self.since, Instant::max);
        self.seen.as_ref().map(|seen| (seen.at + wait).max(last_sign + silence))
    }
}

/// A takeover under way.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) watch: Watch,
    pub(super) request: RequestId,
    pub(super) began: Instant,
}

/// What an owner has in hand.
#[derive(Debug)]
pub(super) struct Tenancy {
    pub(super) tenure: Tenure,
    /// Answers to requests that began before this do not count as promises.
    pub(super) valid_from: Instant,
    pub(super) stored: Option<Stored>,
    pub(super) witness_until: Option<Instant>,
    pub(super) partner_until: Option<Instant>,
    pub(super) homecoming: Option<Homecoming>,
    pub(super) progress: Progress,
    /// A change that would make the other pool the owner may still be on its way to the witness: a document
    /// written now could be missing there. A later change of this pool that succeeds ends the doubt.
    pub(super) is_doubtful: bool,
}

/// How far a drained handover could get.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// The other pool holds nearly everything.
    pub(super) is_close: bool,
    /// When the operation that is under way began, as far as this process knows.
    pub(super) began: Instant,
    /// Handovers that failed since then.
    pub(super) failures: u32,
    retry_at: Instant,
}

impl Progress {
    pub(super) const fn new(now: Instant) -> Self {
        Self { is_close: false, began: now, failures: 0, retry_at: now }
    }

    /// Another operation begins; how close the other pool is, is the same.
    pub(super) const fn restart(&mut self, now: Instant) {
        *self = Self { is_close: self.is_close, ..Self::new(now) };
    }

    /// The next attempt needs a new report and, each time, twice the pause: users are not served meanwhile.
    pub(super) fn failed(&mut self, now: Instant, pause: Duration) {
        self.retry_at = now + pause.saturating_mul(1 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        self.is_close = false;
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_close && now >= self.retry_at
    }

    /// When this may change by time alone, while an operation is under way.
    pub(super) fn deadlines(&self, settings: &Settings) -> [Option<Instant>; 2] {
        [self.is_close.then_some(self.retry_at), Some(self.began + settings.operation_max)]
    }
}

/// The record that a compare-and-set of the owner replaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) version: RecordVersion,
    pub(super) beat: Beat,
    /// When the request began whose answer told this.
    pub(super) began: Instant,
}

/// The home pool asks for the return of its users.
#[derive(Clone, Copy, Debug)]
pub(super) struct Homecoming {
    pub(super) since: Instant,
    pub(super) last: Instant,
}

impl Tenancy {
    pub(super) const fn new(now: Instant, tenure: Tenure, stored: Option<Stored>) -> Self {
        Self {
            is_doubtful: tenure.state.is_moving(),
            tenure,
            valid_from: now,
            stored,
            witness_until: None,
            partner_until: None,
            homecoming: None,
            progress: Progress::new(now),
        }
    }

    /// Until when the promises in hand last.
    pub(super) fn lease_until(&self) -> Option<Instant> {
        self.witness_until.max(self.partner_until)
    }

    /// Whether both promises are in hand.
    pub(super) fn is_well_held(&self, now: Instant) -> bool {
        self.witness_until.is_some_and(|until| now < until)
            && self.partner_until.is_some_and(|until| now < until)
    }

    pub(super) fn service(&self, planted: Planted) -> Service {
        let is_doubtful = self.is_doubtful && planted != Planted::WritesInDoubt;
        match self.tenure.state {
            PoolState::TakenOver => Service::Resiliency,
            PoolState::Active | PoolState::FailingOver | PoolState::FailedOver | PoolState::FailingBack
                if is_doubtful =>
            {
                Service::Resiliency
            }
            PoolState::Active | PoolState::FailingOver | PoolState::FailedOver | PoolState::FailingBack => {
                Service::Full
            }
        }
    }

    /// Leases in hand do not count any more.
    pub(super) const fn void_leases(&mut self) {
        (self.witness_until, self.partner_until) = (None, None);
    }

    pub(super) fn has_witness(&self, now: Instant) -> bool {
        self.stored.is_some() && self.witness_until.is_some_and(|until| now < until)
    }

    pub(super) fn has_partner(&self, now: Instant) -> bool {
        self.partner_until.is_some_and(|until| now < until)
    }

    /// Notes that the home pool asks for its users; returns for how long it has asked without a pause.
    pub(super) fn ask_to_return(&mut self, now: Instant, pause_max: Duration) -> Duration {
        let since = match self.homecoming {
            Some(homecoming) if now.saturating_since(homecoming.last) <= pause_max => homecoming.since,
            Some(_) | None => now,
        };
        self.homecoming = Some(Homecoming { since, last: now });
        now.saturating_since(since)
    }
}

/// A handover under way; this pool does not serve.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) tenancy: Tenancy,
    /// When this pool stopped.
    pub(super) since: Instant,
    /// The drained handover that it is; `None` when the other pool was not asked to confirm anything.
    pub(super) handover: Option<HandoverId>,
    pub(super) phase: Phase,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// The other pool is asked to confirm that it holds everything. Leases in hand stay good.
    Draining,
    /// The witness is asked to make the other pool the owner.
    Swapping { began: Instant },
}

impl Departure {
    /// Whether the record still says that the users shall leave.
    pub(super) const fn is_wanted(&self) -> bool {
        match self.tenancy.tenure.state {
            PoolState::TakenOver | PoolState::FailingOver | PoolState::FailingBack => true,
            PoolState::Active | PoolState::FailedOver => false,
        }
    }

    /// When it is given up, or goes on without a confirmation.
    pub(super) fn deadline(&self, settings: &Settings) -> Instant {
        match self.phase {
            Phase::Draining => self.since + settings.drain_max(),
            Phase::Swapping { .. } if self.tenancy.tenure.state.is_moving() => {
                self.since + settings.handover_stop_max
            }
            Phase::Swapping { began } => began + settings.patience(),
        }
    }
}
