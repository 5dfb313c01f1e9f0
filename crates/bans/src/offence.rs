//! What a source can do wrong, and how it is known that it was this source.

use std::fmt;

use model::Protocol;

/// What a source did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Offence {
    /// A password that is wrong, or one for a user who does not exist.
    WrongCredentials,
    /// The right password, to act in the name of another user.
    ForeignName,
    /// A stream that cannot be read on, or a WebSocket that breaks its protocol.
    MalformedStream,
    /// A connection that was opened and on which no whole message came in time.
    Stalled,
    /// A Route with a flow token or dialog mark that this server did not write.
    ForgedRoute,
}

impl Offence {
    /// Its name in lists and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WrongCredentials => "wrong_credentials",
            Self::ForeignName => "foreign_name",
            Self::MalformedStream => "malformed_stream",
            Self::Stalled => "stalled",
            Self::ForgedRoute => "forged_route",
        }
    }
}

/// How it is known that an offence came from the address that it seems to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proof {
    /// It came over a connection: its handshake needed answers from there.
    Connection,
    /// It answers a nonce that was sent there.
    Nonce,
    /// Not at all: an address in a datagram is what its sender wrote.
    None,
}

impl Proof {
    /// What the transport alone proves. A WebSocket proves nothing: any page that somebody looks at can open
    /// one and send what it likes, from his address.
    pub const fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Udp | Protocol::Ws | Protocol::Wss => Self::None,
            Protocol::Tcp | Protocol::Tls => Self::Connection,
        }
    }
}

/// Why a source is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The last of too many offences.
    Offence(Offence),
    /// An operator wanted it.
    Operator,
}

impl Cause {
    /// Its name in lists and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offence(offence) => offence.name(),
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
