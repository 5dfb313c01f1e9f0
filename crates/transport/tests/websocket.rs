//! WebSocket on real sockets: frames made by hand where they may be wrong, by a library where they are right.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use std::{fs, net::SocketAddr, thread, time::Duration};

use common::{Seen, Server, any, expect, message, run};
use model::{Peer, Protocol, WallTime, limits};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};
use tokio_rustls::TlsConnector;
use transport::{
    BindError, CloseReason, Destination, SendError, Settings, Shard, ShardConfig, TlsConfigs,
    tls::{Identity, client_config, server_config},
};
use tungstenite::{Message, client::IntoClientRequest, http::HeaderValue};

const NOW: WallTime = WallTime::from_secs(1_795_000_000);
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FINAL: u8 = 0x80;
/// Long enough for a test to finish, short enough to be waited for.
const SHORT: Duration = Duration::from_millis(300);

fn start(settings: Settings) -> (Server, SocketAddr) {
    let server = Server::start(ShardConfig { shard: 3, ws: vec![any()], settings, ..ShardConfig::default() });
    let address = server.shard.bound().ws[0];
    (server, address)
}

fn request(subprotocol: &str) -> String {
    format!(
        "GET /sip HTTP/1.1\r\nHost: pool.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Origin: https://phone.example.com\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         {subprotocol}Sec-WebSocket-Version: 13\r\n\r\n"
    )
}

fn sip_request() -> String {
    request("Sec-WebSocket-Protocol: sip\r\n")
}

/// A frame as a client sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => frame.push(FINAL | u8::try_from(length).unwrap()),
        Ok(length) => {
            frame.push(FINAL | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            frame.push(FINAL | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(octet, mask)| octet ^ mask));
    frame
}

/// The next frame of the server: its first octet and its payload.
async fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let first = stream.read_u8().await.unwrap();
    let length = match stream.read_u8().await.unwrap() {
        126 => usize::from(stream.read_u16().await.unwrap()),
        127 => usize::try_from(stream.read_u64().await.unwrap()).unwrap(),
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn open(server: &mut Server, address: SocketAddr) -> TcpStream {
    let mut phone = TcpStream::connect(address).await.unwrap();
    phone.write_all(sip_request().as_bytes()).await.unwrap();
    let head = server.during(read_head(&mut phone)).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    phone
}

async fn read_rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    rest
}

/// The reason of the next event, which must be the end of a WebSocket.
async fn ended(server: &mut Server) -> CloseReason {
    match server.one().await {
        Seen::Closed { peer, reason, unsent: 0 } => {
            assert_eq!(peer.protocol, Protocol::Ws);
            reason
        }
        other => panic!("not closed: {other:?}"),
    }
}

#[test]
fn messages_pass_both_ways_one_in_each_frame_with_or_without_content_length() {
    run(async {
        let (mut server, address) = start(Settings::default());
        let mut phone = open(&mut server, address).await;
        let long = message(&"x".repeat(60_000));
        let texts = [&b"OPTIONS sip:a SIP/2.0\r\n\r\nno length"[..], &long, b"BYE sip:\xff SIP/2.0\r\n\r\n"];
        for (text, kind) in texts.into_iter().zip([TEXT, BINARY, BINARY]) {
            phone.write_all(&frame(FINAL | kind, text)).await.unwrap();
        }

        let mut peers = Vec::new();
        for (seen, text) in server.many(3).await.into_iter().zip(texts) {
            let Seen::Message { peer, bytes, names: None } = seen else { panic!("{seen:?}") };
            assert_eq!(bytes, text);
            server.shard.send(&peer, &bytes).unwrap();
            peers.push(peer);
        }

        for (text, kind) in texts.into_iter().zip([TEXT, TEXT, BINARY]) {
            assert_eq!(server.during(read_frame(&mut phone)).await, (FINAL | kind, text.to_vec()));
        }
        let remote = phone.local_addr().unwrap();
        let flow = peers[0].flow;
        assert!(
            peers.iter().all(|peer| *peer == Peer { protocol: Protocol::Ws, remote, local: address, flow })
        );
        assert_eq!(server.shard.peer(flow), Some(peers[0]));
        drop(phone);
        assert_eq!(ended(&mut server).await, CloseReason::ClosedByPeer);
        assert_eq!(server.shard.send(&peers[0], b"late"), Err(SendError::Closed));
    });
}

#[test]
fn who_does_not_offer_the_subprotocol_is_told_so_and_closed() {
    run(async {
        let (mut server, address) = start(Settings::default());
        for subprotocol in ["", "Sec-WebSocket-Protocol: chat\r\n"] {
            let mut phone = TcpStream::connect(address).await.unwrap();
            phone.write_all(request(subprotocol).as_bytes()).await.unwrap();

            let answer = server.during(read_rest(&mut phone)).await;

            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
            assert!(answer.contains("subprotocol sip"), "{answer}");
            drop(phone);
            assert_eq!(ended(&mut server).await, CloseReason::UpgradeRefused);
        }
        let mut phone = TcpStream::connect(address).await.unwrap();
        phone.write_all(b"REGISTER sip:example.com SIP/2.0\r\n\r\n").await.unwrap();
        assert!(server.during(read_rest(&mut phone)).await.starts_with(b"HTTP/1.1 400 "));
        drop(phone);
        assert_eq!(ended(&mut server).await, CloseReason::UpgradeRefused);
    });
}

#[test]
fn the_stream_may_be_cut_anywhere_and_everything_may_come_at_once() {
    run(async {
        let (mut server, address) = start(Settings::default());
        let sip = message("cut");
        let stream = [
            sip_request().into_bytes(),
            frame(FINAL | TEXT, &sip),
            frame(TEXT, &sip[..5]),
            frame(FINAL | PING, b"between"),
            frame(0, &sip[5..9]),
            frame(FINAL, &sip[9..]),
            frame(FINAL | BINARY, &sip),
        ]
        .concat();
        for size in [1, 2, 3, 7, 100, stream.len()] {
            let mut phone = TcpStream::connect(address).await.unwrap();
            phone.set_nodelay(true).unwrap();
            let mut seen = Vec::new();
            for piece in stream.chunks(size) {
                phone.write_all(piece).await.unwrap();
                let soon = Some(std::time::Instant::now());
                server.shard.next(&mut server.inbox, soon).await;
                seen.extend(server.inbox.drain().map(Seen::from));
            }
            while seen.len() < 3 {
                seen.extend(server.turn().await);
            }

            assert_eq!(seen.len(), 3, "pieces of {size}");
            for seen in seen {
                let Seen::Message { bytes, .. } = seen else { panic!("{seen:?}") };
                assert_eq!(bytes, sip, "pieces of {size}");
            }
            server.during(read_head(&mut phone)).await;
            assert_eq!(server.during(read_frame(&mut phone)).await, (FINAL | PONG, b"between".to_vec()));
            drop(phone);
            assert_eq!(ended(&mut server).await, CloseReason::ClosedByPeer);
        }
    });
}

#[test]
fn keep_alives_are_answered_and_are_no_messages() {
    run(async {
        let (mut server, address) = start(Settings::default());
        let mut phone = open(&mut server, address).await;
        for (first, payload, answer) in [
            (FINAL | PING, &b"still there?"[..], Some((FINAL | PONG, &b"still there?"[..]))),
            (FINAL | PONG, b"unasked", None),
            (FINAL | TEXT, b"\r\n\r\n", Some((FINAL | TEXT, b"\r\n"))),
            (FINAL | BINARY, b"\r\n\r\n", Some((FINAL | TEXT, b"\r\n"))),
            (FINAL | TEXT, b"\r\n", None),
            (FINAL | TEXT, b"", None),
        ] {
            phone.write_all(&frame(first, payload)).await.unwrap();
            if let Some((first, payload)) = answer {
                let answered = server.during(read_frame(&mut phone)).await;
                assert_eq!(answered, (first, payload.to_vec()));
            }
        }
        phone.write_all(&frame(FINAL | TEXT, b"BYE")).await.unwrap();

        assert_eq!(server.message().await.1, "BYE");
    });
}

#[test]
fn what_rfc_6455_forbids_ends_the_connection_with_its_code() {
    run(async {
        let (mut server, address) = start(Settings::default());
        let large = limits::MESSAGE_BYTES_MAX + 1;
        let mut unmasked = frame(FINAL | TEXT, b"BYE");
        unmasked[1] &= 0x7f;
        // Only the header: nothing waits for so much.
        let announced = [&[FINAL | BINARY, FINAL | 127][..], &(large as u64).to_be_bytes(), &[0; 4]].concat();
        let half = vec![b'x'; large / 2 + 1];
        let cases = [
            (unmasked, 1002_u16),
            (frame(FINAL | 0x40 | TEXT, b"BYE"), 1002),
            (frame(FINAL | 3, b"BYE"), 1002),
            (frame(FINAL, b"BYE"), 1002),
            (frame(PING, b"cut"), 1002),
            (frame(FINAL | PING, &[0; 126]), 1002),
            (frame(FINAL | TEXT, b"BYE \xff"), 1007),
            (announced, 1009),
            ([frame(BINARY, &half), frame(FINAL, &half)].concat(), 1009),
        ];
        for (octets, code) in cases {
            let mut phone = open(&mut server, address).await;
            phone.write_all(&octets).await.unwrap();

            let (first, payload) = server.during(read_frame(&mut phone)).await;
            let rest = server.during(read_rest(&mut phone)).await;

            assert_eq!((first, payload, rest), (FINAL | CLOSE, code.to_be_bytes().to_vec(), Vec::new()));
            drop(phone);
            assert_eq!(ended(&mut server).await, CloseReason::Malformed, "{code}");
        }
    });
}

#[test]
fn the_longest_message_passes() {
    run(async {
        let (mut server, address) = start(Settings::default());
        let mut phone = open(&mut server, address).await;
        let longest = vec![b'x'; limits::MESSAGE_BYTES_MAX];
        phone.write_all(&frame(FINAL | TEXT, &longest)).await.unwrap();

        assert_eq!(server.message().await.1, longest);
    });
}

#[test]
fn either_side_may_close_and_is_answered() {
    run(async {
        let (mut server, address) = start(Settings::default());
        let mut phone = open(&mut server, address).await;
        phone.write_all(&frame(FINAL | CLOSE, &1001_u16.to_be_bytes())).await.unwrap();
        let answer = server.during(read_frame(&mut phone)).await;
        assert_eq!(answer, (FINAL | CLOSE, 1001_u16.to_be_bytes().to_vec()));
        assert_eq!(server.during(read_rest(&mut phone)).await, b"");
        drop(phone);
        assert_eq!(ended(&mut server).await, CloseReason::ClosedByPeer);

        let mut phone = open(&mut server, address).await;
        phone.write_all(&frame(FINAL | TEXT, b"BYE")).await.unwrap();
        let (peer, _, _) = server.message().await;
        server.shard.send(&peer, b"SIP/2.0 200 OK\r\n\r\n").unwrap();
        server.shard.close(peer.flow, true);
        let last = server.during(read_frame(&mut phone)).await;
        assert_eq!(last, (FINAL | TEXT, b"SIP/2.0 200 OK\r\n\r\n".to_vec()));
        let close = server.during(read_frame(&mut phone)).await;
        assert_eq!(close, (FINAL | CLOSE, 1000_u16.to_be_bytes().to_vec()));
        phone.write_all(&frame(FINAL | CLOSE, &1000_u16.to_be_bytes())).await.unwrap();
        drop(phone);
        assert_eq!(ended(&mut server).await, CloseReason::ClosedHere);
    });
}

#[test]
fn slow_senders_are_closed_and_an_open_websocket_may_be_silent() {
    run(async {
        let (mut server, address) = start(Settings { half_open_max: SHORT, ..Settings::default() });
        let mut quiet = open(&mut server, address).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(&sip_request().as_bytes()[..40]).await.unwrap();
        let mut within = open(&mut server, address).await;
        within.write_all(&frame(FINAL | TEXT, &message("cut"))[..20]).await.unwrap();

        for seen in server.many(3).await {
            let Seen::Closed { reason, .. } = seen else { panic!("{seen:?}") };
            assert_eq!(reason, CloseReason::TooSlow);
        }

        quiet.write_all(&frame(FINAL | TEXT, b"BYE")).await.unwrap();
        assert_eq!(server.message().await.1, "BYE");
    });
}

#[test]
fn who_does_not_read_is_closed() {
    run(async {
        let (mut server, address) = start(Settings { write_bytes_max: 100_000, ..Settings::default() });
        let mut phone = open(&mut server, address).await;
        phone.write_all(&frame(FINAL | TEXT, b"BYE")).await.unwrap();
        let (peer, _, _) = server.message().await;

        let refused = loop {
            if let Err(refused) = server.shard.send(&peer, &[b'x'; 50_000]) {
                break refused;
            }
            let soon = Some(std::time::Instant::now());
            server.shard.next(&mut server.inbox, soon).await;
        };

        assert_eq!(refused, SendError::QueueFull);
        let Seen::Closed { reason, .. } = server.one().await else { panic!() };
        assert_eq!(reason, CloseReason::WriteQueueFull);
    });
}

#[test]
fn many_phones_of_a_library_are_served_at_once() {
    run(async {
        const PHONES: usize = 200;
        let (mut server, address) = start(Settings::default());
        let (done, mut all_done) = oneshot::channel();
        thread::spawn(move || {
            let mut phones: Vec<_> = (0..PHONES).map(|_| library_phone(address)).collect();
            for (number, phone) in phones.iter_mut().enumerate() {
                phone.send(Message::text(format!("MESSAGE {number}"))).unwrap();
            }
            for (number, phone) in phones.iter_mut().enumerate() {
                assert_eq!(phone.read().unwrap(), Message::text(format!("MESSAGE {number}")));
                phone.close(None).unwrap();
                while phone.read().is_ok() {}
            }
            done.send(()).unwrap();
        });
        let mut most = 0;
        loop {
            tokio::select! {
                done = &mut all_done => break done.unwrap(),
                () = server.shard.next(&mut server.inbox, None) => {}
            }
            most = most.max(server.shard.connections());
            for seen in server.inbox.drain().map(Seen::from).collect::<Vec<_>>() {
                match seen {
                    Seen::Message { peer, bytes, .. } => server.shard.send(&peer, &bytes).unwrap(),
                    Seen::Closed { reason, .. } => assert_eq!(reason, CloseReason::ClosedByPeer),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(most, PHONES);
    });
}

fn library_phone(address: SocketAddr) -> tungstenite::WebSocket<std::net::TcpStream> {
    let mut request = format!("ws://{address}/").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("sip"));
    let stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (phone, response) = tungstenite::client(request, stream).unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "sip");
    phone
}

#[test]
fn a_secure_websocket_has_the_certificate_of_tls_and_its_time_limit() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let certified = rcgen::generate_simple_self_signed(["pool.example.com".to_owned()]).unwrap();
        let identity =
            Identity { certificate: directory.path().join("a.pem"), key: directory.path().join("a.key") };
        fs::write(&identity.certificate, certified.cert.pem()).unwrap();
        fs::write(&identity.key, certified.signing_key.serialize_pem()).unwrap();
        let tls_configs =
            TlsConfigs { server: Some(server_config(&identity, NOW).unwrap()), ..TlsConfigs::default() };
        let settings = Settings { half_open_max: SHORT, ..Settings::default() };
        let config = ShardConfig { wss: vec![any()], tls_configs, settings, ..ShardConfig::default() };
        let mut server = Server::start(config);
        let address = server.shard.bound().wss[0];
        let connector = TlsConnector::from(client_config(&identity.certificate, None, NOW).unwrap());
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("pool.example.com").unwrap();
        let mut phone = server.during(connector.connect(name, stream)).await.unwrap();

        phone.write_all(sip_request().as_bytes()).await.unwrap();
        phone.write_all(&frame(FINAL | TEXT, b"BYE")).await.unwrap();
        phone.flush().await.unwrap();
        let (peer, bytes, names) = server.message().await;
        assert_eq!((peer.protocol, peer.local, bytes, names), (Protocol::Wss, address, "BYE".into(), None));
        server.during(expect(&mut phone, b"HTTP/1.1 101 ")).await;

        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        let seen = server.one().await;
        assert!(matches!(seen, Seen::Closed { reason: CloseReason::TooSlow, .. }), "{seen:?}");
    });
}

#[test]
fn a_secure_listener_without_a_certificate_is_refused_and_nobody_is_dialled() {
    run(async {
        let config = ShardConfig { wss: vec![any()], ..ShardConfig::default() };
        let refused = Shard::bind(config).unwrap_err();
        assert!(matches!(refused, BindError::NoCertificate { .. }), "{refused}");

        let (mut server, address) = start(Settings::default());
        for protocol in [Protocol::Ws, Protocol::Wss] {
            assert!(server.shard.connect(&Destination::address(protocol, address)).is_err());
        }
    });
}
