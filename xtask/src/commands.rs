//! Chores that run other programs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Runs a program in the repository's root and fails when it fails.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    println!("+ {program} {}", arguments.join(" "));
    let status = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .status()
        .with_context(|| format!("{program} cannot be started"))?;
    if !status.success() {
        bail!("{program} {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}

/// Everything that has to be green before main moves.
pub fn ci() -> Result<()> {
    run("cargo", &["fmt", "--all", "--check"])?;
    crate::tidy::run()?;
    run("cargo", &["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"])?;
    run("cargo", &["build", "--workspace", "--locked"])?;
    run("cargo", &["test", "--workspace", "--locked", "--no-fail-fast"])?;
    crate::instructions::run()?;
    fuzz(&[])
}

/// Formats and applies what the compiler suggests.
pub fn fix() -> Result<()> {
    run("cargo", &["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"])?;
    run("cargo", &["fmt", "--all"])
}

/// Runs the simulator.
pub fn sim(arguments: &[String]) -> Result<()> {
    let mut all = vec!["run", "--quiet", "--package", "sim", "--"];
    all.extend(arguments.iter().map(String::as_str));
    run("cargo", &all)
}

/// Runs every fuzz target for a bounded time, from its committed corpus.
pub fn fuzz(arguments: &[String]) -> Result<()> {
    let seconds: u32 = match arguments.first() {
        Some(text) => text.parse().context("SECONDS is a whole number")?,
        None => 20,
    };
    let folder = root().join("fuzz");
    let mut build = Command::new("cargo");
    // Coverage instrumentation works on the stable compiler; sanitizers are not needed where unsafe is forbidden.
    build
        .args(["build", "--locked", "--manifest-path", "fuzz/Cargo.toml"])
        .env(
            "RUSTFLAGS",
            "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
             -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
             -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
             -Ccodegen-units=1 --cfg fuzzing",
        )
        .current_dir(root());
    if !build.status().context("cargo cannot be started")?.success() {
        bail!("the fuzz targets do not build");
    }
    for target in targets(&folder)? {
        let found = std::env::temp_dir().join(format!("tandem-fuzz-{}-{target}", std::process::id()));
        std::fs::create_dir_all(&found)?;
        let outcome = run(
            &folder.join("target/debug").join(&target).to_string_lossy(),
            &[
                &format!("-max_total_time={seconds}"),
                "-timeout=5",
                "-rss_limit_mb=2048",
                "-print_final_stats=1",
                &format!("-artifact_prefix=fuzz/artifacts/{target}-"),
                &found.to_string_lossy(),
                &format!("fuzz/corpus/{target}"),
            ],
        );
        std::fs::remove_dir_all(&found)?;
        outcome?;
    }
    Ok(())
}

fn targets(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.join("corpus")).context("fuzz/corpus is missing")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    std::fs::create_dir_all(folder.join("artifacts"))?;
    if names.is_empty() {
        bail!("fuzz/corpus names no target");
    }
    Ok(names)
}
