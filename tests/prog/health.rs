//! Takeover and migration: one write of the instance table, applied at each flow's next packet in
//! either direction.

use mirror_common::event::cause;
use mirror_common::flow::state;
use mirror_common::instance;
use mirror_common::reason::{Cold, Reason};
use mirror_common::tcp::segment::bit;
use mirror_common::time;

use crate::bench::{Bench, Verdict, with_bench};
use crate::check::{Expected, Input, check};
use crate::conversation::{CLIENT_ISN, Conversation, canonical_seq};
use crate::hosts::{A, B, C, D, FOUR, Family, IMPATIENT, LEAVING, WEB};
use crate::packet::{Tcp, Wrapping};
use crate::tables::Table;

pub(crate) fn set_state(bench: &mut Bench, instance: u16, state: u32) {
    bench.tables.change(instance, |entry| {
        entry.state = state;
        // Half the clock's range ahead: an evacuation that is never overdue.
        entry.deadline_ms = now_ms().wrapping_add(1 << 30);
    });
}

fn kill(bench: &mut Bench, instance: u16) {
    set_state(bench, instance, instance::state::DEAD);
}

fn now_ms() -> u32 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    let now = nix::time::clock_gettime(clock).unwrap();
    time::ms((now.tv_sec() * 1_000_000_000 + now.tv_nsec()) as u64)
}

pub(crate) fn everywhere() -> impl Iterator<Item = Conversation> {
    Family::ALL.into_iter().flat_map(|family| {
        Wrapping::ALL.into_iter().map(move |wrapping| Conversation {
            wrapping,
            ..Conversation::new(WEB, family)
        })
    })
}

pub(crate) fn from_client(talk: &Conversation, segment: &Tcp) -> Input {
    Input::from_client(talk.inbound().tcp(segment))
}

pub(crate) fn from(talk: &Conversation, slot: usize, segment: &Tcp) -> Input {
    Input::from_instance(talk.instances()[slot], talk.of_instance(slot).tcp(segment))
}

pub(crate) fn delivered(talk: &Conversation, segment: &Tcp) -> Expected {
    Expected::to_client(Reason::Delivered, talk.outbound().tcp(segment))
}

#[test]
fn a_dead_instance_is_left_at_the_clients_next_packet() {
    with_bench(|bench| {
        for talk in everywhere() {
            bench.reset();
            let talk = talk.established(bench);
            kill(bench, A);
            // Without data nothing is lost to the dead one, and it may come back.
            let ack = Expected::cloned(&talk.copies(0)[1..])
                .takeover(cause::DEAD, A, B)
                .flow(talk.key(), Table::Mirrored, state::ESTABLISHED);
            check(bench, &from_client(&talk, &talk.client(0, 0)), &ack);
            let data = talk.client(0, 0).with_payload(b"data");
            let data_alone = Expected::cloned(&talk.copies(0)[1..]).cold(A, Cold::InstanceDead);
            check(bench, &from_client(&talk, &data), &data_alone);
            let answer = talk.replica(1, 0, 4).with_payload(b"answer");
            let seen = talk.canonical(0, 4).with_payload(b"answer");
            check(
                bench,
                &from(&talk, 1, &answer),
                &delivered(&talk, &seen).heard(B),
            );
            let (_, flow) = bench.tables.find(&talk.key()).unwrap();
            assert_eq!((flow.active, flow.takeovers), (1, 1));
            // What the dead one still says stays unheard, and its socket is closed.
            let ghost = talk.replica(0, 0, 0).with_payload(b"answer");
            let reset = Expected::turned(Reason::ColdReset, talk.cold_reset(0, 0)).heard(A);
            check(bench, &from(&talk, 0, &ghost), &reset);
        }
    });
}

#[test]
fn every_flow_of_an_instance_moves_by_one_write() {
    with_bench(|bench| {
        let talks: Vec<Conversation> = (1..=20_u16)
            .map(|number| {
                let mut talk = Conversation::new(WEB, Family::ALL[usize::from(number) % 2]);
                talk.client.set_port(40_000 + number);
                talk.established(bench)
            })
            .collect();
        kill(bench, A);
        for talk in talks {
            let moved = Expected::cloned(&talk.copies(0)[1..]).takeover(cause::DEAD, A, B);
            check(bench, &from_client(&talk, &talk.client(0, 0)), &moved);
        }
    });
}

#[test]
fn the_fittest_of_several_mirrors_takes_over() {
    with_bench(|bench| {
        let talk = Conversation::with(FOUR).established(bench);
        // Five bytes reach the client. C has produced as many, B more, D fewer.
        let send = |bench: &mut Bench, slot, payload: &[u8], verdict| {
            let segment = talk.replica(slot, 0, 0).with_payload(payload);
            talk.replica_sends(bench, slot, &segment, verdict);
        };
        send(bench, 1, b"hello world", Verdict::Drop);
        send(bench, 0, b"hello", Verdict::Redirect);
        send(bench, 2, b"hello", Verdict::Drop);
        send(bench, 3, b"hell", Verdict::Drop);
        kill(bench, A);
        let copies = [talk.copy(1, 0), talk.copy(2, 0), talk.copy(3, 0)];
        let moved = Expected::cloned(&copies).takeover(cause::DEAD, A, C);
        check(bench, &from_client(&talk, &talk.client(0, 0)), &moved);
        // Then the one that is behind: it catches up by itself.
        kill(bench, C);
        let copies = [talk.copy(1, 0), talk.copy(3, 0)];
        let moved = Expected::cloned(&copies).takeover(cause::DEAD, C, D);
        check(bench, &from_client(&talk, &talk.client(0, 0)), &moved);
    });
}

#[test]
fn an_evacuated_instance_becomes_a_warm_mirror() {
    with_bench(|bench| {
        for talk in everywhere() {
            bench.reset();
            let talk = talk.established(bench);
            // The mirror is ahead of what was delivered: wait.
            let data = |slot| talk.replica(slot, 0, 0).with_payload(b"hello");
            talk.replica_sends(bench, 1, &data(1), Verdict::Drop);
            set_state(bench, A, instance::state::EVACUATING);
            let waits = Expected::cloned(&talk.copies(0));
            check(bench, &from_client(&talk, &talk.client(0, 0)), &waits);
            let still = delivered(&talk, &data(0)).heard(A);
            check(bench, &from(&talk, 0, &data(0)), &still);
            // Now both are even.
            let moved = Expected::cloned(&talk.copies(5)).takeover(cause::EVACUATED, A, B);
            check(bench, &from_client(&talk, &talk.client(0, 5)), &moved);
            let next = |slot| talk.replica(slot, 5, 0).with_payload(b" world");
            let suppressed = Expected::drop(Reason::MirrorSuppressed).heard(A);
            check(bench, &from(&talk, 0, &next(0)), &suppressed);
            let seen = talk.canonical(5, 0).with_payload(b" world");
            check(
                bench,
                &from(&talk, 1, &next(1)),
                &delivered(&talk, &seen).heard(B),
            );
        }
    });
}

#[test]
fn an_overdue_evacuation_waits_no_longer() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB).established(bench);
        let ahead = talk.replica(1, 0, 0).with_payload(b"hello");
        talk.replica_sends(bench, 1, &ahead, Verdict::Drop);
        bench.tables.change(A, |entry| {
            entry.state = instance::state::EVACUATING;
            // The programs know the time of the last tick.
            entry.deadline_ms = now_ms().wrapping_sub(20);
        });
        let moved = Expected::cloned(&talk.copies(0)).takeover(cause::EVACUATED, A, B);
        check(bench, &from_client(&talk, &talk.client(0, 0)), &moved);
    });
}

#[test]
fn an_evacuation_of_all_moves_nothing() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB).established(bench);
        for instance in [A, B] {
            set_state(bench, instance, instance::state::EVACUATING);
        }
        let stays = Expected::cloned(&talk.copies(0));
        check(bench, &from_client(&talk, &talk.client(0, 0)), &stays);
    });
}

#[test]
fn a_flow_that_lost_all_replicas_is_reset_at_once() {
    with_bench(|bench| {
        for talk in everywhere() {
            bench.reset();
            let talk = talk.established(bench);
            kill(bench, A);
            kill(bench, B);
            let data = talk.client(0, 0).with_payload(b"data");
            let reset = Tcp {
                flags: bit::RST,
                seq: canonical_seq(0, 0),
                ack: CLIENT_ISN.wrapping_add(1 + 4),
                ..Tcp::default()
            };
            let turned = Expected::turned(Reason::ResetSent, talk.outbound().tcp(&reset))
                .cold(B, Cold::InstanceDead)
                .closed(A)
                .flow(talk.key(), Table::Mirrored, state::CLOSED);
            check(bench, &from_client(&talk, &data), &turned);
        }
    });
}

#[test]
fn a_vni_may_leave_lost_flows_alone() {
    with_bench(|bench| {
        let talk = Conversation::with(LEAVING).established(bench);
        kill(bench, A);
        kill(bench, B);
        let left = Expected::drop(Reason::NoReplica);
        let left = left.flow(talk.key(), Table::Mirrored, state::ESTABLISHED);
        check(bench, &from_client(&talk, &talk.client(0, 0)), &left);
    });
}

#[test]
fn a_client_may_close_and_begin_again() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB).established(bench);
        // A reset that is not exact is for the replicas to judge.
        let inexact = talk.client(7, 0).with(bit::RST);
        let kept = Expected::cloned(&talk.copies(0));
        let kept = kept.flow(talk.key(), Table::Mirrored, state::ESTABLISHED);
        check(bench, &from_client(&talk, &inexact), &kept);
        bench.reset();
        let talk = talk.established(bench);
        let exact = talk.client(0, 0).with(bit::RST);
        let closed = Expected::cloned(&talk.copies(0)).closed(A).flow(
            talk.key(),
            Table::Mirrored,
            state::CLOSED,
        );
        check(bench, &from_client(&talk, &exact), &closed);
        let opened = Expected::cloned(&talk.syn_copies());
        let opened = opened.flow(talk.key(), Table::HalfOpen, state::HANDSHAKE);
        check(bench, &from_client(&talk, &talk.syn()), &opened);
    });
}

#[test]
fn a_mirror_that_lags_goes_cold() {
    with_bench(|bench| {
        let talk = Conversation::with(IMPATIENT);
        talk.open(bench);
        talk.replica_sends(bench, 0, &talk.syn_ack(0), Verdict::Redirect);
        talk.replica_sends(bench, 1, &talk.syn_ack(1), Verdict::Drop);
        talk.client_sends(bench, &talk.client(0, 0), Verdict::Redirect);
        let payload = vec![b'x'; IMPATIENT.lag_bytes_max as usize + 1];
        let data = talk.client(0, 0).with_payload(&payload);
        talk.client_sends(bench, &data, Verdict::Redirect);
        let lagging = talk.replica(0, 0, payload.len() as u32);
        // The window has moved with the acknowledgement.
        let told = delivered(&talk, &talk.canonical(0, payload.len() as u32))
            .heard(A)
            .cold(B, Cold::LagBytes);
        check(bench, &from(&talk, 0, &lagging), &told);
    });
}
