//! The non-INVITE client transaction: RFC 3261 figure 6.
//!
//! ```text
//!  Trying --1xx--> Proceeding           Timer E: request again   (Trying: doubling to T2; Proceeding: T2)
//!     |  200-699      |                 Timer F: timeout         (both)
//!     +-> Completed <-+                 Timer K: Terminated      (Completed)
//! ```

use model::Instant;

use crate::{
    client::ClientAction,
    settings::{Retransmission, Settings, earlier},
};

/// State of a non-INVITE client transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientNonInvite {
    /// The request was sent, nothing came back.
    Trying { timer_e: Option<Retransmission>, timer_f: Instant },
    /// A provisional response came.
    Proceeding { timer_e: Option<Retransmission>, timer_f: Instant },
    /// A final response came; its retransmissions are absorbed.
    Completed { timer_k: Instant },
    /// Over.
    Terminated,
}

impl ClientNonInvite {
    /// The state after the request was sent.
    pub(crate) fn start(now: Instant, is_reliable: bool, settings: &Settings) -> Self {
        Self::Trying {
            timer_e: Retransmission::first(now, is_reliable, settings),
            timer_f: now + settings.transaction_time(),
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
            (Self::Trying { timer_e, timer_f } | Self::Proceeding { timer_e, timer_f }, ..200) => {
                *self = Self::Proceeding { timer_e, timer_f };
                ClientAction::Deliver
            }
            (Self::Trying { .. } | Self::Proceeding { .. }, 200..) => {
                *self = if is_reliable {
                    Self::Terminated
                } else {
                    Self::Completed { timer_k: now + settings.t4 }
                };
                ClientAction::Deliver
            }
            (Self::Completed { .. } | Self::Terminated, _) => ClientAction::Nothing,
        }
    }

    /// Time passed.
    pub(crate) fn timeout(&mut self, now: Instant, settings: &Settings) -> ClientAction {
        match *self {
            Self::Trying { timer_f, .. } | Self::Proceeding { timer_f, .. } if timer_f <= now => {
                *self = Self::Terminated;
                ClientAction::TimedOut
            }
            Self::Trying { timer_e: Some(timer_e), timer_f } if timer_e.at <= now => {
                *self = Self::Trying { timer_e: Some(timer_e.following(now, settings.t2)), timer_f };
                ClientAction::SendRequest
            }
            Self::Proceeding { timer_e: Some(timer_e), timer_f } if timer_e.at <= now => {
                *self = Self::Proceeding { timer_e: Some(Retransmission::after(now, settings.t2)), timer_f };
                ClientAction::SendRequest
            }
            Self::Completed { timer_k } if timer_k <= now => {
                *self = Self::Terminated;
                ClientAction::Nothing
            }
            Self::Trying { .. } | Self::Proceeding { .. } | Self::Completed { .. } | Self::Terminated => {
                ClientAction::Nothing
            }
        }
    }

    /// The transport reports that what was sent does not arrive.
    pub(crate) fn transport_failed(&mut self) -> ClientAction {
        match *self {
            Self::Trying { .. } | Self::Proceeding { .. } => {
                *self = Self::Terminated;
                ClientAction::Failed
            }
            Self::Completed { .. } | Self::Terminated => ClientAction::Nothing,
        }
    }

    /// When [`Self::timeout`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match *self {
            Self::Trying { timer_e, timer_f } | Self::Proceeding { timer_e, timer_f } => {
                Some(earlier(timer_e, timer_f))
            }
            Self::Completed { timer_k } => Some(timer_k),
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

    fn trying() -> ClientNonInvite {
        ClientNonInvite::start(NOW, false, &settings())
    }

    fn proceeding() -> ClientNonInvite {
        let mut state = trying();
        state.response(NOW, 100, false, &settings());
        state
    }

    const COMPLETED: ClientNonInvite =
        ClientNonInvite::Completed { timer_k: Instant::from_micros(15_000_000) };
    const TERMINATED: ClientNonInvite = ClientNonInvite::Terminated;

    #[test]
    fn every_state_takes_every_response_as_figure_6_says() {
        use ClientAction::{Deliver, Nothing};
        assert!(matches!(proceeding(), ClientNonInvite::Proceeding { timer_e: Some(_), .. }));
        let table = [
            (trying(), 100, Deliver, proceeding()),
            (trying(), 199, Deliver, proceeding()),
            (trying(), 200, Deliver, COMPLETED),
            (trying(), 300, Deliver, COMPLETED),
            (trying(), 699, Deliver, COMPLETED),
            (proceeding(), 100, Deliver, proceeding()),
            (proceeding(), 200, Deliver, COMPLETED),
            (proceeding(), 401, Deliver, COMPLETED),
            (COMPLETED, 100, Nothing, COMPLETED),
            (COMPLETED, 200, Nothing, COMPLETED),
            (COMPLETED, 503, Nothing, COMPLETED),
            (TERMINATED, 100, Nothing, TERMINATED),
            (TERMINATED, 200, Nothing, TERMINATED),
            (TERMINATED, 503, Nothing, TERMINATED),
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
            (trying(), after(32_000), ClientAction::TimedOut),
            (proceeding(), after(32_000), ClientAction::TimedOut),
            (COMPLETED, after(5_000), ClientAction::Nothing),
        ];
        for (state, end, action) in table {
            let mut early = state;
            early.timeout(end - Duration::from_micros(1), &settings());
            assert_ne!(early, TERMINATED, "{state:?}");
            let mut late = state;
            assert_eq!(late.timeout(end, &settings()), action, "{state:?}");
            assert_eq!((late, late.deadline()), (TERMINATED, None), "{state:?}");
        }
        assert_eq!(TERMINATED.clone().timeout(Instant::NEVER_ENDS, &settings()), ClientAction::Nothing);
    }

    #[test]
    fn every_state_takes_a_transport_error_as_figure_6_says() {
        let table = [
            (trying(), ClientAction::Failed, TERMINATED),
            (proceeding(), ClientAction::Failed, TERMINATED),
            (COMPLETED, ClientAction::Nothing, COMPLETED),
            (TERMINATED, ClientAction::Nothing, TERMINATED),
        ];
        for (state, action, next) in table {
            let mut reached = state;
            assert_eq!((reached.transport_failed(), reached), (action, next), "{state:?}");
        }
    }

    fn sent_at(mut state: ClientNonInvite) -> Vec<u128> {
        let mut sent_at = Vec::new();
        while let Some(at) = state.deadline() {
            if state.timeout(at, &settings()) == ClientAction::SendRequest {
                sent_at.push(at.saturating_since(NOW).as_millis());
            }
        }
        sent_at
    }

    #[test]
    fn timer_e_doubles_up_to_t2_while_trying() {
        assert_eq!(
            sent_at(trying()),
            [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]
        );
    }

    #[test]
    fn timer_e_is_t2_once_a_provisional_response_came() {
        assert_eq!(sent_at(proceeding()), [500, 4_500, 8_500, 12_500, 16_500, 20_500, 24_500, 28_500]);
    }

    #[test]
    fn over_a_reliable_transport_nothing_is_repeated_and_timer_k_is_zero() {
        let mut state = ClientNonInvite::start(NOW, true, &settings());
        assert_eq!(state.deadline(), Some(after(32_000)));

        assert_eq!(state.response(NOW, 200, true, &settings()), ClientAction::Deliver);
        assert_eq!(state, TERMINATED);
    }
}
