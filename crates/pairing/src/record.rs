//! The ownership record that the witness keeps, one per home pool.

use model::{Beat, Epoch, PoolName};
use serde::{Deserialize, Serialize};

use crate::{Order, UndoReason};

/// How the owner came to serve the home pool's users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolState {
    /// The home pool serves its own users.
    Active,
    /// The partner took the registrations over by itself: resiliency mode. It returns them by itself.
    TakenOver,
    /// A failover or switchover by command is under way; the home pool still serves everything.
    FailingOver,
    /// The partner serves everything, by command. It returns nothing before the command to fail back.
    FailedOver,
    /// A failback by command is under way; the partner still serves everything.
    FailingBack,
}

/// Who owns a home pool, in which epoch, and how that came about. One epoch has one owner, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tenure {
    /// The pool that owns the home pool's users: the home pool itself or its partner.
    pub owner: PoolName,
    /// The epoch of this owner.
    pub epoch: Epoch,
    /// How the owner came to serve.
    pub state: PoolState,
    /// The last order that was begun, also after it was completed or undone; `None` after a takeover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// Why `order` was undone; `None` while it is under way and when it was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone: Option<UndoReason>,
}

impl PoolState {
    /// Whether an operation is under way.
    pub const fn is_moving(self) -> bool {
        match self {
            Self::FailingOver | Self::FailingBack => true,
            Self::Active | Self::TakenOver | Self::FailedOver => false,
        }
    }
}

impl Tenure {
    /// A tenure that no order led to.
    pub const fn new(owner: PoolName, epoch: Epoch, state: PoolState) -> Self {
        Self { owner, epoch, state, order: None, undone: None }
    }
}

/// What the control store keeps under the home pool's ownership key.
///
/// Encoded as JSON. Every change is a compare-and-set on the version of the stored value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnershipRecord {
    /// The pool that owns the home pool's users.
    pub owner: PoolName,
    /// The epoch of this owner; grows by one with each change of owner.
    pub epoch: Epoch,
    /// The owner's sign of life; grows by one with each renewal, starts at 0 in each epoch.
    pub beat: Beat,
    /// How the owner came to serve.
    pub state: PoolState,
    /// The last order that was begun, also after it was completed or undone; `None` after a takeover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// Why `order` was undone; `None` while it is under way and when it was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone: Option<UndoReason>,
}

impl OwnershipRecord {
    /// The record with which `tenure` begins.
    pub fn first_of(tenure: Tenure) -> Self {
        let Tenure { owner, epoch, state, order, undone } = tenure;
        Self { owner, epoch, beat: Beat::ZERO, state, order, undone }
    }

    /// The record without its beat.
    pub fn tenure(&self) -> Tenure {
        let Self { owner, epoch, beat: _, state, order, undone } = self.clone();
        Tenure { owner, epoch, state, order, undone }
    }
}

/// Version of a stored value, as the control store counts it; never 0, which stands for "absent" there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordVersion(pub u64);

/// A record as the witness returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Version to name in a compare-and-set.
    pub version: RecordVersion,
    /// The record.
    pub record: OwnershipRecord,
}
