//! Whom servers do not listen to.

use model::{ServerName, WallTime};
use serde::{Deserialize, Serialize};

/// A ban that is in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BanRecord {
    /// The server that does not listen.
    pub server: ServerName,
    /// To whom: an IPv4 address, or the /64 of an IPv6 address.
    pub source: String,
    /// Why: the last of its offences, or `operator`.
    pub cause: String,
    /// Since when, in microseconds since 1970.
    pub since: WallTime,
    /// Until when.
    pub until: WallTime,
    /// How many offences led to it.
    pub offences: u32,
    /// Which ban of this source it is, from 1.
    pub times: u32,
}

/// Body of `POST /v1/bans`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BanOrder {
    /// Whom: an address, or the /64 of an IPv6 address.
    pub source: String,
    /// For how many seconds; at most `limits::BAN_ORDERED_MAX`.
    pub seconds: u64,
}
