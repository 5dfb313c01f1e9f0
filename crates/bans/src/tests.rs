//! What an attacker can do to himself and to nobody else.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use model::{Instant, Protocol, Source, limits};
use proptest::prelude::*;

use super::*;

const SETTINGS: Settings = Settings {
    offences_max: 20,
    window: Duration::from_secs(60),
    lasts: Duration::from_secs(600),
    lasts_max: Duration::from_secs(86_400),
};

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn source(number: u32) -> Source {
    Source::of(Ipv4Addr::from_bits(0x0a00_0000 + number).into())
}

fn bans() -> Bans {
    Bans::new(SETTINGS, Vec::new())
}

fn outputs(bans: &mut Bans) -> Vec<Output> {
    std::iter::from_fn(|| bans.poll_output()).collect()
}

/// One attempt as the driver makes it; whether the password was looked at.
fn guess(bans: &mut Bans, now: Instant, from: Source, user: u64) -> bool {
    let may = bans.may_try(now, from, UserKey(user)).is_ok();
    if may {
        bans.wrong(now, from, UserKey(user));
    }
    may
}

#[test]
fn the_twentieth_wrong_password_of_a_source_bans_it_once() {
    let mut bans = bans();
    for user in 0..19 {
        guess(&mut bans, at(1), source(1), user);
    }
    assert_eq!(outputs(&mut bans), []);

    for user in 19..40 {
        guess(&mut bans, at(2), source(1), user);
    }

    let cause = Cause::Offence(Offence::WrongCredentials);
    let ban = Ban { source: source(1), cause, since: at(2), until: at(602), offences: 20, times: 1 };
    assert_eq!(outputs(&mut bans), [Output::Banned(ban)]);
    assert!(bans.is_banned(source(1)) && !bans.is_banned(source(2)));
}

#[test]
fn offences_that_nothing_proves_ban_nobody() {
    let mut bans = bans();
    for _ in 0..10_000 {
        bans.offence(at(1), source(1), Offence::MalformedStream, Proof::of(Protocol::Udp));
    }
    assert_eq!((bans.tracked(), outputs(&mut bans).len()), (0, 0));

    for _ in 0..20 {
        bans.offence(at(1), source(1), Offence::MalformedStream, Proof::of(Protocol::Tcp));
    }
    assert!(bans.is_banned(source(1)));
}

#[test]
fn phones_that_stall_once_each_have_nobody_banned_and_who_goes_on_is() {
    let mut bans = bans();
    for _ in 0..239 {
        bans.offence(at(0), source(1), Offence::Stalled, Proof::Connection);
    }
    assert_eq!(outputs(&mut bans), []);

    bans.offence(at(1), source(1), Offence::Stalled, Proof::Connection);

    assert!(bans.is_banned(source(1)));
}

#[test]
fn a_phone_set_up_in_the_name_of_another_waits_and_has_nobody_banned() {
    let mut bans = bans();
    for second in 0..3_600 {
        let user = UserKey(7);
        if bans.may_try(at(second), source(1), user).is_ok() {
            bans.foreign(at(second), source(1), user);
        }
    }
    assert!(!bans.is_banned(source(1)));
    assert_eq!(outputs(&mut bans), []);
}

#[test]
fn offences_that_are_far_apart_do_not_add_up() {
    let mut bans = bans();
    for minute in 0..1_000 {
        for _ in 0..19 {
            bans.offence(at(minute * 61), source(1), Offence::ForgedRoute, Proof::Connection);
        }
    }
    assert_eq!(outputs(&mut bans), []);
}

#[test]
fn one_phone_with_a_wrong_password_never_bans_its_source_however_it_tries() {
    for every_ms in [1_000_u64, 2_000, 5_000, 30_000] {
        let mut bans = bans();
        let mut looked_at = 0;
        for attempt in 0..3_600_000 / every_ms {
            let now = Instant::from_micros(attempt * every_ms * 1_000);
            looked_at += usize::from(guess(&mut bans, now, source(1), 7));
            bans.handle_timeout(now);
        }
        assert_eq!(outputs(&mut bans), [], "{every_ms}");
        assert!(looked_at <= 70, "{every_ms}: {looked_at} in an hour");
    }
}

#[test]
fn who_hammers_one_user_is_slowed_down_and_then_banned() {
    let mut bans = bans();
    let tried = (0..1_000_u64).filter(|_| guess(&mut bans, at(1), source(1), 7)).count();

    assert_eq!((tried, outputs(&mut bans).len()), (3, 1));
}

#[test]
fn guessing_elsewhere_slows_no_user_down() {
    let mut bans = bans();
    for number in 0..1_000 {
        for _ in 0..5 {
            guess(&mut bans, at(1), source(number), 7);
        }
    }

    assert_eq!(bans.may_try(at(1), source(5_000), UserKey(7)), Ok(()));
    assert_eq!(bans.may_try(at(1), source(1), UserKey(8)), Ok(()));
    assert_eq!(bans.may_try(at(1), source(1), UserKey(7)), Err(Duration::from_secs(1)));
    assert_eq!(bans.may_try(at(2), source(1), UserKey(7)), Ok(()));
}

#[test]
fn hundreds_of_phones_behind_one_address_are_not_banned_for_a_few_with_wrong_passwords() {
    let mut bans = bans();
    for second in 0..3_600 {
        // 500 phones that register every half an hour or so, five more that cannot and try every 10 seconds.
        for phone in (0..500).filter(|phone| (second + phone * 7) % 1_600 == 0) {
            bans.right(at(second), source(1), UserKey(1_000 + phone));
        }
        for phone in (0..5).filter(|phone| (second + phone * 3) % 10 == 0) {
            guess(&mut bans, at(second), source(1), phone);
        }
    }
    assert_eq!(outputs(&mut bans), []);
}

#[test]
fn a_right_password_takes_back_what_its_user_mistyped() {
    let mut bans = bans();
    for user in 0..100 {
        for _ in 0..3 {
            guess(&mut bans, at(user), source(1), user);
        }
        bans.right(at(user), source(1), UserKey(user));
    }
    assert_eq!(outputs(&mut bans), []);
    assert_eq!(bans.may_try(at(99), source(1), UserKey(99)), Ok(()));
}

#[test]
fn one_account_does_not_pay_for_guessing_at_others() {
    let mut bans = bans();
    for user in 0..30 {
        guess(&mut bans, at(1), source(1), user);
        bans.right(at(1), source(1), UserKey(u64::MAX));
    }
    assert!(bans.is_banned(source(1)));
}

#[test]
fn a_source_that_comes_back_is_banned_twice_as_long_up_to_the_longest() {
    let mut bans = bans();
    let mut now = at(0);
    let mut lengths = Vec::new();
    for _ in 0..12 {
        for user in 0..20 {
            guess(&mut bans, now, source(1), user);
        }
        let until = bans.list().next().map(|ban| ban.until).unwrap();
        lengths.push(until.saturating_since(now).as_secs());
        now = until;
        bans.handle_timeout(now);
        assert!(!bans.is_banned(source(1)));
    }
    assert_eq!(&lengths[..4], [600, 1_200, 2_400, 4_800]);
    assert_eq!(&lengths[8..], [86_400; 4]);

    bans.handle_timeout(now + SETTINGS.lasts_max);
    for user in 0..20 {
        guess(&mut bans, now + SETTINGS.lasts_max, source(1), user);
    }
    assert_eq!(bans.list().next().map(|ban| ban.times), Some(1));
}

#[test]
fn exempt_networks_are_neither_banned_nor_slowed_down() {
    let mut bans = Bans::new(SETTINGS, vec!["10.0.0.0/24".parse().unwrap()]);
    for user in 0..100 {
        assert!(guess(&mut bans, at(1), source(1), 7));
        guess(&mut bans, at(1), source(256), user);
    }

    assert!(!bans.is_banned(source(1)) && bans.is_banned(source(256)));
    assert_eq!(bans.add(at(1), source(1), Duration::from_secs(1)), Err(BanError::Exempt));
}

#[test]
fn an_operator_bans_and_pardons() {
    let mut bans = bans();
    bans.add(at(1), source(1), Duration::from_secs(5)).unwrap();
    assert_eq!(bans.list().map(|ban| (ban.cause, ban.until)).next(), Some((Cause::Operator, at(6))));

    assert!(bans.remove(source(1)) && !bans.remove(source(1)));
    assert_eq!(bans.list().count(), 0);
    assert_eq!(outputs(&mut bans).last(), Some(&Output::Lifted(source(1), Lifted::Operator)));
    for user in 0..20 {
        guess(&mut bans, at(2), source(1), user);
    }
    assert_eq!(bans.list().map(|ban| ban.times).next(), Some(1), "what was pardoned is forgotten");
}

#[test]
fn without_a_limit_nobody_is_banned_and_guessing_is_slowed_down() {
    let mut bans = Bans::new(Settings { offences_max: 0, ..SETTINGS }, Vec::new());
    let tried = (0..1_000).filter(|_| guess(&mut bans, at(1), source(1), 7)).count();

    assert_eq!((tried, outputs(&mut bans).len()), (3, 0));
}

#[test]
fn every_table_has_its_bound() {
    let mut bans = Bans::new(Settings { offences_max: 1_000, ..SETTINGS }, Vec::new());
    for number in 0..200_000 {
        guess(&mut bans, at(1), source(number), 7);
        assert!(bans.tracked() <= limits::SOURCES_TRACKED_MAX);
    }
    for user in 0..900 {
        guess(&mut bans, at(1), source(1), user);
    }
    assert_eq!(bans.users_of(source(1)), limits::USERS_PER_SOURCE_MAX);

    let most = u32::try_from(limits::BANS_MAX).unwrap();
    for number in 0..most + 50 {
        bans.add(at(2), source(number), Duration::from_secs(60 + u64::from(number))).unwrap();
    }
    assert_eq!(bans.list().count(), limits::BANS_MAX);
    assert!(!bans.is_banned(source(0)) && bans.is_banned(source(most + 49)));
    let lifted =
        outputs(&mut bans).into_iter().filter(|output| matches!(output, Output::Lifted(_, Lifted::Full)));
    assert_eq!(lifted.count(), 50);
}

#[test]
fn everything_is_forgotten_in_the_end() {
    let mut bans = bans();
    for number in 0..100 {
        for user in 0..30 {
            guess(&mut bans, at(1), source(number), user);
        }
        guess(&mut bans, at(1), source(1_000 + number), 7);
    }
    let mut timeouts = 0;
    while let Some(next) = bans.poll_timeout() {
        bans.handle_timeout(next);
        timeouts += 1;
        assert!(timeouts < 1_000);
    }
    assert!(bans.is_quiet());
    assert_eq!((bans.tracked(), bans.list().count()), (0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Unproven(u32),
    Proven(u32),
    Guess(u32, u64),
    Right(u32, u64),
    Add(u32, u64),
    Remove(u32),
    Timeout,
}

fn step() -> impl Strategy<Value = Step> {
    let source = 0..4_u32;
    prop_oneof![
        (0..200_u64).prop_map(Step::Wait),
        source.clone().prop_map(Step::Unproven),
        source.clone().prop_map(Step::Proven),
        (source.clone(), 0..5_u64).prop_map(|(source, user)| Step::Guess(source, user)),
        (source.clone(), 0..5_u64).prop_map(|(source, user)| Step::Right(source, user)),
        (source.clone(), 1..500_u64).prop_map(|(source, seconds)| Step::Add(source, seconds)),
        source.prop_map(Step::Remove),
        Just(Step::Timeout),
    ]
}

proptest! {
    /// What the driver is told is what the machine says, nobody is banned without as many proven offences,
    /// no ban outlasts its time, and source 0, who only sends what proves nothing, is never banned.
    #[test]
    fn bans_are_proven_told_once_and_end(steps in proptest::collection::vec(step(), 1..300)) {
        let settings = Settings { offences_max: 4, ..SETTINGS };
        let mut bans = Bans::new(settings, Vec::new());
        let mut now = at(0);
        let mut told: BTreeMap<Source, Instant> = BTreeMap::new();
        let mut proven: BTreeMap<Source, u32> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Wait(seconds) => now = now + Duration::from_secs(seconds),
                Step::Unproven(from) => bans.offence(now, source(from), Offence::Stalled, Proof::None),
                Step::Proven(0) | Step::Guess(0, _) | Step::Add(0, _) => {}
                Step::Proven(from) => {
                    *proven.entry(source(from)).or_default() += 1;
                    bans.offence(now, source(from), Offence::ForgedRoute, Proof::Connection);
                }
                Step::Guess(from, user) => {
                    *proven.entry(source(from)).or_default() += 1;
                    guess(&mut bans, now, source(from), user);
                }
                Step::Right(from, user) => bans.right(now, source(from), UserKey(user)),
                Step::Add(from, seconds) => {
                    bans.add(now, source(from), Duration::from_secs(seconds)).unwrap();
                }
                Step::Remove(from) => {
                    bans.remove(source(from));
                }
                Step::Timeout => bans.handle_timeout(now),
            }
            while let Some(output) = bans.poll_output() {
                match output {
                    Output::Banned(ban) => {
                        if ban.cause != Cause::Operator {
                            prop_assert!(ban.offences >= settings.offences_max);
                            prop_assert!(proven.remove(&ban.source) >= Some(ban.offences));
                            prop_assert!(!told.contains_key(&ban.source), "banned again while banned");
                        }
                        prop_assert!(ban.until <= ban.since + settings.lasts_max);
                        told.insert(ban.source, ban.until);
                    }
                    Output::Lifted(source, why) => {
                        let until = told.remove(&source);
                        prop_assert!(until.is_some(), "lifted without a ban");
                        prop_assert!(why != Lifted::Ended || until <= Some(now));
                    }
                }
            }
            let listed: BTreeMap<_, _> = bans.list().map(|ban| (ban.source, ban.until)).collect();
            prop_assert_eq!(&listed, &told);
            prop_assert_eq!(bans.is_quiet(), bans.tracked() == 0 && told.is_empty());
            prop_assert!(!bans.is_banned(source(0)));
        }
        bans.handle_timeout(now + settings.lasts_max + settings.lasts_max);
        prop_assert_eq!(bans.list().count(), 0);
    }
}
