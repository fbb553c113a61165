//! `mirror-ctl health`: training, evaluating and explaining predictions. Needs no agent.

mod eval;
mod report;

use std::{ffi::OsString, path::PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::health::public::{Split, Task};

/// Train, evaluate and explain the prediction of failures.
#[derive(Debug, Parser)]
#[command(name = "mirror-ctl health", arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Judge predictions: on a folder of public data.
    Eval(Eval),
}

/// `eval`.
#[derive(Debug, clap::Args)]
struct Eval {
    /// A folder of servers: NAME.train.csv.gz, and NAME.test.csv.gz with `label` in the first column.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// What is to be predicted.
    #[arg(long, value_enum, default_value = "soon")]
    task: Task,
    /// How far ahead, in rows.
    #[arg(long, value_name = "ROWS", default_value_t = 10)]
    horizon: usize,
    /// How what is learned from and what is judged are kept apart.
    #[arg(long, value_enum, default_value = "group")]
    split: Split,
    /// Seconds from row to row [default: 300 for servers called omi-*, else 60].
    #[arg(long, value_name = "SECONDS")]
    row_s: Option<u32>,
    /// Use only the first part of each server's labelled half, a share: to make choices, not to judge.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    first: f64,
    /// Write the figures there too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(rest: &[OsString]) -> Result<()> {
    let name = OsString::from("mirror-ctl health");
    let args = Args::parse_from(std::iter::once(&name).chain(rest));
    match args.verb {
        Verb::Eval(eval) => eval::run(&eval),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
