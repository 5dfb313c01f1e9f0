//! Control records: read and compare-and-set.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use store::{CasOutcome, ControlError, ControlStore, RedbControlStore, Versioned};
use topology::{Server, Topology};

use super::{ApiError, blocking, wire::ServerStatus};
use crate::{
    CertificatesInForce, TopologyInForce, clock, ownership_key,
    peers::{Caller, Identity},
};

/// What the routes of a control server share.
pub struct Control {
    /// What this server presents, and whom it trusts.
    pub certificates: Arc<CertificatesInForce>,
    /// The records.
    pub store: RedbControlStore,
    /// Who may write which.
    pub topology: Arc<TopologyInForce>,
    /// This server.
    pub server: Server,
}

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

/// `GET /v1/status` of a control server.
pub async fn status(State(control): State<Arc<Control>>) -> Json<ServerStatus> {
    Json(ServerStatus {
        server: control.server.name.clone(),
        pool: control.server.pool.clone(),
        role: "control".to_owned(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        topology_version: control.topology.now().version,
        uptime_s: clock::now().as_micros() / 1_000_000,
        users_known: 0,
        health: "ok".to_owned(),
        homes: Vec::new(),
        copies: Vec::new(),
        moves: Vec::new(),
        certificates: control.certificates.statuses(clock::wall_time()),
        counters: Vec::new(),
    })
}

/// `GET /v1/control/KEY`: the record, or `null`.
pub async fn read(
    State(control): State<Arc<Control>>,
    Path(key): Path<String>,
) -> Result<Json<Option<Record>>, ApiError> {
    let found = blocking(move || control.store.get(&key)).await?.map_err(|error| refused(&error))?;
    Ok(Json(found.map(record).transpose()?))
}

/// `POST /v1/control/KEY`: compare-and-set. A server writes the ownership records of its own pool and of its
/// partner's, and no other.
pub async fn compare_and_set(
    State(control): State<Arc<Control>>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    Json(wish): Json<CompareAndSet>,
) -> Result<Json<Swap>, ApiError> {
    if !may_write(&control.topology.now(), &caller, &key) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, format!("{key} is not for this caller to write")));
    }
    let outcome =
        blocking(move || control.store.compare_and_set(&key, wish.expected, wish.value.as_bytes())).await?;
    match outcome.map_err(|error| refused(&error))? {
        CasOutcome::Stored { version, .. } => Ok(Json(Swap::Stored { version })),
        CasOutcome::Conflict { found } => Ok(Json(Swap::Conflict { found: found.map(record).transpose()? })),
    }
}

fn may_write(topology: &Topology, caller: &Caller, key: &str) -> bool {
    let Identity::Server(server) = &caller.0 else { return false };
    let Some(pool) = topology.pool_of(server) else { return false };
    let partner = topology.partner_of(&pool.name);
    let own = [Some(&pool.name), partner.map(|partner| &partner.name)];
    partner.is_some() && own.into_iter().flatten().any(|home| key == ownership_key(home))
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
