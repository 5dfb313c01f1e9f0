//! Writes text into XML 1.0: whatever octets phones sent, the document stays well formed.

/// Appends octets as character data or as the value of an attribute in double quotes.
///
/// Octets that are no UTF-8, and characters that XML cannot hold even escaped, become U+FFFD.
pub(super) fn push(out: &mut String, text: &[u8]) {
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // Unescaped, a reader would turn them into spaces inside an attribute.
            '\t' | '\n' | '\r' => out.push_str(&format!("&#{};", u32::from(character))),
            character if is_character(character) => out.push(character),
            _ => out.push('\u{fffd}'),
        }
    }
}

/// XML 1.0 section 2.2, without the white space above.
fn is_character(character: char) -> bool {
    matches!(character, '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(text: &[u8]) -> String {
        let mut out = String::new();
        push(&mut out, text);
        out
    }

    #[test]
    fn markup_and_line_ends_are_escaped_and_what_xml_cannot_hold_is_replaced() {
        assert_eq!(escaped(b"<a&\"b\">'\t\r\n"), "&lt;a&amp;&quot;b&quot;&gt;&apos;&#9;&#13;&#10;");
        assert_eq!(escaped("Zürich 😀".as_bytes()), "Zürich 😀");
        assert_eq!(escaped(b"a\0b\x0b\xff\xfe\x1b"), "a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(escaped("\u{ffff}".as_bytes()), "\u{fffd}");
    }

    proptest! {
        #[test]
        fn nothing_that_is_written_is_markup(text in prop::collection::vec(any::<u8>(), 0..80)) {
            let out = escaped(&text);

            prop_assert!(!out.contains(['<', '>', '"', '\'', '\t', '\r', '\n']));
            for (at, _) in out.match_indices('&') {
                let entity = &out[at..=at + out[at..].find(';').unwrap()];
                let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&apos;", "&#9;", "&#10;", "&#13;"];
                prop_assert!(known.contains(&entity), "{entity}");
            }
            let is_sound = out.chars().all(is_character);
            prop_assert!(is_sound);
        }
    }
}
