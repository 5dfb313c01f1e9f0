//! Responses of our own.

use std::{hash::Hasher, time::Duration};

use bytes::Bytes;
use model::{Peer, Protocol, ServerTransaction};
use proxy::{Reject, reject_response};
use sip::{Message, Method, ResponseBuilder, reason_phrase};
use siphasher::sip::SipHasher13;
use tracing::debug;

use super::Shard;
use crate::storm;

/// Retry-After when a table is full.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(5);

impl Shard {
    /// Answers in a server transaction with these headers and a fresh To tag.
    pub(super) fn answer(
        &mut self,
        server: ServerTransaction,
        request: Message<'_>,
        status: u16,
        headers: &[(&str, &[u8])],
    ) {
        let tag = hexadecimal(self.chance.bits());
        self.out.clear();
        let mut builder =
            ResponseBuilder::new(request, status, reason_phrase(status).as_bytes()).to_tag(&tag);
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        builder.write_to(&mut self.out);
        self.send_out(server, status);
    }

    /// Answers in a server transaction with why the request is not forwarded.
    pub(super) fn reject(&mut self, server: ServerTransaction, request: Message<'_>, reject: &Reject) {
        let tag = hexadecimal(self.chance.bits());
        self.out.clear();
        let spread;
        let reject = if let Reject::ServiceUnavailable { retry_after_s } = reject {
            let seconds = storm::spread(Duration::from_secs((*retry_after_s).into()), &mut self.chance);
            spread = Reject::ServiceUnavailable { retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX) };
            &spread
        } else {
            reject
        };
        reject_response(request, reject, &tag, &mut self.out);
        self.send_out(server, reject.status());
    }

    /// Sends what was written into `self.out`.
    pub(super) fn send_out(&mut self, server: ServerTransaction, status: u16) {
        self.call_answered(server, status);
        // One that is not final may be kept for minutes, and would keep its block.
        let is_final = status >= 200;
        let response =
            if is_final { self.answers.keep(&self.out) } else { Bytes::copy_from_slice(&self.out) };
        let now = crate::clock::now();
        if let Err(error) = self.transactions.respond(now, server, status, response) {
            debug!(%error, status, "response not sent");
        }
    }

    /// Answers a request for which there is no transaction; never an ACK (RFC 3261 section 17.1.1.3).
    pub(super) fn answer_statelessly(&mut self, peer: &Peer, request: Message<'_>, status: u16) {
        if request.method() == Method::Ack || !can_be_answered(request) {
            return;
        }
        let seconds = storm::spread(RETRY_AFTER_FULL, &mut self.chance).to_string();
        let headers: &[(&str, &[u8])] =
            if status == 503 { &[("Retry-After", seconds.as_bytes())] } else { &[] };
        self.send_statelessly(peer, request, status, headers);
    }

    /// As a stateless UAS: the same To tag for each copy of the request (RFC 3261 section 8.2.7). The request
    /// need not be marked with where it came from: the response is.
    pub(super) fn send_statelessly(
        &mut self,
        peer: &Peer,
        request: Message<'_>,
        status: u16,
        headers: &[(&str, &[u8])],
    ) {
        let tag = self.stateless_tag(request);
        self.out.clear();
        let mut builder =
            ResponseBuilder::new(request, status, reason_phrase(status).as_bytes()).to_tag(&tag);
        builder = builder.received_from(peer.remote);
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        builder.write_to(&mut self.out);
        let to = response_peer(peer, request);
        let _lost_like_a_datagram = self.sockets.send(&to, &self.out);
    }

    /// A tag that every copy of a request gets again.
    fn stateless_tag(&self, request: Message<'_>) -> [u8; 16] {
        let mut hasher = SipHasher13::new_with_keys(self.shared.loop_key, self.shared.boot);
        hasher.write(request.top_via().ok().and_then(|via| via.branch()).unwrap_or_default());
        hasher.write(request.header(sip::HeaderId::From).unwrap_or_default());
        hasher.write(request.header(sip::HeaderId::CallId).unwrap_or_default());
        hasher.write(request.header(sip::HeaderId::CSeq).unwrap_or_default());
        hexadecimal(hasher.finish())
    }
}

/// A number in sixteen hexadecimal digits, for tags.
pub(super) fn hexadecimal(number: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [b'0'; 16];
    for (at, digit) in (0_u32..).zip(digits.iter_mut().rev()) {
        let value = usize::try_from(number >> (4 * at) & 15).unwrap_or(0);
        *digit = DIGITS.get(value).copied().unwrap_or(b'0');
    }
    digits
}

/// Whether the headers that a response copies can be read. Source: RFC 3261 section 8.2.6.2.
fn can_be_answered(request: Message<'_>) -> bool {
    request.top_via().is_ok()
        && request.header(sip::HeaderId::From).is_some()
        && request.header(sip::HeaderId::To).is_some()
        && request.header(sip::HeaderId::CallId).is_some()
        && request.header(sip::HeaderId::CSeq).is_some()
}

/// Where a stateless response goes: the source address, at the port of Via unless `rport` asked (RFC 3581
/// section 4).
fn response_peer(peer: &Peer, request: Message<'_>) -> Peer {
    let mut to = *peer;
    if peer.protocol == Protocol::Udp
        && let Ok(via) = request.top_via()
        && via.rport().is_none()
    {
        to.remote.set_port(via.port.unwrap_or(5060));
    }
    to
}
