//! Before a connection is open: connecting, and the TLS handshake of either side.

use std::{future::poll_fn, io, net::SocketAddr, pin::Pin, sync::Arc, task::Poll, time::Duration};

use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{net::TcpStream, time::sleep};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::{
    CloseReason, ConnectFailure,
    connection::{Attachment, Connection, close_reason, tls_error},
    event::Event,
    link::Order,
    sockets,
    tls::dns_names,
};

/// How the far end of an accepted connection speaks TLS with us.
pub(crate) struct AcceptTls {
    pub(crate) config: Arc<ServerConfig>,
    /// Whether the names of its certificate go with its messages.
    pub(crate) is_internal: bool,
}

/// How to make an outbound connection.
pub(crate) struct Dial {
    /// The address to connect from; its port does not matter.
    pub(crate) source: Option<SocketAddr>,
    pub(crate) tls: Option<DialTls>,
    /// How long it may take until the connection is open.
    pub(crate) limit: Duration,
}

/// TLS of an outbound connection.
pub(crate) struct DialTls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
    /// Whether the names of its certificate go with its messages.
    pub(crate) is_internal: bool,
}

/// Serves an accepted connection to its end.
pub(crate) async fn serve_accepted(at: Attachment, stream: TcpStream, tls: Option<AcceptTls>) {
    let reason = match sockets::tune(&stream) {
        Err(error) => close_reason(&error),
        Ok(()) => match tls {
            None => Connection::new(&at, stream, None).await,
            Some(tls) => match accept_tls(&at, stream, tls).await {
                Ok((stream, names)) => Connection::new(&at, stream, names).await,
                Err(reason) => reason,
            },
        },
    };
    finish(&at, reason);
}

/// Makes an outbound connection and serves it to its end.
pub(crate) async fn serve_outbound(at: Attachment, dial: Dial) {
    let limit = dial.limit;
    let opened = match until_stopped(&at, limit, Box::pin(open(at.peer.remote, dial))).await {
        Ok(result) => result.map_err(|error| match tls_error(&error) {
            Some(tls) => ConnectFailure::Tls(tls.to_string()),
            None => ConnectFailure::System(error.kind()),
        }),
        Err(Stop::TooSlow) => Err(ConnectFailure::TimedOut),
        Err(Stop::ClosedHere) => Err(ConnectFailure::ClosedHere),
        Err(Stop::WriteQueueFull) => Err(ConnectFailure::WriteQueueFull),
    };
    match opened {
        Ok(Opened::Tcp(stream)) => {
            let reason = Connection::new(&at, stream, None).await;
            finish(&at, reason);
        }
        Ok(Opened::Tls(stream, names)) => {
            let reason = Connection::new(&at, stream, names).await;
            finish(&at, reason);
        }
        Err(reason) => {
            let (_in_flight, unsent) = at.link.finish();
            at.hub.push(Event::ConnectFailed { peer: at.peer, reason, unsent });
        }
    }
}

fn finish(at: &Attachment, reason: CloseReason) {
    let (in_flight, waiting) = at.link.finish();
    let (unsent, is_accepted) = (in_flight + waiting.len(), at.is_accepted);
    at.hub.push(Event::Closed { peer: at.peer, reason, unsent, is_accepted });
}

/// The stream is boxed so that the task of a connection keeps it once, not once per state.
type AcceptedTls = (Box<server::TlsStream<TcpStream>>, Option<Arc<[String]>>);

async fn accept_tls(at: &Attachment, stream: TcpStream, tls: AcceptTls) -> Result<AcceptedTls, CloseReason> {
    let handshake = Box::pin(TlsAcceptor::from(tls.config).accept(stream));
    match until_stopped(at, at.hub.settings.half_open_max, handshake).await {
        Ok(Ok(stream)) => {
            let names = names(tls.is_internal, stream.get_ref().1.peer_certificates());
            Ok((Box::new(stream), names))
        }
        Ok(Err(error)) => Err(close_reason(&error)),
        Err(Stop::TooSlow) => Err(CloseReason::TooSlow),
        Err(Stop::ClosedHere) => Err(CloseReason::ClosedHere),
        Err(Stop::WriteQueueFull) => Err(CloseReason::WriteQueueFull),
    }
}

enum Opened {
    Tcp(TcpStream),
    Tls(Box<client::TlsStream<TcpStream>>, Option<Arc<[String]>>),
}

async fn open(remote: SocketAddr, dial: Dial) -> io::Result<Opened> {
    let stream = sockets::outbound(dial.source, remote)?.connect(remote).await?;
    sockets::tune(&stream)?;
    let Some(DialTls { config, name, is_internal }) = dial.tls else { return Ok(Opened::Tcp(stream)) };
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let names = names(is_internal, stream.get_ref().1.peer_certificates());
    Ok(Opened::Tls(Box::new(stream), names))
}

fn names(is_internal: bool, chain: Option<&[CertificateDer<'_>]>) -> Option<Arc<[String]>> {
    is_internal.then(|| chain.and_then(<[_]>::first).map(dns_names).unwrap_or_default().into())
}

/// Why a connection was given up before it was open.
enum Stop {
    TooSlow,
    ClosedHere,
    WriteQueueFull,
}

/// Runs `work` until it is done, `limit` has passed, or the shard wants the connection closed.
async fn until_stopped<W: Future>(
    at: &Attachment,
    limit: Duration,
    mut work: Pin<Box<W>>,
) -> Result<W::Output, Stop> {
    let mut timer = Box::pin(sleep(limit));
    poll_fn(|cx| {
        match at.link.poll_order(cx).0 {
            // A flushing close waits for the connection, so that what was sent still arrives.
            Order::Serve | Order::CloseAfterFlush => {}
            Order::Close => return Poll::Ready(Err(Stop::ClosedHere)),
            Order::Overflowed => return Poll::Ready(Err(Stop::WriteQueueFull)),
        }
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        timer.as_mut().poll(cx).map(|()| Err(Stop::TooSlow))
    })
    .await
}
