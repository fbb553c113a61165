//! Flows of a VNI without mirrors: one instance, nothing to translate, little to keep.

use mirror_common::flow::{Flow, state};
use mirror_common::instance;
use mirror_common::reason::Reason;
use mirror_common::tcp::segment::bit;

use crate::bench::with_bench;
use crate::check::{Expected, Input, Vital, check};
use crate::conversation::{CLIENT_ISN, Conversation, ISN, canonical_seq};
use crate::hosts::{A, B, Family, PLAIN, VniHost, WEB};
use crate::packet::{Tcp, Wrapping};
use crate::tables::{FLOWS_MAX, Table};

fn everywhere(vni: VniHost) -> impl Iterator<Item = Conversation> {
    Family::ALL.into_iter().flat_map(move |family| {
        Wrapping::ALL.into_iter().map(move |wrapping| Conversation {
            wrapping,
            ..Conversation::new(vni, family)
        })
    })
}

fn from_client(talk: &Conversation, segment: &Tcp) -> Input {
    Input::from_client(talk.inbound().tcp(segment))
}

fn from_instance(talk: &Conversation, segment: &Tcp) -> Input {
    Input::from_instance(A, talk.of_instance(0).tcp(segment))
}

fn steered(talk: &Conversation, segment: &Tcp) -> Expected {
    Expected::steered(A, talk.to_instance(0).tcp(segment))
}

fn delivered(talk: &Conversation, segment: &Tcp) -> Expected {
    Expected::to_client(Reason::Delivered, talk.outbound().tcp(segment)).heard(A)
}

#[test]
fn a_flow_from_its_syn_to_its_end() {
    with_bench(|bench| {
        for talk in everywhere(PLAIN) {
            bench.reset();
            let kept = |expected: Expected, table, state| expected.flow(talk.key(), table, state);
            let syn = talk.syn();
            let opened = kept(steered(&talk, &syn), Table::HalfOpen, state::HANDSHAKE);
            check(bench, &from_client(&talk, &syn), &opened);
            let early = Expected::drop(Reason::BadHandshakeAck);
            let early = kept(early, Table::HalfOpen, state::HANDSHAKE);
            check(bench, &from_client(&talk, &talk.client(0, 0)), &early);
            let syn_ack = talk.syn_ack(0);
            let answered = kept(delivered(&talk, &syn_ack), Table::HalfOpen, state::ANSWERED);
            check(bench, &from_instance(&talk, &syn_ack), &answered);
            let wrong = talk.client(0, 1);
            let refused = Expected::drop(Reason::BadHandshakeAck);
            let refused = kept(refused, Table::HalfOpen, state::ANSWERED);
            check(bench, &from_client(&talk, &wrong), &refused);
            let ack = talk.client(0, 0).with_payload(b"GET");
            let established = steered(&talk, &ack).and(Reason::FlowOpened);
            let established = kept(established, Table::Plain, state::ESTABLISHED);
            check(bench, &from_client(&talk, &ack), &established);
            let data = talk.replica(0, 0, 3).with_payload(b"hello");
            let answer = kept(delivered(&talk, &data), Table::Plain, state::ESTABLISHED);
            check(bench, &from_instance(&talk, &data), &answer);
            let fin = talk.client(3, 5).with(bit::FIN);
            let closing = kept(steered(&talk, &fin), Table::Plain, state::CLOSING);
            check(bench, &from_client(&talk, &fin), &closing);
            let fin = talk.replica(0, 5, 4).with(bit::FIN);
            let closed = kept(delivered(&talk, &fin), Table::Plain, state::CLOSED);
            check(bench, &from_instance(&talk, &fin), &closed);
            // The ports are used again.
            let opened = kept(steered(&talk, &syn), Table::HalfOpen, state::HANDSHAKE);
            check(bench, &from_client(&talk, &syn), &opened);
        }
    });
}

#[test]
fn the_server_may_close_first() {
    with_bench(|bench| {
        let talk = Conversation::with(PLAIN).established(bench);
        let fin = talk.replica(0, 0, 0).with(bit::FIN);
        let closing = delivered(&talk, &fin).flow(talk.key(), Table::Plain, state::CLOSING);
        check(bench, &from_instance(&talk, &fin), &closing);
        let data = talk.client(0, 1).with_payload(b"the client goes on");
        let open = steered(&talk, &data).flow(talk.key(), Table::Plain, state::CLOSING);
        check(bench, &from_client(&talk, &data), &open);
    });
}

#[test]
fn resets_end_a_flow() {
    with_bench(|bench| {
        for by_client in [true, false] {
            bench.reset();
            let talk = Conversation::with(PLAIN).established(bench);
            let closed =
                |expected: Expected| expected.flow(talk.key(), Table::Plain, state::CLOSED);
            if by_client {
                let reset = talk.client(0, 0).with(bit::RST);
                let expected = closed(steered(&talk, &reset));
                check(bench, &from_client(&talk, &reset), &expected);
            } else {
                let reset = talk.replica(0, 0, 0).with(bit::RST);
                let expected = closed(delivered(&talk, &reset));
                check(bench, &from_instance(&talk, &reset), &expected);
            }
        }
    });
}

#[test]
fn another_instance_does_not_speak_for_it() {
    with_bench(|bench| {
        let talk = Conversation::with(PLAIN).established(bench);
        let data = talk.replica(0, 0, 0).with_payload(b"false");
        let foreign = Input::from_instance(B, talk.of_instance(0).tcp(&data));
        check(
            bench,
            &foreign,
            &Expected::drop(Reason::NotReplica).heard(B),
        );
    });
}

#[test]
fn a_dead_instance_is_answered_for_with_a_reset() {
    with_bench(|bench| {
        for talk in everywhere(PLAIN) {
            bench.reset();
            let talk = talk.established(bench);
            bench
                .tables
                .change(A, |entry| entry.state = instance::state::DEAD);
            let reset = Tcp {
                flags: bit::RST,
                seq: canonical_seq(0, 0),
                ack: CLIENT_ISN.wrapping_add(1 + 4),
                ..Tcp::default()
            };
            let turned = Expected::turned(Reason::ResetSent, talk.outbound().tcp(&reset));
            let turned = turned.flow(talk.key(), Table::Plain, state::CLOSED);
            let data = talk.client(0, 0).with_payload(b"data");
            check(bench, &from_client(&talk, &data), &turned);
            // A reset is not answered.
            let reset = talk.client(4, 0).with(bit::RST);
            let dropped = Expected::drop(Reason::NoReplica);
            check(bench, &from_client(&talk, &reset), &dropped);
        }
    });
}

#[test]
fn a_frame_with_padding_is_measured_by_its_ip_header() {
    with_bench(|bench| {
        for family in Family::ALL {
            bench.reset();
            let talk = Conversation {
                timestamps: false,
                ..Conversation::new(PLAIN, family)
            };
            let talk = talk.established(bench);
            let pad = |mut frame: Vec<u8>| {
                frame.extend([0xaa; 26]);
                frame
            };
            let ack = talk.client(0, 0);
            let through = Expected::steered(A, pad(talk.to_instance(0).tcp(&ack)));
            let padded = Input::from_client(pad(talk.inbound().tcp(&ack)));
            check(bench, &padded, &through);
            bench
                .tables
                .change(A, |entry| entry.state = instance::state::DEAD);
            let reset = Tcp {
                flags: bit::RST,
                seq: ISN[0].wrapping_add(1),
                ack: CLIENT_ISN.wrapping_add(1),
                ..Tcp::default()
            };
            let turned = Expected::turned(Reason::ResetSent, talk.outbound().tcp(&reset));
            check(bench, &padded, &turned);
        }
    });
}

#[test]
fn a_full_table_is_steered_without() {
    with_bench(|bench| {
        for vni in [PLAIN, WEB] {
            bench.reset();
            let talk = Conversation::with(vni);
            talk.open(bench);
            talk.answer(bench);
            fill(bench, &talk);
            let ack = talk.client(0, 0);
            let expected = steered(&talk, &ack).and(Reason::FlowTableFull).flow(
                talk.key(),
                Table::HalfOpen,
                state::ESTABLISHED,
            );
            check(bench, &from_client(&talk, &ack), &expected);
            // The flow goes on by its hash, with an entry among those that come and go, or without one.
            let data = talk.client(0, 0).with_payload(b"data");
            check(bench, &from_client(&talk, &data), &steered(&talk, &data));
            let answer = talk.replica(0, 0, 4);
            let expected = delivered(&talk, &answer);
            let expected = expected.flow(talk.key(), Table::HalfOpen, state::ESTABLISHED);
            check(bench, &from_instance(&talk, &answer), &expected);
            bench.tables.half_open.remove(&talk.key()).unwrap();
            let expected = Expected::pass(Reason::ReturnWithoutFlow).heard(A);
            check(bench, &from_instance(&talk, &answer), &expected);
            let expected = steered(&talk, &data).and(Reason::NoFlow);
            check(bench, &from_client(&talk, &data), &expected);
        }
    });
}

/// Fills the tables of established flows with other flows.
fn fill(bench: &mut crate::bench::Bench, talk: &Conversation) {
    let (_, flow): (_, Flow) = bench.tables.find(&talk.key()).unwrap();
    let tcp = bench.tables.half_open.get(&talk.key(), 0).unwrap();
    for number in 0..FLOWS_MAX as u16 {
        let mut key = talk.key();
        (key.client_port, key.vni_port) = (number, 9);
        bench.tables.flows.insert(key, flow.plain, 0).unwrap();
        bench.tables.mirrored.insert(key, tcp, 0).unwrap();
    }
}

#[test]
fn a_missing_redirect_target_is_counted() {
    with_bench(|bench| {
        let talk = Conversation::with(PLAIN).established(bench);
        let ack = talk.client(0, 0);
        let data = talk.replica(0, 0, 0).with_payload(b"data");
        let link = bench.network.link(A);
        bench.tables.take_port(link);
        let lost = Expected::drop(Reason::NoPort).vital(A, Vital::Sent);
        check(bench, &from_client(&talk, &ack), &lost);
        bench.tables.give_port(link);
        check(bench, &from_client(&talk, &ack), &steered(&talk, &ack));
        let link = bench.network.vni_interface();
        bench.tables.take_port(link);
        let lost = Expected::drop(Reason::NoPort).heard(A);
        check(bench, &from_instance(&talk, &data), &lost);
        bench.tables.give_port(link);
        check(
            bench,
            &from_instance(&talk, &data),
            &delivered(&talk, &data),
        );
    });
}
