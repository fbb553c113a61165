//! `faults`: records what an agent's engine gets while real faults grow in real servers under real load, with the truth
//! of what their clients got.

mod client;
mod container;
mod instance;
mod plan;
mod server;
mod session;
mod tally;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Barrier, RwLock};
use std::thread;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use testbed::process::raise_descriptor_limit;

use plan::{Family, Part};
use session::{Common, Plan};

/// Runs services in network namespaces and control groups, lets real faults grow in their instances, and records what
/// the agents' engines get, with what the clients got. All is gone at the end, also after an error or Ctrl-C.
#[derive(Parser)]
#[command(
    name = "faults",
    version,
    after_help = "\
Examples:
  faults record DIR --minutes 20                     the whole corpus
  faults record DIR --minutes 5 --services 1 --family memory-leak"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Record a corpus.
    Record(Record),
    /// Serve: an instance's server.
    #[command(hide = true)]
    Serve {
        name: char,
        listen: SocketAddr,
        journal: Option<PathBuf>,
    },
    /// Burn processor time, as standard input says.
    #[command(hide = true)]
    Neighbour,
}

#[derive(clap::Args)]
struct Record {
    /// Where the recordings go: DIR/tuning and DIR/held-out.
    dir: PathBuf,
    /// How long each service runs.
    #[arg(long, value_name = "M", default_value_t = 20.0)]
    minutes: f64,
    /// Nothing else than this.
    #[arg(long, value_enum)]
    family: Option<Family>,
    /// How many services at once.
    #[arg(long, value_name = "N", default_value_t = 9)]
    services: usize,
    /// What all of them are for; without it the first of three may be looked at, and the others are held out.
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Instances of each service.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=16))]
    instances: u8,
    /// What decides what happens to whom.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Of so many services, the first is of the part that may be looked at, unless all are of one.
const TUNING_ONE_OF: usize = 3;
/// Builds on the machine are not to be measured.
const NICENESS: i32 = -10;

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Record(args) => record(&args),
        Verb::Serve {
            name,
            listen,
            journal,
        } => server::run(name, listen, journal.as_deref()),
        Verb::Neighbour => server::neighbour(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn record(args: &Record) -> Result<()> {
    raise_descriptor_limit()?;
    // SAFETY: a system call without pointers.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) } != 0 {
        eprintln!("faults: no better priority: what else runs will be measured, too");
    }
    let seconds = args.minutes * 60.0;
    let plans = (0..args.services).map(|number| {
        let part = args.part.unwrap_or(match number % TUNING_ONE_OF {
            0 => Part::Tuning,
            _ => Part::HeldOut,
        });
        let instances = usize::from(args.instances);
        let seed = args.seed.wrapping_mul(1_000) + number as u64;
        Plan {
            number,
            part,
            instances,
            episodes: plan::episodes(part, number, instances, seconds, args.family, args.seed),
            seconds,
            seed,
        }
    });
    let plans: Vec<Plan> = plans.collect();
    let (ready, turn) = (Barrier::new(plans.len()), RwLock::new(None));
    let common = Common {
        folder: &args.dir,
        ready: &ready,
        turn: &turn,
    };
    let outcomes: Vec<Result<PathBuf>> = thread::scope(|scope| {
        let sessions = plans.iter().map(|plan| {
            let common = &common;
            scope.spawn(move || session::run(plan, common))
        });
        let sessions: Vec<_> = sessions.collect();
        sessions
            .into_iter()
            .map(|session| {
                session
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    let mut failures = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(file) => println!("{}", file.display()),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    match failures.first() {
        Some(first) => bail!("{} services failed, the first: {first}", failures.len()),
        None => Ok(()),
    }
}
