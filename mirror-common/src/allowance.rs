//! How many new flows of a VNI get mirrors: a bucket of tokens, so that a flood of SYNs is not multiplied by the number of
//! replicas.
//!
//! The bucket is one word, the time at which it is full again: a token puts that off by as long as one takes to come. All
//! CPUs share it and exchange it atomically, without a lock. A bucket for each CPU would take no exchange, but then a
//! limit would mean something else on each machine and with each card's way to spread flows over queues: one queue would get
//! a part of the limit, or all queues together a multiple. Nor does sharing cost anything under a flood: beyond
//! the limit the word is only read, and it is written as often as the limit says.

use crate::{assert_size, pod};

/// The bucket holds what comes in so long: whoever has a limit of so many a second may use as many at once.
pub const DEPTH_NS: u64 = 1_000_000_000;
/// The highest limit: a token in a microsecond.
pub const PER_S_MAX: u32 = 1_000_000;

/// What of a VNI's new flows may be mirrored: one entry for each VNI's number.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Allowance {
    /// When the bucket is full again, `CLOCK_MONOTONIC`, ns. Written by the dataplane.
    pub full_ns: u64,
    /// How long a token takes to come, ns; 0: there is no limit. Written by the agent.
    pub every_ns: u32,
    /// Zero.
    pub pad: u32,
}
assert_size!(Allowance, 16);

impl Allowance {
    /// A full bucket with a limit; `None`: without one.
    pub const fn new(per_s: Option<u32>) -> Self {
        let every_ns = match per_s {
            Some(per_s) => (DEPTH_NS as u32).div_ceil(if per_s == 0 { 1 } else { per_s }),
            None => 0,
        };
        Self {
            full_ns: 0,
            every_ns,
            pad: 0,
        }
    }
}

/// Takes a token: the time at which the bucket is full again then; `None`: it is empty.
#[inline(always)]
pub const fn take(full_ns: u64, every_ns: u32, now_ns: u64) -> Option<u64> {
    let from_ns = if full_ns > now_ns { full_ns } else { now_ns };
    if from_ns - now_ns >= DEPTH_NS {
        return None;
    }
    Some(from_ns + every_ns as u64)
}

pod!(Allowance);

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Asks for tokens at these times; how many there were.
    fn taken(allowance: &mut Allowance, times_ns: impl IntoIterator<Item = u64>) -> u64 {
        let mut taken = 0;
        for now_ns in times_ns {
            if let Some(full_ns) = take(allowance.full_ns, allowance.every_ns, now_ns) {
                allowance.full_ns = full_ns;
                taken += 1;
            }
        }
        taken
    }

    #[test]
    fn a_second_s_worth_at_once_and_then_so_many_a_second() {
        const START_NS: u64 = 77 * DEPTH_NS;
        for per_s in [1, 3, 7, 200, 10_000, 999_999, PER_S_MAX] {
            let mut allowance = Allowance::new(Some(per_s));
            let per_s = u64::from(per_s);
            let at_once = taken(&mut allowance, (0..2 * per_s).map(|_| START_NS));
            // A token takes whole nanoseconds, rounded up.
            assert!(
                at_once <= per_s && at_once >= per_s - per_s / 1_000,
                "{per_s}: {at_once}"
            );
            let step_ns = DEPTH_NS / (4 * per_s);
            let later = taken(
                &mut allowance,
                (1..=12 * per_s).map(|n| START_NS + n * step_ns),
            );
            assert!(
                later <= 3 * per_s && later + 1 >= 3 * per_s - per_s / 300,
                "{per_s}: {later}"
            );
        }
    }

    #[test]
    fn a_limit_that_was_lifted_or_raised_counts_from_the_next_second_on() {
        let mut allowance = Allowance::new(Some(1));
        assert_eq!(taken(&mut allowance, [5; 9]), 1);
        allowance.every_ns = Allowance::new(Some(1_000)).every_ns;
        assert_eq!(taken(&mut allowance, [DEPTH_NS + 5; 2_000]), 1_000);
        assert_eq!(Allowance::new(None).every_ns, 0);
    }

    proptest! {
        /// Whoever asks when, and whatever the bucket said before: within any time no more than that time's worth and one
        /// bucket's.
        #[test]
        fn never_more_than_the_limit(
            per_s in 1..=PER_S_MAX,
            start_ns in 0..u64::MAX / 4,
            pauses_ns in vec(prop_oneof![Just(0_u64), 0..2_000_u64, 0..DEPTH_NS / 3], 1..400),
        ) {
            let mut allowance = Allowance::new(Some(per_s));
            let mut now_ns = start_ns;
            let mut granted: Vec<u64> = Vec::new();
            for pause_ns in pauses_ns {
                now_ns += pause_ns;
                if taken(&mut allowance, [now_ns]) > 0 {
                    granted.push(now_ns);
                }
                prop_assert!(allowance.full_ns <= now_ns + DEPTH_NS + u64::from(allowance.every_ns));
            }
            for (number, &from_ns) in granted.iter().enumerate() {
                let worth = |ns: u64| (u128::from(ns) * u128::from(per_s)).div_ceil(u128::from(DEPTH_NS));
                for (more, &to_ns) in granted[number..].iter().enumerate() {
                    prop_assert!(more as u128 <= worth(to_ns - from_ns + DEPTH_NS));
                }
            }
            // And whoever pauses for a second has a full one.
            if let Some(&last_ns) = granted.last() {
                let full_ns = last_ns + 2 * DEPTH_NS + 1;
                prop_assert!(take(allowance.full_ns, allowance.every_ns, full_ns).is_some());
            }
        }
    }
}
