//! What pools ask of each other: promises of ownership and pages of journals.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Query, State},
    http::StatusCode,
};
use model::{Epoch, PoolName, limits};
use pairing::{PromiseAnswer, PromiseRequest};
use registrar::{Outcome, UserChange};
use serde::Deserialize;
use store::{Cursor, HotError, HotStore, JournalError, Scope, UserStore};
use tokio::{sync::oneshot, time::timeout};

use super::{ApiError, blocking, wire::Changed};
use crate::{
    Scopes, Shared,
    handover::{Handover, command},
    peers::{Caller, Identity},
};

/// Longest time a journal question waits for news.
const JOURNAL_WAIT_MAX: Duration = Duration::from_secs(30);

/// `POST /v1/promise`: the partner's question to the ownership machine of a home pool.
pub async fn promise(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<PromiseRequest>,
) -> Result<Json<PromiseAnswer>, ApiError> {
    let asker = pool_of(&shared, &caller)?;
    if asker != body.from {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            format!("{asker} cannot ask in the name of {}", body.from),
        ));
    }
    let missing =
        || ApiError::new(StatusCode::NOT_FOUND, format!("no part in the ownership of {}", body.home));
    let handle = shared.ownerships.of(&body.home).ok_or_else(missing)?;
    let overloaded =
        || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the ownership machine does not answer");
    let answer = handle.ask(body.clone()).await.ok_or_else(overloaded)?;
    answer.map(Json).map_err(|error| {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        ApiError::new(status, error)
    })
}

/// `POST /v1/handover`: bindings of this pool's users that its partner kept during a takeover.
///
/// A newer registration of the same phone here wins. Errors: 403 from anybody else, 409 while this pool is
/// not the owner, 503 when they could not be written.
pub async fn handover(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<Handover>,
) -> Result<Json<Changed>, ApiError> {
    let asker = pool_of(&shared, &caller)?;
    let is_partner = shared.topology.partner_of(&shared.pool).is_some_and(|partner| partner.name == asker);
    if !is_partner || body.home != shared.pool {
        let message = format!("{asker} has no bindings of {} to hand over to {}", body.home, shared.pool);
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let authority = shared.own_home.and_then(|home| shared.authority.read().holds(home, crate::clock::now()));
    let Some(authority) = authority else {
        return Err(ApiError::new(StatusCode::CONFLICT, "this pool does not own its users now"));
    };
    let commands: Vec<_> = body
        .bindings
        .into_iter()
        .map(|(aor, registration)| {
            command(&body.home, authority.epoch, aor, UserChange::Register(registration))
        })
        .collect();
    let (done, written) = oneshot::channel();
    shared.hot.submit(commands, Box::new(move |outcomes| drop(done.send(outcomes))));
    let failed = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the bindings could not be written");
    let outcomes = written.await.map_err(|_| failed())?;
    if outcomes.iter().any(Result::is_err) {
        return Err(failed());
    }
    let is_kept = |outcome: &Result<Outcome, HotError>| matches!(outcome, Ok(Outcome::Registered { .. }));
    Ok(Json(Changed { changed: outcomes.iter().filter(|outcome| is_kept(outcome)).count() }))
}

/// Where a reader of a journal is, and what it wants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalQuery {
    home: PoolName,
    sequence: u64,
    epoch: u64,
    scope: Scope,
    wait_ms: u64,
}

/// `GET /v1/journal`: the next page; waits for news up to `wait_ms` when there is none. Octets of a page.
pub async fn journal(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<JournalQuery>,
) -> Result<Bytes, ApiError> {
    let asker = pool_of(&shared, &caller)?;
    if query.scope == Scope::Accounts
        && Scopes::of(&shared.topology, &asker).wanted(&query.home) != Some(Scope::Accounts)
    {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            format!(
                "{asker} has no part in serving the users of {}: it may read the directory only",
                query.home
            ),
        ));
    }
    let mut news = shared.user_news.subscribe();
    let cursor = Cursor { home: query.home, sequence: query.sequence, epoch: Epoch::new(query.epoch) };
    let scope = query.scope;
    let wait = Duration::from_millis(query.wait_ms).min(JOURNAL_WAIT_MAX);
    let mut page = read(&shared, cursor.clone(), scope).await?;
    if page.entries().is_empty() && timeout(wait, news.changed()).await.is_ok() {
        page = read(&shared, cursor, scope).await?;
    }
    Ok(Bytes::from(page.encode()))
}

async fn read(shared: &Arc<Shared>, cursor: Cursor, scope: Scope) -> Result<store::Page, ApiError> {
    let users = Arc::clone(&shared.users);
    let page = blocking(move || users.journal(&cursor, limits::ACCOUNTS_PER_PAGE_MAX, scope)).await?;
    page.map_err(|error| match error {
        JournalError::Ahead { .. } | JournalError::Diverged { .. } => {
            ApiError::new(StatusCode::CONFLICT, &error)
        }
        JournalError::DirectoryOnly { .. } => ApiError::new(StatusCode::FORBIDDEN, &error),
        JournalError::Store(_) => ApiError::failed(&error),
    })
}

fn pool_of(shared: &Shared, caller: &Caller) -> Result<PoolName, ApiError> {
    let refused = || ApiError::new(StatusCode::FORBIDDEN, "only servers of the topology may ask this");
    match &caller.0 {
        Identity::Server(name) => {
            shared.topology.server(name).map(|server| server.pool.clone()).ok_or_else(refused)
        }
        Identity::Operator => Err(refused()),
    }
}
