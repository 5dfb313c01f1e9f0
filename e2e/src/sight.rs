//! What both pools of a pair say of the home pool east at one instant: the steps of an operation as an
//! operator can see them.

use std::{fmt, thread, time::Duration, time::Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::{Deployment, Operator};

/// Time for one server to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Pause between two looks: a step may last for a few milliseconds only.
const PAUSE: Duration = Duration::from_millis(1);

/// What is known of the home pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sight {
    /// State in the record with the highest epoch that a pool knows, as its owner says.
    pub state: String,
    /// Owner in that record.
    pub owner: String,
    /// Epoch of that record.
    pub epoch: u64,
    /// How east serves the users: nothing, `resiliency` or `full`.
    pub east: Option<String>,
    /// How west serves them.
    pub west: Option<String>,
    /// Whether the last operation was undone.
    pub is_undone: bool,
}

impl Sight {
    /// A step of an operation: what is seen, whatever the epoch.
    pub fn step(&self) -> String {
        let pool = |name: &str, serves: &Option<String>| {
            serves.as_ref().map(|mode| format!(", {name} serves ({mode})")).unwrap_or_default()
        };
        let (east, west) = (pool("east", &self.east), pool("west", &self.west));
        format!("{} owned by {}{east}{west}", self.state, self.owner)
    }

    /// Whether no operation is under way and exactly one pool serves, the owner.
    pub fn is_settled(&self) -> bool {
        let is_moving = self.state.starts_with("failing");
        let serves = (self.east.is_some(), self.west.is_some());
        !is_moving && serves == (self.owner == "east", self.owner == "west")
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let undone = if self.is_undone { ", undone" } else { "" };
        write!(f, "{}{undone}, epoch {}", self.step(), self.epoch)
    }
}

/// Looks at both pools over connections that stay open.
#[derive(Debug)]
pub struct Watcher {
    east: Operator,
    west: Operator,
}

impl Watcher {
    /// Of this deployment.
    pub fn new(deployment: &Deployment) -> Self {
        let [east, west] = ["east1", "west1"].map(|server| Operator::new(deployment, server, ANSWER_WITHIN));
        Self { east, west }
    }

    /// What is seen now. A pool that does not answer says nothing.
    pub fn look(&mut self) -> Sight {
        let [east, west] = [status_of(&mut self.east), status_of(&mut self.west)];
        let said = [&east, &west].map(|status| status.as_ref().and_then(|status| home(status)));
        let epoch = |home: &&Value| home.get("epoch").and_then(Value::as_u64);
        // Within an epoch the owner knows best how it is.
        let is_owner = |home: &&Value, pool: &str| home.get("owner").and_then(Value::as_str) == Some(pool);
        let by_pool = ["east", "west"].into_iter().zip(&said);
        let words = by_pool.filter_map(|(pool, home)| home.as_ref().map(|home| (pool, home)));
        let known = words.max_by_key(|(pool, home)| (epoch(home), is_owner(home, pool)));
        let known = known.map(|(_, home)| *home);
        let text = |key: &str| known.and_then(|home| home.get(key)?.as_str()).unwrap_or_default().to_owned();
        let serves = |home: Option<&Value>| home?.get("service")?.as_str().map(ToOwned::to_owned);
        let owner = text("owner");
        let [east_home, west_home] = said;
        Sight {
            state: text("state"),
            epoch: known.and_then(|home| epoch(&home)).unwrap_or_default(),
            east: serves(east_home),
            west: serves(west_home),
            is_undone: known.and_then(|home| home.get("undone")).is_some_and(|undone| !undone.is_null()),
            owner,
        }
    }

    /// Looks until `is_it` says yes.
    ///
    /// Errors: not within `limit`; the message has the last sight.
    pub fn wait(&mut self, what: &str, limit: Duration, is_it: impl Fn(&Sight) -> bool) -> Result<Sight> {
        let began = Instant::now();
        loop {
            let sight = self.look();
            if is_it(&sight) {
                return Ok(sight);
            }
            if began.elapsed() >= limit {
                bail!("{what}: not within {limit:?}; last seen: {sight}");
            }
            thread::sleep(PAUSE);
        }
    }

    /// Every different step that is seen from now until `is_over` says yes, in order.
    ///
    /// Errors: not within `limit`.
    pub fn steps(&mut self, limit: Duration, is_over: impl Fn(&Sight) -> bool) -> Result<Vec<String>> {
        let mut steps: Vec<String> = Vec::new();
        let began = Instant::now();
        loop {
            let sight = self.look();
            let step = sight.step();
            if steps.last() != Some(&step) {
                steps.push(step);
            }
            if is_over(&sight) {
                return Ok(steps);
            }
            if began.elapsed() >= limit {
                bail!("the operation did not end within {limit:?}: {steps:#?}");
            }
            thread::sleep(PAUSE);
        }
    }
}

fn status_of(operator: &mut Operator) -> Option<Value> {
    operator.ask("GET", "/v1/status", None).ok()?.json().ok()
}

fn home(status: &Value) -> Option<&Value> {
    let homes = status.get("homes")?.as_array()?;
    homes.iter().find(|home| home.get("home").and_then(Value::as_str) == Some("east"))
}
