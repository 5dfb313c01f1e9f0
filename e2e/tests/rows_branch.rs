//! Who serves a user homed on a branch appliance while its associated pool is down or failed over, for both
//! values of `branch_recovery`. Rows 2 and 6 are proved in `branch.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::time::Duration;

use e2e::{
    Answer, Deployment, Phone, Timing, Via, Watcher,
    rows::{branch, proved},
    wait_for,
};

const RETRY: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(40);
/// Where the phones of the branch are: behind its WAN.
const PHONES: &str = "127.0.3.9";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Recovery {
    None,
    Follow,
}

fn running(recovery: Recovery) -> Deployment {
    let deployment = Deployment::new(Timing::FAST).unwrap();
    if recovery == Recovery::None {
        let setting = "associated_pool = \"east\"\nusers_expected = 10\n";
        let with = format!("{setting}[pool.settings]\nbranch_recovery = \"none\"\n");
        deployment.edit_topology(|text| text.replace(setting, &with)).unwrap();
    }
    for server in e2e::SERVERS {
        deployment.start(server).unwrap();
    }
    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    deployment.wait_serving("branch1a", "branch1", Some("full"), LIMIT).unwrap();
    deployment
}

/// Registers until the answer is as wanted; returns it.
fn register_until(phone: &Phone, what: &str, is_it: impl Fn(&Answer) -> bool) -> Answer {
    let mut last = None;
    let found = wait_for(what, LIMIT, || {
        let Ok(answer) = phone.register_within(300, RETRY) else { return Ok(None) };
        let is_found = is_it(&answer);
        last = Some(answer.clone());
        Ok(is_found.then_some(answer))
    });
    found.unwrap_or_else(|error| panic!("{error}: {last:?}")).0
}

fn in_mode(mode: &'static str) -> impl Fn(&Answer) -> bool {
    move |answer| answer.status == 200 && answer.mode().as_deref() == Some(mode)
}

fn said(answer: &Answer) -> String {
    format!("{} {:?}", answer.message.start, answer.header("Feature-Caps"))
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

fn branch_through_the_loss_of_its_pool(recovery: Recovery) {
    let deployment = running(recovery);
    let phones =
        ["3003", "3004"].map(|user| Phone::new(&deployment, user, Via::Udp, "branch1a", PHONES).unwrap());
    let [one, two] = &phones;
    let well = register_until(one, "full service at the appliance", in_mode("full"));
    assert_eq!(two.register(300).unwrap().status, 200);
    proved(branch::WELL, &said(&well));

    deployment.kill("east1").unwrap();
    let alone = register_until(one, "resiliency at the appliance", in_mode("resiliency"));
    assert!(alone.header("Warning").is_some_and(|text| text.starts_with("399 ")), "{:?}", alone.message);
    call(one, two);
    proved(branch::POOL_DOWN, &said(&alone));

    let mut watcher = Watcher::new(&deployment);
    watcher.wait("the automatic takeover", LIMIT, |sight| sight.state == "taken_over").unwrap();
    let ran = deployment.tandem(&["pool", "failover", "east", "--disaster", "--apply"], b"").unwrap();
    assert_eq!(ran.code, 0, "{ran:?}");
    watcher.wait("the failover", LIMIT, |sight| sight.west.as_deref() == Some("full")).unwrap();
    match recovery {
        Recovery::None => {
            let alone = one.register(300).unwrap();
            assert!(in_mode("resiliency")(&alone), "{:?}", alone.message);
            call(two, one);
            proved(branch::FAILED_OVER_NONE, &said(&alone));
        }
        Recovery::Follow => {
            let followed = register_until(one, "full service from the partner", in_mode("full"));
            call(two, one);
            proved(branch::FAILED_OVER_FOLLOW, &said(&followed));
        }
    }
    without_appliance(&deployment, recovery, one, two);
}

fn without_appliance(deployment: &Deployment, recovery: Recovery, one: &Phone, two: &Phone) {
    deployment.kill("branch1a").unwrap();
    for phone in [one, two] {
        phone.use_server(Deployment::sip("west1"));
    }
    match recovery {
        Recovery::None => {
            // The partner waits for the appliance first, and refuses for good after that.
            let is_final = |answer: &Answer| answer.status == 503 && answer.retry_after() > Some(60);
            let refused = register_until(one, "a refusal until the appliance is back", is_final);
            proved(branch::BOTH_DOWN_NONE, &format!("{} {:?}", refused.status, refused.retry_after()));
        }
        Recovery::Follow => {
            let followed = register_until(one, "full service at the partner", in_mode("full"));
            register_until(two, "full service at the partner", in_mode("full"));
            call(one, two);
            proved(branch::BOTH_DOWN_FOLLOW, &said(&followed));
        }
    }
    for network in ["127.0.1.0/24", "127.0.2.0/24", "127.0.4.0/24"] {
        deployment.namespace().cut("127.0.3.0/24", network).unwrap();
    }
    for server in ["branch1a", "east1", "west1"] {
        one.use_server(Deployment::sip(server));
        assert!(one.register_within(300, 2 * RETRY).is_err(), "{server} answered through a cut WAN");
    }
    proved(branch::ALL_DOWN, "no answer from the appliance, nor from either pool");
}

#[test]
fn a_branch_that_follows_has_everything_at_the_partner_of_its_pool() {
    branch_through_the_loss_of_its_pool(Recovery::Follow);
}

#[test]
fn a_branch_that_does_not_follow_stays_in_resiliency_mode() {
    branch_through_the_loss_of_its_pool(Recovery::None);
}
