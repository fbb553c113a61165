//! Numbers on their way to a replica (acknowledgement, SACK edges, timestamp echo) and back.

use super::hosts::{A, B, C, Net, everywhere};
use super::say::{Seen, ack, data, delivered};
use crate::{
    reason::Reason,
    tcp::{Segment, option, segment::bit, seq},
};

const SUPPRESSED: Seen = Seen::Dropped(Reason::MirrorSuppressed);

#[test]
fn an_untouched_flow_is_not_changed_at_all() {
    everywhere(|net| {
        net.establish(2);
        let says = net.replica_segment_of(A, data(0, 100).sack());
        let output = net.replica_segment(A, &says);
        assert_eq!(
            (
                output.seq,
                output.ack,
                output.window,
                output.ts_val,
                output.ts_ecr
            ),
            (says.seq, says.ack, says.window, says.ts_val, says.ts_ecr),
        );
        let says = net.client_segment_of(data(0, 10).acks(100));
        let _ = net.client_segment(&says);
        let copy = net.copies[0].expect("cloned");
        assert_eq!(
            (copy.ack, copy.ts_ecr, copy.delta),
            (says.ack, says.ts_ecr, 0)
        );
    });
}

#[test]
fn acknowledgements_are_clamped_to_what_the_replica_produced() {
    everywhere(|net| {
        net.establish(3);
        net.check(A, data(0, 500), delivered(0, 0));
        net.check(B, data(0, 200), SUPPRESSED);
        net.check_client(data(0, 10).acks(500), &[(A, 500), (B, 200), (C, 0)]);
        // What a replica produces later is taken in by a later acknowledgement.
        net.check(C, data(0, 500), Seen::Turned(500));
        net.check_client(ack(500), &[(A, 500), (B, 200), (C, 500)]);
    });
}

#[test]
fn a_clamp_includes_the_fin() {
    everywhere(|net| {
        net.vni(0, crate::vni::flag::VOTE_ON_CLOSE);
        net.establish(2);
        net.check(A, data(0, 500).with(bit::FIN), delivered(0, 0));
        net.check_client(ack(501), &[(A, 501), (B, 0)]);
        net.check(B, data(0, 500).with(bit::FIN), Seen::Turned(501));
    });
}

/// The dataplane adds `delta` to SACK edges and blanks those beyond `snd_nxt`.
#[test]
fn sack_edges_are_moved_by_delta_and_bounded_by_what_was_produced() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 1_000), delivered(0, 0));
        net.check(B, data(0, 600), SUPPRESSED);
        let _ = net.client_says(ack(0).sack());
        for (slot, produced) in [(A, 1_000), (B, 600)] {
            let copy = net.copies[usize::from(slot)].expect("cloned");
            let moved = net.canonical_seq(300).wrapping_add(copy.delta);
            assert_eq!(moved, net.replica_seq(slot, 300), "{net:?}");
            assert_eq!(copy.snd_nxt, net.replica_seq(slot, produced), "{net:?}");
            assert_eq!(copy.instance, 10 + u16::from(slot));
        }
    });
}

#[test]
fn timestamps_are_translated_both_ways() {
    everywhere(|net| {
        net.establish(2);
        net.wait(40);
        let output = net.check(A, data(0, 10), delivered(0, 0));
        assert_eq!(output.ts_val, net.clock_of(&net.replicas[0]));
        net.check(B, data(0, 10), SUPPRESSED);
        net.wait(3);
        let _ = net.client_says(ack(10));
        for slot in [A, B] {
            let copy = net.copies[usize::from(slot)].expect("cloned");
            let sent = net.flow.replica(slot).ts_last;
            assert_eq!(copy.ts_ecr, sent, "slot {slot}: {net:?}");
        }
        // After a takeover the canonical clock goes on.
        net.take_over(A, B);
        net.wait(7);
        let output = net.check(B, data(10, 10), delivered(10, 0));
        assert_eq!(output.ts_val, net.clock_of(&net.replicas[0]));
    });
}

#[test]
fn an_echo_is_never_ahead_of_what_the_replica_sent() {
    everywhere(|net| {
        net.establish(2);
        net.wait(500);
        net.check(A, data(0, 10), delivered(0, 0));
        let _ = net.client_says(ack(10));
        let copy = net.copies[usize::from(B)].expect("cloned");
        assert_eq!(copy.ts_ecr, net.flow.replica(B).ts_last, "{net:?}");
        assert!(seq::before(copy.ts_ecr, net.clock_of(&net.replicas[1])));
    });
}

#[test]
fn a_slow_clock_is_anchored_anew_at_takeover() {
    everywhere(|net| {
        net.establish(2);
        net.wait(20_000);
        // The mirror's clock lost ten seconds.
        net.replicas[1].clock = net.replicas[1].clock.wrapping_sub(10_000);
        let last = net.check(A, data(0, 10), delivered(0, 0)).ts_val;
        let _ = net.client_says(ack(10));
        net.take_over(A, B);
        let output = net.check(B, data(0, 10), Seen::Turned(10));
        assert_eq!(output.ts_ecr, net.clock_of(&net.replicas[1]));
        let output = net.check(B, data(10, 10), delivered(10, 0));
        assert_eq!(output.ts_val, last, "runs backwards: {net:?}");
        net.wait(5);
        let output = net.check(B, data(20, 10), delivered(20, 0));
        assert_eq!(output.ts_val, last.wrapping_add(5), "{net:?}");
        // And back in the replica's clock.
        let _ = net.client_says(ack(30));
        let copy = net.copies[usize::from(B)].expect("cloned");
        assert_eq!(copy.ts_ecr, net.clock_of(&net.replicas[1]), "{net:?}");
    });
}

#[test]
fn a_reordered_old_timestamp_stays_old() {
    everywhere(|net| {
        net.establish(2);
        net.wait(100);
        let last = net.check(A, data(0, 10), delivered(0, 0)).ts_val;
        let output = net.check(A, data(0, 10).clock(-30), delivered(0, 0));
        assert_eq!(output.ts_val, last.wrapping_sub(30));
        let output = net.check(A, data(10, 10), delivered(10, 0));
        assert_eq!(output.ts_val, last);
    });
}

#[test]
fn a_mirrors_acknowledgement_never_turns_the_clock_back() {
    everywhere(|net| {
        net.establish(2);
        net.wait(100);
        net.replicas[1].clock = net.replicas[1].clock.wrapping_sub(50);
        net.check_client(data(0, 10), &[(A, 0), (B, 0)]);
        let last = net.check(A, data(0, 10).acks(10), delivered(0, 0)).ts_val;
        let output = net.check(B, ack(10), Seen::Acked(10));
        assert_eq!(output.ts_val, last);
        // A mirror whose clock is ahead pulls the active one along.
        net.replicas[1].clock = net.replicas[1].clock.wrapping_add(80);
        net.check_client(data(10, 10).acks(10), &[(A, 10), (B, 0)]);
        let _ = net.replica_says(A, ack(20));
        let ahead = net.check(B, ack(20), Seen::Acked(20)).ts_val;
        assert_eq!(ahead, last.wrapping_add(30));
        let output = net.check(A, data(10, 10), delivered(10, 20));
        assert_eq!(output.ts_val, ahead, "{net:?}");
    });
}

#[test]
fn a_flow_without_timestamps_has_none() {
    everywhere(|net: &mut Net| {
        for host in net.replicas.iter_mut().chain([&mut net.client]) {
            host.options = option::SACK;
            host.clock = 0u32.wrapping_sub(net.conditions.now_ms);
        }
        net.open(2);
        net.conditions.now_ms = net.conditions.now_ms.wrapping_add(1);
        for slot in [A, B] {
            let mut segment = net.syn_ack_of(slot);
            (segment.ts_val, segment.ts_ecr) = (0, 0);
            let _ = net.replica_segment(slot, &segment);
        }
        let _ = net.client_says(ack(0).echo(0));
        let mut segment = net.replica_segment_of(A, data(0, 10));
        (segment.ts_val, segment.ts_ecr) = (0, 0);
        let output = net.replica_segment(A, &segment);
        assert_eq!((output.ts_val, output.ts_ecr), (0, 0));
        assert_eq!(net.copies[0].expect("cloned").ts_ecr, 0);
    });
}

/// Not every stack stamps everything (`smoltcp` answers what came without a timestamp without one).
#[test]
fn a_segment_without_a_timestamp_does_not_move_the_clock() {
    everywhere(|net| {
        net.establish(2);
        for slot in [A, B] {
            net.check_client(data(0, 10), &[(A, 0), (B, 0)]);
            let before = net.flow.sync.ts_sent;
            let plain = Segment {
                options: 0,
                ts_val: 0,
                ts_ecr: 0,
                ..net.replica_segment_of(slot, ack(10))
            };
            let _ = net.replica_segment(slot, &plain);
            assert_eq!(net.flow.sync.ts_sent, before, "{net:?}");
        }
    });
}
