//! Names of operations, so that each takes effect once.

use std::{fmt, hash::Hasher};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use sip::{HeaderId, Message};
use siphasher::sip128::{Hasher128, SipHasher13};

/// Keeps this use of the shared secret apart from others, and rises with what is hashed.
const DOMAIN: &[u8] = b"tandem operation 1";

/// Names one operation among all of a routing group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId(u128);

/// The key under which REGISTERs become operation ids, the same on every server of a deployment.
#[derive(Clone)]
pub struct OperationKey(SipHasher13);

impl OperationKey {
    /// Derives the key from a secret that all servers have; it tells nothing about the secret.
    pub fn derived_from(secret: &[u8; 32]) -> Self {
        let mac = Hmac::<Sha256>::new_from_slice(secret);
        let mut mac = mac.expect("invariant: HMAC takes keys of any length");
        mac.update(DOMAIN);
        let mut key = [0; 16];
        for (to, from) in key.iter_mut().zip(mac.finalize().into_bytes()) {
            *to = from;
        }
        Self(SipHasher13::new_with_key(&key))
    }
}

impl fmt::Debug for OperationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperationKey(***)")
    }
}

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
    ///
    /// The hash is SipHash of 128 bits under a secret key, each part with its length before it: who does not
    /// have the key can neither compute the id of a request nor make two requests that share one, and by
    /// chance two of the 4,096 that a group remembers share one in less than one of 2^100 groups.
    pub fn of_register(request: Message<'_>, key: &OperationKey) -> Self {
        let mut hash = key.0;
        let mut feed = |part: &[u8]| {
            hash.write_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
            hash.write(part);
        };
        for id in [HeaderId::To, HeaderId::From, HeaderId::CallId, HeaderId::CSeq, HeaderId::Expires] {
            feed(request.header(id).unwrap_or_default());
        }
        for id in [HeaderId::Contact, HeaderId::Authorization] {
            request.header_lines(id).for_each(&mut feed);
            feed(b"");
        }
        Self(hash.finish128().as_u128())
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
        OperationId::of_register(message(text).view(), &OperationKey::derived_from(&[7; 32]))
    }

    #[test]
    fn every_server_with_the_secret_names_an_operation_alike_and_nobody_else() {
        let request = message(REFERENCE);
        let of =
            |secret: u8| OperationId::of_register(request.view(), &OperationKey::derived_from(&[secret; 32]));

        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
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
