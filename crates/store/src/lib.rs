//! User data on SQLite, control records on redb, bindings on raft-engine; traits and conformance suites.

mod account;
mod change;
pub mod conformance;
mod control;
mod document;
mod error;
mod hot;
mod hot_changes;
mod journal;
mod lock;
mod move_page;
mod orphan;
mod page;
mod redb;
mod scope;
mod sealed;
mod sqlite;
mod user;
mod voter;

pub use account::{Account, Credentials, DigestAlgorithm, UnknownAlgorithm};
pub use change::{Change, Committed, Condition, Resolution, Write};
pub use control::{CasOutcome, ControlError, ControlStore, Listing, Versioned};
pub use document::{ConflictId, StoredDocument, Subject, UnknownConflict};
pub use error::{Cause, StoreError, chain};
pub use hot::{Health, HotError, HotStore, Reply, Wake};
pub use hot_changes::{BindingPage, CopyPlace, HotCursor};
pub use journal::{ApplyError, JournalError, Lag, PurgeError, Purged, RestartError};
pub use move_page::{MovePage, MovePageContent};
pub use orphan::{
    AdoptError, Adopted, Adoption, Conflict, Orphan, OrphanContent, OrphanPage, OrphanPageContent,
    OrphanedWrite, RewindError,
};
pub use page::{ConflictContent, Cursor, Entry, EntryState, EpochStart, Page, PageContent};
pub use redb::RedbControlStore;
pub use registrar::OperationId;
pub use scope::{Scope, UnknownScope};
pub use sqlite::SqliteUserStore;
pub use user::{AccountState, Changes, CommitError, Departure, DocumentState, Follower, UserStore};
pub use voter::{LogPolicy, SingleVoterHotStore};
