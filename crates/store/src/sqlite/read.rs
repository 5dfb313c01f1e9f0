//! Reading accounts, documents and conflicts.

use std::path::Path;

use model::{AddressOfRecord, PoolName, WallTime, documents::DocumentKind};
use rusqlite::{Connection, OptionalExtension, Params, params};

use super::{
    pools::{PoolRow, Pools},
    rows::{self, RawRow, number, store_error, stored},
};
use crate::{Account, Conflict, ConflictId, Cursor, Entry, Lag, StoreError, StoredDocument, Subject};

/// A moment of the database.
pub(super) struct Snapshot<'a> {
    connection: &'a Connection,
    file: &'a Path,
    pools: Pools,
}

impl<'a> Snapshot<'a> {
    pub(super) fn new(connection: &'a Connection, file: &'a Path) -> Result<Self, StoreError> {
        Ok(Self { connection, file, pools: Pools::load(connection, file)? })
    }

    pub(super) const fn pools(&self) -> &Pools {
        &self.pools
    }

    pub(super) fn account(&self, aor: &AddressOfRecord) -> Result<Option<Account>, StoreError> {
        let condition = "aor = ?1 AND kind = 0 AND is_removed = 0
                         ORDER BY changed_at DESC, version DESC, journal LIMIT 1";
        let mut found = None;
        self.each(condition, [aor.as_str()], &mut |journal, entry| found = rows::account(journal, entry))?;
        Ok(found)
    }

    pub(super) fn account_in(
        &self,
        journal: &PoolName,
        aor: &AddressOfRecord,
    ) -> Result<Option<Account>, StoreError> {
        let Some(id) = self.pools.id(journal) else { return Ok(None) };
        let condition = "aor = ?1 AND kind = 0 AND journal = ?2 AND is_removed = 0";
        let mut found = None;
        self.each(condition, params![aor.as_str(), id], &mut |journal, entry| {
            found = rows::account(journal, entry);
        })?;
        Ok(found)
    }

    pub(super) fn accounts_homed_on(
        &self,
        home: &PoolName,
        after: Option<&AddressOfRecord>,
        max: usize,
    ) -> Result<Vec<Account>, StoreError> {
        let Some(id) = self.pools.id(home) else { return Ok(Vec::new()) };
        let condition = "home = ?1 AND kind = 0 AND aor > ?2 AND is_removed = 0 ORDER BY aor LIMIT ?3";
        let bound = params![id, text(after), limit(max)];
        let mut accounts = Vec::new();
        self.each(condition, bound, &mut |journal, entry| accounts.extend(rows::account(journal, entry)))?;
        Ok(accounts)
    }

    /// Hands over every account, in order of address-of-record.
    pub(super) fn each_account(&self, each: &mut dyn FnMut(Account)) -> Result<(), StoreError> {
        let condition = "kind = 0 AND is_removed = 0 ORDER BY aor, journal";
        self.each(condition, [], &mut |journal, entry| {
            if let Some(account) = rows::account(journal, entry) {
                each(account);
            }
        })
    }

    /// Hands over what followers are told of one journal: accounts first, then documents for routing.
    pub(super) fn each_followed(&self, journal: i64, each: &mut dyn FnMut(Entry)) -> Result<(), StoreError> {
        for kinds in ["kind = 0", "kind IN (2, 3)"] {
            let condition = format!("journal = ?1 AND {kinds} AND is_removed = 0");
            self.each(&condition, [journal], &mut |_, entry| each(entry))?;
        }
        Ok(())
    }

    /// Reads every row, so that damage in any is found.
    pub(super) fn read_all(&self) -> Result<(), StoreError> {
        self.each("journal IS NOT NULL", [], &mut |_, _| {})
    }

    pub(super) fn document(
        &self,
        journal: &PoolName,
        aor: &AddressOfRecord,
        kind: DocumentKind,
    ) -> Result<Option<StoredDocument>, StoreError> {
        let Some(id) = self.pools.id(journal) else { return Ok(None) };
        let (kind, key) = rows::subject_key(Subject::Document(kind));
        let condition = "aor = ?1 AND kind = ?2 AND key = ?3 AND journal = ?4 AND is_removed = 0";
        self.documents_where(condition, params![aor.as_str(), kind, key, id])
            .map(|found| found.into_iter().next())
    }

    pub(super) fn documents(
        &self,
        journal: &PoolName,
        aor: &AddressOfRecord,
    ) -> Result<Vec<StoredDocument>, StoreError> {
        let Some(id) = self.pools.id(journal) else { return Ok(Vec::new()) };
        let condition = "aor = ?1 AND kind BETWEEN 1 AND 4 AND journal = ?2 AND is_removed = 0 ORDER BY kind";
        self.documents_where(condition, params![aor.as_str(), id])
    }

    pub(super) fn list_documents(
        &self,
        journal: &PoolName,
        kind: DocumentKind,
        after: Option<&AddressOfRecord>,
        max: usize,
    ) -> Result<Vec<StoredDocument>, StoreError> {
        let Some(id) = self.pools.id(journal) else { return Ok(Vec::new()) };
        let (kind, _) = rows::subject_key(Subject::Document(kind));
        let condition = "aor > ?1 AND kind = ?2 AND journal = ?3 AND is_removed = 0 ORDER BY aor LIMIT ?4";
        self.documents_where(condition, params![text(after), kind, id, limit(max)])
    }

    fn documents_where(
        &self,
        condition: &str,
        bound: impl Params,
    ) -> Result<Vec<StoredDocument>, StoreError> {
        let mut documents = Vec::new();
        self.each(condition, bound, &mut |journal, entry| documents.extend(rows::document(journal, entry)))?;
        Ok(documents)
    }

    pub(super) fn conflicts(
        &self,
        journal: &PoolName,
        after: Option<ConflictId>,
        max: usize,
    ) -> Result<Vec<Conflict>, StoreError> {
        let Some(id) = self.pools.id(journal) else { return Ok(Vec::new()) };
        let after = after.map_or_else(Vec::new, |after| rows::subject_key(Subject::Conflict(after)).1);
        let condition = "journal = ?1 AND key > ?2 AND kind = 5 AND is_removed = 0 ORDER BY key LIMIT ?3";
        let mut conflicts = Vec::new();
        self.each(condition, params![id, after, limit(max)], &mut |journal, entry| {
            conflicts.extend(rows::conflict(journal, entry));
        })?;
        Ok(conflicts)
    }

    pub(super) fn conflict(
        &self,
        journal: &PoolName,
        name: ConflictId,
    ) -> Result<Option<Conflict>, StoreError> {
        let Some(id) = self.pools.id(journal) else { return Ok(None) };
        let (_, key) = rows::subject_key(Subject::Conflict(name));
        let condition = "journal = ?1 AND key = ?2 AND kind = 5 AND is_removed = 0";
        let mut found = None;
        self.each(condition, params![id, key], &mut |journal, entry| found = rows::conflict(journal, entry))?;
        Ok(found)
    }

    /// Users of `home` whose account is in this journal, in order: those after `after`, at most `max`.
    pub(super) fn accounts_of_journal(
        &self,
        journal: &PoolName,
        home: &PoolName,
        after: Option<&AddressOfRecord>,
        max: usize,
    ) -> Result<Vec<AddressOfRecord>, StoreError> {
        let (Some(journal), Some(home)) = (self.pools.id(journal), self.pools.id(home)) else {
            return Ok(Vec::new());
        };
        let condition = "home = ?1 AND kind = 0 AND aor > ?2 AND journal = ?3 AND is_removed = 0
                         ORDER BY aor LIMIT ?4";
        let mut found = Vec::new();
        let bound = params![home, text(after), journal, limit(max)];
        self.each(condition, bound, &mut |_, entry| found.push(entry.aor))?;
        Ok(found)
    }

    /// Everything of a user in one journal, the account first; the number of each is that of the last change
    /// which did not only state it again.
    pub(super) fn all_of_user(
        &self,
        journal: &PoolName,
        aor: &AddressOfRecord,
    ) -> Result<Vec<Entry>, StoreError> {
        let Some(id) = self.pools.id(journal) else { return Ok(Vec::new()) };
        let read = |error| store_error(self.file, error);
        let condition = "aor = ?1 AND journal = ?2 AND is_removed = 0 ORDER BY kind, key";
        let mut entries = Vec::new();
        self.each(condition, params![aor.as_str(), id], &mut |_, entry| entries.push(entry))?;
        let sql = format!("SELECT modified FROM document WHERE {condition}");
        let mut query = self.connection.prepare_cached(&sql).map_err(read)?;
        let numbers = query.query_map(params![aor.as_str(), id], |row| number(row, 0)).map_err(read)?;
        for (entry, modified) in entries.iter_mut().zip(numbers) {
            entry.sequence = modified.map_err(read)?;
        }
        Ok(entries)
    }

    /// Journals in which there are accounts of users homed on `home`, in order of name.
    pub(super) fn journals_of(&self, home: &PoolName) -> Result<Vec<PoolName>, StoreError> {
        let Some(home) = self.pools.id(home) else { return Ok(Vec::new()) };
        let read = |error| store_error(self.file, error);
        let sql = "SELECT DISTINCT journal FROM document WHERE home = ?1 AND kind = 0 AND is_removed = 0";
        let mut query = self.connection.prepare_cached(sql).map_err(read)?;
        let ids = query.query_map([home], |row| row.get::<_, i64>(0)).map_err(read)?;
        let mut names = Vec::new();
        for id in ids {
            names.push(self.pools.name(id.map_err(read)?, self.file)?);
        }
        names.sort();
        Ok(names)
    }

    fn each(
        &self,
        condition: &str,
        bound: impl Params,
        each: &mut dyn FnMut(PoolName, Entry),
    ) -> Result<(), StoreError> {
        let read = |error| store_error(self.file, error);
        let sql = format!("SELECT {} FROM document WHERE {condition}", rows::COLUMNS);
        let mut query = self.connection.prepare_cached(&sql).map_err(read)?;
        let mut found = query.query(bound).map_err(read)?;
        while let Some(row) = found.next().map_err(read)? {
            let (journal, entry) = RawRow::read(row).map_err(read)?.check(&self.pools, self.file)?;
            each(journal, entry);
        }
        Ok(())
    }
}

/// What a reader of the journal at `cursor` does not have.
pub(super) fn lag(connection: &Connection, file: &Path, cursor: &Cursor) -> Result<Lag, StoreError> {
    let read = |error| store_error(file, error);
    let Some(row) = PoolRow::find(connection, file, &cursor.journal)? else {
        return Ok(Lag { changes: 0, oldest: None });
    };
    let changes = row.position.sequence.saturating_sub(cursor.sequence);
    let oldest = || -> rusqlite::Result<Option<u64>> {
        let mut query = connection.prepare_cached(
            "SELECT written_at FROM change_log WHERE journal = ?1 AND sequence > ?2
             ORDER BY sequence LIMIT 1",
        )?;
        query.query_row(params![row.id, stored(cursor.sequence)?], |row| number(row, 0)).optional()
    };
    let oldest = oldest().map_err(read)?.map(WallTime::from_micros);
    Ok(Lag { changes, oldest })
}

fn text(after: Option<&AddressOfRecord>) -> &str {
    after.map_or("", AddressOfRecord::as_str)
}

fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}
