//! Who gets the new flows of sources at one place: weight and health first, then distance and load.
//!
//! Each instance's part is settled in four steps, each of which can be told from the numbers of the others:
//!
//! 1. *Distance.* Its weight by health times 2^(−further/halving): an instance that is `halving` further away than the
//!    nearest gets half of what it would have beside it. An instance whose distance is not known counts as far as
//!    the others are on average, so it is neither preferred nor avoided.
//! 2. *Trust.* An instance that is expected to fail hands over what it has for being near, beyond its part by weight and
//!    health: below a score of 0.8 some of it, at 0.4 all. Without this a near instance with little health would still
//!    be nearer than any well one is. One that is tried out again after a failure keeps its small part, and can show
//!    that it is well.
//! 3. *Load.* A hot instance (see [`super::load`]) hands over a part of what it has, as large as it takes. This and trust are
//!    handed to the others in proportion to what they have, and the nearest therefore get most of it.
//! 4. *Exploration.* A small part of all flows goes by weight and health alone: what nobody is sent to, nobody
//!    knows.

use super::weights::Weights;

/// Parts are in this many: fine enough for a table of 16,381 buckets.
const PARTS: f64 = 1_000_000.0;
/// However far away an instance is, it is not nowhere: it may be the only one that is well.
const HALVINGS_MAX: f64 = 60.0;
/// From this score on an instance is trusted.
const TRUSTED: f64 = 0.8;
/// At this score and below it is not.
const NOT_TRUSTED: f64 = 0.4;

/// What is known of the instances from one place, in the order of the candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaning {
    /// How far away each is, ms; none: not known.
    pub costs_ms: Vec<Option<f64>>,
    /// What each keeps of its part in spite of its load, 0 to 1.
    pub keeps: Vec<f64>,
    /// So much further away is half of the flows.
    pub halving_ms: f64,
    /// What goes by weight and health alone, 0 to 1.
    pub explore: f64,
}

/// The parts of new flows, in the order of the candidates: 0 where `weights` has 0, at least 1 where it has not.
#[must_use]
pub fn lean(weights: &Weights, leaning: &Leaning) -> Vec<u32> {
    let base = shares(weights.entries.iter().map(|entry| f64::from(entry.weight)));
    if base.iter().all(|share| *share == 0.0) {
        return vec![0; base.len()];
    }
    let further = further(&base, &leaning.costs_ms);
    let near = shares(base.iter().zip(&further).map(|(share, further)| {
        let halvings = (further / leaning.halving_ms).min(HALVINGS_MAX);
        share * (-halvings).exp2()
    }));
    let trusts = weights.entries.iter().map(|entry| trust(entry.score));
    let trusts = against_best(&near, trusts);
    let loads = (0..base.len()).map(|place| leaning.keeps.get(place).copied().unwrap_or(1.0));
    let loads = against_best(&near, loads);
    let settled = hand_over(&base, &near, &trusts, &loads);
    base.iter()
        .zip(settled)
        .map(|(base, settled)| match *base > 0.0 {
            true => {
                let part = (1.0 - leaning.explore) * settled + leaning.explore * base;
                (part * PARTS).round().max(1.0) as u32
            }
            false => 0,
        })
        .collect()
}

/// In proportion, with a sum of 1; all 0 if there is nothing.
fn shares(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = values.collect();
    let sum: f64 = values.iter().sum();
    match sum > 0.0 {
        true => values.iter().map(|value| value / sum).collect(),
        false => vec![0.0; values.len()],
    }
}

/// How much further away each is than the nearest of those that get flows, ms.
fn further(base: &[f64], costs_ms: &[Option<f64>]) -> Vec<f64> {
    let cost = |place: usize| costs_ms.get(place).copied().flatten();
    let known: Vec<f64> = (0..base.len())
        .filter(|place| base[*place] > 0.0)
        .filter_map(cost)
        .collect();
    let nearest = known.iter().copied().fold(f64::INFINITY, f64::min);
    let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
    (0..base.len())
        .map(|place| match known.is_empty() {
            true => 0.0,
            false => (cost(place).unwrap_or(mean) - nearest).max(0.0),
        })
        .collect()
}

/// What of its part an instance with this score in force keeps, 0 to 1.
fn trust(score: f64) -> f64 {
    ((score - NOT_TRUSTED) / (TRUSTED - NOT_TRUSTED)).clamp(0.0, 1.0)
}

/// What each keeps, against the best of those that get flows: when all are equally bad nobody can relieve anybody.
fn against_best(near: &[f64], keeps: impl Iterator<Item = f64>) -> Vec<f64> {
    let keeps: Vec<f64> = keeps.map(|keep| keep.clamp(0.0, 1.0)).collect();
    let counted = keeps.iter().zip(near).filter(|(_, near)| **near > 0.0);
    let best = counted.map(|(keep, _)| *keep).fold(0.0, f64::max);
    let of = |keep: &f64| match best > 0.0 {
        true => (keep / best).min(1.0),
        false => 1.0,
    };
    keeps.iter().map(of).collect()
}

/// Trust is about what an instance has for being near, load about all it has. What is handed over goes to those that keep the
/// largest part, in proportion to what they have: what one sheds is not for the next one that sheds.
fn hand_over(base: &[f64], near: &[f64], trusts: &[f64], loads: &[f64]) -> Vec<f64> {
    let places = 0..base.len();
    let kept: Vec<f64> = places
        .clone()
        .map(|place| {
            let extra = (near[place] - base[place]).max(0.0);
            loads[place] * (near[place] - extra * (1.0 - trusts[place]))
        })
        .collect();
    let keep = |place: usize| trusts[place] * loads[place];
    let counted = places.clone().filter(|place| near[*place] > 0.0);
    let best = counted.map(keep).fold(0.0, f64::max);
    let freed = 1.0 - kept.iter().sum::<f64>();
    let takers = shares(places.map(|place| match keep(place) >= best {
        true => near[place],
        false => 0.0,
    }));
    kept.iter()
        .zip(takers)
        .map(|(kept, taker)| kept + freed * taker)
        .collect()
}
