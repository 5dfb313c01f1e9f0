//! How the users return to their home pool.

use super::*;

#[test]
fn a_partner_returns_the_users_after_the_hold_and_stops_first() {
    let mut rig = Rig::successor();
    let nearly = hold(&mut rig, 131);
    assert_eq!(nearly, Verdict::ReturnNoted { hold_left: Duration::from_secs(1) });
    assert!(rig.until(131_200).is_some());

    hold_once(&mut rig, 132_100);

    let stop = rig.outputs.iter().position(|output| *output == Output::Authority(None)).unwrap();
    let change =
        rig.outputs.iter().position(|output| matches!(output, Output::CompareAndSet { .. })).unwrap();
    assert!(stop < change, "{:?}", rig.outputs);
    assert_eq!(rig.change().2, OwnershipRecord::first_of(at_home(2)));
    rig.swap(132_200, 500);
    assert_eq!(rig.asked_promise(132_210, at_home(2)), Verdict::Granted { epoch: Epoch::new(2) });
}

#[test]
fn a_pause_in_the_home_pools_asking_starts_the_hold_again() {
    let mut rig = Rig::successor();
    hold(&mut rig, 100);
    rig.wait(106_000);
    let verdict = rig.asked(106_500, Ask::Return { known: taken_over(1) }).verdict;
    assert_eq!(verdict, Verdict::ReturnNoted { hold_left: Duration::from_secs(120) });
}

#[test]
fn a_return_without_answer_is_given_up_and_old_promises_stay_void() {
    let mut rig = Rig::successor();
    hold(&mut rig, 131);
    rig.wait(132_100);
    let (old_promise, _) = rig.question();
    let (change, ..) = rig.change();
    rig.give(132_120, Input::Swapped { request: change, version: RecordVersion(400) });
    rig.asked(132_130, Ask::Return { known: taken_over(1) });
    assert_eq!(rig.until(132_140), None);

    rig.wait(134_130);
    assert!(rig.has_event(&Event::ReturnAbandoned { epoch: Epoch::new(2) }));
    let answer =
        PromiseAnswer { known: Some(taken_over(1)), verdict: Verdict::Granted { epoch: Epoch::new(1) } };
    let (new_promise, _) = rig.question();
    rig.give(134_140, Input::PartnerAnswered { request: old_promise, answer: answer.clone() });
    assert_eq!(rig.until(134_141), None);
    rig.give(134_150, Input::PartnerAnswered { request: new_promise, answer });
    assert_eq!(rig.until(134_151), Some(at(139_130)));
}

#[test]
fn what_a_command_took_over_does_not_return_by_itself() {
    let failed_over = tenure(PARTNER, 1, PoolState::FailedOver);
    let mut rig = Rig::new(PARTNER, Some(failed_over.clone()));
    let (promise, _) = rig.question();
    rig.answer_read(20, Some(stored(failed_over.clone(), 3, 9)));
    rig.swap(30, 10);
    let verdict = Verdict::Granted { epoch: Epoch::new(1) };
    let answer = PromiseAnswer { known: Some(failed_over.clone()), verdict };
    rig.give(40, Input::PartnerAnswered { request: promise, answer });
    assert_eq!(rig.machine.authority(at(400)).map(|authority| authority.service), Some(Service::Full));

    assert_eq!(rig.asked(500, Ask::Return { known: failed_over }).verdict, Verdict::Observed);
}

#[test]
fn an_owner_that_learns_of_its_successor_stops_before_it_answers() {
    let mut rig = Rig::owner();

    let verdict = rig.asked_promise(1_000, taken_over(1));

    assert_eq!(verdict, Verdict::Granted { epoch: Epoch::new(1) });
    let stop = rig.outputs.iter().position(|output| *output == Output::Authority(None)).unwrap();
    let answer = rig.outputs.iter().position(|output| matches!(output, Output::Answer { .. })).unwrap();
    assert!(stop < answer, "{:?}", rig.outputs);
}

/// Lets the successor hear the home pool's wish once a second, with both leases held, up to `end`.
fn hold(rig: &mut Rig, end: u64) -> Verdict {
    let mut verdict = Verdict::Observed;
    for (version, second) in (8..).zip(12..=end) {
        let now = second * 1_000 + 100;
        rig.wait(now);
        if !rig.has_change() {
            break;
        }
        let (change, ..) = rig.change();
        rig.grant(now + 10, taken_over(1));
        rig.give(now + 20, Input::Swapped { request: change, version: RecordVersion(version) });
        verdict = rig.asked(now + 30, Ask::Return { known: taken_over(1) }).verdict;
    }
    verdict
}

fn hold_once(rig: &mut Rig, now: u64) {
    rig.wait(now);
    let (change, ..) = rig.change();
    rig.grant(now + 10, taken_over(1));
    rig.give(now + 20, Input::Swapped { request: change, version: RecordVersion(400) });
    rig.asked(now + 30, Ask::Return { known: taken_over(1) });
}
