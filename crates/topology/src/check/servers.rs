//! What servers listen on.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{Check, a_pool, listening_address};
use crate::{
    Role, Rule, Server as Validated,
    entry::shorten,
    raw::{Server, Text},
};

/// Octets of a path to a file.
const PATH_BYTES_MAX: usize = 1_024;

pub(super) fn check(check: &mut Check<'_>) {
    for server in &check.document.servers {
        check_shards(check, server);
        check_presence(check, server);
        check_tls_files(check, server);
    }
    check_addresses(check);
    check_loopback(check);
}

fn check_shards(check: &mut Check<'_>, server: &Server) {
    let most = Validated::SHARDS_MAX;
    let is_wrong = |shards: i64| !(1..=i64::from(most)).contains(&shards);
    if let Some(shards) = server.shards.as_ref().filter(|shards| is_wrong(shards.value)) {
        let message = format!("shards is {}, allowed is 1 to {most}", shards.value);
        let remedy = "leave it away for one shard per processor core";
        check.report(Rule::ShardsRange, shards.at, &server.subject, message, remedy);
    }
}

fn check_presence(check: &mut Check<'_>, server: &Server) {
    if !server.keys.contains_key("internal_http") {
        let message = "internal_http is missing: no other server nor the command line could reach it";
        let remedy = "add internal_http = \"IP:port\"";
        check.report(Rule::ServerListeners, server.at, &server.subject, message, remedy);
    }
    let role = server.pool.as_ref().and_then(|name| check.pool(name)).and_then(|pool| pool.role);
    match role {
        Some(role) if role.speaks_sip() => check_sip_presence(check, server, role),
        Some(role) => {
            for key in
                ["udp", "tcp", "tls", "ws", "wss", "internal_sip", "shards", "tls_certificate", "tls_key"]
            {
                check.without_effect(&server.keys, key, &server.subject, role);
            }
        }
        None => {}
    }
}

fn check_tls_files(check: &mut Check<'_>, server: &Server) {
    let files = [("tls_certificate", &server.tls_certificate), ("tls_key", &server.tls_key)];
    for (key, text) in files {
        let Some(text) = text else { continue };
        let is_path = !text.value.is_empty()
            && !text.value.contains(|c: char| c.is_control() || matches!(c, '"' | '\\'));
        if !is_path || text.value.len() > PATH_BYTES_MAX {
            let message = format!("{key}: \"{}\" is no path that can be named here", shorten(&text.value));
            let remedy = "name a file, as in tls_certificate = \"/etc/tandem/phones/fullchain.pem\"";
            check.report(Rule::TlsFiles, text.at, &server.subject, message, remedy);
        }
    }
    let keys = files.map(|(key, _)| (key, server.keys.get(key).copied()));
    if let [(_, Some(at)), (missing, None)] | [(missing, None), (_, Some(at))] = keys {
        let message = format!("{missing} is missing: a certificate is of no use without its key");
        check.report(Rule::TlsFiles, at, &server.subject, message, format!("add {missing} = \"FILE\""));
    }
    let is_secure = ["tls", "wss"].iter().any(|key| server.keys.contains_key(*key));
    let speaks_sip = server.keys.contains_key("internal_sip");
    if let Some(at) = keys.iter().find_map(|(_, at)| *at).filter(|_| speaks_sip && !is_secure) {
        let message = "tls_certificate has no effect without tls or wss";
        check.report(Rule::KeyWithoutEffect, at, &server.subject, message, "remove it, or add a listener");
    }
}

fn check_sip_presence(check: &mut Check<'_>, server: &Server, role: Role) {
    let is_written = |(key, list): (&str, &Option<Vec<Text>>)| match list {
        Some(addresses) => !addresses.is_empty(),
        None => server.keys.contains_key(key),
    };
    if !server.sip_listeners().into_iter().any(is_written) {
        let message = format!("a server of {} needs a SIP listener", a_pool(role));
        let remedy = "add one of udp, tcp, tls, ws and wss, as in udp = [\"IP:5060\"]";
        check.report(Rule::ServerListeners, server.at, &server.subject, message, remedy);
    }
    if !server.keys.contains_key("internal_sip") {
        let message = "internal_sip is missing: no other server could send it calls";
        let remedy = "add internal_sip = \"IP:port\"";
        check.report(Rule::ServerListeners, server.at, &server.subject, message, remedy);
    }
}

/// What a server listens on, with the key of the listener.
fn listeners(server: &Server) -> impl Iterator<Item = (&'static str, &Text)> {
    let sip = server.sip_listeners().into_iter();
    let sip = sip.flat_map(|(key, list)| list.iter().flatten().map(move |text| (key, text)));
    let internal = [("internal_sip", &server.internal_sip), ("internal_http", &server.internal_http)];
    sip.chain(internal.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?))))
}

fn check_addresses(check: &mut Check<'_>) {
    let mut seen: BTreeMap<(bool, SocketAddr), (&str, &str)> = BTreeMap::new();
    for server in &check.document.servers {
        for (key, text) in listeners(server) {
            let address = match listening_address(&text.value) {
                Ok(address) => address,
                Err((message, remedy)) => {
                    check.report(
                        Rule::AddressValid,
                        text.at,
                        &server.subject,
                        format!("{key}: {message}"),
                        remedy,
                    );
                    continue;
                }
            };
            let place = (key == "udp", address);
            if let Some((other_key, other)) = seen.get(&place) {
                let whose = if *other == server.subject { "this server" } else { *other };
                let message = format!("{key}: {address} is already {other_key} of {whose}");
                check.report(
                    Rule::AddressUnique,
                    text.at,
                    &server.subject,
                    message,
                    "give each listener its own",
                );
            } else {
                seen.insert(place, (key, &server.subject));
            }
        }
    }
}

fn check_loopback(check: &mut Check<'_>) {
    let internal = |server: &Server| {
        let text = server.internal_http.as_ref()?;
        Some((listening_address(&text.value).ok()?, text.at))
    };
    let servers = check.document.servers.iter().filter_map(|server| Some((server, internal(server)?)));
    let (loopback, routed): (Vec<_>, Vec<_>) =
        servers.partition(|(_, (address, _))| address.ip().is_loopback());
    let (Some((server, (address, at))), Some((other, _))) = (loopback.first(), routed.first()) else {
        return;
    };
    let message = format!(
        "internal_http: {address} is not reachable from other machines, and {} is one",
        other.subject
    );
    let remedy = "use an address of the network, or loopback addresses everywhere";
    check.report(Rule::LoopbackMixed, *at, &server.subject, message, remedy);
}
