//! `tandem topology reload`: every server reads its topology file again.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::Result;
use model::ServerName;
use node::{
    api::wire::{Reload, Reloaded},
    peers::PeerError,
};
use serde::Serialize;

use crate::{
    cli::Output,
    output::{self, Table},
    remote::Remote,
};

/// How long a server may take: it reads a file, and writes a small one.
const RELOAD_WITHIN: Duration = Duration::from_secs(10);

/// What one server said.
#[derive(Debug, Serialize)]
struct Asked {
    server: ServerName,
    /// What became of it; `None` when the server refused to be asked, or did not answer.
    #[serde(flatten)]
    reloaded: Option<Reloaded>,
    /// Why there is none.
    error: Option<String>,
    /// Whether the server was not reached: it takes the file when it starts.
    is_unreached: bool,
}

/// Asks every server what its file would change. Unless one refuses, or `what_if`, asks them to take it.
///
/// Exit code 1 when a server refuses, and nothing was changed if it did so before; 2 when one was not
/// reached.
pub async fn run(output: Output, dir: &Path, what_if: bool) -> Result<ExitCode> {
    let remote = Remote::open(dir)?;
    let mut answers = ask_all(&remote, &Reload::default()).await;
    let mut against = against(&answers);
    if against.is_empty() && !what_if {
        let fingerprint = answers.iter().find_map(|asked| asked.reloaded.as_ref());
        let apply = fingerprint.map(|reloaded| reloaded.fingerprint.clone());
        if apply.is_some() {
            answers = ask_all(&remote, &Reload { apply }).await;
            against = refusals(&answers);
        }
    }
    output::print(output, &answers, || table(&answers))?;
    for line in &against {
        eprintln!("{line}");
    }
    let is_complete = answers.iter().all(|asked| asked.reloaded.is_some());
    Ok(match (against.is_empty(), is_complete) {
        (false, _) => ExitCode::from(1),
        (true, false) => ExitCode::from(2),
        (true, true) => ExitCode::SUCCESS,
    })
}

/// All at once: until every server has the new topology some hold back changes of users' data.
async fn ask_all(remote: &Remote, order: &Reload) -> Vec<Asked> {
    let asking: Vec<_> = remote
        .topology
        .servers
        .iter()
        .map(|server| {
            let (client, endpoint, order) = (remote.client.clone(), Remote::endpoint(server), order.clone());
            let asked = tokio::spawn(async move {
                client.post::<Reloaded>(&endpoint, "/v1/topology", &order, RELOAD_WITHIN).await
            });
            (server.name.clone(), asked)
        })
        .collect();
    let mut answers = Vec::new();
    for (server, asked) in asking {
        let (reloaded, error, is_unreached) = match asked.await {
            Ok(Ok(reloaded)) => (Some(reloaded), None, false),
            Ok(Err(error)) => {
                let is_unreached = !matches!(error, PeerError::Refused { .. });
                (None, Some(format!("{:#}", anyhow::Error::new(error))), is_unreached)
            }
            Err(error) => (None, Some(error.to_string()), true),
        };
        answers.push(Asked { server, reloaded, error, is_unreached });
    }
    answers
}

/// Everything that speaks against taking the file, before it was taken anywhere.
fn against(answers: &[Asked]) -> Vec<String> {
    let mut against = refusals(answers);
    let mut files = answers.iter().filter_map(|asked| asked.reloaded.as_ref().map(|found| (asked, found)));
    if let Some((first, file)) = files.next() {
        let others = files.filter(|(_, other)| other.fingerprint != file.fingerprint);
        against.extend(others.map(|(other, _)| {
            format!("{}: its file is not that of {}: give all servers the same", other.server, first.server)
        }));
    }
    against
}

fn refusals(answers: &[Asked]) -> Vec<String> {
    let mut lines = Vec::new();
    for asked in answers {
        let refusals = asked.reloaded.iter().flat_map(|reloaded| &reloaded.refusals);
        lines.extend(refusals.map(|refusal| format!("{}: {refusal}", asked.server)));
        if let (Some(error), false) = (&asked.error, asked.is_unreached) {
            lines.push(format!("{}: {error}", asked.server));
        }
    }
    lines
}

fn table(answers: &[Asked]) -> Table {
    let mut table = Table::new(&["server", "before", "after", "file", "what"]);
    let dash = || "-".to_owned();
    for asked in answers {
        match &asked.reloaded {
            Some(it) => table.push([
                asked.server.to_string(),
                it.before.to_string(),
                it.after.to_string(),
                it.offered.map_or_else(dash, |version| version.to_string()),
                match (it.refusals.len(), it.changes.is_empty()) {
                    (0, true) => "nothing changes".to_owned(),
                    (0, false) => it.changes.join("; "),
                    (count, _) => format!("refused, {count} reasons"),
                },
            ]),
            None => {
                let error = asked.error.clone().unwrap_or_else(dash);
                let what = if asked.is_unreached {
                    format!("not reached, takes the file when it starts: {error}")
                } else {
                    error
                };
                table.push([asked.server.to_string(), dash(), dash(), dash(), what]);
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(server: &str, fingerprint: &str, refusals: &[&str]) -> Asked {
        let reloaded = Reloaded {
            before: 1,
            after: 1,
            offered: Some(2),
            fingerprint: fingerprint.to_owned(),
            changes: Vec::new(),
            refusals: refusals.iter().map(|&text| text.to_owned()).collect(),
        };
        let server = ServerName::new(server).unwrap();
        Asked { server, reloaded: Some(reloaded), error: None, is_unreached: false }
    }

    #[test]
    fn one_refusal_or_another_file_speaks_against_all_and_silence_does_not() {
        let silent = || Asked {
            server: ServerName::new("west1").unwrap(),
            reloaded: None,
            error: Some("cannot be reached".to_owned()),
            is_unreached: true,
        };

        assert_eq!(against(&[said("east1", "a", &[]), silent(), said("branch1a", "a", &[])]).len(), 0);
        assert_eq!(against(&[said("east1", "a", &[]), said("branch1a", "b", &[])]).len(), 1);
        assert_eq!(against(&[said("east1", "a", &["no", "never"]), silent()]).len(), 2);
        let forbidden = Asked { is_unreached: false, ..silent() };
        assert_eq!(against(&[forbidden]).len(), 1);
    }
}
