//! Cutting messages out of a stream: however it arrives in pieces, the same messages come out, and what was
//! scanned is not scanned again. Input: how many lengths of pieces, these, then the stream; 0xff in the
//! stream stands for 2,048 octets `x`, so that a short input reaches the limits.
#![no_main]

use fuzz::{Draw, Parts};
use libfuzzer_sys::fuzz_target;
use model::limits;
use sip::{Framing, FramingError, Index, StreamFramer, StreamStep};

/// Expansions of 0xff; more of them stand for nothing.
const EXPANSIONS_MAX: usize = 40;
/// Pieces after which the framer is tested for looking back.
const LOOKS_BACK_MAX: usize = 48;

fuzz_target!(|data: &[u8]| {
    let mut draw = Draw::new(data);
    let cuts: Vec<usize> = (0..draw.below(9)).map(|_| usize::from(draw.octet()) + 1).collect();
    let stream = expand(draw.rest());
    let at_once = read(&stream, &[stream.len().max(1)]);
    for message in &at_once.messages {
        agrees_with_the_parser(message);
    }
    let pings = at_once.events.windows(2).filter(|pair| matches!(pair[1], StreamStep::KeepAlivePing { .. }));
    assert!({ pings }.all(|pair| matches!(pair[0], StreamStep::Pong { .. })), "half a ping is no ping");
    let cuts: &[usize] = if cuts.is_empty() { &[1] } else { &cuts };
    let in_pieces = read(&stream, cuts);

    assert!(in_pieces.steps <= in_pieces.pieces + in_pieces.events.len() + 1, "a step without progress");
    assert_eq!(in_pieces, at_once);
});

/// What came out of a stream.
#[derive(Debug)]
struct Outcome<'s> {
    events: Vec<StreamStep>,
    messages: Vec<&'s [u8]>,
    /// Octets that are left when all has arrived.
    end: Result<usize, FramingError>,
    expected_length: Option<usize>,
    is_inside_message: bool,
    steps: usize,
    pieces: usize,
}

impl PartialEq for Outcome<'_> {
    fn eq(&self, other: &Self) -> bool {
        (&self.events, &self.messages, &self.end) == (&other.events, &other.messages, &other.end)
            && self.expected_length == other.expected_length
            && self.is_inside_message == other.is_inside_message
    }
}

fn expand(compact: &[u8]) -> Vec<u8> {
    let mut expansions = 0;
    let mut stream = Vec::with_capacity(compact.len());
    for &octet in compact {
        if octet != 0xff {
            stream.push(octet);
        } else if expansions < EXPANSIONS_MAX {
            expansions += 1;
            stream.extend_from_slice(&[b'x'; 2_048]);
        }
    }
    stream
}

/// Reads the stream in pieces of these lengths, used again and again.
fn read<'s>(stream: &'s [u8], cuts: &[usize]) -> Outcome<'s> {
    let mut framer = StreamFramer::new();
    let mut outcome = Outcome {
        events: Vec::new(),
        messages: Vec::new(),
        end: Ok(0),
        expected_length: None,
        is_inside_message: false,
        steps: 0,
        pieces: 0,
    };
    let (mut start, mut received) = (0, 0);
    let mut cuts = cuts.iter().copied().cycle();
    let mut looks_back = 0;
    loop {
        let before = received;
        received = stream.len().min(received + cuts.next().unwrap_or(1));
        outcome.pieces += 1;
        if before > start && looks_back < LOOKS_BACK_MAX {
            looks_back += 1;
            does_not_look_back(framer.clone(), &stream[start..received], before - start);
        }
        loop {
            outcome.steps += 1;
            let step = match framer.step(&stream[start..received]) {
                Ok(step) => step,
                Err(error) => {
                    outcome.end = Err(error);
                    return outcome;
                }
            };
            let length = match step {
                StreamStep::NeedMore => break,
                StreamStep::Message { length } => {
                    outcome.messages.push(&stream[start..start + length]);
                    length
                }
                StreamStep::KeepAlivePing { length } | StreamStep::Pong { length } => {
                    assert_eq!((length, &stream[start..start + length]), (2, &b"\r\n"[..]));
                    length
                }
            };
            assert!(0 < length && length <= limits::MESSAGE_BYTES_MAX);
            outcome.events.push(step);
            start += length;
        }
        if received == stream.len() {
            outcome.end = Ok(received - start);
            outcome.expected_length = framer.expected_length();
            outcome.is_inside_message = framer.is_inside_message();
            return outcome;
        }
    }
}

/// The octets that the last step saw are replaced, but for the first two, which tell line ends between
/// messages, and the last, which a line feed is compared with: the framer does not notice before the header
/// section is whole.
fn does_not_look_back(mut framer: StreamFramer, buffered: &[u8], seen: usize) {
    let mut real = framer.clone();
    let expected = real.step(buffered);
    let mut replaced = buffered.to_vec();
    if seen > 3 {
        replaced[2..seen - 1].fill(b'\n');
    }
    let was_inside_body = framer.expected_length().is_some();
    let found = framer.step(&replaced);
    if was_inside_body || expected == Ok(StreamStep::NeedMore) && real.expected_length().is_none() {
        assert_eq!(found, expected, "octets were scanned twice");
    } else if let Err(FramingError::BareLineBreak { at }) = found {
        assert!(at >= seen - 1, "octets were scanned twice");
    }
}

/// The parser finds the same length: two readers never disagree about where a message ends.
fn agrees_with_the_parser(message: &[u8]) {
    let mut index = Index::new();
    match index.parse(message, Framing::Stream) {
        Ok(()) => {
            assert_eq!(index.view(message).bytes(), message);
            let mut again = Index::new();
            again.parse(message, Framing::Datagram).expect("what a stream may carry a datagram may");
            assert_eq!(Parts::of(again.view(message)), Parts::of(index.view(message)));
        }
        Err(
            error @ (FramingError::Empty
            | FramingError::Unterminated
            | FramingError::HeaderSectionTooLarge
            | FramingError::MessageTooLarge
            | FramingError::ContentLength
            | FramingError::ContentLengthMissing
            | FramingError::BodyLength),
        ) => panic!("the framer and the parser disagree: {error}"),
        Err(
            FramingError::RequestLine
            | FramingError::StatusLine
            | FramingError::Version
            | FramingError::HeaderLine { .. }
            | FramingError::BareLineBreak { .. }
            | FramingError::TooManyHeaders,
        ) => {}
    }
}
