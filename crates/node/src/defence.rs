//! Bans and slow-down of one server: the machine of [`bans`], the list that the sockets look at, and who is
//! told.

use std::{
    hash::Hasher,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bans::{Ban, BanError, Bans, Offence, Output, Proof, Settings, UserKey};
use model::{Instant, IpNetwork, Peer, Source};
use siphasher::sip::SipHasher13;
use tokio::time::sleep;
use topology::{PoolSettings, Topology};
use tracing::{info, warn};
use transport::BannedSources;

use crate::{
    Counters, Shared, clock,
    shard::mail::{Mail, Mailer},
};

/// Time between two looks at whose ban is over.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who misbehaved at this server, shared by its shards.
///
/// While nobody did, it costs one load of an atomic for each request with credentials; the lock is taken only
/// when there is something to look at or to write down.
pub struct Defence {
    machine: Mutex<Bans>,
    is_quiet: AtomicBool,
    banned: Arc<BannedSources>,
    shards: OnceLock<Vec<Mailer>>,
    /// Key of the hashes that stand for user names.
    key: u64,
}

impl Defence {
    /// Nobody misbehaved yet. Our own servers, and what the pool exempts, never do.
    pub fn new(topology: &Topology, settings: &PoolSettings, key: u64) -> Self {
        let own = topology.servers.iter().flat_map(|server| server.listen.all().map(|address| address.ip()));
        let exempt = own.map(IpNetwork::of_address).chain(settings.ban_exempt.iter().copied());
        let machine = Bans::new(
            Settings {
                offences_max: settings.ban_offences_max,
                window: settings.ban_window(),
                lasts: settings.ban(),
                lasts_max: settings.ban_max(),
            },
            exempt.collect(),
        );
        Self {
            machine: Mutex::new(machine),
            is_quiet: AtomicBool::new(true),
            banned: Arc::default(),
            shards: OnceLock::new(),
            key,
        }
    }

    /// What the sockets look at.
    pub fn banned(&self) -> Arc<BannedSources> {
        Arc::clone(&self.banned)
    }

    /// Whether nothing from this address is to be listened to.
    pub fn is_banned(&self, address: IpAddr) -> bool {
        self.banned.contains(address)
    }

    /// From now on these shards close the connections of who is banned.
    pub fn connect(&self, shards: Vec<Mailer>) {
        let _only_once = self.shards.set(shards);
    }

    /// A peer did something wrong: counted when it is proven that it was this one.
    pub fn offence(&self, counters: &Counters, peer: &Peer, offence: Offence) {
        let (source, proof) = (Source::of(peer.remote.ip()), Proof::of(peer.protocol));
        if proof != Proof::None {
            self.change(counters, |machine, now| machine.offence(now, source, offence, proof));
        }
    }

    /// Whether a password may be looked at; see [`Bans::may_try`].
    ///
    /// Errors: not for so long.
    pub fn may_try(
        &self,
        counters: &Counters,
        source: Source,
        username: &[u8],
        realm: &[u8],
    ) -> Result<(), Duration> {
        if self.is_quiet.load(Ordering::Relaxed) {
            return Ok(());
        }
        let user = self.user(username, realm);
        self.change(counters, |machine, now| machine.may_try(now, source, user))
            .inspect_err(|_| counters.guesses_slowed.add())
    }

    /// A password was wrong.
    pub fn wrong(&self, counters: &Counters, source: Source, username: &[u8], realm: &[u8]) {
        let user = self.user(username, realm);
        counters.credentials_wrong.add();
        self.change(counters, |machine, now| machine.wrong(now, source, user));
    }

    /// A password was right, and the request in the name of another user.
    pub fn foreign(&self, counters: &Counters, source: Source, username: &[u8], realm: &[u8]) {
        let user = self.user(username, realm);
        self.change(counters, |machine, now| machine.foreign(now, source, user));
    }

    /// A password was right.
    pub fn right(&self, counters: &Counters, source: Source, username: &[u8], realm: &[u8]) {
        if self.is_quiet.load(Ordering::Relaxed) {
            return;
        }
        let user = self.user(username, realm);
        self.change(counters, |machine, now| machine.right(now, source, user));
    }

    /// Bans by order of an operator.
    ///
    /// Errors: [`BanError`].
    pub fn add(&self, counters: &Counters, source: Source, lasts: Duration) -> Result<(), BanError> {
        self.change(counters, |machine, now| machine.add(now, source, lasts))
    }

    /// Ends a ban by order of an operator; `false` when there was none.
    pub fn remove(&self, counters: &Counters, source: Source) -> bool {
        self.change(counters, |machine, _| machine.remove(source))
    }

    /// The bans in force.
    pub fn list(&self) -> Vec<Ban> {
        self.machine().list().copied().collect()
    }

    /// Lets bans end, for as long as the server runs.
    pub async fn watch(shared: Arc<Shared>) {
        loop {
            sleep(LOOK_EVERY).await;
            shared.defence.change(&shared.counters, Bans::handle_timeout);
        }
    }

    fn change<T>(&self, counters: &Counters, change: impl FnOnce(&mut Bans, Instant) -> T) -> T {
        let mut machine = self.machine();
        let result = change(&mut machine, clock::now());
        while let Some(output) = machine.poll_output() {
            self.carry_out(counters, output);
        }
        self.is_quiet.store(machine.is_quiet(), Ordering::Relaxed);
        result
    }

    fn carry_out(&self, counters: &Counters, output: Output) {
        match output {
            Output::Banned(ban) => {
                counters.bans_begun.add();
                let seconds = ban.until.saturating_since(ban.since).as_secs();
                let Ban { source, cause, offences, times, .. } = ban;
                warn!(peer = %source, %cause, offences, times, seconds, "banned");
                self.banned.insert(source);
                for shard in self.shards.get().into_iter().flatten() {
                    shard.post(Mail::Banned(source));
                }
            }
            Output::Lifted(source, why) => {
                info!(peer = %source, ?why, "no longer banned");
                self.banned.remove(source);
            }
        }
    }

    fn user(&self, username: &[u8], realm: &[u8]) -> UserKey {
        let mut hasher = SipHasher13::new_with_keys(self.key, !self.key);
        hasher.write(realm);
        hasher.write_u8(b':');
        hasher.write(username);
        UserKey(hasher.finish())
    }

    fn machine(&self) -> MutexGuard<'_, Bans> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
