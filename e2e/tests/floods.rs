//! Floods on real sockets: whoever sends them, other users are served, and the server's memory is bounded.
//!
//! Each flood runs for a few seconds at a pace that one attacker can send from behind an office line. How
//! fast other users are served meanwhile is printed; asserted is that each of their requests is.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use e2e::{
    Deployment, Manners, Message, Phone, Timing, Via,
    attacker::{Attacker, connect_from},
    wait_until,
};
use serde_json::Value;

/// How long a flood of datagrams lasts.
const FLOOD: Duration = Duration::from_secs(4);
/// Datagrams of a flood in a second.
const FLOOD_PER_S: u32 = 4_000;
/// By how much the server's memory may grow: buffers at their bounds, and nothing for each message.
const GROWTH_KB: u64 = 96 * 1_024;

/// Two phones that register and call each other all the time.
struct Others {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Served>,
}

#[derive(Debug, Default)]
struct Served {
    registered: usize,
    called: usize,
    /// New calls answered 503 with Retry-After: what storm control does to new work, never to what runs.
    put_off: usize,
    failed: Vec<String>,
    latencies: Vec<Duration>,
}

impl Others {
    fn start(deployment: &Deployment) -> Self {
        let phone = |user| Phone::new(deployment, user, Via::Udp, "east1", "127.0.0.1").unwrap();
        let (caller, callee) = (phone("1005"), phone("1002"));
        for phone in [&caller, &callee] {
            assert_eq!(phone.register(300).unwrap().status, 200);
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut served = Served::default();
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                match caller.register(300) {
                    Ok(answer) if answer.status == 200 => served.registered += 1,
                    other => served.failed.push(format!("REGISTER: {other:?}")),
                }
                served.latencies.push(began.elapsed());
                match caller.call("1002") {
                    Ok(Ok(call)) => match call.bye() {
                        Ok(answer) if answer.status == 200 => served.called += 1,
                        other => served.failed.push(format!("BYE: {other:?}")),
                    },
                    Ok(Err(answer)) if answer.status == 503 && answer.retry_after().is_some() => {
                        served.put_off += 1;
                    }
                    Ok(Err(answer)) => served.failed.push(format!("INVITE: {answer:?}")),
                    Err(error) => served.failed.push(format!("INVITE: {error:#}")),
                }
                thread::sleep(Duration::from_millis(10));
            }
            for phone in [&caller, &callee] {
                assert_eq!(phone.register(0).unwrap().status, 200);
            }
            served
        });
        Self { is_over, thread }
    }

    fn end(self, during: &str) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut served = self.thread.join().unwrap();
        served.latencies.sort();
        let at = |part: usize| served.latencies.get(served.latencies.len() * part / 100).copied();
        println!(
            "{during}: others registered {}, called {} times, {} put off; REGISTER median {:?}, 99 % {:?}",
            served.registered,
            served.called,
            served.put_off,
            at(50).unwrap_or_default(),
            at(99).unwrap_or_default()
        );
        let first: Vec<_> = served.failed.iter().take(2).collect();
        assert!(first.is_empty(), "{during}: {} failed: {first:#?}", served.failed.len());
        assert!(served.registered >= 2 && served.called >= 2, "{during}: {served:?}");
    }
}

/// Lets others be served while `attack` runs, and sees that the server has not grown. What `attack` returns
/// lives as long as the others call.
fn under<T>(deployment: &Deployment, what: &str, attack: impl FnOnce() -> T) {
    let before = deployment.memory_kb("east1").unwrap();
    let others = Others::start(deployment);
    let kept = attack();
    others.end(what);
    drop(kept);
    let after = deployment.memory_kb("east1").unwrap();
    println!("{what}: memory {before} kB before, {after} kB after");
    assert!(after < before + GROWTH_KB, "{what}: {before} kB, {after} kB");
}

/// Sends datagrams at the pace of a flood, in turn from these addresses; answers are not read. Returns the
/// sockets, still open.
fn flood(addresses: &[&str], mut datagram: impl FnMut(u32, SocketAddr) -> Vec<u8>) -> Vec<UdpSocket> {
    let server = Deployment::sip("east1");
    let sockets: Vec<UdpSocket> = addresses.iter().map(|ip| UdpSocket::bind((*ip, 0)).unwrap()).collect();
    let began = Instant::now();
    let mut sent = 0_u32;
    while began.elapsed() < FLOOD {
        let due = u32::try_from(began.elapsed().as_millis()).unwrap() * FLOOD_PER_S / 1_000;
        while sent < due {
            let socket = &sockets[usize::try_from(sent).unwrap() % sockets.len()];
            let _ = socket.send_to(&datagram(sent, socket.local_addr().unwrap()), server);
            sent += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    sockets
}

/// A request without credentials, with these further lines.
fn request(method: &str, user: &str, number: u32, local: SocketAddr, lines: &str) -> String {
    let uri =
        if method == "REGISTER" { "sip:example.com".to_owned() } else { "sip:1002@example.com".to_owned() };
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKf{number}{method};rport\r\n\
         From: <sip:{user}@example.com>;tag=f{number}\r\nTo: <sip:{user}@example.com>\r\n\
         Call-ID: flood-{number}-{local}\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\n\
         Contact: <sip:{user}@{local}>\r\n{lines}Content-Length: 0\r\n\r\n"
    )
}

fn bans(deployment: &Deployment) -> Vec<(String, String)> {
    let json = deployment.tandem(&["ban", "list", "--output", "json"], b"").unwrap().json().unwrap();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    json.as_array().unwrap().iter().map(|entry| (text(entry, "source"), text(entry, "cause"))).collect()
}

/// How often each source that is banned is in the log of east1.
fn times_logged(deployment: &Deployment, source: &str) -> usize {
    let log = fs::read_to_string(deployment.dir().join("servers/east1/log")).unwrap();
    let says = format!("peer={source} cause=");
    log.lines().filter(|line| line.contains(&says)).count()
}

fn east() -> Deployment {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    let with_ws = "ws = [\"127.0.1.1:7080\"]\nwss = [\"127.0.1.1";
    deployment.edit_topology(|text| text.replace("wss = [\"127.0.1.1", with_ws)).unwrap();
    for server in ["control1", "east1"] {
        deployment.start(server).unwrap();
    }
    deployment.wait_serving("east1", "east", Some("full"), Duration::from_secs(30)).unwrap();
    deployment
}

/// Many values that are short to send and long to read.
fn bomb(kind: u32) -> String {
    let many = |part: &str, bytes: usize| part.repeat(bytes / part.len());
    match kind % 8 {
        0 => format!("Contact: <sip:a@b>{}\r\n", many(",<sip:a@b>", 60_000)),
        1 => format!("Route: {}\r\n", many(",", 60_000)),
        2 => format!("Contact: <sip:a@b>{}\r\n", many(";a", 60_000)),
        3 => format!("Authorization: Digest {}\r\n", many("a=\"\\\"\",", 60_000)),
        4 => many("Via: SIP/2.0/UDP a;branch=z9hG4bK\r\n", 60_000),
        5 => format!("Require: {}\r\n", many("a,", 60_000)),
        6 => format!("From: \"{}\" <sip:a@b>\r\n", many("\\\\", 60_000)),
        _ => format!("Supported: a{}\r\n", many("\r\n ", 60_000)),
    }
}

#[test]
fn requests_of_nobody_in_masses_take_no_memory_and_hurt_nobody() {
    let deployment = east();
    let sources = ["127.0.0.61", "127.0.0.62", "127.0.0.63", "127.0.0.64"];
    under(&deployment, "quiet", || thread::sleep(Duration::from_secs(2)));
    under(&deployment, "REGISTERs of nobody", || {
        flood(&sources, |number, local| {
            request("REGISTER", &format!("nobody{number}"), number, local, "").into_bytes()
        })
    });
    under(&deployment, "INVITEs of nobody and of strangers", || {
        flood(&sources, |number, local| {
            let text = request("INVITE", &format!("nobody{number}"), number, local, "");
            let is_stranger = number % 2 == 0;
            if is_stranger { text.replacen("@example.com>;tag", "@example.org>;tag", 1) } else { text }.into()
        })
    });
    under(&deployment, "forged flow tokens and dialog marks", || {
        flood(&sources, |number, local| {
            let server = Deployment::sip("east1");
            let route = format!("Route: <sip:m{number:016x}.{}@{server};lr>\r\n", "ab".repeat(40));
            let text = request("BYE", "1005", number, local, &route);
            text.replacen("example.com>\r\nCall", "example.com>;tag=t\r\nCall", 1).into_bytes()
        })
    });
    assert_eq!(bans(&deployment), [], "datagrams prove nothing");
}

#[test]
fn datagrams_built_to_be_slow_are_not() {
    let deployment = east();
    let phone = Attacker::new("127.0.0.65", Deployment::sip("east1")).unwrap();
    let mut asked = phone.challenge("1003").unwrap().unwrap();
    let password = deployment.password("1003").unwrap();
    assert_eq!(phone.answer(&mut asked, "1003", password).unwrap().unwrap().status(), Some(200));
    let local = phone.socket().local_addr().unwrap();
    under(&deployment, "65 kB of commas, parameters, quotes and lines", || {
        let began = Instant::now();
        for number in 0..4_000 {
            let method = if number % 3 == 0 { "INVITE" } else { "REGISTER" };
            let _ = phone.socket().send(request(method, "1003", number, local, &bomb(number)).as_bytes());
            if number % 40 == 0 {
                thread::sleep(Duration::from_millis(10));
            }
        }
        println!("4,000 of them sent in {:?}", began.elapsed());
    });
    for (what, line) in [("Contact", bomb(0)), ("Via", bomb(4))] {
        while phone.socket().recv(&mut [0; 65_536]).is_ok() {}
        let answer = phone.ask(&request("REGISTER", "1003", 9_000, local, &line)).unwrap().unwrap();
        println!("a bomb of {what} values: {:?}", answer.status());
        assert!(matches!(answer.status(), Some(400 | 401 | 513)), "{what}: {answer:?}");
    }
}

#[test]
fn guessing_from_many_addresses_bans_each_of_them_and_nobody_else() {
    let deployment = east();
    let addresses: Vec<String> = (100..120).map(|last| format!("127.0.0.{last}")).collect();
    under(&deployment, "guessing from 20 addresses", || {
        thread::scope(|scope| {
            for part in addresses.chunks(4) {
                scope.spawn(move || {
                    for address in part {
                        let attacker = Attacker::new(address, Deployment::sip("east1")).unwrap();
                        let mut guessed = 0;
                        while guessed < 100
                            && attacker.guess(&format!("u{guessed}"), "guess").unwrap().is_some()
                        {
                            guessed += 1;
                        }
                        assert_eq!(guessed, 20, "{address}");
                    }
                });
            }
        });
    });
    let expected: BTreeSet<_> =
        addresses.iter().map(|address| (address.clone(), "wrong_credentials".to_owned())).collect();
    assert_eq!(bans(&deployment).into_iter().collect::<BTreeSet<_>>(), expected);
    for address in &addresses {
        assert_eq!(times_logged(&deployment, address), 1, "{address}");
    }
    let _silent = flood(&["127.0.0.100", "127.0.0.101"], |number, local| {
        request("REGISTER", "nobody", number, local, "").into_bytes()
    });
    assert_eq!(times_logged(&deployment, "127.0.0.100"), 1, "what is dropped is not logged");
}

/// Reads until the far end closes.
fn wait_closed(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    loop {
        match stream.read(&mut [0; 1_000]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "not closed");
                return;
            }
        }
    }
}

#[test]
fn connections_that_stall_are_closed_and_their_sources_banned() {
    let deployment = east();
    let (sip, tls) = (Deployment::sip("east1"), Deployment::sip_tls("east1"));
    let ws = SocketAddr::new(sip.ip(), 7080);
    under(&deployment, "stalled connections, handshakes and upgrades, and 5,000 that come and go", || {
        let (halves, mut stalled) = (AtomicBool::new(false), Vec::new());
        for number in 0..300_usize {
            for (address, server, octets) in [
                ("127.0.0.71", sip, &b"REGISTER sip:example.com SIP/2.0\r\nVia"[..]),
                ("127.0.0.72", tls, &[0x16, 3, 1, 2, 0, 1, 0, 1][..]),
                ("127.0.0.73", ws, &b"GET / HTTP/1.1\r\nHost: example.com\r\nUpgr"[..]),
            ] {
                let mut stream = connect_from(address, server).unwrap();
                let _ = stream.write_all(&octets[..number % octets.len()]);
                stalled.push(stream);
            }
        }
        thread::scope(|scope| {
            // One octet after the other, so that something always comes.
            scope.spawn(|| {
                let mut slow: Vec<_> = (0..30).map(|_| connect_from("127.0.0.74", sip).unwrap()).collect();
                let text = request("OPTIONS", "1003", 1, sip, &"X: y\r\n".repeat(100));
                for octet in text.as_bytes() {
                    slow.retain_mut(|stream| stream.write_all(&[*octet]).is_ok());
                    if slow.is_empty() || halves.load(Ordering::Relaxed) {
                        return;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            });
            for _ in 0..5_000 {
                drop(connect_from("127.0.0.75", sip));
            }
            for stream in &mut stalled {
                wait_closed(stream);
            }
            halves.store(true, Ordering::Relaxed);
        });
    });
    for last in 71..=72 {
        let source = format!("127.0.0.{last}");
        let is_banned = || Ok(bans(&deployment).contains(&(source.clone(), "stalled".to_owned())));
        wait_until(&source, Duration::from_secs(5), is_banned).unwrap();
        assert_eq!(times_logged(&deployment, &source), 1);
    }
    let banned = bans(&deployment);
    let is_banned = |address: &str| banned.iter().any(|(source, _)| source == address);
    assert!(!is_banned("127.0.0.75"), "coming and going is no offence");
    assert!(!is_banned("127.0.0.73"), "a page in a browser opens WebSockets from its reader's address");
}

#[test]
fn one_account_registers_nobody_else_and_aims_at_nobody() {
    const CALLS: usize = 20;
    let deployment = east();
    let server = Deployment::sip("east1");
    let victim = UdpSocket::bind("127.0.0.80:0").unwrap();
    victim.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let target = victim.local_addr().unwrap();
    let phone = Phone::new(&deployment, "1003", Via::Udp, "east1", "127.0.0.81").unwrap();
    let contacts = |count: usize| (0..count).map(|number| format!("<sip:x{number}@{target}>")).collect();
    let registration =
        |count| e2e::Registration { contacts: contacts(count), expires: Some(300), cseq: None };
    let patience = Duration::from_secs(8);
    assert_eq!(
        phone.register_with(&registration(33), patience).unwrap().status,
        400,
        "more than may be asked"
    );
    assert_eq!(phone.register_with(&registration(9), patience).unwrap().status, 403, "more than devices");
    assert_eq!(phone.register_with(&registration(8), patience).unwrap().status, 200);

    phone.set_manners(Manners::Busy);
    let caller = Attacker::new("127.0.0.82", server).unwrap();
    under(&deployment, "a call that forks to eight contacts elsewhere", || {
        let other = Phone::new(&deployment, "1004", Via::Udp, "east1", "127.0.0.83").unwrap();
        for _ in 0..CALLS {
            assert_eq!(other.call("1003").unwrap().map(drop).unwrap_err().status, 486);
            thread::sleep(Duration::from_millis(50));
        }
    });
    assert!(victim.recv(&mut [0; 65_536]).is_err(), "requests go where the REGISTER came from");
    let branches: BTreeSet<_> =
        phone.received("INVITE").iter().map(|invite| invite.header("Via").unwrap().to_owned()).collect();
    assert_eq!(branches.len(), 8 * CALLS);

    let others = Others::start(&deployment);
    let password = deployment.password("1004").unwrap();
    let mut refused = 0;
    while let Some(mut asked) = caller.challenge("1003").unwrap() {
        // The credentials of 1004, to register 1003.
        let authorization = asked.authorization("1004", password);
        let lines = format!("Authorization: {authorization}\r\n");
        match caller.ask(&caller.register("1003", &lines)).unwrap().and_then(|answer| answer.status()) {
            Some(403 | 480) => refused += 1,
            None => break,
            other => panic!("{other:?}"),
        }
        assert!(refused <= 1_000, "never banned");
    }
    others.end("registrations in the name of others");
    let banned = bans(&deployment);
    assert!(matches!(banned.as_slice(), [(source, _)] if source == "127.0.0.82"), "{banned:?}");
    assert_eq!(
        (times_logged(&deployment, "127.0.0.82"), deployment.registrations("1003").unwrap().len()),
        (1, 8)
    );
}

#[test]
fn a_stranger_is_challenged_once_and_the_challenge_is_not_repeated() {
    let _deployment = east();
    let stranger = UdpSocket::bind("127.0.0.90:0").unwrap();
    stranger.connect(Deployment::sip("east1")).unwrap();
    // Longer than T1, after which a transaction would repeat its answer (RFC 3261 section 17.2.1).
    stranger.set_read_timeout(Some(Duration::from_millis(1_200))).unwrap();
    let local = stranger.local_addr().unwrap();
    for (method, domain, expected) in
        [("INVITE", "example.com", 407), ("INVITE", "example.org", 403), ("MESSAGE", "example.com", 407)]
    {
        let text = request(method, "1003", 1, local, "");
        let text = text.replacen("@example.com>;tag", &format!("@{domain}>;tag"), 1);
        let mut statuses = Vec::new();
        let mut tags = BTreeSet::new();
        for _copy in 0..2 {
            stranger.send(text.as_bytes()).unwrap();
        }
        let mut buffer = [0; 4_096];
        while let Ok(length) = stranger.recv(&mut buffer) {
            let (message, _) = Message::read(&buffer[..length]).unwrap();
            statuses.extend(message.status());
            tags.extend(message.header("To").map(str::to_owned));
        }
        assert_eq!((statuses, tags.len()), (vec![expected; 2], 1), "{method} {domain}");
    }
}
