//! Requests that arrive while a home pool's users are between two owners: they wait for the new one instead
//! of being refused.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use model::{Instant, Peer, ServerName, ServerTransaction, limits};
use sip::OwnedMessage;

use super::{Origin, Shard, Turn};

/// How long a request may wait: longer than a handover takes, shorter than the patience of a phone.
const HOLD_MAX: Duration = Duration::from_secs(2);
/// Time between two looks at whether there is an owner again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Requests that wait for an owner, oldest first.
#[derive(Debug, Default)]
pub struct HeldRequests {
    queue: VecDeque<(Instant, Held)>,
    look_at: Option<Instant>,
    /// Set while a request that waited is dealt with again.
    again: Option<Again>,
}

/// A request that waits.
#[derive(Clone, Debug)]
pub struct Held {
    pub(super) origin: Origin,
    pub(super) server: ServerTransaction,
    pub(super) request: Arc<OwnedMessage>,
    pub(super) from: Peer,
    /// Whether it was forwarded to the former owner already: another time would be one too many.
    pub(super) was_passed_on: bool,
    /// The server that it could not be sent to.
    pub(super) gone: Option<ServerName>,
}

impl Held {
    /// A request that was not forwarded yet.
    pub(super) fn new(
        origin: &Origin,
        server: ServerTransaction,
        request: &Arc<OwnedMessage>,
        from: Peer,
    ) -> Self {
        let (origin, request) = (origin.clone(), Arc::clone(request));
        Self { origin, server, request, from, was_passed_on: false, gone: None }
    }
}

#[derive(Clone, Debug)]
struct Again {
    until: Instant,
    was_passed_on: bool,
    gone: Option<ServerName>,
}

impl HeldRequests {
    /// When [`Shard::release_held`] is to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        self.look_at
    }

    /// Whether what is dealt with now had to wait: of requests other than REGISTER only such wait as were let
    /// in.
    pub fn is_again(&self) -> bool {
        self.again.is_some()
    }

    /// Whether what is dealt with now had been forwarded to a former owner.
    pub fn was_passed_on(&self) -> bool {
        self.again.as_ref().is_some_and(|again| again.was_passed_on)
    }

    /// The server that what is dealt with now could not be sent to.
    pub fn gone(&self) -> Option<&ServerName> {
        self.again.as_ref()?.gone.as_ref()
    }

    /// Keeps a request; `false` when it waited long enough or too many wait.
    fn keep(&mut self, now: Instant, held: Held) -> bool {
        let until = self.again.as_ref().map_or(now + HOLD_MAX, |again| again.until);
        if now >= until || self.queue.len() >= limits::REQUESTS_HELD_MAX {
            return false;
        }
        let was_passed_on = held.was_passed_on || self.was_passed_on();
        let gone = held.gone.or_else(|| self.gone().cloned());
        self.queue.push_back((until, Held { was_passed_on, gone, ..held }));
        self.look_at.get_or_insert(now + LOOK_EVERY);
        true
    }

    /// Keeps a request that is to be dealt with again at once; `false` when too many wait.
    fn keep_for_now(&mut self, now: Instant, held: Held) -> bool {
        let is_kept = self.keep(now, held);
        if is_kept {
            self.look_at = Some(now);
        }
        is_kept
    }

    /// Forgets one that its sender gave up; whether there was one.
    pub fn remove(&mut self, server: ServerTransaction) -> Option<Held> {
        let at = self.queue.iter().position(|(_, held)| held.server == server)?;
        self.queue.remove(at).map(|(_, held)| held)
    }
}

impl Shard {
    /// Lets a request wait for an owner; `false` when it has to be answered now.
    pub(super) fn hold(&mut self, turn: &Turn<'_>, held: Held) -> bool {
        let is_kept = self.held.keep(turn.now, held);
        if is_kept {
            self.shared.counters.requests_held.add();
        }
        is_kept
    }

    /// Deals with a request again, at the end of this turn, as if the server that it could not be sent to
    /// were silent; `false` when it has to be answered now.
    pub(super) fn go_round(&mut self, turn: &Turn<'_>, held: Held, gone: ServerName) -> bool {
        let held = Held { was_passed_on: true, gone: Some(gone), ..held };
        self.held.keep_for_now(turn.now, held)
    }

    /// Deals once more with a request that waited for something else than an owner.
    pub(super) fn again(&mut self, turn: &Turn<'_>, held: Held) {
        let until = turn.now + HOLD_MAX;
        let before = self.held.again.take();
        let Held { was_passed_on, gone, .. } = &held;
        self.held.again = Some(Again { until, was_passed_on: *was_passed_on, gone: gone.clone() });
        self.request(turn, &held.origin, held.server, &held.request, held.from);
        self.held.again = before;
    }

    /// Deals again with the requests that wait; those that still find no owner go on waiting until their time
    /// is over.
    pub(super) fn release_held(&mut self, turn: &Turn<'_>) {
        if self.held.look_at.is_none_or(|at| turn.now < at) {
            return;
        }
        self.held.look_at = None;
        for (until, held) in std::mem::take(&mut self.held.queue) {
            let Held { was_passed_on, gone, .. } = &held;
            self.held.again = Some(Again { until, was_passed_on: *was_passed_on, gone: gone.clone() });
            self.request(turn, &held.origin, held.server, &held.request, held.from);
        }
        self.held.again = None;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use bytes::Bytes;
    use model::{FlowId, Protocol};

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    fn held(number: u64) -> Held {
        let text = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
                    From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\
                    Max-Forwards: 70\r\n\r\n";
        let address: SocketAddr = "127.0.0.1:5060".parse().unwrap();
        Held {
            origin: Origin::Phone,
            server: ServerTransaction(number),
            request: Arc::new(
                OwnedMessage::parse(Bytes::from_static(text.as_bytes()), sip::Framing::Datagram).unwrap(),
            ),
            from: Peer { protocol: Protocol::Udp, remote: address, local: address, flow: FlowId::new(0, 1) },
            was_passed_on: false,
            gone: None,
        }
    }

    #[test]
    fn a_request_waits_two_seconds_in_all_however_often_it_is_looked_at() {
        let mut requests = HeldRequests::default();
        assert!(requests.keep(at(0), held(1)));

        let (until, first) = requests.queue.pop_front().unwrap();
        requests.again = Some(Again { until, was_passed_on: true, gone: None });

        assert!(requests.keep(at(1_999), first.clone()));
        assert!(!requests.keep(at(2_000), first));
        assert!(requests.queue.front().unwrap().1.was_passed_on);
    }

    #[test]
    fn too_many_requests_do_not_wait() {
        let mut requests = HeldRequests::default();
        for number in 0..u64::try_from(limits::REQUESTS_HELD_MAX).unwrap() {
            assert!(requests.keep(at(0), held(number)));
        }

        assert!(!requests.keep(at(0), held(u64::MAX)));
    }

    #[test]
    fn a_request_that_could_not_be_sent_is_looked_at_at_once_and_remembers_to_whom() {
        let mut requests = HeldRequests::default();
        let gone = Some(ServerName::new("east1").unwrap());
        assert!(requests.keep(at(5), held(1)));
        assert_eq!(requests.deadline(), Some(at(25)));

        assert!(requests.keep_for_now(at(6), Held { gone: gone.clone(), ..held(2) }));

        assert_eq!(requests.deadline(), Some(at(6)));
        assert_eq!(requests.queue.back().unwrap().1.gone, gone);
        requests.again = Some(Again { until: at(2_006), was_passed_on: true, gone: gone.clone() });
        assert!(requests.keep(at(7), held(2)), "it may have to wait for an owner after all");
        assert_eq!(requests.queue.back().unwrap().1.gone, gone);
    }

    #[test]
    fn a_request_that_its_sender_gave_up_is_forgotten() {
        let mut requests = HeldRequests::default();
        assert!(requests.keep(at(0), held(1)));

        assert!(requests.remove(ServerTransaction(1)).is_some());
        assert!(requests.remove(ServerTransaction(1)).is_none());
        assert_eq!(requests.deadline(), Some(at(20)));
    }
}
