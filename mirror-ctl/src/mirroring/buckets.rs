//! Which of its primary's replica sets a bucket of the steering table names.

use super::sets::Plan;
use crate::routing::{NONE, apportion::apportion};
use std::collections::HashMap;

/// From a table of positions (of primaries) to the table of set numbers that the dataplane reads.
///
/// `numbers` gives each set of the plan its published number, `previous` is the table that is in
/// force, in published numbers ([`NONE`] everywhere when there is none). A primary's buckets are
/// shared out over its sets within one bucket of their shares; a bucket whose set is still one
/// of its owner's keeps it, unless that set has too many.
///
/// # Panics
/// When `numbers` has another length than the plan has sets, or `previous` another than `table`.
#[must_use]
pub fn assign(table: &[u32], plan: &Plan, numbers: &[u32], previous: &[u32]) -> Vec<u32> {
    assert_eq!(numbers.len(), plan.sets.len(), "one published number a set");
    assert_eq!(
        table.len(),
        previous.len(),
        "tables of one VNI have one length"
    );
    let by_number: HashMap<u32, u32> = numbers
        .iter()
        .enumerate()
        .map(|(set, &number)| (number, set as u32))
        .collect();
    let mut sets: Vec<u32> = table
        .iter()
        .zip(previous)
        .map(|(&primary, number)| match by_number.get(number) {
            Some(&set) if plan.sets[set as usize][0] == primary => set,
            _ => NONE,
        })
        .collect();
    let mut counts = vec![0u32; plan.sets.len()];
    for &set in sets.iter().filter(|&&set| set != NONE) {
        counts[set as usize] += 1;
    }
    let targets = targets(table, plan, &counts);

    // What is too much is taken from the end of the table. Buckets are hash values: no place in
    // it is better than another.
    for set in sets.iter_mut().rev().filter(|set| **set != NONE) {
        let number = *set as usize;
        if counts[number] > targets[number] {
            counts[number] -= 1;
            *set = NONE;
        }
    }
    // Each primary's sets in turn, skipping those that are full.
    let mut turns = vec![0usize; plan.of_primary.len()];
    for (set, &primary) in sets.iter_mut().zip(table) {
        let Some(of_primary) = plan.of_primary.get(primary as usize) else {
            continue;
        };
        let turn = &mut turns[primary as usize];
        for _ in 0..if *set == NONE { of_primary.len() } else { 0 } {
            let next = of_primary[*turn % of_primary.len()];
            *turn += 1;
            if counts[next as usize] < targets[next as usize] {
                counts[next as usize] += 1;
                *set = next;
                break;
            }
        }
    }
    sets.iter()
        .map(|&set| numbers.get(set as usize).copied().unwrap_or(NONE))
        .collect()
}

/// How many buckets each set is to have.
fn targets(table: &[u32], plan: &Plan, counts: &[u32]) -> Vec<u32> {
    let mut owned = vec![0u32; plan.of_primary.len()];
    for &primary in table.iter().filter(|&&primary| primary != NONE) {
        owned[primary as usize] += 1;
    }
    let mut targets = vec![0; plan.sets.len()];
    for (primary, sets) in plan.of_primary.iter().enumerate() {
        let of =
            |values: &[u32]| -> Vec<u32> { sets.iter().map(|&s| values[s as usize]).collect() };
        let shares = apportion(&of(&plan.shares), owned[primary], &of(counts));
        for (&set, share) in sets.iter().zip(shares) {
            targets[set as usize] = share;
        }
    }
    targets
}
