//! The answering side: one listener, every connection under mutual TLS and named.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Extension, Router, extract::DefaultBodyLimit};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use model::limits;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use topology::Topology;
use tracing::{debug, warn};

use super::{Caller, Identity};

/// Why the listener for other servers could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (internal_http): end the program that uses it or change the topology")]
pub struct PeerServerError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// The listener for other servers and for the command line.
pub struct PeerServer {
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    topology: Arc<Topology>,
}

impl PeerServer {
    /// Opens the listener; `tls` demands a certificate of the deployment's authority.
    ///
    /// Errors: [`PeerServerError`] when the address cannot be used.
    pub async fn bind(
        address: SocketAddr,
        tls: Arc<ServerConfig>,
        topology: Arc<Topology>,
    ) -> Result<Self, PeerServerError> {
        let listener =
            TcpListener::bind(address).await.map_err(|source| PeerServerError { address, source })?;
        Ok(Self { listener, tls: Arc::new(ArcSwap::new(tls)), topology })
    }

    /// What connections are accepted with from now on; may be replaced.
    pub fn tls(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.tls)
    }

    /// Answers with `router` until the task is dropped. Handlers find an [`Extension`] of [`Caller`].
    pub async fn run(self, router: Router) {
        let router = router.layer(DefaultBodyLimit::max(limits::PEER_BODY_BYTES_MAX));
        let room = Arc::new(Semaphore::new(limits::PEER_REQUESTS_MAX));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let acceptor = TlsAcceptor::from(self.tls.load_full());
                    let topology = Arc::clone(&self.topology);
                    let router = router.clone();
                    tokio::spawn(async move {
                        serve(stream, from, acceptor, &topology, router).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "connection between servers not accepted");
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    acceptor: TlsAcceptor,
    topology: &Topology,
    router: Router,
) {
    let shaken = timeout(limits::CONNECTION_HALF_OPEN_MAX, acceptor.accept(stream)).await;
    let Ok(Ok(stream)) = shaken else {
        debug!(%from, "connection between servers failed its handshake");
        return;
    };
    let identity = match Identity::of(stream.get_ref().1.peer_certificates(), topology) {
        Ok(identity) => identity,
        Err(error) => {
            warn!(%from, %error, "connection between servers refused");
            return;
        }
    };
    let service = TowerToHyperService::new(router.layer(Extension(Caller(identity))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(120))
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%from, %error, "connection between servers ended");
    }
}
