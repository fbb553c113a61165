//! What distance and load do to new flows, by what the agent knows. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ipnet::IpNet;

use super::state::State;
use crate::{
    config,
    routing::{
        Bands, Leaning, Weights,
        distance::{Distances, Seen},
        load::{self, Load},
        select::{Distance, Known},
        source::Sources,
        weights,
    },
};

/// Between two steps of what hot instances keep: new flows need some time to show in what is in flight.
const LOAD_STEP_NS: u64 = 5_000_000_000;

/// What is known besides the instances' health.
#[derive(Debug, Default)]
pub struct Bearings {
    /// Where clients are.
    pub sources: Arc<Sources>,
    /// The zones' names.
    pub zones: Arc<Vec<String>>,
    /// What was learned of how far away instances are.
    distances: Distances,
    /// What is in flight, by the instances' numbers.
    in_flight: HashMap<u16, u64>,
    /// What instances keep of their part in spite of their load, by VNI and instance; all of it unless they are here.
    keeps: HashMap<(String, String), f64>,
    /// When that was changed last.
    stepped_ns: u64,
}

impl State {
    /// Takes up the zones of a configuration.
    pub(super) fn take_bearings(&mut self) {
        let config = &self.config;
        let names = config.zones.iter().map(|zone| zone.name.clone());
        self.bearings.zones = Arc::new(names.collect());
        self.bearings.sources = Arc::new(Sources::of(&config.zones));
        match config.steering.learn {
            true => {
                let numbers = self.instances.iter().map(|instance| instance.number as u16);
                let numbers: HashSet<u16> = numbers.collect();
                self.bearings
                    .distances
                    .retain(|number| numbers.contains(&number));
                self.conclude_distances();
            }
            false => self.bearings.distances = Distances::default(),
        }
        let config = &self.config;
        let vnis = &config.vnis;
        let hot_ratio = config.steering.hot_ratio;
        self.bearings.keeps.retain(|(vni, instance), _| {
            let vni = vnis.iter().find(|known| known.name == *vni);
            hot_ratio > 0.0 && vni.is_some_and(|vni| vni.instances.contains(instance))
        });
    }

    /// How far a VNI's instances are from a zone's clients, or from those of no zone.
    pub(super) fn distances(&self, members: &[usize], zone: Option<usize>) -> Vec<Distance> {
        let named = zone.and_then(|place| self.config.zones.get(place));
        let of = |place: &usize| {
            let instance = &self.instances[*place];
            let configured = named.zip(instance.config.zone.as_deref());
            let learned = self
                .bearings
                .distances
                .in_force(zone, instance.number as u16);
            Distance {
                configured_ms: configured
                    .and_then(|(zone, own)| self.config.zone_cost_ms(&zone.name, own)),
                learned_ms: learned.map(|learned| learned.ms),
                samples: learned.map_or(0, |learned| learned.samples),
            }
        };
        members.iter().map(of).collect()
    }

    /// What that and load do to a VNI's new flows from there; none: nothing.
    pub(super) fn leaning(
        &self,
        vni: &config::Vni,
        members: &[usize],
        zone: Option<usize>,
    ) -> Option<Leaning> {
        if !self.config.leans() {
            return None;
        }
        let distances = self.distances(members, zone);
        let leaning = Leaning {
            costs_ms: distances.iter().map(Distance::in_force_ms).collect(),
            keeps: members
                .iter()
                .map(|place| self.keep(&vni.name, *place))
                .collect(),
            halving_ms: self.config.steering.halving_ms,
            explore: self.config.steering.explore,
        };
        let says = |cost: &Option<f64>| cost.is_some();
        let leans = leaning.costs_ms.iter().any(says) || leaning.keeps.iter().any(|k| *k < 1.0);
        leans.then_some(leaning)
    }

    fn keep(&self, vni: &str, place: usize) -> f64 {
        let key = (vni.to_owned(), self.instances[place].config.name.clone());
        self.bearings.keeps.get(&key).copied().unwrap_or(1.0)
    }

    /// Takes in what handshakes took. Whether new flows are to be spread otherwise.
    pub(super) fn shook(&mut self, seen: &Seen) -> bool {
        if !self.config.steering.learn {
            return false;
        }
        self.bearings.distances.take(seen);
        self.conclude_distances()
    }

    fn conclude_distances(&mut self) -> bool {
        let numbers = self.instances.iter().map(|instance| instance.number as u16);
        let numbers: Vec<u16> = numbers.collect();
        let places = (0..self.config.zones.len()).map(Some).chain([None]);
        let sources = Arc::clone(&self.bearings.sources);
        let place_of = |prefix: IpNet| Some(sources.zone_of(prefix.network())?.0);
        self.bearings.distances.conclude(places, &numbers, place_of)
    }

    /// What an instance has in flight: the one place that says what load is.
    fn in_flight(&self, place: usize) -> u64 {
        let number = self.instances[place].number as u16;
        self.bearings.in_flight.get(&number).copied().unwrap_or(0)
    }

    /// The load of a VNI's instances; of an instance that serves several VNIs, all of it.
    fn loads(&self, members: &[usize], weights: &Weights) -> Vec<Load> {
        let of = |(place, entry): (&usize, &crate::routing::Weighted)| Load {
            in_flight: self.in_flight(*place),
            weight: entry.weight,
        };
        members.iter().zip(&weights.entries).map(of).collect()
    }

    /// Takes in what is in flight. Whether new flows are to be spread otherwise.
    pub(super) fn loaded(&mut self, in_flight: HashMap<u16, u64>, now_ns: u64) -> bool {
        self.bearings.in_flight = in_flight;
        let due = now_ns.saturating_sub(self.bearings.stepped_ns) >= LOAD_STEP_NS;
        if self.config.steering.hot_ratio == 0.0 || !due {
            return false;
        }
        self.bearings.stepped_ns = now_ns;
        let mut keeps = HashMap::new();
        for (vni, members) in self.config.vnis.iter().zip(&self.members) {
            let candidates: Vec<_> = members
                .iter()
                .map(|place| self.instances[*place].candidate())
                .collect();
            let weights = weights(&candidates, None, Bands::default());
            let before: Vec<f64> = members
                .iter()
                .map(|place| self.keep(&vni.name, *place))
                .collect();
            let loads = self.loads(members, &weights);
            let after = load::keeps(&loads, &before, self.config.steering.hot_ratio);
            for (place, (keep, _)) in members.iter().zip(after) {
                if keep < 1.0 {
                    let instance = self.instances[*place].config.name.clone();
                    keeps.insert((vni.name.clone(), instance), keep);
                }
            }
        }
        let changed = keeps != self.bearings.keeps;
        self.bearings.keeps = keeps;
        changed
    }

    /// What is known of a VNI's instances wherever a flow comes from.
    pub(super) fn known(
        &self,
        vni: &config::Vni,
        members: &[usize],
        weights: &Weights,
    ) -> Vec<Known> {
        let loads = self.loads(members, weights);
        let relative = load::relative(&loads);
        let of = |(position, place): (usize, &usize)| {
            let instance = &self.instances[*place];
            let entry = &weights.entries[position];
            Known {
                name: instance.config.name.clone(),
                state: instance.service(),
                score: entry.score,
                weight: entry.weight,
                zone: instance.config.zone.clone(),
                in_flight: loads[position].in_flight,
                load: relative[position],
                hot: self.keep(&vni.name, *place) < 1.0,
            }
        };
        members.iter().enumerate().map(of).collect()
    }
}
