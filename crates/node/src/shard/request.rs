//! New requests other than REGISTER: validation, authentication, and where they go.

use std::sync::Arc;

use bytes::Bytes;
use model::{AddressOfRecord, Leg, NextHop, Peer, ServerName, ServerTransaction};
use proxy::{Preprocessed, Reject, Routing, Target, preprocess, validate_checked};
use registrar::authentication::{Challenger, Rejection};
use sip::{HeaderId, Message, Method, OwnedMessage, Scheme, Uri, digest::Credentials};

use super::{
    Origin, Shard, Turn, held::Held, location::Located, passed_on::Passed, reach::is_sips_uri,
    sending_on::is_new_call,
};
use crate::{FlowTokens, flow_token::TokenFlow, storm::Work};

/// What an OPTIONS learns of this server.
const OPTIONS_HEADERS: [(&str, &[u8]); 5] = [
    (
        "Allow",
        b"INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, MESSAGE, INFO, UPDATE, PRACK, SUBSCRIBE, NOTIFY, \
          REFER, PUBLISH",
    ),
    ("Accept", b"*/*"),
    ("Accept-Encoding", b"identity"),
    ("Supported", b"path, outbound, gruu"),
    ("Allow-Events", b"reg"),
];

/// What is known of who sent a request.
enum Admitted {
    /// A user of ours, who proved it.
    Caller(AddressOfRecord),
    /// A server of ours, or a party of a dialog that we are on the path of.
    Trusted,
    /// Nothing yet: a challenge was sent.
    Challenged,
}

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
        if view.method() != Method::Register && self.defers_request(view) {
            return self.put_off(server, view, Work::Request);
        }
        if let Err(reject) = validate_checked(view, &self.settings.rules) {
            // The last hop of an OPTIONS is who answers it.
            if view.method() == Method::Options && reject == Reject::TooManyHops {
                return self.answer_options(server, view);
            }
            return self.reject(server, view, &reject);
        }
        let preprocessed = preprocess(view, &from, &self.legs);
        let Ok(found) = preprocessed.map_err(|reject| self.reject(server, view, &reject)) else { return };
        if view.method() == Method::Register && found.routes.is_empty() {
            return self.register(turn, origin, server, request, from);
        }
        if self.is_for_us(view, &found) {
            return self.answer_options(server, view);
        }
        if self.is_for_reg_event(turn, view, &found) {
            return self.subscribe(turn, origin, server, request, from, &found);
        }
        let caller = match self.admit(origin, server, view, &from, &found) {
            Ok(Admitted::Caller(caller)) if self.poses_as_another(view, &caller) => {
                return self.reject(server, view, &Reject::Forbidden);
            }
            Ok(Admitted::Caller(caller)) => Some(caller),
            Ok(Admitted::Trusted) => None,
            Ok(Admitted::Challenged) => return,
            Err(reject) => return self.reject(server, view, &reject),
        };
        self.begin_to_want_hosts();
        let located = self
            .may_call(caller.as_ref(), view, &found)
            .and_then(|()| self.destinations(turn, origin, view, from, &found));
        if self.await_hosts(turn, || Held::new(origin, server, request, from)) {
            return;
        }
        if matches!(located, Err(Reject::ServiceUnavailable { .. }))
            && turn.authority.is_any_changing(turn.now)
            && self.hold(turn, Held::new(origin, server, request, from))
        {
            return;
        }
        let owner = located.as_ref().ok().and_then(towards_owner).cloned();
        // The former owner said no, and there is no word of the next one yet.
        if *origin == Origin::Phone
            && owner.is_some()
            && self.held.was_passed_on()
            && turn.authority.is_any_changing(turn.now)
            && self.is_owner_awaited(turn, &found.request_uri)
            && self.hold(turn, Held::new(origin, server, request, from))
        {
            return;
        }
        self.note_call(turn, server, request, caller, located.as_ref());
        match located {
            Ok(located) => {
                // Owners may change before it is answered, or be gone, before this server knows of it.
                if let Some(towards) = owner.filter(|_| !self.held.was_passed_on()) {
                    let (request, origin) = (Arc::clone(request), origin.clone());
                    let passed = Passed { request, from, origin, towards, is_last: false };
                    self.passed_on.insert_patiently(server, passed);
                }
                let routing = located.routing(self.routing_of(view, &found));
                self.forward(turn, origin, server, request, from, located, routing);
            }
            Err(reject) => self.reject(server, view, &reject),
        }
    }

    /// Whether nobody says yet that he serves the user that a request is for.
    fn is_owner_awaited(&self, turn: &Turn<'_>, request_uri: &[u8]) -> bool {
        let aor = Uri::parse(request_uri).ok().and_then(|uri| self.own_user(&uri));
        let user = aor.and_then(|aor| self.shared.directory.user(&aor));
        user.is_some_and(|user| self.shared.links.serving(user.home, turn.now).is_none())
    }

    /// Whether the voice policy of the caller allows a new call; who is no user here has none.
    ///
    /// Errors: 403 with the reason.
    fn may_call(
        &self,
        caller: Option<&AddressOfRecord>,
        request: Message<'_>,
        found: &Preprocessed<'_>,
    ) -> Result<(), Reject> {
        let services = caller.filter(|_| is_new_call(request));
        let Some(services) = services.and_then(|caller| self.shared.directory.services(caller)) else {
            return Ok(());
        };
        let uri = Uri::parse(&found.request_uri).map_err(Reject::RequestUri)?;
        if services.may_call(self.callee(&uri)) { Ok(()) } else { Err(Reject::CallNotAllowed) }
    }

    /// A REGISTER addressed to us and to nobody beyond: what a proxy checks and takes away is not in it.
    pub(super) fn is_plain_register(&self, request: Message<'_>) -> bool {
        request.method() == Method::Register
            && !request.has(HeaderId::Route)
            && !request.has(HeaderId::ProxyRequire)
            && Uri::parse(request.request_uri()).is_ok_and(|uri| self.legs.is_own(&uri))
    }

    /// An OPTIONS that asks this server about itself: no user part, addressed to us, no route beyond us.
    pub(super) fn is_for_us(&self, request: Message<'_>, found: &Preprocessed<'_>) -> bool {
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
    /// ours who proves it.
    ///
    /// Errors: 403 for those who are neither.
    fn admit(
        &mut self,
        origin: &Origin,
        server: ServerTransaction,
        request: Message<'_>,
        from: &Peer,
        found: &Preprocessed<'_>,
    ) -> Result<Admitted, Reject> {
        if *origin != Origin::Phone || self.is_of_our_dialog(origin, request, found) {
            return Ok(Admitted::Trusted);
        }
        self.blame_for_route(from, request, found);
        let caller = request.from().ok().and_then(|from| from.uri().ok()?.address_of_record().ok());
        let Some(caller) = caller.filter(|caller| self.settings.is_our_domain(caller.domain())) else {
            return Err(Reject::Forbidden);
        };
        // It proved that before it had to wait, and a nonce count is good for one time only.
        if self.held.is_again() {
            return Ok(Admitted::Caller(caller));
        }
        match self.authenticate(origin, from, request, Challenger::Proxy, &caller) {
            Ok(()) => Ok(Admitted::Caller(caller)),
            Err(Rejection::Forbidden) => Err(Reject::Forbidden),
            Err(rejection) => {
                self.answer_rejection(server, request, &rejection);
                Ok(Admitted::Challenged)
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
    ) -> Result<Located, Reject> {
        // Only who is on the way of a dialog, or a server of ours, may say over which flow or to which
        // address.
        let may_direct = *origin != Origin::Phone || self.is_of_our_dialog(origin, request, found);
        if may_direct && let Some(token) = found.flow_token().and_then(FlowTokens::token_in) {
            let target = match self.flow_target(token, from, found) {
                Err(Reject::FlowFailed) => Some(self.target_past_flow(turn, origin, request, found)?),
                target => target?,
            };
            if let Some(target) = target {
                return Ok(Located::of(vec![target]));
            }
        }
        if let Some(route) = found.routes.first() {
            if !may_direct {
                return Err(Reject::Forbidden);
            }
            let uri = sip::NameAddr::parse(route).and_then(|address| address.uri().ok());
            let (next_hop, leg) = self.towards_uri(&uri.ok_or(Reject::NotFound)?)?;
            if let Some(located) = self.past_gone_server(turn, &next_hop, request, found)? {
                return Ok(located);
            }
            return Ok(Located::of(vec![single(next_hop, &found.request_uri, leg)]));
        }
        let uri = Uri::parse(&found.request_uri).map_err(Reject::RequestUri)?;
        if let Some(aor) = self.own_user(&uri) {
            return self.locate(turn, origin, &aor, request, &found.request_uri);
        }
        if !may_direct {
            return Err(Reject::NotFound);
        }
        let (next_hop, leg) = self.towards_uri(&uri)?;
        Ok(Located::of(vec![single(next_hop, &found.request_uri, leg)]))
    }

    /// The target that a flow token of ours names; `None` when it names the flow that the request came over.
    ///
    /// Errors: 403 for a forged token, 430 when the flow is gone, 480 where the request asks for TLS all the
    /// way and the flow has none.
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
            // Of this boot, and closed since (RFC 5626 section 5.3.1). Other shards know their own flows.
            Some(TokenFlow::Alive(peer)) if self.is_closed(&peer) => Err(Reject::FlowFailed),
            Some(TokenFlow::Alive(peer)) if is_sips_uri(&found.request_uri) && !peer.protocol.is_secure() => {
                Err(Reject::SipsNotAllowed)
            }
            Some(TokenFlow::Alive(peer)) => {
                let leg = self.legs.towards(&peer, false).ok_or(Reject::FlowFailed)?;
                let request_uri = self.contact_of(&found.request_uri, &peer);
                Ok(Some(single(NextHop::Flow(peer), &request_uri, leg)))
            }
        }
    }

    /// The way past a flow that is gone: another one of the same phone, registered since or besides.
    ///
    /// Errors: 430 for those who know other flows of the phone, which are servers; to endpoints 500 inside a
    /// dialog and 480 else (RFC 5626 section 11.5, RFC 5057 section 5.1).
    fn target_past_flow(
        &self,
        turn: &Turn<'_>,
        origin: &Origin,
        request: Message<'_>,
        found: &Preprocessed<'_>,
    ) -> Result<Target, Reject> {
        let is_inside_dialog = request.to().is_ok_and(|to| to.tag().is_some());
        let other = || {
            let named = Uri::parse(&found.request_uri).ok().and_then(|uri| self.own_user(&uri));
            let aor = named.or_else(|| self.own_user(&request.to().ok()?.uri().ok()?))?;
            let user = self.shared.directory.user(&aor)?;
            let bindings = self.shared.bindings(user.home, &aor);
            self.open_target_at(&bindings, &found.request_uri, turn.now)
        };
        if is_inside_dialog
            && found.routes.is_empty()
            && let Some(target) = other()
        {
            return Ok(target);
        }
        Err(match origin {
            Origin::Server(_) => Reject::FlowFailed,
            Origin::Phone if is_inside_dialog => Reject::ServerInternal,
            Origin::Phone => Reject::TemporarilyUnavailable,
        })
    }

    /// The user of ours that a URI names: in a domain of ours, or at an address of this server, or by a
    /// temporary GRUU.
    pub(super) fn own_user(&self, uri: &Uri<'_>) -> Option<AddressOfRecord> {
        match uri.scheme {
            Scheme::Sip | Scheme::Sips => {}
            Scheme::Tel | Scheme::Other => return None,
        }
        if let Some(aor) = self.user_of_temporary(uri) {
            return Some(aor);
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
    Target { next_hop, request_uri, routes: Vec::new(), q: 1_000, device: None, leg, diversion: None }
}

/// The other server that decides where a request goes, if one does.
fn towards_owner(located: &Located) -> Option<&ServerName> {
    let [target] = located.targets.as_slice() else { return None };
    match &target.next_hop {
        NextHop::Server(server) if located.called.is_none() => Some(server),
        NextHop::Server(_) | NextHop::Flow(_) | NextHop::Address { .. } | NextHop::Host { .. } => None,
    }
}
