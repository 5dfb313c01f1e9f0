//! Whom this server does not listen to.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{Query, State},
    http::StatusCode,
};
use bans::{Ban, BanError};
use model::{Instant, Source, WallTime, limits};
use serde::Deserialize;

use super::{
    ApiError, only_operator,
    wire::{BanOrder, BanRecord, Changed},
};
use crate::{Shared, clock, peers::Caller};

/// Which ban is meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanQuery {
    source: String,
}

/// `GET /v1/bans`: the bans in force, in the order of their addresses.
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<BanRecord>>, ApiError> {
    only_operator(&caller)?;
    let (now, wall) = (clock::now(), clock::wall_time());
    Ok(Json(shared.defence.list().iter().map(|ban| record(&shared, ban, now, wall)).collect()))
}

/// `POST /v1/bans`: bans a source for a time, in place of a ban that is in force.
pub async fn add(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Json(order): Json<BanOrder>,
) -> Result<Json<Changed>, ApiError> {
    only_operator(&caller)?;
    let source = source(&order.source)?;
    let lasts = Duration::from_secs(order.seconds);
    if lasts.is_zero() || lasts > limits::BAN_ORDERED_MAX {
        let longest = limits::BAN_ORDERED_MAX.as_secs();
        return Err(ApiError::bad_request(format!("a ban lasts 1 to {longest} seconds")));
    }
    match shared.defence.add(&shared.counters, source, lasts) {
        Ok(()) => Ok(Json(Changed { changed: 1 })),
        Err(BanError::Exempt) => {
            let message = format!(
                "{source} is one of the deployment's own servers or in ban_exempt: change the topology first"
            );
            Err(ApiError::new(StatusCode::CONFLICT, message))
        }
    }
}

/// `DELETE /v1/bans`: listens to a source again, and forgets its offences.
pub async fn remove(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<BanQuery>,
) -> Result<Json<Changed>, ApiError> {
    only_operator(&caller)?;
    let was_banned = shared.defence.remove(&shared.counters, source(&query.source)?);
    Ok(Json(Changed { changed: usize::from(was_banned) }))
}

fn source(text: &str) -> Result<Source, ApiError> {
    text.parse().map_err(|error| ApiError::bad_request(format!("{text:?}: {error}")))
}

fn record(shared: &Shared, ban: &Ban, now: Instant, wall: WallTime) -> BanRecord {
    let before = now.saturating_since(ban.since);
    let since = u64::try_from(before.as_micros()).unwrap_or(u64::MAX);
    BanRecord {
        server: shared.server.name.clone(),
        source: ban.source.to_string(),
        cause: ban.cause.name().to_owned(),
        since: WallTime::from_micros(wall.as_micros().saturating_sub(since)),
        until: wall + ban.until.saturating_since(now),
        offences: ban.offences,
        times: ban.times,
    }
}
