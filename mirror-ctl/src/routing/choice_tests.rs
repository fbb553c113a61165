//! Weights: rows of examples, then properties over random input.

use super::{Bands, Candidate, Rule, State, Weights, weights};
use proptest::prelude::*;

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|index| format!("instance-{index}"))
        .collect()
}

fn candidate(name: &str, state: State, weight: u32, score: f64) -> Candidate<'_> {
    Candidate {
        state,
        score,
        ..Candidate::new(name, weight)
    }
}

#[track_caller]
fn check_weights(of: &[(State, u32, f64)], expected: &[u32], rule: Rule) {
    let names = names(of.len());
    let candidates: Vec<_> = names
        .iter()
        .zip(of)
        .map(|(name, &(state, weight, score))| candidate(name, state, weight, score))
        .collect();
    let result = weights(&candidates, None, Bands::default());
    assert_eq!((result.values().as_slice(), result.rule), (expected, rule));
}

#[test]
fn who_serves() {
    use State::{Dead, Draining, Evacuating, Up};
    check_weights(&[], &[], Rule::Empty);
    check_weights(
        &[(Up, 100, 1.0), (Up, 50, 0.5)],
        &[100_000, 25_000],
        Rule::Healthy,
    );
    check_weights(
        &[
            (Up, 100, 1.0),
            (Draining, 100, 1.0),
            (Evacuating, 100, 1.0),
            (Dead, 100, 1.0),
        ],
        &[100_000, 0, 0, 0],
        Rule::Healthy,
    );
    check_weights(
        &[(Up, 100, f64::NAN), (Up, 1, -3.0)],
        &[100_000, 0],
        Rule::Healthy,
    );
    check_weights(
        &[(Up, 100, 0.0), (Up, 50, 0.0)],
        &[100_000, 50_000],
        Rule::ScoresIgnored,
    );
    check_weights(
        &[(Up, 0, 1.0), (Draining, 50, 1.0)],
        &[1000, 0],
        Rule::WeightsIgnored,
    );
    check_weights(
        &[(Draining, 50, 1.0), (Evacuating, 50, 0.5), (Dead, 9, 1.0)],
        &[50_000, 25_000, 0],
        Rule::Leaving,
    );
    check_weights(&[(Dead, 50, 1.0), (Dead, 0, 1.0)], &[50_000, 0], Rule::Dead);
}

fn after_scores(scores: &[f64]) -> Vec<u32> {
    let mut last: Option<Weights> = None;
    scores
        .iter()
        .map(|&score| {
            let next = weights(
                &[
                    candidate("a", State::Up, 1, score),
                    candidate("b", State::Up, 1, 1.0),
                ],
                last.as_ref(),
                Bands::default(),
            );
            last.insert(next).entries[0].weight
        })
        .collect()
}

#[test]
fn scores_have_inertia() {
    assert_eq!(
        after_scores(&[1.0, 0.96, 0.9, 0.98, 0.9, 0.5, 0.55, f64::NAN, 0.7, 0.0]),
        [1000, 1000, 900, 900, 900, 500, 500, 500, 700, 0]
    );
}

fn any_candidates() -> impl Strategy<Value = Vec<(State, u32, f64)>> {
    let state = prop::sample::select(vec![
        State::Up,
        State::Draining,
        State::Evacuating,
        State::Suspect,
        State::Dead,
    ]);
    let score = prop_oneof![Just(0.0), Just(f64::NAN), 0.0..1.0];
    prop::collection::vec((state, 0u32..1000, score), 1..12)
}

proptest! {
    #[test]
    fn noise_within_the_bands_settles(middle in 0.05f64..0.95,
                                      noise in prop::collection::vec(-0.025f64..0.025, 1..50)) {
        let scores: Vec<f64> = noise.iter().map(|noise| middle + noise).collect();
        let seen = after_scores(&scores);
        prop_assert!(seen.iter().all(|weight| weight == &seen[0]), "{seen:?}");
    }

    #[test]
    fn somebody_serves_and_nobody_dead_before_the_living(of in any_candidates()) {
        let names = names(of.len());
        let candidates: Vec<_> = names
            .iter()
            .zip(&of)
            .map(|(name, &(state, weight, score))| candidate(name, state, weight, score))
            .collect();
        let result = weights(&candidates, None, Bands::default());
        prop_assert!(result.values().iter().any(|&weight| weight > 0));
        let best = candidates.iter().map(|c| match c.state {
            State::Up => 0,
            State::Draining | State::Evacuating => 1,
            State::Suspect => 2,
            State::Dead => 3,
        });
        let ranks: Vec<u32> = best.collect();
        let first = *ranks.iter().min().unwrap();
        for (rank, weight) in ranks.iter().zip(result.values()) {
            prop_assert!(weight == 0 || *rank == first);
        }
    }
}
