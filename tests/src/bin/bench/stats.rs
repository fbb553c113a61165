//! What a row of figures says: median with spread, and ratios of pairs that were measured together.

use serde::{Deserialize, Serialize};

/// A distribution of repeated measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) quartile_1: f64,
    pub(crate) quartile_3: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// By nearest rank; all 0 of nothing.
    pub(crate) fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |per_mille| percentile(&sorted, per_mille);
        Self {
            median: at(500),
            min: sorted.first().copied().unwrap_or_default(),
            quartile_1: at(250),
            quartile_3: at(750),
            max: sorted.last().copied().unwrap_or_default(),
        }
    }

    /// Of the quotients of pairs.
    pub(crate) fn of_ratios(pairs: impl Iterator<Item = (f64, f64)>) -> Self {
        let quotients: Vec<f64> = pairs
            .filter(|(_, base)| *base != 0.0)
            .map(|(value, base)| value / base)
            .collect();
        Self::of(&quotients)
    }

    /// The middle half's width.
    pub(crate) fn interquartile_range(&self) -> f64 {
        self.quartile_3 - self.quartile_1
    }
}

/// By nearest rank, of a sorted row.
pub(crate) fn percentile(sorted: &[f64], per_mille: usize) -> f64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_made_of_members() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0, 100.0]);
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 3.0, 100.0));
        assert_eq!(spread.interquartile_range(), 2.0);
        assert_eq!(Spread::of(&[]), Spread::default());
    }

    #[test]
    fn ratios_are_of_pairs_and_never_of_nothing() {
        let ratio = Spread::of_ratios([(2.0, 1.0), (6.0, 2.0), (1.0, 0.0)].into_iter());
        assert_eq!((ratio.min, ratio.max), (2.0, 3.0));
    }
}
