//! The schema of the user database and the steps that lead to it.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::rows::store_error;
use crate::StoreError;

/// "TAND": marks a file as ours, so that another program's database is not mistaken for one.
const APPLICATION_ID: i64 = 0x5441_4e44;

/// Step `n` leads from schema `n` to schema `n + 1`. Never change a step that was released; add one.
const STEPS: &[&str] = &["
    CREATE TABLE schema (version INTEGER NOT NULL) STRICT;
    INSERT INTO schema VALUES (0);

    -- One row for each home pool; epoch is the highest seen. accounts_* and directory_* say up to which
    -- change this store holds accounts and the directory; at the owner both are the end of the journal.
    CREATE TABLE home (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        epoch INTEGER NOT NULL,
        accounts_sequence INTEGER NOT NULL,
        accounts_epoch INTEGER NOT NULL,
        directory_sequence INTEGER NOT NULL,
        directory_epoch INTEGER NOT NULL
    ) STRICT;

    -- What each account is. version is the number of its last change in the journal; a removed account stays
    -- as a row so that readers of the journal learn of it. ha1_* are NULL where only the directory is held.
    CREATE TABLE account (
        aor TEXT NOT NULL,
        home INTEGER NOT NULL REFERENCES home (id),
        version INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        operation BLOB NOT NULL,
        changed_at INTEGER NOT NULL,
        is_removed INTEGER NOT NULL,
        ha1_md5 BLOB,
        ha1_sha256 BLOB,
        algorithms TEXT,
        PRIMARY KEY (aor, home)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX account_by_version ON account (home, version);
    CREATE INDEX account_by_home ON account (home, aor);

    -- Every change, numbered from 1 without gaps for each home pool. Changes that a later one of the same
    -- account replaced are forgotten when they are old.
    CREATE TABLE journal (
        home INTEGER NOT NULL REFERENCES home (id),
        sequence INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        operation BLOB NOT NULL,
        aor TEXT NOT NULL,
        is_removal INTEGER NOT NULL,
        is_replaced INTEGER NOT NULL,
        PRIMARY KEY (home, sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX journal_by_operation ON journal (operation);
    CREATE INDEX journal_replaced ON journal (home, sequence) WHERE is_replaced;
"];

/// Brings the database to the newest schema; each step is one transaction.
pub(super) fn migrate(connection: &mut Connection, file: &Path) -> Result<(), StoreError> {
    let read = |error| store_error(file, error);
    let known = u64::try_from(STEPS.len()).unwrap_or(u64::MAX);
    let found = version(connection, file)?;
    if found > known {
        return Err(StoreError::NewerFormat { file: file.to_owned(), found, known });
    }
    for (step, target) in STEPS.iter().zip(1_i64..).skip(usize::try_from(found).unwrap_or(usize::MAX)) {
        let txn = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(read)?;
        txn.execute_batch(step).map_err(read)?;
        txn.execute("UPDATE schema SET version = ?1", [target]).map_err(read)?;
        txn.pragma_update(None, "application_id", APPLICATION_ID).map_err(read)?;
        txn.commit().map_err(read)?;
        tracing::info!(file = %file.display(), version = target, "user store schema migrated");
    }
    Ok(())
}

/// The schema's version; 0 for an empty file.
fn version(connection: &Connection, file: &Path) -> Result<u64, StoreError> {
    let read = |error| store_error(file, error);
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(read);
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    if tables == 0 {
        return Ok(0);
    }
    if number("PRAGMA application_id")? != APPLICATION_ID {
        return Err(StoreError::corrupt(file, "it is a database of another program"));
    }
    u64::try_from(number("SELECT version FROM schema")?).map_err(|error| StoreError::corrupt(file, error))
}
