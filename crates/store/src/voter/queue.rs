//! Submissions that wait for the writer.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::limits;
use registrar::{Command, Outcome};

use crate::{HotError, Reply};

/// Commands with the one who waits for their results. Dropping it unanswered says `Unknown`.
pub(super) struct Submission {
    pub(super) commands: Vec<Command>,
    /// How many there were, also after `commands` was emptied.
    count: usize,
    reply: Option<Reply>,
}

impl Submission {
    pub(super) fn new(commands: Vec<Command>, reply: Reply) -> Self {
        Self { count: commands.len(), commands, reply: Some(reply) }
    }

    pub(super) fn answer(mut self, results: Vec<Result<Outcome, HotError>>) {
        if let Some(reply) = self.reply.take() {
            reply(results);
        }
    }

    /// The same error for every command.
    pub(super) fn refuse(self, error: &HotError) {
        let results = vec![Err(error.clone()); self.count];
        self.answer(results);
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply(vec![Err(HotError::Unknown { reason: "the writer has stopped".into() }); self.count]);
        }
    }
}

/// The waiting submissions, bounded by `limits::COMMANDS_WAITING_MAX` commands.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    submissions: VecDeque<Submission>,
    commands: usize,
    gate: Gate,
    /// How many commands have to wait for the writer to be woken; `None` = it is awake.
    wake_at: Option<usize>,
    /// Commands of the last batch: what the next one may hope to gather.
    last_batch: usize,
}

/// How long the writer lets commands gather when many came together before. A commit costs the disk and
/// several switches of threads whatever is in it; a phone does not notice a millisecond.
const GATHER: Duration = Duration::from_millis(1);
/// Batches below this are written at once: nothing is gained by waiting for one or two.
const GATHER_FROM: usize = 8;

#[derive(Clone, Default)]
enum Gate {
    #[default]
    Open,
    /// The store is being dropped: what waits is still written.
    Closing,
    /// A write failed.
    Failed { reason: Arc<str> },
}

impl Queue {
    /// Puts a submission in, or answers it at once.
    pub(super) fn submit(&self, submission: Submission) {
        if submission.count == 0 {
            return submission.answer(Vec::new());
        }
        let mut waiting = self.waiting();
        let refusal = match &waiting.gate {
            Gate::Open => {
                let commands = waiting.commands.saturating_add(submission.count);
                (commands > limits::COMMANDS_WAITING_MAX).then_some(HotError::Overloaded)
            }
            Gate::Closing => Some(HotError::Failed { reason: "the store is being closed".into() }),
            Gate::Failed { reason } => Some(HotError::Failed { reason: Arc::clone(reason) }),
        };
        if let Some(error) = refusal {
            drop(waiting);
            return submission.refuse(&error);
        }
        waiting.commands = waiting.commands.saturating_add(submission.count);
        waiting.submissions.push_back(submission);
        let wake = waiting.wake_at.is_some_and(|enough| waiting.commands >= enough);
        if wake {
            waiting.wake_at = None;
        }
        drop(waiting);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Waits for submissions and moves them into `batch`: all that wait, up to `limits::COMMIT_BATCH_MAX`
    /// commands, at least one submission. Returns whether there is anything; `false` = the store is closed
    /// and all is written.
    pub(super) fn take(&self, batch: &mut Vec<Submission>) -> bool {
        let mut waiting = self.gathered();
        loop {
            let mut taken = 0_usize;
            while let Some(next) = waiting.submissions.front() {
                let total = taken.saturating_add(next.count);
                if taken > 0 && total > limits::COMMIT_BATCH_MAX {
                    break;
                }
                taken = total;
                batch.extend(waiting.submissions.pop_front());
            }
            waiting.commands = waiting.commands.saturating_sub(taken);
            waiting.last_batch = taken;
            if taken > 0 {
                return true;
            }
            if matches!(waiting.gate, Gate::Closing) {
                return false;
            }
            waiting.wake_at = Some(1);
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.wake_at = None;
        }
    }

    /// The queue, after a short time for more to gather: as many commands as were just answered may be on
    /// their way again, beside those that came meanwhile.
    fn gathered(&self) -> MutexGuard<'_, Waiting> {
        let mut waiting = self.waiting();
        let hoped = waiting.last_batch.saturating_add(waiting.commands).min(limits::COMMIT_BATCH_MAX);
        if hoped < GATHER_FROM || waiting.commands >= hoped {
            return waiting;
        }
        waiting.wake_at = Some(hoped);
        let is_short =
            |waiting: &mut Waiting| waiting.wake_at.is_some() && matches!(waiting.gate, Gate::Open);
        let gathered = self.arrived.wait_timeout_while(waiting, GATHER, is_short);
        let (mut waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        waiting.wake_at = None;
        waiting
    }

    /// Takes no more submissions; the writer ends when it has written what waits.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.gate = Gate::Closing;
        waiting.wake_at = None;
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Takes no more submissions because a write failed, and refuses what waits: none of it was begun.
    pub(super) fn fail(&self, reason: &Arc<str>) {
        let mut waiting = self.waiting();
        if !matches!(waiting.gate, Gate::Closing) {
            waiting.gate = Gate::Failed { reason: Arc::clone(reason) };
        }
        waiting.commands = 0;
        let refused = std::mem::take(&mut waiting.submissions);
        drop(waiting);
        let error = HotError::Failed { reason: Arc::clone(reason) };
        refused.into_iter().for_each(|submission| submission.refuse(&error));
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every change under the lock is whole when it is left, panic or not.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
