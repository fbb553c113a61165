//! Which signals moved a score: what the risk would be if a signal were as usual.
//!
//! By ablation, since that asks nothing of the model and is true of the fused score, layer A included; it costs a prediction
//! a signal, and is done when somebody asks.

use serde::Serialize;

use super::{
    features::{self, Row, WIDTH},
    signal::Signal,
};

/// A signal's part in a score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// The signal.
    pub signal: &'static str,
    /// How much lower the risk would be were it as usual.
    pub risk: f32,
    /// How far it is from its own usual level, in deviations.
    pub level: f32,
    /// How far it is from the peers, in deviations.
    pub peers: f32,
}

/// The reasons that count, in order.
pub(super) fn greatest_first(reasons: impl Iterator<Item = Reason>) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = reasons.filter(|reason| reason.risk > 1e-4).collect();
    reasons.sort_by(|a, b| b.risk.total_cmp(&a.risk));
    reasons
}

/// The row as if a signal were as usual.
pub(super) fn as_usual(row: &Row, signal: Signal) -> Row {
    let mut row = *row;
    for (feature, value) in row.iter_mut().enumerate().take(WIDTH) {
        if features::name(feature).0 == Some(signal) {
            *value = 0.0;
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signal_is_as_usual() {
        let row = as_usual(&[3.0; WIDTH], Signal::Memory);
        for (name, value) in features::names().iter().zip(row) {
            let expected = if name.starts_with("memory_share.") {
                0.0
            } else {
                3.0
            };
            assert_eq!(value, expected, "{name}");
        }
    }

    #[test]
    fn reasons_in_order() {
        let reason = |risk| Reason {
            signal: Signal::Memory.name(),
            risk,
            level: 0.0,
            peers: 0.0,
        };
        let found = greatest_first([0.1, -0.2, 0.3, 0.0].map(reason).into_iter());
        let risks: Vec<f32> = found.iter().map(|reason| reason.risk).collect();
        assert_eq!(risks, [0.3, 0.1]);
    }
}
