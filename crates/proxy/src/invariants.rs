//! What holds for every fork, whatever happens.

use std::time::Duration;

use proptest::prelude::*;

use crate::{
    BranchFailure, Diversions, Incoming, NoAnswer, Settings, Target,
    testing::{Bench, Sent, incoming, reply, request, target},
};

/// Something that happens to a forwarded request. Numbers name branches, modulo how many there are.
#[derive(Clone, Debug)]
enum Event {
    Response(usize, u16),
    Failure(usize, BranchFailure),
    Cancel,
    ServerFinished,
    Redirect(usize, u8),
    Time(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let status = prop_oneof![
        Just(100_u16),
        101_u16..200,
        200_u16..300,
        300_u16..400,
        400_u16..500,
        500_u16..600,
        600_u16..700,
        prop::sample::select(vec![180, 200, 401, 407, 408, 430, 487, 503, 603]),
    ];
    let failure = prop::sample::select(vec![
        BranchFailure::Timeout,
        BranchFailure::Transport,
        BranchFailure::Unreachable,
        BranchFailure::Full,
    ]);
    prop_oneof![
        12 => (0_usize..12, status).prop_map(|(branch, status)| Event::Response(branch, status)),
        3 => (0_usize..12, failure).prop_map(|(branch, failure)| Event::Failure(branch, failure)),
        1 => Just(Event::Cancel),
        1 => Just(Event::ServerFinished),
        2 => (0_usize..12, 0_u8..3).prop_map(|(branch, contacts)| Event::Redirect(branch, contacts)),
        2 => (1_u64..200).prop_map(Event::Time),
    ]
}

fn fork() -> impl Strategy<Value = Vec<Target>> {
    let one = (0_u16..3, prop::option::of(0_u64..2));
    prop::collection::vec(one, 1..8).prop_map(|targets| {
        let make = |(number, (q, device)): (usize, (u16, Option<u64>))| Target {
            device,
            ..target(&format!("sip:d{number}@192.0.2.9"), q * 500)
        };
        targets.into_iter().enumerate().map(make).collect()
    })
}

/// Which of the three diversions there are, and after how many seconds nobody has answered.
fn diversions() -> impl Strategy<Value = Option<Box<Diversions>>> {
    let one = |name: &'static str| prop::option::of(Just(target(name, 0)));
    let no_answer = prop::option::of((5_u64..120).prop_map(|seconds| NoAnswer {
        after: Duration::from_secs(seconds),
        target: target("sip:n@192.0.2.9", 0),
    }));
    let all = (one("sip:b@192.0.2.9"), no_answer, one("sip:u@192.0.2.9"));
    prop::option::of(
        all.prop_map(|(busy, no_answer, not_reachable)| {
            Box::new(Diversions { busy, no_answer, not_reachable })
        }),
    )
}

fn apply(bench: &mut Bench, event: &Event) {
    let branches = bench.forwarded.len();
    match *event {
        Event::Response(branch, status) => bench.answer(branch % branches, status),
        Event::Failure(branch, failure) => bench.fail(branch % branches, failure),
        Event::Cancel => bench.cancel(),
        Event::ServerFinished => bench.server_finished(),
        Event::Redirect(branch, contacts) => {
            if let Some(&branch) = bench.redirected.get(branch) {
                let new = (0..contacts).map(|n| target(&format!("sip:r{n}@192.0.2.9"), 700)).collect();
                bench.proxy.redirect(bench.now, branch, new, &[]);
                bench.drain();
            }
        }
        Event::Time(seconds) => bench.pass(Duration::from_secs(seconds)),
    }
}

/// No more than Max-Breadth branches at once, one flow of a device at a time, one CANCEL for each branch.
fn check_always(bench: &Bench) {
    let finals: Vec<u16> = bench.statuses().into_iter().filter(|&status| status >= 200).collect();
    let is_one_refusal = finals.len() <= 1;
    let is_all_2xx = finals.iter().all(|status| (200..300).contains(status));
    assert!(is_one_refusal || is_all_2xx, "{finals:?}");
    if let Some(first_final) = bench.statuses().iter().position(|&status| status >= 200) {
        let after = &bench.statuses()[first_final..];
        assert!(
            after.iter().all(|&status| status >= 200),
            "a provisional response after a final one: {after:?}"
        );
    }
    let mut cancelled: Vec<_> = bench.cancels.iter().map(|cancel| cancel.branch).collect();
    cancelled.sort_unstable();
    cancelled.dedup();
    assert_eq!(cancelled.len(), bench.cancels.len(), "two CANCELs for one branch");
    assert!(!bench.statuses().contains(&100));
    assert!(bench.diverted.len() <= 1, "diverted twice");
}

/// Lets everything run out as the transactions would: what got no final response times out.
fn run_out(bench: &mut Bench) {
    for _ in 0..40 {
        for number in 0..bench.forwarded.len() {
            bench.fail(number, BranchFailure::Timeout);
        }
        bench.pass(Duration::from_secs(240));
        check_always(bench);
    }
}

fn check_end(bench: &Bench, server_is_gone: bool, is_invite: bool) {
    let finals = bench.statuses().iter().filter(|&&status| status >= 200).count();
    if is_invite && !server_is_gone {
        assert!(finals >= 1, "an INVITE is always answered");
    }
    if !is_invite {
        assert!(finals <= 1);
        assert_eq!(bench.cancels.len(), 0);
        assert!(bench.statuses().iter().all(|&status| status >= 200 && status != 408));
    }
    assert_eq!(bench.finished, 1);
    assert!(bench.proxy.is_empty());
    assert_eq!(bench.proxy.poll_timeout(), None);
}

fn run(
    is_invite: bool,
    (recurse, breadth): (bool, u32),
    fork: Vec<Target>,
    diversions: Option<Box<Diversions>>,
    events: &[Event],
) {
    let method = if is_invite { "INVITE" } else { "MESSAGE" };
    let mut bench = Bench::with(Settings { recurse, ..Settings::default() });
    let request = request(method, &format!("Max-Breadth: {breadth}"));
    bench.start(Incoming { diversions, ..incoming(&request, fork) });
    let mut server_is_gone = false;
    for event in events {
        let before = bench.statuses().len();
        apply(&mut bench, event);
        check_always(&bench);
        assert!(
            !server_is_gone || bench.statuses().len() == before,
            "a response without a server transaction"
        );
        server_is_gone |= matches!(event, Event::ServerFinished);
    }
    run_out(&mut bench);
    check_end(&bench, server_is_gone, is_invite);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn an_invite_gets_one_refusal_or_2xx_only_and_its_context_ends(
        recurse: bool, breadth in 1_u32..6, fork in fork(), diversions in diversions(),
        events in prop::collection::vec(event(), 0..40),
    ) {
        run(true, (recurse, breadth), fork, diversions, &events);
    }

    #[test]
    fn another_request_gets_one_final_response_at_most_and_its_context_ends(
        recurse: bool, breadth in 1_u32..6, fork in fork(), diversions in diversions(),
        events in prop::collection::vec(event(), 0..40),
    ) {
        run(false, (recurse, breadth), fork, diversions, &events);
    }

    #[test]
    fn branches_at_once_never_exceed_max_breadth(
        breadth in 1_u32..6, fork in fork(), order in prop::collection::vec(any::<prop::sample::Index>(), 64),
    ) {
        let mut bench = Bench::new();
        bench.start(incoming(&request("INVITE", &format!("Max-Breadth: {breadth}")), fork));
        let mut open: Vec<Sent> = Vec::new();
        let mut seen = 0;
        for index in order {
            open.extend(bench.forwarded[seen..].iter().cloned());
            seen = bench.forwarded.len();
            let sum: u32 = open.iter().map(|sent| {
                let value = sent.request.view().header(sip::HeaderId::MaxBreadth).unwrap();
                std::str::from_utf8(value).unwrap().parse::<u32>().unwrap()
            }).sum();
            prop_assert!(sum <= breadth, "{sum} of {breadth}");
            if open.is_empty() {
                break;
            }
            let ended = open.swap_remove(index.index(open.len()));
            bench.proxy.response(bench.now, ended.branch, &reply(&ended.request, 404, &[]));
            bench.drain();
        }
        prop_assert_eq!(bench.statuses(), vec![404]);
    }
}
