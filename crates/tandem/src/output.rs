//! Printing results as a table or as JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::Output;

/// Rows of a table; every row has as many cells as there are headings.
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |column: usize, heading: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.max().unwrap_or(0).max(heading.len())
        };
        let widths: Vec<usize> =
            self.headings.iter().enumerate().map(|(column, heading)| width(column, heading)).collect();
        let headings: Vec<String> = self.headings.iter().map(|heading| heading.to_uppercase()).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Prints `result` as JSON, or `table` of the same content.
pub fn print(output: Output, result: &impl Serialize, table: impl FnOnce() -> Table) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match output {
        Output::Table => table().write(&mut out),
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, result)?;
            writeln!(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["pool", "owner"]);
        table.push(["a-long-name".to_owned(), "x".to_owned()]);
        let mut out = Vec::new();

        table.write(&mut out).unwrap();

        assert_eq!(String::from_utf8(out).unwrap(), "POOL         OWNER\na-long-name  x\n");
    }
}
