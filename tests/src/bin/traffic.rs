//! `traffic`: the server that instances run and the client that checks it.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use testbed::clock::monotonic_ns;
use testbed::traffic::client::{self, Command, Options};
use testbed::traffic::report::{Report, Summary};
use testbed::traffic::{Mix, server};
use tokio::sync::mpsc;

/// Traffic of which every byte is checked at both ends.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  traffic server --listen 10.77.0.100:7000 --listen '[fd77::100]:7000'
  traffic client 10.77.0.100:7000 --connections 100 --duration 5
  traffic client '[fd77::100]:7000' --mix upload=1 --duration 5
  traffic client 10.77.0.100:7000 --udp --duration 5"
)]
struct Cli {
    /// Run on this processor only: what all programs and queues of a network wait for is then in one order, and none of
    /// them overflows because another processor goes ahead.
    #[arg(long, global = true, value_name = "N")]
    processor: Option<usize>,
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Serve TCP and UDP; prints `ready` when it listens. Reads commands from standard input: `leak BYTES` (so many
    /// bytes of memory are lost each second from then on).
    Server {
        /// Where to listen; may be given several times.
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
    },
    /// Send traffic and print reports as lines of JSON. Reads commands from
    /// standard input: `mark [NS]` (a fault happens now, or at that time of the
    /// monotonic clock) and `stop`. Exits with 1 when a byte or connection was lost.
    Client(ClientArgs),
}

#[derive(Args)]
struct ClientArgs {
    /// The server's address and port.
    server: SocketAddr,
    /// How many connections.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Shares of the profiles request, download, upload and idle.
    #[arg(long, default_value_t)]
    mix: Mix,
    /// Send datagrams.
    #[arg(long)]
    udp: bool,
    /// Stop after so many seconds; otherwise at `stop` or the end of input.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    /// Seconds that connections may take to finish.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    finish: f64,
    /// Mean pause between a response and the next request.
    #[arg(long, value_name = "MS", default_value_t = 100)]
    think: u64,
    /// With --udp: send at once whenever fewer than N of a socket's are unanswered, as fast as they are carried.
    #[arg(long, value_name = "N", requires = "udp", conflicts_with = "think")]
    ahead: Option<u32>,
    /// Bytes per second that each download reads; 0 is as fast as it comes.
    #[arg(long, value_name = "BYTES", default_value_t = 200_000)]
    download_rate: u32,
    /// Bytes per second that each upload sends.
    #[arg(long, value_name = "BYTES", default_value_t = 100_000)]
    upload_rate: u32,
    /// Receive buffer of each download; 0 leaves it to the kernel.
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 10)]
    receive_buffer: u32,
    /// Where randomness begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl ClientArgs {
    fn resolve(self) -> Result<Options> {
        let seconds = |s| Duration::try_from_secs_f64(s).context("not a number of seconds");
        Ok(Options {
            server: self.server,
            connections: self.connections,
            mix: self.mix,
            udp: self.udp,
            duration: self.duration.map(seconds).transpose()?,
            finish: seconds(self.finish)?,
            think: Duration::from_millis(self.think),
            ahead: self.ahead,
            download_bytes_s: self.download_rate,
            upload_bytes_s: self.upload_rate,
            receive_buffer: self.receive_buffer,
            seed: self.seed,
        })
    }
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    testbed::process::raise_descriptor_limit()?;
    if let Some(processor) = cli.processor {
        stay_on(processor)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match cli.role {
        Role::Server { listen } => {
            let faults = faults();
            runtime.block_on(async {
                tokio::spawn(server::fail(faults));
                server::run(&listen, || println!("ready")).await
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Role::Client(args) => {
            let options = args.resolve()?;
            let summary = runtime.block_on(client::run(options, commands(), print))?;
            Ok(if is_clean(&summary) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

fn stay_on(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor).context("no such processor")?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot stay on one processor")
}

fn is_clean(summary: &Summary) -> bool {
    let faults = summary.resets + summary.bytes_lost + summary.bytes_altered + summary.duplicates;
    faults == 0 && summary.failed_connects == 0
}

fn print(report: Report) {
    let line = serde_json::to_string(&report).expect("a report is JSON");
    // A reader that has gone has no use for reports; the traffic goes on.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn commands() -> mpsc::UnboundedReceiver<Command> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let mut words = line.split_whitespace();
            let command = match (words.next(), words.next().map(str::parse)) {
                (Some("mark"), None) => Command::Mark(monotonic_ns()),
                (Some("mark"), Some(Ok(time_ns))) => Command::Mark(time_ns),
                (Some("stop"), None) => Command::Stop,
                _ => {
                    eprintln!("no command {line:?}: mark [NS] or stop");
                    continue;
                }
            };
            if sender.send(command).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Bytes a second that are to leak.
fn faults() -> mpsc::UnboundedReceiver<u64> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let rate = line.strip_prefix("leak ").map(|rate| rate.trim().parse());
            let Some(Ok(rate)) = rate else {
                eprintln!("no command {line:?}: leak BYTES");
                continue;
            };
            if sender.send(rate).is_err() {
                return;
            }
        }
    });
    receiver
}
