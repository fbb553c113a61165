//! Shadows are kept in step and compared, and never become active, whatever happens to the active replica.

use super::hosts::{A, B, Net, everywhere};
use super::say::{Seen, ack, data, delivered, rst};
use crate::{
    flow::state,
    reason::{Cold, Reason},
    tcp::{client, replica::Verdict, slot},
    vni::flag,
};

const SUPPRESSED: Seen = Seen::Dropped(Reason::MirrorSuppressed);

/// A flow whose second replica is a shadow.
fn shadowed(net: &mut Net) {
    net.vni(flag::SHADOW, flag::HOLD_ACKS | flag::VOTE_ON_CLOSE);
    net.establish(2);
}

#[track_caller]
fn check_active(net: &Net) {
    assert_eq!((net.flow.flow.active, net.flow.flow.takeovers), (A, 0));
}

#[test]
fn the_flow_of_a_dead_instance_is_lost() {
    everywhere(|net| {
        shadowed(net);
        net.die(A);
        net.check(B, data(0, 100), SUPPRESSED);
        check_active(net);
        assert_eq!(net.client_says(data(0, 10)), client::Verdict::Reset);
        check_active(net);
        assert_eq!(net.flow.flow.state, state::CLOSED);
    });
}

#[test]
fn evacuation_and_suspicion_leave_the_flow_where_it_is() {
    everywhere(|net| {
        shadowed(net);
        net.evacuate(A);
        net.check(A, data(0, 100), delivered(0, 0));
        net.wait(60_000);
        net.check_client(ack(100), &[(A, 100), (B, 0)]);
        net.suspect(A);
        net.check(B, data(0, 100), Seen::Turned(100));
        net.check(A, data(100, 50), delivered(100, 0));
        check_active(net);
    });
}

#[test]
fn a_shadow_that_answers_otherwise_is_found_out() {
    everywhere(|net| {
        shadowed(net);
        net.check(A, data(0, 100), delivered(0, 0));
        net.check(B, data(0, 100).astray(), SUPPRESSED);
        let _ = net.client_says(ack(100));
        let shadow = net.flow.replica(B);
        assert_eq!(
            (shadow.state, shadow.cold),
            (slot::COLD, Cold::Diverged as u8)
        );
        check_active(net);
    });
}

#[test]
fn a_reset_is_the_clients_at_once() {
    everywhere(|net| {
        shadowed(net);
        let output = net.replica_says(A, rst(0));
        assert_eq!(output.verdict, Verdict::ToClient);
        check_active(net);
    });
}

#[test]
fn nobody_else_opens_the_connection() {
    everywhere(|net| {
        net.vni(flag::SHADOW, flag::HOLD_ACKS | flag::VOTE_ON_CLOSE);
        net.open(2);
        net.wait(1_000);
        assert_eq!(net.syn_ack(B).verdict, Verdict::Drop);
        check_active(net);
        assert_eq!(net.syn_ack(A).verdict, Verdict::ToClient);
        check_active(net);
    });
}
