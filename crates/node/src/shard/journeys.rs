//! Requests with more than one way to their next hop, and what is tried after the first has failed.
//!
//! A request that would leave as a long datagram goes over TCP where its target may speak it, and as a
//! datagram after all when TCP is refused (RFC 3261 section 18.1.1). A request to a host goes to one of its
//! places after the other, until one answers with anything but 503 (RFC 3263 section 4.3). Its topmost Via
//! follows, and with it the Via of its CANCEL (RFC 3261 section 9.1).

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use hashbrown::HashMap;
use model::{Instant, Leg, NextHop, Place, Protocol};
use proxy::{BranchFailure, BranchKey};
use sip::{HeaderId, Message, NameAddr, OwnedMessage, Rewrite, Uri};
use transport::Destination;

use super::{Shard, Turn, respond::hexadecimal};

/// How long a connection may take where a datagram can go instead: once more than the first SYN may be lost.
const TCP_WITHIN: Duration = Duration::from_secs(2);
/// How long a connection to a host may take while it has other places.
const PLACE_WITHIN: Duration = Duration::from_secs(4);
/// How long it is remembered that an address refuses TCP.
pub const TCP_REFUSED_FOR: Duration = Duration::from_secs(600);
/// Octets at the end of a branch parameter of ours: what is unique, a full stop, and the mark of a loop.
const BRANCH_END_BYTES: usize = 33;

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
    current: Attempt,
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
    kind: Kind,
}

/// What an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Over TCP because the request is long.
    Long,
    /// As a datagram after TCP was refused, and only then.
    AfterLong,
    /// To a place of a host.
    Place,
}

impl Journeys {
    /// The topmost Via of the request of a branch as it was sent, where it may not be what the proxy wrote.
    pub fn via(&self, tag: u64) -> Option<&Bytes> {
        self.by_tag.get(&tag).map(|journey| &journey.via)
    }

    /// Whether a branch has another place to go to.
    pub fn may_go_on(&self, tag: u64) -> bool {
        let is_place = |attempt: &Attempt| attempt.kind != Kind::AfterLong;
        !self.by_tag.is_empty() && self.by_tag.get(&tag).is_some_and(|it| it.rest.iter().any(is_place))
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
        let rest = match next_hop {
            NextHop::Address { protocol: Protocol::Udp, remote } => {
                let way = Attempt::new(Destination::address(Protocol::Udp, *remote), None, Kind::AfterLong);
                let Some(long) = self.long_way(turn.now, request.view(), &way.destination) else {
                    return false;
                };
                [long, way].into()
            }
            NextHop::Host { name, places } => self.ways_of_host(turn.now, request.view(), name, places),
            NextHop::Address { .. } | NextHop::Flow(_) | NextHop::Server(_) => return false,
        };
        if !self.travel(turn, u64::from(branch), request, rest, false) {
            self.proxy.branch_failed(turn.now, branch, BranchFailure::Unreachable);
        }
        true
    }

    /// Goes on with the next way of a branch that failed; `false` when there is none.
    pub(super) fn go_on(&mut self, turn: &Turn<'_>, tag: u64, failure: BranchFailure) -> bool {
        let Some(Journey { request, via: _, current, mut rest }) = self.journeys.by_tag.remove(&tag) else {
            return false;
        };
        let Destination { protocol, remote, .. } = current.destination;
        match (current.kind, failure) {
            (_, BranchFailure::Full) => return false,
            (Kind::Long, BranchFailure::Unreachable) => {
                self.without_tcp.note(turn.now, remote);
                self.shared.counters.long_requests_refused.add();
            }
            // What may have arrived is not sent again to the same place.
            (Kind::Long, BranchFailure::Timeout | BranchFailure::Transport) => {
                self.hosts.note_failed(turn.now, Place { protocol: Protocol::Udp, remote });
                rest.pop_front_if(|next| next.kind == Kind::AfterLong);
            }
            (Kind::AfterLong | Kind::Place, _) => {
                self.hosts.note_failed(turn.now, Place { protocol, remote });
            }
        }
        if rest.front().is_some_and(|next| next.kind != Kind::AfterLong) {
            self.shared.counters.requests_at_next_address.add();
        }
        self.travel(turn, tag, &request, rest, true)
    }

    /// Tries one way after the other until the request is on one. After a first one each is a transaction of
    /// its own, with a branch parameter of its own.
    fn travel(
        &mut self,
        turn: &Turn<'_>,
        tag: u64,
        original: &Arc<OwnedMessage>,
        mut rest: VecDeque<Attempt>,
        is_again: bool,
    ) -> bool {
        while let Some(attempt) = rest.pop_front() {
            let connected = match attempt.within {
                Some(within) => self.sockets.connect_within(&attempt.destination, within),
                None => self.sockets.connect(&attempt.destination),
            };
            let Ok(peer) = connected else { continue };
            let unique = is_again.then(|| hexadecimal(self.chance.bits()));
            let Some(request) = with_leg(original, attempt.leg.as_deref(), unique) else { continue };
            let via = request.view().values(HeaderId::Via).next().map(Bytes::copy_from_slice);
            let Ok(client) = self.transactions.request(turn.now, request, peer, tag) else { return false };
            self.shared.counters.requests_forwarded.add();
            if attempt.kind == Kind::Long {
                self.shared.counters.long_requests_by_tcp.add();
            }
            self.sent.insert(tag, client, peer);
            let request = Arc::clone(original);
            let journey = Journey { request, via: via.unwrap_or_default(), current: attempt, rest };
            self.journeys.by_tag.insert(tag, journey);
            return true;
        }
        false
    }

    /// Each place of a host in turn, by TCP first where a datagram would be too long.
    fn ways_of_host(
        &self,
        now: Instant,
        request: Message<'_>,
        name: &Arc<str>,
        places: &[Place],
    ) -> VecDeque<Attempt> {
        let mut ways = VecDeque::new();
        for (number, &place) in places.iter().enumerate() {
            let destination = to_place(name, place);
            let leg = self.legs.by_protocol(place.protocol, place.remote);
            let long = match place.protocol {
                Protocol::Udp => self.long_way(now, request, &destination),
                Protocol::Tcp | Protocol::Tls | Protocol::Ws | Protocol::Wss => None,
            };
            let kind = if long.is_some() { Kind::AfterLong } else { Kind::Place };
            ways.extend(long);
            let is_last = number + 1 == places.len();
            let within = (!is_last).then_some(PLACE_WITHIN);
            ways.push_back(Attempt { within, ..Attempt::new(destination, leg, kind) });
        }
        ways
    }

    /// By TCP in place of a datagram: for a request that is too long for one, unless its URI names UDP, or
    /// the address is known to refuse TCP. What goes over a flow stays on it: nothing else leads through its
    /// NAT, and the phone chose it.
    fn long_way(&self, now: Instant, request: Message<'_>, datagram: &Destination) -> Option<Attempt> {
        let remote = datagram.remote;
        if request.bytes().len() <= self.settings.udp_request_bytes_max
            || names_transport(request)
            || self.without_tcp.holds(now, &remote)
        {
            return None;
        }
        let leg = self.legs.by_protocol(Protocol::Tcp, remote)?;
        let destination = Destination::address(Protocol::Tcp, remote);
        Some(Attempt { within: Some(TCP_WITHIN), ..Attempt::new(destination, Some(leg), Kind::Long) })
    }
}

impl Attempt {
    const fn new(destination: Destination, leg: Option<Arc<Leg>>, kind: Kind) -> Self {
        Self { destination, leg, within: None, kind }
    }
}

/// A place of a host; over TLS its certificate must carry the host's name (RFC 5922 section 7.4).
pub fn to_place(name: &Arc<str>, Place { protocol, remote }: Place) -> Destination {
    match protocol {
        Protocol::Tls => Destination::tls(remote, Arc::clone(name)),
        Protocol::Udp | Protocol::Tcp | Protocol::Ws | Protocol::Wss => {
            Destination::address(protocol, remote)
        }
    }
}

/// The CANCEL of a request with this topmost Via (RFC 3261 section 9.1).
pub fn with_via(request: Message<'_>, via: &[u8]) -> Option<Arc<OwnedMessage>> {
    let mut rewrite = Rewrite::new(request);
    rewrite.pop_top_via().push_via(via);
    rewrite.to_message().ok().map(Arc::new)
}

/// The same request leaving by another leg, and with another branch parameter.
fn with_leg(
    original: &Arc<OwnedMessage>,
    leg: Option<&Leg>,
    unique: Option<[u8; 16]>,
) -> Option<Arc<OwnedMessage>> {
    if leg.is_none() && unique.is_none() {
        return Some(Arc::clone(original));
    }
    let request = original.view();
    let via = request.values(HeaderId::Via).next()?;
    let branch = request.top_via().ok()?.branch()?;
    // The value is our own: the leg, `;branch=` and the branch.
    let before = via.strip_suffix(branch)?.strip_suffix(b";branch=")?;
    let before = leg.map_or(before, |leg| leg.via.as_ref());
    let mut value = [before, b";branch=", branch].concat();
    if let Some(unique) = unique {
        let begin = value.len().checked_sub(BRANCH_END_BYTES)?;
        value.get_mut(begin..begin + unique.len())?.copy_from_slice(&unique);
    }
    with_via(request, &value)
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
        let text = "INVITE sip:a@192.0.2.1 SIP/2.0\r\n\
                    Via: SIP/2.0/UDP 192.0.2.5:5060;branch=z9hG4bK0.0123456789abcdef.fedcba9876543210\r\n\
                    Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKphone\r\nl: 0\r\n\r\n";
        let leg = Leg { via: Bytes::from_static(b"SIP/2.0/TCP 192.0.2.5:5062"), record_route: Bytes::new() };
        let request = check(text, OwnedMessage::from_view);
        let request = Arc::new(request);
        let vias = |leg, unique| -> Vec<String> {
            let changed = with_leg(&request, leg, unique).unwrap();
            let vias = changed.view().values(HeaderId::Via);
            vias.map(|via| String::from_utf8_lossy(via).into_owned()).collect()
        };

        let phone = "SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKphone";
        let end = "0123456789abcdef.fedcba9876543210";
        assert_eq!(
            vias(Some(&leg), None),
            [&format!("SIP/2.0/TCP 192.0.2.5:5062;branch=z9hG4bK0.{end}"), phone]
        );
        let other = "aaaaaaaaaaaaaaaa.fedcba9876543210";
        assert_eq!(
            vias(None, Some([b'a'; 16])),
            [&format!("SIP/2.0/UDP 192.0.2.5:5060;branch=z9hG4bK0.{other}"), phone]
        );
    }
}
