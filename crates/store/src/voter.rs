//! `SingleVoterHotStore`: routing groups with one replica, logged on this disk by raft-engine.
//!
//! ```text
//! submit --> queue --> writer: one log write and one sync for all that wait --> apply --> replies
//!                        |  ^
//!              snapshot  v  |  done: compact the log with the next write
//!                       keeper: snapshot files, deletion of log files
//! ```
//! One entry of the log holds the commands of one routing group in one write, so the index that raft-engine
//! keeps in memory has a few octets per command. Lookups read the groups under their locks and never meet the
//! disk.

mod feed;
mod filled;
mod groups;
mod keeper;
mod log;
mod queue;
mod recovery;
mod snapshot;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc::channel},
    thread::JoinHandle,
};

use model::{AddressOfRecord, Epoch, PoolName, RoutingGroup, WallTime};
use registrar::{Binding, Bindings, Command, UserCopy};

use self::{
    feed::Feeds,
    groups::Homes,
    keeper::Keeper,
    log::Batch,
    queue::{Queue, Submission},
    writer::Writer,
};
use crate::{BindingPage, Health, HotCursor, HotStore, Reply, StoreError, Wake};

/// How large the log may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPolicy {
    /// A routing group's log is replaced by a snapshot not before so many commands.
    pub commands_min: u64,
    /// Nor before so many commands for each binding held.
    pub commands_per_binding: u64,
    /// Size at which a new log file is begun, in MiB, at least 1.
    pub file_mib: u64,
    /// Size of all log files above which old ones are deleted, and snapshots made where that needs them, in
    /// MiB; at least twice `file_mib`. The log may exceed it by a few files while that is done.
    pub log_mib_max: u64,
}

impl Default for LogPolicy {
    /// 10,000 commands and twice the bindings; files of 32 MiB, 512 MiB in all.
    fn default() -> Self {
        Self { commands_min: 10_000, commands_per_binding: 2, file_mib: 32, log_mib_max: 512 }
    }
}

/// Routing groups of any number of home pools, one replica each, in one directory.
///
/// `DIRECTORY/log` is raft-engine's; `DIRECTORY/snapshots` has one file for each routing group that was long
/// enough in use. Both belong together. One process at a time; a second one is refused.
pub struct SingleVoterHotStore {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    directory: PathBuf,
    queue: Queue,
    homes: Homes,
    feeds: Feeds,
    health: Mutex<Health>,
    /// The reason in results that stand for commands not applied yet.
    not_applied: Arc<str>,
}

impl Shared {
    fn set_health(&self, health: Health) {
        let mut current = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        // Read-only is for good: what comes after it is a consequence.
        if !matches!(*current, Health::ReadOnly { .. }) {
            *current = health;
        }
    }
}

impl SingleVoterHotStore {
    /// Opens the store in `directory`, creating it where needed, and reads back everything acknowledged.
    ///
    /// Errors: [`StoreError`]. A write that a crash cut off at the end of the log is dropped: it was not
    /// acknowledged. Damage anywhere else is an error and changes nothing.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_with(directory, LogPolicy::default())
    }

    /// As [`Self::open`], with another policy for the log.
    ///
    /// Errors: as [`Self::open`].
    pub fn open_with(directory: &Path, policy: LogPolicy) -> Result<Self, StoreError> {
        let recovered = recovery::recover(directory, policy)?;
        let shared = Arc::new(Shared {
            directory: directory.to_owned(),
            queue: Queue::default(),
            homes: recovered.homes,
            feeds: recovered.feeds,
            health: Mutex::new(Health::Good),
            not_applied: "the writer did not apply it".into(),
        });
        let (job_sender, job_receiver) = channel();
        let (done_sender, done_receiver) = channel();
        let keeper = Keeper {
            shared: Arc::clone(&shared),
            log: Arc::clone(&recovered.log),
            jobs: job_receiver,
            done: done_sender,
        };
        let writer = Writer {
            shared: Arc::clone(&shared),
            log: recovered.log,
            policy,
            jobs: job_sender,
            done: done_receiver,
            homes: recovered.first_slots,
            slots: recovered.slots,
            batch: Batch::default(),
            touched: Vec::new(),
            octets_since_purge: 0,
            is_snapshot_running: false,
        };
        let threads = [
            spawn(directory, "hot-keeper", move || keeper.run()),
            spawn(directory, "hot-writer", move || writer.run()),
        ];
        let mut store = Self { shared, threads: Vec::new() };
        for thread in threads {
            store.threads.push(thread?);
        }
        Ok(store)
    }

    /// Where the data lies.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }
}

fn spawn(
    directory: &Path,
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|error| StoreError::from_io(directory, error))
}

impl Drop for SingleVoterHotStore {
    /// Writes what was submitted, then closes the files.
    fn drop(&mut self) {
        self.shared.queue.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                let directory = self.shared.directory.display();
                tracing::error!(%directory, "a thread of the hot store panicked");
            }
        }
    }
}

impl HotStore for SingleVoterHotStore {
    fn submit(&self, batch: Vec<Command>, reply: Reply) {
        self.shared.queue.submit(Submission::new(batch, reply));
    }

    fn lookup(&self, home: &PoolName, aor: &AddressOfRecord, now: WallTime) -> Bindings {
        let homes = self.shared.homes.load();
        homes.get(home).map_or_else(Bindings::new, |groups| {
            groups.read(RoutingGroup::of(aor), |group| group.lookup(aor, now))
        })
    }

    fn for_each_binding(&self, home: &PoolName, each: &mut dyn FnMut(&AddressOfRecord, &Binding)) {
        let homes = self.shared.homes.load();
        let Some(groups) = homes.get(home) else { return };
        for group in RoutingGroup::all() {
            groups.read(group, |group| {
                for (aor, bindings) in group.iter() {
                    bindings.iter().for_each(|binding| each(aor, binding));
                }
            });
        }
    }

    fn bindings(&self, home: &PoolName) -> usize {
        let homes = self.shared.homes.load();
        homes.get(home).map_or(0, |groups| {
            RoutingGroup::all().map(|group| groups.read(group, registrar::GroupState::len)).sum()
        })
    }

    fn highest_epoch(&self, home: &PoolName) -> Epoch {
        let homes = self.shared.homes.load();
        let epochs = homes.get(home).map(|groups| {
            RoutingGroup::all().map(|group| groups.read(group, registrar::GroupState::highest_epoch)).max()
        });
        epochs.flatten().unwrap_or_default()
    }

    fn changes(&self, home: &PoolName, after: &HotCursor, users_max: usize, now: WallTime) -> BindingPage {
        let homes = self.shared.homes.load();
        self.shared.feeds.page(home, homes.get(home).map(AsRef::as_ref), after, users_max, now)
    }

    fn newest_change(&self, home: &PoolName) -> HotCursor {
        self.shared.feeds.newest(home)
    }

    fn when_changed(&self, home: &PoolName, after: &HotCursor, wake: Wake) {
        self.shared.feeds.when_changed(home, after, wake);
    }

    fn is_news(&self, home: &PoolName, aor: &AddressOfRecord, copy: &UserCopy, now: WallTime) -> bool {
        let homes = self.shared.homes.load();
        match homes.get(home) {
            Some(groups) => groups.read(RoutingGroup::of(aor), |group| group.is_news(aor, copy, now)),
            None => registrar::GroupState::new().is_news(aor, copy, now),
        }
    }

    fn homes(&self) -> Vec<PoolName> {
        let mut names: Vec<_> = self.shared.homes.load().keys().cloned().collect();
        names.sort_unstable();
        names
    }

    fn health(&self) -> Health {
        self.shared.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
