//! Orphans: changes that an owner made and its successor never saw, and how they come back.
//!
//! The store that returns (a pool that was replaced as owner) and the owner find the last change they have in
//! common. The returning store sends its changes beyond it; the owner adopts each: as its own change where
//! the account or document is as it was, by replaying or uniting what can be united, else as a conflict for
//! the operator. Then every account and document that an orphan names has a number above the common one at
//! the owner, so the returning store goes back to the common change and receives the truth by the normal
//! pull.

use model::{
    AddressOfRecord, Epoch, PoolName, StaleEpoch, WallTime,
    documents::{Document, DocumentKind, Edit},
};
use serde::{Deserialize, Serialize};

use crate::{
    ConflictContent, ConflictId, Credentials, Cursor, DigestAlgorithm, OperationId, StoreError, Subject,
    sealed::{Sealed, as_json},
};

const PURPOSE: &str = "orphan page 1";

/// A change that the owner of its journal does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphan {
    /// Its number where it was made.
    pub sequence: u64,
    /// Epoch under which it was made.
    pub epoch: Epoch,
    /// The operation that made it.
    pub operation: OperationId,
    /// Whose data.
    pub aor: AddressOfRecord,
    /// When it was made, by the clock of who made it.
    pub changed_at: WallTime,
    /// What it did.
    #[serde(with = "as_json")]
    pub content: OrphanContent,
}

/// What an orphan did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrphanContent {
    /// It wrote user data.
    Write(OrphanedWrite),
    /// It kept a conflict for the operator.
    Conflict(ConflictId, ConflictContent),
    /// It ended a conflict.
    ConflictEnded(ConflictId),
}

/// User data that an orphan wrote. Whole states stand for all orphans of the same account or document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrphanedWrite {
    /// The account is this.
    Account {
        /// Where the user is homed.
        home: PoolName,
        /// What proves the password.
        credentials: Credentials,
        /// Digest algorithms to offer; `None` = as the pool's settings say.
        algorithms: Option<Vec<DigestAlgorithm>>,
    },
    /// The account was removed, the user's documents with it.
    AccountRemoved,
    /// An edit that can be applied to any version.
    Edit(Edit),
    /// The document is this: settings, voice policy, and others whose edits are no longer remembered.
    Document(Document),
    /// The document was removed with the account, which exists again.
    DocumentRemoved(DocumentKind),
}

impl OrphanedWrite {
    /// What it wrote.
    pub const fn subject(&self) -> Subject {
        match self {
            Self::Account { .. } | Self::AccountRemoved => Subject::Account,
            Self::Edit(edit) => Subject::Document(edit.kind()),
            Self::Document(document) => Subject::Document(document.kind()),
            Self::DocumentRemoved(kind) => Subject::Document(*kind),
        }
    }
}

impl OrphanContent {
    /// What it is about.
    pub const fn subject(&self) -> Subject {
        match self {
            Self::Write(write) => write.subject(),
            Self::Conflict(id, _) | Self::ConflictEnded(id) => Subject::Conflict(*id),
        }
    }
}

/// A run of orphans in the order in which they were made, as sent to the owner. Its checksum covers every
/// field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanPage(Sealed<OrphanPageContent>);

/// What a page of orphans says; see the methods of [`OrphanPage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanPageContent {
    /// The last change that sender and owner have in common.
    pub common: Cursor,
    /// The orphans.
    pub orphans: Vec<Orphan>,
    /// Number up to which this page covers the sender's changes.
    pub end: u64,
    /// Whether the sender has no more.
    pub is_end: bool,
}

impl OrphanPage {
    /// A page with this content and its checksum.
    pub fn new(content: OrphanPageContent) -> Self {
        Self(Sealed::new(PURPOSE, content))
    }

    /// The last change that sender and owner have in common.
    pub const fn common(&self) -> &Cursor {
        &self.0.content.common
    }

    /// The orphans.
    pub fn orphans(&self) -> &[Orphan] {
        &self.0.content.orphans
    }

    /// Number to ask for the next page with; with the last page: the last change of the sender.
    pub const fn next(&self) -> u64 {
        self.0.content.end
    }

    /// Whether the sender has no more.
    pub const fn is_end(&self) -> bool {
        self.0.content.is_end
    }

    /// The page as octets: postcard encoding, docs/protocols/journal.md.
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

    /// Whether the page is what its sender made.
    ///
    /// Errors: [`AdoptError::Damaged`].
    pub fn check(&self) -> Result<(), AdoptError> {
        self.0.check(PURPOSE).map_err(|found| AdoptError::Damaged { found })?;
        let mut last = self.common().sequence;
        for orphan in self.orphans() {
            if orphan.sequence <= last || orphan.sequence > self.next() {
                let found = format!("orphan {} follows {last}", orphan.sequence);
                return Err(AdoptError::Damaged { found });
            }
            last = orphan.sequence;
        }
        Ok(())
    }
}

/// What the owner made of an orphan; durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The orphan's number where it was made.
    pub sequence: u64,
    /// Its operation.
    pub operation: OperationId,
    /// What became of it.
    pub outcome: Adoption,
}

/// What became of an orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adoption {
    /// The owner had it already, or had the same.
    Known,
    /// Nothing else had changed: it is the newest change now.
    Applied,
    /// An edit was applied to what others had changed meanwhile.
    Replayed,
    /// Two versions of a document were united; nothing of either is lost.
    United,
    /// It waits for the operator as a conflict.
    Conflict,
    /// A record of a call of a user who was removed meanwhile: dropped.
    UserRemoved,
}

/// An orphan that waits for the operator: what it wrote contradicts what was changed meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its name.
    pub id: ConflictId,
    /// In whose journal.
    pub journal: PoolName,
    /// Whose data.
    pub aor: AddressOfRecord,
    /// Number of its last change in the journal.
    pub version: u64,
    /// When it was found.
    pub found_at: WallTime,
    /// What the orphan wrote, and when.
    pub content: ConflictContent,
}

/// Why orphans were not adopted. Except for [`Self::Unknown`], nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Not what the sender made; send it again.
    #[error("a page of orphans is damaged: {found}")]
    Damaged {
        /// What was found.
        found: String,
    },
    /// This store does not have the change that both are said to have in common.
    #[error(
        "change {} of {} has epoch {ours} here, not {}",
        .common.sequence, .common.journal, .common.epoch
    )]
    NotCommon {
        /// As the sender said.
        common: Cursor,
        /// Epoch of that change here.
        ours: Epoch,
    },
    /// This store does not know the present epoch: it was replaced as owner.
    #[error(transparent)]
    Stale(#[from] StaleEpoch),
    /// More orphans than one page takes.
    #[error("{found} orphans in one page, at most {max} are taken")]
    TooMany {
        /// How many there were.
        found: usize,
        /// How many are taken.
        max: usize,
    },
    /// No more conflicts are kept; the operator has to resolve some first.
    #[error("{max} conflicts of {journal} wait for the operator already; resolve some of them")]
    ConflictsFull {
        /// Whose journal.
        journal: PoolName,
        /// How many are kept.
        max: usize,
    },
    /// This store does not hold everything of the journal and cannot own it.
    #[error("this store does not hold everything of {journal}")]
    HoldsLess {
        /// Whose journal.
        journal: PoolName,
    },
    /// More pools than one store takes.
    #[error("a store holds at most {max} home pools")]
    TooManyHomes {
        /// How many are taken.
        max: usize,
    },
    /// Whether they are on disk is unknown; send the page again.
    #[error("whether the orphans are on disk is unknown")]
    Unknown(#[source] StoreError),
    /// The files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store did not go back to the common change. Except for [`Self::Unknown`], nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// There are orphans that were not adopted.
    #[error("{journal} has changes up to {last} here, but only those up to {adopted} were adopted")]
    NotAdopted {
        /// Whose journal.
        journal: PoolName,
        /// Last change here.
        last: u64,
        /// Last one that was adopted.
        adopted: u64,
    },
    /// This store does not have the change that both are said to have in common.
    #[error(
        "change {} of {} has epoch {ours} here, not {}",
        .common.sequence, .common.journal, .common.epoch
    )]
    NotCommon {
        /// As the caller said.
        common: Cursor,
        /// Epoch of that change here.
        ours: Epoch,
    },
    /// Whether it is on disk is unknown; begin again.
    #[error("whether the orphans were given up is unknown")]
    Unknown(#[source] StoreError),
    /// The files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> OrphanPageContent {
        let orphan = |sequence, write| Orphan {
            sequence,
            epoch: Epoch::new(1),
            operation: OperationId::new(sequence.into()),
            aor: AddressOfRecord::new("sip:alice@example.com").unwrap(),
            changed_at: WallTime::from_secs(1_000),
            content: OrphanContent::Write(write),
        };
        let document = OrphanedWrite::Document(Document::empty(DocumentKind::Settings));
        OrphanPageContent {
            common: Cursor { journal: PoolName::new("east").unwrap(), sequence: 4, epoch: Epoch::new(1) },
            orphans: vec![orphan(5, OrphanedWrite::AccountRemoved), orphan(7, document)],
            end: 9,
            is_end: true,
        }
    }

    #[test]
    fn a_page_of_orphans_survives_encoding_and_any_changed_octet_is_found() {
        let page = OrphanPage::new(content());
        let octets = page.encode();

        assert_eq!(OrphanPage::decode(&octets).unwrap(), page);
        for at in 0..octets.len() {
            let mut damaged = octets.clone();
            damaged[at] ^= 1;
            assert!(matches!(OrphanPage::decode(&damaged), Err(AdoptError::Damaged { .. })), "octet {at}");
        }
    }

    #[test]
    fn orphans_out_of_order_or_outside_of_their_page_are_refused() {
        let wrong = |change: fn(&mut OrphanPageContent)| {
            let mut content = content();
            change(&mut content);
            OrphanPage::new(content).check()
        };

        assert!(wrong(|_| {}).is_ok());
        for refused in [
            wrong(|page| page.orphans.reverse()),
            wrong(|page| page.common.sequence = 5),
            wrong(|page| page.end = 6),
        ] {
            assert!(matches!(refused, Err(AdoptError::Damaged { .. })), "{refused:?}");
        }
    }
}
