//! What a user wants done with calls.

use serde::{Deserialize, Serialize};

use super::{Destination, EditError};
use crate::limits;

/// Forwarding, simultaneous ring and do-not-disturb of one user; by default calls ring the user's phones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserSettings {
    /// Where calls go instead of, or after, the user's phones.
    pub forwarding: Forwarding,
    /// Rings together with the user's phones; at most `limits::SIMULTANEOUS_RING_MAX`.
    pub simultaneous_ring: Vec<Destination>,
    /// Calls are refused with 486 without ringing, forwarding on busy applied.
    pub do_not_disturb: bool,
}

/// Where calls go instead of, or after, the user's phones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Forwarding {
    /// Every call, without ringing here.
    pub always: Option<Destination>,
    /// When the phones answer 486 or 600, or the user does not want to be disturbed.
    pub busy: Option<Destination>,
    /// When nobody answers in time.
    pub no_answer: Option<NoAnswer>,
    /// When no phone is registered or none is reached.
    pub not_reachable: Option<Destination>,
}

/// Forwarding of calls that nobody answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoAnswer {
    /// Where to.
    pub to: Destination,
    /// After so many seconds of ringing, 5 to 120.
    pub after_s: u32,
}

impl UserSettings {
    /// Whether every value is within its bounds.
    ///
    /// Errors: [`EditError::Full`], [`EditError::Seconds`].
    pub fn check(&self) -> Result<(), EditError> {
        if self.simultaneous_ring.len() > limits::SIMULTANEOUS_RING_MAX {
            let max = limits::SIMULTANEOUS_RING_MAX;
            return Err(EditError::Full { what: "destinations of simultaneous ring", max });
        }
        match &self.forwarding.no_answer {
            Some(NoAnswer { after_s, .. }) if !(5..=120).contains(after_s) => {
                Err(EditError::Seconds { what: "no-answer time", found: *after_s, min: 5, max: 120 })
            }
            Some(_) | None => Ok(()),
        }
    }
}
