//! Addresses in headers: From, To, Contact, Route and their kin.

use crate::{
    HeaderError, HeaderId, Uri, UriError, Values,
    parameters::{Parameter, Parameters},
    scan::{self, LWS, TOKEN, URI},
};

/// What a malformed expires parameter counts as, in seconds (RFC 3261 section 10.2.1.1).
pub const EXPIRES_MALFORMED_S: u32 = 3_600;

/// `"Display Name" <uri>;parameters`, or a bare URI with header parameters (RFC 3261 section 20.10).
#[derive(Clone, Copy, Debug)]
pub struct NameAddr<'a> {
    /// The display name as written, its quotes included; empty when there is none.
    pub display_name: &'a [u8],
    /// The URI, checked only for a scheme and for octets no URI has; read it with [`Self::uri`].
    pub uri_bytes: &'a [u8],
    /// The header parameters. Without `<>` every parameter is one of these, never of the URI.
    pub parameters: Parameters<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one value (not a list); `None` when malformed.
    ///
    /// Tolerated beyond the grammar: no space before `<`, and octets above 0x7f in an unquoted display name.
    /// Without `<>` a URI with `?` or `,` is refused, as the RFC requires brackets there.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = scan::trim(value);
        let (display_name, rest) = if value.first() == Some(&b'"') {
            let (quoted, rest) = scan::cut(value, scan::quoted_length(value)?);
            (quoted, scan::trim_start(rest))
        } else if let Some(open) = memchr::memchr(b'<', value) {
            let (name, rest) = scan::cut(value, open);
            let is_name = name.iter().all(|&octet| scan::is(octet, TOKEN | LWS) || octet >= 0x80);
            if !is_name {
                return None;
            }
            (scan::trim(name), rest)
        } else {
            return Self::parse_bare(value);
        };
        let inside = rest.strip_prefix(b"<")?;
        let (uri_bytes, rest) = scan::cut(inside, memchr::memchr(b'>', inside)?);
        let parameters = Parameters::parse(rest.get(1..)?)?;
        is_uri(uri_bytes).then_some(Self { display_name, uri_bytes, parameters })
    }

    fn parse_bare(value: &'a [u8]) -> Option<Self> {
        let end =
            value.iter().position(|&octet| octet == b';' || scan::is(octet, LWS)).unwrap_or(value.len());
        let (uri_bytes, rest) = scan::cut(value, end);
        let parameters = Parameters::parse(rest)?;
        let needs_brackets = memchr::memchr2(b'?', b',', uri_bytes).is_some();
        (is_uri(uri_bytes) && !needs_brackets).then_some(Self { display_name: &[], uri_bytes, parameters })
    }

    /// The URI.
    ///
    /// Errors: [`UriError`].
    pub fn uri(self) -> Result<Uri<'a>, UriError> {
        Uri::parse(self.uri_bytes)
    }

    /// The tag of From and To; `None` when there is none.
    ///
    /// `tag-param = "tag" EQUAL token` (RFC 3261 section 25.1): a parameter `tag` without a value, or with an
    /// empty one, is a `generic-param` of that name and no tag. A request with one is not malformed.
    pub fn tag(self) -> Option<&'a [u8]> {
        self.parameters.iter().find(is_tag).and_then(|parameter| parameter.value)
    }

    /// The q of a Contact in thousandths, 0 to 1000; `None` when absent or malformed (then it counts as
    /// 1000).
    pub fn q(self) -> Option<u16> {
        thousandths(self.parameters.get(b"q")??)
    }

    /// The expires of a Contact in seconds; `None` when absent. Malformed or above 2^32 - 1 counts as
    /// [`EXPIRES_MALFORMED_S`].
    pub fn expires(self) -> Option<u32> {
        let value = self.parameters.get(b"expires")?;
        Some(value.and_then(scan::number).unwrap_or(EXPIRES_MALFORMED_S))
    }
}

/// Whether this is a `tag-param`.
fn is_tag(parameter: &Parameter<'_>) -> bool {
    parameter.name.eq_ignore_ascii_case(b"tag") && parameter.value.is_some_and(|value| !value.is_empty())
}

/// Whether this has a scheme and only octets of a URI.
fn is_uri(bytes: &[u8]) -> bool {
    let scheme = memchr::memchr(b':', bytes).unwrap_or(0);
    bytes.first().is_some_and(u8::is_ascii_alphabetic) && scheme > 0 && scan::all(bytes, URI)
}

/// `qvalue` of RFC 3261: 0 to 1 with up to three decimals.
fn thousandths(text: &[u8]) -> Option<u16> {
    let (&whole, rest) = text.split_first()?;
    let decimals = if rest.is_empty() { rest } else { rest.strip_prefix(b".")? };
    if decimals.len() > 3 {
        return None;
    }
    let fraction = if decimals.is_empty() { 0 } else { scan::port(decimals)? };
    let scaled = match decimals.len() {
        1 => fraction * 100,
        2 => fraction * 10,
        _ => fraction,
    };
    match whole {
        b'0' => Some(scaled),
        b'1' if scaled == 0 => Some(1_000),
        _ => None,
    }
}

/// The addresses of one header, in order.
#[derive(Clone, Debug)]
pub struct Addresses<'a> {
    values: Values<'a>,
    header: HeaderId,
}

impl<'a> Addresses<'a> {
    pub(crate) const fn new(values: Values<'a>, header: HeaderId) -> Self {
        Self { values, header }
    }
}

impl<'a> Iterator for Addresses<'a> {
    type Item = Result<NameAddr<'a>, HeaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = self.values.next()?;
        Some(NameAddr::parse(value).ok_or(HeaderError::Malformed { header: self.header }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<NameAddr<'_>> {
        NameAddr::parse(text.as_bytes())
    }

    #[test]
    fn an_address_is_read_in_each_form() {
        let quoted = parse(r#""Watson, \"T\"" <sip:t@example.com;lr>;tag=x"#).unwrap();
        assert_eq!(quoted.display_name, br#""Watson, \"T\"""#);
        assert_eq!((quoted.uri_bytes, quoted.tag()), (&b"sip:t@example.com;lr"[..], Some(&b"x"[..])));

        let unquoted = parse("Alice B\r\n Example<sip:a@example.com>").unwrap();
        assert_eq!(unquoted.display_name, b"Alice B\r\n Example");

        let bare = parse("sip:a@example.com ;user=phone;tag=y").unwrap();
        assert_eq!((bare.uri_bytes, bare.tag()), (&b"sip:a@example.com"[..], Some(&b"y"[..])));
        assert!(bare.parameters.has(b"user"), "without <> a parameter belongs to the header");

        assert_eq!(parse("<tel:+1-201>").unwrap().display_name, b"");
        assert_eq!(parse("\u{e9}t\u{e9} <sip:a@b>").unwrap().display_name, "\u{e9}t\u{e9}".as_bytes());
    }

    #[test]
    fn a_tag_without_a_value_is_no_tag() {
        let tag = |text: &str| parse(text).unwrap().tag().map(<[u8]>::to_vec);
        assert_eq!([tag("<sip:a@b>;tag"), tag("<sip:a@b>;tag=\"\""), tag("<sip:a@b>;x")], [None, None, None]);
        assert_eq!(tag("<sip:a@b>;tag;TAG=x"), Some(b"x".to_vec()));
    }

    #[test]
    fn a_malformed_address_is_refused() {
        for bad in [
            "",
            "*",
            "alice",
            "<>",
            "<sip:a@b",
            "sip:a@b>",
            "< sip:a@b>",
            "<sip:a@b >",
            "\"a <sip:a@b>",
            "\"a\" sip:a@b",
            "Bell, A <sip:a@b>",
            "sip:a@b?x=y",
            "sip:a,b@c",
            "<sip:a@b> x",
            "<sip:a@b>;",
            "<sip:a@b>;;x",
            "<sip:\"a@b>",
            "<:a>",
            "<1x:a>",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn q_is_in_thousandths_and_expires_in_seconds() {
        let q = |text: &str| parse(&format!("<sip:a@b>;q={text}")).unwrap().q();
        assert_eq!(
            [q("0"), q("0.5"), q("0.25"), q("0.001"), q("1"), q("1.000"), q("0.")],
            [Some(0), Some(500), Some(250), Some(1), Some(1000), Some(1000), Some(0)]
        );
        assert_eq!([q("1.1"), q("2"), q("0.0001"), q("x"), q(".5")], [None; 5]);

        let expires = |text: &str| parse(&format!("<sip:a@b>;expires{text}")).unwrap().expires();
        assert_eq!(
            [expires("=60"), expires("=0"), expires("=4294967296"), expires("=x"), expires("")],
            [Some(60), Some(0), Some(3600), Some(3600), Some(3600)]
        );
        assert_eq!(parse("<sip:a@b>").unwrap().expires(), None);
    }
}
