//! What clients got of each instance, second by second: the truth that predictions are held against.

use std::collections::BTreeMap;

use serde::Serialize;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// Answered, after so many ms.
    Answered(f32),
    /// The connection was reset, closed or refused.
    Reset,
    /// Nothing came in time.
    TimedOut,
}

/// One second of one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Served {
    /// Share of requests answered.
    pub(crate) success: f32,
    /// Share reset or timed out.
    pub(crate) refused: f32,
    /// Median time to answer, ms.
    pub(crate) latency_ms: f32,
}

/// What ended when, by instance.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ends: BTreeMap<usize, BTreeMap<u64, Vec<End>>>,
}

/// The rule of the simulated corpus: so many bad seconds
const BAD_SECONDS: usize = 3;
/// of so many.
const WINDOW_S: u64 = 5;
/// Slow is what takes so many times as long as usual, and longer than this.
const SLOW_TIMES: f32 = 5.0;
const SLOW_MS: f32 = 20.0;
/// Fewer ends are no share: a second is then judged together with the one before.
const ENDS_MIN: usize = 5;

impl Tally {
    /// Counts an end.
    pub(crate) fn add(&mut self, instance: usize, second: u64, end: End) {
        let of = self.ends.entry(instance).or_default();
        of.entry(second).or_default().push(end);
    }

    /// How many requests of an instance ended in so many seconds before `second`.
    pub(crate) fn ends(&self, instance: usize, second: u64, seconds: u64) -> usize {
        let of = self.ends.get(&instance);
        let range = second.saturating_sub(seconds)..second;
        of.map_or(0, |of| of.range(range).map(|(_, ends)| ends.len()).sum())
    }

    /// Each second from `from` to `to`. A second in which nobody asked is like the one before.
    pub(crate) fn served(&self, instance: usize, from: u64, to: u64) -> Vec<Served> {
        let of = self.ends.get(&instance);
        let at = |second: u64| of.and_then(|of| of.get(&second)).map_or(&[][..], |e| e);
        let mut last = Served {
            success: 1.0,
            refused: 0.0,
            latency_ms: 0.0,
        };
        let mut all = Vec::new();
        for second in from..to {
            let mut ends = at(second).to_vec();
            if ends.len() < ENDS_MIN {
                ends.extend(at(second.wrapping_sub(1)));
            }
            if !ends.is_empty() {
                last = Served::of(&ends, last.latency_ms);
            }
            all.push(last);
        }
        all
    }

    /// Whether an instance has failed by the rule of the simulated corpus, three bad seconds of five, as far as can be told
    /// before its usual latency is known: since `from` at the earliest.
    pub(crate) fn has_failed(&self, instance: usize, from: u64, second: u64) -> bool {
        let begin = second.saturating_sub(WINDOW_S).max(from);
        let seconds = self.served(instance, begin, second);
        let slow_ms = self
            .usual_ms(instance, from)
            .map_or(SLOW_MS, |usual_ms| SLOW_MS.max(SLOW_TIMES * usual_ms));
        let bad = |s: &&Served| s.success < 0.95 || s.refused > 0.05 || s.latency_ms > slow_ms;
        seconds.iter().filter(bad).count() >= BAD_SECONDS
    }

    /// The median of all answers before a second.
    fn usual_ms(&self, instance: usize, second: u64) -> Option<f32> {
        let seconds = self.ends.get(&instance)?.range(..second);
        let ends = seconds.flat_map(|(_, ends)| ends);
        let mut answered: Vec<f32> = ends
            .filter_map(|end| match end {
                End::Answered(ms) => Some(*ms),
                _ => None,
            })
            .collect();
        answered.sort_by(f32::total_cmp);
        answered.get(answered.len() / 2).copied()
    }
}

impl Served {
    fn of(ends: &[End], latency_before_ms: f32) -> Self {
        let mut latencies: Vec<f32> = ends
            .iter()
            .filter_map(|end| match end {
                End::Answered(ms) => Some(*ms),
                _ => None,
            })
            .collect();
        latencies.sort_by(f32::total_cmp);
        let share = latencies.len() as f32 / ends.len() as f32;
        Self {
            success: share,
            refused: 1.0 - share,
            latency_ms: latencies
                .get(latencies.len() / 2)
                .copied()
                .unwrap_or(latency_before_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_worked_by_hand() {
        let mut tally = Tally::default();
        for ms in [1.0, 2.0, 3.0, 4.0, 50.0, 6.0, 7.0, 8.0, 9.0] {
            tally.add(1, 10, End::Answered(ms));
        }
        tally.add(1, 10, End::TimedOut);
        tally.add(1, 12, End::Reset);
        let served = tally.served(1, 9, 13);
        let ten = Served {
            success: 0.9,
            refused: 1.0 - 0.9,
            latency_ms: 6.0,
        };
        assert_eq!(served[0].success, 1.0);
        assert_eq!(served[1], ten);
        assert_eq!(served[2], ten, "nobody asked");
        assert_eq!(served[3].success, 0.0);
        assert!(tally.has_failed(1, 9, 13), "10, 11 and 12");
        assert!(!tally.has_failed(1, 11, 13), "two");
        assert!(!tally.has_failed(1, 9, 12));
        assert_eq!(tally.ends(1, 13, 3), 11);
    }
}
