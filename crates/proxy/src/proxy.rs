//! The table of response contexts of one shard. Source: RFC 3261 section 16.2.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use hashbrown::HashMap;
use model::{Chance, Instant, ServerTransaction};
use sip::{HeaderId, Message, OwnedMessage};

use crate::{
    BranchFailure, BranchKey, Incoming, Output, Settings, Target,
    context::{Context, Shared},
};

/// Why a request was not taken; nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// There is nowhere to forward to: 480 (16.5).
    #[error("the request has no target")]
    NoTargets,
    /// `Settings::contexts_max` requests are being forwarded, and none is answered: 503 with Retry-After.
    #[error("too many requests are being forwarded")]
    Full {
        /// Seconds until another attempt makes sense.
        retry_after_s: u32,
    },
    /// This server transaction has a context: 500.
    #[error("the request is being forwarded already")]
    AlreadyStarted {
        /// The server transaction.
        server: ServerTransaction,
    },
}

impl ProxyError {
    /// Status of the response.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoTargets => 480,
            Self::Full { .. } => 503,
            Self::AlreadyStarted { .. } => 500,
        }
    }
}

/// A stateful proxy as a machine: requests with their targets in, forwarded requests and responses out.
///
/// Drain [`Self::poll_output`] after each input. Sends exactly one final response to a request that is no
/// INVITE, or none when nobody answered in time; to an INVITE exactly one that is no 2xx, or one 2xx and
/// more. The context of an INVITE ends by itself, an answered one earlier when there is no room for another;
/// that of another request with its client transactions, all of which end by Timer F, or with its server
/// transaction.
#[derive(Debug)]
pub struct Proxy {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_server: HashMap<ServerTransaction, u32>,
    /// First branches of the INVITEs that are answered and wait for more 2xx only, oldest first: they make
    /// room when there is none.
    answered: VecDeque<BranchKey>,
    shared: Shared,
}

/// A place for one context, used again and again.
#[derive(Debug)]
struct Slot {
    /// How many contexts were here before.
    generation: u64,
    context: Option<Context>,
    /// Whether it is among the answered.
    is_answered: bool,
}

impl Proxy {
    /// An empty proxy. `branch_prefix` begins every branch parameter: the magic cookie `z9hG4bK` and what
    /// steers responses to this shard, such as `z9hG4bK0.`.
    pub fn new(settings: Settings, chance: Chance, branch_prefix: Bytes) -> Self {
        let shared =
            Shared { settings, chance, branch_prefix, outputs: VecDeque::new(), deadlines: BTreeSet::new() };
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_server: HashMap::new(),
            answered: VecDeque::new(),
            shared,
        }
    }

    /// Forwards a request to its targets (16.6): groups of equal q one after the other, highest first, inside
    /// a group at once as far as Max-Breadth allows. An INVITE that none of them takes goes to where
    /// [`Incoming::diversions`] says.
    ///
    /// Errors: [`ProxyError`].
    pub fn start(&mut self, now: Instant, incoming: Incoming) -> Result<(), ProxyError> {
        let server = incoming.server;
        if incoming.targets.is_empty() {
            return Err(ProxyError::NoTargets);
        }
        if self.by_server.contains_key(&server) {
            return Err(ProxyError::AlreadyStarted { server });
        }
        let most = self.shared.settings.contexts_max.min(BranchKey::SLOTS_MAX);
        if self.by_server.len() >= most && !self.make_room() {
            return Err(ProxyError::Full { retry_after_s: self.shared.settings.retry_after_s });
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, context: None, is_answered: false });
            // The bound above keeps the number of slots below 2^20.
            u32::try_from(self.slots.len().saturating_sub(1)).unwrap_or(u32::MAX)
        });
        let Some(slot) = slot_mut(&mut self.slots, number) else { return Ok(()) };
        let key = BranchKey::first(slot.generation, number);
        let context = slot.context.insert(Context::new(now, key, incoming, &self.shared.settings));
        self.by_server.insert(server, number);
        context.arm(now, &mut self.shared);
        context.advance(now, &mut self.shared);
        self.settle(number);
        Ok(())
    }

    /// Takes a response of a client transaction (16.7). One for an unknown branch is dropped, as a stray
    /// response is (RFC 6026 section 8.9).
    pub fn response(&mut self, now: Instant, branch: BranchKey, response: &Arc<OwnedMessage>) {
        self.with_branch(branch, |context, shared| context.response(now, branch, response, shared));
    }

    /// Takes the failure of a client transaction, or of finding a way to the target (16.9). Goes on to other
    /// targets.
    pub fn branch_failed(&mut self, now: Instant, branch: BranchKey, failure: BranchFailure) {
        self.with_branch(branch, |context, shared| context.branch_failed(now, branch, failure, shared));
    }

    /// Takes the caller's CANCEL (16.10): cancels what is pending, holds the CANCEL for what has not answered
    /// at all, tries no further target. Its Reason goes along (RFC 3326).
    ///
    /// `false` when there is no such context: the request was not forwarded yet, or is done. The 200 OK to
    /// the CANCEL is the driver's. No effect on a request that is no INVITE (9.2).
    pub fn cancel(&mut self, now: Instant, server: ServerTransaction, cancel: Option<Message<'_>>) -> bool {
        let Some(&number) = self.by_server.get(&server) else { return false };
        let reason = cancel.map_or_else(Bytes::new, reason_of);
        self.with_slot(number, |context, shared| context.cancel(now, reason, shared));
        true
    }

    /// The server transaction is gone: nothing can be sent upstream any more (RFC 6026).
    pub fn server_finished(&mut self, server: ServerTransaction) {
        let Some(&number) = self.by_server.get(&server) else { return };
        self.with_slot(number, |context, shared| context.server_finished(shared));
    }

    /// Answers [`Output::Redirected`]: `targets` are the contacts of the 3xx to try instead, `rest` the
    /// Contact values that are not, in order. Without a new target the 3xx counts as it came; with `rest` it
    /// counts with these only; else it does not count (16.7 step 4).
    pub fn redirect(&mut self, now: Instant, branch: BranchKey, targets: Vec<Target>, rest: &[Bytes]) {
        self.with_branch(branch, |context, shared| context.redirect(now, branch, targets, rest, shared));
    }

    /// Lets Timer C (16.8) and the other deadlines that have passed take effect.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(deadline, branch)) = self.shared.deadlines.first()
            && deadline <= now
        {
            self.shared.deadlines.pop_first();
            self.with_branch(branch, |context, shared| context.deadline_passed(now, branch, shared));
        }
    }

    /// When to call [`Self::handle_timeout`] next; `None` = only after an input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.shared.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// The next thing to do; `None` when there is nothing left.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shared.outputs.pop_front()
    }

    /// Requests being forwarded, those whose branches still have to end included.
    pub fn len(&self) -> usize {
        self.by_server.len()
    }

    /// Whether no request is being forwarded.
    pub fn is_empty(&self) -> bool {
        self.by_server.is_empty()
    }

    /// Runs `work` on the context of a branch, if the key is not from before it.
    fn with_branch(&mut self, branch: BranchKey, work: impl FnOnce(&mut Context, &mut Shared)) {
        if let Some(number) = self.slot_of(branch) {
            self.with_slot(number, work);
        }
    }

    /// The slot of a branch whose context is still there.
    fn slot_of(&self, branch: BranchKey) -> Option<u32> {
        let slot = self.slots.get(branch.slot())?;
        let number = u32::try_from(branch.slot()).ok()?;
        (BranchKey::first(slot.generation, number) == branch.with_branch(0)).then_some(number)
    }

    fn with_slot(&mut self, number: u32, work: impl FnOnce(&mut Context, &mut Shared)) {
        let Some(context) = slot_mut(&mut self.slots, number).and_then(|slot| slot.context.as_mut()) else {
            return;
        };
        work(context, &mut self.shared);
        self.settle(number);
    }

    /// Ends the oldest INVITE that waits for more 2xx only; `false` when there is none.
    fn make_room(&mut self) -> bool {
        while let Some(key) = self.answered.pop_front() {
            if self.slot_of(key).is_some() {
                self.with_branch(key, Context::end);
                return true;
            }
        }
        false
    }

    /// Frees the slot of a context that is over, and remembers one that is answered.
    fn settle(&mut self, number: u32) {
        let Some(slot) = slot_mut(&mut self.slots, number) else { return };
        let Some(context) = &slot.context else { return };
        if context.is_answered() && !slot.is_answered {
            slot.is_answered = true;
            self.answered.push_back(context.key);
            while self.answered.front().is_some_and(|&key| self.slot_of(key).is_none()) {
                self.answered.pop_front();
            }
        }
        let Some(slot) = slot_mut(&mut self.slots, number) else { return };
        let Some(mut context) = slot.context.take_if(|context| context.is_over()) else { return };
        slot.is_answered = false;
        slot.generation = slot.generation.wrapping_add(1);
        context.remove_deadlines(&mut self.shared);
        self.by_server.remove(&context.server);
        self.free.push(number);
        self.shared.outputs.push_back(Output::Finished { server: context.server });
    }
}

fn slot_mut(slots: &mut [Slot], number: u32) -> Option<&mut Slot> {
    slots.get_mut(usize::try_from(number).unwrap_or(usize::MAX))
}

/// The Reason values of a CANCEL, joined.
fn reason_of(cancel: Message<'_>) -> Bytes {
    let mut reason = Vec::new();
    for value in cancel.values(HeaderId::Reason) {
        if !reason.is_empty() {
            reason.extend_from_slice(b", ");
        }
        reason.extend_from_slice(value);
    }
    Bytes::from(reason)
}
