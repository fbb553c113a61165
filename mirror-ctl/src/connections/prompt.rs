//! The segments that make a connection move at once. Pure.
//!
//! The dataplane acts at a flow's next packet. Where both ends wait for the other, there is none
//! until a timer fires: a client that only reads, or one whose data is with the new active replica
//! although nobody told it so. When an instance is lost, each of its connections gets a segment that
//! every TCP answers at once, one with an old sequence number, as a keep-alive has (RFC 9293,
//! sections 3.8.4 and 3.10.7.4):
//! * the warm mirrors, in the client's name: the answer carries their acknowledgement, and the one
//!   that became active tells the client;
//! * the client, where there is no warm mirror: its answer finds that nobody is left, and is
//!   answered with a reset. A suspect is left in peace: its connections wait for it.
//!
//! And what lets replicas go whose flow is forgotten.

use std::{collections::HashMap, net::IpAddr};

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use mirror_common::{
    flow::{FlowKey, TcpFlow, state},
    instance::{self, Instance},
    tcp::{TcpSync, flag, seq, slot},
};

use super::replay;
use crate::dataplane::{Entry, FlowTable, address_from};

/// Hop limit of prompts.
const HOPS: u8 = 64;

/// Whether this is an open TCP connection whose active instance is `lost`.
pub(super) fn concerns(entry: &Entry<'_>, lost: u32) -> bool {
    let active = entry.flow.instances.get(usize::from(entry.flow.active));
    is_open(entry) && active.is_some_and(|number| u32::from(*number) == lost)
}

/// Whether a connection's client waits for what a mirror has already: bytes, or an acknowledgement. If not, the packet that
/// it waits for, or its own next one, moves the connection by itself.
pub(super) fn is_urgent(entry: &Entry<'_>) -> bool {
    let Some(sync) = entry.sync else {
        return false;
    };
    let flow = TcpFlow {
        flow: *entry.flow,
        sync: *sync,
    };
    let acknowledges = |slot| seq::after(flow.replica(slot).rcv_nxt, sync.told_ack);
    (0..flow.flow.replicas)
        .filter(|slot| *slot != flow.flow.active)
        .any(|slot| acknowledges(slot) || replay::is_ahead(&flow, slot))
}

/// Whether this is an open mirrored TCP connection of which `number` is a replica.
pub(super) fn mirrors(entry: &Entry<'_>, number: u32) -> bool {
    let used = entry.flow.instances.iter().take(entry.flow.replicas.into());
    let is_replica = used
        .into_iter()
        .any(|instance| u32::from(*instance) == number);
    entry.sync.is_some() && is_open(entry) && is_replica
}

fn is_open(entry: &Entry<'_>) -> bool {
    let established = matches!(entry.table, FlowTable::Mirrored | FlowTable::Unmirrored);
    established && (state::ESTABLISHED..state::CLOSED).contains(&entry.flow.state)
}

/// The segments that prompt a connection, with the interfaces they leave by.
pub(super) fn frames(
    entry: &Entry<'_>,
    vni: IpAddr,
    instances: &HashMap<u16, Instance>,
    is_suspicion: bool,
) -> Vec<(u32, Vec<u8>)> {
    let mut frames = Vec::new();
    if let Some(sync) = entry.sync {
        for (replica, number) in sync.replicas.iter().zip(entry.flow.instances) {
            let Some(instance) = instances.get(&number) else {
                continue;
            };
            let warm = replica.state == slot::WARM && instance.state == instance::state::UP;
            if warm {
                frames.push((
                    instance.ifindex,
                    to_replica(entry.key, sync, replica, instance, vni),
                ));
            }
        }
    }
    if frames.is_empty() && !is_suspicion {
        let ends = (vni, address_from(&entry.key.client));
        let ports = (entry.key.vni_port, entry.key.client_port);
        // Without mirrors the numbers are not known: one of two opposite ones is outside of
        // any window.
        let numbers = match entry.sync {
            // Not what it was sent last: that may have been lost, and is what it waits for.
            Some(sync) => vec![sync.client_ack.wrapping_sub(1)],
            None => vec![0, 1 << 31],
        };
        let ack = entry.sync.map_or(0, |sync| sync.told_ack);
        for number in numbers {
            let builder = PacketBuilder::ethernet2(
                entry.flow.addresses.source(),
                entry.flow.addresses.destination(),
            );
            let frame = segment(builder, ends, ports, (number, ack), 0);
            frames.push((entry.flow.ifindex, frame));
        }
    }
    frames
}

/// The segment that makes a cold replica at an instance speak, if it has a socket.
pub(super) fn to_cold(
    key: &FlowKey,
    flow: &TcpFlow,
    number: u16,
    instance: &Instance,
    vni: IpAddr,
) -> Option<Vec<u8>> {
    let mut replicas = flow.sync.replicas.iter().zip(flow.flow.instances);
    let (replica, _) =
        replicas.find(|(replica, of)| *of == number && replica.state == slot::COLD)?;
    let answered = replica.flags & flag::SYN_ACK != 0;
    answered.then(|| to_replica(key, &flow.sync, replica, instance, vni))
}

/// The segment that makes the client of an open flow speak that nobody is left to serve: what it says is answered with a reset.
pub(super) fn to_abandoned(
    key: &FlowKey,
    flow: &TcpFlow,
    vni: IpAddr,
    is_no_heir: impl Fn(u16) -> bool,
) -> Option<(u32, Vec<u8>)> {
    let entry = Entry {
        table: FlowTable::Mirrored,
        key,
        flow: &flow.flow,
        sync: Some(&flow.sync),
    };
    let abandoned = is_open(&entry) && flow.is_abandoned(is_no_heir);
    abandoned.then(|| frames(&entry, vni, &HashMap::new(), false).pop())?
}

/// The resets that let go the replicas of a flow that is forgotten ([`TcpFlow::farewell`]), with the interfaces they leave by.
pub(super) fn farewells(
    key: &FlowKey,
    flow: &TcpFlow,
    vni: IpAddr,
    instance: impl Fn(u16) -> Option<Instance>,
) -> Vec<(u32, Vec<u8>)> {
    let slots = (0..).zip(flow.flow.instances);
    slots
        .filter_map(|(slot, number)| {
            let seq = flow.farewell(slot)?;
            let instance = instance(number)?;
            let mut header = TcpHeader::new(key.client_port, key.vni_port, seq, 0);
            header.rst = true;
            let ends = (address_from(&key.client), vni);
            let reachable = instance.state & instance::state::REACHABLE != 0;
            reachable.then(|| (instance.ifindex, bare(towards(&instance), ends, header)))
        })
        .collect()
}

/// A frame to an instance.
fn towards(instance: &Instance) -> PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2(
        instance.addresses.source(),
        instance.addresses.destination(),
    )
}

/// A segment in the client's name that a replica answers.
fn to_replica(
    key: &FlowKey,
    sync: &TcpSync,
    replica: &mirror_common::tcp::Replica,
    instance: &Instance,
    vni: IpAddr,
) -> Vec<u8> {
    let delta = replica.isn.wrapping_sub(sync.isn);
    let ack = seq::min(sync.client_ack.wrapping_add(delta), replica.snd_nxt);
    segment(
        towards(instance),
        (address_from(&key.client), vni),
        (key.client_port, key.vni_port),
        (replica.rcv_nxt.wrapping_sub(1), ack),
        sync.client_window,
    )
}

/// A pure ACK. `ends`, `ports`: source and destination; `numbers`: sequence and acknowledgement.
fn segment(
    builder: PacketBuilderStep<etherparse::Ethernet2Header>,
    ends: (IpAddr, IpAddr),
    ports: (u16, u16),
    numbers: (u32, u32),
    window: u16,
) -> Vec<u8> {
    let mut header = TcpHeader::new(ports.0, ports.1, numbers.0, window);
    header.ack = true;
    header.acknowledgment_number = numbers.1;
    bare(builder, ends, header)
}

/// A segment without payload. `ends`: source and destination.
fn bare(
    builder: PacketBuilderStep<etherparse::Ethernet2Header>,
    ends: (IpAddr, IpAddr),
    header: TcpHeader,
) -> Vec<u8> {
    let builder = match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            builder.ipv4(source.octets(), destination.octets(), HOPS)
        }
        (source, destination) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            builder.ipv6(octets(source), octets(destination), HOPS)
        }
    };
    let builder = builder.tcp_header(header);
    let mut frame = Vec::with_capacity(builder.size(0));
    // Writing to memory fails only for payloads that are too long, and there is none.
    if builder.write(&mut frame, &[]).is_err() {
        frame.clear();
    }
    frame
}

#[cfg(test)]
pub(super) mod tests {
    use etherparse::SlicedPacket;
    use mirror_common::{
        ethernet::Addresses,
        flow::{Flow, PlainFlow, ipv4},
        tcp::Replica,
    };

    use super::*;

    pub(in super::super) fn key() -> FlowKey {
        FlowKey {
            client: ipv4(u32::from_ne_bytes([10, 77, 0, 2])),
            vni: 0,
            address: 0,
            protocol: 6,
            client_port: 40_000,
            vni_port: 80,
        }
    }

    pub(in super::super) fn flow() -> Flow {
        Flow {
            plain: PlainFlow {
                ifindex: 7,
                addresses: Addresses::new([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]),
                state: state::ESTABLISHED,
                ..PlainFlow::default()
            },
            instances: [1, 2, 0, 0],
            replicas: 2,
            ..Flow::default()
        }
    }

    fn numbers(frame: &[u8]) -> (u16, u32, u32, u16) {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = packet.transport else {
            panic!("not TCP: {packet:?}");
        };
        assert!(tcp.ack() && tcp.payload().is_empty());
        (
            tcp.destination_port(),
            tcp.sequence_number(),
            tcp.acknowledgment_number(),
            tcp.window_size(),
        )
    }

    fn up(ifindex: u32, state: u32) -> Instance {
        Instance {
            state,
            ifindex,
            ..Instance::default()
        }
    }

    fn sync() -> TcpSync {
        let replica = |isn: u32, state| Replica {
            isn,
            snd_nxt: isn.wrapping_add(11),
            rcv_nxt: 151,
            state,
            ..Replica::default()
        };
        TcpSync {
            client_isn: 100,
            client_nxt: 151,
            client_ack: 520,
            client_window: 500,
            isn: 500,
            sent: 521,
            told_ack: 151,
            replicas: [
                replica(500, slot::WARM),
                replica(u32::MAX, slot::WARM),
                Replica::default(),
                Replica::default(),
            ],
            ..TcpSync::default()
        }
    }

    /// Interface; destination port, sequence number, acknowledgement and window.
    type Sent = (u32, (u16, u32, u32, u16));

    #[track_caller]
    fn check(sync: Option<&TcpSync>, second: u32, is_suspicion: bool, expected: &[Sent]) {
        let instances = HashMap::from([(1, up(3, instance::state::DEAD)), (2, up(4, second))]);
        let (key, flow) = (key(), flow());
        let table = if sync.is_some() {
            FlowTable::Mirrored
        } else {
            FlowTable::Unmirrored
        };
        let entry = Entry {
            table,
            key: &key,
            flow: &flow,
            sync,
        };
        assert!(concerns(&entry, 1) && !concerns(&entry, 2));
        let has_mirrors = sync.is_some();
        assert_eq!(
            [1, 2, 0].map(|number| mirrors(&entry, number)),
            [has_mirrors, has_mirrors, false]
        );
        let vni = IpAddr::from([10, 77, 0, 100]);
        let frames: Vec<_> = frames(&entry, vni, &instances, is_suspicion)
            .iter()
            .map(|(ifindex, frame)| (*ifindex, numbers(frame)))
            .collect();
        assert_eq!(frames, expected);
    }

    #[test]
    fn a_warm_mirror_is_asked_in_the_clients_name_in_its_own_numbers() {
        // 520 - 500 = 20 bytes are acknowledged, the mirror has produced only 11.
        let asked = (80, 150, 10, 500);
        check(Some(&sync()), instance::state::UP, false, &[(4, asked)]);
        check(Some(&sync()), instance::state::UP, true, &[(4, asked)]);
    }

    #[test]
    fn a_cold_replica_with_a_socket_is_asked_in_its_own_numbers() {
        let ask = |flags, state| {
            let mut flow = TcpFlow {
                flow: flow(),
                sync: sync(),
            };
            flow.sync.replicas[1].state = state;
            flow.sync.replicas[1].flags = flags;
            let vni = IpAddr::from([10, 77, 0, 100]);
            let up = up(4, instance::state::UP);
            to_cold(&key(), &flow, 2, &up, vni).map(|frame| numbers(&frame))
        };
        let asked = (80, 150, 10, 500);
        assert_eq!(ask(flag::SYN_ACK, slot::COLD), Some(asked));
        assert_eq!(ask(flag::SYN_ACK, slot::WARM), None);
        assert_eq!(ask(0, slot::COLD), None);
    }

    #[test]
    fn a_forgotten_flow_lets_those_go_that_can_be_reached() {
        let flow = TcpFlow {
            flow: flow(),
            sync: sync(),
        };
        let farewells = |state| {
            let vni = IpAddr::from([10, 77, 0, 100]);
            let instance = |number: u16| Some(up(u32::from(number) + 2, state));
            farewells(&key(), &flow, vni, instance)
        };
        let sent = farewells(instance::state::UP);
        // The other one's numbers are the client's.
        let [(ifindex, frame)] = sent.as_slice() else {
            panic!("{sent:?}");
        };
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = packet.transport else {
            panic!("not TCP: {packet:?}");
        };
        let said = (*ifindex, tcp.destination_port(), tcp.sequence_number());
        assert_eq!(said, (4, 80, 151));
        assert!(tcp.rst() && !tcp.ack() && tcp.payload().is_empty());
        assert_eq!(farewells(instance::state::DEAD), []);
    }

    #[test]
    fn a_client_whom_nobody_is_left_to_serve_is_asked() {
        let ask = |dead: &[u16], cold: &[usize]| {
            let mut flow = TcpFlow {
                flow: flow(),
                sync: sync(),
            };
            for slot in cold {
                flow.sync.replicas[*slot].state = slot::COLD;
            }
            let vni = IpAddr::from([10, 77, 0, 100]);
            to_abandoned(&key(), &flow, vni, |number| dead.contains(&number))
        };
        let numbers = flow().instances;
        assert_eq!(ask(&[], &[0]), None);
        assert_eq!(ask(&numbers[..1], &[]), None);
        let (ifindex, frame) = ask(&numbers[1..2], &[0]).unwrap();
        assert_eq!(ifindex, flow().ifindex);
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = packet.transport else {
            panic!("not TCP: {packet:?}");
        };
        assert_eq!(tcp.destination_port(), key().client_port);
        assert_eq!(ask(&[], &[0, 1]).map(|(ifindex, _)| ifindex), Some(ifindex));
    }

    #[test]
    fn without_a_warm_mirror_the_client_is_asked() {
        let asked = (40_000, 519, 151, 0);
        check(Some(&sync()), instance::state::DEAD, false, &[(7, asked)]);
        let opposite = [(7, (40_000, 0, 0, 0)), (7, (40_000, 1 << 31, 0, 0))];
        check(None, instance::state::UP, false, &opposite);
    }

    #[test]
    fn who_waits_for_what_a_mirror_has_comes_first() {
        let urgent = |change: fn(&mut TcpSync)| {
            let mut sync = sync();
            change(&mut sync);
            let (key, flow) = (key(), flow());
            is_urgent(&Entry {
                table: FlowTable::Mirrored,
                key: &key,
                flow: &flow,
                sync: Some(&sync),
            })
        };
        assert!(!urgent(|_| {}));
        // The mirror has acknowledged another byte, or said one.
        assert!(urgent(|sync| sync.replicas[1].rcv_nxt += 1));
        assert!(urgent(|sync| sync.sent = 510));
        // It has the client's byte, and waits with the acknowledgement for its application's answer.
        assert!(!urgent(|sync| sync.client_nxt += 1));
        // A slot that is not used has said nothing.
        assert!(!urgent(|sync| sync.replicas[2].snd_nxt = 521 - 500 + 1));
    }

    #[test]
    fn connections_of_a_suspect_alone_are_left_in_peace() {
        check(Some(&sync()), instance::state::DEAD, true, &[]);
        check(None, instance::state::UP, true, &[]);
    }
}
