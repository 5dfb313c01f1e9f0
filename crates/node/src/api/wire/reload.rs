//! Another topology, and where the users of branches are meanwhile. Fields are only ever added.

use model::PoolName;
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/topology`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    /// The fingerprint of the file that is to be put in force; `None`: only look what would happen.
    pub apply: Option<String>,
}

/// What became of it, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Version in force before.
    pub before: u64,
    /// Version in force now.
    pub after: u64,
    /// Version of the file; `None` when it has errors.
    pub offered: Option<u64>,
    /// The same for the same file, 16 hexadecimal digits; empty when it cannot be read.
    pub fingerprint: String,
    /// What changes, a line for each.
    pub changes: Vec<String>,
    /// Why the file cannot be put in force, a line for each. Nothing was changed then.
    pub refusals: Vec<String>,
}

/// How users of a branch go from the journal of one pool to that of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveStatus {
    /// The branch.
    pub branch: PoolName,
    /// The pool it was associated with.
    pub from: PoolName,
    /// The pool it is associated with.
    pub to: PoolName,
    /// How far it is.
    pub state: MoveState,
    /// What it waits for.
    pub reason: Option<String>,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveState {
    /// The former owner does not give the users: their data cannot be changed at the new one.
    Waiting,
    /// They are being fetched.
    Moving,
    /// All are there and can be changed; the former journal has copies of them until partner and appliance
    /// have theirs.
    Settled,
}
