//! TCP connections on real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use std::{net::SocketAddr, time::Duration};

use common::{Seen, Server, any, expect, message, run};
use model::{FlowId, Peer, Protocol, limits};
use sip::FramingError;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use transport::{CloseReason, ConnectError, ConnectFailure, Destination, SendError, Settings, ShardConfig};

fn tcp() -> ShardConfig {
    ShardConfig { shard: 3, tcp: vec![any()], ..ShardConfig::default() }
}

fn tcp_with(settings: Settings) -> ShardConfig {
    ShardConfig { settings, ..tcp() }
}

async fn phone(server: &Server) -> TcpStream {
    TcpStream::connect(server.shard.bound().tcp[0]).await.unwrap()
}

#[test]
fn a_message_in_pieces_and_messages_in_one_piece_are_cut_right() {
    run(async {
        let mut server = Server::start(tcp());
        let mut phone = phone(&server).await;
        let (one, two, three) = (message("one"), message(""), message("three"));
        let all = [one.clone(), two.clone(), three.clone()].concat();

        phone.write_all(&one[..10]).await.unwrap();
        server.during(tokio::task::yield_now()).await;
        phone.write_all(&all[10..all.len() - 2]).await.unwrap();
        let mut seen = server.many(2).await;
        phone.write_all(&all[all.len() - 2..]).await.unwrap();
        seen.extend(server.many(1).await);

        for (seen, sent) in seen.into_iter().zip([one, two, three]) {
            let Seen::Message { peer, bytes, names } = seen else { panic!("{seen:?}") };
            assert_eq!((peer.remote, peer.local), (phone.local_addr().unwrap(), server.shard.bound().tcp[0]));
            assert_eq!((peer.protocol, peer.flow), (Protocol::Tcp, FlowId::new(3, 1)));
            assert_eq!((bytes, names), (sent.into(), None));
        }
    });
}

#[test]
fn a_message_octet_by_octet_is_one_message() {
    run(async {
        let mut server = Server::start(tcp());
        let mut phone = phone(&server).await;
        phone.set_nodelay(true).unwrap();
        let sent = message("slow but whole");

        let writer = tokio::spawn({
            let sent = sent.clone();
            async move {
                for octet in sent {
                    phone.write_all(&[octet]).await.unwrap();
                    tokio::task::yield_now().await;
                }
                phone
            }
        });

        assert_eq!(server.message().await.1, sent);
        drop(writer.await.unwrap());
    });
}

#[test]
fn the_longest_message_passes_both_ways() {
    run(async {
        let mut server = Server::start(tcp());
        let mut phone = phone(&server).await;
        let mut sent = message(&"x".repeat(65_000));
        sent.truncate(limits::MESSAGE_BYTES_MAX);

        let (written, (peer, bytes, _)) = tokio::join!(phone.write_all(&sent), server.message());
        written.unwrap();
        assert_eq!(bytes, sent);
        server.shard.send(&peer, &bytes).unwrap();
        server.during(expect(&mut phone, &sent)).await;
    });
}

#[test]
fn a_ping_is_answered_without_an_event() {
    run(async {
        let mut server = Server::start(tcp());
        let mut phone = phone(&server).await;

        phone.write_all(b"\r\n\r\n").await.unwrap();
        server.during(expect(&mut phone, b"\r\n")).await;
        phone.write_all(b"\r\n\r\n\r\n\r\n").await.unwrap();
        phone.write_all(&message("after")).await.unwrap();

        assert_eq!(server.message().await.1, message("after"));
        server.during(expect(&mut phone, b"\r\n\r\n")).await;
    });
}

#[test]
fn what_is_too_large_is_reported_can_be_answered_and_is_closed() {
    run(async {
        let mut server = Server::start(tcp());
        let mut phone = phone(&server).await;
        phone.write_all(&message("fine")).await.unwrap();
        phone.write_all(b"INVITE sip:a SIP/2.0\r\nContent-Length: 99999\r\n\r\nxyz").await.unwrap();

        let seen = server.many(2).await;
        let Seen::Malformed { peer, bytes, error } = &seen[1] else { panic!("{seen:?}") };
        assert_eq!((error, error.status()), (&FramingError::MessageTooLarge, Some(513)));
        assert!(bytes.starts_with(b"INVITE"), "{bytes:?}");
        server.shard.send(peer, b"SIP/2.0 513 Message Too Large\r\n\r\n").unwrap();
        server.shard.close(peer.flow, true);
        assert_eq!(server.shard.send(peer, b"more"), Err(SendError::Closed));
        assert_eq!(server.shard.peer(peer.flow), None);

        let mut answer = Vec::new();
        server.during(phone.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, b"SIP/2.0 513 Message Too Large\r\n\r\n");
        // What the phone still sends is taken: a reset could destroy the answer on its way.
        for _ in 0..10 {
            server.during(phone.write_all(&[b'x'; 10_000])).await.unwrap();
            server.during(tokio::task::yield_now()).await;
        }
        drop(phone);
        assert_eq!(server.closed(peer.flow).await, (CloseReason::ClosedHere, 0));
        assert_eq!(server.shard.connections(), 0);
    });
}

#[test]
fn a_malformed_stream_that_nobody_closes_is_closed() {
    run(async {
        let settings = Settings { half_open_max: Duration::from_millis(50), ..Settings::default() };
        let mut server = Server::start(tcp_with(settings));
        let mut phone = phone(&server).await;
        phone.write_all(b"garbage\n\n").await.unwrap();

        let Seen::Malformed { peer, bytes, .. } = server.one().await else { panic!() };

        assert_eq!(bytes.as_ref(), b"garbage\n\n");
        assert_eq!(server.closed(peer.flow).await, (CloseReason::Malformed, 0));
    });
}

#[test]
fn who_goes_on_sending_after_our_close_is_cut_off_and_not_read_for_long() {
    run(async {
        let mut server = Server::start(tcp());
        let mut phone = phone(&server).await;
        phone.write_all(b"garbage\n\n").await.unwrap();
        let Seen::Malformed { peer, .. } = server.one().await else { panic!() };
        server.shard.send(&peer, b"SIP/2.0 400 x\r\n\r\n").unwrap();
        server.shard.close(peer.flow, true);
        server.during(expect(&mut phone, b"SIP/2.0 400 x\r\n\r\n")).await;

        // Far more than the limit and what the buffers of both sides hold.
        let flood = vec![b'x'; 64 * limits::CONNECTION_LINGER_BYTES_MAX];
        let sent = tokio::spawn(async move { phone.write_all(&flood).await });

        assert_eq!(server.closed(peer.flow).await, (CloseReason::ClosedHere, 0));
        assert!(sent.await.unwrap().is_err(), "all of it was read");
    });
}

#[test]
fn a_message_that_trickles_is_closed_however_often_an_octet_comes() {
    run(async {
        let settings = Settings { half_open_max: Duration::from_millis(80), ..Settings::default() };
        let mut server = Server::start(tcp_with(settings));
        let mut phone = phone(&server).await;
        phone.write_all(&message("whole")).await.unwrap();
        let (peer, ..) = server.message().await;

        let trickle = tokio::spawn(async move {
            phone.write_all(b"OPTIONS sip:a SIP/2.0\r\nX: ").await.unwrap();
            while phone.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });

        assert_eq!(server.closed(peer.flow).await, (CloseReason::TooSlow, 0));
        trickle.await.unwrap();
    });
}

#[test]
fn a_connection_without_a_first_message_is_closed_even_if_it_pings() {
    run(async {
        let settings = Settings { half_open_max: Duration::from_millis(50), ..Settings::default() };
        let mut server = Server::start(tcp_with(settings));
        let _silent = phone(&server).await;
        let mut pinging = phone(&server).await;
        pinging.write_all(b"\r\n\r\n").await.unwrap();

        for seen in server.many(2).await {
            assert!(matches!(seen, Seen::Closed { reason: CloseReason::TooSlow, .. }), "{seen:?}");
        }
    });
}

#[test]
fn an_idle_connection_is_closed_and_one_that_has_spoken_waits_longer_than_half_open() {
    run(async {
        let settings = Settings {
            half_open_max: Duration::from_millis(20),
            idle_max: Duration::from_millis(120),
            ..Settings::default()
        };
        let mut server = Server::start(tcp_with(settings));
        let mut phone = phone(&server).await;
        phone.write_all(&message("")).await.unwrap();
        let (peer, ..) = server.message().await;
        let spoken = tokio::time::Instant::now();

        assert_eq!(server.closed(peer.flow).await, (CloseReason::Idle, 0));
        assert!(spoken.elapsed() >= Duration::from_millis(100));
    });
}

#[test]
fn a_connection_whose_far_end_promised_to_be_heard_is_closed_when_it_is_silent() {
    run(async {
        let mut server = Server::start(tcp());
        let (mut silent, mut pinging) = (phone(&server).await, phone(&server).await);
        for stream in [&mut silent, &mut pinging] {
            stream.write_all(&message("")).await.unwrap();
        }
        let mut peers = Vec::new();
        for seen in server.many(2).await {
            let Seen::Message { peer, .. } = seen else { panic!("{seen:?}") };
            server.shard.expect_within(peer.flow, Duration::from_millis(400));
            peers.push(peer);
        }
        let quiet = silent.local_addr().unwrap();
        let (quiet, lively): (Vec<Peer>, Vec<Peer>) =
            peers.into_iter().partition(|peer| peer.remote == quiet);
        let (quiet, lively) = (quiet[0], lively[0]);

        let pings = tokio::spawn(async move {
            while pinging.write_all(b"\r\n\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        // What we send is no sign of life of the far end.
        server.shard.send(&quiet, b"OPTIONS sip:a SIP/2.0\r\n\r\n").unwrap();

        assert_eq!(server.closed(quiet.flow).await, (CloseReason::Silent, 0));
        assert_eq!(server.shard.peer(lively.flow), Some(lively));
        pings.abort();
    });
}

#[test]
fn a_far_end_that_does_not_read_is_closed_when_too_much_waits() {
    run(async {
        let settings = Settings { write_bytes_max: 100_000, ..Settings::default() };
        let mut server = Server::start(tcp_with(settings));
        let mut phone = phone(&server).await;
        phone.write_all(&message("")).await.unwrap();
        let (peer, ..) = server.message().await;

        let mut sent = 0;
        while server.shard.send(&peer, &[b'x'; 10_000]) == Ok(()) {
            sent += 10_000;
            server.during(tokio::task::yield_now()).await;
        }

        assert_eq!(server.shard.send(&peer, b"x"), Err(SendError::Closed));
        let (reason, unsent) = server.closed(peer.flow).await;
        assert_eq!(reason, CloseReason::WriteQueueFull);
        assert!(unsent > 90_000 && unsent <= 100_000 && unsent < sent, "{unsent} of {sent}");
    });
}

#[test]
fn a_refused_connection_is_reported_with_all_that_waited() {
    run(async {
        let mut server = Server::start(tcp());
        let dead = TcpListener::bind(any()).await.unwrap().local_addr().unwrap();
        let peer = server.shard.connect(&Destination::address(Protocol::Tcp, dead)).unwrap();
        server.shard.send(&peer, b"first ").unwrap();
        server.shard.send(&peer, b"second").unwrap();

        let Seen::ConnectFailed { peer: failed, reason, unsent } = server.one().await else { panic!() };

        assert_eq!(failed, peer);
        assert_eq!(reason, ConnectFailure::System(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(unsent.as_ref(), b"first second");
        assert_eq!(server.shard.send(&peer, b"x"), Err(SendError::Closed));
        assert_eq!(server.shard.connections(), 0);
    });
}

#[test]
fn a_connection_being_made_can_be_given_up_and_does_not_queue_without_end() {
    run(async {
        let settings = Settings { write_bytes_max: 10, ..Settings::default() };
        let mut server = Server::start(tcp_with(settings));
        let listener = TcpListener::bind(any()).await.unwrap();
        let to = Destination::address(Protocol::Tcp, listener.local_addr().unwrap());

        let first = server.shard.connect(&to).unwrap();
        server.shard.close(first.flow, false);
        let second = server.shard.connect(&to).unwrap();
        assert_ne!(first.flow, second.flow);
        assert_eq!(server.shard.send(&second, b"12345678901"), Err(SendError::QueueFull));

        let seen = server.many(2).await;
        let reasons = seen.into_iter().map(|seen| match seen {
            Seen::ConnectFailed { reason, .. } => reason,
            other => panic!("{other:?}"),
        });
        assert_eq!(reasons.collect::<Vec<_>>(), [ConnectFailure::ClosedHere, ConnectFailure::WriteQueueFull]);
    });
}

#[test]
fn what_was_sent_before_a_flushing_close_arrives_even_if_the_connection_is_not_made_yet() {
    run(async {
        let mut server = Server::start(tcp());
        let proxy = TcpListener::bind(any()).await.unwrap();
        let to = Destination::address(Protocol::Tcp, proxy.local_addr().unwrap());
        let peer = server.shard.connect(&to).unwrap();
        server.shard.send(&peer, b"goodbye").unwrap();
        server.shard.close(peer.flow, true);

        let (mut accepted, _) = server.during(proxy.accept()).await.unwrap();
        let mut bytes = Vec::new();
        server.during(accepted.read_to_end(&mut bytes)).await.unwrap();

        assert_eq!(bytes, b"goodbye");
        drop(accepted);
        assert_eq!(server.closed(peer.flow).await, (CloseReason::ClosedHere, 0));
    });
}

#[test]
fn a_connection_is_reused_until_it_ends_and_answers_come_by_it() {
    run(async {
        let mut server = Server::start(tcp());
        let proxy = TcpListener::bind(any()).await.unwrap();
        let to = Destination::address(Protocol::Tcp, proxy.local_addr().unwrap());

        let peer = server.shard.connect(&to).unwrap();
        server.shard.send(&peer, b"early ").unwrap();
        let (mut accepted, _) = server.during(proxy.accept()).await.unwrap();
        assert_eq!(server.shard.connect(&to).unwrap(), peer);
        server.shard.send(&peer, b"late").unwrap();
        server.during(expect(&mut accepted, b"early late")).await;
        accepted.write_all(&message("answer")).await.unwrap();

        let (from, bytes, _) = server.message().await;
        assert_eq!((from, bytes), (peer, message("answer").into()));
        assert_eq!(peer.local, server.shard.bound().tcp[0]);
        assert_eq!(server.shard.peers().collect::<Vec<_>>(), [peer]);
        drop(accepted);
        assert_eq!(server.closed(peer.flow).await, (CloseReason::ClosedByPeer, 0));
        assert_ne!(server.shard.connect(&to).unwrap().flow, peer.flow);
    });
}

#[test]
fn an_answer_goes_back_over_the_connection_of_its_request_and_a_flow_can_be_found_by_number() {
    run(async {
        let mut server = Server::start(tcp());
        let mut phone = phone(&server).await;
        phone.write_all(&message("request")).await.unwrap();
        let (peer, ..) = server.message().await;

        let found = server.shard.peer(FlowId::from_number(peer.flow.number())).unwrap();
        server.shard.send(&found, b"answer").unwrap();
        server.during(expect(&mut phone, b"answer")).await;

        assert_eq!(found, peer);
        let foreign = model::Peer { flow: FlowId::new(9, 1), ..peer };
        assert_eq!(server.shard.send(&foreign, b"x"), Err(SendError::OtherShard { shard: 9 }));
        let unknown = model::Peer { flow: FlowId::new(3, 77), ..peer };
        assert_eq!(server.shard.send(&unknown, b"x"), Err(SendError::Closed));
        // An accepted connection is not what a request to the same address goes over.
        let to = Destination::address(Protocol::Tcp, peer.remote);
        assert_ne!(server.shard.connect(&to).unwrap().flow, peer.flow);
    });
}

#[test]
fn connections_beyond_the_limits_are_closed_at_once() {
    run(async {
        let settings = Settings { connections_max: 2, connections_per_address_max: 1, ..Settings::default() };
        let mut server = Server::start(tcp_with(settings));
        let mut first = phone(&server).await;
        first.write_all(&message("")).await.unwrap();
        let (peer, ..) = server.message().await;

        let mut second = phone(&server).await;
        assert_eq!(server.during(second.read(&mut [0; 1])).await.unwrap_or(0), 0);
        let to = Destination::address(Protocol::Tcp, any());
        server.shard.connect(&to).unwrap();
        let more = Destination::address(Protocol::Tcp, "127.0.0.1:9".parse().unwrap());
        assert_eq!(server.shard.connect(&more), Err(ConnectError::TooManyConnections));
        assert!(matches!(server.one().await, Seen::ConnectFailed { .. }));

        drop(first);
        server.closed(peer.flow).await;
        let mut third = phone(&server).await;
        third.write_all(&message("third")).await.unwrap();
        assert_eq!(server.message().await.1, message("third"));
        let counters = server.shard.counters();
        assert_eq!((counters.connections_accepted, counters.connections_refused), (2, 1));
    });
}

#[test]
fn connections_are_not_read_while_events_wait_and_nothing_is_lost() {
    run(async {
        let settings = Settings { events_max: 2, ..Settings::default() };
        let mut server = Server::start(tcp_with(settings));
        // More than the sockets' buffers hold, so that a sender has to wait for the shard.
        let text = "x".repeat(60_000);
        let sender = |address: SocketAddr, text: String| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            for _ in 0..100 {
                stream.write_all(&message(&text)).await.unwrap();
            }
            stream
        };
        let local = server.shard.bound().tcp[0];
        let senders: Vec<_> = (0..3).map(|_| tokio::spawn(sender(local, text.clone()))).collect();

        let mut received = 0;
        while received < 300 {
            let seen = server.turn().await;
            assert!(seen.len() <= 3, "{}", seen.len());
            for seen in seen {
                assert!(matches!(&seen, Seen::Message { bytes, .. } if bytes.len() > 60_000));
                received += 1;
            }
        }
        for sender in senders {
            drop(sender.await.unwrap());
        }
    });
}

#[test]
fn every_connection_ends_with_exactly_one_event() {
    run(async {
        let mut server = Server::start(tcp());
        let mut phones = Vec::new();
        for _ in 0..20 {
            phones.push(phone(&server).await);
        }
        for phone in &mut phones {
            phone.write_all(&message("")).await.unwrap();
        }
        let mut flows: Vec<_> = server
            .many(20)
            .await
            .into_iter()
            .map(|seen| match seen {
                Seen::Message { peer, .. } => peer.flow,
                other => panic!("{other:?}"),
            })
            .collect();
        for flow in flows.iter().take(10) {
            server.shard.close(*flow, false);
            server.shard.close(*flow, true);
        }
        drop(phones);

        let mut closed: Vec<_> = server
            .many(20)
            .await
            .into_iter()
            .map(|seen| match seen {
                Seen::Closed { peer, .. } => peer.flow,
                other => panic!("{other:?}"),
            })
            .collect();
        closed.sort_unstable();
        flows.sort_unstable();
        assert_eq!(closed, flows);
        assert_eq!(server.shard.connections(), 0);
    });
}

#[test]
fn a_dropped_shard_closes_its_connections() {
    run(async {
        let mut server = Server::start(tcp());
        let mut phone = phone(&server).await;
        phone.write_all(&message("")).await.unwrap();
        server.message().await;

        drop(server);

        assert_eq!(phone.read(&mut [0; 1]).await.unwrap_or(0), 0);
    });
}

#[test]
fn a_flood_of_datagrams_does_not_starve_connections() {
    run(async {
        let mut server = Server::start(ShardConfig { udp: vec![any()], ..tcp() });
        let local = server.shard.bound().udp[0];
        let mut phone = phone(&server).await;
        phone.write_all(&message("before")).await.unwrap();
        server.message().await;
        let flooder = std::net::UdpSocket::bind(any()).unwrap();
        // Always more than one batch is waiting, so no turn has to wait for anything.
        let flood = || {
            for _ in 0..64 {
                flooder.send_to(b"flood", local).unwrap();
            }
        };

        flood();
        assert!(matches!(server.turn().await[0], Seen::Datagram { .. }));
        phone.write_all(&message("among datagrams")).await.unwrap();
        let mut turns = 1;
        loop {
            flood();
            if server.turn().await.iter().any(|seen| matches!(seen, Seen::Message { .. })) {
                break;
            }
            turns += 1;
        }

        assert!(turns <= 12, "{turns}");
    });
}
