//! Who may serve for how long: starts, leases, restarts.

use super::*;

#[test]
fn the_first_start_creates_the_record_and_serves_from_the_beginning_of_the_request() {
    let mut rig = Rig::new(HOME, None);
    assert_eq!(rig.machine.standing(at(10)), Standing::Unknown);

    rig.answer_read(20, None);
    let (_, expected, record) = rig.change();
    assert_eq!((expected, record), (None, OwnershipRecord::first_of(at_home(0))));
    rig.swap(40, 1);

    assert_eq!(rig.until(41), Some(at(5_020)), "the request began at 20 ms");
    assert!(rig.outputs.contains(&Output::Remember(at_home(0))));
    let authority = Authority { epoch: Epoch::ZERO, until: at(5_020), service: Service::Full };
    assert!(rig.outputs.contains(&Output::Authority(Some(authority))));
}

#[test]
fn two_servers_that_create_the_first_record_at_once_agree_on_the_one_stored() {
    let mut rig = Rig::new(HOME, None);
    rig.answer_read(20, None);
    let (request, ..) = rig.change();

    rig.give(40, Input::SwapRefused { request, found: Some(stored(at_home(0), 0, 1)) });

    assert_eq!(rig.machine.known(), Some(&at_home(0)));
    assert_eq!(rig.until(41), None, "a record found is no lease");
    rig.swap(60, 2);
    assert_eq!(rig.until(61), Some(at(5_040)));
}

#[test]
fn the_promise_of_the_partner_alone_keeps_an_owner_serving_while_the_witness_is_down() {
    let mut rig = Rig::owner();
    for second in 1..60 {
        let now = 40 + second * 1_000;
        rig.wait(now);
        rig.grant(now + 30, at_home(0));
        assert_eq!(rig.until(now + 31), Some(at(now + 5_000)));
    }
}

#[test]
fn the_witness_alone_keeps_an_owner_serving_while_the_partner_is_down() {
    let mut rig = Rig::owner();
    for second in 1..60 {
        let now = 40 + second * 1_000;
        rig.wait(now);
        rig.swap(now + 30, 1 + second);
        assert_eq!(rig.until(now + 31), Some(at(now + 5_000)));
    }
}

#[test]
fn an_owner_cut_off_from_both_stops_when_its_lease_ends() {
    let mut rig = Rig::owner();

    assert!(rig.until(5_019).is_some());
    assert_eq!(rig.until(5_020), None, "whether or not anybody called the machine");
    assert_eq!(rig.machine.standing(at(5_020)), Standing::Paused(at_home(0)));

    let due = rig.machine.poll_timeout().unwrap();
    assert!(due <= at(5_020));
    rig.wait(5_020);
    assert!(rig.outputs.contains(&Output::Authority(None)));
    assert!(rig.has_event(&Event::ServingEnded { epoch: Epoch::ZERO }));
}

#[test]
fn an_answer_that_took_longer_than_the_lease_gives_none_and_one_that_came_late_the_rest() {
    let mut rig = Rig::owner();
    rig.wait(1_040);
    let (slow, _) = rig.question();
    let granted = |request| Input::PartnerAnswered {
        request,
        answer: PromiseAnswer { known: Some(at_home(0)), verdict: Verdict::Granted { epoch: Epoch::ZERO } },
    };
    let (late, ..) = rig.change();

    rig.give(5_900, granted(slow));
    assert_eq!(rig.until(5_901), Some(at(6_040)), "140 ms are left of the request of 1.04 s");
    rig.give(6_100, Input::Swapped { request: late, version: RecordVersion(2) });
    assert_eq!(rig.until(6_101), None);
    rig.give(6_200, granted(slow));
    assert_eq!(rig.until(6_201), None, "the second copy of an answer changes nothing");
}

#[test]
fn a_restarted_partner_waits_as_if_it_had_given_a_promise_at_its_start() {
    let mut rig = Rig::new(PARTNER, Some(at_home(2)));
    let mut began = None;
    for tenth in 1..150 {
        rig.wait(tenth * 100);
        if rig.has_change() {
            began.get_or_insert(tenth * 100);
            break;
        }
        if rig.outputs.iter().any(|output| matches!(output, Output::Read { .. })) {
            rig.answer_read(tenth * 100, Some(stored(at_home(2), 70, 99)));
        }
    }
    assert_eq!(began, Some(10_000));
}

#[test]
fn a_restarted_owner_of_a_later_epoch_serves_after_the_partners_word_or_the_wait() {
    for has_word in [true, false] {
        let mut rig = Rig::new(HOME, Some(at_home(2)));
        let (question, _) = rig.question();
        rig.answer_read(20, Some(stored(at_home(2), 70, 99)));
        rig.swap(40, 100);
        assert_eq!(rig.until(50), None);
        if has_word {
            let verdict = Verdict::Granted { epoch: Epoch::new(2) };
            let answer = PromiseAnswer { known: Some(at_home(2)), verdict };
            rig.give(60, Input::PartnerAnswered { request: question, answer });
            assert_eq!(rig.until(260), Some(at(5_020)));
        } else {
            rig.wait(4_000);
            rig.swap(4_010, 101);
            assert_eq!(rig.until(5_301), None);
            assert_eq!(rig.until(5_302), Some(at(9_000)));
        }
    }
}

#[test]
fn a_home_pool_that_starts_without_witness_learns_its_epoch_from_the_partner() {
    let mut rig = Rig::new(HOME, None);
    let (request, ask) = rig.question();
    assert_eq!(ask, Ask::Observe { known: None });
    let answer = PromiseAnswer { known: Some(at_home(4)), verdict: Verdict::Observed };
    rig.give(30, Input::PartnerAnswered { request, answer });
    assert_eq!(rig.question().1, Ask::Promise { tenure: at_home(4) });
    rig.grant(60, at_home(4));

    assert_eq!(
        rig.until(230),
        Some(at(5_030)),
        "the word of 30 ms, the margin, and the promise asked at 30 ms"
    );
}

#[test]
fn two_pools_that_start_without_witness_agree_on_what_either_remembers() {
    let mut home = Rig::new(HOME, Some(taken_over(3)));
    assert_eq!(home.question().1, Ask::Return { known: taken_over(3) });
    let mut partner = Rig::new(PARTNER, Some(at_home(2)));

    let answer = partner.asked(10, Ask::Return { known: taken_over(3) });

    assert_eq!(answer.known, Some(taken_over(3)));
    assert_eq!(partner.question().1, Ask::Promise { tenure: taken_over(3) });
    assert_eq!(home.asked_promise(20, taken_over(3)), Verdict::Granted { epoch: Epoch::new(3) });
}

#[test]
fn an_unable_owner_stops_and_renews_nothing_until_it_is_able() {
    let mut rig = Rig::owner();
    rig.wait(1_040);
    let (old_change, ..) = rig.change();

    rig.give(1_100, Input::AbilityChanged { is_able: false });
    assert!(rig.outputs.contains(&Output::Authority(None)));
    rig.give(1_110, Input::Swapped { request: old_change, version: RecordVersion(2) });
    rig.wait(2_500);
    assert!(!rig.has_change() && rig.until(2_500).is_none());

    rig.give(3_000, Input::AbilityChanged { is_able: true });
    rig.swap(3_020, 3);
    assert_eq!(rig.until(3_021), Some(at(8_000)));
}

#[test]
fn an_emptied_witness_gets_its_record_from_the_owner_that_holds_the_partners_promise() {
    let mut rig = Rig::owner();
    rig.wait(1_040);
    rig.grant(1_060, at_home(0));
    rig.wait(2_060);
    let (request, ..) = rig.change();
    rig.give(2_080, Input::SwapRefused { request, found: None });
    rig.answer_read(2_100, None);

    assert!(rig.has_event(&Event::WitnessBehind { stored: None, known: Epoch::ZERO }));
    let (_, expected, record) = rig.change();
    assert_eq!((expected, record.tenure()), (None, at_home(0)));
}

#[test]
fn an_onlooker_never_serves_and_sends_phones_to_the_owner() {
    let parties = Parties::at_partner(name(HOME), name(PARTNER));
    let mut machine = Ownership::unwitnessed(parties, Settings::default(), at(0), None);
    machine.handle_timeout(at(60_000));
    assert_eq!((machine.poll_output(), machine.poll_timeout()), (None, None));
    let standing = Standing::Elsewhere { tenure: at_home(0), contact: Contact::Beating };
    assert_eq!(machine.standing(at(60_000)), standing);
}
