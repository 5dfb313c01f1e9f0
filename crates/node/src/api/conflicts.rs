//! Conflicts: orphans that contradict what was changed meanwhile and wait for the operator.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Query, State},
    http::StatusCode,
};
use model::PoolName;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{
    Change, Condition, Conflict, ConflictId, OrphanedWrite, Resolution, StoreError, Subject, UserStore, Write,
};

use super::{
    ApiError, blocking, only_operator,
    users::{not_written, octets},
    wire::{Changed, ConflictRecord, ConflictResolution, Keep},
};
use crate::{Shared, clock, peers::Caller, writes};

/// Conflicts in one answer.
const CONFLICTS_MAX: usize = 500;

/// Which conflicts are meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConflictQuery {
    journal: PoolName,
    /// Only this one, with what there is now.
    id: Option<String>,
    /// Those after this one.
    after: Option<String>,
}

/// `GET /v1/conflicts`: conflicts of one journal in order of name, at most 500; or one of them.
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ConflictQuery>,
) -> Result<Json<Vec<ConflictRecord>>, ApiError> {
    only_operator(&caller)?;
    let users = Arc::clone(&shared.users);
    let id = query.id.as_deref().map(name).transpose()?;
    let after = query.after.as_deref().map(name).transpose()?;
    let read = move || match id {
        Some(id) => {
            let found = users.conflict(&query.journal, id)?;
            found.map(|conflict| with_present(users.as_ref(), &conflict)).transpose().map(Vec::from_iter)
        }
        None => {
            let found = users.conflicts(&query.journal, after, CONFLICTS_MAX)?;
            Ok(found.iter().map(record).collect())
        }
    };
    let records: Result<Vec<ConflictRecord>, StoreError> = blocking(read).await?;
    Ok(Json(records.map_err(|error| ApiError::failed(&error))?))
}

/// `POST /v1/conflicts`: ends one, at the owner of its journal; on disk when it is answered.
pub async fn resolve(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<ConflictResolution>,
) -> Result<Json<Changed>, ApiError> {
    only_operator(&caller)?;
    let id = name(&body.id)?;
    let operation = octets::<16>(&body.operation)
        .ok_or_else(|| ApiError::bad_request("operation is not 32 hexadecimal digits"))?;
    let (users, journal) = (Arc::clone(&shared.users), body.journal.clone());
    let found = blocking(move || users.conflict(&journal, id)).await?;
    let found = found.map_err(|error| ApiError::failed(&error))?;
    let found =
        found.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, format!("there is no conflict {id}")))?;
    let resolution = match body.keep {
        Keep::Present => Resolution::KeepPresent,
        Keep::Orphan => Resolution::ApplyOrphan,
    };
    let change = Change {
        operation: store::OperationId::new(u128::from_be_bytes(operation)),
        aor: found.aor,
        changed_at: clock::wall_time(),
        condition: Condition::Any,
        write: Write::Resolve { conflict: id, resolution },
    };
    let done = writes::commit(&shared, body.journal, vec![change]).await;
    done.map_err(|error| not_written(&error))?;
    Ok(Json(Changed { changed: 1 }))
}

fn name(text: &str) -> Result<ConflictId, ApiError> {
    text.parse().map_err(ApiError::bad_request)
}

fn record(conflict: &Conflict) -> ConflictRecord {
    ConflictRecord {
        id: conflict.id.to_string(),
        journal: conflict.journal.clone(),
        aor: conflict.aor.clone(),
        about: conflict.content.write.subject().to_string(),
        made_at: conflict.content.made_at,
        made_in: conflict.content.epoch,
        found_at: conflict.found_at,
        orphan: shown(&conflict.content.write),
        present: None,
    }
}

fn with_present(users: &impl UserStore, conflict: &Conflict) -> Result<ConflictRecord, StoreError> {
    let present = match conflict.content.write.subject() {
        Subject::Account => users.read(&conflict.aor)?.map(|account| {
            json!({ "account": { "home": account.home, "algorithms": account.algorithms,
                                 "version": account.version } })
        }),
        Subject::Document(kind) => {
            let found = users.document(&conflict.journal, &conflict.aor, kind)?;
            found.map(|found| json!({ "document": found.document, "version": found.version }))
        }
        Subject::Conflict(_) => None,
    };
    Ok(ConflictRecord { present: Some(present.unwrap_or(Value::Null)), ..record(conflict) })
}

/// What an orphan wrote, without what proves a password.
fn shown(write: &OrphanedWrite) -> Value {
    match write {
        OrphanedWrite::Account { home, algorithms, .. } => {
            json!({ "account": { "home": home, "algorithms": algorithms } })
        }
        OrphanedWrite::AccountRemoved => json!("account removed"),
        OrphanedWrite::Edit(edit) => json!({ "edit": edit }),
        OrphanedWrite::Document(document) => json!({ "document": document }),
        OrphanedWrite::DocumentRemoved(kind) => json!(format!("{kind} removed")),
    }
}
