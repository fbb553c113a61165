//! How far, and for how long, a mirror may hold the client back.

use super::hosts::{A, B, C, Net, WINDOW, everywhere};
use super::say::{Seen, ack, data, delivered};
use crate::{
    reason::{Cold, Reason},
    vni::flag,
};

const HELD: Seen = Seen::Dropped(Reason::AckHeld);
const ALL: i32 = WINDOW as i32;

#[test]
fn a_mirror_too_many_bytes_behind_is_cold() {
    everywhere(|net| {
        net.establish(3);
        net.check_client(data(0, 10_000), &[(A, 0), (B, 0), (C, 0)]);
        net.check(C, ack(10_000), Seen::Dropped(Reason::MirrorSuppressed));
        net.check(A, ack(10_000), HELD);
        net.check_warm(&[A, B, C]);
        net.check_client(data(10_000, 1), &[(A, 0), (B, 0), (C, 0)]);
        net.check(A, ack(10_001), delivered(0, 10_000));
        net.check_went_cold(B, Cold::LagBytes);
        net.check(C, ack(10_001), Seen::Acked(10_001));
        net.check_client(data(10_001, 1), &[(A, 0), (C, 0)]);
    });
}

#[test]
fn a_mirror_behind_too_long_without_progress_is_cold() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(A, ack(100), HELD);
        net.wait(200);
        // The client's retransmission starts the clock, if nothing did before.
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(A, ack(100), delivered(0, 0));
        net.wait(400);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.wait(800);
        net.check_client(data(0, 100), &[(A, 0)]);
        net.check_went_cold(B, Cold::LagTime);
        // Nobody holds the acknowledgement any more.
        net.check(A, ack(100), delivered(0, 100));
    });
}

#[test]
fn progress_starts_the_time_anew() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 1_000), &[(A, 0), (B, 0)]);
        net.check(A, ack(1_000), HELD);
        for step in 1..=5 {
            net.wait(900);
            net.check_client(data(900, 100), &[(A, 0), (B, 0)]);
            net.check(B, ack(step * 100), Seen::Acked(step * 100));
        }
        net.check_warm(&[A, B]);
    });
}

#[test]
fn a_mirror_that_caught_up_is_not_behind() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(A, ack(100), HELD);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(B, ack(100), Seen::Acked(100));
        net.wait(5_000);
        net.check_client(data(100, 100), &[(A, 0), (B, 0)]);
        net.check(A, ack(200), HELD);
        net.check_warm(&[A, B]);
    });
}

/// Its application has stopped reading: both replicas have received all that the client may
/// send, but the client may not go on.
#[test]
fn a_mirror_whose_window_stays_shut_is_cold() {
    everywhere(|net: &mut Net| {
        net.establish(2);
        net.check_client(data(0, WINDOW), &[(A, 0), (B, 0)]);
        net.check(
            B,
            ack(ALL).window(0),
            Seen::Dropped(Reason::MirrorSuppressed),
        );
        net.check(A, ack(ALL).window(0), delivered(0, ALL));
        net.check(A, ack(ALL).window(WINDOW), HELD);
        // The client probes.
        net.check_client(ack(0).at(ALL - 1), &[(A, 0), (B, 0)]);
        net.check(A, ack(ALL).window(WINDOW), delivered(0, ALL));
        net.check_window(0);
        net.wait(600);
        net.check_client(ack(0).at(ALL - 1), &[(A, 0), (B, 0)]);
        net.check_warm(&[A, B]);
        net.wait(600);
        net.check_client(ack(0).at(ALL - 1), &[(A, 0)]);
        net.check_went_cold(B, Cold::LagTime);
        net.check(A, ack(ALL).window(WINDOW), delivered(0, ALL));
        net.check_window(WINDOW);
    });
}

#[test]
fn a_shut_window_of_the_active_one_is_nobody_elses_fault() {
    everywhere(|net: &mut Net| {
        net.establish(2);
        net.check_client(data(0, WINDOW), &[(A, 0), (B, 0)]);
        net.check(
            B,
            ack(ALL).window(WINDOW),
            Seen::Dropped(Reason::MirrorSuppressed),
        );
        net.check(A, ack(ALL).window(0), delivered(0, ALL));
        for _ in 0..5 {
            net.wait(1_000);
            net.check_client(ack(0).at(ALL - 1), &[(A, 0), (B, 0)]);
            net.check(A, ack(ALL).window(0), delivered(0, ALL));
        }
        net.check_warm(&[A, B]);
    });
}

#[test]
fn a_window_that_both_keep_shut_is_no_lag() {
    everywhere(|net: &mut Net| {
        net.establish(2);
        net.check_client(data(0, WINDOW), &[(A, 0), (B, 0)]);
        net.check(
            B,
            ack(ALL).window(0),
            Seen::Dropped(Reason::MirrorSuppressed),
        );
        net.check(A, ack(ALL).window(0), delivered(0, ALL));
        for _ in 0..5 {
            net.wait(1_000);
            net.check_client(ack(0).at(ALL - 1), &[(A, 0), (B, 0)]);
        }
        net.check_warm(&[A, B]);
    });
}

#[test]
fn the_time_limit_itself_is_not_beyond_it() {
    everywhere(|net| {
        net.establish(2);
        net.conditions.now_ms |= 1;
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(A, ack(100), HELD);
        net.wait(1_000);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.wait(1);
        net.check_client(data(0, 100), &[(A, 0)]);
    });
}

/// Receive buffers differ in size; a flow that rests is not blocked by the smaller one.
#[test]
fn a_smaller_window_is_no_lag() {
    everywhere(|net: &mut Net| {
        net.establish(2);
        for turn in 0..5 {
            let at = turn * 100;
            net.check_client(data(at, 100), &[(A, 0), (B, 0)]);
            net.check(A, ack(at + 100).window(WINDOW * 8), HELD);
            net.check(B, ack(at + 100).window(WINDOW / 4), Seen::Acked(at + 100));
            net.wait(10_000);
        }
        net.check_warm(&[A, B]);
    });
}

#[test]
fn asynchronous_mirrors_are_bounded_too() {
    everywhere(|net| {
        net.vni(0, flag::HOLD_ACKS);
        net.establish(2);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(A, ack(100), delivered(0, 100));
        net.wait(1_100);
        net.check_client(data(100, 100), &[(A, 0)]);
        net.check_went_cold(B, Cold::LagTime);
    });
}

/// Its output stopped long ago: sequence numbers could not be compared for ever.
#[test]
fn a_mirror_a_gigabyte_of_output_behind_is_cold() {
    everywhere(|net: &mut Net| {
        net.establish(2);
        let step = 1 << 26;
        for turn in 0..17 {
            net.check(A, data(turn * step, step as u32), delivered(turn * step, 0));
            let _ = net.client_says(ack((turn + 1) * step));
        }
        net.check_warm(&[A]);
        assert_eq!(net.flow.replica(B).cold, Cold::LagBytes as u8);
    });
}
