//! One shard: all sockets of one thread.

use std::{
    future::poll_fn,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use model::{FlowId, Peer, Protocol, Source};
use rustls::pki_types::ServerName;
use tokio::{
    task::{JoinSet, yield_now},
    time::{Sleep, sleep},
};
use tracing::warn;

use crate::{
    BindError, ConnectError, Destination, Inbox, SendError, ShardConfig, ShardWaker, TlsConfigs,
    accept::{Accepted, Listener, ListenerKind, poll_accept},
    connection::Attachment,
    dial::{AcceptTls, Dial, DialTls, serve_accepted, serve_outbound},
    event::Event,
    flows::{Flows, Origin},
    hub::Hub,
    link::Link,
    sockets,
    udp::UdpEndpoint,
    websocket,
};

/// Batches taken one after the other before the connections' tasks get their turn.
const BUSY_TURNS_MAX: u8 = 4;
/// Datagrams that wait at most for [`Shard::flush`].
const DATAGRAMS_WAITING: usize = 128;
/// Pause after the kernel could take no more datagrams.
const SEND_PAUSE: Duration = Duration::from_millis(1);
/// Pause after the process had no descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All sockets of one thread: takes what arrives, sends what it is given, keeps the connections.
///
/// Belongs to the thread that bound it; other threads reach it by its [`ShardWaker`] and a mailbox of their
/// own. Dropping it closes everything.
pub struct Shard {
    number: u16,
    hub: Arc<Hub>,
    waker: ShardWaker,
    udp: Vec<UdpEndpoint>,
    listeners: Vec<Listener>,
    flows: Flows,
    tls: TlsConfigs,
    bound: Bound,
    counters: Counters,
    busy_turns: u8,
    /// What [`Self::next`] was asked to wait for at most.
    deadline: Pin<Box<Sleep>>,
    /// Ends the pause after something of the machine was used up.
    pause: Option<Pin<Box<Sleep>>>,
    is_accepting: bool,
    /// The log knows that connections cannot be accepted, and none was since.
    has_warned: bool,
    accepted: Vec<Accepted>,
    /// Watches the error reports of the UDP sockets; ends with the shard.
    _watchers: JoinSet<()>,
}

/// The addresses of a shard as they were bound, in the order of its configuration, ports filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// UDP.
    pub udp: Vec<SocketAddr>,
    /// TCP.
    pub tcp: Vec<SocketAddr>,
    /// TLS.
    pub tls: Vec<SocketAddr>,
    /// WebSocket.
    pub ws: Vec<SocketAddr>,
    /// WebSocket over TLS.
    pub wss: Vec<SocketAddr>,
    /// Mutual TLS of our own servers.
    pub internal: Option<SocketAddr>,
}

/// What a shard counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams received, keep-alives included.
    pub datagrams_received: u64,
    /// Datagrams that the kernel dropped because a socket was full.
    pub datagrams_dropped: u64,
    /// Datagrams that were only a keep-alive: nothing, CRLFs, zeros, or a STUN Binding indication.
    pub keep_alives: u64,
    /// STUN Binding requests answered, with an error or not.
    pub stun_answered: u64,
    /// Datagrams that began like STUN and were no valid Binding request, or whose answer found no room.
    pub stun_dropped: u64,
    /// Datagrams that the kernel took.
    pub datagrams_sent: u64,
    /// Datagrams that the kernel refused.
    pub datagrams_failed: u64,
    /// Reports of lost datagrams that found no room.
    pub failures_dropped: u64,
    /// Connections accepted.
    pub connections_accepted: u64,
    /// Connections closed at once because there were too many.
    pub connections_refused: u64,
    /// Datagrams dropped because their source is banned.
    pub datagrams_banned: u64,
    /// Connections closed at once, or later, because their source is banned.
    pub connections_banned: u64,
    /// Connections that we opened or tried to.
    pub connections_dialled: u64,
}

impl Shard {
    /// Takes the addresses of `config`. Call it inside the runtime of the thread.
    ///
    /// Errors: [`BindError`]; nothing stays bound.
    pub fn bind(config: ShardConfig) -> Result<Self, BindError> {
        let ShardConfig { shard, udp, tcp, tls, ws, wss, internal, tls_configs, settings, banned } = config;
        let secure = tls.first().or_else(|| wss.first()).copied();
        let without_certificate = match (&tls_configs.server, &tls_configs.internal_server) {
            (None, _) if secure.is_some() => secure,
            (_, None) => internal,
            (None | Some(_), Some(_)) => None,
        };
        if let Some(address) = without_certificate {
            return Err(BindError::NoCertificate { address });
        }
        let hub = Arc::new(Hub::new(settings, banned));
        let mut watchers = JoinSet::new();
        let mut endpoints = Vec::new();
        for address in udp {
            let socket = sockets::bind_udp(address, shard)?;
            let local = socket.local_addr().unwrap_or(address);
            let endpoint = UdpEndpoint::new(socket, local, shard);
            watchers.spawn(endpoint.watch_errors(Arc::clone(&hub)));
            endpoints.push(endpoint);
        }
        let mut listeners = Vec::new();
        let of = |kind, addresses: Vec<SocketAddr>| addresses.into_iter().map(move |address| (kind, address));
        let all = of(ListenerKind::Tcp, tcp)
            .chain(of(ListenerKind::Tls, tls))
            .chain(of(ListenerKind::Ws, ws))
            .chain(of(ListenerKind::Wss, wss))
            .chain(of(ListenerKind::Internal, internal.into_iter().collect()));
        for (kind, address) in all {
            let socket = sockets::bind_listener(kind.protocol(), address, shard)?;
            let local = socket.local_addr().unwrap_or(address);
            listeners.push(Listener { socket, kind, local });
        }
        Ok(Self {
            number: shard,
            waker: ShardWaker::default(),
            bound: Bound::of(&endpoints, &listeners),
            udp: endpoints,
            listeners,
            flows: Flows::new(shard),
            tls: tls_configs,
            counters: Counters::default(),
            busy_turns: 0,
            deadline: Box::pin(sleep(Duration::ZERO)),
            pause: None,
            is_accepting: true,
            has_warned: false,
            accepted: Vec::new(),
            hub,
            _watchers: watchers,
        })
    }

    /// Waits until something happened, and puts it into `inbox`, whose previous content is dropped.
    ///
    /// Also returns, with an empty inbox, when a [`ShardWaker`] was used or `deadline` has passed: look into
    /// the mailbox and at the timers after every return. Sends what waits first, like [`Self::flush`]. Loses
    /// nothing when it is dropped before it returns.
    pub async fn next(&mut self, inbox: &mut Inbox, deadline: Option<Instant>) {
        inbox.clear();
        self.flush();
        if self.busy_turns >= BUSY_TURNS_MAX {
            self.busy_turns = 0;
            yield_now().await;
        }
        self.busy_turns += 1;
        let deadline = deadline.map(tokio::time::Instant::from_std);
        if let Some(deadline) = deadline
            && deadline != self.deadline.deadline()
        {
            self.deadline.as_mut().reset(deadline);
        }
        poll_fn(|cx| {
            let is_due = deadline.is_some() && self.deadline.as_mut().poll(cx).is_ready();
            let has_something = self.poll_sockets(cx, inbox);
            if is_due || has_something {
                return Poll::Ready(());
            }
            self.busy_turns = 0;
            Poll::Pending
        })
        .await;
    }

    /// Looks at everything once; true when `inbox` has something or the shard was woken. Otherwise the task
    /// is woken by whatever comes.
    fn poll_sockets(&mut self, cx: &mut Context<'_>, inbox: &mut Inbox) -> bool {
        let is_woken = self.waker.poll(cx).is_ready();
        self.poll_pause(cx);
        self.poll_listeners(cx);
        let mut used = 0;
        for endpoint in &mut self.udp {
            used = endpoint.poll_receive(cx, inbox, used, &self.hub, &mut self.counters);
        }
        if self.pause.is_none() && self.udp.iter().any(|endpoint| endpoint.is_blocked) {
            self.begin_pause(SEND_PAUSE);
            cx.waker().wake_by_ref();
        }
        // The socket that filled the batch comes last in the next one.
        if self.udp.len() > 1 {
            self.udp.rotate_left(1);
        }
        if self.hub.poll_take(cx, &mut inbox.events).is_ready() {
            for event in &inbox.events {
                match event {
                    Event::Closed { peer, .. } | Event::ConnectFailed { peer, .. } => {
                        self.flows.remove(peer.flow)
                    }
                    Event::Datagram { .. }
                    | Event::Message { .. }
                    | Event::Malformed { .. }
                    | Event::SendFailed { .. } => {}
                }
            }
        }
        is_woken || !inbox.is_empty()
    }

    /// Ends a pause: sends and accepts again.
    fn poll_pause(&mut self, cx: &mut Context<'_>) {
        while let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return;
            }
            self.pause = None;
            self.is_accepting = true;
            for endpoint in &mut self.udp {
                endpoint.is_blocked = false;
            }
            self.flush();
        }
    }

    fn poll_listeners(&mut self, cx: &mut Context<'_>) {
        if !self.is_accepting {
            return;
        }
        let mut accepted = std::mem::take(&mut self.accepted);
        if let Err(error) = poll_accept(&self.listeners, cx, &mut accepted) {
            if !self.has_warned {
                warn!(%error, "cannot accept connections: raise the limit of open files");
            }
            self.has_warned = true;
            self.is_accepting = false;
            self.begin_pause(ACCEPT_PAUSE);
            cx.waker().wake_by_ref();
        }
        for connection in accepted.drain(..) {
            self.has_warned = false;
            self.admit(connection);
        }
        self.accepted = accepted;
    }

    fn admit(&mut self, Accepted { stream, kind, local, remote }: Accepted) {
        let tls = match kind {
            ListenerKind::Tcp | ListenerKind::Ws => None,
            ListenerKind::Tls | ListenerKind::Wss => {
                self.tls.server.clone().map(|config| AcceptTls { config, is_internal: false })
            }
            ListenerKind::Internal => {
                self.tls.internal_server.clone().map(|config| AcceptTls { config, is_internal: true })
            }
        };
        if self.hub.banned.contains(remote.ip()) {
            self.counters.connections_banned += 1;
            return;
        }
        let is_refused = kind.is_secure() && tls.is_none();
        if is_refused || !self.flows.admits(remote, &self.hub.settings) {
            self.counters.connections_refused += 1;
            return;
        }
        self.counters.connections_accepted += 1;
        let peer = Peer { protocol: kind.protocol(), remote, local, flow: self.flows.next_flow() };
        self.spawn(peer, Origin::Accepted, |at| serve_accepted(at, stream, tls));
    }

    fn spawn<T>(&mut self, peer: Peer, origin: Origin, task: impl FnOnce(Attachment) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let link = Arc::new(Link::new());
        let is_accepted = matches!(origin, Origin::Accepted);
        let at = Attachment { hub: Arc::clone(&self.hub), link: Arc::clone(&link), peer, is_accepted };
        let handle = tokio::spawn(task(at)).abort_handle();
        self.flows.insert(peer, origin, link, handle);
    }

    fn begin_pause(&mut self, length: Duration) {
        if self.pause.is_none() {
            self.pause = Some(Box::pin(sleep(length)));
        }
    }

    /// Sends to a peer: adds a datagram to the next batch, or octets to what a connection writes.
    ///
    /// A datagram leaves with [`Self::flush`] (or before, when many wait); a connection writes while the
    /// thread awaits [`Self::next`]. What is sent while a connection is being made is written when it is
    /// open.
    ///
    /// Errors: [`SendError`]; nothing was sent.
    pub fn send(&mut self, to: &Peer, bytes: &[u8]) -> Result<(), SendError> {
        match to.protocol {
            Protocol::Udp => self.send_datagram(to, bytes),
            Protocol::Tcp | Protocol::Tls => self.send_octets(to, &[], bytes),
            Protocol::Ws | Protocol::Wss => {
                websocket::frame(bytes, |header, bytes| self.send_octets(to, header, bytes))
            }
        }
    }

    fn send_octets(&self, to: &Peer, header: &[u8], bytes: &[u8]) -> Result<(), SendError> {
        if to.flow.shard() != self.number {
            return Err(SendError::OtherShard { shard: to.flow.shard() });
        }
        let link = self.flows.link(to.flow).ok_or(SendError::Closed)?;
        link.push(header, bytes, self.hub.settings.write_bytes_max)
    }

    /// Any shard may send a datagram: all have a socket with the same address.
    fn send_datagram(&mut self, to: &Peer, bytes: &[u8]) -> Result<(), SendError> {
        let endpoint =
            self.udp.iter_mut().find(|endpoint| endpoint.local == to.local).ok_or(SendError::NoSocket)?;
        endpoint.push(to.remote, bytes, self.hub.settings.datagram_queue_bytes_max)?;
        if endpoint.waiting() >= DATAGRAMS_WAITING {
            self.flush();
        }
        Ok(())
    }

    /// Hands the waiting datagrams to the kernel, in batches. What it cannot take now is sent later; what it
    /// refuses is reported by [`Event::SendFailed`].
    pub fn flush(&mut self) {
        let mut is_blocked = false;
        for endpoint in &mut self.udp {
            endpoint.flush(&self.hub, &mut self.counters);
            is_blocked |= endpoint.is_blocked;
        }
        if is_blocked {
            self.begin_pause(SEND_PAUSE);
        }
    }

    /// The peer that a request to `to` is sent to: for UDP the socket of its address family, else the
    /// connection that was opened to the same destination, else a new one that is being made from now on.
    ///
    /// `Peer::local` of an outbound connection is the address of our listener for the same protocol and
    /// family, if there is one: what the far end can reach us at. Connections that others opened are never
    /// found here: they are reused by sending to their own [`Peer`] (RFC 3261 section 18.1.1, RFC 5923).
    ///
    /// Errors: [`ConnectError`]. Later failure is reported by [`Event::ConnectFailed`].
    pub fn connect(&mut self, to: &Destination) -> Result<Peer, ConnectError> {
        self.connect_within(to, self.hub.settings.half_open_max)
    }

    /// The same, and a connection that has to be made fails when it is not open within `limit`: for who knows
    /// another way.
    ///
    /// Errors: as [`Self::connect`].
    pub fn connect_within(&mut self, to: &Destination, limit: Duration) -> Result<Peer, ConnectError> {
        let Destination { protocol, remote, .. } = *to;
        match protocol {
            Protocol::Udp => return self.udp_peer(remote),
            Protocol::Tcp | Protocol::Tls => {}
            Protocol::Ws | Protocol::Wss => return Err(ConnectError::Unsupported { protocol }),
        }
        if let Some(peer) = self.flows.find(to) {
            return Ok(peer);
        }
        if self.flows.is_full(&self.hub.settings) {
            return Err(ConnectError::TooManyConnections);
        }
        let tls = if protocol == Protocol::Tls { Some(self.dial_tls(to)?) } else { None };
        self.counters.connections_dialled += 1;
        let local = best_local(self.bound.of_kind(to), remote).unwrap_or_else(|| unspecified(remote));
        let is_source = !local.ip().is_unspecified() && is_same_reach(local, remote);
        let dial = Dial { source: is_source.then_some(local), tls, limit };
        let peer = Peer { protocol, remote, local, flow: self.flows.next_flow() };
        self.spawn(peer, Origin::Outbound(to.clone()), |at| serve_outbound(at, dial));
        Ok(peer)
    }

    fn udp_peer(&self, remote: SocketAddr) -> Result<Peer, ConnectError> {
        let local = best_local(self.udp.iter().map(|endpoint| endpoint.local), remote);
        let endpoint = self.udp.iter().find(|endpoint| Some(endpoint.local) == local);
        let no_socket = ConnectError::NoSocket { protocol: Protocol::Udp, remote };
        endpoint.map(|endpoint| endpoint.peer(remote)).ok_or(no_socket)
    }

    fn dial_tls(&self, to: &Destination) -> Result<DialTls, ConnectError> {
        let config = if to.is_internal { &self.tls.internal_client } else { &self.tls.client };
        let config = config.clone().ok_or(ConnectError::NoTls)?;
        let name = match &to.name {
            Some(name) => ServerName::try_from(name.to_string())
                .map_err(|_invalid| ConnectError::Name { name: name.to_string() })?,
            None => ServerName::IpAddress(to.remote.ip().into()),
        };
        Ok(DialTls { config, name, is_internal: to.is_internal })
    }

    /// Closes a connection, `after_flush` once everything sent is written (within `Settings::half_open_max`),
    /// else at once. Nothing more can be sent or received. Reported by [`Event::Closed`]; does nothing when
    /// it is closed.
    pub fn close(&mut self, flow: FlowId, after_flush: bool) {
        if let Some(link) = self.flows.link(flow) {
            link.close(after_flush);
        }
    }

    /// Closes at once all connections that others made from this source.
    pub fn close_from(&mut self, source: Source) {
        for flow in self.flows.accepted_from(source) {
            self.counters.connections_banned += 1;
            self.close(flow, false);
        }
    }

    /// Closes a connection from now on whenever nothing was received over it for `within`: its far end has
    /// promised keep-alives (RFC 5626 section 4.4). Does nothing when it is closed or of another shard.
    pub fn expect_within(&self, flow: FlowId, within: Duration) {
        if let Some(link) = self.flows.link(flow) {
            link.expect_within(within);
        }
    }

    /// The far end of an open connection, for a flow token; `None` when it is closed, closing or of another
    /// shard.
    pub fn peer(&self, flow: FlowId) -> Option<Peer> {
        self.flows.peer(flow)
    }

    /// All connections, in no order, closing ones included.
    pub fn peers(&self) -> impl Iterator<Item = Peer> {
        self.flows.iter()
    }

    /// Connections, those being made or closed included.
    pub fn connections(&self) -> usize {
        self.flows.len()
    }

    /// The addresses as they were bound.
    pub const fn bound(&self) -> &Bound {
        &self.bound
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        Counters { failures_dropped: self.hub.failures_dropped.load(Ordering::Relaxed), ..self.counters }
    }

    /// A handle by which other threads interrupt [`Self::next`].
    pub fn waker(&self) -> ShardWaker {
        self.waker.clone()
    }

    /// Uses other certificates and trust for connections from now on; those that are open stay.
    pub fn set_tls(&mut self, tls: TlsConfigs) {
        self.tls = tls;
    }
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("number", &self.number)
            .field("bound", &self.bound)
            .field("connections", &self.flows.len())
            .finish_non_exhaustive()
    }
}

impl Bound {
    fn of(endpoints: &[UdpEndpoint], listeners: &[Listener]) -> Self {
        let of_kind = |kind| {
            let listeners = listeners.iter().filter(move |listener| listener.kind == kind);
            listeners.map(|listener| listener.local)
        };
        Self {
            udp: endpoints.iter().map(|endpoint| endpoint.local).collect(),
            tcp: of_kind(ListenerKind::Tcp).collect(),
            tls: of_kind(ListenerKind::Tls).collect(),
            ws: of_kind(ListenerKind::Ws).collect(),
            wss: of_kind(ListenerKind::Wss).collect(),
            internal: of_kind(ListenerKind::Internal).next(),
        }
    }

    /// Addresses at which the far end of an outbound connection can reach us.
    fn of_kind(&self, to: &Destination) -> impl Iterator<Item = SocketAddr> {
        let listed = match to.protocol {
            Protocol::Tls if !to.is_internal => self.tls.as_slice(),
            Protocol::Tcp => self.tcp.as_slice(),
            Protocol::Tls | Protocol::Udp | Protocol::Ws | Protocol::Wss => &[],
        };
        let internal = self.internal.filter(|_| to.is_internal);
        listed.iter().copied().chain(internal)
    }
}

/// The one of our addresses from which `remote` can be reached: of its family, the same reach first.
fn best_local(locals: impl Iterator<Item = SocketAddr>, remote: SocketAddr) -> Option<SocketAddr> {
    locals
        .filter(|local| local.is_ipv4() == remote.is_ipv4())
        .min_by_key(|&local| !is_same_reach(local, remote))
}

/// Loopback talks to loopback only.
const fn is_same_reach(local: SocketAddr, remote: SocketAddr) -> bool {
    local.ip().is_loopback() == remote.ip().is_loopback()
}

const fn unspecified(remote: SocketAddr) -> SocketAddr {
    let ip = match remote {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}
