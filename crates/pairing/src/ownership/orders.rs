//! Operators' orders: what stands in their way, how they get into the record, how they are answered.

use model::Instant;

use super::{
    Ownership,
    state::{Departure, Phase, State},
};
use crate::{
    CallId, Contact, Order, OrderBlocker, OrderId, OrderKind, OrderResult, Output, Planted, PoolState,
    Tenure, UndoReason,
};

/// Orders of one id that wait for an answer. More: `Busy`.
const CALLS_MAX: usize = 16;

/// What this pool wants the record to say, by an order or because an operation took too long.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) goal: Goal,
    calls: Vec<CallId>,
    /// Who asks gets an answer by then.
    until: Instant,
}

#[derive(Debug)]
pub(super) enum Goal {
    /// The owner changes `from` into `to`, in the same epoch.
    Change { from: Tenure, to: Tenure },
    /// This pool, which is not the owner, takes over as soon as that is safe.
    Takeover(Order),
}

/// How things stand when an order is given.
struct Desk {
    known: Tenure,
    is_mine: bool,
    /// The other pool is heard: by its promise when this pool owns, by its signs of life when it owns.
    is_heard: bool,
    is_serving: bool,
    has_witness: bool,
    is_leaving: bool,
}

impl Ownership {
    pub(super) fn ordered(&mut self, now: Instant, call: CallId, order: Order) {
        let is_planted = self.settings.planted == Planted::OrdersTwice;
        if let Some(wish) = &mut self.wish
            && wish.began_by() == Some(order.id)
            && wish.calls.len() < CALLS_MAX
        {
            return wish.calls.push(call);
        }
        if let Some(known) = self.known()
            && known.order.as_ref().is_some_and(|known| known.id == order.id)
            && !is_planted
        {
            let (state, undone) = (known.state, known.undone);
            return self.answer_order(call, OrderResult::Repeated { state, undone });
        }
        let mut blockers = self.blockers(now, &order);
        if is_planted {
            blockers.retain(|blocker| !matches!(blocker, OrderBlocker::OtherEpoch { .. }));
        }
        if blockers.is_empty() {
            self.begin_order(now, call, order);
        } else {
            blockers.sort();
            self.answer_order(call, OrderResult::Refused { blockers });
        }
    }

    fn answer_order(&mut self, call: CallId, result: OrderResult) {
        self.outputs.push_back(Output::OrderAnswer { call, result });
    }

    fn desk(&self, now: Instant) -> Option<Desk> {
        let known = self.known()?.clone();
        let is_mine = known.owner == self.parties.me;
        let is_serving = self.authority(now).is_some();
        let fresh = now - self.settings.quiet();
        let (is_heard, has_witness, is_leaving) = match &self.state {
            State::Learning => return None,
            State::Word(word) => (word.is_heard_since(fresh), true, word.is_draining()),
            State::Watching(watch) => {
                let is_silent = matches!(self.contact(now, watch), Contact::Silent { .. });
                (!is_silent, watch.is_read_since(fresh), false)
            }
            State::TakingOver(_) => (false, true, false),
            State::Owning(tenancy) => (tenancy.has_partner(now), tenancy.has_witness(now), false),
            State::Leaving(_) => (true, true, true),
        };
        Some(Desk { known, is_mine, is_heard, is_serving, has_witness, is_leaving })
    }

    /// Everything that stands in the way of an order.
    fn blockers(&self, now: Instant, order: &Order) -> Vec<OrderBlocker> {
        let Some(desk) = self.desk(now) else { return vec![OrderBlocker::OwnerUnknown] };
        let known = &desk.known;
        let mut found = Vec::new();
        if !is_planned_for(order, known) {
            found.push(OrderBlocker::OtherEpoch { planned: order.epoch, known: known.epoch });
        }
        if self.wish.is_some() || desk.is_leaving {
            found.push(OrderBlocker::Busy);
        }
        match order.kind {
            OrderKind::Failover | OrderKind::Switchover => {
                self.forward_blockers(&desk, order.kind, &mut found)
            }
            OrderKind::Failback => self.back_blockers(&desk, &mut found),
            OrderKind::Disaster => self.disaster_blockers(&desk, false, &mut found),
            OrderKind::DisasterFailback => self.disaster_blockers(&desk, true, &mut found),
        }
        found
    }

    fn forward_blockers(&self, desk: &Desk, kind: OrderKind, found: &mut Vec<OrderBlocker>) {
        let state = desk.known.state;
        match state {
            PoolState::Active => self.owner_blockers(desk, true, found),
            PoolState::TakenOver => {
                if kind == OrderKind::Switchover {
                    found.push(OrderBlocker::TakenOver);
                }
                self.owner_blockers(desk, false, found);
            }
            PoolState::FailedOver => found.push(OrderBlocker::AlreadyDone { state }),
            PoolState::FailingOver | PoolState::FailingBack => {
                found.push(other_operation(&desk.known));
                self.owner_blockers(desk, true, found);
            }
        }
    }

    fn back_blockers(&self, desk: &Desk, found: &mut Vec<OrderBlocker>) {
        let state = desk.known.state;
        match state {
            PoolState::Active => found.push(OrderBlocker::AlreadyDone { state }),
            PoolState::TakenOver => found.push(OrderBlocker::ReturnsByItself),
            PoolState::FailedOver => self.owner_blockers(desk, true, found),
            PoolState::FailingOver | PoolState::FailingBack => {
                found.push(other_operation(&desk.known));
                self.owner_blockers(desk, true, found);
            }
        }
    }

    /// What an order to the owner needs.
    fn owner_blockers(&self, desk: &Desk, needs_partner: bool, found: &mut Vec<OrderBlocker>) {
        if !desk.is_mine {
            let owner = desk.known.owner.clone();
            if !desk.is_heard {
                found.push(OrderBlocker::OwnerUnheard { owner: owner.clone() });
            }
            return found.push(OrderBlocker::NotTheOwner { owner });
        }
        if !self.is_able {
            found.push(OrderBlocker::Unable);
        } else if !desk.is_serving && !desk.is_leaving {
            found.push(OrderBlocker::NotServing);
        }
        if !desk.has_witness {
            found.push(OrderBlocker::NoWitness);
        }
        if needs_partner && !desk.is_heard {
            found.push(OrderBlocker::PartnerUnheard);
        }
    }

    /// What a takeover by order needs. It goes from the owner to the pool that is asked.
    fn disaster_blockers(&self, desk: &Desk, is_back: bool, found: &mut Vec<OrderBlocker>) {
        let (owner, state) = (desk.known.owner.clone(), desk.known.state);
        let is_done = match state {
            PoolState::Active => is_back,
            PoolState::FailedOver => !is_back,
            PoolState::TakenOver | PoolState::FailingOver | PoolState::FailingBack => false,
        };
        if is_done {
            return found.push(OrderBlocker::AlreadyDone { state });
        }
        if desk.is_mine {
            if state == PoolState::TakenOver && !is_back {
                return self.owner_blockers(desk, false, found); // it only becomes permanent
            }
            return found.push(OrderBlocker::OwnerAlive { owner });
        }
        // A takeover goes to this pool: the failover to the partner, the failback to the home pool.
        if self.parties.is_home() != is_back {
            found.push(OrderBlocker::NotTheOwner { owner: owner.clone() });
        }
        if desk.is_heard {
            found.push(OrderBlocker::OwnerAlive { owner });
        }
        if !self.is_able {
            found.push(OrderBlocker::Unable);
        }
        if !desk.has_witness {
            found.push(OrderBlocker::NoWitness);
        }
    }

    fn begin_order(&mut self, now: Instant, call: CallId, order: Order) {
        let Some(from) = self.known().cloned() else { return };
        let is_mine = from.owner == self.parties.me;
        if matches!(self.state, State::Word(_)) {
            let state = self.word_ordered(now, from, order);
            return self.answer_order(call, OrderResult::Accepted { state });
        }
        let patience = self.settings.patience();
        let (goal, until) = if is_mine {
            let state = match (order.kind, from.state) {
                (OrderKind::Failback, _) => PoolState::FailingBack,
                (_, PoolState::TakenOver) => PoolState::FailedOver,
                (_, _) => PoolState::FailingOver,
            };
            let to = Tenure { state, order: Some(order), undone: None, ..from.clone() };
            (Goal::Change { from, to }, now + patience * 2)
        } else {
            (Goal::Takeover(order), now + self.settings.wait() + patience * 2)
        };
        self.wish = Some(Wish { goal, calls: vec![call], until });
        self.next_round = Some(now);
    }

    /// Undoes the operation that this order began.
    pub(super) fn cancel_ordered(&mut self, now: Instant, call: CallId, of: OrderId) {
        match self.cancel_answer(of) {
            Some(result) => self.answer_order(call, result),
            None => self.begin_undo(now, Some(call), UndoReason::Cancelled),
        }
    }

    /// The answer, if it is known without asking the witness.
    fn cancel_answer(&self, of: OrderId) -> Option<OrderResult> {
        let refused = |blocker| Some(OrderResult::Refused { blockers: vec![blocker] });
        if self.wish.is_some() {
            return refused(OrderBlocker::Busy);
        }
        let Some(known) = self.known() else { return refused(OrderBlocker::OwnerUnknown) };
        if known.order.as_ref().is_none_or(|order| order.id != of) {
            return refused(OrderBlocker::NothingToCancel);
        }
        if known.undone.is_some() {
            return Some(OrderResult::Repeated { state: known.state, undone: known.undone });
        }
        let is_mine = known.owner == self.parties.me;
        let is_planted = is_mine && self.settings.planted == Planted::CancelsLate;
        if !(known.state.is_moving() || is_planted) {
            return refused(OrderBlocker::TooLateToCancel);
        }
        if !is_mine {
            return refused(OrderBlocker::NotTheOwner { owner: known.owner.clone() });
        }
        match &self.state {
            State::Leaving(Departure { phase: Phase::Swapping { .. }, .. }) => {
                refused(OrderBlocker::TooLateToCancel)
            }
            State::Owning(tenancy) if tenancy.stored.is_none() => refused(OrderBlocker::NoWitness),
            State::Word(_)
            | State::Learning
            | State::Watching(_)
            | State::TakingOver(_)
            | State::Owning(_)
            | State::Leaving(_) => None,
        }
    }

    /// Lets the record say that the operation under way ended where it began.
    pub(super) fn begin_undo(&mut self, now: Instant, call: Option<CallId>, reason: UndoReason) {
        let Some(from) = self.known().cloned() else { return };
        self.state = match std::mem::replace(&mut self.state, State::Learning) {
            State::Leaving(departure) => self.end_departure(now, departure),
            unchanged @ (State::Word(_)
            | State::Learning
            | State::Watching(_)
            | State::TakingOver(_)
            | State::Owning(_)) => unchanged,
        };
        let state = match from.state {
            PoolState::FailingBack => PoolState::FailedOver,
            PoolState::Active | PoolState::TakenOver | PoolState::FailingOver | PoolState::FailedOver => {
                PoolState::Active
            }
        };
        let to = Tenure { state, undone: Some(reason), ..from.clone() };
        if matches!(self.state, State::Word(_)) {
            self.word_changed(now, to);
            if let Some(call) = call {
                self.answer_order(call, OrderResult::Accepted { state });
            }
            return;
        }
        let until = now + self.settings.patience() * 2;
        self.wish = Some(Wish { goal: Goal::Change { from, to }, calls: call.into_iter().collect(), until });
        self.next_round = Some(now);
    }

    /// Answers whoever waits, once it is certain what became of the wish, or no longer to be waited for.
    pub(super) fn settle_wish(&mut self, now: Instant) {
        let Some(wish) = self.wish.take() else { return };
        match self.settled(now, &wish) {
            None => self.wish = Some(wish),
            Some(Settled::Answer(result)) => {
                for call in wish.calls {
                    self.answer_order(call, result.clone());
                }
            }
            Some(Settled::Instead(goal)) => {
                self.next_round = Some(now);
                self.wish = Some(Wish { goal, ..wish });
            }
        }
    }

    fn settled(&self, now: Instant, wish: &Wish) -> Option<Settled> {
        let known = self.known()?;
        let is_known = wish.order_id().is_some_and(|id| known.order.as_ref().is_some_and(|it| it.id == id));
        let accepted = Settled::Answer(OrderResult::Accepted { state: known.state });
        match &wish.goal {
            Goal::Change { from, to } if is_known && known != from && known.undone == to.undone => {
                Some(accepted)
            }
            Goal::Change { from, .. } if known.epoch != from.epoch => {
                let is_undo = known.order == from.order && from.order.is_some();
                let blocker = if is_undo {
                    OrderBlocker::TooLateToCancel
                } else {
                    OrderBlocker::OtherEpoch { planned: from.epoch, known: known.epoch }
                };
                Some(Settled::refused(blocker))
            }
            Goal::Change { from, .. } if known != from => Some(Settled::refused(other_operation(known))),
            Goal::Takeover(_) if is_known => Some(accepted),
            Goal::Takeover(order) => self.takeover_settled(now, known, order, wish.until),
            Goal::Change { .. } => (now >= wish.until).then_some(Settled::Answer(OrderResult::Unsure)),
        }
    }

    fn takeover_settled(
        &self,
        now: Instant,
        known: &Tenure,
        order: &Order,
        until: Instant,
    ) -> Option<Settled> {
        let is_over = now >= until;
        match &self.state {
            State::Owning(_) if known.state == PoolState::TakenOver && order.kind == OrderKind::Disaster => {
                // It had taken over by itself just before: now that becomes permanent.
                let to = Tenure { state: PoolState::FailedOver, order: Some(order.clone()), ..known.clone() };
                Some(Settled::Instead(Goal::Change { from: known.clone(), to }))
            }
            State::Owning(_) | State::Leaving(_) => {
                let (planned, known) = (order.epoch, known.epoch);
                Some(Settled::refused(OrderBlocker::OtherEpoch { planned, known }))
            }
            State::Watching(watch) => match self.contact(now, watch) {
                Contact::Heard | Contact::Beating => {
                    Some(Settled::refused(OrderBlocker::OwnerAlive { owner: known.owner.clone() }))
                }
                Contact::Silent { .. } if is_over && !self.is_able => {
                    Some(Settled::refused(OrderBlocker::Unable))
                }
                Contact::Silent { .. } => is_over.then_some(Settled::Answer(OrderResult::Unsure)),
            },
            State::TakingOver(_) | State::Learning | State::Word(_) => None,
        }
    }

    /// What the owner writes with its next beat.
    pub(super) fn wished<'a>(&'a self, tenure: &'a Tenure) -> &'a Tenure {
        match &self.wish {
            Some(Wish { goal: Goal::Change { from, to }, .. }) if from == tenure => to,
            Some(_) | None => tenure,
        }
    }

    /// The order to take over, if one waits.
    pub(super) fn takeover_order(&self) -> Option<&Order> {
        match &self.wish {
            Some(Wish { goal: Goal::Takeover(order), .. }) => Some(order),
            Some(Wish { goal: Goal::Change { .. }, .. }) | None => None,
        }
    }

    pub(super) fn wish_deadline(&self) -> Option<Instant> {
        self.wish.as_ref().map(|wish| wish.until)
    }
}

enum Settled {
    Answer(OrderResult),
    Instead(Goal),
}

impl Settled {
    fn refused(blocker: OrderBlocker) -> Self {
        Self::Answer(OrderResult::Refused { blockers: vec![blocker] })
    }
}

impl Wish {
    /// The order that began it; `None` for an undo.
    fn began_by(&self) -> Option<OrderId> {
        match &self.goal {
            Goal::Change { to: Tenure { undone: Some(_), .. }, .. } => None,
            Goal::Change { .. } | Goal::Takeover(_) => self.order_id(),
        }
    }

    fn order_id(&self) -> Option<OrderId> {
        match &self.goal {
            Goal::Change { to, .. } => to.order.as_ref().map(|order| order.id),
            Goal::Takeover(order) => Some(order.id),
        }
    }
}

/// Whether an order was made for things as they are. A takeover meanwhile does not spoil a failover.
fn is_planned_for(order: &Order, known: &Tenure) -> bool {
    let has_followed = known.state == PoolState::TakenOver && order.epoch.next() == known.epoch;
    let is_forward = matches!(order.kind, OrderKind::Failover | OrderKind::Disaster);
    order.epoch == known.epoch || (has_followed && is_forward)
}

fn other_operation(known: &Tenure) -> OrderBlocker {
    match &known.order {
        Some(Order { kind, id, .. }) => OrderBlocker::OtherOperation { kind: *kind, id: *id },
        None => OrderBlocker::UnknownOperation,
    }
}
