//! A thousand seeds hold every promise, and the same thousand find every mistake made on purpose.

use pairing::Planted;
use sim::{Outcome, Peace, Variant, Violation, run_seed};

const SEEDS: u64 = 1_000;

/// The first seed that finds the mistake by seeing two owners at one moment.
fn seed_that_finds(variant: Variant) -> Option<u64> {
    (0..SEEDS)
        .find(|&seed| matches!(run_seed(seed, variant, false).violation, Some(Violation::TwoOwners { .. })))
}

fn planted(planted: Planted) -> Variant {
    Variant { planted, ..Variant::default() }
}

#[test]
fn no_seed_breaks_a_promise_and_every_path_is_taken_often() {
    let mut sum = Outcome::default();
    let mut peaces = [0; 4];
    for seed in 0..SEEDS {
        let report = run_seed(seed, Variant::default(), false);
        assert_eq!(report.violation, None, "cargo run -p sim -- --seed {seed} --trace");
        let outcome = report.outcome;
        sum.takeovers_begun += outcome.takeovers_begun;
        sum.takeovers_abandoned += outcome.takeovers_abandoned;
        sum.returns_begun += outcome.returns_begun;
        sum.returns_abandoned += outcome.returns_abandoned;
        sum.owners_changed += outcome.owners_changed;
        sum.settled_after = sum.settled_after.max(outcome.settled_after);
        sum.steps += outcome.steps;
        peaces[match report.peace {
            Peace::All => 0,
            Peace::WithoutWitness => 1,
            Peace::WithoutHome => 2,
            Peace::WithoutPartner => 3,
        }] += 1;
    }
    println!("{sum:?} {peaces:?}");
    assert!(sum.takeovers_begun > 500 && sum.takeovers_abandoned > 50, "{sum:?}");
    assert!(sum.returns_begun > 200 && sum.returns_abandoned > 5, "{sum:?}");
    assert!(sum.owners_changed > 1_000, "{sum:?}");
    assert!(peaces.iter().all(|&runs| runs > 100), "{peaces:?}");
}

#[test]
fn a_seed_run_twice_ends_the_same_way() {
    for seed in [0, 7, 99] {
        let (first, second) =
            (run_seed(seed, Variant::default(), false), run_seed(seed, Variant::default(), false));
        assert_eq!((first.outcome, first.violation), (second.outcome, second.violation));
    }
}

#[test]
fn an_owner_that_serves_beyond_its_lease_is_found() {
    assert!(seed_that_finds(planted(Planted::NoFence)).is_some());
}

#[test]
fn a_partner_that_waits_too_short_is_found() {
    assert!(seed_that_finds(planted(Planted::WaitShortened)).is_some());
}

#[test]
fn a_deadline_tested_in_a_background_loop_is_found() {
    assert!(seed_that_finds(Variant { asks_loop: true, ..Variant::default() }).is_some());
}

#[test]
fn a_lease_counted_from_the_answer_is_found() {
    assert!(seed_that_finds(planted(Planted::LeaseFromAnswer)).is_some());
}

#[test]
fn a_restarted_pool_that_forgets_its_promises_is_found() {
    assert!(seed_that_finds(planted(Planted::RestartForgets)).is_some());
}

#[test]
fn an_owner_that_hands_over_while_it_serves_is_found() {
    assert!(seed_that_finds(planted(Planted::HandsOverServing)).is_some());
}

#[test]
fn promises_given_during_a_takeover_are_found() {
    assert!(seed_that_finds(planted(Planted::GrantsTakingOver)).is_some());
}
