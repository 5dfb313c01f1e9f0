//! `tandem topology`: lint, show, diff, reload.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result};
use topology::{Finding, decode, diff, lint, replacement_findings};

use crate::{
    cli::{Output, TopologyCommand},
    output::{self, Table},
    serve::read_topology,
    topology_reload,
};

/// Runs a `tandem topology` command.
pub async fn run(output: Output, command: &TopologyCommand) -> Result<ExitCode> {
    match command {
        TopologyCommand::Lint { file } => {
            let octets = read(file)?;
            let findings = decode(&octets).map_or_else(|finding| vec![finding], lint);
            print_findings(output, &findings)
        }
        TopologyCommand::Show { file } => {
            let topology = read_topology(file)?;
            match output {
                Output::Table => print!("{}", topology.to_toml()),
                Output::Json => output::print(output, &topology, || Table::new(&[]))?,
            }
            Ok(ExitCode::SUCCESS)
        }
        TopologyCommand::Reload { what_if, deployment } => {
            topology_reload::run(output, &deployment.dir, *what_if).await
        }
        TopologyCommand::Diff { old, new } => {
            let (old, new) = (read_topology(old)?, read_topology(new)?);
            let changes = diff(&old, &new);
            output::print(output, &changes, || {
                let mut table = Table::new(&["change"]);
                changes.iter().for_each(|change| table.push([change.to_string()]));
                table
            })?;
            let findings = replacement_findings(&old, &new, |_| 0);
            for finding in &findings {
                eprintln!("{finding}");
            }
            Ok(if findings.iter().any(Finding::is_error) { ExitCode::from(1) } else { ExitCode::SUCCESS })
        }
    }
}

fn print_findings(output: Output, findings: &[Finding]) -> Result<ExitCode> {
    output::print(output, &findings, || {
        let mut table = Table::new(&["severity", "rule", "subject", "what", "remedy"]);
        for finding in findings {
            table.push([
                finding.severity.to_string(),
                finding.rule.to_string(),
                finding.subject.clone(),
                finding.message.clone(),
                finding.remedy.clone(),
            ]);
        }
        table
    })?;
    Ok(if findings.iter().any(Finding::is_error) { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))
}
