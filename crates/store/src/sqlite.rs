//! `SqliteUserStore`: user data in one SQLite file, write-ahead log, every commit synced.

mod commit;
mod journal;
mod rows;
mod schema;

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{AddressOfRecord, Epoch, PoolName, limits};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use self::rows::{Home, Homes};
use crate::{
    Account, AccountChange, AccountState, ApplyError, Changes, CommitError, Committed, Cursor, Follower,
    JournalError, Page, Scope, StoreError, UserStore, lock::patiently,
};

/// Accounts handed to a follower at a time while it is given those that exist.
const FOLLOW_CHUNK: usize = 1_000;
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

    /// Runs `write` in one transaction and makes it durable, then tells the followers.
    fn with_writer<T, E: From<StoreError>>(
        &self,
        home: &PoolName,
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
        if !written.accounts.is_empty() {
            let changes = Changes { home, sequence: written.sequence, accounts: &written.accounts };
            followers.iter().for_each(|follower| follower(&changes));
        }
        Ok(written.answer)
    }
}

/// What a write transaction did.
struct Written<T> {
    answer: T,
    sequence: u64,
    accounts: Vec<AccountState>,
}

impl UserStore for SqliteUserStore {
    fn commit(
        &self,
        home: &PoolName,
        epoch: Epoch,
        changes: &[AccountChange],
    ) -> Result<Vec<Committed>, CommitError> {
        self.with_writer(home, CommitError::Unknown, |txn| {
            commit::commit(txn, &self.file, home, epoch, changes)
        })
    }

    fn fence(&self, home: &PoolName, epoch: Epoch) -> Result<(), CommitError> {
        self.with_writer(home, CommitError::Unknown, |txn| {
            let mut row = Home::open(txn, &self.file, home)?
                .ok_or(CommitError::TooManyHomes { max: limits::HOME_POOLS_MAX })?;
            row.epoch = row.epoch.admit(epoch)?;
            row.save(txn).map_err(|error| self.read_error(error))?;
            Ok(Written { answer: (), sequence: row.accounts.sequence, accounts: Vec::new() })
        })
    }

    fn highest_epoch(&self, home: &PoolName) -> Result<Epoch, StoreError> {
        self.with_reader(|txn| {
            let row = Home::find(txn, home).map_err(|error| self.read_error(error))?;
            Ok(row.map_or(Epoch::ZERO, |row| row.epoch))
        })
    }

    fn read(&self, aor: &AddressOfRecord) -> Result<Option<Account>, StoreError> {
        self.with_reader(|txn| {
            let homes = Homes::load(txn, &self.file)?;
            let sql = format!(
                "SELECT {} FROM account WHERE aor = ?1 AND NOT is_removed
                 ORDER BY changed_at DESC, home LIMIT 1",
                rows::ACCOUNT_COLUMNS
            );
            let mut query = txn.prepare_cached(&sql).map_err(|error| self.read_error(error))?;
            let raw = query
                .query_row([aor.as_str()], rows::RawAccount::read)
                .optional()
                .map_err(|error| self.read_error(error))?;
            raw.map(|raw| raw.check(&homes, &self.file)).transpose()
        })
    }

    fn list(
        &self,
        home: &PoolName,
        after: Option<&AddressOfRecord>,
        max: usize,
    ) -> Result<Vec<Account>, StoreError> {
        self.with_reader(|txn| {
            let homes = Homes::load(txn, &self.file)?;
            let sql = format!(
                "SELECT {} FROM account WHERE home = ?1 AND aor > ?2 AND NOT is_removed
                 ORDER BY aor LIMIT ?3",
                rows::ACCOUNT_COLUMNS
            );
            let after = after.map_or("", AddressOfRecord::as_str);
            let max = i64::try_from(max).unwrap_or(i64::MAX);
            let mut accounts = Vec::new();
            let Some(id) = homes.id(home) else { return Ok(accounts) };
            let mut query = txn.prepare_cached(&sql).map_err(|error| self.read_error(error))?;
            let mut found = query.query(params![id, after, max]).map_err(|error| self.read_error(error))?;
            while let Some(row) = found.next().map_err(|error| self.read_error(error))? {
                let raw = rows::RawAccount::read(row).map_err(|error| self.read_error(error))?;
                accounts.push(raw.check(&homes, &self.file)?);
            }
            Ok(accounts)
        })
    }

    fn load_all(&self, each: &mut dyn FnMut(Account)) -> Result<(), StoreError> {
        self.with_reader(|txn| rows::each_account(txn, &self.file, None, each))
    }

    fn follow(&self, follower: Follower) -> Result<(), StoreError> {
        // The writer's lock is held throughout: no change can come between what exists and what follows.
        let mut writer = self.writer();
        let txn = writer.connection.transaction().map_err(|error| self.read_error(error))?;
        for (home, row) in Homes::load(&txn, &self.file)?.iter() {
            let sequence = row.directory.sequence;
            let mut accounts = Vec::with_capacity(FOLLOW_CHUNK);
            rows::each_account(&txn, &self.file, Some(row.id), &mut |account| {
                accounts.push(AccountState::Present(account));
                if accounts.len() == FOLLOW_CHUNK {
                    follower(&Changes { home, sequence, accounts: &accounts });
                    accounts.clear();
                }
            })?;
            follower(&Changes { home, sequence, accounts: &accounts });
        }
        drop(txn);
        writer.followers.push(follower);
        Ok(())
    }

    fn homes(&self) -> Result<Vec<PoolName>, StoreError> {
        self.with_reader(|txn| {
            Ok(Homes::load(txn, &self.file)?.iter().map(|(name, _)| name.clone()).collect())
        })
    }

    fn cursor(&self, home: &PoolName, scope: Scope) -> Result<Cursor, StoreError> {
        self.with_reader(|txn| {
            let row = Home::find(txn, home).map_err(|error| self.read_error(error))?;
            Ok(row.map_or_else(|| Cursor::start(home.clone()), |row| row.at(scope).cursor(home)))
        })
    }

    fn journal(&self, cursor: &Cursor, max: usize, scope: Scope) -> Result<Page, JournalError> {
        self.with_reader(|txn| journal::page(txn, &self.file, cursor, max, scope))
    }

    fn apply(&self, home: &PoolName, page: &Page) -> Result<Cursor, ApplyError> {
        page.check()?;
        self.with_writer(home, ApplyError::Unknown, |txn| journal::apply(txn, &self.file, home, page))
    }

    fn check(&self) -> Result<(), StoreError> {
        self.with_reader(|txn| {
            let found: String = txn
                .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
                .map_err(|error| self.read_error(error))?;
            if found == "ok" { Ok(()) } else { Err(StoreError::corrupt(&self.file, found)) }
        })?;
        self.load_all(&mut drop)
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
    connection.set_prepared_statement_cache_capacity(32);
    connection
        .execute_batch(
            "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF;
             PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY; PRAGMA journal_size_limit=67108864;",
        )
        .map_err(read)?;
    Ok(connection)
}
