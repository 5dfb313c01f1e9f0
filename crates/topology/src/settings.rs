//! Pool settings: every key with its default, its range and its unit.

use std::{fmt, net::SocketAddr, time::Duration};

use model::{IpNetwork, limits};
use serde::Serialize;

use crate::Role;

/// How long a backup registrar waits beyond the lease before it believes that the owner has stopped, on top
/// of the bounded drift of 1 %. Fixed: shortening it would allow two owners.
pub const TAKEOVER_MARGIN: Duration = Duration::from_millis(250);

/// How a pool treats phones and its partner.
///
/// Numbers are within [`NumberSetting::ALL`]; their unit is in the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolSettings {
    /// Shortest registration granted; a shorter wish gets 423 with Min-Expires. RFC 3261 section 10.3 step 7.
    pub expires_min_s: u32,
    /// Registration granted to a phone that does not ask for a time.
    pub expires_default_s: u32,
    /// Longest registration granted; a longer wish gets this.
    pub expires_max_s: u32,
    /// Devices one user may have registered at once.
    pub devices_per_user_max: u16,
    /// What becomes of one more.
    pub devices_beyond_max: DevicesBeyondMax,
    /// How often at least phones with Outbound send keep-alives over TCP and TLS, in seconds: Flow-Timer; 0 =
    /// they are not told. RFC 5626 section 4.4.
    pub flow_timer_s: u32,
    /// Algorithms offered in challenges, in this order; never empty, none twice. RFC 8760 section 2.3.
    pub digest_algorithms: Vec<DigestAlgorithm>,
    /// Whether a 200 to a REGISTER proves that the server knows the password too. RFC 7616 section 3.5.
    pub authentication_info: bool,
    /// How long a nonce is accepted before the challenge is repeated with `stale=true`.
    pub nonce_lifetime_s: u32,
    /// Largest message accepted; more gets 513.
    pub message_bytes_max: u32,
    /// Longest request sent over UDP where its target may speak TCP. RFC 3261 section 18.1.1.
    pub udp_request_bytes_max: u32,
    /// Whether the partner takes over by itself when this pool is silent.
    pub automatic_takeover: bool,
    /// How long a promise to be the owner holds; less than `takeover_after_s`.
    pub lease_ttl_s: u32,
    /// Silence after which the partner takes over.
    pub takeover_after_s: u32,
    /// How long a returned pool must be stable before it gets its users back.
    pub hold_s: u32,
    /// What the partner does with a REGISTER of this pool's users while this pool is well.
    pub second_registration: SecondRegistration,
    /// Whether a branch's users follow the failover of their associated pool; branch pools only.
    pub branch_recovery: BranchRecovery,
    /// By how much at most, in percent, a registration of ten minutes or more is granted shorter than asked,
    /// each user's by another part, so that those made together do not end together. 0 = not at all.
    pub expires_spread_percent: u32,
    /// Latency of commits and of the SIP threads above which new registrations are put off.
    pub latency_target_ms: u32,
    /// How many phones each server of this pool sends to their new owner in a second.
    pub steer_phones_per_s: u32,
    /// How long user data may be unwritable before users are told that they are in resiliency mode.
    pub user_services_lost_after_s: u32,
    /// Name servers that are asked for hosts; empty: those of the system. At most `limits::DNS_SERVERS_MAX`.
    pub dns_servers: Vec<SocketAddr>,
    /// How long looking up a host may take, all questions together.
    pub dns_timeout_ms: u32,
    /// What users dial in an emergency: such requests are never put off. At most
    /// `limits::EMERGENCY_NUMBERS_MAX`.
    pub emergency_numbers: Vec<String>,
    /// Which calls are written into users' call logs.
    pub call_records: CallRecords,
    /// Proven offences of one source within `ban_window_s` for which it is banned; 0 = nobody is banned.
    pub ban_offences_max: u32,
    /// How long offences of a source are counted together.
    pub ban_window_s: u32,
    /// How long the first ban of a source lasts; each further one lasts twice as long.
    pub ban_s: u32,
    /// The longest ban.
    pub ban_max_s: u32,
    /// Networks that are never banned and whose passwords are never slowed down: session border controllers,
    /// proxies in front of WebSockets. At most `limits::BAN_EXEMPT_MAX`.
    pub ban_exempt: Vec<IpNetwork>,
    /// Whether phones that know GRUUs are given them. RFC 5627.
    pub gruu: bool,
}

/// Emergency numbers unless configured.
pub const EMERGENCY_NUMBERS_DEFAULT: [&str; 5] = ["112", "911", "110", "999", "000"];

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            expires_min_s: 60,
            expires_default_s: 600,
            expires_max_s: 3_600,
            devices_per_user_max: limits::DEVICES_PER_USER_DEFAULT,
            devices_beyond_max: DevicesBeyondMax::default(),
            flow_timer_s: 120,
            digest_algorithms: vec![DigestAlgorithm::Sha256, DigestAlgorithm::Md5],
            authentication_info: false,
            nonce_lifetime_s: 1_800,
            message_bytes_max: 65_535,
            udp_request_bytes_max: 1_300,
            automatic_takeover: true,
            lease_ttl_s: 5,
            takeover_after_s: 10,
            hold_s: 120,
            second_registration: SecondRegistration::default(),
            branch_recovery: BranchRecovery::default(),
            expires_spread_percent: 10,
            latency_target_ms: 250,
            steer_phones_per_s: 200,
            user_services_lost_after_s: 1_800,
            dns_servers: Vec::new(),
            dns_timeout_ms: 3_000,
            emergency_numbers: EMERGENCY_NUMBERS_DEFAULT.map(str::to_owned).to_vec(),
            call_records: CallRecords::default(),
            ban_offences_max: 20,
            ban_window_s: 60,
            ban_s: 600,
            ban_max_s: 86_400,
            ban_exempt: Vec::new(),
            gruu: true,
        }
    }
}

impl PoolSettings {
    /// `lease_ttl_s` as a duration.
    pub const fn lease_ttl(&self) -> Duration {
        Duration::from_secs(self.lease_ttl_s as u64)
    }

    /// `takeover_after_s` as a duration.
    pub const fn takeover_after(&self) -> Duration {
        Duration::from_secs(self.takeover_after_s as u64)
    }

    /// `hold_s` as a duration.
    pub const fn hold(&self) -> Duration {
        Duration::from_secs(self.hold_s as u64)
    }

    /// `user_services_lost_after_s` as a duration.
    pub const fn user_services_lost_after(&self) -> Duration {
        Duration::from_secs(self.user_services_lost_after_s as u64)
    }

    /// `latency_target_ms` as a duration.
    pub const fn latency_target(&self) -> Duration {
        Duration::from_millis(self.latency_target_ms as u64)
    }

    /// `ban_window_s` as a duration.
    pub const fn ban_window(&self) -> Duration {
        Duration::from_secs(self.ban_window_s as u64)
    }

    /// `ban_s` as a duration.
    pub const fn ban(&self) -> Duration {
        Duration::from_secs(self.ban_s as u64)
    }

    /// `ban_max_s` as a duration.
    pub const fn ban_max(&self) -> Duration {
        Duration::from_secs(self.ban_max_s as u64)
    }

    /// `dns_timeout_ms` as a duration.
    pub const fn dns_timeout(&self) -> Duration {
        Duration::from_millis(self.dns_timeout_ms as u64)
    }

    /// `nonce_lifetime_s` as a duration.
    pub const fn nonce_lifetime(&self) -> Duration {
        Duration::from_secs(self.nonce_lifetime_s as u64)
    }
}

/// A setting that is a whole number: its key, its range, and where it is kept.
#[derive(Clone, Copy, Debug)]
pub struct NumberSetting {
    /// The key in the document; ends in its unit.
    pub key: &'static str,
    /// Smallest value allowed.
    pub min: u32,
    /// Largest value allowed.
    pub max: u32,
    applies: fn(Role) -> bool,
    pub(crate) read: fn(&PoolSettings) -> u32,
    pub(crate) write: fn(&mut PoolSettings, u32),
}

macro_rules! number {
    ($key:ident, $min:expr, $max:expr, $applies:expr) => {
        NumberSetting {
            key: stringify!($key),
            min: $min,
            max: $max,
            applies: $applies,
            read: |settings| settings.$key,
            write: |settings, value| settings.$key = value,
        }
    };
}

impl NumberSetting {
    /// Every such setting, in the order of the documentation.
    pub const ALL: [Self; 20] = [
        number!(expires_min_s, 10, 86_400, Role::homes_users),
        number!(expires_default_s, 10, 86_400, Role::homes_users),
        number!(expires_max_s, 10, 604_800, Role::homes_users),
        Self {
            key: "devices_per_user_max",
            min: 1,
            max: limits::DEVICES_PER_USER_MAX as u32,
            applies: Role::homes_users,
            read: |settings| u32::from(settings.devices_per_user_max),
            write: |settings, value| {
                settings.devices_per_user_max = u16::try_from(value).unwrap_or(limits::DEVICES_PER_USER_MAX);
            },
        },
        number!(flow_timer_s, 0, 1_800, Role::homes_users),
        number!(nonce_lifetime_s, 30, 86_400, Role::speaks_sip),
        number!(message_bytes_max, 4_096, 65_535, Role::speaks_sip),
        number!(udp_request_bytes_max, 500, 65_535, Role::speaks_sip),
        number!(dns_timeout_ms, 100, 30_000, Role::speaks_sip),
        number!(lease_ttl_s, 1, 60, Role::has_partner),
        number!(takeover_after_s, 2, 86_400, Role::has_partner),
        number!(hold_s, 0, 86_400, Role::has_partner),
        number!(expires_spread_percent, 0, 50, Role::homes_users),
        number!(latency_target_ms, 1, 60_000, Role::homes_users),
        number!(steer_phones_per_s, 1, 100_000, Role::has_partner),
        number!(user_services_lost_after_s, 0, 86_400, Role::has_partner),
        number!(ban_offences_max, 0, 10_000, Role::speaks_sip),
        number!(ban_window_s, 1, 3_600, Role::speaks_sip),
        number!(ban_s, 1, 604_800, Role::speaks_sip),
        number!(ban_max_s, 1, 2_592_000, Role::speaks_sip),
    ];

    /// Whether the setting has an effect in pools of `role`: lease, takeover and hold only where there is a
    /// partner, registrations only where there is a registrar.
    pub fn applies_to(&self, role: Role) -> bool {
        (self.applies)(role)
    }

    /// The value in `settings`.
    pub fn value(&self, settings: &PoolSettings) -> u32 {
        (self.read)(settings)
    }

    /// The value in the default settings.
    pub fn default_value(&self) -> u32 {
        self.value(&PoolSettings::default())
    }
}

/// A hash algorithm of digest authentication. Source: RFC 7616, RFC 8760.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum DigestAlgorithm {
    /// MD5: weak, and all that many phones know.
    #[serde(rename = "MD5")]
    Md5,
    /// SHA-256.
    #[serde(rename = "SHA-256")]
    Sha256,
    /// SHA-512/256; several phones fail when they are merely offered it, and accounts hold no hash of it.
    #[serde(rename = "SHA-512-256")]
    Sha512_256,
}

impl DigestAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::Md5, Self::Sha256, Self::Sha512_256];

    /// The token in the document and in SIP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512_256 => "SHA-512-256",
        }
    }
}

impl fmt::Display for DigestAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the partner does with a REGISTER of a pool's users while that pool is well. Source: product, section
/// 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecondRegistration {
    /// Forwards it to the home pool with a Path: a second flow (RFC 5626).
    #[default]
    Forward,
    /// Answers 302 with the home pool first and itself second.
    Redirect,
}

impl SecondRegistration {
    /// Every choice.
    pub const ALL: [Self; 2] = [Self::Forward, Self::Redirect];

    /// The word in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Redirect => "redirect",
        }
    }
}

impl fmt::Display for SecondRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a branch's users follow the failover of their associated pool. Source: product, section 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BranchRecovery {
    /// They get user services, and if the appliance is down a registrar, wherever the pool's own users do.
    #[default]
    Follow,
    /// They stay in resiliency mode until the associated pool is back: the rule of Lync Server 2013.
    None,
}

impl BranchRecovery {
    /// Every choice.
    pub const ALL: [Self; 2] = [Self::Follow, Self::None];

    /// The word in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Follow => "follow",
            Self::None => "none",
        }
    }
}

impl fmt::Display for BranchRecovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What becomes of a device that registers beyond `devices_per_user_max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DevicesBeyondMax {
    /// It is registered, and the one that registered longest ago leaves.
    #[default]
    ReplaceOldest,
    /// It is refused with 403.
    Refuse,
}

impl DevicesBeyondMax {
    /// Every choice.
    pub const ALL: [Self; 2] = [Self::ReplaceOldest, Self::Refuse];

    /// The word in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReplaceOldest => "replace_oldest",
            Self::Refuse => "refuse",
        }
    }
}

impl fmt::Display for DevicesBeyondMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which calls a pool's servers write into users' call logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallRecords {
    /// Calls made and received, with when they were answered and ended.
    #[default]
    All,
    /// Calls received and not answered.
    Missed,
    /// None.
    Off,
}

impl CallRecords {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::All, Self::Missed, Self::Off];

    /// The word in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Missed => "missed",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for CallRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_within_its_range() {
        for setting in NumberSetting::ALL {
            let default = setting.default_value();
            assert!((setting.min..=setting.max).contains(&default), "{}", setting.key);
        }
    }

    #[test]
    fn a_number_written_is_the_number_read() {
        for setting in NumberSetting::ALL {
            let mut settings = PoolSettings::default();
            for value in [setting.min, setting.max] {
                (setting.write)(&mut settings, value);
                assert_eq!(setting.value(&settings), value, "{}", setting.key);
            }
        }
    }

    #[test]
    fn a_whole_second_between_lease_and_takeover_covers_drift_and_margin() {
        let longest = NumberSetting::ALL.iter().find(|s| s.key == "lease_ttl_s").map(|s| s.max).unwrap();
        let drift = Duration::from_secs(u64::from(longest)) / 100;

        assert!(drift + TAKEOVER_MARGIN < Duration::from_secs(1));
    }
}
