//! What the dataplane's histograms of times say: from one look to the next, and as percentiles. Pure.

use mirror_common::histogram::{BUCKETS, Histogram, shortest};

/// Milliseconds of a step of the dataplane's clock ([`mirror_common::time::steps`]).
pub const STEP_MS: f64 = (1u64 << 14) as f64 / 1e6;

/// What a histogram has counted since another look at it; none if it went back.
#[must_use]
pub fn grown(before: &Histogram, now: &Histogram) -> Option<Histogram> {
    let mut grown = Histogram {
        sum: now.sum.checked_sub(before.sum)?,
        ..Histogram::default()
    };
    for (number, count) in grown.counts.iter_mut().enumerate() {
        *count = now.counts[number].checked_sub(before.counts[number])?;
    }
    Some(grown)
}

/// The time that a share of all times does not exceed, ms: within a bucket as if its times were spread evenly. None without times.
#[must_use]
pub fn percentile(histogram: &Histogram, share: f64) -> Option<f64> {
    let all = histogram.number();
    let mut wanted = all as f64 * share;
    // A share of nothing is the shortest time.
    let counted = (0..BUCKETS).filter(|&bucket| histogram.counts[bucket] > 0);
    for bucket in counted {
        let count = histogram.counts[bucket] as f64;
        if wanted <= count {
            let (from, to) = (shortest(bucket), shortest(bucket + 1));
            let steps = f64::from(from) + f64::from(to - from) * wanted / count;
            return Some(steps * STEP_MS);
        }
        wanted -= count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(times: &[(u32, u32)]) -> Histogram {
        let mut histogram = Histogram::default();
        for &(steps, times) in times {
            (0..times).for_each(|_| histogram.count(steps));
        }
        histogram
    }

    #[track_caller]
    fn check(times: &[(u32, u32)], share: f64, expected_steps: Option<f64>) {
        let found = percentile(&counted(times), share);
        let expected = expected_steps.map(|steps| steps * 0.016_384);
        match (found, expected) {
            (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-9, "{found}"),
            (found, expected) => assert_eq!(found, expected),
        }
    }

    #[test]
    fn percentiles_worked_by_hand() {
        check(&[], 0.5, None);
        // All in the bucket of step 3, which ends where 4 begins.
        check(&[(3, 10)], 0.5, Some(3.5));
        check(&[(3, 10)], 1.0, Some(4.0));
        // 64 to 79 steps are one bucket: half of its ten are below its middle, and with ninety before them in the bucket of 16
        // to 19 the 95th of a hundred is there too.
        check(&[(64, 10)], 0.5, Some(72.0));
        check(&[(16, 90), (64, 10)], 0.95, Some(72.0));
        check(&[(16, 90), (64, 10)], 0.45, Some(18.0));
        // The edge belongs to the lower one.
        check(&[(16, 90), (64, 10)], 0.9, Some(20.0));
        // What is in the last bucket is between 1.75 and 2 s of 2^30 ns.
        check(&[(1 << 30, 1)], 1.0, Some(131_072.0));
    }

    #[test]
    fn what_was_counted_between_two_looks() {
        let before = counted(&[(3, 2), (70, 1)]);
        let now = counted(&[(3, 2), (70, 3), (900, 1)]);
        assert_eq!(grown(&before, &now), Some(counted(&[(70, 2), (900, 1)])));
        assert_eq!(grown(&now, &before), None, "an instance that came again");
    }
}
