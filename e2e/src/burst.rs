//! Thousands of phones that register at the same moment, over a few sockets, so that every shard of a server
//! gets some of them.

use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{Message, digest::Challenge, phone::fresh};

/// Time until an unanswered request is sent again.
const RESEND_AFTER: Duration = Duration::from_millis(1_000);
/// Sockets of one burst.
const SOCKETS: usize = 16;
/// Requests sent before answers are looked at.
const SENT_AT_ONCE: usize = 64;
/// Pause when nothing is to be done.
const PAUSE: Duration = Duration::from_millis(1);

/// One phone of a burst.
#[derive(Clone, Debug)]
pub struct BurstUser {
    /// User part.
    pub user: String,
    /// Password.
    pub password: String,
}

/// The first answer of each phone that is no challenge, by user part.
pub type BurstAnswers = HashMap<String, Message>;

struct Asked<'a> {
    socket: usize,
    user: &'a BurstUser,
    request: Vec<u8>,
    cseq: u32,
    sent: Instant,
}

/// Sends one REGISTER for each user at once, `for_s` seconds long, answers challenges, repeats what is not
/// answered, and waits for all answers.
///
/// Errors: not all within `limit`.
pub fn register_at_once(
    server: SocketAddr,
    local: &str,
    users: &[BurstUser],
    for_s: u32,
    limit: Duration,
) -> Result<BurstAnswers> {
    let sockets = (0..SOCKETS).map(|_| UdpSocket::bind((local, 0))).collect::<Result<Vec<_>, _>>()?;
    sockets.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
    let run = fresh();
    let mut open: HashMap<String, Asked<'_>> = HashMap::new();
    let mut answers = BurstAnswers::new();
    let began = Instant::now();
    for (number, user) in users.iter().enumerate() {
        let socket = number % SOCKETS;
        let address = sockets.get(socket).context("a socket")?.local_addr()?;
        let request = register(&user.user, address, &run, 1, for_s, None);
        let sent = began - 2 * RESEND_AFTER;
        open.insert(user.user.clone(), Asked { socket, user, request, cseq: 1, sent });
    }
    let mut buffer = vec![0; 65_536];
    while !open.is_empty() {
        anyhow::ensure!(began.elapsed() < limit, "{} of {} not answered", open.len(), users.len());
        let now = Instant::now();
        let mut is_idle = true;
        let due = open.values_mut().filter(|asked| now - asked.sent >= RESEND_AFTER);
        for asked in due.take(SENT_AT_ONCE) {
            (asked.sent, is_idle) = (now, false);
            sockets.get(asked.socket).context("a socket")?.send_to(&asked.request, server)?;
        }
        for socket in &sockets {
            while let Ok((length, _)) = socket.recv_from(&mut buffer) {
                is_idle = false;
                let read = buffer.get(..length).and_then(Message::read);
                if let Some((message, _)) = read {
                    answered(socket, server, &run, for_s, message, &mut open, &mut answers)?;
                }
            }
        }
        if is_idle {
            thread::sleep(PAUSE);
        }
    }
    Ok(answers)
}

fn answered(
    socket: &UdpSocket,
    server: SocketAddr,
    run: &str,
    for_s: u32,
    message: Message,
    open: &mut HashMap<String, Asked<'_>>,
    answers: &mut BurstAnswers,
) -> Result<()> {
    let to = message.header("To").context("To")?;
    let user = to.split("sip:").nth(1).and_then(|rest| rest.split('@').next()).context("a user")?.to_owned();
    let (cseq, _) = message.cseq().context("CSeq")?;
    let Some(asked) = open.get_mut(&user).filter(|asked| asked.cseq == cseq) else { return Ok(()) };
    match message.status() {
        Some(100..200) | None => {}
        Some(401) if asked.cseq == 1 => {
            let mut challenge =
                Challenge::choose(message.lines("WWW-Authenticate"), true).context("a challenge")?;
            let value = challenge.answer(&user, &asked.user.password, "REGISTER", "sip:example.com");
            asked.cseq = 2;
            asked.request = register(&user, socket.local_addr()?, run, 2, for_s, Some(value));
            asked.sent = Instant::now();
            socket.send_to(&asked.request, server)?;
        }
        Some(_) => {
            open.remove(&user);
            answers.insert(user, message);
        }
    }
    Ok(())
}

fn register(
    user: &str,
    address: SocketAddr,
    run: &str,
    cseq: u32,
    for_s: u32,
    authorization: Option<String>,
) -> Vec<u8> {
    let via = format!("SIP/2.0/UDP {address};branch=z9hG4bK{run}{user}{cseq};rport");
    let mut request = Message::new("REGISTER sip:example.com SIP/2.0")
        .with("Via", via)
        .with("Max-Forwards", "70")
        .with("From", format!("<sip:{user}@example.com>;tag={run}"))
        .with("To", format!("<sip:{user}@example.com>"))
        .with("Call-ID", format!("{run}-{user}"))
        .with("CSeq", format!("{cseq} REGISTER"))
        .with("Contact", format!("<sip:{user}@{address}>"))
        .with("Expires", for_s.to_string());
    if let Some(authorization) = authorization {
        request = request.with("Authorization", authorization);
    }
    request.write()
}
