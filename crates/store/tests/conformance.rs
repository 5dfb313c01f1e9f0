//! The conformance suites on the implementations that need no services.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use store::{
    RedbControlStore, SingleVoterHotStore, SqliteUserStore,
    conformance::{self, ControlFactory, HotFactory, UserFactory},
};
use tempfile::TempDir;

/// A directory with a fresh place for each store.
struct Places {
    directory: TempDir,
    used: AtomicU32,
}

impl Places {
    fn new() -> Self {
        Self { directory: TempDir::new().unwrap(), used: AtomicU32::new(0) }
    }

    fn next(&self) -> PathBuf {
        self.directory.path().join(self.used.fetch_add(1, Ordering::Relaxed).to_string()).join("store")
    }
}

struct Sqlite(Places);

impl UserFactory for Sqlite {
    type Store = SqliteUserStore;

    fn create(&self) -> SqliteUserStore {
        SqliteUserStore::open(&self.0.next()).unwrap()
    }

    fn reopen(&self, store: SqliteUserStore) -> SqliteUserStore {
        let file = store.file().to_owned();
        drop(store);
        SqliteUserStore::open(&file).unwrap()
    }
}

struct Redb(Places);

impl ControlFactory for Redb {
    type Store = RedbControlStore;

    fn create(&self) -> RedbControlStore {
        RedbControlStore::open(&self.0.next()).unwrap()
    }

    fn reopen(&self, store: RedbControlStore) -> RedbControlStore {
        let file = store.file().to_owned();
        drop(store);
        RedbControlStore::open(&file).unwrap()
    }
}

struct SingleVoter(Places);

impl HotFactory for SingleVoter {
    type Store = SingleVoterHotStore;

    fn create(&self) -> SingleVoterHotStore {
        SingleVoterHotStore::open(&self.0.next()).unwrap()
    }

    fn reopen(&self, store: SingleVoterHotStore) -> SingleVoterHotStore {
        let directory = store.directory().to_owned();
        drop(store);
        SingleVoterHotStore::open(&directory).unwrap()
    }
}

#[test]
fn sqlite_is_a_user_store() {
    conformance::user_store(&Sqlite(Places::new()));
}

#[test]
fn redb_is_a_control_store() {
    conformance::control_store(&Redb(Places::new()));
}

#[test]
fn the_single_voter_is_a_hot_store() {
    conformance::hot_store(&SingleVoter(Places::new()));
}
