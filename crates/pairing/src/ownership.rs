//! Who may serve a home pool's users: one machine per home pool and pool of the pair.
//!
//! ```text
//!            a record, a promise request or an answer names ...
//!   Learning ──────────── the other pool ───────────► Watching ◄──────────────────┐
//!      │                                               │    ▲                     │
//!      │ this pool                 owner silent, own   │    │ beat moved,         │ a higher epoch
//!      │                           promises aged,      │    │ witness unsure      │ of the other pool,
//!      │                           same beat long      ▼    │                     │ learnt in any way
//!      │                           enough             TakingOver                  │
//!      │                                               │ witness agreed           │
//!      ▼                                               ▼                          │
//!    Owning ◄──────────────────────────────────────── Owning ─────────────────────┤
//!      ▲ not serving until own promises are void or      │                        │
//!      │ aged; then while a lease lasts                  │ home pool stable       │
//!      │                                                 │ for `hold`: stop       │
//!      └──────────── witness unsure ────────────────── Leaving ───────────────────┘
//!                    (serves again with a new lease)        witness agreed
//! ```
//!
//! An operation by command changes the state within the owner's epoch; then `Leaving` is entered when the
//! other pool is close to holding everything, first to drain, then to ask the witness.
//!
//! A pool without partner has no machine. A pair without witness is `Word`: the owner's word
//! is the record.

mod bound;
mod handover;
mod orders;
mod partner;
#[cfg(test)]
mod properties;
mod requests;
mod state;
#[cfg(test)]
mod tests;
mod witness;
mod word;

use std::collections::VecDeque;

use model::{Epoch, Instant, Machine, PoolName};

use crate::{
    Ask, Authority, Contact, Event, HandoverId, Input, Output, OwnershipError, OwnershipRecord, Parties,
    Planted, PoolState, PromiseRequest, Settings, Standing, Tenure, UndoReason,
};
use bound::Bound;
use orders::Wish;
use requests::{Kind, Requests};
use state::{Attempt, Departure, Phase, State, Tenancy, Watch};
use word::Word;

/// The ownership of one home pool, as one pool of its pair sees it.
///
/// Give every input the instant read *after* the input was received, execute the outputs in order, and call
/// [`Machine::handle_timeout`] once after construction. Answers may come late, twice or never.
#[derive(Debug)]
pub struct Ownership {
    parties: Parties,
    settings: Settings,
    state: State,
    bound: Bound,
    is_able: bool,
    requests: Requests,
    /// When what is known about the owner was learnt.
    learnt_at: Instant,
    next_round: Option<Instant>,
    announced: Option<Authority>,
    is_behind_told: bool,
    /// What this pool wants to change, by an order or because an operation took too long.
    wish: Option<Wish>,
    last_handover: u64,
    told_handover: Option<HandoverId>,
    latest: Instant,
    outputs: VecDeque<Output>,
}

impl Ownership {
    /// A machine of a pair with a witness, for a process that starts at `now`.
    ///
    /// `remembered` is the last [`Output::Remember`] of an earlier process, if its disk is still there.
    pub fn paired(parties: Parties, settings: Settings, now: Instant, remembered: Option<Tenure>) -> Self {
        let bound = if settings.planted == Planted::RestartForgets {
            Bound::by_nothing()
        } else {
            Bound::by_earlier_process(now, settings.wait())
        };
        let mut machine = Self::new(parties, settings, now, State::Learning, bound);
        machine.next_round = Some(now);
        if let Some(tenure) = remembered.filter(|tenure| machine.is_possible(&tenure.owner)) {
            machine.state = machine.begin_tenure(now, tenure);
        }
        machine
    }

    /// The machine of either pool of a pair without witness, where only a command moves the users.
    ///
    /// A home pool that starts as owner serves as soon as the partner answered, or after
    /// [`Settings::patience`]: by then it would know if an operator had failed it over meanwhile.
    pub fn unwitnessed(
        parties: Parties,
        settings: Settings,
        now: Instant,
        remembered: Option<Tenure>,
    ) -> Self {
        let is_possible = |tenure: &Tenure| tenure.owner == parties.me || tenure.owner == parties.other;
        let first = || Tenure::new(parties.home.clone(), Epoch::ZERO, PoolState::Active);
        let tenure = remembered.filter(is_possible).unwrap_or_else(first);
        let is_asking = parties.is_home() || tenure.owner == parties.me;
        let state = State::Word(Word::new(tenure, now, now + settings.patience()));
        let mut machine = Self::new(parties, settings, now, state, Bound::by_nothing());
        machine.next_round = is_asking.then_some(now);
        machine
    }

    fn new(parties: Parties, settings: Settings, now: Instant, state: State, bound: Bound) -> Self {
        Self {
            parties,
            settings,
            state,
            bound,
            is_able: true,
            requests: Requests::default(),
            learnt_at: now,
            next_round: None,
            announced: None,
            is_behind_told: false,
            wish: None,
            last_handover: 0,
            told_handover: None,
            latest: now,
            outputs: VecDeque::new(),
        }
    }

    /// Who takes part.
    pub fn parties(&self) -> &Parties {
        &self.parties
    }

    /// Who owns the home pool, as far as this pool knows.
    pub fn known(&self) -> Option<&Tenure> {
        match &self.state {
            State::Learning => None,
            State::Word(word) => Some(&word.tenure),
            State::Watching(watch) | State::TakingOver(Attempt { watch, .. }) => Some(&watch.tenure),
            State::Owning(tenancy) | State::Leaving(Departure { tenancy, .. }) => Some(&tenancy.tenure),
        }
    }

    /// What this pool knows and may do at `now`; what [`crate::decide_register`] needs.
    pub fn standing(&self, now: Instant) -> Standing {
        match &self.state {
            State::Learning => Standing::Unknown,
            State::Word(word) if word.tenure.owner != self.parties.me => {
                let is_heard = word.is_heard_since(now - self.settings.quiet());
                let contact = if is_heard { Contact::Heard } else { Contact::Beating };
                Standing::Elsewhere { tenure: word.tenure.clone(), contact }
            }
            State::Watching(watch) | State::TakingOver(Attempt { watch, .. }) => {
                Standing::Elsewhere { tenure: watch.tenure.clone(), contact: self.contact(now, watch) }
            }
            State::Word(Word { tenure, .. })
            | State::Owning(Tenancy { tenure, .. })
            | State::Leaving(Departure { tenancy: Tenancy { tenure, .. }, .. }) => {
                match self.authority(now) {
                    Some(authority) => Standing::Serving(authority),
                    None => Standing::Paused(tenure.clone()),
                }
            }
        }
    }

    /// The right to serve at `now`, if there is one.
    pub fn authority(&self, now: Instant) -> Option<Authority> {
        let tenancy = match &self.state {
            State::Word(word) => {
                let is_mine = word.tenure.owner == self.parties.me;
                return word.authority(now).filter(|_| is_mine && self.is_able);
            }
            State::Owning(tenancy) => tenancy,
            State::Leaving(departure) if self.settings.planted == Planted::HandsOverServing => {
                &departure.tenancy
            }
            State::Learning | State::Watching(_) | State::TakingOver(_) | State::Leaving(_) => return None,
        };
        let mut until = tenancy.lease_until()?;
        if self.settings.planted == Planted::NoFence {
            until = Instant::NEVER_ENDS;
        }
        let service = tenancy.service(self.settings.planted);
        let authority = Authority { epoch: tenancy.tenure.epoch, until, service };
        (self.is_able && authority.holds_at(now) && self.is_free(now, tenancy)).then_some(authority)
    }

    /// Whether no promise given to the other pool forbids serving under this tenure.
    fn is_free(&self, now: Instant, tenancy: &Tenancy) -> bool {
        // Before the first epoch there was none to give promises for.
        tenancy.tenure.epoch == Epoch::ZERO || now >= self.bound.until()
    }

    fn contact(&self, now: Instant, watch: &Watch) -> Contact {
        let oldest = now - self.settings.quiet();
        // Before the owner could have been heard at all, the best guess is that it is there: a phone that is
        // sent to it finds out at once.
        if watch.is_heard_since(oldest) || watch.is_younger_than(oldest) {
            Contact::Heard
        } else if watch.is_beating_since(oldest, self.settings.quiet()) {
            Contact::Beating
        } else {
            let due = self.takeover_due(watch).filter(|_| watch.is_read_since(oldest));
            Contact::Silent { takeover_in: due.map(|due| due.saturating_since(now)) }
        }
    }

    fn takeover_due(&self, watch: &Watch) -> Option<Instant> {
        let (wait, is_ordered) = (self.settings.wait(), self.takeover_order().is_some());
        if !(self.settings.is_automatic || is_ordered) || !self.is_able {
            return None;
        }
        let silence = if is_ordered { wait } else { self.settings.silence() };
        let silent_at = watch.silent_at(silence, wait)?;
        Some(silent_at.max(self.bound.until()))
    }

    fn is_possible(&self, owner: &PoolName) -> bool {
        *owner == self.parties.me || *owner == self.parties.other
    }

    fn own_tenure(&self, epoch: Epoch) -> Tenure {
        let state = if self.parties.is_home() { PoolState::Active } else { PoolState::TakenOver };
        Tenure::new(self.parties.me.clone(), epoch, state)
    }

    /// The tenure that this pool's takeover of `before` leads to.
    ///
    /// An operation under way towards this pool is completed by it; so is the order that asked for it.
    fn taken_tenure(&self, before: &Tenure) -> Tenure {
        let mut taken = self.own_tenure(before.epoch.next());
        let is_towards_me = if self.parties.is_home() {
            before.state == PoolState::FailingBack
        } else {
            before.state == PoolState::FailingOver
        };
        taken.order = if is_towards_me { before.order.clone() } else { self.takeover_order().cloned() };
        if !self.parties.is_home() && (is_towards_me || taken.order.is_some()) {
            taken.state = PoolState::FailedOver;
        }
        taken
    }

    /// Takes note of a tenure if it is later than the known one.
    fn learn(&mut self, now: Instant, tenure: &Tenure) {
        match self.state {
            State::Word(_) => return self.word_learnt(now, tenure),
            State::Learning
            | State::Watching(_)
            | State::TakingOver(_)
            | State::Owning(_)
            | State::Leaving(_) => {}
        }
        if self.known().is_none_or(|known| known.epoch < tenure.epoch) {
            let before = self.known().cloned();
            self.state = self.begin_tenure(now, tenure.clone());
            if let Some(before) = before {
                self.tell_operation(&before, tenure);
            }
        }
    }

    /// The other pool says who owns.
    fn learn_by_word(&mut self, now: Instant, tenure: &Tenure) {
        let epoch = self.known().map(|known| known.epoch);
        self.learn(now, tenure);
        if let State::Owning(tenancy) = &mut self.state
            && epoch.is_none_or(|epoch| epoch < tenancy.tenure.epoch)
        {
            // An earlier process of this pool, whose disk is lost, may have got further than the other knows.
            tenancy.is_doubtful = true;
        }
    }

    /// The owner's tenure changed within its epoch, or the owner changed by its word.
    fn tell_change(&mut self, before: &Tenure, after: &Tenure) {
        self.outputs.push_back(Output::Remember(after.clone()));
        if before.epoch != after.epoch {
            self.outputs.push_back(Output::Event(Event::OwnerKnown(after.clone())));
        }
        self.tell_operation(before, after);
    }

    fn tell_operation(&mut self, before: &Tenure, after: &Tenure) {
        let Some(order) = after.order.clone() else { return };
        let is_new = before.order != after.order;
        let event = match (after.state.is_moving(), after.undone) {
            (true, _) if is_new || !before.state.is_moving() => Event::OperationBegan(order),
            (false, Some(reason)) if is_new || before.undone.is_none() => {
                Event::OperationUndone { order, reason }
            }
            (false, None) if is_new || before.state.is_moving() => Event::OperationCompleted(order),
            (true, _) | (false, Some(_) | None) => return,
        };
        self.outputs.push_back(Output::Event(event));
    }

    fn begin_tenure(&mut self, now: Instant, tenure: Tenure) -> State {
        self.learnt_at = now;
        self.is_behind_told = false;
        self.next_round = Some(now);
        self.outputs.push_back(Output::Remember(tenure.clone()));
        self.outputs.push_back(Output::Event(Event::OwnerKnown(tenure.clone())));
        if tenure.owner == self.parties.me {
            State::Owning(Tenancy::new(now, tenure, None))
        } else {
            State::Watching(Watch::new(now, tenure))
        }
    }

    /// Lets everything happen that is due, then tells the driver of a changed authority.
    fn advance(&mut self, now: Instant) {
        self.latest = self.latest.max(now);
        self.state = match std::mem::replace(&mut self.state, State::Learning) {
            State::Word(word) => self.advance_word(now, word),
            State::TakingOver(attempt) if now >= attempt.began + self.settings.patience() => {
                self.abandon_takeover(attempt)
            }
            State::Leaving(departure)
                if now >= departure.deadline(&self.settings) || !departure.is_wanted() =>
            {
                self.end_departure(now, departure)
            }
            State::Watching(watch) if self.is_takeover_ready(now, &watch) => self.begin_takeover(now, watch),
            State::Owning(tenancy) if self.is_return_ready(now, &tenancy) => self.begin_return(now, tenancy),
            State::Owning(tenancy) if self.is_handover_ready(now, &tenancy) => {
                self.begin_handover(now, tenancy)
            }
            unchanged @ (State::Learning
            | State::Watching(_)
            | State::TakingOver(_)
            | State::Owning(_)
            | State::Leaving(_)) => unchanged,
        };
        self.undo_if_late(now);
        self.settle_wish(now);
        self.announce(now); // an ended authority is told before the requests of the round
        if let Some(handover) = self.untold_drain() {
            self.told_handover = Some(handover);
            self.outputs.push_back(Output::FinishHandover { handover });
        }
        if self.next_round.is_some_and(|at| now >= at) {
            self.next_round = Some(now + self.settings.interval());
            self.begin_round(now);
        }
    }

    /// An operation whose time is up ends where it began.
    fn undo_if_late(&mut self, now: Instant) {
        let State::Owning(tenancy) = &self.state else { return };
        let is_late = now >= tenancy.progress.began + self.settings.operation_max;
        if is_late && tenancy.tenure.state.is_moving() && self.wish.is_none() && tenancy.stored.is_some() {
            let reason: UndoReason = self.undo_reason(now, tenancy);
            self.begin_undo(now, None, reason);
        }
    }

    fn is_takeover_ready(&self, now: Instant, watch: &Watch) -> bool {
        watch.is_read_since(now - self.settings.quiet())
            && self.takeover_due(watch).is_some_and(|due| now >= due)
    }

    fn begin_takeover(&mut self, now: Instant, watch: Watch) -> State {
        let record = OwnershipRecord::first_of(self.taken_tenure(watch.seen_tenure()));
        self.outputs.push_back(Output::Event(Event::TakeoverBegan { epoch: record.epoch }));
        let request = self.requests.begin(now, Kind::CompareAndSet(record.clone()));
        self.outputs.push_back(Output::CompareAndSet { request, expected: watch.version(), record });
        State::TakingOver(Attempt { watch, request, began: now })
    }

    /// The request may still reach the witness. Promises are given again: should it succeed, this pool
    /// learns of its ownership later and is bound by them.
    fn abandon_takeover(&mut self, attempt: Attempt) -> State {
        let mut watch = attempt.watch;
        watch.doubt();
        self.outputs.push_back(Output::Event(Event::TakeoverAbandoned { epoch: watch.tenure.epoch.next() }));
        State::Watching(watch)
    }

    fn is_return_ready(&self, now: Instant, tenancy: &Tenancy) -> bool {
        let Some(homecoming) = tenancy.homecoming else { return false };
        if self.wish.is_some()
            || tenancy.tenure.state != PoolState::TakenOver
            || tenancy.stored.is_none()
            || now.saturating_since(homecoming.last) > self.settings.patience()
        {
            return false;
        }
        let is_held = homecoming.last.saturating_since(homecoming.since) >= self.settings.hold;
        let is_well_held = match self.settings.planted {
            Planted::HandsOverServing => tenancy.witness_until.is_some_and(|until| now < until),
            Planted::None
            | Planted::NoFence
            | Planted::WaitShortened
            | Planted::LeaseFromAnswer
            | Planted::RestartForgets
            | Planted::GrantsTakingOver
            | Planted::SwapsUndrained
            | Planted::UndoesByForce
            | Planted::CancelsLate
            | Planted::OrdersTwice
            | Planted::WritesInDoubt => tenancy.is_well_held(now),
        };
        !self.is_able || (is_held && is_well_held)
    }

    /// Drains first when the home pool is close to holding everything, else asks the witness at once.
    fn begin_return(&mut self, now: Instant, mut tenancy: Tenancy) -> State {
        tenancy.homecoming = None;
        self.outputs.push_back(Output::Event(Event::ReturnBegan { epoch: tenancy.tenure.epoch.next() }));
        if tenancy.progress.is_close && self.settings.planted != Planted::HandsOverServing {
            let handover = Some(self.next_handover());
            return State::Leaving(Departure { tenancy, since: now, handover, phase: Phase::Draining });
        }
        let phase = Phase::Swapping { began: now };
        self.begin_swapping(now, Departure { tenancy, since: now, handover: None, phase })
    }

    fn begin_round(&mut self, now: Instant) {
        match &self.state {
            State::Word(word) => {
                let known = Some(word.tenure.clone());
                self.ask(now, Kind::Word, Ask::Observe { known });
            }
            State::Learning => {
                self.read(now);
                self.ask(now, Kind::Word, Ask::Observe { known: None });
            }
            State::Watching(watch) => {
                let known = watch.tenure.clone();
                self.read(now);
                if self.parties.is_home() && self.is_able {
                    self.ask(now, Kind::Word, Ask::Return { known });
                } else if self.parties.is_home() {
                    self.ask(now, Kind::Word, Ask::Observe { known: Some(known) });
                }
            }
            State::TakingOver(_) => {}
            State::Owning(tenancy) => {
                let (tenure, stored) = (tenancy.tenure.clone(), tenancy.stored);
                match stored.filter(|_| self.is_able) {
                    Some(stored) => self.beat(now, &tenure, stored),
                    None => self.read(now),
                }
                if self.is_able {
                    self.ask(now, Kind::Promise(tenure.epoch), Ask::Promise { tenure });
                }
            }
            State::Leaving(Departure { phase: Phase::Draining, .. }) => {}
            State::Leaving(Departure { tenancy, .. }) => match tenancy.stored {
                Some(stored) => self.hand_over(now, self.successor(&tenancy.tenure), stored),
                None => self.read(now),
            },
        }
    }

    fn ask(&mut self, now: Instant, kind: Kind, ask: Ask) {
        let request = self.requests.begin(now, kind);
        let body = PromiseRequest { home: self.parties.home.clone(), from: self.parties.me.clone(), ask };
        self.outputs.push_back(Output::AskPartner { request, body });
    }

    /// Tells the driver of a changed authority.
    fn announce(&mut self, now: Instant) {
        let authority = self.authority(now);
        if authority == self.announced {
            return;
        }
        let epoch_before = self.announced.map(|before| before.epoch);
        let epoch = authority.map(|authority| authority.epoch);
        if epoch_before != epoch {
            let ended = epoch_before.map(|epoch| Event::ServingEnded { epoch });
            let began = epoch.map(|epoch| Event::ServingBegan { epoch });
            self.outputs.extend(ended.into_iter().chain(began).map(Output::Event));
        }
        self.announced = authority;
        self.outputs.push_back(Output::Authority(authority));
    }

    fn change_ability(&mut self, now: Instant, is_able: bool) {
        if self.is_able == is_able {
            return;
        }
        self.is_able = is_able;
        if let State::Owning(tenancy) = &mut self.state {
            tenancy.valid_from = now;
            tenancy.void_leases();
            self.next_round = Some(now);
        }
    }
}

impl Machine for Ownership {
    type Input = Input;
    type Output = Output;
    type Error = OwnershipError;

    fn handle(&mut self, now: Instant, input: Input) -> Result<(), OwnershipError> {
        match input {
            Input::RecordRead { request, found } => self.witness_answered(now, request, found, false),
            Input::SwapRefused { request, found } => self.witness_answered(now, request, found, true),
            Input::Swapped { request, version } => self.swapped(now, request, version),
            Input::WitnessFailed { request } => self.witness_failed(request),
            Input::PartnerAnswered { request, answer } => self.partner_answered(now, request, &answer),
            Input::PartnerFailed { .. } => {} // its next request is due anyway; an answer may still come
            Input::PromiseAsked { call, body } => self.promise_asked(now, call, &body)?,
            Input::AbilityChanged { is_able } => self.change_ability(now, is_able),
            Input::Ordered { call, order } => self.ordered(now, call, order),
            Input::CancelOrdered { call, of } => self.cancel_ordered(now, call, of),
            Input::HandoverProgress { is_close } => self.report_progress(is_close),
            Input::HandoverFinished { handover } => self.handover_finished(now, handover),
            Input::HandoverFailed { handover } => self.handover_failed(now, handover),
        }
        self.advance(now);
        Ok(())
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let patience = self.settings.patience();
        let mut due = match &self.state {
            State::Learning => [None; 4],
            State::Word(word) => word.deadlines(&self.settings),
            State::Watching(watch) => [self.takeover_due(watch), None, None, None],
            State::TakingOver(attempt) => [Some(attempt.began + patience), None, None, None],
            State::Leaving(departure) => [Some(departure.deadline(&self.settings)), None, None, None],
            State::Owning(tenancy) if tenancy.tenure.state.is_moving() => {
                let [retry, end] = tenancy.progress.deadlines(&self.settings);
                [Some(self.bound.until()), retry, end, None]
            }
            State::Owning(_) => [Some(self.bound.until()), None, None, None],
        };
        if let [.., last @ None] = &mut due {
            *last = self.wish_deadline();
        }
        let lease_end =
            self.announced.map(|authority| authority.until).filter(|&at| at != Instant::NEVER_ENDS);
        // What was due before and did not happen waits for an input or the next round.
        let later = due.into_iter().chain([lease_end]).flatten().filter(|&at| at > self.latest);
        later.chain(self.next_round).min()
    }
}
