//! Headers that hold a list: the values between commas, over all lines.

use crate::{HeaderId, Message, index::Line, scan};

/// The values of one header in order, commas and repeated lines alike (RFC 3261 section 7.3.1). Each is
/// trimmed; an element between two commas may be empty, an empty line has no values.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    bytes: &'a [u8],
    lines: std::slice::Iter<'a, Line>,
    id: HeaderId,
    split: Split<'a>,
}

impl<'a> Values<'a> {
    pub(crate) fn new(message: Message<'a>, id: HeaderId) -> Self {
        let is_there = id == HeaderId::Other || message.has(id);
        let lines = if is_there { message.index.lines.as_slice() } else { &[] };
        Self { bytes: message.bytes, lines: lines.iter(), id, split: Split::new(&[]) }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            if let Some(value) = self.split.next() {
                return Some(value);
            }
            let line = self.lines.by_ref().find(|line| line.id == self.id)?;
            self.split = Split::new(line.value.of(self.bytes));
        }
    }
}

/// The values of one header line, split at commas that stand outside of quotes and of `<>`.
pub fn split_values(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    Split::new(scan::trim(value))
}

/// Splits one header value; knows where each element stands.
#[derive(Clone, Debug)]
pub(crate) struct Split<'a> {
    bytes: &'a [u8],
    /// `None` after the last element.
    at: Option<usize>,
}

impl<'a> Split<'a> {
    /// `bytes` are trimmed.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: (!bytes.is_empty()).then_some(0) }
    }

    /// Start and end of the next element, white space included.
    #[inline]
    pub(crate) fn next_range(&mut self) -> Option<(usize, usize)> {
        let start = self.at?;
        let end = start + element_length(self.bytes.get(start..)?);
        self.at = (end < self.bytes.len()).then_some(end + 1);
        Some((start, end))
    }
}

impl<'a> Iterator for Split<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (start, end) = self.next_range()?;
        self.bytes.get(start..end).map(scan::trim)
    }
}

/// Octets up to the first comma that separates; all of them when there is none or a quote or `<` never ends.
fn element_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..)
        && let Some(found) = memchr::memchr3(b',', b'"', b'<', rest)
    {
        let (_, from) = scan::cut(rest, found);
        let skipped = match from.first() {
            Some(b'"') => scan::quoted_length(from),
            Some(b'<') => memchr::memchr(b'>', from).map(|close| close + 1),
            _ => return at + found,
        };
        match skipped {
            Some(length) => at += found + length,
            None => break,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(value: &str) -> Vec<&str> {
        split_values(value.as_bytes()).map(|part| std::str::from_utf8(part).unwrap()).collect()
    }

    #[test]
    fn commas_inside_quotes_and_brackets_do_not_separate() {
        assert_eq!(split(r#""a, \" b" <sip:a,b@c> , <sip:d>"#), [r#""a, \" b" <sip:a,b@c>"#, "<sip:d>"]);
        assert_eq!(split("a,b\r\n ,c"), ["a", "b", "c"]);
    }

    #[test]
    fn empty_elements_show_and_empty_lines_do_not() {
        assert_eq!(split("a,,b,"), ["a", "", "b", ""]);
        assert_eq!(split(",a"), ["", "a"]);
        assert_eq!(split("  "), Vec::<&str>::new());
    }

    #[test]
    fn what_never_ends_is_one_value() {
        assert_eq!(split(r#""a, b"#), [r#""a, b"#]);
        assert_eq!(split("<sip:a, b"), ["<sip:a, b"]);
    }
}
