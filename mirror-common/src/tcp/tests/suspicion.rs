//! Instances that may be dead: left by their flows, waited for by nobody, and kept as mirrors.

use super::hosts::{A, B, C, everywhere};
use super::say::{Seen, ack, data, delivered, fin};
use crate::{
    event::cause,
    reason::{Cold, Reason},
    tcp::client,
};

const HELD: Seen = Seen::Dropped(Reason::AckHeld);
const SUPPRESSED: Seen = Seen::Dropped(Reason::MirrorSuppressed);

#[test]
fn a_suspect_is_left_and_nobody_waits_for_it_but_copies_go_on() {
    everywhere(|net| {
        net.establish(2);
        net.suspect(A);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check_takeover(cause::SUSPECTED, A, B);
        net.check(B, data(0, 50).acks(100), delivered(0, 100));
    });
}

#[test]
fn a_false_alarm_costs_no_warm_replica() {
    everywhere(|net| {
        net.establish(2);
        net.suspect(A);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(B, ack(100), delivered(0, 100));
        // It was only slow.
        net.check(A, ack(100), SUPPRESSED);
        net.check_warm(&[A, B]);
        net.restore(A);
        // It is waited for again.
        net.check_client(data(100, 100), &[(A, 0), (B, 0)]);
        net.check(B, ack(200), HELD);
        net.check(A, ack(200), Seen::Acked(200));
        net.take_over(B, A);
    });
}

/// What a suspect answers is taken in as any mirror's.
#[test]
fn a_suspects_late_answer_is_turned_round() {
    everywhere(|net| {
        net.establish(2);
        net.suspect(A);
        net.check_client(data(0, 10), &[(A, 0), (B, 0)]);
        net.check(B, data(0, 100).acks(10), delivered(0, 10));
        // What A has not sent cannot be acknowledged to it.
        net.check_client(ack(100), &[(A, 0), (B, 100)]);
        net.check(A, data(0, 100).acks(10), Seen::Turned(100));
        net.check_warm(&[A, B]);
    });
}

#[test]
fn one_that_comes_back_behind_is_not_waited_for_until_it_has_caught_up() {
    everywhere(|net| {
        net.establish(2);
        net.suspect(A);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(B, ack(100), delivered(0, 100));
        net.restore(A);
        net.check_client(data(100, 100), &[(A, 0), (B, 0)]);
        net.check(B, ack(200), delivered(0, 200));
        net.check(A, ack(200), SUPPRESSED);
        net.check_client(data(200, 100), &[(A, 0), (B, 0)]);
        net.check(B, ack(300), HELD);
        net.check(A, ack(300), Seen::Acked(300));
    });
}

#[test]
fn one_that_comes_back_and_lacks_bytes_for_good_goes_cold() {
    everywhere(|net| {
        net.establish(2);
        net.suspect(A);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(B, ack(100), delivered(0, 100));
        // Being suspect does not count.
        net.wait(600_000);
        net.check_client(ack(0), &[(A, 0), (B, 0)]);
        net.restore(A);
        net.check_client(ack(0), &[(A, 0), (B, 0)]);
        net.check_warm(&[A, B]);
        net.wait(net.conditions.vni.lag_ms_max + 2);
        net.check_client(ack(0), &[(B, 0)]);
        net.check_went_cold(A, Cold::LagTime);
    });
}

#[test]
fn a_suspect_without_a_mirror_goes_on() {
    everywhere(|net| {
        net.establish(2);
        net.die(B);
        net.suspect(A);
        net.check_client(data(0, 100), &[(A, 0)]);
        net.check_stays(A);
        net.check(A, data(0, 50).acks(100), delivered(0, 100));
    });
}

#[test]
fn suspects_do_not_hand_flows_to_each_other() {
    everywhere(|net| {
        net.establish(2);
        net.suspect(A);
        net.suspect(B);
        for offset in [0, 100, 200] {
            net.check_client(data(offset, 100), &[(A, 0), (B, 0)]);
            net.check_stays(A);
        }
        // A suspect is better than nobody.
        net.die(A);
        net.check_client(data(300, 10), &[(B, 0)]);
        net.check_takeover(cause::DEAD, A, B);
    });
}

#[test]
fn a_suspect_is_the_last_choice() {
    everywhere(|net| {
        net.establish(3);
        net.suspect(B);
        net.die(A);
        net.check_client(data(0, 10), &[(B, 0), (C, 0)]);
        net.check_takeover(cause::DEAD, A, C);
        net.die(C);
        net.check_client(data(10, 10), &[(B, 0)]);
        net.check_takeover(cause::DEAD, C, B);
        net.die(B);
        net.check_refused(data(20, 10), client::Verdict::Reset);
    });
}

#[test]
fn a_close_waits_for_a_suspect_until_it_is_dead() {
    everywhere(|net| {
        net.establish(2);
        net.suspect(B);
        net.check(A, fin(0), Seen::Dropped(Reason::FinHeld));
        net.die(B);
        net.check(A, fin(0), delivered(0, 0));
    });
}

#[test]
fn what_may_be_a_mirrors_last_word_is_parked() {
    use crate::tcp::segment::bit::PSH;
    everywhere(|net| {
        net.establish(2);
        net.check(B, data(0, 100), SUPPRESSED);
        assert!(net.output.park, "the client has nothing to say");
        net.check(A, data(0, 50), delivered(0, 0));
        net.check(B, data(100, 50), SUPPRESSED);
        assert!(!net.output.park, "its acknowledgement is to come");
        net.check(B, data(150, 50).with(PSH), SUPPRESSED);
        assert!(net.output.park, "nothing else is");
        net.check(A, data(50, 150).with(PSH), delivered(50, 0));
        assert!(!net.output.park);
        net.check(B, data(150, 50).with(PSH), SUPPRESSED);
        assert!(!net.output.park, "the active one was first");
        // With an acknowledgement that the client is told.
        net.check_client(data(0, 10).acks(200), &[(A, 200), (B, 200)]);
        net.check(A, ack(10), HELD);
        net.check(B, data(200, 50).with(PSH).acks(10), Seen::Acked(10));
        assert!(net.output.park);
    });
}

/// A keep-alive may carry a byte that is none of the stream's.
#[test]
fn what_the_client_was_told_is_acknowledged_is_not_said_again_to_who_lacks_it() {
    everywhere(|net| {
        net.establish(3);
        net.suspect(A);
        net.check_client(data(0, 100), &[(A, 0), (B, 0), (C, 0)]);
        net.check(C, ack(100), SUPPRESSED);
        net.check(B, ack(100), delivered(0, 100));
        net.check_client(data(99, 1), &[(B, 0), (C, 0)]);
        net.check_client(ack(0).at(99), &[(A, 0), (B, 0), (C, 0)]);
        net.check_client(data(100, 1), &[(A, 0), (B, 0), (C, 0)]);
    });
}

#[test]
fn the_client_is_never_told_less_than_before() {
    everywhere(|net| {
        net.establish(2);
        net.vni(0, crate::vni::flag::HOLD_ACKS);
        net.check_client(data(0, 100), &[(A, 0), (B, 0)]);
        net.check(A, ack(100), delivered(0, 100));
        net.take_over(A, B);
        net.check(B, data(0, 10).acks(60), delivered(0, 100));
    });
}
