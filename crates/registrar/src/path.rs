//! The Path of a registration: the route from us to the phone. Source: RFC 3327 section 5.3.

use model::limits;
use serde::{Deserialize, Serialize};

use crate::{Octets, octets::push_unfolded};

/// Path values in the order of the request, each as a Route value; empty = none. One allocation.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Path(Octets);

impl Path {
    /// Keeps these values; `None` above `limits::PATH_BYTES_MAX` octets in all.
    pub fn new<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut bytes = Vec::new();
        let mut value_bytes = 0;
        for value in values {
            let at = bytes.len();
            bytes.extend_from_slice(&[0, 0]);
            push_unfolded(&mut bytes, value);
            let length = bytes.len() - at - 2;
            value_bytes += length;
            if value_bytes > limits::PATH_BYTES_MAX {
                return None;
            }
            let prefix = u16::try_from(length).ok()?.to_be_bytes();
            bytes.get_mut(at..at + 2)?.copy_from_slice(&prefix);
        }
        Some(Self(bytes.into()))
    }

    /// The values in order, the first is the next hop from us.
    pub fn values(&self) -> impl Iterator<Item = &[u8]> {
        values_of(&self.0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn encoded(&self) -> &[u8] {
        &self.0
    }
}

/// The values of an encoded path.
pub(crate) fn values_of(encoded: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = encoded;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        Some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_order_and_lose_their_folds() {
        let sent: [&[u8]; 2] = [b"<sip:edge.example.com;lr;ob>", b"<sip:b;lr>;a=\"x\r\n y\""];

        let path = Path::new(sent.into_iter()).unwrap();

        let kept: Vec<_> = path.values().collect();
        assert_eq!(kept, [&b"<sip:edge.example.com;lr;ob>"[..], b"<sip:b;lr>;a=\"x y\""]);
        assert!(Path::default().is_empty());
    }

    #[test]
    fn a_path_above_the_limit_is_not_kept() {
        let long = vec![b'x'; limits::PATH_BYTES_MAX];

        assert!(Path::new([&long[..]].into_iter()).is_some());
        assert!(Path::new([&long[..], b"y"].into_iter()).is_none());
    }
}
