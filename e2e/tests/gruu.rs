//! GRUUs (RFC 5627): one device of a user, wherever it is served; and as Contact of calls.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::time::Duration;

use e2e::{Answer, Deployment, Phone, Registration, Timing, Via, wait_for, wait_until};

const DESK: &str = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
const CELL: &str = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf7";
const PATIENCE: Duration = Duration::from_secs(20);

struct Device {
    phone: Phone,
    public: String,
    temporary: String,
}

impl Device {
    fn new(deployment: &Deployment, user: &str, via: Via, server: &str, instance: &str) -> Self {
        let phone = Phone::new(deployment, user, via, server, "127.0.0.1").unwrap();
        phone.set_supported("path, gruu");
        let (public, temporary) = gruus(&register(&phone, instance, 300), &phone.contact());
        Self { phone, public, temporary }
    }

    fn messages(&self) -> Vec<String> {
        self.phone.received("MESSAGE").into_iter().map(|message| message.start).collect()
    }
}

fn register(phone: &Phone, instance: &str, expires: u32) -> Answer {
    let contacts = vec![format!("<{}>;+sip.instance=\"<{instance}>\"", phone.contact())];
    let registration = Registration { contacts, expires: Some(expires), cseq: None };
    let answer = phone.register_with(&registration, PATIENCE).unwrap();
    assert_eq!(answer.status, 200, "{:?}", answer.message);
    answer
}

/// The public and the temporary GRUU of the contact with this URI.
fn gruus(answer: &Answer, uri: &str) -> (String, String) {
    let contacts = answer.message.values("Contact");
    let contact = contacts.iter().find(|contact| contact.contains(&format!("<{uri}>"))).unwrap();
    let parameter = |name: &str| {
        let after = contact.split(&format!(";{name}=\"")).nth(1).unwrap_or_else(|| panic!("{contact}"));
        after.split('"').next().unwrap().to_owned()
    };
    (parameter("pub-gruu"), parameter("temp-gruu"))
}

fn caller(deployment: &Deployment, user: &str, server: &str) -> Phone {
    let phone = Phone::new(deployment, user, Via::Udp, server, "127.0.0.1").unwrap();
    assert_eq!(phone.register(300).unwrap().status, 200);
    phone
}

fn status(caller: &Phone, uri: &str) -> u16 {
    caller.message_to_uri(uri, "hello", &[]).unwrap().status
}

/// Bindings of a home pool's users that a server has.
fn kept(deployment: &Deployment, server: &str, home: &str) -> u64 {
    let json = deployment.tandem(&["pool", "status", "--output", "json"], b"").unwrap().json().unwrap();
    let asked = json.as_array().unwrap().iter().find(|asked| asked["server"] == server).unwrap();
    let homes = asked["status"]["homes"].as_array().unwrap();
    homes.iter().find(|found| found["home"] == home).unwrap()["bindings"].as_u64().unwrap()
}

#[test]
fn a_gruu_reaches_one_device_of_a_user_until_the_registration_ends_it() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let desk = Device::new(&deployment, "1003", Via::Udp, "east1", DESK);
    let cell = Device::new(&deployment, "1003", Via::Tcp, "east1", CELL);
    assert_eq!(desk.public, format!("sip:1003@example.com;gr={DESK}"));
    assert!(!desk.temporary.contains("1003"), "{}", desk.temporary);
    let near = caller(&deployment, "1004", "east1");
    let far = caller(&deployment, "2004", "west1");

    for gruu in [&desk.public, &desk.temporary] {
        assert_eq!((status(&near, gruu), status(&far, gruu)), (200, 200), "{gruu}");
    }
    assert_eq!(desk.messages(), vec![format!("MESSAGE {} SIP/2.0", desk.phone.contact()); 4]);
    assert_eq!(cell.messages(), [""; 0]);
    let newer = gruus(&register(&desk.phone, DESK, 300), &desk.phone.contact());
    assert_eq!(newer.0, desk.public);
    assert_ne!(newer.1, desk.temporary);
    assert_eq!((status(&near, &newer.1), status(&near, &desk.temporary)), (200, 200));

    // Another Call-ID, as after a restart: the former ones are nobody's any more.
    desk.phone.restart_registration();
    let anew = gruus(&register(&desk.phone, DESK, 300), &desk.phone.contact());
    assert_eq!((status(&near, &newer.1), status(&far, &desk.temporary)), (404, 404));
    assert_eq!((status(&near, &anew.1), status(&far, &cell.temporary)), (200, 200));
    register(&desk.phone, DESK, 0);
    assert_eq!((status(&near, &desk.public), status(&near, &anew.1)), (480, 404));
    assert_eq!(status(&near, "sip:tgruu.AAAA@example.com;gr"), 404);
    assert_eq!(status(&near, "sip:1003@example.com"), 200, "the other device is still there");

    // Who does not know GRUUs is not told of any.
    cell.phone.set_supported("path");
    assert!(!register(&cell.phone, CELL, 300).header("Contact").unwrap().contains("gruu"));
}

#[test]
fn gruus_outlive_restarts_and_the_death_of_the_pool_that_made_them() {
    let deployment = Deployment::running(Timing::FAST).unwrap();
    let desk = Device::new(&deployment, "1003", Via::Udp, "east1", DESK);
    let cell = Device::new(&deployment, "1003", Via::Udp, "east1", CELL);
    let far = caller(&deployment, "2004", "west1");
    let gruus = [&desk.public, &desk.temporary];
    assert_eq!(gruus.map(|gruu| status(&far, gruu)), [200, 200]);

    wait_until("the copies of both bindings", PATIENCE, || Ok(kept(&deployment, "west1", "east") == 2))
        .unwrap();
    deployment.kill("east1").unwrap();
    deployment.wait_serving("west1", "east", Some("resiliency"), Duration::from_secs(60)).unwrap();
    assert_eq!(gruus.map(|gruu| status(&far, gruu)), [200, 200], "at the partner");
    deployment.start("east1").unwrap();
    deployment.wait_serving("east1", "east", Some("full"), Duration::from_secs(90)).unwrap();
    wait_for("the way home", PATIENCE, || Ok((status(&far, &desk.temporary) == 200).then_some(()))).unwrap();
    assert_eq!(status(&far, &desk.public), 200);
    assert_eq!(cell.messages(), [""; 0]);
}

#[test]
fn calls_whose_contacts_are_gruus_go_on_and_end() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    for (one, other) in [(Via::Udp, Via::Tcp), (Via::Wss, Via::Udp)] {
        let one = Device::new(&deployment, "1003", one, "east1", DESK);
        let other = Device::new(&deployment, "2004", other, "west1", CELL);
        one.phone.use_gruu(&one.temporary);
        other.phone.use_gruu(&other.public);

        let call = one.phone.call_uri(&other.public).unwrap();
        let call = call.unwrap_or_else(|answer| panic!("{:?}", answer.message));
        other.phone.wait_acknowledged().unwrap();
        assert_eq!(call.bye().unwrap().status, 200);
        other.phone.wait_ended().unwrap();
        let called = other.phone.contact();
        for method in ["INVITE", "ACK", "BYE"] {
            let start = other.phone.received(method).remove(0).start;
            assert_eq!(start, format!("{method} {called} SIP/2.0"), "the contact, not the GRUU");
        }

        let call = one.phone.call_uri(&other.public).unwrap();
        let _call = call.unwrap_or_else(|answer| panic!("{:?}", answer.message));
        other.phone.wait_acknowledged().unwrap();
        assert_eq!(other.phone.bye().unwrap().status, 200);
        let bye = one.phone.received("BYE").remove(0).start;
        assert_eq!(bye, format!("BYE {} SIP/2.0", one.phone.contact()));
    }
}

#[test]
fn nobody_registers_a_loop_or_poses_as_another_and_subscribers_are_told_their_gruus() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let desk = Device::new(&deployment, "1003", Via::Udp, "east1", DESK);
    let other = caller(&deployment, "1004", "east1");
    for loops in ["sip:1003@example.com", desk.public.as_str(), desk.temporary.as_str()] {
        let contacts = vec![format!("<{loops}>;+sip.instance=\"<{CELL}>\"")];
        let registration = Registration { contacts, expires: Some(300), cseq: None };
        let refused = desk.phone.register_with(&registration, PATIENCE).unwrap();
        assert_eq!(refused.status, 403, "{loops}: {:?}", refused.message);
    }
    other.use_gruu(&desk.public);
    assert_eq!(other.call("1003").unwrap().map(drop).unwrap_err().status, 403);

    let (subscription, _) = desk.phone.subscribe("1003", "reg", 300).unwrap().unwrap_or_else(|answer| {
        panic!("{:?}", answer.message);
    });
    let (notify, _) =
        wait_for("the notification", PATIENCE, || Ok(subscription.notifications().into_iter().next()))
            .unwrap();
    let text = String::from_utf8(notify.body).unwrap();
    assert!(text.contains(&format!("<gr:pub-gruu uri=\"{}\"/>", desk.public)), "{text}");
    assert!(text.contains(&format!("<gr:temp-gruu uri=\"{}\" first-cseq=", desk.temporary)), "{text}");
}
