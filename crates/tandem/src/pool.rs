//! `tandem pool ...`: how the home pools are, and the operations that move their users.

mod operate;
mod plan;
mod status;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use node::api::wire::ServerStatus;

use crate::{
    cli::{OperationArguments, Output, PoolCommand},
    remote::Remote,
};
use plan::{Asked, Operation};

/// How long a server may take to say how it is.
const STATUS_WITHIN: Duration = Duration::from_secs(3);

/// Runs a `tandem pool` command.
pub async fn run(output: Output, command: PoolCommand) -> Result<ExitCode> {
    let operate =
        async |operation, arguments: OperationArguments| operate::run(output, operation, &arguments).await;
    match command {
        PoolCommand::Status { deployment } => status::run(output, &deployment.dir).await,
        PoolCommand::Failover { disaster, arguments } => {
            operate(Operation::Failover { disaster }, arguments).await
        }
        PoolCommand::Switchover { arguments } => operate(Operation::Switchover, arguments).await,
        PoolCommand::Failback { disaster, arguments } => {
            operate(Operation::Failback { disaster }, arguments).await
        }
        PoolCommand::Cancel { arguments } => operate(Operation::Cancel, arguments).await,
    }
}

/// Asks every server of the deployment how it is, all at once; answers in the order of the topology.
async fn ask_all(remote: &Remote) -> Vec<Asked> {
    let asking: Vec<_> = remote
        .topology
        .servers
        .iter()
        .map(|server| {
            let (client, endpoint) = (remote.client.clone(), Remote::endpoint(server));
            let asked = tokio::spawn(async move {
                client.get::<ServerStatus>(&endpoint, "/v1/status", STATUS_WITHIN).await
            });
            (server, asked)
        })
        .collect();
    let mut answers = Vec::new();
    for (server, asked) in asking {
        let answer = match asked.await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(format!("{:#}", anyhow::Error::new(error))),
            Err(error) => Err(error.to_string()),
        };
        let (status, error) = match answer {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(error)),
        };
        answers.push(Asked { server: server.name.clone(), pool: server.pool.clone(), status, error });
    }
    answers
}
