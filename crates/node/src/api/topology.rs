//! Putting another topology in force, by order of an operator.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use topology::{OnlineChange, Topology};
use tracing::info;

use super::{
    ApiError, blocking,
    control::Control,
    only_operator,
    wire::{Reload, Reloaded},
};
use crate::{Candidate, Shared, TopologyInForce, peers::Caller};

/// `POST /v1/topology` at a server that speaks SIP: what its topology file would change, or, with the
/// fingerprint of the file, the change itself.
pub async fn reload(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Json(order): Json<Reload>,
) -> Result<Json<Reloaded>, ApiError> {
    only_operator(&caller)?;
    let reloaded = blocking(move || {
        let remember = |topology: &Topology, _: &OnlineChange| {
            let owned = |pool: &_| shared.writing_authority(pool).ok();
            let remembered = shared.associations.adopt(topology, owned);
            remembered
                .map_err(|error| vec![format!("the associations of branches cannot be written: {error}")])
        };
        answer(&shared.topology, &order, |change| unfinished(&shared, change), remember)
    });
    reloaded.await.map(Json)
}

/// The same at a control server.
pub async fn reload_control(
    State(control): State<Arc<Control>>,
    Extension(caller): Extension<Caller>,
    Json(order): Json<Reload>,
) -> Result<Json<Reloaded>, ApiError> {
    only_operator(&caller)?;
    blocking(move || answer(&control.topology, &order, |_| Vec::new(), |_, _| Ok(()))).await.map(Json)
}

/// Branches that cannot go to another pool because the users have not all come from the last one.
fn unfinished(shared: &Shared, change: &OnlineChange) -> Vec<String> {
    let mut refusals = Vec::new();
    for association in &change.associations {
        for from in shared.associations.former(&association.branch) {
            let (branch, to) = (&association.branch, &association.from);
            refusals.push(format!(
                "{branch}: users are still on their way from {from} to {to}: see `tandem pool status`"
            ));
        }
    }
    refusals
}

fn answer(
    topology: &TopologyInForce,
    order: &Reload,
    unfinished: impl Fn(&OnlineChange) -> Vec<String>,
    remember: impl FnOnce(&Topology, &OnlineChange) -> Result<(), Vec<String>>,
) -> Reloaded {
    let before = topology.now().version;
    let candidate = match &order.apply {
        None => {
            let mut candidate = topology.read();
            candidate.refusals.extend(unfinished(&candidate.change));
            candidate
        }
        Some(expected) => topology.replace(expected, |new, change| {
            let refusals = unfinished(change);
            if refusals.is_empty() { remember(new, change) } else { Err(refusals) }
        }),
    };
    let after = topology.now().version;
    if after != before {
        info!(before, after, "topology in force");
    }
    told(candidate, before, after)
}

fn told(candidate: Candidate, before: u64, after: u64) -> Reloaded {
    let associations = candidate.change.associations.iter();
    let changes = associations.map(|it| format!("{}: associated_pool: {} -> {}", it.branch, it.from, it.to));
    Reloaded {
        before,
        after,
        offered: candidate.topology.map(|topology| topology.version),
        fingerprint: candidate.fingerprint,
        changes: changes.collect(),
        refusals: candidate.refusals,
    }
}
