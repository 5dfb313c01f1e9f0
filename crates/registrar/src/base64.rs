//! Base64 with the alphabet for URLs and without padding (RFC 4648 section 5): it needs no escape in the user
//! part of a SIP URI.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Appends these octets as text.
pub(crate) fn write(octets: &[u8], out: &mut Vec<u8>) {
    for group in octets.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, &octet| bits << 8 | u32::from(octet)) << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            let value = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or(0);
            out.push(ALPHABET.get(value).copied().unwrap_or(b'A'));
        }
    }
}

/// Reads what [`write`] wrote; `None` for anything else.
pub(crate) fn read(text: &[u8]) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for &character in group {
            bits = bits << 6 | value_of(character)?;
        }
        bits <<= 6 * (4 - group.len());
        let [_, one, two, three] = bits.to_be_bytes();
        match group.len() {
            4 => octets.extend([one, two, three]),
            3 if three == 0 => octets.extend([one, two]),
            2 if two == 0 && three == 0 => octets.push(one),
            _ => return None,
        }
    }
    Some(octets)
}

fn value_of(character: u8) -> Option<u32> {
    Some(u32::from(match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(octets: &[u8]) -> String {
        let mut out = Vec::new();
        write(octets, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_vectors_of_rfc_4648_section_10_are_read_and_written() {
        for (octets, expected) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(text(octets.as_bytes()), expected);
        }
        assert_eq!(text(&[0xfb, 0xff]), "-_8");
        for bad in ["Z", "Zh", "Zm9", "Zg==", "Z g", "+/8"] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(octets in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(read(text(&octets).as_bytes()), Some(octets));
        }
    }
}
