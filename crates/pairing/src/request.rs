//! Where a pool sends calls and messages for a home pool's users: pure functions over what it knows. Source:
//! decision 0007.

use model::{Epoch, PoolName};

use crate::{Contact, Standing};

/// Whether the servers of the owner answer this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerLink {
    /// One of them answered a moment ago.
    Up,
    /// None did, or a request to it could not be sent just now.
    Down,
}

/// What to do with a request other than REGISTER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestDecision<'a> {
    /// Route it by the bindings kept here: this pool is the registrar.
    Serve {
        /// Under which epoch.
        epoch: Epoch,
    },
    /// Route it by the copy of the owner's bindings, as nobody else can now. That is no act of a registrar:
    /// it writes nothing, needs no epoch, and takes nothing away from an owner that lives on unseen.
    RouteByCopy,
    /// To the owner.
    Forward {
        /// The owner.
        owner: &'a PoolName,
    },
    /// Nobody may serve the users at this moment.
    Unavailable,
}

/// Decides where a request for a user homed on a front-end pool goes; not for REGISTER, which only the owner
/// takes ([`crate::decide_register`]).
///
/// An owner that was heard is asked even when it beats no more; one that beats at the witness but does not
/// answer this pool is of no use to the caller. So the way between the two decides, and silence counts too.
/// The standing is read with a fresh clock.
pub fn decide_request(standing: &Standing, link: OwnerLink) -> RequestDecision<'_> {
    match standing {
        Standing::Serving(authority) => RequestDecision::Serve { epoch: authority.epoch },
        Standing::Paused(_) | Standing::Unknown => RequestDecision::Unavailable,
        Standing::Elsewhere { tenure, contact } => match (contact, link) {
            (Contact::Heard | Contact::Beating, OwnerLink::Up) => {
                RequestDecision::Forward { owner: &tenure.owner }
            }
            (Contact::Silent { .. }, OwnerLink::Up | OwnerLink::Down)
            | (Contact::Heard | Contact::Beating, OwnerLink::Down) => RequestDecision::RouteByCopy,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::Instant;

    use super::*;
    use crate::{
        Authority, Parties, PoolState, PoolView, RegisterDecision, SecondRegistration, Service, Tenure,
        UserServices, decide_register,
    };

    fn name(text: &str) -> PoolName {
        PoolName::new(text).unwrap()
    }

    fn elsewhere(state: PoolState, contact: Contact) -> Standing {
        Standing::Elsewhere { tenure: Tenure::new(name("p1"), Epoch::new(3), state), contact }
    }

    const SILENT: [Contact; 2] = [
        Contact::Silent { takeover_in: None },
        Contact::Silent { takeover_in: Some(Duration::from_secs(7)) },
    ];
    const STATES: [PoolState; 5] = [
        PoolState::Active,
        PoolState::TakenOver,
        PoolState::FailingOver,
        PoolState::FailedOver,
        PoolState::FailingBack,
    ];

    #[test]
    fn an_owner_that_answers_gets_the_request() {
        for state in STATES {
            for contact in [Contact::Heard, Contact::Beating] {
                assert_eq!(
                    decide_request(&elsewhere(state, contact), OwnerLink::Up),
                    RequestDecision::Forward { owner: &name("p1") }
                );
            }
        }
    }

    #[test]
    fn in_place_of_an_owner_that_does_not_answer_the_copy_is_followed() {
        for state in STATES {
            for contact in SILENT {
                for link in [OwnerLink::Up, OwnerLink::Down] {
                    assert_eq!(
                        decide_request(&elsewhere(state, contact), link),
                        RequestDecision::RouteByCopy
                    );
                }
            }
            for contact in [Contact::Heard, Contact::Beating] {
                assert_eq!(
                    decide_request(&elsewhere(state, contact), OwnerLink::Down),
                    RequestDecision::RouteByCopy,
                    "alive, but nothing gets there"
                );
            }
        }
    }

    #[test]
    fn who_is_the_owner_never_looks_at_copies() {
        let epoch = Epoch::new(4);
        let authority = Authority { epoch, until: Instant::from_micros(9), service: Service::Resiliency };
        let paused = Standing::Paused(Tenure::new(name("p2"), epoch, PoolState::TakenOver));

        for link in [OwnerLink::Up, OwnerLink::Down] {
            let serving = Standing::Serving(authority);
            assert_eq!(decide_request(&serving, link), RequestDecision::Serve { epoch });
            assert_eq!(decide_request(&paused, link), RequestDecision::Unavailable);
            assert_eq!(decide_request(&Standing::Unknown, link), RequestDecision::Unavailable);
        }
    }

    #[test]
    fn wherever_the_copy_is_followed_a_register_is_not_accepted() {
        let parties = Parties::at_partner(name("p1"), name("p2"));
        for state in STATES {
            for contact in SILENT.into_iter().chain([Contact::Heard, Contact::Beating]) {
                let standing = elsewhere(state, contact);
                assert_eq!(decide_request(&standing, OwnerLink::Down), RequestDecision::RouteByCopy);
                let register = decide_register(PoolView {
                    parties: &parties,
                    standing: &standing,
                    second_registration: SecondRegistration::Forward,
                    user_services: UserServices::Available,
                });
                assert!(!matches!(register, RegisterDecision::Serve { .. }), "{standing:?}: {register:?}");
            }
        }
    }
}
