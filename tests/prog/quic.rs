//! QUIC: who has said an id is found by it from any address, nobody else is, and nothing that is said evicts a flow.

use std::net::SocketAddr;

use mirror_common::flow::{FlowKey, protocol, state};
use mirror_common::instance;
use mirror_common::reason::Reason;
use mirror_common::replica_set::ReplicaSet;

use crate::bench::{Bench, Program, with_bench};
use crate::check::{Expected, Input, PlannedCopy, check};
use crate::conversation::Conversation;
use crate::hosts::{A, B, C, D, Family, QUIC, QUIC_PORT, Steering, VniHost, WEB};
use crate::packet::Wrapping;
use crate::tables::{FLOWS_MAX, Table};

/// What A says of itself.
pub(crate) const ID: &[u8] = b"of instance a";
const OTHER_ID: &[u8] = b"of instance b";
const CLIENT_ID: &[u8] = b"client's";
const FIRST_ID: &[u8] = b"of client";

/// A connection of a client of the VNI's own table.
pub(crate) fn talk(family: Family) -> Conversation {
    on_port(QUIC, family, QUIC_PORT)
}

fn on_port(vni: VniHost, family: Family, port: u16) -> Conversation {
    let mut talk = Conversation::new(vni, family);
    talk.server.set_port(port);
    talk
}

/// The same client at another place, whose new flows go to C and D.
pub(crate) fn moved(talk: &Conversation, number: u8) -> Conversation {
    Conversation {
        client: SocketAddr::new(talk.family.elsewhere(number), 50_000),
        ..talk.clone()
    }
}

fn header(version: u32, destination: &[u8], source: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xe3];
    bytes.extend(version.to_be_bytes());
    for id in [destination, source] {
        bytes.push(id.len() as u8);
        bytes.extend(id);
    }
    bytes.extend([0x11; 40]);
    bytes
}

/// A packet with a long header.
pub(crate) fn long(destination: &[u8], source: &[u8]) -> Vec<u8> {
    header(1, destination, source)
}

/// A packet with a short header.
pub(crate) fn short(destination: &[u8]) -> Vec<u8> {
    [&[0x41], destination, &[0x22; 24]].concat()
}

fn key(talk: &Conversation) -> FlowKey {
    talk.key_for(protocol::UDP, talk.client.port(), talk.server.port())
}

fn everywhere() -> impl Iterator<Item = Conversation> {
    Family::ALL.into_iter().flat_map(|family| {
        Wrapping::ALL.into_iter().map(move |wrapping| Conversation {
            wrapping,
            ..talk(family)
        })
    })
}

fn copies(instances: &[u16]) -> Expected {
    let copy = |&instance| PlannedCopy {
        instance,
        ack: 0,
        ts_ecr: 0,
    };
    Expected::cloned(&instances.iter().map(copy).collect::<Vec<_>>())
}

/// A client's datagram opens a flow that goes to these.
#[track_caller]
fn check_opened(bench: &mut Bench, talk: &Conversation, payload: &[u8], instances: &[u16]) {
    let opened = copies(instances).and(Reason::FlowOpened);
    let opened = opened.flow(key(talk), Table::Datagram, state::ESTABLISHED);
    let input = Input::from_client(talk.inbound().udp(payload));
    check(bench, &input, &opened);
}

/// A client's datagram opens a flow that goes to where its connection is known.
#[track_caller]
fn check_followed(bench: &mut Bench, talk: &Conversation, payload: &[u8]) {
    let followed = copies(&[A, B])
        .and(Reason::FlowOpened)
        .and(Reason::QuicFollowed);
    let followed = followed.flow(key(talk), Table::Datagram, state::ESTABLISHED);
    let input = Input::from_client(talk.inbound().udp(payload));
    check(bench, &input, &followed);
}

/// An answer of the active replica reaches the client.
#[track_caller]
fn check_delivered(bench: &mut Bench, talk: &Conversation, instance: u16, payload: &[u8]) {
    let slot = talk
        .instances()
        .iter()
        .position(|&i| i == instance)
        .unwrap();
    let answer = Input::from_instance(instance, talk.of_instance(slot).udp(payload));
    let delivered = talk.outbound().udp(payload);
    let delivered = Expected::to_client(Reason::Delivered, delivered).heard(instance);
    check(bench, &answer, &delivered);
}

/// A handshake in which A says [`ID`] and its mirror another one.
#[track_caller]
fn shake_hands(bench: &mut Bench, talk: &Conversation) {
    check_opened(bench, talk, &long(FIRST_ID, CLIENT_ID), &[A, B]);
    let of_mirror = talk.of_instance(1).udp(&long(CLIENT_ID, OTHER_ID));
    let suppressed = Expected::drop(Reason::MirrorSuppressed).heard(B);
    check(bench, &Input::from_instance(B, of_mirror), &suppressed);
    check_delivered(bench, talk, A, &long(CLIENT_ID, ID));
}

#[test]
fn a_client_is_followed_by_what_its_instance_said() {
    with_bench(|bench| {
        for talk in everywhere() {
            bench.reset();
            shake_hands(bench, &talk);
            let places = [1, 2, 3, 4].map(|number| moved(&talk, number));
            for (place, payload) in places.iter().zip([
                short(ID),
                // Without the bit that is fixed until both ends agree that it is not.
                [&[0x01], &short(ID)[1..]].concat(),
                // The last packets of the handshake.
                long(ID, CLIENT_ID),
                // No client says this, and nobody is harmed.
                header(0, ID, CLIENT_ID),
            ]) {
                check_followed(bench, place, &payload);
                check_delivered(bench, place, A, &short(CLIENT_ID));
                // Known by its address from here on.
                let known =
                    Input::from_client(place.inbound().udp(&short(b"whatever it says now")));
                check(bench, &known, &copies(&[A, B]));
            }
        }
    });
}

#[test]
fn the_replica_that_said_it_stays_active() {
    with_bench(|bench| {
        for talk in everywhere() {
            bench.reset();
            // B is active when the connection begins.
            bench
                .tables
                .change(A, |entry| entry.state = instance::state::DEAD);
            let first = Input::from_client(talk.inbound().udp(&long(FIRST_ID, CLIENT_ID)));
            let opened = copies(&[B]).and(Reason::FlowOpened);
            let cause = mirror_common::event::cause::DEAD;
            check(bench, &first, &opened.takeover(cause, A, B));
            check_delivered(bench, &talk, B, &long(CLIENT_ID, OTHER_ID));
            bench
                .tables
                .change(A, |entry| entry.state = instance::state::UP);
            let moved = moved(&talk, 1);
            check_followed(bench, &moved, &short(OTHER_ID));
            check_delivered(bench, &moved, B, &short(CLIENT_ID));
            let of_mirror = moved.of_instance(0).udp(&short(CLIENT_ID));
            let suppressed = Expected::drop(Reason::MirrorSuppressed).heard(A);
            check(bench, &Input::from_instance(A, of_mirror), &suppressed);
        }
    });
}

#[test]
fn what_no_instance_said_is_steered_by_its_hash() {
    with_bench(|bench| {
        for talk in everywhere() {
            bench.reset();
            shake_hands(bench, &talk);
            let payloads = [
                // The client's own choice, and what the mirror said.
                long(FIRST_ID, CLIENT_ID),
                short(OTHER_ID),
                long(OTHER_ID, CLIENT_ID),
                // Nearly.
                short(&ID[1..]),
                long(&ID[..ID.len() - 1], CLIENT_ID),
                long(&[ID, b"x"].concat(), CLIENT_ID),
                // No QUIC.
                b"question".to_vec(),
                vec![0xff; 60],
                vec![0; 60],
            ];
            for (number, payload) in payloads.iter().enumerate() {
                check_opened(bench, &moved(&talk, number as u8), payload, &[C, D]);
            }
        }
    });
}

#[test]
fn only_what_an_instance_chose_is_learnt() {
    with_bench(|bench| {
        let payloads = [
            // Version negotiation repeats what the client said.
            header(0, CLIENT_ID, FIRST_ID),
            long(CLIENT_ID, b""),
            long(CLIENT_ID, b"abc"),
            long(CLIENT_ID, &[7; 21]),
            short(CLIENT_ID),
            b"an answer of something else".to_vec(),
            vec![0xff; 60],
        ];
        for talk in everywhere() {
            bench.reset();
            check_opened(bench, &talk, &long(FIRST_ID, CLIENT_ID), &[A, B]);
            for payload in &payloads {
                check_delivered(bench, &talk, A, payload);
            }
            assert_eq!(bench.tables.quic_ids.keys().count(), 0);
            assert_eq!(
                bench
                    .tables
                    .quic
                    .get(&QUIC.number.into(), 0)
                    .unwrap()
                    .lengths,
                0
            );
            check_delivered(bench, &talk, A, &long(CLIENT_ID, ID));
            assert_eq!(bench.tables.quic_ids.keys().count(), 1);
        }
        // Another port, and another VNI.
        for (vni, port) in [(QUIC, 53), (WEB, QUIC_PORT)] {
            bench.reset();
            let talk = on_port(vni, Family::V4, port);
            check_opened(bench, &talk, &long(FIRST_ID, CLIENT_ID), &[A, B]);
            check_delivered(bench, &talk, A, &long(CLIENT_ID, ID));
            assert_eq!(bench.tables.quic_ids.keys().count(), 0);
        }
        // An id that is known, on a port where there is no QUIC.
        bench.reset();
        shake_hands(bench, &talk(Family::V4));
        let other = moved(&on_port(QUIC, Family::V4, 53), 1);
        check_opened(bench, &other, &short(ID), &[C, D]);
    });
}

#[test]
fn who_said_an_id_first_keeps_it_while_it_is_there() {
    with_bench(|bench| {
        for talk in everywhere() {
            bench.reset();
            shake_hands(bench, &talk);
            let others = Conversation {
                vni: VniHost {
                    steering: Steering::Set(&[C, D]),
                    ..QUIC
                },
                ..moved(&talk, 1)
            };
            check_opened(bench, &others, &long(FIRST_ID, CLIENT_ID), &[C, D]);
            check_delivered(bench, &others, C, &long(CLIENT_ID, ID));
            check_followed(bench, &moved(&talk, 2), &short(ID));
            // Whose connection was at an instance that is gone is told so by whoever gets it.
            bench
                .tables
                .change(A, |entry| entry.state = instance::state::DEAD);
            check_opened(bench, &moved(&talk, 3), &short(ID), &[C, D]);
            check_delivered(bench, &others, C, &long(CLIENT_ID, ID));
            let followed = copies(&[C, D])
                .and(Reason::FlowOpened)
                .and(Reason::QuicFollowed);
            let back = Conversation {
                client: SocketAddr::new(talk.family.client(9), 50_000),
                ..talk.clone()
            };
            let input = Input::from_client(back.inbound().udp(&short(ID)));
            check(bench, &input, &followed);
        }
    });
}

#[test]
fn a_set_that_is_gone_leaves_the_instance() {
    with_bench(|bench| {
        for talk in everywhere() {
            bench.reset();
            shake_hands(bench, &talk);
            let (_, flow) = bench.tables.find(&key(&talk)).unwrap();
            let other = ReplicaSet {
                instances: [C, A, 0, 0],
                replicas: 2,
                pad: [0; 7],
            };
            let was = bench.tables.replace_set(flow.set, other);
            let moved = moved(&talk, 1);
            let payload = short(ID);
            let steered = Expected::steered(A, moved.to_instance(0).udp(&payload))
                .and(Reason::FlowOpened)
                .and(Reason::QuicFollowed);
            let input = Input::from_client(moved.inbound().udp(&payload));
            check(bench, &input, &steered);
            check_delivered(bench, &moved, A, &short(CLIENT_ID));
            bench.tables.replace_set(flow.set, was);
        }
    });
}

#[test]
fn what_is_cut_short_is_not_read() {
    with_bench(|bench| {
        for talk in everywhere() {
            bench.reset();
            shake_hands(bench, &talk);
            for (number, payload, least) in
                [(0, short(ID), 1 + 20), (100, long(ID, CLIENT_ID), 6 + 20)]
            {
                for length in 0..payload.len() {
                    let moved = moved(&talk, number + length as u8);
                    let cut = &payload[..length];
                    if length < least {
                        check_opened(bench, &moved, cut, &[C, D]);
                    } else {
                        check_followed(bench, &moved, cut);
                    }
                }
            }
            // The frame goes on where the packet ends.
            let moved = moved(&talk, 200);
            let padded = [
                moved.inbound().udp(&short(ID)[..20]),
                short(ID)[20..].to_vec(),
            ]
            .concat();
            let opened = copies(&[C, D]).and(Reason::FlowOpened);
            check(bench, &Input::from_client(padded), &opened);
        }
    });
}

#[test]
fn a_flood_of_ids_evicts_no_flow() {
    with_bench(|bench| {
        let talk = talk(Family::V4);
        shake_hands(bench, &talk);
        let known: Vec<_> = (1..100).map(|number| moved(&talk, number)).collect();
        for known in &known {
            check_opened(bench, known, b"question", &[C, D]);
        }
        let flows = bench.tables.snapshot().unwrap().len();
        let link = bench.network.link(A);
        for number in 0..4 * FLOWS_MAX {
            let id = [&number.to_be_bytes()[..], b"said"].concat();
            let frame = talk.of_instance(0).udp(&long(CLIENT_ID, &id));
            bench.run(Program::InstanceReturn, link, &frame);
        }
        assert!(bench.tables.quic_ids.keys().count() <= FLOWS_MAX as usize);
        assert_eq!(bench.tables.snapshot().unwrap().len(), flows);
        for known in &known {
            assert!(bench.tables.find(&key(known)).is_some());
        }
        // The last one said is known.
        let last = (4 * FLOWS_MAX - 1).to_be_bytes();
        let id = [&last[..], b"said"].concat();
        check_followed(bench, &moved(&talk, 200), &short(&id));
    });
}
