//! `tandem certificate`: sign new ones, show what servers present, have them read their files again.

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use model::{ServerName, WallTime};
use node::{
    api::wire::{CertificateReport, CertificateStatus},
    peers::PeerError,
};
use serde::Serialize;

use crate::{
    cli::{CertificateCommand, Output},
    init,
    output::{self, Table},
    remote::{ANSWER_WITHIN, Remote},
    time,
};

const PATH: &str = "/v1/certificates";
const SECONDS_PER_DAY: i64 = 86_400;
/// Octets of a fingerprint in the table; JSON has all of it.
const FINGERPRINT_SHOWN: usize = 16;

/// What one server said.
#[derive(Debug, Serialize)]
struct Asked {
    server: ServerName,
    #[serde(flatten)]
    report: Option<CertificateReport>,
    /// Why there is none.
    error: Option<String>,
    /// Whether the server refused to answer, where others were not reached.
    #[serde(skip)]
    is_refused: bool,
}

/// Runs a `tandem certificate` command.
pub async fn run(output: Output, command: CertificateCommand) -> Result<ExitCode> {
    match command {
        CertificateCommand::Renew { deployment } => {
            init::renew_certificates(&deployment.dir).map(|()| ExitCode::SUCCESS)
        }
        CertificateCommand::Show { deployment } => ask(output, &deployment.dir, false).await,
        CertificateCommand::Reload { deployment } => ask(output, &deployment.dir, true).await,
    }
}

/// Asks every server. Exit code 1 when one has refused its files, 2 when one did not answer.
async fn ask(output: Output, dir: &Path, is_reload: bool) -> Result<ExitCode> {
    let remote = Remote::open(dir)?;
    let asking = remote.topology.servers.iter().map(|server| {
        let (client, endpoint) = (remote.client.clone(), Remote::endpoint(server));
        let asked = tokio::spawn(async move {
            if is_reload {
                client.post::<CertificateReport>(&endpoint, PATH, &(), ANSWER_WITHIN).await
            } else {
                client.get::<CertificateReport>(&endpoint, PATH, ANSWER_WITHIN).await
            }
        });
        (server.name.clone(), asked)
    });
    let mut answers = Vec::new();
    // All are begun before the first answer is awaited.
    for (server, asked) in asking.collect::<Vec<_>>() {
        let (report, error, is_refused) = match asked.await {
            Ok(Ok(report)) => (Some(report), None, false),
            Ok(Err(error)) => {
                let is_refused = matches!(error, PeerError::Refused { .. });
                (None, Some(format!("{:#}", anyhow::Error::new(error))), is_refused)
            }
            Err(error) => (None, Some(error.to_string()), false),
        };
        answers.push(Asked { server, report, error, is_refused });
    }
    output::print(output, &answers, || table(&answers))?;
    for line in complaints(&answers) {
        eprintln!("{line}");
    }
    Ok(code(&answers))
}

fn complaints(answers: &[Asked]) -> Vec<String> {
    let refused = |asked: &Asked| {
        let reason = asked.report.as_ref()?.refused.as_ref()?;
        Some(format!("{}: the files are refused, the former ones stay in force: {reason}", asked.server))
    };
    let error = |asked: &Asked| asked.error.as_ref().map(|error| format!("{}: {error}", asked.server));
    answers.iter().filter_map(|asked| refused(asked).or_else(|| error(asked))).collect()
}

fn code(answers: &[Asked]) -> ExitCode {
    let is_bad = |asked: &Asked| match &asked.report {
        Some(report) => report.refused.is_some(),
        None => asked.is_refused,
    };
    if answers.iter().any(is_bad) {
        ExitCode::from(1)
    } else if answers.iter().any(|asked| asked.report.is_none()) {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}

fn table(answers: &[Asked]) -> Table {
    let mut table =
        Table::new(&["server", "for", "subject", "names", "not after", "days left", "fingerprint", "what"]);
    for Asked { server, report, .. } in answers {
        let Some(report) = report else {
            let dash = || "-".to_owned();
            let (server, what) = (server.to_string(), "not reached".to_owned());
            table.push([server, dash(), dash(), dash(), dash(), dash(), dash(), what]);
            continue;
        };
        let what = match (&report.refused, report.is_changed) {
            (Some(_), _) => "newer files refused",
            (None, true) => "new",
            (None, false) => "in force",
        };
        for certificate in &report.certificates {
            table.push(row(server, certificate, what));
        }
    }
    table
}

fn row(server: &ServerName, certificate: &CertificateStatus, what: &str) -> [String; 8] {
    let names = if certificate.names.is_empty() { "-".to_owned() } else { certificate.names.join(",") };
    [
        server.to_string(),
        certificate.part.clone(),
        certificate.subject.clone(),
        names,
        time::utc(WallTime::from_secs(certificate.not_after_s)),
        certificate.expires_in_s.div_euclid(SECONDS_PER_DAY).to_string(),
        certificate.fingerprint.chars().take(FINGERPRINT_SHOWN).collect(),
        what.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(refused: Option<&str>) -> Asked {
        let report = CertificateReport {
            certificates: Vec::new(),
            is_changed: false,
            refused: refused.map(str::to_owned),
        };
        let server = ServerName::new("east1").unwrap();
        Asked { server, report: Some(report), error: None, is_refused: false }
    }

    #[test]
    fn a_refused_file_is_1_and_a_silent_server_is_2() {
        let silent = || Asked { report: None, error: Some("no route".to_owned()), ..said(None) };

        assert_eq!(code(&[said(None)]), ExitCode::SUCCESS);
        assert_eq!(code(&[said(None), silent()]), ExitCode::from(2));
        assert_eq!(code(&[said(Some("expired")), silent()]), ExitCode::from(1));
        assert_eq!(complaints(&[said(None), said(Some("expired")), silent()]).len(), 2);
    }
}
