//! Users who go from one journal to another, at both ends.

use std::path::Path;

use model::{AddressOfRecord, Epoch, PoolName, WallTime, limits};
use rusqlite::{Connection, params};

use super::{
    Written,
    commit::{Origin, Writer},
    ledger::{Ledger, derived},
    pools::{PoolRow, Pools},
    read::Snapshot,
    rows::{address, store_error, stored},
};
use crate::{
    AdoptError, CommitError, Cursor, Departure, Entry, EntryState, JournalError, MovePage, MovePageContent,
    OperationId, Scope, StoreError, Subject, sealed::json,
};

/// The users of `home` in this journal, with all that is theirs.
pub(super) fn leaving(
    connection: &Connection,
    file: &Path,
    journal: &PoolName,
    home: &PoolName,
    after: Option<&AddressOfRecord>,
    max: usize,
) -> Result<MovePage, JournalError> {
    let less = || JournalError::HoldsLess { journal: journal.clone() };
    let row = PoolRow::find(connection, file, journal)?.ok_or_else(less)?;
    if row.scope != Scope::Everything {
        return Err(less());
    }
    if row.is_recopying {
        return Err(JournalError::Recopying { journal: journal.clone() });
    }
    let snapshot = Snapshot::new(connection, file)?;
    let max = max.min(limits::MOVE_USERS_MAX);
    let (mut users, mut bytes, mut is_end) = (Vec::new(), 0_usize, true);
    for account in snapshot.accounts_of_journal(journal, home, after, max.saturating_add(1))? {
        if users.len() >= max || bytes > limits::MOVE_PAGE_BYTES_MAX {
            is_end = false;
            break;
        }
        let entries = snapshot.all_of_user(journal, &account)?;
        bytes = bytes.saturating_add(entries.iter().map(octets).sum());
        users.push(entries);
    }
    let (journal, home) = (journal.clone(), home.clone());
    let last = row.position.sequence;
    Ok(MovePage::new(MovePageContent { journal, home, epoch: row.epoch, last, users, is_end }))
}

/// About how much an entry needs in a page.
fn octets(entry: &Entry) -> usize {
    match &entry.state {
        EntryState::Document(document) => json(document).len(),
        EntryState::Conflict(_, content) => json(content).len(),
        EntryState::Removed(_) | EntryState::Account { .. } | EntryState::Listed { .. } => 128,
    }
}

/// Takes users over into the journal that this store owns, inside a transaction that the caller commits.
pub(super) fn settle(
    connection: &Connection,
    file: &Path,
    journal: &PoolName,
    epoch: Epoch,
    now: WallTime,
    page: &MovePage,
) -> Result<Written<Cursor>, AdoptError> {
    let content = page.content();
    let mut ledger = Ledger::open(connection, file, journal)?;
    ledger.admit::<AdoptError>(epoch)?;
    if !ledger.holds_everything()? {
        return Err(AdoptError::HoldsLess { journal: journal.clone() });
    }
    if let Some(first) = content.users.iter().flatten().next() {
        ledger.own_leftovers(epoch, now, first.operation)?;
        ledger.skip_to(content.last)?;
    }
    let mut writer = Writer { ledger, epoch };
    for entry in content.users.iter().flatten() {
        settle_one(&mut writer, now, &content.journal, entry)?;
    }
    let cursor = writer.ledger.row.position.cursor(journal);
    Ok(writer.ledger.finish(cursor)?)
}

/// Writes what is not there, or older: its number is below that in the journal it comes from.
fn settle_one(
    writer: &mut Writer<'_>,
    now: WallTime,
    from: &PoolName,
    entry: &Entry,
) -> Result<(), AdoptError> {
    let subject = entry.state.subject();
    let purpose = format!("settled from {} of {from} in epoch {}", entry.sequence, entry.epoch);
    let operation = derived(entry.operation, &purpose, &entry.aor, subject);
    let is_newer = writer.present(&entry.aor, subject)?.is_some_and(|held| held.modified >= entry.sequence);
    if is_newer || writer.ledger.operation(operation)?.is_some() {
        return Ok(());
    }
    let origin = Origin { operation, aor: &entry.aor, changed_at: entry.changed_at, written_at: now };
    writer.write(origin, entry.state.clone(), None)?;
    Ok(())
}

/// Removes users who are settled elsewhere, inside a transaction that the caller commits.
pub(super) fn depart(
    connection: &Connection,
    file: &Path,
    departure: &Departure,
    now: WallTime,
    operation: OperationId,
) -> Result<Written<usize>, CommitError> {
    let Departure { journal, home, epoch, last } = departure;
    let mut ledger = Ledger::open(connection, file, journal)?;
    ledger.admit::<CommitError>(*epoch)?;
    if !ledger.holds_everything()? {
        return Err(CommitError::HoldsLess { journal: journal.clone() });
    }
    ledger.own_leftovers(*epoch, now, operation)?;
    let gone = departed(connection, file, departure)?;
    let mut writer = Writer { ledger, epoch: *epoch };
    for aor in &gone {
        let cause = derived(operation, &format!("left {journal} of {home} at {last}"), aor, Subject::Account);
        writer.remove_account(Origin { operation: cause, aor, changed_at: now, written_at: now })?;
    }
    Ok(writer.ledger.finish(gone.len())?)
}

/// Users of whom everything has a number up to the one that was settled, a page of them.
fn departed(
    connection: &Connection,
    file: &Path,
    departure: &Departure,
) -> Result<Vec<AddressOfRecord>, StoreError> {
    let read = |error| store_error(file, error);
    let pools = Pools::load(connection, file)?;
    let (Some(journal), Some(home)) = (pools.id(&departure.journal), pools.id(&departure.home)) else {
        return Ok(Vec::new());
    };
    let last = stored(departure.last).map_err(read)?;
    let mut query = connection
        .prepare_cached(
            "SELECT aor FROM document AS account
             WHERE journal = ?1 AND home = ?2 AND kind = 0 AND is_removed = 0 AND NOT EXISTS (
                 SELECT 1 FROM document WHERE aor = account.aor AND journal = ?1 AND is_removed = 0
                 AND version > ?3)
             ORDER BY aor LIMIT ?4",
        )
        .map_err(read)?;
    let max = i64::try_from(limits::MOVE_USERS_MAX).unwrap_or(i64::MAX);
    let mut found = query.query(params![journal, home, last, max]).map_err(read)?;
    let mut gone = Vec::new();
    while let Some(row) = found.next().map_err(read)? {
        let aor: String = row.get(0).map_err(read)?;
        gone.push(address(&aor, file)?);
    }
    Ok(gone)
}
