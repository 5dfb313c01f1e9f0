//! What an operation on a pool would do, and everything that speaks against it, from what the servers say.

mod judge;

use std::{fmt, time::Duration};

use model::{Epoch, PoolName, ServerName};
use node::api::wire::{Copied, CopyStatus, HomeStatus, ServerStatus};
use pairing::{Order, OrderKind, PoolState};
use serde::Serialize;
use topology::Topology;

use judge::Judge;

/// The operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The partner takes everything; the pool may be gone.
    Failover {
        /// The pool cannot be reached, and what it did not copy may be lost.
        disaster: bool,
    },
    /// The partner takes everything while both pools are alive.
    Switchover,
    /// The pool gets its users back.
    Failback {
        /// The partner cannot be reached, and what it did not copy back may be lost.
        disaster: bool,
    },
    /// What is under way is undone.
    Cancel,
}

impl Operation {
    /// The kind of order that begins it; a cancellation is none.
    pub const fn kind(self) -> Option<OrderKind> {
        match self {
            Self::Failover { disaster: false } => Some(OrderKind::Failover),
            Self::Failover { disaster: true } => Some(OrderKind::Disaster),
            Self::Switchover => Some(OrderKind::Switchover),
            Self::Failback { disaster: false } => Some(OrderKind::Failback),
            Self::Failback { disaster: true } => Some(OrderKind::DisasterFailback),
            Self::Cancel => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failover { disaster: false } => "failover",
            Self::Failover { disaster: true } => "failover --disaster",
            Self::Switchover => "switchover",
            Self::Failback { disaster: false } => "failback",
            Self::Failback { disaster: true } => "failback --disaster",
            Self::Cancel => "cancel",
        })
    }
}

/// One server's answer, or why there is none.
#[derive(Debug, Serialize)]
pub struct Asked {
    /// Who was asked.
    pub server: ServerName,
    /// Its pool.
    pub pool: PoolName,
    /// What it said.
    pub status: Option<ServerStatus>,
    /// Why it said nothing.
    pub error: Option<String>,
}

/// What an operation would do.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Which operation.
    pub operation: String,
    /// On which home pool.
    pub pool: PoolName,
    /// The pool that serves its users now, as far as anybody says.
    pub from: Option<PoolName>,
    /// The pool that will.
    pub to: Option<PoolName>,
    /// The state of the home pool now.
    pub state: Option<PoolState>,
    /// The state afterwards.
    pub state_after: Option<PoolState>,
    /// What is done, in order.
    pub steps: Vec<String>,
    /// What would be lost if the operation began now.
    pub would_be_lost: Vec<Loss>,
    /// Who is concerned.
    pub affected: Affected,
    /// Everything that speaks against it; empty = it can be done.
    pub blockers: Vec<Blocker>,
    /// What is worth knowing.
    pub notes: Vec<String>,
    /// The epoch that all this is true of; an order is for this epoch only.
    pub epoch: Option<Epoch>,
    /// The order whose operation is under way.
    pub under_way: Option<Order>,
}

/// What the receiving pool lacks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Loss {
    /// Documents or bindings.
    pub what: Copied,
    /// Changes that it lacks; `None`: unknown.
    pub entries: Option<u64>,
    /// Age of the oldest of them in seconds; `None`: unknown.
    pub seconds: Option<f64>,
    /// How that is known.
    pub known_from: String,
}

/// Who depends on the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Affected {
    /// Users homed on it.
    pub users: u64,
    /// Registered contacts of them.
    pub bindings: u64,
    /// Answered calls that a server forwarded and did not see to end; `None`: no server that answers looks.
    pub calls: Option<u64>,
}

/// Something that speaks against an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// A name for programs.
    pub rule: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// Makes the plan of `operation` on `home`.
pub fn plan(
    topology: &Topology,
    asked: &[Asked],
    home: &PoolName,
    operation: Operation,
    loss_max: Option<Duration>,
) -> Plan {
    let view = View::of(topology, asked, home);
    let (from, to) = view.direction(operation);
    let mut plan = Plan {
        operation: operation.to_string(),
        pool: home.clone(),
        state: view.state(),
        state_after: view.state_after(operation),
        steps: steps(operation, home, from.as_ref(), to.as_ref(), &view),
        would_be_lost: to.as_ref().map(|to| view.losses(to)).unwrap_or_default(),
        affected: view.affected(),
        blockers: Vec::new(),
        notes: Vec::new(),
        epoch: view.known().and_then(|known| known.epoch),
        under_way: view.under_way(),
        from,
        to,
    };
    plan.blockers = Judge { view: &view, operation, plan: &plan, loss_max }.blockers();
    plan.notes = view.notes(operation);
    plan
}

/// What all answers together say of one home pool.
struct View<'a> {
    topology: &'a Topology,
    asked: &'a [Asked],
    home: &'a PoolName,
    partner: Option<PoolName>,
}

impl<'a> View<'a> {
    fn of(topology: &'a Topology, asked: &'a [Asked], home: &'a PoolName) -> Self {
        let partner = topology.partner_of(home).map(|pool| pool.name.clone());
        Self { topology, asked, home, partner }
    }

    /// What servers of the two pools say of the home pool, the highest epoch first, who serves before others.
    fn known(&self) -> Option<&'a HomeStatus> {
        self.said().max_by_key(|said| (said.epoch, said.service.is_some()))
    }

    fn said(&self) -> impl Iterator<Item = &'a HomeStatus> {
        let home = self.home;
        self.asked
            .iter()
            .filter_map(|asked| asked.status.as_ref())
            .flat_map(|status| &status.homes)
            .filter(move |said| said.home == *home)
    }

    fn owner(&self) -> Option<PoolName> {
        self.known().and_then(|known| known.owner.clone())
    }

    fn state(&self) -> Option<PoolState> {
        self.known().and_then(|known| known.state)
    }

    fn under_way(&self) -> Option<Order> {
        let known = self.known().filter(|known| known.state.is_some_and(PoolState::is_moving))?;
        known.order.clone()
    }

    fn is_reached(&self, pool: &PoolName) -> bool {
        self.asked.iter().any(|asked| asked.pool == *pool && asked.status.is_some())
    }

    fn is_served_by(&self, pool: &PoolName) -> bool {
        self.asked
            .iter()
            .filter(|asked| asked.pool == *pool)
            .filter_map(|asked| asked.status.as_ref())
            .any(|status| status.homes.iter().any(|said| said.home == *self.home && said.service.is_some()))
    }

    fn direction(&self, operation: Operation) -> (Option<PoolName>, Option<PoolName>) {
        let owner = self.owner();
        let to = match operation {
            Operation::Failover { .. } | Operation::Switchover => self.partner.clone(),
            Operation::Failback { .. } => Some(self.home.clone()),
            Operation::Cancel => owner.clone(),
        };
        (owner, to)
    }

    fn state_after(&self, operation: Operation) -> Option<PoolState> {
        match operation {
            Operation::Failover { .. } | Operation::Switchover => Some(PoolState::FailedOver),
            Operation::Failback { .. } => Some(PoolState::Active),
            Operation::Cancel => match self.state()? {
                PoolState::FailingBack => Some(PoolState::FailedOver),
                PoolState::FailingOver => Some(PoolState::Active),
                state @ (PoolState::Active | PoolState::TakenOver | PoolState::FailedOver) => Some(state),
            },
        }
    }

    fn affected(&self) -> Affected {
        let most = |value: fn(&HomeStatus) -> u64| self.said().map(value).max().unwrap_or(0);
        Affected {
            users: most(|said| said.users),
            bindings: most(|said| said.bindings),
            calls: self.said().filter_map(|said| said.calls).max(),
        }
    }

    fn copies(&self, what: Copied) -> impl Iterator<Item = (&'a ServerName, &'a CopyStatus)> {
        let home = self.home;
        self.asked.iter().filter_map(|asked| Some((&asked.server, asked.status.as_ref()?))).flat_map(
            move |(server, status)| {
                let copies = status.copies.iter();
                copies
                    .filter(move |copy| copy.home == *home && copy.what == what)
                    .map(move |copy| (server, copy))
            },
        )
    }

    /// What `to` lacks of documents and of bindings.
    fn losses(&self, to: &PoolName) -> Vec<Loss> {
        if self.owner().as_ref() == Some(to) {
            return Vec::new();
        }
        [Copied::Documents, Copied::Bindings].map(|what| self.loss(to, what)).into()
    }

    fn loss(&self, to: &PoolName, what: Copied) -> Loss {
        let is_reader =
            |copy: &CopyStatus| self.topology.pool_of(&copy.to).is_some_and(|pool| pool.name == *to);
        let owner = self.owner();
        let from_source = self.copies(what).find(|(server, copy)| {
            is_reader(copy)
                && copy.lag_entries.is_some()
                && self.topology.pool_of(server).map(|pool| &pool.name) == owner.as_ref()
        });
        if let Some((server, copy)) = from_source {
            let seconds = copy.lag_ms.map(|ms| Duration::from_millis(ms).as_secs_f64());
            return Loss {
                what,
                entries: copy.lag_entries,
                seconds,
                known_from: format!("{server}, the source"),
            };
        }
        let at_reader = self.copies(what).find(|(_, copy)| is_reader(copy) && copy.state.is_some());
        let known_from = match at_reader {
            Some((server, CopyStatus { state: Some(state), silent_ms, .. })) => {
                let heard = silent_ms.map_or_else(
                    || "not heard since it started".to_owned(),
                    |ms| format!("heard {:.1} s ago", Duration::from_millis(ms).as_secs_f64()),
                );
                let state = serde_json::to_value(state).ok();
                let state = state.as_ref().and_then(|state| state.as_str()).unwrap_or("unknown").to_owned();
                format!("{server}, the reader: copy {state}, source {heard}")
            }
            Some(_) | None => "nobody".to_owned(),
        };
        Loss { what, entries: None, seconds: None, known_from }
    }

    fn notes(&self, operation: Operation) -> Vec<String> {
        let mut notes = Vec::new();
        let has_witness = self.topology.control_servers().next().is_some();
        if let (Operation::Failback { disaster: true }, Some(partner)) = (operation, &self.partner) {
            notes.push(format!(
                "changes that {partner} acknowledged and did not copy come back when it is up again, or \
                 stand in `tandem conflicts list`"
            ));
        }
        if operation == (Operation::Failover { disaster: true }) {
            notes.push(format!(
                "changes that {} acknowledged and did not copy come back at its failback, or stand in \
                 `tandem conflicts list`",
                self.home
            ));
            if !has_witness {
                notes.push(format!(
                    "there is no control store: if {} lives on, unseen from here, both pools serve its users \
                     until they hear of each other",
                    self.home
                ));
            }
        }
        notes
    }
}

fn steps(
    operation: Operation,
    home: &PoolName,
    from: Option<&PoolName>,
    to: Option<&PoolName>,
    view: &View<'_>,
) -> Vec<String> {
    let (Some(to), from) = (to, from.map_or_else(|| home.to_string(), ToString::to_string)) else {
        return Vec::new();
    };
    let moved = |state: &str| {
        vec![
            format!("{from} notes the order in the ownership record and goes on serving"),
            format!("{to} catches up with journal and bindings of {home}"),
            format!("{from} stops, sends its last changes, and {to} confirms them on its disk (limit 1.5 s)"),
            format!("the ownership record changes to {to}, next epoch, {state}; {to} serves everything"),
            format!("{from} sends phones that still ask there to {to}"),
        ]
    };
    let taken = |state: &str| {
        vec![
            format!("{to} waits until no promise it gave {from} can be in force any more"),
            format!("the ownership record changes to {to}, next epoch, {state}"),
            format!("{to} serves everything from what was copied"),
        ]
    };
    match operation {
        Operation::Switchover | Operation::Failover { disaster: false }
            if view.state() == Some(PoolState::TakenOver) =>
        {
            vec![format!(
                "{to} serves the registrations already; the ownership record changes to failed_over, same \
                          epoch: {to} serves everything"
            )]
        }
        Operation::Switchover | Operation::Failover { disaster: false } => moved("failed_over"),
        Operation::Failover { disaster: true } => taken("failed_over"),
        Operation::Failback { disaster: true } => taken("active"),
        Operation::Failback { disaster: false } => {
            let mut steps =
                vec![format!("{home} offers what it acknowledged and {from} does not have (orphans)")];
            steps.extend(moved("active"));
            steps
        }
        Operation::Cancel => vec![format!(
            "the ownership record goes back to {}",
            match view.state() {
                Some(PoolState::FailingBack) => "failed_over",
                Some(_) | None => "active",
            }
        )],
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
