//! The test phone's way to a server: UDP, TCP, TLS through `openssl s_client`, an implementation not ours, or
//! a secure WebSocket.

use std::{
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{Message, websocket::WebSocketSender};

const NO_AUTHORITY: &str = "a phone that speaks TLS needs the certificate authority's file";

/// Transport of a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS.
    Tls,
    /// WebSocket over TLS.
    Wss,
}

impl Via {
    /// The token of the Via header.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Wss => "WSS",
        }
    }

    /// The value of the `transport` parameter.
    pub const fn parameter(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            // RFC 7118 section 5.2.
            Self::Wss => "ws",
        }
    }
}

/// An open way to a server.
#[derive(Debug)]
pub(crate) enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls { input: Mutex<ChildStdin>, process: Mutex<Child> },
    Wss(WebSocketSender),
}

impl Socket {
    /// Opens a way from `local` to `server`, and gives every message that arrives to `deliver` in a thread of
    /// its own. Returns the socket and the address a Contact names.
    pub(crate) fn open(
        via: Via,
        local: IpAddr,
        server: SocketAddr,
        authority: Option<&Path>,
    ) -> Result<(Self, SocketAddr, Box<dyn Read + Send>)> {
        match via {
            Via::Udp => {
                let socket = UdpSocket::bind((local, 0))?;
                let address = socket.local_addr()?;
                let datagrams = Datagrams(socket.try_clone()?);
                socket.set_read_timeout(Some(Duration::from_millis(100)))?;
                Ok((Self::Udp(socket), address, Box::new(datagrams)))
            }
            Via::Tcp => {
                let stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
                stream.set_nodelay(true)?;
                let address = stream.local_addr()?;
                let reader = stream.try_clone()?;
                Ok((Self::Tcp(stream), address, Box::new(reader)))
            }
            Via::Tls => {
                let authority = authority.context(NO_AUTHORITY)?;
                let mut process = Command::new("openssl")
                    .args(["s_client", "-quiet", "-verify_return_error", "-verify_hostname", "example.com"])
                    .arg("-connect")
                    .arg(server.to_string())
                    .arg("-CAfile")
                    .arg(authority)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .context("openssl")?;
                let input = process.stdin.take().context("the input of openssl")?;
                let output = process.stdout.take().context("the output of openssl")?;
                let socket = Self::Tls { input: Mutex::new(input), process: Mutex::new(process) };
                // The port is not known and needs not be: the flow leads back.
                Ok((socket, SocketAddr::new(local, 5099), Box::new(output)))
            }
            Via::Wss => {
                let (sender, reader) = WebSocketSender::open(server, Some(authority.context(NO_AUTHORITY)?))?;
                Ok((Self::Wss(sender), SocketAddr::new(local, 5099), reader))
            }
        }
    }

    /// Sends one message.
    pub(crate) fn send(&self, to: SocketAddr, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Udp(socket) => socket.send_to(bytes, to).map(drop).map_err(Into::into),
            Self::Tcp(stream) => {
                let mut writer = stream;
                writer.write_all(bytes).map_err(Into::into)
            }
            Self::Tls { input, .. } => {
                let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
                input.write_all(bytes)?;
                input.flush().map_err(Into::into)
            }
            Self::Wss(sender) => sender.send(bytes),
        }
    }

    /// Ends the way at once, so that its reader ends too.
    pub(crate) fn close(&self) {
        match self {
            Self::Udp(_) => {}
            Self::Tcp(stream) => drop(stream.shutdown(Shutdown::Both)),
            Self::Tls { process, .. } => {
                let mut process = process.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = process.kill();
                let _ = process.wait();
            }
            Self::Wss(sender) => sender.close(),
        }
    }
}

/// Reads messages until the way ends or `deliver` says `false`.
pub(crate) fn read_messages(
    mut reader: Box<dyn Read + Send>,
    is_datagram: bool,
    mut deliver: impl FnMut(Option<Message>) -> bool + Send + 'static,
) {
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        let mut held: Vec<u8> = Vec::new();
        loop {
            match reader.read(&mut buffer) {
                Ok(0) if is_datagram => {
                    if !deliver(None) {
                        return;
                    }
                }
                Ok(0) | Err(_) => return,
                Ok(length) => held.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            }
            while let Some((message, length)) = next(&mut held) {
                held.drain(..length);
                if !deliver(Some(message)) {
                    return;
                }
            }
            if is_datagram {
                held.clear();
            }
        }
    });
}

fn next(held: &mut Vec<u8>) -> Option<(Message, usize)> {
    while held.starts_with(b"\r\n") {
        held.drain(..2);
    }
    Message::read(held)
}

/// Datagrams as a reader; a time-out reads as nothing, so that the reading thread can look whether to end.
struct Datagrams(UdpSocket);

impl Read for Datagrams {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.recv_from(buffer) {
            Ok((length, _)) => Ok(length),
            // A refused port or a time-out: nothing came.
            Err(_) => Ok(0),
        }
    }
}
