//! Phones over secure WebSocket (RFC 7118), and keep-alives of phones over UDP by STUN (RFC 5626 section 8).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use e2e::{Deployment, Phone, Timing, Via, wait_until};

const PATIENCE: Duration = Duration::from_secs(8);

fn registered(deployment: &Deployment, user: &str, via: Via, server: &str) -> Phone {
    let phone = Phone::new(deployment, user, via, server, "127.0.0.1").unwrap();
    let answer = phone.register(300).unwrap();
    assert_eq!(answer.status, 200, "{:?}", answer.message);
    phone
}

#[test]
fn a_call_between_websocket_and_udp_keeps_both_transports_in_its_route() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let web = registered(&deployment, "1003", Via::Wss, "east1");
    let desk = registered(&deployment, "1004", Via::Udp, "east1");

    let call = web.call("1004").unwrap().unwrap_or_else(|answer| panic!("{:?}", answer.message));
    desk.wait_acknowledged().unwrap();
    let invite = desk.received("INVITE").remove(0);
    let vias = invite.values("Via");
    assert!(vias[0].starts_with("SIP/2.0/UDP 127.0.1.1:5060;"), "{vias:?}");
    assert!(vias[1].starts_with("SIP/2.0/WSS ") && vias[1].contains(".invalid;"), "{vias:?}");
    let routes = invite.values("Record-Route");
    assert_eq!(routes.len(), 2, "{routes:?}");
    assert!(routes[0].contains("@127.0.1.1:5060;transport=udp;lr"), "{routes:?}");
    assert!(routes[1].contains("@127.0.1.1:7443;transport=ws;lr"), "{routes:?}");
    assert!(invite.contact_uri().unwrap().contains(".invalid;transport=ws"), "{invite:?}");
    // The called phone ends it: only the route leads back to the WebSocket.
    assert_eq!(desk.bye().unwrap().status, 200);
    web.wait_ended().unwrap();
    drop(call);

    let call = desk.call("1003").unwrap().unwrap_or_else(|answer| panic!("{:?}", answer.message));
    web.wait_acknowledged().unwrap();
    let invite = web.received("INVITE").remove(0);
    assert!(invite.values("Via")[0].starts_with("SIP/2.0/WSS 127.0.1.1:7443;"), "{invite:?}");
    let routes = invite.values("Record-Route");
    assert!(routes[0].contains("transport=ws") && routes[1].contains("transport=udp"), "{routes:?}");
    assert_eq!(call.bye().unwrap().status, 200);
    web.wait_ended().unwrap();
}

#[test]
fn a_websocket_phone_whose_connection_is_gone_is_unavailable_at_once_and_back_when_it_registers() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let web = registered(&deployment, "1003", Via::Wss, "east1");
    let caller = registered(&deployment, "1004", Via::Udp, "east1");
    let far = registered(&deployment, "2003", Via::Udp, "west1");
    assert_eq!(far.message("1003", "hello").unwrap().status, 200);
    drop(web);
    wait_until("the binding of the closed WebSocket to go", PATIENCE, || {
        Ok(deployment.registrations("1003")?.is_empty())
    })
    .unwrap();

    for caller in [&caller, &far] {
        let began = Instant::now();
        assert_eq!(caller.call("1003").unwrap().map(drop).unwrap_err().status, 480);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }

    let web = registered(&deployment, "1003", Via::Wss, "east1");
    assert_eq!(caller.message("1003", "again").unwrap().status, 200);
    assert_eq!(web.received("MESSAGE").len(), 1);

    // A server that dies takes its connections along, and knows so when it is back.
    deployment.kill("east1").unwrap();
    deployment.start("east1").unwrap();
    deployment.wait_serving("east1", "east", Some("full"), Duration::from_secs(30)).unwrap();
    assert_eq!(caller.call("1003").unwrap().map(drop).unwrap_err().status, 480);
}

#[test]
fn a_websocket_phone_at_the_other_pool_is_called_through_the_server_that_has_its_connection() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let web = registered(&deployment, "2003", Via::Wss, "east1");
    let desk = registered(&deployment, "2004", Via::Udp, "west1");

    let call = desk.call("2003").unwrap().unwrap_or_else(|answer| panic!("{:?}", answer.message));
    web.wait_acknowledged().unwrap();
    let invite = web.received("INVITE").remove(0);
    assert!(invite.values("Via")[0].starts_with("SIP/2.0/WSS 127.0.1.1:7443;"), "{invite:?}");
    assert_eq!(web.bye().unwrap().status, 200);
    desk.wait_ended().unwrap();
    drop(call);

    assert_eq!(desk.message("2003", "hello").unwrap().status, 200);
    drop(web);
    let gone = desk.message("2003", "hello").unwrap();
    assert_eq!(gone.status, 480, "{:?}", gone.message);
}

#[test]
fn what_is_no_websocket_is_refused_and_a_slow_one_closed() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let silent = TcpStream::connect(Deployment::sip_wss("east1")).unwrap();
    let mut plain = TcpStream::connect(Deployment::sip_wss("east1")).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").unwrap();
    let began = Instant::now();
    for stream in [plain, silent] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (mut stream, mut rest) = (stream, Vec::new());
        // An alert of TLS, a reset or nothing: the connection is over in any case.
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());

    let web = registered(&deployment, "1003", Via::Wss, "east1");
    web.send_raw(b"nonsense").unwrap();
    web.send_raw(b"\r\n\r\n").unwrap();
    let oversized = [&b"MESSAGE sip:a SIP/2.0\r\nX: "[..], &vec![b'x'; 70_000], b"\r\n\r\n"].concat();
    assert_eq!(web.register(300).unwrap().status, 200, "nonsense harms nothing");
    web.send_raw(&oversized).unwrap();
    wait_until("the binding of the closed WebSocket to go", PATIENCE, || {
        Ok(deployment.registrations("1003")?.is_empty())
    })
    .unwrap();
}

#[test]
fn stun_on_the_sip_port_is_answered_between_requests() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let phone = registered(&deployment, "1003", Via::Udp, "east1");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = Deployment::sip("east1");
    let cookie = [0x21, 0x12, 0xa4, 0x42];
    let request = [&[0, 1, 0, 0][..], &cookie, b"transaction!"].concat();
    let mut buffer = [0; 200];
    for _ in 0..3 {
        socket.send_to(&[1; 60], server).unwrap();
        socket.send_to(&request, server).unwrap();
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((length, from), (32, server));
        assert_eq!(buffer[..8], [&[1, 1, 0, 12][..], &cookie].concat());
        let port = u16::from_be_bytes([buffer[26] ^ 0x21, buffer[27] ^ 0x12]);
        assert_eq!(port, socket.local_addr().unwrap().port());
    }
    // A request makes the server look what its sockets did by themselves.
    assert_eq!(phone.register(300).unwrap().status, 200);
    assert_eq!(["stun_answered", "stun_dropped"].map(|name| counter(&deployment, name)), [3, 3]);
}

/// A counter of east1.
fn counter(deployment: &Deployment, name: &str) -> u64 {
    let json = deployment.tandem(&["pool", "status", "--output", "json"], b"").unwrap().json().unwrap();
    let asked = json.as_array().unwrap().iter().find(|asked| asked["server"] == "east1").unwrap();
    let counters = asked["status"]["counters"].as_array().unwrap();
    let found = counters.iter().find(|pair| pair[0] == name);
    found.unwrap_or_else(|| panic!("no {name}"))[1].as_u64().unwrap()
}
