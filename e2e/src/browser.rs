//! A phone in a real browser: JsSIP in headless Chromium, driven over Chromium's DevTools protocol.
//!
//! The page is `e2e/browser/phone.js`, built by `tools/install.sh`.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::{Deployment, wait_for, wait_until};

/// How long the browser may take for its start and for one thing that it is asked.
const PATIENCE: Duration = Duration::from_secs(40);

/// JsSIP in a browser of its own. Dropping it ends the browser.
#[derive(Debug)]
pub struct WebPhone {
    process: Child,
    devtools: WebSocket<TcpStream>,
    session: String,
    asked: u64,
    url: String,
}

impl WebPhone {
    /// Starts a browser with the phone's page, which trusts the key of this server beside the authorities
    /// that it knows.
    ///
    /// Errors: Chromium, OpenSSL or the built page is missing.
    pub fn start(deployment: &Deployment, name: &str, server: &str) -> Result<Self> {
        let folder = deployment.scratch().join(format!("browser-{name}"));
        fs::create_dir_all(&folder)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/dist/phone.js");
        fs::copy(&script, folder.join("phone.js"))
            .with_context(|| format!("{} is missing: run tools/install.sh", script.display()))?;
        let page = folder.join("phone.html");
        fs::write(&page, "<!doctype html><title>phone</title><script src=\"phone.js\"></script>")?;
        let key = key_hash(&deployment.dir().join("servers").join(server).join("cert.pem"))?;
        let process = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--autoplay-policy=no-user-gesture-required"])
            .args(["--disable-background-networking", "--remote-debugging-port=0"])
            .args(["--allow-loopback-in-peer-connection", "--disable-features=WebRtcHideLocalIpsWithMdns"])
            .arg(format!("--ignore-certificate-errors-spki-list={key}"))
            .arg(format!("--user-data-dir={}", folder.join("profile").display()))
            .arg(format!("file://{}", page.display()))
            .env("HOME", &folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("chromium cannot be run: is it installed?")?;
        let mut starting = Starting(Some(process));
        let devtools = connect(&folder.join("profile/DevToolsActivePort"))?;
        let process = starting.0.take().context("a browser was started")?;
        let url = format!("wss://{}/", Deployment::sip_wss(server));
        let mut phone = Self { process, devtools, session: String::new(), asked: 0, url };
        phone.attach()?;
        wait_until("the page to be loaded", PATIENCE, || Ok(phone.evaluate("typeof phone")? == "object"))?;
        Ok(phone)
    }

    /// Registers as an example user; answers calls from now on.
    ///
    /// Errors: refused, with JsSIP's reason.
    pub fn register(&mut self, deployment: &Deployment, user: &str) -> Result<()> {
        let (url, password) = (json!(self.url), json!(deployment.password(user)?));
        let status = self.evaluate(&format!("phone.register({url}, '{user}', {password})"))?;
        ensure!(status == 200, "registered with {status}");
        Ok(())
    }

    /// Calls a user; does not wait.
    ///
    /// Errors: the browser does not answer.
    pub fn dial(&mut self, user: &str) -> Result<()> {
        self.evaluate(&format!("phone.dial('{user}')")).map(drop)
    }

    /// Waits until a call is up, or none is.
    ///
    /// Errors: not in time.
    pub fn wait_up(&mut self, is_up: bool) -> Result<()> {
        let what = if is_up { "a call in the browser" } else { "no call in the browser" };
        let waited = wait_until(what, PATIENCE, || Ok(self.evaluate("phone.isUp()")? == is_up));
        waited.map(drop).with_context(|| format!("{:?}", self.ended()))
    }

    /// Ends the call.
    ///
    /// Errors: there is none.
    pub fn hang_up(&mut self) -> Result<()> {
        self.evaluate("phone.hangUp()").map(drop)
    }

    /// How the calls so far ended, as `who: why` in JsSIP's words.
    ///
    /// Errors: the browser does not answer.
    pub fn ended(&mut self) -> Result<Value> {
        self.evaluate("phone.ended()")
    }

    /// Sends a text to a user.
    ///
    /// Errors: refused, with JsSIP's reason.
    pub fn message(&mut self, user: &str, text: &str) -> Result<()> {
        self.evaluate(&format!("phone.message('{user}', {})", json!(text))).map(drop)
    }

    /// Waits until a text has come.
    ///
    /// Errors: not in time.
    pub fn wait_text(&mut self, text: &str) -> Result<()> {
        wait_until("a text in the browser", PATIENCE, || {
            let texts = self.evaluate("phone.texts()")?;
            Ok(texts.as_array().is_some_and(|texts| texts.iter().any(|found| found == text)))
        })
        .map(drop)
    }

    /// Takes the registration back and closes the WebSocket.
    ///
    /// Errors: not in time.
    pub fn stop(&mut self) -> Result<()> {
        self.evaluate("phone.stop()").map(drop)
    }

    fn attach(&mut self) -> Result<()> {
        let (target, _) = wait_for("the phone's page", PATIENCE, || {
            let targets = self.ask("Target.getTargets", json!({}))?;
            let targets = targets.get("targetInfos").and_then(Value::as_array).cloned().unwrap_or_default();
            let page = targets.iter().find(|target| {
                let is_phone = text_of(target, "/url").is_some_and(|url| url.ends_with("phone.html"));
                is_phone && text_of(target, "/type") == Some("page")
            });
            Ok(page.and_then(|page| text_of(page, "/targetId")).map(ToOwned::to_owned))
        })?;
        let attached = self.ask("Target.attachToTarget", json!({ "targetId": target, "flatten": true }))?;
        self.session = text_of(&attached, "/sessionId").context("a session of the page")?.to_owned();
        Ok(())
    }

    /// What a script gives, its promise awaited.
    fn evaluate(&mut self, script: &str) -> Result<Value> {
        let parameters = json!({
            "expression": script,
            "awaitPromise": true,
            "returnByValue": true,
            "userGesture": true,
        });
        let answer = self.ask("Runtime.evaluate", parameters)?;
        if let Some(exception) = answer.get("exceptionDetails") {
            bail!("the browser: {}", text_of(exception, "/exception/description").unwrap_or("an exception"));
        }
        Ok(answer.pointer("/result/value").cloned().unwrap_or_default())
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.asked += 1;
        let mut question = json!({ "id": self.asked, "method": method, "params": parameters });
        if let Some(question) = question.as_object_mut().filter(|_| !self.session.is_empty()) {
            question.insert("sessionId".to_owned(), json!(self.session));
        }
        self.devtools.send(Message::text(question.to_string()))?;
        loop {
            let message = self.devtools.read().with_context(|| format!("{method}: no answer"))?;
            let Ok(text) = message.into_text() else { continue };
            let Ok(answer) = serde_json::from_str::<Value>(&text) else { continue };
            if answer.get("id").and_then(Value::as_u64) == Some(self.asked) {
                ensure!(answer.get("error").is_none(), "{method}: {answer}");
                return Ok(answer.get("result").cloned().unwrap_or_default());
            }
        }
    }
}

impl Drop for WebPhone {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

fn text_of<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    value.pointer(path).and_then(Value::as_str)
}

/// A browser that nobody has yet.
struct Starting(Option<Child>);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(process) = &mut self.0 {
            end(process);
        }
    }
}

/// Its own processes end with it: they notice that it is gone.
fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}

/// Waits for the file that names the port and the path of DevTools, and connects.
fn connect(file: &PathBuf) -> Result<WebSocket<TcpStream>> {
    let ((port, path), _) = wait_for("the browser", PATIENCE, || {
        let Ok(text) = fs::read_to_string(file) else { return Ok(None) };
        let named = text.split_once('\n').filter(|(_, path)| !path.is_empty());
        Ok(named.map(|(port, path)| (port.to_owned(), path.trim().to_owned())))
    })?;
    let address: SocketAddr = format!("127.0.0.1:{port}").parse()?;
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (socket, _) = tungstenite::client(format!("ws://{address}{path}"), stream)
        .map_err(|error| anyhow::anyhow!("DevTools: {error}"))?;
    Ok(socket)
}

/// SHA-256 of the public key in a certificate, in base64: how Chromium is told to trust it.
fn key_hash(certificate: &Path) -> Result<String> {
    let script = "openssl x509 -in \"$0\" -pubkey -noout | openssl pkey -pubin -outform der \
                  | openssl dgst -sha256 -binary | openssl base64";
    let output = Command::new("sh").arg("-c").arg(script).arg(certificate).output().context("openssl")?;
    let hash = String::from_utf8(output.stdout)?.trim().to_owned();
    ensure!(hash.len() == 44, "the key of {}: {hash:?}", certificate.display());
    Ok(hash)
}
