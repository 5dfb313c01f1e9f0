//! Two pairs, one witness, three branches, two operators who err, and users who write all the time.
//!
//! Each pool is one process with two ownership machines, a clock that runs a little fast or slow, and for
//! each home pool of its pair a journal of documents and a set of bindings. First come faults and orders;
//! then peace, in which a sensible operator brings everybody home. What a disk acknowledged must survive all
//! of it.

mod data;
mod driver;
mod faults;
mod judge;
mod letters;
mod operators;
mod pool;
mod users;

use std::{collections::BTreeMap, time::Duration};

use model::{Chance, Epoch, PoolName};
use pairing::{Input, Operator, OwnershipRecord, Parties, Planted, PoolState, RequestId, Settings};

use crate::{
    clock::{Clock, Moment},
    network::{LATE_MAX, Network, Weather, between, hits},
    witness::{Question, Reply, Witness},
};
use faults::Fault;
use judge::Judge;
pub use judge::{Breach, Tally};
use letters::Letter;
use operators::{Given, Operators};
use pool::{POOLS, Place, Pool, Process, partner_of, side_of};
use users::Branch;

/// Which mistake is made on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mistake {
    /// None: how it runs.
    #[default]
    None,
    /// One in the machine.
    Machine(Planted),
    /// Writes under way are committed after the last page was cut.
    FenceForgotten,
    /// A pool that comes back drops what the owner does not know, without offering it.
    FailbackWithoutOrphans,
    /// The partner serves the users of a branch whose rule is `none`.
    BranchFollowsAnyway,
}

/// A run of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FleetVariant {
    /// The mistake.
    pub mistake: Mistake,
    /// By how many seconds every wall clock is stepped at random; must change nothing.
    pub wall_step_s: u64,
}

/// How a run of a fleet ended.
#[derive(Clone, Debug)]
pub struct FleetReport {
    /// What happened.
    pub tally: Tally,
    /// The first broken promise.
    pub breach: Option<Breach>,
}

/// Somebody who sends and receives: a pool, the witness or a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Spot {
    Pool(Place),
    Witness,
    Branch(usize),
}

#[derive(Clone, Debug)]
enum Step {
    Fault(Fault),
    ToWitness {
        from: Place,
        home: Place,
        incarnation: u64,
        request: RequestId,
        question: Question,
    },
    FromWitness {
        to: Place,
        home: Place,
        incarnation: u64,
        request: RequestId,
        reply: Reply,
    },
    Failed {
        at: Place,
        home: Place,
        incarnation: u64,
        input: Input,
    },
    /// A letter between pools or with a branch; `to_incarnation` is set for answers.
    Letter {
        from: Spot,
        incarnation: u64,
        to: Spot,
        to_incarnation: Option<u64>,
        letter: Letter,
    },
    /// A driver looks after its copies.
    Tick {
        place: Place,
        incarnation: u64,
    },
    Wake,
    Write(Place),
    Commit(users::Commit),
    Register(Place),
    CallEnded(usize),
    Operator,
    Given(Given),
    /// A sensible operator looks at a home pool.
    BringHome(Place),
}

/// Everything of one run.
#[derive(Debug)]
pub(crate) struct Fleet {
    now: Moment,
    chance: Chance,
    network: Network<Spot>,
    judge: Judge,
    variant: FleetVariant,
    is_witness_up: bool,
    is_at_peace: bool,
    /// The users stop changing things, so that the copies can be compared.
    is_quiet: bool,
    loses_disks: bool,
    is_memory_lost: bool,
    is_traced: bool,
    settings: Settings,
    settled_at: Moment,
    pools: Vec<Pool>,
    names: Vec<PoolName>,
    witness: Vec<Witness>,
    branches: Vec<Branch>,
    operators: Operators,
    last_operation: u64,
    order: u64,
    steps: BTreeMap<(Moment, u64), Step>,
}

/// Runs one seed of a fleet to its end, or to the first broken promise.
pub fn run_fleet(seed: u64, variant: FleetVariant, is_traced: bool) -> FleetReport {
    let Some((mut fleet, end)) = Fleet::new(seed, variant, is_traced) else {
        return FleetReport { tally: Tally::default(), breach: None };
    };
    while fleet.judge.breach.is_none() && fleet.step(end) {}
    if fleet.judge.breach.is_none() {
        fleet.now = end;
        fleet.look_back();
    }
    FleetReport { tally: fleet.judge.tally, breach: fleet.judge.breach }
}

impl Fleet {
    fn new(seed: u64, variant: FleetVariant, is_traced: bool) -> Option<(Self, Moment)> {
        let mut chance = Chance::seeded(seed ^ 0x5eed_f1ee_7000_0000);
        let planted = if let Mistake::Machine(planted) = variant.mistake { planted } else { Planted::None };
        let settings = Settings {
            ttl: between(&mut chance, Duration::from_secs(4), Duration::from_secs(8)),
            takeover_after: Duration::from_secs(chance.below(10)),
            hold: Duration::from_secs(2 + chance.below(8)),
            operation_max: Duration::from_secs(10 + chance.below(15)),
            planted,
            ..Settings::default()
        };
        let names: Vec<PoolName> = ["east1", "west1", "east2", "west2"]
            .into_iter()
            .map_while(|name| PoolName::new(name).ok())
            .collect();
        let pools = (0..POOLS).map_while(|place| pool(&names, place, settings)).collect::<Vec<_>>();
        let weather = if hits(&mut chance, 600) { Weather::FINE } else { Weather::drawn(&mut chance) };
        let loses_disks = hits(&mut chance, 250);
        let peace_at =
            Moment::default().after(between(&mut chance, Duration::from_secs(25), Duration::from_secs(70)));
        let settled_at = peace_at.after(LATE_MAX + settings.silence() * 2 + settings.patience() * 2);
        let mut fleet = Self {
            now: Moment::default(),
            network: Network::new(weather),
            judge: Judge::default(),
            variant,
            is_witness_up: true,
            is_at_peace: false,
            is_quiet: false,
            loses_disks,
            is_memory_lost: false,
            is_traced,
            settings,
            settled_at,
            pools,
            names,
            witness: (0..POOLS).map(|_| Witness::default()).collect(),
            branches: users::branches(&mut chance),
            operators: Operators::new(Operator::new("ada").ok()?),
            last_operation: 0,
            order: 0,
            steps: BTreeMap::new(),
            chance,
        };
        fleet.plan(peace_at);
        let end = fleet.end_of(peace_at);
        (fleet.pools.len() == POOLS).then_some((fleet, end))
    }

    /// Time for what may be under way, then for one operation that is undone and one that ends.
    fn end_of(&self, peace_at: Moment) -> Moment {
        let settings = self.settings;
        let settle = self.settled_at.since(peace_at);
        peace_at.after(settle + settings.hold + settings.operation_max * 3 + Duration::from_secs(20))
    }

    fn plan(&mut self, peace_at: Moment) {
        for place in 0..POOLS {
            let at = Moment::default().after(self.up_to(Duration::from_secs(2)));
            self.schedule(at, Step::Fault(Fault::Start(place)));
            for step in [Step::Write(place), Step::Register(place)] {
                self.schedule(Moment::default().after(Duration::from_secs(1)), step);
            }
        }
        for branch in 0..self.branches.len() {
            self.schedule(Moment::default().after(Duration::from_secs(2)), Step::CallEnded(branch));
        }
        self.schedule(Moment::default().after(Duration::from_secs(6)), Step::Operator);
        self.plan_faults(peace_at);
        self.schedule(peace_at, Step::Fault(Fault::Peace));
        let quiet_at = self.end_of(peace_at).0.saturating_sub(10_000_000);
        self.schedule(Moment(quiet_at), Step::Fault(Fault::Quiet));
    }

    fn up_to(&mut self, max: Duration) -> Duration {
        between(&mut self.chance, Duration::ZERO, max)
    }

    fn tell(&self, text: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{} {}", self.now, text());
        }
    }

    fn schedule(&mut self, at: Moment, step: Step) {
        self.order += 1;
        self.steps.insert((at, self.order), step);
    }

    fn send(&mut self, from: Spot, to: Spot, step: &Step) {
        for delay in self.network.delays(&mut self.chance, from, to) {
            self.schedule(self.now.after(delay), step.clone());
        }
    }

    fn step(&mut self, end: Moment) -> bool {
        let Some(((at, _), step)) = self.steps.pop_first().filter(|((at, _), _)| *at <= end) else {
            return false;
        };
        self.now = at;
        self.judge.tally.steps += 1;
        self.take(step);
        for place in 0..POOLS {
            self.run(place);
        }
        for home in 0..POOLS {
            self.look(home);
        }
        true
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Fault(fault) => self.strike(fault),
            Step::ToWitness { from, home, incarnation, request, question } => {
                self.at_witness(from, home, incarnation, request, question);
            }
            Step::FromWitness { to, home, incarnation, request, reply } => {
                let input = match reply {
                    Reply::Found(found) => Input::RecordRead { request, found },
                    Reply::Swapped(version) => Input::Swapped { request, version },
                    Reply::Refused(found) => Input::SwapRefused { request, found },
                };
                self.give(to, home, incarnation, input);
            }
            Step::Failed { at, home, incarnation, input } => self.give(at, home, incarnation, input),
            Step::Letter { from, incarnation, to, to_incarnation, letter } => {
                self.arrive(from, incarnation, to, to_incarnation, letter);
            }
            Step::Tick { place, incarnation } => self.tick(place, incarnation),
            Step::Wake => {} // every step lets every process run
            Step::Write(home) => self.write(home),
            Step::Commit(commit) => self.commit(&commit),
            Step::Register(home) => self.register(home),
            Step::CallEnded(branch) => self.call_ended(branch),
            Step::Operator => self.operate(),
            Step::Given(given) => self.given(&given),
            Step::BringHome(home) => self.bring_home(home),
        }
    }

    fn at_witness(
        &mut self,
        from: Place,
        home: Place,
        incarnation: u64,
        request: RequestId,
        question: Question,
    ) {
        if !self.is_witness_up {
            return;
        }
        let Some(witness) = self.witness.get_mut(home) else { return };
        let before = witness.stored().map(|stored| stored.record.clone());
        let reply = witness.answer(question);
        let after = witness.stored().map(|stored| stored.record.clone());
        if let (Reply::Swapped(_), Some(after)) = (&reply, &after) {
            self.tell(|| format!("{home}       record {after:?}"));
            self.changed(from, home, before.as_ref(), after);
        }
        let back = Step::FromWitness { to: from, home, incarnation, request, reply };
        self.send(Spot::Witness, Spot::Pool(from), &back);
    }

    /// The record changed: was it a step that somebody may take, and did it leave anything behind?
    fn changed(&mut self, by: Place, home: Place, before: Option<&OwnershipRecord>, after: &OwnershipRecord) {
        let at = self.now;
        let is_owner_home = self.names.get(home) == Some(&after.owner);
        self.judge.stored(at, home, before, after, is_owner_home);
        let Some(before) = before.filter(|before| before.owner != after.owner) else { return };
        let owner = if is_owner_home { home } else { partner_of(home) };
        let is_gift = by != owner;
        let is_planned = is_gift && before.state.is_moving();
        if let Some(handed_over) = self.judge.handed_over.get_mut(home) {
            *handed_over = is_planned.then_some(by);
        }
        if is_planned {
            self.judge.tally.drained += 1;
            return self.compare(home, owner);
        }
        self.judge.tally.takeovers += u64::from(!is_gift);
        // What was not copied of bindings is renewed by the phones.
        let store = self.pools.get(owner).and_then(|pool| pool.stores.get(side_of(owner, home)));
        if let (Some(store), Some(registered)) = (store, self.judge.registered.get_mut(home)) {
            registered.clone_from(&store.bindings);
        }
    }

    /// What was acknowledged for a home pool is all at this pool.
    fn compare(&mut self, home: Place, place: Place) {
        let at = self.now;
        let Some(store) = self.pools.get(place).and_then(|pool| pool.stores.get(side_of(place, home))) else {
            return;
        };
        if store.is_blank {
            return; // it confirmed, then lost its disk: everything is still where it came from
        }
        let missing =
            self.judge.acknowledged.get(home).and_then(|acknowledged| {
                acknowledged.iter().copied().find(|&operation| !store.has(operation))
            });
        let unregistered = self.judge.registered.get(home).and_then(|registered| {
            let is_missing = |(device, operation): &(&u8, &u64)| store.bindings.get(device) < Some(operation);
            registered.iter().find(is_missing).map(|(_, &operation)| operation)
        });
        if let Some(operation) = missing.or(unregistered) {
            self.judge.fail(Breach::LeftBehind { at, home, operation });
        }
    }

    fn give(&mut self, place: Place, home: Place, incarnation: u64, input: Input) {
        if let Some(pool) = self.pools.get_mut(place)
            && pool.incarnation == incarnation
            && let Some(desk) = pool.desk_mut(side_of(place, home))
        {
            desk.inbox.push_back(input);
        }
    }

    fn start(&mut self, place: Place) {
        let rate = match self.chance.below(4) {
            0 => 990_000,
            1 => 1_010_000,
            _ => 990_000 + self.chance.below(20_001),
        };
        let now = self.now;
        let first_tick = now.after(self.up_to(Duration::from_millis(500)));
        let Some(pool) = self.pools.get_mut(place).filter(|pool| pool.process.is_none()) else { return };
        pool.incarnation += 1;
        let incarnation = pool.incarnation;
        pool.process = Some(Process::start(pool, Clock::new(now, rate), now));
        self.schedule(first_tick, Step::Tick { place, incarnation });
    }

    /// Who could answer a home pool's users right now.
    fn look(&mut self, home: Place) {
        let places = [home, partner_of(home)];
        let answerable = places.map(|place| {
            self.pools.get(place).and_then(|pool| pool.answerable(side_of(place, home), self.now))
        });
        let epochs: [Option<Epoch>; 2] =
            answerable.map(|authority| authority.map(|authority| authority.epoch));
        self.judge.served(self.now, home, epochs, self.is_memory_lost);
        let [_, at_partner] = answerable;
        self.look_at_branches(home, at_partner);
        if self.is_at_peace {
            self.look_in_peace(
                home,
                answerable.into_iter().flatten().any(|it| it.service == pairing::Service::Full),
            );
        }
    }

    fn look_in_peace(&mut self, home: Place, is_writable: bool) {
        let stored = self.witness.get(home).and_then(Witness::stored);
        let is_taken_over = stored.is_none_or(|stored| stored.record.state == PoolState::TakenOver);
        if self.now < self.settled_at || is_taken_over {
            return self.judge.excuse_read_only(self.now, home);
        }
        self.judge.writable(self.now, home, is_writable, Duration::from_secs(2));
    }

    /// At the end of peace everybody is at home, every copy complete, and nothing acknowledged is gone.
    fn look_back(&mut self) {
        let at = self.now;
        for home in 0..POOLS {
            let record = self.witness.get(home).and_then(Witness::stored).map(|stored| stored.record.clone());
            if record.as_ref().is_some_and(|record| record.state.is_moving()) {
                self.judge.fail(Breach::NotEnded { home, at });
            }
            let is_active = record.is_some_and(|record| record.state == PoolState::Active);
            let store =
                |place: Place| self.pools.get(place).and_then(|pool| pool.stores.get(side_of(place, home)));
            let (Some(own), Some(copy)) = (store(home), store(partner_of(home))) else { continue };
            let lost =
                self.judge.acknowledged.get(home).and_then(|acknowledged| {
                    acknowledged.iter().copied().find(|&operation| !own.has(operation))
                });
            let is_same = own.entries() == copy.entries() || self.judge.has_begun_anew(home);
            let is_complete = is_same && !own.is_blank && !copy.is_blank;
            if let Some(operation) = lost {
                self.judge.fail(Breach::Lost { home, operation });
            }
            if !is_active || !is_complete {
                self.tell(|| format!("{home} active {is_active}, {} and {} entries", own.len(), copy.len()));
                self.judge.fail(Breach::NotHome { home, at });
            }
        }
        self.look_back_at_branches();
        self.look_back_at_orders();
    }
}

fn pool(names: &[PoolName], place: Place, settings: Settings) -> Option<Pool> {
    let (own, other) = (names.get(place)?.clone(), names.get(partner_of(place))?.clone());
    let parties = [Parties::at_home(own.clone(), other.clone()), Parties::at_partner(other, own)];
    let stores = [data::Store::default(), data::Store::default()];
    Some(Pool { parties, settings, incarnation: 0, remembered: [None, None], stores, process: None })
}
