//! What a VNI may mirror of its new flows. Looked at when a flow is opened, never for a known one.

use mirror_common::allowance;

use crate::{maps::ALLOWANCES, report::Now};

/// So often a CPU tries to take a token while others take theirs. Each time somebody else has got one, so that whoever goes
/// without a mirror in the end does so in a burst of as many.
const TRIES: usize = 8;

/// Takes a token of a VNI's. `false`: what it opens is to have no mirrors.
#[inline(always)]
pub(crate) fn may_mirror(vni: u16, now: Now) -> bool {
    let Some(place) = ALLOWANCES.get_ptr_mut(u32::from(vni)) else {
        return true;
    };
    for _ in 0..TRIES {
        // SAFETY: the value outlives the program run; single aligned words of it are read. Volatile, so that each try sees
        // what others have written.
        let (every_ns, full_ns) = unsafe {
            (
                core::ptr::addr_of!((*place).every_ns).read_volatile(),
                core::ptr::addr_of!((*place).full_ns).read_volatile(),
            )
        };
        if every_ns == 0 {
            return true;
        }
        let Some(next_ns) = allowance::take(full_ns, every_ns, now.ns) else {
            return false;
        };
        // SAFETY: an aligned word of a live map value, which only this function writes while programs run.
        if unsafe { exchange(core::ptr::addr_of_mut!((*place).full_ns), full_ns, next_ns) } {
            return true;
        }
    }
    false
}

/// Puts `new` in the place of `old`, if that is what is there.
///
/// # Safety
///
/// The place is an aligned word of a live map value.
#[inline(always)]
unsafe fn exchange(place: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the caller's promise; the instruction writes nothing but the word and the register that has what was there
    // (`core` has no compare-and-exchange for this target).
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({place} + 0, r0, {new})",
            place = in(reg) place,
            new = in(reg) new,
            inout("r0") old => found,
        );
    }
    found == old
}
