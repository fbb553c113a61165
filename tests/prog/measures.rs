//! What the programs measure of instances while packets pass.

use mirror_common::instance;
use mirror_common::limits::{SYN_REPEATED_STEPS_MIN, TIMED_PER_TICK};
use mirror_common::tcp::segment::bit;

use crate::bench::{Bench, Program, Verdict, with_bench};
use crate::conversation::Conversation;
use crate::hosts::{A, B, Family, PLAIN, WEB};
use crate::packet::Tcp;

/// Of a test's own time, in steps: half a second.
const SLACK: u16 = 30_000;

/// After so many steps a SYN is one that the client repeats. A tick more than the bound: the time of a packet is that of the kernel's
/// last tick, and a SYN's is exact.
const REPEATED: u32 = SYN_REPEATED_STEPS_MIN + 1_000;

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

/// What the programs counted of both instances while something happened.
fn counted(
    bench: &mut Bench,
    happens: impl FnOnce(&mut Bench),
    of: impl Fn(&mirror_common::instance::Measures) -> u64,
) -> [u64; 2] {
    let before = [A, B].map(|instance| of(&bench.tables.measures(instance)));
    happens(bench);
    let after = [A, B].map(|instance| of(&bench.tables.measures(instance)));
    [after[0] - before[0], after[1] - before[1]]
}

/// The SYN again, that many steps after the first.
fn repeat_syn(bench: &mut Bench, talk: &Conversation, after: u32) -> [u64; 2] {
    let again = |bench: &mut Bench| {
        age_syn(bench, talk, after);
        talk.client_sends(bench, &talk.syn(), Verdict::Redirect);
    };
    counted(bench, again, |measures| measures.unanswered)
}

#[test]
fn a_syn_that_a_client_repeats_was_not_answered_by_whom_it_was_not_answered() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB);
        talk.open(bench);
        assert_eq!(repeat_syn(bench, &talk, REPEATED), [1, 1]);
        talk.replica_sends(bench, 1, &talk.syn_ack(1), Verdict::Drop);
        assert_eq!(repeat_syn(bench, &talk, 0), [1, 0]);
        bench.reset();
        let talk = Conversation::with(PLAIN);
        talk.open(bench);
        assert_eq!(repeat_syn(bench, &talk, REPEATED), [1, 0]);
        talk.answer(bench);
        assert_eq!(repeat_syn(bench, &talk, 0), [0, 0]);
    });
}

/// What the network doubles comes at once, what a client repeats after a second. A quarter of one is neither, and no client's.
#[test]
fn a_syn_that_the_network_doubles_says_nothing_of_who_has_not_answered() {
    with_bench(|bench| {
        for vni in [WEB, PLAIN] {
            bench.reset();
            let talk = Conversation::with(vni);
            talk.open(bench);
            assert_eq!(repeat_syn(bench, &talk, 0), [0, 0]);
            assert_eq!(repeat_syn(bench, &talk, SYN_REPEATED_STEPS_MIN / 2), [0, 0]);
        }
    });
}

#[test]
fn handshakes_requests_and_acknowledgements_are_counted_of_each_replica() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB);
        let number = |measures: &mirror_common::instance::Measures| measures.handshake.number();
        let opened = counted(
            bench,
            |bench| {
                talk.clone().established(bench);
            },
            number,
        );
        assert_eq!(opened, [1, 1]);
        let request = data(&talk, 0);
        let asked = counted(
            bench,
            |bench| talk.client_sends(bench, &request, Verdict::Redirect),
            |measures| measures.requests,
        );
        assert_eq!(asked, [1, 1]);
        // The mirror's is held to that of the active one, and timed all the same.
        for (slot, expected) in [(1, [0, 1]), (0, [1, 0])] {
            let heard = counted(
                bench,
                |bench| {
                    let ingress = bench.network.link([A, B][slot]);
                    let frame = talk.of_instance(slot).tcp(&talk.replica(slot, 0, PAYLOAD));
                    bench.run(Program::InstanceReturn, ingress, &frame);
                },
                |measures| measures.ack.number(),
            );
            assert_eq!(heard, expected);
        }
    });
}

#[test]
fn a_stall_is_counted_of_who_took_over_and_only_when_a_client_waits() {
    let number = |measures: &mirror_common::instance::Measures| measures.stall.number();
    with_bench(|bench| {
        for waits in [true, false] {
            bench.reset();
            let talk = Conversation::with(WEB).established(bench);
            let c = if waits { PAYLOAD } else { 0 };
            let stalls = counted(
                bench,
                |bench| {
                    if waits {
                        talk.client_sends(bench, &data(&talk, 0), Verdict::Redirect);
                    }
                    bench
                        .tables
                        .change(A, |entry| entry.state = instance::state::DEAD);
                    talk.client_sends(bench, &talk.client(c, 0), Verdict::Redirect);
                    let waiting = bench.tables.mirrored.get(&talk.key(), 0).unwrap();
                    assert_eq!(waiting.sync.stalled_steps != 0, waits);
                    let answer = talk.replica(1, 0, c).with_payload(b"answer");
                    talk.replica_sends(bench, 1, &answer, Verdict::Redirect);
                    // The second says nothing of the takeover.
                    let more = talk.replica(1, 6, c).with_payload(b"more");
                    talk.replica_sends(bench, 1, &more, Verdict::Redirect);
                },
                number,
            );
            assert_eq!(stalls, [0, u64::from(waits)]);
        }
    });
}

/// Bytes of a request.
const PAYLOAD: u32 = 10;

/// A request after `c` bytes.
fn data(talk: &Conversation, c: u32) -> Tcp {
    Tcp {
        payload: vec![7; PAYLOAD as usize],
        flags: bit::ACK | bit::PSH,
        ..talk.client(c, 0)
    }
}

/// Whether another connection's segment is timed after so many others were begun to be.
fn is_timed_after(bench: &mut Bench, begun: u64) -> bool {
    bench.reset();
    let busy = Conversation::with(WEB).established(bench);
    let mut other = Conversation::with(WEB);
    other.client.set_port(40_001);
    let other = other.established(bench);
    busy.client_sends(bench, &data(&busy, 0), Verdict::Redirect);
    let ingress = bench.network.vni_interface();
    let again = busy.inbound().tcp(&data(&busy, 0));
    let new = other.inbound().tcp(&data(&other, 0));
    // What is sent again is timed no longer, the first time, and is begun anew each time after that. Frames are made before, so that it all happens
    // within one tick, if it can.
    for _ in 0..begun {
        bench.run(Program::VniIngress, ingress, &again);
    }
    bench.run(Program::VniIngress, ingress, &new);
    let (_, flow) = bench.tables.find(&other.key()).unwrap();
    flow.is_timed(flow.active) != 0
}

#[test]
fn so_many_segments_are_timed_in_a_tick_and_no_more() {
    const TRIES: usize = 200;
    with_bench(|bench| {
        // Ticks that begin meanwhile only add to what may be timed.
        assert!(is_timed_after(bench, TIMED_PER_TICK / 2));
        let refused = (0..TRIES).any(|_| !is_timed_after(bench, TIMED_PER_TICK));
        assert!(
            refused,
            "as many as {TRIES} times {TIMED_PER_TICK} were followed by another"
        );
    });
}
