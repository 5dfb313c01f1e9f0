//! Rows of accounts, documents and conflicts as types, and SQLite's errors as ours.

use std::path::Path;

use model::{
    AddressOfRecord, Epoch, PoolName, WallTime,
    documents::{Document, DocumentKind},
};
use rusqlite::{ErrorCode, Row, ffi};

use super::pools::Pools;
use crate::{
    Account, AccountState, Conflict, ConflictId, Credentials, DigestAlgorithm, DocumentState, Entry,
    EntryState, OperationId, StoreError, StoredDocument, Subject,
};

/// What [`RawRow::read`] reads, in its order.
pub(super) const COLUMNS: &str = "journal, version, aor, kind, key, epoch, operation, changed_at, is_removed,
     home, ha1_md5, ha1_sha256, algorithms, body";
/// The same without secrets and bodies, which are then not read from the file at all.
pub(super) const LISTED_COLUMNS: &str = "journal, version, aor, kind, key, epoch, operation, changed_at,
     is_removed, home, NULL, NULL, NULL, NULL";

/// A row as SQLite holds it.
pub(super) struct RawRow {
    journal: i64,
    version: u64,
    aor: String,
    kind: i64,
    key: Vec<u8>,
    epoch: u64,
    operation: [u8; 16],
    changed_at: u64,
    is_removed: bool,
    home: Option<i64>,
    ha1_md5: Option<[u8; 16]>,
    ha1_sha256: Option<[u8; 32]>,
    algorithms: Option<String>,
    body: Option<String>,
}

impl RawRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            journal: row.get(0)?,
            version: number(row, 1)?,
            aor: row.get(2)?,
            kind: row.get(3)?,
            key: row.get(4)?,
            epoch: number(row, 5)?,
            operation: row.get(6)?,
            changed_at: number(row, 7)?,
            is_removed: row.get(8)?,
            home: row.get(9)?,
            ha1_md5: row.get(10)?,
            ha1_sha256: row.get(11)?,
            algorithms: row.get(12)?,
            body: row.get(13)?,
        })
    }

    /// Octets of the body, for the bound of a page.
    pub(super) fn body_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, String::len)
    }

    /// In whose journal it is, and what it is.
    pub(super) fn check(self, pools: &Pools, file: &Path) -> Result<(PoolName, Entry), StoreError> {
        let damaged = |what: &str| StoreError::corrupt(file, format!("{}: {what}", self.aor));
        let subject = subject(self.kind, &self.key).ok_or_else(|| damaged("unknown kind of row"))?;
        let body = || self.body.as_deref().ok_or_else(|| damaged("a row without content"));
        let state = match subject {
            _ if self.is_removed => EntryState::Removed(subject),
            Subject::Account => {
                let home = self.home.ok_or_else(|| damaged("an account without home"))?;
                let home = pools.name(home, file)?;
                match (self.ha1_md5, self.ha1_sha256) {
                    (Some(ha1_md5), Some(ha1_sha256)) => EntryState::Account {
                        home,
                        credentials: Credentials { ha1_md5, ha1_sha256 },
                        algorithms: algorithms(self.algorithms.as_deref(), file)?,
                    },
                    (None, _) | (_, None) => EntryState::Listed { home },
                }
            }
            Subject::Document(kind) => {
                let document: Document =
                    serde_json::from_str(body()?).map_err(|error| StoreError::corrupt(file, error))?;
                if document.kind() != kind {
                    return Err(damaged("a document of another kind"));
                }
                EntryState::Document(document)
            }
            Subject::Conflict(id) => {
                let content = serde_json::from_str(body()?).map_err(|error| StoreError::corrupt(file, error));
                EntryState::Conflict(id, content?)
            }
        };
        let entry = Entry {
            sequence: self.version,
            epoch: Epoch::new(self.epoch),
            operation: OperationId::new(u128::from_be_bytes(self.operation)),
            aor: address(&self.aor, file)?,
            changed_at: WallTime::from_micros(self.changed_at),
            state,
        };
        Ok((pools.name(self.journal, file)?, entry))
    }
}

/// The account that an entry is; `None` when it is none.
pub(super) fn account(journal: PoolName, entry: Entry) -> Option<Account> {
    let (home, credentials, algorithms) = match entry.state {
        EntryState::Account { home, credentials, algorithms } => (home, Some(credentials), algorithms),
        EntryState::Listed { home } => (home, None, None),
        EntryState::Removed(_) | EntryState::Document(_) | EntryState::Conflict(..) => return None,
    };
    Some(Account {
        aor: entry.aor,
        journal,
        home,
        credentials,
        algorithms,
        version: entry.sequence,
        epoch: entry.epoch,
        changed_at: entry.changed_at,
    })
}

/// The document that an entry is; `None` when it is none.
pub(super) fn document(journal: PoolName, entry: Entry) -> Option<StoredDocument> {
    let EntryState::Document(document) = entry.state else { return None };
    Some(StoredDocument {
        journal,
        aor: entry.aor,
        document,
        version: entry.sequence,
        epoch: entry.epoch,
        changed_at: entry.changed_at,
    })
}

/// The conflict that an entry is; `None` when it is none.
pub(super) fn conflict(journal: PoolName, entry: Entry) -> Option<Conflict> {
    let EntryState::Conflict(id, content) = entry.state else { return None };
    Some(Conflict {
        id,
        journal,
        aor: entry.aor,
        version: entry.sequence,
        found_at: entry.changed_at,
        content,
    })
}

/// What followers are told: accounts, and the documents that routing needs.
#[derive(Default)]
pub(super) struct Told {
    pub(super) accounts: Vec<AccountState>,
    pub(super) documents: Vec<DocumentState>,
}

impl Told {
    pub(super) const fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.documents.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.accounts.len().saturating_add(self.documents.len())
    }

    pub(super) fn push(&mut self, journal: &PoolName, entry: Entry) {
        match &entry.state {
            EntryState::Removed(subject) => self.push_removed(entry.aor, *subject),
            EntryState::Account { .. } | EntryState::Listed { .. } => {
                self.accounts.extend(account(journal.clone(), entry).map(AccountState::Present));
            }
            EntryState::Document(found) if found.kind().is_for_branch() => {
                self.documents.extend(document(journal.clone(), entry).map(DocumentState::Present));
            }
            EntryState::Document(_) | EntryState::Conflict(..) => {}
        }
    }

    pub(super) fn push_removed(&mut self, aor: AddressOfRecord, subject: Subject) {
        match subject {
            Subject::Account => self.accounts.push(AccountState::Removed(aor)),
            Subject::Document(kind) if kind.is_for_branch() => {
                self.documents.push(DocumentState::Removed { aor, kind });
            }
            Subject::Document(_) | Subject::Conflict(_) => {}
        }
    }

    /// Keeps the last state of each, in the order in which they changed last.
    pub(super) fn newest_of_each(mut self) -> Self {
        keep_newest(&mut self.accounts, |state| match state {
            AccountState::Present(Account { aor, .. }) | AccountState::Removed(aor) => (aor.clone(), None),
        });
        keep_newest(&mut self.documents, |state| match state {
            DocumentState::Present(found) => (found.aor.clone(), Some(found.document.kind())),
            DocumentState::Removed { aor, kind } => (aor.clone(), Some(*kind)),
        });
        self
    }
}

fn keep_newest<T>(states: &mut Vec<T>, key: impl Fn(&T) -> (AddressOfRecord, Option<DocumentKind>)) {
    let mut seen = hashbrown::HashSet::with_capacity(states.len());
    states.reverse();
    states.retain(|state| seen.insert(key(state)));
    states.reverse();
}

/// The columns `kind` and `key` of a subject.
pub(super) fn subject_key(subject: Subject) -> (i64, Vec<u8>) {
    match subject {
        Subject::Account => (0, Vec::new()),
        Subject::Document(DocumentKind::ContactList) => (1, Vec::new()),
        Subject::Document(DocumentKind::Settings) => (2, Vec::new()),
        Subject::Document(DocumentKind::VoicePolicy) => (3, Vec::new()),
        Subject::Document(DocumentKind::CallLog) => (4, Vec::new()),
        Subject::Conflict(id) => (5, id.number().to_be_bytes().to_vec()),
    }
}

/// Reads what [`subject_key`] wrote.
pub(super) fn subject(kind: i64, key: &[u8]) -> Option<Subject> {
    match kind {
        0 => Some(Subject::Account),
        1 => Some(Subject::Document(DocumentKind::ContactList)),
        2 => Some(Subject::Document(DocumentKind::Settings)),
        3 => Some(Subject::Document(DocumentKind::VoicePolicy)),
        4 => Some(Subject::Document(DocumentKind::CallLog)),
        5 => Some(Subject::Conflict(ConflictId::new(u128::from_be_bytes(key.try_into().ok()?)))),
        _ => None,
    }
}

pub(super) fn address(text: &str, file: &Path) -> Result<AddressOfRecord, StoreError> {
    AddressOfRecord::new(text).map_err(|error| StoreError::corrupt(file, error))
}

/// Reads what [`algorithms_text`] wrote.
fn algorithms(text: Option<&str>, file: &Path) -> Result<Option<Vec<DigestAlgorithm>>, StoreError> {
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
