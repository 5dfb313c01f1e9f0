//! Where messages come from and go to, in words that machines can share.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ServerName;

/// Transport protocol of SIP. Source: RFC 3261 section 18, RFC 7118 for the WebSocket ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Datagrams; retransmission is ours.
    Udp,
    /// A stream.
    Tcp,
    /// A stream under TLS.
    Tls,
    /// WebSocket.
    Ws,
    /// WebSocket under TLS.
    Wss,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Tls, Self::Ws, Self::Wss];

    /// Its number in compact forms; never changes.
    const fn number(self) -> u8 {
        match self {
            Self::Udp => 1,
            Self::Tcp => 2,
            Self::Tls => 3,
            Self::Ws => 4,
            Self::Wss => 5,
        }
    }

    /// Whether it is over TLS.
    pub const fn is_secure(self) -> bool {
        match self {
            Self::Tls | Self::Wss => true,
            Self::Udp | Self::Tcp | Self::Ws => false,
        }
    }

    /// Whether the transport delivers or reports; decides retransmission timers (RFC 3261 section 17).
    pub const fn is_reliable(self) -> bool {
        match self {
            Self::Udp => false,
            Self::Tcp | Self::Tls | Self::Ws | Self::Wss => true,
        }
    }

    /// The token in a Via header.
    pub const fn via_token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// The value of a `transport` URI parameter; that of a secure WebSocket is the one of the plain (RFC 7118
    /// section 5.2).
    pub const fn uri_token(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws | Self::Wss => "ws",
        }
    }

    /// The port where a URI or a Via names none. Source: RFC 3261 section 19.1.2, RFC 7118 section 5.5.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }

    /// Its name: in configuration, logs and errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One flow of one process: a connection, or the UDP socket of one shard. The upper 16 bits are the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(u64);

impl FlowId {
    /// The flow with this serial number on this shard. Serial 0 is the shard's UDP socket.
    pub const fn new(shard: u16, serial: u64) -> Self {
        Self((shard as u64) << 48 | serial & 0xffff_ffff_ffff)
    }

    /// The flow with this number, as printed by [`Self::number`].
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The number, for flow tokens and logs.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The shard that holds the flow.
    pub const fn shard(self) -> u16 {
        (self.0 >> 48 & 0xffff) as u16
    }
}

/// The far end of a flow, and the local address it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address of the far end.
    pub remote: SocketAddr,
    /// Our address on this flow.
    pub local: SocketAddr,
    /// The flow.
    pub flow: FlowId,
}

impl Peer {
    /// Appends the compact form: 23 octets when both addresses are IPv4.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.protocol.number());
        out.extend_from_slice(&self.flow.number().to_be_bytes());
        encode_address(self.remote, out);
        encode_address(self.local, out);
    }

    /// Reads the compact form and returns what follows it; `None` when it is none.
    pub fn decode(octets: &[u8]) -> Option<(Self, &[u8])> {
        let (&protocol, rest) = octets.split_first()?;
        let protocol = Protocol::ALL.into_iter().find(|known| known.number() == protocol)?;
        let (flow, rest) = rest.split_first_chunk::<8>()?;
        let (remote, rest) = decode_address(rest)?;
        let (local, rest) = decode_address(rest)?;
        let flow = FlowId::from_number(u64::from_be_bytes(*flow));
        Some((Self { protocol, remote, local, flow }, rest))
    }
}

fn encode_address(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

fn decode_address(octets: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (&version, rest) = octets.split_first()?;
    let (ip, rest) = match version {
        4 => rest.split_first_chunk::<4>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
        6 => rest.split_first_chunk::<16>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}

/// Where a request goes next; `node` turns it into a [`Peer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Over a flow that exists: a registered connection or the socket a datagram came from.
    Flow(Peer),
    /// To an address, over a connection that may have to be made.
    Address {
        /// Transport protocol.
        protocol: Protocol,
        /// Where to.
        remote: SocketAddr,
    },
    /// To a server of the topology, over mutual TLS.
    Server(ServerName),
    /// To a host that was looked up: one place after the other, until one answers (RFC 3263 section 4.3).
    Host {
        /// The host name in lower case, which a certificate must carry.
        name: Arc<str>,
        /// Where its servers are, in the order in which they are tried; never empty.
        places: Arc<[Place]>,
    },
}

/// An address to send to, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Where to.
    pub remote: SocketAddr,
}

/// What a request that leaves over one next hop says about us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// `SIP/2.0/UDP host:port`, the Via up to the branch parameter.
    pub via: Bytes,
    /// `<sip:host:port;transport=udp;lr>`, what Record-Route says, flow token included where one is needed.
    pub record_route: Bytes,
}

/// A server transaction of one shard; unique until the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerTransaction(pub u64);

/// A client transaction of one shard; unique until the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientTransaction(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_the_same_after_its_compact_form_and_a_cut_one_is_none() {
        for (protocol, remote, local) in [
            (Protocol::Udp, "192.0.2.17:5060", "192.0.2.1:5060"),
            (Protocol::Wss, "[2001:db8::1]:50000", "[2001:db8::2]:443"),
        ] {
            let (remote, local) = (remote.parse().unwrap(), local.parse().unwrap());
            let peer = Peer { protocol, remote, local, flow: FlowId::new(3, 99) };
            let mut octets = Vec::new();
            peer.encode(&mut octets);

            assert_eq!(Peer::decode(&octets), Some((peer, &[][..])));
            for end in 0..octets.len() {
                assert_eq!(Peer::decode(&octets[..end]), None);
            }
        }
    }
}
