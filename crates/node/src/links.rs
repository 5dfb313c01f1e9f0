//! Which other servers answer, and what each says that it serves.

use std::{
    hash::{Hash, Hasher},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use model::{Epoch, Instant, PoolName, ServerName};
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use tokio::{sync::watch, time::sleep};
use topology::Topology;

use crate::{
    AuthorityTable, HomeIndex, Homes, clock,
    peers::{Endpoint, PeerClient},
};

/// How long a server that has no news may wait before it answers.
const WAIT: Duration = Duration::from_secs(1);
/// Time before a server that did not answer is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How old the last answer of a server may be before it counts as silent.
const SILENT_AFTER: Duration = Duration::from_millis(3_500);
/// How long the users of a home pool that a server has ceased to serve may be between two owners.
const CHANGE_WITHIN: Duration = Duration::from_secs(2);

/// Answer of `GET /v1/serving`: the home pools whose users the answering server serves at that moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// One entry for each.
    pub homes: Vec<ServedHome>,
}

impl Serving {
    /// A number that is the same for the same content.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        self.homes.hash(&mut hasher);
        hasher.finish()
    }
}

/// A home pool that somebody serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Grows whenever a server says that it serves something else than before.
    changes: watch::Sender<u64>,
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
        Self { links, changes: watch::channel(0).0 }
    }

    /// Changes whenever a server says that it serves something else than before. That one falls silent is no
    /// change: its word counts for a while.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
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

    /// Asks every server again and again, each by a task of its own, so that a slow one delays no other. When
    /// one ceases to serve a home pool, its users may be between two owners from then on.
    pub fn watch(self: &Arc<Self>, client: &PeerClient, homes: &Homes, authority: &Arc<AuthorityTable>) {
        for at in 0..self.links.len() {
            let (links, client, homes) = (Arc::clone(self), client.clone(), homes.clone());
            let authority = Arc::clone(authority);
            tokio::spawn(async move {
                if let Some(link) = links.links.get(at) {
                    link.watch(&client, &homes, &authority, &links.changes).await;
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
    /// Asks what the server serves, over and over; it answers at once when that is not what it said before.
    async fn watch(
        &self,
        client: &PeerClient,
        homes: &Homes,
        authority: &AuthorityTable,
        changes: &watch::Sender<u64>,
    ) {
        let mut path = "/v1/serving".to_owned();
        loop {
            let asked = client.get::<Serving>(&self.endpoint, &path, WAIT + ANSWER_WITHIN).await;
            let Ok(serving) = asked else {
                "/v1/serving".clone_into(&mut path);
                sleep(RETRY_AFTER).await;
                continue;
            };
            path = format!("/v1/serving?known={}&wait_ms={}", serving.fingerprint(), WAIT.as_millis());
            let known = serving.homes.iter().filter_map(|served| {
                homes.index(&served.home).map(|home| (home, served.epoch, served.is_full))
            });
            let heard = Heard { at: clock::now(), homes: known.collect() };
            let (ceased, is_news) = self.hear(heard);
            for home in ceased {
                authority.change_until(home, clock::now() + CHANGE_WITHIN);
            }
            if is_news {
                changes.send_modify(|number| *number = number.wrapping_add(1));
            }
        }
    }

    /// Takes the newest answer; returns the home pools that the server has ceased to serve, and whether it
    /// serves anything else than before.
    fn hear(&self, heard: Heard) -> (Vec<HomeIndex>, bool) {
        let mut last = self.heard.write().unwrap_or_else(PoisonError::into_inner);
        let before = last.replace(heard.clone()).map(|before| before.homes).unwrap_or_default();
        let is_news = before != heard.homes;
        let is_served = |home: HomeIndex| heard.homes.iter().any(|(served, ..)| *served == home);
        let ceased = before.into_iter().map(|(home, ..)| home).filter(|home| !is_served(*home)).collect();
        (ceased, is_news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> PoolName {
        PoolName::new(text).unwrap()
    }

    fn served(home: &str, epoch: u64, is_full: bool) -> Serving {
        Serving { homes: vec![ServedHome { home: name(home), epoch: Epoch::new(epoch), is_full }] }
    }

    #[test]
    fn a_fingerprint_tells_every_difference_in_who_is_served() {
        let known = served("east", 1, true).fingerprint();

        assert_eq!(served("east", 1, true).fingerprint(), known);
        let others =
            [served("west", 1, true), served("east", 2, true), served("east", 1, false), Serving::default()];
        for other in others {
            assert_ne!(other.fingerprint(), known, "{other:?}");
        }
    }

    #[test]
    fn a_home_pool_that_a_server_ceases_to_serve_is_told_once() {
        let topology = Topology::read(include_str!("../../tandem/src/example.toml")).unwrap().0;
        let homes = Homes::of(&topology);
        let links = Links::of(&topology, &homes, &ServerName::new("west1").unwrap());
        let link = links.links.first().unwrap();
        let [east, west] = ["east", "west"].map(|pool| homes.index(&name(pool)).unwrap());
        let heard = |served: &[HomeIndex]| Heard {
            at: Instant::START,
            homes: served.iter().map(|home| (*home, Epoch::ZERO, true)).collect(),
        };

        assert_eq!(link.hear(heard(&[east, west])), (vec![], true));
        assert_eq!(link.hear(heard(&[west])), (vec![east], true));
        assert_eq!(link.hear(heard(&[west])), (vec![], false));
        assert_eq!(link.hear(heard(&[east, west])), (vec![], true));
    }

    #[test]
    fn the_claim_with_the_highest_epoch_counts_while_it_is_fresh() {
        let topology = Topology::read(include_str!("../../tandem/src/example.toml")).unwrap().0;
        let homes = Homes::of(&topology);
        let links = Links::of(&topology, &homes, &ServerName::new("branch1a").unwrap());
        let east = homes.index(&name("east")).unwrap();
        let at = |seconds: u64| Instant::from_micros(seconds * 1_000_000);
        let hear = |server: &str, epoch: u64, seconds: u64| {
            let link = links.links.iter().find(|link| link.server.as_str() == server).unwrap();
            let homes = vec![(east, Epoch::new(epoch), true)];
            *link.heard.write().unwrap() = Some(Heard { at: at(seconds), homes });
        };
        assert_eq!(links.serving(east, at(1)), None);

        hear("east1", 1, 1);
        hear("west1", 2, 2);
        let claim = links.serving(east, at(3)).unwrap();
        assert_eq!((claim.server.as_str(), claim.is_at_home), ("west1", false));

        hear("east1", 3, 9);
        assert_eq!(links.serving(east, at(9)).unwrap().server.as_str(), "east1");
        assert_eq!(links.silence(&ServerName::new("west1").unwrap(), at(9)), Some(Duration::from_secs(7)));
        assert_eq!(links.silence(&ServerName::new("east1").unwrap(), at(9)), None);
    }
}
