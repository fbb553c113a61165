//! `health bench`: what a tick costs, on this machine.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use nix::time::{ClockId, clock_gettime};

use super::{Bench, train};
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
    for (name, share) in [("median", 0.5), ("p90", 0.9)] {
        let tick = spent[((spent.len() - 1) as f64 * share) as usize];
        println!(
            "{name}: {:.2} ms a tick of {} instances, {:.2} us an instance",
            tick * 1e3,
            args.instances,
            tick * 1e6 / args.instances.max(1) as f64
        );
    }
    Ok(())
}

/// What this thread has used, so that others on the machine do not count.
fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
