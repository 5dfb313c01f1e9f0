//! STUN between SIP datagrams, on real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use common::{Seen, Server, run};
use transport::ShardConfig;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

fn server(address: &str) -> Server {
    Server::start(ShardConfig { udp: vec![address.parse().unwrap()], ..ShardConfig::default() })
}

fn phone(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// A Binding request without attributes; `number` is its transaction.
fn binding_request(number: u8) -> Vec<u8> {
    [[0, 1, 0, 0].as_slice(), &COOKIE, &[number; 12]].concat()
}

/// The number and the address of a Binding success response.
fn read_success(bytes: &[u8]) -> (u8, SocketAddr) {
    assert_eq!(bytes[..2], [1, 1], "{bytes:?}");
    assert_eq!(usize::from(bytes[3]), bytes.len() - 20);
    assert_eq!(bytes[4..8], COOKIE);
    assert_eq!(bytes[20..22], [0, 0x20]);
    let mask = &bytes[4..20];
    let clear: Vec<u8> = bytes[28..].iter().zip(mask).map(|(octet, mask)| octet ^ mask).collect();
    let ip = match bytes[25] {
        1 => IpAddr::from(<[u8; 4]>::try_from(clear).unwrap()),
        2 => IpAddr::from(<[u8; 16]>::try_from(clear).unwrap()),
        other => panic!("family {other}"),
    };
    let port = u16::from_be_bytes([bytes[26] ^ mask[0], bytes[27] ^ mask[1]]);
    (bytes[8], SocketAddr::new(ip, port))
}

#[test]
fn a_phone_that_only_sends_stun_is_answered_with_its_address_of_either_family() {
    run(async {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let mut server = server(address);
            let phone = phone(address);
            phone.send_to(&binding_request(7), server.shard.bound().udp[0]).unwrap();

            server.shard.next(&mut server.inbox, Some(Instant::now() + Duration::from_millis(50))).await;

            let mut buffer = [0; 100];
            let (length, from) = phone.recv_from(&mut buffer).unwrap();
            assert_eq!(from, server.shard.bound().udp[0]);
            assert_eq!(read_success(&buffer[..length]), (7, phone.local_addr().unwrap()));
            assert!(server.inbox.is_empty());
            assert_eq!(server.shard.counters().stun_answered, 1);
        }
    });
}

#[test]
fn stun_between_sip_messages_disturbs_none_of_them() {
    run(async {
        let mut server = server("127.0.0.1:0");
        let local = server.shard.bound().udp[0];
        let phone = phone("127.0.0.1:0");
        let indication = [[0, 0x11, 0, 0].as_slice(), &COOKIE, &[1; 12]].concat();
        for number in 0..50 {
            phone.send_to(format!("SIP {number}").as_bytes(), local).unwrap();
            phone.send_to(&binding_request(number), local).unwrap();
            phone.send_to(&binding_request(number)[..19], local).unwrap();
            phone.send_to(&[3; 40], local).unwrap();
            phone.send_to(&indication, local).unwrap();
            phone.send_to(b"\r\n", local).unwrap();
        }

        let seen = server.many(50).await;
        // The last of them may come after the last message.
        while server.shard.counters().datagrams_received < 300 {
            server.shard.next(&mut server.inbox, Some(Instant::now() + Duration::from_millis(10))).await;
        }

        for (number, seen) in seen.into_iter().enumerate() {
            let Seen::Datagram { bytes, .. } = seen else { panic!("{seen:?}") };
            assert_eq!(bytes, format!("SIP {number}").as_bytes());
        }
        let mut buffer = [0; 100];
        for number in 0..50 {
            let length = phone.recv(&mut buffer).unwrap();
            assert_eq!(read_success(&buffer[..length]).0, number);
        }
        let counters = server.shard.counters();
        assert_eq!((counters.stun_answered, counters.stun_dropped, counters.keep_alives), (50, 100, 100));
        assert_eq!(counters.datagrams_sent, 50);
    });
}
