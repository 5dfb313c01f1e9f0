//! What changes between two topologies, and what speaks against it.

use model::PoolName;
use topology::{Change, Finding, Topology, diff, removal_findings, replacement_findings};

const DOCUMENT: &str = include_str!("corpus/good/every_role.toml");

const NEW_SITE: &str = r#"
[[site]]
name = "west"

[[pool]]
name = "west"
fqdn = "west.example.com"
role = "front_end"
site = "west"
users_capacity = 5
[pool.settings]
takeover_after_s = 20

[[server]]
name = "west-fe1"
fqdn = "west-fe1.example.com"
pool = "west"
udp = ["192.0.2.21:5060"]
internal_sip = "192.0.2.21:5071"
internal_http = "192.0.2.21:8443"

[[pair]]
pools = ["west", "east"]
"#;

const SPARE_POOL: &str = r#"
[[pool]]
name = "spare"
fqdn = "spare.example.com"
role = "front_end"
site = "east"

[[server]]
name = "spare1"
fqdn = "spare1.example.com"
pool = "spare"
udp = ["192.0.2.22:5060"]
internal_sip = "192.0.2.22:5071"
internal_http = "192.0.2.22:8443"
"#;

fn read(text: &str) -> Topology {
    Topology::read(text)
        .map_err(|findings| findings.iter().map(Finding::to_string).collect::<String>())
        .expect("good")
        .0
}

/// The document without these tables, each, as in `pool east`.
fn without(text: &str, tables: &[&str]) -> String {
    let heading = |table: &str| {
        let (kind, name) = table.split_once(' ').expect("a kind and a name");
        format!("[[{kind}]]\nname = \"{name}\"\n")
    };
    let headings: Vec<String> = tables.iter().map(|table| heading(table)).collect();
    let is_kept = |table: &&str| !headings.iter().any(|heading| table.starts_with(heading));
    text.split_inclusive("\n\n").filter(is_kept).collect()
}

fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(Change::to_string).collect()
}

fn nobody(_: &PoolName) -> u64 {
    0
}

#[test]
fn a_diff_names_what_was_added_removed_and_changed() {
    let old = read(DOCUMENT);
    let text = without(DOCUMENT, &["pool gateway", "server gateway1"])
        .replace("version = 1", "version = 2")
        .replace("192.0.2.11:5060\"]\ntls", "192.0.2.11:5060\", \"[2001:db8::11]:5060\"]\ntls")
        + NEW_SITE;
    let new = read(&text);

    let changes = lines(&diff(&old, &new));

    assert_eq!(
        changes,
        [
            "~ topology: version: 1 -> 2",
            "+ site west",
            "- pool gateway",
            "+ pool west",
            "~ server east-fe1: tcp: [\"192.0.2.11:5060\"] -> [\"192.0.2.11:5060\", \"[2001:db8::11]:5060\"]",
            "- server gateway1",
            "+ server west-fe1",
            "+ pair east + west",
        ]
    );
}

#[test]
fn writing_down_a_default_or_moving_a_table_changes_nothing() {
    let old = read(DOCUMENT);
    let mut tables: Vec<&str> = DOCUMENT.split("\n\n").collect();
    if let Some(tables) = tables.get_mut(1..) {
        tables.reverse();
    }
    let text = tables.join("\n\n").replace(
        "role = \"front_end\"\n",
        "role = \"front_end\"\nedition = \"enterprise\"\nusers_expected = 0\nsettings = { hold_s = 120 }\n",
    );

    assert_eq!(diff(&old, &read(&text)), []);
}

#[test]
fn a_changed_setting_is_named_with_both_values() {
    let old = read(include_str!("corpus/good/one_pool.toml"));
    let new = read(include_str!("corpus/good/every_setting.toml"));

    let changes = lines(&diff(&old, &new));

    assert_eq!(changes.len(), 30, "{changes:#?}");
    assert_eq!(changes.first().unwrap(), "~ pool east: settings.expires_min_s: 60 -> 30");
    assert_eq!(
        changes.get(20).unwrap(),
        "~ pool east: settings.digest_algorithms: [\"SHA-256\", \"MD5\"] -> [\"MD5\"]"
    );
}

#[test]
fn a_key_that_appears_or_goes_is_shown_as_a_dash() {
    let old = read(include_str!("corpus/good/one_pool.toml"));
    let new = read(
        &include_str!("corpus/good/one_pool.toml")
            .replace("site = \"east\"", "site = \"east\"\nsoftware = \"2\""),
    );

    assert_eq!(lines(&diff(&old, &new)), ["~ pool east: software: - -> \"2\""]);
    assert_eq!(lines(&diff(&new, &old)), ["~ pool east: software: \"2\" -> -"]);
}

#[test]
fn changes_have_a_form_for_programs() {
    let old = read(DOCUMENT);
    let new = read(&DOCUMENT.replace("version = 1", "version = 2"));

    let json = serde_json::to_value(diff(&old, &new)).unwrap();

    assert_eq!(
        json,
        serde_json::json!([
            {"subject": "topology", "what": "changed", "key": "version", "from": "1", "to": "2"},
        ])
    );
}

#[test]
fn a_pool_is_not_removed_while_it_homes_users_backs_a_branch_or_is_a_next_hop() {
    let two = DOCUMENT.to_owned() + SPARE_POOL;
    let old = read(&two);
    let moved = two
        .replace("associated_pool = \"east\"", "associated_pool = \"spare\"")
        .replace("next_hop = \"east\"", "next_hop = \"spare\"");
    let kept = read(&moved);
    let removed =
        read(&without(&moved, &["server east-fe1", "pool east"]).replace("version = 1", "version = 2"));
    assert!(removed.pool(&PoolName::new("east").unwrap()).is_none());

    let findings = removal_findings(&old, &removed, |pool| if pool.as_str() == "east" { 7 } else { 0 });
    let after_moving = removal_findings(&kept, &removed, nobody);

    let said: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert_eq!(
        said,
        ["error pool-removed: pool east: it is removed, but it homes 7 users, it backs annex, it is the \
          next hop of med, it is the next hop of gateway; move its users away and point what refers to it \
          elsewhere, in a version before this one"]
    );
    assert_eq!(after_moving, []);
}

#[test]
fn what_leaves_together_with_a_pool_does_not_hold_it() {
    let old = read(DOCUMENT);
    let gone = without(DOCUMENT, &["pool dir", "server dir1", "pool edge", "server edge1"]);

    assert_eq!(removal_findings(&old, &read(&gone), nobody), []);
}

#[test]
fn a_pool_that_changes_its_role_is_removed_as_what_it_was() {
    let old = read(DOCUMENT);
    let new = read(&DOCUMENT.replace(
        "role = \"branch\"\nsite = \"annex\"\nassociated_pool = \"east\"",
        "role = \"mediation\"\nsite = \"annex\"\nnext_hop = \"east\"",
    ));

    let findings = removal_findings(&old, &new, |pool| u64::from(pool.as_str() == "annex"));

    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings.first().unwrap().message.starts_with("it changes its role, but it homes 1 user"));
}

#[test]
fn a_new_document_has_a_higher_version_and_is_of_the_same_deployment() {
    let old = read(&DOCUMENT.replace("version = 1", "version = 5"));
    let refused = |text: &str| {
        let findings = replacement_findings(&old, &read(text), nobody);
        findings.iter().map(|finding| finding.rule).collect::<Vec<_>>()
    };

    assert_eq!(refused(&DOCUMENT.replace("version = 1", "version = 6")), [""; 0]);
    assert_eq!(refused(&DOCUMENT.replace("version = 1", "version = 5")), ["version-grows"]);
    assert_eq!(refused(&DOCUMENT.replace("\"example\"", "\"other\"")), ["version-grows", "deployment-same"]);
    let other_domain =
        DOCUMENT.replace("[\"example.com\"]", "[\"example.org\"]").replace("version = 1", "version = 6");
    assert_eq!(refused(&other_domain), ["domain-removed"]);
}
