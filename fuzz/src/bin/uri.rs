//! URIs: what is read is what stands there, the comparison has no direction, and an address-of-record is one
//! canonical form. Input: a URI, or several with line feeds between them, which are compared.
#![no_main]

use fuzz::is_within;
use libfuzzer_sys::fuzz_target;
use model::{AddressOfRecord, limits};
use sip::{Scheme, Uri};

fuzz_target!(|data: &[u8]| {
    let lines = data.split(|&octet| octet == b'\n').take(4);
    let uris: Vec<_> = lines.filter_map(|line| Uri::parse(line).ok().map(|uri| (line, uri))).collect();
    for (text, uri) in &uris {
        stands_in_its_text(text, uri);
        is_equivalent_to_its_other_spellings(text, uri);
        has_a_canonical_address(uri);
    }
    for (_, one) in &uris {
        for (_, other) in &uris {
            compare(one, other);
        }
    }
});

/// The parts in order make the text again.
fn stands_in_its_text(text: &[u8], uri: &Uri<'_>) {
    assert_eq!([uri.scheme_bytes, b":", uri.rest].concat(), text);
    assert_eq!(uri.scheme == Scheme::Sips, uri.scheme_bytes.eq_ignore_ascii_case(b"sips"));
    for parameter in uri.parameters.iter() {
        assert!(!parameter.name.is_empty() && is_within(parameter.name, text));
        assert!(uri.parameters.has(parameter.name));
    }
    if !uri.scheme.is_sip_or_sips() {
        assert!(uri.host.is_empty() && uri.port.is_none() && uri.headers.is_none());
        return;
    }
    let mut front = Vec::new();
    if let Some(user) = uri.user {
        assert!(!user.is_empty());
        front.extend_from_slice(user);
        if let Some(password) = uri.password {
            front.push(b':');
            front.extend_from_slice(password);
        }
        front.push(b'@');
    }
    front.extend_from_slice(uri.host);
    let mut back = uri.parameters.bytes().to_vec();
    if let Some(headers) = uri.headers {
        back.push(b'?');
        back.extend_from_slice(headers);
    }
    assert!(!uri.host.is_empty());
    let port = uri.rest.strip_prefix(&front[..]).and_then(|rest| rest.strip_suffix(&back[..]));
    let port = std::str::from_utf8(port.expect("the parts stand in the text in this order")).unwrap();
    match uri.port {
        None => assert_eq!(port, ""),
        Some(number) => assert_eq!(port.strip_prefix(':').unwrap().parse(), Ok(number)),
    }
}

/// Case of scheme and host and an escape that is not needed change nothing.
fn is_equivalent_to_its_other_spellings(text: &[u8], uri: &Uri<'_>) {
    if repeats_a_parameter(uri) {
        return;
    }
    assert!(uri.is_equivalent(uri), "a URI is equivalent to itself");
    if !uri.scheme.is_sip_or_sips() {
        return;
    }
    let mut spelled = text.to_vec();
    spelled[..uri.scheme_bytes.len()].make_ascii_uppercase();
    let host_at = uri.host.as_ptr().addr() - text.as_ptr().addr();
    spelled[host_at..host_at + uri.host.len()].make_ascii_uppercase();
    let plain = uri.user.and_then(|user| Some((user, user.iter().position(u8::is_ascii_alphanumeric)?)));
    if let Some((user, at)) = plain.filter(|&(user, at)| !user[..at].contains(&b'%')) {
        let at = user.as_ptr().addr() - text.as_ptr().addr() + at;
        let escape = format!("%{:02x}", text[at]).into_bytes();
        spelled.splice(at..=at, escape);
    }
    let other = Uri::parse(&spelled).expect("another spelling of the same URI");
    assert!(uri.is_equivalent(&other) && other.is_equivalent(uri), "{}", spelled.escape_ascii());
    let fits = spelled.len() <= limits::ADDRESS_OF_RECORD_BYTES_MAX;
    if fits && let Ok(aor) = uri.address_of_record() {
        assert_eq!(other.address_of_record(), Ok(aor));
    }
}

/// The canonical form is a fixed point, in whichever way it is read.
fn has_a_canonical_address(uri: &Uri<'_>) {
    let Ok(aor) = uri.address_of_record() else { return };
    assert!(uri.scheme.is_sip_or_sips() && uri.user.is_some());
    assert!(aor.as_str().len() <= limits::ADDRESS_OF_RECORD_BYTES_MAX);
    assert_eq!(AddressOfRecord::new(aor.as_str()).as_ref(), Ok(&aor));
    let again = Uri::parse(aor.as_str().as_bytes()).expect("an address-of-record is a URI");
    assert_eq!(again.address_of_record().as_ref(), Ok(&aor));
    assert_eq!((again.port, again.password, again.parameters.is_empty()), (None, None, true));
    assert_eq!(aor.as_str(), format!("sip:{}@{}", aor.user(), aor.domain()));
    for escape in aor.user().split('%').skip(1).map(|escape| &escape[..2]) {
        let octet = u8::from_str_radix(escape, 16).unwrap();
        assert_eq!(format!("{octet:02X}"), escape, "an escape is in upper case");
        assert!(!octet.is_ascii_alphanumeric(), "an escape is needed");
    }
}

fn compare(one: &Uri<'_>, other: &Uri<'_>) {
    let is_equivalent = one.is_equivalent(other);
    if repeats_a_parameter(one) || repeats_a_parameter(other) {
        return;
    }
    assert_eq!(is_equivalent, other.is_equivalent(one), "the comparison has no direction");
    // An address has several spellings, which only the comparison knows.
    if is_equivalent && one.host_address().is_none() {
        let addresses = (one.address_of_record(), other.address_of_record());
        if let (Ok(one), Ok(other)) = addresses {
            assert_eq!(one, other, "equivalent URIs name one user");
        }
    }
}

/// RFC 3261 section 19.1.1 forbids it and says nothing about comparing such URIs.
fn repeats_a_parameter(uri: &Uri<'_>) -> bool {
    let decoded = |name: &[u8]| {
        let mut name = name.to_ascii_lowercase();
        while let Some(at) = name.iter().position(|&octet| octet == b'%') {
            let digits = std::str::from_utf8(&name[at + 1..at + 3]).unwrap();
            let octet = u8::from_str_radix(digits, 16).unwrap();
            // A percent sign would be decoded twice: put something else that is no name.
            name.splice(at..at + 3, [if octet == b'%' { 0xff } else { octet.to_ascii_lowercase() }]);
        }
        name
    };
    let names: Vec<_> = uri.parameters.iter().map(|parameter| decoded(parameter.name)).collect();
    names.iter().enumerate().any(|(at, name)| names[..at].contains(name))
}
