//! `select_instance`: the instance that a new flow gets, by health, load and proximity to its source.
//!
//! What is decided is decided for all flows of a place at once, as a table ([`super::proximity`]); the dataplane finds the
//! table by the source's longest prefix and the bucket by the flow's hash. This answers for one flow from the very same
//! tables, with what they are made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use mirror_common::{limits::STEERING_BUCKETS, steering};

use super::{NONE, State, source::Sources, weights::Rule};

/// Everything that a VNI's new flows are spread by, as it is in force.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Where clients are.
    pub sources: Arc<Sources>,
    /// The zones' names.
    pub zones: Arc<Vec<String>>,
    /// The VNI's instances.
    pub candidates: Vec<Known>,
    /// Who may serve at all.
    pub rule: Option<Rule>,
    /// The table for clients without one of their own.
    pub common: Table,
    /// Tables of zones' clients, by the zone's place.
    pub by_zone: BTreeMap<usize, Table>,
    /// Zones that would have one if there were more.
    pub refused: BTreeSet<usize>,
    /// The replica sets, by positions among the candidates, the primary first.
    pub sets: BTreeMap<u32, Vec<u32>>,
}

/// What is known of an instance wherever a flow comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// What it may be used for.
    pub state: State,
    /// Its score in force.
    pub score: f64,
    /// Its effective weight.
    pub weight: u32,
    /// Where it is.
    pub zone: Option<String>,
    /// What it had in flight when that was decided.
    pub in_flight: u64,
    /// How many times its part that was.
    pub load: f64,
    /// Whether that was too much.
    pub hot: bool,
}

/// A steering table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// For each bucket the number of its replica set.
    pub buckets: Arc<[u32]>,
    /// Each candidate's part of the buckets.
    pub shares: Vec<f64>,
    /// How far away each candidate is from there.
    pub distances: Vec<Distance>,
}

/// How far away an instance is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distance {
    /// By the configuration, ms.
    pub configured_ms: Option<f64>,
    /// By the handshakes of flows, ms.
    pub learned_ms: Option<f64>,
    /// How many of those.
    pub samples: u64,
}

impl Distance {
    /// What counts: the operator's word, else what was learned.
    #[must_use]
    pub fn in_force_ms(&self) -> Option<f64> {
        self.configured_ms.or(self.learned_ms)
    }
}

/// Why a source's flows are spread by the table that is common to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common {
    /// The source is in no zone.
    NoZone,
    /// Its zone's table would be the same.
    Same,
    /// There are no more tables.
    Full,
}

/// An answer of [`select_instance`].
#[derive(Clone, Debug, PartialEq)]
pub struct Selection<'a> {
    /// The zone of the source, by its place, and the prefix that says so.
    pub zone: Option<(usize, IpNet)>,
    /// None: the zone has a table of its own.
    pub common: Option<Common>,
    /// Each candidate's part of such flows.
    pub shares: &'a [f64],
    /// How far away each candidate is.
    pub distances: &'a [Distance],
    /// Each set's part of such flows.
    pub sets: BTreeMap<u32, f64>,
    /// Of the flow that was asked for.
    pub flow: Option<Hit>,
}

/// Where one flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Its bucket of the table.
    pub bucket: u32,
    /// The replica set of that.
    pub set: u32,
}

/// Where a new flow from `source` goes; to which instance exactly, where its hash is known as well. None: there is no table.
#[must_use]
pub fn select_instance(
    choice: &Choice,
    flow: Option<u32>,
    source: IpAddr,
) -> Option<Selection<'_>> {
    let zone = choice.sources.zone_of(source);
    let own = zone.and_then(|(place, _)| choice.by_zone.get(&place));
    let common = match (zone, own) {
        (_, Some(_)) => None,
        (None, None) => Some(Common::NoZone),
        (Some((place, _)), None) if choice.refused.contains(&place) => Some(Common::Full),
        (Some(_), None) => Some(Common::Same),
    };
    let table = own.unwrap_or(&choice.common);
    if table.buckets.is_empty() {
        return None;
    }
    let mut sets = BTreeMap::new();
    for set in table.buckets.iter().filter(|set| **set != NONE) {
        *sets.entry(*set).or_insert(0.0) += 1.0 / table.buckets.len() as f64;
    }
    let hit = |hash: u32| {
        let bucket = steering::bucket(hash, STEERING_BUCKETS);
        let set = *table.buckets.get(bucket as usize)?;
        (set != NONE).then_some(Hit { bucket, set })
    };
    Some(Selection {
        zone,
        common,
        shares: &table.shares,
        distances: &table.distances,
        sets,
        flow: flow.and_then(hit),
    })
}
