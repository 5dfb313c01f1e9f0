//! Operators' orders, and the drained handover that they lead to.

use super::*;

/// A home pool that owns epoch 0 with both promises in hand, looked at at 1.1 s; the record has version 2.
fn ready_owner() -> Rig {
    let mut rig = Rig::owner();
    rig.wait(1_040);
    let (change, ..) = rig.change();
    rig.grant(1_060, at_home(0));
    rig.give(1_070, Input::Swapped { request: change, version: RecordVersion(2) });
    rig
}

/// A home pool whose switchover (order 1) is in the record since 1.12 s, version 3.
fn failing_over() -> Rig {
    let mut rig = ready_owner();
    rig.order(1_100, order(1, OrderKind::Switchover, 0));
    let (_, expected, record) = rig.change();
    assert_eq!((expected, record.state), (Some(RecordVersion(2)), PoolState::FailingOver));
    rig.swap(1_120, 3);
    assert_eq!(rig.result(), OrderResult::Accepted { state: PoolState::FailingOver });
    rig
}

/// The same, stopped and waiting for the partner's confirmation since 1.2 s.
fn draining() -> (Rig, HandoverId) {
    let mut rig = failing_over();
    rig.give(1_200, Input::HandoverProgress { is_close: true });
    let stop = rig.outputs.iter().position(|output| *output == Output::Authority(None)).unwrap();
    let finish = rig.outputs.iter().position(|output| matches!(output, Output::FinishHandover { .. }));
    assert!(Some(stop) < finish, "{:?}", rig.outputs);
    let handover = rig.handover();
    (rig, handover)
}

fn service(rig: &Rig, millis: u64) -> Option<Service> {
    rig.machine.authority(at(millis)).map(|authority| authority.service)
}

#[test]
fn a_switchover_is_in_the_record_before_it_is_answered_and_the_home_pool_goes_on_serving() {
    let rig = failing_over();
    assert_eq!(service(&rig, 1_121), Some(Service::Full));
    assert!(rig.has_event(&Event::OperationBegan(order(1, OrderKind::Switchover, 0))));
    let known = rig.machine.known().unwrap();
    assert!(rig.outputs.contains(&Output::Remember(known.clone())));
}

#[test]
fn a_switchover_stops_drains_changes_the_owner_and_keeps_the_order() {
    let (mut rig, handover) = draining();
    assert!(!rig.has_change(), "nothing is asked of the witness before the partner confirmed");

    rig.give(1_300, Input::HandoverFinished { handover });

    let successor = Tenure {
        order: Some(order(1, OrderKind::Switchover, 0)),
        ..tenure(PARTNER, 1, PoolState::FailedOver)
    };
    let (_, expected, record) = rig.change();
    assert_eq!((expected, record), (Some(RecordVersion(3)), OwnershipRecord::first_of(successor.clone())));
    rig.swap(1_340, 4);
    assert!(rig.has_event(&Event::OperationCompleted(order(1, OrderKind::Switchover, 0))));
    assert_eq!(rig.question().1, Ask::Return { known: successor }, "the partner hears it at once");
    assert_eq!(rig.until(1_341), None);
}

#[test]
fn a_stop_that_is_not_confirmed_ends_with_the_old_leases_and_the_next_needs_a_new_report() {
    let (mut rig, handover) = draining();
    assert!(rig.machine.poll_timeout() <= Some(at(1_200 + 1_125)));

    rig.wait(2_325);

    assert!(rig.has_event(&Event::HandoverAbandoned { handover }));
    assert_eq!(service(&rig, 2_326), Some(Service::Full));
    rig.give(2_400, Input::HandoverFinished { handover });
    assert!(
        !rig.has_change() || rig.change().2.owner == name(HOME),
        "a late confirmation counts for nothing"
    );
    rig.give(2_500, Input::HandoverProgress { is_close: true });
    assert!(rig.machine.authority(at(2_500)).is_some(), "users are served for a while before the next stop");
}

#[test]
fn a_partner_that_cannot_confirm_gives_the_users_back_at_once() {
    let (mut rig, handover) = draining();
    rig.give(1_250, Input::HandoverFailed { handover });
    assert_eq!(service(&rig, 1_251), Some(Service::Full));
}

#[test]
fn after_a_change_of_owner_without_answer_documents_wait_for_the_witness() {
    let (mut rig, handover) = draining();
    rig.give(1_300, Input::HandoverFinished { handover });
    rig.wait(2_700);
    assert!(rig.has_event(&Event::HandoverAbandoned { handover }));
    assert_eq!(rig.until(2_701), None, "old leases are void");

    let (change, expected, _) = rig.change();
    assert_eq!(expected, Some(RecordVersion(3)));
    rig.grant(2_720, at_home(0));
    assert_eq!(service(&rig, 2_721), Some(Service::Resiliency), "the change may still reach the witness");
    rig.give(2_730, Input::Swapped { request: change, version: RecordVersion(4) });
    assert_eq!(service(&rig, 2_731), Some(Service::Full));
}

#[test]
fn an_operation_that_cannot_end_is_undone_after_its_time_and_says_why() {
    let mut rig = failing_over();
    for (version, second) in (4..).zip(2..=61) {
        let now = second * 1_000 + 100;
        rig.wait(now);
        let (change, _, record) = rig.change();
        assert_eq!(record.state, PoolState::FailingOver);
        rig.grant(now + 10, rig.machine.known().unwrap().clone());
        rig.give(now + 20, Input::Swapped { request: change, version: RecordVersion(version) });
    }
    let (_, _, record) = rig.change();
    assert_eq!((record.state, record.undone), (PoolState::Active, Some(UndoReason::NotClose)));
    rig.swap(61_140, 100);
    assert_eq!(rig.machine.known().unwrap().undone, Some(UndoReason::NotClose));
}

#[test]
fn an_order_given_again_is_not_begun_again() {
    let mut rig = failing_over();
    rig.order(1_200, order(1, OrderKind::Switchover, 0));
    assert_eq!(rig.result(), OrderResult::Repeated { state: PoolState::FailingOver, undone: None });
    assert!(!rig.has_change());
}

#[test]
fn the_same_order_from_two_commands_at_once_is_one_order_with_two_answers() {
    let mut rig = ready_owner();
    rig.order(1_100, order(1, OrderKind::Switchover, 0));
    let (change, ..) = rig.change();
    rig.order(1_105, order(1, OrderKind::Switchover, 0));
    assert!(!rig.has_change());
    rig.give(1_120, Input::Swapped { request: change, version: RecordVersion(3) });
    assert_eq!(rig.results().len(), 2);
}

#[test]
fn a_second_operation_is_refused_with_the_first_one_named() {
    let mut rig = failing_over();
    rig.order(1_200, order(2, OrderKind::Failback, 0));
    let id = OrderId::new(1);
    let blockers = vec![OrderBlocker::OtherOperation { kind: OrderKind::Switchover, id }];
    assert_eq!(rig.result(), OrderResult::Refused { blockers });
}

#[test]
fn every_blocker_is_named_at_once() {
    let mut rig = Rig::owner();
    rig.order(6_000, order(1, OrderKind::Switchover, 7));
    let (planned, known) = (Epoch::new(7), Epoch::ZERO);
    let expected = vec![
        OrderBlocker::OtherEpoch { planned, known },
        OrderBlocker::PartnerUnheard,
        OrderBlocker::NotServing,
        OrderBlocker::NoWitness,
    ];
    assert_eq!(rig.result(), OrderResult::Refused { blockers: expected });
}

#[test]
fn an_order_at_the_wrong_pool_names_the_right_one() {
    let mut rig = Rig::watcher();
    rig.order(1_100, order(1, OrderKind::Switchover, 0));
    let blockers = vec![OrderBlocker::NotTheOwner { owner: name(HOME) }];
    assert_eq!(rig.result(), OrderResult::Refused { blockers });
    rig.order(1_200, order(2, OrderKind::Failback, 0));
    let blockers = vec![OrderBlocker::AlreadyDone { state: PoolState::Active }];
    assert_eq!(rig.result(), OrderResult::Refused { blockers });
}

#[test]
fn an_order_whose_fate_the_witness_does_not_tell_is_answered_as_unsure() {
    let mut rig = ready_owner();
    rig.order(1_100, order(1, OrderKind::Switchover, 0));
    for now in [2_000, 3_000, 4_000, 5_099] {
        rig.wait(now);
        assert_eq!(rig.results(), vec![]);
    }
    rig.wait(5_100);
    assert_eq!(rig.result(), OrderResult::Unsure);
}

#[test]
fn a_cancel_undoes_an_operation_even_while_the_pool_waits_for_the_confirmation() {
    let (mut rig, handover) = draining();
    rig.cancel(1_250, 1);
    assert!(rig.machine.authority(at(1_251)).is_some(), "it serves again at once");
    let (_, _, record) = rig.change();
    assert_eq!((record.state, record.undone), (PoolState::Active, Some(UndoReason::Cancelled)));
    rig.swap(1_280, 4);
    assert_eq!(rig.result(), OrderResult::Accepted { state: PoolState::Active });
    rig.give(1_290, Input::HandoverFinished { handover });
    assert!(!rig.has_change());

    rig.cancel(1_300, 1);
    let undone = Some(UndoReason::Cancelled);
    assert_eq!(rig.result(), OrderResult::Repeated { state: PoolState::Active, undone });
    rig.order(1_400, order(1, OrderKind::Switchover, 0));
    assert_eq!(rig.result(), OrderResult::Repeated { state: PoolState::Active, undone });
}

#[test]
fn a_cancel_comes_too_late_once_the_owner_is_being_changed() {
    let (mut rig, handover) = draining();
    rig.give(1_300, Input::HandoverFinished { handover });
    let (change, ..) = rig.change();
    rig.cancel(1_310, 1);
    let late = OrderResult::Refused { blockers: vec![OrderBlocker::TooLateToCancel] };
    assert_eq!(rig.result(), late);
    rig.give(1_340, Input::Swapped { request: change, version: RecordVersion(4) });
    rig.cancel(1_350, 1);
    assert_eq!(rig.result(), late);
    rig.cancel(1_360, 9);
    assert_eq!(rig.result(), OrderResult::Refused { blockers: vec![OrderBlocker::NothingToCancel] });
}

#[test]
fn a_home_pool_that_dies_while_failing_over_is_failed_over() {
    let moving =
        Tenure { order: Some(order(1, OrderKind::Switchover, 0)), ..tenure(HOME, 0, PoolState::FailingOver) };
    let mut rig = Rig::new(PARTNER, None);
    rig.answer_read(20, Some(stored(moving.clone(), 5, 6)));
    for second in 1..=10 {
        rig.wait(second * 1_000 + 20);
        if !rig.has_change() {
            rig.answer_read(second * 1_000 + 30, Some(stored(moving.clone(), 5, 6)));
        }
    }
    let (_, _, record) = rig.change();
    assert_eq!((record.state, record.order), (PoolState::FailedOver, moving.order));
}

#[test]
fn a_partner_that_dies_while_failing_back_leaves_the_users_at_home() {
    let order = Some(order(2, OrderKind::Failback, 1));
    let moving = Tenure { order: order.clone(), ..tenure(PARTNER, 1, PoolState::FailingBack) };
    let mut rig = Rig::new(HOME, None);
    rig.answer_read(20, Some(stored(moving.clone(), 5, 6)));
    for second in 1..=10 {
        rig.wait(second * 1_000 + 20);
        if !rig.has_change() {
            rig.answer_read(second * 1_000 + 30, Some(stored(moving.clone(), 5, 6)));
        }
    }
    let (_, _, record) = rig.change();
    assert_eq!((record.owner, record.state, record.order), (name(HOME), PoolState::Active, order));
}

#[test]
fn a_takeover_becomes_permanent_by_command_and_documents_writable() {
    let mut rig = Rig::successor();
    assert_eq!(service(&rig, 11_100), Some(Service::Resiliency));
    rig.order(11_100, order(1, OrderKind::Failover, 0));
    rig.swap(11_150, 8);
    assert_eq!(rig.result(), OrderResult::Accepted { state: PoolState::FailedOver });
    assert_eq!(service(&rig, 11_151), Some(Service::Full));
    assert_eq!(rig.machine.authority(at(11_151)).unwrap().epoch, Epoch::new(1));
}

#[test]
fn a_disaster_order_takes_over_as_soon_as_safety_allows_and_leads_to_failed_over() {
    let mut rig = Rig::watcher();
    rig.watch_until(5_000);
    rig.order(5_000, order(1, OrderKind::Failover, 0));
    let owner = name(HOME);
    let blockers =
        vec![OrderBlocker::NotTheOwner { owner: owner.clone() }, OrderBlocker::OwnerUnheard { owner }];
    assert_eq!(rig.result(), OrderResult::Refused { blockers });

    rig.order(5_100, order(2, OrderKind::Disaster, 0));
    assert_eq!(rig.results(), vec![], "the promise of 1 s binds until 6.302 s");
    rig.answer_read(5_110, Some(stored(at_home(0), 5, 6)));
    rig.wait(6_100);
    rig.answer_read(6_110, Some(stored(at_home(0), 5, 6)));
    rig.wait(6_301);
    assert!(!rig.has_change());
    rig.wait(6_303);
    let (_, _, record) = rig.change();
    assert_eq!((record.state, record.epoch), (PoolState::FailedOver, Epoch::new(1)));
    rig.swap(6_350, 7);
    assert_eq!(rig.result(), OrderResult::Accepted { state: PoolState::FailedOver });
    assert_eq!(service(&rig, 6_351), Some(Service::Full));
}

#[test]
fn a_disaster_order_is_refused_while_the_owner_is_heard() {
    let mut rig = Rig::watcher();
    rig.order(1_100, order(1, OrderKind::Disaster, 0));
    let blockers = vec![OrderBlocker::OwnerAlive { owner: name(HOME) }];
    assert_eq!(rig.result(), OrderResult::Refused { blockers });
}

#[test]
fn the_automatic_return_drains_when_the_home_pool_is_close_and_returns_without_its_word() {
    let mut rig = Rig::successor();
    rig.give(11_060, Input::HandoverProgress { is_close: true });
    for (version, second) in (8..).zip(12..=131) {
        let now = second * 1_000 + 100;
        rig.wait(now);
        let (change, ..) = rig.change();
        rig.grant(now + 10, taken_over(1));
        rig.give(now + 20, Input::Swapped { request: change, version: RecordVersion(version) });
        rig.asked(now + 30, Ask::Return { known: taken_over(1) });
    }
    rig.wait(132_100);
    let (change, ..) = rig.change();
    rig.give(132_120, Input::Swapped { request: change, version: RecordVersion(400) });
    rig.asked(132_130, Ask::Return { known: taken_over(1) });

    assert!(!rig.has_change() && rig.until(132_131).is_none());
    let _ = rig.handover();
    rig.wait(132_130 + 1_124);
    assert!(!rig.has_change());
    rig.wait(132_130 + 1_125);
    assert_eq!(rig.change().2, OwnershipRecord::first_of(at_home(2)), "bounded: an unhelpful home pool");
}
