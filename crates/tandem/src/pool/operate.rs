//! Operations: the plan, the order, and watching it being carried out.

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use model::{Epoch, Instant, PoolName};
use node::{
    api::wire::{CancelBody, HomeStatus, OrderAnswer, OrderBody},
    clock,
    peers::PeerError,
};
use pairing::{Operator, Order, OrderBlocker, OrderId, PoolState, UndoReason};
use serde::Serialize;
use tokio::time::sleep;

use super::{
    ask_all,
    plan::{Asked, Operation, Plan, plan},
    status::word,
};
use crate::{
    cli::{OperationArguments, Output},
    output::{self, Table},
    remote::{ANSWER_WITHIN, Remote, pool_name},
};

/// Time between two looks at an operation under way.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often an order is given again whose fate is unknown.
const TRIES_MAX: u32 = 20;
/// For how long an operation is watched: its own limit of a minute, and restarts of servers on the way.
const WATCH_MAX: Duration = Duration::from_secs(180);

/// A finished operation, for programs.
#[derive(Debug, Serialize)]
struct Done {
    pool: PoolName,
    operation: String,
    order: Option<OrderId>,
    result: Ending,
    state: Option<PoolState>,
    owner: Option<PoolName>,
    epoch: Option<Epoch>,
    undone: Option<UndoReason>,
    elapsed_ms: u64,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Ending {
    Completed,
    Undone,
    /// Not seen to end: it goes on by itself.
    UnderWay,
}

/// Shows the plan of an operation and, with `--apply`, orders it and watches it to its end.
pub async fn run(output: Output, operation: Operation, arguments: &OperationArguments) -> Result<ExitCode> {
    let remote = Remote::open(&arguments.deployment.dir)?;
    let home = pool_name(&arguments.pool)?;
    remote.home_server(&home)?;
    let asked = ask_all(&remote).await;
    let loss_max = arguments.max_loss.map(Duration::from_secs_f64);
    let plan = plan(&remote.topology, &asked, &home, operation, loss_max);
    if !arguments.apply || arguments.what_if {
        show(output, &plan)?;
        return Ok(ExitCode::from(u8::from(!plan.blockers.is_empty())));
    }
    if !plan.blockers.is_empty() {
        show(output, &plan)?;
        bail!("{operation} of {home} is not possible now; nothing was changed");
    }
    let began = clock::now();
    let under_way = plan.under_way.as_ref().map(|order| order.id);
    let order = match (operation.kind(), under_way) {
        (None, Some(id)) => cancel(&remote, &plan, id).await?,
        (None, None) => bail!("no operation on {home} is under way"),
        (Some(_), Some(id)) => {
            eprintln!("{operation} of {home} is under way already (order {id}); watching it");
            id
        }
        (Some(_), None) => give(&remote, &plan, operation).await?,
    };
    let (ending, last) = watch(&remote, &home, order, operation, began).await;
    let done = Done {
        pool: home,
        operation: operation.to_string(),
        order: Some(order),
        result: ending,
        state: last.as_ref().and_then(|home| home.state),
        owner: last.as_ref().and_then(|home| home.owner.clone()),
        epoch: last.as_ref().and_then(|home| home.epoch),
        undone: last.as_ref().and_then(|home| home.undone),
        elapsed_ms: u64::try_from(clock::now().saturating_since(began).as_millis()).unwrap_or(u64::MAX),
    };
    output::print(output, &done, || result_table(&done))?;
    Ok(match done.result {
        Ending::Completed => ExitCode::SUCCESS,
        Ending::Undone => ExitCode::from(1),
        Ending::UnderWay => ExitCode::from(2),
    })
}

/// Gives the order to who has to carry it out; returns its id once it is in the ownership record.
async fn give(remote: &Remote, plan: &Plan, operation: Operation) -> Result<OrderId> {
    let Some(kind) = operation.kind() else { bail!("a cancellation is no order") };
    let id = OrderId::new(u128::from(clock::random_seed()) << 64 | u128::from(clock::random_seed()));
    let order = Order {
        id,
        kind,
        epoch: plan.epoch.unwrap_or(Epoch::ZERO),
        ordered_at: clock::wall_time(),
        by: operator()?,
    };
    let body = OrderBody { home: plan.pool.clone(), order };
    settle(remote, plan, operation, "/v1/orders", &body).await?;
    eprintln!("order {id} is in the ownership record");
    Ok(id)
}

async fn cancel(remote: &Remote, plan: &Plan, order: OrderId) -> Result<OrderId> {
    let body = CancelBody { home: plan.pool.clone(), order };
    settle(remote, plan, Operation::Cancel, "/v1/orders/cancel", &body).await?;
    Ok(order)
}

/// Sends an order until it is accepted or refused for certain; the same one again is harmless.
async fn settle(
    remote: &Remote,
    plan: &Plan,
    operation: Operation,
    path: &str,
    body: &(impl Serialize + Sync),
) -> Result<()> {
    let mut candidates = candidates(plan, operation);
    let mut last = anyhow::anyhow!("nobody could be asked");
    for attempt in 0..TRIES_MAX {
        let Some(pool) = candidates.first().cloned() else { break };
        let server = remote.home_server(&pool)?;
        match remote.client.post::<OrderAnswer>(&server, path, body, ANSWER_WITHIN).await {
            Ok(OrderAnswer::Accepted { .. } | OrderAnswer::Repeated { .. }) => return Ok(()),
            Ok(OrderAnswer::Refused { owner: Some(owner), .. }) if owner != pool => candidates = vec![owner],
            // This command did not reach the owner, and who takes over will miss it in a moment too.
            Ok(OrderAnswer::Refused { blockers, .. }) if is_not_missed_yet(plan, operation, &blockers) => {
                last = anyhow::anyhow!(
                    "{operation} of {} was refused by {pool}: {}",
                    plan.pool,
                    blockers.join("; ")
                );
            }
            Ok(OrderAnswer::Refused { blockers, .. }) => {
                bail!("{operation} of {} was refused by {pool}: {}", plan.pool, blockers.join("; "))
            }
            Ok(OrderAnswer::Unsure) => {
                last = anyhow::anyhow!(
                    "{pool} could not reach the control store in time; it is not known whether \
                                        the order counts"
                );
            }
            Err(error @ (PeerError::Unreachable { .. } | PeerError::Unknown { .. })) => {
                last = error.into();
                candidates.rotate_left(1);
            }
            Err(error) => return Err(error.into()),
        }
        if attempt + 1 < TRIES_MAX {
            sleep(LOOK_EVERY * 5).await;
        }
    }
    Err(last)
}

/// Whether the only thing that speaks against a disaster order is that the owner was heard a moment ago.
fn is_not_missed_yet(plan: &Plan, operation: Operation, blockers: &[String]) -> bool {
    let alive = plan.from.clone().map(|owner| OrderBlocker::OwnerAlive { owner }.to_string());
    matches!(operation, Operation::Failover { disaster: true } | Operation::Failback { disaster: true })
        && !blockers.is_empty()
        && blockers.iter().all(|blocker| Some(blocker) == alive.as_ref())
}

/// Who carries an operation out: the owner; for a disaster, who takes over.
fn candidates(plan: &Plan, operation: Operation) -> Vec<PoolName> {
    let is_disaster =
        matches!(operation, Operation::Failover { disaster: true } | Operation::Failback { disaster: true });
    let first = if is_disaster { &plan.to } else { &plan.from };
    let mut pools: Vec<PoolName> = first.iter().chain(&plan.to).chain(&plan.from).cloned().collect();
    pools.push(plan.pool.clone());
    let mut seen = Vec::new();
    pools.retain(|pool| {
        let is_new = !seen.contains(pool);
        seen.push(pool.clone());
        is_new
    });
    pools
}

/// The user who gives the command, as records show it.
fn operator() -> Result<Operator> {
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_default();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = match (user.trim(), host.trim()) {
        ("", "") => "operator".to_owned(),
        (user, "") => user.to_owned(),
        ("", host) => format!("operator@{host}"),
        (user, host) => format!("{user}@{host}"),
    };
    Ok(Operator::new(name)?)
}

/// Prints each step as it is seen; returns how the operation ended and what was last known of the home pool.
async fn watch(
    remote: &Remote,
    home: &PoolName,
    order: OrderId,
    operation: Operation,
    began: Instant,
) -> (Ending, Option<HomeStatus>) {
    let mut told = String::new();
    let mut last = None;
    while clock::now().saturating_since(began) < WATCH_MAX {
        let asked = ask_all(remote).await;
        if let Some(known) = known(&asked, home) {
            let step = step(&asked, &known);
            if step != told {
                eprintln!("{:6.1} s  {step}", clock::now().saturating_since(began).as_secs_f64());
                told = step;
            }
            let is_moving = known.state.is_some_and(PoolState::is_moving);
            let is_ours = known.order.as_ref().is_some_and(|known| known.id == order);
            let ending = match (is_ours, is_moving, known.undone) {
                (true, true, _) => None,
                (true, false, Some(_)) if operation == Operation::Cancel => Some(Ending::Completed),
                (true, false, Some(_)) => Some(Ending::Undone),
                (true, false, None) if operation == Operation::Cancel => Some(Ending::Undone),
                (true, false, None) => is_served(&asked, &known).then_some(Ending::Completed),
                (false, ..) => None,
            };
            last = Some(known);
            if let Some(ending) = ending {
                return (ending, last);
            }
        }
        sleep(LOOK_EVERY).await;
    }
    eprintln!(
        "not seen to end within {} s; it goes on by itself: look at `tandem pool status`",
        WATCH_MAX.as_secs()
    );
    (Ending::UnderWay, last)
}

fn known(asked: &[Asked], home: &PoolName) -> Option<HomeStatus> {
    let homes = asked.iter().filter_map(|asked| asked.status.as_ref()).flat_map(|status| &status.homes);
    let ours = homes.filter(|said| said.home == *home && said.state.is_some());
    ours.max_by_key(|said| (said.epoch, said.service.is_some())).cloned()
}

/// Whether the owner serves: an operation is over for its users only then.
fn is_served(asked: &[Asked], known: &HomeStatus) -> bool {
    asked.iter().filter(|asked| Some(&asked.pool) == known.owner.as_ref()).any(|asked| {
        let homes = asked.status.iter().flat_map(|status| &status.homes);
        homes.filter(|said| said.home == known.home).any(|said| said.service.is_some())
    })
}

fn step(asked: &[Asked], known: &HomeStatus) -> String {
    let state = known.state.map_or_else(|| "state unknown".to_owned(), |state| word(&state));
    let owner = known.owner.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    let serves = if is_served(asked, known) { "serves" } else { "does not serve at this moment" };
    let undone = known.undone.map(|reason| format!(", undone: {reason}")).unwrap_or_default();
    format!("{state}{undone}; {owner} {serves}, epoch {}", known.epoch.unwrap_or(Epoch::ZERO))
}

fn show(output: Output, plan: &Plan) -> Result<()> {
    output::print(output, plan, || plan_table(plan))?;
    Ok(())
}

fn plan_table(plan: &Plan) -> Table {
    let mut table = Table::new(&["", ""]);
    let none = || "-".to_owned();
    let pool = |pool: &Option<PoolName>| pool.as_ref().map_or_else(none, ToString::to_string);
    table.push(["operation".to_owned(), format!("{} of {}", plan.operation, plan.pool)]);
    table.push(["serves now".to_owned(), pool(&plan.from)]);
    table.push(["will serve".to_owned(), pool(&plan.to)]);
    table.push(["state".to_owned(), plan.state.map_or_else(none, |state| word(&state))]);
    table.push(["state afterwards".to_owned(), plan.state_after.map_or_else(none, |state| word(&state))]);
    let affected = plan.affected;
    let calls = affected.calls.map_or_else(|| "unknown".to_owned(), |calls| calls.to_string());
    table.push([
        "concerned".to_owned(),
        format!("{} users, {} bindings, calls: {calls}", affected.users, affected.bindings),
    ]);
    for (number, step) in plan.steps.iter().enumerate() {
        table.push([format!("step {}", number + 1), step.clone()]);
    }
    for loss in &plan.would_be_lost {
        let entries = loss.entries.map_or_else(|| "unknown".to_owned(), |entries| entries.to_string());
        let age = loss.seconds.map(|seconds| format!(", the oldest {seconds:.1} s old")).unwrap_or_default();
        let text = format!("{entries} changes{age} (known from {})", loss.known_from);
        table.push([format!("lag of {}", word(&loss.what)), text]);
    }
    for note in &plan.notes {
        table.push(["note".to_owned(), note.clone()]);
    }
    for blocker in &plan.blockers {
        let text = format!("{}: {}; {}", blocker.rule, blocker.message, blocker.remedy);
        table.push(["BLOCKED".to_owned(), text]);
    }
    if plan.blockers.is_empty() {
        table.push(["possible".to_owned(), "yes; add --apply to do it".to_owned()]);
    }
    table
}

fn result_table(done: &Done) -> Table {
    let mut table = Table::new(&["pool", "operation", "result", "state", "owner", "epoch", "seconds"]);
    let dash = || "-".to_owned();
    table.push([
        done.pool.to_string(),
        done.operation.clone(),
        done.undone.map_or_else(|| word(&done.result), |reason| format!("{}: {reason}", word(&done.result))),
        done.state.map_or_else(dash, |state| word(&state)),
        done.owner.as_ref().map_or_else(dash, ToString::to_string),
        done.epoch.map_or_else(dash, |epoch| epoch.to_string()),
        format!("{:.1}", Duration::from_millis(done.elapsed_ms).as_secs_f64()),
    ]);
    table
}
