//! Requests that follow from a request already sent: CANCEL, and ACK for a final response that is not 2xx.

use crate::{
    HeaderId, Message,
    rewrite::{write_line, write_number_line},
};

/// Hops of a request that starts here (RFC 3261 section 8.1.1.6).
const MAX_FORWARDS: u32 = 70;

/// Appends the CANCEL for an INVITE as it was sent: same Request-URI, topmost Via, From, To, Call-ID, CSeq
/// number and Route (RFC 3261 section 9.1).
pub fn cancel_for(invite: Message<'_>, out: &mut Vec<u8>) {
    write(invite, b"CANCEL", invite.header(HeaderId::To).unwrap_or_default(), out);
}

/// Appends the ACK for a final response above 299 to an INVITE as it was sent: To with the tag of the
/// response, the rest as in [`cancel_for`] (RFC 3261 section 17.1.1.3).
pub fn ack_for(invite: Message<'_>, response: Message<'_>, out: &mut Vec<u8>) {
    let to = response.header(HeaderId::To).or_else(|| invite.header(HeaderId::To));
    write(invite, b"ACK", to.unwrap_or_default(), out);
}

fn write(invite: Message<'_>, method: &[u8], to: &[u8], out: &mut Vec<u8>) {
    out.reserve(512);
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(invite.request_uri());
    out.extend_from_slice(b" SIP/2.0\r\n");
    if let Some(via) = invite.values(HeaderId::Via).next() {
        write_raw(out, HeaderId::Via, via);
    }
    for line in invite.headers().filter(|header| header.id == HeaderId::Route) {
        out.extend_from_slice(line.line);
    }
    write_number_line(out, HeaderId::MaxForwards, MAX_FORWARDS);
    write_raw(out, HeaderId::From, invite.header(HeaderId::From).unwrap_or_default());
    write_raw(out, HeaderId::To, to);
    write_line(out, HeaderId::CallId.name().as_bytes(), invite.header(HeaderId::CallId).unwrap_or_default());
    out.extend_from_slice(b"CSeq: ");
    crate::scan::push_number(out, invite.cseq().map_or(0, |cseq| cseq.number));
    out.push(b' ');
    out.extend_from_slice(method);
    out.extend_from_slice(b"\r\n");
    write_number_line(out, HeaderId::ContentLength, 0);
    out.extend_from_slice(b"\r\n");
}

/// Appends a received value, line folds and all.
fn write_raw(out: &mut Vec<u8>, id: HeaderId, value: &[u8]) {
    out.extend_from_slice(id.name().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Framing, Index};

    const INVITE: &str = "INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP me;branch=z9hG4bK1, SIP/2.0/UDP you\r\n\
        Route: <sip:p1;lr>, <sip:p2;lr>\r\nMax-Forwards: 3\r\nRoute: <sip:p3;lr>\r\nf: <sip:a@x>;tag=f\r\n\
        t: <sip:b@x>\r\ni: c@x\r\nCSeq: 314 INVITE\r\nRequire: 100rel\r\nProxy-Require: x\r\nl: 2\r\n\r\nhi";

    const RESPONSE: &str = "SIP/2.0 486 Busy Here\r\nVia: SIP/2.0/UDP me;branch=z9hG4bK1\r\n\
        f: <sip:a@x>;tag=f\r\nt: <sip:b@x>;tag=t\r\ni: c@x\r\nCSeq: 314 INVITE\r\nl: 0\r\n\r\n";

    fn parse(text: &str) -> Index {
        let mut index = Index::new();
        index.parse(text.as_bytes(), Framing::Stream).unwrap();
        index
    }

    #[test]
    fn a_cancel_matches_the_invite_that_was_sent() {
        let mut out = Vec::new();
        cancel_for(parse(INVITE).view(INVITE.as_bytes()), &mut out);

        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "CANCEL sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP me;branch=z9hG4bK1\r\n\
             Route: <sip:p1;lr>, <sip:p2;lr>\r\nRoute: <sip:p3;lr>\r\nMax-Forwards: 70\r\n\
             From: <sip:a@x>;tag=f\r\nTo: <sip:b@x>\r\nCall-ID: c@x\r\n\
             CSeq: 314 CANCEL\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(parse(&text).view(text.as_bytes()).check_mandatory().map(drop), Ok(()));
    }

    #[test]
    fn an_ack_carries_the_tag_of_the_response() {
        let mut out = Vec::new();
        ack_for(parse(INVITE).view(INVITE.as_bytes()), parse(RESPONSE).view(RESPONSE.as_bytes()), &mut out);

        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("ACK sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP me;branch=z9hG4bK1\r\nRoute: "));
        assert!(text.contains("To: <sip:b@x>;tag=t\r\n") && text.contains("CSeq: 314 ACK\r\n"));
        assert!(!text.contains("equire"));
        assert_eq!(parse(&text).view(text.as_bytes()).check_mandatory().map(drop), Ok(()));
    }
}
