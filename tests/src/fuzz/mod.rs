//! The takeover protocol under packets that nobody in his right mind would send: forged, stray, repeated, from hosts that contradict
//! themselves, while instances come and go. What must hold whatever is said is checked after each of them.
//!
//! Unlike [`crate::sim`] there are no hosts with a TCP of their own here, so that nothing is said only because TCP would
//! say it; what the protocol promises to hosts that keep to TCP is the simulator's to check.

mod episode;
mod oracle;
mod packets;

use std::ops::{ControlFlow, Range};
use std::sync::Mutex;
use std::time::Instant;

use crate::seeds;

pub use episode::{Counts, Episode, PACKETS};

/// What the seeds showed.
#[derive(Debug, Default)]
pub struct Totals {
    /// What was met.
    pub counts: Counts,
    /// Seeds that broke a rule, and which.
    pub violations: Vec<(u64, String)>,
    /// How long it took, seconds.
    pub elapsed_s: f64,
}

/// Seeds that a thread takes at a time.
const CHUNK: u64 = 256;

/// Runs seeds, of [`PACKETS`] packets each, on all processors until `stop_after` of them have broken a rule. `progress` hears how
/// many packets are done.
pub fn many(all: Range<u64>, stop_after: usize, progress: impl Fn(u64) + Sync) -> Totals {
    let began = Instant::now();
    let totals = Mutex::new(Totals::default());
    seeds::share_out(all, CHUNK, |some| {
        let mut counts = Counts::default();
        let mut broken = Vec::new();
        for seed in some {
            let mut episode = Episode::new(seed);
            if let Err(why) = episode.run(|_| {}) {
                broken.push((seed, why));
            }
            counts.add(&episode.counts);
        }
        let Ok(mut totals) = totals.lock() else {
            return ControlFlow::Break(());
        };
        totals.counts.add(&counts);
        totals.violations.extend(broken);
        progress(totals.counts.packets);
        match totals.violations.len() >= stop_after {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    let mut totals = totals.into_inner().unwrap_or_default();
    totals.violations.sort();
    totals.elapsed_s = began.elapsed().as_secs_f64();
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_is_broken_and_everything_is_met() {
        let totals = many(0..2_000, 1, |_| {});
        assert_eq!(totals.violations, []);
        let counts = &totals.counts;
        assert!(counts.packets > 400_000, "{counts:?}");
        for met in [
            counts.established,
            counts.takeovers,
            counts.cold,
            counts.to_client,
            counts.acked,
            counts.turned_round,
            counts.copies,
            counts.lost,
            counts.closed,
        ] {
            assert!(met > 100, "{counts:?}");
        }
    }

    #[test]
    fn a_seed_is_always_the_same() {
        let told = || {
            let mut lines = Vec::new();
            Episode::new(7)
                .run(|line| lines.push(line.to_string()))
                .unwrap();
            lines
        };
        assert_eq!(told(), told());
    }
}
