//! Control records: read and compare-and-set.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use store::{CasOutcome, ControlError, ControlStore, RedbControlStore, Versioned};

use super::{ApiError, blocking};
use crate::peers::Caller;

/// A control record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its text, JSON for the records of this program.
    pub value: String,
    /// How often it was written; from 1.
    pub version: u64,
}

/// A wish to replace a control record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareAndSet {
    /// Version to replace; 0 = only if there is none.
    pub expected: u64,
    /// New text.
    pub value: String,
}

/// What became of a compare-and-set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Swap {
    /// It is on disk.
    Stored {
        /// The record's version now.
        version: u64,
    },
    /// The record had another version; nothing was changed.
    Conflict {
        /// The record as it is.
        found: Option<Record>,
    },
}

/// `GET /v1/control/KEY`: the record, or `null`.
pub async fn read(
    State(store): State<Arc<RedbControlStore>>,
    Path(key): Path<String>,
) -> Result<Json<Option<Record>>, ApiError> {
    let found = blocking(move || store.get(&key)).await?.map_err(|error| refused(&error))?;
    Ok(Json(found.map(record).transpose()?))
}

/// `POST /v1/control/KEY`: compare-and-set. Any server of the topology may; each writes only its own pools'
/// records.
pub async fn compare_and_set(
    State(store): State<Arc<RedbControlStore>>,
    Extension(_caller): Extension<Caller>,
    Path(key): Path<String>,
    Json(wish): Json<CompareAndSet>,
) -> Result<Json<Swap>, ApiError> {
    let outcome = blocking(move || store.compare_and_set(&key, wish.expected, wish.value.as_bytes())).await?;
    match outcome.map_err(|error| refused(&error))? {
        CasOutcome::Stored { version, .. } => Ok(Json(Swap::Stored { version })),
        CasOutcome::Conflict { found } => Ok(Json(Swap::Conflict { found: found.map(record).transpose()? })),
    }
}

fn record(found: Versioned) -> Result<Record, ApiError> {
    let value = String::from_utf8(found.value)
        .map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the control record is no text"))?;
    Ok(Record { value, version: found.version })
}

fn refused(error: &ControlError) -> ApiError {
    match error {
        ControlError::Key { .. } | ControlError::Value { .. } | ControlError::Records { .. } => {
            ApiError::bad_request(error)
        }
        ControlError::Unknown(_) | ControlError::Store(_) => ApiError::failed(error),
    }
}
