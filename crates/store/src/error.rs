//! What can be wrong with a store's files, with the file and the remedy in the message.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

/// The error of the engine below, kept as the source of ours.
pub type Cause = Box<dyn Error + Send + Sync>;

/// A store's file cannot be used. The message names the file and what to do; the cause is the source.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file or its directory cannot be opened, created or written.
    #[error(
        "{} cannot be opened; check that the directory exists and that this user may read and write it",
        .file.display()
    )]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        cause: Cause,
    },
    /// Another process has the file open.
    #[error("{} is in use by another process; stop that process first", .file.display())]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// The content is damaged: a checksum or a structure is wrong. Nothing was changed.
    #[error(
        "{} is damaged; keep a copy of it and restore a backup: docs/operations/storage.md says \
         what can be made again without one",
        .file.display()
    )]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What was found.
        #[source]
        cause: Cause,
    },
    /// The file was written by a later version of this program.
    #[error(
        "{} has format {found}, this program knows formats up to {known}; run the newer program",
        .file.display()
    )]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Format of the file.
        found: u64,
        /// Newest format this program reads.
        known: u64,
    },
    /// No space is left. What was acknowledged before is kept.
    #[error(
        "no space is left for {}; free space on its file system, then start the server again",
        .file.display()
    )]
    Full {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        cause: Cause,
    },
    /// Reading or writing failed in another way. What was acknowledged before is kept.
    #[error(
        "{} cannot be read or written; check the disk and the system log, then start the server again",
        .file.display()
    )]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        cause: Cause,
    },
}

impl StoreError {
    /// The error for a failed system call on `file`.
    pub fn from_io(file: &Path, error: io::Error) -> Self {
        let file = file.to_owned();
        match kind_of(&error) {
            Kind::Full => Self::Full { file, cause: error.into() },
            Kind::Unreadable => Self::Unreadable { file, cause: error.into() },
            Kind::Other => Self::Io { file, cause: error.into() },
        }
    }

    /// The error for content of `file` that cannot be true.
    pub fn corrupt(file: &Path, found: impl Into<Cause>) -> Self {
        Self::Corrupt { file: file.to_owned(), cause: found.into() }
    }
}

/// The message of an error and of all its sources on one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

enum Kind {
    Full,
    Unreadable,
    Other,
}

fn kind_of(error: &io::Error) -> Kind {
    if matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    ) {
        Kind::Full
    } else if matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::AlreadyExists
    ) {
        Kind::Unreadable
    } else {
        Kind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_file_and_the_remedy_on_one_line() {
        let error =
            StoreError::from_io(Path::new("/x/users.db"), io::Error::from(io::ErrorKind::StorageFull));

        let text = chain(&error);

        assert!(text.starts_with("no space is left for /x/users.db; free space"), "{text}");
        assert!(text.ends_with("no storage space"), "{text}");
        assert!(!text.contains('\n'));
    }
}
