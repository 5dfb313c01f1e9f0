//! Bad input on every transport: the right status or a closed connection, and no effect on others.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use e2e::{Deployment, Message, Phone, Timing, Via};

const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A phone that registers all the time, and what it saw: accepted, refused or unanswered, slowest.
struct Victim {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(usize, usize, Duration)>,
}

impl Victim {
    fn start(deployment: &Deployment, user: &str, via: Via) -> Self {
        let phone = Phone::new(deployment, user, via, "east1", "127.0.0.1").unwrap();
        assert_eq!(phone.register(300).unwrap().status, 200);
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let (mut accepted, mut others, mut slowest) = (0, 0, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                match phone.register(300) {
                    Ok(answer) if answer.status == 200 => {
                        accepted += 1;
                        slowest = slowest.max(answer.received - answer.sent);
                    }
                    Ok(_) | Err(_) => others += 1,
                }
                thread::sleep(Duration::from_millis(5));
            }
            (accepted, others, slowest)
        });
        Self { is_over, thread }
    }

    fn end(self, during: &str) {
        self.is_over.store(true, Ordering::Relaxed);
        let (accepted, others, slowest) = self.thread.join().unwrap();
        println!("{during}: another phone registered {accepted} times, {others} failed, slowest {slowest:?}");
        assert_eq!(others, 0);
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    }
}

/// A request with these lines between its topmost Via and its end.
fn request(start: &str, local: SocketAddr, number: usize, lines: &str) -> String {
    format!(
        "{start}\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKh{number};rport\r\nFrom: \
        <sip:1003@example.com>;tag=h\r\n\
         To: <sip:1004@example.com>\r\nCall-ID: hostile{number}\r\n{lines}\r\n"
    )
}

/// The status of the final response that comes next; `None`: silence.
fn answer(socket: &UdpSocket) -> Option<u16> {
    let mut buffer = vec![0; 65_536];
    let began = Instant::now();
    while began.elapsed() < ANSWER_WITHIN {
        if let Ok(length) = socket.recv(&mut buffer) {
            let status = Message::read(&buffer[..length]).and_then(|(message, _)| message.status());
            if status.is_some_and(|status| status >= 200) {
                return status;
            }
        }
    }
    None
}

fn torture_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/sip/tests/torture");
    let mut files = Vec::new();
    for set in ["rfc4475", "rfc5118"] {
        for part in [folder.join(set), folder.join(set).join("wire")] {
            let entries = fs::read_dir(part).into_iter().flatten().map(|entry| entry.unwrap().path());
            files.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "dat")));
        }
    }
    files.sort();
    assert!(files.len() >= 50, "{}", files.len());
    files
}

/// Numbers without pattern, the same in each run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.next() & 0xff).unwrap()).collect()
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one kind of bad input after the other")]
fn bad_datagrams_get_the_right_status_and_hurt_nobody() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let server = Deployment::sip("east1");
    let victim = Victim::start(&deployment, "1005", Via::Udp);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let local = socket.local_addr().unwrap();
    let many_headers = (0..300).fold(String::new(), |mut text, number| {
        let _ = write!(text, "X-{number}: x\r\n");
        text
    });
    let long_header = format!("X: {}\r\n", "x".repeat(40_000));
    let message = "MESSAGE sip:1004@example.com SIP/2.0";
    let usual = "CSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n";
    let with = |more: &str| format!("{usual}{more}");
    let cases: Vec<(&str, &str, String, u16)> = vec![
        ("no credentials", message, with(""), 407),
        ("another version", "MESSAGE sip:1004@example.com SIP/7.0", with(""), 505),
        ("no hops left", message, usual.replace("70", "0"), 483),
        ("hops no number", message, usual.replace("70", "many"), 400),
        ("an unknown extension", message, with("Proxy-Require: nothing\r\n"), 420),
        ("an unknown scheme", "MESSAGE nobody:x SIP/2.0", with(""), 416),
        ("CSeq of another method", message, usual.replace("1 MESSAGE", "1 INVITE"), 400),
        ("CSeq no number", message, usual.replace("1 MESSAGE", "x MESSAGE"), 400),
        ("more body promised than sent", message, usual.replace("Length: 0", "Length: 500"), 400),
        ("negative length", message, usual.replace("Length: 0", "Length: -1"), 400),
        ("300 header lines", message, with(&many_headers), 400),
        ("40,000 octets of header", message, with(&long_header), 513),
        ("a second From", message, with("From: <sip:1005@example.com>;tag=x\r\n"), 400),
        ("a line that is no header", message, with("nonsense\r\n"), 400),
        (
            "a user of elsewhere",
            "REGISTER sip:example.com SIP/2.0",
            usual.replace("MESSAGE", "REGISTER"),
            401,
        ),
    ];
    for (number, (what, start, lines, expected)) in cases.into_iter().enumerate() {
        socket.send(request(start, local, number, &lines).as_bytes()).unwrap();
        let found = answer(&socket);
        println!("{what}: {found:?}");
        assert_eq!(found, Some(expected), "{what}");
    }

    let whole = request(message, local, 1_000, usual);
    for length in 0..whole.len() {
        socket.send(&whole.as_bytes()[..length]).unwrap();
    }
    let mut noise = Noise(42);
    for round in 0..20_000 {
        let size = usize::try_from(noise.next() % 1_500).unwrap();
        let mut octets = noise.bytes(size);
        if round % 2 == 0 {
            let mut broken = whole.clone().into_bytes();
            for _ in 0..4 {
                let at = usize::try_from(noise.next()).unwrap() % broken.len();
                broken[at] = u8::try_from(noise.next() & 0xff).unwrap();
            }
            octets = broken;
        }
        let _ = socket.send(&octets);
    }
    socket.send(&vec![b'A'; 65_507]).unwrap();
    let files = torture_files();
    for file in &files {
        let _ = socket.send(&fs::read(file).unwrap());
    }
    while socket.recv(&mut [0; 65_536]).is_ok() {}
    victim
        .end("20,000 broken datagrams, all prefixes of a message, the torture messages of RFC 4475 and 5118");
    assert!(deployment.is_running("east1"));
    let again = Phone::new(&deployment, "1003", Via::Udp, "east1", "127.0.0.1").unwrap();
    assert_eq!(again.register(300).unwrap().status, 200);
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect(Deployment::sip("east1")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// What comes until the far end closes, and how long that took.
fn until_closed(stream: &mut TcpStream) -> (Vec<u8>, Duration) {
    let began = Instant::now();
    let mut all = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (all, began.elapsed()),
            Ok(length) => all.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return (all, began.elapsed());
            }
            Err(error) => panic!("not closed: {error}; got {:?}", String::from_utf8_lossy(&all)),
        }
    }
}

fn statuses(bytes: &[u8]) -> Vec<u16> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while let Some((message, length)) = Message::read(rest) {
        found.extend(message.status());
        rest = &rest[length..];
    }
    found
}

#[test]
#[expect(clippy::too_many_lines, reason = "one kind of bad input after the other")]
fn bad_streams_are_closed_and_hurt_nobody() {
    // Without bans, so that each kind meets the server; `bans.rs` and `floods.rs` are about them.
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    let without_bans = "ban_offences_max = 0\nlease_ttl_s";
    deployment.edit_topology(|text| text.replace("lease_ttl_s", without_bans)).unwrap();
    for server in ["control1", "east1"] {
        deployment.start(server).unwrap();
    }
    deployment.wait_serving("east1", "east", Some("full"), Duration::from_secs(30)).unwrap();
    let before = deployment.memory_kb("east1").unwrap();
    let victim = Victim::start(&deployment, "1005", Via::Tcp);
    let usual = "CSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\n";
    let message = "MESSAGE sip:1004@example.com SIP/2.0";

    // Many connections that never finish their first message, and TLS handshakes that never end.
    let mut slow: Vec<TcpStream> = (0..300).map(|_| connect()).collect();
    for (number, stream) in slow.iter_mut().enumerate() {
        let _ = stream.write_all(&b"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/TCP"[..number % 40]);
    }
    let mut tls: Vec<TcpStream> = (0..50)
        .map(|number| {
            let mut stream = TcpStream::connect(Deployment::sip_tls("east1")).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let _ = stream.write_all(&[0x16, 3, 1, 2, 0, 1][..number % 7]);
            stream
        })
        .collect();
    let began = Instant::now();

    let mut endless = connect();
    let (mut sent, endless_began) = (0_usize, Instant::now());
    endless.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = endless.write_all(format!("{message}\r\nX: ").as_bytes());
    while endless.write_all(&[b'x'; 4_096]).is_ok() {
        sent += 4_096;
        assert!(endless_began.elapsed() < Duration::from_secs(8), "an endless header is read for ever");
    }
    println!("an endless header: closed after {:?}, {} MB thrown away", endless_began.elapsed(), sent >> 20);

    for (what, lines, expected) in [
        ("no Content-Length", String::new(), 400),
        ("Content-Length of 10 MB", "Content-Length: 10000000\r\n".to_owned(), 513),
        ("two Content-Lengths", "Content-Length: 5\r\nContent-Length: 7\r\n".to_owned(), 400),
        ("a header of 40,000 octets", format!("X: {}\r\nContent-Length: 0\r\n", "x".repeat(40_000)), 513),
    ] {
        let mut stream = connect();
        let local = stream.local_addr().unwrap();
        let text =
            request(message, local, 1, &format!("{usual}{lines}")).replace("SIP/2.0/UDP", "SIP/2.0/TCP");
        stream.write_all(text.as_bytes()).unwrap();
        let (octets, _) = until_closed(&mut stream);
        println!("{what}: {:?}, then closed", statuses(&octets));
        assert_eq!(statuses(&octets), [expected], "{what}");
    }

    let mut pipelined = connect();
    let local = pipelined.local_addr().unwrap();
    let many = (0..500).fold(String::new(), |mut text, number| {
        let lines = "CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n";
        let one = request("OPTIONS sip:127.0.1.1:5060 SIP/2.0", local, number, lines);
        text.push_str(&one.replace("SIP/2.0/UDP", "SIP/2.0/TCP").replace("1004@", ""));
        text
    });
    let mut writer = pipelined.try_clone().unwrap();
    let sender = thread::spawn(move || {
        for piece in many.as_bytes().chunks(777) {
            writer.write_all(piece).unwrap();
        }
    });
    let (mut octets, mut buffer) = (Vec::new(), [0; 16_384]);
    while statuses(&octets).len() < 500 {
        let length = pipelined.read(&mut buffer).unwrap();
        assert!(length > 0, "closed after {} answers", statuses(&octets).len());
        octets.extend_from_slice(&buffer[..length]);
    }
    sender.join().unwrap();
    assert!(statuses(&octets).iter().all(|status| *status == 200), "{:?}", statuses(&octets));

    for file in torture_files() {
        let mut stream = connect();
        let _ = stream.write_all(&fs::read(file).unwrap());
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut noise = Noise(7);
    for _ in 0..200 {
        let _ = connect().write_all(&noise.bytes(3_000));
        let mut tls = TcpStream::connect(Deployment::sip_tls("east1")).unwrap();
        let _ = tls.write_all(&noise.bytes(300));
    }

    let slowest = slow.iter_mut().chain(&mut tls).map(|stream| until_closed(stream).1).max().unwrap();
    println!("350 half-open connections: all closed {:?} after they were made", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(15), "{slowest:?}");
    victim.end("endless, oversized, slow and random streams");
    let after = deployment.memory_kb("east1").unwrap();
    println!("memory of the server: {before} kB before, {after} kB after");
    assert!(after < before + 64 * 1_024, "{before} kB, {after} kB");
}

#[test]
fn the_size_limit_of_the_topology_is_in_force() {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    deployment
        .edit_topology(|text| text.replace("lease_ttl_s", "message_bytes_max = 4096\nlease_ttl_s"))
        .unwrap();
    for server in ["control1", "east1"] {
        deployment.start(server).unwrap();
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(Deployment::sip("east1")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let local = socket.local_addr().unwrap();
    let lines = format!("CSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\nX: {}\r\n", "x".repeat(5_000));
    socket.send(request("MESSAGE sip:1004@example.com SIP/2.0", local, 1, &lines).as_bytes()).unwrap();
    assert_eq!(answer(&socket), Some(513));
}
