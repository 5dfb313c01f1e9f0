//! Bindings that this server keeps.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Query, State},
    http::StatusCode,
};
use model::{AddressOfRecord, PoolName};
use registrar::{Binding, Command, OperationId, Outcome, RegisterError, UserChange, reg_event::Cause};
use serde::Deserialize;
use store::HotStore;
use tokio::sync::oneshot;

use super::{
    ApiError, only_operator,
    wire::{Changed, RegistrationRecord},
};
use crate::{HomeIndex, Place, Shared, accounts, clock, peers::Caller};

/// Which bindings are meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrationQuery {
    aor: AddressOfRecord,
    contact: Option<String>,
    /// Also what this server keeps of users whom another server serves.
    #[serde(default)]
    copies: bool,
}

/// `GET /v1/registrations`: the bindings of a user here, highest preference first. Copies of what another
/// server is known to serve are left out unless asked for.
pub async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<RegistrationQuery>,
) -> Result<Json<Vec<RegistrationRecord>>, ApiError> {
    only_operator(&caller)?;
    let now = clock::wall_time();
    let mut records = Vec::new();
    for (index, home) in shared.directory.homes().iter() {
        if !query.copies && is_copy(&shared, index) {
            continue;
        }
        let bindings = shared.hot.lookup(home, &query.aor, now);
        records.extend(bindings.iter().map(|binding| record(&shared, home, binding)));
    }
    Ok(Json(records))
}

/// `DELETE /v1/registrations`: removes the bindings of a user here, or the one with this contact. Of copies
/// the removal comes by the stream.
pub async fn remove(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<RegistrationQuery>,
) -> Result<Json<Changed>, ApiError> {
    only_operator(&caller)?;
    let now = clock::wall_time();
    let mut changed = 0;
    for (index, home) in shared.directory.homes().iter() {
        if is_copy(&shared, index) {
            continue;
        }
        let before = shared.hot.lookup(home, &query.aor, now).len();
        if before == 0 {
            continue;
        }
        changed += before.saturating_sub(remove_at(&shared, home, &query).await?);
    }
    if changed == 0 && query.contact.is_some() {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no such contact is bound here"));
    }
    Ok(Json(Changed { changed }))
}

/// Whether what is kept of a home pool here is a copy of what another server serves, or did before it fell
/// silent.
fn is_copy(shared: &Shared, home: HomeIndex) -> bool {
    let place = shared.place(home, &shared.authority.read(), clock::now());
    matches!(place, Place::Server(_) | Place::ByCopy)
}

/// Removes at one home pool; returns how many bindings are left there.
async fn remove_at(shared: &Shared, home: &PoolName, query: &RegistrationQuery) -> Result<usize, ApiError> {
    let contact = query.contact.as_ref().map(|contact| contact.as_bytes().into());
    let command = Command::of_user(
        home.clone(),
        shared.hot.highest_epoch(home),
        OperationId::new(accounts::fresh_operation().number()),
        clock::wall_time(),
        query.aor.clone(),
        UserChange::Remove { contact },
    );
    let (done, outcome) = oneshot::channel();
    shared.hot.submit(vec![command], Box::new(move |outcomes| drop(done.send(outcomes))));
    let unavailable = |message: String| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message);
    let outcome = outcome.await.ok().and_then(|outcomes| outcomes.into_iter().next());
    match outcome {
        Some(Ok(Outcome::Registered { bindings, .. })) => {
            shared.watchers.changed(&query.aor, Cause::Other);
            Ok(bindings.len())
        }
        Some(Ok(Outcome::Refused(RegisterError::UnknownContact))) => {
            Ok(shared.hot.lookup(home, &query.aor, clock::wall_time()).len())
        }
        Some(Ok(Outcome::Refused(error))) => Err(unavailable(error.to_string())),
        Some(Err(error)) => Err(unavailable(error.to_string())),
        Some(Ok(Outcome::Expired { .. })) | None => Err(unavailable("the store gave no answer".to_owned())),
    }
}

fn record(shared: &Shared, home: &PoolName, binding: &Binding) -> RegistrationRecord {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    RegistrationRecord {
        server: shared.server.name.clone(),
        home: home.clone(),
        contact: text(binding.uri()),
        q: binding.q(),
        expires_in_s: u64::from(binding.expires_in_s(clock::wall_time())),
        instance: binding.instance().map(text),
        reg_id: binding.reg_id().map(std::num::NonZeroU32::get),
        path: binding.path().map(text).collect(),
        call_id: text(binding.call_id()),
        cseq: binding.cseq(),
        source: binding.flow().map(|flow| format!("{} {}", flow.peer.protocol, flow.peer.remote)),
    }
}
