//! A message that owns its octets.

use bytes::Bytes;

use crate::{Framing, FramingError, Index, Message};

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
