//! Section 16.6: the request that is forwarded.

use std::sync::Arc;

use bytes::Bytes;
use model::{NextHop, Protocol};
use sip::OwnedMessage;

use crate::{
    Incoming, Reject, Rules, Settings, Target, dialog_forming,
    testing::{Bench, incoming, leg, message, request, target, targets, text, values},
    validate,
};

fn forward(incoming: Incoming) -> Arc<OwnedMessage> {
    let mut bench = Bench::new();
    bench.start(incoming);
    bench.forwarded.remove(0).request
}

fn over_tcp(target: Target) -> Target {
    let next_hop = NextHop::Address { protocol: Protocol::Tcp, remote: "192.0.2.9:5060".parse().unwrap() };
    Target { next_hop, leg: leg(Protocol::Tcp, "192.0.2.100:5060"), ..target }
}

#[test]
fn step_1_everything_that_is_not_ours_is_copied_byte_for_byte() {
    let received = message(
        "MESSAGE sip:bob@example.com SIP/2.0
        v: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKcaller
        Max-Forwards: 70
        From: Alice <sip:alice@example.com>;tag=a1
        t:   Bob   <sip:bob@example.com>
        Call-ID: call-1@192.0.2.1
        CSeq: 0007   MESSAGE
        X-Unknown:  kept ,  as it is
        Date: no date at all
        x-unknown: again
        c: text/plain
        l: 3

hey",
    );

    let sent = forward(incoming(&received, vec![target("sip:bob@192.0.2.9", 1000)]));

    let mut lines: Vec<String> = text(sent.view()).lines().map(str::to_owned).collect();
    assert!(lines[1].contains("192.0.2.100:5060;branch=z9hG4bK0."), "{lines:?}");
    lines.retain(|line| !line.contains("192.0.2.100") && !line.starts_with("Max-"));
    let expected: Vec<String> = text(received.view())
        .lines()
        .map(|line| line.replace("MESSAGE sip:bob@example.com", "MESSAGE sip:bob@192.0.2.9"))
        .filter(|line| !line.starts_with("Max-"))
        .collect();
    assert_eq!(lines, expected);
    assert_eq!(sent.view().body(), b"hey");
}

#[test]
fn step_2_the_request_uri_becomes_that_of_the_target_without_what_it_may_not_hold() {
    let received = request("INVITE", "Max-Forwards: 70");

    let sent =
        forward(incoming(&received, vec![target("sip:bob@192.0.2.9:5070;ob;method=INVITE?Subject=x", 1000)]));

    assert_eq!(sent.view().request_uri(), b"sip:bob@192.0.2.9:5070;ob");
}

#[test]
fn step_3_max_forwards_is_decremented_and_added_as_70_when_absent() {
    let with = forward(incoming(&request("INVITE", "Max-Forwards: 12"), targets(&[1000])));
    let without = forward(incoming(&request("INVITE", "X: y"), targets(&[1000])));

    assert_eq!(values(&with, "Max-Forwards"), ["11"]);
    assert_eq!(values(&without, "Max-Forwards"), ["70"]);
}

#[test]
fn credentials_meant_for_this_proxy_are_not_forwarded_and_others_are() {
    let received = request("INVITE", "Proxy-Authorization: Digest realm=\"example.com\"");
    let ours = crate::Routing::default().with_authorization_consumed();

    let consumed = forward(Incoming { routing: ours, ..incoming(&received, targets(&[1000])) });
    let kept = forward(incoming(&received, targets(&[1000])));

    assert_eq!(values(&consumed, "Proxy-Authorization"), [""; 0]);
    assert_eq!(values(&kept, "Proxy-Authorization"), ["Digest realm=\"example.com\""]);
}

#[test]
fn step_4_record_route_goes_before_those_that_are_there() {
    let received = request("INVITE", "Max-Forwards: 70\r\nRecord-Route: <sip:p0.example.com;lr>");

    let stays = forward(Incoming { record_route: true, ..incoming(&received, targets(&[1000])) });
    let leaves = forward(incoming(&received, targets(&[1000])));

    assert_eq!(
        values(&stays, "Record-Route"),
        ["<sip:192.0.2.100:5060;transport=udp;lr>", "<sip:p0.example.com;lr>"]
    );
    assert_eq!(values(&leaves, "Record-Route"), ["<sip:p0.example.com;lr>"]);
}

#[test]
fn step_4_record_route_matters_for_requests_that_form_dialogs_and_for_unknown_methods() {
    let is_forming = |method| dialog_forming(request(method, "X: y").view());

    assert!(["INVITE", "SUBSCRIBE", "REFER", "NOTIFY", "DANCE"].into_iter().all(is_forming));
    assert!(!["MESSAGE", "REGISTER", "OPTIONS", "BYE", "PUBLISH", "ACK", "INFO"].into_iter().any(is_forming));
}

#[test]
fn rfc_5658_both_sides_are_recorded_when_they_differ_the_outgoing_one_on_top() {
    let received = request("INVITE", "Max-Forwards: 70\r\nRecord-Route: <sip:p0.example.com;lr>");
    let target = over_tcp(target("sip:bob@192.0.2.9;transport=tcp", 1000));

    let sent = forward(Incoming { record_route: true, ..incoming(&received, vec![target]) });

    assert_eq!(
        values(&sent, "Record-Route"),
        [
            "<sip:192.0.2.100:5060;transport=tcp;lr>",
            "<sip:192.0.2.100:5060;transport=udp;lr>",
            "<sip:p0.example.com;lr>",
        ]
    );
}

#[test]
fn step_6_routes_of_the_target_are_pushed_in_order_before_those_that_are_there_rfc_3327() {
    let received = request("INVITE", "Max-Forwards: 70\r\nRoute: <sip:later.example.com;lr>");
    let path = ["<sip:p3.example.com;lr>", "<sip:p1.example.com;lr;ob>"];
    let routes = path.iter().map(|value| Bytes::from_static(value.as_bytes())).collect();

    let sent = forward(incoming(&received, vec![Target { routes, ..target("sip:bob@192.0.2.9", 1000) }]));

    assert_eq!(values(&sent, "Route"), [path[0], path[1], "<sip:later.example.com;lr>"]);
    assert_eq!(sent.view().request_uri(), b"sip:bob@192.0.2.9");
}

#[test]
fn step_6_a_strict_next_hop_gets_its_own_uri_as_request_uri_and_the_target_as_last_route() {
    let received = request("INVITE", "Max-Forwards: 70\r\nRoute: <sip:later.example.com;lr>");
    let routes = vec![Bytes::from_static(b"<sip:strict.example.com;method=x?y=z>")];

    let sent = forward(incoming(&received, vec![Target { routes, ..target("sip:bob@192.0.2.9", 1000) }]));

    assert_eq!(sent.view().request_uri(), b"sip:strict.example.com");
    assert_eq!(values(&sent, "Route"), ["<sip:later.example.com;lr>", "<sip:bob@192.0.2.9>"]);
}

#[test]
fn step_8_our_via_goes_on_top_with_a_branch_of_its_own_for_each_target() {
    let mut bench = Bench::new();
    bench.start(incoming(&request("INVITE", "Max-Forwards: 70"), targets(&[1000, 1000])));

    let vias: Vec<Vec<String>> = bench.forwarded.iter().map(|sent| values(&sent.request, "Via")).collect();
    assert!(vias.iter().all(|vias| vias[0].starts_with("SIP/2.0/UDP 192.0.2.100:5060;branch=z9hG4bK0.")));
    assert!(vias.iter().all(|vias| vias[1] == "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKcaller"));
    assert_ne!(vias[0][0], vias[1][0]);
}

#[test]
fn step_9_content_length_is_added_when_it_is_missing() {
    let received = message(
        "MESSAGE sip:bob@example.com SIP/2.0
        Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKcaller
        From: Alice <sip:alice@example.com>;tag=a1
        To: Bob <sip:bob@example.com>
        Call-ID: call-1@192.0.2.1
        CSeq: 7 MESSAGE
        Content-Type: text/plain

hello",
    );

    let sent = forward(incoming(&received, vec![over_tcp(target("sip:bob@192.0.2.9", 1000))]));

    assert_eq!(values(&sent, "Content-Length"), ["5"]);
    assert_eq!(sent.view().body(), b"hello");
}

#[test]
fn a_request_that_grows_beyond_the_limit_is_refused_with_513() {
    let padding = "x".repeat(30_000);
    let received = request("INVITE", &format!("Max-Forwards: 70\r\nX: {padding}"));
    let routes = vec![Bytes::from(format!("<sip:{}.example.com;lr>", "p".repeat(40_000)))];
    let mut bench = Bench::new();

    bench.start(incoming(&received, vec![Target { routes, ..target("sip:bob@192.0.2.9", 1000) }]));

    assert_eq!((bench.forwarded.len(), bench.statuses(), bench.finished), (0, vec![513], 1));
}

#[test]
fn rfc_5393_a_request_that_comes_back_unchanged_has_looped_and_a_changed_one_spirals() {
    let rules = Rules { loop_key: 42, ..Rules::default() };
    let mut bench = Bench::with(Settings { loop_key: 42, ..Settings::default() });
    let received = request("INVITE", "Max-Forwards: 70");
    bench.start(incoming(
        &received,
        vec![target("sip:bob@example.com", 1000), target("sip:carol@example.com", 1000)],
    ));
    assert_eq!(validate(received.view(), &rules), Ok(()));

    let same = validate(bench.forwarded[0].request.view(), &rules);
    let retargeted = validate(bench.forwarded[1].request.view(), &rules);

    assert_eq!(same, Err(Reject::LoopDetected));
    assert_eq!(retargeted, Ok(()));
}

#[test]
fn rfc_5393_a_changed_route_or_a_new_transaction_is_no_loop_and_another_server_finds_none() {
    let rules = |loop_key| Rules { loop_key, ..Rules::default() };
    let received = request("INVITE", "Max-Forwards: 70\r\nRoute: <sip:p.example.com;lr>");
    let sent = text(forward(incoming(&received, vec![target("sip:bob@example.com", 1000)])).view());

    let check = |text: &str, key| validate(message(&text.replace("\r\n", "\n")).view(), &rules(key));

    assert_eq!(check(&sent, 0), Err(Reject::LoopDetected));
    assert_eq!(check(&sent.replace("p.example.com", "q.example.com"), 0), Ok(()));
    assert_eq!(check(&sent.replace("CSeq: 7", "CSeq: 8"), 0), Ok(()));
    assert_eq!(
        check(&sent.replace("From: Alice", "Proxy-Authorization: Digest x=\"y\"\nFrom: Alice"), 0),
        Ok(())
    );
    assert_eq!(check(&sent, 1), Ok(()), "an equal request through a partner is no loop");
}

#[test]
fn rfc_5393_a_loop_is_found_behind_the_vias_of_other_proxies() {
    let sent =
        forward(incoming(&request("INVITE", "Max-Forwards: 70"), vec![target("sip:bob@example.com", 1000)]));
    let via =
        "Via: SIP/2.0/TCP other.example.com;branch=z9hG4bK0.1234567890123456.1234567890123456;x;y=\"a,b\"\n";
    let back = text(sent.view()).replace("\r\n", "\n").replacen("Via:", &format!("{via}Via:"), 1);

    assert_eq!(validate(message(&back).view(), &Rules::default()), Err(Reject::LoopDetected));
}
