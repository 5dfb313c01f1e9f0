//! Pool settings: ranges, and what must fit together.

use std::net::{IpAddr, SocketAddr};

use model::{IpNetwork, limits};

use super::Check;
use crate::{
    DigestAlgorithm, NumberSetting, Position, Role, Rule,
    entry::shorten,
    raw::{Located, Pool},
};

pub(super) fn check(check: &mut Check<'_>) {
    for pool in &check.document.pools {
        check_ranges(check, pool);
        check_expires(check, pool);
        check_takeover(check, pool);
        check_digest(check, pool);
        check_emergency(check, pool);
        check_bans(check, pool);
        check_dns(check, pool);
        if let Some(role) = pool.role {
            check_effects(check, pool, role);
        }
    }
}

fn check_ranges(check: &mut Check<'_>, pool: &Pool) {
    for (setting, number) in &pool.settings.numbers {
        let NumberSetting { key, min, max, .. } = setting;
        if !(i64::from(*min)..=i64::from(*max)).contains(&number.value) {
            let message = format!("{key} is {}, allowed is {min} to {max}", number.value);
            let remedy = format!("the default is {}", setting.default_value());
            check.report(Rule::SettingRange, number.at, &pool.subject, message, remedy);
        }
    }
}

fn check_expires(check: &mut Check<'_>, pool: &Pool) {
    let settings = &pool.settings;
    let order = ["expires_min_s", "expires_default_s", "expires_max_s"];
    for (low, high) in order.into_iter().zip(order.into_iter().skip(1)) {
        let (less, more) = (settings.number(low), settings.number(high));
        if less > more {
            let message = format!("{low} is {less}, above {high}, which is {more}");
            let remedy = "order them: expires_min_s <= expires_default_s <= expires_max_s";
            check.report(Rule::ExpiresOrder, place(pool, [low, high]), &pool.subject, message, remedy);
        }
    }
}

fn check_takeover(check: &mut Check<'_>, pool: &Pool) {
    let number = |key| pool.settings.number(key);
    let (lease, takeover, hold) = (number("lease_ttl_s"), number("takeover_after_s"), number("hold_s"));
    if lease >= takeover {
        let message =
            format!("lease_ttl_s is {lease}, takeover_after_s {takeover}: the owner may still serve then");
        let remedy =
            format!("set takeover_after_s to {} or more, or shorten the lease", lease.saturating_add(1));
        let at = place(pool, ["lease_ttl_s", "takeover_after_s"]);
        check.report(Rule::LeaseTakeover, at, &pool.subject, message, remedy);
    }
    if hold < takeover {
        let message = format!(
            "hold_s is {hold}, takeover_after_s {takeover}: an unsteady pool would go back and forth"
        );
        let remedy = format!("set hold_s to {takeover} or more; the default is 120");
        let at = place(pool, ["hold_s", "takeover_after_s"]);
        check.report(Rule::HoldTakeover, at, &pool.subject, message, remedy);
    }
}

/// Where the first of `keys` that is written stands.
fn place(pool: &Pool, keys: [&str; 2]) -> Position {
    let written = |key: &str| pool.settings.keys.get(key).copied();
    keys.into_iter().find_map(written).unwrap_or(pool.at)
}

fn check_digest(check: &mut Check<'_>, pool: &Pool) {
    let Some(list) = &pool.settings.digest_algorithms else { return };
    if list.value.is_empty() {
        let message = "digest_algorithms is empty: nobody could register";
        let remedy = "write digest_algorithms = [\"SHA-256\", \"MD5\"]";
        return check.report(Rule::DigestAlgorithms, list.at, &pool.subject, message, remedy);
    }
    let offered: Vec<Located<DigestAlgorithm>> = list
        .value
        .iter()
        .filter_map(|algorithm| Some(Located { value: algorithm.value?, at: algorithm.at }))
        .collect();
    for (before, algorithm) in offered.iter().enumerate() {
        if offered.iter().take(before).any(|earlier| earlier.value == algorithm.value) {
            let message = format!("{} is offered twice", algorithm.value);
            check.report(Rule::DigestAlgorithms, algorithm.at, &pool.subject, message, "remove one of them");
        }
    }
    let find = |wanted| offered.iter().position(|algorithm| algorithm.value == wanted);
    let (md5, sha256) = (find(DigestAlgorithm::Md5), find(DigestAlgorithm::Sha256));
    if let Some(algorithm) = offered.iter().find(|algorithm| algorithm.value == DigestAlgorithm::Sha512_256) {
        let message =
            "SHA-512-256: accounts hold no hash of it, and many phones fail when they are offered it";
        check.report(Rule::DigestSha512, algorithm.at, &pool.subject, message, "offer SHA-256 and MD5");
    }
    if md5.is_some_and(|md5| sha256.is_some_and(|sha256| md5 < sha256)) {
        let message = "MD5 is offered before SHA-256: phones that take the first use the weaker, some fail";
        check.report(Rule::DigestOrder, list.at, &pool.subject, message, "write SHA-256 first");
    }
    let has_unknown = offered.len() < list.value.len();
    if md5.is_none() && sha256.is_none() && !has_unknown {
        let message =
            "neither MD5 nor SHA-256 is offered, and accounts hold no other hash: nobody could register";
        let remedy = "write digest_algorithms = [\"SHA-256\", \"MD5\"]";
        check.report(Rule::DigestAlgorithms, list.at, &pool.subject, message, remedy);
    } else if md5.is_none() && !has_unknown {
        let message = "MD5 is not offered: phones and browsers that know nothing else cannot register";
        let remedy = "add \"MD5\" at the end, unless no such phone exists here";
        check.report(Rule::DigestMd5, list.at, &pool.subject, message, remedy);
    }
}

fn check_emergency(check: &mut Check<'_>, pool: &Pool) {
    let Some(list) = &pool.settings.emergency_numbers else { return };
    if list.value.len() > limits::EMERGENCY_NUMBERS_MAX {
        let message =
            format!("{} emergency numbers, at most {}", list.value.len(), limits::EMERGENCY_NUMBERS_MAX);
        return check.report(Rule::EmergencyNumbers, list.at, &pool.subject, message, "remove some of them");
    }
    for (before, number) in list.value.iter().enumerate() {
        let is_dialled = |octet: u8| octet.is_ascii_digit() || matches!(octet, b'*' | b'#');
        if !((2..=15).contains(&number.value.len()) && number.value.bytes().all(is_dialled)) {
            let message =
                format!("emergency_numbers: \"{}\" is nothing that is dialled", shorten(&number.value));
            let remedy = "write 2 to 15 digits, such as \"112\"";
            check.report(Rule::EmergencyNumbers, number.at, &pool.subject, message, remedy);
        } else if list.value.iter().take(before).any(|earlier| earlier.value == number.value) {
            let message = format!("{} is an emergency number twice", number.value);
            check.report(Rule::EmergencyNumbers, number.at, &pool.subject, message, "remove one of them");
        }
    }
}

fn check_bans(check: &mut Check<'_>, pool: &Pool) {
    let (first, longest) = (pool.settings.number("ban_s"), pool.settings.number("ban_max_s"));
    if first > longest {
        let message = format!("ban_s is {first}, above ban_max_s, which is {longest}");
        let at = place(pool, ["ban_s", "ban_max_s"]);
        check.report(Rule::BanOrder, at, &pool.subject, message, "order them: ban_s <= ban_max_s");
    }
    let Some(list) = &pool.settings.ban_exempt else { return };
    if list.value.len() > limits::BAN_EXEMPT_MAX {
        let message = format!("{} exempt networks, at most {}", list.value.len(), limits::BAN_EXEMPT_MAX);
        return check.report(Rule::BanExempt, list.at, &pool.subject, message, "join neighbouring ones");
    }
    let mut before: Vec<IpNetwork> = Vec::new();
    for text in &list.value {
        match text.value.parse::<IpNetwork>() {
            Err(error) => {
                let message = format!("ban_exempt: \"{}\": {error}", shorten(&text.value));
                let remedy = "write an address, or a network like \"192.0.2.0/24\" or \"2001:db8::/32\"";
                check.report(Rule::BanExempt, text.at, &pool.subject, message, remedy);
            }
            Ok(network) if before.contains(&network) => {
                let message = format!("{network} is exempt twice");
                check.report(Rule::BanExempt, text.at, &pool.subject, message, "remove one of them");
            }
            Ok(network) => {
                if network.is_everything() {
                    let message =
                        format!("{network}: nobody is ever banned, and guessing is not slowed down");
                    let remedy = "name the networks of gateways and border controllers only";
                    check.report(Rule::BanExemptAll, text.at, &pool.subject, message, remedy);
                }
                before.push(network);
            }
        }
    }
}

/// The address of a name server; `None` when it is none. Port 53 unless it says another.
pub(crate) fn name_server(text: &str) -> Option<SocketAddr> {
    let alone = text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53));
    let address = alone.or_else(|| text.parse().ok())?;
    let is_usable = address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast();
    is_usable.then_some(address)
}

fn check_dns(check: &mut Check<'_>, pool: &Pool) {
    let Some(list) = &pool.settings.dns_servers else { return };
    if list.value.len() > limits::DNS_SERVERS_MAX {
        let message = format!("{} name servers, at most {}", list.value.len(), limits::DNS_SERVERS_MAX);
        return check.report(Rule::DnsServers, list.at, &pool.subject, message, "remove some of them");
    }
    for (before, text) in list.value.iter().enumerate() {
        let Some(address) = name_server(&text.value) else {
            let message = format!("\"{}\" is no address of a name server", shorten(&text.value));
            let remedy = "write an IP address, as in \"192.0.2.53\" or \"192.0.2.53:5353\"";
            check.report(Rule::DnsServers, text.at, &pool.subject, message, remedy);
            continue;
        };
        if list.value.iter().take(before).any(|earlier| name_server(&earlier.value) == Some(address)) {
            let message = format!("{address} is a name server twice");
            check.report(Rule::DnsServers, text.at, &pool.subject, message, "remove one of them");
        }
    }
}

fn check_effects(check: &mut Check<'_>, pool: &Pool, role: Role) {
    let keys = &pool.settings.keys;
    for setting in NumberSetting::ALL.iter().filter(|setting| !setting.applies_to(role)) {
        check.without_effect(keys, setting.key, &pool.subject, role);
    }
    let others = [
        ("digest_algorithms", role.speaks_sip()),
        ("dns_servers", role.speaks_sip()),
        ("authentication_info", role.homes_users()),
        ("automatic_takeover", role.has_partner()),
        ("second_registration", role.has_partner()),
        ("branch_recovery", role == Role::Branch),
        ("emergency_numbers", role.homes_users()),
        ("call_records", role.homes_users()),
        ("ban_exempt", role.speaks_sip()),
        ("gruu", role.homes_users()),
        ("devices_beyond_max", role.homes_users()),
    ];
    for (key, has_effect) in others {
        if !has_effect {
            check.without_effect(keys, key, &pool.subject, role);
        }
    }
}
