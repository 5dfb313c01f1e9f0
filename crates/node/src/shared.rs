//! What all parts of one server share.

use std::{path::PathBuf, sync::Arc};

use model::{AddressOfRecord, Instant, PoolName, ServerName};
use pairing::{Authority, Contact, OwnerLink, Parties, RequestDecision, Service, Standing, decide_request};
use registrar::{Bindings, Gruus};
use store::{HotStore, SingleVoterHotStore, SqliteUserStore};
use tokio::sync::watch;
use topology::{BranchRecovery, Pool, Role, SecondRegistration, Server, Topology};

use crate::{
    Associations, AuthorityTable, BackEnd, BindingStreams, CallRecorder, CertificatesInForce, Counters,
    Defence, Directory, FlowTokens, Gates, HomeIndex, Links, Locator, Ownerships, TopologyInForce,
    authority::AuthorityGuard,
    backup_service::{ConflictCounts, CopyLedger, Scopes},
    clock,
    shard::{SharedLedger, Watchers},
};

/// What all parts of one server share; made once at the start.
pub struct Shared {
    /// The deployment, which may be replaced while the server runs.
    pub topology: Arc<TopologyInForce>,
    /// Which pool each branch is and was associated with.
    pub associations: Arc<Associations>,
    /// This server.
    pub server: Server,
    /// Its pool.
    pub pool: PoolName,
    /// The pool's role.
    pub role: Role,
    /// The pool's place among the home pools; `None` where it homes nobody.
    pub own_home: Option<HomeIndex>,
    /// Its data folder.
    pub data: PathBuf,
    /// Number of this boot; random.
    pub boot: u64,
    /// Who is homed where.
    pub directory: Arc<Directory>,
    /// Who may answer for whom.
    pub authority: Arc<AuthorityTable>,
    /// The ownership machines.
    pub ownerships: Ownerships,
    /// Which other servers answer.
    pub links: Arc<Links>,
    /// Looks up hosts.
    pub locator: Locator,
    /// Bindings.
    pub hot: Arc<SingleVoterHotStore>,
    /// Bindings to and from other pools.
    pub binding_streams: Arc<BindingStreams>,
    /// Accounts.
    pub users: Arc<SqliteUserStore>,
    /// Copies of user data to and from this server.
    pub copies: Arc<CopyLedger>,
    /// How many conflicts wait for an operator.
    pub conflicts: Arc<ConflictCounts>,
    /// Whether user data can be written.
    pub back_end: BackEnd,
    /// Who is writing user data.
    pub gates: Arc<Gates>,
    /// Changes whenever accounts change here.
    pub user_news: watch::Sender<u64>,
    /// Flow tokens of this server.
    pub tokens: FlowTokens,
    /// GRUUs, good on all servers of the deployment.
    pub gruus: Gruus,
    /// The key of nonces, the same on all servers of the deployment.
    pub nonce_key: [u8; 32],
    /// Highest nonce counts seen, for all shards.
    pub nonce_counts: SharedLedger,
    /// Key of the loop hash, this server's own.
    pub loop_key: u64,
    /// Who misbehaves, and is therefore slowed down or banned.
    pub defence: Defence,
    /// What shards saw of calls.
    pub calls: CallRecorder,
    /// Who subscribes to whose registrations.
    pub watchers: Watchers,
    /// What happened since the start.
    pub counters: Counters,
    /// What this server presents, and whom it trusts.
    pub certificates: Arc<CertificatesInForce>,
}

/// Where requests for a home pool's users are to be dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Here, under this authority.
    Here(Authority),
    /// Here, by the copy of the bindings, because the owner does not answer: nothing may be written.
    ByCopy,
    /// At another server.
    Server(ServerName),
    /// Nowhere at the moment; try again after so many seconds.
    Nowhere {
        /// Seconds until another attempt makes sense.
        retry_after_s: u32,
    },
}

impl Place {
    const NOWHERE: Self = Self::Nowhere { retry_after_s: 5 };
}

impl Shared {
    /// The deployment as it is in force now.
    pub fn topology(&self) -> Arc<Topology> {
        self.topology.now()
    }

    /// Bindings of a user kept here, unexpired, highest preference first.
    pub fn bindings(&self, home: HomeIndex, aor: &AddressOfRecord) -> Bindings {
        let Some(name) = self.directory.homes().name(home) else { return Bindings::new() };
        self.hot.lookup(name, aor, clock::wall_time())
    }

    /// Where calls and messages for the users of a home pool are to be dealt with at `now`.
    pub fn place(&self, home: HomeIndex, authority: &AuthorityGuard<'_>, now: Instant) -> Place {
        self.place_without(home, authority, now, None)
    }

    /// The same where a request to `gone` could not be sent just now: as if that server were silent.
    pub fn place_without(
        &self,
        home: HomeIndex,
        authority: &AuthorityGuard<'_>,
        now: Instant,
        gone: Option<&ServerName>,
    ) -> Place {
        if let Some(held) = authority.holds(home, now) {
            return Place::Here(held);
        }
        let decision = self.request_decision(home, authority, now, gone);
        if let Some(RequestDecision::RouteByCopy) = decision {
            return Place::ByCopy;
        }
        let claim = self.links.serving(home, now).filter(|claim| Some(&claim.server) != gone);
        if let Some(claim) = claim.as_ref().filter(|claim| claim.is_at_home) {
            return Place::Server(claim.server.clone());
        }
        if let Some(backup) = self.backing_branch_without(home, authority, now, gone) {
            return Place::Here(backup);
        }
        if let Some(claim) = claim {
            return Place::Server(claim.server);
        }
        let server = match decision {
            Some(RequestDecision::Forward { owner }) => {
                self.topology().servers_of(owner).next().map(|server| server.name.clone())
            }
            Some(
                RequestDecision::Serve { .. } | RequestDecision::RouteByCopy | RequestDecision::Unavailable,
            ) => None,
            None if self.copies_branch(home, authority, now, gone) => return Place::ByCopy,
            None => self.partner_of_silent(home, now, gone),
        };
        server.map_or(Place::NOWHERE, Place::Server)
    }

    /// The authority over a branch's users while their appliance is silent: that over the users of its
    /// associated pool, held by that pool, or by its partner where the branch follows.
    pub fn backing_branch(
        &self,
        home: HomeIndex,
        authority: &AuthorityGuard<'_>,
        now: Instant,
    ) -> Option<Authority> {
        self.backing_branch_without(home, authority, now, None)
    }

    fn backing_branch_without(
        &self,
        home: HomeIndex,
        authority: &AuthorityGuard<'_>,
        now: Instant,
        gone: Option<&ServerName>,
    ) -> Option<Authority> {
        authority.holds(self.backed_with(home, now, gone)?, now)
    }

    /// The home pool whose owner backs up this branch, whose appliance is silent: its associated pool.
    /// `None` where this pool will never be that.
    fn backed_with(&self, home: HomeIndex, now: Instant, gone: Option<&ServerName>) -> Option<HomeIndex> {
        let topology = self.topology();
        let branch = topology.pool(self.directory.homes().name(home)?)?;
        let associated = branch.associated_pool.as_ref()?;
        let follows = branch.settings.branch_recovery == BranchRecovery::Follow;
        if !self.is_silent(&branch.name, now, gone) || !(associated == &self.pool || follows) {
            return None;
        }
        self.directory.homes().index(associated)
    }

    /// What the ownership of a front-end pool says; `None` where this server has no part in it.
    fn request_decision<'a>(
        &self,
        home: HomeIndex,
        authority: &'a AuthorityGuard<'_>,
        now: Instant,
        gone: Option<&ServerName>,
    ) -> Option<RequestDecision<'a>> {
        let standing = authority.standing(home)?;
        let link = match standing {
            Standing::Elsewhere { tenure, .. } if self.is_silent(&tenure.owner, now, gone) => OwnerLink::Down,
            Standing::Elsewhere { .. } | Standing::Serving(_) | Standing::Paused(_) | Standing::Unknown => {
                OwnerLink::Up
            }
        };
        Some(decide_request(standing, link))
    }

    /// Whether neither the appliance of a branch answers nor the pool that would back it up, in whose place
    /// this pool has a copy of the bindings.
    fn copies_branch(
        &self,
        home: HomeIndex,
        authority: &AuthorityGuard<'_>,
        now: Instant,
        gone: Option<&ServerName>,
    ) -> bool {
        let associated = self.backed_with(home, now, gone);
        let decision = associated.and_then(|pool| self.request_decision(pool, authority, now, gone));
        decision == Some(RequestDecision::RouteByCopy)
    }

    /// For a pool that this server has no part in, and that does not answer: a server of its partner, which
    /// has a copy of its bindings.
    fn partner_of_silent(
        &self,
        home: HomeIndex,
        now: Instant,
        gone: Option<&ServerName>,
    ) -> Option<ServerName> {
        let home = self.directory.homes().name(home)?;
        if !self.is_silent(home, now, gone) {
            return None;
        }
        let is_there = |server: &&Server| self.links.is_up(&server.name, now) && Some(&server.name) != gone;
        let topology = self.topology();
        let there = topology.servers_of(&topology.partner_of(home)?.name).find(is_there);
        there.map(|server| server.name.clone())
    }

    /// Whether no server of another pool answers this one.
    fn is_silent(&self, pool: &PoolName, now: Instant, gone: Option<&ServerName>) -> bool {
        self.topology().servers_of(pool).all(|server| self.is_gone(&server.name, now, gone))
    }

    /// Whether requests must find their way without this server, because it does not answer.
    pub fn is_gone(&self, server: &ServerName, now: Instant, gone: Option<&ServerName>) -> bool {
        Some(server) == gone || self.links.silence(server, now).is_some()
    }

    /// The two pools that take part in the ownership of a front-end pool, as this one sees them. A pool
    /// without partner is both.
    pub fn parties(&self, home: &PoolName) -> Option<Parties> {
        if *home == self.pool {
            let partner =
                self.topology().partner_of(home).map_or_else(|| home.clone(), |pool| pool.name.clone());
            return Some(Parties::at_home(home.clone(), partner));
        }
        let is_partner = self.topology().partner_of(&self.pool).is_some_and(|pool| pool.name == *home);
        is_partner.then(|| Parties::at_partner(home.clone(), self.pool.clone()))
    }

    /// How well this server hears a branch appliance.
    pub fn contact_of(&self, branch: &Pool, now: Instant) -> Contact {
        let silences = branch.servers.iter().map(|server| self.links.silence(server, now));
        match silences.min().flatten() {
            None => Contact::Heard,
            Some(silence) => {
                let takeover_in = branch.settings.takeover_after().saturating_sub(silence);
                Contact::Silent { takeover_in: Some(takeover_in) }
            }
        }
    }

    /// The pool in whose journal the data of a home pool's users are changed: the associated pool of a branch
    /// (the one before, while this server owns its journal and nobody has asked for the users), else the home
    /// pool itself.
    pub fn journal_of(&self, home: HomeIndex) -> Option<PoolName> {
        let home = self.directory.homes().name(home)?;
        Some(self.associations.journal_of(home).unwrap_or_else(|| home.clone()))
    }

    /// Which journals this server copies now, and how much of each: a branch also copies its users from the
    /// journals that they are to leave.
    pub fn scopes(&self) -> Scopes {
        Scopes::after(&self.topology(), &self.pool, &self.associations.former(&self.pool))
    }

    /// What is done with a REGISTER of a home pool's users whose owner is alive elsewhere: as the home pool
    /// says.
    pub fn second_registration(&self, home: &PoolName) -> pairing::SecondRegistration {
        let home = self.topology().pool(home).map(|pool| pool.settings.second_registration);
        match home.unwrap_or_default() {
            SecondRegistration::Forward => pairing::SecondRegistration::Forward,
            SecondRegistration::Redirect => pairing::SecondRegistration::Redirect,
        }
    }

    /// Whether a branch's users follow their associated pool to its partner.
    pub fn branch_recovery(&self, branch: &Pool) -> pairing::BranchRecovery {
        match branch.settings.branch_recovery {
            BranchRecovery::Follow => pairing::BranchRecovery::Follow,
            BranchRecovery::None => pairing::BranchRecovery::None,
        }
    }

    /// The pool that serves a home pool's users and, where it is this one, in which mode.
    pub fn served_by(&self, home: HomeIndex) -> (Option<PoolName>, Option<String>) {
        let now = clock::now();
        let table = self.authority.read();
        match self.place(home, &table, now) {
            Place::Here(authority) => {
                (Some(self.pool.clone()), Some(service_name(authority.service).to_owned()))
            }
            // Who should serve them does not answer; nobody else does before the takeover.
            Place::ByCopy => match table.standing(home) {
                Some(Standing::Elsewhere { tenure, .. }) => (Some(tenure.owner.clone()), None),
                Some(Standing::Serving(_) | Standing::Paused(_) | Standing::Unknown) | None => (None, None),
            },
            Place::Server(server) => (self.topology().pool_of(&server).map(|pool| pool.name.clone()), None),
            Place::Nowhere { .. } => (None, None),
        }
    }
}

/// The word for a service in answers and headers.
pub const fn service_name(service: Service) -> &'static str {
    match service {
        Service::Full => "full",
        Service::Resiliency => "resiliency",
    }
}
