//! The dataplane's clocks: `CLOCK_MONOTONIC` by shifts, because BPF divides slowly and never by a
//! reciprocal. What they count is a little longer than its name says.

/// Milliseconds of 2^20 ns (4.9 % longer than SI's), wrapping.
#[inline(always)]
pub const fn ms(ns: u64) -> u32 {
    (ns >> 20) as u32
}

/// Steps of 2^14 ns (16.4 µs), in which answers are timed; wrapping after 19 hours. There are 2^6 in a
/// millisecond of [`ms`], and 2^16 in a second of [`s`].
#[inline(always)]
pub const fn steps(ns: u64) -> u32 {
    (ns >> 14) as u32
}

/// Seconds of 2^30 ns (7.4 % longer than SI's).
#[inline(always)]
pub const fn s(ns: u64) -> u32 {
    (ns >> 30) as u32
}

/// From one time in seconds of [`s`] to a later one, in SI's seconds; 0 if it is not later.
pub const fn seconds_between(earlier: u32, later: u32) -> u32 {
    (((later.saturating_sub(earlier) as u64) << 30) / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_right_whatever_the_clock_counts() {
        let start_ns = 123 << 30;
        for seconds in [0_u32, 1, 60, 3_600, 864_000] {
            let later = s(start_ns + u64::from(seconds) * 1_000_000_000);
            assert!(
                seconds.abs_diff(seconds_between(s(start_ns), later)) <= 2,
                "{seconds}"
            );
        }
        assert_eq!(seconds_between(5, 4), 0);
    }

    #[test]
    fn steps_are_parts_of_milliseconds_and_of_seconds() {
        for ns in [0, 999_999_999, 7_777_777_777, (1 << 46) - 1] {
            assert_eq!(steps(ns) >> 6, ms(ns) & (u32::MAX >> 6));
            assert_eq!(steps(ns) >> 16, s(ns) & 0xffff);
        }
    }

    #[test]
    fn milliseconds_wrap() {
        assert_eq!(ms(1 << 52), 0);
        assert_eq!(ms(3 << 20), 3);
    }
}
