//! Request and response through every way, one at a time.
//!
//! The client is alone on the last processor, where the programs for its packets run too; servers are on the others,
//! where those for their replies run. (Of two processors: all servers, mirrors' among them, share the first.)

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testbed::agent::{Agent, Flow};
use testbed::clock::wait_until;

use crate::echo::{self, MESSAGE, Use};
use crate::report::{Goal, Results, Row};
use crate::stats::{Spread, percentile};
use crate::ways::{Ours, Theirs, Way};
use crate::{Effort, machine};

const METHOD: &str = "request and response of 64 bytes over one connection; the spread is that of the rounds' \
    percentiles; ratio: to a direct veth in the same round";
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Requests of a round, by packets of the other benches.
const PER_PACKET: u32 = 50;
const DIRECT: usize = 0;
/// Ways with one replica late: of which, whether that is the mirror or the active one, and their names.
const LATE: [(&str, &str, &str); 2] = [
    (
        "VNI, 1 mirror, semi-sync",
        "mirror",
        "VNI, 1 mirror, semi-sync, 20 ms late",
    ),
    (
        "VNI, 1 mirror, first",
        "active",
        "VNI, 1 mirror, first, active 20 ms late",
    ),
];
const LATE_BY: Duration = Duration::from_millis(20);
/// A mirror that is late for so long is relied on no more: the agent's default and some.
const DEMOTED: Duration = Duration::from_millis(1_500);
/// In per mille, what they are called, and what may be added to a direct veth, µs.
const PERCENTILES: [(usize, &str, Option<f64>); 3] = [
    (500, "p50", Some(10.0)),
    (990, "p99", Some(30.0)),
    (999, "p99.9", None),
];

/// A way with its connection and its rounds' percentiles.
struct Measured {
    way: Way,
    stream: TcpStream,
    rounds: Vec<[f64; 3]>,
}

pub(crate) fn run(effort: &Effort) -> Result<Results> {
    let mut results = Results::new("latency", METHOD);
    machine::use_others()?;
    let theirs = Theirs::set_up()?;
    let ours = Ours::set_up()?;
    let mut agent = Agent::start(&ours.topology, &ours.config)?;
    machine::pin()?;
    results.missing.clone_from(&theirs.missing);
    let mut all = Vec::new();
    let ways = theirs.ways.iter().chain(&ours.ways).enumerate();
    for (_, way) in ways.filter(|(place, way)| *place == DIRECT || effort.wants(way.name)) {
        all.push(open(way, &theirs, &ours, &mut agent)?);
    }
    let requests = effort.packets / PER_PACKET;
    // One round more, which is not kept.
    for round in 0..=effort.rounds {
        effort.progress(&format!("round {round} of {}", effort.rounds));
        for measured in &mut all {
            let name = measured.way.name;
            let percentiles = measure(&mut measured.stream, requests).context(name)?;
            if round > 0 {
                measured.rounds.push(percentiles);
            }
        }
    }
    results.rows.extend(rows(&all, &agent)?);
    let mut direct = all.swap_remove(DIRECT);
    for (of, role, name) in LATE.into_iter().filter(|(.., name)| effort.wants(name)) {
        let way = ours.ways.iter().find(|way| way.name == of);
        let mut way = way.context("no such way")?.clone();
        way.name = name;
        let mirrored = open(&way, &theirs, &ours, &mut agent)?;
        let late = late([direct, mirrored], role, &ours, &agent, effort)?;
        let rows = rows(&late, &agent)?;
        // The base has its rows already.
        results
            .rows
            .extend(rows.into_iter().filter(|row| row.ratio.is_some()));
        [direct, _] = late;
    }
    Ok(results)
}

/// The replies of one replica come late. In rounds of their own, because its instance serves in the other ways too.
fn late(
    mut all: [Measured; 2],
    role: &str,
    ours: &Ours,
    agent: &Agent<'_>,
    effort: &Effort,
) -> Result<[Measured; 2]> {
    let [direct, mirrored] = &mut all;
    direct.rounds.clear();
    measure(&mut mirrored.stream, 1)?;
    let flow = flow_of(mirrored, agent)?.context("the agent does not know the connection")?;
    let replica = flow.replicas.iter().find(|replica| replica.role == role);
    let late = &replica.context("the connection has no mirror")?.instance;
    let _late = ours.topology.instance(late)?.delay(LATE_BY)?;
    let start = Instant::now();
    while start.elapsed() < DEMOTED {
        measure(&mut mirrored.stream, 1)?;
    }
    let name = mirrored.way.name;
    let requests = effort.packets / PER_PACKET;
    for round in 1..=effort.rounds {
        effort.progress(&format!("{name}, round {round} of {}", effort.rounds));
        for measured in &mut all {
            let percentiles = measure(&mut measured.stream, requests)?;
            measured.rounds.push(percentiles);
        }
    }
    Ok(all)
}

/// Rows by percentile, compared with the first of the ways.
fn rows(all: &[Measured], agent: &Agent<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let notes = all.iter().map(|measured| note(measured, agent));
    let notes: Vec<String> = notes.collect::<Result<_>>()?;
    for (index, (_, name, limit)) in PERCENTILES.into_iter().enumerate() {
        let of = |measured: &Measured| measured.rounds.iter().map(|round| round[index]).collect();
        let direct: Vec<f64> = of(&all[DIRECT]);
        for (measured, note) in all.iter().zip(&notes) {
            let samples: Vec<f64> = of(measured);
            let pairs = || samples.iter().copied().zip(direct.iter().copied());
            let added: Vec<f64> = pairs().map(|(value, base)| value - base).collect();
            let added = Spread::of(&added).median;
            let is_base = std::ptr::eq(measured, &all[DIRECT]);
            rows.push(Row {
                what: format!("{name}, {}", measured.way.name),
                panel: name.into(),
                against: (!is_base).then(|| "direct veth".into()),
                ratio: (!is_base).then(|| Spread::of_ratios(pairs())),
                value: Spread::of(&samples),
                unit: "us".into(),
                goal: limit
                    .filter(|_| measured.way.ours)
                    .map(|limit| Goal::at_most((added * 10.0).round() / 10.0, limit, "us added")),
                note: match is_base {
                    true => String::new(),
                    false => format!("{added:+.1} us {note}"),
                },
            });
        }
    }
    Ok(rows)
}

fn open(way: &Way, theirs: &Theirs, ours: &Ours, agent: &mut Agent<'_>) -> Result<Measured> {
    let client = match way.ours {
        true => &ours.topology.client,
        false => &theirs.topology.client,
    };
    let connect = || echo::connect(way.server, Use::Exchange);
    // A server or proxy that has just started may not listen yet.
    let stream = wait_until(way.name, CONNECT_LIMIT, || {
        agent.check_alive()?;
        Ok(client.run(connect)?.ok())
    })?;
    Ok(Measured {
        way: way.clone(),
        stream,
        rounds: Vec::new(),
    })
}

/// Percentiles of one round, µs.
fn measure(stream: &mut TcpStream, requests: u32) -> Result<[f64; 3]> {
    let mut message = [7; MESSAGE];
    let mut times = Vec::with_capacity(requests as usize);
    for _ in 0..requests {
        let start = Instant::now();
        echo::exchange(stream, &mut message)?;
        times.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(PERCENTILES.map(|(per_mille, ..)| percentile(&times, per_mille)))
}

/// Whether the mirrors were there to the end.
fn note(measured: &Measured, agent: &Agent<'_>) -> Result<String> {
    if measured.way.mirrors == 0 {
        return Ok(String::new());
    }
    let flow = flow_of(measured, agent)?;
    let warm = flow.map_or(0, |flow| {
        let replicas = flow.replicas.iter();
        replicas
            .filter(|replica| replica.role == "mirror" && replica.state == "warm")
            .count()
    });
    Ok(format!("({warm} of {} mirrors warm)", measured.way.mirrors))
}

/// The connection as the agent has it.
fn flow_of(measured: &Measured, agent: &Agent<'_>) -> Result<Option<Flow>> {
    let port = measured.stream.local_addr()?.port().to_string();
    let flows = agent.flows()?;
    Ok(flows.into_iter().find(|flow| flow.client.ends_with(&port)))
}
