//! New requests other than REGISTER: validation, authentication, and where they go.

use std::sync::Arc;

use bytes::Bytes;
use model::{AddressOfRecord, Leg, NextHop, Peer, ServerTransaction};
use proxy::{Preprocessed, Reject, Routing, Target, preprocess, validate_checked};
use registrar::authentication::Rejection;
use sip::{HeaderId, Message, Method, OwnedMessage, Scheme, Uri, digest::Credentials};

use super::{Origin, Shard, Turn};
use crate::{FlowTokens, flow_token::TokenFlow};

/// What an OPTIONS learns of this server.
const OPTIONS_HEADERS: [(&str, &[u8]); 4] = [
    (
        "Allow",
        b"INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, MESSAGE, INFO, UPDATE, PRACK, SUBSCRIBE, NOTIFY, \
          REFER, PUBLISH",
    ),
    ("Accept", b"*/*"),
    ("Accept-Encoding", b"identity"),
    ("Supported", b"path, outbound"),
];

impl Shard {
    /// A new server transaction for any method but ACK and CANCEL.
    pub(super) fn request(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        server: ServerTransaction,
        request: &Arc<OwnedMessage>,
        from: Peer,
    ) {
        let view = request.view();
        if self.is_plain_register(view) {
            return self.register(turn, origin, server, request, from);
        }
        if let Err(reject) = validate_checked(view, &self.settings.rules) {
            let is_last_hop_question = view.method() == Method::Options && reject == Reject::TooManyHops;
            if is_last_hop_question {
                return self.answer_options(server, view);
            }
            return self.reject(server, view, &reject);
        }
        let found = match preprocess(view, &from, &self.legs) {
            Ok(found) => found,
            Err(reject) => return self.reject(server, view, &reject),
        };
        if view.method() == Method::Register && found.routes.is_empty() {
            return self.register(turn, origin, server, request, from);
        }
        if self.is_for_us(view, &found) {
            return self.answer_options(server, view);
        }
        let targets = match self.admit(turn, origin, server, view, &found) {
            Ok(true) => self.destinations(turn, origin, view, from, &found),
            Ok(false) => return,
            Err(reject) => Err(reject),
        };
        match targets {
            Ok(targets) => {
                let routing = self.routing_of(view, &found);
                self.forward(turn, origin, server, request, from, targets, routing);
            }
            Err(reject) => self.reject(server, view, &reject),
        }
    }

    /// A REGISTER addressed to us and to nobody beyond: what a proxy checks and takes away is not in it.
    fn is_plain_register(&self, request: Message<'_>) -> bool {
        request.method() == Method::Register
            && !request.has(HeaderId::Route)
            && !request.has(HeaderId::ProxyRequire)
            && Uri::parse(request.request_uri()).is_ok_and(|uri| self.legs.is_own(&uri))
    }

    /// An OPTIONS that asks this server about itself: no user part, addressed to us, no route beyond us.
    fn is_for_us(&self, request: Message<'_>, found: &Preprocessed<'_>) -> bool {
        request.method() == Method::Options
            && found.routes.is_empty()
            && Uri::parse(&found.request_uri).is_ok_and(|uri| uri.user.is_none() && self.legs.is_own(&uri))
    }

    /// Answers an OPTIONS that asks this server about itself, without a transaction: an answer that every
    /// copy of the request gets again needs none (RFC 3261 section 8.2.7). `false` when it is for somebody
    /// else.
    pub(super) fn answer_options_at_once(&mut self, peer: Peer, request: Message<'_>) -> bool {
        let is_candidate = request.method() == Method::Options
            && !request.has(HeaderId::Route)
            && !request.has(HeaderId::Require)
            && !request.has(HeaderId::ProxyRequire);
        let names_us = || {
            let uri = Uri::parse(request.request_uri());
            uri.is_ok_and(|uri| uri.user.is_none() && self.legs.is_own(&uri))
        };
        if !(is_candidate && names_us()) {
            return false;
        }
        self.send_statelessly(&peer, request, 200, &OPTIONS_HEADERS);
        true
    }

    /// RFC 3261 section 11.2.
    fn answer_options(&mut self, server: ServerTransaction, request: Message<'_>) {
        self.answer(server, request, 200, &OPTIONS_HEADERS);
    }

    /// Lets a request in: from our own servers, inside a dialog that we are on the path of, or from a user of
    /// ours who proves it. `false`: a challenge was sent.
    ///
    /// Errors: 403 for those who are neither.
    fn admit(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        server: ServerTransaction,
        request: Message<'_>,
        found: &Preprocessed<'_>,
    ) -> Result<bool, Reject> {
        if *origin != Origin::Phone || self.is_of_our_dialog(origin, request, found) {
            return Ok(true);
        }
        let caller = request.from().ok().and_then(|from| from.uri().ok()?.address_of_record().ok());
        if !caller.is_some_and(|caller| self.settings.is_our_domain(caller.domain())) {
            return Err(Reject::Forbidden);
        }
        match self.authenticate(turn, request, true) {
            Ok(_) => Ok(true),
            Err(Rejection::Forbidden) => Err(Reject::Forbidden),
            Err(rejection) => {
                self.answer_rejection(server, request, &rejection);
                Ok(false)
            }
        }
    }

    /// What of the request was for us: its routes, and credentials where all of them are for our realms.
    pub(super) fn routing_of(&self, request: Message<'_>, found: &Preprocessed<'_>) -> Routing {
        let mut credentials = request.headers().filter(|header| header.id == HeaderId::ProxyAuthorization);
        let is_ours = |value: &[u8]| {
            let realm =
                Credentials::parse(value).ok().and_then(|parsed| str::from_utf8(parsed.realm.raw()).ok());
            realm.is_some_and(|realm| self.settings.is_our_domain(&realm.to_ascii_lowercase()))
        };
        if request.has(HeaderId::ProxyAuthorization) && credentials.all(|header| is_ours(header.value)) {
            return found.routing.with_authorization_consumed();
        }
        found.routing
    }

    /// Whether a request belongs to a dialog that went through here: it brings back the mark of our
    /// Record-Route, or comes from a server of ours.
    pub(super) fn is_of_our_dialog(
        &self,
        origin: &Origin,
        request: Message<'_>,
        found: &Preprocessed<'_>,
    ) -> bool {
        let user = found.arrival_route.as_ref().and_then(|route| route.user);
        let has_mark = || {
            let call_id = request.call_id().unwrap_or_default();
            user.is_some_and(|user| self.shared.tokens.is_of_dialog(user, call_id))
        };
        request.to().is_ok_and(|to| to.tag().is_some())
            && found.arrival_route.is_some()
            && (*origin != Origin::Phone || has_mark())
    }

    /// The targets of a request that was let in. Source: RFC 3261 section 16.5, RFC 5626 section 5.3.
    pub(super) fn destinations(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        request: Message<'_>,
        from: Peer,
        found: &Preprocessed<'_>,
    ) -> Result<Vec<Target>, Reject> {
        // Only who is on the way of a dialog, or a server of ours, may say over which flow or to which
        // address.
        let may_direct = *origin != Origin::Phone || self.is_of_our_dialog(origin, request, found);
        if may_direct
            && let Some(token) = found.flow_token().and_then(FlowTokens::token_in)
            && let Some(target) = self.flow_target(token, from, found)?
        {
            return Ok(vec![target]);
        }
        if let Some(route) = found.routes.first() {
            if !may_direct {
                return Err(Reject::Forbidden);
            }
            let uri = sip::NameAddr::parse(route).and_then(|address| address.uri().ok());
            let (next_hop, leg) = self.towards_uri(&uri.ok_or(Reject::NotFound)?)?;
            return Ok(vec![single(next_hop, &found.request_uri, leg)]);
        }
        let uri = Uri::parse(&found.request_uri).map_err(Reject::RequestUri)?;
        if let Some(aor) = self.own_user(&uri) {
            return self.locate(turn, origin, &aor, &found.request_uri);
        }
        if !may_direct {
            return Err(Reject::NotFound);
        }
        let (next_hop, leg) = self.towards_uri(&uri)?;
        Ok(vec![single(next_hop, &found.request_uri, leg)])
    }

    /// The target that a flow token of ours names; `None` when it names the flow that the request came over.
    ///
    /// Errors: 403 for a forged token, 430 when the flow is gone.
    fn flow_target(
        &self,
        token: &[u8],
        from: Peer,
        found: &Preprocessed<'_>,
    ) -> Result<Option<Target>, Reject> {
        match self.shared.tokens.read(token) {
            None => Err(Reject::Forbidden),
            Some(TokenFlow::Gone) => Err(Reject::FlowFailed),
            Some(TokenFlow::Alive(peer)) if peer.flow == from.flow && peer.remote == from.remote => Ok(None),
            Some(TokenFlow::Alive(peer)) => {
                let leg = self.legs.towards(&peer, false).ok_or(Reject::FlowFailed)?;
                Ok(Some(single(NextHop::Flow(peer), &found.request_uri, leg)))
            }
        }
    }

    /// The user of ours that a URI names: in a domain of ours, or at an address of this server.
    pub(super) fn own_user(&self, uri: &Uri<'_>) -> Option<AddressOfRecord> {
        match uri.scheme {
            Scheme::Sip | Scheme::Sips => {}
            Scheme::Tel | Scheme::Other => return None,
        }
        let user = uri.user?;
        if uri.host_address().is_some() {
            let domain = self.settings.domains.first()?;
            return self
                .legs
                .is_own(uri)
                .then(|| AddressOfRecord::from_parts(user, domain.as_bytes()).ok())?;
        }
        let aor = AddressOfRecord::from_parts(user, uri.host).ok()?;
        self.settings.is_our_domain(aor.domain()).then_some(aor)
    }
}

fn single(next_hop: NextHop, request_uri: &[u8], leg: Arc<Leg>) -> Target {
    let request_uri = Bytes::copy_from_slice(request_uri);
    Target { next_hop, request_uri, routes: Vec::new(), q: 1_000, device: None, leg }
}
