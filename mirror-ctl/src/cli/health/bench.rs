//! `health bench`: what a tick costs, on this machine.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::{Bench, report, train};
use crate::health::{
    predict::{engine::Fleet, signal::Reading},
    sim::{Family, corpus},
};

pub(super) fn run(args: &Bench) -> Result<()> {
    let model = args.model.as_deref().map(train::load).transpose()?;
    let mut fleet = Fleet::new(model.map(Arc::new));
    // Real histories: a forest is walked other ways by rows of zeros.
    let lives = corpus::simulate(&corpus::Run {
        fault: corpus::example(Family::CpuRamp),
        seed: 1,
    });
    let names: Vec<String> = (0..args.instances)
        .map(|n| format!("instance-{n}"))
        .collect();
    let mut spent = Vec::with_capacity(args.ticks);
    let mut risk = 0.0;
    for tick in 0..args.ticks {
        let second = tick % corpus::SECONDS;
        let readings: Vec<(&str, &Reading)> = names
            .iter()
            .enumerate()
            .map(|(n, name)| (name.as_str(), &lives[n % lives.len()].readings[second]))
            .collect();
        let started = processor_time()?;
        fleet.tick(readings);
        for name in &names {
            risk += fleet.outlook(name).map_or(0.0, |outlook| outlook.risk());
        }
        spent.push((processor_time()? - started).as_secs_f64());
    }
    // The sum is said so that it has to be worked out.
    println!(
        "mean risk {:.4}",
        risk / (args.instances * args.ticks).max(1) as f32
    );
    spent.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (spent.len().saturating_sub(1) as f64 * share) as usize;
        spent.get(place).map_or(0.0, |tick_s| tick_s * 1e3)
    };
    let tick_ms = Percentiles {
        median: at(0.5),
        p90: at(0.9),
    };
    for (name, ms) in [("median", tick_ms.median), ("p90", tick_ms.p90)] {
        println!(
            "{name}: {ms:.2} ms a tick of {} instances, {:.2} us an instance",
            args.instances,
            ms * 1e3 / args.instances.max(1) as f64
        );
    }
    let cost = Cost {
        instances: args.instances,
        ticks: args.ticks,
        tick_ms,
    };
    match &args.json {
        Some(file) => report::write(file, &cost),
        None => Ok(()),
    }
}

/// What `--json` writes.
#[derive(Serialize)]
struct Cost {
    instances: usize,
    ticks: usize,
    /// Processor time of a tick, ms.
    tick_ms: Percentiles,
}

#[derive(Clone, Copy, Serialize)]
struct Percentiles {
    median: f64,
    p90: f64,
}

/// What this thread has used, so that others on the machine do not count.
fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
