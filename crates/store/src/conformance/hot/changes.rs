//! The part of the suite that is about the feed of changes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use model::{AddressOfRecord, PoolName, limits};
use registrar::{Command, UserCopy};

use super::{HotFactory, NOW, listing, pool, register, submit_and_wait, unregister, user};
use crate::{BindingPage, HotCursor, HotStore};

/// Runs the checks of the feed on fresh stores.
pub(super) fn changes(factory: &impl HotFactory) {
    a_reader_that_knows_nothing_gets_a_full_copy_and_then_only_changes(factory);
    a_user_that_changed_often_stands_once_in_a_page_at_its_last_change(factory);
    a_removed_binding_is_told_and_an_expired_one_is_left_out(factory);
    what_changes_during_a_full_copy_comes_after_it(factory);
    a_cursor_of_an_earlier_incarnation_or_too_old_begins_a_full_copy(factory);
    a_reader_that_waits_is_woken_by_the_next_change_only(factory);
    two_stores_that_read_each_other_come_to_the_same(factory);
}

/// Everything after a cursor, page by page, and the cursor at the end.
fn follow(
    store: &impl HotStore,
    home: &PoolName,
    mut cursor: HotCursor,
    users_max: usize,
) -> (Vec<BindingPage>, HotCursor) {
    let mut pages = Vec::new();
    for _ in 0..100_000 {
        let page = store.changes(home, &cursor, users_max, NOW);
        cursor = page.next.clone();
        let is_end = page.is_end();
        pages.push(page);
        if is_end {
            return (pages, cursor);
        }
    }
    unreachable!("a reader comes to the end")
}

fn users_of(pages: &[BindingPage]) -> Vec<AddressOfRecord> {
    pages.iter().flat_map(|page| page.users.iter().map(|(aor, _)| aor.clone())).collect()
}

fn a_reader_that_knows_nothing_gets_a_full_copy_and_then_only_changes(factory: &impl HotFactory) {
    let store = factory.create();
    let east = pool("east");
    let (pages, cursor) = follow(&store, &east, HotCursor::default(), 10);
    assert!(users_of(&pages).is_empty(), "of a home pool that is not there yet");
    assert_eq!(cursor, store.newest_change(&east));
    submit_and_wait(&store, (0..100).map(|number| register(&east, number, 1, NOW)).collect());
    let (pages, _) = follow(&store, &east, cursor, 1_000);
    assert!(pages.iter().all(|page| !page.is_copy), "it knew everything there was");
    assert_eq!(users_of(&pages).len(), 100);

    let (pages, cursor) = follow(&store, &east, HotCursor::default(), 7);
    let (rest, cursor) = {
        assert!(pages.iter().all(|page| page.is_copy && page.users.len() <= 7));
        let mut users = users_of(&pages);
        users.sort();
        assert_eq!(users, (0..100).map(user).collect::<Vec<_>>(), "each once");
        submit_and_wait(&store, vec![register(&east, 7, 2, NOW), register(&pool("west"), 8, 1, NOW)]);
        follow(&store, &east, cursor, 7)
    };

    assert_eq!(users_of(&rest), [user(7)]);
    let copy = rest.first().and_then(|page| page.users.first()).map(|(_, copy)| copy.clone());
    assert_eq!(copy.map(|copy| copy.bindings.iter().map(registrar::Binding::cseq).collect()), Some(vec![2]));
    assert!(users_of(&follow(&store, &east, cursor, 7).0).is_empty());
}

fn a_user_that_changed_often_stands_once_in_a_page_at_its_last_change(factory: &impl HotFactory) {
    let store = factory.create();
    let east = pool("east");
    let cursor = store.newest_change(&east);
    for (number, cseq) in [(1, 1), (2, 1), (1, 2), (3, 1), (1, 3), (2, 2)] {
        submit_and_wait(&store, vec![register(&east, number, cseq, NOW)]);
    }
    submit_and_wait(&store, vec![register(&east, 4, 1, NOW), register(&east, 2, 0, NOW)]);

    let (whole, end) = follow(&store, &east, cursor.clone(), 100);
    let (parts, same_end) = follow(&store, &east, cursor, 2);

    assert_eq!(users_of(&whole), [3, 1, 2, 4].map(user), "a refused command is no change");
    assert_eq!(end, same_end);
    let states = |pages: &[BindingPage]| {
        pages.iter().flat_map(|page| page.users.clone()).collect::<BTreeMap<AddressOfRecord, UserCopy>>()
    };
    assert_eq!(states(&whole), states(&parts));
}

fn a_removed_binding_is_told_and_an_expired_one_is_left_out(factory: &impl HotFactory) {
    let store = factory.create();
    let east = pool("east");
    submit_and_wait(&store, vec![register(&east, 1, 1, NOW), register(&east, 2, 1, NOW)]);
    let (_, cursor) = follow(&store, &east, HotCursor::default(), 100);
    submit_and_wait(&store, vec![unregister(&east, 1, 2, NOW)]);

    let (changed, _) = follow(&store, &east, cursor, 100);
    let store = factory.reopen(store);
    let (copied, _) = follow(&store, &east, HotCursor::default(), 100);
    let later = NOW + Duration::from_secs(100_000);
    let expired = store.changes(&east, &HotCursor::default(), 100, later);

    for pages in [changed, copied] {
        let removed = pages.iter().flat_map(|page| &page.users).find(|(aor, _)| *aor == user(1));
        assert!(removed.is_some_and(|(_, copy)| copy.bindings.is_empty() && copy.removals.len() == 1));
    }
    assert!(expired.users.iter().all(|(_, copy)| *copy == UserCopy::default()));
}

fn what_changes_during_a_full_copy_comes_after_it(factory: &impl HotFactory) {
    let store = factory.create();
    let east = pool("east");
    submit_and_wait(&store, (0..50).map(|number| register(&east, number, 1, NOW)).collect());
    let mut cursor = HotCursor::default();
    let mut states: BTreeMap<AddressOfRecord, u32> = BTreeMap::new();
    for round in 0..50 {
        let page = store.changes(&east, &cursor, 3, NOW);
        let is_end = page.is_end();
        cursor = page.next;
        for (aor, copy) in page.users {
            states.insert(aor, copy.bindings.first().map_or(0, registrar::Binding::cseq));
        }
        if is_end && round > 40 {
            break;
        }
        if round < 30 {
            submit_and_wait(&store, vec![register(&east, round, 2, NOW)]);
        }
    }

    let expected = (0..50).map(|number| (user(number), if number < 30 { 2 } else { 1 }));
    assert_eq!(states, expected.collect());
}

fn a_cursor_of_an_earlier_incarnation_or_too_old_begins_a_full_copy(factory: &impl HotFactory) {
    let store = factory.create();
    let east = pool("east");
    submit_and_wait(&store, vec![register(&east, 1, 1, NOW)]);
    let cursor = store.newest_change(&east);
    let store = factory.reopen(store);
    assert!(store.changes(&east, &cursor, 10, NOW).is_copy);

    let old = store.newest_change(&east);
    let ahead = HotCursor { number: old.number + 1, ..old.clone() };
    assert!(store.changes(&east, &ahead, 10, NOW).is_copy, "a number that never was");
    let mut left = limits::BINDING_CHANGES_MAX + 1;
    let mut cseq = 1;
    while left > 0 {
        let count = left.min(limits::COMMIT_BATCH_MAX);
        cseq += 1;
        let users = 0..u64::try_from(count).unwrap_or(0);
        submit_and_wait(&store, users.map(|number| register(&east, number, cseq, NOW)).collect());
        left -= count;
    }

    let page = store.changes(&east, &old, 10, NOW);
    assert!(page.is_copy && page.next.copying.is_some());
    assert_eq!(page.newest, store.newest_change(&east).number);
    let just_in = HotCursor { number: old.number + 1, ..old };
    assert!(!store.changes(&east, &just_in, 10, NOW).is_copy);
}

fn a_reader_that_waits_is_woken_by_the_next_change_only(factory: &impl HotFactory) {
    let store = factory.create();
    let (east, woken) = (pool("east"), Arc::new(AtomicUsize::new(0)));
    let wait = |cursor: &HotCursor| {
        let woken = Arc::clone(&woken);
        store.when_changed(
            &east,
            cursor,
            Box::new(move || {
                woken.fetch_add(1, Ordering::SeqCst);
            }),
        );
    };
    let count = || woken.load(Ordering::SeqCst);

    wait(&store.newest_change(&east));
    submit_and_wait(&store, vec![register(&pool("west"), 1, 1, NOW)]);
    assert_eq!(count(), 0, "another home pool is no news");
    submit_and_wait(&store, vec![register(&east, 1, 1, NOW)]);
    assert_eq!(count(), 1);
    submit_and_wait(&store, vec![register(&east, 1, 2, NOW)]);
    assert_eq!(count(), 1, "once");
    wait(&HotCursor::default());
    assert_eq!(count(), 2, "there is something already");

    for _ in 0..limits::BINDING_READERS_MAX {
        wait(&store.newest_change(&east));
    }
    assert_eq!(count(), 2);
    wait(&store.newest_change(&east));
    assert_eq!(count(), 3, "one more than may wait: the first one goes");
}

fn two_stores_that_read_each_other_come_to_the_same(factory: &impl HotFactory) {
    let (one, two) = (factory.create(), factory.create());
    let east = pool("east");
    submit_and_wait(&one, (0..60).map(|number| register(&east, number, 1, NOW)).collect());
    submit_and_wait(&two, (40..80).map(|number| register(&east, number, 7, later_by(1))).collect());
    copy_between(&one, &two, &east);
    submit_and_wait(&two, (50..60).map(|number| unregister(&east, number, 8, later_by(2))).collect());

    copy_between(&two, &one, &east);
    assert_eq!(one.bindings(&east), 70);
    assert_eq!(lines(&one, &east), lines(&two, &east));
    assert_eq!(copy_between(&two, &one, &east), 0, "a second time there is no news");
    let one = factory.reopen(one);
    assert_eq!(lines(&one, &east), lines(&two, &east));
    assert_eq!(copy_between(&two, &one, &east), 0, "nor after the reader was opened again");
}

fn later_by(seconds: u64) -> model::WallTime {
    NOW + Duration::from_secs(seconds)
}

fn lines(store: &impl HotStore, home: &PoolName) -> Vec<String> {
    let mut lines = listing(store, home);
    lines.sort();
    lines
}

/// Copies what is news; returns how many users that were.
fn copy_between(from: &impl HotStore, to: &impl HotStore, home: &PoolName) -> usize {
    let (pages, _) = follow(from, home, HotCursor::default(), 20);
    let mut changed = 0;
    for (aor, copy) in pages.into_iter().flat_map(|page| page.users) {
        if to.is_news(home, &aor, &copy, NOW) {
            let epoch = from.highest_epoch(home);
            submit_and_wait(to, vec![Command::of_copy(home.clone(), epoch, NOW, aor, copy)]);
            changed += 1;
        }
    }
    changed
}
