//! The choice by distance, health and load: rows of examples, then properties over random input.

use super::{
    Bands, Candidate, State,
    proximity::{Leaning, lean},
    weights,
};
use proptest::prelude::*;

fn leaning(costs_ms: &[Option<f64>], keeps: &[f64]) -> Leaning {
    Leaning {
        costs_ms: costs_ms.to_vec(),
        keeps: keeps.to_vec(),
        halving_ms: 2.0,
        explore: 0.02,
    }
}

/// An instance: weight, score, cost, what it keeps.
type Row = (u32, f64, Option<f64>, f64);

fn parts(rows: &[Row]) -> Vec<u32> {
    let names: Vec<String> = (0..rows.len()).map(|n| format!("i{n}")).collect();
    let candidates: Vec<_> = names
        .iter()
        .zip(rows)
        .map(|(name, &(weight, score, ..))| Candidate {
            score,
            ..Candidate::new(name, weight)
        })
        .collect();
    let weights = weights(&candidates, None, Bands::default());
    let costs: Vec<_> = rows.iter().map(|row| row.2).collect();
    let keeps: Vec<_> = rows.iter().map(|row| row.3).collect();
    lean(&weights, &leaning(&costs, &keeps))
}

/// In thousandths.
#[track_caller]
fn check(rows: &[Row], expected: &[u32]) {
    let parts: Vec<u32> = parts(rows).iter().map(|part| (part + 500) / 1000).collect();
    assert_eq!(parts, expected);
}

#[test]
fn the_nearest_gets_most() {
    check(
        &[(1, 1.0, Some(1.0), 1.0), (1, 1.0, Some(1.0), 1.0)],
        &[500, 500],
    );
    // One halving further away: one third of two, less what is explored.
    check(
        &[(1, 1.0, Some(1.0), 1.0), (1, 1.0, Some(3.0), 1.0)],
        &[663, 337],
    );
    check(
        &[(1, 1.0, Some(0.0), 1.0), (1, 1.0, Some(10.0), 1.0)],
        &[960, 40],
    );
    // Only differences count, and weights do.
    check(
        &[(1, 1.0, Some(90.0), 1.0), (3, 1.0, Some(90.0), 1.0)],
        &[250, 750],
    );
    // Very far is explored only.
    check(
        &[(1, 1.0, Some(0.0), 1.0), (1, 1.0, Some(9_999.0), 1.0)],
        &[990, 10],
    );
}

#[test]
fn an_unknown_distance_is_the_others_mean() {
    check(&[(1, 1.0, None, 1.0), (1, 1.0, None, 1.0)], &[500, 500]);
    check(
        &[(1, 1.0, None, 1.0), (1, 1.0, Some(7.0), 1.0)],
        &[500, 500],
    );
    check(
        &[
            (1, 1.0, Some(0.0), 1.0),
            (1, 1.0, Some(8.0), 1.0),
            (1, 1.0, None, 1.0),
        ],
        &[753, 53, 193],
    );
}

#[test]
fn health_comes_before_distance() {
    let far = (1, 1.0, Some(10.0), 1.0);
    check(&[(1, 1.0, Some(0.0), 1.0), far], &[960, 40]);
    check(&[(1, 0.6, Some(0.0), 1.0), far], &[657, 343]);
    // Only its part by weight and score.
    check(&[(1, 0.3, Some(0.0), 1.0), far], &[231, 769]);
    check(&[(1, 0.05, Some(0.0), 1.0), far], &[48, 952]);
    check(&[(1, 0.0, Some(0.0), 1.0), far], &[0, 1000]);
    // All of them are bad: scores and distance again.
    check(
        &[(1, 0.2, Some(0.0), 1.0), (1, 0.2, Some(0.0), 1.0)],
        &[500, 500],
    );
}

#[test]
fn a_hot_one_hands_over_to_the_nearest_cold_one() {
    check(
        &[
            (1, 1.0, Some(0.0), 0.5),
            (1, 1.0, Some(4.0), 1.0),
            (1, 1.0, Some(8.0), 1.0),
        ],
        &[380, 492, 128],
    );
    // When all are hot nobody is relieved.
    check(
        &[(1, 1.0, Some(0.0), 0.5), (1, 1.0, Some(0.0), 0.5)],
        &[500, 500],
    );
}

fn any_rows() -> impl Strategy<Value = Vec<(State, Row)>> {
    let state = prop::sample::select(State::ALL.to_vec());
    let score = prop_oneof![Just(0.0), Just(1.0), Just(f64::NAN), 0.0..1.0];
    let cost = prop_oneof![
        Just(None),
        (0.0..10_000.0f64).prop_map(Some),
        (0.0..5.0f64).prop_map(Some)
    ];
    let keep = prop_oneof![Just(1.0), 0.0..1.0];
    prop::collection::vec((state, (0u32..1000, score, cost, keep)), 1..12)
}

proptest! {
    #[test]
    fn parts_are_whole_explored_and_the_healthys(rows in any_rows(), explore in 0.001f64..0.5) {
        let names: Vec<String> = (0..rows.len()).map(|n| format!("i{n}")).collect();
        let candidates: Vec<_> = names.iter().zip(&rows).map(|(name, (state, row))| Candidate {
            state: *state,
            score: row.1,
            ..Candidate::new(name, row.0)
        }).collect();
        let weights = weights(&candidates, None, Bands::default());
        let costs: Vec<_> = rows.iter().map(|(_, row)| row.2).collect();
        let keeps: Vec<_> = rows.iter().map(|(_, row)| row.3).collect();
        let parts = lean(&weights, &Leaning { explore, ..leaning(&costs, &keeps) });
        // Who gets nothing by weight and health gets nothing by distance, and the other way round.
        for (part, weight) in parts.iter().zip(weights.values()) {
            prop_assert_eq!(*part > 0, weight > 0);
        }
        // They sum up, as far as whole numbers and the floor of one part can.
        let sum: u64 = parts.iter().map(|part| u64::from(*part)).sum();
        prop_assert!(sum.abs_diff(1_000_000) <= rows.len() as u64, "{sum}");
        // Exploration is kept.
        let total: f64 = weights.values().iter().map(|weight| f64::from(*weight)).sum();
        for (part, weight) in parts.iter().zip(weights.values()) {
            prop_assert!(f64::from(*part) + 1.0 >= explore * f64::from(weight) / total * 1e6);
        }
        // Whoever is well outranks whoever is not, whatever the distance: those that are not have nothing for being near.
        let well = |place: usize| weights.entries[place].weight > 0 && weights.entries[place].score >= 0.8
            && rows[place].1.3 == 1.0;
        if (0..rows.len()).any(well) {
            for (place, part) in parts.iter().enumerate() {
                let entry = &weights.entries[place];
                if entry.weight > 0 && entry.score <= 0.4 {
                    let by_health = f64::from(entry.weight) / total * 1e6;
                    prop_assert!(f64::from(*part) <= by_health + 1.0, "{part} {by_health}");
                }
            }
        }
    }

    #[test]
    fn nearer_is_never_worse(cost in 0.0f64..20.0, nearer in 0.0f64..20.0, other in 0.0f64..20.0) {
        let part = |cost: f64| parts(&[(1, 1.0, Some(cost), 1.0), (1, 1.0, Some(other), 1.0)])[0];
        prop_assert!(part((cost - nearer).max(0.0)) >= part(cost));
    }
}
