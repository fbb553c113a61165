//! Questions whose answer is a number, 1 or 0, got by arithmetic and not by comparison: the verifier would follow each outcome of
//! a comparison through all that comes after it, and what is asked of each of four replicas would be walked hundreds of times.

/// 1 if a number is not 0 and at most 2^31, else 0.
#[inline(always)]
pub const fn is_some(number: u32) -> u32 {
    number.wrapping_neg() >> 31
}

/// 1 if a sequence number is before another, else 0.
#[inline(always)]
pub const fn is_before(one: u32, other: u32) -> u32 {
    one.wrapping_sub(other) >> 31
}

/// 1 if two numbers are equal, else 0.
#[inline(always)]
pub fn is_equal(one: u32, other: u32) -> u32 {
    let apart = one ^ other;
    (apart | opaque(apart.wrapping_neg())) >> 31 ^ 1
}

/// One number if `which` is 1, another if it is 0.
#[inline(always)]
pub fn pick(which: u32, one: u32, other: u32) -> u32 {
    other ^ (one ^ other) & opaque(which.wrapping_neg())
}

/// The number itself, of which the compiler knows nothing any more: it would make comparisons of what it sees through, and leave bounds
/// out that the verifier does not see.
#[inline(always)]
pub fn opaque(number: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = u64::from(number);
        // SAFETY: arithmetic on a register, which it leaves as it is. (No instruction at all would give two lines of the source
        // the same place, which the verifier refuses.)
        unsafe {
            core::arch::asm!("{n} |= 0", n = inout(reg) number,
                options(pure, nomem, nostack, preserves_flags));
        }
        number as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_of_comparisons() {
        const NUMBERS: [u32; 7] = [0, 1, 2, 1 << 31, (1 << 31) - 1, u32::MAX - 1, u32::MAX];
        for one in NUMBERS {
            assert_eq!(is_some(one), u32::from(one != 0 && one <= 1 << 31));
            for other in NUMBERS {
                assert_eq!(is_equal(one, other), u32::from(one == other));
                let before = (one.wrapping_sub(other) as i32) < 0;
                assert_eq!(is_before(one, other), u32::from(before));
                assert_eq!((pick(1, one, other), pick(0, one, other)), (one, other));
            }
        }
    }
}
