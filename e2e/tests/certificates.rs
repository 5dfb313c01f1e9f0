//! Certificates are renewed while phones are connected, and a bad one changes nothing.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{Deployment, Operator, Phone, Ran, Timing, Via, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than a running server takes to find files that changed.
const TAKEN_UP_WITHIN: Duration = Duration::from_secs(45);

fn registered(deployment: &Deployment, user: &str, via: Via) -> Phone {
    let phone = Phone::new(deployment, user, via, "east1", "127.0.0.1").unwrap();
    assert_eq!(phone.register(300).unwrap().status, 200);
    phone
}

/// SHA-256 of what a listener presents in a new handshake, as openssl computes it. `identity`: a folder with
/// the certificate of who asks.
fn presented(deployment: &Deployment, address: SocketAddr, identity: Option<&str>) -> String {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect"]).arg(address.to_string());
    if let Some(identity) = identity {
        let folder = deployment.dir().join(identity);
        client.arg("-cert").arg(folder.join("cert.pem")).arg("-key").arg(folder.join("key.pem"));
    }
    let shown = client.stdin(Stdio::null()).output().unwrap();
    let file = deployment.scratch().join("presented.pem");
    fs::write(&file, shown.stdout).unwrap();
    openssl_fingerprint(&file)
}

fn openssl_fingerprint(file: &std::path::Path) -> String {
    let printed = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(printed.stdout).unwrap();
    let (_, hexadecimal) = text.trim().split_once('=').unwrap_or_else(|| panic!("{file:?}: {text}"));
    hexadecimal.replace(':', "").to_ascii_lowercase()
}

fn ask(deployment: &Deployment, command: &str) -> Ran {
    deployment.tandem(&["certificate", command, "--output", "json"], b"").unwrap()
}

/// The certificate of a server for a purpose, as `tandem certificate show` has it.
fn certificate(ran: &Ran, server: &str, part: &str) -> Value {
    let servers = ran.json().unwrap();
    let asked = servers.as_array().unwrap().iter().find(|asked| asked["server"] == server).unwrap().clone();
    let all = asked["certificates"].as_array().unwrap_or_else(|| panic!("{asked}")).clone();
    all.into_iter().find(|certificate| certificate["part"] == part).unwrap()
}

fn fingerprint(ran: &Ran, server: &str, part: &str) -> String {
    certificate(ran, server, part)["fingerprint"].as_str().unwrap().to_owned()
}

#[test]
fn renewed_certificates_are_taken_up_by_running_servers_and_no_connection_notices() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let (early, web) = (registered(&deployment, "1003", Via::Tls), registered(&deployment, "1004", Via::Wss));
    let far = Phone::new(&deployment, "2003", Via::Tls, "west1", "127.0.0.1").unwrap();
    assert_eq!(far.register(300).unwrap().status, 200);
    let shown = ask(&deployment, "show");
    assert_eq!(shown.code, 0, "{shown:?}");
    let before = fingerprint(&shown, "east1", "phones");
    let listeners = ["127.0.1.1:5061", "127.0.1.1:7443", "127.0.1.1:5071", "127.0.1.1:8443"];
    let all = || listeners.map(|at| presented(&deployment, at.parse().unwrap(), Some("operator")));
    assert_eq!(all(), [(); 4].map(|()| before.clone()));
    let told = certificate(&shown, "east1", "phones");
    assert!(told["subject"].as_str().unwrap().starts_with("CN="), "{told}");
    assert!(told["names"].as_array().unwrap().iter().any(|name| name == "example.com"), "{told}");
    assert_eq!(told["listeners"], serde_json::json!(["tls 127.0.1.1:5061", "wss 127.0.1.1:7443"]));
    assert!(told["expires_in_s"].as_i64().unwrap() > 700 * 86_400, "{told}");

    assert_eq!(deployment.tandem(&["certificate", "renew"], b"").unwrap().code, 0);
    wait_until("all servers to have new certificates", TAKEN_UP_WITHIN, || {
        let shown = ask(&deployment, "show");
        let is_new = |server| fingerprint(&shown, server, "servers") != before;
        Ok(shown.code == 0
            && ["control1", "east1", "west1", "branch1a"].into_iter().all(is_new)
            && fingerprint(&shown, "east1", "phones") != before)
    })
    .unwrap();

    let renewed = openssl_fingerprint(&deployment.dir().join("servers/east1/cert.pem"));
    assert_ne!(renewed, before);
    assert_eq!(all(), [(); 4].map(|()| renewed.clone()));
    // Over connections of before, within the server and between the pools.
    for (from, to) in [(&early, "1004"), (&web, "1003"), (&far, "1003"), (&early, "2003")] {
        assert_eq!(from.message(to, "still here").unwrap().status, 200, "{} to {to}", from.user());
    }
    // Over a connection made with the new one; and a server that starts meets those that run.
    let late = registered(&deployment, "1005", Via::Tls);
    assert_eq!(late.message("1003", "hello").unwrap().status, 200);
    deployment.kill("west1").unwrap();
    deployment.start("west1").unwrap();
    deployment.wait_serving("west1", "west", Some("full"), Duration::from_secs(30)).unwrap();
    let mut operator = Operator::new(&deployment, "east1", Duration::from_secs(10));
    let metrics = operator.ask("GET", "/metrics", None).unwrap().body;
    let wanted = "tandem_certificate_expiry_seconds{part=\"servers\",";
    assert!(metrics.contains(wanted), "{metrics}");
    assert!(ask(&deployment, "reload").out.contains("\"is_changed\": false"));
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_with_a_reason_and_the_former_stays() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    let phone = registered(&deployment, "1003", Via::Tls);
    let folder = deployment.dir().join("servers");
    let before = presented(&deployment, Deployment::sip_tls("east1"), None);
    let (kept_certificate, kept_key) =
        (fs::read(folder.join("east1/cert.pem")).unwrap(), fs::read(folder.join("east1/key.pem")).unwrap());

    fs::copy(folder.join("west1/key.pem"), folder.join("east1/key.pem")).unwrap();
    let refused = ask(&deployment, "reload");
    assert_eq!(refused.code, 1, "{refused:?}");
    let complaint: Vec<_> = refused.err.lines().collect();
    assert_eq!(complaint.len(), 1, "{complaint:?}");
    assert!(
        complaint[0].starts_with("east1: ") && complaint[0].contains("is not the key of"),
        "{complaint:?}"
    );
    // A good pair that is another server's.
    fs::copy(folder.join("west1/cert.pem"), folder.join("east1/cert.pem")).unwrap();
    let refused = ask(&deployment, "reload");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("not one that other servers take"), "{}", refused.err);
    assert_eq!(ask(&deployment, "show").code, 1, "the reason stays to be seen");
    assert_eq!(presented(&deployment, Deployment::sip_tls("east1"), None), before);
    assert_eq!(phone.register(300).unwrap().status, 200);

    fs::write(folder.join("east1/cert.pem"), kept_certificate).unwrap();
    fs::write(folder.join("east1/key.pem"), kept_key).unwrap();
    let back = ask(&deployment, "reload");
    assert_eq!((back.code, back.err.as_str()), (0, ""));
}

#[test]
fn phones_get_a_certificate_of_their_own_and_a_hook_renews_it_with_sighup() {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    let public = deployment.scratch().join("public");
    fs::create_dir_all(&public).unwrap();
    let issue = || {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args([
                "-subj",
                "/CN=sip.example.com",
                "-addext",
                "subjectAltName=DNS:example.com",
                "-days",
                "20",
            ])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(public.join("privkey.pem"))
            .arg("-out")
            .arg(public.join("fullchain.pem"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        openssl_fingerprint(&public.join("fullchain.pem"))
    };
    let first = issue();
    let keys = format!(
        "tls_certificate = \"{}\"\ntls_key = \"{}\"\n",
        public.join("fullchain.pem").display(),
        public.join("privkey.pem").display()
    );
    let listener = "internal_http = \"127.0.1.1:8443\"\n";
    deployment.edit_topology(|text| text.replacen(listener, &format!("{listener}{keys}"), 1)).unwrap();
    for server in ["control1", "east1", "west1", "branch1a"] {
        deployment.start(server).unwrap();
    }
    let tls = || presented(&deployment, Deployment::sip_tls("east1"), None);
    let wss = || presented(&deployment, Deployment::sip_wss("east1"), None);
    assert_eq!([tls(), wss()], [first.clone(), first.clone()]);
    let internal = || presented(&deployment, "127.0.1.1:8443".parse().unwrap(), Some("operator"));
    let own = openssl_fingerprint(&deployment.dir().join("servers/east1/cert.pem"));
    assert_eq!(internal(), own);

    let second = issue();
    assert_ne!(first, second);
    let process = i32::try_from(deployment.process_id("east1").unwrap()).unwrap();
    kill_process(Pid::from_raw(process).unwrap(), Signal::HUP).unwrap();
    wait_until("the new certificate", Duration::from_secs(5), || Ok(tls() == second)).unwrap();
    assert_eq!((wss(), internal()), (second, own));
}
