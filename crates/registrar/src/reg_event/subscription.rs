//! One subscription and its states.
//!
//! ```text
//!           SUBSCRIBE             answered
//! (none) ─────────────▶ Notifying ────────▶ Quiet
//!                          │  ▲               │
//!                          │  └───────────────┤ SUBSCRIBE; a change, after the pause
//!        NOTIFY refused,   │                  │ time over, sent away: a last NOTIFY
//!        not answered      ▼                  ▼
//!                        (none) ◀──────────(none)
//! ```
//! While a NOTIFY is under way no other one is sent, or the two could overtake each other; what ends the
//! subscription meanwhile is told when that one is answered.

use model::{AddressOfRecord, Instant};

use super::contacts::{Contact, ContactEvent};
use crate::Octets;

/// Why a subscription ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its time is over, or the subscriber ended it.
    Timeout,
    /// The users have another owner: register and subscribe again at once.
    Deactivated,
    /// Register and subscribe again later.
    Probation {
        /// Seconds until then.
        retry_after_s: u32,
    },
    /// The account is gone: do not come again.
    Rejected,
}

impl Ending {
    /// A contact as the last NOTIFY reports it.
    pub(super) fn of_contact(self, contact: Contact) -> Contact {
        let event = match self {
            _ if !contact.event.is_active() => contact.event,
            Self::Timeout => contact.event,
            Self::Deactivated => ContactEvent::Deactivated,
            Self::Probation { retry_after_s } => ContactEvent::Probation { retry_after_s },
            Self::Rejected => ContactEvent::Rejected,
        };
        Contact { event, ..contact }
    }
}

/// What Subscription-State says. Source: RFC 6665 section 4.1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
    /// It goes on.
    Active {
        /// Seconds until it ends unless it is refreshed.
        expires_s: u64,
    },
    /// It has ended.
    Terminated(Ending),
}

impl SubscriptionState {
    /// The value of the header.
    pub fn to_value(self) -> String {
        match self {
            Self::Active { expires_s } => format!("active;expires={expires_s}"),
            Self::Terminated(Ending::Timeout) => "terminated;reason=timeout".to_owned(),
            Self::Terminated(Ending::Deactivated) => "terminated;reason=deactivated".to_owned(),
            Self::Terminated(Ending::Probation { retry_after_s }) => {
                format!("terminated;reason=probation;retry-after={retry_after_s}")
            }
            Self::Terminated(Ending::Rejected) => "terminated;reason=rejected".to_owned(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) aor: AddressOfRecord,
    /// Who subscribes, and under which `id`: the same one subscribing again replaces this.
    pub(super) target: Octets,
    pub(super) event_id: Option<Octets>,
    /// CSeq of the newest SUBSCRIBE.
    pub(super) cseq: u32,
    pub(super) expires_at: Instant,
    /// Number of the next document.
    pub(super) version: u32,
    /// The change up to which the subscriber was told everything.
    pub(super) seen: u64,
    pub(super) due: Due,
    pub(super) phase: Phase,
    /// When it wants to be looked at again.
    pub(super) timer: Option<Instant>,
}

/// What a subscriber is owed besides changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// A NOTIFY at once, the answer to a SUBSCRIBE (RFC 6665 section 4.2.1.2).
    AtOnce,
    /// A NOTIFY after the pause: the one before was put off by the subscriber.
    Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No NOTIFY is under way; the next one that nobody asked for may leave then.
    Quiet { may_notify_at: Instant },
    /// A NOTIFY is under way. `ending` waits for its answer, `may_notify_at` follows it.
    Notifying { may_notify_at: Instant, ending: Option<Ending> },
}
