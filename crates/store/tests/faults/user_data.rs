//! SIGKILL and a full disk while documents are committed, pages applied, orphans adopted.

use std::{fs, path::Path};

use model::{
    AddressOfRecord, Chance, Epoch, PoolName, WallTime,
    documents::{
        CallId, CallRecord, CallResult, ContactListEdit, Direction, Document, DocumentKind, Edit,
        ListedContact,
    },
};
use store::{
    Adoption, ApplyError, Change, CommitError, Condition, Credentials, Cursor, JournalError, OperationId,
    Scope, SqliteUserStore, StoreError, StoredDocument, UserStore, Write, chain,
};
use tempfile::TempDir;

use crate::crash::{killed_child, print_acknowledged};

const ROUNDS: u64 = 6;
const USERS: u64 = 40;
const NOW: WallTime = WallTime::from_secs(1_800_000_000);
const ALL: Scope = Scope::Everything;

fn east() -> PoolName {
    PoolName::new("east").unwrap()
}

fn aor(name: &str, number: u64) -> AddressOfRecord {
    AddressOfRecord::new(&format!("sip:{name}{number}@example.com")).unwrap()
}

fn change(operation: u64, user: u64, write: Write) -> Change {
    let operation = OperationId::new(operation.into());
    Change { operation, aor: aor("u", user), changed_at: NOW, condition: Condition::Any, write }
}

fn account(operation: u64, user: u64) -> Change {
    let credentials = Credentials { ha1_md5: [7; 16], ha1_sha256: [9; 32] };
    change(operation, user, Write::PutAccount { home: east(), credentials, algorithms: None })
}

fn contact(operation: u64, user: u64) -> Change {
    let put = ContactListEdit::Put { contact: aor("c", operation), listed: ListedContact::default() };
    change(operation, user, Write::Edit(Edit::ContactList(put)))
}

fn call(operation: u64, user: u64) -> Change {
    let record = CallRecord {
        call: CallId(operation),
        direction: Direction::Made,
        other: "sip:x@example.com".to_owned(),
        began_at: NOW,
        answered_at: None,
        ended_at: None,
        result: CallResult::Cancelled,
    };
    change(operation, user, Write::Edit(Edit::CallRecord(record)))
}

/// Numbers of operations for the accounts, which no child uses.
fn accounts() -> Vec<Change> {
    (0..USERS).map(|user| account(user, user)).collect()
}

/// A store with accounts and so many contacts, numbered from `first`.
fn filled(file: &Path, first: u64, count: u64) -> SqliteUserStore {
    let store = SqliteUserStore::open(file).unwrap();
    store.commit(&east(), Epoch::ZERO, &accounts()).unwrap();
    fill(&store, 0, first, count);
    store
}

fn fill(store: &SqliteUserStore, epoch: u64, first: u64, count: u64) {
    let edits: Vec<_> = (first..first + count).map(|number| contact(number, number % USERS)).collect();
    store.commit(&east(), Epoch::new(epoch), &edits).unwrap();
}

fn documents(store: &SqliteUserStore) -> Vec<StoredDocument> {
    let of_kind = |kind| store.list_documents(&east(), kind, None, usize::MAX).unwrap();
    DocumentKind::ALL.into_iter().flat_map(of_kind).collect()
}

fn has_contact(store: &SqliteUserStore, number: u64) -> bool {
    let found = store.document(&east(), &aor("u", number % USERS), DocumentKind::ContactList).unwrap();
    match found.map(|found| found.document) {
        Some(Document::ContactList(list)) => list.contacts().any(|(contact, _)| *contact == aor("c", number)),
        Some(_) | None => false,
    }
}

/// Applies a page of at most so many changes; whether it was the last.
fn pull(owner: &SqliteUserStore, copy: &SqliteUserStore, max: usize) -> bool {
    let cursor = copy.cursor(&east(), &ALL).unwrap();
    let page = owner.journal(&cursor, max, &ALL).unwrap();
    copy.apply(&east(), &page).unwrap();
    page.is_end()
}

#[test]
fn committed_documents_survive_sigkill() {
    if let Some((place, start)) = crate::support::child() {
        let store = SqliteUserStore::open(&place.join("users.db")).unwrap();
        for number in start.. {
            let user = number % USERS;
            let batch = [contact(2 * number, user), call(2 * number + 1, user)];
            store.commit(&east(), Epoch::ZERO, &batch).unwrap();
            print_acknowledged(number);
        }
    }
    let place = TempDir::new().unwrap();
    let file = place.path().join("users.db");
    drop(filled(&file, 100, 1));
    let mut chance = Chance::seeded(21);
    for round in 0..ROUNDS {
        let test = "user_data::committed_documents_survive_sigkill";
        let acknowledged = killed_child(test, place.path(), round, chance.below(300));

        let store = SqliteUserStore::open(&file).unwrap();

        for number in acknowledged {
            let user = number % USERS;
            let batch = [contact(2 * number, user), call(2 * number + 1, user)];
            let repeated = store.commit(&east(), Epoch::ZERO, &batch).unwrap();
            assert!(repeated.iter().all(|done| done.is_repeated), "round {round}: {number} is lost");
        }
        store.check().unwrap();
        let end = store.cursor(&east(), &ALL).unwrap();
        assert_eq!((end.sequence - USERS - 1) % 2, 0, "a batch is there as a whole or not at all");
        assert_eq!(store.whole(&east()).unwrap(), end);
    }
}

#[test]
fn a_copy_goes_on_after_sigkill_while_pages_are_applied_or_purged() {
    const CONTACTS: u64 = 600;
    if let Some((place, _)) = crate::support::child() {
        let owner = SqliteUserStore::open(&place.join("owner.db")).unwrap();
        let copy = SqliteUserStore::open(&place.join("copy.db")).unwrap();
        loop {
            while !pull(&owner, &copy, 7) {
                print_acknowledged(copy.cursor(&east(), &ALL).unwrap().sequence);
            }
            copy.purge(&east(), &PoolName::new("west").unwrap()).unwrap();
            print_acknowledged(0);
        }
    }
    let place = TempDir::new().unwrap();
    drop(filled(&place.path().join("owner.db"), 1_000, CONTACTS));
    let mut chance = Chance::seeded(22);
    for round in 0..ROUNDS {
        let test = "user_data::a_copy_goes_on_after_sigkill_while_pages_are_applied_or_purged";
        let acknowledged = killed_child(test, place.path(), round, chance.below(120));

        let owner = SqliteUserStore::open(&place.path().join("owner.db")).unwrap();
        let copy = SqliteUserStore::open(&place.path().join("copy.db")).unwrap();

        copy.check().unwrap();
        let held = copy.cursor(&east(), &ALL).unwrap().sequence;
        let last = acknowledged.last().copied().unwrap();
        // The page or the purge after it may be on disk although nobody was told.
        assert!(held >= last || held == 0, "round {round}: {held} is held, {last} was acknowledged");
        while !pull(&owner, &copy, 50) {}
        assert_eq!(documents(&copy), documents(&owner), "round {round}");
    }
}

/// The last change that both have.
fn common(returning: &SqliteUserStore, owner: &SqliteUserStore) -> Cursor {
    let mut cursor = returning.cursor(&east(), &ALL).unwrap();
    loop {
        match owner.journal(&cursor, 1, &ALL) {
            Ok(_) => return cursor,
            Err(JournalError::Ahead { common, .. } | JournalError::Diverged { common, .. }) => {
                let ours = returning.common(&common).unwrap();
                if ours == common {
                    return ours;
                }
                cursor = ours;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The whole way back, a few orphans at a time; tells after each step.
fn come_back(returning: &SqliteUserStore, owner: &SqliteUserStore, mut each: impl FnMut()) {
    let common = common(returning, owner);
    let mut after = common.sequence;
    loop {
        let page = returning.orphans(&common, after, 5).unwrap();
        owner.adopt(Epoch::new(2), NOW, &page).unwrap();
        each();
        after = page.next();
        if page.is_end() {
            break;
        }
    }
    returning.rewind(&common, after).unwrap();
    each();
    while !pull(owner, returning, 5) {
        each();
    }
}

#[test]
fn orphans_come_back_after_sigkill_at_any_step() {
    const ORPHANS: u64 = 200;
    if let Some((place, _)) = crate::support::child() {
        let returning = SqliteUserStore::open(&place.join("returning.db")).unwrap();
        let owner = SqliteUserStore::open(&place.join("owner.db")).unwrap();
        let mut steps = 0;
        come_back(&returning, &owner, || {
            steps += 1;
            print_acknowledged(steps);
        });
        loop {
            print_acknowledged(steps);
        }
    }
    let mut chance = Chance::seeded(23);
    for round in 0..2 * ROUNDS {
        let place = TempDir::new().unwrap();
        let paths = ["returning.db", "owner.db"].map(|name| place.path().join(name));
        {
            let returning = filled(&paths[0], 1_000, 100);
            let owner = SqliteUserStore::open(&paths[1]).unwrap();
            while !pull(&returning, &owner, 2_000) {}
            fill(&returning, 1, 2_000, ORPHANS);
            fill(&owner, 2, 3_000, 100);
        }
        let test = "user_data::orphans_come_back_after_sigkill_at_any_step";
        let acknowledged = killed_child(test, place.path(), round, chance.below(70));

        let [returning, owner] = paths.map(|file| SqliteUserStore::open(&file).unwrap());

        returning.check().unwrap();
        owner.check().unwrap();
        let adopted = acknowledged.len().min(ORPHANS as usize / 5) as u64 * 5;
        for number in 2_000..2_000 + adopted {
            assert!(has_contact(&owner, number), "round {round}: {number} was adopted and is lost");
        }
        come_back(&returning, &owner, || {});
        for number in (1_000..1_100).chain(2_000..2_000 + ORPHANS).chain(3_000..3_100) {
            assert!(has_contact(&owner, number), "round {round}: {number} is lost");
        }
        assert_eq!(documents(&returning), documents(&owner), "round {round}");
    }
}

#[test]
fn documents_on_a_full_disk() {
    let Some(place) = crate::full_disk::on_small_disk("user_data::documents_on_a_full_disk") else { return };
    let file = place.join("users.db");
    let store = filled(&file, 100, 1);
    let batch = |number: u64| -> Vec<Change> {
        let first = 1_000 + number * 100;
        (first..first + 100).map(|number| contact(number, number % USERS)).collect()
    };
    let mut batches = 0;
    let refused = loop {
        match store.commit(&east(), Epoch::ZERO, &batch(batches)) {
            Ok(_) => batches += 1,
            Err(error) => break error,
        }
    };

    assert!(batches > 10);
    let (CommitError::Unknown(cause) | CommitError::Store(cause)) = &refused else { panic!("{refused:?}") };
    assert!(matches!(cause, StoreError::Full { .. }), "{}", chain(cause));
    assert!(has_contact(&store, 1_000), "reading goes on");
    fs::remove_file(place.join("ballast")).unwrap();
    store.commit(&east(), Epoch::ZERO, &batch(batches)).expect("the same is committed when there is space");
    drop(store);
    let store = SqliteUserStore::open(&file).unwrap();
    store.check().unwrap();
    for number in 1_000..1_000 + (batches + 1) * 100 {
        assert!(has_contact(&store, number), "{number} is lost");
    }
}

#[test]
fn a_copy_on_a_full_disk_waits_and_goes_on() {
    let Some(place) = crate::full_disk::on_small_disk("user_data::a_copy_on_a_full_disk_waits_and_goes_on")
    else {
        return;
    };
    let elsewhere = TempDir::new().unwrap();
    let owner = filled(&elsewhere.path().join("owner.db"), 1_000, 2_000);
    for part in 1..3 {
        fill(&owner, 0, 1_000 + part * 2_000, 2_000);
    }
    let copy = SqliteUserStore::open(&place.join("copy.db")).unwrap();
    let mut filler = Vec::new();
    let refused = loop {
        let cursor = copy.cursor(&east(), &ALL).unwrap();
        let page = owner.journal(&cursor, 4, &ALL).unwrap();
        match copy.apply(&east(), &page) {
            Ok(_) => assert!(!page.is_end(), "the disk is too large for this test"),
            Err(error) => break error,
        }
        filler.extend([7; 1_048_576]);
        let _full_sooner_or_later = fs::write(place.join("filler"), &filler);
    };

    let (ApplyError::Unknown(cause) | ApplyError::Store(cause)) = &refused else { panic!("{refused:?}") };
    assert!(matches!(cause, StoreError::Full { .. }), "{}", chain(cause));
    let held = copy.cursor(&east(), &ALL).unwrap();
    assert!(held.sequence > 0 && copy.read(&aor("u", 0)).unwrap().is_some(), "what is there can be read");
    assert_eq!(
        owner.lag(&held).unwrap().changes,
        owner.cursor(&east(), &ALL).unwrap().sequence - held.sequence
    );
    fs::remove_file(place.join("ballast")).unwrap();
    fs::remove_file(place.join("filler")).unwrap();
    while !pull(&owner, &copy, 4) {}
    assert_eq!(documents(&copy), documents(&owner));
    copy.check().unwrap();
}

#[test]
fn an_offer_of_orphans_repeated_after_a_crash_is_known() {
    let place = TempDir::new().unwrap();
    let returning = filled(&place.path().join("returning.db"), 1_000, 10);
    let owner = SqliteUserStore::open(&place.path().join("owner.db")).unwrap();
    while !pull(&returning, &owner, 2_000) {}
    fill(&returning, 1, 2_000, 10);
    owner.fence(&east(), Epoch::new(2)).unwrap();
    let common = common(&returning, &owner);
    let page = returning.orphans(&common, common.sequence, 99).unwrap();
    owner.adopt(Epoch::new(2), NOW, &page).unwrap();
    drop(owner);

    let owner = SqliteUserStore::open(&place.path().join("owner.db")).unwrap();
    let again = owner.adopt(Epoch::new(2), NOW, &page).unwrap();

    assert!(again.iter().all(|adopted| adopted.outcome == Adoption::Known), "{again:?}");
}

#[test]
fn a_purged_journal_leaves_no_secrets_in_the_files() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("users.db");
    let store = filled(&file, 1_000, 400);
    let holds = |needle: &[u8]| {
        ["users.db", "users.db-wal"].iter().any(|name| {
            let octets = fs::read(place.path().join(name)).unwrap();
            octets.windows(needle.len()).any(|window| window == needle)
        })
    };
    let (secret, contact) = ([9_u8; 32], b"sip:c1001@example.com");
    assert!(holds(&secret) && holds(contact), "the test looks for what was there");

    store.purge(&east(), &PoolName::new("west").unwrap()).unwrap();

    assert!(!holds(&secret) && !holds(contact));
    store.check().unwrap();
}
