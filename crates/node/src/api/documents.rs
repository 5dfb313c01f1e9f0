//! Documents of users: read and edited at the owner of their journal.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Query, State},
    http::StatusCode,
};
use model::{
    AddressOfRecord, Epoch, PoolName, WallTime,
    documents::{ContactListEdit, Document, DocumentKind, Edit},
};
use serde::Deserialize;
use store::{Change, Condition, OperationId, StoreError, UserStore, Write};

use super::{
    ApiError, blocking, only_operator,
    users::{not_written, octets},
    wire::{Changed, DocumentPatch, DocumentRecord, Patched, UserDocuments},
};
use crate::{
    Shared,
    call_records::{OwedRecords, write_here},
    clock,
    peers::{Caller, Identity},
    writes::{self, WriteError},
};

/// Whose documents are meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentsQuery {
    aor: AddressOfRecord,
}

/// `GET /v1/documents`: all documents of a user, at the server that serves the pool of their journal.
pub async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<DocumentsQuery>,
) -> Result<Json<UserDocuments>, ApiError> {
    only_operator(&caller)?;
    let (home, journal) = place_of(&shared, &query.aor)?;
    if shared.writing_authority(&journal).is_ok() {
        shared.associations.arrived(&home, writes::ARRIVE_WITHIN).await;
    }
    match shared.writing_authority(&journal) {
        Ok(epoch) => shared.may_change(&home, &journal, epoch).map_err(|error| not_written(&error))?,
        Err(WriteError::Resiliency { .. }) => {}
        Err(error) => return Err(not_written(&error)),
    }
    let (users, of, aor) = (Arc::clone(&shared.users), journal.clone(), query.aor.clone());
    let read = move || {
        let kinds = DocumentKind::ALL.into_iter();
        kinds.map(|kind| record(users.as_ref(), &of, &aor, kind)).collect::<Result<Vec<_>, _>>()
    };
    let documents = blocking(read).await?.map_err(|error| ApiError::failed(&error))?;
    Ok(Json(UserDocuments { aor: query.aor, home, journal, documents }))
}

/// `PATCH /v1/documents`: one edit, on disk when it is answered.
pub async fn patch(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Json(patch): Json<DocumentPatch>,
) -> Result<Json<Patched>, ApiError> {
    only_operator(&caller)?;
    let (_, journal) = place_of(&shared, &patch.aor)?;
    let change = change(patch)?;
    let committed = writes::commit(&shared, journal, vec![change]).await;
    let committed = committed.map_err(|error| not_written(&error))?;
    let version = committed.first().map_or(0, |committed| committed.version);
    Ok(Json(Patched { version }))
}

/// `POST /v1/call_records`: records that another server kept for the owner of the user data. Those of users
/// who are gone are left out.
pub async fn call_records(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Json(owed): Json<OwedRecords>,
) -> Result<Json<Changed>, ApiError> {
    if caller.0 == Identity::Operator {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "call records are written by servers"));
    }
    if let Some(wrong) = owed.records.iter().find(|record| record.operation().is_none()) {
        return Err(ApiError::bad_request(format!("{:?} is no operation", wrong.operation)));
    }
    let changed = write_here(&shared, &owed).await.map_err(|error| not_written(&error))?;
    Ok(Json(Changed { changed }))
}

/// Where a user is homed, and the journal with the user's documents.
fn place_of(shared: &Arc<Shared>, aor: &AddressOfRecord) -> Result<(PoolName, PoolName), ApiError> {
    let unknown = || ApiError::new(StatusCode::NOT_FOUND, format!("there is no user {aor}"));
    let user = shared.directory.user(aor).ok_or_else(unknown)?;
    let home = shared.directory.homes().name(user.home).cloned().ok_or_else(unknown)?;
    let journal = shared.journal_of(user.home).ok_or_else(unknown)?;
    Ok((home, journal))
}

fn record(
    users: &impl UserStore,
    journal: &PoolName,
    aor: &AddressOfRecord,
    kind: DocumentKind,
) -> Result<DocumentRecord, StoreError> {
    let found = users.document(journal, aor, kind)?;
    Ok(found.map_or_else(
        || DocumentRecord {
            version: 0,
            epoch: Epoch::ZERO,
            changed_at: WallTime::default(),
            document: Document::empty(kind),
        },
        |found| DocumentRecord {
            version: found.version,
            epoch: found.epoch,
            changed_at: found.changed_at,
            document: found.document,
        },
    ))
}

fn change(patch: DocumentPatch) -> Result<Change, ApiError> {
    let operation = octets::<16>(&patch.operation)
        .ok_or_else(|| ApiError::bad_request("operation is not 32 hexadecimal digits"))?;
    check(&patch.edit)?;
    Ok(Change {
        operation: OperationId::new(u128::from_be_bytes(operation)),
        aor: patch.aor,
        changed_at: clock::wall_time(),
        condition: match patch.expected {
            None => Condition::Any,
            Some(0) => Condition::Absent,
            Some(version) => Condition::Version(version),
        },
        write: Write::Edit(patch.edit),
    })
}

/// What the types do not say of an operator's edit.
fn check(edit: &Edit) -> Result<(), ApiError> {
    match edit {
        Edit::CallRecord(_) => Err(ApiError::bad_request("call records are written by servers only")),
        Edit::ContactList(ContactListEdit::Put { listed, .. })
            if listed.name.chars().any(char::is_control) =>
        {
            Err(ApiError::bad_request("the name of a contact has no control characters"))
        }
        Edit::ContactList(_) | Edit::Settings(_) | Edit::VoicePolicy(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use model::documents::{CallId, CallRecord, CallResult, Direction, ListedContact, UserSettings};

    use super::*;

    fn patch(edit: Edit, operation: &str) -> DocumentPatch {
        let aor = AddressOfRecord::new("sip:alice@example.com").unwrap();
        DocumentPatch { aor, operation: operation.to_owned(), expected: Some(0), edit }
    }

    #[test]
    fn an_edit_becomes_a_change_of_the_version_that_was_seen() {
        let made = change(patch(Edit::Settings(UserSettings::default()), &"0f".repeat(16))).unwrap();

        assert_eq!(made.condition, Condition::Absent);
        assert_eq!(made.operation.number(), 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f);
    }

    #[test]
    fn a_bad_operation_a_call_record_and_a_name_that_breaks_lines_are_refused() {
        let settings = Edit::Settings(UserSettings::default());
        assert!(change(patch(settings, "0f")).is_err());

        let record = CallRecord {
            call: CallId(1),
            direction: Direction::Made,
            other: String::new(),
            began_at: WallTime::default(),
            answered_at: None,
            ended_at: None,
            result: CallResult::Missed,
        };
        assert!(change(patch(Edit::CallRecord(record), &"0f".repeat(16))).is_err());

        let contact = AddressOfRecord::new("sip:bob@example.com").unwrap();
        let listed = ListedContact { name: "Bob\nBuilder".to_owned(), groups: Vec::new() };
        let put = Edit::ContactList(ContactListEdit::Put { contact, listed });
        assert!(change(patch(put, &"0f".repeat(16))).is_err());
    }
}
