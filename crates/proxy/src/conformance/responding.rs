//! Section 16.7: what happens to responses. RFC 4320, RFC 6026.

use std::{sync::Arc, time::Duration};

use crate::{
    BranchFailure,
    testing::{Bench, message, reply, request, text, values},
};

#[test]
fn step_1_a_response_for_an_unknown_branch_is_dropped_rfc_6026() {
    let mut bench = Bench::messaging(&[1000]);
    let sent = bench.forwarded[0].clone();
    bench.answer(0, 200);

    bench.proxy.response(bench.now, sent.branch, &reply(&sent.request, 200, &[]));
    bench.proxy.response(bench.now, crate::BranchKey::NONE, &reply(&sent.request, 200, &[]));
    bench.drain();

    assert_eq!((bench.statuses(), bench.finished), (vec![200], 1));
}

#[test]
fn step_1_the_next_user_of_a_slot_gets_no_response_of_the_one_before() {
    let mut bench = Bench::messaging(&[1000]);
    let old = bench.forwarded[0].clone();
    bench.answer(0, 200);
    bench.start(crate::testing::incoming(&request("MESSAGE", "X: y"), crate::testing::targets(&[1000])));

    bench.proxy.response(bench.now, old.branch, &reply(&old.request, 404, &[]));
    bench.drain();

    assert_eq!(bench.statuses(), [200]);
    assert_ne!(bench.forwarded[1].branch, old.branch);
}

#[test]
fn step_3_our_via_is_removed_and_everything_else_is_kept() {
    let mut bench = Bench::inviting(&[1000]);
    let downstream = reply(&bench.forwarded[0].request, 183, &[("X-Unknown", "a ,  b"), ("Warning", "none")]);

    bench.proxy.response(bench.now, bench.forwarded[0].branch, &downstream);
    bench.drain();

    let expected: String =
        text(downstream.view()).split_inclusive("\r\n").filter(|l| !l.contains("192.0.2.100")).collect();
    assert_eq!(text(bench.responses[0].view()), expected);
    assert_eq!(values(&bench.responses[0], "Via"), ["SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKcaller"]);
}

#[test]
fn step_3_a_response_without_a_via_below_ours_is_not_forwarded() {
    for status in [180, 200, 404] {
        let mut bench = Bench::inviting(&[1000]);
        let whole = text(reply(&bench.forwarded[0].request, status, &[]).view()).replace("\r\n", "\n");
        let short: String =
            whole.split_inclusive('\n').filter(|line| !line.contains("z9hG4bKcaller")).collect();

        bench.proxy.response(bench.now, bench.forwarded[0].branch, &message(&short));
        bench.drain();

        let expected: &[u16] = if status == 180 { &[] } else { &[500] };
        assert_eq!(bench.statuses(), expected, "a branch with a broken final response has ended");
    }
}

#[test]
fn step_5_provisional_responses_but_100_are_forwarded_until_the_final_one() {
    let mut bench = Bench::inviting(&[1000, 1000]);
    for status in [100, 180, 183, 199] {
        bench.answer(0, status);
    }
    bench.answer(1, 180);
    bench.answer(0, 200);
    bench.answer(1, 180);

    assert_eq!(bench.statuses(), [180, 183, 199, 180, 200]);
}

#[test]
fn rfc_4320_a_request_that_is_no_invite_gets_no_provisional_response() {
    let mut bench = Bench::messaging(&[1000]);
    for status in [100, 180, 183, 202] {
        bench.answer(0, status);
    }

    assert_eq!(bench.statuses(), [202]);
}

#[test]
fn step_5_the_first_2xx_to_an_invite_is_forwarded_at_once_and_later_ones_too() {
    let mut bench = Bench::inviting(&[1000, 1000, 1000, 500]);
    bench.answer(1, 180);
    bench.answer(0, 200);
    bench.answer(1, 200);
    bench.answer(0, 200);
    bench.answer(2, 486);

    assert_eq!(bench.statuses(), [180, 200, 200, 200]);
    assert_eq!(bench.forwarded.len(), 3, "no target is tried after a 2xx");
}

#[test]
fn rfc_3428_of_many_2xx_to_a_message_only_the_first_is_forwarded() {
    let mut bench = Bench::messaging(&[1000, 1000]);
    bench.answer(1, 202);
    bench.answer(0, 200);

    assert_eq!((bench.statuses(), bench.finished, bench.proxy.len()), (vec![202], 1, 0));
}

#[test]
fn rfc_6026_a_2xx_is_dropped_when_the_server_transaction_is_gone() {
    let mut bench = Bench::inviting(&[1000, 1000]);
    bench.answer(1, 180);
    bench.answer(0, 200);
    bench.server_finished();
    assert_eq!(bench.finished, 0, "a branch is still to end");

    bench.answer(0, 200);
    bench.answer(1, 200);

    assert_eq!((bench.statuses(), bench.finished, bench.proxy.len()), (vec![180, 200], 1, 0));
}

#[test]
fn rfc_6026_late_2xx_are_awaited_for_64_t1() {
    let mut bench = Bench::inviting(&[1000]);
    bench.answer(0, 200);
    bench.pass(Duration::from_secs(31));
    bench.answer(0, 200);
    assert_eq!(bench.finished, 0);
    bench.pass(Duration::from_secs(2));

    assert_eq!((bench.statuses(), bench.finished), (vec![200, 200], 1));
    assert_eq!(bench.proxy.poll_timeout(), None);
}

#[test]
fn step_5_a_6xx_is_not_forwarded_at_once_but_cancels_the_others_and_ends_the_search() {
    let mut bench = Bench::inviting(&[1000, 1000, 500]);
    bench.answer(1, 180);
    bench.answer(0, 603);
    assert_eq!((bench.statuses(), bench.cancelled()), (vec![180], vec![1]));

    bench.answer(1, 487);

    assert_eq!((bench.statuses(), bench.forwarded.len(), bench.finished), (vec![180, 603], 2, 1));
}

#[test]
fn step_5_a_2xx_that_crosses_the_cancel_after_a_6xx_wins() {
    let mut bench = Bench::inviting(&[1000, 1000]);
    bench.answer(1, 180);
    bench.answer(0, 603);
    bench.answer(1, 200);

    assert_eq!(bench.statuses(), [180, 200]);
}

#[test]
fn step_6_no_response_at_all_is_408_for_an_invite_and_silence_for_others_rfc_4320() {
    let mut invite = Bench::inviting(&[1000]);
    invite.fail(0, BranchFailure::Timeout);
    assert_eq!((invite.statuses(), invite.finished), (vec![408], 1));

    let mut other = Bench::messaging(&[1000]);
    other.fail(0, BranchFailure::Timeout);
    assert_eq!((other.statuses(), other.finished), (vec![], 1));
}

#[test]
fn rfc_4320_a_408_from_downstream_is_not_forwarded_to_a_request_that_is_no_invite() {
    let mut alone = Bench::messaging(&[1000]);
    alone.answer(0, 408);
    assert_eq!((alone.statuses(), alone.finished), (vec![], 1));

    let mut beside = Bench::messaging(&[1000, 1000]);
    beside.answer(0, 408);
    beside.answer(1, 503);
    assert_eq!(beside.statuses(), [500]);

    let mut invite = Bench::inviting(&[1000]);
    invite.answer(0, 408);
    assert_eq!(invite.statuses(), [408]);
}

#[test]
fn step_6_a_503_becomes_a_500_unless_we_are_full_ourselves() {
    let mut downstream = Bench::inviting(&[1000]);
    downstream.answer_with(0, 503, &[("Retry-After", "60")]);
    assert_eq!(downstream.statuses(), [500]);
    assert!(values(&downstream.responses[0], "Retry-After").is_empty());

    let mut unreachable = Bench::inviting(&[1000, 1000]);
    unreachable.fail(0, BranchFailure::Unreachable);
    unreachable.fail(1, BranchFailure::Transport);
    assert_eq!((unreachable.unreachable, unreachable.unsent, unreachable.finished), (1, 0, 1));

    let mut unsent = Bench::inviting(&[1000, 1000]);
    unsent.fail(0, BranchFailure::Unreachable);
    unsent.fail(1, BranchFailure::Unreachable);
    assert_eq!((unsent.unreachable, unsent.unsent, unsent.finished), (1, 1, 1));

    let mut mixed = Bench::inviting(&[1000, 1000]);
    mixed.fail(0, BranchFailure::Transport);
    mixed.answer(1, 503);
    assert_eq!((mixed.statuses(), mixed.unreachable), (vec![500], 0));

    let mut cancelled = Bench::inviting(&[1000]);
    cancelled.cancel();
    cancelled.fail(0, BranchFailure::Transport);
    assert_eq!((cancelled.statuses(), cancelled.unreachable), (vec![487], 0));

    let mut full = Bench::inviting(&[1000, 1000]);
    full.fail(0, BranchFailure::Transport);
    full.fail(1, BranchFailure::Full);
    assert_eq!(full.statuses(), [503]);
    assert_eq!(values(&full.responses[0], "Retry-After"), ["5"]);
}

#[test]
fn step_6_a_response_of_our_own_names_the_transaction_of_the_caller_and_has_a_to_tag() {
    let mut bench = Bench::inviting(&[1000]);
    bench.fail(0, BranchFailure::Timeout);

    let response = &bench.responses[0];
    assert_eq!(values(response, "Via"), ["SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKcaller"]);
    assert_eq!(values(response, "CSeq"), ["7 INVITE"]);
    assert!(response.view().to().unwrap().tag().is_some());
}

#[test]
fn step_6_the_to_tag_of_a_forwarded_response_is_kept() {
    let mut bench = Bench::inviting(&[1000]);
    bench.answer(0, 404);

    assert_eq!(bench.responses[0].view().to().unwrap().tag(), Some(&b"callee"[..]));
}

#[test]
fn step_6_the_example_503_407_501_and_404_gives_407() {
    let mut bench = Bench::inviting(&[1000; 4]);
    for (number, status) in [503, 407, 501, 404].into_iter().enumerate() {
        bench.answer(number, status);
    }

    assert_eq!(bench.statuses(), [407]);
}

#[test]
fn step_7_the_challenges_of_all_branches_are_merged() {
    let mut bench = Bench::inviting(&[1000; 4]);
    bench.answer_with(0, 407, &[("Proxy-Authenticate", "Digest realm=\"a\", nonce=\"1\"")]);
    bench.answer_with(1, 401, &[("WWW-Authenticate", "Digest realm=\"b\",   nonce=\"2\"")]);
    bench.answer_with(2, 404, &[("WWW-Authenticate", "Digest realm=\"none\"")]);
    bench.answer_with(
        3,
        401,
        &[
            ("WWW-Authenticate", "Digest realm=\"c\", nonce=\"3\""),
            ("Proxy-Authenticate", "Digest realm=\"d\", nonce=\"4\""),
        ],
    );

    assert_eq!(bench.statuses(), [407]);
    let response = text(bench.responses[0].view());
    let challenges: Vec<&str> = response.lines().filter(|line| line.contains("uthenticate:")).collect();
    assert_eq!(challenges.len(), 4, "{response}");
    assert!(response.contains("WWW-Authenticate: Digest realm=\"b\",   nonce=\"2\""), "{response}");
    assert!(!response.contains("none"));
}

#[test]
fn a_response_to_the_cancel_says_nothing_about_the_invite() {
    let mut bench = Bench::inviting(&[1000]);
    bench.answer(0, 180);
    bench.cancel();
    let cancel = bench.cancels[0].clone();

    bench.proxy.response(bench.now, cancel.branch, &reply(&cancel.request, 200, &[]));
    bench.proxy.response(bench.now, cancel.branch, &Arc::clone(&cancel.request));
    bench.drain();

    assert_eq!(bench.statuses(), [180]);
}
