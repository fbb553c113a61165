//! What is made of the recorded faults in `tests/recordings`: figures that must not fall. Layer A alone, which is always on, and
//! fused with a model that is trained here, small, on the simulated corpus.

use std::{path::Path, sync::Arc};

use mirror_ctl::health::{
    learning::lessons::{self, Effort},
    sim::teach,
    truth::{
        judge::{Judgement, evaluate},
        store::{self, Labelled},
    },
};

fn held_out() -> Vec<Labelled> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/recordings/held-out");
    store::load(&folder).unwrap()
}

/// Caught at 0.1 and at 0.5 false alarms per instance-hour, alarms while a fault grows being right.
fn caught(found: &Judgement) -> ([f64; 2], [f64; 2]) {
    let of = |figures: &[_; 2]| {
        let [a, b]: &[mirror_ctl::health::predict::metrics::Figure; 2] = figures;
        [a.value, b.value]
    };
    (
        of(&found.fused.while_growing.recall),
        of(&found.layer_a.while_growing.recall),
    )
}

#[test]
fn the_corpus_is_whole() {
    let found = evaluate(&held_out(), None, 1);
    assert!(found.instance_hours >= 20.0, "{}", found.instance_hours);
    assert!(found.failures >= 60, "{}", found.failures);
    let families: Vec<_> = found.families.iter().map(|f| f.family.as_str()).collect();
    for family in [
        "cpu-ramp",
        "crash",
        "deploy",
        "disk-stall",
        "flapping",
        "freeze",
        "latency-creep",
        "loss-ramp",
        "memory-leak",
        "noisy-neighbour",
        "queue-exhaustion",
        "surge",
    ] {
        assert!(
            families.contains(&family),
            "{family} is not in {families:?}"
        );
    }
}

#[test]
fn layer_a_alone_catches_real_faults() {
    let found = evaluate(&held_out(), None, 1);
    let (_, [at_tenth, at_half]) = caught(&found);
    println!(
        "layer A: {at_tenth:.3} at 0.1, {at_half:.3} at 0.5; {:?}",
        found.abrupt
    );
    assert!(at_tenth >= 0.7 && at_half >= 0.85, "{at_tenth} {at_half}");
    // Without mirrors, and the agent told to be patient: by the silence alone.
    assert!(found.abrupt.detected >= 0.4, "{:?}", found.abrupt);
}

#[test]
fn a_model_adds_to_layer_a_and_takes_nothing_away() {
    let effort = Effort {
        runs: 8,
        trees: 20,
        seed: 1,
    };
    let parts = teach::parts(&effort, || {});
    let model = lessons::train(&parts, &effort, teach::corpus(&effort), || {}).unwrap();
    let found = evaluate(&held_out(), Some(&Arc::new(model)), 1);
    let (fused, alone) = caught(&found);
    println!("fused {fused:?}, layer A {alone:?}");
    assert!(fused[0] >= 0.8 && fused[1] >= 0.85, "{fused:?}");
    assert!(
        fused[0] >= alone[0] && fused[1] >= alone[1],
        "{fused:?} {alone:?}"
    );
}
