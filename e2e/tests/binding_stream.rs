//! Bindings are at the other pool before they are needed: calls reach phones that have not registered again.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    fmt::Write,
    fs,
    time::{Duration, Instant},
};

use e2e::{Deployment, Phone, Timing, Via, wait_for, wait_until};

const USERS: usize = 200;
/// One in ten registers over TCP, one in ten unregisters again.
const ONE_IN: usize = 10;
const LIMIT: Duration = Duration::from_secs(30);
/// How long a refusal may take where the only way leads through a dead server.
const REFUSAL: Duration = Duration::from_secs(2);

fn user(number: usize) -> String {
    format!("u{number:05}")
}

fn import_users(deployment: &Deployment) {
    let mut text = String::from("address-of-record,password,home\n");
    for number in 0..USERS {
        writeln!(text, "sip:{0}@example.com,p{0},east", user(number)).unwrap();
    }
    let file = deployment.scratch().join("more.csv");
    fs::write(&file, text).unwrap();
    let ran = deployment.tandem(&["user", "import", &file.to_string_lossy()], b"").unwrap();
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn phone_of(number: usize, via: Via, server: &str) -> Phone {
    let name = user(number);
    let phone =
        Phone::with_password(&name, &format!("p{name}"), via, Deployment::sip(server), "127.0.0.1", None)
            .unwrap();
    assert_eq!(phone.register(600).unwrap().status, 200);
    phone
}

fn phone(deployment: &Deployment, user: &str, via: Via, server: &str) -> Phone {
    let phone = Phone::new(deployment, user, via, server, "127.0.0.1").unwrap();
    assert_eq!(phone.register(600).unwrap().status, 200);
    phone
}

/// What a server says of itself, by `tandem pool status`.
fn status(deployment: &Deployment, server: &str) -> serde_json::Value {
    let json = deployment.tandem(&["pool", "status", "--output", "json"], b"").unwrap().json().unwrap();
    let of_server = |entry: &&serde_json::Value| entry["server"] == server;
    json.as_array().unwrap().iter().find(of_server).unwrap()["status"].clone()
}

/// Bindings that a server keeps for a home pool.
fn kept(deployment: &Deployment, server: &str, home: &str) -> u64 {
    let status = status(deployment, server);
    let homes = status["homes"].as_array().into_iter().flatten();
    homes.filter(|entry| entry["home"] == home).filter_map(|entry| entry["bindings"].as_u64()).sum()
}

fn counter(deployment: &Deployment, server: &str, name: &str) -> u64 {
    let status = status(deployment, server);
    let counters = status["counters"].as_array().unwrap();
    counters.iter().find(|entry| entry[0] == name).unwrap()[1].as_u64().unwrap()
}

fn wait_kept(deployment: &Deployment, server: &str, home: &str, count: usize) -> Duration {
    let count = u64::try_from(count).unwrap();
    wait_until("the copies of bindings", LIMIT, || Ok(kept(deployment, server, home) == count)).unwrap()
}

fn call(caller: &Phone, called: &Phone) {
    let call = caller
        .call(called.user())
        .unwrap()
        .unwrap_or_else(|answer| panic!("{} calls {}: {:?}", caller.user(), called.user(), answer.message));
    called.wait_acknowledged().unwrap();
    assert_eq!(call.bye().unwrap().status, 200);
    called.wait_ended().unwrap();
}

/// Each is reached at the first attempt; returns how long all of them took.
fn reach_all<'a>(caller: &Phone, phones: impl Iterator<Item = &'a Phone>) -> Duration {
    let began = Instant::now();
    for phone in phones {
        let answer = caller.message(phone.user(), "hello").unwrap();
        assert_eq!(answer.status, 200, "{}: {:?}", phone.user(), answer.message);
    }
    began.elapsed()
}

fn assert_unreachable(caller: &Phone, user: &str) {
    let began = Instant::now();
    let answer = caller.message(user, "hello").unwrap();
    assert!([430, 480].contains(&answer.status), "{user}: {:?}", answer.message);
    assert!(began.elapsed() < REFUSAL, "{user}: {:?}", began.elapsed());
}

/// Waits until the phone is called although it has not registered at home yet.
fn reach_soon(caller: &Phone, phone: &Phone) -> Duration {
    let ((), took) = wait_for("a phone that is registered elsewhere only", LIMIT, || {
        Ok((caller.message(phone.user(), "hello")?.status == 200).then_some(()))
    })
    .unwrap();
    took
}

#[test]
fn phones_of_a_dead_pool_are_called_before_they_register_again() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    import_users(&deployment);
    wait_until("the users at both pools", LIMIT, || {
        let ran = deployment.tandem(&["user", "where", &format!("{}@example.com", user(USERS - 1))], b"")?;
        Ok(ran.code == 0)
    })
    .unwrap();
    let via = |number: usize| if number % ONE_IN == 1 { Via::Tcp } else { Via::Udp };
    let phones: Vec<Phone> = (0..USERS).map(|number| phone_of(number, via(number), "east1")).collect();
    let is_removed = |number: &usize| number % ONE_IN == 2;
    (0..USERS)
        .filter(is_removed)
        .for_each(|number| assert_eq!(phones[number].register(0).unwrap().status, 200));
    let caught_up = wait_kept(&deployment, "west1", "east", USERS - USERS / ONE_IN);
    let caller = phone(&deployment, "2003", Via::Udp, "west1");
    let registers = counter(&deployment, "west1", "registers_accepted");

    deployment.kill("east1").unwrap();
    deployment.wait_serving("west1", "east", Some("resiliency"), LIMIT).unwrap();
    let udp = || (0..USERS).filter(|number| via(*number) == Via::Udp && !is_removed(number));
    let took = reach_all(&caller, udp().map(|number| &phones[number]));
    call(&caller, &phones[3]);
    call(&caller, &phones[USERS - 1]);
    (0..USERS).filter(is_removed).for_each(|number| assert_unreachable(&caller, &user(number)));
    // Their connections ended with their server.
    assert_unreachable(&caller, &user(1));
    assert_eq!(counter(&deployment, "west1", "registers_accepted"), registers, "nobody registered at west");
    for number in udp() {
        assert_eq!(
            phones[number]
                .history("REGISTER")
                .iter()
                .filter(|heard| heard.message.status() == Some(200))
                .count(),
            1
        );
    }
    println!(
        "{} UDP phones of a dead pool: known to the partner {caught_up:?} after the last one registered, all \
         reached in {took:?} without registering again",
        udp().count()
    );

    // While the partner serves: some register there for the first time, one unregisters there.
    let newcomers = [(2, Via::Udp), (12, Via::Tcp)].map(|(number, via)| phone_of(number, via, "west1"));
    phones[3].use_server(Deployment::sip("west1"));
    assert_eq!(phones[3].register(0).unwrap().status, 200);
    deployment.start("east1").unwrap();
    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    let longest = newcomers.iter().map(|newcomer| reach_soon(&caller, newcomer)).max().unwrap();
    newcomers.iter().for_each(|newcomer| call(&caller, newcomer));
    let rest: Vec<usize> = udp().filter(|number| *number != 3).collect();
    reach_all(&caller, rest.iter().map(|number| &phones[*number]));
    assert_unreachable(&caller, &user(3));
    (0..USERS).filter(|number| is_removed(number) && ![2, 12].contains(number)).for_each(|number| {
        assert_unreachable(&caller, &user(number));
    });
    println!("after the return: who registered at the partner only is reached within {longest:?}");
}

#[test]
fn a_flow_through_the_partner_is_used_directly_when_the_owner_is_dead() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    // Registered at east through west, which is the edge of its flow.
    let phones =
        [("1003", Via::Udp), ("1004", Via::Tcp)].map(|(user, via)| phone(&deployment, user, via, "west1"));
    let caller = phone(&deployment, "2003", Via::Udp, "west1");
    reach_all(&caller, phones.iter());
    wait_kept(&deployment, "west1", "east", 2);

    deployment.kill("east1").unwrap();
    deployment.wait_serving("west1", "east", Some("resiliency"), LIMIT).unwrap();
    let took = reach_all(&caller, phones.iter());

    phones.iter().for_each(|phone| call(&caller, phone));
    println!("phones whose flow ends at the partner are reached in {took:?} after the owner died");
}

#[test]
fn phones_of_a_dead_branch_appliance_are_called_and_so_are_those_that_registered_while_it_was_away() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    let branch = phone(&deployment, "3003", Via::Udp, "branch1a");
    let caller = phone(&deployment, "1003", Via::Udp, "east1");
    wait_kept(&deployment, "east1", "branch1", 1);

    deployment.kill("branch1a").unwrap();
    let killed = Instant::now();
    let reached = reach_soon(&caller, &branch);
    println!(
        "a phone of a dead branch appliance is reached {reached:?} after it died, without registering again"
    );
    let newcomer = wait_for("the associated pool to accept the users of the branch", LIMIT, || {
        let newcomer = Phone::new(&deployment, "3004", Via::Tcp, "east1", "127.0.0.1")?;
        Ok((newcomer.register_within(600, REFUSAL)?.status == 200).then_some(newcomer))
    });
    let (newcomer, _) = newcomer.unwrap();
    println!("and others register at the associated pool {:?} after it died", killed.elapsed());
    call(&caller, &newcomer);

    deployment.start("branch1a").unwrap();
    deployment.wait_serving("branch1a", "branch1", Some("full"), LIMIT).unwrap();
    wait_kept(&deployment, "branch1a", "branch1", 2);
    // Through the appliance, which has never heard of this phone but from the pool.
    let inside = phone(&deployment, "3001", Via::Udp, "branch1a");
    let back = reach_soon(&inside, &newcomer);
    call(&inside, &newcomer);
    call(&inside, &branch);
    println!(
        "a phone that registered while the appliance was away is reached through it {back:?} after its return"
    );
}

/// What a phone of east is answered that registers at west: never 200 while west is not the owner.
fn assert_not_registered(phone: &Phone) {
    phone.use_server(Deployment::sip("west1"));
    let answer = phone.register_within(300, REFUSAL).unwrap();
    assert!([302, 503].contains(&answer.status), "{:?}", answer.message);
}

/// The first 200 of a phone to a MESSAGE, how many were sent for that, and how long it took since `began`.
fn first_reached(caller: &Phone, user: &str, began: Instant) -> (Duration, usize) {
    let mut sent = 0;
    wait_for("a phone to be reached", LIMIT, || {
        sent += 1;
        // Who asks while nobody knows of the cut yet waits in vain.
        Ok(caller.message(user, "hello").ok().filter(|answer| answer.status == 200).map(drop))
    })
    .unwrap();
    (began.elapsed(), sent)
}

#[test]
fn phones_of_a_pool_that_has_just_died_are_reached_through_its_partner_before_the_takeover() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let at_east = |user: &str, via: Via| phone(&deployment, user, via, "east1");
    let udp = [at_east("1003", Via::Udp), at_east("1004", Via::Udp)];
    let lost = [at_east("1005", Via::Tcp), at_east("1006", Via::Tls)];
    // One of its flows ends at west.
    let _dead_flow = at_east("1007", Via::Tcp);
    let two_flows = phone(&deployment, "1007", Via::Tcp, "west1");
    let quiet = at_east("1008", Via::Udp);
    let busy = ["user", "settings", "set", "sip:1008@example.com", "--do-not-disturb", "on"];
    assert_eq!(deployment.tandem(&busy, b"").unwrap().code, 0);
    let caller = phone(&deployment, "2003", Via::Udp, "west1");
    let branch = phone(&deployment, "3003", Via::Udp, "branch1a");
    wait_kept(&deployment, "west1", "east", 7);
    let is_quiet = || Ok(caller.call(quiet.user())?.err().is_some_and(|answer| answer.status == 486));
    wait_until("do-not-disturb", LIMIT, is_quiet).unwrap();
    reach_all(&caller, udp.iter().chain(&lost));
    assert_eq!(branch.message("1003", "hello").unwrap().status, 200);
    let up = caller.call("1004").unwrap().unwrap();
    udp[1].wait_acknowledged().unwrap();
    assert_eq!(counter(&deployment, "west1", "requests_by_copy"), 0, "the owner lives");
    let (registers, spooled) =
        ["registers_accepted", "call_records_spooled"].map(|name| counter(&deployment, "west1", name)).into();

    deployment.kill("east1").unwrap();
    let killed = Instant::now();
    let (first, sent) = first_reached(&caller, "1003", killed);
    let all = reach_all(&caller, udp.iter().chain([&two_flows]));
    let at_branch = first_reached(&branch, "1003", Instant::now());
    assert_eq!(up.bye().unwrap().status, 200, "past the dead server, which is in the route set");
    udp[1].wait_ended().unwrap();
    udp.iter().chain([&two_flows]).for_each(|phone| call(&caller, phone));
    let refused = caller.call(quiet.user()).unwrap().unwrap_err();
    lost.iter().for_each(|phone| assert_unreachable(&caller, phone.user()));
    let everything = killed.elapsed();
    assert_not_registered(&udp[0]);
    assert_eq!(refused.status, 486, "as the user wishes: {:?}", refused.message);
    assert_eq!(deployment.service("west1", "east").unwrap(), None, "nobody serves them yet");
    assert_eq!(counter(&deployment, "west1", "registers_accepted"), registers);
    assert!(first < Duration::from_secs(1), "{first:?}");
    assert!(everything < Duration::from_secs(8), "{everything:?}");
    println!(
        "east killed: its first phone is reached through west {first:?} after SIGKILL (message {sent}), all \
         others in {all:?}, from the branch in {:?} (message {}); calls, the end of a call from before, a \
         user who is quiet and two phones without a way: done {everything:?} after it",
        at_branch.0, at_branch.1
    );

    // The silence is known now; long before anybody serves.
    let by_copy = counter(&deployment, "west1", "requests_by_copy");
    wait_until("the link to east to count as down", LIMIT, || {
        let answer = caller.message("1005", "hello")?;
        Ok(answer.status == 480 && killed.elapsed() > Duration::from_secs(4))
    })
    .unwrap();
    call(&caller, &udp[0]);
    assert_unreachable(&caller, "1006");
    assert!(counter(&deployment, "west1", "requests_by_copy") > by_copy);
    let is_spooled = || Ok(counter(&deployment, "west1", "call_records_spooled") > spooled);
    wait_until("the records of these calls to wait for the owner", LIMIT, is_spooled).unwrap();
    assert_eq!(deployment.service("west1", "east").unwrap(), None, "nobody serves them yet");

    deployment.wait_serving("west1", "east", Some("resiliency"), LIMIT).unwrap();
    let taken_over = killed.elapsed();
    let by_copy = counter(&deployment, "west1", "requests_by_copy");
    assert_eq!(udp[0].register(300).unwrap().status, 200);
    call(&caller, &udp[0]);
    assert_eq!(counter(&deployment, "west1", "requests_by_copy"), by_copy, "west is the owner now");
    println!("taken over after {taken_over:?}; {by_copy} requests by the copy before that");
}

#[test]
fn two_pools_that_do_not_see_each_other_call_by_the_copies_and_register_nobody_twice() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    let (udp, tcp) =
        (phone(&deployment, "1003", Via::Udp, "east1"), phone(&deployment, "1005", Via::Tcp, "east1"));
    let stray = Phone::new(&deployment, "1004", Via::Udp, "west1", "127.0.0.1").unwrap();
    let caller = phone(&deployment, "2003", Via::Udp, "west1");
    wait_kept(&deployment, "west1", "east", 2);
    reach_all(&caller, [&udp, &tcp].into_iter());
    let registers = counter(&deployment, "west1", "registers_accepted");

    deployment.namespace().cut("127.0.1.1", "127.0.2.1").unwrap();
    let (reached, sent) = first_reached(&caller, "1003", Instant::now());
    let (began, mut calls) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(u64::from(Timing::FAST.takeover_s) + 2) {
        call(&caller, &udp);
        calls += 1;
        assert_unreachable(&caller, "1005");
        assert_not_registered(&stray);
        assert_eq!(udp.register(300).unwrap().status, 200, "its owner lives");
    }
    assert_eq!(udp.received("INVITE").len(), calls, "each call rang once");
    assert_eq!(counter(&deployment, "west1", "registers_accepted"), registers);
    assert_eq!(deployment.service("east1", "east").unwrap().as_deref(), Some("full"));
    let servers: Vec<String> =
        deployment.registrations("1003").unwrap().into_iter().map(|(server, _)| server).collect();
    assert_eq!(servers, ["east1"]);

    deployment.namespace().heal().unwrap();
    let healed = Instant::now();
    let (by_owner, _) = first_reached(&caller, "1005", healed);
    let by_copy = counter(&deployment, "west1", "requests_by_copy");
    call(&caller, &udp);
    call(&caller, &tcp);
    assert_eq!(counter(&deployment, "west1", "requests_by_copy"), by_copy, "calls go by the owner again");
    assert_eq!(udp.received("INVITE").len(), calls + 1, "each call rang once");
    println!(
        "link cut: a phone of the other pool reached after {reached:?} (message {sent}), {calls} calls by \
         the copy; healed: by the owner after {by_owner:?}"
    );
}

#[test]
fn what_only_a_dead_pool_had_acknowledged_is_there_when_it_serves_again() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    let copied = phone(&deployment, "1003", Via::Udp, "east1");
    let caller = phone(&deployment, "2003", Via::Udp, "west1");
    wait_kept(&deployment, "west1", "east", 1);
    deployment.namespace().cut("127.0.1.1", "127.0.2.1").unwrap();
    let uncopied = phone(&deployment, "1004", Via::Udp, "east1");

    deployment.kill("east1").unwrap();
    deployment.namespace().heal().unwrap();
    deployment.wait_serving("west1", "east", Some("resiliency"), LIMIT).unwrap();
    call(&caller, &copied);
    assert_unreachable(&caller, "1004");

    deployment.start("east1").unwrap();
    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    let took = reach_soon(&caller, &uncopied);
    call(&caller, &copied);
    println!("a binding that was not copied is found {took:?} after its pool serves again");
}

#[test]
fn a_call_that_a_frozen_owner_has_rings_once_while_others_go_by_the_copy() {
    // The lease outlives the freeze: when the owner goes on it deals with what it finds.
    let timing = Timing { lease_s: 15, takeover_s: 30, hold_s: 120 };
    let deployment = Deployment::running(timing).unwrap();
    let called = phone(&deployment, "1003", Via::Udp, "east1");
    let [first, second] = ["2003", "2004"].map(|user| phone(&deployment, user, Via::Udp, "west1"));
    wait_kept(&deployment, "west1", "east", 1);
    reach_all(&first, [&called].into_iter());
    reach_all(&second, [&called].into_iter());

    deployment.freeze("east1").unwrap();
    let frozen = Instant::now();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| first.call("1003"));
        let (reached, sent) = first_reached(&second, "1003", frozen);
        call(&second, &called);
        deployment.thaw("east1").unwrap();
        let waited = waits.join().unwrap();
        let answer = match waited {
            Ok(Ok(_answered)) => "200".to_owned(),
            Ok(Err(refused)) => refused.status.to_string(),
            Err(_) => "nothing".to_owned(),
        };
        println!(
            "owner frozen: reached by the copy after {reached:?} (message {sent}); who called before that: \
             {answer}"
        );
    });
    let is_owner_back = || {
        let before = counter(&deployment, "west1", "requests_by_copy");
        let status = second.message("1003", "hello")?.status;
        Ok(status == 200 && counter(&deployment, "west1", "requests_by_copy") == before)
    };
    let back = wait_until("requests to go by the owner", LIMIT, is_owner_back).unwrap();
    let mut calls: Vec<String> =
        called.received("INVITE").iter().map(|invite| invite.header("Call-ID").unwrap().to_owned()).collect();
    let rung = calls.len();
    calls.sort();
    calls.dedup();
    assert_eq!(calls.len(), rung, "a call rang twice: {calls:?}");
    println!("{rung} calls rang, each once; by the owner again {back:?} after it went on");
}
