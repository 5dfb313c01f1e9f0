//! A server of the control role: the control store over HTTP.

use std::{future::Future, sync::Arc};

use store::RedbControlStore;
use topology::Server;
use tracing::info;

use super::{ServeError, say_ready};
use crate::{
    CertificatesInForce, Deployment, TopologyInForce,
    api::{certificate_routes, control::Control, control_routes},
    certificates,
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
    let certificates = Arc::new(CertificatesInForce::open(deployment, &server)?);
    let store = RedbControlStore::open(&deployment.data(&server.name).join(CONTROL_FILE))?;
    let start = topology.now();
    let control = Arc::new(Control {
        certificates: Arc::clone(&certificates),
        store,
        topology,
        server: server.clone(),
    });
    let tls = Arc::clone(&certificates.now().internal_server);
    let listener = PeerServer::bind(server.listen.internal_http, tls, start).await?;
    let tls = listener.tls();
    certificates.follow(move |new| tls.store(Arc::clone(&new.internal_server)));
    let routes = control_routes(control).merge(certificate_routes(Arc::clone(&certificates)));
    info!(node = %server.name, "control server ready");
    say_ready();
    tokio::select! {
        () = listener.run(routes) => {}
        () = certificates::watch(certificates) => {}
        () = stop => {}
    }
    Ok(())
}
