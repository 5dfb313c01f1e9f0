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

/// Runs the fuzz targets from their committed corpora; the arguments are the seconds for each (default 20)
/// and the names of targets (default all). Runs all of them before it fails on a finding.
pub fn fuzz(arguments: &[String]) -> Result<()> {
    let seconds: u32 = match arguments.first() {
        Some(text) => text.parse().context("SECONDS is a whole number")?,
        None => 20,
    };
    let named = arguments.get(1..).unwrap_or_default();
    let programs = build_fuzz_targets()?;
    let artifacts = artifacts();
    std::fs::create_dir_all(&artifacts)?;
    let mut findings = Vec::new();
    for target in fuzz_targets()?.into_iter().filter(|target| named.is_empty() || named.contains(target)) {
        if !fuzz_target(&target, &programs.join(&target), seconds, &artifacts)? {
            findings.push(target);
        }
    }
    if !findings.is_empty() {
        bail!(
            "findings in {}; the inputs are in {}, see fuzz/README.md",
            findings.join(", "),
            artifacts.display()
        );
    }
    Ok(())
}

/// Where inputs of findings go: nowhere that could be committed by mistake.
fn artifacts() -> PathBuf {
    root().join("target/fuzz")
}

/// Builds all targets with coverage instrumentation, which the stable compiler can do; sanitizers, which it
/// cannot, are not needed where unsafe is forbidden. Returns the folder of the programs.
fn build_fuzz_targets() -> Result<PathBuf> {
    let version = Command::new("rustc").arg("-vV").current_dir(root()).output().context("rustc")?;
    let version = String::from_utf8(version.stdout)?;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let flags = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
         -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
         -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
         -Ccodegen-units=1 --cfg fuzzing";
    println!("+ cargo build --manifest-path fuzz/Cargo.toml");
    // With --target the flags do not apply to build scripts, which could not be linked with them.
    let build = Command::new("cargo")
        .args(["build", "--quiet", "--locked", "--manifest-path", "fuzz/Cargo.toml"])
        .args(["--target", host, "--target-dir", "fuzz/target"])
        .env("RUSTFLAGS", flags)
        .current_dir(root())
        .status();
    if !build.context("cargo cannot be started")?.success() {
        bail!("the fuzz targets do not build");
    }
    Ok(root().join("fuzz/target").join(host).join("debug"))
}

/// Runs one target in the folder for artifacts; whether it found nothing. What it adds to the corpus is
/// thrown away.
fn fuzz_target(target: &str, program: &Path, seconds: u32, artifacts: &Path) -> Result<bool> {
    let corpus = root().join("fuzz/corpus").join(target);
    let dictionary = root().join(format!("fuzz/dictionaries/{target}.dict"));
    let found = std::env::temp_dir().join(format!("tandem-fuzz-{}-{target}", std::process::id()));
    std::fs::create_dir_all(&found)?;
    let mut run = Command::new(program);
    run.arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=5", "-rss_limit_mb=2048", "-max_len=4096", "-verbosity=0", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/{target}-", artifacts.display()));
    if dictionary.is_file() {
        run.arg(format!("-dict={}", dictionary.display()));
    }
    let output = run.arg(&found).arg(&corpus).current_dir(artifacts).output();
    std::fs::remove_dir_all(&found)?;
    let output = output.with_context(|| format!("{} cannot be started", program.display()))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let number = |name: &str| log.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim();
    let runs = number("stat::number_of_executed_units:");
    println!("fuzz {target}: {runs} runs, {} MiB", number("stat::peak_rss_mb:"));
    if !output.status.success() {
        eprintln!("{log}\nfuzz {target}: ended with {}", output.status);
    }
    Ok(output.status.success())
}

/// The names of the targets: one file and one corpus each.
fn fuzz_targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("fuzz/src/bin")).context("fuzz/src/bin")? {
        let name = entry?.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let corpus = root().join("fuzz/corpus").join(&name);
        if !corpus.is_dir() {
            bail!("fuzz target {name} has no corpus in {}", corpus.display());
        }
        names.push(name);
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{collections::BTreeSet, ffi::OsString, fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn names(folder: &Path) -> BTreeSet<OsString> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_finding_leaves_its_input_below_target_and_nothing_in_the_repository() {
        assert!(artifacts().starts_with(root().join("target")));
        let folder = std::env::temp_dir().join(format!("tandem-xtask-{}", std::process::id()));
        let artifacts = folder.join("artifacts");
        fs::create_dir_all(&artifacts).unwrap();
        // As libFuzzer does: a file behind the prefix, and one where it stands when there is none.
        let program = folder.join("program");
        let script = "#!/bin/sh\nfor a; do case $a in -artifact_prefix=*) echo x >\"${a#*=}crash-1\";; esac; \
                      done\necho x >crash-2\nexit 77\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let before = names(&root());

        let found_nothing = fuzz_target("uri", &program, 1, &artifacts).unwrap();

        let left = names(&artifacts);
        fs::remove_dir_all(&folder).unwrap();
        assert!(!found_nothing);
        assert_eq!(left, ["crash-2", "uri-crash-1"].map(OsString::from).into());
        assert!(!names(&root()).iter().any(|name| !before.contains(name) && is_artifact(name)));
    }

    fn is_artifact(name: &OsString) -> bool {
        name.to_string_lossy().contains("crash-")
    }
}
