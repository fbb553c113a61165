//! Opening mirrored flows: the cloned SYN, the gated SYN-ACK, the ACK that establishes.

use mirror_common::ethernet::Addresses;
use mirror_common::event::{cause, kind};
use mirror_common::flow::state;
use mirror_common::instance;
use mirror_common::reason::{Cold, Reason};
use mirror_common::tcp::segment::bit;

use crate::bench::{Verdict, with_bench};
use crate::check::{Expected, Input, check};
use crate::conversation::{CLIENT_ISN, CLIENT_TS, Conversation, ISN, TS};
use crate::hosts::{
    A, B, FOUR, Family, IMPATIENT, INSTANCES, LEAVING, TABLELESS, UNPUBLISHED, WEB,
};
use crate::packet::{Tcp, Wrapping, nops};
use crate::tables::Table;

/// Each family in each wrapping.
fn everywhere(vni: crate::hosts::VniHost) -> impl Iterator<Item = Conversation> {
    Family::ALL.into_iter().flat_map(move |family| {
        Wrapping::ALL.into_iter().map(move |wrapping| Conversation {
            wrapping,
            ..Conversation::new(vni, family)
        })
    })
}

#[test]
fn a_syn_opens_a_half_open_flow_and_is_cloned() {
    with_bench(|bench| {
        for talk in everywhere(WEB).chain(everywhere(FOUR)) {
            bench.reset();
            let syn = Input::from_client(talk.inbound().tcp(&talk.syn()));
            let cloned = Expected::cloned(&talk.syn_copies());
            let half_open = cloned.flow(talk.key(), Table::HalfOpen, state::HANDSHAKE);
            check(bench, &syn, &half_open);
            let (_, flow) = bench.tables.find(&talk.key()).unwrap();
            let (client, host) = (crate::hosts::CLIENT_MAC, crate::hosts::HOST_MAC);
            assert_eq!(flow.addresses, Addresses::new(client, host));
            assert_eq!(flow.ifindex, bench.network.vni_interface());
            assert_eq!(usize::from(flow.replicas), talk.instances().len());
            // The client's own retransmission changes nothing.
            check(bench, &syn, &half_open);
        }
    });
}

#[test]
fn the_last_syn_ack_of_the_set_opens_the_connection() {
    with_bench(|bench| {
        for talk in everywhere(WEB).chain(everywhere(FOUR)) {
            bench.reset();
            talk.open(bench);
            let last = talk.instances().len() - 1;
            for (slot, &instance) in talk.instances().iter().enumerate() {
                let syn_ack = talk.of_instance(slot).tcp(&talk.syn_ack(slot));
                let expected = if slot == last {
                    let opened = talk.outbound().tcp(&talk.syn_ack(0));
                    Expected::to_client(Reason::Delivered, opened).flow(
                        talk.key(),
                        Table::HalfOpen,
                        state::ANSWERED,
                    )
                } else {
                    Expected::drop(Reason::SynAckHeld).flow(
                        talk.key(),
                        Table::HalfOpen,
                        state::HANDSHAKE,
                    )
                };
                let expected = expected.heard(instance);
                check(bench, &Input::from_instance(instance, syn_ack), &expected);
            }
        }
    });
}

#[test]
fn a_mirror_may_answer_first() {
    with_bench(|bench| {
        for talk in everywhere(WEB) {
            bench.reset();
            talk.open(bench);
            let mirror = talk.of_instance(1).tcp(&talk.syn_ack(1));
            let held = Expected::drop(Reason::SynAckHeld).heard(B);
            check(bench, &Input::from_instance(B, mirror), &held);
            let primary = talk.of_instance(0).tcp(&talk.syn_ack(0));
            let opened = talk.outbound().tcp(&talk.syn_ack(0));
            let expected = Expected::to_client(Reason::Delivered, opened).heard(A);
            check(bench, &Input::from_instance(A, primary), &expected);
        }
    });
}

#[test]
fn only_the_right_acknowledgement_establishes() {
    with_bench(|bench| {
        for talk in everywhere(WEB) {
            bench.reset();
            talk.open(bench);
            let refused = |state| {
                let dropped = Expected::drop(Reason::BadHandshakeAck);
                dropped.flow(talk.key(), Table::HalfOpen, state)
            };
            let ack = |ack: u32| {
                let segment = Tcp {
                    ack,
                    ..talk.client(0, 0)
                };
                Input::from_client(talk.inbound().tcp(&segment))
            };
            let right = ISN[0].wrapping_add(1);
            check(bench, &ack(right), &refused(state::HANDSHAKE));
            talk.answer(bench);
            for wrong in [right - 1, right + 1, ISN[1].wrapping_add(1), 0] {
                check(bench, &ack(wrong), &refused(state::ANSWERED));
            }
            let without_ack = Tcp {
                flags: bit::PSH,
                ..talk.client(0, 0)
            };
            let without_ack = Input::from_client(talk.inbound().tcp(&without_ack));
            check(bench, &without_ack, &refused(state::ANSWERED));
            let established = Expected::cloned(&talk.copies(0))
                .and(Reason::FlowOpened)
                .event(kind::FLOW_OPENED, 0, 0, A)
                .warm(B)
                .flow(talk.key(), Table::Mirrored, state::ESTABLISHED);
            check(bench, &ack(right), &established);
        }
    });
}

#[test]
fn another_syn_begins_another_flow() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB);
        talk.open(bench);
        talk.answer(bench);
        let other = Tcp {
            seq: CLIENT_ISN.wrapping_add(100_000),
            ..talk.syn()
        };
        let anew = Expected::cloned(&talk.syn_copies());
        let anew = anew.flow(talk.key(), Table::HalfOpen, state::HANDSHAKE);
        check(
            bench,
            &Input::from_client(talk.inbound().tcp(&other)),
            &anew,
        );
        let late = talk.of_instance(0).tcp(&talk.syn_ack(0));
        // The replica holds the connection that the client gave up.
        let bad = Expected::turned(Reason::ColdReset, talk.cold_reset(0, 0)).heard(A);
        check(bench, &Input::from_instance(A, late), &bad);
    });
}

#[test]
fn a_refused_connection_goes_to_the_mirror_that_accepts_it() {
    with_bench(|bench| {
        let mut talk = Conversation::with(WEB);
        talk.open(bench);
        let reset = |slot: usize| {
            let segment = Tcp {
                flags: bit::RST | bit::ACK,
                ack: CLIENT_ISN.wrapping_add(1),
                ..Tcp::default()
            };
            let frame = talk.of_instance(slot).tcp(&segment);
            Input::from_instance(talk.instances()[slot], frame)
        };
        let held = Expected::drop(Reason::ResetHeld)
            .heard(A)
            .takeover(cause::REFUSED, A, B)
            .cold(A, Cold::Refused);
        check(bench, &reset(0), &held);
        let refused_by_all = reset(1);
        talk.canonical = 1;
        let syn_ack = talk.syn_ack(1);
        let opened = talk.outbound().tcp(&syn_ack);
        let expected = Expected::to_client(Reason::Delivered, opened).heard(B);
        let accepted = Input::from_instance(B, talk.of_instance(1).tcp(&syn_ack));
        check(bench, &accepted, &expected);

        // Refused by all: the client is told.
        bench.reset();
        talk.open(bench);
        let primary = Tcp {
            flags: bit::RST | bit::ACK,
            ack: CLIENT_ISN.wrapping_add(1),
            ..Tcp::default()
        };
        talk.replica_sends(bench, 0, &primary, Verdict::Drop);
        let told = Expected::to_client(Reason::Delivered, talk.outbound().tcp(&primary))
            .heard(B)
            .cold(B, Cold::Refused)
            .closed(B)
            .flow(talk.key(), Table::HalfOpen, state::CLOSED);
        check(bench, &refused_by_all, &told);
    });
}

#[test]
fn a_mirror_is_waited_for_so_long_only() {
    with_bench(|bench| {
        let talk = Conversation::with(IMPATIENT);
        talk.open(bench);
        let first = Input::from_instance(A, talk.of_instance(0).tcp(&talk.syn_ack(0)));
        let opened = talk.outbound().tcp(&talk.syn_ack(0));
        let opened = Expected::to_client(Reason::Delivered, opened).heard(A);
        check(bench, &first, &opened);
        // In time for the client's first byte, it may still join.
        let late = Input::from_instance(B, talk.of_instance(1).tcp(&talk.syn_ack(1)));
        let joined = Expected::drop(Reason::MirrorSuppressed).heard(B);
        check(bench, &late, &joined);

        bench.reset();
        talk.open(bench);
        talk.replica_sends(bench, 0, &talk.syn_ack(0), Verdict::Redirect);
        let data = talk.client(0, 0).with_payload(b"hello");
        let alone = Expected::cloned(&talk.copies(0)[..1])
            .and(Reason::FlowOpened)
            .event(kind::FLOW_OPENED, 0, 0, A)
            .cold(B, Cold::HandshakeMissed);
        check(
            bench,
            &Input::from_client(talk.inbound().tcp(&data)),
            &alone,
        );
        let late_for_good = Expected::turned(Reason::ColdReset, talk.cold_reset(1, 0)).heard(B);
        check(bench, &late, &late_for_good);
    });
}

#[test]
fn a_replica_with_other_options_is_cold() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB);
        let bare = Conversation {
            timestamps: false,
            ..talk.clone()
        };
        talk.open(bench);
        talk.replica_sends(bench, 0, &talk.syn_ack(0), Verdict::Drop);
        let other = Input::from_instance(B, bare.of_instance(1).tcp(&bare.syn_ack(1)));
        let cold = Expected::drop(Reason::SynAckHeld)
            .heard(B)
            .cold(B, Cold::OptionMismatch);
        check(bench, &other, &cold);
        let again = Input::from_instance(A, talk.of_instance(0).tcp(&talk.syn_ack(0)));
        let opened = talk.outbound().tcp(&talk.syn_ack(0));
        check(
            bench,
            &again,
            &Expected::to_client(Reason::Delivered, opened).heard(A),
        );
    });
}

#[test]
fn what_cannot_be_translated_is_steered_alone() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB);
        let md5: Vec<u8> = [19, 18].into_iter().chain([9; 16]).chain([1, 1]).collect();
        let ao: Vec<u8> = [29, 16].into_iter().chain([9; 14]).collect();
        let mptcp = vec![30, 4, 1, 1];
        let syns = [
            talk.syn().with_options(md5),
            talk.syn().with_options(ao),
            talk.syn().with_options(mptcp),
            talk.syn().with_payload(b"fast open"),
        ];
        for syn in syns {
            bench.reset();
            let alone = Expected::steered(A, talk.to_instance(0).tcp(&syn));
            let alone = alone.flow(talk.key(), Table::HalfOpen, state::HANDSHAKE);
            check(bench, &Input::from_client(talk.inbound().tcp(&syn)), &alone);
            let (_, flow) = bench.tables.find(&talk.key()).unwrap();
            assert_eq!(flow.cold, Cold::Untranslatable as u8);
            assert_eq!(flow.replicas, 1);
        }
    });
}

#[test]
fn odd_option_lists_are_read() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB);
        let timestamps = [8, 10, 0, 1, 134, 160, 0, 0, 0, 0];
        let rows: [(Vec<u8>, bool); 6] = [
            (nops(12), true),
            // Ends early; what follows is padding.
            (vec![0, 8, 1, 1], true),
            ([&nops(10)[..], &timestamps].concat(), true),
            // Lengths that lead nowhere.
            (vec![8, 0, 1, 1], false),
            (vec![8, 1, 1, 1], false),
            (vec![1, 1, 8, 10], false),
        ];
        for (options, sound) in rows {
            bench.reset();
            let syn = talk.syn().with_options(options);
            let expected = match sound {
                true => Expected::cloned(&talk.syn_copies()),
                false => Expected::refuse(Reason::Malformed),
            };
            check(
                bench,
                &Input::from_client(talk.inbound().tcp(&syn)),
                &expected,
            );
        }
    });
}

#[test]
fn a_vni_without_a_set_opens_nothing() {
    with_bench(|bench| {
        for vni in [TABLELESS, UNPUBLISHED] {
            for family in Family::ALL {
                let talk = Conversation::new(vni, family);
                let frame = |segment: &Tcp| Input::from_client(talk.inbound().tcp(segment));
                let refused = Expected::refuse(Reason::NoReplicaSet);
                check(bench, &frame(&talk.syn()), &refused);
                let refused = Expected::refuse(Reason::NoReplicaSet).and(Reason::NoFlow);
                check(bench, &frame(&talk.client(0, 0)), &refused);
            }
        }
    });
}

#[test]
fn a_segment_of_no_flow_goes_to_its_primary() {
    with_bench(|bench| {
        for talk in everywhere(WEB) {
            bench.reset();
            let segment = talk.client(5, 5).with_payload(b"stray");
            let steered = Expected::steered(A, talk.to_instance(0).tcp(&segment))
                .and(Reason::NoFlow)
                .flow(talk.key(), Table::HalfOpen, state::ESTABLISHED);
            let stray = Input::from_client(talk.inbound().tcp(&segment));
            check(bench, &stray, &steered);
        }
    });
}

#[test]
fn a_syn_that_says_something_else_too_opens_nothing() {
    with_bench(|bench| {
        for family in Family::ALL {
            let talk = Conversation::new(WEB, family);
            for more in [bit::FIN, bit::RST, bit::ACK, bit::FIN | bit::RST | bit::ACK] {
                let segment = talk.syn().with(more);
                let steered = Expected::steered(A, talk.to_instance(0).tcp(&segment))
                    .and(Reason::NoFlow)
                    .no_flow(talk.key());
                let strange = Input::from_client(talk.inbound().tcp(&segment));
                check(bench, &strange, &steered);
            }
        }
    });
}

#[test]
fn a_dead_primary_opens_nothing() {
    with_bench(|bench| {
        for family in Family::ALL {
            bench.reset();
            let talk = Conversation::new(WEB, family);
            bench
                .tables
                .change(A, |entry| entry.state = instance::state::DEAD);
            let moved = Expected::cloned(&talk.syn_copies()[1..]).takeover(cause::DEAD, A, B);
            let syn = Input::from_client(talk.inbound().tcp(&talk.syn()));
            check(bench, &syn, &moved);
            let opened = Conversation {
                canonical: 1,
                ..talk.clone()
            };
            let expected = opened.outbound().tcp(&opened.syn_ack(1));
            let syn_ack = Input::from_instance(B, talk.of_instance(1).tcp(&talk.syn_ack(1)));
            check(
                bench,
                &syn_ack,
                &Expected::to_client(Reason::Delivered, expected).heard(B),
            );
        }
    });
}

#[test]
fn a_set_of_dead_instances_answers_with_a_reset() {
    with_bench(|bench| {
        for talk in everywhere(WEB) {
            bench.reset();
            for instance in INSTANCES {
                bench
                    .tables
                    .change(instance, |entry| entry.state = instance::state::DEAD);
            }
            let reset = Tcp {
                flags: bit::RST | bit::ACK,
                ack: CLIENT_ISN.wrapping_add(1),
                ..Tcp::default()
            };
            let turned = Expected::turned(Reason::ResetSent, talk.outbound().tcp(&reset)).closed(A);
            let syn = Input::from_client(talk.inbound().tcp(&talk.syn()));
            check(bench, &syn, &turned);
        }
        bench.reset();
        let talk = Conversation::with(LEAVING);
        for instance in INSTANCES {
            bench
                .tables
                .change(instance, |entry| entry.state = instance::state::DEAD);
        }
        let syn = Input::from_client(talk.inbound().tcp(&talk.syn()));
        check(bench, &syn, &Expected::drop(Reason::NoReplica));
    });
}

#[test]
fn timestamps_of_the_handshake_are_the_ones_the_client_echoes() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB).established(bench);
        let flow = bench.tables.mirrored.get(&talk.key(), 0).unwrap();
        assert_eq!(flow.sync.isn, ISN[0]);
        assert_eq!(flow.sync.client_ts, CLIENT_TS);
        let offset = TS[1].wrapping_sub(TS[0]);
        assert_eq!(flow.sync.replicas[1].ts_offset, offset);
    });
}
