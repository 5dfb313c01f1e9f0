//! Which requests are calls for help.

use sip::{Scheme, Uri};

/// The numbers that users of a pool dial in an emergency.
#[derive(Clone, Debug, Default)]
pub struct EmergencyNumbers(Vec<Box<[u8]>>);

impl EmergencyNumbers {
    /// These numbers, as the topology has them.
    pub fn new<'a>(numbers: impl IntoIterator<Item = &'a str>) -> Self {
        Self(numbers.into_iter().map(|number| number.as_bytes().into()).collect())
    }

    /// Whether a URI stands for emergency services: `urn:service:sos` with or without a sub-service (RFC
    /// 5031), or a number of the list in a `sip`, `sips` or `tel` URI, whatever its host.
    pub fn contain(&self, uri: &Uri<'_>) -> bool {
        match uri.scheme {
            Scheme::Sip | Scheme::Sips | Scheme::Tel => {
                uri.user.is_some_and(|user| self.0.iter().any(|number| **number == *dialled(user)))
            }
            Scheme::Other => is_sos(uri),
        }
    }
}

/// The number in a user part without its parameters (RFC 3261 section 19.1.6).
fn dialled(user: &[u8]) -> &[u8] {
    user.split(|&octet| octet == b';').next().unwrap_or_default()
}

fn is_sos(uri: &Uri<'_>) -> bool {
    const SOS: &[u8] = b"service:sos";
    let (start, rest) = uri.rest.split_at_checked(SOS.len()).unwrap_or_default();
    uri.scheme_bytes.eq_ignore_ascii_case(b"urn")
        && start.eq_ignore_ascii_case(SOS)
        && matches!(rest.first(), None | Some(b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_emergency(uri: &str) -> bool {
        EmergencyNumbers::new(["112", "*55"]).contain(&Uri::parse(uri.as_bytes()).unwrap())
    }

    #[test]
    fn numbers_of_the_list_and_the_urn_of_sos_are_emergencies() {
        for uri in [
            "sip:112@example.com",
            "sips:112@192.0.2.1:5061;user=phone",
            "sip:112;phone-context=+49@example.com",
            "tel:112",
            "sip:*55@example.com",
            "urn:service:sos",
            "URN:service:SOS.fire",
        ] {
            assert!(is_emergency(uri), "{uri}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for uri in [
            "sip:1123@example.com",
            "sip:112.example.com",
            "tel:+112",
            "urn:service:sosx",
            "urn:service:counseling",
            "mailto:112@example.com",
        ] {
            assert!(!is_emergency(uri), "{uri}");
        }
    }
}
