//! `cargo xtask bench`: what the dataplane costs, against what one would use instead.

use std::path::PathBuf;

use anyhow::Result;

use crate::setup::peers;
use crate::{build, command, project, root};

/// Measure the dataplane against bare programs and against what one would use instead
///
/// Both sides take turns in one run, on the same links, on one processor. Peers (nftables, iptables, haproxy, tc) are
/// got as the distribution's packages when they are not there and kept in the tools' cache; one that cannot be got is
/// named in the results.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench                              everything
  cargo xtask bench steering                     one of them
  cargo xtask bench cloning --json cloning.json  the figures, for programs
  cargo xtask bench --list                       what there is")]
pub(crate) struct Args {
    /// What to measure [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Say what there is
    #[arg(long)]
    list: bool,
    /// Few and short rounds
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    root: root::Args,
}

/// The benches that know no peer.
const WITHOUT_PEERS: [&str; 3] = ["steering", "scale", "operate"];

pub(crate) fn run(args: &Args) -> Result<()> {
    if !args.list {
        args.root
            .check("loads programs into the kernel and makes network namespaces")?;
    }
    build::all()?;
    let mut variables = build::program_variables().to_vec();
    variables.push((build::OBJECT_VARIABLE, project::ebpf_object().into()));
    if !args.list && args.needs_peers() {
        match peers::ensure(&peers::BENCH) {
            Ok(dir) => variables.push((peers::BENCH.variable, dir.into())),
            // The bench looks for each where the system has it, and names those that are nowhere.
            Err(error) => eprintln!("warning: {error:#}"),
        }
    }
    let mut bench = args
        .root
        .command(project::binary("bench").into(), &variables);
    bench.args(&args.names);
    if let Some(file) = &args.json {
        bench.arg("--json").arg(file);
    }
    for (flag, given) in [("--list", args.list), ("--quick", args.quick)] {
        if given {
            bench.arg(flag);
        }
    }
    command::replace(&mut bench)
}

impl Args {
    fn needs_peers(&self) -> bool {
        let without = |name: &String| WITHOUT_PEERS.contains(&name.as_str());
        self.names.is_empty() || !self.names.iter().all(without)
    }
}
