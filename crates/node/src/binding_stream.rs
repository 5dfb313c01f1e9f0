//! The stream of bindings between the pools that may serve the same users.
//!
//! ```text
//! who serves: HotStore --changes--> GET /v1/bindings --page--> reader --merge--> HotStore: who may serve
//!                                 cursor of the next question: all before it is on the reader's disk
//! ```
//! Whoever does not serve a home pool's users reads from who does, so that calls find the phones there from
//! the first moment after a change of owner. Both ends keep account of how far behind the reader is. Format
//! and rules: `docs/protocols/bindings.md`.

mod ledger;
mod page;
mod reader;
mod routes;

use std::{sync::Arc, time::Duration};

use model::{Instant, PoolName};
use serde::{Deserialize, Serialize};
use store::{HotCursor, HotStore, SingleVoterHotStore};

use crate::{AuthorityTable, Homes, TopologyInForce, clock};
use ledger::Ledger;
pub use page::{PageError, StreamPage};
pub use reader::start;
pub use routes::may_read;

/// The streams that one server takes part in, at both ends.
pub struct BindingStreams {
    topology: Arc<TopologyInForce>,
    pool: PoolName,
    homes: Homes,
    authority: Arc<AuthorityTable>,
    hot: Arc<SingleVoterHotStore>,
    ledger: Ledger,
}

/// Which end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamPart {
    /// Its bindings are read.
    Source,
    /// It reads.
    Reader,
}

/// How a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamState {
    /// Nobody reads, and nobody has to.
    Idle,
    /// A full copy is under way.
    Initialising,
    /// The reader does not know the last changes.
    Behind,
    /// The reader knows everything.
    Steady,
    /// The reader has to read and does not: it is not heard, hears nothing, or cannot write.
    Error,
}

/// How far the reader of a home pool's bindings is behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamLag {
    /// Whose users.
    pub home: PoolName,
    /// What the server that says this is in it.
    pub part: StreamPart,
    /// The pool at the other end.
    pub other: PoolName,
    /// How it is.
    pub state: StreamState,
    /// Changes of users that the reader may not have on disk: at the source never too low, at the reader as
    /// last heard.
    pub users: u64,
    /// How old the oldest of them may be, in seconds; 0 when there is none.
    pub seconds: f64,
}

/// Why bindings were not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FinalError {
    /// The reader has not confirmed everything in time.
    #[error("{reader} lacks the last {users} changes of bindings of {home}")]
    Late {
        /// Whose users.
        home: PoolName,
        /// Who reads.
        reader: PoolName,
        /// Changes not confirmed.
        users: u64,
    },
}

impl BindingStreams {
    /// The streams of a server of `pool`; nothing is read before [`start`].
    pub fn new(
        topology: Arc<TopologyInForce>,
        pool: PoolName,
        homes: Homes,
        authority: Arc<AuthorityTable>,
        hot: Arc<SingleVoterHotStore>,
    ) -> Self {
        Self { topology, pool, homes, authority, hot, ledger: Ledger::default() }
    }

    /// Waits until `reader` has every binding of `home`, and of the branches associated with it, on its disk
    /// that was acknowledged here before the call. It changes nothing, and takes milliseconds when the stream
    /// was steady.
    ///
    /// Errors: [`FinalError::Late`] after `within`.
    pub async fn final_bindings(
        &self,
        home: &PoolName,
        reader: &PoolName,
        within: Duration,
    ) -> Result<(), FinalError> {
        let mut news = self.ledger.news();
        let wanted: Vec<_> = routes::with_branches(&self.topology.now(), home)
            .map(|home| (home.clone(), self.hot.newest_change(home)))
            .collect();
        let confirmed = async {
            while wanted.iter().any(|(home, end)| self.ledger.missing(home, reader, end) > 0) {
                if news.changed().await.is_err() {
                    return;
                }
            }
        };
        match tokio::time::timeout(within, confirmed).await {
            Ok(()) => Ok(()),
            Err(_) => {
                let missing = wanted.iter().map(|(home, end)| self.ledger.missing(home, reader, end));
                let users = missing.fold(0, u64::saturating_add);
                Err(FinalError::Late { home: home.clone(), reader: reader.clone(), users })
            }
        }
    }

    /// Every stream that this server takes part in, by home pool.
    pub fn lags(&self) -> Vec<StreamLag> {
        let mut lags = Vec::new();
        let topology = self.topology.now();
        for home in topology.home_pools().map(|pool| &pool.name) {
            let others = topology.pools.iter().map(|pool| &pool.name).filter(|pool| **pool != self.pool);
            for reader in others.filter(|reader| may_read(&topology, reader, &self.pool, home)) {
                lags.push(self.lag_of_reader(home, reader));
            }
            lags.extend(self.lag_as_reader(home));
        }
        lags
    }

    /// How far `reader` is behind this server, as far as this server knows.
    pub fn lag_of_reader(&self, home: &PoolName, reader: &PoolName) -> StreamLag {
        let now = clock::now();
        let newest = self.hot.newest_change(home);
        let account = self.ledger.account_of_reader(home, reader, &newest, now);
        let state = match account.heard {
            ledger::Heard::Now if account.is_copying => StreamState::Initialising,
            ledger::Heard::Now if account.missing == 0 => StreamState::Steady,
            ledger::Heard::Now => StreamState::Behind,
            ledger::Heard::Not if self.is_read_by(home, reader, now) => StreamState::Error,
            ledger::Heard::Not => StreamState::Idle,
        };
        let is_idle = state == StreamState::Idle;
        StreamLag {
            home: home.clone(),
            part: StreamPart::Source,
            other: reader.clone(),
            state,
            users: if is_idle { 0 } else { self.at_most_all(home, account.missing) },
            seconds: if is_idle { 0.0 } else { account.age.as_secs_f64() },
        }
    }

    /// The same for a front-end pool and the branches associated with it: what changes its owner together.
    pub fn lags_of_reader(&self, home: &PoolName, reader: &PoolName) -> Vec<StreamLag> {
        routes::with_branches(&self.topology.now(), home)
            .map(|home| self.lag_of_reader(home, reader))
            .collect()
    }

    /// How far this server is behind who it reads a home pool's bindings from; `None` when it never does.
    pub fn lag_as_reader(&self, home: &PoolName) -> Option<StreamLag> {
        let account = self.ledger.account_as_reader(home, clock::now())?;
        Some(StreamLag {
            home: home.clone(),
            part: StreamPart::Reader,
            other: account.source,
            state: account.state,
            users: account.missing,
            seconds: account.age.as_secs_f64(),
        })
    }

    /// Notes that a reader asked: what is before its cursor is on its disk.
    pub(crate) fn asked(&self, home: &PoolName, reader: &PoolName, cursor: &HotCursor) -> ledger::Asking<'_> {
        self.ledger.asked(home, reader, cursor, &self.hot.newest_change(home), clock::now())
    }

    /// Whether `reader` has to read `home` from this server now.
    fn is_read_by(&self, home: &PoolName, reader: &PoolName, now: Instant) -> bool {
        let topology = self.topology.now();
        let owned = routes::decisive(&topology, home);
        let holds =
            self.homes.index(owned).is_some_and(|index| self.authority.read().holds(index, now).is_some());
        holds && topology.partner_of(&self.pool).is_some_and(|partner| partner.name == *reader)
    }

    /// A reader that begins a full copy lacks what there is, not what ever changed.
    fn at_most_all(&self, home: &PoolName, missing: u64) -> u64 {
        match missing {
            u64::MAX => u64::try_from(self.hot.bindings(home)).unwrap_or(u64::MAX),
            missing => missing,
        }
    }
}
