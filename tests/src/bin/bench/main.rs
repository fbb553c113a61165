//! `bench`: what the dataplane costs, against what one would use instead, both in one run.

mod assemble;
mod balancer;
mod changes;
mod cloning;
mod collector;
mod detection;
mod document;
mod echo;
mod failure;
mod frame;
mod latency;
mod machine;
mod many;
mod mirrors;
mod names;
mod opening;
mod operate;
mod prediction;
mod probe;
mod report;
mod rig;
mod routing;
mod scale;
mod stats;
mod steering;
mod sys;
mod tables;
mod throughput;
mod ways;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use document::Section;
use machine::Machine;
pub(crate) use names::{Effort, Name};
use report::Results;
use serde::Serialize;
use testbed::cleanup;
use testbed::packaged::Packages;

/// What one would use instead.
const PEERS: Packages = Packages {
    variable: "MIRROR_PEERS",
    verb: "bench",
};

/// Measures the dataplane against bare programs and against what one would use instead: in pairs that take
/// turns, after a warm-up, on one processor, both sides in one run. A peer that is not there is named.
#[derive(Parser)]
#[command(
    name = "bench",
    version,
    after_help = "\
Examples:
  bench                              everything
  bench steering                     one of them
  bench steering --quick             a few rounds: does it run at all?
  bench --json results.json          and the numbers in a file
  bench cloning --case TEE           only cases whose names contain that
  bench --list                       what there is"
)]
struct Cli {
    /// What to measure; default all.
    #[arg(value_name = "NAME")]
    names: Vec<Name>,
    /// Write the results here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Say what there is, and measure nothing.
    #[arg(long)]
    list: bool,
    /// Few and short rounds.
    #[arg(long)]
    quick: bool,
    /// Measure only cases whose names contain this, and what they are compared with.
    #[arg(long, value_name = "TEXT", conflicts_with = "write_docs")]
    case: Option<String>,
    /// Put the results into benchmarks.json in this folder, and write benchmarks.md and its plots from it.
    #[arg(long, value_name = "DIR")]
    write_docs: Option<PathBuf>,
    /// Write benchmarks.md and its plots in this folder from the results that are there, and measure nothing.
    #[arg(long, value_name = "DIR")]
    render: Option<PathBuf>,
    /// What the sources are, by git.
    #[arg(long, value_name = "COMMIT", hide = true)]
    revision: Option<String>,
    /// Be the server that the benches talk to.
    #[arg(long, hide = true, value_name = "PORT")]
    serve: Option<u16>,
}

#[derive(Serialize)]
struct Document {
    machine: Machine,
    version: &'static str,
    benches: Vec<Results>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    if let Some(port) = cli.serve {
        return echo::serve(port);
    }
    if let Some(dir) = &cli.render {
        return document::render(dir);
    }
    if cli.list {
        for name in Name::ALL {
            println!("{:<10}  {}", name.label(), name.about());
        }
        return Ok(());
    }
    cleanup::install()?;
    let names = match cli.names.as_slice() {
        [] => Name::ALL,
        names => names,
    };
    let mut document = Document {
        machine: Machine::detect(),
        version: env!("CARGO_PKG_VERSION"),
        benches: Vec::new(),
    };
    let Machine { kernel, cpu, cpus } = &document.machine;
    println!("Linux {kernel}, {cpus} x {cpu}");
    for &name in names {
        let effort = Effort::new(name, cli.quick, cli.case.clone());
        let results = measure(name, &effort)?;
        results.print();
        if let Some(dir) = &cli.write_docs {
            document::keep(dir, section(cli, name, &effort, &results)?)?;
        }
        document.benches.push(results);
        if let Some(path) = &cli.json {
            // After each, so that a bench that fails costs only itself.
            let text = serde_json::to_string_pretty(&document).context("results")?;
            fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

fn measure(name: Name, effort: &Effort) -> Result<Results> {
    eprintln!("{}: takes {}", name.label(), name.duration());
    let before = machine::load();
    let mut results = name.run(effort).with_context(|| name.label())?;
    ensure!(
        !results.rows.is_empty(),
        "{}: no case has such a name",
        name.label()
    );
    results.load = [before, machine::load()];
    results.peers = name.peers();
    Ok(results)
}

/// What is kept of a run for the document.
fn section(cli: &Cli, name: Name, effort: &Effort, results: &Results) -> Result<Section> {
    let quick = if cli.quick { " --quick" } else { "" };
    // There is one way to the other: the file's.
    let results = serde_json::from_value(serde_json::to_value(results)?)?;
    Ok(Section {
        machine: Machine::detect(),
        version: env!("CARGO_PKG_VERSION").into(),
        revision: cli.revision.clone(),
        date: machine::today(),
        command: format!("cargo xtask bench {}{quick} --write-docs", name.label()),
        seconds: effort.elapsed().as_secs(),
        results,
    })
}
