//! The corpus of topologies: what each document of `corpus/good` and `corpus/bad` makes the linter say.
//!
//! The head of a document lists the rules it breaks (`# breaks: a, b`) or that warn of it (`# warns: a, b`);
//! what exactly is said is in `snapshots`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use topology::{Finding, Rule, Severity, Topology, diff, lint};

fn corpus(folder: &str) -> BTreeMap<String, String> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let paths = fs::read_dir(folder).expect("the folder of the corpus");
    let paths = paths.map(|entry| entry.expect("an entry of the corpus").path());
    let named = |path: PathBuf| {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        (name, fs::read_to_string(path).expect("a document of the corpus"))
    };
    paths.map(named).collect()
}

/// The rules listed in the head of a document after `word`.
fn listed(text: &str, word: &str) -> BTreeSet<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("# {word}: ")));
    line.into_iter().flat_map(|rules| rules.split(", ")).map(str::to_owned).collect()
}

fn rules(findings: &[Finding]) -> BTreeSet<String> {
    findings.iter().map(|finding| finding.rule.to_owned()).collect()
}

fn story(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}

#[test]
fn a_good_document_is_accepted_with_the_warnings_in_its_head() {
    let corpus = corpus("good");
    assert!(corpus.len() >= 20, "{}", corpus.len());
    for (name, text) in corpus {
        let (_, warnings) =
            Topology::read(&text).unwrap_or_else(|found| panic!("{name}:\n{}", story(&found)));

        assert_eq!(rules(&warnings), listed(&text, "warns"), "{name}:\n{}", story(&warnings));
        assert_eq!(warnings, lint(&text), "{name}");
        insta::assert_snapshot!(format!("good-{name}"), story(&warnings), &name);
    }
}

#[test]
fn a_bad_document_is_refused_for_the_rules_in_its_head_and_no_other() {
    let corpus = corpus("bad");
    assert!(corpus.len() >= 40, "{}", corpus.len());
    for (name, text) in corpus {
        let findings = Topology::read(&text).map(|_| ()).expect_err(&name);

        assert_eq!(rules(&findings), listed(&text, "breaks"), "{name}:\n{}", story(&findings));
        assert!(findings.iter().any(|finding| finding.severity == Severity::Error), "{name}");
        assert_eq!(findings, lint(&text), "{name}");
        insta::assert_snapshot!(format!("bad-{name}"), story(&findings), &name);
    }
}

#[test]
fn every_rule_about_one_document_is_shown_by_the_corpus() {
    let shown: BTreeSet<String> = corpus("good")
        .values()
        .map(|text| listed(text, "warns"))
        .chain(corpus("bad").values().map(|text| listed(text, "breaks")))
        .flatten()
        .collect();
    let shown_elsewhere = [
        Rule::DocumentSize,
        Rule::VersionGrows,
        Rule::DeploymentSame,
        Rule::PoolRemoved,
        Rule::DomainRemoved,
    ];
    for rule in Rule::ALL.iter().filter(|rule| !shown_elsewhere.contains(rule)) {
        assert!(shown.contains(rule.name()), "no document for {rule}");
    }
    for name in shown {
        assert!(Rule::ALL.iter().any(|rule| rule.name() == name), "no rule {name}");
    }
}

#[test]
fn an_error_always_says_where_it_is_and_what_to_do() {
    for (name, text) in corpus("bad").into_iter().chain(corpus("good")) {
        for finding in lint(&text) {
            assert!(finding.at.is_some(), "{name}: {finding}");
            assert!(!finding.remedy.is_empty() && !finding.subject.is_empty(), "{name}: {finding}");
        }
    }
}

#[test]
fn a_printed_topology_reads_back_as_itself() {
    for (name, text) in corpus("good") {
        let (topology, _) = Topology::read(&text).unwrap();

        let printed = topology.to_toml();
        let (again, _) =
            Topology::read(&printed).unwrap_or_else(|found| panic!("{name}:\n{}", story(&found)));

        assert_eq!(again, topology, "{name}:\n{printed}");
        assert_eq!(again.to_toml(), printed, "{name}");
        assert_eq!(diff(&topology, &again), [], "{name}");
    }
}
