//! Commits, conditions, fences, reads and followers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use model::{AddressOfRecord, Epoch, limits};

use super::{UserFactory, commit_one, pool, put, put_at, remove, secret, user};
use crate::{Account, AccountState, CommitError, Condition, DigestAlgorithm, UserStore, Write};

pub(super) fn run(factory: &impl UserFactory) {
    what_is_committed_is_read_back_also_after_reopening(factory);
    an_operation_is_executed_once(factory);
    a_refused_change_keeps_its_whole_batch_out(factory);
    conditions_are_checked(factory);
    a_user_has_one_home(factory);
    a_lower_epoch_is_refused_for_good(factory);
    too_many_changes_are_refused(factory);
    accounts_are_listed_in_order_by_pages(factory);
    a_follower_sees_everything_once_and_in_order(factory);
}

fn what_is_committed_is_read_back_also_after_reopening(factory: &impl UserFactory) {
    let store = factory.create();
    let mut change = put(1, 1);
    let algorithms = Some(vec![DigestAlgorithm::Md5, DigestAlgorithm::Sha256]);
    change.write =
        Write::PutAccount { home: pool("east"), credentials: secret(1), algorithms: algorithms.clone() };
    assert_eq!(store.read(&user(1)).expect("an absent account is no error"), None);

    commit_one(&store, &pool("east"), 3, change.clone()).expect("a new account is committed");
    commit_one(&store, &pool("east"), 3, put(2, 2)).expect("a new account is committed");
    commit_one(&store, &pool("east"), 3, remove(3, 2)).expect("an account is removed");

    let expected = Account {
        aor: user(1),
        journal: pool("east"),
        home: pool("east"),
        credentials: Some(secret(1)),
        algorithms,
        version: 1,
        epoch: Epoch::new(3),
        changed_at: change.changed_at,
    };
    assert_eq!(store.read(&user(1)).expect("can be read"), Some(expected.clone()));
    let store = factory.reopen(store);
    assert_eq!(store.read(&user(1)).expect("can be read"), Some(expected));
    assert_eq!(store.read(&user(2)).expect("can be read"), None);
    assert_eq!(store.journals().expect("can be read"), [pool("east")]);
    store.check().expect("nothing is damaged");
}

fn an_operation_is_executed_once(factory: &impl UserFactory) {
    let store = factory.create();
    let home = pool("east");
    let first = commit_one(&store, &home, 0, put(1, 1)).expect("is committed");
    commit_one(&store, &home, 0, put(2, 1)).expect("is committed");

    let again = commit_one(&store, &home, 0, put(1, 1)).expect("a repeated operation is no error");
    let store = factory.reopen(store);
    let later = commit_one(&store, &home, 0, put(1, 1)).expect("a repeated operation is no error");
    let other = commit_one(&store, &home, 0, put(1, 9));
    let opposite = commit_one(&store, &home, 0, remove(1, 1));

    assert_eq!((first.version, first.is_repeated), (1, false));
    assert_eq!((again.version, again.is_repeated), (1, true));
    assert_eq!(later, again);
    assert!(matches!(other, Err(CommitError::OperationReused { .. })), "{other:?}");
    assert!(matches!(opposite, Err(CommitError::OperationReused { .. })), "{opposite:?}");
    let account = store.read(&user(1)).expect("can be read").expect("is there");
    assert_eq!(
        (account.version, account.credentials),
        (2, Some(secret(2))),
        "the repetition changed nothing"
    );
}

fn a_refused_change_keeps_its_whole_batch_out(factory: &impl UserFactory) {
    let store = factory.create();
    let home = pool("east");

    let refused = store.commit(&home, Epoch::ZERO, &[put(1, 1), put(2, 2), remove(3, 3)]);

    assert!(matches!(&refused, Err(CommitError::Missing { aor, .. }) if *aor == user(3)), "{refused:?}");
    assert_eq!(store.read(&user(1)).expect("can be read"), None);
    let next = commit_one(&store, &home, 0, put(1, 1)).expect("is committed");
    assert_eq!((next.version, next.is_repeated), (1, false), "no number is lost");
}

fn conditions_are_checked(factory: &impl UserFactory) {
    let store = factory.create();
    let home = pool("east");
    let with = |change, condition| crate::Change { condition, ..change };
    commit_one(&store, &home, 0, with(put(1, 1), Condition::Absent)).expect("there was none");

    let exists = commit_one(&store, &home, 0, with(put(2, 1), Condition::Absent));
    let changed = commit_one(&store, &home, 0, with(put(3, 1), Condition::Version(7)));
    let missing = commit_one(&store, &home, 0, with(put(4, 2), Condition::Version(1)));
    commit_one(&store, &home, 0, with(put(5, 1), Condition::Version(1))).expect("the version is right");
    commit_one(&store, &home, 0, with(remove(6, 1), Condition::Version(2))).expect("the version is right");
    let gone = commit_one(&store, &home, 0, remove(7, 1));
    let back = commit_one(&store, &home, 0, with(put(8, 1), Condition::Absent));

    assert!(matches!(exists, Err(CommitError::Exists { .. })), "{exists:?}");
    assert!(matches!(changed, Err(CommitError::Changed { expected: 7, found: 1, .. })), "{changed:?}");
    assert!(matches!(missing, Err(CommitError::Changed { expected: 1, found: 0, .. })), "{missing:?}");
    assert!(matches!(gone, Err(CommitError::Missing { .. })), "{gone:?}");
    assert_eq!(back.expect("there was none").version, 4);
}

fn a_user_has_one_home(factory: &impl UserFactory) {
    let store = factory.create();
    commit_one(&store, &pool("east"), 0, put(1, 1)).expect("is committed");

    let taken = commit_one(&store, &pool("west"), 0, put_at("west", 2, 1));
    commit_one(&store, &pool("east"), 0, remove(3, 1)).expect("is removed");
    commit_one(&store, &pool("west"), 0, put_at("west", 4, 1)).expect("is free now");

    assert!(
        matches!(&taken, Err(CommitError::HomedElsewhere { home, .. }) if *home == pool("east")),
        "{taken:?}"
    );
    assert_eq!(store.read(&user(1)).expect("can be read").map(|account| account.home), Some(pool("west")));
}

fn a_lower_epoch_is_refused_for_good(factory: &impl UserFactory) {
    let store = factory.create();
    let (east, west) = (pool("east"), pool("west"));
    commit_one(&store, &east, 2, put(1, 1)).expect("is committed");
    store.fence(&east, Epoch::new(5)).expect("a higher epoch is accepted");
    store.fence(&east, Epoch::new(5)).expect("the same epoch is accepted again");

    let store = factory.reopen(store);

    assert!(matches!(store.fence(&east, Epoch::new(4)), Err(CommitError::Stale(_))));
    assert!(matches!(commit_one(&store, &east, 4, put(2, 2)), Err(CommitError::Stale(_))));
    assert!(matches!(commit_one(&store, &east, 2, put(1, 1)), Err(CommitError::Stale(_))));
    assert_eq!(store.highest_epoch(&east).expect("can be read"), Epoch::new(5));
    assert_eq!(store.highest_epoch(&west).expect("can be read"), Epoch::ZERO, "epochs are of one home pool");
    commit_one(&store, &west, 0, put_at("west", 3, 3)).expect("the other home pool is not fenced");
    commit_one(&store, &east, 6, put(4, 4)).expect("a higher epoch is accepted");
    assert!(matches!(commit_one(&store, &east, 5, put(5, 5)), Err(CommitError::Stale(_))));
}

fn too_many_changes_are_refused(factory: &impl UserFactory) {
    let store = factory.create();
    let max = u64::try_from(limits::ACCOUNTS_PER_PAGE_MAX).expect("the limit is small");
    let changes: Vec<_> = (0..=max).map(|number| put(number, number)).collect();

    let refused = store.commit(&pool("east"), Epoch::ZERO, &changes);
    let empty = store.commit(&pool("east"), Epoch::ZERO, &[]);

    assert!(matches!(refused, Err(CommitError::TooMany { .. })), "{refused:?}");
    assert_eq!(empty.expect("nothing to do is no error"), []);
    assert_eq!(store.read(&user(0)).expect("can be read"), None);
}

fn accounts_are_listed_in_order_by_pages(factory: &impl UserFactory) {
    let store = factory.create();
    for number in [4, 2, 5, 1, 3] {
        commit_one(&store, &pool("east"), 0, put(number, number)).expect("is committed");
    }
    commit_one(&store, &pool("west"), 0, put_at("west", 6, 6)).expect("is committed");
    commit_one(&store, &pool("east"), 0, remove(7, 3)).expect("is removed");

    let mut listed = Vec::new();
    let mut after: Option<AddressOfRecord> = None;
    loop {
        let page = store.list(&pool("east"), after.as_ref(), 2).expect("can be listed");
        let Some(last) = page.last() else { break };
        after = Some(last.aor.clone());
        assert!(page.len() <= 2);
        listed.extend(page.into_iter().map(|account| account.aor));
    }
    let mut all = Vec::new();
    store.load_all(&mut |account| all.push((account.aor, account.home))).expect("can be loaded");

    assert_eq!(listed, [user(1), user(2), user(4), user(5)]);
    assert_eq!(all.len(), 5);
    assert!(all.is_sorted());
    assert_eq!(all.last(), Some(&(user(6), pool("west"))));
    assert_eq!(store.list(&pool("north"), None, 2).expect("an unknown home pool has none"), []);
}

fn a_follower_sees_everything_once_and_in_order(factory: &impl UserFactory) {
    let store = factory.create();
    let east = pool("east");
    commit_one(&store, &east, 0, put(1, 1)).expect("is committed");
    commit_one(&store, &east, 0, put(2, 2)).expect("is committed");
    let copy: Arc<Mutex<(u64, BTreeMap<AddressOfRecord, Account>)>> = Arc::default();
    let kept = Arc::clone(&copy);
    store
        .follow(Box::new(move |changes| {
            let (sequence, accounts) = &mut *kept.lock().expect("no test panics here");
            *sequence = changes.sequence;
            for account in changes.accounts {
                match account {
                    AccountState::Present(account) => {
                        drop(accounts.insert(account.aor.clone(), account.clone()))
                    }
                    AccountState::Removed(aor) => drop(accounts.remove(aor)),
                }
            }
        }))
        .expect("a store can be followed");
    let at_first = copy.lock().expect("no test panics here").clone();

    store.commit(&east, Epoch::ZERO, &[put(3, 1), put(4, 3), remove(5, 2), put(6, 3)]).expect("is committed");
    commit_one(&store, &east, 0, put(3, 1)).expect("a repeated operation is no error");
    store.commit(&east, Epoch::ZERO, &[put(7, 7), remove(8, 9)]).expect_err("there is no user 9");

    assert_eq!((at_first.0, at_first.1.len()), (2, 2));
    let (sequence, accounts) = copy.lock().expect("no test panics here").clone();
    assert_eq!(sequence, 6);
    let mut all = BTreeMap::new();
    store.load_all(&mut |account| drop(all.insert(account.aor.clone(), account))).expect("can be loaded");
    assert_eq!(accounts, all);
}
