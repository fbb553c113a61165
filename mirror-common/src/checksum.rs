//! Internet checksum arithmetic (RFC 1071) and its incremental update (RFC 1624, equation 3).
//!
//! Words are taken as they lie in memory: the ones'-complement sum does not care for byte
//! order as long as all operands share it (RFC 1071, 2(B)).

/// Folds a sum of 16-bit words into 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// A pending change of a checksum: differences are gathered and applied once.
#[derive(Clone, Copy, Default, Debug)]
pub struct Delta(u32);

impl Delta {
    /// No change.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    /// A 16-bit word changed, both as they lie in memory.
    #[inline(always)]
    pub fn word(&mut self, old: u16, new: u16) {
        self.0 += u32::from(!old) + u32::from(new);
    }

    /// A 32-bit word on an even offset changed, both as they lie in memory.
    #[inline(always)]
    pub fn double(&mut self, old: u32, new: u32) {
        self.0 += (!old & 0xffff) + (!old >> 16) + (new & 0xffff) + (new >> 16);
    }

    /// A 32-bit word on an odd offset changed: each byte counts in the other half of its word.
    #[inline(always)]
    pub fn double_at(&mut self, odd: bool, old: u32, new: u32) {
        if odd {
            self.double(old.rotate_left(8), new.rotate_left(8));
        } else {
            self.double(old, new);
        }
    }

    /// The checksum field after the change.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(!checksum as u32 + (self.0 & 0xffff) + (self.0 >> 16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        !fold(sum)
    }

    proptest! {
        #[test]
        fn incremental_equals_full(mut bytes in prop::collection::vec(any::<u8>(), 40),
                                   at in 0usize..34, new in any::<u32>()) {
            // Zero has two ones'-complement forms, and real headers are never all zero.
            bytes[38] = 0x45;
            let before = full(&bytes);
            let old = u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            bytes[at..at + 4].copy_from_slice(&new.to_ne_bytes());
            let mut delta = Delta::new();
            delta.double_at(at % 2 == 1, old, new);
            prop_assert_eq!(delta.apply(before), full(&bytes));
        }
    }
}
