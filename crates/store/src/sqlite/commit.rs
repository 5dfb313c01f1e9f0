//! The transaction of [`crate::UserStore::commit`].

use std::path::Path;

use model::{AddressOfRecord, Epoch, PoolName, limits};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Written,
    rows::{Home, Homes, Position, algorithms_text, number, operation_octets, store_error, stored},
};
use crate::{
    Account, AccountChange, AccountState, AccountWrite, CommitError, Committed, Condition, Credentials,
    DigestAlgorithm, OperationId, StoreError,
};

/// Makes the changes inside a transaction that the caller commits.
pub(super) fn commit(
    connection: &Connection,
    file: &Path,
    home: &PoolName,
    epoch: Epoch,
    changes: &[AccountChange],
) -> Result<Written<Vec<Committed>>, CommitError> {
    let max = limits::ACCOUNTS_PER_PAGE_MAX;
    if changes.len() > max {
        return Err(CommitError::TooMany { found: changes.len(), max });
    }
    let read = |error| store_error(file, error);
    let mut row = Home::open(connection, file, home)?
        .ok_or(CommitError::TooManyHomes { max: limits::HOME_POOLS_MAX })?;
    row.epoch = row.epoch.admit(epoch)?;
    if row.is_directory_only() {
        return Err(CommitError::DirectoryOnly { home: home.clone() });
    }
    let mut answer = Vec::with_capacity(changes.len());
    let mut accounts = Vec::with_capacity(changes.len());
    for change in changes {
        if let Some(repeated) = find_operation(connection, row.id, change).map_err(read)? {
            let version = repeated.ok_or(CommitError::OperationReused { operation: change.operation })?;
            answer.push(Committed { version, is_repeated: true });
            continue;
        }
        let present = find_account(connection, file, row.id, &change.aor)?;
        check_condition(change, &present, home)?;
        let version = row.accounts.sequence.saturating_add(1);
        row.accounts = Position { sequence: version, epoch };
        row.directory = row.accounts;
        let write = Write::of(change, row.id, row.accounts);
        write.save(connection, present.replaced).map_err(read)?;
        accounts.push(after(change, home, row.accounts));
        answer.push(Committed { version, is_repeated: false });
    }
    row.save(connection).map_err(read)?;
    forget_replaced(connection, &row).map_err(read)?;
    Ok(Written { answer, sequence: row.accounts.sequence, accounts: newest_of_each(accounts) })
}

/// One account row and its journal row, ready to be written.
pub(super) struct Write<'a> {
    pub(super) home: i64,
    pub(super) at: Position,
    pub(super) operation: OperationId,
    pub(super) aor: &'a AddressOfRecord,
    pub(super) changed_at: u64,
    pub(super) is_removed: bool,
    pub(super) credentials: Option<&'a Credentials>,
    pub(super) algorithms: Option<&'a [DigestAlgorithm]>,
}

impl<'a> Write<'a> {
    fn of(change: &'a AccountChange, home: i64, at: Position) -> Self {
        let (is_removed, credentials, algorithms) = match &change.write {
            AccountWrite::Put { credentials, algorithms } => {
                (false, Some(credentials), algorithms.as_deref())
            }
            AccountWrite::Remove => (true, None, None),
        };
        Self {
            home,
            at,
            operation: change.operation,
            aor: &change.aor,
            changed_at: change.changed_at.as_micros(),
            is_removed,
            credentials,
            algorithms,
        }
    }

    /// Writes both rows; `replaced` is the number of the account's previous change in this home pool.
    pub(super) fn save(&self, connection: &Connection, replaced: Option<u64>) -> rusqlite::Result<()> {
        self.save_account(connection)?;
        let mut insert = connection.prepare_cached(
            "INSERT OR IGNORE INTO journal (home, sequence, epoch, operation, aor, is_removal, is_replaced)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)",
        )?;
        insert.execute(params![
            self.home,
            stored(self.at.sequence)?,
            stored(self.at.epoch.number())?,
            operation_octets(self.operation),
            self.aor.as_str(),
            self.is_removed,
        ])?;
        if let Some(sequence) = replaced {
            connection
                .prepare_cached("UPDATE journal SET is_replaced = 1 WHERE home = ?1 AND sequence = ?2")?
                .execute(params![self.home, stored(sequence)?])?;
        }
        Ok(())
    }

    /// Writes the account row only.
    pub(super) fn save_account(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut upsert = connection.prepare_cached(
            "INSERT INTO account (aor, home, version, epoch, operation, changed_at, is_removed,
                                  ha1_md5, ha1_sha256, algorithms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (aor, home) DO UPDATE SET
                 version = excluded.version, epoch = excluded.epoch, operation = excluded.operation,
                 changed_at = excluded.changed_at, is_removed = excluded.is_removed,
                 ha1_md5 = excluded.ha1_md5, ha1_sha256 = excluded.ha1_sha256,
                 algorithms = excluded.algorithms",
        )?;
        upsert.execute(params![
            self.aor.as_str(),
            self.home,
            stored(self.at.sequence)?,
            stored(self.at.epoch.number())?,
            operation_octets(self.operation),
            stored(self.changed_at)?,
            self.is_removed,
            self.credentials.map(|credentials| credentials.ha1_md5),
            self.credentials.map(|credentials| credentials.ha1_sha256),
            algorithms_text(self.algorithms),
        ])?;
        Ok(())
    }
}

/// Forgets changes that later ones replaced, when they are older than what is remembered.
pub(super) fn forget_replaced(connection: &Connection, row: &Home) -> rusqlite::Result<()> {
    let oldest = row.accounts.sequence.saturating_sub(limits::JOURNAL_OPERATIONS_MAX);
    connection
        .prepare_cached("DELETE FROM journal WHERE home = ?1 AND sequence <= ?2 AND is_replaced")?
        .execute(params![row.id, stored(oldest)?])?;
    Ok(())
}

/// Keeps the last state of each account, in the order in which they changed last.
pub(super) fn newest_of_each(mut accounts: Vec<AccountState>) -> Vec<AccountState> {
    let mut seen = hashbrown::HashSet::with_capacity(accounts.len());
    accounts.reverse();
    accounts.retain(|account| match account {
        AccountState::Present(Account { aor, .. }) | AccountState::Removed(aor) => seen.insert(aor.clone()),
    });
    accounts.reverse();
    accounts
}

/// The number under which this operation is in the journal: `None` = it is not, `Some(None)` = for another
/// change.
fn find_operation(
    connection: &Connection,
    home: i64,
    change: &AccountChange,
) -> rusqlite::Result<Option<Option<u64>>> {
    let mut query = connection.prepare_cached(
        "SELECT sequence, home = ?2 AND aor = ?3 AND is_removal = ?4 FROM journal WHERE operation = ?1",
    )?;
    let is_removal = matches!(change.write, AccountWrite::Remove);
    query
        .query_row(
            params![operation_octets(change.operation), home, change.aor.as_str(), is_removal],
            |row| {
                let is_same: bool = row.get(1)?;
                Ok(is_same.then_some(number(row, 0)?))
            },
        )
        .optional()
}

/// What is known of an address-of-record before a change.
struct Present {
    /// Version of the account in this home pool.
    here: Option<u64>,
    /// Another home pool that has one.
    elsewhere: Option<PoolName>,
    /// Number of the last change in this home pool, a removal included.
    replaced: Option<u64>,
}

fn find_account(
    connection: &Connection,
    file: &Path,
    home: i64,
    aor: &AddressOfRecord,
) -> Result<Present, StoreError> {
    let read = |error| store_error(file, error);
    let mut query = connection
        .prepare_cached("SELECT home, version, is_removed FROM account WHERE aor = ?1 ORDER BY home")
        .map_err(read)?;
    let mut found = query.query([aor.as_str()]).map_err(read)?;
    let mut present = Present { here: None, elsewhere: None, replaced: None };
    while let Some(row) = found.next().map_err(read)? {
        let (row_home, version): (i64, u64) = (row.get(0).map_err(read)?, number(row, 1).map_err(read)?);
        let is_removed: bool = row.get(2).map_err(read)?;
        if row_home == home {
            present.replaced = Some(version);
            present.here = (!is_removed).then_some(version);
        } else if !is_removed {
            present.elsewhere = Homes::load(connection, file)?.name(row_home).cloned();
        }
    }
    Ok(present)
}

fn check_condition(change: &AccountChange, present: &Present, home: &PoolName) -> Result<(), CommitError> {
    let aor = || change.aor.clone();
    let exists = present.here.is_some() || present.elsewhere.is_some();
    match change.condition {
        Condition::Absent if exists => return Err(CommitError::Exists { aor: aor() }),
        Condition::Version(expected) if present.here != Some(expected) => {
            return Err(CommitError::Changed { aor: aor(), expected, found: present.here.unwrap_or(0) });
        }
        Condition::Absent | Condition::Version(_) | Condition::Any => {}
    }
    match (&change.write, &present.elsewhere) {
        (AccountWrite::Put { .. }, Some(elsewhere)) => {
            Err(CommitError::HomedElsewhere { aor: aor(), home: elsewhere.clone() })
        }
        (AccountWrite::Remove, _) if present.here.is_none() => {
            Err(CommitError::Missing { aor: aor(), home: home.clone() })
        }
        (AccountWrite::Put { .. } | AccountWrite::Remove, _) => Ok(()),
    }
}

fn after(change: &AccountChange, home: &PoolName, at: Position) -> AccountState {
    match &change.write {
        AccountWrite::Put { credentials, algorithms } => AccountState::Present(Account {
            aor: change.aor.clone(),
            home: home.clone(),
            credentials: Some(*credentials),
            algorithms: algorithms.clone(),
            version: at.sequence,
            epoch: at.epoch,
            changed_at: change.changed_at,
        }),
        AccountWrite::Remove => AccountState::Removed(change.aor.clone()),
    }
}
