//! Where new flows go: decided by `mirroring::decide`, written by the dataplane.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use mirror_common::{
    limits::{self, REPLICAS},
    vni,
};
use tracing::{error, info};

use super::{
    Agent,
    sets::replica_set,
    zone_tables::{Wanted, ZoneTable},
};
use crate::{
    clock,
    config::{self, Ack, Close, Delivery, MirrorMode, OnLoss},
    dataplane::{DataplaneError, PublishedSet},
    mirroring::{Decision, Options, Policy, Previous, decide},
    routing::{Choice, NONE, Rule, State},
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
    pub(super) table: Arc<[u32]>,
    /// By which rule.
    pub(super) rule: Option<Rule>,
    /// Sets of the plan by number, with each one's part of the buckets.
    pub(super) sets: BTreeMap<u32, f64>,
    /// Each instance's part of the buckets, in the order of the VNI's instances.
    pub(super) shares: Vec<f64>,
    /// Tables for the clients of zones.
    pub(super) zones: BTreeMap<String, ZoneTable>,
    /// Zones, by place, that would have one if there were more.
    pub(super) refused: BTreeSet<usize>,
    /// All of this for whoever asks where a flow would go.
    pub(super) choice: Arc<Choice>,
}

/// What was decided for a VNI.
struct Decided {
    vni: String,
    number: u16,
    decision: Decision,
    /// The sets' numbers.
    numbers: Vec<u32>,
    table: Vec<u32>,
    wanted: Wanted,
}

impl Published {
    /// Recalls what is in force from the dataplane. `zones`: which table is whose, of all VNIs.
    pub(super) fn recall(number: u16, agent: &Agent, zones: &[(u16, String, u32)]) -> Self {
        let Some(table) = agent.dataplane.table(number.into()) else {
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
        // By the set's number: it is asked for each bucket of each table.
        let mut primaries = vec![NONE; limits::REPLICA_SETS as usize];
        for (set, instances) in agent.book.iter() {
            if let Some(primary) = instances.first() {
                primaries[set as usize] = place(primary);
            }
        }
        let primary = |set: &u32| primaries.get(*set as usize).copied().unwrap_or(NONE);
        let zones = zones.iter().filter(|(vni, ..)| *vni == number);
        let zones = zones.filter_map(|(_, zone, number)| {
            let buckets = agent.dataplane.table(*number)?;
            let table = ZoneTable {
                number: *number,
                positions: buckets.iter().map(primary).collect(),
                buckets: buckets.into(),
            };
            Some((zone.clone(), table))
        });
        let zones = zones.collect();
        let previous = Previous {
            names,
            weights: None,
            table: table.iter().map(primary).collect(),
            sets: sets
                .keys()
                .filter_map(|set| Some(agent.book.get(*set)?.iter().map(place).collect()))
                .collect(),
        };
        Self {
            number,
            previous,
            table: table.into(),
            sets,
            zones,
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
        let decided = self.decide_all()?;
        // Not those that the book did not know: an attempt before may have failed in between.
        let mut fresh: Vec<u32> = decided
            .iter()
            .flat_map(|decided| decided.numbers.iter().copied())
            .filter(|number| !self.wired.contains_key(number))
            .collect();
        fresh.sort_unstable();
        fresh.dedup();
        let fresh: Vec<PublishedSet> = fresh
            .iter()
            .filter_map(|n| self.published_set(*n))
            .collect();
        self.dataplane.publish_sets(&fresh)?;
        let written = fresh.iter().map(|set| (set.number, set.ifindexes));
        self.wired.extend(written);
        let tables = self.changed_tables(&decided);
        for decided in &decided {
            for (zone, table) in &decided.wanted.tables {
                let register = &mut self.dataplane.maps.register;
                register.set_zone_table(decided.number, zone, table.number)?;
            }
        }
        self.dataplane.swap_tables(&tables)?;
        if !tables.is_empty() {
            info!(sets = fresh.len(), tables = tables.len(), "published");
        }
        let mut named = HashSet::new();
        for decided in decided {
            named.extend(decided.numbers.iter().copied());
            self.take_up(decided);
        }
        self.book.name_only(named, clock::now_ns());
        let freed = self.write_sources()?;
        if freed && self.published.values().any(|p| !p.refused.is_empty()) {
            return self.try_publish();
        }
        let choices: Vec<(String, Arc<Choice>)> = self
            .state
            .config
            .vnis
            .iter()
            .zip(&self.state.members)
            .map(|(vni, members)| {
                let (servers, _) = by_part(vni, members);
                (vni.name.clone(), Arc::new(self.choice(vni, servers)))
            })
            .collect();
        for (name, choice) in choices {
            if let Some(published) = self.published.get_mut(&name) {
                published.choice = choice;
            }
        }
        Ok(())
    }

    fn decide_all(&mut self) -> Result<Vec<Decided>, DataplaneError> {
        let mut all = Vec::new();
        let mut room = self.room();
        for (vni, members) in self.state.config.vnis.iter().zip(&self.state.members) {
            let Some(published) = self.published.get(&vni.name) else {
                continue;
            };
            let decision = self.decide(vni, members, published);
            let numbers = number_sets(&mut self.book, &decision, &self.state, members)?;
            let (servers, _) = by_part(vni, members);
            all.push(Decided {
                vni: vni.name.clone(),
                number: published.number,
                table: decision.steering(&numbers, &published.table),
                wanted: self.zone_tables(vni, servers, &decision, &numbers, &mut room),
                decision,
                numbers,
            });
        }
        Ok(all)
    }

    /// The tables that are not in force as they are to be, by their numbers.
    fn changed_tables(&self, decided: &[Decided]) -> Vec<(u32, Vec<u32>)> {
        let mut tables = Vec::new();
        for decided in decided {
            let Some(published) = self.published.get(&decided.vni) else {
                continue;
            };
            if decided.table[..] != published.table[..] {
                tables.push((decided.number.into(), decided.table.clone()));
            }
            for (zone, table) in &decided.wanted.tables {
                let before = published.zones.get(zone);
                if before.is_none_or(|before| before.buckets != table.buckets) {
                    tables.push((table.number, table.buckets.to_vec()));
                }
            }
        }
        tables
    }

    /// What was decided is in force.
    fn take_up(&mut self, decided: Decided) {
        self.tell_refused(&decided.vni, &decided.wanted.refused);
        let Some(published) = self.published.get_mut(&decided.vni) else {
            return;
        };
        let decision = decided.decision;
        published.rule = Some(decision.weights.rule);
        let counted = parts(&decided.table);
        let part = |number: &u32| counted.get(number).copied().unwrap_or(0.0);
        published.sets = decided.numbers.iter().map(|n| (*n, part(n))).collect();
        published.shares = shares(&decision.table, decision.weights.entries.len());
        published.previous = decision.into_previous();
        published.table = decided.table.into();
        published.zones = decided.wanted.tables;
    }

    fn decide(&self, vni: &config::Vni, members: &[usize], published: &Published) -> Decision {
        let (servers, canaries) = by_part(vni, members);
        let candidates: Vec<_> = servers
            .iter()
            .map(|&place| self.state.instances[place].candidate())
            .collect();
        let policy = Policy {
            sets: Options {
                mirrors: match canaries.is_empty() {
                    true => vni.mirrors,
                    false => 0,
                },
                ..Options::default()
            },
            ..Policy::default()
        };
        let leaning = self.state.leaning(vni, servers, None);
        let mut decision = decide(&candidates, &policy, &published.previous, leaning.as_ref());
        let is_up = |place: usize| self.state.instances[place].candidate().state == State::Up;
        let positions = servers.len() as u32..;
        let up = canaries.iter().zip(positions);
        let up = up.filter(|(place, _)| is_up(**place));
        let up: Vec<u32> = up.map(|(_, position)| position).collect();
        decision.plan.mirror_all_on(&up);
        decision
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
            let per_s = vni.mirrored_per_s.times();
            self.dataplane.maps.set_allowance(published.number, per_s)?;
            let ports = &vni.quic_ports;
            self.dataplane.maps.set_quic(published.number, ports)?;
            for (address, place) in &published.addresses {
                wanted.insert(*address);
                let mut entry = vni_entry(vni, published.number, *place);
                if !published.zones.is_empty() {
                    entry.flags |= vni::flag::ZONED;
                }
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

/// Who serves, and the canaries, who come last.
fn by_part<'a>(vni: &config::Vni, members: &'a [usize]) -> (&'a [usize], &'a [usize]) {
    members.split_at(members.len().saturating_sub(vni.canaries.len()))
}

/// Each number's part of a table.
fn parts(table: &[u32]) -> BTreeMap<u32, f64> {
    let numbers = || table.iter().filter(|number| **number != NONE);
    let most = numbers().max().map_or(0, |most| *most as usize + 1);
    // Numbers are small, and buckets many.
    let mut counts = vec![0_u32; most];
    numbers().for_each(|number| counts[*number as usize] += 1);
    let counted = (0..).zip(counts).filter(|(_, count)| *count > 0);
    counted
        .map(|(number, count)| (number, f64::from(count) / table.len() as f64))
        .collect()
}

/// Each position's part of a table.
pub(super) fn shares(table: &[u32], positions: usize) -> Vec<f64> {
    let counted = parts(table);
    let part = |position: u32| counted.get(&position).copied().unwrap_or(0.0);
    (0..positions as u32).map(part).collect()
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
            limit: limits::REPLICA_SETS,
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
    set(vni.mode == MirrorMode::Shadow, vni::flag::SHADOW);
    set(vni.delivery == Delivery::First, vni::flag::FIRST);
    set(!vni.quic_ports.is_empty(), vni::flag::QUIC);
    vni::Vni {
        vni: number,
        address,
        flags,
        lag_bytes_max: vni.lag_bytes_max,
        lag_ms_max: vni.lag_ms_max,
        handshake_ms: vni.handshake_ms,
    }
}
