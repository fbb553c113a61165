//! What each instance weighs in a VNI's table: capacity times health, steady against noise, and
//! never nothing while an instance is left.

use super::candidate::{Candidate, State};

/// Effective weights are in thousandths of a configured weight.
pub const WEIGHT_UNIT: u32 = 1000;

/// How far a score must have moved from the one in force before it is taken up.
///
/// A fall counts sooner than a rise: shedding late costs requests, coming back late only time.
/// The gap between the two is what keeps a score that swings from rewriting the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bands {
    /// A fall of more than this is taken up.
    pub fall: f64,
    /// A rise of more than this is taken up.
    pub rise: f64,
}

impl Default for Bands {
    fn default() -> Self {
        Self {
            fall: 0.05,
            rise: 0.10,
        }
    }
}

/// Which instances the weights are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Instances that are up, by weight and score.
    Healthy,
    /// Panic: each one up has score 0; the scores are left out.
    ScoresIgnored,
    /// Panic: each one up has weight 0 (a stand-by); equal weights.
    WeightsIgnored,
    /// Panic: none is up; draining and evacuating ones serve.
    Leaving,
    /// Panic: the suspects serve.
    Suspects,
    /// Panic: all are dead; they stay in the table, in case the verdict was wrong.
    Dead,
    /// There is no instance.
    Empty,
}

impl Rule {
    /// Whether instances serve that should not.
    #[must_use]
    pub fn is_panic(self) -> bool {
        !matches!(self, Self::Healthy | Self::Empty)
    }
}

/// One instance's part of [`Weights`].
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// The instance.
    pub name: String,
    /// The score in force: the last one that was taken up.
    pub score: f64,
    /// Effective weight, in thousandths of a configured weight; 0: no new flows.
    pub weight: u32,
}

/// Effective weights, in the order of the candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// By candidate.
    pub entries: Vec<Weighted>,
    /// Where they are from.
    pub rule: Rule,
}

impl Weights {
    /// The effective weights alone.
    #[must_use]
    pub fn values(&self) -> Vec<u32> {
        self.entries.iter().map(|entry| entry.weight).collect()
    }
}

/// Effective weights of `candidates`: configured weight times the score in force.
///
/// The score in force is that of `previous` unless the score left it by more than `bands`; an
/// unknown score (not a number) leaves it as it is, and counts as 1 where there is none yet.
/// States and configured weights count at once. See [`Rule`] for who serves when nobody should.
#[must_use]
pub fn weights(candidates: &[Candidate<'_>], previous: Option<&Weights>, bands: Bands) -> Weights {
    let before: std::collections::HashMap<&str, f64> = previous
        .into_iter()
        .flat_map(|previous| &previous.entries)
        .map(|entry| (entry.name.as_str(), entry.score))
        .collect();
    let scores: Vec<f64> = candidates
        .iter()
        .map(|candidate| in_force(candidate.score, before.get(candidate.name).copied(), bands))
        .collect();
    let (weights, rule) = by_rule(candidates, &scores);
    let entries = candidates
        .iter()
        .zip(scores)
        .zip(weights)
        .map(|((candidate, score), weight)| Weighted {
            name: candidate.name.to_owned(),
            score,
            weight,
        })
        .collect();
    Weights { entries, rule }
}

/// Whether a state belongs to a group of [`GROUPS`].
type InGroup = fn(State) -> bool;

/// Who serves, in order, and by which rule.
const GROUPS: [(InGroup, Rule); 4] = [
    (|state| state == State::Up, Rule::Healthy),
    (
        |state| matches!(state, State::Draining | State::Evacuating),
        Rule::Leaving,
    ),
    (|state| state == State::Suspect, Rule::Suspects),
    (|state| state == State::Dead, Rule::Dead),
];

fn by_rule(candidates: &[Candidate<'_>], scores: &[f64]) -> (Vec<u32>, Rule) {
    for (in_group, rule) in GROUPS {
        let weigh = |weigh: &dyn Fn(usize) -> u32| -> Option<Vec<u32>> {
            let weights: Vec<u32> = candidates
                .iter()
                .enumerate()
                .map(|(index, candidate)| {
                    if in_group(candidate.state) {
                        weigh(index)
                    } else {
                        0
                    }
                })
                .collect();
            weights.iter().any(|&weight| weight > 0).then_some(weights)
        };
        let full = |index: usize| candidates[index].weight.saturating_mul(WEIGHT_UNIT);
        let scored = |index: usize| (f64::from(full(index)) * scores[index]).round() as u32;
        let attempts: [(&dyn Fn(usize) -> u32, Rule); 3] = [
            (&scored, Rule::Healthy),
            (&full, Rule::ScoresIgnored),
            (&|_| WEIGHT_UNIT, Rule::WeightsIgnored),
        ];
        for (attempt, refined) in attempts {
            if let Some(weights) = weigh(attempt) {
                return (weights, if rule == Rule::Healthy { refined } else { rule });
            }
        }
    }
    (vec![0; candidates.len()], Rule::Empty)
}

/// The score that counts, given the one that counted before.
fn in_force(score: f64, before: Option<f64>, bands: Bands) -> f64 {
    if score.is_nan() {
        return before.unwrap_or(1.0);
    }
    let score = score.clamp(0.0, 1.0);
    match before {
        Some(before) if score > before && score - before <= bands.rise => before,
        Some(before) if score <= before && before - score <= bands.fall => before,
        _ => score,
    }
}
