//! The asking side.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use hashbrown::HashMap;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;
use model::{Fqdn, limits};
use rustls::{ClientConfig, pki_types::ServerName as TlsName};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::TcpSocket, sync::Mutex, time::timeout};
use tokio_rustls::TlsConnector;

/// Connections kept open to one endpoint between requests.
const IDLE_CONNECTIONS_MAX: usize = 4;

/// A server to ask: its address and the name its certificate must carry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Address of its `internal_http` listener.
    pub address: SocketAddr,
    /// Its FQDN.
    pub name: Fqdn,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.address)
    }
}

/// Why a request between servers brought no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No connection, or it broke before the request was sent: nothing happened there.
    #[error("{endpoint} cannot be reached")]
    Unreachable {
        /// Who was asked.
        endpoint: Endpoint,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke or time ran out after the request was sent: what happened there is unknown.
    #[error("{endpoint} did not answer {path}: whether it acted is unknown")]
    Unknown {
        /// Who was asked.
        endpoint: Endpoint,
        /// What was asked.
        path: String,
    },
    /// The server answered with an error.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The reason in the answer's body.
        message: String,
    },
    /// The answer is not what this version expects.
    #[error("{endpoint} answered {path} with something else than expected")]
    Answer {
        /// Who was asked.
        endpoint: Endpoint,
        /// What was asked.
        path: String,
        /// Why it could not be read.
        #[source]
        source: serde_json::Error,
    },
}

/// One open connection.
type Sender = SendRequest<Full<Bytes>>;

/// Asks servers over mutual TLS and keeps a few connections to each. Clones share them.
#[derive(Clone)]
pub struct PeerClient {
    tls: Arc<ArcSwap<ClientConfig>>,
    source: Option<IpAddr>,
    idle: Arc<Mutex<HashMap<Endpoint, Vec<Sender>>>>,
}

impl PeerClient {
    /// A client that presents the certificate in `tls` and connects from the address `source`: a server from
    /// the one that the topology gives it, so that rules between sites can name it.
    pub fn new(tls: Arc<ClientConfig>, source: Option<IpAddr>) -> Self {
        Self { tls: Arc::new(ArcSwap::new(tls)), source, idle: Arc::default() }
    }

    /// Presents another certificate in connections from now on, in all clones.
    pub fn set_tls(&self, tls: Arc<ClientConfig>) {
        self.tls.store(tls);
    }

    /// Asks with GET.
    ///
    /// Errors: [`PeerError`]. `within` bounds connecting and answering together.
    pub async fn get<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        path: &str,
        within: Duration,
    ) -> Result<T, PeerError> {
        self.ask(endpoint, Method::GET, path, Bytes::new(), within).await
    }

    /// Asks with POST and a JSON body.
    ///
    /// Errors: [`PeerError`]. `within` bounds connecting and answering together.
    pub async fn post<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, PeerError> {
        self.send(endpoint, Method::POST, path, body, within).await
    }

    /// Asks with PATCH and a JSON body.
    ///
    /// Errors: [`PeerError`]. `within` bounds connecting and answering together.
    pub async fn patch<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, PeerError> {
        self.send(endpoint, Method::PATCH, path, body, within).await
    }

    /// Asks with POST and a body that is not JSON; the answer is.
    ///
    /// Errors: [`PeerError`].
    pub async fn post_octets<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        path: &str,
        body: Vec<u8>,
        within: Duration,
    ) -> Result<T, PeerError> {
        self.ask(endpoint, Method::POST, path, Bytes::from(body), within).await
    }

    /// Asks with DELETE.
    ///
    /// Errors: [`PeerError`].
    pub async fn delete<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        path: &str,
        within: Duration,
    ) -> Result<T, PeerError> {
        self.ask(endpoint, Method::DELETE, path, Bytes::new(), within).await
    }

    /// Asks with GET for octets that are not JSON.
    ///
    /// Errors: [`PeerError`].
    pub async fn get_octets(
        &self,
        endpoint: &Endpoint,
        path: &str,
        within: Duration,
    ) -> Result<Bytes, PeerError> {
        self.ask_octets(endpoint, Method::GET, path, Bytes::new(), within).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        method: Method,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, PeerError> {
        let body = serde_json::to_vec(body).map_err(|source| PeerError::Answer {
            endpoint: endpoint.clone(),
            path: path.to_owned(),
            source,
        })?;
        self.ask(endpoint, method, path, Bytes::from(body), within).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        method: Method,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<T, PeerError> {
        let body = self.ask_octets(endpoint, method, path, body, within).await?;
        let body = if body.is_empty() { Bytes::from_static(b"null") } else { body };
        serde_json::from_slice(&body).map_err(|source| PeerError::Answer {
            endpoint: endpoint.clone(),
            path: path.to_owned(),
            source,
        })
    }

    async fn ask_octets(
        &self,
        endpoint: &Endpoint,
        method: Method,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, PeerError> {
        let sender = match timeout(within, self.sender(endpoint)).await {
            Ok(connected) => {
                connected.map_err(|source| PeerError::Unreachable { endpoint: endpoint.clone(), source })?
            }
            Err(_) => {
                let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
                return Err(PeerError::Unreachable { endpoint: endpoint.clone(), source });
            }
        };
        let unknown = || PeerError::Unknown { endpoint: endpoint.clone(), path: path.to_owned() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, endpoint.name.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| unknown())?;
        let (status, body) = timeout(within, self.exchange(endpoint, sender, request))
            .await
            .map_err(|_| unknown())?
            .map_err(|_| unknown())?;
        if !status.is_success() {
            let message = String::from_utf8_lossy(&body).trim().to_owned();
            return Err(PeerError::Refused { status: status.as_u16(), message });
        }
        Ok(body)
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        mut sender: Sender,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), limits::PEER_BODY_BYTES_MAX).collect().await?.to_bytes();
        let mut idle = self.idle.lock().await;
        let connections = idle.entry(endpoint.clone()).or_default();
        if connections.len() < IDLE_CONNECTIONS_MAX {
            connections.push(sender);
        }
        Ok((status, body))
    }

    async fn sender(&self, endpoint: &Endpoint) -> std::io::Result<Sender> {
        loop {
            let kept = self.idle.lock().await.get_mut(endpoint).and_then(Vec::pop);
            match kept {
                Some(mut sender) => {
                    if !sender.is_closed() && sender.ready().await.is_ok() {
                        return Ok(sender);
                    }
                }
                None => return self.connect(endpoint).await,
            }
        }
    }

    async fn connect(&self, endpoint: &Endpoint) -> std::io::Result<Sender> {
        let address = endpoint.address;
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        let name = TlsName::try_from(endpoint.name.as_str().to_owned()).map_err(std::io::Error::other)?;
        let stream = TlsConnector::from(self.tls.load_full()).connect(name, stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
