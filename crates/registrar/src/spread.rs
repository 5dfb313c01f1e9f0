//! Hashing of what is random already.

use std::hash::Hasher;

/// Spreads keys over all bits of a hash that nobody can choose: salts that we draw, and operation ids, which
/// are random numbers or hashes under a secret key. So nobody can make keys that meet in a table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for &octet in octets {
            self.write_u64(u64::from(octet));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u128(&mut self, number: u128) {
        let [high, low] = [number >> 64, number & u128::from(u64::MAX)];
        self.write_u64(u64::try_from(high ^ low).unwrap_or_default());
    }
}
