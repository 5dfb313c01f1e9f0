//! Responses of our own.

use std::net::SocketAddr;

use smallvec::SmallVec;

use crate::{
    HeaderId, Message, reason_phrase,
    rewrite::{write_line, write_marked_top_via, write_number_line, write_to_value},
    scan,
};

/// Builds the response to a request: Via, From, To, Call-ID and CSeq are copied line by line as they came
/// (RFC 3261 section 8.2.6.2), in a 100 also Timestamp.
#[derive(Clone, Debug)]
pub struct ResponseBuilder<'a> {
    request: Message<'a>,
    status: u16,
    reason: &'a [u8],
    to_tag: Option<&'a [u8]>,
    received_from: Option<SocketAddr>,
    has_record_routes: bool,
    headers: SmallVec<[(&'a str, &'a [u8]); 8]>,
    content_type: &'a [u8],
    body: &'a [u8],
}

impl<'a> ResponseBuilder<'a> {
    /// A response with this status, 100 to 699; an empty `reason` stands for the usual phrase.
    pub fn new(request: Message<'a>, status: u16, reason: &'a [u8]) -> Self {
        Self {
            request,
            status,
            reason,
            to_tag: None,
            received_from: None,
            has_record_routes: false,
            headers: SmallVec::new(),
            content_type: &[],
            body: &[],
        }
    }

    /// The tag that To gets, unless it has one or this is a 100 (RFC 3261 section 8.2.6.2).
    #[must_use]
    pub fn to_tag(mut self, tag: &'a [u8]) -> Self {
        self.to_tag = Some(tag);
        self
    }

    /// Writes into the topmost Via where the request came from, when that was not done as it was received
    /// (RFC 3261 section 18.2.1, RFC 3581 section 4).
    #[must_use]
    pub fn received_from(mut self, address: SocketAddr) -> Self {
        self.received_from = Some(address);
        self
    }

    /// Adds a header line; `name` is a token. A line break in the value is written as a space.
    #[must_use]
    pub fn header(mut self, name: &'a str, value: &'a [u8]) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Copies the Record-Route lines of the request (RFC 3261 section 12.1.1).
    #[must_use]
    pub fn record_routes(mut self) -> Self {
        self.has_record_routes = true;
        self
    }

    /// The body and its Content-Type.
    #[must_use]
    pub fn body(mut self, content_type: &'a [u8], body: &'a [u8]) -> Self {
        self.content_type = content_type;
        self.body = body;
        self
    }

    /// Appends the response to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.reserve(1_024 + self.body.len());
        out.extend_from_slice(b"SIP/2.0 ");
        scan::push_number(out, u32::from(self.status));
        out.push(b' ');
        let reason = if self.reason.is_empty() { reason_phrase(self.status).as_bytes() } else { self.reason };
        scan::push_line_text(out, reason);
        out.extend_from_slice(b"\r\n");
        let copied = self.copied();
        let tag = self.to_tag.filter(|_| self.status > 100);
        let mut mark = self.received_from;
        for header in self.request.headers().filter(|header| copied & header.id.bit() != 0) {
            if header.id == HeaderId::Via
                && !header.value.is_empty()
                && let Some(from) = mark.take()
            {
                out.extend_from_slice(header.name);
                out.extend_from_slice(b": ");
                write_marked_top_via(out, header.value, from.ip(), from.port());
                out.extend_from_slice(b"\r\n");
            } else if header.id == HeaderId::To && tag.is_some() {
                out.extend_from_slice(header.name);
                out.extend_from_slice(b": ");
                write_to_value(out, header.value, tag);
                out.extend_from_slice(b"\r\n");
            } else {
                out.extend_from_slice(header.line);
            }
        }
        for &(name, value) in &self.headers {
            write_line(out, name.as_bytes(), value);
        }
        if !self.content_type.is_empty() {
            write_line(out, HeaderId::ContentType.name().as_bytes(), self.content_type);
        }
        write_number_line(out, HeaderId::ContentLength, u32::try_from(self.body.len()).unwrap_or(u32::MAX));
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.body);
    }

    fn copied(&self) -> u128 {
        let always = HeaderId::Via.bit()
            | HeaderId::From.bit()
            | HeaderId::To.bit()
            | HeaderId::CallId.bit()
            | HeaderId::CSeq.bit();
        let timestamp = if self.status == 100 { HeaderId::Timestamp.bit() } else { 0 };
        let record_route = if self.has_record_routes { HeaderId::RecordRoute.bit() } else { 0 };
        always | timestamp | record_route
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Framing, Index};

    const REQUEST: &str = "INVITE sip:b@example.com SIP/2.0\r\n\
        v: SIP/2.0/UDP h1;branch=z9hG4bK1,\r\n SIP/2.0/UDP h2\r\n\
        Via: SIP/2.0/UDP h3\r\n\
        Record-Route: <sip:p;lr>\r\n\
        From: <sip:a@example.com>;tag=f\r\n\
        To: <sip:b@example.com>\r\n\
        i: x@y\r\nCSeq: 1 INVITE\r\nTimestamp: 54\r\nSubject: s\r\nl: 0\r\n\r\n";

    fn respond(build: impl Fn(Message<'_>) -> Vec<u8>) -> String {
        let mut index = Index::new();
        index.parse(REQUEST.as_bytes(), Framing::Datagram).unwrap();
        let out = build(index.view(REQUEST.as_bytes()));
        let mut again = Index::new();
        again.parse(&out, Framing::Stream).unwrap();
        again.view(&out).check_mandatory().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_trying_has_the_timestamp_and_no_tag() {
        let text = respond(|request| {
            let mut out = Vec::new();
            ResponseBuilder::new(request, 100, b"").to_tag(b"t").write_to(&mut out);
            out
        });

        assert!(text.starts_with(
            "SIP/2.0 100 Trying\r\nv: SIP/2.0/UDP h1;branch=z9hG4bK1,\r\n SIP/2.0/UDP h2\r\nVia: "
        ));
        assert!(text.contains("Timestamp: 54\r\n") && text.contains("To: <sip:b@example.com>\r\n"));
        assert!(!text.contains("Record-Route") && !text.contains("Subject"));
        assert!(text.ends_with("Content-Length: 0\r\n\r\n"));
    }

    #[test]
    fn the_topmost_via_of_a_response_says_where_an_unmarked_request_came_from() {
        let mut index = Index::new();
        let request = REQUEST.replacen("h1;branch=z9hG4bK1", "h1;rport;branch=z9hG4bK1", 1);
        index.parse(request.as_bytes(), Framing::Datagram).unwrap();
        let mut out = Vec::new();

        let from = "192.0.2.7:5099".parse().unwrap();
        ResponseBuilder::new(index.view(request.as_bytes()), 200, b"").received_from(from).write_to(&mut out);

        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(
            "v: SIP/2.0/UDP h1;rport=5099;branch=z9hG4bK1;received=192.0.2.7,\r\n SIP/2.0/UDP h2\r\n\
             Via: SIP/2.0/UDP h3\r\n"
        ));
    }

    #[test]
    fn a_final_response_has_what_it_was_given() {
        let text = respond(|request| {
            let mut out = Vec::new();
            ResponseBuilder::new(request, 200, b"Fine\r\n")
                .to_tag(b"t")
                .header("Contact", b"<sip:b@h>")
                .record_routes()
                .body(b"text/plain", b"hello")
                .write_to(&mut out);
            out
        });

        assert!(text.starts_with("SIP/2.0 200 Fine  \r\n"));
        assert!(
            text.contains("To: <sip:b@example.com>;tag=t\r\n")
                && text.contains("Record-Route: <sip:p;lr>\r\n")
        );
        assert!(
            text.contains("Contact: <sip:b@h>\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
        );
        assert!(!text.contains("Timestamp"));
    }
}
