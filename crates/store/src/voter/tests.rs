//! What the single voter promises beyond the suite: a bounded disk, an orderly end, robust replies.

use std::{fs, path::Path, sync::mpsc};

use tempfile::TempDir;

use super::*;
use crate::conformance::{listing, register, submit_and_wait, user};

const NOW: WallTime = WallTime::from_secs(1_800_000_000);
const MIB: u64 = 1_048_576;

fn pool(name: &str) -> PoolName {
    PoolName::new(name).unwrap()
}

fn size_of(directory: &Path) -> u64 {
    fs::read_dir(directory).unwrap().filter_map(|entry| Some(entry.unwrap().metadata().ok()?.len())).sum()
}

#[test]
fn the_disk_stays_bounded_and_what_is_seldom_written_is_kept() {
    let place = TempDir::new().unwrap();
    let policy = LogPolicy { commands_min: 2_000, commands_per_binding: 2, file_mib: 1, log_mib_max: 4 };
    let store = SingleVoterHotStore::open_with(place.path(), policy).unwrap();
    let (busy, slow, idle) = (pool("busy"), pool("slow"), pool("idle"));
    submit_and_wait(&store, (0..100).map(|number| register(&idle, number, 1, NOW)).collect());

    let mut largest = 0;
    for round in 1..300 {
        submit_and_wait(&store, (0..400).map(|number| register(&busy, number, round, NOW)).collect());
        submit_and_wait(&store, vec![register(&slow, 1, round, NOW)]);
        largest = largest.max(size_of(&place.path().join("log")));
    }

    let written: u64 = 300 * 400 * 400;
    assert!(largest < 12 * MIB && written > 30 * MIB, "{largest} octets of log, {written} written");
    let before = [&busy, &slow, &idle].map(|home| listing(&store, home));
    assert_eq!(store.health(), Health::Good);
    drop(store);
    let store = SingleVoterHotStore::open_with(place.path(), policy).unwrap();
    assert_eq!([&busy, &slow, &idle].map(|home| listing(&store, home)), before);
    assert_eq!([&busy, &slow, &idle].map(|home| store.bindings(home)), [400, 1, 100]);
}

#[test]
fn what_was_submitted_is_written_before_the_store_closes() {
    let place = TempDir::new().unwrap();
    let store = SingleVoterHotStore::open(place.path()).unwrap();
    let home = pool("east");
    let (sender, receiver) = mpsc::channel();
    for number in 0..5_000 {
        let sender = sender.clone();
        let reply = move |results: Vec<Result<registrar::Outcome, crate::HotError>>| {
            sender.send(results.iter().all(Result::is_ok)).unwrap();
        };
        store.submit(vec![register(&home, number, 1, NOW)], Box::new(reply));
    }
    drop(sender);

    drop(store);

    assert_eq!(receiver.iter().filter(|is_done| *is_done).count(), 5_000);
    let store = SingleVoterHotStore::open(place.path()).unwrap();
    assert_eq!(store.bindings(&home), 5_000);
}

#[test]
fn a_reply_that_panics_harms_nobody_else() {
    let place = TempDir::new().unwrap();
    let store = SingleVoterHotStore::open(place.path()).unwrap();
    let home = pool("east");

    store.submit(vec![register(&home, 1, 1, NOW)], Box::new(|_| panic!("a fault of the caller")));
    let results = submit_and_wait(&store, vec![register(&home, 2, 1, NOW)]);

    assert!(results.iter().all(Result::is_ok));
    assert_eq!(store.lookup(&home, &user(1), NOW).len(), 1);
}
