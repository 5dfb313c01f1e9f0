//! A deployment of one test: its folder, its servers as processes, its namespace.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Namespace, Operator, wait_for};

/// The servers of the example deployment, in the order in which they are started.
pub const SERVERS: [&str; 4] = ["control1", "east1", "west1", "branch1a"];

/// How long a server may take until it says that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a command may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// Log lines of each server that are shown when a test failed.
const LOG_LINES_SHOWN: usize = 15;
/// Set to keep the folder of a test that failed.
const KEEP_VARIABLE: &str = "TANDEM_E2E_KEEP";

/// The time limits of both pools, shorter than the defaults so that tests are short.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// `lease_ttl_s`.
    pub lease_s: u32,
    /// `takeover_after_s`.
    pub takeover_s: u32,
    /// `hold_s`.
    pub hold_s: u32,
}

impl Timing {
    /// The shortest that the topology allows.
    pub const FAST: Self = Self { lease_s: 1, takeover_s: 2, hold_s: 3 };
    /// The defaults of the product.
    pub const DEFAULT: Self = Self { lease_s: 5, takeover_s: 10, hold_s: 120 };
}

/// What a command printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

impl Ran {
    /// Standard output as JSON.
    ///
    /// Errors: it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("no JSON: {self:?}"))
    }
}

/// A command that was begun. It goes on when this is dropped.
#[derive(Debug)]
pub struct RunningCommand {
    what: String,
    process: Pid,
    ended: mpsc::Receiver<std::io::Result<Output>>,
    has_ended: Arc<AtomicBool>,
    began: Instant,
}

impl RunningCommand {
    /// Ends it at once with SIGKILL, unless it ended already.
    pub fn kill(&self) {
        // The waiting thread has not reaped it before its output is here, so the id is still its own.
        if let Err(mpsc::TryRecvError::Empty) = self.ended.try_recv() {
            let _ = kill_process(self.process, Signal::KILL);
        }
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Waits for its end, and ends it itself after `limit`.
    ///
    /// Errors: it took too long.
    pub fn wait(self, limit: Duration) -> Result<Ran> {
        let Ok(output) = self.ended.recv_timeout(limit) else {
            let _ = kill_process(self.process, Signal::KILL);
            bail!("tandem {} did not end within {limit:?}", self.what);
        };
        let output = output?;
        Ok(Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: self.began.elapsed(),
        })
    }
}

/// A deployment made by `tandem init`, alone in a namespace. Dropping it ends its processes and removes
/// everything.
#[derive(Debug)]
pub struct Deployment {
    running: Mutex<HashMap<String, Child>>,
    passwords: HashMap<String, String>,
    folder: TempDir,
    namespace: Namespace,
}

impl Deployment {
    /// Makes the example deployment with these time limits; no server runs yet.
    ///
    /// The calling thread moves into the deployment's namespace: it can open sockets there.
    ///
    /// Errors: the binary is missing or `tandem init` fails.
    pub fn new(timing: Timing) -> Result<Self> {
        let namespace = Namespace::enter()?;
        let folder = tempfile::Builder::new().prefix("tandem-e2e-").tempdir()?;
        let dir = folder.path().join("d");
        let made = Command::new(tandem_binary()?).arg("init").arg(&dir).output()?;
        ensure!(made.status.success(), "tandem init: {}", String::from_utf8_lossy(&made.stderr));
        let passwords = read_passwords(&dir)?;
        let deployment = Self { running: Mutex::default(), passwords, folder, namespace };
        let settings = format!(
            "[pool.settings]\nlease_ttl_s = {}\ntakeover_after_s = {}\nhold_s = {}\n",
            timing.lease_s, timing.takeover_s, timing.hold_s
        );
        deployment.edit_topology(|text| {
            text.replace("users_capacity = 12000\n", &format!("users_capacity = 12000\n{settings}"))
        })?;
        Ok(deployment)
    }

    /// The example deployment with these time limits, all servers ready, both pools owned by themselves.
    ///
    /// Errors: as [`Self::new`] and [`Self::start`].
    pub fn running(timing: Timing) -> Result<Self> {
        let deployment = Self::new(timing)?;
        for server in SERVERS {
            deployment.start(server)?;
        }
        deployment.wait_serving("east1", "east", Some("full"), Duration::from_secs(30))?;
        deployment.wait_serving("west1", "west", Some("full"), Duration::from_secs(30))?;
        deployment.wait_serving("branch1a", "branch1", Some("full"), Duration::from_secs(30))?;
        deployment.wait_users_known(&["east1", "west1"], Duration::from_secs(30))?;
        Ok(deployment)
    }

    /// Waits until these servers know every example user: those of another pool come with its journal.
    ///
    /// Errors: not within `limit`.
    pub fn wait_users_known(&self, servers: &[&str], limit: Duration) -> Result<Duration> {
        let wanted = u64::try_from(self.passwords.len())?;
        let began = Instant::now();
        for server in servers {
            let mut operator = Operator::new(self, server, limit);
            crate::wait_until(&format!("{server} to know {wanted} users"), limit, || {
                let status = operator.ask("GET", "/v1/status", None)?.json()?;
                Ok(status.get("users_known").and_then(Value::as_u64) >= Some(wanted))
            })?;
        }
        Ok(began.elapsed())
    }

    /// The deployment's folder, to be named with `--dir`.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("d")
    }

    /// The data folder of a server.
    pub fn data(&self, server: &str) -> PathBuf {
        self.dir().join("servers").join(server).join("data")
    }

    /// A folder for the test's own files, beside the deployment's.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// The namespace, to cut links.
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The address of a server of the example deployment.
    pub fn ip(server: &str) -> IpAddr {
        let third = match server {
            "east1" => 1,
            "west1" => 2,
            "branch1a" => 3,
            "north1" => 5,
            _ => 4,
        };
        IpAddr::V4(Ipv4Addr::new(127, 0, third, 1))
    }

    /// Where phones reach a server by UDP and TCP.
    pub fn sip(server: &str) -> SocketAddr {
        SocketAddr::new(Self::ip(server), 5060)
    }

    /// Where phones reach a server by TLS.
    pub fn sip_tls(server: &str) -> SocketAddr {
        SocketAddr::new(Self::ip(server), 5061)
    }

    /// Where phones reach a server by WebSocket over TLS.
    pub fn sip_wss(server: &str) -> SocketAddr {
        SocketAddr::new(Self::ip(server), 7443)
    }

    /// The password of an example user, like `1001`.
    ///
    /// Errors: there is no such user.
    pub fn password(&self, user: &str) -> Result<&str> {
        let password = self.passwords.get(user).map(String::as_str);
        password.with_context(|| format!("user {user} has no password in users.csv"))
    }

    /// Changes the topology document; servers read it when they start.
    ///
    /// Errors: the file cannot be read or written.
    pub fn edit_topology(&self, change: impl FnOnce(&str) -> String) -> Result<()> {
        let file = self.dir().join("topology.toml");
        let text = fs::read_to_string(&file)?;
        fs::write(&file, change(&text)).map_err(Into::into)
    }

    /// Starts one server and waits until it says that it is ready.
    ///
    /// Errors: it ends instead, with the end of its log.
    pub fn start(&self, server: &str) -> Result<()> {
        let mut child = self.spawn(server)?;
        let out = child.stdout.take().context("a server's output")?;
        let (line, lines) = mpsc::channel();
        thread::spawn(move || {
            for text in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = line.send(text);
            }
        });
        match lines.recv_timeout(READY_WITHIN) {
            Ok(text) if text == "ready" => {}
            other => {
                let _ = child.kill();
                let status = child.wait()?;
                bail!("{server} said {other:?} and ended with {status}:\n{}", self.log_end(server));
            }
        }
        self.children().insert(server.to_owned(), child);
        Ok(())
    }

    /// Runs a server that is expected to end by itself, like one whose port is taken.
    ///
    /// Errors: it does not end.
    pub fn serve_and_wait(&self, server: &str) -> Result<Ran> {
        let topology = self.dir().join("topology.toml");
        let topology = topology.to_string_lossy();
        self.tandem(&["serve", "--topology", &topology, "--server", server], b"")
    }

    /// Ends a server at once with SIGKILL and waits for its end.
    ///
    /// Errors: it does not run.
    pub fn kill(&self, server: &str) -> Result<()> {
        let mut child = self.children().remove(server).with_context(|| format!("{server} does not run"))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks a server to end with SIGTERM and waits for its end.
    ///
    /// Errors: it does not run, or it ends with an error.
    pub fn stop(&self, server: &str) -> Result<()> {
        let mut child = self.children().remove(server).with_context(|| format!("{server} does not run"))?;
        kill_process(pid(&child)?, Signal::TERM)?;
        let wait = wait_for("the end of a server", Duration::from_secs(20), || Ok(child.try_wait()?));
        if wait.is_err() {
            let _ = child.kill();
        }
        let (status, _) = wait?;
        ensure!(status.success(), "{server} ended with {status}");
        Ok(())
    }

    /// Freezes a server with SIGSTOP.
    ///
    /// Errors: it does not run.
    pub fn freeze(&self, server: &str) -> Result<()> {
        self.signal(server, Signal::STOP)
    }

    /// Lets a frozen server go on.
    ///
    /// Errors: it does not run.
    pub fn thaw(&self, server: &str) -> Result<()> {
        self.signal(server, Signal::CONT)
    }

    /// Whether a server's process is there.
    pub fn is_running(&self, server: &str) -> bool {
        let mut children = self.children();
        children.get_mut(server).is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The process id of a running server.
    ///
    /// Errors: it does not run.
    pub fn process_id(&self, server: &str) -> Result<u32> {
        self.children().get(server).map(Child::id).with_context(|| format!("{server} does not run"))
    }

    /// Resident memory of a running server in kilobytes.
    ///
    /// Errors: it does not run.
    pub fn memory_kb(&self, server: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process_id(server)?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Runs `tandem` with these arguments and this on standard input, inside the namespace.
    ///
    /// Errors: it cannot be run or takes too long.
    pub fn tandem(&self, arguments: &[&str], input: &[u8]) -> Result<Ran> {
        self.begin(arguments, input)?.wait(COMMAND_WITHIN)
    }

    /// Begins to run `tandem`, without waiting for its end.
    ///
    /// Errors: it cannot be run.
    pub fn begin(&self, arguments: &[&str], input: &[u8]) -> Result<RunningCommand> {
        let began = Instant::now();
        let mut child = Command::new(tandem_binary()?)
            .args(arguments)
            .env("TANDEM_DIR", self.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let process = pid(&child)?;
        if let Some(mut stdin) = child.stdin.take() {
            let _reads_no_more = stdin.write_all(input);
        }
        let (done, ended) = mpsc::channel();
        let has_ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&has_ended);
        thread::spawn(move || {
            let output = child.wait_with_output();
            told.store(true, Ordering::Relaxed);
            let _ = done.send(output);
        });
        Ok(RunningCommand { what: arguments.join(" "), process, ended, has_ended, began })
    }

    /// Contact URIs registered for a user, by server, as `tandem registration show` has them.
    ///
    /// Errors: no server answers.
    pub fn registrations(&self, user: &str) -> Result<Vec<(String, String)>> {
        let aor = format!("sip:{user}@example.com");
        let ran = self.tandem(&["registration", "show", &aor, "--output", "json"], b"")?;
        let json = ran.json()?;
        let list = json.as_array().context("a list of registrations")?;
        let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
        let pairs = list.iter().map(|entry| Some((text(entry, "server")?, text(entry, "contact")?)));
        pairs.collect::<Option<_>>().ok_or_else(|| anyhow!("registrations without server or contact: {json}"))
    }

    /// How `server` says that it serves a home pool: `full`, `resiliency`, or nothing.
    ///
    /// Errors: `tandem pool status` fails.
    pub fn service(&self, server: &str, home: &str) -> Result<Option<String>> {
        let json = self.tandem(&["pool", "status", "--output", "json"], b"")?.json()?;
        let is = |entry: &Value, key: &str, text: &str| entry.get(key).and_then(Value::as_str) == Some(text);
        let asked = json.as_array().into_iter().flatten().find(|asked| is(asked, "server", server));
        let homes = asked.and_then(|asked| asked.pointer("/status/homes")?.as_array());
        let found = homes.into_iter().flatten().find(|entry| is(entry, "home", home));
        Ok(found.and_then(|entry| entry.get("service")?.as_str()).map(ToOwned::to_owned))
    }

    /// A counter of a server.
    ///
    /// Errors: `tandem pool status` fails, or there is no such counter.
    pub fn counter(&self, server: &str, name: &str) -> Result<u64> {
        let json = self.tandem(&["pool", "status", "--output", "json"], b"")?.json()?;
        let is_server = |entry: &&Value| entry.get("server").and_then(Value::as_str) == Some(server);
        let asked = json.as_array().into_iter().flatten().find(is_server);
        let counters = asked.and_then(|asked| asked.pointer("/status/counters")?.as_array());
        let is_it = |pair: &&Value| pair.get(0).and_then(Value::as_str) == Some(name);
        let found = counters.into_iter().flatten().find(is_it);
        found.and_then(|pair| pair.get(1)?.as_u64()).with_context(|| format!("no counter {name} of {server}"))
    }

    /// Waits until `server` says that it serves a home pool this way; `None`: not at all.
    ///
    /// Errors: not within `limit`.
    pub fn wait_serving(
        &self,
        server: &str,
        home: &str,
        service: Option<&str>,
        limit: Duration,
    ) -> Result<Duration> {
        let what = format!("{server} serves {home}: {service:?}");
        let waited =
            crate::wait_until(&what, limit, || Ok(self.service(server, home)?.as_deref() == service));
        waited.with_context(|| self.tandem(&["pool", "status"], b"").map(|ran| ran.out).unwrap_or_default())
    }

    /// The last lines of a server's log.
    pub fn log_end(&self, server: &str) -> String {
        let log = fs::read_to_string(self.log_file(server)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_LINES_SHOWN)..).unwrap_or_default().join("\n")
    }

    fn log_file(&self, server: &str) -> PathBuf {
        self.dir().join("servers").join(server).join("log")
    }

    fn spawn(&self, server: &str) -> Result<Child> {
        let log: File = OpenOptions::new().create(true).append(true).open(self.log_file(server))?;
        let child = Command::new(tandem_binary()?)
            .arg("serve")
            .arg("--topology")
            .arg(self.dir().join("topology.toml"))
            .args(["--server", server, "--until-stdin-closes"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        Ok(child)
    }

    fn signal(&self, server: &str, signal: Signal) -> Result<()> {
        let children = self.children();
        let child = children.get(server).with_context(|| format!("{server} does not run"))?;
        kill_process(pid(child)?, signal).map_err(Into::into)
    }

    fn children(&self) -> MutexGuard<'_, HashMap<String, Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for (_, mut child) in self.children().drain() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            for server in SERVERS {
                eprintln!("--- log of {server}\n{}", self.log_end(server));
            }
            if std::env::var_os(KEEP_VARIABLE).is_some() {
                self.folder.disable_cleanup(true);
                eprintln!("--- kept: {}", self.folder.path().display());
            }
        }
    }
}

/// The program under test: `target/debug/tandem` of this workspace, or what `TANDEM_BINARY` names.
///
/// Errors: it was not built, or from sources that have changed since: `cargo test` alone does not build it.
pub fn tandem_binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("TANDEM_BINARY") {
        return Ok(named.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let binary = workspace.join("target/debug/tandem");
    ensure!(binary.is_file(), "{} is missing: run `cargo build` first", binary.display());
    let built_at = binary.metadata()?.modified()?;
    let is_newer = |source: &str| {
        fs::metadata(source).and_then(|found| found.modified()).is_ok_and(|changed_at| changed_at > built_at)
    };
    // Cargo's list of what the program was made from.
    let sources = fs::read_to_string(binary.with_extension("d")).unwrap_or_default();
    let newer = sources.split_whitespace().skip(1).find(|source| is_newer(source));
    ensure!(newer.is_none(), "{} is older than {newer:?}: run `cargo build` first", binary.display());
    Ok(binary)
}

fn read_passwords(dir: &Path) -> Result<HashMap<String, String>> {
    let mut text = String::new();
    File::open(dir.join("users.csv"))?.read_to_string(&mut text)?;
    let rows = text.lines().skip(1).filter_map(|line| {
        let mut fields = line.split(',');
        let user = fields.next()?.strip_prefix("sip:")?.split('@').next()?;
        Some((user.to_owned(), fields.next()?.to_owned()))
    });
    Ok(rows.collect())
}

fn pid(child: &Child) -> Result<Pid> {
    Pid::from_raw(i32::try_from(child.id())?).context("a process id")
}
