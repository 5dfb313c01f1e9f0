//! Reads a REGISTER request: RFC 3261 section 10.3 steps 2 and 5 to 7 as far as they need no bindings, RFC
//! 3327 section 5.3, RFC 5626 section 6.

use model::{AddressOfRecord, limits};
use sip::{Contacts, EXPIRES_MALFORMED_S, HeaderError, HeaderId, Message, NameAddr, Uri, UriError};

use crate::{
    Contact, ContactChange, FlowRecord, Octets, Path, PathWithoutSupport, RegisterError, RegisterSettings,
    Registration, UserChange, gruu,
};

/// Extensions that may stand in Require.
const EXTENSIONS: [&[u8]; 3] = [b"path", b"outbound", b"gruu"];
/// A shorter expiry than this may be refused, a longer one never (RFC 3261 section 10.3 step 7).
const BRIEF_S: u32 = 3_600;

/// A REGISTER, read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterRequest {
    /// Whose bindings.
    pub aor: AddressOfRecord,
    /// What to do with them; `None` asks what is bound.
    pub change: Option<UserChange>,
    path: Option<Path>,
    is_outbound: bool,
    keeps_flow: bool,
    wants_gruus: bool,
}

impl RegisterRequest {
    /// The Path that was kept, for the 200 OK.
    pub const fn path(&self) -> Option<&Path> {
        self.path.as_ref()
    }

    /// Whether Outbound was asked for and applied: the 200 OK says `Require: outbound` (RFC 5626 section 6).
    pub const fn is_outbound(&self) -> bool {
        self.is_outbound
    }

    /// Whether a flow of Outbound is bound by it, which its phone keeps alive.
    pub const fn keeps_flow(&self) -> bool {
        self.keeps_flow
    }

    /// Whether the phone knows GRUUs: then the 200 OK has those of its contacts (RFC 5627 section 5.2).
    pub const fn wants_gruus(&self) -> bool {
        self.wants_gruus
    }
}

/// Checks Require (step 2), before the request is authenticated.
///
/// Errors: `Extension` with all names that are not supported; `Header`.
pub fn check_extensions(request: Message<'_>) -> Result<(), RegisterError> {
    let mut unsupported = Vec::new();
    for token in request.tokens(HeaderId::Require) {
        let token = token?;
        if !EXTENSIONS.iter().any(|known| token.eq_ignore_ascii_case(known)) {
            if !unsupported.is_empty() {
                unsupported.extend_from_slice(b", ");
            }
            unsupported.extend_from_slice(token);
        }
    }
    if unsupported.is_empty() {
        Ok(())
    } else {
        Err(RegisterError::Extension { unsupported: unsupported.into() })
    }
}

/// Reads a REGISTER under the rules of the pool.
///
/// `is_our_domain` says whether we keep bindings for a domain (in lower case). `flow` is the flow that the
/// request came over when the phone itself is at its other end, `None` when a server of ours forwarded it.
///
/// Errors: every [`RegisterError`] that does not depend on what is bound.
pub fn read_register(
    request: Message<'_>,
    settings: &RegisterSettings,
    is_our_domain: impl FnOnce(&str) -> bool,
    flow: Option<FlowRecord>,
) -> Result<RegisterRequest, RegisterError> {
    check_extensions(request)?;
    let aor = address_of_record(request)?;
    if !is_our_domain(aor.domain()) {
        return Err(RegisterError::UnknownDomain);
    }
    read_register_of(request, aor, settings, flow)
}

/// As [`read_register`], for a request whose To is known to be `aor`, of a domain of ours, and whose
/// extensions were checked.
///
/// Errors: as [`read_register`], but for those of To and Require.
pub fn read_register_of(
    request: Message<'_>,
    aor: AddressOfRecord,
    settings: &RegisterSettings,
    flow: Option<FlowRecord>,
) -> Result<RegisterRequest, RegisterError> {
    let wants_gruus = request.has_token(HeaderId::Supported, b"gruu");
    if !request.has(HeaderId::Contact) {
        return Ok(RegisterRequest {
            aor,
            change: None,
            path: None,
            is_outbound: false,
            keeps_flow: false,
            wants_gruus,
        });
    }
    let call_id = call_id(request)?;
    let cseq = request.cseq()?.number;
    let expires = expires(request)?;
    let addresses = match request.contacts()? {
        Contacts::Star if expires == Some(0) => {
            let change = Some(UserChange::RemoveAll { call_id, cseq });
            return Ok(RegisterRequest {
                aor,
                change,
                path: None,
                is_outbound: false,
                keeps_flow: false,
                wants_gruus,
            });
        }
        Contacts::Star => return Err(RegisterError::Wildcard),
        Contacts::List(addresses) => addresses,
    };
    let outbound = Outbound::of(request);
    let contacts = read_contacts(addresses, expires, settings, outbound, &aor)?;
    let path = read_path(request, settings.path_without_support)?;
    let mut flows = contacts.iter().filter(|change| change.contact.reg_id().is_some());
    let keeps_flow = outbound.is_supported && flows.clone().any(|change| change.expires_s > 0);
    let has_reg_id = flows.next().is_some();
    let change =
        Registration { call_id, cseq, contacts, path: path.clone(), flow, devices: settings.devices };
    Ok(RegisterRequest {
        aor,
        change: Some(UserChange::Register(change)),
        path: Some(path),
        is_outbound: has_reg_id && outbound.is_supported,
        keeps_flow,
        wants_gruus,
    })
}

/// Step 5: the canonical address-of-record of To.
fn address_of_record(request: Message<'_>) -> Result<AddressOfRecord, RegisterError> {
    let to = request.to()?.uri().and_then(|uri| uri.address_of_record());
    to.map_err(|error| match error {
        UriError::NotAddressOfRecord => RegisterError::UnknownDomain,
        UriError::Scheme
        | UriError::User
        | UriError::Host
        | UriError::Port
        | UriError::Parameters
        | UriError::Headers
        | UriError::Escape
        | UriError::Octet => HeaderError::Malformed { header: HeaderId::To }.into(),
    })
}

fn call_id(request: Message<'_>) -> Result<Octets, RegisterError> {
    let call_id = request.call_id()?;
    if call_id.len() > limits::CALL_ID_BYTES_MAX {
        return Err(RegisterError::TooLong { header: HeaderId::CallId, max: limits::CALL_ID_BYTES_MAX });
    }
    Ok(call_id.into())
}

/// The Expires header; a malformed one counts as an hour (RFC 3261 section 10.2.1.1).
fn expires(request: Message<'_>) -> Result<Option<u32>, RegisterError> {
    match request.expires() {
        Ok(expires) => Ok(expires),
        Err(HeaderError::Malformed { .. }) => Ok(Some(EXPIRES_MALFORMED_S)),
        Err(error) => Err(error.into()),
    }
}

/// Whether the phone asked for Outbound, and whether its way here allows it.
#[derive(Clone, Copy)]
struct Outbound {
    is_supported: bool,
    is_possible: bool,
}

impl Outbound {
    /// Outbound needs us as the first hop, or a first hop that put `ob` in the Path value it added: the last
    /// one, as later hops put theirs before it (RFC 5626 sections 5.1 and 6).
    fn of(request: Message<'_>) -> Self {
        let is_first_hop = request.values(HeaderId::Via).nth(1).is_none();
        let is_possible = is_first_hop || request.paths().last().is_some_and(|path| path.is_ok_and(has_ob));
        Self { is_supported: request.has_token(HeaderId::Supported, b"outbound"), is_possible }
    }
}

fn has_ob(path: NameAddr<'_>) -> bool {
    path.uri().is_ok_and(|uri| uri.parameters.has(b"ob"))
}

/// Step 7 as far as it needs no bindings.
fn read_contacts<'a>(
    addresses: impl Iterator<Item = Result<NameAddr<'a>, HeaderError>>,
    expires: Option<u32>,
    settings: &RegisterSettings,
    outbound: Outbound,
    aor: &AddressOfRecord,
) -> Result<Vec<ContactChange>, RegisterError> {
    let mut contacts = Vec::with_capacity(1);
    for address in addresses {
        let address = address?;
        if contacts.len() == limits::CONTACTS_PER_REGISTER_MAX {
            return Err(RegisterError::TooManyContacts { max: limits::CONTACTS_PER_REGISTER_MAX });
        }
        let uri = address.uri().map_err(|_| HeaderError::Malformed { header: HeaderId::Contact })?;
        if outbound.is_supported && !outbound.is_possible && address.parameters.has(b"reg-id") {
            return Err(RegisterError::FirstHopLacksOutbound);
        }
        let expires_s = granted(address.expires().or(expires), settings)?;
        let contact = Contact::new(address, outbound.is_possible)?;
        if expires_s > 0 && contact.instance().is_some() && !leads_to_device(&uri, aor) {
            return Err(RegisterError::NoDevice);
        }
        contacts.push(ContactChange { expires_s, contact });
    }
    let kept = || contacts.iter().filter(|change| change.expires_s > 0);
    if kept().count() > 1 && kept().any(|change| change.contact.reg_id().is_some()) {
        return Err(RegisterError::SeveralFlows);
    }
    Ok(contacts)
}

/// Whether a contact may have GRUUs: a SIP URI that is neither the address-of-record nor a GRUU of it, which
/// would only lead back to the contact (RFC 5627 section 5.1).
fn leads_to_device(contact: &Uri<'_>, aor: &AddressOfRecord) -> bool {
    if !contact.scheme.is_sip_or_sips() {
        return false;
    }
    let is_in_domain = contact.host.eq_ignore_ascii_case(aor.domain().as_bytes());
    let is_aor = || contact.port.is_none() && contact.address_of_record().is_ok_and(|named| named == *aor);
    !(is_in_domain && (gruu::looks_temporary(contact) || is_aor()))
}

/// The expiry granted to a contact that asks for `asked_s`; 0 = remove.
fn granted(asked_s: Option<u32>, settings: &RegisterSettings) -> Result<u32, RegisterError> {
    let asked_s = asked_s.unwrap_or(settings.expires_default_s);
    if asked_s > 0 && asked_s < BRIEF_S && asked_s < settings.expires_min_s {
        return Err(RegisterError::IntervalTooBrief { min_s: settings.expires_min_s });
    }
    Ok(asked_s.min(settings.expires_max_s))
}

fn read_path(request: Message<'_>, without_support: PathWithoutSupport) -> Result<Path, RegisterError> {
    if !request.has(HeaderId::Path) {
        return Ok(Path::default());
    }
    if !request.has_token(HeaderId::Supported, b"path") && !request.has_token(HeaderId::Require, b"path") {
        match without_support {
            PathWithoutSupport::Keep => {}
            PathWithoutSupport::Ignore => return Ok(Path::default()),
            PathWithoutSupport::Refuse => {
                return Err(RegisterError::Extension { unsupported: b"path"[..].into() });
            }
        }
    }
    for path in request.paths() {
        path?.uri().map_err(|_| HeaderError::Malformed { header: HeaderId::Path })?;
    }
    Path::new(request.values(HeaderId::Path))
        .ok_or(RegisterError::TooLong { header: HeaderId::Path, max: limits::PATH_BYTES_MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{REFERENCE, flow, message, read, read_with, register};

    fn registration(request: RegisterRequest) -> Registration {
        match request.change {
            Some(UserChange::Register(registration)) => registration,
            other => panic!("{other:?}"),
        }
    }

    fn expiries(lines: &[&str]) -> Result<Vec<u32>, RegisterError> {
        let request = read(&register("c", 1, lines))?;
        Ok(registration(request).contacts.iter().map(|change| change.expires_s).collect())
    }

    #[test]
    fn the_reference_register_is_read() {
        let request = read(&message(REFERENCE)).unwrap();

        assert_eq!(request.aor.as_str(), "sip:1000247@example.com");
        assert!(request.is_outbound());
        let registration = registration(request);
        assert_eq!(&*registration.call_id, b"9b2f7c11-45d0-4c7e-8a31-6f0e5d21c9aa@192.0.2.17");
        assert_eq!((registration.cseq, registration.devices.max()), (1482, 8));
        assert_eq!(registration.flow, Some(flow(1)));
        let [ContactChange { expires_s: 600, contact }] = registration.contacts.as_slice() else { panic!() };
        assert_eq!(contact.uri(), b"sip:1000247@192.0.2.17:5060;transport=udp;ob");
        assert_eq!(contact.instance(), Some(&b"<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>"[..]));
        assert_eq!(contact.reg_id().map(u32::from), Some(1));
    }

    #[test]
    fn a_register_without_contact_asks_and_changes_nothing() {
        let request = read(&register("c", 1, &["Expires: 0"])).unwrap();

        assert_eq!((request.change, request.path), (None, None));
    }

    #[test]
    fn an_expiry_is_that_of_the_contact_else_of_the_header_else_the_default() {
        assert_eq!(expiries(&["Contact: <sip:a@h>"]), Ok(vec![600]));
        assert_eq!(expiries(&["Contact: <sip:a@h>, <sip:b@h>;expires=0", "Expires: 120"]), Ok(vec![120, 0]));
        assert_eq!(expiries(&["Contact: <sip:a@h>;expires=90", "Expires: 0"]), Ok(vec![90]));
        assert_eq!(expiries(&["Contact: <sip:a@h>;expires=99999"]), Ok(vec![3_600]));
        assert_eq!(expiries(&["Contact: <sip:a@h>", "Expires: soon"]), Ok(vec![3_600]));
    }

    #[test]
    fn an_expiry_below_the_minimum_is_refused_unless_it_is_an_hour_or_more() {
        let brief = Err(RegisterError::IntervalTooBrief { min_s: 60 });
        assert_eq!(expiries(&["Contact: <sip:a@h>;expires=59"]), brief);
        assert_eq!(expiries(&["Contact: <sip:a@h>;expires=60"]), Ok(vec![60]));

        let settings = RegisterSettings { expires_min_s: 7_200, expires_max_s: 9_000, ..Default::default() };
        let hour = register("c", 1, &["Contact: <sip:a@h>;expires=3600"]);
        assert_eq!(registration(read_with(&hour, &settings).unwrap()).contacts[0].expires_s, 3_600);
    }

    #[test]
    fn a_wildcard_stands_alone_with_expires_0() {
        let star = read(&register("c", 5, &["Contact: *", "Expires: 0"])).unwrap();
        assert_eq!(star.change, Some(UserChange::RemoveAll { call_id: b"c"[..].into(), cseq: 5 }));

        assert_eq!(read(&register("c", 5, &["Contact: *"])), Err(RegisterError::Wildcard));
        assert_eq!(read(&register("c", 5, &["Contact: *", "Expires: 60"])), Err(RegisterError::Wildcard));
        for mixed in
            [&["Contact: *, <sip:a@h>", "Expires: 0"][..], &["Contact: *", "Contact: *", "Expires: 0"]]
        {
            assert_eq!(read(&register("c", 5, mixed)).unwrap_err().status(), 400);
        }
    }

    #[test]
    fn extensions_that_are_not_supported_are_named() {
        let request = register("c", 1, &["Require: path, GRUU, y", "Require: x", "Contact: <sip:a@h>"]);

        assert_eq!(read(&request), Err(RegisterError::Extension { unsupported: b"y, x"[..].into() }));
        assert_eq!(check_extensions(register("c", 1, &["Require: Outbound"]).view()), Ok(()));
    }

    #[test]
    fn an_address_of_another_domain_or_scheme_is_not_found_and_an_unreadable_one_is_a_bad_request() {
        let to =
            |to: &str| message(&REFERENCE.replace("\"Alice Example\" <sip:1000247@example.com>\r\nFrom", to));
        let status = |text: &str| read(&to(&format!("{text}\r\nFrom"))).unwrap_err().status();

        assert_eq!(status("<sip:a@example.org>"), 404);
        assert_eq!(status("<tel:+123>"), 404);
        assert_eq!(status("<sip:a@exa mple.com>"), 400);
        assert_eq!(status("<sip:a%4@example.com>"), 400);
    }

    #[test]
    fn contacts_beyond_the_limits_are_refused() {
        let many = vec!["<sip:a@h>"; limits::CONTACTS_PER_REGISTER_MAX + 1].join(",");
        let long = format!("Contact: <sip:a@h>;x={}", "y".repeat(limits::CONTACT_BYTES_MAX));
        let call_id = "c".repeat(limits::CALL_ID_BYTES_MAX + 1);

        assert_eq!(expiries(&[&format!("Contact: {many}")]), Err(RegisterError::TooManyContacts { max: 32 }));
        assert!(matches!(expiries(&[&long]), Err(RegisterError::TooLong { header: HeaderId::Contact, .. })));
        let refused = read(&register(&call_id, 1, &["Contact: <sip:a@h>"]));
        assert!(matches!(refused, Err(RegisterError::TooLong { header: HeaderId::CallId, .. })));
        for bad in ["<sip:a b@h>", "sip:", "<sip:a@h>;reg-id=0;+sip.instance=\"<i>\"", "<sip:a@h>;;"] {
            assert_eq!(expiries(&[&format!("Contact: {bad}")]).unwrap_err().status(), 400, "{bad}");
        }
    }

    #[test]
    fn path_is_kept_when_the_phone_supports_it_and_otherwise_as_policy_says() {
        let with = |supported: &str, path_without_support| {
            let lines = [supported, "Path: <sip:edge1;lr>,", " <sip:edge2;lr;ob>", "Contact: <sip:a@h>"];
            let request = register("c", 1, &lines);
            let settings = RegisterSettings { path_without_support, ..Default::default() };
            let request = read_with(&request, &settings)?;
            let kept: Vec<_> = request.path().unwrap().values().map(<[u8]>::to_vec).collect();
            assert_eq!(request.path().cloned(), Some(registration(request).path));
            Ok(kept)
        };
        let both = Ok(vec![b"<sip:edge1;lr>".to_vec(), b"<sip:edge2;lr;ob>".to_vec()]);

        assert_eq!(with("Supported: path", PathWithoutSupport::Refuse), both);
        assert_eq!(with("Supported: gruu", PathWithoutSupport::Keep), both);
        assert_eq!(with("Supported: gruu", PathWithoutSupport::Ignore), Ok(vec![]));
        let refused = Err(RegisterError::Extension { unsupported: b"path"[..].into() });
        assert_eq!(with("Supported: gruu", PathWithoutSupport::Refuse), refused);
    }

    #[test]
    fn outbound_needs_a_first_hop_that_supports_it() {
        let contact = "Contact: <sip:a@h>;+sip.instance=\"<urn:uuid:1>\";reg-id=2";
        let far = |lines: &[&str]| {
            let via = "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKy";
            read(&register("c", 1, &[&[via, contact][..], lines].concat()))
        };

        assert_eq!(far(&["Supported: outbound, path"]), Err(RegisterError::FirstHopLacksOutbound));
        let ignored = far(&["Supported: path", "Path: <sip:edge;lr>"]).unwrap();
        assert!(!ignored.is_outbound());
        assert_eq!(registration(ignored).contacts[0].contact.reg_id(), None);
        let path = "Path: <sip:inner;lr>, <sip:edge;lr;ob>";
        let applied = far(&["Supported: outbound, path", path]).unwrap();
        assert!(applied.is_outbound());
        assert!(registration(applied).contacts[0].contact.reg_id().is_some());
    }

    #[test]
    fn a_device_is_not_bound_to_its_own_address_or_gruu_nor_to_what_is_no_sip_uri() {
        let refused = |contact: &str| {
            let contact = format!("Contact: <{contact}>;+sip.instance=\"<i>\"");
            read(&register("c", 1, &[&contact])).err()
        };

        for loops in [
            "sip:a@EXAMPLE.com",
            "sips:%61@example.com;transport=tcp",
            "sip:a@example.com;gr=i",
            "sip:tgruu.x@example.com;gr",
            "tel:+123",
        ] {
            assert_eq!(refused(loops), Some(RegisterError::NoDevice), "{loops}");
        }
        for device in ["sip:a@h", "sip:a@example.com:5066", "sip:b@example.com", "sip:tgruu.x@h;gr"] {
            assert_eq!(refused(device), None, "{device}");
        }
        let plain = register("c", 1, &["Contact: <sip:a@example.com>, <tel:+1>"]);
        assert!(read(&plain).is_ok(), "the rule is for devices");
    }

    #[test]
    fn reg_id_without_instance_is_ignored_and_with_another_contact_refused() {
        for alone in ["<sip:a@h>;reg-id=1", "<sip:a@h>;reg-id=0", "<sip:a@h>;+sip.instance=\"\";reg-id=x"] {
            let contact = format!("Contact: {alone}");
            let alone = read(&register("c", 1, &[&contact, "Supported: outbound"])).unwrap();
            assert!(!alone.is_outbound());
            assert_eq!(registration(alone).contacts[0].contact.reg_id(), None, "{contact}");
        }

        let flow = "Contact: <sip:a@h>;+sip.instance=\"<i>\";reg-id=1";
        assert_eq!(read(&register("c", 1, &[flow, "Contact: <sip:b@h>"])), Err(RegisterError::SeveralFlows));
        assert!(read(&register("c", 1, &[flow, "Contact: <sip:b@h>;expires=0"])).is_ok());
    }
}
