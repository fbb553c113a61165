//! Layer A: what is asked of an instance without any training. Robust z-scores of its symptoms, against its own past
//! and against its peers, a φ-accrual detector on the answers it owes, and when its memory will be used up at the rate
//! at which it fills. Always on; layer B may add to it, never take from it.

use super::{
    calibrate::sigmoid,
    features::History,
    peers::Peers,
    signal::{Reading, Signal},
};

/// Deviations at which the risk is one half.
const EVIDENCE_HALF: f32 = 9.0;
/// Deviations over which it rises from .27 to .73.
const EVIDENCE_SLOPE: f32 = 1.5;
/// φ at which the risk is one half: a wrong suspicion in 10^8 answers.
const PHI_HALF: f32 = 8.0;
/// What a symptom can add at most: one absurd value is not a verdict.
const EVIDENCE_MAX: f32 = 15.0;

/// How far the instance is from well, in deviations: the mean of its worst symptom and its third worst, so that one
/// odd signal weighs half of three that agree.
///
/// Where there are peers the smaller of both distances counts: what is usual for it is no symptom, nor is what all share.
#[must_use]
pub fn evidence(history: &History, peers: &Peers) -> f32 {
    evidence_without(history, peers, None)
}

/// The same as if one signal were as usual.
pub(super) fn evidence_without(history: &History, peers: &Peers, but: Option<Signal>) -> f32 {
    let mut worst = [0.0f32; 3];
    for signal in Signal::ALL.into_iter().filter(|s| s.is_symptom()) {
        if !history.is_settled(signal) || Some(signal) == but {
            continue;
        }
        let level = unlike(history, peers, signal, history.level(signal));
        let level = level.clamp(0.0, EVIDENCE_MAX);
        if level > worst[2] {
            worst[2] = level;
            worst.sort_by(|a, b| b.total_cmp(a));
        }
    }
    (worst[0] + worst[2]) / 2.0
}

/// How far a signal is from well, in deviations: from its own past (`own`) and, where there are peers, from theirs.
fn unlike(history: &History, peers: &Peers, signal: Signal, own: f32) -> f32 {
    let number = signal as usize;
    match peers.has(number) {
        true => own.min(peers.compare(number, history.smoothed(signal))),
        false => own,
    }
}

/// The risk that evidence and φ stand for, 0 to 1.
#[must_use]
pub fn risk(evidence: f32, phi: f32) -> f32 {
    let drifted = sigmoid((evidence - EVIDENCE_HALF) / EVIDENCE_SLOPE);
    drifted.max(sigmoid(phi - PHI_HALF))
}

/// What is a risk alone if it lasts, and from how many deviations: what clients feel, and connections that pile up until
/// nobody is left to serve them.
const LASTING: [(Signal, f32); 2] = [(Signal::AnswerP99, 20.0), (Signal::Established, 10.0)];
/// Share of those over which the risk rises from about a quarter to three quarters of [`LASTING_RISK`].
const LASTING_SLOPE: f32 = 0.15;
/// The risk that it can come to: what agrees with nothing else may be all that there will be.
const LASTING_RISK: f32 = 0.5;

/// The risk by one symptom that lasts, against its own past and against its peers.
#[must_use]
pub fn lasting_risk(history: &History, peers: &Peers, but: Option<Signal>) -> f32 {
    let risk = |(signal, middle): (Signal, f32)| {
        let level = unlike(history, peers, signal, history.lasting(signal));
        LASTING_RISK * sigmoid((level / middle - 1.0) / LASTING_SLOPE)
    };
    let heard = LASTING
        .into_iter()
        .filter(|(signal, _)| Some(*signal) != but && history.is_settled(*signal));
    heard.map(risk).fold(0.0, f32::max)
}

/// Time until memory is used up at which the risk is one half, s.
const DEPLETION_HALF_S: f32 = 12.0;
/// Time over which it rises from .27 to .73.
const DEPLETION_SLOPE_S: f32 = 2.5;
/// Below this share a rise is not yet on its way to the end: what has just begun fills its memory as fast as a leak does.
const DEPLETION_SHARE_MIN: f32 = 0.5;
/// It must have left its usual level by so many deviations.
const DEPLETION_LEVEL_MIN: f32 = 5.0;

/// In how many seconds the instance's memory is used up if it goes on to fill as it does; none if it does not fill.
/// `tick_s`: seconds from tick to tick.
///
/// The one resource whose end kills at once, and whose way there is a line: a detector of what is unusual sees one
/// symptom only, until it is too late.
#[must_use]
pub fn depletion_s(history: &History, tick_s: f32) -> Option<f32> {
    let (share, climb) = history.climb(Signal::Memory)?;
    let grows = history.level(Signal::Memory) >= DEPLETION_LEVEL_MIN && climb > 0.0;
    (grows && share >= DEPLETION_SHARE_MIN).then(|| (1.0 - share).max(0.0) / climb * tick_s)
}

/// The risk that an end in so many seconds stands for.
#[must_use]
pub fn depletion_risk(depletion_s: Option<f32>) -> f32 {
    depletion_s.map_or(0.0, |end_s| {
        sigmoid((DEPLETION_HALF_S - end_s) / DEPLETION_SLOPE_S)
    })
}

/// The φ-accrual failure detector (Hayashibara, Défago, Yared, Katayama 2004): suspicion in place of a timeout, by
/// how unusual the present silence is among the past ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phi {
    mean: f32,
    variance: f32,
    seen: u32,
    last: f32,
}

/// The least standard deviation of a silence, ms: regular answers must not make a late one a death.
const DEVIATION_MIN_MS: f32 = 50.0;
/// Silences remembered, about.
const MEMORY: f32 = 200.0;
/// So many must have ended before a verdict.
const SEEN_MIN: u32 = 10;
/// Beyond this the probability is no longer a float's to tell.
const PHI_MAX: f32 = 30.0;

impl Phi {
    /// Takes in the time for which an answer has been owed; φ now. Missing: nothing is owed that we know of.
    pub fn push(&mut self, reading: &Reading) -> f32 {
        let Some(silence) = reading.get(Signal::Silence) else {
            return 0.0;
        };
        if silence < self.last || silence == 0.0 {
            self.note(self.last);
        }
        self.last = silence;
        self.phi(silence)
    }

    /// A silence that ended.
    fn note(&mut self, silence: f32) {
        self.seen = self.seen.saturating_add(1);
        let rate = 1.0 / MEMORY.min(self.seen as f32);
        let off = silence - self.mean;
        self.mean += off * rate;
        self.variance += (off * off - self.variance) * rate;
    }

    fn phi(&self, silence: f32) -> f32 {
        if self.seen < SEEN_MIN {
            return 0.0;
        }
        let deviation = self.variance.sqrt().max(DEVIATION_MIN_MS);
        let y = (silence - self.mean) / deviation;
        // The normal distribution's tail by its logistic approximation, as in Akka's detector.
        let exponent = y * (1.5976 + 0.070_566 * y * y);
        let phi = (1.0 + exponent.min(80.0).exp()).log10();
        if y <= 0.0 { 0.0 } else { phi.min(PHI_MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_symptom_that_lasts_is_half_a_risk_and_one_that_passes_none() {
        // Answers of a millisecond, then of 61: 40 deviations of 1.5 ms.
        let mut history = History::default();
        let mut risk_after = |values: &[f32]| {
            for value in values {
                history.push(&reading(Signal::AnswerP99, *value));
            }
            lasting_risk(&history, &Peers::NONE, None)
        };
        assert!(risk_after(&[1.0; 60]) < 0.01);
        assert!(risk_after(&[61.0; 3]) < 0.01, "a hiccup");
        assert!(risk_after(&[1.0; 30]) < 0.01);
        assert!((risk_after(&[61.0; 30]) - 0.5).abs() < 0.01);
        assert!(lasting_risk(&history, &Peers::NONE, Some(Signal::AnswerP99)) < 0.01);
    }

    fn reading(signal: Signal, value: f32) -> Reading {
        let mut reading = Reading::default();
        reading.set(signal, value);
        reading
    }

    #[test]
    fn silence_is_suspicious_by_what_is_usual() {
        let mut phi = Phi::default();
        for _ in 0..50 {
            assert_eq!(phi.push(&reading(Signal::Silence, 20.0)), 0.0);
            phi.push(&reading(Signal::Silence, 0.0));
        }
        assert!(phi.push(&reading(Signal::Silence, 60.0)) < 1.0);
        assert!(phi.push(&reading(Signal::Silence, 1_000.0)) > PHI_HALF);
        assert_eq!(
            phi.push(&Reading::default()),
            0.0,
            "nothing known, nothing said"
        );
    }

    #[test]
    fn the_tail_is_that_of_a_normal_distribution() {
        // Mean 0, deviation 50 (the least): 3 deviations have a tail of .00135, φ 2.87;
        // the approximation is 1.4 % off there.
        let phi = Phi {
            seen: 100,
            ..Phi::default()
        };
        assert!((phi.phi(150.0) - 2.87).abs() < 0.05, "{}", phi.phi(150.0));
    }

    #[test]
    fn what_all_peers_share_is_no_symptom() {
        let mut ill = History::default();
        for tick in 0..120 {
            let value = if tick < 100 { 0.1 } else { 0.6 };
            ill.push(&reading(Signal::PressureCpu, value));
        }
        let well = {
            let mut history = History::default();
            (0..120).for_each(|_| history.push(&reading(Signal::PressureCpu, 0.1)));
            history
        };
        let alone = Peers::of(&[ill.now(), well.now(), well.now(), well.now()]);
        let shared = Peers::of(&[ill.now(), ill.now(), ill.now()]);
        assert!(evidence(&ill, &alone) > 5.0);
        assert_eq!(evidence(&ill, &shared), 0.0);
        assert!(
            evidence(&ill, &Peers::NONE) > 5.0,
            "no peers: its own past alone"
        );
        assert_eq!(evidence(&well, &alone), 0.0);
    }

    #[track_caller]
    fn check_depletion(memory: impl Fn(u32) -> f32, expected: Option<f32>) {
        let mut history = History::default();
        (0..100).for_each(|tick| history.push(&reading(Signal::Memory, memory(tick))));
        match (depletion_s(&history, 0.5), expected) {
            (Some(found), Some(expected)) => {
                assert!((found - expected).abs() < 0.05 * expected, "{found}");
            }
            (found, expected) => assert_eq!(found, expected),
        }
    }

    #[test]
    fn a_line_is_followed_to_its_end() {
        // From tick 40 on by .01 a tick: .79 at the last of 100 and .21 to go, at two ticks a second. The slower average
        // has followed the line for four of its time constants.
        let line = |climb: f32| move |tick: u32| 0.2 + climb * (tick as f32 - 40.0).max(0.0);
        check_depletion(line(0.01), Some(10.5));
        check_depletion(line(0.004), None);
        check_depletion(|_| 0.97, None);
        check_depletion(|tick| 0.97 - 0.001 * tick as f32, None);
        assert!(depletion_risk(Some(4.0)) > 0.95 && depletion_risk(Some(30.0)) < 0.01);
        assert_eq!(depletion_risk(None), 0.0);
    }

    #[test]
    fn risk_rises_with_both() {
        assert!(risk(0.0, 0.0) < 0.01);
        assert!(risk(15.0, 0.0) > 0.95);
        assert!(risk(0.0, 20.0) > 0.99);
    }
}
