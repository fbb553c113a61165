//! Steering tables for the clients of zones: who has one, which number it has, and by which prefixes clients find it.
//!
//! The dataplane never meets half of it. A table is there before a prefix names it and the VNI says that there are any; it goes
//! when no prefix names it any more, and the kernel has waited for programs that read it. Until then they
//! fall back on the VNI's own table, as they do for sources of no zone.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use mirror_common::limits::{SOURCES, VNIS, ZONE_TABLES};
use tracing::{info, warn};

use super::{Agent, log::LogEntry, publish::shares};
use crate::{
    clock, config,
    dataplane::{DataplaneError, SourcePrefix},
    mirroring::Decision,
    routing::{
        NONE,
        select::{Choice, Table},
    },
};

/// A table that is in force.
#[derive(Clone, Debug, Default)]
pub(super) struct ZoneTable {
    /// Its number in the dataplane.
    pub(super) number: u32,
    /// The primaries, by position among the instances of the decision in force.
    pub(super) positions: Vec<u32>,
    /// The sets.
    pub(super) buckets: Arc<[u32]>,
}

/// The tables that a VNI is to have.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// By zone.
    pub(super) tables: BTreeMap<String, ZoneTable>,
    /// Zones for which there is none left.
    pub(super) refused: BTreeSet<usize>,
}

/// What is left of the dataplane's bounds while the tables of all VNIs are planned.
pub(super) struct Room {
    free: BTreeSet<u32>,
    tables: usize,
    sources: usize,
}

impl Agent {
    /// What there is for zones' tables.
    pub(super) fn room(&self) -> Room {
        let numbers = VNIS..VNIS + ZONE_TABLES;
        let used: HashSet<u32> = self
            .published
            .values()
            .flat_map(|published| published.zones.values().map(|table| table.number))
            .collect();
        Room {
            free: numbers.filter(|number| !used.contains(number)).collect(),
            tables: ZONE_TABLES as usize,
            sources: SOURCES as usize,
        }
    }

    /// The tables for zones from which a VNI's instances weigh otherwise than in its common table.
    pub(super) fn zone_tables(
        &self,
        vni: &config::Vni,
        members: &[usize],
        decision: &Decision,
        numbers: &[u32],
        room: &mut Room,
    ) -> Wanted {
        let mut wanted = Wanted::default();
        let Some(published) = self.published.get(&vni.name) else {
            return wanted;
        };
        let prefixes = self.state.bearings.sources.entries().count();
        for (place, zone) in self.state.config.zones.iter().enumerate() {
            if zone.prefixes.is_empty() {
                continue;
            }
            let Some(leaning) = self.state.leaning(vni, members, Some(place)) else {
                continue;
            };
            let before = published.zones.get(&zone.name);
            let positions = before.map_or(&[][..], |table| &table.positions);
            let names = &published.spread.previous.names;
            let Some(positions) = decision.table_for(&leaning, names, positions) else {
                continue;
            };
            let is_first = wanted.tables.is_empty();
            let number = before.map(|table| table.number);
            let Some(number) = room.take(number, if is_first { prefixes } else { 0 }) else {
                wanted.refused.insert(place);
                continue;
            };
            let buckets = before.map_or(&[][..], |table| &table.buckets);
            let buckets = decision.numbered(&positions, numbers, buckets).into();
            let table = ZoneTable {
                number,
                positions,
                buckets,
            };
            wanted.tables.insert(zone.name.clone(), table);
        }
        wanted
    }

    /// Says for which zones there are no tables left, when that changes.
    pub(super) fn tell_refused(&mut self, vni: &str, refused: &BTreeSet<usize>) {
        let Some(published) = self.published.get_mut(vni) else {
            return;
        };
        if published.refused == *refused {
            return;
        }
        let names = &self.state.bearings.zones;
        let fresh = refused.difference(&published.refused);
        for zone in fresh.filter_map(|place| names.get(*place)) {
            warn!(
                vni,
                zone,
                "no steering table is left (at most {ZONE_TABLES}, and {SOURCES} prefixes over all VNIs with \
                 one): its clients are spread as those of no zone"
            );
            self.log.add([LogEntry {
                time_ns: clock::now_ns(),
                kind: "zone".to_owned(),
                vni: Some(vni.to_owned()),
                from: Some(zone.clone()),
                to: Some("common".to_owned()),
                cause: Some("no-table-left".to_owned()),
                ..LogEntry::default()
            }]);
        }
        published.refused = refused.clone();
    }

    /// Has clients find the tables in force, and takes away those that are not any more. Whether a number has become free.
    pub(super) fn write_sources(&mut self) -> Result<bool, DataplaneError> {
        let wanted = self.wanted_sources();
        let zoned = Some(wanted.keys().map(|source| source.vni).collect());
        for (source, table) in &wanted {
            if self.sources.get(source) != Some(table) {
                self.dataplane.set_source(*source, *table)?;
                self.sources.insert(*source, *table);
            }
        }
        if self.zoned != zoned {
            self.write_vnis()?;
            self.zoned = zoned;
        }
        let stale: Vec<SourcePrefix> = self.sources.keys().copied().collect();
        for source in stale.iter().filter(|source| !wanted.contains_key(source)) {
            self.dataplane.remove_source(*source)?;
            self.sources.remove(source);
        }
        self.drop_zone_tables()
    }

    fn wanted_sources(&self) -> BTreeMap<SourcePrefix, u32> {
        let names = &self.state.bearings.zones;
        let mut wanted = BTreeMap::new();
        for published in self.published.values() {
            if published.zones.is_empty() {
                continue;
            }
            let vni = published.number;
            for (prefix, zone) in self.state.bearings.sources.entries() {
                let zone = zone.and_then(|place| names.get(place));
                let own = zone.and_then(|zone| published.zones.get(zone));
                // The common one, within a prefix of a zone that has its own.
                let table = own.map_or(u32::from(vni), |table| table.number);
                wanted.insert(SourcePrefix { vni, prefix }, table);
            }
        }
        wanted
    }

    fn drop_zone_tables(&mut self) -> Result<bool, DataplaneError> {
        let in_force: HashSet<(u16, String)> = self
            .published
            .values()
            .flat_map(|published| {
                let zones = published.zones.keys();
                zones.map(|zone| (published.number, zone.clone()))
            })
            .collect();
        let numbers: HashSet<u32> = self
            .published
            .values()
            .flat_map(|published| published.zones.values().map(|table| table.number))
            .collect();
        let mut freed = false;
        for (vni, zone, number) in self.dataplane.maps.register.zone_tables()? {
            if !in_force.contains(&(vni, zone.clone())) {
                // An agent that was cut off may have noted a number that it did not come to use.
                if !numbers.contains(&number) {
                    self.dataplane.drop_table(number)?;
                }
                self.dataplane.maps.register.remove_zone_table(vni, &zone)?;
                info!(zone, "its clients need no steering table of their own");
                freed = true;
            }
        }
        Ok(freed)
    }

    /// Everything that a VNI's new flows are spread by.
    pub(super) fn choice(&self, vni: &config::Vni, members: &[usize]) -> Choice {
        let Some(published) = self.published.get(&vni.name) else {
            return Choice::default();
        };
        let Some(weights) = &published.spread.previous.weights else {
            return Choice::default();
        };
        let zones = &self.state.bearings.zones;
        let candidates = members.len();
        let spread = &published.spread;
        let table = |buckets: &Arc<[u32]>, shares, zone| Table {
            buckets: Arc::clone(buckets),
            shares,
            distances: self.state.distances(members, zone),
        };
        let by_zone = zones.iter().enumerate().filter_map(|(place, name)| {
            let own = published.zones.get(name)?;
            let shares = shares(&own.positions, candidates);
            Some((place, table(&own.buckets, shares, Some(place))))
        });
        let position = |number: &u16| {
            let of = |place: &usize| self.state.instances[*place].number == u32::from(*number);
            members.iter().position(of).map_or(NONE, |p| p as u32)
        };
        let sets = spread.sets.keys().filter_map(|number| {
            let set = self.book.get(*number)?;
            Some((*number, set.iter().map(position).collect()))
        });
        Choice {
            sources: Arc::clone(&self.state.bearings.sources),
            zones: Arc::clone(zones),
            candidates: self.state.known(vni, members, weights),
            rule: spread.rule,
            common: table(&spread.table, spread.shares.clone(), None),
            by_zone: by_zone.collect(),
            refused: published.refused.clone(),
            sets: sets.collect(),
        }
    }
}

impl Room {
    /// A number for a table, the one it had if it had one. `sources`: prefixes that it needs besides.
    fn take(&mut self, had: Option<u32>, sources: usize) -> Option<u32> {
        if self.tables == 0 || self.sources < sources {
            return None;
        }
        let number = had.or_else(|| self.free.pop_first())?;
        self.tables -= 1;
        self.sources -= sources;
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_end_to_tables_and_prefixes() {
        let mut room = Room {
            free: [7, 9].into(),
            tables: 5,
            sources: 10,
        };
        // Who has one keeps it, and needs no number.
        assert_eq!(room.take(Some(5), 6), Some(5));
        assert_eq!(room.take(None, 5), None, "prefixes");
        assert_eq!(room.take(None, 4), Some(7));
        assert_eq!(room.take(None, 0), Some(9));
        assert_eq!(room.take(None, 0), None, "numbers");
        assert_eq!(room.take(Some(5), 0), Some(5));
        assert_eq!(room.take(Some(6), 0), Some(6));
        assert_eq!(room.take(Some(8), 0), None, "tables");
    }
}
