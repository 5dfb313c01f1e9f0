//! The network between the three parties: late, lossy, doubling, cut in either direction.

use std::{collections::BTreeSet, fmt, time::Duration};

use model::Chance;

/// One of the two pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Home,
    Partner,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Home, Self::Partner];

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Home => Self::Partner,
            Self::Partner => Self::Home,
        }
    }

    pub(crate) const fn party(self) -> Party {
        match self {
            Self::Home => Party::Home,
            Self::Partner => Party::Partner,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Home => "home",
            Self::Partner => "partner",
        })
    }
}

/// One of the three parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    Home,
    Partner,
    Witness,
}

impl Party {
    pub(crate) const ALL: [Self; 3] = [Self::Home, Self::Partner, Self::Witness];
}

/// How the network treats messages that it does not cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    delay_min: Duration,
    delay_max: Duration,
    lost_per_mille: u64,
    doubled_per_mille: u64,
    /// Messages that take seconds.
    late_per_mille: u64,
}

/// The longest that a late message takes.
pub(crate) const LATE_MAX: Duration = Duration::from_secs(6);

impl Weather {
    /// No loss, WAN delays.
    pub(crate) const FINE: Self = Self::new(1, 80, 0, 0, 0);

    const fn new(min_ms: u64, max_ms: u64, lost: u64, doubled: u64, late: u64) -> Self {
        Self {
            delay_min: Duration::from_millis(min_ms),
            delay_max: Duration::from_millis(max_ms),
            lost_per_mille: lost,
            doubled_per_mille: doubled,
            late_per_mille: late,
        }
    }

    pub(crate) fn drawn(chance: &mut Chance) -> Self {
        match chance.below(6) {
            0 => Self::new(1, 5, 0, 20, 0),
            1 => Self::new(20, 300, 50, 20, 10),
            2 => Self::new(1, 60, 250, 50, 50),
            3 => Self::new(300, 2_500, 20, 100, 50),
            4 => Self::new(1, 1_000, 100, 100, 200),
            _ => Self::FINE,
        }
    }
}

/// Messages between parties of one kind, and what is cut off.
#[derive(Debug)]
pub(crate) struct Network<P = Party> {
    pub(crate) weather: Weather,
    cuts: BTreeSet<(P, P)>,
}

impl<P: Copy + Ord> Network<P> {
    pub(crate) const fn new(weather: Weather) -> Self {
        Self { weather, cuts: BTreeSet::new() }
    }

    pub(crate) fn cut(&mut self, from: P, to: P) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn heal(&mut self, from: P, to: P) {
        self.cuts.remove(&(from, to));
    }

    pub(crate) fn heal_all(&mut self) {
        self.cuts.clear();
    }

    /// The delays after which a message arrives: none when it is lost, two when it is doubled.
    pub(crate) fn delays(&self, chance: &mut Chance, from: P, to: P) -> Vec<Duration> {
        if self.cuts.contains(&(from, to)) || hits(chance, self.weather.lost_per_mille) {
            return Vec::new();
        }
        let copies = if hits(chance, self.weather.doubled_per_mille) { 2 } else { 1 };
        (0..copies).map(|_| self.delay(chance)).collect()
    }

    fn delay(&self, chance: &mut Chance) -> Duration {
        let Weather { delay_min, delay_max, late_per_mille, .. } = self.weather;
        if hits(chance, late_per_mille) {
            return between(chance, delay_max, LATE_MAX);
        }
        between(chance, delay_min, delay_max)
    }
}

impl Network {
    pub(crate) fn isolate(&mut self, party: Party) {
        for other in Party::ALL {
            self.cut(party, other);
            self.cut(other, party);
        }
    }
}

/// True in so many of a thousand cases.
pub(crate) fn hits(chance: &mut Chance, per_mille: u64) -> bool {
    chance.below(1_000) < per_mille
}

/// A duration from `min` to `max`, both included.
pub(crate) fn between(chance: &mut Chance, min: Duration, max: Duration) -> Duration {
    let span = u64::try_from(max.saturating_sub(min).as_micros()).unwrap_or(0);
    min + Duration::from_micros(chance.below(span.saturating_add(1)))
}
