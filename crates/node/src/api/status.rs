//! How this server is, and whom it serves.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State},
};
use model::PoolName;
use pairing::{Authority, Service, Standing};
use serde::Deserialize;
use store::{Health, HotStore, StoreError};
use tokio::time::timeout;
use topology::CallRecords;

use super::{
    ApiError, blocking,
    wire::{Copied, CopyStatus, HomeStatus, ServerStatus},
};
use crate::{
    Shared, StreamLag, StreamPart, StreamState,
    backup_service::CopyState,
    clock,
    links::{ServedHome, Serving},
    shared::service_name,
};

/// Longest time a question about who is served waits for news.
const SERVING_WAIT_MAX: Duration = Duration::from_secs(5);

/// `GET /v1/status`.
pub async fn status(State(shared): State<Arc<Shared>>) -> Result<Json<ServerStatus>, ApiError> {
    blocking(move || read(&shared)).await.map(Json)
}

/// How this server is now; reads the store, so it blocks.
pub fn read(shared: &Shared) -> ServerStatus {
    let mut homes = homes(shared);
    let uncounted = count_conflicts(shared, &mut homes).err();
    ServerStatus {
        server: shared.server.name.clone(),
        pool: shared.pool.clone(),
        role: shared.role.to_string(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        topology_version: shared.topology().version,
        uptime_s: clock::now().as_micros() / 1_000_000,
        users_known: shared.directory.len(),
        health: match shared.hot.health() {
            Health::Good => uncounted
                .map_or_else(|| "ok".to_owned(), |error| format!("user data cannot be read: {error}")),
            Health::LogGrows { reason } => format!("the log of bindings cannot be shortened: {reason}"),
            Health::ReadOnly { reason } => format!("no registrations are written: {reason}"),
        },
        homes,
        copies: copies(shared),
        moves: shared.associations.status(),
        certificates: shared.certificates.statuses(clock::wall_time()),
        counters: shared.counters.list(),
    }
}

/// What a server that asks knows already.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServingQuery {
    /// [`Serving::fingerprint`] of the last answer.
    known: Option<u64>,
    /// How long the answer may wait for something else, at most [`SERVING_WAIT_MAX`].
    wait_ms: u64,
}

/// `GET /v1/serving`: at once when it is not what the asker knows, else when it changes or the wait is over.
pub async fn serving_now(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<ServingQuery>,
) -> Json<Serving> {
    let mut changes = shared.authority.changes();
    let wait = Duration::from_millis(query.wait_ms).min(SERVING_WAIT_MAX);
    let news = async {
        while query.known == Some(serving(&shared).fingerprint()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    let _nothing_new = timeout(wait, news).await;
    Json(serving(&shared))
}

/// The home pools whose users this server serves now.
pub fn serving(shared: &Shared) -> Serving {
    let now = clock::now();
    let authority = shared.authority.read();
    let homes = shared.directory.homes().iter().filter_map(|(index, home)| {
        let held = authority.holds(index, now).or_else(|| shared.backing_branch(index, &authority, now))?;
        let is_full = held.service == Service::Full;
        Some(ServedHome { home: home.clone(), epoch: held.epoch, is_full })
    });
    Serving { homes: homes.collect() }
}

fn homes(shared: &Shared) -> Vec<HomeStatus> {
    let now = clock::now();
    let authority = shared.authority.read();
    let homes = shared.directory.homes().iter().filter_map(|(index, home)| {
        let is_own = *home == shared.pool;
        let is_backup = shared.topology().backup_of(home).is_some_and(|backup| backup.name == shared.pool);
        if !is_own && !is_backup {
            return None;
        }
        let held = authority.holds(index, now).or_else(|| shared.backing_branch(index, &authority, now));
        let known = match authority.standing(index) {
            Some(Standing::Elsewhere { tenure, .. } | Standing::Paused(tenure)) => {
                Some((tenure.owner.clone(), tenure.epoch))
            }
            Some(Standing::Serving(_) | Standing::Unknown) | None => None,
        };
        let owner = match held {
            Some(_) => Some(shared.pool.clone()),
            None => known.as_ref().map(|(owner, _)| owner.clone()).or_else(|| claimed(shared, index)),
        };
        let tenure = shared.ownerships.of(home).and_then(|handle| handle.known().borrow().clone());
        Some(HomeStatus {
            home: home.clone(),
            part: if is_own { "home" } else { "backup" }.to_owned(),
            owner,
            epoch: held.map(|held| held.epoch).or(known.map(|(_, epoch)| epoch)),
            service: held.map(|held| service_name(held.service).to_owned()),
            authority_ms: held.and_then(|held| left_ms(&held, now)),
            bindings: u64::try_from(shared.hot.bindings(home)).unwrap_or(u64::MAX),
            state: tenure.as_ref().map(|tenure| tenure.state),
            order: tenure.as_ref().and_then(|tenure| tenure.order.clone()),
            undone: tenure.as_ref().and_then(|tenure| tenure.undone),
            users: u64::try_from(shared.directory.users_of(index)).unwrap_or(u64::MAX),
            calls: notes_calls(shared).then(|| shared.calls.lasting(index)),
            conflicts: 0,
        })
    });
    homes.collect()
}

/// Fills in how many conflicts wait in the journal of each home pool.
fn count_conflicts(shared: &Shared, homes: &mut [HomeStatus]) -> Result<(), StoreError> {
    let change = *shared.user_news.borrow();
    for home in homes {
        home.conflicts = shared.conflicts.of(shared.users.as_ref(), &home.home, change)?;
    }
    Ok(())
}

/// Whether this server looks at answered calls and their ends.
fn notes_calls(shared: &Shared) -> bool {
    let topology = shared.topology();
    let own = topology.pool(&shared.pool);
    own.is_some_and(|own| own.settings.call_records == CallRecords::All)
}

/// Every copy of documents and of bindings to and from this server.
fn copies(shared: &Shared) -> Vec<CopyStatus> {
    let documents = shared.copies.list(clock::now(), |home| is_owner(shared, home));
    let bindings = shared.binding_streams.lags().into_iter().filter_map(|lag| stream(shared, lag));
    documents.into_iter().chain(bindings).collect()
}

/// A binding stream as a copy; `None` while nobody reads it and nobody has to.
fn stream(shared: &Shared, lag: StreamLag) -> Option<CopyStatus> {
    let other = shared.topology().servers_of(&lag.other).next()?.name.clone();
    let me = shared.server.name.clone();
    let state = match lag.state {
        StreamState::Idle => return None,
        StreamState::Initialising => CopyState::Initialising,
        StreamState::Behind => CopyState::Behind,
        StreamState::Steady => CopyState::Steady,
        StreamState::Error => CopyState::Error,
    };
    let is_source = lag.part == StreamPart::Source;
    let (from, to) = if is_source { (me, other) } else { (other, me) };
    let age = Duration::try_from_secs_f64(lag.seconds).unwrap_or_default();
    Some(CopyStatus {
        home: lag.home,
        what: Copied::Bindings,
        from: Some(from),
        to,
        state: Some(state),
        lag_entries: is_source.then_some(lag.users),
        lag_ms: is_source.then(|| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        silent_ms: None,
        pages: None,
        reason: None,
    })
}

/// Whether this pool owns the home pool's users: its journal is the one that others copy.
fn is_owner(shared: &Shared, home: &PoolName) -> bool {
    let handle = shared.ownerships.of(home);
    let known = handle.and_then(|handle| handle.known().borrow().clone());
    known.map_or(*home == shared.pool, |tenure| tenure.owner == shared.pool)
}

fn claimed(shared: &Shared, index: crate::HomeIndex) -> Option<PoolName> {
    let claim = shared.links.serving(index, clock::now())?;
    shared.topology().pool_of(&claim.server).map(|pool| pool.name.clone())
}

fn left_ms(authority: &Authority, now: model::Instant) -> Option<u64> {
    let is_endless = authority.until == model::Instant::NEVER_ENDS;
    let left = authority.until.saturating_since(now).as_millis();
    (!is_endless).then(|| u64::try_from(left).unwrap_or(u64::MAX))
}
