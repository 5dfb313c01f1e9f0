//! Pages of a journal: what a partner, a branch or a director pulls.
//!
//! Every change has the next number of its journal. A page covers the numbers after one cursor up to another
//! without a gap. It carries, in order, the changes that still matter and are in its scope: one that a later
//! change of the same account or document replaced is left out. A reader that has applied a page holds
//! everything of its scope up to the end of the page. Wire format: docs/protocols/journal.md.

use model::{AddressOfRecord, Epoch, PoolName, WallTime, documents::Document};
use serde::{Deserialize, Serialize};

use crate::{
    ApplyError, ConflictId, Credentials, DigestAlgorithm, OperationId, OrphanedWrite, Scope, Subject,
    sealed::{Sealed, as_json},
};

const PURPOSE: &str = "journal page 2";

/// How far a reader has got in a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Whose journal.
    pub journal: PoolName,
    /// Number of the last change the reader holds; 0 = none.
    pub sequence: u64,
    /// Epoch of that change; zero at the start.
    pub epoch: Epoch,
}

impl Cursor {
    /// Before the first change.
    pub const fn start(journal: PoolName) -> Self {
        Self { journal, sequence: 0, epoch: Epoch::ZERO }
    }
}

/// Where an epoch begins in a journal. Changes before the first of these were made under epoch zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// Number of its first change.
    pub first: u64,
}

/// A run of changes, as sent from one store to another. Its checksum covers every field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page(Sealed<PageContent>);

/// What a page says; see the methods of [`Page`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageContent {
    /// What a reader is given of each change.
    pub scope: Scope,
    /// Highest epoch the sender has seen for this journal.
    pub epoch: Epoch,
    /// Where the page begins.
    pub after: Cursor,
    /// Number of the last change that the page covers.
    pub end_sequence: u64,
    /// Epoch of that change.
    pub end_epoch: Epoch,
    /// The epochs that begin in the page, in order.
    pub starts: Vec<EpochStart>,
    /// The changes, in order.
    pub entries: Vec<Entry>,
    /// Whether the sender had no more when it made the page.
    pub is_end: bool,
}

/// A change that still matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Number of the change.
    pub sequence: u64,
    /// Epoch under which it was made.
    pub epoch: Epoch,
    /// The operation that made it.
    pub operation: OperationId,
    /// Whose data.
    pub aor: AddressOfRecord,
    /// When it was made, by the clock of who made it.
    pub changed_at: WallTime,
    /// What there is since.
    pub state: EntryState,
}

/// What there is after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryState {
    /// Nothing.
    Removed(Subject),
    /// An account, secrets included.
    Account {
        /// Where the user is homed.
        home: PoolName,
        /// What proves the password.
        credentials: Credentials,
        /// Digest algorithms to offer; `None` = as the pool's settings say.
        algorithms: Option<Vec<DigestAlgorithm>>,
    },
    /// An account of which the reader is told only this.
    Listed {
        /// Where the user is homed.
        home: PoolName,
    },
    /// A document.
    Document(#[serde(with = "as_json")] Document),
    /// A conflict that waits for the operator.
    Conflict(ConflictId, #[serde(with = "as_json")] ConflictContent),
}

/// What a conflict holds of the orphan that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictContent {
    /// When the orphan was made, by the clock of who made it.
    pub made_at: WallTime,
    /// Under which epoch.
    pub epoch: Epoch,
    /// What it wrote.
    pub write: OrphanedWrite,
}

impl EntryState {
    /// What it is the state of.
    pub const fn subject(&self) -> Subject {
        match self {
            Self::Removed(subject) => *subject,
            Self::Account { .. } | Self::Listed { .. } => Subject::Account,
            Self::Document(document) => Subject::Document(document.kind()),
            Self::Conflict(id, _) => Subject::Conflict(*id),
        }
    }

    /// Whether a reader of this scope is given it.
    fn is_in(&self, scope: &Scope) -> bool {
        match (self, scope) {
            (Self::Removed(Subject::Account), _) => true,
            (Self::Listed { .. }, Scope::Directory) => true,
            (Self::Listed { .. }, Scope::Everything) => false,
            (_, Scope::Everything) => true,
            (Self::Account { home, .. }, Scope::Branch(branch)) => home == branch,
            (Self::Listed { home }, Scope::Branch(branch)) => home != branch,
            (Self::Document(_) | Self::Removed(_) | Self::Conflict(..), Scope::Branch(_)) => {
                match self.subject() {
                    Subject::Document(kind) => kind.is_for_branch(),
                    Subject::Account | Subject::Conflict(_) => false,
                }
            }
            (_, Scope::Directory) => false,
        }
    }
}

impl Page {
    /// A page with this content and its checksum.
    pub fn new(content: PageContent) -> Self {
        Self(Sealed::new(PURPOSE, content))
    }

    /// What a reader is given of each change.
    pub const fn scope(&self) -> &Scope {
        &self.0.content.scope
    }

    /// Highest epoch the sender has seen for this journal.
    pub const fn epoch(&self) -> Epoch {
        self.0.content.epoch
    }

    /// Where the page begins.
    pub const fn after(&self) -> &Cursor {
        &self.0.content.after
    }

    /// The changes, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.0.content.entries
    }

    /// The epochs that begin in the page, in order.
    pub fn starts(&self) -> &[EpochStart] {
        &self.0.content.starts
    }

    /// The epoch of a change that the page covers, and of the one before it.
    pub fn epoch_at(&self, sequence: u64) -> Epoch {
        self.0.content.epoch_at(sequence)
    }

    /// Whether the sender had no more when it made the page.
    pub const fn is_end(&self) -> bool {
        self.0.content.is_end
    }

    /// The cursor to ask with for the next page.
    pub fn next(&self) -> Cursor {
        let PageContent { after, end_sequence, end_epoch, .. } = &self.0.content;
        Cursor { journal: after.journal.clone(), sequence: *end_sequence, epoch: *end_epoch }
    }

    /// Whether it brings its reader further. A page may do so without any entry: what it covers was replaced
    /// or is outside its scope.
    pub fn has_news(&self) -> bool {
        self.0.content.end_sequence > self.0.content.after.sequence
    }

    /// The page as octets: postcard encoding, docs/protocols/journal.md.
    pub fn encode(&self) -> Vec<u8> {
        self.0.encode()
    }

    /// Reads what [`Self::encode`] made.
    ///
    /// Errors: [`ApplyError::Damaged`] when the octets are no page or the checksum differs.
    pub fn decode(octets: &[u8]) -> Result<Self, ApplyError> {
        let sealed = Sealed::decode(PURPOSE, octets).map_err(|found| ApplyError::Damaged { found })?;
        let page = Self(sealed);
        page.check()?;
        Ok(page)
    }

    /// Whether the page is what its sender made: checksum, numbers and epochs in order, nothing outside of
    /// its scope.
    ///
    /// Errors: [`ApplyError::Damaged`].
    pub fn check(&self) -> Result<(), ApplyError> {
        self.0
            .check(PURPOSE)
            .and_then(|()| self.0.content.check())
            .map_err(|found| ApplyError::Damaged { found })
    }
}

impl PageContent {
    fn check(&self) -> Result<(), String> {
        let mut last = EpochStart { epoch: self.after.epoch, first: self.after.sequence };
        for start in &self.starts {
            if start.first <= last.first || start.epoch <= last.epoch || start.first > self.end_sequence {
                return Err(format!("epoch {} begins at {}", start.epoch, start.first));
            }
            last = *start;
        }
        if self.end_sequence < self.after.sequence || self.end_epoch != last.epoch {
            return Err(format!("it ends at {} with epoch {}", self.end_sequence, self.end_epoch));
        }
        if self.end_epoch > self.epoch {
            return Err(format!("it ends with epoch {} above its own {}", self.end_epoch, self.epoch));
        }
        let mut sequence = self.after.sequence;
        for entry in &self.entries {
            if entry.sequence <= sequence || entry.sequence > self.end_sequence {
                return Err(format!("entry {} follows {sequence}", entry.sequence));
            }
            if entry.epoch != self.epoch_at(entry.sequence) {
                return Err(format!("entry {} has epoch {}", entry.sequence, entry.epoch));
            }
            if !entry.state.is_in(&self.scope) {
                return Err(format!("entry {} does not belong to scope {}", entry.sequence, self.scope));
            }
            sequence = entry.sequence;
        }
        Ok(())
    }

    fn epoch_at(&self, sequence: u64) -> Epoch {
        let start = self.starts.iter().rev().find(|start| start.first <= sequence);
        start.map_or(self.after.epoch, |start| start.epoch)
    }
}

#[cfg(test)]
mod tests {
    use model::documents::{Edit, UserSettings};
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn a_page_survives_encoding_and_any_changed_octet_is_found() {
        let page = Page::new(content());
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
        let mut expected = b"\x0aeverything\x02\x04east\x04\x01\x09\x02".to_vec();
        expected.extend([1, 2, 6]); // epoch 2 begins with change 6
        expected.extend([2, 8, 2, 77]); // two entries, the first under number 8, epoch 2, operation 77
        expected.extend(b"\x15sip:alice@example.com");
        expected.extend([0x80, 0x94, 0xeb, 0xdc, 0x03]); // 1,000,000,000 as a varint
        expected.extend(b"\x01\x04hill");
        expected.extend([1; 16].iter().chain(&[2; 32]));
        expected.extend([1, 1, 0]);
        expected.extend([9, 2, 78]);
        expected.extend(b"\x15sip:alice@example.com");
        expected.extend([0x80, 0x94, 0xeb, 0xdc, 0x03, 3]);
        let json = br#"{"voice_policy":{"calls":"everybody","no_forwarding_outside":false}}"#;
        expected.push(u8::try_from(json.len()).unwrap());
        expected.extend(json);
        expected.push(1);
        let checksum =
            Sha256::new().chain_update(b"tandem journal page 2\n").chain_update(&expected).finalize();

        let octets = Page::new(content()).encode();

        assert_eq!(octets, [expected.as_slice(), checksum.as_slice()].concat());
    }

    #[test]
    fn a_page_out_of_order_or_with_what_is_not_in_its_scope_is_refused() {
        let wrong = |change: fn(&mut PageContent)| {
            let mut content = content();
            change(&mut content);
            Page::new(content).check()
        };

        assert!(wrong(|_| {}).is_ok());
        for refused in [
            wrong(|page| page.entries.reverse()),
            wrong(|page| page.after.sequence = 8),
            wrong(|page| page.end_sequence = 8),
            wrong(|page| page.end_sequence = 3),
            wrong(|page| page.end_epoch = Epoch::new(1)),
            wrong(|page| page.epoch = Epoch::new(1)),
            wrong(|page| page.starts.clear()),
            wrong(|page| page.starts.push(EpochStart { epoch: Epoch::new(2), first: 7 })),
            wrong(|page| page.starts.push(EpochStart { epoch: Epoch::new(3), first: 10 })),
            wrong(|page| page.scope = Scope::Directory),
            wrong(|page| page.scope = Scope::Branch(PoolName::new("lake").unwrap())),
        ] {
            assert!(matches!(refused, Err(ApplyError::Damaged { .. })), "{refused:?}");
        }
        assert!(wrong(|page| page.scope = Scope::Branch(PoolName::new("hill").unwrap())).is_ok());
    }

    #[test]
    fn a_directory_and_a_branch_are_given_no_contact_lists_and_no_secrets_of_others() {
        let (hill, lake) = (PoolName::new("hill").unwrap(), PoolName::new("lake").unwrap());
        let branch = Scope::Branch(hill.clone());
        let list = EntryState::Document(Document::empty(model::documents::DocumentKind::ContactList));
        let settings = EntryState::Document(Document::empty(Edit::Settings(UserSettings::default()).kind()));
        let listed = EntryState::Listed { home: lake };

        assert!(list.is_in(&Scope::Everything) && !list.is_in(&branch) && !list.is_in(&Scope::Directory));
        assert!(settings.is_in(&branch) && !settings.is_in(&Scope::Directory));
        assert!(
            listed.is_in(&branch) && listed.is_in(&Scope::Directory) && !listed.is_in(&Scope::Everything)
        );
        assert!(!EntryState::Listed { home: hill }.is_in(&branch));
    }

    fn content() -> PageContent {
        let entry = |sequence, operation, state| Entry {
            sequence,
            epoch: Epoch::new(2),
            operation: OperationId::new(operation),
            aor: AddressOfRecord::new("sip:alice@example.com").unwrap(),
            changed_at: WallTime::from_secs(1_000),
            state,
        };
        let account = EntryState::Account {
            home: PoolName::new("hill").unwrap(),
            credentials: Credentials { ha1_md5: [1; 16], ha1_sha256: [2; 32] },
            algorithms: Some(vec![DigestAlgorithm::Md5]),
        };
        let policy = EntryState::Document(Document::empty(model::documents::DocumentKind::VoicePolicy));
        PageContent {
            scope: Scope::Everything,
            epoch: Epoch::new(2),
            after: Cursor { journal: PoolName::new("east").unwrap(), sequence: 4, epoch: Epoch::new(1) },
            end_sequence: 9,
            end_epoch: Epoch::new(2),
            starts: vec![EpochStart { epoch: Epoch::new(2), first: 6 }],
            entries: vec![entry(8, 77, account), entry(9, 78, policy)],
            is_end: true,
        }
    }
}
