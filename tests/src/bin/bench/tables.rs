//! Steering tables: how long they take from weights to their place in the dataplane, and what one weight's change moves.

use std::time::Instant;

use anyhow::Result;
use mirror_common::limits::STEERING_BUCKETS;

use crate::Effort;
use crate::report::{Goal, Row};
use crate::rig::{self, Rig};
use crate::routing::maglev::{Member, build, rebuild};
use crate::stats::Spread;

/// Of the largest table that is computed, prime: more than the dataplane's have.
const BUCKETS: u32 = 65_537;
const INSTANCES: usize = 1_000;
const WEIGHT: u32 = 100;
const LESS: u32 = 40;
const COMPUTE_MS_MAX: f64 = 5.0;
const MOVED_RATIO_MAX: f64 = 1.1;
/// Tables that are written.
const WRITTEN: u32 = 20;

/// Tables of so many instances, computed.
pub(crate) fn computed(effort: &Effort) -> Vec<Row> {
    let names: Vec<String> = (0..INSTANCES).map(|n| format!("instance-{n}")).collect();
    let members = |first: u32| -> Vec<Member<'_>> {
        let weight = |place| if place == 0 { first } else { WEIGHT };
        let names = names.iter().enumerate();
        names
            .map(|(place, name)| Member {
                name,
                weight: weight(place),
            })
            .collect()
    };
    let (before, after) = (members(WEIGHT), members(LESS));
    let (mut anew, mut changed) = (Vec::new(), Vec::new());
    let mut moved = 0;
    for _ in 0..=effort.rounds {
        let start = Instant::now();
        let table = build(&before, BUCKETS);
        anew.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        let next = rebuild(&after, &table);
        changed.push(start.elapsed().as_secs_f64() * 1e3);
        moved = (table.iter().zip(&next)).filter(|(a, b)| a != b).count();
    }
    let row = |what: &str, samples: &[f64]| {
        // The first one is a warm-up.
        let value = Spread::of(&samples[1..]);
        Row {
            what: format!("table of {BUCKETS} buckets, {INSTANCES} instances, {what}"),
            value,
            unit: "ms".into(),
            goal: Some(Goal::at_most(value.median, COMPUTE_MS_MAX, "ms")),
            ..Row::default()
        }
    };
    let ratio = moved as f64 / least_moves();
    let mut moves = row("moved by one weight's change", &[0.0, ratio]);
    moves.unit = "x the least".into();
    moves.goal = Some(Goal::at_most(ratio, MOVED_RATIO_MAX, "x"));
    moves.note = format!("{moved} buckets");
    vec![
        row("computed from nothing", &anew),
        row("computed from the last one, one weight changed", &changed),
        moves,
    ]
}

/// Buckets that the first instance has too many of when its weight changes.
fn least_moves() -> f64 {
    let share = |weight: u32| {
        let sum = weight + WEIGHT * (INSTANCES as u32 - 1);
        f64::from(BUCKETS) * f64::from(weight) / f64::from(sum)
    };
    share(WEIGHT).floor() - share(LESS).ceil()
}

/// A steering table, from nothing to its place.
pub(crate) fn written(rig: &mut Rig) -> Result<[Row; 2]> {
    let mut written = Vec::new();
    let mut swapped = Vec::new();
    for _ in 0..WRITTEN {
        let start = Instant::now();
        let table = rig::steering_table(0)?;
        written.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        rig.steering.set(0, &table, 0)?;
        swapped.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let row = |what: &str, samples: &[f64]| Row {
        what: format!("steering table of {STEERING_BUCKETS} buckets {what}"),
        value: Spread::of(samples),
        unit: "ms".into(),
        ..Row::default()
    };
    Ok([
        row("made and written", &written),
        row("swapped in", &swapped),
    ])
}
