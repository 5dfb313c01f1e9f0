//! The schema of the user database and the steps that lead to it.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::rows::store_error;
use crate::StoreError;

/// "TAND": marks a file as ours, so that another program's database is not mistaken for one.
const APPLICATION_ID: i64 = 0x5441_4e44;

/// Step `n` leads from schema `n` to schema `n + 1`. Never change a step that was released; add one.
const STEPS: &[&str] = &[
    "
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
",
    "
    -- One row for each pool that is named: as a journal, or as the home of users in one. epoch is the
    -- highest seen for the journal; sequence and sequence_epoch are the last change held, at the owner the
    -- end. whole is the last change up to which nothing is missing. scope is what is held. While
    -- is_recopying, rows with is_leftover are those that have not come again yet.
    CREATE TABLE pool (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        epoch INTEGER NOT NULL,
        scope TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        sequence_epoch INTEGER NOT NULL,
        whole INTEGER NOT NULL,
        is_recopying INTEGER NOT NULL
    ) STRICT;
    INSERT INTO pool SELECT id, name, epoch,
        iif(accounts_sequence = 0 AND directory_sequence > 0, 'directory', 'everything'),
        iif(accounts_sequence = 0, directory_sequence, accounts_sequence),
        iif(accounts_sequence = 0, directory_epoch, accounts_epoch),
        iif(accounts_sequence > 0 AND directory_sequence > accounts_sequence, 0,
            max(accounts_sequence, directory_sequence)),
        accounts_sequence > 0 AND directory_sequence > accounts_sequence
        FROM home;

    -- What each account (kind 0), document (1 to 4) and conflict (5, with its name as key) is. version is
    -- the number of its last change in the journal, modified that of the last one that did not only state it
    -- again; what was removed stays as a row so that readers of the journal learn of it. home is set for
    -- accounts. ha1_* are NULL where only the directory is held. body is JSON.
    CREATE TABLE document (
        journal INTEGER NOT NULL REFERENCES pool (id),
        version INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        aor TEXT NOT NULL,
        kind INTEGER NOT NULL,
        key BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        operation BLOB NOT NULL,
        changed_at INTEGER NOT NULL,
        is_removed INTEGER NOT NULL,
        is_leftover INTEGER NOT NULL,
        home INTEGER REFERENCES pool (id),
        ha1_md5 BLOB,
        ha1_sha256 BLOB,
        algorithms TEXT,
        body TEXT
    ) STRICT;
    INSERT INTO document SELECT home, version, version, aor, 0, x'', epoch, operation, changed_at, is_removed,
        (SELECT is_recopying AND version > sequence FROM pool WHERE id = home), home, ha1_md5, ha1_sha256,
        algorithms, NULL FROM account ORDER BY aor;
    CREATE UNIQUE INDEX document_by_user ON document (aor, kind, key, journal);
    CREATE UNIQUE INDEX document_by_version ON document (journal, version) WHERE is_leftover = 0;
    CREATE INDEX document_left ON document (journal, aor) WHERE is_leftover = 1;
    CREATE INDEX document_by_home ON document (home, aor) WHERE kind = 0;
    CREATE INDEX conflict_open ON document (journal, key) WHERE kind = 5 AND is_removed = 0;

    -- Every change, numbered from 1 without gaps for each journal; where everything is held. Changes that a
    -- later one replaced are forgotten when they are old. edit is JSON, of edits that can be replayed.
    CREATE TABLE change_log (
        journal INTEGER NOT NULL REFERENCES pool (id),
        sequence INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        operation BLOB NOT NULL,
        written_at INTEGER NOT NULL,
        aor TEXT NOT NULL,
        kind INTEGER NOT NULL,
        key BLOB NOT NULL,
        is_removal INTEGER NOT NULL,
        is_replaced INTEGER NOT NULL,
        edit TEXT,
        PRIMARY KEY (journal, sequence)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO change_log SELECT journal.home, sequence, journal.epoch, journal.operation,
        coalesce(account.changed_at, 0), journal.aor, 0, x'', is_removal, is_replaced, NULL
        FROM journal LEFT JOIN account ON account.aor = journal.aor AND account.home = journal.home;
    CREATE UNIQUE INDEX change_by_operation ON change_log (operation, journal);
    CREATE INDEX change_replaced ON change_log (journal, sequence) WHERE is_replaced = 1;
    CREATE INDEX change_without_edit ON change_log (journal, aor, kind, sequence)
        WHERE edit IS NULL AND kind IN (1, 4);

    -- Where each epoch above zero begins in a journal.
    CREATE TABLE epoch_start (
        journal INTEGER NOT NULL REFERENCES pool (id),
        epoch INTEGER NOT NULL,
        first INTEGER NOT NULL,
        PRIMARY KEY (journal, epoch)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO epoch_start SELECT held.home, held.epoch, min(held.sequence) FROM
        (SELECT home, epoch, version AS sequence FROM account UNION ALL
         SELECT home, epoch, sequence FROM journal) AS held
        JOIN pool ON pool.id = held.home AND held.sequence <= pool.sequence
        WHERE held.epoch > 0 GROUP BY held.home, held.epoch;

    DROP TABLE journal;
    DROP TABLE account;
    DROP TABLE home;
",
];

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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use model::{AddressOfRecord, Epoch, PoolName, WallTime};

    use super::*;
    use crate::{
        Change, Condition, Credentials, Cursor, JournalError, OperationId, Scope, SqliteUserStore, UserStore,
        Write,
    };

    /// A file as the first release wrote it: the owner of `east`, a directory of `west`, and of `north` a
    /// directory that is becoming accounts.
    fn first_release(place: &Path) -> PathBuf {
        let file = place.join("users.sqlite");
        let connection = Connection::open(&file).unwrap();
        connection.pragma_update(None, "journal_mode", "wal").unwrap();
        connection.execute_batch(STEPS[0]).unwrap();
        connection.execute("UPDATE schema SET version = 1", []).unwrap();
        connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        connection
            .execute_batch(
                "INSERT INTO home VALUES (1, 'east', 3, 5, 2, 5, 2);
                 INSERT INTO home VALUES (2, 'west', 0, 0, 0, 2, 0);
                 INSERT INTO home VALUES (3, 'north', 0, 1, 0, 2, 0);
                 INSERT INTO account VALUES
                     ('sip:a@x.org', 1, 4, 2, x'00000000000000000000000000000004', 40, 0, zeroblob(16),
                      zeroblob(32), 'SHA-256'),
                     ('sip:b@x.org', 1, 5, 2, x'00000000000000000000000000000005', 50, 1, NULL, NULL, NULL),
                     ('sip:c@x.org', 1, 2, 1, x'00000000000000000000000000000002', 20, 0, zeroblob(16),
                      zeroblob(32), NULL),
                     ('sip:d@x.org', 2, 2, 0, x'00000000000000000000000000000006', 60, 0, NULL, NULL, NULL),
                     ('sip:e@x.org', 3, 1, 0, x'00000000000000000000000000000007', 70, 0, zeroblob(16),
                      zeroblob(32), NULL),
                     ('sip:f@x.org', 3, 2, 0, x'00000000000000000000000000000008', 80, 0, NULL, NULL, NULL);
                 INSERT INTO journal VALUES
                     (1, 1, 1, x'00000000000000000000000000000001', 'sip:a@x.org', 0, 1),
                     (1, 2, 1, x'00000000000000000000000000000002', 'sip:c@x.org', 0, 0),
                     (1, 3, 1, x'00000000000000000000000000000003', 'sip:b@x.org', 0, 1),
                     (1, 4, 2, x'00000000000000000000000000000004', 'sip:a@x.org', 0, 0),
                     (1, 5, 2, x'00000000000000000000000000000005', 'sip:b@x.org', 1, 0),
                     (3, 1, 0, x'00000000000000000000000000000007', 'sip:e@x.org', 0, 0);",
            )
            .unwrap();
        file
    }

    fn aor(user: &str) -> AddressOfRecord {
        AddressOfRecord::new(&format!("sip:{user}@x.org")).unwrap()
    }

    fn put(operation: u128, user: &str) -> Change {
        let credentials = Credentials { ha1_md5: [1; 16], ha1_sha256: [2; 32] };
        let home = PoolName::new("east").unwrap();
        Change {
            operation: OperationId::new(operation),
            aor: aor(user),
            changed_at: WallTime::from_secs(1),
            condition: Condition::Any,
            write: Write::PutAccount { home, credentials, algorithms: None },
        }
    }

    #[test]
    fn a_file_of_the_first_release_is_migrated_with_accounts_numbers_and_epochs() {
        let place = tempfile::TempDir::new().unwrap();
        let east = PoolName::new("east").unwrap();

        let store = SqliteUserStore::open(&first_release(place.path())).unwrap();

        store.check().unwrap();
        let found = store.read(&aor("a")).unwrap().unwrap();
        assert_eq!((found.journal, found.home, found.version), (east.clone(), east.clone(), 4));
        assert_eq!((found.epoch, found.changed_at), (Epoch::new(2), WallTime::from_micros(40)));
        assert_eq!(found.algorithms.map(|list| list.len()), Some(1));
        assert_eq!(store.read(&aor("b")).unwrap(), None);
        assert_eq!(store.highest_epoch(&east).unwrap(), Epoch::new(3));
        let cursor = store.cursor(&east, &Scope::Everything).unwrap();
        assert_eq!((cursor.sequence, cursor.epoch), (5, Epoch::new(2)));
        let page = store.journal(&Cursor::start(east.clone()), 9, &Scope::Everything).unwrap();
        assert_eq!(page.entries().iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [2, 4, 5]);
        assert_eq!(page.starts().iter().map(|start| start.first).collect::<Vec<_>>(), [1, 4]);
        let behind = Cursor { sequence: 3, epoch: Epoch::new(1), ..cursor };
        assert_eq!(store.lag(&behind).unwrap().changes, 2);
        let repeated = store.commit(&east, Epoch::new(3), &[put(1, "a"), put(9, "g")]).unwrap();
        assert_eq!(repeated.iter().map(|done| done.is_repeated).collect::<Vec<_>>(), [true, false]);
        assert_eq!(repeated.last().map(|done| done.version), Some(6));
    }

    #[test]
    fn copies_of_the_first_release_go_on_where_they_were() {
        let place = tempfile::TempDir::new().unwrap();
        let (west, north) = (PoolName::new("west").unwrap(), PoolName::new("north").unwrap());

        let store = SqliteUserStore::open(&first_release(place.path())).unwrap();

        assert_eq!(store.cursor(&west, &Scope::Directory).unwrap().sequence, 2);
        assert_eq!(store.cursor(&west, &Scope::Everything).unwrap().sequence, 0);
        assert_eq!(store.read(&aor("d")).unwrap().map(|account| account.credentials), Some(None));
        assert_eq!(store.cursor(&north, &Scope::Everything).unwrap().sequence, 1);
        let asked = store.journal(&Cursor::start(north), 9, &Scope::Everything);
        assert!(matches!(asked, Err(JournalError::Recopying { .. })), "{asked:?}");
        assert!(store.read(&aor("f")).unwrap().is_some(), "what is to come again stays readable");
    }
}
