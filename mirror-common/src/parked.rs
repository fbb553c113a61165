//! Parked segments: the last thing that a mirror said ahead of the active replica.
//!
//! What a mirror sends is suppressed. If the active replica dies before it says the same, the bytes
//! are in the mirror's send queue only, and its TCP believes them to be on their way: it repeats
//! them when its retransmission timer fires, 200 ms later on Linux. The dataplane therefore keeps
//! the newest such segment. After a takeover the agent lets the programs take it in once more, as if
//! the replica had repeated it by itself; the client's selective acknowledgement of it makes the
//! replica's TCP repeat at once whatever is missing in front of it.
//!
//! A SYN-ACK that is held for other replicas' is parked too, to be taken in again when it need not wait
//! any longer.
//!
//! A place is shared by the flows of a hash: a segment that was overwritten costs the time of the
//! timer and nothing else. Writers take no lock, so a reader checks the segment's checksum.

use crate::{assert_size, flow::FlowKey, limits::PARKED, pod};

/// Bytes of the longest frame that is kept: 1,500 of payload behind Ethernet and two VLAN tags.
pub const FRAME_MAX: usize = 1532;

/// One segment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Whose it is.
    pub key: FlowKey,
    /// The sequence number after it, in the replica's own space.
    pub end: u32,
    /// When it passed, `CLOCK_MONOTONIC` in ms, wrapping.
    pub parked_ms: u32,
    /// Bytes of the frame; 0: there is none.
    pub length: u16,
    /// The replica's slot.
    pub slot: u8,
    /// Zero.
    pub pad: u8,
    /// The frame as it came from the instance.
    pub frame: [u8; FRAME_MAX],
}
assert_size!(Parked, 36 + FRAME_MAX);

impl Parked {
    /// Whether this is a segment of a flow's slot.
    #[inline(always)]
    pub fn is_of(&self, key: &FlowKey, slot: u8) -> bool {
        self.slot == slot && self.length != 0 && self.key == *key
    }
}

/// The two places at which a segment of a slot may be, by the flow's hash.
#[inline(always)]
pub const fn places(hash: u32, slot: u8) -> (u32, u32) {
    // Apart for the slots of a flow; the pair differs in the lowest bit.
    let place = (hash.rotate_left(7) ^ (slot as u32).wrapping_mul(0x9e37_79b9)) & (PARKED - 1);
    (place, place ^ 1)
}

pod!(Parked);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_within_bounds_and_apart() {
        for hash in [0, 1, 77, u32::MAX, 0x8000_0001] {
            let mut seen = std::collections::HashSet::new();
            for slot in 0..4 {
                let (first, second) = places(hash, slot);
                assert!(first < PARKED && second < PARKED);
                assert!(seen.insert(first) && seen.insert(second), "{hash} {slot}");
            }
        }
    }
}
