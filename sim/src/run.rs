//! One run of one seed.

use model::Chance;
use pairing::Planted;

use crate::{
    judge::{Outcome, Violation},
    scenario::{Peace, Scenario},
    world::World,
};

/// What runs: the real thing, or one with a mistake made on purpose that the simulator must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Variant {
    /// The mistake in the machine.
    pub planted: Planted,
    /// The mistake in the driver: phones are answered while a flag is set that a loop refreshes every 500
    /// ms.
    pub asks_loop: bool,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Who was left in peace.
    pub peace: Peace,
    /// What happened.
    pub outcome: Outcome,
    /// The first broken promise.
    pub violation: Option<Violation>,
}

/// Runs one seed to its end, or to the first broken promise. With `is_traced` it prints every step.
pub fn run_seed(seed: u64, variant: Variant, is_traced: bool) -> Report {
    let mut chance = Chance::seeded(seed);
    let scenario = Scenario::drawn(&mut chance, variant.planted);
    let peace = scenario.peace;
    let Some(mut world) = World::new(&scenario, chance, variant.asks_loop, is_traced) else {
        return Report { seed, peace, outcome: Outcome::default(), violation: None };
    };
    world.tell(|| format!("seed {seed}: {:?}, peace {peace:?} at {}", scenario.settings, scenario.peace_at));
    while world.judge.violation().is_none() && world.step(scenario.end) {}
    if peace == Peace::All && world.judge.violation().is_none() && !world.is_at_home() {
        let at = world.now;
        let stored = world.witness().stored().cloned();
        world.tell(|| format!("at the end the witness holds {stored:?}"));
        world.judge.fail(Violation::NotReturned { at });
    }
    let violation = world.judge.violation().cloned();
    Report { seed, peace, outcome: world.judge.outcome, violation }
}
