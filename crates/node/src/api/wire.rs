//! What travels between the command line and a server, as JSON. Fields are only ever added.

mod bans;
mod certificates;
mod documents;
mod recovery;
mod reload;

use model::{AddressOfRecord, Epoch, PoolName, ServerName};
use pairing::{Order, PoolState, UndoReason};
use serde::{Deserialize, Serialize};

pub use bans::{BanOrder, BanRecord};
pub use certificates::{CertificateReport, CertificateStatus};
pub use documents::{DocumentPatch, DocumentRecord, Patched, UserDocuments};
pub use recovery::{
    CancelBody, ConflictRecord, ConflictResolution, Copied, CopyStatus, Keep, OrderAnswer, OrderBody,
};
pub use reload::{MoveState, MoveStatus, Reload, Reloaded};

/// Answer of `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Who answers.
    pub server: ServerName,
    /// Its pool.
    pub pool: PoolName,
    /// The pool's role.
    pub role: String,
    /// Version of the program.
    pub software: String,
    /// Version of the topology it runs.
    pub topology_version: u64,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// Users that it knows of, wherever homed.
    pub users_known: usize,
    /// `ok`, or what is wrong with its disk.
    pub health: String,
    /// The home pools whose users it may have to serve.
    pub homes: Vec<HomeStatus>,
    /// Copies of user data and bindings to and from this server.
    #[serde(default)]
    pub copies: Vec<CopyStatus>,
    /// Users of branches on their way to the journal of another pool, as far as this server fetches them.
    #[serde(default)]
    pub moves: Vec<MoveStatus>,
    /// Certificates in force.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    /// Counters since the start, by name.
    pub counters: Vec<(String, u64)>,
}

/// One home pool as a server sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HomeStatus {
    /// The home pool.
    pub home: PoolName,
    /// What this server is to it: `home` or `backup`.
    pub part: String,
    /// Who owns its users, as far as this server knows.
    pub owner: Option<PoolName>,
    /// The ownership epoch this server knows.
    pub epoch: Option<Epoch>,
    /// `full` or `resiliency` when this server serves the users now.
    pub service: Option<String>,
    /// Milliseconds until this server's authority ends unless it is renewed; `None` = it has none, or it has
    /// no end.
    pub authority_ms: Option<u64>,
    /// Bindings that this server keeps for the home pool.
    pub bindings: u64,
    /// How the owner came to serve.
    #[serde(default)]
    pub state: Option<PoolState>,
    /// The last order that was begun; its operation is under way while `state` is `failing_over` or
    /// `failing_back`.
    #[serde(default)]
    pub order: Option<Order>,
    /// Why that operation ended where it began, if it did.
    #[serde(default)]
    pub undone: Option<UndoReason>,
    /// Users homed there that this server knows.
    #[serde(default)]
    pub users: u64,
    /// Answered calls of them that this server forwarded and has not seen to end; `None` where it makes no
    /// records of answered calls and so does not look.
    #[serde(default)]
    pub calls: Option<u64>,
    /// Conflicts that wait for an operator.
    #[serde(default)]
    pub conflicts: u64,
}

/// A user as operators see one; never what proves the password.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserRecord {
    /// Address-of-record.
    pub aor: AddressOfRecord,
    /// Home pool.
    pub home: PoolName,
    /// Digest algorithms offered to this user instead of the pool's.
    pub algorithms: Option<Vec<String>>,
    /// Number of the user's last change in the home pool's journal.
    pub version: u64,
}

/// One user to be added or changed; in `POST /v1/users`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserPut {
    /// Address-of-record.
    pub aor: AddressOfRecord,
    /// MD5 of `user:realm:password`, 32 hexadecimal digits.
    pub ha1_md5: String,
    /// SHA-256 of the same, 64 hexadecimal digits.
    pub ha1_sha256: String,
    /// Digest algorithms offered to this user instead of the pool's.
    pub algorithms: Option<Vec<String>>,
    /// 32 hexadecimal digits, drawn by who asks; the same request again changes nothing.
    pub operation: String,
}

/// Users to be added or changed on one home pool; at most `limits::ACCOUNTS_PER_PAGE_MAX`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UsersPut {
    /// Home pool.
    pub home: PoolName,
    /// The users.
    pub users: Vec<UserPut>,
}

/// How many changes were made.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Changed {
    /// How many.
    pub changed: usize,
}

/// Answer of `GET /v1/users/where`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserWhere {
    /// Address-of-record.
    pub aor: AddressOfRecord,
    /// Home pool.
    pub home: PoolName,
    /// Pool in whose journal the user's data are changed, as far as the answering server knows.
    #[serde(default)]
    pub journal: Option<PoolName>,
    /// Backup registrar of the home pool.
    pub backup: Option<PoolName>,
    /// Pool that serves the user now, as far as the answering server knows.
    pub served_by: Option<PoolName>,
    /// In which mode, where the answering server is the one that serves.
    pub service: Option<String>,
    /// Devices registered at the answering server.
    pub devices: usize,
}

/// One binding.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegistrationRecord {
    /// The server that keeps it.
    pub server: ServerName,
    /// Home pool of the user.
    pub home: PoolName,
    /// Contact URI.
    pub contact: String,
    /// Preference in thousandths, 0 to 1000.
    pub q: u16,
    /// Seconds until it expires.
    pub expires_in_s: u64,
    /// `+sip.instance`, where the phone gave one.
    pub instance: Option<String>,
    /// `reg-id`, where the phone gave one.
    pub reg_id: Option<u32>,
    /// Path values between the server and the phone.
    pub path: Vec<String>,
    /// Call-ID of the registration.
    pub call_id: String,
    /// CSeq of its last REGISTER.
    pub cseq: u32,
    /// Transport and source address of its last REGISTER, like `tcp 192.0.2.1:40000`.
    pub source: Option<String>,
}
