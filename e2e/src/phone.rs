//! A small SIP phone that keeps exact account of what it asked, what it was answered, and when.

mod answering;
mod asking;
mod subscribing;

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

use anyhow::{Context, Result, anyhow};

use crate::{
    Deployment, Message, Via,
    digest::Challenge,
    message::parameter,
    socket::{Socket, read_messages},
};

pub use subscribing::Subscription;

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
    /// 480.
    Away,
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
    /// Host and port, or what stands for them where nobody can connect to the phone.
    sent_by: String,
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
    supported: String,
    /// What stands in Contact of its calls instead of what it registers.
    gruu: Option<String>,
    /// Host, port and parameters of its Contact where they are not those of its socket.
    contact_at: Option<String>,
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
            Via::Wss => Deployment::sip_wss(server),
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
            sent_by: match via {
                Via::Udp | Via::Tcp | Via::Tls => local.to_string(),
                // RFC 7118 appendix B.1.
                Via::Wss => format!("{}.invalid", fresh()),
            },
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
                supported: "path".to_owned(),
                gruu: None,
                contact_at: None,
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

    /// Leaves the transport open in its Contact from now on.
    pub fn set_plain_contact(&self) {
        self.set_contact_at(&self.line.sent_by);
    }

    /// Names this host in its Contact from now on, with port and parameters.
    pub fn set_contact_at(&self, host: &str) {
        self.line.state().contact_at = Some(host.to_owned());
    }

    /// Names the extensions that its REGISTERs say it supports, from now on.
    pub fn set_supported(&self, extensions: &str) {
        extensions.clone_into(&mut self.line.state().supported);
    }

    /// Puts a GRUU of its own into the Contact of its calls (RFC 5627 section 4.4).
    pub fn use_gruu(&self, gruu: &str) {
        self.line.state().gruu = Some(gruu.to_owned());
    }

    /// Begins to register anew, as after a restart: with another Call-ID.
    pub fn restart_registration(&self) {
        let mut state = self.line.state();
        (state.register_call_id, state.register_cseq) = (fresh(), 0);
    }

    /// Registers its contact as one flow of a device (RFC 5626).
    ///
    /// Errors: no final response in time.
    pub fn register_flow(&self, expires: u32, instance: &str, reg_id: u32) -> Result<Answer> {
        let contact = format!("<{}>;+sip.instance=\"<{instance}>\";reg-id={reg_id}", self.contact());
        let registration = Registration { contacts: vec![contact], expires: Some(expires), cseq: None };
        self.register_with(&registration, ANSWER_WITHIN)
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
        let supported = line.state().supported.clone();
        let uri = "sip:example.com";
        let build = |cseq: u32| {
            let mut request = Message::new(format!("REGISTER {uri} SIP/2.0"))
                .with("Max-Forwards", "70")
                .with("From", format!("<{aor}>;tag={tag}"))
                .with("To", format!("<{aor}>"))
                .with("Call-ID", &call_id)
                .with("CSeq", format!("{cseq} REGISTER"))
                .with("Supported", &supported);
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
        self.message_with(to, text, &[])
    }

    /// The same with further headers.
    ///
    /// Errors: no final response in time.
    pub fn message_with(&self, to: &str, text: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        self.message_to_uri(&format!("sip:{to}@example.com"), text, headers)
    }

    /// The same to any URI.
    ///
    /// Errors: no final response in time.
    pub fn message_to_uri(&self, uri: &str, text: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let (call_id, tag) = (fresh(), fresh());
        self.line.ask("MESSAGE", uri, ANSWER_WITHIN, |attempt| {
            let mut request = self.line.outside("MESSAGE", uri, &call_id, &tag, attempt);
            request = request.with("Content-Type", "text/plain");
            for (name, value) in headers {
                request = request.with(name, *value);
            }
            request.body = text.as_bytes().to_vec();
            request
        })
    }

    /// Calls a user and waits until the call is up, or refused.
    ///
    /// Errors: no final response in time.
    pub fn call(&self, to: &str) -> Result<Result<Call, Answer>> {
        self.call_uri(&format!("sip:{to}@example.com"))
    }

    /// The same to any URI.
    ///
    /// Errors: no final response in time.
    pub fn call_uri(&self, uri: &str) -> Result<Result<Call, Answer>> {
        let call_id = fresh();
        let answer = self.line.invite(uri, &call_id, ANSWER_WITHIN)?;
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
            let (line, uri, call_id) = (Arc::clone(&line), uri.clone(), call_id.clone());
            move || line.invite(&uri, &call_id, ANSWER_WITHIN)
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
        self.line.bye(&self.answered_call()?)
    }

    /// Sends an INFO with this body inside a call that this phone answered.
    ///
    /// Errors: there is none, or no final response in time.
    pub fn info(&self, text: &str) -> Result<Answer> {
        self.line.info(&self.answered_call()?, text)
    }

    fn answered_call(&self) -> Result<String> {
        let state = self.line.state();
        let open = state.dialogs.iter().find(|(_, dialog)| !dialog.is_ended && dialog.invite.is_some());
        Ok(open.context("no call here")?.0.clone())
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
        match &self.state().contact_at {
            Some(host) => format!("sip:{}@{host}", self.user),
            None => format!("sip:{}@{};transport={}", self.user, self.sent_by, self.via.parameter()),
        }
    }

    /// The Contact URI of its dialogs.
    fn dialog_contact(&self) -> String {
        let gruu = self.state().gruu.clone();
        gruu.unwrap_or_else(|| self.contact())
    }
}

/// The value of a feature in Feature-Caps.
pub(crate) fn feature(message: &Message, start: &str) -> Option<String> {
    let (_, after) = message.header("Feature-Caps")?.split_once(start)?;
    after.split('"').next().map(ToOwned::to_owned)
}

/// What names a transaction: branch and method.
fn key_of(message: &Message) -> Option<String> {
    let via = message.values("Via").into_iter().next()?;
    let branch = parameter(&via, "branch")?.to_owned();
    let (number, method) = message.cseq()?;
    Some(format!("{branch} {number} {method}"))
}
