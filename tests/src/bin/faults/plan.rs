//! What befalls which instance of which service, and when: all of it by the seed, before anything runs. Pure.
//!
//! Services are of two parts, and so are severities: how fast a fault grows, how far and how it bends is drawn from bands,
//! and every third band is for the services that are held out.

use std::fmt;

use clap::ValueEnum;
use fastrand::Rng;
use serde::Serialize;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Family {
    /// The server loses memory until the kernel kills it.
    MemoryLeak,
    /// Threads beside the server burn more and more of what the group may use.
    CpuRamp,
    /// Packets to the instance are lost.
    LossRamp,
    /// What the server waits for takes ever longer.
    LatencyCreep,
    /// Clients that say nothing take its workers one by one, until its listen queue is full.
    QueueExhaustion,
    /// Its writes to the disk are throttled more and more.
    DiskStall,
    /// A process that is not accounted to it takes the processor time that it may use.
    NoisyNeighbour,
    /// It stands still for seconds, and goes on, over and over.
    Flapping,
    /// `kill -9`.
    Crash,
    /// SIGSTOP.
    Freeze,
    /// More requests for all; all can bear it.
    Surge,
    /// Drained, ended, started, restored.
    Deploy,
}

impl Family {
    const GRADUAL: [Self; 7] = [
        Self::MemoryLeak,
        Self::CpuRamp,
        Self::LossRamp,
        Self::LatencyCreep,
        Self::QueueExhaustion,
        Self::DiskStall,
        Self::NoisyNeighbour,
    ];
    const OTHERS: [Self; 5] = [
        Self::Crash,
        Self::Surge,
        Self::Freeze,
        Self::Deploy,
        Self::Flapping,
    ];

    pub(crate) fn is_gradual(self) -> bool {
        Self::GRADUAL.contains(&self)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.to_possible_value();
        f.write_str(named.as_ref().map_or("", |value| value.get_name()))
    }
}

/// What a service's recording is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// It may be looked at.
    Tuning,
    /// It is judged on.
    HeldOut,
}

impl Part {
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Tuning => "tuning",
            Self::HeldOut => "held-out",
        }
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Episode {
    /// Its kind.
    pub(crate) family: Family,
    /// The index of the instance.
    pub(crate) victim: usize,
    /// How long it takes to grow to what makes an instance fail.
    pub(crate) ramp_s: f64,
    /// How far it grows: 1 is meant to make it fail, less is not.
    pub(crate) reach: f64,
    /// Below 1 it grows fast first, above 1 slow first.
    pub(crate) bend: f64,
    /// How long all is well before.
    pub(crate) healthy_s: f64,
}

/// How long what does not grow lasts.
const ABRUPT_S: f64 = 25.0;
/// How long it stays once grown, when nobody fails.
const STAYS_S: f64 = 20.0;
/// What has not grown beyond what is meant to make an instance fail grows on until it does.
const GROWN_MAX: f64 = 3.0;
/// Of the growing ones, so many in a hundred grow only so far that they do no harm.
const STUNTED_PERCENT: u32 = 18;
/// Bands that severities are drawn from; every third is held out.
const BANDS: u32 = 12;

impl Episode {
    /// How far it has grown after so many seconds.
    pub(crate) fn grown(&self, since_s: f64) -> f64 {
        if !self.family.is_gradual() {
            return 1.0;
        }
        let end = if self.reach >= 1.0 {
            GROWN_MAX
        } else {
            self.reach
        };
        (since_s / self.ramp_s).powf(self.bend).min(end)
    }

    /// When it ends if nobody fails.
    pub(crate) fn lasts_s(&self) -> f64 {
        match self.family.is_gradual() {
            true if self.reach >= 1.0 => self.ramp_s * GROWN_MAX.powf(1.0 / self.bend) + STAYS_S,
            true => self.ramp_s * self.reach.powf(1.0 / self.bend) + STAYS_S,
            false => ABRUPT_S,
        }
    }

    /// How long it is likely to last: most instances have failed when it has grown to what is meant to make them fail.
    pub(crate) fn likely_s(&self) -> f64 {
        self.lasts_s().min(self.ramp_s + STAYS_S)
    }
}

/// What befalls a service, for so many seconds at least; `only`: nothing else.
pub(crate) fn episodes(
    part: Part,
    number: usize,
    instances: usize,
    seconds: f64,
    only: Option<Family>,
    seed: u64,
) -> Vec<Episode> {
    let mut chance = Rng::with_seed(seed ^ (number as u64 + 1) << 32);
    // Each service begins elsewhere in the rounds, so that together they have all of them.
    let (mut gradual, mut other) = (number * 2, number);
    let (mut episodes, mut planned_s) = (Vec::new(), 0.0);
    let mut before = instances;
    while planned_s < seconds {
        let family = only.unwrap_or_else(|| match episodes.len() % 3 {
            2 => {
                other += 1;
                Family::OTHERS[other % Family::OTHERS.len()]
            }
            _ => {
                gradual += 1;
                Family::GRADUAL[gradual % Family::GRADUAL.len()]
            }
        });
        let mut victim = chance.usize(..instances);
        if victim == before {
            victim = (victim + 1) % instances;
        }
        before = victim;
        let stunted = family.is_gradual() && chance.u32(..100) < STUNTED_PERCENT;
        let episode = Episode {
            family,
            victim,
            // From 40 to 160 seconds, evenly in the logarithm.
            ramp_s: 40.0 * 4f64.powf(severity(part, &mut chance)),
            reach: match stunted {
                true => 0.2 + 0.25 * severity(part, &mut chance),
                false => 1.0,
            },
            bend: 0.7 * 2.2f64.powf(severity(part, &mut chance)),
            healthy_s: match episodes.is_empty() {
                true => 100.0 + 30.0 * chance.f64(),
                // In this time the one before has recovered, too.
                false => 60.0 + 30.0 * chance.f64(),
            },
        };
        planned_s += episode.healthy_s + episode.likely_s();
        episodes.push(episode);
    }
    episodes
}

/// 0 to 1, from the part's bands.
fn severity(part: Part, chance: &mut Rng) -> f64 {
    loop {
        let band = chance.u32(..BANDS);
        if (band % 3 == 1) == (part == Part::HeldOut) {
            return (f64::from(band) + chance.f64()) / f64::from(BANDS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_together_have_every_family() {
        let mut all = Vec::new();
        for service in 0..6 {
            all.extend(episodes(Part::HeldOut, service, 4, 1_300.0, None, 1));
        }
        for family in Family::value_variants() {
            assert!(all.iter().any(|e| e.family == *family), "{family}");
        }
    }

    #[test]
    fn parts_have_no_severity_in_common() {
        let band = |episode: &Episode| {
            let severity = (episode.ramp_s / 40.0).log2() / 2.0;
            (severity * f64::from(BANDS)) as u32 % 3
        };
        let of = |part| episodes(part, 3, 4, 9_000.0, None, 7);
        assert!(of(Part::HeldOut).iter().all(|e| band(e) == 1));
        assert!(of(Part::Tuning).iter().all(|e| band(e) != 1));
    }

    #[test]
    fn a_fault_grows_to_what_it_is_meant_to() {
        let stunted = Episode {
            family: Family::CpuRamp,
            victim: 0,
            ramp_s: 100.0,
            reach: 0.4,
            bend: 1.0,
            healthy_s: 0.0,
        };
        assert_eq!(stunted.grown(20.0), 0.2);
        assert_eq!(stunted.grown(99.0), 0.4);
        let whole = Episode {
            reach: 1.0,
            ..stunted
        };
        assert_eq!(whole.grown(1_000.0), GROWN_MAX);
        assert!(whole.lasts_s() > 160.0);
    }
}
