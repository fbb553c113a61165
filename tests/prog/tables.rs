//! The dataplane's maps as the tests fill and read them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{
    Array, ArrayOfMaps, DevMap, DevMapHash, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray,
    RingBuf, lpm_trie::Key,
};
use aya::programs::{ProgramFd, Xdp};
use mirror_common::allowance::Allowance;
use mirror_common::counts::{Counts, NO_VNI};
use mirror_common::ethernet::Addresses;
use mirror_common::event::Event;
use mirror_common::flow::{Flow, FlowKey, PlainFlow, TcpFlow};
use mirror_common::fragment::{FragmentKey, Fragmented};
use mirror_common::instance::{Instance, Measures, Vitals};
use mirror_common::limits::{self, REPLICAS, STEERING_BUCKETS};
use mirror_common::parked::{Parked, places};
use mirror_common::quic::{ConnectionId, Quic, Served};
use mirror_common::replica_set::ReplicaSet;
use mirror_common::steering::Source;
use mirror_common::vni::{Vni, VniKey};

use crate::hosts::{
    B, C, D, Family, INSTANCES, QUIC, QUIC_PORT, Steering, VNIS, VniHost, ZONED, instance_mac,
    link_mac, map_address,
};
use crate::network::Network;

/// Capacity of the flow tables in these tests: enough, and soon looked through.
pub(crate) const FLOWS_MAX: u32 = 512;
/// The maps that get it.
pub(crate) const FLOW_MAPS: [&str; 6] = [
    "FLOWS",
    "MIRRORED_FLOWS",
    "HALF_OPEN",
    "DATAGRAM_FLOWS",
    "FRAGMENTS",
    "QUIC_IDS",
];

/// Where a flow is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    HalfOpen,
    Mirrored,
    Plain,
    Datagram,
}

/// Everything that is kept of flows, comparable.
pub(crate) type Snapshot = BTreeMap<String, String>;

/// The first of the tables for zones.
const ZONE_TABLE: u32 = limits::VNIS;
/// Prefixes of clients of [`ZONED`], with their lengths as mapped addresses, and the tables that they name.
const PREFIXES: [(&str, u32, u32); 4] = [
    ("192.0.2.0", 96 + 24, ZONE_TABLE),
    ("192.0.2.128", 96 + 25, ZONED.number as u32),
    ("2001:db8::", 32, ZONE_TABLE),
    ("203.0.113.0", 96 + 24, ZONE_TABLE + 1),
];
/// The same of [`QUIC`]: its clients elsewhere.
const ELSEWHERE: [(&str, u32); 2] = [("198.18.0.0", 96 + 16), ("2001:db8:12::", 48)];
/// Their table.
const ELSEWHERE_TABLE: u32 = ZONE_TABLE + 2;

/// The maps.
pub(crate) struct Tables {
    pub(crate) instances: Array<MapData, Instance>,
    pub(crate) vitals: Array<MapData, Vitals>,
    pub(crate) flows: HashMap<MapData, FlowKey, PlainFlow>,
    pub(crate) mirrored: HashMap<MapData, FlowKey, TcpFlow>,
    pub(crate) half_open: HashMap<MapData, FlowKey, TcpFlow>,
    pub(crate) datagrams: HashMap<MapData, FlowKey, Flow>,
    allowances: Array<MapData, Allowance>,
    fragments: HashMap<MapData, FragmentKey, Fragmented>,
    pub(crate) quic: Array<MapData, Quic>,
    pub(crate) quic_ids: HashMap<MapData, ConnectionId, Served>,
    sets: Array<MapData, ReplicaSet>,
    measures: PerCpuArray<MapData, Measures>,
    parked: Array<MapData, Parked>,
    counters: PerCpuArray<MapData, Counts>,
    events: RingBuf<MapData>,
    ports: DevMapHash<MapData>,
    /// The program of every redirect target.
    clone: ProgramFd,
    /// They hold the inner maps.
    _steering: ArrayOfMaps<MapData, Array<MapData, u32>>,
    _set_ports: ArrayOfMaps<MapData, DevMap<MapData>>,
}

impl Tables {
    /// Takes the maps and writes what does not change during the tests.
    pub(crate) fn fill(ebpf: &mut Ebpf, network: &Network) -> Result<Self> {
        let clone = {
            let program: &Xdp = ebpf.program("clone").context("program clone")?.try_into()?;
            program.fd()?.try_clone()?
        };
        let mut vnis: HashMap<_, VniKey, Vni> = take(ebpf, "VNIS")?;
        let mut links: HashMap<_, u32, u32> = take(ebpf, "LINKS")?;
        let mut sets: Array<_, ReplicaSet> = take(ebpf, "SETS")?;
        let mut steering: ArrayOfMaps<_, Array<MapData, u32>> = take(ebpf, "STEERING")?;
        let mut set_ports: ArrayOfMaps<_, DevMap<MapData>> = take(ebpf, "SET_PORTS")?;
        let mut ports: DevMapHash<_> = take(ebpf, "PORTS")?;
        let ifindex = network.vni_interface();
        ports.insert(ifindex, ifindex, Some(&clone), 0)?;
        for instance in INSTANCES {
            let ifindex = network.link(instance);
            ports.insert(ifindex, ifindex, Some(&clone), 0)?;
            links.insert(ifindex, u32::from(instance), 0)?;
        }
        let mut published: Vec<&[u16]> = Vec::new();
        for vni in VNIS {
            for (place, family) in Family::ALL.into_iter().enumerate() {
                let key = VniKey {
                    address: map_address(vni.address(family)),
                };
                let value = Vni {
                    vni: vni.number,
                    address: place as u8,
                    flags: vni.flags,
                    lag_bytes_max: vni.lag_bytes_max,
                    lag_ms_max: 600_000,
                    handshake_ms: vni.handshake_ms,
                };
                vnis.insert(key, value, 0)?;
            }
            let set = match vni.steering {
                Steering::NoTable => continue,
                Steering::NoSet => u32::MAX,
                Steering::Set(members) => {
                    let known = published.iter().position(|&other| other == members);
                    known.unwrap_or_else(|| {
                        published.push(members);
                        published.len() - 1
                    }) as u32
                }
            };
            steering.set(u32::from(vni.number), &steering_table(set)?, 0)?;
        }
        let number = published.len() as u32;
        published.push(&[B]);
        steering.set(ZONE_TABLE, &steering_table(number)?, 0)?;
        let mut sources: LpmTrie<_, Source, u32> = take(ebpf, "SOURCES")?;
        for (prefix, bits, table) in PREFIXES {
            let source = Source {
                vni: ZONED.number.into(),
                client: map_address(prefix.parse()?),
            };
            let key = Key::new(Source::VNI_BITS + bits, source);
            sources.insert(&key, table, 0)?;
        }
        let number = published.len() as u32;
        published.push(&[C, D]);
        steering.set(ELSEWHERE_TABLE, &steering_table(number)?, 0)?;
        for (prefix, bits) in ELSEWHERE {
            let source = Source {
                vni: QUIC.number.into(),
                client: map_address(prefix.parse()?),
            };
            let key = Key::new(Source::VNI_BITS + bits, source);
            sources.insert(&key, ELSEWHERE_TABLE, 0)?;
        }
        let mut quic: Array<_, Quic> = take(ebpf, "QUIC")?;
        let spoken = Quic {
            ports: [8443, QUIC_PORT, 0, 0],
            ..Quic::default()
        };
        quic.set(QUIC.number.into(), spoken, 0)?;
        for (number, members) in published.into_iter().enumerate() {
            let mut set = ReplicaSet {
                replicas: members.len() as u8,
                ..ReplicaSet::default()
            };
            set.instances[..members.len()].copy_from_slice(members);
            sets.set(number as u32, set, 0)?;
            let mut inner = inner_devmap()?;
            for (slot, &instance) in members.iter().enumerate() {
                inner.set(slot as u32, network.link(instance), Some(&clone), 0)?;
            }
            set_ports.set(number as u32, &inner, 0)?;
        }
        Ok(Self {
            instances: take(ebpf, "INSTANCES")?,
            vitals: take(ebpf, "VITALS")?,
            flows: take(ebpf, "FLOWS")?,
            mirrored: take(ebpf, "MIRRORED_FLOWS")?,
            half_open: take(ebpf, "HALF_OPEN")?,
            datagrams: take(ebpf, "DATAGRAM_FLOWS")?,
            allowances: take(ebpf, "ALLOWANCES")?,
            fragments: take(ebpf, "FRAGMENTS")?,
            measures: take(ebpf, "MEASURES")?,
            quic,
            quic_ids: take(ebpf, "QUIC_IDS")?,
            sets,
            parked: take(ebpf, "PARKED")?,
            counters: take(ebpf, "COUNTERS")?,
            events: take(ebpf, "EVENTS")?,
            ports,
            clone,
            _steering: steering,
            _set_ports: set_ports,
        })
    }

    /// Forgets all flows, events and vital signs; all instances are up again.
    pub(crate) fn reset(&mut self, network: &Network) -> Result<()> {
        clear(&mut self.flows)?;
        clear(&mut self.mirrored)?;
        clear(&mut self.half_open)?;
        clear(&mut self.datagrams)?;
        clear(&mut self.fragments)?;
        clear(&mut self.quic_ids)?;
        let number = QUIC.number.into();
        let mut spoken = self.quic.get(&number, 0)?;
        spoken.lengths = 0;
        self.quic.set(number, spoken, 0)?;
        while self.events.next().is_some() {}
        for vni in VNIS {
            self.allow(vni, Allowance::new(None));
        }
        for instance in INSTANCES {
            let entry = Instance {
                state: mirror_common::instance::state::UP,
                ifindex: network.link(instance),
                addresses: Addresses::new(instance_mac(instance), link_mac(instance)),
                deadline_ms: 0,
                mtu: 9000,
            };
            self.instances.set(u32::from(instance), entry, 0)?;
            let none = Vitals::default();
            self.vitals.set(u32::from(instance), none, 0)?;
        }
        Ok(())
    }

    /// Has a set's number be another one's. The set that was there.
    pub(crate) fn replace_set(&mut self, number: u16, with: ReplicaSet) -> ReplicaSet {
        let was = self.sets.get(&number.into(), 0).unwrap();
        self.sets.set(number.into(), with, 0).unwrap();
        was
    }

    /// Writes what a VNI may mirror of its new flows.
    pub(crate) fn allow(&mut self, vni: VniHost, allowance: Allowance) {
        let number = u32::from(vni.number);
        self.allowances.set(number, allowance, 0).unwrap();
    }

    /// What it may.
    pub(crate) fn allowance(&self, vni: VniHost) -> Allowance {
        self.allowances.get(&u32::from(vni.number), 0).unwrap()
    }

    /// How many datagrams' first fragments are remembered.
    pub(crate) fn fragments(&self) -> usize {
        self.fragments.keys().count()
    }

    /// Has them come so much earlier.
    pub(crate) fn age_fragments(&mut self, seconds: u32) {
        let all: Result<Vec<_>, _> = self.fragments.iter().collect();
        for (key, mut first) in all.unwrap() {
            first.first_s = first.first_s.wrapping_sub(seconds);
            self.fragments.insert(key, first, 0).unwrap();
        }
    }

    /// Counters of all VNIs together, by reason.
    pub(crate) fn counters(&self) -> Result<Vec<u64>> {
        let mut total = self.counted_of(NO_VNI);
        for vni in VNIS {
            total.add(&self.counted_of(vni.number));
        }
        Ok(total.iter().map(|(_, count)| count).collect())
    }

    /// Counters of one VNI.
    pub(crate) fn counted_of(&self, row: u16) -> Counts {
        let values = self.counters.get(&row.into(), 0).unwrap();
        let mut total = Counts::default();
        values.iter().for_each(|of_cpu| total.add(of_cpu));
        total
    }

    /// Events since the last call.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let mut found = Vec::new();
        while let Some(item) = self.events.next() {
            assert_eq!(item.len(), size_of::<Event>());
            // SAFETY: as many bytes as an event has, which is made of integers only.
            found.push(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
        }
        found
    }

    /// What is kept of an instance's behaviour.
    pub(crate) fn vitals(&self, instance: u16) -> Result<Vitals> {
        Ok(self.vitals.get(&u32::from(instance), 0)?)
    }

    /// What was measured of an instance since the programs were loaded.
    pub(crate) fn measures(&self, instance: u16) -> Measures {
        let values = self.measures.get(&u32::from(instance), 0).unwrap();
        let mut total = Measures::default();
        values.iter().for_each(|of_cpu| total.add(of_cpu));
        total
    }

    /// Changes an instance by one write.
    pub(crate) fn change(&mut self, instance: u16, change: impl FnOnce(&mut Instance)) {
        let index = u32::from(instance);
        let mut entry = self.instances.get(&index, 0).unwrap();
        change(&mut entry);
        self.instances.set(index, entry, 0).unwrap();
    }

    /// The segment that is parked for a slot of a flow: what follows it, and its frame.
    pub(crate) fn parked(&self, key: &FlowKey, slot: u8) -> Option<(u32, Vec<u8>)> {
        let (first, second) = places(mirror_common::steering::hash(key), slot);
        let found = [first, second].map(|place| self.parked.get(&place, 0).unwrap());
        let found = found.iter().find(|parked| parked.is_of(key, slot))?;
        Some((found.end, found.frame[..usize::from(found.length)].to_vec()))
    }

    /// Takes a redirect target away.
    pub(crate) fn take_port(&mut self, ifindex: u32) {
        self.ports.remove(ifindex).unwrap();
    }

    /// Makes an interface a redirect target.
    pub(crate) fn give_port(&mut self, ifindex: u32) {
        let clone = Some(&self.clone);
        self.ports.insert(ifindex, ifindex, clone, 0).unwrap();
    }

    /// Where a flow is kept, and its header.
    pub(crate) fn find(&self, key: &FlowKey) -> Option<(Table, Flow)> {
        let tcp = |map: &HashMap<_, _, TcpFlow>| Some(map.get(key, 0).ok()?.flow);
        let found = [
            tcp(&self.half_open).map(|flow| (Table::HalfOpen, flow)),
            tcp(&self.mirrored).map(|flow| (Table::Mirrored, flow)),
            (self.flows.get(key, 0).ok()).map(|flow| (Table::Plain, Flow::alone(flow))),
            (self.datagrams.get(key, 0).ok()).map(|flow| (Table::Datagram, flow)),
        ];
        let mut found = found.into_iter().flatten();
        let first = found.next();
        assert!(found.next().is_none(), "a flow is kept in two tables");
        first
    }

    /// All that is kept of flows and instances.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        let mut all = Snapshot::new();
        list(&self.flows, "FLOWS", &mut all)?;
        list(&self.mirrored, "MIRRORED_FLOWS", &mut all)?;
        list(&self.half_open, "HALF_OPEN", &mut all)?;
        list(&self.datagrams, "DATAGRAM_FLOWS", &mut all)?;
        for instance in INSTANCES {
            let vitals = self.vitals(instance)?;
            all.insert(format!("VITALS {instance}"), format!("{vitals:?}"));
        }
        Ok(all)
    }
}

fn list<V: aya::Pod + std::fmt::Debug>(
    map: &HashMap<MapData, FlowKey, V>,
    name: &str,
    all: &mut Snapshot,
) -> Result<()> {
    for entry in map.iter() {
        let (key, value) = entry?;
        all.insert(format!("{name} {key:?}"), format!("{value:?}"));
    }
    Ok(())
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<M> {
    let map = ebpf.take_map(name).with_context(|| format!("map {name}"))?;
    M::try_from(map).with_context(|| format!("map {name}"))
}

fn clear<K: aya::Pod, V: aya::Pod>(map: &mut HashMap<MapData, K, V>) -> Result<()> {
    let keys: Result<Vec<K>, _> = map.keys().collect();
    for key in keys? {
        map.remove(&key)?;
    }
    Ok(())
}

fn steering_table(set: u32) -> Result<Array<MapData, u32>> {
    let mut table = Array::create(STEERING_BUCKETS, 0)?;
    for bucket in 0..STEERING_BUCKETS {
        table.set(bucket, set, 0)?;
    }
    Ok(table)
}

fn inner_devmap() -> Result<DevMap<MapData>> {
    const BPF_MAP_TYPE_DEVMAP: u32 = 14;
    let (key, value) = (size_of::<u32>() as u32, 2 * size_of::<u32>() as u32);
    let definition =
        aya_obj::Map::new_from_params(BPF_MAP_TYPE_DEVMAP, key, value, REPLICAS as u32, 0);
    let data = MapData::create(definition, "SET_PORTS_inner", None)?;
    Ok(DevMap::try_from(Map::from_map_data(data)?)?)
}
