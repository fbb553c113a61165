//! What the programs measure of instances while packets pass.

use crate::bench::{Bench, Verdict, with_bench};
use crate::conversation::Conversation;
use crate::hosts::{Family, PLAIN, WEB};

/// Of a test's own time, in steps: half a second.
const SLACK: u16 = 30_000;

/// Lets the SYN have passed so many steps earlier.
fn age_syn(bench: &mut Bench, talk: &Conversation, steps: u32) {
    let mut half = bench.tables.half_open.get(&talk.key(), 0).unwrap();
    half.sync.syn_steps = half.sync.syn_steps.wrapping_sub(steps);
    bench.tables.half_open.insert(talk.key(), half, 0).unwrap();
}

fn handshake(bench: &Bench, talk: &Conversation) -> u16 {
    bench.tables.find(&talk.key()).unwrap().1.handshake
}

#[test]
fn a_flow_keeps_how_long_its_active_instance_took_to_answer() {
    with_bench(|bench| {
        for talk in Family::ALL.map(|family| Conversation::new(WEB, family)) {
            bench.reset();
            talk.open(bench);
            assert_eq!(handshake(bench, &talk), 0);
            age_syn(bench, &talk, 1_000);
            // That of the mirror is not the flow's.
            talk.replica_sends(bench, 1, &talk.syn_ack(1), Verdict::Drop);
            assert_eq!(handshake(bench, &talk), 0);
            age_syn(bench, &talk, 1_000);
            talk.replica_sends(bench, 0, &talk.syn_ack(0), Verdict::Redirect);
            let took = handshake(bench, &talk);
            assert!((2_000..2_000 + SLACK).contains(&took), "{took}");
            // Nor is what comes again.
            age_syn(bench, &talk, 60_000);
            talk.replica_sends(bench, 0, &talk.syn_ack(0), Verdict::Redirect);
            talk.client_sends(bench, &talk.client(0, 0), Verdict::Redirect);
            assert_eq!(handshake(bench, &talk), took, "established");
        }
    });
}

#[test]
fn the_same_without_mirrors() {
    with_bench(|bench| {
        let talk = Conversation::with(PLAIN);
        talk.open(bench);
        age_syn(bench, &talk, 2_000);
        talk.answer(bench);
        let took = handshake(bench, &talk);
        assert!((2_000..2_000 + SLACK).contains(&took), "{took}");
        age_syn(bench, &talk, 60_000);
        talk.answer(bench);
        talk.client_sends(bench, &talk.client(0, 0), Verdict::Redirect);
        assert_eq!(handshake(bench, &talk), took, "established");
    });
}

#[test]
fn an_answer_that_took_too_long_to_count_is_the_longest() {
    with_bench(|bench| {
        for vni in [WEB, PLAIN] {
            bench.reset();
            let talk = Conversation::with(vni);
            talk.open(bench);
            age_syn(bench, &talk, 1 << 16);
            talk.answer(bench);
            assert_eq!(handshake(bench, &talk), u16::MAX);
        }
    });
}
