//! Which signals moved a score: what the risk would be if a signal were as usual.
//!
//! By ablation, since that asks nothing of the model and is true of the fused score, layer A included in what it
//! sees; it costs a prediction a signal, and is done when somebody asks.

use serde::Serialize;

use super::{
    engine::urgency,
    features::{self, Row, WIDTH},
    model::Model,
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

/// Signals by how much they raise the model's risk, the greatest first; those that do not are left out.
#[must_use]
pub fn explain(model: &Model, row: &Row) -> Vec<Reason> {
    let risk = urgency(model.predict(row));
    greatest_first(Signal::ALL.into_iter().map(|signal| {
        let (without, level, peers) = without(row, signal);
        Reason {
            signal: signal.name(),
            risk: risk - urgency(model.predict(&without)),
            level,
            peers,
        }
    }))
}

/// The reasons that count, in order.
pub(super) fn greatest_first(reasons: impl Iterator<Item = Reason>) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = reasons.filter(|reason| reason.risk > 1e-4).collect();
    reasons.sort_by(|a, b| b.risk.total_cmp(&a.risk));
    reasons
}

/// The row with a signal as usual, and how unusual it was.
fn without(row: &Row, signal: Signal) -> (Row, f32, f32) {
    let mut row = *row;
    let (mut level, mut peers) = (0.0, 0.0);
    for (feature, value) in row.iter_mut().enumerate().take(WIDTH) {
        let (of, name) = features::name(feature);
        if of != Some(signal) {
            continue;
        }
        match name {
            "level" => level = *value,
            "peers" => peers = *value,
            _ => {}
        }
        *value = 0.0;
    }
    (row, level, peers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::predict::{
        calibrate::Calibration,
        forest::{Forest, Node},
        model::{Card, Hazard},
    };

    #[test]
    fn the_signal_that_a_tree_asked_is_the_reason() {
        let names = features::names();
        let feature = names.iter().position(|name| name == "memory_share.slope");
        let root = Node {
            value: 1.0,
            feature: feature.unwrap() as u32,
            left: 1,
            right: 2,
        };
        let mut forest = Forest::default();
        forest.add(&[root, Node::leaf(-3.0), Node::leaf(3.0)]);
        let hazard = Hazard {
            forest,
            bias: 0.0,
            calibration: Calibration::Platt {
                slope: 1.0,
                intercept: 0.0,
            },
        };
        let model = Model {
            hazards: std::array::from_fn(|_| hazard.clone()),
            card: Card::default(),
            reference: None,
        };
        let mut row = [0.0; WIDTH];
        row[feature.unwrap()] = 5.0;
        row[0] = 50.0;
        let reasons = explain(&model, &row);
        assert_eq!(reasons.len(), 1);
        assert_eq!(reasons[0].signal, "memory_share");
        assert!(reasons[0].risk > 0.03);
    }
}
