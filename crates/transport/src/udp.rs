//! One UDP socket of a shard: batches in, batches out, and what the network says about lost datagrams.

use std::{
    io,
    net::SocketAddr,
    ops::Range,
    os::fd::AsFd,
    sync::Arc,
    task::{Context, Poll},
};

use model::{FlowId, Peer, Protocol};
use tokio::{io::Interest, net::UdpSocket};

use crate::{
    Counters, SendError, SendFailure,
    event::Event,
    hub::Hub,
    inbox::Inbox,
    mmsg::{self, BATCH, Batch},
    stun::{self, Verdict},
};

/// Errors of earlier datagrams that are passed over before one is taken for that of the datagram to be sent.
const LEFT_OVER_MAX: u8 = 16;
/// Octets that the send buffer keeps when it is empty.
const BUFFER_KEPT: usize = 262_144;

pub(crate) struct UdpEndpoint {
    socket: Arc<UdpSocket>,
    pub(crate) local: SocketAddr,
    flow: FlowId,
    /// Datagrams to be sent, one after the other; those before `next` are gone.
    bytes: Vec<u8>,
    datagrams: Vec<(Range<usize>, SocketAddr)>,
    next: usize,
    /// Datagrams that the socket had to drop so far, modulo 2^32.
    dropped: u32,
    /// The kernel's buffer was full: wait a moment. (Not for writability: one error report from the network
    /// makes tokio call the socket writable for good.)
    pub(crate) is_blocked: bool,
}

impl UdpEndpoint {
    pub(crate) fn new(socket: UdpSocket, local: SocketAddr, shard: u16) -> Self {
        Self {
            socket: Arc::new(socket),
            local,
            flow: FlowId::new(shard, 0),
            bytes: Vec::new(),
            datagrams: Vec::new(),
            next: 0,
            dropped: 0,
            is_blocked: false,
        }
    }

    pub(crate) const fn peer(&self, remote: SocketAddr) -> Peer {
        Peer { protocol: Protocol::Udp, remote, local: self.local, flow: self.flow }
    }

    /// Receives one batch into the slots after `used`; returns how many slots are used then. When nothing
    /// came, the task is woken by the next datagram.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut Inbox,
        used: usize,
        hub: &Hub,
        counters: &mut Counters,
    ) -> usize {
        while used < BATCH && matches!(self.socket.poll_recv_ready(cx), Poll::Ready(Ok(()))) {
            let (arena, out) = inbox.free_slots(used);
            match mmsg::receive(self.socket.as_fd(), arena, used, out) {
                Ok(batch) => {
                    let count = batch.count;
                    self.measure(batch, inbox, counters);
                    if used + count < BATCH {
                        self.wait_for_more();
                    }
                    counters.datagrams_received += count as u64;
                    if count > self.admit(inbox, hub, counters) {
                        return used + count;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for_more(),
                // Interrupted, or an error report of the network in place of data, each once.
                Err(_passing) => {}
            }
        }
        used
    }

    /// Sorts out what is not for the shard or of who is banned, and answers what is STUN; returns how many
    /// datagrams that were.
    fn admit(&mut self, inbox: &mut Inbox, hub: &Hub, counters: &mut Counters) -> usize {
        let mut stun_count = 0;
        let mut has_answers = false;
        let banned = inbox.drop_banned(&hub.banned);
        counters.datagrams_banned += banned as u64;
        let dropped = inbox.admit(self.local, self.flow, |from, datagram| {
            stun_count += 1;
            match stun::receive(datagram, from) {
                Verdict::Answer(answer) => {
                    match self.push(from, answer.bytes(), hub.settings.datagram_queue_bytes_max) {
                        Ok(()) => counters.stun_answered += 1,
                        Err(_full) => counters.stun_dropped += 1,
                    }
                    has_answers = true;
                }
                Verdict::KeepAlive => counters.keep_alives += 1,
                Verdict::Drop => counters.stun_dropped += 1,
            }
        });
        counters.keep_alives += (dropped - stun_count) as u64;
        if has_answers {
            self.flush(hub, counters);
        }
        dropped + banned
    }

    /// Notes what waited in the socket. A batch that is not full left nothing there: nobody is behind it.
    fn measure(&mut self, batch: Batch, inbox: &mut Inbox, counters: &mut Counters) {
        let dropped = batch.dropped.unwrap_or(self.dropped);
        let more = dropped.wrapping_sub(self.dropped);
        self.dropped = dropped;
        counters.datagrams_dropped += u64::from(more);
        let dropped = usize::try_from(more).unwrap_or(usize::MAX);
        inbox.backlog.dropped = inbox.backlog.dropped.saturating_add(dropped);
        if batch.count == BATCH
            && let Some(arrived) = batch.arrived
        {
            let oldest = inbox.backlog.oldest.map_or(arrived, |oldest| oldest.min(arrived));
            inbox.backlog.oldest = Some(oldest);
        }
    }

    /// Tells tokio that all was read. What arrives between the read and this sets the readiness again,
    /// because the runtime asks the kernel later than both.
    fn wait_for_more(&self) {
        let _would_block: io::Result<()> =
            self.socket.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
    }

    /// Adds a datagram to the next batch.
    ///
    /// Errors: `QueueFull` above `bytes_max` octets.
    pub(crate) fn push(&mut self, to: SocketAddr, bytes: &[u8], bytes_max: usize) -> Result<(), SendError> {
        if self.bytes.len() + bytes.len() > bytes_max {
            self.compact();
            if self.bytes.len() + bytes.len() > bytes_max {
                return Err(SendError::QueueFull);
            }
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.datagrams.push((start..self.bytes.len(), to));
        Ok(())
    }

    /// Datagrams that wait.
    pub(crate) const fn waiting(&self) -> usize {
        self.datagrams.len() - self.next
    }

    /// Sends what waits, until the kernel's buffer is full. Datagrams that cannot be sent are reported to
    /// `hub`.
    pub(crate) fn flush(&mut self, hub: &Hub, counters: &mut Counters) {
        let mut left_over = 0;
        while !self.is_blocked && self.next < self.datagrams.len() {
            let batch = self.datagrams.iter().skip(self.next).take(BATCH);
            let batch = batch.map(|(range, to)| (self.bytes.get(range.clone()).unwrap_or_default(), *to));
            match mmsg::send(self.socket.as_fd(), batch) {
                Ok(count) => {
                    self.next += count;
                    counters.datagrams_sent += count as u64;
                    left_over = 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_blocked = true,
                // The kernel reports an error of an earlier datagram at the next call: ask again. Who sends
                // from ports and closes them can have many such errors arrive at once.
                Err(_maybe_left_over) if left_over < LEFT_OVER_MAX => left_over += 1,
                // Only ever of an earlier one; this one can still be sent.
                Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => self.is_blocked = true,
                Err(error) => {
                    self.report(hub, &error);
                    counters.datagrams_failed += 1;
                    self.next += 1;
                    left_over = 0;
                }
            }
        }
        if self.next == self.datagrams.len() {
            self.bytes.clear();
            self.bytes.shrink_to(BUFFER_KEPT);
            self.datagrams.clear();
            self.next = 0;
        }
    }

    fn report(&self, hub: &Hub, error: &io::Error) {
        if let Some(&(_, to)) = self.datagrams.get(self.next) {
            hub.push(Event::SendFailed { peer: self.peer(to), reason: failure(error) });
        }
    }

    /// Drops the octets of datagrams that are gone.
    fn compact(&mut self) {
        let start = self.datagrams.get(self.next).map_or(self.bytes.len(), |(range, _)| range.start);
        self.bytes.drain(..start);
        self.datagrams.drain(..self.next);
        self.next = 0;
        for (range, _) in &mut self.datagrams {
            *range = range.start - start..range.end - start;
        }
    }

    /// Reports what the network says about lost datagrams, for as long as the shard lives.
    pub(crate) fn watch_errors(&self, hub: Arc<Hub>) -> impl Future<Output = ()> + Send + 'static {
        let (socket, local, flow) = (Arc::clone(&self.socket), self.local, self.flow);
        async move {
            while socket.ready(Interest::ERROR).await.is_ok() {
                let _would_block: io::Result<()> =
                    socket.try_io(Interest::ERROR, || Err(io::ErrorKind::WouldBlock.into()));
                while let Some(returned) = mmsg::take_returned(socket.as_fd()) {
                    let reason = failure(&io::Error::from_raw_os_error(returned.errno));
                    // "Too long" from the network: the kernel knows the path now and cuts the retransmission.
                    if reason != SendFailure::TooLong {
                        let peer = Peer { protocol: Protocol::Udp, remote: returned.to, local, flow };
                        hub.push(Event::SendFailed { peer, reason });
                    }
                }
            }
        }
    }
}

fn failure(error: &io::Error) -> SendFailure {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENOPROTOOPT) => {
            SendFailure::Unreachable
        }
        Some(libc::EMSGSIZE) => SendFailure::TooLong,
        Some(_) | None => SendFailure::System(error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;
    use crate::Settings;

    /// Runs `test` with an endpoint and a socket to send to.
    fn with_endpoint(test: impl FnOnce(UdpEndpoint, std::net::UdpSocket)) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let local = socket.local_addr().unwrap();
            test(UdpEndpoint::new(socket, local, 0), receiver);
        });
    }

    #[test]
    fn room_of_datagrams_that_are_gone_is_used_again_while_others_wait() {
        with_endpoint(|mut endpoint, receiver| {
            let to = receiver.local_addr().unwrap();
            endpoint.push(to, b"gone", 10).unwrap();
            endpoint.push(to, b"wait", 10).unwrap();
            endpoint.next = 1;

            assert_eq!(endpoint.push(to, b"next", 10), Ok(()));
            assert_eq!(endpoint.push(to, b"nextnext", 10), Err(SendError::QueueFull));
            endpoint.flush(&Hub::new(Settings::default(), Arc::default()), &mut Counters::default());

            for text in [b"wait", b"next"] {
                let mut buffer = [0; 10];
                let length = receiver.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], text);
            }
            assert_eq!((endpoint.waiting(), endpoint.bytes.len()), (0, 0));
        });
    }

    #[test]
    fn a_blocked_socket_keeps_its_datagrams_until_the_pause_is_over() {
        with_endpoint(|mut endpoint, receiver| {
            let hub = Hub::new(Settings::default(), Arc::default());
            let mut counters = Counters::default();
            endpoint.is_blocked = true;
            endpoint.push(receiver.local_addr().unwrap(), b"kept", 10).unwrap();

            endpoint.flush(&hub, &mut counters);
            assert_eq!((endpoint.waiting(), counters.datagrams_sent), (1, 0));
            endpoint.is_blocked = false;
            endpoint.flush(&hub, &mut counters);

            assert_eq!(receiver.recv(&mut [0; 10]).unwrap(), 4);
            assert_eq!(counters.datagrams_sent, 1);
        });
    }
}
