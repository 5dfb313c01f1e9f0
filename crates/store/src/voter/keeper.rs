//! The thread that keeps the disk bounded: writes snapshots and deletes log files.

use std::sync::{
    Arc,
    mpsc::{Receiver, Sender},
};

use model::PoolName;

use super::{
    Shared,
    log::{Log, Region},
    recovery::SNAPSHOTS,
    snapshot,
};
use crate::{Health, chain};

/// Work for the keeper.
pub(super) enum Job {
    /// Make this snapshot durable.
    Snapshot {
        home: PoolName,
        region: Region,
        /// The last entry that it contains.
        index: u64,
        body: Vec<u8>,
    },
    /// Delete log files that hold nothing any more.
    Purge,
}

/// What became of a job.
pub(super) enum Done {
    /// The snapshot is durable up to this entry, or could not be written.
    Snapshot { region: Region, index: Option<u64> },
    /// Old files are gone but for these routing groups, which need a snapshot.
    Purge { wanted: Vec<Region> },
}

/// Runs until the writer has dropped its end of the jobs.
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) log: Arc<Log>,
    pub(super) jobs: Receiver<Job>,
    pub(super) done: Sender<Done>,
}

impl Keeper {
    pub(super) fn run(self) {
        while let Ok(job) = self.jobs.recv() {
            let done = match job {
                Job::Snapshot { home, region, index, body } => {
                    let written = self.write_snapshot(&home, region, index, &body);
                    Done::Snapshot { region, index: written.then_some(index) }
                }
                Job::Purge => Done::Purge { wanted: self.purge() },
            };
            // At the end of the store nobody waits for results any more.
            drop(self.done.send(done));
        }
    }

    fn write_snapshot(&self, home: &PoolName, region: Region, index: u64, body: &[u8]) -> bool {
        let file = snapshot::path(&self.shared.directory.join(SNAPSHOTS), home, region.group);
        match snapshot::write(&file, region, index, body) {
            Ok(()) => {
                tracing::debug!(pool = %home, group = %region.group, index, "snapshot written");
                self.shared.set_health(Health::Good);
                true
            }
            Err(error) => {
                self.report(chain(&error).into());
                false
            }
        }
    }

    fn purge(&self) -> Vec<Region> {
        match self.log.purge() {
            Ok(wanted) => wanted,
            Err(error) => {
                self.report(error.reason);
                Vec::new()
            }
        }
    }

    fn report(&self, reason: Arc<str>) {
        tracing::warn!(%reason, "the log of the hot store cannot be shortened");
        self.shared.set_health(Health::LogGrows { reason });
    }
}
