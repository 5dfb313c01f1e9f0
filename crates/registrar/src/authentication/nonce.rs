//! Nonces that need no memory: time and salt under a keyed MAC over both, the realm and who asked.
//!
//! Who answers a nonce that was made for the address he sends from has received it there. That is what makes
//! offences over UDP, where anybody can write any address into a datagram, offences of that address.

use std::{fmt, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use model::{Source, WallTime, limits};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::NonceUse;

/// Octets of the time of issue, in seconds.
const TIME_BYTES: usize = 4;
/// Octets of the salt, which makes nonces of one second differ.
const SALT_BYTES: usize = 7;
/// Octets kept of the MAC: half, the least that RFC 2104 section 5 advises.
const MAC_BYTES: usize = 16;
/// Octets of a nonce.
const NONCE_BYTES: usize = TIME_BYTES + SALT_BYTES + MAC_BYTES;
/// Characters of a nonce; three octets make four, without a rest.
pub(super) const NONCE_CHARACTERS: usize = NONCE_BYTES / 3 * 4;
/// Keeps this use of the key apart from others, and rises with the format.
const DOMAIN: &[u8] = b"nonce 2";

/// The key of the nonces, shared by all servers of a pool and its partner.
#[derive(Clone)]
pub struct NonceKey([u8; 32]);

impl NonceKey {
    /// A key drawn from the operating system's generator.
    pub const fn new(octets: [u8; 32]) -> Self {
        Self(octets)
    }
}

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(***)")
    }
}

/// Makes and opens nonces.
#[derive(Clone)]
pub(super) struct Nonces {
    current: Hmac<Sha256>,
    previous: Option<Hmac<Sha256>>,
}

/// A nonce that one of our keys made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonce {
    issued_at_s: u32,
    salt: u64,
}

impl Nonces {
    pub(super) fn new(key: &NonceKey, previous: Option<&NonceKey>) -> Self {
        Self { current: keyed(key), previous: previous.map(keyed) }
    }

    /// A new nonce for this realm, to be sent to `source`; `chance` is 64 random bits.
    pub(super) fn issue(
        &self,
        now: WallTime,
        chance: u64,
        realm: &[u8],
        source: Source,
    ) -> [u8; NONCE_CHARACTERS] {
        let mut octets = [0; NONCE_BYTES];
        let time = u32::try_from(now.as_secs()).unwrap_or(u32::MAX).to_be_bytes();
        let salt = chance.to_be_bytes();
        for (to, from) in octets.iter_mut().zip(time.into_iter().chain(salt.into_iter().take(SALT_BYTES))) {
            *to = from;
        }
        let (head, mac) = octets.split_at_mut(TIME_BYTES + SALT_BYTES);
        mac.copy_from_slice(&mac_of(&self.current, head, realm, source));
        encode(&octets)
    }

    /// Reads a nonce; `None` when no key of ours made it for this realm and this source.
    pub(super) fn open(&self, text: &[u8], realm: &[u8], source: Source) -> Option<Nonce> {
        let octets = decode(text)?;
        let (head, mac) = octets.split_at(TIME_BYTES + SALT_BYTES);
        let is_ours = |key: &Hmac<Sha256>| bool::from(mac_of(key, head, realm, source).ct_eq(mac));
        if !is_ours(&self.current) && !self.previous.as_ref().is_some_and(is_ours) {
            return None;
        }
        let (time, salt) = head.split_first_chunk::<TIME_BYTES>()?;
        let salt = salt.iter().fold(0, |salt, &octet| salt << 8 | u64::from(octet));
        Some(Nonce { issued_at_s: u32::from_be_bytes(*time), salt })
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces(***)")
    }
}

impl Nonce {
    /// Whether it is neither too old nor from further ahead than clocks may differ.
    pub(super) fn is_alive(self, now: WallTime, lifetime: Duration) -> bool {
        let issued_at = WallTime::from_secs(u64::from(self.issued_at_s));
        issued_at <= now + limits::CLOCK_SKEW_MAX && now <= issued_at + lifetime
    }

    /// Whether more than half its lifetime is over.
    pub(super) fn is_ageing(self, now: WallTime, lifetime: Duration) -> bool {
        now.saturating_since(WallTime::from_secs(u64::from(self.issued_at_s))) > lifetime / 2
    }

    /// One use of it.
    pub(super) const fn used(self, count: u32) -> NonceUse {
        NonceUse { salt: self.salt, issued_at_s: self.issued_at_s, count }
    }
}

fn keyed(key: &NonceKey) -> Hmac<Sha256> {
    Hmac::new_from_slice(&key.0).expect("invariant: HMAC takes keys of any length")
}

/// The realm comes last, because it alone may be of any length; what stands before it begins with the time
/// and ends with an address of one of two lengths, told apart by the octet before it.
fn mac_of(key: &Hmac<Sha256>, head: &[u8], realm: &[u8], source: Source) -> [u8; MAC_BYTES] {
    let mut mac = key.clone();
    mac.update(DOMAIN);
    mac.update(head);
    mac.update(&[u8::from(source.address().is_ipv6())]);
    source.feed(|octets| mac.update(octets));
    mac.update(realm);
    let mut kept = [0; MAC_BYTES];
    for (to, from) in kept.iter_mut().zip(mac.finalize().into_bytes()) {
        *to = from;
    }
    kept
}

/// Base64 in the alphabet that needs no quoting anywhere (RFC 4648 section 5), without padding.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encode(octets: &[u8; NONCE_BYTES]) -> [u8; NONCE_CHARACTERS] {
    let mut text = [0; NONCE_CHARACTERS];
    for (four, three) in text.chunks_exact_mut(4).zip(octets.chunks_exact(3)) {
        let bits = three.iter().fold(0_u32, |bits, &octet| bits << 8 | u32::from(octet));
        for (character, shift) in four.iter_mut().zip([18, 12, 6, 0]) {
            let at = usize::try_from(bits >> shift & 63).unwrap_or(0);
            *character = ALPHABET.get(at).copied().unwrap_or(b'A');
        }
    }
    text
}

fn decode(text: &[u8]) -> Option<[u8; NONCE_BYTES]> {
    if text.len() != NONCE_CHARACTERS {
        return None;
    }
    let mut octets = [0; NONCE_BYTES];
    for (three, four) in octets.chunks_exact_mut(3).zip(text.chunks_exact(4)) {
        let mut bits = 0_u32;
        for &character in four {
            bits = bits << 6 | u32::from(sextet(character)?);
        }
        let [_, high, middle, low] = bits.to_be_bytes();
        three.copy_from_slice(&[high, middle, low]);
    }
    Some(octets)
}

const fn sextet(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime::from_secs(1_700_000_000);
    const REALM: &[u8] = b"example.com";

    fn here() -> Source {
        Source::of("192.0.2.17".parse().unwrap())
    }

    fn nonces(key: u8) -> Nonces {
        Nonces::new(&NonceKey::new([key; 32]), None)
    }

    #[test]
    fn a_nonce_opens_on_every_server_with_the_key_and_nowhere_else() {
        let text = nonces(1).issue(NOW, u64::MAX, REALM, here());

        let nonce = nonces(1).open(&text, REALM, here()).unwrap();

        assert_eq!(nonce, Nonce { issued_at_s: 1_700_000_000, salt: u64::MAX >> 8 });
        assert_eq!(nonces(2).open(&text, REALM, here()), None);
        assert_eq!(nonces(1).open(&text, b"example.org", here()), None);
        let rotated = Nonces::new(&NonceKey::new([2; 32]), Some(&NonceKey::new([1; 32])));
        assert_eq!(rotated.open(&text, REALM, here()), Some(nonce));
    }

    #[test]
    fn a_nonce_is_good_for_the_source_it_was_sent_to_alone() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        for (own, same, other) in [
            ("192.0.2.17", "::ffff:192.0.2.17", "192.0.2.18"),
            ("2001:db8:1:2::7", "2001:db8:1:2:8000::1", "2001:db8:1:3::7"),
            ("fe80::1", "fe80::1", "fe80::2"),
            ("192.0.2.17", "192.0.2.17", "c000:211::"),
        ] {
            let text = nonces(1).issue(NOW, 7, REALM, of(own));

            assert!(nonces(1).open(&text, REALM, of(same)).is_some(), "{own} {same}");
            assert!(nonces(1).open(&text, REALM, of(other)).is_none(), "{own} {other}");
        }
    }

    #[test]
    fn no_character_of_a_nonce_can_be_changed() {
        let text = nonces(1).issue(NOW, 7, REALM, here());
        for at in 0..text.len() {
            for character in [b'A', b'_', b'"', b'=', 0xff] {
                let mut changed = text;
                changed[at] = character;
                assert!(changed == text || nonces(1).open(&changed, REALM, here()).is_none());
            }
        }
        assert_eq!(nonces(1).open(&text[..35], REALM, here()), None);
        assert_eq!(nonces(1).open(b"", REALM, here()), None);
    }

    #[test]
    fn a_nonce_lives_from_a_skew_before_its_issue_to_the_end_of_its_lifetime() {
        let lifetime = Duration::from_secs(300);
        let nonce = Nonce { issued_at_s: 1_700_000_000, salt: 0 };
        let at = |seconds: u64| nonce.is_alive(WallTime::from_secs(seconds), lifetime);

        assert!(at(1_700_000_000) && at(1_700_000_300) && at(1_699_999_970));
        assert!(!at(1_700_000_301) && !at(1_699_999_969));
    }
}
