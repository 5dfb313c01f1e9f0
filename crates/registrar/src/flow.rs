//! The network flow that a phone registered over, so that requests reach it the same way.

use std::net::SocketAddr;

use model::{FlowId, Peer, Protocol, ServerName};
use serde::{Deserialize, Serialize};

/// A flow of one boot of one server. Source: RFC 5626 section 6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// The server that holds the flow.
    pub server: ServerName,
    /// The boot of that server: a connection of another boot is gone.
    pub boot: u64,
    /// The flow inside that boot.
    #[serde(with = "flow_number")]
    pub flow: FlowId,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The phone's address as we saw it.
    pub remote: SocketAddr,
    /// Our address on the flow.
    pub local: SocketAddr,
}

impl FlowRecord {
    /// The same, borrowed.
    pub fn view(&self) -> FlowView<'_> {
        FlowView {
            server: self.server.as_str(),
            boot: self.boot,
            peer: Peer { protocol: self.protocol, remote: self.remote, local: self.local, flow: self.flow },
        }
    }
}

/// A [`FlowRecord`] read from a binding without allocating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowView<'a> {
    /// Name of the server that holds the flow.
    pub server: &'a str,
    /// The boot of that server.
    pub boot: u64,
    /// Both ends and the flow inside that boot.
    pub peer: Peer,
}

impl FlowView<'_> {
    /// The same, owned; `None` when the server's name is none, which only corruption brings about.
    pub fn to_record(self) -> Option<FlowRecord> {
        let Peer { protocol, remote, local, flow } = self.peer;
        Some(FlowRecord {
            server: ServerName::new(self.server).ok()?,
            boot: self.boot,
            flow,
            protocol,
            remote,
            local,
        })
    }

    /// Appends the compact form: 30 octets and the server's name when both addresses are IPv4, never empty.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.boot.to_be_bytes());
        self.peer.encode(out);
        out.extend_from_slice(self.server.as_bytes());
    }
}

impl<'a> FlowView<'a> {
    /// Reads the compact form; `None` when it is none.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (boot, rest) = bytes.split_first_chunk::<8>()?;
        let (peer, rest) = Peer::decode(rest)?;
        let server = std::str::from_utf8(rest).ok()?;
        Some(Self { server, boot: u64::from_be_bytes(*boot), peer })
    }
}

mod flow_number {
    use model::FlowId;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(flow: &FlowId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(flow.number())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FlowId, D::Error> {
        u64::deserialize(deserializer).map(FlowId::from_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(protocol: Protocol, remote: &str, local: &str) -> FlowRecord {
        FlowRecord {
            server: ServerName::new("east1").unwrap(),
            boot: 7,
            flow: FlowId::new(3, 99),
            protocol,
            remote: remote.parse().unwrap(),
            local: local.parse().unwrap(),
        }
    }

    #[test]
    fn a_flow_is_the_same_after_its_compact_form() {
        for (protocol, remote, local) in [
            (Protocol::Udp, "192.0.2.17:5060", "192.0.2.1:5060"),
            (Protocol::Wss, "[2001:db8::1]:50000", "[2001:db8::2]:443"),
        ] {
            let record = record(protocol, remote, local);
            let mut bytes = Vec::new();
            record.view().encode(&mut bytes);

            assert_eq!(FlowView::decode(&bytes).unwrap().to_record().unwrap(), record);
        }
    }

    #[test]
    fn a_cut_compact_form_is_no_flow() {
        let mut bytes = Vec::new();
        record(Protocol::Tcp, "192.0.2.17:5060", "[::1]:5060").view().encode(&mut bytes);

        for end in 0..bytes.len() - "east1".len() {
            assert_eq!(FlowView::decode(&bytes[..end]), None);
        }
    }
}
