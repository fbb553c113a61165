//! The traffic programs as children: servers in instances, clients in the client's host.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::report::{Connection, Progress, Report, Running, Summary};
use crate::agent::sibling;
use crate::netns::Namespace;
use crate::process::Process;
use crate::topology::{Family, Instance};

/// The port of the servers.
pub const PORT: u16 = 7000;
const START_LIMIT: Duration = Duration::from_secs(30);
const FINISH_LIMIT: Duration = Duration::from_secs(30);

/// The service at the VNI.
#[must_use]
pub fn service(family: Family) -> SocketAddr {
    SocketAddr::new(family.vni(), PORT)
}

/// Starts an instance's server and waits until it listens.
pub fn serve(instance: &Instance) -> Result<Process> {
    serve_with(instance, &[])
}

/// The same, with more arguments of the `traffic server` command.
pub fn serve_with(instance: &Instance, arguments: &[&str]) -> Result<Process> {
    let mut command = instance.namespace.command(sibling("traffic", None)?)?;
    command.arg("server").args(arguments);
    for family in Family::ALL {
        command.args(["--listen", &service(family).to_string()]);
    }
    let mut server = Process::start(&format!("server {}", instance.name), command)?;
    server.line("ready", START_LIMIT, |line| {
        Ok((line == "ready").then_some(()))
    })?;
    Ok(server)
}

/// A running client.
#[derive(Debug)]
pub struct Client {
    process: Process,
    /// How it began.
    pub running: Running,
    /// The last progress that was read.
    pub progress: Progress,
}

/// What a client has told when it ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Each connection.
    pub connections: Vec<Connection>,
    /// All of them.
    pub summary: Summary,
}

impl Client {
    /// Starts a client with arguments of the `traffic client` command and waits
    /// until its connections are made.
    pub fn start(host: &Namespace, server: SocketAddr, arguments: &[&str]) -> Result<Self> {
        let mut command = host.command(sibling("traffic", None)?)?;
        command
            .arg("client")
            .arg(server.to_string())
            .args(arguments);
        let mut process = Process::start("the client", command)?;
        let running = process.line("running", START_LIMIT, |line| {
            Ok(match read(line)? {
                Report::Running(running) => Some(running),
                _ => None,
            })
        })?;
        Ok(Self {
            process,
            running,
            progress: Progress::default(),
        })
    }

    /// Reads what has come and returns the latest sums.
    pub fn progress(&mut self) -> Result<Progress> {
        for line in self.process.pending() {
            if let Report::Progress(progress) = read(&line)? {
                self.progress = progress;
            }
        }
        Ok(self.progress)
    }

    /// Waits for the next sums; they come several times a second.
    pub fn next_progress(&mut self) -> Result<Progress> {
        self.progress = self.process.line("progress", START_LIMIT, |line| {
            Ok(match read(line)? {
                Report::Progress(progress) => Some(progress),
                _ => None,
            })
        })?;
        Ok(self.progress)
    }

    /// From this time on stalls count as the fault's.
    pub fn mark(&mut self, time_ns: u64) -> Result<()> {
        self.process.send(&format!("mark {time_ns}"))
    }

    /// Has every connection finish and returns what became of each.
    pub fn finish(mut self) -> Result<Ended> {
        self.process.send("stop")?;
        self.ended()
    }

    /// Waits for the end of a client that has a duration.
    pub fn ended(mut self) -> Result<Ended> {
        let mut connections = Vec::new();
        let summary = self
            .process
            .line("summary", FINISH_LIMIT, |line| match read(line)? {
                Report::Connection(connection) => {
                    connections.push(connection);
                    Ok(None)
                }
                Report::Summary(summary) => Ok(Some(summary)),
                _ => Ok(None),
            })?;
        Ok(Ended {
            connections,
            summary,
        })
    }
}

fn read(line: &str) -> Result<Report> {
    serde_json::from_str(line).with_context(|| format!("the client said {line:?}"))
}
