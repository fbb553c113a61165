//! From readings to scores: the histories of all instances, both layers, and what they say together.

use std::{collections::HashMap, sync::Arc};

use super::{
    baseline::{self, Phi, depletion_risk, depletion_s},
    explain::{Reason, as_usual, greatest_first},
    features::{History, Row},
    model::{Chances, HORIZONS_S, Model},
    peers::Peers,
    signal::{Reading, Signal},
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

/// What a model's word counts beside what layer A sees: it was trained on other instances than these. Chosen on recorded faults that
/// may be looked at, which are judged best with a half, and on the simulated corpus, with one; see docs/prediction.md.
const MODEL_WEIGHT: f32 = 0.7;

impl Outlook {
    /// Fuses both layers as causes that are independent of each other (a noisy or; Pearl 1988, section 4.3.2). Layer A is never
    /// beaten down: the model adds to its risk a part of what is left.
    #[must_use]
    pub fn of(baseline: f32, chances: Option<Chances>) -> Self {
        let learned = chances.map_or(0.0, urgency);
        let spared = (1.0 - baseline) * (1.0 - MODEL_WEIGHT * learned);
        Self {
            score: spared.clamp(0.0, 1.0),
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
#[derive(Clone, Debug)]
pub struct Fleet {
    instances: HashMap<String, Instance>,
    peers: Peers,
    model: Option<Arc<Model>>,
    /// Seconds from tick to tick.
    tick_s: f32,
}

/// What an instance's signal is and how unusual that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// The signal.
    pub signal: Signal,
    /// Smoothed, in its unit.
    pub value: f32,
    /// How far it is from its own usual level, in deviations.
    pub level: f32,
    /// How far it is from the peers, in deviations.
    pub peers: f32,
}

impl Fleet {
    /// With a model, or with layer A alone.
    #[must_use]
    pub fn new(model: Option<Arc<Model>>) -> Self {
        Self::paced(model, 1.0)
    }

    /// The same with ticks that are so many seconds apart. A model's probabilities are those of ticks of one second.
    #[must_use]
    pub fn paced(model: Option<Arc<Model>>, tick_s: f32) -> Self {
        Self {
            instances: HashMap::new(),
            peers: Peers::NONE,
            model,
            tick_s,
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
        self.baseline_without(instance, None)
    }

    /// Layer A's risk as if a signal were as usual.
    fn baseline_without(&self, instance: &Instance, but: Option<Signal>) -> f32 {
        let history = &instance.history;
        let evidence = baseline::evidence_without(history, &self.peers, but);
        let suspicion = match but {
            Some(Signal::Silence) => 0.0,
            _ => instance.suspicion,
        };
        let depletion_s = match but {
            Some(Signal::Memory) => None,
            _ => depletion_s(history, self.tick_s),
        };
        baseline::risk(evidence, suspicion)
            .max(depletion_risk(depletion_s))
            .max(baseline::lasting_risk(history, &self.peers, but))
    }

    /// Whether any symptom of an instance has been seen for long enough to say something of it.
    #[must_use]
    pub fn is_settled(&self, name: &str) -> bool {
        let symptoms = || Signal::ALL.into_iter().filter(|signal| signal.is_symptom());
        let found = self.instances.get(name);
        found.is_some_and(|i| symptoms().any(|signal| i.history.is_settled(signal)))
    }

    /// In how many seconds an instance's memory is used up, see [`depletion_s`].
    #[must_use]
    pub fn depletion_s(&self, name: &str) -> Option<f32> {
        depletion_s(&self.instances.get(name)?.history, self.tick_s)
    }

    /// Which signals raise an instance's risk, the greatest first.
    #[must_use]
    pub fn explain(&self, name: &str) -> Vec<Reason> {
        let Some(instance) = self.instances.get(name) else {
            return Vec::new();
        };
        let row = instance.history.row(&self.peers);
        let risk = |but: Option<Signal>| {
            let row = but.map_or(row, |signal| as_usual(&row, signal));
            let chances = self.model.as_ref().map(|model| model.predict(&row));
            Outlook::of(self.baseline_without(instance, but), chances).risk()
        };
        let whole = risk(None);
        let standings = self.standings(name).into_iter();
        greatest_first(standings.map(|standing| Reason {
            signal: standing.signal.name(),
            risk: whole - risk(Some(standing.signal)),
            level: standing.level,
            peers: standing.peers,
        }))
    }

    /// The signals of an instance that are there and settled.
    #[must_use]
    pub fn standings(&self, name: &str) -> Vec<Standing> {
        let Some(Instance { history, .. }) = self.instances.get(name) else {
            return Vec::new();
        };
        let (now, _) = history.now();
        let settled = Signal::ALL
            .into_iter()
            .filter(|signal| history.is_settled(*signal));
        let standing = |signal: Signal| Standing {
            signal,
            value: now[signal as usize],
            level: history.level(signal),
            peers: self.peers.compare(signal as usize, now[signal as usize]),
        };
        settled.map(standing).collect()
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
    use crate::health::predict::signal::COUNT;

    #[test]
    fn fusion_worked_by_hand() {
        let risk = |baseline, chances| Outlook::of(baseline, chances).risk();
        let is = |found: f32, expected: f32| (found - expected).abs() < 1e-6;
        assert!(is(risk(0.9, None), 0.9));
        assert!(is(risk(0.9, Some([0.0; 4])), 0.9), "never beaten down");
        assert!(is(risk(0.0, Some([0.8; 4])), 0.56));
        assert!(is(risk(0.5, Some([0.8; 4])), 0.78));
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

    #[test]
    fn a_leak_is_seen_before_its_end_and_explained() {
        let mut fleet = Fleet::new(None);
        let mut seen = None;
        for tick in 0..78 {
            for name in ["a", "b", "c"] {
                let mut reading = Reading::default();
                let leaked =
                    f32::from(u8::from(name == "a")) * (tick as f32 - 40.0).max(0.0) * 0.02;
                reading.set(Signal::Memory, 0.2 + leaked);
                fleet.tick([(name, &reading)]);
            }
            if seen.is_none() && fleet.outlook("a").unwrap().risk() > 0.5 {
                seen = Some(tick);
            }
        }
        // The end is at tick 80.
        assert!(seen.is_some_and(|tick| tick <= 72), "{seen:?}");
        assert!(fleet.outlook("b").unwrap().score > 0.9);
        let reasons = fleet.explain("a");
        assert_eq!(reasons[0].signal, "memory_share");
        assert!(reasons[0].risk > 0.4, "{reasons:?}");
        assert!(fleet.is_settled("a") && !fleet.is_settled("e"));
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
