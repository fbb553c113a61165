//! Which runs there are: for every family of faults some to train on, some to calibrate on and some held out.
//!
//! Held out are seeds *and* severities: how fast a fault grows, how far and how it bends is drawn from bands, and the
//! bands of the held-out part are not those of the others. What is judged is a fault of another strength.

use fastrand::Rng;

use super::{
    fault::{Family, Fault},
    instance::{Instance, Nature, normal},
    label,
};
use crate::health::predict::signal::Reading;

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Trees are fitted to it.
    Train,
    /// Probabilities are fitted to it.
    Calibrate,
    /// It is judged on.
    HeldOut,
}

/// A run: a service with its instances, one of which may have a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// What befalls the first instance, or all of them if it is a surge.
    pub fault: Fault,
    /// Where its chance begins.
    pub seed: u64,
}

/// Instances of a service.
pub const INSTANCES: usize = 4;
/// Seconds of a run.
pub const SECONDS: usize = 900;
/// Of each fault, so many in a hundred grow only so far that they do no harm.
const STUNTED_PERCENT: u32 = 20;
/// Bands that severities are drawn from; every third is held out.
const BANDS: u32 = 12;

/// The runs of a part; `scale` of each family.
#[must_use]
pub fn runs(part: Part, scale: usize, seed: u64) -> Vec<Run> {
    let number = match part {
        Part::Train => 1,
        Part::Calibrate => 2,
        Part::HeldOut => 3,
    };
    let mut chance = Rng::with_seed(seed ^ (number << 40));
    let mut runs = Vec::new();
    for family in Family::GRADUAL {
        runs.extend((0..scale).map(|_| run(family, part, &mut chance)));
    }
    // Faults are rare: as many runs without, and some of what is no fault.
    for family in Family::ABRUPT.into_iter().chain(Family::BENIGN) {
        let times = if family == Family::None { 2 } else { 1 };
        runs.extend((0..scale * times).map(|_| run(family, part, &mut chance)));
    }
    runs
}

fn run(family: Family, part: Part, chance: &mut Rng) -> Run {
    let ramp = severity(part, chance);
    let (mut reach, begins_s) = (1.0, 150.0 + 350.0 * chance.f32());
    if Family::GRADUAL.contains(&family) && chance.u32(..100) < STUNTED_PERCENT {
        reach = 0.2 + 0.35 * severity(part, chance);
    }
    let mut fault = Fault {
        family,
        begins_s,
        // From 40 to 320 seconds, evenly in the logarithm.
        ramp_s: 40.0 * 8.0f32.powf(ramp),
        reach,
        stays_s: 20.0 + 60.0 * chance.f32(),
        bend: 0.7 * 2.2f32.powf(severity(part, chance)),
    };
    if matches!(family, Family::Crash | Family::Flapping) {
        // Grown at once.
        (fault.ramp_s, fault.stays_s) = (1.0, 30.0 + 60.0 * chance.f32());
    }
    Run {
        fault,
        seed: chance.u64(..),
    }
}

/// A fault of middling strength, for a look at one run.
#[must_use]
pub fn example(family: Family) -> Fault {
    let is_abrupt = Family::ABRUPT.contains(&family);
    Fault {
        family,
        begins_s: 300.0,
        ramp_s: if is_abrupt { 1.0 } else { 120.0 },
        reach: 1.0,
        stays_s: 60.0,
        bend: 1.0,
    }
}

/// 0 to 1, from the part's bands.
fn severity(part: Part, chance: &mut Rng) -> f32 {
    loop {
        let band = chance.u32(..BANDS);
        if (band % 3 == 1) == (part == Part::HeldOut) {
            return (band as f32 + chance.f32()) / BANDS as f32;
        }
    }
}

/// What became of one instance in a run.
#[derive(Clone, Debug)]
pub struct Life {
    /// What was measured, by second.
    pub readings: Vec<Reading>,
    /// Whether it was failing or recovering, by second.
    pub failing: Vec<bool>,
    /// When it began to fail.
    pub onsets: Vec<usize>,
}

/// Lives a run.
#[must_use]
pub fn simulate(run: &Run) -> Vec<Life> {
    let mut chance = Rng::with_seed(run.seed);
    let capacity = 150.0 * 6.0f32.powf(chance.f32());
    let service_ms = 1.5 * 8.0f32.powf(chance.f32());
    let usage = 0.25 + 0.3 * chance.f32();
    let memory = 0.3 + 0.35 * chance.f32();
    let has_exporter = chance.u32(..8) > 0;
    let mut spread = |around: f32, by: f32| around * (1.0 + by * normal(&mut chance));
    let natures: Vec<Nature> = (0..INSTANCES)
        .map(|_| Nature {
            capacity: spread(capacity, 0.06),
            service_ms: spread(service_ms, 0.08).max(0.5),
            memory: spread(memory, 0.08).clamp(0.1, 0.75),
            has_exporter,
        })
        .collect();
    let mut instances: Vec<Instance> = natures
        .iter()
        .enumerate()
        .map(|(number, nature)| {
            let fault = if number == 0 { run.fault } else { Fault::NONE };
            Instance::new(*nature, fault, run.seed.wrapping_add(number as u64 + 1))
        })
        .collect();

    let (period_s, phase) = (300.0 + 900.0 * chance.f32(), chance.f32() * 6.0);
    let mut demand_noise = 0.0f32;
    let mut served = vec![Vec::new(); INSTANCES];
    let mut readings = vec![Vec::new(); INSTANCES];
    for second in 0..SECONDS {
        let at = second as f32;
        demand_noise += -0.05 * demand_noise + 0.02 * normal(&mut chance);
        let tide = 1.0 + 0.15 * (at / period_s * std::f32::consts::TAU + phase).sin();
        let surge = match run.fault.family {
            Family::Surge => 1.0 + 0.55 * run.fault.grown(at).min(1.0),
            _ => 1.0,
        };
        let requests = capacity * usage * tide * surge * (1.0 + demand_noise);
        for (number, instance) in instances.iter_mut().enumerate() {
            let (got, measured) = instance.step(at, requests);
            served[number].push(got);
            readings[number].push(measured);
        }
    }
    served
        .iter()
        .zip(readings)
        .map(|(served, readings)| {
            let mut first: Vec<f32> = served[..100].iter().map(|s| s.latency_ms).collect();
            first.sort_by(f32::total_cmp);
            let (failing, onsets) = label::failing(served, first[50]);
            Life {
                readings,
                failing,
                onsets,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faulty(family: Family, reach: f32) -> Vec<Life> {
        let fault = Fault {
            family,
            begins_s: 300.0,
            ramp_s: 100.0,
            reach,
            stays_s: 40.0,
            bend: 1.0,
        };
        simulate(&Run { fault, seed: 11 })
    }

    #[test]
    fn the_same_seed_lives_the_same_life() {
        let (a, b) = (faulty(Family::CpuRamp, 1.0), faulty(Family::CpuRamp, 1.0));
        assert_eq!(a[0].readings, b[0].readings);
    }

    #[test]
    fn gradual_faults_make_only_their_instance_fail_and_only_once_grown() {
        for family in Family::GRADUAL {
            let lives = faulty(family, 1.0);
            let onset = lives[0].onsets.first().copied();
            assert!(
                onset.is_some_and(|onset| (330..=440).contains(&onset)),
                "{}: {onset:?}",
                family.name()
            );
            assert!(lives[1..].iter().all(|life| life.onsets.is_empty()));
            let stunted = faulty(family, 0.3);
            assert!(stunted[0].onsets.is_empty(), "{}", family.name());
        }
    }

    #[test]
    fn what_is_no_fault_makes_nobody_fail() {
        for family in Family::BENIGN {
            let lives = faulty(family, 1.0);
            let failed = lives.iter().any(|life| !life.onsets.is_empty());
            assert!(!failed, "{}", family.name());
        }
    }

    #[test]
    fn abrupt_faults_fail_at_once() {
        for family in Family::ABRUPT {
            let fault = example(family);
            let lives = simulate(&Run { fault, seed: 5 });
            let onset = lives[0].onsets.first().copied();
            assert!(
                onset.is_some_and(|onset| (300..=314).contains(&onset)),
                "{onset:?}"
            );
        }
    }

    #[test]
    fn held_out_severities_are_of_no_other_part() {
        let band = |run: &Run| {
            let ramp = (run.fault.ramp_s / 40.0).log2() / 3.0;
            (ramp * BANDS as f32) as u32 % 3
        };
        let gradual = |part| {
            let runs = runs(part, 20, 1).into_iter();
            runs.filter(|run| Family::GRADUAL.contains(&run.fault.family))
        };
        assert!(gradual(Part::HeldOut).all(|run| band(&run) == 1));
        assert!(gradual(Part::Train).all(|run| band(&run) != 1));
        assert!(gradual(Part::Calibrate).all(|run| band(&run) != 1));
    }
}
