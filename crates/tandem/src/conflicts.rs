//! `tandem conflicts`: orphans that contradict what was changed meanwhile, and what to keep.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use model::PoolName;
use node::{
    accounts,
    api::wire::{Changed, ConflictRecord, ConflictResolution, Keep},
};
use topology::Role;

use crate::{
    cli::{ConflictsCommand, KeepArgument, Output},
    output::{self, Table},
    remote::{ANSWER_WITHIN, Remote},
};

/// Runs a `tandem conflicts` command.
pub async fn run(output: Output, command: ConflictsCommand) -> Result<ExitCode> {
    match command {
        ConflictsCommand::List { deployment } => {
            let found = all(&Remote::open(&deployment.dir)?).await?;
            output::print(output, &found, || table(&found))?;
        }
        ConflictsCommand::Show { id, deployment } => {
            let remote = Remote::open(&deployment.dir)?;
            let (journal, _) = find(&remote, &id).await?;
            let path = format!("/v1/conflicts?journal={journal}&id={id}");
            let found: Vec<ConflictRecord> = ask(&remote, &journal, &path).await?;
            let found = found.first().with_context(|| format!("there is no conflict {id}"))?;
            output::print(output, found, || details(found))?;
        }
        ConflictsCommand::Resolve { id, keep, deployment } => {
            resolve(output, &Remote::open(&deployment.dir)?, &id, keep).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn resolve(output: Output, remote: &Remote, id: &str, keep: KeepArgument) -> Result<()> {
    let (journal, _) = find(remote, id).await?;
    let body = ConflictResolution {
        journal: journal.clone(),
        id: id.to_owned(),
        keep: match keep {
            KeepArgument::Present => Keep::Present,
            KeepArgument::Orphan => Keep::Orphan,
        },
        operation: format!("{:032x}", accounts::fresh_operation().number()),
    };
    let owner = remote.owner(&journal).await?;
    let changed: Changed = remote.client.post(&owner, "/v1/conflicts", &body, ANSWER_WITHIN).await?;
    output::print(output, &changed, || {
        let mut table = Table::new(&["conflict", "kept"]);
        table.push([id.to_owned(), format!("{keep:?}").to_lowercase()]);
        table
    })?;
    Ok(())
}

/// Conflicts of every journal, as their owners say.
async fn all(remote: &Remote) -> Result<Vec<ConflictRecord>> {
    let mut found: Vec<ConflictRecord> = Vec::new();
    let journals = remote.topology.home_pools().filter(|pool| pool.role == Role::FrontEnd);
    for journal in journals.map(|pool| &pool.name) {
        let mut after = String::new();
        loop {
            let path = format!("/v1/conflicts?journal={journal}{after}");
            let page: Vec<ConflictRecord> = ask(remote, journal, &path).await?;
            let Some(last) = page.last() else { break };
            after = format!("&after={}", last.id);
            found.extend(page);
        }
    }
    Ok(found)
}

async fn find(remote: &Remote, id: &str) -> Result<(PoolName, ConflictRecord)> {
    let found = all(remote).await?.into_iter().find(|conflict| conflict.id == id);
    match found {
        Some(found) => Ok((found.journal.clone(), found)),
        None => bail!("there is no conflict {id}; `tandem conflicts list` names those there are"),
    }
}

/// Asks the owner of a journal.
async fn ask<T: serde::de::DeserializeOwned>(remote: &Remote, journal: &PoolName, path: &str) -> Result<T> {
    let owner = remote.owner(journal).await?;
    Ok(remote.client.get(&owner, path, ANSWER_WITHIN).await?)
}

fn table(found: &[ConflictRecord]) -> Table {
    let mut table = Table::new(&["conflict", "pool", "user", "about", "made in epoch", "made at us"]);
    for conflict in found {
        table.push([
            conflict.id.clone(),
            conflict.journal.to_string(),
            conflict.aor.to_string(),
            conflict.about.clone(),
            conflict.made_in.to_string(),
            conflict.made_at.as_micros().to_string(),
        ]);
    }
    table
}

fn details(conflict: &ConflictRecord) -> Table {
    let mut table = Table::new(&["", ""]);
    table.push(["conflict".to_owned(), conflict.id.clone()]);
    table.push(["user".to_owned(), conflict.aor.to_string()]);
    table.push(["about".to_owned(), conflict.about.clone()]);
    table.push(["orphan".to_owned(), conflict.orphan.to_string()]);
    let present = conflict.present.as_ref().map(ToString::to_string).unwrap_or_default();
    table.push(["present".to_owned(), present]);
    table
}
