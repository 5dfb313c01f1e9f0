//! Messages: what is read is what stands there, a copy is a copy, and what a proxy or a server writes can be
//! read again and says what it should. Input: one datagram.
#![no_main]

use std::net::IpAddr;

use bytes::Bytes;
use fuzz::{Parts, is_within, values_of};
use libfuzzer_sys::fuzz_target;
use model::limits;
use sip::{
    CSeq, Contacts, Date, Framing, FramingError, HeaderError, HeaderId, Index, Message, NameAddr,
    OwnedMessage, Parameters, ResponseBuilder, Rewrite, StreamFramer, StreamStep, Via, ack_for, cancel_for,
    split_values,
};

/// Lines that the checks below add at most.
const LINES_ADDED: usize = 8;

fuzz_target!(|data: &[u8]| {
    let mut index = Index::new();
    // An index that held something else before.
    index.parse(b"A b:c SIP/2.0\r\nVia: d\r\nVia: e\r\n\r\nf", Framing::Datagram).unwrap();
    let parsed = index.parse(data, Framing::Datagram);
    let message = index.view(data);
    stands_in_the_octets(message, data);
    is_readable_in_every_view(message);
    let fits = message.headers().count() + LINES_ADDED < limits::HEADERS_MAX;
    if message.is_request() && fits {
        an_answer_can_be_read(message);
    }
    match parsed {
        Ok(()) => {
            prints_again(message);
            is_the_same_as_a_stream(message, data);
            if fits {
                a_copy_is_a_copy(message);
            }
            if fits && message.check_mandatory().is_ok() {
                has_what_is_mandatory(message);
                is_forwarded(message);
            }
        }
        Err(error) => {
            assert!(matches!(error.status(), None | Some(400 | 505 | 513)));
            let mut stream = Index::new();
            assert!(stream.parse(data, Framing::Stream).is_err(), "a stream is stricter than a datagram");
        }
    }
});

fn read(octets: &[u8]) -> OwnedMessage {
    let message = OwnedMessage::parse(Bytes::copy_from_slice(octets), Framing::Stream);
    message.unwrap_or_else(|error| panic!("{error}: {}", octets.escape_ascii()))
}

/// Views are ranges of the octets, and agree with each other.
fn stands_in_the_octets(message: Message<'_>, data: &[u8]) {
    assert!(is_within(message.bytes(), data) && is_within(message.body(), message.bytes()));
    let mut first = Vec::new();
    for header in message.headers() {
        assert!(!header.name.is_empty() && header.line.starts_with(header.name));
        assert!(header.line.ends_with(b"\r\n") && is_within(header.value, header.line));
        assert!(is_trimmed(header.value));
        assert_eq!(HeaderId::from_name(header.name), header.id);
        if header.id == HeaderId::Other {
            let named = message.header_named(&header.name.to_ascii_uppercase());
            assert!(named.is_some());
        } else if !first.contains(&header.id) {
            first.push(header.id);
            assert_eq!(message.header(header.id), Some(header.value));
            assert_eq!(message.header_named(header.name), Some(header.value));
        }
    }
    for &id in HeaderId::KNOWN {
        assert_eq!(message.has(id), first.contains(&id));
        let lines = message.headers().filter(|header| header.id == id);
        assert!(message.values(id).eq(lines.flat_map(|header| split_values(header.value))));
        for value in message.values(id) {
            assert!(is_within(value, message.bytes()) && is_trimmed(value));
        }
    }
}

fn is_trimmed(value: &[u8]) -> bool {
    let is_space = |octet: Option<&u8>| octet.is_some_and(|octet| b" \t\r\n".contains(octet));
    !is_space(value.first()) && !is_space(value.last())
}

/// Every reader, on every header: what it reads prints and reads again equal.
fn is_readable_in_every_view(message: Message<'_>) {
    for &id in HeaderId::KNOWN {
        message.addresses(id).flatten().for_each(address_prints);
        _ = message.number(id);
        assert!(message.tokens(id).flatten().all(|token| !token.is_empty()));
    }
    message.vias().flatten().for_each(via_prints);
    if let Ok(CSeq { number, method, method_bytes }) = message.cseq() {
        let text = [number.to_string().as_bytes(), b" ", method_bytes].concat();
        assert_eq!(CSeq::parse(&text), Some(CSeq { number, method, method_bytes }));
    }
    if let Ok(Some(date)) = message.date() {
        let mut text = Vec::new();
        date.write_to(&mut text);
        assert_eq!(Date::parse(&text), Some(date));
    }
    if let Ok(Contacts::List(list)) = message.contacts() {
        for contact in list.flatten() {
            assert!(contact.q().is_none_or(|thousandths| thousandths <= 1_000));
            assert_eq!(contact.expires().is_some(), contact.parameters.has(b"expires"));
        }
    }
    assert!(!matches!(message.max_forwards(), Ok(Some(256..))));
    _ = (message.from(), message.to(), message.expires(), message.routes().count(), message.method());
}

fn address_prints(address: NameAddr<'_>) {
    let NameAddr { display_name, uri_bytes, parameters } = address;
    let text = [display_name, b"<", uri_bytes, b">", parameters.bytes()].concat();
    let again = NameAddr::parse(&text).expect("a printed address is an address");
    assert_eq!((again.display_name, again.uri_bytes), (display_name, uri_bytes));
    assert!(again.parameters.iter().eq(parameters.iter()));
    assert_eq!(again.uri().map(|uri| uri.host), address.uri().map(|uri| uri.host));
    parameters_print(parameters);
}

fn parameters_print(parameters: Parameters<'_>) {
    let mut text = Vec::new();
    for parameter in parameters.iter() {
        text.extend_from_slice(b";");
        text.extend_from_slice(parameter.name);
        if let Some(value) = parameter.value {
            let mark: &[u8] = if parameter.is_quoted { b"\"" } else { b"" };
            text.extend_from_slice(&[b"=", mark, value, mark].concat());
        }
    }
    let again = Parameters::parse(&text).expect("printed parameters are parameters");
    assert!(again.iter().eq(parameters.iter()));
    assert_eq!(again.is_empty(), parameters.iter().next().is_none());
}

fn via_prints(via: Via<'_>) {
    let port = via.port.map(|port| format!(":{port}")).unwrap_or_default();
    let protocol = [via.protocol_name, via.version, via.protocol_token].join(&b'/');
    let text = [&protocol[..], b" ", via.host, port.as_bytes(), via.parameters.bytes()].concat();
    let again = Via::parse(&text).expect("a printed Via is a Via");
    assert_eq!((again.protocol_token, again.host, again.port), (via.protocol_token, via.host, via.port));
    assert_eq!((again.branch(), again.rport()), (via.branch(), via.rport()));
    assert_eq!((again.received(), again.maddr()), (via.received(), via.maddr()));
    parameters_print(via.parameters);
}

/// Start line, header lines, empty line and body in order are the message.
fn prints_again(message: Message<'_>) {
    let mut start_line = Vec::new();
    if message.is_request() {
        start_line.extend_from_slice(&[message.method_bytes(), message.request_uri()].join(&b' '));
        start_line.extend_from_slice(b" ");
    }
    let mut rest = message.bytes();
    rest = rest.strip_prefix(&start_line[..]).expect("the request line starts with method and Request-URI");
    assert!(rest[..7].eq_ignore_ascii_case(b"SIP/2.0"));
    rest = &rest[7..];
    if !message.is_request() {
        let status = format!(" {}", message.status()).into_bytes();
        rest = rest.strip_prefix(&status[..]).expect("the version is followed by the status");
        rest = rest.strip_prefix(b" ").unwrap_or(rest);
        rest = rest.strip_prefix(message.reason()).expect("the status is followed by the reason");
    }
    let lines: Vec<u8> = message.headers().flat_map(|header| header.line).copied().collect();
    assert_eq!(rest, [b"\r\n", &lines[..], b"\r\n", message.body()].concat());
}

/// The message alone, cut from a stream, says the same.
fn is_the_same_as_a_stream(message: Message<'_>, data: &[u8]) {
    let mut index = Index::new();
    let whole = message.bytes();
    let parsed = index.parse(whole, Framing::Stream);
    if !message.has(HeaderId::ContentLength) {
        assert_eq!(parsed, Err(FramingError::ContentLengthMissing));
        assert_eq!(StreamFramer::new().step(whole), Err(FramingError::ContentLengthMissing));
        return;
    }
    assert_eq!(parsed, Ok(()));
    assert_eq!(Parts::of(index.view(whole)), Parts::of(message));
    assert_eq!(index.view(whole).bytes(), whole);
    assert_eq!(StreamFramer::new().step(whole), Ok(StreamStep::Message { length: whole.len() }));
    let parsed = index.parse(data, Framing::Stream);
    let is_alone = whole.as_ptr_range().end == data.as_ptr_range().end;
    assert_eq!(parsed.is_ok(), is_alone, "a stream has nothing after the message");
}

fn a_copy_is_a_copy(message: Message<'_>) {
    let parts = Parts::of(message);
    let copied = OwnedMessage::from_view(message);
    assert_eq!((&copied.bytes()[..], Parts::of(copied.view())), (message.bytes(), parts.clone()));

    let mut out = Vec::new();
    Rewrite::new(message).write_to(&mut out);
    let unchanged = read(&out);
    if message.has(HeaderId::ContentLength) {
        assert_eq!(out, message.bytes());
    } else {
        let added = unchanged.view().header(HeaderId::ContentLength).expect("Content-Length is added");
        assert_eq!(added, message.body().len().to_string().as_bytes());
        assert_eq!(Parts::of(unchanged.view()).without(&[HeaderId::ContentLength]), parts);
    }
}

/// Even what cannot be read in full can be answered, and the answer goes the same way back.
fn an_answer_can_be_read(message: Message<'_>) {
    let mut out = Vec::new();
    let body = b"why\r\n\r\n\0";
    ResponseBuilder::new(message, 400, b"Bad\r\nRequest")
        .to_tag(b"ours")
        .header("Warning", b"399 x \"a\r\nb\"")
        .record_routes()
        .body(b"text/plain", body)
        .write_to(&mut out);
    let owned = read(&out);
    let response = owned.view();
    assert_eq!(
        (response.status(), response.reason(), response.body()),
        (400, &b"Bad  Request"[..], &body[..])
    );
    for id in [HeaderId::Via, HeaderId::From, HeaderId::CallId, HeaderId::CSeq, HeaderId::RecordRoute] {
        assert_eq!(values_of(response, id), values_of(message, id));
    }
    if let (Ok(before), Ok(after)) = (message.to(), response.to()) {
        assert_eq!(after.uri_bytes, before.uri_bytes);
        gets_a_tag(after, before);
    }
    out.clear();
    ResponseBuilder::new(message, 100, b"").to_tag(b"ours").write_to(&mut out);
    let owned = read(&out);
    assert_eq!(owned.view().reason(), b"Trying");
    for id in [HeaderId::Via, HeaderId::To, HeaderId::Timestamp] {
        assert_eq!(values_of(owned.view(), id), values_of(message, id));
    }
}

/// A tag that is there stays, else it is ours.
fn gets_a_tag(after: NameAddr<'_>, before: NameAddr<'_>) {
    assert_eq!(after.tag(), Some(before.tag().unwrap_or(b"ours")), "a final response has a tag");
    if before.tag().is_none() {
        assert_eq!(after.parameters.get(b"tag"), Some(after.tag()), "no other reader finds another");
    }
}

fn has_what_is_mandatory(message: Message<'_>) {
    assert!(message.top_via().is_ok() && message.from().is_ok() && message.to().is_ok());
    assert!(message.call_id().is_ok() && message.max_forwards().is_ok());
    let count = |id| message.values(id).count();
    assert!(count(HeaderId::Via) <= limits::VIAS_MAX);
    for id in [HeaderId::Route, HeaderId::RecordRoute, HeaderId::Contact, HeaderId::Path, HeaderId::Require] {
        assert!(count(id) <= limits::HEADER_VALUES_MAX);
    }
    let cseq = message.cseq().unwrap();
    assert_eq!(message.method_bytes(), cseq.method_bytes);
    assert_eq!(message.method(), cseq.method);
}

/// What a message still has to satisfy after something was added to it.
fn is_still_sound(message: Message<'_>) {
    match message.check_mandatory() {
        Ok(_) | Err(HeaderError::TooMany { .. }) => {}
        Err(error) => panic!("{error}: {}", message.bytes().escape_ascii()),
    }
}

fn is_forwarded(message: Message<'_>) {
    pops_its_via(message);
    if !message.is_request() {
        return;
    }
    for received in ["192.0.2.99", "::ffff:192.0.2.98", "2001:db8::99"] {
        is_marked(message, received.parse().unwrap());
    }
    if let Some(own) = message.top_via().ok().and_then(Via::host_address) {
        is_marked(message, own);
    }
    for pops in 0..3 {
        goes_to_the_next_hop(message, pops, false);
        goes_to_the_next_hop(message, pops, true);
    }
    is_cancelled_and_acknowledged(message);
}

fn pops_its_via(message: Message<'_>) {
    let mut vias = values_of(message, HeaderId::Via);
    vias.remove(0);
    vias.retain(|via| !via.is_empty());
    let owned = rewritten(message, |rewrite| {
        rewrite.pop_top_via();
    });
    let mut left = values_of(owned.view(), HeaderId::Via);
    left.retain(|via| !via.is_empty());
    assert_eq!(left, vias);
    rest_is_untouched(owned.view(), message, &[HeaderId::Via]);
}

fn rewritten<'a>(message: Message<'a>, change: impl FnOnce(&mut Rewrite<'a>)) -> OwnedMessage {
    let mut rewrite = Rewrite::new(message);
    change(&mut rewrite);
    let mut out = Vec::new();
    rewrite.write_to(&mut out);
    read(&out)
}

fn rest_is_untouched(after: Message<'_>, before: Message<'_>, touched: &[HeaderId]) {
    let touched = [touched, &[HeaderId::ContentLength]].concat();
    let (after, before) = (Parts::of(after).without(&touched), Parts::of(before).without(&touched));
    assert_eq!((after.headers, after.body, after.status), (before.headers, before.body, before.status));
}

/// RFC 3261 section 18.2.1 and RFC 3581: where it came from stands in the topmost Via, whatever stood there.
fn is_marked(message: Message<'_>, received: IpAddr) {
    let owned = rewritten(message, |rewrite| {
        rewrite.mark_top_via(received, 4_711);
    });
    let marked = owned.view();
    is_still_sound(marked);
    has_an_index_that_was_moved(message, marked, received);
    rest_is_untouched(marked, message, &[HeaderId::Via]);
    let (before, after) = (message.top_via().unwrap(), marked.top_via().unwrap());
    let received = received.to_canonical();
    let own = before.host_address().map(|address| address.to_canonical());
    let is_elsewhere = own != Some(received);
    let is_asked = before.parameters.has(b"rport");
    assert_eq!((after.host, after.port, after.branch()), (before.host, before.port, before.branch()));
    assert_eq!(after.rport(), is_asked.then_some(Some(4_711)));
    assert_eq!(after.received_address(), (is_asked || is_elsewhere).then_some(received));
    let others = |via: Via<'_>| {
        let parameters = via.parameters.iter();
        let ours = [&b"rport"[..], b"received"];
        let is_ours = move |name: &[u8]| ours.iter().any(|own| name.eq_ignore_ascii_case(own));
        let others = parameters.filter(move |parameter| !is_ours(parameter.name));
        others.map(|other| (other.name.to_vec(), other.value.map(<[u8]>::to_vec))).collect::<Vec<_>>()
    };
    assert_eq!(others(after), others(before));
    assert_eq!(values_of(marked, HeaderId::Via)[1..], values_of(message, HeaderId::Via)[1..]);
}

/// The short way to a marked message says the same, with the index that parsing it would give.
fn has_an_index_that_was_moved(message: Message<'_>, marked: Message<'_>, received: IpAddr) {
    let via = message.top_via().unwrap();
    let indexed_once = OwnedMessage::from_view_marked(message, &via, received, 4_711).unwrap();
    let again = OwnedMessage::parse(indexed_once.bytes().clone(), Framing::Datagram).unwrap();
    assert_eq!(Parts::of(indexed_once.view()), Parts::of(again.view()), "an index that was moved is right");
    assert_eq!(indexed_once.view().bytes(), again.view().bytes());
    // The long way adds Content-Length and leaves out Via lines without a value.
    rest_is_untouched(again.view(), marked, &[HeaderId::Via]);
    assert_eq!(values_of(again.view(), HeaderId::Via), values_of(marked, HeaderId::Via));
}

/// RFC 3261 section 16.6: our Via and Record-Route on top, some Route values gone, one new.
fn goes_to_the_next_hop(message: Message<'_>, pops: usize, pops_last: bool) {
    let uri = b"sip:next@192.0.2.7:5070;lr";
    let (via, route) = (b"SIP/2.0/TCP me.example;branch=z9hG4bKours", b"<sip:next.example;lr>");
    let owned = rewritten(message, |rewrite| {
        rewrite
            .set_request_uri(uri)
            .push_via(via)
            .set_max_forwards(69)
            .push_record_route(b"<sip:me.example;lr>");
        for _ in 0..pops {
            rewrite.pop_top_route();
        }
        if pops_last {
            rewrite.pop_last_route();
        }
        rewrite.push_route(route).set_to_tag(b"ours");
    });
    let after = owned.view();
    is_still_sound(after);
    let expected = |id, added: &[u8]| {
        let mut values = values_of(message, id);
        values.insert(0, added.to_vec());
        values
    };
    let mut routes = values_of(message, HeaderId::Route);
    if pops_last {
        routes.pop();
    }
    routes.drain(..pops.min(routes.len()));
    routes.insert(0, route.to_vec());
    let mut left = values_of(after, HeaderId::Route);
    for list in [&mut routes, &mut left] {
        list.retain(|value| !value.is_empty());
    }
    assert_eq!(left, routes);
    assert_eq!((after.method_bytes(), after.request_uri()), (message.method_bytes(), &uri[..]));
    assert_eq!(values_of(after, HeaderId::Via), expected(HeaderId::Via, via));
    assert_eq!(
        values_of(after, HeaderId::RecordRoute),
        expected(HeaderId::RecordRoute, b"<sip:me.example;lr>")
    );
    assert_eq!(after.max_forwards(), Ok(Some(69)));
    gets_a_tag(after.to().unwrap(), message.to().unwrap());
    let touched =
        [HeaderId::Via, HeaderId::Route, HeaderId::RecordRoute, HeaderId::MaxForwards, HeaderId::To];
    rest_is_untouched(after, message, &touched);
}

/// RFC 3261 sections 9.1 and 17.1.1.3.
fn is_cancelled_and_acknowledged(message: Message<'_>) {
    let mut out = Vec::new();
    ResponseBuilder::new(message, 486, b"").to_tag(b"theirs").write_to(&mut out);
    let response = read(&out);
    let (mut cancel, mut ack) = (Vec::new(), Vec::new());
    cancel_for(message, &mut cancel);
    ack_for(message, response.view(), &mut ack);
    let (cancel, ack) = (read(&cancel), read(&ack));
    for (request, method) in [(cancel.view(), "CANCEL"), (ack.view(), "ACK")] {
        is_still_sound(request);
        assert_eq!((request.method().as_str(), request.request_uri()), (method, message.request_uri()));
        assert_eq!(values_of(request, HeaderId::Via), values_of(message, HeaderId::Via)[..1]);
        assert_eq!(values_of(request, HeaderId::Route), values_of(message, HeaderId::Route));
        assert_eq!(request.header(HeaderId::From), message.header(HeaderId::From));
        assert_eq!(request.call_id(), message.call_id());
        assert_eq!(request.cseq().unwrap().number, message.cseq().unwrap().number);
    }
    assert_eq!(cancel.view().header(HeaderId::To), message.header(HeaderId::To));
    assert_eq!(ack.view().header(HeaderId::To), response.view().header(HeaderId::To));
}
