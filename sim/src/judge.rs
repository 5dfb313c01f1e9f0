//! What must hold in every run, and how a run is judged.

use std::{collections::BTreeMap, time::Duration};

use model::Epoch;
use pairing::Authority;

use crate::{clock::Moment, network::Side};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Two pools could answer at one moment.
    TwoOwners {
        /// When.
        at: Moment,
        /// The epoch at the home pool.
        home: Epoch,
        /// The epoch at the partner.
        partner: Epoch,
    },
    /// A pool served in an epoch lower than one served before.
    EpochWentBack {
        /// When.
        at: Moment,
        /// The epoch served before.
        before: Epoch,
        /// The epoch served now.
        now: Epoch,
    },
    /// Both pools served in the same epoch, at different times.
    EpochShared {
        /// When.
        at: Moment,
        /// Which.
        epoch: Epoch,
    },
    /// In peace, nobody could answer for too long.
    NobodyServes {
        /// Since when.
        since: Moment,
        /// Until when.
        until: Moment,
    },
    /// In peace, with everybody up, the users were not returned to their home pool.
    NotReturned {
        /// When the run ended.
        at: Moment,
    },
    /// The machine refused an input of its own pair.
    InputRefused {
        /// When.
        at: Moment,
        /// Why.
        reason: String,
    },
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Takeovers that were tried.
    pub takeovers_begun: u64,
    /// Takeovers given up.
    pub takeovers_abandoned: u64,
    /// Returns that were tried.
    pub returns_begun: u64,
    /// Returns given up.
    pub returns_abandoned: u64,
    /// Changes of the pool that serves.
    pub owners_changed: u64,
    /// Time from the beginning of peace until somebody served, for good.
    pub settled_after: Duration,
    /// Steps of the run.
    pub steps: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) outcome: Outcome,
    violation: Option<Violation>,
    highest: Epoch,
    owners: BTreeMap<Epoch, Side>,
    last_owner: Option<Side>,
    /// Epochs may go back when the only pool that knew the highest lost its disk.
    pub(crate) is_memory_lost: bool,
    /// Somebody could answer without a gap up to here, as far as it was decided at the last step.
    covered_until: Moment,
    /// From here on gaps count.
    peace_from: Option<Moment>,
}

impl Judge {
    /// From now on somebody has to serve, within [`Limits`].
    pub(crate) fn begin_peace(&mut self, now: Moment) {
        self.peace_from = Some(now);
        self.covered_until = now;
    }

    pub(crate) fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// After every step: who could answer at this moment, and until when if nothing else happens.
    ///
    /// A pool only becomes able to answer in a step; so if two ever can, they can right after one.
    pub(crate) fn look(
        &mut self,
        now: Moment,
        home: Option<(Authority, Moment)>,
        partner: Option<(Authority, Moment)>,
        limits: Limits,
    ) {
        self.outcome.steps += 1;
        if let (Some((home, _)), Some((partner, _))) = (home, partner) {
            self.fail(Violation::TwoOwners { at: now, home: home.epoch, partner: partner.epoch });
        }
        for (side, answerable) in [(Side::Home, home), (Side::Partner, partner)] {
            if let Some((authority, _)) = answerable {
                self.serves(now, side, authority.epoch);
            }
        }
        let end = [home, partner].into_iter().flatten().map(|(_, end)| end).max();
        self.cover(now, end, limits);
    }

    fn serves(&mut self, now: Moment, side: Side, epoch: Epoch) {
        if epoch < self.highest && !self.is_memory_lost {
            self.fail(Violation::EpochWentBack { at: now, before: self.highest, now: epoch });
        }
        self.highest = self.highest.max(epoch);
        if *self.owners.entry(epoch).or_insert(side) != side {
            self.fail(Violation::EpochShared { at: now, epoch });
        }
        if self.last_owner.replace(side) != Some(side) {
            self.outcome.owners_changed += 1;
        }
    }

    fn cover(&mut self, now: Moment, end: Option<Moment>, limits: Limits) {
        let Some(peace_from) = self.peace_from else { return };
        let settled_from = peace_from.after(limits.settle);
        let gap_from = self.covered_until.max(settled_from);
        if gap_from < now && now.since(gap_from) > limits.change {
            self.fail(Violation::NobodyServes { since: self.covered_until, until: now });
        }
        match end {
            Some(end) => {
                if self.covered_until < now && now < settled_from {
                    self.outcome.settled_after = now.since(peace_from);
                }
                self.covered_until = end;
            }
            None => self.covered_until = self.covered_until.min(now),
        }
    }
}

/// How long nobody may serve, in peace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From its beginning on, gaps do not count for so long.
    pub(crate) settle: Duration,
    /// The longest gap after that.
    pub(crate) change: Duration,
}
