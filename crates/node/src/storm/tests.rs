//! Storms in virtual time.

use proptest::prelude::*;

use super::*;

const TARGET: Duration = Duration::from_millis(250);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(millis: u64) -> Instant {
    Instant::START + ms(millis)
}

/// Nobody waits.
const NONE: Backlog = Backlog { waited: Duration::ZERO, is_losing: false };
/// A socket is full.
const LOSING: Backlog = Backlog { waited: Duration::ZERO, is_losing: true };

/// More than a batch waits, the first for so long.
const fn waiting(millis: u64) -> Backlog {
    Backlog { waited: ms(millis), is_losing: false }
}

/// Short turns with small batches until then.
fn quiet(storm: &mut Storm, from: u64, until: u64) {
    for now in (from..until).step_by(10) {
        storm.turn(at(now), at(now) + ms(1), NONE);
    }
}

#[test]
fn a_disk_that_is_fast_enough_puts_nobody_off_however_many_come() {
    let mut storm = Storm::new(TARGET);
    for now in 0..5_000 {
        storm.submitted(at(now));
        storm.turn(at(now), at(now) + ms(1), NONE);
        if now >= 200 {
            storm.committed(at(now));
        }
        assert!(!storm.defers_registers(), "after {now} ms");
    }
}

#[test]
fn slow_commits_put_off_registrations_and_never_requests() {
    let mut storm = Storm::new(TARGET);
    let mut closed_at = None;
    for round in 0..20_u64 {
        let now = round * 400;
        storm.submitted(at(now));
        quiet(&mut storm, now, now + 400);
        storm.committed(at(now + 400));
        if storm.defers_registers() && closed_at.is_none() {
            closed_at = Some(round);
        }
        assert!(!storm.defers_requests());
    }
    assert!(closed_at.is_some_and(|round| (2..=6).contains(&round)), "{closed_at:?}");
}

#[test]
fn one_slow_commit_is_no_storm() {
    let mut storm = Storm::new(TARGET);
    storm.submitted(at(0));
    quiet(&mut storm, 0, 900);
    storm.committed(at(900));
    quiet(&mut storm, 900, 2_000);

    assert!(!storm.defers_registers());
}

#[test]
fn a_disk_that_hangs_is_noticed_although_it_says_nothing() {
    let mut storm = Storm::new(TARGET);
    storm.submitted(at(0));
    quiet(&mut storm, 0, 1_000);
    assert!(!storm.defers_registers());
    quiet(&mut storm, 1_000, 1_020);
    assert!(storm.defers_registers() && !storm.defers_requests());
}

#[test]
fn a_shard_that_cannot_keep_up_puts_off_registrations_first_and_then_requests() {
    let mut storm = Storm::new(TARGET);
    let (mut registers, mut requests) = (None, None);
    for now in (0..3_000).step_by(2) {
        storm.turn(at(now), at(now + 2), LOSING);
        if storm.defers_registers() {
            registers.get_or_insert(now);
        }
        if storm.defers_requests() {
            requests.get_or_insert(now);
        }
    }
    let (registers, requests) = (registers.unwrap(), requests.unwrap());
    assert!((250..300).contains(&registers), "{registers}");
    assert!((1_000..1_050).contains(&requests), "{requests}");
}

#[test]
fn full_batches_are_no_storm_while_nobody_waits_long() {
    let mut storm = Storm::new(TARGET);
    for now in (0..10_000).step_by(2) {
        storm.turn(at(now), at(now + 2), waiting(200));
        assert!(!storm.defers_registers());
    }
    for now in (10_000..10_020).step_by(2) {
        storm.turn(at(now), at(now + 2), waiting(400));
    }
    assert!(storm.defers_registers() && !storm.defers_requests());
    for now in (10_020..10_040).step_by(2) {
        storm.turn(at(now), at(now + 2), waiting(1_200));
    }
    assert!(storm.defers_requests());
}

#[test]
fn a_socket_that_overflows_for_a_moment_now_and_then_is_no_storm() {
    let mut storm = Storm::new(TARGET);
    for now in (0..10_000).step_by(2) {
        storm.turn(at(now), at(now + 2), if now % 250 < 150 { LOSING } else { NONE });
        assert!(!storm.defers_registers());
    }
}

#[test]
fn the_wait_is_not_counted_from_before_the_storm() {
    let mut storm = Storm::new(TARGET);
    storm.turn(at(0), at(1), NONE);

    for now in (60_000..60_100).step_by(2) {
        storm.turn(at(now), at(now + 2), LOSING);
    }

    assert!(!storm.defers_registers());
}

#[test]
fn a_gate_opens_a_second_after_the_latency_is_low_and_not_before() {
    let mut storm = Storm::new(TARGET);
    storm.submitted(at(0));
    quiet(&mut storm, 0, 2_000);
    assert!(storm.defers_registers());
    storm.committed(at(2_000));

    // Halved every 250 ms, what was measured is below half the target 250 ms to 1 s later.
    quiet(&mut storm, 2_000, 2_990);
    assert!(storm.defers_registers());
    quiet(&mut storm, 3_000, 4_300);
    assert!(!storm.defers_registers());
}

#[test]
fn it_is_told_once_that_a_storm_begins() {
    let mut storm = Storm::new(TARGET);
    let begun = (0..2_000).step_by(2).filter(|&now| storm.turn(at(now), at(now + 2), LOSING)).count();

    assert_eq!(begun, 2);
}

#[test]
fn a_storm_ends_when_nothing_comes_any_more() {
    let mut storm = Storm::new(TARGET);
    for now in (0..3_000).step_by(2) {
        storm.turn(at(now), at(now + 2), LOSING);
    }
    assert!(storm.defers_requests());

    storm.turn(at(60_000), at(60_001), NONE);
    assert!(!storm.defers_registers() && !storm.defers_requests());
}

#[test]
fn a_machine_that_was_suspended_for_an_hour_serves_calls_at_once() {
    let mut storm = Storm::new(TARGET);
    storm.turn(at(0), at(3_600_000), NONE);
    assert!(storm.defers_registers() && !storm.defers_requests());
    quiet(&mut storm, 3_600_000, 3_603_000);
    assert!(!storm.defers_registers());
}

#[test]
fn those_put_off_come_back_spread_evenly_over_a_time_that_grows_with_their_number() {
    let mut storm = Storm::new(TARGET);
    let mut chance = Chance::seeded(7);
    let mut told = Vec::new();
    for _ in 0..40_000 {
        told.push(storm.retry_after_s(Work::Register, &mut chance));
    }

    let longest = |range: std::ops::Range<usize>| told.get(range).unwrap().iter().max().copied().unwrap();
    assert_eq!((longest(0..200), *told.iter().min().unwrap()), (6, 2));
    assert!((24..=27).contains(&longest(4_800..5_000)), "{}", longest(4_800..5_000));
    assert_eq!(longest(30_000..40_000), 120);
    assert!(storm.retry_after_s(Work::Request, &mut chance) <= 6, "callers are another kind");
    let late = told.get(30_000..).unwrap();
    for tenth in 0..10_u32 {
        let range = 2 + tenth * 119 / 10..2 + (tenth + 1) * 119 / 10;
        let share = late.iter().filter(|told| range.contains(told)).count();
        assert!((800..1_200).contains(&share), "{range:?}: {share}");
    }
}

#[test]
fn the_interval_begins_anew_with_the_next_storm() {
    let mut storm = Storm::new(TARGET);
    let mut chance = Chance::seeded(7);
    for now in (0..1_000).step_by(2) {
        storm.turn(at(now), at(now + 2), LOSING);
    }
    for _ in 0..20_000 {
        storm.retry_after_s(Work::Register, &mut chance);
    }
    quiet(&mut storm, 1_000, 5_000);

    assert!((0..500).all(|_| storm.retry_after_s(Work::Register, &mut chance) <= 6));
}

proptest! {
    #[test]
    fn a_takeover_is_over_when_a_phone_comes_back(millis in 0..400_000_u64, seed in any::<u64>()) {
        let told = spread(ms(millis), &mut Chance::seeded(seed));

        let least = millis.div_ceil(1_000).max(1);
        prop_assert!((least..=least + (least / 10).max(2)).contains(&told), "{told}");
    }

    /// Whatever is measured, a storm ends in bounded time after the load, and no clock value is an error.
    #[test]
    fn every_storm_ends(
        events in prop::collection::vec((0..4_u8, 0..5_000_u64), 1..200),
    ) {
        let mut storm = Storm::new(TARGET);
        let mut now = 0;
        for (what, millis) in events {
            match what {
                0 => storm.submitted(at(now)),
                1 => storm.committed(at(now)),
                2 => drop(storm.turn(at(now), at(now + millis), LOSING)),
                _ => drop(storm.turn(at(now), at(now + millis), waiting(millis))),
            }
            now += millis;
        }
        while !storm.submitted.is_empty() {
            storm.committed(at(now));
        }
        quiet(&mut storm, now, now + 5_000);
        prop_assert!(!storm.defers_registers() && !storm.defers_requests());
    }
}
