//! Fragments of datagrams: each goes the way of its first one, or is dropped and counted.

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type};
use mirror_common::event::cause;
use mirror_common::flow::{FlowKey, protocol, state};
use mirror_common::fragment::WAIT_S;
use mirror_common::instance;
use mirror_common::reason::Reason;

use crate::bench::{Program, with_bench};
use crate::check::{Expected, Input, check};
use crate::conversation::Conversation;
use crate::hosts::{A, B, C, FOUR, Family, PLAIN, VniHost, WEB};
use crate::packet::{Envelope, Wrapping, ip_packet};
use crate::tables::{FLOWS_MAX, Table};

/// Bytes of a datagram behind the IP header, in each fragment but the last.
const UNIT: usize = 64;

/// A frame's datagram in fragments of [`UNIT`] bytes, the last one shorter. The frame has no options.
pub(crate) fn cut(frame: &[u8], id: u16) -> Vec<Vec<u8>> {
    let ip = frame.len() - ip_packet(frame).len();
    testbed::net::fragments::cut(frame, ip, UNIT, id)
}

#[derive(Clone, Copy, Debug)]
enum Exchange {
    Udp,
    Echo,
}

impl Exchange {
    /// A datagram of 200 bytes, in four fragments.
    fn ask(self, envelope: Envelope, id: u16) -> Vec<Vec<u8>> {
        let echo = IcmpEchoHeader { id: 7, seq: 1 };
        let (v4, v6) = (Icmpv4Type::EchoRequest(echo), Icmpv6Type::EchoRequest(echo));
        match self {
            Self::Udp => cut(&envelope.udp(&[b'q'; 192]), id),
            Self::Echo => cut(&envelope.icmp(v4, v6, &[b'q'; 192]), id),
        }
    }

    fn answer(self, envelope: Envelope, id: u16) -> Vec<Vec<u8>> {
        let echo = IcmpEchoHeader { id: 7, seq: 1 };
        let (v4, v6) = (Icmpv4Type::EchoReply(echo), Icmpv6Type::EchoReply(echo));
        match self {
            Self::Udp => cut(&envelope.udp(&[b'a'; 192]), id),
            Self::Echo => cut(&envelope.icmp(v4, v6, &[b'a'; 192]), id),
        }
    }

    fn key(self, talk: &Conversation) -> FlowKey {
        match self {
            Self::Udp => talk.key_for(protocol::UDP, talk.client.port(), talk.server.port()),
            Self::Echo if talk.client.is_ipv4() => talk.key_for(protocol::ICMP, 7, 0),
            Self::Echo => talk.key_for(protocol::ICMPV6, 7, 0),
        }
    }
}

fn everywhere(vni: VniHost) -> impl Iterator<Item = (Conversation, Exchange)> {
    Family::ALL.into_iter().flat_map(move |family| {
        let plain = [Wrapping::Plain, Wrapping::Vlan, Wrapping::DoubleVlan];
        plain.into_iter().flat_map(move |wrapping| {
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
fn fragments_of_a_mirrored_flow_are_cloned_and_one_answer_passes() {
    with_bench(|bench| {
        for (talk, exchange) in everywhere(WEB).chain(everywhere(FOUR)) {
            bench.reset();
            let cloned = Expected::cloned(&talk.syn_copies());
            let cloned = cloned.flow(exchange.key(&talk), Table::Datagram, state::ESTABLISHED);
            let fragments = exchange.ask(talk.inbound(), 1);
            assert_eq!(fragments.len(), 4);
            for (number, fragment) in fragments.into_iter().enumerate() {
                let expected = match number {
                    0 => cloned.clone().and(Reason::FlowOpened),
                    _ => cloned.clone(),
                };
                check(bench, &Input::from_client(fragment), &expected);
            }
            // All with the same identification: each instance's are its own.
            for (slot, &instance) in talk.instances().iter().enumerate() {
                let sent = exchange.answer(talk.of_instance(slot), 2);
                let told = exchange.answer(talk.outbound(), 2);
                for (fragment, told) in sent.into_iter().zip(told) {
                    let expected = match slot {
                        0 => Expected::to_client(Reason::Delivered, told),
                        _ => Expected::drop(Reason::MirrorSuppressed),
                    };
                    let input = Input::from_instance(instance, fragment);
                    check(bench, &input, &expected.heard(instance));
                }
            }
        }
    });
}

#[test]
fn fragments_of_a_flow_without_mirrors_go_to_its_instance() {
    with_bench(|bench| {
        for (talk, exchange) in everywhere(PLAIN) {
            bench.reset();
            let asked = exchange.ask(talk.inbound(), 1);
            let seen = exchange.ask(talk.to_instance(0), 1);
            for (number, (fragment, seen)) in asked.into_iter().zip(seen).enumerate() {
                let steered = Expected::steered(A, seen);
                let expected = match number {
                    0 => steered.and(Reason::FlowOpened),
                    _ => steered,
                };
                check(bench, &Input::from_client(fragment), &expected);
            }
        }
    });
}

/// The last one first, one that was never announced, and one of another sender, protocol or instance.
#[test]
fn a_fragment_without_its_first_is_dropped() {
    with_bench(|bench| {
        for (talk, exchange) in everywhere(WEB) {
            bench.reset();
            let unknown = Expected::refuse(Reason::FragmentUnknown);
            let mut asked = exchange.ask(talk.inbound(), 3);
            let first = asked.remove(0);
            for later in asked.iter().rev() {
                check(bench, &Input::from_client(later.clone()), &unknown);
            }
            let cloned = Expected::cloned(&talk.syn_copies());
            let opened = cloned.clone().and(Reason::FlowOpened);
            check(bench, &Input::from_client(first), &opened);
            for later in asked.iter().rev() {
                check(bench, &Input::from_client(later.clone()), &cloned);
                // Twice is as good as once.
                check(bench, &Input::from_client(later.clone()), &cloned);
            }
            let stranger = Conversation {
                client: std::net::SocketAddr::new(talk.family.client(9), 40_000),
                ..talk
            };
            for other in [
                exchange.ask(talk.inbound(), 4).remove(1),
                exchange.ask(stranger.inbound(), 3).remove(1),
            ] {
                check(bench, &Input::from_client(other), &unknown);
            }
            let mut answer = exchange.answer(talk.of_instance(0), 5);
            check(bench, &Input::from_instance(A, answer.remove(1)), &unknown);
            let delivered = exchange.answer(talk.outbound(), 5);
            let delivered = Expected::to_client(Reason::Delivered, delivered[0].clone());
            let input = Input::from_instance(A, answer.remove(0));
            check(bench, &input, &delivered.heard(A));
            check(bench, &Input::from_instance(B, answer.remove(0)), &unknown);
        }
    });
}

/// What a receiver would not put together any more is not sent after it.
#[test]
fn an_identification_that_is_used_again_is_not_the_old_one() {
    with_bench(|bench| {
        for (talk, exchange) in everywhere(WEB) {
            bench.reset();
            let fragments = exchange.ask(talk.inbound(), 6);
            let ingress = bench.network.vni_interface();
            bench.run(Program::VniIngress, ingress, &fragments[0]);
            bench.tables.age_fragments(WAIT_S + 2);
            let unknown = Expected::refuse(Reason::FragmentUnknown);
            let later = Input::from_client(fragments[1].clone());
            check(bench, &later, &unknown);
            bench.run(Program::VniIngress, ingress, &fragments[0]);
            check(bench, &later, &Expected::cloned(&talk.syn_copies()));
        }
    });
}

#[test]
fn fragments_follow_a_takeover() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB);
        let fragments = Exchange::Udp.ask(talk.inbound(), 7);
        let ingress = bench.network.vni_interface();
        bench.run(Program::VniIngress, ingress, &fragments[0]);
        let answer = |slot: usize| Exchange::Udp.answer(talk.of_instance(slot), 8);
        for slot in [0, 1] {
            let link = bench.network.link(talk.instances()[slot]);
            bench.run(Program::InstanceReturn, link, &answer(slot)[0]);
        }
        bench.tables.events();
        bench
            .tables
            .change(A, |entry| entry.state = instance::state::DEAD);
        let copied = Expected::cloned(&talk.syn_copies()[1..]).takeover(cause::DEAD, A, B);
        check(bench, &Input::from_client(fragments[1].clone()), &copied);
        let told = Exchange::Udp.answer(talk.outbound(), 8);
        let delivered = Expected::to_client(Reason::Delivered, told[1].clone()).heard(B);
        check(
            bench,
            &Input::from_instance(B, answer(1)[1].clone()),
            &delivered,
        );
        let suppressed = Expected::drop(Reason::MirrorSuppressed).heard(A);
        check(
            bench,
            &Input::from_instance(A, answer(0)[1].clone()),
            &suppressed,
        );
    });
}

/// A fragment header around a whole datagram (RFC 6946) makes no fragment of it.
#[test]
fn an_atomic_fragment_is_a_datagram() {
    with_bench(|bench| {
        let talk = Conversation::new(WEB, Family::V6);
        let [frame] = &cut(&talk.inbound().udp(b"question"), 9)[..] else {
            panic!("more than one fragment");
        };
        let opened = Expected::cloned(&talk.syn_copies()).and(Reason::FlowOpened);
        check(bench, &Input::from_client(frame.clone()), &opened);
        let [syn] = &cut(&talk.inbound().tcp(&talk.syn()), 10)[..] else {
            panic!("more than one fragment");
        };
        let opened = Expected::cloned(&talk.syn_copies());
        check(bench, &Input::from_client(syn.clone()), &opened);
    });
}

#[test]
fn first_fragments_of_a_flood_push_each_other_out() {
    with_bench(|bench| {
        let ingress = bench.network.vni_interface();
        let talk = Conversation::with(WEB);
        for id in 0..4 * FLOWS_MAX as u16 {
            let first = &Exchange::Udp.ask(talk.inbound(), id)[0];
            bench.run(Program::VniIngress, ingress, first);
        }
        assert!(bench.tables.fragments() <= FLOWS_MAX as usize);
        // The newest one is followed.
        let last = Exchange::Udp.ask(talk.inbound(), 4 * FLOWS_MAX as u16 - 1);
        let cloned = Expected::cloned(&talk.syn_copies());
        check(bench, &Input::from_client(last[1].clone()), &cloned);
        let foreign = Exchange::Udp.answer(talk.of_instance(0), 1);
        let link = bench.network.link(C);
        bench.run(Program::InstanceReturn, link, &foreign[0]);
        let suppressed = Expected::drop(Reason::MirrorSuppressed).heard(C);
        check(
            bench,
            &Input::from_instance(C, foreign[1].clone()),
            &suppressed,
        );
    });
}
