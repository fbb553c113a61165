//! `sim`: the takeover protocol in a simulated world, seed by seed.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use serde::Serialize;
use testbed::exit;
use testbed::sim::mutation::Mutation;
use testbed::sim::run::{self, Totals};

/// Runs the takeover protocol between simulated hosts with a real TCP implementation: links that lose,
/// repeat, reorder and damage, instances that die, freeze and come back, an agent that stalls. A
/// seed decides everything. Exits with 1 when a rule was broken; with --mutate, when that
/// was not noticed.
#[derive(Parser)]
#[command(
    name = "sim",
    version,
    after_help = "\
Examples:
  sim --seeds 100000 --json sim.json    many seeds, and the figures in a file
  sim --replay 4711                     one seed, packet by packet
  sim --mutate no-hold                  break a rule on purpose: is it noticed?
  sim --mutate help                     the rules that can be broken"
)]
struct Cli {
    /// How many seeds.
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first: u64,
    /// Write the figures here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Break a rule on purpose.
    #[arg(long, value_name = "NAME")]
    mutate: Option<Mutation>,
    /// Run this seed alone and print what every packet said.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "first", "json"])]
    replay: Option<u64>,
}

/// How many seeds that break a rule are told before the rest is left.
const TOLD_MAX: usize = 20;

fn main() -> ExitCode {
    exit::code("error", run(&Cli::parse()))
}

/// Returns whether all is as it should be.
fn run(cli: &Cli) -> Result<bool> {
    if let Some(seed) = cli.replay {
        return Ok(replay(seed, cli.mutate));
    }
    let end = cli.first.saturating_add(cli.seeds);
    let stop_after = if cli.mutate.is_some() { 1 } else { TOLD_MAX };
    let totals = run::many(cli.first..end, cli.mutate, stop_after);
    tell(&totals, cli.mutate);
    if let Some(file) = &cli.json {
        let text = serde_json::to_string_pretty(&Figures::of(&totals))?;
        fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(totals.violations.is_empty() == cli.mutate.is_none())
}

fn replay(seed: u64, mutation: Option<Mutation>) -> bool {
    let outcome = run::one(seed, mutation, true);
    for line in &outcome.lines {
        println!("{line}");
    }
    match outcome.result {
        Ok(()) => println!("seed {seed}: no rule was broken"),
        Err(ref why) => println!("seed {seed}: {why}"),
    }
    outcome.result.is_ok() == mutation.is_none()
}

fn tell(totals: &Totals, mutation: Option<Mutation>) {
    for (seed, why) in &totals.violations {
        let option = mutation.map_or(String::new(), |mutation| format!(" --mutate {mutation}"));
        println!("seed {seed}: {why}\n    replay: cargo xtask sim --replay {seed}{option}");
    }
    let counts = &totals.counts;
    println!(
        "{} seeds, {} packets, {} connections, {} takeovers, {} connections lost with nobody left; \
         {} violations; {:.0} seeds/s",
        totals.seeds,
        counts.packets,
        counts.flows,
        counts.takeovers,
        counts.lost,
        totals.violations.len(),
        totals.seeds_per_s(),
    );
}

/// The figures, for programs.
#[derive(Serialize)]
struct Figures {
    seeds: u64,
    packets: u64,
    flows: u64,
    takeovers: u64,
    violations: usize,
    seeds_per_s: f64,
}

impl Figures {
    fn of(totals: &Totals) -> Self {
        Self {
            seeds: totals.seeds,
            packets: totals.counts.packets,
            flows: totals.counts.flows,
            takeovers: totals.counts.takeovers,
            violations: totals.violations.len(),
            seeds_per_s: totals.seeds_per_s().round(),
        }
    }
}
