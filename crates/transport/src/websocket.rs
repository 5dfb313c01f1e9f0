//! Cutting a WebSocket into SIP messages: the upgrade, then one SIP message in each WebSocket message.
//!
//! ```text
//!              request accepted            Close of the far end, or what RFC 6455 forbids
//!   Upgrading ------------------> Open ------------------------------------------------> Over
//!       |                                                                                  ^
//!       +------------------------------- refused ------------------------------------------+
//! ```
//!
//! Pings are answered, fragments put together, and a Close is returned by `tungstenite`, which sees no
//! socket: it reads from the octets that came and writes into those that go. It keeps a buffer as
//! long as the longest message so far, [`limits::MESSAGE_BYTES_MAX`] at most.
//!
//! Source: RFC 6455, RFC 7118 section 5.

use std::{
    io::{self, Read, Write},
    mem, str,
};

use model::limits;
use tungstenite::{
    Error, Message,
    protocol::{
        CloseFrame, Role, WebSocketConfig, WebSocketContext,
        frame::{
            FrameHeader, Utf8Bytes,
            coding::{CloseCode, Data, OpCode},
        },
    },
};

use crate::{
    framing::Frame,
    upgrade::{self, Upgrade},
};

/// Octets that the buffer of an idle connection has.
const BUFFER_BYTES: usize = 1_024;
/// The answer to a CRLFCRLF keep-alive: CRLF as a text message (RFC 5626 section 3.5.1, RFC 7118 section 6).
const PONG: &[u8] = &[0x81, 2, b'\r', b'\n'];
/// The longest header of a frame that a server sends.
const HEADER_BYTES_MAX: usize = 10;

/// One WebSocket from its first octet.
pub(crate) struct WebSocket {
    state: State,
    is_partial: bool,
}

enum State {
    /// The request as far as it came.
    Upgrading(Vec<u8>),
    Open(Box<WebSocketContext>),
    Over,
}

/// Why nothing can be read any more; the answer was given as [`Frame::Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The upgrade was refused.
    Refused,
    /// The far end sent what RFC 6455 forbids, or more than may be.
    Violated,
    /// The far end said that it closes.
    ClosedByPeer,
}

impl WebSocket {
    pub(crate) const fn new() -> Self {
        Self { state: State::Upgrading(Vec::new()), is_partial: false }
    }

    /// Whether octets came after the last whole message.
    pub(crate) const fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Reads on with `bytes`, giving each whole frame to `each`.
    ///
    /// Errors: [`Over`]; nothing can be read after it.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Frame<'_>)) -> Result<(), Over> {
        let result = match &mut self.state {
            State::Upgrading(head) => {
                head.extend_from_slice(bytes);
                match upgrade::read(head) {
                    Upgrade::NeedMore => return Ok(()),
                    Upgrade::Refused { answer } => {
                        each(Frame::Answer(&answer));
                        Err(Over::Refused)
                    }
                    Upgrade::Accepted { answer, length } => {
                        each(Frame::Answer(&answer));
                        each(Frame::Opened);
                        let head = mem::take(head);
                        let mut context = Box::new(WebSocketContext::new(Role::Server, Some(config())));
                        let rest = head.get(length..).unwrap_or_default();
                        let result = read_messages(&mut context, rest, &mut self.is_partial, each);
                        self.state = State::Open(context);
                        result
                    }
                }
            }
            State::Open(context) => read_messages(context, bytes, &mut self.is_partial, each),
            State::Over => Ok(()),
        };
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }

    /// What is said before we close: a Close frame where there is a WebSocket.
    pub(crate) fn farewell(&mut self) -> Vec<u8> {
        match mem::replace(&mut self.state, State::Over) {
            State::Open(mut context) => {
                let mut pipe = Pipe { input: &[], output: Vec::new() };
                close(&mut context, &mut pipe, CloseCode::Normal);
                pipe.output
            }
            State::Upgrading(_) | State::Over => Vec::new(),
        }
    }
}

/// Puts a SIP message into one frame: text where it is UTF-8, else binary (RFC 7118 section 5, RFC 6455
/// section 5.6). `write` gets the header and then the message.
pub(crate) fn frame<T>(message: &[u8], write: impl FnOnce(&[u8], &[u8]) -> T) -> T {
    let data = if str::from_utf8(message).is_ok() { Data::Text } else { Data::Binary };
    let header = FrameHeader { opcode: OpCode::Data(data), ..FrameHeader::default() };
    let mut octets = [0; HEADER_BYTES_MAX];
    let mut rest = octets.as_mut_slice();
    // A slice of this length takes every header without a mask.
    let _fits = header.format(message.len() as u64, &mut rest);
    let length = HEADER_BYTES_MAX - rest.len();
    write(octets.get(..length).unwrap_or_default(), message)
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(limits::MESSAGE_BYTES_MAX))
        .max_frame_size(Some(limits::MESSAGE_BYTES_MAX))
}

/// Reads all messages in `input`; sets whether it ended within one.
fn read_messages(
    context: &mut WebSocketContext,
    input: &[u8],
    is_partial: &mut bool,
    mut each: impl FnMut(Frame<'_>),
) -> Result<(), Over> {
    *is_partial |= !input.is_empty();
    let mut pipe = Pipe { input, output: Vec::new() };
    let result = loop {
        let message = match context.read(&mut pipe) {
            Ok(message) => message,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
            Err(Error::ConnectionClosed) => break Err(Over::ClosedByPeer),
            Err(error) => {
                close(context, &mut pipe, close_code(&error));
                break Err(Over::Violated);
            }
        };
        *is_partial = !pipe.input.is_empty();
        match message {
            Message::Text(text) => each(sip_frame(text.as_bytes())),
            Message::Binary(bytes) => each(sip_frame(&bytes)),
            Message::Ping(_) | Message::Pong(_) => each(Frame::Pong),
            // Answered by the next read.
            Message::Close(_) | Message::Frame(_) => {}
        }
    };
    if !pipe.output.is_empty() {
        each(Frame::Answer(&pipe.output));
    }
    result
}

/// A SIP message, or a keep-alive of CRLFs (RFC 7118 section 6).
fn sip_frame(payload: &[u8]) -> Frame<'_> {
    match payload {
        b"\r\n\r\n" => Frame::Answer(PONG),
        payload if payload.iter().all(|octet| matches!(octet, b'\r' | b'\n')) => Frame::Pong,
        message => Frame::Message(message),
    }
}

/// Writes a Close frame, unless one was written.
fn close(context: &mut WebSocketContext, pipe: &mut Pipe<'_>, code: CloseCode) {
    let frame = CloseFrame { code, reason: Utf8Bytes::from_static("") };
    if context.can_write() {
        // Writing into memory cannot fail.
        let _written = context.close(pipe, Some(frame));
    }
}

/// Source: RFC 6455 section 7.4.1.
fn close_code(error: &Error) -> CloseCode {
    if let Error::Capacity(_) = error {
        CloseCode::Size
    } else if let Error::Utf8(_) = error {
        CloseCode::Invalid
    } else {
        CloseCode::Protocol
    }
}

/// What `tungstenite` takes for a socket.
struct Pipe<'a> {
    input: &'a [u8],
    output: Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
