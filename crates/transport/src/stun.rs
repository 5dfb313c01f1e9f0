//! STUN on the UDP ports of SIP: a Binding request is answered with the address it came from, so that a phone
//! behind a NAT keeps its flow open and notices when it changed. Nothing else of STUN is served.
//!
//! Stateless and without allocation. An answer is at most 24 octets longer than its request, of no use to
//! amplify anything; therefore no SOFTWARE attribute, and a short reason phrase.
//!
//! Source: RFC 5626 section 8; RFC 8489 sections 5, 6.3, 14; RFC 7983 for the first octet.

use std::net::{IpAddr, SocketAddr};

/// What a STUN message begins with at most; no SIP message begins so.
pub(crate) const FIRST_OCTET_MAX: u8 = 3;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_INDICATION: u16 = 0x0011;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
const MAGIC_COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();

const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const FINGERPRINT: u16 = 0x8028;
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// Where the attributes begin that may be ignored when they are not known.
const OPTIONAL_FROM: u16 = 0x8000;

const HEADER_BYTES: usize = 20;
const FINGERPRINT_BYTES: usize = 8;
/// Attributes that an UNKNOWN-ATTRIBUTES names; the others are left out.
const UNKNOWN_MAX: usize = 16;
/// 420 with [`UNKNOWN_MAX`] attributes and a FINGERPRINT.
const ANSWER_BYTES_MAX: usize = HEADER_BYTES + 16 + 4 + 2 * UNKNOWN_MAX + FINGERPRINT_BYTES;

/// What to do about a datagram that begins like STUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send this back.
    Answer(Answer),
    /// A Binding indication: it has kept a NAT open, that is all.
    KeepAlive,
    /// Neither a request nor an indication that obeys the rules.
    Drop,
}

/// A STUN response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    bytes: [u8; ANSWER_BYTES_MAX],
    length: usize,
}

/// Decides about a datagram that came from `from`.
pub(crate) fn receive(datagram: &[u8], from: SocketAddr) -> Verdict {
    let Some(message) = Message::read(datagram) else { return Verdict::Drop };
    match (message.kind, message.unknown()) {
        (BINDING_INDICATION, []) => Verdict::KeepAlive,
        (BINDING_REQUEST, []) => Verdict::Answer(success(&message, from)),
        (BINDING_REQUEST, unknown) => Verdict::Answer(unknown_attributes(&message, unknown)),
        _ => Verdict::Drop,
    }
}

/// What an answer depends on.
struct Message<'a> {
    kind: u16,
    transaction: &'a [u8],
    has_fingerprint: bool,
    /// Comprehension-required attributes that we do not know, as far as there is room.
    unknown: [u16; UNKNOWN_MAX],
    unknown_count: usize,
}

impl<'a> Message<'a> {
    /// Reads a whole datagram; `None` when it breaks a rule of RFC 8489 section 5 or has a wrong FINGERPRINT.
    fn read(datagram: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = datagram.split_first_chunk::<2>()?;
        let (&length, rest) = rest.split_first_chunk::<2>()?;
        let (&cookie, rest) = rest.split_first_chunk::<4>()?;
        let (transaction, mut attributes) = rest.split_at_checked(12)?;
        if cookie != MAGIC_COOKIE || usize::from(u16::from_be_bytes(length)) != attributes.len() {
            return None;
        }
        let kind = u16::from_be_bytes(kind);
        let (has_fingerprint, unknown, unknown_count) = (false, [0; UNKNOWN_MAX], 0);
        let mut message = Self { kind, transaction, has_fingerprint, unknown, unknown_count };
        let mut has_integrity = false;
        while !attributes.is_empty() {
            let before = datagram.len() - attributes.len();
            let (&attribute, rest) = attributes.split_first_chunk::<2>()?;
            let (&length, rest) = rest.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_be_bytes(length));
            let value = rest.get(..length)?;
            attributes = rest.get(length.next_multiple_of(4)..)?;
            match u16::from_be_bytes(attribute) {
                FINGERPRINT => {
                    // The last one, or it does not cover what follows it.
                    let covered = datagram.get(..before)?;
                    if !attributes.is_empty() || value != fingerprint(covered) {
                        return None;
                    }
                    message.has_fingerprint = true;
                }
                MESSAGE_INTEGRITY | MESSAGE_INTEGRITY_SHA256 => has_integrity = true,
                // What follows an integrity attribute is ignored (sections 14.5 and 14.6).
                other if !has_integrity && other < OPTIONAL_FROM && !is_known(other) => message.note(other),
                _ignored => {}
            }
        }
        Some(message)
    }

    fn note(&mut self, attribute: u16) {
        if let Some(place) = self.unknown.get_mut(self.unknown_count) {
            *place = attribute;
            self.unknown_count += 1;
        }
    }

    fn unknown(&self) -> &[u16] {
        self.unknown.get(..self.unknown_count).unwrap_or_default()
    }
}

/// The comprehension-required attributes of RFC 8489. None of them is expected here, so all are ignored
/// (section 6.3): this usage has no authentication.
const fn is_known(attribute: u16) -> bool {
    matches!(attribute, 0x0001 | 0x0006 | 0x0008..=0x000a | 0x0014 | 0x0015 | 0x001c..=0x001e | 0x0020)
}

/// The Binding success response: where the request came from, as we see it (section 14.2).
fn success(request: &Message<'_>, from: SocketAddr) -> Answer {
    let mut answer = Answer::new(BINDING_SUCCESS, request);
    let mask = || MAGIC_COOKIE.iter().chain(request.transaction);
    let port = from.port().to_be_bytes();
    let attribute = |family: u8, length: u16| {
        let [kind, length] = [XOR_MAPPED_ADDRESS, length].map(u16::to_be_bytes);
        [kind, length, [0, family]]
    };
    match from.ip() {
        IpAddr::V4(ip) => {
            answer.push(attribute(1, 8).as_flattened());
            answer.push_masked(&port, mask());
            answer.push_masked(&ip.octets(), mask());
        }
        IpAddr::V6(ip) => {
            answer.push(attribute(2, 20).as_flattened());
            answer.push_masked(&port, mask());
            answer.push_masked(&ip.octets(), mask());
        }
    }
    answer.finish(request)
}

/// The Binding error response 420 (sections 6.3.1, 14.8, 14.13).
fn unknown_attributes(request: &Message<'_>, unknown: &[u16]) -> Answer {
    let mut answer = Answer::new(BINDING_ERROR, request);
    answer.push(&ERROR_CODE.to_be_bytes());
    answer.push(&[0, 4 + 7, 0, 0, 4, 20]);
    answer.push(b"Unknown\0");
    answer.push(&UNKNOWN_ATTRIBUTES.to_be_bytes());
    answer.push(&u16::try_from(2 * unknown.len()).unwrap_or(0).to_be_bytes());
    for attribute in unknown {
        answer.push(&attribute.to_be_bytes());
    }
    if unknown.len() % 2 == 1 {
        answer.push(&[0, 0]);
    }
    answer.finish(request)
}

/// Section 14.7: `covered` is the message before the attribute, its length field counting the attribute in.
fn fingerprint(covered: &[u8]) -> [u8; 4] {
    (crc32fast::hash(covered) ^ FINGERPRINT_XOR).to_be_bytes()
}

impl Answer {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn new(kind: u16, request: &Message<'_>) -> Self {
        let mut answer = Self { bytes: [0; ANSWER_BYTES_MAX], length: 0 };
        answer.push(&kind.to_be_bytes());
        answer.push(&[0, 0]);
        answer.push(&MAGIC_COOKIE);
        answer.push(request.transaction);
        answer
    }

    fn push(&mut self, value: &[u8]) {
        let end = self.length + value.len();
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(value);
            self.length = end;
        }
    }

    fn push_masked<'a>(&mut self, value: &[u8], mask: impl Iterator<Item = &'a u8>) {
        for (octet, mask) in value.iter().zip(mask) {
            self.push(&[octet ^ mask]);
        }
    }

    /// Sets the length, and adds a FINGERPRINT when the request has one.
    fn finish(mut self, request: &Message<'_>) -> Self {
        let added = if request.has_fingerprint { FINGERPRINT_BYTES } else { 0 };
        let length = u16::try_from(self.length - HEADER_BYTES + added).unwrap_or(0).to_be_bytes();
        if let Some(place) = self.bytes.get_mut(2..4) {
            place.copy_from_slice(&length);
        }
        if request.has_fingerprint {
            let value = fingerprint(self.bytes());
            self.push(&FINGERPRINT.to_be_bytes());
            self.push(&[0, 4]);
            self.push(&value);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 section 2.1: a request with SOFTWARE, PRIORITY, ICE-CONTROLLED, USERNAME, MESSAGE-INTEGRITY
    /// and FINGERPRINT. PRIORITY (0x0024) is of ICE, and not known here.
    const SAMPLE: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74\
        002400046e0001ff80290008932ff9b151263b36000600096576746a3a683676592020200008001\
        49aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";
    const FROM: &str = "192.0.2.1:32853";

    fn octets(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(octet).collect()
    }

    /// A message of `kind` with `attributes`; the transaction of RFC 5769.
    fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(attributes.len()).unwrap();
        let head = [kind.to_be_bytes(), length.to_be_bytes()];
        let transaction = octets("b7e7a701bc34d686fa87dfae");
        [head.as_flattened(), &MAGIC_COOKIE, &transaction, attributes].concat()
    }

    fn with_fingerprint(mut message: Vec<u8>) -> Vec<u8> {
        message[3] += 8;
        let value = fingerprint(&message);
        message.extend_from_slice(&[0x80, 0x28, 0, 4]);
        message.extend_from_slice(&value);
        message
    }

    fn answered(datagram: &[u8], from: &str) -> Vec<u8> {
        let verdict = receive(datagram, from.parse().unwrap());
        let Verdict::Answer(answer) = verdict else { panic!("{verdict:?}") };
        answer.bytes().to_vec()
    }

    #[test]
    fn a_binding_request_is_answered_with_the_ipv4_address_it_came_from() {
        let answer = answered(&message(BINDING_REQUEST, &[]), FROM);

        // The value of XOR-MAPPED-ADDRESS is that of RFC 5769 section 2.2.
        let expected = octets("0101000c2112a442b7e7a701bc34d686fa87dfae002000080001a147e112a643");
        assert_eq!(answer, expected);
    }

    #[test]
    fn a_binding_request_is_answered_with_the_ipv6_address_it_came_from() {
        let request = message(BINDING_REQUEST, &[]);
        let answer = answered(&request, "[2001:db8:1234:5678:11:2233:4455:6677]:32853");

        // The value of XOR-MAPPED-ADDRESS is that of RFC 5769 section 2.3.
        let head = "010100182112a442b7e7a701bc34d686fa87dfae00200014";
        let expected = octets(&format!("{head}0002a1470113a9faa5d3f179bc25f4b5bed2b9d9"));
        assert_eq!(answer, expected);
    }

    #[test]
    fn a_fingerprint_is_checked_and_answered_with_one() {
        let request = with_fingerprint(message(BINDING_REQUEST, &[]));
        let answer = answered(&request, FROM);

        assert_eq!(answer.len(), 40);
        let (covered, attribute) = answer.split_at(32);
        assert_eq!(attribute[..4], [0x80, 0x28, 0, 4]);
        assert_eq!(attribute[4..], fingerprint(covered));
        // Without the kind of the attribute: another kind is no FINGERPRINT.
        for at in (4..20).chain(22..request.len()) {
            let mut damaged = request.clone();
            damaged[at] ^= 1;
            assert_eq!(receive(&damaged, FROM.parse().unwrap()), Verdict::Drop, "octet {at}");
        }
        let not_last = [0x80, 0x28, 0, 4, 0, 0, 0, 0, 0x80, 0x22, 0, 0];
        assert_eq!(receive(&message(BINDING_REQUEST, &not_last), FROM.parse().unwrap()), Verdict::Drop);
    }

    #[test]
    fn the_sample_request_of_rfc_5769_is_read_to_its_end() {
        let sample = octets(SAMPLE);
        let read = Message::read(&sample).unwrap();

        assert!(read.has_fingerprint);
        assert_eq!(read.unknown(), [0x0024]);
    }

    #[test]
    fn unknown_attributes_that_must_be_understood_are_named_in_a_420() {
        let attributes = octets("00030004000000007f000003aabbcc00802200020000000000140000");
        let answer = answered(&message(BINDING_REQUEST, &attributes), FROM);

        let head = "011100182112a442b7e7a701bc34d686fa87dfae";
        let expected = format!("{head}0009000b00000414556e6b6e6f776e00000a000400037f00");
        assert_eq!(answer, octets(&expected));
        let odd = answered(&message(BINDING_REQUEST, &octets("00030000")), FROM);
        assert_eq!(odd[36..], octets("000a000200030000"));
        let hidden = octets("0008000400000000 00030000");
        assert_eq!(answered(&message(BINDING_REQUEST, &hidden), FROM)[..2], [1, 1]);
    }

    #[test]
    fn an_answer_is_bounded_and_hardly_longer_than_its_request() {
        for count in 0..300_u16 {
            let attributes: Vec<u8> = (0..count).flat_map(|_| octets("7f000000")).collect();
            for from in [FROM, "[2001:db8::1]:1"] {
                let plain = message(BINDING_REQUEST, &attributes);
                let request = if count < 50 { with_fingerprint(plain) } else { plain };
                let answer = answered(&request, from);
                assert!(answer.len() <= request.len() + 24 && answer.len() <= ANSWER_BYTES_MAX, "{count}");
                assert_eq!(answer.len() - HEADER_BYTES, usize::from(answer[3]));
            }
        }
    }

    #[test]
    fn what_is_not_a_whole_binding_request_gets_no_answer() {
        let from = FROM.parse().unwrap();
        let request = message(BINDING_REQUEST, &octets("8022000454657374"));
        assert!(matches!(receive(&request, from), Verdict::Answer(_)));
        for length in 0..request.len() {
            assert_eq!(receive(&request[..length], from), Verdict::Drop, "{length}");
        }
        let longer = [request.as_slice(), &[0]].concat();
        assert_eq!(receive(&longer, from), Verdict::Drop);
        let beyond = message(BINDING_REQUEST, &octets("8022000854657374"));
        assert_eq!(receive(&beyond, from), Verdict::Drop);
        let without_padding = message(BINDING_REQUEST, &octets("80220003546573"));
        assert_eq!(receive(&without_padding, from), Verdict::Drop);
        // The old form of RFC 3489 has no cookie; RFC 5626 section 8 does not want it.
        let mut old = message(BINDING_REQUEST, &[]);
        old[4] = 0;
        assert_eq!(receive(&old, from), Verdict::Drop);
        for kind in [BINDING_SUCCESS, BINDING_ERROR, 0x0003, 0x0000, 0x0201, 0x4001] {
            assert_eq!(receive(&message(kind, &[]), from), Verdict::Drop, "{kind:#06x}");
        }
    }

    #[test]
    fn an_indication_is_a_keep_alive_and_never_answered() {
        let from = FROM.parse().unwrap();

        assert_eq!(receive(&message(BINDING_INDICATION, &[]), from), Verdict::KeepAlive);
        assert_eq!(receive(&message(BINDING_INDICATION, &octets("7f000000")), from), Verdict::Drop);
    }
}
