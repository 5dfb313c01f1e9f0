//! The octets by which a message finds its transaction (RFC 3261 sections 17.1.3 and 17.2.3).
//!
//! A key is the canonical form of what the RFC compares, without the method, which the table's entry holds:
//! the branches of INVITE, ACK and CANCEL are then one key. Two equal keys are equal octet for octet.
//! Tokens and hosts are compared without case (7.3.1), so they are kept in lower case; each part has its
//! length before it, so that no part can pass for two. The token of an unknown method is part of the key:
//! at most as many transactions as there are known methods share a key, whatever the peer sends.

use sip::{HeaderError, HeaderId, Message, Method, Via};
use smallvec::SmallVec;

/// A key at rest. 64 octets hold the key of a usual branch and an IPv4 sent-by without another allocation.
pub(crate) type Key = SmallVec<[u8; 64]>;

const MAGIC_COOKIE: &[u8] = b"z9hG4bK";
const FORM_BRANCH: u8 = 0;
const FORM_HEADERS: u8 = 1;

/// How a request names its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// By a branch parameter that is unique.
    Branch,
    /// By several headers, as clients of RFC 2543 do, and those that send the magic cookie and nothing
    /// after it (RFC 4475 section 3.2.1).
    Headers,
}

/// The To tag in the key of a request of RFC 2543.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToTag {
    /// The one in the request.
    AsSent,
    /// None: an ACK has the tag of the response where its INVITE had none.
    Absent,
}

/// Writes the key of the server transaction of `request` into `out`.
///
/// Errors: a header that is needed is missing or malformed.
pub(crate) fn of_request(
    out: &mut Vec<u8>,
    request: Message<'_>,
    to_tag: ToTag,
) -> Result<Form, HeaderError> {
    of_request_with(out, request, &request.top_via()?, to_tag)
}

/// As [`of_request`], with the topmost Via of `request` at hand.
pub(crate) fn of_request_with(
    out: &mut Vec<u8>,
    request: Message<'_>,
    via: &Via<'_>,
    to_tag: ToTag,
) -> Result<Form, HeaderError> {
    out.clear();
    let form = match unique_part(via) {
        Some(unique) => {
            out.push(FORM_BRANCH);
            push_folded(out, unique);
            push_sent_by(out, via);
            Form::Branch
        }
        None => {
            out.push(FORM_HEADERS);
            push_headers(out, request, via, to_tag)?;
            Form::Headers
        }
    };
    push_unknown_method(out, request.method(), request.method_bytes());
    Ok(form)
}

/// Writes the key of the client transaction of `message`, request or response, into `out`; returns its
/// method.
///
/// Errors: a header that is needed is missing or malformed, the branch included.
pub(crate) fn of_client(out: &mut Vec<u8>, message: Message<'_>) -> Result<Method, HeaderError> {
    let via = message.top_via()?;
    let branch = via.branch().ok_or(HeaderError::Malformed { header: HeaderId::Via })?;
    let cseq = message.cseq()?;
    out.clear();
    out.push(FORM_BRANCH);
    push_folded(out, branch);
    push_unknown_method(out, cseq.method, cseq.method_bytes);
    Ok(cseq.method)
}

/// What follows the magic cookie in the branch parameter; `None` when there is nothing unique.
fn unique_part<'a>(via: &Via<'a>) -> Option<&'a [u8]> {
    let (cookie, unique) = via.branch()?.split_at_checked(MAGIC_COOKIE.len())?;
    (cookie.eq_ignore_ascii_case(MAGIC_COOKIE) && !unique.is_empty()).then_some(unique)
}

fn push_headers(
    out: &mut Vec<u8>,
    request: Message<'_>,
    via: &Via<'_>,
    to_tag: ToTag,
) -> Result<(), HeaderError> {
    push_exact(out, request.request_uri());
    push_folded(out, request.from()?.tag().unwrap_or_default());
    match to_tag {
        ToTag::AsSent => push_folded(out, request.to()?.tag().unwrap_or_default()),
        ToTag::Absent => push_folded(out, &[]),
    }
    push_exact(out, request.call_id()?);
    out.extend_from_slice(&request.cseq()?.number.to_be_bytes());
    push_folded(out, via.protocol_token);
    push_folded(out, via.branch().unwrap_or_default());
    push_sent_by(out, via);
    Ok(())
}

fn push_sent_by(out: &mut Vec<u8>, via: &Via<'_>) {
    push_folded(out, via.host);
    out.extend_from_slice(&via.port.unwrap_or(0).to_be_bytes());
}

fn push_unknown_method(out: &mut Vec<u8>, method: Method, token: &[u8]) {
    if method == Method::Other {
        push_exact(out, token);
    }
}

fn push_exact(out: &mut Vec<u8>, part: &[u8]) {
    // No part is longer than a message, 65,535 octets.
    out.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(part);
}

fn push_folded(out: &mut Vec<u8>, part: &[u8]) {
    push_exact(out, part);
    let start = out.len() - part.len();
    if let Some(folded) = out.get_mut(start..) {
        folded.make_ascii_lowercase();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sip::{Framing, OwnedMessage};

    use super::*;

    fn message(method: &str, via: &str) -> OwnedMessage {
        let text = format!(
            "{method} sip:b@h SIP/2.0\r\nVia: {via}\r\nFrom: <sip:a@h>;tag=A\r\nTo: <sip:b@h>;tag=B\r\n\
             Call-ID: c\r\nCSeq: 1 {method}\r\n\r\n"
        );
        OwnedMessage::parse(Bytes::from(text), Framing::Datagram).unwrap()
    }

    fn key(method: &str, via: &str) -> (Form, Vec<u8>) {
        let mut out = b"left over".to_vec();
        let form = of_request(&mut out, message(method, via).view(), ToTag::AsSent).unwrap();
        (form, out)
    }

    #[test]
    fn invite_ack_and_cancel_share_a_key_and_an_unknown_method_does_not() {
        let via = "SIP/2.0/UDP h;branch=z9hG4bKx";
        assert_eq!(key("INVITE", via), key("ACK", via));
        assert_eq!(key("INVITE", via), key("CANCEL", via));
        assert_ne!(key("INVITE", via), key("WINK", via));
        assert_ne!(key("NUDGE", via), key("WINK", via));
    }

    #[test]
    fn no_part_of_a_key_can_pass_for_two() {
        assert_ne!(
            key("INFO", "SIP/2.0/UDP bc;branch=z9hG4bKa"),
            key("INFO", "SIP/2.0/UDP c;branch=z9hG4bKab")
        );
        assert_ne!(key("AB", "SIP/2.0/UDP h;branch=z9hG4bKa"), key("B", "SIP/2.0/UDP hA;branch=z9hG4bKa"));
        assert_ne!(key("INFO", "SIP/2.0/UDP h;branch=a"), key("INFO", "SIP/2.0/UDP h;branch=z9hG4bKa"));
    }

    #[test]
    fn the_magic_cookie_alone_names_nothing() {
        for (branch, form) in [
            (";branch=z9hG4bKx", Form::Branch),
            (";branch=Z9HG4BKx", Form::Branch),
            (";branch=z9hG4bK", Form::Headers),
            (";branch=x", Form::Headers),
            (";branch", Form::Headers),
            ("", Form::Headers),
        ] {
            assert_eq!(key("INFO", &format!("SIP/2.0/UDP h{branch}")).0, form, "{branch}");
        }
    }

    #[test]
    fn the_to_tag_of_an_old_ack_can_be_left_out() {
        let ack = message("ACK", "SIP/2.0/UDP h");
        let (mut with, mut without) = (Vec::new(), Vec::new());
        of_request(&mut with, ack.view(), ToTag::AsSent).unwrap();
        of_request(&mut without, ack.view(), ToTag::Absent).unwrap();
        assert_ne!(with, without);
    }
}
