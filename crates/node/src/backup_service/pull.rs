//! Copies a journal from whoever owns it, page after page.

use std::{sync::Arc, time::Duration};

use model::{Epoch, PoolName, ServerName};
use pairing::Standing;
use serde::{Deserialize, Serialize};
use store::{ApplyError, Cursor, Page, Scope, StoreError, UserStore};
use tokio::time::sleep;
use topology::{Pool, Role, Topology};
use tracing::{info, warn};

use super::{Refusal, orphans};
use crate::{
    OwnerNews, Shared, clock,
    peers::{Endpoint, PeerClient, PeerError},
};

/// Time a question may wait for news at the source.
const WAIT: Duration = Duration::from_secs(10);
/// Time for the answer beyond that.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Time before a failed question is repeated.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Body of the 409 answer to a question for a page: what the reader holds is not in the owner's journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Divergence {
    /// The owner's last change at or before the reader's, of no higher epoch.
    pub common: Cursor,
    /// The highest epoch that the owner has seen.
    pub epoch: Epoch,
}

/// Which journals one pool copies, and how much of each.
#[derive(Clone, Debug)]
pub struct Scopes(Vec<(PoolName, Scope)>);

impl Scopes {
    /// What `pool` has to copy. A front-end pool: everything of its own journal, for the time when its
    /// partner owns it, and of its partner's; of the others who is homed where. A branch appliance: its own
    /// users and the directory of its associated pool's journal; of the others who is homed where.
    pub fn of(topology: &Topology, pool: &PoolName) -> Self {
        Self::after(topology, pool, &[])
    }

    /// The same for a branch whose users may still be in the journals of `former` pools: it copies them from
    /// there as well, until they are gone.
    pub fn after(topology: &Topology, pool: &PoolName, former: &[PoolName]) -> Self {
        let partner = topology.partner_of(pool).map(|partner| partner.name.clone());
        let own = topology.pool(pool);
        let journals = topology.home_pools().filter(|home| home.role == Role::FrontEnd);
        let scope = |journal: &PoolName| {
            let is_associated = |own: &Pool| {
                own.associated_pool.as_ref().is_some_and(|pool| pool == journal || former.contains(journal))
            };
            if own.is_some_and(is_associated) {
                Some(Scope::Branch(pool.clone()))
            } else if partner.as_ref() == Some(journal) {
                Some(Scope::Everything)
            } else if journal == pool {
                partner.is_some().then_some(Scope::Everything)
            } else {
                Some(Scope::Directory)
            }
        };
        let wanted = journals.filter_map(|home| Some((home.name.clone(), scope(&home.name)?)));
        Self(wanted.collect())
    }

    /// How much the pool copies of this journal; `None` = nothing.
    pub fn wanted(&self, journal: &PoolName) -> Option<&Scope> {
        self.0.iter().find(|(name, _)| name == journal).map(|(_, scope)| scope)
    }

    /// Every journal that is copied.
    pub fn iter(&self) -> impl Iterator<Item = &(PoolName, Scope)> {
        self.0.iter()
    }
}

/// Starts one task for each journal that this server copies.
pub fn start(shared: &Arc<Shared>, client: &PeerClient) {
    for (journal, scope) in shared.scopes().iter() {
        let reader = Reader {
            shared: Arc::clone(shared),
            client: client.clone(),
            journal: journal.clone(),
            scope: scope.clone(),
        };
        tokio::spawn(reader.run());
    }
}

/// One journal being copied.
pub struct Reader {
    /// What all parts of the server share.
    pub shared: Arc<Shared>,
    /// Asks other servers.
    pub client: PeerClient,
    /// Whose journal.
    pub journal: PoolName,
    /// How much of it.
    pub scope: Scope,
}

/// Where a journal is to be copied from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// It is this server's own.
    Here,
    /// From this server.
    Server(ServerName, Endpoint),
    /// Nobody is known to have it.
    Unknown,
}

impl Reader {
    async fn run(mut self) {
        let held = self.cursor().await.is_ok_and(|cursor| cursor.sequence > 0);
        self.note(None, held, |_| {});
        let mut was_told = false;
        let mut news = OwnerNews::of(&self.shared);
        loop {
            self.scope = self.wanted();
            let source = self.source();
            let Source::Server(server, endpoint) = &source else {
                news.next().await;
                continue;
            };
            match self.pull(server, endpoint, &source).await {
                Ok(()) => was_told = false,
                Err(error) => {
                    if !was_told {
                        warn!(pool = %self.journal, node = %server, %error, "not copied; trying again");
                    }
                    was_told = true;
                    self.failed(server, &error);
                    sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// How much of the journal this server is to copy now.
    fn wanted(&self) -> Scope {
        self.shared.scopes().wanted(&self.journal).cloned().unwrap_or(Scope::Directory)
    }

    /// Who has the journal: the owner of the home pool, as this server's own machine or other servers know
    /// it.
    fn source(&self) -> Source {
        let (shared, topology) = (&self.shared, self.shared.topology());
        let named = |server: &topology::Server| {
            let endpoint = Endpoint { address: server.listen.internal_http, name: server.fqdn.clone() };
            Source::Server(server.name.clone(), endpoint)
        };
        let index = shared.directory.homes().index(&self.journal);
        if shared.ownerships.of(&self.journal).is_some() {
            let authority = shared.authority.read();
            return match index.and_then(|index| authority.standing(index)) {
                Some(Standing::Serving(_) | Standing::Paused(_)) => Source::Here,
                Some(Standing::Elsewhere { tenure, .. }) => {
                    topology.servers_of(&tenure.owner).next().map_or(Source::Unknown, named)
                }
                Some(Standing::Unknown) | None => Source::Unknown,
            };
        }
        let claim = index.and_then(|index| shared.links.serving(index, clock::now()));
        let server = claim.and_then(|claim| topology.server(&claim.server));
        server.or_else(|| topology.servers_of(&self.journal).next()).map_or(Source::Unknown, named)
    }

    /// Returns when the journal is to be copied from somewhere else, or more or less of it.
    async fn moved(&self, from: &Source) {
        let mut news = OwnerNews::of(&self.shared);
        while self.source() == *from && self.wanted() == self.scope {
            news.next().await;
        }
    }

    async fn pull(&self, server: &ServerName, endpoint: &Endpoint, source: &Source) -> Result<(), PullError> {
        let cursor = self.cursor().await?;
        let (users, journal) = (Arc::clone(&self.shared.users), self.journal.clone());
        let whole = tokio::task::spawn_blocking(move || users.whole(&journal)).await??;
        let path = format!(
            "/v1/journal?journal={}&sequence={}&epoch={}&whole={}&scope={}&wait_ms={}",
            self.journal,
            cursor.sequence,
            cursor.epoch.number(),
            whole.sequence,
            self.scope,
            WAIT.as_millis()
        );
        let answer = tokio::select! {
            answer = self.client.get_octets(endpoint, &path, WAIT + ANSWER_WITHIN) => answer,
            () = self.moved(source) => return Ok(()),
        };
        match answer {
            Ok(octets) => self.take(server, Page::decode(&octets)?).await,
            Err(PeerError::Refused { status: 409, message }) => {
                let divergence = serde_json::from_str(&message).map_err(|_| PullError::Refused(message))?;
                self.diverged(server, endpoint, divergence).await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn take(&self, server: &ServerName, page: Page) -> Result<(), PullError> {
        let (has_news, is_end) = (page.has_news(), page.is_end());
        if has_news {
            let (users, journal) = (Arc::clone(&self.shared.users), self.journal.clone());
            tokio::task::spawn_blocking(move || users.apply(&journal, &page)).await??;
        }
        self.note(Some(server), true, |progress| progress.applied(clock::now(), has_news, is_end));
        Ok(())
    }

    /// What is held here is not in the owner's journal. With everything held these are orphans; a part is
    /// simply copied again.
    async fn diverged(
        &self,
        server: &ServerName,
        endpoint: &Endpoint,
        divergence: Divergence,
    ) -> Result<(), PullError> {
        let at = divergence.common.sequence;
        let reason = format!("changes here after number {at} are unknown to {server}");
        self.note(Some(server), true, |progress| {
            progress.refused(clock::now(), Refusal::Diverged, reason);
        });
        if self.scope == Scope::Everything {
            let offered = orphans::offer(self, endpoint, divergence.common).await?;
            info!(pool = %self.journal, node = %server, ?offered, "orphans adopted by the owner");
        } else {
            let (users, journal) = (Arc::clone(&self.shared.users), self.journal.clone());
            tokio::task::spawn_blocking(move || users.restart(&journal, divergence.epoch))
                .await?
                .map_err(|error| PullError::Refused(error.to_string()))?;
            info!(pool = %self.journal, node = %server, "copy begun anew");
        }
        self.note(Some(server), true, super::Progress::restarted);
        Ok(())
    }

    /// How far this server has got.
    pub async fn cursor(&self) -> Result<Cursor, PullError> {
        let (users, journal, scope) =
            (Arc::clone(&self.shared.users), self.journal.clone(), self.scope.clone());
        Ok(tokio::task::spawn_blocking(move || users.cursor(&journal, &scope)).await??)
    }

    fn note(&self, from: Option<&ServerName>, is_begun: bool, change: impl FnOnce(&mut super::Progress)) {
        self.shared.copies.copying(&self.journal, from, is_begun, change);
    }

    fn failed(&self, server: &ServerName, error: &PullError) {
        let reason = error.to_string();
        self.note(Some(server), true, |progress| match error.refusal() {
            Some(refusal) => progress.refused(clock::now(), refusal, reason),
            None => progress.unheard(reason),
        });
    }
}

/// Why a page was not copied; the next attempt begins where this one did.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The source did not answer.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The page was refused here.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's thread ended.
    #[error("the store's thread ended")]
    Ended(#[from] tokio::task::JoinError),
    /// The owner or the store refused a step of a copy.
    #[error("{0}")]
    Refused(String),
}

impl PullError {
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Apply(error) => Some(match error {
                ApplyError::Stale(_) => Refusal::Stale,
                ApplyError::Gap { .. } => Refusal::Gap,
                ApplyError::Diverged { .. } => Refusal::Diverged,
                ApplyError::Damaged { .. }
                | ApplyError::WrongJournal { .. }
                | ApplyError::HoldsMore { .. } => Refusal::Damaged,
                ApplyError::TooManyHomes { .. } | ApplyError::Unknown(_) | ApplyError::Store(_) => {
                    Refusal::Unwritten
                }
            }),
            Self::Store(_) => Some(Refusal::Unwritten),
            Self::Peer(_) | Self::Ended(_) | Self::Refused(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPOLOGY: &str = include_str!("../../../tandem/src/example.toml");

    fn name(text: &str) -> PoolName {
        PoolName::new(text).unwrap()
    }

    fn wanted(pool: &str) -> Vec<(String, String)> {
        let topology = Topology::read(TOPOLOGY).unwrap().0;
        let scopes = Scopes::of(&topology, &name(pool));
        scopes.iter().map(|(journal, scope)| (journal.to_string(), scope.to_string())).collect()
    }

    #[test]
    fn a_branch_copies_its_users_from_a_former_pool_as_well_until_they_are_gone() {
        let topology = Topology::read(TOPOLOGY).unwrap().0;
        let scopes = Scopes::after(&topology, &name("branch1"), &[name("west")]);

        let own = Scope::Branch(name("branch1"));
        assert_eq!(scopes.iter().map(|(_, scope)| scope).collect::<Vec<_>>(), [&own, &own]);
        let pool = Scopes::after(&topology, &name("east"), &[name("west")]);
        assert!(pool.iter().all(|(_, scope)| *scope == Scope::Everything));
    }

    #[test]
    fn each_pool_of_a_pair_copies_everything_of_both_and_a_branch_its_own_users() {
        let both = [("east", "everything"), ("west", "everything")];
        let both = both.map(|(journal, scope)| (journal.to_owned(), scope.to_owned()));

        assert_eq!(wanted("east"), both);
        assert_eq!(wanted("west"), both);
        assert_eq!(
            wanted("branch1"),
            [("east", "branch:branch1"), ("west", "directory")].map(|(j, s)| (j.to_owned(), s.to_owned()))
        );
    }
}
