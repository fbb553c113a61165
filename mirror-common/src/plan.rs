//! The clone plan: what the clone program needs to rewrite each copy of a client's packet. It
//! travels in the XDP metadata in front of the packet, so that a clone costs no look-up.

use crate::{assert_size, limits::REPLICAS, tcp::seq};

/// Marks a plan, so that other metadata is never taken for one.
pub const MAGIC: u16 = 0x4d56;

/// Bits of [`Head::flags`].
pub mod flag {
    /// A TCP segment with an acknowledgement to translate.
    pub const ACK: u8 = 1;
    /// Asks for an answer: starts the instance's silence clock.
    pub const ASKS: u8 = 2;
    /// An ICMP error that quotes a segment of the replica, whose sequence number is translated.
    pub const QUOTES_TCP: u8 = 4;
    /// A SYN: starts the clock of [`crate::instance::Vitals::syn_since_ns`].
    pub const SYN: u8 = 8;
    /// Its flow is traced. Only the traced variant of the programs sets it and looks at it.
    pub const TRACED: u8 = 16;
}

/// One copy.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Copy {
    /// The interface that leads to the replica; 0: this replica gets no copy.
    pub ifindex: u32,
    /// Acknowledgement number in the replica's own space.
    pub ack: u32,
    /// Added to SACK edges (canonical space to the replica's own).
    pub delta: u32,
    /// Highest sequence number the replica has produced, its own space: SACK edges beyond it are
    /// blanked.
    pub snd_nxt: u32,
    /// Timestamp echo in the replica's own clock.
    pub ts_ecr: u32,
    /// Instance number.
    pub instance: u16,
    /// Window field.
    pub window: u16,
}
assert_size!(Copy, 24);

impl Copy {
    /// A SACK block of the client in the replica's own numbers. One that reaches beyond what the
    /// replica has produced is emptied: both edges become the acknowledgement, which stacks
    /// ignore.
    #[inline(always)]
    pub const fn sack_block(&self, left: u32, right: u32) -> (u32, u32) {
        let right = right.wrapping_add(self.delta);
        if seq::after(right, self.snd_nxt) {
            (self.ack, self.ack)
        } else {
            (left.wrapping_add(self.delta), right)
        }
    }
}

/// What a plan says of all copies.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Head {
    /// [`MAGIC`].
    pub magic: u16,
    /// Offset of the transport header from the start of the frame.
    pub transport: u16,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Offset of the timestamp values from the transport header, 0: none.
    pub timestamps: u8,
    /// Offset of the first SACK edge, or of the quoted transport header, from the transport
    /// header, 0: none.
    pub edges: u8,
    /// How many SACK blocks there are.
    pub blocks: u8,
    /// The VNI's number.
    pub vni: u32,
    /// Zero.
    pub pad: u32,
}
assert_size!(Head, 16);

impl Head {
    /// Of a packet whose transport header is there, with nothing to translate.
    #[inline(always)]
    pub const fn new(vni: u16, transport: usize, flags: u8) -> Self {
        Self {
            magic: MAGIC,
            transport: transport as u16,
            flags,
            timestamps: 0,
            edges: 0,
            blocks: 0,
            vni: vni as u32,
            pad: 0,
        }
    }
}

/// A packet's plan.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Plan {
    /// Of all copies.
    pub head: Head,
    /// By slot.
    pub copies: [Copy; REPLICAS],
}
assert_size!(Plan, 112);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(delta: u32, block: (u32, u32), expected: (u32, u32)) {
        let copy = Copy {
            ack: 4_000_000_000,
            delta,
            snd_nxt: 300,
            ..Copy::default()
        };
        assert_eq!(copy.sack_block(block.0, block.1), expected);
    }

    #[test]
    fn sack_blocks_move_across_the_wrap_and_not_beyond_what_was_produced() {
        check(200, (0, 100), (200, 300));
        check(u32::MAX - 99, (50, 150), (u32::MAX - 49, 50));
        check(200, (0, 101), (4_000_000_000, 4_000_000_000));
    }
}
