//! Credentials: the value of one `Authorization` or `Proxy-Authorization` header.

use std::borrow::Cow;

use super::Algorithm;
use crate::scan::{self, LWS, TOKEN};

/// Digest credentials as sent, borrowed from the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// Who it claims to be.
    pub username: Quoted<'a>,
    /// The protection space.
    pub realm: Quoted<'a>,
    /// The nonce it answers to; empty before the first challenge.
    pub nonce: Quoted<'a>,
    /// What the client took for the Request-URI.
    pub uri: Quoted<'a>,
    /// The proof in hexadecimal; not checked for form, empty before the first challenge.
    pub response: &'a [u8],
    /// The algorithm used; MD5 when not said (RFC 7616 section 3.3).
    pub algorithm: Algorithm,
    /// Counter and client nonce; `None` is the form of RFC 2069, without `qop`.
    pub protection: Option<Protection<'a>>,
    /// Returned unchanged from a challenge.
    pub opaque: Option<Quoted<'a>>,
}

/// What `qop=auth` adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection<'a> {
    /// `auth`, in the case it was sent in: it is part of what is hashed.
    pub qop: &'a [u8],
    /// `nc`: eight hexadecimal digits as sent.
    pub count_digits: &'a [u8],
    /// `nc` as a number, from 1.
    pub count: u32,
    /// `cnonce`.
    pub client_nonce: Quoted<'a>,
}

/// Why a header value is not usable as digest credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsError {
    /// Another authentication scheme: not for us, ignore the header.
    Scheme,
    /// Not a list of parameters.
    Syntax,
    /// A required parameter is absent.
    Missing {
        /// Its name.
        parameter: &'static str,
    },
    /// A parameter is there twice, or `username` beside `username*`.
    Repeated {
        /// Its name.
        parameter: &'static str,
    },
    /// A parameter has a value that it cannot have.
    Value {
        /// Its name.
        parameter: &'static str,
    },
    /// An algorithm that is not understood; it was not offered.
    Algorithm,
    /// `auth-int` or another protection that was not offered.
    Protection,
}

impl std::fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Scheme => f.write_str("the credentials are not of the Digest scheme"),
            Self::Syntax => f.write_str("the credentials are not a list of parameters"),
            Self::Missing { parameter } => write!(f, "the credentials lack {parameter}"),
            Self::Repeated { parameter } => write!(f, "the credentials repeat {parameter}"),
            Self::Value { parameter } => write!(f, "the credentials have a bad {parameter}"),
            Self::Algorithm => f.write_str("the credentials use an algorithm that was not offered"),
            Self::Protection => f.write_str("the credentials use a qop that was not offered"),
        }
    }
}

impl std::error::Error for CredentialsError {}

/// A quoted string without its marks, escapes kept; a token stands for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Quoted<'a> {
    raw: &'a [u8],
    is_escaped: bool,
}

impl<'a> Quoted<'a> {
    /// A string that holds no escapes.
    pub const fn plain(raw: &'a [u8]) -> Self {
        Self { raw, is_escaped: false }
    }

    /// The octets between the marks, escapes kept.
    pub const fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// Whether nothing is between the marks.
    pub const fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// The string meant: escapes undone, which alone allocates.
    pub fn unescaped(self) -> Cow<'a, [u8]> {
        if !self.is_escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut octets = Vec::with_capacity(self.raw.len());
        self.feed(|part| octets.extend_from_slice(part));
        Cow::Owned(octets)
    }

    /// Hands the string meant to `take`, part by part.
    pub fn feed(self, mut take: impl FnMut(&[u8])) {
        let mut rest = self.raw;
        if self.is_escaped {
            while let Some(at) = rest.iter().position(|&octet| octet == b'\\') {
                let (before, escape) = rest.split_at(at);
                take(before);
                rest = match escape {
                    [_, escaped, after @ ..] => {
                        take(std::slice::from_ref(escaped));
                        after
                    }
                    [..] => &[],
                };
            }
        }
        take(rest);
    }
}

impl<'a> Credentials<'a> {
    /// Reads a header value, folds included. Parameters that are not known are ignored.
    ///
    /// Errors: [`CredentialsError`]; `Scheme` when it is not for digest at all.
    pub fn parse(value: &'a [u8]) -> Result<Self, CredentialsError> {
        let mut rest = scan::trim_start(value);
        let scheme = take_token(&mut rest);
        if !scheme.eq_ignore_ascii_case(b"Digest") {
            return Err(CredentialsError::Scheme);
        }
        let mut parts = Parts::default();
        loop {
            rest = scan::trim_start(rest);
            match rest {
                [] => break,
                [b',', after @ ..] => rest = after,
                [..] => {
                    let (name, value) = take_parameter(&mut rest)?;
                    parts.put(name, value)?;
                }
            }
        }
        parts.into_credentials()
    }

    /// Whether it only says who is asking: nonce or response empty, as phones send before the first challenge
    /// (RFC 8760 section 2.7).
    pub const fn is_blank(&self) -> bool {
        self.nonce.is_empty() || self.response.is_empty()
    }
}

#[derive(Default)]
struct Parts<'a> {
    username: Option<Quoted<'a>>,
    extended_username: Option<Quoted<'a>>,
    realm: Option<Quoted<'a>>,
    nonce: Option<Quoted<'a>>,
    uri: Option<Quoted<'a>>,
    response: Option<Quoted<'a>>,
    algorithm: Option<Quoted<'a>>,
    qop: Option<Quoted<'a>>,
    count: Option<Quoted<'a>>,
    client_nonce: Option<Quoted<'a>>,
    opaque: Option<Quoted<'a>>,
}

impl<'a> Parts<'a> {
    fn put(&mut self, name: &[u8], value: Quoted<'a>) -> Result<(), CredentialsError> {
        let (slot, parameter) = match name.len() {
            8 if name.eq_ignore_ascii_case(b"username") => (&mut self.username, "username"),
            9 if name.eq_ignore_ascii_case(b"username*") => (&mut self.extended_username, "username*"),
            5 if name.eq_ignore_ascii_case(b"realm") => (&mut self.realm, "realm"),
            5 if name.eq_ignore_ascii_case(b"nonce") => (&mut self.nonce, "nonce"),
            3 if name.eq_ignore_ascii_case(b"uri") => (&mut self.uri, "uri"),
            8 if name.eq_ignore_ascii_case(b"response") => (&mut self.response, "response"),
            9 if name.eq_ignore_ascii_case(b"algorithm") => (&mut self.algorithm, "algorithm"),
            3 if name.eq_ignore_ascii_case(b"qop") => (&mut self.qop, "qop"),
            2 if name.eq_ignore_ascii_case(b"nc") => (&mut self.count, "nc"),
            6 if name.eq_ignore_ascii_case(b"cnonce") => (&mut self.client_nonce, "cnonce"),
            6 if name.eq_ignore_ascii_case(b"opaque") => (&mut self.opaque, "opaque"),
            _ => return Ok(()),
        };
        match slot.replace(value) {
            Some(_) => Err(CredentialsError::Repeated { parameter }),
            None => Ok(()),
        }
    }

    fn into_credentials(self) -> Result<Credentials<'a>, CredentialsError> {
        let required = |value: Option<_>, parameter| value.ok_or(CredentialsError::Missing { parameter });
        if self.username.is_some() && self.extended_username.is_some() {
            return Err(CredentialsError::Repeated { parameter: "username" });
        }
        let algorithm = match self.algorithm {
            None => Algorithm::Md5,
            Some(token) => Algorithm::from_bytes(token.raw).ok_or(CredentialsError::Algorithm)?,
        };
        let protection = match self.qop {
            None => None,
            Some(qop) if qop.raw.eq_ignore_ascii_case(b"auth") => {
                let count_digits = required(self.count, "nc")?.raw;
                Some(Protection {
                    qop: qop.raw,
                    count_digits,
                    count: read_count(count_digits).ok_or(CredentialsError::Value { parameter: "nc" })?,
                    client_nonce: required(self.client_nonce, "cnonce")?,
                })
            }
            Some(_) => return Err(CredentialsError::Protection),
        };
        Ok(Credentials {
            username: required(self.username, "username")?,
            realm: required(self.realm, "realm")?,
            nonce: required(self.nonce, "nonce")?,
            uri: required(self.uri, "uri")?,
            response: required(self.response, "response")?.raw,
            algorithm,
            protection,
            opaque: self.opaque,
        })
    }
}

/// Eight hexadecimal digits, not zero: the count of the first request is 1 (RFC 7616 section 3.4).
fn read_count(digits: &[u8]) -> Option<u32> {
    if digits.len() != 8 {
        return None;
    }
    let mut count = 0;
    for &digit in digits {
        count = count << 4 | char::from(digit).to_digit(16)?;
    }
    (count != 0).then_some(count)
}

/// One `name=value`, up to and without the comma after it.
fn take_parameter<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8], Quoted<'a>), CredentialsError> {
    let name = take_token(rest);
    let [b'=', after @ ..] = scan::trim_start(rest) else { return Err(CredentialsError::Syntax) };
    if name.is_empty() {
        return Err(CredentialsError::Syntax);
    }
    *rest = scan::trim_start(after);
    let value = match *rest {
        [b'"', after @ ..] => {
            *rest = after;
            take_quoted(rest)?
        }
        [..] => {
            let is_end = |&octet: &u8| scan::is(octet, LWS) || matches!(octet, b',' | b'"');
            let (value, after) = scan::cut(rest, rest.iter().position(is_end).unwrap_or(rest.len()));
            *rest = after;
            Quoted::plain(value)
        }
    };
    *rest = scan::trim_start(rest);
    match rest {
        [] | [b',', ..] => Ok((name, value)),
        [..] => Err(CredentialsError::Syntax),
    }
}

/// What follows an opening mark, up to and without the closing one, which is consumed.
fn take_quoted<'a>(rest: &mut &'a [u8]) -> Result<Quoted<'a>, CredentialsError> {
    let text = *rest;
    let mut at = 0;
    let mut is_escaped = false;
    while let Some(from) = text.get(at..)
        && let Some(found) = memchr::memchr2(b'"', b'\\', from)
    {
        at += found;
        if text.get(at) == Some(&b'"') {
            let (raw, after) = scan::cut(text, at);
            *rest = after.strip_prefix(b"\"").unwrap_or_default();
            return Ok(Quoted { raw, is_escaped });
        }
        is_escaped = true;
        at += 2;
    }
    Err(CredentialsError::Syntax)
}

fn take_token<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (token, after) = scan::cut(rest, scan::run(rest, TOKEN));
    *rest = after;
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &[u8] =
        b"Digest username=\"1000247\",realm=\"example.com\",nonce=\"Zk3xYWZN8i2bq0o9aHn1cA==\",\
        uri=\"sip:registrar.example.com\",\
        response=\"2f0b9d6a51c8b2f04e1f2a7a4d8c9e33\",\
        cnonce=\"0a4f113b\",nc=00000002,qop=auth,algorithm=MD5";

    #[test]
    fn credentials_are_read_as_sent() {
        let credentials = Credentials::parse(REFERENCE).unwrap();

        assert_eq!(credentials.username.raw(), b"1000247");
        assert_eq!(credentials.realm.raw(), b"example.com");
        assert_eq!(credentials.nonce.raw(), b"Zk3xYWZN8i2bq0o9aHn1cA==");
        assert_eq!(credentials.uri.raw(), b"sip:registrar.example.com");
        assert_eq!(credentials.response, b"2f0b9d6a51c8b2f04e1f2a7a4d8c9e33");
        assert_eq!(credentials.algorithm, Algorithm::Md5);
        let protection = credentials.protection.unwrap();
        assert_eq!((protection.count, protection.count_digits), (2, &b"00000002"[..]));
        assert_eq!(protection.client_nonce.raw(), b"0a4f113b");
        assert!(!credentials.is_blank());
    }

    #[test]
    fn folds_spaces_case_and_quoted_tokens_make_no_difference() {
        let odd = b"  DIGEST\tUserName = \"1000247\" ,\r\n realm=\"example.com\",, \
            nonce=\"Zk3xYWZN8i2bq0o9aHn1cA==\", uri=\"sip:registrar.example.com\",unknown=a=b, \
            response=\"2f0b9d6a51c8b2f04e1f2a7a4d8c9e33\" , \
            cnonce=\"0a4f113b\",nc=\"00000002\",qop=\"auth\",\r\n\t\
            algorithm=\"md5\" \r\n ";

        assert_eq!(Credentials::parse(odd), Credentials::parse(REFERENCE));
    }

    #[test]
    fn an_escaped_string_is_kept_raw_and_undone_on_demand() {
        let value = br#"Digest username="a\"b\\c",realm="r",nonce="n",uri="u",response="00""#;

        let credentials = Credentials::parse(value).unwrap();

        assert_eq!(credentials.username.raw(), br#"a\"b\\c"#);
        assert_eq!(credentials.username.unescaped().as_ref(), br#"a"b\c"#);
        assert!(matches!(credentials.realm.unescaped(), Cow::Borrowed(b"r")));
        assert_eq!(credentials.protection, None);
    }

    #[test]
    fn blank_credentials_before_the_first_challenge_are_recognised() {
        let value = br#"Digest username="a", realm="r", nonce="", uri="sip:r", response="""#;

        assert!(Credentials::parse(value).unwrap().is_blank());
    }

    #[test]
    fn what_is_not_digest_is_told_apart_from_what_is_broken() {
        use CredentialsError::{Algorithm, Missing, Protection, Repeated, Scheme, Syntax, Value};
        let with = |from: &str, to: &str| String::from_utf8_lossy(REFERENCE).replace(from, to);
        let cases = [
            ("Basic dXNlcjpwYXNz".to_owned(), Scheme),
            (String::new(), Scheme),
            ("Digest".to_owned(), Missing { parameter: "username" }),
            (with("algorithm=MD5", "algorithm=MD5-sess"), Algorithm),
            (with("qop=auth", "qop=auth-int"), Protection),
            (with("nc=00000002", "nc=2"), Value { parameter: "nc" }),
            (with("nc=00000002", "nc=00000000"), Value { parameter: "nc" }),
            (with("nc=00000002", "nc=0000000g"), Value { parameter: "nc" }),
            (with("nc=00000002,", ""), Missing { parameter: "nc" }),
            (with("cnonce=\"0a4f113b\",", ""), Missing { parameter: "cnonce" }),
            (with("uri=\"sip:registrar.example.com\",", ""), Missing { parameter: "uri" }),
            (with("qop=auth", "qop=auth,realm=\"x\""), Repeated { parameter: "realm" }),
            (with("qop=auth", "qop=auth,username*=UTF-8''a"), Repeated { parameter: "username" }),
            (with("\"example.com\"", "\"example.com"), Syntax),
            (with("realm=", "realm"), Syntax),
            (with("realm=", "=realm"), Syntax),
            (with("qop=auth,", "qop=auth \"x\","), Syntax),
            (with("algorithm=MD5", "algorithm=\"MD5\\"), Syntax),
        ];
        for (value, error) in cases {
            assert_eq!(Credentials::parse(value.as_bytes()), Err(error), "{value}");
        }
    }

    #[test]
    fn every_prefix_and_every_changed_octet_is_read_or_refused_without_harm() {
        for end in 0..REFERENCE.len() {
            let _ = Credentials::parse(&REFERENCE[..end]);
        }
        for at in 0..REFERENCE.len() {
            for octet in [0, b'"', b'\\', b',', b'=', 0xff] {
                let mut changed = REFERENCE.to_vec();
                changed[at] = octet;
                let _ = Credentials::parse(&changed);
            }
        }
    }
}
