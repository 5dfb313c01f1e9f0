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

    let cases = [
        ("1001", "east1", "u1", "1002", "east1", "5070"),
        ("1001", "east1", "t1", "1002", "east1", "5070"),
        ("1001", "east1", "u1", "2001", "west1", "5072"),
        ("2002", "west1", "t1", "1002", "east1", "5070"),
    ];
    for (caller, caller_server, transport, called, called_server, port) in cases {
        register(&deployment, called, called_server, "u1", port, "1");
        let remote = Deployment::sip(called_server).to_string();
        let arguments = [remote.as_str(), "-i", "127.0.0.1", "-p", port, "-t", "u1", "-m", "100"];
        let answering = Sipp::start(deployment.scratch(), "answer.xml", &arguments).unwrap();
        let remote = Deployment::sip(caller_server).to_string();
        let users = user_file(&deployment, caller);
        let mut arguments = vec![remote.as_str(), "-inf", &users, "-i", "127.0.0.1", "-t", transport];
        let uri = format!("{called}@example.com");
        arguments.extend(["-auth_uri", &uri, "-m", "100", "-r", "50", "-key", "called", called]);
        let calling = Sipp::start(deployment.scratch(), "call.xml", &arguments).unwrap();
        let calls = calling.wait(LIMIT).unwrap();
        assert_eq!(calls.code, 0, "{caller} {transport} to {called}: {}", calls.errors);
        let answers = answering.wait(LIMIT).unwrap();
        assert_eq!(answers.code, 0, "{}", answers.errors);
        println!(
            "SIPp: 100 calls of {caller} at {caller_server} ({transport}) to {called} in {:?}",
            calls.took
        );
    }
}
