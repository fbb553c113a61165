//! Where new flows go: decided by `mirroring::decide`, written by the dataplane.

use std::collections::{BTreeMap, HashMap, HashSet};

use mirror_common::{limits::REPLICAS, vni};
use tracing::{error, info};

use super::{Agent, sets::replica_set};
use crate::{
    clock,
    config::{self, Ack, Close, OnLoss},
    dataplane::{DataplaneError, PublishedSet},
    mirroring::{Decision, Options, Policy, Previous, decide},
    routing::{NONE, Rule},
};

/// What is in force for a VNI.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Its number.
    pub(super) number: u16,
    /// Place of each address in the dataplane's keys.
    pub(super) addresses: Vec<(std::net::IpAddr, u8)>,
    /// The decision.
    pub(super) previous: Previous,
    /// The table, in set numbers.
    pub(super) table: Vec<u32>,
    /// By which rule.
    pub(super) rule: Option<Rule>,
    /// Sets of the plan by number, with each one's part of the buckets.
    pub(super) sets: BTreeMap<u32, f64>,
    /// Each instance's part of the buckets, in the order of the VNI's instances.
    pub(super) shares: Vec<f64>,
}

impl Published {
    /// Recalls what is in force from the dataplane.
    pub(super) fn recall(number: u16, agent: &Agent) -> Self {
        let Some(table) = agent.dataplane.table(number) else {
            return Self {
                number,
                ..Self::default()
            };
        };
        let names: Vec<String> = agent
            .state
            .instances
            .iter()
            .map(|instance| instance.config.name.clone())
            .collect();
        let places: HashMap<u16, u32> = agent
            .state
            .instances
            .iter()
            .enumerate()
            .map(|(place, instance)| (instance.number as u16, place as u32))
            .collect();
        let place = |number: &u16| places.get(number).copied().unwrap_or(NONE);
        let sets = parts(&table);
        let primary: HashMap<u32, u32> = sets
            .keys()
            .filter_map(|set| Some((*set, place(agent.book.get(*set)?.first()?))))
            .collect();
        let previous = Previous {
            names,
            weights: None,
            table: table
                .iter()
                .map(|set| primary.get(set).copied().unwrap_or(NONE))
                .collect(),
            sets: sets
                .keys()
                .filter_map(|set| Some(agent.book.get(*set)?.iter().map(place).collect()))
                .collect(),
        };
        Self {
            number,
            previous,
            table,
            sets,
            ..Self::default()
        }
    }
}

impl Agent {
    /// Decides and writes for all VNIs. What cannot be written leaves the old tables in force.
    pub(super) fn publish(&mut self) {
        if let Err(error) = self.try_publish() {
            error!("new flows go where they went before: {error}");
        }
    }

    pub(super) fn try_publish(&mut self) -> Result<(), DataplaneError> {
        let mut fresh = Vec::new();
        let mut tables = Vec::new();
        let mut decided = Vec::new();
        for (vni, members) in self.state.config.vnis.iter().zip(&self.state.members) {
            let Some(published) = self.published.get(&vni.name) else {
                continue;
            };
            let decision = self.decide(vni, members, published);
            let numbers = number_sets(&mut self.book, &decision, &self.state, members)?;
            // Not those that the book did not know: an attempt before may have failed in between.
            fresh.extend(numbers.iter().filter(|n| !self.wired.contains_key(n)));
            let table = decision.steering(&numbers, &published.table);
            if table != published.table {
                tables.push((published.number, table.clone()));
            }
            decided.push((vni.name.clone(), decision, numbers, table));
        }
        fresh.sort_unstable();
        fresh.dedup();
        let fresh: Vec<PublishedSet> = fresh
            .iter()
            .filter_map(|n| self.published_set(*n))
            .collect();
        self.dataplane.publish_sets(&fresh)?;
        let written = fresh.iter().map(|set| (set.number, set.ifindexes));
        self.wired.extend(written);
        self.dataplane.swap_tables(&tables)?;
        if !tables.is_empty() {
            info!(sets = fresh.len(), tables = tables.len(), "published");
        }
        let mut named = HashSet::new();
        for (name, decision, numbers, table) in decided {
            named.extend(numbers.iter().copied());
            if let Some(published) = self.published.get_mut(&name) {
                published.rule = Some(decision.weights.rule);
                let counted = parts(&table);
                let part = |number: &u32| counted.get(number).copied().unwrap_or(0.0);
                published.sets = numbers.iter().map(|n| (*n, part(n))).collect();
                let counted = parts(&decision.table);
                let positions = 0..decision.weights.entries.len() as u32;
                published.shares = positions
                    .map(|position| counted.get(&position).copied().unwrap_or(0.0))
                    .collect();
                published.previous = decision.into_previous();
                published.table = table;
            }
        }
        self.book.name_only(named, clock::now_ns());
        Ok(())
    }

    fn decide(&self, vni: &config::Vni, members: &[usize], published: &Published) -> Decision {
        let candidates: Vec<_> = members
            .iter()
            .map(|&place| self.state.instances[place].candidate())
            .collect();
        let policy = Policy {
            sets: Options {
                mirrors: vni.mirrors,
                ..Options::default()
            },
            ..Policy::default()
        };
        decide(&candidates, &policy, &published.previous)
    }

    /// A set with the interfaces as they are now.
    pub(super) fn published_set(&self, number: u32) -> Option<PublishedSet> {
        let instances = self.book.get(number)?;
        let mut ifindexes = [0; REPLICAS];
        for (ifindex, number) in ifindexes.iter_mut().zip(instances) {
            let instance = self
                .state
                .instances
                .iter()
                .find(|instance| instance.number == u32::from(*number));
            *ifindex = instance.map_or(0, |instance| instance.ifindex);
        }
        Some(PublishedSet {
            number,
            set: replica_set(instances),
            ifindexes,
        })
    }

    /// Writes the VNIs' addresses, and takes out those that are not configured any more.
    pub(super) fn write_vnis(&mut self) -> Result<(), DataplaneError> {
        let mut wanted = HashSet::new();
        for vni in &self.state.config.vnis {
            let Some(published) = self.published.get(&vni.name) else {
                continue;
            };
            for (address, place) in &published.addresses {
                wanted.insert(*address);
                let entry = vni_entry(vni, published.number, *place);
                self.dataplane.maps.set_vni(*address, entry)?;
            }
        }
        for (address, _) in self.dataplane.maps.vnis()? {
            if !wanted.contains(&address) {
                self.dataplane.maps.remove_vni(address)?;
            }
        }
        Ok(())
    }
}

/// Each number's part of a table.
fn parts(table: &[u32]) -> BTreeMap<u32, f64> {
    let mut parts = BTreeMap::new();
    for number in table.iter().filter(|number| **number != NONE) {
        *parts.entry(*number).or_insert(0.0) += 1.0 / table.len() as f64;
    }
    parts
}

/// Numbers of a decision's sets.
fn number_sets(
    book: &mut super::sets::SetBook,
    decision: &Decision,
    state: &super::state::State,
    members: &[usize],
) -> Result<Vec<u32>, DataplaneError> {
    let mut numbers = Vec::new();
    for set in &decision.plan.sets {
        let instances: Vec<u16> = set
            .iter()
            .map(|&position| state.instances[members[position as usize]].number as u16)
            .collect();
        let (number, _) = book.number(&instances).ok_or(DataplaneError::Full {
            what: "replica set (old ones live until their flows end)",
            limit: mirror_common::limits::REPLICA_SETS,
        })?;
        numbers.push(number);
    }
    Ok(numbers)
}

fn vni_entry(vni: &config::Vni, number: u16, address: u8) -> vni::Vni {
    let mut flags = 0;
    let mut set = |when: bool, flag: u8| {
        if when {
            flags |= flag;
        }
    };
    set(vni.mirrors > 0, vni::flag::MIRRORED);
    set(vni.ack == Ack::SemiSync, vni::flag::HOLD_ACKS);
    set(vni.close == Close::Vote, vni::flag::VOTE_ON_CLOSE);
    set(vni.on_loss == OnLoss::Leave, vni::flag::LEAVE_LOST);
    vni::Vni {
        vni: number,
        address,
        flags,
        lag_bytes_max: vni.lag_bytes_max,
        lag_ms_max: vni.lag_ms_max,
        handshake_ms: vni.handshake_ms,
    }
}
