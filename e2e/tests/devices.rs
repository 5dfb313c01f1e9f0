//! A limit of devices for each user: the oldest leaves in sight, or the newest is refused.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::time::Duration;

use e2e::{Answer, Deployment, Phone, Timing, Via, wait_for};

const LIMIT: Duration = Duration::from_secs(40);

/// Two devices for each user: at east the oldest leaves, at west one more is refused.
fn running() -> Deployment {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    let edit = |text: &str| {
        let two = text.replace("lease_ttl_s =", "devices_per_user_max = 2\nlease_ttl_s =");
        let (east, west) = two.split_once("name = \"west\"\nfqdn").unwrap();
        let west = west.replacen("lease_ttl_s =", "devices_beyond_max = \"refuse\"\nlease_ttl_s =", 1);
        format!("{east}name = \"west\"\nfqdn{west}")
    };
    deployment.edit_topology(edit).unwrap();
    for server in e2e::SERVERS {
        deployment.start(server).unwrap();
    }
    for (server, home) in [("east1", "east"), ("west1", "west")] {
        deployment.wait_serving(server, home, Some("full"), LIMIT).unwrap();
    }
    deployment
}

fn phone(deployment: &Deployment, user: &str, server: &str) -> (Phone, Answer) {
    let phone = Phone::new(deployment, user, Via::Udp, server, "127.0.0.1").unwrap();
    let answer = phone.register(300).unwrap();
    (phone, answer)
}

#[test]
fn a_device_too_many_drives_out_the_oldest_in_sight_or_is_refused() {
    let deployment = running();
    let (first, _) = phone(&deployment, "1003", "east1");
    let (second, _) = phone(&deployment, "1003", "east1");
    assert_eq!(first.register(300).unwrap().status, 200, "the second one is the oldest now");
    let (subscription, _) = second.subscribe("1003", "reg", 300).unwrap().unwrap_or_else(|answer| {
        panic!("{:?}", answer.message);
    });

    let (third, answer) = phone(&deployment, "1003", "east1");

    assert_eq!(answer.status, 200, "{:?}", answer.message);
    let bound = deployment.registrations("1003").unwrap().into_iter().map(|(_, contact)| contact);
    let mut bound: Vec<_> = bound.collect();
    bound.sort();
    bound.dedup();
    let mut expected = [first.contact(), third.contact()];
    expected.sort();
    assert_eq!(bound, expected);
    let (told, _) = wait_for("the notification", LIMIT, || {
        let bodies = subscription.notifications().into_iter().map(|notify| String::from_utf8(notify.body));
        Ok(bodies.filter_map(Result::ok).find(|body| body.contains("event=\"rejected\"")))
    })
    .unwrap();
    let gone = told.split("<contact ").find(|part| part.contains("event=\"rejected\"")).unwrap();
    assert!(gone.contains(&format!("<uri>{}</uri>", second.contact())), "{told}");
    assert_eq!(deployment.counter("east1", "devices_replaced").unwrap(), 1);

    let [one, two] = [phone(&deployment, "2003", "west1"), phone(&deployment, "2003", "west1")];
    assert_eq!((one.1.status, two.1.status), (200, 200));
    let (_three, refused) = phone(&deployment, "2003", "west1");
    assert_eq!(refused.status, 403);
    assert!(refused.header("Warning").unwrap().contains("at most 2 devices"), "{:?}", refused.message);
}
