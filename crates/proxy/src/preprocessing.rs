//! Which part of a received route set is ours, and what the request is for once that is taken away. Source:
//! RFC 3261 section 16.4, RFC 5658 section 5, RFC 5626 section 5.3.

use std::borrow::Cow;

use model::{Peer, Protocol};
use sip::{HeaderId, Message, NameAddr, Scheme, Uri};
use smallvec::SmallVec;

use crate::{
    Reject,
    request_uri::{allowed_in_request_uri, is_sip, without_maddr},
};

/// What the proxy has to know about names; implemented by the driver.
pub trait OwnNames {
    /// Whether host, port and transport of the URI are an address of this server, or a name that stands for
    /// it: what our Record-Route, Path and Service-Route values hold, and the domains and pool names we
    /// serve. User part and other parameters do not matter.
    fn is_own_uri(&self, uri: &Uri<'_>) -> bool;
}

/// What of a received request was for this proxy and is not forwarded. `Default`: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Routing {
    /// How many values at the top are ours: 0 to 2.
    pub(crate) popped: u8,
    /// Whether the last value has become the Request-URI, because a strict router sent the request.
    pub(crate) is_repaired: bool,
    /// Whether Proxy-Authorization was for us.
    pub(crate) is_authorization_ours: bool,
    /// Whether the values that remain are for a proxy in whose place we act.
    pub(crate) is_route_ours: bool,
}

impl Routing {
    /// The same, and Proxy-Authorization is not forwarded either: it was meant for this proxy (RFC 3261
    /// section 22.3).
    pub const fn with_authorization_consumed(self) -> Self {
        Self { is_authorization_ours: true, ..self }
    }

    /// The same, and what remains of Route is not forwarded either: it names a proxy of the same operator
    /// that is gone, and this one does what it would have done (16.4, 16.6 step 6).
    pub const fn with_route_consumed(self) -> Self {
        Self { is_route_ours: true, ..self }
    }
}

/// A request as 16.4 leaves it.
#[derive(Clone, Debug)]
pub struct Preprocessed<'a> {
    /// The Request-URI the request is for.
    pub request_uri: Cow<'a, [u8]>,
    /// What to take from Route when forwarding; goes into [`crate::Incoming::routing`].
    pub routing: Routing,
    /// Route values that remain, topmost first.
    pub routes: SmallVec<[&'a [u8]; 4]>,
    /// Our own URI by which the request reached us; `None` when it named us in no Route.
    pub arrival_route: Option<Uri<'a>>,
    /// Our own URI of the side on which the request leaves: the second one of a double Record-Route, else the
    /// same as `arrival_route`.
    pub departure_route: Option<Uri<'a>>,
    /// Whether the Request-URI has an maddr that is not ours, or for another port or transport of ours: then
    /// it is the only target (16.5).
    pub has_maddr: bool,
}

impl<'a> Preprocessed<'a> {
    /// The flow token: the user part of the own URI on which the request leaves. `None` when it has none.
    ///
    /// With a single Record-Route it may name the flow the request came over; then the request is an outgoing
    /// one in the sense of RFC 5626 section 5.3, and the token says nothing about where it goes.
    pub fn flow_token(&self) -> Option<&'a [u8]> {
        self.departure_route.as_ref().and_then(|uri| uri.user)
    }

    /// Whether our own Route was copied from a Path, so that a dialog needs the flow token in Record-Route
    /// too (RFC 5626 section 5.3.1).
    pub fn is_outbound(&self) -> bool {
        self.departure_route.as_ref().is_some_and(|uri| uri.parameters.get(b"ob").is_some())
    }
}

/// Takes away what the route set holds of ours.
///
/// A Request-URI that is one of our Record-Route values (own and `lr`) is replaced by the last Route value,
/// which undoes what a strict router did. An maddr that is ours on the port and transport of `from` is
/// stripped. Then the first Route value goes when it is ours, and the second too: the two of a double
/// Record-Route.
///
/// Errors: [`Reject::RequestUri`] and [`Reject::Header`] when what is read cannot be.
pub fn preprocess<'a>(
    request: Message<'a>,
    from: &Peer,
    own: &impl OwnNames,
) -> Result<Preprocessed<'a>, Reject> {
    let mut routes: SmallVec<[&'a [u8]; 4]> = request.values(HeaderId::Route).collect();
    let received = Uri::parse(request.request_uri()).map_err(Reject::RequestUri)?;
    let is_repaired =
        !routes.is_empty() && is_sip(&received) && received.is_lr() && own.is_own_uri(&received);
    let repaired_by = is_repaired.then_some(received);
    let request_uri = match routes.last() {
        Some(last) if is_repaired => {
            let uri = read_route(last)?.uri_bytes;
            routes.pop();
            allowed_in_request_uri(uri)
        }
        Some(_) | None => Cow::Borrowed(request.request_uri()),
    };
    let own_routes = own_on_top(&routes, 2_usize.saturating_sub(usize::from(is_repaired)), own)?;
    routes.drain(..own_routes.len());
    let popped = u8::try_from(own_routes.len()).unwrap_or(0);
    let arrival_route = repaired_by.or(own_routes.first().copied());
    let departure_route = own_routes.last().copied().or(repaired_by);
    let (request_uri, has_maddr) = strip_own_maddr(request_uri, from, own)?;
    let routing = Routing { popped, is_repaired, ..Routing::default() };
    Ok(Preprocessed { request_uri, routing, routes, arrival_route, departure_route, has_maddr })
}

/// The Route values at the top that are ours, at most `most`.
fn own_on_top<'a>(
    routes: &[&'a [u8]],
    most: usize,
    own: &impl OwnNames,
) -> Result<SmallVec<[Uri<'a>; 2]>, Reject> {
    let mut found = SmallVec::new();
    for (number, route) in routes.iter().enumerate() {
        // The first one that stays decides the next hop, so it must be readable; later ones are others'
        // business.
        let address = read_route(route)?;
        if number >= most {
            break;
        }
        match address.uri() {
            Ok(uri) if is_sip(&uri) && own.is_own_uri(&uri) => found.push(uri),
            Ok(_) => break,
            Err(error) => return Err(Reject::RouteUri(error)),
        }
    }
    Ok(found)
}

fn read_route(route: &[u8]) -> Result<NameAddr<'_>, Reject> {
    NameAddr::parse(route).ok_or(Reject::Header(sip::HeaderError::Malformed { header: HeaderId::Route }))
}

/// Strips an maddr of ours (16.4, third paragraph). The flag says whether one remains.
fn strip_own_maddr<'a>(
    request_uri: Cow<'a, [u8]>,
    from: &Peer,
    own: &impl OwnNames,
) -> Result<(Cow<'a, [u8]>, bool), Reject> {
    let stripped = {
        let uri = Uri::parse(&request_uri).map_err(Reject::RequestUri)?;
        let Some(Some(maddr)) = uri.parameters.get(b"maddr") else {
            return Ok((request_uri, false));
        };
        let named = Uri { host: maddr, ..uri };
        if !is_sip(&uri) || !own.is_own_uri(&named) || !is_received_on(&uri, from) {
            return Ok((request_uri, true));
        }
        without_maddr(&uri)
    };
    Ok((Cow::Owned(stripped), false))
}

/// Whether the request came over the port and transport that the URI indicates, by default UDP (TLS for SIPS)
/// and the port of that (RFC 3261 section 19.1.2, RFC 7118 section 5.5).
fn is_received_on(uri: &Uri<'_>, from: &Peer) -> bool {
    let is_sips = uri.scheme == Scheme::Sips;
    let is_transport = match uri.parameters.get(b"transport").flatten() {
        Some(token) => {
            let is_named = token.eq_ignore_ascii_case(from.protocol.uri_token().as_bytes());
            // A SIPS URI says tcp and means TLS over it (RFC 3261 section 26.2.2); so it is with WebSocket.
            is_named || (from.protocol.is_secure() && token.eq_ignore_ascii_case(plain_token(from.protocol)))
        }
        None if is_sips => from.protocol.is_secure(),
        None => from.protocol == Protocol::Udp,
    };
    let is_plain = matches!(from.protocol, Protocol::Udp | Protocol::Tcp);
    let default_port = if is_sips && is_plain { Protocol::Tls } else { from.protocol }.default_port();
    is_transport && uri.port.unwrap_or(default_port) == from.local.port()
}

const fn plain_token(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Udp => b"udp",
        Protocol::Tcp | Protocol::Tls => b"tcp",
        Protocol::Ws | Protocol::Wss => b"ws",
    }
}
