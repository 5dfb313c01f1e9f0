//! What users wish and may, and what is written down of their calls.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use e2e::{Call, Deployment, Manners, Phone, Ran, Sipp, Timing, Via, wait_for, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(40);

fn phone(deployment: &Deployment, user: &str, via: Via, server: &str) -> Phone {
    let phone = Phone::new(deployment, user, via, server, "127.0.0.1").unwrap();
    assert_eq!(phone.register(300).unwrap().status, 200);
    phone
}

fn run(deployment: &Deployment, arguments: &[&str]) -> Ran {
    deployment.tandem(arguments, b"").unwrap()
}

fn succeeds(deployment: &Deployment, arguments: &[&str]) -> Ran {
    let ran = run(deployment, arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    ran
}

/// `tandem user settings set USER@example.com ...`, and waits until `server` acts upon it.
fn set(deployment: &Deployment, user: &str, wishes: &[&str]) {
    let aor = format!("{user}@example.com");
    let mut arguments = vec!["user", "settings", "set", &aor];
    arguments.extend(wishes);
    succeeds(deployment, &arguments);
}

fn clear(deployment: &Deployment, user: &str) {
    let everything = [
        "--clear-forward-always",
        "--clear-forward-busy",
        "--clear-forward-no-answer",
        "--clear-forward-not-reachable",
        "--clear-ring-also",
        "--do-not-disturb",
        "off",
    ];
    set(deployment, user, &everything);
}

fn answered(caller: &Phone, to: &str) -> Call {
    caller
        .call(to)
        .unwrap()
        .unwrap_or_else(|answer| panic!("{} calls {to}: {:?}", caller.user(), answer.message))
}

/// The status with which a call is refused.
fn refused(caller: &Phone, to: &str) -> u16 {
    caller.call(to).unwrap().map(drop).unwrap_err().status
}

/// Calls `to`, expects that `at` answers, and ends the call from the caller's or the called phone's side.
fn call_arrives(caller: &Phone, to: &str, at: &Phone, caller_ends: bool) -> String {
    let before = at.received("INVITE").len();
    let call = answered(caller, to);
    at.wait_acknowledged().unwrap();
    let invites = at.received("INVITE");
    assert_eq!(invites.len(), before + 1, "{} is rung once", at.user());
    let ended = if caller_ends { call.bye() } else { at.bye() }.unwrap();
    assert_eq!(ended.status, 200, "{:?}", ended.message);
    if caller_ends { at.wait_ended() } else { caller.wait_ended() }.unwrap();
    invites.last().unwrap().values("Diversion").join(", ")
}

fn calls(deployment: &Deployment, user: &str, options: &[&str]) -> Vec<Value> {
    let aor = format!("{user}@example.com");
    let mut arguments = vec!["user", "calls", &aor, "--output", "json"];
    arguments.extend(options);
    succeeds(deployment, &arguments).json().unwrap().as_array().unwrap().clone()
}

/// Direction and result of a user's calls, newest first, as soon as there are so many.
fn results(deployment: &Deployment, user: &str, count: usize) -> Vec<(String, String)> {
    let text = |call: &Value, key: &str| call[key].as_str().unwrap().to_owned();
    let (found, _) = wait_for("call records", LIMIT, || {
        let found = calls(deployment, user, &[]);
        Ok((found.len() >= count).then_some(found))
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", calls(deployment, user, &[])));
    assert_eq!(found.len(), count, "{found:#?}");
    found.iter().map(|call| (text(call, "direction"), text(call, "result"))).collect()
}

/// User and call of every record that a server keeps for the owner of the user data.
fn spooled(folder: &Path) -> BTreeSet<(String, String)> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
    let complete = files.filter(|file| file.extension().is_some_and(|extension| extension == "json"));
    // A file goes when it is delivered.
    let contents = complete.filter_map(|file| fs::read(file).ok());
    let batches = contents.map(|octets| serde_json::from_slice::<Value>(&octets).unwrap());
    let records = batches.flat_map(|batch| batch["owed"]["records"].as_array().unwrap().clone());
    records.map(|kept| (kept["aor"].to_string(), kept["record"]["call"].to_string())).collect()
}

fn pair(direction: &str, result: &str) -> (String, String) {
    (direction.to_owned(), result.to_owned())
}

#[test]
fn documents_are_edited_and_shown_by_the_command_line_and_bad_input_is_refused() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let run = |arguments: &[&str]| run(&deployment, arguments);
    let json = |arguments: &[&str]| {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--output", "json"]);
        succeeds(&deployment, &arguments).json().unwrap()
    };

    for (user, groups) in [("1004", ["Sales", "Berlin"]), ("2003", ["Sales", "Paris"])] {
        let contact = format!("{user}@example.com");
        let add = ["user", "contacts", "add", "1003@example.com", &contact, "--name", "Bob"];
        let groups = ["--group", groups[0], "--group", groups[1]];
        succeeds(&deployment, &[add.as_slice(), groups.as_slice()].concat());
    }
    succeeds(&deployment, &["user", "contacts", "add-group", "1003@example.com", "Empty"]);
    succeeds(&deployment, &["user", "contacts", "remove-group", "1003@example.com", "Sales"]);
    succeeds(&deployment, &["user", "contacts", "remove", "1003@example.com", "2003@example.com"]);
    let list = json(&["user", "contacts", "list", "1003@example.com"]);
    assert_eq!(list["groups"], serde_json::json!(["Berlin", "Paris", "Empty"]), "{list}");
    assert_eq!(list["contacts"]["sip:1004@example.com"]["groups"], serde_json::json!(["Berlin"]), "{list}");
    let table = run(&["user", "contacts", "list", "1003@example.com"]).out;
    assert!(table.contains("sip:1004@example.com") && table.contains("Bob"), "{table}");

    set(&deployment, "3003", &["--forward-busy", "1003@example.com", "--ring-also", "tel:+4930123"]);
    set(&deployment, "3003", &["--forward-no-answer", "1004@example.com", "--no-answer-after", "30"]);
    let settings = json(&["user", "settings", "show", "3003@example.com"]);
    assert_eq!(settings["forwarding"]["busy"], "sip:1003@example.com", "{settings}");
    assert_eq!(settings["forwarding"]["no_answer"]["after_s"], 30, "{settings}");
    assert_eq!(settings["simultaneous_ring"], serde_json::json!(["tel:+4930123"]), "{settings}");

    succeeds(&deployment, &["user", "policy", "set", "3003@example.com", "--calls", "internal"]);
    let policy = json(&["user", "policy", "show", "3003@example.com"]);
    assert_eq!((&policy["calls"], &policy["no_forwarding_outside"]), (&"internal".into(), &false.into()));

    for (code, arguments, says) in [
        (2, vec!["user", "settings", "set", "1003@example.com"], "--forward-always"),
        (2, vec!["user", "settings", "set", "1003@example.com", "--forward-always", "mailto:x@y"], "sip:"),
        (2, vec!["user", "settings", "set", "1003@example.com", "--no-answer-after", "3"], "needs"),
        (2, vec!["user", "settings", "set", "1003@example.com", "--do-not-disturb", "maybe"], "maybe"),
        (2, vec!["user", "policy", "set", "1003@example.com", "--calls", "nobody"], "emergency-only"),
        (2, vec!["user", "contacts", "add-group", "1003@example.com", ""], "octets"),
        (1, vec!["user", "settings", "show", "1999@example.com"], "there is no user"),
        (1, vec!["user", "calls", "nobody@example.com"], "there is no user"),
    ] {
        let ran = run(&arguments);
        println!("exit {}: {}", ran.code, ran.err.lines().next().unwrap_or_default());
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.err.contains(says), "{says:?} is not in {:?}", ran.err);
    }
}

#[test]
fn calls_go_where_the_called_user_wishes_within_and_between_pools() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let caller = phone(&deployment, "1003", Via::Udp, "east1");
    let called = phone(&deployment, "1004", Via::Udp, "east1");
    let mate = phone(&deployment, "1005", Via::Tcp, "east1");
    let west = phone(&deployment, "2003", Via::Udp, "west1");
    let branch = phone(&deployment, "3003", Via::Udp, "branch1a");

    for (to, at) in [("1005", &mate), ("2003", &west), ("3003", &branch)] {
        let destination = format!("{to}@example.com");
        set(&deployment, "1004", &["--forward-always", &destination]);
        for (from, ends) in [(&caller, true), (&west, false)] {
            if from.user() != at.user() {
                let diversion = call_arrives(from, "1004", at, ends);
                assert_eq!(diversion, "<sip:1004@example.com>;reason=unconditional;counter=1");
            }
        }
        assert_eq!(called.received("INVITE").len(), 0);
        println!("always: calls to 1004 arrive at {to}");
    }
    let text = caller.message("1004", "not forwarded").unwrap();
    assert_eq!((text.status, called.received("MESSAGE").len()), (200, 1));
    clear(&deployment, "1004");

    set(&deployment, "1004", &["--do-not-disturb", "on"]);
    assert_eq!(refused(&caller, "1004"), 486);
    assert_eq!(caller.message("1004", "disturbs nobody").unwrap().status, 200);
    set(&deployment, "1004", &["--forward-busy", "2003@example.com"]);
    assert!(call_arrives(&caller, "1004", &west, true).contains("do-not-disturb"));
    set(&deployment, "1004", &["--do-not-disturb", "off"]);
    called.set_manners(Manners::Busy);
    assert!(call_arrives(&caller, "1004", &west, false).contains("user-busy"));
    assert_eq!(called.received("INVITE").len(), 1);
    println!("do not disturb: 486, with forwarding on busy it goes on; busy phone: it goes on");
    clear(&deployment, "1004");

    called.set_manners(Manners::Ring);
    let five = ["--forward-no-answer", "1005@example.com", "--no-answer-after", "5"];
    set(&deployment, "1004", &five);
    let began = Instant::now();
    assert!(call_arrives(&caller, "1004", &mate, true).contains("no-answer"));
    let took = began.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(7)).contains(&took), "{took:?}");
    wait_until("the CANCEL of the phone", LIMIT, || Ok(called.received("CANCEL").len() == 1)).unwrap();
    println!("no answer: after {took:?} the call was up at 1005, the phone of 1004 cancelled");
    clear(&deployment, "1004");

    set(&deployment, "1009", &["--forward-not-reachable", "1005@example.com"]);
    assert!(call_arrives(&caller, "1009", &mate, true).contains("unavailable"));
    set(&deployment, "1004", &["--forward-not-reachable", "1005@example.com"]);
    called.set_manners(Manners::Away);
    assert!(call_arrives(&caller, "1004", &mate, false).contains("unavailable"));
    println!("not reachable: without a phone and with one that says so");
}

#[test]
fn simultaneous_ring_rings_all_and_the_first_to_answer_has_the_call() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let caller = phone(&deployment, "1003", Via::Udp, "east1");
    let desk = phone(&deployment, "1004", Via::Udp, "east1");
    let west = phone(&deployment, "2003", Via::Tcp, "west1");
    set(&deployment, "1004", &["--ring-also", "2003@example.com", "--ring-also", "tel:+4930123"]);

    desk.set_manners(Manners::Ring);
    let diversion = call_arrives(&caller, "1004", &west, true);
    assert_eq!(diversion, "<sip:1004@example.com>;reason=follow-me;counter=1");
    wait_until("the CANCEL of the desk phone", LIMIT, || Ok(desk.received("CANCEL").len() == 1)).unwrap();

    desk.set_manners(Manners::Answer);
    west.set_manners(Manners::Ring);
    call_arrives(&caller, "1004", &desk, false);
    wait_until("the CANCEL at the other pool", LIMIT, || Ok(west.received("CANCEL").len() == 1)).unwrap();
    let reason = west.received("CANCEL")[0].header("Reason").unwrap_or_default().to_owned();
    assert!(reason.contains("cause=200"), "{reason}");

    // Who is rung by it is not said to have missed a call that was answered.
    assert_eq!(results(&deployment, "1004", 2), [pair("received", "answered"), pair("received", "answered")]);
    assert_eq!(results(&deployment, "2003", 1), [pair("received", "answered")]);
    println!("simultaneous ring: the mobile at the other pool, then the desk phone; the other is cancelled");
}

#[test]
fn chains_of_forwarding_are_followed_and_loops_end() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let caller = phone(&deployment, "1003", Via::Udp, "east1");
    let last = phone(&deployment, "1005", Via::Udp, "east1");
    set(&deployment, "1004", &["--forward-always", "2003@example.com"]);
    set(&deployment, "2003", &["--forward-always", "1005@example.com"]);
    let diversion = call_arrives(&caller, "1004", &last, true);
    let (latest, first) = diversion.split_once(", ").unwrap();
    assert!(latest.contains("2003") && first.contains("1004"), "{diversion}");

    set(&deployment, "2003", &["--forward-always", "1004@example.com"]);
    assert_eq!(refused(&caller, "1004"), 482, "between pools");
    set(&deployment, "1004", &["--forward-always", "1006@example.com"]);
    set(&deployment, "1006", &["--forward-always", "1004@example.com"]);
    assert_eq!(refused(&caller, "1004"), 482, "inside a pool");
    set(&deployment, "1006", &["--forward-always", "1006@example.com"]);
    assert_eq!(refused(&caller, "1004"), 404, "to himself");
    set(&deployment, "1006", &["--forward-always", "nobody@example.com"]);
    assert_eq!(refused(&caller, "1004"), 404, "to nobody");
    set(&deployment, "1006", &["--forward-always", "tel:+4930123"]);
    assert_eq!(refused(&caller, "1004"), 404, "outside, where no trunk leads");

    // Everybody rings everybody: bounded, and the caller gets an answer.
    let users = ["1004", "1006", "1007", "1008"];
    for user in users {
        clear(&deployment, user);
        let others: Vec<String> = users
            .iter()
            .filter(|other| **other != user)
            .map(|other| format!("{other}@example.com"))
            .collect();
        let wishes: Vec<&str> = others.iter().flat_map(|other| ["--ring-also", other]).collect();
        set(&deployment, user, &wishes);
    }
    let began = Instant::now();
    let status = refused(&caller, "1004");
    println!("four users who ring each other: {status} after {:?}", began.elapsed());
    assert!((400..500).contains(&status), "{status}");
    assert_eq!(call_arrives(&caller, "1005", &last, true), "", "the server is well");
}

#[test]
fn voice_policies_are_enforced_and_never_for_emergency_calls() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let caller = phone(&deployment, "1003", Via::Udp, "east1");
    let called = phone(&deployment, "1004", Via::Udp, "east1");
    let policy = |calls: &str| {
        succeeds(&deployment, &["user", "policy", "set", "1003@example.com", "--calls", calls]);
    };

    policy("emergency-only");
    let answer = caller.call("1004").unwrap().map(drop).unwrap_err();
    assert_eq!(answer.status, 403);
    assert!(answer.message.start.contains("Voice Policy"), "{}", answer.message.start);
    assert_eq!(refused(&caller, "112"), 404, "no trunk yet, and no policy either");
    assert_eq!(caller.message("1004", "no call").unwrap().status, 200);
    assert_eq!(called.received("INVITE").len(), 0);
    assert_eq!(call_arrives(&called, "1003", &caller, true), "", "he may be called");

    policy("internal");
    call_arrives(&caller, "1004", &called, true);
    policy("everybody");
    call_arrives(&caller, "1004", &called, false);

    // What the policy does not allow is as if it were not set.
    set(&deployment, "1004", &["--forward-always", "tel:+4930123"]);
    assert_eq!(refused(&caller, "1004"), 404);
    succeeds(&deployment, &["user", "policy", "set", "1004@example.com", "--forwarding-outside", "refused"]);
    call_arrives(&caller, "1004", &called, true);
}

#[test]
fn call_logs_say_what_became_of_each_call_on_both_sides() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let east = phone(&deployment, "1003", Via::Udp, "east1");
    let west = phone(&deployment, "2003", Via::Udp, "west1");

    call_arrives(&east, "2003", &west, true);
    west.set_manners(Manners::Busy);
    assert_eq!(refused(&east, "2003"), 486);
    west.set_manners(Manners::Ring);
    east.call_and_cancel("2003").unwrap();
    assert_eq!(refused(&east, "1009"), 480);
    assert_eq!(refused(&east, "1999"), 404);

    let made = [
        ("made", "failed"),
        ("made", "missed"),
        ("made", "cancelled"),
        ("made", "busy"),
        ("made", "answered"),
    ];
    assert_eq!(results(&deployment, "1003", 5), made.map(|(direction, result)| pair(direction, result)));
    let received = [("received", "missed"), ("received", "busy"), ("received", "answered")];
    assert_eq!(results(&deployment, "2003", 3), received.map(|(direction, result)| pair(direction, result)));
    assert_eq!(results(&deployment, "1009", 1), [pair("received", "missed")]);
    assert_eq!(calls(&deployment, "2003", &["--missed"]).len(), 2);
    for (user, other) in [("1003", "sip:2003@example.com"), ("2003", "sip:1003@example.com")] {
        wait_until("the end of the call", LIMIT, || {
            let ended = calls(&deployment, user, &[]).iter().any(|call| {
                call["other"] == other && call["answered_at"].is_string() && call["talked_s"].is_u64()
            });
            Ok(ended)
        })
        .unwrap();
    }
    println!("{}", run(&deployment, &["user", "calls", "1003@example.com"]).out);
}

#[test]
fn calls_during_a_takeover_are_in_the_logs_once_when_the_pool_is_back() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    let (one, two) =
        (phone(&deployment, "1003", Via::Udp, "east1"), phone(&deployment, "1004", Via::Udp, "east1"));
    call_arrives(&one, "1004", &two, true);
    results(&deployment, "1004", 1);

    deployment.kill("east1").unwrap();
    for phone in [&one, &two] {
        phone.use_server(Deployment::sip("west1"));
        wait_until("a registration at the partner", LIMIT, || {
            let answer = phone.register_within(300, Duration::from_secs(1));
            Ok(answer
                .is_ok_and(|answer| answer.status == 200 && answer.mode().as_deref() == Some("resiliency")))
        })
        .unwrap();
    }
    for ends in [true, false] {
        call_arrives(&one, "1004", &two, ends);
    }
    two.set_manners(Manners::Busy);
    assert_eq!(refused(&one, "1004"), 486);
    let read_only =
        run(&deployment, &["user", "settings", "set", "1003@example.com", "--do-not-disturb", "on"]);
    println!("resiliency mode: exit {}: {}", read_only.code, read_only.err.trim());
    assert!(read_only.code == 1 && read_only.err.contains("resiliency"), "{read_only:?}");
    let added = deployment.tandem(&["user", "add", "x@example.com", "--home", "east"], b"p\n").unwrap();
    assert!(added.code == 1 && added.err.contains("resiliency"), "{added:?}");
    assert!(calls(&deployment, "1004", &[]).len() <= 1, "nothing is written there");
    // They wait on disk: the server may die meanwhile.
    let spool = deployment.dir().join("servers/west1/data/call-records");
    wait_until("the records to be kept", LIMIT, || {
        Ok(fs::read_dir(&spool).is_ok_and(|files| files.count() > 0))
    })
    .unwrap();

    deployment.start("east1").unwrap();
    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    let received =
        [("received", "busy"), ("received", "answered"), ("received", "answered"), ("received", "answered")];
    assert_eq!(results(&deployment, "1004", 4), received.map(|(direction, result)| pair(direction, result)));
    assert_eq!(results(&deployment, "1003", 4).len(), 4);
    wait_until("the spool to be empty", LIMIT, || {
        Ok(fs::read_dir(&spool).is_ok_and(|files| files.count() == 0))
    })
    .unwrap();
    assert_eq!(results(&deployment, "1004", 4).len(), 4, "once");
}

#[test]
fn calls_at_a_branch_without_its_wan_reach_the_logs_once_when_it_is_back() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let one = phone(&deployment, "3003", Via::Udp, "branch1a");
    let two = phone(&deployment, "3004", Via::Tcp, "branch1a");
    let three = phone(&deployment, "3005", Via::Udp, "branch1a");
    succeeds(&deployment, &["user", "policy", "set", "3005@example.com", "--calls", "emergency-only"]);
    set(&deployment, "3004", &["--forward-busy", "3005@example.com"]);
    wait_until("the policy at the branch", LIMIT, || Ok(refused(&three, "3003") == 403)).unwrap();
    results(&deployment, "3005", 1);

    for other in ["127.0.1.1", "127.0.2.1", "127.0.4.1"] {
        deployment.namespace().cut("127.0.3.1", other).unwrap();
    }
    call_arrives(&one, "3004", &two, true);
    two.set_manners(Manners::Busy);
    assert!(call_arrives(&one, "3004", &three, true).contains("user-busy"), "settings are followed");
    assert_eq!(refused(&three, "3003"), 403, "policies are enforced");
    // Two calls with two users each, one of them with a third; and the refused one.
    let spool = deployment.dir().join("servers/branch1a/data/call-records");
    wait_until("the records to be kept", LIMIT, || Ok(spooled(&spool).len() == 6)).unwrap();
    deployment.kill("branch1a").unwrap();
    deployment.start("branch1a").unwrap();

    deployment.namespace().heal().unwrap();
    assert_eq!(results(&deployment, "3003", 2), [pair("made", "answered"), pair("made", "answered")]);
    assert_eq!(results(&deployment, "3004", 2), [pair("received", "missed"), pair("received", "answered")]);
    assert_eq!(results(&deployment, "3005", 3)[1], pair("received", "answered"));
}

#[test]
fn users_of_a_branch_are_changed_at_its_associated_pool_and_served_by_the_appliance() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let server = Deployment::sip("branch1a");
    let carol = Phone::with_password("carol", "correct horse", Via::Udp, server, "127.0.0.1", None).unwrap();
    assert_eq!(carol.register(300).unwrap().status, 401);

    let add = ["user", "add", "carol@example.com", "--home", "branch1"];
    assert_eq!(deployment.tandem(&add, b"correct horse\n").unwrap().code, 0);
    set(&deployment, "carol", &["--do-not-disturb", "on"]);
    let register = || {
        carol.forget_nonces();
        carol.register(300).unwrap().status
    };
    wait_until("a registration at the appliance", LIMIT, || Ok(register() == 200)).unwrap();
    let caller = phone(&deployment, "3003", Via::Udp, "branch1a");
    wait_until("her settings at the appliance", LIMIT, || Ok(refused(&caller, "carol") == 486)).unwrap();
    let listed = succeeds(&deployment, &["user", "list", "--home", "branch1"]).out;
    assert!(listed.contains("carol") && listed.contains("3003") && !listed.contains("1003"), "{listed}");
    let found = succeeds(&deployment, &["user", "where", "carol@example.com", "--output", "json"]);
    assert_eq!(found.json().unwrap()["home"], "branch1");

    let imported = deployment.tandem(&["user", "import", "-"], b"sip:dan@example.com,p,branch1\n").unwrap();
    assert_eq!(imported.code, 0, "{imported:?}");
    let dan = Phone::with_password("dan", "p", Via::Udp, server, "127.0.0.1", None).unwrap();
    wait_until("an imported user", LIMIT, || {
        dan.forget_nonces();
        Ok(dan.register(300)?.status == 200)
    })
    .unwrap();

    succeeds(&deployment, &["user", "remove", "carol@example.com"]);
    wait_until("her end at the appliance", LIMIT, || Ok(register() == 401)).unwrap();
    assert_eq!(refused(&caller, "carol"), 404);
}

#[test]
fn after_a_switchover_documents_are_changed_and_followed_at_the_partner() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    set(&deployment, "1004", &["--forward-always", "2003@example.com"]);
    let switched = run(&deployment, &["pool", "switchover", "east", "--apply"]);
    assert_eq!(switched.code, 0, "{switched:?}");

    set(&deployment, "1004", &["--forward-always", "2004@example.com"]);
    let aor = "1004@example.com";
    succeeds(&deployment, &["user", "contacts", "add", aor, "2004@example.com"]);
    assert_eq!(
        deployment.tandem(&["user", "add", "eve@example.com", "--home", "east"], b"p\n").unwrap().code,
        0
    );
    let caller = phone(&deployment, "2005", Via::Udp, "west1");
    let last = phone(&deployment, "2004", Via::Udp, "west1");
    call_arrives(&caller, "1004", &last, true);
    assert_eq!(results(&deployment, "1004", 1), [pair("received", "missed")]);

    let back = run(&deployment, &["pool", "failback", "east", "--apply"]);
    assert_eq!(back.code, 0, "{back:?}");
    let settings = succeeds(&deployment, &["user", "settings", "show", aor]).out;
    assert!(settings.contains("2004"), "{settings}");
    assert_eq!(results(&deployment, "1004", 1), [pair("received", "missed")]);
    call_arrives(&caller, "1004", &last, false);
}

#[test]
fn sipp_calls_a_user_whose_calls_are_sent_on() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    set(&deployment, "1002", &["--forward-always", "2001@example.com"]);
    set(&deployment, "2001", &["--forward-busy", "1005@example.com"]);
    let registered = |user: &str, server: &str, port: &str| {
        let scenario = "register.xml";
        let users = user_file(&deployment, user);
        let remote = Deployment::sip(server).to_string();
        let arguments = [
            &remote,
            "-inf",
            &users,
            "-i",
            "127.0.0.1",
            "-t",
            "u1",
            "-m",
            "1",
            "-auth_uri",
            "example.com",
            "-key",
            "contact_port",
            port,
            "-p",
            port,
        ];
        let result = Sipp::start(deployment.scratch(), scenario, &arguments).unwrap().wait(LIMIT).unwrap();
        assert_eq!(result.code, 0, "{}", result.errors);
        remote
    };
    let remote = registered("2001", "west1", "5072");
    let arguments = [remote.as_str(), "-i", "127.0.0.1", "-p", "5072", "-t", "u1", "-m", "200"];
    let answering = Sipp::start(deployment.scratch(), "answer.xml", &arguments).unwrap();
    let (remote, users) = (Deployment::sip("east1").to_string(), user_file(&deployment, "1001"));
    let arguments = [
        remote.as_str(),
        "-inf",
        &users,
        "-i",
        "127.0.0.1",
        "-t",
        "u1",
        "-auth_uri",
        "1002@example.com",
        "-m",
        "200",
        "-r",
        "100",
        "-key",
        "called",
        "1002",
    ];
    let calling = Sipp::start(deployment.scratch(), "call.xml", &arguments).unwrap();
    let made = calling.wait(LIMIT).unwrap();
    assert_eq!(made.code, 0, "{}", made.errors);
    let taken = answering.wait(LIMIT).unwrap();
    assert_eq!(taken.code, 0, "{}", taken.errors);
    println!("SIPp: 200 calls to 1002 answered by 2001 at the other pool in {:?}", made.took);

    assert!(results(&deployment, "1001", 100).iter().all(|found| *found == pair("made", "answered")));
    assert!(results(&deployment, "2001", 100).iter().all(|found| *found == pair("received", "answered")));
    assert!(results(&deployment, "1002", 100).iter().all(|found| *found == pair("received", "missed")));
}

/// The file that gives a scenario its user and password.
fn user_file(deployment: &Deployment, user: &str) -> String {
    let file = deployment.scratch().join(format!("{user}.csv"));
    let password = deployment.password(user).unwrap();
    fs::write(&file, format!("SEQUENTIAL\n{user};[authentication username={user} password={password}]\n"))
        .unwrap();
    file.to_string_lossy().into_owned()
}
