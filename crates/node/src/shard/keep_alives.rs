//! Keep-alives of phones with Outbound over connections: Flow-Timer, and what happens when they stay out.
//!
//! Over TCP and TLS a phone is told how often to send them, and its connection is closed when nothing comes
//! for that time and a grace: then its binding goes as that of any closed connection does, and whoever
//! subscribed to it is told. Over UDP it is told nothing, because a time fit for connections is too long for
//! NATs there, and phones send what RFC 5626 section 4.4.2 recommends; over WebSocket neither, because a page
//! in a browser cannot send keep-alives (RFC 7118 section 6).
//!
//! Source: RFC 5626 sections 4.4, 5.4 and 6.

use std::time::Duration;

use bytes::Bytes;
use model::{Peer, Protocol};
use registrar::RegisterRequest;
use sip::{Framing, HeaderError, HeaderId, Message, NameAddr, OwnedMessage, Rewrite};

use super::Shard;

/// Least time beyond Flow-Timer that a keep-alive may take to come.
const GRACE_MIN: Duration = Duration::from_secs(5);

/// What phones with Outbound are told about keep-alives, and how long we wait for them.
#[derive(Clone, Debug)]
pub(super) struct FlowTimer {
    /// Seconds, the value of Flow-Timer.
    text: String,
    /// Flow-Timer and its grace.
    within: Duration,
}

impl FlowTimer {
    /// With a grace of a quarter, at least five seconds; `None` for 0 seconds.
    pub(super) fn of(seconds: u32) -> Option<Self> {
        let span = Duration::from_secs(u64::from(seconds));
        let within = span.saturating_add(GRACE_MIN.max(span / 4));
        (seconds > 0).then(|| Self { text: seconds.to_string(), within })
    }

    /// The value of the header.
    pub(super) fn value(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Shard {
    /// Whether the 200 OK to a phone that registered a flow over `from` says Flow-Timer; then its keep-alives
    /// are waited for from now on.
    pub(super) fn expects_keep_alives(
        &self,
        register: &RegisterRequest,
        request: Message<'_>,
        from: &Peer,
    ) -> bool {
        let Some(timer) = self.settings.flow_timer.as_ref() else { return false };
        let is_expected = register.keeps_flow() && is_told(from.protocol) && is_from_phone(request);
        if is_expected {
            self.sockets.expect_within(from.flow, timer.within);
        }
        is_expected
    }

    /// The answer of the owner to a REGISTER that came over `from`, with our Flow-Timer where it registered a
    /// flow: ours is the end of the flow (RFC 5626 section 5.4).
    pub(super) fn with_flow_timer(
        &self,
        request: Message<'_>,
        from: &Peer,
        status: u16,
        response: Bytes,
    ) -> Bytes {
        let Some(timer) = self.settings.flow_timer.as_ref() else { return response };
        if status != 200 || !is_told(from.protocol) || !is_from_phone(request) {
            return response;
        }
        let Ok(message) = OwnedMessage::parse(response.clone(), Framing::Datagram) else { return response };
        let has_flow = |contact: Result<NameAddr<'_>, HeaderError>| {
            contact.is_ok_and(|contact| contact.parameters.has(b"reg-id"))
        };
        if !message.view().has_token(HeaderId::Require, b"outbound")
            || !message.view().addresses(HeaderId::Contact).any(has_flow)
        {
            return response;
        }
        let mut rewrite = Rewrite::new(message.view());
        rewrite.remove(HeaderId::FlowTimer).add_header(HeaderId::FlowTimer.name(), timer.value());
        let Ok(with_timer) = rewrite.to_message() else { return response };
        self.sockets.expect_within(from.flow, timer.within);
        with_timer.bytes().clone()
    }
}

/// Whether the phone itself is at the other end: a proxy in between has promised nothing, and its connection
/// carries others too (RFC 5626 section 5.4).
fn is_from_phone(request: Message<'_>) -> bool {
    request.values(HeaderId::Via).nth(1).is_none()
}

const fn is_told(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp | Protocol::Tls => true,
        Protocol::Udp | Protocol::Ws | Protocol::Wss => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keep_alive_may_be_a_quarter_late_and_five_seconds_at_least() {
        let within = |seconds| FlowTimer::of(seconds).map(|timer| (timer.text, timer.within.as_millis()));

        assert_eq!(within(120), Some(("120".to_owned(), 150_000)));
        assert_eq!(within(1), Some(("1".to_owned(), 6_000)));
        assert_eq!(within(0), None);
    }
}
