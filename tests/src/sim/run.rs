//! Many seeds, on all processors.

use std::{
    ops::{ControlFlow, Range},
    sync::Mutex,
    time::Instant,
};

use super::{
    mutation::Mutation,
    world::{Counts, Outcome, World},
};
use crate::seeds;

/// What the seeds showed.
#[derive(Debug, Default)]
pub struct Totals {
    /// Seeds that ran.
    pub seeds: u64,
    /// All counts.
    pub counts: Counts,
    /// Seeds that broke a rule, and which.
    pub violations: Vec<(u64, String)>,
    /// How long it took, seconds.
    pub elapsed_s: f64,
}

impl Totals {
    /// How fast it was.
    pub fn seeds_per_s(&self) -> f64 {
        self.seeds as f64 / self.elapsed_s.max(1e-9)
    }
}

/// Runs one seed, and keeps what happened packet by packet if `traced`.
pub fn one(seed: u64, mutation: Option<Mutation>, traced: bool) -> Outcome {
    World::new(seed, mutation, traced).run()
}

/// Runs seeds until `stop_after` of them have broken a rule.
pub fn many(all: Range<u64>, mutation: Option<Mutation>, stop_after: usize) -> Totals {
    let began = Instant::now();
    let totals = Mutex::new(Totals::default());
    seeds::share_out(all, 1, |some| {
        for seed in some {
            let outcome = one(seed, mutation, false);
            let Ok(mut totals) = totals.lock() else {
                return ControlFlow::Break(());
            };
            totals.seeds += 1;
            totals.counts.add(&outcome.counts);
            if let Err(why) = outcome.result {
                totals.violations.push((seed, why));
            }
            if totals.violations.len() >= stop_after {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    let mut totals = totals.into_inner().unwrap_or_default();
    totals.violations.sort();
    totals.elapsed_s = began.elapsed().as_secs_f64();
    totals
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.flows += other.flows;
        self.takeovers += other.takeovers;
        self.leads += other.leads;
        self.lost += other.lost;
        self.cold += other.cold;
    }
}
