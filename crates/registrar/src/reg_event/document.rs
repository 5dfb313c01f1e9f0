//! Documents of registration information. Source: RFC 3680 section 5, RFC 5628 section 5.

use std::{
    fmt::Write,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use model::{AddressOfRecord, WallTime, limits};
use sip::Parameters;

use super::{
    contacts::{Contact, ContactEvent, id_of},
    xml,
};
use crate::{Binding, Bindings, Gruus, write_public};

/// Writes the full state of a user's registration: `contacts` in the order of preference, those that ended
/// last; with the GRUUs of those that are active.
///
/// Above `limits::REGINFO_BYTES_MAX` octets, what a contact need not have is left out, then the contact.
pub(super) fn write(
    aor: &AddressOfRecord,
    version: u32,
    contacts: &[Contact],
    gruus: Option<&Gruus>,
    now: WallTime,
) -> String {
    let state = if contacts.iter().any(|contact| contact.event.is_active()) {
        "active"
    } else if contacts.is_empty() {
        "init"
    } else {
        "terminated"
    };
    let mut out = String::with_capacity(1_024);
    out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    out.push_str("<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\"");
    if gruus.is_some() {
        out.push_str(" xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\"");
    }
    let active = contacts.iter().filter(|contact| contact.event.is_active());
    let bindings: Bindings = active.map(|contact| contact.binding.clone()).collect();
    push(&mut out, format_args!(" version=\"{version}\" state=\"full\">\n<registration aor=\""));
    xml::push(&mut out, aor.as_str().as_bytes());
    let id = BuildHasherDefault::<DefaultHasher>::default().hash_one(aor);
    push(&mut out, format_args!("\" id=\"r{id:016x}\" state=\"{state}\">\n"));
    for contact in contacts {
        let before = out.len();
        for has_extras in [true, false] {
            let gruus = gruus.filter(|_| has_extras).map(|gruus| (gruus, aor, bindings.as_slice()));
            write_contact(&mut out, contact, has_extras, gruus, now);
            if out.len() <= limits::REGINFO_BYTES_MAX {
                break;
            }
            out.truncate(before);
        }
    }
    out.push_str("</registration>\n</reginfo>\n");
    out
}

fn write_contact(
    out: &mut String,
    contact: &Contact,
    has_extras: bool,
    gruus: Option<(&Gruus, &AddressOfRecord, &[Binding])>,
    now: WallTime,
) {
    let Contact { binding, event } = contact;
    let state = if event.is_active() { "active" } else { "terminated" };
    let id = id_of(binding);
    push(out, format_args!("<contact id=\"c{id:016x}\" state=\"{state}\" event=\"{}\"", event.name()));
    if event.is_active() {
        push(out, format_args!(" expires=\"{}\"", binding.expires_in_s(now)));
    }
    if let ContactEvent::Probation { retry_after_s } = event {
        push(out, format_args!(" retry-after=\"{retry_after_s}\""));
    }
    let (whole, thousandths) = (binding.q() / 1_000, binding.q() % 1_000);
    push(out, format_args!(" q=\"{whole}.{thousandths:03}\""));
    if has_extras {
        out.push_str(" callid=\"");
        xml::push(out, binding.call_id());
        push(out, format_args!("\" cseq=\"{}\"", binding.cseq()));
    }
    out.push_str("><uri>");
    xml::push(out, binding.uri());
    out.push_str("</uri>");
    let parameters = Parameters::parse(binding.parameters()).filter(|_| has_extras).unwrap_or_default();
    for parameter in parameters.iter().filter(|parameter| !parameter.name.eq_ignore_ascii_case(b"q")) {
        out.push_str("<unknown-param name=\"");
        xml::push(out, parameter.name);
        out.push_str("\">");
        xml::push(out, parameter.value.unwrap_or_default());
        out.push_str("</unknown-param>");
    }
    if let Some((gruus, aor, bindings)) = gruus.filter(|_| event.is_active()) {
        write_gruus(out, binding, gruus, aor, bindings);
    }
    out.push_str("</contact>\n");
}

/// The public GRUU of a contact's device and its newest temporary one (RFC 5628 section 5).
fn write_gruus(
    out: &mut String,
    binding: &Binding,
    gruus: &Gruus,
    aor: &AddressOfRecord,
    bindings: &[Binding],
) {
    let mut uri = Vec::new();
    if !write_public(aor, binding, &mut uri) {
        return;
    }
    out.push_str("<gr:pub-gruu uri=\"");
    xml::push(out, &uri);
    uri.clear();
    gruus.write_temporary(aor, binding, bindings, &mut uri);
    out.push_str("\"/><gr:temp-gruu uri=\"");
    xml::push(out, &uri);
    push(out, format_args!("\" first-cseq=\"{}\"/>", binding.gruus().first_cseq));
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _a_string_takes_everything = out.write_fmt(text);
}
