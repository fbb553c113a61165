//! Time as the dataplane and the agent stamp it, and waiting for a condition.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::time::{ClockId, clock_gettime};

/// How often [`wait_until`] looks again.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of `bpf_ktime_get_ns`, the same
/// in every process of the machine, so stamps from all of them compare.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC is always there");
    now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
}

/// The processor time, summed over processors, that the hypervisor has given to
/// others when this machine wanted it: what a stall that everybody shares was
/// often made of. In steps of 10 ms.
#[must_use]
pub fn stolen_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat
        .lines()
        .next()
        .and_then(|cpu| cpu.split_whitespace().nth(8)?.parse().ok());
    ticks.unwrap_or(0u64) * 10
}

/// Nanoseconds as milliseconds.
#[must_use]
pub fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that polls"
)]
fn pause() {
    thread::sleep(POLL_INTERVAL);
}

/// Polls until `probe` yields something, and names `what` was awaited in vain.
/// An error of the probe ends the wait at once.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {} ms", limit.as_millis());
        }
        pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_advances() {
        let start = monotonic_ns();
        let later = wait_until("a later stamp", Duration::from_secs(1), || {
            Ok(Some(monotonic_ns()).filter(|now| *now > start))
        });
        assert!(later.unwrap() > start);
    }

    #[test]
    fn a_wait_in_vain_says_for_what() {
        let error = wait_until("the moon", Duration::from_millis(5), || Ok(None::<()>));
        assert_eq!(error.unwrap_err().to_string(), "the moon: not within 5 ms");
    }
}
