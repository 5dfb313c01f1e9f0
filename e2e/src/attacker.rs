//! Somebody who means no good, at an address of his own: guesses passwords, and uses nonces of others.

use std::{
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::{Message, digest::Challenge, phone::fresh};

/// How long an answer is waited for before it is called silence: several round trips inside one machine, and
/// no more than a server under load needs.
const SILENCE: Duration = Duration::from_secs(2);

/// One address that sends datagrams to one server.
#[derive(Debug)]
pub struct Attacker {
    socket: UdpSocket,
    local: SocketAddr,
}

/// A challenge that a server sent, to be answered from anywhere.
#[derive(Clone, Debug)]
pub struct Asked {
    challenge: Challenge,
    /// Whether it says `stale=true`.
    pub is_stale: bool,
}

impl Asked {
    /// The Authorization value of a REGISTER with this user name and password.
    pub fn authorization(&mut self, user: &str, password: &str) -> String {
        self.challenge.answer(user, password, "REGISTER", "sip:example.com")
    }

    /// Whether an Authentication-Info of the answer to that proves that the server knows the password too.
    pub fn is_proved_by(&self, info: &str, user: &str, password: &str) -> bool {
        self.challenge.is_proved_by(info, user, password, "sip:example.com")
    }
}

impl Attacker {
    /// Sends from a port of `local` to `server`.
    ///
    /// Errors: the address is not of this machine.
    pub fn new(local: &str, server: SocketAddr) -> Result<Self> {
        let ip: IpAddr = local.parse()?;
        let socket = UdpSocket::bind((ip, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(SILENCE))?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    /// Its socket, to send anything.
    pub const fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// A REGISTER of `user` with these further lines, each ended by CRLF.
    pub fn register(&self, user: &str, lines: &str) -> String {
        let (local, fresh) = (self.local, fresh());
        format!(
            "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{fresh};rport\r\n\
             From: <sip:{user}@example.com>;tag=x\r\nTo: <sip:{user}@example.com>\r\nCall-ID: {fresh}\r\n\
             CSeq: 1 REGISTER\r\nMax-Forwards: 70\r\nContact: <sip:{user}@{local}>\r\nExpires: 60\r\n{lines}\
             Content-Length: 0\r\n\r\n"
        )
    }

    /// Sends and waits for the final response that belongs to it; `None`: silence.
    ///
    /// Errors: the socket fails.
    pub fn ask(&self, request: &str) -> Result<Option<Message>> {
        let own = |message: &Message| {
            message.header("Call-ID").is_some_and(|id| request.contains(&format!("Call-ID: {id}\r\n")))
        };
        self.socket.send(request.as_bytes())?;
        let mut buffer = vec![0; 65_536];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let message = Message::read(buffer.get(..length).unwrap_or_default()).map(|(message, _)| message);
            let is_final = |message: &Message| message.status().is_some_and(|status| status >= 200);
            if let Some(message) = message.filter(|message| is_final(message) && own(message)) {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Asks for a challenge; `None`: silence.
    ///
    /// Errors: the answer is another one.
    pub fn challenge(&self, user: &str) -> Result<Option<Asked>> {
        self.ask(&self.register(user, ""))?.map(|answer| Self::asked(&answer)).transpose()
    }

    /// The challenge in an answer.
    ///
    /// Errors: it is none.
    pub fn asked(answer: &Message) -> Result<Asked> {
        let values = || answer.lines("WWW-Authenticate");
        let challenge = Challenge::choose(values(), true).with_context(|| format!("{answer:?}"))?;
        Ok(Asked { challenge, is_stale: values().any(|value| value.contains("stale=true")) })
    }

    /// Registers with a password and the nonce of `asked`; `None`: silence.
    ///
    /// Errors: the socket fails.
    pub fn answer(&self, asked: &mut Asked, user: &str, password: &str) -> Result<Option<Message>> {
        let value = asked.authorization(user, password);
        self.ask(&self.register(user, &format!("Authorization: {value}\r\n")))
    }

    /// Asks for a challenge and answers it; the status, `None`: silence.
    ///
    /// Errors: the socket fails, or the first answer is no challenge.
    pub fn guess(&self, user: &str, password: &str) -> Result<Option<u16>> {
        let Some(mut asked) = self.challenge(user)? else { return Ok(None) };
        Ok(self.answer(&mut asked, user, password)?.and_then(|answer| answer.status()))
    }
}

/// A connection from an address of this machine.
///
/// Errors: the address is not of this machine, or nobody listens.
pub fn connect_from(local: &str, server: SocketAddr) -> Result<TcpStream> {
    let ip: IpAddr = local.parse()?;
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let connection = socket(family, SocketType::STREAM, None)?;
    bind(&connection, &SocketAddr::new(ip, 0))?;
    connect(&connection, &server)?;
    Ok(TcpStream::from(connection))
}
