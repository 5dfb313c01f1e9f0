//! Documents: edits, conditions, removal with the account, followers, lag.

use std::sync::{Arc, Mutex};

use model::{
    Epoch, WallTime,
    documents::{Destination, Document, DocumentKind, Edit, Forwarding, NoAnswer, UserSettings},
};

use super::{
    UserFactory, allow, calls, commit_one, contacts, disturb, document, edit, is_quiet, list, missed, pool,
    pull, put, put_at, remove, unlist, user,
};
use crate::{
    Change, CommitError, Condition, Cursor, DocumentState, Lag, Scope, StoredDocument, Subject, UserStore,
};

pub(super) fn run(factory: &impl UserFactory) {
    an_edited_document_is_read_back_also_after_reopening(factory);
    documents_need_an_account_and_leave_with_it(factory);
    an_edit_is_executed_once(factory);
    conditions_are_of_the_one_document(factory);
    a_refused_edit_keeps_its_whole_batch_out(factory);
    a_call_record_that_tells_nothing_new_takes_no_number(factory);
    a_branch_keeps_call_records_of_users_whose_accounts_are_elsewhere(factory);
    documents_are_listed_in_order_by_pages(factory);
    a_follower_hears_of_what_routing_needs_and_of_every_change(factory);
    a_change_of_home_states_again_what_a_branch_needs(factory);
    what_a_reader_does_not_have_is_counted_and_dated(factory);
}

fn an_edited_document_is_read_back_also_after_reopening(factory: &impl UserFactory) {
    let store = factory.create();
    let east = pool("east");
    commit_one(&store, &east, 3, put(1, 1)).expect("is committed");
    assert_eq!(document(&store, &east, 1, DocumentKind::ContactList), None, "there was no edit");

    let first = commit_one(&store, &east, 3, list(2, 1, 7)).expect("is committed");
    commit_one(&store, &east, 3, list(3, 1, 8)).expect("is committed");
    commit_one(&store, &east, 3, disturb(4, 1, true)).expect("is committed");
    let store = factory.reopen(store);

    assert_eq!((first.version, first.is_repeated), (2, false));
    assert_eq!(contacts(&store, &east, 1), [user(7), user(8)]);
    let found = store.document(&east, &user(1), DocumentKind::ContactList).expect("can be read");
    let StoredDocument { journal, aor, version, epoch, changed_at, .. } = found.expect("is there");
    assert_eq!((journal, aor, version), (east.clone(), user(1), 3));
    assert_eq!((epoch, changed_at), (Epoch::new(3), WallTime::from_secs(3)));
    let kinds: Vec<_> = store
        .documents(&east, &user(1))
        .expect("can be read")
        .into_iter()
        .map(|found| found.document.kind())
        .collect();
    assert_eq!(kinds, [DocumentKind::ContactList, DocumentKind::Settings]);
    assert_eq!(document(&store, &pool("west"), 1, DocumentKind::Settings), None);
    store.check().expect("nothing is damaged");
}

fn documents_need_an_account_and_leave_with_it(factory: &impl UserFactory) {
    let (store, copy) = (factory.create(), factory.create());
    let east = pool("east");
    let early = commit_one(&store, &east, 0, disturb(1, 1, true));
    let batch = [put(2, 1), disturb(3, 1, true), list(4, 1, 7), missed(5, 1, 50)];
    store.commit(&east, Epoch::ZERO, &batch).expect("the account comes first");
    pull(&store, &copy, &east, &Scope::Everything);

    let removed = commit_one(&store, &east, 0, remove(6, 1)).expect("is removed");
    let late = commit_one(&store, &east, 0, list(7, 1, 8));
    pull(&store, &copy, &east, &Scope::Everything);

    assert!(matches!(&early, Err(CommitError::Missing { aor, .. }) if *aor == user(1)), "{early:?}");
    assert!(matches!(late, Err(CommitError::Missing { .. })), "{late:?}");
    assert_eq!(removed.version, 5);
    for store in [&store, &copy] {
        assert_eq!(store.documents(&east, &user(1)).expect("can be read"), []);
        assert_eq!(store.read(&user(1)).expect("can be read"), None);
        assert_eq!(store.cursor(&east, &Scope::Everything).expect("can be read").sequence, 8);
    }
    let again = commit_one(&store, &east, 0, remove(6, 1)).expect("a repeated operation is no error");
    assert_eq!((again.version, again.is_repeated), (5, true));
    commit_one(&store, &east, 0, put(8, 1)).expect("the user comes back");
    assert_eq!(contacts(&store, &east, 1), [], "with nothing of before");
}

fn an_edit_is_executed_once(factory: &impl UserFactory) {
    let store = factory.create();
    let east = pool("east");
    commit_one(&store, &east, 0, put(1, 1)).expect("is committed");
    let first = commit_one(&store, &east, 0, list(2, 1, 7)).expect("is committed");
    commit_one(&store, &east, 0, unlist(3, 1, 7)).expect("is committed");

    let store = factory.reopen(store);
    let again = commit_one(&store, &east, 0, list(2, 1, 7)).expect("a repeated operation is no error");
    let other_kind = commit_one(&store, &east, 0, disturb(2, 1, true));
    let other_user = commit_one(&store, &east, 0, put(2, 9));

    assert_eq!((again.version, again.is_repeated), (first.version, true));
    assert_eq!(contacts(&store, &east, 1), [], "the repetition changed nothing");
    assert!(matches!(other_kind, Err(CommitError::OperationReused { .. })), "{other_kind:?}");
    assert!(matches!(other_user, Err(CommitError::OperationReused { .. })), "{other_user:?}");
}

fn conditions_are_of_the_one_document(factory: &impl UserFactory) {
    let store = factory.create();
    let east = pool("east");
    let with = |change, condition| Change { condition, ..change };
    commit_one(&store, &east, 0, put(1, 1)).expect("is committed");

    let none = commit_one(&store, &east, 0, with(disturb(2, 1, true), Condition::Version(1)));
    commit_one(&store, &east, 0, with(disturb(3, 1, true), Condition::Absent)).expect("there is none");
    let exists = commit_one(&store, &east, 0, with(disturb(4, 1, true), Condition::Absent));
    let changed = commit_one(&store, &east, 0, with(disturb(5, 1, true), Condition::Version(1)));
    commit_one(&store, &east, 0, list(6, 1, 7)).expect("is committed");
    commit_one(&store, &east, 0, with(disturb(7, 1, false), Condition::Version(2)))
        .expect("another document's change does not count");

    let settings = Subject::Document(DocumentKind::Settings);
    assert!(matches!(none, Err(CommitError::Changed { expected: 1, found: 0, .. })), "{none:?}");
    assert!(matches!(&exists, Err(CommitError::Exists { subject, .. }) if *subject == settings));
    assert!(matches!(changed, Err(CommitError::Changed { expected: 1, found: 2, .. })), "{changed:?}");
    assert!(!is_quiet(&store, &east, 1));
}

fn a_refused_edit_keeps_its_whole_batch_out(factory: &impl UserFactory) {
    let store = factory.create();
    let east = pool("east");
    commit_one(&store, &east, 0, put(1, 1)).expect("is committed");
    let to = Destination::new("sip:9@example.com").expect("the text is a destination");
    let forwarding = Forwarding { no_answer: Some(NoAnswer { to, after_s: 9_999 }), ..Forwarding::default() };
    let wrong = Edit::Settings(UserSettings { forwarding, ..UserSettings::default() });

    let refused = store.commit(&east, Epoch::ZERO, &[list(2, 1, 7), edit(3, 1, wrong)]);

    assert!(matches!(&refused, Err(CommitError::Edit { aor, .. }) if *aor == user(1)), "{refused:?}");
    assert_eq!(contacts(&store, &east, 1), []);
    let next = commit_one(&store, &east, 0, list(2, 1, 7)).expect("is committed");
    assert_eq!((next.version, next.is_repeated), (2, false), "no number is lost");
}

fn a_call_record_that_tells_nothing_new_takes_no_number(factory: &impl UserFactory) {
    let store = factory.create();
    let east = pool("east");
    commit_one(&store, &east, 0, put(1, 1)).expect("is committed");
    let first = commit_one(&store, &east, 0, missed(2, 1, 50)).expect("is committed");

    let same = commit_one(&store, &east, 0, missed(3, 1, 50)).expect("is no error");
    let other = commit_one(&store, &east, 0, missed(4, 1, 51)).expect("is committed");

    assert_eq!((first.version, first.is_repeated), (2, false));
    assert_eq!((same.version, same.is_repeated), (2, true), "it is known from another operation");
    assert_eq!((other.version, other.is_repeated), (3, false));
    assert_eq!(calls(&store, &east, 1), [50, 51]);
}

fn a_branch_keeps_call_records_of_users_whose_accounts_are_elsewhere(factory: &impl UserFactory) {
    let (owner, branch) = (factory.create(), factory.create());
    let (east, hill) = (pool("east"), pool("hill"));
    commit_one(&owner, &east, 0, put_at("hill", 1, 1)).expect("is committed");
    pull(&owner, &branch, &east, &Scope::Branch(hill.clone()));

    commit_one(&branch, &hill, 0, missed(2, 1, 50)).expect("the user is known here");
    let stranger = commit_one(&branch, &hill, 0, missed(3, 2, 51));
    let settings = commit_one(&branch, &hill, 0, disturb(4, 1, true));
    let not_owned = commit_one(&branch, &east, 9, disturb(5, 1, true));
    let page = branch.journal(&Cursor::start(hill.clone()), 9, &Scope::Everything).expect("is read");
    for entry in page.entries() {
        let crate::EntryState::Document(Document::CallLog(log)) = &entry.state else { continue };
        for record in log.records() {
            let record = edit(6, 1, Edit::CallRecord(record.clone()));
            commit_one(&owner, &east, 0, record).expect("is committed");
        }
    }
    owner.apply(&hill, &page).expect("the cursor moves last");

    assert!(matches!(stranger, Err(CommitError::Missing { .. })), "{stranger:?}");
    assert!(matches!(settings, Err(CommitError::Missing { .. })), "{settings:?}");
    assert!(matches!(not_owned, Err(CommitError::HoldsLess { .. })), "{not_owned:?}");
    assert_eq!(calls(&branch, &hill, 1), [50]);
    assert_eq!((calls(&owner, &east, 1), calls(&owner, &hill, 1)), (vec![50], vec![50]));
    assert_eq!(owner.cursor(&hill, &Scope::Everything).expect("can be read").sequence, 1);
}

fn documents_are_listed_in_order_by_pages(factory: &impl UserFactory) {
    let store = factory.create();
    let east = pool("east");
    for number in [4, 2, 1, 3] {
        let batch = [put(number, number), disturb(number + 10, number, true)];
        store.commit(&east, Epoch::ZERO, &batch).expect("is committed");
    }
    commit_one(&store, &east, 0, remove(20, 2)).expect("is removed");

    let first = store.list_documents(&east, DocumentKind::Settings, None, 2).expect("can be listed");
    let after = first.last().map(|found| found.aor.clone());
    let rest = store.list_documents(&east, DocumentKind::Settings, after.as_ref(), 9).expect("can be listed");

    let users: Vec<_> = first.iter().chain(&rest).map(|found| found.aor.clone()).collect();
    assert_eq!(first.len(), 2);
    assert_eq!(users, [user(1), user(3), user(4)]);
    assert_eq!(store.list_documents(&east, DocumentKind::CallLog, None, 9).expect("is empty"), []);
}

fn a_follower_hears_of_what_routing_needs_and_of_every_change(factory: &impl UserFactory) {
    let store = factory.create();
    let east = pool("east");
    let batch = [put(1, 1), disturb(2, 1, true), list(3, 1, 7)];
    store.commit(&east, Epoch::ZERO, &batch).expect("is committed");
    type Heard = Vec<(u64, Vec<DocumentState>)>;
    let heard: Arc<Mutex<Heard>> = Arc::default();
    let kept = Arc::clone(&heard);
    store
        .follow(Box::new(move |changes| {
            let news = (changes.sequence, changes.documents.to_vec());
            kept.lock().expect("no test panics here").push(news);
        }))
        .expect("a store can be followed");

    commit_one(&store, &east, 0, list(4, 1, 8)).expect("is committed");
    store
        .commit(&east, Epoch::ZERO, &[allow(5, 1, true), disturb(6, 1, false), disturb(7, 1, true)])
        .expect("is committed");
    store.fence(&east, Epoch::new(1)).expect("is fenced");
    commit_one(&store, &east, 1, remove(8, 1)).expect("is removed");

    let kind = |state: &DocumentState| match state {
        DocumentState::Present(found) => (found.document.kind(), found.version),
        DocumentState::Removed { kind, .. } => (*kind, 0),
    };
    let heard = heard.lock().expect("no test panics here");
    let heard: Vec<(u64, Vec<_>)> =
        heard.iter().map(|(number, states)| (*number, states.iter().map(kind).collect())).collect();
    let (settings, policy) = (DocumentKind::Settings, DocumentKind::VoicePolicy);
    let expected = [
        (3, vec![(settings, 2)]),
        (4, vec![]),
        (7, vec![(policy, 5), (settings, 7)]),
        (11, vec![(settings, 0), (policy, 0)]),
    ];
    assert_eq!(heard, expected);
}

fn a_change_of_home_states_again_what_a_branch_needs(factory: &impl UserFactory) {
    let store = factory.create();
    let east = pool("east");
    let batch = [put(1, 1), disturb(2, 1, true), list(3, 1, 7), allow(4, 1, true)];
    store.commit(&east, Epoch::ZERO, &batch).expect("is committed");

    let moved = commit_one(&store, &east, 0, put_at("hill", 5, 1)).expect("is moved");
    let stayed = commit_one(&store, &east, 0, put_at("hill", 6, 1)).expect("is committed");

    assert_eq!((moved.version, stayed.version), (5, 8));
    let versions: Vec<_> = store
        .documents(&east, &user(1))
        .expect("can be read")
        .iter()
        .map(|found| (found.document.kind(), found.version, found.changed_at))
        .collect();
    let at = WallTime::from_secs;
    let expected = [
        (DocumentKind::ContactList, 3, at(3)),
        (DocumentKind::Settings, 6, at(2)),
        (DocumentKind::VoicePolicy, 7, at(4)),
    ];
    assert_eq!(versions, expected, "stated again, not changed");
    assert_eq!(store.list(&pool("hill"), None, 9).expect("can be listed").len(), 1);
    assert_eq!(store.list(&east, None, 9).expect("can be listed"), []);
}

fn what_a_reader_does_not_have_is_counted_and_dated(factory: &impl UserFactory) {
    let store = factory.create();
    let east = pool("east");
    let at = |sequence| Cursor { sequence, ..Cursor::start(east.clone()) };
    assert_eq!(store.lag(&at(0)).expect("can be read"), Lag { changes: 0, oldest: None });
    commit_one(&store, &east, 0, put(10, 1)).expect("is committed");
    for number in 11..20 {
        commit_one(&store, &east, 0, disturb(number, 1, true)).expect("is committed");
    }

    let lag = |sequence| store.lag(&at(sequence)).expect("can be read");

    assert_eq!(lag(0), Lag { changes: 10, oldest: Some(WallTime::from_secs(10)) });
    assert_eq!(lag(4), Lag { changes: 6, oldest: Some(WallTime::from_secs(14)) }, "replaced ones count");
    assert_eq!(lag(10), Lag { changes: 0, oldest: None });
    assert_eq!(lag(99), Lag { changes: 0, oldest: None });
}
