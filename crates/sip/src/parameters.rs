//! Parameters: `;name=value` after an address, a Via, a URI.

use crate::scan::{self, TOKEN, URI_HEADER, URI_PARAMETER, VALUE};

/// The parameters of one value, in order, checked when they were read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parameters<'a>(&'a [u8]);

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// The name as written; compare it without regard to case.
    pub name: &'a [u8],
    /// The value without its quotes, escapes in it kept; `None` without `=`.
    pub value: Option<&'a [u8]>,
    /// Whether the value was quoted.
    pub is_quoted: bool,
}

impl<'a> Parameters<'a> {
    /// Reads `;name=value;name="value";name` with white space where headers allow it; empty = no parameters.
    ///
    /// `None` when malformed: no `;` at the start, a parameter without a name, a quote that never ends, an
    /// octet that must be quoted.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        Self::parse_each(bytes, |_| {})
    }

    /// As [`Self::parse`], and shows `each` what it reads.
    #[inline]
    pub(crate) fn parse_each(bytes: &'a [u8], mut each: impl FnMut(Parameter<'a>)) -> Option<Self> {
        let bytes = scan::trim(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (parameter, after) = take(rest, TOKEN, VALUE)?;
            each(parameter);
            rest = after;
        }
        Some(Self(bytes))
    }

    /// Reads the parameters of a URI: no white space, no quotes. `=` inside a value is tolerated.
    pub(crate) fn parse_uri(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            (_, rest) = take(rest, URI_PARAMETER, URI_HEADER)?;
        }
        Some(Self(bytes))
    }

    /// The parameter of this name, in any case: `None` when absent, `Some(None)` when it has no value. The
    /// first one when it is repeated.
    #[inline]
    pub fn get(self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        self.iter().find(|parameter| parameter.name.eq_ignore_ascii_case(name)).map(|found| found.value)
    }

    /// Whether the parameter is there, with or without a value.
    pub fn has(self, name: &[u8]) -> bool {
        self.get(name).is_some()
    }

    /// All parameters in order.
    pub fn iter(self) -> impl Iterator<Item = Parameter<'a>> + Clone {
        Iter(self.0)
    }

    /// The text, from the first `;`; empty without parameters.
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Clone, Debug)]
struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = Parameter<'a>;

    #[inline]
    fn next(&mut self) -> Option<Parameter<'a>> {
        let (parameter, rest) = take_checked(self.0)?;
        self.0 = rest;
        Some(parameter)
    }
}

/// Takes one of the parameters that were checked when they were read.
#[inline]
pub(crate) fn take_checked(bytes: &[u8]) -> Option<(Parameter<'_>, &[u8])> {
    take(bytes, TOKEN | URI_PARAMETER, VALUE | URI_HEADER)
}

/// Takes one parameter from the start; the rest starts with `;` or is empty.
///
/// `None` when malformed or at the end.
#[inline]
fn take(bytes: &[u8], name_class: u8, value_class: u8) -> Option<(Parameter<'_>, &[u8])> {
    let rest = scan::trim_start(bytes.strip_prefix(b";")?);
    let (name, rest) = scan::cut(rest, scan::run(rest, name_class));
    if name.is_empty() {
        return None;
    }
    let rest = scan::trim_start(rest);
    let Some(after) = rest.strip_prefix(b"=") else {
        return is_end(rest).then_some((Parameter { name, value: None, is_quoted: false }, rest));
    };
    let after = scan::trim_start(after);
    let is_quoted = after.first() == Some(&b'"');
    let (value, rest) = if is_quoted {
        let (quoted, rest) = scan::cut(after, scan::quoted_length(after)?);
        (quoted.get(1..quoted.len() - 1)?, rest)
    } else {
        let length = scan::run(after, value_class);
        if length == 0 {
            return None;
        }
        scan::cut(after, length)
    };
    let rest = scan::trim_start(rest);
    is_end(rest).then_some((Parameter { name, value: Some(value), is_quoted }, rest))
}

fn is_end(rest: &[u8]) -> bool {
    rest.is_empty() || rest.first() == Some(&b';')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Parameters<'_>> {
        Parameters::parse(text.as_bytes())
    }

    #[test]
    fn parameters_are_found_in_any_case_with_space_and_quotes() {
        let parameters = parse("; Branch = z9hG4bKa ;lr\r\n ;x=\"a;\\\"b\";y=[::1]").unwrap();

        assert_eq!(parameters.get(b"branch"), Some(Some(&b"z9hG4bKa"[..])));
        assert_eq!(parameters.get(b"LR"), Some(None));
        assert_eq!(parameters.get(b"x"), Some(Some(&b"a;\\\"b"[..])));
        assert_eq!(parameters.get(b"y"), Some(Some(&b"[::1]"[..])));
        assert_eq!(parameters.get(b"z"), None);
        assert_eq!(parameters.iter().count(), 4);
        assert!(parameters.iter().nth(2).unwrap().is_quoted);
    }

    #[test]
    fn malformed_parameters_are_refused() {
        for bad in [
            "x",
            ";",
            ";;x",
            ";x;",
            ";=x",
            ";x=",
            ";x=\"a",
            ";x=a b",
            ";x=\"a\"b",
            ";x=a,b",
            ";x y",
            ";a<b",
            ";\0",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert!(parse("").is_some_and(Parameters::is_empty));
    }

    #[test]
    fn an_empty_quoted_value_is_a_value() {
        assert_eq!(parse(";x=\"\"").unwrap().get(b"x"), Some(Some(&b""[..])));
    }
}
