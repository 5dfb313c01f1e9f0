//! `tandem registration`: show and remove bindings.

use std::process::ExitCode;

use anyhow::Result;
use model::AddressOfRecord;
use node::{
    api::wire::{Changed, RegistrationRecord},
    peers::PeerError,
};

use crate::{
    cli::{Output, RegistrationCommand},
    output::{self, Table},
    remote::{ANSWER_WITHIN, Remote, address, escape},
};

/// Runs a `tandem registration` command.
pub async fn run(output: Output, command: RegistrationCommand) -> Result<ExitCode> {
    match command {
        RegistrationCommand::Show { aor, deployment } => {
            show(output, &Remote::open(&deployment.dir)?, &address(&aor)?).await
        }
        RegistrationCommand::Remove { aor, contact, deployment } => {
            let remote = Remote::open(&deployment.dir)?;
            let aor = address(&aor)?;
            let changed = remove_everywhere(&remote, &aor, contact.as_deref()).await?;
            output::print(output, &Changed { changed }, || {
                let mut table = Table::new(&["user", "removed"]);
                table.push([aor.to_string(), changed.to_string()]);
                table
            })?;
            Ok(if changed == 0 { ExitCode::from(1) } else { ExitCode::SUCCESS })
        }
    }
}

/// Removes a user's bindings, or one of them, on every server; returns how many there were.
pub async fn remove_everywhere(
    remote: &Remote,
    aor: &AddressOfRecord,
    contact: Option<&str>,
) -> Result<usize> {
    let contact = contact.map(|contact| format!("&contact={}", escape(contact))).unwrap_or_default();
    let path = format!("/v1/registrations?aor={}{contact}", escape(aor.as_str()));
    let mut removed = 0;
    for server in remote.registrars() {
        let endpoint = Remote::endpoint(server);
        match remote.client.delete::<Changed>(&endpoint, &path, ANSWER_WITHIN).await {
            Ok(done) => removed += done.changed,
            Err(PeerError::Refused { status: 404, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(removed)
}

/// Asks every server that answers; exit code 2 when none does, 1 when none has a binding.
async fn show(output: Output, remote: &Remote, aor: &AddressOfRecord) -> Result<ExitCode> {
    let path = format!("/v1/registrations?aor={}", escape(aor.as_str()));
    let mut records: Vec<RegistrationRecord> = Vec::new();
    let mut unreachable = None;
    let mut answered = 0;
    for server in remote.registrars() {
        match remote.client.get::<Vec<_>>(&Remote::endpoint(server), &path, ANSWER_WITHIN).await {
            Ok(found) => {
                records.extend(found);
                answered += 1;
            }
            Err(error) => unreachable = Some(error),
        }
    }
    if let Some(error) = unreachable {
        if answered == 0 {
            return Err(error.into());
        }
        eprintln!("tandem: not all servers answered: {:#}", anyhow::Error::new(error));
    }
    output::print(output, &records, || {
        let mut table = Table::new(&["server", "home", "contact", "q", "expires s", "source", "path"]);
        for record in &records {
            table.push([
                record.server.to_string(),
                record.home.to_string(),
                record.contact.clone(),
                format!("{}.{:03}", record.q / 1_000, record.q % 1_000),
                record.expires_in_s.to_string(),
                record.source.clone().unwrap_or_else(|| "-".to_owned()),
                record.path.len().to_string(),
            ]);
        }
        table
    })?;
    Ok(if records.is_empty() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}
