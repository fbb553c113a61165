//! Mirrors that answer the handshake when the client has been answered already.

use super::handshake::{check_held, check_opened};
use super::hosts::{A, B, C, everywhere};
use super::say::{Seen, ack, data, delivered};
use crate::{
    event::cause,
    reason::{Cold, Reason},
    tcp::{Segment, option, replica::Verdict, segment::bit},
};

#[test]
fn a_late_mirror_joins_while_the_client_has_sent_nothing() {
    everywhere(|net| {
        net.open(2);
        net.wait(5);
        let _ = net.syn_ack(A);
        net.complete();
        net.check_client(ack(0), &[(A, 0)]);
        net.check(A, data(0, 300), delivered(0, 0));
        net.wait(20);
        let output = net.syn_ack(B);
        // Its handshake is completed in the client's name.
        assert_eq!(output.verdict, Verdict::TurnRound, "{net:?}");
        assert_eq!(output.seq, net.client_seq(0));
        assert_eq!(output.ack, net.replicas[1].isn.wrapping_add(1));
        assert_eq!(net.notes.went_warm, 1 << B);
        net.check_client(data(0, 10).acks(300), &[(A, 300), (B, 0)]);
        // The client echoes what the active replica stamped; it was no later than the SYN-ACK.
        let copy = net.copies[usize::from(B)].expect("cloned");
        assert_eq!(copy.ts_ecr, net.flow.replica(B).ts_last, "{net:?}");
        net.wait(5);
        net.check(A, data(300, 10).acks(10), delivered(300, 0));
        net.check(B, data(0, 10).acks(10), Seen::Acked(10));
        net.check_client(ack(310), &[(A, 310), (B, 10)]);
        let copy = net.copies[usize::from(B)].expect("cloned");
        assert_eq!(copy.ts_ecr, net.flow.replica(B).ts_last, "{net:?}");
    });
}

/// Its SYN-ACK comes again with the mirror's smaller window, and the client has gone by the first one already.
#[test]
fn what_the_client_sends_by_its_first_window_is_taken_in() {
    everywhere(|net| {
        net.open(2);
        net.wait(5);
        let first = net.syn_ack(A);
        check_opened(net, first, A);
        let mut small = net.syn_ack_of(B);
        small.window = 1_000;
        let _ = net.replica_segment(B, &small);
        assert_eq!(net.syn_ack(A).window, 1_000);
        net.complete();
        net.check_client(data(0, 2_000), &[(A, 0), (B, 0)]);
        net.check(A, ack(0).acks(2_000), Seen::Dropped(Reason::AckHeld));
        net.check(B, ack(0).acks(2_000), Seen::Acked(2_000));
    });
}

/// A full listen queue: the instance lives, and answers no SYN.
#[test]
fn a_mirror_that_leaves_syns_unanswered_is_not_waited_for() {
    everywhere(|net| {
        net.open(3);
        let output = net.syn_ack(A);
        check_held(net, output);
        assert!(output.park, "to be taken in again");
        let output = net.syn_ack(B);
        check_held(net, output);
        net.conditions.unresponsive = 1 << C;
        // What the agent does with what is parked.
        let output = net.syn_ack(A);
        check_opened(net, output, A);
        net.complete();
        net.check_warm(&[A, B]);
        // It may still join, as any late mirror.
        let _ = net.syn_ack(C);
        net.check_warm(&[A, B, C]);
    });
}

#[test]
fn a_late_mirror_that_missed_data_is_cold() {
    everywhere(|net| {
        net.open(2);
        net.wait(5);
        let _ = net.syn_ack(A);
        net.complete();
        net.check_client(data(0, 10), &[(A, 0)]);
        net.check_went_cold(B, Cold::HandshakeMissed);
        let output = net.syn_ack(B);
        assert_eq!(
            (output.verdict, output.flags),
            (Verdict::TurnRound, bit::RST),
            "{net:?}"
        );
        net.check_warm(&[A]);
        assert_eq!(net.notes.went_cold, 0, "told twice: {net:?}");
    });
}

#[test]
fn a_late_mirror_with_other_options_is_cold() {
    everywhere(|net| {
        net.replicas[usize::from(B)].options = option::WINDOW_SCALE;
        net.open(2);
        net.wait(5);
        let _ = net.syn_ack(A);
        net.complete();
        let _ = net.syn_ack(B);
        net.check_went_cold(B, Cold::OptionMismatch);
    });
}

/// The active replica's machine begins anew in the middle, when nobody could take over, and with another system.
#[test]
fn a_late_mirror_takes_over_from_an_active_replica_that_went_cold() {
    everywhere(|net| {
        net.open(2);
        net.wait(5);
        let _ = net.syn_ack(A);
        net.complete();
        let again = Segment {
            options: option::TIMESTAMP,
            seq: net.replicas[usize::from(A)].isn.wrapping_add(70_000),
            ..net.syn_ack_of(A)
        };
        let _ = net.replica_segment(A, &again);
        net.check_went_cold(A, Cold::OptionMismatch);
        let _ = net.syn_ack(B);
        net.check_client(data(0, 10), &[(B, 0)]);
        net.check_takeover(cause::DEAD, A, B);
    });
}
