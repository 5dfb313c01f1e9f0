//! `GET /v1/bindings`: what changed in the bindings of a home pool here.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Bytes,
    extract::{Query, State},
    http::StatusCode,
};
use model::{Epoch, PoolName, limits};
use pairing::Standing;
use serde::Deserialize;
use store::{HotCursor, HotStore};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{ApiError, blocking, pair::pool_of};
use crate::{
    Shared,
    binding_stream::{StreamPage, may_read},
    clock,
    peers::Caller,
};

/// Longest time a question waits for news.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest time changes gather.
const GATHER_MAX: Duration = Duration::from_secs(1);

/// Where a reader is, and how long it waits.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingsQuery {
    home: PoolName,
    cursor: String,
    wait_ms: u64,
    gather_ms: u64,
}

/// `GET /v1/bindings`: the next page; waits up to `wait_ms` for the first change, then `gather_ms` for more.
///
/// Errors: 400 for a cursor that is none, 403 for pools that will never serve these users.
pub async fn bindings(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<BindingsQuery>,
) -> Result<Bytes, ApiError> {
    let reader = pool_of(&shared, &caller)?;
    let home = query.home;
    if !may_read(&shared.topology(), &reader, &shared.pool, &home) {
        let message = format!("{reader} has no part in serving the users of {home}");
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let cursor = HotCursor::from_text(&query.cursor)
        .ok_or_else(|| ApiError::bad_request("the cursor is none: begin without one"))?;
    let asking = shared.binding_streams.asked(&home, &reader, &cursor);
    if cursor == shared.hot.newest_change(&home) {
        let (wake, woken) = oneshot::channel();
        shared.hot.when_changed(
            &home,
            &cursor,
            Box::new(move || {
                let _reader_has_left = wake.send(());
            }),
        );
        if timeout(Duration::from_millis(query.wait_ms).min(WAIT_MAX), woken).await.is_ok() {
            asking.news_came(&cursor, clock::now());
            sleep(Duration::from_millis(query.gather_ms).min(GATHER_MAX)).await;
        }
    }
    let (hot, named) = (Arc::clone(&shared.hot), home.clone());
    let read = move || hot.changes(&named, &cursor, limits::BINDING_USERS_PER_PAGE_MAX, clock::wall_time());
    let held = u64::try_from(shared.hot.bindings(&home)).unwrap_or(u64::MAX);
    let page = StreamPage { bindings: blocking(read).await?, epoch: epoch_of(&shared, &home), held };
    Ok(Bytes::from(page.encode()))
}

/// The epoch under which this server speaks of a home pool's users: its own tenure's, also when it has just
/// stopped to serve, else the highest it holds anything of.
fn epoch_of(shared: &Shared, home: &PoolName) -> Epoch {
    let index = shared.directory.homes().index(home);
    let own = index.and_then(|index| match shared.authority.read().standing(index)? {
        Standing::Serving(authority) => Some(authority.epoch),
        Standing::Paused(tenure) if tenure.owner == shared.pool => Some(tenure.epoch),
        Standing::Paused(_) | Standing::Elsewhere { .. } | Standing::Unknown => None,
    });
    shared.hot.highest_epoch(home).max(own.unwrap_or_default())
}
