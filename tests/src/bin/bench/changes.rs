//! What clients notice of a reload, an upgrade, a restart and a killed agent under full load: frames counted at both ends.

use anyhow::Result;
use testbed::changes::{Change, Found};

use crate::Effort;
use crate::report::{Goal, Results, Row};
use crate::stats::Spread;

const METHOD: &str = "64 datagrams under way at any time, each answered and followed by the next at once, and 40 checked \
     connections; one mirror; all traffic programs on one processor, which they fill. Lost: what was sent, less what came, at the client, at each instance and on the VNI host, and what any \
     interface, socket or program dropped";

pub(crate) fn run(effort: &Effort) -> Result<Results> {
    let mut results = Results::new("changes", METHOD);
    let rounds = effort.rounds.div_ceil(3);
    let wanted = |change: &Change| effort.wants(name(*change));
    let mut found: Vec<(Change, Vec<Found>)> = Change::ALL
        .into_iter()
        .filter(wanted)
        .map(|change| (change, Vec::new()))
        .collect();
    for _ in 0..rounds {
        for (change, found) in &mut found {
            effort.progress(name(*change));
            found.push(change.run()?);
        }
    }
    for (change, found) in &found {
        results.rows.extend(rows(name(*change), found));
    }
    Ok(results)
}

fn name(change: Change) -> &'static str {
    match change {
        Change::Nothing => "nothing",
        Change::Reload => "SIGHUP",
        Change::Apply => "apply",
        Change::Upgrade => "upgrade",
        Change::Drain => "upgrade --drain",
        Change::Restart => "restart",
        Change::Kill => "kill -9",
    }
}

fn rows(name: &str, found: &[Found]) -> [Row; 6] {
    let row = |what: &str, unit: &'static str, of: &dyn Fn(&Found) -> f64| {
        let samples: Vec<f64> = found.iter().map(of).collect();
        Row {
            what: format!("{name}: {what}"),
            value: Spread::of(&samples),
            unit: unit.into(),
            ..Row::default()
        }
    };
    let none = |mut row: Row| {
        row.goal = Some(Goal::at_most(row.value.max, 0.0, "in any round"));
        row
    };
    let sum = |of: fn(&Found) -> u64| found.iter().map(of).sum::<u64>();
    let mut lost = none(row("frames lost", "", &|f| f.lost() as f64));
    let amiss: Vec<String> = found.iter().flat_map(Found::amiss).collect();
    lost.note = format!(
        "of {}; {} datagrams{}{}",
        sum(|f| f.counted.host_frames.0),
        sum(|f| f.datagrams.summary.bytes_sent),
        if amiss.is_empty() { "" } else { "; " },
        amiss.join(", ")
    );
    [
        lost,
        none(row("connections that noticed", "of 40", &|f| {
            f.noticed() as f64
        })),
        row("longest wait", "ms", &Found::longest_wait_ms),
        row("it took", "ms", &|f| f.took.as_secs_f64() * 1e3),
        row("frames through the VNI host", "1/s", &|f| {
            f.counted.host_frames.0 as f64 / f.traffic.as_secs_f64()
        }),
        row("segments sent again", "", &|f| {
            f.counted.retransmissions as f64
        }),
    ]
}
