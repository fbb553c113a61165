//! Seeds, shared out to all processors.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Has every processor take seeds, so many at a time, until there are none left or `work` says that it is enough.
pub fn share_out(
    seeds: Range<u64>,
    at_a_time: u64,
    work: impl Fn(Range<u64>) -> ControlFlow<()> + Sync,
) {
    let next = AtomicU64::new(seeds.start);
    let take = || {
        loop {
            let first = next.fetch_add(at_a_time, Ordering::Relaxed);
            if first >= seeds.end {
                return;
            }
            if work(first..(first + at_a_time).min(seeds.end)).is_break() {
                next.store(seeds.end, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(take);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn each_seed_is_taken_once() {
        let taken = Mutex::new(Vec::new());
        share_out(5..1_000, 7, |seeds| {
            taken.lock().unwrap().extend(seeds);
            ControlFlow::Continue(())
        });
        let mut taken = taken.into_inner().unwrap();
        taken.sort_unstable();
        assert_eq!(taken, (5..1_000).collect::<Vec<u64>>());
    }

    #[test]
    fn enough_is_enough() {
        let taken = Mutex::new(0);
        share_out(0..u64::MAX / 2, 1, |_| {
            *taken.lock().unwrap() += 1;
            ControlFlow::Break(())
        });
        assert!(*taken.lock().unwrap() >= 1);
    }
}
