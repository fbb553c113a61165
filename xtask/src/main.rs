//! `cargo xtask`: everything one does with this repository, from a machine that has only cargo.
//!
//! Each verb is one file; each does the set-up it needs. Exit codes: 0 done, 1 failed,
//! 2 not started because of how it was called (usage, missing right, missing tool).

mod bench;
mod build;
mod command;
mod demo;
mod deny;
mod dist;
mod faults;
mod fuzz;
mod host;
mod kernels;
mod lint;
#[path = "../../tests/src/manual.rs"]
#[expect(unreachable_pub, reason = "it is a library's there")]
mod manual;
mod program;
mod progress;
mod project;
mod root;
mod setup;
mod sim;
mod soak;
mod test;
mod toolchain;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set up, build, test and try predictive mirroring for virtual network interfaces.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                 watch connections survive the death of their server
  cargo xtask test                 every test, with the set-up it needs
  cargo xtask sim --seeds 100000   the protocol in a simulated world that fails in every way
  cargo xtask fuzz                 packets that nobody would send
  cargo xtask soak --minutes 10    real servers that fail again and again
  cargo xtask record-faults DIR    real faults in real servers, to judge predictions by
  cargo xtask bench steering       what a packet costs
  cargo xtask setup --check        what is missing, without changing anything

Exit codes: 0 done, 1 failed, 2 called wrongly or a precondition is missing (root, a tool).";

#[derive(Subcommand)]
enum Verb {
    Setup(setup::Args),
    Build(build::Args),
    #[command(visible_alias = "clippy")]
    Lint(lint::Args),
    Deny(deny::Args),
    Test(test::Args),
    Demo(demo::Args),
    Sim(sim::Args),
    Fuzz(fuzz::Args),
    Soak(soak::Args),
    RecordFaults(faults::Args),
    Bench(bench::Args),
    Dist(dist::Args),
    Kernels(kernels::Args),
    Load(host::LoadArgs),
    Unload(host::UnloadArgs),
    Status(host::StatusArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::Build(args) => build::run(&args),
        Verb::Lint(args) => lint::run(&args),
        Verb::Deny(args) => deny::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Sim(args) => sim::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Soak(args) => soak::run(&args),
        Verb::RecordFaults(args) => faults::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Dist(args) => dist::run(&args),
        Verb::Kernels(args) => kernels::run(&args),
        Verb::Load(args) => host::load(&args),
        Verb::Unload(args) => host::unload(&args),
        Verb::Status(args) => host::status(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Precondition>() { 2 } else { 1 })
        }
    }
}

/// Nothing was tried, because something the user can supply is missing; the text says what to type.
#[derive(Debug)]
struct Precondition(String);

impl fmt::Display for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Precondition {}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    const MANUALS: [&str; 4] = [
        include_str!("../../docs/operations.md"),
        include_str!("../../docs/benchmarks.md"),
        include_str!("../../docs/prediction.md"),
        include_str!("../../docs/takeover.md"),
    ];

    #[test]
    fn manuals_call_every_verb_rightly() {
        let found = MANUALS.into_iter().flat_map(manual::commands);
        let found: Vec<_> = found
            .filter(|command| command.name().starts_with("cargo xtask "))
            .collect();
        for command in &found {
            // Some have their remark without a mark, apart from them.
            let called = command.name().split("    ").next().unwrap_or_default();
            let words = called.split_whitespace().skip(1);
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{}: {error}", command.text);
            }
        }
        assert!(found.len() > 5, "{found:?}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
