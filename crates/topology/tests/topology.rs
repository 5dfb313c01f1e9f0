//! What others ask of a topology.

use std::time::Duration;

use model::{Fqdn, PoolName, ServerName, SiteName};
use topology::{BranchRecovery, CallRecords, DigestAlgorithm, Pool, Role, SecondRegistration, Topology};

fn example() -> Topology {
    let (topology, warnings) =
        Topology::read(include_str!("corpus/good/whole_example.toml")).expect("the example");
    assert_eq!(warnings, []);
    topology
}

fn pool(name: &str) -> PoolName {
    PoolName::new(name).expect("a name")
}

fn names<'t>(pools: impl IntoIterator<Item = &'t Pool>) -> Vec<&'t str> {
    pools.into_iter().map(|pool| pool.name.as_str()).collect()
}

#[test]
fn the_partner_is_the_backup_registrar_of_a_front_end_pool_and_the_associated_pool_that_of_a_branch() {
    let topology = example();

    assert_eq!(names(topology.partner_of(&pool("east"))), ["west"]);
    assert_eq!(names(topology.partner_of(&pool("west"))), ["east"]);
    assert_eq!(names(topology.backup_of(&pool("west"))), ["east"]);
    assert_eq!(names(topology.backup_of(&pool("branch1"))), ["east"]);
    assert_eq!(names(topology.associated_of(&pool("branch1"))), ["east"]);
    assert_eq!(names(topology.branches_of(&pool("east"))), ["branch1"]);
    assert_eq!(names(topology.branches_of(&pool("west"))), [""; 0]);
    assert_eq!(names(topology.home_pools()), ["east", "west", "branch1"]);
    for none in ["control", "branch1", "nobody"] {
        assert_eq!(topology.partner_of(&pool(none)), None);
    }
    assert_eq!(topology.backup_of(&pool("control")), None);
}

#[test]
fn servers_are_found_by_name_by_host_name_and_by_pool() {
    let topology = example();
    let server = topology.server(&ServerName::new("east-fe1").unwrap()).unwrap();

    assert_eq!(topology.server_by_fqdn(&Fqdn::new("east-fe1.example.com").unwrap()), Some(server));
    assert_eq!(topology.servers_of(&pool("east")).collect::<Vec<_>>(), [server]);
    assert_eq!(names(topology.pool_of(&server.name)), ["east"]);
    assert_eq!(server.listen.udp, ["127.0.1.1:5060".parse().unwrap()]);
    assert_eq!(server.listen.internal_sip, Some("127.0.1.1:5071".parse().unwrap()));
    assert_eq!(server.listen.internal_http, "127.0.1.1:8443".parse().unwrap());
    assert_eq!(server.shards, Some(1));
    let control: Vec<_> = topology.control_servers().map(|server| server.name.as_str()).collect();
    assert_eq!(control, ["control1"]);
}

#[test]
fn sites_and_the_default_domain_are_known() {
    let topology = example();
    let branch = topology.site(&SiteName::new("branch1").unwrap()).unwrap();

    assert_eq!(branch.parent(), Some(&SiteName::new("east").unwrap()));
    assert_eq!(topology.site(&SiteName::new("east").unwrap()).unwrap().parent(), None);
    assert_eq!(topology.default_domain().map(Fqdn::as_str), Some("example.com"));
    assert_eq!(topology.version, 1);
}

#[test]
fn settings_that_are_not_written_have_their_defaults() {
    let (topology, _) = Topology::read(include_str!("corpus/good/one_pool.toml")).unwrap();

    let settings = &topology.pool(&pool("east")).unwrap().settings;

    assert_eq!(
        (settings.expires_min_s, settings.expires_default_s, settings.expires_max_s),
        (60, 600, 3_600)
    );
    assert_eq!(settings.digest_algorithms, [DigestAlgorithm::Sha256, DigestAlgorithm::Md5]);
    assert_eq!(settings.lease_ttl(), Duration::from_secs(5));
    assert_eq!(settings.takeover_after(), Duration::from_secs(10));
    assert_eq!(settings.hold(), Duration::from_secs(120));
    assert_eq!(settings.second_registration, SecondRegistration::Forward);
    assert_eq!(settings.branch_recovery, BranchRecovery::Follow);
    assert_eq!(settings.call_records, CallRecords::All);
    assert_eq!(settings.devices_beyond_max.as_str(), "replace_oldest");
    assert!(settings.automatic_takeover && settings.gruu);
}

#[test]
fn a_topology_has_a_form_for_programs() {
    let json = serde_json::to_value(example()).unwrap();

    let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["deployment", "domains", "pairs", "pools", "servers", "sites", "version"]);
    assert_eq!(json["sites"][2], serde_json::json!({"name": "branch1", "kind": "branch", "parent": "east"}));
    assert_eq!(json["pools"][0]["role"], "front_end");
    assert_eq!(json["pools"][0]["settings"]["digest_algorithms"], serde_json::json!(["SHA-256", "MD5"]));
    assert_eq!(json["servers"][1]["udp"], serde_json::json!(["127.0.1.1:5060"]));
    assert_eq!(json["pairs"][0]["pools"], serde_json::json!(["east", "west"]));
}

#[test]
fn a_finding_has_a_form_for_programs() {
    let findings = topology::lint("version = 0");

    let json = serde_json::to_value(findings.first().unwrap()).unwrap();

    assert_eq!(json["rule"], "missing-key");
    assert_eq!(json["severity"], "error");
    assert_eq!(json["at"], serde_json::json!({"line": 1, "column": 1}));
}

#[test]
fn every_role_knows_whether_it_homes_users_and_speaks_sip() {
    let homes: Vec<_> = Role::ALL.into_iter().filter(|role| role.homes_users()).collect();
    let silent: Vec<_> = Role::ALL.into_iter().filter(|role| !role.speaks_sip()).collect();

    assert_eq!(homes, [Role::FrontEnd, Role::Branch]);
    assert_eq!(silent, [Role::Control]);
}
