//! Sections 16.4 and 16.12, RFC 5658, RFC 5626 section 5.3: route sets.

use std::sync::Arc;

use bytes::Bytes;
use model::{Leg, Peer, Protocol};
use sip::OwnedMessage;

use crate::{
    Incoming, Preprocessed, Reject, Target, next_hop_uri, preprocess,
    testing::{Bench, Hosts, incoming, message, peer, request, target, text, values},
};

/// A request with this start line and these header lines.
fn in_dialog(start: &str, lines: &str) -> Arc<OwnedMessage> {
    let method = start.split(' ').next().unwrap();
    message(&format!(
        "{start} SIP/2.0
        Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKcaller
        From: <sip:u2@domain.com>;tag=1
        To: <sip:u1@example.com>;tag=2
        Call-ID: c
        CSeq: 1 {method}
        {lines}
        Max-Forwards: 70"
    ))
}

fn udp() -> Peer {
    peer(Protocol::Udp, 5060)
}

fn uri_of(preprocessed: &Preprocessed<'_>) -> String {
    String::from_utf8(preprocessed.request_uri.to_vec()).unwrap()
}

/// A proxy called `host` gets the request and forwards it by its route set alone. Returns what it sends, and
/// the URI it resolves for that.
fn pass(request: &Arc<OwnedMessage>, host: &'static [&'static str]) -> (Arc<OwnedMessage>, String) {
    let preprocessed = preprocess(request.view(), &udp(), &Hosts(host)).unwrap();
    let next = next_hop_uri(request.view(), preprocessed.routing, &[], &preprocessed.request_uri);
    let next = String::from_utf8(next.to_vec()).unwrap();
    let target = target(&uri_of(&preprocessed), 1000);
    let mut bench = Bench::new();
    bench.start(Incoming { routing: preprocessed.routing, ..incoming(request, vec![target]) });
    (Arc::clone(&bench.forwarded[0].request), next)
}

fn start_line(message: &OwnedMessage) -> String {
    text(message.view()).lines().next().unwrap().to_owned()
}

#[test]
fn example_16_12_1_1_the_basic_trapezoid() {
    let from_u1 =
        in_dialog("BYE sip:callee@u2.domain.com", "Route: <sip:p1.example.com;lr>,<sip:p2.domain.com;lr>");

    let (from_p1, to_p2) = pass(&from_u1, &["p1.example.com"]);
    assert_eq!(start_line(&from_p1), "BYE sip:callee@u2.domain.com SIP/2.0");
    assert_eq!(values(&from_p1, "Route"), ["<sip:p2.domain.com;lr>"]);
    assert_eq!(to_p2, "sip:p2.domain.com;lr");

    let (from_p2, to_u2) = pass(&from_p1, &["p2.domain.com", "domain.com"]);
    assert_eq!(start_line(&from_p2), "BYE sip:callee@u2.domain.com SIP/2.0");
    assert!(values(&from_p2, "Route").is_empty());
    assert_eq!(to_u2, "sip:callee@u2.domain.com");
}

#[test]
fn example_16_12_1_2_through_a_strict_router() {
    let from_u2 = in_dialog(
        "BYE sip:caller@u1.example.com",
        "Route: <sip:p4.domain.com;lr>
        Route: <sip:p3.middle.com>
        Route: <sip:p2.example.com;lr>
        Route: <sip:p1.example.com;lr>",
    );

    let (from_p4, to_p3) = pass(&from_u2, &["p4.domain.com"]);
    assert_eq!(start_line(&from_p4), "BYE sip:p3.middle.com SIP/2.0");
    assert_eq!(
        values(&from_p4, "Route"),
        ["<sip:p2.example.com;lr>", "<sip:p1.example.com;lr>", "<sip:caller@u1.example.com>"]
    );
    assert_eq!(to_p3, "sip:p3.middle.com");

    let from_p3 = in_dialog(
        "BYE sip:p2.example.com;lr",
        "Route: <sip:p1.example.com;lr>
        Route: <sip:caller@u1.example.com>",
    );
    let (from_p2, to_p1) = pass(&from_p3, &["p2.example.com"]);
    assert_eq!(start_line(&from_p2), "BYE sip:caller@u1.example.com SIP/2.0");
    assert_eq!(values(&from_p2, "Route"), ["<sip:p1.example.com;lr>"]);
    assert_eq!(to_p1, "sip:p1.example.com;lr");

    let (from_p1, to_u1) = pass(&from_p2, &["p1.example.com"]);
    assert_eq!(start_line(&from_p1), "BYE sip:caller@u1.example.com SIP/2.0");
    assert!(values(&from_p1, "Route").is_empty());
    assert_eq!(to_u1, "sip:caller@u1.example.com");
}

#[test]
fn the_request_uri_is_only_repaired_when_it_is_a_record_route_value_of_ours_16_4() {
    let own = Hosts(&["p.example.com"]);
    let check = |start, lines| {
        let request = in_dialog(start, lines);
        let preprocessed = preprocess(request.view(), &udp(), &own).unwrap();
        (uri_of(&preprocessed), preprocessed.routes.len())
    };

    let route = "Route: <sip:a@x.example.com>";
    assert_eq!(check("BYE sip:p.example.com;lr", route), ("sip:a@x.example.com".into(), 0));
    assert_eq!(
        check("BYE sip:p.example.com", route),
        ("sip:p.example.com".into(), 1),
        "no lr: our own domain"
    );
    assert_eq!(check("BYE sip:q.example.com;lr", route), ("sip:q.example.com;lr".into(), 1), "not ours");
    assert_eq!(check("BYE sip:p.example.com;lr", "X: no Route"), ("sip:p.example.com;lr".into(), 0));
    let strict = "Route: <sip:a@x.example.com;method=BYE?x=y>";
    assert_eq!(check("BYE sip:p.example.com;lr", strict), ("sip:a@x.example.com".into(), 0));
}

#[test]
fn rfc_5658_both_values_of_a_double_record_route_are_removed() {
    let both = "Route: <sip:192.0.2.254:5060;lr>
        Route: <sip:[2001:db8::1];lr>, <sip:next.example.com;lr>";
    let request = in_dialog("BYE sip:bob@[2001:db8::33]", both);

    let (sent, next) = pass(&request, &["192.0.2.254", "[2001:db8::1]"]);

    assert_eq!(values(&sent, "Route"), ["<sip:next.example.com;lr>"]);
    assert_eq!(next, "sip:next.example.com;lr");
}

#[test]
fn rfc_5658_a_third_value_of_ours_is_another_visit() {
    let request = in_dialog("BYE sip:bob@x.example.com", "Route: <sip:p;lr>, <sip:p;lr>, <sip:p;lr>");

    let (sent, next) = pass(&request, &["p"]);

    assert_eq!((values(&sent, "Route"), next.as_str()), (vec!["<sip:p;lr>".to_owned()], "sip:p;lr"));
}

#[test]
fn rfc_5658_a_strict_router_takes_one_of_the_double_values_and_we_the_other() {
    let request =
        in_dialog("BYE sip:p-in;lr", "Route: <sip:token@p-out;lr>, <sip:p1;lr>, <sip:caller@u1.example.com>");

    let preprocessed = preprocess(request.view(), &udp(), &Hosts(&["p-in", "p-out"])).unwrap();

    assert_eq!(uri_of(&preprocessed), "sip:caller@u1.example.com");
    assert_eq!(preprocessed.routes.to_vec(), [b"<sip:p1;lr>"]);
    assert_eq!(preprocessed.arrival_route.unwrap().host, b"p-in");
    assert_eq!(preprocessed.flow_token(), Some(&b"token"[..]));
}

/// A dialog over UDP on the left and TLS on the right; each side then sends through the recorded routes.
#[test]
fn rfc_5658_a_dialog_across_transports_returns_through_both_sides() {
    let side = |via: &'static str, record_route: &'static str| {
        Arc::new(Leg {
            via: Bytes::from_static(via.as_bytes()),
            record_route: Bytes::from_static(record_route.as_bytes()),
        })
    };
    let left = side("SIP/2.0/UDP p.example.com:5060", "<sip:left@p.example.com:5060;transport=udp;lr>");
    let right = side("SIP/2.0/TLS p.example.com:5061", "<sip:right@p.example.com:5061;transport=tls;lr>");
    let invite = request("INVITE", "Max-Forwards: 70");
    let mut bench = Bench::new();
    let target = Target { leg: right, ..target("sip:bob@192.0.2.9:5061;transport=tls", 1000) };
    bench.start(Incoming { leg: left, record_route: true, ..incoming(&invite, vec![target]) });
    let recorded = values(&bench.forwarded[0].request, "Record-Route");
    assert_eq!(recorded.len(), 2);

    // The callee takes the values in order, the caller in reverse (12.1.1, 12.1.2).
    let callee_routes = format!("Route: {}, {}", recorded[0], recorded[1]);
    let caller_routes = format!("Route: {}, {}", recorded[1], recorded[0]);
    for (routes, arrival, token) in [(caller_routes, "left", "right"), (callee_routes, "right", "left")] {
        let bye = in_dialog("BYE sip:there@192.0.2.77", &routes);
        let preprocessed = preprocess(bye.view(), &udp(), &Hosts(&["p.example.com"])).unwrap();

        assert_eq!(preprocessed.arrival_route.unwrap().user, Some(arrival.as_bytes()));
        assert_eq!(preprocessed.flow_token(), Some(token.as_bytes()), "the token of the side it leaves on");
        assert!(preprocessed.routes.is_empty());
        let (sent, next) = pass(&bye, &["p.example.com"]);
        assert!(values(&sent, "Route").is_empty());
        assert_eq!(next, "sip:there@192.0.2.77");
    }
}

#[test]
fn rfc_5626_the_flow_token_is_the_user_part_of_our_route() {
    let request = in_dialog("INVITE sip:bob@192.0.2.9", "Route: <sip:VskztcQ%2Fab@edge.example.com;lr;ob>");

    let preprocessed = preprocess(request.view(), &udp(), &Hosts(&["edge.example.com"])).unwrap();

    assert_eq!(preprocessed.flow_token(), Some(&b"VskztcQ%2Fab"[..]));
    assert!(preprocessed.is_outbound());
    assert!(preprocessed.routes.is_empty());
}

#[test]
fn a_request_without_a_route_of_ours_has_no_flow_token_and_keeps_its_routes() {
    let request =
        in_dialog("INVITE sip:x@p.example.com", "Route: <sip:token@other.example.com;lr>, <sip:p;lr>");

    let preprocessed = preprocess(request.view(), &udp(), &Hosts(&["p"])).unwrap();

    assert_eq!((preprocessed.flow_token(), preprocessed.is_outbound()), (None, false));
    assert_eq!(preprocessed.routes.len(), 2);
    assert_eq!(preprocessed.routing, crate::Routing::default());
}

#[test]
fn an_maddr_of_ours_on_the_right_port_and_transport_is_stripped_16_4() {
    let own = Hosts(&["192.0.2.100"]);
    let check = |uri: &str, from: Peer| {
        let request = in_dialog(&format!("INVITE {uri}"), "X: y");
        let preprocessed = preprocess(request.view(), &from, &own).unwrap();
        (uri_of(&preprocessed), preprocessed.has_maddr)
    };

    assert_eq!(
        check("sip:b@x.y;maddr=192.0.2.100;user=phone", udp()),
        ("sip:b@x.y;user=phone".into(), false)
    );
    assert_eq!(
        check("sip:b@x.y:5070;maddr=192.0.2.100;transport=tcp", peer(Protocol::Tcp, 5070)),
        ("sip:b@x.y".into(), false)
    );
    assert_eq!(
        check("sips:b@x.y;maddr=192.0.2.100", peer(Protocol::Tls, 5061)),
        ("sips:b@x.y".into(), false)
    );
    for (uri, from) in [
        ("sip:b@x.y;maddr=192.0.2.200", udp()),
        ("sip:b@x.y:5070;maddr=192.0.2.100", udp()),
        ("sip:b@x.y;maddr=192.0.2.100;transport=tcp", udp()),
        ("sip:b@x.y;maddr=192.0.2.100", peer(Protocol::Tcp, 5060)),
        ("sips:b@x.y;maddr=192.0.2.100", peer(Protocol::Tcp, 5060)),
    ] {
        assert_eq!(check(uri, from), (uri.to_owned(), true), "it is for that address, port and transport");
    }
}

#[test]
fn a_route_that_decides_and_cannot_be_read_is_a_400_and_a_later_one_is_not_our_business_16_3_step_1() {
    let check = |routes| {
        let request = in_dialog("BYE sip:b@x.y", routes);
        preprocess(request.view(), &udp(), &Hosts(&["p"])).map(drop)
    };

    for bad in
        ["Route: <sip:a", "Route: ,<sip:p;lr>", "Route: <sip:p;lr>, x", "Route: <sip:p;lr>, <sip:p;lr>, y"]
    {
        assert_eq!(check(bad).unwrap_err().status(), 400, "{bad}");
    }
    assert!(matches!(check("Route: <sip:@@>"), Err(Reject::RouteUri(_))));
    assert_eq!(check("Route: <sip:next;lr>, what is this"), Ok(()));
}

#[test]
fn the_next_hop_is_the_path_of_the_target_before_the_received_route() {
    let request = in_dialog("INVITE sip:b@x.y", "Route: <sip:p;lr>, \"Next\" <sip:next;lr>;x=y");
    let routing = preprocess(request.view(), &udp(), &Hosts(&["p"])).unwrap().routing;
    let path = [Bytes::from_static(b"<sip:edge;lr;ob>")];

    assert_eq!(next_hop_uri(request.view(), routing, &path, b"sip:b@z"), b"sip:edge;lr;ob");
    assert_eq!(next_hop_uri(request.view(), routing, &[], b"sip:b@z"), b"sip:next;lr");
}
