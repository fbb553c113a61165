//! UDP and ICMP echo: the same steering and cloning, mirrors suppressed, nothing to translate.

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type};
use mirror_common::event::cause;
use mirror_common::flow::{FlowKey, protocol, state};
use mirror_common::instance;
use mirror_common::reason::Reason;

use crate::bench::with_bench;
use crate::check::{Expected, Input, check};
use crate::conversation::Conversation;
use crate::hosts::{A, B, C, FOUR, Family, PLAIN, TABLELESS, VniHost, WEB};
use crate::packet::{Envelope, Wrapping};
use crate::tables::Table;

const IDENTIFIER: u16 = 0xbeef;

/// A question and its answer.
#[derive(Clone, Copy, Debug)]
enum Exchange {
    Udp,
    Echo,
}

impl Exchange {
    fn ask(self, envelope: Envelope) -> Vec<u8> {
        let echo = echo(1);
        match self {
            Self::Udp => envelope.udp(b"question"),
            Self::Echo => envelope.icmp(
                Icmpv4Type::EchoRequest(echo),
                Icmpv6Type::EchoRequest(echo),
                b"ping",
            ),
        }
    }

    fn answer(self, envelope: Envelope) -> Vec<u8> {
        let echo = echo(1);
        match self {
            Self::Udp => envelope.udp(b"answer"),
            Self::Echo => envelope.icmp(
                Icmpv4Type::EchoReply(echo),
                Icmpv6Type::EchoReply(echo),
                b"ping",
            ),
        }
    }

    fn key(self, talk: &Conversation) -> FlowKey {
        match self {
            Self::Udp => talk.key_for(protocol::UDP, talk.client.port(), talk.server.port()),
            Self::Echo if talk.client.is_ipv4() => talk.key_for(protocol::ICMP, IDENTIFIER, 0),
            Self::Echo => talk.key_for(protocol::ICMPV6, IDENTIFIER, 0),
        }
    }
}

fn echo(seq: u16) -> IcmpEchoHeader {
    IcmpEchoHeader {
        id: IDENTIFIER,
        seq,
    }
}

fn everywhere(vni: VniHost) -> impl Iterator<Item = (Conversation, Exchange)> {
    Family::ALL.into_iter().flat_map(move |family| {
        Wrapping::ALL.into_iter().flat_map(move |wrapping| {
            [Exchange::Udp, Exchange::Echo].map(|exchange| {
                let talk = Conversation {
                    wrapping,
                    ..Conversation::new(vni, family)
                };
                (talk, exchange)
            })
        })
    })
}

#[test]
fn questions_are_cloned_and_one_answer_passes() {
    with_bench(|bench| {
        for (talk, exchange) in everywhere(WEB).chain(everywhere(FOUR)) {
            bench.reset();
            let key = exchange.key(&talk);
            let question = Input::from_client(exchange.ask(talk.inbound()));
            let cloned = Expected::cloned(&talk.syn_copies());
            let cloned = cloned.flow(key, Table::Datagram, state::ESTABLISHED);
            let opened = cloned.clone().and(Reason::FlowOpened);
            check(bench, &question, &opened);
            check(bench, &question, &cloned);
            for (slot, &instance) in talk.instances().iter().enumerate() {
                let answer = exchange.answer(talk.of_instance(slot));
                let expected = if slot == 0 {
                    let delivered = exchange.answer(talk.outbound());
                    Expected::to_client(Reason::Delivered, delivered)
                } else {
                    Expected::drop(Reason::MirrorSuppressed)
                };
                let expected = expected.heard(instance);
                check(bench, &Input::from_instance(instance, answer), &expected);
            }
        }
    });
}

#[test]
fn a_vni_without_mirrors_steers() {
    with_bench(|bench| {
        for (talk, exchange) in everywhere(PLAIN) {
            bench.reset();
            let question = Input::from_client(exchange.ask(talk.inbound()));
            let steered = Expected::steered(A, exchange.ask(talk.to_instance(0)))
                .and(Reason::FlowOpened)
                .flow(exchange.key(&talk), Table::Datagram, state::ESTABLISHED);
            check(bench, &question, &steered);
        }
        for (talk, exchange) in everywhere(TABLELESS) {
            let question = Input::from_client(exchange.ask(talk.inbound()));
            check(bench, &question, &Expected::refuse(Reason::NoReplicaSet));
        }
    });
}

#[test]
fn only_answers_of_known_flows_pass() {
    with_bench(|bench| {
        for (talk, exchange) in everywhere(WEB) {
            bench.reset();
            let answer = || exchange.answer(talk.of_instance(0));
            let unknown = Expected::drop(Reason::ReturnWithoutFlow).heard(A);
            check(bench, &Input::from_instance(A, answer()), &unknown);
            let ingress = bench.network.vni_interface();
            let question = exchange.ask(talk.inbound());
            bench.run(crate::bench::Program::VniIngress, ingress, &question);
            let foreign = Expected::drop(Reason::MirrorSuppressed).heard(C);
            check(bench, &Input::from_instance(C, answer()), &foreign);
        }
    });
}

#[test]
fn datagram_flows_leave_dead_and_evacuated_instances() {
    with_bench(|bench| {
        for (talk, exchange) in everywhere(WEB) {
            let rows = [
                (instance::state::DEAD, cause::DEAD, 1..2),
                (instance::state::EVACUATING, cause::EVACUATED, 0..2),
            ];
            for (state, cause, copies) in rows {
                bench.reset();
                let question = Input::from_client(exchange.ask(talk.inbound()));
                let opened = Expected::cloned(&talk.syn_copies()).and(Reason::FlowOpened);
                check(bench, &question, &opened);
                bench.tables.change(A, |entry| entry.state = state);
                let moved = Expected::cloned(&talk.syn_copies()[copies]);
                check(bench, &question, &moved.takeover(cause, A, B));
                let old = Input::from_instance(A, exchange.answer(talk.of_instance(0)));
                let suppressed = Expected::drop(Reason::MirrorSuppressed).heard(A);
                check(bench, &old, &suppressed);
                let new = Input::from_instance(B, exchange.answer(talk.of_instance(1)));
                let delivered = exchange.answer(talk.outbound());
                let delivered = Expected::to_client(Reason::Delivered, delivered).heard(B);
                check(bench, &new, &delivered);
            }
            for instance in [A, B] {
                bench
                    .tables
                    .change(instance, |entry| entry.state = instance::state::DEAD);
            }
            let question = Input::from_client(exchange.ask(talk.inbound()));
            check(bench, &question, &Expected::drop(Reason::NoReplica));
        }
    });
}

#[test]
fn an_echo_goes_one_way_only() {
    with_bench(|bench| {
        for (talk, _) in everywhere(WEB) {
            let unknown = Expected::refuse(Reason::UnknownProtocol);
            let reply = Exchange::Echo.answer(talk.inbound());
            check(bench, &Input::from_client(reply), &unknown);
            let request = Exchange::Echo.ask(talk.of_instance(0));
            check(bench, &Input::from_instance(A, request), &unknown);
            // A timestamp request; a number for private experiments.
            let strange = |envelope: Envelope| {
                envelope.icmp(
                    Icmpv4Type::Unknown {
                        type_u8: 13,
                        code_u8: 0,
                        bytes5to8: [0; 4],
                    },
                    Icmpv6Type::Unknown {
                        type_u8: 200,
                        code_u8: 0,
                        bytes5to8: [0; 4],
                    },
                    &[0; 12],
                )
            };
            check(
                bench,
                &Input::from_client(strange(talk.inbound())),
                &unknown,
            );
            let from_instance = strange(talk.of_instance(0));
            check(bench, &Input::from_instance(A, from_instance), &unknown);
        }
    });
}

#[test]
fn a_frame_too_large_to_clone_goes_to_the_active_replica() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB);
        let large = vec![7; 3400];
        let question = Input::from_client(talk.inbound().udp(&large));
        let steered = Expected::steered(A, talk.to_instance(0).udp(&large))
            .and(Reason::FlowOpened)
            .and(Reason::TooLargeToClone);
        check(bench, &question, &steered);
    });
}
