//! Damaged, foreign and unreadable files: a clear error before anything is changed.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use model::{Epoch, PoolName, RoutingGroup, WallTime};
use registrar::OperationId;
use store::{
    Change, Condition, ControlStore, Credentials, HotStore, LogPolicy, RedbControlStore, SingleVoterHotStore,
    SqliteUserStore, StoreError, UserStore, Write, chain,
    conformance::{listing, register, submit_and_wait, user},
};
use tempfile::TempDir;

const NOW: WallTime = WallTime::from_secs(1_800_000_000);
const WRITES: u64 = 40;

fn home() -> PoolName {
    PoolName::new("east").unwrap()
}

/// A hot store with a log of so many writes, closed.
fn hot_with_log() -> TempDir {
    let place = TempDir::new().unwrap();
    let store = SingleVoterHotStore::open(place.path()).unwrap();
    for number in 0..WRITES {
        submit_and_wait(&store, vec![register(&home(), number, 1, NOW)]);
    }
    place
}

fn only_file(directory: &Path, suffix: &str) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.to_str().unwrap().ends_with(suffix));
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

fn bound(store: &impl HotStore) -> Vec<u64> {
    (0..WRITES).filter(|number| !store.lookup(&home(), &user(*number), NOW).is_empty()).collect()
}

fn flip(file: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut octet = [0];
    file.read_exact_at(&mut octet, offset).unwrap();
    file.write_all_at(&[octet[0] ^ 0x40], offset).unwrap();
}

#[test]
fn a_write_cut_off_anywhere_is_dropped_and_all_before_it_kept() {
    let place = hot_with_log();
    let file = only_file(&place.path().join("log"), ".raftlog");
    let whole = fs::read(&file).unwrap();
    let mut kept_before = WRITES as usize;
    for cut in 1..1_500 {
        fs::write(&file, &whole[..whole.len() - cut]).unwrap();

        let store = SingleVoterHotStore::open(place.path()).unwrap();

        let kept = bound(&store);
        assert_eq!(
            kept,
            (0..kept.len() as u64).collect::<Vec<_>>(),
            "cut {cut}: only the end may be missing"
        );
        assert!(
            kept.len() <= kept_before && kept.len() + 6 > WRITES as usize,
            "cut {cut}: {} kept",
            kept.len()
        );
        kept_before = kept.len();
    }
    assert!(kept_before < WRITES as usize - 1);
}

#[test]
fn space_reserved_by_a_crashed_process_is_no_damage() {
    let place = hot_with_log();
    let file = only_file(&place.path().join("log"), ".raftlog");
    let mut octets = fs::read(&file).unwrap();
    octets.resize(octets.len() + 100_000, 0);
    fs::write(&file, octets).unwrap();

    let store = SingleVoterHotStore::open(place.path()).unwrap();

    assert_eq!(bound(&store).len() as u64, WRITES);
}

#[test]
fn damage_inside_the_log_is_refused_and_not_cut_off() {
    let place = hot_with_log();
    let file = only_file(&place.path().join("log"), ".raftlog");
    let whole = fs::read(&file).unwrap();
    // Everywhere but in the last write, which cannot be told from one that was cut off.
    for offset in (0..whole.len() as u64 - 700).step_by(61) {
        flip(&file, offset);
        let damaged = fs::read(&file).unwrap();

        let error = SingleVoterHotStore::open(place.path()).map(drop).expect_err("damage is found");

        assert!(matches!(error, StoreError::Corrupt { .. }), "octet {offset}: {}", chain(&error));
        assert_eq!(fs::read(&file).unwrap(), damaged, "octet {offset}: nothing was changed");
        fs::write(&file, &whole).unwrap();
    }
    let store = SingleVoterHotStore::open(place.path()).unwrap();
    assert_eq!(bound(&store).len() as u64, WRITES);
}

#[test]
fn a_log_of_one_write_with_its_head_destroyed_is_refused() {
    let place = TempDir::new().unwrap();
    {
        let store = SingleVoterHotStore::open(place.path()).unwrap();
        submit_and_wait(&store, vec![register(&home(), 0, 1, NOW)]);
    }
    let file = only_file(&place.path().join("log"), ".raftlog");
    let whole = fs::read(&file).unwrap();
    for destroyed in [10, 68, 200, whole.len().min(2_000)] {
        let mut damaged = whole.clone();
        damaged.iter_mut().take(destroyed).for_each(|octet| *octet = 0xa5);
        fs::write(&file, &damaged).unwrap();

        let error = SingleVoterHotStore::open(place.path()).map(drop).expect_err("damage is found");

        assert!(matches!(error, StoreError::Corrupt { .. }), "{destroyed} octets: {}", chain(&error));
        assert_eq!(fs::read(&file).unwrap(), damaged, "nothing was changed");
    }
}

#[test]
fn damaged_snapshots_and_missing_logs_are_refused() {
    let place = TempDir::new().unwrap();
    let policy = LogPolicy { commands_min: 20, commands_per_binding: 1, ..LogPolicy::default() };
    let numbers: Vec<u64> = (0..)
        .filter(|number| RoutingGroup::of(&user(*number)) == RoutingGroup::of(&user(0)))
        .take(10)
        .collect();
    let store = SingleVoterHotStore::open_with(place.path(), policy).unwrap();
    for cseq in 1..30 {
        submit_and_wait(&store, numbers.iter().map(|number| register(&home(), *number, cseq, NOW)).collect());
    }
    let before = listing(&store, &home());
    drop(store);
    let file = only_file(&place.path().join("snapshots"), ".snapshot");
    let whole = fs::read(&file).unwrap();

    let open = || SingleVoterHotStore::open_with(place.path(), policy);
    for offset in (0..whole.len() as u64).step_by(97) {
        flip(&file, offset);
        assert!(matches!(open().map(drop), Err(StoreError::Corrupt { .. })), "octet {offset}");
        fs::write(&file, &whole).unwrap();
    }
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(open().map(drop), Err(StoreError::Corrupt { .. })), "cut in half");
    fs::remove_file(&file).unwrap();
    let missing = open().map(drop);
    fs::write(&file, &whole).unwrap();
    fs::write(file.with_extension("snapshot.tmp"), b"half written").unwrap();
    let store = open().unwrap();
    let after = listing(&store, &home());
    drop(store);
    fs::remove_dir_all(place.path().join("log")).unwrap();
    let without_log = open().map(drop);

    assert!(matches!(missing, Err(StoreError::Corrupt { .. })), "{missing:?}");
    assert_eq!(after, before);
    assert!(!file.with_extension("snapshot.tmp").exists(), "what was half written is removed");
    assert!(matches!(without_log, Err(StoreError::Corrupt { .. })), "{without_log:?}");
}

#[test]
fn a_second_process_is_kept_out() {
    let place = TempDir::new().unwrap();
    let users = SqliteUserStore::open(&place.path().join("users.db")).unwrap();
    let control = RedbControlStore::open(&place.path().join("control.redb")).unwrap();
    let hot = SingleVoterHotStore::open(&place.path().join("hot")).unwrap();

    let second = [
        SqliteUserStore::open(users.file()).map(drop),
        RedbControlStore::open(control.file()).map(drop),
        SingleVoterHotStore::open(hot.directory()).map(drop),
    ];

    for result in second {
        assert!(matches!(result, Err(StoreError::InUse { .. })), "{result:?}");
    }
}

#[test]
fn a_damaged_user_database_is_refused_and_not_changed() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("users.db");
    let store = SqliteUserStore::open(&file).unwrap();
    let changes: Vec<_> = (0..2_000)
        .map(|number| Change {
            operation: OperationId::new(number),
            aor: user(u64::try_from(number).unwrap()),
            changed_at: NOW,
            condition: Condition::Any,
            write: Write::PutAccount {
                home: home(),
                credentials: Credentials { ha1_md5: [7; 16], ha1_sha256: [9; 32] },
                algorithms: None,
            },
        })
        .collect();
    store.commit(&home(), Epoch::ZERO, &changes).unwrap();
    drop(store);
    let whole = fs::read(&file).unwrap();

    for offset in [0, 100, 4_096, 20 * 4_096] {
        let mut damaged = whole.clone();
        damaged[offset..offset + 64].fill(0xa5);
        fs::write(&file, &damaged).unwrap();

        let error = SqliteUserStore::open(&file).map(drop).expect_err("damage is found");

        assert!(matches!(error, StoreError::Corrupt { .. }), "octet {offset}: {}", chain(&error));
        assert_eq!(fs::read(&file).unwrap(), damaged, "octet {offset}: nothing was changed");
    }
    fs::write(&file, b"this is a text").unwrap();
    assert!(matches!(SqliteUserStore::open(&file).map(drop), Err(StoreError::Corrupt { .. })));
    fs::write(&file, &whole).unwrap();
    SqliteUserStore::open(&file).unwrap().check().unwrap();
}

#[test]
fn a_damaged_control_file_is_refused() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("control.redb");
    let store = RedbControlStore::open(&file).unwrap();
    for number in 0..200 {
        store.compare_and_set(&format!("pool/{number}"), 0, &[7; 500]).unwrap();
    }
    drop(store);
    let whole = fs::read(&file).unwrap();

    let mut damaged = whole.clone();
    damaged[..64].fill(0xa5);
    fs::write(&file, &damaged).unwrap();
    let header = RedbControlStore::open(&file).map(drop);
    fs::write(&file, &whole[..whole.len() / 4]).unwrap();
    let cut = RedbControlStore::open(&file).map(drop);
    fs::write(&file, b"this is a text").unwrap();
    let foreign = RedbControlStore::open(&file).map(drop);

    for result in [header, cut, foreign] {
        assert!(matches!(result, Err(StoreError::Corrupt { .. })), "{result:?}");
    }
}

#[test]
fn a_place_that_cannot_be_used_is_named() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("file");
    fs::write(&file, b"").unwrap();

    let results = [
        SqliteUserStore::open(&file.join("users.db")).map(drop),
        RedbControlStore::open(&file.join("control.redb")).map(drop),
        SingleVoterHotStore::open(&file.join("hot")).map(drop),
    ];

    for result in results {
        let error = result.expect_err("a file is no directory");
        assert!(matches!(error, StoreError::Unreadable { .. }), "{}", chain(&error));
        assert!(chain(&error).starts_with(file.to_str().unwrap()), "{}", chain(&error));
    }
}
