//! The dependency table of ARCHITECTURE.md against the manifests.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};

use crate::commands::root;

const TABLE_HEADING: &str = "| crate | ring | may depend on |";

/// Breaches: a crate without a row, a dependency the table does not allow, a row without a crate, a
/// dependency on somebody else's crate without its reason in the decision note.
pub fn check() -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    let allowed = table()?;
    let workspace: toml::Table = fs::read_to_string(root().join("Cargo.toml"))?.parse()?;
    let reasons = fs::read_to_string(root().join("docs/decisions/0002-dependencies.md"))
        .context("docs/decisions/0002-dependencies.md")?;
    for name in keys(&workspace, &["workspace", "dependencies"]) {
        let is_ours = allowed.contains_key(&name);
        if !is_ours && !reasons.contains(&format!("| {name} |")) {
            breaches.push(format!("Cargo.toml: {name} has no line in docs/decisions/0002-dependencies.md"));
        }
    }
    let members = workspace
        .get("workspace")
        .and_then(|table| table.get("members"))
        .and_then(toml::Value::as_array)
        .context("Cargo.toml names no members")?;
    for member in members.iter().filter_map(toml::Value::as_str) {
        breaches.extend(check_member(member, &allowed)?);
    }
    for name in allowed.keys() {
        if !members
            .iter()
            .filter_map(toml::Value::as_str)
            .any(|m| m.rsplit('/').next() == Some(name.as_str()))
        {
            breaches.push(format!("ARCHITECTURE.md: the table names {name}, which is no crate here"));
        }
    }
    Ok(breaches)
}

fn check_member(member: &str, allowed: &BTreeMap<String, Vec<String>>) -> Result<Vec<String>> {
    let path = format!("{member}/Cargo.toml");
    let manifest: toml::Table = fs::read_to_string(root().join(&path)).context(path.clone())?.parse()?;
    let name = member.rsplit('/').next().unwrap_or(member);
    let Some(row) = allowed.get(name) else {
        return Ok(vec![format!("{path}: {name} has no row in the table of ARCHITECTURE.md")]);
    };
    let mut breaches = Vec::new();
    for dependency in keys(&manifest, &["dependencies"]) {
        if allowed.contains_key(&dependency) && !row.contains(&dependency) {
            breaches
                .push(format!("{path}: {name} may not depend on {dependency} (table of ARCHITECTURE.md)"));
        }
    }
    Ok(breaches)
}

fn keys(table: &toml::Table, path: &[&str]) -> Vec<String> {
    let mut value = Some(table);
    for step in path {
        value = value.and_then(|table| table.get(*step)).and_then(toml::Value::as_table);
    }
    value.map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

fn table() -> Result<BTreeMap<String, Vec<String>>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    let rows =
        text.lines().skip_while(|line| *line != TABLE_HEADING).skip(2).take_while(|l| l.starts_with('|'));
    let table: BTreeMap<_, _> = rows
        .filter_map(|row| {
            let mut cells = row.trim_matches('|').split('|').map(str::trim);
            let name = cells.next()?.trim_matches('`').to_owned();
            let dependencies = cells.nth(1)?;
            let list = dependencies.split(',').map(|d| d.trim().trim_matches('`').to_owned()).collect();
            Some((name, list))
        })
        .collect();
    anyhow::ensure!(!table.is_empty(), "ARCHITECTURE.md has no table headed {TABLE_HEADING:?}");
    Ok(table)
}
