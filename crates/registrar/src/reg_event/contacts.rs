//! The contacts of one user as subscribers know them: the state machine of each (RFC 3680 section 4.7.1),
//! found by comparing what is bound with what was bound before.
//!
//! ```text
//!          registered, created           refreshed, shortened
//! (init) ─────────────────────▶ active ◀──────┐
//!                                 │ └─────────┘
//!                                 │ expired, deactivated, probation, unregistered, rejected
//!                                 ▼
//!                             terminated (until every subscriber was told)
//! ```

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use model::{WallTime, limits};

use crate::Binding;

/// What brought a contact into its state. Source: RFC 3680 section 4.7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactEvent {
    /// Bound by a REGISTER.
    Registered,
    /// Bound by other means: copied from the other pool.
    Created,
    /// Bound again by a REGISTER.
    Refreshed,
    /// Made to end earlier, not by a REGISTER.
    Shortened,
    /// Not refreshed in time.
    Expired,
    /// Removed, not by a REGISTER: the phone is to register again at once.
    Deactivated,
    /// Removed, not by a REGISTER: the phone is to register again later.
    Probation {
        /// Seconds until then.
        retry_after_s: u32,
    },
    /// Removed by a REGISTER.
    Unregistered,
    /// Removed for good: registering again does not help.
    Rejected,
}

impl ContactEvent {
    /// The value of the attribute `event`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Created => "created",
            Self::Refreshed => "refreshed",
            Self::Shortened => "shortened",
            Self::Expired => "expired",
            Self::Deactivated => "deactivated",
            Self::Probation { .. } => "probation",
            Self::Unregistered => "unregistered",
            Self::Rejected => "rejected",
        }
    }

    /// Whether the contact is active after it; otherwise it is terminated.
    pub const fn is_active(self) -> bool {
        match self {
            Self::Registered | Self::Created | Self::Refreshed | Self::Shortened => true,
            Self::Expired
            | Self::Deactivated
            | Self::Probation { .. }
            | Self::Unregistered
            | Self::Rejected => false,
        }
    }
}

/// What changed the bindings of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A REGISTER of one of the user's devices.
    Register,
    /// A REGISTER of a device for which the oldest one had to leave.
    Replacement,
    /// Anything else, or nobody knows: time, an operator, a connection that closed, the other pool.
    Other,
}

/// What subscribers know, or are to be told, of one user's contacts.
#[derive(Clone, Debug, Default)]
pub(super) struct Contacts {
    active: Vec<Contact>,
    /// Contacts that have ended, each with the number of the change that ended it, oldest first.
    ended: Vec<(u64, Contact)>,
    /// Changes worth a notification so far.
    changes: u64,
}

/// One contact and how it came into its state.
#[derive(Clone, Debug)]
pub(super) struct Contact {
    pub(super) binding: Binding,
    pub(super) event: ContactEvent,
}

impl Contacts {
    /// What is bound when the first subscription begins; how it was bound is not known any more.
    pub(super) fn new(bindings: &[Binding]) -> Self {
        let registered =
            |binding: &Binding| Contact { binding: binding.clone(), event: ContactEvent::Registered };
        Self { active: bindings.iter().map(registered).collect(), ended: Vec::new(), changes: 0 }
    }

    /// Takes over what is bound at `now`; counts a change when it is worth a notification.
    pub(super) fn update(&mut self, bindings: &[Binding], cause: Cause, now: WallTime) {
        let before = std::mem::take(&mut self.active);
        let mut has_changed = false;
        for binding in bindings {
            let known = before.iter().find(|contact| is_same(&contact.binding, binding));
            let event = match known {
                None => match cause {
                    Cause::Register | Cause::Replacement => ContactEvent::Registered,
                    Cause::Other => ContactEvent::Created,
                },
                Some(known) => known.event_after(binding),
            };
            has_changed |= known.is_none_or(|known| {
                event == ContactEvent::Shortened && known.binding.expires_at() != binding.expires_at()
            });
            self.active.push(Contact { binding: binding.clone(), event });
        }
        let number = self.changes + 1;
        for contact in before {
            if !bindings.iter().any(|binding| is_same(&contact.binding, binding)) {
                let event = match cause {
                    _ if contact.binding.is_expired(now) => ContactEvent::Expired,
                    Cause::Register => ContactEvent::Unregistered,
                    // It would drive out another one in turn if it came back at once.
                    Cause::Replacement => ContactEvent::Rejected,
                    Cause::Other => ContactEvent::Deactivated,
                };
                self.ended.push((number, Contact { event, ..contact }));
                has_changed = true;
            }
        }
        let over = self.ended.len().saturating_sub(limits::CONTACTS_ENDED_MAX);
        self.ended.drain(..over);
        self.changes += u64::from(has_changed);
    }

    /// Changes worth a notification so far.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Forgets contacts whose end everybody was told: those of the changes up to `change`.
    pub(super) fn forget_ended(&mut self, change: u64) {
        self.ended.retain(|(number, _)| *number > change);
    }

    /// When the next contact ends by itself.
    pub(super) fn next_expiry(&self) -> Option<WallTime> {
        self.active.iter().map(|contact| contact.binding.expires_at()).min()
    }

    /// What to tell a subscriber who was told everything up to the change `seen`.
    pub(super) fn report(&self, seen: u64) -> impl Iterator<Item = Contact> {
        let ended = self.ended.iter().filter(move |(number, _)| *number > seen);
        self.active.iter().chain(ended.map(|(_, contact)| contact)).cloned()
    }
}

impl Contact {
    /// The event after which a contact that was bound is bound like this.
    fn event_after(&self, binding: &Binding) -> ContactEvent {
        let before = &self.binding;
        let is_by_register = binding.call_id() != before.call_id() || binding.cseq() != before.cseq();
        if is_by_register {
            ContactEvent::Refreshed
        } else if binding.expires_at() < before.expires_at() {
            ContactEvent::Shortened
        } else {
            self.event
        }
    }
}

/// Two contacts of RFC 3680 are one when their URIs are; devices behind one address, and flows of one device,
/// are told apart besides.
fn is_same(one: &Binding, other: &Binding) -> bool {
    one.uri() == other.uri() && one.instance() == other.instance() && one.reg_id() == other.reg_id()
}

/// The attribute `id` of a contact: the same for the same contact in every document of this process.
pub(super) fn id_of(binding: &Binding) -> u64 {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    hasher.hash_one((binding.uri(), binding.instance(), binding.reg_id()))
}
