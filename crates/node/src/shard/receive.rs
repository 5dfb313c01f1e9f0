//! From octets to transactions.

use std::sync::Arc;

use bans::Offence;
use bytes::Bytes;
use model::{Peer, Protocol};
use sip::{Framing, FramingError, HeaderError, HeaderId, Message, OwnedMessage, Rewrite, Via};
use transport::CloseReason;

use super::{Origin, Shard, Turn, mail::Mail};
use crate::peers::Identity;

impl Shard {
    pub(super) fn datagram(&mut self, turn: &Turn<'_>, peer: Peer, bytes: &[u8]) {
        // Banned by what came before it in the same batch.
        if self.shared.defence.is_banned(peer.remote.ip()) {
            return;
        }
        let mut index = std::mem::take(&mut self.index);
        match index.parse(bytes, Framing::Datagram) {
            Ok(()) => self.message(turn, peer, index.view(bytes), &Origin::Phone),
            Err(error) => self.malformed(peer, index.view(bytes), error),
        }
        self.index = index;
    }

    pub(super) fn stream_message(
        &mut self,
        turn: &Turn<'_>,
        peer: Peer,
        bytes: &Bytes,
        names: Option<&[String]>,
    ) {
        if self.shared.defence.is_banned(peer.remote.ip()) {
            return;
        }
        let origin = match names.map(|names| Identity::of_names(names, &self.shared.topology())) {
            None => Origin::Phone,
            Some(Some(Identity::Server(server))) => Origin::Server(server),
            Some(Some(Identity::Operator) | None) => {
                // Signed by our authority, yet no server of the topology: nobody to take SIP from.
                return self.sockets.close(peer.flow, true);
            }
        };
        let framing = match peer.protocol {
            Protocol::Udp | Protocol::Tcp | Protocol::Tls => Framing::Stream,
            // Cut by its transport already; Content-Length may be missing (RFC 7118 section 5).
            Protocol::Ws | Protocol::Wss => Framing::Datagram,
        };
        let mut index = std::mem::take(&mut self.index);
        match index.parse(bytes, framing) {
            Ok(()) => self.message(turn, peer, index.view(bytes), &origin),
            Err(error) => self.malformed(peer, index.view(bytes), error),
        }
        self.index = index;
    }

    /// A stream that cannot be read on: the answer, then the end of the connection (RFC 3261 section 18.3).
    ///
    /// An offence only of who connected to us: where we connect to is what a phone wrote into its Contact,
    /// and what answers there may never have heard of SIP.
    pub(super) fn malformed_stream(
        &mut self,
        peer: Peer,
        bytes: &Bytes,
        error: FramingError,
        is_accepted: bool,
    ) {
        if is_accepted {
            self.shared.defence.offence(&self.shared.counters, &peer, Offence::MalformedStream);
        }
        let mut index = std::mem::take(&mut self.index);
        let _known_to_be_bad = index.parse(bytes, Framing::Stream);
        self.malformed(peer, index.view(bytes), error);
        self.index = index;
        self.sockets.close(peer.flow, true);
    }

    /// Counts what a connection ended by as an offence of who made it, where it is one.
    pub(super) fn blame(&self, peer: &Peer, reason: &CloseReason, is_accepted: bool) {
        let offence = match reason {
            CloseReason::TooSlow => Offence::Stalled,
            CloseReason::Malformed => Offence::MalformedStream,
            CloseReason::ClosedByPeer
            | CloseReason::ClosedHere
            | CloseReason::System(_)
            | CloseReason::Tls(_)
            | CloseReason::Idle
            | CloseReason::Silent
            | CloseReason::WriteQueueFull
            | CloseReason::UpgradeRefused => return,
        };
        if is_accepted {
            self.shared.defence.offence(&self.shared.counters, peer, offence);
        }
    }

    /// A response that came to another shard's socket.
    pub(super) fn response(&mut self, turn: &Turn<'_>, from: Peer, bytes: &Bytes) {
        // Whole already; one that came as a datagram may have no Content-Length.
        if let Ok(message) = OwnedMessage::parse(bytes.clone(), Framing::Datagram) {
            self.give_response(turn, from, message);
        }
    }

    fn message(&mut self, turn: &Turn<'_>, peer: Peer, message: Message<'_>, origin: &Origin) {
        if message.is_request() {
            self.count_request(origin);
            if *origin == Origin::Phone && message.bytes().len() > self.settings.message_bytes_max {
                return self.malformed(peer, message, FramingError::MessageTooLarge);
            }
            let via = match message.check_mandatory() {
                Ok(via) => via,
                Err(error) => return self.bad_header(peer, message, &error),
            };
            if self.answer_options_at_once(peer, message) {
                return;
            }
            if *origin == Origin::Phone && self.challenge_at_once(turn, &peer, message) {
                return;
            }
            match kept(message, &via, &peer, origin) {
                Ok(message) => self.give_request(turn, peer, message, &via, origin),
                Err(error) => self.malformed(peer, message, error),
            }
        } else {
            self.received_response(turn, peer, message, origin);
        }
    }

    /// A response is ours when its topmost Via is; its branch says which shard's.
    fn received_response(&mut self, turn: &Turn<'_>, peer: Peer, message: Message<'_>, origin: &Origin) {
        if asserts_identity(message, origin) {
            return match Rewrite::new(message).remove(HeaderId::PAssertedIdentity).to_message() {
                Ok(message) => self.received_response(turn, peer, message.view(), origin),
                Err(_never_with_a_header_less) => self.shared.counters.messages_malformed.add(),
            };
        }
        let Ok(via) = message.top_via() else { return self.shared.counters.messages_malformed.add() };
        let shard = via.branch().and_then(shard_of);
        let is_ours = self.legs.is_own_sent_by(via.host, via.port);
        match shard {
            Some(shard) if is_ours && shard == self.number => {
                self.give_response(turn, peer, OwnedMessage::from_view(message));
            }
            Some(shard) if is_ours => {
                if let Some(mailer) = self.others.get(usize::from(shard)) {
                    let bytes = Bytes::copy_from_slice(message.bytes());
                    mailer.post(Mail::Response { from: peer, bytes });
                }
            }
            Some(_) | None => self.shared.counters.responses_stray.add(),
        }
    }

    fn give_response(&mut self, turn: &Turn<'_>, peer: Peer, response: OwnedMessage) {
        let _never_refused = self.transactions.receive(turn.now, Arc::new(response), peer);
        self.drain(turn, &Origin::Phone);
    }

    fn give_request(
        &mut self,
        turn: &Turn<'_>,
        peer: Peer,
        message: OwnedMessage,
        via: &Via<'_>,
        origin: &Origin,
    ) {
        let message = Arc::new(message);
        let taken = self.transactions.receive_request(turn.now, &message, via, peer);
        if let Err(error) = taken {
            if error.status() == 503 {
                self.shared.counters.requests_overloaded.add();
            }
            self.answer_statelessly(&peer, message.view(), error.status());
        }
        self.drain(turn, origin);
    }

    /// What cannot be framed is answered where it can be told to whom (RFC 3261 section 18.3, phones need
    /// it).
    fn malformed(&mut self, peer: Peer, message: Message<'_>, error: FramingError) {
        self.shared.counters.messages_malformed.add();
        if let Some(status) = error.status()
            && message.is_request()
        {
            self.answer_statelessly(&peer, message, status);
        }
    }

    fn bad_header(&mut self, peer: Peer, message: Message<'_>, error: &HeaderError) {
        self.shared.counters.messages_malformed.add();
        self.answer_statelessly(&peer, message, error.status());
    }

    fn count_request(&self, origin: &Origin) {
        match origin {
            Origin::Phone => self.shared.counters.requests_from_phones.add(),
            Origin::Server(_) => self.shared.counters.requests_from_servers.add(),
        }
    }
}

/// Whether somebody says who a user is whom we do not trust to know: a phone (RFC 3325 section 5).
fn asserts_identity(message: Message<'_>, origin: &Origin) -> bool {
    message.has(HeaderId::PAssertedIdentity) && *origin == Origin::Phone
}

/// The request as kept, with `received` and `rport` where they are needed (RFC 3261 section 18.2.1, RFC
/// 3581), and without an identity that a phone asserts.
fn kept(
    message: Message<'_>,
    via: &Via<'_>,
    peer: &Peer,
    origin: &Origin,
) -> Result<OwnedMessage, FramingError> {
    if asserts_identity(message, origin) {
        let mut rewrite = Rewrite::new(message);
        rewrite.remove(HeaderId::PAssertedIdentity).mark_top_via(peer.remote.ip(), peer.remote.port());
        return rewrite.to_message();
    }
    let needs_mark =
        via.rport().is_some() || via.host_address() != Some(peer.remote.ip()) || via.received().is_some();
    if needs_mark {
        OwnedMessage::from_view_marked(message, via, peer.remote.ip(), peer.remote.port())
    } else {
        Ok(OwnedMessage::from_view(message))
    }
}

/// The shard in a branch parameter of ours: `z9hG4bK`, its number, a full stop.
fn shard_of(branch: &[u8]) -> Option<u16> {
    let rest = branch.strip_prefix(b"z9hG4bK")?;
    let end = rest.iter().take(6).position(|&octet| octet == b'.')?;
    std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()
}
