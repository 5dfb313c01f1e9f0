//! The suite of [`ControlStore`].

use std::{sync::Barrier, thread, time::Duration};

use model::limits;

use crate::{CasOutcome, ControlError, ControlStore};

/// Opens the store under test.
pub trait ControlFactory {
    /// The implementation.
    type Store: ControlStore;

    /// A store that holds nothing.
    fn create(&self) -> Self::Store;

    /// The same store again, after `store` was closed.
    fn reopen(&self, store: Self::Store) -> Self::Store;
}

/// Runs every check on fresh stores.
pub fn control_store(factory: &impl ControlFactory) {
    a_record_is_written_only_at_the_expected_version(factory);
    records_outlive_the_process(factory);
    a_listing_has_the_prefix_and_is_in_order(factory);
    bad_keys_and_values_are_refused(factory);
    a_waiter_wakes_for_its_prefix_only(factory);
    of_many_writers_exactly_one_wins_each_version(factory);
}

fn store_one(store: &impl ControlStore, key: &str, expected: u64, value: &[u8]) -> (u64, u64) {
    let outcome =
        store.compare_and_set(key, expected, value).expect("a write at the present version is stored");
    let stored =
        if let CasOutcome::Stored { version, revision } = outcome { Some((version, revision)) } else { None };
    stored.expect("a write at the present version is no conflict")
}

fn a_record_is_written_only_at_the_expected_version(factory: &impl ControlFactory) {
    let store = factory.create();
    assert_eq!(store.get("pool/east").expect("an absent record is no error"), None);

    let absent = store.compare_and_set("pool/east", 3, b"a").expect("a conflict is no error");
    let (first, first_revision) = store_one(&store, "pool/east", 0, b"a");
    let again = store.compare_and_set("pool/east", 0, b"b").expect("a conflict is no error");
    let (second, second_revision) = store_one(&store, "pool/east", first, b"c");

    assert_eq!(absent, CasOutcome::Conflict { found: None });
    assert_eq!((first, second), (1, 2), "versions of a record count from 1");
    assert!(first_revision > 0 && second_revision > first_revision, "each write takes a later revision");
    let found = match again {
        CasOutcome::Conflict { found } => found,
        CasOutcome::Stored { .. } => None,
    };
    let found = found.expect("a conflict shows the record");
    assert_eq!((found.value.as_slice(), found.version), (b"a".as_slice(), 1));
    let now = store.get("pool/east").expect("a record can be read").expect("the record is there");
    assert_eq!((now.value.as_slice(), now.version, now.revision), (b"c".as_slice(), 2, second_revision));
}

fn records_outlive_the_process(factory: &impl ControlFactory) {
    let store = factory.create();
    store_one(&store, "pool/east", 0, b"a");
    let (version, revision) = store_one(&store, "pool/east", 1, b"b");

    let store = factory.reopen(store);

    let found = store.get("pool/east").expect("a record can be read").expect("the record is there");
    assert_eq!((found.value.as_slice(), found.version, found.revision), (b"b".as_slice(), version, revision));
    let (_, later) = store_one(&store, "pool/west", 0, b"");
    assert!(later > revision, "revisions go on after reopening");
    assert_eq!(store.list("").expect("records can be listed").revision, later);
}

fn a_listing_has_the_prefix_and_is_in_order(factory: &impl ControlFactory) {
    let store = factory.create();
    for key in ["pool/west", "pool", "pool/east", "poolx", "site/north", "pool/east/2"] {
        store_one(&store, key, 0, key.as_bytes());
    }

    let keys = |prefix: &str| -> Vec<String> {
        let listing = store.list(prefix).expect("records can be listed");
        assert!(listing.records.iter().all(|(key, record)| record.value == key.as_bytes()));
        listing.records.into_iter().map(|(key, _)| key).collect()
    };

    assert_eq!(keys("pool/"), ["pool/east", "pool/east/2", "pool/west"]);
    assert_eq!(keys("").len(), 6);
    assert_eq!(keys("zebra"), Vec::<String>::new());
}

fn bad_keys_and_values_are_refused(factory: &impl ControlFactory) {
    let store = factory.create();
    let long = "k".repeat(limits::CONTROL_KEY_BYTES_MAX);
    let too_long = format!("{long}k");
    let largest = vec![7; limits::CONTROL_VALUE_BYTES_MAX];
    let too_large = vec![7; limits::CONTROL_VALUE_BYTES_MAX + 1];

    for key in ["", "a b", "a\n", "\u{e4}", too_long.as_str()] {
        assert!(matches!(store.get(key), Err(ControlError::Key { .. })), "{key:?} is no key");
        assert!(
            matches!(store.compare_and_set(key, 0, b""), Err(ControlError::Key { .. })),
            "{key:?} is no key"
        );
    }
    assert!(matches!(store.compare_and_set("k", 0, &too_large), Err(ControlError::Value { .. })));
    store_one(&store, &long, 0, &largest);

    assert_eq!(
        store.list("").expect("records can be listed").records.len(),
        1,
        "what is refused is not written"
    );
    assert_eq!(store.get(&long).expect("can be read").expect("is there").value, largest);
}

fn a_waiter_wakes_for_its_prefix_only(factory: &impl ControlFactory) {
    let store = factory.create();
    let (_, first) = store_one(&store, "pool/east", 0, b"a");
    let short = Duration::from_millis(1);

    let past = store.wait_for_change("pool/", 0, short).expect("waiting is no error");
    let nothing = store.wait_for_change("pool/", first, short).expect("waiting is no error");
    let woken = thread::scope(|scope| {
        let waiter = scope.spawn(|| store.wait_for_change("pool/", first, Duration::from_secs(60)));
        store_one(&store, "site/north", 0, b"x");
        let (_, revision) = store_one(&store, "pool/west", 0, b"y");
        let woken = waiter.join().expect("the waiter does not panic").expect("waiting is no error");
        (woken, revision)
    });

    assert_eq!(past, Some(first), "a change before the wait counts");
    assert_eq!(nothing, None);
    assert_eq!(woken.0, Some(woken.1));
}

fn of_many_writers_exactly_one_wins_each_version(factory: &impl ControlFactory) {
    const WRITERS: u64 = 4;
    const ROUNDS: u64 = 8;
    let store = factory.create();
    let barrier = Barrier::new(usize::try_from(WRITERS).unwrap_or(1));

    let won: u64 = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    let mut won = 0;
                    for expected in 0..ROUNDS {
                        barrier.wait();
                        let outcome = store
                            .compare_and_set("pool/east", expected, &writer.to_be_bytes())
                            .expect("a conflict is no error");
                        won += u64::from(matches!(outcome, CasOutcome::Stored { .. }));
                        barrier.wait();
                    }
                    won
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer does not panic")).sum()
    });

    assert_eq!(won, ROUNDS);
    assert_eq!(store.get("pool/east").expect("can be read").expect("is there").version, ROUNDS);
}
