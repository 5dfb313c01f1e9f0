//! What a user may call.

use serde::{Deserialize, Serialize};

/// What the operator allows a user; by default everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VoicePolicy {
    /// Whom the user may call. Emergency calls are never refused.
    pub calls: CallPermission,
    /// Forwarding and simultaneous ring to destinations outside the deployment's domains are not followed.
    pub no_forwarding_outside: bool,
}

/// Whom a user may call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallPermission {
    /// Everybody.
    #[default]
    Everybody,
    /// Users of the deployment's domains only.
    Internal,
    /// Nobody but emergency services.
    EmergencyOnly,
}
