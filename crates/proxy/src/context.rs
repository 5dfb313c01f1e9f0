//! A response context: one forwarded request with its branches. Source: RFC 3261 sections 16.6 to 16.10.
//!
//! ```text
//! Open ──2xx to an INVITE──▶ Accepted ──every branch ended──▶ Over
//!   │ ──any other final response, or none can be sent──────▶ Over
//!   └──the server transaction of an INVITE is gone──▶ Abandoned ──every branch ended──▶ Over
//! ```
//!
//! While it is `Open`, `Open::stop` says whether new branches may still start. A final response that is no
//! 2xx goes upstream only when every branch has ended, so `Accepted` never follows it.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use model::{Chance, Instant, ServerTransaction};
use sip::{HeaderId, Method, OwnedMessage, Rewrite};
use smallvec::SmallVec;

use crate::{
    BranchFailure, BranchKey, Incoming, Output, Settings, Target,
    branch::{Branch, BranchState, CancelCause},
    fork::Started,
    open::{Open, Stop},
    responses::Final,
};

/// What all contexts of one proxy share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) chance: Chance,
    pub(crate) branch_prefix: Bytes,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) deadlines: BTreeSet<(Instant, BranchKey)>,
}

/// One forwarded request.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) server: ServerTransaction,
    pub(crate) is_invite: bool,
    pub(crate) phase: Phase,
    /// Key of the first branch.
    pub(crate) key: BranchKey,
    /// When nobody has answered in time.
    pub(crate) no_answer_at: Option<Instant>,
    started: Instant,
    pub(crate) branches: SmallVec<[Branch; 2]>,
}

/// How far a context is; see the module.
#[derive(Debug)]
pub(crate) enum Phase {
    /// No final response was sent.
    Open(Open),
    /// A 2xx to an INVITE was sent, more may follow.
    Accepted,
    /// Nothing can be sent upstream any more, branches are still to end.
    Abandoned,
    /// Nothing is left to do.
    Over,
}

impl Context {
    /// A context with its targets, none of them tried. `key` is that of the first branch.
    pub(crate) fn new(now: Instant, key: BranchKey, incoming: Incoming, settings: &Settings) -> Self {
        let server = incoming.server;
        let is_invite = incoming.request.view().method() == Method::Invite;
        let phase = Phase::Open(Open::new(incoming, settings));
        Self { server, is_invite, phase, key, no_answer_at: None, started: now, branches: SmallVec::new() }
    }

    /// Starts what may be started; sends the best response when there is nothing left to wait for.
    pub(crate) fn advance(&mut self, now: Instant, shared: &mut Shared) {
        if let Phase::Open(open) = &mut self.phase
            && !self.is_invite
            && now >= self.started + shared.settings.non_invite_max
        {
            open.give_up_waiting();
        }
        while self.start_next(now, shared) == Started::SomeFailed {}
        if !self.has_active_branch() && self.divert_refused(shared) {
            while self.start_next(now, shared) == Started::SomeFailed {}
        }
        if matches!(self.phase, Phase::Open(_)) && !self.has_active_branch() {
            self.send_best(shared);
        }
    }

    /// Takes a response of a branch. `key` names the branch.
    pub(crate) fn response(
        &mut self,
        now: Instant,
        key: BranchKey,
        response: &Arc<OwnedMessage>,
        shared: &mut Shared,
    ) {
        let view = response.view();
        if view.is_request() || view.method() == Method::Cancel {
            return;
        }
        let status = view.status();
        match status {
            ..=199 => self.provisional(now, key, response, shared),
            200..=299 if self.is_invite => self.accepted(now, key, response, shared),
            200..=299 => self.succeeded(now, key, response, shared),
            _ => self.refused(now, key, response, shared),
        }
    }

    /// The branch gives no final response.
    pub(crate) fn branch_failed(
        &mut self,
        now: Instant,
        key: BranchKey,
        failure: BranchFailure,
        shared: &mut Shared,
    ) {
        let Some(branch) = self.branches.get(key.branch()) else { return };
        if !branch.state.is_active() {
            return;
        }
        let response = match failure {
            BranchFailure::Timeout => Final::Own(408),
            BranchFailure::Transport => Final::Own(503),
            BranchFailure::Unreachable => Final::Unsent,
            BranchFailure::Full => Final::Overload,
        };
        self.branch_ended(now, key, response, shared);
    }

    /// The caller cancelled (16.10). `reason` is the Reason value of its CANCEL.
    pub(crate) fn cancel(&mut self, now: Instant, reason: Bytes, shared: &mut Shared) {
        let Phase::Open(open) = &mut self.phase else { return };
        if !self.is_invite || open.stop.is_some() {
            return;
        }
        open.stop(Stop::Cancelled);
        self.disarm(shared);
        self.cancel_pending(now, &CancelCause::Caller(reason), shared);
        self.advance(now, shared);
    }

    /// The server transaction is gone. Branches that ring are left alone (16.9); held CANCELs still go out.
    pub(crate) fn server_finished(&mut self, shared: &mut Shared) {
        if !self.is_invite {
            self.phase = Phase::Over;
            return;
        }
        self.phase = Phase::Abandoned;
        self.disarm(shared);
        for number in 0..self.branches.len() {
            let key = self.branch_key(number);
            let is_accepted =
                matches!(self.branches.get(number), Some(Branch { state: BranchState::Accepted { .. }, .. }));
            if is_accepted {
                self.set(key, BranchState::Ended, shared);
            }
        }
    }

    /// A deadline has passed: of the context, no answer; of the branch, Timer C (16.8), the wait after a
    /// CANCEL (9.1), the time for more 2xx, or the patience with the driver.
    pub(crate) fn deadline_passed(&mut self, now: Instant, key: BranchKey, shared: &mut Shared) {
        if key.is_of_context() {
            return self.no_answer(now, shared);
        }
        match self.take(key, shared) {
            BranchState::Calling { .. } | BranchState::CancelHeld { .. } => {
                shared.outputs.push_back(Output::Terminate { branch: key });
                self.branch_ended(now, key, Final::Own(408), shared);
            }
            BranchState::Proceeding { sent, .. } => {
                self.send_cancel(now, key, &sent, CancelCause::TimerC, shared);
            }
            BranchState::Cancelled { .. } => {
                shared.outputs.push_back(Output::Terminate { branch: key });
                self.branch_ended(now, key, Final::Own(408), shared);
            }
            BranchState::Redirected { response, .. } => {
                self.branch_ended(now, key, Final::Received(response), shared);
            }
            state @ BranchState::Trying => self.set(key, state, shared),
            BranchState::Accepted { .. } | BranchState::Ended => self.set(key, BranchState::Ended, shared),
        }
    }

    /// Takes the targets a 3xx led to, and the Contact values that are not tried (16.7 step 4).
    pub(crate) fn redirect(
        &mut self,
        now: Instant,
        key: BranchKey,
        targets: Vec<Target>,
        rest: &[Bytes],
        shared: &mut Shared,
    ) {
        let Some(Branch { state: BranchState::Redirected { response, .. }, .. }) =
            self.branches.get(key.branch())
        else {
            return;
        };
        let response = Arc::clone(response);
        let has_more = match &mut self.phase {
            Phase::Open(open) if open.stop.is_none() => {
                open.add_redirected(targets, &self.branches, &shared.settings)
            }
            Phase::Open(_) | Phase::Accepted | Phase::Abandoned | Phase::Over => false,
        };
        match (has_more, rest) {
            (false, _) => self.branch_ended(now, key, Final::Received(response), shared),
            (true, []) => {
                self.set(key, BranchState::Ended, shared);
                self.advance(now, shared);
            }
            (true, rest) => {
                let response = with_contacts(&response, rest).unwrap_or(response);
                self.branch_ended(now, key, Final::Received(response), shared);
            }
        }
    }

    /// Whether a 2xx to an INVITE was sent, and nothing is missing but more of them.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.phase, Phase::Accepted) && !self.has_active_branch()
    }

    /// Waits for nothing any more.
    pub(crate) fn end(&mut self, _shared: &mut Shared) {
        self.phase = Phase::Over;
    }

    /// Whether the slot may be used again.
    pub(crate) fn is_over(&self) -> bool {
        match self.phase {
            Phase::Open(_) => false,
            Phase::Accepted | Phase::Abandoned => self.branches.iter().all(|branch| branch.state.is_ended()),
            Phase::Over => true,
        }
    }

    /// Takes the deadlines out of the common set.
    pub(crate) fn remove_deadlines(&mut self, shared: &mut Shared) {
        self.disarm(shared);
        for (number, branch) in self.branches.iter().enumerate() {
            if let Some(deadline) = branch.state.deadline() {
                shared.deadlines.remove(&(deadline, self.branch_key(number)));
            }
        }
    }

    /// A 1xx (16.7 steps 2 and 5).
    fn provisional(
        &mut self,
        now: Instant,
        key: BranchKey,
        response: &Arc<OwnedMessage>,
        shared: &mut Shared,
    ) {
        let status = response.view().status();
        let restarted = now + shared.settings.timer_c();
        let state = match self.take(key, shared) {
            BranchState::Calling { sent, timer_c } => {
                let timer_c = if status > 100 { restarted } else { timer_c };
                BranchState::Proceeding { sent, timer_c }
            }
            BranchState::Proceeding { sent, timer_c } => {
                let timer_c = if status > 100 { restarted } else { timer_c };
                BranchState::Proceeding { sent, timer_c }
            }
            BranchState::CancelHeld { sent, cause, .. } => {
                self.send_cancel(now, key, &sent, cause, shared);
                self.take(key, shared)
            }
            state @ (BranchState::Trying | BranchState::Cancelled { .. }) => state,
            state @ (BranchState::Accepted { .. } | BranchState::Redirected { .. } | BranchState::Ended) => {
                self.set(key, state, shared);
                return;
            }
        };
        self.set(key, state, shared);
        // To a request that is no INVITE only 100 may be sent (RFC 4320 section 4.1), and 100 goes one hop.
        if status > 100
            && self.is_invite
            && let Phase::Open(open) = &mut self.phase
        {
            open.has_rung = true;
            self.forward_response(response, shared);
        }
    }

    /// A 2xx to an INVITE: forwarded at once, whether it is the first or not (16.7 steps 5 and 10).
    fn accepted(&mut self, now: Instant, key: BranchKey, response: &Arc<OwnedMessage>, shared: &mut Shared) {
        let is_first = matches!(self.phase, Phase::Open(_));
        if self.branches.get(key.branch()).is_none() {
            return;
        }
        match self.phase {
            Phase::Open(_) | Phase::Accepted => {}
            Phase::Abandoned | Phase::Over => {
                self.set(key, BranchState::Ended, shared);
                return;
            }
        }
        if !self.forward_response(response, shared) {
            self.unreadable(now, key, shared);
            return;
        }
        let until = match self.take(key, shared) {
            BranchState::Accepted { until } => until,
            BranchState::Trying
            | BranchState::Calling { .. }
            | BranchState::CancelHeld { .. }
            | BranchState::Proceeding { .. }
            | BranchState::Cancelled { .. }
            | BranchState::Redirected { .. }
            | BranchState::Ended => now + shared.settings.accepted_for,
        };
        self.set(key, BranchState::Accepted { until }, shared);
        if is_first {
            self.phase = Phase::Accepted;
            self.disarm(shared);
            self.cancel_pending(now, &CancelCause::AnsweredElsewhere, shared);
        }
    }

    /// A 2xx to a request that is no INVITE: the only final response.
    fn succeeded(&mut self, now: Instant, key: BranchKey, response: &Arc<OwnedMessage>, shared: &mut Shared) {
        if self.branches.get(key.branch()).is_none() || !matches!(self.phase, Phase::Open(_)) {
            return;
        }
        if self.forward_response(response, shared) {
            self.phase = Phase::Over;
        } else {
            self.unreadable(now, key, shared);
        }
    }

    /// A final response that is no 2xx (16.7 steps 4 to 6).
    fn refused(&mut self, now: Instant, key: BranchKey, response: &Arc<OwnedMessage>, shared: &mut Shared) {
        let Some(branch) = self.branches.get(key.branch()) else { return };
        if !branch.state.is_active() || matches!(branch.state, BranchState::Redirected { .. }) {
            return;
        }
        if !has_via_below_ours(response) {
            self.unreadable(now, key, shared);
            return;
        }
        let status = response.view().status();
        let is_timer_c = matches!(branch.state, BranchState::Cancelled { cause: CancelCause::TimerC, .. });
        let is_late = matches!(branch.state, BranchState::Cancelled { cause: CancelCause::NoAnswer, .. });
        let is_device = branch.device.is_some();
        if self.is_redirect(status, shared) {
            let until = now + shared.settings.cancel_wait;
            self.set(key, BranchState::Redirected { response: Arc::clone(response), until }, shared);
            shared.outputs.push_back(Output::Redirected { branch: key, response: Arc::clone(response) });
            return;
        }
        let response = match status {
            // The caller cancelled nothing: for it the callee did not answer in time.
            487 if is_timer_c => Final::Own(408),
            // The call went elsewhere, whatever the phone says now.
            _ if is_late => Final::Own(408),
            // Meant for us where we know the flows of the device; no endpoint may see it (RFC 5626 section
            // 11.5). Inside a dialog a 480 would end the call, a 500 only the attempt (RFC 5057 section 5.1).
            430 if is_device => Final::Own(480),
            430 => match &self.phase {
                Phase::Open(open) if !open.knows_flows => {
                    let is_inside_dialog = open.request.view().to().is_ok_and(|to| to.tag().is_some());
                    Final::Own(if is_inside_dialog { 500 } else { 480 })
                }
                Phase::Open(_) | Phase::Accepted | Phase::Abandoned | Phase::Over => {
                    Final::Received(Arc::clone(response))
                }
            },
            _ => Final::Received(Arc::clone(response)),
        };
        self.branch_ended(now, key, response, shared);
    }

    fn is_redirect(&self, status: u16, shared: &Shared) -> bool {
        let may_start = matches!(&self.phase, Phase::Open(Open { stop: None, .. }));
        (300..400).contains(&status) && shared.settings.recurse && may_start
    }

    /// A final response that was meant for us or has lost the caller's Via: it must not be forwarded (16.7
    /// step 3).
    fn unreadable(&mut self, now: Instant, key: BranchKey, shared: &mut Shared) {
        let is_active = self.branches.get(key.branch()).is_some_and(|branch| branch.state.is_active());
        if is_active {
            self.branch_ended(now, key, Final::Own(500), shared);
        }
    }

    /// Takes the final response of a branch and goes on: other targets, or the best response.
    fn branch_ended(&mut self, now: Instant, key: BranchKey, response: Final, shared: &mut Shared) {
        self.set(key, BranchState::Ended, shared);
        let device = self.branches.get(key.branch()).and_then(|branch| branch.device);
        let Phase::Open(open) = &mut self.phase else { return };
        let status = response.status();
        if let Some(device) = device
            && !response.leaves_device_open()
        {
            open.forget_device(device);
        }
        open.responses.push(response);
        if (600..700).contains(&status) && open.stop.is_none() {
            open.stop(Stop::RefusedForAll);
            self.cancel_pending(now, &CancelCause::RefusedForAll(status), shared);
        }
        self.advance(now, shared);
    }

    /// The key of one of our branches.
    pub(crate) fn branch_key(&self, number: usize) -> BranchKey {
        self.key.with_branch(u8::try_from(number).unwrap_or(u8::MAX))
    }

    /// Whether a final response is still to come.
    pub(crate) fn has_active_branch(&self) -> bool {
        self.branches.iter().any(|branch| branch.state.is_active())
    }

    /// Takes the state of a branch and its deadline out, to be replaced by [`Self::set`]. `Ended` when there
    /// is none.
    pub(crate) fn take(&mut self, key: BranchKey, shared: &mut Shared) -> BranchState {
        let Some(branch) = self.branches.get_mut(key.branch()) else { return BranchState::Ended };
        let state = std::mem::replace(&mut branch.state, BranchState::Ended);
        if let Some(deadline) = state.deadline() {
            shared.deadlines.remove(&(deadline, key));
        }
        state
    }

    /// Puts a branch into a state, deadline included.
    pub(crate) fn set(&mut self, key: BranchKey, state: BranchState, shared: &mut Shared) {
        self.take(key, shared);
        let Some(branch) = self.branches.get_mut(key.branch()) else { return };
        if let Some(deadline) = state.deadline() {
            shared.deadlines.insert((deadline, key));
        }
        branch.state = state;
    }
}

/// Whether the response has a Via besides the one we put in.
pub(crate) fn has_via_below_ours(response: &OwnedMessage) -> bool {
    response.view().values(HeaderId::Via).nth(1).is_some()
}

/// The 3xx with only these contacts.
fn with_contacts(response: &OwnedMessage, contacts: &[Bytes]) -> Option<Arc<OwnedMessage>> {
    let mut rewrite = Rewrite::new(response.view());
    rewrite.remove(HeaderId::Contact);
    for contact in contacts {
        rewrite.add_header(HeaderId::Contact.name(), contact);
    }
    rewrite.to_message().ok().map(Arc::new)
}
