//! The instruction gate: parse + forward of the reference REGISTER, counted by callgrind.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::commands::{self, root};

/// Most instructions for parse + forward of the reference REGISTER. Source: architecture, section 4.
const BUDGET: u64 = 20_000;
const SHORT_RUN: u64 = 60;
const LONG_RUN: u64 = 160;

/// Builds the example, counts its instructions and compares them with the budget.
pub fn run() -> Result<()> {
    commands::run("cargo", &["build", "--locked", "--package", "sip", "--example", "instructions"])?;
    let difference =
        count(LONG_RUN)?.checked_sub(count(SHORT_RUN)?).context("the longer run counted less")?;
    let each = difference / (LONG_RUN - SHORT_RUN);
    println!("parse + forward of the reference REGISTER: {each} instructions, budget {BUDGET}");
    if each > BUDGET {
        bail!("{each} instructions are over the budget of {BUDGET}");
    }
    Ok(())
}

fn count(runs: u64) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(root().join("target/debug/examples/instructions"))
        .arg(runs.to_string())
        .current_dir(root())
        .output()
        .context("valgrind cannot be started: install it (make test does)")?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("callgrind failed: {text}");
    }
    let line =
        text.lines().find(|line| line.contains("Collected :")).context("callgrind printed no count")?;
    let figure = line.rsplit(' ').next().unwrap_or_default();
    figure.parse().with_context(|| format!("callgrind's count {figure:?} is no number"))
}
