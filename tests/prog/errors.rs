//! ICMP errors: to the replicas of the flow that they quote, of which eight bytes are enough.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{Icmpv4Type, Icmpv6Type, icmpv4, icmpv6};
use mirror_common::flow::protocol;
use mirror_common::reason::Reason;

use crate::bench::{Program, with_bench};
use crate::check::{Expected, Input, check};
use crate::conversation::Conversation;
use crate::hosts::{A, B, Family, PLAIN, VniHost, WEB};
use crate::packet::{Envelope, Wrapping, ip_packet, transport_offset};

/// The path is too narrow: the error that a flow dies of when it gets lost.
pub(crate) fn too_big(envelope: &Envelope, quotation: &[u8]) -> Vec<u8> {
    let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
    envelope.icmp(
        Icmpv4Type::DestinationUnreachable(needed),
        Icmpv6Type::PacketTooBig { mtu: 1400 },
        quotation,
    )
}

fn unreachable(envelope: &Envelope, quotation: &[u8]) -> Vec<u8> {
    envelope.icmp(
        Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port),
        Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port),
        quotation,
    )
}

/// IP header and the first bytes behind it of a frame's packet.
pub(crate) fn quote(frame: &[u8], transport_bytes: usize) -> Vec<u8> {
    let ip = frame.len() - ip_packet(frame).len();
    frame[ip..transport_offset(frame) + transport_bytes].to_vec()
}

/// From a router on the clients' side.
pub(crate) fn from_router(talk: &Conversation) -> Envelope {
    let router: IpAddr = match talk.client.ip() {
        IpAddr::V4(_) => Ipv4Addr::new(198, 51, 100, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1).into(),
    };
    Envelope {
        from: SocketAddr::new(router, 0),
        ..talk.inbound()
    }
}

fn everywhere(vni: VniHost) -> impl Iterator<Item = Conversation> {
    Family::ALL.into_iter().flat_map(move |family| {
        let wrappings = [Wrapping::Plain, Wrapping::Vlan, Wrapping::IpOptions];
        wrappings.into_iter().map(move |wrapping| Conversation {
            wrapping,
            ..Conversation::new(vni, family)
        })
    })
}

/// What is quoted has plain headers: it went the other way.
fn sent_to_client(talk: &Conversation, segment: &crate::packet::Tcp) -> Vec<u8> {
    let plain = Envelope {
        wrapping: Wrapping::Plain,
        ..talk.outbound()
    };
    plain.tcp(segment)
}

#[test]
fn errors_about_tcp_go_to_every_replica() {
    with_bench(|bench| {
        for talk in everywhere(WEB) {
            bench.reset();
            let talk = talk.established(bench);
            let lost = sent_to_client(&talk, &talk.canonical(0, 0).with_payload(b"too long"));
            for bytes in [8, 20, 40] {
                let error = too_big(&from_router(&talk), &quote(&lost, bytes));
                let cloned = Expected::cloned(&talk.syn_copies()).and(Reason::IcmpError);
                check(bench, &Input::from_client(error), &cloned);
            }
            let huge = [quote(&lost, 20), vec![0; 3350]].concat();
            let huge = too_big(&from_router(&talk), &huge);
            let too_large = Expected::refuse(Reason::TooLargeToClone);
            check(bench, &Input::from_client(huge), &too_large);
            let short = too_big(&from_router(&talk), &quote(&lost, 7));
            let malformed = Expected::refuse(Reason::Malformed);
            check(bench, &Input::from_client(short), &malformed);
        }
    });
}

#[test]
fn errors_about_unmirrored_flows_are_steered() {
    with_bench(|bench| {
        for talk in everywhere(PLAIN) {
            bench.reset();
            let talk = talk.established(bench);
            let lost = sent_to_client(&talk, &talk.canonical(0, 0).with_payload(b"too long"));
            let quotation = quote(&lost, 8);
            let error = Input::from_client(too_big(&from_router(&talk), &quotation));
            let inward = Envelope {
                from: from_router(&talk).from,
                ..talk.to_instance(0)
            };
            let steered = Expected::steered(A, too_big(&inward, &quotation));
            check(bench, &error, &steered.and(Reason::IcmpError));
        }
    });
}

#[test]
fn errors_about_no_flow_are_dropped() {
    with_bench(|bench| {
        for talk in everywhere(WEB) {
            let refused = Expected::refuse(Reason::NoFlow);
            let lost = sent_to_client(&talk, &talk.canonical(0, 0));
            let error = too_big(&from_router(&talk), &quote(&lost, 8));
            check(bench, &Input::from_client(error), &refused);
            let plain = Envelope {
                wrapping: Wrapping::Plain,
                ..talk.outbound()
            };
            let error = unreachable(&from_router(&talk), &quote(&plain.udp(b"lost"), 8));
            check(bench, &Input::from_client(error), &refused);
        }
    });
}

#[test]
fn errors_about_datagrams_go_to_every_replica() {
    with_bench(|bench| {
        for talk in everywhere(WEB) {
            bench.reset();
            let ingress = bench.network.vni_interface();
            bench.run(
                Program::VniIngress,
                ingress,
                &talk.inbound().udp(b"question"),
            );
            let plain = Envelope {
                wrapping: Wrapping::Plain,
                ..talk.outbound()
            };
            let error = unreachable(&talk.inbound(), &quote(&plain.udp(b"answer"), 8));
            let cloned = Expected::cloned(&talk.syn_copies()).and(Reason::IcmpError);
            check(bench, &Input::from_client(error), &cloned);
        }
    });
}

#[test]
fn only_the_active_replica_complains() {
    with_bench(|bench| {
        for talk in everywhere(WEB) {
            bench.reset();
            let talk = talk.established(bench);
            let asked = Envelope {
                wrapping: Wrapping::Plain,
                ..talk.inbound()
            };
            let quotation = quote(&asked.tcp(&talk.client(0, 0)), 8);
            let from = |slot| {
                let frame = unreachable(&talk.of_instance(slot), &quotation);
                Input::from_instance(talk.instances()[slot], frame)
            };
            let told = unreachable(&talk.outbound(), &quotation);
            let told = Expected::to_client(Reason::IcmpError, told).heard(A);
            check(bench, &from(0), &told);
            let suppressed = Expected::drop(Reason::MirrorSuppressed).heard(B);
            check(bench, &from(1), &suppressed);

            // UDP to a closed port.
            let ingress = bench.network.vni_interface();
            bench.run(
                Program::VniIngress,
                ingress,
                &talk.inbound().udp(b"question"),
            );
            let key = talk.key_for(protocol::UDP, talk.client.port(), talk.server.port());
            assert!(bench.tables.find(&key).is_some());
            let quotation = quote(&asked.udp(b"question"), 8);
            let from = |slot| {
                let frame = unreachable(&talk.of_instance(slot), &quotation);
                Input::from_instance(talk.instances()[slot], frame)
            };
            let told = unreachable(&talk.outbound(), &quotation);
            let told = Expected::to_client(Reason::Delivered, told).heard(A);
            check(bench, &from(0), &told);
            check(bench, &from(1), &suppressed);
        }
    });
}
