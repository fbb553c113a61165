//! One fault under load, from an empty machine to a verdict: network, servers,
//! agent, traffic, then the fault, and what became of every connection.

mod load;
pub mod outcome;
pub mod predicted;

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::agent::{Agent, Event, Flow, InstanceStatus};
use crate::clock::{monotonic_ns, ms, stolen_ms};
use crate::process::Process;
use crate::topology::config::Config;
use crate::topology::{Family, Topology};
use crate::traffic::program::{Client, serve, service};
use crate::traffic::report::Progress;
use load::Load;
use outcome::{Evidence, Outcome};

/// How many instances a scenario has.
pub const INSTANCES: usize = 3;
const WARM_LIMIT: Duration = Duration::from_secs(10);
/// Right after the fault nobody asks the agent anything, so that the answers
/// do not cost the time that is measured.
const QUIET: Duration = Duration::from_millis(700);
/// What the machine may be without before a stall's reader is told of it.
const STOLEN_MS_MAX: u64 = 20;

/// What happens to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its server's process is killed: its kernel closes or resets every connection.
    Killed,
    /// Its link goes down at its own end.
    LinkDown,
    /// It hears everything, and nothing that it sends gets out.
    Silent,
    /// It is evacuated by the operator and stays alive.
    Evacuated,
    /// Its server leaks until the kernel kills it; the agent is to see that coming.
    Predicted,
}

impl Fault {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Killed,
        Self::LinkDown,
        Self::Silent,
        Self::Evacuated,
        Self::Predicted,
    ];

    /// Its name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::LinkDown => "link_down",
            Self::Silent => "silent",
            Self::Evacuated => "evacuated",
            Self::Predicted => "predicted",
        }
    }

    /// What happens, for a person.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Killed => "SIGKILL of the server process",
            Self::LinkDown => "the instance's link goes down",
            Self::Silent => "the instance stops answering, nothing is torn down",
            Self::Evacuated => "mirror-ctl evacuate",
            Self::Predicted => "the server leaks memory until the kernel kills it",
        }
    }

    /// The longest stall that 99 of 100 connections may see.
    #[must_use]
    pub fn stall_p99_ms_max(self) -> f64 {
        match self {
            Self::Evacuated => 5.0,
            _ => 300.0,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|fault| fault.name() == text);
        found.ok_or_else(|| format!("no scenario {text:?}: there are {}", names()))
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What happens.
    pub fault: Fault,
    /// The least number of connections that it must happen to.
    pub connections: usize,
    /// What the clients speak.
    pub family: Family,
    /// XDP's mode on every interface: `auto`, `native` or `generic`.
    pub mode: String,
    /// Mirrors of each flow.
    pub mirrors: u8,
    /// Whether the first to answer is heard.
    pub first: bool,
    /// Traffic before the fault, for comparison.
    pub before: Duration,
    /// Traffic after it, at least [`QUIET`].
    pub after: Duration,
    /// The longest stall that 99 of 100 connections may see.
    pub stall_p99_ms_max: f64,
}

impl Plan {
    /// As the demo does it: over IPv4, native XDP where it can be, one mirror,
    /// and for so long after the fault that idle connections have spoken and
    /// retransmission timers have fired several times.
    #[must_use]
    pub fn new(fault: Fault, connections: usize) -> Self {
        Self {
            fault,
            connections,
            family: Family::V4,
            mode: "auto".into(),
            mirrors: 1,
            first: false,
            before: Duration::from_millis(1_500),
            after: Duration::from_millis(3_000),
            stall_p99_ms_max: fault.stall_p99_ms_max(),
        }
    }

    /// An agent's configuration as the plan wants it.
    fn adapt(&self, config: Config) -> Config {
        let config = config.with_mode(&self.mode).with_mirrors(self.mirrors);
        match self.first {
            true => config.with_first_delivery(),
            false => config,
        }
    }
}

/// How far a scenario is.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What it is doing.
    pub phase: String,
    /// The instances as the agent has them.
    pub instances: Vec<InstanceStatus>,
    /// The traffic so far.
    pub progress: Progress,
    /// Connections taken over.
    pub takeovers: usize,
}

/// Somebody who looks on.
pub trait Watch {
    /// Something changed, or time has passed.
    fn see(&mut self, snapshot: &Snapshot);
}

/// Nobody.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn see(&mut self, _: &Snapshot) {}
}

/// Runs a scenario.
pub fn run(plan: &Plan, watch: &mut dyn Watch) -> Result<Outcome> {
    if plan.fault == Fault::Predicted {
        return predicted::run(plan, watch);
    }
    let mut stage = Stage::new(watch);
    stage.enter("making the network");
    let topology = Topology::create(INSTANCES)?;
    stage.enter("starting servers");
    let mut servers = topology
        .instances
        .iter()
        .map(serve)
        .collect::<Result<Vec<_>>>()?;
    stage.enter("starting the agent");
    let config = plan.adapt(topology.config());
    let mut agent = Agent::start(&topology, &config)?;
    let (mut client, mut notes) = connect(plan, &mut stage, &topology, &agent)?;
    stage.enter("traffic before the fault");
    stage.pass(plan.before, &agent, &mut client, 0)?;

    let since = agent.last_event()?;
    let before = agent.flows()?;
    let victim = most_active(&before)?;
    let stolen_ms = stolen_ms();
    let fault_ns = monotonic_ns();
    client.mark(fault_ns)?;
    strike(plan.fault, &victim, &topology, &mut servers, &agent)?;
    stage.enter(&format!(
        "{} ({}) on {victim}",
        plan.fault,
        plan.fault.says()
    ));
    stage.hold(QUIET, &mut client)?;
    stage.pass(plan.after.saturating_sub(QUIET), &agent, &mut client, since)?;

    notes.extend(stolen(stolen_ms, plan.after));
    stage.enter("finishing");
    agent.check_alive()?;
    let (after, events) = (agent.flows()?, agent.events(since)?);
    let ended = client.finish()?.connections;
    let evidence = Evidence {
        fault_ns,
        death: None,
        victim,
        before,
        after,
        events,
        ended,
    };
    Ok(Outcome::judge(plan, &evidence, notes))
}

/// Traffic, with a mirror for every connection that could take it over; what a person should know of that.
fn connect(
    plan: &Plan,
    stage: &mut Stage<'_>,
    topology: &Topology,
    agent: &Agent<'_>,
) -> Result<(Client, Vec<String>)> {
    stage.enter("connecting");
    // The instance that serves most of them serves at least its share.
    let connections = plan.connections * INSTANCES;
    let arguments = Load::of(connections).arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let client = Client::start(&topology.client, service(plan.family), &arguments)?;
    let failed = client.running.failed;
    ensure!(
        failed == 0,
        "{failed} of {connections} connections could not be made"
    );

    stage.enter("waiting for warm mirrors");
    let warm = agent.wait_warm(client.running.connections, WARM_LIMIT);
    let mut notes = Vec::new();
    if let Err(error) = warm {
        notes.push(format!("{error:#}"));
        notes.extend(changes(&agent.events(0)?));
    }
    Ok((client, notes))
}

/// What became of instances, in words.
fn changes(events: &[Event]) -> impl Iterator<Item = String> + '_ {
    let changes = events.iter().filter(|event| event.kind == "instance-state");
    changes.map(|event| {
        let word = |of: &'_ Option<String>| of.clone().unwrap_or_default();
        format!(
            "{:.3} s: {} was {} and is {} ({})",
            ms(event.time_ns) / 1e3,
            word(&event.instance),
            word(&event.from),
            word(&event.to),
            word(&event.cause)
        )
    })
}

/// A word about the machine, when it was not there for all of the time.
fn stolen(before_ms: u64, time: Duration) -> Option<String> {
    let stolen_ms = stolen_ms() - before_ms;
    let time_ms = time.as_millis();
    (stolen_ms > STOLEN_MS_MAX).then(|| {
        format!("the hypervisor took {stolen_ms} ms of processor time in the {time_ms} ms after it")
    })
}

fn strike(
    fault: Fault,
    victim: &str,
    topology: &Topology,
    servers: &mut [Process],
    agent: &Agent<'_>,
) -> Result<()> {
    let instance = topology.instance(victim)?;
    match fault {
        Fault::Killed => {
            let index = topology
                .instances
                .iter()
                .position(|other| other.name == victim);
            servers[index.context("no such instance")?].kill();
            Ok(())
        }
        Fault::LinkDown => instance.link_down(),
        Fault::Silent => instance.silence(),
        Fault::Evacuated => agent.act("evacuate", victim),
        Fault::Predicted => bail!("it has a course of its own"),
    }
}

/// The instance that is active for most flows.
pub fn most_active(flows: &[Flow]) -> Result<String> {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for flow in flows.iter().filter(|flow| flow.protocol == "tcp") {
        *counts.entry(&flow.active).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(name, _)| name.to_owned())
        .context("the agent shows no TCP flow")
}

/// What the watcher sees, kept up to date.
struct Stage<'a> {
    watch: &'a mut dyn Watch,
    snapshot: Snapshot,
    /// Before each phase's words.
    prefix: &'static str,
}

impl<'a> Stage<'a> {
    fn new(watch: &'a mut dyn Watch) -> Self {
        let snapshot = Snapshot {
            phase: String::new(),
            instances: Vec::new(),
            progress: Progress::default(),
            takeovers: 0,
        };
        Self {
            watch,
            snapshot,
            prefix: "",
        }
    }

    fn enter(&mut self, phase: &str) {
        self.snapshot.phase = format!("{}{phase}", self.prefix);
        self.watch.see(&self.snapshot);
    }

    /// Lets traffic run, showing only what the client says of itself.
    fn hold(&mut self, time: Duration, client: &mut Client) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.snapshot.progress = client.next_progress()?;
            self.watch.see(&self.snapshot);
        }
        Ok(())
    }

    /// Lets traffic run, showing what the agent says, too.
    fn pass(
        &mut self,
        time: Duration,
        agent: &Agent<'_>,
        client: &mut Client,
        since: u64,
    ) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.snapshot.progress = client.next_progress()?;
            self.snapshot.instances = agent.instances()?;
            if since > 0 {
                let events = agent.events(since)?;
                self.snapshot.takeovers = outcome::taken_over(&events, None).len();
            }
            self.watch.see(&self.snapshot);
        }
        Ok(())
    }
}
