//! SIP as a crowd writes and reads it: requests written straight into octets, answers scanned for the little
//! that is needed. Independent of our own parser.

use std::{io::Write, net::SocketAddr};

/// What begins every branch of a crowd; the slot and its turn follow in hexadecimal.
const BRANCH: &[u8] = b"z9hG4bKcr";
/// What begins the tag of every phone of a crowd; its user part follows.
const PHONE_TAG: &str = "ph-";
/// Session descriptions are of no interest here, but an INVITE has one.
const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

/// Which transaction a branch belongs to: the slot, and how often the slot was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// Number of the slot.
    pub slot: usize,
    /// Its use.
    pub count: u32,
}

/// A request to be written.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Method.
    pub method: &'a str,
    /// Request-URI.
    pub uri: &'a str,
    /// Where answers go: the sending socket.
    pub local: SocketAddr,
    /// Transaction.
    pub turn: Turn,
    /// User part of From.
    pub from: &'a str,
    /// To as written, a tag included.
    pub to: &'a str,
    /// Call-ID, and tag of From.
    pub call_id: &'a str,
    /// CSeq number.
    pub cseq: u32,
    /// Route set.
    pub routes: &'a [String],
    /// Credentials: header name and value.
    pub credentials: Option<(&'a str, &'a str)>,
    /// `Expires` of a REGISTER; its Contact is the sending socket.
    pub expires: Option<u32>,
}

impl Request<'_> {
    /// The request as it is sent.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1_024);
        let body = match self.method {
            "INVITE" => SDP,
            "MESSAGE" => "hello",
            _ => "",
        };
        // Writing into memory does not fail.
        let _ = self.write_into(&mut out, body);
        out
    }

    fn write_into(&self, out: &mut Vec<u8>, body: &str) -> std::io::Result<()> {
        let Turn { slot, count } = self.turn;
        write!(
            out,
            "{} {} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKcr{slot:x}-{count:x};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{}@example.com>;tag={}\r\nTo: {}\r\nCall-ID: {}\r\n\
             CSeq: {} {}\r\n",
            self.method,
            self.uri,
            self.local,
            self.from,
            self.call_id,
            self.to,
            self.call_id,
            self.cseq,
            self.method
        )?;
        for route in self.routes {
            write!(out, "Route: {route}\r\n")?;
        }
        if let Some((name, value)) = self.credentials {
            write!(out, "{name}: {value}\r\n")?;
        }
        if let Some(expires) = self.expires {
            write!(out, "Expires: {expires}\r\nSupported: path\r\n")?;
        }
        if self.expires.is_some() || self.method == "INVITE" {
            write!(out, "Contact: <sip:{}@{}>\r\n", self.from, self.local)?;
        }
        match self.method {
            "INVITE" => out.write_all(b"Content-Type: application/sdp\r\n")?,
            "MESSAGE" => out.write_all(b"Content-Type: text/plain\r\n")?,
            _ => {}
        }
        write!(out, "Content-Length: {}\r\n\r\n{body}", body.len())
    }
}

/// Status code of a response.
pub fn status(octets: &[u8]) -> Option<u16> {
    let code = octets.strip_prefix(b"SIP/2.0 ")?.get(..3)?;
    std::str::from_utf8(code).ok()?.parse().ok()
}

/// The transaction of a response: the branch of its first Via.
pub fn turn(octets: &[u8]) -> Option<Turn> {
    let at = octets.windows(BRANCH.len()).position(|window| window == BRANCH)?;
    let rest = octets.get(at + BRANCH.len()..)?;
    let end = rest.iter().position(|octet| !octet.is_ascii_hexdigit() && *octet != b'-')?;
    let (slot, count) = std::str::from_utf8(rest.get(..end)?).ok()?.split_once('-')?;
    Some(Turn { slot: usize::from_str_radix(slot, 16).ok()?, count: u32::from_str_radix(count, 16).ok()? })
}

/// Whether a response was made by the phone of this user: nobody else writes such a tag.
pub fn is_from_phone(octets: &[u8], user: &str) -> bool {
    let head = std::str::from_utf8(octets).unwrap_or_default();
    head.lines().any(|line| {
        let tag = line.strip_prefix("To:").and_then(|to| to.split(";tag=").nth(1));
        tag.and_then(|tag| tag.trim().strip_prefix(PHONE_TAG)) == Some(user)
    })
}

/// What a phone of the crowd, reached at `local`, answers to a request: 200 to all. `None`: nothing (ACK, or
/// no request).
pub fn answer(octets: &[u8], local: SocketAddr) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(octets).ok()?;
    let mut lines = text.lines();
    let mut start = lines.next()?.split(' ');
    let (method, uri) = (start.next()?, start.next()?);
    if method == "ACK" || start.next() != Some("SIP/2.0") {
        return None;
    }
    let user = uri.strip_prefix("sip:")?.split('@').next()?;
    let mut out = Vec::with_capacity(1_024);
    out.extend_from_slice(b"SIP/2.0 200 OK\r\n");
    for line in lines.take_while(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default().trim();
        let is_kept = ["via", "from", "to", "call-id", "cseq", "record-route", "v", "f", "t", "i"]
            .iter()
            .any(|kept| name.eq_ignore_ascii_case(kept));
        if !is_kept {
            continue;
        }
        out.extend_from_slice(line.as_bytes());
        if matches!(name, "To" | "t") && !line.contains(";tag=") {
            out.extend_from_slice(format!(";tag={PHONE_TAG}{user}").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    let body = if method == "INVITE" { SDP } else { "" };
    if method == "INVITE" {
        out.extend_from_slice(
            format!("Contact: <sip:{user}@{local}>\r\nContent-Type: application/sdp\r\n").as_bytes(),
        );
    }
    out.extend_from_slice(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    fn message() -> Vec<u8> {
        let local = "127.0.0.9:7000".parse().unwrap();
        let request = Request {
            method: "MESSAGE",
            uri: "sip:c00012@127.0.0.8:7000",
            local,
            turn: Turn { slot: 0x1f, count: 3 },
            from: "k001",
            to: "<sip:c00012@example.com>",
            call_id: "7",
            cseq: 1,
            routes: &[],
            credentials: None,
            expires: None,
        };
        request.write()
    }

    #[test]
    fn the_answer_of_a_phone_is_recognised_by_its_transaction_and_its_tag() {
        let answer = answer(&message(), "127.0.0.8:7000".parse().unwrap()).unwrap();

        assert_eq!(status(&answer), Some(200));
        assert_eq!(turn(&answer), Some(Turn { slot: 0x1f, count: 3 }));
        assert!(is_from_phone(&answer, "c00012"));
        assert!(!is_from_phone(&answer, "c00013"));
    }

    #[test]
    fn what_a_crowd_writes_is_a_whole_message() {
        let octets = message();

        let (message, length) = Message::read(&octets).unwrap();

        assert_eq!(length, octets.len());
        assert_eq!(message.method(), Some("MESSAGE"));
        assert_eq!(message.body, b"hello");
    }
}
