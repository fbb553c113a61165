//! What new flows meet: replica sets, steering tables and redirect targets. Everything is written
//! before something names it, and a table is swapped in by one update.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    rc::Rc,
    sync::Arc,
};

use aya::maps::{DevMap, Map, MapData, MapInfo, lpm_trie::Key};
use ipnet::Ipv6Net;
use mirror_common::{
    flow::Address,
    limits::{REPLICA_SETS, REPLICAS, STEERING_BUCKETS},
    replica_set::ReplicaSet,
    steering::Source,
};
use tracing::warn;

use super::{
    Dataplane, DataplaneError,
    error::{MapContext, PathContext},
    maps::absent_is_fine,
    sys,
};

/// A replica set with the interfaces that lead to its instances, by slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedSet {
    /// Its number.
    pub number: u32,
    /// Its instances.
    pub set: ReplicaSet,
    /// 0: the interface is not there now.
    pub ifindexes: [u32; REPLICAS],
}

/// Some clients of a VNI; IPv4 ones by their mapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourcePrefix {
    /// The VNI's number.
    pub vni: u16,
    /// Where they are.
    pub prefix: Ipv6Net,
}

impl SourcePrefix {
    fn key(self) -> Key<Source> {
        let octets = self.prefix.network().octets();
        let (words, _) = octets.as_chunks::<4>();
        let source = Source {
            vni: self.vni.into(),
            client: std::array::from_fn(|word| u32::from_ne_bytes(words[word])),
        };
        let bits = Source::VNI_BITS + u32::from(self.prefix.prefix_len());
        Key::new(bits, source)
    }
}

/// An address's bytes in their order.
fn bytes_of(address: Address) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (chunk, word) in bytes.chunks_exact_mut(4).zip(address) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

impl Dataplane {
    /// Publishes replica sets, or corrects their interfaces. A number that is in use must keep
    /// its instances.
    ///
    /// An inner devmap is made once per number and then written in place, because each write of
    /// the outer map waits for all running programs (synchronize_rcu): those are done in one go.
    pub fn publish_sets(&mut self, sets: &[PublishedSet]) -> Result<(), DataplaneError> {
        const MAP: &str = "SET_PORTS";
        let mut made: Vec<(u32, OwnedFd)> = Vec::new();
        for published in sets {
            let number = published.number;
            self.maps
                .sets
                .set(number, published.set, 0)
                .on_map("SETS", "write")?;
            let path = self.pins.set(number);
            if path.exists() {
                let data = MapData::from_pin(&path).on_map(MAP, "open an inner map of")?;
                self.fill(data, published)?;
                continue;
            }
            let shape = self.inner(MAP)?;
            let data = MapData::create(shape.definition(), "SET_PORTS_inner", None)
                .on_map(MAP, "create an inner map of")?;
            let fd = data.fd().as_fd().try_clone_to_owned();
            let fd = fd.path("duplicate", self.pins.map(MAP))?;
            self.fill(data, published)?;
            made.push((number, fd));
        }
        let (numbers, fds): (Vec<u32>, Vec<u32>) = made
            .iter()
            .map(|(number, fd)| (*number, fd.as_raw_fd() as u32))
            .unzip();
        sys::update_batch(self.maps.descriptors.set_ports.fd(), &numbers, &fds)
            .path("write", self.pins.map(MAP))?;
        // Not before: what is pinned is in force.
        for (number, fd) in &made {
            let path = self.pins.set(*number);
            sys::pin(fd.as_fd(), &path).path("pin", &path)?;
        }
        Ok(())
    }

    /// Writes a set's ports into its inner map.
    fn fill(&self, inner: MapData, published: &PublishedSet) -> Result<(), DataplaneError> {
        let mut ports = Map::from_map_data(inner)
            .and_then(DevMap::try_from)
            .on_map("SET_PORTS", "open an inner map of")?;
        for (slot, &ifindex) in published.ifindexes.iter().enumerate() {
            let slot = slot as u32;
            let clone = &self.programs.clone;
            if ifindex != 0 {
                match ports.set(slot, ifindex, Some(clone), 0) {
                    Ok(()) => continue,
                    // It went away a moment ago; netlink will tell, and the others go on.
                    Err(error) => warn!(
                        ifindex,
                        set = published.number,
                        "no redirect target: {error}"
                    ),
                }
            }
            ports
                .set(slot, 0, None, 0)
                .map_err(|error| DataplaneError::Program {
                    program: "clone",
                    reason: format!("slot {slot} of set {}: {error}", published.number),
                })?;
        }
        Ok(())
    }

    /// The published replica sets.
    pub fn sets(&self) -> Result<Vec<(u32, ReplicaSet)>, DataplaneError> {
        let mut found = Vec::new();
        for number in 0..REPLICA_SETS {
            let set = self.maps.sets.get(&number, 0).on_map("SETS", "read")?;
            if set.replicas > 0 {
                found.push((number, set));
            }
        }
        Ok(found)
    }

    /// Frees the number of a set that no flow uses.
    pub fn retire_set(&mut self, number: u32) -> Result<(), DataplaneError> {
        self.maps
            .sets
            .set(number, ReplicaSet::default(), 0)
            .on_map("SETS", "write")
    }

    /// Swaps in new steering tables by their numbers, each at once. Those of VNIs have the VNIs' numbers. Those that are equal, as
    /// those of VNIs with the same instances are, are one map: none is ever changed in place.
    pub fn swap_tables(&mut self, tables: &[(u32, Arc<[u32]>)]) -> Result<(), DataplaneError> {
        let buckets: Vec<u32> = (0..STEERING_BUCKETS).collect();
        let shape = *self.inner("STEERING")?;
        let mut made = HashMap::<&[u32], Rc<MapData>>::new();
        // By where it is in memory too: most of many tables are one, and long.
        let mut seen = HashMap::<*const u32, Rc<MapData>>::new();
        let mut maps = Vec::new();
        for (_, table) in tables {
            if let Some(data) = seen.get(&table.as_ptr()) {
                maps.push(Rc::clone(data));
                continue;
            }
            let data = match made.entry(table) {
                Entry::Occupied(equal) => Rc::clone(equal.get()),
                Entry::Vacant(place) => {
                    let data = MapData::create(shape.definition(), "STEERING_inner", None)
                        .on_map("STEERING", "create an inner map of")?;
                    sys::update_batch(data.fd(), &buckets, table)
                        .path("fill a table of", self.pins.map("STEERING"))?;
                    Rc::clone(place.insert(Rc::new(data)))
                }
            };
            seen.insert(table.as_ptr(), Rc::clone(&data));
            maps.push(data);
        }
        let keys: Vec<u32> = tables.iter().map(|(number, _)| *number).collect();
        let fds = maps.iter().map(|data| data.fd().as_fd().as_raw_fd() as u32);
        let fds: Vec<u32> = fds.collect();
        // What is pinned is in force, at any time.
        for number in &keys {
            self.unpin_table(*number)?;
        }
        sys::update_batch(self.maps.descriptors.steering.fd(), &keys, &fds)
            .path("write", self.pins.map("STEERING"))?;
        for (number, data) in keys.iter().zip(&maps) {
            let path = self.pins.table(*number);
            sys::pin(data.fd().as_fd(), &path).path("pin", &path)?;
        }
        Ok(())
    }

    fn unpin_table(&self, number: u32) -> Result<(), DataplaneError> {
        let path = self.pins.table(number);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.path("remove", path),
        }
    }

    /// The kernel's number of a steering table: that of one map, whichever VNIs have it.
    pub fn table_id(&self, number: u32) -> Option<u32> {
        let info = MapInfo::from_pin(self.pins.table(number)).ok()?;
        Some(info.id())
    }

    /// The steering table of a number, if there is one.
    pub fn table(&self, number: u32) -> Option<Vec<u32>> {
        let table = MapData::from_pin(self.pins.table(number)).ok()?;
        let mut buckets = Vec::new();
        let mut walk = sys::Walk::<u32, u32>::new(STEERING_BUCKETS as usize);
        // An array's entries come in the order of their numbers.
        while let Some((_, values)) = walk.next(table.fd()).ok()? {
            buckets.extend(values);
        }
        (buckets.len() == STEERING_BUCKETS as usize).then_some(buckets)
    }

    /// Takes a steering table away. Returns when no program uses it any more: the kernel waits for those that run
    /// (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c), so that its number may be another's from now on.
    pub fn drop_table(&mut self, number: u32) -> Result<(), DataplaneError> {
        self.unpin_table(number)?;
        match sys::delete(self.maps.descriptors.steering.fd(), number) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            deleted => deleted.path("delete from", self.pins.map("STEERING")),
        }
    }

    /// The prefixes by which clients find tables.
    pub fn sources(&self) -> Result<Vec<(SourcePrefix, u32)>, DataplaneError> {
        let entries: Result<Vec<_>, _> = self.maps.sources.iter().collect();
        let entries = entries.on_map("SOURCES", "read")?;
        Ok(entries
            .into_iter()
            .filter_map(|(key, table)| {
                let source = key.data();
                let bits = key.prefix_len().checked_sub(Source::VNI_BITS)?;
                let prefix = Ipv6Net::new(bytes_of(source.client).into(), bits as u8).ok()?;
                let vni = source.vni as u16;
                Some((SourcePrefix { vni, prefix }, table))
            })
            .collect())
    }

    /// Has the clients of a prefix use a table, which must be there.
    pub fn set_source(&mut self, source: SourcePrefix, table: u32) -> Result<(), DataplaneError> {
        self.maps
            .sources
            .insert(&source.key(), table, 0)
            .on_map("SOURCES", "write")
    }

    /// Has them use what a shorter prefix says, or the VNI's own table.
    pub fn remove_source(&mut self, source: SourcePrefix) -> Result<(), DataplaneError> {
        absent_is_fine(self.maps.sources.remove(&source.key())).on_map("SOURCES", "delete from")
    }

    /// Makes an interface a redirect target.
    ///
    /// One that is there as it must be is left alone. The kernel replaces an entry of this kind of map by taking the old one
    /// out and then putting the new one in (`__dev_map_hash_update_elem`, kernel/bpf/devmap.c, 6.18): another processor's
    /// frame that comes in between finds none, and is lost.
    pub fn set_port(&mut self, ifindex: u32) -> Result<(), DataplaneError> {
        let id = sys::program_id(self.programs.clone.as_fd());
        let id = id.path("ask about", self.pins.programs().join("clone"))?;
        let present = self.maps.ports.get(ifindex, 0);
        if present.is_ok_and(|port| {
            port.if_index == ifindex && port.prog_id.is_some_and(|program| program.get() == id)
        }) {
            return Ok(());
        }
        self.maps
            .ports
            .insert(ifindex, ifindex, Some(&self.programs.clone), 0)
            .map_err(|error| DataplaneError::Program {
                program: "clone",
                reason: format!("as redirect target {ifindex}: {error}"),
            })
    }

    /// Forgets the redirect targets that `keep` does not want.
    pub fn retain_ports(&mut self, keep: impl Fn(u32) -> bool) -> Result<(), DataplaneError> {
        let keys: Result<Vec<u32>, _> = self.maps.ports.keys().collect();
        for ifindex in keys.on_map("PORTS", "read")? {
            if !keep(ifindex) {
                absent_is_fine(self.maps.ports.remove(ifindex)).on_map("PORTS", "delete from")?;
            }
        }
        Ok(())
    }
}
