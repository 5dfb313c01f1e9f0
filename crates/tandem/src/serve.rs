//! `tandem serve`: one server in the foreground.

use std::{io::Read, path::Path};

use anyhow::{Context, Result, bail};
use model::ServerName;
use node::Deployment;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use topology::{Finding, Topology, decode};
use tracing::warn;
use tracing_subscriber::EnvFilter;

use crate::failure::Usage;

/// Environment variable with the log filter, like `info,node=debug`.
const LOG_VARIABLE: &str = "TANDEM_LOG";
/// The filter without that variable: rustls would warn of every phone that greets an IP address.
const LOG_FILTER: &str = "info,rustls=error";

/// Runs the server until SIGTERM, SIGINT or, where asked for, the end of standard input.
pub async fn run(topology_file: &Path, server: &str, until_stdin_closes: bool) -> Result<()> {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let (topology, warnings) = read_with_warnings(topology_file)?;
    for warning in warnings {
        warn!(%warning, "topology");
    }
    let name =
        ServerName::new(server).map_err(|error| Usage(format!("{server:?} is no server name: {error}")))?;
    let deployment = Deployment::of_topology(topology_file);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async {
        let closed = async {
            match until_stdin_closes {
                true => stdin_closed().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = closed => {}
        }
    };
    node::serve(deployment, topology, &name, stop).await?;
    Ok(())
}

/// Done when whoever started us has gone.
async fn stdin_closed() {
    let (done, closed) = oneshot::channel();
    std::thread::spawn(move || {
        let mut nothing = [0; 64];
        while matches!(std::io::stdin().read(&mut nothing), Ok(1..)) {}
        let _ = done.send(());
    });
    let _ = closed.await;
}

/// Reads a topology document; findings become one error that lists all of them.
pub fn read_topology(file: &Path) -> Result<Topology> {
    read_with_warnings(file).map(|(topology, _)| topology)
}

fn read_with_warnings(file: &Path) -> Result<(Topology, Vec<Finding>)> {
    let octets = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let text = match decode(&octets) {
        Ok(text) => text,
        Err(finding) => bail!("{}: {finding}", file.display()),
    };
    match Topology::read(text) {
        Ok(read) => Ok(read),
        Err(findings) => {
            let list: Vec<String> =
                findings.iter().filter(|finding| finding.is_error()).map(Finding::to_string).collect();
            bail!("{} is refused, nothing was changed:\n{}", file.display(), list.join("\n"))
        }
    }
}
