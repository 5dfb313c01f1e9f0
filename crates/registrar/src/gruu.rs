//! Globally routable user agent URIs: URIs of our domains that reach one device of a user. Source: RFC 5627.
//!
//! A **public** GRUU is the address-of-record with the device's instance in the parameter `gr`. It needs no
//! state and is good as long as there is the account.
//!
//! A **temporary** GRUU tells nobody whose it is. What the registrar must know of it stands in the URI
//! itself, sealed under keys that all servers of a deployment derive from their shared secret: so each of
//! them reads what any other made, after a takeover and a restart too. The seal holds the user, a tag of the
//! instance, when the series of GRUUs began that it belongs to, and when this one was made, so that no two
//! are alike. It is good while a contact of the device is bound that has the same series ([`GruuSeries`]).
//!
//! The seal is a synthetic initialisation vector: the MAC of the content is the nonce of the key stream,
//! which is a MAC as well (SipHash-2-4 with 128 bits under separate keys). Equal contents have equal GRUUs,
//! so that everybody who asks for the newest one of a device gets the same.

use std::{fmt, hash::Hasher};

use hmac::{Hmac, KeyInit, Mac};
use model::{AddressOfRecord, WallTime, limits};
use sha2::Sha256;
use sip::Uri;
use siphasher::sip128::{Hasher128, SipHasher24};
use subtle::ConstantTimeEq;

use crate::{Binding, Octets, base64, contact::is_uuid};

/// What the user part of a temporary GRUU begins with.
const PREFIX: &[u8] = b"tgruu.";
/// Octets of the vector at the start of a seal.
const VECTOR_BYTES: usize = 12;
/// Octets of a seal's content before the user.
const CONTENT_BYTES_MIN: usize = 20;

/// The temporary GRUUs of a device that are good now: all that were made since its first contact was bound,
/// or since a REGISTER came with another Call-ID than the one before it (RFC 5627 sections 5.1 and 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GruuSeries {
    /// When it began: no two series of a device begin at the same time.
    pub since: WallTime,
    /// CSeq of the REGISTER that began it (RFC 5628 section 5).
    pub first_cseq: u32,
}

impl GruuSeries {
    /// That of contacts without an instance: none.
    pub(crate) const NONE: Self = Self { since: WallTime::from_micros(0), first_cseq: 0 };
}

/// Makes and reads the GRUUs of a deployment.
#[derive(Clone, Copy)]
pub struct Gruus {
    vector: SipHasher24,
    stream: SipHasher24,
    tag: SipHasher24,
}

/// A GRUU of ours, whoever has a contact for it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gruu {
    /// Whose.
    pub aor: AddressOfRecord,
    device: Device,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Device {
    /// By its instance, without angle brackets.
    Public(Octets),
    /// By the tag of its instance, in one series.
    Temporary { since: WallTime, tag: u32 },
}

impl Gruu {
    /// Whether it hides whose it is, and ends with the registration.
    pub const fn is_temporary(&self) -> bool {
        match self.device {
            Device::Public(_) => false,
            Device::Temporary { .. } => true,
        }
    }

    /// Whether a binding of its user is one of its contacts (RFC 5627 section 5.4).
    pub fn is_of(&self, binding: &Binding, gruus: &Gruus) -> bool {
        let Some(instance) = binding.instance() else { return false };
        match &self.device {
            Device::Public(named) => {
                let bound = without_brackets(instance);
                bound == &**named || (is_uuid(instance) && bound.eq_ignore_ascii_case(named))
            }
            Device::Temporary { since, tag } => {
                binding.gruus().since == *since && gruus.tag_of(instance) == *tag
            }
        }
    }
}

impl Gruus {
    /// Derives the keys from a secret that all servers of the deployment have; they tell nothing about it.
    pub fn derived_from(secret: &[u8; 32]) -> Self {
        let derive = |label: &[u8]| {
            let mac = Hmac::<Sha256>::new_from_slice(secret);
            let mut mac = mac.expect("invariant: HMAC takes keys of any length");
            mac.update(b"tandem gruu 1 ");
            mac.update(label);
            let mut key = [0; 16];
            for (to, from) in key.iter_mut().zip(mac.finalize().into_bytes()) {
                *to = from;
            }
            SipHasher24::new_with_key(&key)
        };
        Self { vector: derive(b"vector"), stream: derive(b"stream"), tag: derive(b"tag") }
    }

    /// Appends `pub-gruu` and `temp-gruu` of a contact of `aor`, as a 200 OK has them (RFC 5627 section 5.2);
    /// nothing for one without an instance. `bindings` are all of the user.
    pub fn write_parameters(
        &self,
        aor: &AddressOfRecord,
        binding: &Binding,
        bindings: &[Binding],
        out: &mut Vec<u8>,
    ) {
        let before = out.len();
        out.extend_from_slice(b";pub-gruu=\"");
        if !write_public(aor, binding, out) {
            return out.truncate(before);
        }
        out.extend_from_slice(b"\";temp-gruu=\"");
        self.write_temporary(aor, binding, bindings, out);
        out.push(b'"');
    }

    /// Appends the newest temporary GRUU of the device that `binding` is of; one of its contacts has a public
    /// GRUU ([`write_public`]).
    pub fn write_temporary(
        &self,
        aor: &AddressOfRecord,
        binding: &Binding,
        bindings: &[Binding],
        out: &mut Vec<u8>,
    ) {
        let of_device = bindings.iter().filter(|other| other.is_same_device(binding));
        let made = of_device.map(Binding::updated_at).max().unwrap_or(binding.updated_at());
        let mut content = [0; VECTOR_BYTES + CONTENT_BYTES_MIN + limits::ADDRESS_OF_RECORD_BYTES_MAX];
        let parts: [&[u8]; 5] = [
            &[0; VECTOR_BYTES],
            &binding.gruus().since.as_micros().to_be_bytes(),
            &made.as_micros().to_be_bytes(),
            &self.tag_of(binding.instance().unwrap_or_default()).to_be_bytes(),
            aor.user().as_bytes(),
        ];
        let length = parts.iter().map(|part| part.len()).sum();
        let Some(sealed) = content.get_mut(..length) else { return };
        for (to, from) in sealed.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        self.seal(aor.domain().as_bytes(), sealed);
        out.extend_from_slice(b"sip:");
        out.extend_from_slice(PREFIX);
        base64::write(sealed, out);
        out.push(b'@');
        out.extend_from_slice(aor.domain().as_bytes());
        out.extend_from_slice(b";gr");
    }

    /// Reads a URI of one of our domains with the parameter `gr`; `None` when it is no GRUU of ours.
    pub fn read(&self, uri: &Uri<'_>) -> Option<Gruu> {
        let (gr, user) = (uri.parameters.get(b"gr")?, uri.user?);
        if let Some(sealed) = user.strip_prefix(PREFIX) {
            return self.read_temporary(sealed, uri.host);
        }
        let instance = Octets::from(unescaped(gr?)?);
        let aor = AddressOfRecord::from_parts(user, uri.host).ok()?;
        Some(Gruu { aor, device: Device::Public(instance) })
    }

    fn read_temporary(&self, text: &[u8], domain: &[u8]) -> Option<Gruu> {
        let most = VECTOR_BYTES + CONTENT_BYTES_MIN + limits::ADDRESS_OF_RECORD_BYTES_MAX;
        if text.len() > most * 2 {
            return None;
        }
        let mut sealed = base64::read(text)?;
        let content = self.open(&domain.to_ascii_lowercase(), &mut sealed)?;
        let (since, rest) = content.split_first_chunk::<8>()?;
        let (_made, rest) = rest.split_first_chunk::<8>()?;
        let (tag, user) = rest.split_first_chunk::<4>()?;
        let aor = AddressOfRecord::from_parts(user, domain).ok()?;
        let since = WallTime::from_micros(u64::from_be_bytes(*since));
        Some(Gruu { aor, device: Device::Temporary { since, tag: u32::from_be_bytes(*tag) } })
    }

    /// Seals what stands behind the room for the vector, and puts the vector there.
    fn seal(&self, domain: &[u8], sealed: &mut [u8]) {
        let Some((place, content)) = sealed.split_first_chunk_mut::<VECTOR_BYTES>() else { return };
        *place = self.vector_of(domain, content);
        self.apply_stream(place, content);
    }

    /// The content of a seal; `None` when it is none of ours, or of another domain.
    fn open<'a>(&self, domain: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let (vector, content) = sealed.split_first_chunk_mut::<VECTOR_BYTES>()?;
        self.apply_stream(vector, content);
        let is_ours = self.vector_of(domain, content).ct_eq(vector);
        bool::from(is_ours).then_some(&*content)
    }

    fn vector_of(&self, domain: &[u8], content: &[u8]) -> [u8; VECTOR_BYTES] {
        let mut hasher = self.vector;
        hasher.write_u64(u64::try_from(domain.len()).unwrap_or(u64::MAX));
        hasher.write(domain);
        hasher.write(content);
        let mut vector = [0; VECTOR_BYTES];
        for (to, from) in vector.iter_mut().zip(hasher.finish128().as_u128().to_be_bytes()) {
            *to = from;
        }
        vector
    }

    fn apply_stream(&self, vector: &[u8; VECTOR_BYTES], content: &mut [u8]) {
        for (number, block) in (0_u32..).zip(content.chunks_mut(16)) {
            let mut hasher = self.stream;
            hasher.write(vector);
            hasher.write(&number.to_be_bytes());
            for (octet, key) in block.iter_mut().zip(hasher.finish128().as_u128().to_be_bytes()) {
                *octet ^= key;
            }
        }
    }

    /// Tells the devices of a user apart.
    fn tag_of(&self, instance: &[u8]) -> u32 {
        let mut hasher = self.tag;
        if is_uuid(instance) {
            instance.iter().for_each(|octet| hasher.write(&[octet.to_ascii_lowercase()]));
        } else {
            hasher.write(instance);
        }
        u32::try_from(hasher.finish128().as_u128() >> 96).unwrap_or(0)
    }
}

impl fmt::Debug for Gruus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gruus(***)")
    }
}

/// Appends the public GRUU of a contact of `aor`; nothing, and `false`, for one without an instance or with
/// one above `limits::GRUU_INSTANCE_BYTES_MAX` octets.
pub fn write_public(aor: &AddressOfRecord, binding: &Binding, out: &mut Vec<u8>) -> bool {
    let Some(instance) = binding.instance() else { return false };
    let instance = without_brackets(instance);
    if instance.is_empty() || instance.len() > limits::GRUU_INSTANCE_BYTES_MAX {
        return false;
    }
    out.extend_from_slice(aor.as_str().as_bytes());
    out.extend_from_slice(b";gr=");
    for &octet in instance {
        if is_plain(octet) {
            out.push(octet);
        } else {
            out.extend_from_slice(format!("%{octet:02X}").as_bytes());
        }
    }
    true
}

/// Whether a URI is one that [`Gruus::write_temporary`] makes, ours or somebody else's.
pub(crate) fn looks_temporary(uri: &Uri<'_>) -> bool {
    uri.parameters.has(b"gr") && uri.user.is_some_and(|user| user.starts_with(PREFIX))
}

fn without_brackets(instance: &[u8]) -> &[u8] {
    instance.strip_prefix(b"<").and_then(|rest| rest.strip_suffix(b">")).unwrap_or(instance)
}

/// What a URI parameter holds without escape: `paramchar` of RFC 3261 section 25.1.
const fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric()
        || matches!(
            octet,
            b'-' | b'_'
                | b'.'
                | b'!'
                | b'~'
                | b'*'
                | b'\''
                | b'('
                | b')'
                | b'['
                | b']'
                | b'/'
                | b':'
                | b'&'
                | b'+'
                | b'$'
        )
}

/// The text behind the escapes of a URI parameter; `None` when one is cut.
fn unescaped(value: &[u8]) -> Option<Vec<u8>> {
    let hex = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(value.len());
    let mut octets = value.iter().copied();
    while let Some(octet) = octets.next() {
        if octet == b'%' {
            out.push(hex(octets.next()?)? << 4 | hex(octets.next()?)?);
        } else {
            out.push(octet);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        GroupState, Outcome,
        test_support::{START, alice, command, read, register},
    };

    const DESK: &str = "+sip.instance=\"<urn:uuid:F81D4FAE-7dec-11d0-a765-00a0c91e6bf6>\"";
    const CELL: &str = "+sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf7>\"";

    /// Alice's bindings while she registers, and the GRUUs she was given.
    struct Registrar {
        group: GroupState,
        operations: u32,
    }

    impl Registrar {
        fn new() -> Self {
            Self { group: GroupState::new(), operations: 0 }
        }

        /// Registers and returns the temporary GRUU of that contact, `None` when it was removed.
        fn register(&mut self, call_id: &str, contact: &str) -> Option<String> {
            self.operations += 1;
            let request = register(call_id, self.operations, &[&format!("Contact: {contact}")]);
            let now = self.now();
            let outcome = self.group.apply(&command(
                self.operations.into(),
                now,
                read(&request).unwrap().change.unwrap(),
            ));
            let Outcome::Registered { bindings, .. } = outcome else { panic!("{outcome:?}") };
            let uri = contact.split(['<', '>']).nth(1).unwrap();
            let bound = bindings.iter().find(|binding| binding.uri() == uri.as_bytes())?;
            let mut out = Vec::new();
            gruus().write_temporary(&alice(), bound, &bindings, &mut out);
            Some(String::from_utf8(out).unwrap())
        }

        fn now(&self) -> WallTime {
            START + Duration::from_secs(u64::from(self.operations))
        }

        /// The contacts that a GRUU stands for now.
        fn contacts(&self, gruu: &str) -> Vec<String> {
            let gruu = read_gruu(gruu).unwrap();
            let bindings = self.group.lookup(&gruu.aor, self.now());
            let of_gruu = bindings.iter().filter(|binding| gruu.is_of(binding, &gruus()));
            of_gruu.map(|binding| String::from_utf8(binding.uri().to_vec()).unwrap()).collect()
        }
    }

    fn gruus() -> Gruus {
        Gruus::derived_from(&[7; 32])
    }

    fn read_gruu(text: &str) -> Option<Gruu> {
        gruus().read(&Uri::parse(text.as_bytes()).unwrap())
    }

    fn public(instance: &str) -> Option<String> {
        let mut registrar = Registrar::new();
        registrar.register("c", &format!("<sip:a@h1>;+sip.instance=\"{instance}\""));
        let binding = registrar.group.lookup(&alice(), START).remove(0);
        let mut out = Vec::new();
        write_public(&alice(), &binding, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_public_gruu_is_the_address_of_record_with_the_instance() {
        let uuid = public("<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>").unwrap();
        assert_eq!(uuid, "sip:a@example.com;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6");
        assert_eq!(public("<a;b=%\u{e4}>").unwrap(), "sip:a@example.com;gr=a%3Bb%3D%25%C3%A4");
        assert_eq!(public("<>"), None);
        assert_eq!(public(&"x".repeat(limits::GRUU_INSTANCE_BYTES_MAX + 1)), None);
    }

    #[test]
    fn a_public_gruu_stands_for_the_contacts_of_its_instance_and_no_others() {
        let mut registrar = Registrar::new();
        registrar.register("1", &format!("<sip:a@desk>;{DESK}"));
        registrar.register("2", &format!("<sip:a@cell>;{CELL}"));
        registrar.register("3", "<sip:a@plain>");
        let gruu = "sip:A@EXAMPLE.com;gr=urn:uuid:f81d4fae-7DEC-11d0-a765-00a0c91e6bf6".replace('A', "a");

        assert_eq!(registrar.contacts(&gruu), ["sip:a@desk"]);
        registrar.register("1", &format!("<sip:a@desk>;{DESK};expires=0"));
        assert_eq!(registrar.contacts(&gruu), [""; 0]);
        registrar.register("9", &format!("<sip:a@elsewhere>;{DESK}"));
        assert_eq!(registrar.contacts(&gruu), ["sip:a@elsewhere"], "it is good for as long as the account");
    }

    #[test]
    fn temporary_gruus_add_up_while_a_device_registers_with_one_call_id() {
        let mut registrar = Registrar::new();
        let contact = format!("<sip:a@desk>;{DESK}");
        let first = registrar.register("1", &contact).unwrap();
        let second = registrar.register("1", &contact).unwrap();
        let cell = registrar.register("2", &format!("<sip:a@cell>;{CELL}")).unwrap();

        assert!(first != second && second != cell);
        assert!(first.starts_with("sip:tgruu.") && first.ends_with("@example.com;gr"), "{first}");
        assert_eq!(registrar.contacts(&first), ["sip:a@desk"]);
        assert_eq!(registrar.contacts(&second), ["sip:a@desk"]);
        assert_eq!(registrar.contacts(&cell), ["sip:a@cell"]);
        assert!(read_gruu(&first).unwrap().is_temporary());
    }

    #[test]
    fn another_call_id_ends_all_temporary_gruus_of_the_device_and_of_no_other() {
        let mut registrar = Registrar::new();
        let cell = registrar.register("9", &format!("<sip:a@cell>;{CELL}")).unwrap();
        let old = [
            registrar.register("1", &format!("<sip:a@flow1>;{DESK};reg-id=1")).unwrap(),
            registrar.register("2", &format!("<sip:a@flow2>;{DESK};reg-id=2")).unwrap(),
        ];
        for gruu in &old {
            assert_eq!(
                registrar.contacts(gruu),
                ["sip:a@flow2", "sip:a@flow1"],
                "both flows are the device's"
            );
        }

        let new = registrar.register("3", &format!("<sip:a@flow1>;{DESK};reg-id=1")).unwrap();

        for gruu in &old {
            assert_eq!(registrar.contacts(gruu), [""; 0]);
        }
        assert_eq!(registrar.contacts(&new).len(), 2);
        assert_eq!(registrar.contacts(&cell), ["sip:a@cell"]);
    }

    #[test]
    fn a_temporary_gruu_ends_with_the_last_contact_of_its_device_and_does_not_come_back() {
        let mut registrar = Registrar::new();
        let flow = |number: u32| format!("<sip:a@flow{number}>;{DESK};reg-id={number}");
        let gruu = registrar.register("1", &flow(1)).unwrap();
        registrar.register("2", &flow(2));
        registrar.register("1", &format!("{};expires=0", flow(1)));
        assert_eq!(registrar.contacts(&gruu), ["sip:a@flow2"], "one contact is enough");

        registrar.register("2", &format!("{};expires=0", flow(2)));
        assert_eq!(registrar.contacts(&gruu), [""; 0]);
        let new = registrar.register("1", &flow(1)).unwrap();
        assert_eq!(registrar.contacts(&gruu), [""; 0], "not even with the same Call-ID");
        assert_eq!(registrar.contacts(&new), ["sip:a@flow1"]);
    }

    #[test]
    fn everybody_who_has_the_secret_makes_and_reads_the_same_and_nobody_else_can() {
        let mut registrar = Registrar::new();
        let gruu = registrar.register("1", &format!("<sip:a@desk>;{DESK}")).unwrap();
        let user = gruu.split(['.', '@']).nth(1).unwrap();

        assert!(!gruu.contains("sip:a@") && !base64::read(user.as_bytes()).unwrap().ends_with(b"a"));
        assert_eq!(Gruus::derived_from(&[8; 32]).read(&Uri::parse(gruu.as_bytes()).unwrap()), None);
        let mut letters: Vec<char> = user.chars().collect();
        for at in 0..letters.len() {
            let was = letters[at];
            letters[at] = if was == 'A' { 'B' } else { 'A' };
            let forged: String = letters.iter().collect();
            assert_eq!(read_gruu(&gruu.replace(user, &forged)), None, "{at}");
            letters[at] = was;
        }
        assert_eq!(read_gruu(&gruu.replace("example.com", "example.org")), None);
        assert_eq!(read_gruu(&format!("sip:tgruu.{}@example.com;gr", "A".repeat(3_000))), None);
        assert_eq!(read_gruu("sip:a@example.com;gr"), None);
        assert_eq!(read_gruu("sip:a@example.com"), None);
        assert_eq!(read_gruu("sip:tgruu.@example.com;gr"), None);
    }
}
