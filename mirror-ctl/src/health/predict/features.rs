//! An instance's features: each signal against its own history and against the peers, and a few of all signals
//! together. Constant time a tick, no allocation.

use super::{
    peers::Peers,
    signal::{COUNT, Reading, Signal},
    track::{FEATURE_NAMES, FEATURES, Track},
};

/// Features of one signal: those of its track, and its distance from the peers.
const OF_SIGNAL: usize = FEATURES + 1;
/// Features of all signals together.
const TOGETHER: [&str; 5] = [
    "worst_own",
    "worst_third_own",
    "worst_peer",
    "worst_third_peer",
    "missing",
];
/// How many features there are.
pub const WIDTH: usize = COUNT * OF_SIGNAL + TOGETHER.len();
/// A missing signal's history is kept for so many ticks, then begins anew.
const GAP_MAX: u16 = 30;

/// The features of one tick.
pub type Row = [f32; WIDTH];

/// An instance's history.
#[derive(Clone, Debug)]
pub struct History {
    tracks: [Track; COUNT],
    gaps: [u16; COUNT],
    present: u32,
}

impl Default for History {
    fn default() -> Self {
        Self {
            tracks: [Track::default(); COUNT],
            gaps: [0; COUNT],
            present: 0,
        }
    }
}

impl History {
    /// Takes in what was measured.
    pub fn push(&mut self, reading: &Reading) {
        self.present = reading.present();
        for signal in Signal::ALL {
            let number = signal as usize;
            if reading.has(number) {
                self.gaps[number] = 0;
                self.tracks[number].push(reading.values()[number], signal.noise());
                continue;
            }
            self.gaps[number] = self.gaps[number].saturating_add(1);
            if self.gaps[number] == GAP_MAX {
                self.tracks[number] = Track::default();
            }
        }
    }

    /// Smoothed values and the signals that are there: what peers are compared by.
    #[must_use]
    pub fn now(&self) -> ([f32; COUNT], u32) {
        (self.tracks.map(|track| track.now()), self.present)
    }

    /// Where a signal is now, in its unit.
    #[must_use]
    pub fn smoothed(&self, signal: Signal) -> f32 {
        self.tracks[signal as usize].now()
    }

    /// Whether the signal is there and has been for long enough.
    #[must_use]
    pub fn is_settled(&self, signal: Signal) -> bool {
        self.present >> signal as u32 & 1 == 1 && self.tracks[signal as usize].is_settled()
    }

    /// How far a signal is from its own usual level, in deviations.
    #[must_use]
    pub fn level(&self, signal: Signal) -> f32 {
        match self.is_settled(signal) {
            true => self.tracks[signal as usize].level(signal.noise()),
            false => 0.0,
        }
    }

    /// How far a signal has been from its own usual level for some time, in deviations.
    #[must_use]
    pub fn lasting(&self, signal: Signal) -> f32 {
        match self.is_settled(signal) {
            true => self.tracks[signal as usize].lasting(signal.noise()),
            false => 0.0,
        }
    }

    /// Where a signal is now and by how much it climbs a tick; none until it has been there for long enough.
    #[must_use]
    pub fn climb(&self, signal: Signal) -> Option<(f32, f32)> {
        self.is_settled(signal)
            .then(|| self.tracks[signal as usize].climb())
    }

    /// The features, against these peers.
    #[must_use]
    pub fn row(&self, peers: &Peers) -> Row {
        let mut row = [0.0; WIDTH];
        let (mut own, mut against_peers) = (Worst::default(), Worst::default());
        for signal in Signal::ALL {
            if !self.is_settled(signal) {
                continue;
            }
            let number = signal as usize;
            let track = &self.tracks[number];
            let part = &mut row[number * OF_SIGNAL..][..OF_SIGNAL];
            part[..FEATURES].copy_from_slice(&track.features(signal.noise()));
            part[FEATURES] = peers.compare(number, track.now());
            if signal.is_symptom() {
                own.push(part[0]);
                against_peers.push(part[FEATURES]);
            }
        }
        let missing = COUNT as u32 - self.present.count_ones();
        row[COUNT * OF_SIGNAL..].copy_from_slice(&[
            own.0[0],
            own.0[2],
            against_peers.0[0],
            against_peers.0[2],
            missing as f32,
        ]);
        row
    }
}

/// The three greatest, falling.
#[derive(Default)]
struct Worst([f32; 3]);

impl Worst {
    fn push(&mut self, value: f32) {
        let [a, b, c] = self.0;
        self.0 = match value {
            _ if value > a => [value, a, b],
            _ if value > b => [a, value, b],
            _ if value > c => [a, b, value],
            _ => self.0,
        };
    }
}

/// What a feature is called, and the signal it is of.
#[must_use]
pub fn name(feature: usize) -> (Option<Signal>, &'static str) {
    match Signal::ALL.get(feature / OF_SIGNAL) {
        Some(signal) => {
            let of = FEATURE_NAMES.get(feature % OF_SIGNAL).copied();
            (Some(*signal), of.unwrap_or("peers"))
        }
        None => (None, TOGETHER[feature - COUNT * OF_SIGNAL]),
    }
}

/// The names of all features, joined as in a model card.
#[must_use]
pub fn names() -> Vec<String> {
    let one = |feature| match name(feature) {
        (Some(signal), of) => format!("{}.{of}", signal.name()),
        (None, of) => of.to_owned(),
    };
    (0..WIDTH).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(values: &[(Signal, f32)]) -> Reading {
        let mut reading = Reading::default();
        for &(signal, value) in values {
            reading.set(signal, value);
        }
        reading
    }

    #[track_caller]
    fn feature(row: &Row, name: &str) -> f32 {
        let names = names();
        let found = names.iter().position(|candidate| candidate == name);
        row[found.unwrap_or_else(|| panic!("no feature {name}"))]
    }

    #[test]
    fn names_are_unique() {
        let mut names = names();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), WIDTH);
    }

    #[test]
    fn a_row_worked_by_hand() {
        let mut history = History::default();
        for _ in 0..40 {
            history.push(&reading(&[(Signal::Memory, 0.5), (Signal::Cpu, 0.2)]));
        }
        history.push(&reading(&[(Signal::Memory, 0.53), (Signal::Cpu, 0.2)]));
        // The fast average takes a third of the step of three deviations (noise .01); the usual level, pulled
        // by two deviations at most, 1/900 of .02.
        let row = history.row(&Peers::NONE);
        let level = feature(&row, "memory_share.level");
        assert!(
            (level - (0.01 - 0.02 / 900.0) / 0.01).abs() < 1e-3,
            "{level}"
        );
        assert_eq!(feature(&row, "cpu_share.level"), 0.0);
        assert_eq!(feature(&row, "worst_own"), level);
        assert_eq!(feature(&row, "missing"), COUNT as f32 - 2.0);
        assert_eq!(feature(&row, "memory_share.peers"), 0.0);
    }

    #[test]
    fn a_missing_signal_is_silent_and_then_forgotten() {
        let mut history = History::default();
        for _ in 0..40 {
            history.push(&reading(&[(Signal::Memory, 0.5)]));
        }
        history.push(&Reading::default());
        assert!(!history.is_settled(Signal::Memory));
        history.push(&reading(&[(Signal::Memory, 0.5)]));
        assert!(history.is_settled(Signal::Memory), "a short gap is bridged");
        for _ in 0..GAP_MAX {
            history.push(&Reading::default());
        }
        history.push(&reading(&[(Signal::Memory, 0.9)]));
        assert!(!history.is_settled(Signal::Memory), "a long one is not");
        assert!(history.row(&Peers::NONE).iter().all(|f| f.is_finite()));
    }
}
