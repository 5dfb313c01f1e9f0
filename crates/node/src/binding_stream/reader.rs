//! The reading end: pulls pages and merges them.

use std::{sync::Arc, time::Duration};

use hashbrown::HashMap;
use model::{PoolName, limits};
use registrar::{Command, Outcome, RegisterError};
use store::{HotCursor, HotError, HotStore};
use tokio::{sync::oneshot, time::sleep};
use topology::Role;
use tracing::{debug, info, warn};

use super::{PageError, StreamPage, StreamState, routes};
use crate::{
    OwnerNews, Shared, clock,
    peers::{Endpoint, PeerClient, PeerError},
};

/// Time a question may wait for news at the source.
const WAIT: Duration = Duration::from_secs(10);
/// Time for the answer beyond that.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Time before a failed question is repeated.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long the source lets changes gather, between the pools of a pair.
const GATHER: Duration = Duration::from_millis(20);
/// The same towards a branch appliance, which gets back mostly what it said itself.
const GATHER_AT_BRANCH: Duration = Duration::from_millis(500);

/// Why a page was not merged; the next attempt begins where this one did.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Page(#[from] PageError),
    #[error(transparent)]
    Write(#[from] HotError),
    #[error("the source speaks for an earlier owner")]
    Stale(#[source] RegisterError),
    #[error("the store gave no answer")]
    NoAnswer,
}

/// Starts one task for each home pool: which of them this server reads, and from whom, follows from the
/// owners and the topology at each moment.
pub fn start(shared: &Arc<Shared>, client: &PeerClient) {
    for home in shared.topology().home_pools().map(|pool| pool.name.clone()) {
        let reader = Reader {
            shared: Arc::clone(shared),
            client: client.clone(),
            home,
            cursors: HashMap::new(),
            was_heard: true,
        };
        tokio::spawn(reader.run());
    }
}

struct Reader {
    shared: Arc<Shared>,
    client: PeerClient,
    home: PoolName,
    /// How far we are with each source.
    cursors: HashMap<PoolName, HotCursor>,
    /// Whether the last question was answered: a failure is told once.
    was_heard: bool,
}

impl Reader {
    async fn run(mut self) {
        let mut last = None;
        let mut news = OwnerNews::of(&self.shared);
        loop {
            let source = self.source();
            if source != last {
                match &source {
                    Some(source) => debug!(pool = %self.home, partner = %source, "reading bindings"),
                    None => debug!(pool = %self.home, "reading no bindings"),
                }
                self.note(last.as_ref(), StreamState::Idle, None);
                last.clone_from(&source);
            }
            let Some(source) = source else {
                news.next().await;
                continue;
            };
            match self.pull(&source).await {
                Ok(()) => self.was_heard = true,
                Err(error) => {
                    if self.was_heard {
                        let pool = &self.home;
                        warn!(%pool, partner = %source, %error, "bindings not read; trying again");
                    }
                    self.was_heard = false;
                    self.note(Some(&source), StreamState::Error, None);
                    sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    fn source(&self) -> Option<PoolName> {
        let shared = &self.shared;
        let (homes, authority, now) = (shared.directory.homes(), shared.authority.read(), clock::now());
        let serves =
            |home: &PoolName| homes.index(home).is_some_and(|index| authority.holds(index, now).is_some());
        let served_by = |home: &PoolName| {
            let claim = shared.links.serving(homes.index(home)?, now)?;
            shared.topology().pool_of(&claim.server).map(|pool| pool.name.clone())
        };
        routes::source_now(&shared.topology(), &shared.pool, &self.home, serves, served_by)
    }

    /// Returns when there is somebody else to read from: a question that waits for news at a former source
    /// would hold up the next handover.
    async fn moved(&self, from: &PoolName) {
        let mut news = OwnerNews::of(&self.shared);
        while self.source().as_ref() == Some(from) {
            news.next().await;
        }
    }

    fn note(&self, source: Option<&PoolName>, state: StreamState, missing: Option<u64>) {
        if let Some(source) = source {
            self.shared.binding_streams.ledger.reads(&self.home, source, state, missing, clock::now());
        }
    }

    /// Asks for the next page and merges it.
    async fn pull(&mut self, source: &PoolName) -> Result<(), ReadError> {
        let topology = self.shared.topology();
        let Some(server) = topology.servers_of(source).next() else {
            sleep(RETRY_AFTER).await;
            return Ok(());
        };
        let endpoint = Endpoint { address: server.listen.internal_http, name: server.fqdn.clone() };
        let cursor = self.cursors.get(source).cloned().unwrap_or_default();
        let gather = if self.shared.role == Role::Branch { GATHER_AT_BRANCH } else { GATHER };
        let path = format!(
            "/v1/bindings?home={}&cursor={}&wait_ms={}&gather_ms={}",
            self.home,
            cursor.to_text(),
            WAIT.as_millis(),
            gather.as_millis()
        );
        let octets = tokio::select! {
            octets = self.client.get_octets(&endpoint, &path, WAIT + ANSWER_WITHIN) => octets?,
            () = self.moved(source) => return Ok(()),
        };
        let page = StreamPage::decode(&octets)?;
        let missing = match page.bindings.next.copying {
            Some(_) => page.held,
            None => page.bindings.newest.saturating_sub(page.bindings.next.number),
        };
        if page.bindings.is_copy {
            self.note(Some(source), StreamState::Initialising, Some(missing));
        }
        let (is_end, was_copying) = (page.bindings.is_end(), page.bindings.is_copy);
        let next = page.bindings.next.clone();
        let users = self.merge(page).await?;
        if was_copying && next.copying.is_none() {
            info!(pool = %self.home, partner = %source, "all bindings copied");
        }
        if users > 0 {
            debug!(pool = %self.home, partner = %source, users, "bindings read");
        }
        let state = match (is_end, next.copying.is_some()) {
            (true, _) => StreamState::Steady,
            (false, true) => StreamState::Initialising,
            (false, false) => StreamState::Behind,
        };
        self.note(Some(source), state, Some(missing));
        self.cursors.insert(source.clone(), next);
        Ok(())
    }

    /// Makes what is news durable here; returns of how many users that was.
    async fn merge(&self, page: StreamPage) -> Result<usize, ReadError> {
        let (hot, now) = (&self.shared.hot, clock::wall_time());
        let is_branch = self.shared.topology().pool(&self.home).is_some_and(|pool| pool.role == Role::Branch);
        // Branches have no owner that changes: no epoch tells an earlier one from a later one.
        let epoch = if is_branch { hot.highest_epoch(&self.home) } else { page.epoch };
        let users = page.bindings.users.into_iter();
        let commands: Vec<_> = users
            .filter(|(aor, copy)| hot.is_news(&self.home, aor, copy, now))
            .map(|(aor, copy)| Command::of_copy(self.home.clone(), epoch, now, aor, copy))
            .take(limits::BINDING_USERS_PER_PAGE_MAX)
            .collect();
        let count = commands.len();
        let (done, written) = oneshot::channel();
        hot.submit(commands, Box::new(move |outcomes| drop(done.send(outcomes))));
        for outcome in written.await.map_err(|_| ReadError::NoAnswer)? {
            match outcome? {
                Outcome::Registered { .. } | Outcome::Expired { .. } => {}
                Outcome::Refused(error) => return Err(ReadError::Stale(error)),
            }
        }
        Ok(count)
    }
}
