//! One packet of every kind that the programs handle, on flows that exist, to be cut short and
//! damaged.

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type};
use mirror_common::tcp::segment::bit;

use crate::bench::{Bench, Program};
use crate::conversation::{CLIENT_TS, Conversation, TS, canonical_seq};
use crate::errors::{from_router, quote, too_big};
use crate::hosts::{A, B, Family, PLAIN, VniHost, WEB};
use crate::packet::{Envelope, Tcp, Wrapping, sack, timestamps};
use crate::quic;

/// A packet and where it arrives.
#[derive(Clone, Debug)]
pub(crate) struct Specimen {
    pub(crate) program: Program,
    pub(crate) ingress: u32,
    pub(crate) frame: Vec<u8>,
}

/// Establishes flows and returns packets of them.
pub(crate) fn collect(bench: &mut Bench) -> Vec<Specimen> {
    let mut all = Vec::new();
    for vni in [WEB, PLAIN] {
        for family in Family::ALL {
            for (number, wrapping) in Wrapping::ALL.into_iter().enumerate() {
                let mut talk = Conversation {
                    wrapping,
                    ..Conversation::new(vni, family)
                };
                talk.client.set_port(40_000 + number as u16);
                let talk = talk.established(bench);
                of_tcp(bench, &talk, &mut all);
                of_datagrams(bench, vni, family, wrapping, &mut all);
            }
        }
    }
    for family in Family::ALL {
        of_quic(bench, family, &mut all);
    }
    all
}

fn of_tcp(bench: &mut Bench, talk: &Conversation, all: &mut Vec<Specimen>) {
    let mut opening = talk.clone();
    opening.client.set_port(talk.client.port() + 100);
    let options = |slot: usize| {
        let block = (canonical_seq(slot, 20), canonical_seq(slot, 40));
        [timestamps(CLIENT_TS, TS[slot]), sack(&[block])].concat()
    };
    let mut client = |frame| {
        all.push(Specimen {
            program: Program::VniIngress,
            ingress: bench.network.vni_interface(),
            frame,
        });
    };
    client(opening.inbound().tcp(&opening.syn()));
    client(talk.inbound().tcp(&talk.client(0, 0).with_payload(b"data")));
    client(
        talk.inbound()
            .tcp(&talk.client(0, 0).with_options(options(0))),
    );
    client(talk.inbound().tcp(&talk.client(0, 0).with(bit::FIN)));
    if talk.wrapping == Wrapping::Plain {
        client(
            talk.inbound()
                .tcp(&talk.client(0, 0).with_payload(&[7; 1300])),
        );
    }
    let lost = Envelope {
        wrapping: Wrapping::Plain,
        ..talk.outbound()
    };
    let lost = lost.tcp(&talk.canonical(0, 0).with_payload(b"lost"));
    client(too_big(&from_router(talk), &quote(&lost, 8)));
    for (slot, instance) in [A, B].into_iter().enumerate() {
        if slot >= talk.instances().len() {
            break;
        }
        let mut replica = |segment: &Tcp| {
            all.push(Specimen {
                program: Program::InstanceReturn,
                ingress: bench.network.link(instance),
                frame: talk.of_instance(slot).tcp(segment),
            });
        };
        replica(&talk.syn_ack(slot));
        replica(&talk.replica(slot, 0, 0).with_payload(b"data"));
        replica(&talk.replica(slot, 0, 0).with_options(options(slot)));
        replica(&talk.replica(slot, 0, 0).with(bit::FIN));
        replica(&talk.replica(slot, 0, 0).with(bit::RST));
    }
}

fn of_datagrams(
    bench: &mut Bench,
    vni: VniHost,
    family: Family,
    wrapping: Wrapping,
    all: &mut Vec<Specimen>,
) {
    let talk = Conversation {
        wrapping,
        ..Conversation::new(vni, family)
    };
    let echo = IcmpEchoHeader { id: 5, seq: 6 };
    let ask = talk.inbound();
    let (v4, v6) = (Icmpv4Type::EchoRequest(echo), Icmpv6Type::EchoRequest(echo));
    let answer = talk.of_instance(0);
    let (v4_back, v6_back) = (Icmpv4Type::EchoReply(echo), Icmpv6Type::EchoReply(echo));
    let ingress = bench.network.vni_interface();
    for frame in [ask.udp(b"question"), ask.icmp(v4, v6, b"ping")] {
        bench.run(Program::VniIngress, ingress, &frame);
        all.push(Specimen {
            program: Program::VniIngress,
            ingress,
            frame,
        });
    }
    let ingress = bench.network.link(A);
    for frame in [
        answer.udp(b"answer"),
        answer.icmp(v4_back, v6_back, b"pong"),
    ] {
        all.push(Specimen {
            program: Program::InstanceReturn,
            ingress,
            frame,
        });
    }
}

/// A connection whose client has moved. The mirrors' packets say other ids.
fn of_quic(bench: &mut Bench, family: Family, all: &mut Vec<Specimen>) {
    let talk = quic::talk(family);
    let moved = quic::moved(&talk, 1);
    let (first, answer) = (
        quic::long(b"of client", b"client's"),
        quic::long(b"client's", quic::ID),
    );
    let ingress = bench.network.vni_interface();
    for (talk, payload) in [
        (&talk, &first),
        (&moved, &quic::short(quic::ID)),
        (&quic::moved(&talk, 2), &quic::long(quic::ID, b"client's")),
    ] {
        let frame = talk.inbound().udp(payload);
        bench.run(Program::VniIngress, ingress, &frame);
        all.push(Specimen {
            program: Program::VniIngress,
            ingress,
            frame,
        });
    }
    for (slot, instance) in [A, B].into_iter().enumerate() {
        let ingress = bench.network.link(instance);
        let frame = talk.of_instance(slot).udp(&answer);
        bench.run(Program::InstanceReturn, ingress, &frame);
        all.push(Specimen {
            program: Program::InstanceReturn,
            ingress,
            frame,
        });
    }
}
