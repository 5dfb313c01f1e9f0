//! A pool dies, freezes or is cut off: its phones are served by the partner, and never by both.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::time::{Duration, Instant};

use e2e::{
    Answer, ContactLists, Deployment, Owner, Phone, SERVERS, Timing, Via, Watch,
    documents::{Documents, Write, Writers, Written, missing},
    rows::{pool, proved},
    wait_for, wait_until,
};

const RETRY: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(30);

/// Registers until it is accepted, and returns the acceptance, how long it took, and the refusals before it.
fn register_until_accepted(phone: &Phone, began: Instant) -> (Answer, Duration, Vec<Answer>) {
    let mut refusals = Vec::new();
    let (accepted, _) = wait_for("a phone to be accepted", LIMIT, || {
        let Ok(answer) = phone.register_within(300, RETRY) else { return Ok(None) };
        if answer.status == 200 {
            return Ok(Some(answer));
        }
        refusals.push(answer);
        Ok(None)
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", refusals.last()));
    (accepted, began.elapsed(), refusals)
}

fn call(caller: &Phone, called: &Phone) {
    let call = caller
        .call(called.user())
        .unwrap()
        .unwrap_or_else(|answer| panic!("{} calls {}: {:?}", caller.user(), called.user(), answer.message));
    called.wait_acknowledged().unwrap();
    assert_eq!(call.bye().unwrap().status, 200);
    called.wait_ended().unwrap();
    let text = caller.message(called.user(), "hello").unwrap();
    assert_eq!(text.status, 200, "{:?}", text.message);
}

fn phone(deployment: &Deployment, user: &str, server: &str) -> Phone {
    let phone = Phone::new(deployment, user, Via::Udp, server, "127.0.0.1").unwrap();
    assert_eq!(phone.register(300).unwrap().status, 200);
    phone
}

/// Every refusal says when to try again.
fn assert_told_when(refusals: &[Answer]) {
    assert!(!refusals.is_empty());
    for refusal in refusals {
        assert_eq!(refusal.status, 503, "{:?}", refusal.message);
        let retry_after =
            refusal.retry_after().unwrap_or_else(|| panic!("no Retry-After: {:?}", refusal.message));
        assert!((1..=11).contains(&retry_after), "{retry_after}");
    }
}

#[test]
fn phones_of_a_killed_pool_are_served_by_its_partner_and_return() {
    kill_and_return(Timing::FAST);
}

#[test]
fn a_killed_pool_is_taken_over_within_the_default_time() {
    kill_and_return(Timing { hold_s: 3, ..Timing::DEFAULT });
}

/// A phone of east that registers for the first time, at west, during the takeover.
fn newcomer(deployment: &Deployment, via: Via) -> Phone {
    let user = if via == Via::Udp { "1005" } else { "1006" };
    let phone = Phone::new(deployment, user, via, "west1", "127.0.0.1").unwrap();
    assert_eq!(phone.register(300).unwrap().status, 200);
    phone
}

/// It is called after the return although it has not registered at home yet.
fn reach_newcomer(caller: &Phone, newcomer: &Phone) {
    let ((), handed) = wait_for("a phone that only registered at the partner", 2 * RETRY, || {
        Ok((caller.message(newcomer.user(), "hello")?.status == 200).then_some(()))
    })
    .unwrap();
    call(caller, newcomer);
    println!("a phone that registered at the partner only is reached {handed:?} after the return");
}

fn kill_and_return(timing: Timing) {
    let deployment = Deployment::running(timing).unwrap();
    let phones = [phone(&deployment, "1003", "east1"), phone(&deployment, "1004", "east1")];
    let (west, branch) = (phone(&deployment, "2003", "west1"), phone(&deployment, "3003", "branch1a"));
    call(&phones[0], &west);
    // A second flow of a phone of east, by TCP: it stays up all the time.
    let flow = Phone::new(&deployment, "1007", Via::Tcp, "west1", "127.0.0.1").unwrap();
    assert_eq!(flow.register(300).unwrap().status, 200);
    let watch = Watch::start(&deployment, "1009").unwrap();

    deployment.kill("east1").unwrap();
    let killed = Instant::now();
    for phone in &phones {
        phone.use_server(Deployment::sip("west1"));
    }
    let (accepted, took, refusals) = register_until_accepted(&phones[0], killed);
    assert_eq!(accepted.mode().as_deref(), Some("resiliency"), "{:?}", accepted.message);
    assert!(
        accepted.header("Warning").is_some_and(|text| text.starts_with("399 ")),
        "{:?}",
        accepted.message
    );
    assert_told_when(&refusals);
    let on_flow = flow.register(300).unwrap();
    assert_eq!(on_flow.status, 200, "the second flow stayed up: {:?}", on_flow.message);
    proved(pool::SILENT, &format!("{} x 503; then 200 over the flow from before", refusals.len()));
    proved(pool::TAKEN_OVER, accepted.header("Feature-Caps").unwrap_or_default());
    let allowed = Duration::from_secs(timing.takeover_s.into()) + 2 * RETRY;
    assert!(took <= allowed, "{took:?}");
    let (second, ..) = register_until_accepted(&phones[1], killed);
    assert_eq!(second.mode().as_deref(), Some("resiliency"));
    call(&phones[0], &phones[1]);
    call(&phones[0], &west);
    call(&west, &phones[1]);
    // The branch asks each second who serves: its caller may have to try once more.
    let (_, branch_found) = wait_for("a message from the branch", 2 * RETRY, || {
        Ok((branch.message("1003", "hello")?.status == 200).then_some(()))
    })
    .unwrap();
    call(&branch, &phones[0]);
    call(&phones[1], &branch);
    println!("a branch of the dead pool reaches its users at the partner after another {branch_found:?}");
    println!(
        "a pool dies: registered at the partner {took:?} after SIGKILL (takeover {} s), {} x 503 with \
        Retry-After before",
        timing.takeover_s,
        refusals.len()
    );

    let newcomers = [Via::Udp, Via::Tcp].map(|via| newcomer(&deployment, via));
    deployment.start("east1").unwrap();
    let ready = Instant::now();
    let returned = deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    newcomers.iter().for_each(|newcomer| reach_newcomer(&west, newcomer));
    for phone in &phones {
        phone.use_server(Deployment::sip("east1"));
        let (accepted, ..) = register_until_accepted(phone, ready);
        assert_eq!(accepted.mode().as_deref(), Some("full"));
    }
    call(&phones[0], &phones[1]);
    call(&west, &phones[0]);
    call(&phones[1], &branch);
    let seen = watch.end().unwrap();
    let (takeover_gap, return_gap) = seen.prove_one_owner().unwrap();
    let return_gap = return_gap.expect("it returned");
    assert!(returned >= Duration::from_secs(timing.hold_s.into()), "{returned:?}");
    assert!(return_gap <= Duration::from_secs(2), "{return_gap:?}");
    println!(
        "it returns: {returned:?} after it was ready (hold {} s); nobody served for {takeover_gap:?} and \
        {return_gap:?}; \
         {} x 200 by east, {} by west, never both",
        timing.hold_s,
        seen.served_by(Owner::East).count(),
        seen.served_by(Owner::West).count()
    );
}

#[test]
fn a_frozen_pool_refuses_to_serve_when_it_goes_on() {
    let timing = Timing::FAST;
    let deployment = Deployment::running(timing).unwrap();
    let east = phone(&deployment, "1003", "east1");
    let watch = Watch::start(&deployment, "1009").unwrap();
    let [mut at_east, mut at_west] = ["east1", "west1"].map(|server| ContactLists::new(&deployment, server));
    let clients = ["east1", "west1"].map(|server| ContactLists::new(&deployment, server));
    let writers = Writers::start(vec![clients], &["1005".to_owned()], 20, 2 * LIMIT).unwrap();
    assert_eq!(at_east.write("1006", "before"), Written::Acknowledged);
    wait_until("some writes", LIMIT, || Ok(writers.writes().len() >= 20)).unwrap();

    deployment.freeze("east1").unwrap();
    let frozen = Instant::now();
    deployment.wait_serving("west1", "east", Some("resiliency"), LIMIT).unwrap();
    let lease = Duration::from_secs(timing.lease_s.into());
    wait_for("three leases", LIMIT, || Ok((frozen.elapsed() > 3 * lease).then_some(()))).unwrap();
    let at_partner = at_west.write("1006", "frozen");
    assert!(matches!(at_partner, Written::Refused(403 | 503, _)), "read-only: {at_partner:?}");
    deployment.thaw("east1").unwrap();
    let first_write = at_east.write("1006", "late");
    let first = east.register_within(300, RETRY).unwrap();
    assert!([302, 503].contains(&first.status), "{:?}", first.message);
    assert!(matches!(first_write, Written::Refused(..)), "{first_write:?}");

    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    let (accepted, ..) = register_until_accepted(&east, Instant::now());
    assert_eq!(accepted.mode().as_deref(), Some("full"));
    let (takeover_gap, return_gap) = watch.end().unwrap().prove_one_owner().unwrap();
    assert_eq!(at_east.write("1006", "after"), Written::Acknowledged);
    let kept: Vec<String> = at_east.read("1006").unwrap().into_iter().collect();
    assert_eq!(kept, ["after", "before"], "what was refused is not there");
    let writes = writers.end().unwrap();
    assert!(writes.iter().all(|write| write.acknowledged.is_some()), "{writes:?}");
    assert_eq!(missing(&writes, &mut at_east).unwrap(), [] as [&Write; 0]);
    println!(
        "frozen {:?}, resumed: answered {} at once, a document write: {first_write:?}; nobody served for \
        {takeover_gap:?} and {return_gap:?}; never both; {} acknowledged document writes are all there",
        3 * lease,
        first.status,
        writes.len()
    );
}

#[test]
fn a_pool_cut_off_from_partner_and_witness_stops_before_its_partner_takes_over() {
    let timing = Timing::FAST;
    let deployment = Deployment::running(timing).unwrap();
    let east = phone(&deployment, "1003", "east1");
    let watch = Watch::start(&deployment, "1009").unwrap();

    for other in ["127.0.2.1", "127.0.4.1"] {
        deployment.namespace().cut("127.0.1.1", other).unwrap();
    }
    let cut = Instant::now();
    let (refused, stopped) = wait_for("east to stop", LIMIT, || {
        let answer = east.register_within(300, RETRY)?;
        Ok((answer.status != 200).then_some(answer))
    })
    .unwrap();
    assert_eq!(refused.status, 503, "{:?}", refused.message);
    assert!(refused.retry_after().is_some());
    assert!(stopped <= Duration::from_secs(timing.lease_s.into()) + RETRY / 2, "{stopped:?}");
    proved(pool::CUT_OFF, &format!("{} after {stopped:?}", refused.message.start));
    east.use_server(Deployment::sip("west1"));
    let (accepted, took, refusals) = register_until_accepted(&east, cut);
    assert_eq!(accepted.mode().as_deref(), Some("resiliency"));
    assert_told_when(&refusals);

    deployment.namespace().heal().unwrap();
    let healed = deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    let (takeover_gap, return_gap) = watch.end().unwrap().prove_one_owner().unwrap();
    println!(
        "cut off: stopped after {stopped:?} (lease {} s), partner served after {took:?}; healed: back \
        after {healed:?}; \
         nobody served for {takeover_gap:?} and {return_gap:?}; never both",
        timing.lease_s
    );
}

#[test]
fn losing_the_control_server_or_the_link_between_the_pools_stops_nobody() {
    let timing = Timing::FAST;
    let deployment = Deployment::running(timing).unwrap();
    let (east, west) = (phone(&deployment, "1003", "east1"), phone(&deployment, "2003", "west1"));
    let serves = |what: &str| {
        let began = Instant::now();
        let mut count = 0;
        while began.elapsed() < Duration::from_secs(u64::from(timing.takeover_s) + 2) {
            for phone in [&east, &west] {
                let answer = phone.register_within(300, RETRY).unwrap();
                assert_eq!(
                    (answer.status, answer.mode().as_deref()),
                    (200, Some("full")),
                    "{what}: {:?}",
                    answer.message
                );
                count += 1;
            }
        }
        println!("{what}: {count} x 200 in full mode for {:?}, nothing else", began.elapsed());
    };

    deployment.namespace().cut("127.0.1.1", "127.0.2.1").unwrap();
    serves("the pools do not see each other, the witness sees both");
    deployment.namespace().heal().unwrap();
    deployment.kill("control1").unwrap();
    // With the witness gone each needs the other's promise: the link has to be back first.
    serves("the control server is dead");
    call(&east, &west);
    deployment.start("control1").unwrap();
    serves("the control server is back");
    for server in SERVERS {
        assert!(deployment.is_running(server));
    }
}
