//! Whether pools can carry the users that may come to them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, grouped};
use crate::{
    Role, Rule,
    raw::{Located, Pair, Pool},
};

/// The users of a pool and of the branches it backs up.
#[derive(Clone, Debug, Default)]
struct Population {
    own: u64,
    branches: u64,
    branch_pools: usize,
}

impl Population {
    fn total(&self) -> u64 {
        self.own.saturating_add(self.branches)
    }

    /// `8,000 of pool east, 500 of its 2 branches`
    fn describe(&self, subject: &str) -> String {
        let own = format!("{} of {subject}", grouped(self.own));
        match self.branch_pools {
            0 => own,
            1 => format!("{own}, {} of its branch", grouped(self.branches)),
            count => format!("{own}, {} of its {count} branches", grouped(self.branches)),
        }
    }
}

pub(super) fn check(check: &mut Check<'_>) {
    let populations = populations(check);
    let mut paired = BTreeSet::new();
    for pair in &check.document.pairs {
        let Some([first, second]) = pair.pools.as_deref() else { continue };
        let (Some(one), Some(other)) = (check.pool(first), check.pool(second)) else { continue };
        let is_pair = one.role == Some(Role::FrontEnd) && other.role == Some(Role::FrontEnd);
        if is_pair && first.value != second.value {
            paired.extend([first.value.as_str(), second.value.as_str()]);
            check_pair(check, &populations, pair, [one, other]);
        }
    }
    for pool in &check.document.pools {
        let is_paired = pool.name.as_ref().is_some_and(|name| paired.contains(name.value.as_str()));
        if !is_paired && pool.role.is_some_and(Role::homes_users) {
            check_alone(check, &populations, pool);
        }
    }
}

fn populations(check: &Check<'_>) -> BTreeMap<String, Population> {
    let mut populations: BTreeMap<String, Population> = BTreeMap::new();
    for pool in &check.document.pools {
        let Some(name) = &pool.name else { continue };
        let own = users(&pool.users_expected).unwrap_or(0);
        populations.entry(name.value.clone()).or_default().own = own;
        if let (Some(Role::Branch), Some(associated)) = (pool.role, pool.associated_pool()) {
            let backed = populations.entry(associated.value.clone()).or_default();
            backed.branches = backed.branches.saturating_add(own);
            backed.branch_pools += 1;
        }
    }
    populations
}

fn check_pair(
    check: &mut Check<'_>,
    populations: &BTreeMap<String, Population>,
    pair: &Pair,
    pools: [&Pool; 2],
) {
    let [one, other] = pools.map(|pool| population(populations, pool));
    let total = one.total().saturating_add(other.total());
    let [left, right] = pools;
    let parts = format!("{}; {}", one.describe(&left.subject), other.describe(&right.subject));
    for pool in pools {
        match users(&pool.users_capacity) {
            Some(capacity) if capacity < total => {
                let message = format!(
                    "{} must carry {} users when its partner is lost ({parts}), its capacity is {}",
                    pool.subject,
                    grouped(total),
                    grouped(capacity)
                );
                let remedy =
                    format!("add servers for {} users, or move users away", grouped(total - capacity));
                check.report(Rule::PairCapacity, pair.at, &pair.subject, message, remedy);
            }
            Some(_) => {}
            None if pool.keys.contains_key("users_capacity") => {}
            None => {
                let message = format!(
                    "whether it can carry {} users is unknown: users_capacity is missing",
                    grouped(total)
                );
                let remedy = "add users_capacity, the users its servers can carry";
                check.report(Rule::CapacityStated, pool.at, &pool.subject, message, remedy);
            }
        }
    }
}

fn check_alone(check: &mut Check<'_>, populations: &BTreeMap<String, Population>, pool: &Pool) {
    let population = population(populations, pool);
    let Some(capacity) = users(&pool.users_capacity) else { return };
    if capacity < population.total() {
        let message = format!(
            "it must carry {} users ({}), its capacity is {}",
            grouped(population.total()),
            population.describe(&pool.subject),
            grouped(capacity)
        );
        let remedy =
            format!("add servers for {} users, or move users away", grouped(population.total() - capacity));
        check.report(Rule::PoolCapacity, pool.at, &pool.subject, message, remedy);
    }
}

fn population(populations: &BTreeMap<String, Population>, pool: &Pool) -> Population {
    pool.name.as_ref().and_then(|name| populations.get(&name.value)).cloned().unwrap_or_default()
}

fn users(number: &Option<Located<i64>>) -> Option<u64> {
    number.as_ref().and_then(|number| u64::try_from(number.value).ok())
}
