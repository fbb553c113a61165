//! Which replica set has which number. A set lives until no table names it and no flow uses it.
//! Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use mirror_common::{limits, replica_set::ReplicaSet};

/// Sweeps in a row that must not meet a set before its number is free: a flow that was opened
/// with a table just swapped out may be met by the second only.
const SWEEPS: u32 = 2;
/// From a table's swap until the sweeps count: no packet is in flight for so long.
const SETTLE_NS: u64 = 1_000_000_000;

/// The published sets.
#[derive(Clone, Debug, Default)]
pub struct SetBook {
    numbers: HashMap<Vec<u16>, u32>,
    sets: BTreeMap<u32, Vec<u16>>,
    /// In a table now.
    named: HashSet<u32>,
    /// Not in a table: since when, and sweeps that did not meet it.
    retired: HashMap<u32, (u64, u32)>,
}

impl SetBook {
    /// What is published, when the agent starts.
    pub fn of(published: &[(u32, ReplicaSet)], now_ns: u64) -> Self {
        let mut book = Self::default();
        for (number, set) in published {
            let replicas = usize::from(set.replicas).min(limits::REPLICAS);
            book.insert(*number, set.instances[..replicas].to_vec());
            book.retired.insert(*number, (now_ns, 0));
        }
        book
    }

    /// The number of a set; `true`: a new one, to be published.
    pub fn number(&mut self, instances: &[u16]) -> Option<(u32, bool)> {
        if let Some(number) = self.numbers.get(instances) {
            return Some((*number, false));
        }
        let number = (0..limits::REPLICA_SETS).find(|number| !self.sets.contains_key(number))?;
        self.insert(number, instances.to_vec());
        Some((number, true))
    }

    fn insert(&mut self, number: u32, instances: Vec<u16>) {
        self.numbers.insert(instances.clone(), number);
        self.sets.insert(number, instances);
    }

    /// The instances of a set.
    pub fn get(&self, number: u32) -> Option<&[u16]> {
        self.sets.get(&number).map(Vec::as_slice)
    }

    /// All sets.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u16])> {
        self.sets
            .iter()
            .map(|(number, set)| (*number, set.as_slice()))
    }

    /// Whether an instance is in any set.
    pub fn uses(&self, instance: u16) -> bool {
        self.sets.values().any(|set| set.contains(&instance))
    }

    /// Says which sets the tables name now.
    pub fn name_only(&mut self, named: HashSet<u32>, now_ns: u64) {
        for number in self.sets.keys() {
            if named.contains(number) {
                self.retired.remove(number);
            } else {
                self.retired.entry(*number).or_insert((now_ns, 0));
            }
        }
        self.named = named;
    }

    /// Takes note of a sweep that met flows of `met`; returns the numbers that are free now.
    pub fn swept(&mut self, began_ns: u64, met: &HashSet<u32>) -> Vec<u32> {
        let mut free = Vec::new();
        for (number, (since_ns, sweeps)) in &mut self.retired {
            if met.contains(number) {
                *sweeps = 0;
            } else if began_ns > *since_ns + SETTLE_NS {
                *sweeps += 1;
            }
            if *sweeps >= SWEEPS {
                free.push(*number);
            }
        }
        free.sort_unstable();
        for number in &free {
            self.retired.remove(number);
            if let Some(set) = self.sets.remove(number) {
                self.numbers.remove(&set);
            }
        }
        free
    }
}

/// A set as the dataplane has it.
pub fn replica_set(instances: &[u16]) -> ReplicaSet {
    let mut set = ReplicaSet::default();
    for (place, instance) in set.instances.iter_mut().zip(instances) {
        *place = *instance;
        set.replicas += 1;
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_number_is_kept_while_anything_uses_it() {
        let mut book = SetBook::default();
        assert_eq!(book.number(&[1, 2]), Some((0, true)));
        assert_eq!(book.number(&[2, 1]), Some((1, true)));
        assert_eq!(book.number(&[1, 2]), Some((0, false)));
        book.name_only([0, 1].into(), S);
        assert!(book.swept(100 * S, &HashSet::new()).is_empty());
        book.name_only([1].into(), 100 * S);
        // Too soon, then met, then twice not.
        assert!(book.swept(101 * S, &HashSet::new()).is_empty());
        assert!(book.swept(103 * S, &[0].into()).is_empty());
        assert!(book.swept(104 * S, &HashSet::new()).is_empty());
        assert!(book.uses(2) && book.get(0).is_some());
        assert_eq!(book.swept(105 * S, &HashSet::new()), [0]);
        assert!(book.get(0).is_none());
        // The number is given again.
        assert_eq!(book.number(&[3]), Some((0, true)));
    }

    #[test]
    fn a_set_that_is_named_again_is_no_longer_retired() {
        let mut book = SetBook::of(&[(5, replica_set(&[1, 2]))], 0);
        assert_eq!(book.number(&[1, 2]), Some((5, false)));
        assert!(book.swept(10 * S, &HashSet::new()).is_empty());
        book.name_only([5].into(), 11 * S);
        assert!(book.swept(12 * S, &HashSet::new()).is_empty());
        assert!(book.swept(13 * S, &HashSet::new()).is_empty());
        assert!(book.get(5).is_some());
    }

    #[test]
    fn there_is_an_end_to_numbers() {
        let mut book = SetBook::default();
        for n in 0..limits::REPLICA_SETS {
            assert!(book.number(&[n as u16]).is_some());
        }
        assert_eq!(book.number(&[9, 9]), None);
    }
}
