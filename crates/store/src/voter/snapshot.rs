//! Snapshot files: the state of one routing group after one entry of its log.
//!
//! Layout, numbers big-endian: `TANDEMHS`, format (u32, 1), home pool number (u32), group (u32), index of the
//! last entry contained (u64), length of the body (u64), the body as the registrar encodes it, SHA-256 of all
//! before it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use model::{PoolName, RoutingGroup};
use registrar::GroupState;
use sha2::{Digest, Sha256};

use super::log::Region;
use crate::StoreError;

const MAGIC: &[u8; 8] = b"TANDEMHS";
const FORMAT: u32 = 1;
const CHECKSUM_BYTES: usize = 32;
const SUFFIX: &str = ".snapshot";

/// The state of a group and the last entry of the log that it contains.
pub(super) struct Snapshot {
    pub(super) state: GroupState,
    pub(super) index: u64,
}

/// The file of a group: `HOME-GROUP.snapshot`.
pub(super) fn path(directory: &Path, home: &PoolName, group: RoutingGroup) -> PathBuf {
    directory.join(format!("{home}-{:02}{SUFFIX}", group.number()))
}

/// Writes a snapshot so that after a crash at any moment there is the old one or the new one.
pub(super) fn write(file: &Path, region: Region, index: u64, body: &[u8]) -> Result<(), StoreError> {
    let temporary = file.with_extension("snapshot.tmp");
    let written = write_synced(&temporary, region, index, body)
        .and_then(|()| fs::rename(&temporary, file))
        .and_then(|()| file.parent().map_or(Ok(()), sync_directory));
    written.map_err(|error| {
        // Its space may be what the log needs; a leftover is removed at the next start otherwise.
        drop(fs::remove_file(&temporary));
        StoreError::from_io(file, error)
    })
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn write_synced(file: &Path, region: Region, index: u64, body: &[u8]) -> io::Result<()> {
    let mut hash = Sha256::new();
    let mut opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    let header = header(region, index, body.len());
    for part in [header.as_slice(), body] {
        hash.update(part);
        opened.write_all(part)?;
    }
    opened.write_all(&hash.finalize())?;
    opened.sync_all()
}

fn header(region: Region, index: u64, length: usize) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(FORMAT.to_be_bytes());
    header.extend(region.home_number.to_be_bytes());
    header.extend(u32::from(region.group.number()).to_be_bytes());
    header.extend(index.to_be_bytes());
    header.extend(u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes());
    header
}

/// Reads the snapshot of a group; `None` when there is none.
///
/// Errors: [`StoreError::Corrupt`] when anything in it is wrong.
pub(super) fn read(file: &Path, region: Region) -> Result<Option<Snapshot>, StoreError> {
    let octets = match fs::read(file) {
        Ok(octets) => octets,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::from_io(file, error)),
    };
    let corrupt = |found: &str| StoreError::corrupt(file, found);
    let length = octets.len().checked_sub(CHECKSUM_BYTES).ok_or_else(|| corrupt("it is cut off"))?;
    let (content, checksum) = octets.split_at_checked(length).ok_or_else(|| corrupt("it is cut off"))?;
    if Sha256::digest(content).as_slice() != checksum {
        return Err(corrupt("its checksum differs"));
    }
    let mut rest = content;
    if take(&mut rest) != Some(*MAGIC) {
        return Err(corrupt("it is no snapshot"));
    }
    let format = take(&mut rest).map(u32::from_be_bytes).ok_or_else(|| corrupt("it is cut off"))?;
    if format > FORMAT {
        let (found, known) = (format.into(), FORMAT.into());
        return Err(StoreError::NewerFormat { file: file.to_owned(), found, known });
    }
    let place = (take(&mut rest).map(u32::from_be_bytes), take(&mut rest).map(u32::from_be_bytes));
    if place != (Some(region.home_number), Some(u32::from(region.group.number()))) {
        return Err(corrupt("it is of another routing group"));
    }
    let index = take(&mut rest).map(u64::from_be_bytes).ok_or_else(|| corrupt("it is cut off"))?;
    let length = take(&mut rest).map(u64::from_be_bytes).and_then(|length| usize::try_from(length).ok());
    if length != Some(rest.len()) {
        return Err(corrupt("its length differs"));
    }
    let state = GroupState::decode_snapshot(rest).map_err(|error| StoreError::corrupt(file, error))?;
    Ok(Some(Snapshot { state, index }))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}

/// Makes the directory where needed and removes what a crash left half written. Returns the files that are
/// there.
pub(super) fn prepare(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let io_error = |error| StoreError::from_io(directory, error);
    fs::create_dir_all(directory).map_err(io_error)?;
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(io_error)? {
        let file = entry.map_err(io_error)?.path();
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("tmp") => fs::remove_file(&file).map_err(|error| StoreError::from_io(&file, error))?,
            Some("snapshot") => files.push(file),
            Some(_) | None => {}
        }
    }
    Ok(files)
}
