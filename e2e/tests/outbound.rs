//! Flows of phones (RFC 5626): Flow-Timer, one flow of a device after the other; and SIPS (RFC 5630).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use e2e::{Answer, Deployment, Phone, Registration, Timing, Via, wait_for, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);
const DESK: &str = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
const LIMIT: Duration = Duration::from_secs(40);

/// The example deployment, running, with a Flow-Timer of one second.
fn running() -> Deployment {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    let edit = |text: &str| text.replace("lease_ttl_s =", "flow_timer_s = 1\nlease_ttl_s =");
    deployment.edit_topology(edit).unwrap();
    for server in e2e::SERVERS {
        deployment.start(server).unwrap();
    }
    for (server, home) in [("east1", "east"), ("west1", "west")] {
        deployment.wait_serving(server, home, Some("full"), LIMIT).unwrap();
    }
    deployment
}

fn phone(deployment: &Deployment, user: &str, via: Via, server: &str) -> Phone {
    let phone = Phone::new(deployment, user, via, server, "127.0.0.1").unwrap();
    phone.set_supported("path, outbound");
    phone
}

fn with_flow(phone: &Phone, reg_id: u32) -> Answer {
    let answer = phone.register_flow(300, DESK, reg_id).unwrap();
    assert_eq!(answer.status, 200, "{:?}", answer.message);
    assert_eq!(answer.header("Require"), Some("outbound"), "{:?}", answer.message);
    answer
}

/// Sends the keep-alives of a connection until dropped.
struct KeepAlives {
    is_over: Arc<AtomicBool>,
    sender: Option<thread::JoinHandle<Phone>>,
}

impl KeepAlives {
    fn of(phone: Phone) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let sender = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) && phone.send_raw(b"\r\n\r\n").is_ok() {
                thread::park_timeout(Duration::from_millis(300));
            }
            phone
        });
        Self { is_over, sender: Some(sender) }
    }

    fn stop(&mut self) -> Option<Phone> {
        self.is_over.store(true, Ordering::Relaxed);
        self.sender.take().and_then(|sender| sender.join().ok())
    }
}

impl Drop for KeepAlives {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn a_connection_without_keep_alives_is_given_up_and_its_binding_visibly_removed() {
    let deployment = running();
    let silent = phone(&deployment, "1003", Via::Tcp, "east1");
    assert_eq!(with_flow(&silent, 1).header("Flow-Timer"), Some("1"));
    let lively = phone(&deployment, "1004", Via::Tls, "east1");
    assert_eq!(with_flow(&lively, 1).header("Flow-Timer"), Some("1"));
    let mut lively = KeepAlives::of(lively);
    let plain = phone(&deployment, "1001", Via::Tcp, "east1");
    assert_eq!(plain.register(300).unwrap().header("Flow-Timer"), None, "who has no flow has no timer");
    let watcher = phone(&deployment, "1003", Via::Udp, "east1");
    assert_eq!(with_flow(&watcher, 2).header("Flow-Timer"), None, "NATs need more than that over UDP");
    let (subscription, _) = watcher.subscribe("1003", "reg", 300).unwrap().unwrap_or_else(|answer| {
        panic!("{:?}", answer.message);
    });

    wait_until("the silent connection to be given up", PATIENCE, || {
        Ok(deployment.registrations("1003")?.len() == 1)
    })
    .unwrap();

    let (told, _) = wait_for("the notification", PATIENCE, || {
        let bodies = subscription.notifications().into_iter().map(|notify| String::from_utf8(notify.body));
        Ok(bodies.filter_map(Result::ok).find(|body| body.contains("event=\"deactivated\"")))
    })
    .unwrap();
    assert!(told.contains("transport=tcp</uri>"), "{told}");
    assert_eq!(deployment.registrations("1004").unwrap().len(), 1);
    assert_eq!(deployment.registrations("1001").unwrap().len(), 1);
    assert_eq!(watcher.message("1004", "still there?").unwrap().status, 200);
    assert_eq!(lively.stop().unwrap().received("MESSAGE").len(), 1);
    assert_eq!(deployment.counter("east1", "flows_silent").unwrap(), 1);
}

#[test]
fn the_partner_ends_a_flow_and_times_it() {
    let deployment = running();
    let phone = phone(&deployment, "2003", Via::Tcp, "east1");

    let answer = with_flow(&phone, 2);

    assert_eq!(answer.header("Flow-Timer"), Some("1"));
    let path = answer.header("Path").unwrap();
    assert!(path.ends_with(";lr;ob>"), "{path}");
    wait_until("the silent connection to be given up", PATIENCE, || {
        Ok(deployment.counter("east1", "flows_silent")? == 1)
    })
    .unwrap();
    let caller = Phone::new(&deployment, "2004", Via::Udp, "west1", "127.0.0.1").unwrap();
    assert_eq!(caller.register(300).unwrap().status, 200);
    assert_eq!(caller.message("2003", "hello").unwrap().status, 480, "430 is for those who know the flows");
}

#[test]
fn a_device_is_asked_over_one_flow_and_over_the_next_one_when_that_is_gone() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let first = phone(&deployment, "1003", Via::Tcp, "east1");
    let second = phone(&deployment, "1003", Via::Tcp, "west1");
    with_flow(&first, 1);
    with_flow(&second, 2);
    let caller = Phone::new(&deployment, "1004", Via::Udp, "east1", "127.0.0.1").unwrap();
    assert_eq!(caller.register(300).unwrap().status, 200);

    let call = caller.call("1003").unwrap().unwrap_or_else(|answer| panic!("{:?}", answer.message));
    assert_eq!(call.bye().unwrap().status, 200);
    assert_eq!((first.received("INVITE").len(), second.received("INVITE").len()), (1, 0));

    drop(first);
    wait_until("the binding of the closed connection to go", PATIENCE, || {
        Ok(deployment.registrations("1003")?.len() == 1)
    })
    .unwrap();
    let call = caller.call("1003").unwrap().unwrap_or_else(|answer| panic!("{:?}", answer.message));
    assert_eq!(call.bye().unwrap().status, 200);
    assert_eq!(second.received("INVITE").len(), 1);
}

#[test]
fn a_phone_that_lost_its_connection_in_a_call_is_reached_over_its_next_one() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let caller = Phone::new(&deployment, "1004", Via::Udp, "east1", "127.0.0.1").unwrap();
    assert_eq!(caller.register(300).unwrap().status, 200);
    let before = phone(&deployment, "1003", Via::Tcp, "east1");
    with_flow(&before, 1);
    let contact = before.contact();
    let call = caller.call("1003").unwrap().unwrap_or_else(|answer| panic!("{:?}", answer.message));
    before.wait_acknowledged().unwrap();
    drop(before);
    let after = phone(&deployment, "1003", Via::Tcp, "east1");
    let contacts = vec![format!("<{contact}>;+sip.instance=\"<{DESK}>\";reg-id=1")];
    let registration = Registration { contacts, expires: Some(300), cseq: None };
    assert_eq!(after.register_with(&registration, PATIENCE).unwrap().status, 200);

    // It knows nothing of the call, but it is asked.
    assert_eq!(call.bye().unwrap().status, 481);
    assert_eq!(after.received("BYE").len(), 1);
}

#[test]
fn a_sips_request_reaches_sips_contacts_only_and_a_sip_request_never_as_sips() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let desk = Phone::new(&deployment, "1003", Via::Tls, "east1", "127.0.0.1").unwrap();
    let caller = Phone::new(&deployment, "1004", Via::Tls, "east1", "127.0.0.1").unwrap();
    assert_eq!(caller.register(300).unwrap().status, 200);
    assert_eq!(desk.register(300).unwrap().status, 200);
    let plain = desk.contact();

    let refused = caller.message_to_uri("sips:1003@example.com", "secret", &[]).unwrap();
    assert_eq!(refused.status, 480, "{:?}", refused.message);
    assert!(refused.header("Warning").unwrap().starts_with("380 "), "{:?}", refused.message);

    let host = plain.split('@').nth(1).unwrap().split(';').next().unwrap();
    let contacts = vec![format!("<sips:1003@{host}>"), format!("<{plain}>;expires=0")];
    let registration = Registration { contacts, expires: Some(300), cseq: None };
    assert_eq!(desk.register_with(&registration, PATIENCE).unwrap().status, 200);
    assert_eq!(caller.message_to_uri("sips:1003@example.com", "secret", &[]).unwrap().status, 200);
    assert_eq!(caller.message("1003", "hello").unwrap().status, 200);
    let starts: Vec<_> = desk.received("MESSAGE").into_iter().map(|message| message.start).collect();
    assert_eq!(
        starts,
        [format!("MESSAGE sips:1003@{host} SIP/2.0"), format!("MESSAGE sip:1003@{host} SIP/2.0"),]
    );
}
