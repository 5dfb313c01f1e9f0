//! Operations on pools as their operator gives them: switchover, failover, failback, what is refused and why,
//! and what becomes of changes that only a lost pool had.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use e2e::{
    ContactLists, Deployment, Operator, Phone, Ran, Timing, Via, Watcher,
    documents::{Documents, Written},
    wait_until,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// No user may be out of reach for longer while both pools are alive.
const UNREACHABLE_MAX: Duration = Duration::from_secs(2);

/// `tandem ARGUMENTS --output json`.
fn run(deployment: &Deployment, arguments: &[&str]) -> Ran {
    deployment.begin(&[arguments, &["--output", "json"]].concat(), b"").unwrap().wait(2 * LIMIT).unwrap()
}

fn succeeds(deployment: &Deployment, arguments: &[&str]) -> Value {
    let ran = run(deployment, arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    ran.json().unwrap()
}

/// An operation on east that is carried out to its end.
fn completes(deployment: &Deployment, arguments: &[&str]) -> Duration {
    let ran = run(deployment, &[&["pool"], arguments, &["--apply"]].concat());
    assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    let done = ran.json().unwrap();
    assert_eq!(done["result"], "completed", "{done}");
    println!("{}: {:?} in all, now {} at {}", arguments.join(" "), ran.took, done["state"], done["owner"]);
    ran.took
}

/// A failback as soon as west has heard east again, which was just started; until then it is refused.
fn fails_back_when_heard(deployment: &Deployment) {
    wait_until("west to hear east", LIMIT, || {
        let ran = run(deployment, &["pool", "failback", "east", "--apply"]);
        if ran.code != 0 {
            println!("failback: {}", ran.err.trim_end());
            assert!(ran.err.contains("the other pool does not answer"), "{ran:?}");
            return Ok(false);
        }
        assert_eq!(ran.json()?["result"], "completed");
        Ok(true)
    })
    .unwrap();
}

/// The names of everything that speaks against an operation. With and without `--apply` it is the same, and
/// nothing changes.
fn blockers(deployment: &Deployment, arguments: &[&str]) -> Vec<String> {
    let before = Watcher::new(deployment).look();
    let all = [&["pool"], arguments].concat();
    let rules = |ran: &Ran| -> Vec<String> {
        assert_eq!(ran.code, 1, "{arguments:?}: {ran:?}");
        let plan = ran.json().unwrap();
        let found = plan["blockers"].as_array().unwrap();
        found.iter().map(|blocker| blocker["rule"].as_str().unwrap().to_owned()).collect()
    };
    let planned = rules(&run(deployment, &all));
    let applied = run(deployment, &[&all[..], &["--apply"]].concat());
    assert!(applied.err.contains("nothing was changed"), "{applied:?}");
    assert_eq!(rules(&applied), planned);
    let after = Watcher::new(deployment).look();
    assert_eq!((before.epoch, &before.owner), (after.epoch, &after.owner), "{arguments:?}");
    println!("{}: {}", arguments.join(" "), planned.join(", "));
    planned
}

fn phone(deployment: &Deployment, user: &str, via: Via, server: &str) -> Phone {
    let phone = Phone::new(deployment, user, via, server, "127.0.0.1").unwrap();
    assert_eq!(phone.register(300).unwrap().status, 200);
    phone
}

fn forward_busy(deployment: &Deployment, user: &str, to: &str) {
    let (aor, to) = (format!("{user}@example.com"), format!("{to}@example.com"));
    let arguments = ["user", "settings", "set", &aor, "--forward-busy", &to];
    let ran = deployment.tandem(&arguments, b"").unwrap();
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn busy_goes_to(deployment: &Deployment, user: &str) -> String {
    let shown = succeeds(deployment, &["user", "settings", "show", &format!("{user}@example.com")]);
    let uri = shown["forwarding"]["busy"].as_str().unwrap_or_default();
    uri.trim_start_matches("sip:").split('@').next().unwrap().to_owned()
}

/// One MESSAGE of a prober.
struct Probe {
    through: &'static str,
    to: String,
    sent: Instant,
    received: Instant,
    /// `None`: no answer.
    status: Option<u16>,
}

/// A user who sends a MESSAGE to each of some phones, again and again, through one server.
struct Prober {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Probe>>,
}

impl Prober {
    fn start(deployment: &Deployment, user: &str, through: &'static str, targets: &[&str]) -> Self {
        let phone = Phone::new(deployment, user, Via::Udp, through, "127.0.0.1").unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let thread = thread::spawn(move || {
            let mut probes = Vec::new();
            for to in targets.iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let sent = Instant::now();
                let status = phone.message(to, "are you there?").ok().map(|answer| answer.status);
                probes.push(Probe { through, to: to.clone(), sent, received: Instant::now(), status });
            }
            probes
        });
        Self { is_over, thread }
    }

    fn end(self) -> Vec<Probe> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The longest time between two answers of one phone through one server, for each of them.
fn longest_gaps(probes: &[Probe]) -> BTreeMap<(&'static str, String), Duration> {
    let mut last: BTreeMap<(&'static str, String), Instant> = BTreeMap::new();
    let mut gaps: BTreeMap<(&'static str, String), Duration> = BTreeMap::new();
    for probe in probes {
        let key = (probe.through, probe.to.clone());
        let since = *last.entry(key.clone()).or_insert(probe.sent);
        let gap = gaps.entry(key.clone()).or_default();
        *gap = (*gap).max(probe.received - since);
        if probe.status == Some(200) {
            last.insert(key, probe.received);
        }
    }
    gaps
}

fn assert_always_reached(what: &str, probes: &[Probe]) {
    let failed: Vec<_> = probes.iter().filter(|probe| probe.status != Some(200)).collect();
    let gaps = longest_gaps(probes);
    let (worst, gap) = gaps.iter().max_by_key(|(_, gap)| **gap).unwrap();
    println!(
        "{what}: {} messages, {} failed; longest gap {gap:?} ({} through {})",
        probes.len(),
        failed.len(),
        worst.1,
        worst.0
    );
    let shown: Vec<_> = failed.iter().take(5).map(|p| (p.through, &p.to, p.status)).collect();
    assert!(failed.is_empty(), "{what}: {shown:?}");
    assert!(*gap < UNREACHABLE_MAX, "{what}: {gaps:?}");
}

fn put(deployment: &Deployment, server: &str, user: &str, item: &str) {
    let written = ContactLists::new(deployment, server).write(user, item);
    assert_eq!(written, Written::Acknowledged, "{item} of {user} at {server}");
}

fn contacts(deployment: &Deployment, server: &str, user: &str) -> Vec<String> {
    ContactLists::new(deployment, server).read(user).unwrap().into_iter().collect()
}

/// What a REGISTER at a server that does not serve the user is answered: where to go, best first.
fn sent_to(phone: &Phone) -> Vec<String> {
    let answer = phone.register(300).unwrap();
    assert_eq!(answer.status, 302, "{:?}", answer.message);
    answer.message.values("Contact")
}

#[test]
fn a_switchover_and_a_failback_lose_nothing_and_no_phone_is_out_of_reach() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    let udp = phone(&deployment, "1003", Via::Udp, "east1");
    let tcp = phone(&deployment, "1004", Via::Tcp, "east1");
    let _tls = phone(&deployment, "1005", Via::Tls, "east1");
    put(&deployment, "east1", "1003", "before");
    let add = ["user", "contacts", "add", "1003@example.com", "1004@example.com", "--name", "Bob"];
    assert_eq!(deployment.tandem(&add, b"").unwrap().code, 0);
    forward_busy(&deployment, "1003", "1006");
    let probers = |targets: &[&str]| {
        [("2003", "west1"), ("1008", "east1")]
            .map(|(user, server)| Prober::start(&deployment, user, server, targets))
    };

    let before = Watcher::new(&deployment).look();
    let plan = succeeds(&deployment, &["pool", "switchover", "east"]);
    assert_eq!((&plan["from"], &plan["to"]), (&json!("east"), &json!("west")), "{plan}");
    assert_eq!(plan["affected"]["users"], 10, "{plan}");
    assert_eq!(plan["affected"]["bindings"], 3, "{plan}");
    assert_eq!(Watcher::new(&deployment).look(), before, "a plan changes nothing");

    let probing = probers(&["1003", "1004", "1005"]);
    completes(&deployment, &["switchover", "east"]);
    assert_eq!(contacts(&deployment, "west1", "1003"), ["1004", "before"]);
    put(&deployment, "west1", "1003", "during");
    assert_eq!(busy_goes_to(&deployment, "1003"), "1006");
    let refused = ContactLists::new(&deployment, "east1").write("1003", "astray");
    assert!(matches!(&refused, Written::Refused(403, text) if text.contains("west")), "{refused:?}");
    for (phone, transport) in [(&udp, "udp"), (&tcp, "tcp")] {
        let contacts = sent_to(phone);
        assert_eq!(contacts[0], format!("<sip:127.0.2.1:5060;transport={transport}>;q=0.7"), "{contacts:?}");
    }
    udp.use_server(Deployment::sip("west1"));
    let welcomed = udp.register(300).unwrap();
    assert_eq!((welcomed.status, welcomed.mode().as_deref()), (200, Some("full")));
    let probes: Vec<Probe> = probing.into_iter().flat_map(Prober::end).collect();
    assert_always_reached("switchover", &probes);

    let probing = probers(&["1003", "1004", "1005"]);
    let took = completes(&deployment, &["failback", "east"]);
    assert!(took < Duration::from_secs(5), "nothing waits for a question that nobody answers: {took:?}");
    put(&deployment, "east1", "1003", "after");
    assert_eq!(contacts(&deployment, "east1", "1003"), ["1004", "after", "before", "during"]);
    let forwarded = udp.register(300).unwrap();
    assert_eq!(forwarded.status, 200, "a second flow: {:?}", forwarded.message);
    assert!(forwarded.header("Path").is_some_and(|path| path.contains("127.0.2.1")));
    udp.use_server(Deployment::sip("east1"));
    let welcomed = udp.register(300).unwrap();
    assert_eq!((welcomed.status, welcomed.mode().as_deref()), (200, Some("full")));
    let probes: Vec<Probe> = probing.into_iter().flat_map(Prober::end).collect();
    assert_always_reached("failback", &probes);
    let home = Watcher::new(&deployment).look();
    assert_eq!((home.state.as_str(), home.owner.as_str(), home.epoch), ("active", "east", before.epoch + 2));
}

fn status_of(deployment: &Deployment, server: &str) -> Value {
    Operator::new(deployment, server, LIMIT).ask("GET", "/v1/status", None).unwrap().json().unwrap()
}

/// The lag of east's documents at west as east shows it.
fn lag_shown(deployment: &Deployment) -> (u64, u64) {
    lag_between(deployment, "east1", "west1")
}

fn lag_between(deployment: &Deployment, source: &str, reader: &str) -> (u64, u64) {
    let status = status_of(deployment, source);
    let copies = status["copies"].as_array().unwrap();
    let of_reader =
        |copy: &&Value| copy["home"] == "east" && copy["what"] == "documents" && copy["to"] == reader;
    let copy = copies.iter().find(of_reader).unwrap_or_else(|| panic!("{status}"));
    (copy["lag_entries"].as_u64().unwrap(), copy["lag_ms"].as_u64().unwrap())
}

fn calls_of(deployment: &Deployment, user: &str) -> Vec<Value> {
    let shown = succeeds(deployment, &["user", "calls", &format!("{user}@example.com")]);
    shown.as_array().unwrap().clone()
}

/// Changes at east that west does not have: a contact, three settings, a call with its records.
fn make_orphans(deployment: &Deployment, caller: &Phone, called: &Phone) {
    deployment.namespace().cut("127.0.1.1", "127.0.2.1").unwrap();
    put(deployment, "east1", "1003", "orphan");
    for user in ["1004", "1005", "1006"] {
        forward_busy(deployment, user, "1007");
    }
    let call = caller.call(called.user()).unwrap().unwrap();
    called.wait_acknowledged().unwrap();
    assert_eq!(call.bye().unwrap().status, 200);
    wait_until("the call to be written down", LIMIT, || {
        let calls = calls_of(deployment, "1003");
        Ok(calls.first().is_some_and(|call| !call["ended_at"].is_null()))
    })
    .unwrap();
    let (entries, ms) = lag_shown(deployment);
    println!("what would be lost: {entries} changes, the oldest {ms} ms old");
    assert!(entries >= 6 && ms > 0, "{entries} changes, {ms} ms");
}

#[test]
fn a_lost_pool_is_failed_over_and_what_only_it_had_comes_home() {
    let deployment = Deployment::running(Timing { takeover_s: 20, ..Timing::FAST }).unwrap();
    let phones =
        [phone(&deployment, "1003", Via::Udp, "east1"), phone(&deployment, "1004", Via::Udp, "east1")];
    put(&deployment, "east1", "1003", "copied");
    forward_busy(&deployment, "1004", "1008");
    wait_until("the copy", LIMIT, || Ok(lag_shown(&deployment).0 == 0)).unwrap();
    make_orphans(&deployment, &phones[0], &phones[1]);

    deployment.kill("east1").unwrap();
    let killed = Instant::now();
    assert_eq!(blockers(&deployment, &["failover", "east"]), ["home_pool_unreachable"]);
    let told = deployment.tandem(&["pool", "failover", "east"], b"").unwrap();
    assert!(told.out.contains("--disaster"), "{}", told.out);
    let unknown = blockers(&deployment, &["failover", "east", "--disaster", "--max-loss", "5"]);
    assert!(unknown.contains(&"lag_unknown".to_owned()), "{unknown:?}");
    completes(&deployment, &["failover", "east", "--disaster"]);
    // Not before: the kernel still sends what the killed server had handed to it.
    deployment.namespace().heal().unwrap();
    let took = killed.elapsed();
    println!("full service at west {took:?} after the kill; takeover by itself would have been after 20 s");
    assert!(took < Duration::from_secs(20), "{took:?}");

    for phone in &phones {
        phone.use_server(Deployment::sip("west1"));
        let answer = phone.register(300).unwrap();
        assert_eq!((answer.status, answer.mode().as_deref()), (200, Some("full")));
    }
    assert_eq!(phones[0].message("1004", "hello").unwrap().status, 200);
    assert_eq!(contacts(&deployment, "west1", "1003"), ["copied"]);
    put(&deployment, "west1", "1003", "meanwhile");
    forward_busy(&deployment, "1004", "1009");
    forward_busy(&deployment, "1005", "1009");

    deployment.start("east1").unwrap();
    fails_back_when_heard(&deployment);
    assert_eq!(contacts(&deployment, "east1", "1003"), ["copied", "meanwhile", "orphan"], "replayed");
    assert_eq!(busy_goes_to(&deployment, "1006"), "1007", "applied");
    assert_eq!(calls_of(&deployment, "1003").len(), 1, "united");
    resolve_both_ways(&deployment);
}

/// The settings of 1004 and 1005 were changed at both pools.
fn resolve_both_ways(deployment: &Deployment) {
    let listed = succeeds(deployment, &["conflicts", "list"]);
    let listed = listed.as_array().unwrap();
    let mut users: Vec<_> = listed.iter().map(|conflict| conflict["aor"].as_str().unwrap()).collect();
    users.sort_unstable();
    assert_eq!(users, ["sip:1004@example.com", "sip:1005@example.com"], "{listed:#?}");
    let status = status_of(deployment, "east1");
    let east = status["homes"].as_array().unwrap().iter().find(|home| home["home"] == "east").unwrap();
    assert_eq!(east["conflicts"], 2, "{east}");
    let metrics = Operator::new(deployment, "east1", LIMIT).ask("GET", "/metrics", None).unwrap();
    for line in
        ["tandem_home_conflicts{home=\"east\"} 2.0", "tandem_home_owner{home=\"east\",owner=\"east\"} 1.0"]
    {
        assert!(metrics.body.lines().any(|found| found == line), "{line} in {}", metrics.body);
    }
    for conflict in listed {
        let (id, aor) = (conflict["id"].as_str().unwrap(), conflict["aor"].as_str().unwrap());
        assert_eq!(conflict["about"], "settings", "{conflict}");
        let shown = succeeds(deployment, &["conflicts", "show", id]).to_string();
        assert!(shown.contains("1007@") && shown.contains("1009@"), "both versions: {shown}");
        let (keep, left) = if aor.contains("1004") { ("present", "1009") } else { ("orphan", "1007") };
        succeeds(deployment, &["conflicts", "resolve", id, "--keep", keep]);
        let user = aor.trim_start_matches("sip:").split('@').next().unwrap();
        assert_eq!(busy_goes_to(deployment, user), left, "{keep} of {aor} is kept");
        let again = deployment.tandem(&["conflicts", "resolve", id, "--keep", keep], b"").unwrap();
        assert_eq!(again.code, 1, "{again:?}");
        assert!(again.err.contains("there is no conflict"), "{again:?}");
        println!("conflict of {aor}: kept {keep}");
    }
    assert_eq!(succeeds(deployment, &["conflicts", "list"]), json!([]));
}

#[test]
fn a_pool_takes_its_users_home_from_a_partner_that_died() {
    let deployment = Deployment::running(Timing { takeover_s: 20, ..Timing::FAST }).unwrap();
    completes(&deployment, &["switchover", "east"]);
    let copies = status_of(&deployment, "east1")["copies"].to_string();
    assert!(copies.contains("\"state\":\"final\""), "east has stopped and west has everything: {copies}");
    put(&deployment, "west1", "1003", "copied");
    wait_until("the copy", LIMIT, || Ok(lag_between(&deployment, "west1", "east1").0 == 0)).unwrap();
    assert_eq!(blockers(&deployment, &["failback", "east", "--disaster"]), ["partner_alive"]);
    deployment.namespace().cut("127.0.1.1", "127.0.2.1").unwrap();
    put(&deployment, "west1", "1003", "orphan");
    deployment.kill("west1").unwrap();

    assert_eq!(blockers(&deployment, &["failback", "east"]), ["partner_unreachable"]);
    completes(&deployment, &["failback", "east", "--disaster"]);
    deployment.namespace().heal().unwrap();
    put(&deployment, "east1", "1003", "meanwhile");
    assert_eq!(contacts(&deployment, "east1", "1003"), ["copied", "meanwhile"]);
    deployment.start("west1").unwrap();
    wait_until("what only west had", LIMIT, || {
        Ok(contacts(&deployment, "east1", "1003") == ["copied", "meanwhile", "orphan"])
    })
    .unwrap();
    assert_eq!(succeeds(&deployment, &["conflicts", "list"]), json!([]));
}

#[test]
fn what_makes_no_sense_is_refused_with_every_reason_and_changes_nothing() {
    let deployment = Deployment::running(Timing { takeover_s: 20, ..Timing::FAST }).unwrap();
    let blocked = |arguments: &[&str]| blockers(&deployment, arguments);

    for arguments in [["pool", "switchover", "nowhere"], ["pool", "failover", "no pool"]] {
        let ran = deployment.tandem(&[&arguments[..], &["--apply"]].concat(), b"").unwrap();
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains(arguments[2]), "{ran:?}");
    }
    for operation in ["switchover", "failover", "failback", "cancel"] {
        assert_eq!(blocked(&[operation, "branch1"]), ["not_paired"]);
    }
    assert_eq!(blocked(&["failback", "east"]), ["at_home"]);
    assert_eq!(blocked(&["cancel", "east"]), ["nothing_to_cancel"]);
    assert_eq!(blocked(&["failover", "east", "--disaster"]), ["home_pool_alive"]);

    deployment.freeze("control1").unwrap();
    assert_eq!(blocked(&["switchover", "east"]), ["control_store_unreachable"]);
    deployment.thaw("control1").unwrap();
    deployment.kill("control1").unwrap();
    assert_eq!(blocked(&["switchover", "east"]), ["control_store_unreachable"]);
    let both = blocked(&["failback", "east"]);
    assert_eq!(both, ["at_home", "control_store_unreachable"], "every reason at once");
    deployment.start("control1").unwrap();

    deployment.kill("west1").unwrap();
    assert_eq!(blocked(&["switchover", "east"]), ["partner_unreachable"]);
    assert_eq!(blocked(&["failover", "east"]), ["partner_unreachable"]);
    deployment.start("west1").unwrap();
    deployment.wait_serving("west1", "west", Some("full"), LIMIT).unwrap();

    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    completes(&deployment, &["switchover", "east"]);
    for operation in [&["switchover", "east"][..], &["failover", "east"]] {
        assert_eq!(blocked(operation), ["already_failed_over"]);
    }
    deployment.kill("east1").unwrap();
    assert_eq!(blocked(&["failback", "east"]), ["home_pool_unreachable"]);
    deployment.start("east1").unwrap();
    fails_back_when_heard(&deployment);
}

/// The order in the ownership record of east, as its owner says.
fn order_of_east(deployment: &Deployment) -> Value {
    let status = status_of(deployment, "east1");
    let homes = status["homes"].as_array().unwrap();
    homes.iter().find(|home| home["home"] == "east").unwrap()["order"].clone()
}

#[test]
fn an_operation_under_way_is_watched_by_who_repeats_it_refused_to_others_and_cancelled_in_time() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    let watched = phone(&deployment, "1003", Via::Udp, "east1");
    let before = Watcher::new(&deployment).look();
    // The partner answers and never catches up, so that the operation lasts.
    deployment.namespace().cut_service("127.0.2.1", "127.0.1.1", 8_443).unwrap();
    put(&deployment, "east1", "1003", "uncopied");
    let switchover = ["pool", "switchover", "east", "--apply", "--output", "json"];
    let first = deployment.begin(&switchover, b"").unwrap();
    let is_moving = |sight: &e2e::Sight| sight.state == "failing_over";
    Watcher::new(&deployment).wait("the operation", LIMIT, is_moving).unwrap();
    let order = order_of_east(&deployment);
    println!("under way: {order}");

    let second = deployment.begin(&switchover, b"").unwrap();
    let other = run(&deployment, &["pool", "failover", "east", "--apply"]);
    assert_eq!(other.code, 1, "{other:?}");
    let rules = other.json().unwrap()["blockers"].to_string();
    assert!(rules.contains("other_operation"), "{rules}");
    assert!(rules.contains(order["by"].as_str().unwrap()), "who ordered it is said: {rules}");
    assert_eq!(watched.register(300).unwrap().status, 200, "east serves all the time");
    put(&deployment, "east1", "1003", "meanwhile");

    completes(&deployment, &["cancel", "east"]);
    for command in [first, second] {
        let ran = command.wait(LIMIT).unwrap();
        assert_eq!(ran.code, 1, "{ran:?}");
        let done = ran.json().unwrap();
        assert_eq!((&done["result"], &done["order"]), (&json!("undone"), &order["id"]), "{done}");
    }
    let after = Watcher::new(&deployment).look();
    assert_eq!((after.state.as_str(), after.epoch), ("active", before.epoch), "{after}");
    assert!(after.is_undone);
    deployment.namespace().heal().unwrap();

    wait_until("the copy", LIMIT, || Ok(lag_shown(&deployment).0 == 0)).unwrap();
    completes(&deployment, &["switchover", "east"]);
    let late = run(&deployment, &["pool", "cancel", "east", "--apply"]);
    assert_eq!(late.code, 1, "{late:?}");
    assert!(late.out.contains("nothing_to_cancel"), "{late:?}");
    assert_eq!(contacts(&deployment, "west1", "1003"), ["meanwhile", "uncopied"]);
}

#[test]
fn the_same_order_again_is_recognised_and_one_for_another_epoch_is_refused() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    let epoch = Watcher::new(&deployment).look().epoch;
    let mut east = Operator::new(&deployment, "east1", LIMIT);
    let mut order = |id: &str, kind: &str, epoch: u64| {
        let order = json!({ "id": id, "kind": kind, "epoch": epoch, "ordered_at": 0, "by": "me" });
        let body = json!({ "home": "east", "order": order });
        east.ask("POST", "/v1/orders", Some(&body)).unwrap().json().unwrap()
    };
    let (one, two) = ("1".repeat(32), "2".repeat(32));

    let stale = order(&two, "switchover", epoch + 7);
    assert_eq!(stale["result"], "refused", "{stale}");
    assert!(stale.to_string().contains("epoch"), "{stale}");
    let given = order(&one, "switchover", epoch);
    assert_eq!(given["result"], "accepted", "{given}");
    let again = order(&one, "switchover", epoch);
    assert_eq!(again["result"], "repeated", "{again}");
    Watcher::new(&deployment).wait("the switchover", LIMIT, |s| s.owner == "west" && s.is_settled()).unwrap();
    let once_more = order(&one, "switchover", epoch);
    assert_eq!(
        (&once_more["result"], &once_more["state"]),
        (&json!("repeated"), &json!("failed_over")),
        "{once_more}"
    );
    let late = order(&two, "switchover", epoch);
    assert_eq!(late["result"], "refused", "{late}");
    let body = json!({ "home": "east", "order": one });
    let cancelled = Operator::new(&deployment, "west1", LIMIT)
        .ask("POST", "/v1/orders/cancel", Some(&body))
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(cancelled["result"], "refused", "too late: {cancelled}");
    println!("stale: {stale}\nrepeated: {once_more}\nlate: {late}\ncancelled too late: {cancelled}");
}

#[test]
fn of_two_operators_at_once_one_wins_and_the_other_is_told() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    for (number, pair) in [["switchover", "switchover"], ["failback", "failback"], ["switchover", "failover"]]
        .into_iter()
        .enumerate()
    {
        let begin = |operation: &str| {
            let arguments = ["pool", operation, "east", "--apply", "--output", "json"];
            deployment.begin(&arguments, b"").unwrap()
        };
        let before = Watcher::new(&deployment).look();
        let running = pair.map(begin);
        let ran = running.map(|command| command.wait(LIMIT).unwrap());
        let completed = ran.iter().filter(|ran| ran.code == 0).count();
        assert!(completed >= 1, "{number}: {ran:?}");
        for (operation, ran) in pair.iter().zip(&ran) {
            if ran.code != 0 {
                assert_eq!(ran.code, 1, "{ran:?}");
                let told = [
                    "is failed over",
                    "serves its own users",
                    "under way",
                    "already done",
                    "epoch",
                    "try again",
                ];
                let is_told = |text: &str| told.iter().any(|reason| text.contains(reason));
                assert!(is_told(&ran.out) || is_told(&ran.err), "{operation}: {ran:?}");
            }
            println!("{operation}: exit {}, {}", ran.code, ran.err.lines().last().unwrap_or_default());
        }
        let after = Watcher::new(&deployment)
            .wait("the end", LIMIT, |sight| sight.is_settled() && sight.epoch > before.epoch)
            .unwrap();
        assert_eq!(after.epoch, before.epoch + 1, "one operation was carried out, once: {after}");
    }
}
