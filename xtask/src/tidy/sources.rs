//! Rules on source text: size, headings, forbidden words.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::commands::root;

const FILE_LINES_MAX: usize = 600;
const LINE_CHARACTERS_MAX: usize = 110;

/// Crates of rings 0 and 1: no IO, no async, no clock, no threads.
const MACHINES: [&str; 8] = [
    "crates/model/src",
    "crates/topology/src",
    "crates/sip/src",
    "crates/transaction/src",
    "crates/registrar/src",
    "crates/proxy/src",
    "crates/bans/src",
    "crates/pairing/src",
];

/// What a machine may not say, and why.
const FORBIDDEN_IN_MACHINES: [(&str, &str); 10] = [
    ("async fn", "machines are synchronous"),
    (".await", "machines are synchronous"),
    ("tokio::", "machines do no IO"),
    ("std::thread", "machines have no threads"),
    ("std::fs", "machines do no IO"),
    ("UdpSocket", "machines do no IO"),
    ("TcpStream", "machines do no IO"),
    ("Instant::now", "machines are given now"),
    ("SystemTime", "machines are given now"),
    (
        "collections::HashMap",
        "its order differs from run to run: use BTreeMap, or hashbrown without iteration",
    ),
];

/// Files that may read a clock: the node's clock, the idle times of connections on the runtime's own clock,
/// and programs that measure or wait for other processes.
const CLOCK_READERS: [&str; 6] = [
    "crates/node/src/clock.rs",
    "crates/transport/src/connection.rs",
    "e2e/",
    "xtask/",
    "bench/",
    "/examples/",
];

/// Files that may sleep: programs that wait for other processes, and a file lock, which tells nobody when it
/// is free.
const SLEEPERS: [&str; 2] = ["e2e/", "crates/store/src/lock.rs"];

/// One Rust file of the repository.
pub struct SourceFile {
    /// Its path from the repository's root.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// Checks every tracked or new Rust file.
pub fn check() -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    for file in source_files()? {
        check_file(&file.path, &file.text, &mut breaches);
    }
    Ok(breaches)
}

/// Every tracked or new Rust file.
///
/// Errors: git cannot be asked, or a file cannot be read.
pub fn source_files() -> Result<Vec<SourceFile>> {
    let read = |path: String| {
        let text = fs::read_to_string(root().join(&path)).with_context(|| path.clone())?;
        Ok(SourceFile { path, text })
    };
    files()?.into_iter().map(read).collect()
}

fn check_file(file: &str, text: &str, breaches: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        breaches.push(format!("{file}: {lines} lines, at most {FILE_LINES_MAX}: split by concern"));
    }
    if !text.starts_with("//!") && !text.starts_with("#!") {
        breaches.push(format!("{file}: does not begin with a //! summary"));
    }
    let is_machine = MACHINES.iter().any(|folder| file.starts_with(folder));
    let reads_clock = CLOCK_READERS.iter().any(|allowed| file.contains(allowed));
    let mut in_tests = file.contains("/tests/") || file.contains("/tests.rs");
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        in_tests |= line.trim_start().starts_with("#[cfg(test)]");
        let mut breach = |what: &str| breaches.push(format!("{file}:{number}: {what}"));
        if line.chars().count() > LINE_CHARACTERS_MAX {
            breach("longer than 110 characters");
        }
        if file.starts_with("xtask/") {
            continue;
        }
        if line.contains("FIXME") || line.contains("XXX") {
            breach("FIXME is not used: mend it, or TODO with the condition that ends it");
        }
        if line.contains("TODO") && !line.contains("TODO(") {
            breach("TODO names in brackets the condition that ends it");
        }
        let code = line.split("//").next().unwrap_or_default();
        if is_machine && !in_tests {
            for (word, why) in FORBIDDEN_IN_MACHINES {
                if code.contains(word) {
                    breach(&format!("{word}: {why}"));
                }
            }
        }
        if !reads_clock && !in_tests && (code.contains("SystemTime::now") || code.contains("Instant::now")) {
            breach("only node::clock reads a clock");
        }
        if !SLEEPERS.iter().any(|allowed| file.starts_with(allowed)) && code.contains("thread::sleep") {
            breach("no sleeping: wait for the event");
        }
    }
}

fn files() -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(root())
        .output()
        .context("git cannot be started")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter(|file| Path::new(&root()).join(file).is_file()).map(str::to_owned).collect())
}
