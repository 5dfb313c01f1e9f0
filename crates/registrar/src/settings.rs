//! What a pool's administrator decides about registrations.

use model::limits;

use crate::DeviceLimit;

/// Rules for the registrations of one pool. Built by `node` from the topology, which has checked the ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterSettings {
    /// Shortest expiry granted, in seconds. A shorter one is refused with 423, unless it is an hour or more.
    pub expires_min_s: u32,
    /// Expiry of who asks for none, in seconds.
    pub expires_default_s: u32,
    /// Longest expiry granted, in seconds. A longer one is cut to this.
    pub expires_max_s: u32,
    /// Devices one user may register; the flows of one device (RFC 5626) count once.
    pub devices: DeviceLimit,
    /// What to do with a Path that the phone did not say it supports.
    pub path_without_support: PathWithoutSupport,
}

/// What to do with Path when the phone does not say `Supported: path`. Source: RFC 3327 section 5.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathWithoutSupport {
    /// Register as if there were no Path.
    Ignore,
    /// Keep it all the same: for hops that are servers of ours.
    Keep,
    /// Refuse with 420, the RFC's recommendation against hops that meddle.
    Refuse,
}

impl Default for RegisterSettings {
    /// One minute, ten minutes, one hour; `limits::DEVICES_PER_USER_DEFAULT` devices and no more; Path
    /// ignored without support.
    fn default() -> Self {
        Self {
            expires_min_s: 60,
            expires_default_s: 600,
            expires_max_s: 3_600,
            devices: DeviceLimit::refusing(limits::DEVICES_PER_USER_DEFAULT),
            path_without_support: PathWithoutSupport::Ignore,
        }
    }
}
