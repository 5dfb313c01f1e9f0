//! Runs seeds of the simulator: `sim [--seeds N] [--seed S] [--trace] [--mistake NAME]`.

use std::process::ExitCode;

use pairing::Planted;
use sim::{Variant, run_seed};

const USAGE: &str = "usage: sim [--seeds N] [--seed S] [--trace] [--mistake NAME]

  --seeds N       how many seeds to run (default 1000)
  --seed S        the first of them (default 0); alone: only this one
  --trace         print every step
  --mistake NAME  run with a mistake made on purpose, to see it found: no-fence, wait-shortened,
                  lease-from-answer, restart-forgets, hands-over-serving, grants-taking-over, asks-loop";

struct Arguments {
    first: u64,
    count: u64,
    is_traced: bool,
    variant: Variant,
}

fn variant(name: &str) -> Option<Variant> {
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

fn arguments() -> Option<Arguments> {
    let (mut first, mut count, mut is_traced, mut chosen) = (None, None, false, Variant::default());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seeds" => count = Some(words.next()?.parse().ok()?),
            "--seed" => first = Some(words.next()?.parse().ok()?),
            "--trace" => is_traced = true,
            "--mistake" => chosen = variant(&words.next()?)?,
            _ => return None,
        }
    }
    let count = count.unwrap_or(if first.is_some() { 1 } else { 1_000 });
    Some(Arguments { first: first.unwrap_or(0), count, is_traced, variant: chosen })
}

fn main() -> ExitCode {
    let Some(Arguments { first, count, is_traced, variant }) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let (mut failed, mut steps, mut takeovers, mut returns) = (0_u64, 0_u64, 0_u64, 0_u64);
    for seed in first..first.saturating_add(count) {
        let report = run_seed(seed, variant, is_traced);
        steps += report.outcome.steps;
        takeovers += report.outcome.takeovers_begun;
        returns += report.outcome.returns_begun;
        if let Some(violation) = report.violation {
            failed += 1;
            println!("seed {seed}: {violation:?}; repeat with --seed {seed} --trace");
        }
    }
    println!("{count} seeds, {steps} steps, {takeovers} takeovers, {returns} returns; {failed} seeds failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
