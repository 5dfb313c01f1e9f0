//! The user data of one home pool in one pool, as far as recovery needs them: a journal and the bindings.

use std::collections::{BTreeMap, BTreeSet};

use model::Epoch;

/// One acknowledged or copied change; its number is its place in the journal, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) epoch: Epoch,
    /// Identity of the change, never used twice.
    pub(crate) operation: u64,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A document was replaced; `base` is the operation that had made it what it was, 0 for none.
    Document { document: u8, base: u64 },
    /// An orphan that could not be applied, kept for an operator.
    Conflict,
    /// A call record of this branch.
    Record { branch: usize },
}

/// The last entry a reader holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) sequence: usize,
    pub(crate) epoch: Epoch,
}

/// What a pool keeps on disk of a home pool's user data.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    journal: Vec<Entry>,
    operations: BTreeSet<u64>,
    /// Device and the newest registration of it.
    pub(crate) bindings: BTreeMap<u8, u64>,
    /// The highest epoch seen: nothing older is written or applied.
    pub(crate) fence: Epoch,
    /// Its disk was lost: it holds nothing until it has copied everything.
    pub(crate) is_blank: bool,
}

impl Store {
    /// A store on a new disk that replaces a lost one.
    pub(crate) fn blank() -> Self {
        Self { is_blank: true, ..Self::default() }
    }

    pub(crate) const fn len(&self) -> usize {
        self.journal.len()
    }

    pub(crate) fn has(&self, operation: u64) -> bool {
        self.operations.contains(&operation)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.journal
    }

    pub(crate) fn after(&self, sequence: usize) -> &[Entry] {
        self.journal.get(sequence..).unwrap_or_default()
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        self.operations.insert(entry.operation);
        self.journal.push(entry);
    }

    /// The operation that made a document what it is, 0 for none.
    pub(crate) fn current(&self, document: u8) -> u64 {
        let is_it =
            |entry: &&Entry| matches!(entry.kind, Kind::Document { document: it, .. } if it == document);
        self.journal.iter().rev().find(is_it).map_or(0, |entry| entry.operation)
    }

    pub(crate) fn records_of(&self, branch: usize) -> impl Iterator<Item = u64> {
        let is_it = move |entry: &&Entry| entry.kind == Kind::Record { branch };
        self.journal.iter().filter(is_it).map(|entry| entry.operation)
    }

    pub(crate) fn cursor(&self) -> Cursor {
        let epoch = self.journal.last().map_or(Epoch::ZERO, |entry| entry.epoch);
        Cursor { sequence: self.journal.len(), epoch }
    }

    /// Whether a reader's last entry is one of this journal.
    pub(crate) fn has_cursor(&self, cursor: Cursor) -> bool {
        let at = cursor.sequence.checked_sub(1).map(|at| self.journal.get(at));
        at.is_none_or(|entry| entry.is_some_and(|entry| entry.epoch == cursor.epoch))
    }

    /// For each epoch the number of its last entry: enough to find where two journals part.
    pub(crate) fn marks(&self) -> Vec<(Epoch, usize)> {
        let mut marks: Vec<(Epoch, usize)> = Vec::new();
        for (at, entry) in self.journal.iter().enumerate() {
            match marks.last_mut() {
                Some((epoch, last)) if *epoch == entry.epoch => *last = at + 1,
                Some(_) | None => marks.push((entry.epoch, at + 1)),
            }
        }
        marks
    }

    /// How many entries this journal has in common with the one of these marks.
    pub(crate) fn common(&self, marks: &[(Epoch, usize)]) -> usize {
        let mut common = 0;
        for (at, entry) in self.journal.iter().enumerate() {
            if !marks_have(marks, at + 1, entry.epoch) {
                break;
            }
            common = at + 1;
        }
        common
    }

    /// Applies entries that follow the first `after`; what is held already is skipped. Returns whether all of
    /// them are held now.
    pub(crate) fn apply(&mut self, after: usize, entries: &[Entry]) -> bool {
        if after > self.journal.len() {
            return false;
        }
        for (at, entry) in entries.iter().enumerate() {
            match self.journal.get(after + at) {
                Some(held) if held == entry => {}
                Some(_) => return false,
                None => self.append(*entry),
            }
        }
        true
    }

    pub(crate) fn truncate(&mut self, sequence: usize) {
        self.journal.truncate(sequence);
        self.operations = self.journal.iter().map(|entry| entry.operation).collect();
    }

    pub(crate) fn merge_bindings(&mut self, bindings: &BTreeMap<u8, u64>) {
        for (&device, &operation) in bindings {
            let newest = self.bindings.entry(device).or_default();
            *newest = operation.max(*newest);
        }
    }

    /// The owner takes an orphan in: applied where nothing changed since, else kept as a conflict.
    pub(crate) fn adopt(&mut self, orphan: Entry, epoch: Epoch) {
        if self.has(orphan.operation) {
            return;
        }
        let kind = match orphan.kind {
            Kind::Document { document, base } if self.current(document) != base => Kind::Conflict,
            kind @ (Kind::Document { .. } | Kind::Conflict | Kind::Record { .. }) => kind,
        };
        self.append(Entry { epoch, kind, ..orphan });
    }
}

/// Whether the journal of these marks has an entry of this number in this epoch.
fn marks_have(marks: &[(Epoch, usize)], sequence: usize, epoch: Epoch) -> bool {
    let mut first = 1;
    for &(it, last) in marks {
        if (first..=last).contains(&sequence) {
            return it == epoch;
        }
        first = last + 1;
    }
    false
}
