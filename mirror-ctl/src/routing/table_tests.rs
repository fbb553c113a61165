//! Steering tables: rows of examples, then properties over random input.

use super::{
    NONE,
    maglev::{Member, build, rebuild, translate},
};
use mirror_common::limits::STEERING_BUCKETS;
use proptest::prelude::*;

/// Small enough for many cases, prime.
const BUCKETS: u32 = 1021;

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|index| format!("instance-{index}"))
        .collect()
}

fn members<'a>(names: &'a [String], weights: &[u32]) -> Vec<Member<'a>> {
    names
        .iter()
        .zip(weights)
        .map(|(name, &weight)| Member { name, weight })
        .collect()
}

fn counts(table: &[u32], members: usize) -> Vec<u32> {
    let mut counts = vec![0; members];
    for &owner in table {
        counts[owner as usize] += 1;
    }
    counts
}

fn moved(before: &[u32], after: &[u32]) -> u32 {
    before.iter().zip(after).filter(|(a, b)| a != b).count() as u32
}

/// Buckets that any table less than one bucket from the proportion has to move, at least.
fn least_moves(before: &[u32], weights: &[u32]) -> u32 {
    let sum: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    before
        .iter()
        .zip(weights)
        .map(|(&count, &weight)| {
            let exact = u64::from(BUCKETS) * u64::from(weight);
            ((exact / sum) as u32).saturating_sub(count)
        })
        .sum()
}

#[track_caller]
fn check_table(weights: &[u32], expected: &[u32]) {
    let names = names(weights.len());
    let table = build(&members(&names, weights), STEERING_BUCKETS);
    assert_eq!(counts(&table, weights.len()), expected);
}

#[test]
fn tables_are_in_proportion() {
    check_table(&[7], &[16_381]);
    check_table(&[100, 100], &[8191, 8190]);
    check_table(&[100, 100, 100], &[5461, 5460, 5460]);
    check_table(&[1000, 0, 1], &[16_365, 0, 16]);
    check_table(&[u32::MAX, u32::MAX], &[8191, 8190]);
}

#[test]
fn nobody_has_a_weight() {
    let names = names(2);
    assert!(
        build(&members(&names, &[0, 0]), 13)
            .iter()
            .all(|&owner| owner == NONE)
    );
    assert!(build(&[], 13).iter().all(|&owner| owner == NONE));
}

#[test]
fn the_table_is_the_same_on_every_host() {
    // A golden value: a change of hash or turns would make hosts of two versions disagree.
    let table = build(
        &[
            Member {
                name: "a",
                weight: 2,
            },
            Member {
                name: "b",
                weight: 1,
            },
            Member {
                name: "c",
                weight: 1,
            },
        ],
        13,
    );
    assert_eq!(table, GOLDEN);
}
const GOLDEN: [u32; 13] = [1, 0, 2, 0, 0, 2, 0, 0, 2, 0, 1, 0, 1];

#[test]
#[should_panic(expected = "must be prime")]
fn buckets_are_prime() {
    let _ = build(&[], 16_384);
}

proptest! {
    #[test]
    fn order_of_input_does_not_matter(weights in prop::collection::vec(0u32..1000, 1..30)) {
        let names = names(weights.len());
        let forward = members(&names, &weights);
        let backward: Vec<_> = forward.iter().rev().copied().collect();
        let last = weights.len() as u32 - 1;
        let mirrored: Vec<u32> = build(&backward, BUCKETS)
            .iter()
            .map(|&owner| if owner == NONE { NONE } else { last - owner })
            .collect();
        prop_assert_eq!(build(&forward, BUCKETS), mirrored);
    }

    #[test]
    fn any_change_moves_the_least(before in prop::collection::vec(0u32..1000, 1..30),
                                  after in prop::collection::vec(0u32..1000, 30)) {
        let names = names(before.len());
        let after = &after[..before.len()];
        prop_assume!(before.iter().any(|&w| w > 0) && after.iter().any(|&w| w > 0));
        let table = build(&members(&names, &before), BUCKETS);
        let next = rebuild(&members(&names, after), &table);
        let sum: f64 = after.iter().map(|&w| f64::from(w)).sum();
        for (count, weight) in counts(&next, after.len()).iter().zip(after) {
            let exact = f64::from(BUCKETS) * f64::from(*weight) / sum;
            prop_assert!((f64::from(*count) - exact).abs() < 1.0 + 1e-9);
        }
        let least = least_moves(&counts(&table, before.len()), after);
        // One bucket of rounding a member at most.
        prop_assert!(moved(&table, &next) <= least + before.len() as u32);
        prop_assert_eq!(&rebuild(&members(&names, after), &next), &next);
    }

    #[test]
    fn one_change_moves_buckets_of_that_one_only(
        before in prop::collection::vec(1u32..1000, 2..30),
        index in 0usize..30,
        weight in 0u32..2000,
    ) {
        let names = names(before.len());
        let index = index % before.len();
        let mut after = before.clone();
        after[index] = weight;
        let table = build(&members(&names, &before), BUCKETS);
        let next = rebuild(&members(&names, &after), &table);
        for (old, new) in table.iter().zip(&next).filter(|(old, new)| old != new) {
            prop_assert!(*old == index as u32 || *new == index as u32);
        }
        let share = |weights: &[u32]| {
            let sum: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            f64::from(BUCKETS) * f64::from(weights[index]) / sum
        };
        let least = (share(&after) - share(&before)).abs();
        prop_assert!(f64::from(moved(&table, &next)) < least + 2.0);
    }

    #[test]
    fn an_instance_that_leaves_moves_only_its_buckets(count in 2usize..30, gone in 0usize..30) {
        let names = names(count);
        let gone = gone % count;
        let table = build(&members(&names, &vec![100; count]), BUCKETS);
        let left: Vec<String> = names.iter().filter(|n| **n != names[gone]).cloned().collect();
        let (all, few): (Vec<&str>, Vec<&str>) = (
            names.iter().map(String::as_str).collect(),
            left.iter().map(String::as_str).collect(),
        );
        let carried = translate(&table, &all, &few);
        let next = rebuild(&members(&left, &vec![100; left.len()]), &carried);
        for (bucket, &owner) in carried.iter().enumerate().filter(|(_, owner)| **owner != NONE) {
            prop_assert_eq!(next[bucket], owner);
        }
        prop_assert!(!next.contains(&NONE));
    }
}
