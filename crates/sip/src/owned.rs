//! A message that owns its octets.

use std::net::IpAddr;

use bytes::Bytes;
use model::limits;

use crate::{Framing, FramingError, HeaderId, Index, Message, Rewrite, Via, rewrite, scan};

/// Octets that a mark adds at most: rport and received with the longest address.
const MARK_BYTES_MAX: usize = 72;

/// A message with its octets and its index, for those who keep it: transactions, the proxy.
#[derive(Clone, Debug)]
pub struct OwnedMessage {
    bytes: Bytes,
    index: Index,
}

impl OwnedMessage {
    /// Indexes `bytes`, which are kept without a copy.
    ///
    /// Errors: [`FramingError`].
    pub fn parse(bytes: Bytes, framing: Framing) -> Result<Self, FramingError> {
        let mut index = Index::new();
        index.parse(&bytes, framing)?;
        let end = usize::from(index.body.end);
        let begin = usize::from(index.begin);
        if begin == 0 && end == bytes.len() {
            return Ok(Self { bytes, index });
        }
        Ok(Self { bytes: bytes.slice(begin..end), index: index.compact() })
    }

    /// Copies a message that is parsed already, without what stood around it in its datagram.
    pub fn from_view(message: Message<'_>) -> Self {
        Self { bytes: Bytes::copy_from_slice(message.bytes()), index: message.index.compact() }
    }

    /// The same, with where the request came from in its topmost Via, as [`crate::Rewrite::mark_top_via`]
    /// writes it: one copy, and the index is moved instead of made again. `via` is the topmost Via of
    /// `message`.
    ///
    /// Errors: [`FramingError::MessageTooLarge`] when it gets longer than a message may be.
    pub fn from_view_marked(
        message: Message<'_>,
        via: &Via<'_>,
        received: IpAddr,
        port: u16,
    ) -> Result<Self, FramingError> {
        let mut index = message.index.compact();
        let octets = message.bytes();
        let line = index.lines.iter().position(|line| line.id == HeaderId::Via);
        let value = line.and_then(|line| index.lines.get(line)).map(|line| line.value).unwrap_or_default();
        let Some(line) = line.filter(|_| value.of(octets).starts_with(via.text)) else {
            // Empty elements stand before the topmost Via: rare enough to find it the long way.
            return Rewrite::new(message).mark_top_via(received, port).to_message();
        };
        let (before, rest) = scan::cut(octets, usize::from(value.start));
        let (_, others) = scan::cut(value.of(octets), via.text.len());
        let (_, after) = scan::cut(rest, usize::from(value.end - value.start));
        let mut marked = Vec::with_capacity(octets.len() + MARK_BYTES_MAX);
        marked.extend_from_slice(before);
        rewrite::write_marked_value(&mut marked, via, received, port);
        marked.extend_from_slice(others);
        let end = u16::try_from(marked.len()).map_err(|_| FramingError::MessageTooLarge)?;
        marked.extend_from_slice(after);
        if marked.len() > limits::MESSAGE_BYTES_MAX {
            return Err(FramingError::MessageTooLarge);
        }
        index.move_after_value(line, end);
        Ok(Self { bytes: Bytes::from(marked), index })
    }

    /// The message.
    #[inline]
    pub fn view(&self) -> Message<'_> {
        self.index.view(&self.bytes)
    }

    /// The octets, from the start line to the end of the body.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HeaderId;

    #[test]
    fn a_marked_message_has_the_index_that_parsing_it_would_give() {
        let datagram = b"\r\nMESSAGE sip:a@b SIP/2.0\r\nTo: <sip:a@b>\r\n\
            v: SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bK1;rport, SIP/2.0/UDP x;branch=z9hG4bK0\r\n\
            Via: SIP/2.0/TCP y;branch=z9hG4bK9\r\nCall-ID: 1\r\nl: 2\r\n\r\nhi and noise";
        let mut index = Index::new();
        index.parse(datagram, Framing::Datagram).unwrap();
        let view = index.view(datagram);

        for address in ["192.0.2.1", "2001:db8::1"] {
            let address = address.parse().unwrap();
            let marked =
                OwnedMessage::from_view_marked(view, &view.top_via().unwrap(), address, 4_321).unwrap();
            let parsed = OwnedMessage::parse(marked.bytes().clone(), Framing::Stream).unwrap();
            let rewritten = crate::Rewrite::new(view).mark_top_via(address, 4_321).to_message().unwrap();

            assert_eq!(format!("{:?}", marked.index), format!("{:?}", parsed.index));
            assert_eq!(marked.view().top_via().unwrap().rport(), Some(Some(4_321)));
            assert_eq!(marked.view().top_via().unwrap().received_address(), Some(address));
            assert_eq!(marked.view().body(), b"hi");
            assert_eq!(
                marked.view().values(HeaderId::Via).collect::<Vec<_>>(),
                rewritten.view().values(HeaderId::Via).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn the_mark_goes_into_the_via_that_is_read_not_into_an_empty_one() {
        let text = b"OPTIONS sip:a@b SIP/2.0\r\nVia: \r\n\
            Via: SIP/2.0/UDP h;branch=z9hG4bK1;received=203.0.113.9\r\nl: 0\r\n\r\n";
        let mut index = Index::new();
        index.parse(text, Framing::Datagram).unwrap();

        let view = index.view(text);
        let via = view.top_via().unwrap();
        let marked = OwnedMessage::from_view_marked(view, &via, [192, 0, 2, 1].into(), 5).unwrap();

        let received = marked.view().top_via().unwrap().received_address();
        assert_eq!(received, Some([192, 0, 2, 1].into()));
    }

    #[test]
    fn a_message_that_grows_too_long_by_its_mark_is_refused() {
        let head = b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP x;rport\r\nContent-Length: ";
        let mut octets = head.to_vec();
        let body = limits::MESSAGE_BYTES_MAX - head.len() - 9;
        octets.extend_from_slice(format!("{body}\r\n\r\n").as_bytes());
        octets.resize(limits::MESSAGE_BYTES_MAX, b'x');
        let mut index = Index::new();
        index.parse(&octets, Framing::Datagram).unwrap();

        let view = index.view(&octets);
        let via = view.top_via().unwrap();
        let marked = OwnedMessage::from_view_marked(view, &via, [192, 0, 2, 1].into(), 5);

        assert!(matches!(marked, Err(FramingError::MessageTooLarge)));
    }

    #[test]
    fn a_kept_message_is_without_what_stood_around_it() {
        let datagram = b"\r\nOPTIONS sip:a@b SIP/2.0\r\nTo: <sip:a@b>\r\nl: 2\r\n\r\nhi and noise";
        let mut index = Index::new();
        index.parse(datagram, Framing::Datagram).unwrap();

        let copied = OwnedMessage::from_view(index.view(datagram));
        let parsed = OwnedMessage::parse(Bytes::from_static(datagram), Framing::Datagram).unwrap();

        for owned in [copied, parsed] {
            assert!(owned.bytes().starts_with(b"OPTIONS") && owned.bytes().ends_with(b"\r\n\r\nhi"));
            assert_eq!(owned.view().bytes(), &owned.bytes()[..]);
            assert_eq!(owned.view().request_uri(), b"sip:a@b");
            assert_eq!(owned.view().header(HeaderId::To), Some(&b"<sip:a@b>"[..]));
            assert_eq!(owned.view().body(), b"hi");
        }
    }
}
