//! Making the request for one target. Source: RFC 3261 section 16.6 steps 1 to 9.

use std::sync::Arc;

use bytes::Bytes;
use model::Leg;
use sip::{FramingError, HeaderId, Message, Method, OwnedMessage, Rewrite, Uri};
use smallvec::SmallVec;

use crate::{Routing, Target, request_uri::allowed_in_request_uri};

/// Max-Forwards of a request that came without one. Source: RFC 3261 section 16.6 step 3.
const MAX_FORWARDS_DEFAULT: u32 = 70;

/// Why no request could be made for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// With our Via, Record-Route and Route it is larger than a message may be: 513.
    #[error("the forwarded request would be too large")]
    TooLarge,
    /// What we made is no message, because the target holds a Request-URI or a route that is none: 500.
    #[error("the forwarded request is not well formed")]
    Malformed(#[source] FramingError),
}

impl ForwardError {
    /// Status of the response.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge => 513,
            Self::Malformed(_) => 500,
        }
    }
}

impl From<FramingError> for ForwardError {
    fn from(error: FramingError) -> Self {
        if error.status() == Some(513) { Self::TooLarge } else { Self::Malformed(error) }
    }
}

/// Whether a request may create a dialog or repeat its route set, so that a proxy that wants to stay on the
/// path adds a Record-Route: INVITE, SUBSCRIBE, REFER, NOTIFY and every method it does not know.
///
/// Source: RFC 3261 section 16.6 step 4; RFC 6665 for SUBSCRIBE and NOTIFY; RFC 3515 for REFER.
pub fn dialog_forming(request: Message<'_>) -> bool {
    match request.method() {
        Method::Invite | Method::Subscribe | Method::Refer | Method::Notify | Method::Other => true,
        Method::Ack
        | Method::Bye
        | Method::Cancel
        | Method::Register
        | Method::Options
        | Method::Message
        | Method::Prack
        | Method::Update
        | Method::Info
        | Method::Publish => false,
    }
}

/// The URI that decides where a request for a target goes: the first of the target's own routes, else the
/// first Route that remains, else the target's Request-URI. The same for loose and strict next hops.
///
/// `request` and `routing` are as received and as [`crate::preprocess`] found. When the Request-URI is a SIPS
/// URI, the driver uses TLS whatever this one is. Source: RFC 3261 section 16.6 step 7.
pub fn next_hop_uri<'a>(
    request: Message<'a>,
    routing: Routing,
    target_routes: &'a [Bytes],
    request_uri: &'a [u8],
) -> &'a [u8] {
    match target_routes.first() {
        Some(route) => route_uri(route),
        None => remaining_routes(request, routing).first().map_or(request_uri, |route| route_uri(route)),
    }
}

/// What one forwarded request is made of.
pub(crate) struct Outgoing<'a> {
    pub(crate) request: Message<'a>,
    pub(crate) routing: Routing,
    /// Our Record-Route towards the caller, when we stay on the path.
    pub(crate) record_route: Option<&'a Leg>,
    pub(crate) target: &'a Target,
    /// Value of our branch parameter.
    pub(crate) branch: &'a [u8],
    /// Max-Breadth of this branch.
    pub(crate) breadth: u32,
}

impl Outgoing<'_> {
    /// Makes the request (16.6 steps 1 to 9); a Content-Length that is missing is added on the way.
    pub(crate) fn make(&self) -> Result<Arc<OwnedMessage>, ForwardError> {
        let leg = &self.target.leg;
        let mut via = SmallVec::<[u8; 128]>::from_slice(&leg.via);
        via.extend_from_slice(b";branch=");
        via.extend_from_slice(self.branch);
        let request_uri = allowed_in_request_uri(&self.target.request_uri);
        let breadth = self.breadth.to_string();
        let max_forwards = self.request.max_forwards().ok().flatten();
        let strict = self.strict_next_hop(&request_uri);

        let mut rewrite = Rewrite::new(self.request);
        rewrite.set_request_uri(strict.as_ref().map_or(&*request_uri, |strict| &strict.request_uri));
        rewrite.set_max_forwards(max_forwards.map_or(MAX_FORWARDS_DEFAULT, |hops| hops.saturating_sub(1)));
        rewrite.remove(HeaderId::MaxBreadth).add_header(HeaderId::MaxBreadth.name(), breadth.as_bytes());
        self.edit_routes(&mut rewrite, strict.as_ref());
        if self.routing.is_authorization_ours {
            rewrite.remove(HeaderId::ProxyAuthorization);
        }
        if let Some(caller) = self.record_route {
            if caller.record_route != leg.record_route {
                rewrite.push_record_route(&caller.record_route);
            }
            rewrite.push_record_route(&leg.record_route);
        }
        if let Some(diversion) = &self.target.diversion {
            rewrite.push_diversion(diversion);
        }
        rewrite.push_via(&via);
        Ok(Arc::new(rewrite.to_message()?))
    }

    /// Takes our own values out of Route and puts those of the target in (16.4, 16.6 step 6).
    fn edit_routes<'r>(&'r self, rewrite: &mut Rewrite<'r>, strict: Option<&'r StrictNextHop>) {
        if self.routing.is_route_ours {
            rewrite.remove_route_all();
        } else {
            for _ in 0..self.routing.popped {
                rewrite.pop_top_route();
            }
            if self.routing.is_repaired {
                rewrite.pop_last_route();
            }
        }
        let mut routes = self.target.routes.iter();
        if let Some(strict) = strict {
            // Its URI is in the Request-URI now.
            if routes.next().is_none() {
                rewrite.pop_top_route();
            }
            rewrite.append_route(&strict.last_route);
        }
        for route in routes.rev() {
            rewrite.push_route(route);
        }
    }

    /// What a next hop that is a strict router needs; `None` when it is none (16.6 step 6).
    fn strict_next_hop(&self, request_uri: &[u8]) -> Option<StrictNextHop> {
        let next = match self.target.routes.first() {
            Some(route) => route_uri(route),
            None => route_uri(remaining_routes(self.request, self.routing).first()?),
        };
        if Uri::parse(next).map_or(true, |uri| uri.is_lr()) {
            return None;
        }
        let last_route = [b"<", request_uri, b">"].concat();
        Some(StrictNextHop { request_uri: allowed_in_request_uri(next).into_owned(), last_route })
    }
}

/// How a request looks to a strict router: its own URI in the Request-URI, that of the target as the last
/// route.
struct StrictNextHop {
    request_uri: Vec<u8>,
    last_route: Vec<u8>,
}

/// The URI of a Route value; the whole value when it cannot be read.
fn route_uri(route: &[u8]) -> &[u8] {
    sip::NameAddr::parse(route).map_or(route, |address| address.uri_bytes)
}

/// The Route values that are not ours, as 16.4 leaves them.
pub(crate) fn remaining_routes<'a>(request: Message<'a>, routing: Routing) -> SmallVec<[&'a [u8]; 4]> {
    if routing.is_route_ours {
        return SmallVec::new();
    }
    let mut routes: SmallVec<[&'a [u8]; 4]> =
        request.values(HeaderId::Route).skip(usize::from(routing.popped)).collect();
    if routing.is_repaired {
        routes.pop();
    }
    routes
}
