//! `cargo xtask soak`: real servers, many connections and one failure after another.

use std::path::PathBuf;

use anyhow::Result;

use crate::{program, setup::peers};

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
    program: program::Args,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let program = &args.program;
    program.build("loads programs into the kernel and makes network namespaces")?;
    let servers = peers::ensure(&peers::SOAK)?.into();
    let mut soak = program.command("soak", &[(peers::SOAK.variable, servers)]);
    let options = [
        ("--minutes", program::number(args.minutes)),
        ("--seed", program::number(args.seed)),
        ("--connections", program::number(args.connections)),
        ("--json", args.json.clone().map(Into::into)),
    ];
    program::pass(&mut soak, options);
    program.become_it(soak)
}
