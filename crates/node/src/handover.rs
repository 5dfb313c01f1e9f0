//! Hands the bindings of a home pool back to it, once it owns its users again.
//!
//! During a takeover phones registered here. When the home pool is the owner again it gets what is bound
//! here, each binding with a Path through this server, so that calls reach the phones before they register at
//! home.

use std::{sync::Arc, time::Duration};

use model::{AddressOfRecord, Epoch, PoolName, Protocol, WallTime};
use pairing::{Contact, Standing};
use registrar::{Binding, Command, OperationId, Registration, UserChange};
use serde::{Deserialize, Serialize};
use store::HotStore;
use tokio::{sync::oneshot, time::sleep};
use tracing::{info, warn};

use crate::{
    Shared, accounts,
    api::wire::Changed,
    clock,
    peers::{Endpoint, PeerClient, PeerError},
    shard::legs::Legs,
};

/// Time between two looks at who owns what.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Bindings of one page.
const PAGE_BINDINGS_MAX: usize = 200;
/// How long the home pool may take for a page.
const PAGE_WITHIN: Duration = Duration::from_secs(10);

/// Bindings that go home; body of `POST /v1/handover`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// The home pool.
    pub home: PoolName,
    /// Whose, and how to bind them.
    pub bindings: Vec<(AddressOfRecord, Registration)>,
}

/// Hands over whatever is bound here for the partner's users while the partner is their owner, until dropped.
pub async fn run(shared: Arc<Shared>, client: PeerClient) {
    let Some(partner) = shared.topology.partner_of(&shared.pool).map(|pool| pool.name.clone()) else {
        return;
    };
    let legs = Legs::of(&shared.topology, &shared.server);
    loop {
        sleep(LOOK_EVERY).await;
        if shared.hot.bindings(&partner) == 0 || !is_home(&shared, &partner) {
            continue;
        }
        match hand_over(&shared, &client, &legs, &partner).await {
            Ok(0) => {}
            Ok(count) => info!(pool = %partner, bindings = count, "bindings handed home"),
            Err(error) => warn!(pool = %partner, %error, "bindings not handed home; trying again"),
        }
    }
}

/// Whether the partner owns its users and is heard.
fn is_home(shared: &Shared, partner: &PoolName) -> bool {
    let Some(index) = shared.directory.homes().index(partner) else { return false };
    match shared.authority.read().standing(index) {
        Some(Standing::Elsewhere { tenure, contact }) => {
            tenure.owner == *partner && *contact == Contact::Heard
        }
        Some(Standing::Serving(_) | Standing::Paused(_) | Standing::Unknown) | None => false,
    }
}

async fn hand_over(
    shared: &Shared,
    client: &PeerClient,
    legs: &Legs,
    home: &PoolName,
) -> Result<usize, PeerError> {
    let Some(server) = shared.topology.servers_of(home).next() else { return Ok(0) };
    let endpoint = Endpoint { address: server.listen.internal_http, name: server.fqdn.clone() };
    let (users, bindings) = collect(shared, legs, home);
    for page in bindings.chunks(PAGE_BINDINGS_MAX) {
        let body = Handover { home: home.clone(), bindings: page.to_vec() };
        let _kept: Changed = client.post(&endpoint, "/v1/handover", &body, PAGE_WITHIN).await?;
    }
    forget(shared, home, users).await;
    Ok(bindings.len())
}

/// Everybody with bindings here, and the bindings that still lead somewhere.
fn collect(
    shared: &Shared,
    legs: &Legs,
    home: &PoolName,
) -> (Vec<AddressOfRecord>, Vec<(AddressOfRecord, Registration)>) {
    let now = clock::wall_time();
    let (mut users, mut bindings) = (Vec::new(), Vec::new());
    shared.hot.for_each_binding(home, &mut |aor, binding| {
        if users.last() != Some(aor) {
            users.push(aor.clone());
        }
        bindings
            .extend(registration(shared, legs, binding, now).map(|registration| (aor.clone(), registration)));
    });
    (users, bindings)
}

/// How to bind this binding at home; `None` when its connection is gone.
fn registration(shared: &Shared, legs: &Legs, binding: &Binding, now: WallTime) -> Option<Registration> {
    let path = match binding.flow() {
        None => None,
        Some(flow) if flow.peer.protocol == Protocol::Udp || flow.boot == shared.boot => {
            Some(legs.path(&flow.peer, &shared.tokens)?)
        }
        Some(_) => return None,
    };
    let devices_max = shared.topology.pool(&shared.pool)?.settings.devices_per_user_max;
    binding.to_registration(now, path.as_deref().map(str::as_bytes), devices_max)
}

/// Removes what was handed over: whoever asks here from now on is sent home.
async fn forget(shared: &Shared, home: &PoolName, users: Vec<AddressOfRecord>) {
    let epoch = shared.hot.highest_epoch(home);
    let remove = |aor| command(home, epoch, aor, UserChange::Remove { contact: None });
    let (done, written) = oneshot::channel();
    let commands: Vec<_> = users.into_iter().map(remove).collect();
    shared.hot.submit(commands, Box::new(move |outcomes| drop(done.send(outcomes))));
    let _tried_again_by_the_next_look = written.await;
}

/// A command that nobody else names.
pub fn command(home: &PoolName, epoch: Epoch, aor: AddressOfRecord, change: UserChange) -> Command {
    let operation = OperationId::new(accounts::fresh_operation().number());
    Command::of_user(home.clone(), epoch, operation, clock::wall_time(), aor, change)
}
