//! States of the ownership machine, each with what it knows.

use std::time::Duration;

use model::{Beat, Instant};

use crate::{Authority, PoolState, RecordVersion, RequestId, Service, StoredRecord, Tenure};

#[derive(Debug)]
pub(super) enum State {
    /// Authority is static, if there is any: nobody else can take over.
    Static { authority: Option<Authority>, tenure: Tenure, must_read: bool },
    /// Who the owner is, is not known.
    Learning,
    /// The other pool is the owner.
    Watching(Watch),
    /// The owner was silent; the witness was asked to make this pool the owner.
    TakingOver(Attempt),
    /// This pool is the owner.
    Owning(Tenancy),
    /// This pool is the owner, stopped serving and asked the witness to make the home pool the owner.
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

#[derive(Clone, Copy, Debug)]
struct Seen {
    version: RecordVersion,
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
        match self.seen {
            Some(seen) if began < seen.read_began => {} // overtaken by a later read
            Some(seen) if seen.version == version => {
                self.seen = Some(Seen { read_began: began, ..seen });
                self.read_at = Some(now);
            }
            Some(_) => {
                self.seen = Some(Seen { version, at: now, read_began: began });
                self.read_at = Some(now);
                self.beat_at = Some(now);
            }
            None => {
                self.seen = Some(Seen { version, at: now, read_began: began });
                self.read_at = Some(now);
            }
        }
    }

    /// The witness has to answer again before a takeover is tried.
    pub(super) const fn doubt(&mut self) {
        self.read_at = None;
    }

    pub(super) fn version(&self) -> Option<RecordVersion> {
        self.seen.map(|seen| seen.version)
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

    pub(super) fn is_beating_since(&self, oldest: Instant) -> bool {
        self.beat_at.is_some_and(|at| at >= oldest)
    }

    /// When the owner will have been silent for `silence` and the same beat seen for `wait`; `None` while no
    /// beat was seen.
    pub(super) fn silent_at(&self, silence: Duration, wait: Duration) -> Option<Instant> {
        let last_sign = [self.heard_at, self.beat_at].into_iter().flatten().fold(self.since, Instant::max);
        self.seen.map(|seen| (seen.at + wait).max(last_sign + silence))
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
        let (witness_until, partner_until, homecoming) = (None, None, None);
        Self { tenure, valid_from: now, stored, witness_until, partner_until, homecoming }
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

    pub(super) const fn service(&self) -> Service {
        match self.tenure.state {
            PoolState::Active | PoolState::FailedOver | PoolState::FailingBack => Service::Full,
            PoolState::TakenOver | PoolState::FailingOver => Service::Resiliency,
        }
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

/// A return under way.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) tenancy: Tenancy,
    pub(super) since: Instant,
}
