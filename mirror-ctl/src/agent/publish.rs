//! Where new flows go: decided by `mirroring::decide`, written by the dataplane.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
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
    routing::{Choice, Leaning, NONE, Rule, State},
};

/// What is in force for a VNI.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Its number.
    pub(super) number: u16,
    /// Place of each address in the dataplane's keys.
    pub(super) addresses: Vec<(std::net::IpAddr, u8)>,
    /// How its new flows are spread.
    pub(super) spread: Arc<Spread>,
    /// Tables for the clients of zones.
    pub(super) zones: BTreeMap<String, ZoneTable>,
    /// Zones, by place, that would have one if there were more.
    pub(super) refused: BTreeSet<usize>,
    /// All of this for whoever asks where a flow would go.
    pub(super) choice: Arc<Choice>,
}

/// How new flows are spread. VNIs of which the same was decided have it in common: there may be thousands of them, and a table is long.
#[derive(Debug, Default)]
pub(super) struct Spread {
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
}

/// What was decided, of all VNIs that ask the same.
struct Decided {
    decision: Decision,
    /// The sets' numbers.
    numbers: Vec<u32>,
    table: Arc<[u32]>,
    is_changed: bool,
    vnis: Vec<OfVni>,
}

/// What was decided of one of them.
struct OfVni {
    name: String,
    number: u16,
    wanted: Wanted,
}

/// What a decision depends on, but for leanings: the spread in force by its place in memory, instances, mirrors, canaries.
type Question<'a> = (*const Spread, &'a [usize], usize, usize);

impl Spread {
    /// Recalls what is in force from a table of the dataplane.
    fn recall(table: Vec<u32>, agent: &Agent) -> Self {
        let instances = &agent.state.instances;
        let names = instances
            .iter()
            .map(|instance| instance.config.name.clone());
        let place = |number: &u16| agent.place_of(*number);
        let sets = parts(&table);
        Self {
            previous: Previous {
                names: names.collect(),
                weights: None,
                table: agent.primaries(&table),
                sets: sets
                    .keys()
                    .filter_map(|set| Some(agent.book.get(*set)?.iter().map(place).collect()))
                    .collect(),
            },
            table: table.into(),
            sets,
            ..Self::default()
        }
    }

    /// What was decided, in force.
    fn of(decision: Decision, numbers: &[u32], table: Arc<[u32]>) -> Self {
        let counted = parts(&table);
        let part = |number: &u32| counted.get(number).copied().unwrap_or(0.0);
        Self {
            rule: Some(decision.weights.rule),
            sets: numbers.iter().map(|n| (*n, part(n))).collect(),
            shares: shares(&decision.table, decision.weights.entries.len()),
            previous: decision.into_previous(),
            table,
        }
    }
}

/// What is recalled of the dataplane, each of its tables once.
#[derive(Default)]
pub(super) struct Recalled {
    /// By the kernel's number of the table.
    spreads: HashMap<u32, Arc<Spread>>,
    /// Of VNIs without one, which have that in common too.
    none: Arc<Spread>,
}

impl Recalled {
    /// What is in force for a VNI. `zones`: which table is whose, of all VNIs.
    pub(super) fn vni(
        &mut self,
        number: u16,
        agent: &Agent,
        zones: &[(u16, String, u32)],
    ) -> Published {
        let zones = zones.iter().filter(|(vni, ..)| *vni == number);
        let zones = zones.filter_map(|(_, zone, number)| {
            let buckets = agent.dataplane.table(*number)?;
            let table = ZoneTable {
                number: *number,
                positions: agent.primaries(&buckets),
                buckets: buckets.into(),
            };
            Some((zone.clone(), table))
        });
        Published {
            number,
            spread: self
                .spread(number, agent)
                .unwrap_or_else(|| Arc::clone(&self.none)),
            zones: zones.collect(),
            ..Published::default()
        }
    }

    fn spread(&mut self, number: u16, agent: &Agent) -> Option<Arc<Spread>> {
        let id = agent.dataplane.table_id(number.into())?;
        match self.spreads.entry(id) {
            Entry::Occupied(known) => Some(Arc::clone(known.get())),
            Entry::Vacant(place) => {
                let table = agent.dataplane.table(number.into())?;
                Some(Arc::clone(
                    place.insert(Arc::new(Spread::recall(table, agent))),
                ))
            }
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
        let named: BTreeSet<u32> = decided
            .iter()
            .flat_map(|decided| decided.numbers.iter().copied())
            .collect();
        let fresh: Vec<PublishedSet> = named
            .iter()
            .filter(|number| !self.wired.contains_key(number))
            .filter_map(|number| self.published_set(*number))
            .collect();
        self.dataplane.publish_sets(&fresh)?;
        let written = fresh.iter().map(|set| (set.number, set.ifindexes));
        self.wired.extend(written);
        let tables = self.changed_tables(&decided);
        for vni in decided.iter().flat_map(|decided| &decided.vnis) {
            for (zone, table) in &vni.wanted.tables {
                let register = &mut self.dataplane.maps.register;
                register.set_zone_table(vni.number, zone, table.number)?;
            }
        }
        self.dataplane.swap_tables(&tables)?;
        if !tables.is_empty() {
            info!(sets = fresh.len(), tables = tables.len(), "published");
        }
        for decided in decided {
            self.take_up(decided);
        }
        self.book
            .name_only(named.into_iter().collect(), clock::now_ns());
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
        let mut all: Vec<Decided> = Vec::new();
        // Leanings are compared one by one: there are few of them.
        let mut known: HashMap<Question<'_>, Vec<(Option<Leaning>, usize)>> = HashMap::new();
        let mut room = self.room();
        for (vni, members) in self.state.config.vnis.iter().zip(&self.state.members) {
            let Some(published) = self.published.get(&vni.name) else {
                continue;
            };
            let (servers, canaries) = by_part(vni, members);
            let leaning = self.state.leaning(vni, servers, None);
            let spread = &published.spread;
            let question = (
                Arc::as_ptr(spread),
                &members[..],
                vni.mirrors,
                canaries.len(),
            );
            let alike = known.entry(question).or_default();
            let place = match alike.iter().find(|(of, _)| *of == leaning) {
                Some((_, place)) => *place,
                None => {
                    let decision = self.decide(vni, members, spread, leaning.as_ref());
                    let numbers = number_sets(&mut self.book, &decision, &self.state, members)?;
                    let table = decision.steering(&numbers, &spread.table);
                    all.push(Decided {
                        is_changed: table[..] != spread.table[..],
                        table: table.into(),
                        decision,
                        numbers,
                        vnis: Vec::new(),
                    });
                    alike.push((leaning, all.len() - 1));
                    all.len() - 1
                }
            };
            let decided = &mut all[place];
            let (decision, numbers) = (&decided.decision, &decided.numbers);
            decided.vnis.push(OfVni {
                name: vni.name.clone(),
                number: published.number,
                wanted: self.zone_tables(vni, servers, decision, numbers, &mut room),
            });
        }
        Ok(all)
    }

    /// The tables that are not in force as they are to be, by their numbers.
    fn changed_tables(&self, decided: &[Decided]) -> Vec<(u32, Arc<[u32]>)> {
        let mut tables = Vec::new();
        for decided in decided {
            for vni in &decided.vnis {
                let Some(published) = self.published.get(&vni.name) else {
                    continue;
                };
                if decided.is_changed {
                    tables.push((vni.number.into(), Arc::clone(&decided.table)));
                }
                for (zone, table) in &vni.wanted.tables {
                    let before = published.zones.get(zone);
                    if before.is_none_or(|before| before.buckets != table.buckets) {
                        tables.push((table.number, Arc::clone(&table.buckets)));
                    }
                }
            }
        }
        tables
    }

    /// What was decided is in force.
    fn take_up(&mut self, decided: Decided) {
        let spread = Spread::of(decided.decision, &decided.numbers, decided.table);
        let spread = Arc::new(spread);
        for vni in decided.vnis {
            self.tell_refused(&vni.name, &vni.wanted.refused);
            if let Some(published) = self.published.get_mut(&vni.name) {
                published.spread = Arc::clone(&spread);
                published.zones = vni.wanted.tables;
            }
        }
    }

    /// An instance's place, by its number.
    fn place_of(&self, number: u16) -> u32 {
        let mut instances = self.state.instances.iter();
        let place = instances.position(|instance| instance.number == u32::from(number));
        place.map_or(NONE, |place| place as u32)
    }

    /// Who is the primary of each bucket, by place.
    fn primaries(&self, buckets: &[u32]) -> Vec<u32> {
        // By the set's number: it is asked for each bucket.
        let mut primaries = vec![NONE; limits::REPLICA_SETS as usize];
        for set in parts(buckets).into_keys() {
            let primary = self.book.get(set).and_then(<[u16]>::first);
            if let (Some(place), Some(primary)) = (primaries.get_mut(set as usize), primary) {
                *place = self.place_of(*primary);
            }
        }
        let primary = |set: &u32| primaries.get(*set as usize).copied().unwrap_or(NONE);
        buckets.iter().map(primary).collect()
    }

    fn decide(
        &self,
        vni: &config::Vni,
        members: &[usize],
        spread: &Spread,
        leaning: Option<&Leaning>,
    ) -> Decision {
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
        let mut decision = decide(&candidates, &policy, &spread.previous, leaning);
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
