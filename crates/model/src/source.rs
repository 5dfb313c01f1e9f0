//! Who sends, as far as the network says: what nonces are bound to, and what offences are counted by.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Serialize, Serializer};

/// Bits of an IPv6 address that belong to one subscriber: within his /64 he has all addresses, and his phones
/// change them from day to day.
const SUBSCRIBER_BITS: u8 = 64;
/// Bits before an IPv4 address that is mapped into IPv6.
const MAPPED_BITS: u8 = 96;

/// Where something came from: an IPv4 address, or the /64 of an IPv6 address.
///
/// An IPv4 address that is mapped into IPv6 is the IPv4 address. Link-local and loopback addresses of IPv6
/// stand for themselves, since all of them share one /64. The port is left out: NATs change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(IpAddr);

impl Source {
    /// The source that an address belongs to.
    pub const fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(IpAddr::V4(v4)),
            IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_loopback() => Self(IpAddr::V6(v6)),
            IpAddr::V6(v6) => Self(IpAddr::V6(first_bits(v6, SUBSCRIBER_BITS))),
        }
    }

    /// The address, or the first one of the /64.
    pub const fn address(self) -> IpAddr {
        self.0
    }

    /// Hands over the octets that tell it from every other one.
    pub fn feed(self, mut take: impl FnMut(&[u8])) {
        match self.0 {
            IpAddr::V4(v4) => take(&v4.octets()),
            IpAddr::V6(v6) => take(&v6.octets()),
        }
    }
}

impl fmt::Display for Source {
    /// `192.0.2.1`, `2001:db8:1:2::/64` or `fe80::1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(v6) if !v6.is_unicast_link_local() && !v6.is_loopback() => {
                write!(f, "{v6}/{SUBSCRIBER_BITS}")
            }
            IpAddr::V4(_) | IpAddr::V6(_) => write!(f, "{}", self.0),
        }
    }
}

/// Why a text is neither an address nor a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// What stands before the slash is no IP address.
    #[error("not an IP address")]
    Address,
    /// What stands behind the slash is no length of a prefix of this kind of address.
    #[error("the length of the prefix is not 0 to 32, or 128 for IPv6")]
    Length,
    /// Bits are set behind the prefix.
    #[error("the address has bits behind the prefix")]
    Rest,
    /// The network is not one whole source.
    #[error("not one source: give an IPv4 address, an IPv6 address or the /64 of one")]
    Source,
}

impl FromStr for Source {
    type Err = NetworkError;

    /// Reads an address of the source, or the source as it is printed.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let network: IpNetwork = text.parse()?;
        let source = Self::of(network.address);
        match (text.contains('/'), source.0) {
            (false, _) => Ok(source),
            (true, IpAddr::V4(_)) if network.bits == 32 => Ok(source),
            (true, IpAddr::V6(v6)) if v6 == network.address && network.bits == SUBSCRIBER_BITS => Ok(source),
            (true, IpAddr::V4(_) | IpAddr::V6(_)) => Err(NetworkError::Source),
        }
    }
}

/// A network: an address and how many of its bits count, as in `192.0.2.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpNetwork {
    address: IpAddr,
    bits: u8,
}

impl IpNetwork {
    /// The network of this one address.
    pub const fn of_address(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let bits = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self { address, bits }
    }

    /// Whether an address is in it; an IPv4 address mapped into IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => own == first_bits_of_ipv4(other, self.bits),
            (IpAddr::V6(own), IpAddr::V6(other)) => own == first_bits(other, self.bits),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether it has every address of its kind.
    pub const fn is_everything(&self) -> bool {
        self.bits == 0
    }

    /// Whether it has an address in common with a source.
    pub fn touches(&self, source: Source) -> bool {
        self.contains(source.address()) || Source::of(self.address) == source
    }
}

impl fmt::Display for IpNetwork {
    /// The address alone where the network is one address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::of_address(self.address) {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.bits)
        }
    }
}

impl Serialize for IpNetwork {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for IpNetwork {
    type Err = NetworkError;

    /// Reads `ADDRESS` or `ADDRESS/BITS`; behind the prefix all bits are 0.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let whole = Self::of_address(address);
        let Some(bits) = bits else { return Ok(whole) };
        let is_number = !bits.is_empty() && bits.bytes().all(|octet| octet.is_ascii_digit());
        let bits: u8 = bits.parse().ok().filter(|_| is_number).ok_or(NetworkError::Length)?;
        let (address, bits) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(v4)) if bits <= 128 => {
                (IpAddr::V4(v4), bits.checked_sub(MAPPED_BITS).ok_or(NetworkError::Rest)?)
            }
            (address, _) => (address, bits),
        };
        let (longest, first) = match address {
            IpAddr::V4(v4) => (32, IpAddr::V4(first_bits_of_ipv4(v4, bits))),
            IpAddr::V6(v6) => (128, IpAddr::V6(first_bits(v6, bits))),
        };
        match (bits <= longest, first == address) {
            (false, _) => Err(NetworkError::Length),
            (true, false) => Err(NetworkError::Rest),
            (true, true) => Ok(Self { address, bits }),
        }
    }
}

/// An address with all bits behind the first `bits` set to 0.
const fn first_bits_of_ipv4(address: Ipv4Addr, bits: u8) -> Ipv4Addr {
    let rest = 32_u32.saturating_sub(bits as u32);
    if rest >= 32 { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::from_bits(address.to_bits() >> rest << rest) }
}

/// An address with all bits behind the first `bits` set to 0.
const fn first_bits(address: Ipv6Addr, bits: u8) -> Ipv6Addr {
    let rest = 128_u32.saturating_sub(bits as u32);
    if rest >= 128 { Ipv6Addr::UNSPECIFIED } else { Ipv6Addr::from_bits(address.to_bits() >> rest << rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn ipv6_addresses_of_one_subscriber_are_one_source() {
        assert_eq!(source("2001:db8:1:2::7"), source("2001:db8:1:2:ffff::1"));
        assert_ne!(source("2001:db8:1:2::7"), source("2001:db8:1:3::7"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }

    #[test]
    fn a_mapped_ipv4_address_is_the_ipv4_address() {
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert!(network("192.0.2.0/24").contains("::ffff:192.0.2.9".parse().unwrap()));
    }

    #[test]
    fn machines_on_one_link_are_sources_of_their_own() {
        assert_ne!(source("fe80::1"), source("fe80::2"));
        assert_ne!(source("::1"), source("::2"));
    }

    #[test]
    fn a_source_is_read_as_it_is_printed_and_by_any_of_its_addresses() {
        for text in ["192.0.2.1", "2001:db8:1:2::/64", "fe80::1"] {
            let read: Source = text.parse().unwrap();
            assert_eq!(read.to_string(), text);
        }
        assert_eq!("2001:db8:1:2::9".parse(), Ok(source("2001:db8:1:2::1")));
        assert_eq!("192.0.2.1/32".parse(), Ok(source("192.0.2.1")));
        for text in ["192.0.2.0/24", "2001:db8::/32", "2001:db8:1:2::/65"] {
            assert_eq!(text.parse::<Source>(), Err(NetworkError::Source), "{text}");
        }
    }

    #[test]
    fn a_network_has_the_addresses_of_its_prefix_and_no_other() {
        for (text, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("128.0.0.0/1", "192.0.2.1", "127.255.255.255"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("2001:db8::7", "2001:db8::7", "2001:db8::8"),
            ("::ffff:192.0.2.0/120", "192.0.2.255", "192.0.3.0"),
        ] {
            assert!(network(text).contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!network(text).contains(outside.parse().unwrap()), "{text} {outside}");
        }
    }

    #[test]
    fn a_network_that_says_too_much_or_too_little_is_refused() {
        for (text, error) in [
            ("", NetworkError::Address),
            ("example.com", NetworkError::Address),
            ("192.0.2.1:5060", NetworkError::Address),
            ("192.0.2.0/33", NetworkError::Length),
            ("192.0.2.0/", NetworkError::Length),
            ("192.0.2.0/+8", NetworkError::Length),
            ("2001:db8::/129", NetworkError::Length),
            ("192.0.2.1/24", NetworkError::Rest),
            ("192.0.2.1/0", NetworkError::Rest),
            ("2001:db8::1/64", NetworkError::Rest),
        ] {
            assert_eq!(text.parse::<IpNetwork>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_network_touches_the_source_that_it_is_a_part_of() {
        let subscriber = source("2001:db8:1:2::9");
        assert!(network("2001:db8:1:2::7").touches(subscriber));
        assert!(network("2001:db8::/32").touches(subscriber));
        assert!(!network("2001:db8:1:3::/64").touches(subscriber));
    }
}
