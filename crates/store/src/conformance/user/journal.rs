//! The journal: pages, applying them, and refusing what must not be applied.

use std::collections::BTreeMap;

use model::{AddressOfRecord, Epoch, PoolName};

use super::{UserFactory, commit_one, pool, pull, put, put_at, remove, secret, user};
use crate::{Account, ApplyError, CommitError, Cursor, EntryState, JournalError, Page, Scope, UserStore};

pub(super) fn run(factory: &impl UserFactory) {
    a_copy_made_of_pages_equals_the_original(factory);
    numbers_are_without_gaps_in_each_home_pool(factory);
    the_same_page_twice_is_harmless(factory);
    a_gap_is_refused_and_named(factory);
    a_stale_sender_is_refused(factory);
    damage_and_a_wrong_home_are_refused(factory);
    a_directory_never_holds_secrets_and_can_become_accounts(factory);
    a_copy_can_be_made_owner_and_goes_on_without_gaps(factory);
    changes_of_two_owners_under_one_number_are_found(factory);
    pages_are_bounded_and_end(factory);
}

fn content(store: &impl UserStore) -> BTreeMap<AddressOfRecord, Account> {
    let mut all = BTreeMap::new();
    store.load_all(&mut |account| drop(all.insert(account.aor.clone(), account))).expect("can be loaded");
    all
}

/// A store with some history: changed, removed and created again.
fn owner<F: UserFactory>(factory: &F, home: &PoolName) -> F::Store {
    let store = factory.create();
    let history =
        [put(1, 1), put(2, 2), put(3, 3), put(4, 1), remove(5, 2), put(6, 4), remove(7, 4), put(8, 4)];
    for change in history {
        commit_one(&store, home, 1, change).expect("is committed");
    }
    store
}

fn a_copy_made_of_pages_equals_the_original(factory: &impl UserFactory) {
    let east = pool("east");
    let (owner, copy) = (owner(factory, &east), factory.create());

    pull(&owner, &copy, &east, &Scope::Everything);
    commit_one(&owner, &east, 1, put(9, 9)).expect("is committed");
    commit_one(&owner, &east, 2, remove(10, 1)).expect("is committed");
    pull(&owner, &copy, &east, &Scope::Everything);
    let copy = factory.reopen(copy);

    assert_eq!(content(&copy), content(&owner));
    assert_eq!(copy.cursor(&east, &Scope::Everything).expect("can be read").sequence, 10);
    assert_eq!(copy.highest_epoch(&east).expect("can be read"), Epoch::new(2));
    copy.check().expect("nothing is damaged");
}

fn numbers_are_without_gaps_in_each_home_pool(factory: &impl UserFactory) {
    let store = owner(factory, &pool("east"));
    let first = commit_one(&store, &pool("west"), 0, put_at("west", 20, 20)).expect("is committed");

    let page = store.journal(&Cursor::start(pool("east")), 100, &Scope::Everything).expect("can be read");

    assert_eq!(first.version, 1, "each home pool counts for itself");
    page.check().expect("the numbers are without gaps");
    assert_eq!(page.next().sequence, 8);
    let states: Vec<_> = page
        .entries()
        .iter()
        .map(|entry| (entry.sequence, entry.aor.clone(), matches!(entry.state, EntryState::Removed(_))))
        .collect();
    let expected = [(3, user(3), false), (4, user(1), false), (5, user(2), true), (8, user(4), false)];
    assert_eq!(states, expected, "replaced changes are covered without being sent");
}

fn the_same_page_twice_is_harmless(factory: &impl UserFactory) {
    let east = pool("east");
    let (owner, copy) = (owner(factory, &east), factory.create());
    let first = owner.journal(&Cursor::start(east.clone()), 2, &Scope::Everything).expect("can be read");
    pull(&owner, &copy, &east, &Scope::Everything);
    let before = content(&copy);

    let cursor = copy.apply(&east, &first).expect("an old page is no error");

    assert_eq!(cursor.sequence, 8, "the cursor does not go back");
    assert_eq!(content(&copy), before);
}

fn a_gap_is_refused_and_named(factory: &impl UserFactory) {
    let east = pool("east");
    let (owner, copy) = (owner(factory, &east), factory.create());
    let first = owner.journal(&Cursor::start(east.clone()), 2, &Scope::Everything).expect("can be read");
    let second = owner.journal(&first.next(), 2, &Scope::Everything).expect("can be read");

    let refused = copy.apply(&east, &second);

    assert!(matches!(refused, Err(ApplyError::Gap { expected: 0, found: 4, .. })), "{refused:?}");
    assert!(content(&copy).is_empty());
    copy.apply(&east, &first).expect("the first page is applied");
    copy.apply(&east, &second).expect("the second page follows");
}

fn a_stale_sender_is_refused(factory: &impl UserFactory) {
    let east = pool("east");
    let (owner, copy) = (owner(factory, &east), factory.create());
    let page = owner.journal(&Cursor::start(east.clone()), 9, &Scope::Everything).expect("can be read");
    copy.fence(&east, Epoch::new(2)).expect("is fenced");

    let refused = copy.apply(&east, &page);

    assert!(matches!(refused, Err(ApplyError::Stale(_))), "{refused:?}");
    assert!(content(&copy).is_empty());
    owner.fence(&east, Epoch::new(2)).expect("is fenced");
    pull(&owner, &copy, &east, &Scope::Everything);
    assert_eq!(content(&copy), content(&owner), "old changes under a new epoch are taken");
}

fn damage_and_a_wrong_home_are_refused(factory: &impl UserFactory) {
    let east = pool("east");
    let (owner, copy) = (owner(factory, &east), factory.create());
    let page = owner.journal(&Cursor::start(east.clone()), 9, &Scope::Everything).expect("can be read");
    let mut octets = page.encode();
    if let Some(octet) = octets.get_mut(40) {
        *octet ^= 4;
    }

    let damaged = Page::decode(&octets);
    let elsewhere = copy.apply(&pool("west"), &page);

    assert!(matches!(damaged, Err(ApplyError::Damaged { .. })), "{damaged:?}");
    assert!(matches!(elsewhere, Err(ApplyError::WrongJournal { .. })), "{elsewhere:?}");
    assert!(content(&copy).is_empty());
}

fn a_directory_never_holds_secrets_and_can_become_accounts(factory: &impl UserFactory) {
    let east = pool("east");
    let (owner, copy) = (owner(factory, &east), factory.create());

    pull(&owner, &copy, &east, &Scope::Directory);
    let listed = content(&copy);
    let refused = commit_one(&copy, &east, 9, put(50, 50));
    let unread = copy.journal(&Cursor::start(east.clone()), 9, &Scope::Everything);
    let third = factory.create();
    pull(&copy, &third, &east, &Scope::Directory);
    let from_third = content(&third);
    commit_one(&owner, &east, 1, put(9, 1)).expect("is committed");
    pull(&owner, &copy, &east, &Scope::Everything);
    let shrunk = copy
        .apply(&east, &owner.journal(&Cursor::start(east.clone()), 1, &Scope::Directory).expect("is read"));

    assert_eq!(listed.keys().collect::<Vec<_>>(), [&user(1), &user(3), &user(4)]);
    assert!(listed.values().all(|account| account.credentials.is_none() && account.home == east));
    assert_eq!(from_third, listed, "a directory can be passed on");
    assert!(matches!(refused, Err(CommitError::HoldsLess { .. })), "{refused:?}");
    assert!(matches!(unread, Err(JournalError::HoldsLess { .. })), "{unread:?}");
    assert_eq!(content(&copy), content(&owner), "accounts complete the directory");
    assert!(content(&copy).values().all(|account| account.credentials.is_some()));
    assert!(matches!(shrunk, Err(ApplyError::HoldsMore { .. })), "{shrunk:?}");
}

fn a_copy_can_be_made_owner_and_goes_on_without_gaps(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = (owner(factory, &east), factory.create());
    pull(&old, &new, &east, &Scope::Everything);

    new.fence(&east, Epoch::new(2)).expect("is fenced");
    let repeated = commit_one(&new, &east, 2, put(8, 4)).expect("a repeated operation is known to the copy");
    let next = commit_one(&new, &east, 2, put(9, 1)).expect("is committed");
    let stale =
        new.apply(&east, &old.journal(&Cursor::start(east.clone()), 9, &Scope::Everything).expect("is read"));
    pull(&new, &old, &east, &Scope::Everything);

    assert_eq!((repeated.version, repeated.is_repeated), (8, true));
    assert_eq!((next.version, next.is_repeated), (9, false));
    assert!(matches!(stale, Err(ApplyError::Stale(_))), "{stale:?}");
    assert_eq!(content(&old), content(&new));
    assert!(
        matches!(commit_one(&old, &east, 1, put(10, 1)), Err(CommitError::Stale(_))),
        "the old owner is fenced"
    );
    assert_eq!(
        old.read(&user(1)).expect("can be read").and_then(|account| account.credentials),
        Some(secret(9))
    );
}

fn changes_of_two_owners_under_one_number_are_found(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = (owner(factory, &east), factory.create());
    pull(&old, &new, &east, &Scope::Everything);
    commit_one(&old, &east, 1, put(9, 9)).expect("the old owner does not know yet");
    commit_one(&new, &east, 2, put(10, 1)).expect("is committed");
    let ours = old.cursor(&east, &Scope::Everything).expect("can be read");

    let asked = new.journal(&ours, 9, &Scope::Everything);
    let page = new.journal(&Cursor::start(east.clone()), 9, &Scope::Everything).expect("can be read");
    let applied = old.apply(&east, &page);
    commit_one(&old, &east, 1, put(11, 11)).expect("the old owner does not know yet");
    let ahead =
        new.journal(&old.cursor(&east, &Scope::Everything).expect("can be read"), 9, &Scope::Everything);

    assert!(
        matches!(asked, Err(JournalError::Diverged { theirs: Cursor { sequence: 9, .. }, .. })),
        "{asked:?}"
    );
    assert!(matches!(applied, Err(ApplyError::Diverged { sequence: 9, .. })), "{applied:?}");
    assert!(
        matches!(ahead, Err(JournalError::Ahead { theirs: Cursor { sequence: 10, .. }, last: 9, .. })),
        "{ahead:?}"
    );
    assert!(old.read(&user(9)).expect("can be read").is_some(), "the orphan is kept");
}

fn pages_are_bounded_and_end(factory: &impl UserFactory) {
    let east = pool("east");
    let store = owner(factory, &east);
    let start = Cursor::start(east.clone());

    let some = store.journal(&start, 3, &Scope::Everything).expect("can be read");
    let rest = store.journal(&some.next(), usize::MAX, &Scope::Everything).expect("can be read");
    let none = store.journal(&rest.next(), 3, &Scope::Everything).expect("can be read");
    let unknown = store.journal(&Cursor::start(pool("north")), 3, &Scope::Directory).expect("is empty");

    assert_eq!((some.entries().len(), some.is_end()), (3, false));
    assert_eq!((rest.entries().len(), rest.is_end()), (1, true));
    assert_eq!((none.entries().len(), none.is_end()), (0, true));
    assert_eq!((unknown.entries().len(), unknown.is_end()), (0, true));
    assert_eq!(none.next(), rest.next());
}
