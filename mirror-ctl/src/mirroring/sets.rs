//! Replica sets: for each primary its mirrors.
//!
//! A primary has several sets with different first mirrors, so that the flows of a dead primary
//! fall on several instances and not on one; that is chained declustering (Hsiao and DeWitt,
//! ICDE 1990) with a chosen number of neighbours. More sets spread a takeover further, but make
//! it likelier that two simultaneous failures meet in some set (Cidon et al., *Copysets*,
//! USENIX ATC 2013), and each costs a map of the dataplane. The default of four gives every
//! survivor a quarter of the dead one's load.
//!
//! Mirrors are as loaded as their primaries, since they do the same work; each instance
//! therefore mirrors in proportion to its weight, as far as failure domains allow.

use super::{
    balance::{Level, Seat, VOLUME_UNIT},
    instances::Instances,
};
use crate::routing::NONE;
use mirror_common::limits::{REPLICA_SETS, REPLICAS};

/// A member of a VNI, as far as mirroring is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name, unique; decides where else nothing does.
    pub name: &'a str,
    /// Effective weight: of its flows as a primary, and of what it may mirror. 0: neither.
    pub weight: u32,
    /// Failure domain; none: on its own.
    pub domain: Option<&'a str>,
}

/// What is asked of the sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Mirrors a set, 0 to 3.
    pub mirrors: usize,
    /// Sets a primary, at most; as many different first mirrors.
    pub sets_per_primary: usize,
    /// Sets in all, at most, if one set a primary fits: old sets live on until their flows end,
    /// so this is to be well below the dataplane's limit.
    pub sets_max: usize,
    /// How many times its fair share of mirroring an instance may get for the sake of failure
    /// domains. Beyond, a primary is mirrored within its own domain rather than by an instance
    /// that cannot keep up.
    pub overload_max: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mirrors: 1,
            sets_per_primary: 4,
            sets_max: REPLICA_SETS as usize / 2,
            overload_max: 2.0,
        }
    }
}

/// The sets of a VNI. Instances are positions among the members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Primary first, then its mirrors in order of preference; one to four different instances.
    pub sets: Vec<Vec<u32>>,
    /// For each set its part of its primary's buckets, in proportion to the primary's other sets.
    pub shares: Vec<u32>,
    /// For each member the numbers, in `sets`, of the sets whose primary it is.
    pub of_primary: Vec<Vec<u32>>,
}

impl Plan {
    /// Has these instances mirror every set: members beyond those that were planned for.
    pub fn mirror_all_on(&mut self, instances: &[u32]) {
        for set in &mut self.sets {
            set.extend(instances.iter().take(REPLICAS - set.len().min(REPLICAS)));
        }
    }
}

/// Chooses the sets of `members`: a primary for each with a weight, mirrors only with a weight.
///
/// Another failure domain than those already in the set comes first, then whoever has the least
/// to mirror for its weight, then the next by name, so that equal instances mirror each other
/// in a ring. Sets of `previous` stay as they are where that is possible, apart from those that are
/// moved to relieve an instance that mirrors much more than its part; the order of `previous`
/// and of `members` does not matter.
#[must_use]
pub fn plan(members: &[Member<'_>], options: &Options, previous: &[Vec<u32>]) -> Plan {
    let instances = Instances::of(members);
    let primaries: Vec<u32> = instances
        .order
        .iter()
        .copied()
        .filter(|&p| members[p as usize].weight > 0)
        .collect();
    let mirrors = options.mirrors.min(REPLICAS - 1);
    let per_primary = options
        .sets_per_primary
        .min(options.sets_max / primaries.len().max(1))
        .max(1);

    let mut sets: Vec<Vec<u32>> = Vec::new();
    let mut remembered: Vec<&[u32]> = Vec::new();
    let mut seats: Vec<Seat> = Vec::new();
    for &primary in &primaries {
        let count = if mirrors == 0 {
            1
        } else {
            instances.seats(primary, per_primary)
        };
        let volume = u64::from(members[primary as usize].weight) * VOLUME_UNIT / count as u64;
        let kept = known(&instances, previous, primary);
        for number in 0..count {
            seats.push(Seat {
                set: sets.len(),
                volume,
                held: NONE,
            });
            sets.push(vec![primary]);
            remembered.push(kept.get(number).copied().unwrap_or(&[]));
        }
    }
    let mut shares = vec![1; sets.len()];
    for slot in 1..=mirrors {
        for (seat, remembered) in seats.iter_mut().zip(&remembered) {
            seat.held = remembered.get(slot).copied().unwrap_or(NONE);
        }
        let first = slot == 1;
        let mut level = Level::new(&instances, &sets, &mut seats, first, options.overload_max);
        level.settle();
        if first {
            shares = level.shares();
        }
        for seat in seats.iter().filter(|seat| seat.held != NONE) {
            sets[seat.set].push(seat.held);
        }
    }
    // By name, so that the same sets are the same plan whatever the order they were found in.
    let mut shared: Vec<(Vec<u32>, u32)> = sets.into_iter().zip(shares).collect();
    shared.sort_by_cached_key(|(set, _)| instances.ranks(set));
    let (sets, shares): (Vec<Vec<u32>>, Vec<u32>) = shared.into_iter().unzip();
    let mut of_primary = vec![Vec::new(); members.len()];
    for (number, set) in sets.iter().enumerate() {
        of_primary[set[0] as usize].push(number as u32);
    }
    Plan {
        sets,
        shares,
        of_primary,
    }
}

/// The previous sets of a primary whose first mirrors can still be one, each first mirror once,
/// in an order that does not depend on that of `previous`.
fn known<'a>(instances: &Instances<'_>, previous: &'a [Vec<u32>], primary: u32) -> Vec<&'a [u32]> {
    let mut kept: Vec<&[u32]> = previous
        .iter()
        .map(Vec::as_slice)
        .filter(|set| set.first() == Some(&primary))
        .filter(|set| set.len() > 1 && set[1] != primary && instances.weight(set[1]) > 0.0)
        .collect();
    kept.sort_by_cached_key(|set| instances.ranks(set));
    kept.dedup_by_key(|set| set[1]);
    kept
}
