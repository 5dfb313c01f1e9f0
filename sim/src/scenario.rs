//! What a seed draws for its run: settings, faults, and who is left in peace.

use std::time::Duration;

use model::Chance;
use pairing::{Planted, Settings};

use crate::{
    clock::Moment,
    faults::{self, Fault},
    network::{Weather, between, hits},
};

/// Which parties can talk to each other when the faults are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peace {
    /// All three.
    All,
    /// The two pools.
    WithoutWitness,
    /// The partner and the witness.
    WithoutHome,
    /// The home pool and the witness.
    WithoutPartner,
}

/// A run before it runs.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) settings: Settings,
    pub(crate) weather: Weather,
    pub(crate) loses_disks: bool,
    /// After how long a driver tells its machine that a request failed.
    pub(crate) patience: Duration,
    pub(crate) faults: Vec<(Moment, Fault)>,
    pub(crate) peace: Peace,
    pub(crate) peace_at: Moment,
    pub(crate) end: Moment,
}

impl Scenario {
    pub(crate) fn drawn(chance: &mut Chance, planted: Planted) -> Self {
        let settings = settings(chance, planted);
        let loses_disks = hits(chance, 250);
        let patience =
            Duration::from_millis([500, 2_000, 8_000].get(index(chance, 3)).copied().unwrap_or(2_000));
        let peace = match chance.below(5) {
            0 => Peace::WithoutWitness,
            1 => Peace::WithoutHome,
            2 => Peace::WithoutPartner,
            _ => Peace::All,
        };
        let peace_at =
            Moment::default().after(between(chance, Duration::from_secs(60), Duration::from_secs(240)));
        let mut faults = Vec::new();
        let calm = if hits(chance, 500) { Duration::from_secs(15) } else { Duration::ZERO };
        let mut at = Moment::default().after(calm);
        let gap_max = Duration::from_secs(if hits(chance, 500) { 5 } else { 25 });
        while at < peace_at {
            let (fault, end) = faults::drawn(chance, loses_disks);
            faults.push((at, fault));
            faults.extend(
                end.map(|(end, lasts)| (at.after(lasts), end)).filter(|(end_at, _)| *end_at < peace_at),
            );
            at = at.after(between(chance, Duration::from_millis(100), gap_max));
        }
        faults.push((peace_at, Fault::Peace));
        let end = peace_at.after(settle(&settings) + settings.hold + Duration::from_secs(25));
        let weather = if hits(chance, 500) { Weather::FINE } else { Weather::drawn(chance) };
        Self { settings, weather, loses_disks, patience, faults, peace, peace_at, end }
    }
}

/// How long it may take, once all is well, until somebody serves without a gap: messages under way arrive, a
/// takeover that they disturbed is tried again after a whole silence.
pub(crate) fn settle(settings: &Settings) -> Duration {
    crate::network::LATE_MAX + settings.silence() * 2 + settings.patience() * 2
}

fn index(chance: &mut Chance, bound: u64) -> usize {
    usize::try_from(chance.below(bound)).unwrap_or(0)
}

fn settings(chance: &mut Chance, planted: Planted) -> Settings {
    Settings {
        ttl: between(chance, Duration::from_secs(2), Duration::from_secs(8)),
        takeover_after: Duration::from_secs(chance.below(12)),
        hold: Duration::from_secs(2 + if hits(chance, 700) { chance.below(5) } else { chance.below(20) }),
        planted,
        ..Settings::default()
    }
}
