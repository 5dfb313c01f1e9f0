//! The hot path takes no memory from the heap once its buffers have grown.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};

use sip::{Framing, HeaderId, Index, ResponseBuilder, Rewrite, StreamFramer, StreamStep};

const REGISTER: &[u8] = include_bytes!("messages/register.sip");
const INVITE: &[u8] = include_bytes!("messages/invite.sip");
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99));

/// Parses, checks, reads and forwards one message.
fn forward(index: &mut Index, bytes: &[u8], out: &mut Vec<u8>) {
    out.clear();
    index.parse(bytes, Framing::Datagram).unwrap();
    let message = index.view(bytes);
    message.check_mandatory().unwrap();
    assert!(message.from().unwrap().tag().is_some());
    assert!(message.to().unwrap().uri().is_ok());
    assert!(message.top_via().unwrap().branch().is_some());
    assert!(message.tokens(HeaderId::Supported).filter(|token| token.is_ok()).count() > 2);
    let mut rewrite = Rewrite::new(message);
    rewrite.mark_top_via(SOURCE, 40_960).set_max_forwards(69).pop_top_route();
    rewrite
        .push_via(b"SIP/2.0/UDP proxy.example.com;branch=z9hG4bK1")
        .push_record_route(b"<sip:proxy.example.com;lr>");
    rewrite.write_to(out);
}

fn respond(index: &mut Index, bytes: &[u8], out: &mut Vec<u8>) {
    out.clear();
    index.parse(bytes, Framing::Stream).unwrap();
    let builder = ResponseBuilder::new(index.view(bytes), 200, b"").to_tag(b"tag").record_routes();
    builder
        .header("Date", b"Sat, 13 Nov 2010 23:29:00 GMT")
        .header("Contact", b"<sip:a@b>;expires=600")
        .write_to(out);
}

fn cut(framer: &mut StreamFramer, bytes: &[u8]) {
    assert_eq!(framer.step(bytes), Ok(StreamStep::Message { length: bytes.len() }));
}

#[test]
fn parsing_and_forwarding_allocate_nothing() {
    let mut index = Index::new();
    let mut out = Vec::new();
    forward(&mut index, INVITE, &mut out);
    forward(&mut index, REGISTER, &mut out);

    let used = allocation_counter::measure(|| {
        for _ in 0..100 {
            forward(&mut index, REGISTER, &mut out);
            forward(&mut index, INVITE, &mut out);
        }
    });

    assert_eq!(used.count_total, 0);
    assert!(out.len() > INVITE.len());
}

#[test]
fn cutting_a_stream_and_responding_allocate_nothing() {
    let mut index = Index::new();
    let mut out = Vec::new();
    let mut framer = StreamFramer::new();
    respond(&mut index, INVITE, &mut out);

    let used = allocation_counter::measure(|| {
        for bytes in [REGISTER, INVITE] {
            cut(&mut framer, bytes);
            respond(&mut index, bytes, &mut out);
        }
    });

    assert_eq!(used.count_total, 0);
}

#[test]
fn a_hostile_message_takes_no_more_memory_than_the_limits_say() {
    let lines = "a:b\r\n".repeat(6_000);
    let message = format!("OPTIONS sip:a SIP/2.0\r\n{lines}\r\n");
    let mut index = Index::new();

    let used = allocation_counter::measure(|| {
        assert!(index.parse(message.as_bytes(), Framing::Datagram).is_err());
    });

    assert!(used.bytes_max <= 16_384, "{used:?}");
}
