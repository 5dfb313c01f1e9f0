//! Requests with more than one way to their next hop, and what is tried after the first has failed.
//!
//! A request that would leave as a long datagram goes over TCP where its target may speak it, and as a
//! datagram after all when TCP is refused (RFC 3261 section 18.1.1). Its topmost Via follows, and with it the
//! Via of its CANCEL (section 9.1).

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use hashbrown::HashMap;
use model::{Instant, Leg, NextHop, Protocol};
use proxy::{BranchFailure, BranchKey};
use sip::{HeaderId, Message, NameAddr, OwnedMessage, Rewrite, Uri};
use transport::Destination;

use super::{Shard, Turn};

/// How long a connection may take where a datagram can go instead: once more than the first SYN may be lost.
const TCP_WITHIN: Duration = Duration::from_secs(2);
/// How long it is remembered that an address refuses TCP.
pub const TCP_REFUSED_FOR: Duration = Duration::from_secs(600);

/// The requests under way that have, or had, more than one way.
#[derive(Debug, Default)]
pub struct Journeys {
    by_tag: HashMap<u64, Journey>,
}

/// One such request.
#[derive(Debug)]
struct Journey {
    /// As the proxy made it.
    request: Arc<OwnedMessage>,
    /// Its topmost Via as it was sent last.
    via: Bytes,
    /// Where it was sent last.
    current: Destination,
    /// What may be tried when that fails, in order.
    rest: VecDeque<Attempt>,
}

/// One way to send a request.
#[derive(Clone, Debug)]
struct Attempt {
    destination: Destination,
    /// What the request says about us; `None`: what the proxy wrote.
    leg: Option<Arc<Leg>>,
    /// How long a connection may take; `None`: as any.
    within: Option<Duration>,
}

impl Journeys {
    /// The topmost Via of the request of a branch as it was sent, where it may not be what the proxy wrote.
    pub fn via(&self, tag: u64) -> Option<&Bytes> {
        self.by_tag.get(&tag).map(|journey| &journey.via)
    }

    /// Forgets a branch that has its final answer, or is to have no further way.
    pub fn end(&mut self, tag: u64) {
        if !self.by_tag.is_empty() {
            self.by_tag.remove(&tag);
        }
    }
}

impl Shard {
    /// Sends a request that has more than one way; `false` for all others, which are most.
    pub(super) fn set_out(
        &mut self,
        turn: &Turn<'_>,
        branch: BranchKey,
        request: &Arc<OwnedMessage>,
        next_hop: &NextHop,
    ) -> bool {
        let Some(rest) = self.ways_of_long(turn.now, request.view(), next_hop) else { return false };
        self.shared.counters.long_requests_by_tcp.add();
        if !self.travel(turn, u64::from(branch), request, rest) {
            self.proxy.branch_failed(turn.now, branch, BranchFailure::Unreachable);
        }
        true
    }

    /// Goes on with the next way of a branch that failed; `false` when there is none.
    pub(super) fn go_on(&mut self, turn: &Turn<'_>, tag: u64, failure: BranchFailure) -> bool {
        let Some(journey) = self.journeys.by_tag.remove(&tag) else { return false };
        // What may have arrived is not sent again to the same target: only a refusal sends it back.
        if failure != BranchFailure::Unreachable {
            return false;
        }
        if journey.current.protocol == Protocol::Tcp && !journey.rest.is_empty() {
            self.without_tcp.note(turn.now, journey.current.remote);
            self.shared.counters.long_requests_refused.add();
        }
        self.travel(turn, tag, &journey.request, journey.rest)
    }

    /// Tries one way after the other until the request is on one.
    fn travel(
        &mut self,
        turn: &Turn<'_>,
        tag: u64,
        original: &Arc<OwnedMessage>,
        mut rest: VecDeque<Attempt>,
    ) -> bool {
        while let Some(Attempt { destination, leg, within }) = rest.pop_front() {
            let connected = match within {
                Some(within) => self.sockets.connect_within(&destination, within),
                None => self.sockets.connect(&destination),
            };
            let Ok(peer) = connected else { continue };
            let request = match &leg {
                Some(leg) => with_leg(original.view(), leg),
                None => Some(Arc::clone(original)),
            };
            let Some(request) = request else { continue };
            let via = request.view().values(HeaderId::Via).next().map(Bytes::copy_from_slice);
            let Ok(client) = self.transactions.request(turn.now, request, peer, tag) else { return false };
            self.shared.counters.requests_forwarded.add();
            self.sent.insert(tag, client, peer);
            let request = Arc::clone(original);
            let journey = Journey { request, via: via.unwrap_or_default(), current: destination, rest };
            self.journeys.by_tag.insert(tag, journey);
            return true;
        }
        false
    }

    /// Over TCP and then as a datagram: a request to an address by UDP that is too long for it, unless its
    /// URI names UDP, or the address is known to refuse TCP. What goes over a flow stays on it: nothing else
    /// leads through its NAT, and the phone chose it.
    fn ways_of_long(
        &self,
        now: Instant,
        request: Message<'_>,
        next_hop: &NextHop,
    ) -> Option<VecDeque<Attempt>> {
        let NextHop::Address { protocol: Protocol::Udp, remote } = *next_hop else { return None };
        if request.bytes().len() <= self.settings.udp_request_bytes_max
            || names_transport(request)
            || self.without_tcp.holds(now, &remote)
        {
            return None;
        }
        let leg = self.legs.by_protocol(Protocol::Tcp, remote)?;
        let way = |protocol, leg, within| Attempt {
            destination: Destination::address(protocol, remote),
            leg,
            within,
        };
        Some([way(Protocol::Tcp, Some(leg), Some(TCP_WITHIN)), way(Protocol::Udp, None, None)].into())
    }
}

/// The CANCEL of a request with this topmost Via (RFC 3261 section 9.1).
pub fn with_via(request: Message<'_>, via: &[u8]) -> Option<Arc<OwnedMessage>> {
    let mut rewrite = Rewrite::new(request);
    rewrite.pop_top_via().push_via(via);
    rewrite.to_message().ok().map(Arc::new)
}

/// The same request leaving by another leg.
fn with_leg(request: Message<'_>, leg: &Leg) -> Option<Arc<OwnedMessage>> {
    let branch = request.top_via().ok()?.branch()?;
    with_via(request, &[leg.via.as_ref(), b";branch=", branch].concat())
}

/// Whether the URI that a request goes to says by which transport.
fn names_transport(request: Message<'_>) -> bool {
    let route = request.values(HeaderId::Route).next().and_then(NameAddr::parse);
    let uri = route.map_or(request.request_uri(), |route| route.uri_bytes);
    Uri::parse(uri).is_ok_and(|uri| uri.transport().is_some())
}

#[cfg(test)]
mod tests {
    use sip::{Framing, Index};

    use super::*;

    fn check<T>(text: &str, look: impl FnOnce(Message<'_>) -> T) -> T {
        let mut index = Index::new();
        index.parse(text.as_bytes(), Framing::Datagram).unwrap();
        look(index.view(text.as_bytes()))
    }

    #[test]
    fn the_next_hop_names_its_transport_in_its_own_uri() {
        let with = |uri: &str, route: &str| {
            check(&format!("INFO {uri} SIP/2.0\r\n{route}l: 0\r\n\r\n"), names_transport)
        };

        assert!(with("sip:a@192.0.2.1;transport=udp", ""));
        assert!(!with("sip:a@192.0.2.1", ""));
        assert!(with("sip:a@192.0.2.1", "Route: <sip:192.0.2.9;transport=UDP;lr>,<sip:192.0.2.8;lr>\r\n"));
        assert!(!with("sip:a@192.0.2.1;transport=udp", "Route: <sip:192.0.2.9;lr>\r\n"));
    }

    #[test]
    fn the_via_follows_the_transport_and_keeps_its_branch_and_those_below() {
        let text = "INVITE sip:a@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.5:5060;branch=z9hG4bK0.1.2\r\n\
                    Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKphone\r\nl: 0\r\n\r\n";
        let leg = Leg { via: Bytes::from_static(b"SIP/2.0/TCP 192.0.2.5:5062"), record_route: Bytes::new() };

        let changed = check(text, |request| with_leg(request, &leg)).unwrap();

        let vias: Vec<_> = changed.view().values(HeaderId::Via).collect();
        assert_eq!(vias[0], b"SIP/2.0/TCP 192.0.2.5:5062;branch=z9hG4bK0.1.2");
        assert_eq!(vias[1], b"SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKphone");
        assert_eq!(vias.len(), 2);
    }
}
