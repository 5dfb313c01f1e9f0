//! `UserStore`: the user data of every journal that this server holds a copy of.

use model::{
    AddressOfRecord, Epoch, PoolName, StaleEpoch, WallTime,
    documents::{DocumentKind, EditError},
};

use crate::{
    Account, AdoptError, Adopted, ApplyError, Change, Committed, Conflict, ConflictId, Cursor, JournalError,
    Lag, MovePage, OperationId, OrphanPage, Page, PurgeError, Purged, RestartError, RewindError, Scope,
    StoreError, StoredDocument, Subject,
};

/// Accounts, documents and their journals, durable. Every method blocks; call it where blocking is allowed.
///
/// There is one journal for each front-end pool: it carries the data of the users homed there and of those
/// homed on its branches. A branch has a journal of its own for the call records that are written there. The
/// owner of a journal commits; everybody else applies pages. Rows are keyed by journal, address-of-record and
/// what they are, so what one pool says never removes what another says.
pub trait UserStore: Send + Sync {
    /// Makes all changes or none, durable when this returns; answers in the order of `changes`.
    ///
    /// Idempotent by operation id, for as long as the operation is remembered: the newest
    /// `limits::JOURNAL_OPERATIONS_MAX` of the journal, and any that made an account or document what it is.
    /// At most `limits::ACCOUNTS_PER_PAGE_MAX` changes. Raises the highest epoch seen to `epoch`. Whether the
    /// user may be written now is the caller's to know: only the owner commits.
    ///
    /// Errors: [`CommitError`]; after [`CommitError::Unknown`] send the same changes again.
    fn commit(
        &self,
        journal: &PoolName,
        epoch: Epoch,
        changes: &[Change],
    ) -> Result<Vec<Committed>, CommitError>;

    /// Makes `epoch` the highest seen for this journal, durable when this returns: lower ones are refused
    /// from now on. The same epoch again is accepted.
    ///
    /// Errors: [`CommitError::Stale`] when a higher one was seen; [`CommitError::Unknown`],
    /// [`CommitError::Store`].
    fn fence(&self, journal: &PoolName, epoch: Epoch) -> Result<(), CommitError>;

    /// The highest epoch seen for this journal; zero when none was.
    fn highest_epoch(&self, journal: &PoolName) -> Result<Epoch, StoreError>;

    /// The account of a user, in whatever journal. While a user moves between journals both may have one: the
    /// one changed last.
    fn read(&self, aor: &AddressOfRecord) -> Result<Option<Account>, StoreError>;

    /// Accounts of the users homed on `home`, in whatever journal, in order of address-of-record: those after
    /// `after`, at most `max`.
    fn list(
        &self,
        home: &PoolName,
        after: Option<&AddressOfRecord>,
        max: usize,
    ) -> Result<Vec<Account>, StoreError>;

    /// Hands over every account of every journal, in order of address-of-record.
    fn load_all(&self, each: &mut dyn FnMut(Account)) -> Result<(), StoreError>;

    /// A document of a user; `None` before its first edit, where it is `Document::empty`. The journal is
    /// [`Account::journal`]; for calls that a branch recorded, the branch.
    fn document(
        &self,
        journal: &PoolName,
        aor: &AddressOfRecord,
        kind: DocumentKind,
    ) -> Result<Option<StoredDocument>, StoreError>;

    /// All documents of a user in one journal, in order of kind.
    fn documents(&self, journal: &PoolName, aor: &AddressOfRecord)
    -> Result<Vec<StoredDocument>, StoreError>;

    /// Documents of one kind in one journal, in order of address-of-record: those after `after`, at most
    /// `max`.
    fn list_documents(
        &self,
        journal: &PoolName,
        kind: DocumentKind,
        after: Option<&AddressOfRecord>,
        max: usize,
    ) -> Result<Vec<StoredDocument>, StoreError>;

    /// Conflicts of one journal that wait for the operator, in order of name: those after `after`, at most
    /// `max`.
    fn conflicts(
        &self,
        journal: &PoolName,
        after: Option<ConflictId>,
        max: usize,
    ) -> Result<Vec<Conflict>, StoreError>;

    /// One conflict; `None` when there is none of this name or it was resolved.
    fn conflict(&self, journal: &PoolName, id: ConflictId) -> Result<Option<Conflict>, StoreError>;

    /// Hands over every account, settings and voice policy, then every later change, none missed and none out
    /// of order.
    ///
    /// The follower is called by whoever commits or applies, after the data is durable and before the call
    /// returns, and until the store is dropped; also when a journal only has a new end, with nothing in it
    /// for the follower. It must be short and must not call the store.
    fn follow(&self, follower: Follower) -> Result<(), StoreError>;

    /// Journals of which this store holds anything, in order of name.
    fn journals(&self) -> Result<Vec<PoolName>, StoreError>;

    /// How far this store has got in a journal, to ask for the next page of this scope with: the start when
    /// it holds another scope. At the owner: the end of its journal.
    fn cursor(&self, journal: &PoolName, scope: &Scope) -> Result<Cursor, StoreError>;

    /// The last change up to which this store misses nothing of what it copies. During a catch-up of several
    /// pages it stays behind [`Self::cursor`], since a change that a later one replaced is not sent and the
    /// later one has not come yet: what would be lost with the source is counted from here.
    fn whole(&self, journal: &PoolName) -> Result<Cursor, StoreError>;

    /// The changes after `cursor`, at most `max` (and at most `limits::ACCOUNTS_PER_PAGE_MAX` and about
    /// `limits::JOURNAL_PAGE_BYTES_MAX` octets of documents).
    ///
    /// Errors: [`JournalError`].
    fn journal(&self, cursor: &Cursor, max: usize, scope: &Scope) -> Result<Page, JournalError>;

    /// Takes over the changes of a page that came from the owner of `journal`; returns the new cursor.
    ///
    /// Durable when this returns. Changes already held are skipped, so the same page twice is harmless. A
    /// store that holds less than everything changes its scope by applying a page of the new scope from the
    /// start: what it holds stays readable until it comes again, the rest leaves with the last page. When a
    /// page tells of a new owner in the middle of a catch-up, the copy goes back to [`Self::whole`] and the
    /// page is not taken: ask again with the cursor that is returned.
    ///
    /// Errors: [`ApplyError`]; nothing of a refused page is kept.
    fn apply(&self, journal: &PoolName, page: &Page) -> Result<Cursor, ApplyError>;

    /// What a reader of the journal at `cursor` does not have yet; cheap.
    fn lag(&self, cursor: &Cursor) -> Result<Lag, StoreError>;

    /// The last change of this store at or before `theirs`, of no higher epoch.
    ///
    /// Two stores find their common change by asking each other with the other's answer until it is its own:
    /// once for each epoch at most, since both answers go back only.
    fn common(&self, theirs: &Cursor) -> Result<Cursor, StoreError>;

    /// The changes that this store holds beyond `common` and after number `after`, in order, at most `max`
    /// (bounded as [`Self::journal`]): what the owner may not know.
    ///
    /// Errors: [`JournalError::Ahead`], [`JournalError::Diverged`] when `common` is not common;
    /// [`JournalError::HoldsLess`], [`JournalError::Store`].
    fn orphans(&self, common: &Cursor, after: u64, max: usize) -> Result<OrphanPage, JournalError>;

    /// Adopts orphans into the journal that this store owns under `epoch`, all of the page or none; durable
    /// when this returns. Answers in their order. The same page again is harmless.
    ///
    /// Afterwards every account and document that an orphan names has a number above the common one or does
    /// not exist. `now` is the time of the new changes.
    ///
    /// Errors: [`AdoptError`].
    fn adopt(&self, epoch: Epoch, now: WallTime, page: &OrphanPage) -> Result<Vec<Adopted>, AdoptError>;

    /// Goes back to the common change after all orphans were adopted, so that the next pages bring the truth.
    ///
    /// `adopted` is [`OrphanPage::next`] of the last page, which the owner has answered. What the orphans
    /// wrote stays readable until it comes again; what does not come leaves with the last page.
    ///
    /// Errors: [`RewindError`].
    fn rewind(&self, common: &Cursor, adopted: u64) -> Result<(), RewindError>;

    /// Begins a copy of less than everything anew, because its source is behind it or has another history.
    /// `epoch` is the highest that the source has seen. What is held stays readable until it comes again.
    ///
    /// Errors: [`RestartError`].
    fn restart(&self, journal: &PoolName, epoch: Epoch) -> Result<(), RestartError>;

    /// The account of a user in this journal.
    fn account(&self, journal: &PoolName, aor: &AddressOfRecord) -> Result<Option<Account>, StoreError>;

    /// Journals in which there are accounts of users homed on `home`, in order of name: more than one while
    /// they go from one to another.
    fn journals_of(&self, home: &PoolName) -> Result<Vec<PoolName>, StoreError>;

    /// Users homed on `home` in the journal that this store owns, with all that is theirs: those after
    /// `after`, at most `max` (and `limits::MOVE_USERS_MAX`, and about `limits::MOVE_PAGE_BYTES_MAX` octets
    /// of documents). The caller has seen to it that nobody changes them any more.
    ///
    /// Errors: [`JournalError::HoldsLess`], [`JournalError::Recopying`], [`JournalError::Store`].
    fn leaving(
        &self,
        journal: &PoolName,
        home: &PoolName,
        after: Option<&AddressOfRecord>,
        max: usize,
    ) -> Result<MovePage, JournalError>;

    /// Takes users of a page over into the journal that this store owns under `epoch`, all or none; durable
    /// when this returns. The same page again changes nothing. What is here already with a higher number
    /// stays. Everything gets a number above all those of the journal it comes from. Returns the end of the
    /// journal.
    ///
    /// Errors: [`AdoptError`].
    fn settle(
        &self,
        journal: &PoolName,
        epoch: Epoch,
        now: WallTime,
        page: &MovePage,
    ) -> Result<Cursor, AdoptError>;

    /// Removes users who are settled in another journal, at most `limits::MOVE_USERS_MAX`, in order; durable
    /// when this returns. Returns how many: none when all are gone.
    ///
    /// Errors: [`CommitError`]; nothing was changed, but for [`CommitError::Unknown`].
    fn depart(
        &self,
        departure: &Departure,
        now: WallTime,
        operation: OperationId,
    ) -> Result<usize, CommitError>;

    /// Removes everything of a journal and overwrites the secrets, after unpairing; verified before it is
    /// made durable. `own` is the pool of this server.
    ///
    /// Errors: [`PurgeError`].
    fn purge(&self, journal: &PoolName, own: &PoolName) -> Result<Purged, PurgeError>;

    /// Reads everything and looks for damage; slow.
    ///
    /// Errors: [`StoreError::Corrupt`].
    fn check(&self) -> Result<(), StoreError>;
}

/// Users who have left a journal for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The journal they leave.
    pub journal: PoolName,
    /// Where they are homed.
    pub home: PoolName,
    /// Epoch under which it is owned.
    pub epoch: Epoch,
    /// Number of the journal up to which all that is theirs is in the other one. Who has anything with a
    /// higher number stays.
    pub last: u64,
}

/// Called with changes that are durable. See [`UserStore::follow`].
pub type Follower = Box<dyn Fn(&Changes<'_>) + Send + Sync>;

/// Durable changes of one journal, in order.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    /// Whose journal.
    pub journal: &'a PoolName,
    /// Number of the last change in it.
    pub sequence: u64,
    /// The changed accounts as they are now, each at most once.
    pub accounts: &'a [AccountState],
    /// The changed settings and voice policies as they are now, each at most once. Other documents are read
    /// when they are needed.
    pub documents: &'a [DocumentState],
}

/// What an account is after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountState {
    /// There is one.
    Present(Account),
    /// There is none any more in this journal.
    Removed(AddressOfRecord),
}

/// What a document is after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentState {
    /// There is one.
    Present(StoredDocument),
    /// There is none any more in this journal.
    Removed {
        /// Whose it was.
        aor: AddressOfRecord,
        /// What it held.
        kind: DocumentKind,
    },
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
    /// It exists and must not.
    #[error("{subject} of {aor} exists already")]
    Exists {
        /// Whose.
        aor: AddressOfRecord,
        /// What.
        subject: Subject,
    },
    /// The account does not exist and must.
    #[error("there is no account {aor} in {journal}")]
    Missing {
        /// Whose account.
        aor: AddressOfRecord,
        /// Where it was looked for.
        journal: PoolName,
    },
    /// There is no such conflict about this user.
    #[error("there is no conflict {id} about {aor}, or it was resolved")]
    NoConflict {
        /// Whose.
        aor: AddressOfRecord,
        /// The conflict's name.
        id: ConflictId,
    },
    /// It was changed since it was read.
    #[error("{subject} of {aor} was changed meanwhile: version {found}, not {expected}")]
    Changed {
        /// Whose.
        aor: AddressOfRecord,
        /// What.
        subject: Subject,
        /// The version asked for.
        expected: u64,
        /// The version now; 0 = there is none.
        found: u64,
    },
    /// The user is homed elsewhere, in another journal; remove the account there first.
    #[error("{aor} is homed on {home}; remove it there first")]
    HomedElsewhere {
        /// Whose account.
        aor: AddressOfRecord,
        /// Its home pool.
        home: PoolName,
    },
    /// The document does not take the edit.
    #[error("{aor}: {source}")]
    Edit {
        /// Whose document.
        aor: AddressOfRecord,
        /// Why.
        source: EditError,
    },
    /// The document would be too large.
    #[error("{kind} of {aor} would have {bytes} octets, at most {max} are kept")]
    DocumentTooLarge {
        /// Whose document.
        aor: AddressOfRecord,
        /// What it holds.
        kind: DocumentKind,
        /// How large it would be.
        bytes: usize,
        /// How large it may be.
        max: usize,
    },
    /// The operation id was used for another account or document, or for another kind of change.
    #[error("operation {:032x} was used for another change before", .operation.number())]
    OperationReused {
        /// The id.
        operation: OperationId,
    },
    /// This store does not hold everything of the journal and cannot own it.
    #[error("this store does not hold everything of {journal}; its users are changed elsewhere")]
    HoldsLess {
        /// Whose journal.
        journal: PoolName,
    },
    /// More pools than one store takes.
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
