//! When the other pool takes over, and when not.

use super::*;

#[test]
fn a_partner_takes_over_when_its_promise_has_aged_the_beat_stood_still_and_the_owner_was_silent() {
    let mut rig = Rig::watcher();

    rig.watch_until(10_999);
    assert!(!rig.has_change(), "10 s after the last promise, not before");
    rig.watch_until(11_000);
    let (_, expected, record) = rig.change();
    assert_eq!((expected, record), (Some(RecordVersion(6)), OwnershipRecord::first_of(taken_over(1))));
    rig.swap(11_050, 7);

    let authority = Authority { epoch: Epoch::new(1), until: at(16_000), service: Service::Resiliency };
    assert_eq!(rig.machine.standing(at(11_051)), Standing::Serving(authority));
    let answer = rig.asked(11_100, Ask::Promise { tenure: at_home(0) });
    assert_eq!(answer.verdict, Verdict::Refused { reason: Refusal::StaleEpoch });
    assert_eq!(answer.known, Some(taken_over(1)));
}

#[test]
fn a_partner_that_gives_promises_does_not_take_over_though_the_beat_stands_still() {
    let mut rig = Rig::watcher();
    for second in 2..60 {
        rig.wait(second * 1_000);
        rig.answer_read(second * 1_000 + 10, Some(stored(at_home(0), 5, 6)));
        assert!(!rig.has_change());
        rig.asked_promise(second * 1_000 + 20, at_home(0));
    }
    assert_eq!(
        rig.machine.standing(at(59_100)),
        Standing::Elsewhere { tenure: at_home(0), contact: Contact::Heard }
    );
}

#[test]
fn a_partner_that_sees_beats_does_not_take_over_though_it_gave_no_promise() {
    let mut rig = Rig::watcher();
    for second in 2..60 {
        rig.wait(second * 1_000);
        rig.answer_read(second * 1_000 + 10, Some(stored(at_home(0), second + 10, second + 11)));
        assert!(!rig.has_change());
    }
    let contact = Contact::Beating;
    assert_eq!(rig.machine.standing(at(59_100)), Standing::Elsewhere { tenure: at_home(0), contact });
}

#[test]
fn a_partner_without_witness_never_takes_over_and_says_so() {
    let mut rig = Rig::watcher();
    for second in 2..60 {
        rig.wait(second * 1_000);
        assert!(!rig.has_change());
    }
    let contact = Contact::Silent { takeover_in: None };
    assert_eq!(rig.machine.standing(at(59_100)), Standing::Elsewhere { tenure: at_home(0), contact });
}

#[test]
fn a_silent_owner_gives_phones_the_time_left_until_the_takeover() {
    let mut rig = Rig::watcher();
    rig.watch_until(7_000);
    let contact = Contact::Silent { takeover_in: Some(Duration::from_secs(4)) };
    assert_eq!(rig.machine.standing(at(7_000)), Standing::Elsewhere { tenure: at_home(0), contact });
}

#[test]
fn a_promise_is_refused_while_the_takeover_is_under_way_and_given_when_it_failed() {
    let mut rig = Rig::watcher();
    rig.watch_until(11_000);
    let (request, ..) = rig.change();

    let refused = Verdict::Refused { reason: Refusal::TakingOver };
    assert_eq!(rig.asked_promise(11_010, at_home(0)), refused);
    rig.give(11_020, Input::SwapRefused { request, found: Some(stored(at_home(0), 6, 7)) });

    assert!(rig.has_event(&Event::TakeoverAbandoned { epoch: Epoch::new(1) }));
    assert_eq!(rig.asked_promise(11_030, at_home(0)), Verdict::Granted { epoch: Epoch::ZERO });
}

#[test]
fn a_takeover_that_succeeded_unnoticed_waits_for_the_promises_given_meanwhile() {
    let mut rig = Rig::watcher();
    rig.watch_until(11_000);
    let (request, ..) = rig.change();
    rig.give(12_000, Input::WitnessFailed { request });
    rig.asked_promise(12_500, at_home(0));

    rig.wait(13_000);
    rig.answer_read(13_010, Some(stored(taken_over(1), 0, 7)));
    rig.swap(13_030, 8);

    let free_at = 12_500 + 5_302; // TTL x 1.01 / 0.99 + 200 ms, rounded up
    assert_eq!(rig.until(13_040), None);
    for now in [14_030_u64, 15_030, 16_030, 17_030, free_at - 1] {
        rig.wait(now);
        if rig.has_change() {
            rig.swap(now + 1, now);
        }
        assert_eq!(rig.until(now), None, "{now}");
    }
    assert!(rig.until(free_at).is_some());
}

#[test]
fn the_old_owners_word_frees_the_new_one_from_its_promises_after_the_margin() {
    let mut rig = Rig::watcher();
    rig.watch_until(11_000);
    let (request, ..) = rig.change();
    rig.give(12_000, Input::WitnessFailed { request });
    rig.asked_promise(12_500, at_home(0));
    rig.wait(13_000);
    rig.answer_read(13_010, Some(stored(taken_over(1), 0, 7)));

    rig.grant(13_040, taken_over(1));

    assert_eq!(rig.until(13_239), None);
    assert_eq!(rig.until(13_240), Some(at(18_010)));
    assert_eq!(rig.machine.poll_timeout(), Some(at(13_240)));
}

#[test]
fn a_word_asked_for_before_the_last_promise_frees_nobody() {
    let mut rig = Rig::new(PARTNER, Some(taken_over(3)));
    let (early, ask) = rig.question();
    let read = rig.read();
    assert_eq!(ask, Ask::Promise { tenure: taken_over(3) });
    rig.asked_promise(100, at_home(4));
    rig.give(200, Input::RecordRead { request: read, found: Some(stored(taken_over(5), 0, 9)) });
    rig.swap(250, 10);

    let answer = PromiseAnswer { known: Some(taken_over(5)), verdict: Verdict::Observed };
    rig.give(300, Input::PartnerAnswered { request: early, answer });

    assert_eq!(rig.until(1_000), None, "the promise of 100 ms binds: the word may be older");
}

#[test]
fn an_unable_partner_does_not_take_over() {
    let mut rig = Rig::watcher();
    rig.give(1_100, Input::AbilityChanged { is_able: false });
    rig.watch_until(60_000);
    assert!(!rig.has_change());
}

#[test]
fn a_beat_from_before_the_owner_died_does_not_send_phones_to_it_but_one_long_after_does() {
    let contact = |rig: &Rig, millis| {
        let Standing::Elsewhere { contact, .. } = rig.machine.standing(at(millis)) else { panic!("owner") };
        contact
    };
    let mut rig = Rig::watcher(); // heard at 1 s
    rig.wait(2_000);
    rig.answer_read(2_000, Some(stored(at_home(0), 6, 7)));
    assert!(matches!(contact(&rig, 4_200), Contact::Silent { .. }), "it may have died at 1 s");

    for (millis, beat) in [(3_000, 7), (4_100, 8)] {
        rig.wait(millis);
        rig.answer_read(millis, Some(stored(at_home(0), beat, beat + 1)));
    }
    assert_eq!(contact(&rig, 4_200), Contact::Beating, "only the way between the pools is cut");
}
