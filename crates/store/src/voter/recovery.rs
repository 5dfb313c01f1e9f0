//! Reading back at start: snapshots first, then the log after them.

use std::{path::Path, sync::Arc};

use hashbrown::HashMap;
use model::{PoolName, RoutingGroup};
use registrar::GroupState;

use super::{
    LogPolicy,
    feed::Feeds,
    groups::{Groups, Homes},
    log::{Log, Region},
    snapshot,
    writer::Slot,
};
use crate::StoreError;

/// Where the log lies in the store's directory.
const LOG: &str = "log";
/// Where the snapshots lie.
pub(super) const SNAPSHOTS: &str = "snapshots";

/// Everything acknowledged, read back.
pub(super) struct Recovered {
    pub(super) log: Arc<Log>,
    pub(super) homes: Homes,
    pub(super) feeds: Feeds,
    /// Twelve for each home pool, by its number.
    pub(super) slots: Vec<Slot>,
    pub(super) first_slots: HashMap<PoolName, usize>,
}

pub(super) fn recover(directory: &Path, policy: LogPolicy) -> Result<Recovered, StoreError> {
    let log_directory = directory.join(LOG);
    let snapshots = directory.join(SNAPSHOTS);
    std::fs::create_dir_all(directory).map_err(|error| StoreError::from_io(directory, error))?;
    let log = Log::open(&log_directory, policy)?;
    let mut files = snapshot::prepare(&snapshots)?;
    let mut numbered = log.homes()?;
    numbered.sort_by_key(|(_, number)| *number);
    let (homes, feeds) = (Homes::default(), Feeds::default());
    let mut slots = Vec::new();
    let mut first_slots = HashMap::new();
    for ((home, number), expected) in numbered.into_iter().zip(1_u32..) {
        if number != expected {
            return Err(StoreError::corrupt(&log_directory, format!("home pool {home} has number {number}")));
        }
        files.retain(|file| {
            RoutingGroup::all().all(|group| *file != snapshot::path(&snapshots, &home, group))
        });
        let recovered = recover_home(&log, &snapshots, &home, number)?;
        first_slots.insert(home.clone(), slots.len());
        let (states, logs): (Vec<_>, Vec<_>) = recovered.into_iter().unzip();
        let groups = Arc::new(Groups::new(states.into_iter(), feeds.of(&home)));
        for log in logs {
            slots.push(Slot::new(home.clone(), log.region, Arc::clone(&groups), log.last, log.commands));
        }
        homes.add(home, groups);
    }
    if let Some(file) = files.first() {
        return Err(StoreError::corrupt(
            file,
            "its home pool has no log: the log directory was emptied or replaced",
        ));
    }
    Ok(Recovered { log: Arc::new(log), homes, feeds, slots, first_slots })
}

/// What the log of a group holds.
struct GroupLog {
    region: Region,
    /// Index of the last entry.
    last: u64,
    /// Commands since the snapshot.
    commands: u64,
}

fn recover_home(
    log: &Log,
    snapshots: &Path,
    home: &PoolName,
    home_number: u32,
) -> Result<Vec<(GroupState, GroupLog)>, StoreError> {
    let recover_group = |group| {
        let region = Region { home_number, group };
        let file = snapshot::path(snapshots, home, group);
        let (mut state, after) = snapshot::read(&file, region)?
            .map_or_else(|| (GroupState::new(), 0), |snapshot| (snapshot.state, snapshot.index));
        let mut commands = 0_u64;
        let last = log.read(region, after, &mut |command| {
            state.apply(command);
            commands = commands.saturating_add(1);
        })?;
        // What the snapshot contains may still be in the log when a crash came before it was dropped.
        log.compact(region, after);
        Ok((state, GroupLog { region, last, commands }))
    };
    let groups: Vec<_> = RoutingGroup::all().map(recover_group).collect::<Result<_, StoreError>>()?;
    let bindings: usize = groups.iter().map(|(state, _)| state.len()).sum();
    let commands: u64 = groups.iter().map(|(_, log)| log.commands).sum();
    tracing::info!(pool = %home, bindings, commands, "bindings read back");
    Ok(groups)
}
