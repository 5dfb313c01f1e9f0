//! The transaction of [`crate::UserStore::commit`].

use std::path::Path;

use model::{
    AddressOfRecord, Epoch, PoolName, WallTime,
    documents::{ContactListEdit, Document, DocumentKind, Edit, EditError},
    limits,
};
use rusqlite::Connection;

use super::{
    Written,
    ledger::{Draft, Held, Ledger, LedgerError, derived},
};
use crate::{
    Change, CommitError, Committed, Condition, ConflictContent, ConflictId, Credentials, DigestAlgorithm,
    EntryState, OperationId, OrphanedWrite, Resolution, StoreError, Subject, Write,
};

/// Makes the changes inside a transaction that the caller commits.
pub(super) fn commit(
    connection: &Connection,
    file: &Path,
    journal: &PoolName,
    epoch: Epoch,
    changes: &[Change],
) -> Result<Written<Vec<Committed>>, CommitError> {
    let max = limits::ACCOUNTS_PER_PAGE_MAX;
    if changes.len() > max {
        return Err(CommitError::TooMany { found: changes.len(), max });
    }
    let mut ledger = Ledger::open(connection, file, journal)?;
    ledger.admit::<CommitError>(epoch)?;
    if !ledger.holds_everything()? {
        return Err(CommitError::HoldsLess { journal: journal.clone() });
    }
    let mut writer = Writer { ledger, epoch };
    if let Some(first) = changes.first() {
        writer.ledger.own_leftovers(epoch, first.changed_at, first.operation)?;
    }
    let mut answer = Vec::with_capacity(changes.len());
    for change in changes {
        answer.push(match writer.find_repeated(change)? {
            Some(repeated) => repeated,
            None => writer.execute(change)?,
        });
    }
    Ok(writer.ledger.finish(answer)?)
}

/// Writes changes of the owner.
pub(super) struct Writer<'a> {
    pub(super) ledger: Ledger<'a>,
    pub(super) epoch: Epoch,
}

impl Writer<'_> {
    /// What was answered when this operation was executed, if it was.
    fn find_repeated(&self, change: &Change) -> Result<Option<Committed>, CommitError> {
        let Some(found) = self.ledger.operation(change.operation)? else { return Ok(None) };
        let (subject, is_removal) = match &change.write {
            Write::PutAccount { .. } => (Subject::Account, false),
            Write::RemoveAccount => (Subject::Account, true),
            Write::Edit(edit) => (Subject::Document(edit.kind()), false),
            Write::Resolve { conflict, .. } => (Subject::Conflict(*conflict), true),
        };
        let is_same = found.aor == change.aor.as_str()
            && found.subject == Some(subject)
            && found.is_removal == is_removal;
        if !is_same {
            return Err(CommitError::OperationReused { operation: change.operation });
        }
        Ok(Some(Committed { version: found.sequence, is_repeated: true }))
    }

    fn execute(&mut self, change: &Change) -> Result<Committed, CommitError> {
        let origin = Origin {
            operation: change.operation,
            aor: &change.aor,
            changed_at: change.changed_at,
            written_at: change.changed_at,
        };
        let condition = change.condition;
        let version = match &change.write {
            Write::PutAccount { home, credentials, algorithms } => {
                let account =
                    Put { home: home.clone(), credentials: *credentials, algorithms: algorithms.clone() };
                self.put(origin, condition, account)?
            }
            Write::RemoveAccount => self.remove(origin, condition)?,
            Write::Edit(edit) => return self.edit(origin, condition, edit),
            Write::Resolve { conflict, resolution } => {
                self.resolve(origin, condition, *conflict, *resolution)?
            }
        };
        Ok(Committed { version, is_repeated: false })
    }

    fn put(&mut self, origin: Origin<'_>, condition: Condition, account: Put) -> Result<u64, CommitError> {
        let elsewhere = self.ledger.homes_elsewhere(origin.aor)?;
        if condition == Condition::Absent && !elsewhere.is_empty() {
            return Err(CommitError::Exists { aor: origin.aor.clone(), subject: Subject::Account });
        }
        self.check(origin.aor, Subject::Account, condition)?;
        if let Some(home) = elsewhere.into_iter().find(|home| *home != account.home) {
            return Err(CommitError::HomedElsewhere { aor: origin.aor.clone(), home });
        }
        Ok(self.put_account(origin, account)?)
    }

    /// Writes an account; when its home changes, restates what a branch holds of its users.
    pub(super) fn put_account(&mut self, origin: Origin<'_>, account: Put) -> Result<u64, LedgerError> {
        let before = self.ledger.entry(origin.aor, Subject::Account)?.map(|entry| entry.state);
        let is_moved = matches!(before, Some(EntryState::Account { home, .. }) if home != account.home);
        let Put { home, credentials, algorithms } = account;
        let version = self.write(origin, EntryState::Account { home, credentials, algorithms }, None)?;
        if is_moved {
            for entry in self.ledger.belongings(origin.aor)? {
                if matches!(entry.state.subject(), Subject::Document(kind) if kind.is_for_branch()) {
                    self.ledger.restate(self.epoch, origin.written_at, origin.operation, entry)?;
                }
            }
        }
        Ok(version)
    }

    fn remove(&mut self, origin: Origin<'_>, condition: Condition) -> Result<u64, CommitError> {
        if self.check(origin.aor, Subject::Account, condition)?.is_none() {
            return Err(self.missing(origin.aor));
        }
        Ok(self.remove_account(origin)?)
    }

    /// Removes an account and everything of the user in this journal.
    pub(super) fn remove_account(&mut self, origin: Origin<'_>) -> Result<u64, LedgerError> {
        let version = self.write(origin, EntryState::Removed(Subject::Account), None)?;
        for entry in self.ledger.belongings(origin.aor)? {
            let subject = entry.state.subject();
            let operation = derived(origin.operation, "removed", origin.aor, subject);
            self.write(Origin { operation, ..origin }, EntryState::Removed(subject), None)?;
        }
        Ok(version)
    }

    fn edit(
        &mut self,
        origin: Origin<'_>,
        condition: Condition,
        edit: &Edit,
    ) -> Result<Committed, CommitError> {
        if !self.may_have(origin.aor, edit.kind())? {
            return Err(self.missing(origin.aor));
        }
        if condition != Condition::Any {
            self.check(origin.aor, Subject::Document(edit.kind()), condition)?;
        }
        let before = self.document(origin.aor, edit.kind())?;
        let mut after = before.document.clone();
        after.apply(edit).map_err(|source| CommitError::Edit { aor: origin.aor.clone(), source })?;
        if matches!(edit, Edit::CallRecord(_)) && before.version > 0 && after == before.document {
            return Ok(Committed { version: before.version, is_repeated: true });
        }
        let version = self.write(origin, EntryState::Document(after), Some(edit))?;
        Ok(Committed { version, is_repeated: false })
    }

    /// Whether a document of this kind can be of this user here: a branch keeps call records in its own
    /// journal, of users whose accounts are in another.
    pub(super) fn may_have(&self, aor: &AddressOfRecord, kind: DocumentKind) -> Result<bool, StoreError> {
        match kind {
            DocumentKind::CallLog => self.ledger.is_known(aor),
            DocumentKind::ContactList | DocumentKind::Settings | DocumentKind::VoicePolicy => {
                Ok(self.present(aor, Subject::Account)?.is_some())
            }
        }
    }

    fn resolve(
        &mut self,
        origin: Origin<'_>,
        condition: Condition,
        id: ConflictId,
        resolution: Resolution,
    ) -> Result<u64, CommitError> {
        let subject = Subject::Conflict(id);
        let none = || CommitError::NoConflict { aor: origin.aor.clone(), id };
        let entry = self.ledger.entry(origin.aor, subject)?.ok_or_else(none)?;
        let EntryState::Conflict(_, content) = entry.state else { return Err(none()) };
        self.check(origin.aor, subject, condition)?;
        let version = self.write(origin, EntryState::Removed(subject), None)?;
        match resolution {
            Resolution::KeepPresent => {}
            Resolution::ApplyOrphan => self.apply_orphan(origin, content)?,
        }
        Ok(version)
    }

    fn apply_orphan(&mut self, origin: Origin<'_>, content: ConflictContent) -> Result<(), CommitError> {
        let subject = content.write.subject();
        let operation = derived(origin.operation, "applied", origin.aor, subject);
        let origin = Origin { operation, ..origin };
        match content.write {
            OrphanedWrite::Account { home, credentials, algorithms } => {
                self.put(origin, Condition::Any, Put { home, credentials, algorithms })?;
            }
            OrphanedWrite::AccountRemoved => {
                self.remove(origin, Condition::Any)?;
            }
            OrphanedWrite::Edit(edit) => {
                self.edit(origin, Condition::Any, &edit)?;
            }
            OrphanedWrite::DocumentRemoved(_) => {
                if self.present(origin.aor, subject)?.is_some() {
                    self.write(origin, EntryState::Removed(subject), None)?;
                }
            }
            OrphanedWrite::Document(orphan) => {
                if !self.may_have(origin.aor, orphan.kind())? {
                    return Err(self.missing(origin.aor));
                }
                let present = self.document(origin.aor, orphan.kind())?.document;
                let refused = |source| CommitError::Edit { aor: origin.aor.clone(), source };
                let united = unite(present, &orphan).map_err(refused)?;
                self.write(origin, EntryState::Document(united), None)?;
            }
        }
        Ok(())
    }

    /// A document as it is now; empty with version 0 before its first edit.
    pub(super) fn document(&self, aor: &AddressOfRecord, kind: DocumentKind) -> Result<Present, StoreError> {
        let entry = self.ledger.entry(aor, Subject::Document(kind))?;
        Ok(match entry.map(|entry| (entry.sequence, entry.state)) {
            Some((version, EntryState::Document(document))) => Present { version, document },
            Some(_) | None => Present { version: 0, document: Document::empty(kind) },
        })
    }

    pub(super) fn write(
        &mut self,
        origin: Origin<'_>,
        state: EntryState,
        edit: Option<&Edit>,
    ) -> Result<u64, LedgerError> {
        let Origin { operation, aor, changed_at, written_at } = origin;
        let draft = Draft { operation, aor: aor.clone(), changed_at, state };
        self.ledger.write(self.epoch, written_at, draft, edit)
    }

    /// What is held of a subject when it is not removed.
    pub(super) fn present(
        &self,
        aor: &AddressOfRecord,
        subject: Subject,
    ) -> Result<Option<Held>, StoreError> {
        Ok(self.ledger.held(aor, subject)?.filter(|held| !held.is_removed))
    }

    fn check(
        &self,
        aor: &AddressOfRecord,
        subject: Subject,
        condition: Condition,
    ) -> Result<Option<Held>, CommitError> {
        let present = self.present(aor, subject)?;
        let found = present.map_or(0, |held| held.version);
        match condition {
            Condition::Absent if present.is_some() => Err(CommitError::Exists { aor: aor.clone(), subject }),
            Condition::Version(expected) if present.is_none() || found != expected => {
                Err(CommitError::Changed { aor: aor.clone(), subject, expected, found })
            }
            Condition::Absent | Condition::Version(_) | Condition::Any => Ok(present),
        }
    }

    fn missing(&self, aor: &AddressOfRecord) -> CommitError {
        CommitError::Missing { aor: aor.clone(), journal: self.ledger.row.name.clone() }
    }
}

/// Where a change comes from.
#[derive(Clone, Copy)]
pub(super) struct Origin<'c> {
    pub(super) operation: OperationId,
    pub(super) aor: &'c AddressOfRecord,
    /// When it was asked for.
    pub(super) changed_at: WallTime,
    /// When it came into this journal.
    pub(super) written_at: WallTime,
}

/// What an account shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) home: PoolName,
    pub(super) credentials: Credentials,
    pub(super) algorithms: Option<Vec<DigestAlgorithm>>,
}

/// A document before a change.
pub(super) struct Present {
    pub(super) version: u64,
    pub(super) document: Document,
}

/// Two versions of a document with nothing of either lost; of documents that are replaced as a whole, the
/// orphan.
pub(super) fn unite(mut present: Document, orphan: &Document) -> Result<Document, EditError> {
    match orphan {
        Document::ContactList(list) => {
            for group in list.groups() {
                let edit = ContactListEdit::PutGroup { group: group.clone() };
                present.apply(&Edit::ContactList(edit))?;
            }
            for (contact, listed) in list.contacts() {
                let edit = ContactListEdit::Put { contact: contact.clone(), listed: listed.clone() };
                present.apply(&Edit::ContactList(edit))?;
            }
        }
        Document::CallLog(log) => {
            for record in log.records() {
                present.apply(&Edit::CallRecord(record.clone()))?;
            }
        }
        Document::Settings(settings) => present.apply(&Edit::Settings(settings.clone()))?,
        Document::VoicePolicy(policy) => present.apply(&Edit::VoicePolicy(policy.clone()))?,
    }
    Ok(present)
}
