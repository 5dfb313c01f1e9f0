//! Whether the tests that the registry names are there, and run.

use std::collections::BTreeMap;

use super::registry::Registry;
use crate::tidy::SourceFile;

/// Whether `cargo test` runs a test without being asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runs {
    Always,
    OnRequest,
}

/// Breaches: a name that is not `file::function`, a file that is not there, a function that is no test of it,
/// a test that is ignored.
pub fn check(registry: &Registry, sources: &[SourceFile]) -> Vec<String> {
    let mut found: BTreeMap<&str, BTreeMap<&str, Runs>> = BTreeMap::new();
    let mut breaches = Vec::new();
    for entry in &registry.entries {
        for test in entry.status.tests() {
            let mut breach = |what: &str| breaches.push(format!("{}: the test {test} {what}", entry.number));
            let Some((path, function)) = test.split_once("::") else {
                breach("is not named as file::function");
                continue;
            };
            let Some(source) = sources.iter().find(|source| source.path == path) else {
                breach("is in a file that is not there");
                continue;
            };
            match found.entry(path).or_insert_with(|| tests_of(&source.text)).get(function) {
                Some(Runs::Always) => {}
                Some(Runs::OnRequest) => breach("is ignored, so it proves nothing"),
                None => breach("does not exist"),
            }
        }
    }
    breaches
}

/// The tests of a source file: functions with a test attribute, those within `proptest!` included.
fn tests_of(source: &str) -> BTreeMap<&str, Runs> {
    let mut tests = BTreeMap::new();
    let mut coming = None;
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("//") {
            continue;
        }
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            coming = coming.or(Some(Runs::Always));
        } else if line.starts_with("#[ignore") {
            coming = Some(Runs::OnRequest);
        } else if let Some(name) = function_of(line)
            && let Some(runs) = coming.take()
        {
            tests.insert(name, runs);
        }
    }
    tests
}

/// The name of the function whose definition begins in this line.
fn function_of(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub ").unwrap_or(line);
    let rest = rest.strip_prefix("async ").unwrap_or(rest).strip_prefix("fn ")?;
    rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const SOURCE: &str = "fn helper() {}\n\
        #[test]\nfn plain() {}\n\
        #[tokio::test]\nasync fn with_a_runtime() {}\n\
        #[test]\n#[expect(\n    clippy::x,\n    reason = \"y\"\n)]\nfn with_attributes() {}\n\
        #[test]\n#[ignore = \"slow\"]\nfn left_out() {}\n\
        #[ignore]\n#[test]\nfn left_out_too() {}\n\
        // #[test]\nfn commented_out() {}\n\
        proptest! {\n    #[test]\n    fn drawn(x in 0..3) {}\n}\n";

    #[test]
    fn tests_are_functions_with_the_attribute() {
        let tests = tests_of(SOURCE);

        let of = |runs| -> Vec<&str> {
            tests.iter().filter(|(_, found)| **found == runs).map(|(name, _)| *name).collect()
        };
        assert_eq!(of(Runs::Always), ["drawn", "plain", "with_a_runtime", "with_attributes"]);
        assert_eq!(of(Runs::OnRequest), ["left_out", "left_out_too"]);
    }

    #[test]
    fn a_name_that_is_no_running_test_is_a_breach() {
        let sources = [SourceFile { path: "a/b.rs".to_owned(), text: SOURCE.to_owned() }];
        let breach = |test: &str| {
            let text = format!(
                "[[rfc]]\nnumber = 1\ntitle = \"t\"\nstatus = \"implemented\"\nthere = \"x\"\n\
                 tests = [\"{test}\"]"
            );
            let breaches = check(&Registry::parse(&text).unwrap().0, &sources);
            assert!(breaches.len() < 2, "{breaches:?}");
            breaches.into_iter().next().unwrap_or_default()
        };

        assert_eq!(breach("a/b.rs::plain"), "");
        assert_eq!(breach("a/b.rs::drawn"), "");
        assert!(breach("a/b.rs::plane").ends_with("does not exist"));
        assert!(breach("a/b.rs::helper").ends_with("does not exist"));
        assert!(breach("a/b.rs::commented_out").ends_with("does not exist"));
        assert!(breach("a/c.rs::plain").ends_with("a file that is not there"));
        assert!(breach("plain").ends_with("is not named as file::function"));
        assert!(breach("a/b.rs::left_out").ends_with("proves nothing"));
    }
}
