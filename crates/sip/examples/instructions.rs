//! Parses and forwards the reference REGISTER as often as told, so that instructions can be counted:
//! `valgrind --tool=callgrind target/debug/examples/instructions 160`, the same with 60, the difference by
//! 100.
//!
//! One round is what a proxy does at least: index the message, check what is mandatory, write down where it
//! came from, count the hop, put its own Via on top, and write it out. The buffers are reused.

use std::{hint::black_box, net::IpAddr, net::Ipv4Addr};

use sip::{Framing, Index, Rewrite};

const REGISTER: &[u8] = include_bytes!("../tests/messages/register.sip");
const VIA: &[u8] = b"SIP/2.0/TLS proxy.example.com:5061;branch=z9hG4bK0.4f1d2c3b5a69788f";
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99));

fn main() {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_u32);
    let mut index = Index::new();
    let mut out = Vec::with_capacity(2_048);
    for _ in 0..rounds {
        forward(&mut index, black_box(REGISTER), &mut out);
        black_box(&out);
    }
    println!("{rounds} messages forwarded, the last with {} octets", out.len());
}

fn forward(index: &mut Index, bytes: &[u8], out: &mut Vec<u8>) {
    out.clear();
    if index.parse(bytes, Framing::Datagram).is_err() {
        return;
    }
    let message = index.view(bytes);
    if message.check_mandatory().is_err() {
        return;
    }
    let hops = message.max_forwards().ok().flatten().unwrap_or(70).saturating_sub(1);
    let mut rewrite = Rewrite::new(message);
    rewrite.mark_top_via(SOURCE, 40_960).set_max_forwards(hops).push_via(VIA);
    rewrite.write_to(out);
}
