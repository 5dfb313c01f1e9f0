//! Rows of the user database as types, and SQLite's errors as ours.

use std::path::Path;

use model::{AddressOfRecord, Epoch, PoolName, WallTime, limits};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, ffi, params};

use crate::{Account, Credentials, Cursor, DigestAlgorithm, OperationId, Scope, StoreError};

/// What [`RawAccount::read`] reads, in its order.
pub(super) const ACCOUNT_COLUMNS: &str =
    "home, aor, version, epoch, changed_at, ha1_md5, ha1_sha256, algorithms";

/// The row of one home pool.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) id: i64,
    pub(super) epoch: Epoch,
    pub(super) accounts: Position,
    pub(super) directory: Position,
}

/// How far something is held in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) sequence: u64,
    pub(super) epoch: Epoch,
}

impl Position {
    pub(super) fn cursor(self, home: &PoolName) -> Cursor {
        Cursor { home: home.clone(), sequence: self.sequence, epoch: self.epoch }
    }
}

impl Home {
    const COLUMNS: &'static str =
        "id, epoch, accounts_sequence, accounts_epoch, directory_sequence, directory_epoch, name";

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let position = |at: usize| -> rusqlite::Result<Position> {
            Ok(Position { sequence: number(row, at)?, epoch: Epoch::new(number(row, at.saturating_add(1))?) })
        };
        Ok(Self {
            id: row.get(0)?,
            epoch: Epoch::new(number(row, 1)?),
            accounts: position(2)?,
            directory: position(4)?,
        })
    }

    /// The row of this home pool.
    pub(super) fn find(connection: &Connection, home: &PoolName) -> rusqlite::Result<Option<Self>> {
        let sql = format!("SELECT {} FROM home WHERE name = ?1", Self::COLUMNS);
        connection.prepare_cached(&sql)?.query_row([home.as_str()], Self::read).optional()
    }

    /// The row of this home pool, created when there is none; `None` when there are too many.
    pub(super) fn open(
        connection: &Connection,
        file: &Path,
        home: &PoolName,
    ) -> Result<Option<Self>, StoreError> {
        let read = |error| store_error(file, error);
        if let Some(row) = Self::find(connection, home).map_err(read)? {
            return Ok(Some(row));
        }
        let count: i64 =
            connection.query_row("SELECT count(*) FROM home", [], |row| row.get(0)).map_err(read)?;
        if usize::try_from(count).unwrap_or(usize::MAX) >= limits::HOME_POOLS_MAX {
            return Ok(None);
        }
        connection
            .execute("INSERT INTO home VALUES (NULL, ?1, 0, 0, 0, 0, 0)", [home.as_str()])
            .map_err(read)?;
        let start = Position { sequence: 0, epoch: Epoch::ZERO };
        let id = connection.last_insert_rowid();
        Ok(Some(Self { id, epoch: Epoch::ZERO, accounts: start, directory: start }))
    }

    /// Writes the row back.
    pub(super) fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut update = connection.prepare_cached(
            "UPDATE home SET epoch = ?2, accounts_sequence = ?3, accounts_epoch = ?4, directory_sequence = ?5,
             directory_epoch = ?6 WHERE id = ?1",
        )?;
        update.execute(params![
            self.id,
            stored(self.epoch.number())?,
            stored(self.accounts.sequence)?,
            stored(self.accounts.epoch.number())?,
            stored(self.directory.sequence)?,
            stored(self.directory.epoch.number())?,
        ])?;
        Ok(())
    }

    /// How far this scope is held.
    pub(super) const fn at(&self, scope: Scope) -> Position {
        match scope {
            Scope::Accounts => self.accounts,
            Scope::Directory => self.directory,
        }
    }

    /// Whether users are known here whose accounts are not.
    pub(super) const fn is_directory_only(&self) -> bool {
        self.directory.sequence > self.accounts.sequence
    }
}

/// The rows of all home pools, in order of name.
pub(super) struct Homes(Vec<(PoolName, Home)>);

impl Homes {
    pub(super) fn load(connection: &Connection, file: &Path) -> Result<Self, StoreError> {
        let read = |error| store_error(file, error);
        let sql = format!("SELECT {} FROM home ORDER BY name", Home::COLUMNS);
        let mut query = connection.prepare_cached(&sql).map_err(read)?;
        let mut found = query.query([]).map_err(read)?;
        let mut homes = Vec::new();
        while let Some(row) = found.next().map_err(read)? {
            let name: String = row.get(6).map_err(read)?;
            let name = PoolName::new(&name).map_err(|error| StoreError::corrupt(file, error))?;
            homes.push((name, Home::read(row).map_err(read)?));
        }
        Ok(Self(homes))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PoolName, &Home)> {
        self.0.iter().map(|(name, row)| (name, row))
    }

    pub(super) fn id(&self, home: &PoolName) -> Option<i64> {
        self.iter().find(|(name, _)| *name == home).map(|(_, row)| row.id)
    }

    pub(super) fn name(&self, id: i64) -> Option<&PoolName> {
        self.iter().find(|(_, row)| row.id == id).map(|(name, _)| name)
    }
}

/// An account as SQLite holds it.
pub(super) struct RawAccount {
    home: i64,
    aor: String,
    version: u64,
    epoch: u64,
    changed_at: u64,
    ha1_md5: Option<[u8; 16]>,
    ha1_sha256: Option<[u8; 32]>,
    algorithms: Option<String>,
}

impl RawAccount {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            home: row.get(0)?,
            aor: row.get(1)?,
            version: number(row, 2)?,
            epoch: number(row, 3)?,
            changed_at: number(row, 4)?,
            ha1_md5: row.get(5)?,
            ha1_sha256: row.get(6)?,
            algorithms: row.get(7)?,
        })
    }

    pub(super) fn check(self, homes: &Homes, file: &Path) -> Result<Account, StoreError> {
        let home = homes
            .name(self.home)
            .ok_or_else(|| StoreError::corrupt(file, format!("{} has no home pool", self.aor)))?
            .clone();
        Ok(Account {
            aor: address(&self.aor, file)?,
            home,
            credentials: credentials(self.ha1_md5, self.ha1_sha256),
            algorithms: algorithms(self.algorithms.as_deref(), file)?,
            version: self.version,
            epoch: Epoch::new(self.epoch),
            changed_at: WallTime::from_micros(self.changed_at),
        })
    }
}

/// Hands over the accounts of one home pool, or of all, in order of address-of-record.
pub(super) fn each_account(
    connection: &Connection,
    file: &Path,
    home: Option<i64>,
    each: &mut dyn FnMut(Account),
) -> Result<(), StoreError> {
    let read = |error| store_error(file, error);
    let homes = Homes::load(connection, file)?;
    let only = if home.is_some() { "home = ?1" } else { "?1 IS NULL" };
    let sql = format!("SELECT {ACCOUNT_COLUMNS} FROM account WHERE {only} AND NOT is_removed ORDER BY aor");
    let mut query = connection.prepare_cached(&sql).map_err(read)?;
    let mut found = query.query([home]).map_err(read)?;
    while let Some(row) = found.next().map_err(read)? {
        each(RawAccount::read(row).map_err(read)?.check(&homes, file)?);
    }
    Ok(())
}

pub(super) fn address(text: &str, file: &Path) -> Result<AddressOfRecord, StoreError> {
    AddressOfRecord::new(text).map_err(|error| StoreError::corrupt(file, error))
}

pub(super) const fn credentials(
    ha1_md5: Option<[u8; 16]>,
    ha1_sha256: Option<[u8; 32]>,
) -> Option<Credentials> {
    match (ha1_md5, ha1_sha256) {
        (Some(ha1_md5), Some(ha1_sha256)) => Some(Credentials { ha1_md5, ha1_sha256 }),
        (None, _) | (_, None) => None,
    }
}

/// Reads what [`algorithms_text`] wrote.
pub(super) fn algorithms(
    text: Option<&str>,
    file: &Path,
) -> Result<Option<Vec<DigestAlgorithm>>, StoreError> {
    let Some(text) = text else { return Ok(None) };
    let tokens = text.split(',').filter(|token| !token.is_empty());
    tokens
        .map(|token| token.parse().map_err(|error| StoreError::corrupt(file, error)))
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Algorithms as a list with commas.
pub(super) fn algorithms_text(algorithms: Option<&[DigestAlgorithm]>) -> Option<String> {
    algorithms.map(|all| all.iter().map(|algorithm| algorithm.as_str()).collect::<Vec<_>>().join(","))
}

pub(super) fn operation_octets(operation: OperationId) -> [u8; 16] {
    operation.number().to_be_bytes()
}

/// Reads a number that is never negative.
pub(super) fn number(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(at)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, value))
}

/// A number as SQLite stores it.
pub(super) fn stored(number: u64) -> rusqlite::Result<i64> {
    i64::try_from(number).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// SQLite's error as ours.
pub(super) fn store_error(file: &Path, error: rusqlite::Error) -> StoreError {
    let file = file.to_owned();
    let is_wrong_content = matches!(
        error,
        rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::QueryReturnedNoRows
    );
    let code = if is_wrong_content { Some(ErrorCode::DatabaseCorrupt) } else { error.sqlite_error_code() };
    let extended = error.sqlite_error().map_or(0, |failure| failure.extended_code);
    let cause = error.into();
    match code {
        Some(ErrorCode::DiskFull) => StoreError::Full { file, cause },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt { file, cause },
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::AuthorizationForStatementDenied,
        ) => StoreError::Unreadable { file, cause },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            StoreError::InUse { file }
        }
        Some(_) if extended == ffi::SQLITE_IOERR_CORRUPTFS => StoreError::Corrupt { file, cause },
        Some(_) | None => StoreError::Io { file, cause },
    }
}
