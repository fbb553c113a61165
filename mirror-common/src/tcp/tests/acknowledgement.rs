//! The acknowledgement hold: the client is told what the active and every warm replica has.

use super::hosts::{A, B, C, Net, WINDOW, everywhere};
use super::say::{Seen, ack, data, delivered};
use crate::{flow::state, reason::Reason, tcp::segment::bit, vni::flag};

const HELD: Seen = Seen::Dropped(Reason::AckHeld);
const SUPPRESSED: Seen = Seen::Dropped(Reason::MirrorSuppressed);

#[test]
fn the_last_warm_replica_releases_the_acknowledgement() {
    everywhere(|net| {
        net.establish(3);
        net.check_client(data(0, 100), &[(A, 0), (B, 0), (C, 0)]);
        net.check(A, ack(100), HELD);
        net.check(C, ack(100), SUPPRESSED);
        net.check(B, ack(100), Seen::Acked(100));
        assert_eq!(net.output.reason, Reason::AckRaised);
        net.check_window(WINDOW);
    });
}

#[test]
fn the_active_ones_acknowledgement_passes_when_it_is_the_last() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(B, ack(100), SUPPRESSED);
        net.check(A, ack(100), delivered(0, 100));
        net.check_window(WINDOW);
    });
}

#[test]
fn a_mirror_raises_the_acknowledgement_as_far_as_it_got() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 300), &[(A, 0), (B, 0)]);
        net.check(A, ack(300), HELD);
        net.check(B, ack(100), Seen::Acked(100));
        net.check(B, ack(200), Seen::Acked(200));
        net.check(B, ack(300), Seen::Acked(300));
    });
}

#[test]
fn data_passes_with_a_held_acknowledgement() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        let output = net.check(A, data(0, 50).acks(100).sack(), delivered(0, 0));
        assert!(output.blank_sack, "{net:?}");
        // The mirror's data releases it; its bytes stay behind.
        net.check(B, data(0, 50).acks(100), Seen::Acked(100));
    });
}

#[test]
fn a_true_duplicate_passes_and_a_held_repetition_does_not_pretend() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(B, ack(100), SUPPRESSED);
        net.check(A, ack(100), delivered(0, 100));
        // 100..200 is lost on its way to both; 200..300 arrives.
        net.check_client(data(200, 100), &[(A, 0), (B, 0)]);
        for _ in 0..3 {
            let output = net.check(A, ack(100).sack(), delivered(0, 100));
            assert!(!output.blank_sack, "{net:?}");
            net.check(B, ack(100).sack(), SUPPRESSED);
        }
    });
}

#[test]
fn a_clone_lost_on_its_way_to_a_mirror_is_asked_for_again() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(A, ack(100), HELD);
        net.check_client(data(100, 100), &[(A, 0), (B, 0)]);
        net.check(A, ack(200), HELD);
        // The mirror got the second only, and says so; its SACK blocks tell the truth.
        for _ in 0..3 {
            let output = net.check(B, ack(0).sack(), Seen::Acked(0));
            assert!(!output.blank_sack, "{net:?}");
        }
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        let output = net.check(A, ack(200).sack(), delivered(0, 0));
        assert!(output.blank_sack, "{net:?}");
        net.check(B, ack(200), Seen::Acked(200));
    });
}

/// Only who holds the minimum back may ask for it: another's gap is further on.
#[test]
fn who_lacks_something_else_does_not_speak() {
    everywhere(|net| {
        net.establish(3);
        net.check_client(data(0, 300), &[(A, 0), (B, 0), (C, 0)]);
        net.check(A, ack(300), HELD);
        net.check(C, ack(100), SUPPRESSED);
        net.check(C, ack(100).sack(), SUPPRESSED);
        net.check(B, ack(0).sack(), Seen::Acked(0));
    });
}

#[test]
fn the_smallest_window_edge_is_told() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(B, ack(100).window(59_988), SUPPRESSED);
        net.check(A, ack(100).window(WINDOW * 2), delivered(0, 100));
        // 59,988 is not a multiple of the unit of 128.
        net.check_window(59_904);
        net.check(B, ack(100).window(WINDOW * 3), Seen::Acked(100));
        net.check_window(WINDOW * 2);
    });
}

#[test]
fn holding_the_acknowledgement_back_does_not_move_the_edge() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 128), &[(A, 0), (B, 0)]);
        // The mirror has read nothing, so that its edge stays where the handshake put it.
        net.check(A, data(0, 10).acks(128), delivered(0, 0));
        net.check_window(WINDOW - WINDOW % 128);
    });
}

/// Three of them would look like loss to a client without SACK.
#[test]
fn a_window_update_that_is_no_news_is_not_sent_as_a_duplicate() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 256), &[(A, 0), (B, 0)]);
        net.check(B, ack(256).window(WINDOW - 256), SUPPRESSED);
        net.check(A, ack(256).window(WINDOW - 256), delivered(0, 256));
        net.check(A, ack(256).window(WINDOW - 128), HELD);
        net.check(A, ack(256).window(WINDOW), HELD);
        net.check(B, ack(256).window(WINDOW), Seen::Acked(256));
        net.check_window(WINDOW);
    });
}

#[test]
fn a_window_opens_again_for_all() {
    everywhere(|net| {
        net.conditions.vni.lag_bytes_max = WINDOW;
        net.establish(2);
        let all = WINDOW;
        net.check_client(data(0, all), &[(A, 0), (B, 0)]);
        net.check(A, ack(all as i32).window(0), HELD);
        net.check(B, ack(all as i32).window(0), Seen::Acked(all as i32));
        net.check_window(0);
        net.check(A, ack(all as i32).window(8_192), HELD);
        net.check(B, ack(all as i32).window(4_096), Seen::Acked(all as i32));
        net.check_window(4_096);
        net.check(B, ack(all as i32).window(16_384), Seen::Acked(all as i32));
        net.check_window(8_192);
    });
}

#[test]
fn an_acknowledgement_is_not_withdrawn_by_a_reordered_one() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 300), &[(A, 0), (B, 0)]);
        net.check(B, ack(300), SUPPRESSED);
        net.check(A, ack(300), delivered(0, 300));
        let output = net.replica_says(A, ack(200));
        assert_eq!(output.ack, net.client_seq(300), "{net:?}");
        net.check(B, ack(200), SUPPRESSED);
        assert_eq!(net.flow.sync.told_ack, net.client_seq(300));
    });
}

#[test]
fn a_cold_or_dead_mirror_holds_nothing() {
    everywhere(|net| {
        net.establish(2);
        net.die(B);
        net.check_client(data(0, 100), &[(A, 0)]);
        net.check_warm(&[A]);
        net.check(A, ack(100), delivered(0, 100));
        net.restore(B);
        net.check_client(data(100, 100), &[(A, 0)]);
        net.check(A, ack(200), delivered(0, 200));
    });
}

#[test]
fn asynchronous_flows_tell_what_the_active_one_has() {
    everywhere(|net| {
        net.vni(0, flag::HOLD_ACKS);
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(A, ack(100).window(WINDOW * 2), delivered(0, 100));
        net.check_window(WINDOW * 2);
        net.check(B, ack(100), SUPPRESSED);
        // What the mirror lacks is its own affair.
        net.check_client(data(100, 200), &[(A, 0), (B, 0)]);
        net.check(A, ack(300), delivered(0, 300));
        net.check(B, ack(100).sack(), SUPPRESSED);
    });
}

#[test]
fn a_fin_of_the_client_is_held_like_data() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 10).with(bit::FIN), &[(A, 0), (B, 0)]);
        net.check(A, ack(11), HELD);
        net.check(B, ack(10), Seen::Acked(10));
        net.check(B, ack(11), Seen::Acked(11));
    });
}

/// All that the client may send at first.
const ALL: i32 = WINDOW as i32;

/// The client has sent that, and is told of so much more room.
fn fill_window(net: &mut Net, left: u32) {
    net.conditions.vni.lag_bytes_max = WINDOW;
    net.establish(2);
    net.check_client(data(0, WINDOW), &[(A, 0), (B, 0)]);
    net.check(B, ack(ALL).window(left), SUPPRESSED);
    net.check(A, ack(ALL).window(left), delivered(0, ALL));
}

/// The replicas' windows have opened, the client has not heard of it and sends a segment beyond the window that it
/// knows.
#[test]
fn what_was_sent_beyond_the_window_is_acknowledged_when_it_is_said_again() {
    everywhere(|net| {
        fill_window(net, 128);
        net.check_client(data(ALL, 1_000), &[(A, 0), (B, 0)]);
        net.check(B, ack(ALL + 1_000).window(8_192), SUPPRESSED);
        net.check(A, ack(ALL + 1_000).window(8_192), delivered(0, ALL));
        net.check_window(9_088);
        net.check_client(data(ALL, 1_000), &[(A, 0), (B, 0)]);
        net.check(A, ack(ALL + 1_000).window(8_192), HELD);
        net.check(B, ack(ALL + 1_000).window(8_192), Seen::Acked(ALL + 1_000));
    });
}

/// A probe of a window that has opened meanwhile: its byte and the FIN behind it are taken in.
#[test]
fn a_fin_behind_the_byte_of_a_probe_is_acknowledged_when_it_is_said_again() {
    everywhere(|net| {
        fill_window(net, 0);
        let last = data(ALL, 1).with(bit::FIN);
        net.check_client(last, &[(A, 0), (B, 0)]);
        net.check(A, ack(ALL + 2).window(1_280), HELD);
        net.check(B, ack(ALL + 2).window(1_280), Seen::Acked(ALL));
        net.check_window(1_280);
        net.check_client(last, &[(A, 0), (B, 0)]);
        net.check(A, ack(ALL + 2).window(1_280), HELD);
        net.check(B, ack(ALL + 2).window(1_280), Seen::Acked(ALL + 2));
        net.check_state(state::CLOSING);
    });
}

/// Every order in which two replicas acknowledge three segments ends with all of them told, and
/// tells each number at most once.
#[test]
fn no_order_of_acknowledgements_loses_the_last_one() {
    for order in 0u32..64 {
        everywhere(|net| {
            net.establish(2);
            net.check_client(data(0, 300), &[(A, 0), (B, 0)]);
            let mut told = Vec::new();
            let mut next = [100, 100];
            let mut bits = order;
            while next != [400, 400] {
                let slot = if next[0] == 400 {
                    1
                } else if next[1] == 400 {
                    0
                } else {
                    bits & 1
                };
                bits >>= 1;
                let output = net.replica_says(slot as u8, ack(next[slot as usize]));
                next[slot as usize] += 100;
                if output.reason != Reason::AckHeld && output.reason != Reason::MirrorSuppressed {
                    told.push(output.ack.wrapping_sub(net.client_seq(0)));
                }
            }
            assert_eq!(told, [100, 200, 300], "order {order:b}: {net:?}");
        });
    }
}

/// The mirror's window scale is its own: its ACKs are told in the scale the client knows.
#[test]
fn windows_are_rescaled() {
    everywhere(|net: &mut Net| {
        net.replicas[usize::from(B)].scale = 2;
        net.open(2);
        let _ = net.syn_ack(B);
        let _ = net.syn_ack(A);
        net.complete();
        net.check_client(data(0, 128), &[(A, 0), (B, 0)]);
        net.check(A, ack(128).window(1 << 20), HELD);
        net.check(B, ack(128).window(131_072), Seen::Acked(128));
        net.check_window(131_072);
        net.take_over(A, B);
        net.check_client(data(128, 128), &[(B, 0)]);
        net.check(B, data(0, 10).acks(256).window(200_000), delivered(0, 256));
        net.check_window(199_936);
    });
}
