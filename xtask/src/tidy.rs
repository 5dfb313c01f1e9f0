//! The rules of style that neither the compiler nor clippy checks.

mod dependencies;
mod sources;

use anyhow::{Result, bail};

pub use sources::{SourceFile, source_files};

/// Checks every rule and prints every breach before failing.
pub fn run() -> Result<()> {
    let mut breaches = sources::check()?;
    breaches.extend(dependencies::check()?);
    breaches.extend(crate::rfc::check()?);
    for breach in &breaches {
        eprintln!("{breach}");
    }
    if breaches.is_empty() {
        println!("tidy: no breach");
        Ok(())
    } else {
        bail!("{} breaches", breaches.len())
    }
}
