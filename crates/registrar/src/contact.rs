//! One contact of a REGISTER: where a device is reached, and what makes it the same device next time.

use std::num::NonZeroU32;

use model::limits;
use serde::{Deserialize, Serialize};
use sip::{HeaderError, HeaderId, NameAddr, Scheme, Uri};

use crate::{Octets, RegisterError, octets::push_unfolded};

/// Preference of a contact without q (RFC 3261 section 20.10).
const Q_DEFAULT: u16 = 1_000;

/// A contact and how long it is to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactChange {
    /// Seconds from the command's time; 0 = remove.
    pub expires_s: u32,
    /// The contact.
    pub contact: Contact,
}

/// A contact as sent: URI, parameters (without `expires` and GRUUs), and what was read from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The URI, then the parameters.
    pub(crate) text: Octets,
    pub(crate) uri_end: u16,
    /// Where in the text the instance stands; empty = none.
    pub(crate) instance_start: u16,
    pub(crate) instance_end: u16,
    pub(crate) reg_id: Option<NonZeroU32>,
    pub(crate) q: u16,
}

impl Contact {
    /// Keeps what a Contact value says; `reg-id` only where Outbound applies, and never without an instance:
    /// elsewhere it is ignored, whatever it says (RFC 5626 section 6).
    ///
    /// Errors: `TooLong` above `limits::CONTACT_BYTES_MAX`, `Header` for an unreadable `reg-id` that counts.
    pub fn new(address: NameAddr<'_>, is_outbound: bool) -> Result<Self, RegisterError> {
        let too_long = RegisterError::TooLong { header: HeaderId::Contact, max: limits::CONTACT_BYTES_MAX };
        let malformed = HeaderError::Malformed { header: HeaderId::Contact };
        let mut text = Vec::with_capacity(address.uri_bytes.len() + address.parameters.bytes().len());
        text.extend_from_slice(address.uri_bytes);
        let (mut instance, mut reg_id) = (0..0, None);
        for parameter in address.parameters.iter() {
            // GRUUs are the registrar's to give (RFC 5627 section 5.1).
            if [&b"expires"[..], b"pub-gruu", b"temp-gruu"]
                .iter()
                .any(|name| parameter.name.eq_ignore_ascii_case(name))
            {
                continue;
            }
            text.push(b';');
            text.extend_from_slice(parameter.name);
            let Some(value) = parameter.value else { continue };
            text.extend_from_slice(if parameter.is_quoted { b"=\"" } else { b"=" });
            let start = text.len();
            push_unfolded(&mut text, value);
            let end = text.len();
            if parameter.is_quoted {
                text.push(b'"');
            }
            if parameter.name.eq_ignore_ascii_case(b"+sip.instance") {
                instance = start..end;
            } else if parameter.name.eq_ignore_ascii_case(b"reg-id") {
                reg_id = Some(value);
            }
        }
        if text.len() > limits::CONTACT_BYTES_MAX {
            return Err(too_long);
        }
        let offset = |at: usize| u16::try_from(at).map_err(|_| too_long.clone());
        let reg_id = reg_id.filter(|_| is_outbound && !instance.is_empty());
        Ok(Self {
            uri_end: offset(address.uri_bytes.len())?,
            instance_start: offset(instance.start)?,
            instance_end: offset(instance.end)?,
            reg_id: reg_id.map(|value| read_reg_id(value).ok_or(malformed)).transpose()?,
            q: address.q().unwrap_or(Q_DEFAULT),
            text: text.into(),
        })
    }

    /// The URI as sent.
    pub fn uri(&self) -> &[u8] {
        slice(&self.text, 0, self.uri_end)
    }

    /// The value of `+sip.instance`, usually `<urn:uuid:...>`.
    pub fn instance(&self) -> Option<&[u8]> {
        some_if_any(slice(&self.text, self.instance_start, self.instance_end))
    }

    /// `reg-id` (RFC 5626), where it applies.
    pub const fn reg_id(&self) -> Option<NonZeroU32> {
        self.reg_id
    }

    pub(crate) fn key(&self) -> ContactKey<'_> {
        ContactKey { uri: self.uri(), instance: self.instance(), reg_id: self.reg_id }
    }
}

/// What makes two contacts the same binding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContactKey<'a> {
    pub(crate) uri: &'a [u8],
    pub(crate) instance: Option<&'a [u8]>,
    pub(crate) reg_id: Option<NonZeroU32>,
}

/// How well a contact that comes fits a binding that is there, best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fit {
    /// Another binding.
    None,
    /// Equivalent URIs.
    EquivalentUri,
    /// The same URI.
    SameUri,
    /// Equivalent URIs, and neither is known by an instance.
    EquivalentContact,
    /// The same URI, and neither is known by an instance.
    SameContact,
    /// The same device (and flow of it).
    SameInstance,
}

impl ContactKey<'_> {
    /// Compares a contact with a binding.
    ///
    /// With instance and reg-id both must agree (RFC 5626 section 6). Without reg-id the same instance is the
    /// same binding wherever it is now; otherwise the URIs decide (RFC 3261 section 10.3 step 7), except
    /// between two instances: behind two NATs two devices may have one URI.
    pub(crate) fn fit(&self, bound: &Self) -> Fit {
        if self.reg_id != bound.reg_id {
            return Fit::None;
        }
        match (self.instance, bound.instance) {
            (Some(mine), Some(theirs)) if is_same_instance(mine, theirs) => Fit::SameInstance,
            (Some(_), Some(_)) => Fit::None,
            (None, None) => match uri_fit(self.uri, bound.uri) {
                Fit::SameUri => Fit::SameContact,
                Fit::EquivalentUri => Fit::EquivalentContact,
                other @ (Fit::None | Fit::EquivalentContact | Fit::SameContact | Fit::SameInstance) => other,
            },
            (None, _) | (_, None) => uri_fit(self.uri, bound.uri),
        }
    }
}

fn uri_fit(left: &[u8], right: &[u8]) -> Fit {
    if left == right {
        Fit::SameUri
    } else if is_equivalent(left, right) {
        Fit::EquivalentUri
    } else {
        Fit::None
    }
}

/// RFC 3261 section 19.1.4 for SIP and SIPS; other schemes are compared octet by octet.
pub(crate) fn is_equivalent(left: &[u8], right: &[u8]) -> bool {
    match (Uri::parse(left), Uri::parse(right)) {
        (Ok(left_uri), Ok(right_uri)) => match left_uri.scheme {
            Scheme::Sip | Scheme::Sips => left_uri.is_equivalent(&right_uri),
            Scheme::Tel | Scheme::Other => left == right,
        },
        (Ok(_) | Err(_), Err(_)) | (Err(_), Ok(_)) => left == right,
    }
}

/// UUID URNs in any case (RFC 4122 section 3), anything else octet by octet.
pub(crate) fn is_same_instance(left: &[u8], right: &[u8]) -> bool {
    left == right || (is_uuid(left) && left.eq_ignore_ascii_case(right))
}

/// Whether an instance is compared in any case.
pub(crate) fn is_uuid(instance: &[u8]) -> bool {
    const UUID: &[u8] = b"<urn:uuid:";
    instance.get(..UUID.len()).is_some_and(|start| start.eq_ignore_ascii_case(UUID))
}

/// 1 to 2^31 - 1 (RFC 5626 section 11.1).
fn read_reg_id(value: &[u8]) -> Option<NonZeroU32> {
    let number: u32 = std::str::from_utf8(value).ok()?.parse().ok()?;
    NonZeroU32::new(number).filter(|number| i32::try_from(number.get()).is_ok())
}

/// A part of `bytes`; empty when the offsets are not inside, which only corruption brings about.
pub(crate) fn slice(bytes: &[u8], start: u16, end: u16) -> &[u8] {
    bytes.get(usize::from(start)..usize::from(end)).unwrap_or_default()
}

pub(crate) fn some_if_any(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(value: &str) -> Contact {
        Contact::new(NameAddr::parse(value.as_bytes()).unwrap(), true).unwrap()
    }

    fn text(value: &str) -> String {
        String::from_utf8(contact(value).text.to_vec()).unwrap()
    }

    #[test]
    fn a_contact_without_instance_is_the_one_without_instance_before_a_device_at_the_same_uri() {
        let fit = |one: &str, other: &str| contact(one).key().fit(&contact(other).key());
        let device = "<sip:a@h>;+sip.instance=\"<i>\"";

        assert!(fit("<sip:a@h>", "<sip:a@h>") > fit("<sip:a@h>", device));
        assert!(fit("<sip:a@h>", "<sip:a@H>") > fit("<sip:a@h>", device));
        assert!(fit("<sip:a@h>", device) > Fit::None);
    }

    #[test]
    fn parameters_are_kept_as_sent_but_for_expires_and_white_space() {
        assert_eq!(
            text("\"A\" <sip:a@h;x>; Q=0.5 ;expires=9;audio;methods=\"INVITE,\r\n BYE\";EXPIRES=7"),
            "sip:a@h;x;Q=0.5;audio;methods=\"INVITE, BYE\""
        );
    }

    #[test]
    fn q_instance_and_reg_id_are_read() {
        let whole = contact("<sip:a@h>;q=0.25;+SIP.instance=\"<urn:x:1>\";reg-id=2147483647");
        assert_eq!((whole.q, whole.instance()), (250, Some(&b"<urn:x:1>"[..])));
        assert_eq!(whole.reg_id().map(u32::from), Some(2_147_483_647));
        assert_eq!(whole.uri(), b"sip:a@h");

        let bare = contact("sip:a@h;q=broken;reg-id=1");
        assert_eq!((bare.q, bare.instance(), bare.reg_id()), (1_000, None, None));
        for bad in ["0", "2147483648", "-1", "x", "\"\""] {
            let value = format!("<sip:a@h>;reg-id={bad};+sip.instance=\"<urn:x:1>\"");
            let refused = Contact::new(NameAddr::parse(value.as_bytes()).unwrap(), true);
            assert_eq!(refused.unwrap_err().status(), 400, "{bad}");
        }
    }

    #[test]
    fn only_uuids_are_compared_in_any_case() {
        assert!(is_same_instance(b"<urn:uuid:00AB>", b"<URN:UUID:00ab>"));
        assert!(!is_same_instance(b"<urn:uuid:00ab>", b"<urn:uuid:00ac>"));
        assert!(!is_same_instance(b"<urn:x:AB>", b"<urn:x:ab>"));
    }

    #[test]
    fn a_better_fit_wins() {
        let fit = |left: &str, right: &str| contact(left).key().fit(&contact(right).key());
        let flow = "<sip:a@h>;+sip.instance=\"<i>\";reg-id=1";

        assert_eq!(fit("<sip:a@h>", "<sip:a@h>"), Fit::SameContact);
        assert_eq!(fit("<sip:a@h>", "<sip:a@H>"), Fit::EquivalentContact);
        assert_eq!(fit("<sip:a@h>", "<sip:a@h>;+sip.instance=\"<i>\""), Fit::SameUri);
        assert_eq!(fit("<sip:a@h>", "<sip:b@h>"), Fit::None);
        assert_eq!(fit(flow, flow), Fit::SameInstance);
        assert_eq!(fit(flow, "<sip:a@h>;+sip.instance=\"<i>\""), Fit::None);
        assert_eq!(
            fit("<sip:x@y>;+sip.instance=\"<i>\"", "<sip:a@h>;+sip.instance=\"<i>\""),
            Fit::SameInstance
        );
        assert_eq!(fit("<sip:a@h>;+sip.instance=\"<i>\"", "<sip:a@h>;+sip.instance=\"<j>\""), Fit::None);
    }
}
