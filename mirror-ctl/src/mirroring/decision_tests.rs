//! Buckets of sets, budgets, and whole decisions as an agent would make and publish them.

use super::{Budget, Decision, Plan, Policy, Previous, Refusal, assign, decide, may_evacuate};
use crate::routing::{Candidate, NONE, Rule, State};
use mirror_common::limits::STEERING_BUCKETS;
use std::collections::HashMap;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

#[test]
fn buckets_are_spread_over_the_sets_of_their_primary() {
    let plan = Plan {
        sets: vec![vec![0, 1], vec![0, 2], vec![1, 0]],
        shares: vec![100, 300, 100],
        of_primary: vec![vec![0, 1], vec![2], vec![]],
    };
    let table = [0, 0, 0, 0, 0, 0, 0, 0, 1, NONE];
    let first = assign(&table, &plan, &[7, 8, 9], &[NONE; 10]);
    assert_eq!(first, [7, 8, 7, 8, 8, 8, 8, 8, 9, NONE]);
    // The same again; and with a set replaced, the others stay.
    assert_eq!(assign(&table, &plan, &[7, 8, 9], &first), first);
    assert_eq!(
        assign(&table, &plan, &[5, 8, 9], &first),
        [5, 8, 5, 8, 8, 8, 8, 8, 9, NONE]
    );
    // A bucket that goes to another primary does not keep its set.
    let table = [1, 1, 0, 0, 0, 0, 0, 0, 1, 1];
    let next = assign(&table, &plan, &[7, 8, 9], &first);
    assert_eq!(next, [9, 9, 7, 8, 8, 8, 8, 8, 9, 9]);
}

#[track_caller]
fn check_evacuation(of: &[(State, u32, f64)], asked: &str, expected: Result<(), &str>) {
    let candidates: Vec<_> = of
        .iter()
        .zip(NAMES)
        .map(|(&(state, weight, score), name)| Candidate {
            state,
            score,
            ..Candidate::new(name, weight)
        })
        .collect();
    let result = may_evacuate(&candidates, asked, Budget::default());
    assert_eq!(
        result.map_err(|refusal: Refusal| refusal.to_string()),
        expected.map_err(str::to_owned)
    );
}

#[test]
fn evacuations_within_the_budget() {
    const UP: (State, u32, f64) = (State::Up, 100, 1.0);
    const OUT: (State, u32, f64) = (State::Evacuating, 100, 1.0);
    const DEAD: (State, u32, f64) = (State::Dead, 100, 1.0);
    check_evacuation(&[UP, UP], "a", Ok(()));
    check_evacuation(&[UP, UP, UP, OUT], "a", Ok(()));
    check_evacuation(&[UP, (State::Up, 100, f64::NAN)], "a", Ok(()));
    check_evacuation(&[UP, (State::Up, 0, 1.0), UP], "b", Ok(()));
    check_evacuation(&[UP], "x", Err("there is no instance `x`"));
    check_evacuation(&[UP, OUT], "b", Err("instance `b` is evacuating already"));
    for other in [
        OUT,
        DEAD,
        (State::Draining, 100, 1.0),
        (State::Up, 0, 1.0),
        (State::Up, 100, 0.05),
    ] {
        check_evacuation(
            &[UP, other],
            "a",
            Err(
                "instance `a` is the last healthy one: of 1 other(s), none is up with a weight \
                 and a score that can be relied on",
            ),
        );
    }
    check_evacuation(
        &[UP, UP, OUT],
        "a",
        Err(
            "without instance `a`, 67 % of the capacity would be out of service; at most 50 % \
             may be (already out: c)",
        ),
    );
    check_evacuation(
        &[(State::Up, 300, 1.0), UP, UP],
        "a",
        Err(
            "without instance `a`, 60 % of the capacity would be out of service; at most 50 % \
             may be (already out: none)",
        ),
    );
}

/// Publishes sets under numbers that stay, as the agent does.
#[derive(Default)]
struct Published {
    numbers: HashMap<Vec<String>, u32>,
    table: Vec<u32>,
}

impl Published {
    fn publish(&mut self, decision: &Decision) {
        let names: Vec<&str> = decision
            .weights
            .entries
            .iter()
            .map(|e| e.name.as_str())
            .collect();
        let mut numbers = Vec::new();
        for set in &decision.plan.sets {
            let next = self.numbers.len() as u32;
            let key = set
                .iter()
                .map(|&member| names[member as usize].to_owned())
                .collect();
            numbers.push(*self.numbers.entry(key).or_insert(next));
        }
        self.table = decision.steering(&numbers, &self.table);
    }

    fn names(&self, number: u32) -> &[String] {
        self.numbers
            .iter()
            .find(|(_, of)| **of == number)
            .map(|(names, _)| names)
            .unwrap()
    }
}

#[test]
fn a_death_and_a_return() {
    let mut candidates: Vec<_> = NAMES[..5]
        .iter()
        .map(|name| Candidate::new(name, 100))
        .collect();
    let policy = Policy::default();
    let mut published = Published::default();
    let first = decide(&candidates, &policy, &Previous::default(), None);
    assert_eq!(first.table.len(), STEERING_BUCKETS as usize);
    published.publish(&first);
    let before = published.table.clone();

    candidates[1].state = State::Dead;
    let second = decide(&candidates, &policy, &first.clone().into_previous(), None);
    assert_eq!(second.weights.rule, Rule::Healthy);
    published.publish(&second);
    for (bucket, (&old, &new)) in before.iter().zip(&published.table).enumerate() {
        let (old, new) = (published.names(old), published.names(new));
        assert!(!new.contains(&"b".to_owned()), "bucket {bucket}");
        assert!(old[0] == "b" || old[0] == new[0], "bucket {bucket}");
    }

    // The instance is forgotten, comes back at another position: nothing else moves.
    candidates.remove(1);
    let third = decide(&candidates, &policy, &second.into_previous(), None);
    published.publish(&third);
    candidates.push(Candidate::new("b", 100));
    let last = decide(&candidates, &policy, &third.into_previous(), None);
    let dead = published.table.clone();
    published.publish(&last);
    let taken = dead
        .iter()
        .zip(&published.table)
        .filter(|&(&old, &new)| published.names(old)[0] != published.names(new)[0])
        .count();
    assert_eq!(taken, STEERING_BUCKETS.div_ceil(5) as usize - 1);
    // And the same again is the same.
    assert!(decide(&candidates, &policy, &last.clone().into_previous(), None) == last);
}

#[test]
fn adopts_what_is_published() {
    let candidates: Vec<_> = NAMES[..3]
        .iter()
        .map(|name| Candidate::new(name, 100))
        .collect();
    let first = decide(&candidates, &Policy::default(), &Previous::default(), None);
    let found = Previous {
        weights: None,
        ..first.clone().into_previous()
    };
    assert!(decide(&candidates, &Policy::default(), &found, None) == first);
}
