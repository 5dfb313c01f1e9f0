//! What the topology means for the machines of a shard.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use model::{Chance, WallTime};
use pairing::Service;
use registrar::{
    DeviceLimit, ExpirySpread, OperationKey, PathWithoutSupport, RegisterSettings,
    authentication::{
        AccountView, Accounts, Algorithms, AuthenticationSettings, Authenticator, NonceCounts, NonceKey,
        NonceLedger, NonceUse,
    },
    reg_event::SubscribeSettings,
};
use sip::digest::Algorithm;
use topology::{CallRecords, DevicesBeyondMax, PoolSettings, Topology};

use super::keep_alives::FlowTimer;
use crate::{Directory, EmergencyNumbers, Shared, clock, shared::service_name};

/// Settings of the machines, the same in every shard but for their seeds.
pub struct ShardSettings {
    pub(super) proxy: proxy::Settings,
    pub(super) rules: proxy::Rules,
    pub(super) transactions: transaction::Settings,
    pub(super) register: RegisterSettings,
    /// The key of the operation ids of REGISTERs.
    pub(super) operation_key: OperationKey,
    pub(super) domains: Vec<String>,
    /// Octets of a request from outside. More: 513.
    pub(super) message_bytes_max: usize,
    /// Octets of a request above which it does not leave as a datagram where TCP may do.
    pub(super) udp_request_bytes_max: usize,
    pub(super) says: ModeHeaders,
    /// Terms of subscriptions to registrations.
    pub(super) subscribe: SubscribeSettings,
    /// Whether phones are given GRUUs.
    pub(super) gives_gruus: bool,
    /// What phones with Outbound are told about keep-alives.
    pub(super) flow_timer: Option<FlowTimer>,
    /// How registrations are shortened so that they do not end together.
    pub(super) expiry_spread: ExpirySpread,
    /// Latency up to which nothing is put off.
    pub(super) latency_target: Duration,
    /// Phones that this server sends to their new owner in a second.
    pub(super) steer_phones_per_s: u32,
    /// What users dial in an emergency.
    pub(super) emergency: EmergencyNumbers,
    pool: PoolSettings,
}

impl ShardSettings {
    /// The settings of this server's pool.
    pub fn of(shared: &Shared) -> Self {
        let topology: &Topology = &shared.topology();
        let pool = topology.pool(&shared.pool).map(|pool| pool.settings.clone()).unwrap_or_default();
        let loop_key = shared.loop_key;
        Self {
            proxy: proxy::Settings { loop_key, ..proxy::Settings::default() },
            rules: proxy::Rules {
                loop_key,
                option_tags: vec![Bytes::from_static(b"path")],
                ..Default::default()
            },
            transactions: transaction::Settings {
                seed: clock::random_seed(),
                ..transaction::Settings::default()
            },
            register: RegisterSettings {
                expires_min_s: pool.expires_min_s,
                expires_default_s: pool.expires_default_s,
                expires_max_s: pool.expires_max_s,
                devices: match pool.devices_beyond_max {
                    DevicesBeyondMax::ReplaceOldest => DeviceLimit::replacing(pool.devices_per_user_max),
                    DevicesBeyondMax::Refuse => DeviceLimit::refusing(pool.devices_per_user_max),
                },
                path_without_support: PathWithoutSupport::Ignore,
            },
            operation_key: OperationKey::derived_from(&shared.nonce_key),
            domains: topology.domains.iter().map(ToString::to_string).collect(),
            message_bytes_max: usize::try_from(pool.message_bytes_max).unwrap_or(usize::MAX),
            udp_request_bytes_max: usize::try_from(pool.udp_request_bytes_max).unwrap_or(usize::MAX),
            says: ModeHeaders::of(shared),
            subscribe: SubscribeSettings::default(),
            gives_gruus: pool.gruu,
            flow_timer: FlowTimer::of(pool.flow_timer_s),
            expiry_spread: ExpirySpread {
                percent: pool.expires_spread_percent,
                min_s: pool.expires_min_s,
                key: loop_key,
            },
            latency_target: pool.latency_target(),
            steer_phones_per_s: pool.steer_phones_per_s,
            emergency: EmergencyNumbers::new(pool.emergency_numbers.iter().map(String::as_str)),
            pool,
        }
    }

    /// Whether users of this domain, in lower case, are ours.
    pub fn is_our_domain(&self, domain: &str) -> bool {
        self.domains.iter().any(|own| own == domain)
    }

    /// Which calls are noted.
    pub(super) const fn call_records(&self) -> CallRecords {
        self.pool.call_records
    }

    /// Whether a 200 to a REGISTER proves that we know the password too.
    pub(super) const fn authentication_info(&self) -> bool {
        self.pool.authentication_info
    }

    /// An authenticator whose nonces are good on every server of the deployment.
    pub fn authenticator(&self, shared: &Shared) -> Authenticator<SharedLedger> {
        let settings = AuthenticationSettings {
            algorithms: algorithms(&self.pool),
            nonce_lifetime: self.pool.nonce_lifetime(),
        };
        let chance = Chance::seeded(clock::random_seed());
        let key = NonceKey::new(shared.nonce_key);
        Authenticator::with_ledger(settings, &key, None, chance, shared.nonce_counts.clone())
    }
}

/// How a 200 OK to REGISTER says in which mode the user is served (RFC 6809, RFC 3261 section 20.43).
pub(super) struct ModeHeaders {
    /// Feature-Caps with user services.
    pub(super) full: String,
    /// Feature-Caps without them.
    pub(super) resiliency: String,
    /// The Warning that goes with it.
    pub(super) warning: String,
    /// Version of the topology that says so.
    version: u64,
}

impl ModeHeaders {
    /// Names the backup registrar of the topology in force.
    pub(super) fn follow(&mut self, shared: &Shared) {
        if self.version != shared.topology().version {
            *self = Self::of(shared);
        }
    }

    fn of(shared: &Shared) -> Self {
        let topology = shared.topology();
        let backup = topology.backup_of(&shared.pool);
        let backup = backup.map(|pool| format!(";+g.tandem.backup=\"{}\"", pool.fqdn)).unwrap_or_default();
        let features = |service| format!("*;+g.tandem.mode=\"{}\"{backup}", service_name(service));
        let (server, pool) = (&shared.server.fqdn, &shared.pool);
        Self {
            full: features(Service::Full),
            resiliency: features(Service::Resiliency),
            version: topology.version,
            warning: format!("399 {server} \"resiliency mode at {pool}: registration and calls only\""),
        }
    }
}

/// The algorithms that the pool offers, those without stored hashes left out.
fn algorithms(pool: &PoolSettings) -> Algorithms {
    let known = pool.digest_algorithms.iter().filter_map(|algorithm| match algorithm {
        topology::DigestAlgorithm::Md5 => Some(Algorithm::Md5),
        topology::DigestAlgorithm::Sha256 => Some(Algorithm::Sha256),
        topology::DigestAlgorithm::Sha512_256 => None,
    });
    Algorithms::new(&known.collect::<Vec<_>>()).unwrap_or(Algorithms::SHA256_MD5)
}

/// The nonce counts of one server, for all its shards.
#[derive(Clone, Debug)]
pub struct SharedLedger(Arc<Mutex<NonceCounts>>);

impl SharedLedger {
    /// Nothing counted yet, for nonces of this pool.
    pub fn new(pool: &PoolSettings) -> Self {
        let counts = NonceCounts::new(pool.nonce_lifetime(), model::limits::NONCES_TRACKED_MAX);
        Self(Arc::new(Mutex::new(counts)))
    }
}

impl NonceLedger for SharedLedger {
    fn admit(&mut self, now: WallTime, used: NonceUse) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).admit(now, used)
    }
}

impl Accounts for Directory {
    fn account(&self, username: &[u8], realm: &str) -> Option<AccountView> {
        let user = self.user_named(username, realm.as_bytes())?;
        let credentials = user.credentials?;
        Some(AccountView {
            aor: user.aor,
            ha1_md5: credentials.ha1_md5,
            ha1_sha256: credentials.ha1_sha256,
            algorithms: user.algorithms.as_deref().and_then(listed),
        })
    }
}

fn listed(algorithms: &[store::DigestAlgorithm]) -> Option<Algorithms> {
    let list: Vec<_> = algorithms
        .iter()
        .map(|algorithm| match algorithm {
            store::DigestAlgorithm::Md5 => Algorithm::Md5,
            store::DigestAlgorithm::Sha256 => Algorithm::Sha256,
        })
        .collect();
    Algorithms::new(&list)
}
