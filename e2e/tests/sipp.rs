//! SIPp registers and calls through the running deployment.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{fs, time::Duration};

use e2e::{Deployment, Sipp, Timing};

const LIMIT: Duration = Duration::from_secs(60);

/// Writes the file that gives a scenario its user and password.
fn user_file(deployment: &Deployment, user: &str) -> String {
    let file = deployment.scratch().join(format!("{user}.csv"));
    let password = deployment.password(user).unwrap();
    fs::write(&file, format!("SEQUENTIAL\n{user};[authentication username={user} password={password}]\n"))
        .unwrap();
    file.to_string_lossy().into_owned()
}

fn register(deployment: &Deployment, user: &str, server: &str, transport: &str, port: &str, count: &str) {
    let remote = Deployment::sip(server).to_string();
    let users = user_file(deployment, user);
    let source = if transport == "u1" && count == "1" { port } else { "0" };
    let mut arguments =
        vec![remote.as_str(), "-inf", &users, "-i", "127.0.0.1", "-t", transport, "-m", count];
    // SIPp would name the server's address there, which is not what it asks for: 400 by RFC 7616.
    arguments.extend(["-auth_uri", "example.com", "-r", "200", "-key", "contact_port", port]);
    if source != "0" {
        arguments.extend(["-p", source]);
    }
    let result = Sipp::start(deployment.scratch(), "register.xml", &arguments).unwrap().wait(LIMIT).unwrap();
    assert_eq!(result.code, 0, "{}", result.errors);
    println!("SIPp: {count} registrations of {user} at {server} ({transport}) in {:?}", result.took);
}

#[test]
fn sipp_registers_and_calls_over_udp_and_tcp_within_and_between_pools() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    register(&deployment, "1001", "east1", "u1", "5090", "300");
    register(&deployment, "1001", "east1", "t1", "5090", "300");

    for (caller, caller_server, transport, called, called_server, port) in [
        ("1001", "east1", "u1", "1002", "east1", "5070"),
        ("1001", "east1", "t1", "1002", "east1", "5070"),
        ("1001", "east1", "u1", "2001", "west1", "5072"),
        ("2002", "west1", "t1", "1002", "east1", "5070"),
    ] {
        register(&deployment, called, called_server, "u1", port, "1");
        let calls = Calls { caller, caller_server, transport, called, called_server, port };
        let took = calls.make(&deployment, ["call.xml", "answer.xml"], "100");
        println!("SIPp: 100 calls of {caller} at {caller_server} ({transport}) to {called} in {took:?}");
    }
}

#[test]
fn what_phones_add_to_a_call_passes_as_they_sent_it() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    for (caller, caller_server, transport, called, called_server, port) in
        [("1001", "east1", "u1", "1002", "east1", "5080"), ("1001", "east1", "t1", "2001", "west1", "5082")]
    {
        register(&deployment, called, called_server, "u1", port, "1");
        let calls = Calls { caller, caller_server, transport, called, called_server, port };
        let took = calls.make(&deployment, ["features-call.xml", "features-answer.xml"], "20");
        println!(
            "SIPp: 20 calls of {caller} at {caller_server} ({transport}) to {called} with PRACK, UPDATE, \
             INFO, hold, REFER, NOTIFY, session timers and a method nobody knows in {took:?}"
        );
    }
}

/// Who calls whom with SIPp; `port` is that of the called.
struct Calls<'a> {
    caller: &'a str,
    caller_server: &'a str,
    transport: &'a str,
    called: &'a str,
    called_server: &'a str,
    port: &'a str,
}

impl Calls<'_> {
    /// Makes so many calls with the first scenario, answered with the second. All succeed.
    fn make(&self, deployment: &Deployment, [call, answer]: [&str; 2], count: &str) -> Duration {
        let remote = Deployment::sip(self.called_server).to_string();
        let arguments = [remote.as_str(), "-i", "127.0.0.1", "-p", self.port, "-t", "u1", "-m", count];
        let answering = Sipp::start(deployment.scratch(), answer, &arguments).unwrap();
        let remote = Deployment::sip(self.caller_server).to_string();
        let users = user_file(deployment, self.caller);
        let mut arguments = vec![remote.as_str(), "-inf", &users, "-i", "127.0.0.1", "-t", self.transport];
        let uri = format!("{}@example.com", self.called);
        arguments.extend(["-auth_uri", &uri, "-m", count, "-r", "50", "-key", "called", self.called]);
        let calls = Sipp::start(deployment.scratch(), call, &arguments).unwrap().wait(LIMIT).unwrap();
        let answers = answering.wait(LIMIT).unwrap();
        assert_eq!((calls.code, answers.code), (0, 0), "{}\n{}", calls.errors, answers.errors);
        calls.took
    }
}
