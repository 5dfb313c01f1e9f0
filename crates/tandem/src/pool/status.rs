//! `tandem pool status`: who owns each home pool, what would be lost now, and how the servers are.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::Result;
use node::api::wire::{Copied, CopyStatus, HomeStatus, MoveStatus};
use serde::Serialize;

use super::{ask_all, plan::Asked};
use crate::{
    cli::Output,
    output::{self, Table},
    remote::Remote,
};

/// Asks every server; exit code 2 when one does not answer.
pub async fn run(output: Output, dir: &Path) -> Result<ExitCode> {
    let remote = Remote::open(dir)?;
    let answers = ask_all(&remote).await;
    match output {
        Output::Json => output::print(output, &answers, || homes(&answers))?,
        Output::Table => {
            output::print(output, &(), || homes(&answers))?;
            println!();
            output::print(output, &(), || copies(&answers))?;
            if answers.iter().filter_map(|asked| asked.status.as_ref()).any(|status| !status.moves.is_empty())
            {
                println!();
                output::print(output, &(), || moves(&answers))?;
            }
        }
    }
    let is_complete = answers.iter().all(|asked| asked.status.is_some());
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn dash() -> String {
    "-".to_owned()
}

fn homes(answers: &[Asked]) -> Table {
    let mut table = Table::new(&[
        "server",
        "pool",
        "home",
        "part",
        "owner",
        "epoch",
        "state",
        "serves",
        "lease ms",
        "users",
        "bindings",
        "calls",
        "conflicts",
        "health",
    ]);
    for asked in answers {
        let mut row = |home: Option<&HomeStatus>, health: &str| {
            let number =
                |value: fn(&HomeStatus) -> u64| home.map_or_else(dash, |home| value(home).to_string());
            table.push([
                asked.server.to_string(),
                asked.pool.to_string(),
                home.map_or_else(dash, |home| home.home.to_string()),
                home.map_or_else(dash, |home| home.part.clone()),
                home.and_then(|home| home.owner.as_ref()).map_or_else(dash, ToString::to_string),
                home.and_then(|home| home.epoch).map_or_else(dash, |epoch| epoch.to_string()),
                home.and_then(|home| home.state).map_or_else(dash, |state| word(&state)),
                home.map_or_else(dash, |home| home.service.clone().unwrap_or_else(|| "no".to_owned())),
                home.and_then(|home| home.authority_ms).map_or_else(dash, |left| left.to_string()),
                number(|home| home.users),
                number(|home| home.bindings),
                home.and_then(|home| home.calls).map_or_else(dash, |calls| calls.to_string()),
                number(|home| home.conflicts),
                health.to_owned(),
            ]);
        };
        match &asked.status {
            None => row(None, asked.error.as_deref().unwrap_or("-")),
            Some(status) if status.homes.is_empty() => row(None, &status.health),
            Some(status) => status.homes.iter().for_each(|home| row(Some(home), &status.health)),
        }
    }
    table
}

fn copies(answers: &[Asked]) -> Table {
    let mut table = Table::new(&[
        "seen by",
        "copy of",
        "what",
        "from",
        "to",
        "state",
        "lag",
        "lag s",
        "heard s ago",
        "reason",
    ]);
    let seconds = |ms: Option<u64>| {
        ms.map_or_else(dash, |ms| format!("{:.1}", Duration::from_millis(ms).as_secs_f64()))
    };
    for asked in answers {
        let Some(status) = &asked.status else { continue };
        for CopyStatus { home, what, from, to, state, lag_entries, lag_ms, silent_ms, reason, .. } in
            &status.copies
        {
            table.push([
                asked.server.to_string(),
                home.to_string(),
                match what {
                    Copied::Documents => "documents".to_owned(),
                    Copied::Bindings => "bindings".to_owned(),
                },
                from.as_ref().map_or_else(dash, ToString::to_string),
                to.to_string(),
                state.as_ref().map_or_else(dash, word),
                lag_entries.map_or_else(dash, |lag| lag.to_string()),
                seconds(*lag_ms),
                seconds(*silent_ms),
                reason.clone().unwrap_or_else(dash),
            ]);
        }
    }
    table
}

fn moves(answers: &[Asked]) -> Table {
    let mut table = Table::new(&["seen by", "users of", "from", "to", "state", "reason"]);
    for asked in answers {
        for MoveStatus { branch, from, to, state, reason } in asked.status.iter().flat_map(|it| &it.moves) {
            table.push([
                asked.server.to_string(),
                branch.to_string(),
                from.to_string(),
                to.to_string(),
                word(state),
                reason.clone().unwrap_or_else(dash),
            ]);
        }
    }
    table
}

/// The word for a value as JSON has it.
pub fn word(value: &impl Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_str().unwrap_or("-").to_owned()
}
