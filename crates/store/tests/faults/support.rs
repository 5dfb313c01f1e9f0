//! Children of a test: the same binary run again with the name of the test and a place to work in.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PLACE: &str = "TANDEM_STORE_TEST_PLACE";
const START: &str = "TANDEM_STORE_TEST_START";

/// Where this process has to work and the number to begin with, when it is the child of a test.
pub fn child() -> Option<(PathBuf, u64)> {
    let place = env::var_os(PLACE)?;
    let start = env::var(START).unwrap().parse().unwrap();
    Some((place.into(), start))
}

/// The command that runs `test` alone as a child, its output piped.
pub fn command(test: &str, place: &Path, start: u64) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    with_environment(&mut command, place, start).args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command
}

/// As [`command`], in a mount namespace of its own where `place` is a file system in memory of so many MiB.
pub fn command_on_small_disk(test: &str, place: &Path, mebibytes: u32) -> Command {
    // Where root may not mount, a user namespace in which it may is asked for.
    const SCRIPT: &str = r#"
        run='mount -t tmpfs -o size=${1}m tmpfs "$2" && exec "$3" "$4" --exact --nocapture --test-threads=1'
        if unshare --mount true 2>/dev/null; then flags=--mount; else flags="--map-root-user --mount"; fi
        exec unshare $flags sh -c "$run" sh "$@"
    "#;
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh", &mebibytes.to_string()]).arg(place);
    command.arg(env::current_exe().unwrap()).arg(test);
    with_environment(&mut command, place, 0);
    command
}

fn with_environment<'a>(command: &'a mut Command, place: &Path, start: u64) -> &'a mut Command {
    command.env(PLACE, place).env(START, start.to_string()).stdin(Stdio::null()).stdout(Stdio::piped())
}
