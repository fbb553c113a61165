//! What an instance's failure does to connections and to new requests: here, behind HAProxy, behind nftables' DNAT and where an
//! address is moved.
//!
//! Long-lived connections are the traffic programs', of which every byte is checked at both ends; new requests are those of
//! a prober that opens a connection for each.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testbed::agent::{Agent, Flow};
use testbed::clock::{monotonic_ns, ms};
use testbed::process::Process;
use testbed::scenario::{Fault, INSTANCES, most_active};
use testbed::topology::{Family, Instance, Topology};
use testbed::traffic::program::{Client, serve, service};

use crate::balancer::{self, Balancer};
use crate::probe::{self, Probes};
use crate::report::{Goal, Results, Row};
use crate::stats::Spread;
use crate::{Effort, detection, echo};

const METHOD: &str = "an instance of three fails under 300 checked connections and a new request every 5 ms; kept: whole to \
    the last byte, of those that the instance served";
pub(crate) const FAULTS: [Fault; 3] = [Fault::Killed, Fault::LinkDown, Fault::Silent];
const CONNECTIONS: usize = 300;
const BEFORE: Duration = Duration::from_millis(1_500);
const AFTER: Duration = Duration::from_millis(3_000);
const WARM_LIMIT: Duration = Duration::from_secs(10);

/// Who stands in front of the instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    Ours,
    Theirs(Balancer),
}

impl Front {
    const ALL: [Self; 4] = [
        Self::Ours,
        Self::Theirs(Balancer::HaProxy),
        Self::Theirs(Balancer::Dnat),
        Self::Theirs(Balancer::Moved),
    ];
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours => f.write_str("VNI, 1 mirror"),
            Self::Theirs(balancer) => f.write_str(balancer.name()),
        }
    }
}

/// What one failure came to.
struct Trial {
    /// Connections that the failed instance served.
    hit: usize,
    /// Connections that were reset, or lacked bytes at the end.
    broken: usize,
    probes: Probes,
}

impl Trial {
    fn kept_percent(&self) -> f64 {
        let kept = self.hit.saturating_sub(self.broken);
        100.0 * kept as f64 / self.hit.max(1) as f64
    }
}

pub(crate) fn run(effort: &Effort) -> Result<Results> {
    let mut results = Results::new("failure", METHOD);
    let rounds = effort.rounds.div_ceil(5);
    for fault in FAULTS {
        let mut trials: Vec<Vec<Trial>> = Front::ALL.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (front, trials) in Front::ALL.into_iter().zip(&mut trials) {
                let name = format!("{fault}, {front}");
                if !effort.wants(&name) {
                    continue;
                }
                effort.progress(&name);
                match trial(front, fault) {
                    Ok(trial) => trials.push(trial),
                    Err(error) if front == Front::Ours => return Err(error),
                    Err(error) => {
                        let missing = format!("{front}: {error:#}");
                        if !results.missing.contains(&missing) {
                            results.missing.push(missing);
                        }
                    }
                }
            }
        }
        for (front, trials) in Front::ALL.into_iter().zip(&trials) {
            if !trials.is_empty() {
                results.rows.extend(rows(fault, front, trials));
            }
        }
    }
    results.rows.extend(detection::rows(effort)?);
    Ok(results)
}

fn rows(fault: Fault, front: Front, trials: &[Trial]) -> [Row; 3] {
    let spread =
        |value: fn(&Trial) -> f64| Spread::of(&trials.iter().map(value).collect::<Vec<_>>());
    let sum = |value: fn(&Trial) -> usize| trials.iter().map(value).sum::<usize>();
    let kept = spread(Trial::kept_percent);
    let row = |what: &str, value, unit: &'static str, note| Row {
        what: format!("{fault}: {what}, {front}"),
        panel: format!("{fault}: {what}"),
        value,
        unit: unit.into(),
        note,
        ..Row::default()
    };
    let (hit, broken) = (sum(|trial| trial.hit), sum(|trial| trial.broken));
    let requests = sum(|trial| trial.probes.requests);
    let failed = sum(|trial| trial.probes.failed);
    [
        Row {
            goal: (front == Front::Ours).then(|| Goal::at_least(kept.min, 100.0, "%")),
            ..row(
                "connections kept",
                kept,
                "%",
                format!("{broken} broken, {hit} hit"),
            )
        },
        row(
            "new requests failed",
            spread(|trial| trial.probes.failed_percent()),
            "%",
            format!("{failed} of {requests}"),
        ),
        row(
            "longest time without a success",
            spread(|trial| trial.probes.gap_ms),
            "ms",
            String::new(),
        ),
    ]
}

/// One failure, on a network of its own.
fn trial(front: Front, fault: Fault) -> Result<Trial> {
    let topology = Topology::create(INSTANCES)?;
    let mut servers = topology
        .instances
        .iter()
        .map(|instance| servers(front, instance))
        .collect::<Result<Vec<_>>>()?;
    let (agent, _balancer, address) = match front {
        Front::Ours => {
            let agent = Agent::start(&topology, &topology.config())?;
            (Some(agent), None, Family::V4.vni())
        }
        Front::Theirs(balancer) => {
            let running = balancer.start(&topology)?;
            (None, Some(running), balancer.address())
        }
    };
    let service = std::net::SocketAddr::new(address, service(Family::V4).port());
    let probed = std::net::SocketAddr::new(address, probe::PORT);
    let connections = CONNECTIONS.to_string();
    // As the demo's, for the same reason.
    let arguments = [
        "--connections",
        &connections,
        "--download-rate",
        "64000",
        "--upload-rate",
        "48000",
    ];
    let mut client = Client::start(&topology.client, service, &arguments)?;
    let prober = probe::start(&topology.client, probed)?;
    if let Some(agent) = &agent {
        agent.wait_warm(client.running.connections, WARM_LIMIT)?;
    }
    hold(&mut client, BEFORE)?;
    let before = agent.as_ref().map(Agent::flows).transpose()?;
    let victim = match &before {
        Some(flows) => most_active(flows)?,
        None => topology.instances[0].name.clone(),
    };
    let hit = hit(front, before.as_deref(), &victim);
    let fault_ns = monotonic_ns();
    client.mark(fault_ns)?;
    strike(fault, &victim, &topology, &mut servers)?;
    hold(&mut client, AFTER)?;
    let probes = prober.finish(fault_ns)?;
    let ended = client.finish()?.connections;
    let broken = ended.iter().filter(|connection| !connection.is_whole());
    Ok(Trial {
        hit,
        broken: broken.count(),
        probes,
    })
}

/// The service and what answers probes. Behind the others each instance has an address of its own.
pub(crate) fn servers(front: Front, instance: &Instance) -> Result<[Process; 2]> {
    let service = match front {
        Front::Ours | Front::Theirs(Balancer::Moved) => serve(instance)?,
        Front::Theirs(_) => balancer::serve(instance)?,
    };
    Ok([service, echo::start(&instance.namespace, probe::PORT)?])
}

/// How many connections the victim serves: as the agent has it, or the share that is everybody's.
fn hit(front: Front, flows: Option<&[Flow]>, victim: &str) -> usize {
    if let Front::Theirs(balancer) = front {
        return CONNECTIONS / balancer.spread();
    }
    let flows = flows.unwrap_or_default();
    let of_it = flows.iter().filter(|flow| {
        flow.protocol == "tcp" && flow.active == victim && flow.state == "established"
    });
    of_it.count()
}

pub(crate) fn strike(
    fault: Fault,
    victim: &str,
    topology: &Topology,
    servers: &mut [[Process; 2]],
) -> Result<()> {
    let instance = topology.instance(victim)?;
    match fault {
        Fault::LinkDown => instance.link_down(),
        Fault::Silent => instance.silence(),
        Fault::Evacuated | Fault::Predicted => bail!("no balancer knows of it beforehand"),
        Fault::Killed => {
            let mut names = topology.instances.iter().map(|instance| &instance.name);
            let place = names.position(|name| name == victim);
            let place = place.context("no such instance")?;
            servers[place].iter_mut().for_each(Process::kill);
            Ok(())
        }
    }
}

/// Lets traffic run.
pub(crate) fn hold(client: &mut Client, time: Duration) -> Result<()> {
    let start_ns = monotonic_ns();
    while ms(monotonic_ns() - start_ns) < time.as_secs_f64() * 1e3 {
        client.next_progress()?;
    }
    Ok(())
}
