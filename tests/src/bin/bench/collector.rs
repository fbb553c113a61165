//! What it costs to measure instances from the packets that pass: the programs against the same without the collector.

use std::os::fd::AsFd;

use anyhow::Result;

use crate::assemble::Feeder;
use crate::report::{Goal, Row};
use crate::rig::Rig;
use crate::stats::Spread;
use crate::steering::{self, FEW, Prepared, case_named, prepare};
use crate::{Effort, machine, sys};

/// What the collector may cost, ns a packet. Of one flow, in the nearest caches: it reads nothing of a flow that is not read anyhow, and
/// two tables of many flows differ by more than that.
const LIMIT_NS: f64 = 5.0;
const CASES: [&str; 4] = [
    "known flow, unmirrored",
    "known flow, 1 mirror",
    "reply, unmirrored: delivered",
    "active's reply: delivered",
];

/// A row for each case that is wanted.
pub(crate) fn rows(rig: &mut Rig, effort: &Effort) -> Result<Vec<Row>> {
    let name = |case: &str| format!("the collector's part, {case}");
    let wanted: Vec<&str> = CASES
        .into_iter()
        .filter(|case| effort.wants(&name(case)))
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut without = Rig::set_up_unmeasured()?;
    let mut rows = Vec::new();
    for case in wanted {
        let what = name(case);
        effort.progress(&what);
        let case = case_named(case)?;
        let sides = [
            prepare(rig, &case, FEW)?,
            prepare(&mut without, &case, FEW)?,
        ];
        let samples = differences([rig, &without], &sides, effort)?;
        let value = Spread::of(&samples);
        rows.push(Row {
            what: format!("{what}, {FEW} flows"),
            panel: Row::NOT_DRAWN.into(),
            value,
            unit: "ns".into(),
            goal: Some(Goal::at_most(value.median, LIMIT_NS, "ns")),
            ..Row::default()
        });
    }
    Ok(rows)
}

/// How much longer a packet takes with the collector than without, ns, by round.
fn differences(rigs: [&Rig; 2], sides: &[Prepared; 2], effort: &Effort) -> Result<Vec<f64>> {
    let time = |side: usize, packets: u32| {
        let Prepared {
            feeder: Feeder { program, .. },
            frame,
            ingress,
            ..
        } = &sides[side];
        // Interface numbers are looked up in the namespace of who runs a program.
        let timed = rigs[side].topology.host.run(|| {
            machine::pin()?;
            sys::run(program.as_fd(), *ingress, frame, packets)
        })?;
        anyhow::Ok(f64::from(timed?))
    };
    for side in [0, 1] {
        time(side, effort.packets)?;
    }
    let mut pair = |packets| Ok(time(0, packets)? - time(1, packets)?);
    let rounds = (0..=effort.rounds).map(|_| steering::round(effort, &mut pair));
    // The first is not kept.
    Ok(rounds.collect::<Result<Vec<_>>>()?.split_off(1))
}
