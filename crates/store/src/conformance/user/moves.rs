//! Users of a branch go to another journal, and back.

use model::{
    Epoch, PoolName, WallTime,
    documents::{Document, DocumentKind},
};

use super::{UserFactory, commit_one, disturb, list, pool, pull, put_at, remove, secret, user};
use crate::{AdoptError, CommitError, Departure, JournalError, MovePage, OperationId, Scope, UserStore};

pub(super) fn run(factory: &impl UserFactory) {
    users_settle_with_all_that_is_theirs_and_depart(factory);
    settling_again_changes_nothing_that_was_changed_since(factory);
    users_come_back_with_what_was_changed_elsewhere(factory);
    pages_end_where_they_are_told(factory);
    who_has_changed_since_does_not_depart(factory);
    only_who_owns_a_journal_takes_part(factory);
}

const NOW: WallTime = WallTime::from_secs(900);

fn names() -> [PoolName; 3] {
    ["east", "west", "branch1"].map(pool)
}

/// A store with a user of the branch in the journal of east (with a contact and settings), and one of east.
fn with_users<F: UserFactory>(factory: &F) -> F::Store {
    let store = factory.create();
    let [east, ..] = names();
    let changes = [put_at("branch1", 1, 1), put_at("east", 2, 2), list(3, 1, 7), disturb(4, 1, true)];
    store.commit(&east, Epoch::new(3), &changes).expect("is committed");
    store
}

fn leaving(store: &impl UserStore, journal: &PoolName) -> MovePage {
    let [.., branch] = names();
    let page = store.leaving(journal, &branch, None, 9).expect("is read");
    MovePage::decode(&page.encode()).expect("is what was encoded")
}

fn settle(store: &impl UserStore, journal: &PoolName, page: &MovePage) {
    store.settle(journal, Epoch::new(5), NOW, page).expect("is settled");
}

fn depart(store: &impl UserStore, journal: &PoolName, epoch: u64, last: u64) -> usize {
    let [.., home] = names();
    let departure = Departure { journal: journal.clone(), home, epoch: Epoch::new(epoch), last };
    store.depart(&departure, NOW, OperationId::new(u128::from(last) << 32)).expect("is committed")
}

fn contacts(store: &impl UserStore, journal: &PoolName, number: u64) -> (usize, u64) {
    let found = store.document(journal, &user(number), DocumentKind::ContactList).expect("is read");
    found.map_or((0, 0), |found| match found.document {
        Document::ContactList(list) => (list.contacts().count(), found.version),
        other @ (Document::Settings(_) | Document::VoicePolicy(_) | Document::CallLog(_)) => {
            panic!("not a contact list: {other:?}")
        }
    })
}

fn users_settle_with_all_that_is_theirs_and_depart(factory: &impl UserFactory) {
    let [east, west, branch] = names();
    let (old, new) = (with_users(factory), factory.create());
    let page = leaving(&old, &east);
    assert_eq!((page.content().users.len(), page.content().last, page.content().is_end), (1, 4, true));

    settle(&new, &west, &page);
    let new = factory.reopen(new);

    let account = new.account(&west, &user(1)).expect("is read").expect("is there");
    assert_eq!((account.home, account.credentials), (branch.clone(), Some(secret(1))));
    assert_eq!(account.changed_at, WallTime::from_secs(1), "as it was made, not as it was moved");
    assert!(account.version > 4, "no version falls");
    assert_eq!(contacts(&new, &west, 1).0, 1);
    assert_eq!(new.account(&west, &user(2)).expect("is read"), None, "who is homed elsewhere stays");

    let partner = factory.create();
    pull(&new, &partner, &west, &Scope::Everything);
    assert_eq!(contacts(&partner, &west, 1), contacts(&new, &west, 1));
    let at_branch = factory.create();
    pull(&new, &at_branch, &west, &Scope::Branch(branch.clone()));
    assert!(at_branch.account(&west, &user(1)).expect("is read").expect("is there").credentials.is_some());

    assert_eq!(depart(&old, &east, 3, 4), 1);
    assert_eq!(depart(&old, &east, 3, 4), 0);
    assert_eq!(old.account(&east, &user(1)).expect("is read"), None);
    assert_eq!(contacts(&old, &east, 1), (0, 0));
    assert!(old.account(&east, &user(2)).expect("is read").is_some());
    assert_eq!(old.journals_of(&branch).expect("is read"), []);
    assert_eq!(new.journals_of(&branch).expect("is read"), [west]);
}

fn settling_again_changes_nothing_that_was_changed_since(factory: &impl UserFactory) {
    let [east, west, _] = names();
    let (old, new) = (with_users(factory), factory.create());
    let page = leaving(&old, &east);
    settle(&new, &west, &page);
    commit_one(&new, &west, 5, list(50, 1, 8)).expect("is committed");
    let end = new.cursor(&west, &Scope::Everything).expect("is read");

    settle(&new, &west, &page);

    assert_eq!(new.cursor(&west, &Scope::Everything).expect("is read"), end);
    assert_eq!(contacts(&new, &west, 1).0, 2);
    commit_one(&new, &west, 5, remove(51, 1)).expect("is committed");
    settle(&new, &west, &page);
    assert_eq!(new.account(&west, &user(1)).expect("is read"), None, "who was removed does not come back");
}

fn users_come_back_with_what_was_changed_elsewhere(factory: &impl UserFactory) {
    let [east, west, _] = names();
    let store = with_users(factory);
    settle(&store, &west, &leaving(&store, &east));
    assert_eq!(store.read(&user(1)).expect("is read").expect("is there").journal, west);
    commit_one(&store, &west, 5, list(60, 1, 8)).expect("is committed");

    // Once while the former copy is still there, once after it has gone.
    settle(&store, &east, &leaving(&store, &west));
    assert_eq!(contacts(&store, &east, 1).0, 2);
    let last = store.cursor(&west, &Scope::Everything).expect("is read").sequence;
    assert_eq!(depart(&store, &west, 5, last), 1);

    commit_one(&store, &east, 5, list(61, 1, 9)).expect("is committed");
    settle(&store, &west, &leaving(&store, &east));
    assert_eq!(contacts(&store, &west, 1).0, 3);
    assert!(contacts(&store, &west, 1).1 > contacts(&store, &east, 1).1);
}

fn pages_end_where_they_are_told(factory: &impl UserFactory) {
    let [east, west, branch] = names();
    let (old, new) = (factory.create(), factory.create());
    let changes: Vec<_> = (1..=5).map(|number| put_at("branch1", number, number)).collect();
    old.commit(&east, Epoch::ZERO, &changes).expect("is committed");

    let mut after = None;
    let mut sizes = Vec::new();
    loop {
        let page = old.leaving(&east, &branch, after.as_ref(), 2).expect("is read");
        settle(&new, &west, &page);
        sizes.push(page.content().users.len());
        after = page.next().cloned();
        if page.content().is_end {
            break;
        }
    }

    assert_eq!(sizes, [2, 2, 1]);
    assert_eq!(new.list(&branch, None, 9).expect("is read").len(), 5);
}

fn who_has_changed_since_does_not_depart(factory: &impl UserFactory) {
    let [east, ..] = names();
    let store = with_users(factory);
    commit_one(&store, &east, 3, list(70, 1, 8)).expect("is committed");

    assert_eq!(depart(&store, &east, 3, 4), 0);
    assert_eq!(contacts(&store, &east, 1).0, 2);
}

fn only_who_owns_a_journal_takes_part(factory: &impl UserFactory) {
    let [east, west, branch] = names();
    let (old, listed) = (with_users(factory), factory.create());
    pull(&old, &listed, &east, &Scope::Directory);

    let read = listed.leaving(&east, &branch, None, 9);
    assert!(matches!(read, Err(JournalError::HoldsLess { .. })), "{read:?}");
    let page = leaving(&old, &east);
    let settled = listed.settle(&east, Epoch::new(5), NOW, &page);
    assert!(matches!(settled, Err(AdoptError::HoldsLess { .. })), "{settled:?}");
    settle(&old, &west, &page);
    let stale = old.settle(&west, Epoch::new(4), NOW, &page);
    assert!(matches!(stale, Err(AdoptError::Stale(_))), "{stale:?}");
    let departure = Departure { journal: east, home: branch, epoch: Epoch::new(2), last: 4 };
    let stale = old.depart(&departure, NOW, OperationId::new(1));
    assert!(matches!(stale, Err(CommitError::Stale(_))), "{stale:?}");
}
