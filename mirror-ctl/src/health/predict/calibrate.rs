//! From scores to probabilities.
//!
//! Platt's sigmoid (Platt 1999, with his targets against overconfidence) where positives are few; isotonic regression
//! by pool-adjacent-violators (Zadrozny and Elkan 2002) where they are many. Two parameters cannot overfit a hundred
//! events; a staircase can.

use serde::{Deserialize, Serialize};

/// From so many positives on, isotonic.
pub const ISOTONIC_POSITIVES_MIN: usize = 1_000;
/// No outcome is certain, and a logarithm of it must exist.
const PROBABILITY_MIN: f32 = 1e-5;
/// Newton steps at most; it settles in about ten.
const STEPS_MAX: usize = 50;
/// Steps of the staircase at most: what a model file has to carry.
const STAIRS_MAX: usize = 64;

/// A monotone map from a score to a probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Calibration {
    /// 1 / (1 + e^−(slope · score + intercept)), the slope never negative.
    Platt {
        /// Slope.
        slope: f32,
        /// Intercept.
        intercept: f32,
    },
    /// Linear between points that rise in both coordinates.
    Isotonic {
        /// Score and probability.
        points: Vec<(f32, f32)>,
    },
}

impl Calibration {
    /// Fits to scores and what came of them. Outcomes of one kind only give that rate, constant.
    #[must_use]
    pub fn fit(scores: &[f32], outcomes: &[bool]) -> Self {
        let positives = outcomes.iter().filter(|outcome| **outcome).count();
        if positives == 0 || positives == outcomes.len() {
            return constant(positives, outcomes.len());
        }
        if positives >= ISOTONIC_POSITIVES_MIN {
            return isotonic(scores, outcomes);
        }
        platt(scores, outcomes)
    }

    /// The probability of a score.
    #[must_use]
    pub fn apply(&self, score: f32) -> f32 {
        let probability = match self {
            Self::Platt { slope, intercept } => sigmoid(slope * score + intercept),
            Self::Isotonic { points } => interpolate(points, score),
        };
        if probability.is_nan() {
            return PROBABILITY_MIN;
        }
        probability.clamp(PROBABILITY_MIN, 1.0 - PROBABILITY_MIN)
    }

    /// Whether it can be used: finite and rising.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        match self {
            Self::Platt { slope, intercept } => {
                slope.is_finite() && intercept.is_finite() && *slope >= 0.0
            }
            Self::Isotonic { points } => {
                let finite = |p: &(f32, f32)| p.0.is_finite() && (0.0..=1.0).contains(&p.1);
                !points.is_empty()
                    && points.iter().all(finite)
                    && points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1)
            }
        }
    }
}

/// The logistic function.
#[must_use]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Its inverse.
#[must_use]
pub fn logit(probability: f32) -> f32 {
    let p = probability.clamp(PROBABILITY_MIN, 1.0 - PROBABILITY_MIN);
    (p / (1.0 - p)).ln()
}

fn constant(positives: usize, all: usize) -> Calibration {
    let rate = (positives as f32 + 1.0) / (all as f32 + 2.0);
    Calibration::Platt {
        slope: 0.0,
        intercept: logit(rate),
    }
}

/// Newton's method on the log-loss in the two parameters, of standardised scores: as they come, the two are so alike
/// that a step overshoots.
fn platt(scores: &[f32], outcomes: &[bool]) -> Calibration {
    let n = scores.len() as f64;
    let mean = scores.iter().map(|s| f64::from(*s)).sum::<f64>() / n;
    let square = scores.iter().map(|s| (f64::from(*s) - mean).powi(2));
    let deviation = (square.sum::<f64>() / n).sqrt();
    let positives = outcomes.iter().filter(|outcome| **outcome).count();
    if deviation < 1e-6 {
        return constant(positives, outcomes.len());
    }
    let high = (positives as f64 + 1.0) / (positives as f64 + 2.0);
    let low = 1.0 / (n - positives as f64 + 2.0);
    let rows: Vec<(f64, f64)> = scores
        .iter()
        .zip(outcomes)
        .map(|(s, o)| {
            (
                (f64::from(*s) - mean) / deviation,
                if *o { high } else { low },
            )
        })
        .collect();
    let (mut a, mut b) = (
        0.0,
        ((positives as f64 + 1.0) / (n - positives as f64 + 1.0)).ln(),
    );
    let mut best = loss(&rows, a, b);
    for _ in 0..STEPS_MAX {
        let (step_a, step_b) = newton(&rows, a, b);
        let mut length = 1.0;
        let mut to = loss(&rows, a - step_a, b - step_b);
        while to > best && length > 1e-6 {
            length /= 2.0;
            to = loss(&rows, a - length * step_a, b - length * step_b);
        }
        if to >= best {
            break;
        }
        (a, b, best) = (a - length * step_a, b - length * step_b, to);
        if length * (step_a.abs() + step_b.abs()) < 1e-7 {
            break;
        }
    }
    let (slope, intercept) = (a / deviation, b - a * mean / deviation);
    if slope <= 0.0 || !slope.is_finite() || !intercept.is_finite() {
        // The score says nothing, or the contrary: then nothing is read from it.
        return constant(positives, outcomes.len());
    }
    Calibration::Platt {
        slope: slope as f32,
        intercept: intercept as f32,
    }
}

/// A ridge on the slope: scores that separate the outcomes would send it to infinity.
const RIDGE: f64 = 1e-3;

fn loss(rows: &[(f64, f64)], a: f64, b: f64) -> f64 {
    let of = |(x, target): &(f64, f64)| {
        let sum = a * x + b;
        // ln(1 + e^sum) - target * sum, without overflow.
        sum.max(0.0) + (-sum.abs()).exp().ln_1p() - target * sum
    };
    rows.iter().map(of).sum::<f64>() + RIDGE * a * a / 2.0
}

/// What to take off slope and intercept.
fn newton(rows: &[(f64, f64)], a: f64, b: f64) -> (f64, f64) {
    let (mut g_a, mut g_b, mut h_aa, mut h_ab, mut h_bb) = (RIDGE * a, 0.0, RIDGE, 0.0, 1e-9);
    for (x, target) in rows {
        let p = 1.0 / (1.0 + (-(a * x + b)).exp());
        let (off, w) = (p - target, (p * (1.0 - p)).max(1e-9));
        g_a += off * x;
        g_b += off;
        h_aa += w * x * x;
        h_ab += w * x;
        h_bb += w;
    }
    let determinant = (h_aa * h_bb - h_ab * h_ab).max(1e-12);
    (
        (g_a * h_bb - g_b * h_ab) / determinant,
        (g_b * h_aa - g_a * h_ab) / determinant,
    )
}

fn isotonic(scores: &[f32], outcomes: &[bool]) -> Calibration {
    struct Block {
        sum: f64,
        positives: f64,
        n: f64,
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    // Blocks of at least this size, or the ends of the staircase would be single rows.
    let block_min = (scores.len() / 2_000).max(1) as f64;
    let mut blocks: Vec<Block> = Vec::new();
    for index in order {
        let positive = f64::from(u8::from(outcomes[index]));
        match blocks.last_mut() {
            Some(last) if last.n < block_min => {
                last.sum += f64::from(scores[index]);
                last.positives += positive;
                last.n += 1.0;
            }
            _ => blocks.push(Block {
                sum: f64::from(scores[index]),
                positives: positive,
                n: 1.0,
            }),
        }
    }
    let mut pooled: Vec<Block> = Vec::new();
    for mut block in blocks {
        while let Some(last) = pooled.last() {
            if last.positives / last.n < block.positives / block.n {
                break;
            }
            block.sum += last.sum;
            block.positives += last.positives;
            block.n += last.n;
            pooled.pop();
        }
        pooled.push(block);
    }
    let points: Vec<_> = pooled
        .iter()
        .map(|block| {
            let rate = (block.positives + 0.5) / (block.n + 1.0);
            ((block.sum / block.n) as f32, rate as f32)
        })
        .collect();
    Calibration::Isotonic {
        points: rising(thin(&points)),
    }
}

/// At most [`STAIRS_MAX`] points, both ends among them.
fn thin(points: &[(f32, f32)]) -> Vec<(f32, f32)> {
    if points.len() <= STAIRS_MAX {
        return points.to_vec();
    }
    let last = points.len() - 1;
    (0..STAIRS_MAX)
        .map(|n| points[n * last / (STAIRS_MAX - 1)])
        .collect()
}

/// Smoothed rates of small blocks may fall a little; the map must not.
fn rising(mut points: Vec<(f32, f32)>) -> Vec<(f32, f32)> {
    let mut least = 0.0f32;
    for point in &mut points {
        least = least.max(point.1);
        point.1 = least;
    }
    points
}

fn interpolate(points: &[(f32, f32)], score: f32) -> f32 {
    let above = points.partition_point(|point| point.0 <= score);
    match (above.checked_sub(1).map(|i| points[i]), points.get(above)) {
        (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * (score - x0) / (x1 - x0),
        (Some((_, y)), None) => y,
        (None, Some((_, y))) => *y,
        (None, None) => f32::NAN,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn platt_finds_the_sigmoid_again() {
        // Outcomes at exactly the rate of sigmoid(2x - 1) on a grid of scores.
        let (mut scores, mut outcomes) = (Vec::new(), Vec::new());
        for step in -10..=10 {
            let x = step as f32 / 5.0;
            let positives = (sigmoid(2.0 * x - 1.0) * 40.0).round() as usize;
            for n in 0..40 {
                scores.push(x);
                outcomes.push(n < positives);
            }
        }
        let Calibration::Platt { slope, intercept } = Calibration::fit(&scores, &outcomes) else {
            panic!("few positives, yet not Platt");
        };
        assert!((slope - 2.0).abs() < 0.1, "{slope}");
        assert!((intercept + 1.0).abs() < 0.1, "{intercept}");
    }

    #[test]
    fn isotonic_finds_the_rates() {
        let scores: Vec<f32> = (0..9_000).map(|n| (n % 3) as f32).collect();
        // Rates 0, 1/4 and 3/4 at the scores 0, 1, 2.
        let outcomes: Vec<bool> = (0..9_000).map(|n| n / 3 % 4 < [0, 1, 3][n % 3]).collect();
        let fitted = Calibration::fit(&scores, &outcomes);
        assert!(matches!(fitted, Calibration::Isotonic { .. }) && fitted.is_valid());
        for (score, rate) in [(0.0, 0.0), (1.0, 0.25), (2.0, 0.75), (9.0, 0.75)] {
            assert!((fitted.apply(score) - rate).abs() < 0.01, "{score}");
        }
    }

    #[test]
    fn one_kind_of_outcome_gives_its_rate() {
        for outcome in [false, true] {
            let fitted = Calibration::fit(&[0.1, 0.9, 0.4], &[outcome; 3]);
            let expected = if outcome { 0.8 } else { 0.2 };
            assert!((fitted.apply(0.9) - expected).abs() < 1e-5);
        }
        let nothing = Calibration::fit(&[], &[]);
        assert!((nothing.apply(0.0) - 0.5).abs() < 1e-5);
    }

    proptest! {
        #[test]
        fn probabilities_rise_with_scores(
            rows in prop::collection::vec((-50f32..50.0, any::<bool>()), 1..300),
            mut at in prop::collection::vec(-1e6f32..1e6, 2..20),
            copies in prop::sample::select(vec![1usize, 20]),
        ) {
            let rows = rows.repeat(copies);
            let (scores, outcomes): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            let fitted = Calibration::fit(&scores, &outcomes);
            prop_assert!(fitted.is_valid());
            at.sort_by(f32::total_cmp);
            let probabilities: Vec<_> = at.iter().map(|x| fitted.apply(*x)).collect();
            prop_assert!(probabilities.is_sorted(), "{probabilities:?}");
            prop_assert!(probabilities.iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }
}
