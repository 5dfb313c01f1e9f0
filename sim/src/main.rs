//! Runs seeds of the simulator: `sim [--seeds N] [--seed S] [--trace] [--mistake NAME] [--world WORLD]`.

use std::process::ExitCode;

use pairing::Planted;
use sim::{FleetVariant, Mistake, Variant, run_fleet, run_seed};

const USAGE: &str = "usage: sim [--seeds N] [--seed S] [--world pair|fleet] [--trace] [--mistake NAME]

  --seeds N       how many seeds to run (default 1000)
  --seed S        the first of them (default 0); alone: only this one
  --world WORLD   pair: one home pool, leases only; fleet: two pairs, branches, operators, documents;
                  default: both
  --trace         print every step
  --mistake NAME  run with a mistake made on purpose, to see it found.
                  In a pair: no-fence, wait-shortened, lease-from-answer, restart-forgets, hands-over-serving,
                  grants-taking-over, asks-loop. In a fleet: swaps-undrained, undoes-by-force, cancels-late,
                  orders-twice, writes-in-doubt, fence-forgotten, failback-without-orphans,
                  branch-follows-anyway";

struct Arguments {
    first: u64,
    count: u64,
    is_traced: bool,
    pair: Option<Variant>,
    fleet: Option<FleetVariant>,
}

fn pair_variant(name: &str) -> Option<Variant> {
    let planted = match name {
        "no-fence" => Planted::NoFence,
        "wait-shortened" => Planted::WaitShortened,
        "lease-from-answer" => Planted::LeaseFromAnswer,
        "restart-forgets" => Planted::RestartForgets,
        "hands-over-serving" => Planted::HandsOverServing,
        "grants-taking-over" => Planted::GrantsTakingOver,
        "asks-loop" => return Some(Variant { asks_loop: true, ..Variant::default() }),
        _ => return None,
    };
    Some(Variant { planted, ..Variant::default() })
}

fn fleet_variant(name: &str) -> Option<FleetVariant> {
    let mistake = match name {
        "swaps-undrained" => Mistake::Machine(Planted::SwapsUndrained),
        "undoes-by-force" => Mistake::Machine(Planted::UndoesByForce),
        "cancels-late" => Mistake::Machine(Planted::CancelsLate),
        "orders-twice" => Mistake::Machine(Planted::OrdersTwice),
        "writes-in-doubt" => Mistake::Machine(Planted::WritesInDoubt),
        "fence-forgotten" => Mistake::FenceForgotten,
        "failback-without-orphans" => Mistake::FailbackWithoutOrphans,
        "branch-follows-anyway" => Mistake::BranchFollowsAnyway,
        _ => return None,
    };
    Some(FleetVariant { mistake, ..FleetVariant::default() })
}

fn arguments() -> Option<Arguments> {
    let (mut first, mut count, mut is_traced) = (None, None, false);
    let (mut pair, mut fleet) = (Some(Variant::default()), Some(FleetVariant::default()));
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seeds" => count = Some(words.next()?.parse().ok()?),
            "--seed" => first = Some(words.next()?.parse().ok()?),
            "--trace" => is_traced = true,
            "--world" => match words.next()?.as_str() {
                "pair" => fleet = None,
                "fleet" => pair = None,
                _ => return None,
            },
            "--mistake" => {
                let name = words.next()?;
                (pair, fleet) = (pair_variant(&name), fleet_variant(&name));
            }
            _ => return None,
        }
    }
    let count = count.unwrap_or(if first.is_some() { 1 } else { 1_000 });
    let is_something = pair.is_some() || fleet.is_some();
    is_something.then(|| Arguments { first: first.unwrap_or(0), count, is_traced, pair, fleet })
}

/// Runs the seeds of a pair; returns how many failed.
fn run_pairs(arguments: &Arguments, variant: Variant) -> u64 {
    let (mut failed, mut steps, mut takeovers, mut returns) = (0_u64, 0_u64, 0_u64, 0_u64);
    for seed in arguments.first..arguments.first.saturating_add(arguments.count) {
        let report = run_seed(seed, variant, arguments.is_traced);
        steps += report.outcome.steps;
        takeovers += report.outcome.takeovers_begun;
        returns += report.outcome.returns_begun;
        if let Some(violation) = report.violation {
            failed += 1;
            println!("seed {seed}: {violation:?}; repeat with --world pair --seed {seed} --trace");
        }
    }
    let count = arguments.count;
    println!("pair: {count} seeds, {steps} steps, {takeovers} takeovers, {returns} returns; {failed} failed");
    failed
}

/// Runs the seeds of a fleet; returns how many failed.
fn run_fleets(arguments: &Arguments, variant: FleetVariant) -> u64 {
    let (mut failed, mut steps, mut acknowledged, mut orphans) = (0_u64, 0_u64, 0_u64, 0_u64);
    let (mut begun, mut completed, mut undone) = (0_u64, 0_u64, 0_u64);
    for seed in arguments.first..arguments.first.saturating_add(arguments.count) {
        let report = run_fleet(seed, variant, arguments.is_traced);
        let tally = report.tally;
        steps += tally.steps;
        acknowledged += tally.acknowledged;
        orphans += tally.orphans;
        (begun, completed, undone) =
            (begun + tally.begun, completed + tally.completed, undone + tally.undone);
        if let Some(breach) = report.breach {
            failed += 1;
            println!("seed {seed}: {breach:?}; repeat with --world fleet --seed {seed} --trace");
        }
    }
    println!(
        "fleet: {} seeds, {steps} steps, {begun} operations begun, {completed} completed, {undone} undone, \
         {acknowledged} changes acknowledged, {orphans} orphans; {failed} failed",
        arguments.count
    );
    failed
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let pairs = arguments.pair.map_or(0, |variant| run_pairs(&arguments, variant));
    let fleets = arguments.fleet.map_or(0, |variant| run_fleets(&arguments, variant));
    if pairs + fleets == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
