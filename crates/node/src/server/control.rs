//! A server of the control role: the control store over HTTP.

use std::{future::Future, sync::Arc};

use store::RedbControlStore;
use topology::{Server, Topology};
use tracing::info;

use super::{ServeError, say_ready, tls::Certificates};
use crate::{
    Deployment,
    api::{control::Control, control_routes, wire::ServerStatus},
    peers::PeerServer,
};

/// Name of the control store's file in the server's data folder.
const CONTROL_FILE: &str = "control.redb";

/// Runs until `stop` is done.
pub async fn run(
    deployment: &Deployment,
    topology: Arc<Topology>,
    server: Server,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let certificates = Certificates::read(deployment, &server.name)?;
    let store = RedbControlStore::open(&deployment.data(&server.name).join(CONTROL_FILE))?;
    let control = Arc::new(Control { store, topology: Arc::clone(&topology) });
    let status = ServerStatus {
        server: server.name.clone(),
        pool: server.pool.clone(),
        role: "control".to_owned(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        topology_version: topology.version,
        uptime_s: 0,
        users_known: 0,
        health: "ok".to_owned(),
        homes: Vec::new(),
        copies: Vec::new(),
        counters: Vec::new(),
    };
    let listener =
        PeerServer::bind(server.listen.internal_http, certificates.internal_server, topology).await?;
    info!(node = %server.name, "control server ready");
    say_ready();
    tokio::select! {
        () = listener.run(control_routes(control, status)) => {}
        () = stop => {}
    }
    Ok(())
}
