//! Our branch parameters, and how a request that comes back is recognised. Source: RFC 3261 section 16.6 step
//! 8 and RFC 5393 section 4.2.
//!
//! A branch parameter is `prefix unique . mark`: the prefix carries the magic cookie and steers responses to
//! the shard, `unique` tells branches apart, and `mark` is a keyed hash of all that decides where a request
//! goes. The key belongs to one server, so an equal mark is the proof that this very server made it: no list
//! of sent-by values is needed, and a partner that forwards the same request is not taken for a loop.

use std::hash::Hasher;

use sip::{HeaderId, Message};
use siphasher::sip::SipHasher13;
use smallvec::SmallVec;

/// What every branch parameter of RFC 3261 begins with.
pub(crate) const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

/// Octets after the prefix: two numbers of 16 hexadecimal digits and a dot.
const SUFFIX_BYTES: usize = 33;

/// The part of a branch parameter that depends on everything that decides where the request goes, and not on
/// the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoopMark(u64);

impl LoopMark {
    /// The mark of a request as received.
    pub(crate) fn of(request: Message<'_>, key: u64) -> Self {
        let mut hasher = SipHasher13::new_with_keys(key, 0x6c6f_6f70_2d6d_6172);
        part(&mut hasher, request.request_uri());
        for id in [HeaderId::Route, HeaderId::ProxyRequire, HeaderId::ProxyAuthorization] {
            for value in request.values(id) {
                part(&mut hasher, value);
            }
            hasher.write_u8(0xff);
        }
        part(&mut hasher, request.call_id().unwrap_or_default());
        hasher.write_u32(request.cseq().map_or(0, |cseq| cseq.number));
        part(&mut hasher, tag(request.from()));
        part(&mut hasher, tag(request.to()));
        Self(hasher.finish())
    }
}

/// The tag of a From or To; empty when there is none.
pub(crate) fn tag<'a>(address: Result<sip::NameAddr<'a>, sip::HeaderError>) -> &'a [u8] {
    address.ok().and_then(|address| address.tag()).unwrap_or_default()
}

/// Feeds one field, so that no two lists of fields look the same.
pub(crate) fn part(hasher: &mut SipHasher13, octets: &[u8]) {
    hasher.write_usize(octets.len());
    hasher.write(octets);
}

/// Whether the request was forwarded by this server before, with nothing changed that decides where it goes.
pub(crate) fn has_looped(request: Message<'_>, key: u64) -> bool {
    let mut own = None;
    for value in request.values(HeaderId::Via) {
        let Some(mark) = mark_in_via(value) else { continue };
        if *own.get_or_insert_with(|| LoopMark::of(request, key)) == mark {
            return true;
        }
    }
    false
}

/// The mark in a Via value, when its branch parameter has the shape of ours. A value nobody can read is not
/// ours.
fn mark_in_via(value: &[u8]) -> Option<LoopMark> {
    let branch = sip::Via::parse(value)?.branch()?;
    let at = branch.len().checked_sub(SUFFIX_BYTES)?;
    let (prefix, suffix) = branch.split_at_checked(at)?;
    if !prefix.starts_with(MAGIC_COOKIE) {
        return None;
    }
    let (unique, mark) = suffix.split_at_checked(16)?;
    hex(unique)?;
    hex(mark.strip_prefix(b".")?).map(LoopMark)
}

fn hex(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    let is_plain = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if is_plain { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// A branch parameter value.
pub(crate) fn branch_parameter(prefix: &[u8], unique: u64, mark: LoopMark) -> SmallVec<[u8; 64]> {
    let mut branch = SmallVec::from_slice(prefix);
    push_hex(&mut branch, unique);
    branch.push(b'.');
    push_hex(&mut branch, mark.0);
    branch
}

fn push_hex(out: &mut SmallVec<[u8; 64]>, number: u64) {
    for shift in (0..16).rev() {
        let digit = number >> (shift * 4) & 0xf;
        let digit = u32::try_from(digit).ok().and_then(|digit| char::from_digit(digit, 16)).unwrap_or('0');
        out.push(u8::try_from(digit).unwrap_or(b'0'));
    }
}
