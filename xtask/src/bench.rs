//! `cargo xtask bench`: what the dataplane costs, against what one would use instead.

use std::path::PathBuf;
use std::process::Command;

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
  cargo xtask bench cloning --case \"64 B\"        only cases whose names contain that
  cargo xtask bench --write-docs                 docs/benchmarks.md, its plots and benchmarks.json anew
  cargo xtask bench scale --write-docs           only the section of one of them
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
    /// Measure only cases whose names contain this, and what they are compared with
    #[arg(long, value_name = "TEXT", conflicts_with = "write_docs")]
    case: Option<String>,
    /// Write docs/benchmarks.md from the results: of the benches that are measured now, and the last ones of the others
    #[arg(long)]
    write_docs: bool,
    /// Write docs/benchmarks.md from the last results, and measure nothing
    #[arg(long)]
    render: bool,
    #[command(flatten)]
    root: root::Args,
}

/// The benches that know no peer.
const WITHOUT_PEERS: [&str; 5] = ["steering", "scale", "operate", "changes", "prediction"];

pub(crate) fn run(args: &Args) -> Result<()> {
    let measures = !args.list && !args.render;
    if measures {
        args.root
            .check("loads programs into the kernel and makes network namespaces")?;
    }
    build::all()?;
    if measures && args.wants("steering") {
        build::unmeasured()?;
    }
    let mut variables = build::program_variables().to_vec();
    variables.push((build::OBJECT_VARIABLE, project::ebpf_object().into()));
    if measures && args.needs_peers() {
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
    if let Some(case) = &args.case {
        bench.arg("--case").arg(case);
    }
    let docs = project::root_dir().join("docs");
    if args.write_docs {
        bench.arg("--write-docs").arg(&docs);
        if let Some(revision) = revision() {
            bench.args(["--revision", &revision]);
        }
    }
    if args.render {
        bench.arg("--render").arg(&docs);
    }
    for (flag, given) in [("--list", args.list), ("--quick", args.quick)] {
        if given {
            bench.arg(flag);
        }
    }
    command::replace(&mut bench)
}

/// What is measured, as git names it. Where there is no git, it has no name.
fn revision() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12"]);
    let output = git.current_dir(project::root_dir()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}

impl Args {
    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|given| given == name)
    }

    fn needs_peers(&self) -> bool {
        let without = |name: &String| WITHOUT_PEERS.contains(&name.as_str());
        self.names.is_empty() || !self.names.iter().all(without)
    }
}
