//! A small SIP phone that keeps exact account of what it asked, what it was answered, and when.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::{
    Deployment, Message, Via,
    digest::Challenge,
    message::{parameter, uri_of},
    socket::{Socket, read_messages},
};

/// Time until the first retransmission over UDP (RFC 3261 T1).
const T1: Duration = Duration::from_millis(500);
/// How long a request may take until its final response, unless told otherwise.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

/// How a phone treats incoming calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// 180, then 200.
    Answer,
    /// 486.
    Busy,
    /// 180, and then nothing until it is cancelled.
    Ring,
}

/// A final response, and the instants between which the server must have made it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The response.
    pub message: Message,
    /// Just before the request that was answered was sent for the first time.
    pub sent: Instant,
    /// Just after the response was received.
    pub received: Instant,
    /// Challenges before it.
    pub challenges: usize,
    /// Provisional responses before it, 100 left out.
    pub provisional: Vec<u16>,
}

impl Answer {
    /// The first value of a header of the response.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.header(name)
    }

    /// `full` or `resiliency`, as Feature-Caps says.
    pub fn mode(&self) -> Option<String> {
        feature(&self.message, "+g.tandem.mode=\"")
    }

    /// Seconds of Retry-After.
    pub fn retry_after(&self) -> Option<u32> {
        self.header("Retry-After")?.split([' ', ';', '(']).next()?.parse().ok()
    }
}

/// One response that arrived, awaited or late.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Just before its request was sent for the first time.
    pub sent: Instant,
    /// Just after it was received.
    pub received: Instant,
    /// The response.
    pub message: Message,
}

/// What a REGISTER asks for.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Contact values; empty: only a question.
    pub contacts: Vec<String>,
    /// Expires header.
    pub expires: Option<u32>,
    /// CSeq instead of the next one.
    pub cseq: Option<u32>,
}

/// A phone with its way to a server. Everything it does waits for the result.
#[derive(Debug)]
pub struct Phone {
    line: Arc<Line>,
}

/// An established call.
#[derive(Debug)]
pub struct Call {
    line: Arc<Line>,
    call_id: String,
    /// Provisional responses seen by the caller.
    pub provisional: Vec<u16>,
}

#[derive(Debug)]
struct Line {
    user: String,
    password: Mutex<String>,
    via: Via,
    local: SocketAddr,
    socket: Socket,
    server: Mutex<SocketAddr>,
    is_closed: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    sent: HashMap<String, Instant>,
    responses: HashMap<String, Vec<(Instant, Message)>>,
    requests: Vec<Message>,
    answered: HashMap<String, Vec<u8>>,
    dialogs: HashMap<String, Dialog>,
    manners: Manners,
    challenges: HashMap<&'static str, Challenge>,
    md5_only: bool,
    register_call_id: String,
    register_cseq: u32,
    is_lost: bool,
}

#[derive(Clone, Debug)]
struct Dialog {
    local: String,
    remote: String,
    target: String,
    routes: Vec<String>,
    cseq: u32,
    is_acknowledged: bool,
    is_ended: bool,
    invite: Option<Message>,
}

static COUNT: AtomicU64 = AtomicU64::new(1);

/// A token that nobody else uses.
pub(crate) fn fresh() -> String {
    format!("{:x}x{:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Phone {
    /// A phone of an example user on its own port of `local`, connected to `server`.
    ///
    /// Errors: no such user, or the connection is refused.
    pub fn new(deployment: &Deployment, user: &str, via: Via, server: &str, local: &str) -> Result<Self> {
        let address = match via {
            Via::Udp | Via::Tcp => Deployment::sip(server),
            Via::Tls => Deployment::sip_tls(server),
        };
        let authority = deployment.dir().join("ca/cert.pem");
        Self::with_password(user, deployment.password(user)?, via, address, local, Some(&authority))
    }

    /// A phone of any user.
    ///
    /// Errors: the connection is refused.
    pub fn with_password(
        user: &str,
        password: &str,
        via: Via,
        server: SocketAddr,
        local: &str,
        authority: Option<&Path>,
    ) -> Result<Self> {
        let ip: IpAddr = local.parse()?;
        let (socket, local, reader) =
            Socket::open(via, ip, server, authority).with_context(|| format!("{via:?} to {server}"))?;
        let line = Arc::new(Line {
            user: user.to_owned(),
            password: Mutex::new(password.to_owned()),
            via,
            local,
            socket,
            server: Mutex::new(server),
            is_closed: AtomicBool::new(false),
            state: Mutex::new(State {
                sent: HashMap::new(),
                responses: HashMap::new(),
                requests: Vec::new(),
                answered: HashMap::new(),
                dialogs: HashMap::new(),
                manners: Manners::Answer,
                challenges: HashMap::new(),
                md5_only: false,
                register_call_id: fresh(),
                register_cseq: 0,
                is_lost: false,
            }),
            changed: Condvar::new(),
        });
        let reading = Arc::clone(&line);
        read_messages(reader, via == Via::Udp, move |message| {
            if let Some(message) = message {
                reading.received(message);
            }
            !reading.is_closed.load(Ordering::Relaxed)
        });
        Ok(Self { line })
    }

    /// The user part.
    pub fn user(&self) -> &str {
        &self.line.user
    }

    /// The Contact URI it registers.
    pub fn contact(&self) -> String {
        self.line.contact()
    }

    /// Sends everything from now on to another server (UDP).
    pub fn use_server(&self, server: SocketAddr) {
        *self.line.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    /// How it treats incoming calls from now on.
    pub fn set_manners(&self, manners: Manners) {
        self.line.state().manners = manners;
    }

    /// Answers MD5 challenges only.
    pub fn set_md5_only(&self) {
        self.line.state().md5_only = true;
    }

    /// Uses another password from now on, and forgets the nonces it has.
    pub fn set_password(&self, password: &str) {
        *self.line.password.lock().unwrap_or_else(PoisonError::into_inner) = password.to_owned();
        self.line.state().challenges.clear();
    }

    /// Forgets the nonces it has, so that the next request is challenged.
    pub fn forget_nonces(&self) {
        self.line.state().challenges.clear();
    }

    /// Registers its contact for so many seconds; 0 unregisters.
    ///
    /// Errors: no final response in time.
    pub fn register(&self, expires: u32) -> Result<Answer> {
        self.register_within(expires, ANSWER_WITHIN)
    }

    /// The same with less patience.
    ///
    /// Errors: no final response within `limit`.
    pub fn register_within(&self, expires: u32, limit: Duration) -> Result<Answer> {
        let contacts = vec![format!("<{}>", self.contact())];
        self.register_with(&Registration { contacts, expires: Some(expires), cseq: None }, limit)
    }

    /// Sends a REGISTER of any kind, answering challenges.
    ///
    /// Errors: no final response within `limit`.
    pub fn register_with(&self, registration: &Registration, limit: Duration) -> Result<Answer> {
        let line = &self.line;
        let aor = line.aor();
        let (call_id, tag) = (line.state().register_call_id.clone(), fresh());
        let uri = "sip:example.com";
        let build = |cseq: u32| {
            let mut request = Message::new(format!("REGISTER {uri} SIP/2.0"))
                .with("Max-Forwards", "70")
                .with("From", format!("<{aor}>;tag={tag}"))
                .with("To", format!("<{aor}>"))
                .with("Call-ID", &call_id)
                .with("CSeq", format!("{cseq} REGISTER"))
                .with("Supported", "path");
            for contact in &registration.contacts {
                request = request.with("Contact", contact);
            }
            if let Some(expires) = registration.expires {
                request = request.with("Expires", expires.to_string());
            }
            request
        };
        line.ask("REGISTER", uri, limit, |_| {
            let mut state = line.state();
            state.register_cseq += 1;
            build(registration.cseq.unwrap_or(state.register_cseq))
        })
    }

    /// Sends a MESSAGE to a user.
    ///
    /// Errors: no final response in time.
    pub fn message(&self, to: &str, text: &str) -> Result<Answer> {
        let uri = format!("sip:{to}@example.com");
        let (call_id, tag) = (fresh(), fresh());
        self.line.ask("MESSAGE", &uri, ANSWER_WITHIN, |attempt| {
            let mut request = self.line.outside("MESSAGE", &uri, &call_id, &tag, attempt);
            request = request.with("Content-Type", "text/plain");
            request.body = text.as_bytes().to_vec();
            request
        })
    }

    /// Calls a user and waits until the call is up, or refused.
    ///
    /// Errors: no final response in time.
    pub fn call(&self, to: &str) -> Result<Result<Call, Answer>> {
        let call_id = fresh();
        let answer = self.line.invite(to, &call_id, ANSWER_WITHIN)?;
        if !(200..300).contains(&answer.status) {
            return Ok(Err(answer));
        }
        Ok(Ok(Call { line: Arc::clone(&self.line), call_id, provisional: answer.provisional }))
    }

    /// Calls a user, waits until his phone rings, and cancels.
    ///
    /// Errors: no ringing, no answer to the CANCEL, or no 487 in time.
    pub fn call_and_cancel(&self, to: &str) -> Result<(Answer, Answer)> {
        let line = Arc::clone(&self.line);
        let uri = format!("sip:{to}@example.com");
        let call_id = fresh();
        let caller = std::thread::spawn({
            let (line, to, call_id) = (Arc::clone(&line), to.to_owned(), call_id.clone());
            move || line.invite(&to, &call_id, ANSWER_WITHIN)
        });
        let (invite, _) = crate::wait_for("ringing", ANSWER_WITHIN, || {
            let state = line.state();
            let ringing = state.responses.values().flatten().find(|(_, response)| {
                response.status() == Some(180) && response.header("Call-ID") == Some(&call_id)
            });
            Ok(ringing.map(|(_, response)| response.clone()))
        })?;
        let (number, _) = invite.cseq().context("CSeq")?;
        let cancel = Message::new(format!("CANCEL {uri} SIP/2.0"))
            .with("Via", invite.header("Via").context("Via")?)
            .with("Max-Forwards", "70")
            .with("From", invite.header("From").context("From")?)
            .with("To", format!("<{uri}>"))
            .with("Call-ID", invite.header("Call-ID").context("Call-ID")?)
            .with("CSeq", format!("{number} CANCEL"));
        let cancelled = line.exchange(&cancel, ANSWER_WITHIN)?;
        let answer = caller.join().map_err(|_| anyhow!("the calling thread failed"))??;
        Ok((cancelled, answer))
    }

    /// Requests of this method that arrived here, retransmissions left out.
    pub fn received(&self, method: &str) -> Vec<Message> {
        let state = self.line.state();
        state.requests.iter().filter(|request| request.method() == Some(method)).cloned().collect()
    }

    /// Every response to requests of this method that arrived so far, late and repeated ones included.
    pub fn history(&self, method: &str) -> Vec<Heard> {
        let state = self.line.state();
        let of_method = |message: &Message| message.cseq().is_some_and(|(_, found)| found == method);
        let all = state.responses.iter().flat_map(|(key, list)| list.iter().map(move |entry| (key, entry)));
        let heard =
            all.filter(|(_, (_, message))| of_method(message)).filter_map(|(key, (received, message))| {
                Some(Heard { sent: *state.sent.get(key)?, received: *received, message: message.clone() })
            });
        heard.collect()
    }

    /// Ends the newest call that this phone answered.
    ///
    /// Errors: there is none, or no final response to the BYE in time.
    pub fn bye(&self) -> Result<Answer> {
        let call_id = {
            let state = self.line.state();
            let open = state.dialogs.iter().find(|(_, dialog)| !dialog.is_ended && dialog.invite.is_some());
            open.context("no call to end")?.0.clone()
        };
        self.line.bye(&call_id)
    }

    /// Waits until a call that was answered here is acknowledged.
    ///
    /// Errors: no ACK in time.
    pub fn wait_acknowledged(&self) -> Result<Duration> {
        crate::wait_until("an ACK at the called phone", ANSWER_WITHIN, || {
            let state = self.line.state();
            Ok(state.dialogs.values().any(|dialog| dialog.is_acknowledged && !dialog.is_ended))
        })
    }

    /// Waits until the far end has ended a call.
    ///
    /// Errors: no BYE in time.
    pub fn wait_ended(&self) -> Result<Duration> {
        crate::wait_until("a BYE", ANSWER_WITHIN, || {
            Ok(self.line.state().dialogs.values().all(|dialog| dialog.is_ended))
        })
    }

    /// Sends octets as they are.
    ///
    /// Errors: the way is closed.
    pub fn send_raw(&self, bytes: &[u8]) -> Result<()> {
        self.line.socket.send(self.line.server(), bytes)
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.line.is_closed.store(true, Ordering::Relaxed);
        self.line.socket.close();
    }
}

impl Call {
    /// Ends the call.
    ///
    /// Errors: no final response in time.
    pub fn bye(&self) -> Result<Answer> {
        self.line.bye(&self.call_id)
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server(&self) -> SocketAddr {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn aor(&self) -> String {
        format!("sip:{}@example.com", self.user)
    }

    fn contact(&self) -> String {
        format!("sip:{}@{};transport={}", self.user, self.local, self.via.parameter())
    }

    /// A request outside a dialog, without Via.
    fn outside(&self, method: &str, uri: &str, call_id: &str, tag: &str, attempt: u32) -> Message {
        Message::new(format!("{method} {uri} SIP/2.0"))
            .with("Max-Forwards", "70")
            .with("From", format!("<{}>;tag={tag}", self.aor()))
            .with("To", format!("<{uri}>"))
            .with("Call-ID", call_id)
            .with("CSeq", format!("{attempt} {method}"))
    }

    fn invite(&self, to: &str, call_id: &str, limit: Duration) -> Result<Answer> {
        let uri = format!("sip:{to}@example.com");
        let tag = fresh();
        let answer = self.ask("INVITE", &uri, limit, |attempt| {
            let mut request = self
                .outside("INVITE", &uri, call_id, &tag, attempt)
                .with("Contact", format!("<{}>", self.contact()))
                .with("Content-Type", "application/sdp");
            request.body = SDP.as_bytes().to_vec();
            request
        })?;
        if (200..300).contains(&answer.status) {
            let (cseq, _) = answer.message.cseq().context("CSeq")?;
            let mut routes = answer.message.values("Record-Route");
            routes.reverse();
            let dialog = Dialog {
                local: answer.header("From").context("From")?.to_owned(),
                remote: answer.header("To").context("To")?.to_owned(),
                target: answer.message.contact_uri().context("a 200 to INVITE has a Contact")?,
                routes,
                cseq,
                is_acknowledged: true,
                is_ended: false,
                invite: None,
            };
            let ack = self.inside(&dialog, call_id, "ACK", cseq);
            self.send_inside(&dialog, &ack)?;
            self.state().dialogs.insert(call_id.to_owned(), dialog);
        }
        Ok(answer)
    }

    fn bye(&self, call_id: &str) -> Result<Answer> {
        let dialog = {
            let mut state = self.state();
            let dialog = state.dialogs.get_mut(call_id).context("no such call")?;
            dialog.cseq += 1;
            dialog.is_ended = true;
            dialog.clone()
        };
        let bye = self.inside(&dialog, call_id, "BYE", dialog.cseq);
        self.exchange_at(self.next_hop(&dialog), &bye, ANSWER_WITHIN)
    }

    /// A request inside a dialog, with its Via.
    fn inside(&self, dialog: &Dialog, call_id: &str, method: &str, cseq: u32) -> Message {
        let mut request = Message::new(format!("{method} {} SIP/2.0", dialog.target))
            .with("Via", self.new_via())
            .with("Max-Forwards", "70");
        for route in &dialog.routes {
            request = request.with("Route", route);
        }
        request
            .with("From", &dialog.local)
            .with("To", &dialog.remote)
            .with("Call-ID", call_id)
            .with("CSeq", format!("{cseq} {method}"))
    }

    fn send_inside(&self, dialog: &Dialog, request: &Message) -> Result<()> {
        self.socket.send(self.next_hop(dialog), &request.write())
    }

    /// Where a request of a dialog goes: its first route, else its target. Streams have only the one way.
    fn next_hop(&self, dialog: &Dialog) -> SocketAddr {
        let uri = dialog.routes.first().map_or_else(|| dialog.target.clone(), |route| uri_of(route));
        let host = uri.trim_start_matches("sip:").split(';').next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        host.parse().unwrap_or_else(|_| self.server())
    }

    fn new_via(&self) -> String {
        format!("SIP/2.0/{} {};branch=z9hG4bK{};rport", self.via.token(), self.local, fresh())
    }

    /// Sends requests until one is not challenged, at most three. `build` makes each one, without Via.
    fn ask(
        &self,
        method: &'static str,
        uri: &str,
        limit: Duration,
        mut build: impl FnMut(u32) -> Message,
    ) -> Result<Answer> {
        for attempt in 1..=3 {
            let mut request = build(attempt);
            request.headers.insert(0, ("Via".to_owned(), self.new_via()));
            let (header, challenged, challenge) = if method == "REGISTER" {
                ("Authorization", 401, "WWW-Authenticate")
            } else {
                ("Proxy-Authorization", 407, "Proxy-Authenticate")
            };
            let (password, mut used) = (self.password(), None);
            if let Some(known) = self.state().challenges.get_mut(header) {
                let value = known.answer(&self.user, &password, method, uri);
                request = request.with(header, value);
                used = Some(known.clone());
            }
            let mut answer = self.exchange(&request, limit)?;
            answer.challenges = usize::try_from(attempt - 1)?;
            if answer.status != challenged || attempt == 3 {
                return Ok(answer);
            }
            let stale =
                answer.message.lines(challenge).any(|line| line.to_lowercase().contains("stale=true"));
            let new = Challenge::choose(answer.message.lines(challenge), self.state().md5_only);
            let new = new.with_context(|| format!("no challenge to answer: {:?}", answer.message))?;
            if let Some(used) = used
                && (used.is_same_nonce(&new) || (attempt > 1 && !stale))
            {
                return Ok(answer);
            }
            self.state().challenges.insert(header, new);
        }
        bail!("unreachable: the third attempt returns")
    }

    fn password(&self) -> String {
        self.password.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn exchange(&self, request: &Message, limit: Duration) -> Result<Answer> {
        self.exchange_at(self.server(), request, limit)
    }

    /// Sends a request, again over UDP while nothing comes, and waits for its final response.
    fn exchange_at(&self, to: SocketAddr, request: &Message, limit: Duration) -> Result<Answer> {
        let key = key_of(request).context("a request has Via and CSeq")?;
        let method = request.cseq().context("CSeq")?.1.to_owned();
        let bytes = request.write();
        let sent = Instant::now();
        self.state().sent.insert(key.clone(), sent);
        self.socket.send(to, &bytes)?;
        let (mut again_at, mut pause) = (sent + T1, T1);
        let mut state = self.state();
        loop {
            let responses = state.responses.get(&key).map(Vec::as_slice).unwrap_or_default();
            let status = |message: &Message| message.status().unwrap_or(0);
            if let Some((received, found)) = responses.iter().find(|(_, found)| status(found) >= 200) {
                let provisional = responses.iter().map(|(_, found)| status(found));
                let answer = Answer {
                    status: status(found),
                    message: found.clone(),
                    sent,
                    received: *received,
                    challenges: 0,
                    provisional: provisional.filter(|status| (101..200).contains(status)).collect(),
                };
                drop(state);
                if method == "INVITE" && answer.status >= 300 {
                    self.acknowledge_refusal(to, request, &answer.message)?;
                }
                return Ok(answer);
            }
            let has_provisional = !responses.is_empty();
            let now = Instant::now();
            ensure!(now - sent < limit, "no final response to {} of {} within {limit:?}", method, self.user);
            ensure!(!state.is_lost, "the connection of {} was closed", self.user);
            if self.via == Via::Udp && now >= again_at && !(method == "INVITE" && has_provisional) {
                self.socket.send(to, &bytes)?;
                pause = (pause * 2).min(Duration::from_secs(4));
                again_at = now + pause;
            }
            let wait = Duration::from_millis(100).min(limit);
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The ACK for a refused INVITE (RFC 3261 section 17.1.1.3).
    fn acknowledge_refusal(&self, to: SocketAddr, invite: &Message, response: &Message) -> Result<()> {
        let uri = invite.start.split(' ').nth(1).context("a request line")?;
        let (number, _) = invite.cseq().context("CSeq")?;
        let copy = |name: &str| invite.header(name).map(ToOwned::to_owned).context("a header to copy");
        let ack = Message::new(format!("ACK {uri} SIP/2.0"))
            .with("Via", copy("Via")?)
            .with("Max-Forwards", "70")
            .with("From", copy("From")?)
            .with("To", response.header("To").context("To")?)
            .with("Call-ID", copy("Call-ID")?)
            .with("CSeq", format!("{number} ACK"));
        self.socket.send(to, &ack.write())
    }

    fn received(&self, message: Message) {
        let now = Instant::now();
        if message.status().is_some() {
            if let Some(key) = key_of(&message) {
                self.state().responses.entry(key).or_default().push((now, message));
            }
            self.changed.notify_all();
            return;
        }
        let is_ack = message.method() == Some("ACK");
        let Some(key) = key_of(&message) else { return };
        if !is_ack && let Some(former) = self.state().answered.get(&key).cloned() {
            let _ = self.socket.send(self.reply_address(&message), &former);
            return;
        }
        for response in self.answers(&message) {
            let bytes = response.write();
            let _ = self.socket.send(self.reply_address(&message), &bytes);
            self.state().answered.insert(key.clone(), bytes);
        }
        self.state().requests.push(message);
        self.changed.notify_all();
    }

    /// Where a response goes: the sent-by of the topmost Via, which is always a server.
    fn reply_address(&self, request: &Message) -> SocketAddr {
        let via = request.header("Via").unwrap_or_default();
        let sent_by = via.split(' ').nth(1).unwrap_or_default().split(';').next().unwrap_or_default();
        sent_by.parse().unwrap_or_else(|_| self.server())
    }

    /// What a request is answered with.
    fn answers(&self, request: &Message) -> Vec<Message> {
        let call_id = request.header("Call-ID").unwrap_or_default().to_owned();
        let tag = format!("t{}", fresh());
        match request.method().unwrap_or_default() {
            "INVITE" => self.answer_invite(request, &call_id, &tag),
            "ACK" => {
                if let Some(dialog) = self.state().dialogs.get_mut(&call_id) {
                    dialog.is_acknowledged = true;
                }
                Vec::new()
            }
            "BYE" => {
                let mut state = self.state();
                match state.dialogs.get_mut(&call_id) {
                    Some(dialog) => {
                        dialog.is_ended = true;
                        vec![respond(request, 200, "OK", "")]
                    }
                    None => vec![respond(request, 481, "Call/Transaction Does Not Exist", &tag)],
                }
            }
            "CANCEL" => {
                let mut answers = vec![respond(request, 200, "OK", &tag)];
                if let Some(dialog) = self.state().dialogs.get_mut(&call_id) {
                    dialog.is_ended = true;
                    let tag = parameter(&dialog.local, "tag").unwrap_or_default();
                    let invite = dialog.invite.as_ref();
                    answers.extend(invite.map(|invite| respond(invite, 487, "Request Terminated", tag)));
                }
                answers
            }
            _ => vec![respond(request, 200, "OK", &tag)],
        }
    }

    fn answer_invite(&self, request: &Message, call_id: &str, tag: &str) -> Vec<Message> {
        let manners = self.state().manners;
        let ringing = respond(request, 180, "Ringing", tag).with("Contact", format!("<{}>", self.contact()));
        let mut ok = respond(request, 200, "OK", tag)
            .with("Contact", format!("<{}>", self.contact()))
            .with("Content-Type", "application/sdp");
        ok.body = SDP.as_bytes().to_vec();
        let dialog = Dialog {
            local: ok.header("To").unwrap_or_default().to_owned(),
            remote: request.header("From").unwrap_or_default().to_owned(),
            target: request.contact_uri().unwrap_or_default(),
            routes: request.values("Record-Route"),
            cseq: 1,
            is_acknowledged: false,
            is_ended: false,
            invite: Some(request.clone()),
        };
        if manners != Manners::Busy && !call_id.is_empty() {
            self.state().dialogs.insert(call_id.to_owned(), dialog);
        }
        match manners {
            Manners::Answer => vec![ringing, ok],
            Manners::Busy => vec![respond(request, 486, "Busy Here", tag)],
            Manners::Ring => vec![ringing],
        }
    }
}

/// The value of a feature in Feature-Caps.
pub(crate) fn feature(message: &Message, start: &str) -> Option<String> {
    let (_, after) = message.header("Feature-Caps")?.split_once(start)?;
    after.split('"').next().map(ToOwned::to_owned)
}

/// A response: what RFC 3261 section 8.2.6.2 copies, and a To tag.
fn respond(request: &Message, status: u16, reason: &str, tag: &str) -> Message {
    let mut response = Message::new(format!("SIP/2.0 {status} {reason}"));
    for (name, value) in &request.headers {
        let lower = name.to_lowercase();
        match lower.as_str() {
            "to" if parameter(value, "tag").is_none() && !tag.is_empty() => {
                response = response.with(name, format!("{value};tag={tag}"));
            }
            "via" | "from" | "to" | "call-id" | "cseq" | "record-route" => {
                response = response.with(name, value);
            }
            _ => {}
        }
    }
    response
}

/// What names a transaction: branch and method.
fn key_of(message: &Message) -> Option<String> {
    let via = message.values("Via").into_iter().next()?;
    let branch = parameter(&via, "branch")?.to_owned();
    let (number, method) = message.cseq()?;
    Some(format!("{branch} {number} {method}"))
}
