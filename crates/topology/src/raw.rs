//! The document as written: every value with its place, whatever is missing or wrong left out.
//!
//! Names are in lower case and otherwise unchecked. `None` means that the key is absent or that its value was
//! refused with a finding; [`Keys`] tells the two apart.

use std::collections::BTreeMap;

use crate::{
    BackEnd, BranchRecovery, CallRecords, DevicesBeyondMax, DigestAlgorithm, Edition, NumberSetting,
    Position, Role, SecondRegistration,
};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    pub value: T,
    pub at: Position,
}

pub(crate) type Text = Located<String>;

/// The keys written in a table, and where.
pub(crate) type Keys = BTreeMap<String, Position>;

/// A whole document.
#[derive(Debug)]
pub(crate) struct Document {
    pub version: Option<Located<i64>>,
    pub deployment: Option<Text>,
    pub domains: Option<Located<Vec<Text>>>,
    pub sites: Vec<Site>,
    pub pools: Vec<Pool>,
    pub servers: Vec<Server>,
    pub pairs: Vec<Pair>,
}

/// What a site says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SiteWord {
    Central,
    Branch,
}

impl SiteWord {
    pub const ALL: [Self; 2] = [Self::Central, Self::Branch];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Central => "central",
            Self::Branch => "branch",
        }
    }
}

/// One `[[site]]`.
#[derive(Debug)]
pub(crate) struct Site {
    pub at: Position,
    /// How findings call it.
    pub subject: String,
    pub name: Option<Text>,
    /// `None` only when an unknown word was written.
    pub kind: Option<SiteWord>,
    pub parents: Option<Vec<Text>>,
    pub keys: Keys,
}

/// One `[[pool]]`.
#[derive(Debug)]
pub(crate) struct Pool {
    pub at: Position,
    /// How findings call it.
    pub subject: String,
    pub name: Option<Text>,
    pub fqdn: Option<Text>,
    pub role: Option<Role>,
    pub site: Option<Text>,
    /// `None` only when an unknown word was written.
    pub edition: Option<Edition>,
    /// `None` only when an unknown word was written.
    pub back_end: Option<BackEnd>,
    pub software: Option<Text>,
    pub tie_breaker: Option<Text>,
    pub users_expected: Option<Located<i64>>,
    pub users_capacity: Option<Located<i64>>,
    pub associated_pools: Option<Vec<Text>>,
    pub backup_registrar: Option<Text>,
    pub next_hop: Option<Text>,
    pub settings: Settings,
    pub keys: Keys,
}

/// One `[pool.settings]`.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub numbers: Vec<(NumberSetting, Located<i64>)>,
    pub digest_algorithms: Option<Located<Vec<Located<Option<DigestAlgorithm>>>>>,
    pub authentication_info: Option<bool>,
    pub automatic_takeover: Option<bool>,
    pub second_registration: Option<SecondRegistration>,
    pub branch_recovery: Option<BranchRecovery>,
    pub dns_servers: Option<Located<Vec<Text>>>,
    pub emergency_numbers: Option<Located<Vec<Text>>>,
    pub call_records: Option<CallRecords>,
    pub ban_exempt: Option<Located<Vec<Text>>>,
    pub gruu: Option<bool>,
    pub devices_beyond_max: Option<DevicesBeyondMax>,
    pub keys: Keys,
}

/// One `[[server]]`.
#[derive(Debug)]
pub(crate) struct Server {
    pub at: Position,
    /// How findings call it.
    pub subject: String,
    pub name: Option<Text>,
    pub fqdn: Option<Text>,
    pub pool: Option<Text>,
    pub udp: Option<Vec<Text>>,
    pub tcp: Option<Vec<Text>>,
    pub tls: Option<Vec<Text>>,
    pub ws: Option<Vec<Text>>,
    pub wss: Option<Vec<Text>>,
    pub internal_sip: Option<Text>,
    pub internal_http: Option<Text>,
    pub shards: Option<Located<i64>>,
    pub tls_certificate: Option<Text>,
    pub tls_key: Option<Text>,
    pub keys: Keys,
}

/// One `[[pair]]`.
#[derive(Debug)]
pub(crate) struct Pair {
    pub at: Position,
    /// How findings call it.
    pub subject: String,
    pub pools: Option<Vec<Text>>,
    pub keys: Keys,
}

impl Site {
    /// The one parent, when there is exactly one.
    pub fn parent(&self) -> Option<&Text> {
        only(&self.parents)
    }
}

impl Pool {
    /// The one associated pool, when there is exactly one.
    pub fn associated_pool(&self) -> Option<&Text> {
        only(&self.associated_pools)
    }
}

impl Server {
    /// The SIP listeners with the key of their list.
    pub fn sip_listeners(&self) -> [(&'static str, &Option<Vec<Text>>); 5] {
        [("udp", &self.udp), ("tcp", &self.tcp), ("tls", &self.tls), ("ws", &self.ws), ("wss", &self.wss)]
    }
}

fn only(texts: &Option<Vec<Text>>) -> Option<&Text> {
    match texts.as_deref() {
        Some([text]) => Some(text),
        Some(_) | None => None,
    }
}

impl Settings {
    /// The number written for `key`, or its default.
    pub fn number(&self, key: &str) -> i64 {
        let written = self.numbers.iter().find(|(setting, _)| setting.key == key).map(|(_, n)| n.value);
        let default =
            || NumberSetting::ALL.iter().find(|s| s.key == key).map(|s| i64::from(s.default_value()));
        written.or_else(default).unwrap_or_default()
    }
}
