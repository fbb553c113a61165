//! Times, counted in buckets that are the wider the longer the times are: four to each doubling. The dataplane counts, user
//! space reads.

use crate::{assert_size, pod};

/// Buckets: 0 to 2 s, as [`crate::time::steps`] count.
pub const BUCKETS: usize = 64;
/// Each doubling is divided in 2 to the power of this.
const DIVISION: u32 = 2;
/// One beyond the longest time that has a bucket of its own; all that is longer is in the last.
const END: u32 = 1 << (BUCKETS as u32 / (1 << DIVISION) + DIVISION - 1);

/// Counts of times by how long they were. One CPU writes, so that no count is lost.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// All times added up, [`crate::time::steps`].
    pub sum: u64,
    /// By [`bucket`].
    pub counts: [u64; BUCKETS],
}
assert_size!(Histogram, 8 + 8 * 64);

impl Default for Histogram {
    fn default() -> Self {
        Self {
            sum: 0,
            counts: [0; BUCKETS],
        }
    }
}

impl Histogram {
    /// Counts a time.
    #[inline(always)]
    pub fn count(&mut self, steps: u32) {
        self.sum += u64::from(steps);
        self.counts[bucket(steps)] += 1;
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Self) {
        self.sum += other.sum;
        for (count, of_other) in self.counts.iter_mut().zip(&other.counts) {
            *count += of_other;
        }
    }

    /// How many times it has counted.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The bucket of a time in [`crate::time::steps`].
#[inline(always)]
pub const fn bucket(steps: u32) -> usize {
    let steps = if steps < END { steps } else { END - 1 };
    // The shortest times have a bucket for each step: for them the first doubling is not divided.
    let doublings = (steps >> DIVISION | 1).ilog2();
    let within = steps >> doublings;
    // The first term is below 60, the second below 8 and their sum below 64; the mask says so to the verifier.
    ((doublings << DIVISION) + within) as usize & (BUCKETS - 1)
}

/// The shortest time of a bucket, [`crate::time::steps`]; that of the one after the last is where the last would end.
pub const fn shortest(bucket: usize) -> u32 {
    let bucket = bucket as u32;
    let divided = 1 << DIVISION;
    if bucket < 2 * divided {
        return bucket;
    }
    let doublings = (bucket >> DIVISION) - 1;
    (bucket - (doublings << DIVISION)) << doublings
}

pod!(Histogram);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_on_each_other_without_a_gap() {
        for number in 0..BUCKETS {
            let (from, to) = (shortest(number), shortest(number + 1));
            assert!(from < to);
            assert_eq!(bucket(from), number);
            assert_eq!(bucket(to - 1), number);
            // No wider than a quarter of what they hold.
            assert!(to - from <= (from / 4).max(1), "{number}");
        }
        assert_eq!(shortest(BUCKETS), END);
    }

    #[test]
    fn the_last_bucket_has_no_end() {
        for steps in [END - 1, END, u32::MAX] {
            assert_eq!(bucket(steps), BUCKETS - 1);
        }
        // Two seconds of 2^30 ns.
        assert_eq!(END, crate::time::steps(2 << 30));
    }

    #[test]
    fn what_is_counted_is_in_its_bucket_and_in_the_sum() {
        let mut histogram = Histogram::default();
        for steps in [0, 3, 4, 9, 9, 1_000_000] {
            histogram.count(steps);
        }
        let found = histogram.counts.iter().enumerate();
        let found: Vec<_> = found.filter(|(_, count)| **count > 0).collect();
        assert_eq!(found, [(0, &1), (3, &1), (4, &1), (8, &2), (63, &1)]);
        assert_eq!(histogram.sum, 1_000_025);
    }
}
