//! The operator's command, the control server and both pools' servers die at every step of every operation:
//! it is completed or undone, never anything else.
//!
//! The steps are those that a run of the operation shows from outside. A step that lasts for a millisecond is
//! made to last: whoever has to catch up cannot read until it was seen.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::time::{Duration, Instant};

use e2e::{
    ContactLists, Deployment, Sight, Timing, Watch, Watcher,
    documents::{Writers, missing},
    wait_until,
};

/// An operation undoes itself after a minute at the latest; a takeover and the hold time may come on top.
const LIMIT: Duration = Duration::from_secs(90);
/// Runs in which a step that lasts for milliseconds may be missed.
const TRIES: usize = 5;
const WRITES_PER_S: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Command,
    Control,
    Home,
    Partner,
}

impl Victim {
    const fn server(self) -> Option<&'static str> {
        match self {
            Self::Command => None,
            Self::Control => Some("control1"),
            Self::Home => Some("east1"),
            Self::Partner => Some("west1"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Switchover,
    Failback,
    Disaster,
}

impl Operation {
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Switchover => &["pool", "switchover", "east", "--apply"],
            Self::Failback => &["pool", "failback", "east", "--apply"],
            Self::Disaster => &["pool", "failover", "east", "--disaster", "--apply"],
        }
    }

    /// Who has to catch up before the users move, and with whom; a disaster waits for nobody.
    const fn copying(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Switchover => Some(["west1", "east1"]),
            Self::Failback => Some(["east1", "west1"]),
            Self::Disaster => None,
        }
    }

    /// The state it begins in.
    const fn from(self) -> &'static str {
        match self {
            Self::Switchover | Self::Disaster => "active",
            Self::Failback => "failed_over",
        }
    }

    /// Fewer steps than these: some were not seen.
    const fn steps_min(self) -> usize {
        match self {
            // Before it; on the way, served; on the way, not served; moved, not served; moved and served.
            Self::Switchover | Self::Failback => 5,
            // Before it; moved and served.
            Self::Disaster => 2,
        }
    }

    /// How long after a step was seen to kill: what a disaster waits for, silence and leases, is no step that
    /// is seen from outside.
    fn moments(self, step: &str) -> &'static [Duration] {
        const WAITS: [Duration; 4] = [
            Duration::ZERO,
            Duration::from_millis(500),
            Duration::from_millis(1_000),
            Duration::from_millis(1_500),
        ];
        if self == Self::Disaster && step.starts_with("active") { &WAITS } else { &[Duration::ZERO] }
    }

    /// The state it ends in when it is completed.
    const fn to(self) -> &'static str {
        match self {
            Self::Switchover | Self::Disaster => "failed_over",
            Self::Failback => "active",
        }
    }
}

struct Bench {
    deployment: Deployment,
    watcher: Watcher,
}

impl Bench {
    fn new() -> Self {
        let deployment = Deployment::new(Timing::FAST).unwrap();
        for server in ["control1", "east1", "west1"] {
            deployment.start(server).unwrap();
        }
        let watcher = Watcher::new(&deployment);
        let mut bench = Self { deployment, watcher };
        bench.settle();
        bench.deployment.wait_users_known(&["east1", "west1"], LIMIT).unwrap();
        // Once there and back: from then on everything is steady.
        bench.bring_to("failed_over");
        bench.bring_to("active");
        bench
    }

    /// Makes the steps before the users move last.
    fn hold_up(&self, operation: Operation) {
        let Some(pair) = operation.copying() else { return };
        // A reader that has not caught up yet would be held up before the users are as good as moved.
        wait_until("a steady copy", LIMIT, || Ok(self.is_copied(pair))).unwrap();
        let [reader, source] = pair.map(|server| Deployment::ip(server).to_string());
        self.deployment.namespace().cut_service(&reader, &source, 8_443).unwrap();
    }

    /// Whether the source of a copy sees its reader close behind, with documents and with bindings.
    fn is_copied(&self, [reader, source]: [&str; 2]) -> bool {
        let status =
            self.deployment.tandem(&["--output", "json", "pool", "status"], b"").unwrap().json().unwrap();
        let asked = status.as_array().unwrap().iter().find(|asked| asked["server"] == source).unwrap();
        ["documents", "bindings"].iter().all(|what| {
            let copies = asked["status"]["copies"].as_array().into_iter().flatten();
            copies.filter(|copy| copy["what"] == *what && copy["home"] == "east").any(|copy| {
                let is_close = copy["lag_ms"].as_u64().is_some_and(|lag| lag < 1_000);
                copy["from"] == source && copy["to"] == reader && copy["state"] != "error" && is_close
            })
        })
    }

    fn let_go(&self, operation: Operation) {
        if operation.copying().is_some() {
            self.deployment.namespace().heal().unwrap();
        }
    }

    /// Waits for a state in which nothing is under way and the owner alone serves.
    fn settle(&mut self) -> Sight {
        let is_settled =
            |sight: &Sight| sight.is_settled() && ["active", "failed_over"].contains(&sight.state.as_str());
        self.watcher.wait("a settled state", LIMIT, is_settled).unwrap()
    }

    /// Brings the home pool into this state by the plain operations.
    fn bring_to(&mut self, state: &str) {
        if self.settle().state == state {
            return;
        }
        let operation = if state == "active" { Operation::Failback } else { Operation::Switchover };
        wait_until("an undisturbed operation", LIMIT, || {
            let ran = self.deployment.begin(operation.arguments(), b"")?.wait(LIMIT)?;
            Ok(ran.code == 0 && self.settle().state == state)
        })
        .unwrap();
    }

    fn prepare(&mut self, operation: Operation) {
        self.bring_to(operation.from());
        if operation == Operation::Disaster {
            self.deployment.kill("east1").unwrap();
        }
    }

    /// Whatever died comes back.
    fn restart(&self) {
        self.restart_all_of(&["control1", "east1", "west1"]);
    }

    fn restart_all_of(&self, servers: &[&str]) {
        for server in servers {
            if !self.deployment.is_running(server) {
                self.deployment.start(server).unwrap();
            }
        }
    }

    /// Every step of an undisturbed run, in order.
    fn steps_of(&mut self, operation: Operation) -> Vec<String> {
        self.prepare(operation);
        let (watch, writers) = self.load(operation);
        self.hold_up(operation);
        let command = self.deployment.begin(operation.arguments(), b"").unwrap();
        let is_over =
            |sight: &Sight| sight.state == operation.to() && (sight.east.is_some() || sight.west.is_some());
        // Held up, it stops serving, serves again and goes on trying: both are seen before it is let go.
        let is_served = |sight: &Sight| sight.east.is_some() || sight.west.is_some();
        let mut seen = Vec::new();
        for served in [false, true] {
            let is_step = |sight: &Sight| sight.state.starts_with("failing") && is_served(sight) == served;
            let held = |sight: &Sight| is_over(sight) || is_step(sight) || command.has_ended();
            seen.extend(self.watcher.steps(LIMIT, held).unwrap());
        }
        self.let_go(operation);
        let ended = |sight: &Sight| is_over(sight) || command.has_ended();
        seen.extend(self.watcher.steps(LIMIT, ended).unwrap());
        let ran = command.wait(LIMIT).unwrap();
        assert_eq!(ran.code, 0, "{operation:?}: {ran:?}");
        self.restart();
        self.settle();
        writers.end().unwrap();
        if let Some(watch) = watch {
            watch.end().unwrap();
        }
        let mut steps: Vec<String> = Vec::new();
        for step in seen {
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
        println!("{operation:?} has {} steps: {steps:#?}", steps.len());
        assert!(steps.len() >= operation.steps_min(), "{operation:?}: {steps:?}");
        steps
    }

    /// Registrations and document writes all the time, each with an account of what was acknowledged.
    fn load(&self, operation: Operation) -> (Option<Watch>, Writers) {
        // A contact list has a bound: the writes of all runs go into several.
        let users = ["1003", "1004", "1005", "1006", "1007", "1008"].map(ToOwned::to_owned);
        let clients = ["east1", "west1"].map(|server| ContactLists::new(&self.deployment, server));
        let writers = Writers::start(vec![clients], &users, WRITES_PER_S, LIMIT).unwrap();
        let watch =
            (operation != Operation::Disaster).then(|| Watch::start(&self.deployment, "1009").unwrap());
        (watch, writers)
    }

    /// One run in which `victim` dies at `step`. `false`: the step was too short to be seen this time.
    fn run(&mut self, operation: Operation, step: &str, after: Duration, victim: Victim) -> bool {
        self.prepare(operation);
        let before = self.watcher.look();
        let (watch, writers) = self.load(operation);
        let is_held_up = step.starts_with("failing");
        if is_held_up {
            self.hold_up(operation);
        }
        let command = self.deployment.begin(operation.arguments(), b"").unwrap();
        let is_end = |sight: &Sight| sight.state == operation.to() && sight.is_settled();
        let is_there = |sight: &Sight| sight.step() == step || is_end(sight) || command.has_ended();
        let at = self.watcher.wait(step, LIMIT, is_there).unwrap();
        let is_hit = at.step() == step;
        let seen = Instant::now();
        wait_until("the moment", LIMIT, || Ok(seen.elapsed() >= after)).unwrap();
        match victim.server() {
            None => command.kill(),
            Some(server) if self.deployment.is_running(server) => self.deployment.kill(server).unwrap(),
            Some(_) => {}
        }
        let killed = Instant::now();
        if is_held_up {
            self.let_go(operation);
        }
        if operation == Operation::Disaster {
            // The lost pool stays lost until somebody serves its users.
            self.restart_all_of(&["control1", "west1"]);
            self.watcher.wait("the partner to serve", LIMIT, |sight| sight.west.is_some()).unwrap();
        }
        self.restart();
        let end = self.settle();
        let took = killed.elapsed();
        if let Some(watch) = watch {
            let changes = watch.end().unwrap().changes_proved();
            let epochs = usize::try_from(self.watcher.look().epoch - before.epoch).unwrap();
            assert!(
                changes <= epochs,
                "{changes} changes of owner in {epochs} epochs: two served at one time"
            );
        }
        let writes = writers.end().unwrap();
        let server = if self.settle().owner == "east" { "east1" } else { "west1" };
        let mut documents = ContactLists::new(&self.deployment, server);
        wait_until("every acknowledged document write to be there", LIMIT, || {
            Ok(missing(&writes, &mut documents)?.is_empty())
        })
        .unwrap();
        let outcome = if end.state == operation.to() { "completed" } else { "undone" };
        println!(
            "{operation:?}, {victim:?} killed {after:?} after \"{}\"{}: {outcome} after {took:?}, \
             then {end}; {} document writes, all there",
            at.step(),
            if is_hit { "" } else { " (missed)" },
            writes.len()
        );
        is_hit
    }

    fn kill_at_every_step(&mut self, operation: Operation, victim: Victim) {
        for step in self.steps_of(operation) {
            for after in operation.moments(&step) {
                let is_hit = (0..TRIES).any(|_| self.run(operation, &step, *after, victim));
                assert!(is_hit, "{operation:?}: the step \"{step}\" was never seen in {TRIES} runs");
            }
        }
    }
}

fn kill(victim: Victim, operations: &[Operation]) {
    let mut bench = Bench::new();
    for operation in operations {
        bench.kill_at_every_step(*operation, victim);
    }
}

#[test]
fn the_operators_command_may_die_at_any_step() {
    kill(Victim::Command, &[Operation::Switchover, Operation::Failback, Operation::Disaster]);
}

#[test]
fn the_control_server_may_die_at_any_step() {
    kill(Victim::Control, &[Operation::Switchover, Operation::Failback, Operation::Disaster]);
}

#[test]
fn the_home_pool_may_die_at_any_step() {
    kill(Victim::Home, &[Operation::Switchover, Operation::Failback]);
}

#[test]
fn the_partner_may_die_at_any_step() {
    kill(Victim::Partner, &[Operation::Switchover, Operation::Failback, Operation::Disaster]);
}
