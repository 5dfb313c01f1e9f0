//! `SqliteUserStore`: user data in one SQLite file, write-ahead log, every commit synced.

mod adopt;
mod commit;
mod ledger;
mod moves;
mod orphans;
mod pages;
mod pools;
mod read;
mod rows;
mod schema;

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{AddressOfRecord, Epoch, PoolName, WallTime, documents::DocumentKind};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, config::DbConfig};

use self::{
    ledger::Ledger,
    pools::{PoolRow, Position},
    read::Snapshot,
    rows::Told,
};
use crate::{
    Account, AdoptError, Adopted, ApplyError, Change, Changes, CommitError, Committed, Conflict, ConflictId,
    Cursor, Departure, Follower, JournalError, Lag, MovePage, OperationId, OrphanPage, Page, PurgeError,
    Purged, RestartError, RewindError, Scope, StoreError, StoredDocument, UserStore, lock::patiently,
};

/// Accounts and documents handed to a follower at a time while it is given those that exist.
const FOLLOW_CHUNK: usize = 1_000;
/// Memory for pages of the connection that writes; negative as SQLite reads KiB.
const WRITER_CACHE_KIB: i64 = -16_384;
/// Connections for reading that are kept open.
const READERS_MAX: usize = 4;

/// User data in one SQLite file.
///
/// Beside `FILE` lie `FILE-wal` and `FILE-shm`, which belong to it, and `FILE.lock`, which keeps a second
/// process out. The files are readable by their owner only.
pub struct SqliteUserStore {
    file: PathBuf,
    writer: Mutex<Writer>,
    readers: Mutex<Vec<Connection>>,
    _lock: File,
}

struct Writer {
    connection: Connection,
    followers: Vec<Follower>,
}

impl SqliteUserStore {
    /// Opens `file`, creating it and its directory where needed; migrates an older schema; looks for damage
    /// quickly.
    ///
    /// Errors: [`StoreError`]; the file is not changed when it is damaged, foreign or of a newer format.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        let lock = patiently(|| create_and_lock(file))?;
        let mut connection = connect(file)?;
        let read = |error| rows::store_error(file, error);
        let found: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(read)?;
        if found != "ok" {
            return Err(StoreError::corrupt(file, found));
        }
        schema::migrate(&mut connection, file)?;
        let mode: String =
            connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).map_err(read)?;
        if mode != "wal" {
            return Err(StoreError::Unreadable {
                file: file.to_owned(),
                cause: format!("its file system has no shared memory, journal mode is {mode}").into(),
            });
        }
        connection.pragma_update(None, "cache_size", WRITER_CACHE_KIB).map_err(read)?;
        tracing::info!(file = %file.display(), "user store open");
        Ok(Self {
            file: file.to_owned(),
            writer: Mutex::new(Writer { connection, followers: Vec::new() }),
            readers: Mutex::new(Vec::new()),
            _lock: lock,
        })
    }

    /// Where the data lies.
    pub fn file(&self) -> &Path {
        &self.file
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic while the lock was held rolled its transaction back, so the connection is sound.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_error(&self, error: rusqlite::Error) -> StoreError {
        rows::store_error(&self.file, error)
    }

    /// Runs `read` in one read transaction: everything it sees is of one moment.
    fn with_reader<T, E: From<StoreError>>(
        &self,
        read: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => connect(&self.file)?,
        };
        let result = {
            let txn = connection.unchecked_transaction().map_err(|error| self.read_error(error))?;
            read(&txn)
        };
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_MAX {
            readers.push(connection);
        }
        result
    }

    /// Runs `read` on one moment of the database.
    fn with_snapshot<T>(
        &self,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with_reader(|txn| read(&Snapshot::new(txn, &self.file)?))
    }

    /// Runs `write` in one transaction and makes it durable, then tells the followers.
    fn with_writer<T, E: From<StoreError>>(
        &self,
        journal: &PoolName,
        unknown: impl FnOnce(StoreError) -> E,
        write: impl FnOnce(&Transaction<'_>) -> Result<Written<T>, E>,
    ) -> Result<T, E> {
        let mut writer = self.writer();
        let Writer { connection, followers } = &mut *writer;
        let txn = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| self.read_error(error))?;
        let written = write(&txn)?;
        txn.commit().map_err(|error| unknown(self.read_error(error)))?;
        if written.has_moved {
            let Told { accounts, documents } = &written.told;
            let changes = Changes { journal, sequence: written.sequence, accounts, documents };
            followers.iter().for_each(|follower| follower(&changes));
        }
        Ok(written.answer)
    }

    /// Moves SQLite's own log into the file, so that it holds nothing that was deleted. While somebody reads,
    /// the rest moves later by itself.
    fn empty_log(&self) -> Result<(), StoreError> {
        let writer = self.writer();
        let emptied = writer.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        emptied.map_err(|error| self.read_error(error))
    }
}

/// What a write transaction did.
struct Written<T> {
    answer: T,
    sequence: u64,
    /// Whether there is anything to tell: the journal has a new end, or rows came or went.
    has_moved: bool,
    told: Told,
}

impl<T> Written<T> {
    fn nothing(answer: T) -> Self {
        Self { answer, sequence: 0, has_moved: false, told: Told::default() }
    }
}

impl UserStore for SqliteUserStore {
    fn commit(
        &self,
        journal: &PoolName,
        epoch: Epoch,
        changes: &[Change],
    ) -> Result<Vec<Committed>, CommitError> {
        self.with_writer(journal, CommitError::Unknown, |txn| {
            commit::commit(txn, &self.file, journal, epoch, changes)
        })
    }

    fn fence(&self, journal: &PoolName, epoch: Epoch) -> Result<(), CommitError> {
        self.with_writer(journal, CommitError::Unknown, |txn| {
            let mut ledger = Ledger::open(txn, &self.file, journal)?;
            ledger.admit::<CommitError>(epoch)?;
            Ok(ledger.finish(())?)
        })
    }

    fn highest_epoch(&self, journal: &PoolName) -> Result<Epoch, StoreError> {
        self.with_reader(|txn| {
            Ok(PoolRow::find(txn, &self.file, journal)?.map_or(Epoch::ZERO, |row| row.epoch))
        })
    }

    fn read(&self, aor: &AddressOfRecord) -> Result<Option<Account>, StoreError> {
        self.with_snapshot(|now| now.account(aor))
    }

    fn list(
        &self,
        home: &PoolName,
        after: Option<&AddressOfRecord>,
        max: usize,
    ) -> Result<Vec<Account>, StoreError> {
        self.with_snapshot(|now| now.accounts_homed_on(home, after, max))
    }

    fn load_all(&self, each: &mut dyn FnMut(Account)) -> Result<(), StoreError> {
        self.with_snapshot(|now| now.each_account(each))
    }

    fn document(
        &self,
        journal: &PoolName,
        aor: &AddressOfRecord,
        kind: DocumentKind,
    ) -> Result<Option<StoredDocument>, StoreError> {
        self.with_snapshot(|now| now.document(journal, aor, kind))
    }

    fn documents(
        &self,
        journal: &PoolName,
        aor: &AddressOfRecord,
    ) -> Result<Vec<StoredDocument>, StoreError> {
        self.with_snapshot(|now| now.documents(journal, aor))
    }

    fn list_documents(
        &self,
        journal: &PoolName,
        kind: DocumentKind,
        after: Option<&AddressOfRecord>,
        max: usize,
    ) -> Result<Vec<StoredDocument>, StoreError> {
        self.with_snapshot(|now| now.list_documents(journal, kind, after, max))
    }

    fn conflicts(
        &self,
        journal: &PoolName,
        after: Option<ConflictId>,
        max: usize,
    ) -> Result<Vec<Conflict>, StoreError> {
        self.with_snapshot(|now| now.conflicts(journal, after, max))
    }

    fn conflict(&self, journal: &PoolName, id: ConflictId) -> Result<Option<Conflict>, StoreError> {
        self.with_snapshot(|now| now.conflict(journal, id))
    }

    fn follow(&self, follower: Follower) -> Result<(), StoreError> {
        // The writer's lock is held throughout: no change can come between what exists and what follows.
        let mut writer = self.writer();
        let txn = writer.connection.transaction().map_err(|error| self.read_error(error))?;
        let now = Snapshot::new(&txn, &self.file)?;
        for row in now.pools().journals() {
            let (journal, sequence) = (&row.name, row.position.sequence);
            let tell = |told: &Told| {
                let Told { accounts, documents } = told;
                follower(&Changes { journal, sequence, accounts, documents });
            };
            let mut told = Told::default();
            now.each_followed(row.id, &mut |entry| {
                told.push(journal, entry);
                if told.len() == FOLLOW_CHUNK {
                    tell(&told);
                    told = Told::default();
                }
            })?;
            tell(&told);
        }
        drop(txn);
        writer.followers.push(follower);
        Ok(())
    }

    fn journals(&self) -> Result<Vec<PoolName>, StoreError> {
        self.with_snapshot(|now| Ok(now.pools().journals().iter().map(|row| row.name.clone()).collect()))
    }

    fn cursor(&self, journal: &PoolName, scope: &Scope) -> Result<Cursor, StoreError> {
        self.with_reader(|txn| {
            let row = PoolRow::find(txn, &self.file, journal)?.filter(|row| row.scope == *scope);
            Ok(row.map_or(Position::START, |row| row.position).cursor(journal))
        })
    }

    fn whole(&self, journal: &PoolName) -> Result<Cursor, StoreError> {
        self.with_reader(|txn| {
            let Some(row) = PoolRow::find(txn, &self.file, journal)? else {
                return Ok(Cursor::start(journal.clone()));
            };
            let epoch = row.epoch_at(txn, row.whole).map_err(|error| self.read_error(error))?;
            Ok(Position { sequence: row.whole, epoch }.cursor(journal))
        })
    }

    fn journal(&self, cursor: &Cursor, max: usize, scope: &Scope) -> Result<Page, JournalError> {
        self.with_reader(|txn| pages::page(txn, &self.file, cursor, max, scope))
    }

    fn apply(&self, journal: &PoolName, page: &Page) -> Result<Cursor, ApplyError> {
        page.check()?;
        self.with_writer(journal, ApplyError::Unknown, |txn| pages::apply(txn, &self.file, journal, page))
    }

    fn lag(&self, cursor: &Cursor) -> Result<Lag, StoreError> {
        self.with_reader(|txn| read::lag(txn, &self.file, cursor))
    }

    fn common(&self, theirs: &Cursor) -> Result<Cursor, StoreError> {
        self.with_reader(|txn| {
            let Some(row) = PoolRow::find(txn, &self.file, &theirs.journal)? else {
                return Ok(Cursor::start(theirs.journal.clone()));
            };
            let common = row.common(txn, theirs).map_err(|error| self.read_error(error))?;
            Ok(common.cursor(&theirs.journal))
        })
    }

    fn orphans(&self, common: &Cursor, after: u64, max: usize) -> Result<OrphanPage, JournalError> {
        self.with_reader(|txn| orphans::orphans(txn, &self.file, common, after, max))
    }

    fn adopt(&self, epoch: Epoch, now: WallTime, page: &OrphanPage) -> Result<Vec<Adopted>, AdoptError> {
        page.check()?;
        self.with_writer(&page.common().journal, AdoptError::Unknown, |txn| {
            adopt::adopt(txn, &self.file, epoch, now, page)
        })
    }

    fn rewind(&self, common: &Cursor, adopted: u64) -> Result<(), RewindError> {
        self.with_writer(&common.journal, RewindError::Unknown, |txn| {
            orphans::rewind(txn, &self.file, common, adopted)
        })
    }

    fn restart(&self, journal: &PoolName, epoch: Epoch) -> Result<(), RestartError> {
        self.with_writer(journal, RestartError::Unknown, |txn| {
            orphans::restart(txn, &self.file, journal, epoch)
        })
    }

    fn account(&self, journal: &PoolName, aor: &AddressOfRecord) -> Result<Option<Account>, StoreError> {
        self.with_snapshot(|now| now.account_in(journal, aor))
    }

    fn journals_of(&self, home: &PoolName) -> Result<Vec<PoolName>, StoreError> {
        self.with_snapshot(|now| now.journals_of(home))
    }

    fn leaving(
        &self,
        journal: &PoolName,
        home: &PoolName,
        after: Option<&AddressOfRecord>,
        max: usize,
    ) -> Result<MovePage, JournalError> {
        self.with_reader(|txn| moves::leaving(txn, &self.file, journal, home, after, max))
    }

    fn settle(
        &self,
        journal: &PoolName,
        epoch: Epoch,
        now: WallTime,
        page: &MovePage,
    ) -> Result<Cursor, AdoptError> {
        page.check()?;
        self.with_writer(journal, AdoptError::Unknown, |txn| {
            moves::settle(txn, &self.file, journal, epoch, now, page)
        })
    }

    fn depart(
        &self,
        departure: &Departure,
        now: WallTime,
        operation: OperationId,
    ) -> Result<usize, CommitError> {
        self.with_writer(&departure.journal, CommitError::Unknown, |txn| {
            moves::depart(txn, &self.file, departure, now, operation)
        })
    }

    fn purge(&self, journal: &PoolName, own: &PoolName) -> Result<Purged, PurgeError> {
        if journal == own {
            return Err(PurgeError::OwnPool { journal: journal.clone() });
        }
        let purged =
            self.with_writer(journal, PurgeError::Unknown, |txn| orphans::purge(txn, &self.file, journal));
        if purged.is_ok() {
            self.empty_log()?;
        }
        purged
    }

    fn check(&self) -> Result<(), StoreError> {
        self.with_reader(|txn| {
            let found: String = txn
                .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
                .map_err(|error| self.read_error(error))?;
            if found == "ok" { Ok(()) } else { Err(StoreError::corrupt(&self.file, found)) }
        })?;
        self.with_snapshot(|now| now.read_all())
    }
}

/// Creates the file for its owner only and takes the lock that keeps a second process out.
fn create_and_lock(file: &Path) -> Result<File, StoreError> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory).map_err(|error| StoreError::from_io(file, error))?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock_name = file.as_os_str().to_owned();
    lock_name.push(".lock");
    let lock = options.open(&lock_name).map_err(|error| StoreError::from_io(Path::new(&lock_name), error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { file: file.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(StoreError::from_io(file, error)),
    }
    options.open(file).map_err(|error| StoreError::from_io(file, error))?;
    Ok(lock)
}

fn connect(file: &Path) -> Result<Connection, StoreError> {
    let read = |error| rows::store_error(file, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(read)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(read)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Plans do not depend on values that are bound: nothing is prepared twice.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(read)?;
    connection
        .execute_batch(
            "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF;
             PRAGMA cell_size_check=ON; PRAGMA secure_delete=ON;
             PRAGMA temp_store=MEMORY; PRAGMA journal_size_limit=67108864;",
        )
        .map_err(read)?;
    Ok(connection)
}
