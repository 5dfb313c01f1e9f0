//! What a proxy may be told to do differently.

use std::time::Duration;

use model::limits;

/// Bounds and times of one [`crate::Proxy`]. `Default` gives the values of the RFCs and of `model::limits`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Timer C: how long an INVITE branch may go on without a provisional response above 100. Must be more
    /// than 3 minutes; a shorter one is taken as 3 minutes and one second. Source: RFC 3261 section 16.6 step
    /// 11.
    pub timer_c: Duration,
    /// How long a cancelled branch may take for its final response, 64*T1. Source: RFC 3261 section 9.1.
    pub cancel_wait: Duration,
    /// How long a branch that answered 2xx may send more of them, 64*T1. Source: RFC 6026, Timers L and M.
    pub accepted_for: Duration,
    /// After this time a request that is no INVITE is answered by nobody and gets no new branch, 64*T1.
    /// Source: RFC 4320 section 4.2.
    pub non_invite_max: Duration,
    /// Contexts kept at once. More: [`crate::ProxyError::Full`].
    pub contexts_max: usize,
    /// Targets of one request. The rest is left out, lowest q first.
    pub targets_max: usize,
    /// Branches of one request over its whole life, redirects included. More: the best response so far.
    pub branches_max: usize,
    /// Whether contacts of a 3xx are offered to the driver as new targets (16.7 step 4). Off: the 3xx is a
    /// response like others.
    pub recurse: bool,
    /// Largest Max-Breadth believed, and the one given to a request that has none. Source: RFC 5393 section
    /// 5.3.3.
    pub max_breadth: u32,
    /// Retry-After of a 503 for our own overload, and of a 480 for a user whom nothing reaches now, in
    /// seconds.
    pub retry_after_s: u32,
    /// Key of the loop hash. All shards of one server share it, no two servers do; the same as in
    /// [`crate::Rules::loop_key`].
    pub loop_key: u64,
}

impl Settings {
    /// The least Timer C that is more than three minutes, in whole seconds.
    const TIMER_C_MIN: Duration = Duration::from_secs(181);

    /// Timer C as used.
    pub(crate) fn timer_c(&self) -> Duration {
        self.timer_c.max(Self::TIMER_C_MIN)
    }
}

impl Default for Settings {
    fn default() -> Self {
        let timer_b = Duration::from_secs(32);
        Self {
            timer_c: Self::TIMER_C_MIN,
            cancel_wait: timer_b,
            accepted_for: timer_b,
            non_invite_max: timer_b,
            contexts_max: limits::PROXY_CONTEXTS_MAX,
            targets_max: limits::TARGETS_MAX,
            branches_max: limits::BRANCHES_MAX,
            recurse: false,
            max_breadth: 60,
            retry_after_s: 5,
            loop_key: 0,
        }
    }
}
