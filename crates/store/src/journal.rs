//! The journal of one home pool's user data: pages that a partner, a branch or a director pulls.
//!
//! Every change has the next number of its home pool. A page carries, in order, the changes that still
//! matter: one that a later change of the same account replaced is left out, and the later one says with
//! `first` that it covers its number too. So the numbers of a page are without gaps, and a reader that has
//! applied a page holds everything up to its end. Wire format: docs/protocols/journal.md.

use model::{AddressOfRecord, Epoch, PoolName, StaleEpoch, WallTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Credentials, DigestAlgorithm, OperationId, StoreError};

/// How far a reader has got in the journal of a home pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Whose journal.
    pub home: PoolName,
    /// Number of the last change the reader holds; 0 = none.
    pub sequence: u64,
    /// Epoch of that change; zero at the start.
    pub epoch: Epoch,
}

impl Cursor {
    /// Before the first change.
    pub const fn start(home: PoolName) -> Self {
        Self { home, sequence: 0, epoch: Epoch::ZERO }
    }
}

/// What a reader is given of each change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything, credentials included: for the partner, and for the branch whose users they are.
    Accounts,
    /// Who is homed where: for servers that only find users. Carries no secrets.
    Directory,
}

/// A run of changes, as sent from one store to another. Its checksum covers every field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    content: Content,
    checksum: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    scope: Scope,
    /// Highest epoch the sender has seen for this home pool.
    epoch: Epoch,
    after: Cursor,
    entries: Vec<Entry>,
    is_end: bool,
}

/// One change in a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// First number that this entry covers: those before `sequence` were replaced by later changes.
    pub first: u64,
    /// Number of the change.
    pub sequence: u64,
    /// Epoch under which it was made.
    pub epoch: Epoch,
    /// The operation that made it.
    pub operation: OperationId,
    /// Whose account.
    pub aor: AddressOfRecord,
    /// When it was made, by the clock of who made it.
    pub changed_at: WallTime,
    /// What the account is since.
    pub state: EntryState,
}

/// What an account is after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryState {
    /// There is none.
    Removed,
    /// There is one, with these contents; only in pages of [`Scope::Accounts`].
    Account {
        /// What proves the password.
        credentials: Credentials,
        /// Digest algorithms to offer; `None` = as the pool's settings say.
        algorithms: Option<Vec<DigestAlgorithm>>,
    },
    /// There is one; only in pages of [`Scope::Directory`].
    Listed,
}

impl Page {
    /// A page of what follows `after`, with its checksum. `epoch` is the highest the sender has seen.
    pub fn new(scope: Scope, epoch: Epoch, after: Cursor, entries: Vec<Entry>, is_end: bool) -> Self {
        let content = Content { scope, epoch, after, entries, is_end };
        let checksum = content.checksum();
        Self { content, checksum }
    }

    /// What a reader is given of each change.
    pub const fn scope(&self) -> Scope {
        self.content.scope
    }

    /// Highest epoch the sender has seen for this home pool.
    pub const fn epoch(&self) -> Epoch {
        self.content.epoch
    }

    /// Where the page begins.
    pub const fn after(&self) -> &Cursor {
        &self.content.after
    }

    /// The changes, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.content.entries
    }

    /// Whether the sender had no more when it made the page.
    pub const fn is_end(&self) -> bool {
        self.content.is_end
    }

    /// The cursor to ask with for the next page.
    pub fn next(&self) -> Cursor {
        let after = &self.content.after;
        self.content.entries.last().map_or_else(
            || after.clone(),
            |last| Cursor { home: after.home.clone(), sequence: last.sequence, epoch: last.epoch },
        )
    }

    /// The page as octets: postcard encoding, docs/protocols/journal.md.
    pub fn encode(&self) -> Vec<u8> {
        encoded(self)
    }

    /// Reads what [`Self::encode`] made.
    ///
    /// Errors: [`ApplyError::Damaged`] when the octets are no page or the checksum differs.
    pub fn decode(octets: &[u8]) -> Result<Self, ApplyError> {
        let page: Self = postcard::from_bytes(octets)
            .map_err(|error| ApplyError::Damaged { found: format!("not a page: {error}") })?;
        page.check()?;
        Ok(page)
    }

    /// Whether the page is what its sender made: checksum, numbers without gaps, no secrets in a directory.
    ///
    /// Errors: [`ApplyError::Damaged`].
    pub fn check(&self) -> Result<(), ApplyError> {
        let damaged = |found: String| Err(ApplyError::Damaged { found });
        if self.content.checksum() != self.checksum {
            return damaged("the checksum differs".to_owned());
        }
        let (mut last, mut epoch) = (self.content.after.sequence, self.content.after.epoch);
        for entry in &self.content.entries {
            if Some(entry.first) != last.checked_add(1) || entry.sequence < entry.first {
                return damaged(format!("entry {}..{} follows {last}", entry.first, entry.sequence));
            }
            if entry.epoch < epoch || entry.epoch > self.content.epoch {
                return damaged(format!("entry {} has epoch {} after {epoch}", entry.sequence, entry.epoch));
            }
            let belongs = match entry.state {
                EntryState::Removed => true,
                EntryState::Account { .. } => self.content.scope == Scope::Accounts,
                EntryState::Listed => self.content.scope == Scope::Directory,
            };
            if !belongs {
                return damaged(format!("entry {} does not belong to its scope", entry.sequence));
            }
            (last, epoch) = (entry.sequence, entry.epoch);
        }
        Ok(())
    }
}

impl Content {
    fn checksum(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"tandem journal page 1\n");
        hash.update(encoded(self));
        hash.finalize().into()
    }
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value)
        .expect("invariant: pages hold only types that postcard encodes, into a growing vector")
}

/// Why a page was not read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The cursor is beyond the end of this journal: the reader holds changes that this store does not have.
    #[error("the reader of {home}'s journal holds change {sequence}, this store's last one is {last}")]
    Ahead {
        /// Whose journal.
        home: PoolName,
        /// Where the reader is.
        sequence: u64,
        /// Last change here.
        last: u64,
    },
    /// The reader holds another change under the same number: one of the two was made after a takeover.
    #[error("change {sequence} of {home} has another epoch here than the reader's {theirs}")]
    Diverged {
        /// Whose journal.
        home: PoolName,
        /// The number.
        sequence: u64,
        /// Epoch of the reader's change.
        theirs: Epoch,
    },
    /// This store holds only the directory of the home pool, so it cannot give accounts.
    #[error("this store holds only the directory of {home}; pull accounts from the pool that owns it")]
    DirectoryOnly {
        /// Whose journal.
        home: PoolName,
    },
    /// The files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a page was not applied. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Not what the sender made; ask for it again.
    #[error("a journal page is damaged: {found}")]
    Damaged {
        /// What was found.
        found: String,
    },
    /// The page is of another home pool than it was asked of.
    #[error("a journal page of {found} came where one of {expected} was asked for")]
    WrongHome {
        /// Whose page was asked for.
        expected: PoolName,
        /// Whose page it is.
        found: PoolName,
    },
    /// The sender does not know the present epoch: it was replaced as owner.
    #[error(transparent)]
    Stale(#[from] StaleEpoch),
    /// The page begins after what this store holds; ask from [`Cursor`] `expected`.
    #[error("a journal page of {home} begins after {found}, this store holds up to {expected}")]
    Gap {
        /// Whose journal.
        home: PoolName,
        /// The last change held here.
        expected: u64,
        /// The change after which the page begins.
        found: u64,
    },
    /// This store holds another change under the same number: an orphan of an earlier owner.
    #[error(
        "change {sequence} of {home} is {ours} here and {theirs} in the page; orphaned changes need failback"
    )]
    Diverged {
        /// Whose journal.
        home: PoolName,
        /// The number.
        sequence: u64,
        /// Epoch of the change here.
        ours: Epoch,
        /// Epoch of the change in the page.
        theirs: Epoch,
    },
    /// This store holds accounts of the home pool; a directory page would leave them behind.
    #[error("this store holds the accounts of {home}; pull pages of accounts")]
    HoldsAccounts {
        /// Whose journal.
        home: PoolName,
    },
    /// More home pools than one store takes.
    #[error("a store holds at most {max} home pools")]
    TooManyHomes {
        /// How many are taken.
        max: usize,
    },
    /// The transaction was begun to be made durable and the answer is unknown; apply the page again.
    #[error("whether a journal page is on disk is unknown")]
    Unknown(#[source] StoreError),
    /// The files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_survives_encoding_and_any_changed_octet_is_found() {
        let page = page();
        let octets = page.encode();

        assert_eq!(Page::decode(&octets).unwrap(), page);
        for at in 0..octets.len() {
            let mut damaged = octets.clone();
            damaged[at] ^= 1;
            assert!(matches!(Page::decode(&damaged), Err(ApplyError::Damaged { .. })), "octet {at}");
        }
        assert!(Page::decode(&octets[..octets.len() - 1]).is_err());
        assert!(Page::decode(b"").is_err());
    }

    #[test]
    fn a_page_is_encoded_as_documented() {
        let mut content = vec![0, 2];
        content.extend(b"\x04east\x04\x01");
        content.extend([1, 5, 8, 2, 77]);
        content.extend(b"\x15sip:alice@example.com");
        content.extend([0x80, 0x94, 0xeb, 0xdc, 0x03]); // 1,000,000,000 as a varint
        content.extend([1].iter().chain(&[1; 16]).chain(&[2; 32]));
        content.extend([1, 1, 0, 1]);
        let checksum =
            Sha256::new().chain_update(b"tandem journal page 1\n").chain_update(&content).finalize();

        assert_eq!(page().encode(), [content.as_slice(), checksum.as_slice()].concat());
    }

    #[test]
    fn a_page_with_a_gap_or_a_secret_in_a_directory_is_refused() {
        let page = page();
        let mut late = page.entries().to_vec();
        late[0].first = 9;
        let gap = Page::new(Scope::Accounts, page.epoch(), page.after().clone(), late, true);
        let secret =
            Page::new(Scope::Directory, page.epoch(), page.after().clone(), page.entries().to_vec(), true);

        assert!(matches!(gap.check(), Err(ApplyError::Damaged { .. })));
        assert!(matches!(secret.check(), Err(ApplyError::Damaged { .. })));
    }

    fn page() -> Page {
        let home = PoolName::new("east").unwrap();
        let entry = Entry {
            first: 5,
            sequence: 8,
            epoch: Epoch::new(2),
            operation: OperationId::new(77),
            aor: AddressOfRecord::new("sip:alice@example.com").unwrap(),
            changed_at: WallTime::from_secs(1_000),
            state: EntryState::Account {
                credentials: Credentials { ha1_md5: [1; 16], ha1_sha256: [2; 32] },
                algorithms: Some(vec![DigestAlgorithm::Md5]),
            },
        };
        let after = Cursor { home, sequence: 4, epoch: Epoch::new(1) };
        Page::new(Scope::Accounts, Epoch::new(2), after, vec![entry], true)
    }
}
