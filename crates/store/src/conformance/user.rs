//! The suite of [`UserStore`].

#![expect(clippy::panic, reason = "a suite panics where an implementation differs")]

mod commit;
mod conflicts;
mod documents;
mod journal;
mod moves;
mod orphans;
mod scopes;

use std::collections::BTreeMap;

use model::{
    AddressOfRecord, Epoch, PoolName, WallTime,
    documents::{
        CallId, CallRecord, CallResult, ContactListEdit, Direction, Document, DocumentKind, Edit,
        ListedContact, UserSettings, VoicePolicy,
    },
};

use crate::{
    Account, Change, CommitError, Committed, Condition, Conflict, Credentials, OperationId, Page, Scope,
    StoredDocument, UserStore, Write,
};

/// Opens the store under test.
pub trait UserFactory {
    /// The implementation.
    type Store: UserStore;

    /// A store that holds nothing.
    fn create(&self) -> Self::Store;

    /// The same store again, after `store` was closed.
    fn reopen(&self, store: Self::Store) -> Self::Store;
}

/// Runs every check on fresh stores.
pub fn user_store(factory: &impl UserFactory) {
    commit::run(factory);
    documents::run(factory);
    journal::run(factory);
    scopes::run(factory);
    orphans::run(factory);
    conflicts::run(factory);
    moves::run(factory);
}

fn pool(name: &str) -> PoolName {
    PoolName::new(name).expect("the name is a label")
}

fn user(number: u64) -> AddressOfRecord {
    AddressOfRecord::new(&format!("sip:u{number:07}@example.com")).expect("the text is an address-of-record")
}

fn secret(seed: u64) -> Credentials {
    let octet = u8::try_from(seed % 251).unwrap_or(0);
    Credentials { ha1_md5: [octet; 16], ha1_sha256: [octet; 32] }
}

/// A change of user `number`, homed on `east`, under operation `operation`; the secret is that of the
/// operation.
fn put(operation: u64, number: u64) -> Change {
    Change {
        operation: OperationId::new(operation.into()),
        aor: user(number),
        changed_at: WallTime::from_secs(operation),
        condition: Condition::Any,
        write: Write::PutAccount { home: pool("east"), credentials: secret(operation), algorithms: None },
    }
}

/// As [`put`], homed on `home`.
fn put_at(home: &str, operation: u64, number: u64) -> Change {
    let write = Write::PutAccount { home: pool(home), credentials: secret(operation), algorithms: None };
    Change { write, ..put(operation, number) }
}

fn remove(operation: u64, number: u64) -> Change {
    Change { write: Write::RemoveAccount, ..put(operation, number) }
}

fn commit_one(
    store: &impl UserStore,
    home: &PoolName,
    epoch: u64,
    change: Change,
) -> Result<Committed, CommitError> {
    let committed = store.commit(home, Epoch::new(epoch), &[change])?;
    assert_eq!(committed.len(), 1, "one answer for each change");
    Ok(committed.into_iter().next().expect("one answer for each change"))
}

/// An edit of a document of user `number`.
fn edit(operation: u64, number: u64, edit: Edit) -> Change {
    Change { write: Write::Edit(edit), ..put(operation, number) }
}

/// Contact `contact` is in the list of user `number`.
fn list(operation: u64, number: u64, contact: u64) -> Change {
    let put = ContactListEdit::Put { contact: user(contact), listed: ListedContact::default() };
    edit(operation, number, Edit::ContactList(put))
}

/// Contact `contact` is not in the list of user `number`.
fn unlist(operation: u64, number: u64, contact: u64) -> Change {
    edit(operation, number, Edit::ContactList(ContactListEdit::Remove { contact: user(contact) }))
}

/// User `number` wants to be disturbed or not.
fn disturb(operation: u64, number: u64, do_not_disturb: bool) -> Change {
    let settings = UserSettings { do_not_disturb, ..UserSettings::default() };
    edit(operation, number, Edit::Settings(settings))
}

/// The voice policy of user `number`.
fn allow(operation: u64, number: u64, no_forwarding_outside: bool) -> Change {
    let policy = VoicePolicy { no_forwarding_outside, ..VoicePolicy::default() };
    edit(operation, number, Edit::VoicePolicy(policy))
}

/// User `number` missed call `call`.
fn missed(operation: u64, number: u64, call: u64) -> Change {
    let record = CallRecord {
        call: CallId(call),
        direction: Direction::Received,
        other: user(call).to_string(),
        began_at: WallTime::from_secs(call),
        answered_at: None,
        ended_at: None,
        result: CallResult::Missed,
    };
    edit(operation, number, Edit::CallRecord(record))
}

fn document(store: &impl UserStore, journal: &PoolName, number: u64, kind: DocumentKind) -> Option<Document> {
    let found = store.document(journal, &user(number), kind).expect("can be read");
    found.map(|found| found.document)
}

/// The contacts of user `number`.
fn contacts(store: &impl UserStore, journal: &PoolName, number: u64) -> Vec<AddressOfRecord> {
    match document(store, journal, number, DocumentKind::ContactList) {
        Some(Document::ContactList(list)) => list.contacts().map(|(contact, _)| contact.clone()).collect(),
        Some(other) => panic!("{other:?} is no contact list"),
        None => Vec::new(),
    }
}

/// The calls of user `number`.
fn calls(store: &impl UserStore, journal: &PoolName, number: u64) -> Vec<u64> {
    match document(store, journal, number, DocumentKind::CallLog) {
        Some(Document::CallLog(log)) => log.records().iter().map(|record| record.call.0).collect(),
        Some(other) => panic!("{other:?} is no call log"),
        None => Vec::new(),
    }
}

/// Whether user `number` does not want to be disturbed.
fn is_quiet(store: &impl UserStore, journal: &PoolName, number: u64) -> bool {
    match document(store, journal, number, DocumentKind::Settings) {
        Some(Document::Settings(settings)) => settings.do_not_disturb,
        Some(other) => panic!("{other:?} is no settings document"),
        None => false,
    }
}

/// Everything of a journal, to compare two stores.
#[derive(Debug, PartialEq)]
struct Content {
    accounts: BTreeMap<AddressOfRecord, Account>,
    documents: Vec<StoredDocument>,
    conflicts: Vec<Conflict>,
}

fn content(store: &impl UserStore, journal: &PoolName) -> Content {
    let mut accounts = BTreeMap::new();
    let keep = &mut |account: Account| {
        if account.journal == *journal {
            accounts.insert(account.aor.clone(), account);
        }
    };
    store.load_all(keep).expect("can be loaded");
    let of_kind = |kind| store.list_documents(journal, kind, None, usize::MAX).expect("can be listed");
    let documents = DocumentKind::ALL.into_iter().flat_map(of_kind).collect();
    let conflicts = store.conflicts(journal, None, usize::MAX).expect("can be listed");
    Content { accounts, documents, conflicts }
}

/// Pulls everything there is, a few at a time.
fn pull(from: &impl UserStore, to: &impl UserStore, journal: &PoolName, scope: &Scope) {
    loop {
        let cursor = to.cursor(journal, scope).expect("a cursor can be read");
        let page = from.journal(&cursor, 3, scope).expect("a page can be read");
        let page = Page::decode(&page.encode()).expect("a page survives the wire");
        let next = to.apply(journal, &page).expect("a page can be applied");
        assert_eq!(next, page.next());
        assert_eq!(next, to.cursor(journal, scope).expect("a cursor can be read"));
        if page.is_end() {
            break;
        }
    }
}
