//! A fault that is seen coming: an instance's server leaks, the agent moves its connections away, and when the kernel
//! kills it for want of memory it serves nobody. Beside it the same fault where nobody predicts.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::outcome::{Death, Evidence, Outcome, Step};
use super::{INSTANCES, Plan, QUIET, Stage, Watch, connect, most_active, stolen};
use crate::agent::Agent;
use crate::cgroup::MemoryGroup;
use crate::clock::{monotonic_ns, ms, stolen_ms, wait_until};
use crate::process::Process;
use crate::topology::Topology;
use crate::topology::config::Config;
use crate::traffic::program::{Client, serve};

/// What each instance has: several times what its server needs.
pub const MEMORY_BYTES: u64 = 160 << 20;
/// What the server loses each second: all of it within a quarter of a minute.
pub const LEAK_BYTES_S: u64 = 10 << 20;
/// How often instances are judged: four times as often as usual, so that what is usual is known after eight seconds and
/// not after thirty.
pub const INTERVAL_MS: u64 = 250;
/// From one row of a timeline to the next.
const STEP_S: f64 = 0.5;
/// Longer than that takes.
const KNOWN_LIMIT: Duration = Duration::from_secs(30);
/// Longer than all of the memory lasts.
const DEATH_LIMIT: Duration = Duration::from_secs(60);

/// Servers with a limit of memory each.
#[derive(Debug)]
pub struct Contained {
    // Dropped first: a group goes when nobody is in it.
    servers: Vec<Process>,
    groups: Vec<MemoryGroup>,
}

impl Contained {
    /// Starts a server on each instance.
    pub fn start(topology: &Topology) -> Result<Self> {
        let groups = topology.memory_groups(MEMORY_BYTES)?;
        let mut servers = Vec::new();
        for (instance, group) in topology.instances.iter().zip(&groups) {
            let server = serve(instance)?;
            group.take_in(server.pid())?;
            servers.push(server);
        }
        Ok(Self { servers, groups })
    }

    /// The agent's configuration for them.
    #[must_use]
    pub fn config(&self, topology: &Topology) -> Config {
        let folders = self.groups.iter().map(MemoryGroup::path);
        topology
            .config()
            .with_health(INTERVAL_MS)
            .with_metrics(folders.map(|folder| folder.display().to_string()))
    }

    /// Has a server leak; the moment of its end comes out at the other end.
    pub fn leak(&mut self, place: usize) -> Result<Receiver<u64>> {
        let server = &mut self.servers[place];
        let end = server.end_time()?;
        server.send(&format!("leak {LEAK_BYTES_S}"))?;
        Ok(end)
    }

    /// Whether the kernel has killed a server for want of memory.
    pub fn is_killed(&self, place: usize) -> Result<bool> {
        Ok(self.groups[place].kills()? > 0)
    }
}

/// The same fault twice: with somebody who sees it coming, and without.
pub(super) fn run(plan: &Plan, watch: &mut dyn Watch) -> Result<Outcome> {
    let predicted = once(plan, Stage::new(watch), true)?;
    let mut stage = Stage::new(watch);
    stage.prefix = "without prediction: ";
    let unpredicted = once(plan, stage, false)?;
    Ok(predicted.against(unpredicted))
}

fn once(plan: &Plan, mut stage: Stage<'_>, predicts: bool) -> Result<Outcome> {
    stage.enter("making the network");
    let topology = Topology::create(INSTANCES)?;
    stage.enter("starting servers");
    let mut servers = Contained::start(&topology)?;
    stage.enter("starting the agent");
    let config = match predicts {
        true => servers.config(&topology),
        false => topology.config(),
    };
    let mut agent = Agent::start(&topology, &plan.adapt(config))?;
    let (mut client, mut notes) = connect(plan, &mut stage, &topology, &agent)?;
    if predicts {
        stage.enter("learning what is usual");
        agent.wait_foreseen(KNOWN_LIMIT)?;
    }
    stage.enter("traffic before the fault");
    stage.pass(plan.before, &agent, &mut client, 0)?;

    wait_until("the agent to have counted flows", KNOWN_LIMIT, || {
        let instances = agent.instances()?;
        Ok(instances
            .iter()
            .all(|instance| instance.flows > 0)
            .then_some(()))
    })?;
    let since = agent.last_event()?;
    let before = agent.flows()?;
    let victim = most_active(&before)?;
    let place = topology.instances.iter().position(|i| i.name == victim);
    let place = place.context("no such instance")?;
    let stolen_ms = stolen_ms();
    let fault_ns = monotonic_ns();
    // From here on: moving away is part of what is measured.
    client.mark(fault_ns)?;
    let end = servers.leak(place)?;
    stage.enter(&format!(
        "{} ({}) on {victim}",
        plan.fault,
        plan.fault.says()
    ));
    let mut course = Course {
        fault_ns,
        place,
        steps: Vec::new(),
    };
    let killed_ns = await_end(&end, &mut stage, &agent, &mut client, since, &mut course)?;
    ensure!(
        servers.is_killed(place)?,
        "the server of {victim} ended by itself"
    );
    stage.enter(&format!("{victim} was killed by the kernel"));
    stage.hold(QUIET, &mut client)?;
    stage.pass(plan.after.saturating_sub(QUIET), &agent, &mut client, since)?;
    course.note(&stage);

    let passed = Duration::from_nanos(monotonic_ns() - fault_ns);
    notes.extend(stolen(stolen_ms, passed));
    stage.enter("finishing");
    agent.check_alive()?;
    let (after, events) = (agent.flows()?, agent.events(since)?);
    let ended = client.finish()?.connections;
    let evidence = Evidence {
        fault_ns,
        death: Some(Death {
            killed_ns,
            predicted: predicts,
            course: course.steps,
        }),
        victim,
        before,
        after,
        events,
        ended,
    };
    Ok(Outcome::judge(plan, &evidence, notes))
}

/// The victim over time.
struct Course {
    fault_ns: u64,
    place: usize,
    steps: Vec<Step>,
}

impl Course {
    /// Takes down what the stage shows, at most so often as anybody could read.
    fn note(&mut self, stage: &Stage<'_>) {
        let at_s = (ms(monotonic_ns() - self.fault_ns)).round() / 1e3;
        let Some(instance) = stage.snapshot.instances.get(self.place) else {
            return;
        };
        if self
            .steps
            .last()
            .is_some_and(|last| at_s - last.at_s < STEP_S)
        {
            return;
        }
        self.steps.push(Step {
            at_s,
            risk: instance
                .predicted_score
                .map(|score| ((1.0 - score) * 1e3).round() / 1e3),
            flows: instance.flows,
            state: instance.state.clone(),
        });
    }
}

/// Shows traffic until the server is dead; when that was.
fn await_end(
    end: &Receiver<u64>,
    stage: &mut Stage<'_>,
    agent: &Agent<'_>,
    client: &mut Client,
    since: u64,
    course: &mut Course,
) -> Result<u64> {
    let deadline = Instant::now() + DEATH_LIMIT;
    loop {
        match end.try_recv() {
            Ok(time_ns) => return Ok(time_ns),
            Err(TryRecvError::Empty) if Instant::now() < deadline => {}
            Err(_) => bail!("the server that leaks lives on"),
        }
        stage.pass(Duration::from_millis(1), agent, client, since)?;
        course.note(stage);
    }
}
