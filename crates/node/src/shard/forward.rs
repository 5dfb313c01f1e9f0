//! Hands requests to the proxy machine, and forwards ACKs.

use std::sync::Arc;

use bytes::Bytes;
use model::{NextHop, Peer, Protocol, ServerTransaction};
use proxy::{Incoming, ProxyError, Reject, Routing, dialog_forming, preprocess, stateless};
use sip::{Message, OwnedMessage};

use super::{
    Origin, Shard, Turn,
    location::{Located, needs_flow},
};

impl Shard {
    /// Forwards a request to where it goes.
    #[expect(clippy::too_many_arguments, reason = "what a request is and where it goes, each once")]
    pub(super) fn forward(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        server: ServerTransaction,
        request: &Arc<OwnedMessage>,
        from: Peer,
        located: Located,
        routing: Routing,
    ) {
        let view = request.view();
        let Some(mut leg) = self.legs.towards(&from, *origin != Origin::Phone) else {
            return self.reject(server, view, &Reject::ServerInternal);
        };
        let Located { mut targets, mut diversions, .. } = located;
        let record_route = dialog_forming(view);
        if record_route {
            let mark = self.shared.tokens.dialog_mark(view.call_id().unwrap_or_default());
            let token = self.arrival_needs_flow(origin, view, &from).then(|| self.shared.tokens.write(&from));
            leg = self.legs.of_dialog(&leg, &mark, token.as_deref());
            let later = diversions.iter_mut().flat_map(|diversions| diversions.targets_mut());
            for target in targets.iter_mut().chain(later) {
                let token = match &target.next_hop {
                    NextHop::Flow(peer) if needs_flow(peer, &target.request_uri) => {
                        Some(self.shared.tokens.write(peer))
                    }
                    NextHop::Flow(_)
                    | NextHop::Address { .. }
                    | NextHop::Server(_)
                    | NextHop::Host { .. } => None,
                };
                target.leg = self.legs.of_dialog(&target.leg, &mark, token.as_deref());
            }
        }
        let incoming = Incoming {
            server,
            request: Arc::clone(request),
            leg,
            record_route,
            routing,
            knows_flows: *origin != Origin::Phone,
            targets,
            diversions,
        };
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

    /// Whether only the flow that a request came over leads back to its sender.
    fn arrival_needs_flow(&self, origin: &Origin, request: Message<'_>, from: &Peer) -> bool {
        match from.protocol {
            Protocol::Udp => {
                let contact = request.addresses(sip::HeaderId::Contact).next().and_then(Result::ok);
                contact.and_then(|contact| contact.uri().ok()).is_some_and(|uri| {
                    // Who asks for Outbound is reached where it sends from (RFC 5626 section 5.3.2).
                    let port = uri.port.unwrap_or(Protocol::Udp.default_port());
                    let wants_flow = uri.parameters.has(b"ob") && port != from.remote.port();
                    let is_elsewhere = match uri.host_address() {
                        Some(address) => address != from.remote.ip(),
                        // A domain of ours stands for a user or a device; other hosts are looked up.
                        None => self.own_user(&uri).is_some(),
                    };
                    is_elsewhere || wants_flow
                })
            }
            Protocol::Tcp | Protocol::Tls | Protocol::Ws | Protocol::Wss => *origin == Origin::Phone,
        }
    }

    /// An ACK for a 2xx: along the route of its dialog, without a transaction (RFC 3261 sections 16.11 and
    /// 17.1).
    pub(super) fn acknowledge(
        &mut self,
        turn: &Turn<'_>,
        origin: &Origin,
        request: &Arc<OwnedMessage>,
        from: Peer,
    ) {
        let view = request.view();
        if proxy::validate_checked(view, &self.settings.rules).is_err() {
            return;
        }
        let Ok(found) = preprocess(view, &from, &self.legs) else { return };
        // An ACK that did not come along our Record-Route is for a response of our own: it ends here.
        if !self.is_of_our_dialog(origin, view, &found) {
            return;
        }
        self.begin_to_want_hosts();
        let located = self.destinations(turn, origin, view, from, &found);
        if self.await_hosts_for_ack(turn, origin, request, from) {
            return;
        }
        let Ok(located) = located else { return };
        let routing = located.routing(self.routing_of(view, &found));
        let prefix: Bytes = self.branch_prefix.clone();
        for target in located.targets.iter().take(1) {
            let Ok(message) = stateless::forward(view, routing, target, &self.settings.proxy, &prefix) else {
                return;
            };
            if let Some(peer) = self.resolve(&target.next_hop) {
                self.transmit(turn, peer, message.bytes().clone(), None);
            }
        }
    }
}
