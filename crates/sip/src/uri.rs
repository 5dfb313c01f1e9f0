//! URIs: sip and sips in full, tel, and all others kept as they are.

use std::net::IpAddr;

use model::{AddressOfRecord, Protocol};

use crate::{
    UriError,
    parameters::Parameters,
    scan::{self, URI, URI_HEADER, USER},
};

/// Scheme of a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `sip` (RFC 3261 section 19.1).
    Sip,
    /// `sips`.
    Sips,
    /// `tel` (RFC 3966).
    Tel,
    /// Any other.
    Other,
}

impl Scheme {
    /// Whether the URI has user, host, port, parameters and headers.
    pub const fn is_sip_or_sips(self) -> bool {
        match self {
            Self::Sip | Self::Sips => true,
            Self::Tel | Self::Other => false,
        }
    }
}

/// A URI, its parts as written.
#[derive(Clone, Copy, Debug)]
pub struct Uri<'a> {
    /// The scheme.
    pub scheme: Scheme,
    /// The scheme as written.
    pub scheme_bytes: &'a [u8],
    /// Everything after the colon of the scheme.
    pub rest: &'a [u8],
    /// The user, escapes kept, never empty; of a tel URI the number.
    pub user: Option<&'a [u8]>,
    /// The password, escapes kept.
    pub password: Option<&'a [u8]>,
    /// The host, an IPv6 address with its brackets; empty unless sip or sips.
    pub host: &'a [u8],
    /// The port; `None` = by scheme and transport.
    pub port: Option<u16>,
    /// The URI parameters.
    pub parameters: Parameters<'a>,
    /// What stands after `?`; `None` without it.
    pub headers: Option<&'a [u8]>,
}

impl<'a> Uri<'a> {
    /// Reads a URI without white space around it. Known schemes are checked in full, of others only the
    /// scheme and that each octet may stand in a URI.
    ///
    /// Errors: [`UriError`]. Source: RFC 3261 section 25.1, RFC 3966, RFC 5118.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, UriError> {
        let colon = memchr::memchr(b':', bytes).ok_or(UriError::Scheme)?;
        let (scheme_bytes, rest) = scan::cut(bytes, colon);
        let rest = rest.get(1..).unwrap_or_default();
        let scheme = read_scheme(scheme_bytes)?;
        let uri = Self {
            scheme,
            scheme_bytes,
            rest,
            user: None,
            password: None,
            host: &[],
            port: None,
            parameters: Parameters::default(),
            headers: None,
        };
        match scheme {
            Scheme::Sip | Scheme::Sips => uri.read_sip(),
            Scheme::Tel => uri.read_tel(),
            Scheme::Other if scan::all(rest, URI) => check_escapes(rest).map(|()| uri),
            Scheme::Other => Err(UriError::Octet),
        }
    }

    fn read_sip(mut self) -> Result<Self, UriError> {
        let mut rest = self.rest;
        if let Some(at) = memchr::memchr(b'@', rest) {
            let (userinfo, after) = scan::cut(rest, at);
            self.read_userinfo(userinfo)?;
            rest = after.get(1..).unwrap_or_default();
        }
        let (host, after) = scan::take_host(rest).ok_or(UriError::Host)?;
        self.host = host;
        rest = after;
        if let Some(after) = rest.strip_prefix(b":") {
            let (digits, after) = scan::cut(after, after.iter().take_while(|o| o.is_ascii_digit()).count());
            self.port = Some(scan::port(digits).ok_or(UriError::Port)?);
            rest = after;
        }
        let (parameters, after) = scan::cut(rest, memchr::memchr(b'?', rest).unwrap_or(rest.len()));
        match parameters.first() {
            None | Some(b';') => {}
            Some(_) if self.port.is_some() => return Err(UriError::Port),
            Some(_) => return Err(UriError::Host),
        }
        self.parameters = Parameters::parse_uri(parameters).ok_or(UriError::Parameters)?;
        check_escapes(parameters)?;
        if let Some(headers) = after.strip_prefix(b"?") {
            check_escapes(headers)?;
            if !are_headers(headers) {
                return Err(UriError::Headers);
            }
            self.headers = Some(headers);
        }
        Ok(self)
    }

    fn read_userinfo(&mut self, userinfo: &'a [u8]) -> Result<(), UriError> {
        let (user, password) = scan::cut(userinfo, memchr::memchr(b':', userinfo).unwrap_or(userinfo.len()));
        check_escapes(userinfo)?;
        if !scan::all(user, USER) {
            return Err(UriError::User);
        }
        self.user = Some(user);
        if let Some(password) = password.strip_prefix(b":") {
            if scan::run(password, USER) != password.len() {
                return Err(UriError::User);
            }
            self.password = Some(password);
        }
        Ok(())
    }

    fn read_tel(mut self) -> Result<Self, UriError> {
        let (number, parameters) =
            scan::cut(self.rest, memchr::memchr(b';', self.rest).unwrap_or(self.rest.len()));
        let digits = number.strip_prefix(b"+").unwrap_or(number);
        let is_number = digits.iter().all(|octet| octet.is_ascii_hexdigit() || b"*#-.()".contains(octet));
        if !is_number
            || !digits.iter().any(u8::is_ascii_alphanumeric) && !digits.iter().any(|o| b"*#".contains(o))
        {
            return Err(UriError::User);
        }
        self.user = Some(number);
        self.parameters = Parameters::parse_uri(parameters).ok_or(UriError::Parameters)?;
        check_escapes(parameters)?;
        Ok(self)
    }

    /// The transport parameter as written; `None` when absent or empty.
    pub fn transport(self) -> Option<&'a [u8]> {
        self.parameters.get(b"transport").flatten()
    }

    /// The transport parameter as a protocol that we speak; `None` when absent or another.
    pub fn protocol(self) -> Option<Protocol> {
        let token = self.transport()?;
        let all = [Protocol::Udp, Protocol::Tcp, Protocol::Tls, Protocol::Ws, Protocol::Wss];
        all.into_iter().find(|protocol| token.eq_ignore_ascii_case(protocol.uri_token().as_bytes()))
    }

    /// Whether the lr parameter is there, with or without a value: a loose router (RFC 3261 section 19.1.1).
    pub fn is_lr(self) -> bool {
        self.parameters.has(b"lr")
    }

    /// The maddr parameter.
    pub fn maddr(self) -> Option<&'a [u8]> {
        self.parameters.get(b"maddr").flatten()
    }

    /// The address that the host spells out; `None` for a name.
    pub fn host_address(self) -> Option<IpAddr> {
        scan::host_address(self.host)
    }

    /// Whether both name the same resource (RFC 3261 section 19.1.4; for tel RFC 3966 section 4). Not
    /// transitive, as the RFC has it: a parameter that only one of the two has mostly does not matter.
    pub fn is_equivalent(&self, other: &Uri<'_>) -> bool {
        crate::uri_compare::is_equivalent(self, other)
    }

    /// The canonical address-of-record: user and host, without port and parameters (RFC 3261 section 10.3
    /// step 5).
    ///
    /// Errors: [`UriError::NotAddressOfRecord`] unless sip or sips with a user, or when it is too long.
    pub fn address_of_record(&self) -> Result<AddressOfRecord, UriError> {
        match (self.scheme, self.user) {
            (Scheme::Sip | Scheme::Sips, Some(user)) => {
                AddressOfRecord::from_parts(user, self.host).map_err(|_| UriError::NotAddressOfRecord)
            }
            (Scheme::Sip | Scheme::Sips | Scheme::Tel | Scheme::Other, _) => {
                Err(UriError::NotAddressOfRecord)
            }
        }
    }
}

fn read_scheme(scheme: &[u8]) -> Result<Scheme, UriError> {
    if scheme.eq_ignore_ascii_case(b"sip") {
        return Ok(Scheme::Sip);
    }
    if scheme.eq_ignore_ascii_case(b"sips") {
        return Ok(Scheme::Sips);
    }
    if scheme.eq_ignore_ascii_case(b"tel") {
        return Ok(Scheme::Tel);
    }
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|octet| octet.is_ascii_alphanumeric() || b"+-.".contains(octet));
    if is_scheme { Ok(Scheme::Other) } else { Err(UriError::Scheme) }
}

/// Each `%` is followed by two hexadecimal digits.
fn check_escapes(bytes: &[u8]) -> Result<(), UriError> {
    for at in memchr::memchr_iter(b'%', bytes) {
        if !bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(UriError::Escape);
        }
    }
    Ok(())
}

/// `name=value` with `&` between them; a name is not empty.
fn are_headers(bytes: &[u8]) -> bool {
    bytes.split(|&octet| octet == b'&').all(|header| {
        let name = memchr::memchr(b'=', header).unwrap_or(0);
        name > 0 && scan::all(header, URI_HEADER)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Uri<'_>, UriError> {
        Uri::parse(text.as_bytes())
    }

    #[test]
    fn the_parts_of_a_sip_uri_are_read() {
        let uri =
            parse("SIP:user;par=u%40x:pass@[2001:db8::1]:5070;transport=TCP;lr;x=%41?Subject=a&b=").unwrap();

        assert_eq!(uri.scheme, Scheme::Sip);
        assert_eq!((uri.user, uri.password), (Some(&b"user;par=u%40x"[..]), Some(&b"pass"[..])));
        assert_eq!((uri.host, uri.port), (&b"[2001:db8::1]"[..], Some(5070)));
        assert_eq!(
            (uri.transport(), uri.protocol(), uri.is_lr()),
            (Some(&b"TCP"[..]), Some(Protocol::Tcp), true)
        );
        assert_eq!(uri.parameters.get(b"X"), Some(Some(&b"%41"[..])));
        assert_eq!(uri.headers, Some(&b"Subject=a&b="[..]));

        let short = parse("sips:example.com").unwrap();
        assert_eq!((short.scheme, short.user, short.host), (Scheme::Sips, None, &b"example.com"[..]));
    }

    #[test]
    fn other_schemes_are_kept() {
        let tel = parse("tel:+1-201-555-0123;phone-context=+1").unwrap();
        assert_eq!((tel.scheme, tel.user), (Scheme::Tel, Some(&b"+1-201-555-0123"[..])));
        assert!(tel.parameters.has(b"phone-context"));

        let other = parse("nobodyKnowsThisScheme:totallyopaquecontent").unwrap();
        assert_eq!((other.scheme, other.rest), (Scheme::Other, &b"totallyopaquecontent"[..]));
        assert_eq!(parse("soap.beep://192.0.2.103:3002").unwrap().scheme_bytes, b"soap.beep");
    }

    #[test]
    fn malformed_uris_are_refused_with_the_reason() {
        for (text, error) in [
            ("", UriError::Scheme),
            ("alice", UriError::Scheme),
            ("<sip:a@b>", UriError::Scheme),
            ("1x:a", UriError::Scheme),
            ("x:", UriError::Octet),
            ("x:a b", UriError::Octet),
            ("sip:@b", UriError::User),
            ("sip::p@b", UriError::User),
            ("sip:a b@c", UriError::User),
            ("sip:a[b@c", UriError::User),
            ("sip:a%4@c", UriError::Escape),
            ("sip:a@b;x=%G0", UriError::Escape),
            ("sip:", UriError::Host),
            ("sip:a@", UriError::Host),
            ("sip:a@b@c", UriError::Host),
            ("sip:a@b c", UriError::Host),
            ("sip:[::1", UriError::Host),
            ("sip:[::g]", UriError::Host),
            ("sip:2001:db8::10", UriError::Port),
            ("sip:b:", UriError::Port),
            ("sip:b:65536", UriError::Port),
            ("sip:b;", UriError::Parameters),
            ("sip:b;;lr", UriError::Parameters),
            ("sip:b;=x", UriError::Parameters),
            ("sip:b;a b", UriError::Parameters),
            ("x:a%2", UriError::Escape),
            ("sip:b?", UriError::Headers),
            ("sip:b?a", UriError::Headers),
            ("sip:b?=a", UriError::Headers),
            ("sip:b?a=<", UriError::Headers),
            ("tel:", UriError::User),
            ("tel:+", UriError::User),
            ("tel:x1", UriError::User),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn an_address_of_record_has_neither_port_nor_parameters() {
        let aor = parse("sips:%61lice:pw@EXAMPLE.com:5061;x=y").unwrap().address_of_record().unwrap();
        assert_eq!(aor.as_str(), "sip:alice@example.com");

        let nul = parse("sip:null-%00-null@example.com").unwrap().address_of_record().unwrap();
        assert_eq!(nul.user(), "null-%00-null");

        for text in ["sip:example.com", "tel:+1", "x:y"] {
            assert_eq!(parse(text).unwrap().address_of_record(), Err(UriError::NotAddressOfRecord));
        }
    }
}
