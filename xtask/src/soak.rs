//! `cargo xtask soak`: real servers, many connections and one failure after another.

use std::path::PathBuf;

use anyhow::Result;

use crate::setup::peers;
use crate::{build, command, project, root};

/// Let real servers fail again and again under connections whose every byte is checked
///
/// lighttpd, redis and vsftpd (the distribution's packages, kept in the tools' cache when they are not there) on three
/// instances in network namespaces; kills, freezes, silences, evacuations and losses by the seed. Exit code 1 when a
/// connection with a warm mirror was harmed, or one without for no reason.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask soak --minutes 1                    a short run
  cargo xtask soak --minutes 60 --json soak.json  a long one, and the figures in a file
  cargo xtask soak --seed 4711                    what happens, by another seed
  cargo xtask soak -- --help                      the soak program's own options")]
pub(crate) struct Args {
    /// How long [default: 1]
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// What decides what happens [default: the time]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// How many connections at once [default: 1200]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    root: root::Args,
    /// Passed on to the soak program
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTION"
    )]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    args.root
        .check("loads programs into the kernel and makes network namespaces")?;
    build::all()?;
    let mut variables = build::program_variables().to_vec();
    variables.push((peers::SOAK.variable, peers::ensure(&peers::SOAK)?.into()));
    let mut soak = args
        .root
        .command(project::binary("soak").into(), &variables);
    let numbers = [
        ("--minutes", args.minutes.map(|number| number.to_string())),
        ("--seed", args.seed.map(|number| number.to_string())),
        (
            "--connections",
            args.connections.map(|number| number.to_string()),
        ),
    ];
    for (option, number) in numbers {
        if let Some(number) = number {
            soak.arg(option).arg(number);
        }
    }
    if let Some(file) = &args.json {
        soak.arg("--json").arg(file);
    }
    command::replace(soak.args(&args.rest))
}
