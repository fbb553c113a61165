//! Replica sets: rows of examples, then properties over random input.

use super::{Member, Options, Plan, plan};
use proptest::prelude::*;
use std::collections::HashSet;

const NAMES: [&str; 26] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s",
    "t", "u", "v", "w", "x", "y", "z",
];

/// Sets as text: `a:bc` is primary a with mirrors b and c.
fn text(plan: &Plan) -> String {
    let name = |&position: &u32| NAMES[position as usize];
    let set = |set: &Vec<u32>| {
        let mirrors: String = set[1..].iter().map(name).collect();
        format!("{}:{mirrors}", name(&set[0]))
    };
    plan.sets.iter().map(set).collect::<Vec<_>>().join(" ")
}

fn members<'a>(of: &[(u32, &'a str)]) -> Vec<Member<'a>> {
    of.iter()
        .zip(NAMES)
        .map(|(&(weight, domain), name)| Member {
            name,
            weight,
            domain: (!domain.is_empty()).then_some(domain),
        })
        .collect()
}

fn options(mirrors: usize, sets_per_primary: usize) -> Options {
    Options {
        mirrors,
        sets_per_primary,
        ..Options::default()
    }
}

#[track_caller]
fn check(of: &[(u32, &str)], (mirrors, per_primary): (usize, usize), expected: &str) {
    let members = members(of);
    let first = plan(&members, &options(mirrors, per_primary), &[]);
    assert_eq!(text(&first), expected);
    let again = plan(&members, &options(mirrors, per_primary), &first.sets);
    assert_eq!(text(&again), expected, "planned again");
}

#[test]
fn sets() {
    const A: (u32, &str) = (100, "");
    check(&[], (1, 4), "");
    check(&[A], (1, 4), "a:");
    check(&[A, A], (0, 4), "a: b:");
    check(&[A, A], (1, 4), "a:b b:a");
    check(&[A, A], (3, 4), "a:b b:a");
    // A ring.
    check(&[A, A, A], (1, 1), "a:b b:c c:a");
    check(&[A, A, A, A, A], (1, 1), "a:b b:c c:d d:e e:a");
    check(&[A, A, A], (1, 4), "a:b a:c b:a b:c c:a c:b");
    check(&[A, A, A], (2, 1), "a:bc b:ca c:ab");
    // Without weight: neither primary nor mirror.
    check(&[A, (0, ""), A], (1, 4), "a:c c:a");
    // Other failure domains first.
    check(
        &[(100, "1"), (100, "1"), (100, "2"), (100, "2")],
        (1, 1),
        "a:c b:d c:a d:b",
    );
    check(
        &[(100, "1"), (100, "1"), (100, "2")],
        (1, 4),
        "a:c b:c c:a c:b",
    );
    check(
        &[(100, "1"), (100, "1"), (100, "2")],
        (2, 1),
        "a:cb b:ca c:ab",
    );
    // But not all upon one.
    check(
        &[(100, "1"), (100, "1"), (100, "1"), (100, "1"), (100, "2")],
        (1, 1),
        "a:e b:e c:d d:a e:b",
    );
    // One domain is no domain.
    check(&[(100, "1"), (100, "1"), (100, "1")], (1, 1), "a:b b:c c:a");
}

#[test]
fn sets_stay_within_the_limit() {
    let members = members(&[(100, ""); 10]);
    let few = Options {
        sets_max: 35,
        ..Options::default()
    };
    assert_eq!(plan(&members, &few, &[]).sets.len(), 30);
    let none = Options {
        sets_max: 0,
        ..Options::default()
    };
    assert_eq!(plan(&members, &none, &[]).sets.len(), 10);
}

/// What each instance mirrors, first and other slots alike, relative to its fair part.
fn mirrored(members: &[Member<'_>], plan: &Plan) -> Vec<f64> {
    let mut loads = vec![0.0; members.len()];
    for sets in &plan.of_primary {
        let shares: u32 = sets.iter().map(|&set| plan.shares[set as usize]).sum();
        for &set in sets {
            let set_members = &plan.sets[set as usize];
            let part = f64::from(plan.shares[set as usize]) / f64::from(shares);
            for &mirror in &set_members[1..] {
                loads[mirror as usize] += part * f64::from(members[set_members[0] as usize].weight);
            }
        }
    }
    let (load, weight): (f64, f64) = (
        loads.iter().sum(),
        members.iter().map(|m| f64::from(m.weight)).sum(),
    );
    let fair = |m: &Member<'_>| f64::from(m.weight) * load / weight;
    loads
        .iter()
        .zip(members)
        .map(|(load, m)| load / fair(m))
        .collect()
}

fn any_members() -> impl Strategy<Value = Vec<(u32, &'static str)>> {
    let domain = prop::sample::select(vec!["", "1", "2", "3"]);
    prop::collection::vec(
        (prop_oneof![1 => Just(0u32), 6 => 1u32..1000], domain),
        1..20,
    )
}

proptest! {
    #[test]
    fn sets_are_sound(of in any_members(), mirrors in 0usize..4, per_primary in 1usize..6) {
        let members = members(&of);
        let plan = plan(&members, &options(mirrors, per_primary), &[]);
        let live = of.iter().filter(|(weight, _)| *weight > 0).count();
        for set in &plan.sets {
            prop_assert_eq!(set.len(), (1 + mirrors).min(live));
            prop_assert_eq!(set.iter().collect::<HashSet<_>>().len(), set.len());
            prop_assert!(set.iter().all(|&member| of[member as usize].0 > 0));
        }
        let first = |set: &Vec<u32>| set[..set.len().min(2)].to_vec();
        let firsts: HashSet<Vec<u32>> = plan.sets.iter().map(first).collect();
        prop_assert_eq!(firsts.len(), plan.sets.len());
        for (primary, sets) in plan.of_primary.iter().enumerate() {
            prop_assert_eq!(sets.is_empty(), of[primary].0 == 0);
            prop_assert!(sets.len() <= per_primary);
        }
    }

    #[test]
    fn domains_are_spread(of in any_members(), per_primary in 1usize..6) {
        // No limit of load: then every first mirror is in another domain if there is any.
        let members = members(&of);
        let options = Options { overload_max: f64::INFINITY, ..options(1, per_primary) };
        let apart = |a: u32, b: u32| {
            let (a, b) = (members[a as usize].domain, members[b as usize].domain);
            a != b || a.is_none()
        };
        for set in plan(&members, &options, &[]).sets.iter().filter(|set| set.len() > 1) {
            let other = (0..members.len() as u32)
                .any(|m| m != set[0] && members[m as usize].weight > 0 && apart(m, set[0]));
            prop_assert!(!other || apart(set[0], set[1]));
        }
    }

    #[test]
    fn equal_instances_mirror_equally(
        count in 2usize..26,
        mirrors in 1usize..4,
        per_primary in 1usize..6,
    ) {
        let members = members(&vec![(100, ""); count]);
        let plan = plan(&members, &options(mirrors, per_primary), &[]);
        for relative in mirrored(&members, &plan) {
            prop_assert!((0.74..1.26).contains(&relative), "{relative} in {}", text(&plan));
        }
    }

    #[test]
    fn order_of_input_does_not_matter(of in any_members(), mirrors in 0usize..4) {
        let forward = members(&of);
        let backward: Vec<_> = forward.iter().rev().copied().collect();
        let last = of.len() as u32 - 1;
        let of_forward = plan(&forward, &options(mirrors, 4), &[]).sets;
        let mut of_backward = plan(&backward, &options(mirrors, 4), &[]).sets;
        of_backward.iter_mut().flatten().for_each(|member| *member = last - *member);
        prop_assert_eq!(of_forward, of_backward);
    }

    #[test]
    fn planned_again_nothing_changes(
        of in any_members(),
        mirrors in 0usize..4,
        per_primary in 1usize..6,
    ) {
        let members = members(&of);
        let options = options(mirrors, per_primary);
        let first = plan(&members, &options, &[]);
        let mut shuffled = first.sets.clone();
        shuffled.reverse();
        prop_assert_eq!(text(&plan(&members, &options, &shuffled)), text(&first));
    }

    #[test]
    fn a_loss_changes_only_sets_of_the_lost(count in 3usize..26, lost in 0usize..26) {
        let mut of = vec![(100, ""); count];
        let all = plan(&members(&of), &options(1, 4), &[]);
        let lost = lost % count;
        of[lost].0 = 0;
        let left = plan(&members(&of), &options(1, 4), &all.sets);
        let lost = lost as u32;
        let untouched = |set: &&Vec<u32>| !set.contains(&lost);
        let before: HashSet<&Vec<u32>> = all.sets.iter().filter(untouched).collect();
        let after: HashSet<&Vec<u32>> = left.sets.iter().collect();
        // Up to two sets may move to even out what the lost one mirrored.
        let kept = before.intersection(&after).count();
        prop_assert!(kept + 2 >= before.len(), "{} then {}", text(&all), text(&left));
        // And when it comes back, it gets its part again from a few.
        of[lost as usize].0 = 100;
        let back = plan(&members(&of), &options(1, 4), &left.sets);
        let now: HashSet<&Vec<u32>> = back.sets.iter().collect();
        prop_assert!(after.difference(&now).count() <= 6, "{} then {}", text(&left), text(&back));
        for relative in mirrored(&members(&of), &back) {
            prop_assert!((0.49..1.51).contains(&relative), "{relative} in {}", text(&back));
        }
    }
}
