//! Names of operations, so that each takes effect once.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sip::{HeaderId, Message};

/// Names one operation among all of a routing group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId(u128);

impl OperationId {
    /// The operation with this number, drawn at random by who starts it.
    pub const fn new(number: u128) -> Self {
        Self(number)
    }

    /// The operation that a REGISTER asks for: a hash over all that makes it this request and no other, but
    /// for Via.
    ///
    /// A copy of a request names the same operation: one that is sent again after the server that knew its
    /// transaction died, or that reaches the group over two servers, is answered with success instead of
    /// failing the CSeq test. A new request has another CSeq and other credentials.
    pub fn of_register(request: Message<'_>) -> Self {
        let mut hash = Sha256::new();
        let mut feed = |part: &[u8]| {
            hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(part);
        };
        for id in [HeaderId::To, HeaderId::From, HeaderId::CallId, HeaderId::CSeq, HeaderId::Expires] {
            feed(request.header(id).unwrap_or_default());
        }
        for id in [HeaderId::Contact, HeaderId::Authorization] {
            for header in request.headers().filter(|header| header.id == id) {
                feed(header.value);
            }
            feed(b"");
        }
        let mut number = [0; 16];
        for (to, from) in number.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Self(u128::from_be_bytes(number))
    }

    /// The number, for wire and logs.
    pub const fn number(self) -> u128 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{REFERENCE, message};

    fn of(text: &str) -> OperationId {
        OperationId::of_register(message(text).view())
    }

    #[test]
    fn a_copy_over_another_way_names_the_same_operation() {
        let via = "Via: SIP/2.0/TLS edge.example.com;branch=z9hG4bKother\r\nVia: ";
        let copy = REFERENCE.replacen("Via: ", via, 1).replace("Max-Forwards: 70", "Max-Forwards: 69");

        assert_eq!(of(&copy), of(REFERENCE));
    }

    #[test]
    fn any_other_request_names_another_operation() {
        let changes = [
            ("1482 REGISTER", "1483 REGISTER"),
            ("reg-id=1", "reg-id=2"),
            ("Call-ID: 9", "Call-ID: 8"),
            ("tag=6f3a1c4e", "tag=6f3a1c4f"),
            ("To: \"Alice Example\" <sip:1000247", "To: \"Alice Example\" <sip:1000248"),
            ("Expires: 600", "Expires: 601"),
            ("Supported:", "Authorization: Digest nc=00000002\r\nSupported:"),
            ("Supported:", "Contact: <sip:b@h>\r\nSupported:"),
        ];
        for (from, to) in changes {
            assert_ne!(of(&REFERENCE.replace(from, to)), of(REFERENCE), "{to}");
        }
    }
}
