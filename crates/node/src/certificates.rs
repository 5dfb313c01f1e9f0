//! The certificates of one server: read at the start, replaced while it runs, watched until they end.
//!
//! All files are taken together or not at all: what cannot be used, or what other servers would refuse,
//! leaves everything as it was. Connections that are open keep what they were made with.

mod files;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use model::{Fqdn, WallTime};
use rustls::{ClientConfig, ServerConfig};
use topology::Server;
use tracing::{info, warn};
use transport::{
    TlsConfigs,
    tls::{CertificateFacts, TlsError, client_config},
};

use crate::{
    Deployment,
    api::wire::{CertificateReport, CertificateStatus},
    clock,
};
use files::Files;
pub use watch::watch;

/// What one server presents, and whom it trusts, made from one reading of its files.
pub struct Certificates {
    /// To phones; `None` where the server listens neither to TLS nor to secure WebSocket.
    pub phones: Option<Arc<ServerConfig>>,
    /// To other servers and operators, who must present one of ours.
    pub internal_server: Arc<ServerConfig>,
    /// Towards other servers.
    pub internal_client: Arc<ClientConfig>,
    /// Towards hosts of other domains, which must prove their SIP identity.
    pub sip_client: Arc<ClientConfig>,
    facts: Vec<InUse>,
}

/// A certificate and what it is there for.
struct InUse {
    part: Part,
    /// Path of its file.
    file: String,
    facts: CertificateFacts,
}

/// What a certificate is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Presented to phones.
    Phones,
    /// Presented to other servers and to operators.
    Servers,
    /// The authority that other servers and operators must come from.
    Authority,
}

impl Part {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Phones => "phones",
            Self::Servers => "servers",
            Self::Authority => "authority",
        }
    }
}

impl Certificates {
    /// What the sockets of a shard need.
    pub fn of_shard(&self) -> TlsConfigs {
        TlsConfigs {
            server: self.phones.clone(),
            client: Some(Arc::clone(&self.sip_client)),
            internal_server: Some(Arc::clone(&self.internal_server)),
            internal_client: Some(Arc::clone(&self.internal_client)),
        }
    }
}

/// Told when other certificates are in force.
type Follower = Box<dyn Fn(&Certificates) + Send + Sync>;

/// The certificates in force in one server.
pub struct CertificatesInForce {
    files: Files,
    fqdn: Fqdn,
    /// Addresses by what is presented there.
    listeners: Vec<(Part, String)>,
    current: ArcSwap<Certificates>,
    /// Held while files are read to replace what is in force.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    followers: Vec<Follower>,
    /// The files as they were when they were last put in force or refused.
    tried: u64,
    /// The files at the last look of [`CertificatesInForce::look`].
    seen: u64,
    /// Why the files are not in force.
    refused: Option<String>,
}

impl CertificatesInForce {
    /// Reads the files of a server for the first time.
    ///
    /// Errors: [`TlsError`], which names the file: missing, unreadable, not matching, expired, or not one
    /// that other servers would take.
    pub fn open(deployment: &Deployment, server: &Server) -> Result<Self, TlsError> {
        let files = Files::of(deployment, server);
        let tried = files.fingerprint();
        let certificates = files.read(&server.fqdn, clock::wall_time())?;
        Ok(Self {
            listeners: listeners(server),
            fqdn: server.fqdn.clone(),
            files,
            current: ArcSwap::from_pointee(certificates),
            state: Mutex::new(State { tried, seen: tried, ..State::default() }),
        })
    }

    /// What is in force now.
    pub fn now(&self) -> Arc<Certificates> {
        self.current.load_full()
    }

    /// Calls `follower` with what is in force, and whenever something else is.
    pub fn follow(&self, follower: impl Fn(&Certificates) + Send + Sync + 'static) {
        let mut state = self.state();
        follower(&self.now());
        state.followers.push(Box::new(follower));
    }

    /// Reads the files again, and puts them in force when they have changed; blocks. Whether they had.
    ///
    /// Errors: [`TlsError`]; what was in force stays.
    pub fn reload(&self, now: WallTime) -> Result<bool, TlsError> {
        let mut state = self.state();
        self.attempt(&mut state, now)
    }

    /// The same of a server that looks by itself; blocks. Files that change are left alone until two looks
    /// find the same, so that a certificate is not taken without its key; what was refused is not tried
    /// again until it changes.
    fn look(&self, now: WallTime) {
        let mut state = self.state();
        let found = self.files.fingerprint();
        let is_settled = found == state.seen;
        state.seen = found;
        if is_settled && found != state.tried {
            let _logged_and_shown = self.attempt(&mut state, now);
        }
    }

    fn attempt(&self, state: &mut State, now: WallTime) -> Result<bool, TlsError> {
        // Before the files are read: what changes meanwhile is found by the next look.
        let found = self.files.fingerprint();
        let was_tried = state.tried == found && state.refused.is_none();
        state.tried = found;
        if was_tried {
            return Ok(false);
        }
        match self.files.read(&self.fqdn, now) {
            Ok(certificates) => {
                state.refused = None;
                self.current.store(Arc::new(certificates));
                let certificates = self.now();
                for follower in &state.followers {
                    follower(&certificates);
                }
                for InUse { part, file, facts } in &certificates.facts {
                    let (part, ends) = (part.as_str(), facts.ends.as_secs());
                    info!(part, %file, subject = %facts.subject, ends, "certificate in force");
                }
                Ok(true)
            }
            Err(error) => {
                let reason = one_line(&error);
                warn!(%reason, "new certificate files refused, the former ones stay in force");
                state.refused = Some(reason);
                Err(error)
            }
        }
    }

    /// The certificates in force, and why newer files are not.
    pub fn report(&self, now: WallTime) -> CertificateReport {
        CertificateReport {
            certificates: self.statuses(now),
            is_changed: false,
            refused: self.state().refused.clone(),
        }
    }

    /// The certificates in force.
    pub fn statuses(&self, now: WallTime) -> Vec<CertificateStatus> {
        let certificates = self.now();
        let status = |InUse { part, file, facts }: &InUse| CertificateStatus {
            part: part.as_str().to_owned(),
            listeners: self.listeners.iter().filter(|(of, _)| of == part).map(|(_, at)| at.clone()).collect(),
            file: file.clone(),
            subject: facts.subject.clone(),
            names: facts.names.clone(),
            not_after_s: facts.ends.as_secs(),
            expires_in_s: seconds_left(facts, now),
            fingerprint: facts.fingerprint.clone(),
        };
        certificates.facts.iter().map(status).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where each part is presented, as `protocol address`.
fn listeners(server: &Server) -> Vec<(Part, String)> {
    let listen = &server.listen;
    let of = |part, key: &'static str, addresses: &[std::net::SocketAddr]| {
        addresses.iter().map(|address| (part, format!("{key} {address}"))).collect::<Vec<_>>()
    };
    [
        of(Part::Phones, "tls", &listen.tls),
        of(Part::Phones, "wss", &listen.wss),
        of(Part::Servers, "internal_sip", listen.internal_sip.as_slice()),
        of(Part::Servers, "internal_http", &[listen.internal_http]),
    ]
    .concat()
}

/// Seconds until a certificate ends; negative afterwards.
fn seconds_left(facts: &CertificateFacts, now: WallTime) -> i64 {
    let seconds = |time: WallTime| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    seconds(facts.ends).saturating_sub(seconds(now))
}

/// An error and its causes.
fn one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What the command line presents to servers.
///
/// Errors: as [`CertificatesInForce::open`].
pub fn operator_client(deployment: &Deployment) -> Result<Arc<ClientConfig>, TlsError> {
    client_config(&deployment.authority_certificate(), Some(&files::operator(deployment)), clock::wall_time())
}
