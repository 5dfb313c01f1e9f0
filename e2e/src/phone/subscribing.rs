//! The phone subscribes to registrations, and keeps the notifications (RFC 6665, RFC 3680).

use std::sync::Arc;

use anyhow::{Context, Result};

use super::{ANSWER_WITHIN, Answer, Dialog, Line, Phone, fresh};
use crate::Message;

/// A subscription that was accepted.
#[derive(Debug)]
pub struct Subscription {
    line: Arc<Line>,
    call_id: String,
    event: String,
}

impl Phone {
    /// Subscribes to an event package of a user; 0 seconds only asks how things stand.
    ///
    /// Errors: no final response in time, or a 200 without what a dialog needs.
    pub fn subscribe(
        &self,
        to: &str,
        event: &str,
        expires: u32,
    ) -> Result<std::result::Result<(Subscription, Answer), Answer>> {
        let line = &self.line;
        let uri = format!("sip:{to}@example.com");
        let (call_id, tag) = (fresh(), fresh());
        let answer = line.ask("SUBSCRIBE", &uri, ANSWER_WITHIN, |attempt| {
            line.outside("SUBSCRIBE", &uri, &call_id, &tag, attempt)
                .with("Contact", format!("<{}>", line.contact()))
                .with("Event", event)
                .with("Accept", "application/reginfo+xml")
                .with("Expires", expires.to_string())
        })?;
        if answer.status != 200 {
            return Ok(Err(answer));
        }
        let mut routes = answer.message.values("Record-Route");
        routes.reverse();
        let dialog = Dialog {
            local: answer.header("From").context("From")?.to_owned(),
            remote: answer.header("To").context("To")?.to_owned(),
            target: answer.message.contact_uri().context("a 200 to SUBSCRIBE has a Contact")?,
            routes,
            cseq: answer.message.cseq().context("CSeq")?.0,
            is_acknowledged: true,
            is_ended: false,
            invite: None,
        };
        line.state().dialogs.insert(call_id.clone(), dialog);
        let subscription = Subscription { line: Arc::clone(line), call_id, event: event.to_owned() };
        Ok(Ok((subscription, answer)))
    }
}

impl Subscription {
    /// Asks for so many seconds more; 0 ends it.
    ///
    /// Errors: no final response in time.
    pub fn refresh(&self, expires: u32) -> Result<Answer> {
        self.refresh_as(&self.call_id, &self.event, expires)
    }

    /// The same for another event package, in this dialog.
    ///
    /// Errors: as [`Self::refresh`].
    pub fn refresh_event(&self, event: &str, expires: u32) -> Result<Answer> {
        self.refresh_as(&self.call_id, event, expires)
    }

    /// The same as if this were another dialog: its Call-ID is not known.
    ///
    /// Errors: as [`Self::refresh`].
    pub fn refresh_unknown(&self, expires: u32) -> Result<Answer> {
        self.refresh_as(&fresh(), &self.event, expires)
    }

    /// The notifications that came so far, each once, in order.
    pub fn notifications(&self) -> Vec<Message> {
        let state = self.line.state();
        let ours = state.requests.iter().filter(|request| {
            request.method() == Some("NOTIFY") && request.header("Call-ID") == Some(&self.call_id)
        });
        ours.cloned().collect()
    }

    fn refresh_as(&self, call_id: &str, event: &str, expires: u32) -> Result<Answer> {
        let line = &self.line;
        let dialog = line.state().dialogs.get(&self.call_id).cloned().context("no dialog")?;
        let target = dialog.target.clone();
        line.ask_at(line.next_hop(&dialog), "SUBSCRIBE", &target, ANSWER_WITHIN, |_| {
            let mut state = line.state();
            let cseq = state.dialogs.get_mut(&self.call_id).map_or(1, |dialog| {
                dialog.cseq += 1;
                dialog.cseq
            });
            drop(state);
            let mut request = line.inside(&dialog, call_id, "SUBSCRIBE", cseq);
            request.headers.retain(|(name, _)| name != "Via");
            request
                .with("Contact", format!("<{}>", line.contact()))
                .with("Event", event)
                .with("Expires", expires.to_string())
        })
    }
}
