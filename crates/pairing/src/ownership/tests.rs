//! A machine on a bench, told by hand what happens; the tests are beside it by concern.

mod giving_back;
mod leases;
mod messages;
mod operations;
mod takeover;
mod without_witness;

use std::time::Duration;

use model::{Beat, Epoch, Instant, Machine, PoolName, WallTime};

use crate::{
    Ask, Authority, CallId, Contact, Event, HandoverId, Input, Operator, Order, OrderBlocker, OrderId,
    OrderKind, OrderResult, Output, Ownership, OwnershipError, OwnershipRecord, Parties, PoolState,
    PromiseAnswer, PromiseRequest, RecordVersion, Refusal, RequestId, Service, Settings, Standing,
    StoredRecord, Tenure, UndoReason, Verdict,
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
    Tenure::new(name(owner), Epoch::new(epoch), state)
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

fn order(id: u128, kind: OrderKind, epoch: u64) -> Order {
    Order {
        id: OrderId::new(id),
        kind,
        epoch: Epoch::new(epoch),
        ordered_at: WallTime::from_secs(1_700_000_000),
        by: Operator::new("ada").unwrap(),
    }
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

    /// The last output of a kind.
    fn last<T>(&self, pick: impl Fn(&Output) -> Option<T>) -> T {
        let found = self.outputs.iter().rev().find_map(pick);
        found.unwrap_or_else(|| panic!("not in {:?}", self.outputs))
    }

    fn read(&self) -> RequestId {
        self.last(|output| if let Output::Read { request } = output { Some(*request) } else { None })
    }

    fn change(&self) -> (RequestId, Option<RecordVersion>, OwnershipRecord) {
        self.last(|output| {
            let Output::CompareAndSet { request, expected, record } = output else { return None };
            Some((*request, *expected, record.clone()))
        })
    }

    fn question(&self) -> (RequestId, Ask) {
        self.last(|output| {
            let Output::AskPartner { request, body } = output else { return None };
            Some((*request, body.ask.clone()))
        })
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
        let count = self.outputs.iter().filter(|output| matches!(output, Output::Answer { .. })).count();
        assert_eq!(count, 1, "{:?}", self.outputs);
        self.last(|output| if let Output::Answer { body, .. } = output { Some(body.clone()) } else { None })
    }

    fn asked_promise(&mut self, millis: u64, tenure: Tenure) -> Verdict {
        self.asked(millis, Ask::Promise { tenure }).verdict
    }

    fn order(&mut self, millis: u64, order: Order) {
        self.give(millis, Input::Ordered { call: CallId(20), order });
    }

    fn cancel(&mut self, millis: u64, id: u128) {
        self.give(millis, Input::CancelOrdered { call: CallId(21), of: OrderId::new(id) });
    }

    fn results(&self) -> Vec<OrderResult> {
        let result = |output: &Output| {
            if let Output::OrderAnswer { result, .. } = output { Some(result.clone()) } else { None }
        };
        self.outputs.iter().filter_map(result).collect()
    }

    fn result(&self) -> OrderResult {
        let mut results = self.results();
        assert_eq!(results.len(), 1, "{:?}", self.outputs);
        results.remove(0)
    }

    fn handover(&self) -> HandoverId {
        self.last(
            |output| {
                if let Output::FinishHandover { handover } = output { Some(*handover) } else { None }
            },
        )
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
