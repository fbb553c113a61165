//! Traffic that is no VNI's business passes untouched, whatever state it is in; what concerns a VNI
//! and cannot be steered is dropped and counted.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv4Type, Icmpv6Type, PacketBuilder,
    icmpv6,
};
use mirror_common::reason::Reason;

use crate::bench::with_bench;
use crate::check::{Expected, Input, check};
use crate::conversation::Conversation;
use crate::hosts::{A, CLIENT_MAC, Family, HOST_MAC, WEB};
use crate::packet::{Envelope, Wrapping};

/// Between a client and an address that is no VNI's.
fn elsewhere(family: Family, wrapping: Wrapping) -> Envelope {
    let other: std::net::IpAddr = match family {
        Family::V4 => Ipv4Addr::new(10, 77, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1).into(),
    };
    Envelope {
        destination: HOST_MAC,
        source: CLIENT_MAC,
        from: SocketAddr::new(family.client(1), 40_000),
        to: SocketAddr::new(other, 80),
        wrapping,
    }
}

fn arp() -> Vec<u8> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &CLIENT_MAC,
        &[192, 0, 2, 1],
        &[0; 6],
        &[10, 77, 0, 101],
    );
    let mut frame = Vec::new();
    let step = PacketBuilder::ethernet2(CLIENT_MAC, [0xff; 6]).arp(packet.unwrap());
    step.write(&mut frame).unwrap();
    frame
}

#[test]
fn other_addresses_are_left_to_the_kernel() {
    with_bench(|bench| {
        let passed = Expected::pass(Reason::NotVni);
        for family in Family::ALL {
            for wrapping in Wrapping::ALL {
                let there = elsewhere(family, wrapping);
                let syn = Conversation::with(WEB).syn();
                for envelope in [there, there.back()] {
                    for frame in [
                        envelope.tcp(&syn),
                        envelope.udp(b"x"),
                        envelope.other(132, b"x"),
                    ] {
                        check(bench, &Input::from_client(frame.clone()), &passed);
                        check(bench, &Input::from_instance(A, frame), &passed);
                    }
                }
            }
        }
    });
}

#[test]
fn a_vni_is_served_in_its_own_direction_only() {
    with_bench(|bench| {
        let passed = Expected::pass(Reason::NotVni);
        for family in Family::ALL {
            let talk = Conversation::new(WEB, family);
            // From a VNI on the clients' side; to a VNI on an instance's.
            let inward = talk.outbound().tcp(&talk.syn());
            check(bench, &Input::from_client(inward), &passed);
            let outward = talk.inbound().tcp(&talk.syn());
            check(bench, &Input::from_instance(A, outward), &passed);
        }
    });
}

#[test]
fn link_layer_business_passes() {
    with_bench(|bench| {
        let passed = Expected::pass(Reason::NotVni);
        let ethernet = |kind: u16, rest: &[u8]| {
            let mut frame = [HOST_MAC, CLIENT_MAC].concat();
            frame.extend(kind.to_be_bytes());
            frame.extend(rest);
            frame
        };
        let frames = [
            arp(),
            // LLDP, a bare header, a VLAN tag that ends, three tags, EAPOL.
            ethernet(0x88cc, &[0; 46]),
            ethernet(0x0800, &[]),
            ethernet(0x8100, &[0, 1]),
            ethernet(
                0x8100,
                &[0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0, 0x45, 0, 0, 20],
            ),
            ethernet(0x888e, &[1; 46]),
        ];
        for frame in frames {
            check(bench, &Input::from_client(frame.clone()), &passed);
            check(bench, &Input::from_instance(A, frame), &passed);
        }
    });
}

#[test]
fn neighbour_discovery_for_a_vni_is_the_hosts_business() {
    with_bench(|bench| {
        let passed = Expected::pass(Reason::NotVni);
        let talk = Conversation::new(WEB, Family::V6);
        let target = WEB.address(Family::V6);
        let std::net::IpAddr::V6(target) = target else {
            unreachable!()
        };
        let solicitation = Icmpv6Type::RouterSolicitation;
        let neighbour = Icmpv6Type::NeighborSolicitation;
        let advertisement =
            Icmpv6Type::NeighborAdvertisement(icmpv6::NeighborAdvertisementHeader {
                router: false,
                solicited: true,
                r#override: true,
            });
        for kind in [solicitation, neighbour, advertisement] {
            let v4 = Icmpv4Type::EchoRequest(etherparse::IcmpEchoHeader { id: 0, seq: 0 });
            let inbound = talk.inbound().icmp(v4.clone(), kind, &target.octets());
            check(bench, &Input::from_client(inbound), &passed);
            let from_instance = talk.of_instance(0).icmp(v4, kind, &target.octets());
            check(bench, &Input::from_instance(A, from_instance), &passed);
        }
    });
}

#[test]
fn what_cannot_be_steered_is_dropped() {
    with_bench(|bench| {
        for family in Family::ALL {
            for wrapping in Wrapping::ALL {
                let talk = Conversation {
                    wrapping,
                    ..Conversation::new(WEB, family)
                };
                let dropped = Expected::refuse(Reason::UnknownProtocol);
                // SCTP, ESP, nothing at all.
                for protocol in [132, 50, 59] {
                    let frame = talk.inbound().other(protocol, &[0; 40]);
                    check(bench, &Input::from_client(frame), &dropped);
                    let frame = talk.of_instance(0).other(protocol, &[0; 40]);
                    check(bench, &Input::from_instance(A, frame), &dropped);
                }
            }
        }
    });
}
