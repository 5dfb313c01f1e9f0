//! The dialog of a subscription, as its notifier: who it is with, and the NOTIFY requests in it. Source: RFC
//! 3261 section 12.

use bytes::Bytes;
use model::{Leg, Peer, Protocol, ServerName, limits};
use registrar::{
    Octets,
    reg_event::{CONTENT_TYPE, PACKAGE, SubscribeError, SubscriptionState},
};
use sip::{Framing, FramingError, HeaderError, HeaderId, Message, NameAddr, OwnedMessage};

/// What names a dialog at this end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct DialogName {
    call_id: Octets,
    local_tag: Octets,
    remote_tag: Octets,
}

impl DialogName {
    /// The dialog that a request of the far end belongs to; `None` outside of any.
    pub(super) fn of_request(request: Message<'_>) -> Option<Self> {
        let local_tag = request.to().ok()?.tag()?.into();
        Self::with_local_tag(request, local_tag)
    }

    /// The dialog that a request begins when its 2xx says `local_tag`.
    pub(super) fn with_local_tag(request: Message<'_>, local_tag: Octets) -> Option<Self> {
        let remote_tag = request.from().ok()?.tag().unwrap_or_default().into();
        Some(Self { call_id: request.call_id().ok()?.into(), local_tag, remote_tag })
    }
}

/// One dialog.
#[derive(Clone, Debug)]
pub(super) struct Dialog {
    pub(super) name: DialogName,
    /// From of our requests.
    local: Vec<u8>,
    /// To of our requests.
    remote: Vec<u8>,
    target: Vec<u8>,
    routes: Vec<Vec<u8>>,
    /// Our Contact.
    pub(super) contact: String,
    cseq: u32,
    /// Where the SUBSCRIBE came from.
    pub(super) peer: Peer,
    /// The server of ours through which it came; `None` directly from the phone.
    pub(super) through: Option<ServerName>,
}

/// What a NOTIFY says, besides what the dialog says.
pub(super) struct Notification<'a> {
    pub(super) event_id: Option<&'a [u8]>,
    pub(super) state: SubscriptionState,
    pub(super) body: &'a str,
}

impl Dialog {
    /// The dialog that a SUBSCRIBE begins when it is answered with `local_tag` and `contact`.
    ///
    /// Errors: `Header` and `TooLong`.
    pub(super) fn begin(
        request: Message<'_>,
        local_tag: &str,
        contact: String,
        peer: Peer,
        through: Option<ServerName>,
    ) -> Result<Self, SubscribeError> {
        let kept = |header: HeaderId, max: usize| {
            let value = request.header(header).ok_or(HeaderError::Missing { header })?;
            if value.len() > max { Err(SubscribeError::TooLong { header, max }) } else { Ok(one_line(value)) }
        };
        let max = limits::DIALOG_HEADER_BYTES_MAX;
        let mut local = kept(HeaderId::To, max)?;
        local.extend_from_slice(b";tag=");
        local.extend_from_slice(local_tag.as_bytes());
        let remote = kept(HeaderId::From, max)?;
        kept(HeaderId::CallId, limits::CALL_ID_BYTES_MAX)?;
        let routes: Vec<Vec<u8>> = request.values(HeaderId::RecordRoute).map(one_line).collect();
        if routes.iter().map(Vec::len).sum::<usize>() > max {
            return Err(SubscribeError::TooLong { header: HeaderId::RecordRoute, max });
        }
        let from = HeaderError::Malformed { header: HeaderId::From };
        let name = DialogName::with_local_tag(request, local_tag.as_bytes().into()).ok_or(from)?;
        Ok(Self { name, local, remote, target: Vec::new(), routes, contact, cseq: 0, peer, through })
    }

    /// Where our requests go from now on: the contact of the newest SUBSCRIBE (RFC 3261 section 12.2.2), over
    /// the flow that it came over.
    pub(super) fn set_target(&mut self, target: &[u8], peer: Peer) {
        self.target = target.to_vec();
        self.peer = peer;
    }

    /// The contact that our requests are for.
    pub(super) fn target(&self) -> &[u8] {
        &self.target
    }

    /// The next NOTIFY of the dialog. `branch` is unique for it.
    ///
    /// Errors: [`FramingError`] when it would be too large.
    pub(super) fn notify(
        &mut self,
        leg: &Leg,
        branch: &str,
        notification: &Notification<'_>,
    ) -> Result<OwnedMessage, FramingError> {
        self.cseq = self.cseq.saturating_add(1);
        let Notification { event_id, state, body } = notification;
        let (request_uri, routes) = self.route_set();
        let mut out = Vec::with_capacity(1_024 + body.len());
        let mut line = |parts: &[&[u8]]| {
            parts.iter().for_each(|part| out.extend_from_slice(part));
            out.extend_from_slice(b"\r\n");
        };
        let rport: &[u8] = if self.peer.protocol == Protocol::Udp { b";rport" } else { b"" };
        line(&[b"NOTIFY ", &request_uri, b" SIP/2.0"]);
        line(&[b"Via: ", &leg.via, b";branch=", branch.as_bytes(), rport]);
        line(&[b"Max-Forwards: 70"]);
        for route in &routes {
            line(&[b"Route: ", route]);
        }
        line(&[b"From: ", &self.local]);
        line(&[b"To: ", &self.remote]);
        line(&[b"Call-ID: ", &self.name.call_id]);
        line(&[b"CSeq: ", self.cseq.to_string().as_bytes(), b" NOTIFY"]);
        line(&[b"Contact: ", self.contact.as_bytes()]);
        match event_id {
            Some(id) => line(&[b"Event: ", PACKAGE.as_bytes(), b";id=", id]),
            None => line(&[b"Event: ", PACKAGE.as_bytes()]),
        }
        line(&[b"Subscription-State: ", state.to_value().as_bytes()]);
        line(&[b"Content-Type: ", CONTENT_TYPE.as_bytes()]);
        line(&[b"Content-Length: ", body.len().to_string().as_bytes()]);
        line(&[]);
        out.extend_from_slice(body.as_bytes());
        OwnedMessage::parse(Bytes::from(out), Framing::Datagram)
    }

    /// Request-URI and Route values (RFC 3261 section 12.2.1.1): a first hop that is a strict router stands
    /// in the Request-URI, and the target at the end.
    fn route_set(&self) -> (Vec<u8>, Vec<Vec<u8>>) {
        let first = self.routes.first().and_then(|route| NameAddr::parse(route));
        match first.and_then(|first| Some((first.uri_bytes, first.uri().ok()?.is_lr()))) {
            Some((strict, false)) => {
                let mut routes: Vec<Vec<u8>> = self.routes.iter().skip(1).cloned().collect();
                routes.push([b"<", self.target.as_slice(), b">"].concat());
                (strict.to_vec(), routes)
            }
            Some((_, true)) | None => (self.target.clone(), self.routes.clone()),
        }
    }
}

/// A header value without its line folds.
fn one_line(value: &[u8]) -> Vec<u8> {
    value.iter().map(|&octet| if matches!(octet, b'\r' | b'\n') { b' ' } else { octet }).collect()
}

#[cfg(test)]
mod tests {
    use model::FlowId;
    use registrar::reg_event::Ending;

    use super::*;

    fn subscribe(lines: &str) -> OwnedMessage {
        let text = format!(
            "SUBSCRIBE sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1\r\n\
             From: \"A\"\r\n <sip:a@example.com>;tag=far\r\nTo: <sip:a@example.com>\r\nCall-ID: c1\r\n\
             CSeq: 1 SUBSCRIBE\r\nContact: <sip:a@192.0.2.7>\r\nEvent: reg\r\n{lines}\
             Content-Length: 0\r\n\r\n"
        );
        OwnedMessage::parse(Bytes::from(text), Framing::Datagram).unwrap()
    }

    fn peer() -> Peer {
        let (remote, local) = ("192.0.2.7:5060".parse().unwrap(), "192.0.2.1:5060".parse().unwrap());
        Peer { protocol: Protocol::Udp, remote, local, flow: FlowId::new(0, 0) }
    }

    fn dialog(lines: &str) -> Result<Dialog, SubscribeError> {
        let contact = "<sip:reg-event@192.0.2.1:5060>".to_owned();
        let mut dialog = Dialog::begin(subscribe(lines).view(), "near", contact, peer(), None)?;
        dialog.set_target(b"sip:a@192.0.2.7", peer());
        Ok(dialog)
    }

    fn leg() -> Leg {
        Leg { via: "SIP/2.0/UDP 192.0.2.1:5060".into(), record_route: Bytes::new() }
    }

    fn notify(dialog: &mut Dialog) -> String {
        let state = SubscriptionState::Terminated(Ending::Deactivated);
        let notification = Notification { event_id: Some(b"7"), state, body: "<x/>" };
        let message = dialog.notify(&leg(), "z9hG4bK0.1", &notification).unwrap();
        message.view().check_mandatory().unwrap();
        String::from_utf8(message.bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_notify_goes_back_in_the_dialog_that_the_subscribe_began() {
        let mut dialog = dialog("").unwrap();

        let text = notify(&mut dialog);

        assert_eq!(
            text,
            "NOTIFY sip:a@192.0.2.7 SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK0.1;rport\r\nMax-Forwards: 70\r\n\
             From: <sip:a@example.com>;tag=near\r\nTo: \"A\"   <sip:a@example.com>;tag=far\r\nCall-ID: c1\r\n\
             CSeq: 1 NOTIFY\r\nContact: <sip:reg-event@192.0.2.1:5060>\r\nEvent: reg;id=7\r\n\
             Subscription-State: terminated;reason=deactivated\r\n\
             Content-Type: application/reginfo+xml\r\nContent-Length: 4\r\n\r\n<x/>"
        );
        assert!(notify(&mut dialog).contains("CSeq: 2 NOTIFY\r\n"));
    }

    #[test]
    fn a_notify_follows_the_route_of_its_dialog_in_order() {
        let mut dialog =
            dialog("Record-Route: <sip:p1;lr>, <sip:p2;lr>\r\nRecord-Route: <sip:p3;lr>\r\n").unwrap();

        let text = notify(&mut dialog);

        assert!(text.starts_with("NOTIFY sip:a@192.0.2.7 SIP/2.0\r\n"));
        assert!(
            text.contains("Route: <sip:p1;lr>\r\nRoute: <sip:p2;lr>\r\nRoute: <sip:p3;lr>\r\n"),
            "{text}"
        );
    }

    #[test]
    fn a_strict_router_comes_first_and_the_target_last() {
        let mut dialog = dialog("Record-Route: <sip:p1>, <sip:p2;lr>\r\n").unwrap();

        let text = notify(&mut dialog);

        assert!(text.starts_with("NOTIFY sip:p1 SIP/2.0\r\n"), "{text}");
        assert!(text.contains("Route: <sip:p2;lr>\r\nRoute: <sip:a@192.0.2.7>\r\n"), "{text}");
    }

    #[test]
    fn a_later_request_is_found_by_both_tags_and_the_call_id() {
        let dialog = dialog("").unwrap();
        let text = String::from_utf8(subscribe("").bytes().to_vec()).unwrap();
        let later = |tag: &str| {
            let text = text.replace("To: <sip:a@example.com>", &format!("To: <sip:a@example.com>;tag={tag}"));
            let message = OwnedMessage::parse(Bytes::from(text), Framing::Datagram).unwrap();
            DialogName::of_request(message.view())
        };

        assert_eq!(later("near"), Some(dialog.name.clone()));
        assert_ne!(later("other"), Some(dialog.name));
        assert_eq!(DialogName::of_request(subscribe("").view()), None);
    }

    #[test]
    fn headers_that_are_too_long_to_keep_are_refused() {
        let long = format!("Record-Route: <sip:{};lr>\r\n", "p".repeat(limits::DIALOG_HEADER_BYTES_MAX));

        let refused = dialog(&long).map(drop);

        let header = HeaderId::RecordRoute;
        assert_eq!(refused, Err(SubscribeError::TooLong { header, max: limits::DIALOG_HEADER_BYTES_MAX }));
    }
}
