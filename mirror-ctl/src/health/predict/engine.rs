//! From readings to scores: the histories of all instances, both layers, and what they say together.

use std::{collections::HashMap, sync::Arc};

use super::{
    baseline::{Phi, evidence, risk},
    features::{History, Row},
    model::{Chances, HORIZONS_S, Model},
    peers::Peers,
    signal::Reading,
};

/// What is expected of an instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// 0 about to fail, 1 well.
    pub score: f32,
    /// Probability of failing within each horizon; none without a model.
    pub chances: Option<Chances>,
    /// The risk by layer A.
    pub baseline: f32,
}

impl Outlook {
    /// Fuses both layers. Layer A is never beaten down: the greater risk counts.
    #[must_use]
    pub fn of(baseline: f32, chances: Option<Chances>) -> Self {
        let learned = chances.map_or(0.0, urgency);
        Self {
            score: 1.0 - learned.max(baseline).clamp(0.0, 1.0),
            chances,
            baseline,
        }
    }

    /// 1 − score.
    #[must_use]
    pub fn risk(&self) -> f32 {
        1.0 - self.score
    }
}

/// How much each horizon's probability counts in the score.
const URGENCY: Chances = [0.125, 0.125, 0.25, 0.5];
const _: () = assert!(HORIZONS_S.len() == URGENCY.len());

/// One figure for the four probabilities. A failure that is due now counts fully, one that is due within the minute
/// half, and all between: a spectrum and not an alarm, and early enough to act on.
#[must_use]
pub fn urgency(chances: Chances) -> f32 {
    chances
        .iter()
        .zip(URGENCY)
        .map(|(chance, weight)| chance * weight)
        .sum()
}

/// One instance as the engine knows it.
#[derive(Clone, Debug, Default)]
struct Instance {
    history: History,
    phi: Phi,
    /// φ of the last reading.
    suspicion: f32,
}

/// All instances of one VNI, which are each other's peers.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    instances: HashMap<String, Instance>,
    peers: Peers,
    model: Option<Arc<Model>>,
}

impl Fleet {
    /// With a model, or with layer A alone.
    #[must_use]
    pub fn new(model: Option<Arc<Model>>) -> Self {
        Self {
            model,
            ..Self::default()
        }
    }

    /// Takes another model; histories stay.
    pub fn set_model(&mut self, model: Option<Arc<Model>>) {
        self.model = model;
    }

    /// Takes in one tick's readings. An instance without a reading is not changed by the tick.
    pub fn tick<'a>(&mut self, readings: impl IntoIterator<Item = (&'a str, &'a Reading)>) {
        for (name, reading) in readings {
            if !self.instances.contains_key(name) {
                self.instances.insert(name.to_owned(), Instance::default());
            }
            if let Some(instance) = self.instances.get_mut(name) {
                instance.history.push(reading);
                instance.suspicion = instance.phi.push(reading);
            }
        }
        let now: Vec<_> = self.instances.values().map(|i| i.history.now()).collect();
        self.peers = Peers::of(&now);
    }

    /// Forgets an instance.
    pub fn remove(&mut self, name: &str) {
        self.instances.remove(name);
    }

    /// What is expected of an instance; none if there is none of that name.
    #[must_use]
    pub fn outlook(&self, name: &str) -> Option<Outlook> {
        let instance = self.instances.get(name)?;
        let row = instance.history.row(&self.peers);
        let chances = self.model.as_ref().map(|model| model.predict(&row));
        Some(Outlook::of(self.baseline(instance), chances))
    }

    fn baseline(&self, instance: &Instance) -> f32 {
        risk(evidence(&instance.history, &self.peers), instance.suspicion)
    }

    /// The features and the layer A risk of an instance: what is learned from, and explained.
    #[must_use]
    pub fn row(&self, name: &str) -> Option<(Row, f32)> {
        let instance = self.instances.get(name)?;
        Some((instance.history.row(&self.peers), self.baseline(instance)))
    }

    /// The model in force.
    #[must_use]
    pub fn model(&self) -> Option<&Model> {
        self.model.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::health::predict::signal::{COUNT, Signal};

    #[test]
    fn layer_a_is_never_beaten_down() {
        let certain = Some([0.0; 4]);
        assert!((Outlook::of(0.9, certain).score - 0.1).abs() < 1e-6);
        assert!((Outlook::of(0.0, Some([0.8; 4])).score - 0.2).abs() < 1e-6);
    }

    #[test]
    fn without_a_model_the_peers_show_who_is_ill() {
        let mut fleet = Fleet::new(None);
        for tick in 0..200 {
            for name in ["a", "b", "c", "d"] {
                let mut reading = Reading::default();
                let ill = name == "a" && tick > 150;
                for signal in [Signal::Memory, Signal::PressureMemory, Signal::AckP99] {
                    reading.set(signal, if ill { 30.0 } else { 0.3 });
                }
                fleet.tick([(name, &reading)]);
            }
        }
        assert!(fleet.outlook("a").unwrap().score < 0.1);
        assert!(fleet.outlook("b").unwrap().score > 0.9);
        assert_eq!(fleet.outlook("e"), None);
    }

    proptest! {
        #[test]
        fn no_reading_gives_what_is_no_score(
            ticks in prop::collection::vec(prop::collection::vec(any::<f32>(), COUNT), 0..80),
        ) {
            let mut fleet = Fleet::new(None);
            for values in &ticks {
                let mut reading = Reading::default();
                for (signal, value) in Signal::ALL.into_iter().zip(values) {
                    reading.set(signal, *value);
                }
                fleet.tick([("a", &reading), ("b", &reading), ("c", &Reading::default())]);
                let outlook = fleet.outlook("a").unwrap();
                prop_assert!((0.0..=1.0).contains(&outlook.score), "{outlook:?}");
                let (row, _) = fleet.row("a").unwrap();
                prop_assert!(row.iter().all(|feature| feature.is_finite()));
            }
        }
    }
}
