//! How an owner hands the users to the other pool: by operation, drained, or by the automatic return.

use model::Instant;

use super::{
    Ownership,
    state::{Departure, Phase, State, Tenancy},
};
use crate::{Event, HandoverId, Output, Planted, PoolState, Tenure, UndoReason};

impl Ownership {
    /// The tenure that follows when this owner hands over.
    pub(super) fn successor(&self, tenure: &Tenure) -> Tenure {
        let (owner, state) = if self.parties.is_home() {
            (self.parties.other.clone(), PoolState::FailedOver)
        } else {
            (self.parties.home.clone(), PoolState::Active)
        };
        let order = tenure.order.clone().filter(|_| tenure.state.is_moving());
        Tenure { order, ..Tenure::new(owner, tenure.epoch.next(), state) }
    }

    /// Whether the operation under way can take its last step now. Both promises in hand: what is heard
    /// steadily is likely to answer within the stop.
    pub(super) fn is_handover_ready(&self, now: Instant, tenancy: &Tenancy) -> bool {
        tenancy.tenure.state.is_moving()
            && self.wish.is_none()
            && self.is_able
            && !tenancy.is_doubtful
            && tenancy.stored.is_some()
            && tenancy.is_well_held(now)
            && tenancy.progress.is_due(now)
            && self.is_free(now, tenancy)
    }

    /// Stops serving and has the rest sent to the other pool.
    pub(super) fn begin_handover(&mut self, now: Instant, mut tenancy: Tenancy) -> State {
        tenancy.homecoming = None;
        let handover = self.next_handover();
        self.outputs.push_back(Output::Event(Event::HandoverBegan { handover }));
        let departure = Departure { tenancy, since: now, handover: Some(handover), phase: Phase::Draining };
        if self.settings.planted == Planted::SwapsUndrained {
            return self.begin_swapping(now, departure);
        }
        State::Leaving(departure)
    }

    pub(super) fn next_handover(&mut self) -> HandoverId {
        self.last_handover += 1;
        HandoverId(self.last_handover)
    }

    /// From here on this pool does not serve under its epoch before a promise that begins later.
    pub(super) fn begin_swapping(&mut self, now: Instant, mut departure: Departure) -> State {
        if self.settings.planted != Planted::HandsOverServing {
            departure.tenancy.void_leases();
        }
        departure.phase = Phase::Swapping { began: now };
        self.next_round = Some(now);
        State::Leaving(departure)
    }

    pub(super) fn handover_finished(&mut self, now: Instant, handover: HandoverId) {
        self.state = match std::mem::replace(&mut self.state, State::Learning) {
            State::Leaving(departure)
                if departure.handover == Some(handover) && matches!(departure.phase, Phase::Draining) =>
            {
                self.begin_swapping(now, departure)
            }
            State::Word(word) => self.word_confirmed(now, word, handover),
            unchanged @ (State::Learning
            | State::Watching(_)
            | State::TakingOver(_)
            | State::Owning(_)
            | State::Leaving(_)) => unchanged,
        };
    }

    pub(super) fn handover_failed(&mut self, now: Instant, handover: HandoverId) {
        self.state = match std::mem::replace(&mut self.state, State::Learning) {
            State::Leaving(departure)
                if departure.handover == Some(handover) && matches!(departure.phase, Phase::Draining) =>
            {
                self.end_departure(now, departure)
            }
            State::Word(mut word) => {
                word.abandon(now, Some(handover), &self.settings);
                State::Word(word)
            }
            unchanged @ (State::Learning
            | State::Watching(_)
            | State::TakingOver(_)
            | State::Owning(_)
            | State::Leaving(_)) => unchanged,
        };
    }

    /// Time is up, the other pool cannot confirm, or the operation was undone.
    ///
    /// The automatic return goes on without a confirmation: documents were read-only, so what was not copied
    /// are bindings, which phones renew, and call records, which are merged later.
    pub(super) fn end_departure(&mut self, now: Instant, departure: Departure) -> State {
        let is_return = departure.tenancy.tenure.state == PoolState::TakenOver;
        match departure.phase {
            Phase::Draining if is_return => self.begin_swapping(now, departure),
            Phase::Draining => self.abandon_handover(now, departure),
            Phase::Swapping { .. } => self.abandon_swap(now, departure),
        }
    }

    /// Nothing was asked of the witness yet: leases in hand are as good as before.
    fn abandon_handover(&mut self, now: Instant, departure: Departure) -> State {
        let mut tenancy = departure.tenancy;
        tenancy.progress.failed(now, self.settings.ttl);
        self.next_round = Some(now);
        self.tell_abandoned(departure.handover, &tenancy);
        State::Owning(tenancy)
    }

    /// The request may still reach the witness. A compare-and-set of this pool that succeeds from here on
    /// makes that impossible; a promise from here on binds the other pool even if it happens. Until the
    /// former, documents are read-only: one written now would be missing there.
    fn abandon_swap(&mut self, now: Instant, departure: Departure) -> State {
        let mut tenancy = departure.tenancy;
        tenancy.valid_from = now;
        tenancy.is_doubtful = true;
        tenancy.progress.failed(now, self.settings.ttl);
        self.next_round = Some(now);
        self.tell_abandoned(departure.handover, &tenancy);
        State::Owning(tenancy)
    }

    fn tell_abandoned(&mut self, handover: Option<HandoverId>, tenancy: &Tenancy) {
        let event = match handover {
            Some(handover) if tenancy.tenure.state != PoolState::TakenOver => {
                Event::HandoverAbandoned { handover }
            }
            Some(_) | None => Event::ReturnAbandoned { epoch: tenancy.tenure.epoch.next() },
        };
        self.outputs.push_back(Output::Event(event));
    }

    /// Why an operation is undone whose time is up.
    pub(super) fn undo_reason(&self, now: Instant, tenancy: &Tenancy) -> UndoReason {
        if !tenancy.has_partner(now) {
            UndoReason::NotHeard
        } else if tenancy.progress.failures > 0 {
            UndoReason::NotConfirmed
        } else if tenancy.progress.is_close {
            UndoReason::NotHeard
        } else {
            UndoReason::NotClose
        }
    }

    pub(super) fn report_progress(&mut self, is_close: bool) {
        match &mut self.state {
            State::Owning(tenancy) | State::Leaving(Departure { tenancy, .. }) => {
                tenancy.progress.is_close = is_close;
            }
            State::Word(word) => word.progress.is_close = is_close,
            State::Learning | State::Watching(_) | State::TakingOver(_) => {}
        }
    }
}
