//! How this server is, and whom it serves.

use std::sync::Arc;

use axum::{Json, extract::State};
use pairing::{Authority, Service, Standing};
use store::{Health, HotStore};

use super::wire::{HomeStatus, ServerStatus};
use crate::{
    Shared, clock,
    links::{ServedHome, Serving},
    shared::service_name,
};

/// `GET /v1/status`.
pub async fn status(State(shared): State<Arc<Shared>>) -> Json<ServerStatus> {
    Json(ServerStatus {
        server: shared.server.name.clone(),
        pool: shared.pool.clone(),
        role: shared.role.to_string(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        topology_version: shared.topology.version,
        uptime_s: clock::now().as_micros() / 1_000_000,
        users_known: shared.directory.len(),
        health: match shared.hot.health() {
            Health::Good => "ok".to_owned(),
            Health::LogGrows { reason } => format!("the log of bindings cannot be shortened: {reason}"),
            Health::ReadOnly { reason } => format!("no registrations are written: {reason}"),
        },
        homes: homes(&shared),
        counters: shared.counters.list(),
    })
}

/// `GET /v1/serving`.
pub async fn serving_now(State(shared): State<Arc<Shared>>) -> Json<Serving> {
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
        let is_backup = shared.topology.backup_of(home).is_some_and(|backup| backup.name == shared.pool);
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
        Some(HomeStatus {
            home: home.clone(),
            part: if is_own { "home" } else { "backup" }.to_owned(),
            owner,
            epoch: held.map(|held| held.epoch).or(known.map(|(_, epoch)| epoch)),
            service: held.map(|held| service_name(held.service).to_owned()),
            authority_ms: held.and_then(|held| left_ms(&held, now)),
            bindings: u64::try_from(shared.hot.bindings(home)).unwrap_or(u64::MAX),
        })
    });
    homes.collect()
}

fn claimed(shared: &Shared, index: crate::HomeIndex) -> Option<model::PoolName> {
    let claim = shared.links.serving(index, clock::now())?;
    shared.topology.pool_of(&claim.server).map(|pool| pool.name.clone())
}

fn left_ms(authority: &Authority, now: model::Instant) -> Option<u64> {
    let is_endless = authority.until == model::Instant::NEVER_ENDS;
    let left = authority.until.saturating_since(now).as_millis();
    (!is_endless).then(|| u64::try_from(left).unwrap_or(u64::MAX))
}
