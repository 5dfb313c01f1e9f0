//! What a server answers to other servers and to operators over `internal_http`.

mod bans;
mod bindings;
mod certificates;
mod conflicts;
pub mod control;
mod documents;
mod metrics;
mod moves;
mod orders;
mod pair;
mod registrations;
mod status;
mod topology;
mod users;
pub mod wire;

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use model::limits;

use crate::{
    Shared,
    peers::{Caller, Identity},
};

pub use certificates::routes as certificate_routes;
pub use status::serving;

/// An error as the other side sees it: an HTTP status and one line of text that says what and what to do.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    /// An error with this status.
    pub fn new(status: StatusCode, message: impl fmt::Display) -> Self {
        Self { status, message: message.to_string() }
    }

    /// The request cannot be understood.
    pub fn bad_request(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Something failed here; the whole chain of causes is told, since the other side is trusted.
    pub fn failed(error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            message.push_str(": ");
            message.push_str(&source.to_string());
            cause = source.source();
        }
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, self.message).into_response()
    }
}

/// Refuses everybody but operators.
///
/// Errors: 403.
pub fn only_operator(caller: &Caller) -> Result<(), ApiError> {
    match caller.0 {
        Identity::Operator => Ok(()),
        Identity::Server(_) => Err(ApiError::new(StatusCode::FORBIDDEN, "only operators may do this")),
    }
}

/// Runs what blocks where blocking is allowed.
///
/// Errors: 500 when it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed in this server"))
}

/// The routes of a server that speaks SIP.
pub fn registrar_routes(shared: Arc<Shared>) -> Router {
    let document_limit = DefaultBodyLimit::max(limits::DOCUMENT_EDIT_BYTES_MAX);
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/v1/status", get(status::status))
        .route("/v1/serving", get(status::serving_now))
        .route("/v1/topology", post(topology::reload))
        .route("/v1/leaving", get(moves::give).post(moves::part))
        .route("/v1/promise", post(pair::promise))
        .route("/v1/journal", get(pair::journal))
        .route("/v1/bindings", get(bindings::bindings))
        .route("/v1/orphans", post(pair::orphans))
        .route("/v1/bans", get(bans::list).post(bans::add).delete(bans::remove))
        .route("/v1/conflicts", get(conflicts::list).post(conflicts::resolve))
        .route("/v1/orders", post(orders::order))
        .route("/v1/orders/cancel", post(orders::cancel))
        .route("/v1/users", get(users::list).post(users::put).delete(users::remove))
        .route("/v1/users/where", get(users::find))
        .route("/v1/documents", get(documents::show).patch(documents::patch).layer(document_limit))
        .route("/v1/call_records", post(documents::call_records))
        .route("/v1/registrations", get(registrations::show).delete(registrations::remove))
        .with_state(shared)
}

/// The routes of a server of the control role.
pub fn control_routes(control: Arc<control::Control>) -> Router {
    Router::new()
        .route("/v1/control/{*key}", get(control::read).post(control::compare_and_set))
        .route("/v1/status", get(control::status))
        .route("/v1/topology", post(topology::reload_control))
        .with_state(control)
}
