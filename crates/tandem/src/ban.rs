//! `tandem ban`: whom servers do not listen to.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use model::{ServerName, Source};
use node::{
    api::wire::{BanOrder, BanRecord, Changed},
    peers::PeerError,
};
use serde::Serialize;
use topology::Server;

use crate::{
    cli::{BanCommand, Output},
    failure::Usage,
    output::{self, Table},
    remote::{ANSWER_WITHIN, Remote, escape},
    time::utc,
};

/// What one server did.
#[derive(Debug, Serialize)]
struct Done {
    server: ServerName,
    source: String,
    changed: usize,
}

/// Runs a `tandem ban` command.
///
/// Exit code 1 when there is no ban, or when not all servers took the order.
pub async fn run(output: Output, command: BanCommand) -> Result<ExitCode> {
    match command {
        BanCommand::List { server, deployment } => {
            list(output, &Remote::open(&deployment.dir)?, server.as_deref()).await
        }
        BanCommand::Add { address, lasts, server, deployment } => {
            let source = source(&address)?;
            let order = BanOrder { source: source.to_string(), seconds: lasts.as_secs() };
            let order = Order::Add(order);
            everywhere(output, &Remote::open(&deployment.dir)?, server.as_deref(), source, &order).await
        }
        BanCommand::Remove { address, server, deployment } => {
            let source = source(&address)?;
            let remote = Remote::open(&deployment.dir)?;
            everywhere(output, &remote, server.as_deref(), source, &Order::Remove).await
        }
    }
}

enum Order {
    Add(BanOrder),
    Remove,
}

/// A length of time as an operator types it: a number of seconds, or with `s`, `m`, `h` or `d` behind it.
///
/// Errors: it is none, or less than a second.
pub fn length(text: &str) -> Result<Duration, String> {
    let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let with_unit = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, *seconds)));
    let (number, seconds) = with_unit.unwrap_or((text, 1));
    let is_number = number.bytes().all(|octet| octet.is_ascii_digit());
    let number = number.parse::<u64>().ok().filter(|number| is_number && *number > 0);
    let length = number.and_then(|number| number.checked_mul(seconds)).map(Duration::from_secs);
    length.ok_or_else(|| "a length of time, like 90s, 10m, 1h or 7d".to_owned())
}

fn source(text: &str) -> Result<Source> {
    text.parse().map_err(|error| Usage(format!("{text:?}: {error}")).into())
}

/// The servers that speak SIP, or the one of this name.
fn asked<'a>(remote: &'a Remote, server: Option<&str>) -> Result<Vec<&'a Server>> {
    let found: Vec<_> = remote
        .registrars()
        .filter(|known| server.is_none_or(|name| known.name.as_str().eq_ignore_ascii_case(name)))
        .collect();
    if found.is_empty() {
        let names: Vec<_> = remote.registrars().map(|server| server.name.to_string()).collect();
        let message = format!("{} bans nobody; there are {}", server.unwrap_or("-"), names.join(", "));
        return Err(Usage(message).into());
    }
    Ok(found)
}

async fn list(output: Output, remote: &Remote, server: Option<&str>) -> Result<ExitCode> {
    let mut records: Vec<BanRecord> = Vec::new();
    let mut failures = Vec::new();
    let asked = asked(remote, server)?;
    for server in &asked {
        match remote.client.get::<Vec<_>>(&Remote::endpoint(server), "/v1/bans", ANSWER_WITHIN).await {
            Ok(found) => records.extend(found),
            Err(error) => failures.push(error),
        }
    }
    if failures.len() == asked.len()
        && let Some(error) = failures.pop()
    {
        return Err(error.into());
    }
    for error in failures {
        eprintln!("tandem: not all servers answered: {:#}", anyhow::Error::new(error));
    }
    output::print(output, &records, || {
        let mut table = Table::new(&["server", "source", "cause", "since", "until", "offences", "times"]);
        for record in &records {
            table.push([
                record.server.to_string(),
                record.source.clone(),
                record.cause.clone(),
                utc(record.since),
                utc(record.until),
                record.offences.to_string(),
                record.times.to_string(),
            ]);
        }
        table
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Gives an order to every server, and says what each did.
async fn everywhere(
    output: Output,
    remote: &Remote,
    server: Option<&str>,
    source: Source,
    order: &Order,
) -> Result<ExitCode> {
    let mut done = Vec::new();
    let mut failures: Vec<PeerError> = Vec::new();
    for server in asked(remote, server)? {
        let (client, endpoint) = (&remote.client, Remote::endpoint(server));
        let answer: Result<Changed, _> = match order {
            Order::Add(order) => client.post(&endpoint, "/v1/bans", order, ANSWER_WITHIN).await,
            Order::Remove => {
                let path = format!("/v1/bans?source={}", escape(&source.to_string()));
                client.delete(&endpoint, &path, ANSWER_WITHIN).await
            }
        };
        match answer {
            Ok(Changed { changed }) => {
                done.push(Done { server: server.name.clone(), source: source.to_string(), changed });
            }
            Err(error) => failures.push(error),
        }
    }
    if done.is_empty()
        && let Some(error) = failures.pop()
    {
        return Err(error.into());
    }
    for error in &failures {
        eprintln!("tandem: {error}");
    }
    output::print(output, &done, || {
        let mut table = Table::new(&["server", "source", "changed"]);
        for done in &done {
            table.push([done.server.to_string(), done.source.clone(), done.changed.to_string()]);
        }
        table
    })?;
    let is_done = failures.is_empty() && done.iter().any(|done| done.changed > 0);
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_a_number_and_its_unit() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(length(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "0", "-1h", "1.5h", "1w", "99999999999999999d", "1hh", "+1h"] {
            assert!(length(text).is_err(), "{text}");
        }
    }
}
