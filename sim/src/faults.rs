//! What goes wrong, and how it is done to the world.

use std::time::Duration;

use model::Chance;
use pairing::Settings;

use crate::{
    network::{Party, Side, Weather, between, hits},
    world::{Step, World},
};

/// Something that goes wrong, or right again.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Weather(Weather),
    Cut(Party, Party),
    Heal(Party, Party),
    Isolate(Party),
    HealAll,
    /// The process ends; another starts after this time, with or without the disk of the first.
    Crash {
        side: Side,
        down_for: Duration,
        loses_disk: bool,
    },
    Start(Side),
    /// The whole process stands still.
    Pause {
        side: Side,
        lasts: Duration,
    },
    /// The driver's thread stands still, phones are answered.
    Stall {
        side: Side,
        lasts: Duration,
    },
    Ability {
        side: Side,
        is_able: bool,
    },
    WitnessDown,
    WitnessUp,
    Peace,
}

fn some_party(chance: &mut Chance) -> Party {
    match chance.below(3) {
        0 => Party::Home,
        1 => Party::Partner,
        _ => Party::Witness,
    }
}

fn some_side(chance: &mut Chance) -> Side {
    if hits(chance, 500) { Side::Home } else { Side::Partner }
}

fn seconds(chance: &mut Chance, min: u64, max: u64) -> Duration {
    between(chance, Duration::from_secs(min), Duration::from_secs(max))
}

/// A fault and, where it ends by an event of its own, that event with its delay.
type Drawn = (Fault, Option<(Fault, Duration)>);

/// Draws a fault and, where it ends by an event of its own, that event with its delay.
pub(crate) fn drawn(chance: &mut Chance, loses_disks: bool) -> Drawn {
    let side = some_side(chance);
    match chance.below(20) {
        0 | 1 => (Fault::Weather(Weather::drawn(chance)), None),
        2..=5 => {
            let (from, to) = (some_party(chance), some_party(chance));
            let ends = hits(chance, 800).then(|| (Fault::Heal(from, to), seconds(chance, 0, 30)));
            (Fault::Cut(from, to), ends)
        }
        6..=8 => {
            let party = some_party(chance);
            (Fault::Isolate(party), Some((Fault::HealAll, seconds(chance, 1, 30))))
        }
        9 => (Fault::HealAll, None),
        10..=12 => {
            let down_for = if hits(chance, 500) { seconds(chance, 0, 2) } else { seconds(chance, 0, 30) };
            (Fault::Crash { side, down_for, loses_disk: loses_disks && hits(chance, 500) }, None)
        }
        13 | 14 => (Fault::Pause { side, lasts: seconds(chance, 0, 30) }, None),
        15 | 16 => (Fault::Stall { side, lasts: seconds(chance, 0, 8) }, None),
        17 => (
            Fault::Ability { side, is_able: false },
            Some((Fault::Ability { side, is_able: true }, seconds(chance, 1, 30))),
        ),
        _ => (Fault::WitnessDown, Some((Fault::WitnessUp, seconds(chance, 1, 40)))),
    }
}

impl World {
    pub(crate) fn strike(&mut self, fault: Fault) {
        let is_over = self.is_at_peace && !matches!(fault, Fault::Start(_));
        if is_over {
            return;
        }
        self.tell(|| format!("fault   {fault:?}"));
        match fault {
            Fault::Weather(weather) => self.network.weather = weather,
            Fault::Cut(from, to) => self.network.cut(from, to),
            Fault::Heal(from, to) => self.network.heal(from, to),
            Fault::Isolate(party) => self.network.isolate(party),
            Fault::HealAll => self.network.heal_all(),
            Fault::Crash { side, down_for, loses_disk } => self.crash(side, down_for, loses_disk),
            Fault::Start(side) => self.start(side),
            Fault::Pause { side, lasts } => {
                let until = self.now.after(lasts);
                if let Some(process) = &mut self.pool_mut(side).process {
                    process.paused_until = process.paused_until.max(until);
                }
                self.schedule(until, Step::Continue);
            }
            Fault::Stall { side, lasts } => {
                let until = self.now.after(lasts);
                if let Some(process) = &mut self.pool_mut(side).process {
                    process.stalled_until = process.stalled_until.max(until);
                }
                self.schedule(until, Step::Continue);
            }
            Fault::Ability { side, is_able } => self.change_ability(side, is_able),
            Fault::WitnessDown => self.is_witness_up = false,
            Fault::WitnessUp => self.is_witness_up = true,
            Fault::Peace => self.make_peace(),
        }
    }

    fn crash(&mut self, side: Side, down_for: Duration, loses_disk: bool) {
        let pool = self.pool_mut(side);
        if pool.process.take().is_none() {
            return; // its start is under way
        }
        if loses_disk {
            pool.remembered = None;
            self.judge.is_memory_lost = true;
        }
        self.schedule(self.now.after(down_for), Step::Fault(Fault::Start(side)));
    }

    /// Something goes wrong just when it hurts most: a request is on its way that changes the owner.
    pub(crate) fn strike_at_worst(&mut self, side: Side) {
        if self.is_at_peace || !hits(&mut self.chance, 700) {
            return;
        }
        if hits(&mut self.chance, 400) {
            let settings = self.pool(side).settings;
            for (delay, fault) in answer_lost(&mut self.chance, side, &settings) {
                self.schedule(self.now.after(delay), Step::Fault(fault));
            }
            return;
        }
        for _ in 0..2 {
            let (fault, end) =
                worst(&mut self.chance, side).unwrap_or_else(|| drawn(&mut self.chance, self.loses_disks));
            let latest = Duration::from_millis(if hits(&mut self.chance, 500) { 100 } else { 1_500 });
            let delay = between(&mut self.chance, Duration::ZERO, latest);
            self.schedule(self.now.after(delay), Step::Fault(fault));
            if let Some((end, lasts)) = end {
                self.schedule(self.now.after(delay + lasts), Step::Fault(end));
            }
        }
    }
}

/// The asker loses the answer, or itself, or hears from the other pool after all.
fn worst(chance: &mut Chance, side: Side) -> Option<Drawn> {
    let (own, other) = (side.party(), side.other().party());
    match chance.below(10) {
        0 | 1 => Some((Fault::Isolate(own), Some((Fault::HealAll, seconds(chance, 1, 12))))),
        2 => Some((
            Fault::Cut(Party::Witness, own),
            Some((Fault::Heal(Party::Witness, own), seconds(chance, 1, 12))),
        )),
        3 => Some((
            Fault::Cut(other, Party::Witness),
            Some((Fault::Heal(other, Party::Witness), seconds(chance, 1, 12))),
        )),
        4 | 5 => Some((Fault::Crash { side, down_for: seconds(chance, 0, 1), loses_disk: false }, None)),
        6 => Some((Fault::Heal(own, other), Some((Fault::Heal(other, own), Duration::ZERO)))),
        _ => None,
    }
}

/// The request arrives, its answer does not; the other pool lives on the asker's word alone, or the asker
/// on its old leases; perhaps the asker starts anew.
fn answer_lost(chance: &mut Chance, side: Side, settings: &Settings) -> Vec<(Duration, Fault)> {
    let (own, other) = (side.party(), side.other().party());
    let soon = Duration::from_micros(10);
    let later = between(chance, settings.patience() / 2, settings.patience() + settings.interval() * 2);
    let last = later + seconds(chance, 3, 12);
    let mut faults = vec![(soon, Fault::Cut(Party::Witness, own))];
    if hits(chance, 500) {
        faults.extend([
            (soon, Fault::Cut(other, Party::Witness)),
            (soon, Fault::Cut(Party::Witness, other)),
            (soon, Fault::Heal(own, other)),
            (soon, Fault::Heal(other, own)),
            (later, Fault::Heal(Party::Witness, own)),
        ]);
    } else {
        faults.push((soon, Fault::Isolate(own)));
    }
    if hits(chance, 600) {
        let down_for = between(chance, Duration::ZERO, Duration::from_millis(300));
        faults.push((later, Fault::Crash { side, down_for, loses_disk: false }));
    }
    faults.push((last, Fault::HealAll));
    faults
}
