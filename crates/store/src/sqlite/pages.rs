//! Pages of the journal: reading them from the rows, applying those of other stores.

use std::path::Path;

use model::{AddressOfRecord, Epoch, PoolName, limits};
use rusqlite::{Connection, params};

use super::{
    Written,
    ledger::Ledger,
    pools::{PoolRow, Pools, Position},
    rows::{self, RawRow, number, store_error, stored},
};
use crate::{
    ApplyError, Cursor, Entry, EntryState, EpochStart, JournalError, Page, PageContent, Scope, StoreError,
    Subject,
};

/// Reads the page after `cursor`.
pub(super) fn page(
    connection: &Connection,
    file: &Path,
    cursor: &Cursor,
    max: usize,
    scope: &Scope,
) -> Result<Page, JournalError> {
    let read = |error| store_error(file, error);
    let Some(row) = PoolRow::find(connection, file, &cursor.journal)? else {
        check_position(connection, file, &nothing(cursor), cursor)?;
        return Ok(Page::new(empty(cursor, Epoch::ZERO, scope)));
    };
    if row.scope != Scope::Everything && row.scope != *scope && *scope != Scope::Directory {
        return Err(JournalError::HoldsLess { journal: cursor.journal.clone() });
    }
    if row.is_recopying {
        return Err(JournalError::Recopying { journal: cursor.journal.clone() });
    }
    check_position(connection, file, &row, cursor)?;
    let max = max.clamp(1, limits::ACCOUNTS_PER_PAGE_MAX);
    let (entries, is_end) = entries(connection, file, &row, cursor, max, scope)?;
    let end = match entries.last() {
        Some(last) if !is_end => Position { sequence: last.sequence, epoch: last.epoch },
        Some(_) | None => row.position,
    };
    let mut starts = row.starts(connection, cursor.sequence).map_err(read)?;
    starts.retain(|start| start.first <= end.sequence);
    Ok(Page::new(PageContent {
        end_sequence: end.sequence,
        end_epoch: end.epoch,
        starts,
        entries,
        is_end,
        ..empty(cursor, row.epoch, scope)
    }))
}

/// A page that brings nothing.
fn empty(cursor: &Cursor, epoch: Epoch, scope: &Scope) -> PageContent {
    PageContent {
        scope: scope.clone(),
        epoch,
        after: cursor.clone(),
        end_sequence: cursor.sequence,
        end_epoch: cursor.epoch,
        starts: Vec::new(),
        entries: Vec::new(),
        is_end: true,
    }
}

/// The row of a journal of which nothing is held.
fn nothing(cursor: &Cursor) -> PoolRow {
    PoolRow {
        id: 0,
        name: cursor.journal.clone(),
        epoch: Epoch::ZERO,
        scope: Scope::Everything,
        position: Position::START,
        whole: 0,
        is_recopying: false,
    }
}

/// Whether the reader's last change is one of this store's.
pub(super) fn check_position(
    connection: &Connection,
    file: &Path,
    row: &PoolRow,
    cursor: &Cursor,
) -> Result<(), JournalError> {
    let read = |error| store_error(file, error);
    let Err(ours) = row.agrees(connection, cursor).map_err(read)? else { return Ok(()) };
    let common = row.common(connection, cursor).map_err(read)?.cursor(&row.name);
    let (theirs, epoch, last) = (cursor.clone(), row.epoch, row.position.sequence);
    Err(if cursor.sequence > last {
        JournalError::Ahead { theirs, last, common, epoch }
    } else {
        JournalError::Diverged { theirs, ours, common, epoch }
    })
}

/// The rows of a page, bounded in number and octets, and whether they are all there is.
fn entries(
    connection: &Connection,
    file: &Path,
    row: &PoolRow,
    cursor: &Cursor,
    max: usize,
    scope: &Scope,
) -> Result<(Vec<Entry>, bool), StoreError> {
    let read = |error| store_error(file, error);
    let pools = Pools::load(connection, file)?;
    let columns = if *scope == Scope::Directory { rows::LISTED_COLUMNS } else { rows::COLUMNS };
    // The home of settings and voice policy is that of the account now, so that it has one place only.
    let wanted = match scope {
        Scope::Everything => "?3 IS NULL",
        Scope::Directory => "?3 IS NULL AND kind = 0",
        Scope::Branch(_) => {
            "(kind = 0 OR kind IN (2, 3) AND EXISTS (SELECT 1 FROM document AS account
              WHERE account.aor = document.aor AND account.kind = 0 AND account.key = x''
              AND account.journal = document.journal AND account.home = ?3))"
        }
    };
    let branch = match scope {
        // A branch that was never named here is home to nobody: no row has the id zero.
        Scope::Branch(branch) => Some(pools.id(branch).unwrap_or(0)),
        Scope::Everything | Scope::Directory => None,
    };
    let sql = format!(
        "SELECT {columns} FROM document WHERE journal = ?1 AND is_leftover = 0 AND version > ?2 AND {wanted}
         ORDER BY version"
    );
    let mut query = connection.prepare_cached(&sql).map_err(read)?;
    let after = stored(cursor.sequence).map_err(read)?;
    let mut found = query.query(params![row.id, after, branch]).map_err(read)?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut octets = 0_usize;
    while let Some(row) = found.next().map_err(read)? {
        let raw = RawRow::read(row).map_err(read)?;
        octets = octets.saturating_add(raw.body_bytes());
        let is_full = entries.len() >= max || octets > limits::JOURNAL_PAGE_BYTES_MAX;
        let (_, mut entry) = raw.check(&pools, file)?;
        if is_full && entries.last().is_some_and(|last| !belong_together(last, &entry)) {
            return Ok((entries, false));
        }
        entry.state = for_scope(entry.state, scope, &entry.aor, file)?;
        entries.push(entry);
    }
    Ok((entries, true))
}

/// Whether the two are the removal of one user: a reader that became owner between them would hold documents
/// of nobody.
fn belong_together(last: &Entry, next: &Entry) -> bool {
    let is_removal = |entry: &Entry| matches!(entry.state, EntryState::Removed(_));
    last.aor == next.aor && is_removal(last) && is_removal(next) && next.state.subject() != Subject::Account
}

/// What a reader of this scope is told of a row.
fn for_scope(
    state: EntryState,
    scope: &Scope,
    aor: &AddressOfRecord,
    file: &Path,
) -> Result<EntryState, StoreError> {
    let is_listed_only = |home: &PoolName| match scope {
        Scope::Everything => false,
        Scope::Branch(branch) => home != branch,
        Scope::Directory => true,
    };
    match state {
        EntryState::Account { home, .. } | EntryState::Listed { home } if is_listed_only(&home) => {
            Ok(EntryState::Listed { home })
        }
        EntryState::Listed { .. } => Err(StoreError::corrupt(file, format!("{aor} has no credentials"))),
        state @ (EntryState::Account { .. }
        | EntryState::Removed(_)
        | EntryState::Document(_)
        | EntryState::Conflict(..)) => Ok(state),
    }
}

/// Applies a page whose checksum was verified, inside a transaction that the caller commits.
pub(super) fn apply(
    connection: &Connection,
    file: &Path,
    journal: &PoolName,
    page: &Page,
) -> Result<Written<Cursor>, ApplyError> {
    let after = page.after();
    if after.journal != *journal {
        return Err(ApplyError::WrongJournal { expected: journal.clone(), found: after.journal.clone() });
    }
    let mut ledger = Ledger::open(connection, file, journal)?;
    let before = ledger.row.position;
    ledger.admit::<ApplyError>(page.epoch())?;
    take_scope(&mut ledger, page)?;
    let held = ledger.row.position;
    if after.sequence > held.sequence && after.sequence <= before.sequence {
        return Ok(ledger.finish(held.cursor(journal))?);
    }
    if after.sequence > held.sequence {
        let (expected, found) = (held.sequence, after.sequence);
        return Err(ApplyError::Gap { journal: journal.clone(), expected, found });
    }
    check_same_history(&ledger, page)?;
    for start in page.starts().iter().filter(|start| start.first > held.sequence) {
        ledger.begin_epoch(*start)?;
    }
    for entry in page.entries().iter().filter(|entry| entry.sequence > held.sequence) {
        if ledger.take(entry)? {
            forget_documents_of_others(&mut ledger, entry)?;
        }
    }
    let next = page.next();
    if next.sequence > held.sequence {
        ledger.row.position = Position { sequence: next.sequence, epoch: next.epoch };
    }
    // A page that overlaps what is held may be older than what came in between.
    if page.is_end() && after.sequence == held.sequence {
        ledger.row.whole = ledger.row.position.sequence;
        if ledger.row.is_recopying {
            let id = ledger.row.id;
            ledger.drop_rows("journal = ?1 AND is_leftover = 1", [id])?;
            ledger.row.is_recopying = false;
        }
    }
    let cursor = ledger.row.position.cursor(journal);
    Ok(ledger.finish(cursor)?)
}

/// Accepts the scope of the page; another one than is held begins the copy anew.
fn take_scope(ledger: &mut Ledger<'_>, page: &Page) -> Result<(), ApplyError> {
    let (held, row) = (ledger.row.position.sequence, &mut ledger.row);
    if row.scope == *page.scope() {
        return Ok(());
    }
    let journal = || page.after().journal.clone();
    let is_empty = held == 0 && !row.is_recopying;
    if row.scope == Scope::Everything && !is_empty {
        return Err(ApplyError::HoldsMore { journal: journal() });
    }
    if page.after().sequence > 0 {
        return Err(ApplyError::Gap { journal: journal(), expected: 0, found: page.after().sequence });
    }
    row.scope = page.scope().clone();
    if !is_empty {
        ledger.begin_anew(Position::START)?;
    }
    Ok(())
}

/// Refuses a page that has another change where this store holds one.
fn check_same_history(ledger: &Ledger<'_>, page: &Page) -> Result<(), ApplyError> {
    let read = |error| ledger.read_error(error);
    let (row, next) = (&ledger.row, page.next());
    let shared = [page.after().sequence, row.position.sequence.min(next.sequence)];
    for sequence in shared {
        let ours = row.epoch_at(ledger.connection, sequence).map_err(read)?;
        let theirs = page.epoch_at(sequence);
        if ours != theirs {
            return Err(ApplyError::Diverged { journal: row.name.clone(), sequence, ours, theirs });
        }
    }
    Ok(())
}

/// At a branch, a user of another home leaves nothing but the listing.
fn forget_documents_of_others(ledger: &mut Ledger<'_>, entry: &Entry) -> Result<(), StoreError> {
    if matches!(entry.state, EntryState::Listed { .. }) {
        let id = ledger.row.id;
        ledger.drop_rows("aor = ?1 AND kind > 0 AND journal = ?2", params![entry.aor.as_str(), id])?;
    }
    Ok(())
}

impl PoolRow {
    /// The epochs that begin after a change, in order.
    fn starts(&self, connection: &Connection, after: u64) -> rusqlite::Result<Vec<EpochStart>> {
        let mut query = connection.prepare_cached(
            "SELECT epoch, first FROM epoch_start WHERE journal = ?1 AND first > ?2 ORDER BY first",
        )?;
        let starts = query.query_map(params![self.id, stored(after)?], |row| {
            Ok(EpochStart { epoch: Epoch::new(number(row, 0)?), first: number(row, 1)? })
        })?;
        starts.collect()
    }
}
