//! The rules, each on the raw form: a check that meets something missing or unknown skips it, because another
//! finding names it already.

mod address;
mod capacity;
mod names;
mod pairs;
mod pools;
mod servers;
mod settings;
mod sites;

use std::collections::BTreeMap;

use crate::{
    Finding, Position, Role, Rule,
    raw::{self, Document, Text},
};

pub(crate) use address::listening_address;
pub(crate) use settings::name_server;

/// Adds what breaks a rule in `document` to `findings`.
pub(crate) fn document(document: &Document, findings: &mut Vec<Finding>) {
    let mut check = Check::new(document, findings);
    names::check(&mut check);
    sites::check(&mut check);
    pools::check(&mut check);
    servers::check(&mut check);
    pairs::check(&mut check);
    capacity::check(&mut check);
    settings::check(&mut check);
}

/// The document by name, and where findings go. Of several with one name, the first counts.
struct Check<'d> {
    document: &'d Document,
    sites: BTreeMap<&'d str, &'d raw::Site>,
    pools: BTreeMap<&'d str, &'d raw::Pool>,
    servers: BTreeMap<&'d str, &'d raw::Server>,
    /// The pools of each site name, whether or not such a site exists.
    residents: BTreeMap<&'d str, Vec<&'d raw::Pool>>,
    /// The servers of each pool name, whether or not such a pool exists.
    members: BTreeMap<&'d str, Vec<&'d raw::Server>>,
    findings: &'d mut Vec<Finding>,
}

impl<'d> Check<'d> {
    fn new(document: &'d Document, findings: &'d mut Vec<Finding>) -> Self {
        Self {
            document,
            sites: by_name(&document.sites, |site| &site.name),
            pools: by_name(&document.pools, |pool| &pool.name),
            servers: by_name(&document.servers, |server| &server.name),
            residents: by_place(&document.pools, |pool| &pool.site),
            members: by_place(&document.servers, |server| &server.pool),
            findings,
        }
    }

    fn report(
        &mut self,
        rule: Rule,
        at: impl Into<Option<Position>>,
        subject: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings.push(Finding::new(rule, at.into(), subject, message, remedy));
    }

    fn site(&self, name: &Option<Text>) -> Option<&'d raw::Site> {
        self.sites.get(name.as_ref()?.value.as_str()).copied()
    }

    fn pool(&self, name: &Text) -> Option<&'d raw::Pool> {
        self.pools.get(name.value.as_str()).copied()
    }

    fn residents(&self, site: &raw::Site) -> &[&'d raw::Pool] {
        let name = site.name.as_ref().map_or("", |name| name.value.as_str());
        self.residents.get(name).map_or(&[], Vec::as_slice)
    }

    fn members(&self, pool: &raw::Pool) -> usize {
        let name = pool.name.as_ref().map_or("", |name| name.value.as_str());
        self.members.get(name).map_or(0, Vec::len)
    }

    /// Whether some pool may turn out to have any role.
    fn has_unknown_role(&self) -> bool {
        self.document.pools.iter().any(|pool| pool.role.is_none())
    }

    fn pools_of_role(&self, role: Role) -> impl Iterator<Item = &'d raw::Pool> + use<'d> {
        self.document.pools.iter().filter(move |pool| pool.role == Some(role))
    }

    /// Reports `key` when it is written although nothing reads it in such a pool.
    fn without_effect(&mut self, keys: &raw::Keys, key: &str, subject: &str, role: Role) {
        if let Some(&at) = keys.get(key) {
            let message = format!("{key} has no effect in {}", a_pool(role));
            self.report(Rule::KeyWithoutEffect, at, subject, message, format!("remove {key}"));
        }
    }
}

/// `a director pool`, `an edge pool`.
fn a_pool(role: Role) -> String {
    match role {
        Role::Edge => format!("an {role} pool"),
        Role::FrontEnd | Role::Director | Role::Mediation | Role::Branch | Role::Control => {
            format!("a {role} pool")
        }
    }
}

fn by_name<T>(items: &[T], name: fn(&T) -> &Option<Text>) -> BTreeMap<&str, &T> {
    let mut map = BTreeMap::new();
    for item in items {
        if let Some(name) = name(item) {
            map.entry(name.value.as_str()).or_insert(item);
        }
    }
    map
}

fn by_place<T>(items: &[T], place: fn(&T) -> &Option<Text>) -> BTreeMap<&str, Vec<&T>> {
    let mut map: BTreeMap<&str, Vec<&T>> = BTreeMap::new();
    for item in items {
        if let Some(place) = place(item) {
            map.entry(place.value.as_str()).or_default().push(item);
        }
    }
    map
}

/// `value` with a comma between thousands.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let numbers = [0, 999, 1_000, 12_345, 1_234_567];

        assert_eq!(numbers.map(grouped), ["0", "999", "1,000", "12,345", "1,234,567"]);
    }
}
