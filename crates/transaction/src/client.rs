//! Client transactions: from messages and timers to the two client machines and back.

use std::sync::Arc;

use bytes::Bytes;
use model::{ClientTransaction, Instant, Peer};
use sip::{Message, Method, OwnedMessage};

use crate::{
    Output, Settings, TransactionError, Transactions, client_invite::ClientInvite,
    client_non_invite::ClientNonInvite, key, table::Id,
};

/// One client transaction.
#[derive(Debug)]
pub(crate) struct Client {
    state: State,
    method: Method,
    to: Peer,
    tag: u64,
    kept: Kept,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Invite(ClientInvite),
    NonInvite(ClientNonInvite),
}

/// The message that may have to be sent again.
#[derive(Debug)]
enum Kept {
    Request(Arc<OwnedMessage>),
    Ack(Bytes),
    Nothing,
}

/// What a client machine wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAction {
    /// Nothing, or nothing but to end.
    Nothing,
    /// Send the request again.
    SendRequest,
    /// Give the response to the TU.
    Deliver,
    /// Send the ACK for the response, then give the response to the TU.
    AcknowledgeAndDeliver,
    /// Send the ACK again.
    RepeatAck,
    /// Tell the TU that no final response came in time.
    TimedOut,
    /// Tell the TU that the request did not reach its peer.
    Failed,
}

impl State {
    /// Whether this is an INVITE that was accepted.
    const fn is_accepted(&self) -> bool {
        match self {
            Self::Invite(state) => state.is_accepted(),
            Self::NonInvite(_) => false,
        }
    }

    fn start(now: Instant, method: Method, is_reliable: bool, settings: &Settings) -> Self {
        if method == Method::Invite {
            Self::Invite(ClientInvite::start(now, is_reliable, settings))
        } else {
            Self::NonInvite(ClientNonInvite::start(now, is_reliable, settings))
        }
    }

    fn response(
        &mut self,
        now: Instant,
        status: u16,
        is_reliable: bool,
        settings: &Settings,
    ) -> ClientAction {
        match self {
            Self::Invite(state) => state.response(now, status, is_reliable, settings),
            Self::NonInvite(state) => state.response(now, status, is_reliable, settings),
        }
    }

    fn timeout(&mut self, now: Instant, settings: &Settings) -> ClientAction {
        match self {
            Self::Invite(state) => state.timeout(now),
            Self::NonInvite(state) => state.timeout(now, settings),
        }
    }

    fn transport_failed(&mut self) -> ClientAction {
        match self {
            Self::Invite(state) => state.transport_failed(),
            Self::NonInvite(state) => state.transport_failed(),
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
    pub(crate) fn send_request(
        &mut self,
        now: Instant,
        request: Arc<OwnedMessage>,
        to: Peer,
        tag: u64,
    ) -> Result<ClientTransaction, TransactionError> {
        let view = request.view();
        if !view.is_request() || view.method() == Method::Ack {
            return Err(TransactionError::NoTransaction);
        }
        let method = key::of_client(&mut self.key, view)?;
        if self.clients.find(&self.key, |client| client.method == method).is_some() {
            return Err(TransactionError::Duplicate);
        }
        let cancelled = (method == Method::Cancel)
            .then(|| self.clients.find(&self.key, |client| client.method == Method::Invite))
            .flatten();
        let full = TransactionError::Full { max: self.settings.client_max };
        let excess = (self.clients.len() + 1).saturating_sub(self.settings.client_max);
        if excess > 0 && cancelled.is_none() {
            if !self.can_make_room_for_clients(excess) {
                return Err(full);
            }
            while self.clients.len() >= self.settings.client_max && self.make_room_for_client() {}
        }
        let state = State::start(now, method, to.protocol.is_reliable(), &self.settings);
        let bytes = request.bytes().clone();
        let client = Client { state, method, to, tag, kept: Kept::Request(request) };
        let id = self.clients.insert(&self.key, client).ok_or(full)?;
        self.outputs.push_back(Output::Transmit { to, bytes, client: Some(ClientTransaction(id.0)) });
        self.settle_client(id);
        if let Some(invite) = cancelled {
            self.limit_cancelled(now, invite);
        }
        Ok(ClientTransaction(id.0))
    }

    pub(crate) fn receive_response(&mut self, now: Instant, response: Arc<OwnedMessage>, from: Peer) {
        let found = key::of_client(&mut self.key, response.view())
            .ok()
            .and_then(|method| self.clients.find(&self.key, |client| client.method == method));
        let Some(id) = found else {
            self.counters.stray_responses += 1;
            return;
        };
        let Some(client) = self.clients.get_mut(id) else { return };
        let status = response.view().status();
        let is_reliable = client.to.protocol.is_reliable();
        let was_accepted = client.state.is_accepted();
        let action = client.state.response(now, status, is_reliable, &self.settings);
        let method = client.method;
        let is_answered = if method == Method::Invite {
            !was_accepted && (200..300).contains(&status)
        } else {
            status >= 200 && !is_reliable
        };
        self.perform(id, action, Some((response, from)));
        self.settle_client(id);
        if is_answered && action == ClientAction::Deliver {
            self.client_answered(id, method);
        }
    }

    pub(crate) fn client_timeout(&mut self, now: Instant, id: Id) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let action = client.state.timeout(now, &self.settings);
        self.perform(id, action, None);
        self.settle_client(id);
    }

    pub(crate) fn fail_client(&mut self, client: ClientTransaction) {
        let id = Id(client.0);
        let Some(client) = self.clients.get_mut(id) else { return };
        let action = client.state.transport_failed();
        self.perform(id, action, None);
        self.settle_client(id);
    }

    fn limit_cancelled(&mut self, now: Instant, invite: Id) {
        if let Some(client) = self.clients.get_mut(invite) {
            match &mut client.state {
                State::Invite(state) => state.cancelled(now, &self.settings),
                State::NonInvite(_) => {}
            }
        }
        self.settle_client(invite);
    }

    /// Does what a machine wants. `received` is the response that made it want that.
    fn perform(&mut self, id: Id, action: ClientAction, received: Option<(Arc<OwnedMessage>, Peer)>) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let transaction = ClientTransaction(id.0);
        let tag = client.tag;
        match action {
            ClientAction::Nothing => {}
            ClientAction::SendRequest | ClientAction::RepeatAck => {
                let bytes = match &client.kept {
                    Kept::Request(request) => request.bytes().clone(),
                    Kept::Ack(ack) => ack.clone(),
                    Kept::Nothing => return,
                };
                self.counters.retransmissions_sent += 1;
                self.outputs.push_back(Output::Transmit { to: client.to, bytes, client: Some(transaction) });
            }
            ClientAction::Deliver | ClientAction::AcknowledgeAndDeliver => {
                let Some((response, from)) = received else { return };
                if let Some(bytes) = client.keep_for(action, response.view()) {
                    self.outputs.push_back(Output::Transmit {
                        to: client.to,
                        bytes,
                        client: Some(transaction),
                    });
                }
                self.outputs.push_back(Output::Response { client: transaction, tag, response, from });
            }
            ClientAction::TimedOut => {
                self.counters.client_timeouts += 1;
                self.outputs.push_back(Output::ClientTimeout { client: transaction, tag });
            }
            ClientAction::Failed => {
                self.counters.client_failures += 1;
                self.outputs.push_back(Output::ClientFailed { client: transaction, tag });
            }
        }
    }

    /// Ends the transaction or sets its next deadline.
    fn settle_client(&mut self, id: Id) {
        match self.clients.get(id).and_then(|client| client.state.deadline()) {
            Some(deadline) => self.clients.arm(id, deadline),
            None => drop(self.clients.remove(id)),
        }
    }
}

impl Client {
    /// Lets go of the request when a final response came; returns the ACK to send, if one is due.
    fn keep_for(&mut self, action: ClientAction, response: Message<'_>) -> Option<Bytes> {
        if response.status() < 200 {
            return None;
        }
        let Kept::Request(request) = std::mem::replace(&mut self.kept, Kept::Nothing) else { return None };
        if action != ClientAction::AcknowledgeAndDeliver {
            return None;
        }
        let mut ack = Vec::with_capacity(512);
        sip::ack_for(request.view(), response, &mut ack);
        let ack = Bytes::from(ack);
        self.kept = Kept::Ack(ack.clone());
        Some(ack)
    }
}
