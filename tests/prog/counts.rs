//! Counters are a VNI's own.

use mirror_common::counts::NO_VNI;
use mirror_common::reason::Reason;

use crate::bench::{Bench, Verdict, with_bench};
use crate::conversation::Conversation;
use crate::hosts::{PLAIN, VNIS, WEB};

/// What was counted of each VNI, and of none, since the programs were loaded.
fn rows(bench: &Bench) -> Vec<(u16, Vec<u64>)> {
    let numbers = VNIS.iter().map(|vni| vni.number).chain([NO_VNI]);
    let counts = |number| bench.tables.counted_of(number);
    numbers
        .map(|number| {
            (
                number,
                counts(number).iter().map(|(_, count)| count).collect(),
            )
        })
        .collect()
}

#[test]
fn packets_are_counted_under_their_vni_and_no_other() {
    with_bench(|bench| {
        for (vni, to_instance) in [(WEB, Reason::Cloned), (PLAIN, Reason::Steered)] {
            bench.reset();
            let before = rows(bench);
            let talk = Conversation::with(vni).established(bench);
            let opened = bench.tables.counted_of(vni.number);
            talk.client_sends(bench, &talk.client(0, 0), Verdict::Redirect);
            let after = rows(bench);
            for ((number, before), (_, after)) in before.iter().zip(&after) {
                assert_eq!(before != after, *number == vni.number, "VNI {number}");
            }
            let now = bench.tables.counted_of(vni.number);
            assert_eq!(now.of(to_instance), opened.of(to_instance) + 1);
        }
    });
}
