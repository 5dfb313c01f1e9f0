//! `RedbControlStore`: control records in one redb file.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    ops::Bound,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::redb::{CommitError, Database, DatabaseError, Error, ReadableDatabase, TableDefinition};
use model::limits;

use crate::{
    CasOutcome, ControlError, ControlStore, Listing, StoreError, Versioned,
    control::{check_key, check_value},
    lock::patiently,
};

/// The file format of redb 4.
const REDB_FORMAT: u64 = 3;
/// Key to (version, revision, value).
const RECORDS: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("records 1");

/// Control records in one redb file; every write is synced before it is answered.
///
/// One process at a time; a second one is refused. Versions and revisions are kept in memory too, so that
/// waiting and refused writes do not touch the disk.
pub struct RedbControlStore {
    file: PathBuf,
    database: Database,
    known: Mutex<Known>,
    changed: Condvar,
}

/// What is on disk, without the values.
#[derive(Default)]
struct Known {
    revision: u64,
    records: BTreeMap<String, Place>,
}

#[derive(Clone, Copy)]
struct Place {
    version: u64,
    revision: u64,
}

impl RedbControlStore {
    /// Opens `file`, creating it and its directory where needed, and repairs what a crash left half written.
    ///
    /// Errors: [`StoreError`].
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory).map_err(|error| StoreError::from_io(file, error))?;
        }
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(file);
        let is_new = opened
            .and_then(|opened| opened.metadata())
            .map_err(|error| StoreError::from_io(file, error))?
            .len()
            == 0;
        let database = patiently(|| Database::create(file).map_err(|error| open_error(file, error)))?;
        let mut store = Self {
            file: file.to_owned(),
            database,
            known: Mutex::new(Known::default()),
            changed: Condvar::new(),
        };
        if is_new {
            store.create_table()?;
        }
        let known = store.read_known()?;
        tracing::info!(file = %file.display(), records = known.records.len(), "control store open");
        store.known = Mutex::new(known);
        Ok(store)
    }

    /// Where the data lies.
    pub fn file(&self) -> &Path {
        &self.file
    }

    fn create_table(&self) -> Result<(), StoreError> {
        let txn = self.database.begin_write().map_err(|error| self.error(error))?;
        txn.open_table(RECORDS).map_err(|error| self.error(error))?;
        txn.commit().map_err(|error| self.error(error))
    }

    fn read_known(&self) -> Result<Known, StoreError> {
        let mut known = Known::default();
        for (key, record) in self.read_range(Bound::Unbounded, |_| true)? {
            known.revision = known.revision.max(record.revision);
            known.records.insert(key, Place { version: record.version, revision: record.revision });
        }
        Ok(known)
    }

    /// The records from `from` on, as long as `wanted` says so.
    fn read_range(
        &self,
        from: Bound<&str>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, Versioned)>, StoreError> {
        let txn = self.database.begin_read().map_err(|error| self.error(error))?;
        let table = txn.open_table(RECORDS).map_err(|error| self.error(error))?;
        let mut records = Vec::new();
        for entry in table.range::<&str>((from, Bound::Unbounded)).map_err(|error| self.error(error))? {
            let (key, record) = entry.map_err(|error| self.error(error))?;
            if !wanted(key.value()) {
                break;
            }
            records.push((key.value().to_owned(), versioned(record.value())));
        }
        Ok(records)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Held only around reads and after a write is durable: a panic leaves it as it was.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, error: impl Into<Error>) -> StoreError {
        store_error(&self.file, error.into())
    }
}

impl ControlStore for RedbControlStore {
    fn get(&self, key: &str) -> Result<Option<Versioned>, ControlError> {
        check_key(key)?;
        let txn = self.database.begin_read().map_err(|error| self.error(error))?;
        let table = txn.open_table(RECORDS).map_err(|error| self.error(error))?;
        let record = table.get(key).map_err(|error| self.error(error))?;
        Ok(record.map(|record| versioned(record.value())))
    }

    fn compare_and_set(&self, key: &str, expected: u64, value: &[u8]) -> Result<CasOutcome, ControlError> {
        check_key(key)?;
        check_value(value)?;
        let mut known = self.known();
        let found = known.records.get(key).map_or(0, |place| place.version);
        if found != expected {
            drop(known);
            return Ok(CasOutcome::Conflict { found: self.get(key)? });
        }
        if found == 0 && known.records.len() >= limits::CONTROL_RECORDS_MAX {
            return Err(ControlError::Records { max: limits::CONTROL_RECORDS_MAX });
        }
        let place = Place { version: found.saturating_add(1), revision: known.revision.saturating_add(1) };
        let txn = self.database.begin_write().map_err(|error| self.error(error))?;
        {
            let mut table = txn.open_table(RECORDS).map_err(|error| self.error(error))?;
            table.insert(key, (place.version, place.revision, value)).map_err(|error| self.error(error))?;
        }
        txn.commit().map_err(|error: CommitError| ControlError::Unknown(self.error(error)))?;
        known.revision = place.revision;
        known.records.insert(key.to_owned(), place);
        drop(known);
        self.changed.notify_all();
        Ok(CasOutcome::Stored { version: place.version, revision: place.revision })
    }

    fn list(&self, prefix: &str) -> Result<Listing, ControlError> {
        // No write can end between the revision and the records: both are taken under the writers' lock.
        let known = self.known();
        let records = self.read_range(Bound::Included(prefix), |key| key.starts_with(prefix))?;
        Ok(Listing { revision: known.revision, records })
    }

    fn wait_for_change(
        &self,
        prefix: &str,
        after: u64,
        timeout: Duration,
    ) -> Result<Option<u64>, ControlError> {
        let (known, _) = self
            .changed
            .wait_timeout_while(self.known(), timeout, |known| newest(known, prefix) <= after)
            .unwrap_or_else(PoisonError::into_inner);
        let newest = newest(&known, prefix);
        Ok((newest > after).then_some(newest))
    }
}

/// The highest revision among the records whose key begins with `prefix`; 0 when there are none.
fn newest(known: &Known, prefix: &str) -> u64 {
    known
        .records
        .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(prefix))
        .map(|(_, place)| place.revision)
        .max()
        .unwrap_or(0)
}

fn versioned((version, revision, value): (u64, u64, &[u8])) -> Versioned {
    Versioned { value: value.to_vec(), version, revision }
}

fn open_error(file: &Path, error: DatabaseError) -> StoreError {
    if let DatabaseError::UpgradeRequired(version) = error {
        let (found, known) = (version.into(), REDB_FORMAT);
        return StoreError::NewerFormat { file: file.to_owned(), found, known };
    }
    store_error(file, error.into())
}

fn store_error(file: &Path, error: Error) -> StoreError {
    if let Error::Io(error) = error {
        // redb says so of a file that is none of its own or was cut.
        let is_damage = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
        return if is_damage { StoreError::corrupt(file, error) } else { StoreError::from_io(file, error) };
    }
    if matches!(error, Error::DatabaseAlreadyOpen) {
        StoreError::InUse { file: file.to_owned() }
    } else if is_damage(&error) {
        StoreError::corrupt(file, error)
    } else {
        StoreError::Io { file: file.to_owned(), cause: error.into() }
    }
}

/// Whether the file itself is wrong, rather than an operation on it.
fn is_damage(error: &Error) -> bool {
    matches!(
        error,
        Error::Corrupted(_)
            | Error::RepairAborted
            | Error::TableTypeMismatch { .. }
            | Error::TableDoesNotExist(_)
    )
}
