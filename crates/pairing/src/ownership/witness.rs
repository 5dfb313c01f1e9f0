//! What the machine does with the answers of the witness.

use model::{Epoch, Instant};

use super::{
    Ownership,
    requests::Kind,
    state::{Departure, State, Stored, Tenancy},
};
use crate::{
    Ask, Event, Output, OwnershipRecord, Planted, PoolState, RecordVersion, RequestId, StoredRecord, Tenure,
    UndoReason,
};

impl Ownership {
    pub(super) fn read(&mut self, now: Instant) {
        let request = self.requests.begin(now, Kind::Read);
        self.outputs.push_back(Output::Read { request });
    }

    /// Renews the record; a change that this pool wants to make goes with it.
    pub(super) fn beat(&mut self, now: Instant, tenure: &Tenure, stored: Stored) {
        let tenure = self.wished(tenure).clone();
        let record = OwnershipRecord { beat: stored.beat.next(), ..OwnershipRecord::first_of(tenure) };
        self.compare_and_set(now, Some(stored.version), record);
    }

    pub(super) fn hand_over(&mut self, now: Instant, successor: Tenure, stored: Stored) {
        self.compare_and_set(now, Some(stored.version), OwnershipRecord::first_of(successor));
    }

    fn compare_and_set(&mut self, now: Instant, expected: Option<RecordVersion>, record: OwnershipRecord) {
        let request = self.requests.begin(now, Kind::CompareAndSet(record.clone()));
        self.outputs.push_back(Output::CompareAndSet { request, expected, record });
    }

    /// An answer may still come; only a takeover does not wait for it.
    pub(super) fn witness_failed(&mut self, request: RequestId) {
        self.state = match std::mem::replace(&mut self.state, State::Learning) {
            State::TakingOver(attempt) if attempt.request == request => self.abandon_takeover(attempt),
            unchanged @ (State::Word(_)
            | State::Learning
            | State::Watching(_)
            | State::TakingOver(_)
            | State::Owning(_)
            | State::Leaving(_)) => unchanged,
        };
    }

    /// The witness returned what it stores, to a read or with the refusal of a change.
    pub(super) fn witness_answered(
        &mut self,
        now: Instant,
        request: RequestId,
        found: Option<StoredRecord>,
        is_refusal: bool,
    ) {
        let Some(pending) = self.requests.take(request) else { return };
        match found {
            Some(stored) => self.witnessed(now, pending.began, &stored, is_refusal),
            None if is_refusal => self.forget_stored(now),
            None => self.witnessed_nothing(now, pending.began),
        }
    }

    /// A refused change whose reason is unknown: read before the next one.
    fn forget_stored(&mut self, now: Instant) {
        match &mut self.state {
            State::Owning(tenancy) | State::Leaving(Departure { tenancy, .. }) => {
                tenancy.stored = None;
                self.next_round = Some(now);
            }
            State::TakingOver(_) => self.read(now),
            State::Word(_) | State::Learning | State::Watching(_) => {}
        }
    }

    fn witnessed_nothing(&mut self, now: Instant, began: Instant) {
        match &mut self.state {
            State::Learning if self.parties.is_home() => {
                let record = OwnershipRecord::first_of(self.own_tenure(Epoch::ZERO));
                self.compare_and_set(now, None, record);
            }
            State::Learning | State::Word(_) => {} // the home pool creates the record
            State::Watching(_) | State::TakingOver(_) | State::Owning(_) | State::Leaving(_) => {
                self.witness_is_behind(now, began, None);
            }
        }
    }

    fn witnessed(&mut self, now: Instant, began: Instant, stored: &StoredRecord, is_refusal: bool) {
        let record = &stored.record;
        if self.settings.planted == Planted::UndoesByForce && self.undo_by_force(now, stored) {
            return;
        }
        if !self.is_possible(&record.owner) {
            return self.outputs.push_back(Output::Event(Event::OwnerImpossible(record.tenure())));
        }
        self.learn(now, &record.tenure());
        if self.known().is_some_and(|known| record.epoch < known.epoch) {
            return self.witness_is_behind(now, began, Some(stored));
        }
        self.state = match std::mem::replace(&mut self.state, State::Learning) {
            State::Watching(mut watch) => {
                watch.witnessed(now, began, stored);
                State::Watching(watch)
            }
            State::TakingOver(mut attempt) if attempt.watch.version() != Some(stored.version) => {
                attempt.watch.witnessed(now, began, stored);
                self.abandon_takeover(attempt)
            }
            State::Owning(mut tenancy) => {
                if self.take_version(now, began, &mut tenancy, stored) || (is_refusal && self.wish.is_some())
                {
                    self.next_round = Some(now);
                }
                State::Owning(tenancy)
            }
            State::Leaving(mut departure) => {
                if self.take_version(now, began, &mut departure.tenancy, stored) {
                    self.next_round = Some(now);
                }
                State::Leaving(departure)
            }
            unchanged @ (State::Word(_) | State::Learning | State::TakingOver(_)) => unchanged,
        };
    }

    /// The planted mistake: an undo that does not look who owns by now.
    fn undo_by_force(&mut self, now: Instant, found: &StoredRecord) -> bool {
        let Some(known) = self.known().cloned() else { return false };
        let is_mine = known.owner == self.parties.me && known.state.is_moving();
        if !is_mine || found.record.epoch != known.epoch.next() {
            return false;
        }
        let state = if self.parties.is_home() { PoolState::Active } else { PoolState::FailedOver };
        let record = OwnershipRecord::first_of(Tenure { state, undone: Some(UndoReason::NotHeard), ..known });
        self.compare_and_set(now, Some(found.version), record);
        true
    }

    /// The witness lost what it knew. The owner that still holds the other pool's promise writes its record
    /// again; everybody else leaves that to the owner or the operator.
    fn witness_is_behind(&mut self, now: Instant, began: Instant, found: Option<&StoredRecord>) {
        let Some(known) = self.known().cloned() else { return };
        if began < self.learnt_at {
            return; // the witness may have answered before the change
        }
        if !self.is_behind_told {
            self.is_behind_told = true;
            let stored = found.map(|stored| stored.record.epoch);
            self.outputs.push_back(Output::Event(Event::WitnessBehind { stored, known: known.epoch }));
        }
        if let State::Owning(tenancy) = &self.state
            && tenancy.partner_until.is_some_and(|until| now < until)
        {
            let beat = tenancy.stored.map_or(model::Beat::ZERO, |stored| stored.beat.next());
            let record = OwnershipRecord { beat, ..OwnershipRecord::first_of(known) };
            self.compare_and_set(now, found.map(|stored| stored.version), record);
        }
    }

    pub(super) fn swapped(&mut self, now: Instant, request: RequestId, version: RecordVersion) {
        let Some(pending) = self.requests.take(request) else { return };
        let Kind::CompareAndSet(record) = pending.kind else { return };
        let is_news = self.known().is_none_or(|known| known.epoch < record.epoch);
        let stored = StoredRecord { version, record };
        self.learn(now, &stored.record.tenure());
        if is_news && stored.record.owner != self.parties.me && !self.parties.is_home() {
            // The home pool hears at once that it owns again; the other way round it asks by itself.
            self.ask(now, Kind::Word, Ask::Observe { known: Some(stored.record.tenure()) });
        }
        if self.known().is_none_or(|known| known.epoch != stored.record.epoch) {
            return; // of a tenure that is over
        }
        let base = if self.settings.planted == Planted::LeaseFromAnswer { now } else { pending.began };
        let until = base + self.settings.ttl;
        let is_valid = |valid_from| is_news || pending.began >= valid_from;
        self.state = match std::mem::replace(&mut self.state, State::Learning) {
            State::Owning(mut tenancy) => {
                self.take_version(now, pending.began, &mut tenancy, &stored);
                if is_valid(tenancy.valid_from) {
                    tenancy.witness_until = tenancy.witness_until.max(Some(until));
                    tenancy.is_doubtful = false; // a handover before this named an older version
                }
                if self.wished(&tenancy.tenure) != &tenancy.tenure {
                    self.next_round = Some(now); // a renewal without the wish was faster
                }
                State::Owning(tenancy)
            }
            State::Leaving(mut departure) => {
                if self.take_version(now, pending.began, &mut departure.tenancy, &stored) {
                    self.next_round = Some(now);
                }
                State::Leaving(departure)
            }
            State::Watching(mut watch) => {
                watch.witnessed(now, pending.began, &stored);
                State::Watching(watch)
            }
            unchanged @ (State::Word(_) | State::Learning | State::TakingOver(_)) => unchanged,
        };
    }

    /// The owner's next change replaces this version. A refused or overtaken one costs a round trip, no more.
    fn take_version(
        &mut self,
        now: Instant,
        began: Instant,
        tenancy: &mut Tenancy,
        stored: &StoredRecord,
    ) -> bool {
        let is_news =
            tenancy.stored.is_none_or(|known| known.version != stored.version && known.began <= began);
        if is_news {
            tenancy.stored = Some(Stored { version: stored.version, beat: stored.record.beat, began });
            let before = std::mem::replace(&mut tenancy.tenure, stored.record.tenure());
            if before != tenancy.tenure {
                if !before.state.is_moving() {
                    tenancy.progress.restart(now);
                }
                self.tell_change(&before, &tenancy.tenure);
            }
        }
        is_news
    }
}
