//! Sending a call on when the phones of the called user are busy, do not answer or are not reached.
//!
//! ```text
//! phones ring ──time is over──▶ phones cancelled, destination of no answer rings
//!      │
//!      └──every branch has ended without 2xx──▶ one said 486 or 600 ──▶ destination of busy
//!                                         └───▶ none was reached ────▶ destination of not reachable,
//!                                                                      or of no answer when one rang
//! ```
//!
//! A context diverts once. What the destination does next is decided where it is served: a call to a user is
//! forwarded to where that user's own wishes are followed, so chains need no state here. They end by loop
//! detection (482), Max-Forwards, Max-Breadth and `limits::DIVERSIONS_MAX`.

use std::time::Duration;

use model::Instant;

use crate::{
    BranchKey, Output, Target,
    branch::CancelCause,
    context::{Context, Phase, Shared},
    open::{Open, Stop},
};

/// q of a diversion's target: not below any phone's, so that it starts while cancelled phones still end.
const DIVERSION_Q: u16 = 1_000;

/// Where an INVITE goes when its targets do not take it; no effect on other requests.
#[derive(Clone, Debug, Default)]
pub struct Diversions {
    /// When a target answers 486 or 600 and none 2xx.
    pub busy: Option<Target>,
    /// When nobody answers in time.
    pub no_answer: Option<NoAnswer>,
    /// When no target is reached.
    pub not_reachable: Option<Target>,
}

/// Where an INVITE goes that nobody answers.
#[derive(Clone, Debug)]
pub struct NoAnswer {
    /// How long the targets may take, counted from the start.
    pub after: Duration,
    /// Where it goes then.
    pub target: Target,
}

/// Why a request was diverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiversionCause {
    /// A target was busy.
    Busy,
    /// Nobody answered in time.
    NoAnswer,
    /// No target was reached.
    NotReachable,
}

impl Diversions {
    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.busy.is_none() && self.no_answer.is_none() && self.not_reachable.is_none()
    }

    /// All targets there are, to be finished by the driver.
    pub fn targets_mut(&mut self) -> impl Iterator<Item = &mut Target> {
        let no_answer = self.no_answer.iter_mut().map(|no_answer| &mut no_answer.target);
        self.busy.iter_mut().chain(no_answer).chain(&mut self.not_reachable)
    }

    fn into_target(self, cause: DiversionCause) -> Option<Target> {
        match cause {
            DiversionCause::Busy => self.busy,
            DiversionCause::NoAnswer => self.no_answer.map(|no_answer| no_answer.target),
            DiversionCause::NotReachable => self.not_reachable,
        }
    }
}

impl Context {
    /// Sets the deadline of no answer.
    pub(crate) fn arm(&mut self, now: Instant, shared: &mut Shared) {
        let Phase::Open(Open { diversions: Some(diversions), .. }) = &self.phase else { return };
        let Some(no_answer) = &diversions.no_answer else { return };
        let at = now + no_answer.after;
        shared.deadlines.insert((at, self.key.of_context()));
        self.no_answer_at = Some(at);
    }

    /// Takes the deadline of no answer back.
    pub(crate) fn disarm(&mut self, shared: &mut Shared) {
        if let Some(at) = self.no_answer_at.take() {
            shared.deadlines.remove(&(at, self.key.of_context()));
        }
    }

    /// Nobody answered in time: the targets are cancelled, the destination is tried at once.
    pub(crate) fn no_answer(&mut self, now: Instant, shared: &mut Shared) {
        self.no_answer_at = None;
        let is_refused = matches!(self.phase, Phase::Open(Open { stop: Some(_), .. }));
        if !is_refused && self.divert(DiversionCause::NoAnswer, shared) {
            self.cancel_pending(now, &CancelCause::NoAnswer, shared);
            self.advance(now, shared);
        }
    }

    /// Every branch has ended without a 2xx: whether there is somewhere else to try.
    pub(crate) fn divert_refused(&mut self, shared: &mut Shared) -> bool {
        let Phase::Open(open) = &self.phase else { return false };
        open.refusal().is_some_and(|cause| self.divert(cause, shared))
    }

    fn divert(&mut self, cause: DiversionCause, shared: &mut Shared) -> bool {
        let Phase::Open(open) = &mut self.phase else { return false };
        let Some(target) = open.diversions.take().and_then(|diversions| diversions.into_target(cause)) else {
            return false;
        };
        open.stop = None;
        open.try_instead(Target { q: DIVERSION_Q, ..target });
        self.disarm(shared);
        shared.outputs.push_back(Output::Diverted { server: self.server, cause });
        true
    }
}

impl Open {
    /// Max-Breadth that is kept back, so that the destination of no answer can start before the phones have
    /// confirmed their end.
    pub(crate) fn kept_breadth(&self) -> u32 {
        let awaits = self.diversions.as_ref().is_some_and(|diversions| diversions.no_answer.is_some());
        u32::from(awaits)
    }

    /// Why the targets did not take the request, where that is a reason to divert it and there is somewhere
    /// to go.
    fn refusal(&self) -> Option<DiversionCause> {
        let diversions = self.diversions.as_ref()?;
        let statuses = || self.responses.statuses();
        let is_refused_for_all = match self.stop {
            Some(Stop::Cancelled) => return None,
            Some(Stop::RefusedForAll) => true,
            None => false,
        };
        if is_refused_for_all && statuses().any(|status| status > 600) {
            return None;
        }
        if statuses().any(|status| matches!(status, 486 | 600)) {
            return diversions.busy.is_some().then_some(DiversionCause::Busy);
        }
        if !statuses().all(is_unreached) {
            return None;
        }
        if self.has_rung && diversions.no_answer.is_some() {
            return Some(DiversionCause::NoAnswer);
        }
        diversions.not_reachable.is_some().then_some(DiversionCause::NotReachable)
    }
}

impl BranchKey {
    /// The key under which the deadline of a whole context is kept; no branch has it.
    fn of_context(self) -> Self {
        self.with_branch(u8::MAX)
    }

    /// Whether this is [`Self::of_context`].
    pub(crate) fn is_of_context(self) -> bool {
        self.branch() == usize::from(u8::MAX)
    }
}

/// Whether a final response says that nobody was reached: time-out, flow gone, not available, no way. The 503
/// of a proxy behind us comes as 500 (16.7 step 6).
const fn is_unreached(status: u16) -> bool {
    matches!(status, 408 | 430 | 480 | 500 | 503 | 504)
}
