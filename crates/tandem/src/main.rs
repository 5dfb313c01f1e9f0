//! The tandem binary: run a server, bring a deployment up, or talk to one.

mod ban;
mod certificate_commands;
mod certificates;
mod cli;
mod conflicts;
mod failure;
mod init;
mod output;
mod phones;
mod pool;
mod registration;
mod remote;
mod serve;
mod time;
mod topology_commands;
mod topology_reload;
mod up;
mod user;
mod user_cli;
mod user_documents;
mod user_import;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser;
use tokio::runtime::Builder;

/// Measured: the system's allocator spent a sixth of a REGISTER on memory that one thread takes and another
/// gives back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use cli::{Cli, Command};
use failure::exit_code;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tandem: {error:#}");
            exit_code(&error)
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let output = cli.output;
    match cli.command {
        Command::Init { dir } => init::run(&dir).map(|()| ExitCode::SUCCESS),
        Command::Up { dir, restart_after } => {
            runtime.block_on(up::run(&dir, Duration::from_secs(restart_after)))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Serve { topology, server, until_stdin_closes } => {
            runtime.block_on(serve::run(&topology, &server, until_stdin_closes))?;
            runtime.shutdown_timeout(Duration::from_secs(2));
            Ok(ExitCode::SUCCESS)
        }
        Command::Topology(command) => runtime.block_on(topology_commands::run(output, &command)),
        Command::User(command) => runtime.block_on(user::run(output, command)),
        Command::Pool(command) => runtime.block_on(pool::run(output, command)),
        Command::Conflicts(command) => runtime.block_on(conflicts::run(output, command)),
        Command::Ban(command) => runtime.block_on(ban::run(output, command)),
        Command::Registration(command) => runtime.block_on(registration::run(output, command)),
        Command::Certificate(command) => runtime.block_on(certificate_commands::run(output, command)),
    }
}
