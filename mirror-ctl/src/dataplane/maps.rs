//! The pinned maps by their types: single entries of instances, VNIs, links and counters.

use std::{net::IpAddr, ops::Range};

use aya::maps::{
    Array, DevMapHash, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues,
};
use mirror_common::{
    allowance::Allowance,
    counts::{Counts, FIRST_VNI, FORMER, NO_VNI},
    flow::{Address, Flow, FlowKey, PlainFlow, TcpFlow, ipv4, is_ipv4},
    instance::{Instance, Measures, Vitals},
    limits,
    parked::Parked,
    quic::Quic,
    replica_set::ReplicaSet,
    steering::Source,
    vni::{Vni, VniKey},
};

use super::{
    DataplaneError,
    error::{MapContext, PathContext},
    host::Pins,
    register::Register,
    sys::Walk,
};

/// So many vitals are read by a call each.
const VITALS_ONE_BY_ONE: usize = 16;

/// VNI addresses read by one call.
const VNIS_AT_ONCE: usize = 1_024;

/// Handles of all maps. Each thread that needs some opens its own.
pub struct Maps {
    pub(super) vnis: HashMap<MapData, VniKey, Vni>,
    allowances: Array<MapData, Allowance>,
    quic: Array<MapData, Quic>,
    pub(super) sources: LpmTrie<MapData, Source, u32>,
    pub(super) sets: Array<MapData, ReplicaSet>,
    pub(super) ports: DevMapHash<MapData>,
    instances: Array<MapData, Instance>,
    vitals: Array<MapData, Vitals>,
    measures: PerCpuArray<MapData, Measures>,
    links: HashMap<MapData, u32, u32>,
    pub(super) flows: HashMap<MapData, FlowKey, PlainFlow>,
    pub(super) mirrored_flows: HashMap<MapData, FlowKey, TcpFlow>,
    pub(super) half_open: HashMap<MapData, FlowKey, TcpFlow>,
    pub(super) datagram_flows: HashMap<MapData, FlowKey, Flow>,
    pub(super) descriptors: Descriptors,
    parked: Array<MapData, Parked>,
    counters: PerCpuArray<MapData, Counts>,
    /// Names and numbers.
    pub register: Register,
}

/// Some maps once more, for calls that aya has no wrapper for.
pub(super) struct Descriptors {
    vnis: MapData,
    pub(super) steering: MapData,
    pub(super) set_ports: MapData,
    vitals: MapData,
    pub(super) flows: MapData,
    pub(super) mirrored_flows: MapData,
    pub(super) half_open: MapData,
    pub(super) datagram_flows: MapData,
}

/// Opens a pinned map as its type.
pub(super) fn open_map<M>(pins: &Pins, name: &'static str) -> Result<M, DataplaneError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let data = open_data(pins, name)?;
    Map::from_map_data(data)
        .and_then(M::try_from)
        .on_map(name, "open as its type")
}

pub(super) fn open_data(pins: &Pins, name: &'static str) -> Result<MapData, DataplaneError> {
    MapData::from_pin(pins.map(name)).on_map(name, "open")
}

impl Maps {
    pub(super) fn open(pins: &Pins) -> Result<Self, DataplaneError> {
        Ok(Self {
            vnis: open_map(pins, "VNIS")?,
            allowances: open_map(pins, "ALLOWANCES")?,
            quic: open_map(pins, "QUIC")?,
            sources: open_map(pins, "SOURCES")?,
            sets: open_map(pins, "SETS")?,
            ports: open_map(pins, "PORTS")?,
            instances: open_map(pins, "INSTANCES")?,
            vitals: open_map(pins, "VITALS")?,
            measures: open_map(pins, "MEASURES")?,
            links: open_map(pins, "LINKS")?,
            flows: open_map(pins, "FLOWS")?,
            mirrored_flows: open_map(pins, "MIRRORED_FLOWS")?,
            half_open: open_map(pins, "HALF_OPEN")?,
            datagram_flows: open_map(pins, "DATAGRAM_FLOWS")?,
            descriptors: Descriptors {
                vnis: open_data(pins, "VNIS")?,
                steering: open_data(pins, "STEERING")?,
                set_ports: open_data(pins, "SET_PORTS")?,
                vitals: open_data(pins, "VITALS")?,
                flows: open_data(pins, "FLOWS")?,
                mirrored_flows: open_data(pins, "MIRRORED_FLOWS")?,
                half_open: open_data(pins, "HALF_OPEN")?,
                datagram_flows: open_data(pins, "DATAGRAM_FLOWS")?,
            },
            parked: open_map(pins, "PARKED")?,
            counters: open_map(pins, "COUNTERS")?,
            register: Register::open(pins)?,
        })
    }

    /// One entry of the instance table.
    pub fn instance(&self, number: u32) -> Result<Instance, DataplaneError> {
        self.instances.get(&number, 0).on_map("INSTANCES", "read")
    }

    /// Writes an instance: the one write that takes it out, or back in.
    pub fn set_instance(&mut self, number: u32, instance: Instance) -> Result<(), DataplaneError> {
        self.instances
            .set(number, instance, 0)
            .on_map("INSTANCES", "write")
    }

    /// What the dataplane noticed of instances. Few are read one by one; many by as few calls
    /// as it takes, since this is done every few milliseconds.
    pub fn vitals(&self, numbers: &[u32]) -> Result<Vec<Vitals>, DataplaneError> {
        let one = |number: &u32| self.vitals.get(number, 0).on_map("VITALS", "read");
        if numbers.len() <= VITALS_ONE_BY_ONE {
            return numbers.iter().map(one).collect();
        }
        let mut all: Vec<Vitals> = Vec::new();
        let mut walk = Walk::<u32, Vitals>::new(limits::INSTANCES as usize);
        let map = &self.descriptors.vitals;
        while let Some((_, values)) = walk.next(map.fd()).path("read map", "VITALS")? {
            all.extend(values);
        }
        // An array's entries come in the order of their numbers.
        let place = |number: &u32| all.get(*number as usize).copied().unwrap_or_default();
        Ok(numbers.iter().map(place).collect())
    }

    /// What the dataplane measures of instances, over all CPUs: a call each, and a KiB for each CPU.
    pub fn measures(&self, numbers: &[u32]) -> Result<Vec<Measures>, DataplaneError> {
        let one = |number: &u32| {
            let values = self.measures.get(number, 0).on_map("MEASURES", "read")?;
            let mut total = Measures::default();
            values.iter().for_each(|of_cpu| total.add(of_cpu));
            Ok(total)
        };
        numbers.iter().map(one).collect()
    }

    /// A parked segment, which may be torn: its checksum tells.
    pub fn parked(&self, place: u32) -> Result<Parked, DataplaneError> {
        self.parked.get(&place, 0).on_map("PARKED", "read")
    }

    /// Says which instance an interface leads to.
    pub fn set_link(&mut self, ifindex: u32, instance: u32) -> Result<(), DataplaneError> {
        self.links
            .insert(ifindex, instance, 0)
            .on_map("LINKS", "write")
    }

    /// Forgets the interfaces that `keep` does not want.
    pub fn retain_links(&mut self, keep: impl Fn(u32) -> bool) -> Result<(), DataplaneError> {
        let keys: Result<Vec<u32>, _> = self.links.keys().collect();
        for ifindex in keys.on_map("LINKS", "read")? {
            if !keep(ifindex) {
                absent_is_fine(self.links.remove(&ifindex)).on_map("LINKS", "delete from")?;
            }
        }
        Ok(())
    }

    /// All VNI addresses.
    pub fn vnis(&self) -> Result<Vec<(IpAddr, Vni)>, DataplaneError> {
        let mut vnis = Vec::new();
        let mut walk = Walk::<VniKey, Vni>::new(VNIS_AT_ONCE);
        let map = &self.descriptors.vnis;
        while let Some((keys, values)) = walk.next(map.fd()).path("read map", "VNIS")? {
            let addresses = keys.iter().map(|key| address_from(&key.address));
            vnis.extend(addresses.zip(values.iter().copied()));
        }
        Ok(vnis)
    }

    /// Says how many new flows of a VNI get mirrors in a second; `None`: all of them. A limit that is there already is left as
    /// it is: to write it would fill it up.
    pub fn set_allowance(&mut self, vni: u16, per_s: Option<u32>) -> Result<(), DataplaneError> {
        let (number, new) = (u32::from(vni), Allowance::new(per_s));
        let old = self
            .allowances
            .get(&number, 0)
            .on_map("ALLOWANCES", "read")?;
        if old.every_ns == new.every_ns {
            return Ok(());
        }
        self.allowances
            .set(number, new, 0)
            .on_map("ALLOWANCES", "write")
    }

    /// Says on which ports of a VNI QUIC is spoken. What the dataplane knows of its ids stays.
    pub fn set_quic(&mut self, vni: u16, ports: &[u16]) -> Result<(), DataplaneError> {
        let number = u32::from(vni);
        let mut quic = self.quic.get(&number, 0).on_map("QUIC", "read")?;
        let mut new = [0; limits::QUIC_PORTS];
        new.iter_mut().zip(ports).for_each(|(to, port)| *to = *port);
        if quic.ports == new {
            return Ok(());
        }
        quic.ports = new;
        self.quic.set(number, quic, 0).on_map("QUIC", "write")
    }

    /// Writes what the dataplane needs to know of a VNI address.
    pub fn set_vni(&mut self, address: IpAddr, vni: Vni) -> Result<(), DataplaneError> {
        let key = VniKey {
            address: address_to(address),
        };
        self.vnis.insert(key, vni, 0).on_map("VNIS", "write")
    }

    /// Takes a VNI address out of service.
    pub fn remove_vni(&mut self, address: IpAddr) -> Result<(), DataplaneError> {
        let key = VniKey {
            address: address_to(address),
        };
        absent_is_fine(self.vnis.remove(&key)).on_map("VNIS", "delete from")
    }

    /// What became of packets, over all CPUs, by the VNI's name. Those of none, and of VNIs that are gone, are under an empty name.
    pub fn counters(&self) -> Result<Vec<(String, Counts)>, DataplaneError> {
        let mut others = self.counts_of(NO_VNI)?;
        others.add(&self.counts_of(FORMER)?);
        let mut found = vec![(String::new(), others)];
        for (name, number) in self.register.vnis()? {
            found.push((name, self.counts_of(number)?));
        }
        Ok(found)
    }

    /// Numbers of VNIs that there is room for.
    #[must_use]
    pub fn vni_numbers(&self) -> Range<u16> {
        FIRST_VNI..self.counters.len() as u16
    }

    fn counts_of(&self, row: u16) -> Result<Counts, DataplaneError> {
        let values = self.counters.get(&row.into(), 0);
        let mut total = Counts::default();
        let values = values.on_map("COUNTERS", "read")?;
        values.iter().for_each(|of_cpu| total.add(of_cpu));
        Ok(total)
    }

    /// Puts what was counted of a VNI that is gone with those of the others, so that its number can be another's. Its addresses are
    /// out of service: nobody counts meanwhile.
    pub fn retire_counts(&mut self, vni: u16) -> Result<(), DataplaneError> {
        const MAP: &str = "COUNTERS";
        let row = u32::from(vni);
        let gone = self.counters.get(&row, 0).on_map(MAP, "read")?;
        let former = self.counters.get(&FORMER.into(), 0).on_map(MAP, "read")?;
        let sum = gone.iter().zip(former.iter()).map(|(gone, former)| {
            let mut sum = *former;
            sum.add(gone);
            sum
        });
        let none = vec![Counts::default(); gone.len()];
        for (row, values) in [(FORMER.into(), sum.collect()), (row, none)] {
            let values = PerCpuValues::try_from(values).path("read", "the number of CPUs")?;
            self.counters.set(row, values, 0).on_map(MAP, "write")?;
        }
        Ok(())
    }
}

/// Deleting what is not there is not an error.
pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        result => result,
    }
}

/// An address as the dataplane has it.
pub fn address_to(address: IpAddr) -> Address {
    match address.to_canonical() {
        IpAddr::V4(v4) => ipv4(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            std::array::from_fn(|word| {
                let at = word * 4;
                u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
            })
        }
    }
}

/// An address of the dataplane.
pub fn address_from(address: &Address) -> IpAddr {
    if is_ipv4(address) {
        return IpAddr::from(address[3].to_ne_bytes());
    }
    let mut octets = [0; 16];
    for (chunk, word) in octets.chunks_exact_mut(4).zip(address) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    IpAddr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["10.77.0.100", "255.255.255.255", "fd77::100", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(address_from(&address_to(address)), address);
        }
    }
}
