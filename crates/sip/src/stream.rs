//! Cutting messages out of a stream.

use model::limits;

use crate::{
    FramingError, HeaderId,
    scan::{self, TOKEN},
};

/// What stands at the start of the octets received so far. Drop `length` octets, then ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStep {
    /// One whole message; parse it with [`crate::Framing::Stream`].
    Message {
        /// Octets of the message.
        length: usize,
    },
    /// The second half of a double CRLF: answer with one CRLF (RFC 5626 section 4.4.1).
    KeepAlivePing {
        /// Octets, 2.
        length: usize,
    },
    /// One CRLF: the answer to our own ping, or the first half of one; nothing to do.
    Pong {
        /// Octets, 2.
        length: usize,
    },
    /// Nothing whole yet.
    NeedMore,
}

/// Finds message after message in a stream, however it was cut into pieces. Each octet of a header section is
/// looked at twice at most; memory is one fixed struct.
///
/// After an error the stream is of no more use: where the next message starts is unknown.
#[derive(Clone, Debug, Default)]
pub struct StreamFramer {
    /// Where the line under examination starts.
    line: usize,
    /// Octets in which no further line end is.
    scanned: usize,
    /// Octets of the message, once its header section is whole.
    length: Option<usize>,
    /// The last thing seen was a single CRLF.
    is_half_ping: bool,
}

impl StreamFramer {
    /// A framer at the start of a stream.
    pub const fn new() -> Self {
        Self { line: 0, scanned: 0, length: None, is_half_ping: false }
    }

    /// Looks at what was received and not yet dropped; always starts where the last whole step ended.
    ///
    /// Errors: [`FramingError`]: a bare CR or LF where a line ends, Content-Length missing, malformed or
    /// repeated, or a header section or message above the limits, before the rest of it is received. Source:
    /// RFC 3261 section 18.3.
    pub fn step(&mut self, buffered: &[u8]) -> Result<StreamStep, FramingError> {
        let length = match self.length {
            Some(length) => length,
            None => {
                if let Some(step) = self.keep_alive(buffered)? {
                    return Ok(step);
                }
                let Some(headers_end) = self.headers_end(buffered)? else { return Ok(StreamStep::NeedMore) };
                let length = message_length(buffered, headers_end)?;
                self.length = Some(length);
                length
            }
        };
        if buffered.len() < length {
            return Ok(StreamStep::NeedMore);
        }
        *self = Self::new();
        Ok(StreamStep::Message { length })
    }

    /// How many octets the message under examination has; `None` until its header section is whole.
    pub const fn expected_length(&self) -> Option<usize> {
        self.length
    }

    /// Whether a message has begun and is not whole: what the limit on the time for one message counts.
    pub const fn is_inside_message(&self) -> bool {
        self.scanned > 0
    }

    /// Line ends between messages.
    fn keep_alive(&mut self, buffered: &[u8]) -> Result<Option<StreamStep>, FramingError> {
        match buffered {
            [] | [b'\r'] => Ok(Some(StreamStep::NeedMore)),
            [b'\r', b'\n', ..] => {
                self.is_half_ping = !self.is_half_ping;
                let length = 2;
                let is_ping = !self.is_half_ping;
                Ok(Some(if is_ping {
                    StreamStep::KeepAlivePing { length }
                } else {
                    StreamStep::Pong { length }
                }))
            }
            [b'\r' | b'\n', ..] => Err(FramingError::BareLineBreak { at: 0 }),
            _ => Ok(None),
        }
    }

    /// Offset of the empty line.
    fn headers_end(&mut self, buffered: &[u8]) -> Result<Option<usize>, FramingError> {
        loop {
            let rest = buffered.get(self.scanned..).unwrap_or_default();
            let found = memchr::memchr(b'\n', rest).map(|found| self.scanned + found);
            self.check_header_section(buffered, found.unwrap_or(buffered.len()))?;
            let Some(at) = found else {
                self.scanned = buffered.len();
                return Ok(None);
            };
            if at == 0 || buffered.get(at - 1) != Some(&b'\r') {
                return Err(FramingError::BareLineBreak { at });
            }
            if at == self.line + 1 {
                return Ok(Some(self.line));
            }
            self.line = at + 1;
            self.scanned = at + 1;
        }
    }

    /// Counts the octets up to `end`, but for a lone CR where a line starts: it may be half of the empty
    /// line, which is no part of the section. Asked before every line end, so that it is the same wherever a
    /// piece ends.
    fn check_header_section(&self, buffered: &[u8], end: usize) -> Result<(), FramingError> {
        let is_half_empty_line = buffered.get(self.line..end) == Some(b"\r");
        let length = if is_half_empty_line { self.line } else { end };
        if length > limits::HEADER_SECTION_BYTES_MAX {
            return Err(FramingError::HeaderSectionTooLarge);
        }
        Ok(())
    }
}

/// Length of the whole message whose header section ends with the empty line at `headers_end`.
fn message_length(buffered: &[u8], headers_end: usize) -> Result<usize, FramingError> {
    let (section, _) = scan::cut(buffered, headers_end);
    let body = content_length(section)?.ok_or(FramingError::ContentLengthMissing)?;
    let length = usize::try_from(body).ok().and_then(|body| body.checked_add(headers_end + 2));
    length.filter(|&length| length <= limits::MESSAGE_BYTES_MAX).ok_or(FramingError::MessageTooLarge)
}

/// Reads Content-Length only; [`crate::Index::parse`] reads all and compares.
fn content_length(section: &[u8]) -> Result<Option<u32>, FramingError> {
    let mut found = None;
    let mut rest = after_line(section);
    while !rest.is_empty() {
        let line = rest;
        rest = after_line(rest);
        if !matches!(line.first(), Some(b'c' | b'C' | b'l' | b'L')) {
            continue;
        }
        let (name, after) = scan::cut(line, scan::run(line, TOKEN));
        if HeaderId::from_name(name) != HeaderId::ContentLength {
            continue;
        }
        while matches!(rest.first(), Some(b' ' | b'\t')) {
            rest = after_line(rest);
        }
        let (value, _) = scan::cut(after, after.len() - rest.len());
        let Some(value) = scan::trim_start(value).strip_prefix(b":") else { continue };
        let length = scan::number(scan::trim(value)).ok_or(FramingError::ContentLength)?;
        if found.replace(length).is_some() {
            return Err(FramingError::ContentLength);
        }
    }
    Ok(found)
}

fn after_line(bytes: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
    bytes.get(end..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "OPTIONS sip:a SIP/2.0\r\nCall-ID: x\r\nCONTENT-LENGTH :\r\n 3\r\nTo: a\r\n\r\nabc";

    fn error(text: &str) -> FramingError {
        StreamFramer::new().step(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn messages_and_line_ends_are_told_apart() {
        let text = format!("\r\n\r\n{MESSAGE}\r\n{MESSAGE}");
        let mut rest = text.as_bytes();
        let mut framer = StreamFramer::new();
        let mut steps = Vec::new();
        loop {
            let step = framer.step(rest).unwrap();
            steps.push(step);
            match step {
                StreamStep::Message { length }
                | StreamStep::KeepAlivePing { length }
                | StreamStep::Pong { length } => {
                    rest = &rest[length..];
                }
                StreamStep::NeedMore => break,
            }
        }

        let message = StreamStep::Message { length: MESSAGE.len() };
        let (pong, ping) = (StreamStep::Pong { length: 2 }, StreamStep::KeepAlivePing { length: 2 });
        assert_eq!(steps, [pong, ping, message, pong, message, StreamStep::NeedMore]);
    }

    #[test]
    fn octet_by_octet_nothing_is_scanned_anew() {
        let mut framer = StreamFramer::new();
        for end in 1..MESSAGE.len() {
            assert_eq!(framer.step(&MESSAGE.as_bytes()[..end]), Ok(StreamStep::NeedMore));
            assert!(framer.length.is_some() || framer.scanned == end || MESSAGE.as_bytes()[end - 1] == b'\n');
            assert!(framer.is_inside_message());
        }
        assert_eq!(framer.expected_length(), Some(MESSAGE.len()));
        assert_eq!(framer.step(MESSAGE.as_bytes()), Ok(StreamStep::Message { length: MESSAGE.len() }));
        assert!(!framer.is_inside_message());
    }

    #[test]
    fn a_stream_without_a_sure_length_is_given_up() {
        let start = "OPTIONS sip:a SIP/2.0\r\n";
        assert_eq!(error(&format!("{start}\r\n")), FramingError::ContentLengthMissing);
        assert_eq!(error(&format!("{start}l: x\r\n\r\n")), FramingError::ContentLength);
        assert_eq!(error(&format!("{start}l: 1\r\nl: 1\r\n\r\n")), FramingError::ContentLength);
        assert_eq!(error(&format!("{start}l: 65536\r\n\r\n")), FramingError::MessageTooLarge);
        assert_eq!(error(&format!("{start}l: 4294967296\r\n\r\n")), FramingError::ContentLength);
        assert_eq!(error("OPTIONS sip:a SIP/2.0\n"), FramingError::BareLineBreak { at: 21 });
        assert_eq!(error("\n"), FramingError::BareLineBreak { at: 0 });
        assert_eq!(error("\rx"), FramingError::BareLineBreak { at: 0 });
        assert_eq!(error("l: 5\r\n\r\n"), FramingError::ContentLengthMissing);
    }

    #[test]
    fn an_endless_header_section_is_given_up_at_its_limit() {
        let endless = "x".repeat(limits::HEADER_SECTION_BYTES_MAX + 1);
        assert_eq!(error(&endless), FramingError::HeaderSectionTooLarge);

        let lines =
            format!("OPTIONS sip:a SIP/2.0\r\n{}", "X: y\r\n".repeat(limits::HEADER_SECTION_BYTES_MAX / 6));
        assert_eq!(error(&lines), FramingError::HeaderSectionTooLarge);
    }
}
