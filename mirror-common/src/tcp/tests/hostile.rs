//! What forged and stray segments of a client cannot do.

use super::hosts::{A, B, Net, WINDOW, everywhere};
use super::say::{Say, Seen, ack, data, delivered, fin, rst};
use crate::{
    flow::state,
    reason::Reason,
    tcp::{client, segment::bit},
};

const ALL: i32 = WINDOW as i32;

/// A segment is cloned, for the replicas to judge, and teaches nothing.
#[track_caller]
fn check_teaches_nothing(net: &mut Net, say: Say) {
    let before = (net.flow.sync, net.flow.flow.state);
    let host = net.client;
    let verdict = net.client_says(say);
    net.client = host;
    assert_eq!(verdict, client::Verdict::Clone, "{say:?}: {net:?}");
    let after = (net.flow.sync, net.flow.flow.state);
    assert_eq!(after, before, "{say:?}: {net:?}");
}

fn flow_with_data(net: &mut Net) {
    net.establish(2);
    net.check_client(data(0, 1_000), &[(A, 0), (B, 0)]);
    net.check(B, ack(1_000), Seen::Dropped(Reason::MirrorSuppressed));
    net.check(A, data(0, 500).acks(1_000), delivered(0, 1_000));
    net.check_client(ack(300), &[(A, 300), (B, 0)]);
}

#[test]
fn segments_outside_the_window_teach_nothing() {
    everywhere(|net| {
        flow_with_data(net);
        let edge = 1_000 + ALL;
        for at in [
            edge + 2,
            edge + 100_000,
            1 << 30,
            i32::MAX,
            i32::MIN,
            -(1 << 30),
            -5_000,
        ] {
            check_teaches_nothing(net, ack(400).at(at).window(0).clock(90_000));
            check_teaches_nothing(net, data(at, 1).acks(400).clock(90_000));
            check_teaches_nothing(net, fin(at).acks(400));
        }
        check_teaches_nothing(net, data(edge - 98, 100).acks(400));
    });
}

#[test]
fn acknowledgements_of_what_was_not_sent_teach_nothing() {
    everywhere(|net| {
        flow_with_data(net);
        for acked in [501, 100_000, i32::MAX] {
            check_teaches_nothing(net, data(1_000, 100).acks(acked).clock(5_000));
            check_teaches_nothing(net, fin(1_000).acks(acked));
        }
        check_teaches_nothing(net, data(1_000, 100).without(bit::ACK));
    });
}

#[test]
fn a_stray_syn_teaches_nothing() {
    everywhere(|net| {
        flow_with_data(net);
        check_teaches_nothing(net, data(1_500, 0).with(bit::SYN).without(bit::ACK));
        check_teaches_nothing(net, data(1_500, 0).with(bit::SYN));
    });
}

/// A false acknowledgement stays false for every replica, also for one that has produced more
/// than the client was sent: it would forget bytes that the client lacks.
#[test]
fn a_false_acknowledgement_is_false_for_every_replica() {
    everywhere(|net| {
        flow_with_data(net);
        net.check(B, data(0, 800), Seen::Dropped(Reason::MirrorSuppressed));
        for beyond in [1, 200, 300, 5_000] {
            let _ = net.client_says(data(1_000, 10).acks(500 + beyond));
            for (slot, acked) in net.cloned_to() {
                let produced = [500, 800][usize::from(slot)];
                assert!(acked > produced, "replica {slot} believes {acked}: {net:?}");
            }
        }
        net.client.ack = 300;
        net.check_client(ack(500), &[(A, 500), (B, 500)]);
    });
}

#[test]
fn old_acknowledgements_are_passed_on_as_they_are() {
    everywhere(|net| {
        flow_with_data(net);
        net.check_client(ack(100), &[(A, 100), (B, 0)]);
        assert_eq!(net.flow.sync.client_ack, net.canonical_seq(300));
        net.check_client(ack(-70_000), &[(A, -70_000), (B, -70_000)]);
    });
}

#[test]
fn only_an_exact_reset_closes() {
    everywhere(|net| {
        flow_with_data(net);
        let all = [(A, 300), (B, 0)];
        for at in [999, 1_001, 1_000 + ALL, -1, 30_000, i32::MIN] {
            net.check_client(rst(at).acks(300), &all);
            net.check_state(state::ESTABLISHED);
            let raw = [A, B].map(|slot| (slot, raw_ack(net, slot)));
            net.check_client(rst(at).without(bit::ACK), &raw);
            net.check_state(state::ESTABLISHED);
        }
        let _ = net.client_says(rst(1_000).without(bit::ACK));
        net.check_state(state::CLOSED);
    });
}

/// Without the ACK flag the field is copied as it is.
fn raw_ack(net: &Net, slot: u8) -> i32 {
    let field = net.canonical_seq(300);
    field.wrapping_sub(net.replica_seq(slot, 0)) as i32
}

/// Bytes of the client are still under way: the reset answers what it was told.
#[test]
fn a_reset_with_the_number_the_client_was_told_is_exact_too() {
    everywhere(|net| {
        flow_with_data(net);
        let _ = net.client_says(data(1_000, 100));
        let _ = net.client_says(rst(1_000).without(bit::ACK));
        net.check_state(state::CLOSED);
    });
}

#[test]
fn only_an_exact_reset_ends_a_handshake() {
    everywhere(|net| {
        net.open(2);
        let _ = net.syn_ack(A);
        for at in [1, -1, 50_000] {
            let _ = net.client_says(rst(at).without(bit::ACK));
            net.check_state(state::HANDSHAKE);
        }
        let _ = net.client_says(rst(0).without(bit::ACK));
        net.check_state(state::CLOSED);
    });
}

#[test]
fn a_probe_of_a_shut_window_may_carry_a_byte() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, WINDOW), &[(A, 0), (B, 0)]);
        let _ = net.replica_says(B, ack(ALL).window(0));
        net.check(A, ack(ALL).window(0), delivered(0, ALL));
        net.check_client(data(ALL, 1), &[(A, 0), (B, 0)]);
        // The replicas do not take it, or do: both is fine.
        net.check(A, ack(ALL).window(0), delivered(0, ALL));
        net.check(
            A,
            ack(ALL + 1).window(1_280),
            Seen::Dropped(Reason::AckHeld),
        );
        net.check(B, ack(ALL + 1).window(1_280), Seen::Acked(ALL + 1));
    });
}

#[test]
fn a_replica_that_acknowledges_the_future_is_not_believed() {
    everywhere(|net| {
        flow_with_data(net);
        let before = *net.flow.replica(A);
        let _ = net.replica_says(A, ack(5_000));
        assert_eq!(net.flow.replica(A).rcv_nxt, before.rcv_nxt, "{net:?}");
        // What is so far ahead is not of this connection, and its window neither.
        let edge = net.flow.replica(A).edge;
        for acked in [1_001 + (1 << 16), 1 << 30, i32::MAX] {
            let _ = net.replica_says(A, ack(acked));
            let replica = net.flow.replica(A);
            assert_eq!(replica.rcv_nxt, before.rcv_nxt, "{net:?}");
            assert_eq!(replica.edge, edge, "{net:?}");
        }
    });
}
