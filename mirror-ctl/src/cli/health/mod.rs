//! `mirror-ctl health`: training, evaluating and explaining predictions. Only `explain` without a recording asks an agent.

mod bench;
mod chart;
mod eval;
mod label;
mod live;
mod models;
mod play;
mod real;
mod record;
mod recordings;
mod report;
mod train;

use std::{ffi::OsString, path::PathBuf};

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    DEFAULT_SOCKET,
    health::{
        collect::source::Source,
        public::{Split, Task},
        sim::Family,
    },
};

const EXAMPLES: &str = "\
Examples:
  mirror-ctl health train model.bin                     a model from the simulated corpus
  mirror-ctl health train model.bin --recordings /var/lib/mirror/record
                                                        a model from what the agent recorded
  mirror-ctl health train model.bin --recordings web.rec --with-simulated
                                                        a model from both
  mirror-ctl health eval --model model.bin              how well it does on what it has not seen
  mirror-ctl health eval --recordings tests/recordings/held-out --model model.bin
                                                        the same on real faults
  mirror-ctl health record web.rec --source web-1=http://10.66.1.2:9100/metrics
  mirror-ctl health replay web.rec --model model.bin    what would have been done, and when
  mirror-ctl health models                              champion and challenger of the running agent
  mirror-ctl health explain web-1                       why the running agent thinks so of it";

const MODELS_EXAMPLES: &str = "\
Examples:
  mirror-ctl health models              champion and challenger, their scores, drift
  mirror-ctl health models --json
  mirror-ctl health promote             the challenger judges from now on
  mirror-ctl health rollback            the champion before judges again";

/// Train, evaluate and explain the prediction of failures.
#[derive(Debug, Parser)]
#[command(name = "mirror-ctl health", arg_required_else_help = true, after_help = EXAMPLES)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Train a model on the simulated corpus, on recordings, or on both.
    Train(Train),
    /// Judge a model on the held-out part of the corpus, or the method on a folder of public data.
    Eval(Eval),
    /// Record what instances tell of themselves, until interrupted. A recording that exists is gone on with.
    Record(Record),
    /// Put what clients got beside a recording, so that models can be judged by it.
    Label(Label),
    /// Record a simulated run with a fault in its first instance.
    Simulate(Simulate),
    /// Tell what would have been done, and when, with what was recorded.
    Replay(Play),
    /// Tell which signals moved an instance's score: now, as the running agent has it, or in a recording.
    Explain(Explain),
    /// Measure what features and inference cost here.
    Bench(Bench),
    /// Show which models judge in the running agent, how well, and whether what they are given has drifted.
    Models(Models),
    /// Have the challenger take the champion's place, in the running agent.
    Promote(Models),
    /// Have the champion before come back, in the running agent.
    Rollback(Models),
}

/// `models`, `promote` and `rollback`.
#[derive(Debug, clap::Args)]
#[command(after_help = MODELS_EXAMPLES)]
struct Models {
    /// The agent's socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, env = "MIRROR_SOCKET")]
    socket: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `record`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mirror-ctl health record web.rec --source web-1=http://10.66.1.2:9100/metrics\n  mirror-ctl health record web.rec --source a=/sys/fs/cgroup/a --count 600"
)]
struct Record {
    /// The recording.
    file: PathBuf,
    /// An instance and where its signals are: NAME=http://ADDRESS:PORT/metrics of a node exporter, or NAME=/FOLDER
    /// of a cgroup (may be repeated).
    #[arg(long = "source", value_name = "NAME=WHERE", required = true, value_parser = record::source)]
    sources: Vec<Source>,
    /// From one reading to the next, in ms.
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    every_ms: u64,
    /// Stop after so many readings.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// `label`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mirror-ctl health label web-000001.rec web.rec.gz --truth told.json"
)]
struct Label {
    /// The recording.
    file: PathBuf,
    /// Where it goes, compressed (NAME.rec.gz); what is known of it goes beside it, as NAME.json.
    out: PathBuf,
    /// What whoever made the recording knows: the faults, and what clients got each second (JSON).
    #[arg(long, value_name = "FILE")]
    truth: PathBuf,
}

/// `simulate`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mirror-ctl health simulate leak.rec --family memory-leak --seed 7"
)]
struct Simulate {
    /// The recording.
    file: PathBuf,
    /// The fault.
    #[arg(long, value_enum, default_value = "memory-leak")]
    family: Family,
    /// Where chance begins.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
}

/// `replay`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mirror-ctl health replay /var/lib/mirror/record/web-000001.rec\n  mirror-ctl health replay web.rec --model model.bin"
)]
struct Play {
    /// The recording.
    file: PathBuf,
    /// The model; without one, layer A alone.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

/// `explain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mirror-ctl health explain web-1              as the running agent has it\n  mirror-ctl health explain web-1 web.rec --at 120"
)]
struct Explain {
    /// The instance.
    instance: String,
    /// A recording; without one the running agent is asked.
    file: Option<PathBuf>,
    /// The model to judge the recording by; without one, layer A alone.
    #[arg(long, value_name = "FILE", requires = "file")]
    model: Option<PathBuf>,
    /// Seconds from the recording's start [default: when its risk is greatest].
    #[arg(long, value_name = "SECONDS", requires = "file")]
    at: Option<f64>,
    /// The agent's socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, env = "MIRROR_SOCKET")]
    socket: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `bench`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mirror-ctl health bench --instances 100\n  mirror-ctl health bench --model model.bin"
)]
struct Bench {
    /// The model; without one, layer A alone.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Instances of the VNI.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    instances: usize,
    /// Ticks measured.
    #[arg(long, value_name = "N", default_value_t = 200)]
    ticks: usize,
    /// Write the figures there too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// `train`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mirror-ctl health train model.bin\n  mirror-ctl health train model.bin --recordings /var/lib/mirror/record --with-simulated"
)]
struct Train {
    /// Where the model goes; its card goes beside it, as .json and .svg.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Learn from recordings: files, or folders such as the agent's own (may be repeated). Failures are what the agent
    /// saw fail, and what was measured of refusals and latency; of recordings with labels, what their clients got.
    #[arg(long, value_name = "DIR|FILE", num_args = 1..)]
    recordings: Vec<PathBuf>,
    /// Learn from the simulated corpus as well.
    #[arg(long, requires = "recordings")]
    with_simulated: bool,
    /// Runs of each family of faults.
    #[arg(long, value_name = "N", default_value_t = 60)]
    runs: usize,
    /// Trees of each hazard.
    #[arg(long, value_name = "N", default_value_t = 60)]
    trees: usize,
    /// Where chance begins.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
}

/// `eval`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mirror-ctl health eval --model model.bin --json found.json --svg found.svg\n  mirror-ctl health eval --recordings DIR --model model.bin"
)]
struct Eval {
    /// A model to judge on the held-out part of the corpus, or on recordings.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "data",
        required_unless_present_any = ["data", "recordings"]
    )]
    model: Option<PathBuf>,
    /// Recordings of real faults with what their clients got; without a model, layer A alone is judged.
    #[arg(long, value_name = "DIR", conflicts_with = "data")]
    recordings: Option<PathBuf>,
    /// Held-out runs of each family.
    #[arg(long, value_name = "N", default_value_t = 16)]
    runs: usize,
    /// Where the held-out part's chance begins.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// A folder of servers: NAME.train.csv.gz, and NAME.test.csv.gz with `label` in the first column.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What is to be predicted.
    #[arg(long, value_enum, default_value = "soon")]
    task: Task,
    /// How far ahead, in rows.
    #[arg(long, value_name = "ROWS", default_value_t = 10)]
    horizon: usize,
    /// How what is learned from and what is judged are kept apart.
    #[arg(long, value_enum, default_value = "group")]
    split: Split,
    /// Seconds from row to row [default: 300 for servers called omi-*, else 60].
    #[arg(long, value_name = "SECONDS")]
    row_s: Option<u32>,
    /// Use only the first part of each server's labelled half, a share: to make choices, not to judge.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    first: f64,
    /// Write the figures there too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the calibration curve there, as SVG; of recordings, what false alarms buy.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    svg: Option<PathBuf>,
}

/// These verbs as a part of the whole command line, for what is made of that.
pub(super) fn command() -> clap::Command {
    Args::command().name("health")
}

pub(super) fn run(rest: &[OsString]) -> Result<()> {
    let name = OsString::from("mirror-ctl health");
    let args = Args::parse_from(std::iter::once(&name).chain(rest));
    match args.verb {
        Verb::Train(args) => train::run(&args),
        Verb::Eval(args) => eval::run(&args),
        Verb::Record(args) => record::run(&args),
        Verb::Label(args) => label::run(&args),
        Verb::Simulate(args) => record::simulate(&args),
        Verb::Replay(args) => play::replay(&args),
        Verb::Explain(args) => match &args.file {
            Some(file) => play::explain(&args, file),
            None => live::explain(&args),
        },
        Verb::Bench(args) => bench::run(&args),
        Verb::Models(args) => models::show(&args),
        Verb::Promote(args) => models::change(&args, "promote"),
        Verb::Rollback(args) => models::change(&args, "rollback"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
