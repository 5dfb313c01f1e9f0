//! Starting and cancelling branches. Source: RFC 3261 sections 16.6, 16.7 step 10 and 9.1.

use std::sync::Arc;

use bytes::Bytes;
use model::{Instant, limits};
use sip::{Framing, OwnedMessage};

use crate::{
    BranchKey, ForwardError, Output, Target,
    branch::{Branch, BranchState, CancelCause, Sent},
    context::{Context, Phase, Shared},
    forwarding::Outgoing,
    loop_detection::branch_parameter,
    responses::Final,
};

/// What became of an attempt to start branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    /// As many as may run are running.
    All,
    /// Some could not be made into a request: others may take their place.
    SomeFailed,
}

impl Context {
    /// Starts every target that may start now (16.6).
    pub(crate) fn start_next(&mut self, now: Instant, shared: &mut Shared) -> Started {
        let Phase::Open(open) = &mut self.phase else { return Started::All };
        let room = branches_max(shared).saturating_sub(self.branches.len());
        if room == 0 {
            open.give_up_waiting();
        }
        let next = open.next(&self.branches, room);
        let mut started = Started::All;
        for (target, breadth) in next {
            if self.start_branch(now, target, breadth, shared).is_err() {
                started = Started::SomeFailed;
            }
        }
        started
    }

    /// Forwards to one target, and sets Timer C for an INVITE (16.6 steps 1 to 11).
    fn start_branch(
        &mut self,
        now: Instant,
        target: Target,
        breadth: u32,
        shared: &mut Shared,
    ) -> Result<(), ForwardError> {
        let key = self.branch_key(self.branches.len());
        let Phase::Open(open) = &mut self.phase else { return Ok(()) };
        let branch = branch_parameter(&shared.branch_prefix, shared.chance.bits(), open.mark);
        let outgoing = Outgoing {
            request: open.request.view(),
            routing: open.routing,
            record_route: open.record_route.as_deref(),
            target: &target,
            branch: &branch,
            breadth,
        };
        let made = outgoing.make();
        let Target { next_hop, request_uri, routes: _, q: _, device, leg: _, diversion: _ } = target;
        self.branches.push(Branch { state: BranchState::Ended, breadth, device, request_uri });
        let request = match made {
            Ok(request) => request,
            Err(error) => {
                open.responses.push(Final::Own(error.status()));
                return Err(error);
            }
        };
        shared.outputs.push_back(Output::Forward {
            branch: key,
            request: Arc::clone(&request),
            next_hop: next_hop.clone(),
        });
        let state = if self.is_invite {
            let timer_c = now + shared.settings.timer_c();
            BranchState::Calling { sent: Sent { request, next_hop }, timer_c }
        } else {
            BranchState::Trying
        };
        self.set(key, state, shared);
        Ok(())
    }

    /// Cancels what is pending, and has branches without a provisional response wait for it (16.7 step 10,
    /// 9.1).
    pub(crate) fn cancel_pending(&mut self, now: Instant, cause: &CancelCause, shared: &mut Shared) {
        for number in 0..self.branches.len() {
            let key = self.branch_key(number);
            let state = match self.take(key, shared) {
                BranchState::Proceeding { sent, .. } => {
                    self.send_cancel(now, key, &sent, cause.clone(), shared);
                    continue;
                }
                BranchState::Calling { sent, timer_c } => {
                    BranchState::CancelHeld { sent, timer_c, cause: cause.clone() }
                }
                BranchState::Redirected { response, .. } => {
                    if let Phase::Open(open) = &mut self.phase {
                        open.responses.push(Final::Received(response));
                    }
                    BranchState::Ended
                }
                state @ (BranchState::Trying
                | BranchState::CancelHeld { .. }
                | BranchState::Cancelled { .. }
                | BranchState::Accepted { .. }
                | BranchState::Ended) => state,
            };
            self.set(key, state, shared);
        }
    }

    /// Sends the CANCEL of one branch and waits for its final response (9.1).
    pub(crate) fn send_cancel(
        &mut self,
        now: Instant,
        key: BranchKey,
        sent: &Sent,
        cause: CancelCause,
        shared: &mut Shared,
    ) {
        if let Some(request) = cancel_of(&sent.request, &cause) {
            shared.outputs.push_back(Output::Cancel {
                branch: key,
                request,
                next_hop: sent.next_hop.clone(),
            });
        }
        let until = now + shared.settings.cancel_wait;
        self.set(key, BranchState::Cancelled { until, cause }, shared);
    }
}

fn branches_max(shared: &Shared) -> usize {
    shared.settings.branches_max.min(limits::BRANCHES_MAX).min(BranchKey::BRANCHES_MAX)
}

/// The CANCEL for a request we sent, with the cause as Reason (RFC 3326).
fn cancel_of(invite: &OwnedMessage, cause: &CancelCause) -> Option<Arc<OwnedMessage>> {
    let mut out = Vec::with_capacity(512);
    sip::cancel_for(invite.view(), &mut out);
    let plain = OwnedMessage::parse(Bytes::from(out), Framing::Datagram).ok()?;
    let reason = reason(cause);
    if reason.is_empty() {
        return Some(Arc::new(plain));
    }
    let mut rewrite = sip::Rewrite::new(plain.view());
    rewrite.add_header(sip::HeaderId::Reason.name(), &reason);
    rewrite.to_message().ok().map(Arc::new)
}

/// Value of the Reason header field.
fn reason(cause: &CancelCause) -> Bytes {
    match cause {
        CancelCause::Caller(reason) => reason.clone(),
        CancelCause::AnsweredElsewhere => {
            Bytes::from_static(b"SIP;cause=200;text=\"Call completed elsewhere\"")
        }
        CancelCause::RefusedForAll(status) => {
            Bytes::from(format!("SIP;cause={status};text=\"{}\"", sip::reason_phrase(*status)))
        }
        CancelCause::TimerC => Bytes::from_static(b"SIP;cause=408;text=\"Request Timeout\""),
        CancelCause::NoAnswer => Bytes::from_static(b"SIP;cause=408;text=\"No answer, call forwarded\""),
    }
}
