//! True time, and the clocks of processes that run a little fast or slow.

use std::{fmt, time::Duration};

use model::Instant;

const MILLION: u128 = 1_000_000;

/// A point in true time, in microseconds since the run began. No process can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment `duration` later.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Time since `earlier`; zero when that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// The monotonic clock of one process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Moment,
    /// Microseconds it counts in a true second.
    rate: u64,
}

impl Clock {
    /// A clock that starts now and counts `rate` microseconds in each true second, 990,000 to 1,010,000.
    pub(crate) const fn new(started: Moment, rate: u64) -> Self {
        Self { started, rate }
    }

    pub(crate) fn read(&self, moment: Moment) -> Instant {
        let elapsed = u128::from(moment.0.saturating_sub(self.started.0));
        Instant::from_micros(narrow(elapsed * u128::from(self.rate) / MILLION))
    }

    /// The first moment at which the clock shows `instant` or later.
    pub(crate) fn moment_of(&self, instant: Instant) -> Moment {
        let elapsed = (u128::from(instant.as_micros()) * MILLION).div_ceil(u128::from(self.rate.max(1)));
        Moment(self.started.0.saturating_add(narrow(elapsed)))
    }
}

fn narrow(micros: u128) -> u64 {
    u64::try_from(micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_found_for_an_instant_is_the_first_one_that_shows_it() {
        for rate in [990_000, 999_999, 1_000_000, 1_010_000] {
            let clock = Clock::new(Moment(12_345), rate);
            for micros in [1, 7, 1_000_003, 5_000_000] {
                let moment = clock.moment_of(Instant::from_micros(micros));
                assert!(clock.read(moment) >= Instant::from_micros(micros));
                assert!(clock.read(Moment(moment.0 - 1)) < Instant::from_micros(micros));
            }
        }
    }
}
