//! Who serves a user homed on a front-end pool: rows of the product's table that commands and full disks
//! bring about. Rows 3, 4 and 8 are proved in `takeover.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::time::{Duration, Instant};

use e2e::{
    Answer, ContactLists, Deployment, Disk, Owner, Phone, Timing, Via, Watch, Watcher,
    documents::{Documents, Writers, Written},
    rows::{pool, proved},
    wait_for, wait_until,
};

const RETRY: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(40);
/// Product, section 4: no user read-only, and nobody out of reach, for longer.
const WINDOW_MAX: Duration = Duration::from_secs(2);

fn phone(deployment: &Deployment, user: &str, server: &str) -> Phone {
    Phone::new(deployment, user, Via::Udp, server, "127.0.0.1").unwrap()
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

fn operate(deployment: &Deployment, operation: &[&str]) {
    let all = [&["pool"], operation, &["--apply"]].concat();
    let ran = deployment.begin(&all, b"").unwrap().wait(Duration::from_secs(100)).unwrap();
    assert_eq!(ran.code, 0, "{operation:?}: {ran:?}");
}

/// The ranked contacts of a redirection: FQDN or address, and q.
fn ranked(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 302, "{:?}", answer.message);
    answer.message.values("Contact")
}

/// Pool west redirects where pool east forwards.
fn redirect_at_west(text: &str) -> String {
    let at = text.rfind("hold_s").unwrap();
    let (before, after) = text.split_at(at);
    format!("{before}second_registration = \"redirect\"\n{after}")
}

/// The pair and its witness, ready for every user of both pools.
fn start(deployment: &Deployment) {
    for server in ["control1", "east1", "west1"] {
        deployment.start(server).unwrap();
    }
    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    deployment.wait_serving("west1", "west", Some("full"), LIMIT).unwrap();
    deployment.wait_users_known(&["east1", "west1"], LIMIT).unwrap();
}

fn running(timing: Timing) -> Deployment {
    let deployment = Deployment::new(timing).unwrap();
    deployment.edit_topology(redirect_at_west).unwrap();
    start(&deployment);
    deployment
}

fn well(deployment: &Deployment) {
    let east = phone(deployment, "1003", "east1");
    let home = east.register(300).unwrap();
    assert_eq!((home.status, home.mode().as_deref()), (200, Some("full")), "{:?}", home.message);
    let caps = home.header("Feature-Caps").unwrap();
    assert!(caps.contains("+g.tandem.backup=\"west.example.com\""), "{caps}");
    proved(pool::AT_HOME, caps);

    let edge = phone(deployment, "1004", "west1");
    let forwarded = edge.register(300).unwrap();
    assert_eq!((forwarded.status, forwarded.mode().as_deref()), (200, Some("full")));
    let bound = deployment.registrations("1004").unwrap();
    assert!(bound.iter().any(|(server, _)| server == "east1"), "{bound:?}");
    call(&east, &edge);
    let redirected = phone(deployment, "2003", "east1").register(300).unwrap();
    let contacts = ranked(&redirected);
    assert!(contacts[0].contains("q=0.7") && contacts[1].contains("q=0.3"), "{contacts:?}");
    proved(pool::AT_THE_PARTNER, &format!("1004 is bound at {bound:?}; 2003 gets 302 {contacts:?}"));
}

#[test]
fn users_of_a_pool_that_is_failed_over_and_failed_back_are_served_where_it_is_owned() {
    let deployment = running(Timing::FAST);
    well(&deployment);
    let clients = ["east1", "west1"].map(|server| ContactLists::new(&deployment, server));
    let writers = Writers::start(vec![clients], &["1005".to_owned()], 20, LIMIT).unwrap();
    let east = phone(&deployment, "1003", "east1");
    assert_eq!(east.register(300).unwrap().status, 200);
    let watch = Watch::start(&deployment, "1009").unwrap();

    operate(&deployment, &["switchover", "east"]);
    let moved = phone(&deployment, "1004", "west1");
    let accepted = moved.register(300).unwrap();
    assert_eq!((accepted.status, accepted.mode().as_deref()), (200, Some("full")), "{:?}", accepted.message);
    let mut west = ContactLists::new(&deployment, "west1");
    assert_eq!(west.write("1004", "after"), Written::Acknowledged);
    proved(pool::FAILED_OVER, accepted.header("Feature-Caps").unwrap());
    let contacts = ranked(&east.register(300).unwrap());
    assert!(contacts[0].contains("west") || contacts[0].contains("127.0.2.1"), "{contacts:?}");
    assert_eq!(contacts.len(), 1, "the pool that lost its users is no second choice: {contacts:?}");
    proved(pool::FAILED_OVER_ALIVE, &format!("302 {contacts:?}"));
    // Signed out by nobody: it has not registered since, and is reached.
    let called = moved.message("1003", "still there?").unwrap();
    assert_eq!(called.status, 200, "{:?}", called.message);

    operate(&deployment, &["failback", "east"]);
    let again = east.register(300).unwrap();
    assert_eq!((again.status, again.mode().as_deref()), (200, Some("full")), "{:?}", again.message);
    wait_until("a call to a phone that registered at west", LIMIT, || {
        Ok(east.message("1004", "there?")?.status == 200)
    })
    .unwrap();
    let seen = watch.end().unwrap();
    let (there, back) = seen.prove_one_owner().unwrap();
    let back = back.expect("it returned");
    assert!(there <= WINDOW_MAX && back <= WINDOW_MAX, "{there:?} {back:?}");
    let writes = writers.end().unwrap();
    let slowest = writes.iter().map(|write| write.acknowledged.unwrap() - write.sent).max().unwrap();
    assert!(slowest <= WINDOW_MAX, "{slowest:?}");
    proved(
        pool::FAILING_BACK,
        &format!(
            "nobody served registrations for {there:?} and {back:?}; {} x 200 by east, {} by west, never \
             both; slowest of {} document writes {slowest:?}",
            seen.served_by(Owner::East).count(),
            seen.served_by(Owner::West).count(),
            writes.len()
        ),
    );
}

#[test]
fn a_pool_that_cannot_write_bindings_refuses_and_is_taken_over() {
    let deployment = Deployment::new(Timing::FAST).unwrap();
    let disk = Disk::mount(&deployment.data("east1").join("bindings"), 64).unwrap();
    start(&deployment);
    let east = phone(&deployment, "1003", "east1");
    assert_eq!(east.register(300).unwrap().status, 200);
    let watch = Watch::start(&deployment, "1009").unwrap();

    disk.fill().unwrap();
    // Without a pause: what the store has set aside for its log has to be used up first.
    let filled = Instant::now();
    let refused = loop {
        let answer = east.register_within(300, RETRY).unwrap();
        if answer.status != 200 {
            break answer;
        }
        assert!(filled.elapsed() < LIMIT, "registrations are accepted on a full disk");
    };
    assert_eq!(refused.status, 503, "{:?}", refused.message);
    assert!(refused.retry_after().is_some(), "{:?}", refused.message);
    let began = Instant::now();
    Watcher::new(&deployment).wait("the partner", LIMIT, |sight| sight.west.is_some()).unwrap();
    let took = began.elapsed();
    east.use_server(Deployment::sip("west1"));
    assert_eq!(east.register(300).unwrap().mode().as_deref(), Some("resiliency"));
    watch.end().unwrap().prove_one_owner().unwrap();
    proved(pool::QUORUM_LOST, &format!("{}; the partner serves {took:?} later", refused.message.start));
}

/// Pool east says so when user data could not be written for so long.
const LOST_AFTER: Duration = Duration::from_secs(4);

fn lose_services_soon(text: &str) -> String {
    text.replacen("hold_s", &format!("user_services_lost_after_s = {}\nhold_s", LOST_AFTER.as_secs()), 1)
}

/// Registers both phones, and one calls the other: nothing is missing, whatever the mode, which is returned.
fn register_and_call(phones: &[Phone; 2]) -> Answer {
    let answers = [0, 1].map(|phone: usize| phones[phone].register(300).unwrap());
    for answer in &answers {
        assert_eq!(answer.status, 200, "{:?}", answer.message);
    }
    call(&phones[0], &phones[1]);
    let [answer, _] = answers;
    answer
}

fn refuse_a_document(documents: &mut ContactLists) -> (Written, Instant) {
    let mut count = 0;
    let refused = wait_for("a document to be refused", LIMIT, || {
        count += 1;
        let asked = Instant::now();
        Ok(match documents.write("1003", &format!("w{count}")) {
            Written::Acknowledged => None,
            refused @ (Written::Refused(..) | Written::Unknown(_)) => Some((refused, asked)),
        })
    });
    let ((refused, asked), _) = refused.unwrap();
    // 500 where it is unknown whether the change is on disk; never a success.
    assert!(matches!(refused, Written::Refused(500 | 503 | 507, _)), "{refused:?}");
    (refused, asked)
}

#[test]
fn a_pool_that_cannot_write_documents_goes_on_registering_and_calling() {
    let deployment = Deployment::new(Timing::FAST).unwrap();
    deployment.edit_topology(lose_services_soon).unwrap();
    let disk = Disk::mount(&deployment.data("east1"), 64).unwrap();
    let bindings = Disk::mount(&deployment.data("east1").join("bindings"), 256).unwrap();
    start(&deployment);
    let phones = ["1003", "1004"].map(|user| phone(&deployment, user, "east1"));
    assert_eq!(register_and_call(&phones).mode().as_deref(), Some("full"));
    let mut documents = ContactLists::new(&deployment, "east1");
    assert_eq!(documents.write("1003", "before"), Written::Acknowledged);

    disk.fill().unwrap();
    let (refused, asked) = refuse_a_document(&mut documents);
    let mut full = 0;
    let (told, _) = wait_for("resiliency mode", LIMIT, || {
        let answer = register_and_call(&phones);
        let mode = answer.mode();
        full += usize::from(mode.as_deref() == Some("full"));
        Ok((mode.as_deref() == Some("resiliency")).then_some(answer))
    })
    .unwrap();
    let told_after = asked.elapsed();
    assert!(full > 0, "at first its users do not notice");
    assert!((LOST_AFTER..LOST_AFTER + 3 * RETRY).contains(&told_after), "{told_after:?}");
    assert!(told.header("Warning").is_some_and(|text| text.starts_with("399 ")), "{:?}", told.message);
    // For longer than a takeover would need: it is no reason for one.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(u64::from(Timing::FAST.takeover_s) + 2) {
        assert_eq!(register_and_call(&phones).mode().as_deref(), Some("resiliency"));
    }
    let sight = Watcher::new(&deployment).look();
    assert_eq!((sight.owner.as_str(), sight.epoch, sight.west.as_deref()), ("east", 0, None), "{sight}");
    assert!(documents.read("1003").unwrap().contains("before"));
    refuse_a_document(&mut documents);

    disk.free().unwrap();
    wait_until("full service again", LIMIT, || {
        Ok(register_and_call(&phones).mode().as_deref() == Some("full"))
    })
    .unwrap();
    assert_eq!(documents.write("1003", "after"), Written::Acknowledged);
    proved(
        pool::BACK_END_LOST,
        &format!(
            "documents: {refused:?}; {full} x registered and called in full mode, resiliency mode told \
             {told_after:?} after the first refusal"
        ),
    );
    drop((deployment, bindings, disk));
}
