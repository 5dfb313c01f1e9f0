//! Which RFCs source files cite, in comments, texts and names.

use std::collections::BTreeMap;

use super::registry::{Registry, RfcNumber};
use crate::tidy::SourceFile;

/// Breaches: a citation of an RFC that has no entry, at its first place in each file.
pub fn check(registry: &Registry, sources: &[SourceFile]) -> Vec<String> {
    let has_entry = |number: &RfcNumber| registry.entries.iter().any(|entry| entry.number == *number);
    let mut breaches = Vec::new();
    // The chores name RFCs that are none, to test this.
    for source in sources.iter().filter(|source| !source.path.starts_with("xtask/")) {
        for (number, line) in citations_in(&source.text) {
            if !has_entry(&number) {
                breaches.push(format!(
                    "{}:{line}: cites {number}, which has no entry in {}",
                    source.path,
                    super::REGISTRY
                ));
            }
        }
    }
    breaches
}

/// Each cited RFC with the line of its first citation: `RFC 3261`, `RFCs 3261 and 6026`, `rfc_3261`, also
/// where the line breaks in between.
fn citations_in(source: &str) -> BTreeMap<RfcNumber, usize> {
    let mut cited = BTreeMap::new();
    let mut text = String::with_capacity(source.len());
    // Where each line begins in `text`.
    let mut starts = Vec::new();
    for line in source.lines() {
        starts.push(text.len());
        let line = line.trim().trim_start_matches(['/', '!']).trim_end_matches('\\').trim();
        text.push_str(&line.to_ascii_lowercase());
        text.push(' ');
    }
    for (at, _) in text.match_indices("rfc") {
        let is_word = !text.get(..at).unwrap_or_default().ends_with(|c: char| c.is_ascii_alphanumeric());
        let rest = text.get(at + 3..).unwrap_or_default();
        let rest = rest.strip_prefix('s').unwrap_or(rest).trim_start_matches([' ', '-', '_']);
        if is_word {
            let line = starts.partition_point(|start| *start <= at);
            for number in numbers_in(rest) {
                cited.entry(number).or_insert(line);
            }
        }
    }
    cited
}

/// The number that a text begins with, of three to five digits, and those that follow it in a list, of four.
fn numbers_in(text: &str) -> Vec<RfcNumber> {
    let mut numbers = Vec::new();
    let mut rest = text;
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let is_number = if numbers.is_empty() { (3..=5).contains(&digits) } else { digits == 4 };
        let number = rest.get(..digits).and_then(|digits| digits.parse().ok());
        let (true, Some(number)) = (is_number, number) else { return numbers };
        numbers.push(RfcNumber(number));
        let after = rest.get(digits..).unwrap_or_default();
        let next = [", and ", ", ", " and ", " or "].iter().find_map(|link| after.strip_prefix(link));
        let Some(next) = next else { return numbers };
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn cited(source: &str) -> Vec<(u16, usize)> {
        citations_in(source).into_iter().map(|(number, line)| (number.0, line)).collect()
    }

    #[test]
    fn citations_are_found_in_every_form() {
        assert_eq!(cited("/// See RFC 3261 section 17."), [(3261, 1)]);
        assert_eq!(cited("a\nb // rfc3261, RFC-6026\n// RFC 3261"), [(3261, 2), (6026, 2)]);
        assert_eq!(cited("fn rfc_5393_loops() {}\nfn next_rfc_5806() {}"), [(5393, 1), (5806, 2)]);
        assert_eq!(cited("//! RFCs 3261, 6026 and 4320."), [(3261, 1), (4320, 1), (6026, 1)]);
        assert_eq!(cited("RFC 822 and RFC 10008"), [(822, 1), (10_008, 1)]);
    }

    #[test]
    fn a_citation_across_two_lines_counts_for_the_first() {
        assert_eq!(cited("code();\n    /// as in RFC\n    /// 5626 section 6"), [(5626, 2)]);
        assert_eq!(cited("//! in RFC\n//! 5626"), [(5626, 1)]);
        assert_eq!(cited("\"in RFC \\\n  5626\""), [(5626, 1)]);
    }

    #[test]
    fn other_numbers_are_no_citations() {
        for text in ["the RFC of 3261", "Xrfc 3261", "RFC 32 and 12", "RFC 1234567", "RFC"] {
            assert_eq!(cited(text), [], "{text}");
        }
        assert_eq!(cited("RFC 3261, 16.7 and RFC 3261 and 100 others"), [(3261, 1)]);
    }

    #[test]
    fn a_cited_rfc_without_an_entry_is_a_breach_and_the_chores_are_exempt() {
        let registry = "[[rfc]]\nnumber = 3261\ntitle = \"t\"\nstatus = \"not\"\nwhy = \"w\"";
        let registry = Registry::parse(registry).unwrap().0;
        let source = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };

        let fine = [source("crates/a.rs", "// RFC 3261\n"), source("xtask/a.rs", "// RFC 9999\n")];
        assert!(check(&registry, &fine).is_empty());
        let breaches = check(&registry, &[source("crates/a.rs", "\n// RFC 3261, RFC 9999\n")]);
        assert_eq!(breaches.len(), 1);
        assert!(breaches.iter().all(|breach| breach.starts_with("crates/a.rs:2: cites RFC 9999")));
    }
}
