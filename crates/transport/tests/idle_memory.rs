//! What an idle TLS phone costs: measured on this process, with the phones in another one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use std::{
    env, fs,
    io::{BufRead, BufReader, Lines, Read, stdin},
    process::{Child, ChildStdout, Command, Stdio},
};

use common::{Seen, Server, any, expect, message, run};
use model::WallTime;
use rustls::pki_types::ServerName;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::TlsConnector;
use transport::{
    ShardConfig, TlsConfigs,
    tls::{Identity, client_config, server_config},
};

const NOW: WallTime = WallTime::from_secs(1_795_000_000);
const NAME: &str = "pool.example.com";
/// Phones that are there before the measurement, so that buffers which all share exist.
const BEFORE: usize = 50;
/// Phones whose memory is measured.
const MEASURED: usize = 300;
/// The promise: bytes per idle TLS phone.
const BYTES_MAX: usize = 12_000;

#[test]
fn an_idle_tls_phone_costs_less_than_12_kilobytes() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let certified = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let identity =
            Identity { certificate: directory.path().join("a.pem"), key: directory.path().join("a.key") };
        fs::write(&identity.certificate, certified.cert.pem()).unwrap();
        fs::write(&identity.key, certified.signing_key.serialize_pem()).unwrap();
        let tls_configs =
            TlsConfigs { server: Some(server_config(&identity, NOW).unwrap()), ..TlsConfigs::default() };
        let mut server =
            Server::start(ShardConfig { tls: vec![any()], tls_configs, ..ShardConfig::default() });
        let address = server.shard.bound().tls[0];
        let roots = identity.certificate.display().to_string();

        let mut first = connect_phones(&mut server, &format!("{address} {roots} {BEFORE}"), BEFORE).await;
        let before = resident_bytes();
        let mut second =
            connect_phones(&mut server, &format!("{address} {roots} {MEASURED}"), MEASURED).await;
        let each = (resident_bytes() - before) / MEASURED;

        println!("{each} bytes per idle TLS phone");
        assert!(each < BYTES_MAX, "{each}");
        for (child, _output) in [&mut first, &mut second] {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    });
}

/// What another process prints, kept open so that it can.
type Output = Lines<BufReader<ChildStdout>>;

/// Starts this program again as `count` phones; returns when each has had an answer.
async fn connect_phones(server: &mut Server, order: &str, count: usize) -> (Child, Output) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "phones_of_another_process", "--nocapture"])
        .env("TRANSPORT_TEST_PHONES", order)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut received = 0;
    while received < count {
        for seen in server.turn().await {
            let Seen::Message { peer, .. } = seen else { panic!("{seen:?}") };
            server.shard.send(&peer, b"answer").unwrap();
            received += 1;
        }
    }
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = tokio::task::spawn_blocking(move || {
        assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("READY")));
        lines
    });
    let lines = server.during(ready).await.unwrap();
    (child, lines)
}

#[test]
#[ignore = "runs as the phones of the test above"]
fn phones_of_another_process() {
    let Ok(order) = env::var("TRANSPORT_TEST_PHONES") else { return };
    let parts: Vec<_> = order.split(' ').collect();
    let [address, roots, count] = parts[..] else { panic!("{order}") };
    run(async {
        let connector = TlsConnector::from(client_config(roots.as_ref(), None, NOW).unwrap());
        let mut phones = Vec::new();
        for _ in 0..count.parse().unwrap() {
            let stream = TcpStream::connect(address).await.unwrap();
            let mut phone = connector.connect(ServerName::try_from(NAME).unwrap(), stream).await.unwrap();
            phone.write_all(&message(&"x".repeat(700))).await.unwrap();
            expect(&mut phone, b"answer").await;
            phones.push(phone);
        }
        println!("READY");
        stdin().read_to_end(&mut Vec::new()).unwrap();
    });
}

fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1_024
}
