//! The RST of one replica is evidence of its death until the warm mirrors agree; the client's ends
//! the flow.

use super::hosts::{A, B, C, everywhere};
use super::say::{Seen, ack, data, delivered, fin, rst};
use crate::{
    event::cause,
    flow::state,
    reason::{Cold, Reason},
    tcp::{client, replica::Verdict},
    vni::flag,
};

const FIN_HELD: Seen = Seen::Dropped(Reason::FinHeld);
const RESET_HELD: Seen = Seen::Dropped(Reason::ResetHeld);
const SUPPRESSED: Seen = Seen::Dropped(Reason::MirrorSuppressed);

#[test]
fn a_killed_process_is_found_out_by_the_reset_of_the_next_request() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, fin(0), FIN_HELD);
        net.check_client(data(0, 10), &[(A, 0), (B, 0)]);
        net.check(A, rst(1).acks(10), RESET_HELD);
        net.check_takeover(cause::RESET, A, B);
        net.check(B, data(0, 100).acks(10), delivered(0, 10));
    });
}

#[test]
fn a_reset_of_the_active_one_is_held_while_a_warm_mirror_lives() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, rst(0), RESET_HELD);
        net.check_takeover(cause::RESET, A, B);
        assert_eq!(net.notes.went_cold, 1 << A);
        assert_eq!(net.flow.replica(A).cold, Cold::Reset as u8);
        net.check_client(data(0, 10), &[(B, 0)]);
        net.check(A, rst(0), SUPPRESSED);
        net.check(B, ack(10), delivered(0, 10));
    });
}

#[test]
fn a_reset_of_a_mirror_makes_it_cold() {
    everywhere(|net| {
        net.establish(3);
        net.check(B, rst(0), SUPPRESSED);
        net.check_went_cold(B, Cold::Reset);
        net.check_client(data(0, 10), &[(A, 0), (C, 0)]);
    });
}

#[test]
fn when_all_reset_the_client_is_reset() {
    for order in [[A, B], [B, A]] {
        everywhere(|net| {
            net.establish(2);
            net.check(A, data(0, 100), delivered(0, 0));
            net.check(B, data(0, 100), SUPPRESSED);
            let _ = net.client_says(ack(100));
            let _ = net.replica_says(order[0], rst(100));
            assert_eq!(net.output.verdict, Verdict::Drop, "{net:?}");
            net.check_state(state::ESTABLISHED);
            net.check(order[1], rst(100), delivered(100, 0));
            net.check_state(state::CLOSED);
            // The client's challenge is answered by who sent the reset.
            net.check_client(ack(100), &[(order[1], 100)]);
        });
    }
}

/// A client takes a reset only with the very number it waits for (RFC 5961).
#[test]
fn a_reset_of_a_replica_that_is_behind_is_still_exact() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 100), delivered(0, 0));
        let _ = net.client_says(ack(100));
        net.take_over(A, B);
        net.check(B, rst(0), delivered(100, 0));
    });
}

#[test]
fn a_reset_is_not_held_for_a_mirror_that_cannot_take_over() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.die(B);
        net.check(A, ack(100), delivered(0, 100));
        net.restore(B);
        net.check(A, rst(0), delivered(0, 100));
        net.check_state(state::CLOSED);
    });
}

#[test]
fn without_a_vote_the_active_ones_reset_counts() {
    everywhere(|net| {
        net.vni(0, flag::VOTE_ON_CLOSE);
        net.establish(2);
        net.check(A, rst(0), delivered(0, 0));
        net.check_state(state::CLOSED);
    });
}

#[test]
fn a_reset_of_the_client_goes_to_all() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(rst(0), &[(A, 0), (B, 0)]);
        net.check_state(state::CLOSED);
        assert!(net.notes.closed);
        net.check_refused(rst(0), client::Verdict::Clone);
        assert!(!net.notes.closed, "told twice: {net:?}");
    });
}
