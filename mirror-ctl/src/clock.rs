//! The clock of the dataplane. Decisions never read it: they get the time as a number.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` in nanoseconds. The programs read the same clock, most of them as it was at the
/// kernel's last tick.
pub fn now_ns() -> u64 {
    // The call cannot fail for this clock.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(|time| Duration::from(time).as_nanos() as u64)
        .unwrap_or(0)
}

/// Milliseconds since 1970: for what outlives the machine's uptime.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}
