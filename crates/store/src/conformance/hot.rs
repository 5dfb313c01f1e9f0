//! The suite of [`HotStore`].

mod changes;
mod commands;

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
};

use model::{AddressOfRecord, Epoch, PoolName, RoutingGroup, WallTime, limits};
use registrar::{Change, Command, OperationId, Outcome};

pub use self::commands::{register, unregister, user};
use crate::{Health, HotError, HotStore};

/// Opens the store under test.
pub trait HotFactory {
    /// The implementation.
    type Store: HotStore;

    /// A store that holds nothing.
    fn create(&self) -> Self::Store;

    /// The same store again, after `store` was closed.
    fn reopen(&self, store: Self::Store) -> Self::Store;
}

/// Runs every check on fresh stores.
pub fn hot_store(factory: &impl HotFactory) {
    what_is_acknowledged_is_seen_also_after_reopening(factory);
    results_come_in_the_order_of_the_commands(factory);
    a_repeated_operation_is_recognised_after_reopening(factory);
    a_lower_epoch_is_refused_for_good(factory);
    expired_bindings_are_let_go(factory);
    home_pools_are_separate(factory);
    many_submitters_are_all_served(factory);
    too_many_commands_are_refused_at_once(factory);
    a_long_history_is_read_back_exactly(factory);
    changes::changes(factory);
}

/// When the commands of the suite are made.
const NOW: WallTime = WallTime::from_secs(1_800_000_000);

/// Submits and waits for the results.
pub fn submit_and_wait(store: &impl HotStore, batch: Vec<Command>) -> Vec<Result<Outcome, HotError>> {
    let count = batch.len();
    let (sender, receiver) = mpsc::channel();
    store.submit(batch, Box::new(move |results| drop(sender.send(results))));
    let results = receiver.recv().expect("a submission is answered");
    assert_eq!(results.len(), count, "one result for each command");
    results
}

/// Every binding of a home pool as text, in the order of the store.
pub fn listing(store: &impl HotStore, home: &PoolName) -> Vec<String> {
    let mut lines = Vec::new();
    store.for_each_binding(home, &mut |aor, binding| lines.push(format!("{aor} {binding:?}")));
    lines
}

fn pool(name: &str) -> PoolName {
    PoolName::new(name).expect("the name is a label")
}

fn uris(outcome: Option<&Result<Outcome, HotError>>) -> Vec<String> {
    let bindings = match outcome {
        Some(Ok(Outcome::Registered { bindings, .. })) => Some(bindings),
        Some(Ok(Outcome::Expired { .. } | Outcome::Refused(_)) | Err(_)) | None => None,
    };
    let bindings = bindings.unwrap_or_else(|| unreachable!("a registration, not {outcome:?}"));
    bindings.iter().map(|binding| String::from_utf8_lossy(binding.uri()).into_owned()).collect()
}

fn what_is_acknowledged_is_seen_also_after_reopening(factory: &impl HotFactory) {
    let store = factory.create();
    let (east, west) = (pool("east"), pool("west"));
    assert!(store.lookup(&east, &user(1), NOW).is_empty(), "an unknown home pool has no bindings");
    assert_eq!((store.homes(), store.bindings(&east)), (Vec::new(), 0));

    let batch: Vec<_> = (0..200).map(|number| register(&east, number, 1, NOW)).collect();
    assert!(submit_and_wait(&store, batch).iter().all(Result::is_ok));
    assert!(submit_and_wait(&store, vec![register(&west, 7, 1, NOW)]).iter().all(Result::is_ok));
    submit_and_wait(&store, vec![register(&east, 3, 2, NOW), unregister(&east, 4, 2, NOW)]);
    assert!(submit_and_wait(&store, Vec::new()).is_empty(), "nothing to do is answered too");
    let before = (listing(&store, &east), listing(&store, &west));
    let store = factory.reopen(store);

    assert_eq!((listing(&store, &east), listing(&store, &west)), before);
    assert_eq!((store.bindings(&east), store.bindings(&west)), (199, 1));
    assert_eq!(store.homes(), [east.clone(), west]);
    let seen: Vec<_> =
        (0..200).filter(|number| !store.lookup(&east, &user(*number), NOW).is_empty()).collect();
    assert_eq!(seen, (0..200).filter(|number| *number != 4).collect::<Vec<_>>());
    let third = store.lookup(&east, &user(3), NOW);
    assert_eq!(third.iter().map(registrar::Binding::cseq).collect::<Vec<_>>(), [2]);
    assert_eq!(store.health(), Health::Good);
}

fn results_come_in_the_order_of_the_commands(factory: &impl HotFactory) {
    let store = factory.create();
    let east = pool("east");

    let results = submit_and_wait(
        &store,
        vec![
            register(&east, 1, 5, NOW),
            register(&east, 2, 1, NOW),
            register(&east, 1, 4, NOW),
            unregister(&east, 1, 6, NOW),
            register(&east, 3, 1, NOW),
        ],
    );

    assert_eq!(uris(results.first()).len(), 1);
    assert!(uris(results.get(1)).iter().all(|uri| uri.contains("u0000002")));
    assert!(matches!(results.get(2), Some(Ok(Outcome::Refused(_)))), "an older CSeq is refused");
    assert_eq!(uris(results.get(3)), Vec::<String>::new());
    assert!(uris(results.get(4)).iter().all(|uri| uri.contains("u0000003")));
    assert!(store.lookup(&east, &user(1), NOW).is_empty());
}

fn a_repeated_operation_is_recognised_after_reopening(factory: &impl HotFactory) {
    let store = factory.create();
    let east = pool("east");
    let command = register(&east, 1, 1, NOW);
    submit_and_wait(&store, vec![command.clone()]);

    let again = submit_and_wait(&store, vec![command.clone()]);
    let store = factory.reopen(store);
    let later = submit_and_wait(&store, vec![command.clone()]);
    let other = Command { operation: OperationId::new(987_654_321), ..command };
    let refused = submit_and_wait(&store, vec![other]);

    assert_eq!(uris(again.first()).len(), 1);
    assert_eq!(uris(later.first()).len(), 1, "the same operation is answered with success");
    assert!(
        matches!(refused.first(), Some(Ok(Outcome::Refused(_)))),
        "another one with the same CSeq is not"
    );
}

fn a_lower_epoch_is_refused_for_good(factory: &impl HotFactory) {
    let store = factory.create();
    let east = pool("east");
    let with = |epoch: u64, cseq: u32| Command { epoch: Epoch::new(epoch), ..register(&east, 1, cseq, NOW) };
    submit_and_wait(&store, vec![with(3, 1)]);

    let stale = submit_and_wait(&store, vec![with(2, 2)]);
    let store = factory.reopen(store);
    let later = submit_and_wait(&store, vec![with(2, 3)]);

    for results in [stale, later] {
        assert!(matches!(results.first(), Some(Ok(Outcome::Refused(_)))), "{results:?}");
    }
    assert_eq!(store.highest_epoch(&east), Epoch::new(3));
    assert_eq!(store.highest_epoch(&pool("west")), Epoch::ZERO);
    assert_eq!(
        store.lookup(&east, &user(1), NOW).iter().map(registrar::Binding::cseq).collect::<Vec<_>>(),
        [1]
    );
}

fn expired_bindings_are_let_go(factory: &impl HotFactory) {
    let store = factory.create();
    let east = pool("east");
    submit_and_wait(&store, (0..50).map(|number| register(&east, number, 1, NOW)).collect());
    let later = NOW + std::time::Duration::from_secs(100_000);

    assert!(store.lookup(&east, &user(1), later).is_empty(), "what has expired is not seen");
    assert_eq!(store.bindings(&east), 50, "but held");
    let expiries: Vec<_> = RoutingGroup::all()
        .map(|group| Command {
            group,
            now: later,
            operation: OperationId::new(1_000_000 + u128::from(group.number())),
            change: Change::Expire { users_max: 1_000 },
            ..register(&east, 0, 1, NOW)
        })
        .collect();
    let results = submit_and_wait(&store, expiries);

    let expired: u32 = results
        .iter()
        .map(|result| match result {
            Ok(Outcome::Expired { bindings }) => *bindings,
            Ok(Outcome::Registered { .. } | Outcome::Refused(_)) | Err(_) => 0,
        })
        .sum();
    assert_eq!((expired, store.bindings(&east)), (50, 0));
    assert_eq!(factory.reopen(store).bindings(&east), 0);
}

fn home_pools_are_separate(factory: &impl HotFactory) {
    let store = factory.create();
    let pools: Vec<_> = (0..20).map(|number| pool(&format!("branch{number}"))).collect();
    for home in &pools {
        submit_and_wait(&store, vec![register(home, 1, 1, NOW)]);
    }
    let last = pools.last().expect("there are pools");
    submit_and_wait(&store, vec![unregister(last, 1, 2, NOW)]);

    let store = factory.reopen(store);

    let held: usize = pools.iter().map(|home| store.lookup(home, &user(1), NOW).len()).sum();
    assert_eq!((held, store.bindings(last)), (19, 0));
}

fn many_submitters_are_all_served(factory: &impl HotFactory) {
    const THREADS: u64 = 4;
    const EACH: u64 = 500;
    let store = factory.create();
    let east = pool("east");
    let acknowledged: Arc<Mutex<Vec<u64>>> = Arc::default();

    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, east, acknowledged) = (&store, &east, Arc::clone(&acknowledged));
            scope.spawn(move || {
                for number in thread * EACH..(thread + 1) * EACH {
                    let acknowledged = Arc::clone(&acknowledged);
                    let reply = move |results: Vec<Result<Outcome, HotError>>| {
                        if matches!(results.first(), Some(Ok(Outcome::Registered { .. }))) {
                            acknowledged.lock().expect("no reply panics").push(number);
                        }
                    };
                    store.submit(vec![register(east, number, 1, NOW)], Box::new(reply));
                }
                submit_and_wait(store, vec![register(east, thread * EACH, 2, NOW)]);
            });
        }
    });

    let acknowledged = acknowledged.lock().expect("no reply panics").clone();
    let store = factory.reopen(store);
    assert_eq!(acknowledged.len(), usize::try_from(THREADS * EACH).unwrap_or(0), "nobody is refused");
    assert!(acknowledged.iter().all(|number| !store.lookup(&east, &user(*number), NOW).is_empty()));
}

fn too_many_commands_are_refused_at_once(factory: &impl HotFactory) {
    let store = factory.create();
    let east = pool("east");
    let command = register(&east, 1, 1, NOW);

    let results = submit_and_wait(&store, vec![command; limits::COMMANDS_WAITING_MAX + 1]);

    assert!(results.iter().all(|result| *result == Err(HotError::Overloaded)));
    assert_eq!(store.bindings(&east), 0);
    assert!(submit_and_wait(&store, vec![register(&east, 1, 1, NOW)]).iter().all(Result::is_ok));
}

fn a_long_history_is_read_back_exactly(factory: &impl HotFactory) {
    const ROUNDS: u32 = 60;
    const USERS: u64 = 500;
    let mut store = factory.create();
    let east = pool("east");
    // All of one routing group, so that its log is replaced by a snapshot more than once.
    let group = RoutingGroup::of(&user(0));
    let users: Vec<u64> = (0..)
        .filter(|number| RoutingGroup::of(&user(*number)) == group)
        .take(usize::try_from(USERS).unwrap_or(0))
        .collect();

    for round in 1..=ROUNDS {
        let batch = users.iter().map(|number| {
            let is_leaving = (number + u64::from(round)).is_multiple_of(7);
            if is_leaving {
                unregister(&east, *number, round, NOW)
            } else {
                register(&east, *number, round, NOW)
            }
        });
        let results = submit_and_wait(&store, batch.collect());
        assert!(results.iter().all(|result| matches!(result, Ok(Outcome::Registered { .. }))));
        if round % 20 == 0 {
            let before = listing(&store, &east);
            store = factory.reopen(store);
            assert_eq!(listing(&store, &east), before, "round {round}");
        }
    }

    let expected: Vec<AddressOfRecord> = users
        .iter()
        .filter(|number| !(**number + u64::from(ROUNDS)).is_multiple_of(7))
        .map(|number| user(*number))
        .collect();
    let mut held = Vec::new();
    store.for_each_binding(&east, &mut |aor, binding| {
        assert_eq!(binding.cseq(), ROUNDS);
        held.push(aor.clone());
    });
    assert_eq!(held, expected);
    assert_eq!(store.health(), Health::Good);
}
