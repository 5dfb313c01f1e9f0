//! Documents as they are stored, and what is stored under which key.

use std::fmt;

use model::{
    AddressOfRecord, Epoch, PoolName, WallTime,
    documents::{Document, DocumentKind},
};
use serde::{Deserialize, Serialize};

/// A document of one user as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDocument {
    /// In whose journal it is.
    pub journal: PoolName,
    /// Whose it is.
    pub aor: AddressOfRecord,
    /// The document itself.
    pub document: Document,
    /// Number of its last change in the journal; from 1.
    pub version: u64,
    /// Epoch of that change.
    pub epoch: Epoch,
    /// When that change was made, by the clock of who made it.
    pub changed_at: WallTime,
}

/// What a change is about: one thing of one user that is replaced or edited as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The account.
    Account,
    /// The document of this kind.
    Document(DocumentKind),
    /// A conflict that waits for the operator.
    Conflict(ConflictId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account => f.write_str("account"),
            Self::Document(kind) => kind.fmt(f),
            Self::Conflict(id) => write!(f, "conflict {id}"),
        }
    }
}

/// Names a conflict: the operation that made the orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConflictId(u128);

impl ConflictId {
    /// The conflict with this number.
    pub const fn new(number: u128) -> Self {
        Self(number)
    }

    /// The number itself, for wire and disk.
    pub const fn number(self) -> u128 {
        self.0
    }
}

impl fmt::Display for ConflictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that names no conflict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a conflict is named by 32 hexadecimal digits, not by {0:?}")]
pub struct UnknownConflict(pub String);

impl std::str::FromStr for ConflictId {
    type Err = UnknownConflict;

    fn from_str(text: &str) -> Result<Self, UnknownConflict> {
        let is_hexadecimal = text.len() == 32 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
        let number = is_hexadecimal.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| UnknownConflict(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_conflict_is_read_as_it_is_printed() {
        let id = ConflictId::new(0xfeed);

        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("feed".parse::<ConflictId>().is_err());
        assert!(format!("+{:031x}", 1).parse::<ConflictId>().is_err());
    }
}
