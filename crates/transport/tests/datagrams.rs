//! Datagrams on real sockets, and what interrupts a shard that waits.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use common::{Seen, Server, any, run};
use model::{FlowId, Peer, Protocol, WallTime};
use transport::{
    Backlog, BindError, ConnectError, Destination, Inbox, SendError, SendFailure, Settings, Shard,
    ShardConfig,
};

fn udp() -> ShardConfig {
    ShardConfig { shard: 7, udp: vec![any()], ..ShardConfig::default() }
}

fn phone() -> UdpSocket {
    let socket = UdpSocket::bind(any()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

#[test]
fn datagrams_arrive_in_place_with_their_peer_and_answers_go_back_in_batches() {
    run(async {
        let mut server = Server::start(udp());
        let local = server.shard.bound().udp[0];
        let phone = phone();
        let texts: Vec<String> = (0..100).map(|number| format!("message number {number}")).collect();
        for text in &texts {
            phone.send_to(text.as_bytes(), local).unwrap();
        }

        let mut received = 0;
        while received < texts.len() {
            server.shard.next(&mut server.inbox, None).await;
            for event in server.inbox.drain() {
                let transport::Event::Datagram { peer, bytes } = event else { panic!("{event:?}") };
                assert_eq!(bytes, texts[received].as_bytes());
                let remote = phone.local_addr().unwrap();
                assert_eq!(peer, Peer { protocol: Protocol::Udp, remote, local, flow: FlowId::new(7, 0) });
                server.shard.send(&peer, bytes).unwrap();
                received += 1;
            }
        }
        server.shard.flush();

        let mut buffer = [0; 100];
        for text in &texts {
            let (length, from) = phone.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (text.as_bytes(), local));
        }
        let counters = server.shard.counters();
        assert_eq!((counters.datagrams_received, counters.datagrams_sent), (100, 100));
    });
}

#[test]
fn the_longest_datagram_passes_both_ways() {
    run(async {
        let mut server = Server::start(udp());
        let phone = phone();
        let long = vec![b'x'; 65_507];
        phone.send_to(&long, server.shard.bound().udp[0]).unwrap();

        let Seen::Datagram { peer, bytes } = server.one().await else { panic!() };
        server.shard.send(&peer, &bytes).unwrap();
        server.shard.flush();

        let mut buffer = vec![0; 70_000];
        assert_eq!(phone.recv(&mut buffer).unwrap(), 65_507);
        assert_eq!(bytes, long);
    });
}

/// A shard in a thread of its own that sends to closed ports until told to stop; its address.
fn sends_to_closed_ports(is_over: &Arc<AtomicBool>) -> (SocketAddr, thread::JoinHandle<()>) {
    let (tell, told) = std::sync::mpsc::channel();
    let over = Arc::clone(is_over);
    let sends = move || {
        run(async {
            let mut server = Server::start(ShardConfig { shard: 1, ..udp() });
            let local = server.shard.bound().udp[0];
            tell.send(local).unwrap();
            let gone: Vec<_> = (0..64).map(|_| phone()).collect();
            let remotes: Vec<_> = gone.iter().map(|phone| phone.local_addr().unwrap()).collect();
            drop(gone);
            while !over.load(Ordering::Relaxed) {
                for &remote in &remotes {
                    let closed = Peer { protocol: Protocol::Udp, remote, local, flow: FlowId::new(1, 0) };
                    server.shard.send(&closed, b"refused").unwrap();
                }
                server.shard.next(&mut server.inbox, Some(Instant::now())).await;
            }
        });
    };
    let thread = thread::spawn(sends);
    (told.recv().unwrap(), thread)
}

#[test]
fn what_closed_ports_report_to_one_shard_is_never_taken_for_the_failure_of_what_another_sends() {
    run(async {
        let is_over = Arc::new(AtomicBool::new(false));
        let (local, thread) = sends_to_closed_ports(&is_over);
        // The kernel gives reports to the shard that would receive from that port: half of them to this one.
        let mut server = Server::start(ShardConfig { shard: 2, udp: vec![local], ..ShardConfig::default() });
        let phone = phone();
        let remote = phone.local_addr().unwrap();
        let peer = Peer { protocol: Protocol::Udp, remote, local, flow: FlowId::new(2, 0) };
        for _ in 0..20_000 {
            server.shard.send(&peer, b"arrives").unwrap();
            server.shard.flush();
            server.shard.next(&mut server.inbox, Some(Instant::now())).await;
            for event in server.inbox.drain() {
                let transport::Event::SendFailed { peer, .. } = event else { panic!("{event:?}") };
                assert_ne!(peer.remote, remote);
            }
        }
        is_over.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        assert_eq!(server.shard.counters().datagrams_failed, 0);
    });
}

#[test]
fn keep_alive_datagrams_are_dropped_and_counted() {
    run(async {
        let mut server = Server::start(udp());
        let phone = phone();
        for bytes in [b"\r\n\r\n".as_slice(), b"", b"\0\0\0\0", b"INVITE", b"\r\n", b"BYE", b"\r\n"] {
            phone.send_to(bytes, server.shard.bound().udp[0]).unwrap();
        }

        let seen = server.many(2).await;

        let texts = seen.into_iter().map(|seen| match seen {
            Seen::Datagram { bytes, .. } => bytes,
            other => panic!("{other:?}"),
        });
        assert_eq!(texts.collect::<Vec<_>>(), [b"INVITE".to_vec(), b"BYE".to_vec()]);
        assert_eq!(server.shard.counters().keep_alives, 5);
    });
}

#[test]
fn a_shard_that_received_only_keep_alives_is_woken_by_the_next_datagram() {
    run(async {
        let mut server = Server::start(udp());
        let local = server.shard.bound().udp[0];
        let phone = phone();
        phone.send_to(b"\r\n\r\n", local).unwrap();
        server.shard.next(&mut server.inbox, Some(Instant::now() + Duration::from_millis(20))).await;
        assert_eq!(server.shard.counters().keep_alives, 1);

        // Runs when the shard waits: they share the thread.
        tokio::spawn(async move { phone.send_to(b"INVITE", local).unwrap() });

        assert!(matches!(server.one().await, Seen::Datagram { .. }));
    });
}

#[test]
fn several_shards_share_one_port() {
    run(async {
        let mut first = Server::start(ShardConfig { shard: 1, ..udp() });
        let local = first.shard.bound().udp[0];
        let mut second = Server::start(ShardConfig { shard: 2, udp: vec![local], ..ShardConfig::default() });
        let phones: Vec<_> = (0..64).map(|_| phone()).collect();
        for phone in &phones {
            phone.send_to(b"hello", local).unwrap();
        }

        let (mut by_first, mut by_second) = (0, 0);
        while by_first + by_second < phones.len() {
            tokio::select! {
                seen = first.turn() => by_first += seen.len(),
                seen = second.turn() => by_second += seen.len(),
            }
        }

        assert!(by_first > 0 && by_second > 0, "{by_first} and {by_second}");
    });
}

#[test]
fn one_shard_serves_both_address_families() {
    run(async {
        let six: SocketAddr = "[::1]:0".parse().unwrap();
        let mut server = Server::start(ShardConfig { udp: vec![any(), six], ..ShardConfig::default() });
        let local = server.shard.bound().udp[1];
        let phone = UdpSocket::bind(six).unwrap();
        phone.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        phone.send_to(b"hello", local).unwrap();

        let Seen::Datagram { peer, .. } = server.one().await else { panic!() };
        let same = server.shard.connect(&Destination::address(Protocol::Udp, peer.remote)).unwrap();
        server.shard.send(&same, b"welcome").unwrap();
        server.shard.flush();

        assert_eq!((peer.local, same), (local, peer));
        assert_eq!(phone.recv_from(&mut [0; 9]).unwrap(), (7, local));
    });
}

#[test]
fn a_datagram_to_a_closed_port_is_reported_with_its_destination() {
    run(async {
        let mut server = Server::start(udp());
        let dead = phone().local_addr().unwrap();
        let alive = phone();
        let dead_peer = server.shard.connect(&Destination::address(Protocol::Udp, dead)).unwrap();
        let alive_peer = Peer { remote: alive.local_addr().unwrap(), ..dead_peer };
        server.shard.send(&dead_peer, b"are you there").unwrap();
        server.shard.flush();
        // The report is waiting in the socket by now and must not be taken for a failure of this one.
        server.shard.send(&alive_peer, b"and you").unwrap();
        server.shard.flush();

        let seen = server.one().await;

        assert_eq!(seen, Seen::SendFailed { peer: dead_peer, reason: SendFailure::Unreachable });
        assert_eq!(alive.recv(&mut [0; 20]).unwrap(), 7);
        assert_eq!(server.shard.counters().datagrams_failed, 0);
        // Error reports do not keep the shard from receiving.
        alive.send_to(b"yes", alive_peer.local).unwrap();
        assert!(matches!(server.one().await, Seen::Datagram { .. }));
    });
}

#[test]
fn a_datagram_that_is_too_long_is_reported_and_the_rest_of_the_batch_is_sent() {
    run(async {
        let mut server = Server::start(udp());
        let phone = phone();
        let remote = phone.local_addr().unwrap();
        let peer = server.shard.connect(&Destination::address(Protocol::Udp, remote)).unwrap();
        for bytes in [b"one".to_vec(), vec![0; 65_508], b"three".to_vec()] {
            server.shard.send(&peer, &bytes).unwrap();
        }
        server.shard.flush();

        assert_eq!(server.one().await, Seen::SendFailed { peer, reason: SendFailure::TooLong });
        assert_eq!(phone.recv(&mut [0; 20]).unwrap(), 3);
        assert_eq!(phone.recv(&mut [0; 20]).unwrap(), 5);
    });
}

#[test]
fn datagrams_beyond_the_queue_are_refused() {
    run(async {
        let settings = Settings { datagram_queue_bytes_max: 1_000, ..Settings::default() };
        let mut server = Server::start(ShardConfig { settings, ..udp() });
        let peer = server.shard.connect(&Destination::address(Protocol::Udp, any())).unwrap();

        assert_eq!(server.shard.send(&peer, &[0; 600]), Ok(()));
        assert_eq!(server.shard.send(&peer, &[0; 600]), Err(SendError::QueueFull));
        let other = Peer { local: any(), ..peer };
        assert_eq!(server.shard.send(&other, b"x"), Err(SendError::NoSocket));
    });
}

#[test]
fn a_destination_without_a_socket_of_its_family_is_refused() {
    run(async {
        let mut server = Server::start(udp());
        let remote: SocketAddr = "[::1]:5060".parse().unwrap();

        let refused = server.shard.connect(&Destination::address(Protocol::Udp, remote));

        assert_eq!(refused, Err(ConnectError::NoSocket { protocol: Protocol::Udp, remote }));
        let refused = server.shard.connect(&Destination::address(Protocol::Ws, any()));
        assert_eq!(refused, Err(ConnectError::Unsupported { protocol: Protocol::Ws }));
    });
}

#[test]
fn a_waker_interrupts_a_waiting_shard_and_is_not_lost_before_it_waits() {
    run(async {
        let mut server = Server::start(udp());
        let waker = server.shard.waker();
        waker.wake();
        waker.wake();
        server.shard.next(&mut server.inbox, None).await;
        assert!(server.inbox.is_empty());

        // Runs when the shard waits: they share the thread.
        tokio::spawn(async move { thread::spawn(move || waker.wake()) });
        server.shard.next(&mut server.inbox, None).await;

        assert!(server.inbox.is_empty());
    });
}

#[test]
fn a_deadline_ends_the_wait_and_a_past_one_does_not_wait() {
    run(async {
        let mut server = Server::start(udp());
        let deadline = Instant::now() + Duration::from_millis(15);

        server.shard.next(&mut server.inbox, Some(deadline)).await;
        assert!(server.inbox.is_empty() && Instant::now() >= deadline);

        server.shard.next(&mut server.inbox, Some(deadline)).await;
        assert!(server.inbox.is_empty());
    });
}

#[test]
fn a_port_in_use_is_named_with_its_remedy() {
    run(async {
        let other = phone();
        let taken = other.local_addr().unwrap();
        let error = Shard::bind(ShardConfig { udp: vec![taken], ..ShardConfig::default() }).unwrap_err();
        assert!(matches!(error, BindError::InUse { protocol: Protocol::Udp, address } if address == taken));
        let text = error.to_string();
        assert!(text.contains("port in use") && text.contains(&format!("udp {taken}")), "{text}");
        assert!(text.contains(&format!("ss -lntup 'sport = :{}'", taken.port())), "{text}");
    });
}

#[test]
fn a_second_process_of_the_same_user_does_not_share_the_port_unseen() {
    run(async {
        let config = ShardConfig { udp: vec![any()], tcp: vec![any()], ..ShardConfig::default() };
        let first = Shard::bind(config).unwrap();
        for (udp, tcp) in [(first.bound().udp.clone(), vec![]), (vec![], first.bound().tcp.clone())] {
            let error = Shard::bind(ShardConfig { udp, tcp, ..ShardConfig::default() }).unwrap_err();
            assert!(matches!(error, BindError::InUse { .. }), "{error}");
        }
    });
}

#[test]
fn other_bind_errors_say_what_to_do() {
    run(async {
        let foreign: SocketAddr = "192.0.2.1:5060".parse().unwrap();
        let error = Shard::bind(ShardConfig { udp: vec![foreign], ..ShardConfig::default() }).unwrap_err();
        assert!(matches!(error, BindError::NoSuchAddress { .. }), "{error}");

        let error = Shard::bind(ShardConfig { tls: vec![any()], ..ShardConfig::default() }).unwrap_err();
        assert!(matches!(error, BindError::NoCertificate { .. }), "{error}");
        let error = Shard::bind(ShardConfig { internal: Some(any()), ..ShardConfig::default() }).unwrap_err();
        assert!(matches!(error, BindError::NoCertificate { .. }), "{error}");
    });
}

#[test]
fn an_inbox_forgets_what_was_not_drained() {
    run(async {
        let mut server = Server::start(udp());
        let phone = phone();
        phone.send_to(b"first", server.shard.bound().udp[0]).unwrap();
        server.shard.next(&mut server.inbox, None).await;
        phone.send_to(b"second", server.shard.bound().udp[0]).unwrap();

        let Seen::Datagram { bytes, .. } = server.one().await else { panic!() };

        assert_eq!(bytes, b"second");
        assert!(Inbox::default().is_empty());
    });
}

fn wall_time() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    WallTime::from_micros(u64::try_from(since.as_micros()).unwrap())
}

#[test]
fn it_is_known_since_when_datagrams_wait_and_nobody_waits_behind_a_batch_that_took_all() {
    run(async {
        let mut server = Server::start(udp());
        let local = server.shard.bound().udp[0];
        let phone = phone();
        let send = |count: usize| {
            for _ in 0..count {
                phone.send_to(b"message", local).unwrap();
            }
        };
        let before = wall_time();
        send(200);
        server.shard.next(&mut server.inbox, None).await;
        let backlog = server.inbox.backlog();
        let batch = server.inbox.drain().count();
        // The first datagrams of a machine may be told with the time at which they were read.
        assert!(
            backlog.oldest.is_some_and(|oldest| before <= oldest && oldest <= wall_time()),
            "{backlog:?}"
        );
        assert_eq!(backlog.dropped, 0);

        let mut left = 200 - batch;
        while left > 0 {
            server.shard.next(&mut server.inbox, None).await;
            left -= server.inbox.drain().count();
        }
        send(batch / 2);
        server.shard.next(&mut server.inbox, None).await;

        assert_eq!(server.inbox.backlog(), Backlog::default());
        assert_eq!(server.inbox.drain().count(), batch / 2);
    });
}

#[test]
fn what_a_full_socket_drops_is_counted() {
    run(async {
        let mut server = Server::start(udp());
        let local = server.shard.bound().udp[0];
        let phone = phone();
        // More than the largest buffer.
        for _ in 0..20_000 {
            phone.send_to(&[b'x'; 1_024], local).unwrap();
        }
        let mut dropped = 0;
        loop {
            let deadline = Instant::now() + Duration::from_millis(50);
            server.shard.next(&mut server.inbox, Some(deadline)).await;
            dropped += server.inbox.backlog().dropped as u64;
            if server.inbox.drain().count() == 0 {
                break;
            }
        }
        phone.send_to(b"one more", local).unwrap();
        server.shard.next(&mut server.inbox, None).await;
        dropped += server.inbox.backlog().dropped as u64;

        assert!(dropped > 0);
        assert_eq!(server.shard.counters().datagrams_dropped, dropped);
    });
}
