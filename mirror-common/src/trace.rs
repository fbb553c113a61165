//! What the traced variant of the programs tells of the packets of one flow. Nothing of it is pinned: its maps come and go with
//! that variant.

use crate::{assert_size, flow::FlowKey, limits::TRACE_FRAME_MAX, pod, reason::Reason};

/// Numbers of [`Record::program`].
pub mod program {
    /// What a client sent.
    pub const VNI_INGRESS: u8 = 0;
    /// A copy on its way to its replica.
    pub const CLONE: u8 = 1;
    /// What an instance sent.
    pub const INSTANCE_RETURN: u8 = 2;
}

/// Numbers of [`Record::moment`].
pub mod moment {
    /// As the program got the packet.
    pub const BEFORE: u8 = 0;
    /// As the program left it, with what became of it.
    pub const AFTER: u8 = 1;
}

/// Numbers of [`Record::action`]: `enum xdp_action` (include/uapi/linux/bpf.h).
pub mod action {
    /// Dropped.
    pub const DROP: u8 = 1;
    /// To the kernel's stack, or on to the device in a devmap program.
    pub const PASS: u8 = 2;
    /// To another device, or to the copies' devices.
    pub const REDIRECT: u8 = 4;
}

/// [`Record::instance`] when no instance is concerned.
pub const NOBODY: u16 = 0xffff;

/// Words of a flow's key.
pub const KEY_WORDS: usize = size_of::<FlowKey>() / 4;

/// Which packets are told of.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Until when, `CLOCK_MONOTONIC`, ns: an agent that is killed leaves no trace that goes on.
    pub until_ns: u64,
    /// Bits of the flow's key that count, in its words as they lie in memory.
    pub mask: [u32; KEY_WORDS],
    /// What they must be.
    pub key: [u32; KEY_WORDS],
    /// Bytes that are kept of a frame, 1 to [`TRACE_FRAME_MAX`].
    pub frame_bytes: u32,
    /// A bit for each [`program`] that tells, by its number.
    pub programs: u32,
}
assert_size!(Filter, 64);

impl Filter {
    /// Whether a flow is meant. Without a branch for each word: the verifier would follow all of them.
    #[inline(always)]
    pub const fn wants(&self, key: &[u32; KEY_WORDS]) -> bool {
        let mut differs = 0;
        let mut word = 0;
        while word < KEY_WORDS {
            differs |= (key[word] ^ self.key[word]) & self.mask[word];
            word += 1;
        }
        differs == 0
    }
}

/// What is told of a packet at one moment; the first bytes of its frame follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
    /// A bit for each [`Reason`] that was counted for the packet, by its number. Of [`moment::AFTER`] only.
    pub reasons: u64,
    /// Which flow.
    pub flow: FlowKey,
    /// Which packet of the CPU's: both records of a program's run have the same.
    pub packet: u32,
    /// The CPU that ran the program.
    pub cpu: u32,
    /// The frame's length.
    pub length: u32,
    /// How much of it follows.
    pub captured: u32,
    /// The interface it came from, or leaves by: 0 when it leaves by none or by several.
    pub ifindex: u32,
    /// Who sent it or gets it, or [`NOBODY`].
    pub instance: u16,
    /// One of [`program`].
    pub program: u8,
    /// One of [`moment`].
    pub moment: u8,
    /// One of [`action`]. Of [`moment::AFTER`] only.
    pub action: u8,
    /// Zero.
    pub pad: [u8; 7],
}
assert_size!(Record, 72);

// Each reason has its bit.
const _: () = assert!(Reason::COUNT <= u64::BITS);
// So that a bound is a mask.
const _: () = assert!(TRACE_FRAME_MAX.is_power_of_two());

pod!(Filter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bits_of_the_mask_count() {
        let filter = Filter {
            until_ns: 0,
            mask: [!0, 0, 0, 0, 0, 0xffff_0000],
            key: [7, 0, 0, 0, 0, 0x1234_0000],
            frame_bytes: 128,
            programs: 7,
        };
        assert!(filter.wants(&[7, 1, 2, 3, 4, 0x1234_5678]));
        assert!(!filter.wants(&[8, 1, 2, 3, 4, 0x1234_5678]));
        assert!(!filter.wants(&[7, 1, 2, 3, 4, 0x1235_5678]));
    }
}
