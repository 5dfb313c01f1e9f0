//! What a plan says in each situation.

use std::collections::BTreeMap;

use super::*;

const TOPOLOGY: &str = include_str!("../../example.toml");

fn name(text: &str) -> PoolName {
    PoolName::new(text).unwrap()
}

fn topology() -> Topology {
    Topology::read(TOPOLOGY).unwrap().0
}

fn home(home: &str, owner: &str, state: PoolState, serves: bool) -> HomeStatus {
    HomeStatus {
        home: name(home),
        part: "home".to_owned(),
        owner: Some(name(owner)),
        epoch: Some(Epoch::new(4)),
        service: serves.then(|| "full".to_owned()),
        authority_ms: None,
        bindings: 7,
        state: Some(state),
        order: None,
        undone: None,
        users: 10,
        calls: Some(2),
        conflicts: 0,
    }
}

/// What the servers of a deployment say, by pool; those that are left out do not answer.
struct World {
    topology: Topology,
    said: BTreeMap<&'static str, (Vec<HomeStatus>, Vec<CopyStatus>)>,
}

impl World {
    fn of(east: PoolState, owner: &str) -> Self {
        let mut said = BTreeMap::new();
        said.insert("east", (vec![home("east", owner, east, owner == "east")], Vec::new()));
        said.insert("west", (vec![home("east", owner, east, owner == "west")], Vec::new()));
        said.insert("control", (Vec::new(), Vec::new()));
        Self { topology: topology(), said }
    }

    fn without(mut self, pool: &str) -> Self {
        self.said.remove(pool);
        self
    }

    fn lag(mut self, from: &'static str, to: &str, ms: u64) -> Self {
        let server = |pool: &str| self.topology.servers_of(&name(pool)).next().unwrap().name.clone();
        let copy = CopyStatus {
            home: name("east"),
            what: Copied::Documents,
            from: Some(server(from)),
            to: server(to),
            state: None,
            lag_entries: Some(3),
            lag_ms: Some(ms),
            silent_ms: Some(0),
            pages: None,
            reason: None,
        };
        self.said.get_mut(from).unwrap().1.push(copy);
        self
    }

    fn plan(&self, operation: Operation) -> Plan {
        self.plan_with(operation, None)
    }

    fn plan_with(&self, operation: Operation, loss_max: Option<Duration>) -> Plan {
        let asked: Vec<Asked> = self.topology.servers.iter().map(|server| self.asked(server)).collect();
        plan(&self.topology, &asked, &name("east"), operation, loss_max)
    }

    fn asked(&self, server: &topology::Server) -> Asked {
        let said = self.said.get(server.pool.as_str());
        let status = said.map(|(homes, copies)| ServerStatus {
            server: server.name.clone(),
            pool: server.pool.clone(),
            role: String::new(),
            software: String::new(),
            topology_version: 1,
            uptime_s: 1,
            users_known: 20,
            health: "ok".to_owned(),
            homes: homes.clone(),
            copies: copies.clone(),
            moves: Vec::new(),
            certificates: Vec::new(),
            counters: Vec::new(),
        });
        let error = status.is_none().then(|| "no route".to_owned());
        Asked { server: server.name.clone(), pool: server.pool.clone(), status, error }
    }
}

fn rules(plan: &Plan) -> Vec<&'static str> {
    plan.blockers.iter().map(|blocker| blocker.rule).collect()
}

#[test]
fn a_switchover_between_two_healthy_pools_has_no_blocker_and_says_what_it_does() {
    let plan = World::of(PoolState::Active, "east").lag("east", "west", 40).plan(Operation::Switchover);

    assert_eq!(rules(&plan), Vec::<&str>::new());
    assert_eq!((plan.from, plan.to), (Some(name("east")), Some(name("west"))));
    assert_eq!(plan.state_after, Some(PoolState::FailedOver));
    assert_eq!(plan.would_be_lost[0].entries, Some(3));
    assert_eq!(plan.would_be_lost[0].seconds, Some(0.04));
    assert_eq!(plan.affected, Affected { users: 10, bindings: 7, calls: Some(2) });
    assert!(plan.steps.len() >= 4, "{:?}", plan.steps);
}

#[test]
fn a_failover_of_a_dead_pool_wants_to_hear_that_this_is_a_disaster() {
    let world = World::of(PoolState::Active, "east").without("east");

    assert_eq!(rules(&world.plan(Operation::Failover { disaster: false })), ["home_pool_unreachable"]);
    assert_eq!(rules(&world.plan(Operation::Failover { disaster: true })), Vec::<&str>::new());
    assert_eq!(rules(&world.plan(Operation::Switchover)), ["home_pool_unreachable"]);
}

#[test]
fn a_pool_that_serves_is_no_disaster() {
    let plan = World::of(PoolState::Active, "east").plan(Operation::Failover { disaster: true });

    assert_eq!(rules(&plan), ["home_pool_alive"]);
}

#[test]
fn a_pool_that_was_taken_over_is_failed_over_without_its_consent() {
    let world = World::of(PoolState::TakenOver, "west").without("east");

    assert_eq!(rules(&world.plan(Operation::Failover { disaster: false })), Vec::<&str>::new());
    assert_eq!(
        rules(&world.plan(Operation::Failback { disaster: false })),
        ["returns_by_itself", "home_pool_unreachable"]
    );
}

#[test]
fn what_was_done_is_not_done_again() {
    let world = World::of(PoolState::FailedOver, "west");

    assert_eq!(rules(&world.plan(Operation::Switchover)), ["already_failed_over"]);
    assert_eq!(rules(&world.plan(Operation::Failback { disaster: false })), Vec::<&str>::new());
    assert_eq!(rules(&world.plan(Operation::Cancel)), ["nothing_to_cancel"]);
    assert_eq!(
        rules(&World::of(PoolState::Active, "east").plan(Operation::Failback { disaster: false })),
        ["at_home"]
    );
}

#[test]
fn every_blocker_is_named_at_once() {
    let world = World::of(PoolState::FailedOver, "west").lag("west", "east", 90_000).without("control");

    let plan = world.plan_with(Operation::Failback { disaster: false }, Some(Duration::from_secs(1)));

    assert_eq!(rules(&plan), ["control_store_unreachable", "lag", "lag_unknown"]);
    for blocker in &plan.blockers {
        assert!(!blocker.message.is_empty() && !blocker.remedy.is_empty(), "{blocker:?}");
    }
}

#[test]
fn a_partner_that_cannot_carry_both_populations_is_a_blocker() {
    let mut world = World::of(PoolState::Active, "east");
    for pool in ["east", "west"] {
        for said in &mut world.said.get_mut(pool).unwrap().0 {
            said.users = 20_000;
        }
    }

    assert_eq!(rules(&world.plan(Operation::Switchover)), ["capacity"]);
}

#[test]
fn a_pool_without_partner_cannot_be_failed_over() {
    let text = TOPOLOGY.replace("[[pair]]", "[[ignored]]");
    let alone = TOPOLOGY.split("[[pair]]").next().unwrap();
    assert_ne!(text, TOPOLOGY);
    let world = World { topology: Topology::read(alone).unwrap().0, ..World::of(PoolState::Active, "east") };

    assert_eq!(rules(&world.plan(Operation::Switchover)), ["not_paired"]);
}

#[test]
fn another_operation_under_way_is_named_with_who_ordered_it() {
    let mut world = World::of(PoolState::FailingOver, "east");
    let order = Order {
        id: pairing::OrderId::new(7),
        kind: OrderKind::Switchover,
        epoch: Epoch::new(4),
        ordered_at: model::WallTime::from_micros(1),
        by: pairing::Operator::new("ada@noc").unwrap(),
    };
    for said in world.said.values_mut().flat_map(|(homes, _)| homes) {
        said.order = Some(order.clone());
    }

    let other = world.plan(Operation::Failback { disaster: false });
    let same = world.plan(Operation::Switchover);

    assert_eq!(rules(&other), ["other_operation"]);
    assert!(other.blockers[0].message.contains("ada@noc"), "{:?}", other.blockers);
    assert_eq!(same.under_way, Some(order));
    assert_eq!(rules(&same), Vec::<&str>::new());
}

#[test]
fn users_come_home_from_a_lost_partner_only_when_that_is_said() {
    let lost = World::of(PoolState::FailedOver, "west").without("west");
    let plan = lost.plan(Operation::Failback { disaster: false });
    assert_eq!(rules(&plan), ["partner_unreachable"]);
    assert!(plan.blockers[0].remedy.contains("--disaster"), "{plan:?}");

    let plan = lost.plan(Operation::Failback { disaster: true });
    assert_eq!(rules(&plan), [""; 0]);
    assert_eq!((plan.to, plan.state_after), (Some(name("east")), Some(PoolState::Active)));

    let alive = World::of(PoolState::FailedOver, "west");
    assert_eq!(rules(&alive.plan(Operation::Failback { disaster: true })), ["partner_alive"]);
    let home = World::of(PoolState::Active, "east").without("west");
    assert_eq!(rules(&home.plan(Operation::Failback { disaster: true })), ["at_home"]);
}
