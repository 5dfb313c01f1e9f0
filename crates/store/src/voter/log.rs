//! The log on raft-engine: entries of routing groups, and the numbers of home pools.
//!
//! An entry holds its index (u64, big-endian), the format of what follows (u8, 1), then commands: length
//! (u32, big-endian) and the postcard encoding.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{PoolName, RoutingGroup};
use protobuf::well_known_types::BytesValue;
use raft_engine::{
    Command as EngineCommand, Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode,
};
use registrar::Command;

use super::{LogPolicy, filled::FilledFiles, snapshot::sync_directory, tail};
use crate::{Cause, StoreError, chain, lock::patiently};

/// The raft group that holds no entries but the numbers of the home pools.
const META_REGION: u64 = 1;
const HOME_KEY_PREFIX: &[u8] = b"home/";
const ENTRY_FORMAT: u8 = 1;
/// Index and format.
const ENTRY_HEADER_BYTES: usize = 9;
/// Entries read at a time at start.
const READ_ENTRIES: u64 = 64;

/// A routing group in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Region {
    /// Number of the home pool in this store, from 1.
    pub(super) home_number: u32,
    pub(super) group: RoutingGroup,
}

impl Region {
    /// The raft group: never that of the home pools' numbers.
    fn id(self) -> u64 {
        u64::from(self.home_number) << 8 | u64::from(self.group.number())
    }

    fn of_id(id: u64) -> Option<Self> {
        let home_number = u32::try_from(id >> 8).ok().filter(|number| *number > 0)?;
        let group = u8::try_from(id & 0xff).ok()?.try_into().ok()?;
        Some(Self { home_number, group })
    }
}

/// Writing failed or broke off, or something that was read is wrong.
#[derive(Clone, Debug)]
pub(super) struct LogError {
    pub(super) reason: Arc<str>,
    /// raft-engine panicked: its state is not to be trusted any more.
    pub(super) is_panic: bool,
}

impl LogError {
    fn new(reason: String) -> Self {
        Self { reason: reason.into(), is_panic: false }
    }
}

/// The entries of one write, collected.
#[derive(Default)]
pub(super) struct Batch {
    engine: LogBatch,
    message: BytesValue,
}

/// The log of all routing groups.
pub(super) struct Log {
    engine: Engine<FilledFiles>,
    directory: PathBuf,
}

/// Makes raft-engine read the index of an entry.
struct Entries;

impl MessageExt for Entries {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |index| u64::from_be_bytes(*index))
    }
}

impl Log {
    /// Opens the log, creating it where needed.
    pub(super) fn open(directory: &Path, policy: LogPolicy) -> Result<Self, StoreError> {
        let io_error = |error| StoreError::from_io(directory, error);
        fs::create_dir_all(directory).map_err(io_error)?;
        tail::check(directory)?;
        let dir = directory.to_str().ok_or_else(|| StoreError::Unreadable {
            file: directory.to_owned(),
            cause: "its path is not UTF-8".into(),
        })?;
        let config = Config {
            dir: dir.to_owned(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            // Compressing costs more processor time than the disk it saves is worth.
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize::mb(policy.file_mib.max(1)),
            purge_threshold: ReadableSize::mb(
                policy.log_mib_max.max(policy.file_mib.max(1).saturating_mul(2)),
            ),
            // A recycled file ends in old content, where damage cannot be told from a write that was cut off.
            enable_log_recycle: false,
            ..Config::default()
        };
        let engine = patiently(|| {
            catch_unwind(|| Engine::open_with_file_system(config.clone(), Arc::new(FilledFiles)))
                .map_err(|panic| StoreError::corrupt(directory, panic_text(&*panic)))?
                .map_err(|error| store_error(directory, error))
        })?;
        sync_directory(directory).map_err(io_error)?;
        if let Some(parent) = directory.parent() {
            sync_directory(parent).map_err(io_error)?;
        }
        Ok(Self { engine, directory: directory.to_owned() })
    }

    /// The home pools that have numbers.
    pub(super) fn homes(&self) -> Result<Vec<(PoolName, u32)>, StoreError> {
        let mut homes = Vec::new();
        self.engine
            .scan_raw_messages(META_REGION, Some(HOME_KEY_PREFIX), None, false, |key, value| {
                homes.push((key.to_owned(), value.to_owned()));
                true
            })
            .map_err(|error| store_error(&self.directory, error))?;
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            let name = key.strip_prefix(HOME_KEY_PREFIX).and_then(|name| std::str::from_utf8(name).ok());
            let name = name.and_then(|name| PoolName::new(name).ok());
            let number = value.try_into().ok().map(u32::from_be_bytes);
            name.zip(number)
                .ok_or_else(|| StoreError::corrupt(&self.directory, "a home pool's record is wrong"))
        };
        homes.into_iter().map(read).collect()
    }

    /// Calls `each` with every command after entry `after`, in order; returns the last index, at least
    /// `after`.
    ///
    /// Errors: [`StoreError::Corrupt`] when entries are missing or cannot be read.
    pub(super) fn read(
        &self,
        region: Region,
        after: u64,
        each: &mut dyn FnMut(&Command),
    ) -> Result<u64, StoreError> {
        let corrupt = |found: String| StoreError::corrupt(&self.directory, found);
        let id = region.id();
        let (Some(first), Some(last)) = (self.engine.first_index(id), self.engine.last_index(id)) else {
            return Ok(after);
        };
        if last <= after {
            return Ok(after);
        }
        let mut next = after.saturating_add(1);
        if first > next {
            return Err(corrupt(format!(
                "{region:?} has entries from {first}, its snapshot ends at {after}"
            )));
        }
        let mut entries = Vec::new();
        while next <= last {
            let end = last.saturating_add(1).min(next.saturating_add(READ_ENTRIES));
            let fetched = catch_unwind(AssertUnwindSafe(|| {
                self.engine.fetch_entries_to::<Entries>(id, next, end, None, &mut entries)
            }));
            fetched
                .map_err(|panic| corrupt(panic_text(&*panic)))?
                .map_err(|error| store_error(&self.directory, error))?;
            for entry in entries.drain(..) {
                if Entries::index(&entry) != next || read_entry(&entry.value, each).is_none() {
                    return Err(corrupt(format!("entry {next} of {region:?} cannot be read")));
                }
                next = next.saturating_add(1);
            }
            if next < end {
                return Err(corrupt(format!("entry {next} of {region:?} is missing")));
            }
        }
        Ok(last)
    }

    /// Writes the batch and syncs it. After an error nothing more may be written.
    pub(super) fn write(&self, batch: &mut Batch) -> Result<usize, LogError> {
        // raft-engine panics when a sync fails.
        match catch_unwind(AssertUnwindSafe(|| self.engine.write(&mut batch.engine, true))) {
            Ok(Ok(octets)) => Ok(octets),
            Ok(Err(error)) => {
                let error = store_error(&self.directory, error);
                Err(LogError::new(chain(&error)))
            }
            Err(panic) => Err(LogError { reason: panic_text(&*panic).into(), is_panic: true }),
        }
    }

    /// Deletes the files that hold nothing any more; returns the routing groups that keep old files from it.
    pub(super) fn purge(&self) -> Result<Vec<Region>, LogError> {
        match catch_unwind(AssertUnwindSafe(|| self.engine.purge_expired_files())) {
            Ok(Ok(regions)) => Ok(regions.into_iter().filter_map(Region::of_id).collect()),
            Ok(Err(error)) => {
                let error = store_error(&self.directory, error);
                Err(LogError::new(chain(&error)))
            }
            Err(panic) => Err(LogError { reason: panic_text(&*panic).into(), is_panic: true }),
        }
    }

    /// Drops entries up to `index` from what is in memory and, with the next synced write, from the disk.
    pub(super) fn compact(&self, region: Region, index: u64) {
        self.engine.compact_to(region.id(), index.saturating_add(1));
    }
}

impl Batch {
    /// Adds the commands in `entry`, begun by [`begin_entry`], and empties it.
    pub(super) fn add(&mut self, region: Region, entry: &mut Vec<u8>) -> Result<(), LogError> {
        self.message.value = std::mem::take(entry);
        let added = self.engine.add_entries::<Entries>(region.id(), std::slice::from_ref(&self.message));
        *entry = std::mem::take(&mut self.message.value);
        entry.clear();
        added.map_err(|error| LogError::new(error.to_string()))
    }

    /// Records the number of a new home pool.
    pub(super) fn add_home(&mut self, home: &PoolName, number: u32) -> Result<(), LogError> {
        let key = [HOME_KEY_PREFIX, home.as_str().as_bytes()].concat();
        let put = self.engine.put(META_REGION, key, number.to_be_bytes().to_vec());
        put.map_err(|error| LogError::new(error.to_string()))
    }

    /// Drops the entries up to `index`: a durable snapshot contains them.
    pub(super) fn compact(&mut self, region: Region, index: u64) {
        self.engine.add_command(region.id(), EngineCommand::Compact { index: index.saturating_add(1) });
    }
}

/// Begins an entry.
pub(super) fn begin_entry(entry: &mut Vec<u8>, index: u64) {
    entry.clear();
    entry.extend_from_slice(&index.to_be_bytes());
    entry.push(ENTRY_FORMAT);
}

/// Appends a command to an entry.
pub(super) fn push_command(entry: &mut Vec<u8>, command: &Command) -> Result<(), LogError> {
    let start = entry.len();
    entry.extend_from_slice(&[0; 4]);
    let encoded = postcard::to_extend(command, std::mem::take(entry));
    *entry = encoded.map_err(|error| LogError::new(error.to_string()))?;
    let length = entry.len().saturating_sub(start).saturating_sub(4);
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = entry.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
        *place = length;
    }
    Ok(())
}

/// Calls `each` with the commands of an entry; `None` when it cannot be read.
fn read_entry(entry: &[u8], each: &mut dyn FnMut(&Command)) -> Option<()> {
    let (header, mut rest) = entry.split_at_checked(ENTRY_HEADER_BYTES)?;
    if header.last() != Some(&ENTRY_FORMAT) {
        return None;
    }
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (command, after) = after.split_at_checked(length)?;
        each(&postcard::from_bytes(command).ok()?);
        rest = after;
    }
    Some(())
}

fn store_error(directory: &Path, error: raft_engine::Error) -> StoreError {
    match error {
        raft_engine::Error::Io(error) => StoreError::from_io(directory, error),
        raft_engine::Error::Other(error) if error.to_string().contains("lock") => {
            StoreError::InUse { file: directory.to_owned() }
        }
        raft_engine::Error::TryAgain(found) => {
            StoreError::Full { file: directory.to_owned(), cause: found.into() }
        }
        error @ (raft_engine::Error::Corruption(_)
        | raft_engine::Error::Codec(_)
        | raft_engine::Error::Protobuf(_)
        | raft_engine::Error::EntryCompacted
        | raft_engine::Error::EntryNotFound) => StoreError::corrupt(directory, error),
        error @ (raft_engine::Error::InvalidArgument(_)
        | raft_engine::Error::Full
        | raft_engine::Error::Other(_)) => {
            StoreError::Io { file: directory.to_owned(), cause: Cause::from(error) }
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the log stopped: {}", text.unwrap_or("no reason given"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::WallTime;
    use raft_engine::{get_perf_context, take_perf_context};
    use tempfile::TempDir;

    use super::*;
    use crate::conformance::register;

    fn region() -> Region {
        Region { home_number: 1, group: RoutingGroup::all().next().unwrap() }
    }

    fn write(log: &Log, index: u64, commands: &[Command]) {
        let (mut batch, mut entry) = (Batch::default(), Vec::new());
        begin_entry(&mut entry, index);
        commands.iter().for_each(|command| push_command(&mut entry, command).unwrap());
        batch.add(region(), &mut entry).unwrap();
        log.write(&mut batch).unwrap();
    }

    fn commands(number: u64) -> Vec<Command> {
        let home = PoolName::new("east").unwrap();
        (0..3).map(|part| register(&home, number * 3 + part, 1, WallTime::from_secs(1))).collect()
    }

    #[test]
    fn a_write_is_synced_before_it_returns() {
        let place = TempDir::new().unwrap();
        let log = Log::open(&place.path().join("log"), LogPolicy::default()).unwrap();

        take_perf_context();
        write(&log, 1, &commands(1));

        assert!(get_perf_context().log_sync_duration > Duration::ZERO);
    }

    #[test]
    fn commands_are_read_back_in_order_after_the_snapshot() {
        let place = TempDir::new().unwrap();
        let directory = place.path().join("log");
        let log = Log::open(&directory, LogPolicy::default()).unwrap();
        (1..=200).for_each(|index| write(&log, index, &commands(index)));
        drop(log);
        let log = Log::open(&directory, LogPolicy::default()).unwrap();
        let read = |after| {
            let mut found = Vec::new();
            let last = log.read(region(), after, &mut |command| found.push(command.clone()));
            (last, found)
        };

        let expected: Vec<_> = (151..=200).flat_map(commands).collect();
        let (last, found) = read(150);
        log.compact(region(), 150);
        let (same_last, same) = read(150);
        let (gap, _) = read(149);

        assert_eq!((last.unwrap(), found), (200, expected.clone()));
        assert_eq!((same_last.unwrap(), same), (200, expected));
        assert!(matches!(gap, Err(StoreError::Corrupt { .. })), "an entry that is needed was dropped");
        assert_eq!(read(200).0.unwrap(), 200);
        assert_eq!(read(300).0.unwrap(), 300, "a snapshot may be newer than all entries");
    }
}
