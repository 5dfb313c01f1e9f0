//! A server of the control role: the control store over HTTP.

use std::{future::Future, sync::Arc};

use store::RedbControlStore;
use topology::Server;
use tracing::info;

use super::{ServeError, say_ready, tls::Certificates};
use crate::{
    Deployment, TopologyInForce,
    api::{control::Control, control_routes},
    peers::PeerServer,
};

/// Name of the control store's file in the server's data folder.
const CONTROL_FILE: &str = "control.redb";

/// Runs until `stop` is done.
pub async fn run(
    deployment: &Deployment,
    topology: Arc<TopologyInForce>,
    server: Server,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let certificates = Certificates::read(deployment, &server.name)?;
    let store = RedbControlStore::open(&deployment.data(&server.name).join(CONTROL_FILE))?;
    let start = topology.now();
    let control = Arc::new(Control { store, topology, server: server.clone() });
    let listener = PeerServer::bind(server.listen.internal_http, certificates.internal_server, start).await?;
    info!(node = %server.name, "control server ready");
    say_ready();
    tokio::select! {
        () = listener.run(control_routes(control)) => {}
        () = stop => {}
    }
    Ok(())
}
