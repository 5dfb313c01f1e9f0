//! Twenty thousand users under steady load: switchover, failback, and the death of their pool.
//!
//! `TANDEM_DRILL_USERS` sets another number of users. Every figure that is printed was measured in this run.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    fs,
    net::Ipv4Addr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use e2e::{
    ContactLists, Deployment, Operator, Ran, Timing,
    crowd::{Crowd, CrowdPlan, Deed, Entry, Load, outages, percentiles, tally, user_name, users_csv},
    documents::{Write, Writers, missing},
    wait_until,
};

const USERS: u32 = 20_000;
/// Issue: full service, and a planned move, within this time.
const WITHIN: Duration = Duration::from_secs(60);
/// No user may be unreachable for longer while both pools are alive.
const UNREACHABLE_MAX: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(4);
const WRITERS: usize = 2;
const WRITES_PER_S: u32 = 20;
const USERS_WITH_DOCUMENTS: u32 = 200;
const LOAD: Load = Load {
    refreshes: 300,
    messages: 100,
    calls: 40,
    probes: 3_000,
    watched: 200,
    watch_rate: 3,
    probes_via: 1,
    is_partner_only: false,
};

struct Drill {
    deployment: Deployment,
    crowd: Crowd,
    writers: Writers,
}

fn plan() -> CrowdPlan {
    let users = std::env::var("TANDEM_DRILL_USERS").ok().and_then(|text| text.parse().ok()).unwrap_or(USERS);
    CrowdPlan {
        users,
        callers: 32,
        servers: [Deployment::sip("east1"), Deployment::sip("west1")],
        address: Ipv4Addr::new(127, 0, 9, 1),
        expires_s: 600,
        patience: PATIENCE,
    }
}

impl Drill {
    /// The pair and its witness with the default time limits, every user registered at east, under load.
    fn begin(plan: CrowdPlan) -> Self {
        let deployment = Deployment::new(Timing::DEFAULT).unwrap();
        let capacity = |text: &str| text.replace("users_capacity = 12000", "users_capacity = 50000");
        deployment.edit_topology(capacity).unwrap();
        for server in ["control1", "east1", "west1"] {
            deployment.start(server).unwrap();
        }
        for (server, pool) in [("east1", "east"), ("west1", "west")] {
            deployment.wait_serving(server, pool, Some("full"), WITHIN).unwrap();
        }
        let file = deployment.scratch().join("crowd.csv");
        fs::write(&file, users_csv(&plan, ["east", "west"])).unwrap();
        let ran = deployment.tandem(&["user", "import", &file.to_string_lossy()], b"").unwrap();
        assert_eq!(ran.code, 0, "{ran:?}");
        let known = u64::from(plan.users + 2 * plan.callers);
        let mut west = Operator::new(&deployment, "west1", WITHIN);
        wait_until("the users to be copied", WITHIN, || {
            let status = west.ask("GET", "/v1/status", None)?.json()?;
            Ok(status["users_known"].as_u64() >= Some(known))
        })
        .unwrap();
        let crowd = Crowd::start(plan, 64).unwrap();
        let registered = crowd.wait_registered(WITHIN).unwrap();
        println!("{} users registered in {registered:?}", plan.users);
        let users: Vec<String> = (0..plan.users.min(USERS_WITH_DOCUMENTS)).map(user_name).collect();
        let clients = (0..WRITERS).map(|_| ["east1", "west1"].map(|s| ContactLists::new(&deployment, s)));
        let writers = Writers::start(clients.collect(), &users, WRITES_PER_S, PATIENCE).unwrap();
        crowd.set_load(LOAD);
        Self { deployment, crowd, writers }
    }

    fn operate(&self, arguments: &[&str]) -> Ran {
        let all = [&["pool"], arguments, &["--apply", "--output", "json"]].concat();
        self.deployment.begin(&all, b"").unwrap().wait(Duration::from_secs(200)).unwrap()
    }

    /// A planned move under load: nothing fails, nobody is out of reach, nothing is lost.
    fn move_planned(&self, operation: &str) {
        let began = Instant::now();
        let ran = self.operate(&[operation, "east"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(ran.json().unwrap()["result"], "completed", "{ran:?}");
        assert!(ran.took <= WITHIN, "{:?}", ran.took);
        let after = Instant::now();
        let reached = self.crowd.wait_all_reached(after, WITHIN).unwrap();
        let ended = Instant::now();
        // What was begun within the last seconds may still be under way.
        wait_until("requests under way to end", WITHIN, || Ok(ended.elapsed() > PATIENCE)).unwrap();
        let entries: Vec<Entry> =
            self.crowd.entries_since(began).into_iter().filter(|entry| entry.sent < ended).collect();
        let took = |deed: Deed| {
            percentiles(entries.iter().filter(|e| e.deed == deed).map(|e| e.ended - e.sent).collect())
        };
        let redirected = entries.iter().filter(|entry| entry.redirections > 0).count();
        println!(
            "{operation}: {:?}; all {} users reached in the {:?} after it; {} requests, {redirected} \
             redirected; probes answered after {}; calls {}; registrations {}",
            ran.took,
            reached.len(),
            ended - after,
            entries.len(),
            took(Deed::Probe),
            took(Deed::Call),
            took(Deed::Register)
        );
        println!("{operation}: outages: {}", describe_outages(&entries));
        assert_all_good(operation, &entries, began, ended);
        for outage in outages(&entries) {
            assert!(outage.lasted.is_some_and(|lasted| lasted <= UNREACHABLE_MAX), "{operation}: {outage:?}");
        }
        let writes = self.written(began, ended);
        let slowest = writes.iter().map(|write| write.acknowledged.map(|at| at - write.sent)).max().flatten();
        let refused = writes.iter().filter(|write| !write.failures.is_empty()).count();
        println!(
            "{operation}: {} document writes, {refused} refused at first, slowest {slowest:?}",
            writes.len()
        );
        for write in &writes {
            let in_time = write.acknowledged.is_some_and(|at| at - write.sent <= UNREACHABLE_MAX);
            assert!(in_time, "{operation}: {write:?}");
        }
    }

    fn written(&self, from: Instant, to: Instant) -> Vec<Write> {
        let writes = self.writers.writes().into_iter();
        writes.filter(|write| write.sent >= from && write.sent < to).collect()
    }

    /// The lag of documents and bindings of east, as it is shown now at its source.
    fn shown_lag(east: &mut Operator) -> [Duration; 2] {
        let status = east.ask("GET", "/v1/status", None).unwrap().json().unwrap();
        ["documents", "bindings"].map(|what| {
            let copies = status["copies"].as_array().unwrap().iter();
            let mut ours = copies.filter(|copy| copy["home"] == "east" && copy["what"] == what);
            let lag = ours.find_map(|copy| copy["lag_ms"].as_u64());
            Duration::from_millis(lag.unwrap_or_else(|| panic!("no lag of {what} is shown: {status}")))
        })
    }

    /// SIGKILL of the whole pool, and the command.
    fn lose_pool(self) {
        let mut east = Operator::new(&self.deployment, "east1", WITHIN);
        let looked = Instant::now();
        let lag = Self::shown_lag(&mut east);
        self.deployment.kill("east1").unwrap();
        let killed = Instant::now();
        self.crowd.set_load(Load { is_partner_only: true, ..LOAD });
        let commanded = Instant::now();
        let ran = self.operate(&["failover", "east", "--disaster"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        println!(
            "failover --disaster: {:?}, shown lag before the kill: {lag:?} (documents, bindings)",
            ran.took
        );
        let limit = WITHIN.saturating_sub(commanded.elapsed());
        let reached = self.crowd.wait_all_reached(killed, limit).unwrap();
        let found = Instant::now();
        println!("time from SIGKILL until each user was found: {}", percentiles(reached));
        let entries = self.crowd.entries_since(killed);
        println!("outages: {}", describe_outages(&entries));
        println!("requests by kind and status: {:?}", tally(&entries, killed, found));
        let is_full = |entry: &Entry| entry.deed == Deed::Register && entry.is_good() && entry.is_full;
        wait_until("a registration with full service", limit, || {
            Ok(self.crowd.entries_since(killed).iter().any(is_full))
        })
        .unwrap();
        wait_until("a document write after the failover", limit, || {
            Ok(self.written(killed, Instant::now()).iter().any(|write| write.acknowledged.is_some()))
        })
        .unwrap();
        let took = commanded.elapsed();
        assert!(took <= WITHIN, "{took:?}");
        self.count_losses(looked, killed, lag[0], took);
    }

    /// Every document write that was ever acknowledged is there, at home.
    fn end_planned(self) {
        let Self { deployment, crowd, writers } = self;
        let writes = writers.end().unwrap();
        crowd.end().unwrap();
        let lost = missing(&writes, &mut ContactLists::new(&deployment, "east1")).unwrap();
        assert!(lost.is_empty(), "{} of {} writes are lost: {lost:?}", lost.len(), writes.len());
        println!("{} acknowledged document writes, all there after the failback", writes.len());
    }

    fn count_losses(self, looked: Instant, killed: Instant, shown: Duration, took: Duration) {
        let Self { deployment, crowd, writers } = self;
        let writes = writers.end().unwrap();
        crowd.end().unwrap();
        let lost = missing(&writes, &mut ContactLists::new(&deployment, "west1")).unwrap();
        let acknowledged = writes.iter().filter(|write| write.acknowledged.is_some()).count();
        let ages: Vec<Duration> = lost.iter().filter_map(|w| Some(killed - w.acknowledged?)).collect();
        println!(
            "full service {took:?} after the command; {} of {acknowledged} acknowledged document writes are \
             lost, ages at the kill: {}; shown lag {shown:?}",
            lost.len(),
            percentiles(ages)
        );
        for write in lost {
            let age = looked.saturating_duration_since(write.acknowledged.unwrap());
            assert!(age <= shown, "acknowledged {age:?} before a lag of {shown:?} was shown, and lost");
        }
    }
}

fn describe_outages(entries: &[Entry]) -> String {
    let found = outages(entries);
    let unending = found.iter().filter(|outage| outage.lasted.is_none()).count();
    format!("{}, {unending} without end", percentiles(found.iter().filter_map(|o| o.lasted).collect()))
}

fn assert_all_good(what: &str, entries: &[Entry], from: Instant, to: Instant) {
    let counts = tally(entries, from, to);
    let bad: Vec<&Entry> = entries.iter().filter(|entry| !entry.is_good()).take(5).collect();
    assert!(
        bad.is_empty(),
        "{what}: by kind and status {counts:?}, the first: {bad:?} of those from {from:?}"
    );
}

/// One crowd at a time: two would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_crowd_notices_neither_a_switchover_nor_a_failback() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let drill = Drill::begin(plan());
    let from = Instant::now();
    drill.crowd.wait_all_reached(from, WITHIN).unwrap();
    let to = Instant::now();
    wait_until("requests under way to end", WITHIN, || Ok(to.elapsed() > PATIENCE)).unwrap();
    let entries: Vec<Entry> =
        drill.crowd.entries_since(from).into_iter().filter(|entry| entry.sent < to).collect();
    assert_all_good("steady load", &entries, from, to);
    drill.move_planned("switchover");
    drill.move_planned("failback");
    drill.end_planned();
}

#[test]
fn a_crowd_whose_pool_dies_has_everything_at_the_partner_within_a_minute_of_the_command() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let drill = Drill::begin(plan());
    drill.crowd.wait_all_reached(Instant::now(), WITHIN).unwrap();
    drill.lose_pool();
}
