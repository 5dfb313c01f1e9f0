//! What a pool of each role has and names.

use super::{Check, a_pool};
use crate::{
    Edition, Role, Rule, SoftwareVersion,
    entry::shorten,
    raw::{Pool, SiteWord, Text},
};

pub(super) fn check(check: &mut Check<'_>) {
    for pool in &check.document.pools {
        check_members(check, pool);
        check_values(check, pool);
        let Some(role) = pool.role else { continue };
        check_site(check, pool, role);
        check_size(check, pool, role);
        check_tie_breaker(check, pool, role);
        check_associated_pool(check, pool, role);
        check_next_hop(check, pool, role);
        check_effects(check, pool, role);
    }
    check_control(check);
}

fn check_members(check: &mut Check<'_>, pool: &Pool) {
    if pool.name.is_some() && check.members(pool) == 0 {
        let name = pool.name.as_ref().map_or("", |name| name.value.as_str());
        let remedy = format!("add a [[server]] with pool = \"{}\", or remove the pool", shorten(name));
        check.report(Rule::PoolServers, pool.at, &pool.subject, "the pool has no server", remedy);
    }
}

fn check_values(check: &mut Check<'_>, pool: &Pool) {
    if let Some(software) = &pool.software
        && let Err(error) = SoftwareVersion::new(&software.value)
    {
        let message = format!("software is \"{}\": {error}", shorten(&software.value));
        check.report(Rule::SoftwareValid, software.at, &pool.subject, message, "write it as in \"1.4.0\"");
    }
    let numbers = [("users_expected", &pool.users_expected), ("users_capacity", &pool.users_capacity)];
    for (key, number) in numbers {
        if let Some(number) = number.as_ref().filter(|number| number.value < 0) {
            let message = format!("{key} is {}", number.value);
            check.report(Rule::UsersRange, number.at, &pool.subject, message, "write 0 or more");
        }
    }
}

fn check_site(check: &mut Check<'_>, pool: &Pool, role: Role) {
    let Some(kind) = check.site(&pool.site).and_then(|site| site.kind) else { return };
    let at = pool.site.as_ref().map_or(pool.at, |site| site.at);
    let (message, remedy) = match (role, kind) {
        (Role::FrontEnd | Role::Director | Role::Edge, SiteWord::Branch) => (
            format!("{} stands in a central site, not in a branch site", a_pool(role)),
            "name a central site; a site with a front-end pool of its own is central",
        ),
        (Role::Branch, SiteWord::Central) => (
            "a branch pool stands in a branch site, not in a central site".to_owned(),
            "name a branch site, or use role = \"front_end\"",
        ),
        (Role::FrontEnd | Role::Director | Role::Edge, SiteWord::Central)
        | (Role::Branch, SiteWord::Branch)
        | (Role::Mediation | Role::Control, SiteWord::Central | SiteWord::Branch) => return,
    };
    check.report(Rule::PoolSite, at, &pool.subject, message, remedy);
}

fn check_size(check: &mut Check<'_>, pool: &Pool, role: Role) {
    let servers = check.members(pool);
    if let Some(most) = role.servers_max().filter(|&most| servers > most) {
        let message = format!("the pool has {servers} servers, {} has at most {most}", a_pool(role));
        let remedy = match role {
            Role::FrontEnd | Role::Director | Role::Edge | Role::Mediation => {
                "make a second pool of the rest"
            }
            Role::Branch => "make each appliance a pool of its own",
            Role::Control => "keep one server: the control store is one file",
        };
        check.report(Rule::PoolSize, pool.at, &pool.subject, message, remedy);
    }
    if role == Role::FrontEnd && pool.edition == Some(Edition::Standard) && servers > 1 {
        let at = pool.keys.get("edition").copied().unwrap_or(pool.at);
        let message = format!("the pool has {servers} servers, one of the standard edition has one");
        check.report(Rule::StandardPoolSize, at, &pool.subject, message, "use edition = \"enterprise\"");
    }
}

fn check_tie_breaker(check: &mut Check<'_>, pool: &Pool, role: Role) {
    if role != Role::FrontEnd {
        return check.without_effect(&pool.keys, "tie_breaker", &pool.subject, role);
    }
    let servers = check.members(pool);
    let written = pool.keys.get("tie_breaker").copied();
    match (servers, written) {
        (2, None) => {
            let message = "of two servers neither can go on alone: a third voter is missing";
            let remedy = "add tie_breaker = \"...\", the name of a server outside the pool";
            check.report(Rule::TieBreaker, pool.at, &pool.subject, message, remedy);
        }
        (2, Some(_)) => {
            let Some(name) = &pool.tie_breaker else { return };
            let own = pool.name.as_ref().map(|name| &name.value);
            let server = check.servers.get(name.value.as_str());
            let home = server.and_then(|server| server.pool.as_ref()).map(|pool| &pool.value);
            if home.is_some() && home == own {
                let message =
                    format!("tie_breaker {} is in the pool itself and would have two votes", name.value);
                check.report(
                    Rule::TieBreaker,
                    name.at,
                    &pool.subject,
                    message,
                    "name a server of another pool",
                );
            }
        }
        (0, _) | (_, None) => {}
        (_, Some(at)) => {
            let message = format!("a pool with {servers} servers uses no tie-breaker");
            check.report(Rule::TieBreakerUnused, at, &pool.subject, message, "remove tie_breaker");
        }
    }
}

fn check_associated_pool(check: &mut Check<'_>, pool: &Pool, role: Role) {
    let rule = Rule::BranchAssociatedPool;
    let written = pool.keys.get("associated_pool").copied();
    if role != Role::Branch {
        if let Some(at) = written {
            let message = format!("{} has no associated pool", a_pool(role));
            let remedy = "remove it; two front-end pools back each other by a [[pair]]";
            check.report(rule, at, &pool.subject, message, remedy);
        }
        return;
    }
    match (pool.associated_pools.as_deref(), written) {
        (Some([associated]), _) => check_association(check, pool, associated),
        (Some(names), _) => {
            let message = format!("a branch pool has one associated pool, this one names {}", names.len());
            check.report(rule, written.unwrap_or(pool.at), &pool.subject, message, "keep one of them");
        }
        (None, Some(_)) => {}
        (None, None) => {
            let remedy = "add associated_pool = \"...\", a front-end pool of the parent of its site";
            check.report(rule, pool.at, &pool.subject, "a branch pool needs an associated pool", remedy);
        }
    }
}

fn check_association(check: &mut Check<'_>, pool: &Pool, name: &Text) {
    let Some(associated) = check.pool(name) else { return };
    match associated.role {
        Some(Role::FrontEnd) => check_association_site(check, pool, name, associated),
        Some(Role::Branch) => {
            let message =
                format!("its associated pool {} is a branch pool, which is backed up itself", name.value);
            let remedy = "name a front-end pool of the parent of its site";
            check.report(Rule::BackupChain, name.at, &pool.subject, message, remedy);
        }
        Some(role @ (Role::Director | Role::Edge | Role::Mediation | Role::Control)) => {
            let message = format!("its associated pool {} is {}", name.value, a_pool(role));
            let remedy = "name a front-end pool of the parent of its site";
            check.report(Rule::BranchAssociatedPool, name.at, &pool.subject, message, remedy);
        }
        None => {}
    }
}

fn check_association_site(check: &mut Check<'_>, pool: &Pool, name: &Text, associated: &Pool) {
    let Some(site) = check.site(&pool.site).filter(|site| site.kind == Some(SiteWord::Branch)) else {
        return;
    };
    let (Some(parent), Some(central)) = (site.parent(), &associated.site) else { return };
    if parent.value != central.value {
        let message = format!(
            "its associated pool {} stands in site {}, but its branch site belongs to {}",
            name.value,
            shorten(&central.value),
            shorten(&parent.value)
        );
        let remedy = format!("name a front-end pool of site {}", shorten(&parent.value));
        check.report(Rule::BranchAssociatedPool, name.at, &pool.subject, message, remedy);
    }
}

fn check_next_hop(check: &mut Check<'_>, pool: &Pool, role: Role) {
    let (allowed, words): (&[Role], &str) = match role {
        Role::Edge => (&[Role::FrontEnd, Role::Director], "a front-end or director pool"),
        Role::Mediation => (&[Role::FrontEnd], "a front-end pool"),
        Role::FrontEnd | Role::Director | Role::Branch | Role::Control => {
            return check.without_effect(&pool.keys, "next_hop", &pool.subject, role);
        }
    };
    let Some(name) = &pool.next_hop else {
        if !pool.keys.contains_key("next_hop") {
            let message = format!("the next hop of this {role} pool is missing");
            let remedy = format!("add next_hop = \"...\", {words}");
            check.report(Rule::NextHop, pool.at, &pool.subject, message, remedy);
        }
        return;
    };
    let found = check.pool(name).and_then(|hop| hop.role);
    if let Some(found) = found.filter(|found| !allowed.contains(found)) {
        let message = format!("its next hop {} is {}", name.value, a_pool(found));
        check.report(Rule::NextHop, name.at, &pool.subject, message, format!("name {words}"));
    }
}

fn check_effects(check: &mut Check<'_>, pool: &Pool, role: Role) {
    if role != Role::FrontEnd {
        check.without_effect(&pool.keys, "edition", &pool.subject, role);
        check.without_effect(&pool.keys, "back_end", &pool.subject, role);
    }
    if !role.homes_users() {
        check.without_effect(&pool.keys, "users_expected", &pool.subject, role);
        check.without_effect(&pool.keys, "users_capacity", &pool.subject, role);
        check.without_effect(&pool.keys, "backup_registrar", &pool.subject, role);
    }
}

fn check_control(check: &mut Check<'_>) {
    let mut pools = check.pools_of_role(Role::Control);
    let Some(first) = pools.next() else { return };
    for pool in pools {
        let message = format!("there is a control pool already, at line {}", first.at.line);
        let remedy = "keep one: two control stores could name two owners";
        check.report(Rule::ControlSingle, pool.at, &pool.subject, message, remedy);
    }
}
