//! How many packets became what: a row of counts for each VNI.

use crate::{assert_size, limits::VNIS, pod, reason::Reason};

/// The row of packets that are no VNI's, or of which that is not known.
pub const NO_VNI: u16 = VNIS as u16;
/// The row of VNIs that are gone, whose numbers others may have. Only the agent writes it.
pub const FORMER: u16 = NO_VNI + 1;
/// Rows: one for each VNI, by its number, and these two.
pub const ROWS: u32 = VNIS + 2;
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
    fn the_rows_are_apart() {
        assert!(u32::from(NO_VNI) >= VNIS && NO_VNI != FORMER);
        assert_eq!(u32::from(FORMER) + 1, ROWS);
    }
}
