//! Datagram system calls in batches, and socket options: the only unsafe code of the crate, because neither
//! std, socket2 nor rustix wrap `recvmmsg`, the error queue, `IP_RECVERR`, `SO_TIMESTAMPNS`, `SO_RXQ_OVFL`
//! and `IP_BIND_ADDRESS_NO_PORT`.
#![allow(unsafe_code)]

use std::{
    io, iter, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use model::WallTime;

/// Datagrams of one system call.
pub(crate) const BATCH: usize = 32;
/// Octets of one receive slot: more than any datagram can have, and no power of two, so that the starts of
/// the slots, which is what datagrams of usual size fill, do not share the same few places of the processor's
/// caches.
pub(crate) const SLOT_BYTES: usize = 65_536 + 1_088;

/// A datagram in its slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) slot: usize,
    pub(crate) length: usize,
    pub(crate) from: SocketAddr,
}

/// What one system call brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Datagrams, those of no known family included.
    pub(crate) count: usize,
    /// When the kernel got the first of them, where the socket is [`set_measured`].
    pub(crate) arrived: Option<WallTime>,
    /// Datagrams that the socket had to drop before the first of them since it was opened, modulo 2^32;
    /// `None`: none yet, or the socket is not [`set_measured`].
    pub(crate) dropped: Option<u32>,
}

/// A datagram that came back with an error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned {
    pub(crate) to: SocketAddr,
    pub(crate) errno: i32,
}

/// Receives without waiting, one datagram into each [`SLOT_BYTES`] of `arena`, at most [`BATCH`];
/// `first_slot` is the number that the first of them goes by in `out`.
///
/// Errors: those of `recvmmsg(2)`, `WouldBlock` when there is nothing.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    arena: &mut [u8],
    first_slot: usize,
    out: &mut Vec<Received>,
) -> io::Result<Batch> {
    let mut control = Control([0; Control::LENGTH]);
    let mut addresses = [RawAddress::EMPTY; BATCH];
    let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    // SAFETY: mmsghdr is plain old data for which all-zero (null pointers, zero lengths) is a valid value.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let mut count: libc::c_uint = 0;
    let slots = arena.chunks_exact_mut(SLOT_BYTES);
    for (((header, part), address), slot) in headers.iter_mut().zip(&mut parts).zip(&mut addresses).zip(slots)
    {
        part.iov_base = slot.as_mut_ptr().cast();
        part.iov_len = slot.len();
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_name = (&raw mut address.0).cast();
        header.msg_hdr.msg_namelen = RawAddress::LENGTH;
        count += 1;
    }
    if let Some(first) = headers.first_mut() {
        first.msg_hdr.msg_control = (&raw mut control.0).cast();
        first.msg_hdr.msg_controllen = Control::LENGTH as _;
    }
    // SAFETY: the first `count` headers point at one iovec and one address each, and each iovec at one slot
    // of `arena` with its true length, the first header at `control` with its true length; all of them are
    // alive, exclusively borrowed here and not moved until the call returns, and the kernel keeps no pointer
    // after it. The timeout may be null.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT as _,
            ptr::null_mut(),
        )
    };
    let received = usize::try_from(received).map_err(|_negative| io::Error::last_os_error())?;
    for (at, (header, address)) in headers.iter().zip(&addresses).take(received).enumerate() {
        if let Some(from) = address.decode() {
            let length = usize::try_from(header.msg_len).unwrap_or(0).min(SLOT_BYTES);
            out.push(Received { slot: first_slot + at, length, from });
        }
    }
    let mut batch = Batch { count: received, ..Batch::default() };
    let length = headers.first().map_or(0, |first| first.msg_hdr.msg_controllen);
    for (level, kind, value) in control.messages(length) {
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => batch.arrived = wall_time(value),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => batch.dropped = take(value, 0).map(u32::from_ne_bytes),
            _ => {}
        }
    }
    Ok(batch)
}

/// Sends the first datagrams of `datagrams` without waiting, at most [`BATCH`]; returns how many the kernel
/// took.
///
/// Errors: those of `sendmmsg(2)`, about the first datagram or left over from an earlier one.
pub(crate) fn send<'a>(
    socket: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = (&'a [u8], SocketAddr)>,
) -> io::Result<usize> {
    let mut addresses = [RawAddress::EMPTY; BATCH];
    let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    // SAFETY: mmsghdr is plain old data for which all-zero (null pointers, zero lengths) is a valid value.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let mut count: libc::c_uint = 0;
    for (((header, part), address), (bytes, to)) in
        headers.iter_mut().zip(&mut parts).zip(&mut addresses).zip(datagrams)
    {
        part.iov_base = bytes.as_ptr().cast_mut().cast();
        part.iov_len = bytes.len();
        header.msg_hdr.msg_namelen = address.encode(to);
        header.msg_hdr.msg_name = (&raw mut address.0).cast();
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    // SAFETY: as in `receive`; the octets sent are borrowed for 'a, which outlives the call, and sendmmsg
    // only reads through `iov_base`.
    let sent =
        unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT as _) };
    usize::try_from(sent).map_err(|_negative| io::Error::last_os_error())
}

/// Takes one datagram that came back from the error queue; `None` when the queue is empty.
///
/// Source: ip(7) `IP_RECVERR`: the name is where the datagram should have gone, a control message says why.
pub(crate) fn take_returned(socket: BorrowedFd<'_>) -> Option<Returned> {
    let mut address = RawAddress::EMPTY;
    let mut control = Control([0; Control::LENGTH]);
    let mut payload = [0_u8; 1];
    let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    // SAFETY: msghdr is plain old data for which all-zero is a valid value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = (&raw mut address.0).cast();
    header.msg_namelen = RawAddress::LENGTH;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control.0).cast();
    header.msg_controllen = Control::LENGTH as _;
    // SAFETY: the header points at one address, one iovec over `payload` and one control buffer, with their
    // true lengths; all are alive and exclusively borrowed until the call returns.
    let received = unsafe {
        libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
    };
    if received < 0 {
        return None;
    }
    let errno = control.error_number(header.msg_controllen).unwrap_or(libc::EHOSTUNREACH);
    // A name of no known family cannot be told to anybody: go on with the next one.
    address.decode().map_or_else(|| take_returned(socket), |to| Some(Returned { to, errno }))
}

/// Asks the kernel to queue what the network says about datagrams that did not arrive (ip(7), ipv6(7)).
pub(crate) fn set_receive_errors(socket: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        set_flag(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    } else {
        set_flag(socket, libc::IPPROTO_IP, libc::IP_RECVERR)
    }
}

/// Asks the kernel to tell when a datagram came, and how many it had to drop (socket(7)).
pub(crate) fn set_measured(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_flag(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)?;
    set_flag(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL)
}

/// Lets `connect` choose the port of a socket bound to port 0, so that ports are unique per far end only
/// (ip(7)).
pub(crate) fn set_late_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_flag(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)
}

fn set_flag(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(4);
    // SAFETY: the option value is one int, alive during the call, of the length given.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A `sockaddr_in` or `sockaddr_in6` as octets; both begin with family and port.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct RawAddress([u8; 28]);

impl RawAddress {
    const EMPTY: Self = Self([0; 28]);
    const LENGTH: libc::socklen_t = 28;
    const LENGTH_V4: libc::socklen_t = 16;
    const FAMILY_V4: u16 = 2;
    const FAMILY_V6: u16 = 10;

    /// Writes `address` and returns its length.
    fn encode(&mut self, address: SocketAddr) -> libc::socklen_t {
        let [family, port, rest @ ..] = self.0.as_chunks_mut::<2>().0 else { return 0 };
        *port = address.port().to_be_bytes();
        let rest = rest.as_flattened_mut();
        match address {
            SocketAddr::V4(v4) => {
                *family = Self::FAMILY_V4.to_ne_bytes();
                put(rest, 0, &v4.ip().octets());
                Self::LENGTH_V4
            }
            SocketAddr::V6(v6) => {
                *family = Self::FAMILY_V6.to_ne_bytes();
                put(rest, 4, &v6.ip().octets());
                put(rest, 20, &v6.scope_id().to_ne_bytes());
                Self::LENGTH
            }
        }
    }

    /// Reads the address; `None` for a family that is neither IPv4 nor IPv6.
    fn decode(&self) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(take(&self.0, 2)?);
        match u16::from_ne_bytes(take(&self.0, 0)?) {
            Self::FAMILY_V4 => {
                Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(take::<4>(&self.0, 4)?)), port))
            }
            Self::FAMILY_V6 => {
                let ip = Ipv6Addr::from(take::<16>(&self.0, 8)?);
                let scope = u32::from_ne_bytes(take(&self.0, 24)?);
                Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
            }
            _ => None,
        }
    }
}

/// Room for one `cmsghdr` with a `sock_extended_err` and the address of who sent the error, or for those of a
/// measured socket.
#[repr(C, align(8))]
struct Control([u8; Control::LENGTH]);

impl Control {
    const LENGTH: usize = 256;

    /// The error of the message that tells of one: it begins with `ee_errno`, 32 bits (ip(7)).
    fn error_number(&self, length: usize) -> Option<i32> {
        let tells = |level, kind| match level {
            libc::IPPROTO_IP => kind == libc::IP_RECVERR,
            libc::IPPROTO_IPV6 => kind == libc::IPV6_RECVERR,
            _ => false,
        };
        let (_, _, value) = self.messages(length).find(|&(level, kind, _)| tells(level, kind))?;
        i32::try_from(u32::from_ne_bytes(take(value, 0)?)).ok().filter(|&errno| errno != 0)
    }

    /// Level, kind and value of each control message in the first `length` octets (cmsg(3)).
    fn messages(&self, length: usize) -> impl Iterator<Item = (i32, i32, &[u8])> {
        const HEAD: usize = size_of::<libc::cmsghdr>();
        let mut rest = self.0.get(..length).unwrap_or_default();
        iter::from_fn(move || {
            let whole = usize::from_ne_bytes(take(rest, 0)?);
            let level = i32::from_ne_bytes(take(rest, size_of::<usize>())?);
            let kind = i32::from_ne_bytes(take(rest, size_of::<usize>() + size_of::<i32>())?);
            let value = rest.get(HEAD..whole)?;
            rest = rest.get(whole.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
            Some((level, kind, value))
        })
    }
}

/// A `timespec` as octets; `None` before 1970.
fn wall_time(octets: &[u8]) -> Option<WallTime> {
    let seconds = u64::try_from(i64::from_ne_bytes(take(octets, 0)?)).ok()?;
    let nanos = u64::try_from(i64::from_ne_bytes(take(octets, 8)?)).ok()?;
    Some(WallTime::from_micros(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000)))
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::UdpSocket,
        os::fd::AsFd,
        time::{Duration, Instant, SystemTime},
    };

    use super::*;

    #[test]
    fn an_address_survives_the_kernels_form() {
        for text in ["192.0.2.7:5060", "[2001:db8::7]:5061", "[fe80::1%3]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut raw = RawAddress::EMPTY;

            let length = raw.encode(address);

            assert_eq!(raw.decode(), Some(address));
            assert_eq!(length, if address.is_ipv4() { 16 } else { 28 });
        }
        assert_eq!(RawAddress::EMPTY.decode(), None);
    }

    #[test]
    fn a_batch_arrives_in_order_with_its_senders_and_lengths() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        let texts: [&[u8]; 3] = [b"one", b"", b"three"];

        let sent = send(sender.as_fd(), texts.iter().map(|text| (*text, to))).unwrap();
        let mut arena = vec![0; 4 * SLOT_BYTES];
        let mut out = Vec::new();
        let received = receive(receiver.as_fd(), &mut arena, 5, &mut out).unwrap();

        assert_eq!((sent, received), (3, Batch { count: 3, ..Batch::default() }));
        for (at, (datagram, text)) in out.iter().zip(texts).enumerate() {
            assert_eq!(datagram.slot, 5 + at);
            assert_eq!(datagram.from, sender.local_addr().unwrap());
            assert_eq!(&arena[at * SLOT_BYTES..][..datagram.length], text);
        }
        let nothing = receive(receiver.as_fd(), &mut arena, 0, &mut out);
        assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_measured_socket_says_when_a_datagram_came_and_how_many_did_not() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        set_measured(receiver.as_fd()).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        let wall = || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            WallTime::from_micros(u64::try_from(since.as_micros()).unwrap())
        };
        let mut arena = vec![0; SLOT_BYTES];
        let mut next = || receive(receiver.as_fd(), &mut arena, 0, &mut Vec::new());

        // The system begins to note times a moment after the first socket asks for them; until then it gives
        // the time at which the datagram was read.
        let began = Instant::now();
        let is_noted = std::iter::repeat_with(|| {
            let before = wall();
            sender.send_to(b"one", to).unwrap();
            let after = wall();
            while wall() == after {}
            let first = next().unwrap();
            assert_eq!((first.count, first.dropped), (1, None));
            first.arrived.is_some_and(|arrived| before <= arrived && arrived <= after)
        })
        .take_while(|_| began.elapsed() < Duration::from_secs(10))
        .any(|is_noted| is_noted);
        assert!(is_noted);

        // More than the default receive buffer holds.
        for _ in 0..5_000 {
            sender.send_to(&[0; 1_024], to).unwrap();
        }
        while next().is_ok() {}
        sender.send_to(b"after", to).unwrap();
        let last = next().unwrap();
        assert!(last.dropped.is_some_and(|dropped| dropped > 0), "{last:?}");
    }
}
