//! Banned sources on real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use std::{net::UdpSocket, sync::Arc};

use common::{Seen, Server, any, message, run};
use model::Source;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use transport::{BannedSources, CloseReason, ShardConfig};

const BANNED: &str = "127.0.0.2";

fn server() -> (Server, Arc<BannedSources>) {
    let banned = Arc::<BannedSources>::default();
    let config = ShardConfig {
        udp: vec![any()],
        tcp: vec![any()],
        banned: Arc::clone(&banned),
        ..ShardConfig::default()
    };
    (Server::start(config), banned)
}

async fn connected(server: &Server, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(server.shard.bound().tcp[0]).await.unwrap()
}

#[test]
fn datagrams_of_a_banned_source_are_dropped_among_those_of_others() {
    run(async {
        let (mut server, banned) = server();
        banned.insert(Source::of(BANNED.parse().unwrap()));
        let local = server.shard.bound().udp[0];
        let attacker = UdpSocket::bind(format!("{BANNED}:0")).unwrap();
        let phone = UdpSocket::bind(any()).unwrap();
        for number in 0..40 {
            // A STUN request and a keep-alive are not answered or counted as such either.
            for bytes in [b"attack".as_slice(), b"\r\n\r\n", b"\0\x01\0\0\x21\x12\xa4\x42123456789012"] {
                attacker.send_to(bytes, local).unwrap();
            }
            phone.send_to(format!("{number}").as_bytes(), local).unwrap();
        }

        let seen = server.many(40).await;

        for (number, seen) in seen.into_iter().enumerate() {
            let Seen::Datagram { peer, bytes } = seen else { panic!("{seen:?}") };
            assert_eq!((peer.remote, bytes), (phone.local_addr().unwrap(), number.to_string().into_bytes()));
        }
        let counters = server.shard.counters();
        assert_eq!((counters.datagrams_banned, counters.stun_answered, counters.keep_alives), (120, 0, 0));

        banned.remove(Source::of(BANNED.parse().unwrap()));
        attacker.send_to(b"again", local).unwrap();
        assert!(matches!(server.one().await, Seen::Datagram { bytes, .. } if bytes == b"again"));
    });
}

#[test]
fn connections_of_a_banned_source_are_closed_and_refused_and_those_of_others_stay() {
    run(async {
        let (mut server, banned) = server();
        let mut attacker = connected(&server, BANNED).await;
        let mut phone = connected(&server, "127.0.0.1").await;
        for stream in [&mut attacker, &mut phone] {
            stream.write_all(&message("")).await.unwrap();
            assert!(matches!(server.one().await, Seen::Message { .. }));
        }

        let source = Source::of(BANNED.parse().unwrap());
        banned.insert(source);
        server.shard.close_from(source);
        assert!(matches!(server.one().await, Seen::Closed { reason: CloseReason::ClosedHere, .. }));
        let ended = attacker.read(&mut [0; 10]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");

        let mut again = connected(&server, BANNED).await;
        let ended = server.during(again.read(&mut [0; 10])).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        phone.write_all(&message("still here")).await.unwrap();
        assert!(matches!(server.one().await, Seen::Message { .. }));
        assert_eq!(server.shard.counters().connections_banned, 2);
    });
}
