//! Topology documents: the linter judges every text, and what reads prints and reads again equal. Input: the
//! document; after a NUL (which no document holds) a second one to compare it with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use topology::{Finding, Topology, decode, diff, lint, removal_findings, replacement_findings};

fuzz_target!(|data: &[u8]| {
    let topologies: Vec<Topology> = data.splitn(2, |&octet| octet == 0).filter_map(read).collect();
    for topology in &topologies {
        comes_back_from_print(topology);
        references_resolve(topology);
    }
    if let [old, new] = topologies.as_slice() {
        let changes = diff(old, new);
        assert_eq!(changes.len(), diff(new, old).len());
        assert_eq!(changes.is_empty(), sections(old) == sections(new));
        let removals = removal_findings(old, new, |_| 1);
        let findings = replacement_findings(old, new, |_| 1);
        assert!(removals.iter().all(|removal| findings.contains(removal)));
        findings.iter().for_each(is_printable);
    }
});

fn read(document: &[u8]) -> Option<Topology> {
    let text = match decode(document) {
        Ok(text) => text,
        Err(finding) => {
            is_inside(&finding, &String::from_utf8_lossy(document));
            return None;
        }
    };
    let findings = lint(text);
    assert!(findings.is_sorted() && findings.windows(2).all(|pair| pair[0] != pair[1]));
    for finding in &findings {
        is_inside(finding, text);
        is_printable(finding);
    }
    match Topology::read(text) {
        Ok((topology, warnings)) => {
            assert_eq!(warnings, findings);
            assert!(!warnings.iter().any(Finding::is_error));
            Some(topology)
        }
        Err(refused) => {
            assert_eq!(refused, findings);
            assert!(refused.iter().any(Finding::is_error));
            None
        }
    }
}

/// The place exists, at most one past the end of the line or of the text.
fn is_inside(finding: &Finding, text: &str) {
    let Some(at) = finding.at else { return };
    let mut lines = text.split('\n');
    let line = lines.nth(at.line as usize - 1).unwrap_or_else(|| panic!("no such line: {finding}"));
    assert!((1..=line.chars().count() + 1).contains(&(at.column as usize)), "no such column: {finding}");
}

fn is_printable(finding: &Finding) {
    let text = finding.to_string();
    assert!(!text.contains(char::is_control), "{}", text.escape_debug());
    assert!(!finding.remedy.is_empty() && !finding.message.is_empty() && !finding.subject.is_empty());
}

fn comes_back_from_print(topology: &Topology) {
    let text = topology.to_toml();
    let (again, _) = Topology::read(&text).expect("what is printed is read");
    assert_eq!(again, *topology);
    assert_eq!(again.to_toml(), text);
    assert!(diff(topology, &again).is_empty());
    let findings = replacement_findings(topology, &again, |_| 1);
    assert!(findings.iter().map(|finding| finding.rule).eq(["version-grows"]));
}

fn references_resolve(topology: &Topology) {
    assert!(topology.version > 0 && topology.default_domain().is_some());
    for pool in &topology.pools {
        assert!(topology.site(&pool.site).is_some());
        assert_eq!(topology.pool(&pool.name), Some(pool));
        assert_eq!(topology.servers_of(&pool.name).count(), pool.servers.len());
        if let Some(partner) = topology.partner_of(&pool.name) {
            assert_eq!(topology.partner_of(&partner.name), Some(pool));
        }
        for branch in topology.branches_of(&pool.name) {
            assert_eq!(topology.associated_of(&branch.name), Some(pool));
        }
    }
    for server in &topology.servers {
        assert_eq!(topology.server(&server.name), Some(server));
        assert_eq!(topology.server_by_fqdn(&server.fqdn), Some(server));
        let pool = topology.pool_of(&server.name).expect("the pool of a server is there");
        assert!(pool.servers.contains(&server.name));
    }
    assert!(topology.home_pools().all(|pool| pool.role.homes_users()));
}

/// What is printed, whatever the order of the tables.
fn sections(topology: &Topology) -> Vec<String> {
    let text = topology.to_toml();
    let mut sections: Vec<_> = text.split("\n[[").map(|section| section.trim().to_owned()).collect();
    sections.sort();
    sections
}
