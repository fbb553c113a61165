//! What an operator waits for while there are a million flows and traffic goes on, and what that costs the agent.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testbed::agent::Agent;
use testbed::clock::monotonic_ns;
use testbed::full;
use testbed::memory::{self, MIB};
use testbed::topology::{Family, Topology};
use testbed::traffic::program::{Client, serve, service};

use crate::report::{Goal, Results, Row};
use crate::stats::Spread;
use crate::{Effort, many};

const METHOD: &str = "mirror-ctl as a process from its start to its end, against an agent with copies of an established flow in its \
     table, while 60 checked connections run";
const FLOWS: u32 = 1_000_000;
const CONNECTIONS: usize = 60;
const LIMIT: Duration = Duration::from_secs(20);

/// What is timed, and how long it may take, in milliseconds.
const VERBS: [(&str, &[&str], Option<f64>); 5] = [
    ("flows --limit 50", &["flows", "--limit", "50"], Some(200.0)),
    (
        "flows --cold (there are none)",
        &["flows", "--cold", "--limit", "50"],
        None,
    ),
    (
        "flows --client (one in a million)",
        &["flows", "--client", "100.79.66.63"],
        None,
    ),
    ("status", &["status"], None),
    ("metrics", &["metrics"], None),
];

const SWEEP: &str = "the agent with a million flows, idle but for looking through them";
const ALL: &str = "flows --json, all of them";

pub(crate) fn run(effort: &Effort) -> Result<Results> {
    let topology = Topology::create(2)?;
    let instances = topology.instances.iter();
    let _servers = instances.map(serve).collect::<Result<Vec<_>>>()?;
    let agent = Agent::start(&topology, &topology.config())?;
    let connections = CONNECTIONS.to_string();
    let arguments = ["--connections", &connections];
    let mut client = Client::start(&topology.client, service(Family::V4), &arguments)?;
    agent.wait_warm(CONNECTIONS, LIMIT)?;
    let flows = full::fill(&topology.pin_dir(), FLOWS)?;
    client.mark(monotonic_ns())?;

    let mut results = Results::new("operate", METHOD);
    let pid = agent.status()?.pid;
    for (what, arguments, limit) in VERBS {
        if !effort.wants(what) {
            continue;
        }
        effort.progress(what);
        let samples = (0..effort.rounds).map(|_| timed(&agent, arguments));
        let value = Spread::of(&samples.collect::<Result<Vec<_>>>()?);
        results.rows.push(Row {
            what: format!("{what}, {flows} flows"),
            value,
            unit: "ms".into(),
            goal: limit.map(|limit| Goal::at_most(value.median, limit, "ms")),
            ..Row::default()
        });
    }
    if effort.wants(ALL) {
        effort.progress(ALL);
        let rounds = effort.rounds.div_ceil(3);
        results.rows.extend(all(&agent, pid, flows, rounds)?);
    }
    if effort.wants(SWEEP) {
        effort.progress(SWEEP);
        results.rows.push(Row {
            what: SWEEP.into(),
            value: Spread::of(&[many::idle(&agent)?]),
            unit: "ms/s".into(),
            ..Row::default()
        });
    }
    let ended = client.finish()?;
    let broken = ended.connections.iter().filter(|c| !c.is_whole()).count();
    results.rows.push(Row {
        what: "longest wait of a connection meanwhile".into(),
        value: Spread::of(&[ended.summary.stall_ms.max]),
        unit: "ms".into(),
        goal: Some(Goal::at_most(broken as f64, 0.0, "broken")),
        note: format!("{broken} of {CONNECTIONS} connections broken"),
        ..Row::default()
    });
    Ok(results)
}

/// Milliseconds of a verb.
fn timed(agent: &Agent<'_>, arguments: &[&str]) -> Result<f64> {
    let start = Instant::now();
    agent.text(arguments)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// `flows --json` of all of them: seconds, and the agent's and the verb's memory.
fn all(agent: &Agent<'_>, pid: u32, flows: usize, rounds: usize) -> Result<[Row; 3]> {
    let (mut times, mut growths, mut verbs) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..rounds {
        let before = memory::begin(pid)?;
        let start = Instant::now();
        let mut verb = agent.verb(&["flows", "--json"]);
        let mut child = verb.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut reader = BufReader::with_capacity(1 << 20, stdout);
        let (mut line, mut rows, mut verb_peak) = (Vec::new(), 0, 0);
        bytes = 0;
        while reader.read_until(b'\n', &mut line)? > 0 {
            rows += usize::from(line.starts_with(b"{"));
            bytes += line.len();
            if rows == flows / 2 && verb_peak == 0 {
                verb_peak = memory::peak(child.id())?;
            }
            line.clear();
        }
        let status = child.wait()?;
        times.push(start.elapsed().as_secs_f64());
        growths.push(memory::peak(pid)?.saturating_sub(before) as f64 / MIB);
        verbs.push(verb_peak as f64 / MIB);
        // Those that live meanwhile open and close others.
        ensure!(
            status.success() && rows.abs_diff(flows) <= CONNECTIONS,
            "{status}, {rows} of {flows} flows"
        );
    }
    let row = |what: &str, samples: &[f64], unit: &'static str, most: Option<f64>| {
        let value = Spread::of(samples);
        Row {
            what: what.into(),
            value,
            unit: unit.into(),
            goal: most.map(|most| Goal::at_most(value.median, most, unit)),
            ..Row::default()
        }
    };
    let mut time = row(ALL, &times, "s", Some(5.0));
    time.note = format!("{:.0} MiB", bytes as f64 / MIB);
    Ok([
        time,
        row(
            "the agent's memory, growth meanwhile",
            &growths,
            "MiB",
            Some(64.0),
        ),
        row("the verb's memory", &verbs, "MiB", None),
    ])
}
