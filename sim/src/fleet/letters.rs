//! What pools and branches write to each other, and what a driver does with it.

use std::{collections::BTreeMap, time::Duration};

use model::Epoch;
use pairing::{BranchRecovery, HandoverId, Input, PromiseAnswer, PromiseRequest, RequestId, Service};

use super::{
    Fleet, Mistake, Spot, Step,
    data::{Cursor, Entry, Kind},
    pool::{Place, partner_of, side_of},
};
use crate::network::between;

/// Entries of one page.
const PAGE_MAX: usize = 8;

#[derive(Clone, Debug)]
pub(crate) enum Letter {
    Promise {
        home: Place,
        request: RequestId,
        body: PromiseRequest,
    },
    Promised {
        home: Place,
        request: RequestId,
        answer: PromiseAnswer,
    },
    /// A reader asks for what follows its cursor.
    Pull {
        home: Place,
        cursor: Cursor,
        is_blank: bool,
    },
    Page {
        home: Place,
        page: Page,
    },
    /// The reader's cursor is not in the journal of these marks.
    Diverged {
        home: Place,
        epoch: Epoch,
        marks: Vec<(Epoch, usize)>,
    },
    /// The asked pool has lost its own copy.
    Blank {
        home: Place,
    },
    /// The rest, from an owner that has stopped.
    Final {
        home: Place,
        handover: HandoverId,
        page: Page,
    },
    /// All of it is durable here.
    FinalDone {
        home: Place,
        handover: HandoverId,
    },
    Orphans {
        home: Place,
        entries: Vec<Entry>,
    },
    OrphansDone {
        home: Place,
        operations: Vec<u64>,
    },
    BranchPull {
        home: Place,
        after: usize,
    },
    BranchRecords {
        home: Place,
        branch: usize,
        records: Vec<u64>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// The highest epoch that the sender knows.
    epoch: Epoch,
    after: usize,
    entries: Vec<Entry>,
    is_end: bool,
    bindings: BTreeMap<u8, u64>,
}

impl Fleet {
    pub(super) fn write_to(&mut self, from: Place, to: Spot, to_incarnation: Option<u64>, letter: Letter) {
        let incarnation = self.pools.get(from).map_or(0, |pool| pool.incarnation);
        let step = Step::Letter { from: Spot::Pool(from), incarnation, to, to_incarnation, letter };
        self.send(Spot::Pool(from), to, &step);
    }

    pub(super) fn arrive(
        &mut self,
        from: Spot,
        incarnation: u64,
        to: Spot,
        to_incarnation: Option<u64>,
        letter: Letter,
    ) {
        match (to, letter) {
            (Spot::Branch(branch), Letter::BranchPull { home, after }) => {
                let records = self.branches.get(branch).and_then(|branch| branch.records.get(after..));
                let records = records.unwrap_or_default().to_vec();
                let letter = Letter::BranchRecords { home, branch, records };
                let (from, to) = (Spot::Branch(branch), from);
                let step =
                    Step::Letter { from, incarnation: 0, to, to_incarnation: Some(incarnation), letter };
                self.send(from, to, &step);
            }
            (Spot::Pool(place), letter) => {
                let now = self.now;
                let is_read = self.pools.get(place).is_some_and(|pool| {
                    to_incarnation.is_none_or(|it| it == pool.incarnation)
                        && pool.process.as_ref().is_some_and(|process| process.paused_until <= now)
                });
                if is_read {
                    self.read(place, from, incarnation, letter);
                }
            }
            (Spot::Branch(_) | Spot::Witness, _) => {}
        }
    }

    fn read(&mut self, place: Place, from: Spot, incarnation: u64, letter: Letter) {
        let back = Some(incarnation);
        match letter {
            Letter::Promise { home, request, body } => self.asked(place, home, incarnation, request, body),
            Letter::Promised { home, request, answer } => {
                let incarnation = self.pools.get(place).map_or(0, |pool| pool.incarnation);
                self.give(place, home, incarnation, Input::PartnerAnswered { request, answer });
            }
            Letter::Pull { home, cursor, is_blank } => {
                if let Some(letter) = self.pulled(place, home, cursor, is_blank) {
                    self.write_to(place, from, back, letter);
                }
            }
            Letter::Page { home, page } => {
                let _ = self.apply(place, home, &page);
            }
            Letter::Diverged { home, epoch, marks } => self.diverged(place, home, epoch, marks),
            Letter::Blank { home } => self.both_blank(place, home),
            Letter::Final { home, handover, page } => {
                if self.apply(place, home, &page) {
                    self.write_to(place, from, back, Letter::FinalDone { home, handover });
                }
            }
            Letter::FinalDone { home, handover } => {
                let Some(pool) = self.pools.get_mut(place) else { return };
                if let Some(desk) = pool.desk_mut(side_of(place, home)) {
                    desk.finishing = desk.finishing.filter(|&it| it != handover);
                    desk.inbox.push_back(Input::HandoverFinished { handover });
                }
            }
            Letter::Orphans { home, entries } => {
                if let Some(operations) = self.adopt(place, home, &entries) {
                    self.write_to(place, from, back, Letter::OrphansDone { home, operations });
                }
            }
            Letter::OrphansDone { home, operations } => self.orphans_done(place, home, &operations),
            Letter::BranchRecords { home, branch, records } => {
                self.take_records(place, home, branch, &records)
            }
            Letter::BranchPull { .. } => {}
        }
    }

    fn asked(
        &mut self,
        place: Place,
        home: Place,
        incarnation: u64,
        request: RequestId,
        body: PromiseRequest,
    ) {
        let Some(process) = self.pools.get_mut(place).and_then(|pool| pool.process.as_mut()) else { return };
        let call = process.next_call();
        if let Some(desk) = process.desks.get_mut(side_of(place, home)) {
            desk.calls.insert(call, (incarnation, request));
            desk.inbox.push_back(Input::PromiseAsked { call, body });
        }
    }

    fn is_owner(&self, place: Place, home: Place) -> bool {
        let pool = self.pools.get(place);
        pool.and_then(|pool| pool.desk(side_of(place, home))).is_some_and(|desk| {
            desk.machine.known().is_some_and(|known| known.owner == desk.machine.parties().me)
        })
    }

    /// The epoch in which documents may be committed here now.
    fn writable_epoch(&self, place: Place, home: Place) -> Option<Epoch> {
        let pool = self.pools.get(place)?;
        let side = side_of(place, home);
        let authority = pool.answerable(side, self.now)?;
        let (desk, store) = (pool.desk(side)?, pool.stores.get(side)?);
        let is_open = !desk.is_closed && !store.is_blank && authority.epoch >= store.fence;
        (is_open && authority.service == Service::Full).then_some(authority.epoch)
    }

    fn page(&self, place: Place, home: Place, after: usize, max: usize) -> Option<Page> {
        let pool = self.pools.get(place)?;
        let side = side_of(place, home);
        let (desk, store) = (pool.desk(side)?, pool.stores.get(side)?);
        let rest = store.after(after);
        let entries: Vec<Entry> = rest.iter().take(max).copied().collect();
        let is_end = entries.len() == rest.len();
        let epoch = desk.machine.known()?.epoch;
        Some(Page { epoch, after, entries, is_end, bindings: store.bindings.clone() })
    }

    /// The source answers a reader, and notes what the reader holds.
    fn pulled(&mut self, place: Place, home: Place, cursor: Cursor, is_blank: bool) -> Option<Letter> {
        let (side, now) = (side_of(place, home), self.now);
        let is_owner = self.is_owner(place, home);
        let pool = self.pools.get_mut(place)?;
        let store = pool.stores.get(side)?;
        if store.is_blank {
            return is_blank.then_some(Letter::Blank { home });
        }
        if !(is_owner || is_blank) {
            return None;
        }
        let marks = (!store.has_cursor(cursor)).then(|| store.marks());
        let desk = pool.desk_mut(side)?;
        desk.reader = (!is_blank).then_some((cursor, now));
        let Some(marks) = marks else {
            return self.page(place, home, cursor.sequence, PAGE_MAX).map(|page| Letter::Page { home, page });
        };
        let epoch = self.pools.get(place)?.desk(side)?.machine.known()?.epoch;
        Some(Letter::Diverged { home, epoch, marks })
    }

    /// A reader applies a page; returns whether everything in it is held.
    fn apply(&mut self, place: Place, home: Place, page: &Page) -> bool {
        let side = side_of(place, home);
        let is_owner = self.is_owner(place, home);
        let Some(pool) = self.pools.get_mut(place) else { return false };
        let Some(store) = pool.stores.get_mut(side) else { return false };
        // An owner whose disk was lost must not go on in the epoch of what it lost.
        if is_owner || page.epoch < store.fence || !store.apply(page.after, &page.entries) {
            return false;
        }
        store.fence = page.epoch;
        store.merge_bindings(&page.bindings);
        store.is_blank &= !page.is_end;
        let is_able = !store.is_blank;
        if let Some(desk) = pool.desk_mut(side) {
            desk.become_able(is_able);
        }
        true
    }

    fn diverged(&mut self, place: Place, home: Place, epoch: Epoch, marks: Vec<(Epoch, usize)>) {
        let side = side_of(place, home);
        let is_owner = self.is_owner(place, home);
        let Some(pool) = self.pools.get_mut(place) else { return };
        let is_stale = pool.stores.get(side).is_none_or(|store| epoch < store.fence);
        if let Some(desk) = pool.desk_mut(side).filter(|_| !is_owner && !is_stale) {
            desk.diverged = Some(marks);
        }
    }

    /// Both disks of a home pool are lost: it begins anew.
    fn both_blank(&mut self, place: Place, home: Place) {
        let side = side_of(place, home);
        let Some(pool) = self.pools.get_mut(place).filter(|_| place == home) else { return };
        if let Some(store) = pool.stores.get_mut(side) {
            store.is_blank = false;
        }
        if let Some(desk) = pool.desk_mut(side) {
            desk.become_able(true);
        }
    }

    fn adopt(&mut self, place: Place, home: Place, entries: &[Entry]) -> Option<Vec<u64>> {
        let epoch = self.writable_epoch(place, home)?;
        let store = self.pools.get_mut(place)?.stores.get_mut(side_of(place, home))?;
        for &entry in entries {
            if !store.has(entry.operation) {
                store.adopt(entry, epoch);
                self.judge.tally.orphans += 1;
                let is_conflict = store.entries().last().is_some_and(|entry| entry.kind == Kind::Conflict);
                self.judge.tally.conflicts += u64::from(is_conflict);
            }
        }
        Some(entries.iter().map(|entry| entry.operation).collect())
    }

    fn orphans_done(&mut self, place: Place, home: Place, operations: &[u64]) {
        let side = side_of(place, home);
        if self.is_owner(place, home) {
            return;
        }
        let Some(pool) = self.pools.get_mut(place) else { return };
        let Some(marks) = pool.desk(side).and_then(|desk| desk.diverged.clone()) else { return };
        let Some(store) = pool.stores.get_mut(side) else { return };
        let common = store.common(&marks);
        if store.after(common).iter().all(|entry| operations.contains(&entry.operation)) {
            store.truncate(common);
            if let Some(desk) = pool.desk_mut(side) {
                desk.diverged = None;
            }
            if self.is_memory_lost {
                self.write_off(home); // the owner's word may have outlived its disk
            }
        }
    }

    fn take_records(&mut self, place: Place, home: Place, branch: usize, records: &[u64]) {
        let Some(epoch) = self.writable_epoch(place, home) else { return };
        let Some(pool) = self.pools.get_mut(place) else { return };
        let Some(store) = pool.stores.get_mut(side_of(place, home)) else { return };
        for &operation in records {
            if !store.has(operation) {
                store.append(Entry { epoch, operation, kind: Kind::Record { branch } });
            }
        }
    }

    /// A driver looks after its two home pools' copies.
    pub(super) fn tick(&mut self, place: Place, incarnation: u64) {
        let Some(pool) = self.pools.get(place).filter(|pool| pool.incarnation == incarnation) else { return };
        let Some(process) = &pool.process else { return };
        let is_held = process.is_held(self.now);
        let next = between(&mut self.chance, Duration::from_millis(350), Duration::from_millis(450));
        self.schedule(self.now.after(next), Step::Tick { place, incarnation });
        if is_held {
            return;
        }
        for home in [place, partner_of(place)] {
            let is_blank = self
                .pools
                .get(place)
                .and_then(|pool| pool.stores.get(side_of(place, home)))
                .is_some_and(|it| it.is_blank);
            if is_blank || !self.is_owner(place, home) {
                self.tick_reader(place, home);
            } else {
                self.tick_owner(place, home);
            }
        }
    }

    fn tick_reader(&mut self, place: Place, home: Place) {
        let side = side_of(place, home);
        let Some(pool) = self.pools.get_mut(place) else { return };
        let Some(store) = pool.stores.get_mut(side) else { return };
        let (cursor, is_blank) = (store.cursor(), store.is_blank);
        let marks = pool.process.as_ref().and_then(|process| process.desks.get(side)?.diverged.clone());
        let orphans = marks.map(|marks| {
            let common = store.common(&marks);
            let orphans = store.after(common).to_vec();
            if self.variant.mistake == Mistake::FailbackWithoutOrphans {
                store.truncate(common);
            }
            orphans
        });
        let other = Spot::Pool(partner_of(place));
        self.write_to(place, other, None, Letter::Pull { home, cursor, is_blank });
        if let Some(entries) = orphans {
            self.write_to(place, other, None, Letter::Orphans { home, entries });
        }
    }

    fn tick_owner(&mut self, place: Place, home: Place) {
        let (side, now) = (side_of(place, home), self.now);
        let Some(pool) = self.pools.get_mut(place) else { return };
        let Some(store) = pool.stores.get(side) else { return };
        let Some(desk) = pool.process.as_mut().and_then(|process| process.desks.get_mut(side)) else {
            return;
        };
        desk.diverged = None;
        let is_close = desk.is_close(store, now);
        desk.inbox.push_back(Input::HandoverProgress { is_close });
        if let Some(handover) = desk.finishing {
            self.write_final(place, home, handover);
        }
        if self.writable_epoch(place, home).is_none() {
            return;
        }
        for at in 0..self.branches.len() {
            let Some(branch) = self.branches.get(at).filter(|branch| branch.associated == home) else {
                continue;
            };
            let is_allowed = place == home || branch.recovery == BranchRecovery::Follow;
            let store = self.pools.get(place).and_then(|pool| pool.stores.get(side));
            let after = store.map_or(0, |store| store.records_of(at).count());
            if is_allowed {
                self.write_to(place, Spot::Branch(at), None, Letter::BranchPull { home, after });
            }
        }
    }

    /// The owner has stopped: everything that its reader does not hold, in one letter.
    pub(super) fn write_final(&mut self, place: Place, home: Place, handover: HandoverId) {
        let Some(desk) = self.pools.get(place).and_then(|pool| pool.desk(side_of(place, home))) else {
            return;
        };
        let Some((cursor, _)) = desk.reader else { return };
        let is_ours = self.pools.get(place).and_then(|pool| pool.stores.get(side_of(place, home)));
        if is_ours.is_none_or(|store| !store.has_cursor(cursor)) {
            return;
        }
        if let Some(page) = self.page(place, home, cursor.sequence, usize::MAX) {
            let other = Spot::Pool(partner_of(place));
            self.write_to(place, other, None, Letter::Final { home, handover, page });
        }
    }
}
