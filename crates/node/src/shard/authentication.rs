//! Who sent a request: asks for credentials and checks them.

use std::time::Duration;

use bans::Offence;
use bytes::Bytes;
use model::{AddressOfRecord, Peer, ServerTransaction, Source};
use pairing::RegisterDecision;
use proxy::{Preprocessed, Reject, preprocess, validate_checked};
use registrar::{
    authentication::{Challenger, Rejection, Sender},
    check_extensions,
};
use sip::{Framing, HeaderId, Message, Method, OwnedMessage, digest::Credentials};

use super::{Origin, Shard, Turn};
use crate::{Shared, clock, storm::Work};

/// What a challenge of ours says when the nonce is at fault.
const STALE: &[u8] = b"stale=true";

impl Shard {
    /// Challenges or refuses a phone's request that comes without credentials, and without a transaction: a
    /// copy of it may get a challenge of its own (RFC 3261 sections 8.2.7 and 26.3.2.4). So a flood of them
    /// takes no memory, and who forges addresses gets one answer sent there and no repetitions. `false` when
    /// something else is to be done with it.
    pub(super) fn challenge_at_once(&mut self, turn: &Turn<'_>, peer: &Peer, request: Message<'_>) -> bool {
        let method = request.method();
        if method == Method::Register {
            return self.challenge_register_at_once(turn, peer, request);
        }
        // An ACK is never answered, and a CANCEL is about a transaction.
        !matches!(method, Method::Ack | Method::Cancel) && self.refuse_at_once(turn, peer, request)
    }

    fn challenge_register_at_once(&mut self, turn: &Turn<'_>, peer: &Peer, request: Message<'_>) -> bool {
        let is_candidate = !request.has(HeaderId::Authorization) && self.is_plain_register(request);
        if !is_candidate || check_extensions(request).is_err() {
            return false;
        }
        let aor = request.to().ok().and_then(|to| to.uri().ok()?.address_of_record().ok());
        let Some(aor) = aor.filter(|aor| self.settings.is_our_domain(aor.domain())) else { return false };
        let user = self.shared.directory.user(&aor);
        let can_prove = user.as_ref().is_none_or(|user| user.credentials.is_some());
        let Some(home) = user.map(|user| user.home).or(self.shared.own_home) else { return false };
        let decision = self.decide(turn, home);
        if self.defers_register(request, home, &aor, &decision) {
            self.put_off_at_once(peer, request, Work::Register);
            return true;
        }
        if !can_prove || matches!(decision, RegisterDecision::Forward { .. }) {
            return false;
        }
        self.challenge_statelessly(peer, request, Challenger::Server, &aor)
    }

    /// A request that is not of a dialog of ours: only a user of ours who proves it is let in with it.
    fn refuse_at_once(&mut self, turn: &Turn<'_>, peer: &Peer, request: Message<'_>) -> bool {
        let is_candidate =
            !request.has(HeaderId::ProxyAuthorization) && !request.has(HeaderId::Authorization);
        if !is_candidate {
            return false;
        }
        if self.defers_request(request) {
            self.put_off_at_once(peer, request, Work::Request);
            return true;
        }
        if validate_checked(request, &self.settings.rules).is_err() {
            return false;
        }
        let Ok(found) = preprocess(request, peer, &self.legs) else { return false };
        if self.is_for_us(request, &found)
            || self.is_for_reg_event(turn, request, &found)
            || self.is_of_our_dialog(&Origin::Phone, request, &found)
        {
            return false;
        }
        self.blame_for_route(peer, request, &found);
        let caller = request.from().ok().and_then(|from| from.uri().ok()?.address_of_record().ok());
        if let Some(caller) = caller.filter(|caller| self.settings.is_our_domain(caller.domain())) {
            return self.challenge_statelessly(peer, request, Challenger::Proxy, &caller);
        }
        self.send_statelessly(peer, request, Reject::Forbidden.status(), &[]);
        true
    }

    /// Counts a Route that only looks like ours as an offence.
    pub(super) fn blame_for_route(&self, from: &Peer, request: Message<'_>, found: &Preprocessed<'_>) {
        let arrival = found.arrival_route.as_ref().and_then(|route| route.user);
        let call_id = request.call_id().unwrap_or_default();
        if arrival.is_some_and(|user| self.shared.tokens.is_forged(user, call_id)) {
            self.shared.defence.offence(&self.shared.counters, from, Offence::ForgedRoute);
        }
    }

    fn challenge_statelessly(
        &mut self,
        peer: &Peer,
        request: Message<'_>,
        challenger: Challenger,
        claimed: &AddressOfRecord,
    ) -> bool {
        let Err(Rejection::Challenge(challenged)) =
            self.authenticate(&Origin::Phone, peer, request, challenger, claimed)
        else {
            return false;
        };
        self.shared.counters.challenges_sent.add();
        let name = challenged.header.name();
        let headers: Vec<(&str, &[u8])> =
            challenged.values.iter().map(|value| (name, value.as_ref())).collect();
        self.send_statelessly(peer, request, challenged.status, &headers);
        true
    }

    /// Whether a request in the name of `claimed` comes from that user, by its credentials.
    ///
    /// Errors: the challenge or the refusal to answer with.
    pub(super) fn authenticate(
        &mut self,
        origin: &Origin,
        from: &Peer,
        request: Message<'_>,
        challenger: Challenger,
        claimed: &AddressOfRecord,
    ) -> Result<(), Rejection> {
        let shared = self.shared.as_ref();
        let source = source_of(origin, from, request);
        let (now, accounts) = (clock::wall_time(), shared.directory.as_ref());
        match origin {
            Origin::Phone => {
                let sender = PhoneOf { shared, source };
                self.authenticator.check_user(now, request, challenger, claimed, &sender, accounts)
            }
            // The server that the phone talks to keeps account of it, and knows whom its pool exempts.
            Origin::Server(_) => {
                self.authenticator.check_user(now, request, challenger, claimed, &source, accounts)
            }
        }
    }

    /// The Authentication-Info of the 200 to a REGISTER that was authenticated just now, where the pool says
    /// so.
    pub(super) fn authentication_info(
        &mut self,
        origin: &Origin,
        from: &Peer,
        request: Message<'_>,
    ) -> Option<Bytes> {
        if !self.settings.authentication_info() {
            return None;
        }
        let source = source_of(origin, from, request);
        let accounts = self.shared.directory.as_ref();
        self.authenticator.info(clock::wall_time(), request, Challenger::Server, source, accounts)
    }

    /// Whether a REGISTER may be passed on to the owner, who will look at its password, or its sender has to
    /// wait because several before were wrong.
    ///
    /// Errors: [`Rejection::SlowedDown`].
    pub(super) fn may_pass_on(&self, from: &Peer, request: Message<'_>) -> Result<(), Rejection> {
        let shared = &self.shared;
        let Some((sender, attempt)) = self.attempt_of(from, request) else { return Ok(()) };
        let waits = shared.defence.may_try(
            &shared.counters,
            sender,
            &attempt.username.unescaped(),
            &realm_of(&attempt),
        );
        waits.map_err(|retry_after| Rejection::SlowedDown { retry_after })
    }

    /// What the owner answered to a REGISTER that was passed on: right or wrong, it was a password from a
    /// phone that talks to this server, and it is here that its source can be shut out.
    pub(super) fn judged_by_owner(&self, from: &Peer, request: Message<'_>, status: u16, response: &Bytes) {
        let shared = &self.shared;
        if !matches!(status, 200 | 401) {
            return;
        }
        let Some((sender, attempt)) = self.attempt_of(from, request) else { return };
        let (username, realm) = (attempt.username.unescaped(), realm_of(&attempt));
        if status == 200 {
            shared.defence.right(&shared.counters, sender, &username, &realm);
        } else if !is_stale(response) {
            shared.defence.wrong(&shared.counters, sender, &username, &realm);
        }
    }

    fn attempt_of<'a>(&self, from: &Peer, request: Message<'a>) -> Option<(Source, Credentials<'a>)> {
        let source = Source::of(from.remote.ip());
        let accounts = self.shared.directory.as_ref();
        let attempt =
            self.authenticator.attempt(clock::wall_time(), request, Challenger::Server, source, accounts)?;
        Some((source, attempt))
    }

    /// Answers with a challenge, or with why there is none.
    pub(super) fn answer_rejection(
        &mut self,
        server: ServerTransaction,
        request: Message<'_>,
        rejection: &Rejection,
    ) {
        match rejection {
            Rejection::Challenge(challenged) => {
                self.shared.counters.challenges_sent.add();
                let name = challenged.header.name();
                let headers: Vec<(&str, &[u8])> =
                    challenged.values.iter().map(|value| (name, value.as_ref())).collect();
                self.answer(server, request, challenged.status, &headers);
            }
            Rejection::SlowedDown { retry_after } => {
                let seconds = retry_after.as_secs().saturating_add(1).to_string();
                self.answer(server, request, rejection.status(), &[("Retry-After", seconds.as_bytes())]);
            }
            Rejection::Forbidden | Rejection::BadRequest(_) => {
                self.answer(server, request, rejection.status(), &[]);
            }
        }
    }
}

/// The phone that sent a request, with the account that this server keeps of its source.
struct PhoneOf<'a> {
    shared: &'a Shared,
    source: Source,
}

impl Sender for PhoneOf<'_> {
    fn source(&self) -> Source {
        self.source
    }

    fn may_try(&self, username: &[u8], realm: &[u8]) -> Result<(), Duration> {
        self.shared.defence.may_try(&self.shared.counters, self.source, username, realm)
    }

    fn wrong(&self, username: &[u8], realm: &[u8]) {
        self.shared.defence.wrong(&self.shared.counters, self.source, username, realm);
    }

    fn foreign(&self, username: &[u8], realm: &[u8]) {
        self.shared.defence.foreign(&self.shared.counters, self.source, username, realm);
    }

    fn right(&self, username: &[u8], realm: &[u8]) {
        self.shared.defence.right(&self.shared.counters, self.source, username, realm);
    }
}

/// The realm of credentials, as user names are counted in it.
fn realm_of(credentials: &Credentials<'_>) -> Vec<u8> {
    credentials.realm.raw().to_ascii_lowercase()
}

/// Whether a challenge says that the nonce is at fault, not the password.
fn is_stale(response: &Bytes) -> bool {
    let Ok(response) = OwnedMessage::parse(response.clone(), Framing::Datagram) else { return true };
    let view = response.view();
    let mut challenges = view.header_lines(HeaderId::WwwAuthenticate);
    challenges.any(|value| value.windows(STALE.len()).any(|part| part.eq_ignore_ascii_case(STALE)))
}

/// Where the phone is that sent a request: nonces are bound to it.
///
/// A server of ours that forwards a REGISTER has written into the Via below its own where the phone sent it
/// from, unless the phone had written that itself (RFC 3261 section 18.2.1). What has no such Via begins at
/// that server.
fn source_of(origin: &Origin, from: &Peer, request: Message<'_>) -> Source {
    let forwarded = match origin {
        Origin::Phone => None,
        Origin::Server(_) => request.vias().nth(1).flatten(),
    };
    let address = forwarded.and_then(|via| via.received_address().or_else(|| via.host_address()));
    Source::of(address.unwrap_or_else(|| from.remote.ip()))
}

#[cfg(test)]
mod tests {
    use model::{FlowId, Protocol, ServerName};
    use sip::{Framing, Index};

    use super::*;

    fn source(origin: &Origin, vias: &str) -> String {
        let text = format!("REGISTER sip:example.com SIP/2.0\r\n{vias}\r\n");
        let mut index = Index::new();
        index.parse(text.as_bytes(), Framing::Datagram).unwrap();
        let (remote, local) = ("192.0.2.1:5071".parse().unwrap(), "192.0.2.2:5071".parse().unwrap());
        let from = Peer { protocol: Protocol::Tls, remote, local, flow: FlowId::new(0, 1) };
        source_of(origin, &from, index.view(text.as_bytes())).to_string()
    }

    #[test]
    fn a_phone_is_where_its_request_comes_from_whatever_it_writes_into_its_vias() {
        let vias = "Via: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK1, SIP/2.0/UDP 198.51.100.8\r\n";
        assert_eq!(source(&Origin::Phone, vias), "192.0.2.1");
    }

    #[test]
    fn a_phone_whose_request_another_server_forwarded_is_where_that_server_saw_it() {
        let server = Origin::Server(ServerName::new("west1").unwrap());
        let own = "Via: SIP/2.0/TLS 192.0.2.1:5071;branch=z9hG4bK0.1\r\n";
        for (below, expected) in [
            ("Via: SIP/2.0/UDP 10.0.0.7;branch=z9hG4bK1;received=198.51.100.7;rport=9\r\n", "198.51.100.7"),
            ("Via: SIP/2.0/UDP 198.51.100.8:5060;branch=z9hG4bK1\r\n", "198.51.100.8"),
            ("v: SIP/2.0/WSS x.invalid;received=2001:db8:1:2::7\r\n", "2001:db8:1:2::/64"),
            ("Via: SIP/2.0/UDP pc.example.org\r\n", "192.0.2.1"),
            ("", "192.0.2.1"),
        ] {
            assert_eq!(source(&server, &format!("{own}{below}")), expected, "{below}");
        }
    }
}
