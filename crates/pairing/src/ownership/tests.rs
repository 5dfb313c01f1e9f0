use std::time::Duration;

use model::{Beat, Epoch, Instant, Machine, PoolName};

use crate::{
    Ask, Authority, CallId, Contact, Event, Input, Output, Ownership, OwnershipError, OwnershipRecord,
    Parties, PoolState, PromiseAnswer, PromiseRequest, RecordVersion, Refusal, RequestId, Service, Settings,
    Standing, StoredRecord, Tenure, Verdict,
};

const HOME: &str = "east";
const PARTNER: &str = "west";

fn name(text: &str) -> PoolName {
    PoolName::new(text).unwrap()
}

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1_000)
}

fn tenure(owner: &str, epoch: u64, state: PoolState) -> Tenure {
    Tenure { owner: name(owner), epoch: Epoch::new(epoch), state }
}

fn at_home(epoch: u64) -> Tenure {
    tenure(HOME, epoch, PoolState::Active)
}

fn taken_over(epoch: u64) -> Tenure {
    tenure(PARTNER, epoch, PoolState::TakenOver)
}

fn stored(tenure: Tenure, beat: u64, version: u64) -> StoredRecord {
    let record = OwnershipRecord { beat: Beat::new(beat), ..OwnershipRecord::first_of(tenure) };
    StoredRecord { version: RecordVersion(version), record }
}

/// A machine and what it asked for since it was last looked at.
struct Rig {
    machine: Ownership,
    me: &'static str,
    outputs: Vec<Output>,
}

impl Rig {
    fn new(me: &'static str, remembered: Option<Tenure>) -> Self {
        let parties = if me == HOME {
            Parties::at_home(name(HOME), name(PARTNER))
        } else {
            Parties::at_partner(name(HOME), name(PARTNER))
        };
        let machine = Ownership::paired(parties, Settings::default(), at(0), remembered);
        let mut rig = Self { machine, me, outputs: Vec::new() };
        rig.wait(0);
        rig
    }

    fn collect(&mut self) {
        self.outputs = std::iter::from_fn(|| self.machine.poll_output()).collect();
    }

    fn wait(&mut self, millis: u64) {
        self.machine.handle_timeout(at(millis));
        self.collect();
    }

    fn give(&mut self, millis: u64, input: Input) {
        self.machine.handle(at(millis), input).unwrap();
        self.collect();
    }

    fn read(&self) -> RequestId {
        let reads = self.outputs.iter().filter_map(|output| match output {
            Output::Read { request } => Some(*request),
            _ => None,
        });
        reads.last().unwrap_or_else(|| panic!("no read in {:?}", self.outputs))
    }

    fn change(&self) -> (RequestId, Option<RecordVersion>, OwnershipRecord) {
        let changes = self.outputs.iter().filter_map(|output| match output {
            Output::CompareAndSet { request, expected, record } => {
                Some((*request, *expected, record.clone()))
            }
            _ => None,
        });
        changes.last().unwrap_or_else(|| panic!("no change in {:?}", self.outputs))
    }

    fn question(&self) -> (RequestId, Ask) {
        let questions = self.outputs.iter().filter_map(|output| match output {
            Output::AskPartner { request, body } => Some((*request, body.ask.clone())),
            _ => None,
        });
        questions.last().unwrap_or_else(|| panic!("no question in {:?}", self.outputs))
    }

    fn has_change(&self) -> bool {
        self.outputs.iter().any(|output| matches!(output, Output::CompareAndSet { .. }))
    }

    fn has_event(&self, event: &Event) -> bool {
        self.outputs.iter().any(|output| *output == Output::Event(event.clone()))
    }

    fn answer_read(&mut self, millis: u64, found: Option<StoredRecord>) {
        let request = self.read();
        self.give(millis, Input::RecordRead { request, found });
    }

    fn swap(&mut self, millis: u64, version: u64) {
        let (request, ..) = self.change();
        self.give(millis, Input::Swapped { request, version: RecordVersion(version) });
    }

    fn grant(&mut self, millis: u64, known: Tenure) {
        let (request, _) = self.question();
        let answer = PromiseAnswer { verdict: Verdict::Granted { epoch: known.epoch }, known: Some(known) };
        self.give(millis, Input::PartnerAnswered { request, answer });
    }

    /// The other pool asks; returns the answer.
    fn asked(&mut self, millis: u64, ask: Ask) -> PromiseAnswer {
        let from = if self.me == HOME { name(PARTNER) } else { name(HOME) };
        let body = PromiseRequest { home: name(HOME), from, ask };
        self.give(millis, Input::PromiseAsked { call: CallId(7), body });
        let answers = self.outputs.iter().filter_map(|output| match output {
            Output::Answer { call: CallId(7), body } => Some(body.clone()),
            _ => None,
        });
        let answers: Vec<_> = answers.collect();
        assert_eq!(answers.len(), 1, "{:?}", self.outputs);
        answers[0].clone()
    }

    fn asked_promise(&mut self, millis: u64, tenure: Tenure) -> Verdict {
        self.asked(millis, Ask::Promise { tenure }).verdict
    }

    fn until(&self, millis: u64) -> Option<Instant> {
        self.machine.authority(at(millis)).map(|authority| authority.until)
    }

    /// A home pool that owns epoch 0; its first record was created by a request of 0 ms.
    fn owner() -> Self {
        let mut rig = Self::new(HOME, None);
        rig.answer_read(20, None);
        rig.swap(40, 1);
        rig
    }

    /// A partner that last saw beat 5 of the home pool's epoch 0 at 20 ms and last gave a promise at 1 s.
    fn watcher() -> Self {
        let mut rig = Self::new(PARTNER, None);
        rig.answer_read(20, Some(stored(at_home(0), 5, 6)));
        assert_eq!(rig.asked_promise(1_000, at_home(0)), Verdict::Granted { epoch: Epoch::ZERO });
        rig
    }

    /// The watcher reads the same beat every second up to `millis`, and is looked at just then.
    fn watch_until(&mut self, millis: u64) {
        let mut now = 1_000;
        while now < millis {
            self.wait(now);
            if self.outputs.iter().any(|output| matches!(output, Output::Read { .. })) {
                self.answer_read(now, Some(stored(at_home(0), 5, 6)));
            }
            now += 500;
        }
        self.wait(millis);
    }

    /// A partner that took over epoch 1 with a request of 11 s, answered at 11.05 s.
    fn successor() -> Self {
        let mut rig = Self::watcher();
        rig.watch_until(11_000);
        rig.swap(11_050, 7);
        rig
    }
}

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

fn hold_once(rig: &mut Rig, now: u64) {
    rig.wait(now);
    let (change, ..) = rig.change();
    rig.grant(now + 10, taken_over(1));
    rig.give(now + 20, Input::Swapped { request: change, version: RecordVersion(400) });
    rig.asked(now + 30, Ask::Return { known: taken_over(1) });
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
fn an_unable_partner_does_not_take_over() {
    let mut rig = Rig::watcher();
    rig.give(1_100, Input::AbilityChanged { is_able: false });
    rig.watch_until(60_000);
    assert!(!rig.has_change());
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
fn requests_of_strangers_and_impossible_owners_are_refused_and_change_nothing() {
    let mut rig = Rig::owner();
    let ask = |home: &str, from: &str, owner: &str| PromiseRequest {
        home: name(home),
        from: name(from),
        ask: Ask::Promise { tenure: tenure(owner, 9, PoolState::Active) },
    };
    let call = CallId(1);
    let cases = [
        (ask("north", PARTNER, PARTNER), OwnershipError::WrongHome { home: name("north") }, 404),
        (ask(HOME, "north", "north"), OwnershipError::Stranger { from: name("north") }, 403),
        (ask(HOME, PARTNER, HOME), OwnershipError::ImpossibleOwner { owner: name(HOME) }, 400),
    ];
    for (body, expected, status) in cases {
        let refused = rig.machine.handle(at(100), Input::PromiseAsked { call, body }).unwrap_err();
        assert_eq!((refused.status(), &refused), (status, &expected));
        assert_eq!(rig.machine.poll_output(), None);
    }
    assert_eq!(rig.machine.known(), Some(&at_home(0)));
}

#[test]
fn a_pool_that_is_alone_serves_at_once_and_takes_the_epoch_of_the_record() {
    let mut machine = Ownership::alone(name(HOME), Settings::default(), at(0), None, true);
    let first = machine.authority(at(0)).unwrap();
    assert_eq!((first.epoch, first.until), (Epoch::ZERO, Instant::NEVER_ENDS));
    machine.handle_timeout(at(0));
    let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
    assert!(outputs.contains(&Output::Authority(Some(first))));
    let Some(Output::Read { request }) = outputs.last() else { panic!("{outputs:?}") };

    let found = Some(stored(taken_over(3), 5, 9));
    machine.handle(at(10), Input::RecordRead { request: *request, found }).unwrap();

    assert_eq!(machine.authority(at(10)).map(|authority| authority.epoch), Some(Epoch::new(4)));
    machine.handle_timeout(at(5_000));
    assert_eq!(machine.poll_timeout(), None, "one answer is enough");
}

#[test]
fn an_onlooker_never_serves_and_sends_phones_to_the_owner() {
    let parties = Parties::at_partner(name(HOME), name(PARTNER));
    let mut machine = Ownership::onlooker(parties, Settings::default(), at(0), None);
    machine.handle_timeout(at(60_000));
    assert_eq!((machine.poll_output(), machine.poll_timeout()), (None, None));
    let standing = Standing::Elsewhere { tenure: at_home(0), contact: Contact::Beating };
    assert_eq!(machine.standing(at(60_000)), standing);
}

#[test]
fn messages_have_the_documented_json() {
    let request =
        PromiseRequest { home: name(HOME), from: name(PARTNER), ask: Ask::Promise { tenure: taken_over(1) } };
    assert_eq!(
        serde_json::to_string(&request).unwrap(),
        r#"{"home":"east","from":"west","ask":{"promise":{"tenure":{"owner":"west","epoch":1,"state":"taken_over"}}}}"#
    );
    let hold_left = Duration::from_millis(90_500);
    let answer = PromiseAnswer { known: Some(at_home(0)), verdict: Verdict::ReturnNoted { hold_left } };
    assert_eq!(
        serde_json::to_string(&answer).unwrap(),
        r#"{"known":{"owner":"east","epoch":0,"state":"active"},"verdict":{"return_noted":{"hold_left_ms":90500}}}"#
    );
    let record = r#"{"owner":"east","epoch":4,"beat":17,"state":"active","later":"ignored"}"#;
    assert_eq!(serde_json::from_str::<OwnershipRecord>(record).unwrap(), stored(at_home(4), 17, 1).record);
    let refused = PromiseAnswer { known: None, verdict: Verdict::Refused { reason: Refusal::TakingOver } };
    let text = r#"{"known":null,"verdict":{"refused":{"reason":"taking_over"}}}"#;
    assert_eq!(serde_json::from_str::<PromiseAnswer>(text).unwrap(), refused);
}
