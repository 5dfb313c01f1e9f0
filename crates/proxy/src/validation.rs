//! May this request be proxied at all? Source: RFC 3261 section 16.3, RFC 5393 section 4.2.2.

use bytes::Bytes;
use sip::{HeaderId, Message, Scheme, Uri};

use crate::{Reject, loop_detection, open};

/// What this proxy understands.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Option tags allowed in Proxy-Require, compared without regard to case.
    pub option_tags: Vec<Bytes>,
    /// Whether `tel` URIs are routed. Otherwise, and for one without a number, 416. `sip` and `sips` always
    /// are.
    pub accepts_tel: bool,
    /// Further schemes that are routed, in lower case, such as `urn` for emergency services (RFC 5031).
    pub schemes: Vec<Bytes>,
    /// Key of the loop hash, the same as in [`crate::Settings::loop_key`].
    pub loop_key: u64,
}

/// Checks a request in the order of 16.3: syntax of what the proxy reads, scheme of the Request-URI,
/// Max-Forwards, loops, Proxy-Require. Proxy-Authorization is the driver's.
///
/// Errors: [`Reject`], the first one found. The driver may answer an OPTIONS rejected with
/// [`Reject::TooManyHops`] itself (section 11). An unknown method or header is never an error.
pub fn validate(request: Message<'_>, rules: &Rules) -> Result<(), Reject> {
    let _via = request.check_mandatory().map_err(Reject::Header)?;
    validate_checked(request, rules)
}

/// As [`validate`], for a request whose mandatory headers the driver has checked already.
///
/// Errors: [`Reject`], the first one found.
pub fn validate_checked(request: Message<'_>, rules: &Rules) -> Result<(), Reject> {
    check_scheme(request.request_uri(), rules)?;
    if request.max_forwards().map_err(Reject::Header)? == Some(0) {
        return Err(Reject::TooManyHops);
    }
    if loop_detection::has_looped(request, rules.loop_key) {
        return Err(Reject::LoopDetected);
    }
    check_breadth(request)?;
    check_proxy_require(request, rules)
}

fn check_scheme(request_uri: &[u8], rules: &Rules) -> Result<(), Reject> {
    let uri = Uri::parse(request_uri).map_err(Reject::RequestUri)?;
    let is_understood = match uri.scheme {
        Scheme::Sip | Scheme::Sips => true,
        Scheme::Tel => rules.accepts_tel && uri.user.is_some(),
        Scheme::Other => rules.schemes.iter().any(|scheme| uri.scheme_bytes.eq_ignore_ascii_case(scheme)),
    };
    if is_understood { Ok(()) } else { Err(Reject::UnsupportedScheme) }
}

/// Max-Breadth is a positive number (RFC 5393 section 5.3.1); with none left nothing can be forwarded.
fn check_breadth(request: Message<'_>) -> Result<(), Reject> {
    match request.header(HeaderId::MaxBreadth) {
        None => Ok(()),
        Some(value) => match open::breadth(value) {
            Some(0) => Err(Reject::MaxBreadthExceeded),
            Some(_) => Ok(()),
            None => Err(Reject::Header(sip::HeaderError::Malformed { header: HeaderId::MaxBreadth })),
        },
    }
}

fn check_proxy_require(request: Message<'_>, rules: &Rules) -> Result<(), Reject> {
    let is_unknown = |tag: &&[u8]| !rules.option_tags.iter().any(|known| tag.eq_ignore_ascii_case(known));
    let mut unsupported = Vec::new();
    for tag in request.values(HeaderId::ProxyRequire).filter(|tag| !tag.is_empty()).filter(is_unknown) {
        if !unsupported.is_empty() {
            unsupported.extend_from_slice(b", ");
        }
        unsupported.extend_from_slice(tag);
    }
    if unsupported.is_empty() {
        Ok(())
    } else {
        Err(Reject::BadExtension { unsupported: unsupported.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        reject_response,
        testing::{message, request},
    };

    fn check(lines: &str) -> Result<(), Reject> {
        let rules = Rules { option_tags: vec![Bytes::from_static(b"known")], ..Rules::default() };
        validate(request("INVITE", lines).view(), &rules)
    }

    fn with_uri(uri: &str, rules: &Rules) -> Result<(), Reject> {
        let text = String::from_utf8(request("INVITE", "X: y").bytes().to_vec()).unwrap();
        let text = text.replace("\r\n", "\n").replacen("sip:bob@example.com", uri, 1);
        validate(message(&text).view(), rules)
    }

    fn status(result: Result<(), Reject>) -> u16 {
        result.map_or_else(|reject| reject.status(), |()| 0)
    }

    #[test]
    fn step_1_only_what_the_proxy_reads_must_be_well_formed() {
        assert_eq!(
            check("Max-Forwards: 70\r\nDate: no date\r\nContact: <<<\r\nWarning: \"\r\nExpires: x"),
            Ok(())
        );
        assert_eq!(status(check("Max-Forwards: many")), 400);
        assert_eq!(status(check("CSeq: 8 INVITE")), 400);
        assert_eq!(status(check("Max-Breadth: wide")), 400);
    }

    #[test]
    fn step_1_an_unknown_method_is_no_reason_to_refuse() {
        assert_eq!(validate(request("DANCE", "X: y").view(), &Rules::default()), Ok(()));
    }

    #[test]
    fn step_2_a_scheme_that_is_not_understood_is_416() {
        let plain = Rules::default();
        let telephony =
            Rules { accepts_tel: true, schemes: vec![Bytes::from_static(b"urn")], ..Rules::default() };

        assert_eq!(with_uri("sips:bob@example.com", &plain), Ok(()));
        for uri in ["tel:+12015550123", "urn:service:sos", "im:bob@example.com", "http://example.com/"] {
            assert_eq!(with_uri(uri, &plain), Err(Reject::UnsupportedScheme), "{uri}");
        }
        assert_eq!(with_uri("tel:+12015550123", &telephony), Ok(()));
        assert_eq!(with_uri("URN:service:sos", &telephony), Ok(()));
        assert_eq!(with_uri("im:bob@example.com", &telephony), Err(Reject::UnsupportedScheme));
        assert_eq!(status(with_uri("sip:@@", &plain)), 400);
    }

    #[test]
    fn step_3_max_forwards_0_is_483_and_absence_is_no_error() {
        assert_eq!(check("Max-Forwards: 0"), Err(Reject::TooManyHops));
        assert_eq!(check("Max-Forwards: 1"), Ok(()));
        assert_eq!(check("X: y"), Ok(()));
    }

    #[test]
    fn step_5_unknown_option_tags_in_proxy_require_are_420_and_named_in_unsupported() {
        let lines = "Proxy-Require: KNOWN, first\r\nProxy-Require: second";
        assert_eq!(check("Proxy-Require: known"), Ok(()));
        assert_eq!(check("Require: what-the-callee-must-know"), Ok(()));
        let reject = check(lines).unwrap_err();

        let mut out = Vec::new();
        reject_response(request("INVITE", lines).view(), &reject, b"t1", &mut out);

        let response = String::from_utf8(out).unwrap();
        assert!(response.starts_with("SIP/2.0 420 Bad Extension\r\n"), "{response}");
        assert!(response.contains("\r\nUnsupported: first, second\r\n"), "{response}");
        assert!(response.contains("To: Bob <sip:bob@example.com>;tag=t1\r\n"), "{response}");
    }

    #[test]
    fn rfc_5393_a_request_without_breadth_left_is_440() {
        assert_eq!(check("Max-Breadth: 0"), Err(Reject::MaxBreadthExceeded));
        assert_eq!(check("Max-Breadth: 1"), Ok(()));
    }

    #[test]
    fn a_400_says_what_is_bad_and_a_503_and_a_480_when_to_come_back() {
        let mut out = Vec::new();
        let invite = request("INVITE", "Max-Forwards: many");
        reject_response(invite.view(), &check("Max-Forwards: many").unwrap_err(), b"t1", &mut out);
        reject_response(invite.view(), &Reject::ServiceUnavailable { retry_after_s: 7 }, b"t1", &mut out);

        let both = String::from_utf8(out).unwrap();
        assert!(both.starts_with("SIP/2.0 400 Bad Request: Max-Forwards"), "{both}");
        assert!(both.contains("SIP/2.0 503 Service Unavailable\r\n"), "{both}");
        assert!(both.contains("\r\nRetry-After: 7\r\n"), "{both}");

        let mut out = Vec::new();
        reject_response(invite.view(), &Reject::Unreachable { retry_after_s: 9 }, b"t1", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("SIP/2.0 480 Temporarily Unavailable\r\n"), "{text}");
        assert!(text.contains("\r\nRetry-After: 9\r\n"), "{text}");
    }
}
