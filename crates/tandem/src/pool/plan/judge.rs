//! Finds everything that speaks against an operation.

use std::time::Duration;

use model::PoolName;
use node::api::wire::Copied;
use pairing::PoolState;

use super::{Blocker, Operation, Plan, View};

/// A lag above which a planned move is not begun, unless the operator says otherwise: it would not end in
/// time.
const LAG_MAX_DEFAULT: Duration = Duration::from_secs(60);

/// Finds everything that speaks against a plan.
pub(super) struct Judge<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) operation: Operation,
    pub(super) plan: &'a Plan,
    pub(super) loss_max: Option<Duration>,
}

impl Judge<'_> {
    pub(super) fn blockers(&self) -> Vec<Blocker> {
        let Some(partner) = self.view.partner.as_ref() else {
            return vec![blocker(
                "not_paired",
                format!("{} has no partner", self.view.home),
                "pair it in the topology".to_owned(),
            )];
        };
        let mut found = Vec::new();
        self.state(partner, &mut found);
        self.reach(partner, &mut found);
        self.lag(&mut found);
        self.capacity(&mut found);
        found
    }

    fn state(&self, partner: &PoolName, found: &mut Vec<Blocker>) {
        let home = self.view.home;
        let state = self.view.state();
        let mut refuse = |rule, message: String, remedy: &str| {
            found.push(blocker(rule, message, remedy.to_owned()));
        };
        match (self.operation, state) {
            (_, None) => {}
            (Operation::Cancel, Some(PoolState::FailingOver | PoolState::FailingBack)) => {}
            (Operation::Cancel, Some(_)) => {
                refuse("nothing_to_cancel", format!("no operation on {home} is under way"), "nothing to do");
            }
            (Operation::Failover { .. } | Operation::Switchover, Some(PoolState::FailedOver)) => refuse(
                "already_failed_over",
                format!("{home} is failed over to {partner} already"),
                "nothing to do; `tandem pool failback` returns its users",
            ),
            (Operation::Switchover, Some(PoolState::TakenOver)) => refuse(
                "home_pool_not_serving",
                format!("{partner} took {home} over because it was silent: there is nothing to switch"),
                "use `tandem pool failover`",
            ),
            (Operation::Failback { .. }, Some(PoolState::Active)) => {
                refuse("at_home", format!("{home} serves its own users"), "nothing to do");
            }
            (Operation::Failback { disaster: false }, Some(PoolState::TakenOver)) => refuse(
                "returns_by_itself",
                format!("{partner} took {home} over by itself and returns it when {home} is stable"),
                "wait for the hold time, or `tandem pool failover` first",
            ),
            (
                Operation::Failover { .. } | Operation::Switchover,
                Some(
                    PoolState::Active
                    | PoolState::FailingOver
                    | PoolState::TakenOver
                    | PoolState::FailingBack,
                ),
            )
            | (
                Operation::Failback { .. },
                Some(
                    PoolState::FailedOver
                    | PoolState::FailingBack
                    | PoolState::FailingOver
                    | PoolState::TakenOver,
                ),
            ) => {}
        }
        let wanted = self.operation.kind();
        if let Some(order) =
            self.plan.under_way.as_ref().filter(|order| wanted.is_some_and(|kind| kind != order.kind))
        {
            let message =
                format!("{} is under way, ordered by {} (order {})", order.kind, order.by, order.id);
            found.push(blocker(
                "other_operation",
                message,
                "let it end, or `tandem pool cancel` it".to_owned(),
            ));
        }
    }

    fn reach(&self, partner: &PoolName, found: &mut Vec<Blocker>) {
        let (view, home) = (self.view, self.view.home);
        let is_home_up = view.is_reached(home);
        let is_without_partner = self.operation == Operation::Failback { disaster: true };
        if is_without_partner && view.is_reached(partner) {
            found.push(blocker(
                "partner_alive",
                format!("{partner} answers"),
                "use `tandem pool failback` without `--disaster`: nothing is lost then".to_owned(),
            ));
        }
        if !is_without_partner && !view.is_reached(partner) {
            let mut remedy = format!("start {partner}, or repair the way to it");
            if self.operation == (Operation::Failback { disaster: false }) {
                remedy.push_str(
                    "; or say `--disaster` when you accept that what it did not copy back may be lost",
                );
            }
            found.push(blocker("partner_unreachable", format!("{partner} does not answer"), remedy));
        }
        match self.operation {
            Operation::Failover { disaster: true } if view.is_served_by(home) => found.push(blocker(
                "home_pool_alive",
                format!("{home} answers and serves its users"),
                "use `tandem pool switchover`: nothing is lost then".to_owned(),
            )),
            Operation::Failover { disaster: false }
                if !is_home_up && view.state() != Some(PoolState::TakenOver) =>
            {
                found.push(blocker(
                    "home_pool_unreachable",
                    format!("{home} does not answer: what it has not copied may be lost"),
                    "say `--disaster` when you accept that".to_owned(),
                ));
            }
            Operation::Switchover | Operation::Failback { .. } if !is_home_up => found.push(blocker(
                "home_pool_unreachable",
                format!("{home} does not answer"),
                format!("start {home}, or repair the way to it"),
            )),
            Operation::Failover { .. }
            | Operation::Switchover
            | Operation::Failback { .. }
            | Operation::Cancel => {}
        }
        for control in view.asked.iter().filter(|asked| asked.status.is_none()) {
            if view.topology.control_servers().any(|server| server.name == control.server) {
                found.push(blocker(
                    "control_store_unreachable",
                    format!(
                        "the control store ({}) does not answer: no change of owner is possible",
                        control.server
                    ),
                    "start it, or repair the way to it; until then nothing moves and nothing is lost"
                        .to_owned(),
                ));
            }
        }
    }

    fn lag(&self, found: &mut Vec<Blocker>) {
        let most = match self.operation {
            Operation::Switchover
            | Operation::Failback { disaster: false }
            | Operation::Failover { disaster: false } => self.loss_max.unwrap_or(LAG_MAX_DEFAULT),
            Operation::Failback { disaster: true } | Operation::Failover { disaster: true } => {
                match self.loss_max {
                    Some(most) => most,
                    None => return,
                }
            }
            Operation::Cancel => return,
        };
        for loss in &self.plan.would_be_lost {
            let name = match loss.what {
                Copied::Documents => "documents",
                Copied::Bindings => "bindings",
            };
            let remedy =
                "wait until it has caught up, find out why it does not, or allow more with --max-loss";
            match loss.seconds {
                Some(seconds) if seconds > most.as_secs_f64() => {
                    let message =
                        format!("the copy of {name} is {seconds:.1} s behind, allowed are {most:?}");
                    found.push(blocker("lag", message, remedy.to_owned()));
                }
                None if self.loss_max.is_some() => {
                    let message =
                        format!("how far the copy of {name} is behind is not known ({})", loss.known_from);
                    found.push(blocker(
                        "lag_unknown",
                        message,
                        "leave --max-loss out to accept that".to_owned(),
                    ));
                }
                Some(_) | None => {}
            }
        }
    }

    fn capacity(&self, found: &mut Vec<Blocker>) {
        let Some(to) = self.plan.to.as_ref().filter(|_| self.operation != Operation::Cancel) else { return };
        if self.plan.from.as_ref() == Some(to) {
            return;
        }
        let users_of = |pool: &PoolName| {
            let said = self.view.asked.iter().filter_map(|asked| asked.status.as_ref());
            said.flat_map(|status| &status.homes)
                .filter(|said| said.home == *pool)
                .map(|said| said.users)
                .max()
        };
        let both = users_of(self.view.home).unwrap_or(0)
            + self.view.partner.as_ref().and_then(users_of).unwrap_or(0);
        let capacity = self.view.topology.pool(to).and_then(|pool| pool.users_capacity);
        if let Some(capacity) = capacity
            .filter(|capacity| both > *capacity && !matches!(self.operation, Operation::Failback { .. }))
        {
            found.push(blocker(
                "capacity",
                format!("{to} can carry {capacity} users; both pools together have {both}"),
                "add servers to it, or raise users_capacity when it can carry more".to_owned(),
            ));
        }
    }
}

fn blocker(rule: &'static str, message: String, remedy: String) -> Blocker {
    Blocker { rule, message, remedy }
}
