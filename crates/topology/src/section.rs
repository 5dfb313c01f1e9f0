//! A topology as sections of keys and values: what is printed and what is compared.

use std::net::SocketAddr;

use crate::{NumberSetting, Pair, Pool, PoolSettings, Role, Server, Site, Topology};

/// A key and its value as TOML.
pub(crate) type KeyValue = (&'static str, String);

/// One table of the document.
#[derive(Debug)]
pub(crate) struct Section {
    /// `site`, `pool`, `server` or `pair`; empty for the top of the document.
    pub kind: &'static str,
    /// What findings and changes call it.
    pub subject: String,
    pub keys: Vec<KeyValue>,
    /// The keys of `[pool.settings]`; empty for all but pools.
    pub settings: Vec<KeyValue>,
}

/// The sections of a topology in the order of the document.
pub(crate) fn sections(topology: &Topology) -> Vec<Section> {
    let top = Section {
        kind: "",
        subject: "topology".to_owned(),
        keys: vec![
            ("version", topology.version.to_string()),
            ("deployment", quoted(topology.deployment.as_str())),
            ("domains", list(topology.domains.iter().map(|domain| quoted(domain.as_str())))),
        ],
        settings: Vec::new(),
    };
    let mut sections = vec![top];
    sections.extend(topology.sites.iter().map(site));
    sections.extend(topology.pools.iter().map(pool));
    sections.extend(topology.servers.iter().map(server));
    sections.extend(topology.pairs.iter().map(pair));
    sections
}

fn site(site: &Site) -> Section {
    let mut keys = vec![("name", quoted(site.name.as_str())), ("kind", quoted(site.kind.as_str()))];
    keys.extend(site.parent().map(|parent| ("parent", quoted(parent.as_str()))));
    Section { kind: "site", subject: format!("site {}", site.name), keys, settings: Vec::new() }
}

fn pool(pool: &Pool) -> Section {
    let mut keys = vec![
        ("name", quoted(pool.name.as_str())),
        ("fqdn", quoted(pool.fqdn.as_str())),
        ("role", quoted(pool.role.as_str())),
        ("site", quoted(pool.site.as_str())),
    ];
    if pool.role == Role::FrontEnd {
        keys.push(("edition", quoted(pool.edition.as_str())));
        keys.push(("back_end", quoted(pool.back_end.as_str())));
    }
    keys.extend(pool.software.as_ref().map(|software| ("software", quoted(software.as_str()))));
    keys.extend(pool.tie_breaker.as_ref().map(|server| ("tie_breaker", quoted(server.as_str()))));
    if pool.role.homes_users() {
        keys.push(("users_expected", pool.users_expected.to_string()));
        keys.extend(pool.users_capacity.map(|users| ("users_capacity", users.to_string())));
    }
    keys.extend(pool.associated_pool.as_ref().map(|pool| ("associated_pool", quoted(pool.as_str()))));
    keys.extend(pool.next_hop.as_ref().map(|pool| ("next_hop", quoted(pool.as_str()))));
    let settings = if pool.role.speaks_sip() { settings(&pool.settings, pool.role) } else { Vec::new() };
    Section { kind: "pool", subject: format!("pool {}", pool.name), keys, settings }
}

fn settings(settings: &PoolSettings, role: Role) -> Vec<KeyValue> {
    let algorithms = settings.digest_algorithms.iter().map(|algorithm| quoted(algorithm.as_str()));
    let mut keys: Vec<KeyValue> = NumberSetting::ALL
        .iter()
        .filter(|setting| setting.applies_to(role))
        .map(|setting| (setting.key, setting.value(settings).to_string()))
        .collect();
    keys.push(("digest_algorithms", list(algorithms)));
    if !settings.dns_servers.is_empty() {
        keys.push(("dns_servers", list(settings.dns_servers.iter().map(address))));
    }
    if role.has_partner() {
        keys.push(("automatic_takeover", settings.automatic_takeover.to_string()));
        keys.push(("second_registration", quoted(settings.second_registration.as_str())));
    }
    if role.homes_users() {
        keys.push(("authentication_info", settings.authentication_info.to_string()));
        keys.push((
            "emergency_numbers",
            list(settings.emergency_numbers.iter().map(|number| quoted(number))),
        ));
        keys.push(("call_records", quoted(settings.call_records.as_str())));
        keys.push(("gruu", settings.gruu.to_string()));
        keys.push(("devices_beyond_max", quoted(settings.devices_beyond_max.as_str())));
    }
    keys.push(("ban_exempt", list(settings.ban_exempt.iter().map(|network| quoted(&network.to_string())))));
    if role == Role::Branch {
        keys.push(("branch_recovery", quoted(settings.branch_recovery.as_str())));
    }
    keys
}

fn server(server: &Server) -> Section {
    let mut keys = vec![
        ("name", quoted(server.name.as_str())),
        ("fqdn", quoted(server.fqdn.as_str())),
        ("pool", quoted(server.pool.as_str())),
    ];
    let listen = &server.listen;
    for (protocol, addresses) in listen.phones() {
        if !addresses.is_empty() {
            keys.push((protocol.name(), list(addresses.iter().map(address))));
        }
    }
    keys.extend(listen.internal_sip.as_ref().map(|internal| ("internal_sip", address(internal))));
    keys.push(("internal_http", address(&listen.internal_http)));
    keys.extend(server.shards.map(|shards| ("shards", shards.to_string())));
    if let Some(files) = &server.phone_certificate {
        keys.push(("tls_certificate", quoted(&files.tls_certificate)));
        keys.push(("tls_key", quoted(&files.tls_key)));
    }
    Section { kind: "server", subject: format!("server {}", server.name), keys, settings: Vec::new() }
}

fn pair(pair: &Pair) -> Section {
    let pools = pair.sorted().into_iter().map(|pool| quoted(pool.as_str()));
    let keys = vec![("pools", list(pools))];
    Section { kind: "pair", subject: format!("pair {pair}"), keys, settings: Vec::new() }
}

fn address(address: &SocketAddr) -> String {
    quoted(&address.to_string())
}

/// A text as TOML. Names, words, addresses and paths hold nothing that needs an escape.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}
