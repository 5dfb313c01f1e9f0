//! Random histories: a copy made of journal pages equals the original, whatever happened and however it was
//! pulled.

use std::collections::BTreeMap;

use model::{AddressOfRecord, Epoch, PoolName, WallTime};
use proptest::prelude::*;
use registrar::OperationId;
use store::{
    Account, Change, Condition, Credentials, DigestAlgorithm, Scope, SqliteUserStore, UserStore, Write,
};
use tempfile::TempDir;

#[derive(Clone, Debug)]
enum Step {
    /// Commit changes of these users; even numbers put, odd ones remove.
    Commit(Vec<(u8, u8)>),
    /// Send the last commit again.
    Repeat,
    /// A new owner.
    Fence,
    /// Pull one page of at most so many entries, sometimes twice.
    Pull { max: usize, is_repeated: bool },
    /// Close and open the copy.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => prop::collection::vec((0_u8..12, 0_u8..4), 1..5).prop_map(Step::Commit),
        1 => Just(Step::Repeat),
        1 => Just(Step::Fence),
        4 => (1_usize..5, any::<bool>()).prop_map(|(max, is_repeated)| Step::Pull { max, is_repeated }),
        1 => Just(Step::Reopen),
    ]
}

fn pool(name: &str) -> PoolName {
    PoolName::new(name).expect("the name is a label")
}

fn change(operation: u128, user: u8, kind: u8) -> Change {
    let octet = u8::try_from(operation % 251).unwrap_or(0);
    let credentials = Credentials { ha1_md5: [octet; 16], ha1_sha256: [octet; 32] };
    let algorithms = (kind == 2).then(|| vec![DigestAlgorithm::Sha256]);
    Change {
        operation: OperationId::new(operation),
        aor: AddressOfRecord::new(&format!("sip:u{user}@example.com"))
            .expect("the text is an address-of-record"),
        changed_at: WallTime::from_secs(u64::try_from(operation).unwrap_or(0)),
        condition: Condition::Any,
        write: if kind.is_multiple_of(2) {
            Write::PutAccount { home: pool("east"), credentials, algorithms }
        } else {
            Write::RemoveAccount
        },
    }
}

fn content(store: &SqliteUserStore) -> BTreeMap<AddressOfRecord, Account> {
    let mut all = BTreeMap::new();
    store.load_all(&mut |account| drop(all.insert(account.aor.clone(), account))).expect("can be loaded");
    all
}

fn pull(owner: &SqliteUserStore, copy: &SqliteUserStore, home: &PoolName, max: usize) -> bool {
    let cursor = copy.cursor(home, &Scope::Everything).expect("can be read");
    let page = owner.journal(&cursor, max, &Scope::Everything).expect("can be read");
    let held = copy.apply(home, &page).expect("can be applied");
    if held != page.next() {
        // Half a copy that a new owner interrupts goes back to where it was whole last.
        assert!(held.sequence < page.after().sequence, "{held:?} after {:?}", page.after());
        return false;
    }
    page.is_end()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_follows_any_history(steps in prop::collection::vec(step(), 1..40)) {
        let place = TempDir::new().expect("a directory can be made");
        let home = pool("east");
        let owner = SqliteUserStore::open(&place.path().join("owner.db")).expect("can be opened");
        let mut copy = SqliteUserStore::open(&place.path().join("copy.db")).expect("can be opened");
        let (mut operation, mut epoch) = (0, Epoch::ZERO);
        let mut committed: Vec<Change> = Vec::new();
        for step in steps {
            match step {
                Step::Commit(changes) => {
                    let changes: Vec<_> = changes
                        .into_iter()
                        .map(|(user, kind)| {
                            operation += 1;
                            change(operation, user, kind)
                        })
                        .collect();
                    let before = content(&owner);
                    match owner.commit(&home, epoch, &changes) {
                        Ok(_) => committed = changes,
                        Err(_) => prop_assert_eq!(content(&owner), before, "a refused batch changes nothing"),
                    }
                }
                Step::Repeat => {
                    let before = content(&owner);
                    let repeated = owner.commit(&home, epoch, &committed).expect("a repetition is no error");
                    prop_assert!(repeated.iter().all(|committed| committed.is_repeated));
                    prop_assert_eq!(content(&owner), before);
                }
                Step::Fence => {
                    epoch = epoch.next();
                    owner.fence(&home, epoch).expect("a higher epoch is accepted");
                }
                Step::Pull { max, is_repeated } => {
                    pull(&owner, &copy, &home, max);
                    if is_repeated {
                        pull(&owner, &copy, &home, max);
                    }
                }
                Step::Reopen => {
                    drop(copy);
                    copy = SqliteUserStore::open(&place.path().join("copy.db")).expect("can be opened");
                }
            }
        }
        while !pull(&owner, &copy, &home, 3) {}

        prop_assert_eq!(content(&copy), content(&owner));
        let next = change(operation + 1, 99, 0);
        let ours = owner.commit(&home, epoch, std::slice::from_ref(&next)).expect("is committed");
        let theirs = copy.commit(&home, epoch, &[next]).expect("is committed");
        prop_assert_eq!(ours, theirs, "the copy goes on with the same number");
    }
}
