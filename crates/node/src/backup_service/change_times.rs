//! When the latest changes of a home pool were made, by the monotonic clock: how old what a reader lacks is.
//!
//! The times in the changes themselves are wall times of whoever made them and jump when a clock is set; what
//! would be lost now must not.

use std::{collections::VecDeque, time::Duration};

use model::Instant;

/// Moments that are kept. More: neighbours are united, so that the time covered grows and its resolution
/// falls.
const MOMENTS_MAX: usize = 512;

/// The moments at which a journal grew, oldest first.
#[derive(Clone, Debug, Default)]
pub struct ChangeTimes {
    moments: VecDeque<Moment>,
    /// Number of the last change.
    last: u64,
}

/// Changes up to this number were there at this instant, the first of them since `first_at`.
#[derive(Clone, Copy, Debug)]
struct Moment {
    last: u64,
    first_at: Instant,
}

impl ChangeTimes {
    /// Notes that the journal's last change is `last` at `now`.
    pub fn record(&mut self, last: u64, now: Instant) {
        if last <= self.last {
            self.last = last;
            self.moments.retain(|moment| moment.last <= last); // the journal was cut back
            return;
        }
        self.last = last;
        self.moments.push_back(Moment { last, first_at: now });
        if self.moments.len() > MOMENTS_MAX {
            self.thin_out();
        }
    }

    /// Number of the last change.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// How long ago the oldest change after number `held` was made; zero when there is none. Of changes from
    /// before this process started, the time since the first one noted here.
    pub fn age_after(&self, held: u64, now: Instant) -> Duration {
        let oldest = self.moments.iter().find(|moment| moment.last > held);
        oldest.map_or(Duration::ZERO, |moment| now.saturating_since(moment.first_at))
    }

    /// Unites each pair of neighbours under the earlier time: ages are never shown too low.
    fn thin_out(&mut self) {
        let pairs: Vec<Moment> = self.moments.drain(..).collect();
        self.moments = pairs
            .chunks(2)
            .filter_map(|pair| {
                let (first, last) = (pair.first()?, pair.last()?);
                Some(Moment { last: last.last, first_at: first.first_at })
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn the_age_is_that_of_the_oldest_change_the_reader_lacks() {
        let mut times = ChangeTimes::default();
        for second in 1..=5 {
            times.record(second * 10, at(second));
        }

        assert_eq!(times.age_after(50, at(9)), Duration::ZERO);
        assert_eq!(times.age_after(45, at(9)), Duration::from_secs(4));
        assert_eq!(times.age_after(10, at(9)), Duration::from_secs(7));
        assert_eq!(times.age_after(0, at(9)), Duration::from_secs(8));
    }

    #[test]
    fn many_changes_are_kept_in_bounded_room_and_the_age_is_never_too_low() {
        let mut times = ChangeTimes::default();
        for second in 1..=5_000 {
            times.record(second, at(second));
        }

        assert!(times.moments.len() <= MOMENTS_MAX);
        for held in [0_u64, 17, 2_500, 4_998] {
            assert!(times.age_after(held, at(6_000)) >= Duration::from_secs(6_000 - held - 1), "{held}");
        }
        assert_eq!(times.age_after(5_000, at(6_000)), Duration::ZERO);
    }

    #[test]
    fn a_journal_that_was_cut_back_forgets_what_was_beyond() {
        let mut times = ChangeTimes::default();
        times.record(10, at(1));
        times.record(20, at(2));

        times.record(10, at(3));

        assert_eq!(times.age_after(10, at(4)), Duration::ZERO);
        assert_eq!(times.last(), 10);
    }
}
