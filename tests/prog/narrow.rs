//! Links to instances that take less than clients send: clients are told the size that every replica gets, and what is larger leaves no trace.

use etherparse::{Icmpv4Type, Icmpv6Type, Ipv4Header, icmpv4};
use mirror_common::flow::{protocol, state};
use mirror_common::instance;
use mirror_common::reason::Reason;

use crate::bench::{Bench, with_bench};
use crate::check::{Expected, Input, check};
use crate::conversation::Conversation;
use crate::hosts::{A, B, C, D, FOUR, Family, PLAIN, VniHost, WEB};
use crate::packet::{Envelope, Wrapping, ip_packet, transport_offset};
use crate::tables::Table;

const NARROW: u32 = 1400;

fn everywhere(vni: VniHost) -> impl Iterator<Item = Conversation> {
    Family::ALL.into_iter().flat_map(move |family| {
        Wrapping::ALL.into_iter().map(move |wrapping| Conversation {
            wrapping,
            ..Conversation::new(vni, family)
        })
    })
}

/// Has a link take so much.
fn narrow(bench: &mut Bench, instance: u16, mtu: u32) {
    bench.tables.change(instance, |entry| entry.mtu = mtu);
}

/// What a frame has in front of its IP packet.
fn ethernet(frame: &[u8]) -> usize {
    frame.len() - ip_packet(frame).len()
}

/// The most that a link takes of packets with such tags: there is room for one of them.
fn room(frame: &[u8], mtu: u32) -> u32 {
    mtu - ethernet(frame).saturating_sub(18) as u32
}

/// A client's packet of so many bytes, by what makes one of a payload.
fn packet(make: impl Fn(&[u8]) -> Vec<u8>, bytes: u32) -> Vec<u8> {
    let empty = make(&[]);
    let headers = ip_packet(&empty).len();
    make(&vec![0x5a; bytes as usize - headers])
}

/// Changes the header of IPv4.
fn edit(frame: &mut [u8], change: impl Fn(&mut Ipv4Header)) {
    let start = ethernet(frame);
    let (mut header, _) = Ipv4Header::from_slice(&frame[start..]).unwrap();
    change(&mut header);
    header.header_checksum = header.calc_header_checksum();
    let bytes = header.to_bytes();
    frame[start..start + bytes.len()].copy_from_slice(&bytes);
}

/// What a client is told of a packet.
fn told(talk: &Conversation, frame: &[u8], mtu: u32) -> Vec<u8> {
    let start = ethernet(frame);
    let (quoted, wrapping) = match talk.family {
        Family::V4 => (transport_offset(frame) - start + 8, talk.wrapping),
        Family::V6 => (1280 - 48, talk.wrapping),
    };
    let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded {
        next_hop_mtu: mtu as u16,
    };
    let envelope = Envelope {
        wrapping: match wrapping {
            Wrapping::IpOptions => Wrapping::Plain,
            Wrapping::Everything => Wrapping::DoubleVlan,
            other => other,
        },
        ..talk.outbound()
    };
    let mut error = envelope.icmp(
        Icmpv4Type::DestinationUnreachable(needed),
        Icmpv6Type::PacketTooBig { mtu },
        &frame[start..start + quoted],
    );
    if talk.family == Family::V4 {
        edit(&mut error, |header| header.identification = 0);
    }
    error
}

/// A packet too large by a byte is answered and leaves nothing; one that fits is not.
#[track_caller]
fn check_told(
    bench: &mut Bench,
    talk: &Conversation,
    make: impl Fn(&[u8]) -> Vec<u8>,
    mtu: u32,
    fitting: &Expected,
) {
    let most = room(&make(&[]), mtu);
    let large = packet(&make, most + 1);
    let expected = Expected::turned(Reason::PacketTooBig, told(talk, &large, most));
    check(bench, &Input::from_client(large), &expected);
    check(bench, &Input::from_client(packet(&make, most)), fitting);
}

#[test]
fn a_client_is_told_what_every_mirror_gets() {
    with_bench(|bench| {
        // Whichever of them it is.
        for narrowest in [A, B] {
            for talk in everywhere(WEB) {
                bench.reset();
                let talk = talk.established(bench);
                narrow(bench, narrowest, NARROW);
                let before = bench.tables.mirrored.get(&talk.key(), 0).unwrap();
                let segment = |payload: &[u8]| {
                    let segment = talk.client(0, 0).with_payload(payload);
                    talk.inbound().tcp(&segment)
                };
                let most = room(&segment(&[]), NARROW);
                let large = packet(segment, most + 1);
                let expected = Expected::turned(Reason::PacketTooBig, told(&talk, &large, most));
                check(bench, &Input::from_client(large), &expected);
                let after = bench.tables.mirrored.get(&talk.key(), 0).unwrap();
                assert_eq!(after.sync, before.sync);
                let cloned = Expected::cloned(&talk.copies(0));
                let cloned = cloned.flow(talk.key(), Table::Mirrored, state::ESTABLISHED);
                check(bench, &Input::from_client(packet(segment, most)), &cloned);
            }
        }
    });
}

#[test]
fn a_client_of_one_instance_is_told_too() {
    with_bench(|bench| {
        for talk in everywhere(PLAIN) {
            bench.reset();
            let talk = talk.established(bench);
            narrow(bench, A, NARROW);
            let segment = |to: Envelope| {
                let talk = &talk;
                move |payload: &[u8]| to.tcp(&talk.client(0, 0).with_payload(payload))
            };
            let most = room(&segment(talk.inbound())(&[]), NARROW);
            let inward = packet(segment(talk.to_instance(0)), most);
            let steered = Expected::steered(A, inward);
            check_told(bench, &talk, segment(talk.inbound()), NARROW, &steered);
        }
    });
}

#[test]
fn datagrams_are_told_of_too() {
    with_bench(|bench| {
        for talk in everywhere(FOUR) {
            bench.reset();
            narrow(bench, C, 1500);
            narrow(bench, D, NARROW);
            let datagram = |payload: &[u8]| talk.inbound().udp(payload);
            let open = Input::from_client(datagram(b"question"));
            let opened = Expected::cloned(&talk.syn_copies()).and(Reason::FlowOpened);
            check(bench, &open, &opened);
            let cloned = Expected::cloned(&talk.syn_copies());
            check_told(bench, &talk, datagram, NARROW, &cloned);
            // Whoever is gone does not count.
            bench
                .tables
                .change(D, |entry| entry.state = instance::state::DEAD);
            let cloned = Expected::cloned(&talk.syn_copies()[..3]);
            check_told(bench, &talk, datagram, 1500, &cloned);
            let key = talk.key_for(protocol::UDP, talk.client.port(), talk.server.port());
            assert!(bench.tables.find(&key).is_some());
        }
    });
}

#[test]
fn a_link_of_unknown_size_takes_everything() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB).established(bench);
        for instance in [A, B] {
            narrow(bench, instance, 0);
        }
        let segment = talk.client(0, 0).with_payload(&[0x5a; 3000]);
        let cloned = Expected::cloned(&talk.copies(0));
        let input = Input::from_client(talk.inbound().tcp(&segment));
        check(bench, &input, &cloned);
    });
}

#[test]
fn who_does_not_want_to_know_is_not_told() {
    with_bench(|bench| {
        let refused = Expected::refuse(Reason::NotFragmented);
        // May be cut into fragments, which nobody does here.
        for wrapping in Wrapping::ALL {
            let talk = Conversation {
                wrapping,
                ..Conversation::with(WEB)
            };
            bench.reset();
            let talk = talk.established(bench);
            narrow(bench, B, NARROW);
            let segment = talk.client(0, 0).with_payload(&[0x5a; 1400]);
            let mut frame = talk.inbound().tcp(&segment);
            edit(&mut frame, |header| header.dont_fragment = false);
            let before = bench.tables.mirrored.get(&talk.key(), 0).unwrap();
            let counted = Expected::drop(Reason::NotFragmented);
            check(bench, &Input::from_client(frame), &counted);
            let after = bench.tables.mirrored.get(&talk.key(), 0).unwrap();
            assert_eq!(before, after);
        }
        // Less than any host of IPv6 believes.
        bench.reset();
        let talk = Conversation::new(WEB, Family::V6).established(bench);
        narrow(bench, B, 1279);
        let segment = talk.client(0, 0).with_payload(&[0x5a; 1280]);
        let input = Input::from_client(talk.inbound().tcp(&segment));
        check(bench, &input, &refused);
    });
}
