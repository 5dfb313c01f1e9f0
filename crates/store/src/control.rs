//! `ControlStore`: a few small records that everybody agrees on: ownership, pool states, the topology's
//! version.

use std::time::Duration;

use model::limits;

use crate::StoreError;

/// Records with versions, changed only by compare-and-set, durable. Every method blocks.
///
/// A key is 1 to `limits::CONTROL_KEY_BYTES_MAX` octets of printable ASCII without spaces; a value has at
/// most `limits::CONTROL_VALUE_BYTES_MAX` octets. Records are never removed.
pub trait ControlStore: Send + Sync {
    /// The record under `key`.
    fn get(&self, key: &str) -> Result<Option<Versioned>, ControlError>;

    /// Writes `value` when the record's version is `expected` (0 = there is none), durable when this returns.
    ///
    /// Errors: [`ControlError`]; after [`ControlError::Unknown`] read the record to learn what happened.
    fn compare_and_set(&self, key: &str, expected: u64, value: &[u8]) -> Result<CasOutcome, ControlError>;

    /// All records whose key begins with `prefix`, in order of key, as of one moment.
    fn list(&self, prefix: &str) -> Result<Listing, ControlError>;

    /// Waits until a record whose key begins with `prefix` was written at a revision above `after`; returns
    /// the highest such revision, or `None` when `timeout` passed first.
    fn wait_for_change(
        &self,
        prefix: &str,
        after: u64,
        timeout: Duration,
    ) -> Result<Option<u64>, ControlError>;
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// Its content.
    pub value: Vec<u8>,
    /// How often this record was written; from 1.
    pub version: u64,
    /// The store's revision at which it was last written. Each write of any record takes the next revision.
    pub revision: u64,
}

/// Records as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The store's revision at that moment, to wait for changes after.
    pub revision: u64,
    /// Keys and records in order of key.
    pub records: Vec<(String, Versioned)>,
}

/// What became of a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CasOutcome {
    /// It is on disk.
    Stored {
        /// The record's version now.
        version: u64,
        /// The store's revision now.
        revision: u64,
    },
    /// The record had another version; nothing was changed.
    Conflict {
        /// The record as it is.
        found: Option<Versioned>,
    },
}

/// Why a control record was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Empty, too long, or with an octet that is not printable ASCII.
    #[error("a control key has 1 to {max} printable ASCII characters without spaces")]
    Key {
        /// Most octets allowed.
        max: usize,
    },
    /// The value is too long.
    #[error("a control record has at most {max} octets, this one has {length}")]
    Value {
        /// Octets in the value.
        length: usize,
        /// Most octets allowed.
        max: usize,
    },
    /// More records than the store takes.
    #[error("the control store holds at most {max} records")]
    Records {
        /// How many are taken.
        max: usize,
    },
    /// The write was begun and its result is unknown; never report success, read the record again.
    #[error("whether the control record is on disk is unknown")]
    Unknown(#[source] StoreError),
    /// The files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Refuses a key that no implementation has to take.
///
/// Errors: [`ControlError::Key`].
pub fn check_key(key: &str) -> Result<(), ControlError> {
    let max = limits::CONTROL_KEY_BYTES_MAX;
    let is_good = (1..=max).contains(&key.len()) && key.bytes().all(|octet| octet.is_ascii_graphic());
    if is_good { Ok(()) } else { Err(ControlError::Key { max }) }
}

/// Refuses a value that no implementation has to take.
///
/// Errors: [`ControlError::Value`].
pub fn check_value(value: &[u8]) -> Result<(), ControlError> {
    let max = limits::CONTROL_VALUE_BYTES_MAX;
    if value.len() <= max { Ok(()) } else { Err(ControlError::Value { length: value.len(), max }) }
}
