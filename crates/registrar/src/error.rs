//! Why a REGISTER is refused, and the response that says so.

use bytes::Bytes;
use model::StaleEpoch;
use sip::{HeaderError, HeaderId};

use crate::Octets;

/// Seconds after which a phone may come again when the group has moved to another owner.
const RETRY_AFTER_STALE_S: u32 = 2;

/// Why a REGISTER, or a command made of one, is refused. A refused one changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A header that is needed is missing or malformed.
    #[error("a header of the request cannot be used")]
    Header(#[from] HeaderError),
    /// A header above the size that is kept.
    #[error("{header} has more than {max} octets")]
    TooLong {
        /// The header.
        header: HeaderId,
        /// Most octets.
        max: usize,
    },
    /// More contacts than one REGISTER may have.
    #[error("there are more than {max} contacts")]
    TooManyContacts {
        /// Most contacts.
        max: usize,
    },
    /// `Contact: *` beside other contacts, or without `Expires: 0` (RFC 3261 section 10.3 step 6).
    #[error("Contact: * needs Expires: 0 and no other contact")]
    Wildcard,
    /// A contact with `reg-id` beside another one, neither of them being removed (RFC 5626 section 6).
    #[error("a contact with reg-id stands beside another contact")]
    SeveralFlows,
    /// A device's contact that is no SIP URI, or leads back to the address-of-record (RFC 5627 section 5.1).
    #[error("the contact of a device leads to no device")]
    NoDevice,
    /// Extensions in Require that are not supported, or Path without support where policy asks for it.
    #[error("the extensions {unsupported:?} are not supported")]
    Extension {
        /// Their names, as Unsupported lists them.
        unsupported: Octets,
    },
    /// The address-of-record is not in a domain served here (RFC 3261 section 10.3 step 5).
    #[error("the address-of-record is not in a domain of this registrar")]
    UnknownDomain,
    /// An operator named a contact that is not bound.
    #[error("no such contact is bound")]
    UnknownContact,
    /// One device more than the user may have.
    #[error("the user has {max} devices already")]
    TooManyDevices {
        /// Most devices.
        max: u16,
    },
    /// One flow more than a device may have (RFC 5626).
    #[error("the device has {max} flows already")]
    TooManyFlows {
        /// Most flows.
        max: u16,
    },
    /// An expiry below the minimum.
    #[error("the expiry is below {min_s} seconds")]
    IntervalTooBrief {
        /// Shortest expiry granted.
        min_s: u32,
    },
    /// The first hop does not support Outbound, which the phone asked for (RFC 5626 section 6).
    #[error("the first hop does not support Outbound")]
    FirstHopLacksOutbound,
    /// A CSeq not above that of the binding, in the same Call-ID (RFC 3261 section 10.3 steps 6 and 7).
    #[error("the request is older than the binding")]
    OutOfOrder,
    /// Another server owns the home pool by now.
    #[error("the epoch of the command is stale")]
    StaleEpoch(#[source] StaleEpoch),
}

impl RegisterError {
    /// Status code of the response (RFC 3261 section 10.3, RFC 5626 section 6, RFC 3327 section 5.3).
    pub const fn status(&self) -> u16 {
        match self {
            Self::Header(_)
            | Self::TooLong { .. }
            | Self::TooManyContacts { .. }
            | Self::Wildcard
            | Self::SeveralFlows => 400,
            Self::NoDevice | Self::TooManyDevices { .. } | Self::TooManyFlows { .. } => 403,
            Self::UnknownDomain | Self::UnknownContact => 404,
            Self::Extension { .. } => 420,
            Self::IntervalTooBrief { .. } => 423,
            Self::FirstHopLacksOutbound => 439,
            Self::OutOfOrder => 500,
            Self::StaleEpoch(_) => 503,
        }
    }

    /// Reason phrase of the response: for a person who reads a trace.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Header(_) => "Bad Request",
            Self::TooLong { .. } => "Header Too Long",
            Self::TooManyContacts { .. } => "Too Many Contacts",
            Self::Wildcard => "Wildcard Needs Expires 0 And No Other Contact",
            Self::SeveralFlows => "One Contact Per Flow",
            Self::NoDevice => "Contact Leads To No Device",
            Self::Extension { .. } => "Bad Extension",
            Self::UnknownDomain | Self::UnknownContact => "Not Found",
            Self::TooManyDevices { .. } => "Too Many Devices",
            Self::TooManyFlows { .. } => "Too Many Flows",
            Self::IntervalTooBrief { .. } => "Interval Too Brief",
            Self::FirstHopLacksOutbound => "First Hop Lacks Outbound Support",
            Self::OutOfOrder => "Request Out Of Order",
            Self::StaleEpoch(_) => "Service Unavailable",
        }
    }

    /// The header that the response carries besides; at most one.
    pub fn header(&self) -> Option<(HeaderId, Bytes)> {
        match self {
            Self::Extension { unsupported } => {
                Some((HeaderId::Unsupported, Bytes::copy_from_slice(unsupported)))
            }
            Self::IntervalTooBrief { min_s } => Some((HeaderId::MinExpires, min_s.to_string().into())),
            Self::StaleEpoch(_) => Some((HeaderId::RetryAfter, RETRY_AFTER_STALE_S.to_string().into())),
            Self::TooManyDevices { max } => Some(warning(&format!("at most {max} devices per user"))),
            Self::TooManyFlows { max } => Some(warning(&format!("at most {max} flows per device"))),
            Self::Header(error) => Some(warning(&error.to_string())),
            Self::TooLong { header, max } => Some(warning(&format!("{header} has more than {max} octets"))),
            Self::TooManyContacts { max } => Some(warning(&format!("at most {max} contacts"))),
            Self::NoDevice => {
                Some(warning("a device's contact is a SIP URI and not its own address-of-record"))
            }
            Self::Wildcard
            | Self::SeveralFlows
            | Self::UnknownDomain
            | Self::UnknownContact
            | Self::FirstHopLacksOutbound
            | Self::OutOfOrder => None,
        }
    }
}

/// `Warning: 399`: text for a person (RFC 3261 section 20.43).
fn warning(text: &str) -> (HeaderId, Bytes) {
    (HeaderId::Warning, format!("399 tandem \"{text}\"").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_the_header_its_status_requires() {
        let brief = RegisterError::IntervalTooBrief { min_s: 60 };
        let extension = RegisterError::Extension { unsupported: b"gruu, x"[..].into() };
        let devices = RegisterError::TooManyDevices { max: 8 };

        assert_eq!((brief.status(), brief.header()), (423, Some((HeaderId::MinExpires, "60".into()))));
        assert_eq!(
            (extension.status(), extension.header()),
            (420, Some((HeaderId::Unsupported, "gruu, x".into())))
        );
        assert_eq!(devices.status(), 403);
        assert_eq!(
            devices.header(),
            Some((HeaderId::Warning, "399 tandem \"at most 8 devices per user\"".into()))
        );
    }
}
