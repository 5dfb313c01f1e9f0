//! Cutting a stream of octets into messages and keep-alives.

use std::mem;

use model::{Protocol, limits};
use sip::{FramingError, StreamFramer, StreamStep};

use crate::websocket::{Over, WebSocket};

/// What a connection is cut by.
pub(crate) enum Framing {
    Stream(Frames),
    WebSocket(WebSocket),
}

/// Why nothing can be read from a connection any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Malformed(Malformed),
    WebSocket(Over),
}

impl Framing {
    pub(crate) const fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Udp | Protocol::Tcp | Protocol::Tls => Self::Stream(Frames::new()),
            Protocol::Ws | Protocol::Wss => Self::WebSocket(WebSocket::new()),
        }
    }

    /// Whether the first octets of a message are there, and not its last.
    pub(crate) fn is_partial(&self) -> bool {
        match self {
            Self::Stream(frames) => frames.is_partial(),
            Self::WebSocket(socket) => socket.is_partial(),
        }
    }

    /// Reads on with `bytes`, giving each whole frame to `each`.
    ///
    /// Errors: [`Broken`]; nothing can be read after it.
    pub(crate) fn feed(&mut self, bytes: &[u8], each: impl FnMut(Frame<'_>)) -> Result<(), Broken> {
        match self {
            Self::Stream(frames) => frames.feed(bytes, each).map_err(Broken::Malformed),
            Self::WebSocket(socket) => socket.feed(bytes, each).map_err(Broken::WebSocket),
        }
    }

    /// What is to be written before we close.
    pub(crate) fn farewell(&mut self) -> Vec<u8> {
        match self {
            Self::Stream(_) => Vec::new(),
            Self::WebSocket(socket) => socket.farewell(),
        }
    }
}

/// The unread rest of one stream. Holds memory only while a message is incomplete.
pub(crate) struct Frames {
    framer: StreamFramer,
    partial: Vec<u8>,
}

/// One thing found in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Message(&'a [u8]),
    /// CRLFCRLF, to be answered with CRLF (RFC 5626 section 3.5.1).
    Ping,
    /// CRLF: an answer to a ping, or a line end before a message (RFC 3261 section 7.5). Ping or pong of a
    /// WebSocket.
    Pong,
    /// The connection is a WebSocket from here on.
    Opened,
    /// What a WebSocket has to answer by itself, ready to be written.
    Answer(&'a [u8]),
}

/// A stream that cannot be read on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// From the start of the bad message, as far as it came.
    pub(crate) bytes: Vec<u8>,
    pub(crate) error: FramingError,
}

impl Frames {
    pub(crate) const fn new() -> Self {
        Self { framer: StreamFramer::new(), partial: Vec::new() }
    }

    /// Whether the first octets of a message are there, and not its last.
    pub(crate) fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Reads on with `bytes`, giving each whole frame to `each`.
    ///
    /// Errors: [`Malformed`]; nothing can be read after it.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Frame<'_>)) -> Result<(), Malformed> {
        let mut joined = mem::take(&mut self.partial);
        let all = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            joined.as_slice()
        };
        let mut rest = all;
        loop {
            let (frame, after) = match self.framer.step(rest) {
                Ok(StreamStep::Message { length }) => {
                    let Some((message, after)) = rest.split_at_checked(length) else { break };
                    (Frame::Message(message), after)
                }
                Ok(StreamStep::KeepAlivePing { length }) => {
                    (Frame::Ping, rest.get(length..).unwrap_or_default())
                }
                Ok(StreamStep::Pong { length }) => (Frame::Pong, rest.get(length..).unwrap_or_default()),
                Ok(StreamStep::NeedMore) => break,
                Err(error) => return Err(Malformed { bytes: rest.to_vec(), error }),
            };
            each(frame);
            rest = after;
        }
        if rest.len() > limits::MESSAGE_BYTES_MAX {
            return Err(Malformed { bytes: rest.to_vec(), error: FramingError::MessageTooLarge });
        }
        let is_untouched = rest.len() == joined.len() && !joined.is_empty();
        self.partial = if is_untouched { joined } else { rest.to_vec() };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 3\r\n\r\none";

    fn feed(frames: &mut Frames, bytes: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        frames
            .feed(bytes, |frame| {
                seen.push(match frame {
                    Frame::Message(message) => String::from_utf8(message.to_vec()).unwrap(),
                    Frame::Ping => "ping".to_owned(),
                    Frame::Pong => "pong".to_owned(),
                    Frame::Opened | Frame::Answer(_) => panic!("{frame:?}"),
                })
            })
            .unwrap();
        seen
    }

    #[test]
    fn frames_are_the_same_however_the_stream_is_cut() {
        let stream = [ONE, b"\r\n\r\n", ONE, ONE].concat();
        let whole = feed(&mut Frames::new(), &stream);
        assert_eq!(whole.len(), 5, "{whole:?}");

        for size in 1..stream.len() {
            let mut frames = Frames::new();
            let seen: Vec<_> = stream.chunks(size).flat_map(|piece| feed(&mut frames, piece)).collect();
            assert_eq!(seen, whole, "pieces of {size}");
            assert!(!frames.is_partial());
        }
    }

    #[test]
    fn memory_is_held_only_while_a_message_is_incomplete() {
        let mut frames = Frames::new();

        feed(&mut frames, ONE);
        assert_eq!(frames.partial.capacity(), 0);
        feed(&mut frames, &ONE[..20]);
        assert!(frames.is_partial());
        feed(&mut frames, &ONE[20..]);
        assert_eq!(frames.partial.capacity(), 0);
    }

    #[test]
    fn after_whole_messages_the_bad_one_is_reported_from_its_start() {
        let mut frames = Frames::new();
        let mut count = 0;

        let stream = [ONE, b"OPTIONS sip:a SIP/2.0\r\n\r\n"].concat();
        let malformed = frames.feed(&stream, |_frame| count += 1).unwrap_err();

        assert_eq!(count, 1);
        assert_eq!(malformed.bytes, b"OPTIONS sip:a SIP/2.0\r\n\r\n");
        assert_eq!(malformed.error, FramingError::ContentLengthMissing);
    }
}
