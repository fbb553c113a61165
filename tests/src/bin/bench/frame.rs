//! Frames of the bench's flows: IPv4 and TCP, checksums whole.

use std::net::Ipv4Addr;

/// The port that VNIs serve.
pub(crate) const VNI_PORT: u16 = 7000;
/// The port of every client; clients differ by address.
pub(crate) const CLIENT_PORT: u16 = 40_000;
/// Ethernet, IPv4 and TCP headers without options.
pub(crate) const HEADERS: usize = 14 + 20 + 20;
const TIMESTAMPS: usize = 12;

/// Bits of a TCP header's flags.
pub(crate) mod bit {
    pub(crate) const SYN: u8 = 2;
    pub(crate) const ACK: u8 = 16;
}

/// A segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) from: (Ipv4Addr, u16),
    pub(crate) to: (Ipv4Addr, u16),
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) timestamps: bool,
    pub(crate) payload: usize,
}

impl Segment {
    /// The whole frame.
    pub(crate) fn frame(&self, destination: [u8; 6], source: [u8; 6]) -> Vec<u8> {
        let options = if self.timestamps { TIMESTAMPS } else { 0 };
        let tcp_bytes = 20 + options + self.payload;
        let mut ip = vec![0x45, 0];
        ip.extend((20 + tcp_bytes as u16).to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        ip.extend(self.from.0.octets());
        ip.extend(self.to.0.octets());
        let checksum = checksum(sum(&ip));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let mut tcp = Vec::with_capacity(tcp_bytes);
        tcp.extend(self.from.1.to_be_bytes());
        tcp.extend(self.to.1.to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.push(((20 + options) as u8 / 4) << 4);
        tcp.push(self.flags);
        tcp.extend([1, 244, 0, 0, 0, 0]);
        if self.timestamps {
            tcp.extend([1, 1, 8, 10, 0, 0, 1, 0, 0, 0, 1, 0]);
        }
        tcp.resize(tcp_bytes, 0x5a);
        let pseudo = sum(&ip[12..20]) + 6 + tcp_bytes as u32;
        let checksum = self::checksum(pseudo + sum(&tcp));
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        let mut frame = Vec::new();
        frame.extend(destination);
        frame.extend(source);
        frame.extend([8, 0]);
        frame.extend(ip);
        frame.extend(tcp);
        frame
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    words
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

fn checksum(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_whole() {
        let segment = Segment {
            from: (Ipv4Addr::new(10, 0, 0, 1), 40_000),
            to: (Ipv4Addr::new(10, 77, 0, 100), 7000),
            flags: bit::ACK,
            seq: 1,
            ack: 2,
            timestamps: true,
            payload: 7,
        };
        let frame = segment.frame([2; 6], [4; 6]);
        assert_eq!(frame.len(), HEADERS + TIMESTAMPS + 7);
        assert_eq!(checksum(sum(&frame[14..34])), 0);
        let pseudo = sum(&frame[26..34]) + 6 + frame.len() as u32 - 34;
        assert_eq!(checksum(pseudo + sum(&frame[34..])), 0);
    }
}
