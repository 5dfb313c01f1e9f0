//! Answers to the STUN keep-alives that phones send on their SIP flow over UDP.
//!
//! Without an answer a phone takes the flow for dead and registers anew, with a gap in between.
//! Source: RFC 5626 sections 3.5.2 and 8; RFC 8489 sections 5, 6.3.1 and 14.

use std::net::{IpAddr, SocketAddr};

const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const BINDING_ERROR: [u8; 2] = [0x01, 0x11];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Octets before the attributes.
const HEADER_BYTES: usize = 20;
const ERROR_CODE: [u8; 2] = [0x00, 0x09];
const UNKNOWN_ATTRIBUTES: [u8; 2] = [0x00, 0x0a];
const XOR_MAPPED_ADDRESS: [u8; 2] = [0x00, 0x20];
/// Attributes of requests with credentials, which nobody needs here: USERNAME and MESSAGE-INTEGRITY.
const IGNORED: [u16; 2] = [0x0006, 0x0008];
/// From here on a receiver may skip attributes that it does not know.
const OPTIONAL_FROM: u16 = 0x8000;
/// Unknown attributes listed in an answer.
const UNKNOWN_MAX: usize = 8;

/// Answers a Binding request from `source`; `None` when the datagram is none.
///
/// The answer is at most 28 octets longer than the request: of no use to amplify anything.
pub fn answer(datagram: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    let rest = datagram.strip_prefix(&BINDING_REQUEST)?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let transaction = rest.strip_prefix(&MAGIC_COOKIE)?.first_chunk::<12>()?;
    let attributes = datagram.get(HEADER_BYTES..)?;
    if attributes.len() != usize::from(u16::from_be_bytes(*length)) {
        return None;
    }
    let unknown = unknown_attributes(attributes)?;
    if unknown.is_empty() {
        let address = xor_mapped_address(source, transaction);
        return Some(message(BINDING_SUCCESS, transaction, &[(XOR_MAPPED_ADDRESS, &address)]));
    }
    let listed: Vec<u8> = unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
    let error = [0, 0, 4, 20];
    Some(message(BINDING_ERROR, transaction, &[(ERROR_CODE, &error), (UNKNOWN_ATTRIBUTES, &listed)]))
}

/// The attributes that would have to be understood, and are not; `None` when they cannot be read.
fn unknown_attributes(mut rest: &[u8]) -> Option<Vec<u16>> {
    let mut unknown = Vec::new();
    while !rest.is_empty() {
        let (kind, after) = rest.split_first_chunk::<2>()?;
        let (length, after) = after.split_first_chunk::<2>()?;
        let padded = usize::from(u16::from_be_bytes(*length)).next_multiple_of(4);
        rest = after.get(padded..)?;
        let kind = u16::from_be_bytes(*kind);
        if kind < OPTIONAL_FROM && !IGNORED.contains(&kind) && unknown.len() < UNKNOWN_MAX {
            unknown.push(kind);
        }
    }
    Some(unknown)
}

fn xor_mapped_address(source: SocketAddr, transaction: &[u8; 12]) -> Vec<u8> {
    let mask = || MAGIC_COOKIE.iter().chain(transaction);
    let masked =
        |octets: &[u8]| -> Vec<u8> { octets.iter().zip(mask()).map(|(octet, mask)| octet ^ mask).collect() };
    let (family, address) = match source.ip() {
        IpAddr::V4(ip) => (1, masked(&ip.octets())),
        IpAddr::V6(ip) => (2, masked(&ip.octets())),
    };
    let mut value = vec![0, family];
    value.extend(masked(&source.port().to_be_bytes()));
    value.extend(address);
    value
}

fn message(kind: [u8; 2], transaction: &[u8; 12], attributes: &[([u8; 2], &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        body.extend_from_slice(kind);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend_from_slice(&kind);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&MAGIC_COOKIE);
    message.extend_from_slice(transaction);
    message.extend(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of RFC 5769 sections 2.2 and 2.3.
    const TRANSACTION: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    fn request(attributes: &[([u8; 2], &[u8])]) -> Vec<u8> {
        message(BINDING_REQUEST, &TRANSACTION, attributes)
    }

    #[test]
    fn a_keep_alive_learns_the_address_it_came_from() {
        let keep_alive = request(&[([0x80, 0x22], b"libre")]);

        let answered = answer(&keep_alive, "192.0.2.1:32853".parse().unwrap()).unwrap();

        assert_eq!(answered[..4], [0x01, 0x01, 0x00, 0x0c]);
        assert_eq!(answered[4..20], keep_alive[4..20]);
        assert_eq!(answered[20..], [0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
    }

    #[test]
    fn an_ipv6_address_is_masked_with_the_transaction_too() {
        let source = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();

        let answered = answer(&request(&[]), source).unwrap();

        let masked =
            [1, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9];
        assert_eq!(answered[24..28], [0, 2, 0xa1, 0x47]);
        assert_eq!(answered[28..], masked);
    }

    #[test]
    fn an_attribute_that_must_be_understood_is_refused_by_name() {
        let change = request(&[([0x00, 0x03], &[0, 0, 0, 6])]);

        let answered = answer(&change, "192.0.2.1:1".parse().unwrap()).unwrap();

        assert_eq!(answered[..4], [0x01, 0x11, 0x00, 0x10]);
        assert_eq!(answered[20..], [0, 9, 0, 4, 0, 0, 4, 20, 0, 10, 0, 2, 0, 3, 0, 0]);
    }

    #[test]
    fn nothing_else_is_answered() {
        let source = "192.0.2.1:1".parse().unwrap();
        let whole = request(&[([0x80, 0x22], b"libre")]);

        assert_eq!(answer(b"REGISTER sip:example.com SIP/2.0\r\n", source), None);
        assert_eq!(answer(&message(BINDING_SUCCESS, &TRANSACTION, &[]), source), None);
        for end in 0..whole.len() {
            assert_eq!(answer(&whole[..end], source), None, "{end} octets");
        }
    }
}
