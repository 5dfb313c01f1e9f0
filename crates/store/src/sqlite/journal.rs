//! Pages of the journal: reading them from the account rows, applying those of other stores.

use std::path::Path;

use model::{Epoch, PoolName, WallTime, limits};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Written,
    commit::{Write, forget_replaced, newest_of_each},
    rows::{Home, Position, address, algorithms, credentials, number, store_error, stored},
};
use crate::{
    Account, AccountState, ApplyError, Cursor, Entry, EntryState, JournalError, OperationId, Page, Scope,
    StoreError,
};

/// Reads the page after `cursor`.
pub(super) fn page(
    connection: &Connection,
    file: &Path,
    cursor: &Cursor,
    max: usize,
    scope: Scope,
) -> Result<Page, JournalError> {
    let read = |error| store_error(file, error);
    let home = &cursor.home;
    let Some(row) = Home::find(connection, home).map_err(read)? else {
        if cursor.sequence > 0 {
            return Err(JournalError::Ahead { home: home.clone(), sequence: cursor.sequence, last: 0 });
        }
        return Ok(Page::new(scope, Epoch::ZERO, cursor.clone(), Vec::new(), true));
    };
    if scope == Scope::Accounts && row.is_directory_only() {
        return Err(JournalError::DirectoryOnly { home: home.clone() });
    }
    let last = row.at(scope).sequence;
    if cursor.sequence > last {
        return Err(JournalError::Ahead { home: home.clone(), sequence: cursor.sequence, last });
    }
    if !agrees(connection, &row, cursor).map_err(read)? {
        let (sequence, theirs) = (cursor.sequence, cursor.epoch);
        return Err(JournalError::Diverged { home: home.clone(), sequence, theirs });
    }
    let max = max.clamp(1, limits::ACCOUNTS_PER_PAGE_MAX);
    let mut entries = entries(connection, file, &row, cursor, max.saturating_add(1), scope)?;
    let is_end = entries.len() <= max;
    entries.truncate(max);
    Ok(Page::new(scope, row.epoch, cursor.clone(), entries, is_end))
}

/// Whether the reader's last change can be ours: same epoch under its number or, when that change was
/// replaced since, an epoch between those of its neighbours.
fn agrees(connection: &Connection, row: &Home, cursor: &Cursor) -> rusqlite::Result<bool> {
    let neighbour = |sql: &str| -> rusqlite::Result<Option<(u64, u64)>> {
        connection
            .prepare_cached(sql)?
            .query_row(params![row.id, stored(cursor.sequence)?], |row| {
                Ok((number(row, 0)?, number(row, 1)?))
            })
            .optional()
    };
    let before = neighbour(
        "SELECT version, epoch FROM account WHERE home = ?1 AND version <= ?2 ORDER BY version DESC LIMIT 1",
    )?;
    let after = neighbour(
        "SELECT version, epoch FROM account WHERE home = ?1 AND version > ?2 ORDER BY version LIMIT 1",
    )?;
    let epoch = cursor.epoch.number();
    Ok(match before {
        Some((version, found)) if version == cursor.sequence => found == epoch,
        Some((_, found)) if found > epoch => false,
        Some(_) | None => after.is_none_or(|(_, found)| epoch <= found),
    })
}

fn entries(
    connection: &Connection,
    file: &Path,
    row: &Home,
    cursor: &Cursor,
    max: usize,
    scope: Scope,
) -> Result<Vec<Entry>, StoreError> {
    let read = |error| store_error(file, error);
    // A directory page is made without reading the secrets at all.
    let secrets = match scope {
        Scope::Accounts => "ha1_md5, ha1_sha256, algorithms",
        Scope::Directory => "NULL, NULL, NULL",
    };
    let sql = format!(
        "SELECT version, epoch, operation, aor, changed_at, is_removed, {secrets} FROM account
         WHERE home = ?1 AND version > ?2 ORDER BY version LIMIT ?3"
    );
    let mut query = connection.prepare_cached(&sql).map_err(read)?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let mut found =
        query.query(params![row.id, stored(cursor.sequence).map_err(read)?, limit]).map_err(read)?;
    let mut entries = Vec::new();
    let mut last = cursor.sequence;
    while let Some(row) = found.next().map_err(read)? {
        let sequence = number(row, 0).map_err(read)?;
        let aor: String = row.get(3).map_err(read)?;
        let is_removed: bool = row.get(5).map_err(read)?;
        let state = match (is_removed, scope) {
            (true, _) => EntryState::Removed,
            (false, Scope::Directory) => EntryState::Listed,
            (false, Scope::Accounts) => {
                let text: Option<String> = row.get(8).map_err(read)?;
                let found = credentials(row.get(6).map_err(read)?, row.get(7).map_err(read)?);
                EntryState::Account {
                    credentials: found
                        .ok_or_else(|| StoreError::corrupt(file, format!("{aor} has no credentials")))?,
                    algorithms: algorithms(text.as_deref(), file)?,
                }
            }
        };
        entries.push(Entry {
            first: last.saturating_add(1),
            sequence,
            epoch: Epoch::new(number(row, 1).map_err(read)?),
            operation: OperationId::new(u128::from_be_bytes(row.get(2).map_err(read)?)),
            aor: address(&aor, file)?,
            changed_at: WallTime::from_micros(number(row, 4).map_err(read)?),
            state,
        });
        last = sequence;
    }
    Ok(entries)
}

/// Applies a page whose checksum was verified, inside a transaction that the caller commits.
pub(super) fn apply(
    connection: &Connection,
    file: &Path,
    home: &PoolName,
    page: &Page,
) -> Result<Written<Cursor>, ApplyError> {
    let read = |error| store_error(file, error);
    if page.after().home != *home {
        return Err(ApplyError::WrongHome { expected: home.clone(), found: page.after().home.clone() });
    }
    let mut row = Home::open(connection, file, home)?
        .ok_or(ApplyError::TooManyHomes { max: limits::HOME_POOLS_MAX })?;
    row.epoch = row.epoch.admit(page.epoch())?;
    let scope = page.scope();
    if scope == Scope::Directory && row.accounts.sequence > 0 {
        return Err(ApplyError::HoldsAccounts { home: home.clone() });
    }
    check_continuity(home, row.at(scope), page)?;
    let mut accounts = Vec::with_capacity(page.entries().len());
    let held = row.at(scope).sequence;
    let mut position = row.at(scope);
    for entry in page.entries().iter().filter(|entry| entry.sequence > held) {
        position = Position { sequence: entry.sequence, epoch: entry.epoch };
        if apply_entry(connection, &row, entry, scope).map_err(read)? {
            accounts.push(state_after(entry, home));
        }
    }
    match scope {
        Scope::Accounts => {
            row.accounts = position;
            if row.directory.sequence <= position.sequence {
                row.directory = position;
            }
        }
        Scope::Directory => row.directory = position,
    }
    row.save(connection).map_err(read)?;
    forget_replaced(connection, &row).map_err(read)?;
    Ok(Written {
        answer: position.cursor(home),
        sequence: row.directory.sequence,
        accounts: newest_of_each(accounts),
    })
}

/// Refuses a page that leaves changes out, or that has another change where this store holds one.
fn check_continuity(home: &PoolName, held: Position, page: &Page) -> Result<(), ApplyError> {
    let after = page.after();
    if after.sequence > held.sequence {
        return Err(ApplyError::Gap { home: home.clone(), expected: held.sequence, found: after.sequence });
    }
    let same_number = page
        .entries()
        .iter()
        .map(|entry| (entry.sequence, entry.epoch))
        .chain([(after.sequence, after.epoch)])
        .find(|(sequence, _)| *sequence == held.sequence);
    match same_number {
        Some((sequence, theirs)) if theirs != held.epoch => {
            Err(ApplyError::Diverged { home: home.clone(), sequence, ours: held.epoch, theirs })
        }
        Some(_) | None => Ok(()),
    }
}

/// Writes one entry unless this store holds something newer; returns whether it did.
fn apply_entry(connection: &Connection, row: &Home, entry: &Entry, scope: Scope) -> rusqlite::Result<bool> {
    let held = connection
        .prepare_cached("SELECT version FROM account WHERE aor = ?1 AND home = ?2")?
        .query_row(params![entry.aor.as_str(), row.id], |row| number(row, 0))
        .optional()?;
    if held.is_some_and(|held| held > entry.sequence) {
        return Ok(false);
    }
    let (is_removed, credentials, algorithms) = match &entry.state {
        EntryState::Removed => (true, None, None),
        EntryState::Listed => (false, None, None),
        EntryState::Account { credentials, algorithms } => (false, Some(credentials), algorithms.as_deref()),
    };
    let write = Write {
        home: row.id,
        at: Position { sequence: entry.sequence, epoch: entry.epoch },
        operation: entry.operation,
        aor: &entry.aor,
        changed_at: entry.changed_at.as_micros(),
        is_removed,
        credentials,
        algorithms,
    };
    match scope {
        Scope::Accounts => write.save(connection, held.filter(|held| *held < entry.sequence))?,
        Scope::Directory => write.save_account(connection)?,
    }
    Ok(true)
}

fn state_after(entry: &Entry, home: &PoolName) -> AccountState {
    let (credentials, algorithms) = match &entry.state {
        EntryState::Removed => return AccountState::Removed(entry.aor.clone()),
        EntryState::Listed => (None, None),
        EntryState::Account { credentials, algorithms } => (Some(*credentials), algorithms.clone()),
    };
    AccountState::Present(Account {
        aor: entry.aor.clone(),
        home: home.clone(),
        credentials,
        algorithms,
        version: entry.sequence,
        epoch: entry.epoch,
        changed_at: entry.changed_at,
    })
}
