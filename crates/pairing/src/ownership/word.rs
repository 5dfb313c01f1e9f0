//! A pair without witness: the owner's word is the record, and only operators move the users.
//!
//! The owner serves without lease. A handover is drained as in a pair with witness; then the owner says
//! that the other pool owns, remembers that, and the other pool begins when it hears it. A disaster order
//! raises the epoch without asking anybody: until the old owner hears of it, both may serve. That is the
//! operator's risk.

use model::{Epoch, Instant};

use super::{
    Ownership,
    state::{Progress, State},
};
use crate::{
    Authority, Event, HandoverId, Order, OrderKind, Output, PoolState, Service, Settings, Tenure, UndoReason,
};

#[derive(Debug)]
pub(super) struct Word {
    pub(super) tenure: Tenure,
    /// From when on this pool serves if it is the owner and nobody contradicts.
    from: Instant,
    heard_at: Option<Instant>,
    pub(super) progress: Progress,
    drain: Option<Drain>,
}

#[derive(Clone, Copy, Debug)]
struct Drain {
    handover: HandoverId,
    since: Instant,
}

impl Word {
    pub(super) const fn new(tenure: Tenure, now: Instant, from: Instant) -> Self {
        Self { tenure, from, heard_at: None, progress: Progress::new(now), drain: None }
    }

    pub(super) fn is_heard_since(&self, oldest: Instant) -> bool {
        self.heard_at.is_some_and(|at| at >= oldest)
    }

    pub(super) const fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// The right to serve, given that this pool is the owner.
    pub(super) fn authority(&self, now: Instant) -> Option<Authority> {
        let epoch: Epoch = self.tenure.epoch;
        let authority = Authority { epoch, until: Instant::NEVER_ENDS, service: Service::Full };
        (self.drain.is_none() && now >= self.from).then_some(authority)
    }

    /// The other pool is there, so that a higher epoch would be known by now.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = Some(now);
        self.from = self.from.min(now);
    }

    /// Serves again after a handover that was not confirmed; returns which.
    pub(super) fn abandon(
        &mut self,
        now: Instant,
        handover: Option<HandoverId>,
        settings: &Settings,
    ) -> Option<HandoverId> {
        let drain = self.drain.take_if(|drain| handover.is_none_or(|handover| drain.handover == handover))?;
        self.progress.failed(now, settings.ttl);
        Some(drain.handover)
    }

    pub(super) fn deadlines(&self, settings: &Settings) -> [Option<Instant>; 4] {
        let is_moving = self.tenure.state.is_moving();
        let [retry, end] = self.progress.deadlines(settings).map(|at| at.filter(|_| is_moving));
        [retry, end, self.drain.map(|drain| drain.since + settings.drain_max()), Some(self.from)]
    }
}

impl Ownership {
    /// Lets everything happen that is due in a pair without witness.
    pub(super) fn advance_word(&mut self, now: Instant, mut word: Word) -> State {
        let (is_mine, settings) = (word.tenure.owner == self.parties.me, self.settings);
        let is_late = word.drain.is_some_and(|drain| now >= drain.since + settings.drain_max());
        if is_late && let Some(handover) = word.abandon(now, None, &settings) {
            self.outputs.push_back(Output::Event(Event::HandoverAbandoned { handover }));
        }
        let is_moving = is_mine && word.tenure.state.is_moving() && word.drain.is_none();
        if is_moving && now >= word.progress.began + settings.operation_max {
            let reason = match (word.is_heard_since(now - settings.quiet()), word.progress.failures) {
                (false, _) => UndoReason::NotHeard,
                (true, 0) => UndoReason::NotClose,
                (true, _) => UndoReason::NotConfirmed,
            };
            let to = undone(&word.tenure, reason);
            self.tell_change(&word.tenure, &to);
            word.tenure = to;
        } else if is_moving && self.is_able && self.is_word_ready(now, &word) {
            let handover = self.next_handover();
            word.drain = Some(Drain { handover, since: now });
            self.outputs.push_back(Output::Event(Event::HandoverBegan { handover }));
        }
        State::Word(word)
    }

    fn is_word_ready(&self, now: Instant, word: &Word) -> bool {
        word.progress.is_due(now) && word.is_heard_since(now - self.settings.quiet()) && now >= word.from
    }

    /// The drained handover that began since it was told last.
    pub(super) fn untold_drain(&self) -> Option<HandoverId> {
        match &self.state {
            State::Word(word) => word.drain.map(|drain| drain.handover),
            State::Leaving(departure) => {
                departure.handover.filter(|_| matches!(departure.phase, super::state::Phase::Draining))
            }
            State::Learning | State::Watching(_) | State::TakingOver(_) | State::Owning(_) => None,
        }
        .filter(|&handover| Some(handover) > self.told_handover)
    }

    /// The other pool holds everything: it is the owner from here on, and hears it next.
    pub(super) fn word_confirmed(&mut self, now: Instant, mut word: Word, handover: HandoverId) -> State {
        if word.drain.is_some_and(|drain| drain.handover == handover) {
            word.drain = None;
            let to = self.successor(&word.tenure);
            self.tell_change(&word.tenure, &to);
            self.next_round = Some(now);
            word.tenure = to;
        }
        State::Word(word)
    }

    /// Carries out an order that nothing stands in the way of; returns the state that it leads to.
    pub(super) fn word_ordered(&mut self, now: Instant, from: Tenure, order: Order) -> PoolState {
        let kind = order.kind;
        let order = Some(order);
        let to = match kind {
            OrderKind::Failover | OrderKind::Switchover => {
                Tenure { state: PoolState::FailingOver, order, undone: None, ..from }
            }
            OrderKind::Failback => Tenure { state: PoolState::FailingBack, order, undone: None, ..from },
            OrderKind::Disaster | OrderKind::DisasterFailback => {
                let owner = self.parties.me.clone();
                let state = if self.parties.is_home() { PoolState::Active } else { PoolState::FailedOver };
                Tenure { order, ..Tenure::new(owner, from.epoch.next(), state) }
            }
        };
        let state = to.state;
        self.word_changed(now, to);
        state
    }

    /// The tenure changes by this pool's own decision.
    pub(super) fn word_changed(&mut self, now: Instant, to: Tenure) {
        let State::Word(word) = &mut self.state else { return };
        let before = std::mem::replace(&mut word.tenure, to.clone());
        word.progress = Progress::new(now);
        word.drain = None;
        word.from = word.from.min(now);
        self.next_round = Some(now);
        self.tell_change(&before, &to);
    }

    /// The other pool says who owns. A higher epoch counts; about its own epoch only an owner is believed.
    pub(super) fn word_learnt(&mut self, now: Instant, tenure: &Tenure) {
        let (me, interval) = (self.parties.me.clone(), self.settings.interval());
        let State::Word(word) = &mut self.state else { return };
        let is_higher = word.tenure.epoch < tenure.epoch;
        let is_news_of_owner = word.tenure.epoch == tenure.epoch && word.tenure.owner != me;
        if *tenure == word.tenure || !(is_higher || is_news_of_owner) {
            return;
        }
        let before = std::mem::replace(&mut word.tenure, tenure.clone());
        if is_higher {
            word.drain = None;
            word.progress = Progress::new(now);
            word.from = now;
            let is_mine = tenure.owner == me;
            self.next_round = if is_mine { Some(now) } else { self.next_round.or(Some(now + interval)) };
        }
        self.tell_change(&before, tenure);
    }
}

/// The tenure when the operation under way ends where it began.
fn undone(tenure: &Tenure, reason: UndoReason) -> Tenure {
    let state = match tenure.state {
        PoolState::FailingOver => PoolState::Active,
        PoolState::FailingBack => PoolState::FailedOver,
        state @ (PoolState::Active | PoolState::TakenOver | PoolState::FailedOver) => state,
    };
    Tenure { state, undone: Some(reason), ..tenure.clone() }
}
