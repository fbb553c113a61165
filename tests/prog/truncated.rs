//! Packets that are shorter than they say, say what cannot be, or are fragments: passed when they
//! are nobody's, else dropped, always counted, never a trace in a map.

use etherparse::{Icmpv4Type, Icmpv6Type, PacketHeaders, TransportHeader};
use mirror_common::flow::protocol::{ICMP, ICMPV6, TCP};
use mirror_common::reason::Reason;

use crate::bench::{Bench, Program, Verdict, with_bench};
use crate::conversation::Conversation;
use crate::hosts::{Family, WEB};
use crate::packet::{Wrapping, ip_packet, transport_offset};
use crate::specimens::{Specimen, collect};

/// The shortest frame that the kernel runs a program on.
const ETHERNET: usize = 14;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Runs frames that must leave no trace; each must be counted once, under its own reason.
#[track_caller]
fn refuse(bench: &mut Bench, specimen: &Specimen, frames: &[(Vec<u8>, Reason)]) {
    let before = bench.tables.counters().unwrap();
    let mut expected = before.clone();
    for (frame, reason) in frames {
        let outcome = bench.run(specimen.program, specimen.ingress, frame);
        if *reason == Reason::NotVni {
            assert_eq!(outcome.verdict, Verdict::Pass, "{frame:02x?}");
            assert_eq!(outcome.frame, *frame);
        } else {
            assert_eq!(outcome.verdict, Verdict::Drop, "{frame:02x?}");
        }
        expected[*reason as usize] += 1;
    }
    let after = bench.tables.counters().unwrap();
    for &reason in Reason::ALL {
        let (found, expected) = (after[reason as usize], expected[reason as usize]);
        assert_eq!(found, expected, "{reason:?} of {specimen:02x?}");
    }
}

/// Whether a specimen is of IPv4, and where its IP header begins.
fn ip_header(frame: &[u8]) -> (bool, usize) {
    let ip = frame.len() - ip_packet(frame).len();
    (frame[ip] >> 4 == 4, ip)
}

#[test]
fn every_prefix_of_every_packet_is_refused() {
    with_bench(|bench| {
        let specimens = collect(bench);
        let before = bench.tables.snapshot().unwrap();
        for specimen in &specimens {
            let (v4, ip) = ip_header(&specimen.frame);
            let network = ip + if v4 { IPV4_HEADER } else { IPV6_HEADER };
            let prefix = |length| {
                let reason = match length < network {
                    true => Reason::NotVni,
                    false => Reason::Malformed,
                };
                (specimen.frame[..length].to_vec(), reason)
            };
            let prefixes: Vec<_> = (ETHERNET..specimen.frame.len()).map(prefix).collect();
            refuse(bench, specimen, &prefixes);
        }
        assert_eq!(bench.tables.snapshot().unwrap(), before);
        assert!(bench.tables.events().is_empty());
    });
}

#[test]
fn lengths_that_leave_no_room_for_a_header_are_refused() {
    with_bench(|bench| {
        let specimens = collect(bench);
        let before = bench.tables.snapshot().unwrap();
        for specimen in &specimens {
            let (v4, ip) = ip_header(&specimen.frame);
            let transport = transport_offset(&specimen.frame);
            let protocol_is_tcp = is_tcp(&specimen.frame);
            let rest = specimen.frame.len() - transport;
            let header = match (protocol_is_tcp, is_error(&specimen.frame)) {
                (true, _) => usize::from(specimen.frame[transport + 12] >> 4) * 4,
                // They quote no more than what is needed.
                (_, true) => rest,
                _ => 8,
            };
            let (field, base) = if v4 { (ip + 2, ip) } else { (ip + 4, ip + 40) };
            let with_length = |length: u16| {
                let mut frame = specimen.frame.clone();
                frame[field..field + 2].copy_from_slice(&length.to_be_bytes());
                (frame, Reason::Malformed)
            };
            let too_short = (base..transport + header).map(|end| with_length((end - base) as u16));
            let right = (specimen.frame.len() - base) as u16;
            let too_long = [1, 100, 0xff00].map(|more| with_length(right.saturating_add(more)));
            let mut frames: Vec<_> = too_short.chain(too_long).collect();
            if protocol_is_tcp {
                let impossible = |words: &usize| *words < 5 || *words * 4 > rest;
                frames.extend((0..16).filter(impossible).map(|words| {
                    let mut frame = specimen.frame.clone();
                    frame[transport + 12] = (words as u8) << 4;
                    (frame, Reason::Malformed)
                }));
            }
            refuse(bench, specimen, &frames);
        }
        assert_eq!(bench.tables.snapshot().unwrap(), before);
    });
}

fn is_error(frame: &[u8]) -> bool {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    match headers.transport {
        Some(TransportHeader::Icmpv4(header)) => {
            matches!(header.icmp_type, Icmpv4Type::DestinationUnreachable(_))
        }
        Some(TransportHeader::Icmpv6(header)) => {
            matches!(header.icmp_type, Icmpv6Type::PacketTooBig { .. })
        }
        _ => false,
    }
}

fn is_tcp(frame: &[u8]) -> bool {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    matches!(headers.transport, Some(TransportHeader::Tcp(_)))
}

#[test]
fn headers_of_another_version_or_length_are_refused() {
    with_bench(|bench| {
        let specimens = collect(bench);
        let before = bench.tables.snapshot().unwrap();
        for specimen in &specimens {
            let (v4, ip) = ip_header(&specimen.frame);
            if !v4 {
                continue;
            }
            let frames = [0x44, 0x40, 0x65, 0x05, 0xf5].map(|first| {
                let mut frame = specimen.frame.clone();
                frame[ip] = first;
                (frame, Reason::Malformed)
            });
            refuse(bench, specimen, &frames);
        }
        assert_eq!(bench.tables.snapshot().unwrap(), before);
    });
}

#[test]
fn fragments_that_cannot_be_followed_are_dropped_under_their_own_names() {
    with_bench(|bench| {
        let specimens = collect(bench);
        let before = bench.tables.snapshot().unwrap();
        for specimen in &specimens {
            // The first one; the last one; a middle one.
            for field in [0x2000_u16, 0x0001, 0x2004, 0x1fff] {
                let reason = match (field, next_protocol(&specimen.frame)) {
                    (_, TCP) => Reason::Fragment,
                    (0x2000, ICMP | ICMPV6) if is_error(&specimen.frame) => Reason::Fragment,
                    // It can be, or what its protocol is comes behind other headers.
                    (0x2000, _) => continue,
                    _ => Reason::FragmentUnknown,
                };
                let frame = fragment_header(&specimen.frame, field);
                refuse(bench, specimen, &[(frame, reason)]);
            }
        }
        assert_eq!(bench.tables.snapshot().unwrap(), before);
    });
}

/// The protocol that the IP header names.
fn next_protocol(frame: &[u8]) -> u8 {
    let (v4, ip) = ip_header(frame);
    frame[ip + if v4 { 9 } else { 6 }]
}

/// The frame with this field for fragments: IPv4's in its header, IPv6's in one behind the fixed header.
fn fragment_header(frame: &[u8], field: u16) -> Vec<u8> {
    let (v4, ip) = ip_header(frame);
    let mut frame = frame.to_vec();
    if v4 {
        frame[ip + 6..ip + 8].copy_from_slice(&field.to_be_bytes());
        return frame;
    }
    let next = std::mem::replace(&mut frame[ip + 6], 44);
    let [high, low] = field.rotate_left(3).to_be_bytes();
    frame.splice(ip + 40..ip + 40, [next, 0, high, low, 0, 0, 0, 7]);
    lengthen(&mut frame, ip, 8);
    frame
}

fn lengthen(frame: &mut [u8], ip: usize, by: usize) {
    let field = u16::from_be_bytes([frame[ip + 4], frame[ip + 5]]) + by as u16;
    frame[ip + 4..ip + 6].copy_from_slice(&field.to_be_bytes());
}

#[test]
fn extension_headers_are_walked_so_far_only() {
    with_bench(|bench| {
        let talk = Conversation {
            wrapping: Wrapping::Plain,
            ..Conversation::new(WEB, Family::V6)
        };
        let specimen = Specimen {
            program: Program::VniIngress,
            ingress: bench.network.vni_interface(),
            frame: talk.inbound().tcp(&talk.syn()),
        };
        let before = bench.tables.snapshot().unwrap();
        const DESTINATION: u8 = 60;
        let chain = |count: usize, words: u8| {
            let mut frame = specimen.frame.clone();
            let mut headers = Vec::new();
            for number in 0..count {
                let next = if number + 1 == count { 6 } else { DESTINATION };
                headers.extend([next, words]);
                headers.resize(headers.len() + 6 + 8 * usize::from(words), 0);
            }
            frame[ETHERNET + 6] = DESTINATION;
            lengthen(&mut frame, ETHERNET, headers.len());
            frame.splice(ETHERNET + 40..ETHERNET + 40, headers);
            frame
        };
        let frames = [
            // One more than is walked.
            (chain(5, 0), Reason::UnknownProtocol),
            // Farther than is looked.
            (chain(3, 30), Reason::Malformed),
            (chain(1, 255), Reason::Malformed),
        ];
        refuse(bench, &specimen, &frames);
        assert_eq!(bench.tables.snapshot().unwrap(), before);
        let ingress = specimen.ingress;
        let outcome = bench.run(Program::VniIngress, ingress, &chain(4, 3));
        assert_eq!(outcome.verdict, Verdict::Redirect);
    });
}
