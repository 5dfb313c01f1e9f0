//! The command line: exit codes, one clear line for each failure, nothing lost.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{Deployment, Phone, Ran, Timing, Via, tandem_binary, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

/// The failure of a command: its exit code, and that standard error says this in few lines.
fn assert_refused(ran: &Ran, code: i32, says: &[&str]) {
    println!("exit {}: {}", ran.code, ran.err.lines().last().unwrap_or_default());
    assert_eq!(ran.code, code, "{ran:?}");
    for text in says {
        assert!(ran.err.contains(text), "{text:?} is not in {:?}", ran.err);
    }
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}

fn file(deployment: &Deployment, path: &str) -> PathBuf {
    deployment.dir().join(path)
}

#[test]
fn wrong_use_of_a_command_is_2_and_a_refusal_is_1() {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    let run = |arguments: &[&str]| deployment.tandem(arguments, b"").unwrap();

    assert_eq!(run(&["--help"]).code, 0);
    assert_refused(&run(&["conjure"]), 2, &["conjure"]);
    assert_refused(&run(&["serve"]), 2, &["--topology"]);
    assert_refused(&run(&["init", &deployment.dir().to_string_lossy()]), 1, &["is not empty"]);
    assert_refused(&run(&["pool", "status", "--dir", "/nowhere"]), 1, &["/nowhere", "--dir"]);
    assert_eq!(run(&["pool", "status"]).code, 2, "no server runs");
    assert_refused(&run(&["registration", "show", "sip:1003@example.com"]), 2, &["cannot be reached"]);
    assert_refused(&run(&["registration", "show", "nonsense"]), 2, &["nonsense"]);

    let topology = file(&deployment, "topology.toml").to_string_lossy().into_owned();
    assert_eq!(run(&["topology", "lint", &topology]).code, 0);
    assert_eq!(run(&["topology", "show", &topology]).code, 0);
    let next = deployment.scratch().join("next.toml").to_string_lossy().into_owned();
    let text = fs::read_to_string(&topology).unwrap();
    fs::write(&next, text.replace("version = 1", "version = 2").replace("hold_s = 120", "hold_s = 60"))
        .unwrap();
    let diff = run(&["topology", "diff", &topology, &next]);
    assert!(diff.code == 0 && diff.out.contains("hold_s"), "{diff:?}");
    assert_refused(&run(&["topology", "diff", &next, &topology]), 1, &["version-grows"]);
    assert_refused(&run(&["serve", "--topology", &topology, "--server", "east9"]), 1, &["east9"]);
}

#[test]
fn a_bad_topology_is_refused_with_every_finding() {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    deployment
        .edit_topology(|text| {
            text.replace("127.0.2.1:5061", "127.0.1.1:5061")
                .replace("associated_pool = \"east\"", "associated_pool = \"north\"")
        })
        .unwrap();
    let topology = file(&deployment, "topology.toml").to_string_lossy().into_owned();

    let lint = deployment.tandem(&["topology", "lint", &topology], b"").unwrap();
    assert_eq!(lint.code, 1);
    assert!(lint.out.contains("127.0.1.1:5061") && lint.out.contains("north"), "{}", lint.out);
    let served = deployment.serve_and_wait("east1").unwrap();
    assert_refused(&served, 1, &["127.0.1.1:5061", "north", "nothing was changed"]);

    deployment
        .edit_topology(|text| {
            let text =
                text.replace("associated_pool = \"north\"", "associated_pool = \"east\"\nsurprise = 1");
            text.replace(
                "tls = [\"127.0.1.1:5061\"]\nwss = [\"127.0.1.1:7443\"]\ninternal_sip = \"127.0.2.1",
                "tls = [\"127.0.2.1:5061\"]\nwss = [\"127.0.1.1:7443\"]\ninternal_sip = \"127.0.2.1",
            )
        })
        .unwrap();
    assert_refused(&deployment.serve_and_wait("east1").unwrap(), 1, &["surprise"]);
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    let taken = UdpSocket::bind(Deployment::sip("east1")).unwrap();
    assert_refused(&deployment.serve_and_wait("east1").unwrap(), 1, &["127.0.1.1:5060"]);
    drop(taken);

    deployment.start("east1").unwrap();
    assert_refused(&deployment.serve_and_wait("east1").unwrap(), 1, &["127.0.1.1"]);
    deployment.stop("east1").unwrap();

    let certificate = file(&deployment, "servers/east1/cert.pem");
    let kept = fs::read(&certificate).unwrap();
    fs::remove_file(&certificate).unwrap();
    assert_refused(&deployment.serve_and_wait("east1").unwrap(), 1, &["servers/east1/cert.pem"]);
    expire(&deployment, &certificate);
    assert_refused(&deployment.serve_and_wait("east1").unwrap(), 1, &["servers/east1/cert.pem", "expired"]);
    fs::write(&certificate, b"-----BEGIN CERTIFICATE-----\nnonsense\n").unwrap();
    assert_refused(&deployment.serve_and_wait("east1").unwrap(), 1, &["servers/east1/cert.pem"]);
    fs::write(&certificate, kept).unwrap();

    let nonce_key = file(&deployment, "servers/east1/nonce.key");
    let kept = fs::read(&nonce_key).unwrap();
    fs::write(&nonce_key, b"short").unwrap();
    assert_refused(&deployment.serve_and_wait("east1").unwrap(), 1, &["nonce.key"]);
    fs::write(&nonce_key, kept).unwrap();
    deployment.start("east1").unwrap();
}

/// Replaces a certificate by one of the same authority that ended yesterday, with the key that lies beside
/// it.
fn expire(deployment: &Deployment, certificate: &Path) {
    let path = |name: &str| file(deployment, name).to_string_lossy().into_owned();
    let request = deployment.scratch().join("r.csr").to_string_lossy().into_owned();
    let steps: [&[&str]; 2] = [
        &[
            "req",
            "-new",
            "-key",
            &path("servers/east1/key.pem"),
            "-out",
            &request,
            "-subj",
            "/CN=fe1.east.example.com",
        ],
        &[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &path("ca/cert.pem"),
            "-CAkey",
            &path("ca/key.pem"),
            "-CAcreateserial",
            "-days",
            "-1",
            "-out",
            &certificate.to_string_lossy(),
        ],
    ];
    for arguments in steps {
        let ran = Command::new("openssl").args(arguments).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
}

#[test]
fn a_corrupt_store_is_refused_and_left_as_it_is() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let phone = Phone::new(&deployment, "1003", Via::Udp, "east1", "127.0.0.1").unwrap();
    for _ in 0..20 {
        assert_eq!(phone.register(3_600).unwrap().status, 200);
    }
    for server in ["east1", "control1"] {
        deployment.stop(server).unwrap();
    }

    for (server, path) in
        [("east1", "servers/east1/data/users.sqlite"), ("control1", "servers/control1/data/control.redb")]
    {
        let store = file(&deployment, path);
        let kept = fs::read(&store).unwrap();
        let garbage = vec![0xa5; kept.len()];
        fs::write(&store, &garbage).unwrap();
        assert_refused(&deployment.serve_and_wait(server).unwrap(), 1, &[path.rsplit('/').next().unwrap()]);
        assert_eq!(fs::read(&store).unwrap(), garbage, "{path} was changed");
        fs::write(&store, kept).unwrap();
    }
    let bindings = file(&deployment, "servers/east1/data/bindings/log");
    let log = fs::read_dir(&bindings).unwrap().map(|entry| entry.unwrap().path());
    let log =
        log.filter(|path| path.extension().is_some_and(|extension| extension == "raftlog")).min().unwrap();
    let kept = fs::read(&log).unwrap();
    let mut damaged = kept.clone();
    let end = kept.iter().rposition(|octet| *octet != 0).unwrap();
    for octet in damaged.iter_mut().skip(end / 2).take(100) {
        *octet = 0xa5;
    }
    fs::write(&log, &damaged).unwrap();
    assert_refused(&deployment.serve_and_wait("east1").unwrap(), 1, &["bindings"]);
    fs::write(&log, kept).unwrap();

    for server in ["control1", "east1"] {
        deployment.start(server).unwrap();
    }
    assert_eq!(deployment.registrations("1003").unwrap().len(), 1, "nothing was lost");
}

/// A small file system in place of a server's data folder.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path, megabytes: u32) -> Self {
        let aside = folder.with_extension("aside");
        fs::rename(folder, &aside).unwrap();
        fs::create_dir(folder).unwrap();
        Self::run(
            "mount",
            &["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs", &folder.to_string_lossy()],
        );
        for entry in fs::read_dir(&aside).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
        Self(folder.to_owned())
    }

    fn grow(&self, megabytes: u32) {
        Self::run("mount", &["-o", &format!("remount,size={megabytes}m"), &self.0.to_string_lossy()]);
    }

    fn run(program: &str, arguments: &[&str]) {
        let ran = Command::new(program).args(arguments).output().unwrap();
        assert!(ran.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_registrations_and_loses_none() {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    let disk = SmallDisk::mount(&file(&deployment, "servers/east1/data"), 4);
    deployment.start("control1").unwrap();
    deployment.start("east1").unwrap();
    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    let ballast = file(&deployment, "servers/east1/data/ballast");
    let phone = Phone::new(&deployment, "1003", Via::Udp, "east1", "127.0.0.1").unwrap();
    assert_eq!(phone.register(3_600).unwrap().status, 200);

    let filled = fs::write(&ballast, vec![0; 8 * 1_048_576]);
    assert!(filled.is_err(), "the disk is full");
    let mut accepted = 1;
    let refused = loop {
        let answer = phone.register(3_600).unwrap();
        if answer.status != 200 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 100_000, "the disk never fills");
    };
    assert_eq!(refused.status, 503, "{:?}", refused.message);
    assert!(refused.retry_after().is_some());
    let status = deployment.tandem(&["pool", "status"], b"").unwrap();
    let health = status.out.lines().find(|line| line.starts_with("east1")).unwrap_or_default();
    println!("full disk: {accepted} x 200, then 503 with Retry-After; pool status: {health}");
    assert!(!health.trim_end().ends_with(" ok"), "{health}");
    let call = Phone::new(&deployment, "1004", Via::Udp, "east1", "127.0.0.1")
        .unwrap()
        .message("1003", "still there");
    assert_eq!(call.unwrap().status, 200, "calls and messages go on");

    deployment.kill("east1").unwrap();
    fs::remove_file(&ballast).unwrap();
    disk.grow(64);
    deployment.start("east1").unwrap();
    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    assert_eq!(deployment.registrations("1003").unwrap().len(), 1);
    assert_eq!(phone.register(3_600).unwrap().status, 200);
    for server in ["east1", "control1"] {
        deployment.kill(server).unwrap();
    }
}

#[test]
fn users_are_added_found_and_removed_while_servers_run() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let run = |arguments: &[&str], input: &str| deployment.tandem(arguments, input.as_bytes()).unwrap();
    let server = Deployment::sip("west1");
    let phone = Phone::with_password("carol", "correct horse", Via::Udp, server, "127.0.0.1", None).unwrap();
    assert_eq!(phone.register(300).unwrap().status, 401);

    let added = run(&["user", "add", "carol@example.com", "--home", "west"], "correct horse\n");
    assert_eq!(added.code, 0, "{added:?}");
    phone.forget_nonces();
    assert_eq!(phone.register(300).unwrap().status, 200);
    let found = run(&["user", "where", "carol@example.com", "--output", "json"], "").json().unwrap();
    assert_eq!(
        (found["home"].as_str(), found["served_by"].as_str()),
        (Some("west"), Some("west")),
        "{found}"
    );
    assert!(run(&["user", "list", "--home", "west"], "").out.contains("carol"));
    assert_refused(
        &run(&["user", "add", "x@example.com", "--home", "north"], "p\n"),
        2,
        &["north", "east, west"],
    );
    assert_refused(&run(&["user", "add", "x@example.com", "--home", "east"], "\n"), 2, &["empty"]);
    assert_refused(&run(&["user", "where", "nobody@example.com"], ""), 1, &["nobody"]);

    // East knows her too: a caller there finds her.
    let east = Phone::new(&deployment, "1003", Via::Udp, "east1", "127.0.0.1").unwrap();
    wait_until("a message from the other pool", LIMIT, || Ok(east.message("carol", "hello")?.status == 200))
        .unwrap();

    let removed = run(&["user", "remove", "carol@example.com"], "");
    assert_eq!(removed.code, 0, "{removed:?}");
    assert_eq!(run(&["registration", "show", "carol@example.com"], "").code, 1);
    phone.forget_nonces();
    assert_eq!(phone.register(300).unwrap().status, 401);

    let bad =
        run(&["user", "import", "-"], "sip:d@example.com,p,east\nsip:e@example.com,p\nnonsense,p,east\n");
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(bad.out.contains("line 2") && bad.out.contains("line 3"), "{bad:?}");
    assert_eq!(run(&["user", "where", "d@example.com"], "").code, 1, "nothing was imported");

    for server in e2e::SERVERS {
        let log = fs::read_to_string(file(&deployment, &format!("servers/{server}/log"))).unwrap();
        assert!(
            !log.contains("correct horse") && !log.contains(deployment.password("1003").unwrap()),
            "{server}"
        );
    }
}

#[test]
fn a_hundred_thousand_users_are_imported() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let mut text = String::new();
    for number in 0..100_000 {
        writeln!(text, "sip:u{number:07}@example.com,p{number},{}", ["east", "west"][number % 2]).unwrap();
    }
    let ran = deployment.tandem(&["user", "import", "-"], text.as_bytes()).unwrap();
    assert_eq!(ran.code, 0, "{ran:?}");
    println!("100,000 users imported in {:?}", ran.took);
    assert!(ran.took < LIMIT);
    let east = Deployment::sip("east1");
    for number in [0, 99_998] {
        let phone = Phone::with_password(
            &format!("u{number:07}"),
            &format!("p{number}"),
            Via::Udp,
            east,
            "127.0.0.1",
            None,
        )
        .unwrap();
        assert_eq!(phone.register(300).unwrap().status, 200);
    }
    let known = wait_until("the other pool to know them all", LIMIT, || {
        let status = deployment.tandem(&["pool", "status", "--output", "json"], b"")?.json()?;
        let all = status.as_array().into_iter().flatten();
        let mut known = all.filter_map(|asked| asked["status"]["users_known"].as_u64());
        Ok(known.by_ref().filter(|known| *known >= 100_030).count() >= 3)
    });
    println!("known at every pool {:?} later", known.unwrap());
}

#[test]
fn up_brings_everything_to_life_and_takes_it_down() {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    let mut up = Command::new(tandem_binary().unwrap())
        .arg("up")
        .arg(deployment.dir())
        .args(["--restart-after", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut east = None;
    for line in lines.by_ref() {
        if line.starts_with("east1 ") && line.contains("ready, process") {
            east = line.rsplit(' ').next().and_then(|pid| pid.parse::<i32>().ok());
        }
        if line.contains("Ctrl-C stops all") {
            break;
        }
    }
    let phone = Phone::new(&deployment, "1003", Via::Udp, "east1", "127.0.0.1").unwrap();
    wait_until("a registration", LIMIT, || Ok(phone.register(300)?.status == 200)).unwrap();
    let signal = |pid: i32, signal: &str| {
        let ran = Command::new("kill").arg(signal).arg(pid.to_string()).status().unwrap();
        assert!(ran.success());
    };
    signal(east.unwrap(), "-KILL");
    let again = lines.by_ref().find(|line| line.contains("ready again")).unwrap();
    assert!(again.starts_with("east1"), "{again}");
    wait_until("east serves again", LIMIT, || Ok(phone.register(300)?.status == 200)).unwrap();
    assert_eq!(deployment.registrations("1003").unwrap().len(), 1);

    signal(i32::try_from(up.id()).unwrap(), "-INT");
    let rest: Vec<String> = lines.collect();
    assert!(up.wait().unwrap().success(), "{rest:?}");
    // Every address is free again: nobody was left behind.
    for server in ["east1", "west1", "branch1a"] {
        drop(UdpSocket::bind(Deployment::sip(server)).unwrap());
    }
}
