//! The new owner's side: fetches the users of branches that came to this pool, settles them, and tells the
//! former owner.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use model::{AddressOfRecord, Epoch, PoolName, ServerName};
use store::{AdoptError, MovePage, StoreError, UserStore};
use tokio::time::{sleep, timeout};
use topology::Topology;
use tracing::{info, warn};

use super::{Associations, GiveError, Giving, Parting, give, part};
use crate::{
    OwnerNews, Shared,
    api::wire::{Changed, MoveState, MoveStatus},
    clock,
    peers::{Endpoint, PeerClient, PeerError},
    writes::WriteError,
};

/// How long the former owner may take for a page.
const PAGE_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take to remove users who are settled.
const PART_WITHIN: Duration = Duration::from_secs(30);
/// How long one attempt waits for the partner and the appliance to hold what is settled.
const COPIED_WITHIN: Duration = Duration::from_secs(5);
/// Time that servers which only find users have to hear of the new journal before the old one forgets.
const HEARD_WITHIN: Duration = Duration::from_millis(500);
/// Time before a failed step is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Starts the task of this server: where it owns the journal into which users come it fetches them, elsewhere
/// it forgets former pools whose journals have none of them any more.
pub fn start(shared: &Arc<Shared>, client: &PeerClient) {
    let taking = Taking { shared: Arc::clone(shared), client: client.clone(), tenures: BTreeMap::new() };
    tokio::spawn(taking.run());
}

struct Taking {
    shared: Arc<Shared>,
    client: PeerClient,
    /// Version of the topology and epoch for which was looked where users of a branch are.
    tenures: BTreeMap<PoolName, (u64, Epoch)>,
}

/// What was settled of one move.
struct Settled {
    users: usize,
    /// Epoch of the former owner.
    epoch: Epoch,
    /// Last number of the former journal with its first page.
    last: u64,
    /// End of the journal here.
    end: u64,
}

/// Why a move has to wait.
#[derive(Debug, thiserror::Error)]
enum WaitError {
    #[error("nobody who answers owns the journal of {0}")]
    NoOwner(PoolName),
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Give(#[from] GiveError),
    #[error("not written here")]
    Write(#[from] WriteError),
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the associations of branches cannot be written")]
    Memory(#[from] std::io::Error),
    #[error("{0} has not copied what is settled yet")]
    NotCopied(ServerName),
    #[error("the store's thread ended")]
    Ended(#[from] tokio::task::JoinError),
}

impl Taking {
    async fn run(mut self) {
        loop {
            // Before looking, so that no news is missed meanwhile.
            let mut news = OwnerNews::of(&self.shared);
            let mut users = self.shared.user_news.subscribe();
            let topology = self.shared.topology();
            let mut must_wait = false;
            for branch in &topology.pools {
                let Some(to) = &branch.associated_pool else { continue };
                must_wait |= !self.look_at(&topology, &branch.name, to).await;
            }
            if must_wait {
                sleep(RETRY_AFTER).await;
            } else if self.shared.associations.is_any_leaving() {
                tokio::select! {
                    () = news.next() => {}
                    _ = users.changed() => sleep(RETRY_AFTER).await,
                }
            } else {
                news.next().await;
            }
        }
    }

    /// Does what there is to do for one branch; returns whether nothing is left.
    async fn look_at(&mut self, topology: &Topology, branch: &PoolName, to: &PoolName) -> bool {
        let Ok(epoch) = self.shared.writing_authority(to) else {
            self.tenures.remove(branch);
            self.shared.associations.leave(branch);
            if let Err(error) = self.forget_unseen(branch).await {
                warn!(pool = %branch, %error, "where the branch's users are is not known");
            }
            return true;
        };
        let tenure = (topology.version, epoch);
        if self.tenures.get(branch) != Some(&tenure) {
            match self.find(branch, to).await {
                Ok(()) => drop(self.tenures.insert(branch.clone(), tenure)),
                Err(error) => warn!(pool = %branch, %error, "where the branch's users are is not known"),
            }
        }
        for from in self.shared.associations.former(branch) {
            match self.fetch(branch, &from, to).await {
                Ok(users) => info!(pool = %branch, %from, %to, users, "users have another journal"),
                Err(error) => {
                    self.wait(branch, &from, to, &error);
                    return false;
                }
            }
        }
        true
    }

    /// Notes the journals in which users of the branch are although they belong into that of `to`.
    async fn find(&self, branch: &PoolName, to: &PoolName) -> Result<(), WaitError> {
        for journal in self.journals_of(branch).await? {
            if journal != *to && self.is_front_end(&journal) {
                self.remember(branch, &journal, Associations::found).await?;
            }
        }
        Ok(())
    }

    /// Forgets former pools of whose journals this server's copy has no users of the branch any more.
    async fn forget_unseen(&self, branch: &PoolName) -> Result<(), WaitError> {
        let former = self.shared.associations.former(branch);
        if former.is_empty() {
            return Ok(());
        }
        let seen = self.journals_of(branch).await?;
        for from in former.iter().filter(|from| !seen.contains(from)) {
            self.remember(branch, from, Associations::forget).await?;
            self.shared.topology.look_again();
        }
        Ok(())
    }

    /// Changes what is known of a branch and a former pool, durably.
    async fn remember(
        &self,
        branch: &PoolName,
        from: &PoolName,
        change: fn(&Associations, &PoolName, &PoolName) -> std::io::Result<()>,
    ) -> Result<(), WaitError> {
        let (branch, from) = (branch.clone(), from.clone());
        let changed = self.shared.associations.on_disk(move |known| change(known, &branch, &from)).await;
        Ok(changed?)
    }

    async fn journals_of(&self, branch: &PoolName) -> Result<Vec<PoolName>, WaitError> {
        let (users, branch) = (Arc::clone(&self.shared.users), branch.clone());
        Ok(tokio::task::spawn_blocking(move || users.journals_of(&branch)).await??)
    }

    fn is_front_end(&self, pool: &PoolName) -> bool {
        self.shared.topology().pool(pool).is_some_and(|pool| pool.role == topology::Role::FrontEnd)
    }

    /// Brings all users of a branch from one journal into the other; returns how many there were.
    async fn fetch(&self, branch: &PoolName, from: &PoolName, to: &PoolName) -> Result<usize, WaitError> {
        let mut count = 0_usize;
        while let Some(settled) = self.settle(branch, from, to).await? {
            self.remember(branch, from, Associations::taken).await?;
            self.note(branch, from, to, MoveState::Settled, None);
            self.copied(branch, to, settled.end).await?;
            sleep(HEARD_WITHIN).await;
            let parting = Parting {
                journal: from.clone(),
                home: branch.clone(),
                to: to.clone(),
                epoch: settled.epoch,
                last: settled.last,
            };
            self.part(parting).await?;
            count = count.saturating_add(settled.users);
        }
        self.remember(branch, from, Associations::taken).await?;
        self.remember(branch, from, Associations::forget).await?;
        self.shared.topology.look_again();
        Ok(count)
    }

    /// Settles every user that the former owner has; `None` when it has none.
    async fn settle(
        &self,
        branch: &PoolName,
        from: &PoolName,
        to: &PoolName,
    ) -> Result<Option<Settled>, WaitError> {
        if !self.shared.associations.is_taken(branch, from) {
            self.note(branch, from, to, MoveState::Moving, None);
        }
        let mut after = None;
        let mut settled: Option<Settled> = None;
        loop {
            let page = self.ask(branch, from, to, after).await?;
            let content = page.content();
            let users = content.users.len();
            let (epoch, last, is_end) = (content.epoch, content.last, content.is_end);
            after = page.next().cloned();
            if users == 0 {
                return Ok(settled);
            }
            let end = self.commit(to, page).await?;
            settled = Some(match settled {
                None => Settled { users, epoch, last, end },
                Some(before) => Settled { users: before.users.saturating_add(users), end, ..before },
            });
            if is_end {
                return Ok(settled);
            }
        }
    }

    /// Writes a page into the journal of `to`; returns its end.
    async fn commit(&self, to: &PoolName, page: MovePage) -> Result<u64, WaitError> {
        let _writing = self.shared.gates.of(to).read_owned().await;
        let held = self.shared.writing_authority(to)?;
        let (users, journal) = (Arc::clone(&self.shared.users), to.clone());
        let settle = move || users.settle(&journal, held, clock::wall_time(), &page);
        Ok(tokio::task::spawn_blocking(settle).await??.sequence)
    }

    /// Waits until the partner and the appliance hold the journal of `to` up to `end`.
    async fn copied(&self, branch: &PoolName, to: &PoolName, end: u64) -> Result<(), WaitError> {
        let topology = self.shared.topology();
        let partner = topology.partner_of(to).map(|partner| &partner.name);
        let pools = [Some(to), partner, Some(branch)].into_iter().flatten();
        let readers =
            pools.filter(|pool| **pool != self.shared.pool).flat_map(|pool| topology.servers_of(pool));
        for reader in readers {
            let confirmed = self.shared.copies.confirmed(to, &reader.name, end);
            let in_time = timeout(COPIED_WITHIN, confirmed).await;
            in_time.map_err(|_| WaitError::NotCopied(reader.name.clone()))?;
        }
        Ok(())
    }

    async fn ask(
        &self,
        branch: &PoolName,
        from: &PoolName,
        to: &PoolName,
        after: Option<AddressOfRecord>,
    ) -> Result<MovePage, WaitError> {
        let Some(owner) = self.owner(from)? else {
            let asked = Giving { journal: from.clone(), home: branch.clone(), to: to.clone(), after };
            return Ok(give(&self.shared, asked).await?);
        };
        let mut path = format!("/v1/leaving?journal={from}&home={branch}&to={to}");
        if let Some(after) = after {
            path.push_str("&after=");
            path.push_str(&escaped(after.as_str()));
        }
        Ok(MovePage::decode(&self.client.get_octets(&owner, &path, PAGE_WITHIN).await?)?)
    }

    async fn part(&self, parting: Parting) -> Result<(), WaitError> {
        match self.owner(&parting.journal)? {
            None => drop(part(&self.shared, parting).await?),
            Some(owner) => {
                let parted = self.client.post(&owner, "/v1/leaving", &parting, PART_WITHIN).await;
                let Changed { .. } = parted?;
            }
        }
        Ok(())
    }

    /// Who owns the journal of `from`; `None` when it is this server.
    fn owner(&self, from: &PoolName) -> Result<Option<Endpoint>, WaitError> {
        let shared = &self.shared;
        if shared.writing_authority(from).is_ok() {
            return Ok(None);
        }
        let topology = shared.topology();
        let index = shared.directory.homes().index(from);
        let claim = index.and_then(|index| shared.links.serving(index, clock::now()));
        let server = claim.filter(|claim| claim.is_full).and_then(|claim| topology.server(&claim.server));
        let server = server.ok_or_else(|| WaitError::NoOwner(from.clone()))?;
        Ok(Some(Endpoint { address: server.listen.internal_http, name: server.fqdn.clone() }))
    }

    fn wait(&self, branch: &PoolName, from: &PoolName, to: &PoolName, error: &WaitError) {
        let is_taken = self.shared.associations.is_taken(branch, from);
        let state = if is_taken { MoveState::Settled } else { MoveState::Waiting };
        let mut reason = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(source) = cause {
            reason = format!("{reason}: {source}");
            cause = source.source();
        }
        if self.note(branch, from, to, state, Some(reason.clone())) {
            warn!(pool = %branch, %from, %to, reason, "users have not got their new journal; trying again");
        }
    }

    fn note(
        &self,
        branch: &PoolName,
        from: &PoolName,
        to: &PoolName,
        state: MoveState,
        reason: Option<String>,
    ) -> bool {
        let (branch, from, to) = (branch.clone(), from.clone(), to.clone());
        self.shared.associations.note(MoveStatus { branch, from, to, state, reason })
    }
}

/// An address-of-record in the query of a path.
fn escaped(text: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~');
    let octets = text.bytes();
    octets
        .map(|octet| if plain(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") })
        .collect()
}
