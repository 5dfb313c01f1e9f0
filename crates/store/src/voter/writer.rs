//! The writer thread: group commit.
//!
//! Takes all submissions that wait, writes their commands with one sync, applies them, answers. What is
//! applied is durable; what is answered is applied. After a failed write it answers `Unknown` to what was in
//! that write, and nothing is written any more.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
};

use hashbrown::HashMap;
use model::{PoolName, RoutingGroup, limits};
use registrar::{Command, GroupState, Outcome};

use super::{
    LogPolicy, Shared,
    groups::Groups,
    keeper::{Done, Job},
    log::{Batch, Log, LogError, Region, begin_entry, push_command},
    queue::Submission,
};
use crate::{Health, HotError};

type Results = Vec<Result<Outcome, HotError>>;

/// A routing group as the writer sees it.
pub(super) struct Slot {
    home: PoolName,
    region: Region,
    groups: Arc<Groups>,
    /// Index of the last entry in the log.
    last: u64,
    /// Commands in the log since the last snapshot, that being written included.
    commands: u64,
    /// Commands up to the snapshot that is being written.
    commands_in_snapshot: u64,
    /// Not before so many commands: a snapshot failed.
    retry_at: u64,
    /// The log files are kept from being deleted by this group.
    is_snapshot_wanted: bool,
    /// The entry that is being collected.
    entry: Vec<u8>,
    /// Which submission and which of its commands are in the entry.
    members: Vec<(usize, usize)>,
}

impl Slot {
    pub(super) fn new(home: PoolName, region: Region, groups: Arc<Groups>, last: u64, commands: u64) -> Self {
        Self {
            home,
            region,
            groups,
            last,
            commands,
            commands_in_snapshot: 0,
            retry_at: 0,
            is_snapshot_wanted: false,
            entry: Vec::new(),
            members: Vec::new(),
        }
    }

    fn needs_snapshot(&self, policy: LogPolicy) -> bool {
        if self.commands < self.retry_at || self.commands == 0 {
            return false;
        }
        if self.is_snapshot_wanted {
            return true;
        }
        if self.commands < policy.commands_min {
            return false;
        }
        let bindings = self.groups.read(self.region.group, GroupState::len);
        let bindings = u64::try_from(bindings).unwrap_or(u64::MAX);
        self.commands >= bindings.saturating_mul(policy.commands_per_binding)
    }
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) log: Arc<Log>,
    pub(super) policy: LogPolicy,
    pub(super) jobs: Sender<Job>,
    pub(super) done: Receiver<Done>,
    pub(super) slots: Vec<Slot>,
    /// First slot of each home pool.
    pub(super) homes: HashMap<PoolName, usize>,
    pub(super) batch: Batch,
    /// Slots that are in the write being collected.
    pub(super) touched: Vec<usize>,
    pub(super) octets_since_purge: u64,
    pub(super) is_snapshot_running: bool,
}

impl Writer {
    pub(super) fn run(mut self) {
        let mut submissions = Vec::new();
        while self.shared.queue.take(&mut submissions) {
            match self.commit(&submissions) {
                Ok(results) => answer(&mut submissions, results),
                Err(error) => {
                    self.fail(&error, std::mem::take(&mut submissions));
                    continue;
                }
            }
            self.shorten_log();
        }
    }

    /// Makes the commands durable and applies them.
    fn commit(&mut self, submissions: &[Submission]) -> Result<Vec<Results>, LogError> {
        let mut results: Vec<Results> = Vec::with_capacity(submissions.len());
        for (at, submission) in submissions.iter().enumerate() {
            let mut places = Vec::with_capacity(submission.commands.len());
            for (place, command) in submission.commands.iter().enumerate() {
                places.push(Err(self.collect(at, place, command)?));
            }
            results.push(places);
        }
        self.touched.sort_unstable();
        for at in &self.touched {
            if let Some(slot) = self.slots.get_mut(*at) {
                self.batch.add(slot.region, &mut slot.entry)?;
            }
        }
        if !self.touched.is_empty() {
            let octets = self.log.write(&mut self.batch)?;
            self.octets_since_purge =
                self.octets_since_purge.saturating_add(u64::try_from(octets).unwrap_or(u64::MAX));
        }
        for at in std::mem::take(&mut self.touched) {
            if let Some(slot) = self.slots.get_mut(at) {
                apply(slot, submissions, &mut results);
            }
        }
        Ok(results)
    }

    /// Puts one command into the entry of its group; returns its result for the case that it is not applied.
    fn collect(&mut self, submission: usize, place: usize, command: &Command) -> Result<HotError, LogError> {
        let first = match self.homes.get(&command.home) {
            Some(first) => *first,
            None if self.homes.len() >= limits::HOME_POOLS_MAX => {
                return Ok(HotError::TooManyHomes { max: limits::HOME_POOLS_MAX });
            }
            None => self.add_home(&command.home)?,
        };
        let at = first.saturating_add(usize::from(command.group.number()));
        let slot =
            self.slots.get_mut(at).expect("invariant: each home pool has a slot for each routing group");
        if slot.members.is_empty() {
            begin_entry(&mut slot.entry, slot.last.saturating_add(1));
            self.touched.push(at);
        }
        push_command(&mut slot.entry, command)?;
        slot.members.push((submission, place));
        Ok(HotError::Unknown { reason: Arc::clone(&self.shared.not_applied) })
    }

    /// Gives a home pool its number, durable with the write that is being collected.
    fn add_home(&mut self, home: &PoolName) -> Result<usize, LogError> {
        let first = self.slots.len();
        let number = u32::try_from(self.homes.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.batch.add_home(home, number)?;
        let groups = Arc::new(Groups::empty(self.shared.feeds.of(home)));
        for group in RoutingGroup::all() {
            let region = Region { home_number: number, group };
            self.slots.push(Slot::new(home.clone(), region, Arc::clone(&groups), 0, 0));
        }
        self.homes.insert(home.clone(), first);
        self.shared.homes.add(home.clone(), groups);
        Ok(first)
    }

    /// After a failed write: nobody may believe that anything later is on disk.
    fn fail(&self, error: &LogError, submissions: Vec<Submission>) {
        let reason = Arc::clone(&error.reason);
        tracing::error!(%reason, "a write failed, no commands are taken until the next start");
        self.shared.set_health(Health::ReadOnly { reason: Arc::clone(&reason) });
        let unknown = HotError::Unknown { reason: Arc::clone(&reason) };
        submissions.into_iter().for_each(|submission| calling(|| submission.refuse(&unknown)));
        self.shared.queue.fail(&reason);
        if error.is_panic {
            // Closing the engine would sync again and panic again: it stays as it is until the process ends.
            std::mem::forget(Arc::clone(&self.log));
        }
    }

    /// Starts a snapshot where the log of a group is long, drops what a finished one contains, deletes old
    /// files.
    fn shorten_log(&mut self) {
        while let Ok(done) = self.done.try_recv() {
            match done {
                Done::Snapshot { region, index } => self.finish_snapshot(region, index),
                Done::Purge { wanted } => {
                    for slot in self.slots.iter_mut().filter(|slot| wanted.contains(&slot.region)) {
                        slot.is_snapshot_wanted = true;
                    }
                }
            }
        }
        // Once for each file: only whole files are deleted.
        if self.octets_since_purge >> 20 >= self.policy.file_mib {
            self.octets_since_purge = 0;
            self.send(Job::Purge);
        }
        // One at a time: a snapshot in memory is as large as the group.
        if self.is_snapshot_running {
            return;
        }
        let policy = self.policy;
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.needs_snapshot(policy)) {
            let body = slot.groups.read(slot.region.group, GroupState::encode_snapshot);
            slot.commands_in_snapshot = slot.commands;
            slot.is_snapshot_wanted = false;
            let (home, region, index) = (slot.home.clone(), slot.region, slot.last);
            self.is_snapshot_running = true;
            self.send(Job::Snapshot { home, region, index, body });
        }
    }

    fn finish_snapshot(&mut self, region: Region, index: Option<u64>) {
        self.is_snapshot_running = false;
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.region == region) else { return };
        match index {
            Some(index) => {
                self.batch.compact(region, index);
                slot.commands = slot.commands.saturating_sub(slot.commands_in_snapshot);
                slot.retry_at = 0;
            }
            None => slot.retry_at = slot.commands.saturating_add(self.policy.commands_min),
        }
    }

    fn send(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            tracing::error!("the keeper of the hot store has ended");
        }
    }
}

/// Applies the commands of one group under its lock.
fn apply(slot: &mut Slot, submissions: &[Submission], results: &mut [Results]) {
    slot.last = slot.last.saturating_add(1);
    slot.commands = slot.commands.saturating_add(u64::try_from(slot.members.len()).unwrap_or(u64::MAX));
    let members = &slot.members;
    slot.groups.write(slot.region.group, |group| {
        for (submission, place) in members {
            let command = submissions.get(*submission).and_then(|submission| submission.commands.get(*place));
            let result = results.get_mut(*submission).and_then(|results| results.get_mut(*place));
            if let Some((command, result)) = command.zip(result) {
                *result = Ok(group.apply(command));
            }
        }
    });
    // Before anybody is answered: what was acknowledged is in the feed.
    slot.groups.feed.push(members.iter().filter_map(|(submission, place)| {
        let command = submissions.get(*submission)?.commands.get(*place)?;
        let result = results.get(*submission)?.get(*place)?;
        matches!(result, Ok(Outcome::Registered { .. })).then(|| command.change.user().cloned())?
    }));
    slot.members.clear();
}

fn answer(submissions: &mut Vec<Submission>, results: Vec<Results>) {
    for (submission, results) in submissions.drain(..).zip(results) {
        calling(|| submission.answer(results));
    }
}

/// A reply that panics must not take the writer with it.
fn calling(reply: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(reply)).is_err() {
        tracing::error!("a reply of the hot store panicked");
    }
}
