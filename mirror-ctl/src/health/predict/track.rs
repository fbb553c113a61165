//! One signal's own history, in a few numbers that are updated in constant time: what is usual, how much it
//! wanders, where it is now, where it is going.

/// Time constants, in ticks of one second.
const FAST: f32 = 3.0;
const MIDDLE: f32 = 15.0;
const SLOW: f32 = 60.0;
const USUAL: f32 = 900.0;
/// So many ticks the usual level is a plain mean: long enough to be one, short enough to be soon of use.
const LEARNING: u32 = 30;
/// A tick moves the usual level by this many deviations at most, so a fault that grows does not become usual.
const PULL_MAX: f32 = 2.0;
/// What is further out is no more telling.
const LIMIT: f32 = 60.0;
/// How much of the recent maximum remains after a tick.
const PEAK_DECAY: f32 = 0.97;

/// How many features [`Track::features`] gives.
pub const FEATURES: usize = 6;
/// What they are called.
pub const FEATURE_NAMES: [&str; FEATURES] = ["level", "drift", "shift", "slope", "spread", "peak"];

/// A signal's history.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Track {
    fast: f32,
    middle: f32,
    slow: f32,
    usual: f32,
    /// Mean absolute deviation from the usual level: unlike a variance it is not ruled by one outlier.
    wander: f32,
    /// Mean absolute step from the fast average, lately.
    jitter: f32,
    peak: f32,
    ticks: u32,
}

impl Track {
    /// Takes in a value. `noise`: the least that counts as a deviation.
    pub fn push(&mut self, value: f32, noise: f32) {
        if self.ticks == 0 {
            *self = Self {
                fast: value,
                middle: value,
                slow: value,
                usual: value,
                ..Self::default()
            };
        }
        self.ticks = self.ticks.saturating_add(1);
        let step = value - self.fast;
        // Reciprocals are constants; a division would cost ten times as much.
        self.jitter += (step.abs() - self.jitter) * (1.0 / MIDDLE);
        self.fast += step * (1.0 / FAST);
        self.middle += (value - self.middle) * (1.0 / MIDDLE);
        self.slow += (value - self.slow) * (1.0 / SLOW);
        let scale = self.scale(noise);
        let learning = self.ticks <= LEARNING;
        let rate = match learning {
            true => 1.0 / self.ticks as f32,
            false => 1.0 / USUAL,
        };
        let mut off = value - self.usual;
        if !learning {
            off = off.clamp(-PULL_MAX * scale, PULL_MAX * scale);
        }
        self.usual += off * rate;
        self.wander += (off.abs() - self.wander) * rate;
        self.peak = self.level(noise).max(self.peak * PEAK_DECAY);
    }

    /// One standard deviation of its usual self. (1.253: of a normal distribution's mean absolute deviation.)
    fn scale(&self, noise: f32) -> f32 {
        (self.wander * 1.253).max(noise)
    }

    /// How far from usual it is now, in deviations.
    #[must_use]
    pub fn level(&self, noise: f32) -> f32 {
        ((self.fast - self.usual) / self.scale(noise)).clamp(-LIMIT, LIMIT)
    }

    /// How far from usual it has been for some time, in deviations: what is over within seconds counts for little.
    #[must_use]
    pub fn lasting(&self, noise: f32) -> f32 {
        ((self.fast.min(self.middle) - self.usual) / self.scale(noise)).clamp(-LIMIT, LIMIT)
    }

    /// Where it is now, in the signal's unit, smoothed.
    #[must_use]
    pub fn now(&self) -> f32 {
        self.fast
    }

    /// Where it is now, and by how much it climbs a tick. Of a line: an average with time constant T trails it by T − 1
    /// ticks, so two of them lie as far apart as it climbs in the difference, and the faster one is put forward by its own.
    #[must_use]
    pub fn climb(&self) -> (f32, f32) {
        let climb = (self.fast - self.middle) / (MIDDLE - FAST);
        (self.fast + climb * (FAST - 1.0), climb)
    }

    /// Whether it has been seen for long enough to have something usual.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.ticks >= LEARNING
    }

    /// In deviations, in the order of [`FEATURE_NAMES`]; all zero until it has something usual.
    #[must_use]
    pub fn features(&self, noise: f32) -> [f32; FEATURES] {
        if !self.is_settled() {
            return [0.0; FEATURES];
        }
        let per_scale = 1.0 / self.scale(noise);
        let in_scale = |off: f32| (off * per_scale).clamp(-LIMIT, LIMIT);
        [
            in_scale(self.fast - self.usual),
            in_scale(self.slow - self.usual),
            in_scale(self.fast - self.slow),
            // Two averages of a ramp lie as far apart as it climbs in the difference of their time constants.
            in_scale((self.middle - self.slow) / (SLOW - MIDDLE) * 10.0),
            in_scale(self.jitter),
            self.peak,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: impl IntoIterator<Item = f32>, noise: f32, expected: [f32; FEATURES]) {
        let mut track = Track::default();
        for value in values {
            track.push(value, noise);
        }
        let found = track.features(noise);
        for ((found, expected), name) in found.iter().zip(expected).zip(FEATURE_NAMES) {
            assert!(
                (found - expected).abs() <= 0.01 * expected.abs().max(1.0),
                "{name}: {found} for {expected}"
            );
        }
    }

    #[test]
    fn what_never_moves_has_no_features() {
        check([7.0; 100], 1.0, [0.0; FEATURES]);
    }

    #[test]
    fn too_short_a_history_has_none_either() {
        check((0..29).map(|n| n as f32), 1.0, [0.0; FEATURES]);
    }

    #[test]
    fn a_step_worked_by_hand() {
        // 100 ticks of 10, then 3 of 22, noise 2. Averages after n ticks of a step s: s (1 - (1 - 1/T)^n).
        // fast  12 (1 - (2/3)^3)   = 8.444 above; middle 12 (1 - (14/15)^3) = 2.244; slow 12 (1 - (59/60)^3) = 0.590.
        // The step exceeds two deviations (4): usual moves by 3 * 4/900 = 0.0133, wander to about the same, so the
        // scale stays at the noise. jitter: |step| is 12, 8, 5.333, each with weight 1/15:
        // 0.8, 0.8 * 14/15 + 8/15 = 1.28, 1.28 * 14/15 + 5.333/15 = 1.5502.
        let values = std::iter::repeat_n(10.0, 100).chain([22.0; 3]);
        let slope = (2.244 - 0.590) / 45.0 * 10.0 / 2.0;
        check(
            values,
            2.0,
            [
                (8.444 - 0.0133) / 2.0,
                (0.590 - 0.0133) / 2.0,
                (8.444 - 0.590) / 2.0,
                slope,
                1.5502 / 2.0,
                (8.444 - 0.0133) / 2.0,
            ],
        );
    }

    #[test]
    fn the_peak_fades() {
        // The step above, taken back: the fast average falls by a third a tick, the peak by 3 %.
        let values = std::iter::repeat_n(10.0, 100)
            .chain([22.0; 3])
            .chain([10.0; 60]);
        let mut track = Track::default();
        for value in values {
            track.push(value, 2.0);
        }
        let [level, .., peak] = track.features(2.0);
        assert!(level.abs() < 0.05, "{level}");
        assert!((peak - 4.215 * 0.97f32.powi(60)).abs() < 0.05, "{peak}");
    }

    #[test]
    fn a_growing_fault_does_not_become_usual() {
        let mut track = Track::default();
        for _ in 0..600 {
            track.push(1.0, 0.1);
        }
        for tick in 0..120 {
            track.push(1.0 + tick as f32 * 0.05, 0.1);
        }
        assert!(track.level(0.1) > 20.0, "{}", track.level(0.1));
    }
}
