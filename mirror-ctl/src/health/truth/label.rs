//! What is known of a recording: the faults, and who failed when. By the rule that simulated instances fail by
//! ([`crate::health::sim::label`]), applied to what real clients got. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::health::sim::label::{self, Served};

/// What whoever made the recording tells.
#[derive(Clone, Debug, Deserialize)]
pub struct Told {
    /// `tuning` or `held-out`.
    pub part: String,
    /// What the faults were drawn by.
    pub seed: u64,
    /// When the recording's first second begins, ms since 1970.
    pub from_ms: u64,
    /// The faults, in time.
    pub episodes: Vec<ToldEpisode>,
    /// What clients got, by instance and second.
    pub served: BTreeMap<String, Vec<ToldSecond>>,
    /// Load average of the machine now and then.
    #[serde(default)]
    pub load: Vec<f64>,
}

/// A fault as it was told.
#[derive(Clone, Debug, Deserialize)]
pub struct ToldEpisode {
    /// Its kind.
    pub family: String,
    /// Whose.
    pub instance: String,
    /// How long it was to take to grow to a failure, s.
    pub ramp_s: f64,
    /// How far it grew; 1 was meant to be a failure.
    pub reach: f64,
    /// Below 1 fast first, above 1 slow first.
    pub bend: f64,
    /// When it began, ms since 1970.
    pub begins_ms: u64,
    /// When it was taken away.
    pub ends_ms: u64,
}

/// What clients got of an instance in one second.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ToldSecond {
    /// Share of requests answered.
    pub success: f32,
    /// Share reset or timed out.
    pub refused: f32,
    /// Median time to answer, ms.
    pub latency_ms: f32,
}

/// What is known of a recording. Seconds count from its beginning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// `tuning` or `held-out`.
    pub part: String,
    /// What the faults were drawn by.
    pub seed: u64,
    /// When it begins, ms since 1970.
    pub from_ms: u64,
    /// How long it is.
    pub seconds: usize,
    /// The faults, in time.
    pub episodes: Vec<Episode>,
    /// Who failed when.
    pub failures: Vec<Failure>,
    /// Median latency of the healthy stretch at the beginning, ms.
    pub usual_latency_ms: BTreeMap<String, f32>,
    /// Load average of the machine now and then.
    pub load: Vec<f64>,
}

/// A fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Its kind.
    pub family: String,
    /// Whose.
    pub instance: String,
    /// How long it was to take to grow to a failure, s.
    pub ramp_s: f64,
    /// How far it grew; 1 was meant to be a failure.
    pub reach: f64,
    /// Below 1 fast first, above 1 slow first.
    pub bend: f64,
    /// When it began.
    pub begins_s: usize,
    /// When it was taken away.
    pub ends_s: usize,
}

/// What kind of a fault a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It grows: it is to be predicted.
    Gradual,
    /// It does not: it is to be detected.
    Abrupt,
    /// It is no fault.
    Benign,
}

impl Episode {
    /// Its family's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.family.as_str() {
            "crash" | "freeze" | "flapping" => Kind::Abrupt,
            "surge" | "deploy" => Kind::Benign,
            _ => Kind::Gradual,
        }
    }

    /// Whether a failure is its doing.
    #[must_use]
    pub fn causes(&self, failure: &Failure) -> bool {
        let whose = self.family == "surge" || failure.instance == self.instance;
        whose && (self.begins_s..=self.ends_s + LATE_S).contains(&failure.from_s)
    }
}

/// A failure may be seen so long after the fault was taken away: the time a request takes to fail.
const LATE_S: usize = 2;

/// A failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose.
    pub instance: String,
    /// Its first bad second.
    pub from_s: usize,
    /// When it was its old self again.
    pub until_s: usize,
}

/// In these seconds, at the beginning, an instance's usual latency is measured.
const USUAL_S: usize = 90;

impl Label {
    /// Works out who failed when.
    #[must_use]
    pub fn of(told: &Told) -> Self {
        let second = |ms: u64| (ms.saturating_sub(told.from_ms) / 1_000) as usize;
        let mut label = Self {
            part: told.part.clone(),
            seed: told.seed,
            from_ms: told.from_ms,
            seconds: told.served.values().map(Vec::len).max().unwrap_or(0),
            load: told.load.clone(),
            ..Self::default()
        };
        for told in &told.episodes {
            label.episodes.push(Episode {
                family: told.family.clone(),
                instance: told.instance.clone(),
                ramp_s: rounded(told.ramp_s),
                reach: rounded(told.reach),
                bend: rounded(told.bend),
                begins_s: second(told.begins_ms),
                ends_s: second(told.ends_ms),
            });
        }
        for (instance, seconds) in &told.served {
            let served: Vec<Served> = seconds
                .iter()
                .map(|s| Served {
                    success: s.success,
                    refused: s.refused,
                    latency_ms: s.latency_ms,
                })
                .collect();
            let mut first: Vec<f32> = served.iter().take(USUAL_S).map(|s| s.latency_ms).collect();
            first.sort_by(f32::total_cmp);
            let usual_ms = first.get(first.len() / 2).copied().unwrap_or(0.0);
            label.usual_latency_ms.insert(instance.clone(), usual_ms);
            let (failing, onsets) = label::failing(&served, usual_ms);
            for from_s in onsets {
                let rest = failing[from_s..].iter().position(|failing| !failing);
                label.failures.push(Failure {
                    instance: instance.clone(),
                    from_s,
                    until_s: rest.map_or(failing.len(), |n| from_s + n),
                });
            }
        }
        label.failures.sort_by_key(|failure| failure.from_s);
        label
    }

    /// The fault that a failure is the doing of; none: something else on the machine.
    #[must_use]
    pub fn cause(&self, failure: &Failure) -> Option<&Episode> {
        self.episodes.iter().find(|episode| episode.causes(failure))
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_failed_by_what_clients_got() {
        let well = ToldSecond {
            success: 1.0,
            refused: 0.0,
            latency_ms: 2.0,
        };
        let mut of_a = vec![well; 200];
        of_a[120..130].iter_mut().for_each(|s| s.success = 0.5);
        let told = Told {
            part: "tuning".to_owned(),
            seed: 1,
            from_ms: 5_000,
            episodes: vec![ToldEpisode {
                family: "memory-leak".to_owned(),
                instance: "a".to_owned(),
                ramp_s: 20.0,
                reach: 1.0,
                bend: 1.0,
                begins_ms: 105_000,
                ends_ms: 135_000,
            }],
            served: [("a".to_owned(), of_a), ("b".to_owned(), vec![well; 200])].into(),
            load: vec![1.0],
        };
        let label = Label::of(&told);
        let failure = Failure {
            instance: "a".to_owned(),
            from_s: 120,
            // Thirty good seconds after the last bad one.
            until_s: 160,
        };
        assert_eq!(label.failures, std::slice::from_ref(&failure));
        assert_eq!(label.cause(&failure), label.episodes.first());
        assert_eq!(label.episodes[0].kind(), Kind::Gradual);
        assert_eq!(label.usual_latency_ms["b"], 2.0);
        let elsewhere = Failure {
            instance: "b".to_owned(),
            ..failure
        };
        assert_eq!(label.cause(&elsewhere), None);
    }
}
