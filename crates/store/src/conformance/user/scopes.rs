//! What branches and directories are given, copies that begin anew, bounds of pages, purging.

use std::collections::BTreeMap;

use model::{
    AddressOfRecord, Epoch, PoolName,
    documents::{ContactListEdit, DocumentKind, Edit, GroupName, ListedContact},
    limits,
};

use super::{
    UserFactory, allow, commit_one, contacts, content, disturb, edit, is_quiet, list, missed, pool, pull,
    put, put_at, remove, user,
};
use crate::{
    Change, CommitError, Cursor, EntryState, JournalError, PurgeError, RestartError, Scope, UserStore,
};

pub(super) fn run(factory: &impl UserFactory) {
    a_branch_is_given_its_users_whole_and_of_others_the_listing(factory);
    who_leaves_a_branch_leaves_no_secrets_there_and_who_comes_brings_documents(factory);
    a_copy_that_widens_or_narrows_its_scope_is_whole_and_holds_nothing_else(factory);
    a_page_may_bring_a_reader_further_with_nothing_in_its_scope(factory);
    a_copy_ahead_of_its_source_begins_anew_without_losing_sight(factory);
    a_copy_of_everything_is_never_restarted(factory);
    a_page_is_bounded_in_octets(factory);
    a_removal_is_never_cut_in_two(factory);
    a_new_owner_in_the_middle_of_a_catch_up_lets_the_copy_go_back(factory);
    a_purged_journal_leaves_nothing(factory);
}

/// Users 1 and 2 are homed on the branch `hill`, user 3 on `east`; all have documents.
fn owner<F: UserFactory>(factory: &F, east: &PoolName) -> F::Store {
    let store = factory.create();
    let mut changes = vec![put_at("hill", 1, 1), put_at("hill", 2, 2), put(3, 3)];
    for number in 1..=3 {
        let of = 10 * number;
        changes.extend([disturb(of, number, true), list(of + 1, number, 7), allow(of + 2, number, true)]);
        changes.push(missed(of + 3, number, 50));
    }
    store.commit(east, Epoch::new(1), &changes).expect("is committed");
    store
}

/// The users of a copy, and whether each is there with secrets.
fn users(store: &impl UserStore) -> BTreeMap<AddressOfRecord, bool> {
    let mut all = BTreeMap::new();
    let keep = &mut |account: crate::Account| {
        all.insert(account.aor, account.credentials.is_some());
    };
    store.load_all(keep).expect("can be loaded");
    all
}

fn kinds(store: &impl UserStore, journal: &PoolName, number: u64) -> Vec<DocumentKind> {
    let found = store.documents(journal, &user(number)).expect("can be read");
    found.into_iter().map(|found| found.document.kind()).collect()
}

fn a_branch_is_given_its_users_whole_and_of_others_the_listing(factory: &impl UserFactory) {
    let (east, scope) = (pool("east"), Scope::Branch(pool("hill")));
    let (owner, branch) = (owner(factory, &east), factory.create());

    pull(&owner, &branch, &east, &scope);

    assert_eq!(users(&branch), BTreeMap::from([(user(1), true), (user(2), true), (user(3), false)]));
    assert_eq!(branch.read(&user(3)).expect("can be read").map(|account| account.home), Some(east.clone()));
    assert_eq!(kinds(&branch, &east, 1), [DocumentKind::Settings, DocumentKind::VoicePolicy]);
    assert_eq!(kinds(&branch, &east, 3), [], "another's documents stay where they are");
    let at_end = owner.cursor(&east, &Scope::Everything).expect("can be read");
    assert_eq!(branch.cursor(&east, &scope).expect("can be read"), at_end);
    let more = branch.journal(&Cursor::start(east.clone()), 9, &Scope::Everything);
    assert!(matches!(more, Err(JournalError::HoldsLess { .. })), "{more:?}");
    let other = branch.journal(&Cursor::start(east.clone()), 9, &Scope::Branch(pool("lake")));
    assert!(matches!(other, Err(JournalError::HoldsLess { .. })), "{other:?}");
    let unknown = owner.journal(&Cursor::start(east.clone()), 99, &Scope::Branch(pool("lake")));
    let unknown = unknown.expect("a branch without users is given the listing");
    assert!(unknown.entries().iter().all(|entry| matches!(entry.state, EntryState::Listed { .. })));
}

fn who_leaves_a_branch_leaves_no_secrets_there_and_who_comes_brings_documents(factory: &impl UserFactory) {
    let (east, scope) = (pool("east"), Scope::Branch(pool("hill")));
    let (owner, branch) = (owner(factory, &east), factory.create());
    pull(&owner, &branch, &east, &scope);

    commit_one(&owner, &east, 1, put(60, 1)).expect("user 1 leaves");
    commit_one(&owner, &east, 1, remove(61, 2)).expect("user 2 is removed");
    commit_one(&owner, &east, 1, put_at("hill", 62, 3)).expect("user 3 comes");
    pull(&owner, &branch, &east, &scope);

    assert_eq!(users(&branch), BTreeMap::from([(user(1), false), (user(3), true)]));
    assert_eq!(kinds(&branch, &east, 1), []);
    assert_eq!(kinds(&branch, &east, 2), []);
    assert_eq!(kinds(&branch, &east, 3), [DocumentKind::Settings, DocumentKind::VoicePolicy]);
    commit_one(&owner, &east, 1, disturb(63, 1, false)).expect("is committed");
    commit_one(&owner, &east, 1, disturb(64, 3, false)).expect("is committed");
    pull(&owner, &branch, &east, &scope);
    assert_eq!(kinds(&branch, &east, 1), [], "nor does anything follow");
    assert!(!is_quiet(&branch, &east, 3));
    branch.check().expect("nothing is damaged");
}

fn a_copy_that_widens_or_narrows_its_scope_is_whole_and_holds_nothing_else(factory: &impl UserFactory) {
    let (east, hill) = (pool("east"), Scope::Branch(pool("hill")));
    let (owner, copy) = (owner(factory, &east), factory.create());

    pull(&owner, &copy, &east, &Scope::Directory);
    assert!(users(&copy).values().all(|has_secrets| !has_secrets));
    pull(&owner, &copy, &east, &hill);
    assert_eq!(users(&copy).values().filter(|has_secrets| **has_secrets).count(), 2);
    pull(&owner, &copy, &east, &Scope::Branch(east.clone()));
    assert_eq!(users(&copy), BTreeMap::from([(user(1), false), (user(2), false), (user(3), true)]));
    assert_eq!((kinds(&copy, &east, 1).len(), kinds(&copy, &east, 3).len()), (0, 2));
    pull(&owner, &copy, &east, &Scope::Directory);
    assert!(users(&copy).values().all(|has_secrets| !has_secrets), "no secret is left");
    assert_eq!(kinds(&copy, &east, 3), []);
    let page = owner.journal(&Cursor::start(east.clone()), 2, &Scope::Everything).expect("is read");
    copy.apply(&east, &page).expect("is applied");
    assert_eq!(users(&copy).len(), 3, "what has not come again stays readable");
    let halfway = commit_one(&copy, &east, 9, put(70, 70));
    let asked = copy.journal(&Cursor::start(east.clone()), 9, &Scope::Directory);
    assert!(matches!(halfway, Err(CommitError::HoldsLess { .. })), "{halfway:?}");
    assert!(matches!(asked, Err(JournalError::Recopying { .. })), "{asked:?}");
    let copy = factory.reopen(copy);
    pull(&owner, &copy, &east, &Scope::Everything);
    assert_eq!(content(&copy, &east), content(&owner, &east));
}

fn a_page_may_bring_a_reader_further_with_nothing_in_its_scope(factory: &impl UserFactory) {
    let east = pool("east");
    let (owner, copy) = (owner(factory, &east), factory.create());
    pull(&owner, &copy, &east, &Scope::Directory);
    let before = copy.cursor(&east, &Scope::Directory).expect("can be read");
    let idle = owner.journal(&before, 9, &Scope::Directory).expect("is read");

    commit_one(&owner, &east, 1, list(80, 1, 9)).expect("is committed");
    commit_one(&owner, &east, 4, list(81, 1, 10)).expect("is committed");
    let page = owner.journal(&before, 9, &Scope::Directory).expect("is read");
    let after = copy.apply(&east, &page).expect("is applied");

    assert!(!idle.has_news() && page.has_news());
    assert_eq!(page.entries(), []);
    assert_eq!((after.sequence, after.epoch), (before.sequence + 2, Epoch::new(4)));
    let next = owner.journal(&after, 9, &Scope::Directory).expect("the epoch is known");
    assert!(next.is_end() && !next.has_news());
}

fn a_copy_ahead_of_its_source_begins_anew_without_losing_sight(factory: &impl UserFactory) {
    let east = pool("east");
    let (old, new) = (owner(factory, &east), factory.create());
    pull(&old, &new, &east, &Scope::Everything);
    commit_one(&old, &east, 1, put(90, 9)).expect("the old owner goes on for a moment");
    commit_one(&old, &east, 1, remove(91, 1)).expect("the old owner goes on for a moment");
    let copy = factory.create();
    pull(&old, &copy, &east, &Scope::Directory);
    new.fence(&east, Epoch::new(2)).expect("is fenced");

    let ahead = new.journal(&copy.cursor(&east, &Scope::Directory).expect("is read"), 9, &Scope::Directory);
    let Err(JournalError::Ahead { epoch, .. }) = ahead else { panic!("{ahead:?}") };
    copy.restart(&east, epoch).expect("begins anew");
    let between = users(&copy);
    pull(&new, &copy, &east, &Scope::Directory);

    assert_eq!(between.into_keys().collect::<Vec<_>>(), [user(2), user(3), user(9)]);
    assert_eq!(users(&copy).into_keys().collect::<Vec<_>>(), [user(1), user(2), user(3)]);
    let stale = copy.restart(&east, Epoch::new(1));
    assert!(matches!(stale, Err(RestartError::Stale(_))), "{stale:?}");
}

fn a_copy_of_everything_is_never_restarted(factory: &impl UserFactory) {
    let east = pool("east");
    let owner = owner(factory, &east);
    let before = content(&owner, &east);

    let refused = owner.restart(&east, Epoch::new(7));

    assert!(matches!(refused, Err(RestartError::HoldsEverything { .. })), "{refused:?}");
    assert_eq!(content(&owner, &east), before);
    assert_eq!(owner.highest_epoch(&east).expect("can be read"), Epoch::new(1));
}

/// A contact with as many long groups as there may be.
fn long(operation: u64, number: u64) -> Change {
    let groups = (0..limits::GROUPS_PER_LIST_MAX).map(|group| {
        let name = format!("{group:0width$}", width = limits::GROUP_NAME_BYTES_MAX);
        GroupName::new(&name).expect("the name is allowed")
    });
    let listed = ListedContact { name: String::new(), groups: groups.collect() };
    edit(operation, number, Edit::ContactList(ContactListEdit::Put { contact: user(1), listed }))
}

fn a_page_is_bounded_in_octets(factory: &impl UserFactory) {
    let (store, copy) = (factory.create(), factory.create());
    let east = pool("east");
    let changes: Vec<_> =
        (0..500).flat_map(|number| [put(number, number), long(10_000 + number, number)]).collect();
    store.commit(&east, Epoch::ZERO, &changes).expect("is committed");

    let (mut cursor, mut pages) = (Cursor::start(east.clone()), 0);
    loop {
        let page = store.journal(&cursor, usize::MAX, &Scope::Everything).expect("is read");
        assert!(page.encode().len() < limits::PEER_BODY_BYTES_MAX);
        cursor = copy.apply(&east, &page).expect("is applied");
        pages += 1;
        if page.is_end() {
            break;
        }
    }
    let orphans = store.orphans(&Cursor::start(east.clone()), 0, usize::MAX).expect("is read");

    assert!(pages > 1, "the documents do not fit into one page");
    assert!(!orphans.is_end() && orphans.encode().len() < limits::PEER_BODY_BYTES_MAX);
    assert_eq!(contacts(&copy, &east, 0), [user(1)]);
    assert_eq!(content(&copy, &east), content(&store, &east));
}

fn a_removal_is_never_cut_in_two(factory: &impl UserFactory) {
    let east = pool("east");
    let (owner, copy) = (owner(factory, &east), factory.create());
    pull(&owner, &copy, &east, &Scope::Everything);
    commit_one(&owner, &east, 1, remove(60, 1)).expect("is removed");
    commit_one(&owner, &east, 1, remove(61, 2)).expect("is removed");

    let cursor = copy.cursor(&east, &Scope::Everything).expect("can be read");
    let page = owner.journal(&cursor, 1, &Scope::Everything).expect("is read");
    copy.apply(&east, &page).expect("is applied");

    assert_eq!((page.entries().len(), page.is_end()), (5, false), "an account and four documents");
    assert_eq!((kinds(&copy, &east, 1).len(), kinds(&copy, &east, 2).len()), (0, 4));
}

fn a_new_owner_in_the_middle_of_a_catch_up_lets_the_copy_go_back(factory: &impl UserFactory) {
    let (east, scope) = (pool("east"), Scope::Branch(pool("hill")));
    let (owner, branch) = (owner(factory, &east), factory.create());
    pull(&owner, &branch, &east, &scope);
    let whole = branch.whole(&east).expect("can be read");
    let changes = [disturb(60, 1, false), disturb(61, 2, false), disturb(62, 1, true)];
    owner.commit(&east, Epoch::new(1), &changes).expect("is committed");
    let page = owner.journal(&whole, 1, &scope).expect("is read");
    let half = branch.apply(&east, &page).expect("is applied");
    owner.fence(&east, Epoch::new(2)).expect("is fenced");

    let next = owner.journal(&half, 1, &scope).expect("is read");
    let back = branch.apply(&east, &next).expect("the copy goes back");

    assert!(half.sequence > whole.sequence);
    assert_eq!(back, whole);
    assert_eq!(branch.cursor(&east, &scope).expect("can be read"), whole);
    assert!(!is_quiet(&branch, &east, 2), "what came stays readable");
    pull(&owner, &branch, &east, &scope);
    assert!(is_quiet(&branch, &east, 1) && !is_quiet(&branch, &east, 2));
}

fn a_purged_journal_leaves_nothing(factory: &impl UserFactory) {
    let (east, west) = (pool("east"), pool("west"));
    let (owner, copy) = (owner(factory, &east), factory.create());
    pull(&owner, &copy, &east, &Scope::Everything);
    commit_one(&copy, &west, 0, put_at("west", 90, 9)).expect("is committed");
    let west_before = content(&copy, &west);

    let own = copy.purge(&west, &west);
    let purged = copy.purge(&east, &west).expect("the copy is purged");
    let again = copy.purge(&east, &west).expect("there is nothing left");

    assert!(matches!(own, Err(PurgeError::OwnPool { .. })), "{own:?}");
    assert_eq!((purged.rows, again.rows), (15, 0));
    assert!(purged.changes >= 15);
    assert_eq!(copy.journals().expect("can be read"), std::slice::from_ref(&west));
    assert_eq!(copy.cursor(&east, &Scope::Everything).expect("can be read"), Cursor::start(east.clone()));
    assert_eq!(copy.read(&user(1)).expect("can be read"), None);
    assert_eq!(content(&copy, &west), west_before);
    let copy = factory.reopen(copy);
    pull(&owner, &copy, &east, &Scope::Everything);
    assert_eq!(content(&copy, &east), content(&owner, &east), "it can be copied again");
}
