//! Random histories of two pools that lose, take over and come back: whatever was acknowledged is there in
//! the end, as data or as a conflict, and both hold the same.

#![allow(clippy::panic, reason = "a failed expectation ends the test")]

use std::collections::BTreeSet;

use model::{
    AddressOfRecord, Epoch, PoolName, WallTime,
    documents::{
        CallId, CallRecord, CallResult, ContactListEdit, Direction, Document, DocumentKind, Edit,
        ListedContact, UserSettings,
    },
};
use proptest::prelude::*;
use store::{
    Change, Condition, Credentials, Cursor, JournalError, OperationId, OrphanPage, OrphanedWrite, Scope,
    SqliteUserStore, StoredDocument, UserStore, Write,
};
use tempfile::TempDir;

const USERS: u8 = 4;
const ALL: Scope = Scope::Everything;

#[derive(Clone, Debug)]
enum Step {
    /// The owner commits a change of this user and this kind.
    Commit { user: u8, kind: u8 },
    /// The other pulls a page of so many.
    Pull(usize),
    /// The other becomes owner, whatever it holds.
    Takeover,
    /// The one that was owner before comes back, interrupted after so many pages.
    ComeBack { max: usize, pages: usize },
    /// Both are opened again.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..USERS, 0_u8..12).prop_map(|(user, kind)| Step::Commit { user, kind }),
        3 => (1_usize..6).prop_map(Step::Pull),
        1 => Just(Step::Takeover),
        2 => (1_usize..6, 0_usize..6).prop_map(|(max, pages)| Step::ComeBack { max, pages }),
        1 => Just(Step::Reopen),
    ]
}

fn aor(name: &str) -> AddressOfRecord {
    AddressOfRecord::new(&format!("sip:{name}@example.com")).expect("the text is an address-of-record")
}

/// A change; contacts and calls have the number of their operation, so that each can be looked for.
fn change(operation: u64, user: u8, kind: u8) -> Change {
    let octet = u8::try_from(operation % 251).unwrap_or(0);
    let record = CallRecord {
        call: CallId(operation),
        direction: Direction::Received,
        other: "sip:x@example.com".to_owned(),
        began_at: WallTime::from_secs(operation),
        answered_at: None,
        ended_at: None,
        result: CallResult::Missed,
    };
    let write = match kind {
        0 => Write::RemoveAccount,
        1 | 2 => Write::PutAccount {
            home: PoolName::new(if kind == 1 { "east" } else { "hill" }).expect("the name is a label"),
            credentials: Credentials { ha1_md5: [octet; 16], ha1_sha256: [octet; 32] },
            algorithms: None,
        },
        3 | 4 => {
            let settings =
                UserSettings { do_not_disturb: operation.is_multiple_of(2), ..UserSettings::default() };
            Write::Edit(Edit::Settings(settings))
        }
        5..=8 => Write::Edit(Edit::ContactList(ContactListEdit::Put {
            contact: aor(&format!("c{operation}")),
            listed: ListedContact::default(),
        })),
        _ => Write::Edit(Edit::CallRecord(record)),
    };
    Change {
        operation: OperationId::new(operation.into()),
        aor: aor(&format!("u{user}")),
        changed_at: WallTime::from_secs(operation),
        condition: Condition::Any,
        write,
    }
}

/// Two stores, one of which owns the journal.
struct Pair {
    place: TempDir,
    journal: PoolName,
    stores: [Option<SqliteUserStore>; 2],
    owner: usize,
    epoch: Epoch,
    operation: u64,
    /// Contacts and calls that were acknowledged, with their users; those of users who were ever removed are
    /// left out.
    acknowledged: BTreeSet<(u8, u64)>,
    removed: BTreeSet<u8>,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            place: TempDir::new().expect("a directory can be made"),
            journal: PoolName::new("east").expect("the name is a label"),
            stores: [None, None],
            owner: 0,
            epoch: Epoch::ZERO,
            operation: 0,
            acknowledged: BTreeSet::new(),
            removed: BTreeSet::new(),
        };
        pair.reopen();
        for user in 0..USERS {
            pair.commit(user, 1);
        }
        while !pair.pull(9) {}
        pair
    }

    fn reopen(&mut self) {
        for (number, store) in self.stores.iter_mut().enumerate() {
            drop(store.take());
            let file = self.place.path().join(format!("{number}.sqlite"));
            *store = Some(SqliteUserStore::open(&file).expect("can be opened"));
        }
    }

    fn store(&self, number: usize) -> &SqliteUserStore {
        self.stores.get(number % 2).and_then(Option::as_ref).expect("both are open")
    }

    fn owner(&self) -> &SqliteUserStore {
        self.store(self.owner)
    }

    fn other(&self) -> &SqliteUserStore {
        self.store(self.owner + 1)
    }

    fn commit(&mut self, user: u8, kind: u8) {
        self.operation += 1;
        let change = change(self.operation, user, kind);
        if self.owner().commit(&self.journal, self.epoch, &[change]).is_err() {
            return;
        }
        match kind {
            0 => drop(self.removed.insert(user)),
            5.. => drop(self.acknowledged.insert((user, self.operation))),
            _ => {}
        }
    }

    /// Whether the other holds all that the owner has.
    fn pull(&self, max: usize) -> bool {
        let cursor = self.other().cursor(&self.journal, &ALL).expect("can be read");
        let Ok(page) = self.owner().journal(&cursor, max, &ALL) else { return true };
        if let Err(error) = self.other().apply(&self.journal, &page) {
            panic!("{error}");
        }
        page.is_end()
    }

    fn take_over(&mut self) {
        self.owner = (self.owner + 1) % 2;
        self.epoch = self.epoch.next();
        self.owner().fence(&self.journal, self.epoch).expect("a higher epoch is accepted");
    }

    fn common(&self) -> Cursor {
        let mut cursor = self.other().cursor(&self.journal, &ALL).expect("can be read");
        loop {
            let offered = match self.owner().journal(&cursor, 1, &ALL) {
                Ok(_) => return cursor,
                Err(JournalError::Ahead { common, .. } | JournalError::Diverged { common, .. }) => common,
                Err(JournalError::Recopying { .. }) => {
                    // The owner became one halfway through its own copy: its first commit ends that.
                    let settle = change(9_000_000 + self.epoch.number(), 0, 1);
                    self.owner().commit(&self.journal, self.epoch, &[settle]).expect("is committed");
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let ours = self.other().common(&offered).expect("can be read");
            assert!(ours.sequence <= cursor.sequence, "it goes back only");
            if ours == offered {
                return ours;
            }
            cursor = ours;
        }
    }

    /// Comes back; gives up after `pages` pages of orphans. Whether it came through.
    fn come_back(&self, max: usize, pages: usize) -> bool {
        let common = self.common();
        let mut after = common.sequence;
        for _ in 0..pages {
            let page = self.other().orphans(&common, after, max).expect("can be read");
            let page = OrphanPage::decode(&page.encode()).expect("a page survives the wire");
            self.owner().adopt(self.epoch, WallTime::from_secs(1), &page).expect("is adopted");
            after = page.next();
            if page.is_end() {
                self.other().rewind(&common, after).expect("goes back");
                return true;
            }
        }
        false
    }

    fn documents(&self, store: &SqliteUserStore, kind: DocumentKind) -> Vec<StoredDocument> {
        store.list_documents(&self.journal, kind, None, usize::MAX).expect("can be listed")
    }

    /// Contacts and calls that are there, and those that wait in conflicts.
    fn kept(&self) -> BTreeSet<u64> {
        let mut kept = BTreeSet::new();
        let owner = self.owner();
        let mut keep = |document: &Document| match document {
            Document::ContactList(list) => {
                let names = list.contacts().filter_map(|(contact, _)| contact.user().strip_prefix('c'));
                kept.extend(names.filter_map(|number| number.parse::<u64>().ok()));
            }
            Document::CallLog(log) => kept.extend(log.records().iter().map(|record| record.call.0)),
            Document::Settings(_) | Document::VoicePolicy(_) => {}
        };
        for kind in [DocumentKind::ContactList, DocumentKind::CallLog] {
            self.documents(owner, kind).iter().for_each(|found| keep(&found.document));
        }
        for conflict in owner.conflicts(&self.journal, None, usize::MAX).expect("can be listed") {
            match &conflict.content.write {
                OrphanedWrite::Document(document) => keep(document),
                OrphanedWrite::Edit(edit) => {
                    let mut document = Document::empty(edit.kind());
                    document.apply(edit).expect("an empty document takes an edit");
                    keep(&document);
                }
                OrphanedWrite::Account { .. }
                | OrphanedWrite::AccountRemoved
                | OrphanedWrite::DocumentRemoved(_) => {}
            }
        }
        kept
    }

    fn accounts(&self, store: &SqliteUserStore) -> Vec<store::Account> {
        let mut all = Vec::new();
        store.load_all(&mut |account| all.push(account)).expect("can be loaded");
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost_and_both_hold_the_same(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in steps {
            match step {
                Step::Commit { user, kind } => pair.commit(user, kind),
                Step::Pull(max) => drop(pair.pull(max)),
                Step::Takeover => pair.take_over(),
                Step::ComeBack { max, pages } => drop(pair.come_back(max, pages)),
                Step::Reopen => pair.reopen(),
            }
        }
        prop_assert!(pair.come_back(3, usize::MAX));
        while !pair.pull(3) {}

        let (owner, other) = (pair.owner(), pair.other());
        prop_assert_eq!(pair.accounts(owner), pair.accounts(other));
        for kind in DocumentKind::ALL {
            prop_assert_eq!(pair.documents(owner, kind), pair.documents(other, kind));
        }
        let conflicts = |store: &SqliteUserStore| store.conflicts(&pair.journal, None, usize::MAX);
        prop_assert_eq!(conflicts(owner).expect("is listed"), conflicts(other).expect("is listed"));
        let kept = pair.kept();
        for (user, number) in &pair.acknowledged {
            prop_assert!(kept.contains(number) || pair.removed.contains(user), "{number} of u{user} is lost");
        }
        owner.check().expect("nothing is damaged");
        other.check().expect("nothing is damaged");
    }
}
