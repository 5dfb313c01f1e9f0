//! Sends phones to where they belong: by 302, and by ending the subscriptions of those who have one.

use std::{net::SocketAddr, time::Duration};

use model::{Peer, PoolName, Protocol, ServerTransaction};
use pairing::{Contact, Standing};
use sip::{Message, Scheme, Uri};
use topology::Listen;

use super::{Origin, Shard, Turn};
use crate::HomeIndex;

/// Retry-After where there is nobody to be sent to after all.
const RETRY_AFTER: Duration = Duration::from_secs(2);

impl Shard {
    /// To the owner first and then to its backup, as a plain phone is told; never 301, because the home does
    /// not change (RFC 3261 section 21.3.3).
    ///
    /// What another server forwarded is answered with 503 instead: that server thought that this one serves,
    /// and by the protocol it used nobody knows which the phone speaks.
    pub(super) fn redirect(
        &mut self,
        origin: &Origin,
        server: ServerTransaction,
        request: Message<'_>,
        from: Peer,
        owner: &PoolName,
        then: Option<&PoolName>,
    ) {
        let is_sips = is_sips(request);
        let contacts: Vec<String> = [(Some(owner), "0.7"), (then, "0.3")]
            .into_iter()
            .filter_map(|(pool, q)| {
                let uri = self.pool_uri(pool?, &from, is_sips)?;
                Some(format!("<{uri}>;q={q}"))
            })
            .collect();
        if *origin != Origin::Phone || contacts.is_empty() {
            return self.unavailable(server, request, RETRY_AFTER);
        }
        self.shared.counters.registers_redirected.add();
        let headers: Vec<(&str, &[u8])> =
            contacts.iter().map(|contact| ("Contact", contact.as_bytes())).collect();
        self.answer(server, request, 302, &headers);
    }

    /// Where a phone that reached us over `from` reaches a pool: at this server, where it is of that pool, at
    /// one that answers, or at the first.
    fn pool_uri(&self, pool: &PoolName, from: &Peer, is_sips: bool) -> Option<String> {
        let topology = self.shared.topology();
        let servers = || topology.servers_of(pool);
        let (me, now) = (&self.shared.server.name, crate::clock::now());
        let uri = |server: &topology::Server| phone_uri(&server.listen, from, is_sips);
        let own = servers().find(|server| server.name == *me).and_then(uri);
        let up = || servers().filter(|server| self.shared.links.is_up(&server.name, now)).find_map(uri);
        own.or_else(up).or_else(|| servers().find_map(uri))
    }

    /// Whether the users of a home pool are served by another server that is there for them: then phones that
    /// still look to this one are sent there.
    pub(super) fn is_served_elsewhere(&self, turn: &Turn<'_>, home: HomeIndex) -> bool {
        let shared = &self.shared;
        if turn.authority.holds(home, turn.now).is_some() {
            return false;
        }
        let is_owned = match turn.authority.standing(home) {
            Some(Standing::Elsewhere { contact, .. }) => match contact {
                Contact::Heard | Contact::Beating => true,
                Contact::Silent { .. } => false,
            },
            Some(Standing::Serving(_) | Standing::Paused(_) | Standing::Unknown) => false,
            // A branch appliance that answers again, after this pool backed it up.
            None => shared.links.serving(home, turn.now).is_some(),
        };
        is_owned && shared.backing_branch(home, turn.authority, turn.now).is_none()
    }
}

/// Whether the phone asked for TLS all the way (RFC 3261 section 26.2.2): then it is never sent anywhere
/// else.
fn is_sips(request: Message<'_>) -> bool {
    let is_sips = |uri: Uri<'_>| uri.scheme == Scheme::Sips;
    Uri::parse(request.request_uri()).is_ok_and(is_sips)
        || request.to().ok().and_then(|to| to.uri().ok()).is_some_and(is_sips)
}

/// The URI by which a phone that speaks to us over `from` reaches a server: by the same protocol, and by the
/// same version of IP where that is possible. Of UDP and TCP one stands in for the other, every phone speaks
/// both; nothing stands in for TLS or for WebSocket, of which the secure one is `sips` and `transport=ws`
/// (RFC 7118 section 5.5). Who registers as `sip:` over TLS is given `transport=tls`: it is deprecated (RFC
/// 5630 section 3.1.4), but all phones know it, and a `sips:` URI would have them change their own Contact.
fn phone_uri(listen: &Listen, from: &Peer, is_sips: bool) -> Option<String> {
    let protocols: &[Protocol] = match from.protocol {
        Protocol::Ws | Protocol::Wss if is_sips => &[Protocol::Wss],
        Protocol::Udp | Protocol::Tcp | Protocol::Tls if is_sips => &[Protocol::Tls],
        Protocol::Udp => &[Protocol::Udp, Protocol::Tcp],
        Protocol::Tcp => &[Protocol::Tcp, Protocol::Udp],
        Protocol::Tls => &[Protocol::Tls],
        Protocol::Ws => &[Protocol::Ws],
        Protocol::Wss => &[Protocol::Wss],
    };
    let is_reached = |address: &&SocketAddr| address.is_ipv4() == from.remote.is_ipv4();
    let (protocol, address) = protocols.iter().find_map(|protocol| {
        let addresses = listen.of(*protocol);
        let address = addresses.iter().find(is_reached).or_else(|| addresses.first())?;
        Some((protocol, address))
    })?;
    Some(match protocol {
        Protocol::Wss => format!("sips:{address};transport=ws"),
        Protocol::Tls if is_sips => format!("sips:{address}"),
        Protocol::Udp | Protocol::Tcp | Protocol::Tls | Protocol::Ws => {
            format!("sip:{address};transport={}", protocol.uri_token())
        }
    })
}

#[cfg(test)]
mod tests {
    use model::FlowId;
    use sip::{Framing, Index};

    use super::*;

    fn listen(udp: &[&str], tcp: &[&str], tls: &[&str]) -> Listen {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse::<SocketAddr>().unwrap()).collect();
        Listen {
            udp: read(udp),
            tcp: read(tcp),
            tls: read(tls),
            ws: read(&["192.0.2.1:80"]),
            wss: read(&["192.0.2.1:443"]),
            internal_sip: Some("192.0.2.1:5071".parse().unwrap()),
            internal_http: "192.0.2.1:8443".parse().unwrap(),
        }
    }

    fn uri(listen: &Listen, protocol: Protocol, remote: &str, is_sips: bool) -> Option<String> {
        let (remote, local) = (remote.parse().unwrap(), "192.0.2.9:5060".parse().unwrap());
        phone_uri(listen, &Peer { protocol, remote, local, flow: FlowId::new(0, 0) }, is_sips)
    }

    #[test]
    fn a_phone_is_sent_to_an_address_that_speaks_its_protocol() {
        let all = listen(
            &["192.0.2.1:5060", "[2001:db8::1]:5060"],
            &["192.0.2.1:5062", "[2001:db8::1]:5062"],
            &["192.0.2.1:5061"],
        );
        let udp_only = listen(&["192.0.2.1:5060"], &[], &[]);
        let tcp_only = listen(&[], &["192.0.2.1:5060"], &[]);
        let (v4, v6) = ("198.51.100.7:40000", "[2001:db8::7]:40000");
        let rows = [
            (&all, Protocol::Udp, v4, false, Some("sip:192.0.2.1:5060;transport=udp")),
            (&all, Protocol::Udp, v6, false, Some("sip:[2001:db8::1]:5060;transport=udp")),
            (&all, Protocol::Tcp, v4, false, Some("sip:192.0.2.1:5062;transport=tcp")),
            (&all, Protocol::Tls, v4, false, Some("sip:192.0.2.1:5061;transport=tls")),
            (&all, Protocol::Tls, v6, false, Some("sip:192.0.2.1:5061;transport=tls")),
            (&all, Protocol::Tls, v4, true, Some("sips:192.0.2.1:5061")),
            (&all, Protocol::Tcp, v4, true, Some("sips:192.0.2.1:5061")),
            (&all, Protocol::Ws, v4, false, Some("sip:192.0.2.1:80;transport=ws")),
            (&all, Protocol::Wss, v4, false, Some("sips:192.0.2.1:443;transport=ws")),
            (&all, Protocol::Ws, v4, true, Some("sips:192.0.2.1:443;transport=ws")),
            (&udp_only, Protocol::Tcp, v4, false, Some("sip:192.0.2.1:5060;transport=udp")),
            (&udp_only, Protocol::Tls, v4, false, None),
            (&udp_only, Protocol::Udp, v4, true, None),
            (&tcp_only, Protocol::Udp, v4, false, Some("sip:192.0.2.1:5060;transport=tcp")),
        ];
        for (listen, protocol, remote, is_sips, expected) in rows {
            let found = uri(listen, protocol, remote, is_sips);
            assert_eq!(found.as_deref(), expected, "{protocol} {remote} sips: {is_sips}");
        }
    }

    #[test]
    fn sips_in_the_request_uri_or_in_to_is_kept() {
        for (request_uri, to, expected) in [
            ("sips:example.com", "<sip:a@example.com>", true),
            ("sip:example.com", "<SIPS:a@example.com>", true),
            ("sip:example.com;transport=tls", "<sip:a@example.com>", false),
        ] {
            let text = format!("REGISTER {request_uri} SIP/2.0\r\nTo: {to}\r\n\r\n");
            let mut index = Index::new();
            index.parse(text.as_bytes(), Framing::Datagram).unwrap();
            assert_eq!(is_sips(index.view(text.as_bytes())), expected, "{text}");
        }
    }
}
