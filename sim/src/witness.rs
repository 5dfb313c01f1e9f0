//! The witness: one record, changed by compare-and-set, each request at one instant.

use pairing::{OwnershipRecord, RecordVersion, StoredRecord};

/// What a pool asks of the witness.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Read,
    CompareAndSet { expected: Option<RecordVersion>, record: OwnershipRecord },
}

/// What the witness answers.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Found(Option<StoredRecord>),
    Swapped(RecordVersion),
    Refused(Option<StoredRecord>),
}

#[derive(Debug, Default)]
pub(crate) struct Witness {
    stored: Option<StoredRecord>,
    version: u64,
}

impl Witness {
    pub(crate) fn stored(&self) -> Option<&StoredRecord> {
        self.stored.as_ref()
    }

    pub(crate) fn answer(&mut self, question: Question) -> Reply {
        match question {
            Question::Read => Reply::Found(self.stored.clone()),
            Question::CompareAndSet { expected, record } => {
                if expected != self.stored.as_ref().map(|stored| stored.version) {
                    return Reply::Refused(self.stored.clone());
                }
                self.version += 1;
                let version = RecordVersion(self.version);
                self.stored = Some(StoredRecord { version, record });
                Reply::Swapped(version)
            }
        }
    }
}
