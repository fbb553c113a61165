//! Every packet that a host receives, by a packet socket.

use std::io::{ErrorKind, Read};

use etherparse::{LaxPacketHeaders, NetHeaders, TransportHeader};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use socket2::{Domain, Protocol, Socket, Type};
use testbed::netns::Namespace;

const ETH_P_ALL: u16 = 0x0003;
const BUFFER: usize = 64 << 20;
const FRAME_MAX: usize = 65_536;

/// A packet's essentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its time to live or hop limit.
    pub(crate) hops: u8,
    /// Its destination port; 0 when it has none.
    pub(crate) port: u16,
    /// Its TCP payload's length; whole packets otherwise.
    pub(crate) payload: usize,
    /// TCP's RST is set.
    pub(crate) reset: bool,
    /// `tcp`, `udp` or `icmp`.
    pub(crate) protocol: &'static str,
}

/// A running capture in a host.
pub(crate) struct Capture(Socket);

impl Capture {
    /// Begins; the kernel keeps what comes until it is asked for.
    pub(crate) fn start(host: &Namespace) -> Self {
        let open = || {
            let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
            Socket::new(Domain::PACKET, Type::RAW, Some(protocol))
        };
        let socket = host.run(open).unwrap().unwrap();
        socket.set_nonblocking(true).unwrap();
        setsockopt(&socket, RcvBufForce, &BUFFER).unwrap();
        Self(socket)
    }

    /// What came, without what the host sent itself: packets from `source` only.
    pub(crate) fn received_from(mut self, source: std::net::IpAddr) -> Vec<Seen> {
        let mut frame = vec![0; FRAME_MAX];
        let mut seen = Vec::new();
        loop {
            match self.0.read(&mut frame) {
                Ok(length) => seen.extend(parse(&frame[..length], source)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return seen,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn parse(frame: &[u8], source: std::net::IpAddr) -> Option<Seen> {
    let packet = LaxPacketHeaders::from_ethernet(frame).ok()?;
    let (from, hops) = match packet.net? {
        NetHeaders::Ipv4(ip, _) => (std::net::IpAddr::from(ip.source), ip.time_to_live),
        NetHeaders::Ipv6(ip, _) => (ip.source.into(), ip.hop_limit),
        NetHeaders::Arp(_) => return None,
    };
    let payload = packet.payload.slice().len();
    let seen = |protocol, port, reset| Seen {
        hops,
        port,
        payload,
        reset,
        protocol,
    };
    (from == source).then_some(())?;
    Some(match packet.transport? {
        TransportHeader::Tcp(tcp) => seen("tcp", tcp.destination_port, tcp.rst),
        TransportHeader::Udp(udp) => seen("udp", udp.destination_port, false),
        TransportHeader::Icmpv4(_) | TransportHeader::Icmpv6(_) => seen("icmp", 0, false),
        TransportHeader::Igmp(_) => return None,
    })
}
