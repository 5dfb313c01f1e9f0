//! Log files whose room is filled with zeros before it is used.
//!
//! raft-engine reserves the room of a log file ahead, some MiB at a time. The system remembers that reserved
//! room was never written, so each sync has to note down how much of it is by now: more writes, which wait
//! for one another. Where the room was written once, a sync is a write of the data and nothing else. What is
//! read from it is the same: zeros.

use std::{
    io::{self, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use raft_engine::env::{DefaultFileSystem, FileSystem, Permission, WriteExt};

/// Octets written at a time.
static ZEROS: [u8; 65_536] = [0; 65_536];

/// The file system as it is, but for room that is filled when it is reserved.
pub(super) struct FilledFiles;

/// A log file that is written.
pub(super) struct FilledFile(<DefaultFileSystem as FileSystem>::Writer);

impl FileSystem for FilledFiles {
    type Handle = <DefaultFileSystem as FileSystem>::Handle;
    type Reader = <DefaultFileSystem as FileSystem>::Reader;
    type Writer = FilledFile;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Self::Handle> {
        DefaultFileSystem.create(path)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<Self::Handle> {
        DefaultFileSystem.open(path, permission)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        DefaultFileSystem.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Reader> {
        DefaultFileSystem.new_reader(handle)
    }

    fn new_writer(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Writer> {
        DefaultFileSystem.new_writer(handle).map(FilledFile)
    }
}

impl WriteExt for FilledFile {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.0.truncate(offset)
    }

    /// Reserves room, and writes it from end to end.
    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.0.allocate(offset, size)?;
        let position = self.0.stream_position()?;
        self.0.seek(SeekFrom::Start(u64::try_from(offset).unwrap_or(u64::MAX)))?;
        let filled = self.fill(size);
        self.0.seek(SeekFrom::Start(position))?;
        filled
    }
}

impl FilledFile {
    fn fill(&mut self, size: usize) -> io::Result<()> {
        let mut left = size;
        while let Some(zeros) = ZEROS.get(..left.min(ZEROS.len())).filter(|zeros| !zeros.is_empty()) {
            self.0.write_all(zeros)?;
            left = left.saturating_sub(zeros.len());
        }
        Ok(())
    }
}

impl Write for FilledFile {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for FilledFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}
