//! Phones register, call and message.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::time::Duration;

use e2e::{Answer, Deployment, Manners, Phone, Registration, Timing, Via};

const PATIENCE: Duration = Duration::from_secs(8);

fn question() -> Registration {
    Registration { contacts: Vec::new(), expires: None, cseq: None }
}

fn contacts(answer: &Answer) -> Vec<String> {
    answer.message.values("Contact")
}

#[test]
fn a_phone_registers_refreshes_asks_and_unregisters() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let rows = [
        (Via::Udp, "1003"),
        (Via::Tcp, "1004"),
        (Via::Tls, "1005"),
        (Via::Wss, "1006"),
        (Via::Udp, "1001"),
        (Via::Wss, "1002"),
    ];
    for (via, user) in rows {
        let phone = Phone::new(&deployment, user, via, "east1", "127.0.0.1").unwrap();

        let new = phone.register(300).unwrap();
        assert_eq!(new.status, 200, "{:?}", new.message);
        assert_eq!(new.challenges, 1);
        assert_eq!(new.mode().as_deref(), Some("full"));
        assert_eq!(contacts(&new).len(), 1);
        assert!(contacts(&new)[0].contains(&phone.contact()), "{:?}", new.message);
        assert!(contacts(&new)[0].contains("expires=300"), "{:?}", new.message);

        let refreshed = phone.register(200).unwrap();
        assert_eq!((refreshed.status, refreshed.challenges), (200, 0));
        assert!(contacts(&refreshed)[0].contains("expires=200"));

        let asked = phone.register_with(&question(), PATIENCE).unwrap();
        assert_eq!((asked.status, contacts(&asked).len()), (200, 1));

        let registered = deployment.registrations(user).unwrap();
        assert_eq!(registered, [("east1".to_owned(), phone.contact())]);

        let removed = phone.register(0).unwrap();
        assert_eq!((removed.status, contacts(&removed).len()), (200, 0));
        assert!(deployment.registrations(user).unwrap().is_empty());
        println!("{via:?} {user}: new, refresh, query, unregister: 200");
    }
}

#[test]
fn wrong_passwords_and_unknown_users_learn_nothing() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let phone = Phone::new(&deployment, "1003", Via::Udp, "east1", "127.0.0.1").unwrap();
    phone.set_password("wrong");
    let server = Deployment::sip("east1");
    let nobody = Phone::with_password("1999", "wrong", Via::Udp, server, "127.0.0.1", None).unwrap();

    let wrong = phone.register(300).unwrap();
    let unknown = nobody.register(300).unwrap();

    assert_eq!((wrong.status, wrong.challenges > 0), (401, true), "{:?}", wrong.message);
    assert_eq!((unknown.status, unknown.challenges > 0), (401, true), "{:?}", unknown.message);
    let shape = |answer: &Answer| {
        let names: Vec<String> = answer.message.headers.iter().map(|(name, _)| name.clone()).collect();
        let algorithms: Vec<String> = answer
            .message
            .lines("WWW-Authenticate")
            .map(|line| {
                line.split("algorithm=").nth(1).unwrap_or_default().split(',').next().unwrap().to_owned()
            })
            .collect();
        (names, algorithms)
    };
    assert_eq!(shape(&wrong), shape(&unknown));
    assert!(deployment.registrations("1003").unwrap().is_empty());
    println!("wrong password and unknown user: 401, then 401, the same headers {:?}", shape(&wrong).1);

    let other = Phone::new(&deployment, "1004", Via::Udp, "east1", "127.0.0.1").unwrap();
    let stranger = Phone::with_password("1003", "x", Via::Udp, server, "127.0.0.1", None).unwrap();
    stranger.set_password(deployment.password("1004").unwrap());
    assert_eq!(stranger.register(300).unwrap().status, 401);
    assert_eq!(other.register(300).unwrap().status, 200);
}

#[test]
fn registrations_follow_rfc_3261_section_10_3() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let phone = |user: &str| Phone::new(&deployment, user, Via::Udp, "east1", "127.0.0.1").unwrap();
    let (desk, mobile) = (phone("1003"), phone("1003"));

    let brief = desk.register(5).unwrap();
    assert_eq!((brief.status, brief.header("Min-Expires")), (423, Some("60")), "{:?}", brief.message);

    assert_eq!(desk.register(300).unwrap().status, 200);
    let both = mobile.register(300).unwrap();
    assert_eq!((both.status, contacts(&both).len()), (200, 2));

    let long = mobile.register(1_000_000).unwrap();
    // An hour at most, less a part of the user's own, up to a tenth.
    let granted = |contact: &String| contact.split("expires=").nth(1).and_then(|text| text.parse().ok());
    let longest = contacts(&long).iter().filter_map(granted).max().unwrap_or(0_u32);
    assert!((3_240..=3_600).contains(&longest), "{:?}", long.message);

    let star = |expires, contacts: &[&str]| Registration {
        contacts: contacts.iter().map(|text| (*text).to_owned()).collect(),
        expires,
        cseq: None,
    };
    let wrong_star = desk.register_with(&star(Some(60), &["*"]), PATIENCE).unwrap();
    assert_eq!(wrong_star.status, 400);
    let mixed = desk.register_with(&star(Some(0), &["*", "<sip:a@b>"]), PATIENCE).unwrap();
    assert_eq!(mixed.status, 400);
    let old =
        Registration { contacts: vec![format!("<{}>", desk.contact())], expires: Some(300), cseq: Some(1) };
    let refused = desk.register_with(&old, PATIENCE).unwrap();
    assert!(refused.status >= 400, "an older CSeq changes nothing: {:?}", refused.message);
    assert_eq!(deployment.registrations("1003").unwrap().len(), 2);

    let cleared = desk.register_with(&star(Some(0), &["*"]), PATIENCE).unwrap();
    assert_eq!((cleared.status, contacts(&cleared).len()), (200, 0), "{:?}", cleared.message);
    assert!(deployment.registrations("1003").unwrap().is_empty());
    println!(
        "423, two devices, expires clamped, wrong wildcards 400, old CSeq {}, Contact: * 200",
        refused.status
    );
}

/// Calls once in each direction between two registered phones, one BYE from each side, and messages.
fn call_both_ways(one: &Phone, other: &Phone) {
    for (caller, called) in [(one, other), (other, one)] {
        let before = called.received("INVITE").len();
        let call =
            caller.call(called.user()).unwrap().unwrap_or_else(|answer| panic!("{:?}", answer.message));
        assert!(call.provisional.contains(&180), "{:?}", call.provisional);
        called.wait_acknowledged().unwrap();
        assert_eq!(called.received("INVITE").len(), before + 1);
        let ended = if before == 0 { call.bye() } else { called.bye() }.unwrap();
        assert_eq!(ended.status, 200, "{:?}", ended.message);
        called.wait_ended().unwrap();

        let call =
            caller.call(called.user()).unwrap().unwrap_or_else(|answer| panic!("{:?}", answer.message));
        called.wait_acknowledged().unwrap();
        let ended = called.bye().unwrap();
        assert_eq!(ended.status, 200, "{:?}", ended.message);
        caller.wait_ended().unwrap();
        drop(call);

        let text = caller.message(called.user(), "hello").unwrap();
        assert_eq!(text.status, 200, "{:?}", text.message);
        assert_eq!(called.received("MESSAGE").last().unwrap().body, b"hello");

        called.set_manners(Manners::Busy);
        let refused = caller.call(called.user()).unwrap().map(drop).unwrap_err();
        assert_eq!(refused.status, 486);

        called.set_manners(Manners::Ring);
        let (cancelled, refused) = caller.call_and_cancel(called.user()).unwrap();
        assert_eq!((cancelled.status, refused.status), (200, 487), "{:?}", refused.message);
        called.set_manners(Manners::Answer);
    }
}

#[test]
fn phones_call_each_other_within_a_pool_and_between_pools_over_every_transport() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let phone = |user: &str, via, server: &str| {
        let phone = Phone::new(&deployment, user, via, server, "127.0.0.1").unwrap();
        assert_eq!(phone.register(300).unwrap().status, 200);
        phone
    };
    let east = [
        phone("1003", Via::Udp, "east1"),
        phone("1004", Via::Tcp, "east1"),
        phone("1005", Via::Tls, "east1"),
        phone("1006", Via::Wss, "east1"),
    ];
    let west = [
        phone("2003", Via::Udp, "west1"),
        phone("2004", Via::Tcp, "west1"),
        phone("2005", Via::Tls, "west1"),
        phone("2006", Via::Wss, "west1"),
    ];
    let branch = [phone("3003", Via::Udp, "branch1a"), phone("3004", Via::Wss, "branch1a")];
    let pairs = [
        (&east[0], &east[1]),
        (&east[1], &east[2]),
        (&east[0], &east[2]),
        (&east[0], &west[0]),
        (&east[1], &west[1]),
        (&east[2], &west[2]),
        (&east[0], &west[2]),
        (&east[2], &west[0]),
        (&branch[0], &east[1]),
        (&branch[0], &west[0]),
        (&east[3], &east[0]),
        (&east[3], &east[1]),
        (&east[3], &east[2]),
        (&east[3], &west[0]),
        (&east[3], &west[3]),
        (&branch[1], &branch[0]),
        (&branch[1], &west[3]),
    ];
    for (one, other) in pairs {
        call_both_ways(one, other);
        println!(
            "{} and {}: calls, BYE from either side, messages, busy, CANCEL both ways",
            one.user(),
            other.user()
        );
    }
}

#[test]
fn what_a_phone_asserts_of_an_identity_reaches_nobody() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let caller = Phone::new(&deployment, "1001", Via::Udp, "east1", "127.0.0.1").unwrap();
    let near = Phone::new(&deployment, "1002", Via::Tcp, "east1", "127.0.0.1").unwrap();
    let far = Phone::new(&deployment, "2001", Via::Udp, "west1", "127.0.0.1").unwrap();
    for phone in [&caller, &near, &far] {
        assert_eq!(phone.register(300).unwrap().status, 200);
    }
    let asserted =
        [("P-Asserted-Identity", "<sip:1009@example.com>"), ("p-asserted-identity", "<tel:+15551009>")];
    for (phone, user) in [(&near, "1002"), (&far, "2001")] {
        let sent = caller.message_with(user, "it is the boss", &[asserted[0], asserted[1], ("X-Kept", "1")]);
        assert_eq!(sent.unwrap().status, 200);
        let message = phone.received("MESSAGE").pop().unwrap();
        assert_eq!((message.header("P-Asserted-Identity"), message.header("X-Kept")), (None, Some("1")));
    }
}

#[test]
fn a_call_rings_every_device_and_nobody_else() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let phone = |user: &str, via| Phone::new(&deployment, user, via, "east1", "127.0.0.1").unwrap();
    let (caller, desk, mobile) = (phone("1003", Via::Udp), phone("1004", Via::Udp), phone("1004", Via::Tcp));
    for phone in [&caller, &desk, &mobile] {
        assert_eq!(phone.register(300).unwrap().status, 200);
    }
    mobile.set_manners(Manners::Ring);

    let call = caller.call("1004").unwrap().unwrap_or_else(|answer| panic!("{:?}", answer.message));
    e2e::wait_until("the CANCEL of the other device", PATIENCE, || Ok(!mobile.received("CANCEL").is_empty()))
        .unwrap();
    assert_eq!(call.bye().unwrap().status, 200);

    assert_eq!(caller.call("1999").unwrap().map(drop).unwrap_err().status, 404);
    assert_eq!(caller.call("1009").unwrap().map(drop).unwrap_err().status, 480);
    drop(mobile);
    e2e::wait_until("the binding of the closed connection to go", PATIENCE, || {
        Ok(deployment.registrations("1004")?.len() == 1)
    })
    .unwrap();
    println!(
        "forked: the device that did not answer got CANCEL; nobody 404; not registered 480; closed TCP \
        unbound"
    );
}
