//! When two URIs are equivalent (RFC 3261 section 19.1.4, RFC 3966 section 4).

use crate::{Parameters, Scheme, Uri, scan};

/// URI parameters that matter even when only one of the two URIs has them (with transport, by the RFC's own
/// examples).
const ALWAYS_COMPARED: [&[u8]; 5] = [b"user", b"ttl", b"method", b"maddr", b"transport"];

pub(crate) fn is_equivalent(one: &Uri<'_>, other: &Uri<'_>) -> bool {
    match (one.scheme, other.scheme) {
        (Scheme::Sip, Scheme::Sip) | (Scheme::Sips, Scheme::Sips) => are_sip_uris_equivalent(one, other),
        (Scheme::Tel, Scheme::Tel) => are_tel_uris_equivalent(one, other),
        (Scheme::Other, Scheme::Other) => {
            one.scheme_bytes.eq_ignore_ascii_case(other.scheme_bytes) && one.rest == other.rest
        }
        (Scheme::Sip | Scheme::Sips | Scheme::Tel | Scheme::Other, _) => false,
    }
}

fn are_sip_uris_equivalent(one: &Uri<'_>, other: &Uri<'_>) -> bool {
    are_optional_texts_equal(one.user, other.user, Case::Matters)
        && are_optional_texts_equal(one.password, other.password, Case::Matters)
        && are_hosts_equal(one.host, other.host)
        && one.port == other.port
        && ALWAYS_COMPARED.iter().all(|name| one.parameters.has(name) == other.parameters.has(name))
        && do_common_parameters_agree(one.parameters, other.parameters)
        && has_headers_of(one, other)
        && has_headers_of(other, one)
}

fn are_hosts_equal(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
        || scan::host_address(one).is_some_and(|address| Some(address) == scan::host_address(other))
}

fn do_common_parameters_agree(one: Parameters<'_>, other: Parameters<'_>) -> bool {
    one.iter().all(|parameter| {
        let found =
            other.iter().find(|candidate| are_texts_equal(parameter.name, candidate.name, Case::Ignored));
        found.is_none_or(|found| are_optional_texts_equal(parameter.value, found.value, Case::Ignored))
    })
}

/// Whether each header of `one` is in `other` too, with the same value.
fn has_headers_of(other: &Uri<'_>, one: &Uri<'_>) -> bool {
    headers(one).all(|(name, value)| {
        headers(other).any(|(other_name, other_value)| {
            are_texts_equal(name, other_name, Case::Ignored)
                && are_texts_equal(value, other_value, Case::Matters)
        })
    })
}

fn headers<'a>(uri: &Uri<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
    let parts = uri.headers.unwrap_or_default().split(|&octet| octet == b'&').filter(|part| !part.is_empty());
    parts.map(|part| {
        let (name, value) = scan::cut(part, memchr::memchr(b'=', part).unwrap_or(part.len()));
        (name, value.get(1..).unwrap_or_default())
    })
}

/// The numbers are equal without visual separators, and so are all parameters in any order.
fn are_tel_uris_equivalent(one: &Uri<'_>, other: &Uri<'_>) -> bool {
    let has_all = |from: Parameters<'_>, of: Parameters<'_>| {
        of.iter().all(|parameter| {
            from.get(parameter.name)
                .is_some_and(|value| are_optional_texts_equal(value, parameter.value, Case::Ignored))
        })
    };
    let digits = |uri: &Uri<'_>, other: &Uri<'_>| {
        let significant = |octet: &&u8| !b"-.()".contains(*octet);
        let one = uri.user.unwrap_or_default().iter().filter(significant).map(u8::to_ascii_lowercase);
        one.eq(other.user.unwrap_or_default().iter().filter(significant).map(u8::to_ascii_lowercase))
    };
    digits(one, other)
        && has_all(one.parameters, other.parameters)
        && has_all(other.parameters, one.parameters)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Matters,
    Ignored,
}

fn are_optional_texts_equal(one: Option<&[u8]>, other: Option<&[u8]>, case: Case) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => are_texts_equal(one, other, case),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn are_texts_equal(one: &[u8], other: &[u8], case: Case) -> bool {
    one == other || Decoded { bytes: one, case }.eq(Decoded { bytes: other, case })
}

/// The octets of a text with escapes undone; an escaped reserved character stays apart from the plain one.
struct Decoded<'a> {
    bytes: &'a [u8],
    case: Case,
}

impl Iterator for Decoded<'_> {
    /// The octet, and whether it is a reserved one that was escaped.
    type Item = (u8, bool);

    fn next(&mut self) -> Option<(u8, bool)> {
        let (&first, rest) = self.bytes.split_first()?;
        let escaped = if first == b'%' { rest.split_first_chunk::<2>().and_then(decode) } else { None };
        let (octet, is_escaped, rest) =
            escaped.map_or((first, false, rest), |(octet, rest)| (octet, true, rest));
        self.bytes = rest;
        let is_reserved = is_escaped && b";/?:@&=+$,".contains(&octet);
        Some((if self.case == Case::Ignored { octet.to_ascii_lowercase() } else { octet }, is_reserved))
    }
}

fn decode<'a>((digits, rest): (&[u8; 2], &'a [u8])) -> Option<(u8, &'a [u8])> {
    let [high, low] = *digits;
    let value = char::from(high).to_digit(16)? * 16 + char::from(low).to_digit(16)?;
    u8::try_from(value).ok().map(|octet| (octet, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equivalent(one: &str, other: &str) -> bool {
        let (one, other) = (Uri::parse(one.as_bytes()).unwrap(), Uri::parse(other.as_bytes()).unwrap());
        let result = one.is_equivalent(&other);
        assert_eq!(other.is_equivalent(&one), result, "the comparison has no direction");
        result
    }

    #[test]
    fn the_examples_of_the_rfc_are_equivalent() {
        for (one, other) in [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
            ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
            (
                "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
                "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            ),
            (
                "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
                "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
            ),
            ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]"),
            ("tel:+1-201-555-0123", "tel:+1(201)5550123"),
            ("x:Y", "X:Y"),
        ] {
            assert!(equivalent(one, other), "{one} {other}");
        }
    }

    #[test]
    fn the_counterexamples_of_the_rfc_are_not() {
        for (one, other) in [
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
            ("sip:a@b;maddr=192.0.2.1", "sip:a@b"),
            ("sip:a@b", "sips:a@b"),
            ("sip:a@b", "sip:b"),
            ("sip:a%3Bb@c", "sip:a;b@c"),
            ("sip:a:p@b", "sip:a@b"),
            ("tel:+1201", "tel:1201"),
            ("tel:1;phone-context=+1", "tel:1"),
            ("x:Y", "x:y"),
        ] {
            assert!(!equivalent(one, other), "{one} {other}");
        }
    }
}
