//! `GET /v1/certificates`: what is in force; `POST`: reads the files again.

use std::sync::Arc;

use axum::{Extension, Json, Router, extract::State, routing::get};

use super::{ApiError, blocking, only_operator, wire::CertificateReport};
use crate::{CertificatesInForce, clock, peers::Caller};

/// The routes, the same on servers of every role.
pub fn routes(certificates: Arc<CertificatesInForce>) -> Router {
    Router::new().route("/v1/certificates", get(show).post(reload)).with_state(certificates)
}

async fn show(
    State(certificates): State<Arc<CertificatesInForce>>,
) -> Result<Json<CertificateReport>, ApiError> {
    blocking(move || certificates.report(clock::wall_time())).await.map(Json)
}

async fn reload(
    State(certificates): State<Arc<CertificatesInForce>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<CertificateReport>, ApiError> {
    only_operator(&caller)?;
    let reloaded = blocking(move || {
        let now = clock::wall_time();
        let is_changed = certificates.reload(now).unwrap_or(false);
        CertificateReport { is_changed, ..certificates.report(now) }
    });
    reloaded.await.map(Json)
}
