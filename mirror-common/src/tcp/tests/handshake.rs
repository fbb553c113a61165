//! The gate: the last SYN-ACK of the set opens the connection, in the active replica's numbers.

use super::hosts::{A, B, C, D, Net, everywhere};
use super::say::{Seen, ack, data, delivered, rst};
use crate::{
    event::cause,
    flow::state,
    reason::{Cold, Reason},
    tcp::{
        Segment, client, option,
        replica::{Output, Verdict},
        segment::bit,
        seq,
    },
};

/// A SYN-ACK that went to the client in the numbers of `active`.
#[track_caller]
pub(super) fn check_opened(net: &Net, output: Output, active: u8) {
    let host = &net.replicas[usize::from(active)];
    assert_eq!(output.verdict, Verdict::ToClient, "{net:?}");
    assert_eq!(output.seq, host.isn, "{net:?}");
    assert_eq!(output.ack, net.client.isn.wrapping_add(1), "{net:?}");
    assert_eq!(output.ts_val, net.flow.replica(active).ts_last, "{net:?}");
    net.check_state(state::ANSWERED);
    assert_eq!(net.flow.flow.active, active, "{net:?}");
}

#[track_caller]
pub(super) fn check_held(net: &Net, output: Output) {
    let dropped = (Verdict::Drop, Reason::SynAckHeld);
    assert_eq!((output.verdict, output.reason), dropped, "{net:?}");
    net.check_state(state::HANDSHAKE);
}

/// A reset of the SYN, as a closed port answers it.
fn refusal(net: &Net) -> Segment {
    Segment {
        ack: net.client.isn.wrapping_add(1),
        flags: bit::RST | bit::ACK,
        ..Segment::default()
    }
}

fn refuse(net: &mut Net, slot: u8) -> Output {
    let segment = refusal(net);
    net.replica_segment(slot, &segment)
}

#[test]
fn the_syn_goes_to_every_replica() {
    everywhere(|net| {
        net.open(4);
        let slots: Vec<u8> = net.cloned_to().into_iter().map(|(slot, _)| slot).collect();
        assert_eq!(slots, [A, B, C, D]);
    });
}

#[test]
fn the_last_syn_ack_opens_whoever_it_is_of() {
    let orders: [&[u8]; 5] = [&[A, B], &[B, A], &[B, C, A], &[A, C, B], &[D, B, A, C]];
    for order in orders {
        everywhere(|net| {
            net.open(order.len() as u8);
            let (last, first) = order.split_last().expect("not empty");
            for &slot in first {
                net.wait(1);
                let output = net.syn_ack(slot);
                check_held(net, output);
            }
            let output = net.syn_ack(*last);
            check_opened(net, output, A);
            net.complete();
            net.check_warm(&[A, B, C, D][..order.len()]);
            let everybody: Vec<_> = (0..order.len() as u8).map(|slot| (slot, 0)).collect();
            net.check_client(data(0, 10), &everybody);
        });
    }
}

#[test]
fn the_client_is_offered_the_smallest_window() {
    everywhere(|net| {
        net.replicas[usize::from(B)].scale = 3;
        net.open(2);
        let mut syn_ack = net.syn_ack_of(B);
        syn_ack.window = 1_000;
        let _ = net.replica_segment(B, &syn_ack);
        let output = net.syn_ack(A);
        assert_eq!(output.window, 1_000, "{net:?}");
        assert_eq!(net.flow.sync.told_edge, output.ack.wrapping_add(1_000));
    });
}

#[test]
fn a_mirror_that_does_not_answer_costs_the_deadline() {
    everywhere(|net| {
        net.open(2);
        let output = net.syn_ack(A);
        check_held(net, output);
        net.wait(4);
        let output = net.syn_ack(A);
        check_held(net, output);
        net.wait(1);
        let output = net.syn_ack(A);
        check_opened(net, output, A);
        net.check_warm(&[A]);
    });
}

#[test]
fn a_dead_mirror_costs_nothing() {
    everywhere(|net| {
        net.open(3);
        net.die(B);
        let output = net.syn_ack(C);
        check_held(net, output);
        let output = net.syn_ack(A);
        check_opened(net, output, A);
    });
}

#[test]
fn a_dead_primary_leaves_the_flow_to_a_mirror() {
    everywhere(|net| {
        net.open(2);
        net.die(A);
        let output = net.syn_ack(B);
        check_opened(net, output, B);
        net.check_takeover(cause::DEAD, A, B);
        net.complete();
        net.check_client(data(0, 10), &[(B, 0)]);
    });
}

#[test]
fn what_a_dead_instance_says_opens_nothing() {
    everywhere(|net| {
        net.open(2);
        net.die(B);
        let output = net.syn_ack(B);
        assert_eq!(output.verdict, Verdict::Drop, "{net:?}");
        net.check_state(state::HANDSHAKE);
        net.check_warm(&[]);
    });
}

#[test]
fn after_the_deadline_a_mirror_opens_in_the_place_of_a_silent_primary() {
    everywhere(|net| {
        net.open(2);
        net.wait(5);
        let output = net.syn_ack(B);
        check_opened(net, output, B);
        net.check_takeover(cause::UNANSWERED, A, B);
        // The primary wakes up: a mirror from now on.
        net.complete();
        let output = net.syn_ack(A);
        assert_eq!(output.verdict, Verdict::TurnRound, "{net:?}");
        net.check_warm(&[A, B]);
        net.check_client(data(0, 10), &[(A, 0), (B, 0)]);
    });
}

#[test]
fn a_mirror_with_other_options_is_cold_and_the_next_syn_ack_opens() {
    everywhere(|net| {
        net.replicas[usize::from(B)].options = option::TIMESTAMP;
        net.open(2);
        let output = net.syn_ack(A);
        check_held(net, output);
        let output = net.syn_ack(B);
        check_held(net, output);
        net.check_went_cold(B, Cold::OptionMismatch);
        net.wait(1_000);
        let output = net.syn_ack(A);
        check_opened(net, output, A);
        // Its own handshake is ended.
        let output = net.syn_ack(B);
        assert_eq!(
            (output.verdict, output.flags),
            (Verdict::TurnRound, bit::RST),
            "{net:?}"
        );
        net.complete();
        net.check_warm(&[A]);
    });
}

#[test]
fn a_primary_that_refuses_leaves_the_flow_to_a_mirror_that_accepts() {
    for mirror_first in [false, true] {
        everywhere(|net| {
            net.open(2);
            if mirror_first {
                let output = net.syn_ack(B);
                check_held(net, output);
            }
            let output = refuse(net, A);
            assert_eq!(output, Output::drop(Reason::ResetHeld), "{net:?}");
            net.check_takeover(cause::REFUSED, A, B);
            let output = net.syn_ack(B);
            check_opened(net, output, B);
            net.complete();
            net.check_client(data(0, 10), &[(B, 0)]);
        });
    }
}

#[test]
fn a_mirror_that_refuses_is_cold() {
    everywhere(|net| {
        net.open(2);
        assert_eq!(refuse(net, B), Output::drop(Reason::ResetHeld));
        net.check_went_cold(B, Cold::Refused);
        net.check_stays(A);
        let output = net.syn_ack(A);
        check_opened(net, output, A);
    });
}

#[test]
fn when_all_refuse_the_client_is_refused() {
    everywhere(|net| {
        net.open(2);
        assert_eq!(refuse(net, A), Output::drop(Reason::ResetHeld));
        let output = refuse(net, B);
        assert_eq!(output.verdict, Verdict::ToClient, "{net:?}");
        assert_eq!(
            (output.seq, output.ack),
            (0, net.client.isn.wrapping_add(1))
        );
        net.check_state(state::CLOSED);
        assert!(net.notes.closed);
    });
}

/// The client has the SYN-ACK already, and the mirror that is left never answered: nobody can
/// serve it.
#[test]
fn an_answered_client_is_reset_when_only_a_silent_mirror_is_left() {
    everywhere(|net| {
        net.open(2);
        net.wait(5);
        let output = net.syn_ack(A);
        check_opened(net, output, A);
        let output = net.replica_says(A, rst(0));
        assert_eq!(output.verdict, Verdict::ToClient, "{net:?}");
        net.check_state(state::CLOSED);
    });
}

#[test]
fn a_lost_syn_ack_is_repeated_by_the_replica_whose_scale_was_told() {
    everywhere(|net| {
        net.replicas[usize::from(B)].scale = 10;
        net.open(2);
        let _ = net.syn_ack(A);
        let output = net.syn_ack(B);
        check_opened(net, output, A);
        let first = output.ts_val;
        assert_eq!(net.flow.sync.window_scale, 10);
        net.wait(1_000);
        let syn = net.syn();
        assert_eq!(net.client_segment(&syn), client::Verdict::Clone);
        assert_eq!(net.copies.iter().flatten().count(), 2);
        // The active one would tell another scale.
        assert_eq!(net.syn_ack(A).verdict, Verdict::Drop);
        let output = net.syn_ack(B);
        assert_eq!(output.verdict, Verdict::ToClient, "{net:?}");
        assert_eq!((output.seq, output.ts_val), (net.replicas[0].isn, first));
        net.complete();
    });
}

#[test]
fn the_echo_in_the_handshake_is_the_value_each_replica_sent() {
    everywhere(|net| {
        net.open(3);
        let sent: Vec<u32> = [B, C, A]
            .map(|slot| {
                net.wait(1);
                let _ = net.syn_ack(slot);
                net.flow.replica(slot).ts_last
            })
            .to_vec();
        net.complete();
        let echoed: Vec<u32> = [B, C, A]
            .map(|slot| net.copies[usize::from(slot)].expect("cloned").ts_ecr)
            .to_vec();
        assert_eq!(echoed, sent);
    });
}

#[test]
fn a_replica_that_lost_the_handshake_ack_gets_it_again() {
    everywhere(|net| {
        net.open(2);
        let _ = net.syn_ack(A);
        let _ = net.syn_ack(B);
        net.complete();
        net.wait(1_000);
        for slot in [A, B] {
            let output = net.syn_ack(slot);
            let stamped = net.clock_of(&net.replicas[usize::from(slot)]);
            assert_eq!(net.flow.replica(slot).ts_last, stamped, "{net:?}");
            assert_eq!(output.verdict, Verdict::TurnRound, "{net:?}");
            let own = net.replicas[usize::from(slot)].isn.wrapping_add(1);
            assert_eq!(output.ack, own, "{net:?}");
        }
    });
}

#[test]
fn a_syn_ack_of_another_connection_ends_the_flow() {
    everywhere(|net| {
        net.establish(2);
        for (slot, expected) in [(B, state::ESTABLISHED), (A, state::CLOSED)] {
            let mut segment = net.syn_ack_of(slot);
            segment.ack = segment.ack.wrapping_add(77_000);
            let output = net.replica_segment(slot, &segment);
            assert_eq!(output, Output::drop(Reason::BadHandshakeAck), "{net:?}");
            net.check_state(expected);
        }
    });
}

#[test]
fn a_syn_ack_that_acknowledges_something_else_is_not_learned() {
    everywhere(|net| {
        net.open(2);
        let mut segment = net.syn_ack_of(A);
        segment.ack = segment.ack.wrapping_add(1);
        let output = net.replica_segment(A, &segment);
        assert_eq!(output, Output::refuse(&segment), "{net:?}");
        net.check_warm(&[]);
    });
}

#[test]
fn only_the_right_acknowledgement_completes_the_handshake() {
    everywhere(|net| {
        net.open(2);
        let early = net.client_segment_of(ack(0));
        assert!(!client::completes_handshake(&net.flow, &early), "{net:?}");
        let _ = net.syn_ack(A);
        let _ = net.syn_ack(B);
        let right = net.client_segment_of(ack(0));
        let wrong = Segment {
            ack: right.ack.wrapping_add(1),
            ..right
        };
        let reset = Segment {
            flags: bit::ACK | bit::RST,
            ..right
        };
        assert!(client::completes_handshake(&net.flow, &right), "{net:?}");
        assert!(!client::completes_handshake(&net.flow, &wrong), "{net:?}");
        assert!(!client::completes_handshake(&net.flow, &reset), "{net:?}");
    });
}

#[test]
fn the_server_may_speak_first() {
    everywhere(|net| {
        net.establish(2);
        net.check(B, data(0, 100), Seen::Dropped(Reason::MirrorSuppressed));
        net.check(A, data(0, 100), delivered(0, 0));
        assert_eq!(net.flow.sync.sent, net.canonical_seq(100));
        net.check_client(ack(100), &[(A, 100), (B, 100)]);
        assert!(!seq::after(net.flow.sync.client_ack, net.flow.sync.sent));
    });
}

/// The SYN-ACK that told the client B's window scale was lost, and B with it.
#[test]
fn the_active_one_repeats_when_nobody_with_the_told_scale_is_left() {
    everywhere(|net| {
        net.replicas[1].scale = 3;
        net.open(2);
        let _ = net.syn_ack(A);
        let _ = net.syn_ack(B);
        assert_eq!(net.flow.sync.window_scale, 3);
        let held = net.syn_ack(A);
        assert_eq!(held.verdict, Verdict::Drop, "{net:?}");
        net.die(B);
        let output = net.syn_ack(A);
        check_opened(net, output, A);
        assert_eq!(net.flow.sync.window_scale, 7);
    });
}
