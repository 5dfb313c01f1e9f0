//! Next hops that are given by name: the servers of each host, as long as they may be believed, and the
//! requests that wait until they are known (RFC 3263).

use std::{cell::RefCell, sync::Arc, time::Duration};

use hashbrown::HashMap;
use model::{Chance, Instant, Leg, NextHop, Peer, Place, Protocol, limits};
use proxy::Reject;
use sip::{OwnedMessage, Scheme, Uri};
use transport::location::{LocateError, Located, Sought};

use super::{Origin, Shard, Turn, held::Held, remembered::Remembered};
use crate::{clock, locator::Found};

/// How long a place that failed is tried after the others.
const FAILED_FOR: Duration = Duration::from_secs(60);
/// How long a host is not asked for again that could not be looked up.
const UNKNOWN_FOR: Duration = Duration::from_secs(2);

/// What one shard knows of hosts, and what waits to know more.
pub struct Hosts {
    known: HashMap<Sought, Known>,
    /// Hosts that the decision under way would have to know.
    wanted: RefCell<Vec<Sought>>,
    waiting: HashMap<Sought, Vec<Waiting>>,
    waiting_count: usize,
    failed: Remembered<Place>,
    chance: RefCell<Chance>,
}

struct Known {
    found: Result<Located, Problem>,
    until: Instant,
}

/// Why a host has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    /// It has no server for SIP.
    Nothing,
    /// Nobody could say.
    Unknown,
}

/// What waits for a host.
enum Waiting {
    Request(Held),
    Ack { origin: Origin, request: Arc<OwnedMessage>, from: Peer },
}

impl Hosts {
    /// Nothing known.
    pub fn new(chance: Chance) -> Self {
        Self {
            known: HashMap::new(),
            wanted: RefCell::default(),
            waiting: HashMap::new(),
            waiting_count: 0,
            failed: Remembered::new(FAILED_FOR, limits::PLACES_FAILED_MAX),
            chance: RefCell::new(chance),
        }
    }

    /// Notes that a place did not answer.
    pub fn note_failed(&mut self, now: Instant, place: Place) {
        self.failed.note(now, place);
    }

    /// Forgets a request that its sender gave up; whether there was one.
    pub fn remove(&mut self, server: model::ServerTransaction) -> Option<Held> {
        if self.waiting_count == 0 {
            return None;
        }
        for waiting in self.waiting.values_mut() {
            let is_it =
                |waiting: &Waiting| matches!(waiting, Waiting::Request(held) if held.server == server);
            if let Some(at) = waiting.iter().position(is_it)
                && let Waiting::Request(held) = waiting.swap_remove(at)
            {
                self.waiting_count -= 1;
                return Some(held);
            }
        }
        None
    }

    /// The places of a host that can be reached by `is_usable`, in the order in which they are tried: those
    /// that failed lately last. `None` until it is known; then it is noted as wanted.
    fn places(
        &self,
        now: Instant,
        sought: &Sought,
        is_usable: impl Fn(&Place) -> bool,
    ) -> Option<Result<Vec<Place>, Problem>> {
        let Some(known) = self.known.get(sought).filter(|known| now < known.until) else {
            self.wanted.borrow_mut().push(sought.clone());
            return None;
        };
        Some(match &known.found {
            Err(problem) => Err(*problem),
            Ok(located) => {
                let mut places = located.in_order(&mut self.chance.borrow_mut());
                places.retain(is_usable);
                places.sort_by_key(|place| self.failed.holds(now, place));
                Ok(places)
            }
        })
    }

    fn learn(&mut self, now: Instant, sought: Sought, found: Found) {
        let (found, lifetime) = match found {
            Ok(located) => {
                let lifetime = located.lifetime;
                (Ok(located), lifetime)
            }
            Err(LocateError::Nothing { lifetime, .. }) => (Err(Problem::Nothing), lifetime),
            Err(LocateError::Unknown { .. }) => (Err(Problem::Unknown), UNKNOWN_FOR),
        };
        if self.known.len() >= limits::HOSTS_KNOWN_MAX {
            self.known.retain(|_, known| now < known.until);
        }
        if self.known.len() >= limits::HOSTS_KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(sought, Known { found, until: now + lifetime });
    }
}

impl Shard {
    /// Towards a host name.
    ///
    /// Errors: 404 for a host that has no SIP server, or none that can be reached from here, for our own
    /// names and for WebSocket; 504 when nobody could say, and as long as nobody was asked, see
    /// [`Self::await_hosts`].
    pub(super) fn towards_host(&self, uri: &Uri<'_>) -> Result<(NextHop, Arc<Leg>), Reject> {
        let protocol = uri.protocol();
        if self.legs.is_own(uri) || matches!(protocol, Some(Protocol::Ws | Protocol::Wss)) {
            return Err(Reject::NotFound);
        }
        // A transport that we do not know is one that nobody can be reached by.
        if uri.transport().is_some() && protocol.is_none() {
            return Err(Reject::NotFound);
        }
        let host = std::str::from_utf8(uri.host).map_err(|_| Reject::NotFound)?;
        let host: Arc<str> = host.trim_end_matches('.').to_ascii_lowercase().into();
        let is_sips = uri.scheme == Scheme::Sips;
        let sought = Sought { host: Arc::clone(&host), port: uri.port, protocol, is_sips };
        let leg_to = |place: &Place| self.legs.by_protocol(place.protocol, place.remote);
        let places = self.hosts.places(clock::now(), &sought, |place| leg_to(place).is_some());
        match places {
            Some(Err(Problem::Nothing)) => Err(Reject::NotFound),
            None | Some(Err(Problem::Unknown)) => Err(Reject::ServerTimeout),
            Some(Ok(places)) => {
                let leg = places.first().and_then(leg_to).ok_or(Reject::NotFound)?;
                Ok((NextHop::Host { name: host, places: places.into() }, leg))
            }
        }
    }

    /// Before a decision: nothing is wanted yet.
    pub(super) fn begin_to_want_hosts(&self) {
        self.hosts.wanted.borrow_mut().clear();
    }

    /// After a decision for which a host should have been known: lets the request wait until it is. `false`
    /// when nothing has to be waited for, or no more may wait.
    pub(super) fn await_hosts(&mut self, turn: &Turn<'_>, held: impl FnOnce() -> Held) -> bool {
        let Some(sought) = self.next_wanted() else { return false };
        self.wait_for(turn, sought, || Waiting::Request(held()))
    }

    /// The same for an ACK.
    pub(super) fn await_hosts_for_ack(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        request: &Arc<OwnedMessage>,
        from: Peer,
    ) -> bool {
        let Some(sought) = self.next_wanted() else { return false };
        let ack = || Waiting::Ack { origin: origin.clone(), request: Arc::clone(request), from };
        self.wait_for(turn, sought, ack)
    }

    fn next_wanted(&self) -> Option<Sought> {
        self.hosts.wanted.borrow_mut().pop()
    }

    fn wait_for(&mut self, turn: &Turn<'_>, sought: Sought, waiting: impl FnOnce() -> Waiting) -> bool {
        if self.hosts.waiting_count >= limits::REQUESTS_FOR_HOSTS_MAX {
            return false;
        }
        let is_asked = self.hosts.waiting.get(&sought).is_some_and(|list| !list.is_empty());
        if !is_asked && !self.shared.locator.ask(sought.clone(), self.mailer.clone()) {
            let (host, source) =
                (Arc::clone(&sought.host), transport::location::DnsError::Failed("too many wait".to_owned()));
            self.hosts.learn(turn.now, sought, Err(LocateError::Unknown { host, source }));
            return false;
        }
        self.shared.counters.requests_for_hosts.add();
        self.hosts.waiting_count += 1;
        self.hosts.waiting.entry(sought).or_default().push(waiting());
        true
    }

    /// A host was looked up: what waited for it goes on.
    pub(super) fn located(&mut self, turn: &Turn<'_>, sought: Sought, found: Found) {
        let waiting = self.hosts.waiting.remove(&sought).unwrap_or_default();
        self.hosts.waiting_count -= waiting.len();
        self.hosts.learn(turn.now, sought, found);
        for waiting in waiting {
            match waiting {
                Waiting::Request(held) => self.again(turn, held),
                Waiting::Ack { origin, request, from } => self.acknowledge(turn, &origin, &request, from),
            }
        }
        self.drain(turn, &Origin::Phone);
    }
}

#[cfg(test)]
mod tests {
    use transport::location::DnsError;

    use super::*;

    fn sought(host: &str) -> Sought {
        Sought { host: host.into(), port: None, protocol: None, is_sips: false }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn nothing(host: &str) -> Found {
        Err(LocateError::Nothing { host: host.into(), lifetime: Duration::from_secs(10) })
    }

    #[test]
    fn what_is_known_is_believed_for_its_time_and_then_wanted_again() {
        let mut hosts = Hosts::new(Chance::seeded(1));
        let ask = |hosts: &Hosts, seconds| hosts.places(at(seconds), &sought("a.example"), |_| true);

        assert_eq!(ask(&hosts, 0), None);
        assert_eq!(hosts.wanted.borrow_mut().pop(), Some(sought("a.example")));
        hosts.learn(at(0), sought("a.example"), nothing("a.example"));

        assert_eq!(ask(&hosts, 9), Some(Err(Problem::Nothing)));
        assert!(hosts.wanted.borrow().is_empty());
        assert_eq!(ask(&hosts, 10), None);

        let unknown = LocateError::Unknown { host: "a.example".into(), source: DnsError::TimedOut };
        hosts.learn(at(10), sought("a.example"), Err(unknown));
        assert_eq!(ask(&hosts, 11), Some(Err(Problem::Unknown)));
        assert_eq!(ask(&hosts, 12), None, "a name server may be back");
    }

    #[test]
    fn no_more_hosts_are_known_than_may_be() {
        let mut hosts = Hosts::new(Chance::seeded(1));
        for number in 0..limits::HOSTS_KNOWN_MAX + 10 {
            let host = format!("{number}.example");
            hosts.learn(at(0), sought(&host), nothing(&host));
        }

        assert!(hosts.known.len() <= limits::HOSTS_KNOWN_MAX);
    }
}
