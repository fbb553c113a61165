//! Which number belongs to which name, and what an operator ordered: a pinned map of the agent's
//! own, so that it lives exactly as long as the numbers it explains. (A state file could be
//! lost, or outlive the dataplane.)
//!
//! Keys and values are plain bytes and words, which need no `Pod` implementation of ours.

use std::net::IpAddr;

use aya::maps::{HashMap, MapData};

use super::{
    DataplaneError,
    error::{MapContext, PathContext},
    host::Pins,
    maps::absent_is_fine,
    object::Shape,
};

pub(super) const MAP: &str = "REGISTER";
const KEY_BYTES: usize = 64;
const ENTRIES: u32 = 65_536;

/// What stands behind an instance's state, beyond what the dataplane needs to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstanceRecord {
    /// Its number.
    pub number: u32,
    /// The agent's encoding of an operator's order.
    pub order: u8,
    /// The agent's encoding of the reason for its state.
    pub cause: u8,
    /// When its state changed last, `CLOCK_MONOTONIC`.
    pub changed_ns: u64,
}

/// An address that the agent added to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The address.
    pub address: IpAddr,
    /// The interface it is on.
    pub interface: String,
}

#[derive(Clone, Copy)]
enum Kind {
    Instance = 1,
    Vni = 2,
    Announced = 3,
    Programs = 4,
    ZoneTable = 5,
    Succession = 6,
}

/// The one entry of [`Kind::Programs`].
const PROGRAMS: &str = "object";
/// The one entry of [`Kind::Succession`].
const SUCCEEDS: &str = "succeeds";

type Key = [u8; KEY_BYTES];
type Value = [u64; 4];

/// The map.
pub struct Register(HashMap<MapData, Key, Value>);

impl Register {
    /// Opens the map, or makes it.
    pub(super) fn create(pins: &Pins) -> Result<(), DataplaneError> {
        if pins.map(MAP).exists() {
            return Ok(());
        }
        let shape = Shape {
            map_type: aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_HASH as u32,
            key_size: KEY_BYTES as u32,
            value_size: size_of::<Value>() as u32,
            max_entries: ENTRIES,
            flags: aya_obj::generated::BPF_F_NO_PREALLOC,
        };
        let data = MapData::create(shape.definition(), MAP, None).on_map(MAP, "create")?;
        super::sys::pin(std::os::fd::AsFd::as_fd(data.fd()), &pins.map(MAP))
            .path("pin", pins.map(MAP))
    }

    pub(super) fn open(pins: &Pins) -> Result<Self, DataplaneError> {
        Ok(Self(super::maps::open_map(pins, MAP)?))
    }

    /// All instances by name.
    pub fn instances(&self) -> Result<Vec<(String, InstanceRecord)>, DataplaneError> {
        let record = |[number, bits, changed_ns, _]: Value| InstanceRecord {
            number: number as u32,
            order: bits as u8,
            cause: (bits >> 8) as u8,
            changed_ns,
        };
        Ok(self
            .of(Kind::Instance)?
            .into_iter()
            .map(|(name, value)| (name, record(value)))
            .collect())
    }

    /// Writes what is known of an instance.
    pub fn set_instance(
        &mut self,
        name: &str,
        record: InstanceRecord,
    ) -> Result<(), DataplaneError> {
        let bits = u64::from(record.order) | u64::from(record.cause) << 8;
        let value = [u64::from(record.number), bits, record.changed_ns, 0];
        self.set(Kind::Instance, name, value)
    }

    /// Forgets an instance.
    pub fn remove_instance(&mut self, name: &str) -> Result<(), DataplaneError> {
        self.remove(Kind::Instance, name)
    }

    /// All VNIs' numbers by name.
    pub fn vnis(&self) -> Result<Vec<(String, u16)>, DataplaneError> {
        let entries = self.of(Kind::Vni)?.into_iter();
        Ok(entries
            .map(|(name, value)| (name, value[0] as u16))
            .collect())
    }

    /// Writes a VNI's number.
    pub fn set_vni(&mut self, name: &str, number: u16) -> Result<(), DataplaneError> {
        self.set(Kind::Vni, name, [u64::from(number), 0, 0, 0])
    }

    /// Forgets a VNI.
    pub fn remove_vni(&mut self, name: &str) -> Result<(), DataplaneError> {
        self.remove(Kind::Vni, name)
    }

    /// The steering tables for clients of zones, by the VNI's number and the zone's name.
    pub fn zone_tables(&self) -> Result<Vec<(u16, String, u32)>, DataplaneError> {
        let parse = |(name, value): (String, Value)| {
            let (vni, zone) = name.split_once(':')?;
            Some((vni.parse().ok()?, zone.to_owned(), value[0] as u32))
        };
        let entries = self.of(Kind::ZoneTable)?.into_iter();
        Ok(entries.filter_map(parse).collect())
    }

    /// Notes whose clients a steering table is for.
    pub fn set_zone_table(
        &mut self,
        vni: u16,
        zone: &str,
        table: u32,
    ) -> Result<(), DataplaneError> {
        let value = [u64::from(table), 0, 0, 0];
        self.set(Kind::ZoneTable, &format!("{vni}:{zone}"), value)
    }

    /// Forgets it.
    pub fn remove_zone_table(&mut self, vni: u16, zone: &str) -> Result<(), DataplaneError> {
        self.remove(Kind::ZoneTable, &format!("{vni}:{zone}"))
    }

    /// The addresses that the agent added.
    pub fn announced(&self) -> Result<Vec<Announced>, DataplaneError> {
        let parse = |name: &str| {
            let (address, interface) = name.split_once('%')?;
            Some(Announced {
                address: address.parse().ok()?,
                interface: interface.to_owned(),
            })
        };
        let entries = self.of(Kind::Announced)?;
        Ok(entries.iter().filter_map(|(name, _)| parse(name)).collect())
    }

    /// Notes that the agent added an address.
    pub fn set_announced(&mut self, announced: &Announced) -> Result<(), DataplaneError> {
        let name = format!("{}%{}", announced.address, announced.interface);
        self.set(Kind::Announced, &name, [0; 4])
    }

    /// Notes that the agent removed an address.
    pub fn remove_announced(&mut self, announced: &Announced) -> Result<(), DataplaneError> {
        let name = format!("{}%{}", announced.address, announced.interface);
        self.remove(Kind::Announced, &name)
    }

    /// Identity of the object that the pinned programs are of.
    pub(super) fn programs(&self) -> Result<Option<u64>, DataplaneError> {
        let entries = self.of(Kind::Programs)?;
        Ok(entries.first().map(|(_, value)| value[0]))
    }

    /// Notes which object the pinned programs are of; none while they are being replaced.
    pub(super) fn set_programs(&mut self, identity: Option<u64>) -> Result<(), DataplaneError> {
        match identity {
            Some(identity) => self.set(Kind::Programs, PROGRAMS, [identity, 0, 0, 0]),
            None => self.remove(Kind::Programs, PROGRAMS),
        }
    }

    /// Whether interfaces run the programs of the version before, and the agent is to replace them.
    pub(super) fn succeeds(&self) -> Result<bool, DataplaneError> {
        Ok(!self.of(Kind::Succession)?.is_empty())
    }

    /// Notes it, or that it is done.
    pub(super) fn set_succeeds(&mut self, succeeds: bool) -> Result<(), DataplaneError> {
        match succeeds {
            true => self.set(Kind::Succession, SUCCEEDS, [0; 4]),
            false => self.remove(Kind::Succession, SUCCEEDS),
        }
    }

    fn of(&self, kind: Kind) -> Result<Vec<(String, Value)>, DataplaneError> {
        let mut found = Vec::new();
        for entry in self.0.iter() {
            let (key, value) = entry.on_map(MAP, "read")?;
            if key[0] == kind as u8 {
                let name = key[1..].split(|&byte| byte == 0).next().unwrap_or_default();
                found.push((String::from_utf8_lossy(name).into_owned(), value));
            }
        }
        found.sort();
        Ok(found)
    }

    fn set(&mut self, kind: Kind, name: &str, value: Value) -> Result<(), DataplaneError> {
        self.0
            .insert(key(kind, name), value, 0)
            .on_map(MAP, "write")
    }

    fn remove(&mut self, kind: Kind, name: &str) -> Result<(), DataplaneError> {
        absent_is_fine(self.0.remove(&key(kind, name))).on_map(MAP, "delete from")
    }
}

/// Names are validated to fit (`config::NAME_BYTES_MAX`, an IPv6 address with an interface).
fn key(kind: Kind, name: &str) -> Key {
    let mut key = [0; KEY_BYTES];
    key[0] = kind as u8;
    let bytes = name.as_bytes();
    let length = bytes.len().min(KEY_BYTES - 2);
    key[1..=length].copy_from_slice(&bytes[..length]);
    key
}
