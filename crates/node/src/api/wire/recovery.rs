//! Copies between pools, and operations on pools, as the command line sees them. Fields are only ever added.

use model::{AddressOfRecord, Epoch, PoolName, ServerName, WallTime};
use pairing::{Order, OrderBlocker, OrderId, OrderResult, PoolState, UndoReason};
use serde::{Deserialize, Serialize};

use crate::backup_service::{CopyState, PageCounts};

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Copied {
    /// Accounts and documents, by the journal.
    Documents,
    /// Bindings, by the binding stream.
    Bindings,
}

/// One copy of a home pool's data, as its reader or as its source sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CopyStatus {
    /// Whose data.
    pub home: PoolName,
    /// Which.
    pub what: Copied,
    /// The server it is copied from; `None` while nobody is known to have it.
    pub from: Option<ServerName>,
    /// The server it is copied to.
    pub to: ServerName,
    /// The state, where the reader says so.
    pub state: Option<CopyState>,
    /// Changes, or users with changed bindings, that the reader has not confirmed yet: what would be lost
    /// now. `None`: unknown here.
    pub lag_entries: Option<u64>,
    /// Age of the oldest of them in milliseconds.
    pub lag_ms: Option<u64>,
    /// Milliseconds since the other side was last heard; `None` = not since the start.
    pub silent_ms: Option<u64>,
    /// Pages taken and refused, where the reader says so.
    pub pages: Option<PageCounts>,
    /// What is wrong, in words.
    pub reason: Option<String>,
}

/// Body of `POST /v1/orders`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderBody {
    /// The home pool it is about.
    pub home: PoolName,
    /// What is ordered.
    pub order: Order,
}

/// Body of `POST /v1/orders/cancel`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelBody {
    /// The home pool it is about.
    pub home: PoolName,
    /// The order whose operation is to be undone.
    pub order: OrderId,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum OrderAnswer {
    /// It is in the ownership record.
    Accepted {
        /// The state it led to.
        state: PoolState,
    },
    /// It was accepted before.
    Repeated {
        /// The state now.
        state: PoolState,
        /// Why it was undone, if it was.
        undone: Option<UndoReason>,
    },
    /// It was not begun.
    Refused {
        /// Every reason, in words.
        blockers: Vec<String>,
        /// The pool to ask instead, where that is one of the reasons.
        owner: Option<PoolName>,
    },
    /// The control store did not answer in time; give the same order again.
    Unsure,
}

impl From<OrderResult> for OrderAnswer {
    fn from(result: OrderResult) -> Self {
        match result {
            OrderResult::Accepted { state } => Self::Accepted { state },
            OrderResult::Repeated { state, undone } => Self::Repeated { state, undone },
            OrderResult::Refused { blockers } => {
                let owner = blockers.iter().find_map(|blocker| {
                    let OrderBlocker::NotTheOwner { owner } = blocker else { return None };
                    Some(owner.clone())
                });
                Self::Refused { blockers: blockers.iter().map(ToString::to_string).collect(), owner }
            }
            OrderResult::Unsure => Self::Unsure,
        }
    }
}

/// An orphan that contradicts what was changed meanwhile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConflictRecord {
    /// Its name: 32 hexadecimal digits.
    pub id: String,
    /// In whose journal it is.
    pub journal: PoolName,
    /// Whose data.
    pub aor: AddressOfRecord,
    /// `account`, or the kind of document.
    pub about: String,
    /// When the orphan was made, by the clock of who made it.
    pub made_at: WallTime,
    /// Under which epoch.
    pub made_in: Epoch,
    /// When the conflict was found.
    pub found_at: WallTime,
    /// What the orphan wrote; never what proves a password.
    pub orphan: serde_json::Value,
    /// What there is now; only where one conflict was asked for.
    pub present: Option<serde_json::Value>,
}

/// Body of `POST /v1/conflicts`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConflictResolution {
    /// In whose journal the conflict is.
    pub journal: PoolName,
    /// Its name.
    pub id: String,
    /// What stays.
    pub keep: Keep,
    /// 32 hexadecimal digits, drawn by who asks; the same request again changes nothing.
    pub operation: String,
}

/// What stays of two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// What there is.
    Present,
    /// What the orphan wrote.
    Orphan,
}
