//! Flow tokens: the user part of our own Route and Path URIs that names the flow a request goes out on.
//!
//! A token holds the far end's and our own address and, for a connection, the flow and the boot it belongs
//! to, under a keyed MAC, so that nobody can aim requests at addresses of his choice. Source: RFC 5626
//! section 5.2.

use std::hash::Hasher;

use model::{Peer, Protocol, ServerName};
use siphasher::sip::SipHasher24;

/// Octets of the MAC at the end of a token.
const MAC_BYTES: usize = 8;
/// Most octets of a token before it is written in hexadecimal: two IPv6 addresses.
const TOKEN_BYTES_MAX: usize = 1 + 4 + 8 + 2 * 19 + MAC_BYTES;

/// Fewest octets of a token: two IPv4 addresses.
const TOKEN_BYTES_MIN: usize = 1 + 4 + 8 + 2 * 7 + MAC_BYTES;

/// First character of a dialog's mark; no hexadecimal digit, so that no flow token begins with it.
const DIALOG_LETTER: char = 'm';
/// Octets of a dialog's mark.
const DIALOG_MARK_BYTES: usize = 17;

/// Makes and reads the tokens of one server.
#[derive(Clone, Debug)]
pub struct FlowTokens {
    key: (u64, u64),
    boot: u32,
}

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFlow {
    /// Send here; for a connection it belongs to this boot, yet it may have closed since.
    Alive(Peer),
    /// The connection belonged to an earlier boot: 430 Flow Failed.
    Gone,
}

/// Keys of a server's own, from the secret that all servers share and its name.
pub fn keys_of_server(secret: &[u8; 32], name: &ServerName) -> (u64, u64) {
    let derive = |label: u64| {
        let (low, high) = secret.split_at(16);
        let half = |bytes: &[u8]| bytes.iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let mut hasher = SipHasher24::new_with_keys(half(low), half(high));
        hasher.write(secret);
        hasher.write_u64(label);
        hasher.write(name.as_str().as_bytes());
        hasher.finish()
    };
    (derive(1), derive(2))
}

impl FlowTokens {
    /// Tokens of a server of the deployment, this one or another, for connections of its `boot`.
    ///
    /// A server that knows a flow of another one from a binding writes the token that the other one reads.
    pub fn of_server(secret: &[u8; 32], name: &ServerName, boot: u64) -> Self {
        Self::new(keys_of_server(secret, name), u32::try_from(boot & 0xffff_ffff).unwrap_or(0))
    }

    /// Tokens under `key`, shared by all boots of this server, for connections of this `boot`.
    pub const fn new(key: (u64, u64), boot: u32) -> Self {
        Self { key, boot }
    }

    /// The mark of a dialog that we are on the path of: what stands in the user part of our Record-Route.
    ///
    /// Who cannot make it cannot have it from anywhere but the dialog itself; so a request that brings it
    /// back is one of that dialog, and needs no credentials.
    pub fn dialog_mark(&self, call_id: &[u8]) -> String {
        let mut hasher = SipHasher24::new_with_keys(self.key.1, self.key.0);
        hasher.write(call_id);
        format!("{DIALOG_LETTER}{:016x}", hasher.finish())
    }

    /// Whether the user part of a Route is the mark of the dialog with this Call-ID, with or without a flow
    /// token.
    pub fn is_of_dialog(&self, user: &[u8], call_id: &[u8]) -> bool {
        user.get(..DIALOG_MARK_BYTES) == Some(self.dialog_mark(call_id).as_bytes())
    }

    /// Whether the user part of a Route has the form of what this server writes there, and not its MAC. Other
    /// user parts are those of phones that write their own name there.
    pub fn is_forged(&self, user: &[u8], call_id: &[u8]) -> bool {
        let is_hex = |text: &[u8]| text.iter().all(u8::is_ascii_hexdigit);
        let mark = user.get(..DIALOG_MARK_BYTES).filter(|mark| mark.first() == Some(&(DIALOG_LETTER as u8)));
        let has_mark = mark.is_some_and(|mark| is_hex(mark.get(1..).unwrap_or_default()))
            && matches!(user.get(DIALOG_MARK_BYTES), None | Some(b'.'));
        if has_mark && !self.is_of_dialog(user, call_id) {
            return true;
        }
        let token = if has_mark { user.get(DIALOG_MARK_BYTES + 1..) } else { Some(user) };
        token.is_some_and(|token| {
            token.len() >= 2 * TOKEN_BYTES_MIN && is_hex(token) && self.read(token).is_none()
        })
    }

    /// The flow token in the user part of a Route, behind the mark of a dialog or alone.
    pub fn token_in(user: &[u8]) -> Option<&[u8]> {
        match user.split_first() {
            Some((&letter, _)) if char::from(letter) == DIALOG_LETTER && user.len() == DIALOG_MARK_BYTES => {
                None
            }
            Some((&letter, _))
                if char::from(letter) == DIALOG_LETTER && user.get(DIALOG_MARK_BYTES) == Some(&b'.') =>
            {
                user.get(DIALOG_MARK_BYTES + 1..)
            }
            Some(_) => Some(user),
            None => None,
        }
    }

    /// Writes the token of a flow: lower-case hexadecimal, at most 118 characters.
    pub fn write(&self, peer: &Peer) -> String {
        let mut bytes = Vec::with_capacity(TOKEN_BYTES_MAX);
        bytes.extend_from_slice(&self.boot.to_be_bytes());
        peer.encode(&mut bytes);
        let mac = self.mac(&bytes);
        bytes.extend_from_slice(&mac);
        to_hex(&bytes)
    }

    /// Reads a token; `None` when it is none of ours.
    pub fn read(&self, token: &[u8]) -> Option<TokenFlow> {
        if token.len() > 2 * TOKEN_BYTES_MAX {
            return None;
        }
        let bytes = from_hex(token)?;
        let (content, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        if self.mac(content) != mac {
            return None;
        }
        let (boot, rest) = content.split_first_chunk::<4>()?;
        let (peer, rest) = Peer::decode(rest)?;
        if !rest.is_empty() {
            return None;
        }
        if peer.protocol != Protocol::Udp && u32::from_be_bytes(*boot) != self.boot {
            return Some(TokenFlow::Gone);
        }
        Some(TokenFlow::Alive(peer))
    }

    fn mac(&self, content: &[u8]) -> [u8; MAC_BYTES] {
        let mut hasher = SipHasher24::new_with_keys(self.key.0, self.key.1);
        hasher.write(content);
        hasher.finish().to_be_bytes()
    }
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |value: u8| DIGITS.get(usize::from(value & 15)).copied().unwrap_or('0');
    bytes.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    text.chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(value(*high)? << 4 | value(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use model::FlowId;

    use super::*;

    fn peer(protocol: Protocol) -> Peer {
        Peer {
            protocol,
            remote: "192.0.2.7:40000".parse().unwrap(),
            local: "[2001:db8::1]:5061".parse().unwrap(),
            flow: FlowId::new(1, 77),
        }
    }

    #[test]
    fn a_token_names_its_flow() {
        let tokens = FlowTokens::new((1, 2), 9);

        let token = tokens.write(&peer(Protocol::Tls));

        assert_eq!(tokens.read(token.as_bytes()), Some(TokenFlow::Alive(peer(Protocol::Tls))));
    }

    #[test]
    fn a_connection_of_an_earlier_boot_is_gone_but_an_address_is_not() {
        let before = FlowTokens::new((1, 2), 9);
        let after = FlowTokens::new((1, 2), 10);

        assert_eq!(after.read(before.write(&peer(Protocol::Tcp)).as_bytes()), Some(TokenFlow::Gone));
        assert_eq!(
            after.read(before.write(&peer(Protocol::Udp)).as_bytes()),
            Some(TokenFlow::Alive(peer(Protocol::Udp)))
        );
    }

    #[test]
    fn the_mark_of_a_dialog_is_good_for_its_call_id_only() {
        let tokens = FlowTokens::new((1, 2), 9);
        let mark = tokens.dialog_mark(b"call-1");
        let both = format!("{mark}.{}", tokens.write(&peer(Protocol::Tls)));

        assert!(tokens.is_of_dialog(mark.as_bytes(), b"call-1"));
        assert!(tokens.is_of_dialog(both.as_bytes(), b"call-1"));
        assert!(!tokens.is_of_dialog(mark.as_bytes(), b"call-2"));
        assert!(!FlowTokens::new((1, 3), 9).is_of_dialog(mark.as_bytes(), b"call-1"));
        assert_eq!(FlowTokens::token_in(mark.as_bytes()), None);
        assert!(tokens.read(FlowTokens::token_in(both.as_bytes()).unwrap()).is_some());
    }

    #[test]
    fn another_server_of_the_deployment_writes_what_the_holder_reads_and_strangers_do_not() {
        let (east, west) = (ServerName::new("east1").unwrap(), ServerName::new("west1").unwrap());
        let holder = FlowTokens::of_server(&[7; 32], &east, 0x1_0000_0009);
        let peer = peer(Protocol::Tls);

        let written = FlowTokens::of_server(&[7; 32], &east, 0x1_0000_0009).write(&peer);
        let of_west = FlowTokens::of_server(&[7; 32], &west, 0x1_0000_0009).write(&peer);
        let of_stranger = FlowTokens::of_server(&[8; 32], &east, 0x1_0000_0009).write(&peer);

        assert_eq!(holder.read(written.as_bytes()), Some(TokenFlow::Alive(peer)));
        assert_eq!(holder.read(of_west.as_bytes()), None);
        assert_eq!(holder.read(of_stranger.as_bytes()), None);
    }

    #[test]
    fn what_looks_like_ours_and_is_not_is_forged_and_the_name_of_a_phone_is_not() {
        let tokens = FlowTokens::new((1, 2), 9);
        let stranger = FlowTokens::new((1, 3), 9);
        let (mark, token) = (tokens.dialog_mark(b"call-1"), tokens.write(&peer(Protocol::Tls)));
        let ours = [mark.clone(), token.clone(), format!("{mark}.{token}")];
        let (false_mark, false_token) =
            (stranger.dialog_mark(b"call-1"), stranger.write(&peer(Protocol::Tls)));
        let forged =
            [format!("{mark}.{false_token}"), format!("{false_mark}.{token}"), false_mark, false_token];

        assert!(ours.iter().all(|user| !tokens.is_forged(user.as_bytes(), b"call-1")));
        assert!(forged.iter().all(|user| tokens.is_forged(user.as_bytes(), b"call-1")));
        for name in ["", "m", "alice", "4711", "abcdef", "m-and-a-long-name-of-17", "mallory-0123456789.x"] {
            assert!(!tokens.is_forged(name.as_bytes(), b"call-1"), "{name}");
        }
    }

    #[test]
    fn a_forged_or_damaged_token_is_none_of_ours() {
        let tokens = FlowTokens::new((1, 2), 9);
        let foreign = FlowTokens::new((1, 3), 9).write(&peer(Protocol::Udp));
        let own = tokens.write(&peer(Protocol::Udp));

        assert_eq!(tokens.read(foreign.as_bytes()), None);
        assert_eq!(tokens.read(&own.as_bytes()[..own.len() - 2]), None);
        assert_eq!(tokens.read(b"zz"), None);
        assert_eq!(tokens.read(b""), None);
    }
}
