//! A context that has sent no final response: its waiting targets and what it gathered. Source: RFC 3261
//! section 16.6, RFC 5393 section 5.3 and RFC 5626 section 7.

use std::{cmp::Reverse, sync::Arc};

use model::Leg;
use sip::{HeaderId, Message, Method, OwnedMessage};
use smallvec::SmallVec;

use crate::{
    Diversions, Incoming, Routing, Settings, Target, branch::Branch, loop_detection::LoopMark,
    responses::Responses, target::same_uri,
};

/// What is needed until the final response is sent.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) request: Arc<OwnedMessage>,
    /// Our side towards the caller, when we stay on the path.
    pub(crate) record_route: Option<Arc<Leg>>,
    pub(crate) routing: Routing,
    /// Whether who sent it may see a 430.
    pub(crate) knows_flows: bool,
    pub(crate) mark: LoopMark,
    pub(crate) responses: Responses,
    /// Why no new branch may start, if so.
    pub(crate) stop: Option<Stop>,
    /// Incoming Max-Breadth.
    breadth: u32,
    /// Where the call goes when the targets do not take it; gone once it went there.
    pub(crate) diversions: Option<Box<Diversions>>,
    /// Whether a branch answered with more than 100.
    pub(crate) has_rung: bool,
    /// Targets not tried yet, highest q first.
    waiting: Vec<Target>,
    /// q of the group that is tried now.
    group: u16,
}

/// Why no new branch may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The caller sent a CANCEL.
    Cancelled,
    /// A 6xx arrived.
    RefusedForAll,
}

impl Open {
    /// The targets in the order in which they will be tried, none of them tried yet.
    pub(crate) fn new(incoming: Incoming, settings: &Settings) -> Self {
        let Incoming { server: _, request, leg, record_route, routing, knows_flows, targets, diversions } =
            incoming;
        let mark = LoopMark::of(request.view(), settings.loop_key);
        let breadth = incoming_breadth(request.view(), settings);
        let is_invite = request.view().method() == Method::Invite;
        let mut waiting = without_repetition(targets);
        waiting.sort_by_key(|target| Reverse(target.q));
        waiting.truncate(settings.targets_max);
        Self {
            request,
            record_route: record_route.then_some(leg),
            routing,
            knows_flows,
            mark,
            responses: Responses::default(),
            stop: None,
            breadth,
            diversions: diversions.filter(|diversions| is_invite && !diversions.is_empty()),
            has_rung: false,
            waiting,
            group: 0,
        }
    }

    /// Lets no new branch start.
    pub(crate) fn stop(&mut self, why: Stop) {
        self.stop = Some(why);
        self.waiting.clear();
    }

    /// Leaves out what waits and tries this instead.
    pub(crate) fn try_instead(&mut self, target: Target) {
        self.waiting.clear();
        self.waiting.push(target);
    }

    /// Leaves out what waits.
    pub(crate) fn give_up_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Leaves out the other flows of a device that has answered.
    pub(crate) fn forget_device(&mut self, device: u64) {
        self.waiting.retain(|target| target.device != Some(device));
    }

    /// Takes out the targets that may start now, each with its Max-Breadth.
    ///
    /// Those of the present group, or of the next one when nothing is going on; one flow of each device; as
    /// many as Max-Breadth allows at once, the rest when a branch ends; at most `room`.
    pub(crate) fn next(&mut self, branches: &[Branch], room: usize) -> SmallVec<[(Target, u32); 2]> {
        let active = || branches.iter().filter(|branch| branch.state.is_active());
        let (Some(first), None) = (self.waiting.first(), self.stop) else { return SmallVec::new() };
        if active().next().is_none() {
            self.group = first.q;
        }
        let used: u32 = active().map(|branch| branch.breadth).fold(0, u32::saturating_add);
        let free = self.breadth.saturating_sub(used);
        let free = if used > 0 || free > 1 { free.saturating_sub(self.kept_breadth()) } else { free };
        let most = usize::try_from(free).unwrap_or(usize::MAX).min(room);
        let mut busy: SmallVec<[u64; 4]> = active().filter_map(|branch| branch.device).collect();
        let mut chosen: SmallVec<[usize; 4]> = SmallVec::new();
        for (at, target) in self.waiting.iter().enumerate() {
            if target.q < self.group || chosen.len() >= most {
                break;
            }
            if target.device.is_none_or(|device| !busy.contains(&device)) {
                busy.extend(target.device);
                chosen.push(at);
            }
        }
        self.take(&chosen, free)
    }

    /// Adds targets that a 3xx led to, unless they were there before (16.5). `false` when none is new.
    pub(crate) fn add_redirected(
        &mut self,
        targets: Vec<Target>,
        branches: &[Branch],
        settings: &Settings,
    ) -> bool {
        let mut has_more = false;
        for target in targets {
            let is_tried = branches.iter().any(|branch| same_uri(&branch.request_uri, &target.request_uri));
            let is_waiting =
                self.waiting.iter().any(|other| same_uri(&other.request_uri, &target.request_uri));
            if !is_tried && !is_waiting && self.waiting.len() < settings.targets_max {
                self.waiting.push(target);
                has_more = true;
            }
        }
        self.waiting.sort_by_key(|target| Reverse(target.q));
        has_more
    }

    /// Removes the chosen targets and shares the free Max-Breadth among them.
    fn take(&mut self, chosen: &[usize], free: u32) -> SmallVec<[(Target, u32); 2]> {
        let count = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
        let share = free.checked_div(count).unwrap_or(0);
        let mut over = free.checked_rem(count).unwrap_or(0);
        let mut taken = SmallVec::new();
        for (removed, at) in chosen.iter().enumerate() {
            let target = self.waiting.remove(at.saturating_sub(removed));
            let extra = u32::from(over > 0);
            over = over.saturating_sub(1);
            taken.push((target, share.saturating_add(extra)));
        }
        taken
    }
}

/// Max-Breadth of the request, at most ours; ours when it has none (RFC 5393 section 5.3.3).
pub(crate) fn incoming_breadth(request: Message<'_>, settings: &Settings) -> u32 {
    let most = settings.max_breadth.max(1);
    request.header(HeaderId::MaxBreadth).and_then(breadth).map_or(most, |breadth| breadth.clamp(1, most))
}

/// A Max-Breadth value as number; one too large for a number counts as the largest.
pub(crate) fn breadth(value: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(value.trim_ascii()).ok()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u32::MAX))
}

/// The targets, each once (16.5).
fn without_repetition(mut targets: Vec<Target>) -> Vec<Target> {
    let mut at = 1;
    while let Some((before, rest)) = targets.split_at_checked(at)
        && let Some(target) = rest.first()
    {
        if before.iter().any(|earlier| earlier.is_same_as(target)) {
            targets.remove(at);
        } else {
            at = at.saturating_add(1);
        }
    }
    targets
}
