//! The repository's own chores: `cargo xtask tidy|rfc|ci|fix|sim|instructions|fuzz`.

mod commands;
mod instructions;
mod rfc;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask CHORE

  tidy                 check the rules of style, the dependency table and the table of RFCs
  rfc                  make docs/rfc/README.md from docs/rfc/registry.toml
  ci                   what .ci/run runs: format, lints, tidy, every test, instruction gate, bounded fuzz
  fix                  format and apply the compiler's suggestions
  sim [ARGS]           simulate pools and faults: --seeds N, --seed S --trace
  instructions         count instructions of parse + forward and compare with the budget
  fuzz [SECONDS [TARGET...]]
                       run the fuzz targets (default all) from their corpora for so long (default 20)";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let chore = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let done = match chore.as_str() {
        "tidy" => tidy::run(),
        "rfc" => rfc::generate(),
        "ci" => commands::ci(),
        "fix" => commands::fix(),
        "sim" => commands::sim(&rest),
        "instructions" => instructions::run(),
        "fuzz" => commands::fuzz(&rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {chore}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
