//! Storm control: which work a shard puts off while it, or the disk, is too slow for all that comes.
//!
//! After a takeover or a power cut thousands of phones register at once. What they ask for is put off by
//! *measured latency*, never by a count that somebody guessed, and in this order: first REGISTERs that make a
//! new binding (the phone is not reachable yet and tries again by itself), then requests that begin something
//! new. What belongs to a dialog, ACK, CANCEL and emergency calls are never put off.
//!
//! ```text
//!               measured >= limit
//!        Open ─────────────────────▶ Closed
//!          ▲                           │ measured < limit / 2
//!          └───────────────────────────┘ all the time for OPEN_AFTER
//! ```
//! The gate for registrations measures commits and the shard, that for requests the shard alone: a slow disk
//! is no reason to refuse a call.
//!
//! * *Commits*: from handing registrations to the disk to hearing of them, smoothed over about four; a
//!   quarter of the age of the oldest that the disk still has, where that is more, so that a disk that hangs
//!   is noticed.
//! * *The shard*: how long a message waits until the shard is done with its batch, smoothed likewise: what
//!   the kernel says of its time in the socket, and the turn. A datagram that a full socket had to drop waits
//!   longest, until its sender repeats it; so while a socket drops again and again, the wait is counted from
//!   the first of these moments.
//!
//! A value halves every quarter of a second in which nothing was there to be measured, so that a storm ends
//! when nothing comes.

use std::{collections::VecDeque, time::Duration};

use model::{Chance, Instant};

/// The gate for requests closes at so many times the target.
const REQUESTS_LIMIT: u32 = 4;
/// The oldest commit under way counts with this part of its age.
const AGE_PART: u32 = 4;
/// Nothing is taken for slower than so many times the target: one suspension of the machine is one value.
const SAMPLE_MAX: u32 = 12;
/// A socket that dropped nothing for so long has room again.
const LOSING_GAP: Duration = Duration::from_millis(50);
/// How long the measured latency must be low until a gate opens.
const OPEN_AFTER: Duration = Duration::from_secs(1);
/// Time in which a value that is not renewed halves.
const HALF_LIFE: Duration = Duration::from_millis(250);
/// Retry-After is never shorter, in seconds.
const RETRY_AFTER_MIN_S: u32 = 2;
/// Retry-After is spread over at least so many seconds ...
const SPREAD_MIN_S: u32 = 4;
/// ... and over at most so many.
const SPREAD_MAX_S: u32 = 118;
/// The interval grows so that about so many come back in a second.
const COME_BACK_PER_S: u32 = 200;

/// What a shard puts off, and for how long.
#[derive(Clone, Debug)]
pub struct Storm {
    target: Duration,
    commits: Gauge,
    shard: Gauge,
    /// When what the disk still has was handed to it, oldest first.
    submitted: VecDeque<Instant>,
    /// The unbroken row of moments in which a socket dropped what it had no room for.
    losing: Option<Losing>,
    registers: Gate,
    requests: Gate,
    /// REGISTERs put off since the last time that both gates were open.
    registers_put_off: u32,
    /// The same of requests: who floods us with REGISTERs does not make callers wait longer.
    requests_put_off: u32,
}

/// What stood in the sockets when a batch was taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backlog {
    /// How long the oldest datagram of the batch had waited; zero when there were no more.
    pub waited: Duration,
    /// Whether a socket had dropped datagrams since the last batch, because it was full.
    pub is_losing: bool,
}

#[derive(Clone, Copy, Debug)]
struct Losing {
    since: Instant,
    last: Instant,
}

/// What is put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A REGISTER that makes a new binding.
    Register,
    /// A request that begins something new.
    Request,
}

impl Storm {
    /// Both gates open. `target`: the latency up to which all is well.
    pub fn new(target: Duration) -> Self {
        Self {
            target,
            commits: Gauge::default(),
            shard: Gauge::default(),
            submitted: VecDeque::new(),
            losing: None,
            registers: Gate::Open,
            requests: Gate::Open,
            registers_put_off: 0,
            requests_put_off: 0,
        }
    }

    /// Registrations were handed to the disk.
    pub fn submitted(&mut self, now: Instant) {
        if self.submitted.is_empty() {
            self.commits.decay(now);
        }
        self.submitted.push_back(now);
    }

    /// The disk has spoken about the oldest of them.
    pub fn committed(&mut self, now: Instant) {
        if let Some(began) = self.submitted.pop_front() {
            self.commits.add(now, now.saturating_since(began).min(self.target * SAMPLE_MAX));
        }
    }

    /// A turn ended that began at `began`; what stood in the sockets then. `true` when a gate has closed that
    /// was open: a storm begins, or gets worse.
    pub fn turn(&mut self, began: Instant, ended: Instant, backlog: Backlog) -> bool {
        let waited = ended.saturating_since(began).saturating_add(backlog.waited);
        let lost = ended.saturating_since(self.losing_since(began, backlog).unwrap_or(ended));
        self.shard.decay(ended);
        self.shard.add(ended, waited.max(lost).min(self.target * SAMPLE_MAX));
        self.judge(ended)
    }

    /// Since when a socket drops datagrams again and again.
    fn losing_since(&mut self, now: Instant, backlog: Backlog) -> Option<Instant> {
        let row = self.losing.filter(|row| now.saturating_since(row.last) <= LOSING_GAP);
        self.losing = match row {
            row if !backlog.is_losing => row,
            row => Some(Losing { since: row.map_or(now, |row| row.since), last: now }),
        };
        self.losing.map(|row| row.since)
    }

    /// Whether REGISTERs that make a new binding are put off.
    pub const fn defers_registers(&self) -> bool {
        self.registers.is_closed()
    }

    /// Whether requests that begin something new are put off.
    pub const fn defers_requests(&self) -> bool {
        self.requests.is_closed()
    }

    /// One more is put off: the seconds after which it may come again, even over an interval that grows with
    /// those of its kind put off before it in this storm.
    pub fn retry_after_s(&mut self, work: Work, chance: &mut Chance) -> u32 {
        let put_off = match work {
            Work::Register => &mut self.registers_put_off,
            Work::Request => &mut self.requests_put_off,
        };
        *put_off = put_off.saturating_add(1);
        let spread = (*put_off / COME_BACK_PER_S).clamp(SPREAD_MIN_S, SPREAD_MAX_S);
        RETRY_AFTER_MIN_S + u32::try_from(chance.below(u64::from(spread) + 1)).unwrap_or(0)
    }

    fn judge(&mut self, now: Instant) -> bool {
        let shard = self.shard.value(now);
        let commits = match self.submitted.front() {
            Some(began) => self.commits.smoothed.max(now.saturating_since(*began) / AGE_PART),
            None => self.commits.value(now),
        };
        let has_closed = [
            self.registers.judge(now, commits.max(shard), self.target),
            self.requests.judge(now, shard, self.target * REQUESTS_LIMIT),
        ];
        if !self.defers_registers() && !self.defers_requests() {
            (self.registers_put_off, self.requests_put_off) = (0, 0);
        }
        has_closed.contains(&true)
    }
}

/// Retry-After where nothing is overloaded, but many are told the same at the same moment: `least` rounded up
/// to seconds, at least one, and a little more by chance. Never earlier than `least`: that is when a takeover
/// is over.
pub fn spread(least: Duration, chance: &mut Chance) -> u64 {
    let least_s = u64::try_from(least.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1);
    let more = (least_s / 10).max(2);
    least_s.saturating_add(chance.below(more + 1))
}

/// A smoothed latency.
#[derive(Clone, Copy, Debug, Default)]
struct Gauge {
    smoothed: Duration,
    at: Instant,
}

impl Gauge {
    /// Each value counts a quarter.
    fn add(&mut self, now: Instant, value: Duration) {
        self.smoothed = (self.smoothed * 3 + value) / 4;
        self.at = now;
    }

    /// Takes into account that there was no value since the last one.
    fn decay(&mut self, now: Instant) {
        self.smoothed = self.value(now);
        self.at = now;
    }

    fn value(&self, now: Instant) -> Duration {
        let halvings = now.saturating_since(self.at).as_micros() / HALF_LIFE.as_micros();
        let halvings = u32::try_from(halvings).unwrap_or(u32::MAX);
        self.smoothed / 1_u32.checked_shl(halvings).unwrap_or(u32::MAX)
    }
}

/// Lets new work in, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// `high_at`: when the latency was last too high to open.
    Closed {
        high_at: Instant,
    },
}

impl Gate {
    const fn is_closed(self) -> bool {
        match self {
            Self::Open => false,
            Self::Closed { .. } => true,
        }
    }

    /// `true` when it has just closed.
    fn judge(&mut self, now: Instant, measured: Duration, limit: Duration) -> bool {
        match self {
            Self::Open if measured >= limit => {
                *self = Self::Closed { high_at: now };
                return true;
            }
            Self::Open => {}
            Self::Closed { high_at } if measured >= limit / 2 => *high_at = now,
            Self::Closed { high_at } => {
                if now.saturating_since(*high_at) >= OPEN_AFTER {
                    *self = Self::Open;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
