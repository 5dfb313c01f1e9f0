//! What goes wrong in a fleet.

use std::time::Duration;

use super::{
    Fleet, Spot, Step,
    data::Store,
    pool::{POOLS, Place, partner_of, side_of},
};
use crate::{
    clock::Moment,
    network::{Weather, between, hits},
};

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Weather(Weather),
    Cut(Spot, Spot),
    Heal(Spot, Spot),
    Isolate(Spot),
    HealAll,
    Crash {
        place: Place,
        down_for: Duration,
        loses_disk: bool,
    },
    Start(Place),
    Pause(Place, Duration),
    Stall(Place, Duration),
    WitnessDown,
    WitnessUp,
    /// Everything is well from here on.
    Peace,
    /// Users change nothing any more.
    Quiet,
}

fn spots() -> impl Iterator<Item = Spot> {
    (0..POOLS).map(Spot::Pool).chain((0..3).map(Spot::Branch)).chain([Spot::Witness])
}

impl Fleet {
    pub(super) fn plan_faults(&mut self, peace_at: Moment) {
        let calm = if hits(&mut self.chance, 500) { 15 } else { 4 };
        let mut at = Moment::default().after(Duration::from_secs(calm));
        let gap_max = Duration::from_secs(if hits(&mut self.chance, 500) { 3 } else { 20 });
        while at < peace_at {
            let (fault, end) = self.drawn();
            self.schedule(at, Step::Fault(fault));
            if let Some((end, lasts)) = end {
                self.schedule(at.after(lasts), Step::Fault(end));
            }
            at = at.after(between(&mut self.chance, Duration::from_millis(100), gap_max));
        }
    }

    fn seconds(&mut self, min: u64, max: u64) -> Duration {
        between(&mut self.chance, Duration::from_secs(min), Duration::from_secs(max))
    }

    fn place(&mut self) -> Place {
        usize::try_from(self.chance.below(4)).unwrap_or(0) % POOLS
    }

    /// A fault and, where it ends by an event of its own, that event with its delay.
    fn drawn(&mut self) -> (Fault, Option<(Fault, Duration)>) {
        let place = self.place();
        match self.chance.below(20) {
            0 | 1 => (Fault::Weather(Weather::drawn(&mut self.chance)), None),
            2..=5 => {
                let (from, to) = (self.spot(), self.spot());
                let lasts = self.seconds(0, 20);
                (Fault::Cut(from, to), Some((Fault::Heal(from, to), lasts)))
            }
            6..=8 => {
                let spot = self.spot();
                (Fault::Isolate(spot), Some((Fault::HealAll, self.seconds(1, 25))))
            }
            9 => (Fault::HealAll, None),
            10..=13 => {
                let longest = if hits(&mut self.chance, 500) { 2 } else { 25 };
                let down_for = self.seconds(0, longest);
                let loses_disk = self.loses_disks && hits(&mut self.chance, 400);
                (Fault::Crash { place, down_for, loses_disk }, None)
            }
            14 | 15 => (Fault::Pause(place, self.seconds(0, 20)), None),
            16 | 17 => (Fault::Stall(place, self.seconds(0, 8)), None),
            _ => (Fault::WitnessDown, Some((Fault::WitnessUp, self.seconds(1, 20)))),
        }
    }

    pub(super) fn strike(&mut self, fault: Fault) {
        if self.is_at_peace && !matches!(fault, Fault::Start(_) | Fault::Quiet) {
            return;
        }
        self.tell(|| format!("fault    {fault:?}"));
        match fault {
            Fault::Weather(weather) => self.network.weather = weather,
            Fault::Cut(from, to) => self.network.cut(from, to),
            Fault::Heal(from, to) => self.network.heal(from, to),
            Fault::Isolate(spot) => {
                for other in spots() {
                    self.network.cut(spot, other);
                    self.network.cut(other, spot);
                }
            }
            Fault::HealAll => self.network.heal_all(),
            Fault::Crash { place, down_for, loses_disk } => self.crash(place, down_for, loses_disk),
            Fault::Start(place) => self.start(place),
            Fault::Pause(place, lasts) => {
                let until = self.now.after(lasts);
                if let Some(process) = self.pools.get_mut(place).and_then(|pool| pool.process.as_mut()) {
                    process.paused_until = process.paused_until.max(until);
                }
                self.schedule(until, Step::Wake);
            }
            Fault::Stall(place, lasts) => self.stall(place, lasts),
            Fault::WitnessDown => self.is_witness_up = false,
            Fault::WitnessUp => self.is_witness_up = true,
            Fault::Peace => self.make_peace(),
            Fault::Quiet => self.is_quiet = true,
        }
    }

    pub(super) fn stall(&mut self, place: Place, lasts: Duration) {
        let until = self.now.after(lasts);
        if let Some(process) = self.pools.get_mut(place).and_then(|pool| pool.process.as_mut()) {
            process.stalled_until = process.stalled_until.max(until);
        }
        self.schedule(until, Step::Wake);
    }

    fn crash(&mut self, place: Place, down_for: Duration, loses_disk: bool) {
        let Some(pool) = self.pools.get_mut(place) else { return };
        if pool.process.take().is_none() {
            return; // its start is under way
        }
        if loses_disk {
            pool.remembered = [None, None];
            pool.stores = [Store::blank(), Store::blank()];
            self.is_memory_lost = true;
            for home in [place, partner_of(place)] {
                self.write_off(home);
            }
        }
        self.schedule(self.now.after(down_for), Step::Fault(Fault::Start(place)));
    }

    /// What no disk holds any more cannot come back. Half a copy is no copy: with both disks lost the home
    /// pool begins anew.
    pub(super) fn write_off(&mut self, home: Place) {
        let places = [home, partner_of(home)];
        let is_blank = |place: &Place| {
            let pool = self.pools.get(*place);
            pool.and_then(|pool| pool.stores.get(side_of(*place, home))).is_none_or(|store| store.is_blank)
        };
        if places.iter().all(is_blank) {
            self.judge.begin_anew(home);
            for place in places {
                let store =
                    self.pools.get_mut(place).and_then(|pool| pool.stores.get_mut(side_of(place, home)));
                if let Some(store) = store {
                    *store = Store::blank();
                }
            }
        }
        let store =
            |place: Place| self.pools.get(place).and_then(|pool| pool.stores.get(side_of(place, home)));
        let stores = [store(home), store(partner_of(home))];
        let is_held = |operation: u64| stores.iter().flatten().any(|store| store.has(operation));
        let Some(acknowledged) = self.judge.acknowledged.get_mut(home) else { return };
        let before = acknowledged.len();
        acknowledged.retain(|&operation| is_held(operation));
        let lost = before - acknowledged.len();
        self.judge.tally.lost_with_disk += u64::try_from(lost).unwrap_or(u64::MAX);
        if let Some(registered) = self.judge.registered.get_mut(home) {
            registered.clear();
        }
    }

    /// Something goes wrong just when it hurts most: a change of owner is under way.
    pub(super) fn strike_at_worst(&mut self, place: Place) {
        if self.is_at_peace || !hits(&mut self.chance, 600) {
            return;
        }
        for _ in 0..2 {
            let (own, other) = (Spot::Pool(place), Spot::Pool(partner_of(place)));
            let lasts = self.seconds(1, 10);
            let (fault, end) = match self.chance.below(10) {
                0 => (Fault::Cut(Spot::Witness, own), Some(Fault::Heal(Spot::Witness, own))),
                1 => (Fault::Cut(own, Spot::Witness), Some(Fault::Heal(own, Spot::Witness))),
                2 => (Fault::Cut(other, own), Some(Fault::Heal(other, own))),
                3 => (Fault::Cut(other, Spot::Witness), Some(Fault::Heal(other, Spot::Witness))),
                4 => (Fault::Isolate(own), Some(Fault::HealAll)),
                5 => (Fault::Weather(Weather::drawn(&mut self.chance)), None),
                6 | 7 => (Fault::Crash { place, down_for: self.seconds(0, 1), loses_disk: false }, None),
                8 => {
                    let place = partner_of(place);
                    (Fault::Crash { place, down_for: self.seconds(0, 20), loses_disk: false }, None)
                }
                _ => (Fault::Pause(place, lasts), None),
            };
            let latest = Duration::from_millis(if hits(&mut self.chance, 700) { 300 } else { 2_000 });
            let delay = self.up_to(latest);
            self.schedule(self.now.after(delay), Step::Fault(fault));
            if let Some(end) = end {
                self.schedule(self.now.after(delay + lasts), Step::Fault(end));
            }
        }
    }

    fn make_peace(&mut self) {
        self.is_at_peace = true;
        self.network.weather = Weather::FINE;
        self.network.heal_all();
        self.is_witness_up = true;
        let now = self.now;
        for place in 0..POOLS {
            self.start(place);
            if let Some(process) = self.pools.get_mut(place).and_then(|pool| pool.process.as_mut()) {
                process.paused_until = process.paused_until.min(now);
                process.stalled_until = process.stalled_until.min(now);
            }
            self.schedule(self.settled_at, Step::BringHome(place));
        }
    }
}
