//! How soon the agent knows that an instance has failed: from the fault to its first event that says so, under traffic.

use std::time::Duration;

use anyhow::{Context, Result};
use testbed::agent::Agent;
use testbed::clock::{monotonic_ns, wait_until};
use testbed::scenario::{Fault, most_active, outcome};
use testbed::topology::{Family, Topology};
use testbed::traffic::program::{Client, service};

use crate::Effort;
use crate::failure::{FAULTS, Front, hold, servers, strike};
use crate::probe;
use crate::report::{Goal, Row};
use crate::stats::{Spread, percentile};

/// One for each fault, and as many that are well: an agent does not believe that most have failed.
const INSTANCES: usize = 2 * FAULTS.len();
const CONNECTIONS: &str = "120";
/// So that every instance is heard of, and between two faults.
const CALM: Duration = Duration::from_millis(700);
const WARM_LIMIT: Duration = Duration::from_secs(10);
/// One that is not known by then is not detected.
const LIMIT: Duration = Duration::from_secs(30);
const GOAL_MS: f64 = 1_000.0;

/// For each fault how long it took, ms.
pub(crate) fn rows(effort: &Effort) -> Result<Vec<Row>> {
    const NAME: &str = "detected, VNI, 1 mirror";
    if !effort.wants(NAME) {
        return Ok(Vec::new());
    }
    let mut found = FAULTS.map(|_| Vec::new());
    for _ in 0..effort.rounds {
        effort.progress(NAME);
        for (found, took_ms) in found.iter_mut().zip(one_after_the_other()?) {
            found.push(took_ms);
        }
    }
    let row = |(fault, mut took_ms): (&Fault, Vec<f64>)| {
        took_ms.sort_by(f64::total_cmp);
        let p95_ms = percentile(&took_ms, 950);
        Row {
            what: format!("{fault}: {NAME}"),
            panel: "detected".into(),
            value: Spread::of(&took_ms),
            unit: "ms".into(),
            goal: Some(Goal::at_most(p95_ms, GOAL_MS, "ms at p95")),
            note: format!("p95 {p95_ms:.1} ms of {}", took_ms.len()),
            ..Row::default()
        }
    };
    Ok(FAULTS.iter().zip(found).map(row).collect())
}

/// Each fault to another instance of one service.
fn one_after_the_other() -> Result<[f64; FAULTS.len()]> {
    let topology = Topology::create(INSTANCES)?;
    let mut servers = topology
        .instances
        .iter()
        .map(|instance| servers(Front::Ours, instance))
        .collect::<Result<Vec<_>>>()?;
    let agent = Agent::start(&topology, &topology.config())?;
    let arguments = ["--connections", CONNECTIONS];
    let mut client = Client::start(&topology.client, service(Family::V4), &arguments)?;
    let probed = std::net::SocketAddr::new(Family::V4.vni(), probe::PORT);
    let prober = probe::start(&topology.client, probed)?;
    agent.wait_warm(client.running.connections, WARM_LIMIT)?;
    let mut took_ms = [0.0; FAULTS.len()];
    for (fault, took_ms) in FAULTS.into_iter().zip(&mut took_ms) {
        hold(&mut client, CALM)?;
        let victim = most_active(&agent.flows()?)?;
        let since = agent.last_event()?;
        let fault_ns = monotonic_ns();
        strike(fault, &victim, &topology, &mut servers)?;
        let known = wait_until("the failure to be known", LIMIT, || {
            let events = agent.events(since)?;
            Ok(outcome::detection_ms(&events, &victim, fault_ns))
        });
        *took_ms = known.with_context(|| format!("{fault} of {victim}"))?;
    }
    prober.finish(monotonic_ns())?;
    Ok(took_ms)
}
