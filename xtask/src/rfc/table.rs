//! The registry as a page to read.

use super::registry::{Entry, Registry, Status};

const HEAD: &str = "\
<!-- Made by `cargo xtask rfc` from registry.toml: change that file, not this one. -->

# RFCs

What Tandem does of each RFC that it touches or that a voice engineer would look for. `cargo xtask tidy` fails
when a test named here does not exist, when something is claimed without a test, and when a source file cites
an RFC that is not here.

*Implemented* means: everything in it that concerns a registrar, a proxy or a notifier. What only concerns
phones passes through a proxy unchanged, and is *not* implemented here unless the table says otherwise.
";

/// The page: counts, the table, and the tests of each entry that claims something.
pub fn render(registry: &Registry) -> String {
    let count = |name: &str| registry.entries.iter().filter(|entry| name_of(&entry.status) == name).count();
    let mut page = format!(
        "{HEAD}\n{} implemented, {} partial, {} not.\n\n| RFC | Title | Status | What is there |\n\
         |---|---|---|---|\n",
        count("implemented"),
        count("partial"),
        count("not")
    );
    for entry in &registry.entries {
        let Entry { number, title, status } = entry;
        let reference = match status {
            Status::Implemented { .. } | Status::Partial { .. } => format!("[{0}](#rfc-{0})", number.0),
            Status::Not { .. } => number.0.to_string(),
        };
        page.push_str(&format!("| {reference} | {title} | {} | {} |\n", name_of(status), told(status)));
    }
    page.push_str("\n## Tests\n");
    for entry in registry.entries.iter().filter(|entry| !entry.status.tests().is_empty()) {
        page.push_str(&format!("\n### {}\n\n", entry.number));
        for test in entry.status.tests() {
            let (path, function) = test.split_once("::").unwrap_or((test, ""));
            page.push_str(&format!("* [{path}](../../{path}) `{function}`\n"));
        }
    }
    page
}

fn name_of(status: &Status) -> &'static str {
    match status {
        Status::Implemented { .. } => "implemented",
        Status::Partial { .. } => "partial",
        Status::Not { .. } => "not",
    }
}

fn told(status: &Status) -> String {
    match status {
        Status::Implemented { there, .. } => there.clone(),
        Status::Partial { there, missing, .. } => format!("{there}. **Not:** {missing}"),
        Status::Not { why } => why.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_page_has_a_row_for_each_entry_and_the_tests_of_those_that_claim() {
        let registry = "[[rfc]]\nnumber = 1\ntitle = \"One\"\nstatus = \"partial\"\nthere = \"section 2\"\n\
                        missing = \"section 3\"\ntests = [\"a/b.rs::it_works\"]\n\
                        [[rfc]]\nnumber = 2\ntitle = \"Two\"\nstatus = \"not\"\nwhy = \"nobody asked\"";

        let page = render(&Registry::parse(registry).unwrap().0);

        assert!(page.contains("\n0 implemented, 1 partial, 1 not.\n"));
        assert!(page.contains("\n| [1](#rfc-1) | One | partial | section 2. **Not:** section 3 |\n"));
        assert!(page.contains("\n| 2 | Two | not | nobody asked |\n"));
        assert!(page.ends_with("## Tests\n\n### RFC 1\n\n* [a/b.rs](../../a/b.rs) `it_works`\n"));
    }
}
