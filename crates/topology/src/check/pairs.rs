//! Pairs: who backs whom.

use std::collections::BTreeMap;

use super::{Check, a_pool};
use crate::{
    Position, Role, Rule,
    raw::{Pair, Pool, Text},
};

pub(super) fn check(check: &mut Check<'_>) {
    let mut partners = Partners::default();
    for pair in &check.document.pairs {
        check_pair(check, &mut partners, pair);
    }
    for pool in &check.document.pools {
        check_backup_registrar(check, &partners, pool);
    }
}

/// The partners of each pool, in the order of the document, and where each pair is written.
#[derive(Default)]
struct Partners<'d> {
    of: BTreeMap<&'d str, Vec<(&'d str, Position)>>,
}

impl<'d> Partners<'d> {
    fn contains(&self, pool: &str, partner: &str) -> Option<Position> {
        self.of.get(pool)?.iter().find(|(name, _)| *name == partner).map(|(_, at)| *at)
    }
}

fn check_pair<'d>(check: &mut Check<'d>, partners: &mut Partners<'d>, pair: &'d Pair) {
    let Some(pools) = &pair.pools else { return };
    let [first, second] = pools.as_slice() else {
        let message = format!("a pair has two pools, this one names {}", pools.len());
        let remedy = "write pools = [\"...\", \"...\"]; each pool is in one pair at most";
        let at = pair.keys.get("pools").copied().unwrap_or(pair.at);
        return check.report(Rule::PairTwoPools, at, &pair.subject, message, remedy);
    };
    if first.value == second.value {
        let message = "a pool cannot be its own backup registrar";
        return check.report(Rule::PairSelf, second.at, &pair.subject, message, "name two different pools");
    }
    if let Some(at) = partners.contains(&first.value, &second.value) {
        let message = format!("the same pair is written at line {}", at.line);
        return check.report(Rule::PairDuplicate, pair.at, &pair.subject, message, "remove one of them");
    }
    for (pool, partner) in [(first, second), (second, first)] {
        let others = partners.of.entry(&pool.value).or_default();
        let earlier = others.first().copied();
        others.push((&partner.value, pair.at));
        if let Some((other, at)) = earlier {
            let message = format!("{} is already paired with {other}, at line {}", pool.value, at.line);
            let remedy = format!("remove one of the two pairs of {}; a pool backs up one other", pool.value);
            check.report(Rule::PairOneToOne, pool.at, &pair.subject, message, remedy);
        }
    }
    check_roles(check, pair, [first, second]);
    let (Some(one), Some(other)) = (check.pool(first), check.pool(second)) else { return };
    if one.role == Some(Role::FrontEnd) && other.role == Some(Role::FrontEnd) {
        check_likeness(check, pair, one, other);
        check_sites(check, pair, one, other);
        check_witness(check, pair, one, other);
    }
}

fn check_roles(check: &mut Check<'_>, pair: &Pair, names: [&Text; 2]) {
    for name in names {
        let Some(role) = check.pool(name).and_then(|pool| pool.role) else { continue };
        match role {
            Role::FrontEnd => {}
            Role::Branch => {
                let message = format!("{} is a branch pool, which its associated pool backs up", name.value);
                let remedy = "remove the pair; pair the associated pool with a front-end pool";
                check.report(Rule::BackupChain, name.at, &pair.subject, message, remedy);
            }
            Role::Director | Role::Edge | Role::Mediation | Role::Control => {
                let message = format!("{} is {}, a pair has two front-end pools", name.value, a_pool(role));
                let remedy = "remove the pair; such a pool survives by its own servers";
                check.report(Rule::PairRole, name.at, &pair.subject, message, remedy);
            }
        }
    }
}

/// The same edition, the same kind of back end, the same software.
fn check_likeness(check: &mut Check<'_>, pair: &Pair, one: &Pool, other: &Pool) {
    let edition = |pool: &Pool| pool.edition.map(|edition| edition.as_str().to_owned());
    let back_end = |pool: &Pool| pool.back_end.map(|back_end| back_end.as_str().to_owned());
    let software = |pool: &Pool| pool.software.as_ref().map(|software| software.value.clone());
    let likenesses = [
        (Rule::PairEdition, "edition", edition(one), edition(other)),
        (Rule::PairBackEnd, "back end", back_end(one), back_end(other)),
        (Rule::PairSoftware, "software version", software(one), software(other)),
    ];
    for (rule, what, left, right) in likenesses {
        let (Some(left), Some(right)) = (left, right) else { continue };
        if left != right {
            let message = format!("the {what} of {} is {left}, of {} {right}", one.subject, other.subject);
            check.report(rule, pair.at, &pair.subject, message, format!("give both the same {what}"));
        }
    }
}

fn check_sites(check: &mut Check<'_>, pair: &Pair, one: &Pool, other: &Pool) {
    let (Some(left), Some(right)) = (&one.site, &other.site) else { return };
    if left.value == right.value {
        let message = format!("both pools stand in site {}: losing the site loses both", left.value);
        let remedy = "pair pools of different central sites";
        check.report(Rule::PairSameSite, pair.at, &pair.subject, message, remedy);
    }
}

fn check_witness(check: &mut Check<'_>, pair: &Pair, one: &Pool, other: &Pool) {
    let is_automatic = |pool: &Pool| pool.settings.automatic_takeover.unwrap_or(true);
    if !is_automatic(one) && !is_automatic(other) {
        return;
    }
    let Some(control) = check.pools_of_role(Role::Control).next() else {
        if !check.has_unknown_role() {
            let message = "there is no control pool to be its witness: takeover never happens by itself";
            let remedy =
                "add a control pool in a third site, or set automatic_takeover = false in both pools";
            check.report(Rule::PairWitness, pair.at, &pair.subject, message, remedy);
        }
        return;
    };
    for (pool, partner) in [(one, other), (other, one)] {
        let (Some(site), Some(witness)) = (&pool.site, &control.site) else { continue };
        if is_automatic(pool) && site.value == witness.value {
            let message = format!(
                "{}, the witness, stands in site {} with {}: without that site {} takes over by command only",
                control.subject, site.value, pool.subject, partner.subject
            );
            let remedy = "put the control pool in a third site; a branch site will do";
            check.report(Rule::WitnessSite, pair.at, &pair.subject, message, remedy);
        }
    }
}

/// What a pool says about its own backup must be what follows from its pair or its associated pool.
fn check_backup_registrar(check: &mut Check<'_>, partners: &Partners<'_>, pool: &Pool) {
    let (Some(name), Some(role), Some(backup)) = (&pool.name, pool.role, &pool.backup_registrar) else {
        return;
    };
    let Some(found) = check.pool(backup) else { return };
    match role {
        Role::FrontEnd if partners.contains(&name.value, &backup.value).is_some() => {}
        Role::FrontEnd if found.role == Some(Role::Branch) => {
            let message =
                format!("its backup registrar {} is a branch pool, which is backed up itself", backup.value);
            check.report(
                Rule::BackupChain,
                backup.at,
                &pool.subject,
                message,
                "name its partner in the pair",
            );
        }
        Role::FrontEnd => {
            let message =
                format!("it names {} as its backup registrar, but no [[pair]] holds both", backup.value);
            let remedy = match partners.of.get(name.value.as_str()).and_then(|others| others.first()) {
                Some((partner, _)) => format!("name its partner {partner}, or leave backup_registrar away"),
                None => format!("add [[pair]] pools = [\"{}\", \"{}\"]", name.value, backup.value),
            };
            check.report(Rule::BackupReciprocal, backup.at, &pool.subject, message, remedy);
        }
        Role::Branch => check_branch_backup(check, partners, pool, backup),
        Role::Director | Role::Edge | Role::Mediation | Role::Control => {}
    }
}

fn check_branch_backup(check: &mut Check<'_>, partners: &Partners<'_>, pool: &Pool, backup: &Text) {
    let Some(associated) = pool.associated_pool().filter(|associated| associated.value != backup.value)
    else {
        return;
    };
    let (rule, message) = if partners.contains(&associated.value, &backup.value).is_some() {
        let message = format!(
            "its backup registrar {} is the partner of its associated pool {}: backups do not chain",
            backup.value, associated.value
        );
        (Rule::BackupChain, message)
    } else {
        let message = format!(
            "it names {} as its backup registrar, but a branch is backed up by its associated pool, {}",
            backup.value, associated.value
        );
        (Rule::BackupReciprocal, message)
    };
    let remedy = format!("write backup_registrar = \"{}\", or leave it away", associated.value);
    check.report(rule, backup.at, &pool.subject, message, remedy);
}
