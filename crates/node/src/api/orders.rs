//! Orders of operators: failover, switchover, failback, and undoing them.

use std::sync::Arc;

use axum::{Extension, Json, extract::State, http::StatusCode};
use model::PoolName;
use tracing::info;

use super::{
    ApiError, only_operator,
    wire::{CancelBody, OrderAnswer, OrderBody},
};
use crate::{OwnershipHandle, Shared, peers::Caller};

/// `POST /v1/orders`: gives an order to the ownership machine of a home pool; answered when it is in the
/// ownership record, or refused with every reason. The same order again is harmless.
pub async fn order(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<OrderBody>,
) -> Result<Json<OrderAnswer>, ApiError> {
    only_operator(&caller)?;
    let (id, kind, by) = (body.order.id, body.order.kind, body.order.by.clone());
    let answer = machine(&shared, &body.home)?.order(body.order).await.ok_or_else(overloaded)?;
    let answer = OrderAnswer::from(answer);
    info!(pool = %body.home, order = %id, %kind, %by, ?answer, "order given");
    Ok(Json(answer))
}

/// `POST /v1/orders/cancel`: undoes the operation of an order while that is possible.
pub async fn cancel(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<CancelBody>,
) -> Result<Json<OrderAnswer>, ApiError> {
    only_operator(&caller)?;
    let answer = machine(&shared, &body.home)?.cancel(body.order).await.ok_or_else(overloaded)?;
    let answer = OrderAnswer::from(answer);
    info!(pool = %body.home, order = %body.order, ?answer, "cancellation given");
    Ok(Json(answer))
}

fn machine<'a>(shared: &'a Shared, home: &PoolName) -> Result<&'a OwnershipHandle, ApiError> {
    let missing = || ApiError::new(StatusCode::NOT_FOUND, format!("no part in the ownership of {home}"));
    shared.ownerships.of(home).ok_or_else(missing)
}

fn overloaded() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the ownership machine does not answer; try again")
}
