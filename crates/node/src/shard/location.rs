//! Where requests for a user go: the targets of RFC 3261 section 16.5.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use model::{AddressOfRecord, Leg, NextHop, Peer, Protocol};
use proxy::{Diversions, Reject, Routing, Target};
use registrar::Bindings;
use sip::{Message, Scheme, Uri};
use siphasher::sip::SipHasher13;

use super::{
    Origin, Shard, Turn,
    by_copy::is_for_registrar,
    reach::{is_sips_uri, with_sips},
    sending_on::is_new_call,
};
use crate::shared::Place;

/// Where a request goes.
#[derive(Debug, Default)]
pub(super) struct Located {
    /// At once, by q.
    pub(super) targets: Vec<Target>,
    /// When these do not take it.
    pub(super) diversions: Option<Box<Diversions>>,
    /// The user of ours whose phones these are; `None` where another server decides.
    pub(super) called: Option<AddressOfRecord>,
    /// Whether the called user's phones do not ring, and the targets are where he sends the call.
    pub(super) is_sent_on: bool,
    /// Whether the rest of Route names only who is passed over.
    pub(super) is_route_ours: bool,
}

impl Located {
    /// These targets and nothing else.
    pub(super) fn of(targets: Vec<Target>) -> Self {
        Self { targets, ..Self::default() }
    }

    /// What of the request is not forwarded, when so much of it was for us.
    pub(super) fn routing(&self, found: Routing) -> Routing {
        if self.is_route_ours { found.with_route_consumed() } else { found }
    }
}

impl Shard {
    /// Where a request for a user of a domain of ours goes; a new call as the user wishes.
    ///
    /// Errors: 404 for nobody and for a GRUU that is none any more, 480 without a device, 486 for who does
    /// not want to be disturbed, 503 while nobody may serve the user.
    pub(super) fn locate(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        aor: &AddressOfRecord,
        request: Message<'_>,
        request_uri: &[u8],
    ) -> Result<Located, Reject> {
        let Some(user) = self.shared.directory.user(aor) else { return Err(Reject::NotFound) };
        let retry_after_s = self.settings.proxy.retry_after_s;
        let is_sips = is_sips_uri(request_uri);
        let gruu = self.gruu_of(request_uri)?;
        let bindings = || match &gruu {
            Some(gruu) => self.bindings_of_gruu(gruu, self.shared.bindings(user.home, aor)),
            None => Ok(self.shared.bindings(user.home, aor)),
        };
        match self.place_of(turn, user.home) {
            Place::Here(_) => {
                let bindings = bindings()?;
                let phones = self.targets(aor, &bindings, is_sips, turn.now);
                let located = self.phones_or_wishes(turn, aor, request, phones, gruu.is_some());
                if is_sips { by_tls_only(located, &bindings) } else { located }
            }
            Place::ByCopy if is_for_registrar(request) => Err(Reject::ServiceUnavailable { retry_after_s }),
            Place::ByCopy => {
                let bindings = bindings()?;
                let phones = self.open_targets(aor, &bindings, is_sips, turn.now);
                let located = self.phones_or_wishes(turn, aor, request, phones, gruu.is_some());
                let located = if is_sips { by_tls_only(located, &bindings) } else { located }?;
                self.shared.counters.requests_by_copy.add();
                Ok(located)
            }
            // Who sent it here knows less than we do; sending it back would only make a loop.
            Place::Server(server) if *origin == Origin::Server(server.clone()) => {
                Err(Reject::TemporarilyUnavailable)
            }
            Place::Server(server) => {
                let leg = self.legs.internal().ok_or(Reject::ServerInternal)?;
                let request_uri = Bytes::copy_from_slice(request_uri);
                let next_hop = NextHop::Server(server);
                Ok(Located::of(vec![Target {
                    next_hop,
                    request_uri,
                    routes: Vec::new(),
                    q: 1_000,
                    device: None,
                    leg,
                    diversion: None,
                }]))
            }
            // Who is known to be served elsewhere is not reached; that says nothing of others.
            Place::Nowhere { retry_after_s }
                if self.held.gone().is_some() && !turn.authority.is_any_moving(turn.now) =>
            {
                Err(Reject::Unreachable { retry_after_s })
            }
            Place::Nowhere { retry_after_s } => Err(Reject::ServiceUnavailable { retry_after_s }),
        }
    }

    /// These phones of a user, or what the user wants done with a new call; nothing but the phones where one
    /// device is meant (RFC 5627 section 6.1).
    fn phones_or_wishes(
        &self,
        turn: &Turn<'_>,
        aor: &AddressOfRecord,
        request: Message<'_>,
        phones: Vec<Target>,
        is_device: bool,
    ) -> Result<Located, Reject> {
        let services =
            (is_new_call(request) && !is_device).then(|| self.shared.directory.services(aor)).flatten();
        let located = match services {
            Some(services) => self.by_wish(turn, aor, request, &services, phones)?,
            None if phones.is_empty() => return Err(Reject::TemporarilyUnavailable),
            None => Located::of(phones),
        };
        Ok(Located { called: Some(aor.clone()), ..located })
    }

    /// Towards the address in a URI: a server of ours by its internal listener, or any other address.
    ///
    /// Errors: those of [`Self::towards_host`] for a host name; 404 for WebSocket, whose clients nobody
    /// connects to; 416 for other schemes.
    pub(super) fn towards_uri(&self, uri: &Uri<'_>) -> Result<(NextHop, Arc<Leg>), Reject> {
        match uri.scheme {
            Scheme::Sip | Scheme::Sips => {}
            Scheme::Tel | Scheme::Other => return Err(Reject::UnsupportedScheme),
        }
        let host = uri.maddr().and_then(sip::host_address).or_else(|| uri.host_address());
        let Some(ip) = host else { return self.towards_host(uri) };
        let protocol = protocol_of(uri);
        match protocol {
            Protocol::Udp | Protocol::Tcp | Protocol::Tls => {}
            Protocol::Ws | Protocol::Wss => return Err(Reject::NotFound),
        }
        let remote = SocketAddr::new(ip, listener_port(uri));
        let topology = self.shared.topology();
        let internal = topology.servers.iter().find(|server| server.listen.internal_sip == Some(remote));
        if let Some(server) = internal.filter(|_| protocol == Protocol::Tls) {
            let leg = self.legs.internal().ok_or(Reject::ServerInternal)?;
            return Ok((NextHop::Server(server.name.clone()), leg));
        }
        let leg = self.legs.by_protocol(protocol, remote).ok_or(Reject::NotFound)?;
        Ok((NextHop::Address { protocol, remote }, leg))
    }
}

/// Where a request with a SIPS URI goes: who sends it on keeps asking for TLS, and where a user has only
/// phones without it, the caller is told so (RFC 5630 section 5.3).
fn by_tls_only(located: Result<Located, Reject>, bindings: &Bindings) -> Result<Located, Reject> {
    let mut located = match located {
        Err(Reject::TemporarilyUnavailable) if !bindings.is_empty() => return Err(Reject::SipsNotAllowed),
        located => located?,
    };
    let later = located.diversions.iter_mut().flat_map(|diversions| diversions.targets_mut());
    for target in located.targets.iter_mut().chain(later) {
        target.request_uri = with_sips(&target.request_uri);
    }
    Ok(located)
}

fn protocol_of(uri: &Uri<'_>) -> Protocol {
    match (uri.scheme, uri.protocol()) {
        (Scheme::Sips, Some(Protocol::Ws)) => Protocol::Wss,
        (Scheme::Sips, _) => Protocol::Tls,
        (_, Some(protocol)) => protocol,
        (_, None) => Protocol::Udp,
    }
}

/// The port that a URI names (RFC 3261 section 19.1.2).
pub(super) fn listener_port(uri: &Uri<'_>) -> u16 {
    uri.port.unwrap_or(protocol_of(uri).default_port())
}

/// Whether two URIs are contacts of the same phone: its registration and a dialog may have other parameters.
pub(super) fn is_same_contact(one: &Uri<'_>, other: &Uri<'_>) -> bool {
    one.user == other.user && one.host.eq_ignore_ascii_case(other.host) && one.port == other.port
}

/// Where datagrams for a contact go: to the contact when it names the address the phone sent from, which may
/// have another port there; else to that source address itself, which is what a NAT shows us.
pub(super) fn datagram_address(contact: &[u8], source: SocketAddr) -> SocketAddr {
    match contact_address(contact) {
        Some(address) if address.ip() == source.ip() => address,
        Some(_) | None => source,
    }
}

/// Whether a peer is reached over its flow only: a connection, or an address that the contact does not name.
pub(super) fn needs_flow(peer: &Peer, contact: &[u8]) -> bool {
    match peer.protocol {
        Protocol::Udp => contact_address(contact) != Some(peer.remote),
        Protocol::Tcp | Protocol::Tls | Protocol::Ws | Protocol::Wss => true,
    }
}

/// Whether a contact names this address, whatever the port: no NAT stands before the phone.
pub(super) fn is_at(contact: &[u8], ip: IpAddr) -> bool {
    contact_address(contact).is_some_and(|address| address.ip() == ip)
}

fn contact_address(contact: &[u8]) -> Option<SocketAddr> {
    let uri = Uri::parse(contact).ok()?;
    Some(SocketAddr::new(uri.host_address()?, uri.port.unwrap_or(5060)))
}

/// A number for a device, the same for all its flows.
pub(super) fn device_of(aor: &AddressOfRecord, instance: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    aor.hash(&mut hasher);
    hasher.write(instance);
    hasher.finish()
}
