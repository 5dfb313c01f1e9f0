//! Who sent a request: digest authentication with stateless nonces. Source: RFC 3261 section 22, RFC 7616,
//! RFC 8760.
//!
//! A nonce is a time and a salt under a keyed MAC over both, the realm and the source it was sent to, so
//! every server with the key (those of the pool and of its partner) accepts it, from that source. What is
//! remembered is the highest nonce count seen, here only: credentials caught on the wire can be used once
//! more at another server, within the nonce's lifetime, by who can send from the same source; TLS prevents
//! that. A phone that moves to another address gets `stale=true` and answers once more. Credentials with a
//! nonce of ours prove that their sender receives at his address (RFC 7616 section 5.5).
//!
//! **Nobody learns which users exist.** An unknown user costs the same work as a wrong password and gets the
//! same challenge; `stale` depends on the nonce alone until the password has proved right. One thing shows: a
//! user with an algorithm list of his own is offered that list, because some phones give up on a list with
//! one they do not know.
//!
//! **`auth-int` and algorithms that were not offered** get a new challenge, which names what is offered: RFC
//! 7616 section 3.4 asks for a 4xx, and of these the 401 is the one that a phone can act on. Credentials that
//! cannot be read get 400. Credentials without `qop` (RFC 2069) count as the first use of their nonce and so
//! work once.
//!
//! **The `uri`** need not be the Request-URI octet for octet, as phones leave out ports and parameters: user
//! and host must agree, in a REGISTER it may also be the realm. Anything else gets 400 (RFC 7616 section
//! 3.4.6), because an INVITE caught and sent on to another number must not pass.
//!
//! Checking credentials in the usual form allocates nothing.

use std::time::Duration;

use bytes::Bytes;
use model::{AddressOfRecord, Chance, Source, WallTime};
use sip::{
    HeaderError, HeaderId, Message, Method, Uri,
    digest::{Algorithm, AuthenticationInfo, Challenge, Credentials, CredentialsError, Ha1, verify},
};

mod accounts;
mod nonce;
mod nonce_counts;
mod sender;
#[cfg(test)]
mod tests;

pub use accounts::{AccountView, Accounts, Algorithms};
pub use nonce::NonceKey;
use nonce::{NONCE_CHARACTERS, Nonces};
pub use nonce_counts::{NonceCounts, NonceLedger, NonceUse};
pub use sender::Sender;

/// What a pool decides about authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticationSettings {
    /// Algorithms offered to users without a list of their own, and to unknown ones.
    pub algorithms: Algorithms,
    /// How long a nonce is good for.
    pub nonce_lifetime: Duration,
}

/// In which role we ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenger {
    /// As the registrar or server the request is for: 401, `Authorization`.
    Server,
    /// As a proxy on the way: 407, `Proxy-Authorization`.
    Proxy,
}

/// Challenges senders and checks what they answer.
#[derive(Debug)]
pub struct Authenticator<L = NonceCounts> {
    settings: AuthenticationSettings,
    nonces: Nonces,
    ledger: L,
    chance: Chance,
}

/// Why the sender of a request is not accepted (yet).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// To be answered with a challenge.
    #[error("the sender has to prove who it is")]
    Challenge(Challenged),
    /// Several passwords before this one were wrong: it was not looked at. 480 with Retry-After.
    #[error("the password was not looked at, after several wrong ones")]
    SlowedDown {
        /// When the next one is looked at.
        retry_after: Duration,
    },
    /// The password is right, but the request is in another user's name: 403.
    #[error("the request is in the name of another user")]
    Forbidden,
    /// The request cannot be authenticated: 400.
    #[error("the request cannot be authenticated")]
    BadRequest(#[source] BadRequest),
}

/// A challenge to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenged {
    /// 401 or 407.
    pub status: u16,
    /// `WWW-Authenticate` or `Proxy-Authenticate`.
    pub header: HeaderId,
    /// One value per algorithm, each in a header line of its own, in this order (RFC 8760 section 2.3).
    pub values: Vec<Bytes>,
    /// Whether the values say `stale=true`: the phone tries again without asking for the password.
    pub is_stale: bool,
    /// Why, for log and metrics only.
    pub cause: Cause,
}

/// Why a request is challenged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It has no credentials for the realm.
    NoCredentials,
    /// The nonce was not made with our keys, or for another realm, or sent to another source.
    ForeignNonce,
    /// The nonce is too old.
    ExpiredNonce,
    /// The nonce count was used before.
    Replay,
    /// An algorithm or `qop` that was not offered.
    NotOffered,
    /// No such user, or the wrong password: worth a warning when it repeats.
    WrongCredentials,
}

/// What makes a request impossible to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// To or From is missing or malformed, or names no user of a domain.
    #[error("the address of the user cannot be read")]
    Address(#[from] HeaderError),
    /// The credentials are malformed.
    #[error("the credentials cannot be read")]
    Credentials(#[source] CredentialsError),
    /// The credentials are for another Request-URI.
    #[error("the credentials are for another Request-URI")]
    UriMismatch,
}

impl Rejection {
    /// Status code of the response.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Challenge(challenged) => challenged.status,
            // Not 503: a proxy in front would take the whole server out of use (RFC 3261 section 21.5.4).
            Self::SlowedDown { .. } => 480,
            Self::Forbidden => 403,
            Self::BadRequest(_) => 400,
        }
    }
}

impl Authenticator<NonceCounts> {
    /// Remembers nonce counts itself, at most `limits::NONCES_TRACKED_MAX`.
    ///
    /// `previous_key` lets nonces live on that were made before a change of the key.
    pub fn new(
        settings: AuthenticationSettings,
        key: &NonceKey,
        previous_key: Option<&NonceKey>,
        chance: Chance,
    ) -> Self {
        let ledger = NonceCounts::new(settings.nonce_lifetime, model::limits::NONCES_TRACKED_MAX);
        Self::with_ledger(settings, key, previous_key, chance, ledger)
    }
}

impl<L: NonceLedger> Authenticator<L> {
    /// Counts nonces in `ledger`, which the shards of one server share.
    pub fn with_ledger(
        settings: AuthenticationSettings,
        key: &NonceKey,
        previous_key: Option<&NonceKey>,
        chance: Chance,
        ledger: L,
    ) -> Self {
        Self { settings, nonces: Nonces::new(key, previous_key), ledger, chance }
    }

    /// Says which user sent a request: in a REGISTER the user of To, otherwise that of From. `sender` is
    /// where the phone sent it from, however it came here.
    ///
    /// Errors: [`Rejection`].
    pub fn check(
        &mut self,
        now: WallTime,
        request: Message<'_>,
        challenger: Challenger,
        sender: &impl Sender,
        accounts: &impl Accounts,
    ) -> Result<AddressOfRecord, Rejection> {
        let claimed = claimed_user(request).map_err(Rejection::BadRequest)?;
        self.check_user(now, request, challenger, &claimed, sender, accounts).map(|()| claimed)
    }

    /// As [`Self::check`], where the user in whose name the request is was read before: `claimed`.
    ///
    /// Errors: [`Rejection`], but for `BadRequest::Address`.
    pub fn check_user(
        &mut self,
        now: WallTime,
        request: Message<'_>,
        challenger: Challenger,
        claimed: &AddressOfRecord,
        sender: &impl Sender,
        accounts: &impl Accounts,
    ) -> Result<(), Rejection> {
        let realm = claimed.domain();
        let verdict = match find_credentials(request, challenger, realm) {
            Ok(Some(credentials)) => self.judge(now, request, &credentials, claimed, sender, accounts),
            Ok(None) => Err(Refusal::Challenge(Cause::NoCredentials)),
            Err(refusal) => Err(refusal),
        };
        match verdict {
            Ok(()) => Ok(()),
            Err(Refusal::Foreign) => Err(Rejection::Forbidden),
            Err(Refusal::Bad(bad)) => Err(Rejection::BadRequest(bad)),
            Err(Refusal::Wait(retry_after)) => Err(Rejection::SlowedDown { retry_after }),
            Err(Refusal::Challenge(cause)) => {
                let algorithms = accounts.algorithms(claimed.user().as_bytes(), realm);
                let algorithms = algorithms.unwrap_or(self.settings.algorithms);
                let nonce = self.nonces.issue(now, self.chance.bits(), realm.as_bytes(), sender.source());
                Err(Rejection::Challenge(challenge(challenger, realm.as_bytes(), &nonce, algorithms, cause)))
            }
        }
    }

    /// The credentials of a request that another server judges, where their nonce was sent to `source` and
    /// what they are made with is offered: a password that is tried from there. `None` for all others.
    ///
    /// The realm is that of the address of the user.
    pub fn attempt<'a>(
        &self,
        now: WallTime,
        request: Message<'a>,
        challenger: Challenger,
        source: Source,
        accounts: &impl Accounts,
    ) -> Option<Credentials<'a>> {
        let claimed = claimed_user(request).ok()?;
        let realm = claimed.domain();
        let credentials = find_credentials(request, challenger, realm).ok()??;
        let nonce = self.nonces.open(credentials.nonce.raw(), realm.as_bytes(), source)?;
        let account = accounts.account(&credentials.username.unescaped(), realm);
        let offered = account.and_then(|account| account.algorithms).unwrap_or(self.settings.algorithms);
        let is_alive = nonce.is_alive(now, self.settings.nonce_lifetime);
        (is_alive && offered.contains(credentials.algorithm)).then_some(credentials)
    }

    /// The Authentication-Info for a request whose credentials [`Self::check`] has just accepted from
    /// `source`; `None` where there is nothing to say.
    ///
    /// It holds another nonce where that of the credentials is past half its lifetime: a phone that takes it
    /// is not challenged for the old one.
    pub fn info(
        &mut self,
        now: WallTime,
        request: Message<'_>,
        challenger: Challenger,
        source: Source,
        accounts: &impl Accounts,
    ) -> Option<Bytes> {
        let claimed = claimed_user(request).ok()?;
        let realm = claimed.domain();
        let credentials = find_credentials(request, challenger, realm).ok()??;
        let nonce = self.nonces.open(credentials.nonce.raw(), realm.as_bytes(), source)?;
        let account = accounts.account(&credentials.username.unescaped(), realm)?;
        let ha1 = account.ha1(credentials.algorithm)?;
        let is_ageing = nonce.is_ageing(now, self.settings.nonce_lifetime);
        let next = is_ageing.then(|| self.nonces.issue(now, self.chance.bits(), realm.as_bytes(), source));
        let next_nonce = next.as_ref().map(<[u8; NONCE_CHARACTERS]>::as_slice);
        let mut value = Vec::new();
        let info = AuthenticationInfo { ha1: &ha1, credentials: &credentials, next_nonce };
        // The proof is given to nobody whose own was not right.
        let is_right = verify(&ha1, &credentials, request.method_bytes());
        (is_right && info.write_to(&mut value)).then(|| Bytes::from(value))
    }

    /// Checks credentials for our realm, in a request in the name of `claimed`.
    fn judge(
        &mut self,
        now: WallTime,
        request: Message<'_>,
        credentials: &Credentials<'_>,
        claimed: &AddressOfRecord,
        sender: &impl Sender,
        accounts: &impl Accounts,
    ) -> Result<(), Refusal> {
        let realm = claimed.domain();
        if credentials.is_blank() {
            return Err(Refusal::Challenge(Cause::NoCredentials));
        }
        let nonce = self.nonces.open(credentials.nonce.raw(), realm.as_bytes(), sender.source());
        let nonce = nonce.ok_or(Refusal::Challenge(Cause::ForeignNonce))?;
        if !nonce.is_alive(now, self.settings.nonce_lifetime) {
            return Err(Refusal::Challenge(Cause::ExpiredNonce));
        }
        let username = credentials.username.unescaped();
        sender.may_try(&username, realm.as_bytes()).map_err(Refusal::Wait)?;
        let account = accounts.account(&username, realm);
        let algorithm = credentials.algorithm;
        let ha1 = account.as_ref().and_then(|account| account.ha1(algorithm));
        // Who does not exist costs as much as who mistypes.
        let ha1 = ha1.unwrap_or_else(|| nobody(algorithm));
        let is_right = verify(&ha1, credentials, request.method_bytes());
        let offered =
            account.as_ref().and_then(|account| account.algorithms).unwrap_or(self.settings.algorithms);
        if !offered.contains(algorithm) {
            return Err(Refusal::Challenge(Cause::NotOffered));
        }
        let Some(account) = account.filter(|_| is_right) else {
            sender.wrong(&username, realm.as_bytes());
            return Err(Refusal::Challenge(Cause::WrongCredentials));
        };
        if !is_uri_of(&credentials.uri.unescaped(), request, realm) {
            return Err(Refusal::Bad(BadRequest::UriMismatch));
        }
        let count = credentials.protection.map_or(1, |protection| protection.count);
        if !self.ledger.admit(now, nonce.used(count)) {
            return Err(Refusal::Challenge(Cause::Replay));
        }
        if account.aor != *claimed {
            sender.foreign(&username, realm.as_bytes());
            return Err(Refusal::Foreign);
        }
        sender.right(&username, realm.as_bytes());
        Ok(())
    }
}

impl Cause {
    /// Whether the nonce is at fault, not the password (RFC 7616 section 3.3).
    const fn is_stale(self) -> bool {
        match self {
            Self::ForeignNonce | Self::ExpiredNonce | Self::Replay => true,
            Self::NoCredentials | Self::NotOffered | Self::WrongCredentials => false,
        }
    }
}

fn challenge(
    challenger: Challenger,
    realm: &[u8],
    nonce: &[u8],
    algorithms: Algorithms,
    cause: Cause,
) -> Challenged {
    let is_stale = cause.is_stale();
    let values = algorithms.iter().map(|algorithm| {
        let mut value = Vec::with_capacity(96 + realm.len());
        Challenge { realm, nonce, algorithm, is_stale }.write_to(&mut value);
        Bytes::from(value)
    });
    let (status, header) = match challenger {
        Challenger::Server => (401, HeaderId::WwwAuthenticate),
        Challenger::Proxy => (407, HeaderId::ProxyAuthenticate),
    };
    Challenged { status, header, values: values.collect(), is_stale, cause }
}

enum Refusal {
    /// In the name of another user.
    Foreign,
    Challenge(Cause),
    Wait(Duration),
    Bad(BadRequest),
}

/// The user in whose name the request is.
fn claimed_user(request: Message<'_>) -> Result<AddressOfRecord, BadRequest> {
    let (address, header) = if request.method() == Method::Register {
        (request.to()?, HeaderId::To)
    } else {
        (request.from()?, HeaderId::From)
    };
    let user = address.uri().and_then(|uri| uri.address_of_record());
    user.map_err(|_| BadRequest::Address(HeaderError::Malformed { header }))
}

/// The first credentials for our realm; those for other realms are for others (RFC 3261 section 22.3).
fn find_credentials<'a>(
    request: Message<'a>,
    challenger: Challenger,
    realm: &str,
) -> Result<Option<Credentials<'a>>, Refusal> {
    let id = match challenger {
        Challenger::Server => HeaderId::Authorization,
        Challenger::Proxy => HeaderId::ProxyAuthorization,
    };
    let mut unreadable = None;
    for value in request.header_lines(id) {
        match Credentials::parse(value) {
            Ok(credentials) if credentials.realm.raw().eq_ignore_ascii_case(realm.as_bytes()) => {
                return Ok(Some(credentials));
            }
            Ok(_) | Err(CredentialsError::Scheme) => {}
            Err(error) => unreadable = unreadable.or(Some(error)),
        }
    }
    match unreadable {
        None => Ok(None),
        Some(CredentialsError::Algorithm | CredentialsError::Protection) => {
            Err(Refusal::Challenge(Cause::NotOffered))
        }
        Some(error) => Err(Refusal::Bad(BadRequest::Credentials(error))),
    }
}

/// Whether credentials made for `uri` are good for this request.
fn is_uri_of(uri: &[u8], request: Message<'_>, realm: &str) -> bool {
    if uri == request.request_uri() {
        return true;
    }
    let (Ok(uri), Ok(asked)) = (Uri::parse(uri), Uri::parse(request.request_uri())) else { return false };
    if uri.is_equivalent(&asked) {
        return true;
    }
    let is_sip = uri.scheme.is_sip_or_sips() && asked.scheme.is_sip_or_sips();
    let is_register = request.method() == Method::Register && uri.user.is_none();
    is_sip
        && uri.user == asked.user
        && (uri.host.eq_ignore_ascii_case(asked.host)
            || is_register && uri.host.eq_ignore_ascii_case(realm.as_bytes()))
}

/// The HA1 of a password that nobody has.
fn nobody(algorithm: Algorithm) -> Ha1 {
    match algorithm {
        Algorithm::Md5 => Ha1::md5(&[0; 16]),
        Algorithm::Sha256 | Algorithm::Sha512_256 => Ha1::sha256(&[0; 32]),
    }
}
