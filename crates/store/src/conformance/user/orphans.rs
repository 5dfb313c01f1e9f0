//! Orphans: the common change, adoption by the owner, going back, and double faults.

use model::{Epoch, PoolName, WallTime, documents::DocumentKind, limits};

use super::{
    UserFactory, calls, commit_one, contacts, content, disturb, document, is_quiet, list, missed, pool, pull,
    put, put_at, remove, secret, unlist, user,
};
use crate::{AdoptError, Adoption, Change, Cursor, JournalError, OrphanPage, RewindError, Scope, UserStore};

const NOW: WallTime = WallTime::from_secs(9_000);
const ALL: Scope = Scope::Everything;

pub(super) fn run(factory: &impl UserFactory) {
    what_was_not_touched_since_is_applied_as_it_was(factory);
    operations_on_lists_are_replayed_and_calls_united(factory);
    what_contradicts_is_kept_as_a_conflict_and_the_truth_comes_back(factory);
    a_user_created_in_the_gap_comes_with_everything(factory);
    a_removal_takes_nothing_along_that_was_written_since(factory);
    a_user_removed_and_created_again_begins_anew(factory);
    a_user_removed_since_stays_removed(factory);
    an_operation_that_came_to_the_owner_again_is_known(factory);
    adoption_may_be_repeated_at_every_step(factory);
    nothing_is_given_up_before_it_was_adopted(factory);
    a_common_change_is_found_over_several_epochs(factory);
    an_owner_that_lost_its_file_gets_everything_back(factory);
    lists_whose_edits_are_not_known_are_united(factory);
    what_a_catch_up_left_out_so_far_is_no_loss(factory);
    who_becomes_owner_halfway_goes_on_with_what_is_left_over(factory);
    a_stale_or_foreign_adoption_is_refused(factory);
    more_conflicts_than_are_kept_stop_the_adoption(factory);
}

/// `old` with some history, and `new`, which holds the same, is the owner under epoch 2, and does not know
/// what `old` commits from here on.
fn taken_over<F: UserFactory>(factory: &F, east: &PoolName) -> (F::Store, F::Store) {
    let (old, new) = (factory.create(), factory.create());
    let history = [put(1, 1), put(2, 2), put(3, 3), list(4, 1, 100), disturb(5, 1, false), missed(6, 1, 200)];
    old.commit(east, Epoch::new(1), &history).expect("is committed");
    pull(&old, &new, east, &ALL);
    new.fence(east, Epoch::new(2)).expect("is fenced");
    (old, new)
}

fn commit(store: &impl UserStore, journal: &PoolName, epoch: u64, changes: &[Change]) {
    store.commit(journal, Epoch::new(epoch), changes).expect("is committed");
}

/// The last change that both have, as the two find it by asking each other.
fn common(returning: &impl UserStore, owner: &impl UserStore, journal: &PoolName) -> Cursor {
    let mut cursor = returning.cursor(journal, &ALL).expect("can be read");
    for _ in 0..16 {
        let offered = match owner.journal(&cursor, 1, &ALL) {
            Ok(_) => return cursor,
            Err(JournalError::Ahead { common, .. } | JournalError::Diverged { common, .. }) => common,
            Err(error) => panic!("{error}"),
        };
        cursor = returning.common(&offered).expect("can be read");
        if cursor == offered {
            return cursor;
        }
    }
    panic!("no common change is found");
}

/// Offers every orphan, `max` at a time; says what became of each, and the end.
fn offer(
    returning: &impl UserStore,
    owner: &impl UserStore,
    common: &Cursor,
    epoch: u64,
    max: usize,
) -> (Vec<Adoption>, u64) {
    let (mut after, mut outcomes) = (common.sequence, Vec::new());
    loop {
        let page = returning.orphans(common, after, max).expect("orphans can be read");
        let page = OrphanPage::decode(&page.encode()).expect("a page survives the wire");
        let adopted = owner.adopt(Epoch::new(epoch), NOW, &page).expect("is adopted");
        assert_eq!(adopted.len(), page.orphans().len(), "one answer for each orphan");
        outcomes.extend(adopted.into_iter().map(|adopted| adopted.outcome));
        after = page.next();
        if page.is_end() {
            return (outcomes, after);
        }
    }
}

/// The whole way back; says what became of each orphan.
fn come_back(
    returning: &impl UserStore,
    owner: &impl UserStore,
    journal: &PoolName,
    epoch: u64,
) -> Vec<Adoption> {
    let common = common(returning, owner, journal);
    let (outcomes, last) = offer(returning, owner, &common, epoch, 2);
    returning.rewind(&common, last).expect("goes back");
    pull(owner, returning, journal, &ALL);
    assert_eq!(content(returning, journal), content(owner, journal), "both hold the same");
    returning.check().expect("nothing is damaged");
    owner.check().expect("nothing is damaged");
    outcomes
}

fn what_was_not_touched_since_is_applied_as_it_was(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    commit(&old, &east, 1, &[put(10, 2), disturb(11, 1, true), list(12, 1, 101), remove(13, 3)]);
    commit(&new, &east, 2, &[put(20, 4)]);

    let outcomes = come_back(&old, &new, &east, 2);

    assert_eq!(outcomes, [Adoption::Applied; 4]);
    let account = new.read(&user(2)).expect("can be read").expect("is there");
    assert_eq!((account.credentials, account.changed_at), (Some(secret(10)), WallTime::from_secs(10)));
    assert_eq!(account.epoch, Epoch::new(2));
    assert!(is_quiet(&new, &east, 1));
    assert_eq!(contacts(&new, &east, 1), [user(100), user(101)]);
    assert_eq!(new.read(&user(3)).expect("can be read"), None);
    assert!(new.read(&user(4)).expect("can be read").is_some());
    let repeated = commit_one(&new, &east, 2, put(10, 2)).expect("the operation is known");
    assert!(repeated.is_repeated);
}

fn operations_on_lists_are_replayed_and_calls_united(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    commit(&old, &east, 1, &[list(10, 1, 101), unlist(11, 1, 100), list(12, 1, 102), missed(13, 1, 201)]);
    commit(&new, &east, 2, &[list(20, 1, 103), missed(21, 1, 202)]);

    let outcomes = come_back(&old, &new, &east, 2);

    assert_eq!(outcomes, [Adoption::Replayed; 4]);
    assert_eq!(contacts(&old, &east, 1), [user(101), user(102), user(103)]);
    assert_eq!(calls(&old, &east, 1), [200, 201, 202]);
    assert_eq!(new.conflicts(&east, None, 9).expect("can be listed"), []);
}

fn what_contradicts_is_kept_as_a_conflict_and_the_truth_comes_back(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    commit(&old, &east, 1, &[put(10, 2), disturb(11, 1, true)]);
    let quiet_twice = disturb(12, 2, true);
    commit(&old, &east, 1, &[quiet_twice]);
    commit(&new, &east, 2, &[put(20, 2), disturb(21, 1, false), disturb(22, 2, true)]);

    let outcomes = come_back(&old, &new, &east, 2);

    assert_eq!(
        outcomes,
        [Adoption::Conflict, Adoption::Conflict, Adoption::Known],
        "the same is no conflict"
    );
    let account = old.read(&user(2)).expect("can be read").expect("is there");
    assert_eq!(account.credentials, Some(secret(20)), "what is in force is the owner's");
    assert!(!is_quiet(&old, &east, 1));
    let conflicts = old.conflicts(&east, None, 9).expect("can be listed");
    let about: Vec<_> =
        conflicts.iter().map(|found| (found.id.number(), found.aor.clone(), found.content.made_at)).collect();
    let at = WallTime::from_secs;
    assert_eq!(about, [(10, user(2), at(10)), (11, user(1), at(11))]);
    assert!(conflicts.iter().all(|found| found.found_at == NOW && found.content.epoch == Epoch::new(1)));
}

fn a_user_created_in_the_gap_comes_with_everything(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    commit(&old, &east, 1, &[put(10, 5), list(11, 5, 100), disturb(12, 5, true), missed(13, 5, 200)]);
    commit(&old, &east, 1, &[put(14, 6), disturb(15, 6, true)]);
    commit(&new, &pool("west"), 0, &[put_at("west", 20, 6)]);

    let outcomes = come_back(&old, &new, &east, 2);

    let (applied, conflict) = (Adoption::Applied, Adoption::Conflict);
    assert_eq!(outcomes, [applied, applied, applied, applied, conflict, conflict]);
    assert_eq!((contacts(&new, &east, 5), calls(&new, &east, 5)), (vec![user(100)], vec![200]));
    assert!(is_quiet(&new, &east, 5));
    assert_eq!(new.read(&user(6)).expect("can be read").map(|account| account.home), Some(pool("west")));
    assert_eq!(old.read(&user(6)).expect("can be read"), None, "it was given up here");
}

fn a_removal_takes_nothing_along_that_was_written_since(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    commit(&old, &east, 1, &[remove(10, 1), remove(11, 2)]);
    commit(&new, &east, 2, &[disturb(20, 1, true), missed(21, 2, 201)]);

    let outcomes = come_back(&old, &new, &east, 2);

    assert_eq!(outcomes.first(), Some(&Adoption::Conflict));
    assert!(old.read(&user(1)).expect("can be read").is_some());
    assert!(is_quiet(&old, &east, 1));
    assert_eq!(contacts(&old, &east, 1), [user(100)], "not even what was not written since");
    assert_eq!(calls(&old, &east, 1), [200]);
    assert_eq!(old.read(&user(2)).expect("can be read"), None, "a call does not keep a user");
    assert!(calls(&old, &east, 2).is_empty());
    assert_eq!(new.conflicts(&east, None, 9).expect("can be listed").len(), 1);
}

fn a_user_removed_and_created_again_begins_anew(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    commit(&old, &east, 1, &[list(9, 2, 100), remove(10, 1), remove(11, 2), put(12, 1), put(13, 2)]);
    commit(&old, &east, 1, &[list(14, 2, 101)]);
    commit(&new, &east, 2, &[put(20, 1)]);

    come_back(&old, &new, &east, 2);

    assert_eq!(contacts(&new, &east, 1), [user(100)], "the account has changed since: nothing is taken away");
    assert_eq!(contacts(&new, &east, 2), [user(101)]);
    assert_eq!(new.conflicts(&east, None, 9).expect("can be listed").len(), 1);
}

fn a_user_removed_since_stays_removed(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    commit(&old, &east, 1, &[list(10, 1, 101), missed(11, 1, 201), remove(12, 2)]);
    commit(&new, &east, 2, &[remove(20, 1), remove(21, 2)]);

    let outcomes = come_back(&old, &new, &east, 2);

    assert_eq!(outcomes, [Adoption::Conflict, Adoption::UserRemoved, Adoption::Known]);
    assert_eq!(old.read(&user(1)).expect("can be read"), None);
    assert_eq!(old.documents(&east, &user(1)).expect("can be read"), []);
}

fn an_operation_that_came_to_the_owner_again_is_known(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    commit(&old, &east, 1, &[disturb(10, 1, true), list(11, 1, 101)]);
    commit(&new, &east, 2, &[disturb(10, 1, true), list(11, 1, 101), unlist(20, 1, 101)]);

    let outcomes = come_back(&old, &new, &east, 2);

    assert_eq!(outcomes, [Adoption::Known; 2]);
    assert_eq!(contacts(&new, &east, 1), [user(100)], "it is not executed again");
}

fn adoption_may_be_repeated_at_every_step(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    commit(&old, &east, 1, &[put(10, 2), list(11, 1, 101), list(12, 1, 102), disturb(13, 1, true)]);
    commit(&new, &east, 2, &[put(20, 2)]);
    let common = common(&old, &new, &east);
    let first = old.orphans(&common, common.sequence, 3).expect("is read");
    new.adopt(Epoch::new(2), NOW, &first).expect("is adopted");

    let (old, new) = (factory.reopen(old), factory.reopen(new));
    let (again, last) = offer(&old, &new, &common, 2, 2);
    let after_once = content(&new, &east);
    commit(&new, &east, 2, &[unlist(21, 1, 102)]);
    let (once_more, _) = offer(&old, &new, &common, 2, 9);
    old.rewind(&common, last).expect("goes back");
    old.rewind(&common, last).expect("it has gone back");
    let old = factory.reopen(old);
    pull(&new, &old, &east, &ALL);

    assert_eq!(again, [Adoption::Known, Adoption::Known, Adoption::Known, Adoption::Applied]);
    assert_eq!(once_more, [Adoption::Known; 4]);
    assert_eq!(after_once.conflicts.len(), 1);
    assert_eq!(contacts(&new, &east, 1), [user(100), user(101)]);
    assert_eq!(content(&old, &east), content(&new, &east));
}

fn nothing_is_given_up_before_it_was_adopted(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    commit(&old, &east, 1, &[disturb(10, 1, true), disturb(11, 2, true)]);
    commit(&new, &east, 2, &[put(20, 4)]);
    let common = common(&old, &new, &east);
    let before = content(&old, &east);

    let none = old.rewind(&common, common.sequence);
    let some = old.rewind(&common, common.sequence + 1);
    let wrong = old.rewind(&Cursor { epoch: Epoch::new(9), ..common.clone() }, common.sequence + 2);

    assert!(matches!(none, Err(RewindError::NotAdopted { .. })), "{none:?}");
    assert!(matches!(some, Err(RewindError::NotAdopted { .. })), "{some:?}");
    assert!(matches!(wrong, Err(RewindError::NotCommon { .. })), "{wrong:?}");
    assert_eq!(content(&old, &east), before);
}

fn a_common_change_is_found_over_several_epochs(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    commit(&old, &east, 1, &[list(10, 1, 101)]);
    commit(&old, &east, 1, &[list(11, 1, 102)]);
    commit(&new, &east, 2, &[list(20, 1, 103)]);
    commit(&new, &east, 4, &[list(21, 1, 104)]);
    let behind = common(&old, &new, &east);
    commit(&old, &east, 3, &[list(12, 1, 105)]);

    let found = common(&old, &new, &east);
    let other_way = common(&new, &old, &east);
    let unknown = old.common(&Cursor::start(pool("north"))).expect("can be read");
    let outcomes = come_back(&old, &new, &east, 4);

    assert_eq!((behind.sequence, behind.epoch), (6, Epoch::new(1)));
    assert_eq!(found, behind);
    assert_eq!(other_way, behind, "both ends find the same");
    assert_eq!(unknown, Cursor::start(pool("north")));
    assert_eq!(outcomes, [Adoption::Replayed; 3]);
    assert_eq!(contacts(&old, &east, 1), [100, 101, 102, 103, 104, 105].map(user));
}

fn an_owner_that_lost_its_file_gets_everything_back(factory: &impl UserFactory) {
    let east = pool("east");
    let (lost, copy) = taken_over(factory, &east);
    drop(lost);
    let before = content(&copy, &east);
    let empty = factory.create();
    empty.fence(&east, Epoch::new(3)).expect("is fenced");

    let outcomes = come_back(&copy, &empty, &east, 3);

    assert_eq!(outcomes, [Adoption::Applied; 6]);
    let after = content(&empty, &east);
    assert_eq!(after.accounts.len(), before.accounts.len());
    let bare = |content: &super::Content| -> Vec<_> {
        content.documents.iter().map(|found| (found.aor.clone(), found.document.clone())).collect()
    };
    assert_eq!(bare(&after), bare(&before));
}

fn lists_whose_edits_are_not_known_are_united(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, copy) = taken_over(factory, &east);
    commit(&old, &east, 1, &[list(10, 1, 101), unlist(11, 1, 100), missed(12, 1, 201), disturb(13, 2, true)]);
    copy.fence(&east, Epoch::new(1)).expect_err("the copy has seen more");
    let reader = factory.create();
    pull(&old, &reader, &east, &ALL);
    commit(&copy, &east, 2, &[list(20, 1, 103), missed(21, 1, 202)]);

    let outcomes = come_back(&reader, &copy, &east, 2);

    assert_eq!(outcomes, [Adoption::United, Adoption::United, Adoption::Applied]);
    assert_eq!(contacts(&copy, &east, 1), [100, 101, 103].map(user), "nothing of either is lost");
    assert_eq!(calls(&copy, &east, 1), [200, 201, 202]);
}

fn what_a_catch_up_left_out_so_far_is_no_loss(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = (factory.create(), factory.create());
    commit(&old, &east, 0, &[put(1, 1), put(2, 2)]);
    pull(&old, &new, &east, &ALL);
    commit(&old, &east, 0, &[list(3, 1, 100), put(4, 2), list(5, 1, 101)]);
    let at = new.cursor(&east, &ALL).expect("can be read");
    let page = old.journal(&at, 1, &ALL).expect("is read");
    new.apply(&east, &page).expect("is applied");
    let (held, whole) = (new.cursor(&east, &ALL), new.whole(&east));

    commit(&new, &east, 1, &[put(20, 3)]);
    come_back(&old, &new, &east, 1);

    let numbers = (held.expect("can be read").sequence, whole.expect("can be read").sequence);
    assert_eq!(numbers, (4, 2), "the first contact is under number 3, and was replaced by number 5");
    assert_eq!(contacts(&new, &east, 1), [user(100), user(101)]);
    assert_eq!(new.read(&user(2)).expect("can be read").and_then(|found| found.credentials), Some(secret(4)));
    assert_eq!(new.whole(&east).expect("can be read"), new.cursor(&east, &ALL).expect("can be read"));
}

fn who_becomes_owner_halfway_goes_on_with_what_is_left_over(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    commit(&old, &east, 1, &[put(10, 5), disturb(11, 1, true)]);
    commit(&new, &east, 2, &[put(20, 6)]);
    let common = common(&old, &new, &east);
    let (_, last) = offer(&old, &new, &common, 2, 9);
    old.rewind(&common, last).expect("goes back");
    let left = content(&old, &east);

    commit(&old, &east, 3, &[list(12, 1, 101)]);
    let third = factory.create();
    pull(&old, &third, &east, &ALL);
    let outcomes = come_back(&new, &old, &east, 3);

    assert!(left.accounts.contains_key(&user(5)), "it stays readable");
    assert!(old.read(&user(5)).expect("can be read").is_some());
    assert!(is_quiet(&old, &east, 1));
    assert_eq!(third.read(&user(5)).expect("can be read").map(|account| account.home), Some(east.clone()));
    assert!(!outcomes.contains(&Adoption::Conflict), "what both have is no conflict: {outcomes:?}");
    assert!(old.read(&user(6)).expect("can be read").is_some(), "what the other made comes back");
}

fn a_stale_or_foreign_adoption_is_refused(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    commit(&old, &east, 1, &[disturb(10, 1, true)]);
    let common = common(&old, &new, &east);
    let page = old.orphans(&common, common.sequence, 9).expect("is read");
    let mut octets = page.encode();
    if let Some(octet) = octets.get_mut(30) {
        *octet ^= 1;
    }
    let directory = factory.create();
    pull(&new, &directory, &east, &Scope::Directory);
    let before = content(&new, &east);

    let damaged = OrphanPage::decode(&octets);
    let stale = new.adopt(Epoch::new(1), NOW, &page);
    let listed = directory.adopt(Epoch::new(3), NOW, &page);
    let unknown = factory.create().adopt(Epoch::new(2), NOW, &page);
    let mut elsewhere = common.clone();
    elsewhere.epoch = Epoch::new(7);
    let not_common = old.orphans(&elsewhere, 0, 9);

    assert!(matches!(damaged, Err(AdoptError::Damaged { .. })), "{damaged:?}");
    assert!(matches!(stale, Err(AdoptError::Stale(_))), "{stale:?}");
    assert!(matches!(listed, Err(AdoptError::HoldsLess { .. })), "{listed:?}");
    assert!(matches!(unknown, Err(AdoptError::NotCommon { .. })), "{unknown:?}");
    assert!(matches!(not_common, Err(JournalError::Diverged { .. })), "{not_common:?}");
    assert_eq!(content(&new, &east), before);
}

fn more_conflicts_than_are_kept_stop_the_adoption(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = taken_over(factory, &east);
    let max = u64::try_from(limits::CONFLICTS_MAX).expect("the limit is small");
    let numbers: Vec<u64> = (0..=max).collect();
    for chunk in numbers.chunks(limits::ACCOUNTS_PER_PAGE_MAX) {
        let of = |store: u64| chunk.iter().map(|number| put(store + number, 10_000 + number)).collect();
        let (ours, theirs): (Vec<_>, Vec<_>) = (of(100_000), of(200_000));
        commit(&old, &east, 1, &ours);
        commit(&new, &east, 2, &theirs);
    }
    let common = common(&old, &new, &east);
    let (mut after, mut adopted) = (common.sequence, 0);
    let refused = loop {
        let page = old.orphans(&common, after, usize::MAX).expect("is read");
        match new.adopt(Epoch::new(2), NOW, &page) {
            Ok(outcomes) => adopted += outcomes.len(),
            Err(error) => break error,
        }
        assert!(!page.is_end(), "one is too many");
        after = page.next();
    };

    assert!(matches!(refused, AdoptError::ConflictsFull { .. }), "{refused:?}");
    assert_eq!(adopted, limits::CONFLICTS_MAX);
    let refused = old.rewind(&common, after);
    assert!(matches!(refused, Err(RewindError::NotAdopted { .. })), "{refused:?}");
    assert!(document(&old, &east, 1, DocumentKind::Settings).is_some());
}
