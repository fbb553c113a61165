//! UDP and ICMP echo through the VNI, each answered exactly once; and what is
//! not the VNI's is not touched.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, PacketBuilder};
use socket2::{Domain, Protocol, Socket, Type};
use testbed::clock::wait_until;
use testbed::netns::Namespace;
use testbed::topology::{Family, Topology};
use testbed::traffic::program::{Client, service};

use crate::support::{LIMIT, Site, check_whole};

const PINGS: u16 = 20;

#[test]
fn udp_is_answered_once() {
    for mode in ["native", "generic"] {
        let site = Site::new(3);
        site.topology.forward().unwrap();
        let _agent = site.agent(&site.config().with_mode(mode).with_mirrors(2));
        for family in Family::ALL {
            let arguments = [
                "--udp",
                "--connections",
                "20",
                "--duration",
                "1",
                "--think",
                "20",
            ];
            let host = &site.topology.client;
            let client = Client::start(host, service(family), &arguments).unwrap();
            check_whole(&client.ended().unwrap(), 20);
        }
    }
}

#[test]
fn echo_is_answered_once() {
    for mode in ["native", "generic"] {
        let site = Site::new(3);
        site.topology.forward().unwrap();
        let _agent = site.agent(&site.config().with_mode(mode).with_mirrors(2));
        for family in Family::ALL {
            let answers = ping(&site.topology.client, family);
            assert_eq!(answers, (0..PINGS).collect::<Vec<_>>(), "{family:?} {mode}");
        }
    }
}

#[test]
fn other_traffic_passes_untouched() {
    let site = Site::new(2);
    let _agent = site.agent(&site.config());
    for family in Family::ALL {
        // The VNI host itself, an address that is no VNI, from the client and from an instance.
        let instance = &site.topology.instances[0];
        for (from, to) in [
            (&site.topology.client, family.client_gateway()),
            (&instance.namespace, instance.gateway(family)),
        ] {
            check_udp(&site.topology, from, SocketAddr::new(to, 9000));
        }
    }
}

#[track_caller]
fn check_udp(topology: &Topology, from: &Namespace, to: SocketAddr) {
    let server = topology.host.run(|| UdpSocket::bind(to)).unwrap().unwrap();
    let any = SocketAddr::new(
        if to.is_ipv4() {
            [0; 4].into()
        } else {
            [0u16; 8].into()
        },
        0,
    );
    let client = from.run(|| UdpSocket::bind(any)).unwrap().unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
    }
    client.send_to(b"question", to).unwrap();
    let mut bytes = [0; 16];
    let (length, back) = server.recv_from(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"question");
    server.send_to(b"answer", back).unwrap();
    let (length, _) = client.recv_from(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"answer");
}

/// Sends echo requests to the VNI; the sequence numbers of the answers, sorted.
fn ping(host: &Namespace, family: Family) -> Vec<u16> {
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    let open = || Socket::new(domain, Type::RAW, Some(protocol));
    let mut socket = host.run(open).unwrap().unwrap();
    socket
        .connect(&SocketAddr::new(family.vni(), 0).into())
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut answers = Vec::new();
    for sequence in 0..PINGS {
        socket.send(&request(family, sequence)).unwrap();
    }
    // It ends when nothing more has come for one time-out after the last answer.
    wait_until("the answers' end", LIMIT, || {
        let mut bytes = [0; 2048];
        match socket.read(&mut bytes) {
            Ok(length) => answers.extend(sequence(family, &bytes[..length])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok((answers.len() >= PINGS.into()).then_some(()));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(None)
    })
    .unwrap();
    answers.sort_unstable();
    answers
}

fn request(family: Family, seq: u16) -> Vec<u8> {
    let echo = IcmpEchoHeader { id: 77, seq };
    let payload = [0x55; 56];
    let mut bytes = Vec::new();
    match (family, family.client(), family.vni()) {
        (Family::V4, IpAddr::V4(from), IpAddr::V4(to)) => {
            let builder = PacketBuilder::ipv4(from.octets(), to.octets(), 64);
            let builder = builder.icmpv4(Icmpv4Type::EchoRequest(echo));
            builder.write(&mut bytes, &payload).unwrap();
            // The kernel makes the network header of a raw socket's packet.
            bytes.drain(..20);
        }
        (Family::V6, IpAddr::V6(from), IpAddr::V6(to)) => {
            let builder = PacketBuilder::ipv6(from.octets(), to.octets(), 64);
            let builder = builder.icmpv6(Icmpv6Type::EchoRequest(echo));
            builder.write(&mut bytes, &payload).unwrap();
            bytes.drain(..40);
        }
        _ => unreachable!("addresses of one family"),
    }
    bytes
}

/// The sequence number of an answer to one of ours. An IPv4 raw socket shows
/// the network header, an IPv6 one does not.
fn sequence(family: Family, packet: &[u8]) -> Option<u16> {
    let (icmp, reply) = match family {
        Family::V4 => (packet.get(20..)?, 0),
        Family::V6 => (packet, 129),
    };
    let [kind, _, _, _, 0, 77, high, low] = *icmp.first_chunk::<8>()? else {
        return None;
    };
    (kind == reply).then(|| u16::from_be_bytes([high, low]))
}
