//! Requests that are too long for a datagram go over TCP where their target takes it (RFC 3261 section
//! 18.1.1).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use e2e::{Deployment, Message, Operator, Phone, Timing, Via};

const PATIENCE: Duration = Duration::from_secs(8);

fn registered(deployment: &Deployment, user: &str, is_plain: bool) -> Phone {
    let phone = Phone::new(deployment, user, Via::Udp, "east1", "127.0.0.1").unwrap();
    if is_plain {
        phone.set_plain_contact();
    }
    assert_eq!(phone.register(300).unwrap().status, 200);
    phone
}

fn address(phone: &Phone) -> SocketAddr {
    let contact = phone.contact();
    contact.split(['@', ';']).nth(1).unwrap().parse().unwrap()
}

/// Takes one connection, answers each request on it with 200, and tells what came.
fn listen(at: SocketAddr) -> Receiver<Message> {
    let listener = TcpListener::bind(at).unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut held = Vec::new();
        let mut buffer = [0; 65_536];
        loop {
            let Ok(length @ 1..) = stream.read(&mut buffer) else { return };
            held.extend_from_slice(&buffer[..length]);
            while let Some((request, length)) = Message::read(&held) {
                held.drain(..length);
                let mut ok = Message::new("SIP/2.0 200 OK");
                for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
                    for value in request.lines(name) {
                        ok = ok.with(name, value);
                    }
                }
                stream.write_all(&ok.write()).unwrap();
                tell.send(request).unwrap();
            }
        }
    });
    told
}

fn counted(deployment: &Deployment, name: &str) -> u64 {
    let mut operator = Operator::new(deployment, "east1", PATIENCE);
    let status = operator.ask("GET", "/v1/status", None).unwrap().json().unwrap();
    let counters = status["counters"].as_array().unwrap();
    counters.iter().find(|counter| counter[0] == name).unwrap()[1].as_u64().unwrap()
}

#[test]
fn a_long_request_goes_over_tcp_and_back_to_udp_where_tcp_is_refused() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let long = "x".repeat(2_000);
    let callee = registered(&deployment, "1004", false);

    // A phone that takes TCP at its address as well.
    let both = registered(&deployment, "1003", true);
    let over_tcp = listen(address(&both));
    let call = both.call("1004").unwrap().unwrap();
    callee.wait_acknowledged().unwrap();
    assert_eq!(callee.info(&long).unwrap().status, 200);
    let request = over_tcp.recv_timeout(PATIENCE).unwrap();
    assert_eq!(request.method(), Some("INFO"));
    let vias = request.values("Via");
    assert!(vias[0].starts_with("SIP/2.0/TCP 127.0.1.1:5060;branch=z9hG4bK"), "{vias:?}");
    assert!(vias[1].starts_with("SIP/2.0/UDP "), "{vias:?}");
    assert_eq!(both.received("INFO").len(), 0);
    assert_eq!(callee.info("short").unwrap().status, 200);
    assert_eq!(both.received("INFO").len(), 1, "a short one stays a datagram");
    assert_eq!(counted(&deployment, "long_requests_by_tcp"), 1);
    assert_eq!(call.bye().unwrap().status, 200);

    // One that refuses it: the request arrives all the same, and the next one goes there at once.
    let only_udp = registered(&deployment, "1005", true);
    let call = only_udp.call("1004").unwrap().unwrap();
    callee.wait_acknowledged().unwrap();
    for number in 1..=2 {
        assert_eq!(callee.info(&long).unwrap().status, 200);
        let received = only_udp.received("INFO");
        assert_eq!(received.len(), number);
        let via = received[0].values("Via").remove(0);
        assert!(via.starts_with("SIP/2.0/UDP 127.0.1.1:5060;"), "{via}");
    }
    assert_eq!(counted(&deployment, "long_requests_by_tcp"), 2);
    assert_eq!(counted(&deployment, "long_requests_refused"), 1);
    assert_eq!(call.bye().unwrap().status, 200);

    // One that asks for UDP by name, and a request along a flow, stay with UDP.
    let named = registered(&deployment, "1006", false);
    let call = named.call("1004").unwrap().unwrap();
    callee.wait_acknowledged().unwrap();
    assert_eq!(callee.info(&long).unwrap().status, 200);
    assert_eq!(named.received("INFO").len(), 1);
    assert_eq!(named.message("1005", &long).unwrap().status, 200);
    assert_eq!(counted(&deployment, "long_requests_by_tcp"), 2);
    assert_eq!(call.bye().unwrap().status, 200);
}
