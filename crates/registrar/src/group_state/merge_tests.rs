//! Copies of users between pools: however they travel, all pools come to the same, and nothing comes back.

use std::time::Duration;

use model::{AddressOfRecord, Epoch, PoolName, WallTime};
use proptest::prelude::*;

use super::*;
use crate::{
    OperationId, Removal,
    test_support::{START, alice, command, read, register},
};

const DEVICES: u8 = 3;
const POOLS: usize = 3;

/// A pool: its group, and by how many seconds its clock is ahead.
#[derive(Clone)]
struct Pool {
    state: GroupState,
    ahead_s: u64,
    operations: u128,
}

/// What a phone asks of one pool, or what one pool tells another.
#[derive(Clone, Copy, Debug)]
enum Step {
    Register { pool: usize, device: u8, expires_s: u32 },
    Unregister { pool: usize, device: u8 },
    RemoveAll { pool: usize },
    Expire { pool: usize },
    Copy { from: usize, to: usize },
}

fn contact(device: u8, port: u16, expires_s: u32) -> String {
    if device == 0 {
        return format!("Contact: <sip:a@h>;expires={expires_s}");
    }
    format!("Contact: <sip:a@h:{port}>;+sip.instance=\"<urn:uuid:{device}>\";expires={expires_s}")
}

impl Pool {
    fn new(ahead_s: u64) -> Self {
        Self { state: GroupState::new(), ahead_s, operations: 0 }
    }

    fn now(&self, true_s: u64) -> WallTime {
        START + Duration::from_secs(self.ahead_s + true_s)
    }

    fn apply(&mut self, true_s: u64, change: UserChange) {
        self.operations += 1;
        let outcome = self.state.apply(&command(self.operations, self.now(true_s), change));
        assert!(matches!(outcome, Outcome::Registered { .. }), "{outcome:?}");
    }

    /// Each REGISTER has a Call-ID of its own, so that only the merge says which one is newer.
    fn register(&mut self, true_s: u64, device: u8, expires_s: u32) {
        let line = contact(device, u16::try_from(5_000 + true_s % 1_000).unwrap(), expires_s);
        let call_id = format!("{}-{true_s}-{}", self.ahead_s, self.operations);
        let change = read(&register(&call_id, 1, &[&line])).unwrap().change.unwrap();
        self.apply(true_s, change);
    }

    fn merge(&mut self, true_s: u64, copy: UserCopy) -> Outcome {
        let east = PoolName::new("east").unwrap();
        let now = self.now(true_s);
        let is_news = self.state.is_news(&alice(), &copy, now);
        let before = self.state.copy_of(&alice(), now);
        let outcome = self.state.apply(&Command::of_copy(east, Epoch::new(1), now, alice(), copy));
        if !is_news {
            assert_eq!(
                sorted(&before),
                sorted(&self.state.copy_of(&alice(), now)),
                "no news changes nothing"
            );
        }
        outcome
    }

    fn copy(&self, true_s: u64) -> UserCopy {
        self.state.copy_of(&alice(), self.now(true_s))
    }

    /// What callers find: each device with the version that is bound.
    fn found(&self, true_s: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        let bindings = self.state.lookup(&alice(), self.now(true_s));
        let name = |binding: &Binding| binding.instance().unwrap_or(binding.uri()).to_vec();
        let mut found: Vec<_> =
            bindings.iter().map(|binding| (name(binding), binding.call_id().to_vec())).collect();
        found.sort();
        found
    }
}

fn sorted(copy: &UserCopy) -> (Vec<String>, Vec<Removal>) {
    let mut bindings: Vec<_> = copy.bindings.iter().map(|binding| format!("{binding:?}")).collect();
    bindings.sort();
    let mut removals = copy.removals.clone();
    removals.sort();
    (bindings, removals)
}

fn copy_between(pools: &mut [Pool], true_s: u64, from: usize, to: usize) {
    let copy = pools[from].copy(true_s);
    pools[to].merge(true_s, copy);
}

/// Everybody tells everybody, twice: what the last one learnt reaches the first one too.
fn exchange(pools: &mut [Pool], true_s: u64) {
    for _ in 0..2 {
        for from in 0..POOLS {
            for to in 0..POOLS {
                copy_between(pools, true_s, from, to);
            }
        }
    }
}

fn take(pools: &mut [Pool], true_s: u64, step: Step) {
    match step {
        Step::Register { pool, device, expires_s } => pools[pool].register(true_s, device, expires_s),
        Step::Unregister { pool, device } => pools[pool].register(true_s, device, 0),
        Step::RemoveAll { pool } => pools[pool].apply(true_s, UserChange::Remove { contact: None }),
        Step::Expire { pool } => {
            let mut expire = command(
                1 << 64 | u128::from(true_s),
                pools[pool].now(true_s),
                UserChange::Remove { contact: None },
            );
            expire.change = Change::Expire { users_max: 10 };
            pools[pool].state.apply(&expire);
        }
        Step::Copy { from, to } => copy_between(pools, true_s, from, to),
    }
    for pool in pools {
        let snapshot = pool.state.encode_snapshot();
        assert_eq!(GroupState::decode_snapshot(&snapshot).as_ref(), Ok(&pool.state));
    }
}

fn step() -> impl Strategy<Value = Step> {
    let pool = || 0..POOLS;
    let expires_s = prop_oneof![Just(600_u32), Just(3_600)];
    prop_oneof![
        4 => (pool(), 0..DEVICES, expires_s)
            .prop_map(|(pool, device, expires_s)| Step::Register { pool, device, expires_s }),
        2 => (pool(), 0..DEVICES).prop_map(|(pool, device)| Step::Unregister { pool, device }),
        1 => pool().prop_map(|pool| Step::RemoveAll { pool }),
        1 => pool().prop_map(|pool| Step::Expire { pool }),
        4 => (pool(), pool()).prop_map(|(from, to)| Step::Copy { from, to }),
    ]
}

fn script() -> impl Strategy<Value = Vec<(Step, u64)>> {
    prop::collection::vec((step(), 1..20_u64), 1..30)
}

fn pools(ahead_s: [u64; POOLS]) -> Vec<Pool> {
    ahead_s.into_iter().map(Pool::new).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn however_copies_travel_all_pools_come_to_the_same(
        script in script(),
        ahead_s in [0..60_u64, 0..60, 0..60],
    ) {
        let mut pools = pools(ahead_s);
        let mut true_s = 0;
        for (step, pause_s) in script {
            true_s += pause_s;
            take(&mut pools, true_s, step);
        }

        exchange(&mut pools, true_s);

        let found: Vec<_> = pools.iter().map(|pool| pool.found(true_s)).collect();
        prop_assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{:?}", found);
    }

    #[test]
    fn copies_may_be_merged_in_any_order_and_any_number_of_times(
        script in script(),
        ahead_s in [0..60_u64, 0..60, 0..60],
    ) {
        let mut pools = pools(ahead_s);
        let mut true_s = 0;
        for (step, pause_s) in script {
            true_s += pause_s;
            take(&mut pools, true_s, step);
        }
        let copies: Vec<_> = pools.iter().map(|pool| pool.copy(true_s)).collect();
        let merged = |order: &[usize]| {
            let mut pool = Pool::new(30);
            for at in order {
                pool.merge(true_s, copies[*at].clone());
            }
            sorted(&pool.copy(true_s))
        };

        let expected = merged(&[0, 1, 2]);

        for order in [&[2, 1, 0][..], &[1, 0, 2], &[0, 0, 1, 2, 1], &[2, 0, 2, 1, 0]] {
            prop_assert_eq!(&merged(order), &expected, "{:?}", order);
        }
    }

    #[test]
    fn pools_that_hear_of_everything_agree_with_one_registrar_whatever_their_clocks_say(
        script in script(),
        ahead_s in [0..60_u64, 0..60, 0..60],
    ) {
        let mut pools = pools(ahead_s);
        let mut one = vec![Pool::new(0); POOLS];
        let mut true_s = 0;
        for (step, pause_s) in script {
            true_s += pause_s;
            take(&mut pools, true_s, step);
            exchange(&mut pools, true_s);
            let everywhere = match step {
                Step::Register { device, expires_s, .. } => Step::Register { pool: 0, device, expires_s },
                Step::Unregister { device, .. } => Step::Unregister { pool: 0, device },
                Step::RemoveAll { .. } => Step::RemoveAll { pool: 0 },
                Step::Expire { .. } | Step::Copy { .. } => Step::Expire { pool: 0 },
            };
            take(&mut one, true_s, everywhere);
            let devices =
                |pool: &Pool| pool.found(true_s).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
            for pool in &pools {
                prop_assert_eq!(devices(pool), devices(&one[0]));
            }
        }
    }

    #[test]
    fn what_was_removed_knowingly_never_comes_back(
        script in script(),
        ahead_s in [0..60_u64, 0..60, 0..60],
    ) {
        let mut pools = pools(ahead_s);
        let mut is_bound = [false; DEVICES as usize];
        let mut true_s = 0;
        for (step, pause_s) in script {
            true_s += pause_s;
            match step {
                Step::Register { device, .. } => is_bound[usize::from(device)] = true,
                Step::Unregister { pool, device } => {
                    for from in 0..POOLS {
                        copy_between(&mut pools, true_s, from, pool);
                    }
                    is_bound[usize::from(device)] = false;
                }
                Step::RemoveAll { pool } => {
                    for from in 0..POOLS {
                        copy_between(&mut pools, true_s, from, pool);
                    }
                    is_bound = [false; DEVICES as usize];
                }
                Step::Expire { .. } | Step::Copy { .. } => {}
            }
            take(&mut pools, true_s, step);
        }

        exchange(&mut pools, true_s);

        for (device, is_bound) in is_bound.into_iter().enumerate() {
            let name = if device == 0 { "sip:a@h".to_owned() } else { format!("<urn:uuid:{device}>") };
            let is_found = pools[0].found(true_s).iter().any(|(found, _)| found == name.as_bytes());
            prop_assert!(is_bound || !is_found, "{}", name);
        }
    }
}

#[test]
fn a_newer_registration_wins_although_its_pools_clock_is_behind() {
    let (mut east, mut west) = (Pool::new(30), Pool::new(0));
    east.register(0, 1, 600);
    west.merge(1, east.copy(1));

    west.register(2, 1, 600);
    east.merge(3, west.copy(3));

    assert_eq!(east.found(3), west.found(3));
    assert!(east.found(3)[0].1.starts_with(b"0-2"), "{:?}", east.found(3));
    let [ends_east, ends_west] =
        [&east, &west].map(|pool| pool.state.lookup(&alice(), pool.now(3))[0].expires_at());
    assert_eq!(ends_east, ends_west);
    assert_eq!(ends_west.as_secs(), west.now(2).as_secs() + 601, "only the version is raised, not the end");
}

#[test]
fn a_removed_binding_stays_removed_for_as_long_as_a_copy_of_it_could_live() {
    let (mut east, mut west) = (Pool::new(0), Pool::new(0));
    east.register(0, 1, 600);
    west.merge(0, east.copy(0));
    // A refresh that west never hears of.
    east.register(299, 1, 600);
    west.register(300, 1, 0);

    for true_s in [301, 599, 602, 898] {
        let mut later = west.clone();
        take(std::slice::from_mut(&mut later), true_s, Step::Expire { pool: 0 });
        let mut home = east.clone();
        home.merge(true_s, later.copy(true_s));
        assert!(home.found(true_s).is_empty(), "{true_s}");
    }
    take(std::slice::from_mut(&mut west), 10_000, Step::Expire { pool: 0 });
    assert_eq!(west.copy(10_000), UserCopy::default());
    assert_eq!(west.state, {
        let mut empty = GroupState::new();
        empty.epoch = west.state.epoch;
        empty.operations = west.state.operations.clone();
        empty
    });
}

#[test]
fn a_registration_that_was_shortened_does_not_come_back_from_a_longer_copy() {
    let (mut east, mut west) = (Pool::new(0), Pool::new(0));
    east.register(0, 0, 3_600);
    west.merge(0, east.copy(0));
    west.register(10, 0, 60);

    take(std::slice::from_mut(&mut west), 100, Step::Expire { pool: 0 });
    east.merge(100, west.copy(100));

    assert!(east.found(100).is_empty());
}

#[test]
fn an_expired_copy_is_not_taken_over_and_a_stale_epoch_is_refused() {
    let (mut east, mut west) = (Pool::new(0), Pool::new(0));
    east.register(0, 1, 60);
    let copy = east.copy(0);

    west.merge(100, copy.clone());
    assert!(west.state.is_empty() && !west.state.is_news(&alice(), &copy, west.now(100)));

    let pool = PoolName::new("east").unwrap();
    let fresh = Command::of_copy(pool.clone(), Epoch::new(5), west.now(1), alice(), UserCopy::default());
    west.state.apply(&fresh);
    let stale = west.state.apply(&Command::of_copy(pool, Epoch::new(4), west.now(1), alice(), copy));
    assert!(matches!(stale, Outcome::Refused(RegisterError::StaleEpoch(_))), "{stale:?}");
    assert!(west.state.is_empty());
}

#[test]
fn a_merge_is_no_operation_that_is_remembered() {
    let (mut east, mut west) = (Pool::new(0), Pool::new(0));
    east.register(0, 1, 600);
    west.merge(0, east.copy(0));
    let operations = west.state.operations.clone();

    east.register(1, 2, 600);
    let outcome = west.merge(1, east.copy(1));

    assert!(matches!(outcome, Outcome::Registered { bindings, .. } if bindings.len() == 2));
    assert_eq!(west.state.operations, operations);
    assert_eq!(west.state.operations.find(OperationId::new(0)), None);
}

#[test]
fn removals_and_bindings_of_one_user_are_bounded() {
    let mut pool = Pool::new(0);
    for number in 0..model::limits::REMOVALS_PER_USER_MAX + 20 {
        for expires_s in [600, 0] {
            let line = format!("Contact: <sip:a{number}@h>;expires={expires_s}");
            let change =
                read(&register(&format!("{number}-{expires_s}"), 1, &[&line])).unwrap().change.unwrap();
            pool.apply(0, change);
        }
    }
    assert_eq!(pool.copy(0).removals.len(), model::limits::REMOVALS_PER_USER_MAX);

    for part in 0..model::limits::BINDINGS_PER_USER_MAX {
        let mut other = Pool::new(1);
        for device in 0..2 {
            let line = format!("Contact: <sip:b{part}x{device}@h>;expires=600");
            let change = read(&register("1", 1, &[&line])).unwrap().change.unwrap();
            other.apply(0, change);
        }
        pool.merge(1, other.copy(1));
    }
    assert_eq!(pool.state.len(), model::limits::BINDINGS_PER_USER_MAX);
}

#[test]
fn users_are_listed_in_order_with_those_who_only_removed_something() {
    let mut state = GroupState::new();
    let aor = |number: u32| AddressOfRecord::new(&format!("sip:u{number:02}@example.com")).unwrap();
    for number in 0..20 {
        for expires_s in [600, if number % 3 == 0 { 0 } else { 600 }] {
            let call_id = format!("{number}-{}", state.operations.iter().count());
            let change = read(&register(&call_id, 1, &[&contact(1, 1, expires_s)])).unwrap().change.unwrap();
            let mut command = command(state.operations.iter().count() as u128, START, change.clone());
            command.change = Change::User { aor: aor(number), change };
            state.apply(&command);
        }
    }

    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = state.users_after(after.as_ref(), 3);
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        listed.extend(page);
    }

    assert_eq!(listed, (0..20).map(aor).collect::<Vec<_>>());
    assert!(state.copy_of(&aor(3), START).bindings.is_empty());
    assert_eq!(state.copy_of(&aor(3), START).removals.len(), 1);
}
