//! The takeover protocol in the simulated world: no rule is broken, and broken rules are noticed.

use testbed::sim::{mutation::Mutation, run};

/// What continuous integration runs; `cargo xtask sim --seeds 100000` is for the night.
const SEEDS: u64 = 2_000;

#[test]
fn no_seed_breaks_a_rule() {
    let totals = run::many(0..SEEDS, None, 3);
    let (counts, found) = (totals.counts, &totals.violations);
    assert!(
        found.is_empty(),
        "`cargo xtask sim --replay SEED` shows them packet by packet: {found:#?}"
    );
    assert_eq!(totals.seeds, SEEDS);
    // The runs are worth something: connections are moved, and hardly any is lost.
    assert!(counts.takeovers > SEEDS / 4, "{counts:?}");
    assert!(counts.leads > SEEDS / 4, "{counts:?}");
    assert!(counts.lost < counts.flows / 10, "{counts:?}");
}

#[track_caller]
fn check_caught(mutation: Mutation) {
    let totals = run::many(0..SEEDS, Some(mutation), 1);
    assert!(!totals.violations.is_empty(), "{mutation} is not noticed");
}

#[test]
fn every_broken_rule_is_noticed() {
    for &mutation in Mutation::ALL {
        check_caught(mutation);
    }
}

#[test]
fn a_seed_is_a_run_packet_by_packet() {
    for seed in 0..20 {
        let (first, second) = (run::one(seed, None, true), run::one(seed, None, true));
        assert!(!first.lines.is_empty());
        assert_eq!(first.lines, second.lines);
    }
}
