//! `bench`: what the dataplane costs, against what one would use instead, both in one run.

mod assemble;
mod balancer;
mod cloning;
mod echo;
mod failure;
mod frame;
mod latency;
mod machine;
mod mirrors;
mod operate;
mod probe;
mod report;
mod rig;
mod scale;
mod stats;
mod steering;
mod sys;
mod throughput;
mod ways;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use machine::Machine;
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
    /// Be the server that the benches talk to.
    #[arg(long, hide = true, value_name = "PORT")]
    serve: Option<u16>,
}

/// A bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// Cost of a packet in each program
    Steering,
    /// Packets per second with copies
    Cloning,
    /// Request and response
    Latency,
    /// Bytes per second
    Throughput,
    /// Connections and requests when an instance fails
    Failure,
    /// Memory and time with a million flows
    Scale,
    /// What an operator waits for with a million flows
    Operate,
}

impl Name {
    const ALL: &'static [Self] = &[
        Self::Steering,
        Self::Cloning,
        Self::Latency,
        Self::Throughput,
        Self::Failure,
        Self::Scale,
        Self::Operate,
    ];

    fn about(self) -> &'static str {
        match self {
            Self::Steering => "steering    ns per packet in each program, on 1 to a million flows",
            Self::Cloning => {
                "cloning     packets/s with 0 to 3 mirrors; tc mirred, nftables dup, TEE"
            }
            Self::Latency => {
                "latency     request and response; direct veth, nftables DNAT, HAProxy"
            }
            Self::Throughput => "throughput  1 and 64 streams, both directions; the same",
            Self::Failure => {
                "failure     connections kept, requests failed; HAProxy, nftables DNAT"
            }
            Self::Scale => {
                "scale       a million flows: memory, look-up, takeover; a steering table"
            }
            Self::Operate => {
                "operate     a million flows: what an operator waits for, under traffic"
            }
        }
    }

    fn run(self, effort: Effort) -> Result<Results> {
        match self {
            Self::Steering => steering::run(effort),
            Self::Cloning => cloning::run(effort),
            Self::Latency => latency::run(effort),
            Self::Throughput => throughput::run(effort),
            Self::Failure => failure::run(effort),
            Self::Scale => scale::run(effort),
            Self::Operate => operate::run(effort),
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Pairs.
    pub(crate) rounds: usize,
    /// Packets of one side of a pair.
    pub(crate) packets: u32,
}

impl Effort {
    const FULL: Self = Self {
        rounds: 15,
        packets: 100_000,
    };
    const QUICK: Self = Self {
        rounds: 3,
        packets: 20_000,
    };
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
    if cli.list {
        for name in Name::ALL {
            println!("{}", name.about());
        }
        return Ok(());
    }
    cleanup::install()?;
    let names = match cli.names.as_slice() {
        [] => Name::ALL,
        names => names,
    };
    let effort = if cli.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let mut document = Document {
        machine: Machine::detect(),
        version: env!("CARGO_PKG_VERSION"),
        benches: Vec::new(),
    };
    let Machine { kernel, cpu, cpus } = &document.machine;
    println!("Linux {kernel}, {cpus} x {cpu}");
    for name in names {
        let before = machine::load();
        let mut results = name.run(effort).with_context(|| format!("{name:?}"))?;
        results.load = [before, machine::load()];
        results.print();
        document.benches.push(results);
        if let Some(path) = &cli.json {
            // After each, so that a bench that fails costs only itself.
            let text = serde_json::to_string_pretty(&document).context("results")?;
            fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}
