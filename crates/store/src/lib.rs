//! User data on SQLite, control records on redb, bindings on raft-engine; traits and conformance suites.

mod account;
pub mod conformance;
mod control;
mod error;
mod hot;
mod journal;
mod lock;
mod redb;
mod sqlite;
mod user;
mod voter;

pub use account::{
    Account, AccountChange, AccountWrite, Committed, Condition, Credentials, DigestAlgorithm,
    UnknownAlgorithm,
};
pub use control::{CasOutcome, ControlError, ControlStore, Listing, Versioned};
pub use error::{Cause, StoreError, chain};
pub use hot::{Health, HotError, HotStore, Reply};
pub use journal::{ApplyError, Cursor, Entry, EntryState, JournalError, Page, Scope};
pub use redb::RedbControlStore;
pub use registrar::OperationId;
pub use sqlite::SqliteUserStore;
pub use user::{AccountState, Changes, CommitError, Follower, UserStore};
pub use voter::{LogPolicy, SingleVoterHotStore};
