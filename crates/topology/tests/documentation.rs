//! The operator's page on the topology says what the code does.

use std::{fs, path::Path};

use topology::{BackEnd, CallRecords, DigestAlgorithm, Edition, NumberSetting, Role, Rule, Topology, lint};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations/topology.md");
    fs::read_to_string(path).expect("docs/operations/topology.md")
}

fn example(page: &str) -> &str {
    let (_, rest) = page.split_once("```toml\n").expect("an example");
    rest.split_once("```").expect("the end of the example").0
}

#[test]
fn the_example_of_the_page_has_no_findings() {
    assert_eq!(lint(example(&page())), []);
}

#[test]
fn every_rule_is_on_the_page_with_its_severity_and_what_it_demands() {
    let page = page();
    for rule in Rule::ALL {
        let row = format!("| `{}` | {} | {} |", rule.name(), rule.severity(), rule.summary());
        assert!(page.contains(&row), "{row}");
    }
    let (_, rows) =
        page.split_once("| Rule | Severity | Demands |\n|---|---|---|\n").expect("the table of rules");
    assert_eq!(rows.lines().count(), Rule::ALL.len());
}

#[test]
fn every_number_is_on_the_page_with_its_default_and_range() {
    let page = page();
    for setting in NumberSetting::ALL {
        let start = format!("| `{}` |", setting.key);
        let row =
            page.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no row {start}"));
        let values = format!("| {} | {} to {}", setting.default_value(), setting.min, setting.max);
        assert!(row.contains(&values), "{row} lacks {values}");
    }
}

#[test]
fn every_key_is_on_the_page() {
    let page = page();
    let (topology, _) = Topology::read(example(&page)).expect("the example");
    let keys = topology.to_toml();
    let keys = keys.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key);
    let rarer = [
        "software",
        "tie_breaker",
        "backup_registrar",
        "next_hop",
        "shards",
        "back_end",
        "edition",
        "tls_certificate",
        "tls_key",
    ];
    for key in keys.chain(rarer) {
        assert!(page.contains(&format!("\n| `{key}` |")), "no row for {key}");
    }
}

#[test]
fn every_word_is_on_the_page() {
    let page = page();
    let roles = Role::ALL.map(|role| format!("| `{role}` |"));
    let editions = Edition::ALL.map(|edition| format!("`\"{edition}\"`"));
    let back_ends = BackEnd::ALL.map(|back_end| format!("`\"{back_end}\"`"));
    let algorithms = DigestAlgorithm::ALL.map(|algorithm| format!("`\"{algorithm}\"`"));
    let records = CallRecords::ALL.map(|records| format!("`\"{records}\"`"));
    for word in roles.iter().chain(&editions).chain(&back_ends).chain(&algorithms).chain(&records) {
        assert!(page.contains(word), "{word}");
    }
}
