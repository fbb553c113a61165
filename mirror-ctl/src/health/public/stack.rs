//! How much each layer counts: a logistic regression whose weights have a prior and are never negative.
//!
//! With a handful of servers and a few dozen failures, a free fit follows whichever server it happens to see; the prior
//! is what is believed before (layer A counts as it is), and data moves it where data is plenty. That no weight is
//! negative is what keeps layer A from being beaten down.

use crate::health::predict::calibrate::sigmoid;

/// What is weighed: evidence, season, what the trees say.
pub const INPUTS: usize = 3;
/// Sweeps of coordinate descent; it settles in about thirty.
const SWEEPS: usize = 60;

/// What is believed before any data, mean and standard deviation; the intercept last.
#[derive(Clone, Copy, Debug)]
pub struct Prior {
    /// Means.
    pub mean: [f64; INPUTS + 1],
    /// Standard deviations.
    pub deviation: [f64; INPUTS + 1],
    /// How much it counts, in servers.
    pub strength: f64,
}

/// Weights of the inputs, and the intercept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stack(pub [f64; INPUTS + 1]);

impl Stack {
    /// The most probable weights given rows, what came of them and how much each counts.
    #[must_use]
    pub fn fit(rows: &[[f32; INPUTS]], outcomes: &[bool], weights: &[f32], prior: &Prior) -> Self {
        let mut b = prior.mean;
        let mut sums: Vec<f64> = rows.iter().map(|row| Self(b).sum(row)).collect();
        for _ in 0..SWEEPS {
            let mut moved = 0.0f64;
            let beliefs = prior.mean.iter().zip(&prior.deviation);
            for (input, (mean, deviation)) in beliefs.enumerate() {
                let precision = prior.strength / deviation.powi(2);
                let mut gradient = precision * (b[input] - mean);
                let mut curvature = precision;
                for (n, row) in rows.iter().enumerate() {
                    let x = value(row, input);
                    let p = 1.0 / (1.0 + (-sums[n]).exp());
                    let weight = f64::from(weights[n]);
                    gradient += weight * (p - f64::from(u8::from(outcomes[n]))) * x;
                    curvature += weight * (p * (1.0 - p)).max(1e-4) * x * x;
                }
                let mut to = b[input] - (gradient / curvature).clamp(-1.0, 1.0);
                if input < INPUTS {
                    to = to.max(0.0);
                }
                let step = to - b[input];
                b[input] = to;
                moved = moved.max(step.abs());
                for (sum, row) in sums.iter_mut().zip(rows) {
                    *sum += step * value(row, input);
                }
            }
            if moved < 1e-5 {
                break;
            }
        }
        Self(b)
    }

    /// Log-odds of a row.
    #[must_use]
    pub fn sum(&self, row: &[f32; INPUTS]) -> f64 {
        (0..=INPUTS)
            .map(|input| self.0[input] * value(row, input))
            .sum()
    }

    /// The probability of a row, `shift` added to its log-odds.
    #[must_use]
    pub fn chance(&self, row: &[f32; INPUTS], shift: f32) -> f32 {
        sigmoid(self.sum(row) as f32 + shift)
    }
}

fn value(row: &[f32; INPUTS], input: usize) -> f64 {
    row.get(input).map_or(1.0, |value| f64::from(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIOR: Prior = Prior {
        mean: [1.0, 0.5, 0.5, -2.0],
        deviation: [0.3, 0.3, 0.3, 0.3],
        strength: 0.01,
    };

    #[test]
    fn without_data_the_prior_stands() {
        assert_eq!(Stack::fit(&[], &[], &[], &PRIOR), Stack(PRIOR.mean));
    }

    #[test]
    fn data_moves_it_and_nothing_gets_a_negative_weight() {
        // The first input tells, the second tells the contrary, the third nothing.
        let (mut rows, mut outcomes) = (Vec::new(), Vec::new());
        let mut chance = fastrand::Rng::with_seed(3);
        for n in 0..2_000 {
            let outcome = n % 5 == 0;
            let sign = if outcome { 1.0 } else { -1.0 };
            let mut noise = || chance.f32() * 4.0 - 2.0;
            rows.push([sign + noise(), -sign + noise(), noise()]);
            outcomes.push(outcome);
        }
        let Stack(b) = Stack::fit(&rows, &outcomes, &vec![0.01; 2_000], &PRIOR);
        assert!(b[0] > 1.0 && b[1] == 0.0 && b[2] < 0.3, "{b:?}");
    }
}
