//! Call records that wait for the owner of the user data: one file for each batch, complete or not there.
//!
//! A file appears by renaming, after its octets are on disk, and goes when its records are delivered. So
//! there is nothing to repair after a crash; at worst a batch is delivered again, which changes nothing.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use model::{PoolName, limits};
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::{OwedRecord, OwedRecords};

/// Version of the files.
const FORMAT: u32 = 1;

/// Why records were not kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// `limits::CALL_RECORDS_SPOOLED_MAX` records wait already.
    #[error("{waiting} call records wait for the owner of the user data, no more are kept")]
    Full {
        /// How many wait.
        waiting: usize,
    },
    /// A file cannot be read or written.
    #[error("{} cannot be read or written; check the disk", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The records of one server that wait for somebody else to write them.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    batches: BTreeMap<u64, Batch>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Batch {
    journal: PoolName,
    records: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    owed: OwedRecords,
}

impl Spool {
    /// The spool in this folder, made when it is not there. A file that cannot be understood is set aside
    /// under another name, and said in the log: the rest is delivered all the same.
    ///
    /// Errors: [`SpoolError::Io`].
    pub fn open(folder: &Path) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Io { file: folder.to_path_buf(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let mut spool = Self { folder: folder.to_path_buf(), batches: BTreeMap::new(), next: 1 };
        for entry in fs::read_dir(folder).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            let extension = file.extension().and_then(|text| text.to_str());
            let number = file.file_stem().and_then(|text| text.to_str()?.parse::<u64>().ok());
            match (extension, number) {
                (Some("json"), Some(number)) => spool.found(number),
                // Written when the process ended; nobody was told that it was kept.
                (Some("part"), _) => drop(fs::remove_file(&file)),
                (Some(_) | None, _) => {}
            }
        }
        Ok(spool)
    }

    /// How many records wait.
    pub fn len(&self) -> usize {
        self.batches.values().map(|batch| batch.records).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The journals for which records wait, in order of name, none twice.
    pub fn journals(&self) -> Vec<PoolName> {
        let mut journals: Vec<_> = self.batches.values().map(|batch| batch.journal.clone()).collect();
        journals.sort();
        journals.dedup();
        journals
    }

    /// Keeps records; on disk when this returns.
    ///
    /// Errors: [`SpoolError`]; nothing is kept then.
    pub fn keep(&mut self, owed: OwedRecords) -> Result<(), SpoolError> {
        let waiting = self.len();
        if waiting.saturating_add(owed.records.len()) > limits::CALL_RECORDS_SPOOLED_MAX {
            return Err(SpoolError::Full { waiting });
        }
        let number = self.next;
        let batch = Batch { journal: owed.journal.clone(), records: owed.records.len() };
        self.write(number, &Content { format: FORMAT, owed })?;
        self.next = number.saturating_add(1);
        self.batches.insert(number, batch);
        Ok(())
    }

    /// The oldest batch for a journal, with its number.
    pub fn oldest(&mut self, journal: &PoolName) -> Option<(u64, Vec<OwedRecord>)> {
        loop {
            let number = *self.batches.iter().find(|(_, batch)| batch.journal == *journal)?.0;
            match self.read(number) {
                Some(content) => return Some((number, content.owed.records)),
                None => self.set_aside(number),
            }
        }
    }

    /// Forgets a batch whose records are on the owner's disk.
    pub fn delivered(&mut self, number: u64) {
        if self.batches.remove(&number).is_some()
            && let Err(error) = fs::remove_file(self.file(number))
        {
            // It is delivered again after a restart, which changes nothing.
            warn!(%error, file = %self.file(number).display(), "delivered call records not removed");
        }
    }

    fn found(&mut self, number: u64) {
        self.next = self.next.max(number.saturating_add(1));
        match self.read(number) {
            Some(content) => {
                let records = content.owed.records.len();
                self.batches.insert(number, Batch { journal: content.owed.journal, records });
            }
            None => self.set_aside(number),
        }
    }

    fn read(&self, number: u64) -> Option<Content> {
        let octets = fs::read(self.file(number)).ok()?;
        serde_json::from_slice::<Content>(&octets).ok().filter(|content| content.format == FORMAT)
    }

    fn set_aside(&mut self, number: u64) {
        let file = self.file(number);
        error!(file = %file.display(), "call records cannot be read; the file is set aside");
        let _nothing_more_can_be_done = fs::rename(&file, file.with_extension("damaged"));
        self.batches.remove(&number);
    }

    fn write(&self, number: u64, content: &Content) -> Result<(), SpoolError> {
        let file = self.file(number);
        let part = file.with_extension("part");
        let write = || {
            let mut out = File::create(&part)?;
            out.write_all(&serde_json::to_vec(content)?)?;
            out.sync_all()?;
            fs::rename(&part, &file)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| {
            let _what_is_left_is_removed_at_the_start = fs::remove_file(&part);
            SpoolError::Io { file, source }
        })
    }

    fn file(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:020}.json"))
    }
}

#[cfg(test)]
mod tests {
    use model::{
        AddressOfRecord, WallTime,
        documents::{CallId, CallRecord, CallResult, Direction},
    };

    use super::*;

    fn owed(journal: &str, call: u64) -> OwedRecords {
        let record = CallRecord {
            call: CallId(call),
            direction: Direction::Made,
            other: "sip:bob@example.com".to_owned(),
            began_at: WallTime::from_secs(call),
            answered_at: None,
            ended_at: None,
            result: CallResult::Missed,
        };
        let aor = AddressOfRecord::new("sip:alice@example.com").unwrap();
        let records = vec![OwedRecord { aor, operation: format!("{call:032x}"), record }];
        OwedRecords { journal: PoolName::new(journal).unwrap(), records }
    }

    fn calls(spool: &mut Spool, journal: &str) -> Vec<u64> {
        let journal = PoolName::new(journal).unwrap();
        let mut calls = Vec::new();
        while let Some((number, records)) = spool.oldest(&journal) {
            calls.extend(records.iter().map(|owed| owed.record.call.0));
            spool.delivered(number);
        }
        calls
    }

    #[test]
    fn records_wait_in_order_for_each_journal_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path()).unwrap();
        for (journal, call) in [("east", 1), ("west", 2), ("east", 3)] {
            spool.keep(owed(journal, call)).unwrap();
        }
        drop(spool);

        let mut spool = Spool::open(folder.path()).unwrap();

        assert_eq!((spool.len(), spool.journals().len()), (3, 2));
        assert_eq!(calls(&mut spool, "east"), [1, 3]);
        spool.keep(owed("west", 4)).unwrap();
        assert_eq!(calls(&mut spool, "west"), [2, 4]);
        assert!(Spool::open(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_the_others_are_delivered() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path()).unwrap();
        for call in 1..=3 {
            spool.keep(owed("east", call)).unwrap();
        }
        fs::write(folder.path().join("00000000000000000001.json"), b"{").unwrap();
        fs::write(folder.path().join("00000000000000000009.part"), b"{").unwrap();

        assert_eq!(calls(&mut spool, "east"), [2, 3]);
        drop(spool);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left.iter().filter(|file| file.extension().unwrap() == "damaged").count(), 1, "{left:?}");
        assert!(Spool::open(folder.path()).unwrap().is_empty());
        assert!(!folder.path().join("00000000000000000009.part").exists());
    }

    #[test]
    fn a_full_spool_refuses_and_keeps_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path()).unwrap();
        let one = owed("east", 1).records[0].clone();
        let many = vec![one; limits::CALL_RECORDS_SPOOLED_MAX];
        spool.keep(OwedRecords { records: many, ..owed("east", 1) }).unwrap();

        assert!(matches!(spool.keep(owed("east", 2)), Err(SpoolError::Full { .. })));
        assert_eq!(spool.len(), limits::CALL_RECORDS_SPOOLED_MAX);
    }
}
