//! `tandem pool status`: who owns each home pool, and how its servers are.

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use model::ServerName;
use node::api::wire::ServerStatus;
use serde::Serialize;

use crate::{
    cli::Output,
    output::{self, Table},
    remote::{ANSWER_WITHIN, Remote},
};

/// One server's answer, or why there is none.
#[derive(Debug, Serialize)]
struct Asked {
    server: ServerName,
    pool: String,
    status: Option<ServerStatus>,
    error: Option<String>,
}

/// Asks every server; exit code 2 when one does not answer.
pub async fn status(output: Output, dir: &Path) -> Result<ExitCode> {
    let remote = Remote::open(dir)?;
    let mut answers = Vec::new();
    for server in &remote.topology.servers {
        let answer: Result<ServerStatus, _> =
            remote.client.get(&Remote::endpoint(server), "/v1/status", ANSWER_WITHIN).await;
        let (status, error) = match answer {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(format!("{:#}", anyhow::Error::new(error)))),
        };
        answers.push(Asked { server: server.name.clone(), pool: server.pool.to_string(), status, error });
    }
    output::print(output, &answers, || table(&answers))?;
    let is_complete = answers.iter().all(|asked| asked.status.is_some());
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn table(answers: &[Asked]) -> Table {
    let mut table = Table::new(&[
        "server", "pool", "home", "part", "owner", "epoch", "serves", "lease ms", "bindings", "health",
    ]);
    let dash = || "-".to_owned();
    for asked in answers {
        let Some(status) = &asked.status else {
            let error = asked.error.clone().unwrap_or_else(dash);
            let (server, pool) = (asked.server.to_string(), asked.pool.clone());
            table.push([server, pool, dash(), dash(), dash(), dash(), dash(), dash(), dash(), error]);
            continue;
        };
        if status.homes.is_empty() {
            let (server, pool, health) =
                (asked.server.to_string(), asked.pool.clone(), status.health.clone());
            table.push([server, pool, dash(), dash(), dash(), dash(), dash(), dash(), dash(), health]);
        }
        for home in &status.homes {
            table.push([
                asked.server.to_string(),
                asked.pool.clone(),
                home.home.to_string(),
                home.part.clone(),
                home.owner.as_ref().map_or_else(dash, ToString::to_string),
                home.epoch.map_or_else(dash, |epoch| epoch.to_string()),
                home.service.clone().unwrap_or_else(|| "no".to_owned()),
                home.authority_ms.map_or_else(dash, |left| left.to_string()),
                home.bindings.to_string(),
                status.health.clone(),
            ]);
        }
    }
    table
}
