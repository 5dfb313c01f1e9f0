//! Forwarding is byte-exact but for what a proxy changes, on torture messages and on generated ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::{fs, path::PathBuf};

use proptest::prelude::*;
use sip::{Framing, Header, HeaderId, Index, Message, NameAddr, OwnedMessage, Rewrite};

const OUR_VIA: &[u8] = b"SIP/2.0/TLS proxy.example.com:5061;branch=z9hG4bK0.1";

fn parse(bytes: &[u8]) -> OwnedMessage {
    OwnedMessage::parse(bytes.to_vec().into(), Framing::Datagram).unwrap()
}

/// Well-formed messages of the torture tests, and the two of the measurements.
fn valid_messages() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
    let index = fs::read_to_string(folder.join("torture/index.tsv")).unwrap();
    let files =
        index.lines().filter(|line| line.split('\t').nth(4) == Some("valid") && !line.contains("/archive/"));
    let mut messages: Vec<Vec<u8>> = files
        .map(|line| fs::read(folder.join("torture").join(line.split('\t').next().unwrap())).unwrap())
        .collect();
    assert_eq!(messages.len(), 26 + 11);
    for name in ["register", "invite"] {
        messages.push(fs::read(folder.join(format!("messages/{name}.sip"))).unwrap());
    }
    messages
}

/// What a rewrite adds to a message that came without Content-Length.
fn with_content_length(message: Message<'_>) -> Vec<u8> {
    let bytes = message.bytes();
    if message.has(HeaderId::ContentLength) {
        return bytes.to_vec();
    }
    let (head, body) = bytes.split_at(bytes.len() - message.body().len() - 2);
    [head, format!("Content-Length: {}\r\n", message.body().len()).as_bytes(), body].concat()
}

fn lines_without<'a>(message: Message<'a>, ids: &[HeaderId]) -> Vec<&'a [u8]> {
    message.headers().filter(|header| !ids.contains(&header.id)).map(|header| header.line).collect()
}

/// Start line of a message.
fn start_line(message: Message<'_>) -> &[u8] {
    message.bytes().split(|&octet| octet == b'\n').next().unwrap()
}

#[test]
fn parsed_and_printed_again_is_the_same() {
    for bytes in valid_messages() {
        let owned = parse(&bytes);
        let mut out = Vec::new();
        Rewrite::new(owned.view()).write_to(&mut out);

        assert_eq!(out, with_content_length(owned.view()));
        assert!(bytes.starts_with(owned.bytes()), "what follows the body stays behind");

        let again = parse(&out);
        let mut second = Vec::new();
        Rewrite::new(again.view()).write_to(&mut second);
        assert_eq!(second, out);
    }
}

#[test]
fn a_forwarded_request_is_the_same_but_for_what_a_proxy_changes() {
    for bytes in valid_messages() {
        let owned = parse(&bytes);
        let message = owned.view();
        if !message.is_request() {
            continue;
        }
        let mut rewrite = Rewrite::new(message);
        rewrite.push_via(OUR_VIA).set_max_forwards(41).mark_top_via([192, 0, 2, 250].into(), 4321);
        let sent = rewrite.to_message().unwrap();
        let sent = sent.view();

        let changed = [HeaderId::Via, HeaderId::MaxForwards, HeaderId::ContentLength];
        assert_eq!(start_line(sent), start_line(message));
        assert_eq!(sent.body(), message.body());
        assert_eq!(lines_without(sent, &changed), lines_without(message, &changed));
        assert_eq!(sent.max_forwards(), Ok(Some(41)));

        let vias: Vec<&[u8]> = sent.values(HeaderId::Via).collect();
        let received: Vec<&[u8]> = message.values(HeaderId::Via).collect();
        assert_eq!(vias[0], OUR_VIA);
        assert_eq!(vias[2..], received[1..], "Vias below the topmost are not touched");
        let marked = sent.vias().nth(1).flatten().unwrap();
        let original = message.top_via().unwrap();
        assert_eq!(marked.received(), Some(&b"192.0.2.250"[..]));
        assert_eq!(
            (marked.host, marked.port, marked.branch()),
            (original.host, original.port, original.branch())
        );
        assert_eq!(marked.rport().is_some(), original.rport().is_some());
    }
}

#[test]
fn a_response_comes_back_as_it_was_when_our_via_is_taken_off() {
    for bytes in valid_messages() {
        let owned = parse(&bytes);
        let mut forth = Rewrite::new(owned.view());
        forth.push_via(OUR_VIA);
        let sent = forth.to_message().unwrap();
        let mut back = Rewrite::new(sent.view());
        back.pop_top_via();

        assert_eq!(back.to_message().unwrap().bytes(), &with_content_length(owned.view()));
    }
}

/// A header line as a sender may write it, and what it says.
#[derive(Clone, Debug)]
struct Line {
    name: String,
    space: &'static str,
    value: String,
}

impl Line {
    fn text(&self) -> String {
        format!(
            "{}{}:{}{}\r\n",
            self.name,
            self.space,
            if self.value.is_empty() { "" } else { " " },
            self.value
        )
    }
}

fn line() -> impl Strategy<Value = Line> {
    let name = prop_oneof![
        3 => prop::sample::select(HeaderId::KNOWN.to_vec()).prop_map(|id| id.name().to_owned()),
        1 => "[vVftimKxoy]",
        1 => "[A-Za-z0-9.!%*_+`'~-]{1,40}",
    ];
    let case = any::<bool>();
    let value = prop_oneof![
        "[ -~]{0,60}",
        "[a-z,;=<>\"\\\\ ]{0,30}",
        Just("<sip:p1.example.com;lr>, <sip:p2.example.com;lr>".to_owned()),
        Just("SIP/2.0/UDP h1.example.com;branch=z9hG4bK1 ,\r\n\t SIP/2.0/TCP h2.example.com".to_owned()),
        Just("one\r\n two\r\n\tthree".to_owned()),
        Just("\u{fc}\u{0}\u{1f600}".to_owned()),
    ];
    (name, case, prop::sample::select(vec!["", " ", "\t "]), value)
        .prop_map(|(name, is_upper, space, value)| Line {
            name: if is_upper { name.to_ascii_uppercase() } else { name },
            space,
            value: value.trim_matches([' ', '\t']).to_owned(),
        })
        .prop_filter("Content-Length is written by the test", |line| {
            HeaderId::from_name(line.name.as_bytes()) != HeaderId::ContentLength
        })
}

fn message() -> impl Strategy<Value = (Vec<Line>, Vec<u8>)> {
    (prop::collection::vec(line(), 0..20), prop::collection::vec(any::<u8>(), 0..60))
}

fn print(lines: &[Line], body: &[u8]) -> Vec<u8> {
    let mut text = "INVITE sip:b@example.com SIP/2.0\r\n".to_owned();
    lines.iter().for_each(|line| text.push_str(&line.text()));
    text.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    [text.as_bytes(), body].concat()
}

fn is_value_of(header: &Header<'_>, line: &Line) -> bool {
    header.name == line.name.as_bytes() && header.value == line.value.as_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_header_is_found_as_it_was_written((lines, body) in message()) {
        let bytes = print(&lines, &body);
        let mut index = Index::new();
        prop_assert_eq!(index.parse(&bytes, Framing::Stream), Ok(()));
        let message = index.view(&bytes);

        prop_assert_eq!(message.headers().count(), lines.len() + 1);
        for (header, line) in message.headers().zip(&lines) {
            prop_assert!(is_value_of(&header, line), "{:?} {:?}", header, line);
            prop_assert_eq!(header.line.to_vec(), line.text().into_bytes());
        }
        prop_assert_eq!(message.body(), &body[..]);
        let mut out = Vec::new();
        Rewrite::new(message).write_to(&mut out);
        prop_assert_eq!(out, bytes);
    }

    #[test]
    fn changes_touch_only_their_own_lines(
        (lines, body) in message(),
        vias in 0_usize..4,
        routes in 0_usize..4,
        last in any::<bool>(),
        pushed in 0_usize..3,
    ) {
        let bytes = print(&lines, &body);
        let mut index = Index::new();
        index.parse(&bytes, Framing::Stream).unwrap();
        let message = index.view(&bytes);
        let mut rewrite = Rewrite::new(message);
        (0..vias).for_each(|_| _ = rewrite.pop_top_via());
        (0..routes).for_each(|_| _ = rewrite.pop_top_route());
        (0..pushed).for_each(|_| _ = rewrite.push_route(b"<sip:new>").push_via(OUR_VIA));
        if last {
            rewrite.pop_last_route();
        }
        let sent = rewrite.to_message().unwrap();
        let sent = sent.view();

        let changed = [HeaderId::Via, HeaderId::Route];
        prop_assert_eq!(lines_without(sent, &changed), lines_without(message, &changed));
        prop_assert_eq!(sent.body(), &body[..]);
        let expect = |id: HeaderId, pops: usize, drop_last: bool, new: &'static [u8]| {
            let mut values: Vec<&[u8]> = message.values(id).collect();
            if drop_last {
                values.pop();
            }
            let kept = values.into_iter().skip(pops);
            std::iter::repeat_n(new, pushed).chain(kept).collect::<Vec<_>>()
        };
        let is_list = |id| message.values(id).all(|value| !value.is_empty());
        if is_list(HeaderId::Via) {
            let found = sent.values(HeaderId::Via).collect::<Vec<_>>();
            prop_assert_eq!(found, expect(HeaderId::Via, vias, false, OUR_VIA));
        }
        if is_list(HeaderId::Route) {
            let found = sent.values(HeaderId::Route).collect::<Vec<_>>();
            prop_assert_eq!(found, expect(HeaderId::Route, routes, last, b"<sip:new>"));
        }
    }

    #[test]
    fn no_octets_at_all_make_a_reader_fail(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        noise in "\\PC{0,80}",
    ) {
        let mut index = Index::new();
        let _ = index.parse(&bytes, Framing::Datagram);
        read_everything(index.view(&bytes));
        let lines = format!("Via: {noise}\r\nTo: {noise}\r\nContact: {noise}\r\n");
        let text = format!("REGISTER {noise} SIP/2.0\r\n{lines}\r\n");
        let _ = index.parse(text.as_bytes(), Framing::Datagram);
        read_everything(index.view(text.as_bytes()));
        // A view of the wrong octets is useless, not dangerous.
        read_everything(index.view(&bytes));
    }

    #[test]
    fn an_address_is_read_back_as_it_was_written(
        display in "(\"([ !#-\\[\\]-~]|\\\\.){0,20}\"|[A-Za-z0-9. !]{0,20})",
        user in "[A-Za-z0-9;?/+&=%41$,-]{1,20}",
        tag in "[A-Za-z0-9.!%*_+`'~-]{1,20}",
    ) {
        let user = user.replace('%', "%41");
        let uri = format!("sip:{user}@example.com;lr");
        let text = format!("{display} <{uri}>;tag={tag}");
        let address = NameAddr::parse(text.as_bytes()).unwrap();

        prop_assert_eq!(address.display_name, display.trim().as_bytes());
        prop_assert_eq!(address.uri_bytes, uri.as_bytes());
        prop_assert_eq!(address.tag(), Some(tag.as_bytes()));
        prop_assert_eq!(address.uri().unwrap().user, Some(user.as_bytes()));
        prop_assert!(address.uri().unwrap().is_equivalent(&address.uri().unwrap()));
    }
}

/// Calls every reader; nothing may panic.
fn read_everything(message: Message<'_>) {
    let _ = message.check_mandatory();
    let _ = (message.method(), message.reason(), message.method_bytes(), message.date(), message.expires());
    if let Ok(sip::Contacts::List(contacts)) = message.contacts() {
        for contact in contacts.flatten() {
            let _ =
                (contact.q(), contact.expires(), contact.uri().map(|uri| uri.address_of_record().is_ok()));
        }
    }
    for via in message.vias().flatten() {
        let _ = (via.rport(), via.received_address(), via.maddr());
    }
    let mut out = Vec::new();
    sip::ResponseBuilder::new(message, 400, b"").to_tag(b"t").write_to(&mut out);
    sip::cancel_for(message, &mut out);
    sip::ack_for(message, message, &mut out);
    let mut rewrite = Rewrite::new(message);
    rewrite.pop_top_via().pop_last_route().mark_top_via([192, 0, 2, 1].into(), 5060).set_max_forwards(1);
    rewrite.set_to_tag(b"t").set_request_uri(b"sip:x").write_to(&mut out);
    let _ = OwnedMessage::from_view(message).view().bytes();
}
