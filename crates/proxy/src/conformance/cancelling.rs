//! Sections 16.7 step 10 and 16.8 to 16.10, and 9.1: CANCEL and Timer C.

use std::time::Duration;

use sip::Method;

use crate::{
    BranchFailure, Settings,
    testing::{Bench, CALLER, incoming, message, request, targets, values},
};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_branch_with_a_provisional_response_is_cancelled_at_once_9_1() {
    let mut bench = Bench::inviting(&[1000]);
    bench.answer(0, 100);
    bench.cancel();

    let (invite, cancel) = (&bench.forwarded[0].request, &bench.cancels[0].request);
    assert_eq!(cancel.view().method(), Method::Cancel);
    assert_eq!(cancel.view().request_uri(), invite.view().request_uri());
    assert_eq!(values(cancel, "Via"), values(invite, "Via")[..1]);
    assert_eq!(values(cancel, "CSeq"), ["7 CANCEL"]);
    assert!(bench.statuses().is_empty(), "the 487 comes from the callee");
    bench.answer(0, 487);
    assert_eq!((bench.statuses(), bench.finished), (vec![487], 1));
}

#[test]
fn a_cancel_waits_for_the_first_provisional_response_9_1() {
    let mut bench = Bench::inviting(&[1000, 1000]);
    bench.answer(1, 180);
    bench.cancel();
    assert_eq!(bench.cancelled(), [1]);

    bench.answer(0, 100);
    assert_eq!(bench.cancelled(), [1, 0]);
    bench.answer(0, 180);
    bench.cancel();
    assert_eq!(bench.cancelled(), [1, 0], "one CANCEL for each branch");
}

#[test]
fn a_branch_that_answers_before_its_held_cancel_is_not_cancelled() {
    let mut bench = Bench::inviting(&[1000]);
    bench.cancel();
    bench.answer(0, 200);

    assert_eq!((bench.statuses(), bench.cancels.len()), (vec![200], 0));
}

#[test]
fn a_cancelled_request_tries_no_further_target_and_ends_with_487() {
    let mut bench = Bench::inviting(&[1000, 500]);
    bench.answer(0, 180);
    bench.cancel();
    bench.fail(0, BranchFailure::Transport);

    assert_eq!((bench.statuses(), bench.forwarded.len()), (vec![180, 487], 1));
}

#[test]
fn a_487_is_preferred_when_the_caller_cancelled_but_not_to_a_6xx() {
    let mut plain = Bench::inviting(&[1000, 1000]);
    plain.answer(0, 404);
    plain.answer(1, 180);
    plain.cancel();
    plain.answer(1, 487);
    assert_eq!(plain.statuses(), [180, 487]);

    let mut refused = Bench::inviting(&[1000, 1000]);
    refused.answer(0, 180);
    refused.answer(1, 180);
    refused.cancel();
    refused.answer(0, 600);
    refused.answer(1, 487);
    assert_eq!(refused.statuses(), [180, 180, 600]);
}

#[test]
fn a_cancel_has_no_effect_on_a_request_that_is_no_invite_or_after_the_final_response() {
    let mut other = Bench::messaging(&[1000, 500]);
    assert!(other.proxy.cancel(other.now, CALLER, None));
    other.drain();
    other.answer(0, 404);
    other.answer(1, 200);
    assert_eq!((other.statuses(), other.cancels.len()), (vec![200], 0));
    assert!(!other.proxy.cancel(other.now, CALLER, None), "there is no such context any more");

    let mut answered = Bench::inviting(&[1000]);
    answered.answer(0, 180);
    answered.answer(0, 200);
    answered.cancel();
    assert_eq!((answered.statuses(), answered.cancels.len()), (vec![180, 200], 0));
}

#[test]
fn step_10_the_2xx_of_one_branch_cancels_the_pending_others() {
    let mut bench = Bench::inviting(&[1000, 1000, 1000, 1000]);
    bench.answer(0, 180);
    bench.answer(1, 180);
    bench.answer(3, 404);
    bench.answer(1, 200);
    assert_eq!(bench.cancelled(), [0]);

    bench.answer(2, 180);

    assert_eq!(bench.cancelled(), [0, 2], "the held one goes out with the provisional response");
    assert_eq!(bench.statuses(), [180, 180, 200]);
}

#[test]
fn rfc_3326_a_cancel_says_why() {
    let reason = |bench: &Bench| values(&bench.cancels[0].request, "Reason");

    let mut answered = Bench::inviting(&[1000, 1000]);
    answered.answer(0, 180);
    answered.answer(1, 200);
    assert_eq!(reason(&answered), ["SIP;cause=200;text=\"Call completed elsewhere\""]);

    let mut refused = Bench::inviting(&[1000, 1000]);
    refused.answer(0, 180);
    refused.answer(1, 603);
    assert_eq!(reason(&refused), ["SIP;cause=603;text=\"Decline\""]);

    let cancel = message(
        "CANCEL sip:bob@example.com SIP/2.0
        Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKcaller
        CSeq: 7 CANCEL
        Reason: SIP;cause=200
        Reason: Q.850;cause=16;text=\"Terminated\"",
    );
    let mut caller = Bench::inviting(&[1000]);
    caller.answer(0, 180);
    caller.proxy.cancel(caller.now, CALLER, Some(cancel.view()));
    caller.drain();
    assert_eq!(reason(&caller), ["SIP;cause=200", "Q.850;cause=16;text=\"Terminated\""]);

    let mut silent = Bench::inviting(&[1000]);
    silent.answer(0, 180);
    silent.cancel();
    assert!(reason(&silent).is_empty());
}

#[test]
fn a_cancelled_branch_that_never_answers_is_given_up_after_64_t1_9_1() {
    let mut bench = Bench::inviting(&[1000]);
    bench.answer(0, 180);
    bench.cancel();
    bench.pass(Duration::from_secs(31));
    assert_eq!(bench.statuses(), [180]);
    bench.pass(Duration::from_secs(2));

    assert_eq!((bench.statuses(), bench.finished), (vec![180, 487], 1));
    assert_eq!(bench.terminated, [bench.forwarded[0].branch]);
}

#[test]
fn timer_c_is_more_than_three_minutes_16_6_step_11() {
    let mut bench = Bench::with(Settings { timer_c: MINUTE, ..Settings::default() });
    bench.start(incoming(&request("INVITE", "X: y"), targets(&[1000])));
    bench.answer(0, 180);
    bench.pass(3 * MINUTE);

    assert!(bench.cancels.is_empty());
}

#[test]
fn timer_c_starts_again_with_each_101_to_199_and_not_with_100_16_7_step_2() {
    let mut bench = Bench::inviting(&[1000, 1000]);
    bench.pass(2 * MINUTE);
    bench.answer(0, 180);
    bench.answer(1, 100);
    bench.pass(2 * MINUTE);
    assert_eq!(bench.cancelled(), [1]);
    bench.answer(0, 183);
    bench.pass(3 * MINUTE);

    assert_eq!(bench.cancelled(), [1]);
}

#[test]
fn timer_c_cancels_a_branch_with_a_provisional_response_and_the_caller_gets_408_16_8() {
    let mut bench = Bench::inviting(&[1000]);
    bench.answer(0, 180);
    bench.pass(4 * MINUTE);
    assert_eq!((bench.cancelled(), bench.statuses()), (vec![0], vec![180]));
    assert_eq!(values(&bench.cancels[0].request, "Reason"), ["SIP;cause=408;text=\"Request Timeout\""]);

    bench.answer(0, 487);

    assert_eq!((bench.statuses(), bench.finished), (vec![180, 408], 1));
}

#[test]
fn timer_c_ends_a_branch_without_a_provisional_response_as_a_408_16_8() {
    let mut bench = Bench::inviting(&[1000, 500]);
    bench.pass(4 * MINUTE);
    assert_eq!(bench.terminated, [bench.forwarded[0].branch]);
    assert_eq!((bench.cancels.len(), bench.forwarded.len()), (0, 2), "the next target is tried");

    bench.answer(1, 486);

    assert_eq!(bench.statuses(), [486]);
}

#[test]
fn timer_c_goes_on_to_the_next_target_when_the_cancelled_branch_has_ended() {
    let mut bench = Bench::inviting(&[1000, 500]);
    bench.answer(0, 180);
    bench.pass(4 * MINUTE);
    assert_eq!(bench.forwarded.len(), 1);
    bench.answer(0, 487);
    assert_eq!(bench.forwarded.len(), 2);
    bench.answer(1, 200);

    assert_eq!(bench.statuses(), [180, 200]);
}

#[test]
fn a_2xx_after_timer_c_is_forwarded_while_no_other_final_response_was() {
    let mut bench = Bench::inviting(&[1000, 500]);
    bench.pass(4 * MINUTE);
    bench.answer(0, 200);
    bench.answer(1, 486);

    assert_eq!(bench.statuses(), [200]);
}

#[test]
fn the_server_transaction_going_away_cancels_nothing_but_held_cancels_still_go_16_9() {
    let mut ringing = Bench::inviting(&[1000, 500]);
    ringing.answer(0, 180);
    ringing.server_finished();
    assert!(ringing.cancels.is_empty());
    ringing.answer(0, 486);
    assert_eq!((ringing.statuses(), ringing.forwarded.len(), ringing.finished), (vec![180], 1, 1));

    let mut held = Bench::inviting(&[1000]);
    held.cancel();
    held.server_finished();
    held.answer(0, 180);
    assert_eq!(held.cancelled(), [0]);
    held.answer(0, 487);
    assert_eq!((held.statuses(), held.finished, held.proxy.len()), (vec![], 1, 0));
}

#[test]
fn timeouts_are_safe_early_late_and_twice() {
    let mut bench = Bench::inviting(&[1000]);
    bench.answer(0, 180);
    let deadline = bench.proxy.poll_timeout().unwrap();
    bench.proxy.handle_timeout(deadline - Duration::from_micros(1));
    bench.drain();
    assert!(bench.cancels.is_empty());

    bench.now = deadline;
    bench.pass(Duration::ZERO);
    bench.pass(Duration::ZERO);
    assert_eq!(bench.cancels.len(), 1);
    bench.pass(60 * MINUTE);

    assert_eq!((bench.statuses(), bench.finished), (vec![180, 408], 1));
    assert_eq!(bench.proxy.poll_timeout(), None);
}
