//! Owned octets of a message, compact in memory and on disk.

use std::{fmt, ops::Deref};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
};

/// Owned octets: two words in memory, length and content on disk. Never required to be UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Octets(Box<[u8]>);

impl Deref for Octets {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Octets {
    fn from(octets: &[u8]) -> Self {
        Self(octets.into())
    }
}

impl From<Vec<u8>> for Octets {
    fn from(octets: Vec<u8>) -> Self {
        Self(octets.into())
    }
}

impl fmt::Debug for Octets {
    /// Text with escapes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(OctetsVisitor)
    }
}

struct OctetsVisitor;

impl<'de> Visitor<'de> for OctetsVisitor {
    type Value = Octets;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("octets")
    }

    fn visit_bytes<E: Error>(self, octets: &[u8]) -> Result<Octets, E> {
        Ok(octets.into())
    }

    fn visit_byte_buf<E: Error>(self, octets: Vec<u8>) -> Result<Octets, E> {
        Ok(octets.into())
    }

    /// As JSON writes octets, between servers.
    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Octets, A::Error> {
        let mut octets = Vec::new();
        while let Some(octet) = numbers.next_element::<u8>()? {
            octets.push(octet);
        }
        Ok(octets.into())
    }
}

/// Appends a header value with each fold (line end and the white space around it) as one space.
pub(crate) fn push_unfolded(out: &mut Vec<u8>, value: &[u8]) {
    let mut lines = value.split(|octet| matches!(octet, b'\r' | b'\n')).filter(|line| !line.is_empty());
    if let Some(first) = lines.next() {
        out.extend_from_slice(first);
    }
    for line in lines {
        out.truncate(out.trim_ascii_end().len());
        out.push(b' ');
        out.extend_from_slice(line.trim_ascii_start());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_the_same_after_disk_and_need_one_octet_more_there() {
        let octets = Octets::from(&b"\xff\0sip"[..]);

        let disk = postcard::to_allocvec(&octets).unwrap();

        assert_eq!(disk.len(), octets.len() + 1);
        assert_eq!(postcard::from_bytes::<Octets>(&disk).unwrap(), octets);
    }

    #[test]
    fn a_folded_value_becomes_one_line() {
        let mut out = Vec::new();
        push_unfolded(&mut out, b"<sip:a>;x=\"b \r\n\t c\",\r\n <sip:d>");

        assert_eq!(out, b"<sip:a>;x=\"b c\", <sip:d>");
    }
}
