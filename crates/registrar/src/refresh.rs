//! Which REGISTERs only keep alive what is bound.

use sip::{HeaderId, Message};

use crate::Binding;

/// Whether a REGISTER refreshes or removes one of these bindings, as far as can be seen without reading all
/// of it: the Call-ID of the binding, which a phone keeps until it restarts (RFC 3261 section 10.2), or its
/// contact URI.
pub fn is_refresh(request: Message<'_>, bindings: &[Binding]) -> bool {
    let call_id = request.call_id().unwrap_or_default();
    let names = |binding: &Binding| {
        let mut contacts = request.addresses(HeaderId::Contact).filter_map(Result::ok);
        contacts.any(|contact| contact.uri_bytes == binding.uri())
    };
    bindings.iter().any(|binding| binding.call_id() == call_id || names(binding))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Bindings, GroupState, Outcome,
        test_support::{START, command, read, register},
    };

    fn bound() -> Bindings {
        let mut group = GroupState::new();
        let request = read(&register("first", 1, &["Contact: <sip:a@h1>"])).unwrap();
        let outcome = group.apply(&command(1, START, request.change.unwrap()));
        let Outcome::Registered { bindings, .. } = outcome else { panic!("{outcome:?}") };
        bindings
    }

    #[test]
    fn the_same_call_or_the_same_contact_is_a_refresh_and_nothing_else_is() {
        let bound = bound();
        let rows = [
            ("first", "Contact: <sip:a@h2>", true),
            ("other", "Contact: <sip:x@h9>, <sip:a@h1>;expires=0", true),
            ("other", "Contact: <sip:a@h2>", false),
            ("other", "Contact: *", false),
            ("other", "Subject: a question", false),
        ];
        for (call_id, line, expected) in rows {
            let request = register(call_id, 9, &[line]);
            assert_eq!(is_refresh(request.view(), &bound), expected, "{call_id} {line}");
            assert!(!is_refresh(request.view(), &[]));
        }
    }
}
