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
use serde::Deserialize;
use store::{Cursor, JournalError, OrphanPage, Scope, UserStore};
use tokio::time::timeout;
use topology::Role;

use super::{ApiError, blocking};
use crate::{
    Scopes, Shared,
    backup_service::{Divergence, Offered, counted},
    clock,
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

/// Where a reader of a journal is, and what it wants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalQuery {
    journal: PoolName,
    sequence: u64,
    epoch: u64,
    /// Up to which number nothing is missing there: in the middle of a catch-up less than `sequence`.
    whole: u64,
    scope: Scope,
    wait_ms: u64,
}

/// `GET /v1/journal`: the next page; waits for news up to `wait_ms` when there is none. Octets of a page.
///
/// Errors: 409 with a [`Divergence`] when the reader holds what is not in this journal.
pub async fn journal(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<JournalQuery>,
) -> Result<Bytes, ApiError> {
    let asker = pool_of(&shared, &caller)?;
    let scope = query.scope;
    let topology = shared.topology();
    // A branch gets its own users out of any journal: they may be on their way from one to another.
    let is_own_branch = scope == Scope::Branch(asker.clone())
        && topology.pool(&asker).is_some_and(|pool| pool.role == Role::Branch);
    if scope != Scope::Directory
        && !is_own_branch
        && Scopes::of(&topology, &asker).wanted(&query.journal) != Some(&scope)
    {
        let message = format!("{asker} may not read {scope} of {}: only the directory", query.journal);
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let mut news = shared.user_news.subscribe();
    let cursor = Cursor { journal: query.journal, sequence: query.sequence, epoch: Epoch::new(query.epoch) };
    let wait = Duration::from_millis(query.wait_ms).min(JOURNAL_WAIT_MAX);
    let mut page = read(&shared, &cursor, &scope).await?;
    if let Identity::Server(reader) = &caller.0 {
        let held = query.whole.min(cursor.sequence);
        match scope {
            Scope::Directory => shared.copies.left(&cursor.journal, reader),
            Scope::Everything | Scope::Branch(_) => {
                shared.copies.asked(&cursor.journal, reader, held, clock::now());
            }
        }
    }
    let until = clock::now() + wait;
    while !page.has_news() && timeout(until.saturating_since(clock::now()), news.changed()).await.is_ok() {
        page = read(&shared, &cursor, &scope).await?;
    }
    Ok(Bytes::from(page.encode()))
}

async fn read(shared: &Arc<Shared>, cursor: &Cursor, scope: &Scope) -> Result<store::Page, ApiError> {
    let (users, cursor, scope) = (Arc::clone(&shared.users), cursor.clone(), scope.clone());
    let page = blocking(move || users.journal(&cursor, limits::ACCOUNTS_PER_PAGE_MAX, &scope)).await?;
    page.map_err(|error| match error {
        JournalError::Ahead { common, epoch, .. } | JournalError::Diverged { common, epoch, .. } => {
            match serde_json::to_string(&Divergence { common, epoch }) {
                Ok(body) => ApiError::new(StatusCode::CONFLICT, body),
                Err(error) => ApiError::failed(&error),
            }
        }
        JournalError::HoldsLess { .. } => ApiError::new(StatusCode::FORBIDDEN, &error),
        JournalError::Recopying { .. } => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, &error),
        JournalError::Store(_) => ApiError::failed(&error),
    })
}

/// `POST /v1/orphans`: changes that the asker acknowledged as owner and this pool, the owner now, does not
/// have. Answers what became of them, durably.
///
/// Errors: 403 from anybody but the other pool of the pair, 409 while this pool does not own the journal, 503
/// when they could not be kept.
pub async fn orphans(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Json<Offered>, ApiError> {
    let asker = pool_of(&shared, &caller)?;
    let page = OrphanPage::decode(&body).map_err(ApiError::bad_request)?;
    let journal = page.common().journal.clone();
    if Scopes::of(&shared.topology(), &asker).wanted(&journal) != Some(&Scope::Everything) {
        let message = format!("{asker} has no changes of {journal} to offer");
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    if let Some(branch) = shared.associations.leaving(&journal).first() {
        let message =
            format!("users of {branch} are on their way from the journal of {journal}: offer again");
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    let _writing = shared.gates.of(&journal).read_owned().await;
    let index = shared.directory.homes().index(&journal);
    let held = index.and_then(|index| shared.authority.read().holds(index, clock::now()));
    let Some(held) = held else {
        return Err(ApiError::new(StatusCode::CONFLICT, format!("this pool does not own {journal} now")));
    };
    let users = Arc::clone(&shared.users);
    let adopted = blocking(move || users.adopt(held.epoch, clock::wall_time(), &page)).await?;
    let adopted = adopted.map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error))?;
    let words = adopted.iter().map(|adopted| format!("{:?}", adopted.outcome).to_ascii_lowercase());
    Ok(Json(counted(words)))
}

/// The pool of the server that asks.
///
/// Errors: 403 for operators and servers that are not of the topology.
pub fn pool_of(shared: &Shared, caller: &Caller) -> Result<PoolName, ApiError> {
    let refused = || ApiError::new(StatusCode::FORBIDDEN, "only servers of the topology may ask this");
    match &caller.0 {
        Identity::Server(name) => {
            shared.topology().server(name).map(|server| server.pool.clone()).ok_or_else(refused)
        }
        Identity::Operator => Err(refused()),
    }
}
