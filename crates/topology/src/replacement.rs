//! Whether one topology may replace another.

use model::PoolName;

use crate::{Finding, Pool, Role, Rule, Topology};

/// Everything that speaks against replacing `old` by `new`, in the order of the documentation.
///
/// `homes_users` says how many users are homed on a pool now. A finding that is an error refuses the
/// replacement.
pub fn replacement_findings(
    old: &Topology,
    new: &Topology,
    homes_users: impl Fn(&PoolName) -> u64,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if new.version <= old.version {
        findings.push(Finding::new(
            Rule::VersionGrows,
            None,
            "topology",
            format!("version {} is in force, the new document has {}", old.version, new.version),
            format!("set version = {}", old.version.saturating_add(1)),
        ));
    }
    if new.deployment != old.deployment {
        findings.push(Finding::new(
            Rule::DeploymentSame,
            None,
            "topology",
            format!("deployment {} is in force, the new document is of {}", old.deployment, new.deployment),
            "give the document of this deployment; a deployment is not renamed",
        ));
    }
    findings.extend(removal_findings(old, new, homes_users));
    for domain in old.domains.iter().filter(|domain| !new.domains.contains(domain)) {
        findings.push(Finding::new(
            Rule::DomainRemoved,
            None,
            format!("domain {domain}"),
            "users of this domain can no longer register or be called",
            "keep the domain until the last user has left it",
        ));
    }
    findings
}

/// One finding for each pool of `old` that is gone from `new`, or no longer homes users there, while it homes
/// users, backs a branch or is a next hop. It lists all references; those of pools that leave with it do not
/// count.
pub fn removal_findings(
    old: &Topology,
    new: &Topology,
    homes_users: impl Fn(&PoolName) -> u64,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pool in &old.pools {
        let is_gone = new.pool(&pool.name).is_none_or(|kept| loses_its_function(pool, kept));
        let users = if pool.role.homes_users() { homes_users(&pool.name) } else { 0 };
        if is_gone {
            findings.extend(removal_finding(old, new, pool, users));
        }
    }
    findings
}

/// A pool whose role changes is removed as what it was.
fn loses_its_function(before: &Pool, after: &Pool) -> bool {
    before.role != after.role
}

fn removal_finding(old: &Topology, new: &Topology, pool: &Pool, users: u64) -> Option<Finding> {
    let stays = |other: &&Pool| new.pool(&other.name).is_some();
    let mut references = Vec::new();
    if users > 0 {
        references.push(format!("it homes {users} users"));
    }
    references
        .extend(old.branches_of(&pool.name).filter(stays).map(|branch| format!("it backs {}", branch.name)));
    let next_hop_of =
        old.pools.iter().filter(|other| other.next_hop.as_ref() == Some(&pool.name)).filter(stays);
    references.extend(next_hop_of.map(|other| format!("it is the next hop of {}", other.name)));
    if references.is_empty() {
        return None;
    }
    let verb = if new.pool(&pool.name).is_some() { "changes its role" } else { "is removed" };
    let remedy = match pool.role {
        Role::FrontEnd | Role::Branch => {
            "move its users away and point what refers to it elsewhere, in a version before this one"
        }
        Role::Director | Role::Edge | Role::Mediation | Role::Control => {
            "point what refers to it elsewhere, in a version before this one"
        }
    };
    Some(Finding::new(
        Rule::PoolRemoved,
        None,
        format!("pool {}", pool.name),
        format!("it {verb}, but {}", references.join(", ")),
        remedy,
    ))
}
