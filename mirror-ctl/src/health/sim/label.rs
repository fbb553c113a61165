//! When an instance counts as failing, by what its clients get.

/// What clients got in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Served {
    /// Share of requests answered.
    pub success: f32,
    /// Share of connections reset or not answered at all.
    pub refused: f32,
    /// Median time to answer, ms.
    pub latency_ms: f32,
}

/// Fewer answers are bad.
const SUCCESS_MIN: f32 = 0.95;
/// More refusals are bad.
const REFUSED_MAX: f32 = 0.05;
/// So many times its usual latency is bad ...
const LATENCY_TIMES: f32 = 5.0;
/// ... if it is more than this.
const LATENCY_FLOOR_MS: f32 = 20.0;
/// Bad seconds of a window that make a failure.
pub const BAD_SECONDS: usize = 3;
/// Seconds of that window.
pub const WINDOW_S: usize = 5;
/// After a failure an instance is its old self again after so many good seconds.
pub const RECOVERY_S: usize = 30;

/// Whether a second is bad.
#[must_use]
pub fn is_bad(served: &Served, usual_latency_ms: f32) -> bool {
    let slow = served.latency_ms > LATENCY_TIMES * usual_latency_ms;
    served.success < SUCCESS_MIN
        || served.refused > REFUSED_MAX
        || (slow && served.latency_ms > LATENCY_FLOOR_MS)
}

/// By second: whether the instance is failing, or has not recovered from it; and the seconds in which it began to.
#[must_use]
pub fn failing(served: &[Served], usual_latency_ms: f32) -> (Vec<bool>, Vec<usize>) {
    let bad = served.iter().map(|s| is_bad(s, usual_latency_ms));
    let bad: Vec<bool> = bad.collect();
    let (mut failing, mut onsets) = (vec![false; served.len()], Vec::new());
    let mut good_since = RECOVERY_S;
    for second in 0..served.len() {
        if good_since < RECOVERY_S {
            failing[second] = true;
            good_since = if bad[second] { 0 } else { good_since + 1 };
            continue;
        }
        let window = &bad[second..(second + WINDOW_S).min(bad.len())];
        // Dated to its first bad second, which the later ones make one.
        if bad[second] && window.iter().filter(|bad| **bad).count() >= BAD_SECONDS {
            onsets.push(second);
            failing[second] = true;
            good_since = 0;
        }
    }
    (failing, onsets)
}

/// Seconds until the next onset; none where there is none.
#[must_use]
pub fn seconds_to(onsets: &[usize], seconds: usize) -> Vec<Option<u32>> {
    let mut next = onsets.iter().copied().peekable();
    (0..seconds)
        .map(|second| {
            while next.peek().is_some_and(|onset| *onset <= second) {
                next.next();
            }
            next.peek().map(|onset| (onset - second) as u32)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Served = Served {
        success: 1.0,
        refused: 0.0,
        latency_ms: 10.0,
    };

    #[track_caller]
    fn check(bad: Served, at: &[usize], onsets: &[usize]) {
        let mut served = vec![WELL; 100];
        for second in at {
            served[*second] = bad;
        }
        assert_eq!(failing(&served, 10.0).1, onsets);
    }

    #[test]
    fn three_bad_seconds_of_five() {
        let lossy = Served {
            success: 0.9,
            ..WELL
        };
        check(lossy, &[10, 12, 14], &[10]);
        check(lossy, &[10, 12, 15], &[]);
        check(lossy, &[10, 11, 12, 20, 30, 31, 32], &[10]);
        check(lossy, &[10, 11, 12, 60, 61, 62], &[10, 60]);
    }

    #[test]
    fn what_is_bad() {
        let refused = Served {
            refused: 0.06,
            ..WELL
        };
        check(refused, &[10, 11, 12], &[10]);
        let slow = Served {
            latency_ms: 51.0,
            ..WELL
        };
        check(slow, &[10, 11, 12], &[10]);
        let quick = Served {
            latency_ms: 19.0,
            ..WELL
        };
        let mut served = vec![WELL; 20];
        served[5..9].fill(quick);
        assert!(failing(&served, 2.0).1.is_empty(), "below the floor");
    }

    #[test]
    fn time_to_the_next() {
        let expected = [Some(2), Some(1), Some(2), Some(1), None];
        assert_eq!(seconds_to(&[2, 4], 5), expected);
    }
}
