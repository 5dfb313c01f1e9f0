//! SIPp, driven by scenarios in `e2e/sipp`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::wait_for;

/// A running SIPp.
#[derive(Debug)]
pub struct Sipp {
    process: Child,
    name: String,
    errors: PathBuf,
    began: Instant,
}

/// How a SIPp run ended.
#[derive(Clone, Debug)]
pub struct SippResult {
    /// 0: every call succeeded.
    pub code: i32,
    /// What went wrong.
    pub errors: String,
    /// How long it took.
    pub took: Duration,
}

impl Sipp {
    /// Starts SIPp with a scenario of `e2e/sipp` and these arguments; its files go to `folder`.
    ///
    /// Errors: SIPp is missing.
    pub fn start(folder: &Path, scenario: &str, arguments: &[&str]) -> Result<Self> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("sipp").join(scenario);
        ensure!(file.is_file(), "{} is missing", file.display());
        let name = format!("{scenario}-{}", crate::phone::fresh());
        let errors = folder.join(format!("{name}.errors"));
        let process = Command::new("sipp")
            .arg("-sf")
            .arg(file)
            .args(["-trace_err", "-error_file"])
            .arg(&errors)
            .args(["-nostdin", "-timeout_error"])
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("sipp cannot be run: end-to-end tests need Debian's sip-tester")?;
        Ok(Self { process, name, errors, began: Instant::now() })
    }

    /// Waits for its end.
    ///
    /// Errors: not within `limit`.
    pub fn wait(mut self, limit: Duration) -> Result<SippResult> {
        let what = format!("the end of {}", self.name);
        let (status, _) = wait_for(&what, limit, || Ok(self.process.try_wait()?))?;
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        Ok(SippResult { code: status.code().unwrap_or(-1), errors, took: self.began.elapsed() })
    }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
