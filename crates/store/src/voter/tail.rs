//! Tells a write that a crash cut off from damage, before raft-engine opens the log.
//!
//! raft-engine cuts the last file where it cannot read on. That is right for a write that was cut off: it was
//! the last one and never acknowledged. But if anything readable follows the unreadable place, what was
//! acknowledged is damaged, and cutting would lose it and all after it in silence. Layout of raft-engine 0.4
//! files, format 2: a header of 68 octets, then batches: length << 8 | compression (u64), offset of the
//! footer (u64), entries with CRC-32, footer with CRC-32 xor the number of the file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::StoreError;

const FILE_MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
/// Follows the magic; after it an alignment, which is 0 here.
const FILE_FORMAT: u64 = 2;
const BATCH_HEADER_BYTES: usize = 16;
/// What a file system writes at once, at least.
const PAGE_BYTES: usize = 4_096;
const SUFFIX: &str = ".raftlog";

/// Looks through the last file of the log.
///
/// Errors: [`StoreError::Corrupt`] when a readable batch follows an unreadable place; nothing is changed.
pub(super) fn check(directory: &Path) -> Result<(), StoreError> {
    let Some((number, file)) = last_file(directory)? else { return Ok(()) };
    let octets = fs::read(&file).map_err(|error| StoreError::from_io(&file, error))?;
    match damage(&octets, number) {
        Some(offset) => {
            Err(StoreError::corrupt(&file, format!("octet {offset} and after it cannot be read")))
        }
        None => Ok(()),
    }
}

fn last_file(directory: &Path) -> Result<Option<(u64, PathBuf)>, StoreError> {
    let io_error = |error| StoreError::from_io(directory, error);
    let mut last = None;
    for entry in fs::read_dir(directory).map_err(io_error)? {
        let file = entry.map_err(io_error)?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_suffix(SUFFIX).and_then(|number| number.parse::<u64>().ok()) {
            last = last.max(Some((number, file)));
        }
    }
    Ok(last)
}

/// Where the file cannot be read although something readable follows.
fn damage(octets: &[u8], file_number: u64) -> Option<usize> {
    let signature = u32::try_from(file_number & 0xffff_ffff).unwrap_or(0);
    let header = [FILE_MAGIC, &FILE_FORMAT.to_be_bytes(), &0_u64.to_be_bytes()].concat();
    let has_header = octets.starts_with(&header);
    // The header is in the first page of the file, which a crash leaves as it was written or not at all.
    let first_page = octets.get(..PAGE_BYTES.min(octets.len())).unwrap_or_default();
    if !has_header && first_page.iter().skip(header.len()).any(|octet| *octet != 0) {
        return Some(0);
    }
    let mut offset = if has_header { header.len() } else { 0 };
    while let Some(length) = octets.get(offset..).and_then(|rest| batch_length(rest, signature)) {
        offset = offset.saturating_add(length);
    }
    let end = octets.iter().rposition(|octet| *octet != 0)?;
    let is_followed = (offset.saturating_add(1)..=end)
        .any(|later| octets.get(later..).is_some_and(|rest| batch_length(rest, signature).is_some()));
    is_followed.then_some(offset)
}

/// The length of the batch that `octets` begin with, when it is whole.
fn batch_length(octets: &[u8], signature: u32) -> Option<usize> {
    let length_and_type = u64::from_be_bytes(*octets.first_chunk()?);
    let footer = u64::from_be_bytes(*octets.get(8..)?.first_chunk()?);
    let length = usize::try_from(length_and_type >> 8).ok()?;
    let footer = usize::try_from(footer).ok()?;
    let batch = octets.get(..length)?;
    if length_and_type & 0xff > 1 || footer < BATCH_HEADER_BYTES {
        return None;
    }
    let entries = batch.get(BATCH_HEADER_BYTES..footer)?;
    let is_whole =
        has_checksum(batch.get(footer..)?, signature) && (entries.is_empty() || has_checksum(entries, 0));
    is_whole.then_some(length)
}

fn has_checksum(octets: &[u8], signature: u32) -> bool {
    octets.split_last_chunk::<4>().is_some_and(|(content, checksum)| {
        !content.is_empty() && crc32fast::hash(content) == u32::from_le_bytes(*checksum) ^ signature
    })
}
