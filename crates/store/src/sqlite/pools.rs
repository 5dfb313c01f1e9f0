//! The pools that are named in the database, and how far each journal is held.

use std::path::Path;

use hashbrown::HashMap;
use model::{Epoch, PoolName, limits};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{number, store_error, stored};
use crate::{Cursor, Scope, StoreError};

const COLUMNS: &str = "id, epoch, scope, sequence, sequence_epoch, is_recopying, name, whole";

/// How far a journal is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) sequence: u64,
    pub(super) epoch: Epoch,
}

impl Position {
    pub(super) const START: Self = Self { sequence: 0, epoch: Epoch::ZERO };

    pub(super) fn cursor(self, journal: &PoolName) -> Cursor {
        Cursor { journal: journal.clone(), sequence: self.sequence, epoch: self.epoch }
    }
}

/// The row of one pool.
#[derive(Clone, Debug)]
pub(super) struct PoolRow {
    pub(super) id: i64,
    pub(super) name: PoolName,
    /// Highest epoch seen for the journal.
    pub(super) epoch: Epoch,
    /// What is held of it.
    pub(super) scope: Scope,
    /// Up to where it is held.
    pub(super) position: Position,
    /// Number of the last change up to which nothing is missing. Between the pages of one catch-up it stays
    /// behind: what a later change replaced is not sent, and the later one has not come yet.
    pub(super) whole: u64,
    /// Whether rows are left over from before the copy was begun anew.
    pub(super) is_recopying: bool,
}

impl PoolRow {
    fn read(row: &Row<'_>, file: &Path) -> Result<Self, StoreError> {
        let read = |error| store_error(file, error);
        let scope: String = row.get(2).map_err(read)?;
        let name: String = row.get(6).map_err(read)?;
        Ok(Self {
            id: row.get(0).map_err(read)?,
            name: PoolName::new(&name).map_err(|error| StoreError::corrupt(file, error))?,
            epoch: Epoch::new(number(row, 1).map_err(read)?),
            scope: scope.parse().map_err(|error: crate::UnknownScope| StoreError::corrupt(file, error))?,
            position: Position {
                sequence: number(row, 3).map_err(read)?,
                epoch: Epoch::new(number(row, 4).map_err(read)?),
            },
            whole: number(row, 7).map_err(read)?,
            is_recopying: row.get(5).map_err(read)?,
        })
    }

    /// The row of this pool.
    pub(super) fn find(
        connection: &Connection,
        file: &Path,
        name: &PoolName,
    ) -> Result<Option<Self>, StoreError> {
        let read = |error| store_error(file, error);
        let mut query = connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM pool WHERE name = ?1"))
            .map_err(read)?;
        let mut found = query.query([name.as_str()]).map_err(read)?;
        found.next().map_err(read)?.map(|row| Self::read(row, file)).transpose()
    }

    /// The row of this pool, created when there is none; `None` when there are too many.
    pub(super) fn open(
        connection: &Connection,
        file: &Path,
        name: &PoolName,
    ) -> Result<Option<Self>, StoreError> {
        if let Some(row) = Self::find(connection, file, name)? {
            return Ok(Some(row));
        }
        let read = |error| store_error(file, error);
        let count: i64 =
            connection.query_row("SELECT count(*) FROM pool", [], |row| row.get(0)).map_err(read)?;
        if usize::try_from(count).unwrap_or(usize::MAX) >= limits::HOME_POOLS_MAX {
            return Ok(None);
        }
        let scope = Scope::Everything;
        connection
            .execute(
                "INSERT INTO pool VALUES (NULL, ?1, 0, ?2, 0, 0, 0, 0)",
                params![name.as_str(), scope.to_string()],
            )
            .map_err(read)?;
        Ok(Some(Self {
            id: connection.last_insert_rowid(),
            name: name.clone(),
            epoch: Epoch::ZERO,
            scope,
            position: Position::START,
            whole: 0,
            is_recopying: false,
        }))
    }

    /// Writes the row back.
    pub(super) fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut update = connection.prepare_cached(
            "UPDATE pool SET epoch = ?2, scope = ?3, sequence = ?4, sequence_epoch = ?5, is_recopying = ?6,
                 whole = ?7 WHERE id = ?1",
        )?;
        update.execute(params![
            self.id,
            stored(self.epoch.number())?,
            self.scope.to_string(),
            stored(self.position.sequence)?,
            stored(self.position.epoch.number())?,
            self.is_recopying,
            stored(self.whole)?,
        ])?;
        Ok(())
    }

    /// The epoch of a change that is held.
    pub(super) fn epoch_at(&self, connection: &Connection, sequence: u64) -> rusqlite::Result<Epoch> {
        let mut query = connection.prepare_cached(
            "SELECT epoch FROM epoch_start WHERE journal = ?1 AND first <= ?2 ORDER BY epoch DESC LIMIT 1",
        )?;
        let found = query.query_row(params![self.id, stored(sequence)?], |row| number(row, 0)).optional()?;
        Ok(Epoch::new(found.unwrap_or(0)))
    }

    /// The last change held at or before `theirs`, of no higher epoch.
    pub(super) fn common(&self, connection: &Connection, theirs: &Cursor) -> rusqlite::Result<Position> {
        let mut query = connection.prepare_cached(
            "SELECT first FROM epoch_start WHERE journal = ?1 AND epoch > ?2 ORDER BY epoch LIMIT 1",
        )?;
        let newer = query
            .query_row(params![self.id, stored(theirs.epoch.number())?], |row| number(row, 0))
            .optional()?;
        let not_newer = newer.map_or(u64::MAX, |first| first.saturating_sub(1));
        let sequence = theirs.sequence.min(self.position.sequence).min(not_newer);
        Ok(Position { sequence, epoch: self.epoch_at(connection, sequence)? })
    }

    /// Whether this change is the one that is held under its number; else the epoch of that one.
    pub(super) fn agrees(
        &self,
        connection: &Connection,
        cursor: &Cursor,
    ) -> rusqlite::Result<Result<(), Epoch>> {
        let ours = self.epoch_at(connection, cursor.sequence)?;
        let is_held = cursor.sequence <= self.position.sequence;
        Ok(if is_held && ours == cursor.epoch { Ok(()) } else { Err(ours) })
    }
}

/// All pools, to name those that rows refer to.
pub(super) struct Pools(HashMap<i64, PoolRow>);

impl Pools {
    pub(super) fn load(connection: &Connection, file: &Path) -> Result<Self, StoreError> {
        let read = |error| store_error(file, error);
        let mut query = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM pool")).map_err(read)?;
        let mut found = query.query([]).map_err(read)?;
        let mut pools = HashMap::new();
        while let Some(row) = found.next().map_err(read)? {
            let row = PoolRow::read(row, file)?;
            pools.insert(row.id, row);
        }
        Ok(Self(pools))
    }

    /// Those of whose journal something is held or known, in order of name.
    pub(super) fn journals(&self) -> Vec<&PoolRow> {
        let is_held =
            |row: &&PoolRow| row.position.sequence > 0 || row.epoch > Epoch::ZERO || row.is_recopying;
        let mut rows: Vec<_> = self.0.values().filter(is_held).collect();
        rows.sort_by(|one, other| one.name.cmp(&other.name));
        rows
    }

    pub(super) fn name(&self, id: i64, file: &Path) -> Result<PoolName, StoreError> {
        let unknown = || StoreError::corrupt(file, format!("there is no pool {id}"));
        self.0.get(&id).map(|row| row.name.clone()).ok_or_else(unknown)
    }

    pub(super) fn id(&self, name: &PoolName) -> Option<i64> {
        self.0.values().find(|row| row.name == *name).map(|row| row.id)
    }

    /// Adds a row that was opened after these were loaded.
    pub(super) fn insert(&mut self, row: PoolRow) {
        self.0.insert(row.id, row);
    }
}
