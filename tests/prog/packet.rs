//! Frames, built by etherparse. All their lengths and checksums are computed from scratch, so that a
//! frame that is expected of the dataplane verifies its incremental updates in full.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpHeaders, IpNumber, Ipv4Extensions,
    Ipv4Header, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions, NetHeaders,
    PacketBuilder, PacketBuilderStep, PacketHeaders, SingleVlanHeader, TcpHeader, TransportHeader,
    VlanId,
};
use mirror_common::tcp::segment::bit;

use crate::hosts::Mac;

const HOPS: u8 = 64;

/// What is around an IP packet, or in its header, besides the plain headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wrapping {
    #[default]
    Plain,
    /// One VLAN tag.
    Vlan,
    /// An outer and an inner VLAN tag.
    DoubleVlan,
    /// IPv4 options; IPv6 extension headers.
    IpOptions,
    /// All of it.
    Everything,
}

impl Wrapping {
    pub(crate) const ALL: [Self; 5] = [
        Self::Plain,
        Self::Vlan,
        Self::DoubleVlan,
        Self::IpOptions,
        Self::Everything,
    ];

    fn has_options(self) -> bool {
        matches!(self, Self::IpOptions | Self::Everything)
    }
}

/// The Ethernet and IP part of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope {
    pub(crate) destination: Mac,
    pub(crate) source: Mac,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) wrapping: Wrapping,
}

/// A TCP segment without what the envelope says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tcp {
    /// Bits of [`bit`].
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    /// A multiple of four bytes.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Tcp {
    pub(crate) fn with_options(self, options: Vec<u8>) -> Self {
        Self { options, ..self }
    }

    pub(crate) fn with_payload(self, payload: &[u8]) -> Self {
        Self {
            payload: payload.to_vec(),
            ..self
        }
    }

    /// With more flags.
    pub(crate) fn with(self, flags: u8) -> Self {
        Self {
            flags: self.flags | flags,
            ..self
        }
    }
}

/// Timestamps as every common stack lays them out.
pub(crate) fn timestamps(value: u32, echo: u32) -> Vec<u8> {
    let mut option = vec![1, 1, 8, 10];
    option.extend(value.to_be_bytes());
    option.extend(echo.to_be_bytes());
    option
}

/// Timestamps whose values begin on an odd offset.
pub(crate) fn odd_timestamps(value: u32, echo: u32) -> Vec<u8> {
    let mut option = vec![1, 8, 10];
    option.extend(value.to_be_bytes());
    option.extend(echo.to_be_bytes());
    option.push(1);
    option
}

/// SACK blocks.
pub(crate) fn sack(blocks: &[(u32, u32)]) -> Vec<u8> {
    let mut option = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
    for (left, right) in blocks {
        option.extend(left.to_be_bytes());
        option.extend(right.to_be_bytes());
    }
    option
}

/// So many NOPs.
pub(crate) fn nops(count: usize) -> Vec<u8> {
    vec![1; count]
}

impl Envelope {
    /// The same way back.
    pub(crate) fn back(self) -> Self {
        Self {
            destination: self.source,
            source: self.destination,
            from: self.to,
            to: self.from,
            ..self
        }
    }

    pub(crate) fn tcp(&self, segment: &Tcp) -> Vec<u8> {
        let mut header = TcpHeader::new(
            self.from.port(),
            self.to.port(),
            segment.seq,
            segment.window,
        );
        let is = |flag| segment.flags & flag != 0;
        header.acknowledgment_number = segment.ack;
        header.fin = is(bit::FIN);
        header.syn = is(bit::SYN);
        header.rst = is(bit::RST);
        header.psh = is(bit::PSH);
        header.ack = is(bit::ACK);
        header.set_options_raw(&segment.options).unwrap();
        let mut frame = Vec::new();
        let step = self.ip().tcp_header(header);
        step.write_to_vec(&mut frame, &segment.payload).unwrap();
        frame
    }

    pub(crate) fn udp(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let step = self.ip().udp(self.from.port(), self.to.port());
        step.write_to_vec(&mut frame, payload).unwrap();
        frame
    }

    /// An ICMP message of the envelope's family.
    pub(crate) fn icmp(&self, v4: Icmpv4Type, v6: Icmpv6Type, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        if self.from.is_ipv4() {
            self.ip().icmpv4(v4).write_to_vec(&mut frame, payload)
        } else {
            self.ip().icmpv6(v6).write_to_vec(&mut frame, payload)
        }
        .unwrap();
        frame
    }

    /// An IP packet of a protocol that nobody knows here.
    pub(crate) fn other(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let step = self.ip();
        step.write_to_vec(&mut frame, IpNumber(protocol), payload)
            .unwrap();
        frame
    }

    fn ip(&self) -> PacketBuilderStep<IpHeaders> {
        let ethernet = PacketBuilder::ethernet2(self.source, self.destination);
        let (outer, inner) = (
            VlanId::try_new(7).unwrap(),
            VlanId::try_new(0x0abc).unwrap(),
        );
        let headers = ip_headers(self.from.ip(), self.to.ip(), self.wrapping);
        match self.wrapping {
            Wrapping::Plain | Wrapping::IpOptions => ethernet.ip(headers),
            Wrapping::Vlan => ethernet.single_vlan(inner).ip(headers),
            Wrapping::DoubleVlan | Wrapping::Everything => {
                ethernet.double_vlan(outer, inner).ip(headers)
            }
        }
    }
}

fn ip_headers(from: IpAddr, to: IpAddr, wrapping: Wrapping) -> IpHeaders {
    // A record-route option in an IPv4 header: type, length, pointer, one hop, end.
    const OPTIONS: [u8; 8] = [7, 7, 4, 0, 0, 0, 0, 0];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let protocol = IpNumber::TCP;
            let mut header = Ipv4Header::new(0, HOPS, protocol, from.octets(), to.octets());
            header.as_mut().unwrap().identification = 0x1234;
            let mut header = header.unwrap();
            if wrapping.has_options() {
                header.options = OPTIONS.into();
            }
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                hop_limit: HOPS,
                source: from.octets(),
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            let extension = || Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[1, 4, 0, 0, 0, 0]);
            let extensions = if wrapping.has_options() {
                Ipv6Extensions {
                    hop_by_hop_options: extension().ok(),
                    destination_options: extension().ok(),
                    routing: extension().ok().map(|routing| Ipv6RoutingExtensions {
                        routing,
                        final_destination_options: extension().ok(),
                    }),
                    ..Ipv6Extensions::default()
                }
            } else {
                Ipv6Extensions::default()
            };
            IpHeaders::Ipv6(header, extensions)
        }
        _ => panic!("two families in one packet"),
    }
}

/// The IP packet in a frame, from its IP header on.
pub(crate) fn ip_packet(frame: &[u8]) -> &[u8] {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let tags = headers.link_exts.len() * SingleVlanHeader::LEN;
    &frame[14 + tags..]
}

/// Offset of the transport header.
pub(crate) fn transport_offset(frame: &[u8]) -> usize {
    ip_payload_offset(frame).expect("an IP packet")
}

/// Offset of what is behind the IP headers, if they are sound.
pub(crate) fn ip_payload_offset(frame: &[u8]) -> Option<usize> {
    let headers = PacketHeaders::from_ethernet_slice(frame).ok()?;
    let net = match headers.net? {
        NetHeaders::Ipv4(header, extensions) => header.header_len() + extensions.header_len(),
        NetHeaders::Ipv6(header, extensions) => header.header_len() + extensions.header_len(),
        NetHeaders::Arp(_) => return None,
    };
    Some(14 + headers.link_exts.len() * SingleVlanHeader::LEN + net)
}

/// A frame for people: headers and what of its checksums is wrong.
pub(crate) fn describe(frame: &[u8]) -> String {
    match PacketHeaders::from_ethernet_slice(frame) {
        Err(error) => format!("{error}: {frame:02x?}"),
        Ok(headers) => format!("{headers:#?}\nwrong: {:?}", wrong_checksums(frame)),
    }
}

/// Which of a frame's checksums are wrong.
pub(crate) fn wrong_checksums(frame: &[u8]) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    let Ok(headers) = PacketHeaders::from_ethernet_slice(frame) else {
        return vec!["headers"];
    };
    let payload = headers.payload.slice();
    if let Some(NetHeaders::Ipv4(ip, _)) = &headers.net
        && ip.calc_header_checksum() != ip.header_checksum
    {
        wrong.push("IPv4");
    }
    let (found, right) = match (&headers.net, &headers.transport) {
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            (tcp.checksum, tcp.calc_checksum_ipv4(ip, payload).ok())
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            (tcp.checksum, tcp.calc_checksum_ipv6(ip, payload).ok())
        }
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Udp(udp))) => {
            (udp.checksum, udp.calc_checksum_ipv4(ip, payload).ok())
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Udp(udp))) => {
            (udp.checksum, udp.calc_checksum_ipv6(ip, payload).ok())
        }
        (_, Some(TransportHeader::Icmpv4(icmp))) => (
            icmp.checksum,
            Some(Icmpv4Header::with_checksum(icmp.icmp_type.clone(), payload).checksum),
        ),
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Icmpv6(icmp))) => {
            let (from, to) = (ip.source, ip.destination);
            let right = Icmpv6Header::with_checksum(icmp.icmp_type, from, to, payload);
            (icmp.checksum, right.map(|right| right.checksum).ok())
        }
        _ => return wrong,
    };
    if right != Some(found) {
        wrong.push("transport");
    }
    wrong
}

/// A frame as a packet socket shows it: the kernel has taken the outer VLAN tag off.
pub(crate) fn without_outer_tag(frame: &[u8]) -> Vec<u8> {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let mut bare = frame.to_vec();
    if !headers.link_exts.is_empty() {
        bare.drain(12..12 + SingleVlanHeader::LEN);
    }
    bare
}
