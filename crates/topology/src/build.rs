//! From the raw form to the validated one. Keys without effect in their role are left out, so that the
//! validated form says what is in force.

use std::{collections::BTreeMap, net::SocketAddr};

use model::{Fqdn, NameError, PoolName, ServerName, SiteName};

use crate::{
    DeploymentName, Finding, Listen, NumberSetting, Pair, PhoneCertificate, Pool, PoolSettings, Role, Rule,
    Server, Site, SiteKind, SoftwareVersion, Topology, check,
    raw::{self, Document, Located, SiteWord, Text},
    topology::Index,
};

impl TryFrom<&Document> for Topology {
    type Error = Finding;

    /// Converts a document in which the linter found no error.
    ///
    /// Errors: the first thing that cannot be converted; a document with an error.
    fn try_from(document: &Document) -> Result<Self, Finding> {
        let version = u64::try_from(required(&document.version, "topology", "version")?.value).unwrap_or(0);
        let deployment = required(&document.deployment, "topology", "deployment")?;
        let domains = required(&document.domains, "topology", "domains")?;
        let sites = document.sites.iter().map(site).collect::<Result<Vec<_>, _>>()?;
        let mut pools = document.pools.iter().map(pool).collect::<Result<Vec<_>, _>>()?;
        let mut members: BTreeMap<PoolName, (Role, Vec<ServerName>)> =
            pools.iter().map(|pool| (pool.name.clone(), (pool.role, Vec::new()))).collect();
        let mut servers = Vec::new();
        for raw in &document.servers {
            let pool = converted(required(&raw.pool, &raw.subject, "pool")?, &raw.subject, PoolName::new)?;
            let (role, names) = members.get_mut(&pool).ok_or_else(|| missing(&raw.subject, "pool"))?;
            let server = server(raw, pool, *role)?;
            names.push(server.name.clone());
            servers.push(server);
        }
        for pool in &mut pools {
            pool.servers = members.remove(&pool.name).map(|(_, names)| names).unwrap_or_default();
        }
        let pairs = document.pairs.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
        let index = Index::of(&sites, &pools, &servers, &pairs);
        Ok(Self {
            version,
            deployment: converted(deployment, "topology", DeploymentName::new)?,
            domains: domains
                .value
                .iter()
                .map(|domain| converted(domain, "topology", Fqdn::new))
                .collect::<Result<_, _>>()?,
            sites,
            pools,
            servers,
            pairs,
            index,
        })
    }
}

fn site(raw: &raw::Site) -> Result<Site, Finding> {
    let kind = match raw.kind {
        Some(SiteWord::Branch) => {
            let parent = raw.parent().ok_or_else(|| missing(&raw.subject, "parent"))?;
            SiteKind::Branch { parent: converted(parent, &raw.subject, SiteName::new)? }
        }
        Some(SiteWord::Central) => SiteKind::Central,
        None => return Err(missing(&raw.subject, "kind")),
    };
    Ok(Site {
        name: converted(required(&raw.name, &raw.subject, "name")?, &raw.subject, SiteName::new)?,
        kind,
    })
}

fn pool(raw: &raw::Pool) -> Result<Pool, Finding> {
    let subject = &raw.subject;
    let role = raw.role.ok_or_else(|| missing(subject, "role"))?;
    let (is_front_end, homes_users) = (role == Role::FrontEnd, role.homes_users());
    let has_next_hop = matches!(role, Role::Edge | Role::Mediation);
    let tie_breaker = raw.tie_breaker.as_ref().filter(|_| is_front_end);
    let software = |text: &Text| {
        SoftwareVersion::new(&text.value).map_err(|error| wrong(Rule::SoftwareValid, text, subject, error))
    };
    Ok(Pool {
        name: converted(required(&raw.name, subject, "name")?, subject, PoolName::new)?,
        fqdn: converted(required(&raw.fqdn, subject, "fqdn")?, subject, Fqdn::new)?,
        role,
        site: converted(required(&raw.site, subject, "site")?, subject, SiteName::new)?,
        servers: Vec::new(),
        edition: raw.edition.filter(|_| is_front_end).unwrap_or_default(),
        back_end: raw.back_end.filter(|_| is_front_end).unwrap_or_default(),
        software: raw.software.as_ref().map(software).transpose()?,
        tie_breaker: optional(tie_breaker, subject, ServerName::new)?,
        users_expected: users(raw.users_expected.as_ref().filter(|_| homes_users)).unwrap_or(0),
        users_capacity: users(raw.users_capacity.as_ref().filter(|_| homes_users)),
        associated_pool: optional(raw.associated_pool(), subject, PoolName::new)?,
        next_hop: optional(raw.next_hop.as_ref().filter(|_| has_next_hop), subject, PoolName::new)?,
        settings: settings(&raw.settings, role),
    })
}

fn users(number: Option<&Located<i64>>) -> Option<u64> {
    number.and_then(|number| u64::try_from(number.value).ok())
}

/// Settings without effect in the role keep their defaults.
fn settings(raw: &raw::Settings, role: Role) -> PoolSettings {
    let mut settings = PoolSettings::default();
    for setting in NumberSetting::ALL.iter().filter(|setting| setting.applies_to(role)) {
        let number = u32::try_from(raw.number(setting.key)).unwrap_or(setting.max);
        (setting.write)(&mut settings, number);
    }
    if let Some(algorithms) = raw.digest_algorithms.as_ref().filter(|_| role.speaks_sip()) {
        settings.digest_algorithms =
            algorithms.value.iter().filter_map(|algorithm| algorithm.value).collect();
    }
    if role.has_partner() {
        settings.automatic_takeover = raw.automatic_takeover.unwrap_or(settings.automatic_takeover);
        settings.second_registration = raw.second_registration.unwrap_or_default();
    }
    if let Some(servers) = raw.dns_servers.as_ref().filter(|_| role.speaks_sip()) {
        settings.dns_servers =
            servers.value.iter().filter_map(|text| check::name_server(&text.value)).collect();
    }
    if let Some(numbers) = raw.emergency_numbers.as_ref().filter(|_| role.homes_users()) {
        settings.emergency_numbers = numbers.value.iter().map(|number| number.value.clone()).collect();
    }
    if let Some(networks) = raw.ban_exempt.as_ref().filter(|_| role.speaks_sip()) {
        settings.ban_exempt =
            networks.value.iter().filter_map(|network| network.value.parse().ok()).collect();
    }
    if role.homes_users() {
        settings.authentication_info = raw.authentication_info.unwrap_or(settings.authentication_info);
        settings.call_records = raw.call_records.unwrap_or_default();
        settings.gruu = raw.gruu.unwrap_or(settings.gruu);
        settings.devices_beyond_max = raw.devices_beyond_max.unwrap_or_default();
    }
    if role == Role::Branch {
        settings.branch_recovery = raw.branch_recovery.unwrap_or_default();
    }
    settings
}

fn server(raw: &raw::Server, pool: PoolName, role: Role) -> Result<Server, Finding> {
    let subject = &raw.subject;
    let speaks_sip = role.speaks_sip();
    let all = |texts: &Option<Vec<Text>>| {
        let texts = texts.iter().flatten().filter(|_| speaks_sip);
        texts.map(|text| address(text, subject)).collect::<Result<Vec<_>, _>>()
    };
    let internal_sip = raw.internal_sip.as_ref().filter(|_| speaks_sip);
    let shards = raw.shards.as_ref().filter(|_| speaks_sip);
    Ok(Server {
        name: converted(required(&raw.name, subject, "name")?, subject, ServerName::new)?,
        fqdn: converted(required(&raw.fqdn, subject, "fqdn")?, subject, Fqdn::new)?,
        pool,
        listen: Listen {
            udp: all(&raw.udp)?,
            tcp: all(&raw.tcp)?,
            tls: all(&raw.tls)?,
            ws: all(&raw.ws)?,
            wss: all(&raw.wss)?,
            internal_sip: internal_sip.map(|text| address(text, subject)).transpose()?,
            internal_http: address(required(&raw.internal_http, subject, "internal_http")?, subject)?,
        },
        shards: shards.and_then(|shards| u16::try_from(shards.value).ok()),
        phone_certificate: phone_certificate(raw).filter(|_| speaks_sip),
    })
}

fn phone_certificate(raw: &raw::Server) -> Option<PhoneCertificate> {
    let tls_certificate = raw.tls_certificate.as_ref()?.value.clone();
    Some(PhoneCertificate { tls_certificate, tls_key: raw.tls_key.as_ref()?.value.clone() })
}

fn pair(raw: &raw::Pair) -> Result<Pair, Finding> {
    let Some([first, second]) = raw.pools.as_deref() else { return Err(missing(&raw.subject, "pools")) };
    let name = |pool: &Text| converted(pool, &raw.subject, PoolName::new);
    Ok(Pair { pools: [name(first)?, name(second)?] })
}

fn address(text: &Text, subject: &str) -> Result<SocketAddr, Finding> {
    check::listening_address(&text.value).map_err(|(message, remedy)| {
        Finding::new(Rule::AddressValid, Some(text.at), subject, message, remedy)
    })
}

fn optional<T>(
    text: Option<&Text>,
    subject: &str,
    convert: fn(&str) -> Result<T, NameError>,
) -> Result<Option<T>, Finding> {
    text.map(|text| converted(text, subject, convert)).transpose()
}

fn converted<T>(text: &Text, subject: &str, convert: fn(&str) -> Result<T, NameError>) -> Result<T, Finding> {
    convert(&text.value).map_err(|error| wrong(Rule::NameValid, text, subject, error))
}

fn wrong(rule: Rule, text: &Text, subject: &str, error: impl std::fmt::Display) -> Finding {
    Finding::new(rule, Some(text.at), subject, error.to_string(), "correct the value")
}

fn required<'d, T>(
    value: &'d Option<Located<T>>,
    subject: &str,
    key: &str,
) -> Result<&'d Located<T>, Finding> {
    value.as_ref().ok_or_else(|| missing(subject, key))
}

fn missing(subject: &str, key: &str) -> Finding {
    Finding::new(Rule::MissingKey, None, subject, format!("{key} is missing"), format!("add {key} = ..."))
}
