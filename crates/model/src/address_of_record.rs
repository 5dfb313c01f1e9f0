//! The canonical form of an address-of-record.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

use crate::limits;

/// Why a text is not an address-of-record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressOfRecordError {
    /// Not of the form `sip:user@domain`.
    #[error("an address-of-record has the form sip:user@domain")]
    Form,
    /// Longer than `limits::ADDRESS_OF_RECORD_BYTES_MAX`, as written or in canonical form.
    #[error("an address-of-record has at most {max} octets, this one has {length}")]
    TooLong {
        /// Octets in the text, or in its canonical form.
        length: usize,
        /// Most octets allowed.
        max: usize,
    },
    /// An octet that a user or host part cannot hold unescaped.
    #[error("octet {octet:#04x} is not allowed in an address-of-record")]
    Octet {
        /// The first octet that does not belong.
        octet: u8,
    },
}

/// An address-of-record in canonical form, `sip:user@domain`: scheme and domain in lower case, no port, no
/// parameters, no password; in the user part needless escapes are undone and needed ones are in upper case.
///
/// `#` is read as its escape `%23`: the grammar of a user part does not know it (RFC 3261 section 25.1), but
/// phones send it unescaped in service codes such as `*21#`, and refusing them would help nobody. Since it is
/// not reserved, both spellings name the same user (section 19.1.4).
///
/// `sips:` is read as `sip:`: it names the same user (RFC 3261 section 19.1, RFC 5630 section 3.1). Two equal
/// values name the same user. Source: RFC 3261 section 10.3 step 5.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct AddressOfRecord(Arc<str>);

impl AddressOfRecord {
    /// Reads `sip:user@domain` or `sips:user@domain`, parameters and port already removed.
    ///
    /// Errors: [`AddressOfRecordError`].
    pub fn new(text: &str) -> Result<Self, AddressOfRecordError> {
        let rest = strip_scheme(text).ok_or(AddressOfRecordError::Form)?;
        let (user, domain) = rest.rsplit_once('@').ok_or(AddressOfRecordError::Form)?;
        Self::from_parts(user.as_bytes(), domain.as_bytes())
    }

    /// Makes the canonical form from the raw user part of a URI and its host.
    ///
    /// Errors: [`AddressOfRecordError`].
    pub fn from_parts(user: &[u8], domain: &[u8]) -> Result<Self, AddressOfRecordError> {
        let length = user.len().saturating_add(domain.len()).saturating_add(5);
        check_length(length)?;
        if user.is_empty() || domain.is_empty() {
            return Err(AddressOfRecordError::Form);
        }
        let mut canonical = String::with_capacity(length);
        canonical.push_str("sip:");
        push_user(&mut canonical, user)?;
        canonical.push('@');
        for &octet in domain {
            if !(octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'[' | b']' | b':')) {
                return Err(AddressOfRecordError::Octet { octet });
            }
            canonical.push(char::from(octet.to_ascii_lowercase()));
        }
        // An escape that was added makes it longer.
        check_length(canonical.len())?;
        Ok(Self(canonical.into()))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user part, escapes kept.
    pub fn user(&self) -> &str {
        self.split().0
    }

    /// The domain in lower case.
    pub fn domain(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        self.0.strip_prefix("sip:").and_then(|rest| rest.rsplit_once('@')).unwrap_or(("", ""))
    }
}

const fn check_length(length: usize) -> Result<(), AddressOfRecordError> {
    let max = limits::ADDRESS_OF_RECORD_BYTES_MAX;
    if length > max { Err(AddressOfRecordError::TooLong { length, max }) } else { Ok(()) }
}

fn strip_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    (scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips")).then_some(rest)
}

/// Unreserved and user-unreserved octets of RFC 3261 section 25.1.
const fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric()
        || matches!(
            octet,
            b'-' | b'_'
                | b'.'
                | b'!'
                | b'~'
                | b'*'
                | b'\''
                | b'('
                | b')'
                | b'&'
                | b'='
                | b'+'
                | b'$'
                | b','
                | b';'
                | b'?'
                | b'/'
        )
}

fn push_user(canonical: &mut String, user: &[u8]) -> Result<(), AddressOfRecordError> {
    let mut octets = user.iter().copied();
    while let Some(octet) = octets.next() {
        if octet == b'%' {
            let high = octets.next().and_then(hex).ok_or(AddressOfRecordError::Octet { octet })?;
            let low = octets.next().and_then(hex).ok_or(AddressOfRecordError::Octet { octet })?;
            let decoded = high << 4 | low;
            if is_plain(decoded) {
                canonical.push(char::from(decoded));
            } else {
                canonical.push_str(&format!("%{decoded:02X}"));
            }
        } else if octet == b'#' {
            canonical.push_str("%23");
        } else if is_plain(octet) {
            canonical.push(char::from(octet));
        } else {
            return Err(AddressOfRecordError::Octet { octet });
        }
    }
    Ok(())
}

const fn hex(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

impl fmt::Display for AddressOfRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AddressOfRecord {
    type Err = AddressOfRecordError;

    fn from_str(text: &str) -> Result<Self, AddressOfRecordError> {
        Self::new(text)
    }
}

impl TryFrom<String> for AddressOfRecord {
    type Error = AddressOfRecordError;

    fn try_from(text: String) -> Result<Self, AddressOfRecordError> {
        Self::new(&text)
    }
}

impl Serialize for AddressOfRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_users_have_one_canonical_form() {
        let plain = AddressOfRecord::new("sip:alice@example.com").unwrap();

        assert_eq!(AddressOfRecord::new("SIPS:%61lice@EXAMPLE.com").unwrap(), plain);
        assert_ne!(AddressOfRecord::new("sip:Alice@example.com").unwrap(), plain);
        assert_eq!(AddressOfRecord::new("sip:a%40b@example.com").unwrap().as_str(), "sip:a%40b@example.com");
        assert_eq!((plain.user(), plain.domain()), ("alice", "example.com"));
    }

    #[test]
    fn a_number_sign_and_its_escape_name_the_same_user() {
        let escaped = AddressOfRecord::new("sip:*21%23@example.com").unwrap();

        assert_eq!(AddressOfRecord::new("sip:*21#@example.com").unwrap(), escaped);
        assert_eq!(escaped.user(), "*21%23");
        assert_eq!(AddressOfRecord::new(escaped.as_str()).unwrap(), escaped);

        let user_max = limits::ADDRESS_OF_RECORD_BYTES_MAX - "sip:@x.y".len();
        let (fits, too_long) = ("#".repeat(user_max / 3), "#".repeat(user_max / 3 + 1));
        assert!(AddressOfRecord::from_parts(fits.as_bytes(), b"x.y").is_ok());
        let length = "sip:@x.y".len() + 3 * too_long.len();
        assert_eq!(
            AddressOfRecord::from_parts(too_long.as_bytes(), b"x.y"),
            Err(AddressOfRecordError::TooLong { length, max: limits::ADDRESS_OF_RECORD_BYTES_MAX })
        );
    }

    #[test]
    fn a_text_that_is_no_address_is_refused() {
        for text in
            ["", "alice", "sip:alice", "tel:+1@x.y", "sip:@x.y", "sip:a@", "sip:a b@x.y", "sip:a%4@x.y"]
        {
            assert!(AddressOfRecord::new(text).is_err(), "{text}");
        }
        assert!(AddressOfRecord::from_parts(&[b'a'; 300], b"x.y").is_err());
    }
}
