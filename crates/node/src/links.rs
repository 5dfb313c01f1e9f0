//! Which other servers answer, and what each says that it serves.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use model::{Epoch, Instant, PoolName, ServerName};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use topology::Topology;

use crate::{
    HomeIndex, Homes, clock,
    peers::{Endpoint, PeerClient},
};

/// Time between two questions to a server.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How old the last answer of a server may be before it counts as silent.
const SILENT_AFTER: Duration = Duration::from_millis(3_500);

/// Answer of `GET /v1/serving`: the home pools whose users the answering server serves at that moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Serving {
    /// One entry for each.
    pub homes: Vec<ServedHome>,
}

/// A home pool that somebody serves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServedHome {
    /// The home pool.
    pub home: PoolName,
    /// Under which epoch.
    pub epoch: Epoch,
    /// Whether its users get user services.
    pub is_full: bool,
}

/// What is known of the other servers of the topology that speak SIP.
#[derive(Debug)]
pub struct Links {
    links: Vec<Link>,
}

/// A server's word that it serves a home pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who says so.
    pub server: ServerName,
    /// Under which epoch.
    pub epoch: Epoch,
    /// Whether with user services.
    pub is_full: bool,
    /// Whether it belongs to the home pool.
    pub is_at_home: bool,
}

#[derive(Debug)]
struct Link {
    server: ServerName,
    home: Option<HomeIndex>,
    endpoint: Endpoint,
    heard: RwLock<Option<Heard>>,
}

#[derive(Clone, Debug)]
struct Heard {
    at: Instant,
    homes: Vec<(HomeIndex, Epoch, bool)>,
}

impl Links {
    /// Links to every server but `me` that speaks SIP; nothing is known of them yet.
    pub fn of(topology: &Topology, homes: &Homes, me: &ServerName) -> Self {
        let speaks = |pool: &PoolName| topology.pool(pool).is_some_and(|pool| pool.role.speaks_sip());
        let others = topology.servers.iter().filter(|server| server.name != *me && speaks(&server.pool));
        let links = others
            .map(|server| Link {
                server: server.name.clone(),
                home: homes.index(&server.pool),
                endpoint: Endpoint { address: server.listen.internal_http, name: server.fqdn.clone() },
                heard: RwLock::new(None),
            })
            .collect();
        Self { links }
    }

    /// Whether this server answered a moment ago.
    pub fn is_up(&self, server: &ServerName, now: Instant) -> bool {
        self.fresh(now).any(|(link, _)| link.server == *server)
    }

    /// For how long this server has not answered, counted from the start of this process when it never did;
    /// `None` when it answered a moment ago.
    pub fn silence(&self, server: &ServerName, now: Instant) -> Option<Duration> {
        let link = self.links.iter().find(|link| link.server == *server)?;
        let heard = link.heard.read().unwrap_or_else(PoisonError::into_inner);
        let silence = now.saturating_since(heard.as_ref().map_or(Instant::START, |heard| heard.at));
        (silence >= SILENT_AFTER || heard.is_none()).then_some(silence)
    }

    /// The server that says it serves this home pool: one of the home pool itself before a backup registrar,
    /// then the one with the highest epoch.
    pub fn serving(&self, home: HomeIndex, now: Instant) -> Option<Claim> {
        let claims = self.fresh(now).filter_map(|(link, heard)| {
            let (_, epoch, is_full) = heard.homes.iter().copied().find(|(served, ..)| *served == home)?;
            Some(Claim { is_at_home: link.home == Some(home), epoch, server: link.server.clone(), is_full })
        });
        claims.max_by_key(|claim| (claim.epoch, claim.is_at_home))
    }

    /// Asks every server again and again, each by a task of its own, so that a slow one delays no other.
    pub fn watch(self: &Arc<Self>, client: &PeerClient, homes: &Homes) {
        for at in 0..self.links.len() {
            let (links, client, homes) = (Arc::clone(self), client.clone(), homes.clone());
            tokio::spawn(async move {
                if let Some(link) = links.links.get(at) {
                    link.watch(&client, &homes).await;
                }
            });
        }
    }

    fn fresh(&self, now: Instant) -> impl Iterator<Item = (&Link, Heard)> {
        self.links.iter().filter_map(move |link| {
            let heard = link.heard.read().unwrap_or_else(PoisonError::into_inner).clone()?;
            (now.saturating_since(heard.at) < SILENT_AFTER).then_some((link, heard))
        })
    }
}

impl Link {
    async fn watch(&self, client: &PeerClient, homes: &Homes) {
        loop {
            let began = clock::now();
            if let Ok(serving) = client.get::<Serving>(&self.endpoint, "/v1/serving", ANSWER_WITHIN).await {
                let known = serving.homes.iter().filter_map(|served| {
                    homes.index(&served.home).map(|home| (home, served.epoch, served.is_full))
                });
                let heard = Heard { at: began, homes: known.collect() };
                *self.heard.write().unwrap_or_else(PoisonError::into_inner) = Some(heard);
            }
            sleep(ASK_EVERY).await;
        }
    }
}
