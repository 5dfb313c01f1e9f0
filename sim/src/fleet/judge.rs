//! What must hold in a fleet, beside the single owner.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::Epoch;
use pairing::{OrderId, OwnershipRecord, PoolState};

use super::pool::{POOLS, Place};
use crate::clock::Moment;

/// A broken promise of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breach {
    /// Two pools could answer a home pool's users at one moment.
    TwoOwners {
        /// When.
        at: Moment,
        /// Which home pool.
        home: usize,
    },
    /// A pool served in an epoch lower than one served before.
    EpochWentBack {
        /// When.
        at: Moment,
        /// Which home pool.
        home: usize,
    },
    /// The record says what no operation leads to.
    ThirdState {
        /// When.
        at: Moment,
        /// Which home pool.
        home: usize,
        /// The record.
        record: Box<OwnershipRecord>,
    },
    /// An order was begun twice.
    BegunTwice {
        /// When.
        at: Moment,
        /// Which.
        order: OrderId,
    },
    /// An order or a cancel got no answer.
    NoAnswer {
        /// When it was given.
        given: Moment,
        /// Which home pool.
        home: usize,
    },
    /// A drained handover left an acknowledged change or registration behind.
    LeftBehind {
        /// When.
        at: Moment,
        /// Which home pool.
        home: usize,
        /// Which change.
        operation: u64,
    },
    /// An acknowledged change is neither in the owner's journal nor in its conflict log at the end.
    Lost {
        /// Which home pool.
        home: usize,
        /// Which change.
        operation: u64,
    },
    /// A call record of a branch arrived twice or never.
    RecordNotOnce {
        /// Which branch.
        branch: usize,
        /// Which record.
        operation: u64,
        /// How often it arrived.
        times: usize,
    },
    /// The partner, as owner, treated a branch's users otherwise than the branch's rule says.
    BranchRuleBroken {
        /// When.
        at: Moment,
        /// Which branch.
        branch: usize,
    },
    /// In peace, documents could not be changed for too long.
    ReadOnly {
        /// Which home pool.
        home: usize,
        /// Since when.
        since: Moment,
        /// Until when.
        until: Moment,
    },
    /// In peace, an operation did not end.
    NotEnded {
        /// Which home pool.
        home: usize,
        /// When the run ended.
        at: Moment,
    },
    /// In peace, the users were not brought home, or the partner's copy is not complete.
    NotHome {
        /// Which home pool.
        home: usize,
        /// When the run ended.
        at: Moment,
    },
    /// A machine refused an input of its own pair.
    InputRefused {
        /// When.
        at: Moment,
        /// Why.
        reason: String,
    },
}

/// What happened in a fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Steps of the run.
    pub steps: u64,
    /// Orders and cancels given.
    pub orders: u64,
    /// Operations begun.
    pub begun: u64,
    /// Operations completed.
    pub completed: u64,
    /// Operations undone.
    pub undone: u64,
    /// Drained handovers that changed the owner.
    pub drained: u64,
    /// Drained handovers given up.
    pub abandoned: u64,
    /// Takeovers that changed the owner.
    pub takeovers: u64,
    /// Changes acknowledged.
    pub acknowledged: u64,
    /// Orphans that were offered.
    pub orphans: u64,
    /// Of those, kept as conflicts.
    pub conflicts: u64,
    /// Acknowledged changes whose only disks were lost.
    pub lost_with_disk: u64,
    /// The longest time without a writable document, in peace.
    pub read_only_max: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) tally: Tally,
    pub(crate) breach: Option<Breach>,
    highest: [Epoch; POOLS],
    /// Acknowledged changes that have to be somewhere.
    pub(crate) acknowledged: [BTreeSet<u64>; POOLS],
    /// Newest acknowledged registration of each device.
    pub(crate) registered: [BTreeMap<u8, u64>; POOLS],
    begun: BTreeSet<OrderId>,
    /// The owner changed by a drained handover: the old one acknowledges nothing any more.
    pub(crate) handed_over: [Option<Place>; POOLS],
    writable_at: [Option<Moment>; POOLS],
    begun_anew: [bool; POOLS],
}

impl Judge {
    pub(crate) fn fail(&mut self, breach: Breach) {
        self.breach.get_or_insert(breach);
    }

    /// Both disks of a home pool were lost: its journal has nothing in common with the one before, though it
    /// may go on in the same epoch, so that a page that was under way can be mistaken for one of it.
    pub(crate) fn begin_anew(&mut self, home: Place) {
        if let Some(begun) = self.begun_anew.get_mut(home) {
            *begun = true;
        }
    }

    pub(crate) fn has_begun_anew(&self, home: Place) -> bool {
        self.begun_anew.get(home).copied().unwrap_or(false)
    }

    /// After every step, for each home pool: the epochs in which its two pools could answer.
    pub(crate) fn served(
        &mut self,
        at: Moment,
        home: Place,
        epochs: [Option<Epoch>; 2],
        is_memory_lost: bool,
    ) {
        if epochs.iter().all(Option::is_some) {
            self.fail(Breach::TwoOwners { at, home });
        }
        let Some(epoch) = epochs.into_iter().flatten().max() else { return };
        let Some(highest) = self.highest.get_mut(home) else { return };
        let went_back = epoch < *highest && !is_memory_lost;
        *highest = epoch.max(*highest);
        if went_back {
            self.fail(Breach::EpochWentBack { at, home });
        }
    }

    /// The witness stored a record in place of another.
    pub(crate) fn stored(
        &mut self,
        at: Moment,
        home: Place,
        before: Option<&OwnershipRecord>,
        after: &OwnershipRecord,
        is_owner_home: bool,
    ) {
        let is_possible = match after.state {
            PoolState::Active | PoolState::FailingOver => is_owner_home,
            PoolState::TakenOver | PoolState::FailedOver | PoolState::FailingBack => !is_owner_home,
        };
        let follows = before.is_none_or(|before| {
            let is_same = before.owner == after.owner && before.epoch == after.epoch;
            is_same || (before.owner != after.owner && before.epoch.next() == after.epoch)
        });
        if !is_possible || !follows {
            self.fail(Breach::ThirdState { at, home, record: Box::new(after.clone()) });
        }
        let Some(before) = before else { return };
        let is_moving = |record: &OwnershipRecord| record.state.is_moving();
        if is_moving(after) && !is_moving(before) {
            self.tally.begun += 1;
            if let Some(order) = &after.order
                && !self.begun.insert(order.id)
            {
                self.fail(Breach::BegunTwice { at, order: order.id });
            }
        }
        if is_moving(before) && !is_moving(after) {
            if after.undone.is_some() {
                self.tally.undone += 1;
            } else {
                self.tally.completed += 1;
            }
        }
    }

    /// In peace: whether documents can be changed at this moment.
    pub(crate) fn writable(&mut self, at: Moment, home: Place, is_writable: bool, longest: Duration) {
        let Some(last) = self.writable_at.get_mut(home) else { return };
        let since = *last.get_or_insert(at);
        if is_writable {
            *last = Some(at);
        }
        let gap = at.since(since);
        if is_writable {
            self.tally.read_only_max = self.tally.read_only_max.max(gap);
        }
        if gap > longest {
            self.fail(Breach::ReadOnly { home, since, until: at });
        }
    }

    /// Nothing was expected to be writable up to here.
    pub(crate) fn excuse_read_only(&mut self, at: Moment, home: Place) {
        if let Some(last) = self.writable_at.get_mut(home) {
            *last = Some(at);
        }
    }
}
