//! When a recorded instance began to fail. The same rule as for simulated ones (three bad seconds in five, see
//! [`label`]), on what was seen of it: what the agent concluded, the refusals and the latency that were measured. Pure.

use std::collections::VecDeque;

use super::fate::{Fate, Seen};
use crate::health::{
    predict::signal::{Reading, Signal},
    sim::label::{self, Served},
};

/// What was seen of an instance in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Second {
    /// What was measured; nothing present: its source did not answer.
    pub reading: Reading,
    /// How it fared.
    pub seen: Seen,
}

/// What became of a second, known some seconds later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Whether it was failing, or had not recovered.
    pub failing: bool,
    /// Whether it began to fail then.
    pub onset: bool,
    /// Whether nobody knows how it would have fared.
    pub uncertain: bool,
}

/// The same rule as [`onsets`] as seconds come in: of each it is known [`label::WINDOW_S`] − 1 seconds later.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    /// Whether a second was bad, and whether uncertain.
    lately: VecDeque<(bool, bool)>,
    failed_s: usize,
    usual_ms: Option<f32>,
    /// Good seconds since the last bad one of a failure, while it is not over.
    recovering_s: Option<usize>,
}

impl Tracker {
    /// Takes in a second; what became of an earlier one.
    pub fn push(&mut self, second: &Second) -> Option<Past> {
        self.failed_s = match second.seen.fate {
            Fate::Failed => FAILED_S,
            _ => self.failed_s.saturating_sub(1),
        };
        let usual_ms = self.usual_ms.unwrap_or(f32::MAX);
        let bad = self.failed_s > 0 || label::is_bad(&served(second), usual_ms);
        if second.seen.fate == Fate::Serving
            && let Some(now_ms) = second.reading.get(Signal::AnswerP50)
        {
            self.usual_ms = Some(towards(self.usual_ms, now_ms));
        }
        let uncertain = second.seen.fate == Fate::Uncertain;
        self.lately.push_back((bad, uncertain));
        if self.lately.len() < label::WINDOW_S {
            return None;
        }
        let all_bad = self.lately.iter().filter(|(bad, _)| *bad).count();
        let (bad, uncertain) = self.lately.pop_front()?;
        let is_over = self.recovering_s.is_none_or(|s| s >= label::RECOVERY_S);
        let onset = is_over && bad && all_bad >= label::BAD_SECONDS;
        let failing = onset || !is_over;
        self.recovering_s = match self.recovering_s {
            _ if onset => Some(0),
            Some(_) if is_over => None,
            Some(_) if bad => Some(0),
            Some(s) => Some(s + 1),
            None => None,
        };
        Some(Past {
            failing,
            onset,
            uncertain,
        })
    }
}

/// A running median: a step of a hundredth towards what is measured, whatever its distance.
fn towards(usual_ms: Option<f32>, now_ms: f32) -> f32 {
    const STEP: f32 = 1.01;
    match usual_ms {
        None => now_ms,
        Some(usual) if now_ms > usual * STEP => usual.max(0.01) * STEP,
        Some(usual) if now_ms * STEP < usual => usual / STEP,
        Some(_) => now_ms,
    }
}

/// One that the agent took for dead has failed, however soon it was back.
const FAILED_S: usize = 3;

/// By second whether it is failing or has not recovered from it, and the seconds in which it began to.
#[must_use]
pub fn onsets(seconds: &[Second]) -> (Vec<bool>, Vec<usize>) {
    let usual_ms = usual_latency_ms(seconds);
    let mut served: Vec<Served> = seconds.iter().map(served).collect();
    for (second, _) in seconds
        .iter()
        .enumerate()
        .filter(|(_, s)| s.seen.fate == Fate::Failed)
    {
        let end = (second + FAILED_S).min(served.len());
        served[second..end].iter_mut().for_each(|s| s.success = 0.0);
    }
    label::failing(&served, usual_ms)
}

/// What its clients got, as far as that was seen.
fn served(second: &Second) -> Served {
    let of = |signal| second.reading.get(signal).unwrap_or(0.0);
    Served {
        success: match second.seen.fate {
            Fate::Serving | Fate::Uncertain => 1.0,
            Fate::Suspect | Fate::Failed => 0.0,
        },
        refused: of(Signal::Resets) + of(Signal::SynTimeouts),
        latency_ms: of(Signal::AnswerP50),
    }
}

/// The median of what was measured while it served.
fn usual_latency_ms(seconds: &[Second]) -> f32 {
    let serving = seconds.iter().filter(|s| s.seen.fate == Fate::Serving);
    let mut measured: Vec<f32> = serving
        .filter_map(|s| s.reading.get(Signal::AnswerP50))
        .collect();
    measured.sort_by(f32::total_cmp);
    // Where it was never measured no second is slow.
    measured
        .get(measured.len() / 2)
        .copied()
        .unwrap_or(f32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::health::Cause;

    const SECONDS: usize = 60;

    fn seen(fate: Fate) -> impl Fn(&mut Second) {
        move |second| {
            second.seen = Seen {
                fate,
                cause: Cause::Silent,
            };
        }
    }

    fn measured(signal: Signal, value: f32) -> impl Fn(&mut Second) {
        move |second| second.reading.set(signal, value)
    }

    #[track_caller]
    fn check(at: &[usize], change: impl Fn(&mut Second), expected: &[usize]) {
        let mut seconds = vec![Second::default(); SECONDS];
        for second in &mut seconds {
            second.reading.set(Signal::AnswerP50, 8.0);
        }
        at.iter().for_each(|at| change(&mut seconds[*at]));
        assert_eq!(onsets(&seconds).1, expected);
    }

    #[test]
    fn what_counts_as_failing_worked_by_hand() {
        check(&[], seen(Fate::Serving), &[]);
        // Taken for dead: at once, and again only after it has been well for 30 s.
        check(&[10], seen(Fate::Failed), &[10]);
        check(&[10, 20, 55], seen(Fate::Failed), &[10, 55]);
        // A suspicion that passes is none; three seconds of it are.
        check(&[10, 11], seen(Fate::Suspect), &[]);
        check(&[10, 11, 14], seen(Fate::Suspect), &[10]);
        check(&[10, 11, 12, 13], seen(Fate::Uncertain), &[]);
        // Refusals of a twentieth, of either kind.
        check(&[10, 11, 12], measured(Signal::Resets, 0.06), &[10]);
        check(&[10, 11, 12], measured(Signal::SynTimeouts, 0.04), &[]);
        // Five times its usual latency and above 20 ms.
        check(&[10, 11, 12], measured(Signal::AnswerP50, 41.0), &[10]);
        check(&[10, 11, 12], measured(Signal::AnswerP50, 39.0), &[]);
    }

    proptest! {
        #[test]
        fn what_comes_in_by_the_second_is_judged_the_same(
            fates in prop::collection::vec(prop_oneof![
                8 => Just(Fate::Serving), 1 => Just(Fate::Uncertain), 2 => Just(Fate::Suspect), 1 => Just(Fate::Failed),
            ], 40..300),
        ) {
            let seconds: Vec<Second> = fates
                .iter()
                .map(|fate| {
                    let mut second = Second::default();
                    seen(*fate)(&mut second);
                    second
                })
                .collect();
            let (failing, onsets) = onsets(&seconds);
            let mut tracker = Tracker::default();
            let past: Vec<Past> = seconds.iter().filter_map(|s| tracker.push(s)).collect();
            prop_assert_eq!(past.len(), seconds.len() - 4);
            for (at, past) in past.iter().enumerate() {
                prop_assert_eq!((at, past.failing), (at, failing[at]));
                prop_assert_eq!(past.onset, onsets.contains(&at));
                prop_assert_eq!(past.uncertain, fates[at] == Fate::Uncertain);
            }
        }
    }

    #[test]
    fn a_running_median_finds_what_is_usual() {
        let mut usual = None;
        for at in 0..600 {
            usual = Some(towards(usual, if at % 10 == 0 { 400.0 } else { 8.0 }));
        }
        assert!(
            usual.is_some_and(|ms| (7.9..9.0).contains(&ms)),
            "{usual:?}"
        );
    }

    #[test]
    fn without_latencies_nothing_is_slow() {
        assert_eq!(onsets(&[Second::default(); 20]).1, [0usize; 0]);
    }
}
