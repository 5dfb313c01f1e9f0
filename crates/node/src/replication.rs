//! Pulls the journals of other home pools: accounts where this server may have to serve, else who is homed
//! where.

use std::{sync::Arc, time::Duration};

use model::PoolName;
use store::{Page, Scope, SqliteUserStore, UserStore};
use tokio::time::sleep;
use topology::{Role, Topology};
use tracing::{debug, warn};

use crate::peers::{Endpoint, PeerClient, PeerError};

/// Time a question may wait for news at the source.
const WAIT: Duration = Duration::from_secs(20);
/// Time for the answer beyond that.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Time before a failed question is repeated.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What one pool copies of the others.
#[derive(Clone, Debug)]
pub struct Scopes(Vec<(PoolName, Scope)>);

impl Scopes {
    /// What `pool` has to copy: accounts of the home pools it backs, of its pair's branches and of its
    /// partner; the directory of all others. A branch copies no accounts.
    pub fn of(topology: &Topology, pool: &PoolName) -> Self {
        let partner = topology.partner_of(pool).map(|partner| &partner.name);
        let serves = |home: &PoolName| {
            partner == Some(home)
                || topology.backup_of(home).is_some_and(|b| b.name == *pool)
                || topology.associated_of(home).is_some_and(|associated| partner == Some(&associated.name))
        };
        let is_branch = topology.pool(pool).is_some_and(|pool| pool.role == Role::Branch);
        let others = topology.home_pools().filter(|home| home.name != *pool);
        let scope =
            |home: &PoolName| if !is_branch && serves(home) { Scope::Accounts } else { Scope::Directory };
        Self(others.map(|home| (home.name.clone(), scope(&home.name))).collect())
    }

    /// What the pool copies of this home pool; `None` = nothing, it is its own.
    pub fn wanted(&self, home: &PoolName) -> Option<Scope> {
        self.0.iter().find(|(name, _)| name == home).map(|(_, scope)| *scope)
    }

    /// Every home pool that is copied, with what is copied of it.
    pub fn iter(&self) -> impl Iterator<Item = &(PoolName, Scope)> {
        self.0.iter()
    }
}

/// Starts one task for each home pool that this server copies.
pub fn start(topology: &Topology, pool: &PoolName, users: &Arc<SqliteUserStore>, client: &PeerClient) {
    for (home, scope) in Scopes::of(topology, pool).iter() {
        let Some(server) = topology.servers_of(home).next() else { continue };
        let source = Endpoint { address: server.listen.internal_http, name: server.fqdn.clone() };
        tokio::spawn(follow(home.clone(), *scope, source, Arc::clone(users), client.clone()));
    }
}

async fn follow(
    home: PoolName,
    scope: Scope,
    source: Endpoint,
    users: Arc<SqliteUserStore>,
    client: PeerClient,
) {
    let mut was_reached = true;
    loop {
        match pull(&home, scope, &source, &users, &client).await {
            Ok(()) => was_reached = true,
            Err(error) => {
                if was_reached {
                    warn!(pool = %home, %error, "journal not read; trying again");
                } else {
                    debug!(pool = %home, %error, "journal not read");
                }
                was_reached = false;
                sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Asks for the next page and applies it.
async fn pull(
    home: &PoolName,
    scope: Scope,
    source: &Endpoint,
    users: &Arc<SqliteUserStore>,
    client: &PeerClient,
) -> Result<(), PullError> {
    let cursor = users.cursor(home, scope)?;
    let path = format!(
        "/v1/journal?home={home}&sequence={}&epoch={}&scope={}&wait_ms={}",
        cursor.sequence,
        cursor.epoch.number(),
        match scope {
            Scope::Accounts => "accounts",
            Scope::Directory => "directory",
        },
        WAIT.as_millis()
    );
    let octets = client.get_octets(source, &path, WAIT + ANSWER_WITHIN).await?;
    let page = Page::decode(&octets)?;
    if page.entries().is_empty() {
        return Ok(());
    }
    let (users, home) = (Arc::clone(users), home.clone());
    tokio::task::spawn_blocking(move || users.apply(&home, &page)).await??;
    Ok(())
}

/// Why a page was not copied; the next attempt begins where this one did.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Apply(#[from] store::ApplyError),
    #[error(transparent)]
    Store(#[from] store::StoreError),
    #[error("the store's thread ended")]
    Ended(#[from] tokio::task::JoinError),
}
