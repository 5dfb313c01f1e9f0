//! What holds for one ownership machine whatever it is told, in whatever order, as long as the witness is
//! truthful.

use std::{collections::BTreeSet, time::Duration};

use model::{Epoch, Instant, Machine, PoolName, WallTime};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use crate::{
    Ask, Authority, CallId, Event, HandoverId, Input, Operator, Order, OrderId, OrderKind, Output, Ownership,
    OwnershipRecord, Parties, PoolState, PromiseAnswer, PromiseRequest, RecordVersion, RequestId, Service,
    Settings, Standing, StoredRecord, Tenure, Verdict,
};

/// One thing that happens to the machine under test.
#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    /// The witness handles the n-th of the requests under way; the answer arrives at once or never.
    Witness(usize, bool),
    /// An answer that the witness gave earlier arrives once more.
    WitnessAgain(usize),
    WitnessFails(usize),
    /// The other pool's takeover or return happens at the witness, by a rule that is not checked here.
    OtherOwns,
    OtherBeats,
    Asks(u8, u64),
    PartnerAnswers(usize, bool, Option<u64>),
    Able(bool),
    /// An operator orders, for an epoch that is so many behind; ids are few, so that orders are repeated.
    Orders(OrderKind, u8, u64),
    Cancels(u8),
    Progress(bool),
    /// The driver reports on the last handover.
    Drained(bool),
}

fn kind() -> impl Strategy<Value = OrderKind> {
    prop_oneof![
        Just(OrderKind::Failover),
        Just(OrderKind::Switchover),
        Just(OrderKind::Failback),
        Just(OrderKind::Disaster),
        Just(OrderKind::DisasterFailback),
    ]
}

/// How many epochs behind somebody is.
fn lag() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(0), 1 => 0_u64..3]
}

/// The epoch that is stored at the start and whether this machine's pool owns it.
fn first() -> impl Strategy<Value = Option<(u64, bool)>> {
    proptest::option::of((0_u64..3, any::<bool>()))
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0_u64..600).prop_map(Act::Wait),
        9 => (0_usize..4, proptest::bool::weighted(0.85)).prop_map(|(n, arrives)| Act::Witness(n, arrives)),
        1 => (0_usize..8).prop_map(Act::WitnessAgain),
        1 => (0_usize..4).prop_map(Act::WitnessFails),
        1 => Just(Act::OtherOwns),
        2 => Just(Act::OtherBeats),
        5 => (0_u8..3, lag()).prop_map(|(ask, lag)| Act::Asks(ask, lag)),
        5 => (0_usize..4, proptest::bool::weighted(0.8), proptest::option::of(0_u64..3))
            .prop_map(|(n, grants, lag)| Act::PartnerAnswers(n, grants, lag)),
        1 => proptest::bool::weighted(0.85).prop_map(Act::Able),
        3 => (kind(), 0_u8..6, lag()).prop_map(|(kind, id, lag)| Act::Orders(kind, id, lag)),
        1 => (0_u8..6).prop_map(Act::Cancels),
        3 => proptest::bool::weighted(0.85).prop_map(Act::Progress),
        3 => proptest::bool::weighted(0.8).prop_map(Act::Drained),
    ];
    proptest::collection::vec(act, 1..300)
}

/// A request on its way to the witness: when it began and, for a change, which.
type Question = (RequestId, Instant, Option<(Option<RecordVersion>, OwnershipRecord)>);

struct Bench {
    machine: Ownership,
    settings: Settings,
    now: Instant,
    stored: Option<StoredRecord>,
    version: u64,
    at_witness: Vec<Question>,
    at_partner: Vec<(RequestId, Instant, Ask)>,
    given: Vec<(Input, Instant)>,
    /// Promises given to the other pool: when, for which epoch; the last word of the other pool clears them.
    promises: Vec<(Instant, Epoch)>,
    in_force: Option<Authority>,
    highest: Epoch,
    /// Nothing was heard of the other pool yet that frees this one of promises of an earlier process.
    is_bound_by_start: bool,
    /// When the latest request began that was answered with a lease.
    lease_began: Option<Instant>,
    takeovers: u32,
    returns: u32,
    answers_due: usize,
    /// Orders and cancels that have no answer yet.
    waiting: BTreeSet<CallId>,
    last_call: u64,
    /// The last handover that was asked for, and whether it was reported as finished.
    handover: Option<(HandoverId, bool)>,
    /// When the last request began that would give the users away by an operation, and in which epoch.
    gift: Option<(Instant, Epoch)>,
    operations: u32,
    handovers: u32,
}

impl Bench {
    fn new(is_home: bool, first: Option<(u64, bool)>) -> Self {
        let (east, west) = (PoolName::new("east").unwrap(), PoolName::new("west").unwrap());
        let parties = if is_home { Parties::at_home(east, west) } else { Parties::at_partner(east, west) };
        let settings = Settings {
            ttl: Duration::from_secs(2),
            takeover_after: Duration::ZERO,
            hold: Duration::from_secs(1),
            ..Settings::default()
        };
        let mut bench = Self {
            machine: Ownership::paired(parties, settings, Instant::START, None),
            settings,
            now: Instant::START,
            stored: None,
            version: 0,
            at_witness: Vec::new(),
            at_partner: Vec::new(),
            given: Vec::new(),
            promises: Vec::new(),
            in_force: None,
            highest: Epoch::ZERO,
            is_bound_by_start: true,
            lease_began: None,
            takeovers: 0,
            returns: 0,
            answers_due: 0,
            waiting: BTreeSet::new(),
            last_call: 100,
            handover: None,
            gift: None,
            operations: 0,
            handovers: 0,
        };
        if let Some((epoch, is_mine)) = first {
            let owner = if is_mine { bench.me() } else { bench.other() };
            let state = if is_mine && !is_home { PoolState::TakenOver } else { PoolState::Active };
            bench.store(OwnershipRecord::first_of(Tenure::new(owner, Epoch::new(epoch), state)));
        }
        bench.machine.handle_timeout(bench.now);
        bench.drain();
        bench
    }

    fn me(&self) -> PoolName {
        self.machine.parties().me.clone()
    }

    fn other(&self) -> PoolName {
        self.machine.parties().other.clone()
    }

    fn store(&mut self, record: OwnershipRecord) -> RecordVersion {
        self.version += 1;
        self.stored = Some(StoredRecord { version: RecordVersion(self.version), record });
        RecordVersion(self.version)
    }

    fn give(&mut self, input: Input) {
        self.machine.handle(self.now, input).unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Read { request } => self.at_witness.push((request, self.now, None)),
                Output::CompareAndSet { request, expected, record } => {
                    let is_gift = record.owner != self.me();
                    assert!(
                        !is_gift || self.in_force.is_none(),
                        "a pool stops before it gives its users away"
                    );
                    let is_operation = record.state == PoolState::FailedOver || record.order.is_some();
                    if is_gift && is_operation {
                        let is_confirmed = self.handover.is_some_and(|(_, is_finished)| is_finished);
                        assert!(is_confirmed, "the other pool holds everything before it gets the users");
                        self.gift = Some((self.now, self.highest));
                    }
                    self.at_witness.push((request, self.now, Some((expected, record))));
                }
                Output::AskPartner { request, body } => self.at_partner.push((request, self.now, body.ask)),
                Output::Answer { body, .. } => {
                    self.answers_due -= 1;
                    if let Verdict::Granted { epoch } = body.verdict {
                        assert_eq!(self.in_force, None, "a pool that serves gives no promise");
                        self.promises.push((self.now, epoch));
                    }
                }
                Output::Authority(authority) => self.put_in_force(authority),
                Output::Remember(tenure) => assert!(tenure.epoch >= self.highest),
                Output::Event(Event::TakeoverBegan { .. }) => self.takeovers += 1,
                Output::Event(Event::ReturnBegan { .. }) => self.returns += 1,
                Output::Event(Event::OperationBegan(_)) => self.operations += 1,
                Output::Event(_) => {}
                Output::FinishHandover { handover } => {
                    assert_eq!(self.in_force, None, "a pool stops before the rest is sent");
                    assert!(self.handover.is_none_or(|(before, _)| before < handover));
                    self.handover = Some((handover, false));
                    self.handovers += 1;
                }
                Output::OrderAnswer { call, .. } => {
                    assert!(self.waiting.remove(&call), "every order is answered once");
                }
            }
        }
        assert_eq!(self.answers_due, 0, "every question is answered at once");
        if self.at_witness.len() > 64 {
            self.at_witness.remove(0);
        }
        assert_eq!(
            self.machine.authority(self.now),
            self.in_force.filter(|authority| authority.holds_at(self.now))
        );
        let standing = matches!(self.machine.standing(self.now), Standing::Serving(_));
        assert_eq!(standing, self.machine.authority(self.now).is_some());
    }

    fn put_in_force(&mut self, authority: Option<Authority>) {
        self.in_force = authority;
        let Some(authority) = authority else { return };
        let lease = self.lease_began.map(|began| began + self.settings.ttl);
        assert!(Some(authority.until) <= lease, "a lease counts from the beginning of its request");
        let is_free = !self.is_bound_by_start || self.now >= Instant::START + self.settings.wait();
        assert!(is_free || authority.epoch == Epoch::ZERO, "a process is bound from its start");
        assert!(authority.epoch >= self.highest, "epochs never go back");
        self.highest = authority.epoch;
        let is_in_doubt = self.gift.is_some_and(|(_, epoch)| epoch == authority.epoch);
        assert!(!is_in_doubt || authority.service == Service::Resiliency, "no document is written in doubt");
        for &(given, epoch) in &self.promises {
            let is_kept = authority.epoch <= epoch || self.now >= given + self.settings.wait();
            assert!(
                is_kept,
                "promise of {given:?} for {epoch}, serving {} at {:?}",
                authority.epoch, self.now
            );
        }
    }

    fn witness(&mut self, n: usize, arrives: bool) {
        if self.at_witness.is_empty() {
            return;
        }
        let (request, began, change) = self.at_witness.remove(n % self.at_witness.len());
        let input = match change {
            None => Input::RecordRead { request, found: self.stored.clone() },
            Some((expected, record)) if expected == self.stored.as_ref().map(|stored| stored.version) => {
                Input::Swapped { request, version: self.store(record) }
            }
            Some(_) => Input::SwapRefused { request, found: self.stored.clone() },
        };
        self.given.push((input, began));
        if arrives {
            self.deliver(0);
        }
    }

    /// The n-th latest answer of the witness arrives.
    fn deliver(&mut self, n: usize) {
        let Some((input, began)) = self.given.iter().rev().nth(n).cloned() else { return };
        if matches!(input, Input::Swapped { .. }) {
            self.lease_began = self.lease_began.max(Some(began));
            self.gift = self.gift.filter(|&(gift, _)| began < gift);
        }
        self.give(input);
    }

    fn tenure_of_other(&self, epoch: Epoch) -> Tenure {
        Tenure::new(self.other(), epoch, PoolState::Active)
    }

    fn asks(&mut self, ask: u8, lag: u64) {
        let Some(stored) = self.stored.clone() else { return };
        let epoch = Epoch::new(stored.record.epoch.number().saturating_sub(lag));
        // The other pool knows what the witness holds or held, and claims only what was its own.
        let ask = match ask {
            0 if stored.record.owner == self.other() && lag == 0 => {
                Ask::Promise { tenure: stored.record.tenure() }
            }
            0 => match self.machine.known() {
                Some(known) if known.owner == self.other() => {
                    Ask::Promise { tenure: self.tenure_of_other(known.epoch) }
                }
                _ => return,
            },
            1 if lag == 0 => Ask::Return { known: stored.record.tenure() },
            1 => Ask::Return { known: self.tenure_of_other(epoch) },
            _ => Ask::Observe { known: None },
        };
        if let Some(known) = self.machine.known()
            && let Ask::Return { known: claimed } = &ask
            && claimed.epoch == known.epoch
            && claimed.owner != known.owner
        {
            return; // one epoch has one owner
        }
        let body = PromiseRequest { home: self.machine.parties().home.clone(), from: self.other(), ask };
        self.answers_due += 1;
        self.give(Input::PromiseAsked { call: CallId(1), body });
    }

    fn partner_answers(&mut self, n: usize, grants: bool, lag: Option<u64>) {
        if self.at_partner.is_empty() {
            return;
        }
        let (request, began, ask) = self.at_partner.remove(n % self.at_partner.len());
        let tenure = match (&ask, lag) {
            (Ask::Promise { tenure }, _) => Some(tenure.clone()),
            (Ask::Observe { .. } | Ask::Return { .. }, Some(0)) => {
                self.stored.as_ref().map(|stored| stored.record.tenure())
            }
            (Ask::Observe { .. } | Ask::Return { .. }, _) => None,
        };
        let verdict = match &ask {
            Ask::Promise { tenure } if grants => Verdict::Granted { epoch: tenure.epoch },
            Ask::Promise { .. } | Ask::Observe { .. } | Ask::Return { .. } => Verdict::Observed,
        };
        if let Some(tenure) = tenure.as_ref().filter(|tenure| tenure.owner == self.me()) {
            let is_void = |given: Instant, epoch: Epoch| given < began && epoch < tenure.epoch;
            self.promises.retain(|&(given, epoch)| !is_void(given, epoch));
            self.is_bound_by_start = false;
        }
        if matches!(verdict, Verdict::Granted { .. }) {
            self.lease_began = self.lease_began.max(Some(began));
        }
        self.give(Input::PartnerAnswered { request, answer: PromiseAnswer { known: tenure, verdict } });
    }

    fn next_call(&mut self) -> CallId {
        self.last_call += 1;
        self.waiting.insert(CallId(self.last_call));
        CallId(self.last_call)
    }

    fn orders(&mut self, kind: OrderKind, id: u8, lag: u64) {
        let known = self.machine.known().map_or(0, |known| known.epoch.number());
        let order = Order {
            id: OrderId::new(u128::from(id)),
            kind,
            epoch: Epoch::new(known.saturating_sub(lag)),
            ordered_at: WallTime::from_secs(u64::from(id)),
            by: Operator::new("ada").unwrap(),
        };
        let call = self.next_call();
        self.give(Input::Ordered { call, order });
    }

    fn drained(&mut self, is_finished: bool) {
        let Some((handover, _)) = self.handover else { return };
        if is_finished {
            // Late reports count for nothing: only a pool that has not served since may believe this one.
            self.handover = Some((handover, self.in_force.is_none()));
            self.give(Input::HandoverFinished { handover });
        } else {
            self.give(Input::HandoverFailed { handover });
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Wait(millis) => {
                let end = self.now + Duration::from_millis(millis);
                let mut turns = 0;
                while let Some(due) = self.machine.poll_timeout().filter(|&due| due <= end) {
                    self.now = self.now.max(due);
                    self.machine.handle_timeout(self.now);
                    self.drain();
                    turns += 1;
                    assert!(turns < 100, "the machine asks to be called again and again at {:?}", self.now);
                }
                self.now = end;
                self.machine.handle_timeout(self.now);
                self.drain();
            }
            Act::Witness(n, arrives) => self.witness(n, arrives),
            Act::WitnessAgain(n) => self.deliver(n),
            Act::WitnessFails(n) => {
                if let Some((request, ..)) = self.at_witness.get(n) {
                    let request = *request;
                    self.give(Input::WitnessFailed { request });
                }
            }
            Act::OtherOwns => {
                if let Some(stored) = self.stored.clone().filter(|stored| stored.record.owner == self.me()) {
                    let tenure = self.tenure_of_other(stored.record.epoch.next());
                    self.store(OwnershipRecord::first_of(tenure));
                }
            }
            Act::OtherBeats => match self.stored.clone() {
                Some(StoredRecord { record, .. }) if record.owner == self.other() => {
                    self.store(OwnershipRecord { beat: record.beat.next(), ..record });
                }
                Some(_) => {}
                None => {
                    let home = self.machine.parties().home.clone();
                    let tenure = Tenure::new(home, Epoch::ZERO, PoolState::Active);
                    self.store(OwnershipRecord::first_of(tenure));
                }
            },
            Act::Asks(ask, lag) => self.asks(ask, lag),
            Act::PartnerAnswers(n, grants, lag) => self.partner_answers(n, grants, lag),
            Act::Able(is_able) => self.give(Input::AbilityChanged { is_able }),
            Act::Orders(kind, id, lag) => self.orders(kind, id, lag),
            Act::Cancels(id) => {
                let call = self.next_call();
                self.give(Input::CancelOrdered { call, of: OrderId::new(u128::from(id)) });
            }
            Act::Progress(is_close) => self.give(Input::HandoverProgress { is_close }),
            Act::Drained(is_finished) => self.drained(is_finished),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn leases_are_bounded_promises_kept_epochs_rise_and_every_question_is_answered(
        is_home in any::<bool>(),
        first in first(),
        acts in acts(),
    ) {
        let mut bench = Bench::new(is_home, first);
        for act in acts {
            bench.act(act);
        }
        for _ in 0..6 {
            bench.act(Act::Wait(10_000));
        }
        prop_assert!(bench.waiting.is_empty(), "whoever ordered gets an answer");
    }

    #[test]
    fn a_machine_told_nothing_never_serves_and_never_spins(
        millis in 0_u64..600_000,
        is_home in any::<bool>(),
    ) {
        let mut bench = Bench::new(is_home, None);
        bench.now = bench.now + Duration::from_millis(millis);
        bench.machine.handle_timeout(bench.now);
        prop_assert_eq!(bench.machine.authority(bench.now), None);
        prop_assert!(bench.machine.poll_timeout() > Some(bench.now));
    }
}

#[test]
fn the_histories_drawn_here_reach_leases_takeovers_and_returns() {
    let mut runner = TestRunner::deterministic();
    let (mut leases, mut takeovers, mut returns, mut operations, mut handovers) = (0, 0, 0, 0, 0);
    for _ in 0..1_000 {
        let (is_home, first, acts) =
            (any::<bool>(), first(), acts()).new_tree(&mut runner).unwrap().current();
        let mut bench = Bench::new(is_home, first);
        for act in acts {
            bench.act(act);
        }
        leases += u32::from(bench.lease_began.is_some());
        takeovers += bench.takeovers;
        returns += bench.returns;
        operations += bench.operations;
        handovers += bench.handovers;
    }
    assert!(leases > 300 && takeovers > 100 && returns > 10, "{leases} {takeovers} {returns}");
    assert!(operations > 40 && handovers > 40, "{operations} {handovers}");
}
