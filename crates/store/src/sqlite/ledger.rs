//! One journal inside a write transaction: takes numbers, writes rows and their changes, remembers what to
//! tell the followers.

use std::path::Path;

use model::{
    AddressOfRecord, Epoch, PoolName, StaleEpoch, WallTime,
    documents::{DocumentKind, Edit},
    limits,
};
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::{
    Written,
    pools::{PoolRow, Pools, Position},
    rows::{self, RawRow, Told, algorithms_text, number, operation_octets, store_error, stored, subject_key},
};
use crate::{
    AdoptError, ApplyError, CommitError, Credentials, DigestAlgorithm, Entry, EntryState, EpochStart,
    OperationId, Scope, StoreError, Subject, sealed::json,
};

/// Why a row was not written.
#[derive(Debug)]
pub(super) enum LedgerError {
    TooManyHomes,
    TooLarge { aor: AddressOfRecord, kind: DocumentKind, bytes: usize },
    Store(StoreError),
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<LedgerError> for CommitError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::TooManyHomes => Self::TooManyHomes { max: limits::HOME_POOLS_MAX },
            LedgerError::TooLarge { aor, kind, bytes } => {
                Self::DocumentTooLarge { aor, kind, bytes, max: limits::DOCUMENT_BYTES_MAX }
            }
            LedgerError::Store(error) => Self::Store(error),
        }
    }
}

impl From<LedgerError> for ApplyError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::TooManyHomes => Self::TooManyHomes { max: limits::HOME_POOLS_MAX },
            LedgerError::TooLarge { aor, kind, bytes } => {
                Self::Damaged { found: format!("{kind} of {aor} has {bytes} octets") }
            }
            LedgerError::Store(error) => Self::Store(error),
        }
    }
}

impl From<LedgerError> for AdoptError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::TooManyHomes => Self::TooManyHomes { max: limits::HOME_POOLS_MAX },
            LedgerError::TooLarge { aor, kind, bytes } => {
                Self::Damaged { found: format!("{kind} of {aor} has {bytes} octets") }
            }
            LedgerError::Store(error) => Self::Store(error),
        }
    }
}

/// One journal inside a write transaction that the caller commits.
pub(super) struct Ledger<'a> {
    pub(super) connection: &'a Connection,
    pub(super) file: &'a Path,
    pub(super) row: PoolRow,
    pools: Pools,
    began_at: Position,
    told: Told,
}

/// What is known of a row before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) version: u64,
    /// Number of the last change that did not only state it again.
    pub(super) modified: u64,
    pub(super) is_removed: bool,
    pub(super) is_leftover: bool,
}

/// A change that has no number yet.
pub(super) struct Draft {
    pub(super) operation: OperationId,
    pub(super) aor: AddressOfRecord,
    /// When what it leaves was made.
    pub(super) changed_at: WallTime,
    pub(super) state: EntryState,
}

impl<'a> Ledger<'a> {
    /// The ledger of this journal, whose row is created when there is none.
    pub(super) fn open(
        connection: &'a Connection,
        file: &'a Path,
        journal: &PoolName,
    ) -> Result<Self, LedgerError> {
        let row = PoolRow::open(connection, file, journal)?.ok_or(LedgerError::TooManyHomes)?;
        let pools = Pools::load(connection, file)?;
        let began_at = row.position;
        Ok(Self { connection, file, row, pools, began_at, told: Told::default() })
    }

    pub(super) fn read_error(&self, error: rusqlite::Error) -> StoreError {
        store_error(self.file, error)
    }

    /// Whether everything of the journal is held, accounts with their secrets: who owns it must.
    pub(super) fn holds_everything(&self) -> Result<bool, StoreError> {
        if self.row.scope != Scope::Everything {
            return Ok(false);
        }
        // A directory that is becoming everything has accounts left over of which it holds no secrets.
        let sql = "SELECT 1 FROM document WHERE journal = ?1 AND is_leftover = 1 AND kind = 0
                   AND is_removed = 0 AND ha1_md5 IS NULL LIMIT 1";
        let find = || self.connection.prepare_cached(sql)?.exists([self.row.id]);
        let is_listed_only = self.row.is_recopying && find().map_err(|error| self.read_error(error))?;
        Ok(!is_listed_only)
    }

    /// Ends the transaction's work: what the followers are told, beside the answer.
    pub(super) fn finish<T>(self, answer: T) -> Result<Written<T>, StoreError> {
        let oldest = self.row.position.sequence.saturating_sub(limits::JOURNAL_OPERATIONS_MAX);
        let forget = || -> rusqlite::Result<()> {
            self.row.save(self.connection)?;
            self.connection
                .prepare_cached(
                    "DELETE FROM change_log INDEXED BY change_replaced
                     WHERE journal = ?1 AND sequence <= ?2 AND is_replaced = 1",
                )?
                .execute(params![self.row.id, stored(oldest)?])?;
            Ok(())
        };
        forget().map_err(|error| self.read_error(error))?;
        let has_moved = self.row.position != self.began_at || !self.told.is_empty();
        let sequence = self.row.position.sequence;
        Ok(Written { answer, sequence, has_moved, told: self.told.newest_of_each() })
    }

    /// What is held of a subject, removed or not.
    pub(super) fn held(&self, aor: &AddressOfRecord, subject: Subject) -> Result<Option<Held>, StoreError> {
        let (kind, key) = subject_key(subject);
        let find = || -> rusqlite::Result<Option<Held>> {
            let mut query = self.connection.prepare_cached(
                "SELECT version, modified, is_removed, is_leftover FROM document
                 WHERE aor = ?1 AND kind = ?2 AND key = ?3 AND journal = ?4",
            )?;
            query
                .query_row(params![aor.as_str(), kind, key, self.row.id], |row| {
                    Ok(Held {
                        version: number(row, 0)?,
                        modified: number(row, 1)?,
                        is_removed: row.get(2)?,
                        is_leftover: row.get(3)?,
                    })
                })
                .optional()
        };
        find().map_err(|error| self.read_error(error))
    }

    /// The row of a subject, removed or not.
    pub(super) fn entry(&self, aor: &AddressOfRecord, subject: Subject) -> Result<Option<Entry>, StoreError> {
        let (kind, key) = subject_key(subject);
        let condition = "aor = ?1 AND kind = ?2 AND key = ?3 AND journal = ?4";
        let found = self.rows(condition, params![aor.as_str(), kind, key, self.row.id])?;
        Ok(found.into_iter().next())
    }

    /// The user's rows in this journal that are not removed, but for the account.
    pub(super) fn belongings(&self, aor: &AddressOfRecord) -> Result<Vec<Entry>, StoreError> {
        let condition = "aor = ?1 AND kind > 0 AND journal = ?2 AND is_removed = 0 ORDER BY kind, key";
        self.rows(condition, params![aor.as_str(), self.row.id])
    }

    /// Rows that are left over from before the copy was begun anew, accounts first.
    pub(super) fn leftovers(&self) -> Result<Vec<Entry>, StoreError> {
        self.rows("journal = ?1 AND is_leftover = 1 ORDER BY aor, kind", [self.row.id])
    }

    fn rows(&self, condition: &str, bound: impl rusqlite::Params) -> Result<Vec<Entry>, StoreError> {
        let read = |error| self.read_error(error);
        let sql = format!("SELECT {} FROM document WHERE {condition}", rows::COLUMNS);
        let mut query = self.connection.prepare_cached(&sql).map_err(read)?;
        let mut found = query.query(bound).map_err(read)?;
        let mut entries = Vec::new();
        while let Some(row) = found.next().map_err(read)? {
            let raw = RawRow::read(row).map_err(read)?;
            entries.push(raw.check(&self.pools, self.file)?.1);
        }
        Ok(entries)
    }

    /// Whether the user has an account in any journal that is held here.
    pub(super) fn is_known(&self, aor: &AddressOfRecord) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM document WHERE aor = ?1 AND kind = 0 AND is_removed = 0 LIMIT 1";
        let find = || self.connection.prepare_cached(sql)?.exists([aor.as_str()]);
        find().map_err(|error| self.read_error(error))
    }

    /// The homes that this user has by accounts in other journals.
    pub(super) fn homes_elsewhere(&self, aor: &AddressOfRecord) -> Result<Vec<PoolName>, StoreError> {
        let sql = "SELECT home FROM document
                   WHERE aor = ?1 AND kind = 0 AND key = x'' AND journal <> ?2 AND is_removed = 0";
        let find = || -> rusqlite::Result<Vec<i64>> {
            let mut query = self.connection.prepare_cached(sql)?;
            query.query_map(params![aor.as_str(), self.row.id], |row| row.get(0))?.collect()
        };
        let found = find().map_err(|error| self.read_error(error))?;
        found.into_iter().map(|id| self.pools.name(id, self.file)).collect()
    }

    /// Makes a change under the next number; returns the number.
    pub(super) fn write(
        &mut self,
        epoch: Epoch,
        written_at: WallTime,
        draft: Draft,
        edit: Option<&Edit>,
    ) -> Result<u64, LedgerError> {
        self.write_number(epoch, written_at, draft, edit, None)
    }

    /// Takes the numbers up to `sequence` for changes that are not made, so that the next change has a higher
    /// one. To readers they are changes that later ones replaced.
    pub(super) fn skip_to(&mut self, sequence: u64) -> Result<(), StoreError> {
        if self.row.position.sequence < sequence {
            let epoch = self.row.epoch_at(self.connection, sequence);
            let epoch = epoch.map_err(|error| self.read_error(error))?;
            self.row.position = Position { sequence, epoch };
            self.row.whole = sequence;
        }
        Ok(())
    }

    fn write_number(
        &mut self,
        epoch: Epoch,
        written_at: WallTime,
        draft: Draft,
        edit: Option<&Edit>,
        modified: Option<u64>,
    ) -> Result<u64, LedgerError> {
        let sequence = self.row.position.sequence.saturating_add(1);
        if epoch > self.row.position.epoch {
            self.begin_epoch(EpochStart { epoch, first: sequence })?;
        }
        let held = self.held(&draft.aor, draft.state.subject())?;
        let Draft { operation, aor, changed_at, state } = draft;
        let entry = Entry { sequence, epoch, operation, aor, changed_at, state };
        self.save_row(&entry, modified.unwrap_or(sequence))?;
        let edit = edit.filter(|edit| edit.is_mergeable()).map(json);
        self.save_change(&entry, held, written_at, edit.as_deref(), "INSERT")?;
        self.row.position = Position { sequence, epoch };
        self.row.whole = sequence;
        self.told.push(&self.row.name, entry);
        Ok(sequence)
    }

    /// Takes over a change that has its number from the owner; returns whether it was new.
    pub(super) fn take(&mut self, entry: &Entry) -> Result<bool, LedgerError> {
        let held = self.held(&entry.aor, entry.state.subject())?;
        if held.is_some_and(|held| !held.is_leftover && held.version >= entry.sequence) {
            return Ok(false);
        }
        self.save_row(entry, entry.sequence)?;
        if self.row.scope == Scope::Everything {
            self.save_change(entry, held, entry.changed_at, None, "INSERT OR IGNORE")?;
        }
        self.told.push(&self.row.name, entry.clone());
        Ok(true)
    }

    /// Gives a row, removed or not, a new number without changing what it says.
    pub(super) fn restate(
        &mut self,
        epoch: Epoch,
        now: WallTime,
        cause: OperationId,
        entry: Entry,
    ) -> Result<u64, LedgerError> {
        let held = self.held(&entry.aor, entry.state.subject())?;
        self.write_again(epoch, now, cause, entry, held.map(|held| held.modified))
    }

    /// Who owns the journal has become owner before its copy was whole: what it holds beyond is the best
    /// there is, and is stated again under its own numbers.
    pub(super) fn own_leftovers(
        &mut self,
        epoch: Epoch,
        now: WallTime,
        cause: OperationId,
    ) -> Result<(), LedgerError> {
        self.give_up_partial()?;
        let whole = self.row.position.sequence;
        if self.row.is_recopying {
            for entry in self.leftovers()? {
                let held = self.held(&entry.aor, entry.state.subject())?;
                let modified = held.map(|held| held.modified.min(whole));
                self.write_again(epoch, now, cause, entry, modified)?;
            }
            self.row.is_recopying = false;
        }
        Ok(())
    }

    fn write_again(
        &mut self,
        epoch: Epoch,
        now: WallTime,
        cause: OperationId,
        entry: Entry,
        modified: Option<u64>,
    ) -> Result<u64, LedgerError> {
        let purpose = format!("restated after {} in epoch {}", entry.sequence, entry.epoch);
        let operation = derived(cause, &purpose, &entry.aor, entry.state.subject());
        let Entry { aor, changed_at, state, .. } = entry;
        self.write_number(epoch, now, Draft { operation, aor, changed_at, state }, None, modified)
    }

    /// Accepts an epoch. A higher one may be another owner's, whose changes replace others than those that
    /// the catch-up so far has left out: a copy that is not whole goes back to where it was.
    pub(super) fn admit<E: From<StaleEpoch> + From<StoreError>>(&mut self, epoch: Epoch) -> Result<(), E> {
        let before = self.row.epoch;
        self.row.epoch = before.admit(epoch)?;
        if self.row.epoch > before {
            self.give_up_partial()?;
        }
        Ok(())
    }

    /// Goes back to where the copy was whole.
    fn give_up_partial(&mut self) -> Result<(), StoreError> {
        let sequence = self.row.whole;
        if sequence < self.row.position.sequence {
            let epoch = self.row.epoch_at(self.connection, sequence);
            let epoch = epoch.map_err(|error| self.read_error(error))?;
            self.begin_anew(Position { sequence, epoch })?;
        }
        Ok(())
    }

    /// Remembers where an epoch begins.
    pub(super) fn begin_epoch(&self, start: EpochStart) -> Result<(), StoreError> {
        let save = || -> rusqlite::Result<usize> {
            self.connection
                .prepare_cached("INSERT OR IGNORE INTO epoch_start VALUES (?1, ?2, ?3)")?
                .execute(params![self.row.id, stored(start.epoch.number())?, stored(start.first)?])
        };
        save().map(drop).map_err(|error| self.read_error(error))
    }

    /// Goes back to `common`: what is held beyond it is left over until it comes again.
    pub(super) fn begin_anew(&mut self, common: Position) -> Result<(), StoreError> {
        let begin = || -> rusqlite::Result<usize> {
            let bound = params![self.row.id, stored(common.sequence)?];
            let left = self.connection.execute(
                "UPDATE document SET is_leftover = 1 WHERE journal = ?1 AND version > ?2 AND is_leftover = 0",
                bound,
            )?;
            self.connection.execute("DELETE FROM change_log WHERE journal = ?1 AND sequence > ?2", bound)?;
            self.connection.execute("DELETE FROM epoch_start WHERE journal = ?1 AND first > ?2", bound)?;
            Ok(left)
        };
        let left = begin().map_err(|error| self.read_error(error))?;
        self.row.position = common;
        self.row.whole = self.row.whole.min(common.sequence);
        self.row.is_recopying |= left > 0;
        Ok(())
    }

    /// Drops rows of this journal for good and tells the followers.
    pub(super) fn drop_rows(
        &mut self,
        condition: &str,
        bound: impl rusqlite::Params,
    ) -> Result<u64, StoreError> {
        let sql = format!("DELETE FROM document WHERE {condition} RETURNING aor, kind, key, is_removed");
        type Row = (String, i64, Vec<u8>, bool);
        let remove = || -> rusqlite::Result<Vec<Row>> {
            let mut query = self.connection.prepare_cached(&sql)?;
            query.query_map(bound, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?.collect()
        };
        let removed = remove().map_err(|error| self.read_error(error))?;
        let count = u64::try_from(removed.len()).unwrap_or(u64::MAX);
        for (aor, kind, key, was_removed) in removed {
            let subject = rows::subject(kind, &key)
                .ok_or_else(|| StoreError::corrupt(self.file, format!("{aor}: unknown kind of row")))?;
            if !was_removed {
                self.told.push_removed(rows::address(&aor, self.file)?, subject);
            }
        }
        Ok(count)
    }

    /// Where an operation is in this journal, and what it did.
    pub(super) fn operation(&self, operation: OperationId) -> Result<Option<Found>, StoreError> {
        let find = || -> rusqlite::Result<Option<Found>> {
            let mut query = self.connection.prepare_cached(
                "SELECT sequence, aor, kind, key, is_removal FROM change_log
                 WHERE operation = ?1 AND journal = ?2",
            )?;
            let found = query.query_row(params![operation_octets(operation), self.row.id], |row| {
                let key: Vec<u8> = row.get(3)?;
                Ok(Found {
                    sequence: number(row, 0)?,
                    aor: row.get(1)?,
                    subject: rows::subject(row.get(2)?, &key),
                    is_removal: row.get(4)?,
                })
            });
            found.optional()
        };
        find().map_err(|error| self.read_error(error))
    }

    fn home_id(&mut self, home: &PoolName) -> Result<i64, LedgerError> {
        if let Some(id) = self.pools.id(home) {
            return Ok(id);
        }
        let row = PoolRow::open(self.connection, self.file, home)?.ok_or(LedgerError::TooManyHomes)?;
        let id = row.id;
        self.pools.insert(row);
        Ok(id)
    }

    fn save_row(&mut self, entry: &Entry, modified: u64) -> Result<(), LedgerError> {
        let (kind, key) = subject_key(entry.state.subject());
        let content = Content::of(&entry.state);
        let bytes = content.body.as_ref().map_or(0, String::len);
        if let (Subject::Document(kind), true) = (entry.state.subject(), bytes > limits::DOCUMENT_BYTES_MAX) {
            return Err(LedgerError::TooLarge { aor: entry.aor.clone(), kind, bytes });
        }
        let home = content.home.map(|home| self.home_id(home)).transpose()?;
        let save = || -> rusqlite::Result<usize> {
            let mut upsert = self.connection.prepare_cached(
                "INSERT INTO document (journal, version, aor, kind, key, epoch, operation, changed_at,
                     is_removed, is_leftover, home, ha1_md5, ha1_sha256, algorithms, body, modified)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10, ?11, ?12, ?13, ?14, ?15)
                 ON CONFLICT (aor, kind, key, journal) DO UPDATE SET
                     version = excluded.version, epoch = excluded.epoch, operation = excluded.operation,
                     changed_at = excluded.changed_at, is_removed = excluded.is_removed, is_leftover = 0,
                     home = coalesce(excluded.home, home), ha1_md5 = excluded.ha1_md5,
                     ha1_sha256 = excluded.ha1_sha256, algorithms = excluded.algorithms,
                     body = excluded.body, modified = excluded.modified",
            )?;
            upsert.execute(params![
                self.row.id,
                stored(entry.sequence)?,
                entry.aor.as_str(),
                kind,
                key,
                stored(entry.epoch.number())?,
                operation_octets(entry.operation),
                stored(entry.changed_at.as_micros())?,
                matches!(entry.state, EntryState::Removed(_)),
                home,
                content.credentials.map(|credentials| credentials.ha1_md5),
                content.credentials.map(|credentials| credentials.ha1_sha256),
                algorithms_text(content.algorithms),
                content.body,
                stored(modified)?,
            ])
        };
        save().map(drop).map_err(|error| self.read_error(error).into())
    }

    fn save_change(
        &self,
        entry: &Entry,
        held: Option<Held>,
        written_at: WallTime,
        edit: Option<&str>,
        insert: &str,
    ) -> Result<(), StoreError> {
        let (kind, key) = subject_key(entry.state.subject());
        let sql = format!(
            "{insert} INTO change_log (journal, sequence, epoch, operation, written_at, aor, kind, key,
                 is_removal, is_replaced, edit) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10)"
        );
        let save = || -> rusqlite::Result<()> {
            self.connection.prepare_cached(&sql)?.execute(params![
                self.row.id,
                stored(entry.sequence)?,
                stored(entry.epoch.number())?,
                operation_octets(entry.operation),
                stored(written_at.as_micros())?,
                entry.aor.as_str(),
                kind,
                key,
                matches!(entry.state, EntryState::Removed(_)),
                edit,
            ])?;
            if let Some(held) = held.filter(|held| !held.is_leftover) {
                self.connection
                    .prepare_cached(
                        "UPDATE change_log SET is_replaced = 1 WHERE journal = ?1 AND sequence = ?2",
                    )?
                    .execute(params![self.row.id, stored(held.version)?])?;
            }
            Ok(())
        };
        save().map_err(|error| self.read_error(error))
    }
}

/// An operation that is remembered.
pub(super) struct Found {
    pub(super) sequence: u64,
    pub(super) aor: String,
    pub(super) subject: Option<Subject>,
    pub(super) is_removal: bool,
}

/// What of a state goes into which column.
#[derive(Default)]
struct Content<'e> {
    home: Option<&'e PoolName>,
    credentials: Option<&'e Credentials>,
    algorithms: Option<&'e [DigestAlgorithm]>,
    body: Option<String>,
}

impl<'e> Content<'e> {
    fn of(state: &'e EntryState) -> Self {
        match state {
            EntryState::Removed(_) => Self::default(),
            EntryState::Account { home, credentials, algorithms } => Self {
                home: Some(home),
                credentials: Some(credentials),
                algorithms: algorithms.as_deref(),
                body: None,
            },
            EntryState::Listed { home } => Self { home: Some(home), ..Self::default() },
            EntryState::Document(document) => Self { body: Some(json(document)), ..Self::default() },
            EntryState::Conflict(_, content) => Self { body: Some(json(content)), ..Self::default() },
        }
    }
}

/// The id of a change that another one brings with it: the same wherever and however often it is made.
pub(super) fn derived(
    cause: OperationId,
    purpose: &str,
    aor: &AddressOfRecord,
    subject: Subject,
) -> OperationId {
    let (kind, key) = subject_key(subject);
    let mut hash = Sha256::new();
    for part in [&operation_octets(cause), purpose.as_bytes(), aor.as_str().as_bytes(), &key] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.update(kind.to_be_bytes());
    let octets: [u8; 32] = hash.finalize().into();
    let (id, _) = octets.split_first_chunk().expect("invariant: 32 octets begin with 16");
    OperationId::new(u128::from_be_bytes(*id))
}
