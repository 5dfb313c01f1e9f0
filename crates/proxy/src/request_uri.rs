//! Request-URIs without what may not or need not stand in them. Source: RFC 3261 sections 16.4, 16.6 step 2
//! and 19.1.1.

use std::{borrow::Cow, io::Write};

use sip::{Scheme, Uri};

/// The URI without what a Request-URI may not have: the method parameter and headers (16.6 step 2, 19.1.1).
pub(crate) fn allowed_in_request_uri(uri: &[u8]) -> Cow<'_, [u8]> {
    let Ok(parsed) = Uri::parse(uri) else { return Cow::Borrowed(uri) };
    let is_allowed = parsed.headers.is_none() && !parsed.parameters.has(b"method");
    if is_allowed || !is_sip(&parsed) {
        return Cow::Borrowed(uri);
    }
    Cow::Owned(write(&parsed, parsed.port, &[b"method"]))
}

/// The URI without maddr, port and transport, which named us (16.4).
pub(crate) fn without_maddr(uri: &Uri<'_>) -> Vec<u8> {
    write(uri, None, &[b"maddr", b"transport", b"method"])
}

/// Whether the URI is a SIP or SIPS URI, so that it has a host.
pub(crate) fn is_sip(uri: &Uri<'_>) -> bool {
    match uri.scheme {
        Scheme::Sip | Scheme::Sips => true,
        Scheme::Tel | Scheme::Other => false,
    }
}

/// Writes a SIP or SIPS URI again, without headers and without the parameters of these names.
fn write(uri: &Uri<'_>, port: Option<u16>, without: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(uri.scheme_bytes);
    out.push(b':');
    if let Some(user) = uri.user {
        out.extend_from_slice(user);
        if let Some(password) = uri.password {
            out.push(b':');
            out.extend_from_slice(password);
        }
        out.push(b'@');
    }
    out.extend_from_slice(uri.host);
    if let Some(port) = port {
        write!(out, ":{port}").expect("invariant: writing to a Vec cannot fail");
    }
    for parameter in uri.parameters.iter() {
        if without.iter().any(|name| parameter.name.eq_ignore_ascii_case(name)) {
            continue;
        }
        out.push(b';');
        out.extend_from_slice(parameter.name);
        if let Some(value) = parameter.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_uri_loses_the_method_parameter_and_headers_only_16_6_step_2() {
        let allowed = |uri: &'static str| allowed_in_request_uri(uri.as_bytes());

        assert_eq!(
            *allowed("sip:a;x=1:p@[2001:db8::1]:5070;method=INVITE;lr;user=phone?Subject=x%40y"),
            *b"sip:a;x=1:p@[2001:db8::1]:5070;lr;user=phone"
        );
        assert_eq!(*allowed("sip:h?a=b"), *b"sip:h");
        assert!(matches!(allowed("sip:a@h;transport=tcp"), Cow::Borrowed(_)));
        assert!(matches!(allowed("tel:+1-201;method=x"), Cow::Borrowed(_)));
    }
}
