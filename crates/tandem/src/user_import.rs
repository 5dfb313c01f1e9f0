//! `tandem user import`: many users from a CSV file.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use model::{AddressOfRecord, PoolName, limits};
use node::{
    Secret,
    api::wire::{Changed, UsersPut},
};
use serde::Serialize;

use crate::{
    cli::Output,
    output::{self, Table},
    remote::{Remote, address, pool_name},
    user::user_put,
};

/// How long a server may take for one page of users.
const PAGE_WITHIN: Duration = Duration::from_secs(60);
/// Wrong lines that are shown.
const WRONG_LINES_SHOWN: usize = 20;

/// One line of the file.
struct Row {
    aor: AddressOfRecord,
    password: Secret,
}

/// What an import did.
#[derive(Debug, Default, Serialize)]
struct Imported {
    /// Users added or changed.
    users: usize,
    /// By home pool.
    homes: BTreeMap<String, usize>,
    /// Lines that were not understood, with why; nothing is imported then.
    wrong: Vec<String>,
}

/// Reads the whole file first; imports nothing when a line is wrong.
pub async fn run(output: Output, remote: &Remote, file: &Path) -> Result<ExitCode> {
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).with_context(|| format!("{} cannot be read", file.display()))?)
    };
    let (rows, wrong) = read(BufReader::new(input))?;
    let mut imported = Imported { wrong, ..Imported::default() };
    if imported.wrong.is_empty() {
        for (home, rows) in &rows {
            let endpoint = remote.owner(home).await?;
            for page in rows.chunks(limits::ACCOUNTS_PER_PAGE_MAX) {
                let users = page.iter().map(|row| user_put(row.aor.clone(), &row.password, None));
                let body = UsersPut { home: home.clone(), users: users.collect::<Result<_>>()? };
                let done: Changed = remote.client.post(&endpoint, "/v1/users", &body, PAGE_WITHIN).await?;
                imported.users += done.changed;
                *imported.homes.entry(home.to_string()).or_default() += done.changed;
            }
        }
    }
    output::print(output, &imported, || table(&imported))?;
    Ok(if imported.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn table(imported: &Imported) -> Table {
    if imported.wrong.is_empty() {
        let mut table = Table::new(&["home", "users"]);
        for (home, users) in &imported.homes {
            table.push([home.clone(), users.to_string()]);
        }
        return table;
    }
    let mut table = Table::new(&["nothing was imported: these lines are wrong"]);
    for line in imported.wrong.iter().take(WRONG_LINES_SHOWN) {
        table.push([line.clone()]);
    }
    table
}

type Rows = BTreeMap<PoolName, Vec<Row>>;

fn read(input: impl BufRead) -> Result<(Rows, Vec<String>)> {
    let mut rows = Rows::new();
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(input.lines()) {
        let line = line.with_context(|| format!("line {number} is not UTF-8 text"))?;
        let is_heading = number == 1 && (line.starts_with("address") || line.starts_with("aor"));
        if line.trim().is_empty() || is_heading {
            continue;
        }
        match row(&line) {
            Ok((home, row)) => rows.entry(home).or_default().push(row),
            Err(error) => wrong.push(format!("line {number}: {error:#}")),
        }
    }
    Ok((rows, wrong))
}

fn row(line: &str) -> Result<(PoolName, Row)> {
    let fields = fields(line).context("a quoted field does not end")?;
    let [aor, password, home] = fields.as_slice() else {
        anyhow::bail!("{} fields, expected address-of-record, password, home", fields.len());
    };
    anyhow::ensure!(!password.is_empty(), "the password is empty");
    Ok((pool_name(home.trim())?, Row { aor: address(aor.trim())?, password: Secret::new(password.clone()) }))
}

/// Splits one CSV record: fields may be quoted, a quote inside is doubled (RFC 4180).
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    let mut characters = line.trim_end_matches('\r').chars().peekable();
    while let Some(character) = characters.next() {
        let field = fields.last_mut()?;
        match character {
            '"' if is_quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if is_quoted => is_quoted = false,
            '"' if field.is_empty() => is_quoted = true,
            ',' if !is_quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    (!is_quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_may_hold_commas_and_quotes() {
        assert_eq!(fields(r#"a,"b,""c",d"#).unwrap(), ["a", "b,\"c", "d"]);
        assert!(fields(r#"a,"b"#).is_none());
    }

    #[test]
    fn a_wrong_line_is_named_and_the_heading_skipped() {
        let text = "address-of-record,password,home\nsip:a@x.y,p,east\nsip:b@x.y,,east\nnonsense\n";

        let (rows, wrong) = read(text.as_bytes()).unwrap();

        assert_eq!(rows.values().map(Vec::len).sum::<usize>(), 1);
        assert_eq!(wrong.len(), 2);
        assert!(wrong[0].starts_with("line 3: the password is empty"), "{}", wrong[0]);
    }
}
