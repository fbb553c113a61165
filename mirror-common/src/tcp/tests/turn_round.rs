//! What a mirror says that the client has already is answered in the client's name.

use super::hosts::{A, B, everywhere};
use super::say::{Seen, ack, data, delivered, fin};
use crate::{reason::Reason, tcp::replica::Verdict};

const SUPPRESSED: Seen = Seen::Dropped(Reason::MirrorSuppressed);

#[test]
fn late_data_is_acknowledged() {
    everywhere(|net| {
        net.establish(2);
        net.check_client(data(0, 70), &[(A, 0), (B, 0)]);
        net.check(A, data(0, 100), delivered(0, 0));
        net.check(A, data(100, 100), delivered(100, 0));
        net.check_client(ack(150), &[(A, 150), (B, 0)]);
        let output = net.check(B, data(0, 100), Seen::Turned(100));
        assert_eq!(output.ts_val, net.flow.sync.client_ts);
        assert_eq!(output.ts_ecr, net.clock_of(&net.replicas[1]));
        // Half of it is new.
        net.check(B, data(100, 100), SUPPRESSED);
        net.check_client(ack(200), &[(A, 200), (B, 200)]);
        net.check(B, data(100, 100), Seen::Turned(200));
    });
}

#[test]
fn the_clients_own_window_is_passed_on() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 100), delivered(0, 0));
        net.check_client(ack(100).window(0), &[(A, 100), (B, 0)]);
        assert_eq!(net.check(B, data(0, 100), Seen::Turned(100)).window, 0);
        net.check_client(ack(100).window(2_560), &[(A, 100), (B, 100)]);
        assert_eq!(net.check(B, data(0, 100), Seen::Turned(100)).window, 20);
    });
}

#[test]
fn an_older_acknowledgement_does_not_bring_an_old_window_back() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 200), delivered(0, 0));
        net.check_client(ack(200).window(2_560), &[(A, 200), (B, 0)]);
        net.check_client(ack(100).window(0), &[(A, 100), (B, 0)]);
        assert_eq!(net.check(B, data(0, 200), Seen::Turned(200)).window, 20);
    });
}

#[test]
fn keep_alives_and_window_probes_are_answered() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 100), delivered(0, 0));
        net.check(B, data(0, 100), SUPPRESSED);
        net.check_client(ack(100), &[(A, 100), (B, 100)]);
        // Without a byte, and with the last one again.
        net.check(B, ack(0).at(99), Seen::Turned(100));
        net.check(B, data(99, 1), Seen::Turned(100));
        // The active one's reach the client.
        net.check(A, ack(0).at(99), delivered(99, 0));
    });
}

#[test]
fn plain_acknowledgements_are_not_answered() {
    everywhere(|net| {
        net.establish(2);
        net.check(B, ack(0), SUPPRESSED);
        net.check(A, data(0, 100), delivered(0, 0));
        net.check(B, data(0, 100), SUPPRESSED);
        net.check(B, ack(0), SUPPRESSED);
    });
}

/// Acknowledging more than the client has would lose bytes at the next takeover.
#[test]
fn nothing_beyond_the_clients_acknowledgement_is_acknowledged() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 100), delivered(0, 0));
        net.check(B, data(0, 100), SUPPRESSED);
        net.check(B, data(100, 900), SUPPRESSED);
        net.check_client(ack(100), &[(A, 100), (B, 100)]);
        net.check(B, data(0, 100), Seen::Turned(100));
        let output = net.replica_says(B, data(0, 1_000));
        assert_eq!(output.verdict, Verdict::Drop, "{net:?}");
    });
}

#[test]
fn a_late_fin_is_acknowledged() {
    everywhere(|net| {
        net.vni(0, crate::vni::flag::VOTE_ON_CLOSE);
        net.establish(2);
        net.check(A, fin(0), delivered(0, 0));
        net.check_client(ack(1), &[(A, 1), (B, 0)]);
        net.check(B, fin(0), Seen::Turned(1));
    });
}

#[test]
fn a_replica_that_became_active_behind_catches_up_without_the_client() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 300), delivered(0, 0));
        net.check(B, data(0, 100), SUPPRESSED);
        net.check_client(ack(300), &[(A, 300), (B, 100)]);
        net.take_over(A, B);
        net.check(B, data(100, 100), Seen::Turned(200));
        net.check(B, data(200, 200), delivered(200, 0));
        net.check_client(ack(400), &[(B, 400)]);
    });
}

/// Who was active from the beginning sends again only what the client has not acknowledged, or
/// its acknowledgement was lost: that is between the two of them.
#[test]
fn an_active_one_that_repeats_itself_is_not_answered_for() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 300), delivered(0, 0));
        let _ = net.client_says(ack(300));
        net.check(A, data(0, 300), delivered(0, 0));
    });
}

#[test]
fn catching_up_does_not_swallow_an_acknowledgement() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 300), delivered(0, 0));
        net.check_client(data(0, 50).acks(300), &[(A, 300), (B, 0)]);
        net.take_over(A, B);
        // Old data would be dropped by the client, and the acknowledgement with it.
        net.check(B, data(0, 100).acks(50), Seen::Acked(50));
        net.check_client(data(50, 50), &[(B, 100)]);
        net.check(B, data(100, 100).acks(50), Seen::Turned(200));
    });
}

/// What it has to say next depends on bytes that the client sends only when it is told.
#[test]
fn acknowledgements_of_an_active_one_that_is_behind_are_not_old() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 300), delivered(0, 0));
        net.check(B, data(0, 100), SUPPRESSED);
        net.check_client(data(0, 50).acks(300), &[(A, 300), (B, 100)]);
        net.take_over(A, B);
        net.check(B, ack(50), Seen::Acked(50));
        net.check(B, ack(50).sack(), Seen::Acked(50));
        // Its keep-alive wants an answer.
        net.check(B, ack(50).at(99), Seen::Turned(100));
        net.check(B, data(100, 200), Seen::Turned(300));
        net.check(B, ack(50), delivered(300, 50));
        net.check(B, ack(50).at(299), delivered(299, 50));
    });
}

/// What the client has already needs no room there: its shut window must not hold back a replica that has
/// yet to produce it, least of all one that has become active and must probe the client.
#[test]
fn a_shut_window_is_shut_where_the_client_shut_it() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 2_560), delivered(0, 0));
        net.check(B, data(0, 1_280), SUPPRESSED);
        net.check_client(data(0, 10).acks(2_560).window(0), &[(A, 2_560), (B, 1_280)]);
        let windows = net.copies.map(|copy| copy.map(|copy| copy.window));
        assert_eq!(windows[..2], [Some(0), Some(1_280 >> 7)]);
        net.take_over(A, B);
        net.check(B, data(1_280, 640), Seen::Turned(1_920));
        assert_eq!(net.output.window, 640 >> 7);
        net.check(B, data(1_920, 640), Seen::Turned(2_560));
        assert_eq!(net.output.window, 0);
        // It is where the client is: now its probes reach the client.
        net.check(B, data(2_560, 1), delivered(2_560, 0));
    });
}
