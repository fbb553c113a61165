//! Whether what a model is given still looks like what it was trained on: the population stability index of each feature
//! (Siddiqi 2006, "Credit risk scorecards"; below .1 nothing, above .25 another population), weighed by how much the model uses
//! it. Pure.

use serde::{Deserialize, Serialize};

use super::super::predict::features::{self, Row, WIDTH};

/// Bins of a feature: tenths of what was trained on, fewer where values repeat.
const BINS: usize = 10;
/// So many rows say enough of what was trained on.
const SAMPLE: usize = 20_000;
/// An empty bin counts as this share: its logarithm must exist.
const SHARE_MIN: f32 = 1e-3;
/// Fewer rows say nothing.
const ROWS_MIN: f32 = 300.0;
/// What is older counts half as much for each so many rows.
const ROWS_HALF: f32 = 7_200.0;
/// Above this it is another population,
pub const DRIFTED: f32 = 0.25;
/// and below this it is the same one again.
pub const SETTLED: f32 = 0.1;
/// So many features are told of.
const TOLD: usize = 5;

/// How the features were distributed in what a model was trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// By feature: where bins end, rising.
    edges: Vec<Vec<f32>>,
    /// By feature: share of rows in each bin.
    shares: Vec<Vec<f32>>,
}

impl Reference {
    /// Of rows with their weights.
    #[must_use]
    pub fn of(rows: &[(&Row, f32)]) -> Self {
        let stride = rows.len().div_ceil(SAMPLE).max(1);
        let sample: Vec<_> = rows.iter().step_by(stride).collect();
        let mut reference = Self::default();
        for feature in 0..WIDTH {
            let mut values: Vec<f32> = sample.iter().map(|(row, _)| row[feature]).collect();
            values.sort_by(f32::total_cmp);
            let quantile = |part: usize| values.get(part * values.len() / BINS).copied();
            let mut edges: Vec<f32> = (1..BINS).filter_map(quantile).collect();
            edges.dedup();
            let mut counts = vec![0.0; edges.len() + 1];
            for (row, weight) in &sample {
                counts[bin(&edges, row[feature])] += weight;
            }
            let all: f32 = counts.iter().sum::<f32>().max(1.0);
            reference.edges.push(edges);
            reference
                .shares
                .push(counts.into_iter().map(|n| n / all).collect());
        }
        reference
    }

    /// Whether a file's can be used.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let is_share = |share: &f32| (0.0..=1.0).contains(share);
        let pairs = self.edges.iter().zip(&self.shares);
        self.edges.len() == WIDTH
            && self.shares.len() == WIDTH
            && pairs.clone().all(|(edges, shares)| {
                shares.len() == edges.len() + 1
                    && edges.len() < BINS
                    && edges.is_sorted()
                    && edges.iter().all(|edge| edge.is_finite())
                    && shares.iter().all(is_share)
            })
    }
}

fn bin(edges: &[f32], value: f32) -> usize {
    edges.partition_point(|edge| *edge < value)
}

/// One feature's drift.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureDrift {
    /// Its name.
    pub feature: String,
    /// Its index.
    pub psi: f32,
}

/// How far what is seen is from what was trained on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drift {
    /// The index over all features, weighed by how much the model uses them.
    pub psi: f32,
    /// The features that have moved most, of those that the model uses.
    pub most: Vec<FeatureDrift>,
}

/// What is seen, by feature and bin.
#[derive(Clone, Debug)]
pub struct Watch {
    reference: Reference,
    usage: Vec<f32>,
    counts: Vec<Vec<f32>>,
    rows: f32,
}

impl Watch {
    /// Against a reference, with the part that each feature has in the model.
    #[must_use]
    pub fn new(reference: Reference, usage: Vec<f32>) -> Self {
        let counts = reference.shares.iter().map(|s| vec![0.0; s.len()]);
        Self {
            counts: counts.collect(),
            reference,
            usage,
            rows: 0.0,
        }
    }

    /// Takes in a row.
    pub fn push(&mut self, row: &Row) {
        let edges = self.reference.edges.iter();
        for ((edges, counts), value) in edges.zip(&mut self.counts).zip(row) {
            counts[bin(edges, *value)] += 1.0;
        }
        self.rows += 1.0;
        if self.rows >= 2.0 * ROWS_HALF {
            self.rows /= 2.0;
            let counts = self.counts.iter_mut().flatten();
            counts.for_each(|count| *count /= 2.0);
        }
    }

    /// The drift; none while too little was seen.
    #[must_use]
    pub fn drift(&self) -> Option<Drift> {
        if self.rows < ROWS_MIN {
            return None;
        }
        let shares = self.reference.shares.iter();
        let found: Vec<f32> = shares
            .zip(&self.counts)
            .map(|(expected, counts)| index(expected, counts, self.rows))
            .collect();
        let weighed = found.iter().zip(&self.usage).map(|(psi, used)| psi * used);
        let mut most: Vec<_> = (0..found.len()).filter(|f| self.usage[*f] > 0.0).collect();
        most.sort_by(|a, b| found[*b].total_cmp(&found[*a]));
        let names = features::names();
        let told = most.into_iter().take(TOLD).map(|feature| FeatureDrift {
            feature: names[feature].clone(),
            psi: found[feature],
        });
        Some(Drift {
            psi: weighed.sum(),
            most: told.collect(),
        })
    }
}

/// Σ (a − e) ln(a / e) over bins.
fn index(expected: &[f32], counts: &[f32], rows: f32) -> f32 {
    let bins = expected.iter().zip(counts);
    let part = |(expected, count): (&f32, &f32)| {
        let (e, a) = (expected.max(SHARE_MIN), (count / rows).max(SHARE_MIN));
        (a - e) * (a / e).ln()
    };
    bins.map(part).sum()
}

/// Whether a model's food is another one, with a memory: what wavers is not news every second.
#[must_use]
pub fn has_drifted(before: bool, drift: Option<&Drift>) -> bool {
    match drift {
        Some(drift) if before => drift.psi > SETTLED,
        Some(drift) => drift.psi > DRIFTED,
        None => before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_worked_by_hand() {
        // .1 ln(.5/.4)·… : (.5−.4) ln 1.25 + (.5−.6) ln(.5/.6)
        let expected = 0.1 * 1.25f32.ln() - 0.1 * (0.5f32 / 0.6).ln();
        let found = index(&[0.4, 0.6], &[50.0, 50.0], 100.0);
        assert!((found - expected).abs() < 1e-6, "{found}");
        assert!(index(&[0.4, 0.6], &[40.0, 60.0], 100.0).abs() < 1e-6);
        // A bin that is empty now: (.001 − .5) ln(.001/.5) + (1 − .5) ln 2.
        let expected = -0.499 * (0.002f32).ln() + 0.5 * 2f32.ln();
        assert!((index(&[0.5, 0.5], &[0.0, 10.0], 10.0) - expected).abs() < 1e-5);
    }

    fn row(first: f32) -> Row {
        let mut row = [0.0; WIDTH];
        row[0] = first;
        row
    }

    fn reference() -> Reference {
        let rows: Vec<Row> = (0..1_000).map(|n| row(n as f32 / 1_000.0)).collect();
        let rows: Vec<_> = rows.iter().map(|row| (row, 1.0)).collect();
        Reference::of(&rows)
    }

    #[test]
    fn bins_are_tenths_and_repeated_values_one() {
        let reference = reference();
        assert!(reference.is_valid());
        assert_eq!(reference.edges[0].len(), 9);
        assert!(
            reference.shares[0]
                .iter()
                .all(|share| (share - 0.1).abs() < 0.002)
        );
        assert_eq!(
            (reference.edges[1].len(), &reference.shares[1]),
            (1, &vec![1.0, 0.0])
        );
        let mut broken = reference.clone();
        broken.edges[0][3] = f32::NAN;
        assert!(!broken.is_valid());
        broken = reference;
        broken.shares.pop();
        assert!(!broken.is_valid());
    }

    #[test]
    fn drift_is_seen_in_what_the_model_uses() {
        let mut usage = vec![0.0; WIDTH];
        (usage[0], usage[1]) = (0.75, 0.25);
        let mut watch = Watch::new(reference(), usage);
        for n in 0..299 {
            watch.push(&row((n % 100) as f32 / 100.0));
        }
        assert_eq!(watch.drift(), None, "too few rows");
        watch.push(&row(0.99));
        let same = watch.drift().unwrap();
        assert!(same.psi < 0.05, "{same:?}");
        for _ in 0..1_000 {
            watch.push(&row(0.05));
        }
        let moved = watch.drift().unwrap();
        assert!(moved.psi > DRIFTED, "{moved:?}");
        assert_eq!(moved.most.len(), 2);
        assert!((moved.most[0].psi * 0.75 - moved.psi).abs() < 1e-6);
    }

    #[test]
    fn what_wavers_is_not_news() {
        let drift = |psi| Drift {
            psi,
            most: Vec::new(),
        };
        for (before, psi, after) in [
            (false, 0.2, false),
            (false, 0.26, true),
            (true, 0.2, true),
            (true, 0.09, false),
        ] {
            assert_eq!(has_drifted(before, Some(&drift(psi))), after);
        }
        assert!(has_drifted(true, None) && !has_drifted(false, None));
    }
}
