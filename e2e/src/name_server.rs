//! A name server of one test: dnsmasq, in the test's namespace.

use std::{
    fs::{self, File},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::wait_until;

/// Serves the zone `test` until it is dropped.
#[derive(Debug)]
pub struct NameServer {
    process: Child,
    log: PathBuf,
}

impl NameServer {
    /// Starts one at `address` port 53, with the files `dns.conf` and `dns.log` in `folder`. `records` are
    /// options of dnsmasq, such as `srv-host=_sip._udp.a.test,b.test,5060,1,2`; `ttl_s` is the time to live
    /// of all of them.
    ///
    /// Errors: dnsmasq is missing or does not start.
    pub fn start(folder: &Path, address: IpAddr, ttl_s: u32, records: &[String]) -> Result<Self> {
        let (file, log) = (folder.join("dns.conf"), folder.join("dns.log"));
        let text = format!(
            "no-resolv\nno-hosts\nlocal=/test/\nbind-interfaces\nlisten-address={address}\nuser=root\n\
             local-ttl={ttl_s}\nlog-queries\n{}\n",
            records.join("\n")
        );
        fs::write(&file, text)?;
        let process = Command::new("dnsmasq")
            .arg("--no-daemon")
            .arg("--pid-file")
            .arg(format!("--conf-file={}", file.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("dnsmasq: see tools/install.sh")?;
        let mut server = Self { process, log };
        wait_until("dnsmasq", Duration::from_secs(10), || {
            ensure!(server.process.try_wait()?.is_none(), "dnsmasq ended: {}", server.log()?);
            Ok(server.log()?.contains("started"))
        })?;
        Ok(server)
    }

    /// What it was asked so far, a line for each question and answer.
    ///
    /// Errors: the log cannot be read.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).map_err(Into::into)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
