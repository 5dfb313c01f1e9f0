//! The table of RFCs: `docs/rfc/registry.toml` is kept by hand, `docs/rfc/README.md` is made from it.
//!
//! What the registry says is held to the sources: a test that is named runs, an entry that claims something
//! names one, and whatever RFC a source file cites has an entry.

mod citations;
mod named_tests;
mod registry;
mod table;

use std::fs;

use anyhow::{Context, Result, bail};

use crate::{
    commands::root,
    tidy::{SourceFile, source_files},
};
use registry::Registry;

const REGISTRY: &str = "docs/rfc/registry.toml";
const TABLE: &str = "docs/rfc/README.md";

/// Writes the table; refuses when the registry has breaches.
pub fn generate() -> Result<()> {
    let (registry, breaches) = Registry::parse(&read(REGISTRY)?)?;
    if !breaches.is_empty() {
        bail!("{REGISTRY} is not fit for a table:\n{}", breaches.join("\n"));
    }
    fs::write(root().join(TABLE), table::render(&registry)).context(TABLE)?;
    println!("{TABLE}: {} RFCs", registry.entries.len());
    Ok(())
}

/// Breaches: what is wrong with the registry itself, a named test that is not there or does not run, a cited
/// RFC without an entry, a table that is not made from this registry.
pub fn check() -> Result<Vec<String>> {
    let table = match fs::read_to_string(root().join(TABLE)) {
        Ok(table) => table,
        // The same breach as a table that is out of date.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context(TABLE),
    };
    breaches(&read(REGISTRY)?, &table, &source_files()?)
}

fn breaches(registry: &str, table: &str, sources: &[SourceFile]) -> Result<Vec<String>> {
    let (registry, mut breaches) = Registry::parse(registry)?;
    breaches.extend(named_tests::check(&registry, sources));
    breaches.extend(citations::check(&registry, sources));
    if table::render(&registry) != table {
        breaches.push(format!("{TABLE}: not made from {REGISTRY} as it is now: run cargo xtask rfc"));
    }
    Ok(breaches)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const ENTRY: &str = "[[rfc]]\nnumber = 3581\ntitle = \"rport\"\nstatus = \"implemented\"\n\
                         there = \"section 4\"\ntests = [\"a.rs::it_works\"]\n";

    /// A source file with one test, and with this comment above it.
    fn source(comment: &str) -> SourceFile {
        let text = format!("{comment}\n#[test]\nfn it_works() {{\n}}\n");
        SourceFile { path: "a.rs".to_owned(), text }
    }

    fn table() -> String {
        table::render(&Registry::parse(ENTRY).unwrap().0)
    }

    #[test]
    fn a_registry_that_agrees_with_sources_and_table_has_no_breach() {
        let found = breaches(ENTRY, &table(), &[source("// RFC 3581 section 4")]).unwrap();

        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn every_kind_of_disagreement_is_found_and_none_hides_another() {
        let renamed = ENTRY.replace("it_works", "it_worked");
        let found = breaches(&renamed, &table(), &[source("// RFC 3261")]).unwrap();

        let expected = ["a.rs::it_worked", "a.rs:1: cites RFC 3261", "run cargo xtask rfc"];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (breach, part) in found.iter().zip(expected) {
            assert!(breach.contains(part), "{breach}");
        }
    }

    #[test]
    fn a_table_changed_by_hand_or_missing_is_out_of_date() {
        for table in [table().replace("rport", "report"), String::new()] {
            let found = breaches(ENTRY, &table, &[source("")]).unwrap();
            assert_eq!(found.len(), 1, "{found:?}");
        }
    }
}
