//! The INVITE server transaction: RFC 3261 figure 7 as RFC 6026 section 8.6 replaces it.
//!
//! ```text
//!  Proceeding --300-699--> Completed --ACK--> Confirmed
//!      |                                                 200 ms: 100 Trying        (Proceeding)
//!      +--------2xx------> Accepted                      Timer G: response again   (Completed)
//!                                                        Timer H, I, L: Terminated
//! ```

use model::Instant;

use crate::{
    TransactionError,
    server::ServerAction,
    settings::{Retransmission, Settings, earlier},
};

/// State of an INVITE server transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerInvite {
    /// The INVITE is with the TU. `trying_at` while nothing was sent; `ends_at` is renewed by each
    /// provisional response.
    Proceeding { trying_at: Option<Instant>, ends_at: Instant },
    /// A response from 300 to 699 was sent, its ACK is awaited.
    Completed { timer_g: Option<Retransmission>, timer_h: Instant },
    /// The ACK came; more of them are absorbed.
    Confirmed { timer_i: Instant },
    /// A 2xx was sent; retransmissions of the INVITE are absorbed, ACKs go to the TU.
    Accepted { timer_l: Instant },
    /// Over.
    Terminated,
}

impl ServerInvite {
    /// Whether a 2xx went by.
    pub(crate) const fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted { .. })
    }

    /// The state after the INVITE went to the TU.
    pub(crate) fn start(now: Instant, settings: &Settings) -> Self {
        Self::Proceeding {
            trying_at: Some(now + settings.trying_after),
            ends_at: now + settings.proceeding_max,
        }
    }

    /// The INVITE came again.
    pub(crate) fn retransmitted(&self) -> ServerAction {
        match self {
            Self::Proceeding { .. } | Self::Completed { .. } => ServerAction::RepeatResponse,
            Self::Confirmed { .. } | Self::Accepted { .. } | Self::Terminated => ServerAction::Nothing,
        }
    }

    /// An ACK that matches came in.
    pub(crate) fn acknowledged(
        &mut self,
        now: Instant,
        is_reliable: bool,
        settings: &Settings,
    ) -> ServerAction {
        match *self {
            Self::Completed { .. } => {
                *self = if is_reliable {
                    Self::Terminated
                } else {
                    Self::Confirmed { timer_i: now + settings.t4 }
                };
                ServerAction::Nothing
            }
            Self::Accepted { .. } => ServerAction::PassAck,
            Self::Proceeding { .. } | Self::Confirmed { .. } | Self::Terminated => ServerAction::Nothing,
        }
    }

    /// The TU answers; on success the response is to be sent.
    ///
    /// Errors: `AlreadyAnswered` after a final response, but for 2xx after 2xx.
    pub(crate) fn respond(
        &mut self,
        now: Instant,
        status: u16,
        is_reliable: bool,
        settings: &Settings,
    ) -> Result<(), TransactionError> {
        match (*self, status) {
            (Self::Proceeding { .. }, ..200) => {
                *self = Self::Proceeding { trying_at: None, ends_at: now + settings.proceeding_max };
                Ok(())
            }
            (Self::Proceeding { .. }, 200..300) => {
                *self = Self::Accepted { timer_l: now + settings.transaction_time() };
                Ok(())
            }
            (Self::Proceeding { .. }, 300..) => {
                *self = Self::Completed {
                    timer_g: Retransmission::first(now, is_reliable, settings),
                    timer_h: now + settings.transaction_time(),
                };
                Ok(())
            }
            (Self::Accepted { .. }, 200..300) => Ok(()),
            (Self::Accepted { .. }, ..200 | 300..)
            | (Self::Completed { .. } | Self::Confirmed { .. } | Self::Terminated, _) => {
                Err(TransactionError::AlreadyAnswered)
            }
        }
    }

    /// Time passed.
    pub(crate) fn timeout(&mut self, now: Instant, settings: &Settings) -> ServerAction {
        match *self {
            Self::Proceeding { ends_at: end, .. }
            | Self::Completed { timer_h: end, .. }
            | Self::Confirmed { timer_i: end }
            | Self::Accepted { timer_l: end }
                if end <= now =>
            {
                *self = Self::Terminated;
                ServerAction::Nothing
            }
            Self::Proceeding { trying_at: Some(trying_at), ends_at } if trying_at <= now => {
                *self = Self::Proceeding { trying_at: None, ends_at };
                ServerAction::SendTrying
            }
            Self::Completed { timer_g: Some(timer_g), timer_h } if timer_g.at <= now => {
                *self = Self::Completed { timer_g: Some(timer_g.following(now, settings.t2)), timer_h };
                ServerAction::RepeatResponse
            }
            Self::Proceeding { .. }
            | Self::Completed { .. }
            | Self::Confirmed { .. }
            | Self::Accepted { .. }
            | Self::Terminated => ServerAction::Nothing,
        }
    }

    /// When [`Self::timeout`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match *self {
            Self::Proceeding { trying_at, ends_at } => Some(trying_at.map_or(ends_at, |at| at.min(ends_at))),
            Self::Completed { timer_g, timer_h } => Some(earlier(timer_g, timer_h)),
            Self::Confirmed { timer_i: end } | Self::Accepted { timer_l: end } => Some(end),
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

    fn new() -> ServerInvite {
        ServerInvite::start(NOW, &settings())
    }

    fn proceeding() -> ServerInvite {
        ServerInvite::Proceeding { trying_at: None, ends_at: after(900_000) }
    }

    fn completed() -> ServerInvite {
        let timer_g = Retransmission::first(NOW, false, &settings());
        ServerInvite::Completed { timer_g, timer_h: after(32_000) }
    }

    const CONFIRMED: ServerInvite = ServerInvite::Confirmed { timer_i: Instant::from_micros(15_000_000) };
    const ACCEPTED: ServerInvite = ServerInvite::Accepted { timer_l: Instant::from_micros(42_000_000) };
    const TERMINATED: ServerInvite = ServerInvite::Terminated;

    #[test]
    fn every_state_takes_every_response_of_the_tu_as_figure_7_says() {
        let answered = Err(TransactionError::AlreadyAnswered);
        let table = [
            (new(), 100, Ok(()), proceeding()),
            (new(), 180, Ok(()), proceeding()),
            (new(), 200, Ok(()), ACCEPTED),
            (new(), 302, Ok(()), completed()),
            (new(), 699, Ok(()), completed()),
            (proceeding(), 199, Ok(()), proceeding()),
            (proceeding(), 299, Ok(()), ACCEPTED),
            (proceeding(), 300, Ok(()), completed()),
            (completed(), 180, answered.clone(), completed()),
            (completed(), 200, answered.clone(), completed()),
            (completed(), 486, answered.clone(), completed()),
            (CONFIRMED, 180, answered.clone(), CONFIRMED),
            (CONFIRMED, 200, answered.clone(), CONFIRMED),
            (CONFIRMED, 486, answered.clone(), CONFIRMED),
            (ACCEPTED, 180, answered.clone(), ACCEPTED),
            (ACCEPTED, 200, Ok(()), ACCEPTED),
            (ACCEPTED, 486, answered.clone(), ACCEPTED),
            (TERMINATED, 180, answered.clone(), TERMINATED),
            (TERMINATED, 200, answered.clone(), TERMINATED),
            (TERMINATED, 486, answered, TERMINATED),
        ];
        for (state, status, result, next) in table {
            let mut reached = state;
            assert_eq!(reached.respond(NOW, status, false, &settings()), result, "{state:?} {status}");
            assert_eq!(reached, next, "{state:?} {status}");
        }
    }

    #[test]
    fn every_state_takes_invite_and_ack_as_figure_7_says() {
        use ServerAction::{Nothing, PassAck, RepeatResponse};
        let table = [
            (new(), RepeatResponse, Nothing, new()),
            (proceeding(), RepeatResponse, Nothing, proceeding()),
            (completed(), RepeatResponse, Nothing, CONFIRMED),
            (CONFIRMED, Nothing, Nothing, CONFIRMED),
            (ACCEPTED, Nothing, PassAck, ACCEPTED),
            (TERMINATED, Nothing, Nothing, TERMINATED),
        ];
        for (state, on_invite, on_ack, next) in table {
            assert_eq!(state.retransmitted(), on_invite, "{state:?}");
            let mut reached = state;
            assert_eq!(reached.acknowledged(NOW, false, &settings()), on_ack, "{state:?}");
            assert_eq!(reached, next, "{state:?}");
        }
    }

    #[test]
    fn every_state_ends_by_its_own_timer_and_not_before() {
        let table = [
            (new(), after(900_000)),
            (proceeding(), after(900_000)),
            (completed(), after(32_000)),
            (CONFIRMED, after(5_000)),
            (ACCEPTED, after(32_000)),
        ];
        for (state, end) in table {
            let mut early = state;
            early.timeout(end - Duration::from_micros(1), &settings());
            assert_ne!(early, TERMINATED, "{state:?}");
            let mut late = state;
            assert_eq!(late.timeout(end, &settings()), ServerAction::Nothing, "{state:?}");
            assert_eq!((late, late.deadline()), (TERMINATED, None), "{state:?}");
        }
        assert_eq!(TERMINATED.clone().timeout(Instant::NEVER_ENDS, &settings()), ServerAction::Nothing);
    }

    #[test]
    fn trying_is_sent_once_after_200_ms_unless_the_tu_answered() {
        let mut state = new();
        assert_eq!(state.deadline(), Some(after(200)));
        assert_eq!(state.timeout(after(199), &settings()), ServerAction::Nothing);
        assert_eq!(state.timeout(after(200), &settings()), ServerAction::SendTrying);
        assert_eq!(state.timeout(after(201), &settings()), ServerAction::Nothing);
        assert_eq!(state.deadline(), Some(after(900_000)));

        let mut answered = new();
        answered.respond(NOW, 180, false, &settings()).unwrap();
        assert_eq!(answered.timeout(after(200), &settings()), ServerAction::Nothing);
    }

    #[test]
    fn timer_g_doubles_up_to_t2_until_timer_h_ends_it() {
        let mut state = completed();
        let mut sent_at = Vec::new();
        while let Some(at) = state.deadline() {
            if state.timeout(at, &settings()) == ServerAction::RepeatResponse {
                sent_at.push(at.saturating_since(NOW).as_millis());
            }
        }
        assert_eq!(sent_at, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
    }

    #[test]
    fn over_a_reliable_transport_timer_g_is_off_timer_h_runs_and_timer_i_is_zero() {
        let mut state = new();
        state.respond(NOW, 486, true, &settings()).unwrap();
        assert_eq!(state, ServerInvite::Completed { timer_g: None, timer_h: after(32_000) });

        assert_eq!(state.acknowledged(NOW, true, &settings()), ServerAction::Nothing);
        assert_eq!(state, TERMINATED);
    }
}
