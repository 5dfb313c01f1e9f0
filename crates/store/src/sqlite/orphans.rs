//! Orphans at the store that returns: collecting them, and going back behind them.

use std::path::Path;

use model::{AddressOfRecord, Epoch, PoolName, WallTime, documents::Edit, limits};
use rusqlite::{Connection, params};

use super::{
    Written,
    ledger::{Ledger, LedgerError},
    pages::check_position,
    pools::{PoolRow, Pools, Position},
    rows::{self, RawRow, number, store_error, stored},
};
use crate::{
    Cursor, Entry, EntryState, JournalError, OperationId, Orphan, OrphanContent, OrphanPage,
    OrphanPageContent, OrphanedWrite, PurgeError, Purged, RestartError, RewindError, Scope, StoreError,
    Subject,
};

/// A change of the log, and the row that it left.
struct Logged {
    sequence: u64,
    epoch: Epoch,
    operation: OperationId,
    written_at: WallTime,
    aor: String,
    subject: Option<Subject>,
    edit: Option<String>,
    is_whole: bool,
}

/// Reads the changes beyond `common` and after number `after`.
pub(super) fn orphans(
    connection: &Connection,
    file: &Path,
    common: &Cursor,
    after: u64,
    max: usize,
) -> Result<OrphanPage, JournalError> {
    let Some(row) = PoolRow::find(connection, file, &common.journal)? else {
        return Err(JournalError::HoldsLess { journal: common.journal.clone() });
    };
    if row.scope != Scope::Everything {
        return Err(JournalError::HoldsLess { journal: common.journal.clone() });
    }
    check_position(connection, file, &row, common)?;
    let pools = Pools::load(connection, file)?;
    let max = max.clamp(1, limits::ACCOUNTS_PER_PAGE_MAX);
    let reader = Reader { connection, file, row: &row, pools: &pools, common: common.sequence };
    let mut last = after.max(common.sequence);
    let (mut orphans, mut octets, mut is_end) = (Vec::new(), 0_usize, true);
    for logged in reader.logged(last, max.saturating_add(1))? {
        if orphans.len() == max || octets > limits::JOURNAL_PAGE_BYTES_MAX {
            is_end = false;
            break;
        }
        last = logged.sequence;
        if let Some((orphan, size)) = reader.orphan(logged)? {
            octets = octets.saturating_add(size);
            orphans.push(orphan);
        }
    }
    let end = if is_end && reader.is_last(last)? { row.position.sequence } else { last };
    let is_end = end == row.position.sequence;
    Ok(OrphanPage::new(OrphanPageContent { common: common.clone(), orphans, end, is_end }))
}

struct Reader<'a> {
    connection: &'a Connection,
    file: &'a Path,
    row: &'a PoolRow,
    pools: &'a Pools,
    common: u64,
}

impl Reader<'_> {
    fn error(&self, error: rusqlite::Error) -> StoreError {
        store_error(self.file, error)
    }

    /// Changes of the log after a number. `is_whole`: the log has every edit of this document beyond the
    /// common change, so that they can be replayed one by one.
    fn logged(&self, after: u64, max: usize) -> Result<Vec<Logged>, StoreError> {
        let remembered = self.row.position.sequence.saturating_sub(limits::JOURNAL_OPERATIONS_MAX);
        let is_all_there = self.common >= remembered;
        let read = || -> rusqlite::Result<Vec<Logged>> {
            let mut query = self.connection.prepare_cached(
                "SELECT sequence, epoch, operation, written_at, aor, kind, key, edit,
                        kind IN (1, 4) AND NOT EXISTS (SELECT 1
                            FROM change_log AS other INDEXED BY change_without_edit
                            WHERE other.journal = change_log.journal AND other.aor = change_log.aor
                            AND other.kind = change_log.kind AND other.sequence > ?3
                            AND other.edit IS NULL AND other.kind IN (1, 4))
                 FROM change_log WHERE journal = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?4",
            )?;
            let limit = i64::try_from(max).unwrap_or(i64::MAX);
            let bound = params![self.row.id, stored(after)?, stored(self.common)?, limit];
            let logged = query.query_map(bound, |row| {
                let key: Vec<u8> = row.get(6)?;
                let has_every_edit: bool = row.get(8)?;
                Ok(Logged {
                    sequence: number(row, 0)?,
                    epoch: Epoch::new(number(row, 1)?),
                    operation: OperationId::new(u128::from_be_bytes(row.get(2)?)),
                    written_at: WallTime::from_micros(number(row, 3)?),
                    aor: row.get(4)?,
                    subject: rows::subject(row.get(5)?, &key),
                    edit: row.get(7)?,
                    is_whole: is_all_there && has_every_edit,
                })
            })?;
            logged.collect()
        };
        read().map_err(|error| self.error(error))
    }

    /// Whether the log has nothing after this number.
    fn is_last(&self, sequence: u64) -> Result<bool, StoreError> {
        let read = || -> rusqlite::Result<bool> {
            let sql = "SELECT 1 FROM change_log WHERE journal = ?1 AND sequence > ?2 LIMIT 1";
            self.connection.prepare_cached(sql)?.exists(params![self.row.id, stored(sequence)?])
        };
        read().map(|is_followed| !is_followed).map_err(|error| self.error(error))
    }

    /// What a logged change offers to the owner, and its size; `None` when a later one stands for it.
    fn orphan(&self, logged: Logged) -> Result<Option<(Orphan, usize)>, StoreError> {
        let aor = rows::address(&logged.aor, self.file)?;
        let damaged = || StoreError::corrupt(self.file, format!("{aor}: unknown kind of change"));
        let subject = logged.subject.ok_or_else(damaged)?;
        let (content, changed_at, size) = match logged.edit.filter(|_| logged.is_whole) {
            Some(text) => {
                let edit: Edit =
                    serde_json::from_str(&text).map_err(|error| StoreError::corrupt(self.file, error))?;
                let write = OrphanContent::Write(OrphanedWrite::Edit(edit));
                (write, logged.written_at, text.len())
            }
            None => {
                let Some((entry, size)) = self.row_of(&aor, subject, logged.sequence)? else {
                    return Ok(None);
                };
                let is_of_account =
                    matches!(entry.state, EntryState::Removed(Subject::Document(_) | Subject::Conflict(_)));
                // What was removed with the account is the matter of the account's own orphan.
                if is_of_account && self.is_account_removed(&aor)? {
                    return Ok(None);
                }
                let changed_at = entry.changed_at;
                (content(entry.state), changed_at, size)
            }
        };
        let Logged { sequence, epoch, operation, .. } = logged;
        Ok(Some((Orphan { sequence, epoch, operation, aor, changed_at, content }, size)))
    }

    /// Whether the removal of the user's account is itself an orphan.
    fn is_account_removed(&self, aor: &AddressOfRecord) -> Result<bool, StoreError> {
        let find = || -> rusqlite::Result<bool> {
            let sql = "SELECT 1 FROM document WHERE aor = ?1 AND kind = 0 AND key = x'' AND journal = ?2
                       AND is_removed = 1 AND version > ?3";
            let bound = params![aor.as_str(), self.row.id, stored(self.common)?];
            self.connection.prepare_cached(sql)?.exists(bound)
        };
        find().map_err(|error| self.error(error))
    }

    /// The row that this change left, when no later one replaced it.
    fn row_of(
        &self,
        aor: &AddressOfRecord,
        subject: Subject,
        version: u64,
    ) -> Result<Option<(Entry, usize)>, StoreError> {
        let (kind, key) = rows::subject_key(subject);
        let sql = format!(
            "SELECT {} FROM document
             WHERE aor = ?1 AND kind = ?2 AND key = ?3 AND journal = ?4 AND version = ?5 AND is_leftover = 0",
            rows::COLUMNS
        );
        let read = |error| self.error(error);
        let mut query = self.connection.prepare_cached(&sql).map_err(read)?;
        let bound = params![aor.as_str(), kind, key, self.row.id, stored(version).map_err(read)?];
        let mut found = query.query(bound).map_err(read)?;
        let Some(row) = found.next().map_err(read)? else { return Ok(None) };
        let raw = RawRow::read(row).map_err(read)?;
        let size = raw.body_bytes();
        Ok(Some((raw.check(self.pools, self.file)?.1, size)))
    }
}

/// What a state says as an orphan.
fn content(state: EntryState) -> OrphanContent {
    OrphanContent::Write(match state {
        EntryState::Account { home, credentials, algorithms } => {
            OrphanedWrite::Account { home, credentials, algorithms }
        }
        // Only a copy that holds everything offers orphans, and it lists nobody without secrets.
        EntryState::Listed { .. } | EntryState::Removed(Subject::Account) => OrphanedWrite::AccountRemoved,
        EntryState::Removed(Subject::Document(kind)) => OrphanedWrite::DocumentRemoved(kind),
        EntryState::Removed(Subject::Conflict(id)) => return OrphanContent::ConflictEnded(id),
        EntryState::Document(document) => OrphanedWrite::Document(document),
        EntryState::Conflict(id, conflict) => return OrphanContent::Conflict(id, conflict),
    })
}

/// Goes back to the common change.
pub(super) fn rewind(
    connection: &Connection,
    file: &Path,
    common: &Cursor,
    adopted: u64,
) -> Result<Written<()>, RewindError> {
    let mut ledger = open(connection, file, &common.journal)?;
    let read = |error| store_error(file, error);
    if let Err(ours) = ledger.row.agrees(connection, common).map_err(read)? {
        return Err(RewindError::NotCommon { common: common.clone(), ours });
    }
    let last = ledger.row.position.sequence;
    if last > common.sequence {
        if adopted != last {
            return Err(RewindError::NotAdopted { journal: common.journal.clone(), last, adopted });
        }
        ledger.begin_anew(Position { sequence: common.sequence, epoch: common.epoch })?;
    }
    Ok(ledger.finish(())?)
}

/// Begins a copy of less than everything anew.
pub(super) fn restart(
    connection: &Connection,
    file: &Path,
    journal: &PoolName,
    epoch: Epoch,
) -> Result<Written<()>, RestartError> {
    let mut ledger = open(connection, file, journal)?;
    ledger.admit::<RestartError>(epoch)?;
    if ledger.row.scope == Scope::Everything && ledger.row.position.sequence > 0 {
        return Err(RestartError::HoldsEverything { journal: journal.clone() });
    }
    ledger.begin_anew(Position::START)?;
    Ok(ledger.finish(())?)
}

/// A ledger for work that names no new pool but the journal itself, of which something is held.
fn open<'a>(
    connection: &'a Connection,
    file: &'a Path,
    journal: &PoolName,
) -> Result<Ledger<'a>, StoreError> {
    Ledger::open(connection, file, journal).map_err(|error| match error {
        LedgerError::Store(error) => error,
        LedgerError::TooManyHomes => {
            StoreError::corrupt(file, format!("{journal} is not held and there is no room for it"))
        }
        LedgerError::TooLarge { aor, .. } => {
            StoreError::corrupt(file, format!("{aor}: a document is too large"))
        }
    })
}

/// Removes everything of a journal.
pub(super) fn purge(
    connection: &Connection,
    file: &Path,
    journal: &PoolName,
) -> Result<Written<Purged>, PurgeError> {
    let read = |error| store_error(file, error);
    if PoolRow::find(connection, file, journal)?.is_none() {
        return Ok(Written::nothing(Purged::default()));
    }
    let mut ledger = open(connection, file, journal)?;
    let id = ledger.row.id;
    let rows = ledger.drop_rows("journal = ?1", [id])?;
    let changes = connection.execute("DELETE FROM change_log WHERE journal = ?1", [id]).map_err(read)?;
    connection.execute("DELETE FROM epoch_start WHERE journal = ?1", [id]).map_err(read)?;
    for (table, condition) in
        [("document", "journal = ?1"), ("change_log", "journal = ?1"), ("epoch_start", "journal = ?1")]
    {
        let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
        let rows = connection.query_row(&sql, [id], |row| number(row, 0)).map_err(read)?;
        if rows > 0 {
            return Err(PurgeError::Left { journal: journal.clone(), table, rows });
        }
    }
    ledger.row.epoch = Epoch::ZERO;
    ledger.row.scope = Scope::Everything;
    ledger.row.position = Position::START;
    ledger.row.whole = 0;
    ledger.row.is_recopying = false;
    let changes = u64::try_from(changes).unwrap_or(u64::MAX);
    let written = ledger.finish(Purged { rows, changes })?;
    // Its name stays where users of other journals are homed on it.
    connection
        .execute(
            "DELETE FROM pool WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM document WHERE home = ?1)",
            [id],
        )
        .map_err(read)?;
    Ok(written)
}
