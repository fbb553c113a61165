//! What the client gets of its replicas' segments, and what a replica gets back.

use mirror_common::event::cause;
use mirror_common::flow::state;
use mirror_common::reason::{Cold, Reason};
use mirror_common::tcp::segment::bit;

use crate::bench::{Bench, Verdict, with_bench};
use crate::check::{Expected, Input, Vital, check};
use crate::conversation::{
    CLIENT_TS, Conversation, HANDSHAKE_WINDOW, SCALE, TS, WINDOW, canonical_seq,
};
use crate::hosts::{A, B, C, Family, TRUSTING, VniHost, WEB};
use crate::packet::{Tcp, Wrapping, nops, odd_timestamps, sack, timestamps};
use crate::tables::Table;

/// Runs rows on an established connection of each family, with and without timestamps, in each
/// wrapping.
pub(crate) fn on_each(vni: VniHost, rows: impl Fn(&mut Bench, &Conversation) + Send) {
    with_bench(move |bench| {
        for family in Family::ALL {
            for timestamps in [true, false] {
                for wrapping in Wrapping::ALL {
                    bench.reset();
                    let talk = Conversation {
                        wrapping,
                        timestamps,
                        ..Conversation::new(vni, family)
                    };
                    let talk = talk.established(bench);
                    rows(bench, &talk);
                }
            }
        }
    });
}

fn from(talk: &Conversation, slot: usize, segment: &Tcp) -> Input {
    Input::from_instance(talk.instances()[slot], talk.of_instance(slot).tcp(segment))
}

fn delivered(talk: &Conversation, segment: &Tcp) -> Expected {
    Expected::to_client(Reason::Delivered, talk.outbound().tcp(segment))
}

#[test]
fn the_active_replica_speaks_and_its_mirror_does_not() {
    on_each(WEB, |bench, talk| {
        let data = b"the same bytes";
        let primary = talk.replica(0, 0, 0).with_payload(data).with(bit::PSH);
        let mirror = talk.replica(1, 0, 0).with_payload(data).with(bit::PSH);
        let suppressed = Expected::drop(Reason::MirrorSuppressed).heard(B);
        let delivered = delivered(talk, &primary).heard(A).flow(
            talk.key(),
            Table::Mirrored,
            state::ESTABLISHED,
        );
        check(bench, &from(talk, 1, &mirror), &suppressed);
        check(bench, &from(talk, 0, &primary), &delivered);
        let again = delivered.vital(A, Vital::Retransmission);
        check(bench, &from(talk, 0, &primary), &again);
    });
}

#[test]
fn a_mirror_that_took_over_speaks_in_canonical_numbers() {
    on_each(WEB, |bench, talk| {
        bench.tables.change(A, |entry| {
            entry.state = mirror_common::instance::state::DEAD
        });
        let data = b"from the mirror, an odd length!";
        assert_eq!(data.len() % 2, 1);
        let own = talk.replica(1, 0, 0).with_payload(data);
        let seen = talk.canonical(0, 0).with_payload(data);
        let taken_over = delivered(talk, &seen).heard(B).takeover(cause::DEAD, A, B);
        check(bench, &from(talk, 1, &own), &taken_over);
        let next = talk.replica(1, data.len() as u32, 0).with_payload(b"more");
        let seen = talk.canonical(data.len() as u32, 0).with_payload(b"more");
        check(
            bench,
            &from(talk, 1, &next),
            &delivered(talk, &seen).heard(B),
        );
    });
}

#[test]
fn timestamps_on_odd_offsets_are_translated() {
    with_bench(|bench| {
        for family in Family::ALL {
            bench.reset();
            let talk = Conversation::new(WEB, family).established(bench);
            bench.tables.change(A, |entry| {
                entry.state = mirror_common::instance::state::DEAD
            });
            let own = talk.replica(1, 0, 0).with_payload(b"x");
            let own = own.with_options(odd_timestamps(TS[1] + 3, CLIENT_TS));
            let seen = talk.canonical(0, 0).with_payload(b"x");
            let seen = seen.with_options(odd_timestamps(TS[0].wrapping_add(3), CLIENT_TS));
            let expected = delivered(&talk, &seen).heard(B).takeover(cause::DEAD, A, B);
            check(bench, &from(&talk, 1, &own), &expected);
        }
    });
}

#[test]
fn an_acknowledgement_waits_for_the_mirror() {
    on_each(WEB, |bench, talk| {
        let data = talk.client(0, 0).with_payload(b"0123456789");
        talk.client_sends(bench, &data, Verdict::Redirect);
        let held = Expected::drop(Reason::AckHeld).heard(A);
        check(bench, &from(talk, 0, &talk.replica(0, 0, 10)), &held);
        let raised = talk.outbound().tcp(&talk.canonical(0, 10));
        let raised = Expected::to_client(Reason::AckRaised, raised).heard(B);
        check(bench, &from(talk, 1, &talk.replica(1, 0, 10)), &raised);

        // The mirror first: the active one's own goes out.
        let data = talk.client(10, 0).with_payload(b"0123456789");
        talk.client_sends(bench, &data, Verdict::Redirect);
        let first = Expected::drop(Reason::MirrorSuppressed).heard(B);
        check(bench, &from(talk, 1, &talk.replica(1, 0, 20)), &first);
        let second = delivered(talk, &talk.canonical(0, 20)).heard(A);
        check(bench, &from(talk, 0, &talk.replica(0, 0, 20)), &second);
    });
}

#[test]
fn the_payload_of_a_mirror_is_cut_off() {
    on_each(WEB, |bench, talk| {
        let data = talk.client(0, 0).with_payload(b"0123456789");
        talk.client_sends(bench, &data, Verdict::Redirect);
        talk.replica_sends(bench, 0, &talk.replica(0, 0, 10), Verdict::Drop);
        let with_data = talk
            .replica(1, 0, 10)
            .with_payload(b"answer")
            .with(bit::PSH);
        let ack_only = talk.outbound().tcp(&talk.canonical(0, 10));
        let raised = Expected::to_client(Reason::AckRaised, ack_only).heard(B);
        check(bench, &from(talk, 1, &with_data), &raised);
    });
}

#[test]
fn a_held_acknowledgement_takes_its_sack_blocks_along() {
    with_bench(|bench| {
        for family in Family::ALL {
            bench.reset();
            let talk = Conversation::new(WEB, family).established(bench);
            let data = talk.client(0, 0).with_payload(b"0123456789");
            talk.client_sends(bench, &data, Verdict::Redirect);
            let stamps = timestamps(TS[0], CLIENT_TS);
            let blocks = sack(&[(100, 200), (300, 400)]);
            let blank = nops(blocks.len());
            let own = talk.replica(0, 0, 10).with_payload(b"odd");
            let own = own.with_options([&stamps[..], &blocks].concat());
            let seen = talk.canonical(0, 0).with_payload(b"odd");
            let seen = seen.with_options([&stamps[..], &blank].concat());
            check(
                bench,
                &from(&talk, 0, &own),
                &delivered(&talk, &seen).heard(A),
            );
            // On an odd offset.
            let odd = |blocks: &[u8]| [&stamps[..], &[1], &blocks[2..], &[1]].concat();
            let own = own.with_options(odd(&blocks));
            let seen = seen.with_options(odd(&blank));
            let expected = delivered(&talk, &seen).heard(A);
            let expected = expected.vital(A, Vital::Retransmission);
            check(bench, &from(&talk, 0, &own), &expected);
        }
    });
}

#[test]
fn an_asynchronous_vni_tells_at_once() {
    on_each(TRUSTING, |bench, talk| {
        let data = talk.client(0, 0).with_payload(b"0123456789");
        talk.client_sends(bench, &data, Verdict::Redirect);
        let told = delivered(talk, &talk.canonical(0, 10)).heard(A);
        check(bench, &from(talk, 0, &talk.replica(0, 0, 10)), &told);
        let suppressed = Expected::drop(Reason::MirrorSuppressed).heard(B);
        check(bench, &from(talk, 1, &talk.replica(1, 0, 10)), &suppressed);
        let fin = talk.replica(0, 0, 10).with(bit::FIN);
        let closing = delivered(talk, &talk.canonical(0, 10).with(bit::FIN))
            .heard(A)
            .flow(talk.key(), Table::Mirrored, state::CLOSING);
        check(bench, &from(talk, 0, &fin), &closing);
    });
}

#[test]
fn the_smallest_window_edge_is_told() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB);
        talk.open(bench);
        talk.replica_sends(bench, 0, &talk.syn_ack(0), Verdict::Drop);
        let small = HANDSHAKE_WINDOW / 2;
        let narrow = Tcp {
            window: small,
            ..talk.syn_ack(1)
        };
        let opened = Tcp {
            window: small,
            ..talk.syn_ack(0)
        };
        let opened = delivered(&talk, &opened).heard(B);
        check(bench, &from(&talk, 1, &narrow), &opened);
        talk.client_sends(bench, &talk.client(0, 0), Verdict::Redirect);
        let data = talk.replica(0, 0, 0).with_payload(b"x");
        assert_eq!(data.window, WINDOW);
        let seen = Tcp {
            window: small >> SCALE,
            ..data.clone()
        };
        check(
            bench,
            &from(&talk, 0, &data),
            &delivered(&talk, &seen).heard(A),
        );
    });
}

#[test]
fn late_data_of_a_mirror_is_turned_round() {
    on_each(WEB, |bench, talk| {
        let data = talk.replica(0, 0, 0).with_payload(b"hello");
        talk.replica_sends(bench, 0, &data, Verdict::Redirect);
        // The mirror has not sent these bytes: their acknowledgement is clamped for it.
        let ack = Input::from_client(talk.inbound().tcp(&talk.client(0, 5)));
        let clamped = [talk.copy(0, 5), talk.copy(1, 0)];
        check(bench, &ack, &Expected::cloned(&clamped));
        let late = talk.replica(1, 0, 0).with_payload(b"hello");
        let answer = talk.to_instance(1).tcp(&talk.seen_by(1, 0, 5));
        let turned = Expected::turned(Reason::TurnedRound, answer).heard(B);
        check(bench, &from(talk, 1, &late), &turned);
        // A keep-alive: one byte back, without data.
        let keep_alive = talk.replica(1, 4, 0);
        check(bench, &from(talk, 1, &keep_alive), &turned);
        // A window probe is answered with the client's newest numbers.
        let data = talk.client(0, 5).with_payload(b"12");
        talk.client_sends(bench, &data, Verdict::Redirect);
        let answer = talk.to_instance(1).tcp(&talk.seen_by(1, 2, 5));
        let turned = Expected::turned(Reason::TurnedRound, answer).heard(B);
        check(bench, &from(talk, 1, &keep_alive), &turned);
    });
}

#[test]
fn a_fin_waits_for_the_vote() {
    on_each(WEB, |bench, talk| {
        let fin = |slot| talk.replica(slot, 0, 0).with(bit::FIN);
        let held = Expected::drop(Reason::FinHeld).heard(A).flow(
            talk.key(),
            Table::Mirrored,
            state::ESTABLISHED,
        );
        check(bench, &from(talk, 0, &fin(0)), &held);
        let agreed = delivered(talk, &talk.canonical(0, 0).with(bit::FIN))
            .heard(B)
            .flow(talk.key(), Table::Mirrored, state::CLOSING);
        check(bench, &from(talk, 1, &fin(1)), &agreed);
    });
}

#[test]
fn a_flow_ends_when_both_fins_are_acknowledged() {
    on_each(WEB, |bench, talk| {
        let fin = |slot| talk.replica(slot, 0, 0).with(bit::FIN);
        talk.replica_sends(bench, 0, &fin(0), Verdict::Drop);
        talk.replica_sends(bench, 1, &fin(1), Verdict::Redirect);
        let answer = talk.client(0, 1).with(bit::FIN);
        let closing =
            Expected::cloned(&talk.copies(1)).flow(talk.key(), Table::Mirrored, state::CLOSING);
        check(
            bench,
            &Input::from_client(talk.inbound().tcp(&answer)),
            &closing,
        );
        talk.replica_sends(bench, 0, &talk.replica(0, 1, 1), Verdict::Drop);
        let last = talk.outbound().tcp(&talk.canonical(1, 1));
        let closed = Expected::to_client(Reason::AckRaised, last)
            .heard(B)
            .closed(A)
            .flow(talk.key(), Table::Mirrored, state::CLOSED);
        check(bench, &from(talk, 1, &talk.replica(1, 1, 1)), &closed);
    });
}

#[test]
fn a_fin_with_data_loses_the_fin_until_the_vote() {
    on_each(WEB, |bench, talk| {
        let own = talk.replica(0, 0, 0).with_payload(b"bye").with(bit::FIN);
        let seen = talk.canonical(0, 0).with_payload(b"bye");
        check(
            bench,
            &from(talk, 0, &own),
            &delivered(talk, &seen).heard(A),
        );
    });
}

#[test]
fn a_close_before_the_mirrors_end_is_a_death() {
    on_each(WEB, |bench, talk| {
        let fin = talk.replica(0, 0, 0).with(bit::FIN);
        talk.replica_sends(bench, 0, &fin, Verdict::Drop);
        let goes_on = talk.replica(1, 0, 0).with_payload(b"alive");
        let seen = talk.canonical(0, 0).with_payload(b"alive");
        let taken_over = delivered(talk, &seen)
            .heard(B)
            .takeover(cause::CLOSED_EARLY, A, B)
            .cold(A, Cold::ClosedEarly)
            .vital(A, Vital::EarlyClose);
        check(bench, &from(talk, 1, &goes_on), &taken_over);
    });
}

#[test]
fn duplicate_acknowledgements_pass() {
    on_each(WEB, |bench, talk| {
        let pure = talk.replica(0, 0, 0);
        for _ in 0..3 {
            check(
                bench,
                &from(talk, 0, &pure),
                &delivered(talk, &pure).heard(A),
            );
        }
        let mirrors = Expected::drop(Reason::MirrorSuppressed).heard(B);
        check(bench, &from(talk, 1, &talk.replica(1, 0, 0)), &mirrors);
    });
}

#[test]
fn a_mirror_that_lost_a_clone_asks_the_client_for_it() {
    with_bench(|bench| {
        for family in Family::ALL {
            bench.reset();
            let talk = Conversation::new(WEB, family).established(bench);
            let data = talk.client(0, 0).with_payload(b"0123456789");
            talk.client_sends(bench, &data, Verdict::Redirect);
            talk.replica_sends(bench, 0, &talk.replica(0, 0, 10), Verdict::Drop);
            // The first five are missing.
            let byte = |c| data.seq.wrapping_add(c);
            let blocks = sack(&[(byte(5), byte(10))]);
            let lacks = |slot: usize| {
                let stamps = timestamps(TS[slot], CLIENT_TS);
                let options = [&stamps[..], &blocks].concat();
                talk.replica(slot, 0, 0).with_options(options)
            };
            let asks = talk.outbound().tcp(&lacks(0));
            let asks = Expected::to_client(Reason::AckRaised, asks).heard(B);
            check(bench, &from(&talk, 1, &lacks(1)), &asks);
        }
    });
}

#[test]
fn a_trusting_vni_believes_resets() {
    on_each(TRUSTING, |bench, talk| {
        let reset = Tcp {
            flags: bit::RST,
            ..talk.replica(0, 0, 0)
        };
        let told = delivered(talk, &reset).heard(A).closed(A).flow(
            talk.key(),
            Table::Mirrored,
            state::CLOSED,
        );
        check(bench, &from(talk, 0, &reset), &told);
    });
}

#[test]
fn resets_of_replicas() {
    on_each(WEB, |bench, talk| {
        let reset = |slot| {
            let segment = talk.replica(slot, 0, 0);
            Tcp {
                flags: bit::RST,
                ..segment
            }
        };
        let held = Expected::drop(Reason::ResetHeld)
            .heard(A)
            .takeover(cause::RESET, A, B)
            .cold(A, Cold::Reset)
            .vital(A, Vital::Reset);
        check(bench, &from(talk, 0, &reset(0)), &held);
        // Now a cold one.
        let suppressed = Expected::drop(Reason::MirrorSuppressed).heard(A);
        check(bench, &from(talk, 0, &reset(0)), &suppressed);
        // And the last one's is the client's business.
        let seen = Tcp {
            seq: canonical_seq(0, 0),
            flags: bit::RST,
            ..talk.canonical(0, 0)
        };
        let told = delivered(talk, &seen).heard(B).closed(B).flow(
            talk.key(),
            Table::Mirrored,
            state::CLOSED,
        );
        check(bench, &from(talk, 1, &reset(1)), &told);
    });
}

#[test]
fn a_reset_of_a_mirror_makes_it_cold() {
    on_each(WEB, |bench, talk| {
        let reset = Tcp {
            flags: bit::RST,
            ..talk.replica(1, 0, 0)
        };
        let cold = Expected::drop(Reason::MirrorSuppressed)
            .heard(B)
            .cold(B, Cold::Reset);
        check(bench, &from(talk, 1, &reset), &cold);
        // Nobody waits for it any more.
        let data = talk.client(0, 0).with_payload(b"0123456789");
        let only_a = Expected::cloned(&talk.copies(0)[..1]);
        check(
            bench,
            &Input::from_client(talk.inbound().tcp(&data)),
            &only_a,
        );
        let told = delivered(talk, &talk.canonical(0, 10)).heard(A);
        check(bench, &from(talk, 0, &talk.replica(0, 0, 10)), &told);
    });
}

#[test]
fn nobody_else_speaks_for_a_flow() {
    with_bench(|bench| {
        for family in Family::ALL {
            bench.reset();
            let talk = Conversation::new(WEB, family).established(bench);
            let data = talk.replica(0, 0, 0).with_payload(b"false");
            let foreign = Input::from_instance(C, talk.of_instance(0).tcp(&data));
            check(
                bench,
                &foreign,
                &Expected::drop(Reason::NotReplica).heard(C),
            );
            let nowhere = Input::from_unknown_link(talk.of_instance(0).tcp(&data));
            check(bench, &nowhere, &Expected::refuse(Reason::NotReplica));
            // Of a flow that is not known, only the instance that its hash names may speak.
            let stranger = Conversation {
                client: std::net::SocketAddr::new(family.client(9), 1),
                ..talk.clone()
            };
            let segment = stranger.replica(0, 0, 0);
            let primary = Expected::pass(Reason::ReturnWithoutFlow).heard(A);
            check(bench, &from(&stranger, 0, &segment), &primary);
            let mirror = Expected::drop(Reason::NotReplica).heard(B);
            check(bench, &from(&stranger, 1, &segment), &mirror);
        }
    });
}
