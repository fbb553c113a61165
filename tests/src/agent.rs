//! The agent under test, and what its command line tool says about it. Its
//! answers are read into types of the testbed's own: a renamed field breaks
//! users' scripts and so must break a test.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::clock::wait_until;
use crate::netns::Namespace;
use crate::process::{self, Process};
use crate::topology::Topology;
use crate::topology::config::Config;

/// Names the binary that is tested.
pub const BINARY_VARIABLE: &str = "MIRROR_CTL";
const BINARY: &str = "mirror-ctl";
/// Programs are verified in it, which takes an emulated machine half a minute.
const READY_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The binary that is tested.
pub fn program() -> Result<PathBuf> {
    sibling(BINARY, Some(BINARY_VARIABLE))
}

/// `instances --json`
#[derive(Clone, Debug, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// `up`, `draining`, `evacuating` or `dead`.
    pub state: String,
    /// Why it is in that state.
    #[serde(default)]
    pub cause: Option<String>,
    /// Since when, by the monotonic clock.
    pub changed_ns: u64,
    /// Its share of new flows.
    pub weight: u32,
    /// Its part of the new flows.
    pub share: f64,
    /// Its health score.
    pub score: f64,
    /// What is predicted of it; none while nothing is known.
    #[serde(default)]
    pub predicted_score: Option<f64>,
    /// The interface that leads to it.
    pub link: String,
    /// The XDP mode of its link.
    pub xdp_mode: String,
    /// How many flows it is active for.
    pub flows: u64,
}

/// `flows --json`
#[derive(Clone, Debug, Deserialize)]
pub struct Flow {
    /// The client's address and port.
    pub client: String,
    /// The VNI.
    pub vni: String,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Where it is in its life: `established`, …, `closed`.
    pub state: String,
    /// The instance that the client hears.
    pub active: String,
    /// Every instance that gets the client's packets.
    pub replicas: Vec<Replica>,
    /// How often it was taken over.
    pub takeovers: u64,
    /// Why it has no mirrors.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Flow {
    /// Whether a mirror could take it over now.
    #[must_use]
    pub fn has_warm_mirror(&self) -> bool {
        self.replicas
            .iter()
            .any(|replica| replica.role == "mirror" && replica.state == "warm")
    }
}

/// An instance's part in a flow.
#[derive(Clone, Debug, Deserialize)]
pub struct Replica {
    /// The instance.
    pub instance: String,
    /// `active` or `mirror`.
    pub role: String,
    /// `pending`, `warm` or `cold`.
    pub state: String,
    /// Why it is cold.
    #[serde(default)]
    pub reason: Option<String>,
    /// If it is `diverged`: within how many bytes of the stream.
    #[serde(default)]
    pub diverged_within: Option<u32>,
    /// Bytes that it has yet to receive or to say.
    #[serde(default)]
    pub lag_bytes: u64,
}

/// `events --json`
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// Its number; later ones have greater numbers.
    pub seq: u64,
    /// When, by the monotonic clock.
    pub time_ns: u64,
    /// `takeover`, `instance-state`, ...
    pub kind: String,
    /// A takeover's flow.
    #[serde(default)]
    pub client: Option<String>,
    /// A takeover's flow at the VNI's end.
    #[serde(default)]
    pub address: Option<String>,
    /// An instance-state's instance.
    #[serde(default)]
    pub instance: Option<String>,
    /// A takeover's old instance, or an instance's old state.
    #[serde(default)]
    pub from: Option<String>,
    /// A takeover's new instance, or an instance's new state.
    #[serde(default)]
    pub to: Option<String>,
    /// Why.
    #[serde(default)]
    pub cause: Option<String>,
    /// Who ordered it.
    #[serde(default)]
    pub by: Option<String>,
}

/// `status --json`
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The agent's process.
    pub pid: u32,
    /// Whether it found the dataplane running.
    pub adopted: bool,
    /// Where programs are attached.
    pub interfaces: Vec<InterfaceStatus>,
    /// The dataplane's counters by reason.
    pub counters: std::collections::BTreeMap<String, u64>,
    /// The version before, while its flows end.
    #[serde(default)]
    pub draining: Option<Draining>,
}

/// A version that was replaced.
#[derive(Clone, Debug, Deserialize)]
pub struct Draining {
    /// Its keeper's process.
    pub pid: Option<u32>,
    /// Its keeper's socket.
    pub socket: PathBuf,
    /// Flows that are left.
    pub flows: Option<u64>,
    /// When they are cut.
    pub left_s: u64,
}

/// An interface with a program.
#[derive(Clone, Debug, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
    /// Whether frames can be redirected to it natively.
    pub redirect: bool,
}

/// An agent in the VNI host's namespace. When dropped it is stopped and the
/// dataplane is taken off.
#[derive(Debug)]
pub struct Agent<'a> {
    host: &'a Namespace,
    binary: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    process: Option<Process>,
}

impl<'a> Agent<'a> {
    /// Starts an agent and waits until it says that it is ready.
    pub fn start(topology: &'a Topology, config: &Config) -> Result<Self> {
        Self::start_binary(topology, config, program()?)
    }

    /// The same with a copy of the program, which can be replaced.
    pub fn start_copy(topology: &'a Topology, config: &Config) -> Result<Self> {
        let copy = topology.dir().join("program");
        process::copy(&program()?, &copy)?;
        Self::start_binary(topology, config, copy)
    }

    fn start_binary(topology: &'a Topology, config: &Config, binary: PathBuf) -> Result<Self> {
        let path = topology.dir().join("mirror.toml");
        config.write(&path)?;
        let mut agent = Self {
            host: &topology.host,
            binary,
            config: path,
            socket: config.agent.socket.clone(),
            process: None,
        };
        agent.restart()?;
        Ok(agent)
    }

    /// Starts it again after it was stopped or killed.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the agent is running");
        let mut command = self.host.command(&self.binary)?;
        command.args([
            OsStr::new("agent"),
            OsStr::new("--config"),
            self.config.as_os_str(),
        ]);
        let mut process = Process::start("the agent", command)?;
        process.line("ready", READY_LIMIT, |line| {
            Ok((line.trim() == "ready").then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Has it read its file again, by SIGHUP.
    pub fn hang_up(&self) -> Result<()> {
        let process = self.process.as_ref().context("the agent is not running")?;
        process.signal(Signal::SIGHUP)
    }

    /// The file that it reads.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.config
    }

    /// Its program.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// What it has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.process
            .as_ref()
            .map_or_else(String::new, Process::said)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        // A dropped process is a killed one.
        self.process = None;
    }

    /// Asks it to end and waits for that.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGTERM)?;
            process.wait(STOP_LIMIT)?;
        }
        Ok(())
    }

    /// Fails, with what it said, when the agent has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        let Some(process) = &mut self.process else {
            bail!("the agent is not running")
        };
        match process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the agent ended ({status}){}", process.said()),
        }
    }

    /// `instances`
    pub fn instances(&self) -> Result<Vec<InstanceStatus>> {
        self.json(&["instances"])
    }

    /// `flows`
    pub fn flows(&self) -> Result<Vec<Flow>> {
        self.json(&["flows", "--limit", "100000"])
    }

    /// `events --since`
    pub fn events(&self, since: u64) -> Result<Vec<Event>> {
        self.json(&["events", "--since", &since.to_string()])
    }

    /// The number of the last event.
    pub fn last_event(&self) -> Result<u64> {
        Ok(self
            .events(0)?
            .iter()
            .map(|event| event.seq)
            .max()
            .unwrap_or(0))
    }

    /// `status`
    pub fn status(&self) -> Result<Status> {
        self.json(&["status"])
    }

    /// `status` of another agent, such as a keeper.
    pub fn status_on(&self, socket: &Path) -> Result<Status> {
        self.json_on(socket, &["status"])
    }

    /// `flows` of another agent, such as a keeper.
    pub fn flows_on(&self, socket: &Path) -> Result<Vec<Flow>> {
        self.json_on(socket, &["flows", "--limit", "100000"])
    }

    /// `evacuate`, `restore`, `drain` or `takeover` of an instance.
    pub fn act(&self, verb: &str, instance: &str) -> Result<()> {
        self.run(&[verb, instance]).map(drop)
    }

    /// Waits until something is known of every instance's future.
    pub fn wait_foreseen(&self, limit: Duration) -> Result<()> {
        wait_until("a score for every instance", limit, || {
            let instances = self.instances()?;
            let known = |instance: &InstanceStatus| instance.predicted_score.is_some();
            Ok(instances.iter().all(known).then_some(()))
        })
    }

    /// Waits until so many flows of a protocol have a warm mirror.
    pub fn wait_warm(&self, flows: usize, limit: Duration) -> Result<Vec<Flow>> {
        let mut seen = String::from("nothing seen");
        let warm = wait_until("warm mirrors", limit, || {
            let all = self.flows()?;
            let warm = all.iter().filter(|flow| flow.has_warm_mirror()).count();
            seen = format!(
                "{warm} of {} flows are warm, {flows} wanted{}",
                all.len(),
                why(&all)
            );
            Ok((warm >= flows).then_some(all))
        });
        warm.with_context(|| seen)
    }

    /// Runs a verb of the tool and reads its JSON.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        self.json_on(&self.socket, arguments)
    }

    /// The same of an agent on another socket.
    pub fn json_on<T: DeserializeOwned>(&self, socket: &Path, arguments: &[&str]) -> Result<T> {
        let output = succeed(self.verb_on(socket, &[arguments, &["--json"]].concat()))?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            let text = String::from_utf8_lossy(&output.stdout);
            format!(
                "mirror-ctl {}: {}",
                arguments.join(" "),
                &text[..text.floor_char_boundary(300)]
            )
        })
    }

    /// Runs a verb of the tool and takes what it prints.
    pub fn text(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        String::from_utf8(output.stdout).context("output")
    }

    /// A verb of the tool, to be run.
    #[must_use]
    pub fn verb(&self, arguments: &[&str]) -> Command {
        self.verb_on(&self.socket, arguments)
    }

    fn verb_on(&self, socket: &Path, arguments: &[&str]) -> Command {
        // The socket is a file: the tool need not be in the namespace.
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--socket").arg(socket);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        succeed(self.verb(arguments))
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
        self.kill();
        let unload = self.host.command(&self.binary).and_then(|mut command| {
            command.arg("unload").arg("--config").arg(&self.config);
            succeed(command)
        });
        if let Err(error) = unload {
            eprintln!("{error:#}");
        }
    }
}

/// Finds another program of the project: named by a variable, or built beside this one.
pub fn sibling(name: &str, variable: Option<&str>) -> Result<PathBuf> {
    if let Some(path) = variable.and_then(std::env::var_os) {
        let path = PathBuf::from(path);
        ensure!(
            path.exists(),
            "{} is named by {}, but is not there",
            path.display(),
            name
        );
        return Ok(path);
    }
    let own = std::env::current_exe().context("own path")?;
    // target/PROFILE/name, or target/PROFILE/deps/name for a test.
    let near = own.ancestors().skip(1).take(3).map(|dir| dir.join(name));
    let release = own
        .ancestors()
        .skip(2)
        .take(2)
        .map(|dir| dir.join("release").join(name));
    near.chain(release)
        .find(|path| is_program(path))
        .with_context(|| {
            format!(
                "{name} is not beside {}: build it with `cargo xtask build`",
                own.display()
            )
        })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn succeed(mut command: Command) -> Result<Output> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, said.trim());
    }
    Ok(output)
}

/// The reasons for which mirrors are not warm, with how many have each.
fn why(flows: &[Flow]) -> String {
    let mut reasons = std::collections::BTreeMap::<String, usize>::new();
    for replica in flows.iter().flat_map(|flow| &flow.replicas) {
        if replica.role == "mirror" && replica.state != "warm" {
            let reason = replica.reason.as_deref().unwrap_or(&replica.state);
            *reasons.entry(reason.to_owned()).or_default() += 1;
        }
    }
    let reasons = reasons
        .iter()
        .map(|(reason, count)| format!(", {reason}: {count}"));
    reasons.collect()
}
