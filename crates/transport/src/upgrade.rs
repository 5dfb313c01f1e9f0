//! The HTTP request by which a connection becomes a WebSocket, and our answer to it.
//!
//! Refused is what is not a WebSocket of version 13, and who does not offer the subprotocol `sip`. Any path
//! is taken. Origin is not looked at: nothing that a browser adds by itself, such as a cookie, lets anybody
//! in here; a page of any origin needs the credentials of a SIP user, and has to ask the user for them.
//!
//! Source: RFC 6455 section 4.2, RFC 7118 section 4.

use model::limits;
use tungstenite::{
    error::ProtocolError,
    handshake::{
        machine::TryParse,
        server::{Request, Response, create_response, write_response},
    },
    http::{
        HeaderMap, HeaderValue,
        header::{HOST, SEC_WEBSOCKET_PROTOCOL},
    },
};

/// The subprotocol of RFC 7118 section 4.1.
const SUBPROTOCOL: &str = "sip";

/// What became of the first octets of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// The request is not whole yet.
    NeedMore,
    /// A WebSocket after this answer; the request had so many octets.
    Accepted {
        /// The response 101.
        answer: Vec<u8>,
        /// Octets of the request.
        length: usize,
    },
    /// None; to be closed after this answer.
    Refused {
        /// The response.
        answer: Vec<u8>,
    },
}

/// Reads the request at the start of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Upgrade {
    match Request::try_parse(bytes) {
        Ok(None) if bytes.len() < limits::UPGRADE_BYTES_MAX => Upgrade::NeedMore,
        Ok(None) => refused("431 Request Header Fields Too Large", "", "the request is too long"),
        Ok(Some((length, _))) if length > limits::UPGRADE_BYTES_MAX => {
            refused("431 Request Header Fields Too Large", "", "the request is too long")
        }
        Ok(Some((length, request))) => match accept(&request) {
            Ok(answer) => Upgrade::Accepted { answer, length },
            Err(refusal) => refusal,
        },
        Err(error) => refusal(&error),
    }
}

/// The response 101, or the refusal.
fn accept(request: &Request) -> Result<Vec<u8>, Upgrade> {
    let mut response = create_response(request).map_err(|error| refusal(&error))?;
    if request.headers().get(HOST).is_none() {
        return Err(refused("400 Bad Request", "", "no Host"));
    }
    if !offers_sip(request.headers()) {
        let reason = "this server speaks the WebSocket subprotocol sip only (RFC 7118); offer it";
        return Err(refused("400 Bad Request", "", reason));
    }
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    written(&response).ok_or_else(|| refused("500 Internal Server Error", "", "no answer"))
}

fn written(response: &Response) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    write_response(&mut answer, response).ok().map(|()| answer)
}

/// Whether `sip` is among the subprotocols offered: a list, maybe in several headers.
fn offers_sip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|offer| offer.trim().eq_ignore_ascii_case(SUBPROTOCOL))
}

fn refusal(error: &tungstenite::Error) -> Upgrade {
    let text = error.to_string();
    // Of all errors these two have a status of their own.
    if let tungstenite::Error::Protocol(ProtocolError::WrongHttpMethod) = error {
        return refused("405 Method Not Allowed", "Allow: GET\r\n", &text);
    }
    if let tungstenite::Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) = error {
        return refused("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n", &text);
    }
    refused("400 Bad Request", "", &text)
}

fn refused(status: &str, headers: &str, reason: &str) -> Upgrade {
    let length = reason.len() + 1;
    let answer = format!(
        "HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\n\r\n{reason}\n"
    );
    Upgrade::Refused { answer: answer.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7118 section 4.2, with the key of RFC 6455 section 1.3.
    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: sip-ws.example.com\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Origin: http://www.example.com\r\nSec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn refused_with(request: &str) -> String {
        let read = read(request.as_bytes());
        let Upgrade::Refused { answer } = read else { panic!("{request}: {read:?}") };
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn the_request_of_the_rfc_is_accepted_whole_and_not_before() {
        for length in 0..REQUEST.len() {
            assert_eq!(read(&REQUEST.as_bytes()[..length]), Upgrade::NeedMore);
        }
        let more = format!("{REQUEST}more");
        let Upgrade::Accepted { answer, length } = read(more.as_bytes()) else { panic!() };

        let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101 switching protocols\r\n"), "{answer}");
        assert!(answer.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{answer}");
        assert!(answer.contains("\r\nsec-websocket-protocol: sip\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        assert_eq!(length, REQUEST.len());
    }

    #[test]
    fn sip_is_found_among_other_subprotocols() {
        for offer in ["chat, sip", "SIP", "chat\r\nSec-WebSocket-Protocol: sip"] {
            let request = REQUEST.replace("Protocol: sip", &format!("Protocol: {offer}"));
            assert!(matches!(read(request.as_bytes()), Upgrade::Accepted { .. }), "{offer}");
        }
    }

    #[test]
    fn what_is_no_websocket_for_sip_is_refused_with_a_reason() {
        let cases = [
            ("Sec-WebSocket-Protocol: sip\r\n", "", "400 ", "subprotocol sip"),
            ("Protocol: sip", "Protocol: chat, sips", "400 ", "subprotocol sip"),
            (
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Version: 8",
                "426 ",
                "Sec-WebSocket-Version: 13\r\n",
            ),
            ("GET", "POST", "405 ", "Allow: GET\r\n"),
            ("HTTP/1.1", "HTTP/1.0", "400 ", "HTTP version"),
            ("Upgrade: websocket\r\n", "", "400 ", "Upgrade"),
            ("Connection: Upgrade", "Connection: close", "400 ", "upgrade"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhl", "400 ", "Sec-WebSocket-Key"),
            ("Host: sip-ws.example.com\r\n", "", "400 ", "Host"),
            ("GET / HTTP/1.1", "REGISTER sip:example.com SIP/2.0", "400 ", "version"),
            ("Host", "Ho st", "400 ", "header name"),
        ];
        for (from, to, status, part) in cases {
            let answer = refused_with(&REQUEST.replacen(from, to, 1));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{to}: {answer}");
            assert!(answer.contains(part), "{to}: {answer}");
            assert!(answer.contains("\r\nConnection: close\r\n"), "{to}: {answer}");
        }
    }

    #[test]
    fn a_request_without_end_is_refused_at_its_bound() {
        let endless = format!("GET / HTTP/1.1\r\nCookie: {}", "x".repeat(limits::UPGRADE_BYTES_MAX));
        assert!(refused_with(&endless).starts_with("HTTP/1.1 431 "));
        let long =
            REQUEST.replace("Host", &format!("Cookie: {}\r\nHost", "x".repeat(limits::UPGRADE_BYTES_MAX)));
        assert!(refused_with(&long).starts_with("HTTP/1.1 431 "));
    }
}
