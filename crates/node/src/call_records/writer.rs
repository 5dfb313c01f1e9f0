//! Writes call records where this server is the owner of the user data, and brings all others to the owner.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{AddressOfRecord, Instant, PoolName, documents::Edit, limits};
use store::{Change, CommitError, Condition, UserStore, Write};
use tokio::time::sleep;
use topology::CallRecords;
use tracing::{debug, warn};

use super::{CallEvent, Calls, OwedRecord, OwedRecords, Spool, SpoolError};
use crate::{
    Shared,
    api::wire::Changed,
    clock,
    peers::{Endpoint, PeerClient, PeerError},
    writes::{self, WriteError},
};

/// Time for which records are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(200);
/// Events of one batch: a call has few parties, so that their records fit into one commit.
const EVENTS_MAX: usize = 400;
/// Time between two attempts to deliver what waits, and to write what could not be written.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long the owner may take for a batch.
const DELIVER_WITHIN: Duration = Duration::from_secs(10);

type SharedSpool = Arc<Mutex<Spool>>;

/// Starts the writer and the delivery.
pub fn start(shared: &Arc<Shared>, client: &PeerClient, spool: Spool) {
    let kept = shared.topology().pool(&shared.pool).map(|pool| pool.settings.call_records);
    let spool = Arc::new(Mutex::new(spool));
    tokio::spawn(write(Arc::clone(shared), Arc::clone(&spool), kept.unwrap_or_default()));
    tokio::spawn(deliver(Arc::clone(shared), client.clone(), spool));
}

/// Writes records of users in one journal, where this server is its owner; those of users who are gone are
/// left out. On disk when this returns. Returns how many there were.
///
/// Errors: [`WriteError`]; nothing is written then, or it is unknown and harmless to repeat.
pub async fn write_here(shared: &Arc<Shared>, owed: &OwedRecords) -> Result<usize, WriteError> {
    let held = shared.writing_authority(&owed.journal)?;
    for home in owed.records.iter().filter_map(|record| home_of(shared, &record.aor)) {
        shared.may_change(&home, &owed.journal, held)?;
    }
    let (users, journal, records) = (Arc::clone(&shared.users), owed.journal.clone(), owed.records.clone());
    let changes = move || {
        let mut changes = Vec::with_capacity(records.len());
        for record in records {
            if users.account(&journal, &record.aor).map_err(CommitError::from)?.is_some() {
                changes.extend(change(record));
            }
        }
        Ok::<_, WriteError>(changes)
    };
    let changes = tokio::task::spawn_blocking(changes).await.map_err(|_| WriteError::Unknown)??;
    if changes.is_empty() {
        return Ok(0);
    }
    Ok(writes::commit(shared, owed.journal.clone(), changes).await?.len())
}

fn home_of(shared: &Shared, aor: &AddressOfRecord) -> Option<PoolName> {
    shared.directory.homes().name(shared.directory.user(aor)?.home).cloned()
}

/// `None` when the operation has no readable name.
fn change(owed: OwedRecord) -> Option<Change> {
    Some(Change {
        operation: owed.operation()?,
        aor: owed.aor,
        changed_at: clock::wall_time(),
        condition: Condition::Any,
        write: Write::Edit(Edit::CallRecord(owed.record)),
    })
}

async fn write(shared: Arc<Shared>, spool: SharedSpool, kept: CallRecords) {
    let mut calls = Calls::new(kept, limits::CALLS_AWAITED_MAX);
    loop {
        shared.calls.wait().await;
        sleep(GATHER).await;
        loop {
            let events = shared.calls.take(EVENTS_MAX);
            if events.is_empty() {
                break;
            }
            shared.calls.count(&events, |aor| shared.directory.user(aor).map(|user| user.home));
            for owed in by_journal(&shared, &mut calls, &events) {
                write_or_keep(&shared, &spool, owed).await;
            }
        }
    }
}

/// The records that events make, by the journal into which they belong; those of nobody we know are left out.
fn by_journal(shared: &Shared, calls: &mut Calls, events: &[CallEvent]) -> Vec<OwedRecords> {
    let owed = events.iter().flat_map(|event| calls.owed(event)).collect();
    let journals = sorted(shared, owed, None);
    let batches = journals.into_iter().flat_map(|(journal, records)| {
        let pages: Vec<_> = records.chunks(limits::ACCOUNTS_PER_PAGE_MAX).map(<[_]>::to_vec).collect();
        pages.into_iter().map(move |records| OwedRecords { journal: journal.clone(), records })
    });
    batches.collect()
}

/// Records by the journal into which they belong now; those of nobody we know go to `otherwise`.
fn sorted(
    shared: &Shared,
    owed: Vec<OwedRecord>,
    otherwise: Option<&PoolName>,
) -> BTreeMap<PoolName, Vec<OwedRecord>> {
    let mut journals: BTreeMap<PoolName, Vec<OwedRecord>> = BTreeMap::new();
    for owed in owed {
        let home = shared.directory.user(&owed.aor).map(|user| user.home);
        let journal = home.and_then(|home| shared.journal_of(home));
        if let Some(journal) = journal.or_else(|| otherwise.cloned()) {
            journals.entry(journal).or_default().push(owed);
        }
    }
    journals
}

/// Until the records are on disk somewhere. Meanwhile events wait in the recorder, whose bound counts what it
/// cannot keep.
async fn write_or_keep(shared: &Arc<Shared>, spool: &SharedSpool, owed: OwedRecords) {
    let count = owed.records.len();
    loop {
        match write_here(shared, &owed).await {
            Ok(_) => return shared.counters.call_records_written.add_many(count),
            Err(
                WriteError::NotOwner { .. } | WriteError::Resiliency { .. } | WriteError::Arriving { .. },
            ) => {}
            Err(error) => warn!(pool = %owed.journal, %error, "call records not written; kept for later"),
        }
        match keep(spool, owed.clone()).await {
            Ok(()) => return shared.counters.call_records_spooled.add_many(count),
            Err(error @ SpoolError::Full { .. }) => {
                warn!(pool = %owed.journal, %error, records = count, "call records lost");
                return shared.counters.call_records_lost.add_many(count);
            }
            Err(error @ SpoolError::Io { .. }) => {
                warn!(pool = %owed.journal, %error, "call records not kept; trying again");
                sleep(AGAIN_AFTER).await;
            }
        }
    }
}

async fn keep(spool: &SharedSpool, owed: OwedRecords) -> Result<(), SpoolError> {
    let spool = Arc::clone(spool);
    let kept = tokio::task::spawn_blocking(move || locked(&spool).keep(owed)).await;
    kept.unwrap_or_else(|ended| {
        Err(SpoolError::Io { file: std::path::PathBuf::new(), source: std::io::Error::other(ended) })
    })
}

/// Brings what waits to the owner of the user data, oldest first, until dropped.
async fn deliver(shared: Arc<Shared>, client: PeerClient, spool: SharedSpool) {
    loop {
        sleep(AGAIN_AFTER).await;
        let journals = locked(&spool).journals();
        for journal in journals {
            loop {
                let oldest = locked(&spool).oldest(&journal);
                let Some((number, records)) = oldest else { break };
                let count = records.len();
                if !is_delivered(&shared, &client, OwedRecords { journal: journal.clone(), records }).await {
                    break;
                }
                locked(&spool).delivered(number);
                shared.counters.call_records_delivered.add_many(count);
            }
        }
    }
}

/// Delivers records that waited, to where they belong now: their branch may have another associated pool
/// since. A part that arrived twice is kept once.
async fn is_delivered(shared: &Arc<Shared>, client: &PeerClient, owed: OwedRecords) -> bool {
    for (journal, records) in sorted(shared, owed.records, Some(&owed.journal)) {
        if !is_delivered_to(shared, client, OwedRecords { journal, records }).await {
            return false;
        }
    }
    true
}

async fn is_delivered_to(shared: &Arc<Shared>, client: &PeerClient, owed: OwedRecords) -> bool {
    let journal = owed.journal.clone();
    match write_here(shared, &owed).await {
        Ok(_) => return true,
        Err(WriteError::NotOwner { .. } | WriteError::Resiliency { .. } | WriteError::Arriving { .. }) => {}
        Err(error) => {
            warn!(pool = %journal, %error, "waiting call records not written; trying again");
            return false;
        }
    }
    let Some(endpoint) = owner(shared, &journal, clock::now()) else { return false };
    let answer: Result<Changed, PeerError> =
        client.post(&endpoint, "/v1/call_records", &owed, DELIVER_WITHIN).await;
    match answer {
        Ok(_) => true,
        Err(error) => {
            debug!(pool = %journal, %error, "call records not delivered; trying again");
            false
        }
    }
}

/// The server that says it serves these users with user services.
fn owner(shared: &Shared, journal: &PoolName, now: Instant) -> Option<Endpoint> {
    let index = shared.directory.homes().index(journal)?;
    let claim = shared.links.serving(index, now).filter(|claim| claim.is_full)?;
    let topology = shared.topology();
    let server = topology.server(&claim.server)?;
    Some(Endpoint { address: server.listen.internal_http, name: server.fqdn.clone() })
}

fn locked(spool: &SharedSpool) -> MutexGuard<'_, Spool> {
    spool.lock().unwrap_or_else(PoisonError::into_inner)
}
