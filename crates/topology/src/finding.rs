//! What the linter says: one problem, where it is and what to do about it.

use std::fmt;

use serde::Serialize;

use crate::Rule;

/// One problem of a topology document.
///
/// Prints on one line, place first: `line 12: error pair-self: pair east + east: ...; remedy`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Where in the text; `None` when the problem is the absence of something, or lies between two documents.
    pub at: Option<Position>,
    /// The name of the rule, as in [`Rule::name`].
    pub rule: &'static str,
    /// Whether the document is refused.
    pub severity: Severity,
    /// What is affected: `pool east`, `server east-fe1`, `pair east + west`, `topology`.
    pub subject: String,
    /// What is wrong, with the names and numbers.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    pub(crate) fn new(
        rule: Rule,
        at: Option<Position>,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            at,
            rule: rule.name(),
            severity: rule.severity(),
            subject: printable(subject.into()),
            message: printable(message.into()),
            remedy: printable(remedy.into()),
        }
    }

    /// Whether the document is refused because of this finding.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// `text` with control characters escaped, cut after 1,000 characters: names may hold anything.
fn printable(text: String) -> String {
    const CHARACTERS_MAX: usize = 1_000;
    if text.len() <= CHARACTERS_MAX && !text.contains(char::is_control) {
        return text;
    }
    let mut short = String::new();
    for character in text.chars().take(CHARACTERS_MAX) {
        if character.is_control() {
            short.extend(character.escape_default());
        } else {
            short.push(character);
        }
    }
    if text.chars().nth(CHARACTERS_MAX).is_some() {
        short.push_str("...");
    }
    short
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "line {}: ", at.line)?;
        }
        let Self { rule, severity, subject, message, remedy, .. } = self;
        write!(f, "{severity} {rule}: {subject}: {message}; {remedy}")
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is accepted; the operator should know.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in the text, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_prints_on_one_short_line_whatever_the_names_are() {
        let name = format!("pool a\nb\u{1b}[2J{}", "x".repeat(5_000));

        let finding = Finding::new(Rule::NameValid, Some(Position { line: 7, column: 1 }), name, "m", "r");

        let line = finding.to_string();
        assert!(line.starts_with("line 7: error name-valid: pool a\\nb\\u{1b}[2Jxxx"), "{line}");
        assert!(!line.contains(char::is_control) && line.len() < 1_100);
    }
}
