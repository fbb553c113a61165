//! `cargo xtask demo`: connections that survive the death of their server, to watch.

use std::path::PathBuf;

use anyhow::Result;

use crate::{build, command, project, root};

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
    root: root::Args,
    /// Passed on to the demo program
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
    let mut demo = args
        .root
        .command(project::binary("demo").into(), &build::program_variables());
    for scenario in &args.scenario {
        demo.args(["--scenario", scenario]);
    }
    if let Some(file) = &args.json {
        demo.arg("--json").arg(file);
    }
    command::replace(demo.args(&args.rest))
}
