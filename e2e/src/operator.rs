//! The API of a server as its operator uses it: HTTP/1.1 under mutual TLS, through `openssl s_client`, an
//! implementation not ours, over one connection that stays open.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::Deployment;

/// An answer of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Body: JSON, or a line of text that says what is wrong.
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    ///
    /// Errors: it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {self:?}"))
    }
}

/// The operator at one server. A connection is made when it is needed and again after an error.
#[derive(Debug)]
pub struct Operator {
    dir: PathBuf,
    address: SocketAddr,
    limit: Duration,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    process: Child,
    input: ChildStdin,
    replies: Receiver<Result<Reply>>,
}

impl Operator {
    /// The operator of a deployment, speaking to this server; a request may take so long.
    pub fn new(deployment: &Deployment, server: &str, limit: Duration) -> Self {
        let address = SocketAddr::new(Deployment::ip(server), 8_443);
        Self { dir: deployment.dir(), address, limit, connection: None }
    }

    /// One request.
    ///
    /// Errors: no connection, or no answer in time: whether it acted is unknown then.
    pub fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply> {
        let reply = self.exchange(method, path, body);
        if reply.is_err() {
            self.connection = None;
        }
        reply.with_context(|| format!("{method} {path} at {}", self.address))
    }

    fn exchange(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address.ip());
        let body = body.map(Value::to_string).unwrap_or_default();
        if !body.is_empty() {
            text.push_str("Content-Type: application/json\r\n");
        }
        write!(text, "Content-Length: {}\r\n\r\n{body}", body.len())?;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.dir, self.address)?),
        };
        connection.input.write_all(text.as_bytes())?;
        connection.input.flush()?;
        connection.replies.recv_timeout(self.limit).map_err(|_| anyhow!("no answer"))?
    }
}

impl Connection {
    fn open(dir: &Path, address: SocketAddr) -> Result<Self> {
        let mut process = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", "-connect"])
            .arg(address.to_string())
            .arg("-CAfile")
            .arg(dir.join("ca/cert.pem"))
            .arg("-cert")
            .arg(dir.join("operator/cert.pem"))
            .arg("-key")
            .arg(dir.join("operator/key.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("openssl")?;
        let input = process.stdin.take().context("the input of openssl")?;
        let output = process.stdout.take().context("the output of openssl")?;
        let (reply, replies) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(output);
            loop {
                let read = read_reply(&mut reader);
                let is_end = read.is_err();
                if reply.send(read).is_err() || is_end {
                    return;
                }
            }
        });
        Ok(Self { process, input, replies })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read_reply(reader: &mut BufReader<ChildStdout>) -> Result<Reply> {
    let mut line = String::new();
    ensure!(reader.read_line(&mut line)? > 0, "the connection ended");
    let status = line.split(' ').nth(1).context("a status line")?.parse()?;
    let mut length = 0;
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the connection ended");
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Reply { status, body: String::from_utf8_lossy(&body).into_owned() })
}
