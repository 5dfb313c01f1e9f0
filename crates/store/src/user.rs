//! `UserStore`: the user data of every home pool that this server holds a copy of.

use model::{AddressOfRecord, Epoch, PoolName, StaleEpoch};

use crate::{
    Account, AccountChange, ApplyError, Committed, Cursor, JournalError, OperationId, Page, Scope, StoreError,
};

/// Accounts and their journal, durable. Every method blocks; call it where blocking is allowed.
///
/// The owner of a home pool commits; everybody else applies journal pages. Rows are keyed by home pool and
/// address-of-record, so what one pool says never removes what another says.
pub trait UserStore: Send + Sync {
    /// Makes all changes or none, durable when this returns; answers in the order of `changes`.
    ///
    /// Idempotent by operation id, for as long as the operation is remembered: the newest
    /// `limits::JOURNAL_OPERATIONS_MAX` of the home pool, and any that made an account what it is. At most
    /// `limits::ACCOUNTS_PER_PAGE_MAX` changes. Raises the highest epoch seen to `epoch`.
    ///
    /// Errors: [`CommitError`]; after [`CommitError::Unknown`] send the same changes again.
    fn commit(
        &self,
        home: &PoolName,
        epoch: Epoch,
        changes: &[AccountChange],
    ) -> Result<Vec<Committed>, CommitError>;

    /// Makes `epoch` the highest seen for this home pool, durable when this returns: lower ones are refused
    /// from now on. The same epoch again is accepted.
    ///
    /// Errors: [`CommitError::Stale`] when a higher one was seen; [`CommitError::Unknown`],
    /// [`CommitError::Store`].
    fn fence(&self, home: &PoolName, epoch: Epoch) -> Result<(), CommitError>;

    /// The highest epoch seen for this home pool; zero when none was.
    fn highest_epoch(&self, home: &PoolName) -> Result<Epoch, StoreError>;

    /// The account of a user, wherever homed. While a user moves between home pools both may have one: the
    /// one changed last.
    fn read(&self, aor: &AddressOfRecord) -> Result<Option<Account>, StoreError>;

    /// Accounts of one home pool in order of address-of-record, those after `after`, at most `max`.
    fn list(
        &self,
        home: &PoolName,
        after: Option<&AddressOfRecord>,
        max: usize,
    ) -> Result<Vec<Account>, StoreError>;

    /// Hands over every account of every home pool, in order of address-of-record.
    fn load_all(&self, each: &mut dyn FnMut(Account)) -> Result<(), StoreError>;

    /// Hands over every account, then every later change, none missed and none out of order.
    ///
    /// The follower is called by whoever commits or applies, after the data is durable and before the call
    /// returns, and until the store is dropped. It must be short and must not call the store.
    fn follow(&self, follower: Follower) -> Result<(), StoreError>;

    /// Home pools of which this store holds anything, in order of name.
    fn homes(&self) -> Result<Vec<PoolName>, StoreError>;

    /// How far this store has got in the journal of a home pool, to ask for the next page of this scope with.
    /// At the owner: the end of its journal.
    fn cursor(&self, home: &PoolName, scope: Scope) -> Result<Cursor, StoreError>;

    /// The changes after `cursor`, at most `max` (and at most `limits::ACCOUNTS_PER_PAGE_MAX`).
    ///
    /// Errors: [`JournalError`].
    fn journal(&self, cursor: &Cursor, max: usize, scope: Scope) -> Result<Page, JournalError>;

    /// Takes over the changes of a page that came from the owner of `home`; returns the new cursor.
    ///
    /// Durable when this returns. Changes already held are skipped, so the same page twice is harmless. A
    /// store that holds a directory becomes one that holds accounts by applying pages of accounts from the
    /// start.
    ///
    /// Errors: [`ApplyError`]; nothing of a refused page is kept.
    fn apply(&self, home: &PoolName, page: &Page) -> Result<Cursor, ApplyError>;

    /// Reads everything and looks for damage; slow.
    ///
    /// Errors: [`StoreError::Corrupt`].
    fn check(&self) -> Result<(), StoreError>;
}

/// Called with changes that are durable. See [`UserStore::follow`].
pub type Follower = Box<dyn Fn(&Changes<'_>) + Send + Sync>;

/// Durable changes of one home pool, in order.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    /// Whose.
    pub home: &'a PoolName,
    /// Number of the last change in the journal of this home pool.
    pub sequence: u64,
    /// The changed accounts as they are now, each at most once.
    pub accounts: &'a [AccountState],
}

/// What an account is after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountState {
    /// There is one.
    Present(Account),
    /// There is none any more in this home pool.
    Removed(AddressOfRecord),
}

/// Why changes were not committed. Except for [`Self::Unknown`], nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The writer does not know the present epoch: it was replaced as owner.
    #[error(transparent)]
    Stale(#[from] StaleEpoch),
    /// More changes than one commit takes.
    #[error("{found} changes in one commit, at most {max} are taken")]
    TooMany {
        /// How many there were.
        found: usize,
        /// How many are taken.
        max: usize,
    },
    /// The account exists and must not.
    #[error("{aor} exists already")]
    Exists {
        /// Whose account.
        aor: AddressOfRecord,
    },
    /// The account does not exist and must.
    #[error("there is no account {aor} in {home}")]
    Missing {
        /// Whose account.
        aor: AddressOfRecord,
        /// Where it was looked for.
        home: PoolName,
    },
    /// The account was changed since it was read.
    #[error("{aor} was changed meanwhile: version {found}, not {expected}")]
    Changed {
        /// Whose account.
        aor: AddressOfRecord,
        /// The version asked for.
        expected: u64,
        /// The version now; 0 = no account.
        found: u64,
    },
    /// The user is homed on another pool; remove it there first.
    #[error("{aor} is homed on {home}; remove it there first")]
    HomedElsewhere {
        /// Whose account.
        aor: AddressOfRecord,
        /// Its home pool.
        home: PoolName,
    },
    /// The operation id was used for another account or another kind of change.
    #[error("operation {:032x} was used for another change before", .operation.number())]
    OperationReused {
        /// The id.
        operation: OperationId,
    },
    /// This store holds only the directory of the home pool and cannot own it.
    #[error("this store holds only the directory of {home}; its accounts are changed elsewhere")]
    DirectoryOnly {
        /// The home pool.
        home: PoolName,
    },
    /// More home pools than one store takes.
    #[error("a store holds at most {max} home pools")]
    TooManyHomes {
        /// How many are taken.
        max: usize,
    },
    /// The changes were begun to be made durable and the answer is unknown; never report success.
    #[error("whether the changes are on disk is unknown; ask again with the same operation ids")]
    Unknown(#[source] StoreError),
    /// The files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}
