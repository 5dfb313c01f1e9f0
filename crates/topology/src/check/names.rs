//! Names, host names, domains, and whether what is referred to exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use model::{Fqdn, NameError, PoolName, ServerName, SiteName};

use super::Check;
use crate::{DeploymentName, Position, Rule, entry::shorten, raw::Text, suggestion};

pub(super) fn check(check: &mut Check<'_>) {
    check_top(check);
    check_own_names(check);
    check_host_names(check);
    check_references(check);
}

fn check_top(check: &mut Check<'_>) {
    let document = check.document;
    if let Some(version) = document.version.as_ref().filter(|version| version.value < 1) {
        let message = format!("version is {}", version.value);
        check.report(
            Rule::VersionPositive,
            version.at,
            "topology",
            message,
            "start at 1 and add 1 with each change",
        );
    }
    if let Some(name) = &document.deployment {
        check_name(check, "topology", name, |text| DeploymentName::new(text).err());
    }
    let Some(domains) = &document.domains else { return };
    if domains.value.is_empty() {
        let remedy = "list the SIP domains, the default one first, as in domains = [\"example.com\"]";
        check.report(Rule::DomainsPresent, domains.at, "topology", "there is no SIP domain", remedy);
    }
    let mut seen = BTreeMap::new();
    for domain in &domains.value {
        check_fqdn(check, "topology", domain);
        if let Some(first) = seen.insert(domain.value.to_ascii_lowercase(), domain.at) {
            let message =
                format!("domain {} is listed twice, first at line {}", shorten(&domain.value), first.line);
            check.report(Rule::DomainUnique, domain.at, "topology", message, "remove one of them");
        }
    }
}

fn check_own_names(check: &mut Check<'_>) {
    let document = check.document;
    let mut seen = BTreeMap::new();
    for site in &document.sites {
        check_own_name(check, &mut seen, "site", &site.subject, &site.name, |text| SiteName::new(text).err());
    }
    for pool in &document.pools {
        check_own_name(check, &mut seen, "pool", &pool.subject, &pool.name, |text| PoolName::new(text).err());
    }
    for server in &document.servers {
        let (subject, name) = (&server.subject, &server.name);
        check_own_name(check, &mut seen, "server", subject, name, |text| ServerName::new(text).err());
    }
}

fn check_own_name<'d>(
    check: &mut Check<'_>,
    seen: &mut BTreeMap<(&'static str, &'d str), Position>,
    kind: &'static str,
    subject: &str,
    name: &'d Option<Text>,
    problem: fn(&str) -> Option<NameError>,
) {
    let Some(name) = name else { return };
    check_name(check, subject, name, problem);
    if let Some(first) = seen.get(&(kind, name.value.as_str())) {
        let message = format!("another {kind} has this name, at line {}", first.line);
        check.report(Rule::NameUnique, name.at, subject, message, "rename one of them");
    } else {
        seen.insert((kind, &name.value), name.at);
    }
}

fn check_name(check: &mut Check<'_>, subject: &str, name: &Text, problem: fn(&str) -> Option<NameError>) {
    if let Some(problem) = problem(&name.value) {
        let message = format!("\"{}\" is not a name: {problem}", shorten(&name.value));
        let remedy = name_remedy(&name.value);
        check.report(Rule::NameValid, name.at, subject, message, remedy);
    }
}

fn name_remedy(text: &str) -> String {
    if let Some((label, _)) = text.split_once('.').filter(|(label, _)| SiteName::new(label).is_ok()) {
        return format!("write \"{label}\"; the host name goes into fqdn");
    }
    let hyphenated: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let hyphenated = hyphenated.trim_matches('-');
    match SiteName::new(hyphenated) {
        Ok(name) => format!("write \"{name}\""),
        Err(_) => "write 1 to 63 letters, digits and inner hyphens, as in \"east\"".to_owned(),
    }
}

fn check_host_names(check: &mut Check<'_>) {
    let document = check.document;
    let pools = document.pools.iter().map(|pool| (&pool.subject, &pool.fqdn));
    let servers = document.servers.iter().map(|server| (&server.subject, &server.fqdn));
    let domains: BTreeSet<String> =
        document.domains.iter().flat_map(|list| &list.value).map(|d| d.value.to_ascii_lowercase()).collect();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (subject, fqdn) in pools.chain(servers) {
        let Some(fqdn) = fqdn else { continue };
        check_fqdn(check, subject, fqdn);
        if let Some(first) = seen.get(fqdn.value.as_str()) {
            let message = format!("{} is already the host name of {first}", shorten(&fqdn.value));
            let remedy = "give each pool and each server a host name of its own";
            check.report(Rule::FqdnUnique, fqdn.at, subject, message, remedy);
        } else {
            seen.insert(&fqdn.value, subject);
        }
        if domains.contains(&fqdn.value) {
            let message = format!("{} is also a SIP domain, so a route to it looks like a user", fqdn.value);
            let remedy = "name it inside the domain and publish SRV records of the domain that point to it";
            check.report(Rule::FqdnNotDomain, fqdn.at, subject, message, remedy);
        }
    }
}

fn check_fqdn(check: &mut Check<'_>, subject: &str, fqdn: &Text) {
    let shown = shorten(&fqdn.value);
    let (problem, remedy) = match Fqdn::new(&fqdn.value) {
        Ok(_) if fqdn.value.parse::<IpAddr>().is_ok() => {
            ("it is an IP address".to_owned(), "write a name, and let DNS point it to the address".to_owned())
        }
        Ok(_) => return,
        Err(error) => (error.to_string(), fqdn_remedy(&fqdn.value, &error)),
    };
    let message = format!("\"{shown}\" is not a fully qualified domain name: {problem}");
    check.report(Rule::FqdnValid, fqdn.at, subject, message, remedy);
}

fn fqdn_remedy(text: &str, error: &NameError) -> String {
    match error {
        NameError::NotQualified => format!("add the domain, as in \"{text}.example.com\""),
        NameError::Character { found: '_' } => format!("write \"{}\"", shorten(&text.replace('_', "-"))),
        NameError::Character { found } if !found.is_ascii() => {
            "write such labels in their ASCII form, which begins with xn--".to_owned()
        }
        NameError::Character { .. } => "use labels of letters, digits and inner hyphens".to_owned(),
        NameError::Length { .. } if text.ends_with('.') => "leave the final dot away".to_owned(),
        NameError::Length { .. } => {
            "write two or more labels of 1 to 63 characters, 253 characters in all".to_owned()
        }
    }
}

fn check_references(check: &mut Check<'_>) {
    let document = check.document;
    for site in &document.sites {
        for parent in site.parents.iter().flatten() {
            refer(check, Kind::Site, &site.subject, "parent", parent);
        }
    }
    for pool in &document.pools {
        let subject = &pool.subject;
        refer_all(check, Kind::Site, subject, "site", &pool.site);
        refer_all(check, Kind::Server, subject, "tie_breaker", &pool.tie_breaker);
        for associated in pool.associated_pools.iter().flatten() {
            refer(check, Kind::Pool, subject, "associated_pool", associated);
        }
        refer_all(check, Kind::Pool, subject, "backup_registrar", &pool.backup_registrar);
        refer_all(check, Kind::Pool, subject, "next_hop", &pool.next_hop);
    }
    for server in &document.servers {
        refer_all(check, Kind::Pool, &server.subject, "pool", &server.pool);
    }
    for pair in &document.pairs {
        for pool in pair.pools.iter().flatten() {
            refer(check, Kind::Pool, &pair.subject, "pools", pool);
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Site,
    Pool,
    Server,
}

fn refer_all(check: &mut Check<'_>, kind: Kind, subject: &str, key: &str, name: &Option<Text>) {
    if let Some(name) = name {
        refer(check, kind, subject, key, name);
    }
}

fn refer(check: &mut Check<'_>, kind: Kind, subject: &str, key: &str, name: &Text) {
    let word = match kind {
        Kind::Site => "site",
        Kind::Pool => "pool",
        Kind::Server => "server",
    };
    let candidates_max = suggestion::candidates_max(check.findings.len());
    let names: Box<dyn Iterator<Item = &str> + '_> = match kind {
        Kind::Site => Box::new(check.sites.keys().copied()),
        Kind::Pool => Box::new(check.pools.keys().copied()),
        Kind::Server => Box::new(check.servers.keys().copied()),
    };
    let is_known = match kind {
        Kind::Site => check.sites.contains_key(name.value.as_str()),
        Kind::Pool => check.pools.contains_key(name.value.as_str()),
        Kind::Server => check.servers.contains_key(name.value.as_str()),
    };
    if is_known {
        return;
    }
    let remedy = suggestion::remedy(&name.value, names.take(candidates_max), || {
        format!("add a [[{word}]] of this name, or correct {key}")
    });
    let message = format!("{key} names {word} \"{}\", which does not exist", shorten(&name.value));
    check.report(Rule::ReferenceResolves, name.at, subject, message, remedy);
}
