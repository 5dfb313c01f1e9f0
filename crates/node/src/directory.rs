//! Who is homed where, and what proves a password: the accounts of this server's store, in memory.

use std::{
    hash::{Hash, Hasher},
    sync::{Arc, PoisonError, RwLock},
};

use hashbrown::{Equivalent, HashMap};
use model::{AddressOfRecord, PoolName, WallTime, documents::Document, limits};
use store::{Account, AccountState, Changes, Credentials, DigestAlgorithm, DocumentState};
use topology::Topology;

use crate::UserServices;

/// A home pool's place among the home pools of the topology, in the order of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HomeIndex(pub u16);

/// The home pools of the topology, by index and by name.
#[derive(Clone, Debug)]
pub struct Homes(Vec<PoolName>);

impl Homes {
    /// The home pools of this topology.
    pub fn of(topology: &Topology) -> Self {
        Self(topology.home_pools().map(|pool| pool.name.clone()).collect())
    }

    /// The index of a home pool.
    pub fn index(&self, name: &PoolName) -> Option<HomeIndex> {
        let at = self.0.iter().position(|home| home == name)?;
        u16::try_from(at).ok().map(HomeIndex)
    }

    /// The name at an index.
    pub fn name(&self, index: HomeIndex) -> Option<&PoolName> {
        self.0.get(usize::from(index.0))
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = (HomeIndex, &PoolName)> {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(at, name)| u16::try_from(at).ok().map(|at| (HomeIndex(at), name)))
    }
}

/// What the directory knows of one user.
#[derive(Clone, Debug)]
pub struct User {
    /// Whose.
    pub aor: AddressOfRecord,
    /// Home pool.
    pub home: HomeIndex,
    /// What proves the password; `None` where this server holds only the directory of the home pool.
    pub credentials: Option<Credentials>,
    /// Digest algorithms for this user instead of the pool's.
    pub algorithms: Option<Box<[DigestAlgorithm]>>,
}

/// Every user of the deployment that this server knows, kept current by the store. Read by all shards.
#[derive(Debug)]
pub struct Directory {
    homes: Homes,
    users: RwLock<HashMap<AddressOfRecord, Accounts>>,
    /// Of those who have some: whoever has none costs nothing here. May be known before the account is.
    services: RwLock<HashMap<AddressOfRecord, Vec<Services>>>,
}

/// The account of one user. While the user goes from one journal to another both have one.
#[derive(Clone, Debug)]
struct Accounts {
    /// The one that counts.
    best: Entry,
    /// The one in another journal; of three the worst is not kept.
    other: Option<Box<Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// In whose journal the account is: another journal's word that it was removed does not count.
    journal: HomeIndex,
    home: HomeIndex,
    credentials: Option<Box<Credentials>>,
    algorithms: Option<Box<[DigestAlgorithm]>>,
    changed_at: WallTime,
    version: u64,
}

impl Entry {
    /// Greater is what counts: with what proves the password, then what was changed last. A user who went to
    /// another journal unchanged has a higher number there.
    fn rank(&self) -> (bool, WallTime, u64) {
        (self.credentials.is_some(), self.changed_at, self.version)
    }
}

impl Accounts {
    fn put(&mut self, entry: Entry) {
        if self.best.journal == entry.journal {
            self.best = entry;
        } else {
            let is_worse = |other: &Entry| other.journal != entry.journal && other.rank() > entry.rank();
            if self.other.as_deref().is_some_and(is_worse) && self.best.rank() > entry.rank() {
                return;
            }
            self.other = Some(Box::new(entry));
        }
        if let Some(other) = self.other.as_deref_mut().filter(|other| other.rank() >= self.best.rank()) {
            std::mem::swap(&mut self.best, other);
        }
    }

    /// Without the account in this journal; `None` when there is no other.
    fn without(mut self, journal: HomeIndex) -> Option<Self> {
        if self.best.journal == journal {
            return self.other.map(|other| Self { best: *other, other: None });
        }
        self.other = self.other.filter(|other| other.journal != journal);
        Some(self)
    }
}

/// Documents of one user in one journal: another journal's word that they were removed does not count.
#[derive(Clone, Debug)]
struct Services {
    journal: HomeIndex,
    documents: Arc<UserServices>,
}

impl Directory {
    /// An empty directory over these home pools.
    pub fn new(homes: Homes) -> Self {
        Self { homes, users: RwLock::default(), services: RwLock::default() }
    }

    /// The home pools.
    pub const fn homes(&self) -> &Homes {
        &self.homes
    }

    /// The user with this address-of-record.
    pub fn user(&self, aor: &AddressOfRecord) -> Option<User> {
        self.find(aor.as_str())
    }

    /// Settings and voice policy of a user; `None` for who has none.
    pub fn services(&self, aor: &AddressOfRecord) -> Option<Arc<UserServices>> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let found = match services.get(aor)?.as_slice() {
            [only] => only,
            several => {
                let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
                let journal = users.get(aor).map(|accounts| accounts.best.journal);
                several.iter().find(|services| Some(services.journal) == journal).or(several.last())?
            }
        };
        (!found.documents.is_default()).then(|| Arc::clone(&found.documents))
    }

    /// The user whose name in this digest realm is `username`, which may be written with its domain.
    pub fn user_named(&self, username: &[u8], realm: &[u8]) -> Option<User> {
        let name = match username.iter().rposition(|&octet| octet == b'@') {
            Some(at) if username.get(at + 1..) == Some(realm) => username.get(..at)?,
            Some(_) | None => username,
        };
        let mut key = [0_u8; limits::ADDRESS_OF_RECORD_BYTES_MAX];
        let mut length = 0_usize;
        for part in [b"sip:".as_slice(), name, b"@", realm] {
            key.get_mut(length..length.checked_add(part.len())?)?.copy_from_slice(part);
            length += part.len();
        }
        self.find(std::str::from_utf8(key.get(..length)?).ok()?)
    }

    /// How many users are known.
    pub fn len(&self) -> usize {
        self.users.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many users of this home pool are known. Counts them one by one: for status, not for routing.
    pub fn users_of(&self, home: HomeIndex) -> usize {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        users.values().filter(|accounts| accounts.best.home == home).count()
    }

    /// Whether no user is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes over what the store says has changed.
    pub fn apply(&self, changes: &Changes<'_>) {
        let Some(journal) = self.homes.index(changes.journal) else { return };
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        for state in changes.accounts {
            match state {
                AccountState::Present(account) => {
                    if let Some(home) = self.homes.index(&account.home) {
                        let entry = entry(journal, home, account);
                        match users.get_mut(&account.aor) {
                            Some(known) => known.put(entry),
                            None => {
                                let accounts = Accounts { best: entry, other: None };
                                drop(users.insert(account.aor.clone(), accounts));
                            }
                        }
                    }
                }
                AccountState::Removed(aor) => {
                    if let Some((aor, known)) = users.remove_entry(aor)
                        && let Some(left) = known.without(journal)
                    {
                        users.insert(aor, left);
                    }
                }
            }
        }
        drop(users);
        self.apply_documents(journal, changes.documents);
    }

    fn apply_documents(&self, journal: HomeIndex, changes: &[DocumentState]) {
        if changes.is_empty() {
            return;
        }
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        for state in changes {
            let aor = match state {
                DocumentState::Present(stored) => {
                    let known = services.entry(stored.aor.clone()).or_default();
                    if !known.iter().any(|services| services.journal == journal) {
                        known.push(Services { journal, documents: Arc::default() });
                    }
                    let here = known.iter_mut().find(|services| services.journal == journal);
                    if let Some(here) = here {
                        Arc::make_mut(&mut here.documents).put(&stored.document);
                    }
                    &stored.aor
                }
                DocumentState::Removed { aor, kind } => {
                    let known = services.get_mut(aor);
                    let here =
                        known.and_then(|known| known.iter_mut().find(|services| services.journal == journal));
                    if let Some(here) = here {
                        Arc::make_mut(&mut here.documents).put(&Document::empty(*kind));
                    }
                    aor
                }
            };
            // What everybody has counts as long as another journal says something else.
            if services.get(aor).is_some_and(|known| known.iter().all(|it| it.documents.is_default())) {
                services.remove(aor);
            }
        }
    }

    fn find(&self, aor: &str) -> Option<User> {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        let (aor, accounts) = users.get_key_value(&Text(aor))?;
        let entry = &accounts.best;
        Some(User {
            aor: aor.clone(),
            home: entry.home,
            credentials: entry.credentials.as_deref().copied(),
            algorithms: entry.algorithms.clone(),
        })
    }
}

fn entry(journal: HomeIndex, home: HomeIndex, account: &Account) -> Entry {
    Entry {
        journal,
        home,
        credentials: account.credentials.map(Box::new),
        algorithms: account.algorithms.as_deref().map(Box::from),
        changed_at: account.changed_at,
        version: account.version,
    }
}

/// A key that is found without making an address-of-record of it.
struct Text<'a>(&'a str);

impl Hash for Text<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Equivalent<AddressOfRecord> for Text<'_> {
    fn equivalent(&self, key: &AddressOfRecord) -> bool {
        key.as_str() == self.0
    }
}

#[cfg(test)]
mod tests {
    use model::{
        Epoch,
        documents::{DocumentKind, UserSettings},
    };
    use store::StoredDocument;

    use super::*;

    fn directory() -> Directory {
        Directory::new(Homes(vec![PoolName::new("east").unwrap(), PoolName::new("west").unwrap()]))
    }

    fn account(aor: &str, home: &str) -> Account {
        Account {
            aor: AddressOfRecord::new(aor).unwrap(),
            journal: PoolName::new(home).unwrap(),
            home: PoolName::new(home).unwrap(),
            credentials: Some(Credentials { ha1_md5: [1; 16], ha1_sha256: [2; 32] }),
            algorithms: None,
            version: 1,
            epoch: Epoch::ZERO,
            changed_at: WallTime::default(),
        }
    }

    fn apply(directory: &Directory, home: &str, state: AccountState) {
        let home = PoolName::new(home).unwrap();
        directory.apply(&Changes { journal: &home, sequence: 1, accounts: &[state], documents: &[] });
    }

    #[test]
    fn a_user_is_found_by_address_and_by_name_in_the_realm() {
        let directory = directory();
        apply(&directory, "west", AccountState::Present(account("sip:alice@example.com", "west")));

        assert_eq!(directory.user_named(b"alice", b"example.com").unwrap().home, HomeIndex(1));
        assert!(directory.user_named(b"alice@example.com", b"example.com").is_some());
        assert!(directory.user_named(b"alice", b"example.org").is_none());
        assert!(directory.user_named(&[b'a'; 400], b"example.com").is_none());
    }

    fn stored(aor: &str, do_not_disturb: bool) -> DocumentState {
        let settings = UserSettings { do_not_disturb, ..UserSettings::default() };
        DocumentState::Present(StoredDocument {
            journal: PoolName::new("any").unwrap(),
            aor: AddressOfRecord::new(aor).unwrap(),
            document: Document::Settings(settings),
            version: 1,
            epoch: Epoch::ZERO,
            changed_at: WallTime::default(),
        })
    }

    fn apply_document(directory: &Directory, journal: &str, state: DocumentState) {
        let journal = PoolName::new(journal).unwrap();
        directory.apply(&Changes { journal: &journal, sequence: 1, accounts: &[], documents: &[state] });
    }

    #[test]
    fn only_users_who_have_settings_or_a_policy_are_kept_with_them() {
        let directory = directory();
        let aor = AddressOfRecord::new("sip:alice@example.com").unwrap();
        apply(&directory, "west", AccountState::Present(account(aor.as_str(), "west")));
        assert!(directory.services(&aor).is_none());

        apply_document(&directory, "west", stored(aor.as_str(), true));
        assert!(directory.services(&aor).unwrap().settings.do_not_disturb);

        apply_document(&directory, "west", stored(aor.as_str(), false));
        assert!(directory.services(&aor).is_none(), "what everybody has needs no place");
    }

    #[test]
    fn removal_of_documents_in_a_former_journal_leaves_those_in_the_new_one() {
        let directory = directory();
        let aor = AddressOfRecord::new("sip:alice@example.com").unwrap();
        let removed = || DocumentState::Removed { aor: aor.clone(), kind: DocumentKind::Settings };
        apply_document(&directory, "east", stored(aor.as_str(), true));
        apply_document(&directory, "west", stored(aor.as_str(), true));

        apply_document(&directory, "east", removed());
        assert!(directory.services(&aor).is_some());

        apply_document(&directory, "west", removed());
        assert!(directory.services(&aor).is_none());
    }

    #[test]
    fn removal_in_a_former_home_leaves_the_user_in_the_new_one() {
        let directory = directory();
        let aor = AddressOfRecord::new("sip:alice@example.com").unwrap();
        apply(&directory, "east", AccountState::Present(account(aor.as_str(), "east")));
        apply(&directory, "west", AccountState::Present(account(aor.as_str(), "west")));

        apply(&directory, "east", AccountState::Removed(aor.clone()));

        assert_eq!(directory.user(&aor).unwrap().home, HomeIndex(1));
    }

    /// As a branch sees it: with the secret from both journals, or only listed in one of them.
    #[test]
    fn a_user_on_the_way_to_another_journal_is_known_by_the_one_that_counts_in_any_order() {
        let aor = AddressOfRecord::new("sip:alice@example.com").unwrap();
        let there = |version, is_listed: bool| {
            let account = Account { version, ..account(aor.as_str(), "west") };
            let credentials = account.credentials.filter(|_| !is_listed);
            AccountState::Present(Account { credentials, ..account })
        };
        for order in [[0, 1, 2], [1, 0, 2], [1, 2, 0]] {
            let directory = directory();
            for step in order {
                match step {
                    0 => apply(&directory, "east", there(5, false)),
                    1 => apply(&directory, "west", there(9, false)),
                    _ => apply(&directory, "east", there(5, true)),
                }
                assert!(directory.user(&aor).unwrap().credentials.is_some(), "{order:?}");
            }
            apply_document(&directory, "east", stored(aor.as_str(), true));
            assert!(directory.services(&aor).is_some(), "{order:?}: nothing else is known yet");
            apply_document(&directory, "west", stored(aor.as_str(), false));
            assert!(directory.services(&aor).is_none(), "{order:?}: west counts");

            apply(&directory, "east", AccountState::Removed(aor.clone()));
            assert!(directory.user(&aor).unwrap().credentials.is_some(), "{order:?}");
            apply(&directory, "west", AccountState::Removed(aor.clone()));
            assert!(directory.user(&aor).is_none(), "{order:?}");
        }
    }
}
