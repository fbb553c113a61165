//! `cargo xtask sim`: the takeover protocol in a simulated world, with real TCP stacks, seed by seed.

use std::path::PathBuf;

use anyhow::Result;

use crate::{build, command, program};

/// Run the takeover protocol in a simulated world that fails in every way
///
/// Client and replicas are a real TCP implementation, links lose, repeat, reorder and damage packets, instances die, freeze
/// and come back, the agent stalls: a seed decides all of it. Needs no root and no set-up.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask sim --seeds 100000 --json sim.json   many seeds, and the figures in a file
  cargo xtask sim --replay 4711                    one seed, packet by packet
  cargo xtask sim --mutate no-hold                 break a rule on purpose: is it noticed?
  cargo xtask sim --mutate help                    the rules that can be broken")]
pub(crate) struct Args {
    /// How many seeds [default: 2000]
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first one [default: 0]
    #[arg(long, value_name = "SEED")]
    first: Option<u64>,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Break a rule on purpose
    #[arg(long, value_name = "NAME")]
    mutate: Option<String>,
    /// Run this seed alone and print what every packet said
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "first", "json"])]
    replay: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut sim = build::user_space_cargo("run");
    sim.args([
        "--release",
        "--quiet",
        "--package",
        "mirror-tests",
        "--bin",
        "sim",
        "--",
    ]);
    let options = [
        ("--seeds", program::number(args.seeds)),
        ("--first", program::number(args.first)),
        ("--replay", program::number(args.replay)),
        ("--json", args.json.clone().map(Into::into)),
        ("--mutate", args.mutate.clone().map(Into::into)),
    ];
    program::pass(&mut sim, options);
    command::replace(&mut sim)
}
