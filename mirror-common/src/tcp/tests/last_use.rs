//! What is left of a port's last use, in hosts and on its way, while the next connection begins.

use super::hosts::{A, B, Net, everywhere};
use super::say::{Seen, ack, data, fin, rst};
use crate::{
    event::cause,
    flow::state,
    reason::{Cold, Reason},
    tcp::{
        Segment, flag,
        replica::{Output, Verdict},
        segment::bit,
    },
};

const SUPPRESSED: Seen = Seen::Dropped(Reason::MirrorSuppressed);
const NOT_OURS: Output = Output::drop(Reason::BadHandshakeAck);

/// A replica's segment is answered with a reset that the replica believes.
#[track_caller]
fn check_refused(net: &mut Net, slot: u8, segment: &Segment) {
    let output = net.replica_segment(slot, segment);
    assert_eq!(output.verdict, Verdict::TurnRound, "{net:?}");
    assert!(
        output.flags == bit::RST && output.seq == segment.ack,
        "{net:?}"
    );
}

/// A stack in the middle of a connection answers a SYN with an acknowledgement (RFC 5961, 4.2), and
/// waits for a reset.
#[test]
fn a_replica_that_holds_the_last_connection_is_reset() {
    everywhere(|net| {
        net.open(2);
        let challenge = Segment {
            flags: bit::ACK,
            ack: net.client.isn.wrapping_sub(70_000),
            ..net.syn_ack_of(B)
        };
        check_refused(net, B, &challenge);
        let late = Segment {
            flags: bit::SYN | bit::ACK,
            ..challenge
        };
        check_refused(net, B, &late);
        // It takes part from its next answer on.
        let _ = net.syn_ack(A);
        let _ = net.syn_ack(B);
        net.check_warm(&[A, B]);
    });
}

#[test]
fn a_dead_instance_is_not_answered() {
    everywhere(|net| {
        net.open(2);
        net.die(B);
        net.check(B, data(0, 10), SUPPRESSED);
    });
}

#[test]
fn until_the_client_has_answered_replicas_have_nothing_to_say() {
    everywhere(|net| {
        net.open(2);
        let _ = net.syn_ack(A);
        let _ = net.syn_ack(B);
        for slot in [A, B] {
            net.check(slot, ack(0), SUPPRESSED);
            net.check(slot, data(0, 10), SUPPRESSED);
        }
        assert_eq!(net.flow.replica(A).snd_nxt, net.replica_seq(A, 0));
    });
}

#[test]
fn a_reset_of_another_connection_refuses_nothing() {
    everywhere(|net| {
        net.open(2);
        let late = Segment {
            flags: bit::RST,
            seq: net.replicas[1].isn.wrapping_sub(70_000),
            ..Segment::default()
        };
        assert_eq!(net.replica_segment(B, &late), NOT_OURS, "{net:?}");
        let _ = net.syn_ack(B);
        assert_eq!(net.replica_segment(B, &late), NOT_OURS, "{net:?}");
        net.check_warm(&[B]);
        // Of the SYN-ACK itself.
        let own = Segment {
            seq: net.replica_seq(B, 0),
            ..late
        };
        assert_eq!(net.replica_segment(B, &own).reason, Reason::ResetHeld);
        net.check_went_cold(B, Cold::Refused);
    });
}

#[test]
fn nor_does_it_end_the_next_connection() {
    everywhere(|net| {
        net.establish(2);
        for slot in [A, B] {
            net.check(slot, rst(-70_000), SUPPRESSED);
        }
        net.check_warm(&[A, B]);
        net.check(B, rst(0), SUPPRESSED);
        net.check_went_cold(B, Cold::Reset);
    });
}

#[test]
fn a_fin_of_another_connection_closes_nothing() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(ack(0), &[(A, 0), (B, 0)]);
        let _ = net.replica_says(B, fin(-5_000));
        assert_eq!(net.flow.replica(B).flags & flag::FIN, 0, "{net:?}");
        net.check_warm(&[A, B]);
    });
}

/// A machine that lost power and is back answers the SYN with another number.
#[test]
fn a_replica_that_begins_anew_is_taken_in_while_nothing_was_said() {
    everywhere(|net| {
        net.open(2);
        let _ = net.syn_ack(A);
        let _ = net.syn_ack(B);
        net.replicas[1].isn = net.replicas[1].isn.wrapping_add(1 << 20);
        let _ = net.syn_ack(B);
        assert_eq!(net.flow.replica(B).isn, net.replicas[1].isn);
        net.complete();
        net.check_client(data(0, 10), &[(A, 0), (B, 0)]);
    });
}

#[test]
fn an_active_replica_that_begins_anew_later_is_lost() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 10), &[(A, 0), (B, 0)]);
        net.replicas[0].isn = net.replicas[0].isn.wrapping_add(1 << 20);
        assert_eq!(net.syn_ack(A), NOT_OURS, "{net:?}");
        net.replicas[0].isn = net.flow.replica(A).isn;
        net.check(A, rst(0), Seen::Dropped(Reason::ResetHeld));
        net.check_takeover(cause::RESET, A, B);
    });
}

#[test]
fn who_answers_a_syn_that_came_to_nothing_is_reset() {
    everywhere(|net| {
        net.open(2);
        for slot in [A, B] {
            let refusal = Segment {
                flags: bit::RST | bit::ACK,
                seq: 0,
                ..net.syn_ack_of(slot)
            };
            let _ = net.replica_segment(slot, &refusal);
        }
        net.check_state(state::CLOSED);
        net.flow.replica_mut(B).state = crate::tcp::slot::PENDING;
        net.flow.replica_mut(B).cold = 0;
        let late = net.syn_ack_of(B);
        check_refused(net, B, &late);
    });
}
