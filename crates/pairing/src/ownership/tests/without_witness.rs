//! A pair without witness: the owner's word, and the operator's.

use super::*;

fn pair(me: &'static str, remembered: Option<Tenure>) -> Rig {
    let parties = if me == HOME {
        Parties::at_home(name(HOME), name(PARTNER))
    } else {
        Parties::at_partner(name(HOME), name(PARTNER))
    };
    let machine = Ownership::unwitnessed(parties, Settings::default(), at(0), remembered);
    let mut rig = Rig { machine, me, outputs: Vec::new() };
    rig.wait(0);
    rig
}

fn answer(rig: &mut Rig, millis: u64, known: Tenure) {
    let (request, ask) = rig.question();
    assert!(matches!(ask, Ask::Observe { .. }));
    let answer = PromiseAnswer { known: Some(known), verdict: Verdict::Observed };
    rig.give(millis, Input::PartnerAnswered { request, answer });
}

fn failed_over(epoch: u64) -> Tenure {
    tenure(PARTNER, epoch, PoolState::FailedOver)
}

#[test]
fn a_home_pool_without_witness_serves_when_its_partner_answered_or_after_its_patience() {
    for is_answered in [true, false] {
        let mut rig = pair(HOME, None);
        assert_eq!(rig.until(10), None);
        if is_answered {
            answer(&mut rig, 20, at_home(0));
            assert_eq!(rig.until(20), Some(Instant::NEVER_ENDS));
        } else {
            rig.wait(1_999);
            assert_eq!(rig.until(1_999), None);
            assert!(rig.machine.poll_timeout() <= Some(at(2_000)));
            rig.wait(2_000);
            assert_eq!(rig.until(2_000), Some(Instant::NEVER_ENDS));
        }
    }
}

#[test]
fn an_operators_disaster_order_raises_the_epoch_and_the_home_pool_stops_when_it_hears_of_it() {
    let mut partner = pair(PARTNER, None);
    partner.order(100, order(1, OrderKind::Disaster, 0));
    assert_eq!(partner.result(), OrderResult::Accepted { state: PoolState::FailedOver });
    let authority = partner.machine.authority(at(101)).unwrap();
    assert_eq!((authority.epoch, authority.service), (Epoch::new(1), Service::Full));

    let mut home = pair(HOME, Some(at_home(0)));
    home.wait(2_000);
    assert!(home.until(2_000).is_some());
    home.wait(3_000);
    answer(&mut home, 3_010, failed_over(1));
    assert_eq!(home.until(3_010), None);
    assert!(home.outputs.contains(&Output::Remember(failed_over(1))));
    assert!(matches!(home.machine.standing(at(3_011)), Standing::Elsewhere { .. }));
}

#[test]
fn a_disaster_order_without_witness_is_refused_while_the_home_pool_is_heard() {
    let mut rig = pair(PARTNER, None);
    rig.asked(100, Ask::Observe { known: Some(at_home(0)) });
    rig.order(200, order(1, OrderKind::Disaster, 0));
    let blockers = vec![OrderBlocker::OwnerAlive { owner: name(HOME) }];
    assert_eq!(rig.result(), OrderResult::Refused { blockers });
}

#[test]
fn a_failback_without_witness_drains_and_the_partner_stops_before_it_says_so() {
    let mut rig = pair(PARTNER, Some(failed_over(1)));
    answer(&mut rig, 20, failed_over(1));
    rig.order(100, order(1, OrderKind::Failback, 1));
    assert_eq!(rig.result(), OrderResult::Accepted { state: PoolState::FailingBack });
    assert!(rig.until(100).is_some());
    rig.give(200, Input::HandoverProgress { is_close: true });
    assert_eq!(rig.until(200), None);
    let handover = rig.handover();

    rig.give(300, Input::HandoverFinished { handover });

    let home = Tenure { order: Some(order(1, OrderKind::Failback, 1)), ..at_home(2) };
    assert_eq!(rig.machine.known(), Some(&home));
    assert_eq!(rig.question().1, Ask::Observe { known: Some(home.clone()) });
    let mut other = pair(HOME, Some(failed_over(1)));
    other.asked(350, Ask::Observe { known: Some(home.clone()) });
    assert_eq!(other.machine.authority(at(350)).unwrap().epoch, Epoch::new(2));
}

#[test]
fn a_handover_without_witness_that_is_not_confirmed_ends_and_the_operation_is_undone_in_time() {
    let mut rig = pair(HOME, None);
    answer(&mut rig, 20, at_home(0));
    rig.order(100, order(1, OrderKind::Switchover, 0));
    rig.give(200, Input::HandoverProgress { is_close: true });
    rig.wait(200 + 1_125);
    assert!(rig.until(1_326).is_some());
    rig.wait(60_100);
    let known = rig.machine.known().unwrap();
    assert_eq!((known.state, known.undone), (PoolState::Active, Some(UndoReason::NotHeard)));
}

#[test]
fn the_operation_under_way_survives_a_restart_without_witness() {
    let mut rig = pair(HOME, None);
    answer(&mut rig, 20, at_home(0));
    rig.order(100, order(1, OrderKind::Switchover, 0));
    let remembered = rig.machine.known().cloned();
    let mut again = pair(HOME, remembered.clone());
    answer(&mut again, 20, remembered.unwrap());
    again.order(100, order(1, OrderKind::Switchover, 0));
    assert_eq!(again.result(), OrderResult::Repeated { state: PoolState::FailingOver, undone: None });
    again.cancel(200, 1);
    assert_eq!(again.result(), OrderResult::Accepted { state: PoolState::Active });
}
