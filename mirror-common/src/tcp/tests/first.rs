//! First-writer delivery: who says the client's next bytes first is heard, and the client's stream stays one.

use super::hosts::{A, B, C, Net, everywhere};
use super::say::{Seen, ack, data, delivered, fin, stripped};
use crate::{
    reason::{Cold, Reason},
    tcp::segment::bit,
    vni::flag,
};

const SUPPRESSED: Seen = Seen::Dropped(Reason::MirrorSuppressed);

fn first(script: impl Fn(&mut Net)) {
    everywhere(|net| {
        net.vni(flag::FIRST, 0);
        net.establish(3);
        script(net);
    });
}

#[test]
fn who_says_it_first_is_heard() {
    first(|net| {
        net.check(B, data(0, 100), delivered(0, 0));
        net.check_stays(B);
        net.check(A, data(0, 100), SUPPRESSED);
        net.check(C, data(0, 60), SUPPRESSED);
        net.check_client(ack(100), &[(A, 100), (B, 100), (C, 60)]);
        net.check(A, data(100, 50), delivered(100, 0));
        net.check_stays(A);
        net.check(C, data(60, 40), Seen::Turned(100));
        net.check(B, data(100, 50), SUPPRESSED);
        net.check_client(ack(150), &[(A, 150), (B, 150), (C, 100)]);
        net.check_warm(&[A, B, C]);
        assert_eq!(net.flow.flow.takeovers, 2, "both are counted");
    });
}

/// Without it, only the active replica is.
#[test]
fn elsewhere_mirrors_stay_silent() {
    everywhere(|net| {
        net.establish(2);
        net.check(B, data(0, 100), SUPPRESSED);
        net.check_stays(A);
    });
}

#[test]
fn what_is_late_is_answered_in_the_clients_name() {
    first(|net| {
        net.check(B, data(0, 100), delivered(0, 0));
        net.check_client(ack(100), &[(A, 0), (B, 100), (C, 0)]);
        net.check(A, data(0, 100), Seen::Turned(100));
        net.check(C, data(0, 60), Seen::Turned(60));
    });
}

#[test]
fn what_is_sent_again_comes_from_the_leader_alone() {
    first(|net| {
        net.check(B, data(0, 100), delivered(0, 0));
        net.check(A, data(0, 100), SUPPRESSED);
        net.check(A, data(0, 100), SUPPRESSED);
        net.check(B, data(0, 100), delivered(0, 0));
        net.check_stays(B);
    });
}

/// The client would lack what is in front of it, or have a part of it from another.
#[test]
fn nobody_leads_who_does_not_begin_where_the_clients_stream_ends() {
    first(|net| {
        net.check(B, data(10, 90), SUPPRESSED);
        net.check(A, data(0, 50), delivered(0, 0));
        net.check(C, data(0, 80), SUPPRESSED);
        net.check(C, data(80, 20), SUPPRESSED);
        net.check_stays(A);
    });
}

#[test]
fn nobody_leads_who_has_said_something_else() {
    first(|net| {
        net.check(A, data(0, 100), delivered(0, 0));
        net.check(B, data(0, 100).astray(), SUPPRESSED);
        net.check(B, data(100, 50), SUPPRESSED);
        net.check(C, data(0, 100), SUPPRESSED);
        let _ = net.client_says(ack(100));
        net.check(C, data(100, 50), delivered(100, 0));
        net.check_stays(C);
        let _ = net.client_says(ack(150));
        net.check_went_cold(B, Cold::Diverged);
    });
}

/// The client speaks as soon as it has the answer, and nobody after that until the next one.
#[test]
fn who_was_late_may_lead_when_it_has_caught_up() {
    first(|net| {
        net.check(A, data(0, 100), delivered(0, 0));
        let _ = net.client_says(ack(100));
        net.check(B, data(0, 60), Seen::Turned(60));
        net.check(B, data(60, 40), Seen::Turned(100));
        // More than the active replica has said, and only that far was it compared.
        net.check(C, data(0, 120), SUPPRESSED);
        net.check(C, data(120, 10), SUPPRESSED);
        net.check(B, data(100, 50), delivered(100, 0));
        net.check_stays(B);
    });
}

#[test]
fn who_was_late_and_says_something_else_does_not_lead() {
    first(|net| {
        net.check(A, data(0, 100), delivered(0, 0));
        let _ = net.client_says(ack(100));
        let _ = net.replica_says(B, data(0, 100).astray());
        net.check_went_cold(B, Cold::Diverged);
        // The active replica has gone on meanwhile.
        net.check(A, data(100, 20), delivered(100, 0));
        net.check(C, data(0, 100), Seen::Turned(100));
        net.check(C, data(100, 50), SUPPRESSED);
        net.check_stays(A);
    });
}

/// Who was first to say something else than the others is right, since the client has it.
#[test]
fn the_first_answer_is_the_one_that_counts() {
    first(|net| {
        net.check(B, data(0, 100).astray(), delivered(0, 0));
        net.check(A, data(0, 100), SUPPRESSED);
        net.check_client(ack(100), &[(B, 100), (C, 0)]);
        net.check_went_cold(A, Cold::Diverged);
        net.check_stays(B);
    });
}

/// Also within an answer: who has said all of it so far, and nothing else, may go on with it.
#[test]
fn who_goes_on_first_leads_in_the_middle_of_an_answer() {
    first(|net| {
        net.check(A, data(0, 100), delivered(0, 0));
        net.check(B, data(0, 100), SUPPRESSED);
        net.check(C, data(0, 100).astray(), SUPPRESSED);
        net.check(C, data(100, 50), SUPPRESSED);
        net.check(B, data(100, 50), delivered(100, 0));
        net.check(A, data(100, 50), SUPPRESSED);
        net.check(A, data(150, 50), delivered(150, 0));
        net.check_stays(A);
    });
}

/// Of a replica that was not heard out nobody knows what it has said.
#[test]
fn nobody_leads_without_a_sum() {
    first(|net| {
        net.check(B, data(0, 100).sack(), delivered(0, 0));
        net.check(A, data(0, 100), SUPPRESSED);
        // They are level when the client speaks, and a new count begins.
        let _ = net.client_says(ack(100));
        net.check(A, data(100, 50), SUPPRESSED);
        net.check_stays(B);
        net.check(B, data(100, 50), delivered(100, 0));
        let _ = net.client_says(ack(150));
        net.check(A, data(150, 50), delivered(150, 0));
    });
}

#[test]
fn nobody_leads_who_could_not_go_on_alone() {
    first(|net| {
        net.evacuate(B);
        net.suspect(C);
        net.check(B, data(0, 100), SUPPRESSED);
        net.check(C, data(0, 100), SUPPRESSED);
        net.check_stays(A);
    });
    // Its client will not say again what it was told is acknowledged.
    everywhere(|net| {
        net.vni(flag::FIRST, flag::HOLD_ACKS);
        net.establish(2);
        let _ = net.client_says(data(0, 10));
        net.check(A, ack(10), delivered(0, 10));
        net.check(B, data(0, 100), SUPPRESSED);
        net.check(B, data(100, 100).acks(10), SUPPRESSED);
        net.check_stays(A);
    });
}

#[test]
fn nobody_leads_who_is_given_up_with_its_word() {
    first(|net| {
        let _ = net.client_says(data(0, 10));
        net.check(A, ack(10), Seen::Dropped(Reason::AckHeld));
        let _ = net.replica_says(C, ack(10));
        net.wait(2_000);
        net.check(B, data(0, 100), Seen::Acked(10));
        net.check_stays(A);
        assert_eq!(net.flow.replica(B).cold, Cold::LagTime as u8);
    });
}

#[test]
fn acknowledgements_and_closes_lead_nowhere() {
    first(|net| {
        let _ = net.client_says(data(0, 10));
        net.check(B, ack(10), Seen::Dropped(Reason::MirrorSuppressed));
        net.check(B, fin(0), SUPPRESSED);
        net.check_stays(A);
    });
    // A close that others have yet to make is held, whoever leads.
    first(|net| {
        net.check(C, data(0, 100).with(bit::FIN), stripped(0, 0));
        net.check_stays(C);
    });
}

/// The client waits for nobody: its next bytes come from another, and no takeover is needed.
#[test]
fn a_death_that_nobody_knows_of_holds_nothing_up() {
    first(|net| {
        net.check(A, data(0, 100), delivered(0, 0));
        net.check(B, data(0, 100), SUPPRESSED);
        let _ = net.client_says(data(0, 10).acks(100));
        net.check(B, data(100, 100).acks(10), delivered(100, 0));
        net.check_stays(B);
        net.die(A);
        net.check(B, data(200, 100), delivered(200, 0));
        net.check_stays(B);
    });
}

/// Clocks of machines differ by a little: what the client sees never runs backwards.
#[test]
fn time_does_not_run_backwards_when_the_lead_changes() {
    first(|net| {
        let seen = net.check(A, data(0, 100).clock(3), delivered(0, 0)).ts_val;
        net.check(B, data(0, 100), SUPPRESSED);
        let _ = net.client_says(ack(100));
        let next = net.check(B, data(100, 100), delivered(100, 0)).ts_val;
        assert_eq!(next, seen);
    });
}
