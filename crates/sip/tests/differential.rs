//! Compares verdicts and typed values with those of `sipx-sip`, on torture messages and on mutated ones.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use model::Chance;
use sip::{Framing, Index};
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
    let param = |name: &str| via.params.iter().find(|param| param.is(name)).and_then(|param| param.value.clone());
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

/// A host without brackets and in lower case.
fn bare(host: &[u8]) -> Vec<u8> {
    host.iter().filter(|octet| !b"[]".contains(octet)).map(u8::to_ascii_lowercase).collect()
}

/// A URI whose scheme is in lower case, as `sipx-sip` prints it.
fn lower_scheme(uri: &[u8]) -> Vec<u8> {
    let colon = uri.iter().position(|&octet| octet == b':').unwrap_or(0);
    let (scheme, rest) = uri.split_at(colon);
    [&scheme.to_ascii_lowercase(), rest].concat()
}

fn compare(bytes: &[u8]) -> Result<bool, String> {
    match (ours(bytes), theirs(bytes)) {
        (Ok(ours), Ok(theirs)) => if ours == theirs { Ok(true) } else { Err(format!("values {ours:?}\n{theirs:?}")) },
        (Err(_), Err(_)) => Ok(false),
        (Ok(_), Err(theirs)) => Err(format!("we accept, they: {theirs}")),
        (Err(ours), Ok(_)) => Err(format!("they accept, we: {ours}")),
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
    let index = fs::read_to_string(folder.join("torture/index.tsv")).unwrap();
    let names = index.lines().skip(1).map(|line| line.split('\t').next().unwrap()).filter(|name| !name.contains("archive"));
    let mut corpus: Vec<Vec<u8>> = names.map(|name| fs::read(folder.join("torture").join(name)).unwrap()).collect();
    for name in ["register", "invite"] {
        corpus.push(fs::read(folder.join(format!("messages/{name}.sip"))).unwrap());
    }
    corpus
}

#[test]
fn discover() {
    let mut hist: std::collections::BTreeMap<String, (usize, Vec<u8>)> = Default::default();
    let mut acc = 0; let mut rej = 0;
    let corpus = corpus();
    let mut chance = Chance::seeded(SEED);
    let mut all: Vec<Vec<u8>> = corpus.clone();
    for _ in 0..MUTANTS { all.push(mutate(&corpus, &mut chance)); }
    for m in &all {
        match compare(m) { Ok(true) => acc += 1, Ok(false) => rej += 1, Err(e) => { let k: String = if e.contains("we: Via") { let mut i = Index::new(); let _ = i.parse(m, Framing::Datagram); format!("{e} {}", i.view(m).header(sip::HeaderId::Via).unwrap_or_default().escape_ascii()) } else if e.contains("we: Req") { let mut i = Index::new(); let _ = i.parse(m, Framing::Datagram); format!("{e} {}", i.view(m).request_uri().escape_ascii()) } else {e.chars().take(90).collect()}; let h = hist.entry(k).or_insert((0, m.clone())); h.0 += 1; if m.len() < h.1.len() { h.1 = m.clone(); } } }
    }
    println!("accepted {acc} rejected {rej}");
    for (k, (n, m)) in hist { println!("=== {n} {k}\n{}", m.escape_ascii().to_string().replace("\\r\\n", "\n").chars().take(700).collect::<String>()); }
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
                if octet.is_ascii_punctuation() { lines.swap(from, to) } else { lines[to] = lines[from].clone() }
                bytes = lines.concat();
            }
        }
    }
    bytes
}
