//! Conflicts: kept, shown, copied, resolved.

use model::{Epoch, PoolName, WallTime};

use super::{
    UserFactory, commit_one, content, disturb, is_quiet, list, pool, pull, put, remove, secret, user,
};
use crate::{Change, CommitError, ConflictId, OperationId, Resolution, Scope, UserStore, Write};

pub(super) fn run(factory: &impl UserFactory) {
    conflicts_are_listed_by_pages_and_reach_the_partner(factory);
    the_orphan_can_be_applied_or_forgotten(factory);
    a_resolution_is_executed_once_and_of_the_right_user_only(factory);
    conflicts_leave_with_the_account(factory);
}

/// A store with a conflict about the password of user 1 (number 10), one about the settings of user 2 (11).
fn with_conflicts<F: UserFactory>(factory: &F, east: &PoolName) -> F::Store {
    let (old, new) = (factory.create(), factory.create());
    let epoch = Epoch::new;
    old.commit(east, epoch(1), &[put(1, 1), put(2, 2)]).expect("is committed");
    pull(&old, &new, east, &Scope::Everything);
    let common = new.cursor(east, &Scope::Everything).expect("can be read");
    old.commit(east, epoch(1), &[put(10, 1), disturb(11, 2, true)]).expect("is committed");
    new.commit(east, epoch(2), &[put(20, 1), disturb(21, 2, false)]).expect("is committed");
    let page = old.orphans(&common, common.sequence, 9).expect("is read");
    new.adopt(epoch(2), WallTime::from_secs(50), &page).expect("is adopted");
    new
}

fn resolve(operation: u64, number: u64, conflict: u128, resolution: Resolution) -> Change {
    let write = Write::Resolve { conflict: ConflictId::new(conflict), resolution };
    Change { write, ..put(operation, number) }
}

fn conflicts_are_listed_by_pages_and_reach_the_partner(factory: &impl UserFactory) {
    let east = pool("east");
    let (store, partner) = (with_conflicts(factory, &east), factory.create());
    pull(&store, &partner, &east, &Scope::Everything);
    let partner = factory.reopen(partner);

    let first = partner.conflicts(&east, None, 1).expect("can be listed");
    let rest = partner.conflicts(&east, first.first().map(|found| found.id), 9).expect("can be listed");
    let shown = partner.conflict(&east, ConflictId::new(11)).expect("can be read");
    let none = partner.conflict(&east, ConflictId::new(12)).expect("can be read");

    assert_eq!((first.len(), rest.len()), (1, 1));
    assert_eq!(shown.as_ref(), rest.first());
    assert_eq!(none, None);
    assert_eq!(partner.conflicts(&pool("west"), None, 9).expect("can be listed"), []);
    assert_eq!(content(&partner, &east), content(&store, &east));
}

fn the_orphan_can_be_applied_or_forgotten(factory: &impl UserFactory) {
    let east = pool("east");
    let (store, partner) = (with_conflicts(factory, &east), factory.create());

    commit_one(&store, &east, 2, resolve(30, 1, 10, Resolution::ApplyOrphan)).expect("is resolved");
    commit_one(&store, &east, 2, resolve(31, 2, 11, Resolution::KeepPresent)).expect("is resolved");
    pull(&store, &partner, &east, &Scope::Everything);

    for store in [&store, &partner] {
        let account = store.read(&user(1)).expect("can be read").expect("is there");
        assert_eq!(account.credentials, Some(secret(10)));
        assert!(!is_quiet(store, &east, 2));
        assert_eq!(store.conflicts(&east, None, 9).expect("can be listed"), []);
    }
}

fn a_resolution_is_executed_once_and_of_the_right_user_only(factory: &impl UserFactory) {
    let east = pool("east");
    let store = with_conflicts(factory, &east);

    let other_user = commit_one(&store, &east, 2, resolve(30, 2, 10, Resolution::ApplyOrphan));
    let unknown = commit_one(&store, &east, 2, resolve(31, 1, 99, Resolution::ApplyOrphan));
    let first =
        commit_one(&store, &east, 2, resolve(32, 2, 11, Resolution::ApplyOrphan)).expect("is resolved");
    commit_one(&store, &east, 2, disturb(33, 2, false)).expect("is committed");
    let again = commit_one(&store, &east, 2, resolve(32, 2, 11, Resolution::ApplyOrphan)).expect("is known");
    let late = commit_one(&store, &east, 2, resolve(34, 2, 11, Resolution::KeepPresent));

    assert!(matches!(other_user, Err(CommitError::NoConflict { .. })), "{other_user:?}");
    assert!(matches!(unknown, Err(CommitError::NoConflict { .. })), "{unknown:?}");
    assert!(matches!(late, Err(CommitError::NoConflict { .. })), "{late:?}");
    assert_eq!((again.version, again.is_repeated), (first.version, true));
    assert!(!is_quiet(&store, &east, 2), "the repetition changed nothing");
    assert!(store.conflict(&east, ConflictId::new(10)).expect("can be read").is_some());
}

fn conflicts_leave_with_the_account(factory: &impl UserFactory) {
    let east = pool("east");
    let store = with_conflicts(factory, &east);

    commit_one(&store, &east, 2, remove(30, 1)).expect("is removed");
    let gone = commit_one(&store, &east, 2, resolve(31, 1, 10, Resolution::ApplyOrphan));
    commit_one(&store, &east, 2, list(32, 2, 7)).expect("is committed");

    assert!(matches!(gone, Err(CommitError::NoConflict { .. })), "{gone:?}");
    let left: Vec<_> = store.conflicts(&east, None, 9).expect("can be listed").iter().map(|c| c.id).collect();
    assert_eq!(left, [ConflictId::new(11)]);
    let operation = OperationId::new(30);
    let again = commit_one(&store, &east, 2, Change { operation, ..remove(30, 1) }).expect("is known");
    assert!(again.is_repeated);
}
