//! Requests to GRUUs: one device of a user instead of all. Source: RFC 5627 section 6.

use std::borrow::Cow;

use model::{AddressOfRecord, Peer};
use proxy::{Reject, dialog_forming};
use registrar::{Binding, Bindings, Gruu};
use sip::{HeaderId, Message, NameAddr, Uri};

use super::Shard;
use crate::TokenFlow;

impl Shard {
    /// The GRUU that a URI of one of our domains is; `None` for any other URI.
    ///
    /// Errors: 404 for one that we never made (section 6.1).
    pub(super) fn gruu_of(&self, uri: &[u8]) -> Result<Option<Gruu>, Reject> {
        let Ok(uri) = Uri::parse(uri) else { return Ok(None) };
        if !(uri.parameters.has(b"gr") && self.is_of_our_domain(&uri)) {
            return Ok(None);
        }
        self.shared.gruus.read(&uri).map(Some).ok_or(Reject::NotFound)
    }

    /// Whose a temporary GRUU is; `None` for anything else.
    pub(super) fn user_of_temporary(&self, uri: &Uri<'_>) -> Option<AddressOfRecord> {
        if !(uri.parameters.has(b"gr") && self.is_of_our_domain(uri)) {
            return None;
        }
        self.shared.gruus.read(uri).filter(Gruu::is_temporary).map(|gruu| gruu.aor)
    }

    /// The contacts of a user that a GRUU stands for.
    ///
    /// Errors: 404 for a temporary one without any: it has ended; 480 for a public one (section 6.1).
    pub(super) fn bindings_of_gruu(&self, gruu: &Gruu, mut bindings: Bindings) -> Result<Bindings, Reject> {
        bindings.retain(|binding| gruu.is_of(binding, &self.shared.gruus));
        match (bindings.is_empty(), gruu.is_temporary()) {
            (false, _) => Ok(bindings),
            (true, true) => Err(Reject::NotFound),
            (true, false) => Err(Reject::TemporarilyUnavailable),
        }
    }

    /// What a request that leaves over `peer` carries as its Request-URI: in place of a GRUU the contact that
    /// it stands for, where that is bound over this flow (section 6.1). Else as it is: a phone knows its own
    /// GRUUs, and nobody else is to learn whose a temporary one is.
    pub(super) fn contact_of<'a>(&self, request_uri: &'a [u8], peer: &Peer) -> Cow<'a, [u8]> {
        let found = self.gruu_of(request_uri).ok().flatten().and_then(|gruu| {
            let user = self.shared.directory.user(&gruu.aor)?;
            let bindings = self.bindings_of_gruu(&gruu, self.shared.bindings(user.home, &gruu.aor)).ok()?;
            bindings.iter().find(|binding| self.is_over(binding, peer)).cloned()
        });
        found.map_or(Cow::Borrowed(request_uri), |binding| Cow::Owned(binding.uri().to_vec()))
    }

    /// Whether a phone has bound this contact over the flow of this server to `peer`.
    fn is_over(&self, binding: &Binding, peer: &Peer) -> bool {
        let is_it = |held: &Peer| held.flow == peer.flow && held.remote == peer.remote;
        match (binding.path().next(), binding.flow()) {
            (Some(first), _) => {
                let uri = NameAddr::parse(first).and_then(|address| address.uri().ok());
                let token = uri.and_then(|uri| self.shared.tokens.read(uri.user?));
                matches!(token, Some(TokenFlow::Alive(held)) if is_it(&held))
            }
            (None, Some(flow)) => flow.server == self.shared.server.name.as_str() && is_it(&flow.peer),
            (None, None) => false,
        }
    }

    /// Whether a request that begins a dialog has somebody else's GRUU as its Contact (section 6.2).
    pub(super) fn poses_as_another(&self, request: Message<'_>, caller: &AddressOfRecord) -> bool {
        if !dialog_forming(request) {
            return false;
        }
        let contact = request.addresses(HeaderId::Contact).next().and_then(Result::ok);
        let gruu = contact.and_then(|contact| self.gruu_of(contact.uri_bytes).ok()?);
        gruu.is_some_and(|gruu| gruu.aor != *caller)
    }

    fn is_of_our_domain(&self, uri: &Uri<'_>) -> bool {
        uri.scheme.is_sip_or_sips()
            && uri.host_address().is_none()
            && self.settings.domains.iter().any(|domain| uri.host.eq_ignore_ascii_case(domain.as_bytes()))
    }
}
