//! What smartcore trains: boosted trees for the hazards, extremely randomised trees for the public data.
//!
//! smartcore's classifiers vote and give no probability, and its boosting knows squared error only. Its regression
//! trees, though, fit weighted residuals, which is all that Newton boosting of the log-loss asks of them (Friedman,
//! Hastie, Tibshirani 2000, "Additive logistic regression"; the weight of a row is p (1 − p)).

use serde::Deserialize;
use smartcore::{
    ensemble::extra_trees_regressor::{ExtraTreesRegressor, ExtraTreesRegressorParameters},
    linalg::basic::matrix::DenseMatrix,
    tree::decision_tree_regressor::{DecisionTreeRegressor, DecisionTreeRegressorParameters},
};

use super::{
    calibrate::{logit, sigmoid},
    forest::{Forest, Node, walk},
};

/// Why nothing was trained.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Trees split at a value or do not; what is no value makes smartcore panic.
    #[error("row {row}, feature {feature} is not a finite number")]
    NotFinite {
        /// Which row.
        row: usize,
        /// Which feature.
        feature: usize,
    },
    /// There is nothing to learn from.
    #[error("no rows to learn from")]
    Empty,
    /// As many outcomes and weights as rows are needed.
    #[error("{rows} rows, but {outcomes} outcomes")]
    Uneven {
        /// Rows of features.
        rows: usize,
        /// Outcomes or weights.
        outcomes: usize,
    },
    /// smartcore refused.
    #[error("training a tree")]
    Tree(#[from] smartcore::error::Failed),
    /// smartcore's tree has another form than this was written for.
    #[error("reading the trained tree")]
    Form(#[from] serde_json::Error),
}

/// Rows of features, all of one width, with what came of each and how much it counts.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The rows, one after the other.
    pub values: Vec<f32>,
    /// Features a row.
    pub width: usize,
    /// What came of each.
    pub outcomes: Vec<bool>,
    /// How much each counts.
    pub weights: Vec<f32>,
}

impl Table {
    /// An empty one for rows of this width.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self {
            width,
            ..Self::default()
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: &[f32], outcome: bool, weight: f32) {
        debug_assert_eq!(row.len(), self.width);
        self.values.extend_from_slice(row);
        self.outcomes.push(outcome);
        self.weights.push(weight);
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// A row.
    #[must_use]
    pub fn row(&self, number: usize) -> &[f32] {
        &self.values[number * self.width..][..self.width]
    }

    /// Weighted share of positives, kept from 0 and 1.
    #[must_use]
    pub fn rate(&self) -> f32 {
        let (mut positive, mut all) = (0.5f64, 1.0f64);
        for (outcome, weight) in self.outcomes.iter().zip(&self.weights) {
            all += f64::from(*weight);
            positive += f64::from(*weight) * f64::from(u8::from(*outcome));
        }
        (positive / all) as f32
    }

    fn check(&self) -> Result<(), TrainError> {
        if self.is_empty() {
            return Err(TrainError::Empty);
        }
        let rows = self.len();
        if self.values.len() != rows * self.width || self.weights.len() != rows {
            return Err(TrainError::Uneven {
                rows: self.values.len() / self.width.max(1),
                outcomes: rows,
            });
        }
        match self.values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(TrainError::NotFinite {
                row: at / self.width,
                feature: at % self.width,
            }),
            None => Ok(()),
        }
    }

    /// Some rows and columns, as smartcore takes them.
    fn matrix(&self, rows: &[usize], columns: &[usize]) -> Result<DenseMatrix<f32>, TrainError> {
        let mut values = Vec::with_capacity(rows.len() * columns.len());
        for column in columns {
            values.extend(
                rows.iter()
                    .map(|row| self.values[row * self.width + column]),
            );
        }
        Ok(DenseMatrix::new(rows.len(), columns.len(), values, true)?)
    }
}

/// How [`boost`] goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Boosting {
    /// Trees.
    pub rounds: usize,
    /// Levels of a tree below its root.
    pub depth: u16,
    /// Rows of a leaf at least.
    pub leaf_rows: usize,
    /// How much of a tree's advice is taken.
    pub rate: f32,
    /// Share of the rows that a tree sees (Friedman 2002, "Stochastic gradient boosting").
    pub rows: f32,
    /// Share of the features that a tree sees.
    pub columns: f32,
    /// Where chance begins.
    pub seed: u64,
}

/// A leaf's log-odds step at most: one pure leaf must not decide alone.
const STEP_MAX: f32 = 4.0;
/// The least weight of a row: nearly certain rows still hold their place.
const WEIGHT_MIN: f32 = 1e-3;

/// Boosted trees whose sum, plus the bias, is the log-odds of the outcome. `tick` is called after every tree.
pub fn boost(
    table: &Table,
    how: &Boosting,
    mut tick: impl FnMut(),
) -> Result<(Forest, f32), TrainError> {
    table.check()?;
    let bias = logit(table.rate());
    let mut forest = Forest::default();
    if table.outcomes.iter().all(|o| *o) || !table.outcomes.iter().any(|o| *o) {
        // Nothing sets the outcomes apart.
        return Ok((forest, bias));
    }
    let mut chance = fastrand::Rng::with_seed(how.seed);
    let mut sums = vec![bias; table.len()];
    let mut rows: Vec<usize> = (0..table.len()).collect();
    let mut columns: Vec<usize> = (0..table.width).collect();
    let rows_seen = share(table.len(), how.rows);
    let columns_seen = share(table.width, how.columns);
    for _ in 0..how.rounds {
        chance.shuffle(&mut rows);
        chance.shuffle(&mut columns);
        let (rows, columns) = (&rows[..rows_seen], &columns[..columns_seen]);
        let (mut targets, mut weights) = (Vec::new(), Vec::new());
        for &row in rows {
            let p = sigmoid(sums[row]);
            let slack = (p * (1.0 - p)).max(WEIGHT_MIN);
            targets.push((f32::from(u8::from(table.outcomes[row])) - p) / slack);
            weights.push(f64::from(slack * table.weights[row]));
        }
        let parameters = DecisionTreeRegressorParameters {
            // smartcore counts the root as a level.
            max_depth: Some(how.depth + 1),
            min_samples_leaf: how.leaf_rows,
            min_samples_split: how.leaf_rows * 2,
            seed: Some(chance.u64(..)),
        };
        let matrix = table.matrix(rows, columns)?;
        let tree =
            DecisionTreeRegressor::fit_with_weights(&matrix, &targets, &weights, parameters)?;
        let tree: TrainedTree = from_trained(&tree)?;
        let step = |output: f64| (output as f32).clamp(-STEP_MAX, STEP_MAX) * how.rate;
        let nodes = tree.tree_regressor.flatten(columns, step);
        for (number, sum) in sums.iter_mut().enumerate() {
            *sum += walk(&nodes, table.row(number));
        }
        forest.add(&nodes);
        tick();
    }
    Ok((forest, bias))
}

/// How [`scatter`] goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Scattering {
    /// Trees.
    pub trees: usize,
    /// Levels of a tree below its root.
    pub depth: u16,
    /// Rows of a leaf at least.
    pub leaf_rows: usize,
    /// Share of the features that a split chooses from.
    pub columns: f32,
    /// Where chance begins.
    pub seed: u64,
}

/// Extremely randomised trees (Geurts, Ernst, Wehenkel 2006) on 0/1 targets, whose sum is the share of positives.
pub fn scatter(table: &Table, how: &Scattering) -> Result<Forest, TrainError> {
    table.check()?;
    let rows: Vec<usize> = (0..table.len()).collect();
    let columns: Vec<usize> = (0..table.width).collect();
    let matrix = table.matrix(&rows, &columns)?;
    let targets: Vec<f32> = table
        .outcomes
        .iter()
        .map(|o| f32::from(u8::from(*o)))
        .collect();
    let weights: Vec<f64> = table
        .weights
        .iter()
        .map(|weight| f64::from(*weight))
        .collect();
    let parameters = ExtraTreesRegressorParameters::default()
        .with_max_depth(how.depth + 1)
        .with_min_samples_leaf(how.leaf_rows)
        .with_min_samples_split(how.leaf_rows * 2)
        .with_n_trees(how.trees)
        .with_m(share(table.width, how.columns))
        .with_seed(how.seed);
    let trained = ExtraTreesRegressor::fit_with_weights(&matrix, &targets, &weights, parameters)?;
    let trained: TrainedForest = from_trained(&trained)?;
    let mut forest = Forest::default();
    for tree in &trained.forest_regressor.trees {
        forest.add(&tree.flatten(&columns, |output| output as f32 / how.trees as f32));
    }
    Ok(forest)
}

fn share(of: usize, share: f32) -> usize {
    ((of as f32 * share).ceil() as usize).clamp(1, of)
}

/// smartcore keeps its nodes to itself but gives them to serde, without loss: a `Value` holds an `f64` as it is.
fn from_trained<T: for<'a> Deserialize<'a>>(
    trained: &impl serde::Serialize,
) -> Result<T, TrainError> {
    Ok(T::deserialize(serde_json::to_value(trained)?)?)
}

#[derive(Deserialize)]
struct TrainedTree {
    tree_regressor: Nodes,
}

#[derive(Deserialize)]
struct TrainedForest {
    forest_regressor: Trees,
}

#[derive(Deserialize)]
struct Trees {
    trees: Vec<Nodes>,
}

#[derive(Deserialize)]
struct Nodes {
    nodes: Vec<TrainedNode>,
}

#[derive(Deserialize)]
struct TrainedNode {
    output: f64,
    split_feature: usize,
    split_value: Option<f64>,
    true_child: Option<u32>,
    false_child: Option<u32>,
}

impl Nodes {
    /// In our form; `columns` are the features that the tree saw, `leaf` turns an output into a leaf's value.
    fn flatten(&self, columns: &[usize], leaf: impl Fn(f64) -> f32) -> Vec<Node> {
        let flat = |node: &TrainedNode| match (node.split_value, node.true_child, node.false_child)
        {
            (Some(at), Some(left), Some(right)) => Node {
                value: not_above(at),
                feature: columns[node.split_feature] as u32,
                left,
                right,
            },
            _ => Node::leaf(leaf(node.output)),
        };
        self.nodes.iter().map(flat).collect()
    }
}

/// The greatest `f32` not above `at`, so that a row of `f32` is sent the same way as in smartcore.
fn not_above(at: f64) -> f32 {
    let near = at as f32;
    if f64::from(near) > at {
        near.next_down()
    } else {
        near
    }
}

#[cfg(test)]
#[path = "train_tests.rs"]
mod tests;
