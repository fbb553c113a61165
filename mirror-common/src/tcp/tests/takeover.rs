//! Takeover of dead instances, evacuation of doomed ones, and what is lost when nobody is left.

use super::hosts::{A, B, C, D, Net, everywhere};
use super::say::{Seen, ack, data, delivered, rst};
use crate::{
    event::cause,
    flow::state,
    reason::{Cold, Reason},
    tcp::client,
    vni::flag,
};

const HELD: Seen = Seen::Dropped(Reason::AckHeld);
const SUPPRESSED: Seen = Seen::Dropped(Reason::MirrorSuppressed);

#[test]
fn the_clients_next_word_goes_to_the_mirror() {
    everywhere(|net| {
        net.establish(2);
        net.die(A);
        net.check_client(data(0, 100), &[(B, 0)]);
        net.check_takeover(cause::DEAD, A, B);
        net.check(B, data(0, 50).acks(100), delivered(0, 100));
        // It is cold: should it be alive, its socket is closed.
        net.check(A, data(0, 50), Seen::Refused(0));
        assert_eq!(net.flow.flow.takeovers, 1);
    });
}

#[test]
fn on_an_idle_flow_the_servers_next_word_moves_it() {
    everywhere(|net| {
        net.establish(2);
        net.wait(3_600_000);
        net.die(A);
        net.check(B, data(0, 100), delivered(0, 0));
        net.check_takeover(cause::DEAD, A, B);
        net.check_client(ack(100), &[(B, 100)]);
    });
}

#[test]
fn a_client_that_waits_does_so_from_the_first_takeover_to_the_next_word() {
    everywhere(|net| {
        net.establish(2);
        // Nothing is under way.
        net.flow.begin_stall(1 << 31 | 7);
        assert_eq!(net.flow.sync.stalled_steps, 0);
        // The mirror has an answer that the client has not.
        net.check(B, data(0, 100), SUPPRESSED);
        net.die(A);
        net.check_client(ack(0), &[(B, 0)]);
        net.flow.begin_stall(u32::MAX - 7);
        net.flow.begin_stall(4);
        assert_eq!(net.flow.end_stall(8), 15, "across the wrap");
        assert_eq!(net.flow.sync.stalled_steps, 0);
    });
}

#[test]
fn suppressed_bytes_are_delivered_when_they_are_sent_again() {
    everywhere(|net| {
        net.establish(2);
        net.check(B, data(0, 100), SUPPRESSED);
        net.die(A);
        net.check_client(data(0, 10), &[(B, 0)]);
        net.check(B, data(0, 100).acks(10), delivered(0, 10));
        // The evidence speaks against nobody else.
        assert!(net.notes.retransmission);
        assert_eq!(net.notes.from, B);
    });
}

/// The takeover's event names the instance that failed, also when the packet that brings the
/// takeover about is a retransmission.
#[test]
fn a_retransmission_that_takes_over_blames_the_dead() {
    everywhere(|net| {
        net.establish(2);
        net.check(B, data(0, 100), SUPPRESSED);
        net.die(A);
        net.check(B, data(0, 100), delivered(0, 0));
        net.check_takeover(cause::DEAD, A, B);
    });
}

#[test]
fn the_best_mirror_takes_over() {
    // Bytes that B, C and D have produced when the client was sent 100, and who takes over.
    let rows = [
        ([100, 100, 100], B),
        ([0, 100, 100], C),
        ([200, 0, 50], D),
        ([200, 101, 300], C),
        ([0, 200, 200], B),
    ];
    for (produced, expected) in rows {
        everywhere(|net| {
            net.establish(4);
            net.check(A, data(0, 100), delivered(0, 0));
            for (slot, bytes) in [B, C, D].into_iter().zip(produced) {
                if bytes > 0 {
                    net.check(slot, data(0, bytes), SUPPRESSED);
                }
            }
            net.take_over(A, expected);
        });
    }
}

#[test]
fn an_evacuating_instance_is_the_last_choice() {
    everywhere(|net| {
        net.establish(3);
        net.evacuate(B);
        net.check(C, data(0, 900), SUPPRESSED);
        net.take_over(A, C);
        net.die(C);
        let _ = net.client_says(ack(0));
        net.check_takeover(cause::DEAD, C, B);
    });
}

#[test]
fn one_takeover_after_another() {
    everywhere(|net| {
        net.establish(4);
        for (from, to) in [(A, B), (B, C), (C, D)] {
            net.take_over(from, to);
            let at = 100 * i32::from(from);
            net.check_client(
                data(at, 100),
                &[B, C, D][usize::from(to) - 1..]
                    .iter()
                    .map(|&slot| (slot, at))
                    .collect::<Vec<_>>(),
            );
            for slot in (to..=D).rev() {
                let _ = net.replica_says(slot, data(at, 100).acks(at + 100));
            }
            assert_eq!(net.flow.sync.told_ack, net.client_seq(at + 100), "{net:?}");
            let _ = net.client_says(ack(at + 100));
        }
        assert_eq!(net.flow.flow.takeovers, 3);
    });
}

#[test]
fn a_dead_mirror_that_missed_nothing_is_warm_again() {
    everywhere(|net| {
        net.establish(2);
        net.die(B);
        net.check(A, data(0, 100), delivered(0, 0));
        net.check_client(ack(100), &[(A, 100)]);
        net.check(B, data(0, 100), SUPPRESSED);
        net.restore(B);
        net.check_warm(&[A, B]);
        net.check(B, data(0, 100), Seen::Turned(100));
        net.take_over(A, B);
    });
}

/// The clone was lost, the instance declared dead, the client told without it: it must not come
/// back as warm.
#[test]
fn a_dead_mirror_that_missed_what_the_client_was_told_is_cold() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.die(B);
        net.check(A, ack(100), delivered(0, 100));
        net.check_went_cold(B, Cold::InstanceDead);
        net.restore(B);
        net.check_client(ack(0), &[(A, 0)]);
        net.die(A);
        net.check_refused(data(100, 10), client::Verdict::Reset);
    });
}

#[test]
fn a_mirror_that_lacks_told_bytes_cannot_take_over() {
    everywhere(|net| {
        net.establish(3);
        net.check_client(data(0, 100), &[(A, 0), (B, 0), (C, 0)]);
        net.check(C, ack(100), SUPPRESSED);
        net.die(B);
        net.check(A, ack(100), delivered(0, 100));
        net.restore(B);
        net.take_over(A, C);
    });
}

/// The same when it is a mirror's acknowledgement that tells the client.
#[test]
fn a_dead_mirror_is_looked_at_with_every_packet() {
    everywhere(|net| {
        net.establish(3);
        net.check_client(data(0, 100), &[(A, 0), (B, 0), (C, 0)]);
        net.check(A, ack(100), HELD);
        net.die(B);
        net.check(C, ack(100), Seen::Acked(100));
        net.check_went_cold(B, Cold::InstanceDead);
        net.restore(B);
        net.take_over(A, C);
    });
}

#[test]
fn an_evacuated_flow_moves_when_nothing_has_to_be_sent_again() {
    everywhere(|net| {
        net.establish(2);
        net.check(B, data(0, 100), SUPPRESSED);
        net.evacuate(A);
        net.check_client(data(0, 10), &[(A, 0), (B, 0)]);
        net.check_stays(A);
        net.check(A, data(0, 60).acks(10), delivered(0, 0));
        net.check_stays(A);
        net.check(A, data(60, 40), delivered(60, 0));
        net.check_client(ack(100), &[(A, 100), (B, 100)]);
        net.check_takeover(cause::EVACUATED, A, B);
        // The one that was left is a warm mirror.
        net.check_warm(&[A, B]);
        net.check(B, ack(10), delivered(100, 10));
        net.check(A, data(100, 50), SUPPRESSED);
        net.check(B, data(100, 50), delivered(100, 10));
    });
}

#[test]
fn an_evacuation_does_not_wait_for_ever() {
    everywhere(|net| {
        net.establish(2);
        net.check(B, data(0, 100), SUPPRESSED);
        net.evacuate(A);
        net.wait(499);
        net.check_client(ack(0), &[(A, 0), (B, 0)]);
        net.check_stays(A);
        net.wait(1);
        net.check_client(ack(0), &[(A, 0), (B, 0)]);
        net.check_takeover(cause::EVACUATED, A, B);
    });
}

/// Two evacuating instances do not pass a flow to and fro at each packet.
#[test]
fn an_evacuated_flow_moves_to_an_instance_that_is_up_or_stays() {
    everywhere(|net| {
        net.establish(3);
        net.evacuate(A);
        net.evacuate(B);
        net.evacuate(C);
        net.wait(600);
        for _ in 0..3 {
            net.check_client(ack(0), &[(A, 0), (B, 0), (C, 0)]);
            net.check_stays(A);
        }
        net.restore(C);
        let _ = net.client_says(ack(0));
        net.check_takeover(cause::EVACUATED, A, C);
    });
}

#[test]
fn an_evacuated_flow_returns() {
    everywhere(|net| {
        net.establish(2);
        net.evacuate(A);
        net.check(A, data(0, 100), SUPPRESSED);
        net.check_takeover(cause::EVACUATED, A, B);
        net.check(B, data(0, 100), delivered(0, 0));
        net.restore(A);
        net.evacuate(B);
        net.check_client(data(0, 10).acks(100), &[(A, 100), (B, 100)]);
        net.check_takeover(cause::EVACUATED, B, A);
        net.check(A, data(100, 10).acks(10), delivered(100, 0));
        net.check(B, ack(10), Seen::Acked(10));
    });
}

#[test]
fn a_dead_instance_restored_in_time_takes_over_again() {
    everywhere(|net| {
        net.establish(2);
        net.take_over(A, B);
        net.restore(A);
        net.check_client(data(0, 10), &[(A, 0), (B, 0)]);
        net.check(B, ack(10), HELD);
        net.check(A, ack(10), Seen::Acked(10));
        net.take_over(B, A);
    });
}

#[test]
fn an_instance_may_die_while_it_is_evacuated() {
    everywhere(|net| {
        net.establish(2);
        net.check(B, data(0, 100), SUPPRESSED);
        net.evacuate(A);
        net.check_client(ack(0), &[(A, 0), (B, 0)]);
        net.check_stays(A);
        net.take_over(A, B);
    });
}

#[test]
fn a_client_that_nobody_can_serve_is_reset() {
    everywhere(|net| {
        net.establish(2);
        net.die(A);
        net.die(B);
        net.check_refused(data(0, 10), client::Verdict::Reset);
        net.check_state(state::CLOSED);
        assert!(net.notes.closed);
    });
}

#[test]
fn a_client_that_has_missed_its_reset_is_reset_again() {
    everywhere(|net| {
        net.establish(2);
        net.die(A);
        net.die(B);
        net.check_refused(data(0, 10), client::Verdict::Reset);
        net.check_refused(data(0, 10), client::Verdict::Reset);
        assert!(!net.notes.closed, "the flow was closed twice");
        // It says so if it has heard it.
        net.check_client(rst(10), &[]);
        // Who is back goes on with a client that does not know.
        net.restore(A);
        net.check_client(data(0, 10), &[(A, 0)]);
    });
}

#[test]
fn a_flow_that_is_left_alone_goes_on_when_its_instance_returns() {
    everywhere(|net| {
        net.vni(flag::LEAVE_LOST, 0);
        net.establish(2);
        net.die(A);
        net.die(B);
        let nobody = client::Verdict::Drop(Reason::NoReplica);
        net.check_refused(data(0, 10), nobody);
        net.check_state(state::ESTABLISHED);
        net.restore(A);
        net.check_client(data(0, 10), &[(A, 0)]);
        net.check(A, ack(10), delivered(0, 10));
    });
}

#[test]
fn a_cold_mirror_does_not_take_over() {
    everywhere(|net| {
        net.establish(3);
        net.die(B);
        net.check_client(data(0, 10), &[(A, 0), (C, 0)]);
        net.restore(B);
        net.check(C, ack(10), SUPPRESSED);
        net.check(A, ack(10), delivered(0, 10));
        net.take_over(A, C);
        net.die(C);
        net.check_refused(data(10, 10), client::Verdict::Reset);
    });
}

#[test]
fn held_acknowledgements_are_told_after_the_takeover() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        // Only the mirror has it; then the active one dies.
        net.check(B, ack(100), SUPPRESSED);
        net.die(A);
        net.check_client(data(0, 100), &[(B, 0)]);
        net.check(B, ack(100), delivered(0, 100));
        // Only the active one has it; then the mirror dies.
        net.restore(A);
    });
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(A, ack(100), HELD);
        net.die(B);
        net.check_client(data(0, 100), &[(A, 0)]);
        net.check(A, ack(100), delivered(0, 100));
    });
}

/// Asynchronous flows may lose bytes: the client is then reset at its next word, not left to
/// wait for an answer that cannot come.
#[test]
fn an_asynchronous_flow_that_lost_bytes_is_reset() {
    everywhere(|net| {
        net.vni(0, flag::HOLD_ACKS);
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(A, ack(100), delivered(0, 100));
        net.die(A);
        net.check_client(data(100, 100), &[(B, 0)]);
        net.check_takeover(cause::DEAD, A, B);
        let _ = net.replica_says(B, ack(0).sack());
        net.check_refused(data(100, 100), client::Verdict::Reset);
    });
}

#[test]
fn an_asynchronous_mirror_whose_acknowledgements_are_late_takes_over() {
    everywhere(|net| {
        net.vni(0, flag::HOLD_ACKS);
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(A, ack(100), delivered(0, 100));
        net.die(A);
        net.check_client(data(100, 100), &[(B, 0)]);
        net.check(B, ack(200), delivered(0, 200));
        net.check_client(data(200, 100), &[(B, 0)]);
    });
}

#[test]
fn a_flow_that_is_forgotten_lets_go_whose_numbers_are_not_the_clients() {
    everywhere(|net| {
        let farewells = |net: &Net| [A, B, C, D].map(|slot| net.flow.farewell(slot));
        net.open(3);
        let _ = net.syn_ack(B);
        assert_eq!(farewells(net), [None; 4], "{net:?}");
        let _ = net.syn_ack(A);
        let _ = net.syn_ack(C);
        net.complete();
        net.check_client(data(0, 100), &[(A, 0), (B, 0), (C, 0)]);
        net.check(B, ack(0).acks(100), SUPPRESSED);
        let numbers = |net: &Net| (net.client_seq(100), net.client_seq(0));
        let (more, less) = numbers(net);
        assert_eq!(farewells(net), [None, Some(more), Some(less), None]);
        // The client goes on with another's numbers, and would be told its own.
        net.take_over(A, B);
        assert_eq!(farewells(net), [None, Some(more), Some(less), None]);
        // Who was reset is gone, and nobody is left in what is over.
        let _ = net.replica_says(C, rst(0));
        assert_eq!(farewells(net), [None, Some(more), None, None]);
        let _ = net.client_says(rst(100));
        assert_eq!(farewells(net), [None; 4], "{net:?}");
    });
}
