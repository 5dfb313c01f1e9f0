//! Calls that the phones of the called user do not take.

use std::time::Duration;

use crate::{
    BranchFailure, DiversionCause, Diversions, Incoming, NoAnswer, Target,
    testing::{Bench, incoming, request, target, targets, values},
};

const AFTER: Duration = Duration::from_secs(20);

fn to(name: &str) -> Target {
    Target {
        diversion: Some(format!("<sip:bob@example.com>;reason={name}").into()),
        ..target(&format!("sip:{name}@example.com"), 1000)
    }
}

fn everywhere() -> Diversions {
    Diversions {
        busy: Some(to("busy")),
        no_answer: Some(NoAnswer { after: AFTER, target: to("no-answer") }),
        not_reachable: Some(to("away")),
    }
}

fn calling(qs: &[u16], headers: &str, diversions: Diversions) -> Bench {
    let mut bench = Bench::new();
    let invite = request("INVITE", headers);
    bench.start(Incoming { diversions: Some(Box::new(diversions)), ..incoming(&invite, targets(qs)) });
    bench
}

fn inviting(qs: &[u16]) -> Bench {
    calling(qs, "Max-Forwards: 70", everywhere())
}

#[test]
fn a_call_goes_on_when_every_phone_has_ended_and_one_was_busy() {
    for busy in [486, 600] {
        let mut bench = inviting(&[1000, 1000]);

        bench.answer(0, busy);
        bench.answer(1, 180);
        assert_eq!(bench.forwarded.len(), 2, "the other phone still rings");
        bench.answer(1, if busy == 600 { 487 } else { 404 });

        assert_eq!(bench.diverted, [DiversionCause::Busy]);
        assert_eq!(bench.uris()[2..], ["sip:busy@example.com"]);
        assert_eq!(values(&bench.forwarded[2].request, "Diversion"), ["<sip:bob@example.com>;reason=busy"]);
        bench.answer(2, 200);
        assert_eq!(bench.statuses(), [180, 200]);
    }
}

#[test]
fn a_declined_call_goes_nowhere_else() {
    let mut bench = inviting(&[1000, 1000]);

    bench.answer(0, 603);
    bench.answer(1, 180);
    bench.pass(AFTER);
    bench.answer(1, 487);

    assert_eq!((bench.forwarded.len(), bench.statuses()), (2, vec![180, 603]));
}

#[test]
fn a_call_goes_on_when_nobody_answers_in_time_without_waiting_for_the_phones() {
    let mut bench = inviting(&[1000, 1000, 500]);
    bench.answer(0, 180);

    bench.pass(AFTER - Duration::from_millis(1));
    assert_eq!(bench.forwarded.len(), 2);
    bench.pass(Duration::from_millis(1));

    assert_eq!(bench.diverted, [DiversionCause::NoAnswer]);
    assert_eq!(bench.uris()[2..], ["sip:no-answer@example.com"], "the phone of less q is not tried");
    assert_eq!(bench.cancelled(), [0], "the other has not answered: its CANCEL waits");
    let reason = values(&bench.cancels[0].request, "Reason");
    assert_eq!(reason, ["SIP;cause=408;text=\"No answer, call forwarded\""]);
    bench.answer(0, 603);
    bench.answer(2, 180);
    bench.answer(1, 180);
    assert_eq!(bench.cancelled(), [0, 1]);
    bench.answer(2, 486);
    assert!(bench.statuses().iter().all(|&status| status == 180));
    bench.answer(1, 487);
    assert_eq!(bench.statuses().last(), Some(&486), "a refusal of the destination says most");
    assert_eq!(bench.proxy.poll_timeout(), None);
}

#[test]
fn a_phone_that_answers_while_it_is_cancelled_has_the_call() {
    let mut bench = inviting(&[1000]);
    bench.answer(0, 180);
    bench.pass(AFTER);
    bench.answer(1, 180);

    bench.answer(0, 200);

    assert_eq!(bench.statuses(), [180, 180, 200]);
    assert_eq!(bench.cancelled(), [0, 1]);
}

#[test]
fn a_call_goes_on_when_no_phone_is_reached() {
    let mut bench = inviting(&[1000, 1000, 500]);

    bench.answer(0, 480);
    bench.fail(1, BranchFailure::Transport);
    assert_eq!(bench.uris()[2..], ["sip:d2@192.0.2.9"], "lower q before any forwarding");
    bench.fail(2, BranchFailure::Timeout);

    assert_eq!(bench.diverted, [DiversionCause::NotReachable]);
    assert_eq!(bench.uris()[3..], ["sip:away@example.com"]);
}

#[test]
fn a_phone_that_rang_and_gave_up_by_itself_has_not_answered() {
    let mut bench = inviting(&[1000]);

    bench.answer(0, 180);
    bench.answer(0, 480);

    assert_eq!(bench.diverted, [DiversionCause::NoAnswer]);
}

#[test]
fn any_other_refusal_is_the_callers() {
    let mut bench = inviting(&[1000, 1000]);

    bench.answer(0, 480);
    bench.answer(1, 488);

    assert_eq!((bench.forwarded.len(), bench.statuses()), (2, vec![488]));
}

#[test]
fn a_call_is_sent_on_once() {
    let mut bench = inviting(&[1000]);

    bench.answer(0, 486);
    bench.answer(1, 480);

    assert_eq!((bench.diverted.len(), bench.forwarded.len()), (1, 2));
    assert_eq!(bench.statuses(), [486]);
}

#[test]
fn where_nothing_is_wished_the_best_response_goes_back() {
    let mut bench = calling(&[1000], "Max-Forwards: 70", Diversions::default());
    bench.answer(0, 486);
    assert_eq!(bench.statuses(), [486]);

    let only_busy = Diversions { busy: Some(to("busy")), ..Diversions::default() };
    let mut bench = calling(&[1000], "Max-Forwards: 70", only_busy);
    bench.answer(0, 480);
    assert_eq!(bench.statuses(), [480]);
}

#[test]
fn a_caller_that_cancels_is_not_sent_on() {
    let mut bench = inviting(&[1000]);
    bench.answer(0, 180);

    bench.cancel();
    bench.pass(AFTER);
    bench.answer(0, 486);

    assert_eq!((bench.forwarded.len(), bench.statuses()), (1, vec![180, 486]));
}

#[test]
fn a_message_is_never_sent_on() {
    let mut bench = Bench::new();
    let message = request("MESSAGE", "Max-Forwards: 70");
    let diversions = Some(Box::new(everywhere()));

    bench.start(Incoming { diversions, ..incoming(&message, targets(&[1000])) });
    bench.answer(0, 486);

    assert_eq!((bench.forwarded.len(), bench.statuses()), (1, vec![486]));
}

#[test]
fn the_latest_diversion_stands_on_top_rfc_5806() {
    let mut bench = calling(&[1000], "Diversion: <sip:al@example.com>;reason=unconditional", everywhere());

    bench.answer(0, 486);

    let expected = ["<sip:bob@example.com>;reason=busy", "<sip:al@example.com>;reason=unconditional"];
    assert_eq!(values(&bench.forwarded[1].request, "Diversion"), expected);
    assert_eq!(values(&bench.forwarded[0].request, "Diversion").len(), 1);
}

#[test]
fn with_a_max_breadth_of_one_the_destination_waits_for_the_end_of_the_phone() {
    let mut bench = calling(&[1000], "Max-Breadth: 1", everywhere());
    bench.answer(0, 180);

    bench.pass(AFTER);
    assert_eq!(bench.forwarded.len(), 1);
    bench.answer(0, 487);

    assert_eq!(bench.uris()[1..], ["sip:no-answer@example.com"]);
}
