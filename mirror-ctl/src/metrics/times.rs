//! A histogram whose counts are the dataplane's: taken over as they are when they are asked for.

use std::sync::{Arc, Mutex, PoisonError};

use mirror_common::histogram::{BUCKETS, Histogram, shortest};
use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// The dataplane's buckets that are one here: a doubling, so that an instance has 16 and not 64.
const TOGETHER: usize = 4;

/// Times as the dataplane has counted them.
#[derive(Clone, Debug, Default)]
pub struct Times(Arc<Mutex<Histogram>>);

impl Times {
    /// Takes over what was counted so far.
    pub(super) fn set(&self, histogram: &Histogram) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = *histogram;
    }
}

/// Of steps of 2^14 ns.
fn seconds(steps: u64) -> f64 {
    steps as f64 * f64::from(1 << 14) / 1e9
}

/// Upper ends in seconds, and how many times are between them and the ones before. A time is shorter than the upper end of its bucket.
fn buckets(histogram: &Histogram) -> Vec<(f64, u64)> {
    let parts = histogram.counts.chunks(TOGETHER).enumerate();
    let end_s = |part: usize| match (part + 1) * TOGETHER {
        BUCKETS => f64::INFINITY,
        end => seconds(shortest(end).into()),
    };
    parts
        .map(|(part, counts)| (end_s(part), counts.iter().sum()))
        .collect()
}

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let histogram = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum_s = seconds(histogram.sum);
        let buckets = buckets(&histogram);
        encoder.encode_histogram::<NoLabelSet>(sum_s, histogram.number(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Times {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_doublings() {
        let mut histogram = Histogram::default();
        // Steps of 16.384 µs: the first bucket ends at 4, the second at 8, the last has no end.
        for steps in [0, 3, 4, 7, 7, 8, 1 << 20] {
            histogram.count(steps);
        }
        let found = buckets(&histogram);
        assert_eq!(found.len(), 16);
        let counts: Vec<u64> = found.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts[..3], [2, 3, 1]);
        assert_eq!((counts[15], counts.iter().sum::<u64>()), (1, 7));
        assert!((found[0].0 - 65.536e-6).abs() < 1e-12);
        assert!((found[14].0 - 1.073_741_824).abs() < 1e-9);
        assert_eq!(found[15].0, f64::INFINITY);
    }
}
