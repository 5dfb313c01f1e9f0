//! Documents of the corpus, damaged at random: the linter judges every one, and what it accepts is sound.

use std::{cell::Cell, fs, path::Path};

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use topology::{Finding, Topology, diff, lint, removal_findings, replacement_findings};

/// One damage to the lines of a document.
#[derive(Clone, Debug)]
enum Damage {
    RemoveLine(Index),
    DoubleLine(Index),
    SwapLines(Index, Index),
    /// The value of a line becomes the value of another.
    SwapValues(Index, Index),
    /// The value of a line becomes something else.
    ReplaceValue(Index, &'static str),
    RemoveCharacter(Index),
    InsertCharacter(Index, char),
}

fn damage() -> impl Strategy<Value = Damage> {
    let values = [
        "\"\"",
        "\"east\"",
        "\"annex\"",
        "0",
        "-1",
        "9223372036854775807",
        "1e400",
        "nan",
        "true",
        "[]",
        "[[]]",
        "{}",
        "[\"east\"]",
        "[\"east\", \"west\"]",
        "\"front_end\"",
        "\"branch\"",
        "\"control\"",
        "\"central\"",
        "\"192.0.2.11:5060\"",
        "[\"[::1]:5060\"]",
        "1979-05-27",
        "\"\u{fffd}\\u0000\"",
        "\"MD5\"",
        "{ name = \"x\" }",
    ];
    prop_oneof![
        any::<Index>().prop_map(Damage::RemoveLine),
        any::<Index>().prop_map(Damage::DoubleLine),
        any::<(Index, Index)>().prop_map(|(one, other)| Damage::SwapLines(one, other)),
        any::<(Index, Index)>().prop_map(|(one, other)| Damage::SwapValues(one, other)),
        (any::<Index>(), prop::sample::select(values.to_vec()))
            .prop_map(|(at, v)| Damage::ReplaceValue(at, v)),
        any::<Index>().prop_map(Damage::RemoveCharacter),
        (any::<Index>(), any::<char>()).prop_map(|(at, c)| Damage::InsertCharacter(at, c)),
    ]
}

fn apply(text: &str, damage: &Damage) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        return String::new();
    }
    match damage {
        Damage::RemoveLine(at) => drop(lines.remove(at.index(lines.len()))),
        Damage::DoubleLine(at) => {
            let at = at.index(lines.len());
            lines.insert(at, lines.get(at).cloned().unwrap_or_default());
        }
        Damage::SwapLines(one, other) => {
            let (one, other) = (one.index(lines.len()), other.index(lines.len()));
            lines.swap(one, other);
        }
        Damage::SwapValues(one, other) => {
            let value =
                at(&lines, other).split_once(" = ").map_or(String::new(), |(_, value)| value.to_owned());
            replace_value(&mut lines, one, &value);
        }
        Damage::ReplaceValue(one, value) => replace_value(&mut lines, one, value),
        Damage::RemoveCharacter(at) => {
            let at = at.index(text.chars().count());
            return text.chars().enumerate().filter(|(place, _)| *place != at).map(|(_, c)| c).collect();
        }
        Damage::InsertCharacter(at, character) => {
            let at = at.index(text.chars().count());
            let insert = |(place, c)| [(place == at).then_some(*character), Some(c)].into_iter().flatten();
            return text.chars().enumerate().flat_map(insert).collect();
        }
    }
    lines.join("\n")
}

fn at<'l>(lines: &'l [String], at: &Index) -> &'l str {
    lines.get(at.index(lines.len())).map_or("", String::as_str)
}

fn replace_value(lines: &mut [String], at: &Index, value: &str) {
    let at = at.index(lines.len());
    if let Some(line) = lines.get_mut(at)
        && let Some((key, _)) = line.split_once(" = ")
    {
        *line = format!("{key} = {value}");
    }
}

fn corpus(folders: &[&str]) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths = Vec::new();
    for name in folders {
        let entries = fs::read_dir(folder.join(name)).expect("the folder of the corpus");
        paths.extend(entries.map(|entry| entry.expect("an entry of the corpus").path()));
    }
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).expect("a document of the corpus")).collect()
}

/// What must hold of any text; whether it is accepted.
fn judge(text: &str) -> bool {
    let findings = lint(text);
    assert!(findings.is_sorted(), "{text}");
    match Topology::read(text) {
        Ok((topology, warnings)) => {
            assert_eq!(warnings, findings, "{text}");
            assert!(!warnings.iter().any(Finding::is_error), "{text}");
            check_soundness(&topology, text);
            true
        }
        Err(errors) => {
            assert_eq!(errors, findings, "the linter finds all that stops a document:\n{text}");
            assert!(errors.iter().any(Finding::is_error), "{text}");
            false
        }
    }
}

/// Every reference of an accepted topology resolves, and it survives being printed.
fn check_soundness(topology: &Topology, text: &str) {
    for pool in &topology.pools {
        assert!(topology.site(&pool.site).is_some(), "{text}");
        assert_eq!(topology.servers_of(&pool.name).count(), pool.servers.len(), "{text}");
        assert!(!pool.servers.is_empty(), "{text}");
        for other in pool.associated_pool.iter().chain(&pool.next_hop) {
            assert!(topology.pool(other).is_some(), "{text}");
        }
        if let Some(partner) = topology.partner_of(&pool.name) {
            assert_eq!(topology.partner_of(&partner.name), Some(pool), "{text}");
        }
    }
    for server in &topology.servers {
        let pool = topology.pool_of(&server.name).expect("the pool of a server");
        assert!(pool.servers.contains(&server.name), "{text}");
        assert_eq!(server.listen.internal_sip.is_some(), pool.role.speaks_sip(), "{text}");
    }
    let printed = topology.to_toml();
    let (again, _) = Topology::read(&printed).expect("a printed topology");
    assert_eq!(&again, topology, "{text}");
    assert_eq!(diff(topology, &again), [], "{text}");
    assert_eq!(removal_findings(topology, &again, |_| 1), [], "{text}");
    assert_eq!(
        replacement_findings(topology, &again, |_| 1).len(),
        1,
        "only the version is the same:\n{text}"
    );
}

/// Judges `cases` documents of `corpus` with fewer than `damages_max` damages each; how many were accepted.
fn judge_damaged(corpus: &[String], damages_max: usize, cases: u32) -> u32 {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let chance = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let accepted = Cell::new(0);
    TestRunner::new_with_rng(config, chance)
        .run(&(any::<Index>(), vec(damage(), 1..damages_max)), |(at, damages)| {
            let document = corpus.get(at.index(corpus.len())).cloned().unwrap_or_default();
            let text = damages.iter().fold(document, |text, damage| apply(&text, damage));
            accepted.set(accepted.get() + u32::from(judge(&text)));
            Ok(())
        })
        .expect("every damaged document is judged");
    accepted.get()
}

#[test]
fn a_damaged_document_is_judged_and_what_is_accepted_is_sound() {
    let accepted = judge_damaged(&corpus(&["good"]), 2, 3_000);
    judge_damaged(&corpus(&["good", "bad"]), 5, 4_000);

    assert!(accepted > 300, "only {accepted} damaged documents were still good: the test says little");
}

#[test]
fn any_text_is_judged() {
    let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
    let chance = TestRng::from_seed(RngAlgorithm::ChaCha, &[11; 32]);
    TestRunner::new_with_rng(config, chance)
        .run(&any::<String>(), |text| {
            judge(&text);
            Ok(())
        })
        .expect("every text is judged");
}
