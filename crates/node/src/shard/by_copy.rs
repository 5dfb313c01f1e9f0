//! Requests for users whose owner does not answer: by the copy of its bindings, and past its servers.
//!
//! Calls and messages do not wait for the takeover: a pool that has the bindings of another one's users on
//! its disk knows their phones as well as the owner did a moment ago. It routes and nothing more. Whoever
//! registers still has to wait until there is an owner. Decision 0007.

use model::{NextHop, ServerName};
use proxy::{Preprocessed, Reject, Target};
use sip::{Message, Method, NameAddr, Uri};
use topology::Listen;

use super::{
    Shard, Turn,
    location::{Located, listener_port},
    reg_event::names_package,
};
use crate::{HomeIndex, shared::Place};

impl Shard {
    /// Where requests for a home pool's users are to be dealt with, by what is known when this one is: a
    /// server that it could not be sent to just now counts as silent.
    pub(super) fn place_of(&self, turn: &Turn<'_>, home: HomeIndex) -> Place {
        self.shared.place_without(home, turn.authority, turn.now, self.held.gone())
    }

    /// The way on of a request with a Route to this next hop; `None` when it goes there.
    ///
    /// Inside a dialog a server that does not answer is passed over where the bindings of the user at the far
    /// end tell how. Errors: 500 inside a dialog and 480 else for a server that the request could not be sent
    /// to just now, with no way past it.
    pub(super) fn past_gone_server(
        &self,
        turn: &Turn<'_>,
        next_hop: &NextHop,
        request: Message<'_>,
        found: &Preprocessed<'_>,
    ) -> Result<Option<Located>, Reject> {
        let server = match next_hop {
            NextHop::Server(server) if self.shared.is_gone(server, turn.now, self.held.gone()) => server,
            NextHop::Server(_) | NextHop::Flow(_) | NextHop::Address { .. } | NextHop::Host { .. } => {
                return Ok(None);
            }
        };
        let is_inside_dialog = request.to().is_ok_and(|to| to.tag().is_some());
        if is_inside_dialog && let Some(target) = self.target_past(turn, server, request, found) {
            return Ok(Some(Located { is_route_ours: true, ..Located::of(vec![target]) }));
        }
        if self.held.gone() != Some(server) {
            return Ok(None);
        }
        let retry_after_s = self.settings.proxy.retry_after_s;
        Err(if is_inside_dialog { Reject::ServerInternal } else { Reject::Unreachable { retry_after_s } })
    }

    /// The phone at the far end of a dialog, whose route set names nobody but `gone` and us: its remote
    /// target (RFC 3261 section 12.2.1.1) is a contact that its user has bound.
    fn target_past(
        &self,
        turn: &Turn<'_>,
        gone: &ServerName,
        request: Message<'_>,
        found: &Preprocessed<'_>,
    ) -> Option<Target> {
        let topology = self.shared.topology();
        let listen = &topology.server(gone)?.listen;
        let is_passed = |route: &&[u8]| {
            let uri = NameAddr::parse(route).and_then(|address| address.uri().ok());
            uri.is_some_and(|uri| is_at_listener(listen, &uri) || self.legs.is_own(&uri))
        };
        if !found.routes.iter().all(is_passed) {
            return None;
        }
        let aor = self.own_user(&request.to().ok()?.uri().ok()?)?;
        let user = self.shared.directory.user(&aor)?;
        let is_by_copy = match self.place_of(turn, user.home) {
            Place::Here(_) => false,
            Place::ByCopy => true,
            Place::Server(_) | Place::Nowhere { .. } => return None,
        };
        let bindings = self.shared.bindings(user.home, &aor);
        let target = self.open_target_at(&bindings, &found.request_uri, turn.now)?;
        if is_by_copy {
            self.shared.counters.requests_by_copy.add();
        }
        Some(target)
    }
}

/// Whether only a registrar can answer a request: a subscription to registrations (RFC 3680).
pub(super) fn is_for_registrar(request: Message<'_>) -> bool {
    request.method() == Method::Subscribe && names_package(request)
}

/// Whether a URI names one of these listeners.
fn is_at_listener(listen: &Listen, uri: &Uri<'_>) -> bool {
    let Some(ip) = uri.host_address() else { return false };
    let address = std::net::SocketAddr::new(ip, listener_port(uri));
    let all = listen.udp.iter().chain(&listen.tcp).chain(&listen.tls).chain(&listen.internal_sip);
    all.into_iter().any(|listener| *listener == address)
}

#[cfg(test)]
mod tests {
    use sip::{Framing, Index};
    use topology::Topology;

    use super::*;

    #[test]
    fn a_route_is_known_by_any_listener_of_a_server() {
        let topology = Topology::read(include_str!("../../../tandem/src/example.toml")).unwrap().0;
        let listen = &topology.server(&ServerName::new("east1").unwrap()).unwrap().listen;
        let is_at = |uri: &str| is_at_listener(listen, &Uri::parse(uri.as_bytes()).unwrap());

        for uri in [
            "sip:mark.token@127.0.1.1:5071;transport=tls;lr",
            "sip:127.0.1.1:5060;transport=udp;lr",
            "sip:127.0.1.1;lr",
            "sips:127.0.1.1;lr",
        ] {
            assert!(is_at(uri), "{uri}");
        }
        for uri in ["sip:127.0.2.1:5071;transport=tls;lr", "sip:127.0.1.1:5099;lr", "sip:example.com;lr"] {
            assert!(!is_at(uri), "{uri}");
        }
    }

    #[test]
    fn only_subscriptions_to_registrations_need_a_registrar() {
        let is_for = |method: &str, event: &str| {
            let text = format!("{method} sip:bob@example.com SIP/2.0\r\nEvent: {event}\r\n\r\n");
            let mut index = Index::new();
            index.parse(text.as_bytes(), Framing::Datagram).unwrap();
            is_for_registrar(index.view(text.as_bytes()))
        };

        assert!(is_for("SUBSCRIBE", "reg"));
        assert!(!is_for("SUBSCRIBE", "presence") && !is_for("NOTIFY", "reg"));
    }
}
