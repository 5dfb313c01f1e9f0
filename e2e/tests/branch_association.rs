//! A branch gets another associated pool while everything runs, and its users' data follow.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use e2e::{
    ContactLists, Deployment, Operator, Phone, Ran, Timing, Via,
    documents::{Write, Writers, missing},
    wait_for, wait_until,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
/// What the product allows a document to be read-only, and what a loaded machine adds.
const READ_ONLY_MAX: Duration = Duration::from_millis(2_500);
const SERVERS: [&str; 3] = ["east1", "west1", "branch1a"];

/// Writes a topology of this version into the file, in which the branch is associated with `pool`.
fn associate(deployment: &Deployment, version: u64, pool: &str) {
    let replace = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        let mut site = String::new();
        for line in &mut lines {
            if let Some(name) = line.strip_prefix("name = ") {
                site = name.to_owned();
            }
            if line.starts_with("version = ") {
                *line = format!("version = {version}");
            } else if line.starts_with("associated_pool = ") {
                *line = format!("associated_pool = \"{pool}\"");
            } else if line.starts_with("parent = ") && site == "\"branch1\"" {
                *line = format!("parent = \"{pool}\"");
            }
        }
        lines.join("\n") + "\n"
    };
    deployment.edit_topology(replace).unwrap();
}

fn reload(deployment: &Deployment, options: &[&str]) -> Ran {
    let mut arguments = vec!["topology", "reload", "--output", "json"];
    arguments.extend(options);
    deployment.tandem(&arguments, b"").unwrap()
}

/// Reloads as soon as every server has forgotten the last move.
fn reload_next(deployment: &Deployment) -> Ran {
    let reloaded = wait_for("the last move to be forgotten", LIMIT, || {
        let ran = reload(deployment, &[]);
        Ok((!ran.err.contains("on their way")).then_some(ran))
    });
    reloaded.unwrap().0
}

/// Version in force by server, as the command printed it: `after`, or nothing for who was not reached.
fn versions(ran: &Ran) -> BTreeMap<String, Option<u64>> {
    let json = ran.json().unwrap();
    let servers = json.as_array().unwrap().iter();
    servers.map(|asked| (asked["server"].as_str().unwrap().to_owned(), asked["after"].as_u64())).collect()
}

/// Moves that servers are working on, as `tandem pool status` shows them: state and reason.
fn moves(deployment: &Deployment) -> Vec<(String, String)> {
    let status = deployment.tandem(&["pool", "status", "--output", "json"], b"").unwrap().json().unwrap();
    let servers = status.as_array().unwrap().iter();
    let moves = servers.filter_map(|asked| asked["status"]["moves"].as_array()).flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    moves.map(|it| (text(&it["state"]), text(&it["reason"]))).collect()
}

/// In which journals a server holds something of the branch's users: accounts with secrets, and documents.
fn journals(deployment: &Deployment, server: &str) -> BTreeMap<String, u64> {
    let script = "import sqlite3, sys\n\
        rows = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True).execute(\"\"\"\
        SELECT pool.name, count(*) FROM document JOIN pool ON pool.id = document.journal \
        WHERE is_removed = 0 AND aor LIKE 'sip:3%' AND (kind > 0 OR ha1_md5 IS NOT NULL) \
        GROUP BY pool.name\"\"\")\n\
        for name, count in rows: print(name, count)";
    let file = deployment.data(server).join("users.sqlite");
    let ran = Command::new("python3").args(["-c", script]).arg(file).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = String::from_utf8(ran.stdout).unwrap();
    let rows = text.lines().map(|line| line.split_once(' ').unwrap());
    rows.map(|(journal, count)| (journal.to_owned(), count.parse().unwrap())).collect()
}

/// Waits until every server holds the branch's users in the journal of `pool` and in no other, and nobody
/// works on it any more.
fn wait_moved(deployment: &Deployment, pool: &str) -> Duration {
    let began = Instant::now();
    let is_there = |server: &&str| journals(deployment, server).keys().eq([pool]);
    wait_until("the users in one journal everywhere", LIMIT, || Ok(SERVERS.iter().all(is_there)))
        .unwrap_or_else(|error| {
            let held: Vec<_> = SERVERS.iter().map(|server| (server, journals(deployment, server))).collect();
            panic!("{error}: {held:?}, {:?}", moves(deployment))
        });
    wait_until("nobody to work on it", LIMIT, || Ok(moves(deployment).is_empty())).unwrap();
    began.elapsed()
}

fn users() -> Vec<String> {
    (3_001..=3_008).map(|user| user.to_string()).collect()
}

fn writers(deployment: &Deployment, patience: Duration) -> Writers {
    let pair = || ["east1", "west1"].map(|server| ContactLists::new(deployment, server));
    Writers::start(vec![pair(), pair()], &users(), 20, patience).unwrap()
}

/// No acknowledged write is missing where the documents are now; returns the longest time one took.
fn check(deployment: &Deployment, writes: &[Write], server: &str) -> Duration {
    let lost = missing(writes, &mut ContactLists::new(deployment, server)).unwrap();
    assert!(lost.is_empty(), "{} acknowledged writes are gone: {:?}", lost.len(), lost.first());
    let acknowledged = writes.iter().filter_map(|write| Some(write.acknowledged? - write.sent));
    let longest = acknowledged.max().unwrap();
    println!("{} writes, {} not acknowledged, longest {longest:?}", writes.len(), unacknowledged(writes));
    longest
}

fn unacknowledged(writes: &[Write]) -> usize {
    writes.iter().filter(|write| write.acknowledged.is_none()).count()
}

fn phone(deployment: &Deployment, user: &str, via: Via, server: &str) -> Phone {
    let phone = Phone::new(deployment, user, via, server, "127.0.0.1").unwrap();
    assert_eq!(phone.register(300).unwrap().status, 200);
    phone
}

fn call(caller: &Phone, called: &Phone) -> Result<(), String> {
    let failed = |what: String| format!("{} calls {}: {what}", caller.user(), called.user());
    let call = caller.call(called.user()).map_err(|error| failed(error.to_string()))?;
    let call = call.map_err(|answer| failed(format!("{:?}", answer.message)))?;
    called.wait_acknowledged().map_err(|error| failed(error.to_string()))?;
    let bye = call.bye().map_err(|error| failed(error.to_string()))?;
    called.wait_ended().map_err(|error| failed(error.to_string()))?;
    if bye.status == 200 { Ok(()) } else { Err(failed(format!("{:?}", bye.message))) }
}

/// Registers and calls with two phones of the branch and one of east all the time; ends with every failure,
/// and how many requests went well.
fn traffic(deployment: &Deployment, is_over: Arc<AtomicBool>) -> thread::JoinHandle<(Vec<String>, usize)> {
    let udp = phone(deployment, "3003", Via::Udp, "branch1a");
    let tcp = phone(deployment, "3004", Via::Tcp, "branch1a");
    let east = phone(deployment, "1003", Via::Udp, "east1");
    thread::spawn(move || {
        let (mut failures, mut good) = (Vec::new(), 0);
        while !is_over.load(Ordering::Relaxed) {
            for phone in [&udp, &tcp] {
                match phone.register(300) {
                    Ok(answer) if answer.status == 200 && answer.mode().as_deref() == Some("full") => {
                        good += 1
                    }
                    other => failures.push(format!("{} registers: {other:?}", phone.user())),
                }
            }
            for (caller, called) in [(&udp, &tcp), (&tcp, &udp), (&east, &udp), (&tcp, &east)] {
                match call(caller, called) {
                    Ok(()) => good += 1,
                    Err(error) => failures.push(error),
                }
            }
        }
        (failures, good)
    })
}

#[test]
fn a_branch_goes_to_another_pool_while_phones_call_and_documents_are_written() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let traffic = traffic(&deployment, Arc::clone(&is_over));
    let writers = writers(&deployment, LIMIT);
    wait_until("writes before", LIMIT, || Ok(writers.writes().len() > 40)).unwrap();

    associate(&deployment, 2, "west");
    let planned = reload(&deployment, &["--what-if"]);
    assert_eq!(
        (planned.code, versions(&planned).values().all(|after| *after == Some(1))),
        (0, true),
        "{planned:?}"
    );
    let applied = reload(&deployment, &[]);
    let began = Instant::now();
    assert_eq!(applied.code, 0, "{applied:?}");
    assert_eq!(versions(&applied).len(), 4);
    assert!(versions(&applied).values().all(|after| *after == Some(2)), "{applied:?}");
    let command = ["user", "contacts", "add", "3005@example.com", "during@example.com"];
    let (_, cli) = wait_for("a change by the command line", LIMIT, || {
        Ok((deployment.tandem(&command, b"")?.code == 0).then_some(()))
    })
    .unwrap();
    wait_moved(&deployment, "west");
    println!("moved after {:?}; a change by the command line took {cli:?}", began.elapsed());
    let so_far = writers.writes().len();
    wait_until("writes afterwards", LIMIT, || Ok(writers.writes().len() > so_far + 40)).unwrap();
    let writes = writers.end().unwrap();
    is_over.store(true, Ordering::Relaxed);
    let (failures, good) = traffic.join().unwrap();

    assert!(
        failures.is_empty(),
        "{} of {} requests failed: {failures:#?}",
        failures.len(),
        good + failures.len()
    );
    println!("{good} registrations and calls, none failed");
    assert_eq!(unacknowledged(&writes), 0);
    let longest = check(&deployment, &writes, "west1");
    assert!(longest < READ_ONLY_MAX, "read-only for {longest:?}");
    let shown = deployment.tandem(&["user", "contacts", "list", "3005@example.com"], b"").unwrap();
    assert!(shown.out.contains("during@example.com"), "{shown:?}");
    afterwards(&deployment);
}

/// The branch lives with its new pool: settings, call logs, backup registrar, resiliency mode.
fn afterwards(deployment: &Deployment) {
    let (one, two) =
        (phone(deployment, "3003", Via::Udp, "branch1a"), phone(deployment, "3004", Via::Udp, "branch1a"));
    let told = one.register(300).unwrap();
    assert!(told.header("Feature-Caps").is_some_and(|text| text.contains("west.example.com")), "{told:?}");
    call(&one, &two).unwrap();
    let set = ["user", "settings", "set", "3004@example.com", "--do-not-disturb", "on"];
    assert_eq!(deployment.tandem(&set, b"").unwrap().code, 0);
    wait_until("the appliance to follow a setting", LIMIT, || {
        Ok(one.call("3004")?.map(|call| drop(call.bye())).is_err())
    })
    .unwrap();
    let (calls, _) = wait_for("call records at the new pool", LIMIT, || {
        let ran = deployment.tandem(&["user", "calls", "3003@example.com", "--output", "json"], b"")?;
        let calls = ran.json()?.as_array().map_or(0, Vec::len);
        Ok((calls > 0).then_some(calls))
    })
    .unwrap();
    println!("{calls} calls in the log");

    deployment.kill("branch1a").unwrap();
    one.use_server(Deployment::sip("west1"));
    let registered = |mode: &str| {
        wait_until(mode, LIMIT, || {
            let Ok(answer) = one.register_within(300, Duration::from_secs(1)) else { return Ok(false) };
            Ok(answer.status == 200 && answer.mode().as_deref() == Some(mode))
        })
    };
    let took = registered("full").unwrap();
    println!("appliance killed: registered at west after {took:?}");
    deployment.start("branch1a").unwrap();
    deployment.wait_serving("branch1a", "branch1", Some("full"), LIMIT).unwrap();
    one.use_server(Deployment::sip("branch1a"));
    registered("full").unwrap();
    deployment.kill("west1").unwrap();
    let took = registered("resiliency").unwrap();
    println!("west killed: resiliency mode after {took:?}");
}

#[test]
fn what_needs_a_restart_and_what_the_linter_refuses_changes_nothing() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let versions_now = || {
        let status = deployment.tandem(&["pool", "status", "--output", "json"], b"").unwrap().json().unwrap();
        let asked = status.as_array().unwrap().iter();
        asked.map(|asked| asked["status"]["topology_version"].as_u64()).collect::<Vec<_>>()
    };
    let text = std::fs::read_to_string(deployment.dir().join("topology.toml")).unwrap();

    associate(&deployment, 2, "west");
    deployment.edit_topology(|text| text.replace("127.0.3.1:5061", "127.0.3.1:5062")).unwrap();
    let restart = reload(&deployment, &[]);
    assert_eq!(restart.code, 1, "{restart:?}");
    assert!(restart.err.contains("branch1a") && restart.err.contains("restart"), "{}", restart.err);

    deployment.edit_topology(|_| text.clone()).unwrap();
    associate(&deployment, 1, "west");
    let old = reload(&deployment, &[]);
    assert_eq!(old.code, 1, "{old:?}");
    assert!(old.err.contains("version"), "{}", old.err);

    deployment
        .edit_topology(|_| text.replace("associated_pool = \"east\"", "associated_pool = \"west\""))
        .unwrap();
    deployment.edit_topology(|text| text.replace("version = 1", "version = 2")).unwrap();
    let linted = reload(&deployment, &[]);
    assert_eq!(linted.code, 1, "{linted:?}");
    assert!(linted.err.contains("branch-associated-pool"), "{}", linted.err);

    let mut operator = Operator::new(&deployment, "east1", LIMIT);
    let refused = operator.ask("POST", "/v1/topology", Some(&serde_json::json!({"apply": "0"}))).unwrap();
    assert!(refused.body.contains("branch-associated-pool"), "the server lints as well: {refused:?}");
    deployment.edit_topology(|_| text.clone()).unwrap();
    assert_eq!(versions_now(), [Some(1); 4]);
    let same = reload(&deployment, &[]);
    assert_eq!((same.code, versions_now()), (0, vec![Some(1); 4]), "{same:?}");
}

#[test]
fn a_server_that_was_down_takes_the_new_topology_at_its_start_and_the_move_is_completed() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    let mut at = "east";
    for (version, down) in (2..).zip(["east1", "west1", "branch1a"]) {
        let to = if at == "east" { "west" } else { "east" };
        let writers = writers(&deployment, Duration::from_secs(90));
        wait_until("writes before", LIMIT, || Ok(writers.writes().len() > 20)).unwrap();
        deployment.kill(down).unwrap();
        associate(&deployment, version, to);
        let applied = reload_next(&deployment);
        assert_eq!(applied.code, 2, "{applied:?}");
        assert_eq!(versions(&applied)[down], None, "{applied:?}");
        let (waits, _) = wait_for("somebody to say that it waits", LIMIT, || {
            Ok(moves(&deployment).into_iter().find(|(_, reason)| !reason.is_empty()))
        })
        .unwrap_or_else(|error| match down == format!("{to}1") {
            true => (("nobody".to_owned(), "its server is down".to_owned()), Duration::ZERO),
            false => panic!("{down} down: {error}"),
        });
        println!("{down} down, {at} to {to}: {waits:?}");
        deployment.start(down).unwrap();
        let took = wait_moved(&deployment, to);
        let so_far = writers.writes().len();
        wait_until("writes afterwards", LIMIT, || Ok(writers.writes().len() > so_far + 20)).unwrap();
        let writes = writers.end().unwrap();
        println!("moved {took:?} after its start");
        check(&deployment, &writes, &format!("{to}1"));
        deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
        deployment.wait_serving("west1", "west", Some("full"), LIMIT).unwrap();
        at = to;
    }
}

#[test]
fn whoever_is_killed_at_whatever_moment_all_documents_end_in_one_journal_and_none_is_lost() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let mut version = 1;
    let mut at = "east";
    let mut kills = Vec::new();
    for after_ms in [0, 40, 150, 400, 900] {
        kills.extend(SERVERS.map(|server| (server, after_ms)));
    }
    let writers = writers(&deployment, Duration::from_secs(90));
    for (server, after_ms) in kills {
        let to = if at == "east" { "west" } else { "east" };
        version += 1;
        associate(&deployment, version, to);
        let applied = reload_next(&deployment);
        assert_eq!(applied.code, 0, "{applied:?}");
        thread::sleep(Duration::from_millis(after_ms));
        let seen = moves(&deployment);
        deployment.kill(server).unwrap();
        deployment.start(server).unwrap();
        let took = wait_moved(&deployment, to);
        println!(
            "{at} to {to}: {server} killed after {after_ms} ms ({seen:?}), moved {took:?} after its start"
        );
        at = to;
    }
    // While the command gives the order, too: some servers have the new topology then, and some not.
    for (after_ms, server) in [30, 50, 70, 90].iter().flat_map(|ms| SERVERS.map(|server| (*ms, server))) {
        let to = if at == "east" { "west" } else { "east" };
        version += 1;
        let ordered = reload_next(&deployment);
        assert_eq!(ordered.code, 0, "the last one is in force everywhere: {ordered:?}");
        associate(&deployment, version, to);
        let order = deployment.begin(&["topology", "reload"], b"").unwrap();
        thread::sleep(Duration::from_millis(after_ms));
        deployment.kill(server).unwrap();
        let ended = order.wait(LIMIT).unwrap().code;
        deployment.start(server).unwrap();
        let again = reload_next(&deployment);
        assert_eq!(again.code, 0, "{again:?}");
        let took = wait_moved(&deployment, to);
        println!(
            "{at} to {to}: {server} killed {after_ms} ms after the order ({ended}), moved after {took:?}"
        );
        at = to;
    }
    let writes = writers.end().unwrap();
    check(&deployment, &writes, &format!("{at}1"));
    assert_eq!(journals(&deployment, "branch1a").keys().collect::<Vec<_>>(), [at]);
}

/// A third front-end pool without partner in the branch's central site, with a server.
const NORTH: &str = r#"
[[pool]]
name = "north"
fqdn = "north.example.com"
role = "front_end"
site = "east"

[[server]]
name = "north1"
fqdn = "fe1.north.example.com"
pool = "north"
udp = ["127.0.5.1:5060"]
tcp = ["127.0.5.1:5060"]
tls = ["127.0.5.1:5061"]
internal_sip = "127.0.5.1:5071"
internal_http = "127.0.5.1:8443"
shards = 1
"#;

#[test]
fn the_new_pool_may_have_nothing_to_do_with_the_old_one() {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    deployment.edit_topology(|text| text.to_owned() + NORTH).unwrap();
    let servers = deployment.dir().join("servers");
    std::fs::create_dir_all(servers.join("north1")).unwrap();
    std::fs::copy(servers.join("east1/nonce.key"), servers.join("north1/nonce.key")).unwrap();
    assert_eq!(deployment.tandem(&["certificate", "renew"], b"").unwrap().code, 0);
    for server in ["control1", "east1", "west1", "north1", "branch1a"] {
        deployment.start(server).unwrap();
    }
    deployment.wait_serving("branch1a", "branch1", Some("full"), LIMIT).unwrap();
    deployment.wait_users_known(&["north1"], LIMIT).unwrap();
    let one = phone(&deployment, "3003", Via::Udp, "branch1a");
    let pair = || ["east1", "north1"].map(|server| ContactLists::new(&deployment, server));
    for (version, to, from) in [(2, "north", "east"), (3, "east", "north")] {
        let writers = Writers::start(vec![pair()], &users(), 20, LIMIT).unwrap();
        wait_until("writes before", LIMIT, || Ok(writers.writes().len() > 20)).unwrap();
        deployment
            .edit_topology(|text| {
                let text =
                    text.replace(&format!("version = {}", version - 1), &format!("version = {version}"));
                text.replace(&format!("associated_pool = \"{from}\""), &format!("associated_pool = \"{to}\""))
            })
            .unwrap();
        let applied = reload_next(&deployment);
        assert_eq!(applied.code, 0, "{applied:?}");
        let began = Instant::now();
        let held = |server: &str, pool: &str| journals(&deployment, server).keys().eq([pool]);
        wait_until("the users in one journal", LIMIT, || {
            let is_at_branch = held("branch1a", to);
            let is_gone = !journals(&deployment, &format!("{from}1")).contains_key(from);
            Ok(is_at_branch && is_gone && moves(&deployment).is_empty())
        })
        .unwrap_or_else(|error| panic!("{error}: {:?}", moves(&deployment)));
        let so_far = writers.writes().len();
        println!("{from} to {to}: moved after {:?}", began.elapsed());
        wait_until("writes afterwards", LIMIT, || Ok(writers.writes().len() > so_far + 20)).unwrap();
        check(&deployment, &writers.end().unwrap(), &format!("{to}1"));
        let registered = one.register(300).unwrap();
        assert_eq!((registered.status, registered.mode().as_deref()), (200, Some("full")));
    }
}

#[test]
fn the_users_of_a_large_branch_are_not_read_only_for_longer() {
    const MANY: usize = 2_000;
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let lines = (0..MANY).map(|number| format!("sip:3{number:05}@example.com,secret{number},branch1\n"));
    let imported = deployment.tandem(&["user", "import", "-"], lines.collect::<String>().as_bytes()).unwrap();
    assert_eq!(imported.code, 0, "{imported:?}");
    wait_until("the appliance to know them", LIMIT, || {
        let status = Operator::new(&deployment, "branch1a", LIMIT).ask("GET", "/v1/status", None)?.json()?;
        Ok(status["users_known"].as_u64() >= Some(30 + u64::try_from(MANY)?))
    })
    .unwrap();
    let writers = writers(&deployment, LIMIT);
    wait_until("writes before", LIMIT, || Ok(writers.writes().len() > 20)).unwrap();
    associate(&deployment, 2, "west");
    assert_eq!(reload(&deployment, &[]).code, 0);
    let took = wait_moved(&deployment, "west");
    let longest = check(&deployment, &writers.end().unwrap(), "west1");
    println!("{MANY} users more: moved after {took:?}");
    assert!(longest < READ_ONLY_MAX, "read-only for {longest:?}");
}

#[test]
fn one_server_that_owns_both_journals_moves_the_users_and_they_stay_moved_after_failback() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    let order = |what: &str| {
        let ran = deployment.tandem(&["pool", what, "east", "--apply"], b"").unwrap();
        assert_eq!(ran.code, 0, "{ran:?}");
    };
    let writers = writers(&deployment, LIMIT);
    order("switchover");
    deployment.wait_serving("west1", "east", Some("full"), LIMIT).unwrap();
    associate(&deployment, 2, "west");
    assert_eq!(reload(&deployment, &[]).code, 0);
    let took = wait_moved(&deployment, "west");
    order("failback");
    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    let writes = writers.end().unwrap();
    let longest = check(&deployment, &writes, "west1");
    println!("moved after {took:?}, longest write {longest:?}");
    wait_moved(&deployment, "west");
    let told = phone(&deployment, "3003", Via::Udp, "branch1a").register(300).unwrap();
    assert_eq!(told.mode().as_deref(), Some("full"));
}
