//! Octet classes and the small scanners that every reader shares.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `token` of RFC 3261 section 25.1.
pub(crate) const TOKEN: u8 = 1;
/// SP, HT, and the CR and LF of a folded line.
pub(crate) const LWS: u8 = 2;
/// Octets of a host name or an IPv4 address; `_` is tolerated because it is in use.
pub(crate) const HOST: u8 = 4;
/// The user part of a SIP URI; `#` is tolerated because phones send it unescaped.
pub(crate) const USER: u8 = 8;
/// An unquoted header parameter value: wider than the grammar, since values with `/`, `@` or `=` are in use.
pub(crate) const VALUE: u8 = 16;
/// `paramchar` of a SIP URI.
pub(crate) const URI_PARAMETER: u8 = 32;
/// Name, `=`, value and `&` of the headers of a SIP URI; also the value of a parameter, where `=` is in use.
pub(crate) const URI_HEADER: u8 = 64;
/// What may stand in a URI of an unknown scheme: printable ASCII but for `<`, `>` and `"`.
pub(crate) const URI: u8 = 128;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0_u8; 256];
    let mut octet = 0_u8;
    loop {
        let mut class = 0;
        let unreserved = octet.is_ascii_alphanumeric()
            || matches!(octet, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')');
        if octet.is_ascii_alphanumeric()
            || matches!(octet, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
        {
            class |= TOKEN;
        }
        if matches!(octet, b' ' | b'\t' | b'\r' | b'\n') {
            class |= LWS;
        }
        if octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_') {
            class |= HOST;
        }
        if unreserved || matches!(octet, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/' | b'%' | b'#')
        {
            class |= USER;
        }
        if octet > b' ' && octet != 0x7f && !matches!(octet, b'"' | b';' | b',' | b'<' | b'>') {
            class |= VALUE;
        }
        if unreserved || matches!(octet, b'[' | b']' | b'/' | b':' | b'&' | b'+' | b'$' | b'%') {
            class |= URI_PARAMETER;
        }
        if unreserved || matches!(octet, b'[' | b']' | b'/' | b'?' | b':' | b'+' | b'$' | b'%' | b'=' | b'&')
        {
            class |= URI_HEADER;
        }
        if octet > b' ' && octet < 0x7f && !matches!(octet, b'<' | b'>' | b'"') {
            class |= URI;
        }
        // The index is an octet and the table has 256 places.
        #[allow(clippy::indexing_slicing)]
        {
            table[octet as usize] = class;
        }
        if octet == u8::MAX {
            return table;
        }
        octet += 1;
    }
}

/// Whether `octet` is in one of the classes.
#[inline]
pub(crate) fn is(octet: u8, class: u8) -> bool {
    CLASSES.get(usize::from(octet)).is_some_and(|&found| found & class != 0)
}

/// Whether there is at least one octet and all are in one of the classes.
#[inline]
pub(crate) fn all(bytes: &[u8], class: u8) -> bool {
    !bytes.is_empty() && run(bytes, class) == bytes.len()
}

/// How many octets at the start are in one of the classes.
#[inline]
pub(crate) fn run(bytes: &[u8], class: u8) -> usize {
    let mut octets = bytes.iter();
    while let Some(&octet) = octets.next() {
        if !is(octet, class) {
            return bytes.len() - octets.len() - 1;
        }
    }
    bytes.len()
}

/// Splits after the first `length` octets; the second part is empty when there are fewer.
#[inline]
pub(crate) fn cut(bytes: &[u8], length: usize) -> (&[u8], &[u8]) {
    bytes.split_at_checked(length).unwrap_or((bytes, &[]))
}

/// Without linear white space at the start.
#[inline]
pub(crate) fn trim_start(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let Some((&(b' ' | b'\t' | b'\r' | b'\n'), after)) = rest.split_first() {
        rest = after;
    }
    rest
}

/// Without linear white space at both ends.
#[inline]
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let mut rest = trim_start(bytes);
    while let Some((&(b' ' | b'\t' | b'\r' | b'\n'), before)) = rest.split_last() {
        rest = before;
    }
    rest
}

/// Octets of the quoted string at the start, both quotes included; `None` when it does not start with a quote
/// or never ends.
pub(crate) fn quoted_length(bytes: &[u8]) -> Option<usize> {
    if bytes.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        let found = at + memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes.get(found) == Some(&b'"') {
            return Some(found + 1);
        }
        at = found + 2;
    }
}

/// A decimal number of digits only; `None` when empty, not digits or above `u32::MAX`.
#[inline]
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    let (&first, rest) = bytes.split_first()?;
    let mut value = digit(first)?;
    for &octet in rest {
        value = value.checked_mul(10)?.checked_add(digit(octet)?)?;
    }
    Some(value)
}

#[inline]
fn digit(octet: u8) -> Option<u32> {
    let value = octet.wrapping_sub(b'0');
    (value < 10).then(|| u32::from(value))
}

/// A port: digits only, at most 65,535.
#[inline]
pub(crate) fn port(bytes: &[u8]) -> Option<u16> {
    number(bytes).and_then(|value| u16::try_from(value).ok())
}

/// Takes a host (name, IPv4 address, or IPv6 reference in brackets) from the start.
#[inline]
pub(crate) fn take_host(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if bytes.first() == Some(&b'[') {
        let close = memchr::memchr(b']', bytes)?;
        let (host, rest) = cut(bytes, close + 1);
        host_address(host)?;
        return Some((host, rest));
    }
    let length = run(bytes, HOST);
    (length > 0).then(|| cut(bytes, length))
}

/// The address that a host part spells out: IPv4, or IPv6 with or without brackets; `None` for a name.
///
/// Three colons before an embedded IPv4 address are read as two: the grammar of RFC 3261 allows that spelling
/// by mistake (RFC 5118 section 4.10).
pub fn host_address(host: &[u8]) -> Option<IpAddr> {
    let bare = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    if bare.is_none() && memchr::memchr(b':', host).is_none() {
        return ipv4(host).map(IpAddr::V4);
    }
    let text = std::str::from_utf8(bare.unwrap_or(host)).ok()?;
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some(IpAddr::V6(address));
    }
    let (before, after) = text.split_once(":::").filter(|(_, after)| ipv4(after.as_bytes()).is_some())?;
    let mut spelled = [0_u8; 64];
    let length = before.len() + 2 + after.len();
    let target = spelled.get_mut(..length)?;
    let (head, tail) = target.split_at_mut_checked(before.len())?;
    head.copy_from_slice(before.as_bytes());
    let (colons, tail) = tail.split_at_mut_checked(2)?;
    colons.copy_from_slice(b"::");
    tail.copy_from_slice(after.as_bytes());
    std::str::from_utf8(target).ok()?.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// Four decimal octets of one to three digits.
fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = text.split(|&octet| octet == b'.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| part.len() <= 3)?;
        *octet = u8::try_from(number(part)?).ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// Appends a decimal number.
pub(crate) fn push_number(out: &mut Vec<u8>, value: u32) {
    let mut digits = [b'0'; 10];
    let mut rest = value;
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Appends an address as a Via parameter writes it: IPv6 without brackets.
pub(crate) fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(four) => {
            for (place, octet) in four.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                push_number(out, u32::from(octet));
            }
        }
        IpAddr::V6(six) => {
            use std::io::Write as _;
            // Writing to a Vec cannot fail.
            write!(out, "{six}").unwrap_or_default();
        }
    }
}

/// Appends a text that must stay inside its line: each CR or LF becomes a space, so that no value can turn
/// into a header of its own.
pub(crate) fn push_line_text(out: &mut Vec<u8>, text: &[u8]) {
    if memchr::memchr2(b'\r', b'\n', text).is_none() {
        out.extend_from_slice(text);
    } else {
        out.extend(text.iter().map(|&octet| if matches!(octet, b'\r' | b'\n') { b' ' } else { octet }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_digits_only_and_fits() {
        assert_eq!(number(b"0000000070"), Some(70));
        assert_eq!(number(b"4294967295"), Some(u32::MAX));
        for bad in [&b""[..], b"4294967296", b"-1", b"+1", b"1 ", b"1,5", b"\xb2"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
        assert_eq!(port(b"65536"), None);
    }

    #[test]
    fn a_quoted_string_ends_at_the_first_unescaped_quote() {
        assert_eq!(quoted_length(br#""a\"b" <"#), Some(6));
        assert_eq!(quoted_length(br#""a\\""#), Some(5));
        assert_eq!(quoted_length(br#""a\""#), None);
        assert_eq!(quoted_length(b"\""), None);
        assert_eq!(quoted_length(b"a"), None);
    }

    #[test]
    fn an_address_is_read_with_and_without_brackets() {
        let six = |text: &str| Some(IpAddr::V6(text.parse().unwrap()));

        assert_eq!(host_address(b"192.0.2.1"), Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))));
        assert_eq!(host_address(b"[2001:db8::1]"), six("2001:db8::1"));
        assert_eq!(host_address(b"2001:db8::1"), six("2001:db8::1"));
        assert_eq!(host_address(b"[2001:db8:::192.0.2.1]"), six("2001:db8::192.0.2.1"));
        for name in [
            &b"example.com"[..],
            b"[192.0.2.1]",
            b"[2001:db8::1",
            b"[]",
            b"",
            b"1.2.3",
            b"[a:::b]",
            b"[1:::1.2.3.4:::1.2.3.4]",
        ] {
            assert_eq!(host_address(name), None, "{name:?}");
        }
    }

    #[test]
    fn numbers_and_addresses_are_written_plainly() {
        let mut out = Vec::new();
        for value in [0, 7, 70, 65_535, u32::MAX] {
            push_number(&mut out, value);
            out.push(b' ');
        }
        push_address(&mut out, "192.0.2.255".parse().unwrap());
        push_address(&mut out, "::ffff:10.0.0.1".parse().unwrap());
        push_address(&mut out, "2001:db8::1".parse().unwrap());

        assert_eq!(out, b"0 7 70 65535 4294967295 192.0.2.25510.0.0.12001:db8::1");
    }

    #[test]
    fn a_line_break_in_a_text_becomes_a_space() {
        let mut out = Vec::new();
        push_line_text(&mut out, b"a\r\nVia: b");
        assert_eq!(out, b"a  Via: b");
    }
}
