//! Responses on their way to the caller. Source: RFC 3261 section 16.7 steps 3 to 9.

use std::sync::Arc;

use bytes::Bytes;
use sip::{HeaderId, OwnedMessage, ResponseBuilder, Rewrite};

use crate::{
    Output,
    context::{Context, Phase, Shared, has_via_below_ours},
    open::{Open, Stop},
    responses::{Best, is_challenge},
};

impl Context {
    /// Sends a response upstream as it is, without our Via. `false` when there is no Via below ours: then it
    /// was meant for us (16.7 step 3).
    pub(crate) fn forward_response(&self, response: &Arc<OwnedMessage>, shared: &mut Shared) -> bool {
        if !has_via_below_ours(response) {
            return false;
        }
        let mut out = Vec::with_capacity(response.bytes().len());
        let mut rewrite = Rewrite::new(response.view());
        rewrite.pop_top_via();
        rewrite.write_to(&mut out);
        self.respond(response.view().status(), out, shared);
        true
    }

    /// Sends the best response when every branch has ended without a 2xx (16.7 step 6); nothing more follows
    /// it.
    pub(crate) fn send_best(&mut self, shared: &mut Shared) {
        let Phase::Open(open) = std::mem::replace(&mut self.phase, Phase::Over) else { return };
        self.disarm(shared);
        let is_cancelled = open.stop == Some(Stop::Cancelled);
        match open.responses.best(self.is_invite, is_cancelled) {
            Best::Forward(response) => {
                let out = with_other_challenges(&open, &response);
                self.respond(response.view().status(), out, shared);
            }
            // Whatever kept a branch from answering, the caller that cancelled waits for this one.
            Best::Own(_) | Best::Overload | Best::Unreachable { .. } if is_cancelled => {
                self.respond_own(&open, 487, None, shared)
            }
            Best::Own(status) => self.respond_own(&open, status, None, shared),
            Best::Overload => {
                let retry_after_s = shared.settings.retry_after_s;
                self.respond_own(&open, 503, Some(retry_after_s), shared);
            }
            Best::Unreachable { is_unsent } => {
                let (server, request) = (self.server, Arc::clone(&open.request));
                shared.outputs.push_back(Output::Unreachable { server, request, is_unsent });
            }
            Best::Nothing => {}
        }
    }

    fn respond_own(&self, open: &Open, status: u16, retry_after_s: Option<u32>, shared: &mut Shared) {
        let to_tag = format!("{:016x}", shared.chance.bits());
        let retry_after = retry_after_s.map(|seconds| seconds.to_string());
        let reason = sip::reason_phrase(status).as_bytes();
        let mut builder = ResponseBuilder::new(open.request.view(), status, reason).to_tag(to_tag.as_bytes());
        if let Some(seconds) = &retry_after {
            builder = builder.header("Retry-After", seconds.as_bytes());
        }
        let mut out = Vec::with_capacity(512);
        builder.write_to(&mut out);
        self.respond(status, out, shared);
    }

    fn respond(&self, status: u16, response: Vec<u8>, shared: &mut Shared) {
        let response = Bytes::from(response);
        shared.outputs.push_back(Output::Respond { server: self.server, status, response });
    }
}

/// The chosen response without our Via; a 401 or 407 with the challenges of all others (16.7 step 7).
fn with_other_challenges(open: &Open, chosen: &Arc<OwnedMessage>) -> Vec<u8> {
    let mut out = Vec::with_capacity(chosen.bytes().len());
    let mut rewrite = Rewrite::new(chosen.view());
    rewrite.pop_top_via();
    if is_challenge(chosen.view().status()) {
        for other in open.responses.other_challenges(chosen) {
            for header in other.view().headers() {
                if matches!(header.id, HeaderId::WwwAuthenticate | HeaderId::ProxyAuthenticate) {
                    rewrite.add_header(header.id.name(), header.value);
                }
            }
        }
    }
    rewrite.write_to(&mut out);
    out
}
