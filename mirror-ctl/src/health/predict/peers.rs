//! How an instance compares with the others of its VNI: what hits all of them is not one instance's failure.
//!
//! Median and median absolute deviation (Hampel 1974): half of the peers may be ill without moving the standard.

use super::signal::{COUNT, Signal};

/// Fewer peers have no standard to compare with.
pub const PEERS_MIN: usize = 3;
/// MAD to standard deviation, for a normal distribution.
const MAD_SCALE: f32 = 1.4826;
const LIMIT: f32 = 60.0;

/// The standard of one tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peers {
    median: [f32; COUNT],
    deviation: [f32; COUNT],
    /// Signals that enough peers have, one bit each.
    present: u32,
}

impl Default for Peers {
    fn default() -> Self {
        Self::NONE
    }
}

impl Peers {
    /// Nobody to compare with.
    pub const NONE: Self = Self {
        median: [0.0; COUNT],
        deviation: [1.0; COUNT],
        present: 0,
    };

    /// The standard of instances given by each signal's smoothed value and the signals they have.
    #[must_use]
    pub fn of(instances: &[([f32; COUNT], u32)]) -> Self {
        let mut peers = Self::NONE;
        if instances.len() < PEERS_MIN {
            return peers;
        }
        let mut values = Vec::with_capacity(instances.len());
        for signal in Signal::ALL {
            let number = signal as usize;
            values.clear();
            values.extend(
                instances
                    .iter()
                    .filter(|(_, present)| present >> number & 1 == 1)
                    .map(|(now, _)| now[number]),
            );
            if values.len() < PEERS_MIN {
                continue;
            }
            let median = middle(&mut values);
            for value in &mut values {
                *value = (*value - median).abs();
            }
            peers.median[number] = median;
            peers.deviation[number] = (middle(&mut values) * MAD_SCALE).max(signal.noise());
            peers.present |= 1 << number;
        }
        peers
    }

    /// How far a value is from the peers', in their deviations; 0 where there is no standard.
    #[must_use]
    pub fn compare(&self, number: usize, value: f32) -> f32 {
        if self.present >> number & 1 == 0 {
            return 0.0;
        }
        ((value - self.median[number]) / self.deviation[number]).clamp(-LIMIT, LIMIT)
    }

    /// Whether there is a standard for this signal.
    #[must_use]
    pub fn has(&self, number: usize) -> bool {
        self.present >> number & 1 == 1
    }
}

/// The upper median; `values` is not empty.
fn middle(values: &mut [f32]) -> f32 {
    let half = values.len() / 2;
    *values.select_nth_unstable_by(half, f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_memory(value: f32) -> ([f32; COUNT], u32) {
        let mut now = [0.0; COUNT];
        now[Signal::Memory as usize] = value;
        (now, 1 << Signal::Memory as u32)
    }

    #[test]
    fn a_row_worked_by_hand() {
        // Median .5; distances .1 .0 .1 .2 .4, their median .1.
        let peers = Peers::of(&[0.4, 0.5, 0.6, 0.3, 0.9].map(with_memory));
        let memory = Signal::Memory as usize;
        assert!((peers.compare(memory, 0.9) - 0.4 / 0.14826).abs() < 1e-4);
        assert_eq!(peers.compare(memory, 0.5), 0.0);
        assert_eq!(peers.compare(Signal::Cpu as usize, 9.0), 0.0);
    }

    #[test]
    fn two_are_no_standard() {
        assert_eq!(Peers::of(&[0.1, 0.9].map(with_memory)), Peers::NONE);
    }

    #[test]
    fn equal_peers_are_measured_against_noise() {
        let peers = Peers::of(&[0.5; 4].map(with_memory));
        let memory = Signal::Memory as usize;
        assert!((peers.compare(memory, 0.52) - 2.0).abs() < 1e-3);
    }
}
