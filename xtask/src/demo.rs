//! `cargo xtask demo`: connections that survive the death of their server, to watch.

use std::path::PathBuf;

use anyhow::Result;

use crate::program;

/// Watch established connections survive the death of the instance that served them
///
/// Makes a client, a VNI host and three instances in network namespaces of their own, runs real traffic
/// and lets the serving instance fail; removes everything at the end.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask demo                                   every scenario
  cargo xtask demo --scenario killed                 one of: killed, link_down, silent, evacuated, predicted
  cargo xtask demo --scenario silent --json out.json the figures, for programs
  cargo xtask demo -- --help                         the demo program's own options")]
pub(crate) struct Args {
    /// Only this scenario (may be repeated)
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    program: program::Args,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let program = &args.program;
    program.build("loads programs into the kernel and makes network namespaces")?;
    let mut demo = program.command("demo", &[]);
    for scenario in &args.scenario {
        demo.args(["--scenario", scenario]);
    }
    program::pass(&mut demo, [("--json", args.json.clone().map(Into::into))]);
    program.become_it(demo)
}
