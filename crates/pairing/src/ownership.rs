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
//! A pool without partner, or a pair without witness at its home pool, is `Static`: it owns for ever.

mod bound;
mod partner;
#[cfg(test)]
mod properties;
mod requests;
mod state;
#[cfg(test)]
mod tests;
mod witness;

use std::collections::VecDeque;

use model::{Epoch, Instant, Machine, PoolName};

use crate::{
    Ask, Authority, Contact, Event, Input, Output, OwnershipError, OwnershipRecord, Parties, Planted,
    PoolState, PromiseRequest, Service, Settings, Standing, Tenure,
};
use bound::Bound;
use requests::{Kind, Requests};
use state::{Attempt, Departure, State, Tenancy, Watch};

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

    /// A machine that may always serve: a pool without partner, or the home pool of a pair without witness.
    ///
    /// `has_witness`: the ownership record is read once, for the epoch; serving does not wait for it.
    pub fn alone(
        home: PoolName,
        settings: Settings,
        now: Instant,
        remembered: Option<Tenure>,
        has_witness: bool,
    ) -> Self {
        let epoch = remembered.map_or(Epoch::ZERO, |tenure| tenure.epoch);
        let tenure = Tenure { owner: home.clone(), epoch, state: PoolState::Active };
        let authority = Some(Authority { epoch, until: Instant::NEVER_ENDS, service: Service::Full });
        let state = State::Static { authority, tenure, must_read: has_witness };
        let mut machine =
            Self::new(Parties::at_home(home.clone(), home), settings, now, state, Bound::by_nothing());
        machine.next_round = has_witness.then_some(now);
        machine.announce(now);
        machine
    }

    /// A machine that never serves: the partner in a pair without witness, where only a command takes over.
    pub fn onlooker(parties: Parties, settings: Settings, now: Instant, remembered: Option<Tenure>) -> Self {
        let epoch = remembered.map_or(Epoch::ZERO, |tenure| tenure.epoch);
        let tenure = Tenure { owner: parties.home.clone(), epoch, state: PoolState::Active };
        let state = State::Static { authority: None, tenure, must_read: false };
        Self::new(parties, settings, now, state, Bound::by_nothing())
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
            State::Static { tenure, .. } => Some(tenure),
            State::Watching(watch) | State::TakingOver(Attempt { watch, .. }) => Some(&watch.tenure),
            State::Owning(tenancy) | State::Leaving(Departure { tenancy, .. }) => Some(&tenancy.tenure),
        }
    }

    /// What this pool knows and may do at `now`; what [`crate::decide_register`] needs.
    pub fn standing(&self, now: Instant) -> Standing {
        match &self.state {
            State::Learning => Standing::Unknown,
            State::Static { authority: None, tenure, .. } => {
                Standing::Elsewhere { tenure: tenure.clone(), contact: Contact::Beating }
            }
            State::Watching(watch) | State::TakingOver(Attempt { watch, .. }) => {
                Standing::Elsewhere { tenure: watch.tenure.clone(), contact: self.contact(now, watch) }
            }
            State::Static { tenure, .. }
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
            State::Static { authority, .. } => return authority.filter(|_| self.is_able),
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
        let authority = Authority { epoch: tenancy.tenure.epoch, until, service: tenancy.service() };
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
        } else if watch.is_beating_since(oldest) {
            Contact::Beating
        } else {
            let due = self.takeover_due(watch).filter(|_| watch.is_read_since(oldest));
            Contact::Silent { takeover_in: due.map(|due| due.saturating_since(now)) }
        }
    }

    fn takeover_due(&self, watch: &Watch) -> Option<Instant> {
        if !self.settings.is_automatic || !self.is_able {
            return None;
        }
        let silent_at = watch.silent_at(self.settings.silence(), self.settings.wait())?;
        Some(silent_at.max(self.bound.until()))
    }

    fn is_possible(&self, owner: &PoolName) -> bool {
        *owner == self.parties.me || *owner == self.parties.other
    }

    fn own_tenure(&self, epoch: Epoch) -> Tenure {
        let state = if self.parties.is_home() { PoolState::Active } else { PoolState::TakenOver };
        Tenure { owner: self.parties.me.clone(), epoch, state }
    }

    /// Takes note of a tenure if it is later than the known one.
    fn learn(&mut self, now: Instant, tenure: &Tenure) {
        let is_news = self.known().is_none_or(|known| known.epoch < tenure.epoch);
        if is_news && !matches!(self.state, State::Static { .. }) {
            self.state = self.begin_tenure(now, tenure.clone());
        }
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
            State::TakingOver(attempt) if now >= attempt.began + self.settings.patience() => {
                self.abandon_takeover(attempt)
            }
            State::Leaving(departure) if now >= departure.since + self.settings.patience() => {
                self.abandon_return(now, departure)
            }
            State::Watching(watch) if self.is_takeover_ready(now, &watch) => self.begin_takeover(now, watch),
            State::Owning(tenancy) if self.is_return_ready(now, &tenancy) => self.begin_return(now, tenancy),
            unchanged @ (State::Static { .. }
            | State::Learning
            | State::Watching(_)
            | State::TakingOver(_)
            | State::Owning(_)
            | State::Leaving(_)) => unchanged,
        };
        self.announce(now); // an ended authority is told before the requests of the round
        if self.next_round.is_some_and(|at| now >= at) {
            self.next_round = Some(now + self.settings.interval());
            self.begin_round(now);
        }
    }

    fn is_takeover_ready(&self, now: Instant, watch: &Watch) -> bool {
        watch.is_read_since(now - self.settings.quiet())
            && self.takeover_due(watch).is_some_and(|due| now >= due)
    }

    fn begin_takeover(&mut self, now: Instant, watch: Watch) -> State {
        let record = OwnershipRecord::first_of(self.own_tenure(watch.tenure.epoch.next()));
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
        if tenancy.stored.is_none() || now.saturating_since(homecoming.last) > self.settings.patience() {
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
            | Planted::GrantsTakingOver => tenancy.is_well_held(now),
        };
        !self.is_able || (is_held && is_well_held)
    }

    /// From here on this pool does not serve under its epoch before a promise that begins later.
    fn begin_return(&mut self, now: Instant, mut tenancy: Tenancy) -> State {
        if self.settings.planted != Planted::HandsOverServing {
            (tenancy.witness_until, tenancy.partner_until) = (None, None);
        }
        tenancy.homecoming = None;
        self.next_round = Some(now);
        self.outputs.push_back(Output::Event(Event::ReturnBegan { epoch: tenancy.tenure.epoch.next() }));
        State::Leaving(Departure { tenancy, since: now })
    }

    /// The request may still reach the witness. A compare-and-set of this pool that succeeds from here on
    /// makes that impossible; a promise from here on binds the home pool even if it happens.
    fn abandon_return(&mut self, now: Instant, departure: Departure) -> State {
        let mut tenancy = departure.tenancy;
        tenancy.valid_from = now;
        self.next_round = Some(now);
        self.outputs.push_back(Output::Event(Event::ReturnAbandoned { epoch: tenancy.tenure.epoch.next() }));
        State::Owning(tenancy)
    }

    fn begin_round(&mut self, now: Instant) {
        match &self.state {
            State::Static { must_read: false, .. } => self.next_round = None,
            State::Static { must_read: true, .. } => self.read(now),
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
            State::Leaving(Departure { tenancy, .. }) => {
                let (epoch, stored) = (tenancy.tenure.epoch, tenancy.stored);
                match stored {
                    Some(stored) => self.hand_over(now, epoch, stored),
                    None => self.read(now),
                }
            }
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
            (tenancy.witness_until, tenancy.partner_until) = (None, None);
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
        let due = match &self.state {
            State::Static { .. } | State::Learning => None,
            State::Watching(watch) => self.takeover_due(watch),
            State::TakingOver(attempt) => Some(attempt.began + patience),
            State::Leaving(departure) => Some(departure.since + patience),
            State::Owning(_) => Some(self.bound.until()),
        };
        let lease_end =
            self.announced.map(|authority| authority.until).filter(|&at| at != Instant::NEVER_ENDS);
        // What was due before and did not happen waits for an input or the next round.
        let later = [due, lease_end].into_iter().flatten().filter(|&at| at > self.latest);
        later.chain(self.next_round).min()
    }
}
