//! The INVITE client transaction: RFC 3261 figure 5 as RFC 6026 section 8.4 replaces it.
//!
//! ```text
//!  Calling --1xx--> Proceeding          Timer A: INVITE again    (Calling)
//!     |  \          /   |               Timer B: timeout         (Calling)
//!     |   300-699: ACK  |               Timer D, M: Terminated   (Completed, Accepted)
//!    2xx      |        2xx
//!     |       v         |
//!     |   Completed     |               Completed: 300-699 again repeats the ACK
//!     +--> Accepted <---+               Accepted: every 2xx goes to the TU
//! ```

use std::time::Duration;

use model::Instant;

use crate::{
    client::ClientAction,
    settings::{Retransmission, Settings, earlier},
};

/// State of an INVITE client transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientInvite {
    /// The INVITE was sent, nothing came back.
    Calling { timer_a: Option<Retransmission>, timer_b: Instant },
    /// A provisional response came. `ends_at` is renewed by each one, and final once the INVITE is cancelled.
    Proceeding { ends_at: Instant, is_cancelled: bool },
    /// A response from 300 to 699 came and the ACK was sent.
    Completed { timer_d: Instant },
    /// A 2xx came.
    Accepted { timer_m: Instant },
    /// Over.
    Terminated,
}

impl ClientInvite {
    /// Whether a 2xx went by.
    pub(crate) const fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted { .. })
    }

    /// The state after the INVITE was sent.
    pub(crate) fn start(now: Instant, is_reliable: bool, settings: &Settings) -> Self {
        Self::Calling {
            timer_a: Retransmission::first(now, is_reliable, settings),
            timer_b: now + settings.transaction_time(),
        }
    }

    /// A response that matches came in.
    pub(crate) fn response(
        &mut self,
        now: Instant,
        status: u16,
        is_reliable: bool,
        settings: &Settings,
    ) -> ClientAction {
        match (*self, status) {
            (Self::Calling { .. }, ..200) => {
                *self = Self::Proceeding { ends_at: now + settings.proceeding_max, is_cancelled: false };
                ClientAction::Deliver
            }
            (Self::Proceeding { ends_at, is_cancelled }, ..200) => {
                let ends_at = if is_cancelled { ends_at } else { now + settings.proceeding_max };
                *self = Self::Proceeding { ends_at, is_cancelled };
                ClientAction::Deliver
            }
            (Self::Calling { .. } | Self::Proceeding { .. }, 200..300) => {
                *self = Self::Accepted { timer_m: now + settings.transaction_time() };
                ClientAction::Deliver
            }
            (Self::Calling { .. } | Self::Proceeding { .. }, 300..) => {
                *self = if is_reliable {
                    Self::Terminated
                } else {
                    Self::Completed { timer_d: now + settings.timer_d() }
                };
                ClientAction::AcknowledgeAndDeliver
            }
            (Self::Completed { .. }, 300..) => ClientAction::RepeatAck,
            (Self::Accepted { .. }, 200..300) => ClientAction::Deliver,
            (Self::Completed { .. }, ..300)
            | (Self::Accepted { .. }, ..200 | 300..)
            | (Self::Terminated, _) => ClientAction::Nothing,
        }
    }

    /// Time passed.
    pub(crate) fn timeout(&mut self, now: Instant) -> ClientAction {
        match *self {
            Self::Calling { timer_b: end, .. } | Self::Proceeding { ends_at: end, .. } if end <= now => {
                *self = Self::Terminated;
                ClientAction::TimedOut
            }
            Self::Calling { timer_a: Some(timer_a), timer_b } if timer_a.at <= now => {
                *self = Self::Calling { timer_a: Some(timer_a.following(now, Duration::MAX)), timer_b };
                ClientAction::SendRequest
            }
            Self::Completed { timer_d: end } | Self::Accepted { timer_m: end } if end <= now => {
                *self = Self::Terminated;
                ClientAction::Nothing
            }
            Self::Calling { .. }
            | Self::Proceeding { .. }
            | Self::Completed { .. }
            | Self::Accepted { .. }
            | Self::Terminated => ClientAction::Nothing,
        }
    }

    /// The transport reports that what was sent does not arrive.
    ///
    /// In Completed the TU has its final response: the transaction ends without a second outcome. In
    /// Proceeding and Accepted nothing is being sent, and a server may answer over a new connection
    /// (18.2.2).
    pub(crate) fn transport_failed(&mut self) -> ClientAction {
        match *self {
            Self::Calling { .. } => {
                *self = Self::Terminated;
                ClientAction::Failed
            }
            Self::Completed { .. } => {
                *self = Self::Terminated;
                ClientAction::Nothing
            }
            Self::Proceeding { .. } | Self::Accepted { .. } | Self::Terminated => ClientAction::Nothing,
        }
    }

    /// A CANCEL was sent for this INVITE: without a final response 64 * T1 later it is over (9.1).
    pub(crate) fn cancelled(&mut self, now: Instant, settings: &Settings) {
        match *self {
            Self::Proceeding { ends_at, .. } => {
                let ends_at = ends_at.min(now + settings.transaction_time());
                *self = Self::Proceeding { ends_at, is_cancelled: true };
            }
            Self::Calling { .. } | Self::Completed { .. } | Self::Accepted { .. } | Self::Terminated => {}
        }
    }

    /// When [`Self::timeout`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match *self {
            Self::Calling { timer_a, timer_b } => Some(earlier(timer_a, timer_b)),
            Self::Proceeding { ends_at: end, .. }
            | Self::Completed { timer_d: end }
            | Self::Accepted { timer_m: end } => Some(end),
            Self::Terminated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_micros(10_000_000);

    fn settings() -> Settings {
        Settings::default()
    }

    fn after(milliseconds: u64) -> Instant {
        NOW + Duration::from_millis(milliseconds)
    }

    fn calling() -> ClientInvite {
        ClientInvite::start(NOW, false, &settings())
    }

    fn proceeding() -> ClientInvite {
        ClientInvite::Proceeding { ends_at: after(900_000), is_cancelled: false }
    }

    const COMPLETED: ClientInvite = ClientInvite::Completed { timer_d: Instant::from_micros(42_000_000) };
    const ACCEPTED: ClientInvite = ClientInvite::Accepted { timer_m: Instant::from_micros(42_000_000) };
    const TERMINATED: ClientInvite = ClientInvite::Terminated;

    #[test]
    fn every_state_takes_every_response_as_figure_5_says() {
        use ClientAction::{AcknowledgeAndDeliver, Deliver, Nothing, RepeatAck};
        let table = [
            (calling(), 100, Deliver, proceeding()),
            (calling(), 183, Deliver, proceeding()),
            (calling(), 200, Deliver, ACCEPTED),
            (calling(), 299, Deliver, ACCEPTED),
            (calling(), 300, AcknowledgeAndDeliver, COMPLETED),
            (calling(), 699, AcknowledgeAndDeliver, COMPLETED),
            (proceeding(), 100, Deliver, proceeding()),
            (proceeding(), 199, Deliver, proceeding()),
            (proceeding(), 202, Deliver, ACCEPTED),
            (proceeding(), 486, AcknowledgeAndDeliver, COMPLETED),
            (COMPLETED, 180, Nothing, COMPLETED),
            (COMPLETED, 200, Nothing, COMPLETED),
            (COMPLETED, 300, RepeatAck, COMPLETED),
            (COMPLETED, 603, RepeatAck, COMPLETED),
            (ACCEPTED, 180, Nothing, ACCEPTED),
            (ACCEPTED, 200, Deliver, ACCEPTED),
            (ACCEPTED, 404, Nothing, ACCEPTED),
            (TERMINATED, 100, Nothing, TERMINATED),
            (TERMINATED, 200, Nothing, TERMINATED),
            (TERMINATED, 500, Nothing, TERMINATED),
        ];
        for (state, status, action, next) in table {
            let mut reached = state;
            assert_eq!(reached.response(NOW, status, false, &settings()), action, "{state:?} {status}");
            assert_eq!(reached, next, "{state:?} {status}");
        }
    }

    #[test]
    fn every_state_ends_by_its_own_timer_and_not_before() {
        let table = [
            (calling(), after(32_000), ClientAction::TimedOut),
            (proceeding(), after(900_000), ClientAction::TimedOut),
            (COMPLETED, after(32_000), ClientAction::Nothing),
            (ACCEPTED, after(32_000), ClientAction::Nothing),
        ];
        for (state, end, action) in table {
            let mut early = state;
            early.timeout(end - Duration::from_micros(1));
            assert_ne!(early, TERMINATED, "{state:?}");
            let mut late = state;
            assert_eq!(late.timeout(end), action, "{state:?}");
            assert_eq!((late, late.deadline()), (TERMINATED, None), "{state:?}");
        }
        assert_eq!(TERMINATED.clone().timeout(Instant::NEVER_ENDS), ClientAction::Nothing);
    }

    #[test]
    fn every_state_takes_a_transport_error_as_figure_5_says() {
        let table = [
            (calling(), ClientAction::Failed, TERMINATED),
            (proceeding(), ClientAction::Nothing, proceeding()),
            (COMPLETED, ClientAction::Nothing, TERMINATED),
            (ACCEPTED, ClientAction::Nothing, ACCEPTED),
            (TERMINATED, ClientAction::Nothing, TERMINATED),
        ];
        for (state, action, next) in table {
            let mut reached = state;
            assert_eq!((reached.transport_failed(), reached), (action, next), "{state:?}");
        }
    }

    #[test]
    fn timer_a_doubles_without_a_bound_until_timer_b_ends_it() {
        let mut state = calling();
        let mut sent_at = Vec::new();
        while let Some(at) = state.deadline() {
            if state.timeout(at) == ClientAction::SendRequest {
                sent_at.push(at.saturating_since(NOW).as_millis());
            }
        }
        assert_eq!(sent_at, [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    }

    #[test]
    fn over_a_reliable_transport_the_invite_is_not_repeated_and_timer_d_is_zero() {
        let mut state = ClientInvite::start(NOW, true, &settings());
        assert_eq!(state.deadline(), Some(after(32_000)));

        assert_eq!(state.response(NOW, 404, true, &settings()), ClientAction::AcknowledgeAndDeliver);
        assert_eq!(state, TERMINATED);

        let mut accepted = ClientInvite::start(NOW, true, &settings());
        accepted.response(NOW, 200, true, &settings());
        assert_eq!(accepted, ACCEPTED);
    }

    #[test]
    fn a_cancelled_invite_has_64_t1_left_whatever_provisional_response_comes() {
        let mut state = proceeding();
        state.cancelled(NOW, &settings());

        assert_eq!(state.response(after(10_000), 180, false, &settings()), ClientAction::Deliver);
        assert_eq!(state.deadline(), Some(after(32_000)));
        assert_eq!(state.timeout(after(32_000)), ClientAction::TimedOut);

        for untouched in [calling(), COMPLETED, ACCEPTED, TERMINATED] {
            let mut state = untouched;
            state.cancelled(NOW, &settings());
            assert_eq!(state, untouched);
        }
    }

    #[test]
    fn a_provisional_response_renews_the_time_an_invite_may_proceed() {
        let mut state = proceeding();
        state.response(after(60_000), 180, false, &settings());
        assert_eq!(state.deadline(), Some(after(960_000)));
    }
}
