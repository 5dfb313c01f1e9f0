//! A crowd: thousands of users whose phones and callers one thread plays, so that the generator costs little
//! beside the servers it shares the machine with.
//!
//! All phones share one UDP socket and are told apart by the user part of their Contact; all callers share
//! another. Every request of a caller, every REGISTER and what became of it is kept in one ledger.

mod engine;
mod ledger;
mod users;
mod wire;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

pub use ledger::{Deed, Entry, Outage, first_good, outages, percentiles, tally};
pub use users::{caller_name, user_name, users_csv};

/// Who the crowd is and where its servers are.
#[derive(Clone, Copy, Debug)]
pub struct CrowdPlan {
    /// Users with a phone each, homed on the pool of `servers[0]`.
    pub users: u32,
    /// Callers homed on each of the two pools.
    pub callers: u32,
    /// The two servers of the pair: the home pool's, the partner's.
    pub servers: [SocketAddr; 2],
    /// Where phones and callers have their sockets.
    pub address: Ipv4Addr,
    /// Seconds a registration asks for.
    pub expires_s: u32,
    /// Time after which an unanswered request counts as failed.
    pub patience: Duration,
}

/// The steady load, in deeds a second each. Zero everywhere at the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Refreshes of registrations, user after user.
    pub refreshes: u32,
    /// Messages from callers to users.
    pub messages: u32,
    /// Calls from callers to users.
    pub calls: u32,
    /// Probes, user after user; those that failed are repeated first, at half of this rate.
    pub probes: u32,
    /// Each of the first so many users is probed `watch_rate` times a second besides.
    pub watched: u32,
    /// Probes a second of a watched user.
    pub watch_rate: u32,
    /// Server through which probes go.
    pub probes_via: usize,
    /// Whether messages and calls go through the partner only, and not through the server of each caller's
    /// home.
    pub is_partner_only: bool,
}

/// A running crowd. Dropping it ends it.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
    users: u32,
}

/// What the crowd's thread and the test share.
#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<Vec<Entry>>,
    load: Mutex<Load>,
    registered: AtomicUsize,
    unreachable: AtomicUsize,
    open: AtomicUsize,
    is_over: AtomicBool,
}

impl Crowd {
    /// Starts the crowd's thread in this thread's namespace; it begins to register its users, `window` at a
    /// time.
    ///
    /// Errors: no sockets.
    pub fn start(plan: CrowdPlan, window: usize) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut engine = engine::Engine::new(plan, window, Arc::clone(&shared))?;
        let thread = thread::Builder::new().name("crowd".to_owned()).spawn(move || engine.run())?;
        Ok(Self { shared, thread: Some(thread), users: plan.users })
    }

    /// Waits until every user is registered.
    ///
    /// Errors: not within `limit`.
    pub fn wait_registered(&self, limit: Duration) -> Result<Duration> {
        let wanted = usize::try_from(self.users)?;
        let count = || self.shared.registered.load(Ordering::Relaxed);
        crate::wait_until("every user of the crowd to be registered", limit, || Ok(count() >= wanted))
            .with_context(|| format!("{} of {wanted} are registered", count()))
    }

    /// Changes the steady load.
    pub fn set_load(&self, load: Load) {
        *self.shared.load.lock().unwrap_or_else(PoisonError::into_inner) = load;
    }

    /// Users whose last probe failed.
    pub fn unreachable(&self) -> usize {
        self.shared.unreachable.load(Ordering::Relaxed)
    }

    /// What was tried since the crowd started and has ended, in the order of its end.
    pub fn entries(&self) -> Vec<Entry> {
        self.ledger().clone()
    }

    /// The same, of deeds begun at `from` or later.
    pub fn entries_since(&self, from: Instant) -> Vec<Entry> {
        self.ledger().iter().filter(|entry| entry.sent >= from).copied().collect()
    }

    /// Waits until every user has been reached by a probe begun at `from` or later, and returns for each how
    /// long after `from` that was.
    ///
    /// Errors: not within `limit`; the message names some that were not reached.
    pub fn wait_all_reached(&self, from: Instant, limit: Duration) -> Result<Vec<Duration>> {
        let wanted = usize::try_from(self.users)?;
        let (mut reached, mut read) = (BTreeMap::new(), 0);
        let waited = crate::wait_until("every user of the crowd to be reached", limit, || {
            let ledger = self.ledger();
            let new = first_good(ledger.get(read..).unwrap_or_default(), Deed::Probe, from);
            read = ledger.len();
            for (user, after) in new {
                reached.entry(user).or_insert(after);
            }
            Ok(reached.len() >= wanted)
        });
        waited.with_context(|| {
            let missing = (0..self.users).filter(|user| !reached.contains_key(user));
            let some: Vec<String> = missing.take(10).map(user_name).collect();
            format!("{} of {wanted} were reached; not: {}...", reached.len(), some.join(" "))
        })?;
        Ok(reached.into_values().collect())
    }

    /// Stops the load, waits for what is under way, ends the thread and returns the whole ledger.
    ///
    /// Errors: the crowd's thread failed.
    pub fn end(mut self) -> Result<Vec<Entry>> {
        self.set_load(Load::default());
        crate::wait_until("the end of what is under way", Duration::from_secs(20), || {
            Ok(self.shared.open.load(Ordering::Relaxed) == 0)
        })?;
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the crowd's thread failed"))??;
        }
        Ok(self.entries())
    }

    fn ledger(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
