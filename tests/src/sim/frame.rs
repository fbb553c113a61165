//! IPv4 packets as bytes: read into the protocol's [`Segment`], rewritten as the XDP programs rewrite them,
//! by incremental checksums only. A packet that was damaged on its way stays damaged.

use mirror_common::{
    checksum::{Delta, fold},
    limits::SACK_BLOCKS,
    plan::Copy,
    tcp::{Part, Segment, option, replica::Output, segment::bit},
};

/// Length of the IPv4 header: `smoltcp` sends no options.
pub const IP: usize = 20;
const HEADER: usize = 20;

/// A TCP segment in an IPv4 packet.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The packet.
    pub bytes: Vec<u8>,
    /// The number of the connection that it is of, if it passed as that.
    pub of: Option<usize>,
}

/// What was read from a frame: the segment and where its translatable options are, counted from the
/// start of the TCP header; 0: not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parsed {
    /// As the protocol sees it.
    pub segment: Segment,
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Length of the TCP header.
    pub header: usize,
    timestamps: usize,
    sack: usize,
    blocks: usize,
}

impl Frame {
    /// The two bytes at a place, in memory order.
    fn word(&self, at: usize) -> u16 {
        u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// The four bytes at a place, in memory order.
    fn double(&self, at: usize) -> u32 {
        let bytes = &self.bytes[at..at + 4];
        u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn set_word(&mut self, at: usize, value: u16, delta: &mut Delta) {
        delta.word(self.word(at), value);
        self.bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }

    /// Sets four bytes, `at` counted from the TCP header.
    fn set_double(&mut self, at: usize, value: u32, delta: &mut Delta) {
        delta.double_at(at % 2 == 1, self.double(IP + at), value);
        self.bytes[IP + at..IP + at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn update_checksum(&mut self, delta: Delta) {
        let sum = delta.apply(self.word(IP + 16));
        self.bytes[IP + 16..IP + 18].copy_from_slice(&sum.to_ne_bytes());
    }

    /// Reads the headers. `None`: not well formed.
    pub fn parse(&self) -> Option<Parsed> {
        let total = usize::from(u16::from_be(self.word(2)));
        if self.bytes.len() < IP + HEADER || self.bytes[0] != 0x45 || total != self.bytes.len() {
            return None;
        }
        let tcp = &self.bytes[IP..];
        let header = usize::from(tcp[12] >> 4) * 4;
        if header < HEADER || header > tcp.len() {
            return None;
        }
        let mut parsed = Parsed {
            segment: Segment {
                seq: u32::from_be(self.double(IP + 4)),
                ack: u32::from_be(self.double(IP + 8)),
                payload: (tcp.len() - header) as u32,
                window: u16::from_be(self.word(IP + 14)),
                flags: tcp[13] & 0x3f,
                ..Segment::default()
            },
            ports: (u16::from_be(self.word(IP)), u16::from_be(self.word(IP + 2))),
            header,
            ..Parsed::default()
        };
        self.options(&mut parsed)?;
        self.sum_payload(&mut parsed);
        Some(parsed)
    }

    /// The payload's sum, as the dataplane finds it out: from the checksum, of usual headers only.
    fn sum_payload(&self, parsed: &mut Parsed) {
        if !matches!(parsed.header, 20 | 32) {
            return;
        }
        let length = (self.bytes.len() - IP) as u16;
        let mut sum = u32::from(length.to_be()) + u32::from(u16::from(self.bytes[9]).to_be());
        for at in (12..IP + parsed.header).step_by(2) {
            sum += u32::from(self.word(at));
        }
        parsed.segment.sum = !fold(sum);
        parsed.segment.has_sum = true;
    }

    /// Walks the options.
    fn options(&self, parsed: &mut Parsed) -> Option<()> {
        let mut at = HEADER;
        while at < parsed.header {
            let kind = self.bytes[IP + at];
            match kind {
                0 => break,
                1 => {
                    at += 1;
                    continue;
                }
                _ => {}
            }
            let length = usize::from(*self.bytes.get(IP + at + 1)?);
            if length < 2 || at + length > parsed.header {
                return None;
            }
            let segment = &mut parsed.segment;
            match (kind, length) {
                (3, 3) => {
                    segment.window_scale = self.bytes[IP + at + 2].min(14);
                    segment.options |= option::WINDOW_SCALE;
                }
                (4, _) => segment.options |= option::SACK,
                (5, 10..) => {
                    segment.options |= option::SACK;
                    parsed.sack = at;
                    parsed.blocks = ((length - 2) / 8).min(SACK_BLOCKS);
                }
                (8, 10) => {
                    segment.ts_val = u32::from_be(self.double(IP + at + 2));
                    segment.ts_ecr = u32::from_be(self.double(IP + at + 6));
                    segment.options |= option::TIMESTAMP;
                    parsed.timestamps = at + 2;
                }
                _ => {}
            }
            at += length;
        }
        Some(())
    }

    /// The payload.
    pub fn payload(&self, parsed: &Parsed) -> &[u8] {
        &self.bytes[IP + parsed.header..]
    }

    /// What the beginning of the payload comes to.
    pub fn part(&self, parsed: &Parsed, length: u32) -> Part {
        let (part, rest) = self.payload(parsed).split_at(length as usize);
        let sum = |bytes: &[u8]| {
            let words = bytes
                .chunks(2)
                .map(|word| [word[0], *word.get(1).unwrap_or(&0)]);
            fold(words.map(|word| u32::from(u16::from_ne_bytes(word))).sum())
        };
        Part::new(&parsed.segment, length, sum(part), sum(rest))
    }

    /// Left and right edges of the SACK blocks, as they stand.
    pub fn sack_edges(&self, parsed: &Parsed) -> Vec<(u32, u32)> {
        (0..parsed.blocks)
            .map(|block| IP + parsed.sack + 2 + block * 8)
            .map(|at| {
                (
                    u32::from_be(self.double(at)),
                    u32::from_be(self.double(at + 4)),
                )
            })
            .collect()
    }

    /// Makes this the copy for a replica.
    pub fn translate(&mut self, parsed: &Parsed, copy: &Copy) {
        if !parsed.segment.is(bit::ACK) {
            return;
        }
        let mut delta = Delta::new();
        if parsed.timestamps != 0 {
            self.set_double(parsed.timestamps + 4, copy.ts_ecr.to_be(), &mut delta);
        }
        self.set_double(8, copy.ack.to_be(), &mut delta);
        self.set_word(IP + 14, copy.window.to_be(), &mut delta);
        for (block, (left, right)) in self.sack_edges(parsed).into_iter().enumerate() {
            let (left, right) = copy.sack_block(left, right);
            let at = parsed.sack + 2 + block * 8;
            self.set_double(at, left.to_be(), &mut delta);
            self.set_double(at + 4, right.to_be(), &mut delta);
        }
        self.update_checksum(delta);
    }

    /// Gives a replica's segment the numbers that the client must see.
    pub fn renumber(&mut self, parsed: &Parsed, output: &Output) {
        let mut delta = Delta::new();
        if parsed.timestamps != 0 {
            self.set_double(parsed.timestamps, output.ts_val.to_be(), &mut delta);
            self.set_double(parsed.timestamps + 4, output.ts_ecr.to_be(), &mut delta);
        }
        self.set_double(4, output.seq.to_be(), &mut delta);
        self.set_double(8, output.ack.to_be(), &mut delta);
        self.set_word(IP + 14, output.window.to_be(), &mut delta);
        if output.strip_fin {
            let flags = self.word(IP + 12) & !u16::from(bit::FIN).to_be();
            self.set_word(IP + 12, flags, &mut delta);
        }
        if output.blank_sack && parsed.sack != 0 {
            self.blank_sack(parsed, &mut delta);
        }
        self.update_checksum(delta);
    }

    /// Replaces a SACK option by NOPs. It is as long as two and a whole number of fours.
    fn blank_sack(&mut self, parsed: &Parsed, delta: &mut Delta) {
        const NOPS: u32 = 0x0101_0101;
        let old = self.word(IP + parsed.sack);
        let old = if parsed.sack % 2 == 1 {
            old.swap_bytes()
        } else {
            old
        };
        delta.word(old, NOPS as u16);
        self.bytes[IP + parsed.sack..IP + parsed.sack + 2].fill(1);
        for block in 0..parsed.blocks {
            let at = parsed.sack + 2 + block * 8;
            self.set_double(at, NOPS, delta);
            self.set_double(at + 4, NOPS, delta);
        }
    }

    /// Whether both checksums are right.
    pub fn is_intact(&self) -> bool {
        let sum = |bytes: &[u8], start: u32| {
            let words = bytes
                .chunks(2)
                .map(|pair| u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
            fold(words.fold(start, |sum, word| (sum & 0xffff) + (sum >> 16) + word))
        };
        let length = (self.bytes.len() - IP) as u16;
        let pseudo = u32::from(sum(&self.bytes[12..20], 0))
            + u32::from(6u16.to_be())
            + u32::from(length.to_be());
        sum(&self.bytes[..IP], 0) == 0xffff && sum(&self.bytes[IP..], pseudo) == 0xffff
    }
}

/// What a segment that is made from nothing says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bare {
    /// Source and destination address.
    pub addresses: [[u8; 4]; 2],
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Sequence and acknowledgement number.
    pub numbers: (u32, u32),
    /// Timestamp value and echo.
    pub timestamps: Option<(u32, u32)>,
    /// Window field.
    pub window: u16,
    /// Bits of [`bit`].
    pub flags: u8,
}

/// A segment without payload.
pub fn bare(say: &Bare) -> Frame {
    let header = if say.timestamps.is_some() { 32 } else { HEADER };
    let mut bytes = vec![0; IP + header];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&((IP + header) as u16).to_be_bytes());
    bytes[8] = 64;
    bytes[9] = 6;
    bytes[12..16].copy_from_slice(&say.addresses[0]);
    bytes[16..20].copy_from_slice(&say.addresses[1]);
    let tcp = &mut bytes[IP..];
    tcp[..2].copy_from_slice(&say.ports.0.to_be_bytes());
    tcp[2..4].copy_from_slice(&say.ports.1.to_be_bytes());
    tcp[4..8].copy_from_slice(&say.numbers.0.to_be_bytes());
    tcp[8..12].copy_from_slice(&say.numbers.1.to_be_bytes());
    tcp[12] = (header as u8 / 4) << 4;
    tcp[13] = say.flags;
    tcp[14..16].copy_from_slice(&say.window.to_be_bytes());
    if let Some((value, echo)) = say.timestamps {
        tcp[20..24].copy_from_slice(&[1, 1, 8, 10]);
        tcp[24..28].copy_from_slice(&value.to_be_bytes());
        tcp[28..32].copy_from_slice(&echo.to_be_bytes());
    }
    let mut frame = Frame { bytes, of: None };
    frame.fill_checksums();
    frame
}

impl Frame {
    /// The same header with other flags and payload.
    pub fn replaced(mut self, parsed: &Parsed, flags: u8, payload: &[u8]) -> Self {
        self.bytes.truncate(IP + parsed.header);
        self.bytes.extend_from_slice(payload);
        self.bytes[IP + 13] = flags;
        let length = self.bytes.len() as u16;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
        self.fill_checksums();
        self
    }

    fn fill_checksums(&mut self) {
        use smoltcp::wire::{Ipv4Packet, TcpPacket};
        let mut ip = Ipv4Packet::new_unchecked(&mut self.bytes);
        ip.fill_checksum();
        let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
        TcpPacket::new_unchecked(ip.payload_mut()).fill_checksum(&source, &destination);
    }
}
