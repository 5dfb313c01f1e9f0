//! Hands requests to the proxy machine, and forwards ACKs.

use std::sync::Arc;

use bytes::Bytes;
use model::{Leg, Peer, Protocol, ServerTransaction};
use proxy::{Incoming, ProxyError, Reject, Routing, Target, dialog_forming, preprocess, stateless};
use sip::{Message, OwnedMessage};

use super::{Origin, Shard, Turn};

impl Shard {
    /// Forwards a request to its targets.
    #[expect(clippy::too_many_arguments, reason = "what a request is and where it goes, each once")]
    pub(super) fn forward(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        server: ServerTransaction,
        request: &Arc<OwnedMessage>,
        from: Peer,
        targets: Vec<Target>,
        routing: Routing,
    ) {
        let view = request.view();
        let Some(leg) = self.arrival_leg(origin, view, &from) else {
            return self.reject(server, view, &Reject::ServerInternal);
        };
        let record_route = dialog_forming(view);
        let incoming = Incoming { server, request: Arc::clone(request), leg, record_route, routing, targets };
        match self.proxy.start(turn.now, incoming) {
            Ok(()) => {}
            Err(ProxyError::NoTargets) => self.reject(server, view, &Reject::TemporarilyUnavailable),
            Err(ProxyError::Full { retry_after_s }) => {
                self.shared.counters.requests_overloaded.add();
                self.reject(server, view, &Reject::ServiceUnavailable { retry_after_s });
            }
            Err(ProxyError::AlreadyStarted { .. }) => self.reject(server, view, &Reject::ServerInternal),
        }
    }

    /// What Record-Route says towards the sender: with a flow token where only this flow leads back to it.
    fn arrival_leg(&self, origin: &Origin, request: Message<'_>, from: &Peer) -> Option<Arc<Leg>> {
        let is_internal = *origin != Origin::Phone;
        let needs_token = match from.protocol {
            Protocol::Udp => {
                let contact = request.addresses(sip::HeaderId::Contact).next();
                let host = contact.and_then(|contact| contact.ok()?.uri().ok()?.host_address());
                host.is_some_and(|host| host != from.remote.ip())
            }
            Protocol::Tcp | Protocol::Tls | Protocol::Ws | Protocol::Wss => !is_internal,
        };
        if needs_token {
            self.legs.with_token(from, is_internal, &self.shared.tokens)
        } else {
            self.legs.towards(from, is_internal)
        }
    }

    /// An ACK for a 2xx: along the route of its dialog, without a transaction (RFC 3261 sections 16.11 and
    /// 17.1).
    pub(super) fn acknowledge(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        request: &OwnedMessage,
        from: Peer,
    ) {
        let view = request.view();
        if proxy::validate_checked(view, &self.settings.rules).is_err() {
            return;
        }
        let Ok(found) = preprocess(view, &from, &self.legs) else { return };
        let Ok(targets) = self.destinations(turn, origin, view, from, &found) else { return };
        let prefix: Bytes = self.branch_prefix.clone();
        for target in targets.iter().take(1) {
            let Ok(message) = stateless::forward(view, found.routing, target, &self.settings.proxy, &prefix)
            else {
                return;
            };
            if let Some(peer) = self.resolve(&target.next_hop) {
                self.transmit(turn, peer, message.bytes().clone(), None);
            }
        }
    }
}
