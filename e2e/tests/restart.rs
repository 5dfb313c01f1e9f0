//! What servers do when they are started again.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::time::{Duration, Instant};

use e2e::{Deployment, Phone, SERVERS, Timing, Via, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

fn phone(deployment: &Deployment, user: &str, via: Via, server: &str) -> Phone {
    let phone = Phone::new(deployment, user, via, server, "127.0.0.1").unwrap();
    assert_eq!(phone.register(600).unwrap().status, 200);
    phone
}

#[test]
fn phones_are_reached_after_a_restart_without_registering_again() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let (one, two) =
        (phone(&deployment, "1003", Via::Udp, "east1"), phone(&deployment, "1004", Via::Udp, "east1"));
    let stream = phone(&deployment, "1005", Via::Tcp, "east1");
    let west = phone(&deployment, "2003", Via::Tcp, "west1");
    let up = one.call("1004").unwrap().unwrap();
    let between = west.call("1003").unwrap().unwrap();
    two.wait_acknowledged().unwrap();
    one.wait_acknowledged().unwrap();

    deployment.kill("east1").unwrap();
    let killed = Instant::now();
    deployment.start("east1").unwrap();
    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    let back = killed.elapsed();

    let ended = up.bye().unwrap();
    assert_eq!(ended.status, 200, "a call from before the restart ends: {:?}", ended.message);
    wait_until("the link between the pools", LIMIT, || Ok(west.message("1003", "?")?.status == 200)).unwrap();
    let ended = between.bye().unwrap();
    assert_eq!(ended.status, 200, "so does one between the pools: {:?}", ended.message);
    let call = one.call("1004").unwrap().unwrap_or_else(|answer| panic!("{:?}", answer.message));
    assert_eq!(call.bye().unwrap().status, 200);
    // The connection of this phone ended with the process.
    let gone = one.call("1005").unwrap().map(drop).unwrap_err();
    assert_eq!(gone.status, 480, "{:?}", gone.message);
    drop(stream);
    let stream = phone(&deployment, "1005", Via::Tcp, "east1");
    let call = one.call("1005").unwrap().unwrap_or_else(|answer| panic!("{:?}", answer.message));
    assert_eq!(call.bye().unwrap().status, 200);
    drop(stream);
    println!(
        "SIGKILL to serving again: {back:?}; calls up stay up and end, UDP phones are called at once, TCP \
        phones after \
         they connect again"
    );
}

#[test]
fn everything_starts_again_after_all_of_it_died_and_without_the_control_server() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    let (east, west) =
        (phone(&deployment, "1003", Via::Udp, "east1"), phone(&deployment, "2003", Via::Udp, "west1"));
    for server in SERVERS {
        deployment.kill(server).unwrap();
    }
    for server in ["east1", "west1", "branch1a"] {
        deployment.start(server).unwrap();
    }
    let began = Instant::now();
    for (server, pool) in [("east1", "east"), ("west1", "west")] {
        deployment.wait_serving(server, pool, Some("full"), LIMIT).unwrap();
    }
    println!("all killed, started without the control server: both pools serve after {:?}", began.elapsed());
    wait_until("a call between the pools", LIMIT, || match east.call("2003")? {
        Ok(call) => Ok(call.bye()?.status == 200),
        Err(_) => Ok(false),
    })
    .unwrap();
    assert_eq!(west.register(600).unwrap().status, 200);
    deployment.start("control1").unwrap();

    // Stopped politely, each in turn: nobody is lost either.
    for server in SERVERS {
        deployment.stop(server).unwrap();
        deployment.start(server).unwrap();
    }
    for user in ["1003", "2003"] {
        assert!(!deployment.registrations(user).unwrap().is_empty(), "{user}");
    }
}

#[test]
fn a_pool_that_dies_again_and_again_is_taken_over_each_time() {
    let deployment = Deployment::running(Timing { hold_s: 1, ..Timing::FAST }).unwrap();
    let east = phone(&deployment, "1003", Via::Udp, "east1");
    let west = phone(&deployment, "2003", Via::Udp, "west1");
    for (round, is_frozen) in [false, true, false].into_iter().enumerate() {
        if is_frozen { deployment.freeze("east1") } else { deployment.kill("east1") }.unwrap();
        let began = Instant::now();
        east.use_server(Deployment::sip("west1"));
        wait_until("the partner", LIMIT, || {
            let answer = east.register_within(600, Duration::from_secs(4));
            Ok(answer
                .is_ok_and(|answer| answer.status == 200 && answer.mode().as_deref() == Some("resiliency")))
        })
        .unwrap();
        let taken = began.elapsed();
        let text = west.message("1003", "hello").unwrap();
        assert_eq!(text.status, 200, "{:?}", text.message);
        if is_frozen { deployment.thaw("east1") } else { deployment.start("east1") }.unwrap();
        let began = Instant::now();
        deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
        let returned = began.elapsed();
        east.use_server(Deployment::sip("east1"));
        wait_until("home", LIMIT, || Ok(east.register_within(600, LIMIT)?.status == 200)).unwrap();
        wait_until("a message across", LIMIT, || Ok(west.message("1003", "hello")?.status == 200)).unwrap();
        println!("round {}: taken over after {taken:?}, returned after {returned:?}", round + 1);
        assert!(taken < Duration::from_secs(8), "{taken:?}");
    }
}

#[test]
fn a_pool_that_is_unpaired_after_it_was_failed_over_goes_on_in_its_epoch() {
    let deployment = Deployment::new(Timing::FAST).unwrap();
    for server in ["control1", "east1", "west1"] {
        deployment.start(server).unwrap();
    }
    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    for operation in ["switchover", "failback"] {
        wait_until("an operation", LIMIT, || {
            Ok(deployment.tandem(&["pool", operation, "east", "--apply"], b"")?.code == 0)
        })
        .unwrap();
    }
    let phone = Phone::new(&deployment, "1001", Via::Udp, "east1", "127.0.0.1").unwrap();
    assert_eq!(phone.register(300).unwrap().status, 200);
    for server in ["control1", "east1", "west1"] {
        deployment.kill(server).unwrap();
    }

    deployment.edit_topology(|text| text.replace("[[pair]]\npools = [\"east\", \"west\"]\n", "")).unwrap();
    deployment.start("east1").unwrap();
    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();

    let answer = phone.register(300).unwrap();
    assert_eq!(answer.status, 200, "registrations are written: {answer:?}");
    let quiet = ["user", "settings", "set", "sip:1001@example.com", "--do-not-disturb", "on"];
    let set = deployment.tandem(&quiet, b"").unwrap();
    assert_eq!(set.code, 0, "documents are written: {set:?}");
}
