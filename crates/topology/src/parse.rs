//! From text to the raw form.

use model::Protocol;
use toml::de::DeTable;

use crate::{
    BackEnd, BranchRecovery, CallRecords, DevicesBeyondMax, DigestAlgorithm, Edition, Finding, NumberSetting,
    Position, Role, Rule, SecondRegistration,
    entry::{Entry, Lines},
    raw::{Document, Pair, Pool, Server, Settings, Site, SiteWord},
};

/// Findings of a document that is not TOML; the rest are consequences of the first.
const SYNTAX_FINDINGS_MAX: usize = 20;

/// Reads a document as far as it goes; no document when it is not TOML.
pub(crate) fn document(text: &str) -> (Option<Document>, Vec<Finding>) {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let findings = errors.iter().take(SYNTAX_FINDINGS_MAX).map(|error| syntax(error, &lines)).collect();
        return (None, findings);
    }
    let mut findings = Vec::new();
    let document = read_document(table.into_inner(), &lines, &mut findings);
    (Some(document), findings)
}

/// The place of the octet at `offset` in `text`.
pub(crate) fn position(text: &str, offset: usize) -> Position {
    Lines::of(text).position(offset)
}

fn syntax(error: &toml::de::Error, lines: &Lines<'_>) -> Finding {
    let at = error.span().map(|span| lines.position(span.start));
    let message = error.message().replace('\n', ", ");
    let remedy = match at {
        Some(at) => format!("correct the text at line {}, column {}", at.line, at.column),
        None => "correct the text".to_owned(),
    };
    Finding::new(Rule::Syntax, at, "topology", message, remedy)
}

fn read_document<'t>(table: DeTable<'t>, lines: &Lines<'t>, findings: &mut Vec<Finding>) -> Document {
    let top = Position { line: 1, column: 1 };
    let mut entry = Entry::new(top, "topology".to_owned(), table, lines, findings);
    let version = entry.integer("version");
    let deployment = entry.name("deployment");
    let domains = entry.text_list("domains");
    for key in ["version", "deployment", "domains"] {
        entry.require(key);
    }
    let [sites, pools, servers, pairs] = ["site", "pool", "server", "pair"].map(|key| entry.tables(key));
    entry.finish();
    let findings = &mut *findings;
    Document {
        version,
        deployment,
        domains,
        sites: numbered(sites).map(|(n, at, t)| site(named("site", n, at, t, lines, findings))).collect(),
        pools: numbered(pools).map(|(n, at, t)| pool(n, at, t, lines, findings)).collect(),
        servers: numbered(servers)
            .map(|(n, at, t)| server(named("server", n, at, t, lines, findings)))
            .collect(),
        pairs: numbered(pairs).map(|(n, at, t)| pair(named("pair", n, at, t, lines, findings))).collect(),
    }
}

fn numbered<'t>(
    tables: Vec<(Position, DeTable<'t>)>,
) -> impl Iterator<Item = (usize, Position, DeTable<'t>)> {
    tables.into_iter().enumerate().map(|(at, (position, table))| (at + 1, position, table))
}

/// An entry called `kind #number` until its name is known.
fn named<'a, 't>(
    kind: &str,
    number: usize,
    at: Position,
    table: DeTable<'t>,
    lines: &'a Lines<'t>,
    findings: &'a mut Vec<Finding>,
) -> Entry<'a, 't> {
    Entry::new(at, format!("{kind} #{number}"), table, lines, findings)
}

fn site(mut entry: Entry<'_, '_>) -> Site {
    let name = entry.own_name("site");
    let kind = match entry.word("kind", &SiteWord::ALL, SiteWord::as_str) {
        None if !entry.has("kind") => Some(SiteWord::Central),
        kind => kind,
    };
    let parents = entry.names("parent");
    Site { at: entry.at, subject: entry.subject.clone(), name, kind, parents, keys: entry.finish() }
}

fn pool<'t>(
    number: usize,
    at: Position,
    table: DeTable<'t>,
    lines: &Lines<'t>,
    findings: &mut Vec<Finding>,
) -> Pool {
    let mut entry = named("pool", number, at, table, lines, findings);
    let name = entry.own_name("pool");
    let fqdn = entry.name("fqdn");
    let role = entry.word("role", &Role::ALL, Role::as_str);
    let site = entry.name("site");
    for key in ["fqdn", "role", "site"] {
        entry.require(key);
    }
    let edition = match entry.word("edition", &Edition::ALL, Edition::as_str) {
        None if !entry.has("edition") => Some(Edition::default()),
        edition => edition,
    };
    let back_end = match entry.word("back_end", &BackEnd::ALL, BackEnd::as_str) {
        None if !entry.has("back_end") => Some(BackEnd::default()),
        back_end => back_end,
    };
    let software = entry.text("software");
    let tie_breaker = entry.name("tie_breaker");
    let users_expected = entry.integer("users_expected");
    let users_capacity = entry.integer("users_capacity");
    let associated_pools = entry.names("associated_pool");
    let backup_registrar = entry.name("backup_registrar");
    let next_hop = entry.name("next_hop");
    let settings_table = entry.table("settings");
    let subject = entry.subject.clone();
    let keys = entry.finish();
    let settings = settings_table.map_or_else(Settings::default, |(at, table)| {
        settings(Entry::new(at, subject.clone(), table, lines, findings))
    });
    Pool {
        at,
        subject,
        name,
        fqdn,
        role,
        site,
        edition,
        back_end,
        software,
        tie_breaker,
        users_expected,
        users_capacity,
        associated_pools,
        backup_registrar,
        next_hop,
        settings,
        keys,
    }
}

fn settings(mut entry: Entry<'_, '_>) -> Settings {
    Settings {
        numbers: NumberSetting::ALL
            .into_iter()
            .filter_map(|setting| Some((setting, entry.integer(setting.key)?)))
            .collect(),
        digest_algorithms: entry.word_list(
            "digest_algorithms",
            &DigestAlgorithm::ALL,
            DigestAlgorithm::as_str,
        ),
        authentication_info: entry.boolean("authentication_info"),
        automatic_takeover: entry.boolean("automatic_takeover"),
        second_registration: entry.word(
            "second_registration",
            &SecondRegistration::ALL,
            SecondRegistration::as_str,
        ),
        branch_recovery: entry.word("branch_recovery", &BranchRecovery::ALL, BranchRecovery::as_str),
        dns_servers: entry.text_list("dns_servers"),
        emergency_numbers: entry.text_list("emergency_numbers"),
        call_records: entry.word("call_records", &CallRecords::ALL, CallRecords::as_str),
        ban_exempt: entry.text_list("ban_exempt"),
        gruu: entry.boolean("gruu"),
        devices_beyond_max: entry.word(
            "devices_beyond_max",
            &DevicesBeyondMax::ALL,
            DevicesBeyondMax::as_str,
        ),
        keys: entry.finish(),
    }
}

fn server(mut entry: Entry<'_, '_>) -> Server {
    let name = entry.own_name("server");
    let fqdn = entry.name("fqdn");
    let pool = entry.name("pool");
    for key in ["fqdn", "pool"] {
        entry.require(key);
    }
    let [udp, tcp, tls, ws, wss] =
        Protocol::ALL.map(|protocol| entry.text_list(protocol.name()).map(|list| list.value));
    let internal_sip = entry.text("internal_sip");
    let internal_http = entry.text("internal_http");
    let shards = entry.integer("shards");
    let tls_certificate = entry.text("tls_certificate");
    let tls_key = entry.text("tls_key");
    Server {
        at: entry.at,
        subject: entry.subject.clone(),
        name,
        fqdn,
        pool,
        udp,
        tcp,
        tls,
        ws,
        wss,
        internal_sip,
        internal_http,
        shards,
        tls_certificate,
        tls_key,
        keys: entry.finish(),
    }
}

fn pair(mut entry: Entry<'_, '_>) -> Pair {
    let pools = entry.names("pools");
    entry.require("pools");
    if let Some(pools) = pools.as_ref().filter(|pools| !pools.is_empty()) {
        let names: Vec<&str> = pools.iter().take(4).map(|pool| pool.value.as_str()).collect();
        entry.subject = format!("pair {}", names.join(" + "));
    }
    Pair { at: entry.at, subject: entry.subject.clone(), pools, keys: entry.finish() }
}
