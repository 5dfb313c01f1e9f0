//! The driver of a pool's two machines: inputs in, outputs executed in order.

use std::time::Duration;

use model::Machine;
use pairing::{Event, Input, Output, RequestId};

use super::{
    Breach, Fleet, Mistake, Spot, Step,
    letters::Letter,
    pool::{Place, Process, partner_of, side_of},
};
use crate::{
    network::{between, hits},
    witness::Question,
};

impl Fleet {
    /// Lets a pool's driver do what it can do at this moment.
    pub(super) fn run(&mut self, place: Place) {
        loop {
            let moment = self.now;
            let Some(pool) = self.pools.get_mut(place) else { return };
            let Some(process) = pool.process.as_mut().filter(|process| !process.is_held(moment)) else {
                return;
            };
            let now = process.clock.read(moment);
            let Some((side, output)) = next_work(process) else {
                match next_input(process, now) {
                    Some(Ok(())) => continue,
                    Some(Err(reason)) => return self.judge.fail(Breach::InputRefused { at: moment, reason }),
                    None => return self.schedule_wake(place),
                }
            };
            let home = if side == 0 { place } else { partner_of(place) };
            self.execute(place, home, output);
            if !self.is_at_peace && hits(&mut self.chance, 2) {
                let lasts = self.up_to(Duration::from_secs(3));
                self.stall(place, lasts);
            }
        }
    }

    fn schedule_wake(&mut self, place: Place) {
        let now = self.now;
        let lateness = self.up_to(Duration::from_millis(4));
        let Some(process) = self.pools.get_mut(place).and_then(|pool| pool.process.as_mut()) else { return };
        let due = process.desks.iter().filter_map(|desk| desk.machine.poll_timeout()).min();
        let Some(due) = due else { return };
        let at = process.clock.moment_of(due).after(lateness).max(now.after(Duration::from_micros(1)));
        if process.wake_at.is_none_or(|wake_at| wake_at <= now || at < wake_at) {
            process.wake_at = Some(at);
            self.schedule(at, Step::Wake);
        }
    }

    fn execute(&mut self, place: Place, home: Place, output: Output) {
        let side = side_of(place, home);
        let other = Spot::Pool(partner_of(place));
        match output {
            Output::Read { request } => self.ask_witness(place, home, request, Question::Read),
            Output::CompareAndSet { request, expected, record } => {
                self.tell(|| format!("{place} for {home} asks {expected:?} {record:?}"));
                self.ask_witness(place, home, request, Question::CompareAndSet { expected, record });
            }
            Output::AskPartner { request, body } => {
                self.write_to(place, other, None, Letter::Promise { home, request, body });
                self.fail_later(place, home, Input::PartnerFailed { request });
            }
            Output::Answer { call, body } => {
                let desk = self.pools.get_mut(place).and_then(|pool| pool.desk_mut(side));
                if let Some((incarnation, request)) = desk.and_then(|desk| desk.calls.remove(&call)) {
                    let letter = Letter::Promised { home, request, answer: body };
                    self.write_to(place, other, Some(incarnation), letter);
                }
            }
            Output::Authority(authority) => {
                self.tell(|| format!("{place} for {home} {authority:?}"));
                let Some(pool) = self.pools.get_mut(place) else { return };
                if let (Some(authority), Some(store)) = (authority, pool.stores.get_mut(side)) {
                    store.fence = authority.epoch.max(store.fence);
                }
                if let Some(desk) = pool.desk_mut(side) {
                    desk.authority = authority;
                    desk.is_closed = desk.is_closed && authority.is_none();
                }
            }
            Output::Remember(tenure) => {
                let Some(pool) = self.pools.get_mut(place) else { return };
                if let Some(store) = pool.stores.get_mut(side) {
                    store.fence = tenure.epoch.max(store.fence);
                }
                if let Some(remembered) = pool.remembered.get_mut(side) {
                    *remembered = Some(tenure);
                }
            }
            Output::FinishHandover { handover } => {
                let is_forgotten = self.variant.mistake == Mistake::FenceForgotten;
                if let Some(desk) = self.pools.get_mut(place).and_then(|pool| pool.desk_mut(side)) {
                    desk.is_closed = !is_forgotten;
                    desk.finishing = Some(handover);
                }
                self.write_final(place, home, handover);
            }
            Output::OrderAnswer { call, result } => {
                self.tell(|| format!("{place} for {home} answers {result:?}"));
                let desk = self.pools.get_mut(place).and_then(|pool| pool.desk_mut(side));
                if desk.is_none_or(|desk| desk.orders.remove(&call).is_none()) {
                    let reason = format!("{call:?} was answered twice");
                    self.judge.fail(Breach::InputRefused { at: self.now, reason });
                }
            }
            Output::Event(event) => self.note(place, home, &event),
        }
    }

    fn note(&mut self, place: Place, home: Place, event: &Event) {
        self.tell(|| format!("{place} for {home} event {event:?}"));
        match event {
            Event::HandoverBegan { .. } | Event::TakeoverBegan { .. } | Event::ReturnBegan { .. } => {
                self.strike_at_worst(place);
            }
            Event::HandoverAbandoned { .. } => {
                self.judge.tally.abandoned += 1;
                if let Some(desk) =
                    self.pools.get_mut(place).and_then(|pool| pool.desk_mut(side_of(place, home)))
                {
                    desk.finishing = None;
                }
            }
            Event::OwnerImpossible(_) | Event::WitnessBehind { .. } => {
                let reason = format!("{event:?}"); // nobody harms the witness here
                self.judge.fail(Breach::InputRefused { at: self.now, reason });
            }
            Event::OwnerKnown(_)
            | Event::ServingBegan { .. }
            | Event::ServingEnded { .. }
            | Event::TakeoverAbandoned { .. }
            | Event::ReturnAbandoned { .. }
            | Event::OperationBegan(_)
            | Event::OperationCompleted(_)
            | Event::OperationUndone { .. } => {}
        }
    }

    fn ask_witness(&mut self, place: Place, home: Place, request: RequestId, question: Question) {
        let incarnation = self.pools.get(place).map_or(0, |pool| pool.incarnation);
        let step = Step::ToWitness { from: place, home, incarnation, request, question };
        self.send(Spot::Pool(place), Spot::Witness, &step);
        self.fail_later(place, home, Input::WitnessFailed { request });
    }

    fn fail_later(&mut self, place: Place, home: Place, input: Input) {
        // Only a takeover and a request of the witness do not wait for the next round; the rest costs steps.
        if matches!(input, Input::PartnerFailed { .. }) && !hits(&mut self.chance, 50) {
            return;
        }
        let incarnation = self.pools.get(place).map_or(0, |pool| pool.incarnation);
        let at = self.now.after(between(&mut self.chance, self.settings.patience(), Duration::from_secs(8)));
        self.schedule(at, Step::Failed { at: place, home, incarnation, input });
    }
}

fn next_work(process: &mut Process) -> Option<(usize, Output)> {
    let mut desks = process.desks.iter_mut().enumerate();
    desks.find_map(|(side, desk)| desk.work.pop_front().map(|output| (side, output)))
}

/// Gives a machine what arrived or is due; `None` when nothing is.
fn next_input(process: &mut Process, now: model::Instant) -> Option<Result<(), String>> {
    for desk in &mut process.desks {
        let result = if let Some(input) = desk.inbox.pop_front() {
            desk.machine.handle(now, input).map_err(|error| error.to_string())
        } else if desk.is_due(now) {
            desk.machine.handle_timeout(now);
            Ok(())
        } else {
            continue;
        };
        desk.work.extend(std::iter::from_fn(|| desk.machine.poll_output()));
        return Some(result);
    }
    None
}
