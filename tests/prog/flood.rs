//! Floods: new flows beyond what a VNI mirrors in a second, SYNs and acknowledgements that nobody stands behind, and what
//! becomes of those who are real among them.

use std::net::{Ipv4Addr, SocketAddr};

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type};
use mirror_common::allowance::{Allowance, DEPTH_NS};
use mirror_common::event::kind;
use mirror_common::flow::{protocol, state};
use mirror_common::reason::{Cold, Reason};
use mirror_common::tcp::segment::bit;

use crate::bench::{Bench, Program, Verdict, with_bench};
use crate::check::{Expected, Input, check};
use crate::conversation::{CLIENT_ISN, Conversation};
use crate::hosts::{A, B, FOUR, Family, VniHost, WEB};
use crate::packet::Tcp;
use crate::tables::{FLOWS_MAX, Table};

/// A bucket that stays empty for longer than any test takes.
const EMPTY: Allowance = Allowance {
    full_ns: u64::MAX / 2,
    every_ns: DEPTH_NS as u32,
    pad: 0,
};

/// SYNs of a flood: several times what the half-open table of the tests holds.
const FLOOD: u32 = 4 * FLOWS_MAX;

fn from_client(talk: &Conversation, segment: &Tcp) -> Input {
    Input::from_client(talk.inbound().tcp(segment))
}

fn everywhere(vni: VniHost) -> impl Iterator<Item = Conversation> {
    Family::ALL
        .map(|family| Conversation::new(vni, family))
        .into_iter()
}

/// A client that nobody has seen before.
fn stranger(number: u32) -> Conversation {
    let talk = Conversation::with(WEB);
    let address = Ipv4Addr::from(0x6440_0000 + number / 60_000);
    Conversation {
        client: SocketAddr::new(address.into(), 1_024 + (number % 60_000) as u16),
        ..talk
    }
}

/// Served by A alone from its first SYN on, as any flow without mirrors.
fn check_alone(bench: &mut Bench, talk: &Conversation) {
    let kept = |expected: Expected, table, state| expected.flow(talk.key(), table, state);
    let delivered = |segment: &Tcp| {
        Expected::to_client(Reason::Delivered, talk.outbound().tcp(segment)).heard(A)
    };
    let syn = Expected::steered(A, talk.to_instance(0).tcp(&talk.syn())).and(Reason::MirrorLimit);
    let syn = kept(syn, Table::HalfOpen, state::HANDSHAKE);
    check(bench, &from_client(talk, &talk.syn()), &syn);
    let (_, flow) = bench.tables.find(&talk.key()).unwrap();
    assert_eq!((flow.replicas, flow.cold), (1, Cold::MirrorLimit as u8));
    // Nobody is waited for.
    let syn_ack = talk.syn_ack(0);
    let answered = kept(delivered(&syn_ack), Table::HalfOpen, state::ANSWERED);
    let answer = Input::from_instance(A, talk.of_instance(0).tcp(&syn_ack));
    check(bench, &answer, &answered);
    let data = talk.client(0, 0).with_payload(b"GET");
    let opened = Expected::steered(A, talk.to_instance(0).tcp(&data)).and(Reason::FlowOpened);
    let opened = kept(opened, Table::Plain, state::ESTABLISHED);
    check(bench, &from_client(talk, &data), &opened);
    let data = talk.replica(0, 0, 3).with_payload(b"hello");
    let answer = Input::from_instance(A, talk.of_instance(0).tcp(&data));
    check(bench, &answer, &delivered(&data));
}

#[test]
fn beyond_the_limit_a_new_flow_has_no_mirrors() {
    with_bench(|bench| {
        for talk in everywhere(WEB).chain(everywhere(FOUR)) {
            bench.reset();
            bench.tables.allow(talk.vni, Allowance::new(Some(1)));
            let syn = from_client(&talk, &talk.syn());
            check(bench, &syn, &Expected::cloned(&talk.syn_copies()));
            let spent = bench.tables.allowance(talk.vni);
            assert!(spent.full_ns > 0, "{spent:?}");
            bench.tables.allow(talk.vni, EMPTY);
            let other = Conversation {
                client: SocketAddr::new(talk.client.ip(), 50_000),
                ..talk
            };
            check_alone(bench, &other);
            assert_eq!(bench.tables.allowance(talk.vni), EMPTY);
        }
    });
}

#[test]
fn known_flows_take_no_part_in_it() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB).established(bench);
        bench.tables.allow(WEB, EMPTY);
        let data = talk.client(0, 0).with_payload(b"data");
        check(
            bench,
            &from_client(&talk, &data),
            &Expected::cloned(&talk.copies(0)),
        );
        // Nor do those of a VNI that has another limit.
        let other = Conversation::with(FOUR);
        let syn = from_client(&other, &other.syn());
        check(bench, &syn, &Expected::cloned(&other.syn_copies()));
    });
}

/// One client that says the same SYN again and again is a flood too.
#[test]
fn a_repeated_syn_beyond_the_limit_goes_to_the_active_replica() {
    with_bench(|bench| {
        for talk in everywhere(WEB) {
            bench.reset();
            bench.tables.allow(WEB, Allowance::new(Some(2)));
            let syn = from_client(&talk, &talk.syn());
            let cloned = Expected::cloned(&talk.syn_copies());
            check(bench, &syn, &cloned);
            check(bench, &syn, &cloned);
            bench.tables.allow(WEB, EMPTY);
            let alone = Expected::steered(A, talk.to_instance(0).tcp(&talk.syn()))
                .and(Reason::MirrorLimit)
                .flow(talk.key(), Table::HalfOpen, state::HANDSHAKE);
            check(bench, &syn, &alone);
            // It is mirrored all the same.
            talk.answer(bench);
            let established = Expected::cloned(&talk.copies(0))
                .and(Reason::FlowOpened)
                .event(kind::FLOW_OPENED, 0, 0, A)
                .warm(B)
                .flow(talk.key(), Table::Mirrored, state::ESTABLISHED);
            check(bench, &from_client(&talk, &talk.client(0, 0)), &established);
        }
    });
}

#[test]
fn who_could_not_be_mirrored_anyway_takes_nothing() {
    with_bench(|bench| {
        bench.tables.allow(WEB, Allowance::new(Some(1)));
        let fast_open = stranger(1);
        let syn = fast_open.syn().with_payload(b"fast open");
        let alone = Expected::steered(A, fast_open.to_instance(0).tcp(&syn));
        check(bench, &from_client(&fast_open, &syn), &alone);
        assert_eq!(bench.tables.allowance(WEB).full_ns, 0);
    });
}

#[test]
fn datagrams_beyond_the_limit_go_to_one_instance() {
    with_bench(|bench| {
        for talk in everywhere(WEB) {
            bench.reset();
            bench.tables.allow(WEB, EMPTY);
            let key = talk.key_for(protocol::UDP, talk.client.port(), talk.server.port());
            let ask = |envelope: crate::packet::Envelope| envelope.udp(b"question");
            let steered = Expected::steered(A, ask(talk.to_instance(0)));
            let steered = steered.flow(key, Table::Datagram, state::ESTABLISHED);
            let opened = steered
                .clone()
                .and(Reason::FlowOpened)
                .and(Reason::MirrorLimit);
            let question = Input::from_client(ask(talk.inbound()));
            check(bench, &question, &opened);
            // So it stays.
            bench.tables.allow(WEB, Allowance::new(None));
            check(bench, &question, &steered);
            let (_, flow) = bench.tables.find(&key).unwrap();
            assert_eq!((flow.replicas, flow.cold), (1, Cold::MirrorLimit as u8));

            bench.tables.allow(WEB, EMPTY);
            let echo = IcmpEchoHeader { id: 7, seq: 1 };
            let (v4, v6) = (Icmpv4Type::EchoRequest(echo), Icmpv6Type::EchoRequest(echo));
            let ask = |envelope: crate::packet::Envelope| envelope.icmp(v4.clone(), v6, b"ping");
            let opened = Expected::steered(A, ask(talk.to_instance(0)))
                .and(Reason::FlowOpened)
                .and(Reason::MirrorLimit);
            check(bench, &Input::from_client(ask(talk.inbound())), &opened);
        }
    });
}

#[test]
fn a_flood_is_bounded_and_touches_nothing_else() {
    const PER_S: u32 = 100;
    with_bench(|bench| {
        let talk = Conversation::with(WEB).established(bench);
        let kept = bench.tables.mirrored.get(&talk.key(), 0).unwrap();
        bench.tables.allow(WEB, Allowance::new(Some(PER_S)));
        let counters = bench.tables.counters().unwrap();
        let begin = testbed::clock::monotonic_ns();
        let mut cloned = 0;
        let ingress = bench.network.vni_interface();
        for number in 0..FLOOD {
            let other = stranger(number);
            let frame = other.inbound().tcp(&other.syn());
            let outcome = bench.run(Program::VniIngress, ingress, &frame);
            assert_eq!(outcome.verdict, Verdict::Redirect);
            cloned += u32::from(outcome.plan.is_some());
        }
        let took_ns = testbed::clock::monotonic_ns() - begin;
        let worth = u64::from(PER_S) * (took_ns + DEPTH_NS) / DEPTH_NS + 1;
        assert!(
            cloned >= PER_S && u64::from(cloned) <= worth,
            "{cloned} of {worth}"
        );
        let limited = Reason::MirrorLimit as usize;
        let limited = bench.tables.counters().unwrap()[limited] - counters[limited];
        assert_eq!(limited, u64::from(FLOOD - cloned));
        assert!(bench.tables.half_open.keys().count() <= FLOWS_MAX as usize);
        assert_eq!(bench.tables.events(), [], "nobody needs to know of them");
        assert_eq!(bench.tables.mirrored.get(&talk.key(), 0).unwrap(), kept);
        assert_eq!(bench.tables.mirrored.keys().count(), 1);
        assert_eq!(bench.tables.flows.keys().count(), 0);
        let data = talk.client(0, 0).with_payload(b"data");
        let copied = Expected::cloned(&talk.copies(0));
        check(bench, &from_client(&talk, &data), &copied);
    });
}

/// The half-open entry of a client that is real was pushed out by a flood, once before its instance has answered and once
/// before the client has.
#[test]
fn a_handshake_that_was_pushed_out_comes_to_its_end_without_mirrors() {
    with_bench(|bench| {
        for talk in everywhere(WEB) {
            bench.reset();
            let fine = |outcome: &Expected| outcome.clone().heard(A);
            let answer = |slot: usize, segment: &Tcp| {
                let instance = talk.instances()[slot];
                Input::from_instance(instance, talk.of_instance(slot).tcp(segment))
            };
            talk.open(bench);
            talk.answer(bench);
            bench.tables.half_open.remove(&talk.key()).unwrap();
            // The mirror's socket gives up by itself: nobody answers it.
            let unknown = Expected::drop(Reason::NotReplica).heard(B);
            check(bench, &answer(1, &talk.syn_ack(1)), &unknown);
            let ack = talk.client(0, 0);
            let met = Expected::steered(A, talk.to_instance(0).tcp(&ack))
                .and(Reason::NoFlow)
                .flow(talk.key(), Table::HalfOpen, state::ESTABLISHED);
            check(bench, &from_client(&talk, &ack), &met);
            let data = talk.client(0, 0).with_payload(b"GET");
            let on = Expected::steered(A, talk.to_instance(0).tcp(&data));
            let on = on.flow(talk.key(), Table::HalfOpen, state::ESTABLISHED);
            check(bench, &from_client(&talk, &data), &on);
            let data = talk.replica(0, 0, 3).with_payload(b"hello");
            let told = Expected::to_client(Reason::Delivered, talk.outbound().tcp(&data));
            let vouched = fine(&told).and(Reason::FlowOpened).flow(
                talk.key(),
                Table::Plain,
                state::ESTABLISHED,
            );
            check(bench, &answer(0, &data), &vouched);
            check(bench, &answer(0, &data), &fine(&told));
            let (_, flow) = bench.tables.find(&talk.key()).unwrap();
            assert_eq!((flow.replicas, flow.cold), (1, Cold::JoinedLate as u8));
        }
    });
}

/// A client may have closed before its instance is heard, and begin anew while nobody vouches for the flow.
#[test]
fn a_flow_that_was_met_closes_and_begins_anew() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB);
        let fin = talk.client(3, 0).with(bit::FIN);
        let met = Expected::steered(A, talk.to_instance(0).tcp(&fin)).and(Reason::NoFlow);
        check(bench, &from_client(&talk, &fin), &met);
        let again = Expected::steered(A, talk.to_instance(0).tcp(&fin));
        let again = again.flow(talk.key(), Table::HalfOpen, state::CLOSING);
        check(bench, &from_client(&talk, &fin), &again);
        check(bench, &from_client(&talk, &fin), &again);
        let syn = from_client(&talk, &talk.syn());
        let anew = Expected::cloned(&talk.syn_copies());
        let anew = anew.flow(talk.key(), Table::HalfOpen, state::HANDSHAKE);
        check(bench, &syn, &anew);
    });
}

#[test]
fn acknowledgements_that_nobody_vouches_for_are_kept_with_the_half_open() {
    with_bench(|bench| {
        let reset = |talk: &Conversation| {
            let segment = Tcp {
                flags: bit::RST,
                seq: talk.client(0, 0).ack,
                ..Tcp::default()
            };
            talk.of_instance(0).tcp(&segment)
        };
        for number in 0..FLOOD {
            let other = stranger(number);
            other.client_sends(bench, &other.client(0, 0), Verdict::Redirect);
            let link = bench.network.link(A);
            bench.run(Program::InstanceReturn, link, &reset(&other));
        }
        assert!(bench.tables.half_open.keys().count() <= FLOWS_MAX as usize);
        assert_eq!(bench.tables.flows.keys().count(), 0);
        assert_eq!(bench.tables.mirrored.keys().count(), 0);
        // What resets, or is a SYN of a strange kind, is not even kept there.
        bench.reset();
        let talk = stranger(0);
        for flags in [bit::RST, bit::RST | bit::ACK, bit::SYN | bit::ACK, bit::FIN] {
            let segment = Tcp {
                flags,
                seq: CLIENT_ISN,
                ..Tcp::default()
            };
            let steered = Expected::steered(A, talk.to_instance(0).tcp(&segment))
                .and(Reason::NoFlow)
                .no_flow(talk.key());
            check(bench, &from_client(&talk, &segment), &steered);
        }
    });
}
