//! What a server keeps on disk of the associations of branches.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Error, ErrorKind, Write},
    path::Path,
};

use model::{Epoch, PoolName};
use serde::{Deserialize, Serialize};

/// Everything that is kept. Bounded by the branches and pools of the topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Version of the topology it was brought up to date with.
    pub version: u64,
    /// By branch.
    pub branches: BTreeMap<PoolName, Record>,
}

/// One branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its associated pool.
    pub pool: PoolName,
    /// Pools with which it was associated before, as long as users of it may be in their journals; the last
    /// one last.
    #[serde(default)]
    pub former: Vec<Former>,
    /// The former journal in which this server still takes changes, because nobody has asked for its users.
    #[serde(default)]
    pub open: Option<Open>,
}

/// A pool with which a branch was associated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// The pool.
    pub pool: PoolName,
    /// Whether all users that were in its journal are settled where they belong.
    pub is_taken: bool,
}

/// A journal, and the epoch under which this server owned it when its users were to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The journal.
    pub journal: PoolName,
    /// The epoch.
    pub epoch: Epoch,
}

impl Record {
    /// A branch that never was associated with another pool.
    pub const fn new(pool: PoolName) -> Self {
        Self { pool, former: Vec::new(), open: None }
    }
}

/// Reads what was kept; nothing when there is no file.
///
/// Errors: the file cannot be read, or is damaged.
pub fn read(file: &Path) -> std::io::Result<Memory> {
    match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| {
            let what = format!("{} is damaged: {error}", file.display());
            Error::new(ErrorKind::InvalidData, what)
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Memory::default()),
        Err(error) => Err(error),
    }
}

/// Writes it, on disk when this returns.
///
/// Errors: it is not on disk; the file is as it was.
pub fn write(file: &Path, memory: &Memory) -> std::io::Result<()> {
    let content = serde_json::to_vec(memory).map_err(Error::other)?;
    let fresh = file.with_extension("new");
    let mut new = File::create(&fresh)?;
    new.write_all(&content)?;
    new.sync_all()?;
    std::fs::rename(&fresh, file)?;
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
