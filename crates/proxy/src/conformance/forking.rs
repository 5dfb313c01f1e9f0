//! Sections 16.5 and 16.6: which targets are tried, and when. RFC 5393 section 5, RFC 5626 section 7.

use std::time::Duration;

use bytes::Bytes;
use model::ServerTransaction;

use crate::{
    BranchFailure, Incoming, ProxyError, Settings, Target,
    testing::{Bench, CALLER, incoming, message, request, target, targets, values},
};

fn breadths(bench: &Bench) -> Vec<String> {
    bench.forwarded.iter().flat_map(|sent| values(&sent.request, "Max-Breadth")).collect()
}

fn flow_of(device: u64, uri: &str, q: u16) -> Target {
    Target { device: Some(device), ..target(uri, q) }
}

#[test]
fn targets_of_equal_q_are_tried_at_once_and_lower_ones_after_they_failed() {
    let mut bench = Bench::inviting(&[500, 1000, 1000, 0]);
    assert_eq!(bench.uris(), ["sip:d1@192.0.2.9", "sip:d2@192.0.2.9"]);

    bench.answer(0, 486);
    assert_eq!(bench.forwarded.len(), 2);
    bench.answer(1, 404);
    assert_eq!(bench.uris()[2..], ["sip:d0@192.0.2.9"]);
    bench.fail(2, BranchFailure::Transport);
    assert_eq!(bench.uris()[3..], ["sip:d3@192.0.2.9"]);
    assert!(bench.responses.is_empty());
    bench.answer(3, 180);
    bench.answer(3, 200);

    assert_eq!(bench.statuses(), [180, 200]);
}

#[test]
fn a_target_is_in_the_set_once_16_5() {
    let mut bench = Bench::new();
    let twice = vec![
        target("sip:bob@192.0.2.9;transport=udp", 1000),
        target("sip:bob@192.0.2.9;Transport=UDP", 1000),
        target("sip:carol@192.0.2.9", 1000),
    ];

    bench.start(incoming(&request("INVITE", "Max-Forwards: 70"), twice));

    assert_eq!(bench.uris(), ["sip:bob@192.0.2.9;transport=udp", "sip:carol@192.0.2.9"]);
}

#[test]
fn one_contact_behind_two_edges_is_two_targets() {
    let mut bench = Bench::new();
    let behind = |edge: &'static str| Target {
        routes: vec![Bytes::from_static(edge.as_bytes())],
        ..target("sip:bob@192.0.2.9", 1000)
    };

    bench.start(incoming(
        &request("INVITE", "Max-Forwards: 70"),
        vec![behind("<sip:e1;lr>"), behind("<sip:e2;lr>")],
    ));

    assert_eq!(bench.forwarded.len(), 2);
}

#[test]
fn no_target_no_room_and_a_repeated_start_are_errors_that_change_nothing() {
    let mut bench = Bench::with(Settings { contexts_max: 1, ..Settings::default() });
    let received = request("INVITE", "Max-Forwards: 70");
    let now = bench.now;

    let none = bench.proxy.start(now, incoming(&received, Vec::new())).unwrap_err();
    assert_eq!((none, none.status()), (ProxyError::NoTargets, 480));
    bench.start(incoming(&received, targets(&[1000])));
    let again = bench.proxy.start(now, incoming(&received, targets(&[1000]))).unwrap_err();
    assert_eq!((again, again.status()), (ProxyError::AlreadyStarted { server: CALLER }, 500));
    let other = Incoming { server: ServerTransaction(2), ..incoming(&received, targets(&[1000])) };
    let full = bench.proxy.start(now, other).unwrap_err();

    assert_eq!((full, full.status()), (ProxyError::Full { retry_after_s: 5 }, 503));
    assert_eq!(bench.proxy.len(), 1);
    bench.drain();
    assert_eq!(bench.forwarded.len(), 1);
}

#[test]
fn without_room_the_oldest_answered_invite_goes_and_none_that_rings() {
    let mut bench = Bench::with(Settings { contexts_max: 3, ..Settings::default() });
    bench.has_other_callers = true;
    let received = request("INVITE", "Max-Forwards: 70");
    let start = |bench: &mut Bench, number| {
        let server = ServerTransaction(number);
        let started =
            bench.proxy.start(bench.now, Incoming { server, ..incoming(&received, targets(&[1000])) });
        bench.drain();
        started
    };
    for number in 1..=3 {
        start(&mut bench, number).unwrap();
    }
    bench.answer(1, 200);
    bench.answer(0, 200);
    bench.answer(2, 180);

    start(&mut bench, 4).unwrap();
    assert_eq!(bench.proxy.len(), 3);
    let before = bench.statuses();
    bench.answer(1, 200);
    assert_eq!(bench.statuses(), before, "the second is forgotten");
    bench.answer(0, 200);
    assert_eq!(bench.statuses().len(), before.len() + 1, "the first is not");
    start(&mut bench, 5).unwrap();
    assert_eq!(start(&mut bench, 6), Err(ProxyError::Full { retry_after_s: 5 }));
}

#[test]
fn targets_beyond_the_limit_are_left_out_lowest_q_first() {
    let mut bench = Bench::with(Settings { targets_max: 2, ..Settings::default() });

    bench.start(incoming(&request("INVITE", "Max-Forwards: 70"), targets(&[100, 900, 1000])));
    bench.answer(0, 404);
    bench.answer(1, 404);

    assert_eq!(bench.uris(), ["sip:d2@192.0.2.9", "sip:d1@192.0.2.9"]);
    assert_eq!(bench.statuses(), [404]);
}

#[test]
fn branches_beyond_the_limit_are_not_started() {
    let mut bench = Bench::with(Settings { branches_max: 2, ..Settings::default() });

    bench.start(incoming(&request("INVITE", "Max-Forwards: 70"), targets(&[1000, 900, 800])));
    bench.answer(0, 404);
    bench.answer(1, 404);

    assert_eq!((bench.forwarded.len(), bench.statuses()), (2, vec![404]));
}

#[test]
fn rfc_5393_max_breadth_is_added_as_60_and_an_excessive_one_is_lowered() {
    let forward = |lines: &str| {
        let mut bench = Bench::new();
        bench.start(incoming(&request("MESSAGE", lines), targets(&[1000])));
        breadths(&bench)
    };

    assert_eq!(forward("X: y"), ["60"]);
    assert_eq!(forward("Max-Breadth: 1000"), ["60"]);
    assert_eq!(forward("Max-Breadth: 99999999999999999999"), ["60"]);
    assert_eq!(forward("Max-Breadth: 7"), ["7"]);
}

#[test]
fn rfc_5393_max_breadth_is_divided_among_parallel_branches_and_whole_for_serial_ones() {
    let start = |qs: &[u16]| {
        let mut bench = Bench::new();
        bench.start(incoming(&request("INVITE", "Max-Breadth: 60"), targets(qs)));
        bench
    };

    assert_eq!(breadths(&start(&[1000, 1000])), ["30", "30"]);
    assert_eq!(breadths(&start(&[500; 7])), ["9", "9", "9", "9", "8", "8", "8"]);
    let mut serial = start(&[1000, 900]);
    serial.answer(0, 404);
    assert_eq!(breadths(&serial), ["60", "60"]);
}

#[test]
fn rfc_5393_targets_beyond_max_breadth_wait_for_the_breadth_of_ended_branches() {
    let mut bench = Bench::new();
    bench.start(incoming(&request("INVITE", "Max-Breadth: 4"), targets(&[1000; 8])));
    assert_eq!(breadths(&bench), ["1"; 4]);

    bench.answer(2, 404);

    assert_eq!(breadths(&bench), ["1"; 5]);
    assert_eq!(bench.uris()[4], "sip:d4@192.0.2.9");
}

#[test]
fn rfc_5393_max_breadth_1_means_serial_forking() {
    let mut bench = Bench::new();
    bench.start(incoming(&request("INVITE", "Max-Breadth: 1"), targets(&[1000; 3])));
    for number in 0..3 {
        assert_eq!(bench.forwarded.len(), number + 1);
        bench.answer(number, 486);
    }

    assert_eq!((breadths(&bench), bench.statuses()), (vec!["1".to_owned(); 3], vec![486]));
}

#[test]
fn rfc_5626_flows_of_one_device_are_tried_one_after_the_other() {
    for failure in [Some(430), Some(408), None] {
        let mut bench = Bench::new();
        let flows = vec![
            flow_of(1, "sip:flow1@192.0.2.9", 1000),
            flow_of(1, "sip:flow2@192.0.2.9", 1000),
            flow_of(2, "sip:other@192.0.2.9", 1000),
        ];
        bench.start(incoming(&request("INVITE", "Max-Forwards: 70"), flows));
        assert_eq!(bench.uris(), ["sip:flow1@192.0.2.9", "sip:other@192.0.2.9"]);

        match failure {
            Some(status) => bench.answer(0, status),
            None => bench.fail(0, BranchFailure::Unreachable),
        }

        assert_eq!(bench.uris()[2..], ["sip:flow2@192.0.2.9"], "the other device still rings");
    }
}

#[test]
fn rfc_5626_a_device_that_answered_is_not_asked_again_over_another_flow() {
    let mut bench = Bench::new();
    let flows = vec![flow_of(1, "sip:flow1@192.0.2.9", 1000), flow_of(1, "sip:flow2@192.0.2.9", 500)];
    bench.start(incoming(&request("INVITE", "Max-Forwards: 70"), flows));

    bench.answer(0, 486);

    assert_eq!((bench.forwarded.len(), bench.statuses()), (1, vec![486]));
}

#[test]
fn rfc_5626_a_caller_never_sees_430_when_all_flows_of_the_device_failed() {
    let mut bench = Bench::new();
    bench.start(incoming(
        &request("INVITE", "Max-Forwards: 70"),
        vec![flow_of(1, "sip:flow1@192.0.2.9", 1000)],
    ));
    bench.answer(0, 430);
    assert_eq!(bench.statuses(), [480]);

    let mut between = Bench::inviting(&[1000]);
    between.answer(0, 430);
    assert_eq!(between.statuses(), [430], "who does not know the flows passes it on to who does");
}

#[test]
fn rfc_5626_an_endpoint_never_sees_430_inside_a_dialog_or_outside() {
    for (to, expected) in [("<sip:bob@example.com>", 480), ("<sip:bob@example.com>;tag=b1", 500)] {
        let received = message(&format!(
            "MESSAGE sip:bob@192.0.2.9 SIP/2.0
            Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKcaller
            From: <sip:alice@example.com>;tag=a1
            To: {to}
            Call-ID: call-1@192.0.2.1
            CSeq: 7 MESSAGE
            Max-Forwards: 70
            Content-Length: 0"
        ));
        let mut bench = Bench::new();

        bench.start(Incoming { knows_flows: false, ..incoming(&received, targets(&[1000])) });
        bench.answer(0, 430);

        assert_eq!(bench.statuses(), [expected], "{to}");
    }
}

#[test]
fn redirects_are_followed_when_the_settings_say_so_16_7_step_4() {
    let mut bench = Bench::with(Settings { recurse: true, ..Settings::default() });
    bench.start(incoming(&request("INVITE", "Max-Forwards: 70"), targets(&[1000])));
    bench.answer_with(0, 302, &[("Contact", "<sip:new@192.0.2.9>, <mailto:bob@example.com>")]);
    assert!(bench.responses.is_empty());

    let contacts = vec![target("sip:new@192.0.2.9", 1000), target("sip:d0@192.0.2.9", 1000)];
    bench.proxy.redirect(bench.now, bench.redirected[0], contacts, &[]);
    bench.drain();
    assert_eq!(bench.uris(), ["sip:d0@192.0.2.9", "sip:new@192.0.2.9"], "no URI is tried twice");
    bench.answer(1, 404);

    assert_eq!(bench.statuses(), [404], "a redirect that was followed wholly is no response");
}

#[test]
fn contacts_that_were_not_followed_stay_in_the_redirect_16_7_step_4() {
    let mut bench = Bench::with(Settings { recurse: true, ..Settings::default() });
    bench.start(incoming(&request("INVITE", "Max-Forwards: 70"), targets(&[1000])));
    bench.answer_with(0, 302, &[("Contact", "<sip:new@192.0.2.9>, <mailto:bob@example.com>")]);
    let rest = [Bytes::from_static(b"<mailto:bob@example.com>")];

    bench.proxy.redirect(bench.now, bench.redirected[0], vec![target("sip:new@192.0.2.9", 1000)], &rest);
    bench.drain();
    bench.answer(1, 404);

    assert_eq!(bench.statuses(), [302]);
    assert_eq!(values(&bench.responses[0], "Contact"), ["<mailto:bob@example.com>"]);
}

#[test]
fn a_redirect_nobody_follows_is_a_response_like_others() {
    let mut off = Bench::inviting(&[1000]);
    off.answer_with(0, 302, &[("Contact", "<sip:new@192.0.2.9>")]);
    assert_eq!(off.statuses(), [302]);

    let mut forgotten = Bench::with(Settings { recurse: true, ..Settings::default() });
    forgotten.start(incoming(&request("INVITE", "Max-Forwards: 70"), targets(&[1000])));
    forgotten.answer(0, 302);
    forgotten.pass(Duration::from_secs(33));
    assert_eq!((forgotten.statuses(), forgotten.finished), (vec![302], 1));

    let mut refused = Bench::with(Settings { recurse: true, ..Settings::default() });
    refused.start(incoming(&request("INVITE", "Max-Forwards: 70"), targets(&[1000])));
    refused.answer(0, 302);
    refused.proxy.redirect(refused.now, refused.redirected[0], Vec::new(), &[]);
    refused.drain();
    assert_eq!(refused.statuses(), [302]);
}

#[test]
fn rfc_4320_no_target_is_tried_when_nobody_can_be_answered_any_more() {
    let mut bench = Bench::messaging(&[1000, 500]);
    bench.pass(Duration::from_secs(32));
    bench.fail(0, BranchFailure::Timeout);

    assert_eq!((bench.forwarded.len(), bench.statuses(), bench.finished), (1, vec![], 1));
}
