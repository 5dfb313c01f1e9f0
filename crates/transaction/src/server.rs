//! Server transactions: from messages and timers to the two server machines and back.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use model::{Instant, Peer, ServerTransaction};
use sip::{Framing, Message, Method, OwnedMessage, ResponseBuilder, Via};

use crate::{
    Output, Settings, TransactionError, Transactions,
    key::{self, Form, ToTag},
    server_invite::ServerInvite,
    server_non_invite::ServerNonInvite,
    table::Id,
};

/// Where responses go when sent-by names no port (RFC 3261 section 18.2.2).
const DEFAULT_PORT: u16 = 5060;

/// One server transaction.
#[derive(Debug)]
pub(crate) struct Server {
    state: State,
    method: Method,
    /// Where responses go.
    to: Peer,
    /// The request, until its final response.
    request: Option<Arc<OwnedMessage>>,
    /// The last response, while it may have to be sent again.
    response: Option<Bytes>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Invite(ServerInvite),
    NonInvite(ServerNonInvite),
}

/// What a server machine wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerAction {
    /// Nothing, or nothing but to end.
    Nothing,
    /// Send the last response again, if there is one.
    RepeatResponse,
    /// Make a 100 Trying and send it.
    SendTrying,
    /// Give the ACK to the TU.
    PassAck,
}

impl State {
    /// Whether this is an INVITE that was accepted.
    const fn is_accepted(&self) -> bool {
        match self {
            Self::Invite(state) => state.is_accepted(),
            Self::NonInvite(_) => false,
        }
    }

    fn start(now: Instant, method: Method, settings: &Settings) -> Self {
        if method == Method::Invite {
            Self::Invite(ServerInvite::start(now, settings))
        } else {
            Self::NonInvite(ServerNonInvite::start(now, settings))
        }
    }

    fn retransmitted(&self) -> ServerAction {
        match self {
            Self::Invite(state) => state.retransmitted(),
            Self::NonInvite(state) => state.retransmitted(),
        }
    }

    fn acknowledged(&mut self, now: Instant, is_reliable: bool, settings: &Settings) -> ServerAction {
        match self {
            Self::Invite(state) => state.acknowledged(now, is_reliable, settings),
            Self::NonInvite(_) => ServerAction::Nothing,
        }
    }

    fn respond(
        &mut self,
        now: Instant,
        status: u16,
        is_reliable: bool,
        settings: &Settings,
    ) -> Result<(), TransactionError> {
        match self {
            Self::Invite(state) => state.respond(now, status, is_reliable, settings),
            Self::NonInvite(state) => state.respond(now, status, is_reliable, settings),
        }
    }

    fn timeout(&mut self, now: Instant, settings: &Settings) -> ServerAction {
        match self {
            Self::Invite(state) => state.timeout(now, settings),
            Self::NonInvite(state) => state.timeout(now),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Invite(state) => state.deadline(),
            Self::NonInvite(state) => state.deadline(),
        }
    }
}

impl Transactions {
    pub(crate) fn take_request(
        &mut self,
        now: Instant,
        request: &Arc<OwnedMessage>,
        via: &Via<'_>,
        from: Peer,
    ) -> Result<(), TransactionError> {
        let view = request.view();
        let method = view.method();
        if method == Method::Ack {
            return self.receive_ack(now, Arc::clone(request), from);
        }
        key::of_request_with(&mut self.key, view, via, ToTag::AsSent)?;
        let to = response_peer(via, from);
        match self.servers.find(&self.key, |server| server.method == method) {
            Some(id) => {
                self.counters.retransmissions_received += 1;
                if let Some(server) = self.servers.get(id) {
                    let action = server.state.retransmitted();
                    self.perform_server(id, action);
                }
                Ok(())
            }
            None => self.open_server(now, Arc::clone(request), from, to),
        }
    }

    /// Makes the transaction of a new request, whose key is at hand and whose responses go `to`, and gives
    /// the request to the TU.
    fn open_server(
        &mut self,
        now: Instant,
        request: Arc<OwnedMessage>,
        from: Peer,
        to: Peer,
    ) -> Result<(), TransactionError> {
        let view = request.view();
        let method = view.method();
        let is_cancel = method == Method::Cancel;
        let find = |method| self.servers.find(&self.key, |server| server.method == method);
        let invite = is_cancel.then(|| find(Method::Invite)).flatten();
        let is_matched =
            is_cancel && self.servers.find(&self.key, |server| server.method != Method::Cancel).is_some();
        let full = TransactionError::Full { max: self.settings.server_max };
        // A CANCEL lightens the load: it may exceed the bound, once for each INVITE.
        let excess = (self.servers.len() + 1).saturating_sub(self.settings.server_max);
        if excess > 0 && invite.is_none() {
            if self.answered_servers.count(excess, |id| self.servers.get(id).is_some()) < excess {
                self.counters.refused += 1;
                return Err(full);
            }
            while self.servers.len() >= self.settings.server_max && self.make_room_for_server() {}
        }
        let server = Server {
            state: State::start(now, method, &self.settings),
            method,
            to,
            request: Some(Arc::clone(&request)),
            response: None,
        };
        let id = self.servers.insert(&self.key, server).ok_or(full)?;
        self.settle_server(id);
        let server = ServerTransaction(id.0);
        self.outputs.push_back(if is_cancel {
            let invite = invite.map(|invite| ServerTransaction(invite.0));
            Output::Cancel { server, invite, is_matched, request, from }
        } else {
            Output::Request { server, request, from }
        });
        Ok(())
    }

    fn receive_ack(
        &mut self,
        now: Instant,
        request: Arc<OwnedMessage>,
        from: Peer,
    ) -> Result<(), TransactionError> {
        let Some(id) = self.find_acknowledged(request.view())? else {
            self.outputs.push_back(Output::Ack { request, from });
            return Ok(());
        };
        let Some(server) = self.servers.get_mut(id) else { return Ok(()) };
        let is_reliable = server.to.protocol.is_reliable();
        match server.state.acknowledged(now, is_reliable, &self.settings) {
            ServerAction::PassAck => self.outputs.push_back(Output::Ack { request, from }),
            ServerAction::Nothing | ServerAction::RepeatResponse | ServerAction::SendTrying => {
                self.counters.acks_absorbed += 1;
            }
        }
        self.settle_server(id);
        Ok(())
    }

    /// The INVITE transaction that an ACK belongs to (RFC 3261 section 17.2.3).
    ///
    /// An ACK of RFC 2543 must also carry the To tag of the response we sent; the INVITE had that tag or
    /// none.
    fn find_acknowledged(&mut self, ack: Message<'_>) -> Result<Option<Id>, TransactionError> {
        let form = key::of_request(&mut self.key, ack, ToTag::AsSent)?;
        let found = self.servers.find(&self.key, |server| server.method == Method::Invite);
        match form {
            Form::Branch => Ok(found),
            Form::Headers => {
                let found = match found {
                    Some(id) => Some(id),
                    None => {
                        key::of_request(&mut self.key, ack, ToTag::Absent)?;
                        self.servers.find(&self.key, |server| server.method == Method::Invite)
                    }
                };
                let tag = ack.to()?.tag();
                Ok(found.filter(|&id| self.servers.get(id).is_some_and(|server| server.has_sent_tag(tag))))
            }
        }
    }

    pub(crate) fn send_response(
        &mut self,
        now: Instant,
        server: ServerTransaction,
        status: u16,
        response: Bytes,
    ) -> Result<(), TransactionError> {
        if !(100..700).contains(&status) {
            return Err(TransactionError::NotAllowed { status });
        }
        let id = Id(server.0);
        let server = self.servers.get_mut(id).ok_or(TransactionError::Ended)?;
        let is_reliable = server.to.protocol.is_reliable();
        let was_accepted = server.state.is_accepted();
        server.state.respond(now, status, is_reliable, &self.settings)?;
        let is_accepted = server.method == Method::Invite && (200..300).contains(&status);
        server.response = (!is_accepted).then(|| response.clone());
        if status >= 200 {
            server.request = None;
        }
        let is_answered = if server.method == Method::Invite {
            is_accepted && !was_accepted
        } else {
            status >= 200 && !is_reliable
        };
        self.outputs.push_back(Output::Transmit { to: server.to, bytes: response, client: None });
        self.settle_server(id);
        if is_answered {
            self.server_answered(id);
        }
        Ok(())
    }

    pub(crate) fn server_timeout(&mut self, now: Instant, id: Id) {
        let Some(server) = self.servers.get_mut(id) else { return };
        let action = server.state.timeout(now, &self.settings);
        self.perform_server(id, action);
        self.settle_server(id);
    }

    fn perform_server(&mut self, id: Id, action: ServerAction) {
        let Some(server) = self.servers.get_mut(id) else { return };
        match action {
            ServerAction::Nothing | ServerAction::PassAck => {}
            ServerAction::RepeatResponse => {
                let Some(bytes) = server.response.clone() else { return };
                self.counters.retransmissions_sent += 1;
                self.outputs.push_back(Output::Transmit { to: server.to, bytes, client: None });
            }
            ServerAction::SendTrying => {
                let Some(request) = &server.request else { return };
                let bytes = trying_for(request.view());
                server.response = Some(bytes.clone());
                self.counters.trying_sent += 1;
                self.outputs.push_back(Output::Transmit { to: server.to, bytes, client: None });
            }
        }
    }

    /// Ends the transaction or sets its next deadline.
    fn settle_server(&mut self, id: Id) {
        if let Some(deadline) = self.servers.get(id).and_then(|server| server.state.deadline()) {
            self.servers.arm(id, deadline);
        } else if let Some(server) = self.servers.remove(id) {
            self.counters.unanswered += u64::from(server.request.is_some());
            self.outputs.push_back(Output::ServerFinished { server: ServerTransaction(id.0) });
        }
    }
}

impl Server {
    /// Whether an ACK of RFC 2543 with this To tag can be for what was sent. Once a 2xx was sent, every ACK
    /// goes to the TU, which knows the tags of all 2xx.
    fn has_sent_tag(&self, tag: Option<&[u8]>) -> bool {
        let Some(response) = &self.response else { return true };
        let Ok(response) = OwnedMessage::parse(response.clone(), Framing::Datagram) else { return false };
        response.view().to().is_ok_and(|to| to.tag() == tag)
    }
}

/// A 100 Trying without a To tag (RFC 3261 sections 8.2.6.1 and 17.2.1).
fn trying_for(request: Message<'_>) -> Bytes {
    let mut out = Vec::with_capacity(512);
    ResponseBuilder::new(request, 100, b"Trying").write_to(&mut out);
    Bytes::from(out)
}

/// Where the responses to a request go (RFC 3261 section 18.2.2, RFC 3581 section 4): over a stream, back
/// on it; else to the address the request came from, and there to the port it came from if the client asked
/// for that with `rport`, or else to the port of sent-by.
///
/// `maddr` is not followed: it would let anybody aim our responses at anyone.
fn response_peer(via: &Via<'_>, from: Peer) -> Peer {
    if from.protocol.is_reliable() || via.rport().is_some() {
        return from;
    }
    let port = via.port.unwrap_or(DEFAULT_PORT);
    Peer { remote: SocketAddr::new(from.remote.ip(), port), ..from }
}
