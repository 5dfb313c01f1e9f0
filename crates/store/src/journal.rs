//! What can be wrong with a journal, its reader or its pages.

use model::{Epoch, PoolName, StaleEpoch, WallTime};

use crate::{Cursor, StoreError};

/// What the reader of a journal does not have: what would be lost with the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// How many changes there are after the reader's cursor.
    pub changes: u64,
    /// When the oldest of them that is remembered was made, by the clock of who made it; `None` = there are
    /// none.
    pub oldest: Option<WallTime>,
}

/// Why a page was not read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The cursor is beyond the end of this journal: the reader holds changes that this store does not have.
    #[error(
        "the reader of {}'s journal holds change {}, this store's last one is {last}",
        .theirs.journal, .theirs.sequence
    )]
    Ahead {
        /// Where the reader is.
        theirs: Cursor,
        /// Last change here.
        last: u64,
        /// The last change here that both may have; see [`crate::UserStore::common`].
        common: Cursor,
        /// Highest epoch this store has seen for the journal.
        epoch: Epoch,
    },
    /// The reader holds another change under the same number: one of the two was made after a takeover.
    #[error(
        "change {} of {} has epoch {ours} here, not {}",
        .theirs.sequence, .theirs.journal, .theirs.epoch
    )]
    Diverged {
        /// Where the reader is.
        theirs: Cursor,
        /// Epoch of the change here.
        ours: Epoch,
        /// The last change here that both may have; see [`crate::UserStore::common`].
        common: Cursor,
        /// Highest epoch this store has seen for the journal.
        epoch: Epoch,
    },
    /// This store holds less than what was asked for.
    #[error("this store holds less of {journal}'s journal; pull from the pool that owns it")]
    HoldsLess {
        /// Whose journal.
        journal: PoolName,
    },
    /// This store is taking a copy itself, so it cannot say what there is and what there is not.
    #[error("this store is copying {journal}'s journal itself; ask again")]
    Recopying {
        /// Whose journal.
        journal: PoolName,
    },
    /// The files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a page was not applied. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Not what the sender made; ask for it again.
    #[error("a journal page is damaged: {found}")]
    Damaged {
        /// What was found.
        found: String,
    },
    /// The page is of another journal than it was asked of.
    #[error("a journal page of {found} came where one of {expected} was asked for")]
    WrongJournal {
        /// Whose page was asked for.
        expected: PoolName,
        /// Whose page it is.
        found: PoolName,
    },
    /// The sender does not know the present epoch: it was replaced as owner.
    #[error(transparent)]
    Stale(#[from] StaleEpoch),
    /// The page begins after what this store holds; ask from [`Cursor`] `expected`.
    #[error("a journal page of {journal} begins after {found}, this store holds up to {expected}")]
    Gap {
        /// Whose journal.
        journal: PoolName,
        /// The last change held here.
        expected: u64,
        /// The change after which the page begins.
        found: u64,
    },
    /// This store holds another change under the same number: an orphan of an earlier owner.
    #[error("change {sequence} of {journal} is {ours} here and {theirs} in the page; orphans need failback")]
    Diverged {
        /// Whose journal.
        journal: PoolName,
        /// The number.
        sequence: u64,
        /// Epoch of the change here.
        ours: Epoch,
        /// Epoch of the change in the page.
        theirs: Epoch,
    },
    /// This store holds everything of the journal; a page of a narrower scope would leave some of it behind.
    #[error("this store holds everything of {journal}; pull pages of everything")]
    HoldsMore {
        /// Whose journal.
        journal: PoolName,
    },
    /// More pools than one store takes.
    #[error("a store holds at most {max} home pools")]
    TooManyHomes {
        /// How many are taken.
        max: usize,
    },
    /// The transaction was begun to be made durable and the answer is unknown; apply the page again.
    #[error("whether a journal page is on disk is unknown")]
    Unknown(#[source] StoreError),
    /// The files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a copy was not begun anew. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// This store holds everything of the journal: what it holds beyond the owner are orphans, to be adopted.
    #[error("this store holds everything of {journal}; what its owner does not know is adopted, not dropped")]
    HoldsEverything {
        /// Whose journal.
        journal: PoolName,
    },
    /// The source does not know the present epoch.
    #[error(transparent)]
    Stale(#[from] StaleEpoch),
    /// Whether it is on disk is unknown; do it again.
    #[error("whether the copy of a journal was begun anew is unknown")]
    Unknown(#[source] StoreError),
    /// The files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How much of a journal was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Accounts, documents and conflicts, those removed before included.
    pub rows: u64,
    /// Numbered changes.
    pub changes: u64,
}

/// Why a copy was not purged. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// The journal is that of this server's own pool.
    #[error("{journal} is the pool of this server: its own users are never purged")]
    OwnPool {
        /// Whose journal.
        journal: PoolName,
    },
    /// Something was left after everything was removed, so nothing was.
    #[error("{rows} rows of {journal} were left in table {table} after the purge; nothing was removed")]
    Left {
        /// Whose journal.
        journal: PoolName,
        /// In which table.
        table: &'static str,
        /// How many.
        rows: u64,
    },
    /// Whether it is on disk is unknown; purge again.
    #[error("whether the purge is on disk is unknown")]
    Unknown(#[source] StoreError),
    /// The files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}
