//! The task of one open connection.
//!
//! ```text
//!             malformed               closed by the shard          all written
//!                              (or WebSocket: by the far end, or in error)
//!   Serving ------------> Malformed -------------------> Flushing -------------> Lingering --> end
//!      |                      |                              |                        |
//!      +----------------------+-- broken, idle, too slow ----+------------------------+------> end
//! ```
//!
//! Lingering: our side is shut down and the rest of what the far end sends is read and dropped, because
//! closing a socket with unread octets resets the connection and may take the last answer with it. Who goes
//! on sending gets no more than [`limits::CONNECTION_LINGER_BYTES_MAX`] of our attention.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use model::{Peer, limits};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::{
    CloseReason,
    event::Event,
    framing::{Broken, Frame, Framing, Malformed},
    hub::Hub,
    link::{Link, Order},
    websocket::Over,
};

/// Reads before other connections get their turn.
const READS_PER_TURN: usize = 8;
/// How long a closed connection is read on, at most.
const LINGER: Duration = Duration::from_secs(2);
/// The answer to a keep-alive (RFC 5626 section 3.5.1).
const PONG: &[u8] = b"\r\n";

/// What a connection shares with its shard.
pub(crate) struct Attachment {
    pub(crate) hub: Arc<Hub>,
    pub(crate) link: Arc<Link>,
    pub(crate) peer: Peer,
    /// Whether the far end made the connection.
    pub(crate) is_accepted: bool,
}

/// Resolves when the connection is over.
pub(crate) struct Connection<'a, S> {
    at: &'a Attachment,
    names: Option<Arc<[String]>>,
    stream: S,
    framing: Framing,
    phase: Phase,
    writing: Vec<u8>,
    written: usize,
    is_flush_due: bool,
    /// Whether a whole message has come, it is a WebSocket, or we opened the connection: until then it is
    /// worth little time.
    is_proven: bool,
    /// Since when the first message, or the rest of a message, is due.
    due_since: Option<Instant>,
    last_octet: Instant,
    last_heard: Instant,
    /// What the far end has promised: see [`crate::Shard::expect_within`].
    heard_within: Option<Duration>,
    /// See [`Hub::poll_room`].
    waits_in_turn: u64,
    timer: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    Malformed { since: Instant },
    Flushing { since: Instant, end: End },
    Lingering { since: Instant, end: End, dropped: usize },
}

/// Why a connection is flushed and then closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The shard wants it.
    ClosedHere,
    /// The WebSocket was ended.
    WebSocket(Over),
}

impl End {
    const fn reason(self) -> CloseReason {
        match self {
            Self::ClosedHere => CloseReason::ClosedHere,
            Self::WebSocket(Over::Refused) => CloseReason::UpgradeRefused,
            Self::WebSocket(Over::Violated) => CloseReason::Malformed,
            Self::WebSocket(Over::ClosedByPeer) => CloseReason::ClosedByPeer,
        }
    }
}

impl<'a, S> Connection<'a, S> {
    /// Serves an open stream. `names` goes into each message. Of an accepted connection the first message is
    /// due.
    pub(crate) fn new(at: &'a Attachment, stream: S, names: Option<Arc<[String]>>) -> Self {
        let is_accepted = at.is_accepted;
        let now = Instant::now();
        Self {
            at,
            names,
            stream,
            framing: Framing::of(at.peer.protocol),
            phase: Phase::Serving,
            writing: Vec::new(),
            written: 0,
            is_flush_due: false,
            is_proven: !is_accepted,
            due_since: is_accepted.then_some(now),
            last_octet: now,
            last_heard: now,
            heard_within: None,
            waits_in_turn: 0,
            timer: Box::pin(sleep(at.hub.settings.half_open_max)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Connection<'_, S> {
    type Output = CloseReason;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let this = self.get_mut();
        let (order, heard_within) = this.at.link.poll_order(cx);
        this.heard_within = heard_within;
        match order {
            Order::Serve => {}
            Order::CloseAfterFlush => this.begin_flushing(),
            Order::Close => return Poll::Ready(CloseReason::ClosedHere),
            Order::Overflowed => return Poll::Ready(CloseReason::WriteQueueFull),
        }
        // Reading comes first: it may add answers to be written.
        for step in [Self::poll_read, Self::poll_write, Self::poll_timer] {
            if let Poll::Ready(reason) = step(this, cx) {
                return Poll::Ready(reason);
            }
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    fn begin_flushing(&mut self) {
        match self.phase {
            Phase::Serving | Phase::Malformed { .. } => {
                let farewell = self.framing.farewell();
                // Without room for it the far end misses a courtesy.
                let _fits = self.at.link.answer(&farewell, self.at.hub.settings.write_bytes_max);
                self.phase = Phase::Flushing { since: Instant::now(), end: End::ClosedHere }
            }
            Phase::Flushing { .. } | Phase::Lingering { .. } => {}
        }
    }

    /// Reads what is there. Ready when the connection is over.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let hub = Arc::clone(&self.at.hub);
        for _turn in 0..READS_PER_TURN {
            match self.phase {
                Phase::Serving => ready!(hub.poll_room(cx, &mut self.waits_in_turn)),
                Phase::Lingering { .. } => {}
                Phase::Malformed { .. } | Phase::Flushing { .. } => return Poll::Pending,
            }
            let mut bytes = hub.read_buffer();
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => {
                    return Poll::Ready(self.ended(CloseReason::ClosedByPeer));
                }
                Ok(()) => {}
                Err(error) => return Poll::Ready(self.ended(close_reason(&error))),
            }
            match &mut self.phase {
                Phase::Serving => {
                    if !self.receive(buffer.filled()) {
                        return Poll::Ready(CloseReason::WriteQueueFull);
                    }
                }
                Phase::Lingering { dropped, end, .. } => {
                    *dropped += buffer.filled().len();
                    if *dropped > limits::CONNECTION_LINGER_BYTES_MAX {
                        return Poll::Ready(end.reason());
                    }
                }
                Phase::Malformed { .. } | Phase::Flushing { .. } => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whatever the far end does after our close, what led to it stays the reason.
    fn ended(&self, reason: CloseReason) -> CloseReason {
        match self.phase {
            Phase::Serving | Phase::Malformed { .. } | Phase::Flushing { .. } => reason,
            Phase::Lingering { end, .. } => end.reason(),
        }
    }

    /// Cuts what was read into events; false when the answers to keep-alives do not fit any more.
    fn receive(&mut self, bytes: &[u8]) -> bool {
        let Attachment { hub, link, peer, is_accepted } = self.at;
        let now = Instant::now();
        (self.last_octet, self.last_heard) = (now, now);
        let (mut has_frame, mut is_proven, mut fits) = (false, false, true);
        let names = &self.names;
        let result = self.framing.feed(bytes, |frame| {
            has_frame = true;
            match frame {
                Frame::Message(message) => {
                    is_proven = true;
                    let bytes = Bytes::copy_from_slice(message);
                    hub.push(Event::Message { peer: *peer, bytes, names: names.clone() });
                }
                Frame::Ping => fits &= link.answer(PONG, hub.settings.write_bytes_max),
                Frame::Answer(answer) => fits &= link.answer(answer, hub.settings.write_bytes_max),
                Frame::Opened => is_proven = true,
                Frame::Pong => {}
            }
        });
        self.is_proven |= is_proven;
        match result {
            Ok(()) if self.is_proven => {
                let is_new = has_frame || self.due_since.is_none();
                let started = if is_new { Some(now) } else { self.due_since };
                self.due_since = started.filter(|_| self.framing.is_partial());
            }
            Ok(()) => {}
            Err(Broken::Malformed(Malformed { bytes, error })) => {
                self.phase = Phase::Malformed { since: now };
                let (bytes, is_accepted) = (Bytes::from(bytes), *is_accepted);
                hub.push(Event::Malformed { peer: *peer, bytes, error, is_accepted });
            }
            Err(Broken::WebSocket(over)) => {
                // Nothing follows a Close frame (RFC 6455 section 5.5.1).
                link.close(true);
                self.phase = Phase::Flushing { since: now, end: End::WebSocket(over) };
            }
        }
        fits
    }

    /// Writes what waits; then, if asked to, ends our side. Ready when the connection is over.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            if self.written == self.writing.len() {
                self.written = 0;
                self.writing = self.at.link.take();
                if self.writing.is_empty() {
                    break;
                }
            }
            let rest = self.writing.get(self.written..).unwrap_or_default();
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(CloseReason::System(io::ErrorKind::WriteZero)),
                Ok(length) => {
                    self.written += length;
                    self.at.link.written(length);
                    self.last_octet = Instant::now();
                    self.is_flush_due = true;
                }
                Err(error) => return Poll::Ready(self.ended(close_reason(&error))),
            }
        }
        if self.is_flush_due {
            if let Err(error) = ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
                return Poll::Ready(self.ended(close_reason(&error)));
            }
            self.is_flush_due = false;
        }
        match self.phase {
            Phase::Flushing { end, .. } => {
                if ready!(Pin::new(&mut self.stream).poll_shutdown(cx)).is_err() {
                    return Poll::Ready(end.reason());
                }
                self.phase = Phase::Lingering { since: Instant::now(), end, dropped: 0 };
                self.poll_read(cx)
            }
            Phase::Serving | Phase::Malformed { .. } | Phase::Lingering { .. } => Poll::Pending,
        }
    }

    /// When the connection must be over unless something happens, and why.
    fn deadline(&self) -> (Instant, CloseReason) {
        let settings = &self.at.hub.settings;
        match self.phase {
            Phase::Serving => {
                let idle = (after(self.last_octet, settings.idle_max), CloseReason::Idle);
                let slow =
                    self.due_since.map(|since| (after(since, settings.half_open_max), CloseReason::TooSlow));
                let silent =
                    self.heard_within.map(|within| (after(self.last_heard, within), CloseReason::Silent));
                let sooner = |first: (Instant, CloseReason), other: (Instant, CloseReason)| {
                    if other.0 < first.0 { other } else { first }
                };
                slow.into_iter().chain(silent).fold(idle, sooner)
            }
            Phase::Malformed { since } => (after(since, settings.half_open_max), CloseReason::Malformed),
            Phase::Flushing { since, end } => (after(since, settings.half_open_max), end.reason()),
            Phase::Lingering { since, end, .. } => (after(since, LINGER), end.reason()),
        }
    }

    /// The timer is moved only when the deadline comes closer or when it fires early, not with every message.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let (deadline, reason) = self.deadline();
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if deadline <= Instant::now() {
                return Poll::Ready(reason);
            }
            self.timer.as_mut().reset(deadline);
        }
    }
}

/// `span` after `start`, at most a year.
fn after(start: Instant, span: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    start + span.min(YEAR)
}

/// What an error of an open stream means.
pub(crate) fn close_reason(error: &io::Error) -> CloseReason {
    if let Some(tls) = tls_error(error) {
        return CloseReason::Tls(tls.to_string());
    }
    match error.raw_os_error() {
        Some(_) => CloseReason::System(error.kind()),
        // TLS ended without its goodbye; messages are delimited, so nothing can be cut unseen.
        None if error.kind() == io::ErrorKind::UnexpectedEof => CloseReason::ClosedByPeer,
        None => CloseReason::System(error.kind()),
    }
}

/// The TLS error inside an IO error, if that is what it is.
pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}
