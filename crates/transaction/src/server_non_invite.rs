//! The non-INVITE server transaction: RFC 3261 figure 8 with RFC 4320.
//!
//! ```text
//!  Trying --100--> Proceeding           3.5 s: 100 Trying        (Trying)
//!     |  200-699       |                64 * T1: Terminated      (Trying, Proceeding: too late to answer)
//!     +-> Completed <--+                Timer J: Terminated      (Completed)
//! ```

use model::Instant;

use crate::{TransactionError, server::ServerAction, settings::Settings};

/// State of a non-INVITE server transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerNonInvite {
    /// The request is with the TU, nothing was sent.
    Trying { trying_at: Instant, ends_at: Instant },
    /// 100 was sent.
    Proceeding { ends_at: Instant },
    /// A final response was sent.
    Completed { timer_j: Instant },
    /// Over.
    Terminated,
}

impl ServerNonInvite {
    /// The state after the request went to the TU.
    ///
    /// The client's Timer F started no later than now, so 64 * T1 from now nobody waits for an answer.
    pub(crate) fn start(now: Instant, settings: &Settings) -> Self {
        Self::Trying {
            trying_at: now + settings.trying_non_invite_after(),
            ends_at: now + settings.transaction_time(),
        }
    }

    /// The request came again.
    pub(crate) fn retransmitted(&self) -> ServerAction {
        match self {
            Self::Proceeding { .. } | Self::Completed { .. } => ServerAction::RepeatResponse,
            Self::Trying { .. } | Self::Terminated => ServerAction::Nothing,
        }
    }

    /// The TU answers; on success the response is to be sent.
    ///
    /// Errors: `NotAllowed` for 408, for a provisional response but 100, and for 100 over an unreliable
    /// transport before Timer E of the client has reached T2 (RFC 4320); `AlreadyAnswered` after a final
    /// response.
    pub(crate) fn respond(
        &mut self,
        now: Instant,
        status: u16,
        is_reliable: bool,
        settings: &Settings,
    ) -> Result<(), TransactionError> {
        match (*self, status) {
            (Self::Completed { .. } | Self::Terminated, _) => Err(TransactionError::AlreadyAnswered),
            (Self::Trying { trying_at, ends_at }, 100) if is_reliable || trying_at <= now => {
                *self = Self::Proceeding { ends_at };
                Ok(())
            }
            (Self::Proceeding { .. }, 100) => Ok(()),
            (Self::Trying { .. } | Self::Proceeding { .. }, ..200 | 408) => {
                Err(TransactionError::NotAllowed { status })
            }
            (Self::Trying { ends_at, .. } | Self::Proceeding { ends_at }, 200..) if ends_at <= now => {
                Err(TransactionError::TooLate)
            }
            (Self::Trying { .. } | Self::Proceeding { .. }, 200..) => {
                *self = if is_reliable {
                    Self::Terminated
                } else {
                    Self::Completed { timer_j: now + settings.transaction_time() }
                };
                Ok(())
            }
        }
    }

    /// Time passed.
    pub(crate) fn timeout(&mut self, now: Instant) -> ServerAction {
        match *self {
            Self::Trying { ends_at: end, .. }
            | Self::Proceeding { ends_at: end }
            | Self::Completed { timer_j: end }
                if end <= now =>
            {
                *self = Self::Terminated;
                ServerAction::Nothing
            }
            Self::Trying { trying_at, ends_at } if trying_at <= now => {
                *self = Self::Proceeding { ends_at };
                ServerAction::SendTrying
            }
            Self::Trying { .. } | Self::Proceeding { .. } | Self::Completed { .. } | Self::Terminated => {
                ServerAction::Nothing
            }
        }
    }

    /// When [`Self::timeout`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match *self {
            Self::Trying { trying_at, ends_at } => Some(trying_at.min(ends_at)),
            Self::Proceeding { ends_at: end } | Self::Completed { timer_j: end } => Some(end),
            Self::Terminated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Instant = Instant::from_micros(10_000_000);

    fn settings() -> Settings {
        Settings::default()
    }

    fn after(milliseconds: u64) -> Instant {
        NOW + Duration::from_millis(milliseconds)
    }

    fn trying() -> ServerNonInvite {
        ServerNonInvite::start(NOW, &settings())
    }

    fn proceeding() -> ServerNonInvite {
        ServerNonInvite::Proceeding { ends_at: after(32_000) }
    }

    const COMPLETED: ServerNonInvite =
        ServerNonInvite::Completed { timer_j: Instant::from_micros(42_000_000) };
    const TERMINATED: ServerNonInvite = ServerNonInvite::Terminated;

    #[test]
    fn every_state_takes_every_response_of_the_tu_as_figure_8_and_rfc_4320_say() {
        let answered = Err(TransactionError::AlreadyAnswered);
        let not_allowed = |status| Err(TransactionError::NotAllowed { status });
        let table = [
            (trying(), 100, not_allowed(100), trying()),
            (trying(), 180, not_allowed(180), trying()),
            (trying(), 200, Ok(()), COMPLETED),
            (trying(), 401, Ok(()), COMPLETED),
            (trying(), 408, not_allowed(408), trying()),
            (trying(), 699, Ok(()), COMPLETED),
            (proceeding(), 100, Ok(()), proceeding()),
            (proceeding(), 183, not_allowed(183), proceeding()),
            (proceeding(), 200, Ok(()), COMPLETED),
            (proceeding(), 408, not_allowed(408), proceeding()),
            (proceeding(), 503, Ok(()), COMPLETED),
            (COMPLETED, 100, answered.clone(), COMPLETED),
            (COMPLETED, 200, answered.clone(), COMPLETED),
            (COMPLETED, 503, answered.clone(), COMPLETED),
            (TERMINATED, 100, answered.clone(), TERMINATED),
            (TERMINATED, 200, answered.clone(), TERMINATED),
            (TERMINATED, 503, answered, TERMINATED),
        ];
        for (state, status, result, next) in table {
            let mut reached = state;
            assert_eq!(reached.respond(NOW, status, false, &settings()), result, "{state:?} {status}");
            assert_eq!(reached, next, "{state:?} {status}");
        }
    }

    #[test]
    fn every_state_takes_a_retransmission_as_figure_8_says() {
        let table = [
            (trying(), ServerAction::Nothing),
            (proceeding(), ServerAction::RepeatResponse),
            (COMPLETED, ServerAction::RepeatResponse),
            (TERMINATED, ServerAction::Nothing),
        ];
        for (state, action) in table {
            assert_eq!(state.retransmitted(), action, "{state:?}");
        }
    }

    #[test]
    fn every_state_ends_by_its_own_timer_and_not_before() {
        for state in [trying(), proceeding(), COMPLETED] {
            let mut early = state;
            early.timeout(after(32_000) - Duration::from_micros(1));
            assert_ne!(early, TERMINATED, "{state:?}");
            let mut late = state;
            assert_eq!(late.timeout(after(32_000)), ServerAction::Nothing, "{state:?}");
            assert_eq!((late, late.deadline()), (TERMINATED, None), "{state:?}");
        }
        assert_eq!(TERMINATED.clone().timeout(Instant::NEVER_ENDS), ServerAction::Nothing);
    }

    #[test]
    fn trying_is_sent_once_when_the_clients_timer_e_has_reached_t2() {
        let mut state = trying();
        assert_eq!(state.deadline(), Some(after(3_500)));
        assert_eq!(state.timeout(after(3_499)), ServerAction::Nothing);
        assert_eq!(state.timeout(after(3_500)), ServerAction::SendTrying);
        assert_eq!(state, proceeding());
        assert_eq!(state.timeout(after(3_501)), ServerAction::Nothing);
    }

    #[test]
    fn the_tu_may_send_100_at_once_over_a_reliable_transport_else_after_3_5_s() {
        assert_eq!(trying().respond(NOW, 100, true, &settings()), Ok(()));
        assert_eq!(trying().respond(after(3_500), 100, false, &settings()), Ok(()));
        assert!(trying().respond(after(3_499), 100, false, &settings()).is_err());
        assert!(trying().respond(NOW, 180, true, &settings()).is_err());
    }

    #[test]
    fn a_final_response_after_64_t1_is_too_late() {
        for mut state in [trying(), proceeding()] {
            assert_eq!(state.respond(after(32_000), 200, false, &settings()), Err(TransactionError::TooLate));
        }
    }

    #[test]
    fn over_a_reliable_transport_timer_j_is_zero() {
        let mut state = trying();
        assert_eq!(state.respond(NOW, 200, true, &settings()), Ok(()));
        assert_eq!(state, TERMINATED);
    }
}
