//! Changes of user data, and what became of them.

use model::{AddressOfRecord, PoolName, WallTime, documents::Edit};

use crate::{ConflictId, Credentials, DigestAlgorithm, OperationId};

/// One change of the data of one user, executed at most once for each operation id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Names the change; the same id again changes nothing and gives the same answer.
    pub operation: OperationId,
    /// Whose data.
    pub aor: AddressOfRecord,
    /// When the change was asked for; kept as data.
    pub changed_at: WallTime,
    /// What must be true now of what is written: the account, or the one document.
    pub condition: Condition,
    /// The change itself.
    pub write: Write,
}

/// What must be true of an account or a document for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Any,
    /// There is none: no account in any journal that is held here, no edit of the document so far.
    Absent,
    /// There is one with this version.
    Version(u64),
}

/// What is done to the data of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Creates the account or replaces what it holds.
    ///
    /// With another home than before, settings and voice policy are restated: they get new numbers, so that
    /// the branch that the user comes to receives them.
    PutAccount {
        /// Where the user is homed: the pool of the journal or a branch associated with it, which the caller
        /// has checked.
        home: PoolName,
        /// What proves the password.
        credentials: Credentials,
        /// Digest algorithms to offer; `None` = as the pool's settings say.
        algorithms: Option<Vec<DigestAlgorithm>>,
    },
    /// Removes the account, and with it the user's documents and conflicts; refused when there is none.
    RemoveAccount,
    /// Edits a document. The user must have an account in this journal; for a call record, which a branch
    /// keeps in its own journal, one in any journal that is held here.
    Edit(Edit),
    /// Ends a conflict.
    Resolve {
        /// Which; it must be about this user.
        conflict: ConflictId,
        /// How.
        resolution: Resolution,
    },
}

/// What becomes of a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// What there is stays; the orphan is forgotten.
    KeepPresent,
    /// The orphan is applied to what there is now.
    ApplyOrphan,
}

/// A change that is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its number in the journal: the new version of what was written.
    pub version: u64,
    /// Whether nothing was left to do: committed before under the same operation id, or a call record that
    /// tells nothing new.
    pub is_repeated: bool,
}
