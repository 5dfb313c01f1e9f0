//! The world: true time, the queue of what happens next, the parties and the network.

use std::{collections::BTreeMap, time::Duration};

use model::{Chance, Machine, PoolName};
use pairing::{CallId, Event, Input, Output, Ownership, Parties, PromiseAnswer, PromiseRequest, RequestId};

use crate::{
    clock::{Clock, Moment},
    faults::Fault,
    judge::{Judge, Limits, Violation},
    network::{Network, Party, Side, Weather, between, hits},
    process::{Arrival, Pool, Process},
    scenario::{Peace, Scenario, settle},
    witness::{Question, Reply, Witness},
};

/// How often the planted background loop looks at its deadline.
const LOOP_INTERVAL: Duration = Duration::from_millis(500);

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Fault(Fault),
    ToWitness {
        from: Side,
        incarnation: u64,
        request: RequestId,
        question: Question,
    },
    FromWitness {
        to: Side,
        incarnation: u64,
        request: RequestId,
        reply: Reply,
    },
    ToPartner {
        from: Side,
        incarnation: u64,
        request: RequestId,
        body: PromiseRequest,
    },
    FromPartner {
        to: Side,
        incarnation: u64,
        request: RequestId,
        answer: PromiseAnswer,
    },
    /// A driver stops waiting for an answer.
    Failed {
        side: Side,
        incarnation: u64,
        input: Input,
    },
    /// A process goes on after a pause or stall, or wakes for a deadline.
    Continue,
    /// The planted background loop has its turn.
    Loop {
        side: Side,
        incarnation: u64,
    },
}

/// Everything of one run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Moment,
    pub(crate) chance: Chance,
    pub(crate) network: Network,
    pub(crate) judge: Judge,
    pub(crate) is_witness_up: bool,
    pub(crate) is_at_peace: bool,
    pub(crate) loses_disks: bool,
    asks_loop: bool,
    is_traced: bool,
    patience: Duration,
    peace: Peace,
    limits: Limits,
    home: Pool,
    partner: Pool,
    witness: Witness,
    order: u64,
    steps: BTreeMap<(Moment, u64), Step>,
}

impl World {
    pub(crate) fn new(scenario: &Scenario, chance: Chance, asks_loop: bool, is_traced: bool) -> Option<Self> {
        let (east, west) = (PoolName::new("east").ok()?, PoolName::new("west").ok()?);
        let pool = |parties| Pool {
            parties,
            settings: scenario.settings,
            incarnation: 0,
            remembered: None,
            process: None,
        };
        let change = if scenario.peace == Peace::All { Duration::from_secs(2) } else { Duration::ZERO };
        let mut world = Self {
            now: Moment::default(),
            chance,
            network: Network::new(scenario.weather),
            judge: Judge::default(),
            is_witness_up: true,
            is_at_peace: false,
            loses_disks: scenario.loses_disks,
            asks_loop,
            is_traced,
            patience: scenario.patience,
            peace: scenario.peace,
            limits: Limits { settle: settle(&scenario.settings), change },
            home: pool(Parties::at_home(east.clone(), west.clone())),
            partner: pool(Parties::at_partner(east, west)),
            witness: Witness::default(),
            order: 0,
            steps: BTreeMap::new(),
        };
        for (at, fault) in &scenario.faults {
            world.schedule(*at, Step::Fault(fault.clone()));
        }
        for side in Side::BOTH {
            let at =
                Moment::default().after(between(&mut world.chance, Duration::ZERO, Duration::from_secs(2)));
            world.schedule(at, Step::Fault(Fault::Start(side)));
        }
        Some(world)
    }

    pub(crate) const fn pool(&self, side: Side) -> &Pool {
        match side {
            Side::Home => &self.home,
            Side::Partner => &self.partner,
        }
    }

    pub(crate) const fn pool_mut(&mut self, side: Side) -> &mut Pool {
        match side {
            Side::Home => &mut self.home,
            Side::Partner => &mut self.partner,
        }
    }

    pub(crate) fn witness(&self) -> &Witness {
        &self.witness
    }

    pub(crate) fn tell(&self, text: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{} {}", self.now, text());
        }
    }

    pub(crate) fn schedule(&mut self, at: Moment, step: Step) {
        self.order += 1;
        self.steps.insert((at, self.order), step);
    }

    /// Lets the next thing happen; `false` when it would be after `end`.
    pub(crate) fn step(&mut self, end: Moment) -> bool {
        let Some(((at, _), step)) = self.steps.pop_first().filter(|((at, _), _)| *at <= end) else {
            return false;
        };
        self.now = at;
        self.take(step);
        for side in Side::BOTH {
            self.run(side);
        }
        let answerable =
            |pool: &Pool| pool.process.as_ref().and_then(|process| process.answerable(at, self.asks_loop));
        self.judge.look(at, answerable(&self.home), answerable(&self.partner), self.limits);
        true
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Fault(fault) => self.strike(fault),
            Step::ToWitness { from, incarnation, request, question } => {
                if self.is_witness_up {
                    let reply = self.witness.answer(question);
                    let back = Step::FromWitness { to: from, incarnation, request, reply };
                    self.send(Party::Witness, from.party(), &back);
                }
            }
            Step::FromWitness { to, incarnation, request, reply } => {
                let input = match reply {
                    Reply::Found(found) => Input::RecordRead { request, found },
                    Reply::Swapped(version) => Input::Swapped { request, version },
                    Reply::Refused(found) => {
                        // Some control stores do not say what they hold.
                        let found = found.filter(|_| hits(&mut self.chance, 500));
                        Input::SwapRefused { request, found }
                    }
                };
                self.arrive(to, Some(incarnation), Arrival::Input(input));
            }
            Step::ToPartner { from, incarnation, request, body } => {
                self.arrive(from.other(), None, Arrival::Asked(body, incarnation, request));
            }
            Step::FromPartner { to, incarnation, request, answer } => {
                self.arrive(
                    to,
                    Some(incarnation),
                    Arrival::Input(Input::PartnerAnswered { request, answer }),
                );
            }
            Step::Failed { side, incarnation, input } => {
                self.arrive(side, Some(incarnation), Arrival::Input(input));
            }
            Step::Continue => {} // every step lets both processes run
            Step::Loop { side, incarnation } => self.turn_loop(side, incarnation),
        }
    }

    fn arrive(&mut self, side: Side, incarnation: Option<u64>, arrival: Arrival) {
        let pool = self.pool_mut(side);
        if incarnation.is_none_or(|incarnation| incarnation == pool.incarnation)
            && let Some(process) = &mut pool.process
        {
            process.inbox.push_back(arrival);
        }
    }

    fn send(&mut self, from: Party, to: Party, step: &Step) {
        for delay in self.network.delays(&mut self.chance, from, to) {
            self.schedule(self.now.after(delay), step.clone());
        }
    }

    pub(crate) fn start(&mut self, side: Side) {
        let rate = match self.chance.below(4) {
            0 => 990_000,
            1 => 1_010_000,
            _ => 990_000 + self.chance.below(20_001),
        };
        let now = self.now;
        let pool = self.pool_mut(side);
        if pool.process.is_some() {
            return;
        }
        pool.incarnation += 1;
        let incarnation = pool.incarnation;
        pool.process = Some(Process::start(pool, Clock::new(now, rate), now));
        if self.asks_loop {
            self.schedule(now, Step::Loop { side, incarnation });
        }
    }

    fn turn_loop(&mut self, side: Side, incarnation: u64) {
        let now = self.now;
        let pool = self.pool_mut(side);
        if pool.incarnation == incarnation
            && let Some(process) = &mut pool.process
        {
            if now >= process.paused_until {
                process.refresh_loop(now);
            }
            self.schedule(now.after(LOOP_INTERVAL), Step::Loop { side, incarnation });
        }
    }

    pub(crate) fn change_ability(&mut self, side: Side, is_able: bool) {
        self.arrive(side, None, Arrival::Input(Input::AbilityChanged { is_able }));
    }

    /// Lets the driver of a pool do what it can do at this moment.
    fn run(&mut self, side: Side) {
        loop {
            let moment = self.now;
            let Some(process) = &mut self.pool_mut(side).process else { return };
            if process.held_until(moment).is_some() {
                return; // a step is scheduled for its end
            }
            let now = process.clock.read(moment);
            if let Some(output) = process.work.pop_front() {
                self.execute(side, output);
                if !self.is_at_peace && hits(&mut self.chance, 3) {
                    let lasts = between(&mut self.chance, Duration::ZERO, Duration::from_secs(4));
                    self.strike(Fault::Stall { side, lasts });
                }
                continue;
            }
            if let Some(arrival) = process.inbox.pop_front() {
                let input = match arrival {
                    Arrival::Input(input) => input,
                    Arrival::Asked(body, incarnation, request) => {
                        process.last_call += 1;
                        let call = CallId(process.last_call);
                        process.calls.insert(call, (incarnation, request));
                        Input::PromiseAsked { call, body }
                    }
                };
                if let Err(error) = process.machine.handle(now, input) {
                    self.judge.fail(Violation::InputRefused { at: moment, reason: error.to_string() });
                }
            } else if process.is_due(now) {
                process.machine.handle_timeout(now);
            } else {
                return self.schedule_wake(side);
            }
            if let Some(Process { machine, work, .. }) = &mut self.pool_mut(side).process {
                work.extend(std::iter::from_fn(|| machine.poll_output()));
            }
        }
    }

    fn schedule_wake(&mut self, side: Side) {
        let now = self.now;
        let lateness = between(&mut self.chance, Duration::ZERO, Duration::from_millis(4));
        let Some(process) = &mut self.pool_mut(side).process else { return };
        let Some(at) = process.machine.poll_timeout() else { return };
        let at = process.clock.moment_of(at).after(lateness).max(now.after(Duration::from_micros(1)));
        if process.wake_at.is_none_or(|wake_at| wake_at <= now || at < wake_at) {
            process.wake_at = Some(at);
            self.schedule(at, Step::Continue);
        }
    }

    fn execute(&mut self, side: Side, output: Output) {
        let incarnation = self.pool(side).incarnation;
        match output {
            Output::Read { request } => self.ask_witness(side, request, Question::Read),
            Output::CompareAndSet { request, expected, record } => {
                self.tell(|| format!("{side:<7} compare and set {expected:?} {record:?}"));
                self.ask_witness(side, request, Question::CompareAndSet { expected, record });
            }
            Output::AskPartner { request, body } => {
                let step = Step::ToPartner { from: side, incarnation, request, body };
                self.send(side.party(), side.other().party(), &step);
                self.await_answer(side, Input::PartnerFailed { request });
            }
            Output::Answer { call, body } => {
                self.tell(|| format!("{side:<7} answers {body:?}"));
                let process = self.pool_mut(side).process.as_mut();
                if let Some((incarnation, request)) = process.and_then(|process| process.calls.remove(&call))
                {
                    let step = Step::FromPartner { to: side.other(), incarnation, request, answer: body };
                    self.send(side.party(), side.other().party(), &step);
                }
            }
            Output::Authority(authority) => {
                self.tell(|| format!("{side:<7} {authority:?}"));
                if let Some(process) = &mut self.pool_mut(side).process {
                    process.put_in_force(authority);
                }
            }
            Output::Remember(tenure) => self.pool_mut(side).remembered = Some(tenure),
            Output::FinishHandover { .. } | Output::OrderAnswer { .. } => {}
            Output::Event(event) => self.note(side, &event),
        }
    }

    fn ask_witness(&mut self, side: Side, request: RequestId, question: Question) {
        let incarnation = self.pool(side).incarnation;
        let step = Step::ToWitness { from: side, incarnation, request, question };
        self.send(side.party(), Party::Witness, &step);
        self.await_answer(side, Input::WitnessFailed { request });
    }

    fn await_answer(&mut self, side: Side, input: Input) {
        let incarnation = self.pool(side).incarnation;
        self.schedule(self.now.after(self.patience), Step::Failed { side, incarnation, input });
    }

    fn note(&mut self, side: Side, event: &Event) {
        self.tell(|| format!("{side:<7} event {event:?}"));
        let outcome = &mut self.judge.outcome;
        match event {
            Event::TakeoverBegan { .. } => outcome.takeovers_begun += 1,
            Event::TakeoverAbandoned { .. } => outcome.takeovers_abandoned += 1,
            Event::ReturnBegan { .. } => outcome.returns_begun += 1,
            Event::ReturnAbandoned { .. } => outcome.returns_abandoned += 1,
            Event::OwnerKnown(_)
            | Event::ServingBegan { .. }
            | Event::ServingEnded { .. }
            | Event::OperationBegan(_)
            | Event::OperationCompleted(_)
            | Event::OperationUndone { .. }
            | Event::HandoverBegan { .. }
            | Event::HandoverAbandoned { .. } => return,
            Event::OwnerImpossible(_) | Event::WitnessBehind { .. } => {
                let reason = format!("{event:?}"); // nobody harms the witness here
                return self.judge.fail(Violation::InputRefused { at: self.now, reason });
            }
        }
        self.strike_at_worst(side);
    }

    /// Ends the faults: two or all of the parties are up, able and connected, and stay so.
    pub(crate) fn make_peace(&mut self) {
        self.is_at_peace = true;
        self.network.weather = Weather::FINE;
        self.network.heal_all();
        self.is_witness_up = true;
        let now = self.now;
        for side in Side::BOTH {
            self.start(side);
            if let Some(process) = &mut self.pool_mut(side).process {
                process.paused_until = process.paused_until.min(now);
                process.stalled_until = process.stalled_until.min(now);
            }
            self.change_ability(side, true);
        }
        match self.peace {
            Peace::All => {}
            Peace::WithoutWitness => self.network.isolate(Party::Witness),
            Peace::WithoutHome => self.network.isolate(Party::Home),
            Peace::WithoutPartner => self.network.isolate(Party::Partner),
        }
        if !self.is_hopeless() {
            self.judge.begin_peace(now);
        }
    }

    /// Nobody knows an owner, and whoever could find out or create the first record cannot.
    fn is_hopeless(&self) -> bool {
        let knows = |side: &Side| {
            let process = self.pool(*side).process.as_ref();
            process.is_some_and(|process| process.machine.known().is_some())
        };
        let can_learn = match self.peace {
            Peace::All | Peace::WithoutPartner => true,
            Peace::WithoutWitness => false,
            Peace::WithoutHome => self.witness.stored().is_some(),
        };
        !can_learn && !Side::BOTH.iter().any(knows)
    }

    /// Whether the home pool may serve now.
    pub(crate) fn is_at_home(&self) -> bool {
        let machine: Option<&Ownership> = self.home.process.as_ref().map(|process| &process.machine);
        let now = self.home.process.as_ref().map(|process| process.clock.read(self.now));
        machine.zip(now).is_some_and(|(machine, now)| machine.authority(now).is_some())
    }
}
