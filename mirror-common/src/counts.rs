//! How many packets became what: a row of counts for each VNI.

use crate::{assert_size, limits::VNIS, pod, reason::Reason};

/// The row of packets that are no VNI's, or of which that is not known.
pub const NO_VNI: u16 = 0;
/// The row of VNIs that are gone, whose numbers others may have. Only the agent writes it.
pub const FORMER: u16 = 1;
/// The first number of a VNI, which is that of its row.
pub const FIRST_VNI: u16 = 2;
/// VNIs that there can be.
pub const VNIS_MAX: u32 = VNIS - FIRST_VNI as u32;
/// VNIs that there is room for at least.
const VNIS_LEAST: u32 = 1022;
/// Counts in a row: a power of two, so that a mask keeps every number of a reason within it.
const ROW: usize = 64;

/// A row, as one CPU counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts([u64; ROW]);
assert_size!(Counts, 8 * 64);

pod!(Counts);

impl Default for Counts {
    fn default() -> Self {
        Self([0; ROW])
    }
}

/// Rows for so many VNIs, and as many again that come later: each row takes 512 bytes on every CPU.
#[must_use]
pub const fn rows(vnis: u32) -> u32 {
    let vnis = if vnis > VNIS_MAX { VNIS_MAX } else { vnis };
    let room = if 2 * vnis < VNIS_LEAST {
        VNIS_LEAST
    } else {
        2 * vnis
    };
    let rows = (room + FIRST_VNI as u32).next_power_of_two();
    if rows < VNIS { rows } else { VNIS }
}

impl Counts {
    /// A mask for the numbers of reasons, all of which it leaves as they are.
    pub const MASK: u64 = ROW as u64 - 1;

    /// Counts a packet.
    #[inline(always)]
    pub fn count(&mut self, reason: Reason) {
        self.0[reason as usize] += 1;
    }

    /// How many packets became so.
    #[must_use]
    pub const fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.iter().map(|reason| (*reason, self.of(*reason)))
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, of_other) in self.0.iter_mut().zip(&other.0) {
            *count += of_other;
        }
    }
}

const _: () = assert!(Reason::ALL.len() <= ROW && ROW.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_found_under_its_reason_and_adds_up() {
        let mut counts = Counts::default();
        for reason in [Reason::Cloned, Reason::NoPort, Reason::Cloned] {
            counts.count(reason);
        }
        let mut total = counts;
        total.add(&counts);
        let found = total.iter().filter(|(_, count)| *count > 0);
        let found: std::vec::Vec<_> = found.collect();
        assert_eq!(found, [(Reason::Cloned, 4), (Reason::NoPort, 2)]);
    }

    #[test]
    fn there_are_rows_for_twice_as_many() {
        for (vnis, expected) in [
            (0, 1024),
            (511, 1024),
            (512, 2048),
            (8191, VNIS),
            (VNIS_MAX, VNIS),
            (u32::MAX, VNIS),
        ] {
            assert_eq!(rows(vnis), expected, "{vnis}");
        }
    }
}
