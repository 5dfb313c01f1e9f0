//! Orphans at the owner: each becomes its own change, or a conflict for the operator.

use std::path::Path;

use model::{
    AddressOfRecord, Epoch, WallTime,
    documents::{Document, DocumentKind, Edit},
    limits,
};
use rusqlite::{Connection, params};

use super::{
    Written,
    commit::{Origin, Put, Writer, unite},
    ledger::{Ledger, derived},
    rows::number,
};
use crate::{
    AdoptError, Adopted, Adoption, ConflictContent, ConflictId, EntryState, OperationId, Orphan,
    OrphanContent, OrphanPage, OrphanedWrite, StoreError, Subject, sealed::json,
};

/// Adopts a page of orphans inside a transaction that the caller commits.
pub(super) fn adopt(
    connection: &Connection,
    file: &Path,
    epoch: Epoch,
    now: WallTime,
    page: &OrphanPage,
) -> Result<Written<Vec<Adopted>>, AdoptError> {
    let (common, max) = (page.common(), limits::ACCOUNTS_PER_PAGE_MAX);
    if page.orphans().len() > max {
        return Err(AdoptError::TooMany { found: page.orphans().len(), max });
    }
    let mut ledger = Ledger::open(connection, file, &common.journal)?;
    ledger.admit::<AdoptError>(epoch)?;
    if !ledger.holds_everything()? {
        return Err(AdoptError::HoldsLess { journal: common.journal.clone() });
    }
    let agrees = ledger.row.agrees(connection, common).map_err(|error| ledger.read_error(error))?;
    if let Err(ours) = agrees {
        return Err(AdoptError::NotCommon { common: common.clone(), ours });
    }
    let mut owner = Owner { writer: Writer { ledger, epoch }, now, common: common.sequence };
    if let Some(first) = page.orphans().first() {
        owner.writer.ledger.own_leftovers(epoch, now, first.operation)?;
    }
    let mut answer = Vec::with_capacity(page.orphans().len());
    for orphan in page.orphans() {
        let outcome = owner.adopt(orphan)?;
        owner.restate(orphan)?;
        answer.push(Adopted { sequence: orphan.sequence, operation: orphan.operation, outcome });
    }
    Ok(owner.writer.ledger.finish(answer)?)
}

/// The owner, to whom orphans are offered.
struct Owner<'a> {
    writer: Writer<'a>,
    now: WallTime,
    /// Number of the last change that both have.
    common: u64,
}

impl Owner<'_> {
    fn adopt(&mut self, orphan: &Orphan) -> Result<Adoption, AdoptError> {
        let conflict = Subject::Conflict(conflict_id(orphan));
        let was_kept = self.writer.ledger.held(&orphan.aor, conflict)?.is_some();
        if was_kept || self.writer.ledger.operation(own_operation(orphan))?.is_some() {
            return Ok(Adoption::Known);
        }
        let outcome = match &orphan.content {
            OrphanContent::Write(write) => self.adopt_write(orphan, write)?,
            OrphanContent::Conflict(id, content) => self.adopt_conflict(orphan, *id, content)?,
            OrphanContent::ConflictEnded(id) => self.end_conflict(orphan, *id)?,
        };
        if let (Adoption::Conflict, OrphanContent::Write(write)) = (outcome, &orphan.content) {
            self.keep_conflict(orphan, write)?;
        }
        Ok(outcome)
    }

    fn adopt_write(&mut self, orphan: &Orphan, write: &OrphanedWrite) -> Result<Adoption, AdoptError> {
        match write {
            OrphanedWrite::Account { home, credentials, algorithms } => {
                let (home, algorithms) = (home.clone(), algorithms.clone());
                self.adopt_account(orphan, Put { home, credentials: *credentials, algorithms })
            }
            OrphanedWrite::AccountRemoved => self.adopt_removal(orphan),
            OrphanedWrite::Edit(edit) => self.adopt_edit(orphan, edit),
            OrphanedWrite::Document(document) => self.adopt_document(orphan, document),
            OrphanedWrite::DocumentRemoved(kind) => {
                let subject = Subject::Document(*kind);
                let is_there = self.writer.present(&orphan.aor, subject)?.is_some();
                let is_changed = self.is_changed(&orphan.aor, subject)?
                    || self.is_changed(&orphan.aor, Subject::Account)?;
                if !is_there || is_changed {
                    return Ok(Adoption::Known);
                }
                self.write(orphan, EntryState::Removed(subject), None)
            }
        }
    }

    fn adopt_account(&mut self, orphan: &Orphan, account: Put) -> Result<Adoption, AdoptError> {
        let present = self.writer.ledger.entry(&orphan.aor, Subject::Account)?;
        let Put { home, credentials, algorithms } = account.clone();
        let wanted = EntryState::Account { home, credentials, algorithms };
        if present.is_some_and(|entry| entry.state == wanted) {
            return Ok(Adoption::Known);
        }
        let elsewhere = self.writer.ledger.homes_elsewhere(&orphan.aor)?;
        let is_taken = elsewhere.iter().any(|home| *home != account.home);
        if is_taken || self.is_changed(&orphan.aor, Subject::Account)? {
            return Ok(Adoption::Conflict);
        }
        let origin = self.origin(orphan);
        self.writer.put_account(origin, account)?;
        Ok(Adoption::Applied)
    }

    /// A removal is an orphan like others: it does not take along what was written since.
    fn adopt_removal(&mut self, orphan: &Orphan) -> Result<Adoption, AdoptError> {
        if self.writer.present(&orphan.aor, Subject::Account)?.is_none() {
            return Ok(Adoption::Known);
        }
        for subject in [
            Subject::Account,
            Subject::Document(DocumentKind::ContactList),
            Subject::Document(DocumentKind::Settings),
            Subject::Document(DocumentKind::VoicePolicy),
        ] {
            if self.is_changed(&orphan.aor, subject)? {
                return Ok(Adoption::Conflict);
            }
        }
        let origin = self.origin(orphan);
        self.writer.remove_account(origin)?;
        Ok(Adoption::Applied)
    }

    fn adopt_edit(&mut self, orphan: &Orphan, edit: &Edit) -> Result<Adoption, AdoptError> {
        if !edit.is_mergeable() {
            let mut document = Document::empty(edit.kind());
            return match document.apply(edit) {
                Ok(()) => self.adopt_document(orphan, &document),
                Err(_) => Ok(Adoption::Conflict),
            };
        }
        if let Some(outcome) = self.without_user(orphan, edit.kind())? {
            return Ok(outcome);
        }
        let is_changed = self.is_changed(&orphan.aor, Subject::Document(edit.kind()))?;
        let present = self.writer.document(&orphan.aor, edit.kind())?;
        let mut after = present.document.clone();
        if after.apply(edit).is_err() || is_too_large(&after) {
            return Ok(Adoption::Conflict);
        }
        if matches!(edit, Edit::CallRecord(_)) && after == present.document {
            return Ok(Adoption::Known);
        }
        self.write(orphan, EntryState::Document(after), Some(edit))?;
        Ok(if is_changed { Adoption::Replayed } else { Adoption::Applied })
    }

    fn adopt_document(&mut self, orphan: &Orphan, document: &Document) -> Result<Adoption, AdoptError> {
        let kind = document.kind();
        if let Some(outcome) = self.without_user(orphan, kind)? {
            return Ok(outcome);
        }
        let present = self.writer.document(&orphan.aor, kind)?;
        // A list is written all the same, so that the orphan is known when it is offered again.
        let is_list = kind == DocumentKind::ContactList;
        if present.version > 0 && present.document == *document && !is_list {
            return Ok(Adoption::Known);
        }
        if is_too_large(document) {
            return Ok(Adoption::Conflict);
        }
        if !self.is_changed(&orphan.aor, Subject::Document(kind))? {
            return self.write(orphan, EntryState::Document(document.clone()), None);
        }
        match document {
            Document::Settings(_) | Document::VoicePolicy(_) => Ok(Adoption::Conflict),
            Document::ContactList(_) | Document::CallLog(_) => {
                match unite(present.document.clone(), document) {
                    Ok(united) if united == present.document && !is_list => Ok(Adoption::Known),
                    Ok(united) if !is_too_large(&united) => {
                        self.write(orphan, EntryState::Document(united), None)?;
                        Ok(Adoption::United)
                    }
                    Ok(_) | Err(_) => Ok(Adoption::Conflict),
                }
            }
        }
    }

    /// What becomes of a document of a user who is not there any more.
    fn without_user(&self, orphan: &Orphan, kind: DocumentKind) -> Result<Option<Adoption>, StoreError> {
        if self.writer.may_have(&orphan.aor, kind)? {
            return Ok(None);
        }
        Ok(Some(match kind {
            DocumentKind::CallLog => Adoption::UserRemoved,
            DocumentKind::ContactList | DocumentKind::Settings | DocumentKind::VoicePolicy => {
                Adoption::Conflict
            }
        }))
    }

    fn adopt_conflict(
        &mut self,
        orphan: &Orphan,
        id: ConflictId,
        content: &ConflictContent,
    ) -> Result<Adoption, AdoptError> {
        if self.writer.ledger.held(&orphan.aor, Subject::Conflict(id))?.is_some() {
            return Ok(Adoption::Known);
        }
        self.check_room()?;
        self.write(orphan, EntryState::Conflict(id, content.clone()), None)
    }

    fn end_conflict(&mut self, orphan: &Orphan, id: ConflictId) -> Result<Adoption, AdoptError> {
        let subject = Subject::Conflict(id);
        let is_there = self.writer.present(&orphan.aor, subject)?.is_some();
        if !is_there || self.is_changed(&orphan.aor, subject)? {
            return Ok(Adoption::Known);
        }
        self.write(orphan, EntryState::Removed(subject), None)
    }

    fn keep_conflict(&mut self, orphan: &Orphan, write: &OrphanedWrite) -> Result<(), AdoptError> {
        self.check_room()?;
        let (id, aor) = (conflict_id(orphan), &orphan.aor);
        let content =
            ConflictContent { made_at: orphan.changed_at, epoch: orphan.epoch, write: write.clone() };
        let operation = derived(orphan.operation, "conflict", aor, Subject::Conflict(id));
        let origin = Origin { operation, aor, changed_at: self.now, written_at: self.now };
        self.writer.write(origin, EntryState::Conflict(id, content), None)?;
        Ok(())
    }

    fn check_room(&self) -> Result<(), AdoptError> {
        let ledger = &self.writer.ledger;
        let count = || -> rusqlite::Result<u64> {
            let sql = "SELECT count(*) FROM document WHERE journal = ?1 AND kind = 5 AND is_removed = 0";
            ledger.connection.prepare_cached(sql)?.query_row(params![ledger.row.id], |row| number(row, 0))
        };
        let open = count().map_err(|error| ledger.read_error(error))?;
        let max = limits::CONFLICTS_MAX;
        if usize::try_from(open).unwrap_or(usize::MAX) >= max {
            return Err(AdoptError::ConflictsFull { journal: ledger.row.name.clone(), max });
        }
        Ok(())
    }

    /// Whether something was changed, or removed, since the common change, and not only stated again.
    fn is_changed(&self, aor: &AddressOfRecord, subject: Subject) -> Result<bool, StoreError> {
        Ok(self.writer.ledger.held(aor, subject)?.is_some_and(|held| held.modified > self.common))
    }

    /// Gives what the orphan names a number above the common one, so that the sender receives it: with a
    /// removed account everything of the user.
    fn restate(&mut self, orphan: &Orphan) -> Result<(), AdoptError> {
        let entry = self.writer.ledger.entry(&orphan.aor, orphan.content.subject())?;
        let is_removal = matches!(orphan.content, OrphanContent::Write(OrphanedWrite::AccountRemoved));
        let belongings = if is_removal { self.writer.ledger.belongings(&orphan.aor)? } else { Vec::new() };
        for entry in entry.into_iter().chain(belongings).filter(|entry| entry.sequence <= self.common) {
            let (epoch, now) = (self.writer.epoch, self.now);
            self.writer.ledger.restate(epoch, now, orphan.operation, entry)?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        orphan: &Orphan,
        state: EntryState,
        edit: Option<&Edit>,
    ) -> Result<Adoption, AdoptError> {
        let origin = self.origin(orphan);
        self.writer.write(origin, state, edit)?;
        Ok(Adoption::Applied)
    }

    /// As the orphan's own change, made when it was made; the journal carries it since now.
    fn origin<'o>(&self, orphan: &'o Orphan) -> Origin<'o> {
        Origin {
            operation: own_operation(orphan),
            aor: &orphan.aor,
            changed_at: orphan.changed_at,
            written_at: self.now,
        }
    }
}

/// The operation by which an orphan is known. A list or log as a whole stands for more operations than the
/// one that made it last, and is not known because that one is.
fn own_operation(orphan: &Orphan) -> OperationId {
    match &orphan.content {
        OrphanContent::Write(OrphanedWrite::Document(
            document @ (Document::ContactList(_) | Document::CallLog(_)),
        )) => {
            let purpose = format!("as of {} in epoch {}", orphan.sequence, orphan.epoch);
            derived(orphan.operation, &purpose, &orphan.aor, Subject::Document(document.kind()))
        }
        OrphanContent::Write(_) | OrphanContent::Conflict(..) | OrphanContent::ConflictEnded(_) => {
            orphan.operation
        }
    }
}

fn conflict_id(orphan: &Orphan) -> ConflictId {
    ConflictId::new(orphan.operation.number())
}

fn is_too_large(document: &Document) -> bool {
    json(document).len() > limits::DOCUMENT_BYTES_MAX
}
