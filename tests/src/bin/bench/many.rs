//! An agent with as many VNIs as the dataplane can have: how long it takes to start, and what it does when nothing happens.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Result;
use testbed::agent::Agent;
use testbed::clock::wait_until;
use testbed::topology::config::VniConfig;
use testbed::topology::{CLIENT_LINK, Topology};

use crate::Effort;
use crate::report::Row;
use crate::stats::Spread;
use crate::throughput::spent;

/// A few less than the limit.
const VNIS: u16 = 1_000;
const INSTANCES: usize = 4;
const WINDOW: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn rows(effort: &Effort) -> Result<[Row; 3]> {
    let topology = Topology::create(INSTANCES)?;
    let mut config = topology.config();
    let vni = |number: u16| VniConfig {
        name: format!("vni{number}"),
        addresses: vec![Ipv4Addr::from_bits(0x0a4e_0000 + u32::from(number)).to_string()],
        interfaces: vec![CLIENT_LINK.into()],
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
