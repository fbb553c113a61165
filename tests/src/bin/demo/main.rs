//! `demo`: established connections survive the death of the machine that served them.

mod view;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use serde::Serialize;
use testbed::cleanup;
use testbed::exit;
use testbed::scenario::outcome::Outcome;
use testbed::scenario::{self, Fault, INSTANCES, Plan};
use testbed::topology::Family;
use view::View;

/// Shows established connections survive the death of the instance that served
/// them. Builds a client host, a VNI host and three instances in network
/// namespaces, sends checked traffic through them and takes the busiest
/// instance out, in a fresh network for each scenario. Exits with 1 when a
/// connection was harmed or kept waiting for too long.
#[derive(Parser)]
#[command(
    name = "demo",
    version,
    after_help = "\
Examples:
  demo                                  all scenarios
  demo --scenario killed                one of them
  demo --scenario silent --ipv6         over IPv6
  demo --generic                        with generic in place of native XDP
  demo --first                          each client answered by whoever answers first
  demo --json results.json              and the numbers in a file"
)]
struct Cli {
    /// killed, link_down, silent, evacuated or predicted; may be given several times, default all.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<Fault>,
    /// Write the results here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The least number of connections that each scenario's fault must hit. Beyond 200, each does less, so that two processors
    /// bear all of them.
    #[arg(long, value_name = "N", default_value_t = 200)]
    connections: usize,
    /// Mirrors of each connection.
    #[arg(long, value_name = "N", default_value_t = 1)]
    mirrors: u8,
    /// Use generic XDP on every interface.
    #[arg(long)]
    generic: bool,
    /// Have whichever replica answers first answer the client (`delivery = "first"`).
    #[arg(long)]
    first: bool,
    /// Have the clients speak IPv6.
    #[arg(long)]
    ipv6: bool,
    /// Print plain lines even on a terminal.
    #[arg(long)]
    plain: bool,
}

#[derive(Serialize)]
struct Results {
    scenarios: Vec<Outcome>,
}

fn main() -> ExitCode {
    exit::code("demo", run(Cli::parse()))
}

fn run(cli: Cli) -> Result<bool> {
    cleanup::install()?;
    let faults = if cli.scenario.is_empty() {
        Fault::ALL.to_vec()
    } else {
        cli.scenario
    };
    let mut view = View::new(cli.plain)?;
    view.say(&format!(
        "{} connections on {INSTANCES} instances behind one address, {} mirror(s) each{}, {}, {} XDP",
        cli.connections * INSTANCES,
        cli.mirrors,
        if cli.first { ", the first to answer is heard" } else { "" },
        if cli.ipv6 { "IPv6" } else { "IPv4" },
        if cli.generic { "generic" } else { "native" },
    ))?;
    let mut scenarios = Vec::new();
    for fault in faults {
        let plan = Plan {
            family: if cli.ipv6 { Family::V6 } else { Family::V4 },
            mode: if cli.generic { "generic" } else { "auto" }.into(),
            mirrors: cli.mirrors,
            first: cli.first,
            ..Plan::new(fault, cli.connections)
        };
        view.begin(fault);
        let outcome =
            scenario::run(&plan, &mut view).with_context(|| format!("scenario {fault}"))?;
        view.verdict(&outcome)?;
        scenarios.push(outcome);
    }
    view.end(&scenarios)?;
    let passed = scenarios.iter().all(|outcome| outcome.misses().is_empty());
    if let Some(path) = cli.json {
        let text = serde_json::to_string_pretty(&Results { scenarios }).context("results")?;
        fs::write(&path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(passed)
}
