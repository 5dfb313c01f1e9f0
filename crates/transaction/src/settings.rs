//! The parameters of the transaction layer and the timers that follow from them.

use std::time::Duration;

use model::{Instant, limits};

/// Parameters of the transactions of one shard. `Default` has the values of RFC 3261 table 4 and
/// `model::limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// T1, the estimate of the round trip: 500 ms. Raised to 1 ms if smaller.
    pub t1: Duration,
    /// T2, the longest interval between retransmissions but those of an INVITE: 4 s. Raised to T1 if smaller.
    pub t2: Duration,
    /// T4, the longest time a message stays in the network: 5 s.
    pub t4: Duration,
    /// How long the TU may take to answer an INVITE before 100 Trying is sent for it: 200 ms (17.2.1).
    pub trying_after: Duration,
    /// How long an INVITE may stay without a new provisional response once there was one (client) or since it
    /// came (server): 15 minutes. A net for what Timer C and the TU left behind; keep it well above Timer C.
    pub proceeding_max: Duration,
    /// Server transactions at a time; at most 2^24. More: [`crate::TransactionError::Full`].
    pub server_max: usize,
    /// Answered server transactions that wait for nothing but retransmissions. More: the oldest ends early.
    pub answered_max: usize,
    /// Client transactions at a time; at most 2^24. More: [`crate::TransactionError::Full`].
    pub client_max: usize,
    /// Secret that keys the hashes of the tables, so that nobody can choose colliding branches. Random in
    /// production.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            trying_after: Duration::from_millis(200),
            proceeding_max: Duration::from_secs(15 * 60),
            server_max: limits::SERVER_TRANSACTIONS_MAX,
            answered_max: limits::SERVER_TRANSACTIONS_ANSWERED_MAX,
            client_max: limits::CLIENT_TRANSACTIONS_MAX,
            seed: 0,
        }
    }
}

impl Settings {
    /// 64 * T1: Timers B, F, H, L and M, and J over an unreliable transport. 32 s.
    pub fn transaction_time(&self) -> Duration {
        self.t1.saturating_mul(64)
    }

    /// Timer D over an unreliable transport: 64 * T1, but at least 32 s whatever T1 is (RFC 6026 section
    /// 8.4).
    pub fn timer_d(&self) -> Duration {
        self.transaction_time().max(Duration::from_secs(32))
    }

    /// Time until a client's Timer E is reset to T2: 3.5 s. Neither earlier than this (over an unreliable
    /// transport) nor later does a non-INVITE server transaction send 100 (RFC 4320 section 4.1).
    pub fn trying_non_invite_after(&self) -> Duration {
        let mut fires_after = self.t1;
        let mut interval = self.t1.saturating_mul(2);
        while interval < self.t2 {
            fires_after = fires_after.saturating_add(interval);
            interval = interval.saturating_mul(2);
        }
        fires_after
    }

    /// The same settings within the bounds that the fields name.
    pub(crate) fn bounded(mut self) -> Self {
        self.t1 = self.t1.max(Duration::from_millis(1));
        self.t2 = self.t2.max(self.t1);
        self.server_max = self.server_max.min(crate::table::SLOTS_MAX);
        self.client_max = self.client_max.min(crate::table::SLOTS_MAX);
        self
    }
}

/// Timer A, E or G: when the message is sent again, and after which interval that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retransmission {
    pub at: Instant,
    interval: Duration,
}

impl Retransmission {
    /// The first one, T1 after `now`; `None` over a reliable transport.
    pub(crate) fn first(now: Instant, is_reliable: bool, settings: &Settings) -> Option<Self> {
        (!is_reliable).then(|| Self::after(now, settings.t1))
    }

    /// The one `interval` after `now`.
    pub(crate) fn after(now: Instant, interval: Duration) -> Self {
        Self { at: now + interval, interval }
    }

    /// The next one after this one fired at `now`: twice the interval, at most `interval_max`.
    ///
    /// Counted from `now`, so that a process that was stopped for a while sends one message, not a burst.
    pub(crate) fn following(self, now: Instant, interval_max: Duration) -> Self {
        Self::after(now, self.interval.saturating_mul(2).min(interval_max))
    }
}

/// The earlier of a retransmission, if there is one, and the end of a state.
pub(crate) fn earlier(retransmission: Option<Retransmission>, end: Instant) -> Instant {
    retransmission.map_or(end, |retransmission| retransmission.at.min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_timers_are_those_of_rfc_3261_table_4() {
        let settings = Settings::default();

        assert_eq!(settings.transaction_time(), Duration::from_secs(32));
        assert_eq!(settings.timer_d(), Duration::from_secs(32));
        assert_eq!(settings.trying_non_invite_after(), Duration::from_millis(3_500));
    }

    #[test]
    fn timers_follow_t1_but_timer_d_never_falls_below_32_seconds() {
        let short = Settings { t1: Duration::from_millis(100), ..Settings::default() };
        let long = Settings { t1: Duration::from_secs(1), ..Settings::default() };

        assert_eq!(short.transaction_time(), Duration::from_millis(6_400));
        assert_eq!(short.timer_d(), Duration::from_secs(32));
        assert_eq!(long.timer_d(), Duration::from_secs(64));
        assert_eq!(long.trying_non_invite_after(), Duration::from_secs(3));
    }

    #[test]
    fn settings_that_would_spin_are_raised() {
        let zero = Settings { t1: Duration::ZERO, t2: Duration::ZERO, ..Settings::default() }.bounded();

        assert_eq!((zero.t1, zero.t2), (Duration::from_millis(1), Duration::from_millis(1)));
    }
}
