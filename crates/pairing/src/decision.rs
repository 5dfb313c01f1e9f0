//! What a pool does with a REGISTER: pure functions over what it knows. Source: product, section 4.

use std::time::Duration;

use model::{Epoch, PoolName};

use crate::{Contact, Parties, Service, Standing};

/// Retry-After where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Retry-After while the users are being handed over: that takes less than two seconds.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// Retry-After where only a command or a repaired branch helps.
const RETRY_LATE: Duration = Duration::from_secs(300);

/// What to do with a REGISTER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterDecision {
    /// Be the registrar.
    Serve {
        /// Stamp of the write.
        epoch: Epoch,
        /// What the 200 OK promises the phone.
        service: Service,
    },
    /// Be the edge of a flow to the owner: forward with a Path (RFC 5626).
    Forward {
        /// The owner.
        owner: PoolName,
    },
    /// 302 with these contacts, ranked: the owner first (q=0.7), then its backup, which is this pool (q=0.3).
    /// Never 301, the home does not change.
    Redirect {
        /// The owner.
        owner: PoolName,
        /// Whom to try after it; `None` at the home pool that does not own: trying it again is of no use.
        then: Option<PoolName>,
    },
    /// 503 with Retry-After.
    Unavailable {
        /// At least one second.
        retry_after: Duration,
    },
}

impl RegisterDecision {
    fn unavailable(retry_after: Duration) -> Self {
        Self::Unavailable { retry_after: retry_after.max(Duration::from_secs(1)) }
    }
}

/// What the partner does with a REGISTER whose owner is alive. Source: topology, `second_registration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SecondRegistration {
    /// Forward it: the phone has a second flow through the partner.
    #[default]
    Forward,
    /// Redirect it: the phone registers at the owner.
    Redirect,
}

/// Whether this pool's back end gives user services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UserServices {
    /// It does, or has not been away for long.
    #[default]
    Available,
    /// Its back end is lost for longer than the threshold.
    Lost,
}

/// What a pool of a pair knows when a REGISTER of a user of the pair's home pool reaches it.
#[derive(Clone, Copy, Debug)]
pub struct PoolView<'a> {
    /// The home pool and the two pools of the pair.
    pub parties: &'a Parties,
    /// The ownership of the home pool as this pool sees it, read with a fresh clock.
    pub standing: &'a Standing,
    /// The pool's setting.
    pub second_registration: SecondRegistration,
    /// This pool's back end.
    pub user_services: UserServices,
}

/// Decides what to do with a REGISTER of a user homed on a front-end pool.
///
/// Decide again when the answer is ready: the authority may have ended meanwhile.
pub fn decide_register(view: PoolView<'_>) -> RegisterDecision {
    match view.standing {
        Standing::Serving(authority) => {
            let service = match view.user_services {
                UserServices::Available => authority.service,
                UserServices::Lost => Service::Resiliency,
            };
            RegisterDecision::Serve { epoch: authority.epoch, service }
        }
        Standing::Paused(tenure) if tenure.state.is_moving() => RegisterDecision::unavailable(RETRY_SOON),
        Standing::Paused(_) | Standing::Unknown => RegisterDecision::unavailable(RETRY_AFTER),
        Standing::Elsewhere { tenure, contact } => {
            send_to(&tenure.owner, *contact, view.parties, view.second_registration)
        }
    }
}

fn send_to(
    owner: &PoolName,
    contact: Contact,
    parties: &Parties,
    second_registration: SecondRegistration,
) -> RegisterDecision {
    let then = (!parties.is_home()).then(|| parties.me.clone());
    let owner = owner.clone();
    match (contact, second_registration) {
        (Contact::Silent { takeover_in }, _) => {
            RegisterDecision::unavailable(takeover_in.unwrap_or(RETRY_AFTER))
        }
        (Contact::Heard, SecondRegistration::Forward) if !parties.is_home() => {
            RegisterDecision::Forward { owner }
        }
        (Contact::Heard | Contact::Beating, SecondRegistration::Forward | SecondRegistration::Redirect) => {
            RegisterDecision::Redirect { owner, then }
        }
    }
}

/// Whether a branch's users follow their associated pool's users to its partner. Source: topology,
/// `branch_recovery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BranchRecovery {
    /// They do: our extension.
    #[default]
    Follow,
    /// They do not: the rule of the original.
    None,
}

/// What a registrar knows when a REGISTER of a user homed on a branch appliance reaches it.
#[derive(Clone, Copy, Debug)]
pub enum BranchView<'a> {
    /// At the appliance itself, whose authority is static.
    Appliance {
        /// The pool that gives user services now and that the appliance reaches: the associated pool or its
        /// partner; `None` when it reaches none.
        services_from: Option<&'a PoolName>,
        /// The associated pool.
        associated: &'a PoolName,
        /// The branch's setting.
        recovery: BranchRecovery,
    },
    /// At the associated pool or at its partner.
    Pool {
        /// The appliance.
        branch: &'a PoolName,
        /// How this pool hears the appliance; `takeover_in` is the rest of the takeover time.
        contact: Contact,
        /// This pool as one of the pair whose home pool is the associated pool, and its ownership.
        pool: PoolView<'a>,
        /// The branch's setting.
        recovery: BranchRecovery,
    },
}

/// Decides what to do with a REGISTER of a user homed on a branch appliance.
pub fn decide_branch_register(view: BranchView<'_>) -> RegisterDecision {
    match view {
        BranchView::Appliance { services_from, associated, recovery } => {
            let is_full =
                services_from.is_some_and(|pool| pool == associated || recovery == BranchRecovery::Follow);
            let service = if is_full { Service::Full } else { Service::Resiliency };
            RegisterDecision::Serve { epoch: Epoch::ZERO, service }
        }
        BranchView::Pool { branch, contact, pool, recovery } => match contact {
            Contact::Heard | Contact::Beating => reach_branch(branch, contact, pool),
            Contact::Silent { takeover_in: Some(left) } if !left.is_zero() => {
                RegisterDecision::unavailable(left)
            }
            Contact::Silent { .. } => back_up_branch(pool, recovery),
        },
    }
}

/// The appliance is up: its phones belong there.
fn reach_branch(branch: &PoolName, contact: Contact, pool: PoolView<'_>) -> RegisterDecision {
    let is_forwarded = contact == Contact::Heard && pool.second_registration == SecondRegistration::Forward;
    if pool.parties.is_home() && is_forwarded {
        return RegisterDecision::Forward { owner: branch.clone() };
    }
    RegisterDecision::Redirect { owner: branch.clone(), then: Some(pool.parties.home.clone()) }
}

/// The appliance is silent: the associated pool backs it up, and only with `Follow` whoever owns that pool.
fn back_up_branch(pool: PoolView<'_>, recovery: BranchRecovery) -> RegisterDecision {
    let owner = match pool.standing {
        Standing::Serving(_) => Some(&pool.parties.me),
        Standing::Elsewhere { tenure, .. } => Some(&tenure.owner),
        Standing::Paused(_) | Standing::Unknown => None,
    };
    let is_at_home = owner.is_none_or(|owner| *owner == pool.parties.home);
    match recovery {
        BranchRecovery::None if !is_at_home => RegisterDecision::unavailable(RETRY_LATE),
        BranchRecovery::None | BranchRecovery::Follow => {
            // The appliance has no flow to share here: the phone itself goes to the owner.
            decide_register(PoolView { second_registration: SecondRegistration::Redirect, ..pool })
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Instant;

    use super::*;
    use crate::{Authority, PoolState, Tenure};

    fn name(text: &str) -> PoolName {
        PoolName::new(text).unwrap()
    }

    fn tenure(owner: &str, epoch: u64, state: PoolState) -> Tenure {
        Tenure::new(name(owner), Epoch::new(epoch), state)
    }

    fn serving(epoch: u64, service: Service) -> Standing {
        Standing::Serving(Authority { epoch: Epoch::new(epoch), until: Instant::from_micros(9), service })
    }

    fn elsewhere(owner: &str, epoch: u64, state: PoolState, contact: Contact) -> Standing {
        Standing::Elsewhere { tenure: tenure(owner, epoch, state), contact }
    }

    fn silent(left_s: u64) -> Contact {
        Contact::Silent { takeover_in: Some(Duration::from_secs(left_s)) }
    }

    fn text(decision: &RegisterDecision) -> String {
        match decision {
            RegisterDecision::Serve { epoch, service } => format!("serve {service:?} in epoch {epoch}"),
            RegisterDecision::Forward { owner } => format!("forward to {owner}"),
            RegisterDecision::Redirect { owner, then: Some(then) } => format!("302 {owner}, {then}"),
            RegisterDecision::Redirect { owner, then: None } => format!("302 {owner}"),
            RegisterDecision::Unavailable { retry_after } => format!("503 after {} s", retry_after.as_secs()),
        }
    }

    fn at(pool: &str) -> Parties {
        if pool == "p1" {
            Parties::at_home(name("p1"), name("p2"))
        } else {
            Parties::at_partner(name("p1"), name("p2"))
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "the table of the product, row by row")]
    fn a_register_of_a_pool_user_follows_the_table_of_the_product() {
        use SecondRegistration::{Forward, Redirect};
        let lost = UserServices::Lost;
        let up = UserServices::Available;
        let active = PoolState::Active;
        let rows: Vec<(&str, &str, Standing, SecondRegistration, UserServices, &str)> = vec![
            ("owner, alive", "p1", serving(0, Service::Full), Forward, up, "serve Full in epoch 0"),
            ("owner, alive", "p2", elsewhere("p1", 0, active, Contact::Heard), Forward, up, "forward to p1"),
            ("owner, alive", "p2", elsewhere("p1", 0, active, Contact::Heard), Redirect, up, "302 p1, p2"),
            (
                "owner, alive, link cut",
                "p2",
                elsewhere("p1", 0, active, Contact::Beating),
                Forward,
                up,
                "302 p1, p2",
            ),
            ("owner, silent", "p2", elsewhere("p1", 0, active, silent(7)), Forward, up, "503 after 7 s"),
            (
                "owner, silent, takeover due",
                "p2",
                elsewhere("p1", 0, active, silent(0)),
                Forward,
                up,
                "503 after 1 s",
            ),
            (
                "owner, silent, no witness",
                "p2",
                elsewhere("p1", 0, active, Contact::Silent { takeover_in: None }),
                Forward,
                up,
                "503 after 5 s",
            ),
            ("taken over", "p2", serving(1, Service::Resiliency), Forward, up, "serve Resiliency in epoch 1"),
            (
                "taken over, but alive",
                "p1",
                elsewhere("p2", 1, PoolState::TakenOver, Contact::Heard),
                Forward,
                up,
                "302 p2",
            ),
            ("failed over", "p2", serving(1, Service::Full), Forward, up, "serve Full in epoch 1"),
            (
                "failed over, but alive",
                "p1",
                elsewhere("p2", 1, PoolState::FailedOver, Contact::Heard),
                Forward,
                up,
                "302 p2",
            ),
            ("failing over", "p1", serving(0, Service::Full), Forward, up, "serve Full in epoch 0"),
            (
                "failing over",
                "p2",
                elsewhere("p1", 0, PoolState::FailingOver, Contact::Heard),
                Forward,
                up,
                "forward to p1",
            ),
            (
                "failing over, last step",
                "p1",
                Standing::Paused(tenure("p1", 0, PoolState::FailingOver)),
                Forward,
                up,
                "503 after 1 s",
            ),
            ("failing back", "p2", serving(1, Service::Full), Forward, up, "serve Full in epoch 1"),
            (
                "failing back",
                "p1",
                elsewhere("p2", 1, PoolState::FailingBack, Contact::Heard),
                Forward,
                up,
                "302 p2",
            ),
            (
                "failing back, last step",
                "p2",
                Standing::Paused(tenure("p2", 1, PoolState::FailingBack)),
                Forward,
                up,
                "503 after 1 s",
            ),
            (
                "failed over, back end lost for long",
                "p2",
                serving(1, Service::Full),
                Forward,
                lost,
                "serve Resiliency in epoch 1",
            ),
            (
                "partner as owner silent",
                "p1",
                elsewhere("p2", 1, PoolState::TakenOver, silent(3)),
                Forward,
                up,
                "503 after 3 s",
            ),
            (
                "being returned",
                "p2",
                Standing::Paused(tenure("p2", 1, PoolState::TakenOver)),
                Forward,
                up,
                "503 after 5 s",
            ),
            ("returned", "p1", serving(2, Service::Full), Forward, up, "serve Full in epoch 2"),
            ("returned", "p2", elsewhere("p1", 2, active, Contact::Heard), Forward, up, "forward to p1"),
            (
                "cut off from both",
                "p1",
                Standing::Paused(tenure("p1", 0, active)),
                Forward,
                up,
                "503 after 5 s",
            ),
            (
                "pool quorum lost",
                "p1",
                Standing::Paused(tenure("p1", 0, active)),
                Forward,
                up,
                "503 after 5 s",
            ),
            ("just started", "p1", Standing::Unknown, Forward, up, "503 after 5 s"),
            (
                "back end lost for long",
                "p1",
                serving(0, Service::Full),
                Forward,
                lost,
                "serve Resiliency in epoch 0",
            ),
        ];
        println!("{:<28} {:<3} {:<9} decision", "p1", "at", "second");
        for (case, pool, standing, second_registration, user_services, expected) in rows {
            let parties = at(pool);
            let view =
                PoolView { parties: &parties, standing: &standing, second_registration, user_services };
            let decision = text(&decide_register(view));
            println!("{case:<28} {pool:<3} {second_registration:<9?} {decision}");
            assert_eq!(decision, expected, "{case} at {pool}");
        }
    }

    #[test]
    fn an_appliance_always_serves_its_users_and_says_what_they_get() {
        let (p1, p2) = (name("p1"), name("p2"));
        let rows = [
            ("wan up, p1 owner", Some(&p1), BranchRecovery::None, "serve Full in epoch 0"),
            ("wan down", None, BranchRecovery::Follow, "serve Resiliency in epoch 0"),
            ("wan up, p1 down", None, BranchRecovery::Follow, "serve Resiliency in epoch 0"),
            ("p1 failed over to p2", Some(&p2), BranchRecovery::None, "serve Resiliency in epoch 0"),
            ("p1 failed over to p2", Some(&p2), BranchRecovery::Follow, "serve Full in epoch 0"),
        ];
        for (case, services_from, recovery, expected) in rows {
            let view = BranchView::Appliance { services_from, associated: &p1, recovery };
            let decision = text(&decide_branch_register(view));
            println!("{case:<24} {recovery:<7?} {decision}");
            assert_eq!(decision, expected, "{case} {recovery:?}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "the table of the product, row by row")]
    fn a_pool_backs_up_a_silent_appliance_by_the_rule_of_the_branch() {
        use BranchRecovery::{Follow, None};
        let active = PoolState::Active;
        let at_p2 = || elsewhere("p2", 1, PoolState::FailedOver, Contact::Heard);
        let rows: Vec<(&str, Contact, &str, Standing, BranchRecovery, &str)> = vec![
            ("s up", Contact::Heard, "p1", serving(0, Service::Full), Follow, "forward to s"),
            ("s up", Contact::Heard, "p2", elsewhere("p1", 0, active, Contact::Heard), Follow, "302 s, p1"),
            ("s silent", silent(4), "p1", serving(0, Service::Full), Follow, "503 after 4 s"),
            ("s down, p1 owner", silent(0), "p1", serving(0, Service::Full), None, "serve Full in epoch 0"),
            (
                "s down, p1 owner",
                silent(0),
                "p2",
                elsewhere("p1", 0, active, Contact::Heard),
                None,
                "302 p1, p2",
            ),
            (
                "s down, p1 down",
                silent(0),
                "p2",
                elsewhere("p1", 0, active, silent(3)),
                Follow,
                "503 after 3 s",
            ),
            ("s down, p1 failed over", silent(0), "p2", serving(1, Service::Full), None, "503 after 300 s"),
            (
                "s down, p1 failed over",
                silent(0),
                "p2",
                serving(1, Service::Full),
                Follow,
                "serve Full in epoch 1",
            ),
            (
                "s down, p1 taken over",
                silent(0),
                "p2",
                serving(1, Service::Resiliency),
                Follow,
                "serve Resiliency in epoch 1",
            ),
            ("s down, p1 failing back", silent(0), "p2", serving(1, Service::Full), None, "503 after 300 s"),
            (
                "s down, p1 failing back",
                silent(0),
                "p1",
                elsewhere("p2", 1, PoolState::FailingBack, Contact::Heard),
                Follow,
                "302 p2",
            ),
            (
                "s down, p1 failing over",
                silent(0),
                "p1",
                serving(0, Service::Full),
                None,
                "serve Full in epoch 0",
            ),
            ("s up, p1 failed over", Contact::Heard, "p2", serving(1, Service::Full), None, "302 s, p1"),
            ("s down, p1 failed over, alive", silent(0), "p1", at_p2(), None, "503 after 300 s"),
            ("s down, p1 failed over, alive", silent(0), "p1", at_p2(), Follow, "302 p2"),
        ];
        for (case, contact, pool, standing, recovery, expected) in rows {
            let (parties, branch) = (at(pool), name("s"));
            let pool_view = PoolView {
                parties: &parties,
                standing: &standing,
                second_registration: SecondRegistration::Forward,
                user_services: UserServices::Available,
            };
            let view = BranchView::Pool { branch: &branch, contact, pool: pool_view, recovery };
            let decision = text(&decide_branch_register(view));
            println!("{case:<30} at {pool} {recovery:<7?} {decision}");
            assert_eq!(decision, expected, "{case} at {pool} {recovery:?}");
        }
    }
}
