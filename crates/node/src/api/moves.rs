//! Users of a branch who go from one journal to another, asked for by the new owner.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Query, State},
    http::StatusCode,
};
use model::PoolName;

use super::{ApiError, pair::pool_of, users::not_written, wire::Changed};
use crate::{
    Shared,
    associations::{self, GiveError, Giving, Parting},
    peers::Caller,
};

/// `GET /v1/leaving`: a page of users, at the owner of the journal that they leave. Octets of a page.
pub async fn give(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Giving>,
) -> Result<Bytes, ApiError> {
    only_takers(&shared, &caller, &asked.to)?;
    let page = associations::give(&shared, asked).await.map_err(|error| refused(&error))?;
    Ok(Bytes::from(page.encode()))
}

/// `POST /v1/leaving`: removes users who are settled; answers how many.
pub async fn part(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Json(settled): Json<Parting>,
) -> Result<Json<Changed>, ApiError> {
    only_takers(&shared, &caller, &settled.to)?;
    let changed = associations::part(&shared, settled).await.map_err(|error| refused(&error))?;
    Ok(Json(Changed { changed }))
}

/// Refuses everybody but who may own the journal of `to`: that pool and its partner.
fn only_takers(shared: &Shared, caller: &Caller, to: &PoolName) -> Result<(), ApiError> {
    let asker = pool_of(shared, caller)?;
    let topology = shared.topology();
    if asker == *to || topology.partner_of(to).is_some_and(|partner| partner.name == asker) {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::FORBIDDEN, format!("{asker} never owns the journal of {to}")))
}

fn refused(error: &GiveError) -> ApiError {
    match error {
        GiveError::Topology { .. } | GiveError::Again { .. } | GiveError::TooLarge { .. } => {
            ApiError::new(StatusCode::CONFLICT, error)
        }
        GiveError::NotOwner(error) => not_written(error),
        GiveError::Memory(_) | GiveError::Read(_) | GiveError::Commit(_) | GiveError::Ended(_) => {
            ApiError::failed(error)
        }
    }
}
