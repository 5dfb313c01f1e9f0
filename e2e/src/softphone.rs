//! Real softphones as processes: baresip and linphonec, driven by what one types into them.
//!
//! Each phone sends a tone of its own pitch and keeps what it hears in a file, so that audio is proved by the
//! far tone's share of the energy. What a phone prints is kept; a test waits for a line, never for a time.

mod baresip;
mod linphone;
mod sound;

use std::{
    fs,
    io::{BufReader, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{Deployment, Namespace, Via, wait_until};
pub use sound::{SAMPLE_RATE, share_of_tone, write_tone};

/// How long a phone may take for what one types, and for what comes over the network.
const PATIENCE: Duration = Duration::from_secs(20);
/// How much audio is enough to judge it, in octets of a WAV file: one and a half seconds.
const AUDIO_BYTES: u64 = sound::BYTES_PER_SECOND * 3 / 2;
/// Where [`pretend_network`] leads.
const PRETENDED_ADDRESS: &str = "192.0.2.1";
/// How long the tone lasts that a phone sends; longer than any call of a test.
const TONE_S: u32 = 60;

/// Which phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// `baresip`, Debian package `baresip-core`.
    Baresip,
    /// `linphonec`, Debian package `linphone-cli`.
    Linphone,
}

/// Who a phone is, and where it registers.
#[derive(Clone, Debug)]
pub struct Account {
    /// User part, like `1001`.
    pub user: String,
    /// Password.
    pub password: String,
    /// Transport towards the server.
    pub via: Via,
    /// The server's address for that transport.
    pub registrar: SocketAddr,
    /// The second registrar, for a phone that can have one.
    pub backup: Option<SocketAddr>,
    /// Seconds between registrations.
    pub expires_s: u32,
    /// Certificate of the deployment's certificate authority.
    pub authority: PathBuf,
    /// Pitch of the tone that the phone sends.
    pub tone_hz: u32,
    /// Whether its media is what browsers speak: ICE, DTLS-SRTP, RTCP beside RTP. For baresip, with
    /// [`pretend_network`].
    pub is_webrtc: bool,
}

impl Account {
    /// An example user that registers at `server` by this transport.
    ///
    /// Errors: no such user.
    pub fn of(deployment: &Deployment, user: &str, server: &str, via: Via, tone_hz: u32) -> Result<Self> {
        let registrar = match via {
            Via::Udp | Via::Tcp => Deployment::sip(server),
            Via::Tls => Deployment::sip_tls(server),
            Via::Wss => Deployment::sip_wss(server),
        };
        Ok(Self {
            user: user.to_owned(),
            password: deployment.password(user)?.to_owned(),
            via,
            registrar,
            backup: None,
            expires_s: 600,
            authority: deployment.dir().join("ca/cert.pem"),
            tone_hz,
            is_webrtc: false,
        })
    }
}

/// A running softphone. Dropping it ends its process.
#[derive(Debug)]
pub struct Softphone {
    product: Product,
    user: String,
    folder: PathBuf,
    process: Child,
    input: ChildStdin,
    printed: Arc<Mutex<String>>,
    /// Where in `printed` the next wait begins: nothing is found twice.
    read: usize,
    /// Number of the call in progress, for the name of its recording.
    calls: u32,
}

impl Softphone {
    /// Starts a phone with a folder of its own below the test's scratch folder.
    ///
    /// Errors: the phone is not installed, or its files cannot be written.
    pub fn start(deployment: &Deployment, product: Product, account: &Account) -> Result<Self> {
        let folder = deployment.scratch().join(format!("{product:?}-{}", account.user));
        fs::create_dir_all(&folder)?;
        write_tone(&folder.join("tone.wav"), account.tone_hz, TONE_S)?;
        let command = match product {
            Product::Baresip => baresip::command(&folder, account)?,
            Product::Linphone => linphone::command(&folder, account)?,
        };
        let mut phone = Self::run(product, &account.user, folder, command)?;
        if product == Product::Linphone {
            phone.type_line("soundcard use files")?;
        }
        Ok(phone)
    }

    /// Starts a phone with the files that `tandem init` made, by the command that `tandem up` prints.
    ///
    /// `name` is the user part, or `USER-at-POOL` for the one that registers at the backup registrar.
    ///
    /// Errors: as [`Self::start`].
    pub fn ready_made(deployment: &Deployment, product: Product, name: &str) -> Result<Self> {
        let folder = deployment.dir().join("phones").join(name);
        let user = name.split('-').next().unwrap_or(name);
        let command = match product {
            Product::Baresip => baresip::printed_command(&folder),
            Product::Linphone => linphone::printed_command(&folder),
        };
        Self::run(product, user, folder, command)
    }

    fn run(product: Product, user: &str, folder: PathBuf, mut command: Command) -> Result<Self> {
        // Both products keep files below HOME whatever they are told.
        let home = folder.join("home");
        fs::create_dir_all(&home)?;
        let mut process = command
            .env("HOME", home)
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{product:?} cannot be run: is it installed?"))?;
        let input = process.stdin.take().context("a phone's input")?;
        let printed = Arc::new(Mutex::new(String::new()));
        let out = process.stdout.take().context("a phone's output")?;
        let err = process.stderr.take().context("a phone's errors")?;
        keep(out, Arc::clone(&printed));
        keep(err, Arc::clone(&printed));
        Ok(Self { product, user: user.to_owned(), folder, process, input, printed, read: 0, calls: 0 })
    }

    /// User part of the phone's user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Address-of-record of the phone's user.
    pub fn aor(&self) -> String {
        aor(&self.user)
    }

    /// Waits until the phone says that it is registered.
    ///
    /// Errors: it does not say so in time.
    pub fn wait_registered(&mut self) -> Result<()> {
        self.wait_registered_within(PATIENCE)
    }

    /// The same with another limit.
    ///
    /// Errors: it does not say so in time.
    pub fn wait_registered_within(&mut self, limit: Duration) -> Result<()> {
        match self.product {
            Product::Baresip => self.wait_within("registered successfully", limit),
            Product::Linphone => {
                let what = format!("{} registered", self.user);
                let asked = wait_until(&what, limit, || {
                    self.type_line("status register")?;
                    let answered = ["registered, identity", "registered=0", "registered=-1"];
                    Ok(self.wait_any(&answered, PATIENCE)? == 0)
                });
                asked.map(drop).with_context(|| self.transcript())
            }
        }
    }

    /// Calls a user, and waits until the far phone rings.
    ///
    /// Errors: it does not ring.
    pub fn call(&mut self, user: &str) -> Result<()> {
        self.calls += 1;
        let to = aor(user);
        match self.product {
            Product::Baresip => {
                self.type_line(&format!("/dial {to}"))?;
                self.wait("180 Ringing")
            }
            Product::Linphone => {
                self.type_line(&format!("call {to}"))?;
                self.wait(" ringing.")
            }
        }
    }

    /// Waits for a call from this user and answers it; both phones are then in the call.
    ///
    /// Errors: no call comes, or it is not established.
    pub fn answer(&mut self, caller: &mut Self) -> Result<()> {
        self.answer_user(&caller.user)?;
        caller.wait_established()
    }

    /// Waits for a call from this user and answers it; this phone is then in the call.
    ///
    /// Errors: no call comes, or it is not established.
    pub fn answer_user(&mut self, caller: &str) -> Result<()> {
        self.calls += 1;
        let from = aor(caller);
        match self.product {
            Product::Baresip => {
                self.wait("ncoming call from:")?;
                self.wait(&from)?;
                self.type_line("/accept")?;
            }
            Product::Linphone => {
                self.wait(&format!("incoming call from {from}"))?;
                self.type_line("answer")?;
            }
        }
        self.wait_established()
    }

    /// Waits until the call in progress is up.
    ///
    /// Errors: it is not, in time.
    pub fn wait_established(&mut self) -> Result<()> {
        match self.product {
            Product::Baresip => self.wait("Call established"),
            Product::Linphone => {
                self.wait("Media streams established")?;
                let tone = self.folder.join("tone.wav");
                if tone.is_file() {
                    self.type_line(&format!("play {}", tone.display()))?;
                    self.type_line(&format!("record {}", self.recording().display()))?;
                }
                Ok(())
            }
        }
    }

    /// Puts the far phone on hold.
    ///
    /// Errors: the phone does not say that it did.
    pub fn hold(&mut self) -> Result<()> {
        match self.product {
            Product::Baresip => {
                self.type_line("/hold")?;
                self.wait("call: hold ")
            }
            Product::Linphone => {
                self.type_line("pause")?;
                self.wait(" is now paused")
            }
        }
    }

    /// Takes the far phone from hold.
    ///
    /// Errors: the phone does not say that it did.
    pub fn resume(&mut self) -> Result<()> {
        match self.product {
            Product::Baresip => {
                self.type_line("/resume")?;
                self.wait("call: resume ")
            }
            Product::Linphone => {
                self.type_line("resume")?;
                self.wait("Media streams established")
            }
        }
    }

    /// Hangs up; both phones then say that the call is over.
    ///
    /// Errors: one of them does not.
    pub fn hang_up(&mut self, far: &mut Self) -> Result<()> {
        match self.product {
            Product::Baresip => self.type_line("/hangup")?,
            Product::Linphone => self.type_line("terminate")?,
        }
        match self.product {
            Product::Baresip => self.wait("call: terminate call")?,
            Product::Linphone => self.wait(" ended (No error)")?,
        }
        match far.product {
            Product::Baresip => far.wait("session closed"),
            Product::Linphone => far.wait(" ended (No error)"),
        }
    }

    /// Writes to the user of another phone, and waits until that phone shows it.
    ///
    /// Errors: it does not.
    pub fn message(&mut self, far: &mut Self, text: &str) -> Result<()> {
        let to = far.aor();
        match self.product {
            Product::Baresip => {
                self.choose_contact(&to)?;
                self.type_line(&format!("/message {text}"))?;
            }
            Product::Linphone => self.type_line(&format!("chat {to} {text}"))?,
        }
        match far.product {
            Product::Baresip => far.wait(&format!("{}: \"{text}\"", self.aor())),
            Product::Linphone => far.wait(&format!("Message received from {}: {text}", self.aor())),
        }
    }

    /// Steps through the contacts until the one to write to is the current one.
    fn choose_contact(&mut self, to: &str) -> Result<()> {
        let contacts = fs::read_to_string(self.folder.join("contacts"))?;
        ensure!(contacts.contains(to), "{to} is no contact of {}", self.user);
        let current =
            format!("> {} <{to}>", to.trim_start_matches("sip:").split('@').next().unwrap_or_default());
        self.type_line("/contacts")?;
        self.wait("--- Contacts")?;
        if self.wait_any(&[&current, "\n\n"], PATIENCE)? == 0 {
            return Ok(());
        }
        for _ in contacts.lines() {
            self.type_line("/contact_next")?;
            self.wait("Current contact: ")?;
            if self.wait_any(&[&format!("<{to}>"), "\n"], PATIENCE)? == 0 {
                return Ok(());
            }
        }
        anyhow::bail!("{to} cannot be chosen:\n{}", self.transcript())
    }

    /// Waits until the phone has recorded enough of the call to judge it.
    ///
    /// Errors: no audio comes.
    pub fn wait_audio(&self) -> Result<()> {
        let what = format!("audio at {}", self.user);
        let waited = wait_until(&what, PATIENCE, || {
            let heard = self.newest_recording().and_then(|file| Some(fs::metadata(file).ok()?.len()));
            Ok(heard.is_some_and(|bytes| bytes >= AUDIO_BYTES))
        });
        waited.map(drop).with_context(|| self.transcript())
    }

    /// Share of the energy of what the phone heard in its last call that lies at `hertz`, 0 to 1.
    ///
    /// Errors: it heard nothing.
    pub fn heard(&self, hertz: u32) -> Result<f64> {
        let file = self.newest_recording().with_context(|| format!("{} recorded nothing", self.user))?;
        share_of_tone(&file, hertz)
    }

    /// Forgets the recordings of earlier calls.
    ///
    /// Errors: they cannot be removed.
    pub fn forget_recordings(&self) -> Result<()> {
        self.recordings().into_iter().try_for_each(|file| fs::remove_file(file).map_err(Into::into))
    }

    fn recording(&self) -> PathBuf {
        self.folder.join(format!("heard-{}-dec.wav", self.calls))
    }

    fn newest_recording(&self) -> Option<PathBuf> {
        self.recordings()
            .into_iter()
            .max_by_key(|file| fs::metadata(file).and_then(|data| data.modified()).ok())
    }

    fn recordings(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let is_heard = |path: &Path| path.to_string_lossy().ends_with("-dec.wav");
        entries.map(|entry| entry.path()).filter(|path| is_heard(path)).collect()
    }

    /// Types a line.
    ///
    /// Errors: the phone has ended.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        let typed = self.input.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.input.flush());
        typed.with_context(|| format!("{} ended:\n{}", self.user, self.transcript()))
    }

    /// Waits until the phone prints this, after whatever was waited for before.
    ///
    /// Errors: it does not, with all that it printed.
    pub fn wait(&mut self, text: &str) -> Result<()> {
        self.wait_within(text, PATIENCE)
    }

    /// The same with another limit.
    ///
    /// Errors: as [`Self::wait`].
    pub fn wait_within(&mut self, text: &str, limit: Duration) -> Result<()> {
        self.wait_any(&[text], limit).map(drop)
    }

    /// Waits for the first of several texts; returns which.
    fn wait_any(&mut self, texts: &[&str], limit: Duration) -> Result<usize> {
        let what = format!("{} ({:?}) prints {texts:?}", self.user, self.product);
        let mut found = None;
        let waited = wait_until(&what, limit, || {
            let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
            let news = printed.get(self.read..).unwrap_or_default();
            let places = texts.iter().enumerate();
            found = places
                .filter_map(|(which, text)| Some((news.find(text)?, which, text.len())))
                .min()
                .map(|(at, which, length)| (self.read + at + length, which));
            Ok(found.is_some())
        });
        waited.with_context(|| self.transcript())?;
        let (end, which) = found.context("what was waited for")?;
        self.read = end;
        Ok(which)
    }

    /// All that the phone printed.
    pub fn transcript(&self) -> String {
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        format!("--- {} ({:?}) printed:\n{printed}", self.user, self.product)
    }
}

impl Drop for Softphone {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Gives a namespace an address besides loopback and a default route, to itself: linphone signs off where it
/// finds no network.
///
/// Errors: `ip` fails.
pub fn pretend_network(namespace: &Namespace) -> Result<()> {
    let run = |arguments: &[&str]| -> Result<()> {
        let status = Command::new("ip").args(["-n", namespace.name()]).args(arguments).status()?;
        ensure!(status.success(), "ip {}", arguments.join(" "));
        Ok(())
    };
    run(&["address", "add", &format!("{PRETENDED_ADDRESS}/32"), "dev", "lo"])?;
    run(&["route", "add", "default", "dev", "lo", "src", PRETENDED_ADDRESS])
}

fn aor(user: &str) -> String {
    format!("sip:{user}@example.com")
}

/// Keeps what a phone prints, without what colours it.
fn keep(from: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut some = [0; 4_096];
        while let Ok(count) = from.read(&mut some) {
            let Some(bytes) = some.get(..count).filter(|bytes| !bytes.is_empty()) else { return };
            let text = String::from_utf8_lossy(bytes);
            into.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    });
}
