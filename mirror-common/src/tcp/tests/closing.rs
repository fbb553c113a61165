//! The FIN of one replica is evidence of its death, not of a close, until the warm mirrors agree.

use super::hosts::{A, B, C, Net, everywhere};
use super::say::{Seen, ack, data, delivered, fin, rst, stripped};
use crate::{
    event::cause,
    flow::state,
    reason::{Cold, Reason},
    tcp::{client, segment::bit},
    vni::flag,
};

const FIN_HELD: Seen = Seen::Dropped(Reason::FinHeld);
const RESET_HELD: Seen = Seen::Dropped(Reason::ResetHeld);
const SUPPRESSED: Seen = Seen::Dropped(Reason::MirrorSuppressed);

/// The client acknowledges the server's FIN at `at` and closes too.
#[track_caller]
fn close_from_here(net: &mut Net, at: i32) {
    net.check_state(state::CLOSING);
    let _ = net.client_says(fin(0).acks(at + 1));
    net.check_state(state::CLOSING);
    for slot in 0..net.flow.flow.replicas {
        let _ = net.replica_says(slot, ack(1));
    }
    net.check_state(state::CLOSED);
}

#[test]
fn the_last_fin_of_the_set_closes_in_any_order() {
    let orders = [
        [A, B, C],
        [A, C, B],
        [B, A, C],
        [B, C, A],
        [C, A, B],
        [C, B, A],
    ];
    for order in orders {
        everywhere(|net| {
            net.establish(3);
            for slot in &order[..2] {
                let held = if *slot == A { FIN_HELD } else { SUPPRESSED };
                net.check(*slot, fin(0), held);
                net.check_stays(A);
            }
            net.check(order[2], fin(0), delivered(0, 0));
            net.check_client(ack(1), &[(A, 1), (B, 1), (C, 1)]);
            close_from_here(net, 0);
        });
    }
}

#[test]
fn data_with_the_last_fin_is_delivered_with_it() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 100).with(bit::FIN), stripped(0, 0));
        net.check_client(ack(100), &[(A, 100), (B, 0)]);
        net.check(B, data(0, 100).with(bit::FIN), delivered(0, 0));
        close_from_here(net, 100);
    });
}

#[test]
fn a_mirrors_fin_beyond_a_gap_waits_for_the_active_one_to_repeat_it() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, fin(100), FIN_HELD);
        net.check(B, data(0, 100), SUPPRESSED);
        net.check(B, fin(100), SUPPRESSED);
        net.check(A, data(0, 100).with(bit::FIN), delivered(0, 0));
    });
}

#[test]
fn a_fin_that_only_the_active_one_sent_is_held() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, fin(0), FIN_HELD);
        net.wait(200);
        net.check(A, fin(0), FIN_HELD);
        net.check_stays(A);
        net.check_state(state::ESTABLISHED);
        // It still passes what it has to say about the client's bytes.
        net.check_client(data(0, 10), &[(A, 0), (B, 0)]);
        net.check(B, ack(10), SUPPRESSED);
        net.check(A, fin(0).acks(10), stripped(0, 10));
    });
}

#[test]
fn a_mirror_that_goes_on_beyond_the_fin_takes_over() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, fin(0), FIN_HELD);
        net.check(B, data(0, 100), delivered(0, 0));
        net.check_takeover(cause::CLOSED_EARLY, A, B);
        assert_eq!(net.flow.replica(A).cold, Cold::ClosedEarly as u8);
        net.check_client(ack(100), &[(B, 100)]);
        net.check(A, fin(0), Seen::Refused(0));
    });
}

/// A server process that is killed while the connection is idle: nobody has anything to say, and the
/// client must not wait for a close that never comes, nor see one.
#[test]
fn a_fin_that_is_held_for_too_long_leaves_the_flow_to_a_mirror() {
    everywhere(|net| {
        net.establish(3);
        net.check(C, fin(0), SUPPRESSED);
        net.check(A, fin(0), FIN_HELD);
        net.wait(net.conditions.vni.lag_ms_max + 2);
        net.check(A, fin(0), FIN_HELD);
        net.check_takeover(cause::CLOSED_ALONE, A, B);
        net.check_warm(&[A, B, C]);
        // It closes after all.
        net.check(B, fin(0), delivered(0, 0));
        net.check_state(state::CLOSING);
    });
    everywhere(|net| {
        net.establish(2);
        net.check(A, fin(0), FIN_HELD);
        net.wait(net.conditions.vni.lag_ms_max + 2);
        net.check(A, fin(0), FIN_HELD);
        net.check_takeover(cause::CLOSED_ALONE, A, B);
        // Or goes on.
        net.check(B, data(0, 100), delivered(0, 0));
        net.check_went_cold(A, Cold::ClosedEarly);
    });
}

/// An instance on its way out that goes on is better than a connection that does not.
#[test]
fn a_fin_that_is_held_is_left_to_an_evacuated_mirror_too() {
    everywhere(|net| {
        net.establish(3);
        net.evacuate(B);
        // One that closed is no help, though it is not on its way out.
        net.check(C, fin(0), SUPPRESSED);
        net.check(A, fin(0), FIN_HELD);
        net.wait(net.conditions.vni.lag_ms_max + 2);
        net.check(A, fin(0), FIN_HELD);
        net.check_takeover(cause::CLOSED_ALONE, A, B);
    });
}

#[test]
fn a_mirror_that_had_gone_on_takes_over_when_it_says_so_again() {
    everywhere(|net| {
        net.establish(2);
        net.check(B, data(0, 100), SUPPRESSED);
        net.check(A, fin(0), FIN_HELD);
        net.check(B, data(0, 100), delivered(0, 0));
        net.check_takeover(cause::CLOSED_EARLY, A, B);
    });
    // Or says something else from there.
    everywhere(|net| {
        net.establish(2);
        net.check(B, data(0, 100), SUPPRESSED);
        net.check(A, fin(0), FIN_HELD);
        net.check(B, ack(0), Seen::Acked(0));
        net.check_takeover(cause::CLOSED_EARLY, A, B);
    });
}

#[test]
fn a_single_byte_in_the_place_of_the_fin_goes_on() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, fin(0), FIN_HELD);
        net.check(B, data(0, 1), delivered(0, 0));
        net.check_takeover(cause::CLOSED_EARLY, A, B);
    });
}

/// What the replica says behind its held FIN does not count as its delivery.
#[test]
fn a_held_fin_stays_held_when_more_is_said() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, fin(0), FIN_HELD);
        net.check_client(data(0, 10), &[(A, 0), (B, 0)]);
        net.check(B, ack(10), SUPPRESSED);
        net.check(A, ack(10), Seen::Acked(10));
        assert_eq!(net.flow.sync.sent, net.canonical_seq(0));
        net.check(B, data(0, 1), delivered(0, 10));
        net.check_takeover(cause::CLOSED_EARLY, A, B);
    });
    everywhere(|net| {
        net.establish(2);
        net.check(A, fin(0), FIN_HELD);
        net.check(A, ack(0), Seen::Acked(0));
        net.check(B, fin(0), delivered(0, 0));
    });
}

/// The segment with its FIN was lost on its way to us; what follows it has the number after it.
#[test]
fn a_lost_fin_is_no_contradiction() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 10).with(bit::FIN), stripped(0, 0));
        net.check(B, ack(0).at(11), SUPPRESSED);
        net.check_stays(A);
        net.check(B, data(0, 10).with(bit::FIN), delivered(0, 0));
    });
    everywhere(|net| {
        net.establish(2);
        net.check(B, data(0, 10).with(bit::FIN), SUPPRESSED);
        net.check(A, ack(0).at(11), Seen::Acked(0));
        net.check_warm(&[A, B]);
    });
}

/// A mirror's process was killed; the active one goes on.
#[test]
fn a_mirror_that_closed_early_is_cold() {
    everywhere(|net| {
        net.establish(3);
        net.check(B, fin(0), SUPPRESSED);
        net.check_warm(&[A, B, C]);
        net.check(A, data(0, 100), delivered(0, 0));
        net.check_went_cold(B, Cold::ClosedEarly);
        net.check(A, fin(100), FIN_HELD);
        net.check(C, data(0, 100).with(bit::FIN), delivered(0, 0));
    });
}

#[test]
fn a_mirror_that_has_not_closed_is_better_than_one_that_has() {
    everywhere(|net| {
        net.establish(3);
        net.check(B, fin(0), SUPPRESSED);
        net.take_over(A, C);
    });
}

#[test]
fn an_evacuation_does_not_move_to_a_mirror_that_closed() {
    everywhere(|net| {
        net.establish(2);
        net.check(B, fin(0), SUPPRESSED);
        net.evacuate(A);
        net.wait(600);
        net.check_client(ack(0), &[(A, 0), (B, 0)]);
        net.check_stays(A);
        net.check(A, data(0, 10), delivered(0, 0));
    });
}

#[test]
fn a_fin_after_a_takeover_is_delivered_again() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, fin(0), FIN_HELD);
        net.check(B, fin(0), delivered(0, 0));
        // Lost on its way to the client, and the active instance dies.
        net.take_over(A, B);
        net.check(B, fin(0), delivered(0, 0));
    });
}

#[test]
fn a_fin_that_was_lost_when_nobody_else_was_left_gives_way_to_who_is_back_and_goes_on() {
    everywhere(|net| {
        net.establish(2);
        net.check(B, data(0, 100), SUPPRESSED);
        net.die(B);
        net.check(A, fin(0), delivered(0, 0));
        net.restore(B);
        net.check(A, fin(0), FIN_HELD);
        net.check(B, data(0, 100), delivered(0, 0));
        net.check_went_cold(A, Cold::ClosedEarly);
        net.check_takeover(cause::CLOSED_EARLY, A, B);
        net.check_state(state::ESTABLISHED);
    });
}

/// The trusted FIN went out; the mirror's process says more, and it is too late.
#[test]
fn a_delivered_fin_is_not_taken_back() {
    everywhere(|net| {
        net.vni(0, flag::VOTE_ON_CLOSE);
        net.establish(2);
        net.check(A, fin(0), delivered(0, 0));
        net.check_client(ack(0).acks(1), &[(A, 1), (B, 0)]);
        net.vni(flag::VOTE_ON_CLOSE, 0);
        net.check(B, data(0, 100), SUPPRESSED);
        net.check_stays(A);
    });
}

#[test]
fn the_death_of_the_last_voter_releases_the_fin() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, fin(0), FIN_HELD);
        net.die(B);
        net.check(A, fin(0), delivered(0, 0));
    });
}

#[test]
fn without_a_vote_the_active_ones_fin_counts() {
    everywhere(|net| {
        net.vni(0, flag::VOTE_ON_CLOSE);
        net.establish(2);
        net.check(B, fin(0), SUPPRESSED);
        net.check(A, data(0, 10), delivered(0, 0));
        net.check(A, fin(10), delivered(10, 0));
        close_from_here(net, 10);
    });
}

#[test]
fn the_client_closes_first() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 10).with(bit::FIN), &[(A, 0), (B, 0)]);
        net.check_state(state::CLOSING);
        let _ = net.replica_says(A, ack(11));
        net.check(B, data(0, 100).acks(11), Seen::Acked(11));
        net.check(A, data(0, 100).with(bit::FIN), stripped(0, 11));
        net.check(B, fin(100), delivered(100, 11));
        // The client may not have it yet.
        net.check_state(state::CLOSING);
        net.check_client(ack(101).at(11), &[(A, 101), (B, 101)]);
        net.check_state(state::CLOSED);
        assert!(net.notes.closed);
    });
}

/// Until its FIN is acknowledged the client may have to send bytes again.
#[test]
fn a_flow_is_not_closed_before_both_fins_are_acknowledged() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, fin(0), FIN_HELD);
        net.check(B, fin(0), delivered(0, 0));
        net.check_client(data(0, 10).acks(1).with(bit::FIN), &[(A, 1), (B, 1)]);
        net.check_state(state::CLOSING);
        // The process dies with bytes unread.
        net.check(A, rst(1), RESET_HELD);
        net.check_takeover(cause::RESET, A, B);
        net.check(B, ack(11), delivered(1, 11));
        net.check_state(state::CLOSED);
    });
}

#[test]
fn a_closed_flow_still_passes_what_remains() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, fin(0), FIN_HELD);
        net.check(B, fin(0), delivered(0, 0));
        close_from_here(net, 0);
        // The client's last ACK got lost on its way to the replicas.
        net.check(A, fin(0), delivered(0, 1));
        net.check(B, fin(0), Seen::Turned(1));
        net.check_client(ack(1), &[(A, 1), (B, 1)]);
        net.check_state(state::CLOSED);
        assert!(!net.notes.closed, "told twice: {net:?}");
        // Nobody resets a client for a flow that is over.
        net.die(A);
        net.die(B);
        net.check_client(ack(1), &[]);
    });
}

/// It became active while it was behind, and was killed there.
#[test]
fn a_close_in_front_of_what_was_sent_is_a_death() {
    everywhere(|net| {
        net.establish(3);
        net.check(A, data(0, 300), delivered(0, 0));
        net.check(C, data(0, 400), SUPPRESSED);
        net.check(B, data(0, 100), SUPPRESSED);
        net.take_over(A, B);
        let _ = net.replica_says(B, fin(100));
        net.check_went_cold(B, Cold::ClosedEarly);
        net.check_takeover(cause::DEAD, B, C);
    });
}

#[test]
fn nor_is_it_one_that_the_client_can_be_told_of() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 300), delivered(0, 0));
        net.check(B, data(0, 100), SUPPRESSED);
        net.take_over(A, B);
        let _ = net.client_says(fin(0).acks(300));
        let _ = net.replica_says(B, fin(100));
        net.check_went_cold(B, Cold::ClosedEarly);
        net.check_state(state::CLOSING);
        net.check_refused(fin(0).acks(300), client::Verdict::Reset);
    });
}

/// The byte at the place of the FIN was sent to the client by the replica that was active before.
#[test]
fn a_byte_at_the_place_of_a_fin_is_no_fin() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 10), delivered(0, 0));
        net.check(B, data(0, 9), SUPPRESSED);
        net.evacuate(A);
        net.check_client(data(0, 5), &[(A, 0), (B, 0)]);
        net.restore(A);
        net.check(B, fin(9), FIN_HELD);
        net.check(A, data(9, 1), delivered(9, 0));
        net.check_went_cold(B, Cold::ClosedEarly);
    });
}

/// Some stacks' keep-alives carry a byte at the place of the last number, that of the FIN.
#[test]
fn a_keep_alive_of_one_that_closed_too_shows_nothing() {
    everywhere(|net| {
        net.establish(3);
        net.check(A, fin(0), FIN_HELD);
        net.check(B, fin(0), SUPPRESSED);
        net.check(B, data(0, 1), SUPPRESSED);
        net.check_stays(A);
        net.check_warm(&[A, B, C]);
    });
}
