//! User data that is kept, copied to the partner pool and recovered: one document of each kind for a user.
//!
//! A document is changed by an [`Edit`]. Edits of contact lists and call logs are operations that can be
//! applied to any version, so that those made at two pools can be united; settings and voice policy are
//! replaced as a whole.

mod call_log;
mod contact_list;
mod destination;
mod settings;
mod voice_policy;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use call_log::{CallId, CallLog, CallRecord, CallResult, Direction};
pub use contact_list::{ContactList, ContactListEdit, GroupName, GroupNameError, ListedContact};
pub use destination::{Destination, DestinationError};
pub use settings::{Forwarding, NoAnswer, UserSettings};
pub use voice_policy::{CallPermission, VoicePolicy};

/// What a document holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    /// Contacts and their groups.
    ContactList,
    /// Forwarding, simultaneous ring, do-not-disturb.
    Settings,
    /// What the user may call; set by the operator.
    VoicePolicy,
    /// Calls made, received and missed.
    CallLog,
}

impl DocumentKind {
    /// All kinds, in order.
    pub const ALL: [Self; 4] = [Self::ContactList, Self::Settings, Self::VoicePolicy, Self::CallLog];

    /// The word for it on the wire and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContactList => "contact_list",
            Self::Settings => "settings",
            Self::VoicePolicy => "voice_policy",
            Self::CallLog => "call_log",
        }
    }

    /// Whether a branch appliance holds a copy: what its registrar and routing need while it is cut off.
    pub const fn is_for_branch(self) -> bool {
        match self {
            Self::Settings | Self::VoicePolicy => true,
            Self::ContactList | Self::CallLog => false,
        }
    }
}

impl fmt::Display for DocumentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A document of one user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Document {
    /// Contacts and their groups.
    ContactList(ContactList),
    /// Forwarding, simultaneous ring, do-not-disturb.
    Settings(UserSettings),
    /// What the user may call.
    VoicePolicy(VoicePolicy),
    /// Calls made, received and missed.
    CallLog(CallLog),
}

impl Document {
    /// What a user has before the first edit.
    pub fn empty(kind: DocumentKind) -> Self {
        match kind {
            DocumentKind::ContactList => Self::ContactList(ContactList::default()),
            DocumentKind::Settings => Self::Settings(UserSettings::default()),
            DocumentKind::VoicePolicy => Self::VoicePolicy(VoicePolicy::default()),
            DocumentKind::CallLog => Self::CallLog(CallLog::default()),
        }
    }

    /// Its kind.
    pub const fn kind(&self) -> DocumentKind {
        match self {
            Self::ContactList(_) => DocumentKind::ContactList,
            Self::Settings(_) => DocumentKind::Settings,
            Self::VoicePolicy(_) => DocumentKind::VoicePolicy,
            Self::CallLog(_) => DocumentKind::CallLog,
        }
    }

    /// Applies an edit of the same kind. Applied twice in a row it changes nothing more.
    ///
    /// Errors: [`EditError`]; then nothing is changed.
    pub fn apply(&mut self, edit: &Edit) -> Result<(), EditError> {
        match (self, edit) {
            (Self::ContactList(list), Edit::ContactList(edit)) => list.apply(edit),
            (Self::Settings(settings), Edit::Settings(new)) => new.check().map(|()| *settings = new.clone()),
            (Self::VoicePolicy(policy), Edit::VoicePolicy(new)) => {
                *policy = new.clone();
                Ok(())
            }
            (Self::CallLog(log), Edit::CallRecord(record)) => {
                log.record(record.clone());
                Ok(())
            }
            (document, edit) => Err(EditError::WrongKind { document: document.kind(), edit: edit.kind() }),
        }
    }
}

/// A change of one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// An operation on the contact list.
    ContactList(ContactListEdit),
    /// New settings instead of the old ones.
    Settings(UserSettings),
    /// A new voice policy instead of the old one.
    VoicePolicy(VoicePolicy),
    /// A call that began, was answered or ended.
    CallRecord(CallRecord),
}

impl Edit {
    /// The kind of document it changes.
    pub const fn kind(&self) -> DocumentKind {
        match self {
            Self::ContactList(_) => DocumentKind::ContactList,
            Self::Settings(_) => DocumentKind::Settings,
            Self::VoicePolicy(_) => DocumentKind::VoicePolicy,
            Self::CallRecord(_) => DocumentKind::CallLog,
        }
    }

    /// Whether it can be applied to a version that its author did not see. Others replace what they did not
    /// see, which after a failover is a conflict for the operator.
    pub const fn is_mergeable(&self) -> bool {
        match self {
            Self::ContactList(_) | Self::CallRecord(_) => true,
            Self::Settings(_) | Self::VoicePolicy(_) => false,
        }
    }
}

/// Why an edit was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The edit is for another kind of document.
    #[error("an edit of {edit} cannot be applied to {document}")]
    WrongKind {
        /// The document.
        document: DocumentKind,
        /// The edit.
        edit: DocumentKind,
    },
    /// The document would grow beyond its bound.
    #[error("at most {max} {what} are kept for a user")]
    Full {
        /// What there would be too many of.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A time that makes no sense.
    #[error("{what} is {found} s, allowed are {min} to {max} s")]
    Seconds {
        /// Which.
        what: &'static str,
        /// As given.
        found: u32,
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
}
