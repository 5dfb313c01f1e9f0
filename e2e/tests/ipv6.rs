//! Phones and servers with IPv6 addresses, and calls between them and those with IPv4.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use e2e::{Deployment, Phone, Timing, Via, wait_until};

const SERVERS: [(&str, u16); 4] = [("control1", 4), ("east1", 1), ("west1", 2), ("branch1a", 3)];
const LIMIT: Duration = Duration::from_secs(30);

/// The IPv6 address of a server.
fn ip(server: &str) -> Ipv6Addr {
    let number = SERVERS.iter().find(|(name, _)| *name == server).unwrap().1;
    Ipv6Addr::new(0xfd00, 0, 0, number, 0, 0, 0, 1)
}

/// How servers reach each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Internal {
    V4,
    V6,
}

/// The example deployment with both families for phones, all servers ready.
fn running(internal: Internal) -> Deployment {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    for (server, number) in SERVERS {
        deployment.namespace().add_address(ip(server)).unwrap();
        deployment
            .edit_topology(|text| {
                let (v4, v6) = (format!("127.0.{number}.1"), format!("[{}]", ip(server)));
                text.lines().map(|line| with_ipv6(line, &v4, &v6, internal) + "\n").collect()
            })
            .unwrap();
    }
    let written = fs::read_to_string(deployment.dir().join("topology.toml")).unwrap();
    assert!(written.contains("tls = [\"127.0.1.1:5061\", \"[fd00:0:0:1::1]:5061\"]"), "{written}");
    let is_internal = written.contains("internal_sip = \"[fd00:0:0:1::1]:5071\"");
    assert_eq!(is_internal, internal == Internal::V6, "{written}");
    assert_eq!(deployment.tandem(&["certificate", "renew"], b"").unwrap().code, 0);
    for (server, _) in SERVERS {
        deployment.start(server).unwrap();
    }
    for (server, home) in [("east1", "east"), ("west1", "west"), ("branch1a", "branch1")] {
        deployment.wait_serving(server, home, Some("full"), LIMIT).unwrap();
    }
    deployment
}

fn with_ipv6(line: &str, v4: &str, v6: &str, internal: Internal) -> String {
    let is_list = ["udp = ", "tcp = ", "tls = ", "wss = "].iter().any(|key| line.starts_with(key));
    let (key, value) = line.split_once(" = ").unwrap_or_default();
    if is_list && value.contains(&format!("\"{v4}:")) {
        let both = value.trim_matches(['[', ']']);
        return format!("{key} = [{both}, {}]", both.replace(v4, v6));
    }
    if internal == Internal::V6 && key.starts_with("internal_") {
        line.replace(v4, v6)
    } else {
        line.to_owned()
    }
}

fn phone_at(deployment: &Deployment, user: &str, via: Via, server: IpAddr) -> Phone {
    let port = match via {
        Via::Udp | Via::Tcp => 5060,
        Via::Tls => 5061,
        Via::Wss => 7443,
    };
    let (server, authority) = (SocketAddr::new(server, port), deployment.dir().join("ca/cert.pem"));
    let local = if server.is_ipv4() { "127.0.0.1" } else { "::1" };
    let password = deployment.password(user).unwrap();
    let phone = Phone::with_password(user, password, via, server, local, Some(&authority)).unwrap();
    let answer = phone.register(300).unwrap();
    assert_eq!(answer.status, 200, "{user} by {via:?}: {:?}", answer.message);
    phone
}

/// Both call each other; one ends the one call, the other the other.
fn call_both_ways(one: &Phone, other: &Phone) {
    for (caller, callee) in [(one, other), (other, one)] {
        let (from, to) = (caller.user(), callee.user());
        let call =
            caller.call(to).unwrap().unwrap_or_else(|answer| panic!("{from} to {to}: {:?}", answer.message));
        callee.wait_acknowledged().unwrap();
        assert_eq!(callee.info("inside").unwrap().status, 200, "{to} to {from}");
        assert_eq!(call.bye().unwrap().status, 200, "{from} to {to}");
        callee.wait_ended().unwrap();
        let call =
            caller.call(to).unwrap().unwrap_or_else(|answer| panic!("{from} to {to}: {:?}", answer.message));
        callee.wait_acknowledged().unwrap();
        assert_eq!(callee.bye().unwrap().status, 200, "{to} to {from}");
        caller.wait_ended().unwrap();
        drop(call);
        let answer = caller.message(to, "hello").unwrap();
        assert_eq!(answer.status, 200, "{from} to {to}: {:?}", answer.message);
    }
}

#[test]
fn phones_with_ipv6_call_each_other_and_phones_with_ipv4_by_every_transport() {
    let deployment = running(Internal::V4);
    let v6 = |user, via| phone_at(&deployment, user, via, ip("east1").into());
    let first = v6("1003", Via::Udp);
    let others = [v6("1004", Via::Udp), v6("1005", Via::Tcp), v6("1006", Via::Tls), v6("1007", Via::Wss)];
    for other in &others {
        call_both_ways(&first, other);
    }
    let invite = others[0].received("INVITE").remove(0);
    let vias = invite.values("Via");
    assert!(vias[0].starts_with("SIP/2.0/UDP [fd00:0:0:1::1]:5060;"), "{vias:?}");
    assert!(invite.values("Record-Route")[0].contains("@[fd00:0:0:1::1]:5060;"), "{invite:?}");

    let v4 = |user, via| phone_at(&deployment, user, via, Deployment::ip("east1"));
    for old in [v4("1008", Via::Udp), v4("1009", Via::Tcp), v4("1010", Via::Tls)] {
        for other in [&first, &others[1], &others[2], &others[3]] {
            call_both_ways(&old, other);
        }
        // Each family keeps its own side of the route.
        let routes = first.received("INVITE").last().unwrap().values("Record-Route");
        assert_eq!(routes.len(), 2, "{routes:?}");
        assert!(routes[0].contains("@[fd00:0:0:1::1]:5060;transport=udp"), "{routes:?}");
        assert!(routes[1].contains("@127.0.1.1:506"), "{routes:?}");
    }
    let shown = deployment.registrations("1003").unwrap();
    assert!(
        shown.iter().any(|(server, contact)| server == "east1" && contact.contains("@[::1]:")),
        "{shown:?}"
    );
}

#[test]
fn servers_reach_each_other_over_ipv6_and_a_pool_that_dies_is_taken_over() {
    let deployment = running(Internal::V6);
    let (east, west) = (ip("east1").into(), ip("west1").into());
    let far = [phone_at(&deployment, "2003", Via::Udp, west), phone_at(&deployment, "2004", Via::Tls, west)];
    let old = phone_at(&deployment, "2005", Via::Udp, Deployment::ip("west1"));
    let near = [phone_at(&deployment, "1003", Via::Udp, east), phone_at(&deployment, "1004", Via::Tcp, east)];
    for one in &near {
        for other in far.iter().chain([&old]) {
            call_both_ways(one, other);
        }
    }
    // At the partner, as a second flow: the way back is a Path to an IPv6 address.
    let edge = phone_at(&deployment, "1005", Via::Tcp, west);
    call_both_ways(&edge, &near[0]);

    deployment.kill("east1").unwrap();
    near[0].use_server(SocketAddr::new(west, 5060));
    wait_until("west to take over", LIMIT, || Ok(near[0].register(300)?.status == 200)).unwrap();
    call_both_ways(&far[0], &near[0]);
}
