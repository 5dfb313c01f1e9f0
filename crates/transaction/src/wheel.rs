//! The timer wheel: one deadline per slot of a table, armed, moved and cancelled in constant time.
//!
//! Nine levels of 64 buckets. A bucket of level 0 holds the deadlines of one tick of 1,024 microseconds,
//! one of level 1 those of 64 ticks, and so on; nine levels cover every [`Instant`]. A deadline sits at the
//! level of the highest digit (base 64) in which its tick differs from `reached`, and falls to lower levels
//! as time passes. Buckets are doubly linked lists through one vector of links, so that nothing is
//! allocated but that vector, and a cancelled deadline leaves nothing behind. Deadlines are kept to the
//! microsecond: the tick only chooses the bucket.

use model::Instant;

const LEVELS: usize = 9;
const BUCKETS: usize = 64;
const DIGIT_BITS: u32 = 6;
const TICK_BITS: u32 = 10;
/// No link; also more slots than a table can have.
const NONE: u32 = u32::MAX;

/// Octets in memory for each slot of the table.
pub(crate) const BYTES_PER_SLOT: usize = size_of::<Link>();

/// Deadlines of the slots of one table, each slot at most one.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// Tick up to which every bucket was emptied or taken apart.
    reached: u64,
    /// Per level, one bit for each bucket that is not empty.
    occupied: [u64; LEVELS],
    buckets: Box<[Bucket]>,
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    first: u32,
    /// No deadline of this bucket is earlier; exact unless the earliest one was cancelled.
    earliest: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    deadline: Instant,
    previous: u32,
    next: u32,
    /// Bucket number (level * 64 + digit); `NONE` while not armed.
    bucket: u32,
}

impl Bucket {
    const EMPTY: Self = Self { first: NONE, earliest: Instant::NEVER_ENDS };
}

impl Link {
    const IDLE: Self = Self { deadline: Instant::START, previous: NONE, next: NONE, bucket: NONE };
}

impl Wheel {
    /// A wheel without deadlines, with room for those of so many slots.
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            reached: 0,
            occupied: [0; LEVELS],
            buckets: vec![Bucket::EMPTY; LEVELS * BUCKETS].into_boxed_slice(),
            links: Vec::with_capacity(slots),
        }
    }

    /// Sets the deadline of `slot`, in place of the one it has.
    pub(crate) fn arm(&mut self, slot: u32, deadline: Instant) {
        let at = slot as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, Link::IDLE);
        }
        if self.links.get(at).is_some_and(|link| link.bucket != NONE && link.deadline == deadline) {
            return;
        }
        self.cancel(slot);
        self.link(slot, deadline);
    }

    /// Takes away the deadline of `slot`, if it has one.
    pub(crate) fn cancel(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        let Link { previous, next, bucket, .. } = std::mem::replace(link, Link::IDLE);
        if bucket == NONE {
            return;
        }
        if let Some(after) = self.links.get_mut(next as usize) {
            after.previous = previous;
        }
        if let Some(before) = self.links.get_mut(previous as usize) {
            before.next = next;
        } else if let Some(head) = self.buckets.get_mut(bucket as usize) {
            head.first = next;
            if next == NONE {
                *head = Bucket::EMPTY;
                self.set_occupied(bucket, false);
            }
        }
    }

    /// Takes one slot whose deadline is not after `now`; `None` when there is none left.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let now_tick = tick(now);
        while let Some((level, digit)) = self.first_bucket() {
            let start = self.start_of(level, digit);
            if start > now_tick {
                break;
            }
            self.reached = self.reached.max(start);
            let bucket = bucket_number(level, digit);
            if level > 0 {
                self.take_apart(bucket);
                continue;
            }
            if let Some(due) = self.first_due(bucket, now) {
                self.cancel(due);
                return Some(due);
            }
            break;
        }
        self.reached = self.reached.max(now_tick.min(self.next_start()));
        None
    }

    /// An instant not after the earliest deadline, and equal to it unless deadlines were cancelled or moved.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let (level, digit) = self.first_bucket()?;
        self.buckets.get(bucket_number(level, digit) as usize).map(|bucket| bucket.earliest)
    }

    fn link(&mut self, slot: u32, deadline: Instant) {
        let tick = tick(deadline).max(self.reached);
        let level = level_of(self.reached, tick);
        let bucket = bucket_number(level, digit_of(tick, level));
        let Some(head) = self.buckets.get_mut(bucket as usize) else { return };
        let next = std::mem::replace(&mut head.first, slot);
        head.earliest = head.earliest.min(deadline);
        if let Some(after) = self.links.get_mut(next as usize) {
            after.previous = slot;
        }
        if let Some(link) = self.links.get_mut(slot as usize) {
            *link = Link { deadline, previous: NONE, next, bucket };
        }
        self.set_occupied(bucket, true);
    }

    /// Moves every deadline of a bucket whose time has begun to the levels below.
    fn take_apart(&mut self, bucket: u32) {
        let Some(head) = self.buckets.get_mut(bucket as usize) else { return };
        let mut slot = std::mem::replace(head, Bucket::EMPTY).first;
        self.set_occupied(bucket, false);
        while let Some(&Link { deadline, next, .. }) = self.links.get(slot as usize) {
            self.link(slot, deadline);
            slot = next;
        }
    }

    /// A slot of this bucket of level 0 that is due. Without one, `earliest` becomes exact again.
    fn first_due(&mut self, bucket: u32, now: Instant) -> Option<u32> {
        let head = self.buckets.get_mut(bucket as usize)?;
        let mut earliest = Instant::NEVER_ENDS;
        let mut slot = head.first;
        while let Some(link) = self.links.get(slot as usize) {
            if link.deadline <= now {
                return Some(slot);
            }
            earliest = earliest.min(link.deadline);
            slot = link.next;
        }
        head.earliest = earliest;
        None
    }

    /// Level and digit of the earliest bucket that is not empty. Lower levels are always earlier.
    fn first_bucket(&self) -> Option<(usize, u32)> {
        let (level, bits) = self.occupied.iter().enumerate().find(|&(_, &bits)| bits != 0)?;
        Some((level, bits.trailing_zeros()))
    }

    fn next_start(&self) -> u64 {
        self.first_bucket().map_or(u64::MAX, |(level, digit)| self.start_of(level, digit))
    }

    /// First tick of a bucket that is not empty: the digits of `reached` above its level, then its own digit.
    fn start_of(&self, level: usize, digit: u32) -> u64 {
        let shift = shift_of(level);
        let above = self.reached >> shift >> DIGIT_BITS << DIGIT_BITS;
        (above | u64::from(digit)) << shift
    }

    fn set_occupied(&mut self, bucket: u32, occupied: bool) {
        let bit = 1_u64 << (bucket & 63);
        if let Some(bits) = self.occupied.get_mut((bucket >> DIGIT_BITS) as usize) {
            if occupied {
                *bits |= bit;
            } else {
                *bits &= !bit;
            }
        }
    }
}

fn tick(at: Instant) -> u64 {
    at.as_micros() >> TICK_BITS
}

fn shift_of(level: usize) -> u32 {
    u32::try_from(level).unwrap_or(0) * DIGIT_BITS
}

/// Level of the highest digit in which the two ticks differ; 0 when they are equal.
fn level_of(reached: u64, tick: u64) -> usize {
    let highest_bit = 63 - ((reached ^ tick) | 63).leading_zeros();
    (highest_bit / DIGIT_BITS) as usize
}

fn digit_of(tick: u64, level: usize) -> u32 {
    u32::try_from(tick >> shift_of(level) & 63).unwrap_or(0)
}

fn bucket_number(level: usize, digit: u32) -> u32 {
    shift_of(level) / DIGIT_BITS * 64 + digit
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn micros(at: u64) -> Instant {
        Instant::from_micros(at)
    }

    #[test]
    fn a_deadline_fires_at_its_microsecond_and_not_before() {
        let mut wheel = Wheel::new(0);
        for deadline in [0, 1, 1_023, 1_024, 65_536, 500_000, 32_000_001, 86_400_000_000] {
            wheel.arm(3, micros(deadline));

            assert_eq!(wheel.next_deadline(), Some(micros(deadline)));
            if deadline > 0 {
                assert_eq!(wheel.pop_due(micros(deadline - 1)), None);
                assert_eq!(wheel.next_deadline(), Some(micros(deadline)));
            }
            assert_eq!(wheel.pop_due(micros(deadline)), Some(3));
            assert_eq!(wheel.pop_due(micros(deadline)), None);
            assert_eq!(wheel.next_deadline(), None);
        }
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_once() {
        let mut wheel = Wheel::new(0);
        assert_eq!(wheel.pop_due(micros(10_000_000)), None);

        wheel.arm(0, micros(5));

        assert_eq!(wheel.pop_due(micros(10_000_000)), Some(0));
    }

    #[test]
    fn the_last_instant_can_be_armed() {
        let mut wheel = Wheel::new(0);
        wheel.arm(0, Instant::NEVER_ENDS);
        assert_eq!(wheel.pop_due(micros(u64::MAX - 1)), None);
        assert_eq!(wheel.pop_due(Instant::NEVER_ENDS), Some(0));
    }

    #[test]
    fn a_cancelled_deadline_never_fires_and_a_moved_one_fires_once() {
        let mut wheel = Wheel::new(0);
        wheel.arm(0, micros(100));
        wheel.arm(1, micros(100));
        wheel.arm(2, micros(100));
        wheel.cancel(1);
        wheel.cancel(1);
        wheel.arm(2, micros(70_000));

        assert_eq!(wheel.pop_due(micros(100)), Some(0));
        assert_eq!(wheel.pop_due(micros(69_999)), None);
        assert_eq!(wheel.pop_due(micros(70_000)), Some(2));
        assert_eq!(wheel.pop_due(Instant::NEVER_ENDS), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u32, u64),
        Cancel(u32),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..40_u32, prop_oneof![0..3_000_u64, 0..40_000_000_u64, 0..1_000_000_000_000_u64])
                .prop_map(|(slot, after)| Step::Arm(slot, after)),
            (0..40_u32).prop_map(Step::Cancel),
            prop_oneof![0..2_000_u64, 0..10_000_000_u64, 0..500_000_000_000_u64].prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn it_fires_what_a_sorted_map_fires(steps in prop::collection::vec(step(), 1..200)) {
            let mut wheel = Wheel::new(0);
            let mut armed = BTreeMap::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Arm(slot, after) => {
                        wheel.arm(slot, micros(now + after));
                        armed.insert(slot, now + after);
                    }
                    Step::Cancel(slot) => {
                        wheel.cancel(slot);
                        armed.remove(&slot);
                    }
                    Step::Wait(time) => {
                        now += time;
                        while let Some(slot) = wheel.pop_due(micros(now)) {
                            let deadline = armed.remove(&slot);
                            prop_assert!(deadline.is_some_and(|at| at <= now), "{slot} {deadline:?} {now}");
                        }
                        prop_assert!(armed.values().all(|&at| at > now));
                    }
                }
                let earliest = armed.values().min().map(|&at| micros(at));
                prop_assert_eq!(wheel.next_deadline().is_some(), earliest.is_some());
                prop_assert!(wheel.next_deadline() <= earliest);
            }
        }

        #[test]
        fn waiting_for_the_next_deadline_reaches_every_deadline(
            deadlines in prop::collection::vec(0..100_000_000_u64, 1..100),
            cancelled in prop::collection::vec(any::<bool>(), 100),
        ) {
            let mut wheel = Wheel::new(0);
            for (slot, &at) in (0..).zip(&deadlines) {
                wheel.arm(slot, micros(at));
            }
            let mut left = deadlines.len();
            for (slot, _) in (0..).zip(&deadlines).filter(|(slot, _)| cancelled[*slot as usize]) {
                wheel.cancel(slot);
                left -= 1;
            }
            let mut turns = 0;
            while let Some(at) = wheel.next_deadline() {
                turns += 1;
                prop_assert!(turns < 2_000, "no progress");
                while let Some(slot) = wheel.pop_due(at) {
                    prop_assert_eq!(micros(deadlines[slot as usize]), at);
                    left -= 1;
                }
            }
            prop_assert_eq!(left, 0);
        }
    }
}
