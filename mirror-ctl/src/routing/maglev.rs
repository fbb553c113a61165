//! Steering tables: which instance a bucket belongs to, in proportion to weights, such that a
//! change of weights moves no more buckets than it must.
//!
//! Source: Eisenbud et al., *Maglev: A Fast and Reliable Software Network Load Balancer*,
//! NSDI 2016, section 3.4. Each member has a permutation of the buckets (offset and skip, from a
//! hash of its name) and takes, when it is its turn, the first bucket of it that is free.
//! Weights are turns in proportion, as in Katran and Cilium.
//!
//! Two things differ from the paper:
//!
//! * How many buckets a member gets is settled beforehand ([`apportion`]), so each is within one
//!   bucket of its proportion. Turns alone leave the last round to whoever comes first.
//! * A table follows from the previous one. The paper's rebuilding from nothing also moves buckets
//!   between members whose weights did not change: when one weight of 10, 100 or 1,000 changes,
//!   about 1.05, 2 and 11 times the minimum in the median (measured with 65,537 buckets). Instead
//!   every member keeps what it has, gives up only its surplus, the buckets it prefers least, and
//!   only those find a new owner, by the paper's turns. A change then moves the minimum.
//!
//! The price: a table depends on how it came about, so two hosts whose weights went different
//! ways have different tables. Flows do not notice, since an established flow keeps its replica
//! set. Hosts which must agree on new flows too (anycast, ECMP) build from nothing, [`build`].

use super::{
    NONE,
    apportion::apportion,
    preference::{Preference, is_prime},
};

/// A member of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name: what its preferences follow from, on every host the same. Unique.
    pub name: &'a str,
    /// Its weight; only the proportion to the others counts. 0: no buckets.
    pub weight: u32,
}

/// A table from nothing: for each bucket the position of its owner in `members`, or [`NONE`]
/// everywhere when no member has a weight.
///
/// # Panics
/// When `buckets` is not prime.
#[must_use]
pub fn build(members: &[Member<'_>], buckets: u32) -> Vec<u32> {
    rebuild(members, &vec![NONE; buckets as usize])
}

/// The table that follows `previous` with the least moves: for each bucket the position of its
/// owner in `members`.
///
/// `previous` is by positions in `members` as well ([`translate`] helps when members came or
/// went); [`NONE`] or a position beyond `members`: nobody's.
///
/// # Panics
/// When the length of `previous` is not prime.
#[must_use]
pub fn rebuild(members: &[Member<'_>], previous: &[u32]) -> Vec<u32> {
    let buckets = previous.len() as u32;
    assert!(
        is_prime(buckets),
        "{buckets} buckets: the number of buckets must be prime"
    );
    // By name, so that the order of the input does not matter.
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_unstable_by_key(|&position| members[position].name);
    let weights: Vec<u32> = order
        .iter()
        .map(|&position| members[position].weight)
        .collect();
    let preferences: Vec<Preference> = order
        .iter()
        .map(|&position| Preference::of(members[position].name, buckets))
        .collect();
    let mut rank_of = vec![0u32; members.len()];
    for (rank, &position) in order.iter().enumerate() {
        rank_of[position] = rank as u32;
    }

    let mut owners: Vec<u32> = previous
        .iter()
        .map(|&position| rank_of.get(position as usize).copied().unwrap_or(NONE))
        .collect();
    let mut counts = vec![0u32; members.len()];
    for &owner in owners.iter().filter(|&&owner| owner != NONE) {
        counts[owner as usize] += 1;
    }
    let targets = apportion(&weights, buckets, &counts);
    release(&mut owners, &counts, &targets, &preferences);
    let lacking: Vec<u32> = targets
        .iter()
        .zip(&counts)
        .map(|(&target, &count)| target.saturating_sub(count))
        .collect();
    settle(&mut owners, &lacking, &preferences);
    for owner in owners.iter_mut().filter(|owner| **owner != NONE) {
        *owner = order[*owner as usize] as u32;
    }
    owners
}

/// A table by positions among the members called `before`, as positions among those called
/// `now`; [`NONE`] where the owner is gone.
#[must_use]
pub fn translate(table: &[u32], before: &[&str], now: &[&str]) -> Vec<u32> {
    let positions = positions(before, now);
    table
        .iter()
        .map(|&position| positions.get(position as usize).copied().unwrap_or(NONE))
        .collect()
}

/// For each of the names `before` its position among the names `now`, or [`NONE`].
#[must_use]
pub fn positions(before: &[&str], now: &[&str]) -> Vec<u32> {
    let index: std::collections::HashMap<&str, u32> = now
        .iter()
        .enumerate()
        .map(|(position, &name)| (name, position as u32))
        .collect();
    before
        .iter()
        .map(|name| index.get(name).copied().unwrap_or(NONE))
        .collect()
}

/// Takes from each member with more than its target the buckets it prefers least.
fn release(owners: &mut [u32], counts: &[u32], targets: &[u32], preferences: &[Preference]) {
    // Places of the owned buckets in their owner's permutation, for the members that give up some.
    let mut places: Vec<Vec<(u32, u32)>> = vec![Vec::new(); counts.len()];
    let inverses: Vec<Option<u64>> = (0..counts.len())
        .map(|rank| {
            let gives = counts[rank] > targets[rank] && targets[rank] > 0;
            gives.then(|| preferences[rank].inverse())
        })
        .collect();
    for (bucket, owner) in owners
        .iter_mut()
        .enumerate()
        .filter(|(_, owner)| **owner != NONE)
    {
        let rank = *owner as usize;
        if targets[rank] == 0 {
            *owner = NONE;
        } else if let Some(inverse) = inverses[rank] {
            let modulus = u64::from(preferences[rank].buckets);
            let distance = bucket as u64 + modulus - u64::from(preferences[rank].offset);
            places[rank].push((
                (distance % modulus * inverse % modulus) as u32,
                bucket as u32,
            ));
        }
    }
    for (rank, places) in places
        .iter_mut()
        .enumerate()
        .filter(|(_, places)| !places.is_empty())
    {
        let kept = targets[rank] as usize;
        places.select_nth_unstable(kept);
        for &(_, bucket) in &places[kept..] {
            owners[bucket as usize] = NONE;
        }
    }
}

/// Gives the free buckets to the members that lack some, by [`turns`], each time the first free
/// one of the member's permutation. The walks take about `buckets * ln(free buckets)` steps
/// together.
fn settle(owners: &mut [u32], lacking: &[u32], preferences: &[Preference]) {
    // One bit a bucket, so that the walks stay in the first-level cache.
    let mut free = vec![0u64; owners.len().div_ceil(64)];
    for (bucket, _) in owners
        .iter()
        .enumerate()
        .filter(|(_, owner)| **owner == NONE)
    {
        free[bucket / 64] |= 1 << (bucket % 64);
    }
    let mut next: Vec<u32> = preferences
        .iter()
        .map(|preference| preference.offset)
        .collect();
    for rank in turns(lacking) {
        let preference = &preferences[rank as usize];
        let mut bucket = next[rank as usize];
        while free[bucket as usize / 64] >> (bucket % 64) & 1 == 0 {
            bucket = preference.after(bucket);
        }
        free[bucket as usize / 64] &= !(1 << (bucket % 64));
        owners[bucket as usize] = rank;
        next[rank as usize] = preference.after(bucket);
    }
}

/// Whose turn it is, as often as each lacks a bucket and in proportion to it.
///
/// Of `most` rounds, a member that lacks `n` takes its `j`th turn in round `j * most / n`,
/// rounded up. The turns are sorted by round, counting; going through all members in every round
/// instead would take members times rounds, which one heavy weight among a thousand makes slow.
fn turns(lacking: &[u32]) -> Vec<u32> {
    let most = lacking.iter().copied().max().unwrap_or(0);
    let round = |turn: u32, lacks: u32| {
        if lacks == most {
            return turn as usize;
        }
        (u64::from(turn) * u64::from(most)).div_ceil(u64::from(lacks)) as usize
    };
    // Where each round's turns begin.
    let mut begins = vec![0u32; most as usize + 2];
    for &lacks in lacking {
        for turn in 1..=lacks {
            begins[round(turn, lacks) + 1] += 1;
        }
    }
    for index in 1..begins.len() {
        begins[index] += begins[index - 1];
    }
    let mut turns = vec![0; begins[begins.len() - 1] as usize];
    for (rank, &lacks) in lacking.iter().enumerate() {
        for turn in 1..=lacks {
            let begin = &mut begins[round(turn, lacks)];
            turns[*begin as usize] = rank as u32;
            *begin += 1;
        }
    }
    turns
}
