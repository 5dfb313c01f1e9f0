//! The flat index of one message: where its start line, headers and body stand.

use model::limits;

use crate::{
    FramingError, HeaderId, Message, Method,
    scan::{self, TOKEN},
};

// Offsets are kept in 16 bits, so that an index stays small in memory.
const _: () = assert!(limits::MESSAGE_BYTES_MAX <= u16::MAX as usize);

/// What the octets came in; decides what Content-Length may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A datagram: the body is as long as Content-Length says, or the rest when there is none; octets after
    /// it are ignored (RFC 3261 section 18.3). Line ends before the start line are skipped (section 7.5).
    Datagram,
    /// Exactly one message, cut from a stream by [`crate::StreamFramer`] or taken from a WebSocket frame:
    /// Content-Length is there and exact.
    Stream,
}

/// Where one message has its parts. Reuse it: parsing into it allocates nothing once it has grown to the
/// usual number of header lines.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pub(crate) lines: Vec<Line>,
    pub(crate) start: StartLine,
    /// First octet of the start line.
    pub(crate) begin: u16,
    /// First octet after the line end of the start line.
    pub(crate) headers_begin: u16,
    /// First octet of the empty line.
    pub(crate) headers_end: u16,
    pub(crate) body: Span,
    /// Which headers are there, and which of them on more than one line.
    pub(crate) present: u128,
    pub(crate) repeated: u128,
}

/// A range of octets of the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u16,
    pub(crate) end: u16,
}

impl Span {
    fn new(start: usize, end: usize) -> Self {
        Self { start: narrow(start), end: narrow(end) }
    }

    #[inline]
    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(usize::from(self.start)..usize::from(self.end)).unwrap_or_default()
    }
}

/// One header line, folds included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) start: u16,
    pub(crate) name_end: u16,
    /// The value without white space around it.
    pub(crate) value: Span,
    /// After the line end.
    pub(crate) end: u16,
    pub(crate) id: HeaderId,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum StartLine {
    /// Not a message, or not yet.
    #[default]
    Unread,
    Request {
        method: Method,
        method_span: Span,
        uri: Span,
    },
    Response {
        status: u16,
        reason: Span,
    },
}

impl Index {
    /// An empty index.
    pub const fn new() -> Self {
        Self {
            lines: Vec::new(),
            start: StartLine::Unread,
            begin: 0,
            headers_begin: 0,
            headers_end: 0,
            body: Span { start: 0, end: 0 },
            present: 0,
            repeated: 0,
        }
    }

    /// Finds the parts of the message at the start of `bytes`, replacing what was here.
    ///
    /// Checks framing only: the start line, that each header line has a name and a colon, that no bare CR or
    /// LF stands before the body, Content-Length, and the limits of `model::limits`. Values are read later,
    /// by those who need them. After an error [`Self::view`] shows what could be read. Source: RFC 3261
    /// sections 7, 18.3 and 20.14.
    ///
    /// Errors: [`FramingError`], the first one found.
    pub fn parse(&mut self, bytes: &[u8], framing: Framing) -> Result<(), FramingError> {
        self.clear();
        let mut reader = Reader { bytes, index: self, error: None };
        if bytes.len() > limits::MESSAGE_BYTES_MAX {
            reader.object(FramingError::MessageTooLarge);
            reader.bytes = scan::cut(bytes, limits::MESSAGE_BYTES_MAX).0;
        }
        reader.read(framing);
        reader.error.map_or(Ok(()), Err)
    }

    /// The message that was parsed; `bytes` are those given to [`Self::parse`].
    #[inline]
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> Message<'a> {
        Message { index: self, bytes }
    }

    fn clear(&mut self) {
        self.lines.clear();
        self.start = StartLine::Unread;
        self.begin = 0;
        self.headers_begin = 0;
        self.headers_end = 0;
        self.body = Span::default();
        self.present = 0;
        self.repeated = 0;
    }

    /// A copy whose lines take no more memory than they need, for octets that start at this message's first
    /// octet.
    pub(crate) fn compact(&self) -> Self {
        let by = self.begin;
        let moved =
            |span: Span| Span { start: span.start.saturating_sub(by), end: span.end.saturating_sub(by) };
        let lines = self.lines.iter().map(|line| Line {
            start: line.start.saturating_sub(by),
            name_end: line.name_end.saturating_sub(by),
            value: moved(line.value),
            end: line.end.saturating_sub(by),
            id: line.id,
        });
        let start = match self.start {
            StartLine::Unread => StartLine::Unread,
            StartLine::Request { method, method_span, uri } => {
                StartLine::Request { method, method_span: moved(method_span), uri: moved(uri) }
            }
            StartLine::Response { status, reason } => StartLine::Response { status, reason: moved(reason) },
        };
        Self {
            lines: lines.collect(),
            start,
            begin: 0,
            headers_begin: self.headers_begin.saturating_sub(by),
            headers_end: self.headers_end.saturating_sub(by),
            body: moved(self.body),
            present: self.present,
            repeated: self.repeated,
        }
    }
}

impl Index {
    /// The value of a header line now ends at `end`: moves all that stands behind it. The message still fits
    /// its limits.
    pub(crate) fn move_after_value(&mut self, line: usize, end: u16) {
        let Some(changed) = self.lines.get_mut(line) else { return };
        let old = changed.value.end;
        let moved = |at: u16| at.wrapping_sub(old).wrapping_add(end);
        changed.value.end = end;
        changed.end = moved(changed.end);
        for line in self.lines.iter_mut().skip(line + 1) {
            line.start = moved(line.start);
            line.name_end = moved(line.name_end);
            line.value = Span { start: moved(line.value.start), end: moved(line.value.end) };
            line.end = moved(line.end);
        }
        self.headers_end = moved(self.headers_end);
        self.body = Span { start: moved(self.body.start), end: moved(self.body.end) };
    }
}

/// Reads on after a defect wherever the rest can still be told apart, so that the request can be answered.
struct Reader<'b, 'i> {
    bytes: &'b [u8],
    index: &'i mut Index,
    error: Option<FramingError>,
}

impl<'b> Reader<'b, '_> {
    /// Keeps the first objection.
    #[cold]
    fn object(&mut self, error: FramingError) {
        self.error.get_or_insert(error);
    }

    fn read(&mut self, framing: Framing) {
        let mut begin = 0;
        while self.from(begin).starts_with(b"\r\n") {
            begin += 2;
        }
        self.index.begin = narrow(begin);
        if self.from(begin).is_empty() {
            return self.object(FramingError::Empty);
        }
        let Some(line_end) = self.line_end(begin) else { return };
        self.read_start_line(begin, line_end);
        let headers_begin = line_end + 2;
        self.index.headers_begin = narrow(headers_begin);
        if matches!(self.from(headers_begin).first(), Some(b' ' | b'\t')) {
            self.object(FramingError::RequestLine);
        }
        let (headers_end, is_ended) = self.read_headers(headers_begin);
        self.index.headers_end = narrow(headers_end);
        if headers_end - begin > limits::HEADER_SECTION_BYTES_MAX {
            self.object(FramingError::HeaderSectionTooLarge);
        }
        let body = if is_ended { headers_end + 2 } else { headers_end };
        self.read_body(body, framing);
    }

    #[inline]
    fn from(&self, at: usize) -> &'b [u8] {
        self.bytes.get(at..).unwrap_or_default()
    }

    /// Offset of the CRLF that ends the line; `None` after an objection.
    #[inline]
    fn line_end(&mut self, at: usize) -> Option<usize> {
        let Some(length) = memchr::memchr2(b'\r', b'\n', self.from(at)) else {
            self.object(FramingError::Unterminated);
            return None;
        };
        let end = at + length;
        if self.from(end).starts_with(b"\r\n") {
            return Some(end);
        }
        self.object(if end + 1 == self.bytes.len() && self.bytes.ends_with(b"\r") {
            FramingError::Unterminated
        } else {
            FramingError::BareLineBreak { at: end }
        });
        None
    }

    fn read_start_line(&mut self, begin: usize, end: usize) {
        let line = self.bytes.get(begin..end).unwrap_or_default();
        if line.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/")) {
            self.read_status_line(line, end);
        } else {
            self.read_request_line(line, begin);
        }
    }

    fn read_request_line(&mut self, line: &[u8], begin: usize) {
        let method_length = scan::run(line, TOKEN);
        let (method, rest) = scan::cut(line, method_length);
        let version_at = memchr::memrchr(b' ', rest).unwrap_or(0);
        let (uri, version) = scan::cut(rest, version_at);
        let uri = uri.strip_prefix(b" ").unwrap_or_default();
        let is_plain = !uri.is_empty() && memchr::memchr2(b' ', b'\t', uri).is_none();
        let version = version.strip_prefix(b" ").unwrap_or_default();
        if method.is_empty() || !is_plain || !is_version(version) {
            self.object(FramingError::RequestLine);
        } else if !is_supported(version) {
            self.object(FramingError::Version);
        }
        let uri_at = begin + method_length + 1;
        self.index.start = StartLine::Request {
            method: Method::from_bytes(method),
            method_span: Span::new(begin, begin + method_length),
            uri: Span::new(uri_at, uri_at + uri.len()),
        };
    }

    fn read_status_line(&mut self, line: &[u8], end: usize) {
        let version_length = memchr::memchr(b' ', line).unwrap_or(line.len());
        let (version, rest) = scan::cut(line, version_length);
        let (code, after) = scan::cut(rest.strip_prefix(b" ").unwrap_or_default(), 3);
        let status = scan::port(code).filter(|status| code.len() == 3 && (100..=699).contains(status));
        let reason = if after.is_empty() { Some(after) } else { after.strip_prefix(b" ") };
        if !is_version(version) {
            self.object(FramingError::StatusLine);
        } else if !is_supported(version) {
            self.object(FramingError::Version);
        }
        let (Some(status), Some(reason)) = (status, reason) else {
            return self.object(FramingError::StatusLine);
        };
        self.index.start = StartLine::Response { status, reason: Span::new(end - reason.len(), end) };
    }

    /// Returns the offset of the empty line (or of where reading stopped) and whether there is one.
    fn read_headers(&mut self, begin: usize) -> (usize, bool) {
        let mut at = begin;
        loop {
            if self.from(at).starts_with(b"\r\n") {
                return (at, true);
            }
            if self.index.lines.len() >= limits::HEADERS_MAX {
                self.object(FramingError::TooManyHeaders);
                return (at, false);
            }
            let Some(next) = self.read_header(at) else { return (at, false) };
            at = next;
        }
    }

    /// Reads one header line with its folds; returns where the next line starts.
    #[inline]
    fn read_header(&mut self, start: usize) -> Option<usize> {
        let mut end = self.line_end(start)?;
        let mut next = end + 2;
        let line = self.bytes.get(start..end).unwrap_or_default();
        let colon = line.iter().position(|&octet| octet == b':');
        while matches!(self.from(next).first(), Some(b' ' | b'\t')) {
            end = self.line_end(next)?;
            next = end + 2;
        }
        let name = scan::trim(scan::cut(line, colon.unwrap_or(0)).0);
        let id = HeaderId::from_name(name);
        let is_named = id != HeaderId::Other || scan::all(name, TOKEN);
        let (Some(colon), true) = (colon, is_named && line.starts_with(name)) else {
            self.object(FramingError::HeaderLine { at: start });
            return Some(next);
        };
        let raw = self.bytes.get(start + colon + 1..end).unwrap_or_default();
        let from_value = scan::trim_start(raw);
        let value_at = end - from_value.len();
        let value_length = scan::trim(from_value).len();
        if id != HeaderId::Other {
            self.index.repeated |= self.index.present & id.bit();
            self.index.present |= id.bit();
        }
        self.index.lines.push(Line {
            start: narrow(start),
            name_end: narrow(start + name.len()),
            value: Span::new(value_at, value_at + value_length),
            end: narrow(next),
            id,
        });
        Some(next)
    }

    fn read_body(&mut self, at: usize, framing: Framing) {
        let rest = self.from(at).len();
        let length = match self.content_length() {
            Ok(Some(length)) => usize::try_from(length).unwrap_or(usize::MAX),
            Ok(None) => {
                match framing {
                    Framing::Datagram => {}
                    Framing::Stream => self.object(FramingError::ContentLengthMissing),
                }
                rest
            }
            Err(error) => {
                self.object(error);
                rest
            }
        };
        let is_whole = match framing {
            Framing::Datagram => length <= rest,
            Framing::Stream => length == rest,
        };
        if !is_whole {
            self.object(FramingError::BodyLength);
        }
        self.index.body = Span::new(at, at + length.min(rest));
    }

    fn content_length(&self) -> Result<Option<u32>, FramingError> {
        let bit = HeaderId::ContentLength.bit();
        if self.index.present & bit == 0 {
            return Ok(None);
        }
        if self.index.repeated & bit != 0 {
            return Err(FramingError::ContentLength);
        }
        let line = self.index.lines.iter().find(|line| line.id == HeaderId::ContentLength);
        let value = line.map_or(&b""[..], |line| line.value.of(self.bytes));
        scan::number(value).map(Some).ok_or(FramingError::ContentLength)
    }
}

/// `SIP/` digits `.` digits.
fn is_version(version: &[u8]) -> bool {
    let Some((start, numbers)) = version.split_at_checked(4) else { return false };
    let Some(dot) = memchr::memchr(b'.', numbers) else { return false };
    let (major, minor) = scan::cut(numbers, dot);
    let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    start.eq_ignore_ascii_case(b"SIP/") && is_number(major) && is_number(minor.get(1..).unwrap_or_default())
}

fn is_supported(version: &[u8]) -> bool {
    version.eq_ignore_ascii_case(b"SIP/2.0")
}

/// Offsets fit because a message above `limits::MESSAGE_BYTES_MAX` was cut to that length before it was read.
#[inline]
fn narrow(offset: usize) -> u16 {
    u16::try_from(offset).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "OPTIONS sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nl : 2\r\n\r\nhi";

    fn parse(text: &str, framing: Framing) -> Result<Index, FramingError> {
        let mut index = Index::new();
        index.parse(text.as_bytes(), framing).map(|()| index)
    }

    fn error(text: &str) -> FramingError {
        parse(text, Framing::Datagram).unwrap_err()
    }

    #[test]
    fn the_parts_of_a_request_are_found() {
        let index = parse(REQUEST, Framing::Stream).unwrap();
        let message = index.view(REQUEST.as_bytes());

        assert!(message.is_request());
        assert_eq!(message.method(), Method::Options);
        assert_eq!(message.request_uri(), b"sip:a@example.com");
        assert_eq!(message.header(HeaderId::Via), Some(&b"SIP/2.0/UDP h"[..]));
        assert_eq!(message.header(HeaderId::ContentLength), Some(&b"2"[..]));
        assert_eq!(message.body(), b"hi");
        assert_eq!(message.bytes(), REQUEST.as_bytes());
    }

    #[test]
    fn a_datagram_ends_with_its_body_and_may_start_with_line_ends() {
        let text = format!("\r\n\r\n{REQUEST}noise");
        let index = parse(&text, Framing::Datagram).unwrap();

        assert_eq!(index.view(text.as_bytes()).bytes(), REQUEST.as_bytes());
        assert_eq!(parse(&text, Framing::Stream).unwrap_err(), FramingError::BodyLength);
    }

    #[test]
    fn a_folded_value_keeps_its_folds_and_loses_the_space_around() {
        let text = "SIP/2.0 200 OK\r\nSubject:\r\n  one\r\n\ttwo \r\nl:0\r\n\r\n";
        let index = parse(text, Framing::Stream).unwrap();
        let message = index.view(text.as_bytes());

        assert_eq!(message.header(HeaderId::Subject), Some(&b"one\r\n\ttwo"[..]));
        assert_eq!((message.status(), message.reason()), (200, &b"OK"[..]));
    }

    #[test]
    fn two_readers_can_never_disagree_where_a_header_ends() {
        assert_eq!(
            error("OPTIONS sip:a SIP/2.0\r\nTo: a\nVia: b\r\n\r\n"),
            FramingError::BareLineBreak { at: 28 }
        );
        assert_eq!(
            error("OPTIONS sip:a SIP/2.0\r\nTo: a\rVia: b\r\n\r\n"),
            FramingError::BareLineBreak { at: 28 }
        );
        assert_eq!(error("OPTIONS sip:a SIP/2.0\nTo: a\r\n\r\n"), FramingError::BareLineBreak { at: 21 });
    }

    #[test]
    fn content_length_is_digits_only_and_stands_there_once() {
        let with = |lines: &str| format!("OPTIONS sip:a SIP/2.0\r\n{lines}\r\n\r\nbody");
        for bad in [
            "l: -1",
            "l: +1",
            "l: 1 2",
            "l:",
            "l: 4, 4",
            "l: 4\r\nContent-Length: 4",
            "l: 99999999999999999999",
        ] {
            assert_eq!(error(&with(bad)), FramingError::ContentLength, "{bad}");
        }
        assert_eq!(error(&with("l: 5")), FramingError::BodyLength);
        assert!(parse(&with("l: 0004"), Framing::Stream).is_ok());
        assert_eq!(parse(&with("To: a"), Framing::Stream).unwrap_err(), FramingError::ContentLengthMissing);
        assert_eq!(parse(&with("To: a"), Framing::Datagram).unwrap().body.end, 36);
    }

    #[test]
    fn a_start_line_is_exact() {
        let line = |line: &str| parse(&format!("{line}\r\n\r\n"), Framing::Datagram).map(drop);
        for bad in [
            "OPTIONS  sip:a SIP/2.0",
            "OPTIONS sip:a  SIP/2.0",
            "OPTIONS sip:a SIP/2.0 ",
            " OPTIONS sip:a SIP/2.0",
            "OPTIONS sip:a",
            "OPTIONS SIP/2.0",
            "OPTIONS sip:a b SIP/2.0",
            "OPT(IONS sip:a SIP/2.0",
            "OPTIONS sip:a HTTP/1.1",
            "\u{1}",
        ] {
            assert_eq!(line(bad), Err(FramingError::RequestLine), "{bad}");
        }
        for bad in [
            "SIP/2.0 99 x",
            "SIP/2.0 700 x",
            "SIP/2.0 2000 x",
            "SIP/2.0 20 x",
            "SIP/2.0  200 x",
            "SIP/x 200 x",
        ] {
            assert_eq!(line(bad), Err(FramingError::StatusLine), "{bad}");
        }
        assert_eq!(line("OPTIONS sip:a SIP/7.0"), Err(FramingError::Version));
        assert_eq!(line("SIP/3.0 200 OK"), Err(FramingError::Version));
        assert_eq!(line("sip/2.0 200 "), Ok(()));
        assert_eq!(line("!%*_+`'~ x:y sip/2.0"), Ok(()));
    }

    #[test]
    fn limits_hold_before_memory_is_used() {
        let many = format!("OPTIONS sip:a SIP/2.0\r\n{}\r\n", "X: y\r\n".repeat(limits::HEADERS_MAX + 1));
        assert_eq!(error(&many), FramingError::TooManyHeaders);

        let long =
            format!("OPTIONS sip:a SIP/2.0\r\nX: {}\r\n\r\n", "y".repeat(limits::HEADER_SECTION_BYTES_MAX));
        assert_eq!(error(&long), FramingError::HeaderSectionTooLarge);

        let large = format!("OPTIONS sip:a SIP/2.0\r\n\r\n{}", "y".repeat(limits::MESSAGE_BYTES_MAX));
        assert_eq!(error(&large), FramingError::MessageTooLarge);
    }

    #[test]
    fn a_broken_request_still_shows_what_its_answer_needs() {
        let text = "OPTIONS sip:a SIP/7.0\r\nVia: SIP/2.0/UDP h\r\nbad line\r\nCall-ID: x\r\nl: 9\r\n\r\n";
        let mut index = Index::new();

        assert_eq!(index.parse(text.as_bytes(), Framing::Datagram), Err(FramingError::Version));
        let message = index.view(text.as_bytes());
        assert!(message.is_request() && message.top_via().is_ok());
        assert_eq!(message.call_id(), Ok(&b"x"[..]));
    }

    #[test]
    fn a_datagram_of_line_ends_is_a_keep_alive() {
        assert_eq!(error("\r\n\r\n"), FramingError::Empty);
        assert_eq!(error(""), FramingError::Empty);
        assert_eq!(error("OPTIONS sip:a SIP/2.0\r\nTo: a\r\n"), FramingError::Unterminated);
        assert_eq!(error("OPTIONS sip:a SIP/2.0\r\nTo: a\r"), FramingError::Unterminated);
    }
}
