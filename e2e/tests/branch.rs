//! A branch survives its WAN, and its phones survive the branch appliance.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::time::{Duration, Instant};

use e2e::{
    Answer, Deployment, Phone, Timing, Via,
    rows::{branch, proved},
    wait_for,
};

const RETRY: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(40);

fn phone(deployment: &Deployment, user: &str, via: Via, server: &str) -> Phone {
    let phone = Phone::new(deployment, user, via, server, "127.0.0.1").unwrap();
    assert_eq!(phone.register(300).unwrap().status, 200);
    phone
}

fn call(caller: &Phone, called: &Phone) -> Duration {
    let began = Instant::now();
    let call = caller
        .call(called.user())
        .unwrap()
        .unwrap_or_else(|answer| panic!("{} calls {}: {:?}", caller.user(), called.user(), answer.message));
    let took = began.elapsed();
    called.wait_acknowledged().unwrap();
    assert_eq!(call.bye().unwrap().status, 200);
    called.wait_ended().unwrap();
    let text = caller.message(called.user(), "hello").unwrap();
    assert_eq!(text.status, 200, "{:?}", text.message);
    took
}

fn register_until(phone: &Phone, mode: &str) -> (Answer, Vec<Answer>) {
    let mut others = Vec::new();
    let (answer, _) = wait_for("a registration in that mode", LIMIT, || {
        let Ok(answer) = phone.register_within(300, RETRY) else { return Ok(None) };
        if answer.status == 200 && answer.mode().as_deref() == Some(mode) {
            return Ok(Some(answer));
        }
        others.push(answer);
        Ok(None)
    })
    .unwrap_or_else(|error| panic!("{error} {mode}: {:?}", others.last()));
    (answer, others)
}

#[test]
fn phones_of_a_branch_keep_calling_each_other_while_its_wan_is_cut() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let (one, two) =
        (phone(&deployment, "3003", Via::Udp, "branch1a"), phone(&deployment, "3004", Via::Tcp, "branch1a"));
    let east = phone(&deployment, "1003", Via::Udp, "east1");
    call(&one, &two);
    call(&one, &east);

    for other in ["127.0.1.1", "127.0.2.1", "127.0.4.1"] {
        deployment.namespace().cut("127.0.3.1", other).unwrap();
    }
    let cut = Instant::now();
    let at_once = call(&one, &two);
    let first = one.register(300).unwrap();
    assert_eq!(first.status, 200);
    let (told, others) = register_until(&one, "resiliency");
    let told_after = cut.elapsed();
    assert!(told.header("Warning").is_some_and(|text| text.starts_with("399 ")), "{:?}", told.message);
    assert!(others.iter().all(|answer| answer.status == 200), "a registration was refused");
    call(&two, &one);
    proved(branch::CUT_OFF, told.header("Feature-Caps").unwrap_or_default());
    let refused = one.call("1003").unwrap().map(drop).unwrap_err();
    assert!([408, 480, 500, 503, 504].contains(&refused.status), "{:?}", refused.message);
    println!(
        "WAN cut: the next call inside the branch took {at_once:?}; {} registrations before the mode was \
        told after \
         {told_after:?}, all accepted; a call to the outside: {}",
        others.len() + 1,
        refused.status
    );

    deployment.namespace().heal().unwrap();
    let healed = Instant::now();
    register_until(&one, "full");
    println!("WAN back: full mode after {:?}", healed.elapsed());
    assert_eq!(two.register(300).unwrap().mode().as_deref(), Some("full"));
    call(&one, &two);
    call(&one, &east);
    call(&east, &two);
}

#[test]
fn phones_of_a_dead_branch_appliance_register_at_its_associated_pool_and_return() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    let (one, two) =
        (phone(&deployment, "3003", Via::Udp, "branch1a"), phone(&deployment, "3004", Via::Udp, "branch1a"));
    let east = phone(&deployment, "1003", Via::Udp, "east1");
    one.use_server(Deployment::sip("east1"));
    let forwarded = one.register(300).unwrap();
    assert_eq!(forwarded.status, 200, "{:?}", forwarded.message);
    call(&two, &one);
    println!("appliance up: a REGISTER at the pool is forwarded to it: {}", forwarded.status);

    deployment.kill("branch1a").unwrap();
    let killed = Instant::now();
    let (accepted, refusals) = register_until(&one, "full");
    let took = killed.elapsed();
    for refusal in &refusals {
        assert!(refusal.status == 503 && refusal.retry_after().is_some(), "{:?}", refusal.message);
    }
    two.use_server(Deployment::sip("east1"));
    register_until(&two, "full");
    call(&one, &two);
    call(&east, &one);
    proved(branch::APPLIANCE_DOWN, accepted.header("Feature-Caps").unwrap_or_default());
    println!(
        "appliance killed: its phones registered at the pool after {took:?}, {} x 503 before",
        refusals.len()
    );

    deployment.start("branch1a").unwrap();
    deployment.wait_serving("branch1a", "branch1", Some("full"), LIMIT).unwrap();
    for phone in [&one, &two] {
        phone.use_server(Deployment::sip("branch1a"));
        register_until(phone, "full");
    }
    call(&one, &two);
    wait_for("east to send calls to the appliance again", LIMIT, || {
        Ok(deployment.service("east1", "branch1")?.is_none().then_some(()))
    })
    .unwrap();
    call(&east, &one);
    call(&two, &east);
}
