//! One server from start to end: opens everything, says that it is ready, runs until told to stop.

mod control;
mod error;
mod registrar;

use std::{future::Future, io::Write, sync::Arc};

use model::ServerName;
use topology::{Role, Topology};

use crate::{Deployment, TopologyInForce};
pub use error::ServeError;

/// What a server prints on standard output, alone on its line, once it answers on all its listeners.
pub const READY_LINE: &str = "ready";

/// Runs one server of the topology until `stop` is done.
///
/// Errors: [`ServeError`], each with what is wrong and what to do; nothing was acknowledged that is lost.
pub async fn serve(
    deployment: Deployment,
    topology: Topology,
    name: &ServerName,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let server =
        topology.server(name).cloned().ok_or_else(|| ServeError::UnknownServer { name: name.clone() })?;
    let role = topology.pool(&server.pool).map_or(Role::Control, |pool| pool.role);
    let topology = Arc::new(TopologyInForce::new(deployment.topology(), topology));
    match role {
        Role::Control => control::run(&deployment, topology, server, stop).await,
        Role::FrontEnd | Role::Branch => registrar::run(&deployment, topology, server, role, stop).await,
        Role::Director | Role::Edge | Role::Mediation => Err(ServeError::RoleNotThere { role }),
    }
}

/// Tells whoever started us that we are ready; nobody may be listening.
fn say_ready() {
    let mut out = std::io::stdout();
    let _nobody_listens = writeln!(out, "{READY_LINE}").and_then(|()| out.flush());
}
