//! Who guesses passwords is slowed down and banned; nobody else is.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use e2e::{
    Deployment, Phone, Timing, Via,
    attacker::{Attacker, connect_from},
    wait_until,
};
use serde_json::Value;

/// Bans in force as `tandem ban list` shows them: server, source, cause.
fn bans(deployment: &Deployment) -> Vec<(String, String, String)> {
    let json = deployment.tandem(&["ban", "list", "--output", "json"], b"").unwrap().json().unwrap();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let entries = json.as_array().unwrap().iter();
    entries.map(|entry| (text(entry, "server"), text(entry, "source"), text(entry, "cause"))).collect()
}

fn entry(server: &str, source: &str, cause: &str) -> (String, String, String) {
    (server.to_owned(), source.to_owned(), cause.to_owned())
}

/// Lines of a server's log that say that this source is banned.
fn log_lines(deployment: &Deployment, server: &str, source: &str) -> usize {
    let log = fs::read_to_string(deployment.dir().join("servers").join(server).join("log")).unwrap();
    let says = format!("peer={source} ");
    log.lines()
        .filter(|line| line.contains("banned") && line.contains("cause=") && line.contains(&says))
        .count()
}

/// Whether the far end has closed a connection, which has nothing to say otherwise.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    match stream.read(&mut [0; 100]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn user(number: u32) -> String {
    format!("nobody{number}")
}

/// Guesses for many users, one each, until there is silence; returns how many were answered.
fn guess_until_banned(attacker: &Attacker) -> usize {
    (0..100).take_while(|number| attacker.guess(&user(*number), "guess").unwrap().is_some()).count()
}

#[test]
fn a_nonce_is_good_from_the_address_it_was_sent_to_at_either_pool() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let password = deployment.password("1003").unwrap();
    for server in ["east1", "west1"] {
        let here = Attacker::new("127.0.0.5", Deployment::sip(server)).unwrap();
        let there = Attacker::new("127.0.0.6", Deployment::sip(server)).unwrap();
        let mut asked = here.challenge("1003").unwrap().unwrap();
        assert!(!asked.is_stale);

        let moved = there.answer(&mut asked, "1003", password).unwrap().unwrap();
        assert_eq!(moved.status(), Some(401), "{server}");
        let mut again = Attacker::asked(&moved).unwrap();
        assert!(again.is_stale, "{server}");
        let accepted = there.answer(&mut again, "1003", password).unwrap().unwrap();
        assert_eq!(accepted.status(), Some(200), "{server}");
        let accepted = here.answer(&mut asked, "1003", password).unwrap().unwrap();
        assert_eq!(accepted.status(), Some(200), "{server}: the first address may still use its nonce");
    }
}

#[test]
fn a_server_proves_that_it_knows_the_password_where_the_pool_says_so() {
    for is_on in [false, true] {
        let deployment = Deployment::new(Timing::DEFAULT).unwrap();
        let settings = format!("authentication_info = {is_on}\nlease_ttl_s");
        deployment.edit_topology(|text| text.replace("lease_ttl_s", &settings)).unwrap();
        for server in ["control1", "east1"] {
            deployment.start(server).unwrap();
        }
        deployment.wait_serving("east1", "east", Some("full"), Duration::from_secs(30)).unwrap();
        let phone = Attacker::new("127.0.0.5", Deployment::sip("east1")).unwrap();
        let password = deployment.password("1003").unwrap();
        let mut asked = phone.challenge("1003").unwrap().unwrap();

        let accepted = phone.answer(&mut asked, "1003", password).unwrap().unwrap();
        assert_eq!(accepted.status(), Some(200));
        let info = accepted.header("Authentication-Info");
        assert_eq!(info.is_some(), is_on, "{info:?}");
        assert!(info.is_none_or(|info| asked.is_proved_by(info, "1003", password)), "{info:?}");
        assert!(!info.is_some_and(|info| asked.is_proved_by(info, "1003", "guess")), "{info:?}");
    }
}

#[test]
fn who_guesses_is_banned_and_everybody_else_is_served() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let (server, bad) = (Deployment::sip("east1"), "127.0.0.66");
    let phone = Phone::new(&deployment, "1005", Via::Udp, "east1", "127.0.0.1").unwrap();
    let attacker = Attacker::new(bad, server).unwrap();
    let mut before = connect_from(bad, server).unwrap();
    before.write_all(b"\r\n\r\n").unwrap();

    assert_eq!(guess_until_banned(&attacker), 20);

    assert_eq!(bans(&deployment), [entry("east1", bad, "wrong_credentials")]);
    assert_eq!(log_lines(&deployment, "east1", bad), 1);
    before.read_exact(&mut [0; 2]).unwrap();
    assert!(is_closed(&mut before), "an open connection of the banned source");
    assert!(is_closed(&mut connect_from(bad, server).unwrap()), "a new connection of the banned source");
    assert_eq!(phone.register(300).unwrap().status, 200);
    let elsewhere = Attacker::new("127.0.0.67", server).unwrap();
    assert_eq!(elsewhere.guess("1005", deployment.password("1005").unwrap()).unwrap(), Some(200));

    let removed = deployment.tandem(&["ban", "remove", bad], b"").unwrap();
    assert_eq!(removed.code, 0, "{removed:?}");
    assert_eq!(bans(&deployment), []);
    assert_eq!(attacker.guess("1004", "guess").unwrap(), Some(401));
    let removed = deployment.tandem(&["ban", "remove", bad], b"").unwrap();
    assert_eq!(removed.code, 1, "{removed:?}");

    let added = deployment.tandem(&["ban", "add", bad, "--for", "2s", "--server", "east1"], b"").unwrap();
    assert_eq!(added.code, 0, "{added:?}");
    assert!(attacker.challenge("1004").unwrap().is_none());
    wait_until("the end of the ban", Duration::from_secs(10), || Ok(bans(&deployment).is_empty())).unwrap();
    assert!(attacker.challenge("1004").unwrap().is_some());

    for (address, says) in [("127.0.1.1", "own servers"), ("192.0.2.0/24", "not one source")] {
        let refused = deployment.tandem(&["ban", "add", address], b"").unwrap();
        assert!(refused.code != 0 && refused.err.contains(says), "{refused:?}");
    }
}

#[test]
fn who_guesses_for_users_of_the_partner_is_banned_where_he_talks_to() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let attacker = Attacker::new("127.0.0.66", Deployment::sip("west1")).unwrap();
    let guessed = (0..100_u32).take_while(|number| {
        let user = format!("{}", 1_001 + number % 10);
        matches!(attacker.guess(&user, "guess").unwrap(), Some(401 | 480))
    });
    assert!((20..60).contains(&guessed.count()));

    let bans = bans(&deployment);
    assert!(bans.contains(&entry("west1", "127.0.0.66", "wrong_credentials")), "{bans:?}");
    let phone = Phone::new(&deployment, "1005", Via::Udp, "west1", "127.0.0.1").unwrap();
    assert_eq!(phone.register(300).unwrap().status, 200);
}

#[test]
fn guessing_for_one_user_is_slowed_down_for_him_at_that_address_only() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let attacker = Attacker::new("127.0.0.66", Deployment::sip("east1")).unwrap();
    let statuses: Vec<_> = (0..5).map(|_| attacker.guess("1005", "guess").unwrap()).collect();
    assert_eq!(statuses, [Some(401), Some(401), Some(401), Some(480), Some(480)]);

    let password = deployment.password("1005").unwrap();
    assert_eq!(attacker.guess("1005", password).unwrap(), Some(480), "the right one is not looked at either");
    let colleague = deployment.password("1004").unwrap();
    assert_eq!(attacker.guess("1004", colleague).unwrap(), Some(200), "another user at that address");
    let elsewhere = Attacker::new("127.0.0.67", Deployment::sip("east1")).unwrap();
    assert_eq!(elsewhere.guess("1005", password).unwrap(), Some(200), "this user at another address");
    assert_eq!(bans(&deployment), []);
}

#[test]
fn offences_that_prove_nothing_and_exempt_networks_ban_nobody() {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    let exempt = "ban_exempt = [\"127.0.0.64/29\"]\nlease_ttl_s";
    deployment.edit_topology(|text| text.replace("lease_ttl_s", exempt)).unwrap();
    for server in ["control1", "east1"] {
        deployment.start(server).unwrap();
    }
    deployment.wait_serving("east1", "east", Some("full"), Duration::from_secs(30)).unwrap();
    let server = Deployment::sip("east1");
    let (forger, asker) =
        (Attacker::new("127.0.0.5", server).unwrap(), Attacker::new("127.0.0.6", server).unwrap());
    for number in 0..60 {
        // In the name of 127.0.0.5, with a nonce that was sent to 127.0.0.6: what a forged datagram can be.
        let mut asked = asker.challenge(&user(number)).unwrap().unwrap();
        let answer = forger.answer(&mut asked, &user(number), "guess").unwrap().unwrap();
        assert!(Attacker::asked(&answer).unwrap().is_stale);
        forger.socket().send(b"REGISTER sip:example.com SIP/2.0\r\nVia: broken\r\n\r\n").unwrap();
    }
    let gateway = Attacker::new("127.0.0.66", server).unwrap();
    for number in 0..60 {
        assert_eq!(gateway.guess("1003", "guess").unwrap(), Some(401), "{number}");
    }
    assert_eq!(bans(&deployment), []);
}

#[test]
fn who_sends_broken_streams_or_forges_routes_is_banned() {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    for server in ["control1", "east1"] {
        deployment.start(server).unwrap();
    }
    let server = Deployment::sip("east1");
    let route = format!("<sip:m0123456789abcdef@{server};transport=tcp;lr>");
    let forged = format!(
        "BYE sip:1003@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.67:9;branch=z9hG4bK1\r\n\
         Route: {route}\r\nFrom: <sip:1004@example.com>;tag=1\r\nTo: <sip:1003@example.com>;tag=2\r\n\
         Call-ID: c\r\nCSeq: 1 BYE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    let broken = "NOTIFY sip:a SIP/2.0\r\nContent-Length: x\r\n\r\n";
    for (source, bytes, cause) in
        [("127.0.0.66", broken.to_owned(), "malformed_stream"), ("127.0.0.67", forged, "forged_route")]
    {
        for _ in 0..20 {
            let mut stream = connect_from(source, server).unwrap();
            stream.write_all(bytes.as_bytes()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let _answered_or_closed = stream.read(&mut [0; 2_000]);
        }
        let is_banned = || Ok(bans(&deployment).contains(&entry("east1", source, cause)));
        wait_until(cause, Duration::from_secs(5), is_banned).unwrap();
        assert_eq!(log_lines(&deployment, "east1", source), 1);
    }
    assert_eq!(bans(&deployment).len(), 2);
}
