//! A full disk: a clear error, nothing acknowledged is lost, and everything works again when there is space.
//!
//! Each test runs itself as a child in a mount namespace of its own, on a file system of a few MiB in memory,
//! with a ballast file that is removed when the disk has been full.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use model::{AddressOfRecord, Epoch, PoolName, WallTime};
use registrar::OperationId;
use store::{
    CasOutcome, Change, CommitError, Condition, ControlError, ControlStore, Credentials, Health, HotError,
    HotStore, RedbControlStore, SingleVoterHotStore, SqliteUserStore, StoreError, UserStore, chain,
    conformance::{register, submit_and_wait, user},
};
use tempfile::TempDir;

const DISK_MIB: u32 = 12;
const BALLAST_BYTES: usize = 6 * 1_048_576;
const NOW: WallTime = WallTime::from_secs(1_800_000_000);

#[test]
fn bindings_on_a_full_disk() {
    let Some(place) = on_small_disk("full_disk::bindings_on_a_full_disk") else { return };
    let home = PoolName::new("east").unwrap();
    let store = SingleVoterHotStore::open(&place.join("hot")).unwrap();
    let mut acknowledged = 0;
    let refused = loop {
        let results =
            submit_and_wait(&store, (0..100).map(|n| register(&home, acknowledged + n, 1, NOW)).collect());
        match results.into_iter().find_map(Result::err) {
            Some(error) => break error,
            None => acknowledged += 100,
        }
    };

    let later = submit_and_wait(&store, vec![register(&home, 1, 2, NOW)]);

    let HotError::Unknown { reason } = refused else { panic!("{refused:?}") };
    assert!(reason.starts_with("no space is left for"), "{reason}");
    assert!(matches!(later.as_slice(), [Err(HotError::Failed { .. })]), "{later:?}");
    assert!(matches!(store.health(), Health::ReadOnly { .. }));
    assert!(acknowledged > 1_000);
    assert_all_bound(&store, &home, acknowledged);
    drop(store);
    fs::remove_file(place.join("ballast")).unwrap();
    let store = SingleVoterHotStore::open(&place.join("hot")).unwrap();
    assert_all_bound(&store, &home, acknowledged);
    assert_eq!(store.health(), Health::Good);
    assert!(submit_and_wait(&store, vec![register(&home, 1, 3, NOW)]).iter().all(Result::is_ok));
}

fn assert_all_bound(store: &impl HotStore, home: &PoolName, users: u64) {
    let lost: Vec<_> =
        (0..users).filter(|number| store.lookup(home, &user(*number), NOW).is_empty()).collect();
    assert_eq!(lost, Vec::<u64>::new());
}

#[test]
fn accounts_on_a_full_disk() {
    let Some(place) = on_small_disk("full_disk::accounts_on_a_full_disk") else { return };
    let file = place.join("users.db");
    let home = PoolName::new("east").unwrap();
    let store = SqliteUserStore::open(&file).unwrap();
    let mut batches = 0;
    let refused = loop {
        match store.commit(&home, Epoch::ZERO, &accounts(batches)) {
            Ok(_) => batches += 1,
            Err(error) => break error,
        }
    };

    assert!(batches > 10);
    let (CommitError::Unknown(cause) | CommitError::Store(cause)) = &refused else { panic!("{refused:?}") };
    assert!(matches!(cause, StoreError::Full { .. }), "{}", chain(cause));
    assert!(store.read(&aor(0)).unwrap().is_some(), "reading goes on");
    fs::remove_file(place.join("ballast")).unwrap();
    store
        .commit(&home, Epoch::ZERO, &accounts(batches))
        .expect("the same changes are committed when there is space");
    drop(store);
    let store = SqliteUserStore::open(&file).unwrap();
    store.check().unwrap();
    for batch in 0..=batches {
        let repeated = store.commit(&home, Epoch::ZERO, &accounts(batch)).unwrap();
        assert!(repeated.iter().all(|committed| committed.is_repeated), "batch {batch} is lost");
    }
}

fn aor(number: u64) -> AddressOfRecord {
    AddressOfRecord::new(&format!("sip:u{number:07}@example.com")).unwrap()
}

fn accounts(batch: u64) -> Vec<Change> {
    (batch * 100..(batch + 1) * 100)
        .map(|number| Change {
            operation: OperationId::new(number.into()),
            aor: aor(number),
            changed_at: NOW,
            condition: Condition::Absent,
            write: store::Write::PutAccount {
                home: PoolName::new("east").unwrap(),
                credentials: Credentials { ha1_md5: [7; 16], ha1_sha256: [9; 32] },
                algorithms: None,
            },
        })
        .collect()
}

#[test]
fn control_records_on_a_full_disk() {
    let Some(place) = on_small_disk("full_disk::control_records_on_a_full_disk") else { return };
    let file = place.join("control.redb");
    let store = RedbControlStore::open(&file).unwrap();
    let value = vec![7; 32_768];
    let mut written = 0;
    let refused = loop {
        match store.compare_and_set(&format!("topology/{written}"), 0, &value) {
            Ok(CasOutcome::Stored { .. }) => written += 1,
            Ok(CasOutcome::Conflict { found }) => panic!("{found:?}"),
            Err(error) => break error,
        }
    };

    assert!(written > 10);
    let (ControlError::Unknown(cause) | ControlError::Store(cause)) = &refused else { panic!("{refused:?}") };
    assert!(matches!(cause, StoreError::Full { .. }), "{}", chain(cause));
    drop(store);
    fs::remove_file(place.join("ballast")).unwrap();
    let store = RedbControlStore::open(&file).unwrap();
    for number in 0..written {
        assert_eq!(
            store.get(&format!("topology/{number}")).unwrap().unwrap().value,
            value,
            "{number} is lost"
        );
    }
    let next = store.compare_and_set("topology/new", 0, &value).unwrap();
    assert!(matches!(next, CasOutcome::Stored { .. }));
}

#[test]
fn no_store_is_made_on_a_full_disk() {
    let Some(place) = on_small_disk("full_disk::no_store_is_made_on_a_full_disk") else { return };
    let mut filler = fs::File::create(place.join("filler")).unwrap();
    while filler.write_all(&[7; 4_096]).is_ok() {}

    let results = [
        SqliteUserStore::open(&place.join("users.db")).map(drop),
        RedbControlStore::open(&place.join("control.redb")).map(drop),
        SingleVoterHotStore::open(&place.join("hot")).map(drop),
    ];

    for result in results {
        let error = result.expect_err("there is no space");
        assert!(matches!(error, StoreError::Full { .. }), "{}", chain(&error));
    }
}

/// The place to fill, in the child; `None` in the parent, when the child has done everything well.
pub fn on_small_disk(test: &str) -> Option<PathBuf> {
    if let Some((place, _)) = crate::support::child() {
        write_ballast(&place.join("ballast"));
        return Some(place);
    }
    let place = TempDir::new().unwrap();
    let output = crate::support::command_on_small_disk(test, place.path(), DISK_MIB).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    None
}

fn write_ballast(file: &Path) {
    fs::write(file, vec![1; BALLAST_BYTES]).unwrap();
}
