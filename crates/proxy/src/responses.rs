//! The final responses of a context, and which of them goes upstream. Source: RFC 3261 section 16.7 steps 4,
//! 6 and 7.

use std::sync::Arc;

use sip::OwnedMessage;
use smallvec::SmallVec;

/// A final response that is no 2xx.
#[derive(Clone, Debug)]
pub(crate) enum Final {
    /// From downstream.
    Received(Arc<OwnedMessage>),
    /// What we make of a branch that gave none: 408, 430 seen as 480, 487, 500, 513, or 503 for want of a
    /// way.
    Own(u16),
    /// What stands for a 503 where the request has not even left.
    Unsent,
    /// A 503 because we are full ourselves; the only one that may go upstream as it is.
    Overload,
}

impl Final {
    /// The status it stands for.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Received(response) => response.view().status(),
            Self::Own(status) => *status,
            Self::Unsent | Self::Overload => 503,
        }
    }

    /// Whether another flow to the same device may be tried after it (RFC 5626 section 7): the device itself
    /// has said nothing.
    pub(crate) fn leaves_device_open(&self) -> bool {
        match self {
            Self::Received(_) => matches!(self.status(), 408 | 430),
            Self::Own(_) | Self::Unsent | Self::Overload => true,
        }
    }
}

/// What goes upstream.
#[derive(Clone, Debug)]
pub(crate) enum Best {
    /// This response from downstream, `challenged` = with the challenges of the others.
    Forward(Arc<OwnedMessage>),
    /// A response of our own with this status.
    Own(u16),
    /// Our own 503 with Retry-After.
    Overload,
    /// Nobody could be reached: the driver answers ([`crate::Output::Unreachable`]).
    Unreachable {
        /// Whether the request has not left on any branch.
        is_unsent: bool,
    },
    /// Nothing at all (RFC 4320 section 4.2).
    Nothing,
}

/// The responses so far.
#[derive(Debug, Default)]
pub(crate) struct Responses(SmallVec<[Final; 2]>);

impl Responses {
    /// Adds one (16.7 step 4).
    pub(crate) fn push(&mut self, response: Final) {
        self.0.push(response);
    }

    /// The status of each, in the order in which they came.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = u16> {
        self.0.iter().map(Final::status)
    }

    /// Chooses the best (16.7 step 6). `is_cancelled`: the caller sent a CANCEL, so that a 487 is what it
    /// waits for.
    ///
    /// 6xx before all, then the lowest class; inside 4xx first what tells the caller how to ask again, last
    /// what says only that nobody answered. A 503 of others becomes a 500. Where no branch has anything but
    /// what 16.9 takes for a 503, nobody was reached. For a request that is no INVITE a 408 does not count
    /// (RFC 4320).
    pub(crate) fn best(&self, is_invite: bool, is_cancelled: bool) -> Best {
        let best = self
            .0
            .iter()
            .filter(|candidate| is_invite || candidate.status() != 408)
            .min_by_key(|candidate| rank(candidate, is_cancelled));
        match best {
            None if is_invite => Best::Own(408),
            None => Best::Nothing,
            Some(Final::Overload) => Best::Overload,
            // The last in rank: all others are 503s too.
            Some(response @ (Final::Received(_) | Final::Own(_) | Final::Unsent))
                if response.status() == 503 =>
            {
                if self.is_503_received() {
                    Best::Own(500)
                } else {
                    Best::Unreachable { is_unsent: self.is_unsent() }
                }
            }
            Some(Final::Unsent) => Best::Own(500),
            Some(Final::Own(status)) => Best::Own(*status),
            Some(Final::Received(response)) => Best::Forward(Arc::clone(response)),
        }
    }

    fn is_503_received(&self) -> bool {
        self.0.iter().any(|response| matches!(response, Final::Received(_)) && response.status() == 503)
    }

    fn is_unsent(&self) -> bool {
        self.0.iter().all(|response| matches!(response, Final::Unsent))
    }

    /// The 401 and 407 responses other than `chosen`, whose challenges join it (16.7 step 7).
    pub(crate) fn other_challenges<'a>(
        &'a self,
        chosen: &'a Arc<OwnedMessage>,
    ) -> impl Iterator<Item = &'a Arc<OwnedMessage>> {
        self.0.iter().filter_map(move |candidate| match candidate {
            Final::Received(other) if is_challenge(candidate.status()) && !Arc::ptr_eq(other, chosen) => {
                Some(other)
            }
            Final::Received(_) | Final::Own(_) | Final::Unsent | Final::Overload => None,
        })
    }
}

/// Whether the response carries challenges.
pub(crate) const fn is_challenge(status: u16) -> bool {
    matches!(status, 401 | 407)
}

/// Place in the order of preference: class first, then inside the class; lower is better.
fn rank(candidate: &Final, is_cancelled: bool) -> (u8, u8) {
    let status = candidate.status();
    match status {
        600..=699 => (0, 0),
        487 if is_cancelled => (1, 0),
        300..=399 => (2, 0),
        400..=499 => (3, rank_in_4xx(status)),
        // Anything else is no status of RFC 3261; it counts as a server failure.
        _ => (4, rank_in_5xx(candidate)),
    }
}

const fn rank_in_4xx(status: u16) -> u8 {
    match status {
        401 | 407 => 0,
        // What must change in the request: media, extension, digits, session interval, credentials.
        415 | 420 | 421 | 422 | 484 | 494 => 1,
        // Nobody there, or not any more: anything else tells the caller more.
        480 | 487 => 3,
        408 | 430 => 4,
        _ => 2,
    }
}

fn rank_in_5xx(candidate: &Final) -> u8 {
    match candidate {
        Final::Overload => 1,
        Final::Received(_) | Final::Own(_) | Final::Unsent if candidate.status() == 503 => 2,
        Final::Received(_) | Final::Own(_) | Final::Unsent => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{reply, request};

    fn responses(statuses: &[u16]) -> Responses {
        let mut responses = Responses::default();
        for &status in statuses {
            responses.push(Final::Received(reply(&request("INVITE", "X: y"), status, &[])));
        }
        responses
    }

    /// The status that goes upstream; 0 = none.
    fn best(statuses: &[u16], is_invite: bool, is_cancelled: bool) -> u16 {
        match responses(statuses).best(is_invite, is_cancelled) {
            Best::Forward(response) => response.view().status(),
            Best::Own(status) => status,
            Best::Overload => 503,
            Best::Unreachable { .. } => panic!("somebody answered"),
            Best::Nothing => 0,
        }
    }

    #[test]
    fn the_best_response_is_chosen_by_this_table_16_7_step_6() {
        let table: &[(&[u16], u16)] = &[
            (&[], 408),
            (&[404], 404),
            (&[503, 407, 501, 404], 407),
            (&[404, 603, 302], 603),
            (&[603, 600], 603),
            (&[486, 302], 302),
            (&[500, 404], 404),
            (&[404, 484], 484),
            (&[484, 401], 401),
            (&[404, 420, 415], 420),
            (&[480, 486], 486),
            (&[408, 480], 480),
            (&[408, 487], 487),
            (&[430, 404], 404),
            (&[404, 486], 404),
            (&[503], 500),
            (&[503, 503], 500),
            (&[503, 501], 501),
            (&[503, 408], 408),
            (&[500, 513], 500),
        ];
        for &(statuses, expected) in table {
            assert_eq!(best(statuses, true, false), expected, "{statuses:?}");
        }
    }

    #[test]
    fn after_a_cancel_487_comes_before_all_but_6xx() {
        assert_eq!(best(&[302, 401, 487], true, true), 487);
        assert_eq!(best(&[603, 487], true, true), 603);
        assert_eq!(best(&[404], true, true), 404);
    }

    #[test]
    fn for_a_request_that_is_no_invite_408_does_not_count_rfc_4320() {
        assert_eq!(best(&[408], false, false), 0);
        assert_eq!(best(&[], false, false), 0);
        assert_eq!(best(&[408, 500], false, false), 500);
    }

    #[test]
    fn only_our_own_overload_goes_upstream_as_503() {
        let mut responses = responses(&[503]);
        responses.push(Final::Own(503));
        assert!(matches!(responses.best(true, false), Best::Own(500)));
        responses.push(Final::Overload);
        assert!(matches!(responses.best(true, false), Best::Overload));
        responses.push(Final::Own(500));
        assert!(matches!(responses.best(true, false), Best::Own(500)));
    }

    #[test]
    fn nobody_is_reached_when_there_is_no_response_but_what_stands_for_a_failure_to_send() {
        for timed_out in [false, true] {
            let mut responses = Responses::default();
            responses.push(Final::Own(503));
            responses.push(Final::Own(503));
            assert!(matches!(responses.best(true, false), Best::Unreachable { is_unsent: false }));
            if timed_out {
                responses.push(Final::Own(408));
                assert!(matches!(responses.best(true, false), Best::Own(408)));
                assert!(matches!(responses.best(false, false), Best::Unreachable { is_unsent: false }));
            } else {
                responses.push(Final::Received(reply(&request("INVITE", "X: y"), 404, &[])));
                assert!(matches!(responses.best(true, false), Best::Forward(_)));
            }
        }
    }
    #[test]
    fn only_a_request_that_left_on_no_branch_was_not_sent() {
        let mut responses = Responses::default();
        responses.push(Final::Unsent);
        responses.push(Final::Unsent);
        assert!(matches!(responses.best(false, false), Best::Unreachable { is_unsent: true }));

        responses.push(Final::Own(503));
        assert!(matches!(responses.best(true, false), Best::Unreachable { is_unsent: false }));
    }
}
