//! The CSeq header.

use crate::{
    Method,
    scan::{self, TOKEN},
};

/// CSeq: the sequence number and method of a request (RFC 3261 section 20.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// The number, 0 to 2^32 - 1. (A sender keeps it below 2^31; more is accepted as sent.)
    pub number: u32,
    /// The method.
    pub method: Method,
    /// The method as written.
    pub method_bytes: &'a [u8],
}

impl<'a> CSeq<'a> {
    /// Reads `number LWS method`; `None` when malformed.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = scan::trim(value);
        let digits = value.iter().take_while(|octet| octet.is_ascii_digit()).count();
        let (number, rest) = scan::cut(value, digits);
        let method_bytes = scan::trim_start(rest);
        if method_bytes.len() == rest.len() || !scan::all(method_bytes, TOKEN) {
            return None;
        }
        Some(Self { number: scan::number(number)?, method: Method::from_bytes(method_bytes), method_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_number_and_method_are_read() {
        let cseq = CSeq::parse(b"0009\r\n  INVITE").unwrap();
        assert_eq!((cseq.number, cseq.method, cseq.method_bytes), (9, Method::Invite, &b"INVITE"[..]));

        let other = CSeq::parse(b"4294967295 RE%47IST%45R").unwrap();
        assert_eq!((other.number, other.method), (u32::MAX, Method::Other));
    }

    #[test]
    fn a_malformed_sequence_number_is_refused() {
        for bad in [
            &b""[..],
            b"1",
            b"INVITE",
            b"1INVITE",
            b"-1 INVITE",
            b"4294967296 INVITE",
            b"1 IN VITE",
            b"1 \"x\"",
        ] {
            assert_eq!(CSeq::parse(bad), None, "{bad:?}");
        }
    }
}
