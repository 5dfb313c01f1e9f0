//! Forwarding without a context: the ACK for a 2xx, and whatever the driver keeps no state for. Source: RFC
//! 3261 section 16.11.

use std::{hash::Hasher, sync::Arc};

use sip::{Message, OwnedMessage};
use siphasher::sip::SipHasher13;

use crate::{
    ForwardError, Routing, Settings, Target,
    forwarding::Outgoing,
    loop_detection::{LoopMark, branch_parameter, part, tag},
    open::incoming_breadth,
};

/// Makes the request for its only target; the branch parameter is the same for each retransmission.
///
/// `branch_prefix` and `settings` as given to the [`crate::Proxy`]. No Record-Route is added: an ACK carries
/// none. The driver sends the result to the target's next hop, without a transaction.
///
/// Errors: [`ForwardError`]; an ACK is dropped then.
pub fn forward(
    request: Message<'_>,
    routing: Routing,
    target: &Target,
    settings: &Settings,
    branch_prefix: &[u8],
) -> Result<Arc<OwnedMessage>, ForwardError> {
    let unique = invariant(request, settings.loop_key);
    let branch = branch_parameter(branch_prefix, unique, LoopMark::of(request, settings.loop_key));
    let breadth = incoming_breadth(request, settings);
    Outgoing { request, routing, record_route: None, target, branch: &branch, breadth }.make()
}

/// A number that every retransmission of the request has and no other transaction: of the received branch, or
/// where that is not unique, of what 16.11 names instead.
fn invariant(request: Message<'_>, key: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key, 0x7374_6174_656c_6573);
    let top = request.top_via().ok();
    match top.filter(|via| via.has_rfc3261_branch()).and_then(|via| via.branch().zip(Some(via))) {
        Some((branch, via)) => {
            part(&mut hasher, branch);
            part(&mut hasher, via.host);
            hasher.write_u16(via.port.unwrap_or(0));
        }
        None => {
            part(&mut hasher, request.values(sip::HeaderId::Via).next().unwrap_or_default());
            part(&mut hasher, tag(request.to()));
            part(&mut hasher, tag(request.from()));
            part(&mut hasher, request.call_id().unwrap_or_default());
            hasher.write_u32(request.cseq().map_or(0, |cseq| cseq.number));
            part(&mut hasher, request.request_uri());
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::testing::{PREFIX, message, request, target, values};

    fn branch(request: &OwnedMessage) -> String {
        let sent =
            forward(request.view(), Routing::default(), &target("sip:b@h", 0), &Settings::default(), PREFIX)
                .unwrap();
        values(&sent, "Via")[0].clone()
    }

    fn changed(request: &OwnedMessage, from: &str, to: &str) -> Arc<OwnedMessage> {
        let text = String::from_utf8(request.bytes().to_vec()).unwrap();
        assert!(text.contains(from));
        message(&text.replace("\r\n", "\n").replace(from, to))
    }

    #[test]
    fn a_retransmission_leaves_with_the_same_branch_16_11() {
        let ack = request("ACK", "Max-Forwards: 70");

        assert_eq!(branch(&ack), branch(&ack));
        assert!(branch(&ack).starts_with("SIP/2.0/UDP 192.0.2.100:5060;branch=z9hG4bK0."));
        assert_ne!(branch(&ack), branch(&changed(&ack, "z9hG4bKcaller", "z9hG4bKother")));
    }

    #[test]
    fn without_the_magic_cookie_each_of_the_fields_of_16_11_tells_transactions_apart() {
        let ack = changed(&request("ACK", "Max-Forwards: 70"), ";branch=z9hG4bKcaller", "");
        let own = branch(&ack);

        assert_eq!(own, branch(&ack));
        for (from, to) in [
            ("192.0.2.1:5060", "192.0.2.2:5060"),
            (";tag=a1", ";tag=a2"),
            ("To: Bob <sip:bob@example.com>", "To: Bob <sip:bob@example.com>;tag=b"),
            ("call-1", "call-2"),
            ("CSeq: 7", "CSeq: 8"),
            ("ACK sip:bob", "ACK sip:carol"),
        ] {
            assert_ne!(own, branch(&changed(&ack, from, to)), "{from}");
        }
    }

    #[test]
    fn an_ack_is_forwarded_with_one_hop_less_and_no_record_route() {
        let ack = request("ACK", "Max-Forwards: 70\r\nRoute: <sip:p;lr>");
        let sent = forward(
            ack.view(),
            Routing { popped: 1, ..Routing::default() },
            &target("sip:b@h", 0),
            &Settings::default(),
            PREFIX,
        )
        .unwrap();

        assert_eq!(sent.view().request_uri(), b"sip:b@h");
        assert_eq!(values(&sent, "Max-Forwards"), ["69"]);
        assert!(values(&sent, "Route").is_empty() && values(&sent, "Record-Route").is_empty());
        assert_eq!(values(&sent, "Via").len(), 2);
    }
    #[test]
    fn in_place_of_a_proxy_that_is_gone_nothing_of_its_route_is_forwarded() {
        let bye = request(
            "BYE",
            "Max-Forwards: 70\r\nRoute: <sip:p;lr>, <sip:gone:5071;lr>\r\nRoute: <sip:gone;lr>",
        );
        let routing = Routing { popped: 1, ..Routing::default() }.with_route_consumed();
        let plain = target("sip:b@h", 0);
        let over_a_path = Target { routes: vec![Bytes::from_static(b"<sip:flow@q;lr>")], ..plain.clone() };

        let routes = |target: &Target| {
            let sent = forward(bye.view(), routing, target, &Settings::default(), PREFIX).unwrap();
            assert_eq!(sent.view().request_uri(), b"sip:b@h");
            values(&sent, "Route")
        };

        assert!(routes(&plain).is_empty());
        assert_eq!(routes(&over_a_path), ["<sip:flow@q;lr>"]);
    }
}
