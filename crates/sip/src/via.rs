//! The Via header.

use std::net::IpAddr;

use crate::{
    Values,
    parameters::{Parameter, Parameters},
    scan::{self, TOKEN},
};

/// One Via value: who sent the request and where the response goes (RFC 3261 section 20.42).
#[derive(Clone, Copy, Debug)]
pub struct Via<'a> {
    /// Name of the protocol, `SIP`.
    pub protocol_name: &'a [u8],
    /// Version of the protocol, `2.0`.
    pub version: &'a [u8],
    /// Transport: `UDP`, `TCP`, `TLS`, `WS`, `WSS` or any other token.
    pub protocol_token: &'a [u8],
    /// Host of sent-by, an IPv6 address with its brackets.
    pub host: &'a [u8],
    /// Port of sent-by; `None` = the default of the transport.
    pub port: Option<u16>,
    /// The parameters.
    pub parameters: Parameters<'a>,
    /// The whole value, without white space around it.
    pub(crate) text: &'a [u8],
    known: Known<'a>,
}

/// The first of each parameter that is asked for again and again, found while all were checked.
#[derive(Clone, Copy, Debug, Default)]
struct Known<'a> {
    branch: Option<Option<&'a [u8]>>,
    received: Option<Option<&'a [u8]>>,
    rport: Option<Option<&'a [u8]>>,
}

impl<'a> Known<'a> {
    #[inline]
    fn note(&mut self, parameter: Parameter<'a>) {
        let slot = match parameter.name.len() {
            6 if parameter.name.eq_ignore_ascii_case(b"branch") => &mut self.branch,
            8 if parameter.name.eq_ignore_ascii_case(b"received") => &mut self.received,
            5 if parameter.name.eq_ignore_ascii_case(b"rport") => &mut self.rport,
            _ => return,
        };
        slot.get_or_insert(parameter.value);
    }
}

/// The start of every branch that follows RFC 3261 section 8.1.1.7.
const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

impl<'a> Via<'a> {
    /// Reads one value (not a list); white space may stand around `/` and `:`. `None` when malformed.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (via, parameters) = Self::parse_start(value)?;
        let mut known = Known::default();
        let parameters = Parameters::parse_each(parameters, |parameter| known.note(parameter))?;
        Some(Self { parameters, known, ..via })
    }

    /// Reads what stands before the parameters; returns these unread.
    pub(crate) fn parse_start(value: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let text = scan::trim(value);
        let (protocol_name, version, after) = take_protocol(text)?;
        let length = scan::run(after, TOKEN);
        let (protocol_token, rest) = scan::cut(after, length);
        let sent_by = scan::trim_start(rest);
        if protocol_token.is_empty() || sent_by.len() == rest.len() {
            return None;
        }
        let (host, rest) = scan::take_host(sent_by)?;
        let rest = scan::trim_start(rest);
        let (port, rest) = match rest.strip_prefix(b":") {
            None => (None, rest),
            Some(after) => {
                let after = scan::trim_start(after);
                let (digits, rest) =
                    scan::cut(after, after.iter().take_while(|o| o.is_ascii_digit()).count());
                (Some(scan::port(digits)?), scan::trim_start(rest))
            }
        };
        let (parameters, known) = (Parameters::default(), Known::default());
        Some((Self { protocol_name, version, protocol_token, host, port, parameters, text, known }, rest))
    }

    /// The branch parameter; `None` when absent or empty (RFC 2543).
    pub fn branch(self) -> Option<&'a [u8]> {
        self.known.branch.flatten()
    }

    /// Whether the branch identifies the transaction: the magic cookie and at least one octet more (RFC 3261
    /// section 17.2.3). Otherwise match as RFC 2543 did.
    pub fn has_rfc3261_branch(self) -> bool {
        self.branch().is_some_and(|branch| {
            branch.len() > MAGIC_COOKIE.len()
                && branch
                    .get(..MAGIC_COOKIE.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(MAGIC_COOKIE))
        })
    }

    /// The received parameter, as written; see [`Self::received_address`].
    pub fn received(self) -> Option<&'a [u8]> {
        self.known.received.flatten()
    }

    /// The address in the received parameter, IPv6 with or without brackets (RFC 5118 section 4.5).
    pub fn received_address(self) -> Option<IpAddr> {
        self.received().and_then(scan::host_address)
    }

    /// The rport parameter (RFC 3581): `None` when absent, `Some(None)` when it asks for the port. A value
    /// that is no port reads as absent.
    pub fn rport(self) -> Option<Option<u16>> {
        match self.known.rport? {
            None => Some(None),
            Some(value) => scan::port(value).map(Some),
        }
    }

    /// The maddr parameter.
    pub fn maddr(self) -> Option<&'a [u8]> {
        self.parameters.get(b"maddr").flatten()
    }

    /// The address that sent-by spells out; `None` for a name.
    pub fn host_address(self) -> Option<IpAddr> {
        scan::host_address(self.host)
    }
}

/// Name and version of the protocol, and what stands behind the second `/`.
fn take_protocol(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    if let Some((b"SIP/2.0/", after)) = text.split_at_checked(8) {
        return Some((b"SIP", b"2.0", scan::trim_start(after)));
    }
    let (name, rest) = take_token(text)?;
    let (version, rest) = take_token(scan::trim_start(rest.strip_prefix(b"/")?))?;
    Some((name, version, scan::trim_start(rest.strip_prefix(b"/")?)))
}

/// A token with white space after it.
fn take_token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (token, rest) = scan::cut(bytes, scan::run(bytes, TOKEN));
    (!token.is_empty()).then(|| (token, scan::trim_start(rest)))
}

/// The Via values of a message, topmost first; a malformed one is `None`.
#[derive(Clone, Debug)]
pub struct Vias<'a>(pub(crate) Values<'a>);

impl<'a> Iterator for Vias<'a> {
    type Item = Option<Via<'a>>;

    fn next(&mut self) -> Option<Option<Via<'a>>> {
        self.0.next().map(Via::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_via_is_read_with_space_in_every_place() {
        let via =
            Via::parse(b"SIP  / 2.0\r\n / TCP     spindle.example.com  :  5061 ;\r\n branch = z9hG4bK9ikj8")
                .unwrap();

        assert_eq!(
            (via.protocol_name, via.version, via.protocol_token),
            (&b"SIP"[..], &b"2.0"[..], &b"TCP"[..])
        );
        assert_eq!((via.host, via.port), (&b"spindle.example.com"[..], Some(5061)));
        assert_eq!(via.branch(), Some(&b"z9hG4bK9ikj8"[..]));
        assert!(via.has_rfc3261_branch());
    }

    #[test]
    fn addresses_in_sent_by_and_received_are_read_in_each_spelling() {
        let via =
            Via::parse(b"SIP/2.0/UDP [2001:db8::9:1]:5070;received=2001:db8::9:255;rport=7;branch=z9hG4bK")
                .unwrap();

        assert_eq!(via.host_address(), Some("2001:db8::9:1".parse().unwrap()));
        assert_eq!(via.received_address(), Some("2001:db8::9:255".parse().unwrap()));
        assert_eq!(via.rport(), Some(Some(7)));
        assert!(!via.has_rfc3261_branch());

        let bracketed = Via::parse(b"SIP/2.0/UDP h;received=[2001:db8::9:255];rport").unwrap();
        assert_eq!(bracketed.received_address(), via.received_address());
        assert_eq!((bracketed.rport(), bracketed.port, bracketed.branch()), (Some(None), None, None));
    }

    #[test]
    fn a_malformed_via_is_refused() {
        for bad in [
            "",
            "SIP/2.0",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ",
            "SIP/2.0 UDP h",
            "SIP/2.0/UDP h:",
            "SIP/2.0/UDP h:65536",
            "SIP/2.0/UDP h:5x",
            "SIP/2.0/UDP 192.0.2.15;;,;,,",
            "SIP/2.0/UDP h i",
            "SIP/2.0/UDP [::1",
            "SIP/2.0/UDP ::1",
            "SIP/2.0/UDP h;branch=",
            "SIP//UDP h",
            "SIP/2.0/UDP <h>",
        ] {
            assert!(Via::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
