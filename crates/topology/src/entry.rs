//! One table of the document, read key by key; whatever is wrong becomes a finding and the reading goes on.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeInteger, DeTable, DeValue},
};

use crate::{
    Finding, Position, Rule,
    raw::{Keys, Located, Text},
    suggestion,
};

/// Beyond so many octets of a line, columns are counted in octets: nobody reads such lines, and it takes no
/// time.
const LINE_OCTETS_COUNTED: usize = 1_000;

/// Where the lines of a text begin.
pub(crate) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub fn of(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The place of the octet at `offset`.
    pub fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|&start| start <= offset);
        let start = line.checked_sub(1).and_then(|at| self.starts.get(at)).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        let column =
            if before.len() > LINE_OCTETS_COUNTED { before.len() } else { before.chars().count() } + 1;
        Position {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }
}

/// A table whose keys are taken one by one. Call [`Entry::finish`] last: it reports the keys nobody asked
/// for.
pub(crate) struct Entry<'a, 't> {
    pub at: Position,
    /// How findings call it.
    pub subject: String,
    lines: &'a Lines<'t>,
    findings: &'a mut Vec<Finding>,
    values: BTreeMap<String, Spanned<DeValue<'t>>>,
    keys: Keys,
    known: Vec<&'static str>,
}

impl<'a, 't> Entry<'a, 't> {
    pub fn new(
        at: Position,
        subject: String,
        table: DeTable<'t>,
        lines: &'a Lines<'t>,
        findings: &'a mut Vec<Finding>,
    ) -> Self {
        let mut values = BTreeMap::new();
        let mut keys = Keys::new();
        for (key, value) in table {
            keys.insert(key.get_ref().to_string(), lines.position(key.span().start));
            values.insert(key.into_inner().into_owned(), value);
        }
        Self { at, subject, lines, findings, values, keys, known: Vec::new() }
    }

    /// The text of `key`.
    pub fn text(&mut self, key: &'static str) -> Option<Text> {
        let (at, value) = self.take(key)?;
        let DeValue::String(text) = value else {
            return self.refuse_type(key, at, &value, "a text in double quotes");
        };
        Some(Located { value: text.into_owned(), at })
    }

    /// The text of `key` in lower case.
    pub fn name(&mut self, key: &'static str) -> Option<Text> {
        self.text(key).map(lower)
    }

    /// The name that this table has itself; from here on findings call it so.
    pub fn own_name(&mut self, kind: &str) -> Option<Text> {
        let name = self.name("name");
        match &name {
            Some(name) if name.value.is_empty() => {}
            Some(name) => self.subject = format!("{kind} {}", shorten(&name.value)),
            None => self.require("name"),
        }
        name
    }

    /// The names of `key`: a text, or a list of texts where the rule on their number gives a better finding.
    pub fn names(&mut self, key: &'static str) -> Option<Vec<Text>> {
        self.texts(key, true).map(|texts| texts.value.into_iter().map(lower).collect())
    }

    /// The list of texts of `key`.
    pub fn text_list(&mut self, key: &'static str) -> Option<Located<Vec<Text>>> {
        self.texts(key, false)
    }

    /// The whole number of `key`.
    pub fn integer(&mut self, key: &'static str) -> Option<Located<i64>> {
        let (at, value) = self.take(key)?;
        let DeValue::Integer(number) = value else {
            return self.refuse_type(key, at, &value, "a whole number without quotes");
        };
        match to_i64(&number) {
            Some(value) => Some(Located { value, at }),
            None => self.refuse(key, at, "the number is too large".to_owned()),
        }
    }

    /// The truth value of `key`.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let (at, value) = self.take(key)?;
        let DeValue::Boolean(value) = value else {
            return self.refuse_type(key, at, &value, "true or false without quotes");
        };
        Some(value)
    }

    /// The word of `key`, one of `all`.
    pub fn word<T: Copy>(&mut self, key: &'static str, all: &[T], print: fn(T) -> &'static str) -> Option<T> {
        let text = self.text(key)?;
        self.choose(key, &text, all, print)
    }

    /// The words of `key`, each one of `all`, or `None` in its place.
    pub fn word_list<T: Copy>(
        &mut self,
        key: &'static str,
        all: &[T],
        print: fn(T) -> &'static str,
    ) -> Option<Located<Vec<Located<Option<T>>>>> {
        let texts = self.text_list(key)?;
        let choose = |text: Text| Located { value: self.choose(key, &text, all, print), at: text.at };
        Some(Located { value: texts.value.into_iter().map(choose).collect(), at: texts.at })
    }

    /// The table of `key`.
    pub fn table(&mut self, key: &'static str) -> Option<(Position, DeTable<'t>)> {
        let (at, value) = self.take(key)?;
        let DeValue::Table(table) = value else {
            return self.refuse_type(key, at, &value, &format!("a table, written [pool.{key}]"));
        };
        Some((at, table))
    }

    /// The tables of `key`, written `[[key]]`.
    pub fn tables(&mut self, key: &'static str) -> Vec<(Position, DeTable<'t>)> {
        let Some((at, value)) = self.take(key) else { return Vec::new() };
        let expected = format!("a list of tables, each written [[{key}]]");
        let DeValue::Array(items) = value else {
            self.refuse_type::<()>(key, at, &value, &expected);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            let at = self.lines.position(item.span().start);
            let item = item.into_inner();
            if let DeValue::Table(table) = item {
                tables.push((at, table));
            } else {
                self.refuse_type::<()>(key, at, &item, &expected);
            }
        }
        tables
    }

    /// Reports `key` when it is absent.
    pub fn require(&mut self, key: &'static str) {
        if !self.keys.contains_key(key) {
            let message = format!("{key} is missing");
            let remedy = format!("add {key} = ...");
            let finding = Finding::new(Rule::MissingKey, Some(self.at), &self.subject, message, remedy);
            self.findings.push(finding);
        }
    }

    /// Whether `key` is written.
    pub fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Reports the keys nobody asked for and hands back all that are written.
    pub fn finish(self) -> Keys {
        for key in self.values.keys() {
            let shown = shorten(key);
            let known = self.known.iter().copied();
            let candidates = known.take(suggestion::candidates_max(self.findings.len()));
            let remedy = suggestion::remedy(key, candidates, || {
                format!("remove it; known here: {}", self.known.join(", "))
            });
            let message = format!("unknown key {shown}");
            let at = self.keys.get(key).copied();
            self.findings.push(Finding::new(Rule::UnknownKey, at, &self.subject, message, remedy));
        }
        self.keys
    }

    fn take(&mut self, key: &'static str) -> Option<(Position, DeValue<'t>)> {
        self.known.push(key);
        let value = self.values.remove(key)?;
        Some((self.lines.position(value.span().start), value.into_inner()))
    }

    fn texts(&mut self, key: &'static str, is_one_enough: bool) -> Option<Located<Vec<Text>>> {
        let (at, value) = self.take(key)?;
        if let DeValue::String(text) = &value
            && is_one_enough
        {
            return Some(Located { value: vec![Located { value: text.to_string(), at }], at });
        }
        let DeValue::Array(items) = value else {
            let expected =
                if is_one_enough { "a text in double quotes" } else { "a list of texts in brackets" };
            return self.refuse_type(key, at, &value, expected);
        };
        let mut texts = Vec::new();
        for item in items {
            let at = self.lines.position(item.span().start);
            let item = item.into_inner();
            if let DeValue::String(text) = item {
                texts.push(Located { value: text.into_owned(), at });
            } else {
                self.refuse_type::<()>(key, at, &item, "texts in double quotes");
            }
        }
        Some(Located { value: texts, at })
    }

    fn choose<T: Copy>(
        &mut self,
        key: &str,
        text: &Text,
        all: &[T],
        print: fn(T) -> &'static str,
    ) -> Option<T> {
        let found = all.iter().copied().find(|&choice| print(choice) == text.value);
        if found.is_none() {
            let known: Vec<&str> = all.iter().map(|&choice| print(choice)).collect();
            let remedy = suggestion::remedy(&text.value, known.iter().copied(), || {
                format!("use one of {}", known.join(", "))
            });
            let message = format!("{key}: \"{}\" is unknown", shorten(&text.value));
            self.findings.push(Finding::new(
                Rule::UnknownValue,
                Some(text.at),
                &self.subject,
                message,
                remedy,
            ));
        }
        found
    }

    fn refuse_type<T>(&mut self, key: &str, at: Position, found: &DeValue<'_>, expected: &str) -> Option<T> {
        self.refuse(key, at, format!("expected {expected}, found {}", describe(found)))
    }

    fn refuse<T>(&mut self, key: &str, at: Position, problem: String) -> Option<T> {
        let remedy = format!("correct the value of {key}; docs/operations/topology.md has an example");
        self.findings.push(Finding::new(
            Rule::ValueType,
            Some(at),
            &self.subject,
            format!("{key}: {problem}"),
            remedy,
        ));
        None
    }
}

/// At most 64 characters of `text`, control characters escaped: what a message quotes.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        short.push_str("...");
    }
    short
}

fn lower(text: Text) -> Text {
    Located { value: text.value.to_ascii_lowercase(), at: text.at }
}

fn to_i64(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_lines_and_characters_from_one() {
        let text = "one\nzwölf = 1\n";
        let lines = Lines::of(text);

        assert_eq!(lines.position(0), Position { line: 1, column: 1 });
        assert_eq!(lines.position(4), Position { line: 2, column: 1 });
        assert_eq!(lines.position(text.find('=').unwrap()), Position { line: 2, column: 7 });
        assert_eq!(lines.position(text.len()), Position { line: 3, column: 1 });
    }

    #[test]
    fn a_quoted_text_is_short_and_printable() {
        assert_eq!(shorten("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        assert_eq!(shorten(&"x".repeat(100)).len(), 67);
    }
}
