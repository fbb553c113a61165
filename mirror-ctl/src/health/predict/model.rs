//! Layer B: the learned model. A chain of discrete hazards, one a horizon: each says how likely the failure falls into
//! its own stretch of time, given that it has not come before. So the probabilities cannot contradict each other:
//! P5 ≤ P15 ≤ P30 ≤ P60 by construction (Singer and Willett 1993, "It's about time: using discrete-time survival
//! analysis").

use serde::{Deserialize, Serialize};

use super::{
    calibrate::Calibration,
    features::{Row, WIDTH},
    forest::Forest,
};
use crate::health::learning::drift::Reference;

/// The horizons, in seconds.
pub const HORIZONS_S: [u32; 4] = [5, 15, 30, 60];

/// The probability of failing within each of [`HORIZONS_S`].
pub type Chances = [f32; HORIZONS_S.len()];

/// The hazard of one stretch of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Hazard {
    /// Its trees.
    pub forest: Forest,
    /// Log-odds where the trees say nothing.
    pub bias: f32,
    /// From log-odds to a probability.
    pub calibration: Calibration,
}

impl Hazard {
    /// Log-odds, uncalibrated.
    #[must_use]
    pub fn raw(&self, row: &[f32]) -> f32 {
        self.bias + self.forest.sum(row)
    }

    /// The probability of failing in its stretch of time.
    #[must_use]
    pub fn chance(&self, row: &[f32]) -> f32 {
        self.calibration.apply(self.raw(row))
    }
}

/// What the model was made from and how good it was found: goes into the file, and is what an operator reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// What it was trained on.
    pub corpus: String,
    /// CRC-32 of the rows it was trained on.
    pub data_hash: String,
    /// Where chance began.
    pub seed: u64,
    /// Rows it was trained on, and those of them with a failure in each stretch.
    pub rows: usize,
    /// Positives by horizon.
    pub positives: [usize; HORIZONS_S.len()],
    /// Names of the features, in their order.
    pub features: Vec<String>,
    /// The ten features that the trees split by most often, with their share of all splits.
    pub most_used: Vec<(String, f32)>,
    /// On rows that it has not seen: mean probability of failing within 30 s, share that did, rows.
    #[serde(default)]
    pub calibration: Vec<(f64, f64, u64)>,
    /// On the same rows: mean log-loss of the probability of failing within 30 s; none in older files.
    #[serde(default)]
    pub log_loss: Option<f64>,
}

/// A trained model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// By horizon.
    pub hazards: [Hazard; HORIZONS_S.len()],
    /// Where it comes from.
    pub card: Card,
    /// How its features were distributed, for drift to be noticed; none in older files.
    pub reference: Option<Reference>,
}

impl Model {
    /// By feature, the share of all splits that it decides.
    #[must_use]
    pub fn usage(&self) -> Vec<f32> {
        let mut counts = vec![0u32; WIDTH];
        let nodes = self.hazards.iter().flat_map(|hazard| hazard.forest.nodes());
        for node in nodes.filter(|node| !node.is_leaf()) {
            counts[node.feature as usize] += 1;
        }
        let all = counts.iter().sum::<u32>().max(1) as f32;
        counts.into_iter().map(|n| n as f32 / all).collect()
    }

    /// The probabilities for a row of features.
    #[must_use]
    pub fn predict(&self, row: &Row) -> Chances {
        chain(self.hazards.each_ref().map(|hazard| hazard.chance(row)))
    }
}

/// From hazards to the probabilities of having failed by the end of each stretch.
#[must_use]
pub fn chain(hazards: Chances) -> Chances {
    let mut survived = 1.0f32;
    hazards.map(|hazard| {
        survived *= 1.0 - hazard;
        1.0 - survived
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chain_worked_by_hand() {
        let [p5, p15, p30, p60] = chain([0.5, 0.5, 0.0, 0.2]);
        assert_eq!((p5, p15, p30), (0.5, 0.75, 0.75));
        assert!((p60 - 0.8).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn chances_are_ordered_and_are_probabilities(hazards in prop::array::uniform4(0f32..=1.0)) {
            let chances = chain(hazards);
            prop_assert!(chances.is_sorted());
            prop_assert!(chances.iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }
}
