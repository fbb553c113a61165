//! The parts of a TCP segment that the protocol looks at.

/// TCP header flags (RFC 9293, section 3.1).
pub mod bit {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset the connection.
    pub const RST: u8 = 4;
    /// Push.
    pub const PSH: u8 = 8;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 16;
}

/// One parsed segment; all numbers in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Timestamp value, 0 without the option.
    pub ts_val: u32,
    /// Timestamp echo reply, 0 without the option.
    pub ts_ecr: u32,
    /// Payload, bytes.
    pub payload: u32,
    /// Window field, unscaled.
    pub window: u16,
    /// Bits of [`bit`].
    pub flags: u8,
    /// Bits of [`super::option`] that the header carries; [`super::option::SACK`] stands for
    /// SACK-permitted on a SYN and for SACK blocks elsewhere.
    pub options: u8,
    /// Window scale option, 0 without it.
    pub window_scale: u8,
    /// Ones'-complement sum of the payload (RFC 1071), as it lies in memory, if [`Self::has_sum`].
    pub sum: u16,
    /// Whether the sum is known.
    pub has_sum: bool,
}

impl Segment {
    /// Whether any of the given flags is set.
    #[inline(always)]
    pub const fn is(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Sequence numbers that it occupies: payload, SYN and FIN.
    #[inline(always)]
    pub const fn length(&self) -> u32 {
        self.payload + (self.flags & bit::FIN) as u32 + ((self.flags & bit::SYN) >> 1) as u32
    }

    /// The sequence number after it.
    #[inline(always)]
    pub const fn end(&self) -> u32 {
        self.seq.wrapping_add(self.length())
    }
}
