//! The test phone's WebSocket: `tungstenite` as a client, over TCP or over TLS by `rustls`.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tungstenite::{Error, Message, WebSocket, client::IntoClientRequest, http::HeaderValue};

/// How long the thread of a WebSocket waits for something to read before it looks what is to be sent.
const TURN: Duration = Duration::from_millis(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The sending end; the other one is a reader of what arrives.
#[derive(Debug)]
pub(crate) struct WebSocketSender {
    outgoing: mpsc::Sender<Vec<u8>>,
    stream: TcpStream,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl WebSocketSender {
    /// Opens a WebSocket with the subprotocol `sip`; with an authority over TLS, to the name `example.com`.
    ///
    /// Errors: refused, or not within five seconds.
    pub(crate) fn open(server: SocketAddr, authority: Option<&Path>) -> Result<(Self, Box<dyn Read + Send>)> {
        let tcp = TcpStream::connect_timeout(&server, CONNECT_WITHIN)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(CONNECT_WITHIN))?;
        let stream = tcp.try_clone()?;
        let carrier: Box<dyn Stream> = match authority {
            None => Box::new(tcp),
            Some(authority) => Box::new(StreamOwned::new(tls_client(authority)?, tcp)),
        };
        let scheme = if authority.is_some() { "wss" } else { "ws" };
        let mut request = format!("{scheme}://example.com/").into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("sip"));
        let (socket, response) =
            tungstenite::client(request, carrier).map_err(|error| anyhow::anyhow!("{error}"))?;
        let chosen = response.headers().get("Sec-WebSocket-Protocol");
        ensure!(chosen.is_some_and(|chosen| chosen == "sip"), "no subprotocol: {response:?}");
        stream.set_read_timeout(Some(TURN))?;
        let (outgoing, to_send) = mpsc::channel();
        let (received, incoming) = mpsc::channel();
        thread::spawn(move || carry(socket, &to_send, &received));
        Ok((Self { outgoing, stream }, Box::new(Incoming { incoming, rest: Vec::new() })))
    }

    /// Sends one SIP message in one WebSocket message.
    ///
    /// Errors: the WebSocket has ended.
    pub(crate) fn send(&self, bytes: &[u8]) -> Result<()> {
        self.outgoing.send(bytes.to_vec()).context("the WebSocket has ended")
    }

    /// Ends the connection at once, without a goodbye.
    pub(crate) fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn tls_client(authority: &Path) -> Result<ClientConnection> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(ClientConnection::new(Arc::new(config), ServerName::try_from("example.com")?)?)
}

/// Carries messages both ways until either end is gone.
fn carry(
    mut socket: WebSocket<Box<dyn Stream>>,
    to_send: &mpsc::Receiver<Vec<u8>>,
    received: &mpsc::Sender<Vec<u8>>,
) {
    loop {
        loop {
            let bytes = match to_send.try_recv() {
                Ok(bytes) => bytes,
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return drop(socket.close(None)),
            };
            let message = match String::from_utf8(bytes) {
                Ok(text) => Message::text(text),
                Err(error) => Message::binary(error.into_bytes()),
            };
            if socket.send(message).is_err() {
                return;
            }
        }
        let message = match socket.read() {
            Ok(message) => message,
            Err(Error::Io(error))
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                continue;
            }
            Err(_ended) => return,
        };
        if (message.is_text() || message.is_binary()) && received.send(message.into_data().to_vec()).is_err()
        {
            return;
        }
    }
}

/// What arrives, as a stream of octets that ends with the WebSocket.
struct Incoming {
    incoming: mpsc::Receiver<Vec<u8>>,
    rest: Vec<u8>,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            let Ok(message) = self.incoming.recv() else { return Ok(0) };
            self.rest = message;
        }
        let length = self.rest.as_slice().read(buffer)?;
        self.rest.drain(..length);
        Ok(length)
    }
}
