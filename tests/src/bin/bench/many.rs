//! An agent with thousands of VNIs: how long it takes to start, what an order about an instance of most of them takes, and what
//! it does when nothing happens.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Result;
use testbed::agent::Agent;
use testbed::clock::wait_until;
use testbed::memory::{self, MIB};
use testbed::topology::config::VniConfig;
use testbed::topology::{CLIENT_LINK, Topology};

use crate::Effort;
use crate::report::Row;
use crate::stats::Spread;
use crate::throughput::spent;

const VNIS: u16 = 10_000;
const INSTANCES: usize = 4;
const WINDOW: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(30);

/// Two, three or all of the instances, by turns.
fn members(topology: &Topology, number: u16) -> Vec<String> {
    const SUBSETS: [&[usize]; 11] = [
        &[0, 1],
        &[0, 2],
        &[0, 3],
        &[1, 2],
        &[1, 3],
        &[2, 3],
        &[0, 1, 2],
        &[0, 1, 3],
        &[0, 2, 3],
        &[1, 2, 3],
        &[0, 1, 2, 3],
    ];
    let subset = SUBSETS[usize::from(number) % SUBSETS.len()];
    let name = |place: &usize| topology.instances[*place].name.clone();
    subset.iter().map(name).collect()
}

pub(crate) fn rows(effort: &Effort) -> Result<[Row; 5]> {
    let topology = Topology::create(INSTANCES)?;
    let mut config = topology.config();
    let vni = |number: u16| VniConfig {
        name: format!("vni{number}"),
        addresses: vec![Ipv4Addr::from_bits(0x0a4e_0000 + u32::from(number)).to_string()],
        interfaces: vec![CLIENT_LINK.into()],
        instances: members(&topology, number),
        mirrors: 1,
        ..config.vni[0].clone()
    };
    config.vni = (1..=VNIS).map(vni).collect();
    let start = Instant::now();
    let mut agent = Agent::start(&topology, &config)?;
    let started = start.elapsed().as_secs_f64();
    let mut again = Vec::new();
    for _ in 0..effort.rounds.div_ceil(5) {
        agent.stop()?;
        let start = Instant::now();
        agent.restart()?;
        again.push(start.elapsed().as_secs_f64());
    }
    let mut ordered = Vec::new();
    let drained = &topology.instances[0].name;
    for _ in 0..effort.rounds.div_ceil(5) {
        for verb in ["drain", "restore"] {
            let start = Instant::now();
            agent.act(verb, drained)?;
            ordered.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let idle = idle(&agent)?;
    let row = |what: String, samples: &[f64], unit: &'static str| Row {
        what,
        value: Spread::of(samples),
        unit: unit.into(),
        ..Row::default()
    };
    Ok([
        row(format!("start with {VNIS} VNIs"), &[started], "s"),
        row(
            format!("start again with {VNIS} VNIs, state adopted"),
            &again,
            "s",
        ),
        row(
            format!("drain or restore, {VNIS} VNIs, until new flows go by it"),
            &ordered,
            "ms",
        ),
        row(
            format!("the agent's memory, {VNIS} VNIs"),
            &[memory::begin(agent.status()?.pid)? as f64 / MIB],
            "MiB",
        ),
        row(format!("the agent with {VNIS} VNIs, idle"), &[idle], "ms/s"),
    ])
}

/// Milliseconds of processor time that an agent takes in a second.
pub(crate) fn idle(agent: &Agent<'_>) -> Result<f64> {
    let pid = agent.status()?.pid;
    let (before, start) = (spent(pid)?, Instant::now());
    wait_until("the end of a time", LIMIT, || {
        Ok((start.elapsed() >= WINDOW).then_some(()))
    })?;
    let used = spent(pid)?.saturating_sub(before);
    Ok(used.as_secs_f64() * 1e3 / start.elapsed().as_secs_f64())
}
