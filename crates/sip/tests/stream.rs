//! However a stream is cut into pieces, the same messages come out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use proptest::prelude::*;
use sip::{Framing, FramingError, Index, StreamFramer, StreamStep};

/// What came out of a stream, and how it ended.
type Outcome = (Vec<(StreamStep, Vec<u8>)>, Option<FramingError>);

/// Feeds the pieces one after the other, as a connection does.
fn feed(pieces: &[&[u8]]) -> Outcome {
    let mut framer = StreamFramer::new();
    let mut buffer = Vec::new();
    let mut steps = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match framer.step(&buffer) {
                Ok(StreamStep::NeedMore) => break,
                Ok(
                    step @ (StreamStep::Message { length }
                    | StreamStep::KeepAlivePing { length }
                    | StreamStep::Pong { length }),
                ) => {
                    steps.push((step, buffer.drain(..length).collect()));
                }
                Err(error) => return (steps, Some(error)),
            }
        }
    }
    (steps, None)
}

fn split<'a>(stream: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    at.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for to in at.into_iter().chain([stream.len()]) {
        pieces.push(&stream[from..to]);
        from = to;
    }
    pieces
}

fn message(body: &[u8], spelling: usize) -> Vec<u8> {
    let length =
        ["Content-Length: ", "l:", "CONTENT-LENGTH \t:\r\n  ", "Subject: x\r\n y\r\nl : 0"][spelling % 4];
    let text = format!(
        "MESSAGE sip:b@h SIP/2.0\r\nVia: SIP/2.0/TCP h\r\n{length}{}\r\nCall-ID: x\r\n\r\n",
        body.len()
    );
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Whole messages, with bodies that look like line ends and messages, and keep-alives between them.
fn stream() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let body = prop::collection::vec(prop::sample::select(b"\r\n:lx 0SIP/2".to_vec()), 0..40);
    let part = prop_oneof![
        4 => (body, 0_usize..4).prop_map(|(body, spelling)| message(&body, spelling)),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"\r\n\r\n".to_vec()),
    ];
    prop::collection::vec(part, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_split_gives_the_same_messages(
        parts in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let whole = parts.concat();
        let expected: Vec<Vec<u8>> = parts.iter().filter(|part| part.starts_with(b"M")).cloned().collect();

        let (steps, error) = feed(&split(&whole, &cuts));

        prop_assert_eq!(error, None);
        prop_assert_eq!(&feed(&[&whole[..]]), &(steps.clone(), error));
        let is_message = |step: &StreamStep| matches!(step, StreamStep::Message { .. });
        let found = steps.into_iter().filter(|(step, _)| is_message(step));
        let messages: Vec<Vec<u8>> = found.map(|(_, bytes)| bytes).collect();
        for message in &messages {
            prop_assert_eq!(Index::new().parse(message, Framing::Stream), Ok(()));
        }
        prop_assert_eq!(messages, expected);
    }

    #[test]
    fn damage_is_found_alike_in_any_split(
        parts in stream(),
        at in any::<prop::sample::Index>(),
        octet in prop::sample::select(b"\r\n:;l9 \0".to_vec()),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut whole = parts.concat();
        let place = at.index(whole.len());
        whole[place] = octet;

        prop_assert_eq!(feed(&split(&whole, &cuts)), feed(&[&whole[..]]));
    }
}

#[test]
fn every_single_cut_of_two_messages_gives_both() {
    let whole = [message(b"one\r\n\r\n", 0), b"\r\n\r\n".to_vec(), message(b"", 2)].concat();
    let expected = feed(&[&whole[..]]);
    assert_eq!(expected.0.len(), 4);
    for at in 0..=whole.len() {
        let (first, second) = whole.split_at(at);
        assert_eq!(feed(&[first, second]), expected, "cut at {at}");
    }
    let octets: Vec<&[u8]> = whole.chunks(1).collect();
    assert_eq!(feed(&octets), expected);
}

#[test]
fn a_ping_is_told_after_a_message_and_only_once() {
    let (steps, error) = feed(&[&message(b"", 1)[..], b"\r", b"\n\r", b"\n", b"\r\n"]);

    assert_eq!(error, None);
    let kinds: Vec<StreamStep> = steps.into_iter().skip(1).map(|(step, _)| step).collect();
    let (pong, ping) = (StreamStep::Pong { length: 2 }, StreamStep::KeepAlivePing { length: 2 });
    assert_eq!(kinds, [pong, ping, pong]);
}

#[test]
fn the_limit_of_a_header_section_does_not_depend_on_where_a_piece_ends() {
    let max = model::limits::HEADER_SECTION_BYTES_MAX;
    let with_section = |length: usize, end: &str| {
        let start = "OPTIONS sip:a SIP/2.0\r\nl: 0\r\nX: ";
        let filling = "x".repeat(length - start.len() - 2);
        format!("{start}{filling}\r\n{end}").into_bytes()
    };
    let too_large = Some(FramingError::HeaderSectionTooLarge);
    let cases = [
        (with_section(max, "\r\n"), None),
        (with_section(max, "\r"), None),
        (with_section(max, "\rY\r\n"), too_large),
        (with_section(max, "Y"), too_large),
        (with_section(max, "\n"), Some(FramingError::BareLineBreak { at: max })),
        (with_section(max, "YY\n"), too_large),
        (with_section(max + 1, "\r\n"), too_large),
    ];
    for (stream, error) in cases {
        let at_once = feed(&[&stream]);
        for cut in max - 4..=stream.len() {
            let (before, after) = stream.split_at(cut);
            assert_eq!(feed(&[before, after]), at_once, "cut at {cut}");
        }
        let octets: Vec<&[u8]> = stream[max - 4..].chunks(1).collect();
        assert_eq!(feed(&[&[&stream[..max - 4]], &octets[..]].concat()), at_once);
        assert_eq!(at_once.1, error);
    }
}
