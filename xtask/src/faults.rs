//! `cargo xtask record-faults`: a corpus of real faults in real servers.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::program;

/// Record what an agent's engine gets while real faults grow in real servers
///
/// Several services at once, each with its own agent, in network namespaces and control groups; memory leaks, burnt processor
/// time, lost packets, slow answers, full listen queues, throttled disks, noisy neighbours, crashes and what is no fault. Beside
/// each recording goes who failed when, by what its clients got.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask record-faults DIR --minutes 25 -- --services 12 --seed 32 --part held-out
                                                                a corpus to judge by
  cargo xtask record-faults /tmp/leak --minutes 6 --family memory-leak
  mirror-ctl health eval --recordings tests/recordings/held-out what layer A alone makes of it")]
pub(crate) struct Args {
    /// Where the recordings go: DIR/tuning and DIR/held-out
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// How long each service runs [default: 20]
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// Nothing else than this fault
    #[arg(long, value_name = "F")]
    family: Option<String>,
    #[command(flatten)]
    program: program::Args,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let program = &args.program;
    program
        .build("loads programs into the kernel and makes network namespaces and control groups")?;
    let dir = std::path::absolute(&args.dir).context("DIR")?;
    let mut faults = program.command("faults", &[]);
    faults.arg("record").arg(dir);
    let options = [
        ("--minutes", program::number(args.minutes)),
        ("--family", args.family.clone().map(Into::into)),
    ];
    program::pass(&mut faults, options);
    program.become_it(faults)
}
