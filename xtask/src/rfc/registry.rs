//! The registry as it is written, and what may be wrong with it before anything else is looked at.

use std::fmt;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::REGISTRY;

/// The number of an RFC. Prints as `RFC 3261`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct RfcNumber(pub u16);

impl fmt::Display for RfcNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RFC {}", self.0)
    }
}

/// All entries, by number.
#[derive(Debug)]
pub struct Registry {
    /// In ascending order, where the file was without breach.
    pub entries: Vec<Entry>,
}

/// What Tandem does of one RFC.
#[derive(Debug)]
pub struct Entry {
    /// Which RFC.
    pub number: RfcNumber,
    /// Its title, abbreviated where the original says `Session Initiation Protocol`.
    pub title: String,
    /// How much of it is there.
    pub status: Status,
}

/// How much of an RFC is there. Tests are `file::function`, the file from the repository's root.
#[derive(Debug)]
pub enum Status {
    /// Everything in it that concerns a registrar, a proxy or a notifier.
    Implemented {
        /// The sections, or what it is used for.
        there: String,
        /// What proves it.
        tests: Vec<String>,
    },
    /// Some of it.
    Partial {
        /// The sections, or the header field, that are there.
        there: String,
        /// What is not.
        missing: String,
        /// What proves the first.
        tests: Vec<String>,
    },
    /// Nothing of it.
    Not {
        /// The reason, or what stands in for it.
        why: String,
    },
}

impl Status {
    /// What proves it; empty for what is not there.
    pub fn tests(&self) -> &[String] {
        match self {
            Self::Implemented { tests, .. } | Self::Partial { tests, .. } => tests,
            Self::Not { .. } => &[],
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRegistry {
    rfc: Vec<RawEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    number: RfcNumber,
    title: String,
    status: RawStatus,
    #[serde(default)]
    there: String,
    #[serde(default)]
    missing: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    tests: Vec<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawStatus {
    Implemented,
    Partial,
    Not,
}

impl Registry {
    /// Reads the registry. Returns it with everything that is wrong with it, one line each.
    ///
    /// Errors: a text that is not TOML, or has other keys than a registry has.
    pub fn parse(text: &str) -> Result<(Self, Vec<String>)> {
        let raw: RawRegistry = toml::from_str(text).context(REGISTRY)?;
        let mut breaches = Vec::new();
        let numbers = raw.rfc.iter().map(|entry| entry.number);
        for (before, after) in numbers.clone().zip(numbers.skip(1)) {
            if before >= after {
                breaches
                    .push(format!("{REGISTRY}: {after} stands behind {before}: one entry each, in order"));
            }
        }
        for entry in &raw.rfc {
            breaches.extend(entry.breaches().map(|what| format!("{REGISTRY}: {}: {what}", entry.number)));
        }
        Ok((Self { entries: raw.rfc.into_iter().map(Entry::from).collect() }, breaches))
    }
}

impl RawEntry {
    fn breaches(&self) -> impl Iterator<Item = &'static str> {
        let has = |text: &str| !text.is_empty();
        let texts = [&self.title, &self.there, &self.missing, &self.why];
        let breaks_table = texts.iter().any(|text| text.contains(['|', '\n']));
        let claims_twice =
            self.tests.iter().enumerate().any(|(at, test)| self.tests.iter().skip(at + 1).any(|t| t == test));
        let (needed, unfit, is_proof_needed) = match self.status {
            RawStatus::Implemented => (has(&self.there), has(&self.missing) || has(&self.why), true),
            RawStatus::Partial => (has(&self.there) && has(&self.missing), has(&self.why), true),
            RawStatus::Not => (has(&self.why), has(&self.there) || has(&self.missing), false),
        };
        let is_without_part = matches!(self.status, RawStatus::Partial) && !names_part(&self.there);
        [
            (self.title.is_empty(), "has no title"),
            (breaks_table, "a text with | or a line break breaks the table"),
            (!needed, "implemented needs there; partial needs there and missing; not needs why"),
            (unfit, "missing is for partial, why is for not, there is for what is there"),
            (is_without_part, "partial names in there the sections, or the header field, that are there"),
            (is_proof_needed && self.tests.is_empty(), "claims something and names no test"),
            (!is_proof_needed && !self.tests.is_empty(), "claims nothing, yet names tests"),
            (claims_twice, "names a test twice"),
        ]
        .into_iter()
        .filter_map(|(is_breach, what)| is_breach.then_some(what))
    }
}

/// Whether a text says `section 4` or `sections 4 and 5`, or which header field is meant.
fn names_part(text: &str) -> bool {
    let numbered = |word: &str| {
        text.match_indices(word).any(|(at, _)| {
            let rest = text.get(at + word.len()..).unwrap_or_default().trim_start_matches('s');
            rest.trim_start().starts_with(|first: char| first.is_ascii_digit())
        })
    };
    numbered("section") || text.starts_with("header field ")
}

impl From<RawEntry> for Entry {
    fn from(raw: RawEntry) -> Self {
        let RawEntry { number, title, status, there, missing, why, tests } = raw;
        let status = match status {
            RawStatus::Implemented => Status::Implemented { there, tests },
            RawStatus::Partial => Status::Partial { there, missing, tests },
            RawStatus::Not => Status::Not { why },
        };
        Self { number, title, status }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn breaches(entries: &[&str]) -> Vec<String> {
        let text: String = entries.iter().map(|entry| format!("[[rfc]]\n{entry}\n")).collect();
        Registry::parse(&text).unwrap().1
    }

    fn entry(number: u16, rest: &str) -> String {
        format!("number = {number}\ntitle = \"t\"\n{rest}")
    }

    #[test]
    fn each_status_has_its_own_texts_and_only_claims_name_tests() {
        let implemented = entry(1, "status = \"implemented\"\nthere = \"all\"\ntests = [\"a.rs::f\"]");
        let partial =
            entry(2, "status = \"partial\"\nthere = \"section 4\"\nmissing = \"5\"\ntests = [\"a.rs::f\"]");
        let not = entry(3, "status = \"not\"\nwhy = \"no\"");
        assert!(breaches(&[&implemented, &partial, &not]).is_empty());

        for (wrong, part) in [
            (implemented.replace("tests = [\"a.rs::f\"]", ""), "names no test"),
            (implemented.replace("there = \"all\"", ""), "needs there"),
            (format!("{implemented}\nmissing = \"x\""), "missing is for partial"),
            (partial.replace("missing = \"5\"", ""), "needs there and missing"),
            (partial.replace("section 4", "much"), "names in there the sections"),
            (format!("{partial}\nwhy = \"x\""), "why is for not"),
            (not.replace("why = \"no\"", ""), "not needs why"),
            (format!("{not}\nthere = \"x\""), "there is for what is there"),
            (format!("{not}\ntests = [\"a.rs::f\"]"), "claims nothing"),
            (not.replace("\"t\"", "\"\""), "has no title"),
            (not.replace("\"no\"", "\"a | b\""), "breaks the table"),
            (implemented.replace("::f\"", "::f\", \"a.rs::f\""), "a test twice"),
        ] {
            let found = breaches(&[&wrong]);
            assert!(found.iter().any(|breach| breach.contains(part)), "{part}: {found:?}");
        }
    }

    #[test]
    fn entries_stand_in_order_and_once() {
        let not = |number| entry(number, "status = \"not\"\nwhy = \"no\"");

        assert!(breaches(&[&not(3), &not(4)]).is_empty());
        assert_eq!(breaches(&[&not(4), &not(3)]).len(), 1);
        assert_eq!(breaches(&[&not(4), &not(4)]).len(), 1);
    }

    #[test]
    fn an_unknown_key_or_status_is_an_error() {
        for rest in ["status = \"not\"\nwhy = \"no\"\nwhi = \"x\"", "status = \"mostly\""] {
            assert!(Registry::parse(&format!("[[rfc]]\n{}", entry(1, rest))).is_err());
        }
    }

    #[test]
    fn a_part_is_named_by_section_or_header_field() {
        for text in ["section 4", "sections 4.1 and 5", "all of section 10", "header field X"] {
            assert!(names_part(text), "{text}");
        }
        for text in ["the main sections", "4.1", ""] {
            assert!(!names_part(text), "{text}");
        }
    }
}
