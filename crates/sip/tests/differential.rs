//! Compares verdicts and typed values with those of `sipx-sip`, on torture messages and on mutated ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use bytes::Bytes;
use model::Chance;
use sip::{Framing, HeaderId, Index};
use sipx_sip::{
    Limits,
    headers::{CSeq, CallId, From, To, Via},
    validate::Finding,
};

const SEED: u64 = 0x7a6d_656d;
const MUTANTS: usize = 40_000;

/// What both sides read from a message that both accept.
#[derive(Debug, Default, PartialEq, Eq)]
struct Values {
    method: Vec<u8>,
    uri: Vec<u8>,
    status: u16,
    from_tag: Option<Vec<u8>>,
    to_tag: Option<Vec<u8>>,
    call_id: Vec<u8>,
    cseq: (u32, Vec<u8>),
    via_host: Vec<u8>,
    via_port: Option<u16>,
    branch: Option<Vec<u8>>,
    body: Vec<u8>,
}

fn ours(bytes: &[u8]) -> Result<Values, String> {
    let mut index = Index::new();
    index.parse(bytes, Framing::Datagram).map_err(|error| error.to_string())?;
    let message = index.view(bytes);
    message.check_mandatory().map_err(|error| error.to_string())?;
    let (from, to) = (message.from().unwrap(), message.to().unwrap());
    from.uri().and_then(|_| to.uri()).map_err(|error| error.to_string())?;
    let cseq = message.cseq().unwrap();
    let via = message.top_via().unwrap();
    Ok(Values {
        method: if message.is_request() { message.method_bytes().to_vec() } else { Vec::new() },
        uri: lower_scheme(message.request_uri()),
        status: message.status(),
        from_tag: from.tag().map(<[u8]>::to_vec),
        to_tag: to.tag().map(<[u8]>::to_vec),
        call_id: message.call_id().unwrap().to_vec(),
        cseq: (cseq.number, cseq.method_bytes.to_vec()),
        via_host: bare(via.host),
        via_port: via.port,
        branch: via.branch().map(<[u8]>::to_vec),
        body: message.body().to_vec(),
    })
}

fn theirs(bytes: &[u8]) -> Result<Values, String> {
    let message = sipx_sip::parse_datagram(Bytes::copy_from_slice(bytes), &Limits::datagram())
        .map_err(|error| error.to_string())?;
    // Absent Max-Forwards is tolerated by us too, as RFC 3261 section 16.3 asks.
    let is_finding = |finding: &&Finding| **finding != Finding::MissingRequiredHeader("Max-Forwards");
    if let Some(finding) = sipx_sip::validate(&message).iter().find(is_finding) {
        return Err(format!("{finding:?}"));
    }
    let headers = message.headers();
    let (from, to) = (headers.typed::<From>().unwrap().unwrap(), headers.typed::<To>().unwrap().unwrap());
    let cseq = headers.typed::<CSeq>().unwrap().unwrap();
    let via = headers.typed::<Via>().unwrap().unwrap();
    let request = message.as_request();
    let param =
        |name: &str| via.params.iter().find(|param| param.is(name)).and_then(|param| param.value.clone());
    Ok(Values {
        method: request.map_or(Vec::new(), |request| request.method.as_bytes().to_vec()),
        uri: request.map_or(Vec::new(), |request| lower_scheme(&request.uri.to_bytes())),
        status: message.as_response().map_or(0, |response| response.status.code()),
        from_tag: from.tag().map(<[u8]>::to_vec),
        to_tag: to.tag().map(<[u8]>::to_vec),
        call_id: headers.typed::<CallId>().unwrap().unwrap().0,
        cseq: (cseq.sequence, cseq.method.as_bytes().to_vec()),
        via_host: bare(&via.host.to_bytes()),
        via_port: via.port,
        branch: param("branch"),
        body: message.body().to_vec(),
    })
}

/// A host as one text, however it was spelled.
fn bare(host: &[u8]) -> Vec<u8> {
    sip::host_address(host)
        .map_or_else(|| host.to_ascii_lowercase(), |address| address.to_string().into_bytes())
}

/// A URI whose scheme is in lower case, as `sipx-sip` prints it.
fn lower_scheme(uri: &[u8]) -> Vec<u8> {
    let colon = uri.iter().position(|&octet| octet == b':').unwrap_or(0);
    let (scheme, rest) = uri.split_at(colon);
    [&scheme.to_ascii_lowercase(), rest].concat()
}

#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    BothAccept,
    BothReject,
    Differ(String),
}

fn compare(bytes: &[u8]) -> Comparison {
    match (ours(bytes), theirs(bytes)) {
        (Ok(ours), Ok(theirs)) if ours == theirs => Comparison::BothAccept,
        (Ok(ours), Ok(theirs)) => Comparison::Differ(format!("we read {ours:?}\nthey read {theirs:?}")),
        (Err(_), Err(_)) => Comparison::BothReject,
        (Ok(_), Err(said)) if do_both_accept(&tame(bytes)) => {
            Comparison::Differ(format!("{TOLERATED}: {said}"))
        }
        (Ok(_), Err(theirs)) => Comparison::Differ(format!("we accept, they say {theirs}")),
        (Err(ours), Ok(_)) => Comparison::Differ(match stricter(bytes) {
            Some(reason) => reason.to_owned(),
            None => format!("they accept, we say {ours}"),
        }),
    }
}

fn do_both_accept(bytes: &[u8]) -> bool {
    ours(bytes).is_ok_and(|ours| theirs(bytes) == Ok(ours))
}

/// Octets that we tolerate and the grammar does not; with them replaced the two sides must agree.
const TOLERATED: &str = "tolerated by us";

/// What we refuse and `sipx-sip` does not, each on purpose.
const STRICTER: [&str; 7] = [
    "sent-protocol of Via has a part that is no token (RFC 3261 section 25.1)",
    "Call-ID has white space, a control or a comma (RFC 3261 section 25.1: callid)",
    "an address without <> has a comma in its URI (RFC 3261 section 20)",
    "Expires is repeated (RFC 3261 section 7.3.1)",
    "the scheme of a URI does not start with a letter (RFC 3986 section 3.1)",
    "a header in a URI has no = or an octet that must be escaped (RFC 3261 section 25.1: header)",
    "a parameter of a URI has an octet that must be escaped (RFC 3261 section 25.1: paramchar)",
];

fn stricter(bytes: &[u8]) -> Option<&'static str> {
    let mut index = Index::new();
    index.parse(bytes, Framing::Datagram).ok()?;
    let message = index.view(bytes);
    let addresses = [message.header(HeaderId::From)?, message.header(HeaderId::To)?];
    let inside = |value: &[u8]| {
        let text = value.split(|&octet| octet == b'<').nth(1).unwrap_or(value).to_vec();
        text.split(|&octet| octet == b'>').next().unwrap_or_default().to_vec()
    };
    let mut uris: Vec<Vec<u8>> = addresses.iter().map(|value| inside(value)).collect();
    uris.push(message.request_uri().to_vec());
    let is_token = |part: &[u8]| {
        !part.is_empty()
            && part.iter().all(|octet| octet.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(octet))
    };
    let via = message.values(HeaderId::Via).next()?;
    let mut protocol = via.splitn(3, |&octet| octet == b'/');
    let is_protocol = protocol.by_ref().take(2).all(|part| is_token(part.trim_ascii()))
        && protocol.next().is_some_and(|rest| {
            is_token(rest.trim_ascii_start().split(u8::is_ascii_whitespace).next().unwrap())
        });
    let call_id = message.header(HeaderId::CallId)?;
    let has_bad_call_id = call_id.iter().any(|&octet| octet <= b' ' || octet == 0x7f || octet == b',');
    let is_bare_with_comma = |value: &&[u8]| !value.contains(&b'<') && value.contains(&b',');
    let has_bad_header = |uri: &Vec<u8>| {
        uri.splitn(2, |&octet| octet == b'?').nth(1).is_some_and(|headers| {
            headers
                .split(|&octet| octet == b'&')
                .any(|header| !header.contains(&b'=') || header.contains(&b';'))
        })
    };
    let has_bad_parameter = |uri: &Vec<u8>| {
        let mut octets = uri.iter().skip_while(|octet| **octet != b';');
        sip::Uri::parse(uri).is_err_and(|error| error == sip::UriError::Parameters)
            && octets.any(|&octet| !octet.is_ascii_alphanumeric() && !b"-_.!~*'()[]/:&+$%=;".contains(&octet))
    };
    let checks = [
        !is_protocol,
        has_bad_call_id,
        addresses.iter().any(is_bare_with_comma),
        message.headers().filter(|header| header.id == HeaderId::Expires).count() > 1,
        uris.iter().any(|uri| !uri.first().is_some_and(u8::is_ascii_alphabetic)),
        uris.iter().any(has_bad_header),
        uris.iter().any(has_bad_parameter),
    ];
    checks.iter().zip(STRICTER).find(|(is_true, _)| **is_true).map(|(_, reason)| reason)
}

/// The message with an `a` for each octet that we tolerate beyond the grammar: above 0x7f in an unquoted
/// display name, anything in an unquoted parameter value, `#` in a user part, `=` in the value of a URI
/// parameter. White space around the colon of sent-by, which is legal but unknown to the other side, moves
/// behind the port.
fn tame(bytes: &[u8]) -> Vec<u8> {
    let mut tamed = bytes.to_vec();
    let mut index = Index::new();
    if index.parse(bytes, Framing::Datagram).is_err() {
        return tamed;
    }
    let message = index.view(bytes);
    let (Ok(from), Ok(to), Ok(via)) = (message.from(), message.to(), message.top_via()) else { return tamed };
    let mut replace = |part: &[u8], is_bad: fn(u8) -> bool| {
        if part.is_empty() {
            return;
        }
        let start = part.as_ptr().addr() - bytes.as_ptr().addr();
        for octet in &mut tamed[start..start + part.len()] {
            if is_bad(*octet) {
                *octet = b'a';
            }
        }
    };
    for address in [from, to] {
        replace(address.display_name, |octet| octet >= 0x80);
    }
    for parameters in [from.parameters, to.parameters, via.parameters] {
        for parameter in parameters.iter().filter(|parameter| !parameter.is_quoted) {
            replace(parameter.value.unwrap_or_default(), |octet| !octet.is_ascii_alphanumeric());
        }
    }
    for uri in [from.uri(), to.uri(), sip::Uri::parse(message.request_uri())].into_iter().flatten() {
        replace(uri.user.unwrap_or_default(), |octet| octet == b'#');
        for parameter in uri.parameters.iter() {
            replace(parameter.value.unwrap_or_default(), |octet| octet == b'=');
        }
    }
    let host = via.host.as_ptr().addr() - bytes.as_ptr().addr();
    let sent_by = tamed[host..].iter().position(|octet| b";\r,".contains(octet)).unwrap_or(0);
    tamed[host..host + sent_by].sort_by_key(u8::is_ascii_whitespace);
    tamed
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
    let index = fs::read_to_string(folder.join("torture/index.tsv")).unwrap();
    let names = index
        .lines()
        .skip(1)
        .map(|line| line.split('\t').next().unwrap())
        .filter(|name| !name.contains("archive"));
    let mut corpus: Vec<Vec<u8>> =
        names.map(|name| fs::read(folder.join("torture").join(name)).unwrap()).collect();
    for name in ["register", "invite"] {
        corpus.push(fs::read(folder.join(format!("messages/{name}.sip"))).unwrap());
    }
    corpus
}

#[test]
fn verdicts_and_values_agree_on_every_torture_message() {
    for bytes in corpus() {
        let comparison = compare(&bytes);
        assert!(!matches!(comparison, Comparison::Differ(_)), "{}\n{comparison:?}", bytes.escape_ascii());
    }
}

#[test]
fn verdicts_and_values_agree_on_mutated_messages_but_for_the_documented_differences() {
    let corpus = corpus();
    let mut chance = Chance::seeded(SEED);
    let (mut accepted, mut rejected) = (0, 0);
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..MUTANTS {
        let bytes = mutate(&corpus, &mut chance);
        match compare(&bytes) {
            Comparison::BothAccept => accepted += 1,
            Comparison::BothReject => rejected += 1,
            Comparison::Differ(reason)
                if reason.starts_with(TOLERATED) || STRICTER.contains(&reason.as_str()) =>
            {
                *known.entry(reason).or_default() += 1;
            }
            Comparison::Differ(reason) => panic!("{reason}\n{}", bytes.escape_ascii()),
        }
    }
    println!("{accepted} accepted and {rejected} rejected by both, the rest: {known:#?}");
    assert!(accepted > MUTANTS / 6 && rejected > MUTANTS / 6, "the mutants are neither all good nor all bad");
    assert!(known.values().sum::<usize>() < MUTANTS / 25);
    let unused: Vec<&str> = STRICTER.into_iter().filter(|reason| !known.contains_key(*reason)).collect();
    assert_eq!(unused, [""; 0], "the list of differences is short and true");
}

fn mutate(corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    const OCTETS: &[u8] = b" \t\r\n:;,<>\"\\@=/?%[]()0a\0\xff-+*.&#_";
    let below = |chance: &mut Chance, bound: usize| usize::try_from(chance.below(bound as u64)).unwrap();
    let mut bytes = corpus[below(chance, corpus.len())].clone();
    for _ in 0..=below(chance, 3) {
        let at = below(chance, bytes.len());
        let octet = OCTETS[below(chance, OCTETS.len())];
        match below(chance, 5) {
            0 => bytes[at] = octet,
            1 => bytes.insert(at, octet),
            2 => drop(bytes.remove(at)),
            3 => bytes[at] ^= 0x20,
            _ => {
                let lines: Vec<&[u8]> = bytes.split_inclusive(|&octet| octet == b'\n').collect();
                let mut lines: Vec<Vec<u8>> = lines.into_iter().map(<[u8]>::to_vec).collect();
                let (from, to) = (below(chance, lines.len()), below(chance, lines.len()));
                if octet.is_ascii_punctuation() {
                    lines.swap(from, to)
                } else {
                    lines[to] = lines[from].clone()
                }
                bytes = lines.concat();
            }
        }
    }
    bytes
}
