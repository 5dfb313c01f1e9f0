//! Five hundred seeds of a fleet hold every promise, and seeds of it find every mistake about operations.

use pairing::Planted;
use sim::{Breach, FleetVariant, Mistake, Tally, run_fleet};

const SEEDS: u64 = 500;

/// The first breach that a mistake leads to.
fn breach_of(mistake: Mistake) -> Option<Breach> {
    let variant = FleetVariant { mistake, ..FleetVariant::default() };
    (0..SEEDS).find_map(|seed| run_fleet(seed, variant, false).breach)
}

fn breach_of_machine(planted: Planted) -> Option<Breach> {
    breach_of(Mistake::Machine(planted))
}

#[test]
fn no_seed_of_a_fleet_breaks_a_promise_and_every_path_is_taken_often() {
    let mut sum = Tally::default();
    for seed in 0..SEEDS {
        let report = run_fleet(seed, FleetVariant::default(), false);
        assert_eq!(report.breach, None, "cargo run -p sim -- --world fleet --seed {seed} --trace");
        let tally = report.tally;
        sum.orders += tally.orders;
        sum.begun += tally.begun;
        sum.completed += tally.completed;
        sum.undone += tally.undone;
        sum.drained += tally.drained;
        sum.abandoned += tally.abandoned;
        sum.takeovers += tally.takeovers;
        sum.acknowledged += tally.acknowledged;
        sum.orphans += tally.orphans;
        sum.conflicts += tally.conflicts;
        sum.lost_with_disk += tally.lost_with_disk;
        sum.read_only_max = sum.read_only_max.max(tally.read_only_max);
    }
    println!("{sum:?}");
    assert!(sum.orders > 5_000 && sum.begun > 1_000 && sum.completed > 1_000, "{sum:?}");
    assert!(sum.undone > 50 && sum.drained > 500 && sum.abandoned > 50, "{sum:?}");
    assert!(sum.takeovers > 200 && sum.acknowledged > 100_000, "{sum:?}");
    assert!(sum.orphans > 100 && sum.conflicts > 20, "{sum:?}");
}

#[test]
fn stepped_wall_clocks_change_nothing() {
    for seed in 0..20 {
        let stepped = FleetVariant { wall_step_s: 3_600, ..FleetVariant::default() };
        let (plain, stepped) =
            (run_fleet(seed, FleetVariant::default(), false), run_fleet(seed, stepped, false));
        assert_eq!((plain.tally, plain.breach), (stepped.tally, stepped.breach));
    }
}

#[test]
fn a_change_of_owner_before_the_drain_was_confirmed_is_found() {
    assert!(matches!(breach_of_machine(Planted::SwapsUndrained), Some(Breach::LeftBehind { .. })));
}

#[test]
fn an_undo_while_the_partner_already_owns_is_found() {
    assert!(matches!(breach_of_machine(Planted::UndoesByForce), Some(Breach::ThirdState { .. })));
}

#[test]
fn a_cancel_that_ignores_the_epoch_is_found() {
    assert!(matches!(breach_of_machine(Planted::CancelsLate), Some(Breach::ThirdState { .. })));
}

#[test]
fn orders_that_are_not_idempotent_are_found() {
    assert!(matches!(breach_of_machine(Planted::OrdersTwice), Some(Breach::BegunTwice { .. })));
}

#[test]
fn documents_written_after_a_handover_of_unknown_outcome_are_found() {
    assert!(matches!(breach_of_machine(Planted::WritesInDoubt), Some(Breach::LeftBehind { .. })));
}

#[test]
fn a_fence_forgotten_at_the_last_step_is_found() {
    assert!(matches!(breach_of(Mistake::FenceForgotten), Some(Breach::LeftBehind { .. })));
}

#[test]
fn a_failback_without_orphans_is_found() {
    assert!(matches!(breach_of(Mistake::FailbackWithoutOrphans), Some(Breach::Lost { .. })));
}

#[test]
fn a_branch_that_follows_though_its_rule_is_none_is_found() {
    assert!(matches!(breach_of(Mistake::BranchFollowsAnyway), Some(Breach::BranchRuleBroken { .. })));
}
