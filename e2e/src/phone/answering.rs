//! The phone answers: calls by its manners, everything else with 200.

use std::{net::SocketAddr, time::Instant};

use super::{Dialog, Line, Manners, SDP, fresh, key_of};
use crate::{Message, message::parameter};

impl Line {
    pub(super) fn received(&self, message: Message) {
        let now = Instant::now();
        if message.status().is_some() {
            if let Some(key) = key_of(&message) {
                self.state().responses.entry(key).or_default().push((now, message));
            }
            self.changed.notify_all();
            return;
        }
        let is_ack = message.method() == Some("ACK");
        let Some(key) = key_of(&message) else { return };
        if !is_ack && let Some(former) = self.state().answered.get(&key).cloned() {
            let _ = self.socket.send(self.reply_address(&message), &former);
            return;
        }
        // Kept before it is answered: who hears the answer may look for the request at once.
        self.state().requests.push(message.clone());
        for response in self.answers(&message) {
            let bytes = response.write();
            let _ = self.socket.send(self.reply_address(&message), &bytes);
            self.state().answered.insert(key.clone(), bytes);
        }
        self.changed.notify_all();
    }

    /// Where a response goes: the sent-by of the topmost Via, which is always a server.
    pub(super) fn reply_address(&self, request: &Message) -> SocketAddr {
        let via = request.header("Via").unwrap_or_default();
        let sent_by = via.split(' ').nth(1).unwrap_or_default().split(';').next().unwrap_or_default();
        sent_by.parse().unwrap_or_else(|_| self.server())
    }

    /// What a request is answered with.
    pub(super) fn answers(&self, request: &Message) -> Vec<Message> {
        let call_id = request.header("Call-ID").unwrap_or_default().to_owned();
        let tag = format!("t{}", fresh());
        match request.method().unwrap_or_default() {
            "INVITE" => self.answer_invite(request, &call_id, &tag),
            "ACK" => {
                if let Some(dialog) = self.state().dialogs.get_mut(&call_id) {
                    dialog.is_acknowledged = true;
                }
                Vec::new()
            }
            "BYE" => {
                let mut state = self.state();
                match state.dialogs.get_mut(&call_id) {
                    Some(dialog) => {
                        dialog.is_ended = true;
                        vec![respond(request, 200, "OK", "")]
                    }
                    None => vec![respond(request, 481, "Call/Transaction Does Not Exist", &tag)],
                }
            }
            "CANCEL" => {
                let mut answers = vec![respond(request, 200, "OK", &tag)];
                if let Some(dialog) = self.state().dialogs.get_mut(&call_id) {
                    dialog.is_ended = true;
                    let tag = parameter(&dialog.local, "tag").unwrap_or_default();
                    let invite = dialog.invite.as_ref();
                    answers.extend(invite.map(|invite| respond(invite, 487, "Request Terminated", tag)));
                }
                answers
            }
            _ => vec![respond(request, 200, "OK", &tag)],
        }
    }

    pub(super) fn answer_invite(&self, request: &Message, call_id: &str, tag: &str) -> Vec<Message> {
        let manners = self.state().manners;
        let contact = self.dialog_contact();
        let ringing = respond(request, 180, "Ringing", tag).with("Contact", format!("<{contact}>"));
        let mut ok = respond(request, 200, "OK", tag)
            .with("Contact", format!("<{contact}>"))
            .with("Content-Type", "application/sdp");
        ok.body = SDP.as_bytes().to_vec();
        let dialog = Dialog {
            local: ok.header("To").unwrap_or_default().to_owned(),
            remote: request.header("From").unwrap_or_default().to_owned(),
            target: request.contact_uri().unwrap_or_default(),
            routes: request.values("Record-Route"),
            cseq: 1,
            is_acknowledged: false,
            is_ended: false,
            invite: Some(request.clone()),
        };
        if !matches!(manners, Manners::Busy | Manners::Away) && !call_id.is_empty() {
            self.state().dialogs.insert(call_id.to_owned(), dialog);
        }
        match manners {
            Manners::Answer => vec![ringing, ok],
            Manners::Busy => vec![respond(request, 486, "Busy Here", tag)],
            Manners::Away => vec![respond(request, 480, "Temporarily Unavailable", tag)],
            Manners::Ring => vec![ringing],
        }
    }
}

/// A response: what RFC 3261 section 8.2.6.2 copies, and a To tag.
fn respond(request: &Message, status: u16, reason: &str, tag: &str) -> Message {
    let mut response = Message::new(format!("SIP/2.0 {status} {reason}"));
    for (name, value) in &request.headers {
        let lower = name.to_lowercase();
        match lower.as_str() {
            "to" if parameter(value, "tag").is_none() && !tag.is_empty() => {
                response = response.with(name, format!("{value};tag={tag}"));
            }
            "via" | "from" | "to" | "call-id" | "cseq" | "record-route" => {
                response = response.with(name, value);
            }
            _ => {}
        }
    }
    response
}
