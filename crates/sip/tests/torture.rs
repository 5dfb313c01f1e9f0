//! Judges every message of RFC 4475 and RFC 5118 by its class, and shows which layer objects.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::{fmt::Write as _, fs, path::PathBuf};

use sha2::{Digest, Sha256};
use sip::{
    Contacts, Framing, FramingError, HeaderError, HeaderId, Index, Message, Method, Scheme, StreamFramer,
    StreamStep,
};

/// One line of `torture/index.tsv`.
struct Case {
    file: String,
    class: String,
    bytes: Vec<u8>,
}

/// What becomes of a message, and who objects first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It cannot be framed.
    Framing(FramingError),
    /// A header that every element needs is bad.
    Mandatory(HeaderError),
    /// A header is bad that only those need who read it.
    Read(HeaderError),
    /// Well formed, but a proxy or registrar refuses it.
    Refused(&'static str),
    Accepted,
}

impl Verdict {
    fn is_well_formed(self) -> bool {
        match self {
            Self::Framing(_) | Self::Mandatory(_) | Self::Read(_) => false,
            Self::Refused(_) | Self::Accepted => true,
        }
    }

    fn text(self, is_request: bool) -> String {
        let answer = |status: Option<u16>| match status {
            Some(status) if is_request => format!("answer {status}"),
            Some(_) | None => "no answer".to_owned(),
        };
        match self {
            Self::Framing(error) => format!("framing: {error} ({})", answer(error.status())),
            Self::Mandatory(error) => format!("header: {error} ({})", answer(Some(error.status()))),
            Self::Read(error) => format!("header, for those who read it: {error}"),
            Self::Refused(reason) => format!("refused later: {reason}"),
            Self::Accepted => "accepted".to_owned(),
        }
    }
}

#[test]
fn every_message_is_judged_as_its_class_demands() {
    let mut golden = String::new();
    for case in cases() {
        let datagram = judge_datagram(&case.bytes);
        check_class(&case, datagram);
        let is_request = !case.bytes.starts_with(b"SIP/");
        writeln!(golden, "{} ({})", case.file, case.class).unwrap();
        writeln!(golden, "    datagram: {}", datagram.text(is_request)).unwrap();
        for line in judge_stream(&case.bytes) {
            writeln!(golden, "    stream:   {line}").unwrap();
        }
    }
    insta::assert_snapshot!("torture_verdicts", golden);
}

fn check_class(case: &Case, verdict: Verdict) {
    let is_archive = case.file.contains("/archive/");
    match case.class.as_str() {
        // The archive of RFC 5118 has bare LF for line ends; `wire` has the same messages fit to be sent.
        _ if is_archive => {
            assert!(matches!(verdict, Verdict::Framing(FramingError::BareLineBreak { .. })), "{}", case.file)
        }
        "valid" => assert!(verdict.is_well_formed(), "{}: {verdict:?}", case.file),
        "reject" => assert!(!verdict.is_well_formed(), "{}: {verdict:?}", case.file),
        // Rejecting is recommended; only a bad Date must not stop anyone who does not read it.
        "may-reject" if case.file.ends_with("baddate.dat") => {
            assert_eq!(verdict, Verdict::Read(HeaderError::Malformed { header: HeaderId::Date }));
        }
        "may-reject" => assert!(!verdict.is_well_formed(), "{}: {verdict:?}", case.file),
        "either" | "unreferenced" => {}
        other => panic!("unknown class {other}"),
    }
}

fn judge_datagram(bytes: &[u8]) -> Verdict {
    judge(bytes, Framing::Datagram)
}

/// What a stream with these octets brings, step by step.
fn judge_stream(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut framer = StreamFramer::new();
    let mut rest = bytes;
    loop {
        match framer.step(rest) {
            Ok(StreamStep::Message { length }) => {
                let (message, after) = rest.split_at(length);
                let verdict = judge(message, Framing::Stream);
                lines.push(format!("{length} octets {}", verdict.text(!message.starts_with(b"SIP/"))));
                rest = after;
                if rest.is_empty() || !verdict.is_well_formed() {
                    break;
                }
            }
            Ok(StreamStep::KeepAlivePing { length } | StreamStep::Pong { length }) => rest = &rest[length..],
            Ok(StreamStep::NeedMore) => {
                lines.push(format!("waits for more than the {} octets there are", rest.len()));
                break;
            }
            Err(error) => {
                lines.push(format!("closed: {error}"));
                break;
            }
        }
    }
    lines
}

fn judge(bytes: &[u8], framing: Framing) -> Verdict {
    let mut index = Index::new();
    if let Err(error) = index.parse(bytes, framing) {
        return Verdict::Framing(error);
    }
    let message = index.view(bytes);
    if let Err(error) = message.check_mandatory() {
        return Verdict::Mandatory(error);
    }
    if let Err(error) = read_all(message) {
        return Verdict::Read(error);
    }
    refuse(message).map_or(Verdict::Accepted, Verdict::Refused)
}

/// Reads every header that a proxy or registrar may read.
fn read_all(message: Message<'_>) -> Result<(), HeaderError> {
    if let Contacts::List(mut contacts) = message.contacts()? {
        contacts.try_for_each(|contact| {
            let uri = contact?.uri();
            uri.map(drop).map_err(|_| HeaderError::Malformed { header: HeaderId::Contact })
        })?;
    }
    for header in [HeaderId::Route, HeaderId::RecordRoute, HeaderId::Path, HeaderId::ServiceRoute] {
        message.addresses(header).try_for_each(|address| address.map(drop))?;
    }
    for header in [HeaderId::Require, HeaderId::ProxyRequire, HeaderId::Supported] {
        message.tokens(header).try_for_each(|token| token.map(drop))?;
    }
    let vias = message.vias().all(|via| via.is_some());
    if !vias {
        return Err(HeaderError::Malformed { header: HeaderId::Via });
    }
    message.expires()?;
    message.number(HeaderId::MinExpires)?;
    message.date()?;
    Ok(())
}

/// Why a proxy or a registrar that knows no extension refuses a message that is well formed.
fn refuse(message: Message<'_>) -> Option<&'static str> {
    if !message.is_request() {
        let next = message.vias().nth(1).flatten();
        let is_broadcast = next.is_some_and(|via| via.host == b"255.255.255.255");
        return is_broadcast.then_some("dropped, the next Via is a broadcast address");
    }
    let uri = sip::Uri::parse(message.request_uri()).unwrap();
    if !uri.scheme.is_sip_or_sips() && uri.scheme != Scheme::Tel {
        return Some("416, the scheme of the Request-URI");
    }
    if message.max_forwards() == Ok(Some(0)) {
        return Some("483, Max-Forwards is 0");
    }
    if message.tokens(HeaderId::ProxyRequire).next().is_some() {
        return Some("420, Proxy-Require");
    }
    if message.method() == Method::Register
        && message.to().unwrap().uri().unwrap().address_of_record().is_err()
    {
        return Some("400 by a registrar, To is no address-of-record");
    }
    None
}

fn cases() -> Vec<Case> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/torture");
    let index = fs::read_to_string(folder.join("index.tsv")).unwrap();
    let cases: Vec<Case> = index
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let bytes = fs::read(folder.join(columns[0])).unwrap();
            let digest: String = Sha256::digest(&bytes).iter().map(|octet| format!("{octet:02x}")).collect();
            assert_eq!(digest, columns[10], "{} was altered", columns[0]);
            Case { file: columns[0].to_owned(), class: columns[4].to_owned(), bytes }
        })
        .collect();
    assert_eq!(cases.len(), 74, "50 of RFC 4475, 12 of RFC 5118 in two spellings");
    cases
}

#[test]
fn a_defective_request_can_still_be_answered() {
    let is_defective_request = |case: &&Case| {
        case.class == "reject" && !case.file.contains("archive") && !case.bytes.starts_with(b"SIP/")
    };
    for case in cases().iter().filter(is_defective_request) {
        let mut index = Index::new();
        let framed = index.parse(&case.bytes, Framing::Datagram);
        let message = index.view(&case.bytes);
        let status = match framed {
            Err(error) => error.status().unwrap(),
            Ok(()) => message.check_mandatory().map_or_else(HeaderError::status, |_via| 420),
        };
        let mut out = Vec::new();
        sip::ResponseBuilder::new(message, status, b"").to_tag(b"t").write_to(&mut out);

        let mut answer = Index::new();
        assert_eq!(answer.parse(&out, Framing::Stream), Ok(()), "{}", case.file);
        assert_eq!(answer.view(&out).status(), status, "{}", case.file);
        assert!(answer.view(&out).has(HeaderId::Via), "{}", case.file);
    }
}

#[test]
fn typed_values_of_the_tortuous_invite_are_as_the_rfc_says() {
    let case = cases().into_iter().find(|case| case.file == "rfc4475/wsinv.dat").unwrap();
    let mut index = Index::new();
    index.parse(&case.bytes, Framing::Datagram).unwrap();
    let message = index.view(&case.bytes);

    assert_eq!(message.method(), Method::Invite);
    assert_eq!(message.max_forwards(), Ok(Some(68)));
    assert_eq!(message.cseq().unwrap().number, 9);
    assert_eq!(message.call_id(), Ok(&b"wsinv.ndaksdj@192.0.2.1"[..]));
    assert_eq!(message.to().unwrap().tag(), Some(&b"1918181833n"[..]));
    assert_eq!(message.from().unwrap().tag(), Some(&b"98asjd8"[..]));
    assert_eq!(message.vias().count(), 3);
    assert_eq!(message.top_via().unwrap().branch(), Some(&b"390skdjuw"[..]));
    assert_eq!(message.routes().count(), 1);
    assert_eq!(message.header_named(b"NEWFANGLEDHEADER"), message.header_named(b"NewFangledHeader"));
}
