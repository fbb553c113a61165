//! `fuzz`: the takeover protocol under packets that nobody would send, seed by seed.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use serde::Serialize;
use testbed::exit;
use testbed::fuzz::{self, Counts, Episode, PACKETS};

/// Gives the takeover protocol packets that nobody would send, and checks what must hold whatever is said. Exits with 1 when a rule
/// was broken.
#[derive(Parser)]
#[command(name = "fuzz", version)]
struct Cli {
    /// How many packets.
    #[arg(long, value_name = "N", default_value_t = 100_000_000)]
    packets: u64,
    /// The first seed.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first: u64,
    /// Write the figures here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run this seed alone and print every packet.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["packets", "first", "json"])]
    replay: Option<u64>,
}

/// How many seeds that break a rule are told before the rest is left.
const TOLD_MAX: usize = 10;

/// The figures, for programs.
#[derive(Serialize)]
struct Figures {
    #[serde(flatten)]
    counts: Counts,
    violations: usize,
    packets_per_s: f64,
}

fn main() -> ExitCode {
    exit::code("error", run(&Cli::parse()))
}

/// Returns whether no rule was broken.
fn run(cli: &Cli) -> Result<bool> {
    if let Some(seed) = cli.replay {
        let found = Episode::new(seed).run(|line| println!("{line}"));
        match &found {
            Ok(()) => println!("seed {seed}: no rule was broken"),
            Err(why) => println!("seed {seed}: {why}"),
        }
        return Ok(found.is_ok());
    }
    let seeds = cli.first..cli.first.saturating_add(cli.packets.div_ceil(PACKETS));
    let bar = indicatif::ProgressBar::new(cli.packets);
    let totals = fuzz::many(seeds, TOLD_MAX, |packets| bar.set_position(packets));
    bar.finish_and_clear();
    for (seed, why) in &totals.violations {
        println!("seed {seed}: {why}\n    replay: cargo xtask fuzz --replay {seed}");
    }
    let Counts {
        packets,
        established,
        takeovers,
        cold,
        ..
    } = totals.counts;
    let figures = Figures {
        counts: totals.counts,
        violations: totals.violations.len(),
        packets_per_s: packets as f64 / totals.elapsed_s.max(1e-9),
    };
    println!(
        "protocol: {packets} packets, {established} connections, {takeovers} takeovers, {cold} replicas cold; {} violations; {:.0} packets/s",
        figures.violations, figures.packets_per_s
    );
    if let Some(file) = &cli.json {
        let text = serde_json::to_string_pretty(&figures)?;
        fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(totals.violations.is_empty())
}
