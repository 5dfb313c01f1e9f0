//! Users on their way from one journal to another: a branch has another associated pool.
//!
//! The owner of the new journal takes pages of users from the owner of the old one, all that is theirs with
//! them, and settles them in its own journal. When all are there, the old owner parts with them. Each step
//! may be repeated. Source: docs/decisions/0006.

use model::{AddressOfRecord, Epoch, PoolName};
use serde::{Deserialize, Serialize};

use crate::{AdoptError, Entry, EntryState, sealed::Sealed};

const PURPOSE: &str = "move page 1";

/// Users of one home pool with all that is theirs, in order of address-of-record. Its checksum covers every
/// field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovePage(Sealed<MovePageContent>);

/// What a page says; see the methods of [`MovePage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovePageContent {
    /// The journal that they leave.
    pub journal: PoolName,
    /// Where they are homed.
    pub home: PoolName,
    /// Epoch under which the journal is owned by who gave the page; from the store, the highest it has seen.
    pub epoch: Epoch,
    /// The last number of the journal when the page was made.
    pub last: u64,
    /// Each user: the account first, then everything else. The number of an entry is that of the last change
    /// which did not only state it again.
    pub users: Vec<Vec<Entry>>,
    /// Whether there are no users after these.
    pub is_end: bool,
}

impl MovePage {
    /// A page with this content and its checksum.
    pub fn new(content: MovePageContent) -> Self {
        Self(Sealed::new(PURPOSE, content))
    }

    /// What it says.
    pub const fn content(&self) -> &MovePageContent {
        &self.0.content
    }

    /// Address-of-record to ask for the next page with; `None` for a page without users.
    pub fn next(&self) -> Option<&AddressOfRecord> {
        self.content().users.last().and_then(|entries| entries.first()).map(|account| &account.aor)
    }

    /// The page as octets, postcard encoding.
    pub fn encode(&self) -> Vec<u8> {
        self.0.encode()
    }

    /// Reads what [`Self::encode`] made.
    ///
    /// Errors: [`AdoptError::Damaged`].
    pub fn decode(octets: &[u8]) -> Result<Self, AdoptError> {
        let page = Self(Sealed::decode(PURPOSE, octets).map_err(|found| AdoptError::Damaged { found })?);
        page.check()?;
        Ok(page)
    }

    /// Whether the page is what its sender made, and each user begins with an account of the page's home.
    ///
    /// Errors: [`AdoptError::Damaged`].
    pub fn check(&self) -> Result<(), AdoptError> {
        self.0.check(PURPOSE).map_err(|found| AdoptError::Damaged { found })?;
        let content = self.content();
        for entries in &content.users {
            let is_account = |entry: &Entry| match &entry.state {
                EntryState::Account { home, .. } => *home == content.home,
                EntryState::Removed(_)
                | EntryState::Listed { .. }
                | EntryState::Document(_)
                | EntryState::Conflict(..) => false,
            };
            let whole = entries.split_first().is_some_and(|(account, belongings)| {
                let are_theirs = belongings.iter().all(|entry| {
                    let is_content =
                        matches!(entry.state, EntryState::Document(_) | EntryState::Conflict(..));
                    is_content && entry.aor == account.aor
                });
                is_account(account) && are_theirs
            });
            if !whole || entries.iter().any(|entry| entry.sequence > content.last) {
                return Err(AdoptError::Damaged {
                    found: "a user without account, or out of order".to_owned(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::{
        WallTime,
        documents::{Document, DocumentKind},
    };

    use super::*;
    use crate::{Credentials, OperationId};

    fn entry(sequence: u64, state: EntryState) -> Entry {
        Entry {
            sequence,
            epoch: Epoch::ZERO,
            operation: OperationId::new(sequence.into()),
            aor: AddressOfRecord::new("sip:alice@example.com").unwrap(),
            changed_at: WallTime::from_secs(1),
            state,
        }
    }

    fn content() -> MovePageContent {
        let credentials = Credentials { ha1_md5: [1; 16], ha1_sha256: [2; 32] };
        let home = PoolName::new("branch1").unwrap();
        let account = EntryState::Account { home: home.clone(), credentials, algorithms: None };
        let settings = EntryState::Document(Document::empty(DocumentKind::Settings));
        MovePageContent {
            journal: PoolName::new("east").unwrap(),
            home,
            epoch: Epoch::ZERO,
            last: 7,
            users: vec![vec![entry(3, account), entry(7, settings)]],
            is_end: true,
        }
    }

    #[test]
    fn a_page_of_users_survives_encoding_and_any_changed_octet_is_found() {
        let page = MovePage::new(content());
        let octets = page.encode();

        assert_eq!(MovePage::decode(&octets).unwrap(), page);
        for at in 0..octets.len() {
            let mut damaged = octets.clone();
            damaged[at] ^= 1;
            assert!(matches!(MovePage::decode(&damaged), Err(AdoptError::Damaged { .. })), "octet {at}");
        }
    }

    #[test]
    fn a_user_without_account_first_or_with_a_number_beyond_the_journal_is_refused() {
        let wrong = |change: fn(&mut MovePageContent)| {
            let mut content = content();
            change(&mut content);
            MovePage::new(content).check()
        };

        assert!(wrong(|_| {}).is_ok());
        for refused in [
            wrong(|page| page.users[0].reverse()),
            wrong(|page| page.users.push(Vec::new())),
            wrong(|page| page.last = 6),
            wrong(|page| page.home = PoolName::new("branch2").unwrap()),
        ] {
            assert!(matches!(refused, Err(AdoptError::Damaged { .. })), "{refused:?}");
        }
    }
}
